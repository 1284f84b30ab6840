"""Teaches the embedded denoiser: the loss of EDM, classes left out now and then, a running mean of the weights.

Every step draws from random numbers of its own, named by the seed and the step. So a checkpoint holds no random state,
and a training that was killed goes on to the weights that it would have had, bit for bit, on the same kind of machine
with as many threads.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from vernissage.core.devices import choose_device
from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.core.files import fresh_folder
from vernissage.core.progress import Progress
from vernissage.core.seeds import derive_seed, torch_generator
from vernissage.core.weights import load_weights, save_weights
from vernissage.sampler.domain.denoiser import NULL, ClassLabels
from vernissage.sampler.domain.unet import EdmDenoiser, UNetSpec, levels_to_samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_GRADIENT_NORM = 1.0
# What one validation call may hold: as much as a training batch of the largest kind.
_VALIDATION_ROWS = 256


class LabelledPictures(Protocol):
    """Pictures with classes and splits, as :class:`vernissage.sampler.prepare.pictures.ClassPictures` are."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class."""
        ...

    def of_split(self, split: str) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, C, H, W) uint8 pictures and (N,) long classes of ``train`` or ``val``."""
        ...


@dataclass(frozen=True)
class DenoiserTraining:
    """Settings of one training; the defaults suit the digits and take about a minute and a half on two cores.

    Attributes:
        steps: Updates of the weights.
        batch: Pictures per update.
        lr: Learning rate after the warm-up.
        warm_up: Updates over which the learning rate rises from 0.
        decay_share: Share of the updates, at the end, over which it falls to 0 again.
        weight_decay: Of AdamW.
        ema_width: Width of the running mean of the weights, as a share of the updates so far: a power mean, Karras et
            al. 2024 ("Analyzing and improving the training dynamics of diffusion models"), equation 123.
        class_dropout: Share of pictures that are taught without their class, for guidance.
        log_sigma_mean: Mean of ln sigma, of the noise that pictures are taught with.
        log_sigma_std: Its standard deviation.
        wide_share: Share of pictures whose ln sigma is uniform from sigma_min to sigma_max instead: sampling begins
            where the normal distribution hardly ever reaches.
        mirrored: Whether pictures may be taught left to right; right for photos, wrong for digits.
        looks: How many times the running mean is validated; the best is kept.
        validation_pictures: Most pictures to validate on.
        validation_draws: Noises per validation picture, the same at every look.
        checkpoint_every: Updates between checkpoints; there is one at every look as well.
        width: See :class:`UNetSpec`.
        multipliers: See :class:`UNetSpec`.
        blocks: See :class:`UNetSpec`.
        attention_side: See :class:`UNetSpec`.
        dropout: See :class:`UNetSpec`.
        sigma_min: See :class:`UNetSpec`.
        sigma_max: See :class:`UNetSpec`.
        seed: Root of all randomness.

    Raises:
        BadParams: If a value is out of its range.
    """

    steps: int = 2000
    batch: int = 64
    lr: float = 4e-3
    warm_up: int = 100
    decay_share: float = 0.5
    weight_decay: float = 0.01
    ema_width: float = 0.1
    class_dropout: float = 0.1
    log_sigma_mean: float = -1.2
    log_sigma_std: float = 1.2
    wide_share: float = 0.1
    mirrored: bool = False
    looks: int = 8
    validation_pictures: int = 1024
    validation_draws: int = 4
    checkpoint_every: int = 250
    width: int = 24
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    attention_side: int = 4
    dropout: float = 0.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "looks", "validation_pictures", "validation_draws", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise BadParams(f"denoiser: {name} = {getattr(self, name)}, expected at least 1")
        for name in ("lr", "ema_width", "log_sigma_std"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadParams(f"denoiser: {name} = {getattr(self, name)}, expected a number above 0")
        for name in ("decay_share", "class_dropout", "wide_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadParams(f"denoiser: {name} = {getattr(self, name)}, expected a share from 0 to 1")
        for name in ("warm_up", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise BadParams(f"denoiser: {name} = {getattr(self, name)}, expected at least 0")
        if not self.ema_width < 0.28:  # the power would be below 0, and the first weights would weigh most
            raise BadParams(f"denoiser: ema_width = {self.ema_width}, expected a number above 0 and below 0.28")

    def spec(self, pictures: torch.Tensor, classes: int) -> UNetSpec:
        """Return the network for (N, C, H, W) uint8 pictures."""
        _, channels, side, _ = pictures.shape
        return UNetSpec(
            channels=channels,
            side=side,
            classes=classes,
            sigma_data=float(levels_to_samples(pictures).std()),
            width=self.width,
            multipliers=tuple(self.multipliers),
            blocks=self.blocks,
            attention_side=self.attention_side,
            dropout=self.dropout,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
        )


def train_denoiser(
    pictures: LabelledPictures, settings: DenoiserTraining, checkpoint_folder: Path
) -> tuple[EdmDenoiser, list[dict[str, Any]]]:
    """Train a denoiser; go on where a training of the same pictures and settings was cut off.

    Args:
        pictures: Learned from is ``train``; ``val`` chooses the weights; ``test`` is not touched.
        settings: How to train.
        checkpoint_folder: Outside DVC; removed at the end.

    Returns:
        The denoiser with the running mean that validated best, on the CPU; a row per look with ``step``, ``pictures``
        seen so far, ``lr``, mean training ``loss`` since the last look, ``validation_loss``, whether it was ``kept``.

    Raises:
        BadInput: If there is nothing to learn from or to validate on, or the loss is no longer a number.
        BadParams: If the network does not fit the pictures.
    """
    torch.set_flush_denormal(True)
    return _Trainer(pictures, settings, checkpoint_folder).train()


def draw_sigmas(settings: DenoiserTraining, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw (count,) noise levels, spread evenly over their distribution (as Kingma et al. 2021, appendix I.1).

    Evenly spread draws tell more of the whole range than free ones do, so that the loss jumps less.
    """
    place = (torch.rand(1, generator=generator) + torch.arange(count) / count) % 1
    log_low, log_high = math.log(settings.sigma_min), math.log(settings.sigma_max)
    normal = settings.log_sigma_mean + settings.log_sigma_std * torch.special.ndtri(place.clamp(1e-6, 1 - 1e-6))
    even = log_low + (log_high - log_low) * torch.rand(count, generator=generator)
    wide = torch.rand(count, generator=generator) < settings.wide_share
    return torch.where(wide, even, normal.clamp(log_low, log_high)).exp()


