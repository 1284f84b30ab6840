"""The bar: the best program that solvers, schedules and two tuned scalars give, found on pairs of noise and endpoint.

Candidates race: many on few pairs, the better ones on more. Those that are left have their first and last noise level
tuned step by step, and the best of them meet all pairs, beside what a user gets without tuning.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from vernissage.core.errors import BadInput, BadParams
from vernissage.core.progress import Progress
from vernissage.sampler.domain.programs import SOLVERS, Ending, dpmpp, unipc
from vernissage.sampler.domain.sampling import run_program
from vernissage.sampler.domain.schedules import SCHEDULES, karras, of_training, training_sigmas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vernissage.sampler.domain.denoiser import Condition, Denoiser
    from vernissage.sampler.domain.programs import Program, Solver

#: Network calls of the sampler whose median error is the scale of the saturation.
TAU_CALLS = 8

_ENDINGS: Mapping[str, tuple[Ending, ...]] = {
    "dpmpp": ("lowered", "plain"),
    "unipc": ("lowered", "plain"),
    "deis": ("lowered", "plain", "kept"),
    "ipndm": ("kept", "plain", "lowered"),
}


class Pairs(Protocol):
    """Requests with the endpoints that a program should reach, as a bank of the teacher has them."""

    @property
    def scales(self) -> torch.Tensor:
        """(N,) float guidance scales."""
        ...

    @property
    def endpoints(self) -> torch.Tensor:
        """(N, C, H, W) float."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def noise(self) -> torch.Tensor:
        """(N, C, H, W) normal with variance 1."""
        ...

    def condition(self) -> Condition | None:
        """N conditions, or none."""
        ...


@dataclass(frozen=True)
class Score:
    """Error of a program on some pairs: root mean square errors of the samples to their endpoints, summed up.

    Attributes:
        saturated: Mean of ``1 - exp(-e^2 / (2 tau^2))``, 0 to 1; samples that are not finite count 1.
        median: Median error, in units of the pixels.
        mean: Mean error; infinite where a sample is not finite.
        pairs: How many.
    """

    saturated: float
    median: float
    mean: float
    pairs: int


def criterion(score: Score) -> tuple[float, float]:
    """What ranks candidates on few pairs, less is better: the mean saturating error, then the mean error.

    Where a sample became another picture, how far off it is says nothing; so the saturating error leads.
    """
    return score.saturated, score.mean


def reported(score: Score) -> tuple[float, float]:
    """What ranks those that met all pairs: the mean error, which is what is reported, then the saturating one."""
    return score.mean, score.saturated


def saturating(squared: torch.Tensor, tau: float) -> torch.Tensor:
    """``1 - exp(-e^2 / (2 tau^2))`` of squared errors; differentiable, also at 0.

    Args:
        squared: (...) mean squared errors.
        tau: Error at which it has reached 0.39.
    """
    return -torch.expm1(-squared / (2 * tau**2))


