from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from vernissage.core.errors import BadInput
from vernissage.sampler.domain.schedules import (
    SCHEDULES,
    cosine,
    karras,
    log_snr,
    of_training,
    time_quadratic,
    time_uniform,
    training_sigmas,
    vp_time,
)

# diffusers calls numpy in a way that numpy deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SPACINGS = ("linspace", "leading", "trailing")


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(1, 40), st.floats(1e-3, 0.9), st.floats(1.0, 200.0))
def test_levels_fall_from_end_to_end_and_then_to_zero(name: str, n: int, low: float, high: float) -> None:
    sigmas = SCHEDULES[name](n, low, high)
    assert len(sigmas) == n + 1
    assert all(a > b for a, b in pairwise(sigmas))
    assert sigmas[0] == high
    assert sigmas[-1] == 0
    assert n == 1 or sigmas[-2] == low


def test_karras_and_log_snr_are_those_of_diffusers() -> None:
    for option, ours in (("use_karras_sigmas", karras), ("use_exponential_sigmas", log_snr)):
        scheduler = EulerDiscreteScheduler(sigma_min=0.02, sigma_max=30.0, **{option: True})
        scheduler.set_timesteps(9)
        np.testing.assert_allclose(ours(9, 0.02, 30.0), scheduler.sigmas.numpy(), rtol=1e-5)


def test_rho_one_spaces_sigma_itself() -> None:
    np.testing.assert_allclose(karras(4, 1.0, 4.0, rho=1.0), (4, 3, 2, 1, 0), rtol=1e-12)


def test_each_is_even_in_its_own_measure() -> None:
    def steps(values: np.ndarray) -> np.ndarray:
        return np.diff(values) / np.diff(values).mean()

    for sigmas, measure in (
        (time_uniform(7, 0.01, 60.0), vp_time),
        (time_quadratic(7, 0.01, 60.0), lambda s: np.sqrt(vp_time(s))),
        (cosine(7, 0.01, 60.0), np.arctan),
    ):
        np.testing.assert_allclose(steps(measure(np.array(sigmas[:-1]))), 1, rtol=1e-9)


def test_vp_time_is_that_of_the_continuous_process() -> None:
    time = np.array([1e-6, 1e-3, 0.3, 1.0])
    alpha_bar = np.exp(-0.5 * 19.9 * time**2 - 0.1 * time)
    np.testing.assert_allclose(vp_time(np.sqrt(1 / alpha_bar - 1)), time, rtol=1e-8)
    assert vp_time(np.array(0.0)) == 0


@pytest.mark.parametrize("betas", ["linear", "scaled_linear"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("n", [1, 4, 7, 20, 37])
def test_training_levels_are_those_of_diffusers(betas: str, spacing: str, n: int) -> None:
    options = {"beta_schedule": betas, "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": spacing}
    trained = training_sigmas(betas, 0.00085, 0.012)
    for multistep, kind in ((True, DPMSolverMultistepScheduler), (False, EulerDiscreteScheduler)):
        scheduler = kind(**options, steps_offset=1)
        scheduler.set_timesteps(n)
        sigmas = of_training(n, trained, spacing, multistep=multistep, offset=1)
        # diffusers multiplies up a thousand factors in float32.
        np.testing.assert_allclose(sigmas, scheduler.sigmas.numpy(), rtol=2e-3 if sigmas[-2] < 0.05 else 2e-4)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize(
    ("n", "low", "high"),
    [(0, 0.1, 1), (-3, 0.1, 1), (4, 1, 1), (4, 2, 1), (4, 0, 1), (4, float("nan"), 1), (4, 0.1, float("inf"))],
)
def test_what_is_no_schedule_is_refused(name: str, n: int, low: float, high: float) -> None:
    with pytest.raises(BadInput, match="schedule"):
        SCHEDULES[name](n, low, high)


def test_levels_too_close_to_tell_apart_are_refused() -> None:
    with pytest.raises(BadInput, match="wider range"):
        log_snr(50, 1.0, 1.0 + 1e-15)


def test_other_mistakes_are_named() -> None:
    trained = training_sigmas(steps=10)
    for mistake, message in (
        (lambda: karras(4, 0.1, 1.0, rho=0.0), "rho = 0.0"),
        (lambda: of_training(10, trained, "linspace"), "10 levels of 10 timesteps"),
        (lambda: of_training(0, trained, "linspace"), "0 levels"),
        (lambda: of_training(3, trained, "sideways"), "sideways"),
        (lambda: of_training(3, trained, "leading", offset=9), "offset 9 is too far"),
        (lambda: training_sigmas("quadratic"), "quadratic"),
        (lambda: training_sigmas("linear", 0.2, 0.1), "beta_start"),
    ):
        with pytest.raises(BadInput, match=message):
            mistake()
