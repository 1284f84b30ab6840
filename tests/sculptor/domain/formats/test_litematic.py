"""Our Litematica files against litemapy, which reads and writes them too; it is used in tests only."""

from __future__ import annotations

import contextlib
import gzip
import time
from typing import TYPE_CHECKING, Any

import litemapy
import nbtlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.block_states import parse_state
from vernissage.sculptor.domain.formats import litematic
from vernissage.sculptor.domain.formats.limits import Limits
from vernissage.sculptor.domain.formats.litematic import entry_bits, pack_entries, unpack_entries
from vernissage.sculptor.domain.formats.nbt import write_nbt
from vernissage.sculptor.domain.structure import AIR_STATE, Structure

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = Limits()
PALETTE = (
    AIR_STATE,
    "minecraft:oak_log[axis=y]",
    "minecraft:oak_leaves[distance=1,persistent=true]",
    "minecraft:vine",
    "mod:gizmo",
)
grids = array_shapes(min_dims=3, max_dims=3, max_side=6).flatmap(
    lambda shape: arrays(np.uint16, shape, elements=st.integers(0, len(PALETTE) - 1))
)


def random_structure(states: int, shape: tuple[int, int, int] = (7, 5, 6)) -> Structure:
    palette = (AIR_STATE, *(f"mod:block_{number}[axis=y]" for number in range(1, states)))
    blocks = np.random.default_rng(states).integers(0, states, shape).astype(np.uint16)
    blocks.flat[:states] = np.arange(min(states, blocks.size))
    return Structure(blocks, palette)


def file_of(**regions: dict[str, Any]) -> bytes:
    return write_nbt(nbtlib.Compound({"Regions": nbtlib.Compound({k: nbtlib.Compound(v) for k, v in regions.items()})}))


def vector(x: int, y: int, z: int) -> nbtlib.Compound:
    return nbtlib.Compound({"x": nbtlib.Int(x), "y": nbtlib.Int(y), "z": nbtlib.Int(z)})


def region(
    size: tuple[int, int, int] = (2, 2, 2),
    position: tuple[int, int, int] = (0, 0, 0),
    palette: tuple[str, ...] = PALETTE,
    words: tuple[int, ...] = (0,),
) -> dict[str, Any]:
    entries = [nbtlib.Compound({"Name": nbtlib.String(name.partition("[")[0])}) for name in palette]
    return {
        "Size": vector(*size),
        "Position": vector(*position),
        "BlockStatePalette": nbtlib.List[nbtlib.Compound](entries),
        "BlockStates": nbtlib.LongArray(words),
    }


def without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}


@settings(max_examples=80, deadline=None)
@given(grids)
def test_what_is_written_reads_back_equal(blocks: np.ndarray) -> None:
    structure = Structure(blocks, PALETTE)
    assert litematic.read(litematic.write(structure, title="oak"), LIMITS).same_as(structure)


@pytest.mark.parametrize("states", [1, 2, 3, 4, 5, 8, 9, 17, 33, 65, 200])
def test_any_number_of_states_survives(states: int) -> None:
    structure = random_structure(states)
    assert litematic.read(litematic.write(structure, title=""), LIMITS).same_as(structure)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 16).flatmap(lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, 2**bits - 1)))))
