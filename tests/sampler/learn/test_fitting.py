from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.sampler.domain.closed_form import ANY_SIGMAS, Shades
from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadInput, BadParams
from vernissage.sampler.domain.programs import SOLVERS, Program, dpmpp, euler, heun, ipndm
from vernissage.sampler.domain.sampling import run_program
from vernissage.sampler.domain.schedules import karras, log_snr
from vernissage.sampler.learn.fitting import FitSettings, Levels, _Written, fit_coefficients, fit_sigmas
from vernissage.sampler.learn.grid import Course, reported
from vernissage.sampler.prepare.teacher_bank import Bank, RequestMix, make_bank

if TYPE_CHECKING:
    from vernissage.sampler.domain.denoiser import Condition

PLAIN = RequestMix.uneven(4, (1.0,))
FEW = FitSettings(steps=12, batch=32, looks=3)
TAU = 0.1


@pytest.fixture(scope="module")
def banks() -> tuple[Bank, Bank, Bank]:
    train, val, test = (
        make_bank(Mixture(), part, count, PLAIN) for part, count in (("train", 384), ("val", 256), ("test", 512))
    )
    return train, val, test


class Cut(Mixture):
    """Gives no gradient in the noise level, or in nothing at all."""

    def __init__(self, *, state: bool) -> None:
        super().__init__()
        self.state = state

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        answer = super().__call__(x, sigma.detach(), condition)
        return answer if self.state else answer.detach()


class Partly(Mixture):
    """Is not finite for samples whose first pixel is large."""

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        answer = super().__call__(x, sigma, condition)
        return answer.masked_fill((x[:, :1, :1, :1] > 1.5 * sigma.view(-1, 1, 1, 1)) & (sigma.max() > 5), torch.nan)


@given(ANY_SIGMAS, st.data())
def test_levels_fall_whatever_the_numbers_are(sigmas: tuple[float, ...], data: st.DataObject) -> None:
    levels = Levels(sigmas, 0.002, 80.0)
    numbers = data.draw(st.lists(st.floats(-1e6, 1e6), min_size=levels.count, max_size=levels.count))
    values = levels.sigmas(torch.tensor(numbers, dtype=torch.float64)).tolist()
    assert all(here > there for here, there in pairwise([*values, 0.0]))
    assert values[0] <= 80.0 * (1 + 1e-12)
    assert values[-1] >= min(0.002, sigmas[-2]) * (1 - 1e-9)


@given(ANY_SIGMAS)
def test_levels_start_where_they_are_told(sigmas: tuple[float, ...]) -> None:
    levels = Levels(sigmas, 0.002, 80.0)
    assert levels.sigmas(torch.zeros(levels.count, dtype=torch.float64)).tolist() == pytest.approx(sigmas[:-1])
    limit = torch.zeros(levels.count, dtype=torch.float64)
    limit[0] = levels.room
    assert levels.sigmas(limit)[0].item() == pytest.approx(80.0)


def test_derivatives_of_what_a_solver_writes() -> None:
    sigmas = torch.tensor([5.0, 2.0, 0.7], dtype=torch.float64, requires_grad=True)
    written = _Written.apply(sigmas, euler)
    weights = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (found,) = torch.autograd.grad((written * weights).sum(), sigmas)
    plain = torch.stack((1 - sigmas[1] / sigmas[0], 1 - sigmas[2] / sigmas[1], torch.ones_like(sigmas[0])))
    (expected,) = torch.autograd.grad((plain * weights[:, 0]).sum(), sigmas)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("calls", [4, 6])
def test_fits_pay_on_other_noises(banks: tuple[Bank, Bank, Bank], calls: int) -> None:
    train, val, test = banks
    start = ipndm(log_snr(calls, 0.05, 7.0), 3)
    settings = FitSettings(steps=100)
    sigmas = fit_sigmas(Mixture(), train, val, start, SOLVERS["ipndm-3"], settings, tau=TAU)
    both = fit_coefficients(Mixture(), train, val, start, settings, tau=TAU)
    before, after, best = Course(Mixture(), test, TAU).scores([start, sigmas.program, both.program])
    assert after.mean < 0.9 * before.mean
    assert best.mean < 0.7 * before.mean
    assert best.median < 0.6 * before.median
    for fit in (sigmas, both):
        assert reported(fit.after) < reported(fit.before)
        assert fit.after == Course(Mixture(), val, TAU).scores([fit.program])[0]
        assert fit.looks[0].step == 0
        assert fit.after == min((look.score for look in fit.looks), key=reported)
        assert fit.facts()["after"]["saturated"] == fit.after.saturated
        assert Program.from_json(fit.program.to_json()) == fit.program
    # With fitted levels the solver itself would write the same.
    assert SOLVERS["ipndm-3"](sigmas.program.sigmas).coefficients == sigmas.program.coefficients


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_every_solver_can_be_fitted(banks: tuple[Bank, Bank, Bank], name: str) -> None:
    train, val, _ = banks
    start = SOLVERS[name](karras(4, 0.05, 10.0))
    for fit in (
        fit_sigmas(Mixture(), train, val, start, SOLVERS[name], FEW, tau=TAU),
        fit_coefficients(Mixture(), train, val, start, FEW, tau=TAU),
    ):
        assert reported(fit.after) <= reported(fit.before)
        assert fit.program.evaluations == start.evaluations
        assert fit.program.corrections == start.corrections
        assert fit.skipped == 0


