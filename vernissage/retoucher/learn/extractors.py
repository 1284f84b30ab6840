"""Feature extractors: what the policy looks through, its own small network or a ResNet of `transformers`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import torch
from torch import nn

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact
from vernissage.core.params import extractor_problem
from vernissage.core.typed_yaml import suggestion
from vernissage.retoucher.learn.juror import PICTURE_STATISTICS, PictureTrunk, picture_statistics
from vernissage.retoucher.learn.pretrained import channel_values, find_pretrained, load_pretrained

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ExtractorKind = Literal["cnn", "resnet18", "resnet50"]
Trainable = Literal["frozen", "last", "all"]

#: Asks for a network that has learned nothing yet, in place of a name.
RANDOM = "random"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Where every residual branch begins in a network of random weights.
_FIRST_BRANCH_GAIN = 0.5
_SECTION = "train.retoucher"


class Trunk(Protocol):
    """Turns pictures into features; every kind is a `torch.nn.Module` besides.

    Attributes:
        width: Number of features.
    """

    width: int

    def __call__(self, images: torch.Tensor, statistics: torch.Tensor | None = None) -> torch.Tensor:
        """Look at (N, 3, V, V) pictures in [0, 1], with their statistics where they are known: (N, width)."""
        ...


@dataclass(frozen=True)
class ResNetShape:
    """Architecture of a ResNet (He et al. 2016) and how pictures are normalised for it.

    Attributes:
        depths: Blocks of each stage.
        layer_type: `basic` (two 3 x 3 convolutions) or `bottleneck` (1 x 1, 3 x 3, 1 x 1).
        embedding_size: Channels of the stem.
        hidden_sizes: Channels behind each stage.
        hidden_act: Activation.
        downsample_in_first_stage: Whether the first stage halves the size too.
        downsample_in_bottleneck: Whether a bottleneck halves it in its first convolution.
        mean: Of each channel, subtracted from values in [0, 1].
        std: Of each channel, divided by.
    """

    depths: tuple[int, ...]
    layer_type: str
    embedding_size: int
    hidden_sizes: tuple[int, ...]
    hidden_act: str = "relu"
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False
    mean: tuple[float, ...] = _IMAGENET_MEAN
    std: tuple[float, ...] = _IMAGENET_STD


_SHAPES = {
    "resnet18": ResNetShape((2, 2, 2, 2), "basic", 64, (64, 128, 256, 512)),
    "resnet50": ResNetShape((3, 4, 6, 3), "bottleneck", 64, (256, 512, 1024, 2048)),
}


@dataclass(frozen=True)
class ExtractorSpec:
    """What is needed to build an extractor again: with it and the saved weights neither hub nor folder is asked.

    Attributes:
        kind: One of :data:`ExtractorKind`.
        weights: Where the weights came from at first: hub name, folder, `random`, or nothing for `cnn`.
        version: Commit or hash of those weights; empty where there were none.
        trainable: Which part learns: nothing (`frozen`), the `last` stage, or `all`.
        shape: Architecture of a ResNet; none for `cnn`.

    Raises:
        BadParams: If kind or part is unknown, or the shape does not go with the kind.
    """

    kind: str = "cnn"
    weights: str = ""
    version: str = ""
    trainable: str = "all"
    shape: ResNetShape | None = None

    def __post_init__(self) -> None:
        _require_known(self.kind, self.trainable)
        if (self.kind == "cnn") != (self.shape is None):
            raise BadParams(
                f"extractor {self.kind} with shape {self.shape}: expected a shape for a ResNet and no other"
            )

    def to_json(self) -> dict[str, Any]:
        """The same as plain values; `dataclasses.asdict` of whatever holds this gives them too."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> ExtractorSpec:
        """Read what :meth:`to_json` gave, after a way through JSON or not; nothing at all is the `cnn`.

        Raises:
            CorruptArtifact: If values are missing, unknown or of the wrong kind.
        """
        try:
            shape = values.get("shape")
            if shape is not None:
                shape = ResNetShape(**{key: _tuple_from_list(value) for key, value in shape.items()})
            return ExtractorSpec(**{**values, "shape": shape})
        except (TypeError, ValueError, AttributeError, BadParams) as error:
            raise CorruptArtifact(
                f"extractor in the model's specification: {error}; train again with `dvc repro train@retoucher`"
            ) from error


