"""`vernissage bench retoucher` as a user meets it: tables, files, several models, and bad input."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from tests.retoucher.agents import agent_with_plan, save_models
from tests.retoucher.domain.procedural import scene
from vernissage.cli import app
from vernissage.commands import bench_retoucher
from vernissage.core.images import load_rgb8, save_png, to_uint8
from vernissage.retoucher.judge.classics import DEFAULTS
from vernissage.retoucher.learn.regressor import Regressor, RegressorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Away from any project; and torch as it was, which the command sets up for a process of its own."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        save_png(folder / f"photo{number}.png", to_uint8(scene(64, 80, number)[0].permute(1, 2, 0).numpy()))
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    """Two agents, with one juror beside each."""
    brighter, _ = save_models(tmp_path / "first", agent_with_plan({"exposure": 0.1}))
    idle, _ = save_models(tmp_path / "second", agent_with_plan())
    return brighter, idle


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["bench", "retoucher", *map(str, words)])


def document(*words: object) -> dict[str, Any]:
    done = invoke(*words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_classics_are_measured_beside_the_agent(photos: Path, models: tuple[Path, Path]) -> None:
    done = invoke("--photos", photos, "--model", models[1], "--draws", 2, "--baselines", "classics")
    assert done.exit_code == 0, done.output
    for words in (
        "retoucher on 3 photos",
        "PSNR [dB] ↑",
        "clean >3 ↓",
        "retoucher by fault, number of faults and difficulty",
        "3 photos, 2 draws each, seed 0",
        "a preview, no headline: that takes 32 draws per photo",
        "classic corrections with their usual settings (no project): autocontrast 0, auto levels 0.001",
        "retoucher minus ",
    ):
        assert words in done.stdout
    assert "oracle" not in done.stdout
    lines = done.stdout.splitlines()
    first = next(line for at, line in enumerate(lines) if lines[at - 1].startswith("method"))
    assert first.startswith((*DEFAULTS, "no edit"))


def test_the_document_says_the_same_every_time(photos: Path, models: tuple[Path, Path]) -> None:
    words = ("--photos", photos, "--model", models[0], "--draws", 2, "--baselines", "none")
    first = document(*words, "--seed", 3)
    assert first == document(*words, "--seed", 3)
    assert first["rows"] != document(*words, "--seed", 4)["rows"]
    assert first["order"] == ["no edit", "retoucher"]
    assert first["headline"] is None
    assert first["models"] == {"retoucher": str(models[0])}
    assert first["rows"]["retoucher"]["n"] == 6
    # An agent that brightens whatever it gets leaves no clean photo alone.
    assert first["rows"]["retoucher"]["clean_delta_e"]["low"] > 0.5
    assert first["rows"]["no edit"]["clean_max"] == 0


def test_several_trainings_stand_side_by_side_with_their_spread(photos: Path, models: tuple[Path, Path]) -> None:
    words = ("--photos", photos, "--draws", 2, "--baselines", "none", "--mode", "all")
    found = document(*words, "--model", models[0], "--model", models[1])
    own = ["retoucher 1", "retoucher 2", "retoucher 1 (quality)", "retoucher 2 (quality)"]
    assert found["agents"] == own
    values = [found["rows"][name]["psnr"]["mean"] for name in own[:2]]
    assert found["spread"]["fast"]["psnr"]["mean"] == pytest.approx(np.mean(values), abs=1e-3)
    assert found["spread"]["fast"]["psnr"]["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-3)
    assert any(note.startswith("2 trainings, quality, mean ± standard deviation: PSNR") for note in found["notes"])
    assert any(note == f"retoucher 2: {models[1]}" for note in found["notes"])
    alone = document(*words, "--model", models[1])
    assert alone["rows"]["retoucher"]["psnr"]["mean"] == pytest.approx(values[1], abs=1e-3)


def test_everything_takes_part_and_is_written(
    photos: Path, models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "dvc.yaml").write_text("stages: {}\n")
    Regressor(RegressorSpec(32, 64, (4, 8))).save(project / "runs" / "retoucher" / "benchmark" / "regressor")
    monkeypatch.chdir(project)
    output = tmp_path / "out"
    done = invoke("--photos", photos, "--model", models[1], "--draws", 1, "-o", output)
    assert done.exit_code == 0, done.output
    assert "knows the original, so an upper bound and no rival: oracle greedy" in done.stdout
    assert "juror search minus policy" in done.stdout
    assert "no one-shot regressor" not in done.stdout
    written = json.loads((output / "protocol.json").read_text())
    names = set(written["rows"])
    assert {"one-shot regressor", "beam juror search", "greedy juror search", "random", *DEFAULTS} < names
    assert written["order"][-1] == "oracle greedy (upper bound)"
    assert written["strongest"] != written["order"][-1]
    assert written["search_beats_policy"]["n"] == 3
    assert {"juror_gain", "hack_gap"} <= set(written["rows"]["beam juror search"])
    items = pd.read_parquet(output / "items.parquet")
    assert len(items) == len(names) * 3 * 2 == len(pd.read_csv(output / "items.csv"))
    assert set(items["method"]) == names
    assert set(pd.read_csv(output / "groups.csv")["method"]) == names
    assert load_rgb8(output / "before-after.png").shape[1] > 800


def test_one_bad_photo_is_listed_and_the_exit_code_says_so(photos: Path, models: tuple[Path, Path]) -> None:
    (photos / "broken.png").write_bytes((photos / "photo0.png").read_bytes()[:100])
    words = ("--photos", photos, "--model", models[1], "--draws", 1, "--baselines", "none")
    done = invoke(*words)
    assert done.exit_code == 1
    assert "broken.png: " in done.stdout
    assert "retoucher on 3 photos" in done.stdout
    found = json.loads(invoke(*words, "--json").stdout)
    assert [row["file"] for row in found["rejected"]] == [str(photos / "broken.png")]
    # The others keep their faults: a seed belongs to a place in the folder.
    (photos / "broken.png").write_bytes((photos / "photo0.png").read_bytes())
    again = json.loads(invoke(*words, "--json").stdout)
    assert again["rows"]["no edit"]["n"] == 4


def test_without_a_juror_the_searches_are_left_out(photos: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    (models[1].parent / "juror").rename(tmp_path / "elsewhere")
    found = document("--photos", photos, "--model", models[1], "--draws", 1)
    assert "beam juror search" not in found["rows"]
    assert "oracle greedy (upper bound)" in found["rows"]
    assert "juror_gain" not in found["rows"]["retoucher"]
    assert any(note.startswith("no juror in ") for note in found["notes"])
    assert any(note.startswith("no one-shot regressor") for note in found["notes"])
    done = invoke("--photos", photos, "--model", models[1], "--draws", 1, "--mode", "quality")
    assert done.exit_code == 1
    assert "juror.json" in done.output


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("--photos", "nowhere"), 1, "--photos nowhere: no such folder"),
        (("--photos", "empty"), 1, "no photo to measure on; expected a folder with photos"),
        (("--photos", "photos", "--model", "nowhere"), 1, "nowhere"),
        (("--photos", "photos", "-o", "file/below"), 1, "cannot write there"),
        (("--photos", "photos", "--draws", "0"), 2, "--draws"),
        (("--photos", "photos", "--mode", "slow"), 2, "fast"),
    ],
)
def test_bad_input_is_one_clear_line(
    photos: Path,
    models: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
    expected: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    model = () if "--model" in words else ("--model", models[1])
    done = invoke(*model, *words)
    assert done.exit_code == code
    assert expected in done.output
    assert "Traceback" not in done.output


def test_no_agent_is_no_benchmark(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(project)
    done = invoke("--photos", photos)
    assert done.exit_code == 1
    assert "dvc repro train" in done.output


def test_a_headline_takes_32_draws() -> None:
    def request(draws: int) -> bench_retoucher.BenchRequest:
        mode, baselines = bench_retoucher.BenchMode.FAST, bench_retoucher.BaselineSet.NONE
        return bench_retoucher.BenchRequest(photos=None, draws=draws, seed=0, models=(), mode=mode,
                                            baselines=baselines, output=None)  # type: ignore[arg-type]  # fmt: skip

    assert [bench_retoucher._is_preview(request(draws)) for draws in (8, 31, 32, 64)] == [True, True, False, False]
