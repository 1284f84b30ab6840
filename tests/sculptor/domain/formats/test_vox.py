from __future__ import annotations

import contextlib
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.colours import colour_of
from vernissage.sculptor.domain.formats import vox
from vernissage.sculptor.domain.formats.limits import Limits
from vernissage.sculptor.domain.structure import AIR_STATE, Structure

LIMITS = Limits()
PALETTE = (AIR_STATE, "minecraft:oak_log[axis=x]", "minecraft:oak_log[axis=y]", "minecraft:oak_leaves", "mod:gizmo")
grids = array_shapes(min_dims=3, max_dims=3, max_side=6).flatmap(
    lambda shape: arrays(np.uint16, shape, elements=st.integers(0, len(PALETTE) - 1))
)


def colours(structure: Structure) -> np.ndarray:
    """(Y, Z, X, 3) colours, -1 where there is air."""
    table = np.array([(-1, -1, -1), *(colour_of(state) for state in structure.palette[1:])])
    return table[structure.blocks]


def chunk(name: bytes, content: bytes, children: bytes = b"") -> bytes:
    return name + struct.pack("<ii", len(content), len(children)) + content + children


def file_of(*chunks: bytes) -> bytes:
    return b"VOX " + struct.pack("<i", 150) + chunk(b"MAIN", b"", b"".join(chunks))


def model(size: tuple[int, int, int], voxels: list[tuple[int, int, int, int]]) -> bytes:
    body = struct.pack("<i", len(voxels)) + b"".join(bytes(voxel) for voxel in voxels)
    return chunk(b"SIZE", struct.pack("<iii", *size)) + chunk(b"XYZI", body)


@settings(max_examples=80, deadline=None)
@given(grids, st.text(max_size=20))
def test_places_and_colours_survive(blocks: np.ndarray, title: str) -> None:
    if not blocks.any():
        blocks[0, 0, 0] = 1
    structure = Structure(blocks, PALETTE)
    back = vox.read(vox.write(structure, title=title), LIMITS)
    assert back.size == structure.size
    assert (colours(back) == colours(structure)).all()


def test_a_file_that_was_read_can_be_written_and_read_again_unchanged() -> None:
    blocks = np.arange(60, dtype=np.uint16).reshape(3, 4, 5) % len(PALETTE)
    once = vox.read(vox.write(Structure(blocks, PALETTE)), LIMITS)
    assert vox.read(vox.write(once), LIMITS).same_as(once)


def test_bytes_are_as_the_specification_says() -> None:
    blocks = np.zeros((4, 3, 2), np.uint16)
    blocks[3, 0, 1] = 2  # y = 3, z = 0, x = 1
    data = vox.write(Structure(blocks, PALETTE))
    assert data[:8] == b"VOX \x96\0\0\0"
    assert data[8:12] == b"MAIN"
    assert struct.unpack_from("<ii", data, 12) == (0, len(data) - 20)
    assert data[20:44] == b"SIZE" + struct.pack("<5i", 12, 0, 2, 3, 4)
    assert data[44:64] == b"XYZI" + struct.pack("<3i", 8, 0, 1) + bytes([1, 2, 3, 1])
    assert data[64:76] == b"RGBA" + struct.pack("<2i", 1024, 0)
    assert tuple(data[76:80]) == (*colour_of(PALETTE[2]), 255)
    assert len(data) == 76 + 1024


def test_each_block_state_has_a_palette_entry_of_its_own() -> None:
    blocks = np.array([[[1, 2, 3]]], np.uint16)
    data = vox.write(Structure(blocks, PALETTE))
    assert [data[at] for at in (63, 67, 71)] == [1, 2, 3]  # two states of one colour can be painted differently
    assert vox.read(data, LIMITS).palette[1:] == ("unknown:6e5633", "unknown:4c8a2b")


def test_our_up_and_south_are_a_turn_of_theirs_and_no_mirror_image() -> None:
    # A corner and its three neighbours: steps along x, y, z in our axes must keep their handedness in theirs.
    corner, steps = np.array([1, 1, 1]), np.eye(3, dtype=int)
    images = []
    for x, y, z in [corner, *(corner + steps)]:
        blocks = np.zeros((3, 3, 3), np.uint16)
        blocks[y, z, x] = 1
        images.append(np.frombuffer(vox.write(Structure(blocks, PALETTE)), np.uint8, 3, 60).astype(int))
    turn = np.array(images[1:]) - images[0]
    assert round(np.linalg.det(turn)) == 1
    assert turn[1].tolist() == [0, 0, 1]


def test_a_title_names_the_object_in_the_scene() -> None:
    blocks = np.ones((4, 1, 1), np.uint16)
    plain, named = vox.write(Structure(blocks, PALETTE)), vox.write(Structure(blocks, PALETTE), title="tall öak")
    assert b"nTRN" not in plain
    text = "tall öak".encode()
    assert b"_name" + struct.pack("<i", len(text)) + text in named
    assert vox.read(named, LIMITS).same_as(vox.read(plain, LIMITS))