def edm_loss(
    denoiser: EdmDenoiser, samples: torch.Tensor, sigma: torch.Tensor, noise: torch.Tensor, condition: ClassLabels
) -> torch.Tensor:
    """Mean squared error of each sample, weighed so that every noise level matters alike (Karras et al. 2022, table 1).

    Args:
        denoiser: The model.
        samples: (N, C, H, W) pictures in [-1, 1].
        sigma: (N,).
        noise: (N, C, H, W) of variance 1.
        condition: N classes.

    Returns:
        (N,), about 1 for a model that knows nothing.
    """
    answer: torch.Tensor = denoiser(samples + sigma.view(-1, 1, 1, 1) * noise, sigma, condition)
    weight = (sigma**2 + denoiser.sigma_data**2) / (sigma * denoiser.sigma_data) ** 2
    error: torch.Tensor = (answer - samples).square().mean(dim=(1, 2, 3))
    return weight * error


@dataclass
class _Best:
    """The running mean that validated best so far."""

    loss: float = math.inf
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)


class _Trainer:
    """One training; the state that a checkpoint holds is in its attributes."""

    def __init__(self, pictures: LabelledPictures, settings: DenoiserTraining, folder: Path) -> None:
        self.settings, self.folder, self.device = settings, folder, choose_device()
        levels, labels = _of_split(pictures, "train")
        held_out, held_out_labels = _of_split(pictures, "val")
        classes = len(pictures.class_names)
        spec = settings.spec(levels, classes)
        self.identity = _identity(settings, (levels, labels, held_out, held_out_labels))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(settings.seed, "denoiser"))
            self.denoiser = EdmDenoiser(spec)
        self.mean = copy.deepcopy(self.denoiser).eval().requires_grad_(requires_grad=False)
        self.denoiser.train().to(self.device)
        self.mean.to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.denoiser.parameters(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=settings.weight_decay
        )
        self.samples, self.labels = levels_to_samples(levels).to(self.device), labels.to(self.device)
        self.held_out = _HeldOut(held_out, held_out_labels, settings, self.device)
        self.power = power_of_width(settings.ema_width)
        self.step, self.loss_sum, self.loss_count = 0, 0.0, 0
        self.best, self.curves = _Best(), list[dict[str, Any]]()

    def train(self) -> tuple[EdmDenoiser, list[dict[str, Any]]]:
        """Train to the end and return the weights that validated best."""
        settings = self.settings
        looks = {round(settings.steps * look / settings.looks) for look in range(1, settings.looks + 1)}
        with Progress("denoiser", total=settings.steps, unit="steps") as progress:
            if self._restore():
                progress.message(f"goes on after step {self.step}")
                progress.advance(self.step)
            while self.step < settings.steps:
                loss = self._update()
                if self.step in looks:
                    self._look()
                if self.step in looks or self.step % settings.checkpoint_every == 0:
                    self._save()
                shown = {} if math.isinf(self.best.loss) else {"validation": self.best.loss}
                progress.advance(1, loss=loss, **shown)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.mean.load_state_dict(self.best.tensors)
        return self.mean.to("cpu").requires_grad_(requires_grad=True), self.curves

    def _update(self) -> float:
        settings = self.settings
        generator = torch_generator(settings.seed, "step", self.step)
        count, shape = settings.batch, self.denoiser.shape
        rows = torch.randint(len(self.samples), (count,), generator=generator)
        sigma = draw_sigmas(settings, count, generator).to(self.device)
        noise = torch.randn((count, *shape), generator=generator).to(self.device)
        nameless = torch.rand(count, generator=generator) < settings.class_dropout
        turned = torch.rand(count, generator=generator) < 0.5 if settings.mirrored else None
        rows = rows.to(self.device)
        samples, labels = self.samples[rows], self.labels[rows].masked_fill(nameless.to(self.device), NULL)
        if turned is not None:
            samples = torch.where(turned.to(self.device).view(-1, 1, 1, 1), samples.flip(3), samples)
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(self.step)
        with _draws_of(derive_seed(settings.seed, "dropout", self.step), self.device):
            loss = edm_loss(self.denoiser, samples, sigma, noise, ClassLabels(labels)).mean()
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), _GRADIENT_NORM)
        self.optimiser.step()
        self.step += 1
        self._average()
        value = float(loss.detach())
        self._check(value)
        self.loss_sum, self.loss_count = self.loss_sum + value, self.loss_count + 1
        return value

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise BadInput(
                f"denoiser: the loss is {loss} at step {self.step}; lower lr (now {self.settings.lr}) or raise warm_up"
            )

    def _rate(self, step: int) -> float:
        settings = self.settings
        rising = min(1.0, (step + 1) / (settings.warm_up + 1))
        falling = settings.decay_share * settings.steps
        left = (settings.steps - step) / falling if falling else 1.0
        return settings.lr * rising * min(1.0, left)

    @torch.no_grad()
    def _average(self) -> None:
        share = 1 - (1 - 1 / self.step) ** (self.power + 1)
        means: list[torch.Tensor] = list(self.mean.parameters())
        weights: list[torch.Tensor] = list(self.denoiser.parameters())
        torch._foreach_lerp_(means, weights, share)

    def _look(self) -> None:
        loss = self.held_out.loss(self.mean)
        self._check(loss)
        kept = loss < self.best.loss
        if kept:
            self.best = _Best(loss, {name: tensor.clone() for name, tensor in self.mean.state_dict().items()})
        self.curves.append(
            {
                "step": self.step,
                "pictures": self.step * self.settings.batch,
                "lr": self._rate(self.step - 1),
                "loss": self.loss_sum / max(1, self.loss_count),
                "validation_loss": loss,
                "kept": kept,
            }
        )
        self.loss_sum, self.loss_count = 0.0, 0

    def _save(self) -> None:
        moments = {
            f"{number}.{key}": torch.as_tensor(value)
            for number, row in self.optimiser.state_dict()["state"].items()
            for key, value in row.items()
        }
        tensors = {
            **_named("weights", self.denoiser.state_dict()),
            **_named("mean", self.mean.state_dict()),
            **_named("best", self.best.tensors),
            **_named("moments", moments),
        }
        facts = {
            "identity": self.identity,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "loss_count": self.loss_count,
            "best_loss": None if math.isinf(self.best.loss) else self.best.loss,
            "curves": self.curves,
        }
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with fresh_folder(self.folder) as fresh:
            save_weights(fresh, tensors, facts)

    def _restore(self) -> bool:
        """Take up the checkpoint; one that is missing, damaged or of another training counts as none."""
        try:
            tensors, facts = load_weights(self.folder)
        except (MissingArtifact, CorruptArtifact):
            return False
        if facts.get("identity") != self.identity:
            return False
        self.denoiser.load_state_dict(_picked("weights", tensors))
        self.mean.load_state_dict(_picked("mean", tensors))
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _picked("moments", tensors).items():
            number, key = name.split(".")
            layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
            state.setdefault(int(number), {})[key] = tensor.contiguous(memory_format=layout)
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.step, self.curves = facts["step"], facts["curves"]
        self.loss_sum, self.loss_count = facts["loss_sum"], facts["loss_count"]
        if facts["best_loss"] is not None:
            best = {name: tensor.to(self.device) for name, tensor in _picked("best", tensors).items()}
            self.best = _Best(facts["best_loss"], best)
        return True


