"""The command line as a user meets it: quick help, one clear line for an error, work from any folder of the project."""

from __future__ import annotations

import http.server
import json
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from vernissage.cli import app
from vernissage.commands.doctor import Verdict, examine
from vernissage.commands.project import find_project
from vernissage.core.errors import BadInput
from vernissage.core.files import atomic_write_json, sha256_file
from vernissage.core.params import load_params

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[1]
HEAVY = ("torch", "pandas", "dvc", "mlflow", "prefect", "numpy", "great_expectations", "sklearn", "PIL", "pydantic")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with nothing built in it, seen from one of its sub-folders."""
    root = tmp_path / "project"
    (root / "photos" / "mine").mkdir(parents=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params.yaml").write_bytes((PROJECT / "params.yaml").read_bytes())
    monkeypatch.chdir(root / "photos" / "mine")
    return root


@pytest.fixture
def torch_as_it_was() -> Iterator[None]:
    """Commands set torch up for their own process; other tests (hypothesis draws tiny numbers) want it as it was."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def run(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(PROJECT)} | variables
    command = [sys.executable, "-m", "vernissage.cli", *words]
    return subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, timeout=120, check=False)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    probe = (
        "import sys\nfrom vernissage.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as ended:\n    assert ended.code == 0\n"
        f"print('heavy:', sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", probe]
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"
    for verb in ("ingest", "params", "profile", "doctor", "retouch", "judge", "results"):
        assert verb in done.stdout


def test_version() -> None:
    done = invoke("--version")
    assert done.exit_code == 0
    assert done.stdout.startswith("vernissage 0.")


