"""Denoisers whose answers are known, and noise levels to try them on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from hypothesis import strategies as st

from vernissage.sampler.domain.denoiser import NULL, ClassLabels

if TYPE_CHECKING:
    from vernissage.sampler.domain.denoiser import Condition, Denoiser


class Gaussian:
    """The exact denoiser of normal pictures with standard deviation `sigma_data`; the flow has a closed form."""

    shape = (1, 2, 2)
    sigma_min, sigma_max, sigma_data = 0.002, 80.0, 0.5

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        variance = self.sigma_data**2
        return x * (variance / (variance + sigma.view(-1, 1, 1, 1) ** 2))

    def flow(self, x: torch.Tensor, start: float, end: float) -> torch.Tensor:
        """Where the state x at sigma `start` is at sigma `end`."""
        variance = self.sigma_data**2
        return x * math.sqrt((variance + end**2) / (variance + start**2))


class Signs(Gaussian):
    """The exact denoiser of pixels that are 1 or -1: nothing about it is linear."""

    sigma_data = 1.0

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        return torch.tanh(x / sigma.view(-1, 1, 1, 1) ** 2)


class Shades(Gaussian):
    """Pictures of one shade: the class, or -1 for no class; whoever asks for `broken` gets nan below sigma 1."""

    def __init__(self, broken: int = 99) -> None:
        self.broken = broken

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        labels = condition.labels if isinstance(condition, ClassLabels) else torch.full((len(x),), NULL)
        shade = labels.to(x)
        shade[(labels == self.broken) & (sigma < 1)] = torch.nan
        return shade.view(-1, 1, 1, 1).expand_as(x).clone()


class Recorder:
    """Keeps the states that the network is asked about."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self.shape, self.sigma_data = denoiser.shape, denoiser.sigma_data
        self.sigma_min, self.sigma_max = denoiser.sigma_min, denoiser.sigma_max
        self.states: list[torch.Tensor] = []
        self.levels: list[torch.Tensor] = []

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        self.states.append(x.clone())
        self.levels.append(sigma.clone())
        return self._denoiser(x, sigma, condition)


def _falling(steps: list[float]) -> tuple[float, ...]:
    levels = [50.0]
    for step in steps:
        levels.append(levels[-1] * math.exp(-step))
    return (*levels, 0.0)


#: Noise levels from 50 down, 1 to 11 of them, unevenly spaced, and 0.
ANY_SIGMAS = st.lists(st.floats(0.1, 1.2), max_size=10).map(_falling)
