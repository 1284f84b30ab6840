"""Spatial filters whose radius is a share of the photo's long edge, so that a thumbnail and the full size agree."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

# Above this many pixels a Gaussian is computed on a smaller copy, where it looks the same and costs a fraction.
_LARGEST_DIRECT_SIGMA = 4.0


def gaussian_blur(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur with a separable Gaussian; edges are replicated.

    Args:
        images: (N, C, H, W) float.
        sigma: Standard deviation in pixels, one for the batch; under 0.1 nothing changes.

    Returns:
        (N, C, H, W).
    """
    if sigma < 0.1:
        return images
    factor = smaller_copy_factor(sigma)
    if factor > 1:
        return _blur_on_smaller_copy(images, sigma, factor)
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    # Shifted sums cost less than a grouped convolution for the few taps that are left here.
    height, width = images.shape[-2:]
    padded = F.pad(images, (radius, radius, 0, 0), mode="replicate")
    rows = torch.zeros_like(images)
    for tap, weight in enumerate(kernel.tolist()):
        rows = rows.add(padded[..., :, tap : tap + width], alpha=weight)
    padded = F.pad(rows, (0, 0, radius, radius), mode="replicate")
    blurred = torch.zeros_like(images)
    for tap, weight in enumerate(kernel.tolist()):
        blurred = blurred.add(padded[..., tap : tap + height, :], alpha=weight)
    return blurred


def smaller_copy_factor(sigma: float) -> int:
    """How many times smaller the copy is on which a Gaussian is computed: 1 for a narrow one, else a power of two."""
    return 2 ** math.ceil(math.log2(sigma / _LARGEST_DIRECT_SIGMA)) if sigma > _LARGEST_DIRECT_SIGMA else 1


def _blur_on_smaller_copy(images: torch.Tensor, sigma: float, factor: int) -> torch.Tensor:
    height, width = images.shape[-2:]
    small_size = (max(1, round(height / factor)), max(1, round(width / factor)))
    small = F.interpolate(images, size=small_size, mode="area")
    blurred = gaussian_blur(small, sigma / factor)
    return F.interpolate(blurred, size=(height, width), mode="bilinear", align_corners=False)


def local_statistics_filter(images: torch.Tensor, sigma: float, noise: torch.Tensor) -> torch.Tensor:
    """Smooth where the local variance is no larger than the noise, keep edges (Lee 1980, equation 11).

    Args:
        images: (N, C, H, W) float.
        sigma: Window's standard deviation in pixels.
        noise: (N,) standard deviation of the noise to remove, in the unit of ``images``.

    Returns:
        (N, C, H, W).
    """
    mean = gaussian_blur(images, sigma)
    variance = (gaussian_blur(images * images, sigma) - mean * mean).clamp_min(0)
    keep = variance / (variance + noise.view(-1, 1, 1, 1) ** 2 + 1e-12)
    return mean + keep * (images - mean)


def unsharp_luma(luma: torch.Tensor, sigma: float) -> torch.Tensor:
    """The detail that an unsharp mask adds back: a picture minus its blur.

    Args:
        luma: (N, 1, H, W) float.
        sigma: Blur's standard deviation in pixels.

    Returns:
        (N, 1, H, W), about zero mean.
    """
    return luma - gaussian_blur(luma, sigma)


def resize_area(images: torch.Tensor, long_edge: int) -> torch.Tensor:
    """Shrink so that the longer side has ``long_edge`` pixels; smaller pictures stay as they are.

    Args:
        images: (N, C, H, W) float.
        long_edge: Pixels.

    Returns:
        (N, C, h, w) with the aspect ratio kept and no side under one pixel.
    """
    height, width = images.shape[-2:]
    scale = long_edge / max(height, width)
    if scale >= 1:
        return images
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return F.interpolate(images, size=size, mode="area")


def resize_square(images: torch.Tensor, side: int) -> torch.Tensor:
    """Resample to a square, ignoring the aspect ratio: what networks look at.

    Args:
        images: (N, C, H, W) float.
        side: Pixels.

    Returns:
        (N, C, side, side). Shrinking averages areas, growing interpolates.
    """
    height, width = images.shape[-2:]
    if (height, width) == (side, side):
        return images
    if height >= side and width >= side:
        return F.interpolate(images, size=(side, side), mode="area")
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
