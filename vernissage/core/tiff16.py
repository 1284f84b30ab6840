"""Reads and writes TIFF files with 16 bits or more per channel, of which Pillow keeps only 8 where there is colour.

Source: TIFF revision 6.0; DNG specification 1.7 (tag 50706).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from vernissage.core.decoders import check_size, unpack_tiff_segment
from vernissage.core.errors import RejectedImage
from vernissage.core.levels import as_floats

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from vernissage.core.levels import Samples

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_TAG_NEW_SUBFILE_TYPE, _TAG_ORIENTATION, _TAG_XMP, _TAG_EXIF, _TAG_DNG_VERSION = 254, 274, 700, 34665, 50706
_UNSIGNED, _FLOAT = 1, 3
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_ASSOCIATED_ALPHA = 1
# Editors keep a few selections as further channels; thousands are a damaged header that would fill the memory.
_MOST_SAMPLES = 16
_NO_PREDICTOR, _HORIZONTAL_PREDICTOR = 1, 2
# LZW, PackBits and Zstandard, which tifffile leaves to a large optional library and Pillow brings along in libtiff.
_LIBTIFF_PACKINGS = (5, 32773, 50000)
_TEXT_TAGS = {"ImageDescription": 270, "Make": 271, "Model": 272, "DateTime": 306, "Artist": 315, "Copyright": 33432}


@dataclass(frozen=True)
class DeepTiff:
    """A TIFF of more than 8 bits per channel.

    Attributes:
        colour: (H, W, 1 or 3) uint16 levels where the file has such, else float32 in [0, 1]; as stored: not turned
            upright, not converted to sRGB.
        alpha: (H, W) float32 in [0, 1], or None.
        icc: Its colour profile, or None.
        orientation: EXIF orientation, 1 to 8.
        has_exif: Whether there is an EXIF block, which this module leaves to Pillow.
        pages: Pages in the file.
        notes: What was done to the values.
    """

    colour: Samples
    alpha: NDArray[np.float32] | None
    icc: bytes | None
    orientation: int
    has_exif: bool
    pages: int
    notes: tuple[str, ...]


def read(path: Path, max_pixels: int) -> DeepTiff | None:
    """Return the first page of a TIFF of 16 bits or more; None where it is shallower and Pillow loses nothing.

    Raises:
        RejectedImage: Too large, truncated, a camera's raw file, or stored in a way that is not read here.
    """
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        width, height = int(page.imagewidth), int(page.imagelength)
        check_size(width, height, max_pixels)
        if page.tags.get(_TAG_DNG_VERSION) is not None or _is_thumbnail(page):
            raise RejectedImage("a camera's raw file: develop it to TIFF, PNG or JPEG first")
        if max(np.atleast_1d(page.bitspersample)) <= 8:
            return None
        _check_complete(page, file.filehandle.size)
        if page.samplesperpixel > _MOST_SAMPLES:
            raise RejectedImage(f"TIFF with {page.samplesperpixel} channels: expected at most {_MOST_SAMPLES}")
        stored = _decode(page) if page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) else None
        if stored is None:
            return None
        samples, notes = _as_samples(stored, int(page.sampleformat), page.photometric == _WHITE_IS_ZERO)
        colours = 3 if page.photometric == _RGB else 1
        colour, alpha = samples[..., :colours], None
        if samples.shape[-1] > colours and page.extrasamples:
            alpha = as_floats(samples[..., colours])
            if page.extrasamples[0] == _ASSOCIATED_ALPHA:
                colour = np.clip(as_floats(colour) / np.maximum(alpha, 1e-6)[..., None], 0.0, 1.0)
        tag = page.tags.get(_TAG_ORIENTATION)
        return DeepTiff(
            colour=np.ascontiguousarray(colour),
            alpha=alpha,
            icc=page.iccprofile,
            orientation=int(tag.value) if tag is not None and tag.value in range(1, 9) else 1,
            has_exif=page.tags.get(_TAG_EXIF) is not None,
            pages=len(file.pages),
            notes=notes,
        )


def write(
    path: Path, samples: NDArray[np.uint16], *, icc: bytes | None, xmp: bytes | None, texts: dict[str, str]
) -> None:
    """Write (H, W, 3 or 4) uint16 RGB or RGB with alpha, losslessly packed.

    Args:
        path: Where to.
        samples: The picture.
        icc: Colour profile to embed.
        xmp: XMP packet to embed.
        texts: `ImageDescription`, `Make`, `Model`, `DateTime`, `Artist`, `Copyright`; others are left out.
    """
    tags: list[tuple[int, str, int, str | bytes, bool]] = [
        (_TEXT_TAGS[name], "s", 0, text, True) for name, text in texts.items() if name in _TEXT_TAGS
    ]
    if xmp is not None:
        tags.append((_TAG_XMP, "B", len(xmp), xmp, True))
    tifffile.imwrite(
        path,
        samples,
        photometric="rgb",
        compression="zlib",
        compressionargs={"level": 1},
        predictor=True,
        extrasamples=["unassalpha"] if samples.shape[-1] == 4 else None,
        iccprofile=icc,
        extratags=tags,
        metadata=None,
        software=False,
    )


def _is_thumbnail(page: Any) -> bool:
    # Raw formats built on TIFF keep a small preview in front; taking that for the photo would be a silent loss.
    tag = page.tags.get(_TAG_NEW_SUBFILE_TYPE)
    return tag is not None and bool(int(tag.value) & 1)


def _check_complete(page: Any, file_size: int) -> None:
    ends = (offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False))
    if max(ends, default=0) > file_size:
        raise RejectedImage("truncated TIFF: it promises more data than the file has")


def _decode(page: Any) -> NDArray[Any] | None:
    """Return (H, W, samples) as stored; None where neither tifffile nor libtiff unpacks it."""
    height, width, planar = page.imagelength, page.imagewidth, page.planarconfig == 2 and page.samplesperpixel > 1
    if _known_to_tifffile(page):
        array = page.asarray()
        array = np.moveaxis(array, 0, -1) if planar else array
        return np.asarray(array).reshape(height, width, -1)
    predicted = page.predictor == _HORIZONTAL_PREDICTOR
    if page.compression not in _LIBTIFF_PACKINGS or not (predicted or page.predictor == _NO_PREDICTOR):
        return None
    planes, samples = (page.samplesperpixel, 1) if planar else (1, page.samplesperpixel)
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, height), width)
    down, across = -(-height // rows), -(-width // columns)
    picture = np.zeros((down * rows, across * columns, planes * samples), page.dtype)
    for index, packed in enumerate(_segments(page, planes * down * across)):
        plane, row, column = (int(part) for part in np.unravel_index(index, (planes, down, across)))
        top, left = row * rows, column * columns
        length = rows if page.is_tiled else min(rows, height - top)
        raw = unpack_tiff_segment(packed, int(page.compression), length, columns * samples * page.dtype.itemsize)
        segment = raw.view(page.dtype.newbyteorder(page.parent.byteorder)).reshape(length, columns, samples)
        if predicted:
            segment = np.cumsum(segment, axis=1, dtype=page.dtype)
        picture[top : top + length, left : left + columns, plane * samples : (plane + 1) * samples] = segment
    return picture[:height, :width]


def _segments(page: Any, count: int) -> Iterator[bytes]:
    if len(page.dataoffsets) != count or len(page.databytecounts) != count:
        raise RejectedImage(f"damaged TIFF: {len(page.dataoffsets)} strips or tiles, expected {count}")
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        page.parent.filehandle.seek(offset)
        yield page.parent.filehandle.read(size)


def _known_to_tifffile(page: Any) -> bool:
    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression]
        tifffile.TIFF.UNPREDICTORS[page.predictor]
    except (KeyError, ImportError):
        return False
    return True


def _as_samples(stored: NDArray[Any], sample_format: int, inverted: bool) -> tuple[Samples, tuple[str, ...]]:
    if sample_format == _UNSIGNED and stored.dtype.kind == "u":
        notes: tuple[str, ...] = (f"{8 * stored.dtype.itemsize}-bit",)
        if stored.dtype.itemsize == 2:
            samples = stored.astype(np.uint16, copy=False)
            return (~samples if inverted else samples), notes
        unit = (stored / np.float64(np.iinfo(stored.dtype).max)).astype(np.float32)
    elif sample_format == _FLOAT and stored.dtype.kind == "f":
        unit, notes = _clip_floats(stored)
    else:
        raise RejectedImage(f"TIFF with {stored.dtype} samples: expected unsigned whole numbers or floats")
    return (1 - unit if inverted else unit), notes


def _clip_floats(samples: NDArray[Any]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    if not np.isfinite(samples).all():
        raise RejectedImage("float TIFF with nan or infinity among its samples")
    low, high = float(samples.min()), float(samples.max())
    # Some highlights above 1 are a photo; a photo mostly above 1 is in other units, and clipped it would be all white.
    if float(np.median(samples)) > 1 or high <= 0 < -low:
        raise RejectedImage(f"float TIFF with samples from {low:g} to {high:g}: expected 0 to 1")
    notes = ("float",) if low >= 0 and high <= 1 else ("float", "clipped to 0..1")
    return np.clip(samples, 0.0, 1.0).astype(np.float32), notes
