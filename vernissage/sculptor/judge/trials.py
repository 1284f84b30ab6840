"""What a robustness case of the sculptor is, and its bench: what is put to the test, and the normal case.

Whether a case passes is about behaviour: defined results, refusals in words, equal results where they must be equal.
How well the sculptor builds under odd requests is a number of its own: connectivity as a share of the plain prompt's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vernissage.core.errors import BadParams, VernissageError
from vernissage.core.seeds import derive_seed
from vernissage.sculptor.domain.anatomy import judge_anatomy
from vernissage.sculptor.domain.language import read_prompt
from vernissage.sculptor.domain.roles import ROLES
from vernissage.sculptor.domain.sizes import SIZES, Size
from vernissage.sculptor.learn.coarse import CoarseShape
from vernissage.sculptor.learn.model import SculptorShape
from vernissage.sculptor.learn.network import NetworkShape
from vernissage.sculptor.learn.planner import PlannerShape
from vernissage.sculptor.learn.sculpting import Request, Sculpture, sculpt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.learn.blueprints import First
    from vernissage.sculptor.learn.building import Building
    from vernissage.sculptor.learn.model import Sculptor
    from vernissage.sculptor.learn.training import SculptorTraining

#: The prompt of the normal case.
PLAIN = "tall oak tree with thick trunk"
_FEWEST = 2


@dataclass(frozen=True)
class RobustnessSettings:
    """How the cases are run.

    Attributes:
        structures: Structures behind every mean; a case with several variations shares them out.
        building: How they are built; None as in the looks of the training.
        plan_guidance: Scale of guidance on what comes before the voxels; None as in the training.
        batch: Requests of the case that asks for very many.
        together: Largest batch of the case that compares batches.
        seed: Of all that is drawn.

    Raises:
        BadParams: A value is out of its range.
    """

    structures: int = 12
    building: Building | None = None
    plan_guidance: float | None = None
    batch: int = 1000
    together: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("structures", _FEWEST), ("batch", 10), ("together", 8)):
            if getattr(self, name) < least:
                raise BadParams(f"robustness.sculptor: {name} = {getattr(self, name)}, expected at least {least}")


@dataclass(frozen=True)
class Outcome:
    """What a case found.

    Attributes:
        passed: Whether the criterion holds.
        retained: Connectivity as a share of that in the normal case; None where the case builds nothing to rate.
        found: What was found, as one line.
    """

    passed: bool
    retained: float | None = None
    found: str = ""


@dataclass(frozen=True)
class Case:
    """One trial.

    Attributes:
        number: As in the design of the benchmark.
        name: As printed in tables.
        criterion: What must hold, stated before it runs.
        run: Finds out.
    """

    number: int
    name: str
    criterion: str
    run: Callable[[Bench], Outcome]


@dataclass(frozen=True, eq=False)
class Bench:
    """Everything that a case may use.

    Attributes:
        sculptor: What is put to the test.
        dataset: What it was trained on, with held-out structures.
        training: How it was trained.
        settings: How the cases are run.
        clean: What it makes of the plain prompt.
        folder: Empty folder of one case.
        seed: Randomness of one case.
    """

    sculptor: Sculptor
    dataset: Dataset
    training: SculptorTraining
    settings: RobustnessSettings
    clean: Sequence[Sculpture]
    folder: Path
    seed: int

    @property
    def building(self) -> Building:
        """How structures are built where a case says nothing else."""
        return self.settings.building or self.training.building

    def request(self, prompt: str, number: int = 0, size: Size = SIZES["normal"], **options: Any) -> Request:
        """A request in a user's words; the same number has the same seed in every case."""
        return Request(read_prompt(prompt).text, size, derive_seed(self.settings.seed, "structure", number), **options)

    def build(self, requests: Sequence[Request], building: Building | None = None, **options: Any) -> list[Sculpture]:
        """Build structures; options as of `sculpt`."""
        scale = self.settings.plan_guidance
        guided = {"plan_guidance": self.training.plan_guidance if scale is None else scale, **options}
        return sculpt(self.sculptor, requests, building or self.building, **guided)

    def build_all(self, prompts: Sequence[str], **options: Any) -> tuple[list[Request], list[Sculpture]]:
        """Build as many structures as settings say, of these prompts in turn; each prompt at least once."""
        count = max(self.settings.structures, len(prompts))
        requests = [self.request(prompts[number % len(prompts)], number) for number in range(count)]
        return requests, self.build(requests, **options)

    def retained(self, built: Sequence[Sculpture]) -> float | None:
        """Mean connectivity as a share of that in the normal case; None where even that holds nothing together."""
        return share_of(connectivity(built), connectivity(self.clean))

    def verdict(
        self,
        problems: Sequence[str],
        requests: Sequence[Request] = (),
        built: Sequence[Sculpture] = (),
        found: str = "",
    ) -> Outcome:
        """Judge a case: passed where there are no problems and all that was built is valid.

        Args:
            problems: What is wrong; empty texts are nothing.
            requests: What was asked for.
            built: What was made of it, rated against the normal case.
            found: What to say besides.
        """
        wrong = [problem for problem in problems if problem]
        wrong += [problem for pair in zip(requests, built, strict=True) if (problem := invalid(*pair))]
        if built and not found:
            found = f"connectivity {connectivity(built):.3f}"
        shown = [f"{len(wrong)} problems: {'; '.join(wrong[:3])}"] if wrong else []
        return Outcome(not wrong, self.retained(built) if built else None, "; ".join([*shown, *filter(None, [found])]))


