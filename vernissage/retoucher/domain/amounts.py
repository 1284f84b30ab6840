"""Slider changes in words and units, and where the same edit is found in Lightroom and darktable."""

from __future__ import annotations

import math

import torch

from vernissage.retoucher.domain.colour import linear_to_srgb, srgb_to_linear
from vernissage.retoucher.domain.render import SHARPEN_SIGMA_SHARE, channel_gains, tone_curve
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, Slider, slider_index

# Slider.meaning says what turning a slider up does; these say it for turning it down.
_TURNED_DOWN = {
    "exposure": "less light, as with a shorter exposure",
    "contrast": "bright and dark tones closer together",
    "highlights": "darkens the bright tones only",
    "shadows": "darkens the dark tones only",
    "temperature": "cooler: less red, more blue",
    "tint": "less magenta, more green",
    "saturation": "quieter colours",
    "denoise": "takes smoothing back",
    "sharpen": "takes sharpening back",
}
# Node of darktable's tone equalizer, in EV below white, that lies nearest to where our curve moves most.
_EQUALIZER_NODES = {"highlights": -1, "shadows": -3}
# darktable's sharpen module takes 2.5 times the standard deviation for its radius, and has no larger one than this.
_DARKTABLE_RADIUS, _DARKTABLE_LARGEST_RADIUS = 2.5, 99.0


def amount_text(slider: Slider, change: float) -> str:
    """The change of a setting in the slider's unit, short enough for a caption: ``+0.70 EV``, ``x1.23``, ``-0.12``."""
    amount = slider.amount(change)
    if "EV" in slider.unit:
        return f"{_signed(amount, 2)} EV"
    if slider.unit == "log2 gain":
        return f"x{2**amount:.2f}"
    return _signed(amount, 2)


def meaning_of(slider: Slider, change: float) -> str:
    """What a change does, in a photographer's words."""
    return slider.meaning if change > 0 else _TURNED_DOWN[slider.name]


def lightroom_amount(slider: Slider, setting: float) -> float:
    """Where the slider of Lightroom stands for one of our settings.

    Exposure is in EV and saturation multiplies chroma in both programs. Every other slider stands at the same share of
    its range: Adobe publishes no formulas, so these look alike without being equal.

    Args:
        slider: Our slider.
        setting: Normalised setting.

    Returns:
        EV for exposure, else -100 to 100 (0 to 100 for denoise and sharpen).
    """
    amount = slider.amount(setting)
    if slider.name == "exposure":
        return amount
    if slider.name == "saturation":
        # Adobe's manual: -100 is monochrome, +100 doubles the saturation; it goes no further.
        amount = 100 * (2**amount - 1)
        return max(-100.0, min(100.0, amount))
    return 100 * setting


def lightroom_text(slider: Slider, setting: float) -> str:
    """The slider of Lightroom and where it stands: ``Exposure +0.70``, ``Contrast -12``."""
    amount = lightroom_amount(slider, setting)
    return f"{slider.lightroom} {_signed(amount, 2 if slider.name == 'exposure' else 0)}"


def darktable_text(slider: Slider, setting: float, *, long_edge: int) -> str:
    """The module of darktable with the values that do the same: ``exposure: +0.70 EV``.

    Values follow from our formulas, one slider at a time: gains for the white balance module, the points of the curve
    for contrast, the lift at one node for the tone equalizer.

    Args:
        slider: Our slider.
        setting: Normalised setting.
        long_edge: Long edge of the photo in pixels; darktable counts the radius of sharpening in pixels.
    """
    return f"{slider.darktable}: {_DARKTABLE_VALUES[slider.name](slider, setting, long_edge)}"


def _exposure(slider: Slider, setting: float, _: int) -> str:
    return f"{_signed(slider.amount(setting), 2)} EV"


def _contrast(slider: Slider, setting: float, _: int) -> str:
    reach = min(0.5, 0.25 * 2 ** slider.amount(setting))
    # A steep curve meets black and white before its ends do.
    offset = min(0.25, 0.5 / 2 ** slider.amount(setting))
    return f"curve through ({0.5 - offset:.2f}, {0.5 - reach:.2f}) and ({0.5 + offset:.2f}, {0.5 + reach:.2f})"


def _one_node(slider: Slider, setting: float, _: int) -> str:
    node = _EQUALIZER_NODES[slider.name]
    light = torch.full((1, 3, 1, 1), 2.0**node)
    lifted = srgb_to_linear(tone_curve(linear_to_srgb(light), _alone(slider, setting)))
    return f"{_signed(math.log2(float(lifted[0, 0, 0, 0])) - node, 2)} EV at {node} EV"


def _channels(slider: Slider, setting: float, _: int) -> str:
    red, green, blue = channel_gains(_alone(slider, setting))[0].tolist()
    return f"red x{red:.2f}, green x{green:.2f}, blue x{blue:.2f}"


def _chroma(slider: Slider, setting: float, _: int) -> str:
    # The slider ends at twice the chroma.
    return f"global chroma {_signed(min(100.0, 100 * (2 ** slider.amount(setting) - 1)), 0)} %"


def _noise(slider: Slider, setting: float, _: int) -> str:
    return f"strength by eye, until noise of about {100 * slider.amount(setting):.1f} % is gone"


def _detail(slider: Slider, setting: float, long_edge: int) -> str:
    radius = min(_DARKTABLE_LARGEST_RADIUS, _DARKTABLE_RADIUS * SHARPEN_SIGMA_SHARE * long_edge)
    return f"amount {slider.amount(setting):.2f}, radius {radius:.0f}"


_DARKTABLE_VALUES = {
    "exposure": _exposure,
    "contrast": _contrast,
    "highlights": _one_node,
    "shadows": _one_node,
    "temperature": _channels,
    "tint": _channels,
    "saturation": _chroma,
    "denoise": _noise,
    "sharpen": _detail,
}


def _alone(slider: Slider, setting: float) -> torch.Tensor:
    """(1, K) amounts with one slider moved and all others neutral."""
    amounts = torch.zeros(1, SLIDER_COUNT)
    amounts[0, slider_index(slider.name)] = slider.amount(setting)
    return amounts


def _signed(value: float, digits: int) -> str:
    # Rounding first keeps "-0.00" out of captions.
    value = round(value, digits) + 0.0
    return f"{value:+.{digits}f}" if value else f"{0.0:.{digits}f}"
