"""Evaluations at equal quality: exact on power laws, honest intervals, and no word about what was not measured."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vernissage.core.errors import BadInput
from vernissage.sampler.judge.equal_quality import (
    NOT_REACHED,
    Arm,
    Equivalence,
    Frontier,
    equal_quality,
    equivalence,
    equivalence_of_seeds,
)

BUDGETS = np.array([4.0, 5.0, 6.0, 8.0, 10.0, 14.0])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def hardness(noises: int = 60, seed: int = 0) -> np.ndarray:
    return np.exp(rng(seed).normal(0, 1, noises))


def power_law(name: str, factor: float, exponent: float = 2.0, budgets: np.ndarray = BUDGETS, noises: int = 60) -> Arm:
    """Errors ``factor hardness nfe^-exponent``: every noise falls alike."""
    return Arm(name, budgets, factor * budgets[:, None] ** -exponent * hardness(noises))


def noisy(name: str, factor: float, seed: int, noises: int = 100) -> Arm:
    errors = power_law(name, factor, noises=noises).errors
    return Arm(name, BUDGETS, errors * np.exp(rng(seed).normal(0, 0.3, errors.shape)))


# --- equal quality ----------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.floats(0.3, 1.5), st.floats(0.5, 4), st.sampled_from(["median", "mean"]))
def test_power_laws_give_the_exact_ratio(ratio: float, exponent: float, statistic: str) -> None:
    # factor (ratio n)^-exponent = n^-exponent
    arm = power_law("ours", ratio**exponent, exponent)
    reference = power_law("reference", 1.0, exponent, np.array([8.2]))
    found = equal_quality(arm, reference, seed=0, statistic=statistic, resamples=100)  # type: ignore[arg-type]
    if ratio * 8.2 < 4:
        assert found.at_most
        assert found.nfe == pytest.approx(4)
        return
    # Noises cancel: whatever is drawn, the answer is the same.
    assert (found.ratio, found.low, found.high) == pytest.approx((ratio, ratio, ratio), rel=1e-9)
    assert found.nfe == pytest.approx(8.2 * ratio)
    assert found.reached == 1
    assert not found.at_most


def test_an_arm_against_itself_is_one() -> None:
    arm = noisy("ours", 1.0, 1)
    found = equal_quality(arm, arm.at(8), seed=0, resamples=200)
    assert (found.ratio, found.low, found.high) == pytest.approx((1, 1, 1))


def test_what_is_not_reached_is_not_extrapolated() -> None:
    found = equal_quality(power_law("ours", 10.0), power_law("reference", 1.0).at(14), seed=0, resamples=100)
    assert (found.nfe, found.ratio, found.low, found.high, found.reached) == (None, None, None, None, 0)
    assert str(found) == NOT_REACHED


def test_what_is_good_enough_from_the_start_is_a_bound() -> None:
    found = equal_quality(power_law("ours", 0.01), power_law("reference", 1.0).at(8), seed=0, resamples=100)
    assert (found.nfe, found.ratio) == pytest.approx((4, 0.5))
    assert found.at_most
    assert str(found) == "at most 0.5 [0.5, 0.5]"


def test_an_interval_may_end_beyond_the_largest_budget() -> None:
    arm, reference = noisy("ours", 1.0, 1), noisy("reference", 1.0, 2).at(14)
    found = equal_quality(arm, reference, seed=0, resamples=400)
    assert 0 < found.reached < 1
    assert found.high is None
    assert found.low is not None
    if found.ratio is not None:
        assert str(found).endswith(f", {NOT_REACHED}]")


def test_bumps_are_levelled() -> None:
    # At 6 it is worse than at 5: both count as the geometric mean, 1 / sqrt(2).
    errors = np.array([2.0, 0.5, 1.0, 0.25])[:, None] * hardness()
    arm = Arm("bumpy", np.array([4.0, 5.0, 6.0, 8.0]), errors)
    reference = Arm("reference", np.array([10.0]), hardness()[None] / math.sqrt(2))
    assert equal_quality(arm, reference, seed=0, resamples=100).nfe == pytest.approx(5)
    # Half way, in logarithms, from 1 / sqrt(2) at 6 to 1/4 at 8.
    lower = Arm("reference", np.array([10.0]), hardness()[None] * (0.25 / math.sqrt(2)) ** 0.5)
    assert equal_quality(arm, lower, seed=0, resamples=100).nfe == pytest.approx(math.sqrt(48))


def test_budgets_that_differ_between_noises_count_by_their_mean() -> None:
    spent = BUDGETS[:, None] * np.where(np.arange(60) % 2, 0.5, 1.5)
    arm = Arm("adaptive", spent, power_law("ours", 1.0).errors)
    reference = power_law("reference", 1.0).at(8)
    found = equal_quality(arm, reference, seed=0, resamples=300)
    assert found.ratio == pytest.approx(1)
    # Which noises are drawn now says what was spent.
    assert found.low < 0.95
    assert found.high > 1.05


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    held = 0
    for trial in range(60):
        ours, theirs = noisy("ours", 0.64, 2 * trial), noisy("reference", 1.0, 2 * trial + 1)
        found = equal_quality(ours, theirs.at(8), seed=trial, resamples=150)
        assert found.low is not None
        held += found.low <= 0.8 <= (found.high or math.inf)
    assert held >= 52


def test_the_seed_decides() -> None:
    arm, reference = noisy("ours", 0.7, 1), noisy("reference", 1.0, 2).at(8)
    found = equal_quality(arm, reference, seed=3, resamples=200)
    assert equal_quality(arm, reference, seed=3, resamples=200) == found
    assert equal_quality(arm, reference, seed=4, resamples=200) != found


def test_neither_order_of_noises_nor_of_budgets_matters() -> None:
    arm, reference = noisy("ours", 0.7, 1), noisy("reference", 1.0, 2).at(8)
    mixed = rng(5).permutation(arm.noises)
    turned = Arm("ours", arm.nfe[::-1, mixed], arm.errors[::-1, mixed])
    found = equal_quality(arm, reference, seed=0, resamples=100)
    other = equal_quality(turned, Arm("reference", reference.nfe[:, mixed], reference.errors[:, mixed]), seed=0)
    assert other.ratio == pytest.approx(found.ratio)


# --- equivalence ------------------------------------------------------------------------------------------------------


def test_equal_arms_are_equivalent_and_shifted_ones_are_not() -> None:
    errors = hardness(200)
    assert equivalence(errors, errors, 0.01, seed=0, resamples=200) == Equivalence(
        0, 0, 0, 0.01, equivalent=True, not_worse=True
    )
    worse = equivalence(errors + 0.5, errors, 0.4, seed=0, statistic="mean", resamples=200)
    assert (worse.difference, worse.low, worse.high) == pytest.approx((0.5, 0.5, 0.5))
    assert not worse.equivalent
    assert not worse.not_worse
    better = equivalence(errors, errors + 0.5, 0.4, seed=0, resamples=200)
    assert not better.equivalent
    assert better.not_worse


def test_too_little_evidence_is_not_equivalence() -> None:
    first, second = rng(1).normal(5, 1, 30), rng(2).normal(5, 1, 30)
    assert not equivalence(first, second, 0.05, seed=0, resamples=300).equivalent
    assert equivalence(first, second, 3.0, seed=0, resamples=300).equivalent


def test_equivalence_of_seeds_is_the_paired_t_interval() -> None:
    # Differences 1, 2, 3: mean 2, deviation 1, t(2; 0.975) = 4.302653.
    found = equivalence_of_seeds(np.array([11.0, 22.0, 33.0]), np.array([10.0, 20.0, 30.0]), 4.4)
    half = 4.302653 / math.sqrt(3)
    assert (found.difference, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half), rel=1e-6)
    assert not found.equivalent
    assert equivalence_of_seeds(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]), 0.1).equivalent


# --- frontier ---------------------------------------------------------------------------------------------------------


def test_the_frontier_names_who_is_beaten() -> None:
    ours, theirs = power_law("ours", 0.5), power_law("grid", 1.0)
    poor = Arm("poor", np.array([7.0]), theirs.errors[:1] * 3)
    table = Frontier([theirs, ours, poor], seed=0, resamples=100).table()
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == ["arm", "nfe", "median", "p95", "mean", "low", "high", "on_frontier"]
    assert len(table) == 2 * len(BUDGETS) + 1
    assert table.loc[table["on_frontier"], "arm"].unique().tolist() == ["ours"]
    assert table["on_frontier"].sum() == len(BUDGETS)
    assert table["arm"][:2].tolist() == ["ours", "grid"]
    assert (table["low"] <= table["median"]).all()
    assert (table["median"] <= table["high"]).all()


def test_the_cheapest_comes_first_and_who_did_not_get_there_last() -> None:
    arms = [power_law("never", 100.0), power_law("grid", 1.0), power_law("ours", 0.64), power_law("at once", 0.001)]
    table = Frontier(arms, seed=0, resamples=100).against(arms[1].at(8))
    assert table["arm"].tolist() == ["at once", "ours", "grid", "never"]
    assert table["ratio"].tolist()[:3] == pytest.approx([0.5, 0.8, 1.0])
    assert table["ratio"].isna().tolist() == [False, False, False, True]
    assert table["verdict"].tolist()[0].startswith("at most")
    assert table["verdict"].tolist()[-1] == NOT_REACHED
    assert table["reached"].tolist() == [1, 1, 1, 0]


# --- what is refused --------------------------------------------------------------------------------------------------

GOOD, FEW = power_law("ours", 1.0), np.ones((2, 19))
WITH_ZERO = np.where(np.arange(60) == 5, 0.0, np.ones((6, 60)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Arm("few", np.array([1.0, 2.0]), FEW), "few: found 19 noises, .* at least 20"),
        (lambda: Arm("flat", BUDGETS, np.ones(60)), r"flat: errors of shape \(60,\)"),
        (lambda: Arm("odd", BUDGETS[:3], GOOD.errors), r"odd: NFE of shape \(3,\), expected \(6,\) or \(6, 60\)"),
        (lambda: Arm("exact", BUDGETS, WITH_ZERO), "exact: error 0.0 of noise 5 with budget 0"),
        (lambda: Arm("lost", BUDGETS, GOOD.errors * np.nan), "lost: error nan of noise 0"),
        (lambda: Arm("free", BUDGETS - 4, GOOD.errors), "free: NFE 0.0"),
        (lambda: Arm("twice", np.array([4.0, 4.0]), GOOD.errors[:2]), "twice: two budgets take 4 NFE"),
        (lambda: GOOD.at(7), "ours: no budget of 7 NFE, expected one of 4, 5, 6, 8, 10, 14"),
        (lambda: equal_quality(GOOD, GOOD, seed=0), "ours: 6 budgets, a reference has one"),
        (lambda: equal_quality(GOOD, power_law("r", 1.0, noises=30).at(8), seed=0), "60 noises, r has 30"),
        (lambda: equal_quality(GOOD, GOOD.at(8), seed=0, resamples=99), "resamples = 99"),
        (lambda: equal_quality(GOOD, GOOD.at(8), seed=0, statistic="mode"), "statistic = 'mode'"),  # type: ignore[arg-type]
        (lambda: equivalence(np.ones(19), np.ones(19), 1.0, seed=0), "found 19 noises"),
        (lambda: equivalence(np.ones(30), np.ones(31), 1.0, seed=0), "expected .* twice"),
        (lambda: equivalence(np.ones(30), np.ones(30), 0.0, seed=0, resamples=100), "margin = 0.0"),
        (lambda: equivalence(np.ones(30), np.ones(30) * np.inf, 1.0, seed=0), "value 0 is not finite"),
        (lambda: equivalence_of_seeds(np.ones(2), np.ones(2), 1.0), "found 2 seeds, .* at least 3"),
        (lambda: Frontier([], seed=0), r"arms \(none\)"),
        (lambda: Frontier([GOOD, GOOD], seed=0), "ours, ours; .* each name once"),
        (lambda: Frontier([GOOD, power_law("short", 1.0, noises=30)], seed=0), "short: 30 noises, ours has 60"),
    ],
)
def test_what_cannot_be_compared_is_refused(call: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        call()  # type: ignore[operator]
