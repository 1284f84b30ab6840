"""Where episodes begin: photographs of the train split, varied as scenes vary, then damaged with fresh faults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from vernissage.retoucher.domain.colour import luma
from vernissage.retoucher.domain.faults import apply_faults, draw_faults
from vernissage.retoucher.domain.render import clamp_settings, render
from vernissage.retoucher.domain.sliders import SLIDER_NAMES
from vernissage.retoucher.learn.suggestions import classic_suggestions

if TYPE_CHECKING:
    from collections.abc import Sequence

# Spread of each slider when another scene is imagined: a darker room, a warmer lamp, duller colours. Exposure and
# contrast vary little, the tone curve much: cameras put black and white near the ends whatever the scene is.
_SCENE_SPREAD = {
    "exposure": 0.06, "contrast": 0.03, "highlights": 0.50, "shadows": 0.50, "temperature": 0.10, "tint": 0.06,
    "saturation": 0.20, "denoise": 0.0, "sharpen": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Starts:
    """Beginnings of N episodes.

    Attributes:
        faulty: (N, 3, V, V) float in [0, 1], what the agent is given.
        reference: (N, 3, V, V) float in [0, 1], what was meant.
        suggestions: (N, SUGGESTIONS) by :func:`classic_suggestions`, from the photos behind the thumbnails where these
            are at hand, else from the thumbnails.
    """

    faulty: torch.Tensor
    reference: torch.Tensor
    suggestions: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def __post_init__(self) -> None:
        if not len(self.suggestions):
            object.__setattr__(self, "suggestions", classic_suggestions(self.faulty))


#: Faults of neighbourhoods: pixels taken out of their place cannot show them.
_SPATIAL_FAULTS = {"blur", "jpeg"}


@dataclass(frozen=True)
class Pictures:
    """Photos to begin from.

    Attributes:
        thumbnails: (M, 3, V, V) float in [0, 1].
        samples: (M, 3, S, S) float in [0, 1], pixels with the histogram of each photo; see :func:`pixel_sample`.
        weights: (M,) how often each is drawn, in proportion; all alike where missing.
    """

    thumbnails: torch.Tensor
    samples: torch.Tensor
    weights: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def __post_init__(self) -> None:
        if not len(self.weights):
            object.__setattr__(self, "weights", torch.ones(len(self.thumbnails)))

    @staticmethod
    def of_thumbnails(thumbnails: torch.Tensor) -> Pictures:
        """Thumbnails that are their own photos."""
        return Pictures(thumbnails, thumbnails)

    def joined(self, other: Pictures, share: float | None = None) -> Pictures:
        """Both, one after the other.

        Args:
            other: Further photos.
            share: Share of draws that go to them in [0, 1); without it every photo keeps its weight.
        """
        added = other.weights
        if share is not None and len(added):
            added = added * (self.weights.sum() * share / (1 - share) / added.sum())
        return Pictures(
            torch.cat((self.thumbnails, other.thumbnails)),
            torch.cat((self.samples, other.samples)),
            torch.cat((self.weights, added)),
        )


class StartSource(Protocol):
    """Draws the beginnings of episodes."""

    def draw(self, count: int) -> Starts:
        """Draw ``count`` beginnings."""
        ...


class SceneStarts:
    """Draws a photo, imagines the scene a little different, and damages it.

    A handful of source photos says little about how light and colour vary in the world. Without the variation a network
    learns "this is what pictures look like" from few pictures and then "corrects" everything that looks otherwise;
    with it, it learns to act only on what no scene would explain.

    Args:
        originals: Photos of the train split.
        stored: Faulty and original thumbnails of the train split, (S, 3, V, V) each, mixed in by ``stored_share``.
        scene_variation: Scale of the variation; 0 takes photos as they are.
        stored_share: Share of beginnings that come from the stored pairs.
        clean_share: Share of fresh beginnings without a fault.
        faults: Fewest and most faults of one photo.
        kinds: Which faults there are.
        full_range_share: See :func:`vary_scenes`.
        taken_at: Long edge at which faults happen, pixels.
        rng: Source of randomness.
    """

    def __init__(
        self,
        originals: Pictures,
        stored: Starts,
        *,
        scene_variation: float,
        stored_share: float,
        clean_share: float,
        faults: tuple[int, int],
        kinds: Sequence[str],
        full_range_share: float,
        taken_at: int,
        rng: np.random.Generator,
    ) -> None:
        self._originals, self._stored = originals, stored
        self._variation, self._stored_share, self._clean_share = scene_variation, stored_share, clean_share
        self._faults, self._kinds, self._taken_at = faults, kinds, taken_at
        self._full_range_share = full_range_share
        self._chances = (originals.weights / originals.weights.sum()).double().numpy()
        self._chances /= self._chances.sum()
        self.rng = rng

    def draw(self, count: int) -> Starts:
        """Draw ``count`` beginnings."""
        rng = self.rng
        from_stored = int(rng.binomial(count, self._stored_share))
        fresh = self._fresh(count - from_stored)
        rows = torch.from_numpy(rng.integers(len(self._stored.faulty), size=from_stored))
        faulty = torch.cat((fresh.faulty, self._stored.faulty[rows]))
        reference = torch.cat((fresh.reference, self._stored.reference[rows]))
        flipped = torch.from_numpy(rng.random(count) < 0.5).view(-1, 1, 1, 1)
        return Starts(
            torch.where(flipped, faulty.flip(-1), faulty),
            torch.where(flipped, reference.flip(-1), reference),
            # A mirrored photo has the same histogram.
            torch.cat((fresh.suggestions, self._stored.suggestions[rows])),
        )

    def _fresh(self, count: int) -> Starts:
        thumbnails, samples = self._originals.thumbnails, self._originals.samples
        if not count:  # one photo is drawn, and it is a stored one
            return Starts(thumbnails[:0], thumbnails[:0], self._stored.suggestions[:0])
        rng = self.rng
        rows = torch.from_numpy(rng.choice(len(thumbnails), size=count, p=self._chances))
        scenes, sampled = vary_scenes(
            thumbnails[rows], self._variation, rng, samples[rows], full_range_share=self._full_range_share
        )
        faults = [
            () if rng.random() < self._clean_share else draw_faults(rng, *self._faults, self._kinds)
            for _ in range(count)
        ]
        faulty = apply_faults(scenes, faults, [rng] * count, taken_at=self._taken_at)
        of_pixels = [tuple(fault for fault in row if fault.name not in _SPATIAL_FAULTS) for row in faults]
        suggestions = classic_suggestions(apply_faults(sampled, of_pixels, [rng] * count))
        return Starts(faulty, scenes, suggestions)


def vary_scenes(
    images: torch.Tensor,
    variation: float,
    rng: np.random.Generator,
    samples: torch.Tensor | None = None,
    *,
    full_range_share: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Render photos as if light and colour had been a little different that day.

    Some also get their darkest and brightest pixels moved to the ends, as whole photos mostly have them and crops of
    photos mostly do not.

    Args:
        images: (N, 3, H, W) float in [0, 1].
        variation: Scale; 0 returns the photos as they are.
        rng: Source of randomness.
        samples: (N, 3, S, S) pixels with the histogram of each photo, varied alike; the images themselves if missing.
        full_range_share: Share of photos whose darkest and brightest pixels are moved to the ends.

    Returns:
        Varied images and samples.
    """
    samples = images if samples is None else samples
    if not len(images):
        return images, samples
    if variation > 0:
        spread = variation * torch.tensor([_SCENE_SPREAD[name] for name in SLIDER_NAMES])
        drawn = torch.from_numpy(rng.standard_normal((len(images), len(spread)), dtype=np.float32)).clamp(-2, 2)
        settings = clamp_settings(drawn * spread)
        images, samples = render(images, settings), render(samples, settings)
    if full_range_share == 0:
        return images, samples
    low, high = _ends(samples, rng)
    stretched = torch.from_numpy(rng.random(len(images)) < full_range_share).view(-1, 1, 1, 1)
    return torch.where(stretched, _stretch(images, low, high), images), torch.where(
        stretched, _stretch(samples, low, high), samples
    )


def _ends(samples: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Luma of black and white; in half of the photos up to one percent of the pixels lie beyond either."""
    clipped = torch.from_numpy((rng.uniform(-0.01, 0.01, len(samples)).clip(0)).astype(np.float32))
    ordered = luma(samples).flatten(1).sort(dim=1).values
    place = (clipped * (ordered.shape[1] - 1)).long().unsqueeze(1)
    low, high = ordered.gather(1, place), ordered.gather(1, ordered.shape[1] - 1 - place)
    return low.view(-1, 1, 1, 1), high.view(-1, 1, 1, 1)


def _stretch(images: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Move black and white to the ends, at most fivefold."""
    return ((images - low) / (high - low).clamp_min(0.2)).clamp(0, 1)
