"""Renders slider settings: always from the original, in one fixed order, differentiable in pixels and settings.

Order: white balance and exposure (linear light), tone curve (contrast, highlights, shadows), saturation, denoise,
sharpen, one final clamp. Radii are shares of the long edge, so a thumbnail shows what the full size will look like.
"""

from __future__ import annotations

import torch

from vernissage.retoucher.domain.colour import LUMINANCE_WEIGHTS, linear_to_srgb, luma, srgb_to_linear
from vernissage.retoucher.domain.filters import local_statistics_filter, unsharp_luma
from vernissage.retoucher.domain.sliders import HIGHS, LOWS, SLIDER_COUNT, SLIDERS, slider_index

DENOISE_SIGMA_SHARE = 0.006
SHARPEN_SIGMA_SHARE = 0.006

_FULL_SCALE = tuple(slider.full_scale for slider in SLIDERS)
_EXPOSURE, _CONTRAST, _HIGHLIGHTS, _SHADOWS, _TEMPERATURE, _TINT, _SATURATION, _DENOISE, _SHARPEN = (
    slider_index(name)
    for name in (
        "exposure", "contrast", "highlights", "shadows", "temperature", "tint", "saturation", "denoise", "sharpen",
    )
)  # fmt: skip


def clamp_settings(settings: torch.Tensor) -> torch.Tensor:
    """Bring every setting into its slider's range.

    Args:
        settings: (..., K).

    Returns:
        (..., K).
    """
    low = torch.tensor(LOWS, dtype=settings.dtype, device=settings.device)
    high = torch.tensor(HIGHS, dtype=settings.dtype, device=settings.device)
    return torch.minimum(torch.maximum(settings, low), high)


