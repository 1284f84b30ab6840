"""Contact sheets: pictures in rows with a caption under each, drawn with Pillow and its own font."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vernissage.core.images import to_uint8

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_MARGIN = 12
_GAP = 6
_CAPTION_SIZE, _TITLE_SIZE = 14, 18
_LINE = 1.3
_INK, _PAPER = (34, 34, 34), (255, 255, 255)
# Pillow's own font draws ASCII only; what we write often gets a form that says the same.
_SPELLED = str.maketrans(
    {"Δ": "d", "→": "->", "–": "-", "—": "-", "−": "-", "×": "x", "±": "+-", "σ": "sigma", "ß": "ss", "…": "..."}
)


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet.

    Attributes:
        pixels: (H, W, 3) uint8; shrunk to fit its cell, small ones stay small.
        caption: What stands below it; long captions are folded.
    """

    pixels: NDArray[np.uint8]
    caption: str


def contact_sheet(rows: Sequence[Sequence[Tile]], *, cell: int = 240, title: str = "") -> NDArray[np.uint8]:
    """Draw rows of captioned pictures on white.

    Args:
        rows: The tiles; rows may differ in length.
        cell: Longest side of a picture in pixels; also the width of every column.
        title: A line above all.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: If there is no tile.
    """
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        raise ValueError("contact sheet: got no pictures, expected at least one")
    font, title_font = ImageFont.load_default(size=_CAPTION_SIZE), ImageFont.load_default(size=_TITLE_SIZE)
    width = 2 * _MARGIN + columns * cell + (columns - 1) * _MARGIN
    drawn = [[(_fit(tile.pixels, cell), _fold(tile.caption, font, cell)) for tile in row] for row in rows if row]
    line, title_lines = round(_CAPTION_SIZE * _LINE), _fold(title, title_font, width - 2 * _MARGIN)
    heights = [_row_height(row, line) for row in drawn]
    top = _MARGIN + len(title_lines) * round(_TITLE_SIZE * _LINE)
    sheet = Image.new("RGB", (width, top + sum(heights) + _MARGIN * len(heights)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, text in enumerate(title_lines):
        pen.text((_MARGIN, _MARGIN / 2 + number * round(_TITLE_SIZE * _LINE)), text, fill=_INK, font=title_font)
    for row, height in zip(drawn, heights, strict=True):
        tallest = max(picture.height for picture, _ in row)
        for column, (picture, lines) in enumerate(row):
            left = _MARGIN + column * (cell + _MARGIN)
            # Pictures of one row stand on one line, so that captions begin at one height.
            sheet.paste(picture, (left, top + tallest - picture.height))
            for number, text in enumerate(lines):
                pen.text((left, top + tallest + _GAP + number * line), text, fill=_INK, font=font)
        top += height + _MARGIN
    return np.asarray(sheet)


def step_mosaic(
    pictures: torch.Tensor, captions: Sequence[str], *, title: str = "", columns: int = 4, cell: int = 240
) -> NDArray[np.uint8]:
    """Show how one photo changed, step by step, to be read like a text.

    Args:
        pictures: (T, 3, H, W) float in [0, 1]: the original, then after each edit, then the result.
        captions: T captions.
        title: A line above all.
        columns: Pictures of one row.
        cell: Longest side of a picture.

    Returns:
        (H', W', 3) uint8.

    Raises:
        ValueError: If the numbers of pictures and captions differ.
    """
    if len(pictures) != len(captions):
        raise ValueError(f"step mosaic: got {len(pictures)} pictures and {len(captions)} captions, expected equal")
    tiles = [Tile(tile_pixels(picture), caption) for picture, caption in zip(pictures, captions, strict=True)]
    return contact_sheet([tiles[at : at + columns] for at in range(0, len(tiles), columns)], cell=cell, title=title)


def comparison_grid(
    rows: Sequence[Sequence[torch.Tensor]],
    columns: Sequence[str],
    *,
    notes: Sequence[Sequence[str]] | None = None,
    title: str = "",
    cell: int = 240,
) -> NDArray[np.uint8]:
    """Show several photos, one in each row, as several methods leave them.

    Args:
        rows: For each photo its pictures, (3, H, W) or (1, 3, H, W) float in [0, 1], such as faulty, agent, best
            baseline, original.
        columns: What the pictures of each column are.
        notes: For each picture a text behind its column's name, such as its distance to the original.
        title: A line above all.
        cell: Longest side of a picture.

    Returns:
        (H', W', 3) uint8.

    Raises:
        ValueError: If a row has not one picture and one note for each column.
    """
    texts = [[""] * len(columns) for _ in rows] if notes is None else notes
    if len(texts) != len(rows) or any(len(row) != len(columns) for row in (*rows, *texts)):
        raise ValueError(f"comparison grid: every row needs {len(columns)} pictures and as many notes")
    tiles = [
        [
            Tile(tile_pixels(picture), f"{name}  {note}".strip())
            for picture, name, note in zip(row, columns, notes_of_row, strict=True)
        ]
        for row, notes_of_row in zip(rows, texts, strict=True)
    ]
    return contact_sheet(tiles, cell=cell, title=title)


def tile_pixels(picture: torch.Tensor) -> NDArray[np.uint8]:
    """(3, H, W) or (1, 3, H, W) float in [0, 1] as (H, W, 3) uint8."""
    plane = picture[0] if picture.ndim == 4 else picture
    return to_uint8(plane.detach().cpu().permute(1, 2, 0).numpy())


def plain_text(text: str) -> str:
    """Return a text in ASCII, which is what the sheet's font can draw: known signs spelled out, accents dropped."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFC", text).translate(_SPELLED))
    kept = "".join(character for character in decomposed if not unicodedata.combining(character))
    return "".join(character if " " <= character <= "~" else "?" for character in kept)


def _row_height(row: Sequence[tuple[Image.Image, list[str]]], line: int) -> int:
    lines = max(len(lines) for _, lines in row)
    return max(picture.height for picture, _ in row) + (_GAP + lines * line if lines else 0)


def _fit(pixels: NDArray[np.uint8], cell: int) -> Image.Image:
    picture = Image.fromarray(pixels)
    scale = cell / max(picture.size)
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BOX if scale < 0.5 else Image.Resampling.LANCZOS)
    return picture


def _fold(text: str, font: Font, width: int) -> list[str]:
    """Break a text into lines that fit, between words where possible."""
    lines: list[str] = []
    for word in plain_text(text).split(" "):
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        while font.getlength(word) > width:
            fitting = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or font.getlength(word[:n]) <= width)
            lines.append(word[:fitting])
            word = word[fitting:]  # noqa: PLW2901 - the rest of a word that is wider than a line
        lines.append(word)
    return [line.rstrip() for line in lines] if text else []
