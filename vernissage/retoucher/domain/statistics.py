"""Photographic statistics: what a histogram panel shows, as numbers for tables and as features for networks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from vernissage.retoucher.domain.colour import linear_to_lab, luma, srgb_to_linear

if TYPE_CHECKING:
    from collections.abc import Sequence

LUMA_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
#: Encoded values at or beyond these count as clipped.
CLIP_LOW, CLIP_HIGH = 2 / 255, 253 / 255

STATISTIC_NAMES: tuple[str, ...] = (
    *(f"luma_p{percentile:02d}" for percentile in LUMA_PERCENTILES),
    "luma_mean", "luma_std", "clipped_low", "clipped_high", "cast_a", "cast_b", "saturation_mean", "sharpness", "noise",
)  # fmt: skip


def photo_statistics(images: torch.Tensor) -> list[dict[str, float]]:
    """Describe photographs by the numbers a retoucher looks at.

    Luma percentiles, mean and standard deviation are encoded values in [0, 1]; clipped shares are of pixels whose luma
    is at an end; the cast is the mean a*, b* (CIELAB) of pixels that are neither dark, bright nor strongly coloured;
    saturation is the mean chroma over 100; sharpness is the standard deviation of the luma Laplacian; noise is the
    estimated standard deviation (Immerkaer 1996, equation 4).

    Args:
        images: (N, 3, H, W) float in [0, 1], encoded sRGB.

    Returns:
        N dictionaries with the keys of ``STATISTIC_NAMES``.
    """
    table = statistics_table(images)
    return [dict(zip(STATISTIC_NAMES, row, strict=True)) for row in table.tolist()]


def statistics_table(
    images: torch.Tensor, *, colour_stride: int = 1, light: torch.Tensor | None = None
) -> torch.Tensor:
    """As :func:`photo_statistics`, as one table.

    Args:
        images: (N, 3, H, W) float in [0, 1], encoded sRGB.
        colour_stride: Look at every n-th row and column only for percentiles and colour, where speed matters.
        light: These rows and columns in linear light, where they are known already.

    Returns:
        (N, len(STATISTIC_NAMES)) float.
    """
    grey = luma(images)
    flat = grey.flatten(1)
    thin_grey = grey[..., ::colour_stride, ::colour_stride]
    if light is None:
        light = srgb_to_linear(images[..., ::colour_stride, ::colour_stride])
    lab = linear_to_lab(light)
    chroma = torch.hypot(lab[:, 1], lab[:, 2])
    candidates = ((lab[:, 0] > 15) & (lab[:, 0] < 95) & (chroma < 40)).to(images.dtype)
    weight = candidates.flatten(1).sum(dim=1).clamp_min(1.0)
    casts = [(lab[:, channel] * candidates).flatten(1).sum(dim=1) / weight for channel in (1, 2)]
    bends, specks = _second_differences(grey)
    return torch.column_stack(
        (
            percentiles(_at_most(thin_grey.flatten(1), 1 << 20), LUMA_PERCENTILES),
            flat.mean(dim=1),
            _spread(flat),
            (flat <= CLIP_LOW).to(images.dtype).mean(dim=1),
            (flat >= CLIP_HIGH).to(images.dtype).mean(dim=1),
            *casts,
            chroma.flatten(1).mean(dim=1) / 100,
            _spread(bends.flatten(1)),
            # sqrt(pi / 2) / 6 turns the mean absolute response into a standard deviation for Gaussian noise.
            specks.abs().flatten(1).mean(dim=1) * math.sqrt(math.pi / 2) / 6,
        )
    )


def percentiles(values: torch.Tensor, wanted: Sequence[float]) -> torch.Tensor:
    """Percentiles of each row, with linear interpolation and with gradient.

    Args:
        values: (N, M) float.
        wanted: P numbers from 0 to 100.

    Returns:
        (N, P).
    """
    places = torch.tensor(wanted, dtype=torch.float64) / 100 * (values.shape[1] - 1)
    lower = places.floor().long()
    share = (places - lower).to(values)
    upper = (lower + 1).clamp_max(values.shape[1] - 1)
    if values.device.type == "cpu":  # where numpy sorts several times as fast as torch does
        if not values.requires_grad:
            ordered = torch.from_numpy(np.sort(values.numpy(), axis=1))
            return torch.lerp(ordered[:, lower], ordered[:, upper], share)
        order = torch.from_numpy(np.argsort(values.detach().numpy(), axis=1))
    else:
        order = values.detach().argsort(dim=1)
    return torch.lerp(values.gather(1, order[:, lower]), values.gather(1, order[:, upper]), share)


def histograms(images: torch.Tensor, bins: int) -> torch.Tensor:
    """Histogram shares of R, G, B and luma with linear interpolation between neighbouring bins.

    Args:
        images: (N, 3, H, W) float in [0, 1].
        bins: Number of bins.

    Returns:
        (N, 4, bins); each histogram sums to 1.
    """
    planes = torch.cat((images, luma(images)), dim=1).flatten(2)
    position = planes * (bins - 1)
    lower = position.long()
    upper_share = position - lower
    upper = (lower + 1).clamp_max(bins - 1)
    result = torch.zeros(*planes.shape[:2], bins, dtype=images.dtype, device=images.device)
    result.scatter_add_(2, lower, 1 - upper_share)
    result.scatter_add_(2, upper, upper_share)
    return result / planes.shape[-1]


def _at_most(flat: torch.Tensor, limit: int) -> torch.Tensor:
    """Every n-th value where there are more; percentiles barely notice."""
    stride = math.ceil(flat.shape[1] / limit)
    return flat[:, ::stride]


def _spread(values: torch.Tensor) -> torch.Tensor:
    """(N,) standard deviations of the rows; several times as fast as torch.std, and its slope at nought is nought."""
    centred = values - values.mean(dim=1, keepdim=True)
    return torch.linalg.vector_norm(centred, dim=1) / math.sqrt(values.shape[1])


def _second_differences(grey: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Laplacian of (N, 1, H, W), and its response to Immerkaer's mask, edges replicated.

    The mask is the second difference in both directions: blind to constant, linear and quadratic structure, so what is
    left is mostly noise.
    """
    wide = torch.nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    down = wide[..., :-2, :] - 2 * wide[..., 1:-1, :] + wide[..., 2:, :]
    across = wide[..., 1:-1, :-2] - 2 * grey + wide[..., 1:-1, 2:]
    return down[..., 1:-1] + across, down[..., :-2] - 2 * down[..., 1:-1] + down[..., 2:]
