"""Small pretrained networks on disk, as a download would leave them: random weights, real formats."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from transformers import ResNetConfig, ResNetModel, SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SIDE = 32
WIDTH = 32
WIDTHS = (WIDTH, 24, 16, 8, 4, 1)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TINY_SIGLIP = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": SIDE,
    "patch_size": 8,
}
TINY_TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 50_000,
}


def seeded(make: Callable[[], Any], seed: int) -> Any:
    """What `make` makes with this seed, without touching the random numbers of the test."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def write_siglip(folder: Path, seed: int = 0, *, with_text: bool = False, **processor: Any) -> Path:
    """A SigLIP network; with a text half it has the form of the published ones."""
    vision = SiglipVisionConfig(**TINY_SIGLIP)
    if with_text:
        config = SiglipConfig(vision_config=vision.to_dict(), text_config=TINY_TEXT)
        seeded(lambda: SiglipModel(config), seed).save_pretrained(folder)
    else:
        seeded(lambda: SiglipVisionModel(vision), seed).save_pretrained(folder)
    stock = {"size": {"height": SIDE, "width": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps({**stock, **processor}))
    return folder


def head_tensors(
    names: Sequence[str] = ("layers.0", "layers.2", "layers.4", "layers.6", "layers.8"),
    widths: Sequence[int] = WIDTHS,
    seed: int = 1,
    bias: float = 5.0,
) -> dict[str, torch.Tensor]:
    """A head whose scores are spread about `bias`."""
    rng = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, wide_in, wide_out in zip(names, widths, widths[1:], strict=False):
        tensors[f"{name}.weight"] = torch.randn(wide_out, wide_in, generator=rng) * (1.2 / wide_in**0.5)
        tensors[f"{name}.bias"] = 0.1 * torch.randn(wide_out, generator=rng)
    tensors[f"{names[-1]}.bias"] += bias
    return tensors


def write_head(path: Path, **changes: Any) -> Path:
    """A head as a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(head_tensors(**changes), path)
    return path


def write_resnet(folder: Path, kind: str = "resnet18", seed: int = 0, **processor: Any) -> Path:
    """A thin ResNet with the depths of its kind, whose batch normalisation has seen something."""
    shapes = {"resnet18": ([2, 2, 2, 2], "basic"), "resnet50": ([3, 4, 6, 3], "bottleneck")}
    depths, layer_type = shapes[kind]
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16, 24], depths=depths, layer_type=layer_type)
    network = seeded(lambda: ResNetModel(config), seed)
    rng = torch.Generator().manual_seed(seed + 1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.copy_(0.1 * torch.randn(module.running_mean.shape, generator=rng))
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=rng))
            module.weight.data.mul_(0.6)
    network.save_pretrained(folder)
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def put_into_hub_cache(cache: Path, name: str, folder: Path, commit: str = COMMIT) -> None:
    """Lay a folder into a hub cache as a download of `name` at `commit` would."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)
