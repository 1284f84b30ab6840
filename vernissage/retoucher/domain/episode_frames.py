"""Frames of an episode: the photo as it is now, where the sliders stand, and what the juror has said so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vernissage.retoucher.domain.amounts import amount_text
from vernissage.retoucher.domain.pictures import plain_text
from vernissage.retoucher.domain.sliders import SLIDERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Colour = tuple[int, int, int]

FRAME_WIDTH, FRAME_HEIGHT = 768, 432
_MARGIN = 20
_HEADLINE_SIZE, _CAPTION_SIZE, _PANEL_SIZE = 19, 17, 13
_TOP, _BOTTOM = 56, 378
_STAGE_WIDTH = 456
_PANEL_HEIGHT, _CURVE_HEIGHT = 226, 70


@dataclass(frozen=True)
class Theme:
    """Colours of a drawing.

    Attributes:
        paper: Behind everything; neutral, because colour beside a photo changes how its colour looks.
        ink: Text.
        faint: Text and marks of what has not moved.
        track: The line on which a slider moves.
        accent: What moves now.
    """

    paper: Colour
    ink: Colour
    faint: Colour
    track: Colour
    accent: Colour


DARK = Theme((30, 30, 30), (235, 235, 235), (135, 135, 135), (84, 84, 84), (240, 170, 60))
LIGHT = Theme((255, 255, 255), (34, 34, 34), (150, 150, 150), (205, 205, 205), (200, 110, 0))


@dataclass(frozen=True)
class Moment:
    """What one frame shows.

    Attributes:
        picture: (H, W, 3) uint8, the photo as it is now.
        settings: K normalised slider settings.
        moved: Number of the slider that moves now; none before the first and after the last edit.
        headline: Above the photo.
        caption: Below it.
        scores: The juror's scores so far, beginning with the untouched photo.
        steps: Edits for which the curve of scores has room.
        scale: Lowest and highest score of the curve, the same for all moments of an episode.
    """

    picture: NDArray[np.uint8]
    settings: Sequence[float]
    moved: int | None
    headline: str
    caption: str
    scores: Sequence[float]
    steps: int
    scale: tuple[float, float]


def episode_frame(moment: Moment) -> NDArray[np.uint8]:
    """Draw one moment of an episode.

    Returns:
        (FRAME_HEIGHT, FRAME_WIDTH, 3) uint8.
    """
    frame, pen = _blank()
    _texts(pen, moment.headline, moment.caption)
    _place(frame, moment.picture, (_MARGIN, _TOP, _MARGIN + _STAGE_WIDTH, _BOTTOM))
    left = 2 * _MARGIN + _STAGE_WIDTH
    width = FRAME_WIDTH - _MARGIN - left
    panel = slider_panel(moment.settings, moment.moved, size=(width, _PANEL_HEIGHT), theme=DARK)
    frame.paste(Image.fromarray(panel), (left, _TOP))
    _score_curve(pen, moment, (left, _BOTTOM - _CURVE_HEIGHT, FRAME_WIDTH - _MARGIN, _BOTTOM))
    return np.asarray(frame)


def closing_frame(
    pictures: Sequence[NDArray[np.uint8]], captions: Sequence[str], headline: str, caption: str
) -> NDArray[np.uint8]:
    """Draw pictures side by side, such as a photo before, after, and as it was meant.

    Args:
        pictures: (H, W, 3) uint8 each.
        captions: One under each picture.
        headline: Above all.
        caption: Below all.

    Returns:
        (FRAME_HEIGHT, FRAME_WIDTH, 3) uint8.
    """
    frame, pen = _blank()
    _texts(pen, headline, caption)
    font = ImageFont.load_default(size=_PANEL_SIZE + 1)
    width = (FRAME_WIDTH - _MARGIN * (len(pictures) + 1)) // len(pictures)
    for number, (picture, text) in enumerate(zip(pictures, captions, strict=True)):
        left = _MARGIN + number * (width + _MARGIN)
        bottom = _place(frame, picture, (left, _TOP, left + width, _BOTTOM - 24))
        pen.text((left + width / 2, bottom + 8), plain_text(text), fill=DARK.ink, font=font, anchor="mt")
    return np.asarray(frame)


def slider_panel(
    settings: Sequence[float], moved: int | None = None, *, size: tuple[int, int], theme: Theme = LIGHT
) -> NDArray[np.uint8]:
    """Draw the sliders as a photographer knows them: a line each, a mark where it stands, its amount.

    Args:
        settings: K normalised settings.
        moved: Number of the slider to highlight.
        size: Width and height in pixels.
        theme: Colours.

    Returns:
        (height, width, 3) uint8.
    """
    width, height = size
    panel = Image.new("RGB", size, theme.paper)
    pen = ImageDraw.Draw(panel)
    row = height / len(SLIDERS)
    font = ImageFont.load_default(size=min(_PANEL_SIZE, max(8, round(row * 0.62))))
    names = max(font.getlength(slider.name) for slider in SLIDERS) + 8
    amounts = font.getlength("+0.00 EV") + 8
    left, right = names + 4, width - amounts
    for number, (slider, setting) in enumerate(zip(SLIDERS, settings, strict=True)):
        middle = (number + 0.5) * row
        colour = theme.accent if number == moved else theme.ink if setting else theme.faint
        pen.text((0, middle), slider.name, fill=colour, font=font, anchor="lm")
        pen.text((width - 1, middle), amount_text(slider, setting), fill=colour, font=font, anchor="rm")
        neutral, now = (
            left + (right - left) * (value - slider.low) / (slider.high - slider.low) for value in (0.0, setting)
        )
        pen.line((left, middle, right, middle), fill=theme.track, width=2)
        pen.line((neutral, middle - 3, neutral, middle + 3), fill=theme.track, width=1)
        pen.line((neutral, middle, now, middle), fill=colour, width=3)
        pen.ellipse((now - 4, middle - 4, now + 4, middle + 4), fill=colour)
    return np.asarray(panel)


def fitted(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Return a picture as large as it fits into a box, its proportions kept; small ones are enlarged.

    Args:
        pixels: (H, W, 3) uint8.
        width: Of the box in pixels.
        height: Of the box in pixels.

    Returns:
        (H', W', 3) uint8 with H' at most ``height`` and W' at most ``width``.
    """
    picture = Image.fromarray(pixels)
    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS))


