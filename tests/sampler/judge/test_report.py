"""The report says what was measured, what was demanded, and what is missing."""

from __future__ import annotations

import csv
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.sampler.mixture import Mixture
from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.files import atomic_write_json
from vernissage.core.folders import SystemFolders
from vernissage.core.tables import write_csv
from vernissage.sampler.domain.programs import dpmpp, ipndm
from vernissage.sampler.domain.schedules import karras, log_snr
from vernissage.sampler.judge.arms import Requests, heun_arm, program_arm, student_arm
from vernissage.sampler.judge.benchmark import BenchmarkSettings, RealPictures, measure
from vernissage.sampler.judge.plots import save_sheets
from vernissage.sampler.judge.report import (
    DOUBTFUL,
    MET,
    MISSED,
    NOT_MEASURED,
    OPEN,
    judge,
    read_results,
    write_report,
)
from vernissage.sampler.prepare.teacher_bank import RequestMix, make_bank

if TYPE_CHECKING:
    from pathlib import Path

    import torch

CALLS = (2, 3, 4, 5, 6, 8, 12, 20)


class Six:
    shape = (1, 4, 4)

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.flatten(1)[:, :6].float()


class Guess:
    sigma_max, middle = 80.0, 0.5

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Any, scales: torch.Tensor) -> torch.Tensor:
        return Mixture()(x, sigma, condition)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    mix = RequestMix.uneven(4, (1.0, 2.0))
    banks = {seed: make_bank(Mixture(), "test", 30, mix, seed=seed, check_requests=1) for seed in range(3)}
    real = make_bank(Mixture(), "val", 240, RequestMix.uneven(4, (1.0,)), check_requests=1).endpoints
    ours = program_arm("fitted", {n: ipndm(log_snr(n, 0.05, 6.0), 3) for n in CALLS}, "fitted coefficients")
    measured = measure(
        [
            program_arm("stock <2m>", {n: dpmpp(karras(n, 0.002, 80.0)) for n in CALLS}, "stock"),
            program_arm("grid", {n: dpmpp(log_snr(n, 0.05, 6.0)) for n in CALLS}, "grid"),
            ours,
            heun_arm(Mixture(), (35,)),
            student_arm(Guess()),  # type: ignore[arg-type]
        ],
        Mixture(),
        banks,
        classifier=Six(),
        second=None,
        random_features=None,
        real=RealPictures(real[:120], real[120:]),
        settings=BenchmarkSettings(
            0.1, resamples=100, bar_budgets=(4, 6), kernel_size=40, directions=8, infinity_points=0
        ),
    )
    measured.save(folder)
    save_sheets(folder / "pictures", [(ours, 2.0)], Mixture(), Requests.of(banks[0]), columns=6)
    return folder


@pytest.fixture
def folders(tmp_path: Path, benchmark: Path) -> SystemFolders:
    made = SystemFolders("sampler", tmp_path)
    made.benchmark.parent.mkdir(parents=True)
    made.benchmark.symlink_to(benchmark)
    return made


