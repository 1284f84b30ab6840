"""Fitted programs: noise levels, or these and all coefficients, by gradients through solver and network.

With the coefficients the noise level that the network is told at each call is fitted, too: after a long step a state is
off by more than its noise.

Both fits start at a given program and keep the iterate that is best on validation pairs, the start among them: what
they return is never worse there. Noise levels are the first one and the gaps between their logarithms, so that whatever
the numbers are, levels fall strictly. With fitted levels only, the solver writes the coefficients for each iterate
anew, and finite differences of what it writes take the place of its derivatives; so every solver can be fitted, and the
result is a program that the solver itself would write. With fitted coefficients (as in S4S, arXiv 2502.17423), each is
a free multiple of its step, so that it keeps its meaning while the levels move.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from vernissage.core.errors import BadInput, BadParams
from vernissage.core.progress import Progress
from vernissage.core.seeds import torch_generator
from vernissage.sampler.domain.denoiser import guided
from vernissage.sampler.domain.programs import Program
from vernissage.sampler.domain.sampling import linear_step
from vernissage.sampler.learn.grid import Course, Score, reported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vernissage.sampler.domain.denoiser import Condition, Denoiser
    from vernissage.sampler.domain.programs import Solver
    from vernissage.sampler.learn.grid import Pairs

# How far levels may go from the start: the first one by this factor of e, each gap by this factor of e.
_REACH_OF_FIRST, _REACH_OF_GAPS = 2.0, 2.5
# How far from the state's own level the network may be told: a factor of e to this.
_REACH_OF_LABELS = 1.0
# Step of finite differences, as a share of the level.
_DIFFERENCE = 1e-5
# Weights of Adam's running means; the second is short, because a fit is.
_BETAS = (0.9, 0.98)


_Kind = Literal["sigma", "coefficient", "label"]
# Sigmas (K + 1,), coefficients (E, J), and what the network is told (E,).
_Numbers: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class FitSettings:
    """Settings of one fit.

    Attributes:
        steps: Updates.
        batch: Pairs per update.
        sigma_rate: Adam's rate for noise levels, in units of their logarithms; falls to 0 as a cosine.
        coefficient_rate: The same for coefficients, in units of the step that they belong to; programs of more than 4
            calls get less of it, inversely to their number.
        label_rate: The same for the noise levels that the network is told, in units of their logarithms; 0 keeps them.
        gradient_norm: Longest gradient; longer ones are shortened.
        warm_up: Share of the updates over which rates rise from 0.
        looks: How many times iterates are validated, the last one included.
        memory: Most earlier predictions that fitted coefficients use; all that there are where left out. The start's
            own are never cut.
        validation_batch: Validation samples that go through the network at once.
        recompute: Ask the network a second time for the gradient of each call instead of keeping all that it computed:
            half as quick, and memory for one call instead of all. For large networks.
        seed: Draws the batches.

    Raises:
        BadParams: If a value is out of its range.
    """

    steps: int = 200
    batch: int = 64
    sigma_rate: float = 0.03
    coefficient_rate: float = 0.03
    label_rate: float = 0.02
    gradient_norm: float = 1.0
    warm_up: float = 0.1
    looks: int = 20
    memory: int | None = None
    validation_batch: int = 512
    recompute: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "looks", "validation_batch"):
            if getattr(self, name) < 1:
                raise BadParams(f"fit: {name} = {getattr(self, name)}, expected at least 1")
        for name in ("sigma_rate", "coefficient_rate", "gradient_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadParams(f"fit: {name} = {getattr(self, name)}, expected a number above 0")
        if not 0 <= self.label_rate < math.inf:
            raise BadParams(f"fit: label_rate = {self.label_rate}, expected a number of 0 or more")
        if not 0 <= self.warm_up < 1:
            raise BadParams(f"fit: warm_up = {self.warm_up}, expected a share from 0 to below 1")
        if self.memory is not None and self.memory < 0:
            raise BadParams(f"fit: memory = {self.memory}, expected 0 or more earlier predictions")


@dataclass(frozen=True)
class Look:
    """One iterate on the validation pairs."""

    step: int
    score: Score


@dataclass(frozen=True)
class Fitted:
    """What came out of a fit.

    Attributes:
        program: The best iterate on validation pairs; the start where none is better.
        before: The start's score on them.
        after: The program's score on them; never worse.
        tau: Scale of the saturation that scores have.
        looks: All iterates that were validated, the start first.
        skipped: Updates that were left out because a gradient was not finite.
        seconds: How long it took.
    """

    program: Program
    before: Score
    after: Score
    tau: float
    looks: tuple[Look, ...]
    skipped: int
    seconds: float

    def facts(self) -> dict[str, Any]:
        """Plain values for a report, without the program."""
        return {
            "before": asdict(self.before),
            "after": asdict(self.after),
            "tau": self.tau,
            "looks": [{"step": look.step, **asdict(look.score)} for look in self.looks],
            "skipped": self.skipped,
            "seconds": self.seconds,
        }


class Levels:
    """Noise levels as numbers without bounds: all 0 is where they start.

    Args:
        sigmas: K + 1 levels to start at, the last of them 0.
        lowest: Least level that the network was taught.
        highest: Highest one.

    Attributes:
        count: K, as many numbers as levels above 0.
        room: Most that the first number can be before the first level is the highest one.
    """

    def __init__(self, sigmas: Sequence[float], lowest: float, highest: float) -> None:
        logs = np.log(np.array(sigmas[:-1], dtype=np.float64))
        self.count = len(logs)
        self._first = float(logs[0])
        self._gaps = torch.from_numpy(-np.diff(logs))
        # What the start itself goes beyond is allowed.
        self._top = max(self._first, math.log(highest))
        self._bottom = min(float(logs[-1]), math.log(lowest))
        # The first level leaves room for the others, even where it falls as far as it can.
        self._floor = min(self._first, self._bottom + 1e-3 * self.count)
        reach = (self._top - self._first) / _REACH_OF_FIRST
        self.room = _REACH_OF_FIRST * math.atanh(reach) if reach < 1 else math.inf

    def sigmas(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return strictly decreasing levels for any numbers.

        Args:
            numbers: (K,) float64, differentiable.

        Returns:
            (K,) float64 within the network's range, without the 0 at the end.
        """
        first = self._first + _bent(numbers[:1], _REACH_OF_FIRST)
        first = torch.clamp(first, min=self._floor, max=self._top)
        gaps = self._gaps * _bent(numbers[1:], _REACH_OF_GAPS).exp()
        # Gaps that lead out of the range shrink together.
        room = first - self._bottom
        gaps = gaps * torch.clamp(room / gaps.sum().clamp(min=1e-12), max=1.0)
        return torch.cat((first, first - gaps.cumsum(0))).exp()


