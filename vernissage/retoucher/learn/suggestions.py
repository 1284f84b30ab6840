"""What the classic automatic corrections would set, in slider units: an opinion that the policy may follow or not.

A network that has seen few photos cannot find these formulas by itself, but it can learn when to trust them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vernissage.retoucher.domain.colour import LUMINANCE_WEIGHTS, linear_to_srgb, luma, srgb_to_linear
from vernissage.retoucher.domain.sliders import SLIDERS, slider_index

#: Shares of pixels that may clip at each end; exact ends tell most, generous ones survive grain and hot pixels.
CLIP_SHARES = (0.0, 0.005, 0.02)

# Columns of a row of suggestions. Per clip share: exposure and contrast of an autocontrast, temperature and tint of
# auto levels, exposure and contrast of auto levels. Then temperature and tint of gray-world. Then plain evidence: where
# the ends of R, G, B and luma lie, how many pixels lie there, and what is missing to a typical median.
_PER_SHARE = 6
_GRAY = _PER_SHARE * len(CLIP_SHARES)
#: First columns of (exposure, contrast) and of (temperature, tint), in the order in which the policy weighs them.
TONE_COLUMNS = tuple(_PER_SHARE * i for i in range(len(CLIP_SHARES))) + tuple(
    _PER_SHARE * i + 4 for i in range(len(CLIP_SHARES))
)
BALANCE_COLUMNS = (*(_PER_SHARE * i + 2 for i in range(len(CLIP_SHARES))), _GRAY)
#: Columns that are slider settings; those behind them are evidence.
SETTINGS = _GRAY + 2
SUGGESTIONS = SETTINGS + 17

# Where the evidence tells luma's black; four columns on it tells what is missing to white.
_LUMA_LOW = SETTINGS + 3
_TYPICAL_MEDIAN = 0.45
_FLAT = 4 / 255
# One level of the 8-bit grid and a half: what lies there lies at the end.
_AT_THE_END = 1.5 / 255
_HALVINGS = 18
_LIMIT = 1.5
_FULL_SCALE = {slider.name: SLIDERS[slider_index(slider.name)].full_scale for slider in SLIDERS}


@torch.no_grad()
def classic_suggestions(images: torch.Tensor) -> torch.Tensor:
    """Settings that would do what autocontrast, auto levels and gray-world do, and the evidence that they rest on.

    The renderer multiplies light by a gain g, encodes, and stretches about one half by c. Black ``lo`` and white ``hi``
    land on 0 and 1 where enc(g lin(lo)) + enc(g lin(hi)) = 1, solved for g by bisection, and c is one over the
    difference of the two.

    Args:
        images: (N, 3, H, W) float in [0, 1], at the size at which the ends of the histogram mean something.

    Returns:
        (N, SUGGESTIONS); settings are normalised and clamped to [-1.5, 1.5], evidence is of the order of one; zeros for
        the settings of a picture of one tone.
    """
    planes = torch.cat((images, luma(images)), dim=1).flatten(2)
    ordered = planes.sort(dim=2).values
    last = ordered.shape[2] - 1
    columns: list[torch.Tensor] = []
    for share in CLIP_SHARES:
        place = int(share * last)
        gain, stretch = _to_the_ends(ordered[:, :, place], ordered[:, :, last - place])
        mixed = torch.log2((torch.exp2(gain[:, :3]) * torch.tensor(LUMINANCE_WEIGHTS).to(gain)).sum(dim=1))
        columns += _tone(gain[:, 3], stretch[:, 3])
        columns += _balance(gain[:, :3])
        columns += _tone(mixed, stretch[:, :3].mean(dim=1))
    columns += _balance(-torch.log2(srgb_to_linear(images).mean(dim=(2, 3)).clamp_min(1e-3)))
    # A picture of one tone has no ends to move and no mean to trust.
    flat = (ordered[:, 3, last] - ordered[:, 3, 0] < _FLAT).unsqueeze(1)
    settings = torch.where(flat, 0.0, torch.stack(columns, dim=1).clamp(-_LIMIT, _LIMIT))
    low, high = ordered[:, :, :1], ordered[:, :, last:]
    median = torch.log2(_TYPICAL_MEDIAN / ordered[:, 3, last // 2].clamp_min(0.02)).clamp(-_LIMIT, _LIMIT)
    evidence = (
        low.squeeze(2),
        1 - high.squeeze(2),
        _order_of_magnitude((planes >= high - _AT_THE_END).float().mean(dim=2)),
        _order_of_magnitude((planes <= low + _AT_THE_END).float().mean(dim=2)),
        median.unsqueeze(1),
    )
    return torch.cat((settings, *evidence), dim=1)


def of_one_tone(suggestions: torch.Tensor) -> torch.Tensor:
    """Whether pictures have no tones to tell apart: black and white of their luma nearly meet.

    Args:
        suggestions: (N, SUGGESTIONS) by :func:`classic_suggestions`.

    Returns:
        (N,) bool.
    """
    low, missing_to_white = suggestions[:, _LUMA_LOW], suggestions[:, _LUMA_LOW + 4]
    return 1 - missing_to_white - low < _FLAT


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


def _to_the_ends(low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log2 gain in light and log2 stretch about one half that bring two encoded values to 0 and 1, element by element.

    The gain is sought within four stops, the stretch is at most tenfold.
    """
    light_low, light_high = srgb_to_linear(low), srgb_to_linear(high.clamp_min(0.02))
    least, most = torch.full_like(low, -4.0), torch.full_like(low, 4.0)
    for _ in range(_HALVINGS):
        middle = (least + most) / 2
        gain = torch.exp2(middle)
        too_dark = linear_to_srgb(light_low * gain) + linear_to_srgb(light_high * gain) < 1
        least, most = torch.where(too_dark, middle, least), torch.where(too_dark, most, middle)
    gain = (least + most) / 2
    span = linear_to_srgb(light_high * torch.exp2(gain)) - linear_to_srgb(light_low * torch.exp2(gain))
    return gain, -torch.log2(span.clamp_min(0.1))


def _tone(gain: torch.Tensor, stretch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Exposure and contrast settings from a log2 gain and a log2 stretch, (N,) each."""
    return gain / _FULL_SCALE["exposure"], stretch / _FULL_SCALE["contrast"]


def _balance(gains: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Temperature and tint settings from log2 gains of the channels, (N, 3)."""
    red, green, blue = gains.unbind(dim=1)
    return (red - blue) / 2 / _FULL_SCALE["temperature"], ((red + blue) / 2 - green) / _FULL_SCALE["tint"]


def _order_of_magnitude(share: torch.Tensor) -> torch.Tensor:
    """A share of pixels on a scale where 1 in 10,000 is -0.5 and all of them 0.5."""
    return torch.log10(share + 1e-4) / 4 + 0.5
