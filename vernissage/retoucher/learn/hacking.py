"""Reward hacking: what a juror likes and should not, found by adversaries and measured.

Whoever pushes a score up finds the pictures that the score is wrong about. Two adversaries do so with the photographic
sliders, as an agent would: one climbs the gradient through renderer and juror, one tries discrete edits. Their finds
are what a juror learns from in its adversarial rounds, and how much score they earn for nothing is its hack gap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from vernissage.core.devices import thread_count
from vernissage.core.parallel import in_parts
from vernissage.retoucher.domain.colour import srgb_to_linear
from vernissage.retoucher.domain.render import clamp_settings, render, render_linear
from vernissage.retoucher.domain.sliders import SLIDER_COUNT

if TYPE_CHECKING:
    import numpy as np

    from vernissage.retoucher.learn.actions import ActionTable

#: Step of the climbing adversary in normalised slider units; an edit of a policy is of this order.
CLIMB_PACE = 0.06
# Photos that are attacked at a time; a cacheful.
_CHUNK = 64


class Climbable(Protocol):
    """A juror that an adversary can attack."""

    def cautious_score(self, images: torch.Tensor) -> torch.Tensor:
        """(N,) in [0, 10]."""
        ...

    def cautious_logit(self, images: torch.Tensor) -> torch.Tensor:
        """(N,) that rises with the cautious score, with gradient."""
        ...


def hack_gap(gain_score: torch.Tensor, delta_e_before: torch.Tensor, delta_e_after: torch.Tensor) -> float:
    """Score that was earned for nothing: the mean gain, counted only where the picture did not come nearer.

    Args:
        gain_score: (N,) juror's score after minus before, in points.
        delta_e_before: (N,) mean CIEDE2000 to the original before.
        delta_e_after: (N,) the same after.

    Returns:
        Points; 0 where every gain was deserved.

    Raises:
        ValueError: If the shapes differ or there is no photo.
    """
    if not gain_score.shape == delta_e_before.shape == delta_e_after.shape or not gain_score.numel():
        shapes = [tuple(values.shape) for values in (gain_score, delta_e_before, delta_e_after)]
        raise ValueError(f"hack gap: got {shapes}, expected three equal shapes with one value or more")
    undeserved = torch.where(delta_e_after >= delta_e_before, gain_score.clamp_min(0), 0.0)
    return float(undeserved.mean())


def hacked_share(gain_score: torch.Tensor, delta_e_before: torch.Tensor, delta_e_after: torch.Tensor) -> float:
    """Share of the photos whose score rose though they look worse than before; arguments as :func:`hack_gap`."""
    return float(((gain_score > 0) & (delta_e_after > delta_e_before)).float().mean())


def climb(juror: Climbable, photos: torch.Tensor, first: torch.Tensor, *, steps: int) -> torch.Tensor:
    """Move the sliders of each photo up the gradient of the juror's cautious score (Adam, Kingma and Ba 2015).

    Args:
        juror: Whom to fool.
        photos: (N, 3, V, V) float in [0, 1].
        first: (N, K) settings to begin with.
        steps: Gradient steps.

    Returns:
        (N, K) settings within the sliders' ranges; of all that were passed, those that the juror liked best.
    """

    def attack(rows: slice) -> torch.Tensor:
        return _climb(juror, photos[rows], first[rows], steps)

    return torch.cat(in_parts(attack, len(photos), _CHUNK, threads=thread_count()))


def _climb(juror: Climbable, photos: torch.Tensor, first: torch.Tensor, steps: int) -> torch.Tensor:
    linear = srgb_to_linear(photos)
    settings = first.clone().requires_grad_()
    optimiser = torch.optim.Adam([settings], lr=CLIMB_PACE)
    best, highest = first.clone(), torch.full((len(photos),), -torch.inf)
    # Less than a level of red: chroma and deviation have no slope where they are exactly nought, as in clipped black.
    nudge = torch.tensor([1e-4, 0.0, 0.0]).view(1, 3, 1, 1)
    for step in range(steps + 1):
        logit = juror.cautious_logit(render_linear(linear, settings) + nudge)
        with torch.no_grad():
            better = logit > highest
            best[better], highest[better] = settings[better], logit[better]
        if step == steps:
            break
        # Only the settings' gradient: the members' weights are none of the adversary's business.
        (slope,) = torch.autograd.grad(-logit.sum(), settings)
        settings.grad = slope.nan_to_num(0.0, 0.0, 0.0)
        optimiser.step()
        with torch.no_grad():
            settings.copy_(clamp_settings(settings))
    return best


def wander(
    juror: Climbable, actions: ActionTable, photos: torch.Tensor, rng: np.random.Generator, *, steps: int, tries: int
) -> torch.Tensor:
    """Take step by step the best of a few random edits, where one is better than none: a greedy search in a hurry.

    Args:
        juror: Whom to fool.
        actions: What can be done.
        photos: (N, 3, V, V) float in [0, 1].
        rng: Source of randomness.
        steps: Most edits.
        tries: Edits that are tried before each step.

    Returns:
        (N, K) settings.
    """
    drawn = torch.from_numpy(rng.integers(actions.stop, size=(steps, tries, len(photos))))

    def attack(rows: slice) -> torch.Tensor:
        return _wander(juror, actions, photos[rows], drawn[:, :, rows])

    return torch.cat(in_parts(attack, len(photos), _CHUNK, threads=thread_count()))


@torch.no_grad()
def _wander(juror: Climbable, actions: ActionTable, photos: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    settings, best = torch.zeros(len(photos), SLIDER_COUNT), juror.cautious_score(photos)
    for edits in drawn:
        start = settings
        for edit in edits:
            tried = actions.apply(start, edit)
            score = juror.cautious_score(render(photos, tried))
            better = score > best
            settings = torch.where(better.unsqueeze(1), tried, settings)
            best = torch.where(better, score, best)
    return settings
