"""One name for a structure however it is turned about the vertical or mirrored."""

from __future__ import annotations

import hashlib

import numpy as np


def symmetry_key(grid: np.ndarray) -> str:
    """Name a role grid so that its quarter turns about the vertical, and their mirror images, have the same name.

    Args:
        grid: (Y, Z, X) uint8, cropped.

    Returns:
        32 hexadecimal digits of a hash; others have the same by an accident of one in 2^64 grids only.
    """
    images = [np.rot90(side, turns, axes=(1, 2)) for side in (grid, grid[:, :, ::-1]) for turns in range(4)]
    shape, content = min((image.shape, image.tobytes()) for image in images)
    return hashlib.sha256(repr(tuple(map(int, shape))).encode() + content).hexdigest()[:32]