def choose_extractor(kind: str, weights: str, trainable: str) -> ExtractorSpec:
    """Turn the parameters into a specification; pretrained weights are found, not loaded.

    Args:
        kind: `train.retoucher.extractor`.
        weights: `train.retoucher.extractor_weights`.
        trainable: `train.retoucher.extractor_trainable`.

    Returns:
        The specification.

    Raises:
        BadParams: If a value is unknown or does not go with the others.
        BadInput: If the network found is not of this kind.
        MissingArtifact: If there is no such folder, or the hub cannot be reached or has no such network.
        CorruptArtifact: If its configuration cannot be read.
    """
    _require_known(kind, trainable)
    problem = extractor_problem(kind, weights, trainable)
    if problem:
        raise BadParams(f"{_SECTION}: {problem}")
    if kind == "cnn":
        return ExtractorSpec()
    if weights == RANDOM:
        return ExtractorSpec(kind, RANDOM, "", trainable, _SHAPES[kind])
    found = find_pretrained(weights, ("resnet",))
    config, expected = found.config, _SHAPES[kind]
    try:
        shape = ResNetShape(
            depths=tuple(int(depth) for depth in config["depths"]),
            layer_type=str(config["layer_type"]),
            embedding_size=int(config["embedding_size"]),
            hidden_sizes=tuple(int(size) for size in config["hidden_sizes"]),
            hidden_act=str(config.get("hidden_act", "relu")),
            downsample_in_first_stage=bool(config.get("downsample_in_first_stage", False)),
            downsample_in_bottleneck=bool(config.get("downsample_in_bottleneck", False)),
            mean=channel_values(found, "image_mean", _IMAGENET_MEAN),
            std=channel_values(found, "image_std", _IMAGENET_STD),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptArtifact(f"{weights}: config.json describes no ResNet ({error!r}); download it again") from error
    if (shape.depths, shape.layer_type) != (expected.depths, expected.layer_type):
        raise BadInput(
            f"{weights}: a ResNet of {shape.layer_type} blocks {shape.depths}, expected {expected.layer_type} blocks "
            f"{expected.depths} for {_SECTION}.extractor = {kind}; name other weights or another kind"
        )
    return ExtractorSpec(kind, weights, found.version, trainable, shape)


def make_trunk(spec: ExtractorSpec, widths: Sequence[int], statistics_width: int) -> PictureTrunk | ResNetTrunk:
    """Build an extractor with random weights: a saved policy's fill it next, or :func:`load_first_weights`.

    Args:
        spec: Which one.
        widths: Channels of the `cnn`'s convolutions; a ResNet has its own.
        statistics_width: Width of the layer over the photographic statistics.

    Returns:
        The module, with ``width``.
    """
    if spec.shape is None:
        return PictureTrunk(widths, statistics_width)
    return ResNetTrunk(spec.shape, spec.trainable, statistics_width)


def load_first_weights(trunk: nn.Module, spec: ExtractorSpec) -> None:
    """Give a new extractor the pretrained weights that its specification names; where it names none nothing is done.

    Args:
        trunk: What :func:`make_trunk` built from `spec`.
        spec: Which weights.

    Raises:
        MissingArtifact: If they are not there as safetensors, or the hub cannot be reached.
        CorruptArtifact: If they cannot be read, do not fit, or are others than when `spec` was made.
    """
    if not isinstance(trunk, ResNetTrunk) or spec.weights == RANDOM:
        return
    from transformers import ResNetModel

    found = find_pretrained(spec.weights, ("resnet",), spec.version)
    loaded = load_pretrained(ResNetModel, found, torch.float32)
    trunk.network.load_state_dict(loaded.state_dict())


def trained_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The weights that learn: what belongs into an optimiser."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


class ResNetTrunk(nn.Module):
    """ResNet beside the photographic statistics, which its pooled features do not hold.

    Pictures keep the size at which the policy looks. Batch normalisation always uses its stored statistics, in training
    too: what is seen in a photo never depends on the other photos of a batch, reinforcement learning compares the
    same function before and after an update, and a running mean of the weights is a network that works.

    Args:
        shape: Architecture.
        trainable: `frozen`, `last` (only the last stage learns) or `all`; the statistics' layer learns always.
        statistics_width: Width of the layer over the statistics.
    """

    def __init__(self, shape: ResNetShape, trainable: str, statistics_width: int) -> None:
        super().__init__()
        from transformers import ResNetConfig, ResNetModel

        config = ResNetConfig(
            depths=list(shape.depths),
            layer_type=shape.layer_type,
            embedding_size=shape.embedding_size,
            hidden_sizes=list(shape.hidden_sizes),
            hidden_act=shape.hidden_act,
            downsample_in_first_stage=shape.downsample_in_first_stage,
            downsample_in_bottleneck=shape.downsample_in_bottleneck,
        )
        self.network = ResNetModel(config)
        _soften_branches(self.network)
        self.statistics = nn.Sequential(nn.Linear(PICTURE_STATISTICS, statistics_width), nn.ReLU())
        self.width = shape.hidden_sizes[-1] + statistics_width
        # Not saved with the weights: the specification holds them.
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(shape.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(shape.std).view(1, 3, 1, 1), persistent=False)
        self.network.requires_grad_(trainable == "all")
        if trainable == "last":
            self.network.encoder.stages[-1].requires_grad_(requires_grad=True)
        self.train()

    def train(self, mode: bool = True) -> ResNetTrunk:
        """As every module, but batch normalisation stays in evaluation mode."""
        super().train(mode)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, images: torch.Tensor, statistics: torch.Tensor | None = None) -> torch.Tensor:
        """Look at pictures.

        Args:
            images: (N, 3, V, V) float in [0, 1].
            statistics: (N, PICTURE_STATISTICS) of these pictures where they are known already.

        Returns:
            (N, width): pooled features, then what the statistics' layer makes of the statistics.
        """
        pooled = self.network(pixel_values=(images - self.mean) / self.std).pooler_output.flatten(1)
        known = picture_statistics(images) if statistics is None else statistics
        return torch.cat((pooled, self.statistics(known)), dim=1)


def _soften_branches(network: nn.Module) -> None:
    """Let each residual branch of a random network begin at half strength.

    Without batch statistics every block would double the variance, 2^16 in all for 16 blocks; so it is 1.25^16 = 36.
    """
    with torch.no_grad():
        for stage in network.encoder.stages:  # type: ignore[union-attr]
            for block in stage.layers:
                block.layer[-1].normalization.weight.fill_(_FIRST_BRANCH_GAIN)


def _tuple_from_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _require_known(kind: str, trainable: str) -> None:
    for key, found, known in (
        ("extractor", kind, get_args(ExtractorKind)),
        ("extractor_trainable", trainable, get_args(Trainable)),
    ):
        if found not in known:
            near = suggestion(str(found), known)
            raise BadParams(f"{_SECTION}.{key} = {found!r}: expected one of {', '.join(known)}{near}")
