"""Robustness of quality: strange starts, strange requests and networks that are not quite the same."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from vernissage.core.seeds import numpy_generator, torch_generator
from vernissage.sampler.domain.programs import Program
from vernissage.sampler.judge.arms import Requests
from vernissage.sampler.judge.probes import Averaged, Both, Misreported, in_type, with_noise, with_rounded_weights
from vernissage.sampler.judge.probes import Rounded as RoundedCalls
from vernissage.sampler.judge.runs import LEAST_REQUESTS, Tasks, static_steer
from vernissage.sampler.judge.trials import Bench, Case, Outcome, Variation, gaps

if TYPE_CHECKING:
    from collections.abc import Callable

    from vernissage.sampler.domain.denoiser import Denoiser
    from vernissage.sampler.learn.book import ProgramBook

_NOT_WORSE = (
    "all samples are finite, and saturating error plus price of the evaluations is not worse than static's by the "
    "margin (95 % interval)."
)
_HEAVY_DEGREES = 3
_DEAD = 0.05
_STRANGE_SCALES = (0.0, 1.0, 15.0, -2.0)
#: Requests for each of them; many steps must answer them all, and many more than usual.
_FEW, _STRANGE_CALLS = 8, 32
_WEIGHT_NOISE = 0.01
#: Narrow types may move a sample by this share of tau at the median.
_NARROW_SHARE = 0.1


def scaled_start(bench: Bench) -> Outcome:
    """Start from noise that is too weak or too strong."""
    return _other_starts(bench, lambda noise, _: 0.8 * noise, lambda noise, _: 1.25 * noise)


def shifted_start(bench: Bench) -> Outcome:
    """Start from noise whose mean is not 0, or with pixels that are."""

    def shifted(noise: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        offset = 0.1 + 0.2 * torch.rand(len(noise), generator=generator)
        sign = 1 - 2.0 * torch.randint(2, (len(noise),), generator=generator)
        return noise + (sign * offset).view(-1, 1, 1, 1).to(noise)

    def with_dead_pixels(noise: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        alive = torch.rand(noise.shape, generator=generator) >= _DEAD
        return noise * alive.to(noise)

    return _other_starts(bench, shifted, with_dead_pixels)


def strange_start(bench: Bench) -> Outcome:
    """Start from noise whose neighbours are alike, or with outliers; its variance is 1 all the same."""

    def blurred(noise: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        row = torch.tensor([0.25, 0.5, 0.25])
        kernel = torch.outer(row, row)
        kernel = (kernel / kernel.square().sum().sqrt()).to(noise)
        flat = F.pad(noise.flatten(0, 1).unsqueeze(1), (1, 1, 1, 1), mode="circular")
        return F.conv2d(flat, kernel.view(1, 1, 3, 3)).view_as(noise)

    def heavy_tailed(noise: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        # Student's t: a normal number over the root of a mean of squares of others.
        others = torch.randn((_HEAVY_DEGREES, *noise.shape), generator=generator).square().mean(dim=0)
        variance = _HEAVY_DEGREES / (_HEAVY_DEGREES - 2)
        return noise / (others.to(noise) * variance).sqrt().clamp_min(1e-3)

    return _other_starts(bench, blurred, heavy_tailed)


def wrong_sigma_max(bench: Bench) -> Outcome:
    """Let the network say half or twice its highest level, and all programs begin at half or twice theirs."""
    subject = bench.subject
    variations = []
    for part, factor in enumerate((0.5, 2.0)):
        book = _begun_elsewhere(subject.book, factor)
        variations.append(Variation(bench.tasks.share(part, 2), Misreported(subject.denoiser, factor), book))
    return bench.compare(variations)


def strange_guidance(bench: Bench) -> Outcome:
    """Ask for guidance that nobody tuned anything for, with and without ours."""
    if bench.tasks.requests.asked is None:
        return Outcome(passed=True, note="this network takes no conditions, so nothing can be guided")
    kept, rows = [], range(min(_FEW, len(bench.tasks)))
    for scale in _STRANGE_SCALES:
        tasks = bench.tasks.rows(rows)
        tasks = tasks.but(scales=torch.full_like(tasks.requests.scales, scale))
        tasks = bench.with_reference(tasks, calls=_STRANGE_CALLS)
        for name, steer in (("ours", bench.steer), ("static", static_steer)):
            made = bench.ours(tasks, steer=steer)
            charged = int(made.evaluations.sum())
            if not made.finite or charged != made.asked:
                what = f"{charged} evaluations charged, {made.asked} asked for" if made.finite else "not finite"
                return Outcome(passed=False, note=f"{name} with scale {scale:g}: {what}")
            if name == "ours":
                kept.append(float(bench.quality(made.samples, tasks).mean()))
                continue
            due = [bench.subject.book.for_price(price, scale).nfe(scale) for price in tasks.prices.tolist()]
            if made.evaluations.tolist() != due:
                return Outcome(
                    passed=False, note=f"static with scale {scale:g}: {made.evaluations.tolist()}, due {due}"
                )
    note = "quality " + ", ".join(f"{good:.2f} at {scale:g}" for good, scale in zip(kept, _STRANGE_SCALES, strict=True))
    return Outcome(passed=True, retained=bench.retained_of(sum(kept) / len(kept), rows), note=note)


def mixed_conditions(bench: Bench) -> Outcome:
    """Ask for two classes at once: the mean of what the network predicts for each."""
    subject, requests = bench.subject, bench.tasks.requests
    if requests.asked is None or not subject.classes:
        return Outcome(passed=True, note="this network knows no classes")
    mixing = Averaged(subject.denoiser)
    variations = []
    for part, distance in enumerate((1, max(1, subject.classes // 2))):
        tasks = bench.tasks.share(part, 2)
        first = tasks.requests.labels
        second = subject.conditions((first + distance) % subject.classes)
        if second is None or tasks.requests.asked is None:
            return Outcome(passed=True, note="this network takes no conditions")
        tasks = tasks.but(asked=Both(tasks.requests.asked, second))
        variations.append(Variation(bench.with_reference(tasks, mixing), mixing))
    found = bench.compare(variations)
    return replace(found, note=f"by averaged predictions; {found.note}")


def other_weights(bench: Bench) -> Outcome:
    """Run programs and controller on networks that are not quite the one they were made for."""
    subject = bench.subject
    networks: dict[str, Denoiser] = {
        "1 % noise": with_noise(subject.denoiser, _WEIGHT_NOISE, bench.seed),
        "float16": with_rounded_weights(subject.denoiser, torch.float16),
        **subject.relatives,
    }
    variations = []
    for part, network in enumerate(networks.values()):
        tasks = bench.tasks.share(part, len(networks))
        variations.append(Variation(bench.with_reference(tasks, network), network))
    found = bench.compare(variations)
    return replace(found, note=f"{', '.join(networks)}; {found.note}")


def narrow_types(bench: Bench) -> Outcome:
    """Let the network compute in other types."""
    rows = range(min(2 * _FEW, len(bench.tasks)))
    tasks, expected = bench.tasks.rows(rows), bench.clean.samples[list(rows)].double()
    denoiser, tau = bench.subject.denoiser, bench.subject.book.tau
    wide = bench.ours(tasks, denoiser=in_type(denoiser, torch.float64) or denoiser, kind=torch.float64)
    gap = float(gaps(wide.samples, expected).max())
    note, worst, good = [f"float64 {gap:.1e} at most"], 0.0, 1.0
    for kind in (torch.bfloat16, torch.float16):
        narrow, name = in_type(denoiser, kind), str(kind).removeprefix("torch.")
        try:
            made = bench.ours(tasks, denoiser=narrow or RoundedCalls(denoiser, kind))
        except RuntimeError:  # no such operations on this machine
            made = bench.ours(tasks, denoiser=RoundedCalls(denoiser, kind))
            name += " (answers rounded)"
        if not made.types <= {torch.float32, torch.float64}:
            return Outcome(passed=False, note=f"{name}: states are kept in {made.types}")
        off = (made.samples.double() - expected).square().flatten(1).mean(dim=1).sqrt()
        median = float(off.nan_to_num(torch.inf).median())
        worst, good = max(worst, median / tau), min(good, float(bench.quality(made.samples, tasks).mean()))
        note.append(f"{name} {median:.1e} at the median")
    passed = gap <= bench.rounding and worst <= _NARROW_SHARE
    return Outcome(passed, worst, bench.retained_of(good, rows), "; ".join(note))


def other_mix(bench: Bench) -> Outcome:
    """Ask mostly for what was seldom asked for, and at prices of a tenth and of five times those of the normal case."""
    everything = Requests.of(bench.subject.bank)
    count = max(LEAST_REQUESTS, len(bench.tasks) // 2)
    seen = everything.labels.cpu()
    rarity = 1 / torch.bincount(seen - seen.min())[seen - seen.min()].double().square()
    rng = numpy_generator(bench.seed, "classes")
    rows = rng.choice(len(seen), size=min(count, len(seen)), replace=False, p=(rarity / rarity.sum()).numpy())
    rare = Tasks(everything.rows(torch.from_numpy(rows)), bench.tasks.prices[: len(rows)])
    other = bench.tasks.share(1, 2)
    factors = torch.tensor([0.1, 5.0]).repeat(-(-len(other) // 2))[: len(other)]
    other = replace(other, prices=other.prices * factors.to(other.prices))
    # Other prices are meant to buy another quality.
    return bench.compare([Variation(rare), Variation(other, counted=False)])


def _other_starts(bench: Bench, *changes: Callable[[torch.Tensor, torch.Generator], torch.Tensor]) -> Outcome:
    """Compare on changed noise; many steps start from the same."""
    generator = torch_generator(bench.seed, "starts")
    variations = []
    for part, change in enumerate(changes):
        tasks = bench.tasks.share(part, len(changes))
        tasks = tasks.but(start=change(tasks.requests.start, generator))
        variations.append(Variation(bench.with_reference(tasks)))
    return bench.compare(variations)


def _begun_elsewhere(book: ProgramBook, factor: float) -> ProgramBook:
    entries = tuple(replace(entry, program=_begun_at(entry.program, factor)) for entry in book.family(book.shipped))
    return replace(book, entries=entries)


def _begun_at(program: Program, factor: float) -> Program:
    """A program whose first level is another one, but above the second; its first step, which is plain, goes along."""
    first, second = program.sigmas[:2]
    begun = max(first * factor, 1.05 * second)
    row = tuple(value * (1 - second / begun) / (1 - second / first) for value in program.coefficients[0])
    sigmas = (begun, *program.sigmas[1:])
    assert all(here > there for here, there in pairwise(sigmas))  # noqa: S101 - by construction
    return Program(program.name, sigmas, (row, *program.coefficients[1:]), program.corrections)


SCALED_START = Case(1, "start scaled by 0.8 and 1.25", f"On such starts {_NOT_WORSE}", scaled_start)
SHIFTED_START = Case(
    2, "start with a mean of 0.1 to 0.3, or 5 % dead pixels", f"On such starts {_NOT_WORSE}", shifted_start
)
STRANGE_START = Case(3, "correlated or heavy-tailed start", f"On such starts {_NOT_WORSE}", strange_start)
WRONG_SIGMA_MAX = Case(
    4, "sigma_max half and double", f"Told so, and with programs that begin there, {_NOT_WORSE}", wrong_sigma_max
)
STRANGE_GUIDANCE = Case(
    5,
    "guidance 0, 1, 15 and -2",
    "Samples of ours and of static are finite, what is charged is what networks were asked, and static charges what "
    "its programs say.",
    strange_guidance,
)
MIXED_CONDITIONS = Case(7, "two classes at once", f"Asked for both, {_NOT_WORSE}", mixed_conditions)
OTHER_WEIGHTS = Case(8, "network not quite the same", f"On such networks {_NOT_WORSE}", other_weights)
NARROW_TYPES = Case(
    9,
    "float64, bfloat16 and float16",
    "Samples equal those of float32: in float64 within rounding, in narrow types within a tenth of tau at the median; "
    "states stay in float32 or wider.",
    narrow_types,
)
OTHER_MIX = Case(18, "other classes and prices", f"For rare classes and at other prices {_NOT_WORSE}", other_mix)
