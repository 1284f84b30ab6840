"""Arms answer all requests, charge what the network was asked, and may not charge less."""

from __future__ import annotations

import logging

import pytest
import torch

from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadInput
from vernissage.sampler.domain.denoiser import Counted
from vernissage.sampler.domain.programs import dpmpp, euler
from vernissage.sampler.domain.sampling import Sampled, run_program
from vernissage.sampler.domain.schedules import karras
from vernissage.sampler.judge.arms import (
    CountedStudent,
    Requests,
    SamplerArm,
    ancestral_arm,
    family_arm,
    heun_arm,
    price_arm,
    program_arm,
    stock_arms,
    student_arm,
)
from vernissage.sampler.learn.book import Entry, ProgramBook
from vernissage.sampler.learn.grid import Score
from vernissage.sampler.prepare.teacher_bank import RequestMix, make_bank

MIX = RequestMix.uneven(4, (1.0, 2.0))


@pytest.fixture(scope="module")
def requests() -> Requests:
    return Requests.of(make_bank(Mixture(), "test", 40, MIX, check_requests=4))


def entry(calls: int, scale: float, shares: tuple[float, ...] | None = None, saturated: float = 0.1) -> Entry:
    # Another first level for each scale, so that a mix-up shows.
    program = dpmpp(karras(calls, 0.02, 20.0 * scale))
    return Entry(program, scale, shares or (1.0,) * calls, "less guidance", Score(saturated, 0.1, 0.1, 8))


BOOK = ProgramBook(
    (
        entry(2, 1.0, saturated=0.4),
        entry(4, 1.0, saturated=0.1),
        entry(2, 2.0, (1.0, 0.0), saturated=0.5),
        entry(4, 2.0, (0.0, 1.0, 1.0, 0.0), saturated=0.2),
    ),
    0.1,
)


def test_a_family_runs_each_request_with_the_entry_for_its_scale(requests: Requests) -> None:
    sampled = family_arm(BOOK, "less guidance", batch=7).sample(Mixture(), requests, 4)
    for scale, nfe in ((1.0, 4), (2.0, 6)):
        rows = (requests.scales == scale).nonzero().flatten()
        own, part = BOOK.entry(4, scale), requests.rows(rows)
        alone = run_program(Mixture(), part.noise(), part.condition(), own.program, own.guidance(part.scales))
        torch.testing.assert_close(sampled.samples[rows], alone.samples, rtol=1e-4, atol=1e-5)
        assert sampled.evaluations[rows].unique().tolist() == [nfe]


def test_the_price_chooses_the_entry(requests: Requests) -> None:
    arm = price_arm(BOOK, (0.001, 0.5))
    plain = requests.scales == 1
    assert arm.dial == "price"
    assert arm.sample(Mixture(), requests, 0.001).evaluations[plain].unique().tolist() == [4]
    assert arm.sample(Mixture(), requests, 0.5).evaluations[plain].unique().tolist() == [2]


def test_stock_and_heun_charge_every_evaluation(requests: Requests) -> None:
    network = Counted(Mixture())
    arms = [*stock_arms(Mixture(), (3, 5)), heun_arm(Mixture(), (3, 35))]
    assert len(arms) == 5
    for arm in arms:
        calls = int(arm.budgets[-1])
        network.evaluations = 0
        sampled = arm.sample(network, requests, calls)
        expected = torch.where(requests.scales == 1, calls, 2 * calls)
        assert torch.equal(sampled.evaluations, expected)
        assert network.evaluations == int(expected.sum())
        assert sampled.samples.isfinite().all()
    with pytest.raises(BadInput, match="4 network calls, expected an odd number"):
        heun_arm(Mixture(), (4,))


def test_ancestral_sampling_is_context_for_a_few(requests: Requests) -> None:
    arm = ancestral_arm(Mixture(), requests=8, levels=karras(12, 0.02, 20.0))
    assert (arm.limit, arm.role, arm.budgets) == (8, "context", (12,))
    sampled = arm.sample(Mixture(), requests.first(8), 12)
    assert torch.equal(sampled.evaluations, torch.where(requests.scales[:8] == 1, 12, 24))


class Guess:
    """A student that answers with the mixture's own estimate."""

    sigma_max, middle = 80.0, 0.5

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: object, scales: torch.Tensor) -> torch.Tensor:
        assert len(scales) == len(x)
        return Mixture()(x, sigma, condition)  # type: ignore[arg-type]


def test_a_student_pays_one_evaluation_whatever_the_scale(requests: Requests) -> None:
    arm = student_arm(Guess(), batch=16)  # type: ignore[arg-type]
    for budget in arm.budgets:
        sampled = arm.sample(Mixture(), requests, budget)
        assert sampled.evaluations.unique().tolist() == [budget]
        assert (sampled.failed == -1).all()


def test_who_charges_too_little_is_refused(requests: Requests, caplog: pytest.LogCaptureFixture) -> None:
    program = euler((2.0, 0.5, 0.0))

    def run(factor: float) -> SamplerArm:
        def run(denoiser: object, some: Requests, budget: float) -> Sampled:
            found = run_program(denoiser, some.noise(), some.condition(), program, some.guidance())  # type: ignore[arg-type]
            return Sampled(found.samples, (found.evaluations * factor).long(), found.failed)

        return SamplerArm("own", (2,), run)

    with pytest.raises(BadInput, match=r"arm own at 2: charges \d+ evaluations, but networks were asked for"):
        run(0.5).sample(Mixture(), requests, 2)
    with caplog.at_level(logging.WARNING):
        run(2).sample(Mixture(), requests, 2)
    assert "were seen" in caplog.text


def test_other_networks_count_too(requests: Requests) -> None:
    other = CountedStudent(Guess())

    def run(_denoiser: object, some: Requests, _budget: float) -> Sampled:
        x = other(some.noise(), torch.ones(len(some)), some.condition(), some.scales)
        free = torch.zeros(len(some), dtype=torch.long)
        return Sampled(x, free, free - 1)

    with pytest.raises(BadInput, match="charges 0"):
        SamplerArm("sly", (1,), run, networks=(other,)).sample(Mixture(), requests, 1)


def test_answers_must_fit(requests: Requests) -> None:
    def run(_denoiser: object, some: Requests, _budget: float) -> Sampled:
        return Sampled(some.noise()[:3], torch.ones(3), torch.ones(3))

    with pytest.raises(BadInput, match="arm short: samples of shape"):
        SamplerArm("short", (1,), run).sample(Mixture(), requests, 1)


@pytest.mark.parametrize("budgets", [(), (2, 1), (1, 1)])
def test_budgets_increase(budgets: tuple[float, ...]) -> None:
    run = program_arm("x", {1: euler((1.0, 0.0))}).run
    with pytest.raises(BadInput, match="increasing"):
        SamplerArm("x", budgets, run)


def test_a_family_that_is_not_there_is_refused() -> None:
    for family in ("grid", "per guidance"):
        with pytest.raises(BadInput, match="expected one of less guidance"):
            family_arm(BOOK, family)
