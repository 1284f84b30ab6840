"""From the palette that a file brings to ours: spelled one way, every state once, air first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.block_states import AIR_NAMES, canonical_state, parse_state
from vernissage.sculptor.domain.structure import AIR_STATE, Structure

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_STATES = 2**16


def check_indices(indices: np.ndarray, entries: int) -> None:
    """Check that integers number entries of a palette.

    Raises:
        BadInput: One is negative or too large.
    """
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= entries:
        raise BadInput(f"block index {low if low < 0 else high}: the palette has {entries:,} entries, numbered from 0")


def structure_of(indices: np.ndarray, states: Sequence[str | None]) -> Structure:
    """Return the structure that a file's indices and palette describe; entries that nothing uses are dropped.

    Args:
        indices: (Y, Z, X) integers into `states`.
        states: Block states in any order and spelling, None for a number without one; all kinds of air become one.

    Raises:
        BadInput: An index has no entry, an entry is no block state, or there are more states than 16 bits can number.
    """
    check_indices(indices, len(states))
    used = np.bincount(indices.ravel(), minlength=len(states)) > 0
    numbers = {AIR_STATE: 0}
    lookup = np.zeros(len(states), np.int64)
    # Also the unused entries are looked at: a palette with nonsense in it is a damaged file.
    for index, text in enumerate(states):
        if text is None:
            if used[index]:
                raise BadInput(f"block index {index}: the palette has no block state of that number")
            continue
        name, properties = parse_state(text)
        state = AIR_STATE if name in AIR_NAMES else canonical_state(name, properties)
        if used[index]:
            lookup[index] = numbers.setdefault(state, len(numbers))
    if len(numbers) > _MOST_STATES:
        raise BadInput(f"{len(numbers):,} different block states: at most {_MOST_STATES:,} pass")
    return Structure(lookup[indices].astype(np.uint16), tuple(numbers))
