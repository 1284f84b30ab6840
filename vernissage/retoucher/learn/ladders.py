"""Versions of one photo whose order is known, for a juror to learn from.

A ladder is a photo getting worse rung by rung along one axis. Half of the axes are faults of taking a photo, half are
faults of editing it. Without the second half a juror learns "more contrast, more colour, less grain is better", and an
agent will find that out. A contest puts a ladder beside what an agent has to choose between: the photo with several
faults at once, repairs of it that are nearly right, partial or overdone, and an edit that it did not need.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vernissage.retoucher.domain.colour import luma
from vernissage.retoucher.domain.faults import AppliedFault, apply_faults, draw_faults
from vernissage.retoucher.domain.filters import gaussian_blur, local_statistics_filter
from vernissage.retoucher.domain.quality import delta_e
from vernissage.retoucher.domain.render import clamp_settings, render
from vernissage.retoucher.domain.sliders import LOWS, SLIDER_COUNT, SLIDERS, slider_index
from vernissage.retoucher.learn.juror import anchored_score

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RUNGS = 4
#: Pictures of a contest: a ladder, a faulty photo, three repairs of it, and an edit of the photo itself.
CONTESTANTS = RUNGS + 5

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


@dataclass(frozen=True)
class Contests:
    """L photos in R versions each, and the scores that the versions should get.

    Attributes:
        pictures: (L, R, 3, V, V) uint8.
        targets: (L, R) scores in [0, 10].
    """

    pictures: torch.Tensor
    targets: torch.Tensor

    def joined(self, other: Contests) -> Contests:
        """Both, one after the other; R has to be the same."""
        return Contests(torch.cat((self.pictures, other.pictures)), torch.cat((self.targets, other.targets)))


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


def make_ladders(
    photos: torch.Tensor, axes: np.ndarray, rng: np.random.Generator, *, taken_at: int, stride: int = 1
) -> Ladders:
    """Degrade each photo along its axis in steps of random but growing severity.

    Args:
        photos: (L, 3, V, V) float in [0, 1].
        axes: (L,) index into ``AXES`` for each photo.
        rng: Source of randomness.
        taken_at: Long edge at which faults happen, pixels.
        stride: Measure the colour difference on every n-th row and column.

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
                differences[chunk, rung] = _difference(worse, chosen, stride)
                pictures[chunk, rung] = (worse * 255).round().to(torch.uint8)
                lost = axis.penalty * severity
                targets[chunk, rung] = (anchored_score(differences[chunk, rung]) - lost).clamp(0.2, 8.0)
    # A photo that cannot get worse along an axis (a grey one made pale) must not lose points for it.
    same = differences < 0.3
    same[:, 0] = False
    targets = torch.where(same, targets[:, :1], targets)
    return Ladders(pictures, targets, differences, torch.from_numpy(np.asarray(axes)).long())


# How far each slider moves, in its unit, for each unit of a fault, or of its binary logarithm where it is a factor.
# Casts also change the light of grey, by the luminance weights of their channels; a stop per doubling of a gamma lies
# between what shadows and what highlights would need; denoising and sharpening help a little.
_UNDOING: dict[str, dict[str, float]] = {
    "exposure": {"exposure": -1.0},
    "temperature": {"temperature": -1.0, "exposure": -0.14},
    "tint": {"tint": 1.0, "exposure": -0.7},
    "contrast": {"contrast": -1.0},
    "saturation": {"saturation": -1.0},
    "gamma": {"exposure": 1.0},
    "noise": {"denoise": 0.4},
    "blur": {"sharpen": 60.0},
}
_FACTORS = {"contrast", "saturation", "gamma"}


def undoing(faults: Sequence[Sequence[AppliedFault]]) -> torch.Tensor:
    """Settings that roughly undo faults, from what is known of them: good repairs for nothing.

    Args:
        faults: N sequences of faults.

    Returns:
        (N, K) settings within the sliders' ranges.
    """
    settings = torch.zeros(len(faults), SLIDER_COUNT)
    for row, row_faults in enumerate(faults):
        for fault in row_faults:
            amount = math.log2(fault.value) if fault.name in _FACTORS else fault.value
            for name, share in _UNDOING.get(fault.name, {}).items():
                slider = slider_index(name)
                settings[row, slider] += share * amount / SLIDERS[slider].full_scale
    return clamp_settings(settings)