class Course:
    """Pairs made ready to run programs on: noise, conditions and guidance where the endpoints are.

    Args:
        denoiser: The network.
        pairs: Requests with endpoints.
        tau: Scale of the saturation; :func:`usual_tau` where left out.
        shares: (E,) how much of its guidance each network call obeys: 1 all of it, 0 only the condition itself, which
            costs one evaluation instead of two; all of it where left out.
        batch: Samples that go through the network at once.

    Attributes:
        evaluations: Rows of network calls so far, guidance included.

    Raises:
        BadInput: If there are no pairs, or tau is not above 0.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        pairs: Pairs,
        tau: float | None = None,
        *,
        shares: Sequence[float] | None = None,
        batch: int = 512,
    ) -> None:
        if not len(pairs):
            raise BadInput("pairs of noise and endpoint: none, expected at least one; make a bank with more requests")
        self.denoiser, self.batch, self.shares = denoiser, batch, shares
        self.endpoints, self.condition = pairs.endpoints, pairs.condition()
        self.noise = pairs.noise().to(self.endpoints)
        plain = self.condition is None or bool((pairs.scales == 1).all())
        self.scales = None if plain else pairs.scales.to(self.endpoints)
        self.evaluations = 0
        self.tau = self._usual_tau() if tau is None else tau
        if not 0 < self.tau < math.inf:
            raise BadInput(f"tau = {self.tau}: expected a number above 0, such as the median error of a usual sampler")

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.noise)

    def guidance(self, rows: torch.Tensor, calls: int) -> torch.Tensor | None:
        """Scales of some pairs, (M,) or (M, E), or none where nothing is guided.

        Raises:
            BadInput: If there are not as many shares as calls.
        """
        if self.scales is None:
            return None
        scales = self.scales[rows]
        if self.shares is None:
            return scales
        if len(self.shares) != calls:
            raise BadInput(f"guidance: {len(self.shares)} shares for a program of {calls} network calls")
        return 1 + (scales[:, None] - 1) * torch.tensor(self.shares).to(scales)

    def errors(self, programs: Sequence[Program], pairs: int | None = None) -> np.ndarray:
        """Root mean square errors of programs with equally many calls.

        Args:
            programs: P of them; they share batches, so that many of them on few pairs are still quick.
            pairs: How many pairs, the first ones; all where left out.

        Returns:
            (P, N) float64, infinite for samples that are not finite.
        """
        count = len(self) if pairs is None else min(pairs, len(self))
        squared = torch.empty(len(programs) * count, dtype=torch.float64)
        for first in range(0, len(squared), self.batch):
            places = np.arange(first, min(first + self.batch, len(squared)))
            rows = torch.from_numpy(places % count).to(self.noise.device)
            chosen = [programs[place] for place in (places // count).tolist()]
            guidance = self.guidance(rows, chosen[0].evaluations)
            condition = None if self.condition is None else self.condition.rows(rows)
            sampled = run_program(self.denoiser, self.noise[rows], condition, chosen, guidance)
            off = (sampled.samples.double() - self.endpoints[rows].double()).square().flatten(1).mean(dim=1)
            squared[places] = off.where((sampled.failed == -1) & off.isfinite(), torch.inf).cpu()
            self.evaluations += int(sampled.evaluations.sum())
        errors: np.ndarray = squared.sqrt().view(len(programs), count).numpy()
        return errors

    def scores(self, programs: Sequence[Program], pairs: int | None = None) -> list[Score]:
        """Sum up :meth:`errors`, one score for each program."""
        if not programs:
            return []
        scores = []
        for row in self.errors(programs, pairs):
            saturated = saturating(torch.from_numpy(row).square(), self.tau).mean()
            scores.append(Score(float(saturated), float(np.median(row)), float(row.mean()), len(row)))
        return scores

    def _usual_tau(self) -> float:
        """Median error of a sampler as people use it."""
        network, shares = self.denoiser, self.shares
        self.shares = None
        program = dpmpp(karras(TAU_CALLS, network.sigma_min, network.sigma_max))
        tau = float(np.median(self.errors([program])))
        self.shares = shares
        return tau


def usual_tau(denoiser: Denoiser, pairs: Pairs, *, batch: int = 512) -> float:
    """Scale of the saturation: the median error of DPM-Solver++ 2M with 8 calls over the network's whole range.

    Raises:
        BadInput: If there are no pairs, or half of them are not finite.
    """
    return Course(denoiser, pairs, batch=batch).tau


@dataclass(frozen=True)
class GridRow:
    """One candidate and how it did.

    Attributes:
        program: The candidate.
        solver: Name in ``SOLVERS``, or ``stock`` for what a user gets without tuning.
        ending: How its orders end; empty where the solver has no choice.
        schedule: Name in ``SCHEDULES``.
        sigma_max: First noise level.
        sigma_min: Last one above 0.
        score: On the pairs of the last race that it took part in; only rows with equally many pairs compare.
    """

    program: Program
    solver: str
    ending: str
    schedule: str
    sigma_max: float
    sigma_min: float
    score: Score

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a table, without the program's numbers."""
        score = {key: value if math.isfinite(value) else None for key, value in vars(self.score).items()}
        return {
            "solver": self.solver,
            "ending": self.ending,
            "schedule": self.schedule,
            "evaluations": self.program.evaluations,
            "sigma_max": self.sigma_max,
            "sigma_min": self.sigma_min,
            **score,
        }


