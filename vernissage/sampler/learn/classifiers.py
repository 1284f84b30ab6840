"""Two small classifiers and a random embedding: what generated pictures are looked at through.

The features of one classifier carry the Frechet distance. The other, of another architecture and seed, says whether a
picture shows the class that was asked for, so that what is optimised and what is reported differ. The random embedding
is a second space of features that knows nothing of classes: texture within a class, which classifiers ignore, shows
there.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import nn

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact
from vernissage.core.seeds import derive_seed, numpy_generator, torch_generator
from vernissage.core.weights import load_weights, save_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: `plain` is meant for the Frechet distance, `residual` for class accuracy.
Architecture = Literal["plain", "residual"]
ARCHITECTURES: tuple[Architecture, ...] = ("plain", "residual")

_BATCH = 512
_WEIGHT_DECAY = 0.05
# Channels double from level to level, at most this often.
_DOUBLINGS = 2
_SIDES, _CLASSES, _FEATURES = (8, 64), (2, 1000), (64, 128)


class Embedding(Protocol):
    """Something that turns pictures into features.

    Attributes:
        shape: (C, H, W) of one picture.
    """

    shape: tuple[int, int, int]

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Embed (N, C, H, W) pictures in [-1, 1] as (N, F) float32."""
        ...


@dataclass(frozen=True)
class ClassifierSpec:
    """What a classifier is and how it is trained.

    Attributes:
        shape: (C, H, W) of one picture, sides from 8 to 64 pixels.
        classes: Number of classes, up to 1000.
        architecture: `plain` (convolutions, batch norm, max pooling, features with their place in the picture) or
            `residual` (residual blocks, group norm, strides, features without it).
        width: Channels of the first level, a multiple of 8.
        features: Width of the penultimate layer, 64 to 128.
        epochs: Times that each picture is seen.
        batch: Pictures of one update.
        lr: Peak learning rate.
        shift: Pictures are moved by up to so many pixels while training, edges repeated.
        flip: Whether they are mirrored half of the time; not for digits or letters.

    Raises:
        BadParams: A value is out of its bounds.
    """

    shape: tuple[int, int, int]
    classes: int
    architecture: Architecture
    width: int = 32
    features: int = 64
    epochs: int = 20
    batch: int = 64
    lr: float = 3e-3
    shift: int = 1
    flip: bool = False

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise BadParams(f"architecture = {self.architecture!r}: expected one of {', '.join(ARCHITECTURES)}")
        _check_shape(self.shape)
        _between("classes", self.classes, *_CLASSES)
        _between("features", self.features, *_FEATURES)
        _between("width", self.width, 8, 512)
        if self.width % 8:
            raise BadParams(f"width = {self.width}: expected a multiple of 8")
        _between("epochs", self.epochs, 1, 100_000)
        _between("batch", self.batch, 2, 65_536)
        _between("shift", self.shift, 0, min(self.shape[1:]) // 2)
        if not 0 < self.lr <= 1:
            raise BadParams(f"lr = {self.lr:g}: expected more than 0, at most 1")


@dataclass(frozen=True)
class Recognition:
    """How well pictures show what they should.

    Attributes:
        accuracy: Share of the pictures that the classifier takes for the class that was asked for.
        confidence: Mean probability that it gives this class.
    """

    accuracy: float
    confidence: float


class Classifier:
    """A trained classifier.

    Args:
        spec: What it is.
        network: Its weights.

    Attributes:
        spec: What it is.
        shape: (C, H, W) of one picture.
    """

    def __init__(self, spec: ClassifierSpec, network: _Network) -> None:
        self.spec, self.shape = spec, spec.shape
        self._network = network.eval()

    @torch.no_grad()
    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Penultimate features.

        Args:
            pictures: (N, C, H, W) float; values beyond [-1, 1] are clipped, as they are when a picture is shown.

        Returns:
            (N, F) float32, where the pictures are.

        Raises:
            BadInput: Another shape, or a picture that is not finite.
        """
        return _in_batches(self._network.embed, pictures, self.shape, self._device())

    @torch.no_grad()
    def probabilities(self, pictures: torch.Tensor) -> torch.Tensor:
        """Probability of each class.

        Args:
            pictures: As for :meth:`features`.

        Returns:
            (N, classes) float32, rows sum to 1.

        Raises:
            BadInput: Another shape, or a picture that is not finite.
        """
        return _in_batches(lambda rows: self._network(rows).softmax(dim=1), pictures, self.shape, self._device())

    def recognition(self, pictures: torch.Tensor, labels: torch.Tensor) -> Recognition:
        """Compare pictures with the classes that were asked for.

        Args:
            pictures: As for :meth:`features`.
            labels: (N,) long.

        Raises:
            BadInput: No pictures, another shape, or a label that this classifier does not know.
        """
        _check_labels(labels, len(pictures), self.spec.classes)
        probabilities = self.probabilities(pictures)
        labels = labels.to(probabilities.device)
        right = (probabilities.argmax(dim=1) == labels).double().mean()
        given = probabilities.gather(1, labels.unsqueeze(1)).double().mean()
        return Recognition(float(right), float(given))

    def to(self, device: torch.device | str) -> Classifier:
        """Move the weights."""
        self._network.to(device)
        return self

    def save(self, folder: Path, name: str = "classifier") -> None:
        """Write ``name.safetensors`` and ``name.json``."""
        save_weights(folder, self._network.state_dict(), {"classifier": asdict(self.spec)}, name=name)

    @staticmethod
    def load(folder: Path, name: str = "classifier") -> Classifier:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: There is no such file.
            CorruptArtifact: Hash, specification or weights do not fit.
        """
        tensors, record = load_weights(folder, name=name)
        try:
            fields = dict(record["classifier"])
            spec = ClassifierSpec(**{**fields, "shape": tuple(fields["shape"])})
            network = _fresh_network(spec, seed=0)
            network.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError, BadParams) as error:
            raise _misfit(folder, name, "classifier", error) from error
        return Classifier(spec, network)

    def _device(self) -> torch.device:
        return next(self._network.parameters()).device