def render(images: torch.Tensor, settings: torch.Tensor, *, long_edge: float | None = None) -> torch.Tensor:
    """Apply slider settings to photographs.

    Args:
        images: (N, 3, H, W) float in [0, 1], encoded sRGB.
        settings: (N, K) normalised settings, in the order of ``SLIDERS``.
        long_edge: Long edge in pixels of the whole photo when ``images`` are strips of it.

    Returns:
        (N, 3, H, W) float in [0, 1], encoded sRGB. Rows with neutral settings come back unchanged, bit for bit.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if images.ndim != 4 or images.shape[1] != 3 or settings.shape != (images.shape[0], SLIDER_COUNT):
        raise ValueError(
            f"render: got images {tuple(images.shape)} and settings {tuple(settings.shape)}, "
            f"expected (N, 3, H, W) and (N, {SLIDER_COUNT})"
        )
    rendered = render_linear(srgb_to_linear(images), settings, long_edge=long_edge)
    neutral = (settings == 0).all(dim=1).view(-1, 1, 1, 1)
    return torch.where(neutral, images, rendered)


def render_linear(linear: torch.Tensor, settings: torch.Tensor, *, long_edge: float | None = None) -> torch.Tensor:
    """As :func:`render`, from linear light: saves the decoding when one original is rendered many times.

    Args:
        linear: (N, 3, H, W) float in [0, 1], linear light.
        settings: (N, K) normalised settings.
        long_edge: As in :func:`render`.

    Returns:
        (N, 3, H, W) float in [0, 1], encoded sRGB.
    """
    amounts = _amounts(settings)
    return _finish(_toned(linear, amounts), amounts, long_edge or max(linear.shape[-2:]))


def render_levels(levels: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
    """As :func:`render`, for photos of 8 bits, several times as fast.

    White balance, exposure and tone curve look at one channel at a time, so they are worked out for 256 levels and
    looked up.

    Args:
        levels: (N, 3, H, W) uint8, encoded sRGB.
        settings: (N, K) normalised settings.

    Returns:
        (N, 3, H, W) float in [0, 1], encoded sRGB.
    """
    amounts = _amounts(settings)
    ramp = srgb_to_linear(torch.arange(256, device=levels.device, dtype=settings.dtype) / 255)
    table = _toned(ramp.expand(len(levels), 3, 1, 256), amounts).squeeze(2)
    toned = table.gather(2, levels.flatten(2).long()).view(levels.shape)
    return _finish(toned, amounts, max(levels.shape[-2:]))


def _amounts(settings: torch.Tensor) -> torch.Tensor:
    return settings * torch.tensor(_FULL_SCALE, dtype=settings.dtype, device=settings.device)


def _toned(linear: torch.Tensor, amounts: torch.Tensor) -> torch.Tensor:
    """What happens to each channel by itself, encoded."""
    return tone_curve(linear_to_srgb(linear * channel_gains(amounts).view(-1, 3, 1, 1)), amounts)


def _finish(toned: torch.Tensor, amounts: torch.Tensor, edge: float) -> torch.Tensor:
    saturation = torch.exp2(amounts[:, _SATURATION]).view(-1, 1, 1, 1)
    coloured = torch.lerp(luma(toned).expand_as(toned), toned, saturation).clamp(0, 1)
    return _spatial(coloured, amounts, edge)


def channel_gains(amounts: torch.Tensor) -> torch.Tensor:
    """Linear gains of R, G, B from exposure, temperature and tint.

    White balance keeps the luminance of a grey pixel, so that the sliders do not fight over brightness.

    Args:
        amounts: (N, K) slider amounts in their units.

    Returns:
        (N, 3).
    """
    warm, magenta = amounts[:, _TEMPERATURE], amounts[:, _TINT]
    balance = torch.exp2(torch.stack((warm, -magenta, -warm), dim=1))
    weights = torch.tensor(LUMINANCE_WEIGHTS, dtype=amounts.dtype, device=amounts.device)
    balance = balance / (balance * weights).sum(dim=1, keepdim=True)
    return balance * torch.exp2(amounts[:, _EXPOSURE : _EXPOSURE + 1])


def tone_curve(encoded: torch.Tensor, amounts: torch.Tensor) -> torch.Tensor:
    """One monotone curve per photo from highlights, shadows and contrast, applied to each channel.

    Highlights add ``h x^2 (1 - x)``, shadows add ``s x (1 - x)^2``: for h and s in [-1, 1] the sum never turns back,
    its slope being bilinear in (h, s) and non-negative at the four corners. Contrast then stretches about mid-grey.

    Args:
        encoded: (N, 3, H, W) encoded, may exceed 1.
        amounts: (N, K) slider amounts.

    Returns:
        (N, 3, H, W), not clamped.
    """
    highlights, shadows, contrast = (amounts[:, i].view(-1, 1, 1, 1) for i in (_HIGHLIGHTS, _SHADOWS, _CONTRAST))
    x = encoded.clamp(0, 1)
    curved = encoded + x * (1 - x) * (highlights * x + shadows * (1 - x))
    return 0.5 + torch.exp2(contrast) * (curved - 0.5)


def _spatial(images: torch.Tensor, amounts: torch.Tensor, edge: float) -> torch.Tensor:
    """Denoise, then sharpen; rows that ask for neither pass through untouched."""
    rows = (amounts[:, _DENOISE] > 0).nonzero().flatten()
    if len(rows):
        noise = amounts[rows, _DENOISE]
        smooth = local_statistics_filter(images[rows], DENOISE_SIGMA_SHARE * edge, noise).clamp(0, 1)
        images = images.index_copy(0, rows, smooth)
    rows = (amounts[:, _SHARPEN] > 0).nonzero().flatten()
    if len(rows):
        strength = amounts[rows, _SHARPEN].view(-1, 1, 1, 1)
        detail = unsharp_luma(luma(images[rows]), SHARPEN_SIGMA_SHARE * edge)
        images = images.index_copy(0, rows, (images[rows] + strength * detail).clamp(0, 1))
    return images
