"""Contact sheets: every picture and caption is where a reader looks for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFont

from tests.retoucher.domain.procedural import flat
from vernissage.retoucher.domain.pictures import (
    Tile,
    comparison_grid,
    contact_sheet,
    plain_text,
    step_mosaic,
    tile_pixels,
)

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
WHITE = (255, 255, 255)


def tile(colour: tuple[int, int, int], caption: str = "", size: tuple[int, int] = (50, 80)) -> Tile:
    return Tile(np.full((*size, 3), colour, np.uint8), caption)


def box_of(sheet: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of a colour in the sheet, in pixels."""
    rows, columns = np.nonzero((sheet == colour).all(axis=2))
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())


def test_pictures_stand_in_rows_and_columns() -> None:
    sheet = contact_sheet([[tile(RED), tile(GREEN)], [tile(BLUE)]], cell=100)
    red, green, blue = (box_of(sheet, colour) for colour in (RED, GREEN, BLUE))
    assert sheet.dtype == np.uint8
    assert red[:2] == green[:2]
    assert red[3] < green[2]
    assert red[2] == blue[2]
    assert red[1] < blue[0]
    assert (sheet[0] == WHITE).all()
    assert (sheet[-1] == WHITE).all()
    # Small pictures keep their size.
    assert (red[1] - red[0] + 1, red[3] - red[2] + 1) == (50, 80)


@pytest.mark.parametrize(("size", "fitted"), [((300, 600), (50, 100)), ((500, 100), (100, 20)), ((3000, 2), (100, 1))])
def test_large_pictures_are_shrunk_into_their_cell(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    top, bottom, left, right = box_of(contact_sheet([[tile(RED, size=size)]], cell=100), RED)
    assert (bottom - top + 1, right - left + 1) == fitted


def test_captions_stand_below_their_picture_and_inside_its_column() -> None:
    words = "exposure +0.70 EV 6.1 -> 6.9 and much more text than fits in one line of this column"
    sheet = contact_sheet([[tile(RED, words), tile(GREEN)]], cell=100)
    bottom = box_of(sheet, RED)[1]
    ink = (sheet < 100).all(axis=2)
    assert ink[bottom + 1 :, 12:112].any()
    assert not ink[: bottom + 1].any()
    assert not ink[:, 112:].any()
    assert not ink[-6:].any()


def test_a_word_wider_than_a_column_is_broken() -> None:
    sheet = contact_sheet([[tile(RED, "w" * 60)]], cell=100)
    assert not (sheet[:, 112:] < 100).any()
    short = contact_sheet([[tile(RED, "w" * 6)]], cell=100)
    assert sheet.shape[0] > short.shape[0]


def test_a_title_stands_above_and_costs_nothing_where_there_is_none() -> None:
    bare, titled = (contact_sheet([[tile(RED)]], title=title) for title in ("", "kodim03.png"))
    assert box_of(titled, RED)[0] > box_of(bare, RED)[0]
    assert (titled[: box_of(titled, RED)[0]] < 100).any()


@pytest.mark.parametrize("rows", [[], [[]]])
def test_a_sheet_of_nothing_is_refused(rows: list[list[Tile]]) -> None:
    with pytest.raises(ValueError, match="no pictures"):
        contact_sheet(rows)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ΔE00 4.2 → 3.1", "dE00 4.2 -> 3.1"),
        ("−0.5 – 1 ±2×", "-0.5 - 1 +-2x"),
        ("Füße.jpg", "Fusse.jpg"),
        ("写真.png", "??.png"),
        ("a\nb\tc", "a?b?c"),
    ],
)
def test_what_the_font_cannot_draw_is_spelled_out(text: str, expected: str) -> None:
    assert plain_text(text) == expected


@given(st.text(max_size=80))
@settings(max_examples=50, deadline=None)
def test_any_caption_can_be_drawn(text: str) -> None:
    assert all(" " <= character <= "~" for character in plain_text(text))
    assert contact_sheet([[tile(RED, text)]], cell=60, title=text).shape[1] == 84


def test_the_font_draws_every_sign_that_is_left() -> None:
    font = ImageFont.load_default(size=14)
    shapes = {sign: font.getmask(sign).getbbox() and bytes(font.getmask(sign)) for sign in map(chr, range(32, 127))}
    missing = bytes(font.getmask("→"))
    assert [sign for sign, shape in shapes.items() if sign != " " and shape in (None, missing)] == []


def test_the_mosaic_reads_like_a_text() -> None:
    steps = torch.cat([flat(*(value / 255 for value in colour)) for colour in (RED, GREEN, BLUE)])
    sheet = step_mosaic(steps, ["original", "1 exposure", "result"], columns=2)
    red, green, blue = (box_of(sheet, colour) for colour in (RED, GREEN, BLUE))
    assert red[0] == green[0] < blue[0]
    assert red[2] == blue[2] < green[2]
    with pytest.raises(ValueError, match="captions"):
        step_mosaic(steps, ["original"])


def test_the_grid_has_one_row_for_each_photo() -> None:
    red, green = flat(1, 0, 0), flat(0, 1, 0)
    sheet = comparison_grid([[red, green[0]], [green, red]], ["faulty", "agent"], notes=[["9.1", "2.0"], ["", ""]])
    top, bottom, left, right = box_of(sheet, RED)
    assert bottom - top > 16
    assert right - left > 16
    with pytest.raises(ValueError, match="2 pictures"):
        comparison_grid([[red]], ["faulty", "agent"])
    with pytest.raises(ValueError, match="2 pictures"):
        comparison_grid([[red, green]], ["faulty", "agent"], notes=[["9.1"]])


def test_tiles_take_pictures_of_both_shapes() -> None:
    np.testing.assert_array_equal(tile_pixels(flat(1, 0, 0)), tile_pixels(flat(1, 0, 0)[0]))
    assert tile_pixels(flat(1, 0.5, 0))[0, 0].tolist() == [255, 128, 0]