def train_classifier(
    pictures: torch.Tensor,
    labels: torch.Tensor,
    spec: ClassifierSpec,
    seed: int,
    *,
    after_epoch: Callable[[float], None] | None = None,
) -> Classifier:
    """Train a classifier by cross-entropy, on the device on which the pictures are.

    AdamW (Loshchilov and Hutter 2019) with one cycle of the learning rate (Smith and Topin 2018). Labels are not
    smoothed: that would press the pictures of a class into one point, and the Frechet distance lives on what is left.

    Args:
        pictures: (N, C, H, W) float in [-1, 1].
        labels: (N,) long, each class at least once.
        spec: What to train and how.
        seed: Decides first weights, order and shifts; on the CPU two runs with one seed give the same weights.
        after_epoch: Called with the mean loss after each epoch.

    Raises:
        BadInput: Pictures or labels are not as described.
        BadParams: The training diverged.
    """
    _check_training(pictures, labels, spec)
    network = _fresh_network(spec, seed).to(pictures.device).train()
    generator = torch_generator(seed, "classifier", spec.architecture, "order")
    updates = spec.epochs * math.ceil(len(pictures) / spec.batch)
    optimiser = torch.optim.AdamW(network.parameters(), lr=spec.lr, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, spec.lr, total_steps=updates, pct_start=0.25)
    labels = labels.to(pictures.device)
    for _ in range(spec.epochs):
        total = torch.zeros((), device=pictures.device)
        for rows in torch.split(torch.randperm(len(pictures), generator=generator), spec.batch):
            there = rows.to(pictures.device)
            seen = _moved(pictures[there].float(), spec, generator)
            loss = F.cross_entropy(network(seen), labels[there])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            total += loss.detach() * len(rows)
        mean = float(total) / len(pictures)
        if not math.isfinite(mean):
            raise BadParams(f"lr = {spec.lr:g}: the training diverged (loss {mean}); expected a lower one")
        if after_epoch is not None:
            after_epoch(mean)
    return Classifier(spec, network)


