"""Reads and writes PNG files with 16 bits per channel, of which Pillow keeps only 8 where there is colour.

Source: W3C, Portable Network Graphics (PNG) Specification, third edition: chunks (5), filters (9), Adam7 (8.1).
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np

from vernissage.core.errors import RejectedImage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
"""Colour type of the header -> samples per pixel: gray, RGB, gray with alpha, RGB with alpha."""

_NONE, _SUB, _UP, _AVERAGE, _PAETH = range(5)
# Rows that are filtered and packed at a time: more make fewer and larger numpy calls, but take more memory.
_BAND_ROWS = 512
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
    chunks = _chunks(data)
    inflated = _Inflated(body for name, body in chunks if name == b"IDAT")
    picture = np.empty((header.height, header.width, channels), np.uint16)
    for row, column, row_step, column_step in _ADAM7 if header.interlaced else ((0, 0, 1, 1),):
        part = picture[row::row_step, column::column_step]
        if part.size:
            _decode_pass(inflated, part)
    # Damage after the last pixel is damage, too.
    inflated.drain()
    return picture


def write(
    file: IO[bytes],
    samples: NDArray[np.uint16],
    *,
    icc: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    level: int = 1,
) -> None:
    """Write (H, W, 1 to 4) uint16 samples as a PNG file.

    Args:
        file: Where to, opened for writing bytes.
        samples: Gray, gray with alpha, RGB, or RGB with alpha.
        icc: Colour profile to embed.
        exif: EXIF block, with or without its `Exif` prefix.
        xmp: XMP packet, UTF-8.
        level: zlib's compression level; 6 takes four times as long as 1 and saves a twentieth of a photo.
    """
    height, width, channels = samples.shape
    colour_type = {count: number for number, count in CHANNELS.items()}[channels]
    file.write(SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)))
    if icc is not None:
        file.write(_chunk(b"iCCP", b"icc\0\0" + zlib.compress(icc, level)))
    if exif is not None:
        file.write(_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    if xmp is not None:
        # Keyword, no compression, neither language nor translated keyword, text (XMP specification, part 3, 1.1.5).
        file.write(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    packer = zlib.compressobj(level)
    above = np.zeros((1, width * channels * 2), np.uint8)
    for start in range(0, height, _BAND_ROWS):
        lines = samples[start : start + _BAND_ROWS].astype(">u2").view(np.uint8).reshape(-1, above.shape[1])
        if packed := packer.compress(_filter(lines, above, bpp=channels * 2)):
            file.write(_chunk(b"IDAT", packed))
        above = lines[-1:]
    file.write(_chunk(b"IDAT", packer.flush()) + _chunk(b"IEND", b""))


def encode(samples: NDArray[np.uint16], *, icc: bytes | None = None, exif: bytes | None = None) -> bytes:
    """Return what `write` would write."""
    file = io.BytesIO()
    write(file, samples, icc=icc, exif=exif)
    return file.getvalue()


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


class _Inflated:
    """Unpacks the picture's data piece by piece, never more of it than is asked for.

    Thus a small file cannot fill the memory with more than its header promised.
    """

    def __init__(self, bodies: Iterator[bytes]) -> None:
        self._bodies, self._packed, self._unpacker = bodies, b"", zlib.decompressobj()

    def read(self, count: int) -> bytes:
        """Return that many bytes.

        Raises:
            RejectedImage: The data is damaged or shorter.
        """
        parts, missing = [], count
        while missing > 0:
            while not self._packed:
                self._packed = self._next_body()
            try:
                parts.append(self._unpacker.decompress(self._packed, missing))
            except zlib.error as error:
                raise RejectedImage(f"damaged PNG: {error}") from error
            missing -= len(parts[-1])
            self._packed = self._unpacker.unconsumed_tail
        return b"".join(parts)

    def _next_body(self) -> bytes:
        for body in self._bodies:
            return body
        raise RejectedImage("truncated PNG: fewer pixels than the header promises")

    def drain(self) -> None:
        """Check the rest of the file without unpacking it."""
        for _ in self._bodies:
            pass


def _decode_pass(inflated: _Inflated, part: NDArray[np.uint16]) -> None:
    height, width, channels = part.shape
    above = np.zeros((width, channels * 2), np.uint8)
    for start in range(0, height, _BAND_ROWS):
        rows = min(_BAND_ROWS, height - start)
        coded = np.frombuffer(inflated.read(rows * (1 + above.size)), np.uint8).reshape(rows, -1)
        plain = _unfilter(coded[:, 0], coded[:, 1:].reshape(rows, *above.shape), above)
        part[start : start + rows] = plain.reshape(rows, -1).view(">u2").reshape(rows, width, channels)
        above = plain[-1]


def _unfilter(types: NDArray[np.uint8], coded: NDArray[np.uint8], above: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo the filter that each row's type names: (n, W, bytes per pixel), with the plain row above the first."""
    if types.max() > _PAETH:
        raise RejectedImage(f"damaged PNG: filter {types.max()} is unknown")
    if types.max() > _UP:
        return _unfilter_band(types, coded, above)
    plain = coded.copy()
    for row, kind in enumerate(types):
        if kind == _SUB:
            np.cumsum(coded[row], axis=0, dtype=np.uint8, out=plain[row])
        elif kind == _UP:
            plain[row] += plain[row - 1] if row else above
    return plain


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


def _filter(lines: NDArray[np.uint8], above: NDArray[np.uint8], bpp: int) -> bytes:
    # Of the two filters that are quick to undo, each row takes the one with the smaller sum of differences.
    sub, up = lines.copy(), lines.copy()
    sub[:, bpp:] -= lines[:, :-bpp]
    up[:1] -= above
    up[1:] -= lines[:-1]
    cost_sub, cost_up = (np.abs(part.view(np.int8).astype(np.int16)).sum(axis=1) for part in (sub, up))
    take_up = (cost_up < cost_sub)[:, None]
    types = np.where(take_up, _UP, _SUB).astype(np.uint8)
    return np.concatenate([types, np.where(take_up, up, sub)], axis=1).tobytes()
