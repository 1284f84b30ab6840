"""The ``siglip`` juror: a SigLIP vision network under a linear aesthetic head (aesthetic predictor v2.5).

The score is linear in the direction of the picture's SigLIP embedding: the published head has five linear layers with
nothing between them, so it is multiplied out to one vector and one number when it is loaded. Neither network nor head
comes with this project; both are named in the parameters.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file

from vernissage.core.devices import choose_device
from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact
from vernissage.core.files import atomic_write_json, read_json
from vernissage.core.weights import load_weights, save_weights
from vernissage.retoucher.learn.pretrained import (
    Pretrained,
    channel_values,
    find_pretrained,
    find_weights_file,
    load_pretrained,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KIND = "siglip"
LOWEST_SCORE, HIGHEST_SCORE = 0.0, 10.0
#: Width of each layer's input in the published head, and its one output; ours takes other widths as well.
PUBLISHED_HEAD = (1152, 1024, 128, 64, 16, 1)

_MODEL_TYPES = ("siglip", "siglip_vision_model")
_HALF = (0.5, 0.5, 0.5)
# Pillow's numbers for resampling filters, as the processor's file gives them.
_FILTERS = {2: "bilinear", 3: "bicubic"}
_DEFAULT_FILTER = 3
# Pictures in one pass: enough to fill a GPU with the 729 patches of each, few enough for the memory of any.
_BATCH = 32
_LAYER_NAME = re.compile(r"(?P<prefix>.*?)(?P<number>\d+)\.(?P<what>weight|bias)")

#: Weight (out, in) and bias (out,).
Layer = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes what the network takes.

    Attributes:
        side: Side of the square in pixels; the aspect ratio is ignored.
        mean: Of each channel, subtracted from values in [0, 1].
        std: Of each channel, divided by.
        resample: `bicubic` or `bilinear`.
    """

    side: int
    mean: tuple[float, float, float] = _HALF
    std: tuple[float, float, float] = _HALF
    resample: str = _FILTERS[_DEFAULT_FILTER]