def test_packed_entries_are_the_digits_of_one_long_number(case: tuple[int, list[int]]) -> None:
    bits, entries = case
    words = pack_entries(np.array(entries, np.uint16), bits)
    # Entry k stands at bit k * bits of the number whose 64-bit digits are the words: an independent definition.
    number = sum(entry << (bits * place) for place, entry in enumerate(entries))
    assert [word & (2**64 - 1) for word in words.tolist()] == [
        number >> (64 * place) & (2**64 - 1) for place in range(-(-bits * len(entries) // 64))
    ]
    assert unpack_entries(words, bits, len(entries)).tolist() == entries


@pytest.mark.parametrize(("states", "bits"), [(1, 2), (2, 2), (4, 2), (5, 3), (8, 3), (9, 4), (257, 9), (65_536, 16)])
def test_entries_have_two_bits_or_as_many_as_the_palette_needs(states: int, bits: int) -> None:
    assert entry_bits(states) == bits


@pytest.mark.parametrize("states", [2, 5, 17, 40])
def test_litemapy_reads_what_we_write(states: int, tmp_path: Path) -> None:
    structure = random_structure(states)
    path = tmp_path / "tree.litematic"
    path.write_bytes(litematic.write(structure, title="tall oak", description="by a test", time_ms=1234))
    schematic = litemapy.Schematic.load(str(path))
    assert (schematic.name, schematic.author, schematic.description) == ("tall oak", "vernissage", "by a test")
    assert (schematic.created, schematic.modified) == (1234, 1234)
    assert (schematic.lm_version, schematic.mc_version) == (6, 3955)
    assert (schematic.width, schematic.height, schematic.length) == structure.size
    (found,) = schematic.regions.values()
    for y, z, x in np.ndindex(structure.blocks.shape):
        assert found[x, y, z].to_block_state_identifier() == structure.palette[structure.blocks[y, z, x]]


@pytest.mark.parametrize("size", [(3, 4, 5), (-3, 4, 5), (3, -4, 5), (-3, -4, -5), (1, -1, 1)])
@pytest.mark.parametrize("states", [2, 6, 21])
def test_we_read_what_litemapy_writes(size: tuple[int, int, int], states: int, tmp_path: Path) -> None:
    made = litemapy.Region(7, -3, 2, *size)
    random = np.random.default_rng(states)
    for place in made.block_positions():
        name, properties = parse_state(f"mod:block_{random.integers(states)}[axis=y]")
        made[place] = litemapy.BlockState(name, **properties)
    path = tmp_path / "theirs.litematic"
    made.as_schematic(name="theirs").save(str(path))
    found = litematic.read(path.read_bytes(), LIMITS)
    assert found.size == tuple(map(abs, size))
    low = (made.min_x(), made.min_y(), made.min_z())
    for place in made.block_positions():
        x, y, z = (at - start for at, start in zip(place, low, strict=True))
        assert found.palette[found.blocks[y, z, x]] == made[place].to_block_state_identifier()


def test_regions_are_joined_as_litemapy_places_them(tmp_path: Path) -> None:
    first, second = litemapy.Region(0, 0, 0, 2, 3, 2), litemapy.Region(6, 1, -1, -3, 2, 2)
    log, leaf = litemapy.BlockState("minecraft:oak_log", axis="y"), litemapy.BlockState("minecraft:oak_leaves")
    first[0, 2, 1] = log
    for place in second.block_positions():
        second[place] = leaf
    path = tmp_path / "two.litematic"
    litemapy.Schematic(regions={"trunk": first, "crown": second}).save(str(path))
    found = litematic.read(path.read_bytes(), LIMITS)
    expected = np.zeros((3, 3, 7), bool)  # y 0..2, z -1..1, x 0..6
    expected[1:3, 0:2, 4:7] = True
    expected[2, 2, 0] = True
    assert (found.solid == expected).all()
    assert found.palette[found.blocks[2, 2, 0]] == "minecraft:oak_log[axis=y]"


def test_the_later_of_two_regions_covers_the_earlier_but_its_air_does_not() -> None:
    # Two words' worth of 2-bit entries: the first region is full of state 1, the second has state 2 in place 0 only.
    palette = (AIR_STATE, "mod:a", "mod:b")
    first = region(palette=palette, words=(0b01_01_01_01_01_01_01_01,))
    found = litematic.read(file_of(a=first, b=region(palette=palette, words=(0b10,))), LIMITS)
    names = np.array(found.palette)[found.blocks]
    assert names[0, 0, 0] == "mod:b"
    assert (names.ravel()[1:] == "mod:a").all()


def test_equal_structures_make_equal_files() -> None:
    assert litematic.write(random_structure(5), title="a") == litematic.write(random_structure(5), title="a")


MOST, LEAST = 2**31 - 1, -(2**31)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"PK\3\4 not at all", "begins with tag 80"),
        (write_nbt(nbtlib.Compound()), "Regions is missing"),
        (write_nbt(nbtlib.Compound({"Regions": nbtlib.Int(1)})), "Regions is of type Int"),
        (file_of(), "without a region"),
        (file_of(**{f"r{number}": {} for number in range(5_000)}), "5,000 regions"),
        (file_of(main=without(region(), "Size")), "region 'main': Size is missing"),
        (file_of(main=without(region(), "Position")), "Position is missing"),
        (file_of(main=without(region(), "BlockStatePalette")), "BlockStatePalette is missing"),
        (file_of(main=without(region(), "BlockStates")), "BlockStates is missing"),
        (file_of(main={**region(), "Size": nbtlib.Compound({"x": nbtlib.Int(1)})}), "y is missing"),
        (file_of(main={**region(), "BlockStates": nbtlib.IntArray([0])}), "BlockStates is of type IntArray"),
        (file_of(main=region((0, 2, 2))), "0x2x2"),
        (file_of(main=region((2, 2, -0))), "2x2x0"),
        (file_of(main=region((MOST, MOST, MOST))), "at most 2,000,000"),
        (file_of(main=region((LEAST, LEAST, LEAST))), "at most 2,000,000"),
        (file_of(main=region((200, 100, 100))), "1 words for 2,000,000 blocks of 3 bits: expected 93,750"),
        (file_of(main=region(words=())), "0 words for 8 blocks"),
        (file_of(main=region(palette=())), "palette has 0 entries"),
        (file_of(main=region(words=(0b101,))), "block index 5, but the palette has 5 entries"),
        (file_of(main=region(words=(-1,))), "block index 7, but the palette has 5 entries"),
        (file_of(main=region(palette=("Bad Name",))), "Bad Name"),
        (file_of(main={**region(), "BlockStatePalette": nbtlib.List[nbtlib.Int]([1, 2])}), "entry of type Int"),
        (
            file_of(
                main={
                    **region(),
                    "BlockStatePalette": nbtlib.List[nbtlib.Compound](
                        [{"Name": nbtlib.String("mod:a"), "Properties": nbtlib.Compound({"axis": nbtlib.Int(1)})}]
                    ),
                }
            ),
            "axis is of type Int",
        ),
        (file_of(a=region(), b=region(position=(MOST, 0, 0))), "at most 2,000,000"),
        (file_of(a=region(position=(LEAST, LEAST, LEAST)), b=region(position=(MOST, MOST, MOST))), "at most"),
    ],
)
def test_bad_files_are_refused_with_the_reason(data: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        litematic.read(data, LIMITS)


def test_regions_in_one_place_count_together() -> None:
    data = file_of(a=region(), b=region(), c=region())
    assert litematic.read(data, Limits(max_voxels=24)).size == (2, 2, 2)
    with pytest.raises(BadInput, match="together 24 voxels: at most 23"):
        litematic.read(data, Limits(max_voxels=23))
    with pytest.raises(BadInput, match="15 block states: at most 14"):
        litematic.read(data, Limits(max_palette=14))


def test_a_cut_off_file_is_refused_wherever_it_ends() -> None:
    data = litematic.write(random_structure(5, (2, 2, 2)), title="oak")
    raw = gzip.decompress(data)
    for whole in (data, raw):
        for length in range(len(whole)):
            with pytest.raises(BadInput):
                litematic.read(whole[:length], LIMITS)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_bytes_never_end_in_anything_but_a_reason(data: st.DataObject) -> None:
    whole = bytearray(gzip.decompress(litematic.write(random_structure(5, (2, 2, 2)), title="oak")))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadInput):
        litematic.read(bytes(whole), LIMITS)


def test_a_huge_tree_is_written_and_read_in_a_moment() -> None:
    structure = random_structure(40, (64, 24, 24))
    litematic.write(random_structure(2), title="")  # what is imported at the first call is not counted
    started = time.perf_counter()
    data = litematic.write(structure, title="huge")
    written = time.perf_counter()
    litematic.read(data, LIMITS)
    assert written - started < 0.3
    assert time.perf_counter() - written < 0.3
