"""Whether structures are what their prompts say: every attribute that was said is measured again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vernissage.sculptor.domain.anatomy import bounding_box
from vernissage.sculptor.domain.attributes import ATTRIBUTES, Attributes, crown_measure, measure_attributes
from vernissage.sculptor.domain.trunk import solid_mask, trunk_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vernissage.sculptor.domain.sizes import Size

#: The attribute that is not measured but follows from the palette; the headline leaves it out.
SPECIES = "species"


# --- attributes that were said ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Adherence:
    """How well structures agree with their prompts, in [0, 1]; NaN where nothing was said.

    Attributes:
        macro: Mean over the attributes, species apart, of the share of prompts that got what they say of it.
        macro_with_species: The same with the species.
        by_attribute: That share for each attribute that a prompt speaks of.
        counts: How many prompts speak of each of these.
    """

    macro: float
    macro_with_species: float
    by_attribute: dict[str, float]
    counts: dict[str, int]


def adherence(said: Attributes, roles: np.ndarray, species: str | None, size: Size) -> dict[str, bool]:
    """Say for each attribute of a prompt whether the structure has it.

    Args:
        said: What the prompt says; None where it says nothing.
        roles: (Y, Z, X) uint8, what was built.
        species: What it was built as.
        size: The grid that was asked for, with which height and width are compared.

    Returns:
        The attributes that were said, in their order. An empty grid is nothing at all, not even of its species.
    """
    return matches(said, measured(roles, species, size))


def measured(roles: np.ndarray, species: str | None, size: Size) -> Attributes:
    """Measure what was built as `adherence` does."""
    if not solid_mask(roles).any():
        return Attributes()
    return measure_attributes(roles, species=species, size=size)


def matches(said: Attributes, found: Attributes) -> dict[str, bool]:
    """Compare what was said with what was measured; what cannot be said of the structure is not what was asked for."""
    wanted = {name: value for name in ATTRIBUTES if (value := getattr(said, name)) is not None}
    return {name: getattr(found, name) == value for name, value in wanted.items()}


def macro_adherence(results: Sequence[Mapping[str, bool]]) -> Adherence:
    """Average over prompts, then over attributes: rare attributes count as much as frequent ones.

    Args:
        results: What `adherence` says of each structure.
    """
    columns = {name: [result[name] for result in results if name in result] for name in ATTRIBUTES}
    shares = {name: float(np.mean(column)) for name, column in columns.items() if column}
    return _adherence(shares, {name: len(columns[name]) for name in shares})


def chance_adherence(said: Sequence[Attributes], found: Sequence[Attributes]) -> Adherence:
    """Return the adherence to expect if the prompts were dealt out anew, each order of them being equally likely.

    The expectation is exact: for each prompt the share of all structures that have what it says.

    Args:
        said: What each prompt says.
        found: What was measured on each structure, in the same order.

    Raises:
        ValueError: They differ in number.
    """
    right = _agreement(said, found)
    shares = {name: float(matrix.mean()) for name, (_, matrix) in right.items()}
    return _adherence(shares, {name: len(rows) for name, (rows, _) in right.items()})


def shuffled_macros(
    said: Sequence[Attributes], found: Sequence[Attributes], rng: np.random.Generator, shuffles: int = 200
) -> np.ndarray:
    """Return the macro adherence, species apart, for prompts in random order: how far chance alone leads.

    Args:
        said: What each prompt says.
        found: What was measured on each structure, in the same order.
        rng: Source of the orders.
        shuffles: How many.

    Returns:
        (shuffles,) float64.

    Raises:
        ValueError: They differ in number.
    """
    right = {name: value for name, value in _agreement(said, found).items() if name != SPECIES}
    if not right:
        return np.full(shuffles, math.nan)
    orders = rng.permuted(np.tile(np.arange(len(said)), (shuffles, 1)), axis=1)
    shares = [matrix[np.arange(len(rows)), orders[:, rows]].mean(axis=1) for rows, matrix in right.values()]
    return np.asarray(np.mean(shares, axis=0))


def _agreement(said: Sequence[Attributes], found: Sequence[Attributes]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each attribute: which k of the n prompts speak of it, and (k, n) whether each structure has what they say."""
    if len(said) != len(found):
        raise ValueError(f"adherence: found {len(said)} prompts and {len(found)} structures, expected one for each")
    agreement = {}
    for name in ATTRIBUTES:
        rows = np.array([row for row, each in enumerate(said) if getattr(each, name) is not None], np.int64)
        if len(rows):
            wanted = np.array([getattr(said[row], name) for row in rows], object)
            values = np.array([getattr(each, name) for each in found], object)
            agreement[name] = rows, np.equal(wanted[:, None], values, dtype=object).astype(bool)
    return agreement


