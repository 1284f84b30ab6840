"""The slot engine: many samples under way, each at its own noise level, with one batched network call per decision.

A slot holds one request. A decision moves every slot to its next noise level with a linear multistep step over its own
predictions, then asks the network once for all of them; slots that are done are free at once and can be filled again.
Whoever follows ``STATIC`` everywhere gets what :func:`~vernissage.sampler.domain.sampling.run_program` makes of the
static program. What an action means is said in :mod:`~vernissage.sampler.learn.experts`.

Small numbers of the slots live in numpy arrays on the host, pictures on the device; per decision one small matrix goes
there and one small matrix comes back, so that deciding costs little beside the network.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch

from vernissage.core.errors import BadInput
from vernissage.core.seeds import numpy_generator
from vernissage.sampler.domain.denoiser import NULL, ClassLabels
from vernissage.sampler.learn.experts import (
    ACTIONS,
    ADAPTIVE_NOISE,
    ADAPTIVE_STEP,
    BALANCED,
    EXPERTS,
    GUIDANCE,
    MOST_RISES,
    NOISE,
    OWN,
    RISES,
    SECOND,
    SPEED,
    STATIC,
    STOP,
    STRIDES,
    TABLES,
    DefaultAdaptive,
    level_factors,
    multistep_rows,
)
from vernissage.sampler.learn.features import FEATURES, Course, Measures, Observer, Window, request_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vernissage.sampler.domain.denoiser import Condition, Denoiser
    from vernissage.sampler.learn.book import Entry, ProgramBook

__all__ = [
    "ACTIONS",
    "EXPERTS",
    "GUIDANCE",
    "NOISE",
    "REASONS",
    "STATIC",
    "STRIDES",
    "Outcome",
    "Slots",
    "Student",
    "TraceStep",
]

#: Why a request ended: at sigma 0 as planned, stopped on a prediction, out of budget, by the student's answer, or with
#: an answer that was not finite.
REASONS = ("end", "stop", "budget", "speed", "failed")
_END, _STOPPED, _BUDGET, _SPEED, _FAILED = range(1, 6)
_REASONS = np.array(("", *REASONS), dtype=object)

# Below the last level of a program of one call, noise levels are interpolated as if the next one were this far.
_ONLY_RATIO = 25.0
_REUSE, _SKIP = GUIDANCE.index("reuse"), GUIDANCE.index("skip")
_AS_IT_IS = STRIDES.index(1.0)
_STRIDES, _LOG_RISES = np.array(STRIDES), np.log(RISES)
_LIMITS = np.array(ACTIONS, dtype=np.uint64)
_NO_ROWS = np.zeros(0, dtype=np.int64)
_REQUEST = FEATURES.index("log_price")
# A film has room for so many decisions before it is rewound.
_DECISIONS = 8
# Earlier steps count as at least so long, in log sigma, where errors are estimated.
_LEAST_STEP = 0.02
_STATIC_GATES = np.eye(len(EXPERTS))[BALANCED]
# Gates whose multistep experts have less than this in all say nothing of them.
_LEAST_GATE = 1e-6


class Student(Protocol):
    """A network that answers with what the guided process would end at, for one evaluation whatever the scale.

    Attributes:
        shape: (C, H, W) of one sample.
        sigma_max: Highest noise level that it knows; it begins there.
    """

    shape: tuple[int, int, int]
    sigma_max: float

    def __call__(
        self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None, scales: torch.Tensor
    ) -> torch.Tensor:
        """Estimate the endpoints of (N, C, H, W) at (N,) levels, guided with (N,) scales."""
        ...


class Outcome(NamedTuple):
    """What one decision did, one number for each slot; nothing in it changes later.

    Attributes:
        done: (N,) bool numpy, whether the slot's request ended with this decision; the slot is free again.
        samples: (N, C, H, W) tensor on the device; results where ``done``. A request that failed has its last finite
            prediction, nan if there was none.
        evaluations: (N,) int64 numpy, network evaluations of the request so far, this decision's among them.
        calls: (N,) int64 numpy, network calls so far.
        failed: (N,) int64 numpy, the call whose answer was not finite; -1 where all is well.
        reasons: N texts: one of ``REASONS`` where done, else empty.
        used: (N,) int8 numpy, place in ``EXPERTS`` of the expert that acted; -1 for slots without a request.
        sigmas: (N,) float64 numpy, noise level that was gone to, 0 where the request ended without a further call.
    """

    done: np.ndarray
    samples: torch.Tensor
    evaluations: np.ndarray
    calls: np.ndarray
    failed: np.ndarray
    reasons: tuple[str, ...]
    used: np.ndarray
    sigmas: np.ndarray


class TraceStep(NamedTuple):
    """One decision of one request.

    Attributes:
        sigma: Noise level that was gone to.
        expert: Who acted.
        stride: How far along the static program.
        guidance: Scale that the network call obeyed; nan without a call.
        evaluations: Network evaluations of this decision.
        reason: Why the request ended here; empty otherwise.
    """

    sigma: float
    expert: str
    stride: float
    guidance: float
    evaluations: int
    reason: str


class _Programs:
    """Entries as arrays, P of them, padded to the longest; more can be added.

    Attributes:
        entries: P of them.
        lengths: (P,) int network calls.
        last: (P,) logarithm of the last level.
        shares: (P, W) of guidance.
        plain: (P,) bool, without corrections.
        width: W, two more than the longest program has calls, for the tables whose rows are programs and calls as one.
        logs: (P W,) logarithms of levels; after the last one of a program where the next would be.
        factors: (P W,) what the network is told at each level over that level; none where that is 1 everywhere.
        errors: (P W,) half of gain times length in log sigma of the step to the next call, which embedded errors need.
        rows: (P W, J) coefficients.
        ladders: (P, Q) int, entries with fewer and more calls, by place.
        rungs: (P,) int, place of each in its ladder.
        tops: (P,) int, last place in its ladder.
    """

    def __init__(self, book: ProgramBook) -> None:
        self._book = book
        self.entries: list[Entry] = []
        self._places: dict[int, int] = {}
        self.by_scale = {scale: np.array(self._note(book.of_scale(scale))) for scale in book.scales}
        self._scales = np.array(book.scales)
        self._build()

    @property
    def memory(self) -> int:
        """Predictions that the longest row of coefficients needs."""
        return int(self.rows.shape[1])

    def places(self, entries: Sequence[Entry]) -> np.ndarray:
        """Where entries are, (N,) int; those that are not there are added."""
        before = len(self.entries)
        places = np.array(self._note(entries), dtype=np.int64)
        if len(self.entries) > before:
            self._build()
        return places

    def chosen(self, prices: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """Entries of :meth:`ProgramBook.for_price`, (N,) int, for many requests at once."""
        # The nearest scale; of two as near the smaller, as in the book.
        nearest = np.abs(self._scales - scales[:, None]).argmin(axis=1)
        chosen = np.zeros(len(prices), dtype=np.int64)
        for place in np.unique(nearest):
            own = np.flatnonzero(nearest == place)
            ladder = self.by_scale[float(self._scales[place])]
            costs = self._saturated[ladder] + prices[own, None] * self.evaluations(ladder, scales[own])
            tied = np.where(costs <= costs.min(axis=1, keepdims=True), self._means[ladder], np.inf)
            chosen[own] = ladder[tied.argmin(axis=1)]
        return chosen

    def evaluations(self, places: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """Network evaluations of programs with scales, (N, P) int."""
        effective = 1 + (scales[:, None, None] - 1) * self.shares[places]
        each = 1 + ((effective != 0) & (effective != 1))
        counted: np.ndarray = (each * (np.arange(each.shape[2]) < self.lengths[places][:, None])).sum(axis=2)
        return counted

    def _note(self, entries: Sequence[Entry]) -> list[int]:
        for entry in entries:
            if id(entry) not in self._places:
                self._places[id(entry)] = len(self.entries)
                self.entries.append(entry)
        return [self._places[id(entry)] for entry in entries]

    def _build(self) -> None:
        entries = self.entries
        count, longest = len(entries), max(entry.calls for entry in entries)
        self.plain = np.array([not entry.program.corrections for entry in entries])
        self.lengths = np.array([entry.calls for entry in entries])
        self._saturated = np.array([entry.score.saturated for entry in entries])
        self._means = np.array([entry.score.mean for entry in entries])
        memory = max([3, *(entry.program.memory + 1 for entry in entries if not entry.program.corrections)])
        self.width = longest + 2
        logs, rows = np.zeros((count, self.width)), np.zeros((count, self.width, memory))
        self.shares, factors = np.ones((count, self.width)), np.ones((count, self.width))
        for place, entry in enumerate(entries):
            calls = entry.calls
            own = np.log(entry.program.levels)
            logs[place, :calls] = own
            logs[place, calls:] = 2 * own[-1] - own[-2] if calls > 1 else own[-1] - math.log(_ONLY_RATIO)
            self.shares[place, :calls] = entry.shares
            factors[place, :calls] = np.array(entry.program.asked) / np.array(entry.program.levels)
            if self.plain[place]:
                rows[place, :calls] = entry.program.table(memory)
        self.last = logs[np.arange(count), self.lengths - 1]
        lengths = np.maximum(logs - np.roll(logs, -1, axis=1), 0)
        self.logs, self.rows, self.flat_shares = logs.ravel(), rows.reshape(-1, memory), self.shares.ravel()
        self.factors = factors.ravel() if np.count_nonzero(factors != 1) else None
        self.errors = (-np.expm1(-lengths) * lengths / 2).ravel()
        self._build_ladders()

    def _build_ladders(self) -> None:
        ladders = [self.by_scale[self._book.nearest_scale(entry.scale)] for entry in self.entries]
        self.tops = np.array([len(ladder) - 1 for ladder in ladders])
        self.ladders = np.zeros((len(ladders), self.tops.max() + 1), dtype=np.int64)
        self.rungs = np.zeros(len(ladders), dtype=np.int64)
        for place, ladder in enumerate(ladders):
            self.ladders[place, : len(ladder)] = ladder
            self.rungs[place] = np.abs(self.lengths[ladder] - self.lengths[place]).argmin()


class _Plan(NamedTuple):
    """A decision, worked out on the host; (N,) each unless said otherwise.

    Attributes:
        experts: Who acts.
        positions: Along the program after the step.
        targets: Noise levels after it, and `logs`, their logarithms.
        told: Noise levels that the network is told.
        calling: Whether a network is called at the target.
        student: Whether that is the student, who ends the request,
        halves: or at the opening answers once more at its middle level, which the next decision cannot change.
        rises: Whether the level rises instead of falling.
        over: Whether the budget does not suffice for the call.
        stopping: Whether the request ends with its present prediction.
        scale: Guidance that the call obeys.
        held: Whether the last correction is added to it once more.
        costs: Evaluations of the call.
        on_program: Whether the target is the next point of the program, after its own history.
        weights: (N, 1 + J), of the state and of the predictions by their places in memory.
    """

    experts: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    logs: np.ndarray
    told: np.ndarray
    calling: np.ndarray
    student: np.ndarray
    halves: np.ndarray
    rises: np.ndarray
    over: np.ndarray
    stopping: np.ndarray
    scale: np.ndarray
    held: np.ndarray
    costs: np.ndarray
    on_program: np.ndarray
    weights: np.ndarray


class Slots:
    """N samples under way.

    A request begins with :meth:`fill`. Then, for as long as there are any: :meth:`observe`, decide, :meth:`act`. The
    first decision of a request chooses the program and makes the first call; decision k steps to the k-th level and
    calls there; the last one steps to sigma 0 without a call. A request takes at most four decisions for each call of
    its program, and two.

    Args:
        denoiser: The network.
        book: Static programs.
        size: N, at least 1.
        student: Whom :class:`~vernissage.sampler.learn.experts.SpeedDemon` calls; without one Balanced acts in its
            place.
        device: Where the networks are.
        kind: Type of the states; float32 or float64.
        trace: Whether to keep a record for :meth:`trace`.

    Attributes:
        size: N.
        evaluations: Network evaluations of all requests so far.
        refused: Actions or gates that were none, so that ``STATIC`` took their place.

    Raises:
        BadInput: If sizes or types are none, or the student is for other pictures.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        book: ProgramBook,
        size: int,
        *,
        student: Student | None = None,
        device: torch.device | str = "cpu",
        kind: torch.dtype = torch.float32,
        trace: bool = False,
    ) -> None:
        if size < 1:
            raise BadInput(f"slots: {size} of them, expected at least 1")
        if kind not in {torch.float32, torch.float64}:
            raise BadInput(f"slots: states of {kind}, expected float32 or float64")
        if student is not None and tuple(student.shape) != tuple(denoiser.shape):
            raise BadInput(
                f"slots: a student for pictures of {tuple(student.shape)} beside a denoiser for "
                f"{tuple(denoiser.shape)}; take the one that was made from it"
            )
        self.size, self.evaluations, self.refused = size, 0, 0
        self.device, self.kind, self.shape = torch.device(device), kind, tuple(denoiser.shape)
        self.has_student = student is not None
        # Where the student's second evaluation is; without such a level it has one only.
        self._middle: float | None = getattr(student, "middle", None)
        self._denoiser, self._student = denoiser, student
        self._with_features: Any = getattr(denoiser, "call_with_features", None)
        self._programs = _Programs(book)
        self._values = math.prod(self.shape)
        self._least, self._most = math.log(denoiser.sigma_min) - 1e-6, math.log(denoiser.sigma_max)
        # On the device. Planes of the film are the state, the latest prediction, the one before it and so on, from
        # `head` on; it moves one plane down with each decision.
        self._windows: list[Window] = []
        self._film, self._head, self._memory = torch.zeros(0), 0, 0
        self._load(self._programs.memory)
        self._correction, self._noise = self._zeros(), self._zeros()
        self._measures = Measures(size, denoiser.shape, self.device, kind)
        self._observer = Observer(size, denoiser.sigma_data)
        self._sums = self._measures.nothing()
        self._shuffle = _orthogonal(self._values, self.device, kind)
        self._all = torch.arange(size, device=self.device)
        # On the host. The noise level of a state that was not scaled yet counts as 1.
        self._asked = _Conditions(size, self.device)
        self._open = np.zeros(size, dtype=bool)
        self._calls, self._spent = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
        self._known, self._rises = np.full(size, -1), np.zeros(size, dtype=np.int64)
        self._static, self._program = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
        self._bases, self._lengths = np.zeros(size, dtype=np.int64), np.ones(size, dtype=np.int64)
        self._position, self._budgets = np.zeros(size), np.full(size, np.inf)
        self._scales, self._excess = np.ones(size), np.zeros(size)
        self._logs, self._sigmas = np.zeros((3, size)), np.ones(size)
        self._anchors = np.full((2, size), math.log(denoiser.sigma_data))
        self._on_program, self._corrected = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        self._broken, self._half = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        self._last_expert = np.full(size, -1)
        self._request = np.zeros((len(FEATURES) - _REQUEST, size), dtype=np.float32)
        self._embedded: np.ndarray | None = None
        # What is the same for all, so that it need not be worked out: whether anybody begins, is guided, has a budget.
        self._beginning = self._guided = self._limited = False
        self._nobody, self._fine, self._going_on = np.zeros(size, dtype=bool), np.full(size, -1), ("",) * size
        self._nobody.setflags(write=False)
        self._fine.setflags(write=False)
        self._record: list[tuple[np.ndarray, ...]] | None = [] if trace else None
        self._began = np.zeros(size, dtype=np.int64)

    @property
    def open(self) -> np.ndarray:
        """Which slots have a request, (N,) bool."""
        return self._open.copy()

    def entry(self, row: int) -> Entry:
        """The program that a slot's request follows, or followed last."""
        return self._programs.entries[int(self._program[row])]

    @torch.no_grad()
    def fill(
        self,
        rows: Sequence[int] | np.ndarray | torch.Tensor,
        noise: torch.Tensor,
        condition: Condition | None,
        labels: Sequence[int] | np.ndarray | torch.Tensor | None,
        scales: Sequence[float] | np.ndarray | torch.Tensor,
        prices: Sequence[float] | np.ndarray | torch.Tensor,
        budgets: Sequence[float] | np.ndarray | torch.Tensor | None = None,
        entries: Sequence[Entry] | None = None,
    ) -> None:
        """Start M requests; what was under way in their slots is dropped.

        Args:
            rows: (M,) slots, each once.
            noise: (M, C, H, W) normal with variance 1.
            condition: What each should show; none asks for nothing and allows no guidance.
            labels: (M,) classes or other small numbers that observations should tell apart; below 0 for none.
            scales: (M,) guidance scales.
            prices: (M,) what one network evaluation costs, 0 or more.
            budgets: (M,) most network evaluations; none or an infinite one sets no limit.
            entries: Their static programs; those of :meth:`ProgramBook.for_price` where left out.

        Raises:
            BadInput: If shapes or lengths do not fit, a number is out of range, a program has corrections, or a budget
                is below what the first call costs. Nothing is started then.
        """
        slots = _numbers(rows, "slots", np.int64)
        count = len(slots)
        self._check_slots(slots, noise)
        scale, price = (
            _numbers(scales, "guidance scales", np.float64, count),
            _numbers(prices, "prices", np.float64, count),
        )
        label = np.full(count, NULL) if labels is None else _numbers(labels, "labels", np.int64, count)
        budget = np.full(count, np.inf) if budgets is None else _numbers(budgets, "budgets", np.float64, count)
        _check_requests(scale, price, condition, count)
        self._check_classes(condition)
        if not count:
            return
        programs = self._programs
        if entries is None:
            static = programs.chosen(price, scale)
        elif len(entries) == count:
            static = programs.places(entries)
            self._enlarge()
        else:
            raise BadInput(f"slots: {len(entries)} entries for {count} requests, expected one for each")
        if not programs.plain[static].all():
            strange = programs.entries[int(static[~programs.plain[static]][0])].program
            raise BadInput(
                f"slots: program {strange.name} has corrections at calls {strange.corrections}; expected one with a "
                "step after every call, which all solvers but heun write"
            )
        least = self._first_costs(static, scale)
        if not (budget >= least).all():
            place = int(np.flatnonzero(~(budget >= least))[0])
            raise BadInput(
                f"slots: a budget of {budget[place]:g} network evaluations, expected at least {least[place]}: what one "
                f"call costs with guidance scale {scale[place]:g}"
            )
        self._asked.place(slots, condition, self._open)
        there = torch.from_numpy(slots).to(self.device)
        fresh = noise.to(self.device, self.kind).reshape(count, self._values)
        self._windows[self._head].states.index_copy_(0, there, fresh)
        self._noise.index_copy_(0, there, fresh)
        for flag in (self._open, self._on_program):
            flag[slots] = True
        self._calls, self._spent = self._calls.copy(), self._spent.copy()
        for counter in (self._calls, self._spent, self._known, self._rises, self._corrected, self._broken, self._half):
            counter[slots] = 0
        self._static[slots], self._budgets[slots] = static, budget
        self._scales[slots], self._excess[slots] = scale, scale - 1
        self._position[slots], self._last_expert[slots] = -1, -1
        self._follow(slots, static)
        self._logs[:, slots], self._sigmas[slots] = programs.logs[self._bases[slots]], 1
        self._request[:, slots] = request_features(label, scale, price)
        self._embedded = None
        self._beginning = True
        self._guided = bool(np.count_nonzero(self._excess[self._open]))
        self._limited = bool(np.count_nonzero(self._budgets[self._open] < np.inf))
        if self._record is not None:
            if np.count_nonzero(self._open) == count:
                self._record.clear()
            self._began[slots] = len(self._record)

    def observe(self) -> np.ndarray:
        """What a controller sees, (N, 64) float32; see :mod:`~vernissage.sampler.learn.features`."""
        course = Course(
            known=self._known,
            logs=self._logs,
            anchors=self._anchors,
            evaluations=self._spent,
            budgets=self._budgets,
            position=self._position,
            lengths=self._lengths,
            expert=self._last_expert,
            on_program=self._on_program,
            broken=self._broken,
        )
        return self._observer.observe(self._request, course, self._sums, self._errors())

    @torch.no_grad()
    def act(self, actions: np.ndarray | torch.Tensor, gates: np.ndarray | torch.Tensor | None = None) -> Outcome:
        """Decide for all slots, and ask the network once.

        Args:
            actions: (N, 4) int: places in ``STRIDES``, ``EXPERTS``, ``GUIDANCE`` and ``NOISE``. Slots whose numbers are
                none follow ``STATIC``, and are counted.
            gates: (N, 8) weights, 0 or more, that mix the coefficients of the multistep experts for the target of the
                expert that acts. Only their proportions count; slots without weight on a multistep expert use the
                coefficients of the one that acts. Slots whose numbers are none follow ``STATIC``, and are counted.

        Returns:
            What it did.

        Raises:
            BadInput: If shapes do not fit.
        """
        plan = self._plan(*self._understood(actions, gates))
        states = self._step(plan)
        self._ask(plan, states)
        if plan.student is not self._nobody and np.count_nonzero(plan.student):
            self._ask_student(plan, states)
        return self._settle(plan, states)

    def trace(self, row: int) -> list[TraceStep]:
        """Decisions of the request that is, or was last, in a slot; forgotten when slots are filled and no others run.

        Raises:
            BadInput: If these slots keep no record.
        """
        if self._record is None:
            raise BadInput("slots: no record is kept; make them with trace=True")
        steps = []
        for experts, targets, strides, scales, costs, reasons in self._record[self._began[row] :]:
            if experts[row] < 0:
                break
            reason = str(_REASONS[reasons[row]])
            scale, stride = float(scales[row]), float(strides[row])
            steps.append(TraceStep(float(targets[row]), EXPERTS[experts[row]], stride, scale, int(costs[row]), reason))
        return steps

    def _zeros(self, *planes: int) -> torch.Tensor:
        return torch.zeros((*planes, self.size, self._values), dtype=self.kind, device=self.device)

    def _check_slots(self, slots: np.ndarray, noise: torch.Tensor) -> None:
        if len(slots) and not (slots.min() >= 0 and slots.max() < self.size):
            raise BadInput(f"slots: rows {slots.min()} to {slots.max()}, expected 0 to {self.size - 1}")
        if len(np.unique(slots)) != len(slots):
            raise BadInput("slots: a row is named twice; one slot holds one request")
        if tuple(noise.shape) != (len(slots), *self.shape) or not noise.is_floating_point():
            raise BadInput(
                f"slots: noise of shape {tuple(noise.shape)} and {noise.dtype}, expected floats of "
                f"({len(slots)}, {', '.join(map(str, self.shape))}) for this network"
            )

    def _check_classes(self, condition: Condition | None) -> None:
        """Refuse strange classes now, where the network tells how many it knows; later all slots would suffer."""
        classes = getattr(getattr(self._denoiser, "spec", None), "classes", None)
        if classes is not None and isinstance(condition, ClassLabels):
            condition.check(classes)

    def _first_costs(self, programs: np.ndarray, scales: np.ndarray) -> np.ndarray:
        effective = 1 + (scales - 1) * self._programs.shares[programs, 0]
        return 1 + ((effective != 0) & (effective != 1))

    def _enlarge(self) -> None:
        """Make what was made for fewer or shorter programs fit all that there are now."""
        self._bases = self._program * self._programs.width
        if self._programs.memory > self._memory:
            self._load(self._programs.memory)

    def _load(self, memory: int) -> None:
        """Make a film for J predictions and put what there is at its end."""
        film = self._zeros(_DECISIONS + 1 + memory)
        if self._windows:
            kept = min(memory, self._memory) + 1
            film[_DECISIONS : _DECISIONS + kept] = self._film[self._head : self._head + kept]
        self._film, self._head, self._memory = film, _DECISIONS, memory
        self._windows = [Window.at(film, head, memory) for head in range(_DECISIONS + 1)]
        kind = np.float32 if self.kind == torch.float32 else np.float64
        self._weights = np.zeros((self.size, 1 + memory), dtype=kind)
        self._weights_there = torch.from_numpy(self._weights)[:, None]

    def _rewind(self) -> None:
        """Put what there is at the end of the film."""
        self._film[_DECISIONS:] = self._film[self._head : self._head + 1 + self._memory].clone()
        self._head = _DECISIONS

    def _understood(
        self, actions: np.ndarray | torch.Tensor, gates: np.ndarray | torch.Tensor | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Actions that all slots can follow, (4, N) int64, and shares of rules, (N, 4), or none."""
        told = actions.cpu().numpy() if isinstance(actions, torch.Tensor) else np.asarray(actions)
        if told.shape != (self.size, len(ACTIONS)):
            raise BadInput(f"slots: actions of shape {told.shape}, expected ({self.size}, {len(ACTIONS)})")
        if told.dtype.kind not in "iu":
            told = told.astype(np.float64)
            told = np.where(np.isfinite(told) & (told == np.trunc(told)) & (np.abs(told) < 100), told, -1)
        told = np.ascontiguousarray(told, dtype=np.int64)
        # Numbers below 0 are very large ones without a sign.
        beyond = told.view(np.uint64) >= _LIMITS
        strange = np.asarray(beyond.any(axis=1)) if np.count_nonzero(beyond) else None
        shares = None
        if gates is not None:
            weights = gates.cpu().numpy() if isinstance(gates, torch.Tensor) else np.asarray(gates)
            if weights.shape != (self.size, len(EXPERTS)):
                raise BadInput(f"slots: gates of shape {weights.shape}, expected ({self.size}, {len(EXPERTS)})")
            sound = (weights >= 0) & (weights < np.inf)
            if np.count_nonzero(sound) < sound.size:
                bad = np.asarray(~sound.all(axis=1))
                strange = bad if strange is None else strange | bad
            if strange is not None:
                weights = np.where(strange[:, None], _STATIC_GATES, weights)
            shares = weights @ TABLES.gated
        if strange is not None:
            told = np.where(strange[:, None], STATIC, told)
            self.refused += int(np.count_nonzero(strange & self._open))
        return told.T, shares

    def _plan(self, actions: np.ndarray, gates: np.ndarray | None) -> _Plan:
        """Work out where everybody goes, what that costs and with which coefficients."""
        stride, expert, guidance, noise = actions
        expert, half = self._acting(expert)
        acting = np.bincount(expert, minlength=len(EXPERTS)).tolist()
        opening, later = self._nobody, self._open
        if self._beginning:
            opening, later = later & (self._calls == 0), later & (self._calls > 0)
            self._begin(opening, stride, expert)
        stopping = later & (expert == STOP) if acting[STOP] else self._nobody
        rises, factors = self._nobody, None
        if acting[ADAPTIVE_NOISE]:
            rises, factors = self._noises(later & (expert == ADAPTIVE_NOISE), noise)
        position = self._positions(stride, expert, acting[ADAPTIVE_STEP] > 0, opening, rises)
        logs, place, ended = self._levels(position)
        if acting[STOP]:
            ended |= stopping
        if half is not self._nobody and self._middle is not None:
            logs[half], ended[half] = math.log(self._middle), False
        if factors is not None:
            logs = np.where(rises, np.minimum(self._logs[0] + _LOG_RISES.take(noise), self._most), logs)
        student = self._open & (expert == SPEED) & ~ended if acting[SPEED] else self._nobody

        scale, costs, held = self._guidances(guidance, place, student)
        calling, over = self._open & ~ended, self._nobody
        if self._limited:
            over = calling & (self._spent + costs > self._budgets)
            calling &= ~over
            student, rises, held = student & calling, rises & calling, held & calling
        elif held is not self._nobody:
            held &= calling
        logs[~calling] = -np.inf
        halves = self._begun(logs, student & opening) if acting[SPEED] and self._beginning else self._nobody
        targets = np.exp(logs)
        on_program = self._on_program & (position == self._position + 1)
        ratios = targets / self._sigmas
        if factors is not None:
            on_program &= ~rises
            ratios[rises] = 1
        fitted = on_program & later & ~over if self._limited else on_program & later
        return _Plan(
            experts=expert,
            positions=position,
            targets=targets,
            logs=logs,
            told=self._told(targets, position, student, rises, factors),
            calling=calling,
            student=student,
            halves=halves,
            rises=rises,
            over=over,
            stopping=stopping,
            scale=scale,
            held=held,
            costs=costs * calling,
            on_program=on_program,
            weights=self._coefficients(gates, expert, later & ~rises, ratios, logs, fitted),
        )

    def _begun(self, logs: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Send those whom the student begins with to its highest level; which of them it will answer twice, (N,)."""
        if self._student is None or not np.count_nonzero(first):
            return self._nobody
        logs[first] = math.log(self._student.sigma_max)
        return self._nobody if self._middle is None else first

    def _told(
        self,
        targets: np.ndarray,
        position: np.ndarray,
        student: np.ndarray,
        rises: np.ndarray,
        measured: np.ndarray | None,
    ) -> np.ndarray:
        """Noise levels that the network is told: as the programs say, between their levels in between, or measured."""
        told, factors = targets, self._programs.factors
        if factors is not None:
            whole = position.astype(np.int64)
            place, part = self._bases + whole, position - whole
            own = factors.take(place)
            if np.count_nonzero(part):
                own += part * (factors.take(place + 1) - own)
            for others in (student, rises):
                if others is not self._nobody:
                    own[others] = 1
            told = told * own
        return told if measured is None else told * measured

    def _acting(self, expert: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Who acts, and for whom the student goes on with what it began, (N,) each."""
        if not self.has_student:
            return np.where(expert == SPEED, BALANCED, expert), self._nobody
        if not np.count_nonzero(self._half):
            return expert, self._nobody
        return np.where(self._half, SPEED, expert), self._half

    def _positions(
        self, stride: np.ndarray, expert: np.ndarray, adaptive: bool, opening: np.ndarray, rises: np.ndarray
    ) -> np.ndarray:
        """How far everybody goes along the programs, (N,)."""
        own = TABLES.strides.take(expert)
        if adaptive:
            known = (expert == ADAPTIVE_STEP) & (self._known > 1)
            own = np.where(known, DefaultAdaptive.strides(self._errors()), own)
        position = self._position + _STRIDES.take(stride) * own
        np.minimum(position, self._lengths, out=position)
        if self._beginning:
            position[opening] = 0
        if rises is not self._nobody:
            np.copyto(position, self._position, where=rises)
        return position

    def _levels(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logarithms of noise levels there, interpolated; places in the tables; whether it is the end, (N,) each."""
        table = self._programs.logs
        whole = position.astype(np.int64)
        part = position - whole
        place = self._bases + whole
        logs = table.take(place)
        ended = position >= self._lengths
        if np.count_nonzero(part):
            logs += part * (table.take(place + 1) - logs)
            ended |= (part > 0) & (logs < self._least)
        return logs, place, ended

    def _guidances(
        self, guidance: np.ndarray, place: np.ndarray, student: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scales of the next calls, what they cost, and whether the last correction is held, (N,) each."""
        if not self._guided:
            return np.ones(self.size), np.ones(self.size, dtype=np.int64), self._nobody
        scale = self._excess * self._programs.flat_shares.take(place)
        scale += 1
        twice = (scale != 0) & (scale != 1)
        if student is not self._nobody:
            twice &= ~student
        held = self._nobody
        if np.count_nonzero(guidance):
            held = twice & (guidance == _REUSE) & self._corrected
            single = held | (twice & (guidance == _SKIP))
            scale[single] = 1
            twice &= ~single
        return scale, twice + 1, held

    def _begin(self, opening: np.ndarray, stride: np.ndarray, expert: np.ndarray) -> None:
        """Choose programs at the opening; the static one where the other is too dear to begin with."""
        further = (_AS_IT_IS - stride + TABLES.ladder.take(expert)) * opening
        tables, static = self._programs, self._static
        if not np.count_nonzero(further) and not np.count_nonzero((self._program != static) & opening):
            return
        rung = tables.rungs[static] + further
        other = tables.ladders[static, np.clip(rung, 0, tables.tops[static])]
        moved = (rung != tables.rungs[static]) & tables.plain[other]
        moved &= self._first_costs(other, self._scales) <= self._budgets
        self._follow(np.flatnonzero(opening), np.where(moved, other, static)[opening])

    def _follow(self, slots: np.ndarray, programs: np.ndarray) -> None:
        """Have (M,) slots follow programs from here on."""
        tables = self._programs
        self._program[slots] = programs
        self._bases[slots] = programs * tables.width
        self._lengths[slots] = tables.lengths[programs]
        self._anchors[1, slots] = tables.last[programs]

    def _noises(self, acting: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whose level rises, (N,) bool, and by which factor the told level is off the nominal one."""
        rises = acting & (noise > 0) & (self._rises < MOST_RISES) & (self._logs[0] + 0.01 < self._most)
        residuals = self._sums.norms[0] / self._sigmas
        factors = level_factors(residuals, self._sigmas, self._denoiser.sigma_data, self._values)
        return rises, np.where(acting & ~rises, factors, 1.0)

    def _coefficients(
        self,
        gates: np.ndarray | None,
        expert: np.ndarray,
        stepping: np.ndarray,
        ratios: np.ndarray,
        logs: np.ndarray,
        fitted: np.ndarray,
    ) -> np.ndarray:
        """Weights of state and predictions, (N, 1 + J), the latest first."""
        weights = self._weights
        weights[:, 0] = ratios
        own = TABLES.own.take(expert)
        mix = None
        if gates is not None:
            total = gates.sum(axis=1)
            mixing = (total > _LEAST_GATE) & TABLES.mixing.take(expert)
            mix = TABLES.rules.take(expert, axis=0)
            mix = np.where(mixing[:, None], gates / np.where(mixing, total, 1.0)[:, None], mix)
            own = mix[:, OWN]
        own = own * fitted
        last = self._bases + np.minimum(np.maximum(self._calls, 1), self._lengths) - 1
        np.multiply(self._programs.rows.take(last, axis=0), own[:, None], out=weights[:, 1:], casting="same_kind")
        if np.count_nonzero(own == 1) < np.count_nonzero(stepping):
            mix = TABLES.rules.take(expert, axis=0) if mix is None else mix
            mix[:, SECOND] += mix[:, OWN] - own
            weights[:, 1:4] += stepping[:, None] * multistep_rows(self._logs, self._known, logs, mix)
        return weights

    def _step(self, plan: _Plan) -> torch.Tensor:
        """States at the targets, (N, d)."""
        if not self._head:
            self._rewind()
        # On the host these are the plan's own weights.
        weights = self._weights_there.to(self.device)
        states = torch.bmm(weights, self._windows[self._head].history).view(self.size, self._values)
        if plan.rises is not self._nobody and np.count_nonzero(plan.rises):
            rows = np.flatnonzero(plan.rises)
            there = torch.from_numpy(rows).to(self.device)
            amounts = self._float(np.sqrt(plan.targets[rows] ** 2 - self._sigmas[rows] ** 2))[:, None]
            states.index_add_(0, there, amounts * self._fresh(there, self._rises[rows]))
        return states

    def _fresh(self, there: torch.Tensor, times: np.ndarray) -> torch.Tensor:
        """Noise of variance 1 for (M,) slots: their own, shuffled and with other signs, another way each time.

        It depends on nothing but the request's noise, so that neither neighbours nor earlier requests matter.
        """
        own = self._noise[there]
        orders, signs = self._shuffle
        which = torch.from_numpy(times).to(self.device)
        drawn = own.gather(1, orders[which]) * signs[which]
        return drawn / drawn.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-12)

    def _ask(self, plan: _Plan, states: torch.Tensor) -> None:
        """Call the network for all who need it; its predictions take the place of the states before."""
        calling = plan.calling if plan.student is self._nobody else plan.calling & ~plan.student
        if self._guided:
            with_it = np.flatnonzero(calling & (plan.scale != 0))
            without = np.flatnonzero(calling & (plan.scale != 1))
        else:
            with_it, without = np.flatnonzero(calling), _NO_ROWS
        first, count = len(with_it), len(with_it) + len(without)
        if not count:
            return
        if first == count == self.size:
            there, x, told = self._all, states, plan.told
        else:
            rows = np.concatenate((with_it, without)) if count > first else with_it
            there = torch.from_numpy(rows).to(self.device)
            x, told = states.index_select(0, there), plan.told.take(rows)
        condition = self._asked.of(with_it, without)
        # Whom nobody asks keeps the old state there, which is finite and not looked at.
        present = self._windows[self._head].states
        if count == first:
            present.index_copy_(0, there, self._answers(x, self._float(told), condition, (there,)))
        else:
            alone = np.count_nonzero(plan.scale[without]) < len(without)
            seen = (there[:first], there[first:]) if alone else (there[:first],)
            answers = self._answers(x, self._float(told), condition, seen)
            present.index_copy_(0, there[:first], answers[:first])
            self._guide(plan.scale[without], there[first:], answers[first:], present)
        if plan.held is not self._nobody and np.count_nonzero(plan.held):
            held = torch.from_numpy(np.flatnonzero(plan.held)).to(self.device)
            present.index_add_(0, held, self._correction.index_select(0, held))

    def _answers(
        self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None, seen: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """The network's (M, d) predictions; what its encoder saw of slots in `seen`, first rows first, is kept."""
        x = x.view(-1, *self.shape)
        if self._with_features is None:
            answers: torch.Tensor = self._denoiser(x, sigma, condition)
        else:
            answers, features = self._with_features(x, sigma, condition)
            if len(seen) > 1:
                # Those without a condition; where there is a prediction with it as well, that is written over them.
                self._measures.see(seen[1], features[len(seen[0]) :])
            self._measures.see(seen[0], features[: len(seen[0])])
        return answers.reshape(-1, self._values).to(self.kind)

    def _float(self, values: np.ndarray) -> torch.Tensor:
        """The same on the device, in the type of the states."""
        return torch.from_numpy(values.astype(self._weights.dtype)).to(self.device)

    def _guide(
        self, scales: np.ndarray, there: torch.Tensor, unconditional: torch.Tensor, present: torch.Tensor
    ) -> None:
        """Classifier-free guidance (Ho and Salimans 2022, equation 6), and what it corrected."""
        weight = self._float(scales)[:, None]
        conditional = present.index_select(0, there)
        # Whose scale is 0 has no conditional prediction here, but something finite in its place.
        guided = torch.addcmul(unconditional, weight, conditional - unconditional)
        self._correction.index_copy_(0, there, guided - conditional)
        present.index_copy_(0, there, guided)

    def _ask_student(self, plan: _Plan, states: torch.Tensor) -> None:
        """Let the student answer some: those that it finishes in place of their states, others as a prediction."""
        rows = np.flatnonzero(plan.student)
        there = torch.from_numpy(rows).to(self.device)
        sigma, scales = self._float(plan.targets[rows]), self._float(self._scales[rows])
        assert self._student is not None  # noqa: S101
        x = states[there].view(-1, *self.shape)
        answers = self._student(x, sigma, self._asked.of(rows, rows[:0]), scales)
        answers = answers.to(self.kind).view(len(rows), self._values)
        half = plan.halves[rows]
        if np.count_nonzero(half):
            once = torch.from_numpy(half).to(self.device)
            self._windows[self._head].states.index_copy_(0, there[once], answers[once])
            there, answers = there[~once], answers[~once]
        states[there] = answers

    def _settle(self, plan: _Plan, states: torch.Tensor) -> Outcome:
        """Measure, find those who are done, and keep what the next decision needs."""
        self._head -= 1
        window = self._windows[self._head]
        window.states.copy_(states)
        self._sums = sums = self._measures.measure(window)
        self._embedded = None
        calling, open_ = plan.calling, self._open
        base = calling if plan.student is self._nobody else calling & (~plan.student | plan.halves)
        done = open_ & ~base
        used = np.where(open_, plan.experts, -1)
        failed, broken = self._fine, self._nobody
        if not sums.sound:
            broken = open_ & ~np.isfinite(sums.norms.sum(axis=0) + sums.square)
            failed = np.where(broken, np.where(calling, self._calls, np.maximum(self._calls - 1, 0)), -1)
            done |= broken
            self._broken |= broken
            self._mend(broken, states)
        reasons, reason = self._going_on, None
        ending = np.count_nonzero(done) > 0
        if ending or self._record is not None:
            reason = np.where(done, _END, 0)
            marks = ((plan.stopping, _STOPPED), (plan.over, _BUDGET), (plan.student, _SPEED), (broken, _FAILED))
            for which, mark in marks:
                if which is not self._nobody:
                    reason[which & done] = mark
            reasons = tuple(_REASONS[reason].tolist())
        if self._record is not None:
            told = np.where(plan.student, self._scales, np.where(calling, plan.scale, np.nan))
            strides = plan.positions - np.maximum(self._position, 0)
            self._record.append((used, plan.targets, strides, told, plan.costs, reason))  # type: ignore[arg-type]
        self._advance(plan, base, used)
        if ending:
            self._open = open_ & ~done
            self._known[done] = -1
        return Outcome(
            done=done,
            samples=states.view(-1, *self.shape),
            evaluations=self._spent,
            calls=self._calls,
            failed=failed,
            reasons=reasons,
            used=used.astype(np.int8),
            sigmas=plan.targets,
        )

    def _advance(self, plan: _Plan, base: np.ndarray, used: np.ndarray) -> None:
        """Move all that the host knows of the slots to the target; `base` are those who called the base network."""
        # New arrays, because outcomes hold the present ones.
        self._calls, self._spent = self._calls + plan.calling, self._spent + plan.costs
        self.evaluations += int(plan.costs.sum())
        self._known = np.minimum(self._known + self._open, 3)
        if plan.rises is not self._nobody:
            self._known[plan.rises] = 1
            self._rises += plan.rises
        logs = self._logs
        logs[1:] = logs[:2]
        np.copyto(logs[0], plan.logs, where=base)
        np.copyto(self._sigmas, plan.targets, where=base)
        self._position, self._on_program, self._last_expert = plan.positions, plan.on_program, used
        if plan.halves is not self._nobody or self._half.any():
            self._half = plan.halves & self._open & ~self._broken
        if self._guided:
            self._corrected |= base & (plan.costs == 2)
        self._beginning = False

    def _mend(self, broken: np.ndarray, states: torch.Tensor) -> None:
        """Give those that failed their last finite prediction, and leave nothing that is not finite behind."""
        slots = np.flatnonzero(broken)
        there = torch.from_numpy(slots).to(self.device)
        # Where there was no call, that lies one plane nearer.
        last = self._film[self._head + 2].index_select(0, there)
        last[torch.from_numpy(self._calls[slots] == 0).to(self.device)] = torch.nan
        states.index_copy_(0, there, last)
        self._film[:, there] = 0
        self._correction[there] = 0
        self._measures.forget(there)
        for figure in self._sums[:-1]:
            figure[..., slots] = 0

    def _errors(self) -> np.ndarray:
        """Differences of first and second order after a static step, (N,), in standard deviations of the pictures."""
        if self._embedded is None:
            # Half the share of the predictions, over the length of the last step in units of this one.
            place = self._bases + np.maximum(self._position, 0).astype(np.int64)
            error = self._programs.errors.take(place) * self._sums.norms[1]
            error /= np.maximum(self._logs[1] - self._logs[0], _LEAST_STEP) * self._denoiser.sigma_data
            self._embedded = error
        return self._embedded


class _Conditions:
    """What each slot asks for."""

    def __init__(self, size: int, device: torch.device) -> None:
        self._device = device
        self._labels = np.full(size, NULL, dtype=np.int64)
        self._places = np.zeros(size, dtype=np.int64)
        # None until somebody asks for anything; classes are kept as numbers, all else in a pool.
        self._kind: type | None = None
        self._pool: Any = None
        self._null: Any = None

    def place(self, slots: np.ndarray, condition: Condition | None, still_open: np.ndarray) -> None:
        """Keep the conditions of some slots, with those of others that are open."""
        others = still_open.copy()
        others[slots] = False
        kept = np.flatnonzero(others)
        kind = type(condition) if condition is not None else self._kind if len(kept) else None
        if len(kept) and self._kind not in {kind, None}:
            raise BadInput(f"slots: conditions of {kind} beside {self._kind}; fill them once the others are done")
        if kind not in {None, ClassLabels} and len(kept) and (condition is None or self._kind is None):
            raise BadInput("slots: requests with conditions beside some without; give all of them one")
        self._kind = kind
        if kind is ClassLabels or kind is None:
            self._labels[slots] = NULL if condition is None else condition.labels.cpu().numpy()  # type: ignore[attr-defined]
            return
        fresh: Any = condition
        self._pool = self._pool.rows(self._there(self._places[kept])).joined(fresh) if len(kept) else fresh
        self._null = self._pool.null()
        self._places[kept] = np.arange(len(kept))
        self._places[slots] = len(kept) + np.arange(len(slots))

    def of(self, with_it: np.ndarray, without: np.ndarray) -> Condition | None:
        """Conditions of some slots, then as many that ask for nothing as others have."""
        if self._kind is None:
            return None
        if self._kind is ClassLabels:
            labels = np.full(len(with_it) + len(without), NULL, dtype=np.int64)
            labels[: len(with_it)] = self._labels[with_it]
            return ClassLabels(torch.from_numpy(labels).to(self._device))
        asked: Condition = self._pool.rows(self._there(self._places[with_it]))
        return asked.joined(self._null.rows(self._there(self._places[without]))) if len(without) else asked

    def _there(self, places: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(places).to(self._device)


def _orthogonal(values: int, device: torch.device, kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Orders and signs, (``MOST_RISES``, d) each, that make other noise of the same kind out of noise."""
    generator = numpy_generator(0, "slots", "fresh noise")
    # Different shifts along one ring through all places, so that no number stays where it was.
    ring = generator.permutation(values)
    places = np.argsort(ring)
    shifts = [(number + 1) * max(1, values // (MOST_RISES + 1)) for number in range(MOST_RISES)]
    orders = np.array([ring[(places + shift) % values] for shift in shifts])
    signs = generator.choice([-1.0, 1.0], size=orders.shape)
    return torch.from_numpy(orders).to(device), torch.from_numpy(signs).to(device, kind)


def _numbers(values: Any, what: str, kind: type, count: int | None = None) -> np.ndarray:
    """One-dimensional numbers on the host."""
    told = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if told.ndim != 1 or (count is not None and len(told) != count):
        expected = "(M,)" if count is None else f"({count},), one for each request"
        raise BadInput(f"slots: {what} of shape {told.shape}, expected {expected}")
    if told.dtype.kind not in "iuf":
        raise BadInput(f"slots: {what} of type {told.dtype}, expected numbers")
    if len(told) and kind is np.int64 and told.dtype.kind == "f":
        raise BadInput(f"slots: {what} of type {told.dtype}, expected whole numbers")
    return told.astype(kind)


def _check_requests(scales: np.ndarray, prices: np.ndarray, condition: Condition | None, count: int) -> None:
    if not np.isfinite(scales).all():
        raise BadInput("slots: a guidance scale is not a finite number; 1 obeys the condition as it is")
    if not ((prices >= 0) & np.isfinite(prices)).all():
        strange = prices[~((prices >= 0) & np.isfinite(prices))][0]
        raise BadInput(f"slots: price = {strange}, expected 0 or more, what one network evaluation costs")
    if condition is None and (scales != 1).any():
        raise BadInput("slots: guidance without conditions; say what to guide to, or take scale 1")
    if condition is not None and len(condition) != count:
        raise BadInput(f"slots: {len(condition)} conditions for {count} requests, expected one for each")