def test_without_a_palette_colours_are_the_default_ones() -> None:
    voxels = [(0, 0, 0, 1), (1, 0, 0, 2), (2, 0, 0, 7), (3, 0, 0, 215), (4, 0, 0, 216), (5, 0, 0, 226), (6, 0, 0, 255)]
    found = vox.read(file_of(model((7, 1, 1), voxels)), LIMITS)
    row = [found.palette[index].removeprefix("unknown:") for index in found.blocks[0, 0]]
    # default_palette of the specification at 1, 2, 7, 215, 216, 226 and 255, from ABGR to RGB
    assert row == ["ffffff", "ffffcc", "ffccff", "000033", "ee0000", "00ee00", "111111"]


def test_unknown_chunks_are_passed_over() -> None:
    extra = chunk(b"MATL", b"\1\2\3", chunk(b"SIZE", b"inner chunks are not models"))
    data = file_of(extra, model((1, 1, 1), [(0, 0, 0, 9)]), chunk(b"NOTE", b""))
    assert vox.read(data, LIMITS).solid.all()


@pytest.mark.parametrize(
    ("blocks", "palette", "message"),
    [
        (np.zeros((2, 2, 2)), PALETTE, "nothing to write"),
        (np.ones((257, 1, 1)), PALETTE, "1x257x1.*256"),
        (np.arange(1, 257).reshape(16, 4, 4), (AIR_STATE, *(f"mod:b{n}" for n in range(256))), "256 block states.*255"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(blocks: np.ndarray, palette: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        vox.write(Structure(blocks.astype(np.uint16), palette))


def test_255_block_states_fit_and_unused_ones_do_not_count() -> None:
    palette = (AIR_STATE, *(f"mod:b{number}" for number in range(300)))
    structure = Structure(np.arange(46, 301, dtype=np.uint16).reshape(5, 3, 17), palette)
    assert (colours(vox.read(vox.write(structure), LIMITS)) == colours(structure)).all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "begins with b''"),
        (b"PNG \x96\0\0\0MAIN\0\0\0\0\0\0\0\0", "begins with b'PNG '"),
        (b"VOX \x96\0\0\0", "without its MAIN"),
        (file_of(), "0 models with 0 sizes"),
        (file_of(model((1, 1, 1), []), model((1, 1, 1), [])), "2 models with 2 sizes"),
        (file_of(model((0, 1, 1), [])), "0x1x1"),
        (file_of(model((-1, 1, 1), [])), "-1x1x1"),
        (file_of(model((20_000, 20_000, 20_000), [])), "8,000,000,000,000"),
        (file_of(model((2, 2, 2), [(2, 0, 0, 1)])), r"\[2, 0, 0\] lies outside"),
        (file_of(model((2, 2, 2), [(1, 1, 1, 0)])), r"\[1, 1, 1\] has colour 0"),
        (file_of(chunk(b"SIZE", b"\1\0\0\0"), chunk(b"XYZI", b"\0\0\0\0")), "SIZE chunk of 4 bytes"),
        (file_of(chunk(b"SIZE", struct.pack("<3i", 1, 1, 1)), chunk(b"XYZI", b"\xff\xff\xff\x7f")), "2,147,483,647"),
        (file_of(chunk(b"SIZE", struct.pack("<3i", 1, 1, 1)), chunk(b"XYZI", b"\xff\xff\xff\xff")), "-1 voxels"),
        (file_of(model((1, 1, 1), []), chunk(b"RGBA", b"\0" * 100)), "RGBA chunk of 100 bytes"),
        (file_of(b"SIZE" + struct.pack("<2i", -5, 0)), "middle of chunk b'SIZE'"),
        (file_of(b"SIZE" + struct.pack("<2i", 12, 2**31 - 1)), "middle of chunk b'SIZE'"),
    ],
)
def test_bad_files_are_refused_with_the_reason(data: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        vox.read(data, LIMITS)


def test_a_cut_off_file_is_refused_wherever_it_ends() -> None:
    data = vox.write(Structure(np.ones((2, 3, 4), np.uint16), PALETTE), title="oak")
    for length in range(len(data)):
        with pytest.raises(BadInput):
            vox.read(data[:length], LIMITS)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_never_end_in_anything_but_a_reason(data: st.DataObject) -> None:
    whole = bytearray(vox.write(Structure(np.ones((2, 3, 4), np.uint16), PALETTE), title="oak"))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, 400))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadInput):
        vox.read(bytes(whole), LIMITS)


def test_limits_are_those_that_are_given() -> None:
    data = vox.write(Structure(np.ones((2, 3, 4), np.uint16), PALETTE))
    with pytest.raises(BadInput, match="24 voxels"):
        vox.read(data, Limits(max_voxels=23))
    assert vox.read(data, Limits(max_voxels=24)).solid.all()


def test_a_huge_tree_is_written_and_read_in_a_moment() -> None:
    structure = Structure(np.random.default_rng(0).integers(0, 5, (64, 24, 24)).astype(np.uint16), PALETTE)
    started = time.perf_counter()
    vox.read(vox.write(structure), LIMITS)
    assert time.perf_counter() - started < 0.6
