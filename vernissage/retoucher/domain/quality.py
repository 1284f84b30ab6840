"""How far one picture is from another: PSNR, SSIM and the CIEDE2000 colour difference."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from vernissage.retoucher.domain.colour import luma, rgb_to_lab

#: PSNR of two equal pictures; a finite number keeps means and tables readable.
PSNR_CEILING = 60.0


def _require_same_shape(a: torch.Tensor, b: torch.Tensor) -> None:
    if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3:
        raise ValueError(
            f"pictures to compare: got {tuple(a.shape)} and {tuple(b.shape)}, expected two equal (N, 3, H, W)"
        )


def psnr(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of encoded values, capped at 60 dB for equal pictures.

    Args:
        a: (N, 3, H, W) float in [0, 1].
        b: Same shape.

    Returns:
        (N,) in dB.

    Raises:
        ValueError: If the shapes differ.
    """
    _require_same_shape(a, b)
    mse = ((a - b) ** 2).flatten(1).mean(dim=1)
    return -10.0 * torch.log10(mse.clamp_min(10.0 ** (-PSNR_CEILING / 10.0)))


def ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Structural similarity of luma with an 11-tap Gaussian window (Wang et al. 2004, equation 13).

    Args:
        a: (N, 3, H, W) float in [0, 1]. A side under 11 pixels shrinks the window to fit.
        b: Same shape.

    Returns:
        (N,) in [-1, 1].

    Raises:
        ValueError: If the shapes differ.
    """
    _require_same_shape(a, b)
    x, y = luma(a), luma(b)
    shortest = min(x.shape[-2:])
    taps = min(11, shortest if shortest % 2 else shortest - 1) or 1
    offsets = torch.arange(taps, dtype=a.dtype, device=a.device) - taps // 2
    kernel = torch.exp(-(offsets**2) / (2 * 1.5**2))
    kernel = kernel / kernel.sum()

    def local_mean(values: torch.Tensor) -> torch.Tensor:
        rows = F.conv2d(values, kernel.view(1, 1, taps, 1))
        return F.conv2d(rows, kernel.view(1, 1, 1, taps))

    mean_x, mean_y = local_mean(x), local_mean(y)
    var_x = local_mean(x * x) - mean_x**2
    var_y = local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    score = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return score.flatten(1).mean(dim=1)


def delta_e(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean CIEDE2000 over the pixels of each picture.

    Args:
        a: (N, 3, H, W) float in [0, 1], encoded sRGB.
        b: Same shape.

    Returns:
        (N,) colour difference; about 1 is just noticeable on flat patches.

    Raises:
        ValueError: If the shapes differ.
    """
    _require_same_shape(a, b)
    return delta_e_lab(rgb_to_lab(a), rgb_to_lab(b)).flatten(1).mean(dim=1)


def delta_e_lab(lab1: torch.Tensor, lab2: torch.Tensor) -> torch.Tensor:
    """CIEDE2000 of every pixel (Sharma, Wu and Dalal 2005, equations 2 to 22).

    Args:
        lab1: (N, 3, H, W) CIELAB.
        lab2: Same shape.

    Returns:
        (N, H, W).
    """
    l1, a1, b1 = lab1.unbind(dim=1)
    l2, a2, b2 = lab2.unbind(dim=1)
    # Chroma-dependent stretch of a* (equations 2 to 7).
    mean_chroma7 = ((torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * torch.sqrt(mean_chroma7 / (mean_chroma7 + 25.0**7))
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    h1, h2 = torch.atan2(b1, a1) % (2 * math.pi), torch.atan2(b2, a2) % (2 * math.pi)

    # Differences (equations 8 to 11). The hue difference is the signed angle on the short way round.
    delta_l, delta_c = l2 - l1, c2 - c1
    # Opposite hues count as not wrapped, whatever the last digit of their difference says.
    turn = h2 - h1
    turn = torch.where(turn.abs() > math.pi + 1e-6, turn - 2 * math.pi * torch.sign(turn), turn)
    delta_h = 2 * torch.sqrt((c1 * c2).clamp_min(0)) * torch.sin(turn / 2)

    # Means (equations 12 to 14). With one grey pixel the hue of the other counts, for two greys it does not matter.
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    mean_h = torch.where(c1 * c2 == 0, h1 + h2, h1 + turn / 2)

    # Weights (equations 15 to 21).
    t = (
        1
        - 0.17 * torch.cos(mean_h - math.radians(30))
        + 0.24 * torch.cos(2 * mean_h)
        + 0.32 * torch.cos(3 * mean_h + math.radians(6))
        - 0.20 * torch.cos(4 * mean_h - math.radians(63))
    )
    degrees = torch.rad2deg(mean_h) % 360.0
    rotation = math.radians(30) * torch.exp(-(((degrees - 275) / 25) ** 2))
    mean_c7 = mean_c**7
    r_c = 2 * torch.sqrt(mean_c7 / (mean_c7 + 25.0**7))
    centred = (mean_l - 50) ** 2
    s_l = 1 + 0.015 * centred / torch.sqrt(20 + centred)
    s_c = 1 + 0.045 * mean_c
    s_h = 1 + 0.015 * mean_c * t
    r_t = -torch.sin(2 * rotation) * r_c

    lightness, chroma, hue = delta_l / s_l, delta_c / s_c, delta_h / s_h
    return torch.sqrt((lightness**2 + chroma**2 + hue**2 + r_t * chroma * hue).clamp_min(0))