def fit_sigmas(
    denoiser: Denoiser,
    train: Pairs,
    val: Pairs,
    program: Program,
    solver: Solver,
    settings: FitSettings | None = None,
    *,
    tau: float | None = None,
    shares: Sequence[float] | None = None,
) -> Fitted:
    """Fit the noise levels of a program; the solver goes on writing its coefficients (as LD3, arXiv 2405.15506).

    Args:
        denoiser: The network; differentiable in state and noise level.
        train: Pairs to fit to.
        val: Pairs that decide which iterate is kept.
        program: Where to start.
        solver: Who wrote it, see :func:`vernissage.sampler.learn.grid.solver_of`.
        settings: Of the fit.
        tau: Scale of the saturation in scores; :func:`vernissage.sampler.learn.grid.usual_tau` of the training pairs
            where left out.
        shares: (E,) how much of its guidance each network call obeys, see
            :class:`vernissage.sampler.learn.grid.Course`.

    Returns:
        The fitted program and how it did.

    Raises:
        BadInput: If the network cannot be differentiated, there are no pairs, or the solver writes something else.
    """
    if solver(program.sigmas) != replace(program, name=solver(program.sigmas).name):
        raise BadInput(f"fit: program {program.name} is not what its solver writes for these sigmas; fit coefficients")
    model = _SolverModel(program, solver, denoiser)
    return _fit(denoiser, train, val, model, "fitted sigmas", settings or FitSettings(), tau, shares)


def fit_coefficients(
    denoiser: Denoiser,
    train: Pairs,
    val: Pairs,
    program: Program,
    settings: FitSettings | None = None,
    *,
    tau: float | None = None,
    shares: Sequence[float] | None = None,
) -> Fitted:
    """Fit noise levels and all coefficients of a program, which can be of any solver or fitted already.

    Args:
        denoiser: The network; differentiable in state and noise level.
        train: Pairs to fit to.
        val: Pairs that decide which iterate is kept.
        program: Where to start.
        settings: Of the fit.
        tau: As for :func:`fit_sigmas`.
        shares: As for :func:`fit_sigmas`.

    Returns:
        The fitted program and how it did.

    Raises:
        BadInput: If the network cannot be differentiated, or there are no pairs.
    """
    settings = settings or FitSettings()
    model = _FreeModel(program, denoiser, settings.memory, tells=settings.label_rate > 0)
    return _fit(denoiser, train, val, model, "fitted coefficients", settings, tau, shares)


