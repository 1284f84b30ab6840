"""`vernissage tune` as a user types it: real trials, Ctrl-C and what to type then, names that there are not."""

from __future__ import annotations

import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
import torch
from typer.testing import CliRunner

from tests.retoucher.agents import agent_with_plan, save_models
from tests.retoucher.domain.procedural import scene
from vernissage.cli import app
from vernissage.commands.tune import TuneRequest, study_plan
from vernissage.core.files import atomic_write_text
from vernissage.core.images import save_png
from vernissage.core.params import load_params
from vernissage.retoucher.domain.pictures import tile_pixels
from vernissage.retoucher.learn.tuning import running_study

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vernissage.retoucher.learn.tuning import StudyPlan

PROJECT = Path(__file__).parents[2]
SIDE = 32
TINY = (
    *("resize.long_edge=32", "resize.min_edge=16", "juror.size=32"),
    *(f"train.retoucher.{text}" for text in ("view=16", "horizon=2", "imagined_scenes=0", "crops=1", "slots=32")),
    *(f"train.retoucher.{text}" for text in ("planner_images=96", "planner_batch=32", "ppo_steps=0", "rollout=16")),
)
WORDS = tuple(word for text in TINY for word in ("-S", text))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with what the stage train@retoucher reads: pairs of tiny photos and a juror."""
    root = tmp_path_factory.mktemp("tune") / "project"
    ready = root / "data" / "retoucher" / "ready"
    (root / "tuning").mkdir(parents=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params.yaml").write_bytes((PROJECT / "params.yaml").read_bytes())
    rows = ["pair_id,split,group,category,original,faulty,n_faults,faults"]
    for number in range(6):
        photo = scene(SIDE, SIDE, number)[0]
        for kind, picture in (("original", photo), ("faulty", photo * 0.5)):
            save_png(ready / kind / f"{number}.png", tile_pixels(picture.clamp(0, 1)))
        split = "val" if number > 3 else "train"
        rows.append(f"{number},{split},g{number},,original/{number}.png,faulty/{number}.png,1,[]")
    atomic_write_text(ready / "pairs.csv", "\n".join(rows) + "\n")
    save_models(root / "models", agent_with_plan())
    return root


@pytest.fixture(autouse=True)
def in_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(project)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, ["tune", *words])


def test_trials_run_and_go_on_and_their_best_line_can_be_typed(project: Path) -> None:
    first = invoke("retoucher", "--algorithm", "planner", "--trials", "1", *WORDS)
    assert first.exit_code == 0, first.output
    assert "trial 0 (the present values): objective" in first.stdout
    done = invoke("retoucher", "--algorithm", "planner", "--trials", "2", *WORDS)
    assert done.exit_code == 0, done.output
    assert "1 of 2 trials finished" in done.stdout
    assert "2 trials: 2 trained to the end" in done.stdout
    line = done.stdout.splitlines()[-1]
    words = shlex.split(line)
    assert words[:3] == ["dvc", "exp", "run"]
    load_params(project / "params.yaml", overrides=words[4::2])
    folder = project / "tuning" / "retoucher-planner"
    assert (folder / "best.txt").read_text().strip() == line
    assert (folder / "index.html").is_file()
    # Nothing that the pipeline has made is touched.
    assert not (project / "runs").exists()
    assert not (Path(os.environ["VERNISSAGE_SCRATCH"]) / "train@retoucher").exists()
    shown = invoke("retoucher", "--algorithm", "planner", "--trials", "0", *WORDS)
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[-1] == line


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("painter", "--trials", "1"), 2, "system 'painter' is unknown here, expected one of: retoucher"),
        (
            ("retoucher", "--trials", "1", "--algorithm", "a2c"),
            2,
            "expected one of ppo (planner and PPO together), dqn",
        ),
        (("retoucher", "--trials", "1", "--objective", "psnr"), 1, "expected one of objective, gain, worse"),
        (("retoucher", "--trials", "1", "--study", "../up"), 1, "cannot name a folder"),
        (("retoucher", "--trials", "0", "--study", "mine"), 1, "study 'mine': there is none in"),
        (("retoucher", "--trials", "1", "-S", "lrr=1"), 2, "did you mean lr?"),
    ],
)
def test_names_that_there_are_not(words: tuple[str, ...], code: int, expected: str) -> None:
    done = invoke(*words)
    assert (done.exit_code, expected in done.stderr) == (code, True), done.output


def test_without_data_it_says_what_to_run(project: Path, tmp_path: Path) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_bytes((project / name).read_bytes())
    done = CliRunner().invoke(app, ["--project", str(tmp_path), "tune", "retoucher", "--trials", "1"])
    assert done.exit_code == 1
    assert "pairs.csv" in done.stderr
    assert "juror.json" in done.stderr
    assert "dvc repro degrade-split" in done.stderr
    assert not (tmp_path / "tuning").exists()


def test_what_is_not_searched_must_stay_the_same(project: Path) -> None:
    def plan(*overrides: str) -> StudyPlan:
        return study_plan(TuneRequest(project, trials=1, algorithm="planner", study="fixed", overrides=overrides))

    with running_study(plan()) as study:
        study.add_trial(optuna.trial.create_trial(value=0.0))
    words = ("retoucher", "--algorithm", "planner", "--study", "fixed", "--trials", "1")
    other = invoke(*words, "-S", "train.retoucher.harm_aversion=0.7")
    assert other.exit_code == 1
    assert "train.retoucher.harm_aversion" in other.stderr
    # What changes no figure may change.
    with running_study(plan("train.retoucher.shown_episodes=0", "train.retoucher.juror_workers=2")):
        pass


def test_the_words_to_go_on_are_the_words_that_were_typed(project: Path) -> None:
    request = TuneRequest(
        project=project,
        trials=9,
        algorithm="dqn",
        study="a study",
        objective="gain",
        storage=Path("else where"),
        seconds_per_trial=90.0,
        jobs=2,
        profile="test",
        overrides=("lr=0.001",),
    )
    words = shlex.split(request.command())
    assert words == [
        *("vernissage", "tune", "retoucher", "--trials", "9", "--algorithm", "dqn", "--study", "a study"),
        *("--objective", "gain", "--storage", "else where", "--seconds-per-trial", "90", "--jobs", "2"),
        *("--profile", "test", "-S", "lr=0.001"),
    ]
    assert TuneRequest(project=project, trials=2).command() == "vernissage tune retoucher --trials 2"


def test_a_plan_names_what_is_part_of_the_result(project: Path) -> None:
    ppo = study_plan(TuneRequest(project=project, trials=1, algorithm="ppo"))
    dqn = study_plan(TuneRequest(project=project, trials=1, algorithm="dqn"))
    assert ppo.space.chosen == {}  # params.yaml says so already
    assert dqn.space.chosen == {"train.retoucher.algorithm": "dqn"}
    assert dqn.name == "retoucher-dqn"
    assert ppo.about["seed"] == 0
    assert "data/retoucher/ready/pairs.csv" in ppo.about
    assert not {dimension.key for dimension in ppo.space.dimensions} & ppo.about.keys()


def start(project: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vernissage.cli", "tune", "retoucher", *words, *WORDS]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    return subprocess.Popen(command, cwd=project, env=environment, text=True, stdout=subprocess.PIPE)


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(project: Path) -> None:
    with start(project, "--algorithm", "planner", "--study", "stopped", "--trials", "400") as process:
        database = project / "tuning" / "stopped" / "study.db"
        wait_for(database, "SELECT count(*) FROM trial_intermediate_values WHERE trial_id = 2", process)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=240)[0]
    assert process.returncode == 130
    assert "stopped; nothing is lost. Go on with:" in output
    again = next(line for line in output.splitlines() if line.strip().startswith("vernissage tune"))
    assert "--study stopped" in again
    assert again.count("-S ") == len(TINY)
    assert output.splitlines()[-1].startswith("dvc exp run")
    states = [trial.state.name for trial in trials_of(database, "stopped")]
    assert "RUNNING" not in states
    assert states[-2:] == ["FAIL", "WAITING"]


def test_two_processes_share_a_study(project: Path) -> None:
    with start(project, "--algorithm", "planner", "--study", "shared", "--trials", "3", "--jobs", "2") as process:
        output = process.communicate(timeout=400)[0]
    assert process.returncode == 0, output
    trials = trials_of(project / "tuning" / "shared" / "study.db", "shared")
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    assert len({str(trial.params) for trial in trials}) == 3
    assert "3 trials: 3 trained to the end" in output


def trials_of(database: Path, study: str) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{database}")
    try:
        return optuna.load_study(storage=storage, study_name=study).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


def wait_for(database: Path, question: str, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 240
    while time.monotonic() < until:
        assert process.poll() is None, "the study ended by itself"
        try:
            connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
            try:
                if connection.execute(question).fetchone()[0]:
                    return
            finally:
                connection.close()
        except sqlite3.OperationalError:
            pass
        time.sleep(0.01)
    raise AssertionError("the study did not get so far")