class RandomFeatures:
    """An embedding that learned nothing: random convolutions of a fixed seed, pooled at several scales.

    At each scale it keeps the mean of each channel in the four quarters of the picture and its spread over all of it;
    a random projection brings them to one width. Random convolutions tell texture and layout apart well enough to
    compare sets of pictures (Naeem et al. 2020, section 4, on random embeddings).

    Args:
        shape: (C, H, W) of one picture, sides from 8 to 64 pixels.
        seed: Decides the weights, the same on every machine.
        features: Width of the result, 64 to 128.

    Raises:
        BadParams: Shape or width is out of its bounds.
    """

    def __init__(self, shape: tuple[int, int, int], seed: int, features: int = 128) -> None:
        _check_shape(shape)
        _between("features", features, *_FEATURES)
        self.shape = shape
        self._width = features
        self._tensors = _random_weights(shape, seed, features)

    @torch.no_grad()
    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Embed pictures.

        Args:
            pictures: (N, C, H, W) float; values beyond [-1, 1] are clipped.

        Returns:
            (N, F) float32, where the pictures are.

        Raises:
            BadInput: Another shape, or a picture that is not finite.
        """
        return _in_batches(self._embed, pictures, self.shape, self._tensors["projection"].device)

    def to(self, device: torch.device | str) -> RandomFeatures:
        """Move the weights."""
        self._tensors = {name: tensor.to(device) for name, tensor in self._tensors.items()}
        return self

    def save(self, folder: Path, name: str = "random-features") -> None:
        """Write ``name.safetensors`` and ``name.json``."""
        save_weights(folder, self._tensors, {"random": {"shape": self.shape, "features": self._width}}, name=name)

    @staticmethod
    def load(folder: Path, name: str = "random-features") -> RandomFeatures:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: There is no such file.
            CorruptArtifact: Hash, specification or weights do not fit.
        """
        tensors, record = load_weights(folder, name=name)
        try:
            channels, height, width = record["random"]["shape"]
            embedding = RandomFeatures((channels, height, width), 0, record["random"]["features"])
            expected = {key: tensor.shape for key, tensor in embedding._tensors.items()}
            found = {key: tensor.shape for key, tensor in tensors.items()}
            if found != expected:
                raise ValueError(f"tensors {found}, expected {expected}")  # noqa: TRY301
        except (KeyError, TypeError, ValueError, BadParams) as error:
            raise _misfit(folder, name, "random embedding", error) from error
        embedding._tensors = tensors
        return embedding

    def _embed(self, pictures: torch.Tensor) -> torch.Tensor:
        values, kept = pictures, []
        for level in range(_levels(self.shape)):
            if level:
                values = F.avg_pool2d(values, 2)
            values = F.conv2d(values, self._tensors[f"weight{level}"], self._tensors[f"bias{level}"], padding=1)
            values = F.leaky_relu(values, 0.2)
            kept += [F.adaptive_avg_pool2d(values, 2).flatten(1), values.flatten(2).std(dim=2)]
        return torch.cat(kept, dim=1) @ self._tensors["projection"]


class _Network(nn.Module):
    """A trunk that ends in features, and one linear layer that names the class."""

    def __init__(self, spec: ClassifierSpec) -> None:
        super().__init__()
        self.trunk = _plain_trunk(spec) if spec.architecture == "plain" else _residual_trunk(spec)
        self.head = nn.Linear(spec.features, spec.classes)

    def embed(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, F) features."""
        return cast("torch.Tensor", self.trunk(pictures))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, classes) logits."""
        return cast("torch.Tensor", self.head(self.embed(pictures)))


def _plain_trunk(spec: ClassifierSpec) -> nn.Sequential:
    layers: list[nn.Module] = []
    before = spec.shape[0]
    for level in range(_levels(spec.shape)):
        channels = _channels(spec.width, level)
        if level:
            layers.append(nn.MaxPool2d(2))
        for first in (before, channels):
            layers += [nn.Conv2d(first, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.SiLU()]
        before = channels
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * before, spec.features), nn.SiLU()]
    return nn.Sequential(*layers)


def _residual_trunk(spec: ClassifierSpec) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(spec.shape[0], spec.width, 3, padding=1)]
    before = spec.width
    for level in range(_levels(spec.shape)):
        channels = _channels(spec.width, level)
        if level:
            layers.append(nn.Conv2d(before, channels, 2, stride=2))
        layers.append(_Residual(channels))
        before = channels
    layers += [nn.GroupNorm(8, before), nn.GELU(), _MeanAndMax(), nn.Linear(2 * before, spec.features), nn.GELU()]
    return nn.Sequential(*layers)


class _Residual(nn.Module):
    """A pre-activation block (He et al. 2016b)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values + cast("torch.Tensor", self.change(values))


class _MeanAndMax(nn.Module):
    """Mean and maximum of each channel over the picture, (N, C, H, W) to (N, 2 C)."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.cat((values.mean(dim=(2, 3)), values.amax(dim=(2, 3))), dim=1)


def _fresh_network(spec: ClassifierSpec, seed: int) -> _Network:
    # Layers draw from torch's own generator: borrowed, and given back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "classifier", spec.architecture, "weights"))
        return _Network(spec)


def _random_weights(shape: tuple[int, int, int], seed: int, features: int) -> dict[str, torch.Tensor]:
    rng = numpy_generator(seed, "random features", features, *shape)
    tensors: dict[str, torch.Tensor] = {}
    before, kept = shape[0], 0
    for level in range(_levels(shape)):
        channels = _channels(32, level)
        # He et al. 2015: activations keep their size from layer to layer.
        weight = rng.standard_normal((channels, before, 3, 3)) * math.sqrt(2 / (9 * before))
        tensors[f"weight{level}"] = torch.from_numpy(weight).float()
        tensors[f"bias{level}"] = torch.from_numpy(0.3 * rng.standard_normal(channels)).float()
        before, kept = channels, kept + 5 * channels
    projection = rng.standard_normal((kept, features)) / math.sqrt(kept)
    return {**tensors, "projection": torch.from_numpy(projection).float()}


