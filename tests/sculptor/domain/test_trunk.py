from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vernissage.sculptor.domain.roles import MASK, OUTSIDE, Role
from vernissage.sculptor.domain.trunk import leaf_mask, solid_mask, trunk_run, wood_mask

GRIDS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(0, MASK))


def grid(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.uint8)


def trunk(height: int, width: int = 1, at: int = 4) -> np.ndarray:
    roles = grid(height + 4, 10, 10)
    roles[:height, at : at + width, at : at + width] = Role.WOOD
    return roles


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_straight_trunk_is_its_own_run(width: int) -> None:
    roles = trunk(7, width)
    run = trunk_run(roles)
    assert run.counts.tolist() == [width**2] * 7
    np.testing.assert_array_equal(run.centres, np.full((7, 2), 4 + (width - 1) / 2))
    np.testing.assert_array_equal(run.voxels, wood_mask(roles))
    assert run.move == 0


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_trunk_that_leans_along_the_diagonal_is_followed(width: int) -> None:
    roles = grid(6, 9, 9)
    for y in range(6):
        roles[y, y : y + width, y : y + width] = Role.WOOD_2
    run = trunk_run(roles)
    assert run.counts.tolist() == [width**2] * 6
    assert run.move == pytest.approx(5 * 2**0.5)


def test_it_begins_at_the_lowest_layer_that_is_filled() -> None:
    roles = np.concatenate([grid(3, 10, 10), trunk(5)])
    run = trunk_run(roles)
    assert (run.base, len(run)) == (3, 5)
    roles[1, 0, 0] = Role.GROUND
    assert len(trunk_run(roles)) == 0


def test_a_branch_beside_it_does_not_lead_it_away() -> None:
    roles = trunk(9)
    for step in range(1, 5):
        roles[3 + step, 4 + step, 4] = Role.WOOD  # rises outward as fast as the trunk
    run = trunk_run(roles)
    assert len(run) == 9
    assert run.move == 0
    assert not run.voxels[5:, 6:].any()


def test_a_root_that_rises_nearer_to_the_middle_of_the_base_is_not_taken_for_the_trunk() -> None:
    roles = trunk(9, at=2)
    roles[0, 2, 2:9] = Role.WOOD
    roles[1, 2, 5:7] = Role.WOOD
    run = trunk_run(roles)
    assert len(run) == 9
    np.testing.assert_array_equal(run.centres[-1], (2, 2))


def test_it_ends_in_an_even_fork_and_goes_on_without_one() -> None:
    roles = trunk(5)
    roles[5, 4, [3, 5]] = Role.WOOD
    assert len(trunk_run(roles)) == 5
    roles[5, 4, 5] = Role.AIR
    assert len(trunk_run(roles)) == 6


def test_it_ends_at_a_gap() -> None:
    roles = trunk(9)
    roles[4] = Role.AIR
    assert len(trunk_run(roles)) == 4


def test_of_several_feet_the_largest_is_the_trunk() -> None:
    roles = trunk(5, 2, at=1)
    roles[:8, 8, 8] = Role.WOOD
    np.testing.assert_array_equal(trunk_run(roles).centres[0], (1.5, 1.5))


def test_wood_over_the_whole_width_does_not_wrap_around() -> None:
    roles = grid(2, 4, 5)
    roles[0, 1, 4] = Role.WOOD  # last of its row
    roles[1, 2, 0] = Role.WOOD  # first of the next: no neighbour
    assert len(trunk_run(roles)) == 1


@pytest.mark.parametrize("roles", [grid(0, 0, 0), grid(1, 1, 1), np.full((3, 2, 2), MASK, np.uint8)])
def test_nothing_has_no_trunk(roles: np.ndarray) -> None:
    run = trunk_run(roles)
    assert len(run) == 0
    assert run.centres.shape == (0, 2)
    assert run.move == 0


def test_what_is_no_role_is_air() -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert np.flatnonzero(solid_mask(codes)).tolist() == [int(role) for role in Role if role != Role.AIR]
    assert np.flatnonzero(wood_mask(codes)).tolist() == [Role.WOOD, Role.WOOD_2]
    assert np.flatnonzero(leaf_mask(codes)).tolist() == [Role.LEAF, Role.LEAF_2]
    assert not solid_mask(np.array([[[OUTSIDE, MASK]]], np.uint8)).any()


@given(GRIDS)
def test_a_run_is_wood_that_hangs_together(roles: np.ndarray) -> None:
    run = trunk_run(roles)
    assert not (run.voxels & ~wood_mask(roles)).any()
    layers = run.voxels.sum(axis=(1, 2))
    assert layers[run.base : run.base + len(run)].tolist() == run.counts.tolist()
    assert layers.sum() == run.counts.sum()
    for offset, centre in enumerate(run.centres):
        np.testing.assert_allclose(np.argwhere(run.voxels[run.base + offset]).mean(axis=0), centre)
        if offset:
            here, below = (np.argwhere(run.voxels[run.base + layer]) for layer in (offset, offset - 1))
            assert (np.abs(here[:, None] - below).max(axis=2).min(axis=1) <= 1).all()


@given(GRIDS, st.integers(0, 3), st.booleans())
def test_a_turned_structure_has_the_same_trunk(roles: np.ndarray, turns: int, mirrored: bool) -> None:
    def turned(voxels: np.ndarray) -> np.ndarray:
        rotated = np.rot90(voxels, turns, (1, 2))
        return rotated[:, :, ::-1] if mirrored else rotated

    run, other = trunk_run(roles), trunk_run(turned(roles))
    np.testing.assert_array_equal(turned(run.voxels), other.voxels)
    assert run.move == other.move
