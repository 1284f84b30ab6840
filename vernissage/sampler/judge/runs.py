"""Requests on their way through slots, under anybody who decides, with notes on what networks were asked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from vernissage.core.seeds import numpy_generator
from vernissage.sampler.domain.denoiser import ClassLabels
from vernissage.sampler.judge.arms import CountedStudent
from vernissage.sampler.judge.probes import Probe
from vernissage.sampler.learn.experts import ACTIONS, ADAPTIVE_NOISE, EXPERTS, RISES, STATIC
from vernissage.sampler.learn.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from vernissage.sampler.domain.denoiser import Condition, Denoiser
    from vernissage.sampler.judge.arms import BankLike, Requests
    from vernissage.sampler.learn.book import Entry, ProgramBook
    from vernissage.sampler.learn.classifiers import Embedding
    from vernissage.sampler.learn.controller import SteeringController
    from vernissage.sampler.learn.slots import Student

#: Fewer requests say nothing about quality.
LEAST_REQUESTS = 10
#: Decisions after which a request counts as endless: more than the slots promise to need.
_DECISIONS_PER_CALL, _DECISIONS_BESIDE = 4, 8
_SCRIPT = 64


class Drawn(Protocol):
    """What drawing gives."""

    @property
    def sample(self) -> torch.Tensor:
        """(N, C, H, W)."""
        ...

    @property
    def nfe(self) -> torch.Tensor:
        """(N,) network evaluations."""
        ...


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
        """Every `parts`-th of them, so that variations of a case have noises of their own; all where there are few."""
        return self.rows(range(part, len(self), parts)) if len(self) >= parts * LEAST_REQUESTS else self

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


def _may_rise(actions: np.ndarray, slot: int) -> float:
    """Factor by which an action may raise the noise level."""
    row = np.asarray(actions, dtype=np.float64)[slot]
    if not np.isfinite(row).all() or row[1] != ADAPTIVE_NOISE or not 0 <= row[3] < len(RISES):
        return 1.0
    return float(RISES[int(row[3])])
