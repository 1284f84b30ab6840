"""Whether a structure could be a tree: one whole that stands on its trunk, with leaves that the wood carries."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from vernissage.sculptor.domain.trunk import TrunkRun, leaf_mask, solid_mask, trunk_run, wood_mask

# The game lets leaves decay that are farther than this from all wood (Java edition since 1.13).
LEAF_REACH = 6
_FACES = ndimage.generate_binary_structure(3, 1)
_CORNERS = ndimage.generate_binary_structure(3, 3)
_DECIMALS = 9


@dataclass(frozen=True)
class Anatomy:
    """The measures of one structure; its base is the lowest layer that holds anything.

    Attributes:
        connectivity: Share of all voxels in the largest part that stands on the base, where parts hang together by
            faces, edges or corners; 0 for an empty grid.
        connectivity6: The same where parts hang together by faces only.
        parts: Number of parts (faces, edges or corners).
        whole: Whether there is one part only.
        cast_success: Whether all wood is one part that stands on the base (the criterion of CAST); without wood, no.
        one_trunk: Whether the wood of the base is one 8-connected region; without wood there, no.
        verticality: 1 - min(1, d / (1 + w)): d is the largest distance, in the lower half of the trunk run, of a
            layer's centre from that of the base, and w the square root of the number of wood voxels in the base.
            NaN without a trunk.
        crown_lift: (Mean y of the leaves - mean y of the wood) / height. NaN without leaves or without wood.
        crown_above: 1 where the lift is above 0, else 0; its mean is a share. NaN as above.
        leaf_survival: Share of the leaves that are within 6 steps by faces, through leaves, of wood. NaN where there
            are none.
        voxels: Number of voxels that are not air.
        wood: Those of them that are wood.
        leaves: Those of them that are leaves.
        height: Layers from the base to the highest voxel.
    """

    connectivity: float
    connectivity6: float
    parts: int
    whole: bool
    cast_success: bool
    one_trunk: bool
    verticality: float
    crown_lift: float
    crown_above: float
    leaf_survival: float
    voxels: int
    wood: int
    leaves: int
    height: int


def judge_anatomy(roles: np.ndarray) -> Anatomy:
    """Measure one structure.

    Args:
        roles: (Y, Z, X) uint8, any role grid; what is no role counts as air.
    """
    box = bounding_box(solid_mask(roles))
    roles = roles[box]
    solid, wood, leaves = solid_mask(roles), wood_mask(roles), leaf_mask(roles)
    if not solid.any():
        nan = math.nan
        return Anatomy(0.0, 0.0, 0, False, False, False, nan, nan, nan, nan, 0, 0, 0, 0)  # noqa: FBT003 the fields' order
    voxels = int(solid.sum())
    standing, parts = _standing(solid, _CORNERS)
    standing6, _ = _standing(solid, _FACES)
    standing_wood, wood_parts = _standing(wood, _CORNERS)
    lift = _crown_lift(wood, leaves)
    return Anatomy(
        connectivity=standing / voxels,
        connectivity6=standing6 / voxels,
        parts=parts,
        whole=parts == 1,
        cast_success=wood_parts == 1 and standing_wood > 0,
        one_trunk=ndimage.label(wood[0], _CORNERS[1])[1] == 1,
        verticality=_verticality(trunk_run(roles), int(wood[0].sum())),
        crown_lift=lift,
        crown_above=math.nan if math.isnan(lift) else float(lift > 0),
        leaf_survival=_leaf_survival(wood, leaves),
        voxels=voxels,
        wood=int(wood.sum()),
        leaves=int(leaves.sum()),
        height=len(solid),
    )


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """Return the smallest box (y, z, x) that holds all that is set; an empty one where nothing is."""
    area = mask.any(axis=0)
    ends = [np.flatnonzero(line) for line in (mask.any(axis=(1, 2)), area.any(axis=-1), area.any(axis=0))]
    ys, zs, xs = (slice(int(end[0]), int(end[-1]) + 1) if len(end) else slice(0, 0) for end in ends)
    return ys, zs, xs


def _standing(mask: np.ndarray, neighbours: np.ndarray) -> tuple[int, int]:
    """Return the voxels of the largest part with a voxel in layer 0, and the number of parts."""
    labels, parts = ndimage.label(mask, neighbours)
    if not parts:
        return 0, 0
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return int(sizes[labels[0]].max()), parts


def _verticality(run: TrunkRun, base_wood: int) -> float:
    if not len(run):
        return math.nan
    lower = run.centres[: (len(run) + 1) // 2] - run.centres[0]
    drift = round(float(np.hypot(lower[:, 0], lower[:, 1]).max()), _DECIMALS)
    return 1 - min(1.0, drift / (1 + math.sqrt(base_wood)))


def _crown_lift(wood: np.ndarray, leaves: np.ndarray) -> float:
    if not wood.any() or not leaves.any():
        return math.nan
    leaf_y, wood_y = (float(np.nonzero(mask)[0].mean()) for mask in (leaves, wood))
    return (leaf_y - wood_y) / len(wood)


def _leaf_survival(wood: np.ndarray, leaves: np.ndarray) -> float:
    total = int(leaves.sum())
    if not total:
        return math.nan
    reached = ndimage.binary_dilation(wood, _FACES, iterations=LEAF_REACH, mask=leaves)
    return int((reached & leaves).sum()) / total
