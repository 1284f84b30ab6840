"""Small structures and files of them for the tests of this room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vernissage.sculptor.domain.formats import write_structure
from vernissage.sculptor.domain.structure import Structure

if TYPE_CHECKING:
    from pathlib import Path

LOG, LEAVES, STONE = "minecraft:oak_log[axis=y]", "minecraft:oak_leaves", "minecraft:diamond_block"


def stick(height: int = 4, *, log: str = LOG, leaves: str = LEAVES, tip: int = 1) -> Structure:
    """A trunk with a leaf on top of it and a row of leaves to one side: no symmetry at all."""
    blocks = np.zeros((height + 1, 2, 3 + tip), np.uint16)
    blocks[:height, 0, 1] = 1
    blocks[height, 0, 1 : 3 + tip] = 2
    blocks[height, 1, 1] = 2
    return Structure(blocks, ("minecraft:air", log, leaves))


def turned(structure: Structure, turns: int, *, mirrored: bool = False) -> Structure:
    blocks = structure.blocks[:, :, ::-1] if mirrored else structure.blocks
    return Structure(np.ascontiguousarray(np.rot90(blocks, turns, axes=(1, 2))), structure.palette)


def stone(side: int = 2) -> Structure:
    return Structure(np.ones((side, side, side), np.uint16), ("minecraft:air", STONE))


def write_all(folder: Path, structures: dict[str, Structure]) -> Path:
    for name, structure in structures.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_structure(structure, path)
    return folder
