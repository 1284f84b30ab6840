"""What a robustness case is, and the bench it works at: the agent, test photos, and the normal case to compare with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vernissage.core.images import read_photo, to_uint8
from vernissage.retoucher.domain.faults import AppliedFault, apply_faults
from vernissage.retoucher.domain.filters import resize_square
from vernissage.retoucher.domain.full_size import as_batch, thumbnail
from vernissage.retoucher.domain.quality import psnr
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.learn.rollout import measure_suggestions, run_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vernissage.retoucher.learn.juror import Juror
    from vernissage.retoucher.learn.network import PolicyNet

Faults = tuple[AppliedFault, ...]

#: The normal case: every second photo is dull and dark, the others are too bright and too warm.
NORMAL_FAULTS: tuple[Faults, Faults] = (
    (AppliedFault("contrast", 0.7), AppliedFault("exposure", -0.9)),
    (AppliedFault("exposure", 0.8), AppliedFault("temperature", 0.3)),
)
#: With less gain than this in the normal case, in dB, there is nothing of which a share could be kept.
_SMALLEST_GAIN = 0.5
#: Photos for cases that write and read files.
_FEW = 4


@dataclass(frozen=True)
class Outcome:
    """What a case found.

    Attributes:
        passed: Whether the criterion holds.
        value: The number that the criterion is about.
        retained: Gain in PSNR as a share of the gain in the normal case; 1 is as good as normal.
        note: What else a reader should know.
    """

    passed: bool
    value: float | None = None
    retained: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Bench:
    """Everything that a case may use.

    Attributes:
        network: The agent.
        juror: Scores pictures.
        originals: Test photos, (1, 3, H, W) float in [0, 1] each.
        faulty: The same with the faults of the normal case.
        settings: (N, K) what the agent does with these.
        folder: Empty folder for the files of one case.
        rng: Source of randomness of one case.
    """

    network: PolicyNet
    juror: Juror
    originals: tuple[torch.Tensor, ...]
    faulty: tuple[torch.Tensor, ...]
    settings: torch.Tensor
    folder: Path
    rng: np.random.Generator

    def few(self) -> range:
        """Indices of some photos, for cases that go through files."""
        return range(min(_FEW, len(self.originals)))

    def decide(self, photos: Sequence[torch.Tensor]) -> torch.Tensor:
        """(N, K) settings of photos of any sizes."""
        return decide(self.network, photos)

    def retained(self, indices: Sequence[int], faulty: Sequence[torch.Tensor], settings: torch.Tensor) -> float | None:
        """Gain of settings as a share of the normal gain on the same photos.

        Args:
            indices: Which photos.
            faulty: The pictures that ``settings`` are applied to, of the size of the originals.
            settings: (len(indices), K).

        Returns:
            The share; None where the normal case has no gain to speak of.
        """
        originals = [self.originals[index] for index in indices]
        normal = mean_gain(originals, [self.faulty[index] for index in indices], self.settings[list(indices)])
        return mean_gain(originals, faulty, settings) / normal if normal >= _SMALLEST_GAIN else None


@dataclass(frozen=True)
class Case:
    """One trial.

    Attributes:
        name: As printed in tables.
        criterion: What must hold, stated before it runs.
        run: Finds out.
    """

    name: str
    criterion: str
    run: Callable[[Bench], Outcome]


def set_up(
    network: PolicyNet, juror: Juror, photos: Sequence[torch.Tensor], scratch: Path, rng: np.random.Generator
) -> Bench:
    """Make the bench with its normal case."""
    originals = tuple(photos)
    faulty = tuple(spoil(photo, NORMAL_FAULTS[index % 2], rng) for index, photo in enumerate(originals))
    return Bench(network, juror, originals, faulty, decide(network, faulty), scratch, rng)


def decide(network: PolicyNet, photos: Sequence[torch.Tensor]) -> torch.Tensor:
    """(N, K) settings that the agent chooses for photos of any sizes, each shrunk as a user's photo is."""
    spec = network.spec
    small = [thumbnail(as_pixels(photo), long_edge=spec.standard, short_edge=spec.view) for photo in photos]
    suggestions = torch.cat([measure_suggestions(photo, spec.standard) for photo in small])
    return run_policy(network, torch.cat([resize_square(photo, spec.view) for photo in small]), suggestions).settings


def edited(photos: Sequence[torch.Tensor], settings: torch.Tensor) -> list[torch.Tensor]:
    """Render every photo, of any size, with its row of settings."""
    return [render(photo, settings[row : row + 1]) for row, photo in enumerate(photos)]


def spoil(photo: torch.Tensor, faults: Faults, rng: np.random.Generator) -> torch.Tensor:
    """One photo with faults, stored in 8 bits."""
    return apply_faults(photo, [faults], [rng])


def mean_gain(originals: Sequence[torch.Tensor], faulty: Sequence[torch.Tensor], settings: torch.Tensor) -> float:
    """Mean gain in PSNR to the originals, in dB."""
    results = edited(faulty, settings)
    gains = [
        psnr(result, original) - psnr(before, original)
        for result, before, original in zip(results, faulty, originals, strict=True)
    ]
    return float(torch.cat(gains).mean())


def settings_gap(one: torch.Tensor, other: torch.Tensor) -> float:
    """Mean absolute difference of two (N, K) tables of settings, over photos and sliders."""
    return float((one - other).abs().mean())


def as_pixels(photo: torch.Tensor) -> NDArray[np.float32]:
    """(1, 3, H, W) as (H, W, 3), for writing files."""
    return np.ascontiguousarray(photo[0].permute(1, 2, 0).numpy())


def as_levels(photo: torch.Tensor) -> NDArray[np.uint8]:
    """(1, 3, H, W) float as (H, W, 3) uint8, for Pillow."""
    return to_uint8(as_pixels(photo))


def read_back(path: Path) -> torch.Tensor:
    """Read a file as the agent would, (1, 3, H, W)."""
    return as_batch(read_photo(path).pixels)
