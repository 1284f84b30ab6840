"""Limits on structure files: what a file may promise before anything of that size is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vernissage.core.errors import BadInput

if TYPE_CHECKING:
    from vernissage.sculptor.domain.sizes import Size


@dataclass(frozen=True)
class Limits:
    """The most that a structure file may hold; whatever is beyond is refused before memory is taken for it.

    Attributes:
        max_bytes: Bytes of the file, and of what it unpacks to.
        max_voxels: Volume of the declared box, air included.
        max_palette: Different block states; an index is 16 bits wide.
        max_depth: Lists and compounds inside each other.
        max_tags: NBT values outside of arrays; each becomes an object of some hundred bytes.
    """

    max_bytes: int = 256 * 2**20
    max_voxels: int = 2_000_000
    max_palette: int = 65_536
    max_depth: int = 64
    max_tags: int = 2_000_000

    def check_size(self, size: Size) -> Size:
        """Return the size that a file declares.

        Raises:
            BadInput: A side is not positive, or the volume is more than `max_voxels`.
        """
        if min(size) < 1:
            raise BadInput(f"size {size}: expected at least one block in each direction")
        volume = size.width * size.height * size.depth
        if volume > self.max_voxels:
            raise BadInput(f"size {size} is {volume:,} voxels: at most {self.max_voxels:,} pass")
        return size

    def check_palette(self, entries: int) -> int:
        """Return the number of entries of a palette.

        Raises:
            BadInput: It is more than `max_palette`.
        """
        if entries > self.max_palette:
            raise BadInput(f"a palette of {entries:,} block states: at most {self.max_palette:,} pass")
        return entries
