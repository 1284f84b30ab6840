"""The photographic sliders: what can be edited, in which range, and what other programs call it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slider:
    """One photographic control.

    Attributes:
        name: Identifier in recipes.
        low: Smallest setting; settings are normalised, 0 is neutral.
        high: Largest setting.
        full_scale: Amount in ``unit`` at setting 1.
        unit: Unit of the amount.
        meaning: What turning it up does, in a photographer's words.
        lightroom: The slider's name in Adobe Lightroom.
        darktable: The module's name in darktable.
    """

    name: str
    low: float
    high: float
    full_scale: float
    unit: str
    meaning: str
    lightroom: str
    darktable: str

    def amount(self, setting: float) -> float:
        """The setting in the slider's unit."""
        return setting * self.full_scale


SLIDERS: tuple[Slider, ...] = (
    Slider("exposure", -1, 1, 2.0, "EV", "more light, as with a longer exposure", "Exposure", "exposure"),
    Slider("contrast", -1, 1, 1.2, "log2 gain", "bright tones brighter, dark tones darker", "Contrast", "rgb curve"),
    Slider("highlights", -1, 1, 1.0, "curve", "lifts the bright tones only", "Highlights", "tone equalizer"),
    Slider("shadows", -1, 1, 1.0, "curve", "lifts the dark tones only", "Shadows", "tone equalizer"),
    Slider("temperature", -1, 1, 0.8, "EV red, -EV blue", "warmer: more red, less blue", "Temp", "white balance"),
    Slider("tint", -1, 1, 0.5, "-EV green", "more magenta, less green", "Tint", "white balance"),
    Slider("saturation", -1, 1, 1.5, "log2 gain", "stronger colours", "Saturation", "color balance rgb"),
    Slider(
        "denoise",
        0,
        1,
        0.1,
        "noise sd",
        "smooths grain, keeps edges",
        "Luminance noise reduction",
        "denoise (profiled)",
    ),
    Slider("sharpen", 0, 1, 2.0, "x detail", "adds back fine detail", "Sharpening", "sharpen"),
)

SLIDER_NAMES: tuple[str, ...] = tuple(slider.name for slider in SLIDERS)
SLIDER_COUNT = len(SLIDERS)
LOWS: tuple[float, ...] = tuple(slider.low for slider in SLIDERS)
HIGHS: tuple[float, ...] = tuple(slider.high for slider in SLIDERS)


def slider_index(name: str) -> int:
    """Position of a slider in every slider vector.

    Raises:
        ValueError: If there is no such slider; the message lists the valid names.
    """
    try:
        return SLIDER_NAMES.index(name)
    except ValueError:
        raise ValueError(f"slider {name!r} does not exist; expected one of: {', '.join(SLIDER_NAMES)}") from None
