"""Noise schedules: at which noise levels the network is asked, from sigma_max down to sigma_min, and then 0.

Each is a function of n, the number of levels above 0, and returns n + 1 strictly decreasing sigmas, the last of them 0.
With n = 1 there is only sigma_max.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from vernissage.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Noise rates of the variance preserving process at its start, and how much faster they are at its end (Song et al.
#: 2021, appendix C): its clock spaces the steps of `time_uniform` and of DEIS.
VP_BETA_MIN = 0.1
VP_BETA_GROWTH = 19.9

Spacing = Literal["linspace", "leading", "trailing"]
Betas = Literal["linear", "scaled_linear"]


class Schedule(Protocol):
    """A noise schedule by its range."""

    def __call__(self, n: int, sigma_min: float, sigma_max: float) -> tuple[float, ...]:
        """Return n + 1 sigmas, the last of them 0."""
        ...


def karras(n: int, sigma_min: float, sigma_max: float, *, rho: float = 7.0) -> tuple[float, ...]:
    """Levels that are evenly spaced in ``sigma ** (1 / rho)`` (Karras et al. 2022, equation 5).

    Args:
        n: Levels above 0.
        sigma_min: The last level above 0.
        sigma_max: The first level.
        rho: Above 0; 1 spaces sigma itself evenly, more of it puts more levels near sigma_min.

    Raises:
        BadInput: If there is no such schedule.
    """
    if not (math.isfinite(rho) and rho > 0):
        raise BadInput(f"karras schedule: rho = {rho}, expected a number above 0; 7 is usual")
    return _evenly(n, sigma_min, sigma_max, lambda sigma: sigma ** (1 / rho), lambda root: root**rho)


def log_snr(n: int, sigma_min: float, sigma_max: float) -> tuple[float, ...]:
    """Levels that are evenly spaced in the logarithm of the signal to noise ratio (Lu et al. 2022, DPM-Solver).

    Raises:
        BadInput: If there is no such schedule.
    """
    return _evenly(n, sigma_min, sigma_max, np.log, np.exp)


def time_uniform(n: int, sigma_min: float, sigma_max: float) -> tuple[float, ...]:
    """Levels that are evenly spaced in the time of the variance preserving process.

    Raises:
        BadInput: If there is no such schedule.
    """
    return _evenly(n, sigma_min, sigma_max, vp_time, _vp_sigma)


def time_quadratic(n: int, sigma_min: float, sigma_max: float) -> tuple[float, ...]:
    """Levels that are evenly spaced in the square root of that time (Song et al. 2021, DDIM, appendix D.2).

    Raises:
        BadInput: If there is no such schedule.
    """
    return _evenly(n, sigma_min, sigma_max, lambda sigma: np.sqrt(vp_time(sigma)), lambda root: _vp_sigma(root**2))


def cosine(n: int, sigma_min: float, sigma_max: float) -> tuple[float, ...]:
    """Levels that are evenly spaced in the angle between picture and noise (Nichol and Dhariwal 2021, equation 17).

    Raises:
        BadInput: If there is no such schedule.
    """
    return _evenly(n, sigma_min, sigma_max, np.arctan, np.tan)


#: The schedules that a grid search goes through, by name.
SCHEDULES: Mapping[str, Schedule] = {
    "karras-3": partial(karras, rho=3.0),
    "karras-5": partial(karras, rho=5.0),
    "karras-7": partial(karras, rho=7.0),
    "karras-9": partial(karras, rho=9.0),
    "log-snr": log_snr,
    "time-uniform": time_uniform,
    "time-quadratic": time_quadratic,
    "cosine": cosine,
}


def vp_time(sigma: np.ndarray) -> np.ndarray:
    """When the variance preserving process has this noise level; 0 at sigma 0, 1 at about 152.

    Args:
        sigma: (...) float, 0 or more.

    Returns:
        (...) float: t of ``log(1 + sigma^2) = VP_BETA_GROWTH t^2 / 2 + VP_BETA_MIN t``.
    """
    amount = np.log1p(np.square(sigma))
    # The root without the difference of two numbers that are nearly equal at small sigma.
    time: np.ndarray = 2 * amount / (VP_BETA_MIN + np.sqrt(VP_BETA_MIN**2 + 2 * VP_BETA_GROWTH * amount))
    return time


def training_sigmas(
    betas: Betas = "linear", beta_start: float = 0.0001, beta_end: float = 0.02, steps: int = 1000
) -> np.ndarray:
    """Noise levels with which a discrete model was trained.

    Args:
        betas: How the noise rate grows from first to last: `linear`, or `scaled_linear`, which is linear in its root.
        beta_start: Noise rate of the first timestep.
        beta_end: Noise rate of the last one.
        steps: Timesteps, T.

    Returns:
        (T,) float64, increasing.

    Raises:
        BadInput: If there is no such schedule.
    """
    if steps < 1 or not 0 < beta_start <= beta_end < 1:
        raise BadInput(
            f"training schedule: {steps} steps with betas from {beta_start} to {beta_end}, expected at least one step "
            "and 0 < beta_start <= beta_end < 1"
        )
    if betas == "linear":
        rates = np.linspace(beta_start, beta_end, steps)
    elif betas == "scaled_linear":
        rates = np.linspace(beta_start**0.5, beta_end**0.5, steps) ** 2
    else:
        raise BadInput(f"training schedule: betas {betas!r}, expected linear or scaled_linear")
    sigmas: np.ndarray = np.sqrt(np.expm1(-np.log1p(-rates).cumsum()))
    return sigmas


def of_training(
    n: int, trained: np.ndarray, spacing: Spacing, *, multistep: bool = True, offset: int = 0
) -> tuple[float, ...]:
    """Levels of some training timesteps, spaced as in `diffusers` (Lin et al. 2024, table 2).

    Args:
        n: Levels above 0.
        trained: (T,) noise levels of the timesteps, increasing, as from :func:`training_sigmas`.
        spacing: `linspace` from end to end, `leading` from timestep 0 on, `trailing` from the last one back.
        multistep: Which of its two conventions: that of DPM-Solver, UniPC and DEIS, or that of Euler and Heun.
        offset: What `steps_offset` adds to `leading` timesteps; 1 for Stable Diffusion.

    Returns:
        n + 1 sigmas, the last of them 0.

    Raises:
        BadInput: If there are no n such timesteps.
    """
    steps = len(trained)
    if not 1 <= n < steps:
        raise BadInput(f"training schedule: {n} levels of {steps} timesteps, expected 1 to {steps - 1}")
    chosen: np.ndarray
    if spacing == "linspace":
        ends = np.linspace(0, steps - 1, n + multistep)[::-1]
        chosen = ends[:-1].round() if multistep else ends
    elif spacing == "leading":
        chosen = (np.arange(n)[::-1] + multistep) * (steps // (n + multistep)) + float(offset)
    elif spacing == "trailing":
        chosen = (steps - np.arange(n) * (steps / n)).round() - 1
    else:
        raise BadInput(f"training schedule: spacing {spacing!r}, expected linspace, leading or trailing")
    if chosen[0] > steps - 1 or chosen[-1] < 0:
        raise BadInput(
            f"training schedule: timesteps {chosen[0]:g} to {chosen[-1]:g}, expected 0 to {steps - 1}; offset "
            f"{offset} is too far"
        )
    return (*np.interp(chosen, np.arange(steps), trained).tolist(), 0.0)


def _vp_sigma(time: np.ndarray) -> np.ndarray:
    """The other way from `vp_time`."""
    sigma: np.ndarray = np.sqrt(np.expm1(VP_BETA_GROWTH * time**2 / 2 + VP_BETA_MIN * time))
    return sigma


def _evenly(
    n: int,
    sigma_min: float,
    sigma_max: float,
    forth: Callable[[np.ndarray], np.ndarray],
    back: Callable[[np.ndarray], np.ndarray],
) -> tuple[float, ...]:
    """Sigmas evenly spaced after `forth`, which `back` undoes; both ends are kept exactly."""
    if n < 1:
        raise BadInput(f"schedule: n = {n} levels, expected at least 1")
    if not (0 < sigma_min < sigma_max < math.inf):
        raise BadInput(f"schedule: sigma_min = {sigma_min} and sigma_max = {sigma_max}, expected 0 < min < max")
    if n == 1:
        return (float(sigma_max), 0.0)
    first, last = forth(np.array([sigma_max, sigma_min], dtype=np.float64))
    inner = back(np.linspace(first, last, n)[1:-1])
    levels = (float(sigma_max), *inner.tolist(), float(sigma_min), 0.0)
    if any(later >= earlier for earlier, later in pairwise(levels)):
        raise BadInput(
            f"schedule: {n} levels between {sigma_min} and {sigma_max} are closer than numbers can tell apart; "
            "take fewer or a wider range"
        )
    return levels
