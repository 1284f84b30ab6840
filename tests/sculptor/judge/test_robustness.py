"""The robustness suite: its form, what people type, and that sculptors with a known defect fail their case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.sculptor.judge.robust import SETTINGS, subject
from vernissage.core.errors import BadParams
from vernissage.core.progress import Progress
from vernissage.core.tables import write_csv
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.judge.measure_cases import _leak
from vernissage.sculptor.judge.robustness import CASES, retained_quality, rows_of, run_robustness
from vernissage.sculptor.judge.trials import (
    PLAIN,
    Case,
    Outcome,
    RobustnessSettings,
    complaint,
    invalid,
    refused,
    repeated,
    share_of,
    short_training,
    smallest,
)
from vernissage.sculptor.learn.building import Building
from vernissage.sculptor.learn.sculpting import Request, Sculpture

NORMAL = SIZES["normal"]


def test_there_are_twenty_cases_and_each_states_its_criterion() -> None:
    assert [case.number for case in CASES] == list(range(1, 21))
    assert len({case.name for case in CASES}) == 20
    for case in CASES:
        assert case.criterion.endswith("."), case.name
        assert case.criterion[0].isupper() or case.criterion[0].isdigit(), case.name


def test_what_people_type_passes() -> None:
    results = subject().run(1, 2, 3, 4)
    assert {number: result.found for number, result in results.items() if not result.passed} == {}
    assert all(result.retained is not None and result.retained >= 0 for result in results.values())


def test_the_same_request_is_the_same_in_any_batch() -> None:
    assert subject().failed(7) == {}


def test_a_network_that_draws_for_itself_fails_sameness_and_seems_to_leak(tmp_path: Path) -> None:
    def with_noise(_: object, __: object, logits: torch.Tensor) -> torch.Tensor:
        return logits + torch.randn_like(logits)

    noisy = subject().but(lambda spoilt: spoilt.network.register_forward_hook(with_noise))
    assert "structures differ" in noisy.failed(7)[7]
    assert "depends on what is hidden" in _leak(noisy.bench(tmp_path))
    assert _leak(subject().bench(tmp_path)) == ""


def test_a_case_that_breaks_has_failed_and_the_others_run() -> None:
    def breaks(_: object) -> Outcome:
        raise ZeroDivisionError("one\nover nothing")

    cases = [Case(1, "Breaks!", "Never.", breaks), Case(2, "holds", "Always.", lambda _: Outcome(passed=True))]
    with Progress("cases", total=2) as progress:
        mine = subject()
        results = run_robustness(
            mine.sculptor, mine.dataset, SETTINGS, training=mine.training, cases=cases, progress=progress
        )
    assert [result.passed for result in results] == [False, True]
    assert results[0].found == "ZeroDivisionError: one over nothing"
    assert progress.done == 2


def test_a_sculptor_that_builds_no_numbers_fails_everything_and_says_why() -> None:
    def spoil(sculptor: torch.nn.Module) -> None:
        sculptor.get_parameter("network.head.bias").data.fill_(torch.nan)

    found = subject().but(spoil).failed(1, 14)
    assert set(found) == {1, 14}
    assert all("no numbers" in text for text in found.values())


def test_every_case_has_its_own_folder_and_seed(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    def note(bench: object) -> Outcome:
        seen.append((bench.folder.name, bench.seed))  # type: ignore[attr-defined]
        return Outcome(passed=True)

    mine = subject()
    cases = [Case(3, "A case: odd/names", "Is.", note), Case(12, "b", "Is.", note)]
    run_robustness(mine.sculptor, mine.dataset, SETTINGS, training=mine.training, cases=cases, folder=tmp_path)
    assert [name for name, _ in seen] == ["03-a-case-odd-names", "12-b"]
    assert len({seed for _, seed in seen}) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["03-a-case-odd-names", "12-b"]


def test_results_are_rows_of_a_table(tmp_path: Path) -> None:
    results = list(subject().run(2, 20).values())
    write_csv(tmp_path / "cases.csv", rows_of(results))
    table = pd.read_csv(tmp_path / "cases.csv")
    assert table["name"].tolist() == [result.name for result in results]
    assert table["passed"].tolist() == [True, True]
    assert table["retained"].isna().tolist() == [False, True]
    assert retained_quality(results) == results[0].retained
    assert retained_quality(results[1:]) is None


def test_two_runs_are_equal() -> None:
    assert subject().run(2) == subject().run(2)


@pytest.mark.parametrize("wrong", [{"structures": 1}, {"batch": 3}, {"together": 2}])
def test_settings_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BadParams, match=next(iter(wrong))):
        RobustnessSettings(**wrong)  # type: ignore[arg-type]


def test_building_follows_the_training_unless_settings_say_otherwise(tmp_path: Path) -> None:
    mine = subject()
    own = replace(mine, training=replace(mine.training, building=Building(steps=2))).bench(tmp_path)
    assert own.building.steps == 2
    assert own.clean[0].evaluations < mine.bench(tmp_path).clean[0].evaluations
    assert replace(own, settings=replace(SETTINGS, building=Building(steps=3))).building.steps == 3


def test_a_structure_that_is_none_is_invalid() -> None:
    request = Request(PLAIN, NORMAL)
    good = Sculpture(np.zeros(NORMAL.shape, np.uint8), None, (0, 0, 0))
    assert invalid(request, good) == ""
    for wrong in (np.zeros((3, 3, 3), np.uint8), np.zeros(NORMAL.shape), np.full(NORMAL.shape, 9, np.uint8)):
        assert invalid(request, replace(good, roles=wrong))
    planned = subject().bench(Path()).clean[0]
    assert invalid(request, planned) == ""
    assert "a plan from" in invalid(request, replace(planned, corner=(15, 0, 0)))


def test_refusals_are_one_line_that_names_things() -> None:
    assert refused("steps", complaint(Building, steps=0), "0") == ""
    assert "not refused" in refused("steps", complaint(Building, steps=3), "3")
    assert "expected one line with seven" in refused("x", "no", "seven")
    assert "expected one line" in refused("x", "two\nlines")


def test_shares_and_repetitions() -> None:
    assert share_of(0.4, 0.8) == 0.5
    assert share_of(0.4, 0.0) is None
    empty = Sculpture(np.zeros((1, 1, 2), np.uint8), None, (0, 0, 0))
    full, other = (replace(empty, roles=np.array([[row]], np.uint8)) for row in ((1, 0), (0, 1)))
    assert repeated([empty, empty, full, other]) == 0
    assert repeated([full, other, full, full]) == 2


def test_the_smallest_structures_are_chosen_and_labelled() -> None:
    dataset = subject().dataset
    some = smallest(dataset, train=5, val=2)
    volumes = sorted(grid.size for grid in dataset.part("train").grids)
    assert [grid.size for grid in some.part("train").grids] == volumes[:5]
    assert len(some.part("val")) == 2
    assert len(smallest(dataset.part("train"), train=3, val=1).part("val")) == 1
    assert short_training(subject().training, lr=0.5).lr == 0.5
