"""The benchmark on a handful of made pairs: a perfect method, a harmful one, and none at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.retoucher.judge.made_pairs import write_pairs
from tests.retoucher.learn.worlds import darkened, photos, policy, untrained_juror
from vernissage.retoucher.domain.quality import PSNR_CEILING, delta_e, psnr, ssim
from vernissage.retoucher.domain.sliders import slider_index
from vernissage.retoucher.judge.baselines import Baseline, no_edit
from vernissage.retoucher.judge.benchmark import (
    AGENT,
    agent_method,
    benchmark_table,
    count_results,
    load_batches,
    measure,
    paired_gains,
    quality_method,
    score_results,
    search_beats_policy,
    spread_evenly,
    strongest,
    summarise,
)

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from vernissage.retoucher.learn.dataset import Pair

ORIGINALS = photos(6)
FAULTY = torch.cat((darkened(ORIGINALS[:4]).faulty, ORIGINALS[4:]))
FAULTS = [1, 1, 1, 1, 0, 0]


def perfect(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Looks the original up."""
    rows = [int(((FAULTY - picture) ** 2).flatten(1).sum(dim=1).argmin()) for picture in pictures]
    return ORIGINALS[rows], torch.full((len(pictures),), 3.0)


def harmful(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return 0.3 * pictures, torch.ones(len(pictures))


METHODS = [
    Baseline(AGENT, classic=False, run=perfect),
    Baseline("no edit", classic=False, run=no_edit),
    Baseline("harmful", classic=False, run=harmful),
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    return write_pairs(tmp_path_factory.mktemp("pairs"), FAULTY, ORIGINALS, faults=FAULTS)


@pytest.fixture(scope="module")
def items(pairs: list[Pair]) -> pd.DataFrame:
    return measure(METHODS, pairs, untrained_juror(), lambda done: None)


@pytest.fixture(scope="module")
def table(items: pd.DataFrame) -> dict[str, Any]:
    return summarise(items, worse_margin=0.5, resamples=200, rng=np.random.default_rng(0))


def test_every_method_is_measured_on_every_pair(items: pd.DataFrame) -> None:
    assert items["method"].tolist() == [AGENT] * 6 + ["no edit"] * 6 + ["harmful"] * 6
    assert items["pair_id"].tolist() == [1, 2, 3, 4, 5, 6] * 3
    assert items["n_faults"].tolist() == FAULTS * 3
    assert items["photo"].tolist()[:2] == ["photo001", "photo002"]
    assert items["group"].tolist()[:2] == ["group1", "group2"]
    assert not items.isna().any().any()


def test_numbers_are_those_of_the_quality_measures(items: pd.DataFrame) -> None:
    unchanged = items[items["method"] == "no edit"]
    np.testing.assert_allclose(unchanged["psnr"], psnr(FAULTY, ORIGINALS), rtol=1e-5)
    np.testing.assert_allclose(unchanged["ssim"], ssim(FAULTY, ORIGINALS), rtol=1e-5)
    np.testing.assert_allclose(unchanged["delta_e"], delta_e(FAULTY, ORIGINALS), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(unchanged["delta_e"], unchanged["delta_e_before"])
    np.testing.assert_allclose(unchanged["juror"], untrained_juror().score(FAULTY), rtol=1e-4)
    np.testing.assert_allclose(unchanged["juror"], unchanged["juror_before"], rtol=1e-6)
    best = items[items["method"] == AGENT]
    assert (best["psnr"] == PSNR_CEILING).all()
    assert (best["delta_e"] == 0).all()
    np.testing.assert_allclose(best["ssim"], 1, atol=1e-5)
    assert (best["steps"] == 3).all()


def test_progress_is_told_of_every_result(pairs: list[Pair]) -> None:
    told: list[int] = []
    measure(METHODS, pairs, untrained_juror(), told.append)
    assert sum(told) == len(pairs) * len(METHODS)


def test_a_perfect_method_improves_all_and_a_harmful_one_none(table: dict[str, Any]) -> None:
    shares = {
        name: tuple(row[key]["mean"] for key in ("improved", "unchanged", "worsened")) for name, row in table.items()
    }
    assert shares == {AGENT: (1, 0, 0), "no edit": (0, 1, 0), "harmful": (0, 0, 1)}
    assert table[AGENT]["psnr"] == {"mean": 60.0, "low": 60.0, "high": 60.0}
    assert table[AGENT]["delta_e"]["mean"] == table[AGENT]["clean_delta_e"]["mean"] == 0
    assert table["no edit"]["juror_gain"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert table["no edit"]["clean_delta_e"]["mean"] == 0
    assert table["harmful"]["clean_delta_e"]["mean"] > 5
    assert table["harmful"]["steps"]["mean"] == 1


def test_clean_photos_are_counted_apart(items: pd.DataFrame, table: dict[str, Any]) -> None:
    faulty = items[(items["method"] == "no edit") & (items["n_faults"] > 0)]
    assert table["no edit"]["psnr"]["mean"] == pytest.approx(faulty["psnr"].mean(), abs=1e-4)
    assert table["no edit"]["psnr"]["mean"] < 30  # an untouched clean photo would count as 60 dB


@pytest.mark.parametrize("margin", [0.0, 0.5, 5.0, 100.0])
def test_improved_unchanged_and_worsened_are_everything(items: pd.DataFrame, margin: float) -> None:
    mixed = items.copy()
    change = np.linspace(-8, 8, len(mixed))
    mixed["delta_e"] = mixed["delta_e_before"] + change
    for row in summarise(mixed, worse_margin=margin, resamples=20, rng=np.random.default_rng(0)).values():
        assert sum(row[key]["mean"] for key in ("improved", "unchanged", "worsened")) == pytest.approx(1, abs=2e-4)


def test_gains_are_taken_pair_by_pair(items: pd.DataFrame) -> None:
    gains = paired_gains(items, resamples=200, rng=np.random.default_rng(0))
    assert gains.keys() == {"no edit", "harmful"}
    expected = float((PSNR_CEILING - psnr(FAULTY[:4], ORIGINALS[:4])).mean())
    assert gains["no edit"]["psnr"]["mean"] == pytest.approx(expected, abs=1e-3)
    assert gains["no edit"]["delta_e"]["mean"] == pytest.approx(-float(delta_e(FAULTY, ORIGINALS)[:4].mean()), abs=1e-3)
    assert gains["harmful"]["psnr"]["low"] > gains["no edit"]["psnr"]["low"]
    # The order of the rows does not matter, only which pair they are.
    shuffled = items.sample(frac=1, random_state=1)
    again = paired_gains(shuffled, resamples=200, rng=np.random.default_rng(0))
    assert again["no edit"]["psnr"]["mean"] == gains["no edit"]["psnr"]["mean"]


def test_score_without_merit_is_the_hack_gap(items: pd.DataFrame) -> None:
    paid = items.copy()
    paid["juror"] = paid["juror_before"] + 1.0
    rows = summarise(paid, worse_margin=0.5, resamples=20, rng=np.random.default_rng(0))
    # The perfect method has earned its point; doing nothing and doing harm have not.
    assert {name: row["hack_gap"] for name, row in rows.items()} == {AGENT: 0.0, "no edit": 1.0, "harmful": 1.0}
    assert {row["juror_gain"]["mean"] for row in rows.values()} == {1.0}
    assert {row["n"] for row in rows.values()} == {4}
    without = paid.drop(columns=["juror", "juror_before"])
    bare = summarise(without, worse_margin=0.5, resamples=20, rng=np.random.default_rng(0))
    assert not {"hack_gap", "juror_gain"} & set(bare[AGENT])
    assert bare[AGENT]["psnr"] == rows[AGENT]["psnr"]


@pytest.mark.parametrize(("count", "at_most"), [(10, 3), (3, 10), (48, 48), (420, 48), (1, 1)])
def test_a_part_is_spread_evenly_over_the_whole(count: int, at_most: int) -> None:
    chosen = spread_evenly(count, at_most)
    assert len(chosen) == len(set(chosen)) == min(count, at_most)
    assert all(0 <= place < count for place in chosen)
    gaps = np.diff([-1, *chosen, count])
    assert gaps.max() <= -(-count // len(chosen)) + 1


def slow(name: str, run: Any, **options: Any) -> Baseline:
    return Baseline(name, classic=False, run=run, slow=True, **options)


def test_slow_methods_see_an_even_part_and_are_compared_on_it(pairs: list[Pair]) -> None:
    methods = [METHODS[0], slow("beam juror search", perfect), slow("greedy juror search", harmful), METHODS[2]]
    told: list[int] = []
    items = measure(methods, pairs, untrained_juror(), told.append, slow_pairs=3)
    assert sum(told) == count_results(methods, len(pairs), 3) == len(items) == 2 * 6 + 2 * 3
    part = items[items["method"] == "beam juror search"]["pair_id"].tolist()
    assert part == items[items["method"] == "greedy juror search"]["pair_id"].tolist() == [2, 4, 6]
    table = benchmark_table(items, methods, worse_margin=0.5, resamples=50, rng=np.random.default_rng(0))
    assert {name: row["n"] for name, row in table["rows"].items()} == {
        AGENT: 4, "beam juror search": 2, "greedy juror search": 2, "harmful": 4,
    }  # fmt: skip
    ahead = table["ahead_of"]
    assert {name: gain["n"] for name, gain in ahead.items()} == {
        "beam juror search": 2, "greedy juror search": 2, "harmful": 4,
    }  # fmt: skip
    assert ahead["beam juror search"]["psnr"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    harmed = items[(items["method"] == "harmful") & items["pair_id"].isin([2, 4])]
    assert ahead["greedy juror search"]["psnr"]["mean"] == pytest.approx((60 - harmed["psnr"]).mean(), abs=1e-3)
    assert table["strongest"] == "beam juror search"
    assert strongest(methods, ahead, everywhere=True).name == "harmful"
    found = table["search_beats_policy"]
    assert (found["search"], found["n"], found["beats"]) == ("beam juror search", 2, False)
    assert table["pairs"] == table["photos"] == 6
    assert table["groups"] == [f"group{number}" for number in range(1, 7)]


def test_a_search_that_is_better_is_said_to_be(pairs: list[Pair]) -> None:
    methods = [Baseline(AGENT, classic=False, run=harmful), slow("beam juror search", perfect), METHODS[1]]
    items = measure(methods, pairs, untrained_juror(), lambda done: None, slow_pairs=4)
    ahead = paired_gains(items, resamples=50, rng=np.random.default_rng(0))
    found = search_beats_policy(ahead)
    assert found is not None
    assert found["beats"]
    assert found["psnr"]["mean"] == -ahead["beam juror search"]["psnr"]["mean"] > 20
    assert found["psnr"]["low"] == -ahead["beam juror search"]["psnr"]["high"] <= found["psnr"]["mean"]
    assert found["delta_e"]["high"] < 0
    assert search_beats_policy({"no edit": ahead["no edit"]}) is None


def test_an_upper_bound_is_measured_and_never_the_strongest(pairs: list[Pair]) -> None:
    def knows(faulty: torch.Tensor, originals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return originals, torch.ones(len(faulty))

    bound = Baseline("oracle", classic=False, run=no_edit, cheat=knows)
    methods = [Baseline(AGENT, classic=False, run=harmful), METHODS[1], bound]
    items = measure(methods, pairs, untrained_juror(), lambda done: None)
    table = benchmark_table(items, methods, worse_margin=0.5, resamples=20, rng=np.random.default_rng(0))
    assert table["rows"]["oracle"]["psnr"]["mean"] == PSNR_CEILING
    assert table["upper_bounds"] == ["oracle"]
    assert table["strongest"] == "no edit"


def test_results_can_be_measured_as_a_file_would_hold_them() -> None:
    def brighter(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return pictures + 0.4 / 255, torch.ones(len(pictures))

    method = Baseline("brighter", classic=False, run=brighter)
    pictures = ORIGINALS * 0.9
    stored = torch.round(pictures * 255) / 255
    exact = score_results(method, stored, stored, None)
    in_a_file = score_results(method, stored, stored, None, in_8_bits=True)
    assert (exact["delta_e"] > 0.01).all()
    assert (in_a_file["delta_e"] == 0).all()
    assert "juror" not in exact
    assert "juror" in score_results(method, stored, stored, untrained_juror())


def test_quality_takes_whichever_the_juror_likes_better() -> None:
    class Dark:
        """The darker the better."""

        def score(self, images: torch.Tensor) -> torch.Tensor:
            return 10 * (1 - images.mean(dim=(1, 2, 3)))

    class Indifferent:
        def score(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((len(images),), 5.0)

    network = policy({slider_index("exposure"): 0.5}, horizon=3)
    own, edits = agent_method(network).run(FAULTY)
    kept, kept_edits = quality_method(network, Indifferent(), "quality").run(FAULTY)
    assert torch.equal(kept, own)
    assert torch.equal(kept_edits, edits)
    searched, searched_edits = quality_method(network, Dark(), "quality").run(FAULTY)
    assert (searched.mean(dim=(1, 2, 3)) < FAULTY.mean(dim=(1, 2, 3))).all()
    assert (searched_edits > 0).all()


def test_a_method_with_only_clean_pairs_has_no_figures_for_faults(items: pd.DataFrame) -> None:
    clean = items[items["n_faults"] == 0]
    rows = summarise(clean, worse_margin=0.5, resamples=20, rng=np.random.default_rng(0))
    assert all(row.keys() == {"clean_delta_e"} for row in rows.values())


def test_pairs_of_several_sizes_are_loaded_in_batches_that_lose_none(tmp_path: Path) -> None:
    square, wide = photos(5, side=16), torch.cat((photos(3, side=16), photos(3, side=16)), dim=3)
    pairs = write_pairs(tmp_path / "square", square / 2, square, faults=[1] * 5)
    pairs += write_pairs(tmp_path / "wide", wide / 2, wide, faults=[1] * 3, first=6)
    order = [0, 5, 1, 2, 6, 3, 7, 4]
    batches = list(load_batches([pairs[i] for i in order], batch=2))
    assert sorted(pair.pair_id for batch in batches for pair in batch.pairs) == list(range(1, 9))
    for batch in batches:
        assert batch.faulty.shape == batch.original.shape
        assert len(batch.pairs) == len(batch.faulty) <= 2
        for row, pair in enumerate(batch.pairs):
            source = square[pair.pair_id - 1] if pair.pair_id < 6 else wide[pair.pair_id - 6]
            torch.testing.assert_close(batch.original[row], source, atol=1e-6, rtol=0)
    again = list(load_batches([pairs[i] for i in order], batch=2))
    assert [[p.pair_id for p in b.pairs] for b in again] == [[p.pair_id for p in b.pairs] for b in batches]


def test_the_agent_runs_as_one_of_the_methods(pairs: list[Pair]) -> None:
    methods = [agent_method(policy({slider_index("exposure"): 0.5})), Baseline("no edit", classic=False, run=no_edit)]
    items = measure(methods, pairs, untrained_juror(), lambda done: None)
    rows = summarise(items, worse_margin=0.5, resamples=50, rng=np.random.default_rng(0))
    assert rows[AGENT]["improved"]["mean"] == 1
    assert rows[AGENT]["psnr"]["mean"] > rows["no edit"]["psnr"]["mean"] + 5
    assert rows[AGENT]["steps"]["mean"] == 3
    assert rows[AGENT]["clean_delta_e"]["mean"] > 5  # this one brightens whatever it is given
    neutral = measure([agent_method(policy())], pairs, untrained_juror(), lambda done: None)
    assert (neutral["delta_e"] == neutral["delta_e_before"]).all()
    assert (neutral["steps"] == 0).all()
