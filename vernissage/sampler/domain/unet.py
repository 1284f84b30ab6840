"""The embedded denoiser: a small class-conditional U-Net inside the preconditioning of EDM.

Samples are pictures in [-1, 1]. The network never sees noise of another size than 1: Karras et al. 2022 ("Elucidating
the design space of diffusion-based generative models", table 1) scale what goes in and what comes out by sigma.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact
from vernissage.core.weights import load_weights, save_weights
from vernissage.sampler.domain.denoiser import NULL, ClassLabels, Condition

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LEAST_SIDE, MOST_SIDE = 8, 64

# Channels that share a mean and a variance; widths are whole multiples of it, and so are the heads of attention.
_GROUP = 8
_HEAD = 32
# Waves over c_noise, from one that tells small noise from large to one that tells sigmas a few hundredths apart.
_LOWEST_WAVE, _HIGHEST_WAVE = 1.0, 32.0


def levels_to_samples(levels: torch.Tensor) -> torch.Tensor:
    """Turn levels 0 to 255 into float32 samples in [-1, 1], of any shape."""
    return levels.to(torch.float32) / 127.5 - 1


def samples_to_levels(samples: torch.Tensor) -> torch.Tensor:
    """Turn samples into uint8 levels; what lies outside [-1, 1] is clipped."""
    return ((samples.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


class Preconditioning(NamedTuple):
    """Factors around a network: ``D = skip * x + out * F(inward * x, noise)``.

    Attributes:
        skip: Share of the noisy picture in the answer.
        out: Size of what the network adds.
        inward: Scales the noisy picture to variance 1.
        noise: What the network is told of sigma.
    """

    skip: torch.Tensor
    out: torch.Tensor
    inward: torch.Tensor
    noise: torch.Tensor


def preconditioning(sigma: torch.Tensor, sigma_data: float) -> Preconditioning:
    """Return the factors of Karras et al. 2022, table 1, column "EDM".

    Args:
        sigma: Noise levels above 0, of any shape.
        sigma_data: Standard deviation of the pictures.

    Returns:
        Four tensors like ``sigma``.
    """
    total = sigma**2 + sigma_data**2
    return Preconditioning(
        skip=sigma_data**2 / total,
        out=sigma * sigma_data / total.sqrt(),
        inward=1 / total.sqrt(),
        noise=sigma.log() / 4,
    )


@dataclass(frozen=True)
class UNetSpec:
    """What is needed to build the denoiser again.

    Attributes:
        channels: 1 for grey, 3 for RGB.
        side: Height and width of the pictures, pixels.
        classes: Number of classes, at least 1.
        sigma_data: Standard deviation of the pictures, in samples of [-1, 1].
        width: Channels of the first level.
        multipliers: Channels of each level in units of ``width``; each level has half the side of the one before.
        blocks: Residual blocks per level, as many on the way down as on the way up.
        attention_side: Levels of at most this side attend to themselves; 0 for none.
        dropout: Share of hidden channels' values left out while learning.
        sigma_min: Least noise level that it is taught.
        sigma_max: Highest one.

    Raises:
        BadParams: If a value is out of its range.
    """

    channels: int
    side: int
    classes: int
    sigma_data: float = 0.5
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    attention_side: int = 8
    dropout: float = 0.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        halved = 2 ** (len(self.multipliers) - 1)
        rules = (
            ("channels", self.channels in (1, 3), "1 (grey) or 3 (RGB)"),
            ("side", LEAST_SIDE <= self.side <= MOST_SIDE, f"{LEAST_SIDE} to {MOST_SIDE} pixels"),
            ("classes", self.classes >= 1, "at least 1"),
            ("sigma_data", 0 < self.sigma_data < math.inf, "a number above 0"),
            ("width", self.width >= _GROUP and self.width % _GROUP == 0, f"a multiple of {_GROUP}"),
            ("multipliers", bool(self.multipliers) and min(self.multipliers) >= 1, "whole numbers from 1"),
            ("side", self.side % halved == 0, f"a multiple of {halved}, for {len(self.multipliers)} levels"),
            ("blocks", self.blocks >= 1, "at least 1"),
            ("attention_side", self.attention_side >= 0, "at least 0"),
            ("dropout", 0 <= self.dropout < 1, "a share from 0 to below 1"),
            ("sigma_min", 0 < self.sigma_min < self.sigma_max < math.inf, f"above 0 and below {self.sigma_max}"),
        )
        for name, holds, expected in rules:
            if not holds:
                raise BadParams(f"denoiser: {name} = {getattr(self, name)}, expected {expected}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one sample."""
        return (self.channels, self.side, self.side)

    @property
    def level_widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)


