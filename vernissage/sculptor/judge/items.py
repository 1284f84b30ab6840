"""One row for every structure that an arm built: its anatomy, what it has of what was asked, and what it took."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vernissage.sculptor.domain.anatomy import judge_anatomy
from vernissage.sculptor.domain.attributes import ATTRIBUTES
from vernissage.sculptor.judge.adherence import adherence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from vernissage.sculptor.judge.arms import Built
    from vernissage.sculptor.judge.held_out import Question
    from vernissage.sculptor.judge.novelty import NearestIndex

#: Training seed of arms that were not trained.
UNTRAINED = -1
#: A structure of which so much hangs together and stands counts as one.
NEARLY_WHOLE = 0.99
#: Leaves of a sound tree survive the game's decay but for so many.
LEAST_LEAVES = 0.95
SPECIES = "species"
SAID = {name: f"has_{name}" for name in ATTRIBUTES}


def item_rows(
    arm: str,
    training: int,
    questions: Sequence[Question],
    built: Built,
    nearest: Mapping[str, NearestIndex] | None = None,
    searched: int = 0,
) -> list[dict[str, Any]]:
    """Measure what an arm built.

    Args:
        arm: Its name.
        training: Seed of its training, `UNTRAINED` where there was none.
        questions: What was asked.
        built: What it made of each.
        nearest: For each size, training structures to look for near ones in.
        searched: For so many of each size.

    Returns:
        A row for each question. `has_*` is whether an attribute that was said is there, NaN where it was not said;
        `adherence` is the share of these, without the species, which follows from the palette; `verticality` is NaN
        where a leaning trunk was asked for.
    """
    rows, looked = [], dict.fromkeys(nearest or {}, 0)
    columns = (built.grids, built.species, built.evaluations, built.seconds)
    for question, grid, species, looks, seconds in zip(questions, *columns, strict=True):
        row: dict[str, Any] = {
            "arm": arm,
            "training": training,
            "size": question.size,
            "species": question.species or "other",
            "prompt": question.request.prompt,
            "built_as": species or "other",
            "place": question.place,
        }
        row |= anatomy_of(grid)
        if question.request.said.lean == "leaning":
            row["verticality"] = math.nan
        row |= _adherence(question, grid, species)
        row["held_out_voxels"] = int((question.grid > 0).sum())
        row["seconds"] = seconds
        row["evaluations"] = looks
        found = None
        if nearest is not None and looked.get(question.size, searched) < searched:
            looked[question.size] += 1
            found = nearest[question.size].nearest(grid)
        row["nearest_iou"] = math.nan if found is None else found.iou
        row["nearest_same"] = math.nan if found is None else found.same_cells
        rows.append(row)
    return rows


def anatomy_of(grid: np.ndarray) -> dict[str, Any]:
    """Return the anatomy of one structure as numbers.

    `sound` is whether it is whole, stands on one trunk, has its crown above its wood and leaves that survive: a ball of
    leaves is whole, too. What has no leaves needs none.
    """
    anatomy = judge_anatomy(grid)
    row: dict[str, Any] = {
        name: float(value) if isinstance(value, bool) else value for name, value in asdict(anatomy).items()
    }
    sound = anatomy.whole and anatomy.connectivity == 1 and anatomy.one_trunk
    leafless = math.isnan(anatomy.leaf_survival)
    sound = sound and (leafless or (anatomy.crown_above == 1 and anatomy.leaf_survival >= LEAST_LEAVES))
    return row | {"nearly_whole": float(anatomy.connectivity >= NEARLY_WHOLE), "sound": float(sound)}


def _adherence(question: Question, grid: np.ndarray, species: str | None) -> dict[str, float]:
    found = adherence(question.request.said, grid, species, question.request.size)
    row = {column: float(found[name]) if name in found else math.nan for name, column in SAID.items()}
    known = [value for name, value in found.items() if name != SPECIES]
    return {"adherence": sum(known) / len(known) if known else math.nan} | row
