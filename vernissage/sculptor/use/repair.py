"""Mends a structure after it was built, where that is asked for: what hangs in the air goes, or gets a bridge of wood.

What is measured and published is never repaired; this is for those who want to place a structure in their world.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from vernissage.sculptor.domain.roles import Role
from vernissage.sculptor.domain.trunk import solid_mask

# Bridges over wider gaps would be seen.
BRIDGE_REACH = 3
# Each round connects all that is near by then; whoever needs more than these stands too far off.
_ROUNDS = 16
_CORNERS = ndimage.generate_binary_structure(3, 3)


@dataclass(frozen=True)
class Repair:
    """What was done.

    Attributes:
        roles: (Y, Z, X) uint8, the structure afterwards.
        removed: Blocks that were taken away.
        parts: Loose parts that these blocks were.
        bridges: Blocks of wood that were added.
        bridged: Parts that these connect.
        left: Loose parts that are left, as they hold blocks that the user keeps.
    """

    roles: np.ndarray
    removed: int = 0
    parts: int = 0
    bridges: int = 0
    bridged: int = 0
    left: int = 0

    @property
    def changed(self) -> bool:
        """Whether anything is different now."""
        return bool(self.removed or self.bridges)

    def said(self) -> str:
        """One line."""
        done = []
        if self.bridged:
            done.append(f"connected {_counted(self.bridged, 'loose part')} with {_counted(self.bridges, 'block')}")
        if self.parts:
            done.append(f"removed {_counted(self.removed, 'block')} in {_counted(self.parts, 'loose part')}")
        if self.left:
            done.append(f"left {_counted(self.left, 'loose part')} with kept blocks")
        return f"repaired: {', '.join(done)}" if done else "repaired: nothing was loose"


def repair(roles: np.ndarray, *, kept: np.ndarray | None = None, bridge: bool = False) -> Repair:
    """Leave of a structure the largest part that stands on its base; parts hang together by faces, edges or corners.

    Args:
        roles: (Y, Z, X) uint8 role grid; the base is its lowest layer that holds anything.
        kept: (Y, Z, X) bool: blocks that must stay; a part with one of them is never removed.
        bridge: Whether to connect, where no more than `BRIDGE_REACH` blocks are missing and the part has more than
            these, by a straight line of wood, the shortest there is.
    """
    before = _parts(roles)
    if before.number <= 1:
        return Repair(roles)
    mended = _bridged(roles) if bridge else roles
    bridges = int(((roles == Role.AIR) & (mended != Role.AIR)).sum())
    after = _parts(mended) if bridges else before
    held = np.zeros(after.number + 1, bool)
    if kept is not None:
        held[after.labels[kept & (after.labels > 0)]] = True
    loose = np.arange(after.number + 1) != after.main
    loose[0] = False
    gone = (loose & ~held)[after.labels]
    return Repair(
        np.where(gone, Role.AIR, mended).astype(roles.dtype),
        removed=int(gone.sum()),
        parts=int((loose & ~held).sum()),
        bridges=bridges,
        bridged=before.number - after.number,
        left=int((loose & held).sum()),
    )


class _Parts(NamedTuple):
    """The parts of a structure.

    Attributes:
        labels: (Y, Z, X) number of the part that a block belongs to, 0 for air.
        number: How many parts there are.
        sizes: (number + 1,) blocks of each.
        main: The largest of those that stand on the base; 0 where there is none.
    """

    labels: np.ndarray
    number: int
    sizes: np.ndarray
    main: int


def _parts(roles: np.ndarray) -> _Parts:
    solid = solid_mask(roles)
    labels, count = ndimage.label(solid, _CORNERS)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    standing = np.zeros(count + 1, bool)
    standing[labels[int(np.argmax(solid.any(axis=(1, 2))))]] = True
    standing[0] = False
    return _Parts(labels, count, sizes, int(np.where(standing, sizes, 0).argmax()))


def _bridged(roles: np.ndarray) -> np.ndarray:
    """Add wood between the main part and those near it, and again, as more parts come near."""
    roles = roles.copy()
    for _ in range(_ROUNDS):
        parts = _parts(roles)
        if parts.number == 1:
            break
        distance, nearest = ndimage.distance_transform_cdt(
            parts.labels != parts.main, "chessboard", return_indices=True
        )
        loose = [part for part in range(1, parts.number + 1) if part != parts.main]
        ends = np.array(ndimage.minimum_position(distance, parts.labels, loose), int)
        gaps = distance[tuple(ends.T)] - 1
        near = (gaps <= BRIDGE_REACH) & (gaps < parts.sizes[loose])
        if not near.any():
            break
        for end in ends[near]:
            line = tuple(_line(nearest[:, *end], end).T)
            roles[line] = np.where(roles[line] == Role.AIR, Role.WOOD, roles[line])
    return roles


def _line(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """(n, 3) places of a straight line between two, corners touching, both ends left out."""
    steps = int(np.abs(stop - start).max())
    shares = np.arange(1, steps)[:, None] / steps
    return np.rint(start + shares * (stop - start)).astype(np.int64)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
