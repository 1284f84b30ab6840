"""A denoiser whose answers are exact, and to which no solver is: a few Gaussians for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vernissage.sampler.domain.denoiser import NULL, ClassLabels

if TYPE_CHECKING:
    from vernissage.sampler.domain.denoiser import Condition


class Mixture:
    """Pictures of (1, 4, 4): class k is one of k + 2 Gaussians of equal width; without a class it is any of them."""

    shape = (1, 4, 4)
    sigma_min, sigma_max = 0.002, 80.0
    width = 0.1

    def __init__(self, classes: int = 4) -> None:
        generator = torch.Generator().manual_seed(7)
        self.own = torch.repeat_interleave(torch.arange(classes), torch.arange(classes) + 2)
        self.means = torch.randn(len(self.own), 16, generator=generator).mul(0.5)
        self.classes = classes
        self.sigma_data = float((self.means.var() + self.width**2).sqrt())

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        labels = condition.labels if isinstance(condition, ClassLabels) else torch.full((len(x),), NULL)
        flat, means = x.flatten(1), self.means.to(x)
        variance = (self.width**2 + sigma.to(x) ** 2).view(-1, 1)
        squares = flat.square().sum(1, keepdim=True) - 2 * flat @ means.T + means.square().sum(1)
        of_others = (labels[:, None] != self.own) & (labels[:, None] != NULL)
        weights = (-squares / (2 * variance)).masked_fill(of_others, -torch.inf).softmax(dim=1)
        centre = weights @ means
        return (centre + (self.width**2 / variance) * (flat - centre)).view_as(x)