def fill(folders: SystemFolders, share: float = 0.01, passed: int = 20) -> None:
    """Everything else that stages leave."""
    made = folders.benchmark.resolve()
    folders.benchmark.unlink()
    folders.benchmark.mkdir()
    for path in made.iterdir():
        (folders.benchmark / path.name).symlink_to(path)
    facts = {"arm": "fitted", "budget": 6.0, "network_ms": 2.0, "controller_ms": 0.02}
    write_csv(
        folders.benchmark / "wall_clock.csv",
        [{**facts, "batch": batch, "controller_share": share} for batch in (1, 64)],
    )
    usage = {"sigma": [{"low": 0.1, "high": 1.0, "A": 0.5, "B": 0.5, "decisions": 9}]}
    mixture = {
        "experts": [{"expert": "A", "uses": 3, "quality": 0.5}, {"expert": "B", "uses": 1, "quality": None}],
        "knock_outs": [{"expert": "B", "share": 0.1, "cost": 0.0, "low": -1.0, "high": 1.0, "verdict": "useless"}],
        "usage": usage,
        "verdicts": {"adapts": "Nothing adapts to the sample."},
        "useless": ["B"],
    }
    atomic_write_json(folders.benchmark / "mixture.json", mixture)
    folders.training.mkdir(parents=True)
    write_csv(folders.training / "steering.csv", [{"update": n, "reward": 0.1 * n} for n in range(4)])
    gate = [
        {"price": 0.01, "improvement": 0.2, "ships": "controller"},
        {"price": 0.1, "improvement": 0.0, "ships": "static"},
    ]
    write_csv(folders.training / "gate.csv", gate)
    atomic_write_json(folders.training / "summary.json", {"seconds": 12.5, "nested": {"a": 1}})
    folders.robustness.mkdir(parents=True)
    cases = [
        {"number": n, "name": f"case {n}", "criterion": "holds", "passed": n < passed, "value": None}
        | {"retained": 0.9 if n else None, "note": ""}
        for n in range(20)
    ]
    write_csv(
        folders.robustness / "cases.csv", [{key: "" if v is None else v for key, v in row.items()} for row in cases]
    )


