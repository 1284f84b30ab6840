"""The stages `benchmark` and `robustness` of the sculptor: they open what is needed, train rivals, keep the results."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from vernissage.core.files import fresh_folder
from vernissage.core.progress import Progress
from vernissage.core.tables import fingerprint, write_csv
from vernissage.sculptor.domain.dataset import Dataset
from vernissage.sculptor.judge import robustness
from vernissage.sculptor.judge.arms import Arm, sculptor_arm
from vernissage.sculptor.judge.benchmark import BenchmarkSettings
from vernissage.sculptor.judge.benchmark import run_benchmark as measure
from vernissage.sculptor.judge.continuous import continuous_arm, train_continuous
from vernissage.sculptor.judge.results import CASES_FILE
from vernissage.sculptor.learn.model import Sculptor
from vernissage.sculptor.learn.training import SculptorTraining, train_sculptor

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.core.folders import SystemFolders
    from vernissage.core.params import Params
    from vernissage.sculptor.learn.building import Building

log = logging.getLogger(__name__)

CONTINUOUS = "continuous"


def run_benchmark(folders: SystemFolders, params: Params, training: SculptorTraining) -> None:
    """Compare the sculptor with every baseline.

    Further seeds, and rivals that need a training of their own, are trained here as the sculptor was.

    Args:
        folders: Where data and weights are, and the results go.
        params: All parameters.
        training: How the sculptor was trained.

    Raises:
        MissingArtifact: There is no dataset or no sculptor.
        CorruptArtifact: One of them is damaged.
        BadInput: There is nothing to ask about.
    """
    section = params.benchmark.sculptor
    dataset = Dataset.load(folders.ready)
    scratch = folders.scratch("benchmark")
    sculptors = {training.seed: Sculptor.load(folders.model)}
    for number in range(1, section.seeds):
        seed = training.seed + number
        sculptors[seed] = _trained(dataset, replace(training, seed=seed), scratch)
    rivals: dict[str, Arm] = {name: _rival(name, dataset, training, scratch) for name in section.rivals}
    settings = BenchmarkSettings(
        structures=section.structures.by_name(),
        building=training.building,
        plan_guidance=training.plan_guidance,
        captions=training.captions,
        ablation_structures=section.arm_structures,
        slow_structures=max(2, section.arm_structures // 4),
        steps=section.steps,
        novelty=max(2, section.arm_structures),
        buckets=max(2, section.arm_structures // 2),
        resamples=section.bootstrap,
        seed=params.seed,
    )
    measure(sculptors, dataset, settings, rivals).save(folders.benchmark)
    # Kept until here, so that a benchmark that was killed need not train its rivals again.
    shutil.rmtree(scratch, ignore_errors=True)


def run_robustness(folders: SystemFolders, params: Params, training: SculptorTraining) -> None:
    """Try awkward input; writes a table with a row for every case.

    Args:
        folders: Where data and weights are, and the results go.
        params: All parameters.
        training: How the sculptor was trained.

    Raises:
        MissingArtifact: There is no dataset or no sculptor.
        CorruptArtifact: One of them is damaged.
    """
    settings = robustness.RobustnessSettings(structures=params.robustness.sculptor.structures, seed=params.seed)
    with Progress("sculptor robustness", total=len(robustness.CASES), unit="cases") as progress:
        results = robustness.run_robustness(
            Sculptor.load(folders.model), Dataset.load(folders.ready), settings, training=training, progress=progress
        )
    with fresh_folder(folders.robustness) as folder:
        write_csv(folder / CASES_FILE, robustness.rows_of(results))


def variant(training: SculptorTraining, name: str) -> tuple[SculptorTraining, Building]:
    """Return how a rival is trained and how it builds: as ours, but for the one thing that its name says.

    Args:
        training: How ours was trained.
        name: `no plan`, `coarse`, `all at once` or `no corruption`.

    Raises:
        ValueError: There is no such rival.
    """
    if name in {"no plan", "coarse"}:
        shape = replace(training.shape, first="none" if name == "no plan" else "coarse")
        return replace(training, shape=shape), training.building
    if name == "all at once":
        building = replace(training.building, wood_share=0.0)
        return replace(
            training, corruption=replace(training.corruption, wood=0.0, rest=0.0), building=building
        ), building
    if name == "no corruption":
        return replace(training, corruption=replace(training.corruption, wrong=0.0)), training.building
    raise ValueError(f"rival {name!r}: expected no plan, coarse, all at once, no corruption or {CONTINUOUS}")


def _rival(name: str, dataset: Dataset, training: SculptorTraining, scratch: Path) -> Arm:
    log.info("training the rival %s", name)
    if name == CONTINUOUS:
        return continuous_arm(train_continuous(dataset, training, scratch / CONTINUOUS))
    settings, building = variant(training, name)
    return sculptor_arm(name, _trained(dataset, settings, scratch), building, plan_guidance=training.plan_guidance)


def _trained(dataset: Dataset, settings: SculptorTraining, scratch: Path) -> Sculptor:
    return train_sculptor(dataset, settings, scratch / fingerprint(settings)).sculptor
