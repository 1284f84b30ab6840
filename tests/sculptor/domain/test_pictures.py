"""Pictures show blocks in the colours asked for; sheets hold all pictures and their words."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageChops

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.colours import colour_of
from vernissage.sculptor.domain.pictures import PAPER, ROLE_COLOURS, picture, picture_sheet, role_picture, sheet
from vernissage.sculptor.domain.roles import MASK, OUTSIDE, ROLES, Role
from vernissage.sculptor.domain.structure import Structure


def small_tree() -> np.ndarray:
    roles = np.zeros((8, 7, 7), np.uint8)
    roles[:6, 3, 3] = Role.WOOD
    roles[3:, 1:6, 1:6][roles[3:, 1:6, 1:6] == 0] = Role.LEAF
    return roles


def as_structure(roles: np.ndarray) -> Structure:
    states = ("minecraft:air", "minecraft:oak_log[axis=y]", "", "minecraft:oak_leaves[persistent=true]")
    blocks = np.where(roles == Role.LEAF, 2, roles).astype(np.uint16)
    return Structure(blocks, (states[0], states[1], states[3]))


def hues(image: Image.Image) -> np.ndarray:
    """Colours of what is opaque, as shares of their sum."""
    levels = np.asarray(image.convert("RGBA")).reshape(-1, 4).astype(float)
    levels = levels[levels[:, 3] == 255, :3]
    return levels / levels.sum(1, keepdims=True)


def test_blocks_have_their_own_colours() -> None:
    shown = hues(picture(as_structure(small_tree()), background=None))
    for state in as_structure(small_tree()).palette[1:]:
        colour = np.array(colour_of(state), float)
        assert (abs(shown - colour / colour.sum()).max(1) < 0.03).mean() > 0.01, state


def test_colours_can_be_given() -> None:
    shown = hues(picture(as_structure(small_tree()), background=None, colour_of=lambda _: (0, 0, 200)))
    assert (shown[:, 2] == 1).all()


def test_two_drawings_are_equal() -> None:
    assert picture(as_structure(small_tree())).tobytes() == picture(as_structure(small_tree())).tobytes()


def test_every_role_has_a_colour_of_its_own() -> None:
    assert set(ROLE_COLOURS) == set(Role) - {Role.AIR}
    assert len(set(ROLE_COLOURS.values())) == ROLES - 1
    for role, colour in ROLE_COLOURS.items():
        shown = hues(role_picture(np.full((1, 1, 1), role, np.uint8), background=None))
        assert np.median(abs(shown - np.array(colour) / sum(colour)).max(1)) < 0.03


def test_tokens_that_are_no_role_are_not_drawn() -> None:
    roles = small_tree()
    masked = roles.copy()
    masked[roles == 0] = MASK
    masked[7, 0] = OUTSIDE
    assert role_picture(masked).tobytes() == role_picture(roles).tobytes()


@pytest.mark.parametrize(
    ("grid", "words"),
    [(np.zeros((2, 2)), "shape"), (np.zeros((0, 2, 2)), "shape"), (np.full((1, 1, 1), MASK + 1), "expected 0 to 10")],
)
def test_what_is_no_role_grid_is_refused(grid: np.ndarray, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        role_picture(grid)


def test_sheet_holds_every_picture_where_it_belongs() -> None:
    pictures = [Image.new("RGB", (80, 60), colour) for colour in ("red", "lime", "blue", "black", "yellow")]
    laid = picture_sheet(pictures, ["", "", "", "", ""], 2, edge=100)
    colours = {colour: box for box, colour in _boxes(laid).items()}
    left, top, right, bottom = colours[(255, 0, 0)]
    assert (right - left, bottom - top) == (80, 60)
    assert colours[(0, 255, 0)][0] > right
    assert colours[(0, 255, 0)][1] == top
    assert colours[(0, 0, 255)][:2] == (left, colours[(0, 0, 0)][1])
    assert colours[(255, 255, 0)][1] > colours[(0, 0, 255)][3]


def _boxes(laid: Image.Image) -> dict[tuple[int, int, int, int], tuple[int, ...]]:
    found = {}
    for _, colour in laid.getcolors() or []:
        if colour != PAPER:
            same = ImageChops.difference(laid, Image.new("RGB", laid.size, colour)).convert("L").point(lambda v: v == 0)
            found[same.getbbox()] = colour
    return found


def test_captions_are_written_below_and_stay_in_their_column() -> None:
    long = "a very tall tree with so many words that no line can ever hold all of them, not even three of them would do"
    unbroken = "x" * 400
    blank = [Image.new("RGB", (100, 100), PAPER)] * 3
    laid = np.asarray(picture_sheet(blank, [long, unbroken, ""], 3, edge=100)).min(2) < 128
    assert not laid[:100].any()
    columns = np.flatnonzero(laid.any(0))
    gap = (laid.shape[1] - 300) // 4
    assert laid[:, gap : gap + 100].any()
    assert laid[:, 2 * gap + 100 : 2 * gap + 200].any()
    assert not laid[:, 3 * gap + 200 :].any()
    assert not laid[:, gap + 100 + 1 : 2 * gap + 100 - 1].any()
    assert columns[-1] <= 2 * gap + 200


def test_sheet_of_structures_draws_each_at_the_size_of_its_cell() -> None:
    laid = sheet([as_structure(small_tree())] * 3, ["one", "two", "three"], 2, edge=96)
    levels = np.asarray(laid).astype(int)
    green = (levels[..., 1] > levels[..., 0] + 20) & (levels[..., 1] > levels[..., 2] + 20)
    halves = [green[:, : laid.width // 2], green[:, laid.width // 2 :]]
    assert halves[0].sum() == pytest.approx(2 * halves[1].sum(), rel=0.01)
    assert laid.mode == "RGB"


@pytest.mark.parametrize(("count", "words", "columns"), [(0, 0, 1), (2, 1, 1), (1, 1, 0)])
def test_sheets_without_sense_are_refused(count: int, words: int, columns: int) -> None:
    with pytest.raises(BadInput, match="expected at least one picture"):
        picture_sheet([Image.new("RGB", (10, 10))] * count, ["tree"] * words, columns)
