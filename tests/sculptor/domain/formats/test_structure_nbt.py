"""Structure templates: read as the game means them, ours read by another program, nonsense refused."""

from __future__ import annotations

import io
from typing import Any

import litemapy
import nbtlib
import numpy as np
import pytest

from tests.sculptor.domain.formats.made import random_structure, shared_files
from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.block_states import canonical_state
from vernissage.sculptor.domain.formats import structure_nbt
from vernissage.sculptor.domain.formats.limits import Limits
from vernissage.sculptor.domain.formats.nbt import read_nbt, write_nbt
from vernissage.sculptor.domain.structure import AIR_STATE, Structure

LIMITS = Limits()
LOG = nbtlib.Compound(
    {"Name": nbtlib.String("minecraft:oak_log"), "Properties": nbtlib.Compound({"axis": nbtlib.String("x")})}
)
STONE = nbtlib.Compound({"Name": nbtlib.String("stone")})
VOID = nbtlib.Compound({"Name": nbtlib.String("minecraft:structure_void")})


def block(state: int, *place: int) -> nbtlib.Compound:
    return nbtlib.Compound({"state": nbtlib.Int(state), "pos": nbtlib.List[nbtlib.Int](place)})


def parts(**changes: Any) -> dict[str, Any]:
    """Return the fields of a template of 2 x 3 x 4 blocks, three of them said; a change to None leaves one out."""
    fields = {
        "size": nbtlib.List[nbtlib.Int]([2, 3, 4]),
        "palette": nbtlib.List[nbtlib.Compound]([LOG, STONE, VOID]),
        "blocks": nbtlib.List[nbtlib.Compound]([block(0, 0, 0, 0), block(1, 1, 2, 3), block(2, 1, 1, 1)]),
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def read_parts(fields: dict[str, Any], limits: Limits = LIMITS) -> Structure:
    return structure_nbt.read(write_nbt(nbtlib.Compound(fields)), limits)


def test_what_is_not_said_is_air() -> None:
    found = read_parts(parts())
    assert found.size == (2, 3, 4)
    assert set(found.palette) == {AIR_STATE, "minecraft:oak_log[axis=x]", "minecraft:stone"}
    assert {tuple(map(int, place)) for place in np.argwhere(found.solid)} == {(0, 0, 0), (2, 3, 1)}
    assert found.palette[found.blocks[0, 0, 0]] == "minecraft:oak_log[axis=x]"
    assert found.palette[found.blocks[2, 3, 1]] == "minecraft:stone"


def test_of_several_palettes_the_first_counts() -> None:
    palettes = nbtlib.List[nbtlib.List]([nbtlib.List([LOG, STONE, VOID]), nbtlib.List([STONE, LOG, VOID])])
    assert read_parts(parts(palette=None, palettes=palettes)).same_as(read_parts(parts()))


def test_a_template_without_blocks_is_air() -> None:
    assert not read_parts(parts(blocks=nbtlib.List([]))).solid.any()


@pytest.mark.parametrize("states", [1, 6, 300])
def test_what_is_written_is_read(states: int) -> None:
    made = random_structure((12, 6, 9), states)
    assert structure_nbt.read(structure_nbt.write(made, title=""), LIMITS).same_as(made)


def test_another_program_reads_ours() -> None:
    made = random_structure((6, 4, 5))
    root = read_nbt(structure_nbt.write(made, title="A tree"), LIMITS)
    region, version = litemapy.Region.from_structure_nbt(root)
    assert version == 3955
    for y, z, x in np.ndindex(made.blocks.shape):
        theirs = region[x, y, z]
        assert canonical_state(theirs.id, dict(theirs.properties())) == made.palette[made.blocks[y, z, x]]


def test_ours_reads_another_programs() -> None:
    region = litemapy.Region(0, 0, 0, 3, 2, 4)
    region[2, 1, 3] = litemapy.BlockState("minecraft:oak_log", axis="z")
    target = io.BytesIO()
    region.to_structure_nbt().write(target)
    found = structure_nbt.read(target.getvalue(), LIMITS)
    assert found.size == (3, 2, 4)
    assert np.argwhere(found.solid).tolist() == [[1, 3, 2]]
    assert found.palette[1] == "minecraft:oak_log[axis=z]"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": None}, "size is missing"),
        ({"size": nbtlib.List[nbtlib.Int]([1, 2])}, "size is a list of 2 values"),
        ({"size": nbtlib.List[nbtlib.String](["1", "2", "3"])}, "expected three whole numbers"),
        ({"size": nbtlib.List[nbtlib.Int]([0, 3, 4])}, "at least one block"),
        ({"size": nbtlib.List[nbtlib.Int]([2, -3, 4])}, "at least one block"),
        ({"size": nbtlib.List[nbtlib.Int]([1000, 1000, 1000])}, "1,000,000,000 voxels"),
        ({"size": nbtlib.List[nbtlib.Int]([1, 3, 4])}, "a block at 1, 2, 3"),
        ({"palette": None}, "palettes is missing"),
        ({"palette": None, "palettes": nbtlib.List([])}, "holds no palette"),
        ({"palette": nbtlib.List([])}, "block index 2: the palette has 0 entries"),
        ({"palette": nbtlib.List[nbtlib.Int]([1, 2, 3])}, "entry of type Int"),
        ({"palette": nbtlib.List[nbtlib.Compound]([{}])}, "Name is missing"),
        ({"palette": nbtlib.List[nbtlib.Compound]([{"Name": nbtlib.String("Oak Log")}])}, "block name 'Oak Log'"),
        ({"blocks": None}, "blocks is missing"),
        ({"blocks": nbtlib.List[nbtlib.Int]([1])}, "expected a compound"),
        ({"blocks": nbtlib.List[nbtlib.Compound]([{"state": nbtlib.Int(0)}])}, "pos is missing"),
        ({"blocks": nbtlib.List[nbtlib.Compound]([block(-1, 0, 0, 0)])}, "block index -1"),
        ({"blocks": nbtlib.List[nbtlib.Compound]([block(3, 0, 0, 0)])}, "block index 3: the palette has 3 entries"),
        ({"blocks": nbtlib.List[nbtlib.Compound]([block(0, -1, 0, 0)])}, "a block at -1, 0, 0"),
    ],
)
def test_nonsense_is_refused_with_a_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        read_parts(parts(**changes))


def test_real_trees_are_read() -> None:
    files = shared_files("trees", ".nbt")
    assert len(files) == 84
    for path in files:
        found = structure_nbt.read(path.read_bytes(), LIMITS)
        assert found.solid.any(), path.name
        assert structure_nbt.read(structure_nbt.write(found, title=""), LIMITS).same_as(found), path.name
