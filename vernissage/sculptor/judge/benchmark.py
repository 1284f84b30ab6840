"""Puts the sculptor before the judges: the same held-out prompts for every arm, everything measured on each grid."""

from __future__ import annotations

import logging
import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vernissage.core.errors import BadInput
from vernissage.core.parallel import threads_for_parts
from vernissage.core.progress import Progress
from vernissage.core.seeds import numpy_generator
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.judge import probes, tables
from vernissage.sculptor.judge.adherence import chance_adherence, measured
from vernissage.sculptor.judge.arms import (
    ANCESTRAL,
    FEW_STEPS,
    GROWER,
    HELD_OUT,
    OURS,
    REAL,
    RETRIEVAL,
    SOFT_MIXTURE,
    Arm,
    Built,
    all_air,
    evenly,
    grower_arm,
    joined,
    ladder,
    retrieval_arm,
    sculptor_arm,
    steps_arms,
)
from vernissage.sculptor.judge.held_out import Question, described_groups, held_out_questions, training_sentences
from vernissage.sculptor.judge.items import UNTRAINED, anatomy_of, item_rows
from vernissage.sculptor.judge.novelty import NearestIndex
from vernissage.sculptor.judge.results import Benchmark, Shown
from vernissage.sculptor.learn.building import Building

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.learn.model import Sculptor

log = logging.getLogger(__name__)

_NORMAL = "normal"
# Arms that look more often than this are shown fewer questions.
_SLOW = 24
_COMPARED, _WORST, _EACH_SHOWN = 6, 12, 4


@dataclass(frozen=True)
class BenchmarkSettings:
    """How much is measured.

    Attributes:
        structures: Name of a size to the number of held-out prompts.
        building: How ours builds.
        plan_guidance: Of ours.
        captions: Sentences on each structure in training: these are not asked.
        ablations: Whether to measure other ways to build with the same weights.
        ablation_structures: Prompts of the normal size for each of these and for each rival.
        slow_structures: Prompts for those among them that look more than two dozen times.
        steps: Other numbers of steps for ours.
        novelty: Structures of each size of which the nearest training structure is looked for.
        grower_tries: Trees that the grower may grow for one that is as asked.
        diversity_prompts: Prompts that are built with several seeds.
        diversity_seeds: These seeds.
        directional_pairs: Pairs of prompts for each exchange of a word.
        buckets: Test structures on which the network itself is measured.
        batches: Name of a size to the numbers of structures that are timed together.
        real: Own structures of all splits that are measured beside, at most.
        resamples: Of the bootstrap.
        seed: Of everything that is drawn.
    """

    structures: Mapping[str, int] = field(default_factory=lambda: {"normal": 256, "big": 32, "huge": 12})
    building: Building = field(default_factory=Building)
    plan_guidance: float = 1.5
    captions: int = 2
    ablations: bool = True
    ablation_structures: int = 32
    slow_structures: int = 6
    steps: tuple[int, ...] = (1, 2, 4, 8, 12, 16, 32, 128)
    novelty: int = 96
    grower_tries: int = 16
    diversity_prompts: int = 6
    diversity_seeds: int = 6
    directional_pairs: int = 6
    buckets: int = 32
    batches: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {"normal": (1, 32), "huge": (2,)})
    real: int = 400
    resamples: int = 1000
    seed: int = 0


def run_benchmark(
    sculptors: Mapping[int, Sculptor],
    dataset: Dataset,
    settings: BenchmarkSettings,
    rivals: Mapping[str, Arm] | None = None,
) -> Benchmark:
    """Measure ours, what there is without a network, other ways to build with the same weights, and rivals.

    Every arm is asked the same questions: captions of test structures that no training sentence was. Arms that work
    with plans get those of ours, so that they differ in what comes after.

    Args:
        sculptors: Seed of a training to its sculptor; ablations, rivals and probes are measured beside the first.
        dataset: Structures; asked about are those in ``test``, retrieved from and compared with those in ``train``.
        settings: How much.
        rivals: Other trained networks by name.

    Raises:
        BadInput: There is no sculptor, or nothing to ask about.
    """
    if not sculptors:
        raise BadInput("benchmark of the sculptor: no sculptor, expected at least one training")
    with threads_for_parts():
        return _Run(sculptors, dataset, settings, rivals or {}).run()


