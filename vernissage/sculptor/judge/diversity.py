"""How different structures of one prompt are, beside how different the data's own structures are of which it holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vernissage.sculptor.domain.attributes import ATTRIBUTES
from vernissage.sculptor.judge.novelty import on_window, stand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vernissage.sculptor.domain.attributes import Attributes


@dataclass(frozen=True)
class Diversity:
    """How different structures are within groups.

    Attributes:
        distance: Mean over the groups of the mean 1 - IoU of all pairs; NaN where no group has two structures.
        groups: Groups with at least two structures.
        structures: Structures in these.
        duplicates: Those of them that are the same, role for role, as an earlier one of their group.
    """

    distance: float
    groups: int
    structures: int
    duplicates: int


@dataclass(frozen=True)
class Comparison:
    """Diversity of what was built beside that of the data, for the same prompts.

    Attributes:
        built: Of what was built.
        data: Of the data's structures of which the prompts hold.
        ratio: Distance of the first / distance of the second, over the prompts that both have pairs for; 1 is as
            diverse as the data, NaN where there is nothing to compare.
        prompts: How many prompts these are.
    """

    built: Diversity
    data: Diversity
    ratio: float
    prompts: int


def pair_distances(grids: Sequence[np.ndarray]) -> np.ndarray:
    """Measure how different structures are, as they stand: bases aligned, none turned, where blocks are and no more.

    Args:
        grids: n role grids, (Y, Z, X) uint8 each, of any sizes.

    Returns:
        (n, n) float64 of 1 - IoU. Two empty grids have the distance 0.
    """
    standing = [stand(grid) for grid in grids]
    reach = max((each.reach for each in standing), default=0)
    shared = np.zeros((len(grids), len(grids)))
    for layer in range(max((len(each.solid) for each in standing), default=0)):
        slices = [on_window(each.solid[layer : layer + 1], each.base, 1, reach).ravel() for each in standing]
        # float32 counts exactly to 2^24, far more than a layer holds.
        rows = np.stack(slices).astype(np.float32)
        shared += rows @ rows.T
    totals = np.diag(shared)
    either = totals[:, None] + totals - shared
    return np.asarray(1 - np.divide(shared, either, out=np.ones_like(shared), where=either > 0))


def diversity(groups: Sequence[Sequence[np.ndarray]]) -> Diversity:
    """Measure how different structures are within groups.

    Args:
        groups: Role grids, together what was built for one prompt; groups of fewer than two count for nothing.
    """
    pairs = [group for group in groups if len(group) > 1]
    distances = [_mean_distance(group) for group in pairs]
    return Diversity(
        distance=float(np.mean(distances)) if distances else math.nan,
        groups=len(pairs),
        structures=sum(map(len, pairs)),
        duplicates=sum(_duplicates(group) for group in pairs),
    )


def compare_diversity(built: Sequence[Sequence[np.ndarray]], data: Sequence[Sequence[np.ndarray]]) -> Comparison:
    """Compare what was built for prompts with the data's own structures for them.

    Args:
        built: For each prompt, role grids of several seeds.
        data: For each prompt, role grids of which it holds, see `agreeing`.

    Raises:
        ValueError: The two are not about the same number of prompts.
    """
    both = [(mine, theirs) for mine, theirs in zip(built, data, strict=True) if len(mine) > 1 and len(theirs) > 1]
    mine, theirs = diversity([pair[0] for pair in both]), diversity([pair[1] for pair in both])
    ratio = mine.distance / theirs.distance if both and theirs.distance else math.nan
    return Comparison(diversity(built), diversity(data), ratio, len(both))


def agreeing(said: Attributes, measured: Sequence[Attributes]) -> list[int]:
    """Return which structures have all that was said.

    Args:
        said: What a prompt says; None where it says nothing.
        measured: Of each structure.
    """
    wanted = {name: value for name in ATTRIBUTES if (value := getattr(said, name)) is not None}
    return [
        index
        for index, found in enumerate(measured)
        if all(getattr(found, name) == value for name, value in wanted.items())
    ]


def _mean_distance(group: Sequence[np.ndarray]) -> float:
    return float(pair_distances(group)[np.triu_indices(len(group), 1)].mean())


def _duplicates(group: Sequence[np.ndarray]) -> int:
    roles = [stand(grid).roles for grid in group]
    return len(group) - len({(each.shape, each.tobytes()) for each in roles})