class _HeldOut:
    """Pictures that nothing learns from, with noises that stay the same."""

    def __init__(
        self, pictures: torch.Tensor, labels: torch.Tensor, settings: DenoiserTraining, device: torch.device
    ) -> None:
        generator = torch_generator(settings.seed, "validation")
        chosen = torch.randperm(len(pictures), generator=generator)[: settings.validation_pictures]
        rows = chosen.repeat(settings.validation_draws)
        # Neighbours in the list must not be neighbours in sigma.
        sigma = draw_sigmas(settings, len(rows), generator)[torch.randperm(len(rows), generator=generator)]
        self.samples = levels_to_samples(pictures[rows]).to(device)
        self.labels, self.sigma = labels[rows].to(device), sigma.to(device)
        self.noise = torch.randn(self.samples.shape, generator=generator).to(device)

    @torch.no_grad()
    def loss(self, denoiser: EdmDenoiser) -> float:
        """Mean weighed error; the distribution of sigma is that of the training."""
        total = 0.0
        for start in range(0, len(self.samples), _VALIDATION_ROWS):
            rows = slice(start, start + _VALIDATION_ROWS)
            labels = ClassLabels(self.labels[rows])
            errors = edm_loss(denoiser, self.samples[rows], self.sigma[rows], self.noise[rows], labels)
            total += float(errors.double().sum())
        return total / len(self.samples)


def power_of_width(width: float) -> float:
    """Return the power g of a mean with weights t^g whose relative standard deviation is ``width``.

    The deviation of t under weights t^g on [0, 1] is ``sqrt(g + 1) / ((g + 2) sqrt(g + 3))``, which falls as g rises
    (Karras et al. 2024, equation 126).
    """
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        wide = math.sqrt(middle + 1) / ((middle + 2) * math.sqrt(middle + 3)) > width
        low, high = (middle, high) if wide else (low, middle)
    return (low + high) / 2


def _of_split(pictures: LabelledPictures, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    levels, labels = pictures.of_split(split)
    if not len(levels):
        raise BadInput(f"denoiser: no pictures in the split {split}; add pictures or raise the share of {split}")
    if split == "train" and int(levels.min()) == int(levels.max()):
        raise BadInput("denoiser: all pictures are of one tone, there is nothing to learn from them")
    return levels, labels


def _identity(settings: DenoiserTraining, tensors: tuple[torch.Tensor, ...]) -> str:
    """What a checkpoint must agree in to be taken up."""
    digest = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _draws_of(seed: int, device: torch.device) -> Iterator[None]:
    """Let dropout draw from a seed of its own, and leave everybody else's random numbers as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _named(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _picked(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}
