"""Reads and writes PNG files with 16 bits per channel, of which Pillow keeps only 8 where there is colour.

Source: W3C, Portable Network Graphics (PNG) Specification, third edition: chunks (5), filters (9), Adam7 (8.1).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vernissage.core.errors import RejectedImage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
"""Colour type of the header -> samples per pixel: gray, RGB, gray with alpha, RGB with alpha."""

_NONE, _SUB, _UP, _AVERAGE, _PAETH = range(5)
# Rows that are unfiltered side by side: more make fewer and larger numpy calls, but take more memory.
_BAND_ROWS = 1024
# (first row, first column, row step, column step) of the seven passes of an interlaced picture.
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


@dataclass(frozen=True)
class Header:
    """The first chunk of a PNG file: size in pixels, bits per sample, colour type, interlaced or not."""

    width: int
    height: int
    depth: int
    colour_type: int
    interlaced: bool


def read_header(data: bytes) -> Header | None:
    """Return what the header of a PNG file says; None where `data` (its first 29 bytes or more) is no PNG.

    Raises:
        RejectedImage: The header is damaged.
    """
    if not data.startswith(SIGNATURE):
        return None
    if len(data) < 29 or data[12:16] != b"IHDR":
        raise RejectedImage("damaged PNG: no header")
    width, height, depth, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    if width == 0 or height == 0:
        raise RejectedImage("damaged PNG: no pixels")
    return Header(width, height, depth, colour_type, bool(interlace))


def decode(data: bytes) -> NDArray[np.uint16]:
    """Return the samples of a PNG file of 16 bits as (H, W, 1 to 4) uint16.

    Raises:
        RejectedImage: The file is damaged, truncated, or has another depth.
    """
    header = read_header(data)
    if header is None or header.depth != 16 or header.colour_type not in CHANNELS:
        raise RejectedImage("not a PNG with 16 bits per channel")
    channels = CHANNELS[header.colour_type]
    filtered = b"".join(body for name, body in _chunks(data) if name == b"IDAT")
    passes = _ADAM7 if header.interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(header.height - p[0]) // p[2]), -(-(header.width - p[1]) // p[3])) for p in passes]
    raw = _inflate(filtered, sum(h * (1 + w * channels * 2) for h, w in sizes if h > 0 and w > 0))
    picture = np.zeros((header.height, header.width, channels), np.uint16)
    offset = 0
    for (row, column, row_step, column_step), (height, width) in zip(passes, sizes, strict=True):
        if height <= 0 or width <= 0:
            continue
        length = height * (1 + width * channels * 2)
        lines = np.frombuffer(raw, np.uint8, length, offset).reshape(height, -1)
        samples = _unfilter(lines, bpp=channels * 2).view(">u2").reshape(height, width, channels)
        picture[row::row_step, column::column_step] = samples
        offset += length
    return picture


def encode(
    samples: NDArray[np.uint16], *, icc: bytes | None = None, exif: bytes | None = None, level: int = 1
) -> bytes:
    """Return (H, W, 1 to 4) uint16 samples as the bytes of a PNG file.

    Args:
        samples: Gray, gray with alpha, RGB, or RGB with alpha.
        icc: Colour profile to embed.
        exif: EXIF block, with or without its `Exif` prefix.
        level: zlib's compression level; 6 takes four times as long as 1 and saves a twentieth of a photo.
    """
    height, width, channels = samples.shape
    colour_type = {count: number for number, count in CHANNELS.items()}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = [_chunk(b"IHDR", header)]
    if icc is not None:
        chunks.append(_chunk(b"iCCP", b"icc\0\0" + zlib.compress(icc, level)))
    if exif is not None:
        chunks.append(_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    lines = samples.astype(">u2").view(np.uint8).reshape(height, -1)
    chunks.append(_chunk(b"IDAT", zlib.compress(_filter(lines, bpp=channels * 2).tobytes(), level)))
    return SIGNATURE + b"".join(chunks) + _chunk(b"IEND", b"")


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset = len(SIGNATURE)
    while True:
        if offset + 12 > len(data):
            raise RejectedImage("truncated PNG: the end mark is missing")
        (length,) = struct.unpack_from(">I", data, offset)
        name, body = data[offset + 4 : offset + 8], data[offset + 8 : offset + 8 + length]
        end = offset + 12 + length
        if end > len(data):
            raise RejectedImage("truncated PNG: the file ends within a chunk")
        if zlib.crc32(name + body) != struct.unpack_from(">I", data, end - 4)[0]:
            raise RejectedImage(f"damaged PNG: wrong checksum in chunk {name!r}")
        if name == b"IEND":
            return
        yield name, body
        offset = end


def _inflate(data: bytes, expected: int) -> bytes:
    # The limit keeps a small file from unpacking into more than its header promised.
    try:
        raw = zlib.decompressobj().decompress(data, expected)
    except zlib.error as error:
        raise RejectedImage(f"damaged PNG: {error}") from error
    if len(raw) < expected:
        raise RejectedImage("truncated PNG: fewer pixels than the header promises")
    return raw


def _unfilter(lines: NDArray[np.uint8], bpp: int) -> NDArray[np.uint8]:
    """Return (H, row bytes) from (H, 1 + row bytes), undoing the filter that the first byte of each row names."""
    types, coded = lines[:, 0], lines[:, 1:].reshape(len(lines), -1, bpp)
    if types.max() > _PAETH:
        raise RejectedImage(f"damaged PNG: filter {types.max()} is unknown")
    if types.max() <= _UP:
        return _unfilter_rows(types, coded)
    plain = np.empty_like(coded)
    above = np.zeros(coded.shape[1:], np.uint8)
    for start in range(0, len(coded), _BAND_ROWS):
        band = slice(start, start + _BAND_ROWS)
        plain[band] = _unfilter_band(types[band], coded[band], above)
        above = plain[band][-1]
    return plain.reshape(len(lines), -1)


def _unfilter_rows(types: NDArray[np.uint8], coded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    plain = coded.copy()
    for row, kind in enumerate(types):
        if kind == _SUB:
            np.cumsum(coded[row], axis=0, dtype=np.uint8, out=plain[row])
        elif kind == _UP and row > 0:
            plain[row] += plain[row - 1]
    return plain.reshape(len(coded), -1)


def _unfilter_band(types: NDArray[np.uint8], coded: NDArray[np.uint8], above: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # A pixel needs its left, upper and upper left neighbours, so all pixels of one anti-diagonal are independent of
    # each other. Rows are shifted so that a diagonal lies contiguous: skewed[x + y + 2, y + 1] is pixel (y, x).
    height, width, bpp = coded.shape
    skewed = np.zeros((height + width + 1, height + 1, bpp), np.uint8)
    skewed[1 : width + 1, 0] = above
    for row in range(height):
        skewed[row + 2 : row + 2 + width, row + 1] = coded[row]
    kind = types[:, None]
    for diagonal in range(height + width - 1):
        low, high = max(0, diagonal - width + 1), min(height, diagonal + 1)
        left = skewed[diagonal + 1, low + 1 : high + 1]
        up = skewed[diagonal + 1, low:high]
        corner = skewed[diagonal, low:high]
        skewed[diagonal + 2, low + 1 : high + 1] += _predict(kind[low:high], left, up, corner)
    return np.stack([skewed[row + 2 : row + 2 + width, row + 1] for row in range(height)])


def _predict(
    kind: NDArray[np.uint8], left: NDArray[np.uint8], up: NDArray[np.uint8], corner: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    a, b, c = left.astype(np.int16), up.astype(np.int16), corner.astype(np.int16)
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    paeth = np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))
    zero = np.zeros_like(a)
    return np.choose(kind, [zero, a, b, (a + b) >> 1, paeth]).astype(np.uint8)


def _filter(lines: NDArray[np.uint8], bpp: int) -> NDArray[np.uint8]:
    # Of the two filters that are quick to undo, each row takes the one with the smaller sum of differences.
    sub, up = lines.copy(), lines.copy()
    sub[:, bpp:] -= lines[:, :-bpp]
    up[1:] -= lines[:-1]
    cost_sub, cost_up = (np.abs(part.view(np.int8).astype(np.int16)).sum(axis=1) for part in (sub, up))
    take_up = (cost_up < cost_sub)[:, None]
    types = np.where(take_up, _UP, _SUB).astype(np.uint8)
    return np.concatenate([types, np.where(take_up, up, sub)], axis=1)