def random_recipes(count: int, rng: np.random.Generator, spread: float) -> torch.Tensor:
    """Settings that move about a third of the sliders at random.

    Args:
        count: Number of recipes N.
        rng: Source of randomness.
        spread: Standard deviation of a slider that is moved.

    Returns:
        (N, K) within the sliders' ranges.
    """
    # Denoising and sharpening go one way only and change little: less often and less far.
    one_way = np.array(LOWS) == 0
    moved = rng.random((count, SLIDER_COUNT)) < np.where(one_way, 0.1, 0.35)
    drawn = rng.standard_normal((count, SLIDER_COUNT)) * np.where(one_way, 0.5, 1.0) * spread
    return clamp_settings(torch.from_numpy((moved * np.where(one_way, np.abs(drawn), drawn)).astype(np.float32)))


def make_contests(photos: torch.Tensor, rng: np.random.Generator, *, taken_at: int) -> Contests:
    """Make the versions of each photo that a juror has to put in order.

    Args:
        photos: (L, 3, V, V) float in [0, 1].
        rng: Source of randomness.
        taken_at: Long edge at which faults happen, pixels.

    Returns:
        L contests of ``CONTESTANTS`` pictures, the first one being the photo itself.
    """
    count = len(photos)
    ladders = make_ladders(photos, rng.permutation(count) % len(AXES), rng, taken_at=taken_at, stride=2)
    faults = [draw_faults(rng, 1, 5) for _ in range(count)]
    faulty = apply_faults(photos, faults, [rng] * count, taken_at=taken_at)
    undone = undoing(faults)

    def repair(least: float, most: float, kept: float, astray: float) -> torch.Tensor:
        """Between ``least`` and ``most`` of the way, each slider with chance ``kept``, and some steps ``astray``."""
        share = torch.from_numpy(rng.uniform(least, most, (count, 1)).astype(np.float32))
        which = torch.from_numpy(rng.random((count, SLIDER_COUNT)) < kept)
        return clamp_settings(undone * share * which + random_recipes(count, rng, astray))

    repairs = (repair(0.6, 1.2, 1.0, 0.1), repair(0.3, 1.5, 0.6, 0.15), repair(-0.5, 0.7, 0.6, 0.3))
    shown = [faulty, *(render_in_parts(faulty, settings) for settings in repairs)]
    shown.append(render_in_parts(photos, random_recipes(count, rng, 0.3)))
    others = rated_versions(photos, shown)
    return Contests(
        torch.cat((ladders.pictures, others.pictures), dim=1), torch.cat((ladders.targets, others.targets), dim=1)
    )


def rated_versions(photos: torch.Tensor, versions: Sequence[torch.Tensor]) -> Contests:
    """Versions of photos with the score that their distance to the photo stands for.

    Args:
        photos: (L, 3, V, V) float in [0, 1].
        versions: R batches like it.

    Returns:
        L contests of R pictures.
    """
    # Every second row and column: the order of two versions is measured on the same pixels.
    targets = [anchored_score(_difference(version, photos, 2)) for version in versions]
    pictures = [(version * 255).round().to(torch.uint8) for version in versions]
    return Contests(torch.stack(pictures, dim=1), torch.stack(targets, dim=1))


def render_in_parts(photos: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
    """Render as thumbnails are stored, in 8 bits, a cacheful at a time; see :func:`render`."""
    parts = zip(photos.split(64), settings.split(64), strict=True)
    return torch.cat([torch.round(render(some, wanted) * 255) / 255 for some, wanted in parts])


def _difference(pictures: torch.Tensor, photos: torch.Tensor, stride: int) -> torch.Tensor:
    """(N,) mean CIEDE2000 over every n-th row and column."""
    parts = zip(pictures.split(128), photos.split(128), strict=True)
    return torch.cat([delta_e(a[..., ::stride, ::stride], b[..., ::stride, ::stride]) for a, b in parts])
