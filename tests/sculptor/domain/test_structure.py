"""Structures: what cannot be one is refused, and the order of a palette means nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.sizes import Size
from vernissage.sculptor.domain.structure import AIR_STATE, Structure

STATES = (AIR_STATE, "minecraft:oak_log[axis=y]", "minecraft:oak_leaves", "minecraft:stone")
STRUCTURES = hnp.arrays(
    np.uint16, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5), elements=st.integers(0, len(STATES) - 1)
).map(lambda blocks: Structure(blocks, STATES))


def states(structure: Structure) -> np.ndarray:
    return np.array(structure.palette, object)[structure.blocks]


@pytest.mark.parametrize(
    ("blocks", "palette", "said"),
    [
        (np.zeros((2, 2), np.uint16), (AIR_STATE,), "expected \\(Y, Z, X\\)"),
        (np.zeros((2, 0, 2), np.uint16), (AIR_STATE,), "at least one voxel"),
        (np.zeros((1, 1, 1), np.uint16), (), "expected minecraft:air first"),
        (np.zeros((1, 1, 1), np.uint16), STATES[1:], "expected minecraft:air first"),
        (np.zeros((1, 1, 1), np.uint16), (*STATES, STATES[2]), "expected every state once"),
        (np.full((1, 1, 1), 4, np.uint16), STATES, "block index 4, but the palette has 4 entries"),
    ],
)
def test_what_cannot_be_a_structure_is_refused(blocks: np.ndarray, palette: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Structure(blocks, palette)


@given(STRUCTURES)
def test_cropping_leaves_every_block_and_nothing_around_them(structure: Structure) -> None:
    cropped = structure.cropped()
    if not structure.solid.any():
        assert cropped.blocks.tolist() == [[[0]]]
        return
    solid = cropped.solid
    for axis in range(3):
        sides = np.moveaxis(solid, axis, 0)
        assert sides[0].any()
        assert sides[-1].any()
    assert set(cropped.palette) == {AIR_STATE, *states(structure)[structure.solid]}
    corner = np.argwhere(structure.solid).min(0)
    window = tuple(slice(start, start + side) for start, side in zip(corner, solid.shape, strict=True))
    assert (states(structure)[window] == states(cropped)).all()
    assert cropped.cropped().same_as(cropped)


@given(STRUCTURES, st.permutations(range(1, len(STATES))))
def test_the_order_of_the_palette_means_nothing(structure: Structure, order: list[int]) -> None:
    places = np.array([0, *order])
    shuffled = Structure(np.argsort(places)[structure.blocks].astype(np.uint16), tuple(STATES[n] for n in places))
    assert (states(shuffled) == states(structure)).all()
    assert structure.same_as(shuffled)
    assert shuffled.same_as(structure)


@given(STRUCTURES, st.data())
def test_one_other_block_is_noticed(structure: Structure, data: st.DataObject) -> None:
    place = tuple(data.draw(st.integers(0, side - 1)) for side in structure.blocks.shape)
    blocks = structure.blocks.copy()
    blocks[place] = (blocks[place] + data.draw(st.integers(1, len(STATES) - 1))) % len(STATES)
    other = Structure(blocks, STATES)
    assert not structure.same_as(other)
    assert not other.same_as(structure)


def test_structures_of_other_states_or_sizes_differ() -> None:
    ones = np.ones((1, 1, 2), np.uint16)
    assert not Structure(ones, STATES[:2]).same_as(Structure(ones, (AIR_STATE, STATES[3])))
    assert not Structure(ones, STATES[:2]).same_as(Structure(np.ones((1, 2, 1), np.uint16), STATES[:2]))
    assert Structure(ones, STATES[:2]).same_as(Structure(ones, STATES))


def test_a_size_is_told_width_first() -> None:
    assert Structure(np.zeros((2, 3, 4), np.uint16), STATES).size == Size(width=4, height=2, depth=3)
