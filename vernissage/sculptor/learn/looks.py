"""A look at a training: what the network gets right on voxels it does not see, and what it builds."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vernissage.core.files import atomic_path
from vernissage.core.seeds import derive_seed, torch_generator
from vernissage.sculptor.domain.anatomy import judge_anatomy
from vernissage.sculptor.domain.pictures import picture_sheet, role_picture
from vernissage.sculptor.domain.roles import OUTSIDE, Role
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.learn.blueprints import guides_of, on_canvas
from vernissage.sculptor.learn.noise import (
    MASK_BUCKETS,
    NOT_WOOD,
    Corruption,
    Level,
    is_wood,
    noised,
    voxel_losses,
)
from vernissage.sculptor.learn.sculpting import Request, Sculpture, sculpt

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from vernissage.sculptor.domain.anatomy import Anatomy
    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.learn.examples import Examples
    from vernissage.sculptor.learn.model import Sculptor
    from vernissage.sculptor.learn.training import SculptorTraining

GENERATIONS = "generations"
# What a nat of masked loss counts beside a whole share of sound structures: a few dozen of these tell little apart.
_LOSS_COUNTS = 1.0
_LEAVES_STAY = 0.95
_SHEET_COLUMNS, _SHEET_EDGE = 8, 128


@dataclass(frozen=True)
class Look:
    """What one look found.

    Attributes:
        epoch: When.
        objective: What the best weights are chosen by: the share of sound structures (whole, with one trunk, and leaves
            that stay), less the masked loss.
        row: For a table over epochs.
        buckets: A row for each bucket of mask ratios.
    """

    epoch: int
    objective: float
    row: dict[str, Any] = field(default_factory=dict)
    buckets: list[dict[str, Any]] = field(default_factory=list)

    def said(self) -> str:
        """One line."""
        row = self.row
        said = (
            f"epoch {self.epoch}: on masked blocks loss {row['masked_loss']:.3f}, accuracy {row['masked_accuracy']:.1%}"
        )
        if not row["built"]:
            return said
        return f"{said}; of {row['built']} built {row['whole']:.0%} are whole, connectivity {row['connectivity']:.3f}"


class Watcher:
    """Looks at a training with the same held-out structures, prompts and seeds every time."""

    def __init__(self, examples: Examples, dataset: Dataset, settings: SculptorTraining, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        spread = np.linspace(0, len(examples) - 1, min(settings.validation, len(examples))).astype(int)
        self.examples, self.rows = examples, [int(row) for row in dict.fromkeys(spread)]
        chosen = np.linspace(0, len(dataset) - 1, settings.generations).astype(int)
        self.requests = [
            Request(
                examples.captions[row][0] if examples.captions[row] else "",
                SIZES[examples.sizes[row]],
                derive_seed(settings.seed, "look", place),
            )
            for place, row in enumerate(chosen)
        ]

    def look(self, sculptor: Sculptor, epoch: int, row: dict[str, Any]) -> Look:
        """Measure and build; `row` holds what the table says besides."""
        buckets = measure_buckets(sculptor, self.examples, self.rows, self.settings.seed)
        built = sculpt(sculptor, self.requests, self.settings.building, plan_guidance=self.settings.plan_guidance)
        self._picture(built, epoch)
        found = [judge_anatomy(sculpture.roles) for sculpture in built]
        connectivity = _mean([anatomy.connectivity for anatomy in found])
        sound = _mean([_is_sound(anatomy) for anatomy in found])
        loss = _mean([bucket["masked_loss"] for bucket in buckets])
        table = {
            "epoch": epoch,
            **row,
            "masked_loss": loss,
            "masked_accuracy": _mean([bucket["masked_accuracy"] for bucket in buckets]),
            "legacy_loss": _mean([bucket["legacy_loss"] for bucket in buckets]),
            "legacy_accuracy": _mean([bucket["legacy_accuracy"] for bucket in buckets]),
            "built": len(built),
            "sound": sound,
            "connectivity": connectivity,
            "whole": _mean([anatomy.whole for anatomy in found]),
            "one_trunk": _mean([anatomy.one_trunk for anatomy in found]),
            "leaf_survival": _mean([anatomy.leaf_survival for anatomy in found]),
            "cast_success": _mean([anatomy.cast_success for anatomy in found]),
            "voxels": _mean([anatomy.voxels for anatomy in found]),
        }
        objective = (sound or 0.0) - _LOSS_COUNTS * (loss or 0.0)
        return Look(epoch, objective, table | {"objective": objective}, [{"epoch": epoch, **b} for b in buckets])

    def _picture(self, built: list[Sculpture], epoch: int) -> None:
        if not built:
            return
        captions = [request.prompt or "(no prompt)" for request in self.requests]
        images = [role_picture(sculpture.roles, edge=_SHEET_EDGE) for sculpture in built]
        with atomic_path(self.folder / GENERATIONS / f"epoch-{epoch:04d}.png") as path:
            picture_sheet(images, captions, _SHEET_COLUMNS).save(path, format="PNG")


@torch.no_grad()
def measure_buckets(sculptor: Sculptor, examples: Examples, rows: list[int], seed: int) -> list[dict[str, Any]]:
    """Measure loss and accuracy on absorbed voxels, for every bucket of the share that is absorbed.

    Wood is measured where it is decided, as wood or not, and all other blocks where the rest is decided around it.

    Args:
        sculptor: The model.
        examples: Held-out structures.
        rows: Which of them.
        seed: Of the masks.

    Returns:
        A row per bucket: ``mask_ratio`` (its ends, as text), ``masked_loss`` in nats and ``masked_accuracy`` on
        absorbed voxels that hold a block, ``wood_loss`` and ``rest_loss`` on either kind of them; ``legacy_loss`` and
        ``legacy_accuracy`` on all voxels, absorbed or not, air or not, which an empty grid nearly passes.
    """
    found = []
    for low, high in pairwise(MASK_BUCKETS):
        tallies = {level: np.zeros(6) for level in (Level.WOOD, Level.REST)}
        for row in rows:
            for level, tally in tallies.items():
                generator = torch_generator(seed, "bucket", str(low), row, int(level))
                ratio = low + (high - low) * float(torch.rand(1, generator=generator))
                np.add(tally, _measure_one(sculptor, examples, row, level, ratio, generator), out=tally)
        both = sum(tallies.values())
        found.append(
            {
                "mask_ratio": f"{low:g} to {high:g}",
                "masked_loss": _share(both, 0, 2),
                "masked_accuracy": _share(both, 1, 2),
                "wood_loss": _share(tallies[Level.WOOD], 0, 2),
                "rest_loss": _share(tallies[Level.REST], 0, 2),
                "legacy_loss": _share(both, 3, 5),
                "legacy_accuracy": _share(both, 4, 5),
            }
        )
    return found


def _share(tally: Any, what: int, of: int) -> float | None:
    return float(tally[what] / tally[of]) if tally[of] else None


def _measure_one(
    sculptor: Sculptor, examples: Examples, row: int, level: Level, ratio: float, generator: torch.Generator
) -> np.ndarray:
    """Sums of loss, of right answers and of voxels, on absorbed blocks of the level and on all voxels."""
    blueprint = examples.blueprints[row]
    canvas = blueprint.canvas(sculptor.shape.network.multiple)
    x0 = torch.from_numpy(on_canvas(examples.grids[row], canvas)).long()[None]
    levels = torch.tensor([int(level)])
    seen = noised(
        x0,
        torch.tensor([max(ratio, 1e-6)]),
        levels,
        Corruption(wrong=0.0),
        generator,
        drawn=torch.full_like(x0, OUTSIDE),
        roles=torch.zeros(1, dtype=torch.long),
    )
    logits = _rated(sculptor, seen.tokens, blueprint, canvas, examples.captions[row])
    inside = x0 != OUTSIDE
    truth = x0.masked_fill(~inside, 0)
    losses = voxel_losses(logits, truth, levels)
    best = level.outcomes(torch.log_softmax(logits.movedim(1, -1), -1)).argmax(-1)
    wanted = torch.where(~is_wood(truth) & (level == Level.WOOD), NOT_WOOD, truth)
    right = ((best == wanted) | ((level == Level.REST) & is_wood(truth))).float()
    of_level = is_wood(x0) if level == Level.WOOD else (x0 != Role.AIR) & ~is_wood(x0)
    blocks = (seen.tokens == level.undecided) & of_level & inside
    return np.array(
        [
            float(value)
            for chosen in (blocks, inside)
            for value in ((losses * chosen).sum(), (right * chosen).sum(), chosen.sum())
        ]
    )


def _rated(
    sculptor: Sculptor,
    tokens: Tensor,
    blueprint: Any,
    canvas: tuple[int, int, int],
    captions: tuple[str, ...],
) -> Tensor:
    device = sculptor.device
    guides = guides_of([blueprint], canvas, sculptor.first)
    values = None if guides.values is None else guides.values.to(device)
    condition = sculptor.network.condition(sculptor.words([captions[0] if captions else ""]), values)
    logits: Tensor = sculptor.network(tokens.to(device), guides.channels.to(device), condition)
    return logits.float().cpu()


def _is_sound(anatomy: Anatomy) -> bool:
    stay = np.isnan(anatomy.leaf_survival) or anatomy.leaf_survival >= _LEAVES_STAY
    return bool(anatomy.whole and anatomy.one_trunk and stay)


def _mean(values: list[Any]) -> float | None:
    """Of those that are numbers; None without any, which JSON has a form for."""
    known = [float(value) for value in values if value is not None and not np.isnan(float(value))]
    return float(np.mean(known)) if known else None
