from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadInput
from vernissage.sampler.domain.denoiser import Condition, Counted
from vernissage.sampler.domain.programs import dpmpp
from vernissage.sampler.domain.schedules import karras
from vernissage.sampler.learn.book import Entry, ProgramBook
from vernissage.sampler.learn.experts import ACTIONS, EXPERTS, STATIC
from vernissage.sampler.learn.features import FEATURES, SAMPLE_FEATURES, STATE_FREE
from vernissage.sampler.learn.grid import Course
from vernissage.sampler.learn.policies import (
    Decision,
    EmbeddedError,
    Fixed,
    Policy,
    Random,
    Shuffled,
    StateFree,
    Static,
    evaluations_of,
    mean_features,
    roll,
)
from vernissage.sampler.learn.rewards import StaticAnswers
from vernissage.sampler.prepare.teacher_bank import Bank, RequestMix, make_bank

TAU = 0.1


@pytest.fixture(scope="module")
def bank() -> Bank:
    return make_bank(Mixture(), "val", 60, RequestMix.uneven(4, (1.0, 2.0)))


@pytest.fixture(scope="module")
def book(bank: Bank) -> ProgramBook:
    entries = []
    for scale in (1.0, 2.0):
        pairs = bank.rows(bank.scales == scale)
        for calls in (2, 3, 4, 6):
            program = dpmpp(karras(calls, 0.05, 10.0))
            score = Course(Mixture(), pairs, TAU).scores([program])[0]
            entries.append(Entry(program, scale, (1.0,) * calls, "grid", score))
    return ProgramBook(tuple(entries), TAU, "grid")


