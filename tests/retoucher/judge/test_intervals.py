"""Bootstrap intervals: known answers, honest coverage, and pairs of one photo that count as one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vernissage.retoucher.judge.intervals import cluster_bootstrap


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_equal_values_leave_no_doubt() -> None:
    assert cluster_bootstrap(np.full(6, 2.5), np.arange(6), 200, rng()) == {"mean": 2.5, "low": 2.5, "high": 2.5}


def test_one_photo_says_nothing_about_others() -> None:
    assert cluster_bootstrap(np.array([1.0, 3.0]), np.array(["a", "a"]), 100, rng()) == {
        "mean": 2.0,
        "low": 2.0,
        "high": 2.0,
    }


def test_two_photos_give_one_of_three_means() -> None:
    # Drawing two out of two: both the first, both the second, or one of each.
    interval = cluster_bootstrap(np.array([0.0, 1.0]), np.array([5, 9]), 4000, rng())
    assert interval == {"mean": 0.5, "low": 0.0, "high": 1.0}


def test_for_many_photos_it_is_the_normal_interval() -> None:
    values = rng(1).normal(3.0, 2.0, 400)
    interval = cluster_bootstrap(values, np.arange(400), 4000, rng())
    half = 1.96 * values.std() / 20
    assert interval["mean"] == pytest.approx(values.mean(), abs=1e-4)
    assert interval["low"] == pytest.approx(values.mean() - half, abs=0.03)
    assert interval["high"] == pytest.approx(values.mean() + half, abs=0.03)


def test_pairs_of_one_photo_stay_together() -> None:
    means = rng(2).normal(0, 1, 12)
    values, photos = np.repeat(means, 16), np.repeat(np.arange(12), 16)
    together = cluster_bootstrap(values, photos, 2000, rng())
    alone = cluster_bootstrap(means, np.arange(12), 2000, rng())
    ignored = cluster_bootstrap(values, np.arange(len(values)), 2000, rng())
    # Sixteen copies of a photo are no more evidence than one.
    assert together == alone
    assert together["high"] - together["low"] > 3 * (ignored["high"] - ignored["low"])


def test_photos_with_more_pairs_weigh_more() -> None:
    interval = cluster_bootstrap(np.array([0.0, 0.0, 0.0, 1.0]), np.array([1, 1, 1, 2]), 2000, rng())
    assert interval == {"mean": 0.25, "low": 0.0, "high": 1.0}


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    held = 0
    for trial in range(300):
        draw = rng(trial)
        photo_effect = np.repeat(draw.normal(1.0, 1.0, 30), 4)
        values = photo_effect + draw.normal(0, 0.5, 120)
        interval = cluster_bootstrap(values, np.repeat(np.arange(30), 4), 300, draw)
        held += interval["low"] <= 1.0 <= interval["high"]
    assert 0.90 <= held / 300 <= 0.985


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(0, 4)), min_size=1, max_size=30), st.integers(0, 99))
def test_it_repeats_and_lies_between_the_extremes(rows: list[tuple[float, int]], seed: int) -> None:
    values, photos = np.array([v for v, _ in rows]), np.array([p for _, p in rows])
    interval = cluster_bootstrap(values, photos, 50, rng(seed))
    assert interval == cluster_bootstrap(values, photos, 50, rng(seed))
    assert values.min() - 1e-3 <= interval["low"] <= interval["high"] <= values.max() + 1e-3
    assert interval["mean"] == pytest.approx(values.mean(), abs=1e-3)


@pytest.mark.parametrize(("values", "photos"), [(0, 0), (3, 2)])
def test_nothing_to_resample_is_refused(values: int, photos: int) -> None:
    with pytest.raises(ValueError, match="expected equal, not empty"):
        cluster_bootstrap(np.zeros(values), np.zeros(photos), 10, rng())