@dataclass(frozen=True)
class GridSearch:
    """How thoroughly candidates are searched; the defaults take some 12,000 samples and ten of each pair.

    Attributes:
        first_pairs: Pairs of the first race.
        keep: Share of the candidates that goes on from a race.
        growth: How many times the pairs of the race before the next one has.
        tuned: Kinds of candidates (solver, ending, schedule) whose noise levels are tuned.
        tuning_pairs: Pairs that they are tuned on.
        tuning_factors: Factors by which both noise levels are tried higher and lower, one after the other.
        moves: Most moves with each factor.
        finalists: How many meet all pairs.
        ranges: First and last noise levels of the first race, in units of the pictures' standard deviation.
        batch: Samples that go through the network at once.

    Raises:
        BadParams: If a value is out of its range.
    """

    first_pairs: int = 4
    keep: float = 0.25
    growth: float = 2.5
    tuned: int = 6
    tuning_pairs: int = 32
    tuning_factors: tuple[float, ...] = (1.6, 1.25)
    moves: int = 2
    finalists: int = 6
    ranges: tuple[tuple[float, float], ...] = (
        (6.0, 0.3),
        (10.0, 0.2),
        (14.0, 0.12),
        (24.0, 0.07),
        (40.0, 0.04),
    )
    batch: int = 512

    def __post_init__(self) -> None:
        for name in ("first_pairs", "tuned", "tuning_pairs", "finalists", "batch"):
            if getattr(self, name) < 1:
                raise BadParams(f"grid: {name} = {getattr(self, name)}, expected at least 1")
        if not 0 < self.keep < 1 or not self.growth >= 1 or self.moves < 0:
            raise BadParams(
                f"grid: keep = {self.keep}, growth = {self.growth}, moves = {self.moves}; expected a share between 0 "
                "and 1, a factor of at least 1, and 0 or more"
            )
        if not all(high > low > 0 for high, low in self.ranges) or not all(f > 1 for f in self.tuning_factors):
            raise BadParams(
                f"grid: ranges {self.ranges} and tuning factors {self.tuning_factors}, expected pairs of a higher and "
                "a lower noise level above 0, and factors above 1"
            )


@dataclass(frozen=True)
class _Kind:
    """Solver, ending and schedule; two noise levels make a program of it."""

    solver: str
    ending: str
    schedule: str

    def program(self, evaluations: int, sigma_max: float, sigma_min: float) -> Program:
        levels = (evaluations + 1) // 2 if self.solver == "heun" else evaluations
        return solver_of(self.solver, self.ending)(SCHEDULES[self.schedule](levels, sigma_min, sigma_max))


@dataclass(frozen=True)
class _Candidate:
    kind: _Kind
    sigma_max: float
    sigma_min: float
    program: Program


def solver_of(name: str, ending: str = "") -> Solver:
    """A solver of ``SOLVERS`` with an ending, as rows of the grid name them.

    Raises:
        BadInput: If there is none of that name.
    """
    if name not in SOLVERS:
        raise BadInput(f"solver {name!r}, expected one of {', '.join(SOLVERS)}")
    return partial(SOLVERS[name], ending=ending) if ending else SOLVERS[name]  # type: ignore[call-arg]


def stock_programs(
    evaluations: int,
    sigma_min: float,
    sigma_max: float,
    trained: np.ndarray | None = None,
) -> dict[str, Program]:
    """What a user of `diffusers` gets without tuning.

    That is DPMSolverMultistepScheduler and UniPCMultistepScheduler with their defaults (second order, orders that fall
    at the end, sigma 0 last), once with Karras sigmas, once with evenly spaced training timesteps.

    Args:
        evaluations: Network calls.
        sigma_min: The least noise level that the network was taught.
        sigma_max: The highest one.
        trained: (T,) noise levels of its timesteps; those of DDPM that are between both levels where it has none.

    Raises:
        BadInput: If there are no such programs.
    """
    levels = training_sigmas() if trained is None else np.asarray(trained, dtype=np.float64)
    levels = levels[(levels >= sigma_min * (1 - 1e-6)) & (levels <= sigma_max * (1 + 1e-6))]
    schedules = {
        "karras-7": karras(evaluations, sigma_min, sigma_max),
        "linspace": of_training(evaluations, levels, "linspace"),
    }
    solvers: dict[str, Solver] = {"dpmpp-2m": dpmpp, "unipc-2": unipc}
    return {f"{solver} {name}": solvers[solver](sigmas) for name, sigmas in schedules.items() for solver in solvers}