class Watched:
    """Keeps what a policy is shown."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.seen = policy, list[np.ndarray]()

    def decide(self, observations: np.ndarray) -> np.ndarray | Decision:
        self.seen.append(observations.copy())
        return self.policy.decide(observations)


class Echo:
    """Makes a choice out of what it is shown: which state a slot has."""

    def __init__(self) -> None:
        self.shown = np.zeros((0, len(FEATURES)), np.float32)

    def decide(self, observations: np.ndarray) -> np.ndarray:
        self.shown = observations.copy()
        return np.tile(STATIC, (len(observations), 1))


def seen(count: int = 60) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, len(FEATURES))).astype(np.float32)
    rows[:, FEATURES.index("evaluations")] = np.log1p(rng.integers(0, 4, size=count))
    rows[:, FEATURES.index("guidance")] = np.arcsinh(rng.choice([0.0, 1.0], size=count))
    return rows


def test_fixed_policies_repeat_themselves() -> None:
    assert (Static().decide(seen(5)) == STATIC).all()
    assert Fixed((1, 2, 0, 2)).decide(seen(3)).tolist() == [[1, 2, 0, 2]] * 3
    assert (EmbeddedError().decide(seen(4))[:, 1] == EXPERTS.index("DefaultAdaptive")).all()
    for number, name in enumerate(EXPERTS):
        action = Fixed.expert(name).action
        assert action[1] == number
        assert (np.delete(action, 1) == np.delete(STATIC, 1)).all()
    for action in ((0, 0, 0), (7, 0, 0, 0), (0, -1, 0, 0)):
        with pytest.raises(BadInput, match="action"):
            Fixed(action)
    with pytest.raises(BadInput, match="QualityMaster"):
        Fixed.expert("Nobody")


def test_random_actions_are_all_there_and_repeat_with_the_seed() -> None:
    drawn = Random(1).decide(seen(4000))
    for place, count in enumerate(ACTIONS):
        shares = np.bincount(drawn[:, place], minlength=count) / 4000
        assert shares == pytest.approx(np.full(count, 1 / count), abs=0.04)
    assert (Random(1).decide(seen(4000)) == drawn).all()
    assert (Random(2).decide(seen(4000)) != drawn).any()


def test_means_hide_the_state_and_nothing_else() -> None:
    rows, echo = seen(), Echo()
    StateFree(echo, mean_features(rows)).decide(rows)
    assert (echo.shown[:, STATE_FREE] == rows[:, STATE_FREE]).all()
    counts = evaluations_of(rows)
    for count in range(4):
        own = rows[counts == count]
        assert echo.shown[counts == count][:, SAMPLE_FEATURES] == pytest.approx(
            np.tile(own.mean(axis=0)[list(SAMPLE_FEATURES)], (len(own), 1)), abs=1e-5
        )
    StateFree(echo, rows.mean(axis=0)).decide(rows)
    assert len(np.unique(echo.shown[:, SAMPLE_FEATURES], axis=0)) == 1
    with pytest.raises(BadInput, match="expected"):
        StateFree(echo, np.zeros(5))


def test_states_go_round_among_slots_with_equal_requests_and_calls() -> None:
    rows, echo = seen(), Echo()
    Shuffled(echo, seed=3).decide(rows)
    first = echo.shown
    assert (first[:, STATE_FREE] == rows[:, STATE_FREE]).all()
    sample = rows[:, SAMPLE_FEATURES]
    origin = np.array([np.flatnonzero((sample == row).all(axis=1))[0] for row in first[:, SAMPLE_FEATURES]])
    assert sorted(origin) == list(range(60))
    assert (evaluations_of(rows)[origin] == evaluations_of(rows)).all()
    guidance = rows[:, FEATURES.index("guidance")]
    assert (guidance[origin] == guidance).all()
    assert (origin != np.arange(60)).mean() > 0.6
    Shuffled(echo, seed=3).decide(rows)
    assert (echo.shown == first).all()


def test_static_answers_are_those_of_the_programs(bank: Bank, book: ProgramBook) -> None:
    static = StaticAnswers(Mixture(), book, bank)
    for price in (0.001, 0.05):
        entries = [book.for_price(price, scale) for scale in bank.scales.tolist()]
        expected = static.errors(np.arange(len(bank)), np.array([static.place(entry) for entry in entries]))
        rolled = roll(Mixture(), book, bank, Static(), price, slots=13)
        assert rolled.errors == pytest.approx(expected, abs=1e-5)
        assert rolled.nfe.tolist() == [
            entry.nfe(scale) for entry, scale in zip(entries, bank.scales.tolist(), strict=True)
        ]
        assert rolled.not_static == 0
        assert set(rolled.reasons) == {"end"}
        assert rolled.decisions.tolist() == [entry.calls + 1 for entry in entries]


def test_a_roll_adds_up(bank: Bank, book: ProgramBook) -> None:
    network = Counted(Mixture())
    prices = np.geomspace(0.002, 0.1, len(bank))
    rolled = roll(network, book, bank, Random(5), prices, slots=16, keep_observations=True)
    assert rolled.nfe.sum() == network.evaluations == rolled.spent.sum()
    assert (rolled.spent.sum(axis=1) == rolled.nfe).all()
    assert len(rolled) == len(bank)
    taken = rolled.experts >= 0
    # Decisions of a request come one after the other, and are followed by none.
    assert (np.diff(taken.astype(int), axis=1) <= 0).all()
    assert (taken.sum(axis=1) == rolled.decisions).all()
    assert (rolled.actions[taken] >= 0).all()
    assert (rolled.actions[~taken] == -1).all()
    assert np.isnan(rolled.sigmas[~taken]).all()
    last = rolled.sigmas[np.arange(len(bank)), rolled.decisions - 1]
    assert (last == 0).all()
    assert rolled.observations is not None
    assert rolled.observations.shape == (*taken.shape, len(FEATURES))
    told = rolled.observations[:, 0, FEATURES.index("log_price")]
    assert told == pytest.approx(np.log10(prices) + 2.5, abs=1e-5)
    counts = evaluations_of(rolled.observations[taken])
    before = np.cumsum(rolled.spent, axis=1) - rolled.spent
    assert (counts == before[taken]).all()
    assert rolled.values(TAU) == pytest.approx(
        np.exp(-(rolled.errors**2) / (2 * TAU**2)) - 1 - prices * rolled.nfe, abs=1e-9
    )


def test_answers_do_not_depend_on_the_slots(bank: Bank, book: ProgramBook) -> None:
    many = roll(Mixture(), book, bank, EmbeddedError(), 0.01, slots=256)
    few = roll(Mixture(), book, bank, EmbeddedError(), 0.01, slots=7)
    assert (many.nfe == few.nfe).all()
    assert (many.experts == few.experts).all()
    torch.testing.assert_close(many.samples, few.samples, atol=1e-4, rtol=0)


def test_a_policy_is_shown_slots_with_a_request_only(bank: Bank, book: ProgramBook) -> None:
    watched = Watched(Random(1))
    rolled = roll(Mixture(), book, bank, watched, 0.01, slots=25)
    shown = np.concatenate(watched.seen)
    assert len(shown) == rolled.decisions.sum()
    assert np.isfinite(shown).all()
    assert (shown[:, FEATURES.index("length")] > 0).all()


def test_budgets_and_entries_are_obeyed(bank: Bank, book: ProgramBook) -> None:
    entries = [book.entry(6, scale) for scale in bank.scales.tolist()]
    budgets = np.where(np.arange(len(bank)) % 2, 5.0, np.inf)
    rolled = roll(Mixture(), book, bank, Static(), 0.1, entries=entries, budgets=budgets)
    assert (rolled.nfe <= budgets).all()
    assert {rolled.reasons[row] for row in np.flatnonzero(budgets < 6)} == {"budget"}
    free = np.isinf(budgets)
    nfe = [entry.nfe(scale) for entry, scale in zip(entries, bank.scales.tolist(), strict=True)]
    assert (rolled.nfe[free] == np.array(nfe)[free]).all()


def test_gates_and_confidence_reach_the_slots(bank: Bank, book: ProgramBook) -> None:
    class Gated:
        def __init__(self, expert: str) -> None:
            self.gate = np.eye(len(EXPERTS))[EXPERTS.index(expert)]

        def decide(self, observations: np.ndarray) -> Decision:
            count = len(observations)
            return Decision(np.tile(STATIC, (count, 1)), np.tile(self.gate, (count, 1)), np.full(count, 0.5))

    static = roll(Mixture(), book, bank, Static(), 0.01)
    same = roll(Mixture(), book, bank, Gated("BalancedMaster"), 0.01)
    other = roll(Mixture(), book, bank, Gated("Fast"), 0.01)
    assert same.errors == pytest.approx(static.errors, abs=1e-5)
    assert abs(other.errors - static.errors).mean() > 0.005
    assert (other.nfe == static.nfe).all()
    assert (same.confidence[same.experts >= 0] == 0.5).all()
    assert np.isnan(static.confidence).all()


def test_actions_that_are_none_are_counted(bank: Bank, book: ProgramBook) -> None:
    class Mad:
        def decide(self, observations: np.ndarray) -> np.ndarray:
            return np.full((len(observations), len(ACTIONS)), 99)

    mad, static = (roll(Mixture(), book, bank, policy, 0.01) for policy in (Mad(), Static()))
    assert mad.errors == pytest.approx(static.errors, abs=1e-6)
    assert mad.refused == mad.decisions.sum()


class Broken(Mixture):
    """Answers one class with nan."""

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        answer = super().__call__(x, sigma, condition)
        labels: torch.Tensor = condition.labels  # type: ignore[union-attr]
        return answer.masked_fill((labels == 2).view(-1, 1, 1, 1), torch.nan)


def test_a_request_that_fails_is_told_and_its_neighbours_are_not_changed(bank: Bank, book: ProgramBook) -> None:
    broken, whole = (roll(network, book, bank, Static(), 0.01, slots=9) for network in (Broken(), Mixture()))
    bad = (bank.labels == 2).numpy()
    assert (broken.failed[bad] == 0).all()
    assert np.isinf(broken.errors[bad]).all()
    assert {broken.reasons[row] for row in np.flatnonzero(bad)} == {"failed"}
    assert (broken.failed[~bad] == -1).all()
    assert broken.errors[~bad] == pytest.approx(whole.errors[~bad], abs=1e-5)
    assert (broken.values(TAU)[bad] <= -1).all()


def test_requests_that_do_not_fit_are_refused(bank: Bank, book: ProgramBook) -> None:
    for rows, extra in ((torch.arange(0), {}), (torch.arange(5), {"budgets": np.ones(3)})):
        with pytest.raises(BadInput, match="requests"):
            roll(Mixture(), book, bank.rows(rows), Static(), 0.01, **extra)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="price"):
        roll(Mixture(), book, bank, Static(), -0.01)
    with pytest.raises(BadInput, match="no observations"):
        mean_features(seen(0))
