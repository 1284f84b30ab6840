"""Opens pictures in Pillow within our own limits: known formats only, sizes checked before anything is decoded."""

from __future__ import annotations

import io
import struct
import threading
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image

from vernissage.core.errors import RejectedImage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Formats that Pillow knows but that start other programs (EPS), have no signature, or hold no photos are left out.
FORMATS = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "AVIF")
_OPEN_LOCK = threading.Lock()


@contextmanager
def opened(file: IO[bytes]) -> Iterator[Image.Image]:
    """Yield the picture in an open file, header read but nothing decoded; the caller calls `check_size` first.

    Raises:
        PIL.UnidentifiedImageError: No known format.
    """
    # Pillow's own limit is a global that is too low here, and it belongs to others in this process too.
    with _OPEN_LOCK:
        Image.init()  # without it Pillow knows only the five commonest formats until it meets another
        formats = [name for name in FORMATS if name in Image.OPEN]
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Check what a header promises before anything is decoded.

    Raises:
        RejectedImage: No pixels, or more than `max_pixels`.
    """
    if width < 1 or height < 1:
        raise RejectedImage(f"no pixels: the header says {width} x {height}")
    if width * height > max_pixels:
        raise RejectedImage(
            f"too large: the header says {width} x {height}, {width * height:,} pixels; at most {max_pixels:,} pass"
        )


def unpack_tiff_segment(packed: bytes, compression: int, rows: int, row_bytes: int) -> NDArray[np.uint8]:
    """Return one packed strip or tile of a TIFF as (rows, row bytes), unpacked by the libtiff inside Pillow.

    Packing knows nothing of what the bytes mean, so they are handed over as a gray picture of 8 bits.
    """
    tags = [
        (256, row_bytes),
        (257, rows),
        (258, 8),
        (259, compression),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, rows),
        (279, len(packed)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    padding = bytes(len(packed) % 2)
    start = struct.pack("<I", 8 + len(packed) + len(padding))
    with opened(io.BytesIO(b"II*\0" + start + packed + padding + directory)) as image:
        return np.asarray(image, np.uint8)
