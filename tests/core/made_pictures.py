"""Pictures and colour profiles for the tests of files, made from nothing."""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageCms

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

# D50-adapted primaries as columns, from the profiles that Adobe and Apple publish.
ADOBE_RGB = [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
DISPLAY_P3 = [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]


def photo_array(height: int = 24, width: int = 36) -> np.ndarray:
    """Smooth colours, so that JPEG changes little; all four corners differ."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    return np.stack([40 + 180 * x, 60 + 150 * y, 220 - 120 * (x + y) / 2], axis=-1).astype(np.uint8)


def as_file(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def matrix_profile(matrix: list[list[float]], gamma: float, name: str = "Test RGB") -> bytes:
    """An ICC v2 profile of one gamma curve and a matrix, byte by byte after ICC.1:2001-04."""

    def xyz(values: list[float]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    columns = [[row[index] for row in matrix] for index in range(3)]
    text = name.encode() + b"\0"
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = [
        (b"desc", b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)),
        (b"wtpt", xyz([0.9642, 1.0, 0.8249])),
        (b"cprt", b"text\0\0\0\0none\0"),
        *((b"%cXYZ" % letter, xyz(column)) for letter, column in zip(b"rgb", columns, strict=True)),
        *((b"%cTRC" % letter, curve) for letter in b"rgb"),
    ]
    return profile_of(b"RGB ", tags)


def gray_profile(gamma: float) -> bytes:
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    return profile_of(
        b"GRAY", [(b"desc", b"desc" + bytes(4) + struct.pack(">I", 5) + b"gray\0" + bytes(78)), (b"kTRC", curve)]
    )


def profile_of(space: bytes, tags: list[tuple[bytes, bytes]]) -> bytes:
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags:
        padded = data + bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset, len(data))
        body, offset = body + padded, offset + len(padded)
    head = bytearray(128)
    head[0:4], head[8:12] = struct.pack(">I", offset), b"\x02\x40\0\0"
    head[12:24], head[36:40] = b"mntr" + space + b"XYZ ", b"acsp"
    head[68:80] = struct.pack(">iii", round(0.9642 * 65536), 65536, round(0.8249 * 65536))
    return bytes(head) + struct.pack(">I", len(tags)) + table + body


def deep_array(channels: int, height: int = 16, width: int = 400) -> np.ndarray:
    count = height * width * channels
    return np.linspace(0, 65535, count).astype(np.uint16).reshape(height, width, channels)


def cmyk_profile() -> bytes:
    """An output profile whose only table maps all inks to Lab (50, 0, 0): lut8Type of ICC.1:2001-04, 6.5.8."""
    identity = b"".join(struct.pack(">i", 65536 if index in (0, 4, 8) else 0) for index in range(9))
    ramp = bytes(range(256))
    table = bytes([128, 128, 128]) * 2**4
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + table + ramp * 3
    name = b"test inks\0"
    tags = [
        (b"desc", b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78)),
        *((tag, lut) for tag in (b"A2B0", b"A2B1", b"A2B2")),
    ]
    profile = bytearray(profile_of(b"CMYK", tags))
    profile[12:16], profile[20:24] = b"prtr", b"Lab "
    return bytes(profile)


@cache  # LittleCMS writes the time into it
def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def table_profile() -> bytes:
    """An RGB profile of tables only, there and back; its colours are odd: lut8Type of ICC.1:2001-04, 6.5.8."""
    identity = b"".join(struct.pack(">i", 65536 if index in (0, 4, 8) else 0) for index in range(9))
    ramp = bytes(range(256))
    corners = bytes(value for r in (0, 255) for g in (0, 255) for b in (0, 255) for value in (r, g, b))
    lut = b"mft1" + bytes(4) + bytes([3, 3, 2, 0]) + identity + ramp * 3 + corners + ramp * 3
    name = b"test tables\0"
    tags = [
        (b"desc", b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78)),
        *((tag, lut) for tag in (b"A2B0", b"A2B1", b"A2B2", b"B2A0", b"B2A1", b"B2A2")),
    ]
    profile = bytearray(profile_of(b"RGB ", tags))
    profile[12:16], profile[20:24] = b"prtr", b"Lab "
    return bytes(profile)
