"""Draws samples by a program: what `vernissage sample` and Python users call."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from vernissage.core.errors import BadInput
from vernissage.sampler.domain.denoiser import ClassLabels
from vernissage.sampler.domain.sampling import per_seed_noise, run_program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vernissage.sampler.domain.denoiser import Condition, Denoiser
    from vernissage.sampler.domain.programs import Program


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