def set_up(
    sculptor: Sculptor, dataset: Dataset, training: SculptorTraining, settings: RobustnessSettings, folder: Path
) -> Bench:
    """Make the bench with its normal case."""
    bench = Bench(sculptor, dataset, training, settings, (), folder, settings.seed)
    return replace(bench, clean=bench.build_all([PLAIN])[1])


def connectivity(built: Sequence[Sculpture]) -> float:
    """Mean connectivity."""
    return float(np.mean([judge_anatomy(sculpture.roles).connectivity for sculpture in built]))


def share_of(mine: float, normal: float) -> float | None:
    """Return a quality as a share of the normal one; None where that is 0."""
    return mine / normal if normal > 0 else None


def invalid(request: Request, sculpture: Sculpture) -> str:
    """What is wrong with a structure, whatever it looks like; empty where nothing is."""
    roles = sculpture.roles
    if roles.shape != request.size.shape or roles.dtype != np.uint8:
        return f"a grid of {roles.shape} {roles.dtype} for {request.size}"
    if int(roles.max()) >= ROLES:
        return f"a voxel that is no role ({int(roles.max())})"
    box = sculpture.plan.shape if sculpture.plan is not None else (0, 0, 0)
    ends = [start + length for start, length in zip(sculpture.corner, box, strict=True)]
    if min(sculpture.corner) < 0 or any(end > side for end, side in zip(ends, roles.shape, strict=True)):
        return f"a plan from {sculpture.corner} to {tuple(ends)} in a grid of {roles.shape}"
    return ""


def same(one: Sculpture, other: Sculpture) -> bool:
    """Whether two structures are equal, bit by bit."""
    return one.roles.dtype == other.roles.dtype and np.array_equal(one.roles, other.roles)


def repeated(built: Sequence[Sculpture]) -> int:
    """How many structures are another one again; empty ones, which are all alike, do not count."""
    grids = [(sculpture.roles.shape, sculpture.roles.tobytes()) for sculpture in built if sculpture.roles.any()]
    return len(grids) - len(set(grids))


def refusal(call: Callable[..., Any], *args: Any, **options: Any) -> VernissageError | None:
    """The error with which our own code refuses; None where it does not. Any other error is the caller's."""
    try:
        call(*args, **options)
    except VernissageError as error:
        return error
    return None


def complaint(call: Callable[..., Any], *args: Any, **options: Any) -> str:
    """The message of :func:`refusal`; empty where there is none."""
    error = refusal(call, *args, **options)
    return "" if error is None else str(error) or type(error).__name__


def refused(what: str, message: str, *expected: str) -> str:
    """What is wrong with a refusal: there is none, it takes more than a line, or a word is missing in it."""
    if not message:
        return f"{what}: not refused"
    missing = [word for word in expected if word not in message]
    if missing or "\n" in message:
        return f"{what}: refused with {message[:120]!r}, expected one line with {', '.join(expected) or 'a reason'}"
    return ""


def small_shape(first: First) -> SculptorShape:
    """A sculptor that learns in seconds, with the same parts as a large one."""
    return SculptorShape(
        first,
        NetworkShape(channels=(16, 32), fine=8, text=16, condition=32),
        PlannerShape(text=16, width=32, blocks=1, path=16),
        CoarseShape(text=16, channels=16, blocks=1, steps=2),
    )


def short_training(training: SculptorTraining, **changes: Any) -> SculptorTraining:
    """The same training of a small sculptor, a few updates long.

    Args:
        training: What to shorten.
        changes: Values that differ from that.
    """
    short = replace(
        training,
        shape=small_shape(training.shape.first),
        epochs=2,
        updates=2,
        warm_up_epochs=0.5,
        building=replace(training.building, steps=2, edits=0, wood_edits=0),
        patience=0,
        checkpoint_every=1,
        voxels=2048,
        mix=dict.fromkeys(SIZES, 1.0),
        captions=1,
        first_updates=2,
        first_batch=8,
        precision="float32",
        validation=1,
        generations=1,
    )
    return replace(short, **changes)


def smallest(dataset: Dataset, *, train: int, val: int) -> Dataset:
    """The structures of a dataset that take least room, for trainings of seconds.

    Args:
        dataset: Where they are from.
        train: How many to learn from.
        val: How many to validate on; where nothing is held out, they are what is learned from.
    """
    import pandas as pd

    grids: list[np.ndarray] = []
    tables = []
    for split, count in (("train", train), ("val", val)):
        part = dataset.part(split) if len(dataset.part(split)) else dataset.part("train")
        rows = np.argsort([grid.size for grid in part.grids], kind="stable")[:count]
        grids += [part.grids[row] for row in rows]
        tables.append(part.table.iloc[rows].assign(split=split))
    return replace(dataset, grids=tuple(grids), table=pd.concat(tables, ignore_index=True))


def finite(value: float) -> str:
    """A number for a table; `none` for NaN."""
    return "none" if math.isnan(value) else f"{value:.3f}"
