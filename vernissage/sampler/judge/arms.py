"""Arms of the benchmark: ways to sample, each with a dial, run on the same requests and charged alike.

What an arm took is counted where a network is called, never by steps: :meth:`SamplerArm.sample` compares the bill with
what the network was asked and refuses an arm that charges less.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol, cast, get_args

import torch

from vernissage.core.errors import BadInput
from vernissage.sampler.domain.denoiser import Counted
from vernissage.sampler.domain.programs import heun
from vernissage.sampler.domain.sampling import Sampled, run_program, sample_ancestral
from vernissage.sampler.domain.schedules import karras, log_snr
from vernissage.sampler.learn.grid import Pairs, stock_programs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from vernissage.sampler.domain.denoiser import Condition, Denoiser
    from vernissage.sampler.domain.programs import Program
    from vernissage.sampler.learn.book import Entry, ProgramBook
    from vernissage.sampler.learn.consistency import Student

log = logging.getLogger(__name__)

#: What an arm is in the comparison. From `stock` to `consistency` each adds something to the one before; `static` is
#: what ships without a controller, price by price; `context` is shown but never compared.
Role = Literal[
    "stock",
    "grid",
    "fitted sigmas",
    "fitted coefficients",
    "per guidance",
    "less guidance",
    "router, state shuffled",
    "router",
    "consistency",
    "heun",
    "static",
    "context",
    "other",
]
ROLES: tuple[Role, ...] = get_args(Role)
#: The order in which savings are attributed.
LADDER: tuple[Role, ...] = ROLES[: ROLES.index("consistency") + 1]

#: What an arm's budgets are: network calls (evaluations for a student), or prices of an evaluation.
Dial = Literal["calls", "price"]

HEUN_CALLS = 35
ANCESTRAL_LEVELS = 1000
_BATCH = 512


class Counter(Protocol):
    """A network that counts the samples that it is asked about."""

    evaluations: int


class BankLike(Pairs, Protocol):
    """Requests with endpoints, as a bank of the teacher has them."""

    @property
    def seeds(self) -> torch.Tensor:
        """(N,) int64, what noise, class and scale were drawn from."""
        ...

    @property
    def labels(self) -> torch.Tensor:
        """(N,) long classes, or numbers of prompts."""
        ...


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests with their endpoints, their noise drawn once for all arms.

    Attributes:
        seeds: (N,) int64.
        labels: (N,) long.
        scales: (N,) float guidance scales.
        endpoints: (N, C, H, W) float, what the teacher made.
        start: (N, C, H, W) float, the noise.
        asked: N conditions, or none.
    """

    seeds: torch.Tensor
    labels: torch.Tensor
    scales: torch.Tensor
    endpoints: torch.Tensor
    start: torch.Tensor
    asked: Condition | None

    @staticmethod
    def of(bank: BankLike) -> Requests:
        """Draw the noise of a bank; everything stays where the bank's endpoints are."""
        return Requests(bank.seeds, bank.labels, bank.scales, bank.endpoints, bank.noise(), bank.condition())

    def __len__(self) -> int:
        """N."""
        return len(self.seeds)

    def noise(self) -> torch.Tensor:
        """(N, C, H, W) float with variance 1."""
        return self.start

    def condition(self) -> Condition | None:
        """What each request asks for."""
        return self.asked

    def guidance(self) -> torch.Tensor | None:
        """(N,) scales; none where nobody is guided."""
        return None if self.asked is None or bool((self.scales == 1).all()) else self.scales

    def rows(self, index: torch.Tensor) -> Requests:
        """Some requests, by (M,) long."""
        there = index.to(self.endpoints.device)
        return Requests(
            self.seeds[index.to(self.seeds.device)],
            self.labels[there],
            self.scales[there],
            self.endpoints[there],
            self.start[there],
            None if self.asked is None else self.asked.rows(there),
        )

    def first(self, count: int) -> Requests:
        """The first requests, at most so many."""
        return self.rows(torch.arange(min(count, len(self))))


