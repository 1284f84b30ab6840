"""Requests with what the best sampler makes of them: what programs are tuned by, fitted to and measured against.

A request is a noise, a class and a guidance scale, all three drawn from its seed alone; so a bank of a hundred is the
beginning of a bank of a thousand, and no batch size or order has a say in it. Seeds of the three parts never meet.
"""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact
from vernissage.core.parallel import in_parts
from vernissage.core.progress import Progress
from vernissage.core.seeds import derive_seed, numpy_generator
from vernissage.core.weights import load_weights, save_weights
from vernissage.sampler.domain.denoiser import NULL, ClassLabels
from vernissage.sampler.domain.programs import Program, heun, unipc
from vernissage.sampler.domain.sampling import per_seed_noise, run_program
from vernissage.sampler.domain.schedules import karras, log_snr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vernissage.sampler.domain.denoiser import Condition, Denoiser

log = logging.getLogger(__name__)

#: Parts of a bank: to tune and fit on, to choose by, to report on.
PARTS = ("train", "val", "test")
#: Network calls of the usual teacher.
TEACHER_CALLS = 64
#: Median error of the teacher, in units of the pictures' standard deviation, above which a bank is doubtful: a tenth of
#: what the best programs of 10 calls are off by on the digits.
CHECK_BOUND = 0.002

_SEEDS_OF_A_PART = 1 << 60