def test_params_show_every_value_from_a_sub_folder(project: Path) -> None:
    done = invoke("params")
    assert done.exit_code == 0
    shown = [line.partition(" = ")[0] for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    listed = json.loads(invoke("params", "--json").stdout)
    assert shown == [row["key"] for row in listed]
    assert {"seed", "lr", "train.retoucher.step_cost"} <= set(shown)
    assert all(row["meaning"] and row["type"] for row in listed)


def test_params_take_overrides_and_a_profile(project: Path) -> None:
    words = ("-S", "lr=5e-5", "-S", "seed=7", "--profile", "gpu", "--json")
    rows = {row["key"]: row["value"] for row in json.loads(invoke("params", *words).stdout)}
    assert rows["lr"] == 5e-05
    assert rows["seed"] == 7
    profile = load_params(project / "params.yaml", profile="gpu")
    assert rows["resize.long_edge"] == profile.resize.long_edge


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("-S", "lrr=1"), "did you mean lr?"),
        (("-S", "lr=fast"), "expected a number"),
        (("-S", "lr"), "expected key=value"),
        (("--profile", "gpuu"), "did you mean gpu?"),
    ],
)
def test_a_bad_parameter_is_one_line_and_code_2(project: Path, words: tuple[str, ...], expected: str) -> None:
    done = run("params", *words, cwd=project)
    assert done.returncode == 2
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_debug_shows_the_traceback(project: Path) -> None:
    done = run("--debug", "params", "-S", "lr=fast", cwd=project)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_profile_words_are_what_dvc_takes(project: Path) -> None:
    done = invoke("profile", "slow-learning")
    assert done.exit_code == 0
    words = shlex.split(done.stdout)
    assert words[::2] == ["-S"] * (len(words) // 2)
    by_profile = load_params(project / "params.yaml", profile="slow-learning")
    assert load_params(project / "params.yaml", overrides=words[1::2]) == by_profile


def test_profile_alone_lists_all(project: Path) -> None:
    done = invoke("profile")
    assert done.exit_code == 0
    for name in load_params(project / "params.yaml").profiles:
        assert name in done.stdout


def test_outside_a_project_the_way_in_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("results")
    assert done.exit_code == 1
    assert "--project" in done.stderr


def test_the_project_can_be_named(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("--project", str(project), "params").exit_code == 0
    assert invoke("--project", str(tmp_path), "params").exit_code == 1


def test_find_project_looks_upwards_only(project: Path) -> None:
    assert find_project(project / "photos") == project.resolve()
    with pytest.raises(BadInput, match=r"dvc\.yaml"):
        find_project(project.parent)


def test_results_before_the_first_run_say_what_to_type(project: Path) -> None:
    done = invoke("results")
    assert done.exit_code == 1
    assert "dvc repro" in done.stderr


def test_results_print_every_system(project: Path) -> None:
    row = {"psnr": {"mean": 24.0, "low": 23.5, "high": 24.5}}
    for system in ("retoucher", "sampler"):
        atomic_write_json(project / "metrics" / f"{system}.json", {"system": system, "rows": {system: row}})
    done = invoke("results")
    assert done.exit_code == 0
    assert "retoucher on the test split" in done.stdout
    assert "sampler on the test split" in done.stdout
    assert "24.00 [23.50, 24.50]" in done.stdout
    assert json.loads(invoke("results", "--json").stdout)["sampler"]["rows"]["sampler"] == row


@pytest.mark.parametrize("content", ["{", "[]", '{"rows": 3}'])
def test_damaged_results_name_the_file(project: Path, content: str) -> None:
    (project / "metrics").mkdir()
    (project / "metrics" / "retoucher.json").write_text(content)
    done = invoke("results")
    assert done.exit_code == 1
    assert "retoucher.json" in done.stderr


def test_retouch_without_a_model_says_what_to_run(project: Path) -> None:
    photo = PROJECT / "LICENSE"
    done = run("retouch", str(photo), "-o", "out", cwd=project)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "dvc" in done.stderr


def test_retouch_of_a_model_that_is_not_there_names_it(project: Path) -> None:
    done = invoke("retouch", "photo.jpg", "-o", "out", "--model", "no/such")
    assert done.exit_code == 1
    assert "no/such" in done.stderr


@pytest.mark.usefixtures("torch_as_it_was")
def test_retouch_goes_on_after_a_failure_and_says_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def retouch_files(paths: list[Path], output: Path, **options: Any) -> list[SimpleNamespace]:
        asked.update(options)
        broken = SimpleNamespace(
            path=paths[0], status="failed", message="[red] is no image", outputs=[], explanation=[]
        )
        good = SimpleNamespace(
            path=paths[1],
            status="edited",
            message="1 edit",
            outputs=[output / "b.jpg"],
            explanation=["exposure +0.70 EV: more light"],
        )
        return [broken, good]

    room = "vernissage.retoucher.use.retouch"
    stand_in = SimpleNamespace(retouch_files=retouch_files, Wishes=SimpleNamespace)
    monkeypatch.setitem(sys.modules, room, stand_in)  # type: ignore[arg-type]
    done = invoke("retouch", "a.jpg", "b.jpg", "-o", "out", "--mode", "quality", "--editable")
    assert done.exit_code == 1
    assert "a.jpg: [red] is no image" in done.stdout
    assert "out/b.jpg" in done.stdout
    assert "exposure +0.70 EV" in done.stdout
    assert "1 of 2 photos failed" in done.stdout
    models = project.resolve() / "models"
    wishes = SimpleNamespace(mode="quality", form="portable", editable=True, extras=True)
    assert asked == {"model_folder": models / "retoucher", "juror_folder": models / "juror", "wishes": wishes}


def test_retouch_knows_the_modes_and_forms_that_the_rooms_know(project: Path) -> None:
    from vernissage.commands.photos import Mode, XmpForm
    from vernissage.retoucher.domain.xmp import FORMS
    from vernissage.retoucher.use.agent import MODES

    assert tuple(Mode) == MODES
    assert tuple(XmpForm) == FORMS
    for option, known in (("--mode", MODES), ("--xmp", FORMS)):
        done = run("retouch", "a.jpg", "-o", "out", option, "finest", cwd=project)
        assert done.returncode == 2
        assert "finest" in done.stderr
        assert all(name in done.stderr for name in known)
    assert not (project / "out").exists()


@pytest.mark.usefixtures("torch_as_it_was")
def test_judge_lists_scores_and_goes_on_after_a_bad_photo(project: Path, tmp_path: Path) -> None:
    from PIL import Image

    from tests.retoucher.agents import agent_with_plan, save_models

    _, juror = save_models(tmp_path / "models", agent_with_plan())
    Image.linear_gradient("L").convert("RGB").save(project / "good.png")
    (project / "bad.jpg").write_text("no picture")
    words = ("judge", str(project / "bad.jpg"), str(project / "good.png"), "--juror", str(juror))
    done = invoke(*words)
    assert done.exit_code == 1
    assert "256x256" in done.stdout
    assert "bad.jpg: " in done.stdout
    assert "1 of 2 photos could not be judged" in done.stdout
    done = invoke(*words, "--json")
    assert done.exit_code == 1
    bad, good = json.loads(done.stdout)
    assert bad["score"] is None
    assert bad["problem"]
    assert 0 <= good["score"] <= 10
    assert good["size"] == [256, 256]
    assert "luma_p50" in good["statistics"]
    assert invoke("judge", str(project / "good.png"), "--juror", str(juror)).exit_code == 0


@pytest.mark.usefixtures("torch_as_it_was")
def test_judge_without_a_juror_says_what_to_run(project: Path) -> None:
    done = invoke("judge", "photo.jpg")
    assert done.exit_code == 1
    assert "dvc repro juror" in done.stderr
    done = invoke("judge", "photo.jpg", "--juror", "no/such")
    assert done.exit_code == 1
    assert "no/such" in done.stderr


def test_ingest_of_no_folder_is_one_line(project: Path) -> None:
    done = run("ingest", "no-such-folder", cwd=project)
    assert done.returncode == 1
    assert "no-such-folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_ingest_tracks_photos_and_says_what_is_next(project: Path) -> None:
    from PIL import Image

    folder = project.parent / "Fotos"
    (folder / "ocean").mkdir(parents=True)
    Image.linear_gradient("L").convert("RGB").save(folder / "ocean" / "wave.jpg")
    (folder / "broken.jpg").write_bytes(b"no picture")
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=project, check=True)
    done = run("ingest", str(folder), cwd=project)
    assert done.returncode == 0, done.stderr
    assert "ocean" in done.stdout
    assert "rejected broken.jpg" in done.stdout
    assert "dvc repro" in done.stdout
    assert (project / "data" / "ingest" / "photos.dvc").is_file()


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path in {"/health", "/api/health"} else 404)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def verdicts(project: Path) -> dict[str, tuple[Verdict, str, str]]:
    return {check.name: (check.verdict, check.found, check.mend) for check in examine(project)}


