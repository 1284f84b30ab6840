from __future__ import annotations

import math
import time

import numpy as np
import pytest

from vernissage.sculptor.judge.intervals import bootstrap_difference, bootstrap_mean, bootstrap_means


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_ends_are_those_of_the_normal_theory() -> None:
    values = rng(1).normal(3, 2, 400)
    found = bootstrap_mean(values, rng(), resamples=4000)
    reach = 1.96 * values.std() / math.sqrt(len(values))
    assert found.mean == values.mean()
    assert found.count == 400
    assert found.low == pytest.approx(values.mean() - reach, abs=0.15 * reach)
    assert found.high == pytest.approx(values.mean() + reach, abs=0.15 * reach)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    source = rng(2)
    samples = {str(number): source.exponential(1, 60) for number in range(300)}
    found = bootstrap_means(samples, rng(), level=0.8)
    held = np.mean([interval.low <= 1 <= interval.high for interval in found.values()])
    assert 0.7 < held < 0.88


def test_a_constant_has_no_width() -> None:
    found = bootstrap_mean([0.5] * 9, rng())
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)


def test_one_seed_one_result() -> None:
    values = rng(3).random(50)
    assert bootstrap_mean(values, rng(7)) == bootstrap_mean(values, rng(7))
    assert bootstrap_mean(values, rng(7)) != bootstrap_mean(values, rng(8))


def test_a_column_has_the_interval_that_it_has_alone() -> None:
    table = {"a": rng(4).random(40), "b": rng(5).random(40)}
    table["b"][::3] = math.nan
    together = bootstrap_means(table, rng(7))
    assert together["a"] == bootstrap_mean(table["a"], rng(7))
    assert together["b"] == bootstrap_mean(table["b"], rng(7))


def test_what_is_no_number_does_not_count() -> None:
    values = np.array([1.0, math.nan, 3.0, math.nan])
    found = bootstrap_mean(values, rng())
    assert (found.mean, found.count) == (2, 2)
    assert 1 <= found.low <= found.high <= 3


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_nothing_has_no_mean(values: list[float]) -> None:
    found = bootstrap_mean(values, rng())
    assert found.count == 0
    assert all(math.isnan(value) for value in (found.mean, found.low, found.high))


def test_trainings_that_differ_widen_the_interval() -> None:
    groups = np.repeat([1, 2, 3], 100)
    values = groups / 10 + rng(6).normal(0, 0.01, 300)
    alone, grouped = bootstrap_mean(values, rng()), bootstrap_mean(values, rng(), groups=groups)
    assert grouped.mean == alone.mean
    # Once in 27 draws all three are the first, once all are the last.
    assert grouped.low == pytest.approx(0.1, abs=0.01)
    assert grouped.high == pytest.approx(0.3, abs=0.01)
    assert alone.high - alone.low < 0.03


def test_trainings_that_are_alike_do_not() -> None:
    values = rng(7).normal(0, 1, 300)
    alone = bootstrap_mean(values, rng(), resamples=4000)
    grouped = bootstrap_mean(values, rng(), groups=np.arange(300) % 3, resamples=4000)
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=0.35)


def test_one_group_is_no_group() -> None:
    values = rng(8).random(30)
    assert bootstrap_mean(values, rng(), groups=["one"] * 30) == bootstrap_mean(values, rng())


def test_groups_may_lie_anywhere_and_have_any_length() -> None:
    # The small group is .5 alone; drawn twice it is all there is.
    values = [1.0, 0.5, 1.0, 1.0, 1.0]
    found = bootstrap_mean(values, rng(), groups=["a", "b", "a", "a", "a"], resamples=4000)
    assert found.mean == 0.9
    assert (found.low, found.high) == (0.5, 1.0)
    mixed = bootstrap_mean(values, rng(), groups=["a", "b", "a", "a", "a"], resamples=4000, level=0.4)
    assert (mixed.low, mixed.high) == pytest.approx((0.9, 0.9))


def test_pairs_leave_out_what_both_share() -> None:
    shared = rng(9).normal(0, 10, 80)
    found = bootstrap_difference(shared + 0.5, shared, rng())
    assert found.mean == pytest.approx(0.5)
    assert found.high - found.low < 1e-9


def test_a_pair_with_one_number_is_no_pair() -> None:
    found = bootstrap_difference([1, math.nan, 3], [0, 0, math.nan], rng())
    assert (found.mean, found.count) == (1, 1)


def test_many_columns_cost_little_more_than_one() -> None:
    table = {str(number): rng(number).random(768) for number in range(60)}
    start = time.process_time()
    bootstrap_means(table, rng(), groups=np.repeat([0, 1, 2], 256))
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resamples": 0}, "0 resamples"),
        ({"level": 1.0}, "level 1.0"),
        ({"groups": [1, 2]}, r"\[2, 3\] rows"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_mean([1.0, 2.0, 3.0], rng(), **settings)


def test_an_infinite_value_is_refused() -> None:
    with pytest.raises(ValueError, match="infinite"):
        bootstrap_mean([1.0, math.inf], rng())


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="expected pairs"):
        bootstrap_difference([1.0], [1.0, 2.0], rng())
    with pytest.raises(ValueError, match="equal lengths"):
        bootstrap_means({"a": [1.0], "b": [1.0, 2.0]}, rng())
