"""Roles: what a block is for, which is all that the network has to know; a palette says which block it is."""

from __future__ import annotations

from enum import IntEnum


class Role(IntEnum):
    """What a voxel is for. The numbers are stored in datasets and weights: add at the end only."""

    AIR = 0
    WOOD = 1
    WOOD_2 = 2
    LEAF = 3
    LEAF_2 = 4
    SNOW = 5
    HANGING = 6
    GROUND = 7
    OTHER = 8


ROLES = len(Role)
# Seen by the network only, never predicted: what lies outside the canvas, and what is not decided yet.
OUTSIDE = ROLES
MASK = ROLES + 1
TOKENS = ROLES + 2

WOODS = (Role.WOOD, Role.WOOD_2)
LEAVES = (Role.LEAF, Role.LEAF_2)