def _blank() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    frame = Image.new("RGB", (FRAME_WIDTH, FRAME_HEIGHT), DARK.paper)
    return frame, ImageDraw.Draw(frame)


def _texts(pen: ImageDraw.ImageDraw, headline: str, caption: str) -> None:
    pen.text(
        (_MARGIN, _TOP / 2),
        plain_text(headline),
        fill=DARK.ink,
        font=ImageFont.load_default(size=_HEADLINE_SIZE),
        anchor="lm",
    )
    pen.text(
        (_MARGIN, (_BOTTOM + FRAME_HEIGHT) / 2),
        plain_text(caption),
        fill=DARK.ink,
        font=ImageFont.load_default(size=_CAPTION_SIZE),
        anchor="lm",
    )


def _place(frame: Image.Image, pixels: NDArray[np.uint8], box: tuple[int, int, int, int]) -> int:
    """Paste a picture into the middle of a box, as large as it fits; return where it ends below."""
    left, top, right, bottom = box
    picture = Image.fromarray(fitted(pixels, right - left, bottom - top))
    at = (left + (right - left - picture.width) // 2, top + (bottom - top - picture.height) // 2)
    frame.paste(picture, at)
    return at[1] + picture.height


def _score_curve(pen: ImageDraw.ImageDraw, moment: Moment, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    font, small = ImageFont.load_default(size=_PANEL_SIZE), ImageFont.load_default(size=_PANEL_SIZE - 2)
    pen.text((left, top), "juror", fill=DARK.faint, font=font, anchor="lt")
    pen.text((right, top), f"{moment.scores[-1]:.2f}", fill=DARK.ink, font=font, anchor="rt")
    top += _PANEL_SIZE + 10
    low, high = moment.scale
    for y, score in ((top, high), (bottom, low)):
        pen.line((left + 18, y, right, y), fill=DARK.track)
        pen.text((left, y), f"{score:g}", fill=DARK.faint, font=small, anchor="lm")
    start, width = left + 24, right - left - 30
    points = [
        (start + width * step / max(1, moment.steps), bottom - (bottom - top) * (score - low) / (high - low))
        for step, score in enumerate(moment.scores)
    ]
    if len(points) > 1:
        pen.line(points, fill=DARK.ink, width=2)
    for number, (x, height) in enumerate(points):
        colour = DARK.accent if number == len(points) - 1 else DARK.ink
        pen.ellipse((x - 3, height - 3, x + 3, height + 3), fill=colour)
