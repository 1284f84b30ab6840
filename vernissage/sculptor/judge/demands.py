"""What was asked of the sculptor, stated before anything was measured, and whether it is met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vernissage.sculptor.judge.arms import ANCESTRAL, HELD_OUT, OURS
from vernissage.sculptor.judge.results import by_training, passes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vernissage.sculptor.judge.results import Results

#: Of the normal size, in every training: what must be, and what would be fine.
LEAST_CONNECTIVITY, LEAST_WHOLE, FINE_CONNECTIVITY, FINE_WHOLE = 0.96, 0.95, 0.99, 0.98
#: What larger sizes may lack of the normal one.
MOST_BEHIND = 0.05
LEAST_TRUNK, LEAST_LEAVES, LEAST_CAST, LEAST_ADHERENCE, MOST_VOXELS_OFF = 0.95, 0.95, 0.75, 0.85, 0.1
#: Milliseconds of a structure: of the normal size in a batch, and of the largest.
MOST_MS, MOST_HUGE_MS = 100.0, 2000.0
#: A copying sampler is nearer to what it learned from than held-out structures are.
MOST_NEARER_Z = 2.0
LEAST_RIGHT_MOVES, MOST_COPIED, CASES = 0.75, 0.01, 20
#: Share of structures whose wood is one standing part, as CAST publishes it: without guidance, and its best.
PUBLISHED_PLAIN, PUBLISHED_GUIDED = 0.065, 0.39

MET, DOUBTFUL, MISSED, NOT_MEASURED = "met", "met, not beyond doubt", "missed", "not measured"
_NORMAL = "normal"


@dataclass(frozen=True)
class Demand:
    """One thing that was asked for.

    Attributes:
        demand: In words.
        measured: In words, with its interval.
        verdict: `MET`, `DOUBTFUL` (the interval reaches beyond the target), `MISSED` or `NOT_MEASURED`.
    """

    demand: str
    measured: str
    verdict: str


def judge(results: Results) -> list[Demand]:
    """Compare what was measured with what was asked for."""
    return [
        _connected(results),
        *_fine(results),
        *(_behind(results, size) for size in ("big", "huge")),
        _at_least(results, "one_trunk", LEAST_TRUNK, "one trunk"),
        _at_least(results, "leaf_survival", LEAST_LEAVES, "leaf survival"),
        _at_least(
            results, "cast_success", LEAST_CAST, f"all wood one standing part (CAST, published {PUBLISHED_GUIDED:.0%})"
        ),
        _crown_above(results),
        _voxels(results),
        _at_least(results, "macro_adherence", LEAST_ADHERENCE, "adherence to unseen prompts, species apart"),
        _above_chance(results),
        _right_moves(results),
        _not_copied(results),
        _not_nearer(results),
        _above_plain_sampler(results),
        *(_quick(results, size, most) for size, most in ((_NORMAL, MOST_MS), ("huge", MOST_HUGE_MS))),
        _robust(results),
    ]


def _connected(results: Results) -> Demand:
    demand = f"16x16x16: connectivity at least {LEAST_CONNECTIVITY} and {LEAST_WHOLE:.0%} whole in every training"
    weakest = by_training(results)
    if weakest.empty:
        return Demand(demand, "–", NOT_MEASURED)
    connectivity, whole = float(weakest["connectivity"].min()), float(weakest["whole"].min())
    trainings = f"{len(weakest)} training{'s' if len(weakest) > 1 else ''}"
    met = connectivity >= LEAST_CONNECTIVITY and whole >= LEAST_WHOLE
    return Demand(demand, f"weakest of {trainings}: {connectivity:.3f} and {whole:.1%}", MET if met else MISSED)


def _fine(results: Results) -> list[Demand]:
    row = results.row(OURS)
    found = []
    for name, target in (("connectivity", FINE_CONNECTIVITY), ("whole", FINE_WHOLE)):
        demand = f"16x16x16: mean of {name} at least {target} (the stretch)"
        found.append(Demand(demand, "–", NOT_MEASURED) if row is None else _above(demand, row, name, target))
    return found


def _above_plain_sampler(results: Results) -> Demand:
    demand = "more sound structures than ancestral sampling with the same weights, plans and number of steps"
    paired = results.benchmark.table("paired")
    if paired.empty:
        return Demand(demand, "–", NOT_MEASURED)
    plain_arm = f"{ANCESTRAL} {results.benchmark.facts.get('steps')}"
    found = paired[(paired["arm"] == plain_arm) & (paired["size"] == _NORMAL)]
    if found.empty:
        return Demand(demand, "–", NOT_MEASURED)
    row = found.iloc[0]
    mean, low, high = (-float(row[name]) for name in ("sound", "sound_high", "sound_low"))
    verdict = MISSED if mean <= 0 else MET if low > 0 else DOUBTFUL
    return Demand(demand, f"{100 * mean:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]", verdict)


def _at_least(results: Results, name: str, target: float, words: str) -> Demand:
    demand = f"16x16x16: {words} at least {target}"
    row = results.row(OURS)
    return Demand(demand, "–", NOT_MEASURED) if row is None else _above(demand, row, name, target)


def _behind(results: Results, size: str) -> Demand:
    demand = f"{size}: connectivity and share of whole structures at most {MOST_BEHIND} behind 16x16x16"
    ours, normal = results.row(OURS, size), results.row(OURS)
    if ours is None or normal is None:
        return Demand(demand, "–", NOT_MEASURED)
    lacks = [float(normal[name]) - float(ours[name]) for name in ("connectivity", "whole")]
    text = f"{ours['connectivity']:.3f} ({-lacks[0]:+.3f}) and {ours['whole']:.1%} ({-100 * lacks[1]:+.1f} points)"
    return Demand(demand, text, MET if max(lacks) <= MOST_BEHIND else MISSED)


def _crown_above(results: Results) -> Demand:
    demand = "16x16x16: crowns above their wood not less often than in held-out structures"
    ours, held_out = results.row(OURS), results.row(HELD_OUT)
    if ours is None or held_out is None:
        return Demand(demand, "–", NOT_MEASURED)
    found = _above(demand, ours, "crown_above", float(held_out["crown_above"]))
    return Demand(demand, f"{found.measured}, held out {held_out['crown_above']:.3f}", found.verdict)


def _voxels(results: Results) -> Demand:
    demand = f"16x16x16: as many voxels as the held-out structures, {MOST_VOXELS_OFF:.0%} more or less"
    row = results.row(OURS)
    if row is None or row.get("voxel_ratio") is None or np.isnan(float(row["voxel_ratio"])):
        return Demand(demand, "–", NOT_MEASURED)
    ratio = float(row["voxel_ratio"])
    return Demand(demand, f"{ratio:.3f} times as many", MET if abs(ratio - 1) <= MOST_VOXELS_OFF else MISSED)


def _not_nearer(results: Results) -> Demand:
    demand = f"16x16x16: not nearer to training structures than held-out ones are (z at most {MOST_NEARER_Z:g})"
    table = results.benchmark.table("novelty")
    own = table[(table["arm"] == OURS) & (table["size"] == _NORMAL)] if len(table) else table
    if own.empty:
        return Demand(demand, "–", NOT_MEASURED)
    z = float(own["z"].iloc[0])
    return Demand(demand, f"z {z:+.1f}", MET if z <= MOST_NEARER_Z else MISSED)


def _quick(results: Results, size: str, most: float) -> Demand:
    demand = f"{size}: at most {most:g} ms a structure, the quickest batch that was timed"
    clock = results.benchmark.table("clock")
    own = clock[clock["size"] == size] if len(clock) else clock
    if own.empty:
        return Demand(demand, "–", NOT_MEASURED)
    least = float(own["ms"].min())
    return Demand(demand, f"{least:.0f} ms", MET if least <= most else MISSED)


def _above_chance(results: Results) -> Demand:
    demand = "adherence to the prompt, species apart, above that of exchanged prompts"
    row, chance = results.row(OURS), results.benchmark.facts.get("chance_adherence")
    if row is None or chance is None:
        return Demand(demand, "–", NOT_MEASURED)
    found = _above(demand, row, "macro_adherence", float(chance))
    return Demand(demand, f"{found.measured}, exchanged {chance:.3f}", found.verdict)


def _right_moves(results: Results) -> Demand:
    demand = f"one word exchanged moves the measure the right way in {LEAST_RIGHT_MOVES:.0%} of pairs, for every word"
    table = results.benchmark.table("directional")
    if table.empty:
        return Demand(demand, "–", NOT_MEASURED)
    least = table.loc[table["right"].idxmin()]
    text = f"least: {least['attribute']} {least['low']} to {least['high']} {least['right']:.0%}"
    return Demand(demand, text, MET if least["right"] >= LEAST_RIGHT_MOVES else MISSED)


def _not_copied(results: Results) -> Demand:
    demand = f"at most {MOST_COPIED:.0%} copies of training structures (IoU above .95)"
    table = results.benchmark.table("novelty")
    own = table[table["arm"] == OURS] if len(table) else table
    if own.empty:
        return Demand(demand, "–", NOT_MEASURED)
    copied = float(np.average(own["copied"], weights=own["n"]))
    return Demand(demand, f"{copied:.1%}", MET if copied <= MOST_COPIED else MISSED)


def _robust(results: Results) -> Demand:
    demand = f"{CASES} of {CASES} robustness cases"
    if results.cases.empty:
        return Demand(demand, "–", NOT_MEASURED)
    passed = int(passes(results.cases).sum())
    return Demand(demand, f"{passed} of {len(results.cases)}", MET if passed >= CASES else MISSED)


def _above(demand: str, row: Mapping[str, Any], name: str, target: float) -> Demand:
    mean, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    verdict = MISSED if not mean >= target else MET if low >= target else DOUBTFUL
    return Demand(demand, f"{mean:.3f} [{low:.3f}, {high:.3f}]", verdict)
