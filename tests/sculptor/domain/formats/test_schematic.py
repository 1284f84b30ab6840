"""Schematics with block numbers, against what the wiki says of the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nbtlib
import numpy as np
import pytest

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.block_states import canonical_state, parse_state
from vernissage.sculptor.domain.blocks import role_kind
from vernissage.sculptor.domain.formats import schematic
from vernissage.sculptor.domain.formats.legacy_ids import legacy_state
from vernissage.sculptor.domain.formats.limits import Limits
from vernissage.sculptor.domain.formats.nbt import write_nbt

if TYPE_CHECKING:
    from vernissage.sculptor.domain.structure import Structure

LIMITS = Limits()


def parts(**changes: Any) -> dict[str, Any]:
    """Return the fields of a schematic of 2 x 1 x 3 blocks; a change to None leaves one out."""
    fields = {
        "Materials": nbtlib.String("Alpha"),
        "Width": nbtlib.Short(2),
        "Height": nbtlib.Short(1),
        "Length": nbtlib.Short(3),
        "Blocks": nbtlib.ByteArray([17, 18, 0, 3, -95, -94]),  # -95 and -94 are 161 and 162
        "Data": nbtlib.ByteArray([4, 2, 0, 2, 1, 13]),
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def read_parts(fields: dict[str, Any]) -> Structure:
    return schematic.read(write_nbt(nbtlib.Compound(fields), root_name="Schematic"), LIMITS)


def states_of(found: Structure) -> list[str]:
    return [found.palette[index] for index in found.blocks.ravel()]


def test_numbers_become_states() -> None:
    found = read_parts(parts())
    assert found.blocks.shape == (1, 3, 2)
    assert states_of(found) == [
        "minecraft:oak_log[axis=x]",
        "minecraft:birch_leaves[persistent=false]",
        "minecraft:air",
        "minecraft:podzol[snowy=false]",
        "minecraft:dark_oak_leaves[persistent=false]",
        "minecraft:dark_oak_wood[axis=y]",
    ]


def test_high_bits_come_from_the_additional_blocks() -> None:
    # Two voxels a byte, the first one in the low half: number 0x100 at place 0, 0x2A2 at place 5, the others below 256.
    found = read_parts(
        parts(Blocks=nbtlib.ByteArray([0, 18, 0, 3, -95, -94]), AddBlocks=nbtlib.ByteArray([0x01, 0x00, 0x20]))
    )
    assert states_of(found)[0] == "unknown:256_4"
    assert states_of(found)[5] == "unknown:674_13"
    assert states_of(found)[1:5] == states_of(read_parts(parts()))[1:5]


@pytest.mark.parametrize(
    ("number", "data", "state"),
    [
        (17, 3, "jungle_log[axis=y]"),
        (17, 9, "spruce_log[axis=z]"),
        (17, 14, "birch_wood[axis=y]"),
        (162, 0, "acacia_log[axis=y]"),
        (18, 7, "jungle_leaves[persistent=true]"),
        (5, 5, "dark_oak_planks"),
        (6, 9, "spruce_sapling[stage=1]"),
        (31, 2, "fern"),
        (78, 3, "snow[layers=4]"),
        (106, 1, "vine[east=false,north=false,south=true,west=false]"),
        (106, 8, "vine[east=true,north=false,south=false,west=false]"),
        (127, 9, "cocoa[age=2,facing=west]"),
        (126, 9, "spruce_slab[type=top]"),
        (99, 1, "brown_mushroom_block[down=false,east=false,north=true,south=false,up=true,west=true]"),
        (100, 14, "red_mushroom_block[down=true,east=true,north=true,south=true,up=true,west=true]"),
        (99, 10, "mushroom_stem[down=false,east=true,north=true,south=true,up=false,west=true]"),
        (53, 6, "oak_stairs[facing=south,half=top,shape=straight]"),
        (159, 14, "red_terracotta"),
        (85, 7, "oak_fence"),
    ],
)
def test_known_numbers(number: int, data: int, state: str) -> None:
    assert legacy_state(number, data) == f"minecraft:{state}"


def test_every_number_has_a_canonical_state() -> None:
    for number in range(4096):
        for data in range(16):
            state = legacy_state(number, data)
            assert canonical_state(*parse_state(state)) == state


def test_unknown_numbers_are_kept_apart() -> None:
    assert legacy_state(17, 3) != legacy_state(17, 2)
    assert legacy_state(300, 5) == "unknown:300_5"
    assert role_kind("unknown:300_5") == "other"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Materials": nbtlib.String("Classic")}, "Materials 'Classic'"),
        ({"Blocks": None}, "Blocks is missing"),
        ({"Data": None}, "Data is missing"),
        ({"Blocks": nbtlib.ByteArray([1])}, "Blocks of 1 bytes: expected 6"),
        ({"Data": nbtlib.ByteArray([0] * 7)}, "Data of 7 bytes: expected 6"),
        ({"AddBlocks": nbtlib.ByteArray([0])}, "AddBlocks of 1 bytes: expected 3"),
        ({"Blocks": nbtlib.IntArray([0] * 6)}, "of type IntArray"),
        ({"Width": nbtlib.Short(0)}, "at least one block"),
        ({"Width": nbtlib.Short(-1), "Length": nbtlib.Short(-1)}, "at most 2,000,000 pass"),
    ],
)
def test_nonsense_is_refused_with_a_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        read_parts(parts(**changes))


def test_a_whole_palette_of_numbers_is_read() -> None:
    numbers = np.arange(256).astype(np.int8)
    fields = parts(
        Width=nbtlib.Short(16), Height=nbtlib.Short(16), Length=nbtlib.Short(1), Blocks=nbtlib.ByteArray(numbers)
    )
    found = read_parts(fields | {"Data": nbtlib.ByteArray(np.zeros(256))})
    assert states_of(found) == [legacy_state(number, 0) for number in range(256)]