class _Model(Protocol):
    """What a fit changes.

    Attributes:
        start: The program at the start.
        numbers: Parameters with their kind of rate, all 0 at the start; the first are the levels'.
        levels: What the first ones mean.
        tells: Whether the network is told other levels than the state's own.
    """

    start: Program
    numbers: list[tuple[torch.Tensor, _Kind]]
    levels: Levels
    tells: bool

    def now(self) -> _Numbers:
        """(K + 1,) sigmas, (E, J) coefficients, (E,) told levels, all float64, differentiable in the numbers."""
        ...


class _SolverModel:
    """Free levels, and coefficients that the solver writes for them."""

    def __init__(self, program: Program, solver: Solver, denoiser: Denoiser) -> None:
        self.start, self._solver = program, solver
        self.levels = Levels(program.sigmas, denoiser.sigma_min, denoiser.sigma_max)
        place = torch.zeros(self.levels.count, dtype=torch.float64, requires_grad=True)
        self.numbers: list[tuple[torch.Tensor, _Kind]] = [(place, "sigma")]
        self.tells = False
        self._steps_at, _ = _places(program)

    def now(self) -> _Numbers:
        sigmas = self.levels.sigmas(self.numbers[0][0])
        coefficients: torch.Tensor = _Written.apply(sigmas, self._solver)
        return torch.cat((sigmas, sigmas.new_zeros(1))), coefficients, sigmas[self._steps_at]


class _FreeModel:
    """Free levels, free coefficients in units of the step that they belong to, and free factors of what is told."""

    def __init__(self, program: Program, denoiser: Denoiser, memory: int | None, *, tells: bool) -> None:
        self.start = program
        self.levels = Levels(program.sigmas, denoiser.sigma_min, denoiser.sigma_max)
        calls = program.evaluations
        width = calls if memory is None else max(program.memory, min(memory, calls - 1)) + 1
        self._steps_at, self._steps_to = _places(program)
        table = torch.from_numpy(program.table(width))
        self._shares = table / self._spans(torch.tensor(program.sigmas, dtype=torch.float64))
        self._there_are = (torch.arange(width) <= torch.arange(calls)[:, None]).double()
        place = torch.zeros(self.levels.count, dtype=torch.float64, requires_grad=True)
        free = torch.zeros_like(table, requires_grad=True)
        self.numbers: list[tuple[torch.Tensor, _Kind]] = [(place, "sigma"), (free, "coefficient")]
        self.tells = tells or bool(program.told)
        factors = np.array(program.asked) / np.array(program.levels)
        self._factors, self._log_factors = torch.from_numpy(np.log(factors)), torch.zeros(calls, dtype=torch.float64)
        self._range = denoiser.sigma_min, denoiser.sigma_max
        if tells:
            self._log_factors.requires_grad_()
            self.numbers.append((self._log_factors, "label"))

    def now(self) -> _Numbers:
        sigmas = self.levels.sigmas(self.numbers[0][0])
        sigmas = torch.cat((sigmas, sigmas.new_zeros(1)))
        free = self.numbers[1][0] * self._there_are
        factors = (self._factors + _bent(self._log_factors, _REACH_OF_LABELS)).exp()
        told = (sigmas[self._steps_at] * factors).clamp(*self._range)
        return sigmas, (self._shares + free) * self._spans(sigmas), told

    def _spans(self, sigmas: torch.Tensor) -> torch.Tensor:
        """(E, 1) what a plain step's only coefficient would be; of a correction, that of the step which it corrects."""
        spans = 1 - sigmas[self._steps_to] / sigmas[self._steps_at]
        for number in self.start.corrections:
            spans = torch.cat((spans[:number], spans[number - 1 : number], spans[number + 1 :]))
        return spans[:, None]


