"""Grows trees: role grids of eleven species in any size, whole and standing by construction.

Wood is drawn as paths whose cells share faces; leaves are kept only where the game would not let them decay. So every
tree is one part, its wood is one part that stands on the lowest layer, and nothing has to be repaired or rejected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.roles import Role
from vernissage.sculptor.prepare.grower_blueprint import Blueprint, draw_blueprint
from vernissage.sculptor.prepare.grower_crowns import CrownSpace, add_blob, draw_crown
from vernissage.sculptor.prepare.grower_shapes import grown, reached, smooth_noise
from vernissage.sculptor.prepare.grower_species import HABITS, Habit
from vernissage.sculptor.prepare.grower_wood import add_branches, add_roots, add_trunk, carry_leaves, limb_ends

if TYPE_CHECKING:
    from vernissage.sculptor.domain.attributes import Attributes
    from vernissage.sculptor.domain.sizes import Size

SPECIES_NAMES: tuple[str, ...] = tuple(HABITS)


def grow(species: str, size: Size, rng: np.random.Generator) -> np.ndarray:
    """Grow one tree.

    Args:
        species: One of `SPECIES_NAMES`.
        size: What it has to fit in; proportions are relative to it.
        rng: Where its variety comes from; equal states grow equal trees.

    Returns:
        (Y, Z, X) uint8 role grid, cropped to the tree. There is wood in its lowest layer, all wood is one part by
        faces, every leaf is within six face-steps through leaves of wood.

    Raises:
        BadInput: There is no such species.
    """
    return _build(draw_blueprint(_habit(species), size, rng), rng)


def grow_any(size: Size, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """Grow a tree of a species that is drawn evenly: its name, and its role grid as of `grow`."""
    species = SPECIES_NAMES[int(rng.integers(len(SPECIES_NAMES)))]
    return species, grow(species, size, rng)


def grow_like(attributes: Attributes, size: Size, rng: np.random.Generator, tries: int = 64) -> tuple[str, np.ndarray]:
    """Grow trees until one measures as wanted, or return the one that comes closest.

    Args:
        attributes: What is wanted; None leaves it to chance.
        size: What the tree has to fit in.
        rng: Where its variety comes from.
        tries: How many trees to grow at most.

    Returns:
        Species and role grid.

    Raises:
        BadInput: There is no such species, or no try is allowed.
    """
    from vernissage.sculptor.domain.attributes import ATTRIBUTES, measure_attributes

    if tries < 1:
        raise BadInput(f"tries {tries}: expected at least 1")
    wanted = {name: getattr(attributes, name) for name in ATTRIBUTES if getattr(attributes, name) is not None}
    best: tuple[int, str, np.ndarray] | None = None
    for _ in range(tries):
        species = attributes.species or SPECIES_NAMES[int(rng.integers(len(SPECIES_NAMES)))]
        roles = _build(draw_blueprint(_habit(species).steered(attributes), size, rng), rng)
        measured = measure_attributes(roles, species=species, size=size)
        right = sum(getattr(measured, name) == value for name, value in wanted.items())
        if best is None or right > best[0]:
            best = right, species, roles
        if right == len(wanted):
            break
    assert best is not None  # noqa: S101 - at least one try
    return best[1], best[2]


def _habit(species: str) -> Habit:
    if species not in HABITS:
        raise BadInput(f"species {species!r}: expected one of {', '.join(SPECIES_NAMES)}")
    return HABITS[species]


def _build(plan: Blueprint, rng: np.random.Generator) -> np.ndarray:
    """Put the parts together: trunk, roots, crown, the branches that carry it, gaps, and what then survives."""
    wood = np.zeros(plan.shape, bool)
    add_trunk(wood, plan)
    crown = draw_crown(plan.form, CrownSpace(plan.shape, plan.axis, plan.base, plan.radius), rng)
    leaves = crown.leaves
    ends = limb_ends(plan, rng)
    nodes = plan.trunk[plan.trunk[:, 0] >= plan.fork]
    nodes = add_branches(wood, nodes, np.concatenate([ends, crown.anchors]), rng, thick=len(plan.section) > 6)
    if plan.form != "none":
        # Tufts at the ends of branches would make a flat crown deep.
        tufts = 0 if plan.form in {"umbrella", "pads"} else int(rng.integers(len(ends) + 1))
        for end in ends[:tufts]:
            add_blob(leaves, end, np.array([1.0, 1.5, 1.5]) * rng.uniform(0.8, 1.3), rng)
        if plan.hollow:
            _empty_inside(leaves)
        _cover_tip(leaves, plan)
        carry_leaves(wood, leaves, nodes, plan, rng)
        _open_gaps(leaves, plan, rng)
        _cover_tip(leaves, plan)
    if plan.roots:
        add_roots(wood, plan, rng)
    leaves = reached(wood, leaves)
    roles = np.zeros(plan.shape, np.uint8)
    roles[leaves] = Role.LEAF
    roles[wood] = Role.WOOD
    if plan.vines:
        _hang_vines(roles, rng)
    return _cropped(roles)


def _empty_inside(leaves: np.ndarray) -> None:
    """Take away what lies deeper than three leaves inside the crown, where nobody sees it."""
    inner = np.pad(leaves, 1)
    for _ in range(3):
        inner = ~grown(~inner)
    leaves &= ~inner[1:-1, 1:-1, 1:-1]


def _open_gaps(leaves: np.ndarray, plan: Blueprint, rng: np.random.Generator) -> None:
    """Take leaves away in clumps; branches are there already, so that gaps do not fill up with wood."""
    noise = smooth_noise(plan.shape, float(rng.uniform(1.6, 2.6)), rng)
    noise += np.float32(0.2) * rng.random(plan.shape, np.float32)
    here = noise[leaves]
    if len(here):
        leaves &= noise >= np.quantile(here, plan.sparse)


def _cover_tip(leaves: np.ndarray, plan: Blueprint) -> None:
    """Put leaves around and above the end of the trunk, so that no bare wood ends the tree."""
    y, z, x = plan.trunk[-1]
    leaves[y, max(0, z - 1) : z + 2, x] = True
    leaves[y, z, max(0, x - 1) : x + 2] = True
    leaves[y:, z, x] = True


def _hang_vines(roles: np.ndarray, rng: np.random.Generator) -> None:
    """Hang vines below some of the lowest leaves, in clumps, never down to the ground."""
    leaves = roles == Role.LEAF
    columns = leaves.any(0)
    lowest = leaves.argmax(0)
    chosen = columns & (smooth_noise((1, *columns.shape), 1.8, rng)[0] > 0.3)
    length = rng.integers(1, 2 + roles.shape[0] // 6, columns.shape)
    y = np.arange(roles.shape[0])[:, None, None]
    vines = chosen & (y < lowest) & (y >= np.maximum(1, lowest - length))
    # A vine ends where it meets wood: what would hang below that has nothing to hang from.
    blocked = np.flip(np.logical_or.accumulate(np.flip(vines & (roles != Role.AIR), 0), 0), 0)
    roles[vines & ~blocked] = Role.HANGING


def _cropped(roles: np.ndarray) -> np.ndarray:
    solid = roles != Role.AIR
    box = []
    for axis in range(3):
        filled = np.flatnonzero(solid.any(tuple(other for other in range(3) if other != axis)))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return np.ascontiguousarray(roles[tuple(box)])
