"""What arms take on the clock, and how much of it the network does not: ratios within one run, for machines to compare.

Network, arm and controller take turns, so that a machine that slows down slows all of them. A queue of work on an
accelerator is waited for before the clock is read.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vernissage.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vernissage.core.progress import Progress
    from vernissage.sampler.domain.denoiser import Condition, Denoiser
    from vernissage.sampler.judge.arms import Requests, SamplerArm

#: Batches that are timed; the demand on the controller is stated for the third.
BATCHES = (1, 16, 64, 256)


@dataclass(frozen=True)
class Timing:
    """One arm at one batch size; times are medians of the repeats, in milliseconds.

    Attributes:
        arm: The arm.
        budget: Its budget.
        batch: Requests at once.
        network_ms: One network call of this batch, without guidance.
        arm_ms: The whole batch, from noise to samples.
        calls: Network calls in that.
        rows: Samples that went through the network in it, guidance included.
        inside_ms: Time inside the network in it.
        overhead: What is not inside the network over what is, median of the ratios: solver, bookkeeping, controller.
        controller_ms: One decision of the controller for this batch; none where there is no controller.
        controller_share: The same over one network call of this batch.
    """

    arm: str
    budget: float
    batch: int
    network_ms: float
    arm_ms: float
    calls: int
    rows: int
    inside_ms: float
    overhead: float | None
    controller_ms: float | None = None
    controller_share: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a table."""
        return asdict(self)


class _Timed:
    """A denoiser that keeps the time spent in it."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self.shape, self.sigma_data = denoiser.shape, denoiser.sigma_data
        self.sigma_min, self.sigma_max = denoiser.sigma_min, denoiser.sigma_max
        self.seconds, self.calls, self.rows = 0.0, 0, 0

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        _wait(x)
        began = time.perf_counter()
        answer = self._denoiser(x, sigma, condition)
        _wait(answer)
        self.seconds += time.perf_counter() - began
        self.calls += 1
        self.rows += len(x)
        return answer


@torch.no_grad()
def wall_clock(
    arms: Sequence[tuple[SamplerArm, float]],
    denoiser: Denoiser,
    requests: Requests,
    *,
    batches: Sequence[int] = BATCHES,
    repeats: int = 7,
    warm_up: int = 2,
    controller: Callable[[int], object] | None = None,
    progress: Progress | None = None,
) -> list[Timing]:
    """Time arms at several batch sizes.

    Args:
        arms: Arms, each with the budget to time; those that ask other networks show these as overhead.
        denoiser: The network.
        requests: Repeated where a batch is larger.
        batches: Requests at once.
        repeats: Timed turns.
        warm_up: Turns before them that are not timed.
        controller: Makes one decision for so many slots: what the controller does between two network calls.
        progress: Told how many timings are done.

    Returns:
        One row per batch size and arm.

    Raises:
        BadInput: No requests, arms, batches or repeats.
    """
    if not len(requests) or not arms or min((*batches, repeats), default=0) < 1:
        raise BadInput(
            f"wall clock: {len(requests)} requests, {len(arms)} arms, batches {tuple(batches)}, {repeats} repeats; "
            "expected at least one of each"
        )
    timings = []
    for batch in batches:
        some = requests.rows(torch.arange(batch) % len(requests))
        for arm, budget in arms:
            timings.append(_time(arm, budget, denoiser, some, repeats, warm_up, controller))
            if progress is not None:
                progress.advance(1, arm=arm.name, batch=batch)
    return timings


def _time(
    arm: SamplerArm,
    budget: float,
    denoiser: Denoiser,
    requests: Requests,
    repeats: int,
    warm_up: int,
    controller: Callable[[int], object] | None,
) -> Timing:
    x, condition = requests.noise(), requests.condition()
    sigma = torch.full((len(requests),), denoiser.sigma_data, device=x.device, dtype=x.dtype)
    network, whole, inside, deciding = [], [], [], []
    timed = _Timed(denoiser)
    for turn in range(warm_up + repeats):
        network.append(_milliseconds(lambda: denoiser(x, sigma, condition), x))
        timed = _Timed(denoiser)
        whole.append(_milliseconds(lambda timed=timed: arm.run(timed, requests, budget), x))  # type: ignore[misc]
        inside.append(1000 * timed.seconds)
        if controller is not None:
            deciding.append(_milliseconds(lambda: controller(len(requests)), x))
        if turn < warm_up:
            for kept in (network, whole, inside, deciding):
                kept.clear()
    within, total, one = np.array(inside), np.array(whole), np.array(network)
    overhead = float(np.median((total - within) / within)) if within.min() > 0 else None
    return Timing(
        arm=arm.name,
        budget=float(budget),
        batch=len(requests),
        network_ms=float(np.median(one)),
        arm_ms=float(np.median(total)),
        calls=timed.calls,
        rows=timed.rows,
        inside_ms=float(np.median(within)),
        overhead=overhead,
        controller_ms=float(np.median(deciding)) if deciding else None,
        controller_share=float(np.median(np.array(deciding) / one)) if deciding else None,
    )


def _milliseconds(work: Callable[[], object], like: torch.Tensor) -> float:
    _wait(like)
    began = time.perf_counter()
    work()
    _wait(like)
    return 1000 * (time.perf_counter() - began)


def _wait(like: torch.Tensor) -> None:
    """Until the accelerator that holds a tensor has done what it was given."""
    if like.device.type == "cuda":
        torch.cuda.synchronize(like.device)
    elif like.device.type == "mps":
        torch.mps.synchronize()
