"""Objects of the Iris world generator (.iob): both variants are read, the newer is written.

Big-endian and not packed. Both begin with three ints: width, height, depth. Then, in the newer variant, the text
`Iris V2 IOB;`, a short count of block states and these as texts, an int count of blocks and each as four shorts (x, y,
z, state), and an int count of block entities, which are not kept; in the older, an int count of blocks and each as
three shorts and its state as text. A text is a short length and that many bytes. Coordinates are relative to the
centre, (width // 2, height // 2, depth // 2), and may be negative. Source: https://github.com/VolmitSoftware/Iris,
`IrisObject`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.formats.file_palette import structure_of
from vernissage.sculptor.domain.sizes import Size
from vernissage.sculptor.domain.structure import AIR_STATE, Structure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vernissage.sculptor.domain.formats.limits import Limits

_TAG = b"Iris V2 IOB;"
_ANY_TAG = b"Iris V"
_MOST_STATES = 2**15 - 1
_LONGEST = 2**15 - 1
_LEAST_OLD_BLOCK = 8
_BLOCK_ENTITIES = "number of block entities"


def read(data: bytes, limits: Limits) -> Structure:
    """Return the declared box, or, where blocks lie outside of it, the box around the blocks.

    Some real files have such blocks; their size or centre is not that of their blocks.

    Raises:
        BadInput: It ends too early, a block has no entry in the palette, an entry is no block state, or limits are
            exceeded.
    """
    source = _Bytes(data)
    size = limits.check_size(Size(*(source.integer("size") for _ in range(3))))
    tag = data[source.position + 2 : source.position + 2 + len(_TAG)]
    if tag == _TAG:
        source.text("tag")
        states = [source.text("palette") for _ in range(limits.check_palette(source.count("h", "palette")))]
        blocks = source.shorts(source.blocks(limits), 4, "blocks")
        source.count("i", _BLOCK_ENTITIES)
        return _structure(size, blocks[:, :3], blocks[:, 3], states, limits)
    if tag.startswith(_ANY_TAG):
        raise BadInput(f"an .iob of the kind {tag!r}: expected {_TAG!r} or the older kind without a tag")
    return _read_old(source, size, limits)


def write(structure: Structure, *, title: str = "") -> bytes:
    """Return the newer variant; the format has no place for a title.

    Raises:
        BadInput: A side or the palette is longer than a short can number.
    """
    del title
    size, states = structure.size, structure.palette[1:]
    if max(size) > _LONGEST or len(states) > _MOST_STATES:
        raise BadInput(
            f"size {size} with {len(states):,} block states: an .iob holds at most {_LONGEST:,} in each direction and "
            f"{_MOST_STATES:,} states; choose .schem"
        )
    at = np.argwhere(structure.solid)
    shorts = np.empty((len(at), 4), ">i2")
    shorts[:, :3] = at[:, [2, 0, 1]] - _centre(size)
    shorts[:, 3] = structure.blocks[structure.solid].astype(np.int64) - 1
    texts = (_TAG, None, *(state.encode() for state in states))
    return (
        struct.pack(">3i", *size)
        + b"".join(
            struct.pack(">H", len(states)) if text is None else struct.pack(">H", len(text)) + text for text in texts
        )
        + struct.pack(">i", len(at))
        + shorts.tobytes()
        + struct.pack(">i", 0)
    )


class _Bytes:
    """A position in the file that never moves beyond its end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, count: int, where: str) -> int:
        """Move on and return where the bytes that were passed begin."""
        start = self.position
        if count > len(self.data) - start:
            raise BadInput(
                f"ends in the middle of the {where}: {count:,} bytes expected at {start:,}, "
                f"{len(self.data) - start:,} left"
            )
        self.position += count
        return start

    def integer(self, where: str) -> int:
        return int.from_bytes(self.data[(start := self.take(4, where)) : start + 4], "big", signed=True)

    def count(self, form: str, where: str) -> int:
        """Return a number of things, a short (`h`) or an int (`i`)."""
        number: int = struct.unpack_from(f">{form}", self.data, self.take(struct.calcsize(f">{form}"), where))[0]
        if number < 0:
            raise BadInput(f"{where}: {number:,} entries; expected 0 or more")
        return number

    def blocks(self, limits: Limits) -> int:
        """Return the number of blocks, which cannot be more than there may be places."""
        number = self.count("i", "number of blocks")
        if number > limits.max_voxels:
            raise BadInput(f"{number:,} blocks: at most {limits.max_voxels:,} pass")
        return number

    def text(self, where: str) -> str:
        length = int.from_bytes(self.data[(start := self.take(2, where)) : start + 2], "big")
        start = self.take(length, where)
        try:
            return self.data[start : start + length].decode()
        except UnicodeDecodeError as error:
            raise BadInput(f"the {where} has a text at {start:,} that is no UTF-8: expected a block state") from error

    def shorts(self, rows: int, columns: int, where: str) -> np.ndarray:
        """Return (rows, columns) int64."""
        start = self.take(2 * rows * columns, where)
        return np.frombuffer(self.data, ">i2", rows * columns, start).reshape(rows, columns).astype(np.int64)


def _read_old(source: _Bytes, size: Size, limits: Limits) -> Structure:
    """Read the blocks of the older variant; what follows them is let pass."""
    count = source.blocks(limits)
    # No block takes less than three shorts and an empty text: nothing is made for a count that cannot be true.
    source.position = source.take(_LEAST_OLD_BLOCK * count, "blocks")
    numbers: dict[str, int] = {}
    places = np.empty((count, 3), np.int64)
    states = np.empty(count, np.int64)
    for index in range(count):
        places[index] = struct.unpack_from(">3h", source.data, source.take(6, "blocks"))
        states[index] = numbers.setdefault(source.text("blocks"), len(numbers))
    limits.check_palette(len(numbers))
    return _structure(size, places, states, list(numbers), limits)


def _structure(size: Size, places: np.ndarray, numbers: np.ndarray, states: Sequence[str], limits: Limits) -> Structure:
    """Put blocks at (n, 3) places x, y, z, relative to the centre, with (n,) indices into the states."""
    wrong = (numbers < 0) | (numbers >= len(states))
    if wrong.any():
        raise BadInput(f"block state {numbers[wrong][0]}: expected 0 to {len(states) - 1}, the palette has no more")
    places = places + _centre(size)
    if len(places) and ((places < 0).any() or (places >= size).any()):
        low, high = places.min(0), places.max(0)
        size = limits.check_size(Size(*(high - low + 1).tolist()))
        places = places - low
    x, y, z = places.T
    grid = np.zeros(size.shape, np.int64)
    grid[y, z, x] = numbers + 1
    return structure_of(grid, (AIR_STATE, *states))


def _centre(size: Size) -> np.ndarray:
    return np.array([side // 2 for side in size])
