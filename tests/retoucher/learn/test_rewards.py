"""Rewards: they pay for better pictures, telescope over every path, and nothing can be farmed."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.retoucher.domain.procedural import flat
from tests.retoucher.learn.worlds import PROPERTY
from vernissage.retoucher.learn.rewards import Reward, reference_error

REWARDS = st.builds(
    Reward,
    juror_share=st.floats(0, 1),
    harm_aversion=st.floats(0, 3),
    step_cost=st.floats(0, 0.2),
)
ERRORS, SCORES = st.floats(0, 5), st.floats(0, 10)
PATHS = st.lists(st.tuples(ERRORS, SCORES), min_size=1, max_size=12)


def one(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def left(error: float, first: float) -> float:
    """The distance by hand: the error and half its logarithm, weighed by how wrong the photo was at first."""
    return error + 0.5 * first / (first + 0.2) * math.log10(1 + error / 0.07)


def potential(reward: Reward, error: float, first: float, score: float) -> torch.Tensor:
    return reward.potential(one(error), one(first), one(score))


def test_error_is_ten_times_the_root_mean_square_of_encoded_values() -> None:
    grey = torch.cat((flat(0.5, 0.5, 0.5), flat(0.5, 0.5, 0.5)))
    other = torch.cat((flat(0.4, 0.6, 0.4), flat(0.5, 0.5, 0.5)))
    torch.testing.assert_close(reference_error(grey, other), torch.tensor([1.0, 0.0]))


def test_known_answers() -> None:
    reward = Reward(juror_share=0.25, harm_aversion=0.5, step_cost=0.1)
    assert potential(reward, 1.0, 2.0, 8.0).item() == pytest.approx(-0.75 * left(1.0, 2.0) + 0.25 * 8 / 5)
    assert potential(reward, 3.0, 2.0, 8.0).item() == pytest.approx(-0.75 * (left(3.0, 2.0) + 0.5 * 1.0) + 0.25 * 8 / 5)
    edited = torch.tensor([True, False])
    paid = reward.step(torch.tensor([1.0, 1.0]), torch.tensor([1.5, 1.0]), edited)
    torch.testing.assert_close(paid, torch.tensor([0.4, 0.0]))


@PROPERTY
@given(REWARDS, PATHS)
def test_rewards_telescope_to_the_last_potential_minus_the_first_minus_the_price_of_the_edits(
    reward: Reward, path: list[tuple[float, float]]
) -> None:
    first_error = path[0][0]
    potentials = [potential(reward, error, first_error, score) for error, score in path]
    edited = torch.tensor([True])
    earned = sum(float(reward.step(before, after, edited)) for before, after in pairwise(potentials))
    assert earned == pytest.approx(float(potentials[-1] - potentials[0]) - reward.step_cost * (len(path) - 1), abs=1e-9)


@PROPERTY
@given(REWARDS, ERRORS, SCORES)
def test_stopping_earns_exactly_nothing(reward: Reward, error: float, score: float) -> None:
    now = potential(reward, error, error, score)
    assert reward.step(now, now, torch.tensor([False])).item() == 0.0


@PROPERTY
@given(REWARDS, PATHS)
def test_a_loop_back_to_the_start_earns_minus_the_price_of_its_edits(
    reward: Reward, path: list[tuple[float, float]]
) -> None:
    loop = [*path, path[0]]
    potentials = [potential(reward, error, path[0][0], score) for error, score in loop]
    edited = torch.tensor([True])
    earned = sum(float(reward.step(a, b, edited)) for a, b in pairwise(potentials))
    assert earned == pytest.approx(-reward.step_cost * (len(loop) - 1), abs=1e-9)
    assert earned <= 1e-9


@PROPERTY
@given(REWARDS, ERRORS, ERRORS, ERRORS, SCORES)
def test_less_error_is_never_worth_less(reward: Reward, first: float, a: float, b: float, score: float) -> None:
    better, worse = sorted((a, b))
    assert potential(reward, better, first, score) >= potential(reward, worse, first, score)


@PROPERTY
@given(REWARDS, ERRORS, ERRORS, SCORES, SCORES)
def test_a_higher_score_is_never_worth_less(reward: Reward, error: float, first: float, a: float, b: float) -> None:
    worse, better = sorted((a, b))
    assert potential(reward, error, first, better) >= potential(reward, error, first, worse)


def test_an_edit_that_makes_a_photo_worse_is_paid_less_than_nothing() -> None:
    # The defect of an earlier project: the difference was taken the wrong way round, so it paid for ruined photos.
    for share in (0.0, 0.5, 1.0):
        reward = Reward(juror_share=share, harm_aversion=0.0, step_cost=0.0)
        good, bad = potential(reward, 1.0, 2.0, 8.0), potential(reward, 3.0, 2.0, 4.0)
        assert reward.step(good, bad, torch.tensor([True])) < 0 < reward.step(bad, good, torch.tensor([True]))


@PROPERTY
@given(st.floats(0, 0.99), st.floats(0.01, 3), st.floats(0.1, 2), st.floats(0.01, 2))
def test_harm_aversion_weighs_losses_only(share: float, aversion: float, first: float, change: float) -> None:
    calm, averse = Reward(share, 0.0, 0.0), Reward(share, aversion, 0.0)
    better = max(0.0, first - change)
    torch.testing.assert_close(potential(averse, better, first, 5.0), potential(calm, better, first, 5.0))
    extra = potential(calm, first + change, first, 5.0) - potential(averse, first + change, first, 5.0)
    assert float(extra) == pytest.approx((1 - share) * aversion * change, rel=1e-6)


@pytest.mark.parametrize(
    ("share", "aversion", "cost"), [(-0.1, 0, 0), (1.1, 0, 0), (0.5, -1, 0), (0.5, 0, -0.01), (float("nan"), 0, 0)]
)
def test_settings_outside_their_meaning_are_refused(share: float, aversion: float, cost: float) -> None:
    with pytest.raises(ValueError, match="reward"):
        Reward(share, aversion, cost)
