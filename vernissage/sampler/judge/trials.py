"""What a robustness case of the sampler is, and its bench: who samples, requests, and the normal case to compare with.

Quality is 1 less the saturating error to what many steps make of the same noise, 0 to 1. Where a case changes what is
asked for (another start, another network, another scale), many steps answer the changed request, too: a case asks what
few steps lose against many, not whether a strange request has a strange answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from vernissage.core.errors import BadInput, BadParams
from vernissage.core.seeds import numpy_generator
from vernissage.sampler.domain.denoiser import ClassLabels
from vernissage.sampler.domain.programs import unipc
from vernissage.sampler.domain.sampling import Sampled, run_program
from vernissage.sampler.domain.schedules import log_snr
from vernissage.sampler.judge.arms import CountedStudent, Requests, run_entries
from vernissage.sampler.judge.distances import frechet_distance, paired_errors, saturating
from vernissage.sampler.judge.equal_quality import equivalence
from vernissage.sampler.judge.probes import Probe
from vernissage.sampler.learn.experts import ACTIONS, ADAPTIVE_NOISE, EXPERTS, RISES, STATIC
from vernissage.sampler.learn.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from vernissage.sampler.domain.denoiser import Condition, Denoiser
    from vernissage.sampler.judge.arms import BankLike
    from vernissage.sampler.learn.book import Entry, ProgramBook
    from vernissage.sampler.learn.classifiers import Embedding
    from vernissage.sampler.learn.controller import SteeringController
    from vernissage.sampler.learn.slots import Student

#: Results that differ by less are equal but for rounding, in units of the pictures' standard deviation: what a batch of
#: another size or a thread more may change.
ROUNDING = 1e-3
#: Network calls of the program that answers changed requests; on the digits it ends within a tenth of tau.
REFERENCE_CALLS = 16
#: The reference leaves out this many times the least noise level that the network was taught.
_REFERENCE_LAST = 5.0
#: Decisions after which a request counts as endless: several times what the shortest strides take.
_DECISIONS_PER_CALL, _DECISIONS_BESIDE = 4, 8
_SCRIPT = 64
_LEAST_REQUESTS = 24


class Drawn(Protocol):
    """What a draw gives.

    Attributes:
        sample: (N, C, H, W).
        nfe: (N,) evaluations.
    """

    sample: torch.Tensor
    nfe: torch.Tensor


class Draw(Protocol):
    """How a user draws samples."""

    def __call__(
        self, labels: Sequence[int], seeds: Sequence[int], *, price: float, scale: float, budget: int | None = None
    ) -> Drawn:
        """Draw one sample for each of N labels and N seeds."""
        ...


class Steer(Protocol):
    """Who decides for all slots at once."""

    def __call__(self, seen: np.ndarray, owner: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Choose.

        Args:
            seen: (S, 64) observations.
            owner: (S,) int, which request each slot has; -1 for none.
            turn: (S,) int, how many decisions that request has had.

        Returns:
            (S, 4) actions, and (S, 8) gates or none.
        """
        ...


@dataclass(frozen=True, eq=False)
class Subject:
    """What is put to the test.

    Attributes:
        denoiser: The network.
        book: Its programs.
        bank: Requests that nothing was tuned on, with the teacher's endpoints.
        folder: Scratch.
        controller: Who steers; the static programs where left out.
        student: Answers in one evaluation, where there is one.
        conditions: Makes conditions of (N,) long labels, as the bank does.
        classes: Number of labels; 0 where the network knows no classes.
        real: (M, C, H, W) pictures to compare sets with.
        features: What sets are looked at through.
        relatives: Networks that are almost the same, by name: trained a little less, or with another seed.
        draw: What a user calls.
        scheduler_from: Makes a scheduler of `diffusers` of a program.
    """

    denoiser: Denoiser
    book: ProgramBook
    bank: BankLike
    folder: Path
    controller: SteeringController | None = None
    student: Student | None = None
    conditions: Callable[[torch.Tensor], Condition | None] = ClassLabels
    classes: int = 0
    real: torch.Tensor | None = None
    features: Embedding | None = None
    relatives: Mapping[str, Denoiser] = field(default_factory=dict)
    draw: Draw | None = None
    scheduler_from: Callable[[Entry], Any] | None = None


