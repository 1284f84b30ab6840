"""NBT from files that nobody vouches for."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib
from contextlib import suppress

import nbtlib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.formats.limits import Limits
from vernissage.sculptor.domain.formats.nbt import field, read_nbt, unpack, write_nbt
from vernissage.sculptor.domain.sizes import Size

LIMITS = Limits()
ROOT = b"\x0a\x00\x00"
END = b"\x00"

SAMPLE = nbtlib.Compound(
    {
        "byte": nbtlib.Byte(-3),
        "short": nbtlib.Short(300),
        "long": nbtlib.Long(-(2**60)),
        "double": nbtlib.Double(0.5),
        "text": nbtlib.String("Bäume"),
        "bytes": nbtlib.ByteArray([1, -2, 3]),
        "longs": nbtlib.LongArray([2**40]),
        "numbers": nbtlib.List[nbtlib.Int]([1, 2, 3]),
        "nothing": nbtlib.List([]),
        "lists": nbtlib.List([nbtlib.List[nbtlib.Int]([1]), nbtlib.List[nbtlib.String](["a"])]),
        "inner": nbtlib.Compound({"deeper": nbtlib.List[nbtlib.Compound]([{"a": nbtlib.Int(1)}, {}])}),
    }
)


def named(tag: int, payload: bytes) -> bytes:
    """Return a root compound that holds one tag with the name `a`."""
    return ROOT + bytes([tag]) + b"\x00\x01a" + payload + END


def test_what_is_written_is_read() -> None:
    written = write_nbt(SAMPLE, root_name="Tree")
    found = read_nbt(written, LIMITS)
    assert dict(found) == dict(SAMPLE)
    assert found.root_name == "Tree"
    assert write_nbt(SAMPLE, root_name="Tree") == written


@pytest.mark.parametrize("wrap", [bytes, gzip.compress, zlib.compress, lambda raw: zlib.compress(raw, 0)])
def test_every_wrapper_is_found_out(wrap: object) -> None:
    raw = unpack(write_nbt(SAMPLE), LIMITS)
    assert callable(wrap)
    assert dict(read_nbt(wrap(raw), LIMITS)) == dict(SAMPLE)


def test_no_cut_file_passes() -> None:
    raw = unpack(write_nbt(SAMPLE), LIMITS)
    for length in range(len(raw)):
        with pytest.raises(BadInput):
            read_nbt(raw[:length], LIMITS)
    packed = gzip.compress(raw)
    for length in range(len(packed)):
        with pytest.raises(BadInput):
            read_nbt(packed[:length], LIMITS)


def test_a_cut_file_says_so() -> None:
    packed = write_nbt(SAMPLE)
    with pytest.raises(BadInput, match="ends in the middle of the compressed data"):
        read_nbt(packed[: len(packed) // 2], LIMITS)
    with pytest.raises(BadInput, match="ends in the middle of the name"):
        read_nbt(unpack(packed, LIMITS)[:40], LIMITS)


def test_a_bomb_is_refused_before_it_unpacks() -> None:
    bomb = zlib.compress(bytes(64 * 2**20))
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match="more than 1,048,576 bytes"):
            read_nbt(bomb, Limits(max_bytes=2**20))
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty file"),
        (b"PK\x03\x04 a zip file", "begins with tag 80"),
        (b"\x1f\x8b\x08 no gzip", "damaged compressed data"),
        (named(1, b""), "ends in the middle"),
        (named(13, b"\x00"), "unknown NBT tag 13"),
        (named(7, struct.pack(">i", 2**31 - 1)), "ends in the middle of an array"),
        (named(12, struct.pack(">i", 2**30)), "ends in the middle of an array"),
        (named(11, struct.pack(">i", -1)), "length -1"),
        (named(9, b"\x03" + struct.pack(">i", 2**31 - 1)), "ends in the middle of a list"),
        (named(9, b"\x0a" + struct.pack(">i", 2**31 - 1)), "ends in the middle"),
        (named(9, b"\x00" + struct.pack(">i", 2**31 - 1)), "without a type"),
        (named(9, b"\x63" + struct.pack(">i", 3)), "list of unknown NBT tag 99"),
        (named(9, b"\x0d" + struct.pack(">i", 0)), "list of unknown NBT tag 13"),
        (named(8, b"\xff\xffshort"), "ends in the middle of a string"),
    ],
)
def test_a_hostile_file_is_refused_with_a_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        read_nbt(raw, LIMITS)


def test_depth_is_limited() -> None:
    compounds = ROOT + b"\x0a\x00\x01a" * 100_000
    lists = named(9, b"\x09\x00\x00\x00\x01" * 100_000)
    for raw in (compounds, lists):
        with pytest.raises(BadInput, match="nested deeper than 64"):
            read_nbt(raw, LIMITS)


def test_depth_within_the_limit_passes() -> None:
    depth = LIMITS.max_depth
    assert read_nbt(ROOT + b"\x0a\x00\x01a" * (depth - 1) + END * depth, LIMITS)
    with pytest.raises(BadInput, match="nested deeper"):
        read_nbt(ROOT + b"\x0a\x00\x01a" * depth + END * (depth + 1), LIMITS)


@pytest.mark.parametrize("kind", [1, 8, 9, 10])
def test_the_number_of_tags_is_limited(kind: int) -> None:
    empty = {1: b"\x00", 8: b"\x00\x00", 9: b"\x00" * 5, 10: END}[kind]
    raw = named(9, bytes([kind]) + struct.pack(">i", 1000) + empty * 1000)
    assert len(read_nbt(raw, Limits(max_tags=1003))["a"]) == 1000
    with pytest.raises(BadInput, match="more than 900 NBT tags"):
        read_nbt(raw, Limits(max_tags=900))


def read_or_refused(raw: bytes) -> bool:
    """Whether it is read; anything but a refusal goes through to the test."""
    with suppress(BadInput):
        return isinstance(read_nbt(raw, LIMITS), dict)
    return False


@given(st.binary(max_size=200))
def test_noise_is_read_or_refused(noise: bytes) -> None:
    assert read_or_refused(ROOT + noise) == read_or_refused(zlib.compress(ROOT + noise))
    assert not read_or_refused(b"\x0b" + noise)


@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(place: int, value: int) -> None:
    raw = bytearray(unpack(write_nbt(SAMPLE), LIMITS))
    raw[place % len(raw)] = value
    assert read_or_refused(bytes(raw) + bytes(100)) or not read_or_refused(bytes(raw))


def test_a_field_is_there_and_of_its_kind() -> None:
    assert field(SAMPLE, "short", nbtlib.Short) == 300
    with pytest.raises(BadInput, match="absent is missing"):
        field(SAMPLE, "absent", nbtlib.Short)
    with pytest.raises(BadInput, match="short is of type Short: expected Compound"):
        field(SAMPLE, "short", nbtlib.Compound)


@pytest.mark.parametrize("size", [Size(0, 1, 1), Size(1, -1, 1), Size(200, 200, 200), Size(2**31, 2**31, 1)])
def test_sizes_beyond_the_limits_are_refused(size: Size) -> None:
    with pytest.raises(BadInput, match=f"size {size}"):
        LIMITS.check_size(size)


def test_palettes_beyond_the_limits_are_refused() -> None:
    assert LIMITS.check_palette(65_536) == 65_536
    with pytest.raises(BadInput, match="65,537 block states"):
        LIMITS.check_palette(65_537)
