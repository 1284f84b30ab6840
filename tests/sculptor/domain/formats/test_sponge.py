"""Sponge schematics: all versions read, ours read by another program, nonsense refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mcschematic
import nbtlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sculptor.domain.formats.made import random_structure, shared_files
from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.formats import sponge
from vernissage.sculptor.domain.formats.limits import Limits
from vernissage.sculptor.domain.formats.nbt import read_nbt, write_nbt
from vernissage.sculptor.domain.structure import AIR_STATE, Structure

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = Limits()


def parts(**changes: Any) -> dict[str, Any]:
    """Return the fields of a version 2 schematic of 2 x 1 x 3 blocks; a change to None leaves one out."""
    fields = {
        "Version": nbtlib.Int(2),
        "Width": nbtlib.Short(2),
        "Height": nbtlib.Short(1),
        "Length": nbtlib.Short(3),
        "Palette": nbtlib.Compound({"minecraft:air": nbtlib.Int(0), "stone": nbtlib.Int(1), "dirt": nbtlib.Int(2)}),
        "BlockData": nbtlib.ByteArray([0, 1, 2, 0, 1, 1]),
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def read_parts(fields: dict[str, Any], limits: Limits = LIMITS) -> Structure:
    return sponge.read(write_nbt(nbtlib.Compound(fields), root_name="Schematic"), limits)


def expected() -> Structure:
    blocks = np.array([[[0, 1], [2, 0], [1, 1]]], np.uint16)  # x runs first, then z, then y
    return Structure(blocks, (AIR_STATE, "minecraft:stone", "minecraft:dirt"))


@pytest.mark.parametrize("version", [1, 2])
def test_versions_1_and_2_are_read(version: int) -> None:
    assert read_parts(parts(Version=nbtlib.Int(version))).same_as(expected())


def test_version_3_is_read() -> None:
    fields = parts(Version=nbtlib.Int(3))
    fields["Blocks"] = nbtlib.Compound({"Palette": fields.pop("Palette"), "Data": fields.pop("BlockData")})
    assert sponge.read(write_nbt({"Schematic": nbtlib.Compound(fields)}), LIMITS).same_as(expected())


def test_all_kinds_of_air_are_one() -> None:
    names = ["minecraft:cave_air", "minecraft:structure_void", "minecraft:stone"]
    palette = nbtlib.Compound({name: nbtlib.Int(number) for number, name in enumerate(names)})
    found = read_parts(parts(Palette=palette, BlockData=nbtlib.ByteArray([0, 1, 2, 0, 1, 2])))
    assert found.palette == (AIR_STATE, "minecraft:stone")
    assert found.blocks.ravel().tolist() == [0, 0, 1, 0, 0, 1]


def test_sides_are_unsigned() -> None:
    fields = parts(Width=nbtlib.Short(-25_536), Length=nbtlib.Short(1), BlockData=nbtlib.ByteArray(np.ones(40_000)))
    assert read_parts(fields).size == (40_000, 1, 1)


@pytest.mark.parametrize("states", [1, 5, 300, 20_000])
def test_what_is_written_is_read(states: int) -> None:
    made = random_structure((32, 40, 20), states)
    assert sponge.read(sponge.write(made, title=""), LIMITS).same_as(made)


@given(shape=st.tuples(*[st.integers(1, 5)] * 3), states=st.integers(1, 200), seed=st.integers(0, 99))
def test_any_shape_comes_back(shape: tuple[int, int, int], states: int, seed: int) -> None:
    made = random_structure(shape, min(states, int(np.prod(shape))), seed)
    assert sponge.read(sponge.write(made, title="x"), LIMITS).same_as(made)


@pytest.mark.parametrize("states", [6, 200])
def test_another_program_reads_ours(states: int, tmp_path: Path) -> None:
    made = random_structure((7, 5, 8), states)
    path = tmp_path / "tree.schem"
    path.write_bytes(sponge.write(made, title="A tree"))
    theirs = mcschematic.MCSchematic(str(path))
    for y, z, x in np.ndindex(made.blocks.shape):
        # it takes the offset into account: the middle of the lowest layer is at the origin
        state = theirs.getBlockStateAt((x - made.size.width // 2, y, z - made.size.depth // 2))
        assert state == made.palette[made.blocks[y, z, x]]


def test_ours_reads_another_programs(tmp_path: Path) -> None:
    made = random_structure((4, 6, 5), 150)
    theirs = mcschematic.MCSchematic()
    for y, z, x in np.ndindex(made.blocks.shape):
        theirs.setBlock((x, y, z), made.palette[made.blocks[y, z, x]])
    theirs.save(str(tmp_path), "tree", mcschematic.Version.JE_1_20_1)
    assert sponge.read((tmp_path / "tree.schem").read_bytes(), LIMITS).same_as(made)


def test_the_title_and_the_game_version_are_in_the_file() -> None:
    root = read_nbt(sponge.write(random_structure(), title="Old oak"), LIMITS)
    assert (root.root_name, root["Metadata"]["Name"], int(root["DataVersion"])) == ("Schematic", "Old oak", 3955)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Version": nbtlib.Int(4)}, "version 4: expected 1, 2, 3"),
        ({"Version": None}, "Version is missing"),
        ({"Version": nbtlib.Int(3)}, "Blocks is missing"),
        ({"Width": None}, "Width is missing"),
        ({"Width": nbtlib.String("2")}, "Width is of type String"),
        ({"Width": nbtlib.Int(-2)}, "at least one block"),
        ({"Height": nbtlib.Short(0)}, "at least one block"),
        ({"Height": nbtlib.Short(2)}, "6 entries in 6 bytes: expected 12"),
        ({"Width": nbtlib.Short(-1), "Length": nbtlib.Short(-1)}, "at most 2,000,000 pass"),
        ({"Palette": None}, "Palette is missing"),
        ({"Palette": nbtlib.Compound({})}, "block index 2"),
        ({"Palette": nbtlib.Compound({"stone": nbtlib.Int(0)})}, "block index 2: the palette has 1 entries"),
        ({"Palette": nbtlib.Compound({"stone": nbtlib.Int(-1)})}, "negatively"),
        ({"Palette": nbtlib.Compound({"stone": nbtlib.Int(0), "dirt": nbtlib.Int(0)})}, "two alike"),
        ({"Palette": nbtlib.Compound({"stone": nbtlib.Int(0), "dirt": nbtlib.Int(2)})}, "no block state of that"),
        ({"Palette": nbtlib.Compound({"stone": nbtlib.Int(2**31 - 1)})}, "palette of 2,147,483,648"),
        ({"Palette": nbtlib.Compound({"Not A Block": nbtlib.Int(0)})}, "block index 2"),
        ({"BlockData": None}, "BlockData is missing"),
        ({"BlockData": nbtlib.IntArray([0] * 6)}, "of type IntArray"),
        ({"BlockData": nbtlib.ByteArray([0, 1, 2, 0, 1])}, "5 entries"),
        ({"BlockData": nbtlib.ByteArray([0, 1, 2, 0, 1, -128])}, "5 entries in 6 bytes"),
    ],
)
def test_nonsense_is_refused_with_a_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        read_parts(parts(**changes))


def test_a_bad_name_is_refused_even_where_nothing_uses_it() -> None:
    palette = nbtlib.Compound({"stone": nbtlib.Int(0), "Not A Block": nbtlib.Int(1)})
    with pytest.raises(BadInput, match="block name 'Not A Block'"):
        read_parts(parts(Palette=palette, BlockData=nbtlib.ByteArray([0] * 6)))


def test_a_side_that_does_not_fit_the_format_is_refused() -> None:
    long = Structure(np.zeros((1, 1, 65_536), np.uint16), (AIR_STATE,))
    with pytest.raises(BadInput, match="at most 65,535"):
        sponge.write(long, title="")


def test_real_schematics_are_read() -> None:
    files = shared_files("schem", ".schem")
    assert len(files) == 12
    for path in files:
        found = sponge.read(path.read_bytes(), LIMITS)
        theirs = read_nbt(path.read_bytes(), LIMITS)
        body = theirs.get("Schematic", theirs)
        assert found.size == (body["Width"], body["Height"], body["Length"]), path.name
        assert found.solid.any(), path.name
        assert sponge.read(sponge.write(found, title=""), LIMITS).same_as(found), path.name