def test_what_git_keeps(folders: SystemFolders) -> None:
    fill(folders)
    write_report(folders)
    text = folders.metrics.read_text()
    numbers = json.loads(text)
    assert next(iter(numbers)) == "headline"
    headline = numbers["headline"]
    table = json.loads((folders.benchmark / "table.json").read_text())
    saved = next(row for row in table["savings"] if (row["arm"], row["bar"]) == ("fitted", "grid"))
    assert headline["ours"] == "fitted"
    assert headline["saving_against_grid"] == pytest.approx(saved["saving"], rel=1e-5)
    assert headline["saving_against_grid_high"] == pytest.approx(saved["saving_high"], rel=1e-5)
    assert headline["teacher_fd"] == pytest.approx(table["floors"]["teacher"]["fd"], rel=1e-5)
    assert headline["controller_share"] == 0.01
    assert headline["quality_retained"] == pytest.approx(0.9)
    assert numbers["robustness"] == {"passed": 20, "cases": 20, "retained": pytest.approx(0.9)}
    assert numbers["ships"] == {"price 0.01": "controller", "price 0.1": "static"}
    assert numbers["useless_experts"] == ["B"]
    names = {path.name for path in folders.plots.glob("*.csv")}
    assert names >= {"frontier.csv", "attribution.csv", "savings.csv", "robustness.csv", "experts.csv", "steering.csv"}
    with (folders.plots / "frontier.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(table["rows"])
    assert float(rows[0]["error_mean"]) == pytest.approx(table["rows"][0]["error_mean"], rel=1e-3)
    images = {path.name for path in (folders.plots / "images").iterdir()}
    assert images >= {"frontier.png", "attribution.png", "experts.png", "samples.png", "worst.png"}
    assert "training-steering.png" in images


def test_the_page_needs_nothing_else(folders: SystemFolders) -> None:
    fill(folders)
    write_report(folders)
    page = (folders.plots / "summary.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "://" not in page
    assert "stock &lt;2m&gt;" in page
    assert "<2m>" not in page
    assert page.count("data:image/png;base64,") >= 6
    assert "The static program ships at the prices 0.1" in page
    assert "Nothing adapts to the sample." in page
    assert "20 of 20 cases passed. Where a case is about quality, 90.0 % of it is retained." in page
    assert "no arm for fitted sigmas, per guidance, less guidance" in page


def test_the_same_results_give_the_same_files(folders: SystemFolders) -> None:
    fill(folders)
    write_report(folders)
    first = {path.name: path.read_bytes() for path in folders.plots.rglob("*") if path.is_file()}
    write_report(folders)
    assert {path.name: path.read_bytes() for path in folders.plots.rglob("*") if path.is_file()} == first


def test_missing_parts_are_said_to_be_missing(folders: SystemFolders) -> None:
    write_report(folders)
    numbers = json.loads(folders.metrics.read_text())
    said = "\n".join(numbers["missing"])
    for what in ("training curves", "robustness", "wall clock", "mixture of experts", "attribution"):
        assert what in said
    assert numbers["headline"]["robustness_passed"] is None
    page = (folders.plots / "summary.html").read_text()
    for words in ("the cases were not run", "nothing was timed", "the mixture was not examined", "no release gate"):
        assert words in page
    verdicts = [one.verdict for one in judge(read_results(folders))]
    assert verdicts.count(NOT_MEASURED) == 2


def verdicts(folders: SystemFolders, **changes: Any) -> dict[str, str]:
    results = read_results(folders)
    results.table.update(changes)
    return {one.demand: one.verdict for one in judge(results)}


def found(bar: str, low: float, saving: float, fd: str | None) -> dict[str, Any]:
    ends = {"saving": saving, "saving_low": low, "saving_high": 1.0, "at_most": False}
    return {"arm": "fitted", "bar": bar, "fd": None if fd is None else {"verdict": fd}, **ends}


@pytest.mark.parametrize(
    ("low", "saving", "fd", "verdict"),
    [
        (0.43, 0.5, "not worse", MET),
        (0.40, 0.5, "not worse", DOUBTFUL),
        (0.43, 0.5, "undecided", DOUBTFUL),
        (0.43, 0.5, None, DOUBTFUL),
        (0.43, 0.5, "worse", MISSED),
        (0.30, 0.41, "not worse", MISSED),
    ],
)
def test_verdicts_on_a_saving(folders: SystemFolders, low: float, saving: float, fd: str | None, verdict: str) -> None:
    own = verdicts(folders, savings=[found("stock", low, saving, fd)])
    assert next(value for key, value in own.items() if "stock settings" in key) == verdict
    assert next(value for key, value in own.items() if "20 % fewer" in key) == NOT_MEASURED


def test_verdicts_on_the_rest(folders: SystemFolders) -> None:
    fill(folders, share=0.05, passed=19)
    two = {"fd": 1.0, "bar_fd": 2.0, "difference": -1.0, "difference_low": -1.5, "difference_high": -0.5}
    heun = {"factor": 5.5, "low": 5.2, "high": 6.0, "at_least": False, "fd_factor": None}
    own = verdicts(folders, two_evaluations={**two, "verdict": "not worse"}, heun=heun)

    def of(words: str) -> str:
        return next(value for key, value in own.items() if words in key)

    assert of("Heun") == of("no worse in FD") == MET
    assert of("controller") == of("robustness") == MISSED
    worse = verdicts(folders, two_evaluations={**two, "fd": 3.0, "verdict": "worse"}, heun={**heun, "factor": None})
    assert next(value for key, value in worse.items() if "no worse in FD" in key) == MISSED
    assert next(value for key, value in worse.items() if "Heun" in key) == MISSED


def test_a_bound_short_of_the_target_is_open(folders: SystemFolders) -> None:
    own = verdicts(folders, savings=[{**found("stock", 0.3, 0.4, "not worse"), "at_most": True}])
    assert next(value for key, value in own.items() if "stock settings" in key) == OPEN


def test_without_a_benchmark_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match=re.escape("table.json")):
        write_report(SystemFolders("sampler", tmp_path))


def test_damaged_results_are_refused(folders: SystemFolders) -> None:
    fill(folders)
    (folders.training / "gate.csv").write_text("price\n0.1\n")
    with pytest.raises(CorruptArtifact, match="no column ships"):
        write_report(folders)
    assert not folders.plots.exists()
    (folders.training / "gate.csv").write_text("")
    with pytest.raises(CorruptArtifact, match="not a table"):
        write_report(folders)
    (folders.benchmark / "table.json").unlink()
    atomic_write_json(folders.benchmark / "table.json", {"rows": []})
    with pytest.raises(CorruptArtifact, match="no 'floors'"):
        write_report(folders)
