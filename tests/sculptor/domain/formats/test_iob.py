from __future__ import annotations

import contextlib
import csv
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.formats import iob
from vernissage.sculptor.domain.formats.limits import Limits
from vernissage.sculptor.domain.structure import AIR_STATE, Structure

LIMITS = Limits()
PALETTE = (AIR_STATE, "minecraft:oak_log[axis=y]", "minecraft:oak_leaves", "mod:gizmo[half=upper,lit=true]")
TREES = Path(__file__).parents[4].parent / "shared" / "data" / "trees"

Block = tuple[int, int, int, str]
grids = array_shapes(min_dims=3, max_dims=3, max_side=6).flatmap(
    lambda shape: arrays(np.uint16, shape, elements=st.integers(0, len(PALETTE) - 1))
)


def text(value: str) -> bytes:
    return struct.pack(">H", len(value.encode())) + value.encode()


def old_file(size: tuple[int, int, int], blocks: list[Block], count: int | None = None) -> bytes:
    body = b"".join(struct.pack(">3h", *place) + text(state) for *place, state in blocks)
    return struct.pack(">4i", *size, len(blocks) if count is None else count) + body


def new_file(
    size: tuple[int, int, int],
    palette: tuple[str, ...],
    blocks: list[tuple[int, int, int, int]],
    *,
    tag: str = "Iris V2 IOB;",
    entries: int | None = None,
    count: int | None = None,
) -> bytes:
    return (
        struct.pack(">3i", *size)
        + text(tag)
        + struct.pack(">h", len(palette) if entries is None else entries)
        + b"".join(map(text, palette))
        + struct.pack(">i", len(blocks) if count is None else count)
        + b"".join(struct.pack(">4h", *block) for block in blocks)
        + struct.pack(">i", 0)
    )


def test_the_newer_variant_gives_the_blocks_at_their_places() -> None:
    palette = ("minecraft:oak_leaves[persistent=true,distance=3]", "oak_log[axis=y]")
    found = iob.read(new_file((3, 4, 5), palette, [(0, -2, 0, 1), (-1, 1, 2, 0)]), LIMITS)
    assert found.size == (3, 4, 5)
    at = {
        tuple(place): found.palette[found.blocks[tuple(place)]] for place in np.argwhere(found.solid).tolist()
    }  # y, z, x from the corner; the centre is (1, 2, 2)
    assert at == {
        (0, 2, 1): "minecraft:oak_log[axis=y]",
        (3, 4, 0): "minecraft:oak_leaves[distance=3,persistent=true]",
    }


def test_the_older_variant_gives_the_same_as_the_newer() -> None:
    old = old_file((3, 4, 5), [(0, -2, 0, PALETTE[1]), (-1, 1, 2, PALETTE[2]), (1, 1, 2, PALETTE[1])])
    new = new_file((3, 4, 5), PALETTE[1:], [(0, -2, 0, 0), (-1, 1, 2, 1), (1, 1, 2, 0)])
    assert iob.read(old, LIMITS).same_as(iob.read(new, LIMITS))
    assert iob.read(old + b"\0\0\0\0", LIMITS).same_as(iob.read(old, LIMITS))  # a count of block entities may follow


def test_blocks_outside_of_the_declared_box_move_the_box() -> None:
    found = iob.read(new_file((2, 2, 2), PALETTE[1:], [(-9, 0, 0, 0), (-7, 5, 1, 1)]), LIMITS)
    assert found.size == (3, 6, 2)
    assert np.argwhere(found.solid).tolist() == [[0, 0, 0], [5, 1, 2]]


def test_of_two_blocks_in_one_place_the_later_counts_and_air_is_a_block() -> None:
    blocks = [(0, 0, 0, 0), (0, 0, 0, 1), (-1, 0, 0, 0), (-1, 0, 0, 2)]
    found = iob.read(new_file((2, 1, 1), (*PALETTE[1:3], "minecraft:cave_air"), blocks), LIMITS)
    assert [found.palette[index] for index in found.blocks[0, 0]] == [AIR_STATE, PALETTE[2]]


@settings(max_examples=80, deadline=None)
@given(grids)
def test_what_is_written_reads_back_equal(blocks: np.ndarray) -> None:
    structure = Structure(blocks, PALETTE)
    assert iob.read(iob.write(structure, title="oak"), LIMITS).same_as(structure)