class _Written(torch.autograd.Function):
    """Coefficients that a solver writes, (K,) sigmas to (E, J), with central differences for derivatives."""

    @staticmethod
    def forward(ctx: Any, sigmas: torch.Tensor, solver: Solver) -> torch.Tensor:
        levels = sigmas.detach().numpy()
        program = solver((*levels.tolist(), 0.0))
        width = program.evaluations
        ctx.jacobian = None
        if ctx.needs_input_grad[0]:
            columns = []
            for place, level in enumerate(levels):
                beside = [*np.delete(levels, place), math.inf]
                nearest = float(np.min(np.abs(np.array(beside) - level)))
                step = min(_DIFFERENCE * level, 0.1 * nearest)
                tables = []
                for sign in (1, -1):
                    moved = levels.copy()
                    moved[place] += sign * step
                    tables.append(solver((*moved.tolist(), 0.0)).table(width))
                columns.append((tables[0] - tables[1]) / (2 * step))
            ctx.jacobian = torch.from_numpy(np.stack(columns))
        return torch.from_numpy(program.table(width))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return (ctx.jacobian * gradient).sum(dim=(1, 2)), None


def _fit(
    denoiser: Denoiser,
    train: Pairs,
    val: Pairs,
    model: _Model,
    name: str,
    settings: FitSettings,
    tau: float | None,
    shares: Sequence[float] | None,
) -> Fitted:
    started = time.monotonic()
    course = Course(denoiser, train, tau, shares=shares, batch=settings.validation_batch)
    judge = Course(denoiser, val, course.tau, shares=shares, batch=settings.validation_batch)
    _check_differentiable(course)
    start = model.start
    before = judge.scores([start])[0]
    best, after = start, before
    looks = [Look(0, before)]
    rates = _rates(model, settings)
    rounding = _rounding(course, start, settings)

    numbers = [number for number, _ in rates]
    adam = torch.optim.Adam([{"params": [number], "lr": rate} for number, rate in rates], betas=_BETAS)
    look_at = {round(settings.steps * (look + 1) / settings.looks) for look in range(settings.looks)}
    skipped = 0
    with Progress(f"{name}, {start.evaluations} calls", total=settings.steps, unit="updates") as progress:
        for step, rows in zip(range(1, settings.steps + 1), _batches(len(course), settings), strict=False):
            loss = _loss(course, rows, start, model.now(), rounding, recompute=settings.recompute)
            gradients = torch.autograd.grad(loss, numbers) if loss.requires_grad else None
            if gradients is not None and all(bool(gradient.isfinite().all()) for gradient in gradients):
                for number, gradient in zip(numbers, gradients, strict=True):
                    number.grad = gradient
                torch.nn.utils.clip_grad_norm_(numbers, settings.gradient_norm)
                for group, (_, rate) in zip(adam.param_groups, rates, strict=True):
                    group["lr"] = rate * _pace(step - 1, settings)
                adam.step()
                with torch.no_grad():
                    numbers[0][:1].clamp_(max=model.levels.room)
            else:
                skipped += 1
            if step in look_at:
                iterate = _frozen(model, f"{start.name}, {name}")
                score = judge.scores([iterate])[0]
                looks.append(Look(step, score))
                if reported(score) < reported(after):
                    best, after = iterate, score
            progress.advance(loss=loss.item(), validation=after.saturated)
    return Fitted(best, before, after, course.tau, tuple(looks), skipped, time.monotonic() - started)


def _rates(model: _Model, settings: FitSettings) -> list[tuple[torch.Tensor, float]]:
    """Adam's rates. In longer programs more coefficients move what comes out, so that each must move less."""
    rates = {
        "sigma": settings.sigma_rate,
        "coefficient": settings.coefficient_rate * min(1.0, 4 / model.start.evaluations),
        "label": settings.label_rate,
    }
    return [(number, rates[kind]) for number, kind in model.numbers]


def _pace(step: int, settings: FitSettings) -> float:
    """Share of the rate at a step: up in a line, down as a cosine."""
    warm = min(1.0, (step + 1) / max(1.0, settings.warm_up * settings.steps))
    return warm * (1 + math.cos(math.pi * step / settings.steps)) / 2


def _rounding(course: Course, start: Program, settings: FitSettings) -> float:
    """Error below which the loss is quadratic, or gradients had no end: a twentieth of the start's median."""
    median = course.scores([start], 4 * settings.batch)[0].median
    return 0.05 * (median if 0 < median < math.inf else course.tau)


def _loss(
    course: Course, rows: torch.Tensor, program: Program, numbers: _Numbers, rounding: float, *, recompute: bool
) -> torch.Tensor:
    """Mean of the root mean square errors of some pairs, in units of tau; those that are not finite are a constant 1.

    What is not finite spoils the gradients of its neighbours, even if it counts nothing; so these go through the
    network a second time without it.
    """
    squared = _squared(course, rows, program, numbers, recompute=recompute)
    finite = squared.isfinite().cpu()
    if not finite.all():
        if not finite.any():
            return squared.new_ones(())
        squared = _squared(course, rows[finite], program, numbers, recompute=recompute)
    lost = len(rows) - int(finite.sum())
    return ((squared + rounding**2).sqrt().sum() / course.tau + lost) / len(rows)


