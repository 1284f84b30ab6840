"""What a robustness case of the sampler is, and its bench: what is put to the test, and the normal case.

Quality is 1 less the saturating error to what many steps make of the same noise, 0 to 1. Where a case changes what is
asked for (another start, another network, another scale), many steps answer the changed request, too: a case asks what
few steps lose against many, not whether a strange request has a strange answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vernissage.core.errors import BadInput, BadParams
from vernissage.core.parallel import in_parts
from vernissage.sampler.domain.programs import unipc
from vernissage.sampler.domain.sampling import Sampled, run_program
from vernissage.sampler.domain.schedules import log_snr
from vernissage.sampler.judge.arms import Requests, run_entries
from vernissage.sampler.judge.distances import frechet_distance, paired_errors, saturating
from vernissage.sampler.judge.equal_quality import equivalence
from vernissage.sampler.judge.runs import LEAST_REQUESTS, Answers, Steer, Subject, Tasks, answer, steered_by

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vernissage.sampler.domain.denoiser import Denoiser
    from vernissage.sampler.learn.book import ProgramBook

#: Results that differ by less are equal but for rounding, in units of the pictures' standard deviation: what a batch of
#: another size or a thread more may change.
ROUNDING = 1e-3
#: Network calls of the program that answers changed requests; on the digits it ends within a tenth of tau.
REFERENCE_CALLS = 16
#: The reference leaves out this many times the least noise level that the network was taught.
_REFERENCE_LAST = 5.0
# Requests that go through the network at once on one core.
_PART = 16


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
        if self.requests < LEAST_REQUESTS or self.resamples < 100:
            raise BadParams(
                f"robustness: {self.requests} requests and {self.resamples} resamplings, expected at least "
                f"{LEAST_REQUESTS} and 100"
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


def check_bank(subject: Subject) -> None:
    """Refuse a bank that is too small to say anything.

    Raises:
        BadInput: If it is.
    """
    if len(subject.bank) < LEAST_REQUESTS:
        raise BadInput(
            f"robustness: got a bank of {len(subject.bank)} requests, expected at least {LEAST_REQUESTS} of its test "
            "part; make a larger one"
        )


def set_up(subject: Subject, settings: RobustnessSettings) -> Bench:
    """Make the bench with its normal case."""
    requests = Requests.of(subject.bank).first(settings.requests)
    prices = torch.tensor(settings.prices).repeat(-(-len(requests) // len(settings.prices)))[: len(requests)]
    tasks = Tasks(requests, prices.to(requests.endpoints))
    clean = answer(subject, tasks, steered_by(subject.controller))
    return Bench(subject, settings, tasks, clean, subject.folder, settings.seed)


def reference(denoiser: Denoiser, tasks: Tasks, *, calls: int = REFERENCE_CALLS) -> torch.Tensor:
    """(N, C, H, W) what many steps of third-order UniPC make of requests; parts of them side by side on a CPU."""
    program = unipc(log_snr(calls, _REFERENCE_LAST * denoiser.sigma_min, denoiser.sigma_max), order=3)

    def answered(rows: slice) -> torch.Tensor:
        part = tasks.rows(range(rows.start, rows.stop)).requests
        return run_program(denoiser, part.noise(), part.condition(), program, part.guidance()).samples

    on_cpu = tasks.requests.start.device.type == "cpu"
    parts = in_parts(answered, len(tasks), _PART if on_cpu else 8 * _PART, threads=None if on_cpu else 1)
    return torch.cat(parts)


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