def test_bytes_are_as_the_layout_says() -> None:
    blocks = np.zeros((4, 3, 2), np.uint16)
    blocks[3, 0, 1] = 2  # y = 3, z = 0, x = 1, around the centre (1, 2, 1)
    assert iob.write(Structure(blocks, PALETTE[:3])) == new_file((2, 4, 3), PALETTE[1:3], [(0, 1, -1, 1)])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends in the middle of the size"),
        (struct.pack(">3i", 0, 1, 1) + b"\0" * 8, "0x1x1"),
        (struct.pack(">3i", -2, 1, 1) + b"\0" * 8, "-2x1x1"),
        (struct.pack(">3i", 2**31 - 1, 2**31 - 1, 2**31 - 1) + b"\0" * 8, "at most 2,000,000"),
        (new_file((1, 1, 1), PALETTE, [(0, 0, 0, 4)]), "block state 4: expected 0 to 3"),
        (new_file((1, 1, 1), PALETTE, [(0, 0, 0, -1)]), "block state -1: expected 0 to 3"),
        (new_file((1, 1, 1), (), [(0, 0, 0, 0)]), "block state 0"),
        (new_file((1, 1, 1), PALETTE, [], entries=-1), "palette: -1 entries"),
        (new_file((1, 1, 1), (), [], entries=30_000), "middle of the palette"),
        (new_file((1, 1, 1), PALETTE, [], count=-5), "number of blocks: -5"),
        (new_file((1, 1, 1), PALETTE, [], count=2**31 - 1), "2,147,483,647 blocks: at most 2,000,000"),
        (new_file((1, 1, 1), PALETTE, [], count=1_999_999), "middle of the blocks: 15,999,992 bytes"),
        (new_file((1, 1, 1), ("Not A Block",), [(0, 0, 0, 0)]), "Not A Block"),
        (new_file((1, 1, 1), ("mod:\x00",), []), "mod:"),
        (new_file((1, 1, 1), PALETTE, [], tag="Iris V3 IOB;"), "Iris V3 IOB;"),
        (new_file((1, 1, 1), PALETTE, [(-32_768, 0, 0, 0), (32_767, 32_767, 32_767, 0)]), "at most 2,000,000"),
        (old_file((1, 1, 1), [], count=1_999_999), "middle of the blocks"),
        (old_file((1, 1, 1), [], count=-1), "number of blocks: -1"),
        (old_file((1, 1, 1), [(0, 0, 0, "no state]")]), "no state"),
        (struct.pack(">4i3hH", 1, 1, 1, 1, 0, 0, 0, 2) + b"\xff\xfe", "no UTF-8"),
    ],
)
def test_bad_files_are_refused_with_the_reason(data: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        iob.read(data, LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        iob.write(Structure(np.ones((2, 3, 4), np.uint16), PALETTE)),
        old_file((2, 1, 1), [(0, 0, 0, PALETTE[1]), (-1, 0, 0, PALETTE[3])]),
    ],
    ids=["newer", "older"],
)
def test_a_cut_off_file_is_refused_wherever_it_ends(data: bytes) -> None:
    assert iob.read(data, LIMITS).solid.any()
    for length in range(len(data)):
        with pytest.raises(BadInput):
            iob.read(data[:length], LIMITS)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_never_end_in_anything_but_a_reason(data: st.DataObject) -> None:
    whole = bytearray(iob.write(Structure(np.ones((2, 3, 4), np.uint16), PALETTE)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadInput):
        iob.read(bytes(whole), LIMITS)


@pytest.mark.parametrize(
    "structure",
    [
        Structure(np.ones((1, 1, 32_768), np.uint16), PALETTE),
        Structure(np.ones((1, 1, 1), np.uint16), (AIR_STATE, *(f"mod:b{number}" for number in range(32_768)))),
    ],
    ids=["long side", "long palette"],
)
def test_what_the_format_cannot_number_is_refused(structure: Structure) -> None:
    with pytest.raises(BadInput, match="32,767"):
        iob.write(structure)


def test_a_huge_tree_is_read_in_a_moment() -> None:
    structure = Structure(np.random.default_rng(0).integers(1, 4, (64, 24, 24)).astype(np.uint16), PALETTE)
    places = [
        (x - 12, y - 32, z - 12, structure.palette[structure.blocks[y, z, x]])
        for y, z, x in np.argwhere(structure.solid).tolist()
    ]
    old, new = old_file((24, 64, 24), places), iob.write(structure)
    for data in (old, new):
        started = time.perf_counter()
        found = iob.read(data, LIMITS)
        assert time.perf_counter() - started < 0.3
        assert found.same_as(structure)


@pytest.mark.skipif(not (TREES / "manifest.csv").exists(), reason="the real trees in shared/data are not there")
def test_all_real_trees_have_the_extent_and_the_blocks_that_are_known() -> None:
    with (TREES / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["file"].endswith(".iob")]
    assert len(rows) == 840
    for row in rows:
        found = iob.read((TREES / row["file"]).read_bytes(), LIMITS).cropped()
        facts = (*found.size, int(found.solid.sum()))
        assert facts == tuple(int(row[name]) for name in ("dx", "dy", "dz", "blocks")), row["file"]
        usual = "minecraft:" + row["top_blocks"].split(":")[0]
        names = [state.partition("[")[0] == usual for state in found.palette]
        assert np.count_nonzero(np.array(names)[found.blocks]) == int(row["top_blocks"].split()[0].split(":")[1])
