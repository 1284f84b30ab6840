"""A sculptor and a training that take seconds: the same parts as the shipped ones, with few numbers in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vernissage.sculptor.learn.building import Building
from vernissage.sculptor.learn.coarse import CoarseShape
from vernissage.sculptor.learn.model import Sculptor, SculptorShape
from vernissage.sculptor.learn.network import NetworkShape
from vernissage.sculptor.learn.planner import PlannerShape
from vernissage.sculptor.learn.training import SculptorTraining

if TYPE_CHECKING:
    from vernissage.sculptor.learn.blueprints import First

FIRSTS: tuple[First, ...] = ("plan", "coarse", "none")
NETWORK = NetworkShape(channels=(16, 32), fine=8, text=16, condition=32)
PLANNER = PlannerShape(text=16, width=32, blocks=1, path=16)
COARSE = CoarseShape(text=16, channels=16, blocks=1, steps=3)
VOCABULARY = ("tall", "oak", "tree", "thick", "trunk")


def small_shape(first: First = "plan", **changes: Any) -> SculptorShape:
    values: dict[str, Any] = {"network": NETWORK, "planner": PLANNER, "coarse": COARSE, "vocabulary": VOCABULARY}
    return SculptorShape(first, **values | changes)


def small_sculptor(first: First = "plan", seed: int = 0, **changes: Any) -> Sculptor:
    """Untaught, but with no layer that still says nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return shaken(Sculptor(small_shape(first, **changes))).eval().requires_grad_(requires_grad=False)


def shaken(module: torch.nn.Module, size: float = 0.1) -> Any:
    """Move every weight a little: some start at zero, and what they come behind would not matter yet."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape))
        for table in module.modules():
            if isinstance(table, torch.nn.Embedding) and table.padding_idx is not None:
                table.weight[table.padding_idx] = 0  # training never moves it either
    return module


def small_training(first: First = "plan", **changes: Any) -> SculptorTraining:
    values: dict[str, Any] = {
        "shape": small_shape(first),
        "building": Building(steps=2, edits=1),
        "epochs": 2,
        "updates": 2,
        "checkpoint_every": 1,
        "voxels": 2000,
        "mix": {"normal": 1.0},
        "first_updates": 4,
        "first_batch": 6,
        "precision": "float32",
        "validation": 1,
        "generations": 2,
    }
    return SculptorTraining(**values | changes)
