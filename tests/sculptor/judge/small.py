"""A small dataset, a sculptor without training and a benchmark of both, made once for the tests of this room."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.judge.arms import BenchRequest, sculptor_arm
from vernissage.sculptor.judge.benchmark import BenchmarkSettings, run_benchmark
from vernissage.sculptor.judge.held_out import held_out_questions
from vernissage.sculptor.learn.building import Building
from vernissage.sculptor.learn.model import Sculptor, SculptorShape
from vernissage.sculptor.learn.network import NetworkShape
from vernissage.sculptor.learn.planner import PlannerShape
from vernissage.sculptor.prepare.structures import StructureSettings, make_structures

if TYPE_CHECKING:
    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.judge.results import Benchmark

SHAPE = SculptorShape(
    network=NetworkShape(channels=(16, 32), fine=8, text=16, condition=32),
    planner=PlannerShape(text=16, width=32, blocks=1, path=16),
)
SETTINGS = BenchmarkSettings(
    structures={"normal": 5, "big": 1},
    building=Building(steps=3),
    ablation_structures=3,
    slow_structures=1,
    steps=(1, 3),
    novelty=3,
    grower_tries=2,
    diversity_prompts=1,
    diversity_seeds=2,
    directional_pairs=1,
    buckets=2,
    batches={"normal": (1,)},
    resamples=50,
)


@cache
def dataset() -> Dataset:
    settings = StructureSettings(
        train={"normal": 30, "big": 4}, val={"normal": 2}, test={"normal": 60, "big": 2}, seed=3, workers=1
    )
    with tempfile.TemporaryDirectory() as folder:
        return make_structures(Path(folder) / "own", Path(folder) / "ready", settings)


@cache
def sculptor(seed: int = 0) -> Sculptor:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Sculptor(SHAPE, {"seed": seed}).eval().requires_grad_(requires_grad=False)


@cache
def benchmark() -> Benchmark:
    return run_benchmark({0: sculptor()}, dataset(), SETTINGS)


@cache
def planned() -> tuple[BenchRequest, ...]:
    """Requests of the normal size with plans."""
    asked = [question.request for question in held_out_questions(dataset(), {"normal": 3}, set(), 0)]
    built = sculptor_arm("any", sculptor(), Building(steps=1, edits=0)).build(asked)
    pairs = zip(asked, built.plans, strict=True)
    return tuple(BenchRequest(one.prompt, one.said, SIZES["normal"], one.seed, plan=plan) for one, plan in pairs)
