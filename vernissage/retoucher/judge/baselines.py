"""What a user could pick instead of the agent: nothing, chance, the classic automatic corrections, a juror search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from skimage.exposure import equalize_adapthist

from vernissage.retoucher.domain.colour import linear_to_srgb, luma, srgb_to_linear
from vernissage.retoucher.domain.filters import resize_square
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT
from vernissage.retoucher.learn.actions import ActionTable
from vernissage.retoucher.learn.juror import Juror

#: (N, 3, H, W) photos to (N, 3, H, W) results and (N,) number of edits.
Method = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Baseline:
    """One alternative to the agent.

    Attributes:
        name: As printed in tables.
        classic: Whether it is one of the automatic corrections that photo programs offer.
        run: The method.
    """

    name: str
    classic: bool
    run: Method


def no_edit(photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Leave photos as they are."""
    return photos, torch.zeros(len(photos))


def autocontrast(photos: torch.Tensor, cutoff: float = 0.005) -> tuple[torch.Tensor, torch.Tensor]:
    """Stretch luma between its 0.5 % and 99.5 % percentiles, one linear map for all channels.

    Args:
        photos: (N, 3, H, W) float in [0, 1].
        cutoff: Share of pixels that may clip at each end.

    Returns:
        Results and one edit per photo.
    """
    ends = torch.quantile(luma(photos).flatten(1), torch.tensor([cutoff, 1 - cutoff]), dim=1)
    low, high = ends[0].view(-1, 1, 1, 1), ends[1].view(-1, 1, 1, 1)
    wide_enough = high - low > 1 / 255
    stretched = ((photos - low) / (high - low).clamp_min(1 / 255)).clamp(0, 1)
    return torch.where(wide_enough, stretched, photos), torch.ones(len(photos))


def channel_autocontrast(photos: torch.Tensor, cutoff: float = 0.005) -> tuple[torch.Tensor, torch.Tensor]:
    """Stretch each channel on its own, which also takes away casts ("auto levels")."""
    ends = torch.quantile(photos.flatten(2), torch.tensor([cutoff, 1 - cutoff]), dim=2)
    low, high = ends[0][..., None, None], ends[1][..., None, None]
    stretched = ((photos - low) / (high - low).clamp_min(1 / 255)).clamp(0, 1)
    return torch.where(high - low > 1 / 255, stretched, photos), torch.ones(len(photos))


def gray_world(photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale channels in linear light until their means agree (Buchsbaum 1980); the mean luminance stays."""
    linear = srgb_to_linear(photos)
    means = linear.mean(dim=(2, 3), keepdim=True).clamp_min(1e-4)
    gains = luma(means) / means
    return linear_to_srgb((linear * gains).clamp(0, 1)), torch.ones(len(photos))


def clahe(photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Contrast-limited adaptive histogram equalisation of luma (Zuiderveld 1994), as in scikit-image."""
    results = []
    for photo in photos:
        grey = luma(photo)[0]
        equalised = torch.from_numpy(equalize_adapthist(grey.numpy().astype(np.float64), clip_limit=0.01)).to(photo)
        results.append((photo + (equalised - grey)).clamp(0, 1))
    return torch.stack(results), torch.ones(len(photos))


def random_edits(actions: ActionTable, horizon: int, rng: np.random.Generator) -> Method:
    """Take up to ``horizon`` random edits."""

    def run(photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        settings = torch.zeros(len(photos), SLIDER_COUNT)
        edits = torch.from_numpy(rng.integers(1, horizon + 1, size=len(photos)))
        for step in range(horizon):
            chosen = torch.from_numpy(rng.integers(actions.stop, size=len(photos)))
            settings = actions.apply(settings, torch.where(edits > step, chosen, actions.stop))
        return render(photos, settings), edits.float()

    return run


def greedy_juror_search(actions: ActionTable, juror: Juror, view: int, margin: float = 0.1) -> Method:
    """Try every action once and take the one that the juror likes best, if it gains at least ``margin`` points."""

    def run(photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        thumbnails = resize_square(photos, view)
        scores = []
        for action in range(actions.count):
            settings = actions.apply(torch.zeros(len(photos), SLIDER_COUNT), torch.full((len(photos),), action))
            scores.append(juror.score(render(thumbnails, settings)))
        table = torch.stack(scores, dim=1)
        best = table.argmax(dim=1)
        gain = table.gather(1, best.unsqueeze(1)).squeeze(1) - table[:, actions.stop]
        best = torch.where(gain >= margin, best, actions.stop)
        settings = actions.apply(torch.zeros(len(photos), SLIDER_COUNT), best)
        return render(photos, settings), (best != actions.stop).float()

    return run


def all_baselines(
    actions: ActionTable, horizon: int, juror: Juror, view: int, rng: np.random.Generator
) -> list[Baseline]:
    """Every baseline of the benchmark.

    Args:
        actions: The agent's action table.
        horizon: The agent's horizon.
        juror: The juror that the search asks.
        view: Side of the thumbnails that the juror sees.
        rng: Source of randomness of the random baseline.

    Returns:
        The baselines, "no edit" first.
    """
    return [
        Baseline("no edit", classic=False, run=no_edit),
        Baseline("random", classic=False, run=random_edits(actions, horizon, rng)),
        Baseline("autocontrast", classic=True, run=autocontrast),
        Baseline("auto levels", classic=True, run=channel_autocontrast),
        Baseline("CLAHE", classic=True, run=clahe),
        Baseline("gray-world", classic=True, run=gray_world),
        Baseline("greedy juror search", classic=False, run=greedy_juror_search(actions, juror, view)),
    ]
