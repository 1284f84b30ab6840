"""Teaches the plan through the differentiable renderer, the strongest teacher there is for where the sliders belong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from vernissage.retoucher.domain.colour import srgb_to_linear
from vernissage.retoucher.domain.render import render, render_linear
from vernissage.retoucher.domain.sliders import HIGHS, LOWS, SLIDER_COUNT
from vernissage.retoucher.learn.rewards import ERROR_SCALE, reference_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vernissage.retoucher.learn.network import PolicyNet
    from vernissage.retoucher.learn.scenes import StartSource


# Updates over which the weights are averaged: at least so many, and this share of a longer training.
_MEAN_OVER, _MEAN_OVER_SHARE = 67, 0.06
# A few hundred photos are soon known by heart; both make the plan more careful with photos that it has not seen.
_WEIGHT_DECAY, _DROPOUT = 0.02, 0.15


@dataclass(frozen=True)
class PlannerTraining:
    """Settings of the planner's training.

    Attributes:
        images: Number of pictures to learn from.
        batch: Pictures of one update.
        lr: Peak learning rate.
        harm_aversion: Extra weight of making a picture worse.
    """

    images: int
    batch: int
    lr: float
    harm_aversion: float

    @property
    def updates(self) -> int:
        """Number of updates."""
        return -(-self.images // self.batch)


def slider_sensitivity(images: torch.Tensor, step: float = 0.2) -> torch.Tensor:
    """How strongly each slider changes pictures.

    Args:
        images: (N, 3, H, W) float in [0, 1].
        step: Setting at which the change is measured.

    Returns:
        (K,) mean squared change of encoded values per squared unit of the slider.
    """
    changes = []
    for slider in range(SLIDER_COUNT):
        squares = []
        for sign in (1.0, -1.0):
            if LOWS[slider] <= sign * step <= HIGHS[slider]:
                settings = torch.zeros(len(images), SLIDER_COUNT)
                settings[:, slider] = sign * step
                squares.append(((render(images, settings) - images) ** 2).mean() / step**2)
        changes.append(torch.stack(squares).mean())
    return torch.stack(changes)


def planner_loss(
    result: torch.Tensor, reference: torch.Tensor, first_error: torch.Tensor, harm_aversion: float, log_weight: float
) -> torch.Tensor:
    """Error of the rendered plan, harm weighed extra, plus a term that cares about photos which are nearly right.

    Args:
        result: (N, 3, V, V) rendered plan.
        reference: Same shape, what was meant.
        first_error: (N,) scaled error before any edit.
        harm_aversion: Extra weight of ending farther away than the photo began.
        log_weight: Weight of the logarithmic term; without it the mean is ruled by the worst photos.

    Returns:
        Scalar.
    """
    mse = ((result - reference) ** 2).flatten(1).mean(dim=1)
    error = ERROR_SCALE * torch.sqrt(mse + 1e-6)
    harm = (error - first_error).clamp_min(0)
    return (error + harm_aversion * harm + log_weight * torch.log10(mse + 5e-5)).mean()


class PlannerTrainer:
    """Trains the plan, one update at a time, so that the caller can checkpoint between updates.

    Args:
        network: The network whose plan is trained.
        source: Draws pictures.
        settings: How to train.
    """

    def __init__(self, network: PolicyNet, source: StartSource, settings: PlannerTraining) -> None:
        self.network, self.source, self.settings = network, source, settings
        trust = list(network.trust.parameters())
        others = [p for p in network.plan_parameters() if all(p is not t for t in trust)]
        # Trust has to become all or nothing where a histogram tells the fault exactly: faster, and never decayed.
        groups = [
            {"params": others, "weight_decay": _WEIGHT_DECAY, "pace": 1.0},
            {"params": trust, "weight_decay": 0.0, "pace": 3.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.lr)
        self.update = 0
        # Running mean of the weights (Polyak and Juditsky 1992): what is validated and kept is less a matter of chance.
        self.mean = [parameter.detach().clone() for parameter in network.plan_parameters()]

    def learning_rate(self) -> float:
        """Warm-up over 30 updates, then a cosine to two percent."""
        done = self.update / self.settings.updates
        cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))
        return self.settings.lr * min(1.0, (self.update + 1) / 30) * cosine

    def step(self) -> float:
        """Do one update and return its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["pace"] * self.learning_rate()
        starts = self.source.draw(self.settings.batch)
        plan = self.network.plan(starts.faulty, starts.suggestions, dropout=_DROPOUT)
        result = render_linear(srgb_to_linear(starts.faulty), plan)
        first_error = reference_error(starts.faulty, starts.reference)
        done = self.update / self.settings.updates
        # First find out what to do at all: with the full price of harm from the start, doing nothing is a trap.
        harm_aversion = self.settings.harm_aversion * min(1.0, max(0.0, (done - 0.1) / 0.3))
        log_weight = 1.6 * min(1.0, 1.5 * done)
        loss = planner_loss(result, starts.reference, first_error, harm_aversion, log_weight)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.plan_parameters(), 1.0)
        self.optimiser.step()
        self.update += 1
        horizon = max(_MEAN_OVER, _MEAN_OVER_SHARE * self.settings.updates)
        decay = min(1 - 1 / horizon, (1 + self.update) / (10 + self.update))
        with torch.no_grad():
            for mean, parameter in zip(self.mean, self.network.plan_parameters(), strict=True):
                mean.lerp_(parameter, 1 - decay)
        return loss.item()

    @torch.no_grad()
    def swap_mean(self) -> None:
        """Put the mean weights into the network and keep the present ones; a second call swaps back."""
        for mean, parameter in zip(self.mean, self.network.plan_parameters(), strict=True):
            present = parameter.detach().clone()
            parameter.copy_(mean)
            mean.copy_(present)

    def run(self, after_update: Callable[[float], None]) -> None:
        """Train to the end, calling back with the loss after each update."""
        for loss in self._losses():
            after_update(loss)

    def _losses(self) -> Iterator[float]:
        while self.update < self.settings.updates:
            yield self.step()