def test_doctor_finds_what_is_wrong_and_how_to_mend_it(project: Path) -> None:
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "lrr: 3\n")
    model = project / "models" / "retoucher"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    atomic_write_json(model / "model.json", {"sha256": "0" * 64})
    done = run("doctor", "--json", cwd=project)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    wrong = {check["name"]: check for check in report["checks"] if check["verdict"] == "wrong"}
    assert {"git", "dvc", "params.yaml", "models/retoucher"} <= set(wrong)
    assert report["wrong"] == len(wrong)
    assert all(check["mend"] for check in wrong.values())
    assert "lrr" in wrong["params.yaml"]["found"]


def test_doctor_is_content_with_what_is_right(project: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    (project / ".dvc").mkdir()
    model = project / "models" / "retoucher"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    atomic_write_json(model / "model.json", {"sha256": sha256_file(model / "model.safetensors")})
    found = verdicts(project)
    for name in (
        "python",
        "packages",
        "fastapi beside prefect",
        "device",
        "project",
        "params.yaml",
        "models/retoucher",
    ):
        assert found[name][0] is Verdict.OK, found[name]
    assert not [name for name, check in found.items() if check[0] is Verdict.WRONG]


def test_doctor_asks_the_configured_servers(
    project: Path, server: str, unused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("PREFECT_API_URL", f"{server}/api")
    found = verdicts(project)
    assert found["mlflow"][:2] == (Verdict.OK, f"answers at {server}")
    assert found["prefect"][0] is Verdict.OK
    monkeypatch.setenv("PREFECT_API_URL", unused)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{server}/elsewhere")
    found = verdicts(project)
    assert found["prefect"][0] is Verdict.NOTE
    assert "prefect server start" in found["prefect"][2]
    assert "404" in found["mlflow"][1]


@pytest.fixture
def unused() -> str:
    with http.server.HTTPServer(("127.0.0.1", 0), _Answers) as closed:
        port = closed.server_port
    return f"http://127.0.0.1:{port}/api"


def test_doctor_keeps_passwords_to_itself(project: Path, unused: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", unused.replace("//", "//me:hunter2@"))
    assert "hunter2" not in repr(verdicts(project)["mlflow"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:hunter2@db/mlflow")
    assert "hunter2" not in repr(verdicts(project)["mlflow"])


def test_doctor_reads_ranges_from_the_project(project: Path) -> None:
    (project / "pyproject.toml").write_text('[project]\ndependencies = ["rich>=999", "no-such-package"]\n')
    verdict, found, mend = verdicts(project)["packages"]
    assert verdict is Verdict.WRONG
    assert "rich" in found
    assert "no-such-package is missing" in found
    assert "constraints.txt" in mend


def test_doctor_names_a_device_that_is_not_there(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERNISSAGE_DEVICE", "toaster")
    verdict, found, _ = verdicts(project)["device"]
    assert verdict is Verdict.WRONG
    assert "toaster" in found


def test_a_file_gets_plain_text(project: Path) -> None:
    done = run("params", cwd=project)
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) > 80  # not folded
