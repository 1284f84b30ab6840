"""Frames of an episode: the photo, every slider where it stands, the juror's scores."""

from __future__ import annotations

import numpy as np
import pytest

from vernissage.retoucher.domain.episode_frames import (
    DARK,
    FRAME_HEIGHT,
    FRAME_WIDTH,
    LIGHT,
    Moment,
    closing_frame,
    episode_frame,
    fitted,
    slider_panel,
)
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, slider_index

RED = np.full((20, 40, 3), (200, 0, 0), np.uint8)
NEUTRAL = [0.0] * SLIDER_COUNT


def with_setting(name: str, setting: float) -> list[float]:
    settings = list(NEUTRAL)
    settings[slider_index(name)] = setting
    return settings


def moment(**changes: object) -> Moment:
    values = {
        "picture": RED,
        "settings": NEUTRAL,
        "moved": None,
        "headline": "photo 1 of 4",
        "caption": "as it came in",
        "scores": [4.0],
        "steps": 8,
        "scale": (3.0, 8.0),
    }
    return Moment(**{**values, **changes})


def knob_column(settings: list[float], name: str, width: int = 400) -> int:
    """Where the mark of a slider stands: the middle of what is drawn thickest in its row."""
    panel = slider_panel(settings, slider_index(name), size=(width, 180))
    row = panel[20 * slider_index(name) : 20 * slider_index(name) + 20]
    marked = (row == LIGHT.accent).all(axis=2)
    # Nothing but the round mark is as tall as this in the region of the lines.
    tall = [column for column in np.flatnonzero(marked.sum(axis=0) >= 7) if 60 < column < width - 50]
    return int(np.mean(tall))


def test_a_slider_stands_where_its_setting_is() -> None:
    low, middle, high = (knob_column(with_setting("tint", setting), "tint") for setting in (-1.0, 0.0, 1.0))
    assert low < middle < high
    assert middle == pytest.approx((low + high) / 2, abs=1.5)
    assert knob_column(with_setting("tint", 0.5), "tint") == pytest.approx((middle + high) / 2, abs=1.5)
    # Sharpening begins at zero, so neutral is at its left end.
    assert knob_column(NEUTRAL, "sharpen") == pytest.approx(low, abs=1.5)


def test_only_the_slider_that_moves_is_highlighted() -> None:
    settings = with_setting("exposure", 0.4)
    still, moving = slider_panel(settings, size=(240, 180)), slider_panel(settings, 0, size=(240, 180))
    assert not (still == LIGHT.accent).all(axis=2).any()
    assert (moving[:20] == LIGHT.accent).all(axis=2).any()
    assert np.array_equal(still[20:], moving[20:])


def test_a_frame_shows_photo_sliders_and_scores() -> None:
    frame = episode_frame(moment())
    assert frame.shape == (FRAME_HEIGHT, FRAME_WIDTH, 3)
    assert frame.dtype == np.uint8
    # Twice as wide as high, so it fills the width of the stage: 456 x 228 pixels.
    assert (frame == (200, 0, 0)).all(axis=2).sum() == 456 * 228
    exposed = episode_frame(moment(settings=with_setting("exposure", 0.8)))
    assert not np.array_equal(exposed, frame)
    scored = episode_frame(moment(scores=[4.0, 7.0]))
    changed = np.argwhere((scored != frame).any(axis=2))
    assert changed[:, 1].min() > 456
    assert changed[:, 0].min() > 280


def test_the_curve_of_scores_rises_with_the_score() -> None:
    heights = []
    for score in (3.0, 5.5, 8.0):
        frame = episode_frame(moment(scores=[3.0, score], steps=1))
        heights.append(np.argwhere((frame[300:] == DARK.accent).all(axis=2))[:, 0].mean())
    assert heights[0] > heights[1] > heights[2]
    assert heights[1] == pytest.approx((heights[0] + heights[2]) / 2, abs=0.6)


def test_the_closing_frame_has_all_pictures() -> None:
    blue = np.full((40, 20, 3), (0, 0, 200), np.uint8)
    frame = closing_frame([RED, blue], ["before", "after"], "photo 1", "better")
    assert frame.shape == (FRAME_HEIGHT, FRAME_WIDTH, 3)
    red, blue_at = (np.argwhere((frame == colour).all(axis=2))[:, 1] for colour in ((200, 0, 0), (0, 0, 200)))
    assert red.max() < blue_at.min()


@pytest.mark.parametrize(("sides", "expected"), [((10, 20), (25, 50)), ((400, 100), (30, 8)), ((30, 50), (30, 50))])
def test_fitted_keeps_proportions(sides: tuple[int, int], expected: tuple[int, int]) -> None:
    picture = np.zeros((*sides, 3), np.uint8)
    assert fitted(picture, 50, 30).shape[:2] == expected


def test_any_text_can_be_drawn() -> None:
    episode_frame(moment(headline="Ünïcode → 50 %", caption="ΔE00 3.2 – 写真"))
