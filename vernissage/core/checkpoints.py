"""Checkpoints of a training as safetensors and JSON: one that was killed goes on to the weights it would have had."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.files import fresh_folder
from vernissage.core.weights import load_weights, save_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and everything else as JSON values."""

    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in ``folder``; a crash leaves the old one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with fresh_folder(folder) as fresh:
        save_weights(fresh, checkpoint.tensors, checkpoint.facts)


def load_checkpoint(folder: Path, identity: str) -> Checkpoint | None:
    """Read the checkpoint of a training.

    Args:
        folder: Where :func:`save_checkpoint` wrote it.
        identity: What the facts' ``identity`` must be: a name of all that the training depends on.

    Returns:
        None where there is none, it is damaged (then it is removed), or it belongs to another training.
    """
    try:
        tensors, facts = load_weights(folder)
    except MissingArtifact:
        return None
    except CorruptArtifact:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return Checkpoint(tensors, facts) if facts.get("identity") == identity else None


def with_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put a prefix before every name."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Pick the names with a prefix and take it off."""
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Moments and step counts of an optimiser, by parameter number."""
    import torch

    state = optimiser.state_dict()["state"]
    return {f"{number}/{key}": torch.as_tensor(value) for number, row in state.items() for key, value in row.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what :func:`optimiser_tensors` took; learning rates are set by the training loop."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split("/")
        state.setdefault(int(number), {})[key] = tensor.clone()
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
