"""What is in front is seen, light falls from above, and the picture does not depend on the canvas around the blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain import isometric
from vernissage.sculptor.domain.isometric import draw

RED_GREEN_BLUE = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0], [0, 0, 200]], np.float32)


def levels(blocks: np.ndarray, *, edge: int = 256) -> np.ndarray:
    return np.asarray(draw(blocks, RED_GREEN_BLUE, edge, None)).astype(float)


def first_block_on_ray(blocks: np.ndarray, p: float, q: float) -> int:
    """March from the eye along x - y = p, z - y = q, whose fractions are tenths, and return the first block met."""
    height, depth, width = blocks.shape
    for y in np.arange(height + 0.95, -max(depth, width) - 1, -0.1):
        place = (math.floor(y), math.floor(q + y), math.floor(p + y))
        if all(0 <= at < extent for at, extent in zip(place, blocks.shape, strict=True)) and blocks[place]:
            return int(blocks[place])
    return 0


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.7))
def test_every_triangle_shows_the_block_that_a_ray_meets_first(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(1, 4, (3, 4, 2)) * (rng.random((3, 4, 2)) < share)
    blocks[0, 0, 0] = blocks[-1, -1, -1] = 1
    view = isometric._view_of(np.argwhere(blocks), 128)
    lattice = isometric._seen(blocks, RED_GREEN_BLUE, view)
    for i, j, half in np.ndindex(lattice.number.shape):
        inside = (0.6, 0.3) if half else (0.3, 0.6)
        expected = first_block_on_ray(blocks, lattice.first[0] + i + inside[0], lattice.first[1] + j + inside[1])
        row = lattice.number[i, j, half]
        colour = lattice.colours[lattice.colour[row] // isometric._SHADES] if row else RED_GREEN_BLUE[0]
        assert colour.tolist() == RED_GREEN_BLUE[expected].tolist()


def test_faces_of_one_block_top_lightest_then_right_then_left() -> None:
    picture = levels(np.ones((1, 1, 1), int), edge=512)
    height, width = picture.shape[:2]
    scale = 512 / 9
    top, left, right = (
        picture[round(height / 2 + down * scale), round(width / 2 + across * scale)]
        for across, down in ((0, -0.5), (-0.43, 0.25), (0.43, 0.25))
    )
    assert top[3] == left[3] == right[3] == 255
    assert top[0] == pytest.approx(200, abs=12)
    assert left[0] / top[0] == pytest.approx(0.66, abs=0.02)
    assert right[0] / top[0] == pytest.approx(0.83, abs=0.02)
    assert (picture[..., 1:3] <= 52).all(), "nothing but the block and its shadow"


def test_crease_between_two_blocks_and_ground_under_a_roof_are_darker() -> None:
    floor = np.zeros((4, 7, 7), int)
    floor[0] = 1
    wall, roof = floor.copy(), floor.copy()
    wall[1:3, 2, :] = 2
    roof[3, 1:4, 1:4] = 3
    place, top = np.array([[0, 3, 3]]), np.array([0])
    light = {
        name: isometric._light(grid != 0, place, top)[0]
        for name, grid in (("open", floor), ("wall", wall), ("roof", roof))
    }
    assert light["open"].tolist() == [1, 1, 1]
    assert light["wall"][0] < 1, "the vertices at the wall"
    assert light["wall"][1] == light["wall"][2] == 1, "the vertices away from it"
    assert light["roof"].max() <= 1
    assert light["roof"].min() < 1


def test_air_around_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    blocks = rng.integers(0, 4, (5, 4, 6))
    blocks[[0, -1], [0, -1], [0, -1]] = 1
    assert (levels(blocks) == levels(np.pad(blocks, ((3, 2), (0, 5), (4, 1))))).all()


def test_longer_edge_is_what_was_asked_for() -> None:
    assert max(draw(np.ones((16, 16, 16), int), RED_GREEN_BLUE, 512, None).size) == 512
    assert max(draw(np.ones((64, 3, 3), int), RED_GREEN_BLUE, 512, None).size) == 512
    assert max(draw(np.ones((2, 30, 3), int), RED_GREEN_BLUE, 512, None).size) == 512
    assert max(draw(np.ones((1, 1, 1), int), RED_GREEN_BLUE, 512, None).size) < 256


def test_edges_are_smooth_and_keep_their_colour() -> None:
    picture = levels(np.full((4, 4, 4), 2))
    partly = (picture[..., 3] > 100) & (picture[..., 3] < 255)
    assert partly.sum() > 50
    # Shadow is grey: where green is far ahead of red, a block covers a part of the pixel.
    block = partly & (picture[..., 1] > picture[..., 0] + 60)
    assert block.sum() > 50
    assert (picture[block][:, 1] > 75).all()


def test_background_fills_what_is_empty() -> None:
    picture = draw(np.zeros((3, 3, 3), int), RED_GREEN_BLUE, 64, (250, 248, 244))
    assert picture.mode == "RGB"
    assert picture.getcolors() == [(64 * 64, (250, 248, 244))]
    assert Image.Image.getextrema(draw(np.zeros((1, 1, 1), int), RED_GREEN_BLUE, 64, None))[3] == (0, 0)


def test_the_corners_of_the_picture_stay_free_of_shadow() -> None:
    blocks = np.zeros((6, 12, 12), int)
    blocks[3:] = 2
    blocks[:3, 6, 6] = 1
    alpha = levels(blocks)[..., 3]
    assert alpha.max() == 255
    assert not alpha[[0, -1]].any()
    assert not alpha[:, [0, -1]].any()


def test_too_small_an_edge_is_refused() -> None:
    with pytest.raises(BadInput, match="8 pixels"):
        draw(np.ones((1, 1, 1), int), RED_GREEN_BLUE, 8, None)
