"""Draws samples by a program or as the controller decides: what `vernissage sample` and Python users call."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch

from vernissage.core.errors import BadInput
from vernissage.sampler.domain.denoiser import ClassLabels
from vernissage.sampler.domain.sampling import per_seed_noise, run_program
from vernissage.sampler.learn.book import evaluations_of
from vernissage.sampler.learn.experts import EXPERTS, STATIC
from vernissage.sampler.learn.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vernissage.sampler.domain.denoiser import Condition, Denoiser
    from vernissage.sampler.domain.programs import Program
    from vernissage.sampler.learn.book import Entry
    from vernissage.sampler.learn.slots import Student, TraceStep
    from vernissage.sampler.use.model import SamplerModel


@dataclass(frozen=True)
class TraceRow:
    """One call of the network.

    Attributes:
        call: Its number, from 0.
        sigma: Noise level of the first sample in it.
        evaluations: Samples that went through the network, those of guidance included.
        milliseconds: How long it took.
    """

    call: int
    sigma: float
    evaluations: int
    milliseconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class SampleResult:
    """What came out.

    Attributes:
        sample: (N, C, H, W) float; pictures in [-1, 1] where the denoiser was taught so.
        nfe: (N,) long, network evaluations of each sample.
        failed: (N,) long, the network call whose prediction was not finite; -1 where all was well.
        trace: Every call of the network.
    """

    sample: torch.Tensor
    nfe: torch.Tensor
    failed: torch.Tensor
    trace: tuple[TraceRow, ...]


@dataclass
class _Traced:
    """A denoiser that keeps a diary."""

    denoiser: Denoiser
    rows: list[TraceRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shape, self.sigma_data = self.denoiser.shape, self.denoiser.sigma_data
        self.sigma_min, self.sigma_max = self.denoiser.sigma_min, self.denoiser.sigma_max

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        began = time.perf_counter()
        answer = self.denoiser(x, sigma, condition)
        took = 1000 * (time.perf_counter() - began)
        self.rows.append(TraceRow(len(self.rows), float(sigma[0]), len(x), round(took, 3)))
        return answer


def sample(
    denoiser: Denoiser, labels: Sequence[int], seeds: Sequence[int], program: Program, *, guidance: float = 1.0
) -> SampleResult:
    """Draw samples.

    Args:
        denoiser: The network.
        labels: N classes.
        seeds: N seeds; each sample depends on its own only.
        program: What to do.
        guidance: Scale of classifier-free guidance; 1 obeys the class as it is and costs half.

    Returns:
        Samples, what they cost, and every call.

    Raises:
        BadInput: If there are not as many seeds as labels, none at all, or the network does not know a class.
    """
    if not labels or len(labels) != len(seeds):
        raise BadInput(f"samples: {len(labels)} classes and {len(seeds)} seeds, expected as many of each, at least one")
    traced = _Traced(denoiser)
    scales = None if guidance == 1 else torch.full((len(labels),), float(guidance))
    noise = per_seed_noise(seeds, denoiser.shape)
    sampled = run_program(traced, noise, ClassLabels(torch.tensor(labels)), program, scales)
    return SampleResult(sampled.samples, sampled.evaluations, sampled.failed, tuple(traced.rows))


@dataclass(frozen=True)
class Request:
    """One sample that is asked for.

    Attributes:
        label: Class or prompt, by its number.
        seed: What its noise is drawn from.
        guidance: Scale of classifier-free guidance; 1 obeys the label as it is and costs half.
        price: What one network evaluation costs, in units of the saturating error (0 to 1); 0 buys the best.
        budget: Most network evaluations; any number where left out.
    """

    label: int
    seed: int
    guidance: float = 1.0
    price: float = 0.0
    budget: int | None = None


class SampleDecision(NamedTuple):
    """What was decided for one sample.

    Attributes:
        sample: Its place among the requests.
        call: Number of the network call that it led to, from 0; none where the sample ended without one.
        sigma: Noise level that the sample went to.
        expert: Who acted.
        stride: How far, in network calls of the static program.
        guidance: Scale of guidance that the call obeyed, 1 for none; none without a call.
        evaluations: Network evaluations that it took.
        confidence: Probability that the router gave to its first choice; none where no router was asked.
        reason: Why the sample ended here: `end`, `stop`, `budget`, `speed` or `failed`; empty where it went on.
    """

    sample: int
    call: int | None
    sigma: float
    expert: str
    stride: float
    guidance: float | None
    evaluations: int
    confidence: float | None
    reason: str


@dataclass(frozen=True)
class DecisionRow(TraceRow):
    """One decision of all samples under way, and the call that it led to.

    Attributes:
        steering_milliseconds: What observing, deciding and stepping took beside the network.
        samples: What was decided for each of them.
    """

    steering_milliseconds: float
    samples: tuple[SampleDecision, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**vars(self), "samples": [step._asdict() for step in self.samples]}


@dataclass(frozen=True)
class SteeredResult(SampleResult):
    """What came out of :func:`steered_sample`.

    Attributes:
        trace: Every decision; none where no trace was wanted.
        static_nfe: (N,) long, network evaluations that the static program of each request takes.
        steered: (N,) bool, whether the controller had a say in it; elsewhere the static program was run.
        reasons: Why each sample ended: `end`, `stop`, `budget`, `speed` or `failed`.
        refused: Decisions of the controller that were no valid actions; the static program's were taken.
        network_milliseconds: Time in the network.
        steering_milliseconds: Time beside it: observing, deciding, stepping; drawing noise is not part of it.
        tracing_milliseconds: Time that the trace took.
    """

    trace: tuple[DecisionRow, ...]
    static_nfe: torch.Tensor
    steered: torch.Tensor
    reasons: tuple[str, ...]
    refused: int
    network_milliseconds: float
    steering_milliseconds: float
    tracing_milliseconds: float


@torch.no_grad()
def steered_sample(
    model: SamplerModel,
    requests: Sequence[Request],
    *,
    noise: torch.Tensor | None = None,
    slots: int = 256,
    traced: bool = True,
) -> SteeredResult:
    """Draw samples as the controller decides, each with its own noise level, price, guidance and budget.

    Where the model has no controller, or where at a price the static program was found as good, that program is run: of
    those that fit the budget the one that is best for the price. A sample depends on its own request only, to float
    rounding; one whose prediction is not finite ends with its last finite one and is reported, and so does no other.

    Args:
        model: What to draw with.
        requests: N of them.
        noise: (N, C, H, W) with variance 1, in place of what the seeds give.
        slots: Samples under way at once; the next request takes the place of one that is done.
        traced: Whether to write down every decision.

    Returns:
        Samples, what they cost, and how they were decided.

    Raises:
        BadInput: If there are no requests, or one has a label that the network does not know, a price or guidance
            scale that is none, or a budget below its first call; or if noise or slots do not fit.
    """
    if not requests or slots < 1:
        raise BadInput(f"samples: {len(requests)} requests in {slots} slots, expected at least one of each")
    # Most requests differ in label and seed only.
    known: dict[tuple[float, float, int | None], _Start] = {}
    starts = []
    for number, request in enumerate(requests):
        terms = request.price, request.guidance, request.budget
        if terms not in known:
            entry = _static_entry(model, number, request)
            known[terms] = _Start(entry, entry.nfe(request.guidance), model.steers_at(request.price))
        starts.append(known[terms])
    _check_noise(model, noise, len(requests))
    # Strange labels should be refused before any call.
    model.condition(torch.tensor(sorted({request.label for request in requests})))
    return _Run(model, requests, starts, noise, min(slots, len(requests)), traced=traced).result()


class _Start(NamedTuple):
    """What a request begins with: its static program, what that takes, and whether the controller has a say."""

    entry: Entry
    nfe: int
    steered: bool


def _static_entry(model: SamplerModel, number: int, request: Request) -> Entry:
    """The best program for a price among those that fit a budget; the cheapest where none does."""
    if not math.isfinite(request.guidance):
        raise BadInput(f"request {number}: guidance scale {request.guidance}, expected a finite number")
    if request.guidance != 1 and not model.guided:
        raise BadInput(f"request {number}: guidance scale {request.guidance}, but this network knows no guidance")
    try:
        entry = model.book.for_price(request.price, request.guidance)
    except BadInput as error:
        raise BadInput(f"request {number}: {error}") from error
    if request.budget is None:
        return entry
    if entry.nfe(request.guidance) > request.budget:
        own = model.book.of_scale(request.guidance)
        fitting = [other for other in own if other.nfe(request.guidance) <= request.budget]
        cheapest = min(own, key=lambda other: other.nfe(request.guidance))
        entry = min(
            fitting,
            key=lambda other: other.score.saturated + request.price * other.nfe(request.guidance),
            default=cheapest,
        )
    least = evaluations_of(1 + (request.guidance - 1) * entry.shares[0])
    if not request.budget >= least:
        raise BadInput(
            f"request {number}: a budget of {request.budget} network evaluations, expected at least {least}: what the "
            f"first call costs with guidance scale {request.guidance:g}"
        )
    return entry


def _check_noise(model: SamplerModel, noise: torch.Tensor | None, count: int) -> None:
    if noise is None:
        return
    if tuple(noise.shape) != (count, *model.denoiser.shape) or not noise.is_floating_point():
        raise BadInput(
            f"noise of shape {tuple(noise.shape)} and type {noise.dtype}, expected floats of "
            f"{(count, *model.denoiser.shape)}: one for each request, with the network's channels and resolution"
        )


class _Clock:
    """Seconds in the networks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def asked(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, measured."""

        def measured(x: torch.Tensor, *others: Any) -> Any:
            began = time.perf_counter()
            answer = call(x, *others)
            if x.is_cuda:  # the call comes back before its work is done
                torch.cuda.synchronize(x.device)
            self.seconds += time.perf_counter() - began
            return answer

        return measured


class _Measured:
    """A denoiser or student whose calls are measured; whatever else slots look for in a network is there if it was."""

    def __init__(self, network: Any, clock: _Clock) -> None:
        for name in ("shape", "sigma_data", "sigma_min", "sigma_max", "middle", "spec", "feature_width"):
            if hasattr(network, name):
                setattr(self, name, getattr(network, name))
        self._ask = clock.asked(network)
        if hasattr(network, "call_with_features"):
            self.call_with_features = clock.asked(network.call_with_features)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, *others: Any) -> torch.Tensor:
        """Ask, and look at the clock."""
        answer: torch.Tensor = self._ask(x, sigma, *others)
        return answer


class _Seen(NamedTuple):
    """One decision of all slots; no rows are made of it before the end."""

    confidence: np.ndarray | None
    network: float
    steering: float
    evaluations: int


class _Run:
    """Requests on their way through slots.

    Args:
        model: What to draw with.
        requests: All of them.
        starts: What each begins with.
        noise: Theirs, unless it comes from the seeds.
        size: Slots.
        traced: Whether to keep a record.
    """

    def __init__(
        self,
        model: SamplerModel,
        requests: Sequence[Request],
        starts: Sequence[_Start],
        noise: torch.Tensor | None,
        size: int,
        *,
        traced: bool,
    ) -> None:
        count = len(requests)
        self._model, self._requests, self._starts, self._noise = model, requests, starts, noise
        self._kind = torch.float32 if noise is None else torch.promote_types(noise.dtype, torch.float32)
        self._device, self._clock, self._traced = model.device, _Clock(), traced
        self._slots = Slots(
            cast("Denoiser", _Measured(model.denoiser, self._clock)),
            model.book,
            size,
            student=None if model.student is None else cast("Student", _Measured(model.student, self._clock)),
            device=self._device,
            kind=self._kind,
            trace=traced,
        )
        self._steered = np.array([start.steered for start in starts])
        # Which request is in each slot, -1 for none, and with which decision it began.
        self._owners, self._since = np.full(size, -1), np.zeros(size, dtype=np.int64)
        self._begun = self._decided = 0
        self._samples = torch.full((count, *model.denoiser.shape), torch.nan, dtype=self._kind, device=self._device)
        self._nfe, self._failed = np.zeros(count, np.int64), np.full(count, -1, np.int64)
        self._reasons = [""] * count
        self._seen: list[_Seen] = []
        self._steps: list[tuple[int, int, int, list[TraceStep]]] = []
        self._steering = self._tracing = 0.0

    def result(self) -> SteeredResult:
        """Decide until all requests are answered."""
        self._fill(np.arange(len(self._owners)))
        while (self._owners >= 0).any():
            self._decide()
        began = time.perf_counter()
        trace = self._rows()
        self._tracing += time.perf_counter() - began
        return SteeredResult(
            sample=self._samples.cpu(),
            nfe=torch.from_numpy(self._nfe),
            failed=torch.from_numpy(self._failed),
            trace=trace,
            static_nfe=torch.tensor([start.nfe for start in self._starts]),
            steered=torch.from_numpy(self._steered),
            reasons=tuple(self._reasons),
            refused=self._slots.refused,
            network_milliseconds=1000 * self._clock.seconds,
            steering_milliseconds=1000 * self._steering,
            tracing_milliseconds=1000 * self._tracing,
        )

    def _fill(self, free: np.ndarray) -> None:
        """Begin with the next requests."""
        part = slice(self._begun, min(self._begun + len(free), len(self._requests)))
        rows = self._requests[part]
        if not rows:
            return
        free = free[: len(rows)]
        if self._noise is None:
            noise = per_seed_noise([request.seed for request in rows], self._model.denoiser.shape)
        else:
            noise = self._noise[part]
        labels = torch.tensor([request.label for request in rows])
        self._slots.fill(
            free,
            noise,
            self._model.conditions(labels.to(self._device)),
            labels,
            [request.guidance for request in rows],
            [request.price for request in rows],
            [math.inf if request.budget is None else request.budget for request in rows],
            [start.entry for start in self._starts[part]],
        )
        self._owners[free] = np.arange(part.start, part.stop)
        self._since[free] = self._decided
        self._begun = part.stop

    def _decide(self) -> None:
        """One decision of all slots, what comes of it, and the next requests for slots that are done."""
        began, network, evaluations = time.perf_counter(), self._clock.seconds, self._slots.evaluations
        actions, gates, confidence = self._actions()
        outcome = self._slots.act(actions, gates)
        self._decided += 1
        done = np.flatnonzero(outcome.done)
        owners = self._owners[done]
        if len(done):
            there = torch.from_numpy(done).to(outcome.samples.device)
            self._samples[torch.from_numpy(owners).to(self._device)] = outcome.samples[there]
            self._nfe[owners], self._failed[owners] = outcome.evaluations[done], outcome.failed[done]
            for owner, slot in zip(owners.tolist(), done.tolist(), strict=True):
                self._reasons[owner] = outcome.reasons[slot]
        network = self._clock.seconds - network
        steering = time.perf_counter() - began - network
        if self._traced:
            began = time.perf_counter()
            self._seen.append(_Seen(confidence, network, steering, self._slots.evaluations - evaluations))
            for owner, slot in zip(owners.tolist(), done.tolist(), strict=True):
                self._steps.append((owner, slot, int(self._since[slot]), self._slots.trace(slot)))
            self._tracing += time.perf_counter() - began
        self._steering += steering
        self._owners[done] = -1
        if len(done):
            self._fill(done)

    def _actions(self) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """What slots shall do, gates if there are any, and confidence, nan for slots that nobody was asked about."""
        size = len(self._owners)
        actions = np.tile(STATIC, (size, 1))
        steered = np.flatnonzero((self._owners >= 0) & self._steered[self._owners])
        controller = self._model.controller
        if controller is None or not len(steered):
            return actions, None, None
        decision = controller.decide(self._slots.observe()[steered])
        actions[steered] = decision.actions
        gates, confidence = None, np.full(size, np.nan)
        confidence[steered] = decision.confidence
        if decision.gates is not None:
            # Slots without any weight use the coefficients of the expert that acts.
            gates = np.zeros((size, len(EXPERTS)))
            gates[steered] = decision.gates
        return actions, gates, confidence

    def _rows(self) -> tuple[DecisionRow, ...]:
        """What was seen, as rows."""
        told: list[list[SampleDecision]] = [[] for _ in self._seen]
        sure: list[list[float] | None] = [
            None if seen.confidence is None else seen.confidence.tolist() for seen in self._seen
        ]
        for owner, slot, since, steps in self._steps:
            call = 0
            for decision, step in enumerate(steps, since):
                row = sure[decision]
                confidence = math.nan if row is None else row[slot]
                called = step.evaluations > 0
                told[decision].append(
                    SampleDecision(
                        sample=owner,
                        call=call if called else None,
                        sigma=step.sigma,
                        expert=step.expert,
                        stride=step.stride,
                        guidance=step.guidance if called else None,
                        evaluations=step.evaluations,
                        confidence=None if math.isnan(confidence) else confidence,
                        reason=step.reason,
                    )
                )
                call += called
        rows = []
        for number, (seen, samples) in enumerate(zip(self._seen, told, strict=True)):
            samples.sort(key=lambda row: row.sample)
            times = round(1000 * seen.network, 3), round(1000 * seen.steering, 3)
            rows.append(DecisionRow(number, samples[0].sigma, seen.evaluations, *times, tuple(samples)))
        return tuple(rows)
