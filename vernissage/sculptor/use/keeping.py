"""In-painting: blocks that the user fixes keep their places and their states, and the rest is built around them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.anatomy import bounding_box
from vernissage.sculptor.domain.blocks import SPECIES_PALETTES, species_of, structure_to_roles
from vernissage.sculptor.domain.plan import MOST
from vernissage.sculptor.domain.roles import MASK, Role
from vernissage.sculptor.domain.structure import Structure
from vernissage.sculptor.domain.trunk import trunk_run

if TYPE_CHECKING:
    from vernissage.sculptor.domain.sizes import Size
    from vernissage.sculptor.learn.sculpting import Sculpture

_MOST_STATES = 65_536


@dataclass(frozen=True)
class Kept:
    """Blocks that stay, in the grid that is built in.

    Attributes:
        structure: They alone; as large as the grid.
        roles: (Y, Z, X) uint8 of them, `MASK` where the grid is free.
    """

    structure: Structure
    roles: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(Y, Z, X) bool: where they are."""
        return self.roles != MASK

    @property
    def species(self) -> str | None:
        """Their species, where it is one that there is a palette for."""
        species = species_of(self.structure)
        return species if species in SPECIES_PALETTES else None

    @property
    def digest(self) -> str:
        """SHA-256 of the blocks and their places, in hexadecimal digits."""
        digest = hashlib.sha256(repr((self.structure.size, self.structure.palette)).encode())
        digest.update(self.structure.blocks.astype("<u2").tobytes())
        return digest.hexdigest()

    def room(self, draft: Sculpture, size: Size) -> dict[str, int]:
        """Return values that a plan must have, so that what was drafted grows to hold these blocks.

        A trunk on the ground stays the trunk: where the draft has it elsewhere, its base is moved, which takes a box as
        wide as the grid.
        """
        plan = draft.plan
        if plan is None:
            return {}
        values: dict[str, int] = {}
        ys, zs, xs = bounding_box(self.mask)
        if ys.stop > plan["height"]:
            values["height"] = min(ys.stop, size.height, MOST.height)
        _, corner_z, corner_x = draft.corner
        sides = (("depth", "base_z", zs, corner_z, size.depth), ("width", "base_x", xs, corner_x, size.width))
        for (side, base, extent, corner, whole), trunk in zip(sides, self._base(), strict=True):
            moved = trunk is not None and abs(2 * corner + plan[base] - trunk) > 1
            if moved or extent.start < corner or extent.stop > corner + plan[side]:
                values[side] = min(whole, MOST.width)
            if moved and trunk is not None and whole <= MOST.width:
                values[base] = trunk
        return values

    def outside(self, sculpture: Sculpture) -> int:
        """Return how many of these blocks lie beyond the box in which something was built."""
        if sculpture.plan is None:
            return 0
        inside = np.zeros(self.roles.shape, bool)
        places = zip(sculpture.corner, sculpture.plan.shape, strict=True)
        inside[tuple(slice(start, start + extent) for start, extent in places)] = True
        return int((self.mask & ~inside).sum())

    def put_into(self, structure: Structure) -> Structure:
        """Return the structure with these blocks at their places, in exactly their states.

        Raises:
            BadInput: Both together have more states than a structure can hold.
        """
        numbers = {state: number for number, state in enumerate(structure.palette)}
        lookup = np.array([numbers.setdefault(state, len(numbers)) for state in self.structure.palette])
        if len(numbers) > _MOST_STATES:
            raise BadInput(f"kept blocks of {len(self.structure.palette):,} states: no room for those that are built")
        blocks = np.where(self.mask, lookup[self.structure.blocks], structure.blocks)
        used = np.union1d(np.unique(blocks), [0])
        states = tuple(numbers)
        return Structure(np.searchsorted(used, blocks).astype(np.uint16), tuple(states[index] for index in used))

    def _base(self) -> tuple[int | None, int | None]:
        """Where their trunk stands on the ground (z, x), in half-blocks of the grid; None where there is none."""
        run = trunk_run(np.where(self.mask, self.roles, Role.AIR))
        if not len(run) or run.base != 0:
            return None, None
        z, x = np.rint(2 * run.centres[0]).astype(int).tolist()
        return z, x


def keep_blocks(structure: Structure, size: Size) -> Kept:
    """Place the blocks that are to stay in a grid.

    A structure as large as the grid keeps its places; a smaller one stands on the ground, in the middle. One that is
    larger is cut down to its blocks first. Air is free to be built in.

    Raises:
        BadInput: It holds no block, or its blocks do not fit into the grid.
    """
    if not size.holds(structure.size):
        structure = structure.cropped()
    if not size.holds(structure.size):
        raise BadInput(
            f"kept blocks of {structure.size}: they do not fit into a grid of {size}; choose a larger --size"
        )
    blocks = np.zeros(size.shape, np.uint16)
    height, depth, width = structure.blocks.shape
    z, x = (size.depth - depth) // 2, (size.width - width) // 2
    blocks[:height, z : z + depth, x : x + width] = structure.blocks
    placed = Structure(blocks, structure.palette)
    roles = structure_to_roles(placed).grid
    if not roles.any():
        raise BadInput("kept blocks: there is nothing but air; expected a structure with at least one block")
    return Kept(placed, np.where(roles == Role.AIR, MASK, roles).astype(np.uint8))
