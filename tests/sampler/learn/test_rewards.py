from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadInput, BadParams
from vernissage.sampler.domain.programs import dpmpp
from vernissage.sampler.domain.sampling import run_program
from vernissage.sampler.domain.schedules import karras
from vernissage.sampler.learn.book import Entry, ProgramBook
from vernissage.sampler.learn.classifiers import RandomFeatures
from vernissage.sampler.learn.grid import Score
from vernissage.sampler.learn.rewards import (
    Discriminator,
    Pooled,
    StaticAnswers,
    errors_to,
    features_of,
    reward_of,
    saturated,
    usual_embedding,
)
from vernissage.sampler.prepare.teacher_bank import Bank, RequestMix, make_bank

TAU = 0.1


@pytest.fixture(scope="module")
def bank() -> Bank:
    return make_bank(Mixture(), "train", 48, RequestMix.uneven(4, (1.0, 2.0)))


def a_book() -> ProgramBook:
    entries = tuple(
        Entry(dpmpp(karras(calls, 0.05, 10.0)), scale, (1.0,) * (calls - 1) + (0.0,), "grid", Score(0.5, 0.1, 0.1, 9))
        for scale in (1.0, 2.0)
        for calls in (2, 3, 5)
    )
    return ProgramBook(entries, TAU, "grid")


def test_rewards_by_hand() -> None:
    errors, static = np.array([0.0, 0.1, np.inf]), np.array([0.1, 0.1, 0.1])
    reward = reward_of(errors, np.array([8, 4, 1]), static, np.array([6, 6, 6]), np.array([0.02, 0.01, 0.1]), TAU)
    phi = 1 - np.exp(-0.5)
    assert reward.quality == pytest.approx([phi, 0, phi - 1])
    assert reward.cost == pytest.approx([0.04, -0.02, -0.5])
    assert reward.total == pytest.approx([phi - 0.04, 0.02, phi - 0.5])
    assert reward.total == pytest.approx(reward.improvement)


def test_the_same_answer_for_the_same_price_is_worth_exactly_nothing() -> None:
    errors, nfe = np.array([0.03, 0.5, np.inf]), np.array([6, 7, 1])
    assert (reward_of(errors, nfe, errors, nfe, np.array([0.01, 0.02, 0.3]), TAU).total == 0).all()


def test_lengths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadInput, match="lengths"):
        reward_of(np.zeros(2), np.zeros(2), np.zeros(3), np.zeros(2), np.zeros(2), TAU)


def test_what_is_not_finite_is_as_bad_as_can_be() -> None:
    samples = torch.zeros(3, 1, 2, 2)
    samples[1, 0, 0, 0], samples[2, 0, 1, 1] = torch.nan, torch.inf
    assert errors_to(samples, torch.full_like(samples, 0.5)).tolist() == [0.5, np.inf, np.inf]
    assert saturated(np.array([0.0, np.inf]), TAU).tolist() == [0.0, 1.0]


def test_static_answers_are_those_of_the_programs(bank: Bank) -> None:
    book = a_book()
    static = StaticAnswers(Mixture(), book, bank, Pooled(Mixture.shape), batch=7)
    rng = np.random.default_rng(0)
    rows = rng.integers(len(bank), size=40)
    places = np.array([static.place(book.entry(int(rng.choice([2, 3, 5])), float(bank.scales[row]))) for row in rows])
    found, features = static.errors(rows, places), static.features(rows, places)
    for row, place, error, feature in zip(rows.tolist(), places.tolist(), found, features, strict=True):
        entry, alone = static.entries[place], bank.rows(torch.tensor([row]))
        sampled = run_program(
            Mixture(), alone.noise(), alone.condition(), entry.program, entry.guidance(alone.scales)
        ).samples
        assert error == pytest.approx(errors_to(sampled, alone.endpoints)[0], abs=1e-5)
        torch.testing.assert_close(feature, Pooled(Mixture.shape).features(sampled)[0], atol=1e-4, rtol=0)


