"""Checkpoints as safetensors and JSON: a training that was killed goes on to the weights it would have had."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.files import fresh_folder
from vernissage.core.weights import load_weights, save_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and everything else as JSON values."""

    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in ``folder``; a crash leaves the old one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with fresh_folder(folder) as fresh:
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.tensors.items()}
        save_weights(fresh, tensors, checkpoint.facts)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Read a checkpoint; one that is missing or damaged counts as none, training then begins again."""
    try:
        tensors, facts = load_weights(folder)
    except MissingArtifact:
        return None
    except CorruptArtifact:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return Checkpoint(tensors, facts)


def with_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put a prefix before every name."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Pick the names with a prefix and take it off."""
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Moments and step counts of an optimiser, by parameter number."""
    state = optimiser.state_dict()["state"]
    return {f"{number}/{key}": torch.as_tensor(value) for number, row in state.items() for key, value in row.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what :func:`optimiser_tensors` took; learning rates are set by the training loop."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split("/")
        state.setdefault(int(number), {})[key] = tensor.clone()
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def random_state(source: np.random.Generator) -> Checkpoint:
    """State of torch's, numpy's global and the source's random numbers (stable-baselines3 uses the global ones)."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    facts = {"numpy": [str(name), int(position), int(has_gauss), float(cached)], "source": source.bit_generator.state}
    return Checkpoint(tensors, facts)


def restore_random_state(state: Checkpoint, source: np.random.Generator) -> None:
    """Put back what :func:`random_state` took."""
    torch.set_rng_state(state.tensors["torch"].to(torch.uint8))
    name, position, has_gauss, cached = state.facts["numpy"]
    keys = state.tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((name, keys, position, has_gauss, cached))  # noqa: NPY002
    source.bit_generator.state = state.facts["source"]