def _adherence(shares: dict[str, float], counts: dict[str, int]) -> Adherence:
    built = [share for name, share in shares.items() if name != SPECIES]
    return Adherence(
        macro=float(np.mean(built)) if built else math.nan,
        macro_with_species=float(np.mean(list(shares.values()))) if shares else math.nan,
        by_attribute=shares,
        counts=counts,
    )


# --- one word exchanged -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Swap:
    """A word that is exchanged for another while the seed stays, and what has to become larger by it.

    Attributes:
        attribute: Of `ATTRIBUTES`.
        low: The word with which the measure should be smaller.
        high: The word with which it should be larger.
        measure: Takes a role grid; NaN where it has no such measure.
    """

    attribute: str
    low: str
    high: str
    measure: Callable[[np.ndarray], float]


def right_moves(swap: Swap, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the share of pairs in which the measure moved the right way.

    Args:
        swap: What was exchanged.
        pairs: Role grids (Y, Z, X) uint8 that were built with the low word and with the high word, from one seed.

    Returns:
        In [0, 1]; .5 if the word does nothing. A pair without any move counts half; one in which either structure
        cannot be measured (it is empty, has no trunk or no crown) counts as wrong. NaN without pairs.
    """
    values = np.array([[swap.measure(low), swap.measure(high)] for low, high in pairs], np.float64).reshape(-1, 2)
    moved = np.where(values[:, 1] == values[:, 0], 0.5, values[:, 1] > values[:, 0])
    return float(moved.mean()) if len(moved) else math.nan


def height_of(roles: np.ndarray) -> float:
    """Return the layers from the lowest to the highest block; NaN for an empty grid."""
    return float(_extents(roles)[0]) or math.nan


def width_of(roles: np.ndarray) -> float:
    """Return the larger horizontal extent in voxels; NaN for an empty grid."""
    return float(max(_extents(roles)[1:])) or math.nan


def trunk_of(roles: np.ndarray) -> float:
    """Return the median of wood per layer of the trunk below the crown, or of its lower half if that is more; or NaN.

    The whole count is taken, unlike for the word of `measure_attributes`: small moves matter here, not the class.
    """
    run = trunk_run(roles)
    if not len(run):
        return math.nan
    below = crown_measure(roles).base - run.base
    return float(np.median(run.counts[: max(below, (len(run) + 1) // 2)]))


def lean_of(roles: np.ndarray) -> float:
    """Return how far the trunk moves from its lowest to its highest layer, in voxels; NaN without a trunk."""
    run = trunk_run(roles)
    return run.move if len(run) else math.nan


def density_of(roles: np.ndarray) -> float:
    """Return the density of the crown as of `Crown`; NaN without leaves."""
    return crown_measure(roles).density or math.nan


def crown_ratio_of(roles: np.ndarray) -> float:
    """Return the crown's height / its width, both in voxels; NaN without leaves."""
    crown = crown_measure(roles)
    return (crown.top - crown.base + 1) / (2 * crown.radius + 1) if crown.density else math.nan


SWAPS: tuple[Swap, ...] = (
    Swap("height", "short", "tall", height_of),
    Swap("trunk", "thin", "massive", trunk_of),
    Swap("width", "narrow", "wide", width_of),
    Swap("density", "sparse", "dense", density_of),
    Swap("lean", "straight", "leaning", lean_of),
    Swap("crown", "flat", "conical", crown_ratio_of),
)


def _extents(roles: np.ndarray) -> tuple[int, ...]:
    return roles[bounding_box(solid_mask(roles))].shape
