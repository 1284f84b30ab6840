"""Bootstrap intervals of means: over structures, over trainings with several seeds, and of paired differences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Values = Sequence[float] | np.ndarray

RESAMPLES = 1000
LEVEL = 0.95
# Draws that are in memory at once.
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Interval:
    """A mean and where it may lie.

    Attributes:
        mean: Of the values that are numbers; NaN without any.
        low: Lower end of the percentile interval.
        high: Upper end.
        count: How many values are numbers.
    """

    mean: float
    low: float
    high: float
    count: int


def bootstrap_means(
    columns: Mapping[str, Values],
    rng: np.random.Generator,
    *,
    groups: Sequence[object] | np.ndarray | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> dict[str, Interval]:
    """Put percentile intervals around the means of several columns (Efron and Tibshirani 1993, section 13.3).

    All columns share the same draws, so many of them cost little more than one.

    Args:
        columns: (n,) numbers each, row by row about the same structures; NaN where there is none.
        rng: Source of the draws.
        groups: (n,) what each row belongs to, such as the seed of the training. With several groups, groups are drawn
            first and then rows within each (two-stage bootstrap, Davison and Hinkley 1997, section 3.8): rows of one
            training are not independent. With three groups the interval is a rough one.
        resamples: How often to draw.
        level: Share of the resampled means that the interval holds.

    Returns:
        An interval for each column.

    Raises:
        ValueError: Columns or groups differ in length, a value is infinite, or the settings make no sense.
    """
    lengths = {len(values) for values in columns.values()} | ({len(groups)} if groups is not None else set())
    if len(lengths) > 1:
        raise ValueError(f"bootstrap: found columns and groups of {sorted(lengths)} rows, expected equal lengths")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"bootstrap: {resamples} resamples, level {level}: expected at least 1, and in (0, 1)")
    if not columns:
        return {}
    table = np.array([np.asarray(values, np.float64) for values in columns.values()]).T
    if np.isinf(table).any():
        raise ValueError("bootstrap: found an infinite value, expected numbers, or NaN where there is none")
    known = ~np.isnan(table)
    values, members = np.where(known, table, 0.0), _members(groups, len(table))
    sums, counts = _resampled(values, known.astype(np.float64), members, rng, resamples)
    means = np.divide(sums, counts, out=np.full_like(sums, math.nan), where=counts > 0)
    return {
        name: _interval(table[known[:, column], column], means[:, column], level) for column, name in enumerate(columns)
    }


def bootstrap_mean(
    values: Values,
    rng: np.random.Generator,
    *,
    groups: Sequence[object] | np.ndarray | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Put a percentile interval around one mean; everything as in `bootstrap_means`."""
    return bootstrap_means({"": values}, rng, groups=groups, resamples=resamples, level=level)[""]


def bootstrap_difference(
    first: Values,
    second: Values,
    rng: np.random.Generator,
    *,
    groups: Sequence[object] | np.ndarray | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Put a percentile interval around the mean of first - second, pair by pair; a pair with a NaN does not count.

    Args:
        first: (n,) numbers.
        second: (n,) numbers of the same prompts and seeds, in the same order.
        rng: Source of the draws.
        groups: As in `bootstrap_means`.
        resamples: How often to draw.
        level: Share of the resampled means that the interval holds.

    Raises:
        ValueError: As in `bootstrap_means`, or the two are not pairs.
    """
    if len(first) != len(second):
        raise ValueError(f"bootstrap of a difference: found {len(first)} and {len(second)} values, expected pairs")
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    return bootstrap_mean(difference, rng, groups=groups, resamples=resamples, level=level)


def _members(groups: Sequence[object] | np.ndarray | None, rows: int) -> list[np.ndarray]:
    """Return the rows of each group, in the order in which the groups appear."""
    if groups is None:
        return [np.arange(rows)] if rows else []
    found: dict[object, list[int]] = {}
    for row, group in enumerate(groups):
        found.setdefault(group, []).append(row)
    return [np.array(members) for members in found.values()]


def _resampled(
    values: np.ndarray, known: np.ndarray, members: list[np.ndarray], rng: np.random.Generator, resamples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (resamples, columns) sums of the drawn values and (resamples, columns) how many of them are numbers."""
    sums, counts = (np.zeros((resamples, values.shape[1])) for _ in range(2))
    if not members:
        return sums, counts
    lengths = np.array([len(rows) for rows in members])
    order, starts = np.concatenate(members), np.concatenate([[0], np.cumsum(lengths)[:-1]])
    at_once = max(1, _BLOCK // (len(members) * int(lengths.max())))
    for begin in range(0, resamples, at_once):
        number = min(at_once, resamples - begin)
        weights = _weights(lengths, starts, number, rng)
        sums[begin : begin + number] = weights @ values[order]
        counts[begin : begin + number] = weights @ known[order]
    return sums, counts


def _weights(lengths: np.ndarray, starts: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return (number, rows) how often each row was drawn, rows being sorted by group."""
    drawn = rng.integers(len(lengths), size=(number, len(lengths)))
    shares = rng.random((number, len(lengths), int(lengths.max())))
    size = lengths[drawn][..., None]
    rows = starts[drawn][..., None] + (shares * size).astype(np.int64)
    # A group gets as many draws as it has rows.
    wanted = np.broadcast_to(np.arange(shares.shape[2]) < size, shares.shape)
    total = int(lengths.sum())
    flat = (np.arange(number)[:, None, None] * total + rows)[wanted]
    return np.bincount(flat, minlength=number * total).reshape(number, total).astype(np.float64)


def _interval(values: np.ndarray, means: np.ndarray, level: float) -> Interval:
    means = means[~np.isnan(means)]
    if not len(values) or not len(means):
        return Interval(math.nan, math.nan, math.nan, len(values))
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(values.mean()), float(low), float(high), len(values))
