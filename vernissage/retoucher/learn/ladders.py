"""Ordered degradations: each ladder is one photo getting worse rung by rung along one axis.

Half of the axes are faults of taking a photo, half are faults of editing it. Without the second half a juror learns
"more contrast, more colour, less grain is better", and an agent will find that out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vernissage.retoucher.domain.colour import luma
from vernissage.retoucher.domain.faults import AppliedFault, apply_faults
from vernissage.retoucher.domain.filters import gaussian_blur, local_statistics_filter
from vernissage.retoucher.domain.quality import delta_e
from vernissage.retoucher.learn.juror import anchored_score

if TYPE_CHECKING:
    from collections.abc import Callable

RUNGS = 4

Rngs = list[np.random.Generator]


@dataclass(frozen=True)
class Axis:
    """One way of getting worse.

    Attributes:
        name: Identifier in tables.
        apply: Maps (N, 3, V, V) photos, a severity in (0, 1], generators and the size at which faults happen to
            degraded photos.
        over_edit: Whether it is a fault of editing.
        penalty: Points that the worst rung loses beyond its colour difference, for what CIEDE2000 hardly sees.
    """

    name: str
    apply: Callable[[torch.Tensor, float, Rngs, int], torch.Tensor]
    over_edit: bool
    penalty: float


@dataclass(frozen=True)
class Ladders:
    """L ladders of ``RUNGS`` pictures, the first rung being the photo itself.

    Attributes:
        pictures: (L, RUNGS, 3, V, V) uint8.
        targets: (L, RUNGS) scores that the pictures should get.
        difference: (L, RUNGS) mean CIEDE2000 to the photo.
        axis: (L,) index into ``AXES``.
    """

    pictures: torch.Tensor
    targets: torch.Tensor
    difference: torch.Tensor
    axis: torch.Tensor


def _fault(name: str, mild: float, worst: float) -> Callable[[torch.Tensor, float, Rngs, int], torch.Tensor]:
    def apply(images: torch.Tensor, severity: float, rngs: Rngs, taken_at: int) -> torch.Tensor:
        value = mild + severity * (worst - mild)
        return apply_faults(images, [(AppliedFault(name, value),)] * len(images), rngs, taken_at=taken_at)

    return apply


def _saturated(images: torch.Tensor, severity: float, _: Rngs, __: int) -> torch.Tensor:
    grey = luma(images)
    return grey + (1 + 2.5 * severity) * (images - grey)


def _crushed(images: torch.Tensor, severity: float, _: Rngs, __: int) -> torch.Tensor:
    return 0.5 + (1 + 2.0 * severity) * (images - 0.5)


def _clipped(images: torch.Tensor, severity: float, _: Rngs, __: int) -> torch.Tensor:
    low, high = 0.25 * severity, 1 - 0.25 * severity
    return (images - low) / (high - low)


def _haloed(images: torch.Tensor, severity: float, _: Rngs, __: int) -> torch.Tensor:
    grey = luma(images)
    return images + 3.0 * severity * (grey - gaussian_blur(grey, 0.025 * max(images.shape[-2:])))


def _plastic(images: torch.Tensor, severity: float, _: Rngs, __: int) -> torch.Tensor:
    noise = torch.full((len(images),), 0.25 * severity)
    return local_statistics_filter(images, 0.02 * max(images.shape[-2:]), noise)


def _posterised(images: torch.Tensor, severity: float, _: Rngs, __: int) -> torch.Tensor:
    levels = round(20 - 16 * severity)
    return torch.round(images * (levels - 1)) / (levels - 1)


def _split_cast(images: torch.Tensor, severity: float, _: Rngs, __: int) -> torch.Tensor:
    """Teal shadows and orange highlights, the look of a filter put on too strongly."""
    tilt = (luma(images) - 0.5) * 0.5 * severity
    return images + torch.cat((tilt, torch.zeros_like(tilt), -tilt), dim=1)


AXES: tuple[Axis, ...] = (
    Axis("underexposed", _fault("exposure", 0.0, -2.2), over_edit=False, penalty=0.0),
    Axis("overexposed", _fault("exposure", 0.0, 1.8), over_edit=False, penalty=0.0),
    Axis("too warm", _fault("temperature", 0.0, 0.8), over_edit=False, penalty=0.0),
    Axis("too cold", _fault("temperature", 0.0, -0.8), over_edit=False, penalty=0.0),
    Axis("green cast", _fault("tint", 0.0, 0.5), over_edit=False, penalty=0.0),
    Axis("magenta cast", _fault("tint", 0.0, -0.5), over_edit=False, penalty=0.0),
    Axis("flat", _fault("contrast", 1.0, 0.4), over_edit=False, penalty=0.5),
    Axis("pale", _fault("saturation", 1.0, 0.1), over_edit=False, penalty=0.5),
    Axis("dark gamma", _fault("gamma", 1.0, 2.2), over_edit=False, penalty=0.0),
    Axis("light gamma", _fault("gamma", 1.0, 0.45), over_edit=False, penalty=0.0),
    Axis("noise", _fault("noise", 0.01, 0.12), over_edit=False, penalty=2.0),
    Axis("blur", _fault("blur", 0.004, 0.025), over_edit=False, penalty=2.0),
    Axis("over-saturated", _saturated, over_edit=True, penalty=1.5),
    Axis("crushed", _crushed, over_edit=True, penalty=1.0),
    Axis("clipped ends", _clipped, over_edit=True, penalty=1.0),
    Axis("haloed", _haloed, over_edit=True, penalty=2.0),
    Axis("plastic", _plastic, over_edit=True, penalty=2.0),
    Axis("posterised", _posterised, over_edit=True, penalty=2.0),
    Axis("split cast", _split_cast, over_edit=True, penalty=1.5),
)


def make_ladders(photos: torch.Tensor, axes: np.ndarray, rng: np.random.Generator, *, taken_at: int) -> Ladders:
    """Degrade each photo along its axis in steps of random but growing severity.

    Args:
        photos: (L, 3, V, V) float in [0, 1].
        axes: (L,) index into ``AXES`` for each photo.
        rng: Source of randomness.
        taken_at: Long edge at which faults happen, pixels.

    Returns:
        L ladders.
    """
    count = len(photos)
    pictures = torch.empty(count, RUNGS, *photos.shape[1:], dtype=torch.uint8)
    targets, differences = torch.empty(count, RUNGS), torch.zeros(count, RUNGS)
    pictures[:, 0] = (photos * 255).round().to(torch.uint8)
    targets[:, 0] = anchored_score(torch.zeros(count))
    for index, axis in enumerate(AXES):
        rows = torch.from_numpy(np.flatnonzero(axes == index))
        # An axis that nobody was given still splits into one empty part.
        for chunk in rows.split(64) if len(rows) else ():
            chosen = photos[chunk]
            for rung in range(1, RUNGS):
                # Each rung has its own third of the range, so the order is certain and every severity occurs.
                severity = float(rng.uniform(rung - 0.7, rung)) / (RUNGS - 1)
                worse = axis.apply(chosen, severity, [rng] * len(chunk), taken_at).clamp(0, 1)
                differences[chunk, rung] = delta_e(chosen, worse)
                pictures[chunk, rung] = (worse * 255).round().to(torch.uint8)
                lost = axis.penalty * severity
                targets[chunk, rung] = (anchored_score(differences[chunk, rung]) - lost).clamp(0.2, 8.0)
    # A photo that cannot get worse along an axis (a grey one made pale) must not lose points for it.
    same = differences < 0.3
    same[:, 0] = False
    targets = torch.where(same, targets[:, :1], targets)
    return Ladders(pictures, targets, differences, torch.from_numpy(np.asarray(axes)).long())
