"""What the classic automatic corrections would set, in slider units: an opinion that the policy may follow or not.

A network that has seen few photos cannot find these formulas by itself, but it can learn when to trust them.
"""

from __future__ import annotations

import torch

from vernissage.retoucher.domain.colour import luma, srgb_to_linear
from vernissage.retoucher.domain.sliders import SLIDERS, slider_index

#: Exposure and contrast of an autocontrast, temperature and tint of auto levels, the same of gray-world, mid-tones.
SUGGESTIONS = 7

# Over most of its range the sRGB curve is close to this power, so a gain in light is a gain of encoded values.
_ENCODING_GAMMA = 2.4
_TYPICAL_MEDIAN = 0.45
_FULL_SCALE = {slider.name: SLIDERS[slider_index(slider.name)].full_scale for slider in SLIDERS}


@torch.no_grad()
def classic_suggestions(images: torch.Tensor) -> torch.Tensor:
    """Settings that would do what autocontrast, auto levels and gray-world do.

    With encoded gain a and contrast k about one half, black ``lo`` and white ``hi`` land on 0 and 1 for
    a = 1 / (lo + hi) and k = (lo + hi) / (hi - lo).

    Args:
        images: (N, 3, V, V) float in [0, 1].

    Returns:
        (N, SUGGESTIONS) normalised slider settings, clamped to [-1.5, 1.5].
    """
    grey = luma(images).flatten(1)
    low, high = grey.amin(dim=1), grey.amax(dim=1)
    both, span = (low + high).clamp_min(0.05), (high - low).clamp_min(0.05)
    exposure = -_ENCODING_GAMMA * torch.log2(both) / _FULL_SCALE["exposure"]
    contrast = torch.log2(both / span) / _FULL_SCALE["contrast"]
    channels = images.flatten(2)
    ends = -_ENCODING_GAMMA * torch.log2((channels.amin(dim=2) + channels.amax(dim=2)).clamp_min(0.05))
    means = -torch.log2(srgb_to_linear(images).mean(dim=(2, 3)).clamp_min(1e-3))
    median = torch.log2(_TYPICAL_MEDIAN / grey.median(dim=1).values.clamp_min(0.02))
    columns = (exposure, contrast, *_balance(ends), *_balance(means), median)
    return torch.stack(columns, dim=1).clamp(-1.5, 1.5)


def _balance(gains: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Temperature and tint settings from log2 gains of the channels, (N, 3)."""
    red, green, blue = gains.unbind(dim=1)
    return (red - blue) / 2 / _FULL_SCALE["temperature"], ((red + blue) / 2 - green) / _FULL_SCALE["tint"]