class SiglipJuror:
    """Scores pictures by a SigLIP network and a linear head.

    Args:
        encoder: `SiglipVisionModel`, in evaluation mode.
        weight: (D,) the head multiplied out.
        bias: Its constant.
        preparation: How pictures are prepared.
        device: Where to compute.
        name: What to call the network in messages.
    """

    def __init__(
        self,
        encoder: torch.nn.Module,
        weight: torch.Tensor,
        bias: float,
        preparation: Preparation,
        device: torch.device,
        name: str,
    ) -> None:
        self.encoder = encoder.requires_grad_(requires_grad=False).to(device).eval()
        self.weight, self.bias = weight.to(device, torch.float32), bias
        self.preparation, self.device, self.name = preparation, device, name

    @staticmethod
    def load(folder: Path) -> SiglipJuror:
        """Load what :func:`save_siglip` wrote, and the network that it names.

        Raises:
            MissingArtifact: If the juror's files or the network are not there, or the hub cannot be reached.
            CorruptArtifact: If a file does not match its hash or specification, or the network is another one by now.
        """
        spec = read_json(folder / "juror.json")
        try:
            name, local, version = (
                str(spec["model"]["name"]),
                bool(spec["model"]["local"]),
                str(spec["model"]["version"]),
            )
        except (KeyError, TypeError) as error:
            raise CorruptArtifact(
                f"{folder / 'juror.json'}: {error!r}; make it again with `dvc repro juror`"
            ) from error
        if local and not Path(name).is_absolute():
            name = os.path.normpath(folder / name)
        if local and not Path(name).is_dir():
            raise MissingArtifact(
                f"{name}: no such folder, {folder / 'juror.json'} expects the SigLIP network there; put it there, or "
                "set juror.siglip_model and run `dvc repro juror`"
            )
        tensors, _ = load_weights(folder, name="head")
        found = find_pretrained(name, _MODEL_TYPES, version)
        return _juror(found, head_layers(tensors, str(folder / "head.safetensors")), str(folder / "head.safetensors"))

    @torch.no_grad()
    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Score pictures.

        Args:
            images: (N, 3, H, W) float in [0, 1].

        Returns:
            (N,) float32 in [0, 10], on the pictures' device.

        Raises:
            BadInput: If a picture holds nan or infinity.
            CorruptArtifact: If the network does not give finite numbers.
        """
        if not bool(torch.isfinite(images).all()):
            raise BadInput(f"siglip juror: pictures of shape {tuple(images.shape)} hold nan or infinity, not scored")
        if not len(images):
            return torch.zeros(0, device=images.device)
        return torch.cat([self._score_some(part) for part in images.split(_BATCH)]).to(images.device)

    def member_scores(self, images: torch.Tensor) -> torch.Tensor:
        """(1, N): the scores of the one network, in the form that ensembles have."""
        return self.score(images).unsqueeze(0)

    def spread(self, images: torch.Tensor) -> torch.Tensor:
        """(N,) zeros: one network has nobody to disagree with."""
        return torch.zeros(len(images), device=images.device)

    def _score_some(self, images: torch.Tensor) -> torch.Tensor:
        levels = (images.to(self.device, torch.float32) * 255).round().clamp(0, 255)
        pixels = prepare(levels, self.preparation).to(next(self.encoder.parameters()).dtype)
        pooled = self.encoder(pixel_values=pixels).pooler_output.float()
        scores = F.normalize(pooled, dim=1) @ self.weight + self.bias
        if not bool(torch.isfinite(scores).all()):
            raise CorruptArtifact(
                f"{self.name}: SigLIP gave scores that are not finite for {len(images)} pictures on {self.device}; "
                "download it again, or compute elsewhere with VERNISSAGE_DEVICE=cpu"
            )
        return scores.clamp(LOWEST_SCORE, HIGHEST_SCORE)


def save_siglip(folder: Path, model: str, head: str) -> SiglipJuror:
    """Write a juror that names its network and holds its head, and load it.

    Args:
        folder: Gets ``juror.json``, ``head.safetensors`` and ``head.json``.
        model: Hub name or folder of a SigLIP network; a relative folder is kept relative to the juror's.
        head: Safetensors file, or hub name, of the head; see :func:`head_layers` for its tensors.

    Returns:
        The juror.

    Raises:
        MissingArtifact: If network or head are not there, or the hub cannot be reached.
        CorruptArtifact: If one cannot be read, or the head does not fit the network.
        BadInput: If the network is no SigLIP, or the head is not in safetensors.
    """
    file = find_weights_file(head)
    layers = head_layers(_read_tensors(file), str(file))
    found = find_pretrained(model, _MODEL_TYPES)
    juror = _juror(found, layers, str(file))
    tensors = {f"layers.{number}.{what}": t for number, layer in enumerate(layers) for what, t in _named(layer).items()}
    save_weights(folder, tensors, {"widths": _widths(layers), "from": head}, name="head")
    name = os.path.relpath(model, folder) if found.local and not Path(model).is_absolute() else model
    named = {"name": Path(name).as_posix() if found.local else name, "local": found.local, "version": found.version}
    atomic_write_json(folder / "juror.json", {"kind": KIND, "model": named})
    return juror


def head_layers(tensors: Mapping[str, torch.Tensor], origin: str) -> list[Layer]:
    """Find the head among named tensors: the one numbered chain of linear layers that ends in a single output.

    Names are `<number>.weight` and `<number>.bias` behind any common prefix, such as `layers.0.weight`,
    `scoring_head.0.weight` or `fc1.weight`. The numbers give the order and may leave gaps, which is what dropout
    between the layers makes of them; other tensors in the file do not matter.

    Args:
        tensors: Content of a safetensors file.
        origin: What to call it in messages.

    Returns:
        The layers from input to output.

    Raises:
        CorruptArtifact: If there is no such chain or more than one, or it holds nan or infinity.
    """
    chains = [chain for group in _numbered(tensors) if (chain := _chain(group))]
    if len(chains) != 1:
        shapes = {name: tuple(tensor.shape) for name, tensor in sorted(tensors.items())[:6]}
        raise CorruptArtifact(
            f"{origin}: found {len(chains) or 'no'} heads among {len(tensors)} tensors ({shapes}...), expected one "
            f"chain of linear layers <prefix><number>.weight and .bias ({_arrows(PUBLISHED_HEAD)} as published); "
            "name another file as juror.siglip_head"
        )
    for weight, bias in chains[0]:
        if not bool(torch.isfinite(weight).all() and torch.isfinite(bias).all()):
            raise CorruptArtifact(f"{origin}: the head holds nan or infinity, expected finite weights; get it again")
    return chains[0]


def fold_head(layers: Sequence[Layer]) -> tuple[torch.Tensor, float]:
    """Multiply linear layers out: W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2).

    Args:
        layers: From input to output, the last with one output.

    Returns:
        (D,) float64 vector and the constant.
    """
    weight, bias = (part.double() for part in layers[0])
    for next_weight, next_bias in layers[1:]:
        weight, bias = next_weight.double() @ weight, next_weight.double() @ bias + next_bias.double()
    return weight.squeeze(0), float(bias)


def prepare(levels: torch.Tensor, preparation: Preparation) -> torch.Tensor:
    """Do what the stock SigLIP processor does to 8-bit pictures, for a batch and on any device.

    Widths are resampled before heights and rounded to 8 bits in between, as torchvision does and Pillow before 13
    did; single pixels differ from Pillow by a level or two. Pillow 13 begins with the heights where these shrink
    more, which moves a photo by a quarter of a level on average.

    Args:
        levels: (N, 3, H, W) float, whole numbers from 0 to 255.
        preparation: Size, filter and normalisation.

    Returns:
        (N, 3, side, side) float, about [-1, 1].
    """
    side = preparation.side
    for size in ((levels.shape[-2], side), (side, side)):
        if tuple(levels.shape[-2:]) != size:
            resampled = F.interpolate(levels, size=size, mode=preparation.resample, antialias=True)
            levels = resampled.round().clamp(0, 255)
    mean = torch.tensor(preparation.mean).to(levels).view(1, 3, 1, 1)
    std = torch.tensor(preparation.std).to(levels).view(1, 3, 1, 1)
    return (levels / 255 - mean) / std


def _juror(found: Pretrained, layers: Sequence[Layer], head: str) -> SiglipJuror:
    from transformers import SiglipVisionModel

    device = choose_device()
    # Half the memory and several times the speed; the range of float32, so that nothing overflows.
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    encoder = load_pretrained(SiglipVisionModel, found, dtype)
    width = int(encoder.config.hidden_size)
    if not encoder.config.vision_use_head:
        raise BadInput(f"{found.name}: a SigLIP network without its pooling head, expected vision_use_head = true")
    if layers[0][0].shape[1] != width:
        raise CorruptArtifact(
            f"{head}: a head of {_arrows(_widths(layers))}, expected {width} inputs, the width of {found.name}; "
            "name the head that belongs to juror.siglip_model as juror.siglip_head"
        )
    weight, bias = fold_head(layers)
    return SiglipJuror(encoder, weight, bias, _preparation(found, int(encoder.config.image_size)), device, found.name)


def _preparation(found: Pretrained, side: int) -> Preparation:
    size = found.processor.get("size", side)
    resample = found.processor.get("resample", _DEFAULT_FILTER)
    # Compared, not looked up: the file may hold anything.
    if size not in (side, {"height": side, "width": side}) or resample not in tuple(_FILTERS):
        raise CorruptArtifact(
            f"{found.name}: its processor asks for size {size} and resampling filter {resample}, expected {side} x "
            f"{side} as in config.json and one of {_FILTERS}; download it again"
        )
    mean, std = channel_values(found, "image_mean", _HALF), channel_values(found, "image_std", _HALF)
    return Preparation(side, mean, std, _FILTERS[resample])


def _read_tensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(file, device="cpu")
    except (SafetensorError, OSError) as error:
        raise CorruptArtifact(f"{file}: not a safetensors file ({error}); get it again, or convert it") from error


def _numbered(tensors: Mapping[str, torch.Tensor]) -> list[dict[int, dict[str, torch.Tensor]]]:
    """Weights and biases by number, one entry for each common prefix."""
    groups: dict[str, dict[int, dict[str, torch.Tensor]]] = {}
    for name, tensor in tensors.items():
        match = _LAYER_NAME.fullmatch(name)
        if match:
            group = groups.setdefault(match["prefix"], {})
            group.setdefault(int(match["number"]), {})[match["what"]] = tensor
    return list(groups.values())


def _chain(group: Mapping[int, Mapping[str, torch.Tensor]]) -> list[Layer]:
    """The layers in their order where they are linear, each fits the next and the last has one output; else none."""
    layers: list[Layer] = []
    for _, row in sorted(group.items()):
        if set(row) != {"weight", "bias"} or row["weight"].ndim != 2 or row["bias"].shape != row["weight"].shape[:1]:
            return []
        if layers and layers[-1][0].shape[0] != row["weight"].shape[1]:
            return []
        layers.append((row["weight"], row["bias"]))
    return layers if layers[-1][0].shape[0] == 1 else []


def _named(layer: Layer) -> dict[str, torch.Tensor]:
    return {"weight": layer[0], "bias": layer[1]}


def _widths(layers: Sequence[Layer]) -> list[int]:
    return [*(int(weight.shape[1]) for weight, _ in layers), 1]


def _arrows(widths: Sequence[int]) -> str:
    return "-".join(str(width) for width in widths)
