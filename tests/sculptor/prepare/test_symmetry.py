"""Names of grids: the same for all eight images about the vertical, another for everything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vernissage.sculptor.prepare.symmetry import symmetry_key

GRIDS = hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 4)] * 3), elements=st.integers(0, 8))


@given(GRIDS, st.integers(0, 3), st.booleans())
def test_turned_and_mirrored_grids_have_one_name(grid: np.ndarray, turns: int, mirrored: bool) -> None:
    image = np.rot90(grid[:, :, ::-1] if mirrored else grid, turns, axes=(1, 2))
    assert symmetry_key(image) == symmetry_key(np.ascontiguousarray(image)) == symmetry_key(grid)


@given(GRIDS, GRIDS)
def test_other_grids_have_other_names(one: np.ndarray, other: np.ndarray) -> None:
    images = [np.rot90(side, turns, axes=(1, 2)) for side in (one, one[:, :, ::-1]) for turns in range(4)]
    same = any(np.array_equal(image, other) for image in images)
    assert (symmetry_key(one) == symmetry_key(other)) == same


@pytest.mark.parametrize("shapes", [((1, 2, 8), (1, 4, 4)), ((2, 2, 2), (1, 2, 4)), ((2, 1, 1), (1, 1, 2))])
def test_the_same_voxels_in_another_shape_have_another_name(shapes) -> None:
    one, other = (symmetry_key(np.ones(shape, np.uint8)) for shape in shapes)
    assert one != other


def test_upside_down_is_another_structure() -> None:
    grid = np.array([1, 3, 0, 3], np.uint8).reshape(4, 1, 1)
    assert symmetry_key(grid) != symmetry_key(grid[::-1])
