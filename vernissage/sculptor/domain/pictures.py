"""Pictures of structures and of role grids, single or as a sheet with captions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.colours import colour_of
from vernissage.sculptor.domain.isometric import Colour, draw
from vernissage.sculptor.domain.roles import MASK, OUTSIDE, TOKENS, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vernissage.sculptor.domain.structure import Structure

PAPER: Colour = (250, 248, 244)
INK: Colour = (52, 49, 45)
EDGE, SHEET_EDGE = 512, 256
#: What roles look like where no palette says which blocks they are.
ROLE_COLOURS: dict[Role, Colour] = {
    Role.WOOD: (124, 88, 54),
    Role.WOOD_2: (160, 124, 82),
    Role.LEAF: (84, 140, 58),
    Role.LEAF_2: (128, 168, 66),
    Role.SNOW: (238, 243, 247),
    Role.HANGING: (58, 112, 62),
    Role.GROUND: (142, 116, 86),
    Role.OTHER: (188, 104, 96),
}

_MOST_LINES = 3


def picture(
    structure: Structure,
    *,
    edge: int = EDGE,
    background: Colour | None = PAPER,
    colour_of: Callable[[str], Colour] = colour_of,
) -> Image.Image:
    """Draw a structure from the side of +x and +z, slightly from above.

    Args:
        structure: What to draw; air is not drawn.
        edge: Longer edge of the picture in pixels; what is only a few blocks large gets a smaller picture.
        background: Colour behind the structure; None is transparent.
        colour_of: Colour of a block state.

    Returns:
        RGB, or RGBA without background.

    Raises:
        BadInput: `edge` is less than 16.
    """
    colours = np.array([colour_of(state) for state in structure.palette], np.float32)
    return draw(structure.blocks, colours, edge, background)


def role_picture(roles: np.ndarray, *, edge: int = EDGE, background: Colour | None = PAPER) -> Image.Image:
    """Draw a role grid in the colours of `ROLE_COLOURS`; tokens that are no role are not drawn.

    Args:
        roles: (Y, Z, X) integers.
        edge: Longer edge of the picture in pixels; what is only a few blocks large gets a smaller picture.
        background: Colour behind it; None is transparent.

    Raises:
        BadInput: It is no grid, holds numbers that are neither roles nor tokens, or `edge` is less than 16.
    """
    if roles.ndim != 3 or roles.size == 0:
        raise BadInput(f"role grid of shape {roles.shape}: expected (Y, Z, X) with at least one voxel each")
    if int(roles.min()) < 0 or int(roles.max()) >= TOKENS:
        raise BadInput(f"role grid with {int(roles.min())} to {int(roles.max())}: expected 0 to {TOKENS - 1}")
    colours = np.zeros((TOKENS, 3), np.float32)
    for role, colour in ROLE_COLOURS.items():
        colours[role] = colour
    return draw(np.where((roles == MASK) | (roles == OUTSIDE), Role.AIR, roles), colours, edge, background)


def sheet(
    structures: Sequence[Structure],
    captions: Sequence[str],
    columns: int,
    *,
    edge: int = SHEET_EDGE,
    colour_of: Callable[[str], Colour] = colour_of,
) -> Image.Image:
    """Draw many structures in rows, a caption below each.

    Args:
        structures: At least one.
        captions: One each; broken into lines, cut off after three.
        columns: Pictures a row.
        edge: Width and height of a picture in pixels.
        colour_of: As of `picture`.

    Returns:
        RGB.

    Raises:
        BadInput: There is no structure, there are not as many captions, or `columns` is less than 1.
    """
    pictures = [picture(each, edge=edge, background=None, colour_of=colour_of) for each in structures]
    return picture_sheet(pictures, captions, columns, edge=edge)


def picture_sheet(
    pictures: Sequence[Image.Image], captions: Sequence[str], columns: int, *, edge: int = SHEET_EDGE
) -> Image.Image:
    """Lay out pictures in rows, each in a square of `edge` pixels that it stands at the foot of, a caption below.

    Raises:
        BadInput: There is no picture, there are not as many captions, or `columns` is less than 1.
    """
    if not pictures or len(captions) != len(pictures) or columns < 1:
        raise BadInput(
            f"sheet of {len(pictures)} pictures, {len(captions)} captions, {columns} columns: expected at least one "
            "picture, a caption for each, and one column or more"
        )
    columns = min(columns, len(pictures))
    font = ImageFont.load_default(max(11, edge // 18))
    gap, line = max(6, edge // 24), math.ceil(font.getbbox("Ág")[3] * 1.12)
    texts = [_broken(caption, font, edge) for caption in captions]
    starts = range(0, len(pictures), columns)
    words = [max(len(text) for text in texts[start : start + columns]) * line for start in starts]
    height = sum(words) + len(words) * (edge + 2 * gap) + gap
    paper = Image.new("RGB", (columns * (edge + gap) + gap, height), PAPER)
    pen = ImageDraw.Draw(paper)
    top = gap
    for start, words_height in zip(starts, words, strict=True):
        row = zip(pictures[start : start + columns], texts[start : start + columns], strict=True)
        for column, (each, text) in enumerate(row):
            left = gap + column * (edge + gap)
            place = (left + (edge - each.width) // 2, top + edge - each.height)
            paper.paste(each, place, each if each.mode == "RGBA" else None)
            for number, words_of_line in enumerate(text):
                middle = (left + edge / 2, top + edge + gap // 2 + number * line)
                pen.text(middle, words_of_line, fill=INK, font=font, anchor="ma")
        top += edge + words_height + 2 * gap
    return paper


def _broken(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> list[str]:
    """Break a caption into at most three lines of `room` pixels; three dots stand for what is left."""
    lines: list[str] = []
    for word in caption.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], f"{lines[_MOST_LINES - 1]} …"]
    return [_cut(line, font, room) for line in lines]


def _cut(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> str:
    if font.getlength(line) <= room:
        return line
    while line and font.getlength(f"{line}…") > room:
        line = line[:-1]
    return f"{line}…"