def _squared(
    course: Course, rows: torch.Tensor, program: Program, numbers: _Numbers, *, recompute: bool
) -> torch.Tensor:
    """(M,) mean squared errors of some pairs, differentiable."""
    rows = rows.to(course.noise.device)
    sigmas, coefficients, told = numbers
    at, to = _places(program)
    noise, endpoints = course.noise[rows], course.endpoints[rows]
    # The network's type and place; small numbers are computed in float64 before.
    asked, table = told.to(noise), coefficients.to(noise)
    ratios = (sigmas[to] / sigmas[at]).to(noise)
    condition = None if course.condition is None else course.condition.rows(rows)
    guidance = course.guidance(rows, program.evaluations)

    x, past = noise * sigmas[0].to(noise), list[torch.Tensor]()
    for call in range(program.evaluations):
        scale = guidance if guidance is None or guidance.ndim == 1 else guidance[:, call]
        question = (course.denoiser, x, asked[call].expand(len(x)), condition, scale)
        prediction: torch.Tensor = checkpoint(_ask, *question, use_reentrant=False) if recompute else _ask(*question)
        past = [prediction, *past][: table.shape[1]]
        x = linear_step(x, past, ratios[call].expand(len(x)), table[call].expand(len(x), -1))
    return (x - endpoints).square().flatten(1).mean(dim=1)


def _ask(
    denoiser: Denoiser, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None, scale: torch.Tensor | None
) -> torch.Tensor:
    if scale is None or condition is None:
        return denoiser(x, sigma, condition)
    return guided(denoiser, x, sigma, condition, scale)


def _frozen(model: _Model, name: str) -> Program:
    """The iterate as a program."""
    with torch.no_grad():
        sigmas, coefficients, told = model.now()
    rows = [row[: number + 1] for number, row in enumerate(coefficients.tolist())]
    trimmed = [tuple(row[: max((place for place, value in enumerate(row) if value), default=0) + 1]) for row in rows]
    levels = tuple(told.tolist()) if model.tells else ()
    return Program(name, tuple(sigmas.tolist()), tuple(trimmed), model.start.corrections, levels)


def _check_differentiable(course: Course) -> None:
    """Refuse a network that gives no gradients.

    Raises:
        BadInput: Says what is missing.
    """
    rows = torch.arange(1, device=course.noise.device)
    level = math.sqrt(course.denoiser.sigma_min * course.denoiser.sigma_max)
    sigma = torch.full((1,), level).to(course.noise).requires_grad_()
    x = (course.noise[rows] * level).requires_grad_()
    condition = None if course.condition is None else course.condition.rows(rows)
    with torch.enable_grad():
        answer = course.denoiser(x, sigma, condition)
    found: tuple[torch.Tensor | None, ...] = (None, None)
    if answer.requires_grad:
        found = torch.autograd.grad(answer.sum(), (x, sigma), allow_unused=True)
    missing = [name for name, gradient in zip(("x", "sigma"), found, strict=True) if gradient is None]
    if missing:
        raise BadInput(
            f"fit: the network gives no gradient in {' and '.join(missing)}; expected one that can be differentiated "
            "(is it under torch.no_grad?); otherwise use the best program of the grid"
        )


def _batches(count: int, settings: FitSettings) -> Iterator[torch.Tensor]:
    """Batches without end: every pair once before any comes again."""
    epoch, size = 0, min(settings.batch, count)
    while True:
        order = torch.randperm(count, generator=torch_generator(settings.seed, "fit", epoch))
        for first in range(0, count - size + 1, size):
            yield order[first : first + size]
        epoch += 1


def _places(program: Program) -> tuple[list[int], list[int]]:
    """Which sigma each network call is at, and which it leads to."""
    place_of: Callable[[float], int] = {sigma: place for place, sigma in enumerate(program.sigmas)}.__getitem__
    return [place_of(level) for level in program.levels], [place_of(level) for level in program.targets]


def _bent(values: torch.Tensor, reach: float) -> torch.Tensor:
    """Like the value near 0, and never further than `reach`."""
    return reach * torch.tanh(values / reach)
