"""What a user could pick instead of the agent: nothing, chance, the classic automatic corrections, a juror search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from skimage.exposure import equalize_adapthist

from vernissage.retoucher.domain.colour import linear_to_srgb, luma, srgb_to_linear
from vernissage.retoucher.domain.filters import resize_square
from vernissage.retoucher.domain.quality import psnr
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT
from vernissage.retoucher.learn.dataset import Pair, load_photo

if TYPE_CHECKING:
    from vernissage.retoucher.learn.actions import ActionTable
    from vernissage.retoucher.learn.juror import Juror
    from vernissage.retoucher.learn.network import PolicySpec

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


def autocontrast(photos: torch.Tensor, setting: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Stretch luma between two percentiles to black and white, one linear map for all channels.

    Args:
        photos: (N, 3, H, W) float in [0, 1].
        setting: Share of pixels that may clip at each end.

    Returns:
        Results and one edit per photo.
    """
    ends = torch.quantile(luma(photos).flatten(1), torch.tensor([setting, 1 - setting]), dim=1)
    return _stretch(photos, ends[0].view(-1, 1, 1, 1), ends[1].view(-1, 1, 1, 1))


def auto_levels(photos: torch.Tensor, setting: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Stretch each channel on its own, which also takes away casts; ``setting`` as for :func:`autocontrast`."""
    ends = torch.quantile(photos.flatten(2), torch.tensor([setting, 1 - setting]), dim=2)
    return _stretch(photos, ends[0][..., None, None], ends[1][..., None, None])


def _stretch(photos: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    stretched = ((photos - low) / (high - low).clamp_min(1 / 255)).clamp(0, 1)
    # One level apart is one colour: there is nothing to stretch.
    return torch.where(high - low > 1 / 255, stretched, photos), torch.ones(len(photos))


def gray_world(photos: torch.Tensor, setting: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale channels in linear light until their means agree (Buchsbaum 1980); the mean luminance stays.

    Args:
        photos: (N, 3, H, W) float in [0, 1].
        setting: Exponent of the gains: 1 removes the whole cast, a half its geometric half.

    Returns:
        Results and one edit per photo.
    """
    linear = srgb_to_linear(photos)
    means = linear.mean(dim=(2, 3), keepdim=True).clamp_min(1e-4)
    gains = (luma(means) / means) ** setting
    return linear_to_srgb((linear * gains).clamp(0, 1)), torch.ones(len(photos))


def clahe(photos: torch.Tensor, setting: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Contrast-limited adaptive histogram equalisation of luma (Zuiderveld 1994); ``setting`` is the clip limit."""
    results = []
    for photo in photos:
        grey = luma(photo)[0]
        if float(grey.max() - grey.min()) <= 1 / 255:  # one tone: equalising it would make any grey white
            results.append(photo)
            continue
        equalised = torch.from_numpy(equalize_adapthist(grey.numpy().astype(np.float64), clip_limit=setting)).to(photo)
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


#: Settings that each classic correction is tried with; the one with the best mean PSNR on the validation pairs counts.
_GRIDS: dict[str, tuple[float, ...]] = {
    "autocontrast": (0.0, 0.001, 0.005, 0.02),
    "auto levels": (0.0, 0.001, 0.005, 0.02),
    "CLAHE": (0.002, 0.005, 0.01, 0.03),
    "gray-world": (0.25, 0.5, 1.0),
}


@dataclass(frozen=True)
class TunedClassics:
    """The classic corrections with the settings that suited the validation pairs best.

    Attributes:
        baselines: Ready to run.
        chosen: Name to setting.
    """

    baselines: list[Baseline]
    chosen: dict[str, float]


def classic_method(name: str, setting: float) -> Method:
    """One classic correction with its one setting: clip share, clip limit, or strength."""
    functions = {"autocontrast": autocontrast, "auto levels": auto_levels, "CLAHE": clahe, "gray-world": gray_world}
    return partial(functions[name], setting=setting)


def tuned_classics(pairs: Sequence[Pair], at_most: int = 128) -> TunedClassics:
    """Choose the setting of each classic correction on pairs of the validation split.

    Args:
        pairs: Validation pairs.
        at_most: Look at no more than this many, evenly spread.

    Returns:
        The corrections.
    """
    faulty = [pair for pair in pairs if pair.n_faults] or list(pairs)
    loaded = [(load_photo(p.faulty), load_photo(p.original)) for p in faulty[:: -(-len(faulty) // at_most)]]
    chosen: dict[str, float] = {}
    for name, grid in _GRIDS.items():
        means = {
            setting: np.mean([float(psnr(classic_method(name, setting)(a)[0], b)) for a, b in loaded])
            for setting in grid
        }
        chosen[name] = max(grid, key=lambda setting, means=means: means[setting])  # type: ignore[misc]
    baselines = [Baseline(name, classic=True, run=classic_method(name, setting)) for name, setting in chosen.items()]
    return TunedClassics(baselines, chosen)


def all_baselines(spec: PolicySpec, juror: Juror, classics: TunedClassics, rng: np.random.Generator) -> list[Baseline]:
    """Every baseline of the benchmark.

    Args:
        spec: The agent's actions, horizon and view, which the searches share.
        juror: The juror that the search asks.
        classics: The tuned classic corrections.
        rng: Source of randomness of the random baseline.

    Returns:
        The baselines, "no edit" first.
    """
    actions = spec.actions()
    return [
        Baseline("no edit", classic=False, run=no_edit),
        Baseline("random", classic=False, run=random_edits(actions, spec.horizon, rng)),
        *classics.baselines,
        Baseline("greedy juror search", classic=False, run=greedy_juror_search(actions, juror, spec.view)),
    ]