class _Run:
    """One run; what was built so far is in its attributes."""

    def __init__(
        self,
        sculptors: Mapping[int, Sculptor],
        dataset: Dataset,
        settings: BenchmarkSettings,
        rivals: Mapping[str, Arm],
    ) -> None:
        self.sculptors, self.dataset, self.settings, self.rivals = dict(sculptors), dataset, settings, rivals
        self.first = min(self.sculptors)
        learned_with = [int(sculptor.facts.get("seed", seed)) for seed, sculptor in self.sculptors.items()]
        seen = training_sentences(dataset, settings.captions, learned_with)
        self.questions = held_out_questions(dataset, settings.structures, seen, settings.seed)
        if not self.questions:
            raise BadInput(
                "benchmark of the sculptor: no test structures of the sizes that are asked for "
                f"({', '.join(settings.structures)}); raise structures.test, or add series of your own"
            )
        training = dataset.part("train")
        sizes = {question.size for question in self.questions}
        self.training = training
        self.nearest = {
            size: NearestIndex(grids)
            for size in sizes
            if settings.novelty and (grids := training.part("train", size).grids)
        }
        self.rows: list[dict[str, Any]] = []
        self.built: dict[str, Built] = {}
        self.seconds: dict[str, float] = {}

    def run(self) -> Benchmark:
        """Measure everything."""
        settings = self.settings
        found: dict[str, pd.DataFrame] = {}
        parts = [
            *self._parts(),
            ("tables", lambda: found.update(self._tables())),
            ("probes", lambda: found.update(self._probes())),
        ]
        with Progress("sculptor benchmark", total=len(parts), unit="parts") as progress:
            for name, work in parts:
                with self._timed(name):
                    work()
                progress.advance(1)
        facts = self._facts()
        for name, seconds in self.seconds.items():
            log.info("%s: %.1f s", name, seconds)
        return Benchmark(found, facts | {"seconds": self.seconds, "steps": settings.building.steps}, self._shown(found))

    def _parts(self) -> Iterator[tuple[str, Any]]:
        yield OURS, self._ours
        yield "references", self._references
        if self.settings.ablations:
            yield "ablations", self._ablations
        if self.rivals:
            yield "rivals", self._rivals

    def _ours(self) -> None:
        settings = self.settings
        for seed in sorted(self.sculptors):
            arm = sculptor_arm(OURS, self.sculptors[seed], settings.building, plan_guidance=settings.plan_guidance)
            self._measure(arm, training=seed)
            if seed == self.first:
                plans = self.built[OURS].plans
                # From here on all arms build from these plans.
                self.questions = [
                    replace(question, request=replace(question.request, plan=plan))
                    for question, plan in zip(self.questions, plans, strict=True)
                ]

    def _references(self) -> None:
        counts = (0,) * len(self.questions)
        held_out = Built(
            tuple(question.grid for question in self.questions),
            tuple(question.species for question in self.questions),
            evenly(0.0, len(counts)),
            counts,
        )
        self._keep(HELD_OUT, UNTRAINED, self.questions, held_out)
        for arm in (all_air(), grower_arm(self.settings.grower_tries), retrieval_arm(self.training)):
            self._measure(arm)

    def _ablations(self) -> None:
        settings, sculptor = self.settings, self.sculptors[self.first]
        arms = ladder(sculptor, settings.building, plan_guidance=settings.plan_guidance)
        others = [count for count in settings.steps if count != settings.building.steps]
        arms += steps_arms(sculptor, settings.building, others, plan_guidance=settings.plan_guidance).values()
        for arm in arms:
            self._measure(arm)

    def _rivals(self) -> None:
        for name, arm in self.rivals.items():
            self._measure(replace(arm, name=name))

    def _measure(self, arm: Arm, *, training: int | None = None) -> None:
        """Ask an arm: everything if it is ours or needs no network, else a part."""
        questions = self.questions
        if arm.learned and training is None:
            settings = self.settings
            most = settings.slow_structures if arm.evaluations > _SLOW else settings.ablation_structures
            questions = [question for question in questions if question.size == _NORMAL][:most]
        answering = self.first if arm.learned and training is None else training
        if not questions:
            return
        # Size by size, so that each has its own time.
        of_size = [
            [q.request for q in questions if q.size == size] for size in dict.fromkeys(q.size for q in questions)
        ]
        built = joined([arm.build(requests) for requests in of_size])
        self._keep(arm.name, UNTRAINED if answering is None else answering, questions, built)

    def _keep(self, name: str, training: int, questions: Sequence[Question], built: Built) -> None:
        if training in {UNTRAINED, self.first}:
            self.built[name] = built
        searching = name in {OURS, HELD_OUT, GROWER} and set(self.nearest) >= {q.size for q in questions}
        nearest = self.nearest if searching and training in {UNTRAINED, self.first} else None
        self.rows += item_rows(name, training, questions, built, nearest, self.settings.novelty)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 2)

    # --- what is made of it -------------------------------------------------------------------------------------------

    def _tables(self) -> dict[str, pd.DataFrame]:
        settings, items = self.settings, pd.DataFrame(self.rows)
        summary = tables.summary_table(items, resamples=settings.resamples, seed=settings.seed)
        normal = [n for n, question in enumerate(self.questions) if question.size == _NORMAL]
        same_size = {
            name: [built.grids[n] for n in normal if n < len(built)]
            for name, built in self.built.items()
            if name != HELD_OUT
        }
        return {
            "items": items,
            "summary": summary,
            "species": tables.species_table(items),
            "paired": tables.paired_table(items, resamples=settings.resamples, seed=settings.seed),
            "novelty": tables.novelty_table(items),
            "steps": tables.steps_table(
                items, settings.steps, settings.building.steps, resamples=settings.resamples, seed=settings.seed
            ),
            "fidelity": probes.fidelity_table(same_size, [self.questions[n].grid for n in normal]),
            "real": self._real(),
        }

    def _probes(self) -> dict[str, pd.DataFrame]:
        settings, sculptor = self.settings, self.sculptors[self.first]
        ours = sculptor_arm(OURS, sculptor, settings.building, plan_guidance=settings.plan_guidance)
        found = {"buckets": probes.buckets_table(sculptor, self.dataset, settings.buckets, settings.seed)}
        if settings.directional_pairs:
            pairs, seed = settings.directional_pairs, settings.seed
            found["directional"] = probes.directional_table(ours, self.questions, pairs, seed)
        groups = described_groups(self.dataset, self.questions, settings.diversity_prompts, _NORMAL)
        if groups:
            arms = {OURS: (ours, False), f"{OURS}, one plan": (ours, True)}
            for arm in ladder(sculptor, settings.building) if settings.ablations else []:
                if arm.name == f"{SOFT_MIXTURE} {min(FEW_STEPS, settings.building.steps)}":
                    arms[f"{arm.name}, one plan"] = (arm, True)
            found["diversity"] = probes.diversity_table(arms, groups, settings.diversity_seeds)
        if settings.batches:
            found["clock"] = probes.clock_table({OURS: ours}, settings.batches, settings.seed)
        return found

    def _real(self) -> pd.DataFrame:
        """Anatomy of the user's own structures, for each size."""
        table = self.dataset.table
        places = np.flatnonzero((table["source"] == "own").to_numpy(bool))
        if len(places) > self.settings.real:
            rng = numpy_generator(self.settings.seed, "real")
            places = np.sort(rng.choice(places, self.settings.real, replace=False))
        rows = [{"size": table["size"].iloc[place]} | anatomy_of(self.dataset.grids[place]) for place in places]
        if not rows:
            return pd.DataFrame()
        frame = pd.DataFrame(rows)
        means = frame.groupby("size", sort=False).mean(numeric_only=True)
        means.insert(0, "n", frame.groupby("size", sort=False).size())
        return means.reset_index().assign(arm=REAL)

    def _facts(self) -> dict[str, Any]:
        normal = [n for n, question in enumerate(self.questions) if question.size == _NORMAL]
        ours = self.built[OURS]
        said = [self.questions[n].request.said for n in normal]
        found = [measured(ours.grids[n], ours.species[n], SIZES[_NORMAL]) for n in normal]
        chance = chance_adherence(said, found).macro if normal else math.nan
        sculptor = self.sculptors[self.first]
        return {
            "trainings": sorted(self.sculptors),
            "first": sculptor.first,
            "epoch": sculptor.facts.get("epoch"),
            "weights": sum(p.numel() for p in sculptor.parameters()),
            "questions": {size: sum(q.size == size for q in self.questions) for size in self.settings.structures},
            "chance_adherence": None if math.isnan(chance) else chance,
            "air_share": probes.air_share(self.dataset) if normal else None,
            "training_structures": len(self.training),
        }

    # --- pictures -----------------------------------------------------------------------------------------------------

    def _shown(self, found: Mapping[str, pd.DataFrame]) -> list[Shown]:
        everything = range(len(self.questions))
        shown = [self._as_shown("structures", OURS, n) for n in self._varied(everything)]
        few = min(FEW_STEPS, self.settings.building.steps)
        named = (HELD_OUT, OURS, f"{ANCESTRAL} {few}", f"{SOFT_MIXTURE} {few}", RETRIEVAL, *self.rivals)
        arms = [arm for arm in named if arm in self.built]
        asked_all = range(min(len(self.built[arm]) for arm in arms))
        columns = self._varied(asked_all)[:_COMPARED]
        shown += [self._as_shown("compared", arm, n) for arm in arms for n in columns]
        own = found["items"][(found["items"]["arm"] == OURS) & (found["items"]["training"] == self.first)]
        worst = own.reset_index(drop=True).sort_values(
            ["connectivity", "sound", "leaf_survival", "adherence"], kind="stable"
        )
        for n in worst.index[:_WORST]:
            row = worst.loc[n]
            words = "nothing at all" if not row["voxels"] else f"connectivity {row['connectivity']:.2f}"
            words += "" if math.isnan(row["leaf_survival"]) else f", leaves {row['leaf_survival']:.2f}"
            shown.append(self._as_shown("worst", OURS, n, f"{words}: "))
        return shown

    def _as_shown(self, sheet: str, arm: str, number: int, words: str = "") -> Shown:
        built, prompt = self.built[arm], self.questions[number].request.prompt
        return Shown(sheet, arm, words + (prompt or "(no words)"), built.species[number], built.grids[number])

    def _varied(self, numbers: Sequence[int]) -> list[int]:
        """Questions for a sheet, none picked by its result: of each size the first of every species, then others."""
        chosen: list[int] = []
        for size, most in ((_NORMAL, 2 * _COMPARED), ("big", _EACH_SHOWN), ("huge", _EACH_SHOWN)):
            of_size = [n for n in numbers if self.questions[n].size == size]
            firsts: dict[str | None, int] = {}
            for n in of_size:
                firsts.setdefault(self.questions[n].species, n)
            chosen += list(dict.fromkeys([*firsts.values(), *of_size]))[:most]
        return chosen