def tune_grid(
    denoiser: Denoiser,
    pairs: Pairs,
    evaluations: int,
    search: GridSearch | None = None,
    *,
    tau: float | None = None,
    stock: Mapping[str, Program] | None = None,
) -> list[GridRow]:
    """Find the best program of the grid for a number of network calls.

    Args:
        denoiser: The network.
        pairs: What to tune on; never what is reported on.
        evaluations: Network calls per sample without guidance, at least 1.
        search: How thoroughly.
        tau: Scale of the saturation; :func:`usual_tau` where left out.
        stock: Programs that must be beaten as well; :func:`stock_programs` where left out.

    Returns:
        All candidates that were tried, the best first: those that met more pairs before the others, then by
        :func:`reported`, then by name. The first one is no worse than any stock program on these pairs.

    Raises:
        BadInput: If there are no pairs or no such programs.
    """
    if evaluations < 1:
        raise BadInput(f"grid: {evaluations} network calls, expected at least 1")
    search = search or GridSearch()
    course = Course(denoiser, pairs, tau, batch=search.batch)
    if stock is None:
        stock = stock_programs(evaluations, denoiser.sigma_min, denoiser.sigma_max)
    return _Race(course, evaluations, search).run(stock)


def tune_grids(
    denoiser: Denoiser,
    pairs: Pairs,
    evaluations: Iterable[int] = range(1, 17),
    search: GridSearch | None = None,
    *,
    tau: float | None = None,
    stock: Callable[[int], Mapping[str, Program]] | None = None,
) -> dict[int, list[GridRow]]:
    """Do :func:`tune_grid` for several numbers of network calls, with one tau and with progress.

    Raises:
        BadInput: As there.
    """
    tables: dict[int, list[GridRow]] = {}
    budgets = list(evaluations)
    tau = usual_tau(denoiser, pairs, batch=(search or GridSearch()).batch) if tau is None else tau
    with Progress("grid", total=sum(budgets), unit="network calls tuned") as progress:
        for calls in budgets:
            started = time.monotonic()
            programs = None if stock is None else stock(calls)
            rows = tables[calls] = tune_grid(denoiser, pairs, calls, search, tau=tau, stock=programs)
            seconds = time.monotonic() - started
            progress.advance(calls, calls=calls, error=rows[0].score.median, per_candidate=seconds / len(rows))
    return tables