def test_a_fit_that_makes_it_worse_returns_the_start(banks: tuple[Bank, Bank, Bank]) -> None:
    train, val, _ = banks
    start = ipndm(log_snr(6, 0.05, 7.0), 3)
    # The endpoints to fit to are other pictures than those that decide.
    misled = replace(train, endpoints=-train.endpoints)
    fit = fit_coefficients(Mixture(), misled, val, start, FEW, tau=TAU)
    assert fit.program is start
    assert fit.after == fit.before


def test_the_first_iterate_is_the_start(banks: tuple[Bank, Bank, Bank]) -> None:
    """With rates of almost nothing nothing changes, corrections of Heun's method included."""
    train, val, _ = banks
    still = FitSettings(steps=2, looks=1, sigma_rate=1e-12, coefficient_rate=1e-12, label_rate=1e-12)
    for start in (heun(karras(3, 0.05, 10.0)), dpmpp(karras(5, 0.05, 80.0), order=3), euler((2.0, 0.0))):
        fit = fit_coefficients(Mixture(), train, val, start, still, tau=TAU)
        assert fit.looks[-1].score.mean == pytest.approx(fit.before.mean, rel=1e-4)


def test_two_fits_are_equal_and_recomputing_changes_nothing(banks: tuple[Bank, Bank, Bank]) -> None:
    train, val, _ = banks
    start = dpmpp(karras(4, 0.05, 10.0))
    first, again, lean = (
        fit_coefficients(Mixture(), train, val, start, replace(FEW, recompute=recompute), tau=TAU)
        for recompute in (False, False, True)
    )
    assert first.program == again.program == lean.program
    assert first.program != start


def test_memory(banks: tuple[Bank, Bank, Bank]) -> None:
    train, val, _ = banks
    start = dpmpp(karras(6, 0.05, 10.0))
    widths = [
        fit_coefficients(Mixture(), train, val, start, replace(FEW, memory=memory), tau=TAU).program.memory
        for memory in (0, 2, None)
    ]
    assert widths == [1, 2, 5]


def test_guidance_and_its_shares() -> None:
    mix = RequestMix.uneven(4, (1.0, 2.0))
    train, val = (make_bank(Mixture(), part, 96, mix) for part in ("train", "val"))
    start = ipndm(log_snr(4, 0.05, 7.0), 3)
    shares = (1.0, 1.0, 1.0, 0.0)
    fit = fit_coefficients(Mixture(), train, val, start, replace(FEW, steps=40), tau=TAU, shares=shares)
    assert reported(fit.after) < reported(fit.before)
    guidance = torch.where(torch.tensor(shares) > 0, val.scales[:, None], torch.ones(()))
    made = run_program(Mixture(), val.noise(), val.condition(), fit.program, guidance)
    off = (made.samples - val.endpoints).double().square().flatten(1).mean(1).sqrt()
    assert fit.after.mean == pytest.approx(off.mean().item(), rel=1e-5)
    assert made.evaluations.tolist() == [4 if scale == 1 else 7 for scale in val.scales.tolist()]


def test_samples_that_are_not_finite_stop_nobody(banks: tuple[Bank, Bank, Bank]) -> None:
    train, val, _ = banks
    fit = fit_coefficients(Partly(), train, val, dpmpp(karras(4, 0.05, 10.0)), replace(FEW, steps=40), tau=TAU)
    assert fit.before.mean == math.inf
    assert fit.after.saturated < fit.before.saturated
    assert fit.skipped == 0
    assert all(map(math.isfinite, fit.program.sigmas))


@pytest.mark.parametrize(("denoiser", "missing"), [(Cut(state=True), "in sigma"), (Cut(state=False), "in x and sigma")])
def test_a_network_without_gradients(banks: tuple[Bank, Bank, Bank], denoiser: Cut, missing: str) -> None:
    train, val, _ = banks
    with pytest.raises(BadInput, match=f"gradient {missing}"):
        fit_coefficients(denoiser, train, val, euler((5.0, 1.0, 0.0)), FEW, tau=TAU)
    with pytest.raises(BadInput, match="gradient in x and sigma"):
        fit_sigmas(Shades(), train, val, euler((5.0, 1.0, 0.0)), euler, FEW, tau=TAU)


def test_a_program_of_another_solver(banks: tuple[Bank, Bank, Bank]) -> None:
    train, val, _ = banks
    with pytest.raises(BadInput, match="not what its solver writes"):
        fit_sigmas(Mixture(), train, val, dpmpp(karras(4, 0.05, 10.0)), euler, FEW, tau=TAU)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"sigma_rate": 0.0}, {"warm_up": 1.0}, {"memory": -1}])
def test_settings_that_cannot_be(wrong: dict) -> None:
    with pytest.raises(BadParams, match="fit"):
        FitSettings(**wrong)


def test_what_the_network_is_told_is_fitted_with_the_coefficients(banks: tuple[Bank, Bank, Bank]) -> None:
    train, val, _ = banks
    start = ipndm(log_snr(4, 0.05, 7.0), 3)
    settings = FitSettings(steps=60)
    told = fit_coefficients(Mixture(), train, val, start, settings, tau=TAU)
    kept = fit_coefficients(Mixture(), train, val, start, replace(settings, label_rate=0.0), tau=TAU)
    assert kept.program.told == ()
    assert len(told.program.told) == 4
    assert told.program.told != pytest.approx(told.program.levels, rel=1e-3)
    assert told.after.mean < kept.after.mean
    # What was fitted once is where the next fit starts, whether it goes on changing it or not.
    again = fit_coefficients(Mixture(), train, val, told.program, replace(FEW, label_rate=0.0), tau=TAU)
    ratios = [a / b for a, b in zip(told.program.told, told.program.levels, strict=True)]
    assert [a / b for a, b in zip(again.program.told, again.program.levels, strict=True)] == pytest.approx(ratios)