@dataclass(frozen=True)
class RequestMix:
    """How often which class and which guidance scale is asked for.

    Attributes:
        class_weights: One weight above 0 for each class, in any unit; none for a network that knows no classes.
        scales: Guidance scales.
        scale_weights: One weight for each of them; equal ones where left out.

    Raises:
        BadParams: If a weight or a scale is none.
    """

    class_weights: tuple[float, ...]
    scales: tuple[float, ...] = (1.0, 2.0, 4.0)
    scale_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        weights = (1.0,) * len(self.scales) if self.scale_weights is None else self.scale_weights
        if not self.scales or len(weights) != len(self.scales):
            raise BadParams(f"request mix: {len(weights)} weights for {len(self.scales)} scales, expected one for each")
        if not all(map(math.isfinite, self.scales)):
            raise BadParams(f"request mix: guidance scales {self.scales}, expected finite numbers; 1 obeys as it is")
        for value in (*self.class_weights, *weights):
            if not 0 < value < math.inf:
                raise BadParams(f"request mix: weight {value}, expected numbers above 0")

    @staticmethod
    def uneven(classes: int, scales: Sequence[float] = (1.0, 2.0, 4.0), *, ratio: float = 4.0) -> RequestMix:
        """Ask for the first class `ratio` times as often as for the last one, and in between for those in between."""
        powers = np.linspace(0, -1, classes) if classes > 1 else np.zeros(classes)
        return RequestMix(tuple((ratio**powers).tolist()), tuple(map(float, scales)))

    def draw(self, seeds: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (N,) long classes and (N,) float32 scales of requests with these seeds."""
        labels, scales = np.full(len(seeds), NULL), np.empty(len(seeds), dtype=np.float32)
        for row, seed in enumerate(seeds):
            first, second = numpy_generator(seed, "request").random(2)
            if self.class_weights:
                labels[row] = _pick(first, self.class_weights)
            scales[row] = self.scales[_pick(second, self.scale_weights or (1.0,) * len(self.scales))]
        return torch.from_numpy(labels).long(), torch.from_numpy(scales)


@dataclass(frozen=True)
class TeacherCheck:
    """How far the teacher is from Heun's method with about four times as many network calls.

    Attributes:
        median: Median root mean square error of the requests that were checked, in units of the pixels.
        p95: Its 95th percentile.
        bound: What the median should not be above, in the same units.
        requests: How many were checked.
        calls: Network calls of Heun's method.
    """

    median: float
    p95: float
    bound: float
    requests: int
    calls: int

    @property
    def passed(self) -> bool:
        """Whether the median is finite and within the bound."""
        return self.median <= self.bound


@dataclass(frozen=True, eq=False)
class Bank:
    """One part of a bank.

    Attributes:
        part: Which one, of ``PARTS``.
        seeds: (N,) int64, what noise, class and scale were drawn from.
        labels: (N,) long, ``NULL`` for no class; numbers of prompts for a network that takes those.
        scales: (N,) float32 guidance scales.
        endpoints: (N, C, H, W) float32, what the teacher made.
        teacher: The program that made it.
        check: How good it is.
        left_out: Seeds of requests that have no finite endpoint, and at which network call they failed.
        conditions: Makes conditions of labels: `ClassLabels` unless the network takes something else. Not saved.
    """

    part: str
    seeds: torch.Tensor
    labels: torch.Tensor
    scales: torch.Tensor
    endpoints: torch.Tensor
    teacher: Program
    check: TeacherCheck
    left_out: tuple[tuple[int, int], ...] = ()
    conditions: Callable[[torch.Tensor], Condition | None] = field(default=ClassLabels)

    def __post_init__(self) -> None:
        counts = {len(self.seeds), len(self.labels), len(self.scales), len(self.endpoints)}
        if self.part not in PARTS or self.endpoints.ndim != 4 or len(counts) != 1:
            raise BadInput(
                f"bank {self.part!r}: seeds, labels, scales and endpoints of shapes {tuple(self.seeds.shape)}, "
                f"{tuple(self.labels.shape)}, {tuple(self.scales.shape)} and {tuple(self.endpoints.shape)}, expected "
                f"as many of each, (N, C, H, W) endpoints, and a part of {', '.join(PARTS)}"
            )

    def __len__(self) -> int:
        """Number of requests."""
        return len(self.seeds)

    def noise(self) -> torch.Tensor:
        """(N, C, H, W) float32 noise with variance 1, where the endpoints are."""
        _, channels, height, width = self.endpoints.shape
        return per_seed_noise(self.seeds.tolist(), (channels, height, width)).to(self.endpoints.device)

    def condition(self) -> Condition | None:
        """What each request asks for."""
        return self.conditions(self.labels)

    def rows(self, index: torch.Tensor) -> Bank:
        """Some requests, by (M,) long or (N,) bool."""
        index = index.to(self.endpoints.device)
        return replace(
            self,
            seeds=self.seeds[index.cpu()],
            labels=self.labels[index],
            scales=self.scales[index],
            endpoints=self.endpoints[index],
        )

    def to(self, device: torch.device | str) -> Bank:
        """The same with its tensors elsewhere, so that programs run there."""
        return replace(
            self, labels=self.labels.to(device), scales=self.scales.to(device), endpoints=self.endpoints.to(device)
        )

    def save(self, folder: Path | str) -> None:
        """Write ``<part>.safetensors`` and ``<part>.json``."""
        tensors = {"seeds": self.seeds, "labels": self.labels, "scales": self.scales, "endpoints": self.endpoints}
        check = asdict(self.check)
        for key in ("median", "p95"):  # JSON has no nan
            check[key] = check[key] if math.isfinite(check[key]) else None
        facts = {
            "part": self.part,
            "teacher": self.teacher.to_dict(),
            "check": check,
            "left_out": [list(pair) for pair in self.left_out],
        }
        save_weights(folder, tensors, facts, name=self.part)

    @staticmethod
    def load(
        folder: Path | str, part: str, conditions: Callable[[torch.Tensor], Condition | None] = ClassLabels
    ) -> Bank:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: If there is no such part.
            CorruptArtifact: If its files are damaged or something else.
        """
        tensors, facts = load_weights(folder, name=part)
        try:
            check: dict[str, Any] = {key: math.nan if value is None else value for key, value in facts["check"].items()}
            return Bank(
                str(facts["part"]),
                tensors["seeds"],
                tensors["labels"],
                tensors["scales"],
                tensors["endpoints"],
                Program.from_dict(facts["teacher"]),
                TeacherCheck(**check),
                tuple((int(seed), int(call)) for seed, call in facts["left_out"]),
                conditions,
            )
        except (KeyError, TypeError, ValueError, AttributeError, BadInput) as error:
            raise CorruptArtifact(
                f"{folder}: {part} is not a part of a bank ({error}); make it again with `dvc repro teacher-bank`"
            ) from error


def part_seeds(part: str, count: int, seed: int = 0) -> list[int]:
    """Seeds of a part's requests: consecutive numbers of the part's own range, from a place that `seed` chooses.

    Args:
        part: One of ``PARTS``.
        count: How many.
        seed: Other seeds give other requests, of the same range.

    Raises:
        BadInput: If there is no such part, or the count is negative.
    """
    if part not in PARTS or count < 0:
        raise BadInput(f"bank: {count} requests of part {part!r}, expected 0 or more of {', '.join(PARTS)}")
    first = PARTS.index(part) * _SEEDS_OF_A_PART + derive_seed(seed, "bank") % (_SEEDS_OF_A_PART // 2)
    return list(range(first, first + count))


def usual_teacher(denoiser: Denoiser, calls: int = TEACHER_CALLS) -> Program:
    """Third-order UniPC in many steps, evenly spaced in log-SNR, over all noise levels that the network was taught.

    On networks whose endpoints are known it is ten times nearer to them than DPM-Solver++ 3M with as many calls, and a
    hundred times nearer than Heun's method with twice as many.
    """
    return unipc(log_snr(calls, denoiser.sigma_min, denoiser.sigma_max), order=3)


def make_bank(
    denoiser: Denoiser,
    part: str,
    count: int,
    mix: RequestMix,
    *,
    teacher: Program | None = None,
    seed: int = 0,
    batch: int = 256,
    check_requests: int = 64,
    check_bound: float | None = None,
    conditions: Callable[[torch.Tensor], Condition | None] = ClassLabels,
    device: torch.device | str = "cpu",
) -> Bank:
    """Draw requests and let the teacher answer them.

    Args:
        denoiser: The network.
        part: One of ``PARTS``.
        count: Requests.
        mix: What is asked for.
        teacher: A program with many steps; :func:`usual_teacher` where left out.
        seed: Root of all randomness.
        batch: Requests that go through the network at once; the bank does not depend on it but for rounding.
        check_requests: How many of the first requests Heun's method answers as well, with about four times as
            many calls: with fewer its own error is what would be measured.
        check_bound: Median difference above which a warning is logged; ``CHECK_BOUND`` of the pictures' standard
            deviation where left out.
        conditions: Makes conditions of labels, such as rows of prompts.
        device: Where the network is; the bank is on the CPU whatever it is.

    Returns:
        The bank, without requests whose endpoint is not finite; they are reported in it and in the log.

    Raises:
        BadInput: If the counts are none, or no request has a finite endpoint.
    """
    if count < 1 or batch < 1 or check_requests < 1:
        raise BadInput(f"bank {part}: {count} requests, {check_requests} to check, batch {batch}; expected 1 or more")
    program = usual_teacher(denoiser) if teacher is None else teacher
    seeds = part_seeds(part, count, seed)
    labels, scales = mix.draw(seeds)
    last = program.sigmas[-2] if program.steps > 1 else denoiser.sigma_min
    checker = heun(karras(max(2, 2 * program.evaluations), last, program.sigmas[0]))

    endpoints = torch.empty((count, *denoiser.shape))
    failed = torch.empty(count, dtype=torch.long)
    checked = min(count, check_requests)
    better = torch.empty((checked, *denoiser.shape))
    threads = None if torch.device(device).type == "cpu" else 1
    with Progress(f"teacher bank, {part}", total=count + checked, unit="requests") as progress:
        for target, made_by, total in ((endpoints, program, count), (better, checker, checked)):

            def answer(rows: slice, target: torch.Tensor = target, made_by: Program = made_by) -> None:
                noise = per_seed_noise(seeds[rows], denoiser.shape).to(device)
                condition = conditions(labels[rows].to(device))
                plain = condition is None or bool((scales[rows] == 1).all())
                guidance = None if plain else scales[rows].to(device)
                sampled = run_program(denoiser, noise, condition, made_by, guidance, double=noise.device.type != "mps")
                target[rows] = sampled.samples.float().cpu()
                if made_by is program:
                    failed[rows] = sampled.failed.cpu()
                progress.advance(len(noise))

            in_parts(answer, total, batch, threads=threads)

    finite = (failed == -1) & endpoints.isfinite().flatten(1).all(dim=1)
    left_out = tuple((seeds[row], int(failed[row])) for row in (~finite).nonzero().flatten().tolist())
    if left_out:
        log.warning("bank %s: %d of %d requests have no finite endpoint and are left out", part, len(left_out), count)
    if not finite.any():
        raise BadInput(
            f"bank {part}: none of {count} requests has a finite endpoint, the first failed at network call "
            f"{left_out[0][1]}; the network is broken or its noise levels "
            f"{program.sigmas[0]} to {program.sigmas[-2]} are wrong"
        )
    bound = CHECK_BOUND * denoiser.sigma_data if check_bound is None else check_bound
    check = _check(endpoints[:checked][finite[:checked]], better[finite[:checked]], bound, checker.evaluations)
    if not check.passed:
        log.warning(
            "bank %s: the teacher (%s, %d network calls) is %.3g from Heun's method with %d, expected at most %.3g; "
            "give it more calls or start it at a lower sigma",
            part, program.name, program.evaluations, check.median, check.calls, bound,
        )  # fmt: skip
    return Bank(
        part,
        torch.tensor(seeds, dtype=torch.int64)[finite],
        labels[finite],
        scales[finite],
        endpoints[finite],
        program,
        check,
        left_out,
        conditions,
    )


def _check(endpoints: torch.Tensor, better: torch.Tensor, bound: float, calls: int) -> TeacherCheck:
    errors = (endpoints.double() - better.double()).square().flatten(1).mean(dim=1).sqrt()
    if not len(errors):
        return TeacherCheck(math.nan, math.nan, bound, 0, calls)
    median, p95 = np.quantile(errors.numpy(), (0.5, 0.95)).tolist()
    return TeacherCheck(median, p95, bound, len(errors), calls)


def _pick(place: float, weights: Sequence[float]) -> int:
    """Which weight a place in [0, 1) falls on."""
    edges: Any = np.cumsum(weights) / np.sum(weights)
    return min(int(np.searchsorted(edges, place, side="right")), len(weights) - 1)
