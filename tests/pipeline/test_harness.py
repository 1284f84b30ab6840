"""The harness, tried on real processes: how a stage ends, what it leaves behind, and what it never starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vernissage.pipeline.harness import run_stage, scratch_folder

PROJECT = Path(__file__).parents[2]
SECONDS = 60


@dataclass
class Workshop:
    """A folder with params.yaml in which stages are run."""

    folder: Path

    def start(self, body: str, *, options: str = "", name: str = "train@toy") -> subprocess.Popen[str]:
        lines = ["from vernissage.core import errors, files", "from vernissage.pipeline.harness import run_stage"]
        lines += ["import os, sys, time", "def work(params):", *(f"    {line}" for line in body.splitlines())]
        lines.append(f"run_stage({name!r}, work{options})")
        (self.folder / "stage.py").write_text("\n".join(lines))
        environment = os.environ | {"VERNISSAGE_SCRATCH": "scratch", "PYTHONPATH": str(PROJECT)}
        return subprocess.Popen(
            [sys.executable, "stage.py"],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, body: str, **options: Any) -> subprocess.CompletedProcess[str]:
        with self.start(body, **options) as process:
            out, err = process.communicate(timeout=SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def status(self, name: str = "train@toy") -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "scratch" / name / "status.json").read_text())
        return content

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, f"{name} did not appear"
            time.sleep(0.01)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    (tmp_path / "params.yaml").write_bytes((PROJECT / "params.yaml").read_bytes())
    return Workshop(tmp_path)


def test_a_stage_that_works(workshop: Workshop) -> None:
    done = workshop.run("files.atomic_write_text('out.txt', f'{params.lr:g}')")
    assert done.returncode == 0, done.stderr
    assert (workshop.folder / "out.txt").read_text() == "0.0003"
    last = done.stdout.splitlines()[-1]
    assert last.startswith("train@toy: done in ")
    assert last.endswith(" MB")
    status = workshop.status()
    assert status["state"] == "ok"
    assert status["seconds"] >= 0
    assert 10 < status["peak_memory_mb"] < 2000
    assert set(status) == {"state", "message", "seconds", "peak_memory_mb"}


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        ("errors.BadInput('photo.jpg: empty file, expected a photo')", "failed", 1),
        ("errors.GateFailed('gate toy: 1 of 2 expectations failed')", "gate_failed", 1),
        ("errors.BadParams('device = gpu: unknown')", "bad_params", 2),
        ("errors.NotEnoughDisk('data: 1 GiB free, 2 GiB needed')", "transient", 1),
        ("OSError(28, 'No space left on device', 'data/x.png')", "transient", 1),
    ],
)
def test_an_expected_error_is_one_message(workshop: Workshop, error: str, state: str, code: int) -> None:
    done = workshop.run(f"raise {error}")
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    status = workshop.status()
    assert status["state"] == state
    assert status["message"]
    assert f"train@toy: {status['message']}" in done.stderr


def test_an_unexpected_error_keeps_its_traceback(workshop: Workshop) -> None:
    done = workshop.run("{}['nothing']")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "stage.py" in done.stderr
    assert workshop.status()["state"] == "failed"
    assert workshop.status()["message"] == "KeyError: 'nothing'"


def test_a_typo_in_params_is_refused_before_any_work(workshop: Workshop) -> None:
    params = workshop.folder / "params.yaml"
    params.write_text(params.read_text().replace("step_cost:", "step_cots:"))
    done = workshop.run("open('touched', 'w').close()")
    assert done.returncode == 2
    assert "step_cots" in done.stderr
    assert "step_cost?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (workshop.folder / "touched").exists()
    assert workshop.status()["state"] == "bad_params"


def test_too_little_disk_is_said_before_any_work(workshop: Workshop) -> None:
    done = workshop.run("open('touched', 'w').close()", options=", disk_gb=10_000_000")
    assert done.returncode == 1
    assert "needed" in done.stderr
    assert not (workshop.folder / "touched").exists()
    assert workshop.status()["state"] == "transient"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_cleans_up_and_is_recorded(workshop: Workshop, number: signal.Signals, code: int) -> None:
    body = """
(files.Path('old.txt')).write_text('before')
try:
    with files.atomic_path('old.txt') as temporary:
        temporary.write_text('half')
        open('working', 'w').close()
        time.sleep(60)
except Exception:
    open('swallowed', 'w').close()
"""
    process = workshop.start(body.strip())
    workshop.wait_for("working")
    process.send_signal(number)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert (workshop.folder / "old.txt").read_text() == "before"
    assert not list(workshop.folder.glob(".tmp-*"))
    assert not (workshop.folder / "swallowed").exists()
    assert workshop.status()["state"] == "interrupted"


def test_a_second_sigterm_does_not_cut_the_cleaning_up_short(workshop: Workshop) -> None:
    body = """
try:
    open('working', 'w').close()
    time.sleep(60)
finally:
    open('cleaning', 'w').close()
    time.sleep(0.5)
    open('cleaned', 'w').close()
"""
    process = workshop.start(body.strip())
    workshop.wait_for("working")
    process.terminate()
    workshop.wait_for("cleaning")
    process.terminate()
    process.communicate(timeout=SECONDS)
    assert process.returncode == 143
    assert (workshop.folder / "cleaned").exists()


def test_a_killed_stage_leaves_no_status_of_the_run_before(workshop: Workshop) -> None:
    assert workshop.run("pass").returncode == 0
    process = workshop.start("open('working', 'w').close()\ntime.sleep(60)")
    workshop.wait_for("working")
    process.kill()
    process.communicate(timeout=SECONDS)
    assert not (workshop.folder / "scratch" / "train@toy" / "status.json").exists()


def test_torch_is_imported_only_when_the_stage_asks(workshop: Workshop) -> None:
    assert workshop.run("assert 'torch' not in sys.modules").returncode == 0
    body = "import torch\nassert torch.get_num_threads() == int(os.environ['VERNISSAGE_THREADS'])"
    done = workshop.run(body, options=", torch=True")
    assert done.returncode == 0, done.stderr


def test_a_scratch_that_cannot_be_written_does_not_spoil_the_result(workshop: Workshop) -> None:
    (workshop.folder / "scratch").write_text("a file where the folder should be")
    done = workshop.run("open('out', 'w').close()")
    assert done.returncode == 0, done.stderr
    assert (workshop.folder / "out").exists()
    assert "status not written" in done.stderr


def test_scratch_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERNISSAGE_SCRATCH", "elsewhere")
    assert scratch_folder("train@toy") == Path("elsewhere/train@toy")
    monkeypatch.delenv("VERNISSAGE_SCRATCH")
    assert scratch_folder("resize") == Path("scratch/resize")


def test_run_stage_never_returns(monkeypatch: pytest.MonkeyPatch, workshop: Workshop) -> None:
    monkeypatch.chdir(workshop.folder)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            run_stage("resize", lambda params: None)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 0