@dataclass(frozen=True)
class RobustnessSettings:
    """How the cases are run.

    Attributes:
        requests: Requests of the bank behind each verdict on quality; a case with several variations shares them out.
        prices: Prices of a network evaluation; each request has one of them.
        margin: By how much ours may cost more than the static programs, in units of the saturating error.
        resamples: Of the requests, for the interval of that difference.
        seed: Of all that is drawn.

    Raises:
        BadParams: If a value is out of its range.
    """

    requests: int = 64
    prices: tuple[float, ...] = (0.004, 0.012, 0.04)
    margin: float = 0.05
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.requests < _LEAST_REQUESTS or self.resamples < 100:
            raise BadParams(
                f"robustness: {self.requests} requests and {self.resamples} resamplings, expected at least "
                f"{_LEAST_REQUESTS} and 100"
            )
        if not self.prices or not all(0 <= price < 1 for price in self.prices) or not 0 < self.margin < 1:
            raise BadParams(
                f"robustness: prices {self.prices} and margin {self.margin}, expected prices from 0 to below 1 and a "
                "margin between 0 and 1"
            )


@dataclass(frozen=True)
class Outcome:
    """What a case found.

    Attributes:
        passed: Whether the criterion holds.
        value: The number that the criterion is about.
        retained: Quality as a share of that in the normal case; none where the case is not about quality.
        note: What else a reader should know.
    """

    passed: bool
    value: float | None = None
    retained: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Case:
    """One trial.

    Attributes:
        number: As in the table of the benchmark's design.
        name: As printed in tables.
        criterion: What must hold, stated before it runs.
        run: Finds out.
    """

    number: int
    name: str
    criterion: str
    run: Callable[[Bench], Outcome]


@dataclass(frozen=True, eq=False)
class Tasks:
    """Requests with what a sampler must know beside.

    Attributes:
        requests: Noise, condition, labels, scales and endpoints, N of each.
        prices: (N,) float32.
        budgets: (N,) long, most evaluations of each; none without.
    """

    requests: Requests
    prices: torch.Tensor
    budgets: torch.Tensor | None = None

    def __len__(self) -> int:
        """N."""
        return len(self.requests)

    def rows(self, index: Sequence[int] | torch.Tensor) -> Tasks:
        """Some of them, by number."""
        chosen = torch.as_tensor(index, dtype=torch.long)
        budgets = None if self.budgets is None else self.budgets[chosen]
        return Tasks(self.requests.rows(chosen), self.prices[chosen], budgets)

    def share(self, part: int, parts: int) -> Tasks:
        """Every `parts`-th of them, so that variations of a case are answered for different noises."""
        return self.rows(range(part, len(self), parts))

    def but(self, **changes: Any) -> Tasks:
        """The same with other values of the requests: ``start``, ``scales``, ``asked``, ``labels``, ``endpoints``."""
        return replace(self, requests=replace(self.requests, **changes))


@dataclass(frozen=True, eq=False)
class Answers:
    """What became of N requests.

    Attributes:
        samples: (N, C, H, W).
        evaluations: (N,) long, as each was charged.
        calls: (N,) long, decisions with a network call.
        failed: (N,) long, which call was not finite; -1 where all were.
        reasons: How each ended.
        levels: Noise level after each decision of each request.
        rose: For each decision, whether it was allowed to raise the level: by which factor at most, else 1.
        asked: Evaluations that networks were asked for, all requests together.
        refused: Decisions that were none and replaced.
        types: Types of the states that the network was asked about.
    """

    samples: torch.Tensor
    evaluations: torch.Tensor
    calls: torch.Tensor
    failed: torch.Tensor
    reasons: tuple[str, ...]
    levels: tuple[tuple[float, ...], ...]
    rose: tuple[tuple[float, ...], ...]
    asked: int
    refused: int
    types: frozenset[torch.dtype]

    @property
    def finite(self) -> bool:
        """Whether every sample is."""
        return bool(self.samples.isfinite().all())


