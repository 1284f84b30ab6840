"""Variable-length integers, seven bits a byte, the lowest first, as Sponge schematics store block indices.

Layout: https://minecraft.wiki/w/Java_Edition_protocol/Data_types#VarInt_and_VarLong
"""

from __future__ import annotations

import numpy as np

from vernissage.core.errors import BadInput

_MOST_BYTES = 5


def decode_varints(data: np.ndarray, count: int) -> np.ndarray:
    """Return `count` integers, int64, from exactly all bytes.

    Args:
        data: (bytes,) uint8.
        count: How many integers there must be.

    Raises:
        BadInput: There are more or fewer, the last one is cut off, or one has more than 32 bits.
    """
    last = data < 0x80
    found = int(last.sum())
    if found != count or (len(data) and not last[-1]):
        raise BadInput(f"block data of {found:,} entries in {len(data):,} bytes: expected {count:,}, one a voxel")
    if not count:
        return np.zeros(0, np.int64)
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if int(lengths.max()) > _MOST_BYTES:
        raise BadInput(f"a block index of {int(lengths.max())} bytes: expected at most {_MOST_BYTES}")
    places = np.arange(len(data)) - np.repeat(starts, lengths)
    values = np.add.reduceat((data & 0x7F).astype(np.int64) << (7 * places), starts)
    if int(values.max()) >= 2**31:
        raise BadInput(f"block index {int(values.max()):,}: expected less than {2**31:,}")
    return values


def encode_varints(values: np.ndarray) -> np.ndarray:
    """Return (bytes,) uint8 of non-negative integers below 2^31, each in as few bytes as it needs."""
    flat = values.ravel().astype(np.int64)
    lengths = 1 + sum((flat >= 1 << 7 * place).astype(np.int64) for place in range(1, _MOST_BYTES))
    ends = np.cumsum(lengths)
    places = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    more = places < np.repeat(lengths, lengths) - 1
    return ((np.repeat(flat, lengths) >> (7 * places) & 0x7F) | (more << 7)).astype(np.uint8)
