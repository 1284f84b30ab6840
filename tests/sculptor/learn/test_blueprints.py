"""Blueprints: a box, what is decided in it, and the same told to the network for any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.sculptor.learn.small import FIRSTS
from vernissage.sculptor.domain.plan import SYMMETRIES, measure_plan, turned_grid
from vernissage.sculptor.domain.roles import OUTSIDE, Role
from vernissage.sculptor.domain.sizes import SIZES, Size, size_class
from vernissage.sculptor.learn.blueprints import (
    COARSE_CELL,
    COARSE_KINDS,
    GUIDE_CHANNELS,
    Blueprint,
    blueprint_of,
    coarse_of,
    guides_of,
    on_canvas,
    placed,
    turned,
)

if TYPE_CHECKING:
    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.learn.blueprints import First


def grid(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.uint8)


@pytest.mark.parametrize(
    ("box", "multiple", "canvas"),
    [((1, 1, 1), 4, (4, 4, 4)), ((5, 9, 7), 4, (8, 12, 12)), ((64, 3, 24), 8, (64, 24, 24)), ((6, 2, 4), 2, (6, 4, 4))],
)
def test_a_canvas_is_square_from_above_and_just_large_enough(
    box: tuple[int, int, int], multiple: int, canvas: tuple[int, int, int]
) -> None:
    assert Blueprint(box).canvas(multiple) == canvas
    assert Blueprint((box[0], box[2], box[1])).canvas(multiple) == canvas


@pytest.mark.parametrize("first", FIRSTS)
def test_a_blueprint_is_that_of_the_structure_in_its_box(first: First, trees: Dataset) -> None:
    for roles in trees.grids:
        blueprint, boxed = blueprint_of(roles, first, species="oak")
        assert boxed.shape == blueprint.box
        np.testing.assert_array_equal(np.bincount(boxed[boxed > 0]), np.bincount(roles[roles > 0]))
        assert (blueprint.plan is not None) == (first == "plan")
        assert (blueprint.coarse is not None) == (first == "coarse")
        if blueprint.plan is not None:
            np.testing.assert_array_equal(blueprint.plan.values, measure_plan(roles, species="oak").values)
        else:
            height, depth, width = roles.shape
            assert blueprint.box == SIZES[size_class(Size(width, height, depth))].shape
        if blueprint.coarse is not None:
            np.testing.assert_array_equal(blueprint.coarse, coarse_of(boxed))


def test_a_coarse_grid_says_of_every_cell_what_it_holds() -> None:
    roles = grid(5, 8, 9)
    roles[0, 0, 0] = Role.WOOD_2
    roles[3, 7, 3] = Role.LEAF
    roles[1, 4, 5] = Role.WOOD
    roles[2, 5, 6] = Role.LEAF_2
    roles[0, 0, 8] = Role.SNOW
    roles[4, 0, 0] = Role.HANGING
    roles[4, 1, 1] = Role.LEAF
    coarse = coarse_of(roles)
    assert coarse.dtype == np.uint8
    assert coarse.tolist() == [[[1, 0, 4], [2, 3, 0]], [[2, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize("first", FIRSTS)
def test_a_blueprint_turns_with_its_structure(first: First, trees: Dataset) -> None:
    for roles in trees.grids[::3]:
        blueprint, boxed = blueprint_of(roles, first)
        for symmetry in range(SYMMETRIES):
            moved, form = turned(blueprint, boxed, symmetry)
            np.testing.assert_array_equal(form, turned_grid(boxed, symmetry))
            assert moved.box == form.shape
            if moved.coarse is not None:
                np.testing.assert_array_equal(moved.coarse, coarse_of(form))
            if moved.plan is not None:
                np.testing.assert_array_equal(moved.plan.values, measure_plan(form).values)


@pytest.mark.parametrize("symmetry", [-1, SYMMETRIES])
def test_there_is_no_ninth_symmetry(symmetry: int) -> None:
    with pytest.raises(ValueError, match=f"symmetry {symmetry}, expected 0 to {SYMMETRIES - 1}"):
        turned(Blueprint((1, 1, 1)), grid(1, 1, 1), symmetry)


@pytest.mark.parametrize("base", [(2, 3), (0, 0), (7, 7), (4, 0)])
def test_a_structure_is_placed_with_its_base_in_the_middle(base: tuple[int, int]) -> None:
    roles = grid(3, 8, 8)
    roles[:, base[0], base[1]] = Role.WOOD
    roles[2, 0, 0] = roles[2, 7, 7] = Role.LEAF
    boxed = placed(roles, SIZES["normal"])
    assert boxed.shape == SIZES["normal"].shape
    _, z, x = np.argwhere(boxed)[0]
    assert {abs(z - 7.5), abs(x - 7.5)} == {0.5}
    corner = (slice(3), slice(z - base[0], z - base[0] + 8), slice(x - base[1], x - base[1] + 8))
    np.testing.assert_array_equal(boxed[corner], roles)


def test_a_structure_stays_inside_however_far_its_base_is_from_its_middle() -> None:
    roles = grid(3, 14, 14)
    roles[0, 13, 0] = roles[2, 0, 13] = Role.WOOD
    boxed = placed(roles, SIZES["normal"])
    assert np.argwhere(boxed).tolist() == [[0, 13, 2], [2, 0, 15]]


def test_a_structure_that_fills_its_size_stays_where_it_is() -> None:
    roles = np.random.default_rng(0).integers(1, 9, (16, 16, 16)).astype(np.uint8)
    np.testing.assert_array_equal(placed(roles, SIZES["normal"]), roles)
    off = grid(16, 16, 16)
    off[:, 0, 0] = Role.WOOD
    off[5] = Role.LEAF
    np.testing.assert_array_equal(placed(off, SIZES["normal"]), off)


@pytest.mark.parametrize("first", FIRSTS)
def test_the_network_is_told_as_many_channels_as_it_expects(first: First, trees: Dataset) -> None:
    blueprints = [blueprint_of(roles, first)[0] for roles in trees.grids[:4]]
    canvas = (16, 16, 16)
    guides = guides_of(blueprints, canvas, first)
    assert guides.channels.shape == (4, GUIDE_CHANNELS[first], *canvas)
    assert guides.channels.dtype == torch.float32
    assert torch.isfinite(guides.channels).all()
    assert guides.channels.abs().max() <= 2
    assert (guides.values is not None) == (first == "plan")
    for row, blueprint in enumerate(blueprints):
        inside = np.zeros(canvas, bool)
        inside[tuple(slice(side) for side in blueprint.box)] = True
        np.testing.assert_array_equal(guides.inside[row].numpy(), inside)


@pytest.mark.parametrize("first", FIRSTS)
def test_what_a_row_is_told_does_not_depend_on_the_others(first: First, trees: Dataset) -> None:
    blueprints = [blueprint_of(roles, first)[0] for roles in trees.grids[:5]]
    together = guides_of(blueprints, (16, 20, 20), first)
    for row, blueprint in enumerate(blueprints):
        alone = guides_of([blueprint], (16, 20, 20), first)
        assert torch.equal(alone.channels[0], together.channels[row])
        if alone.values is not None and together.values is not None:
            assert torch.equal(alone.values[0], together.values[row])


@pytest.mark.parametrize("first", FIRSTS)
def test_a_larger_canvas_tells_the_same_inside_the_box(first: First, trees: Dataset) -> None:
    """So that neither the levels of a network nor its neighbours in a batch change what a blueprint means."""
    for roles in trees.grids[:4]:
        blueprint, _ = blueprint_of(roles, first)
        box = tuple(slice(side) for side in blueprint.box)
        small, large = (guides_of([blueprint], blueprint.canvas(m), first).channels for m in (2, 16))
        assert torch.equal(small[0][:, *box], large[0][:, *box])


@pytest.mark.parametrize("shape", [(16, 16, 16), (6, 10, 10)])
def test_a_coarse_grid_is_told_to_every_voxel_of_its_cells(shape: tuple[int, int, int]) -> None:
    cells = tuple(-(-side // COARSE_CELL) for side in shape)
    coarse = np.random.default_rng(1).integers(0, COARSE_KINDS, cells).astype(np.uint8)
    told = guides_of([Blueprint(shape, coarse=coarse)], shape, "coarse").channels[0, :COARSE_KINDS]
    assert (told.sum(0) == 1).all()
    y, z, x = (np.arange(side) // COARSE_CELL for side in shape)
    np.testing.assert_array_equal(told.argmax(0).numpy(), coarse[np.ix_(y, z, x)])


def test_only_plans_know_how_far_the_trunk_is(trees: Dataset) -> None:
    for first in ("coarse", "none"):
        blueprint, _ = blueprint_of(trees.grids[0], first)
        assert guides_of([blueprint], (16, 16, 16), first).axis_distance is None


def test_distances_from_the_trunk_are_in_blocks() -> None:
    roles = grid(4, 9, 9)
    roles[:, 2, 3] = Role.WOOD
    roles[3] = Role.LEAF
    roles[3, 2, 3] = Role.WOOD
    blueprint, _ = blueprint_of(roles, "plan")
    found = guides_of([blueprint], (4, 12, 12), "plan").axis_distance
    assert found is not None
    z, x = np.indices((12, 12))
    np.testing.assert_allclose(found[0, 1].numpy(), np.hypot(z - 2, x - 3), atol=1e-5)


def test_beyond_the_box_is_outside() -> None:
    roles = np.full((2, 3, 4), Role.LEAF, np.uint8)
    canvas = on_canvas(roles, (4, 4, 4))
    np.testing.assert_array_equal(canvas[:2, :3, :4], roles)
    assert (canvas == OUTSIDE).sum() == 4**3 - roles.size
