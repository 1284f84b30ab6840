"""Sampling: a program run on a batch, each sample as if it were alone.

A sample whose prediction is not finite leaves the batch and is reported; a sample whose program is over leaves it, too,
so that nobody pays for others.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from vernissage.core.errors import BadInput
from vernissage.core.seeds import numpy_generator
from vernissage.sampler.domain.denoiser import guided
from vernissage.sampler.domain.programs import Program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vernissage.sampler.domain.denoiser import Condition, Denoiser


@dataclass(frozen=True)
class Sampled:
    """What came out, sample by sample.

    Attributes:
        samples: (N, C, H, W) float. A sample that failed is its last finite prediction; nan if there was none.
        evaluations: (N,) long, network evaluations that each sample took, guidance included.
        failed: (N,) long, the network call whose prediction was not finite; -1 for samples that came through.
    """

    samples: torch.Tensor
    evaluations: torch.Tensor
    failed: torch.Tensor


@torch.no_grad()
def run_program(
    denoiser: Denoiser,
    noise: torch.Tensor,
    condition: Condition | None,
    program: Program | Sequence[Program],
    guidance: torch.Tensor | None = None,
    *,
    double: bool = False,
) -> Sampled:
    """Sample from noise by a program.

    The network computes in the type of `noise`, at least float32; so does the state.

    Args:
        denoiser: The network.
        noise: (N, C, H, W) normal with variance 1; the program's first sigma scales it.
        condition: What each sample should show.
        program: One for all, or one for each sample.
        guidance: (N,) scales of classifier-free guidance, or (N, E) one for each network call; see :func:`guided`.
        double: Keep the state in float64 between the calls.

    Returns:
        The samples, what they took and which failed.

    Raises:
        BadInput: If shapes or lengths do not fit.
    """
    programs = [program] if isinstance(program, Program) else list(program)
    if len(programs) != (1 if isinstance(program, Program) else len(noise)):
        raise BadInput(f"sampling: {len(programs)} programs for {len(noise)} samples, expected one for each")
    batch = _Batch(denoiser, noise, condition, guidance)
    if not programs:
        return batch.result()
    kind = torch.float64 if double else batch.kind
    tables = _Tables(programs, noise.device, kind)
    own = tables.own.expand(len(noise))
    batch.check_guidance(tables.longest)

    x = noise.to(kind) * tables.levels[own, 0].view(-1, 1, 1, 1)
    past: list[torch.Tensor] = []
    for call in range(tables.longest):
        if not len(x):
            break
        mine = own[batch.rows]
        prediction = batch.ask(x, tables.asked[mine, call], call).to(kind)
        finite = _finite(prediction)
        if not finite.all():
            batch.fail(~finite, call, past[0] if past else None)
            x, prediction, mine, past = x[finite], prediction[finite], mine[finite], [p[finite] for p in past]
        past = [prediction, *past][: tables.width]
        x = linear_step(x, past, tables.ratios[mine, call], tables.coefficients[mine, call])
        over = tables.lengths[mine] == call + 1
        if over.any():
            batch.finish(over, x)
            x, past = x[~over], [p[~over] for p in past]
    return batch.result()


def linear_step(
    x: torch.Tensor, past: Sequence[torch.Tensor], ratio: torch.Tensor, coefficients: torch.Tensor
) -> torch.Tensor:
    """One step of every multistep rule: ``(sigma' / sigma) x + sum_j c_j D_j``, differentiable in all arguments.

    Args:
        x: (N, C, H, W) states.
        past: J predictions of (N, C, H, W), the present one first.
        ratio: (N,) sigma after the step over sigma before it.
        coefficients: (N, J or more); those without a prediction are ignored.

    Returns:
        (N, C, H, W).

    Raises:
        BadInput: If there are fewer coefficients than predictions.
    """
    if len(past) > coefficients.shape[1]:
        raise BadInput(f"sampling: {coefficients.shape[1]} coefficients for {len(past)} predictions, expected as many")
    stepped = x * ratio.view(-1, 1, 1, 1).to(x)
    for prediction, weight in zip(past, coefficients.to(x).unbind(dim=1), strict=False):
        stepped = torch.addcmul(stepped, prediction, weight.view(-1, 1, 1, 1))
    return stepped


def per_seed_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> torch.Tensor:
    """Noise of which each sample depends on its own seed only.

    Args:
        seeds: N of them.
        shape: (C, H, W) of one sample.

    Returns:
        (N, C, H, W) float32 normal with variance 1.
    """
    noise = np.empty((len(seeds), *shape), dtype=np.float32)
    for row, seed in zip(noise, seeds, strict=True):
        numpy_generator(seed, "noise").standard_normal(out=row, dtype=np.float32)
    return torch.from_numpy(noise)


@torch.no_grad()
def sample_ancestral(
    denoiser: Denoiser,
    seeds: Sequence[int],
    condition: Condition | None,
    sigmas: Sequence[float],
    guidance: torch.Tensor | None = None,
    *,
    device: torch.device | str = "cpu",
) -> Sampled:
    """Sample as DDPM does, with fresh noise after each step (Ho et al. 2020, algorithm 2, the smaller variance).

    With the thousand levels of a training schedule this is what few-step samplers are measured from. It starts from
    the noise that :func:`per_seed_noise` gives for the same seeds, and each sample has its own generator after that.

    Args:
        denoiser: The network.
        seeds: N of them.
        condition: What each sample should show.
        sigmas: Strictly decreasing noise levels, the last of them 0.
        guidance: (N,) scales of classifier-free guidance.
        device: Where the network is.

    Returns:
        The samples, what they took and which failed.

    Raises:
        BadInput: If sigmas, shapes or lengths do not fit.
    """
    # A program of plain steps checks the levels.
    levels = Program("ancestral", tuple(sigmas), ((1.0,),) * (len(sigmas) - 1)).sigmas
    noise = per_seed_noise(seeds, denoiser.shape).to(device)
    batch = _Batch(denoiser, noise, condition, guidance)
    batch.check_guidance(len(levels) - 1)
    generators = [numpy_generator(seed, "ancestral") for seed in seeds]

    x, before = noise * levels[0], None
    for call, (here, there) in enumerate(pairwise(levels)):
        if not len(x):
            break
        prediction = batch.ask(x, torch.full((len(x),), here, device=x.device), call)
        finite = _finite(prediction)
        if not finite.all():
            batch.fail(~finite, call, before)
            x, prediction = x[finite], prediction[finite]
        before = prediction
        # The posterior of the state at the next level, given the picture and the present state.
        share = (there / here) ** 2
        x = prediction + share * (x - prediction)
        if there > 0:
            drawn = [generators[row].standard_normal(denoiser.shape, dtype=np.float32) for row in batch.rows.tolist()]
            fresh = torch.from_numpy(np.array(drawn, dtype=np.float32).reshape(x.shape)).to(x)
            x = x + there * (1 - share) ** 0.5 * fresh
    batch.finish(torch.ones(len(x), dtype=torch.bool, device=x.device), x)
    return batch.result()


def _finite(predictions: torch.Tensor) -> torch.Tensor:
    """Which samples are finite in every pixel, (N,) bool."""
    # A sum is quicker, and finite only if all its terms are; huge terms alone can mislead it the other way.
    quick = predictions.flatten(1).sum(dim=1).isfinite()
    return quick if bool(quick.all()) else predictions.isfinite().flatten(1).all(dim=1)


class _Batch:
    """The samples that are still under way, and what became of the others.

    Attributes:
        rows: (M,) long, which samples are under way.
        kind: Type that the network computes in.
    """

    def __init__(
        self, denoiser: Denoiser, noise: torch.Tensor, condition: Condition | None, guidance: torch.Tensor | None
    ) -> None:
        if noise.ndim != 4 or tuple(noise.shape[1:]) != tuple(denoiser.shape):
            raise BadInput(
                f"sampling: noise of shape {tuple(noise.shape)}, expected (N, {', '.join(map(str, denoiser.shape))}) "
                "for this network"
            )
        if condition is not None and len(condition) != len(noise):
            raise BadInput(f"sampling: {len(condition)} conditions for {len(noise)} samples, expected one for each")
        if guidance is not None and condition is None:
            raise BadInput("sampling: guidance without conditions; say what to guide to, or leave guidance out")
        self.kind = torch.promote_types(noise.dtype, torch.float32)
        self.rows = torch.arange(len(noise), device=noise.device)
        self._denoiser, self._condition = denoiser, condition
        self._guidance = None if guidance is None else guidance.to(noise.device)
        self._samples = torch.full(noise.shape, torch.nan, dtype=self.kind, device=noise.device)
        self._evaluations = torch.zeros(len(noise), dtype=torch.long, device=noise.device)
        self._failed = torch.full_like(self._evaluations, -1)
        # Conditions of those under way, so that they are picked out only when that changes.
        self._asked = condition

    def check_guidance(self, calls: int) -> None:
        """Refuse scales that are not numbers, or not one for each sample or for each of its network calls."""
        if self._guidance is None:
            return
        count = len(self._evaluations)
        if tuple(self._guidance.shape) not in {(count,), (count, calls)}:
            raise BadInput(
                f"sampling: guidance of shape {tuple(self._guidance.shape)}, expected ({count},), one scale for each "
                f"sample, or ({count}, {calls}), one for each network call"
            )
        if not torch.isfinite(self._guidance).all():
            raise BadInput("sampling: a guidance scale is not a finite number; 1 obeys the condition as it is")

    def ask(self, x: torch.Tensor, sigma: torch.Tensor, call: int) -> torch.Tensor:
        """Predictions for those under way, (M, C, H, W), with their guidance."""
        x, sigma = x.to(self.kind), sigma.to(self.kind)
        if self._guidance is None or self._asked is None:
            self._evaluations[self.rows] += 1
            return self._denoiser(x, sigma, self._asked)
        scale = (self._guidance if self._guidance.ndim == 1 else self._guidance[:, call])[self.rows]
        self._evaluations[self.rows] += 1 + ((scale != 0) & (scale != 1)).long()
        return guided(self._denoiser, x, sigma, self._asked, scale)

    def finish(self, which: torch.Tensor, x: torch.Tensor) -> None:
        """Let some of those under way, (M,) bool, go with what they have become, (M, C, H, W)."""
        self._samples[self.rows[which]] = x[which].to(self.kind)
        self._leave(which)

    def fail(self, which: torch.Tensor, call: int, before: torch.Tensor | None) -> None:
        """Let some of those under way, (M,) bool, go with their last finite predictions, (M, C, H, W)."""
        gone = self.rows[which]
        self._failed[gone] = call
        if before is not None:
            self._samples[gone] = before[which].to(self.kind)
        self._leave(which)

    def result(self) -> Sampled:
        """What became of all."""
        return Sampled(self._samples, self._evaluations, self._failed)

    def _leave(self, which: torch.Tensor) -> None:
        self.rows = self.rows[~which]
        if self._condition is not None and len(self.rows):
            self._asked = self._condition.rows(self.rows)


class _Tables:
    """Programs as tensors, each different one once; P of them, padded to the longest.

    Attributes:
        own: (N or 1,) long, which program is whose.
        lengths: (P,) long, network calls.
        levels: (P, E) in the state's type, sigma of each call.
        asked: (P, E), what the network is told of it.
        ratios: (P, E), sigma after it over sigma before.
        coefficients: (P, E, J).
    """

    def __init__(self, programs: Sequence[Program], device: torch.device, kind: torch.dtype) -> None:
        places: dict[int, int] = {}
        different: list[Program] = []
        for program in programs:
            if id(program) not in places:
                places[id(program)] = len(different)
                different.append(program)
        self.longest = max(program.evaluations for program in different)
        self.width = max(program.memory for program in different) + 1
        levels = np.ones((len(different), self.longest))
        asked, ratios = np.ones_like(levels), np.zeros_like(levels)
        coefficients = np.zeros((*levels.shape, self.width))
        for place, program in enumerate(different):
            calls = program.evaluations
            levels[place, :calls], asked[place, :calls] = program.levels, program.asked
            ratios[place, :calls] = np.array(program.targets) / levels[place, :calls]
            coefficients[place, :calls] = program.table(self.width)
        self.own = torch.tensor([places[id(program)] for program in programs], device=device)
        self.lengths = torch.tensor([program.evaluations for program in different], device=device)
        self.levels, self.asked, self.ratios, self.coefficients = (
            torch.from_numpy(values).to(kind).to(device) for values in (levels, asked, ratios, coefficients)
        )
