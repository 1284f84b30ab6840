"""Progress in a log, on a terminal (a real pseudo-terminal), and in the scheduler's file."""

from __future__ import annotations

import io
import json
import math
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from vernissage.core import progress as progress_module
from vernissage.core.errors import BadParams
from vernissage.core.progress import Progress, track

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    """Time that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module.time, "monotonic", clock.monotonic)
    for name in ("VERNISSAGE_PROGRESS_SECONDS", "VERNISSAGE_PROGRESS_FILE"):
        monkeypatch.delenv(name, raising=False)
    return clock


def test_lines_of_a_log_known_answers(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("resize", total=300, unit="photos") as progress:
        for _ in range(300):
            clock.now += 0.0625
            progress.advance()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "resize: 80/300 photos (27 %), 16/s, 14 s left",
        "resize: 160/300 photos (53 %), 16/s, 9 s left",
        "resize: 240/300 photos (80 %), 16/s, 4 s left",
        "resize: 300/300 photos (100 %), 16/s, took 19 s",
    ]


def test_fields_messages_and_an_unknown_total(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("train", unit="steps") as progress:
        clock.now += 7200
        progress.advance(36, loss=0.123456, best="epoch 3")
        progress.message("saved")
        clock.now += 65
        progress.advance(0, loss=0.1)
    assert capsys.readouterr().out.splitlines() == [
        "train: 36 steps, 0.005/s, loss 0.1235, best epoch 3",
        "train: saved",
        "train: 36 steps, 0.00496/s, loss 0.1, best epoch 3",
        "train: 36 steps, 0.00496/s, took 2 h 01 min, loss 0.1, best epoch 3",
    ]


def test_the_interval_comes_from_the_environment(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VERNISSAGE_PROGRESS_SECONDS", "0")
    assert list(track("abc", description="spell", unit="letters")) == ["a", "b", "c"]
    assert len(capsys.readouterr().out.splitlines()) == 4
    monkeypatch.setenv("VERNISSAGE_PROGRESS_SECONDS", "1000")
    list(track(iter("abc"), description="spell", total=3))
    assert capsys.readouterr().out.splitlines() == ["spell: 3/3 it (100 %), 0/s, took 0 s"]


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_an_odd_interval_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("VERNISSAGE_PROGRESS_SECONDS", text)
    with pytest.raises(BadParams, match="VERNISSAGE_PROGRESS_SECONDS"):
        Progress("x")


def test_a_failure_passes_through_and_the_last_line_says_how_far(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        for item in track(range(4), description="count"):
            clock.now += 1
            if item == 2:
                raise KeyError(item)

    with pytest.raises(KeyError):
        fails()
    assert capsys.readouterr().out.splitlines()[-1] == "count: 2/4 it (50 %), 0.667/s, 3 s left"


def test_nothing_to_do(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track([], description="idle")) == []
    assert capsys.readouterr().out == "idle: 0/0 it, 0/s, took 0 s\n"


def test_the_file_for_the_scheduler(clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    monkeypatch.setenv("VERNISSAGE_PROGRESS_FILE", str(path))
    with Progress("train", total=10, unit="steps") as progress:
        assert json.loads(path.read_text())["done"] == 0
        clock.now += 6
        progress.advance(4, loss=0.5, broken=math.nan, phase="ppo")
        assert json.loads(path.read_text()) == {
            "description": "train",
            "done": 4,
            "total": 10,
            "unit": "steps",
            "seconds": 6.0,
            "fields": {"loss": 0.5, "phase": "ppo"},
        }
        progress.advance(6)
    assert json.loads(path.read_text())["done"] == 10
    assert [entry.name for entry in tmp_path.iterdir()] == ["progress.json"]


def test_a_progress_file_that_cannot_be_written_does_not_end_the_work(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VERNISSAGE_PROGRESS_FILE", str(tmp_path / "file" / "progress.json"))
    assert list(track("ab", description="go")) == ["a", "b"]
    assert capsys.readouterr().out.count("progress file is given up") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_bar() -> None:
    import pty

    code = (
        "from vernissage.core.progress import Progress\n"
        "with Progress('resize [x]', total=3, unit='photos') as progress:\n"
        "    for _ in range(3): progress.advance(1, loss=0.25)\n"
        "    progress.message('half [way]')\n"
    )
    main, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    environment.pop("VERNISSAGE_PROGRESS_FILE", None)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=child, stderr=child, env=environment)
    os.close(child)
    shown = b""
    try:
        while block := os.read(main, 4096):
            shown += block
    except OSError:  # Linux says EIO, where others say end of file, when the child has closed its side
        pass
    finally:
        os.close(main)
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert "resize [x]" in text
    assert "3/3 photos" in text
    assert "loss 0.25" in text
    assert "half [way]" in text


def test_a_replaced_stdout_is_used(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.StringIO()
    monkeypatch.setattr(sys, "stdout", buffer)
    list(track("a", description="go"))
    assert buffer.getvalue().startswith("go: 1/1 it")


def test_one_inside_another_says_its_lines_and_leaves_the_file_to_the_outer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VERNISSAGE_PROGRESS_FILE", str(tmp_path / "progress.json"))
    monkeypatch.setenv("VERNISSAGE_PROGRESS_SECONDS", "0")
    with Progress("outer", total=2, unit="parts") as outer:
        with Progress("inner", total=1, unit="steps") as inner:
            inner.advance()
        outer.advance()
    assert "inner: 1/1 steps" in capsys.readouterr().out
    assert json.loads((tmp_path / "progress.json").read_text())["description"] == "outer"


def test_two_at_once_on_a_terminal_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with Progress("outer", total=1, unit="parts"), Progress("inner", total=1, unit="steps") as inner:
        inner.advance()


def test_advancing_from_threads_loses_nothing() -> None:
    with Progress("many", total=4000, unit="steps") as progress, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: progress.advance(), range(4000)))
    assert progress.done == 4000
