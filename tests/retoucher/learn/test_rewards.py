"""Rewards: they pay for better pictures, telescope over every path, and nothing can be farmed."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.retoucher.domain.procedural import flat
from tests.retoucher.learn.worlds import PROPERTY, mixture
from vernissage.core.errors import BadParams
from vernissage.retoucher.learn.rewards import (
    STRATEGIES,
    Reward,
    Standing,
    Terms,
    reference_error,
    sigmoid_bonus,
    success_bonus,
)

NAMES = tuple(STRATEGIES)
QUALITY = tuple(name for name in NAMES if name != "step_penalty")
WEIGHTS = st.tuples(st.floats(0, 3), st.floats(0, 3))
TERMS = st.builds(Terms, st.floats(0, 3), st.floats(0, 0.2), st.floats(0.01, 3))
REWARDS = st.builds(Reward, st.dictionaries(st.sampled_from(NAMES), WEIGHTS), TERMS)
ERRORS, SCORES, DONE = st.floats(0, 5), st.floats(0, 10), st.floats(0, 1)
PATHS = st.lists(st.tuples(ERRORS, SCORES), min_size=1, max_size=12)
ONE_OF_EACH = dict.fromkeys(NAMES, (1.0, 1.0))


def one(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def left(error: float, first: float) -> float:
    """The distance by hand: the error and half its logarithm, weighed by how wrong the photo was at first."""
    return error + 0.5 * first / (first + 0.2) * math.log10(1 + error / 0.07)


def standing(first: tuple[float, float], now: tuple[float, float], edits: int = 1) -> Standing:
    """An episode that began with one (error, score) and has come to another."""
    return Standing(one(now[0]), one(first[0]), one(now[1]), one(first[1]), torch.tensor([edits]))


def walk(reward: Reward, path: list[tuple[float, float]], done: float = 0.0) -> list[float]:
    """What each edit along a path of (error, score) is paid."""
    weights = reward.weights(done).double()
    earned = [float(reward.earned(standing(path[0], now, edits), weights)) for edits, now in enumerate(path)]
    return [after - before for before, after in pairwise(earned)]


def test_error_is_ten_times_the_root_mean_square_of_encoded_values() -> None:
    grey = torch.cat((flat(0.5, 0.5, 0.5), flat(0.5, 0.5, 0.5)))
    other = torch.cat((flat(0.4, 0.6, 0.4), flat(0.5, 0.5, 0.5)))
    torch.testing.assert_close(reference_error(grey, other), torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reference_distance", left(2.0, 2.0) - left(1.5, 2.0)),
        ("score_difference", (8.0 - 5.0) / 5),
        ("step_penalty", -3 * 0.1),
        ("success_bonus", 1.0),
        ("sigmoid_bonus", (1 / (1 + math.exp(2 - 2 * 3 / 1.5)) - 1 / (1 + math.exp(2))) / (1 - 1 / (1 + math.exp(2)))),
    ],
)
def test_known_answers_of_every_strategy(name: str, expected: float) -> None:
    terms = Terms(harm_aversion=0.5, step_cost=0.1, success_margin=1.5)
    assert STRATEGIES[name](standing((2.0, 5.0), (1.5, 8.0), 3), terms).item() == pytest.approx(expected)


def test_the_default_mixture_is_distance_and_a_little_taste_and_a_price() -> None:
    reward = mixture(reference_distance=0.9, score_difference=0.1, step_penalty=1.0, harm_aversion=0.2, step_cost=0.006)
    better, worse = walk(reward, [(2.0, 5.0), (1.0, 8.0), (3.0, 4.0)])
    assert better == pytest.approx(0.9 * (left(2, 2) - left(1, 2)) + 0.1 * 3 / 5 - 0.006)
    assert worse == pytest.approx(0.9 * (left(1, 2) - left(3, 2) - 0.2 * 1.0) - 0.1 * 4 / 5 - 0.006)


@PROPERTY
@given(REWARDS, PATHS, DONE)
def test_rewards_telescope_to_what_the_end_is_worth(
    reward: Reward, path: list[tuple[float, float]], done: float
) -> None:
    end = float(reward.earned(standing(path[0], path[-1], len(path) - 1), reward.weights(done).double()))
    assert sum(walk(reward, path, done)) == pytest.approx(end, abs=1e-9)


@PROPERTY
@given(REWARDS, ERRORS, SCORES, DONE)
def test_a_photo_left_alone_has_earned_exactly_nothing(reward: Reward, error: float, score: float, done: float) -> None:
    # The defect of an earlier project: a bonus for a score "not below the first one", collected by stopping at once.
    alone = standing((error, score), (error, score), edits=0)
    assert reward.earned(alone, reward.weights(done)).item() == 0.0
    for strategy in STRATEGIES.values():
        assert strategy(alone, reward.terms).item() == 0.0


@PROPERTY
@given(REWARDS, PATHS, DONE)
def test_a_loop_back_to_the_start_earns_minus_the_price_of_its_edits(
    reward: Reward, path: list[tuple[float, float]], done: float
) -> None:
    earned = sum(walk(reward, [*path, path[0]], done))
    price = float(reward.weights(done)[NAMES.index("step_penalty")]) * reward.terms.step_cost * len(path)
    assert earned == pytest.approx(-price, abs=1e-6)
    assert earned <= 1e-9


@PROPERTY
@given(REWARDS, ERRORS, ERRORS, ERRORS, SCORES, DONE)
def test_less_error_is_never_worth_less(
    reward: Reward, first: float, a: float, b: float, score: float, done: float
) -> None:
    better, worse = (
        reward.earned(standing((first, 5.0), (error, score)), reward.weights(done)).item() for error in sorted((a, b))
    )
    assert better >= worse - 1e-12


@PROPERTY
@given(REWARDS, ERRORS, ERRORS, SCORES, SCORES, SCORES, DONE)
def test_a_higher_final_score_is_never_worth_less(
    reward: Reward, error: float, first: float, first_score: float, a: float, b: float, done: float
) -> None:
    worse, better = (
        reward.earned(standing((first, first_score), (error, score)), reward.weights(done)).item()
        for score in sorted((a, b))
    )
    assert better >= worse - 1e-12


@pytest.mark.parametrize("name", QUALITY)
def test_an_edit_that_makes_a_photo_worse_is_paid_less_than_one_that_makes_it_better(name: str) -> None:
    # The defect of an earlier project: the difference was taken the wrong way round, so it paid for ruined photos.
    reward = mixture(**{name: 1.0}, success_margin=1.0)
    spoilt, mended = walk(reward, [(2.0, 5.0), (3.0, 3.0)])[0], walk(reward, [(2.0, 5.0), (1.0, 7.0)])[0]
    assert spoilt <= 0 < mended
    mend, spoil = walk(reward, [(2.0, 5.0), (1.0, 7.0), (2.0, 5.0)])
    assert spoil == pytest.approx(-mend)
    assert spoil < 0


@PROPERTY
@given(SCORES, st.floats(0.01, 3))
def test_bonuses_begin_a_margin_above_the_first_score(first: float, margin: float) -> None:
    terms = Terms(0.0, 0.0, margin)

    def after(rise: float) -> Standing:
        return standing((1.0, first), (1.0, first + rise))

    assert success_bonus(after(0.99 * margin), terms).item() == 0.0
    assert success_bonus(after(1.01 * margin), terms).item() == 1.0
    assert sigmoid_bonus(after(-margin), terms).item() < 0 < sigmoid_bonus(after(margin), terms).item() < 0.5
    assert 0.95 < sigmoid_bonus(after(3 * margin), terms).item() < 1


def test_a_bonus_is_paid_once_and_taken_back() -> None:
    reward = mixture(success_bonus=2.0, success_margin=1.0)
    assert walk(reward, [(1.0, 5.0), (1.0, 6.5), (1.0, 7.0), (1.0, 5.5), (1.0, 6.0)]) == [2.0, 0.0, -2.0, 2.0]


@PROPERTY
@given(st.floats(0.01, 3), st.floats(0.1, 2), st.floats(0.01, 2))
def test_harm_aversion_weighs_losses_only(aversion: float, first: float, change: float) -> None:
    def earned(harm_aversion: float, error: float) -> float:
        reward = mixture(reference_distance=1.0, harm_aversion=harm_aversion)
        return float(reward.earned(standing((first, 5.0), (error, 5.0)), reward.weights(0)))

    better = max(0.0, first - change)
    assert earned(aversion, better) == earned(0.0, better)
    assert earned(0.0, first + change) - earned(aversion, first + change) == pytest.approx(aversion * change, rel=1e-6)


def test_the_schedule_goes_straight_from_the_first_weights_to_the_last() -> None:
    reward = Reward({"reference_distance": (1.0, 0.3), "score_difference": (0.0, 0.7)}, Terms(0.0, 0.0, 1.0))
    for done, expected in ((0, [1.0, 0.0]), (0.5, [0.65, 0.35]), (1, [0.3, 0.7])):
        torch.testing.assert_close(reward.weights(done), torch.tensor([*expected, 0.0, 0.0, 0.0]))
    constant = Reward({"reference_distance": (0.9, 0.9)}, Terms(0.0, 0.0, 1.0))
    assert all(torch.equal(constant.weights(step / 7), constant.weights(0)) for step in range(8))
    for done in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="from 0 to 1"):
            reward.weights(done)


def test_every_episode_has_its_own_weights() -> None:
    reward = Reward(ONE_OF_EACH, Terms(0.0, 0.0, 1.0))
    both = Standing(*(torch.cat((value, value)) for value in vars(standing((2.0, 5.0), (1.0, 7.5))).values()))
    weights = torch.zeros(2, len(NAMES))
    weights[0, NAMES.index("score_difference")] = weights[1, NAMES.index("success_bonus")] = 1
    assert reward.earned(both, weights).tolist() == pytest.approx([0.5, 1.0])


def test_an_unknown_strategy_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadParams, match="unknown strategy score_diff; expected some of reference_distance, score_diff"):
        mixture(score_diff=1.0)


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["score_difference", "harm_aversion", "step_cost", "success_margin"])
def test_numbers_outside_their_meaning_are_refused(name: str, bad: float) -> None:
    with pytest.raises(BadParams, match="reward"):
        mixture(**{name: bad})


def test_success_without_a_margin_is_refused() -> None:
    with pytest.raises(BadParams, match="leaving the photo alone would be a success"):
        mixture(success_bonus=1.0, success_margin=0.0)
