"""A block structure: a grid of indices into a palette of namespaced block states."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.sizes import Size

AIR_STATE = "minecraft:air"


@dataclass(frozen=True)
class Structure:
    """A block structure.

    Attributes:
        blocks: (Y, Z, X) uint16 indices into `palette`, Y up.
        palette: Canonical block states such as `minecraft:oak_log[axis=y]` (properties in alphabetical order), without
            repetition; the first one is always `minecraft:air`.

    Raises:
        BadInput: The grid has no voxel, an index has no entry, or the palette repeats itself or lacks air in front.
    """

    blocks: np.ndarray
    palette: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.blocks.ndim != 3 or self.blocks.size == 0:
            raise BadInput(f"a structure of shape {self.blocks.shape}: expected (Y, Z, X) with at least one voxel each")
        if not self.palette or self.palette[0] != AIR_STATE:
            raise BadInput(f"a palette that begins with {self.palette[:1]}: expected {AIR_STATE} first")
        if len(set(self.palette)) != len(self.palette):
            raise BadInput("a palette that names a block state twice: expected every state once")
        if int(self.blocks.max()) >= len(self.palette):
            raise BadInput(f"block index {int(self.blocks.max())}, but the palette has {len(self.palette)} entries")

    @property
    def size(self) -> Size:
        """Extent in blocks."""
        height, depth, width = self.blocks.shape
        return Size(width, height, depth)

    @property
    def solid(self) -> np.ndarray:
        """(Y, Z, X) bool: where there is a block."""
        return self.blocks != 0

    def cropped(self) -> Structure:
        """Return the part that holds blocks, and only the palette entries that are used; one voxel of air if empty."""
        filled = np.argwhere(self.solid)
        if not len(filled):
            return Structure(np.zeros((1, 1, 1), np.uint16), (AIR_STATE,))
        (y0, z0, x0), (y1, z1, x1) = filled.min(0), filled.max(0) + 1
        blocks = self.blocks[y0:y1, z0:z1, x0:x1]
        used = np.union1d(np.unique(blocks), [0])
        return Structure(np.searchsorted(used, blocks).astype(np.uint16), tuple(self.palette[index] for index in used))

    def same_as(self, other: Structure) -> bool:
        """Whether both hold the same block state at every place; the order of the palettes does not matter."""
        if self.blocks.shape != other.blocks.shape:
            return False
        numbers = {state: number for number, state in enumerate(self.palette)}
        theirs = np.array([numbers.get(state, -1) for state in other.palette])
        return bool((theirs[other.blocks] == self.blocks).all())
