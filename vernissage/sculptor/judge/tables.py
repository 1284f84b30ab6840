"""Sums up rows of single structures: means with intervals for each arm, by size, by species, and against ours."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vernissage.core.seeds import numpy_generator
from vernissage.sculptor.judge.arms import HELD_OUT, OURS
from vernissage.sculptor.judge.intervals import bootstrap_difference, bootstrap_means
from vernissage.sculptor.judge.items import SAID, SPECIES, UNTRAINED
from vernissage.sculptor.judge.novelty import copied_share, mann_whitney_z

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What has a mean with an interval in the summary.
MEASURES = (
    "connectivity",
    "whole",
    "nearly_whole",
    "sound",
    "connectivity6",
    "parts",
    "one_trunk",
    "verticality",
    "cast_success",
    "crown_above",
    "leaf_survival",
    "adherence",
    "voxels",
    "wood",
    "leaves",
    "height",
    "nearest_iou",
    "nearest_same",
)
#: What a summary has beside: not means of single structures.
SUMMED = ("macro_adherence", "macro_with_species", "voxel_ratio", "ms", "evaluations")
#: What is compared pair by pair.
_PAIRED = ("connectivity", "whole", "sound", "leaf_survival", "adherence", "voxels")
ALL_SIZES = "all"


def summary_table(items: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """Sum up each arm at each size.

    Args:
        items: Rows as of `item_rows`.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        A row for each arm and size, and for the size `all`: `n`, means with `_low` and `_high`,
        `macro_adherence` (mean over the attributes of the share of the structures that have what was said),
        `macro_with_species`, `voxel_ratio` (blocks built / blocks of the held-out structures that the same prompts
        describe), `ms` and `evaluations`.
    """
    rows = []
    for arm, of_arm in items.groupby("arm", sort=False):
        sizes = [(str(size), part) for size, part in of_arm.groupby("size", sort=False)]
        if len(sizes) > 1:
            sizes.append((ALL_SIZES, of_arm))
        for size, part in sizes:
            rng = numpy_generator(seed, "summary", str(arm), size)
            rows.append({"arm": arm, "size": size, "n": len(part)} | _summed(part, rng, resamples))
    return pd.DataFrame(rows)


def _summed(part: pd.DataFrame, rng: np.random.Generator, resamples: int) -> dict[str, Any]:
    columns = {name: part[name].to_numpy(np.float64) for name in MEASURES}
    columns |= {"macro_adherence": _macro_parts(part, with_species=False)}
    columns |= {"macro_with_species": _macro_parts(part, with_species=True)}
    groups = part["training"].to_numpy()
    found = bootstrap_means(columns, rng, groups=groups, resamples=resamples)
    row: dict[str, Any] = {}
    for name, interval in found.items():
        row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    asked = float(part["held_out_voxels"].mean())
    row["voxel_ratio"] = float(part["voxels"].mean()) / asked if asked else math.nan
    row["ms"] = 1000 * float(part["seconds"].mean())
    row["evaluations"] = float(part["evaluations"].mean())
    return row


def _macro_parts(part: pd.DataFrame, *, with_species: bool) -> np.ndarray:
    """Return (n,) numbers whose mean is the macro adherence, and whose spread is that of it.

    A mean over attributes of means over those prompts that say them has no value for one structure. This is the mean
    plus what each structure moves it by, to first order (influence function, Hampel 1974).
    """
    names = [name for name in SAID if with_species or name != SPECIES]
    has = part[[SAID[name] for name in names]].to_numpy(np.float64)
    said = np.isfinite(has)
    counts = said.sum(0)
    spoken = counts > 0
    if not spoken.any():
        return np.full(len(part), math.nan)
    has, said, counts = has[:, spoken], said[:, spoken], counts[spoken]
    means = np.where(said, has, 0).sum(0) / counts
    moved = np.where(said, has - means, 0) * (len(part) / counts)
    return np.asarray(means.mean() + moved.mean(1))


def species_table(items: pd.DataFrame) -> pd.DataFrame:
    """Return what ours builds of each species, beside the held-out structures of it.

    A structure counts to the species of the held-out one that its prompt describes.
    """
    shown = [name for name in MEASURES if name not in {"nearest_iou", "nearest_same"}]
    rows = []
    for species, part in items[items["arm"].isin([OURS, HELD_OUT])].groupby("species"):
        for arm in (OURS, HELD_OUT):
            own = part[part["arm"] == arm]
            if len(own):
                row = {"species": species, "arm": arm, "n": len(own)} | {name: own[name].mean() for name in shown}
                rows.append(row | {"voxel_ratio": own["voxels"].mean() / own["held_out_voxels"].mean()})
    return pd.DataFrame(rows)


def paired_table(items: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return what each arm is above ours, on the same prompts, plans and seeds.

    Args:
        items: Rows as of `item_rows`.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        A row for each other arm and size with `n` and, for some measures, the mean difference with its interval.
    """
    rows = []
    ours = items[items["arm"] == OURS]
    for (arm, size), part in items[items["arm"] != OURS].groupby(["arm", "size"], sort=False):
        keys = ["place", "prompt"] + (["training"] if (part["training"] != UNTRAINED).any() else [])
        both = part.merge(ours[ours["size"] == size], on=keys, suffixes=("", "_ours"))
        if both.empty:
            continue
        row: dict[str, Any] = {"arm": arm, "size": size, "n": len(both)}
        for name in _PAIRED:
            rng = numpy_generator(seed, "paired", str(arm), str(size), name)
            groups = both["training"].to_numpy()
            theirs, own = (both[column].to_numpy(np.float64) for column in (name, f"{name}_ours"))
            found = bootstrap_difference(theirs, own, rng, groups=groups, resamples=resamples)
            row |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