def static_steer(seen: np.ndarray, owner: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:  # noqa: ARG001 - all who steer are told
    """Follow the static programs."""
    return np.tile(STATIC, (len(seen), 1)), None


def steered_by(controller: SteeringController | None) -> Steer:
    """Follow a controller, or the static programs without one."""
    if controller is None:
        return static_steer

    def steer(seen: np.ndarray, owner: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:  # noqa: ARG001
        there = np.flatnonzero(owner >= 0)
        decision = controller.decide(seen[there])
        actions = np.tile(STATIC, (len(seen), 1))
        actions[there] = decision.actions
        if decision.gates is None:
            return actions, None
        gates = np.zeros((len(seen), len(EXPERTS)))
        gates[there] = decision.gates
        return actions, gates

    return steer


def scripted(seed: int, count: int, *, without: Sequence[int] = ()) -> Steer:
    """Actions drawn in advance for each of `count` requests, so that neither slot nor batch has a say.

    Args:
        seed: Draws them.
        count: Requests.
        without: Experts that are left out; the static one acts instead.
    """
    drawn = numpy_generator(seed, "script").integers(0, ACTIONS, size=(count, _SCRIPT, len(ACTIONS)))
    drawn[..., 1] = np.where(np.isin(drawn[..., 1], list(without)), STATIC[1], drawn[..., 1])

    def steer(seen: np.ndarray, owner: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        actions = np.tile(STATIC, (len(seen), 1))
        there = np.flatnonzero(owner >= 0)
        actions[there] = drawn[owner[there], turn[there] % _SCRIPT]
        return actions, None

    return steer


class Run:
    """Requests on their way through slots, one decision at a time; freed slots are filled at once.

    Args:
        subject: Whose network, book and student.
        tasks: N requests.
        steer: Who decides.
        denoiser: Another network.
        book: Other programs.
        size: Slots; as many as requests where left out.
        kind: Type of the states.
        slots: Slots that were used before, of this size, in place of fresh ones; what networks are asked is not known
            then.

    Raises:
        BadInput: As the slots do.
    """

    def __init__(
        self,
        subject: Subject,
        tasks: Tasks,
        steer: Steer,
        *,
        denoiser: Denoiser | None = None,
        book: ProgramBook | None = None,
        size: int | None = None,
        kind: torch.dtype = torch.float32,
        slots: Slots | None = None,
    ) -> None:
        self._tasks, self._steer = tasks, steer
        self._book = book or subject.book
        self.probe = Probe(denoiser or subject.denoiser)
        self._student = None if subject.student is None else CountedStudent(subject.student)
        count, device = len(tasks), tasks.requests.start.device
        student: Any = self._student
        taken = max(1, min(count, size or count))
        self.slots = slots or Slots(self.probe, self._book, taken, student=student, device=device, kind=kind)
        self._owner, self._turn = np.full(self.slots.size, -1), np.zeros(self.slots.size, dtype=np.int64)
        self._next = 0
        self._most = _DECISIONS_BESIDE + _DECISIONS_PER_CALL * max(entry.calls for entry in self._book.entries)
        shape = tasks.requests.start.shape
        self._samples = torch.full(shape, torch.nan, dtype=kind, device=device)
        self._figures = np.zeros((3, count), dtype=np.int64)
        self._reasons = [""] * count
        self._levels: list[list[float]] = [[] for _ in range(count)]
        self._rose: list[list[float]] = [[] for _ in range(count)]
        self._fill(range(self.slots.size if count else 0))

    def turn(self) -> bool:
        """Let every slot decide once.

        Returns:
            Whether anything is left to do.

        Raises:
            RuntimeError: If a request does not end.
        """
        open_slots = np.flatnonzero(self._owner >= 0)
        if not len(open_slots):
            return False
        actions, gates = self._steer(self.slots.observe(), self._owner.copy(), self._turn.copy())
        outcome = self.slots.act(actions, gates)
        free = []
        for slot in open_slots.tolist():
            request = int(self._owner[slot])
            self._levels[request].append(float(outcome.sigmas[slot]))
            self._rose[request].append(_may_rise(actions, slot))
            self._turn[slot] += 1
            if outcome.done[slot]:
                self._samples[request] = outcome.samples[slot]
                for row, figure in enumerate((outcome.evaluations, outcome.calls, outcome.failed)):
                    self._figures[row, request] = figure[slot]
                self._reasons[request] = outcome.reasons[slot]
                self._owner[slot] = -1
                free.append(slot)
            elif self._turn[slot] > self._most:
                raise RuntimeError(f"request {request} is not done after {self._turn[slot]} decisions")
        self._fill(free)
        return bool((self._owner >= 0).any())

    def finish(self) -> Answers:
        """Go on until all are done."""
        while self.turn():
            pass
        return self.answers()

    def answers(self) -> Answers:
        """What became of them so far."""
        evaluations, calls, failed = (torch.from_numpy(row.copy()) for row in self._figures)
        by_student = 0 if self._student is None else self._student.evaluations
        return Answers(
            self._samples,
            evaluations,
            calls,
            failed,
            tuple(self._reasons),
            tuple(map(tuple, self._levels)),
            tuple(map(tuple, self._rose)),
            self.probe.evaluations + by_student,
            int(self.slots.refused),
            frozenset(self.probe.types),
        )

    def _fill(self, free: Sequence[int]) -> None:
        chosen = list(range(self._next, min(self._next + len(free), len(self._tasks))))
        if not chosen:
            return
        self._next = chosen[-1] + 1
        taken = list(free)[: len(chosen)]
        part = self._tasks.rows(chosen)
        rows = torch.tensor(taken, dtype=torch.long)
        fill(self.slots, rows, part)
        self._owner[taken], self._turn[taken] = chosen, 0


def fill(slots: Slots, rows: torch.Tensor, tasks: Tasks) -> None:
    """Start requests in some slots."""
    asked = tasks.requests
    slots.fill(rows, asked.start, asked.asked, asked.labels, asked.scales, tasks.prices, budgets=tasks.budgets)


def answer(subject: Subject, tasks: Tasks, steer: Steer, **options: Any) -> Answers:
    """Run requests to their ends; options as for :class:`Run`."""
    return Run(subject, tasks, steer, **options).finish()


def reference(denoiser: Denoiser, tasks: Tasks, *, calls: int = REFERENCE_CALLS, batch: int = 256) -> torch.Tensor:
    """(N, C, H, W) what many steps of third-order UniPC make of requests."""
    program = unipc(log_snr(calls, _REFERENCE_LAST * denoiser.sigma_min, denoiser.sigma_max), order=3)
    parts = []
    for first in range(0, len(tasks), batch):
        part = tasks.rows(range(first, min(first + batch, len(tasks)))).requests
        parts.append(run_program(denoiser, part.noise(), part.condition(), program, part.guidance()).samples)
    return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class Variation:
    """Changed requests, to be answered by ours and by the static programs.

    Attributes:
        tasks: The requests, with the endpoints that they should reach.
        denoiser: Another network.
        book: Other programs.
        counted: Whether it counts for the quality that is retained.
    """

    tasks: Tasks
    denoiser: Denoiser | None = None
    book: ProgramBook | None = None
    counted: bool = True


@dataclass(frozen=True, eq=False)
class Bench:
    """Everything that a case may use.

    Attributes:
        subject: What is put to the test.
        settings: How.
        tasks: Requests of the normal case.
        clean: What ours makes of them.
        folder: Empty folder of one case.
        seed: Randomness of one case.
    """

    subject: Subject
    settings: RobustnessSettings
    tasks: Tasks
    clean: Answers
    folder: Path
    seed: int

    @property
    def steer(self) -> Steer:
        """Ours."""
        return steered_by(self.subject.controller)

    @property
    def rounding(self) -> float:
        """What counts as equal, in units of the pixels."""
        return ROUNDING * self.subject.denoiser.sigma_data

    def ours(self, tasks: Tasks, *, steer: Steer | None = None, **options: Any) -> Answers:
        """Answers of ours, or of another who steers; options as for :class:`Run`."""
        return answer(self.subject, tasks, steer or self.steer, **options)

    def static(self, tasks: Tasks, denoiser: Denoiser | None = None, book: ProgramBook | None = None) -> Sampled:
        """Answers of the static programs, run as programs, not in slots."""
        programs = book or self.subject.book
        scales, prices = tasks.requests.scales.tolist(), tasks.prices.tolist()
        entries = [programs.for_price(price, scale) for price, scale in zip(prices, scales, strict=True)]
        return run_entries(denoiser or self.subject.denoiser, tasks.requests, entries)

    def quality(self, samples: torch.Tensor, tasks: Tasks) -> np.ndarray:
        """(N,) qualities; 0 for a sample that is not finite."""
        return quality(samples, tasks.requests.endpoints, self.subject.book.tau)

    def retained_of(self, good: float, rows: Sequence[int] | None = None) -> float:
        """Mean quality as a share of that in the normal case, of all requests or of some."""
        normal = self.quality(self.clean.samples, self.tasks)
        return good / max(float((normal if rows is None else normal[list(rows)]).mean()), 1e-6)

    def with_reference(self, tasks: Tasks, denoiser: Denoiser | None = None, **options: Any) -> Tasks:
        """Requests with the endpoints that many steps reach."""
        return tasks.but(endpoints=reference(denoiser or self.subject.denoiser, tasks, **options))

    def compare(self, variations: Sequence[Variation]) -> Outcome:
        """Compare ours with the static programs: quality and price of the evaluations together.

        Args:
            variations: Changed requests; all of them count as one set.

        Returns:
            Passed where every sample of ours is finite and the 95 % interval of the difference in mean cost,
            ``phi(e) + price NFE`` of ours less that of static, ends below the margin. Value is that difference.
        """
        costs: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        good: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        counted, samples, finite = [], [], True
        for variation in variations:
            tasks, prices = variation.tasks, variation.tasks.prices.double().cpu().numpy()
            mine = self.ours(tasks, denoiser=variation.denoiser, book=variation.book)
            static = self.static(tasks, variation.denoiser, variation.book)
            finite &= mine.finite
            samples.append(mine.samples)
            arms = ((mine.samples, mine.evaluations), (static.samples, static.evaluations))
            for arm, (made, evaluations) in enumerate(arms):
                good[arm].append(self.quality(made, tasks))
                costs[arm].append(1 - good[arm][-1] + prices * evaluations.cpu().numpy())
            if variation.counted:
                counted.append(good[0][-1])
        found = equivalence(
            np.concatenate(costs[0]),
            np.concatenate(costs[1]),
            self.settings.margin,
            seed=self.seed,
            statistic="mean",
            resamples=self.settings.resamples,
        )
        ours, theirs = (float(np.concatenate(part).mean()) for part in good)
        note = f"quality {ours:.3f}, static {theirs:.3f}; cost higher by at most {found.high:+.3f}"
        if not finite:
            note += "; a sample is not finite"
        note += self._distance(torch.cat(samples))
        retained = self.retained_of(float(np.concatenate(counted).mean()))
        return Outcome(finite and found.not_worse, found.difference, retained, note)

    def _distance(self, samples: torch.Tensor) -> str:
        """Frechet distance of a set, where there are rows enough for it."""
        features, real = self.subject.features, self.subject.real
        if features is None or real is None or not bool(samples.isfinite().all()):
            return ""
        ours, theirs = features.features(samples.float()), features.features(real)
        if min(len(ours), len(theirs)) <= ours.shape[1]:
            return ""
        clean = features.features(self.clean.samples.float())
        return f"; FD {frechet_distance(ours, theirs):.1f}, normal case {frechet_distance(clean, theirs):.1f}"


def quality(samples: torch.Tensor, endpoints: torch.Tensor, tau: float) -> np.ndarray:
    """1 less the saturating error, (N,) float64; 0 for a sample that is not finite."""
    there = samples.isfinite().flatten(1).all(dim=1)
    found = np.zeros(len(samples))
    if bool(there.any()):
        rows = there.cpu().numpy()
        found[rows] = 1 - saturating(paired_errors(samples[there], endpoints[there]), tau)
    return found


def gaps(one: torch.Tensor, other: torch.Tensor) -> np.ndarray:
    """(N,) largest difference of each sample's pixels; two that are both no number do not differ."""
    off = (one.double() - other.to(one.device).double()).abs().flatten(1)
    both = (one.isnan() & other.to(one.device).isnan()).flatten(1)
    found: np.ndarray = off.masked_fill(both, 0.0).nan_to_num(torch.inf).amax(dim=1).cpu().numpy()
    return found


def check_bank(subject: Subject) -> None:
    """Refuse a bank that is too small to say anything.

    Raises:
        BadInput: If it is.
    """
    if len(subject.bank) < _LEAST_REQUESTS:
        raise BadInput(
            f"robustness: got a bank of {len(subject.bank)} requests, expected at least {_LEAST_REQUESTS} of its test "
            "part; make a larger one"
        )


def set_up(subject: Subject, settings: RobustnessSettings) -> Bench:
    """Make the bench with its normal case."""
    requests = Requests.of(subject.bank).first(settings.requests)
    prices = torch.tensor(settings.prices).repeat(-(-len(requests) // len(settings.prices)))[: len(requests)]
    tasks = Tasks(requests, prices.to(requests.endpoints))
    clean = answer(subject, tasks, steered_by(subject.controller))
    return Bench(subject, settings, tasks, clean, subject.folder, settings.seed)


def _may_rise(actions: np.ndarray, slot: int) -> float:
    """Factor by which an action may raise the noise level."""
    row = np.asarray(actions, dtype=np.float64)[slot]
    if not np.isfinite(row).all() or row[1] != ADAPTIVE_NOISE or not 0 <= row[3] < len(RISES):
        return 1.0
    return float(RISES[int(row[3])])