class _Race:
    """Candidates of one number of calls, and the last score of each."""

    def __init__(self, course: Course, evaluations: int, search: GridSearch) -> None:
        self.course, self.calls, self.search = course, evaluations, search
        self.sigma_data = course.denoiser.sigma_data
        self.limits = (course.denoiser.sigma_min, course.denoiser.sigma_max)
        # Programs of equal numbers are one candidate, whatever wrote them.
        self.known: dict[object, _Candidate] = {}
        self.scores: dict[_Candidate, Score] = {}

    def run(self, stock: Mapping[str, Program]) -> list[GridRow]:
        search = self.search
        field = [
            candidate
            for kind in self._kinds()
            for high, low in search.ranges
            if (candidate := self._candidate(kind, high * self.sigma_data, low * self.sigma_data)) is not None
        ]
        field = self._unique(field)
        pairs = float(search.first_pairs)
        while True:
            self._score(field, round(pairs))
            field = self._best(field)
            if len(field) > 2 * search.tuned and pairs < len(self.course):
                field = field[: max(search.tuned, math.ceil(len(field) * search.keep))]
            if len(field) <= 2 * search.tuned or pairs >= len(self.course):
                break
            pairs = min(pairs * search.growth, len(self.course))
        kinds = self._first_of_each_kind(field)[: search.tuned]
        tuned = self._tuned(kinds)
        finalists = self._best(tuned)[: search.finalists]
        self._score(finalists, len(self.course))
        rows = [self._row(candidate) for candidate in self.scores]
        programs = list(stock.values())
        for name, program, score in zip(stock, programs, self.course.scores(programs), strict=True):
            rows.append(GridRow(program, "stock", "", name, program.sigmas[0], program.sigmas[-2], score))
        return sorted(rows, key=lambda row: (-row.score.pairs, *reported(row.score), _name(row)))

    def _kinds(self) -> list[_Kind]:
        schedules = list(SCHEDULES) if self.calls > 2 else list(SCHEDULES)[:1]  # both ends are all there is
        kinds = []
        for solver in SOLVERS:
            if solver == "heun" and self.calls % 2 == 0:
                continue
            endings = _ENDINGS.get(solver.split("-")[0], ("",))
            kinds += [_Kind(solver, ending, schedule) for schedule in schedules for ending in endings]
        return kinds

    def _candidate(self, kind: _Kind, sigma_max: float, sigma_min: float) -> _Candidate | None:
        """Within the network's range; none where nothing is left of it."""
        high, low = min(sigma_max, self.limits[1]), max(sigma_min, self.limits[0])
        if not high > low * 1.01:
            return None
        program = kind.program(self.calls, high, low)
        # Rounded, because two solvers write the same rule with other last bits.
        rows = [program.sigmas, *program.coefficients]
        numbers = tuple(tuple(round(value, 10) for value in row) for row in rows)
        return self.known.setdefault((numbers, program.corrections), _Candidate(kind, high, low, program))

    def _score(self, field: Sequence[_Candidate], pairs: int) -> None:
        """Score those that have not met as many pairs yet."""
        pairs = min(pairs, len(self.course))
        fresh = [candidate for candidate in self._unique(field) if self._met(candidate) < pairs]
        scores = self.course.scores([candidate.program for candidate in fresh], pairs)
        self.scores.update(zip(fresh, scores, strict=True))

    def _met(self, candidate: _Candidate) -> int:
        return self.scores[candidate].pairs if candidate in self.scores else 0

    def _tuned(self, field: list[_Candidate]) -> list[_Candidate]:
        """Move both noise levels of each kind for as long as that helps."""
        # Nobody may have met more pairs than who is compared with it.
        pairs = max(self.search.tuning_pairs, *map(self._met, field))
        self._score(field, pairs)
        for factor in self.search.tuning_factors:
            still = set(range(len(field)))
            for _ in range(self.search.moves):
                around = {place: self._neighbours(field[place], factor) for place in sorted(still)}
                self._score([candidate for some in around.values() for candidate in some], pairs)
                for place, some in around.items():
                    best = self._best([field[place], *some])[0]
                    if best is field[place]:
                        still.discard(place)
                    field[place] = best
        return self._unique(field)

    def _neighbours(self, candidate: _Candidate, factor: float) -> list[_Candidate]:
        high, low = candidate.sigma_max, candidate.sigma_min
        moves = [(high * factor, low), (high / factor, low), (high, low * factor), (high, low / factor)]
        made = [self._candidate(candidate.kind, *move) for move in moves]
        return [one for one in made if one is not None]

    def _best(self, field: Sequence[_Candidate]) -> list[_Candidate]:
        """The best first; the order of the field decides between equals."""
        return sorted(self._unique(field), key=lambda one: (-self._met(one), *criterion(self.scores[one])))

    def _row(self, one: _Candidate) -> GridRow:
        kind, levels = one.kind, one.program.sigmas
        return GridRow(one.program, kind.solver, kind.ending, kind.schedule, levels[0], levels[-2], self.scores[one])

    @staticmethod
    def _unique(field: Sequence[_Candidate]) -> list[_Candidate]:
        return list(dict.fromkeys(field))

    @staticmethod
    def _first_of_each_kind(field: Sequence[_Candidate]) -> list[_Candidate]:
        first: dict[_Kind, _Candidate] = {}
        for candidate in field:
            first.setdefault(candidate.kind, candidate)
        return list(first.values())


def _name(row: GridRow) -> tuple[str, str, str, float, float]:
    return row.solver, row.ending, row.schedule, row.sigma_max, row.sigma_min