@dataclass(frozen=True, eq=False)
class SamplerArm:
    """One way to sample.

    Attributes:
        name: As printed in tables.
        budgets: Settings of its dial, increasing.
        run: Answers requests at one of them, whatever their number.
        role: What it is in the comparison.
        dial: What its budgets are.
        limit: Most requests that it is run on, for arms that are context only; all of them where left out.
        networks: Other networks than the denoiser that it asks, such as a student; they count for themselves.

    Raises:
        BadInput: No name, no budgets, or budgets that do not increase.
    """

    name: str
    budgets: tuple[float, ...]
    run: Callable[[Denoiser, Requests, float], Sampled]
    role: Role = "other"
    dial: Dial = "calls"
    limit: int | None = None
    networks: tuple[Counter, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or not self.budgets or list(self.budgets) != sorted(set(self.budgets)):
            raise BadInput(f"arm {self.name!r}: budgets {self.budgets}, expected a name and increasing numbers")
        if self.limit is not None and self.limit < 1:
            raise BadInput(f"arm {self.name}: at most {self.limit} requests, expected 1 or more")

    def sample(self, denoiser: Denoiser, requests: Requests, budget: float) -> Sampled:
        """Run it, and check what it charges.

        Args:
            denoiser: The network.
            requests: N of them.
            budget: One of the arm's own.

        Raises:
            BadInput: If its answer is not N samples, or it charges fewer evaluations than networks were asked.
        """
        counted = Counted(denoiser)
        before = sum(network.evaluations for network in self.networks)
        sampled = self.run(counted, requests, budget)
        expected = tuple(requests.endpoints.shape)
        lengths = {len(sampled.evaluations), len(sampled.failed)}
        if tuple(sampled.samples.shape) != expected or lengths != {len(requests)}:
            raise BadInput(
                f"arm {self.name}: samples of shape {tuple(sampled.samples.shape)}, expected {expected} and as many "
                "bills as requests"
            )
        asked = counted.evaluations + sum(network.evaluations for network in self.networks) - before
        charged = int(sampled.evaluations.sum())
        if charged < asked:
            raise BadInput(
                f"arm {self.name} at {budget:g}: charges {charged} evaluations, but networks were asked for {asked}; "
                "count where the network is called"
            )
        if charged > asked:
            log.warning(
                "arm %s at %g: charges %d evaluations, %d were seen; name its networks",
                self.name,
                budget,
                charged,
                asked,
            )
        return sampled


class CountedStudent:
    """A student that counts what it is asked; to be named in an arm's ``networks``.

    Args:
        student: Called as ``student(x, sigma, condition, scales)``; one evaluation whatever the scale.

    Attributes:
        evaluations: Samples that went through it so far.
        calls: Batches that did.
    """

    def __init__(self, student: Callable[..., torch.Tensor]) -> None:
        self._student = student
        self.evaluations = self.calls = 0

    def __call__(
        self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None, scales: torch.Tensor
    ) -> torch.Tensor:
        """Ask, and count the samples."""
        self.evaluations += len(x)
        self.calls += 1
        return self._student(x, sigma, condition, scales)

    def __getattr__(self, name: str) -> object:
        """Whatever else the student has."""
        return getattr(self._student, name)


# --- makers -----------------------------------------------------------------------------------------------------------


def program_arm(name: str, programs: Mapping[int, Program], role: Role = "other", *, batch: int = _BATCH) -> SamplerArm:
    """Programs by number of network calls, each request with all of its guidance at each call."""

    def run(denoiser: Denoiser, requests: Requests, budget: float) -> Sampled:
        program = programs[int(budget)]
        parts = [
            run_program(denoiser, part.noise(), part.condition(), program, part.guidance())
            for part in _parts(requests, batch)
        ]
        return joined(parts, requests)

    return SamplerArm(name, tuple(sorted(programs)), run, role)


def family_arm(book: ProgramBook, family: str, *, name: str | None = None, batch: int = _BATCH) -> SamplerArm:
    """One family of the book: each request runs the program for its guidance scale, the nearest one that there is.

    Args:
        book: The programs.
        family: One of ``FAMILIES``.
        name: The family's name where left out.
        batch: Requests that go through the network at once.

    Raises:
        BadInput: If the book has no such programs.
    """
    entries = book.family(family)
    if not entries:
        there_are = ", ".join(dict.fromkeys(entry.made_by for entry in book.entries))
        raise BadInput(f"arm of the family {family!r}: expected one of {there_are}, but not stock")

    def run(denoiser: Denoiser, requests: Requests, budget: float) -> Sampled:
        own = [entry for entry in entries if entry.calls == budget]
        chosen = _by_scale(requests, lambda scale: min(own, key=lambda one: (abs(one.scale - scale), one.scale)))
        return run_entries(denoiser, requests, chosen, batch=batch)

    roles: dict[str, Role] = {known: known for known in ROLES}
    return SamplerArm(name or family, tuple(sorted({entry.calls for entry in entries})), run, roles[family])


def price_arm(
    book: ProgramBook,
    prices: Sequence[float],
    *,
    name: str = "static by price",
    role: Role = "static",
    batch: int = _BATCH,
) -> SamplerArm:
    """The book as a user gets it who names a price: each request runs the program that is best for price and scale."""

    def run(denoiser: Denoiser, requests: Requests, budget: float) -> Sampled:
        chosen = _by_scale(requests, partial(book.for_price, budget))
        return run_entries(denoiser, requests, chosen, batch=batch)

    return SamplerArm(name, tuple(sorted(prices)), run, role, dial="price")


def stock_arms(
    denoiser: Denoiser, calls: Sequence[int], *, trained: np.ndarray | None = None, batch: int = _BATCH
) -> tuple[SamplerArm, ...]:
    """What a user of `diffusers` gets without tuning, an arm for each pair of solver and schedule.

    Args:
        denoiser: Names the range of noise levels.
        calls: Numbers of network calls.
        trained: (T,) noise levels of the network's timesteps, see :func:`stock_programs`.
        batch: Requests that go through the network at once.
    """
    programs = {count: stock_programs(count, denoiser.sigma_min, denoiser.sigma_max, trained) for count in calls}
    names = list(next(iter(programs.values()), {}))
    return tuple(
        program_arm(f"stock {name}", {count: programs[count][name] for count in calls}, "stock", batch=batch)
        for name in names
    )


def heun_arm(denoiser: Denoiser, calls: Sequence[int] = (7, 11, 19, HEUN_CALLS), *, batch: int = _BATCH) -> SamplerArm:
    """Heun's method as in EDM (Karras et al. 2022, table 1): 18 steps are 35 network calls.

    Raises:
        BadInput: If a number of calls is even, which no such program has.
    """
    even = [count for count in calls if count % 2 == 0]
    if even:
        raise BadInput(f"heun: {even[0]} network calls, expected an odd number: two for each step but the last")
    programs = {count: heun(karras((count + 1) // 2, denoiser.sigma_min, denoiser.sigma_max)) for count in calls}
    return program_arm("heun karras-7", programs, "heun", batch=batch)


def ancestral_arm(
    denoiser: Denoiser, *, requests: int = 256, levels: Sequence[float] | None = None, batch: int = _BATCH
) -> SamplerArm:
    """Ancestral sampling with a thousand levels, as context: it draws fresh noise, so its errors mean little.

    Args:
        denoiser: Names the range of noise levels.
        requests: Most requests that it answers.
        levels: Decreasing noise levels, the last of them 0; evenly spaced in log-SNR where left out.
        batch: Requests that go through the network at once.
    """
    sigmas = log_snr(ANCESTRAL_LEVELS, denoiser.sigma_min, denoiser.sigma_max) if levels is None else tuple(levels)

    def run(denoiser: Denoiser, requests: Requests, _budget: float) -> Sampled:
        parts = [
            sample_ancestral(
                denoiser, part.seeds.tolist(), part.condition(), sigmas, part.guidance(), device=part.endpoints.device
            )
            for part in _parts(requests, batch)
        ]
        return joined(parts, requests)

    return SamplerArm("ancestral", (len(sigmas) - 1,), run, "context", limit=requests)


def student_arm(student: Student, *, name: str = "consistency", batch: int = _BATCH) -> SamplerArm:
    """One or two evaluations of a student, whatever the guidance scale."""
    from vernissage.sampler.learn.consistency import one_step, two_step

    counted = CountedStudent(student)
    network = cast("Student", counted)

    def run(_denoiser: Denoiser, requests: Requests, budget: float) -> Sampled:
        step = one_step if budget == 1 else two_step
        parts = []
        for part in _parts(requests, batch):
            before = counted.evaluations
            samples = step(network, part.noise(), part.condition(), part.scales.to(part.noise()))
            # All go through it together, so each has its share of what was counted.
            each = torch.full((len(part),), (counted.evaluations - before) // len(part), device=samples.device)
            finite = samples.flatten(1).isfinite().all(dim=1)
            parts.append(Sampled(samples, each, torch.where(finite, -1, each - 1)))
        return joined(parts, requests)

    return SamplerArm(name, (1, 2), run, "consistency", networks=(counted,))


def run_entries(denoiser: Denoiser, requests: Requests, entries: Sequence[Entry], *, batch: int = _BATCH) -> Sampled:
    """Run an entry of the book for each request.

    Args:
        denoiser: The network.
        requests: N of them.
        entries: N of them.
        batch: Requests that go through the network at once; those with equally many calls go together.
    """
    device = requests.endpoints.device
    samples = torch.full_like(requests.endpoints, math.nan)
    evaluations = torch.zeros(len(requests), dtype=torch.long, device=device)
    failed = torch.full_like(evaluations, -1)
    calls = torch.tensor([entry.calls for entry in entries], dtype=torch.long)
    for count in calls.unique().tolist():
        for rows in torch.split((calls == count).nonzero().flatten(), batch):
            part, there = requests.rows(rows), rows.to(device)
            own = [entries[row] for row in rows.tolist()]
            guidance = part.guidance()
            if guidance is not None:
                shares = torch.tensor([entry.shares for entry in own]).to(guidance)
                guidance = 1 + (guidance[:, None] - 1) * shares
            programs = [entry.program for entry in own]
            sampled = run_program(denoiser, part.noise(), part.condition(), programs, guidance)
            samples[there] = sampled.samples.to(samples)
            evaluations[there], failed[there] = sampled.evaluations, sampled.failed
    return Sampled(samples, evaluations, failed)


def joined(parts: Sequence[Sampled], requests: Requests) -> Sampled:
    """Answers to parts of the requests, one after the other."""
    if not parts:
        none = torch.zeros(0, dtype=torch.long, device=requests.endpoints.device)
        return Sampled(torch.zeros_like(requests.endpoints), none, none)
    return Sampled(
        torch.cat([part.samples for part in parts]),
        torch.cat([part.evaluations for part in parts]),
        torch.cat([part.failed for part in parts]),
    )


def _parts(requests: Requests, batch: int) -> list[Requests]:
    if len(requests) <= batch:
        return [requests] if len(requests) else []
    return [requests.rows(rows) for rows in torch.split(torch.arange(len(requests)), batch)]


def _by_scale(requests: Requests, choose: Callable[[float], Entry]) -> list[Entry]:
    scales = [float(scale) for scale in requests.scales.tolist()]
    chosen = {scale: choose(scale) for scale in set(scales)}
    return [chosen[scale] for scale in scales]
