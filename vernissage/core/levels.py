"""Whole-number levels of 8 or 16 bits and floats in [0, 1]: one picture in either, rounded to the nearest level."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: Pixels as deep as their file: uint8 levels, uint16 levels, or float32 in [0, 1].
Samples: TypeAlias = NDArray[Any]


def to_uint8(array: Samples) -> NDArray[np.uint8]:
    """Return floats in [0, 1], or levels of 16 bits, as levels 0 to 255, rounded to the nearest and clipped.

    What is uint8 already comes back as it is, not copied.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        array = array / np.float32(65535)
    levels: NDArray[np.uint8] = (np.clip(array, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return levels


def to_uint16(array: Samples) -> NDArray[np.uint16]:
    """Return floats in [0, 1], or levels of 8 bits, as levels 0 to 65535, rounded to the nearest and clipped.

    What is uint16 already comes back as it is, not copied.
    """
    if array.dtype == np.uint16:
        return array
    if array.dtype == np.uint8:
        return array * np.uint16(257)
    levels: NDArray[np.uint16] = (np.clip(array, 0.0, 1.0) * 65535 + 0.5).astype(np.uint16)
    return levels


def as_floats(array: Samples) -> NDArray[np.float32]:
    """Return levels of 8 or 16 bits as float32 in [0, 1]; float32 comes back as it is, not copied."""
    if array.dtype == np.float32:
        return array
    floats: NDArray[np.float32] = array.astype(np.float32)
    if array.dtype.kind == "u":
        floats /= np.float32(np.iinfo(array.dtype).max)
    return floats


def strips(height: int, width: int, pixels: int) -> list[slice]:
    """Cut a picture into slices of whole rows, of about so many pixels each."""
    rows = max(1, pixels // width)
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]
