"""What a table of structures does not answer: words exchanged, variety within a prompt, likeness, and time."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from vernissage.core.seeds import derive_seed, numpy_generator
from vernissage.sculptor.domain.attributes import Attributes
from vernissage.sculptor.domain.language import read_prompt, swap_word
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.judge.adherence import SWAPS, right_moves
from vernissage.sculptor.judge.arms import BenchRequest
from vernissage.sculptor.judge.diversity import compare_diversity
from vernissage.sculptor.judge.fidelity import fidelity
from vernissage.sculptor.judge.intervals import bootstrap_mean
from vernissage.sculptor.learn.examples import examples_of
from vernissage.sculptor.learn.looks import measure_buckets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.judge.arms import Arm
    from vernissage.sculptor.judge.held_out import Group, Question
    from vernissage.sculptor.learn.model import Sculptor

_NORMAL = "normal"
_REPEATS = 3
_LEAST_FOR_FIDELITY = 24


def directional_table(arm: Arm, questions: Sequence[Question], pairs: int, seed: int) -> pd.DataFrame:
    """Exchange one word of a prompt, keep the seed, and look which way the structure changed.

    Args:
        arm: Who builds.
        questions: Where prompts are taken from.
        pairs: Of each exchange.
        seed: Of what is drawn.

    Returns:
        A row for each exchange: `attribute`, `low`, `high`, `n`, `right` (share that moved the right way, ties count
        half; .5 if the word does nothing) with `right_low` and `right_high`.
    """
    asked = [question for question in questions if question.size == _NORMAL][:pairs]
    if not asked:
        return pd.DataFrame(columns=["attribute", "low", "high", "n", "right", "right_low", "right_high"])
    requests = []
    for swap in SWAPS:
        for number, question in enumerate(asked):
            own = derive_seed(seed, "directional", swap.attribute, number)
            for word in (swap.low, swap.high):
                prompt = read_prompt(swap_word(question.request.prompt, swap.attribute, word))
                requests.append(BenchRequest(prompt.text, prompt.attributes, question.request.size, own))
    grids = iter(arm.build(requests).grids)
    rows = []
    for swap in SWAPS:
        moves = [right_moves(swap, [(next(grids), next(grids))]) for _ in asked]
        found = bootstrap_mean(moves, numpy_generator(seed, "directional", swap.attribute))
        row = {"attribute": swap.attribute, "low": swap.low, "high": swap.high, "n": len(moves)}
        rows.append(row | {"right": found.mean, "right_low": found.low, "right_high": found.high})
    return pd.DataFrame(rows)


def diversity_table(arms: Mapping[str, tuple[Arm, bool]], groups: Sequence[Group], seeds: int) -> pd.DataFrame:
    """Build the same prompts with several seeds and compare how different the results are with the data's own variety.

    Args:
        arms: Name to an arm, and whether all seeds of a prompt get the plan of the first.
        groups: Prompts with the held-out structures that they describe.
        seeds: Of each prompt.

    Returns:
        A row for each: `distance` (mean 1 - IoU within a prompt), `data` (that of the held-out structures), `ratio`,
        `prompts`, `structures`, `duplicates`.
    """
    rows = []
    for name, (arm, one_plan) in arms.items():
        requests = [
            replace(group.request, seed=derive_seed(group.request.seed, "diversity", number))
            for group in groups
            for number in range(seeds)
        ]
        if not one_plan:
            requests = [replace(request, plan=None) for request in requests]
        grids = arm.build(requests).grids if requests else ()
        built = [grids[first : first + seeds] for first in range(0, len(grids), seeds)]
        found = compare_diversity(built, [group.grids for group in groups])
        rows.append(
            {
                "arm": name,
                "distance": found.built.distance,
                "data": found.data.distance,
                "ratio": found.ratio,
                "prompts": found.prompts,
                "structures": found.built.structures,
                "duplicates": found.built.duplicates,
            }
        )
    return pd.DataFrame(rows)


def fidelity_table(grids: Mapping[str, Sequence[np.ndarray]], reference: Sequence[np.ndarray]) -> pd.DataFrame:
    """Compare sets of structures with the held-out ones that the same prompts describe.

    Args:
        grids: Name of an arm to what it built, at one size, question by question.
        reference: The held-out structures of the questions; arms that answered fewer are compared with these only.

    Returns:
        A row for each arm with enough structures for it to mean something: `n`, `nearest_accuracy`, `wasserstein`,
        `voxel_ratio`.
    """
    rows = []
    for arm, built in grids.items():
        beside = reference[: len(built)]
        if len(built) < _LEAST_FOR_FIDELITY or not any(grid.any() for grid in built):
            continue
        found = fidelity(built, beside)
        rows.append(
            {
                "arm": arm,
                "n": len(built),
                "nearest_accuracy": found.nearest_accuracy,
                "wasserstein": found.wasserstein_mean,
                "voxel_ratio": found.voxel_ratio,
            }
        )
    return pd.DataFrame(rows)


def buckets_table(sculptor: Sculptor, dataset: Dataset, structures: int, seed: int) -> pd.DataFrame:
    """Measure loss and accuracy on masked blocks of test structures, for each bucket of mask ratios.

    `air_accuracy` is what the empty grid has of the legacy accuracy: why that is no measure.
    """
    part = dataset.part("test")
    rows = sorted(set(range(0, len(part), max(1, len(part) // max(1, structures)))))[:structures]
    some = type(part)(tuple(part.grids[row] for row in rows), part.table.iloc[rows].reset_index(drop=True))
    if not len(some):
        return pd.DataFrame()
    examples = examples_of(some, sculptor.first, captions=1, seed=seed)
    found = measure_buckets(sculptor, examples, list(range(len(some))), seed)
    voxels = sum(grid.size for grid in examples.grids)
    air = sum(int((grid == 0).sum()) for grid in examples.grids)
    return pd.DataFrame([row | {"air_accuracy": air / voxels} for row in found])


def air_share(dataset: Dataset, size: str = _NORMAL) -> float:
    """Return the share of air in the whole grids of the test structures of a size; NaN without any."""
    grids = dataset.part("test", size).grids
    whole = math.prod(SIZES[size])
    return 1 - sum(int((grid > 0).sum()) for grid in grids) / (len(grids) * whole) if grids else math.nan


def clock_table(arms: Mapping[str, Arm], batches: Mapping[str, Sequence[int]], seed: int) -> pd.DataFrame:
    """Time whole requests, from the prompt to the role grid; the median of three after a first one that is not counted.

    Args:
        arms: Name to an arm.
        batches: Name of a size to the numbers of structures that are asked for at once.
        seed: Of the requests.

    Returns:
        A row for each arm, size and batch: `ms` per structure and `evaluations`.
    """
    rows = []
    for name, arm in arms.items():
        for size, counts in batches.items():
            for count in counts:
                requests = [
                    BenchRequest("tall oak tree", _TALL_OAK, SIZES[size], derive_seed(seed, "clock", number))
                    for number in range(count)
                ]
                arm.build(requests[:1])
                built = [arm.build(requests) for _ in range(_REPEATS)]
                seconds = statistics.median(sum(each.seconds) for each in built)
                looks = statistics.mean(built[0].evaluations)
                rows.append(
                    {"arm": name, "size": size, "batch": count, "ms": 1000 * seconds / count, "evaluations": looks}
                )
    return pd.DataFrame(rows)


_TALL_OAK = Attributes(species="oak", height="tall")