def novelty_table(items: pd.DataFrame) -> pd.DataFrame:
    """Compare how near structures come to training structures with how near held-out ones do.

    Returns:
        A row for each arm and size that was searched: `n`, `nearest_iou`, `nearest_same`, `copied` (share above .95)
        and `z` (Mann-Whitney against the held-out structures; far above 0 is copying).
    """
    rows = []
    known = items[items["nearest_iou"].notna()]
    for (arm, size), part in known.groupby(["arm", "size"], sort=False):
        own = part["nearest_iou"].to_numpy(np.float64)
        held_out = known[(known["arm"] == HELD_OUT) & (known["size"] == size)]["nearest_iou"].to_numpy(np.float64)
        rows.append(
            {
                "arm": arm,
                "size": size,
                "n": len(own),
                "nearest_iou": float(own.mean()),
                "nearest_same": float(part["nearest_same"].mean()),
                "copied": copied_share(own),
                "z": mann_whitney_z(own, held_out) if len(held_out) else math.nan,
            }
        )
    return pd.DataFrame(rows)


def steps_table(items: pd.DataFrame, steps: Sequence[int], own: int, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return quality over the number of steps, at the normal size.

    Args:
        items: Rows as of `item_rows`; numbers of steps were tried in arms named `ours in N`.
        steps: These numbers.
        own: Steps of ours, of which only the questions count that the others were asked, too.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        A row for each number, columns as of `summary_table`; slow ones may have been asked less.
    """
    arms = {f"ours in {count}": count for count in steps if count != own}
    tried = items[items["arm"].isin(arms) & (items["size"] == "normal")]
    asked = tried.merge(items[items["arm"] == OURS], on=["place", "prompt", "training"], suffixes=("_other", ""))
    ours = asked[list(items.columns)].drop_duplicates(["place", "prompt"]) if len(asked) else items[:0]
    part = pd.concat([tried, ours], ignore_index=True)
    if part.empty:
        return pd.DataFrame()
    found = summary_table(part, resamples=resamples, seed=seed)
    found.insert(0, "steps", found["arm"].map(arms | {OURS: own}))
    return found.drop(columns=["arm", "size"]).sort_values("steps", ignore_index=True)
