"""Recipes as XMP: develop settings for Lightroom, Camera Raw and darktable, the explanation, and the exact recipe.

Three kinds of XMP leave this module, and the difference matters: whoever applies settings to pixels that hold them
already edits twice.

* `sidecar`: for a file beside the *untouched* photo. Lightroom and Camera Raw read such files beside RAW photos,
  darktable beside photos of every kind, once, when they are imported.
* `editable`: for inside a copy of the *untouched* photo, which is where Lightroom looks for the settings of JPEG, PNG
  and TIFF. They show up as moved sliders that can be moved back.
* `record`: for inside a photo that was *rendered* already. The settings are marked with ``crs:AlreadyApplied``, as
  Lightroom marks them in what it exports: they can be read, and nothing applies them again.

Property names are those of Adobe's schema ``crs`` (process version 2012 and later). Other programs render by their own
formulas, so what they make of it looks alike without being equal. darktable 4.2, asked by its command line, puts grey
tones within 6 of 255 levels of ours; its curve works on lightness where ours works on each channel, and before 4.4 it
multiplies the encoded values of a JPEG for exposure, which is too bright (its issue 14023).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, get_args
from xml.etree import ElementTree as ET

import torch

from vernissage.core.errors import BadInput
from vernissage.retoucher.domain import xmp_packets
from vernissage.retoucher.domain.amounts import lightroom_amount
from vernissage.retoucher.domain.recipe import Recipe
from vernissage.retoucher.domain.render import tone_curve
from vernissage.retoucher.domain.sliders import SLIDERS
from vernissage.retoucher.domain.xmp_packets import CRS, DC, EVENT, OWN, RDF, XML, XMP_MM, tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vernissage.retoucher.domain.sliders import Slider
    from vernissage.retoucher.domain.xmp_packets import Kept

#: `portable` says tone as a curve and saturation hue by hue, which darktable reads as well as Lightroom; `lightroom`
#: says both with Lightroom's own sliders, which darktable ignores. Never both ways at once: that would edit twice.
Form = Literal["portable", "lightroom"]
FORMS: tuple[Form, ...] = get_args(Form)

# Understood by Lightroom Classic 8 and Camera Raw 11 (2018) and by all that followed.
_PROCESS_VERSION = "11.0"
# 16 points, 17 levels apart: as many as Adobe's curve editors hold (darktable reads up to 20).
_CURVE_LEVELS = range(0, 256, 17)
_TONE_SLIDERS = ("contrast", "highlights", "shadows")
_BALANCE_SLIDERS, _DETAIL_SLIDERS = ("temperature", "tint"), ("denoise", "sharpen")
_HUES = ("Red", "Orange", "Yellow", "Green", "Aqua", "Blue", "Purple", "Magenta")
_INTEGER_PROPERTIES = {
    "contrast": "Contrast2012",
    "highlights": "Highlights2012",
    "shadows": "Shadows2012",
    "saturation": "Saturation",
    "temperature": "IncrementalTemperature",
    "tint": "IncrementalTint",
    "denoise": "LuminanceSmoothing",
    "sharpen": "Sharpness",
}
_STRAIGHT = ((0, 0), (255, 255))


def sidecar(
    recipe: Recipe, explanation: str, *, form: Form = "portable", raw: bool = False, present: bytes | None = None
) -> bytes:
    """XMP for a file beside the untouched photo: ``photo.xmp`` beside ``photo.nef``, as Lightroom names it.

    Args:
        recipe: What to do with the photo.
        explanation: Plain words for ``dc:description``; begins with `xmp_packets.EXPLANATION_START`.
        form: How to say tone and saturation, see `Form`.
        raw: Whether the photo is a RAW file. Lightroom sets the white balance of RAW files in Kelvin, which cannot be
            told from a rendered preview, so it is left as shot.
        present: XMP inside the photo, of which the caption stays in front of the explanation: darktable shows one.

    Returns:
        A UTF-8 XML document.

    Raises:
        BadInput: `present` is not XMP.
    """
    description = _described(recipe, explanation, xmp_packets.kept_properties(present, rendered=False))
    _add_settings(description, recipe, form, raw=raw, applied=False)
    # darktable takes a document whose history names another program than Lightroom for foreign and reads none of it.
    return xmp_packets.document([description], wrapped=False)


def editable(recipe: Recipe, explanation: str, *, form: Form = "portable", present: bytes | None = None) -> bytes:
    """XMP for inside a copy of the untouched photo: Lightroom shows the settings as sliders that were moved.

    Args:
        recipe: As in :func:`sidecar`.
        explanation: As in :func:`sidecar`.
        form: As in :func:`sidecar`.
        present: XMP that the photo holds already. Keywords, ratings, rights and a caption stay; earlier develop
            settings give way.

    Returns:
        A UTF-8 packet.

    Raises:
        BadInput: `present` is not XMP.
    """
    kept = xmp_packets.kept_properties(present, rendered=False)
    description = _described(recipe, explanation, kept)
    _add_settings(description, recipe, form, raw=False, applied=False)
    return xmp_packets.document([*kept.descriptions, description], wrapped=True)


def record(recipe: Recipe, explanation: str, *, form: Form = "portable", present: bytes | None = None) -> bytes:
    """XMP for inside the rendered photo: says what was done such that no program does it again.

    Args:
        recipe: What was done.
        explanation: As in :func:`sidecar`.
        form: As in :func:`sidecar`.
        present: XMP of the photo that was rendered. Keywords, ratings, rights and a caption stay; what belonged to the
            old pixels goes: develop settings of any program, orientation, size, previews, appended data.

    Returns:
        A UTF-8 packet.

    Raises:
        BadInput: `present` is not XMP.
    """
    kept = xmp_packets.kept_properties(present, rendered=True)
    description = _described(recipe, explanation, kept)
    _add_settings(description, recipe, form, raw=False, applied=True)
    _add_event(description, kept.history, explanation)
    return xmp_packets.document([*kept.descriptions, description], wrapped=True)


def read_xmp(packet: bytes) -> Recipe:
    """The exact recipe from XMP that this module wrote, whichever kind.

    Raises:
        BadInput: Not XMP, XMP with a document type (entities could make it read other files or grow without end), or
            XMP of another program.
        CorruptArtifact: The recipe in it is damaged.
    """
    root = xmp_packets.parse(packet)
    text = root.findtext(f".//{tag(OWN, 'Recipe')}")
    if text is None:
        raise BadInput("XMP: holds no recipe of ours; expected what `vernissage retouch` wrote")
    return Recipe.from_json(text)


def tone_points(recipe: Recipe) -> tuple[tuple[int, int], ...]:
    """Contrast, highlights and shadows as one point curve.

    Returns:
        Pairs of input and output levels, 0 to 255 of encoded values; two points where the tone stays as it is.
    """
    if all(setting == 0 for slider, setting in _by_slider(recipe) if slider.name in _TONE_SLIDERS):
        return _STRAIGHT
    levels = torch.tensor(_CURVE_LEVELS, dtype=torch.float32) / 255
    amounts = torch.tensor([[slider.amount(setting) for slider, setting in _by_slider(recipe)]])
    curved = tone_curve(levels.view(1, 1, 1, -1).expand(1, 3, 1, -1), amounts)[0, 0, 0]
    outputs = (curved.clamp(0, 1) * 255).round().int().tolist()
    return tuple(zip(_CURVE_LEVELS, outputs, strict=True))


def camera_raw_settings(recipe: Recipe, form: Form, *, raw: bool = False) -> dict[str, str]:
    """Develop settings by their names in Adobe's schema, without the curve of :func:`tone_points`.

    Args:
        recipe: The recipe.
        form: How to say tone and saturation, see `Form`.
        raw: As in :func:`sidecar`.
    """
    by_curve = form == "portable"
    settings = {"Version": _PROCESS_VERSION, "ProcessVersion": _PROCESS_VERSION}
    balanced = any(setting for slider, setting in _by_slider(recipe) if slider.name in _BALANCE_SLIDERS)
    settings["WhiteBalance"] = "Custom" if balanced and not raw else "As Shot"
    for slider, setting in _by_slider(recipe):
        amount = lightroom_amount(slider, setting)
        if slider.name == "exposure":
            settings["Exposure2012"] = f"{round(amount, 2) + 0.0:+.2f}" if round(amount, 2) else "0.00"
        elif raw and (slider.name in _BALANCE_SLIDERS or (slider.name in _DETAIL_SLIDERS and not setting)):
            continue  # Kelvin are not known here, and RAW files have a default sharpening that a 0 would switch off
        elif by_curve and slider.name == "saturation":
            settings["Saturation"] = "0"
            settings |= {f"SaturationAdjustment{hue}": _integer(amount) for hue in _HUES}
            # darktable takes a property that is not there for the lowest setting, so the neutral ones are written too.
            settings |= {f"{kind}Adjustment{hue}": "0" for kind in ("Hue", "Luminance") for hue in _HUES}
        else:
            in_the_curve = by_curve and slider.name in _TONE_SLIDERS
            settings[_INTEGER_PROPERTIES[slider.name]] = "0" if in_the_curve else _integer(amount)
    return settings


def _by_slider(recipe: Recipe) -> list[tuple[Slider, float]]:
    return list(zip(SLIDERS, recipe.settings, strict=True))


def _integer(amount: float) -> str:
    whole = round(amount)
    return f"{whole:+d}" if whole else "0"


def _described(recipe: Recipe, explanation: str, kept: Kept) -> ET.Element:
    """Start our part of a document: the words for people and the recipe for ourselves."""
    description = xmp_packets.description()
    alternatives = ET.SubElement(ET.SubElement(description, tag(DC, "description")), tag(RDF, "Alt"))
    text = f"{kept.caption}\n\n{explanation}" if kept.caption else explanation
    ET.SubElement(alternatives, tag(RDF, "li"), {tag(XML, "lang"): "x-default"}).text = text
    alternatives.extend(kept.translations)
    # Recipes have one exact form, their JSON; a second one could only disagree with it.
    compact = json.dumps(json.loads(recipe.to_json()), ensure_ascii=False, separators=(",", ":"))
    ET.SubElement(description, tag(OWN, "Recipe")).text = compact
    return description


def _add_settings(description: ET.Element, recipe: Recipe, form: Form, *, raw: bool, applied: bool) -> None:
    settings = camera_raw_settings(recipe, form, raw=raw)
    points = tone_points(recipe) if form == "portable" else _STRAIGHT
    settings |= {
        "ToneCurveName2012": "Linear" if points == _STRAIGHT else "Custom",
        "HasSettings": "True",
        "AlreadyApplied": str(applied),
    }
    for name, value in settings.items():
        description.set(tag(CRS, name), value)
    curve = ET.SubElement(ET.SubElement(description, tag(CRS, "ToneCurvePV2012")), tag(RDF, "Seq"))
    for entry, out in points:
        ET.SubElement(curve, tag(RDF, "li")).text = f"{entry}, {out}"


def _add_event(description: ET.Element, earlier: Sequence[ET.Element], explanation: str) -> None:
    """Note the edit in the file's history, without a time: one photo and one agent give the same bytes each run."""
    events = ET.SubElement(ET.SubElement(description, tag(XMP_MM, "History")), tag(RDF, "Seq"))
    events.extend(earlier)
    event = ET.SubElement(events, tag(RDF, "li"), {tag(RDF, "parseType"): "Resource"})
    for name, value in (("action", "edited"), ("softwareAgent", "Vernissage"), ("parameters", explanation)):
        ET.SubElement(event, tag(EVENT, name)).text = value
