"""Colour spaces: sRGB encoding, linear light, luma and CIELAB, as batched tensor functions.

All functions take ``(..., 3, H, W)`` float tensors. "Encoded" means the sRGB transfer function is applied (what files
hold); "linear" means proportional to light.
"""

from __future__ import annotations

import torch

#: Rec. 709 luminance weights of linear R, G, B (ITU-R BT.709-6, table 3).
LUMINANCE_WEIGHTS = (0.2126, 0.7152, 0.0722)

# Linear sRGB to CIE XYZ, D65 (IEC 61966-2-1), rows already divided by the white point, so that white maps to (1, 1, 1).
_RGB_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_LAB_EPSILON = 216.0 / 24389.0
_LAB_KAPPA = 24389.0 / 27.0


def srgb_to_linear(encoded: torch.Tensor) -> torch.Tensor:
    """Undo the sRGB transfer function (IEC 61966-2-1).

    Args:
        encoded: Any shape, sRGB-encoded; values above 1 continue on the power segment.

    Returns:
        Same shape, linear light.
    """
    power = ((encoded.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(encoded <= 0.04045, encoded / 12.92, power)


def linear_to_srgb(linear: torch.Tensor) -> torch.Tensor:
    """Apply the sRGB transfer function (IEC 61966-2-1).

    Args:
        linear: Any shape, linear light; values above 1 continue on the power segment.

    Returns:
        Same shape, encoded. The gradient is finite everywhere.
    """
    # The clamp keeps the power's slope finite at zero, where the linear segment is taken anyway.
    power = 1.055 * linear.clamp_min(0.0031308) ** (1.0 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, power)


def luma(images: torch.Tensor) -> torch.Tensor:
    """Rec. 709 weighted sum of the three channels.

    Args:
        images: (..., 3, H, W), encoded or linear.

    Returns:
        (..., 1, H, W) in the same encoding.
    """
    red, green, blue = LUMINANCE_WEIGHTS
    lit = (red * images[..., 0:1, :, :]).add(images[..., 1:2, :, :], alpha=green)
    return lit.add(images[..., 2:3, :, :], alpha=blue)


def rgb_to_lab(images: torch.Tensor) -> torch.Tensor:
    """Convert encoded sRGB to CIELAB under D65 (CIE 15:2018, section 8.2.1).

    Args:
        images: (..., 3, H, W) in [0, 1], encoded.

    Returns:
        (..., 3, H, W): L* in [0, 100], a* and b* about [-128, 128].
    """
    return linear_to_lab(srgb_to_linear(images))


def linear_to_lab(linear: torch.Tensor) -> torch.Tensor:
    """As :func:`rgb_to_lab`, from linear light.

    Args:
        linear: (..., 3, H, W) in [0, 1].

    Returns:
        (..., 3, H, W).
    """
    matrix = torch.tensor(_RGB_TO_XYZ, dtype=linear.dtype, device=linear.device)
    matrix = matrix / matrix.sum(dim=1, keepdim=True)
    xyz = torch.einsum("ij,...jhw->...ihw", matrix, linear)
    f = torch.where(xyz > _LAB_EPSILON, xyz.clamp_min(_LAB_EPSILON) ** (1.0 / 3.0), (_LAB_KAPPA * xyz + 16.0) / 116.0)
    fx, fy, fz = f.unbind(dim=-3)
    return torch.stack((116.0 * fy - 16.0, 500.0 * (fx - fy), 200.0 * (fy - fz)), dim=-3)
