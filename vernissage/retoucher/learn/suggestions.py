"""What the classic automatic corrections would set, in slider units: an opinion that the policy may follow or not.

A network that has seen few photos cannot find these formulas by itself, but it can learn when to trust them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vernissage.retoucher.domain.colour import luma, srgb_to_linear
from vernissage.retoucher.domain.sliders import SLIDERS, slider_index

#: Shares of pixels that may clip at each end; exact ends tell most, generous ones survive grain and hot pixels.
CLIP_SHARES = (0.0, 0.005)
#: Per clip share exposure and contrast of an autocontrast, temperature and tint of auto levels; then temperature and
#: tint of gray-world, and what is missing to a typical median.
SUGGESTIONS = 4 * len(CLIP_SHARES) + 3

# Over most of its range the sRGB curve is close to this power, so a gain in light is a gain of encoded values.
_ENCODING_GAMMA = 2.4
_TYPICAL_MEDIAN = 0.45
_FLAT = 4 / 255
_FULL_SCALE = {slider.name: SLIDERS[slider_index(slider.name)].full_scale for slider in SLIDERS}


@torch.no_grad()
def classic_suggestions(images: torch.Tensor) -> torch.Tensor:
    """Settings that would do what autocontrast, auto levels and gray-world do.

    With encoded gain a and contrast k about one half, black ``lo`` and white ``hi`` land on 0 and 1 for
    a = 1 / (lo + hi) and k = (lo + hi) / (hi - lo).

    Args:
        images: (N, 3, H, W) float in [0, 1], at the size at which the ends of the histogram mean something.

    Returns:
        (N, SUGGESTIONS) normalised slider settings, clamped to [-1.5, 1.5]; zeros for a picture of one tone.
    """
    ordered = torch.cat((images, luma(images)), dim=1).flatten(2).sort(dim=2).values
    last = ordered.shape[2] - 1
    columns: list[torch.Tensor] = []
    for share in CLIP_SHARES:
        place = int(share * last)
        low, high = ordered[:, :, place], ordered[:, :, last - place]
        both, span = (low + high).clamp_min(0.05), (high - low).clamp_min(0.05)
        columns.append(-_ENCODING_GAMMA * torch.log2(both[:, 3]) / _FULL_SCALE["exposure"])
        columns.append(torch.log2(both[:, 3] / span[:, 3]) / _FULL_SCALE["contrast"])
        columns += _balance(-_ENCODING_GAMMA * torch.log2(both[:, :3]))
    columns += _balance(-torch.log2(srgb_to_linear(images).mean(dim=(2, 3)).clamp_min(1e-3)))
    columns.append(torch.log2(_TYPICAL_MEDIAN / ordered[:, 3, last // 2].clamp_min(0.02)))
    # A picture of one tone has no ends to move and no mean to trust.
    flat = ordered[:, 3, last] - ordered[:, 3, 0] < _FLAT
    return torch.where(flat.unsqueeze(1), 0.0, torch.stack(columns, dim=1).clamp(-1.5, 1.5))


def pixel_sample(photo: torch.Tensor, side: int) -> torch.Tensor:
    """Pixels of a photo that have its histogram, ends included, as a small picture without content.

    Averaging, as thumbnails are made, pulls black and white inwards and smooths grain. Faults that act on single pixels
    do to this sample what they do to the photo.

    Args:
        photo: (1, 3, H, W) float in [0, 1].
        side: Side of the sample in pixels.

    Returns:
        (1, 3, side, side) float in [0, 1].
    """
    sample = F.interpolate(photo, size=(side, side), mode="nearest")
    planes = torch.cat((photo, luma(photo)), dim=1).flatten(2)[0]
    places = torch.cat((planes.argmin(dim=1), planes.argmax(dim=1)))
    flat = sample.flatten(2)
    flat[:, :, : len(places)] = photo.flatten(2)[:, :, places]
    return flat.view_as(sample)


def _balance(gains: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Temperature and tint settings from log2 gains of the channels, (N, 3)."""
    red, green, blue = gains.unbind(dim=1)
    return (red - blue) / 2 / _FULL_SCALE["temperature"], ((red + blue) / 2 - green) / _FULL_SCALE["tint"]
