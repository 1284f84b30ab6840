"""Programs against the schedulers of diffusers: the same states at each network call, and the same sample at the end.

Both get the same sigmas, put into the scheduler by hand, because most of them take none. Schedulers of variance
preserving kind work on ``x / sqrt(1 + sigma^2)``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    IPNDMScheduler,
    UniPCMultistepScheduler,
)

from tests.sampler.domain.closed_form import Recorder, Signs
from vernissage.core.seeds import numpy_generator
from vernissage.sampler.domain.programs import Program, deis, dpmpp, euler, heun, ipndm, unipc
from vernissage.sampler.domain.sampling import per_seed_noise, run_program, sample_ancestral
from vernissage.sampler.domain.schedules import karras, training_sigmas

if TYPE_CHECKING:
    from collections.abc import Callable

# diffusers calls numpy in ways that numpy deprecates, and takes the logarithm of the last sigma.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning", "ignore:divide by zero:RuntimeWarning")

#: A few steps, where diffusers lowers the order at the end, and many, where it does not.
FEW, MANY = karras(9, 0.05, 20.0), karras(18, 0.05, 20.0)


def noise() -> torch.Tensor:
    return per_seed_noise(range(3), Signs.shape).double()


def ours(program: Program) -> list[torch.Tensor]:
    """States at each network call, then the sample."""
    recorder = Recorder(Signs())
    sample = run_program(recorder, noise(), None, program).samples
    return [*recorder.states, sample]


def theirs(
    scheduler: Any,
    levels: tuple[float, ...],
    output: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor],
    *,
    preserving: bool,
) -> list[torch.Tensor]:
    """As `ours`. `output` makes what the scheduler takes of the state and the prediction at a sigma."""
    states, x = [], noise() * levels[0]
    if preserving:
        x = x / math.sqrt(1 + levels[0] ** 2)
    for time, sigma in zip(scheduler.timesteps, levels, strict=False):
        state = x * math.sqrt(1 + sigma**2) if preserving else x
        states.append(state)
        prediction = Signs()(state, torch.tensor([sigma], dtype=state.dtype), None)
        x = scheduler.step(output(state, prediction, sigma), time, x).prev_sample
    return [*states, x]


def with_sigmas(scheduler: Any, sigmas: tuple[float, ...]) -> Any:
    scheduler.set_timesteps(len(sigmas) - 1)
    scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64)
    scheduler.set_begin_index(0)
    return scheduler


def picture(state: torch.Tensor, prediction: torch.Tensor, sigma: float) -> torch.Tensor:
    return prediction


def agree(left: list[torch.Tensor], right: list[torch.Tensor], tolerance: float) -> None:
    assert len(left) == len(right)
    for mine, other in zip(left, right, strict=True):
        torch.testing.assert_close(mine, other.to(mine), rtol=tolerance, atol=tolerance)


def test_euler() -> None:
    scheduler = with_sigmas(EulerDiscreteScheduler(prediction_type="sample"), FEW)
    agree(ours(euler(FEW)), theirs(scheduler, FEW, picture, preserving=False), 1e-5)


def test_heun() -> None:
    scheduler = HeunDiscreteScheduler(prediction_type="sample")
    scheduler.set_timesteps(len(FEW) - 1)
    twice = torch.tensor(FEW, dtype=torch.float64)
    scheduler.sigmas = torch.cat([twice[:1], twice[1:-1].repeat_interleave(2), twice[-1:]])
    scheduler.set_begin_index(0)
    program = heun(FEW)
    agree(ours(program), theirs(scheduler, program.levels, picture, preserving=False), 1e-9)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("sigmas", [FEW, MANY])
def test_dpm_solver(order: int, sigmas: tuple[float, ...]) -> None:
    """Below 15 steps diffusers lowers the last orders, from there on only the very last; it computes in float32."""
    scheduler = with_sigmas(
        DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=order, prediction_type="sample"), sigmas
    )
    program = dpmpp(sigmas, order, ending="lowered" if len(sigmas) <= 15 else "plain")
    agree(ours(program), theirs(scheduler, sigmas, picture, preserving=True), 2e-4)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("sigmas", [FEW, MANY])
def test_unipc(order: int, sigmas: tuple[float, ...]) -> None:
    """The state at each call is the predicted one in both; the corrected one is only ever stepped from."""
    scheduler = with_sigmas(UniPCMultistepScheduler(solver_order=order, prediction_type="sample"), sigmas)
    agree(ours(unipc(sigmas, order)), theirs(scheduler, sigmas, picture, preserving=True), 1e-6)


def test_unipc_without_its_corrector() -> None:
    scheduler = with_sigmas(
        UniPCMultistepScheduler(solver_order=3, prediction_type="sample", disable_corrector=list(range(9))), FEW
    )
    agree(ours(unipc(FEW, 3, corrector=False)), theirs(scheduler, FEW, picture, preserving=True), 1e-6)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("sigmas", [FEW, MANY])
def test_deis(order: int, sigmas: tuple[float, ...]) -> None:
    """diffusers has only the variant with polynomials in log sigma, and no step to sigma 0: its first order is nan
    there. So the last state is compared, not the sample. The paper's variant in time is compared with its integral
    where programs are tested.
    """
    scheduler = with_sigmas(DEISMultistepScheduler(solver_order=order, prediction_type="sample"), sigmas)
    program = deis(sigmas, order, variable="log-sigma", ending="lowered" if len(sigmas) <= 15 else "plain")
    agree(ours(program)[:-1], theirs(scheduler, sigmas, picture, preserving=True)[:-1], 1e-8)


def test_ipndm() -> None:
    """diffusers has the fourth order only, to the end, and a network that predicts the velocity."""
    scheduler = IPNDMScheduler()
    scheduler.set_timesteps(len(FEW) - 1)
    sigmas = torch.tensor(FEW, dtype=torch.float64)
    scheduler.alphas = (1 + sigmas**2).rsqrt()
    scheduler.betas = sigmas * scheduler.alphas
    scheduler.set_begin_index(0)

    def velocity(state: torch.Tensor, prediction: torch.Tensor, sigma: float) -> torch.Tensor:
        return ((state - prediction) / sigma - sigma * prediction) / math.sqrt(1 + sigma**2)

    agree(ours(ipndm(FEW, 4)), theirs(scheduler, FEW, velocity, preserving=True), 1e-9)


def test_ancestral_sampling_is_ddpm(monkeypatch: pytest.MonkeyPatch) -> None:
    """With our noise in place of its own, one generator per sample; diffusers has its betas in float32."""
    levels = (*training_sigmas(beta_end=0.2, steps=50)[::-1].tolist(), 0.0)
    scheduler = DDPMScheduler(
        50, beta_end=0.2, prediction_type="sample", clip_sample=False, variance_type="fixed_small"
    )
    scheduler.set_timesteps(50)
    seeds = [4, 5]
    generators = [numpy_generator(seed, "ancestral") for seed in seeds]

    def drawn(*_: Any, **__: Any) -> torch.Tensor:
        values = [generator.standard_normal(Signs.shape, dtype=np.float32) for generator in generators]
        return torch.from_numpy(np.stack(values))

    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", drawn)
    x = per_seed_noise(seeds, Signs.shape) * levels[0] / math.sqrt(1 + levels[0] ** 2)
    for time, sigma in zip(scheduler.timesteps, levels, strict=False):
        prediction = Signs()(x * math.sqrt(1 + sigma**2), torch.tensor([sigma]), None)
        x = scheduler.step(prediction, time, x).prev_sample
    mine = sample_ancestral(Signs(), seeds, None, levels)
    torch.testing.assert_close(mine.samples, x, rtol=1e-4, atol=1e-4)
    assert mine.evaluations.tolist() == [50, 50]
