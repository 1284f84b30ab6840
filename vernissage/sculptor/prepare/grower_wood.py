"""Wood of the grower: trunk, branches that lead to leaves, limbs to be seen, and roots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vernissage.sculptor.prepare.grower_shapes import LEAF_REACH, face_curve, face_path, reached, stamp

if TYPE_CHECKING:
    from vernissage.sculptor.prepare.grower_blueprint import Blueprint


def add_trunk(wood: np.ndarray, plan: Blueprint) -> None:
    """Stamp the cross-section along the trunk; above the fork it tapers."""
    y = plan.trunk[:, 0]
    share = np.clip((y - plan.fork) / max(1, plan.trunk[-1, 0] - plan.fork), 0, 1)
    count = np.maximum(1, np.rint(len(plan.section) * (1 - plan.taper * share)))
    which, offset = np.nonzero(np.arange(len(plan.section)) < count[:, None])
    cells = plan.trunk[which]
    cells[:, 1:] += plan.section[offset]
    stamp(wood, cells)


def limb_ends(plan: Blueprint, rng: np.random.Generator) -> np.ndarray:
    """Draw where the limbs that are meant to be seen end: (n, 3) float, inside the grid."""
    if not plan.limbs or plan.shape[0] < 4 or min(plan.shape[1:]) < 3:
        return np.zeros((0, 3))
    height = plan.shape[0]
    bare = plan.form == "none"
    count = plan.limbs * 2 if bare else plan.limbs
    low, high = (plan.fork + 1, height - 1) if bare else (0.6 * plan.base + 1, plan.base + 0.3 * (height - plan.base))
    y = rng.uniform(low, max(low + 0.5, high), count)
    away = plan.radius * (rng.uniform(0.6, 1.1, count) if bare else rng.uniform(0.45, 0.85, count))
    if bare:
        # Higher branches are shorter, as on most trees; a few reach out all the same.
        away *= 1 - 0.5 * np.clip((y - low) / max(1, high - low), 0, 1) ** 2
    away = np.maximum(away, 1.5)
    angle = rng.uniform(0, 2 * np.pi) + np.arange(count) * 2.39996 + rng.uniform(-0.5, 0.5, count)
    axis = plan.axis[np.clip(y.astype(int), 0, height - 1)]
    ends = np.column_stack([y, axis[:, 0] + away * np.cos(angle), axis[:, 1] + away * np.sin(angle)])
    return np.clip(ends, 0, np.array(plan.shape) - 1)


def add_branches(
    wood: np.ndarray, nodes: np.ndarray, ends: np.ndarray, rng: np.random.Generator, *, thick: bool = False
) -> np.ndarray:
    """Lead a branch to every end from the wood that can best reach it: nearest first, so later ones fork off earlier.

    Args:
        wood: (Y, Z, X) bool; changed.
        nodes: (n, 3) int cells that branches may start from, n >= 1.
        ends: (m, 3) float.
        rng: Bends them.
        thick: Whether their first part is two blocks high.

    Returns:
        The nodes and the new cells.
    """
    if not len(ends):
        return nodes
    most = np.array(wood.shape) - 1
    # On the ground a branch would be a second trunk.
    least = np.minimum(most, (1, 0, 0))
    ends = np.clip(ends, least, most)
    near = np.abs(ends[:, None, 1:] - nodes[None, :, 1:]).sum(2).min(1)
    for end in ends[np.argsort(near, kind="stable")]:
        gap = end - nodes
        flat = np.hypot(gap[:, 1], gap[:, 2])
        # Branches rise: to start above the end, or nearly level with a far one, costs extra.
        cost = flat + np.abs(gap[:, 0]) + 1.5 * np.maximum(0, 0.35 * flat - gap[:, 0])
        start = nodes[int(np.argmin(cost))].astype(float)
        way = end - start
        length = float(np.hypot(way[1], way[2]))
        bend = start + way * np.array([rng.uniform(0.3, 0.6), 0.5, 0.5]) + rng.uniform(-0.12, 0.12, 3) * length
        path = face_curve(start, np.clip(bend, least, most), end)
        stamp(wood, path)
        if thick:
            stamp(wood, path[: len(path) // 2] + np.array([1, 0, 0]))
        nodes = np.concatenate([nodes, path[1:]])
    return nodes


def carry_leaves(
    wood: np.ndarray, leaves: np.ndarray, nodes: np.ndarray, plan: Blueprint, rng: np.random.Generator
) -> None:
    """Lead branches to leaves that are too far from wood to live, until few are left; `wood` is changed."""
    for _ in range(3):
        lost = np.argwhere(leaves & ~wood & ~reached(wood, leaves))
        if len(lost) <= 0.02 * leaves.sum():
            return
        # One branch for all that is lost in a cube of the side that one branch end can serve.
        cubes = (lost + rng.integers(0, LEAF_REACH - 1, 3)) // (LEAF_REACH - 1)
        _, cube, members = np.unique(cubes @ (1 << 20, 1 << 10, 1), return_inverse=True, return_counts=True)
        ends = np.stack([np.bincount(cube, lost[:, axis]) for axis in range(3)], 1) / members[:, None]
        # Branches end inside the crown, not on its surface.
        inward = plan.axis[ends[:, 0].astype(int)] - ends[:, 1:]
        ends[:, 1:] += inward * np.minimum(1, 1.5 / np.maximum(1e-6, np.hypot(*inward.T)))[:, None]
        ends[:, 0] = np.maximum(plan.base, ends[:, 0] - 1)
        nodes = add_branches(wood, nodes, ends, rng)


def add_roots(wood: np.ndarray, plan: Blueprint, rng: np.random.Generator) -> None:
    """Spread roots from the trunk over the lowest layers, each lower the further out it is; `wood` is changed."""
    foot = plan.trunk[0, 1:].astype(float)
    thick = np.sqrt(len(plan.section))
    turn = rng.uniform(0, 2 * np.pi)
    longest = 1 + plan.shape[0] / 14 + 0.3 * thick
    tallest = 1 + min(plan.base, plan.shape[0]) / 10 + 0.4 * thick
    for number in range(plan.roots):
        angle = turn + 2 * np.pi * number / plan.roots + rng.uniform(-0.4, 0.4)
        away = thick / 2 + rng.uniform(0.6, 1.0) * longest
        tip = np.clip(foot + away * np.array([np.cos(angle), np.sin(angle)]), 0, np.array(plan.shape[1:]) - 1)
        path = face_path(np.array([[0, *foot], [0, *tip]]))
        tall = rng.uniform(0.5, 1.0) * tallest
        for layer, beyond in enumerate(np.linspace(1, 0, int(tall) + 1, endpoint=False)):
            part = path[: max(1, int(np.ceil(len(path) * beyond**1.5)))].copy()
            part[:, 0] = min(layer, plan.shape[0] - 1)
            stamp(wood, part)
