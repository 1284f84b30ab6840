"""Kept blocks: where they are put, what is refused, and that they come out exactly as they went in."""

from __future__ import annotations

import numpy as np
import pytest

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.plan import FIELDS, plan_of
from vernissage.sculptor.domain.roles import MASK, Role
from vernissage.sculptor.domain.sizes import SIZES, Size
from vernissage.sculptor.domain.structure import AIR_STATE, Structure
from vernissage.sculptor.learn.sculpting import Sculpture
from vernissage.sculptor.use.keeping import keep_blocks

STATES = (AIR_STATE, "minecraft:birch_log[axis=x]", "minecraft:chest[facing=north]", "minecraft:cave_air")
NORMAL = SIZES["normal"]


def structure(shape: tuple[int, int, int], places: dict[tuple[int, int, int], int]) -> Structure:
    blocks = np.zeros(shape, np.uint16)
    for place, index in places.items():
        blocks[place] = index
    return Structure(blocks, STATES)


def draft(height: int, depth: int, width: int, corner: tuple[int, int, int], base: tuple[int, int]) -> Sculpture:
    values = dict.fromkeys(FIELDS, 0) | {"height": height, "depth": depth, "width": width}
    values |= {"base_z": base[0], "base_x": base[1]}
    return Sculpture(np.zeros(NORMAL.shape, np.uint8), plan_of(values, np.zeros((height, 2), np.int64)), corner)


def test_a_grid_of_the_same_size_keeps_its_places() -> None:
    kept = keep_blocks(structure((16, 16, 16), {(0, 1, 2): 1, (5, 5, 5): 2, (6, 6, 6): 3}), NORMAL)
    assert {tuple(place): kept.roles[tuple(place)] for place in np.argwhere(kept.mask).tolist()} == {
        (0, 1, 2): Role.WOOD,
        (5, 5, 5): Role.OTHER,
    }
    assert (kept.roles[~kept.mask] == MASK).all()
    assert kept.species == "birch"


def test_a_smaller_one_stands_in_the_middle_and_a_larger_one_is_cut() -> None:
    small = keep_blocks(structure((3, 2, 4), {(1, 0, 0): 1}), NORMAL)
    assert np.argwhere(small.mask).tolist() == [[1, 7, 6]]
    large = keep_blocks(structure((40, 1, 1), {(20, 0, 0): 1, (24, 0, 0): 1}), NORMAL)
    assert np.argwhere(large.mask).tolist() == [[0, 7, 7], [4, 7, 7]]


def test_what_cannot_be_kept_is_refused() -> None:
    with pytest.raises(BadInput, match="1x21x1: they do not fit into a grid of 16x16x16"):
        keep_blocks(structure((40, 1, 1), {(4, 0, 0): 1, (24, 0, 0): 1}), NORMAL)
    for places in ({}, {(0, 0, 0): 3}):
        with pytest.raises(BadInput, match="nothing but air"):
            keep_blocks(structure((2, 2, 2), places), NORMAL)


def test_blocks_are_put_back_in_their_states() -> None:
    kept = keep_blocks(structure((16, 16, 16), {(0, 1, 2): 1, (5, 5, 5): 2}), NORMAL)
    built = Structure(np.ones((16, 16, 16), np.uint16), (AIR_STATE, "minecraft:oak_leaves[persistent=true]"))
    both = kept.put_into(built)
    assert both.palette == (AIR_STATE, built.palette[1], STATES[1], STATES[2])
    assert both.palette[both.blocks[0, 1, 2]] == STATES[1]
    assert both.palette[both.blocks[5, 5, 5]] == STATES[2]
    assert int((both.blocks == 1).sum()) == 16**3 - 2


def test_more_states_than_there_are_numbers_are_refused() -> None:
    many = (AIR_STATE, *(f"minecraft:b{number}_log" for number in range(65_535)))
    blocks = np.zeros((32, 64, 64), np.uint16)
    blocks.ravel()[: len(many)] = np.arange(len(many))
    kept = keep_blocks(Structure(blocks, many), Size(64, 32, 64))
    with pytest.raises(BadInput, match="no room for those that are built"):
        kept.put_into(Structure(np.ones((32, 64, 64), np.uint16), (AIR_STATE, "minecraft:oak_log[axis=y]")))


def test_names_of_what_is_kept_differ() -> None:
    places = [{(0, 1, 2): 1}, {(0, 1, 3): 1}, {(0, 1, 2): 2}]
    assert len({keep_blocks(structure((16, 16, 16), one), NORMAL).digest for one in places}) == 3


def test_a_draft_grows_to_hold_what_is_kept() -> None:
    trunk = {(layer, 7, 7): 1 for layer in range(10)}
    kept = keep_blocks(structure((16, 16, 16), trunk), NORMAL)
    fits = draft(12, 5, 5, (0, 5, 5), (4, 4))
    assert kept.room(fits, NORMAL) == {}
    assert kept.outside(fits) == 0
    low = draft(8, 5, 5, (0, 5, 5), (4, 4))
    assert kept.room(low, NORMAL) == {"height": 10}
    assert kept.outside(low) == 2


def test_a_trunk_that_stands_elsewhere_moves_the_base() -> None:
    kept = keep_blocks(structure((16, 16, 16), {(layer, 2, 7): 1 for layer in range(4)}), NORMAL)
    assert kept.room(draft(12, 5, 5, (0, 5, 5), (4, 4)), NORMAL) == {"depth": 16, "base_z": 4}
    hanging = keep_blocks(structure((16, 16, 16), {(9, 2, 7): 1}), NORMAL)
    assert hanging.room(draft(12, 5, 5, (0, 5, 5), (4, 4)), NORMAL) == {"depth": 16}


def test_without_a_plan_there_is_nothing_to_move() -> None:
    kept = keep_blocks(structure((16, 16, 16), {(9, 2, 7): 1}), NORMAL)
    bare = Sculpture(np.zeros(NORMAL.shape, np.uint8), None, (0, 0, 0))
    assert kept.room(bare, NORMAL) == {}
    assert kept.outside(bare) == 0
