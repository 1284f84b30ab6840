"""The plain alternative to an agent: one look, one slider vector, learned through the differentiable renderer.

It is trained on the same photos and faults as the agent's plan, sees the same statistics, and is chosen by the
validation split, so that the benchmark compares with what a careful engineer builds without reinforcement learning.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from vernissage.core.errors import CorruptArtifact
from vernissage.core.seeds import derive_seed, numpy_generator
from vernissage.core.weights import load_weights, save_weights
from vernissage.retoucher.domain.colour import srgb_to_linear
from vernissage.retoucher.domain.filters import resize_square
from vernissage.retoucher.domain.render import render_linear
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, SLIDER_NAMES
from vernissage.retoucher.learn.environment import to_bytes
from vernissage.retoucher.learn.juror import PictureTrunk
from vernissage.retoucher.learn.planner import planner_loss
from vernissage.retoucher.learn.rewards import reference_error
from vernissage.retoucher.learn.rollout import measure_suggestions
from vernissage.retoucher.learn.scenes import Pictures, SceneStarts
from vernissage.retoucher.learn.suggestions import SUGGESTIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vernissage.retoucher.learn.scenes import Starts, StartSource
    from vernissage.retoucher.learn.training import RetoucherTraining, Thumbnails

# Sliders of light and colour. Denoising and sharpening made no difference to validation, and without them every pixel
# stands for itself, so that the loss may look at some of them only.
_PROPOSED = [place for place, name in enumerate(SLIDER_NAMES) if name not in {"denoise", "sharpen"}]
_STRIDE = 2
# Side of the pixel samples that the histograms of training photos are measured on: four times fewer than the thumbnails
# have, at a quarter of what costs most in drawing.
_SAMPLE_SIDE = 32
# Looks at the validation split in the course of a training.
_LOOKS = 10
# Weights are averaged over about this many of the last updates before they are looked at.
_MEAN_DECAY = 0.985
_WARM_UP = 30
_WEIGHT_DECAY = 1e-3


@dataclass(frozen=True)
class RegressorSpec:
    """What is needed to build the network again.

    Attributes:
        view: Side of the thumbnails in pixels.
        standard: Long edge in pixels at which the ends of a photo's histogram are measured.
        widths: Channels of the convolutions.
    """

    view: int
    standard: int
    widths: tuple[int, ...] = (20, 40, 80, 128)


@dataclass(frozen=True)
class RegressorTraining:
    """Settings of a training.

    Attributes:
        images: Pictures to learn from, in all.
        batch: Pictures of one update.
        lr: Peak learning rate.
        log_weight: Weight that the logarithm of the squared error ends with; it begins with none, because far from the
            answer it would only slow learning down.
        seed: Root of all randomness but the source's.
    """

    images: int
    batch: int = 64
    lr: float = 2e-3
    log_weight: float = 1.6
    seed: int = 0

    @property
    def updates(self) -> int:
        """Number of updates."""
        return -(-self.images // self.batch)


class Regressor(nn.Module):
    """A small network with the statistics of the photo beside it; proposes all sliders at once.

    Args:
        spec: Sizes.
    """

    def __init__(self, spec: RegressorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.trunk = PictureTrunk(spec.widths, 96)
        self.head = nn.Sequential(
            nn.Linear(self.trunk.width + SUGGESTIONS, 128), nn.ReLU(), nn.Linear(128, len(_PROPOSED))
        )
        # Untaught, it proposes nothing.
        for parameter in self.head[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: torch.Tensor, suggestions: torch.Tensor) -> torch.Tensor:
        """Propose settings.

        Args:
            images: (N, 3, V, V) float in [0, 1].
            suggestions: (N, SUGGESTIONS), see :func:`classic_suggestions`.

        Returns:
            (N, K) settings within the sliders' ranges; denoise and sharpen stay as they are.
        """
        proposed = torch.tanh(self.head(torch.cat((self.trunk(images), suggestions), dim=1)))
        neutral = torch.zeros(len(images), SLIDER_COUNT, dtype=proposed.dtype, device=proposed.device)
        return neutral.index_copy(1, torch.tensor(_PROPOSED, device=proposed.device), proposed)

    @torch.no_grad()
    def decide(self, photos: torch.Tensor) -> torch.Tensor:
        """Settings for photos of any size.

        Args:
            photos: (N, 3, H, W) float in [0, 1], encoded sRGB.

        Returns:
            (N, K).
        """
        views = to_bytes(resize_square(photos, self.spec.view)).float() / 255
        return self(views, measure_suggestions(photos, self.spec.standard))

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` and ``model.json``."""
        save_weights(folder, self.state_dict(), {"regressor": asdict(self.spec)})

    @staticmethod
    def load(folder: Path) -> Regressor:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: If there is none.
            CorruptArtifact: If hash, specification or weights do not fit.
        """
        tensors, spec = load_weights(folder)
        try:
            fields = dict(spec["regressor"])
            network = Regressor(RegressorSpec(**{**fields, "widths": tuple(fields["widths"])}))
            network.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            message = f"{folder}: not a regressor of this version ({error}); `dvc repro benchmark` trains one"
            raise CorruptArtifact(message) from error
        return network.eval()


@dataclass(frozen=True)
class TrainedRegressor:
    """Result of a training.

    Attributes:
        network: The weights that validated best.
        curve: One row per look at the validation split: ``update, images, loss, objective, psnr, clean_error``.
        kept_from: Update that the weights are from.
    """

    network: Regressor
    curve: list[dict[str, float]]
    kept_from: int


def train_regressor(
    source: StartSource,
    held_out: Starts,
    spec: RegressorSpec,
    settings: RegressorTraining,
    after_update: Callable[[int], None] | None = None,
) -> TrainedRegressor:
    """Train on fresh faults; the running mean of the weights that validates best is kept.

    Args:
        source: Draws faulty photos of the train split.
        held_out: Pairs of the validation split.
        spec: Sizes.
        settings: How to train.
        after_update: Told how many pictures were learned from since it was last called.

    Returns:
        The regressor.

    Raises:
        ValueError: If there is nothing to learn from.
    """
    if settings.images < 1:
        raise ValueError(f"regressor: got {settings.images} images to learn from, expected at least 1")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(settings.seed, "regressor"))
        network = Regressor(spec)
    # Running mean of the weights (Polyak and Juditsky 1992): which look validates best is then less a matter of luck.
    mean = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=_WEIGHT_DECAY)
    every = max(1, settings.updates // _LOOKS)
    curve: list[dict[str, float]] = []
    best, losses = -math.inf, []
    kept: dict[str, torch.Tensor] = {}
    for update in range(settings.updates):
        losses.append(_update(network, source, optimiser, settings, update))
        _follow(mean, network, update)
        if after_update is not None:
            after_update(settings.batch)
        if (update + 1) % every == 0 or update + 1 == settings.updates:
            seen = _validate(mean, held_out, settings.log_weight)
            curve.append({"update": update + 1, "images": (update + 1) * settings.batch, **seen})
            curve[-1]["loss"] = sum(losses) / len(losses)
            losses.clear()
            if seen["objective"] > best:
                best, kept_from = seen["objective"], update + 1
                kept = {name: tensor.clone() for name, tensor in mean.state_dict().items()}
    network.load_state_dict(kept)
    return TrainedRegressor(network.eval(), curve, kept_from)


def teach_regressor(
    data: Thumbnails, like: RetoucherTraining, images: int, after_update: Callable[[int], None] | None = None
) -> TrainedRegressor:
    """Train on what the agent's plan is trained on: the same photos, scenes and faults, its batch and learning rate.

    Args:
        data: Photos and pairs.
        like: The agent's training.
        images: Pictures to learn from.
        after_update: As for :func:`train_regressor`.

    Returns:
        The regressor.
    """
    source = SceneStarts(
        _with_fewer_samples(data.originals),
        data.stored,
        scene_variation=like.scene_variation,
        full_range_share=like.full_range_share,
        stored_share=like.stored_share,
        clean_share=like.clean_share,
        faults=like.faults,
        kinds=like.kinds,
        taken_at=like.taken_at,
        rng=numpy_generator(like.seed, "regressor-starts"),
    )
    settings = RegressorTraining(images, like.planner.batch, like.planner.lr, seed=like.seed)
    return train_regressor(
        source, data.held_out, RegressorSpec(like.spec.view, like.spec.standard), settings, after_update
    )


def _with_fewer_samples(pictures: Pictures) -> Pictures:
    """The same photos with smaller pixel samples; the first pixels, where the ends of the histogram lie, all stay."""
    flat = pictures.samples.flatten(2)
    wanted, kept = _SAMPLE_SIDE**2, 2 * _SAMPLE_SIDE
    if flat.shape[2] <= wanted:
        return pictures
    rest = torch.linspace(kept, flat.shape[2] - 1, wanted - kept).long()
    samples = flat[:, :, torch.cat((torch.arange(kept), rest))]
    return Pictures(pictures.thumbnails, samples.unflatten(2, (_SAMPLE_SIDE, _SAMPLE_SIDE)), pictures.weights)


def _update(
    network: Regressor, source: StartSource, optimiser: torch.optim.Optimizer, settings: RegressorTraining, update: int
) -> float:
    done = update / settings.updates
    cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))
    for group in optimiser.param_groups:
        group["lr"] = settings.lr * min(1.0, (update + 1) / _WARM_UP) * cosine
    starts = source.draw(settings.batch)
    top, left = update % _STRIDE, update // _STRIDE % _STRIDE
    faulty, meant = (images[..., top::_STRIDE, left::_STRIDE] for images in (starts.faulty, starts.reference))
    result = render_linear(srgb_to_linear(faulty), network(starts.faulty, starts.suggestions))
    log_weight = settings.log_weight * min(1.0, 1.5 * done)
    first_error = reference_error(faulty, meant)
    loss = planner_loss(result, meant, first_error, harm_aversion=0.0, log_weight=log_weight)
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return loss.item()


@torch.no_grad()
def _follow(mean: Regressor, network: Regressor, update: int) -> None:
    decay = min(_MEAN_DECAY, (1 + update) / (10 + update))
    for slow, fast in zip(mean.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)


@torch.no_grad()
def _validate(network: Regressor, pairs: Starts, log_weight: float) -> dict[str, float]:
    """How good it is on pairs that it does not learn from; the objective is what training ends up minimising."""
    settings = network(pairs.faulty, pairs.suggestions)
    result = render_linear(srgb_to_linear(pairs.faulty), settings)
    first_error = reference_error(pairs.faulty, pairs.reference)
    loss = planner_loss(result, pairs.reference, first_error, harm_aversion=0.0, log_weight=log_weight)
    mse = ((result - pairs.reference) ** 2).flatten(1).mean(dim=1).clamp_min(1e-6)
    faulty = first_error > 0
    return {
        "objective": -float(loss),
        "psnr": float(-10 * torch.log10(mse[faulty]).mean()) if bool(faulty.any()) else math.nan,
        "clean_error": float(10 * mse[~faulty].sqrt().mean()) if bool((~faulty).any()) else math.nan,
    }
