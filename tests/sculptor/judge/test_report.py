"""The report says what was measured, what was asked for, and what is missing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from PIL import Image

from tests.sculptor.judge.small import benchmark
from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.folders import SystemFolders
from vernissage.core.tables import write_csv
from vernissage.pipeline.results import results_table, results_text
from vernissage.sculptor.judge.arms import OURS
from vernissage.sculptor.judge.demands import DOUBTFUL, MET, MISSED, NOT_MEASURED, judge
from vernissage.sculptor.judge.report import headline, write_report
from vernissage.sculptor.judge.results import Benchmark, Results, read_results

if TYPE_CHECKING:
    from pathlib import Path

CASES = [
    {"number": 1, "name": "empty <b>prompt</b>", "criterion": "valid", "passed": True, "retained": 0.9, "found": "ok"},
    {"number": 2, "name": "steps", "criterion": "no crash", "passed": False, "retained": "", "found": "broke"},
]


@pytest.fixture
def folders(tmp_path: Path) -> SystemFolders:
    folders = SystemFolders("sculptor", tmp_path)
    benchmark().save(folders.benchmark)
    return folders


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> SystemFolders:
    """All that stages can leave, summed up."""
    folders = SystemFolders("sculptor", tmp_path_factory.mktemp("reported"))
    benchmark().save(folders.benchmark)
    _with_training(folders)
    write_csv(folders.robustness / "cases.csv", CASES)
    write_report(folders)
    return folders


def _with_training(folders: SystemFolders) -> None:
    epochs = [
        {"epoch": 2 * n, "connectivity": 0.5, "whole": 0.1 * n, "masked_accuracy": 0.5, "kept": n == 2}
        for n in range(1, 4)
    ]
    write_csv(folders.training / "epochs.csv", epochs)
    write_csv(folders.training / "buckets.csv", [{"epoch": 2, "mask_ratio": "0 to 1", "masked_loss": 1.0}])
    write_csv(folders.training / "first.csv", [{"update": n, "loss": 1 / (n + 1)} for n in range(3)])
    (folders.training / "summary.json").write_text('{"epoch": 4, "whole": 0.2}')
    for epoch in range(30):
        path = folders.training / "generations" / f"epoch-{epoch:04d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)


def test_the_whole_report(reported: SystemFolders) -> None:
    numbers = json.loads(reported.metrics.read_text(encoding="utf-8"))
    assert next(iter(numbers)) == "headline"
    assert numbers["robustness"] == {"passed": 1, "cases": 2, "retained": 0.9}
    assert numbers["order"][0] == OURS
    assert set(numbers["order"]) == set(numbers["rows"])
    assert numbers["missing"] == []
    images = reported.plots / "images"
    made = {path.stem for path in images.glob("*.png")}
    assert {"structures", "compared", "worst", "epochs", "first", "steps", "arms", "species", "buckets"} <= made
    shown = sorted(path.name for path in images.glob("generations-*"))
    assert len(shown) == 12
    assert (shown[0], shown[-1]) == ("generations-epoch-0000.png", "generations-epoch-0029.png")
    for name in ("epochs", "buckets", "steps", "arms", "species", "robustness", "training-buckets"):
        assert len(pd.read_csv(reported.plots / f"{name}.csv"))


def test_the_table_in_the_terminal(reported: SystemFolders) -> None:
    numbers = json.loads(reported.metrics.read_text(encoding="utf-8"))
    text = results_text(numbers)
    lines = [line for line in text.splitlines() if line.startswith(OURS)]
    assert len(lines) >= 3
    assert results_table(numbers) is not None


def test_the_page_is_whole_and_escaped(reported: SystemFolders) -> None:
    page = (reported.plots / "summary.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert "<b>prompt" not in page
    assert "&lt;b&gt;prompt" in page
    assert re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:)", page) == []
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page).replace("http-equiv", "")


def test_what_is_missing_is_said(folders: SystemFolders) -> None:
    write_report(folders)
    numbers = json.loads(folders.metrics.read_text(encoding="utf-8"))
    missing = " ".join(numbers["missing"])
    assert "epochs.csv" in missing
    assert "cases.csv" in missing
    assert "Missing" in (folders.plots / "summary.html").read_text(encoding="utf-8")
    assert any(text.startswith(NOT_MEASURED) for text in numbers["demands"].values())


def test_the_same_results_give_the_same_files(reported: SystemFolders) -> None:
    first = {path.name: path.read_bytes() for path in reported.plots.rglob("*") if path.is_file()}
    write_report(reported)
    assert first == {path.name: path.read_bytes() for path in reported.plots.rglob("*") if path.is_file()}


def test_a_benchmark_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact):
        write_report(SystemFolders("sculptor", tmp_path))


def test_damaged_tables_are_refused(folders: SystemFolders) -> None:
    write_csv(folders.robustness / "cases.csv", [{"what": 1}])
    with pytest.raises(CorruptArtifact, match="columns"):
        read_results(folders)
    (folders.benchmark / "summary.csv").write_text("nothing\n1\n")
    with pytest.raises(CorruptArtifact, match="no column arm"):
        read_results(folders)


def _results(summary: dict[str, float], **tables: pd.DataFrame) -> Results:
    ends = {f"{name}{end}": value for name, value in summary.items() for end in ("", "_low", "_high")}
    table = pd.DataFrame([{"arm": OURS, "size": "normal", "n": 9} | ends])
    found = Benchmark({"summary": table, **tables}, {"steps": 12, "chance_adherence": 0.3})
    return Results(found, {}, {}, pd.DataFrame(), [])


def _verdicts(results: Results) -> dict[str, str]:
    return {demand.demand: demand.verdict for demand in judge(results)}


SUMMARY = {
    "connectivity": 0.99,
    "whole": 0.97,
    "one_trunk": 0.96,
    "leaf_survival": 0.97,
    "cast_success": 0.5,
    "macro_adherence": 0.8,
    "voxel_ratio": 1.05,
}


def test_means_are_judged_by_their_intervals() -> None:
    results = _results(SUMMARY)
    results.benchmark.tables["summary"].loc[0, "macro_adherence_low"] = 0.2
    verdicts = _verdicts(results)
    assert verdicts["16x16x16: mean of connectivity at least 0.99 (the stretch)"] == MET
    assert verdicts["16x16x16: one trunk at least 0.95"] == MET
    assert verdicts["16x16x16: all wood one standing part (CAST, published 39%) at least 0.75"] == MISSED
    assert verdicts["16x16x16: as many voxels as the held-out structures, 10% more or less"] == MET
    assert verdicts["16x16x16: crowns above their wood not less often than in held-out structures"] == NOT_MEASURED
    assert verdicts["16x16x16: mean of whole at least 0.98 (the stretch)"] == MISSED
    assert verdicts["adherence to the prompt, species apart, above that of exchanged prompts"] == DOUBTFUL
    assert headline(results)["whole"] == 0.97


def test_larger_sizes_copies_and_times_are_judged() -> None:
    results = _results(
        SUMMARY,
        novelty=pd.DataFrame([{"arm": OURS, "size": "normal", "n": 9, "copied": 0.0, "z": 3.0}]),
        clock=pd.DataFrame([{"arm": OURS, "size": "normal", "batch": n, "ms": 90.0 + 40 * n} for n in range(2)]),
    )
    behind = {**results.row(OURS), "size": "big", "whole": 0.9}
    table = results.benchmark.tables["summary"]
    results.benchmark.tables["summary"] = pd.concat([table, pd.DataFrame([behind])], ignore_index=True)
    verdicts = _verdicts(results)
    assert verdicts["big: connectivity and share of whole structures at most 0.05 behind 16x16x16"] == MISSED
    assert verdicts["huge: connectivity and share of whole structures at most 0.05 behind 16x16x16"] == NOT_MEASURED
    assert verdicts["16x16x16: not nearer to training structures than held-out ones are (z at most 2)"] == MISSED
    assert verdicts["normal: at most 100 ms a structure, the quickest batch that was timed"] == MET


def test_the_weakest_training_counts() -> None:
    items = pd.DataFrame(
        [{"arm": OURS, "size": "normal", "training": n, "connectivity": 0.99, "whole": 1.0 - n / 5} for n in range(2)]
    )
    verdicts = _verdicts(_results(SUMMARY, items=items))
    assert verdicts["16x16x16: connectivity at least 0.96 and 95% whole in every training"] == MISSED
    verdicts = _verdicts(_results(SUMMARY, items=items[:1]))
    assert verdicts["16x16x16: connectivity at least 0.96 and 95% whole in every training"] == MET


@pytest.mark.parametrize(("mean", "high", "verdict"), [(-0.2, -0.1, MET), (-0.2, 0.1, DOUBTFUL), (0.1, 0.2, MISSED)])
def test_ours_against_the_plain_sampler(mean: float, high: float, verdict: str) -> None:
    row = {"arm": "ancestral 12", "size": "normal", "n": 9, "sound": mean, "sound_low": mean - 0.3, "sound_high": high}
    found = _verdicts(_results(SUMMARY, paired=pd.DataFrame([row])))
    assert found["more sound structures than ancestral sampling with the same weights, plans and number of steps"] == (
        verdict
    )