def test_nothing_is_asked_twice_and_a_checkpoint_knows_it(bank: Bank) -> None:
    rows, places = np.array([3, 3, 5]), np.array([0, 2, 0])
    static = StaticAnswers(Mixture(), a_book(), bank, Pooled(Mixture.shape))
    first = static.errors(rows, places)
    spent = static.evaluations
    assert (static.errors(rows[::-1], places[::-1]) == first[::-1]).all()
    assert static.evaluations == spent > 0
    other = StaticAnswers(Mixture(), a_book(), bank, Pooled(Mixture.shape))
    other.restore(static.state())
    assert (other.errors(rows, places) == first).all()
    assert torch.equal(other.features(rows, places), static.features(rows, places))
    assert other.evaluations == 0


def test_a_program_from_elsewhere_is_refused(bank: Bank) -> None:
    static = StaticAnswers(Mixture(), a_book(), bank)
    with pytest.raises(BadInput, match="not one that this book ships"):
        static.place(replace(static.entries[0]))
    with pytest.raises(BadInput, match="no embedding"):
        static.endpoint_features(np.array([0]))


def samples_of(seed: int, shift: float) -> torch.Tensor:
    return torch.randn(400, 6, generator=torch.Generator().manual_seed(seed)) + shift


def test_the_discriminator_tells_apart_what_differs_and_nothing_else() -> None:
    judge = Discriminator()
    judge.refresh()
    assert not judge.fitted
    assert (judge.verdict(samples_of(0, 0)) == 0.5).all()
    judge.remember(samples_of(1, 1.0), samples_of(2, 0.0))
    judge.refresh()
    ours, theirs = judge.verdict(samples_of(3, 1.0)), judge.verdict(samples_of(4, 0.0))
    assert (ours < theirs.mean()).mean() > 0.8
    assert ((ours >= 0) & (ours <= 1)).all()
    same = Discriminator()
    same.remember(samples_of(1, 0.0), samples_of(2, 0.0))
    same.refresh()
    assert abs(same.verdict(samples_of(5, 0.0)) - 0.5).max() < 0.25


def test_its_term_is_bounded_and_nothing_for_the_static_answer() -> None:
    judge = Discriminator(0.05)
    judge.remember(samples_of(1, 9.0), samples_of(2, -9.0))
    judge.refresh()
    far = samples_of(3, 1e6)
    assert abs(judge.term(far, samples_of(4, -1e6))).max() <= 0.05
    assert (judge.term(far, far) == 0).all()


def test_it_forgets_what_is_old_and_a_checkpoint_knows_it() -> None:
    judge = Discriminator(keep=100)
    for seed in range(3):
        judge.remember(samples_of(seed, 1.0), samples_of(seed + 9, 0.0))
    judge.refresh()
    assert len(judge.state()["ours"]) == 100
    other = Discriminator(keep=100)
    other.restore(judge.state())
    assert (other.verdict(samples_of(5, 0.5)) == judge.verdict(samples_of(5, 0.5))).all()


def test_settings_out_of_range_are_refused() -> None:
    for settings in ({"weight": -0.1}, {"weight": 0.1, "keep": 1}, {"weight": 0.1, "ridge": 0.0}):
        with pytest.raises(BadParams, match="discriminator"):
            Discriminator(**settings)  # type: ignore[arg-type]


def test_there_is_an_embedding_for_every_shape() -> None:
    assert isinstance(usual_embedding((1, 8, 8)), RandomFeatures)
    for shape in ((1, 4, 4), (16, 4, 2), (4, 128, 128)):
        pictures = torch.rand(3, *shape)
        pictures[1, 0, 0, 0] = torch.nan
        features = features_of(usual_embedding(shape), pictures)
        assert features.isfinite().all()
        assert (features[1] == 0).all()
        assert (features[0] != 0).any()
