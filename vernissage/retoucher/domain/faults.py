"""Photographic faults: what goes wrong in cameras and software, drawn at random with known parameters."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from vernissage.retoucher.domain.colour import linear_to_srgb, luma, srgb_to_linear
from vernissage.retoucher.domain.filters import gaussian_blur


@dataclass(frozen=True)
class AppliedFault:
    """One fault with its parameter, in the unit of its kind."""

    name: str
    value: float


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault and the ranges its parameter is drawn from.

    Attributes:
        name: Identifier in tables and parameters.
        unit: Unit of the parameter.
        ranges: Intervals; one is chosen at random, then a value inside it.
    """

    name: str
    unit: str
    ranges: tuple[tuple[float, float], ...]

    def draw(self, rng: np.random.Generator) -> AppliedFault:
        """Draw one fault of this kind."""
        low, high = self.ranges[int(rng.integers(len(self.ranges)))]
        return AppliedFault(self.name, round(float(rng.uniform(low, high)), 6))

    def contains(self, value: float) -> bool:
        """Whether a parameter lies in one of the ranges."""
        return any(low <= value <= high for low, high in self.ranges)


#: Amounts follow the calibration protocol of the project: half a stop to one and a half, casts that a wrong white
#: balance preset gives, flat and garish processing, small sensors, missed focus, hard compression.
FAULTS: dict[str, FaultKind] = {
    kind.name: kind
    for kind in (
        FaultKind("exposure", "EV", ((-1.5, -0.5), (0.5, 1.5))),
        FaultKind("temperature", "EV red, -EV blue", ((-0.6, -0.15), (0.15, 0.6))),
        FaultKind("tint", "EV green", ((-0.4, -0.1), (0.1, 0.4))),
        FaultKind("contrast", "gain about mid-grey", ((0.5, 0.9),)),
        FaultKind("saturation", "gain about luma", ((0.25, 0.75), (1.25, 1.9))),
        FaultKind("gamma", "exponent", ((0.6, 0.8), (1.25, 1.7))),
        FaultKind("noise", "standard deviation", ((0.01, 0.05),)),
        FaultKind("blur", "share of the long edge", ((0.003, 0.01),)),
        FaultKind("jpeg", "quality", ((8, 40),)),
    )
}


def draw_faults(
    rng: np.random.Generator, fewest: int, most: int, kinds: Sequence[str] = tuple(FAULTS)
) -> tuple[AppliedFault, ...]:
    """Draw between ``fewest`` and ``most`` different faults in random order, compression always last.

    Args:
        rng: Source of randomness.
        fewest: Smallest number of faults.
        most: Largest number of faults, capped by the number of kinds.
        kinds: Names to choose from.

    Returns:
        The faults in the order in which they happen.

    Raises:
        ValueError: If a kind does not exist.
    """
    unknown = [name for name in kinds if name not in FAULTS]
    if unknown:
        raise ValueError(f"fault kinds {unknown} do not exist; expected some of: {', '.join(FAULTS)}")
    count = min(int(rng.integers(fewest, most + 1)), len(kinds))
    chosen = [str(name) for name in rng.permutation(list(kinds))[:count]]
    # A file is compressed when it is saved: nothing happens to the pixels after that.
    chosen.sort(key=lambda name: name == "jpeg")
    return tuple(FAULTS[name].draw(rng) for name in chosen)