def _levels(shape: tuple[int, int, int]) -> int:
    """Scales at which a picture is looked at: the last has a short side of about 4 pixels."""
    return 1 + max(1, round(math.log2(min(shape[1:]) / 4)))


def _channels(width: int, level: int) -> int:
    return width << min(level, _DOUBLINGS)


def _moved(pictures: torch.Tensor, spec: ClassifierSpec, generator: torch.Generator) -> torch.Tensor:
    """Move each picture by a few pixels, edges repeated, and mirror it or not."""
    count, channels, height, width = pictures.shape
    reach = 2 * spec.shift + 1
    shifts = torch.randint(reach, (2, count, 1), generator=generator) - spec.shift
    rows = (torch.arange(height) + shifts[0]).clamp(0, height - 1)
    columns = (torch.arange(width) + shifts[1]).clamp(0, width - 1)
    if spec.flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    which = torch.arange(count)[:, None, None, None]
    index = (which, torch.arange(channels)[:, None, None], rows[:, None, :, None], columns[:, None, None, :])
    return pictures[tuple(part.to(pictures.device) for part in index)]


def _in_batches(
    function: Callable[[torch.Tensor], torch.Tensor],
    pictures: torch.Tensor,
    shape: tuple[int, int, int],
    device: torch.device,
) -> torch.Tensor:
    _check_pictures(pictures, shape)

    def answers() -> Iterator[torch.Tensor]:
        for rows in torch.split(pictures, _BATCH):
            yield function(rows.to(device, torch.float32).clamp(-1, 1)).to(pictures.device)

    return torch.cat(list(answers()))


def _check_pictures(pictures: torch.Tensor, shape: tuple[int, int, int]) -> None:
    if pictures.ndim != 4 or tuple(pictures.shape[1:]) != shape or not len(pictures):
        raise BadInput(f"pictures: shape {tuple(pictures.shape)}, expected (N, {shape[0]}, {shape[1]}, {shape[2]})")
    if not pictures.is_floating_point():
        raise BadInput(f"pictures: {pictures.dtype}, expected float in [-1, 1]; divide bytes by 127.5 and take off 1")
    finite = pictures.flatten(1).isfinite().all(dim=1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise BadInput(f"picture {first} is not finite, nor are {int((~finite).sum()) - 1} others; leave them out")


def _check_labels(labels: torch.Tensor, count: int, classes: int) -> None:
    if labels.dtype != torch.long or labels.shape != (count,):
        raise BadInput(f"labels: {labels.dtype} of shape {tuple(labels.shape)}, expected torch.int64 of ({count},)")
    strange = labels[(labels < 0) | (labels >= classes)]
    if len(strange):
        raise BadInput(f"label {int(strange[0])}: this classifier knows classes 0 to {classes - 1}")


def _check_training(pictures: torch.Tensor, labels: torch.Tensor, spec: ClassifierSpec) -> None:
    _check_pictures(pictures, spec.shape)
    _check_labels(labels, len(pictures), spec.classes)
    low, high = float(pictures.min()), float(pictures.max())
    if low < -1.001 or high > 1.001:
        raise BadInput(f"pictures: values from {low:.4g} to {high:.4g}, expected -1 to 1")
    absent = (torch.bincount(labels.cpu(), minlength=spec.classes) == 0).nonzero().flatten()
    if len(absent):
        raise BadInput(
            f"class {int(absent[0])} has no picture, nor have {len(absent) - 1} others; expected at least one of each "
            f"of the {spec.classes} classes"
        )


def _check_shape(shape: tuple[int, ...]) -> None:
    sides_fit = len(shape) == 3 and all(_SIDES[0] <= side <= _SIDES[1] for side in shape[1:])
    if not sides_fit or not 1 <= shape[0] <= 4:
        raise BadParams(f"shape = {shape}: expected 1 to 4 channels and sides from {_SIDES[0]} to {_SIDES[1]} pixels")


def _between(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise BadParams(f"{name} = {value}: expected {low} to {high}")


def _misfit(folder: Path, name: str, what: str, error: Exception) -> CorruptArtifact:
    return CorruptArtifact(
        f"{folder}/{name}: not a {what} of this version ({error}); get it back with `dvc pull`, or train again"
    )
