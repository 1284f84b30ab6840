"""The 16-bit PNG codec against the specification: all filters, interlacing, damage, and another decoder as witness."""

from __future__ import annotations

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from vernissage.core import png16
from vernissage.core.errors import RejectedImage

RNG = np.random.default_rng(11)
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
# PNG specification, 8.1: (first column, first row, column step, row step).
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def slow_filter(samples: np.ndarray, types: np.ndarray) -> bytes:
    """Filter byte by byte as PNG specification 9.2 states it."""
    height, width, channels = samples.shape
    plain = samples.astype(">u2").view(np.uint8).reshape(height, width, channels * 2).astype(int)
    out = bytearray()
    for y in range(height):
        out.append(types[y])
        for x in range(width):
            for k in range(channels * 2):
                a = plain[y, x - 1, k] if x else 0
                b = plain[y - 1, x, k] if y else 0
                c = plain[y - 1, x - 1, k] if x and y else 0
                out.append((plain[y, x, k] - [0, a, b, (a + b) // 2, paeth(a, b, c)][types[y]]) % 256)
    return bytes(out)


def paeth(a: int, b: int, c: int) -> int:
    p = a + b - c
    return min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]


def png(samples: np.ndarray, lines: bytes, *, interlaced: bool = False, pieces: int = 1) -> bytes:
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, interlaced)
    packed = zlib.compress(lines)
    cuts = [len(packed) * part // pieces for part in range(pieces + 1)]
    body = b"".join(png16._chunk(b"IDAT", packed[a:b]) for a, b in itertools.pairwise(cuts))
    return png16.SIGNATURE + png16._chunk(b"IHDR", header) + body + png16._chunk(b"IEND", b"")


@settings(max_examples=40, deadline=None)
@given(
    samples=hnp.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))),
    data=st.data(),
)
def test_every_mixture_of_filters_is_undone(samples: np.ndarray, data: st.DataObject) -> None:
    types = data.draw(hnp.arrays(np.uint8, len(samples), elements=st.integers(0, 4)))
    assert np.array_equal(png16.decode(png(samples, slow_filter(samples, types), pieces=3)), samples)


def test_rows_beyond_one_band(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png16, "_BAND_ROWS", 4)
    samples = RNG.integers(0, 65536, (19, 7, 3), dtype=np.uint16)
    assert np.array_equal(png16.decode(png(samples, slow_filter(samples, RNG.integers(0, 5, 19)))), samples)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 1), (1, 5), (9, 9), (17, 13)])
@pytest.mark.parametrize("channels", [1, 3])
def test_interlaced_pictures(size: tuple[int, int], channels: int) -> None:
    samples = RNG.integers(0, 65536, (*size, channels), dtype=np.uint16)
    lines = b""
    for column, row, column_step, row_step in PASSES:
        part = samples[row::row_step, column::column_step]
        if part.size:
            lines += slow_filter(part, RNG.integers(0, 5, len(part)))
    data = png(samples, lines, interlaced=True)
    assert np.array_equal(png16.decode(data), samples)
    with Image.open(io.BytesIO(data)) as witness:
        witness.load()


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4))))
def test_round_trip(samples: np.ndarray) -> None:
    assert np.array_equal(png16.decode(png16.encode(samples)), samples)


def test_another_decoder_reads_what_we_write() -> None:
    gray = RNG.integers(0, 65536, (9, 12, 1), dtype=np.uint16)
    with Image.open(
        io.BytesIO(png16.encode(gray, icc=b"profile", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"))
    ) as witness:
        assert np.array_equal(np.asarray(witness), gray[..., 0])
        assert witness.info["icc_profile"] == b"profile"
    colour = RNG.integers(0, 65536, (9, 12, 3), dtype=np.uint16)
    with Image.open(io.BytesIO(png16.encode(colour))) as witness:
        assert np.array_equal(np.asarray(witness), colour >> 8)


def test_smooth_pictures_become_small() -> None:
    smooth = np.broadcast_to(np.arange(0, 60000, 100, dtype=np.uint16)[:, None, None], (600, 400, 3))
    assert len(png16.encode(np.ascontiguousarray(smooth))) < smooth.size * 2 / 100


def test_other_files_are_not_taken_for_ours() -> None:
    assert png16.read_header(b"\xff\xd8\xff") is None
    with pytest.raises(RejectedImage, match="not a PNG with 16 bits"):
        png16.decode(b"GIF89a")


@pytest.mark.parametrize(
    ("header", "text"),
    [((4, 0, 16, 2, 0, 0, 0), "no pixels"), ((0, 4, 16, 2, 0, 0, 0), "no pixels"), ((4, 4, 8, 2, 0, 0, 0), "16 bits")],
)
def test_odd_headers(header: tuple[int, ...], text: str) -> None:
    with pytest.raises(RejectedImage, match=text):
        png16.decode(png16.SIGNATURE + png16._chunk(b"IHDR", struct.pack(">IIBBBBB", *header)))


def test_each_kind_of_damage_is_named() -> None:
    samples = RNG.integers(0, 65536, (6, 6, 3), dtype=np.uint16)
    good = png16.encode(samples)
    assert np.array_equal(png16.decode(good), samples)
    for data, text in [
        (good[:20], "no header"),
        (good[:-12], "end mark is missing"),
        (good[:-30], "ends within a chunk"),
        (good[:60] + bytes([good[60] ^ 1]) + good[61:], "wrong checksum"),
        (png(samples, slow_filter(samples, np.zeros(6, int))[:-1]), "fewer pixels"),
        (png(samples, b"\x05" + bytes(36) + slow_filter(samples, np.zeros(6, int))[37:]), "filter 5 is unknown"),
    ]:
        with pytest.raises(RejectedImage, match=text):
            png16.decode(data)


def test_a_small_file_cannot_unpack_into_more_than_its_header_promises() -> None:
    samples = np.zeros((2, 2, 1), np.uint16)
    assert np.array_equal(png16.decode(png(samples, bytes(50_000_000))), samples)