def apply_faults(
    images: torch.Tensor,
    faults: Sequence[Sequence[AppliedFault]],
    rngs: Sequence[np.random.Generator],
    *,
    taken_at: int | None = None,
) -> torch.Tensor:
    """Damage each photo with its own faults and store the result in 8 bits.

    Args:
        images: (N, 3, H, W) float in [0, 1], encoded sRGB.
        faults: N sequences of faults, in order of application.
        rngs: N generators, one per photo, for the noise; a row does not depend on its batch.
        taken_at: Long edge in pixels at which the faults happened when ``images`` are thumbnails of that: averaging
            has weakened the noise by the ratio of sizes, and compression blocks are too small to be seen.

    Returns:
        (N, 3, H, W) float in [0, 1] on the 8-bit grid; a photo without faults comes back unchanged.

    Raises:
        ValueError: If the lengths differ.
    """
    if not len(images) == len(faults) == len(rngs):
        raise ValueError(f"got {len(images)} photos, {len(faults)} fault lists, {len(rngs)} generators: expected equal")
    edge = max(images.shape[-2:])
    shrink = min(1.0, edge / taken_at) if taken_at else 1.0
    damaged = images.clone()
    for turn in range(max((len(row) for row in faults), default=0)):
        rows_of_kind: dict[str, list[int]] = {}
        for row, row_faults in enumerate(faults):
            if turn < len(row_faults):
                rows_of_kind.setdefault(row_faults[turn].name, []).append(row)
        for name, rows in rows_of_kind.items():
            if name == "jpeg" and shrink < 1:
                continue
            strength = shrink if name == "noise" else 1.0
            values = strength * torch.tensor([faults[row][turn].value for row in rows], dtype=images.dtype)
            values = values.to(images.device).view(-1, 1, 1, 1)
            damaged[rows] = _APPLY[name](damaged[rows], values, [rngs[row] for row in rows]).clamp(0, 1)
    touched = torch.tensor([len(row) > 0 for row in faults], dtype=torch.bool, device=images.device).view(-1, 1, 1, 1)
    return torch.where(touched, torch.round(damaged * 255) / 255, images)


Rngs = Sequence[np.random.Generator]


def _exposure(images: torch.Tensor, values: torch.Tensor, _: Rngs) -> torch.Tensor:
    return linear_to_srgb(srgb_to_linear(images) * torch.exp2(values))


def _temperature(images: torch.Tensor, values: torch.Tensor, _: Rngs) -> torch.Tensor:
    gains = torch.exp2(torch.cat((values, torch.zeros_like(values), -values), dim=1))
    return linear_to_srgb(srgb_to_linear(images) * gains)


def _tint(images: torch.Tensor, values: torch.Tensor, _: Rngs) -> torch.Tensor:
    gains = torch.exp2(torch.cat((torch.zeros_like(values), values, torch.zeros_like(values)), dim=1))
    return linear_to_srgb(srgb_to_linear(images) * gains)


def _contrast(images: torch.Tensor, values: torch.Tensor, _: Rngs) -> torch.Tensor:
    return 0.5 + values * (images - 0.5)


def _saturation(images: torch.Tensor, values: torch.Tensor, _: Rngs) -> torch.Tensor:
    grey = luma(images)
    return grey + values * (images - grey)


def _gamma(images: torch.Tensor, values: torch.Tensor, _: Rngs) -> torch.Tensor:
    return images**values


def _noise(images: torch.Tensor, values: torch.Tensor, rngs: Rngs) -> torch.Tensor:
    grain = np.stack([rng.standard_normal(tuple(images.shape[1:]), dtype=np.float32) for rng in rngs])
    return images + values * torch.from_numpy(grain).to(images)


def _blur(images: torch.Tensor, values: torch.Tensor, _: Rngs) -> torch.Tensor:
    edge = max(images.shape[-2:])
    return torch.cat([gaussian_blur(images[i : i + 1], float(values[i]) * edge) for i in range(len(images))])


def _jpeg(images: torch.Tensor, values: torch.Tensor, _: Rngs) -> torch.Tensor:
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    decoded = np.stack([_through_jpeg(row, round(float(q))) for row, q in zip(pixels, values.flatten(), strict=True)])
    return torch.from_numpy(decoded).permute(0, 3, 1, 2).to(images) / 255


def _through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as picture:
        return np.asarray(picture.convert("RGB"))


_APPLY: dict[str, Callable[[torch.Tensor, torch.Tensor, Rngs], torch.Tensor]] = {
    "exposure": _exposure,
    "temperature": _temperature,
    "tint": _tint,
    "contrast": _contrast,
    "saturation": _saturation,
    "gamma": _gamma,
    "noise": _noise,
    "blur": _blur,
    "jpeg": _jpeg,
}
