"""Robustness against pictures: extreme, odd, already good, or the same once more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from vernissage.retoucher.domain.colour import luma, rgb_to_lab
from vernissage.retoucher.domain.faults import AppliedFault
from vernissage.retoucher.domain.filters import resize_square
from vernissage.retoucher.domain.quality import delta_e
from vernissage.retoucher.domain.statistics import photo_statistics
from vernissage.retoucher.judge.trials import Bench, Case, Outcome, edited, settings_gap, spoil

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIDE = 96
_NEUTRAL_CHROMA = 2.0
_CLOSE_SETTINGS = 0.03
_NOISE_GROWTH = 1.5


def _changes(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> torch.Tensor:
    """(N,) mean CIEDE2000 between pictures of any sizes."""
    return torch.cat([delta_e(one, other) for one, other in zip(before, after, strict=True)])


def _chroma(photo: torch.Tensor) -> float:
    lab = rgb_to_lab(photo)
    return float(torch.hypot(lab[:, 1], lab[:, 2]).mean())


def flat_pictures(bench: Bench) -> Outcome:
    """Edit pictures without any content."""
    colours = {
        "black": (0.0, 0.0, 0.0),
        "white": (1.0, 1.0, 1.0),
        "grey": (0.5, 0.5, 0.5),
        "red": (0.8, 0.1, 0.1),
        "blue": (0.1, 0.2, 0.7),
    }
    flats = [torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, _SIDE, _SIDE).clone() for colour in colours.values()]
    results = edited(flats, bench.decide(flats))
    if not all(bool(torch.isfinite(result).all()) for result in results):
        return Outcome(passed=False, note="a result is not finite")
    changes = _changes(flats, results)
    note = ", ".join(f"{name} {change:.2f}" for name, change in zip(colours, changes.tolist(), strict=True))
    ends = float(changes[:2].max())
    return Outcome(ends <= 1, ends, note=f"change of {note}")


def monochrome(bench: Bench) -> Outcome:
    """Edit photos without colour."""
    grey = [luma(photo).expand(-1, 3, -1, -1).clone() for photo in bench.faulty]
    chroma = [_chroma(result) for result in edited(grey, bench.decide(grey))]
    mean = sum(chroma) / len(chroma)
    return Outcome(mean <= _NEUTRAL_CHROMA, mean, note=f"at most {max(chroma):.2f}")


def extreme_exposure(bench: Bench) -> Outcome:
    """Edit photos three stops too dark and too bright."""
    count = len(bench.originals)
    originals = (*bench.originals, *bench.originals)
    stops = [-3.0] * count + [3.0] * count
    faulty = [
        spoil(photo, (AppliedFault("exposure", value),), bench.rng)
        for photo, value in zip(originals, stops, strict=True)
    ]
    settings = bench.decide(faulty)
    before, after = _changes(faulty, originals), _changes(edited(faulty, settings), originals)
    share = float((after <= before + 1e-3).float().mean())
    indices = [*range(count), *range(count)]
    note = f"mean dE00 {float(before.mean()):.1f} before, {float(after.mean()):.1f} after"
    return Outcome(share >= 0.8, share, bench.retained(indices, faulty, settings), note)


def strong_noise(bench: Bench) -> Outcome:
    """Edit dark photos full of grain."""
    faults = (AppliedFault("exposure", -1.0), AppliedFault("noise", 0.08))
    faulty = [spoil(photo, faults, bench.rng) for photo in bench.originals]
    settings = bench.decide(faulty)
    pairs = zip(faulty, edited(faulty, settings), strict=True)
    growth = [_noise(after) / max(_noise(before), 1e-6) for before, after in pairs]
    mean = sum(growth) / len(growth)
    return Outcome(mean <= _NOISE_GROWTH, mean, bench.retained(range(len(faulty)), faulty, settings))


def _noise(photo: torch.Tensor) -> float:
    return photo_statistics(photo)[0]["noise"]


def hard_compression(bench: Bench) -> Outcome:
    """Edit photos that were saved as JPEG of quality 10."""
    faulty = [spoil(photo, (AppliedFault("jpeg", 10.0),), bench.rng) for photo in bench.faulty]
    settings = bench.decide(faulty)
    worse = _changes(edited(faulty, settings), bench.originals) - _changes(faulty, bench.originals)
    mean = float(worse.mean())
    return Outcome(mean <= 1, mean, bench.retained(range(len(faulty)), faulty, settings))


def sunset(bench: Bench) -> Outcome:
    """Edit a drawn sunset, whose strong cast is what the picture is about."""
    y = torch.linspace(0, 1, _SIDE).view(1, _SIDE, 1)
    x = torch.linspace(-1, 1, _SIDE * 3 // 2).view(1, 1, -1)
    top, horizon = (torch.tensor(colour).view(3, 1, 1) for colour in ((0.30, 0.16, 0.35), (0.98, 0.55, 0.18)))
    sky = top + (horizon - top) * (y / 0.7).clamp(0, 1)
    sun = torch.exp(-((x / 0.12) ** 2 + ((y - 0.62) / 0.08) ** 2)) * torch.tensor([0.1, 0.4, 0.3]).view(3, 1, 1)
    land = torch.sigmoid((y - 0.72 - 0.03 * torch.sin(9 * x)) / 0.01)
    picture = ((sky + sun) * (1 - land) + land * torch.tensor([0.10, 0.05, 0.05]).view(3, 1, 1)).clamp(0, 1)[None]
    (result,) = edited([picture], bench.decide([picture]))
    kept = _chroma(result) / _chroma(picture)
    return Outcome(kept >= 0.5, kept)


def applied_twice(bench: Bench) -> Outcome:
    """Give the agent its own results."""
    once = edited(bench.faulty, bench.settings)
    again = edited(once, bench.decide(once))
    changes = _changes(once, again)
    mean = float(changes.mean())
    return Outcome(mean < 1, mean, note=f"at most {float(changes.max()):.2f}")


def mirrored(bench: Bench) -> Outcome:
    """Compare photos with their mirror images."""
    settings = bench.decide([photo.flip(3) for photo in bench.faulty])
    gap = settings_gap(settings, bench.settings)
    return Outcome(gap <= _CLOSE_SETTINGS, gap, bench.retained(range(len(settings)), bench.faulty, settings))


def other_sizes(bench: Bench) -> Outcome:
    """Compare photos with smaller and larger copies of themselves."""
    gaps, kept = {}, []
    for scale in (0.6, 2.0):
        copies = [
            F.interpolate(photo, scale_factor=scale, mode="bilinear", antialias=scale < 1, align_corners=False)
            for photo in bench.faulty
        ]
        settings = bench.decide([copy.clamp(0, 1) for copy in copies])
        gaps[scale] = settings_gap(settings, bench.settings)
        kept.append(bench.retained(range(len(settings)), bench.faulty, settings))
    worst = max(gaps.values())
    note = ", ".join(f"x{scale}: {gap:.3f}" for scale, gap in gaps.items())
    shares = [share for share in kept if share is not None]
    return Outcome(worst <= _CLOSE_SETTINGS, worst, min(shares) if shares else None, note)


def clean_photos(bench: Bench) -> Outcome:
    """Edit photos that need no editing."""
    results = edited(bench.originals, bench.decide(bench.originals))
    changes = _changes(bench.originals, results)
    size = bench.network.spec.view
    before, after = (
        bench.juror.score(torch.cat([resize_square(p, size) for p in row])) for row in (bench.originals, results)
    )
    mean = float(changes.mean())
    note = f"at most {float(changes.max()):.2f}; juror {float((after - before).mean()):+.2f}"
    return Outcome(mean <= 1.5, mean, note=note)


def determinism(bench: Bench) -> Outcome:
    """Decide and render the same photos again."""
    settings = bench.decide(bench.faulty)
    pairs = zip(edited(bench.faulty, bench.settings), edited(bench.faulty, settings), strict=True)
    same = torch.equal(settings, bench.settings) and all(torch.equal(one, other) for one, other in pairs)
    return Outcome(same, settings_gap(settings, bench.settings))


def one_or_many(bench: Bench) -> Outcome:
    """Decide on each photo alone."""
    alone = torch.cat([bench.decide([photo]) for photo in bench.faulty])
    gap = float((alone - bench.settings).abs().max())
    return Outcome(gap == 0, gap)


PICTURE_CASES: tuple[Case, ...] = (
    Case("flat pictures", "Results are finite; black and white change by at most dE00 1.", flat_pictures),
    Case("monochrome photo", "It stays neutral: mean chroma of the results at most 2.", monochrome),
    Case("exposure -3 and +3 EV", "At least 80 % are not farther from the original than before.", extreme_exposure),
    Case("strong noise in the dark", "Editing raises the noise by at most half on average.", strong_noise),
    Case(
        "JPEG quality 10", "On average not farther from the original than before by more than dE00 1.", hard_compression
    ),
    Case("sunset", "A picture whose cast is intended keeps at least half of its mean chroma.", sunset),
    Case("applied twice", "The second pass changes the photos by less than dE00 1 on average.", applied_twice),
    Case("mirrored photo", "Settings differ by at most 0.03 on average from those of the photo.", mirrored),
    Case("other sizes", "Settings of copies 0.6 and 2 times as large differ by at most 0.03 on average.", other_sizes),
    Case("clean photos", "Photos that need nothing are changed by at most dE00 1.5 on average.", clean_photos),
    Case("same again", "A second run gives the same settings and pixels, bit for bit.", determinism),
    Case("one or many", "A photo alone gets exactly the settings that it gets in a batch.", one_or_many),
)