class _Residual(nn.Module):
    """Two convolutions beside a short cut; noise and class scale and shift what lies between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(inputs // _GROUP, inputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulate = nn.Linear(embedding, 2 * outputs)
        self.second_norm = nn.GroupNorm(outputs // _GROUP, outputs)
        self.dropout = nn.Dropout(dropout)
        self.second = _zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.short_cut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        scale, shift = self.modulate(embedding)[:, :, None, None].chunk(2, dim=1)
        hidden = self.first(F.silu(self.first_norm(x)))
        hidden = torch.addcmul(shift, self.second_norm(hidden), scale + 1)
        hidden = self.second(self.dropout(F.silu(hidden)))
        joined: torch.Tensor = (self.short_cut(x) + hidden) * math.sqrt(0.5)
        return joined


class _Attention(nn.Module):
    """Every place looks at every other place of the same picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // _HEAD) if width % _HEAD == 0 else 1
        self.norm = nn.GroupNorm(width // _GROUP, width)
        self.ask = nn.Conv2d(width, 3 * width, 1)
        self.answer = _zeroed(nn.Conv2d(width, width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, width, height, breadth = x.shape
        asked = self.ask(self.norm(x)).reshape(count, 3, self.heads, width // self.heads, height * breadth)
        query, key, value = asked.transpose(3, 4).unbind(1)
        seen = F.scaled_dot_product_attention(query, key, value)
        answer: torch.Tensor = self.answer(seen.transpose(2, 3).reshape(x.shape))
        return (x + answer) * math.sqrt(0.5)


class _Level(nn.Module):
    """One residual block, with attention where the pictures are small enough."""

    def __init__(self, inputs: int, outputs: int, spec: UNetSpec, side: int) -> None:
        super().__init__()
        self.residual = _Residual(inputs, outputs, _embedding_width(spec), spec.dropout)
        self.attention = _Attention(outputs) if side <= spec.attention_side else nn.Identity()

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        attended: torch.Tensor = self.attention(self.residual(x, embedding))
        return attended


class _UNet(nn.Module):
    """The bare network: scaled noisy pictures, c_noise and classes in; the correction and the deepest features out."""

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        embedding, widths = _embedding_width(spec), spec.level_widths
        waves = torch.logspace(math.log10(_LOWEST_WAVE), math.log10(_HIGHEST_WAVE), embedding // 4)
        self.waves: torch.Tensor
        self.register_buffer("waves", waves, persistent=False)
        self.noise = nn.Linear(embedding // 2, embedding)
        self.classes = nn.Embedding(spec.classes + 1, embedding)
        self.join = nn.Linear(embedding, embedding)
        self.enter = nn.Conv2d(spec.channels, widths[0], 3, padding=1)
        width = widths[0]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for depth, outputs in enumerate(widths):
            for _ in range(spec.blocks):
                self.down.append(_Level(width, outputs, spec, spec.side >> depth))
                width = outputs
        self.middle = _Level(width, width, spec, spec.side >> (len(widths) - 1))
        for depth, outputs in reversed(list(enumerate(widths))):
            for _ in range(spec.blocks):
                self.up.append(_Level(width + outputs, outputs, spec, spec.side >> depth))
                width = outputs
        self.leave_norm = nn.GroupNorm(width // _GROUP, width)
        self.leave = _zeroed(nn.Conv2d(width, spec.channels, 3, padding=1))
        self._blocks = spec.blocks

    def forward(self, x: torch.Tensor, noise: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = noise[:, None] * self.waves
        embedding = self.noise(torch.cat((angles.cos(), angles.sin()), dim=1)) + self.classes(classes)
        embedding = F.silu(self.join(F.silu(embedding)))
        x = self.enter(x)
        kept = []
        for number, level in enumerate(self.down):
            if number and number % self._blocks == 0:
                x = F.avg_pool2d(x, 2)
            x = level(x, embedding)
            kept.append(x)
        x = deepest = self.middle(x, embedding)
        for number, level in enumerate(self.up):
            if number and number % self._blocks == 0:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = level(torch.cat((x, kept.pop()), dim=1), embedding)
        return self.leave(F.silu(self.leave_norm(x))), deepest


class EdmDenoiser(nn.Module):
    """``D(x, sigma, condition)`` of the embedded model; see :class:`vernissage.sampler.domain.denoiser.Denoiser`.

    Before any training it answers ``c_skip * x``, the best guess for pictures that are white noise themselves.

    Args:
        spec: Sizes.

    Attributes:
        spec: Sizes.
        shape: (C, H, W) of one sample.
        sigma_min: Least noise level that it is taught.
        sigma_max: Highest one.
        sigma_data: Standard deviation of the pictures.
    """

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.shape: tuple[int, int, int] = spec.shape
        self.sigma_min, self.sigma_max, self.sigma_data = spec.sigma_min, spec.sigma_max, spec.sigma_data
        # Channels last is a fifth faster on a CPU, and what tensor cores want.
        self.network = _UNet(spec)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def feature_width(self) -> int:
        """Length of the features that :meth:`call_with_features` gives."""
        return self.spec.level_widths[-1]

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None = None) -> torch.Tensor:
        """Estimate the pictures behind the noise.

        Args:
            x: (N, C, H, W) float32, picture plus sigma times noise; float64 is answered in float64.
            sigma: (N,) noise levels above 0.
            condition: :class:`ClassLabels`; none asks for no class in particular.

        Returns:
            (N, C, H, W).

        Raises:
            BadInput: If shapes, noise levels or classes are not what this model knows.
        """
        return self._call(x, sigma, condition)[0]

    def call_with_features(
        self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Do the same, and tell what the network saw: its deepest activations, averaged over the picture.

        Returns:
            (N, C, H, W) estimates, (N, :attr:`feature_width`) float32 features.

        Raises:
            BadInput: As in a plain call.
        """
        estimate, deepest = self._call(x, sigma, condition)
        return estimate, deepest.mean(dim=(2, 3))

    def _call(
        self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self._check(x, sigma)
        classes = self._classes(len(x), condition).to(x.device)
        factors = preconditioning(sigma.to(x), self.sigma_data)
        skip, out, inward = (factor.view(-1, 1, 1, 1) for factor in factors[:3])
        inner = self.network.waves.dtype
        correction, deepest = self.network((inward * x).to(inner), factors.noise.to(inner), classes)
        return skip * x + out * correction.to(x.dtype), deepest

    def _check(self, x: torch.Tensor, sigma: torch.Tensor) -> None:
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise BadInput(f"samples of shape {tuple(x.shape)}: this model takes {('N', *self.shape)}")
        if not x.is_floating_point():
            raise BadInput(f"samples of type {x.dtype}: this model takes floats, pictures lie in [-1, 1]")
        if sigma.shape != x.shape[:1]:
            raise BadInput(f"sigma of shape {tuple(sigma.shape)}: expected one noise level per sample, ({len(x)},)")
        if not bool(((sigma > 0) & sigma.isfinite()).all()):
            strange = sigma[~((sigma > 0) & sigma.isfinite())]
            raise BadInput(f"sigma {float(strange[0])}: expected a finite noise level above 0")

    def _classes(self, count: int, condition: Condition | None) -> torch.Tensor:
        """(N,) rows of the class table; the last one stands for no class."""
        if condition is None:
            return torch.full((count,), self.spec.classes)
        if not isinstance(condition, ClassLabels):
            raise BadInput(f"conditions of type {type(condition).__name__}: this model takes ClassLabels")
        if len(condition) != count:
            raise BadInput(f"{len(condition)} conditions for {count} samples: expected one each")
        condition.check(self.spec.classes)
        return condition.labels.masked_fill(condition.labels == NULL, self.spec.classes)

    def save(self, folder: Path, extra: Mapping[str, Any] | None = None) -> None:
        """Write ``model.safetensors`` and ``model.json``.

        Args:
            folder: Made if it is not there.
            extra: More facts for the JSON, such as the names of the classes.
        """
        save_weights(folder, self.state_dict(), {"denoiser": asdict(self.spec), **(extra or {})})

    @staticmethod
    def load(folder: Path) -> EdmDenoiser:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: If there is no model; the message says what to run.
            CorruptArtifact: If hash, specification or weights do not fit.
        """
        tensors, facts = load_weights(folder)
        try:
            fields = dict(facts["denoiser"])
            fields["multipliers"] = tuple(fields["multipliers"])
            denoiser = EdmDenoiser(UNetSpec(**fields))
            denoiser.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError, BadParams) as error:
            message = f"{folder}: not a denoiser of this version ({error}); train one with `dvc repro denoiser`"
            raise CorruptArtifact(message) from error
        return denoiser.eval()


def _embedding_width(spec: UNetSpec) -> int:
    return 4 * spec.width


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
