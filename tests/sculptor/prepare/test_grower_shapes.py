from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vernissage.sculptor.prepare.grower_shapes import (
    face_curve,
    face_path,
    footprint,
    grown,
    reached,
    smooth_noise,
    stamp,
)

PLACE = st.tuples(st.floats(0, 20), st.floats(0, 20), st.floats(0, 20))


def check_path(cells: np.ndarray, corners: np.ndarray) -> None:
    assert (np.abs(np.diff(cells, axis=0)).sum(1) == 1).all()
    rounded = np.floor(corners + 0.5)
    assert (cells[0] == rounded[0]).all()
    assert (cells[-1] == rounded[-1]).all()
    assert (cells.min(0) >= rounded.min(0)).all()
    assert (cells.max(0) <= rounded.max(0)).all()


@given(corners=st.lists(PLACE, min_size=1, max_size=5))
@settings(deadline=None)
def test_paths_and_curves_walk_from_face_to_face(corners: list[tuple[float, float, float]]) -> None:
    points = np.array(corners)
    check_path(face_path(points), points)
    if len(points) >= 3:
        check_path(face_curve(points[0], points[1], points[2]), points[[0, 1, 2]])


def test_a_leaning_path_steps_sideways_before_it_rises() -> None:
    assert face_path(np.array([[0, 0, 0], [1, 1, 0], [2, 2, 0]])).tolist() == [
        [0, 0, 0],
        [0, 1, 0],
        [1, 1, 0],
        [1, 2, 0],
        [2, 2, 0],
    ]


@pytest.mark.parametrize("cells", range(1, 30))
def test_every_beginning_of_a_footprint_is_in_one_piece(cells: int) -> None:
    offsets = footprint(cells)
    assert offsets[0].tolist() == [0, 0]
    assert len({tuple(offset) for offset in offsets.tolist()}) == cells
    for count in range(1, cells + 1):
        grid = np.zeros((17, 17), bool)
        grid[tuple(offsets[:count].T + 8)] = True
        assert ndimage.label(grid)[1] == 1


def test_footprints_have_the_usual_shapes() -> None:
    def drawn(cells: int) -> list[str]:
        offsets = footprint(cells)
        grid = np.full(offsets.max(0) - offsets.min(0) + 1, ".")
        grid[tuple((offsets - offsets.min(0)).T)] = "#"
        return ["".join(row) for row in grid]

    assert drawn(4) == ["##", "##"]
    assert drawn(5) == [".#.", "###", ".#."]
    assert drawn(9) == ["###", "###", "###"]
    assert drawn(12) == [".##.", "####", "####", ".##."]


def test_noise_is_smooth_bounded_and_passed_on_the_generator() -> None:
    noise = smooth_noise((12, 30, 30), 3.0, np.random.default_rng(1))
    assert noise.shape == (12, 30, 30)
    assert np.abs(noise).max() <= 1
    assert abs(noise.mean()) < 0.1
    for axis in range(3):
        near, far = (np.abs(noise - np.roll(noise, shift, axis)).mean() for shift in (1, 6))
        assert near < 0.6 * far
    assert np.array_equal(noise, smooth_noise((12, 30, 30), 3.0, np.random.default_rng(1)))


def test_leaves_live_up_to_six_steps_from_wood_and_only_through_leaves() -> None:
    wood, leaves = np.zeros((1, 1, 12), bool), np.ones((1, 1, 12), bool)
    wood[0, 0, 0] = True
    assert np.flatnonzero(reached(wood, leaves)).tolist() == [1, 2, 3, 4, 5, 6]
    leaves[0, 0, 3] = False
    assert np.flatnonzero(reached(wood, leaves)).tolist() == [1, 2]
    assert not reached(np.zeros_like(wood), leaves).any()


def test_growing_adds_faces_but_no_corners_and_does_not_wrap_around() -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 1, 1] = True
    assert np.array_equal(grown(mask), ndimage.binary_dilation(mask))


def test_stamping_leaves_out_what_is_outside() -> None:
    grid = np.zeros((2, 2, 2), bool)
    stamp(grid, np.array([[0, 0, 0], [-1, 0, 0], [0, 2, 0], [1, 1, 1]]))
    assert np.argwhere(grid).tolist() == [[0, 0, 0], [1, 1, 1]]
