"""A look at a training: what the network gets right on voxels it does not see, and what it builds."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from vernissage.core.files import atomic_path
from vernissage.core.seeds import derive_seed, torch_generator
from vernissage.sculptor.domain.anatomy import judge_anatomy
from vernissage.sculptor.domain.pictures import picture_sheet, role_picture
from vernissage.sculptor.domain.roles import MASK, OUTSIDE, Role
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.learn.blueprints import guides_of, on_canvas
from vernissage.sculptor.learn.noise import MASK_BUCKETS
from vernissage.sculptor.learn.sculpting import Request, Sculpture, sculpt

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.learn.examples import Examples
    from vernissage.sculptor.learn.model import Sculptor
    from vernissage.sculptor.learn.training import SculptorTraining

GENERATIONS = "generations"
# What a nat of masked loss counts beside a whole share of connected structures: it decides between equals.
_LOSS_COUNTS = 0.1
_SHEET_COLUMNS, _SHEET_EDGE = 8, 128


@dataclass(frozen=True)
class Look:
    """What one look found.

    Attributes:
        epoch: When.
        objective: What the best weights are chosen by: connectivity of what was built, less a tenth of the masked loss.
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
        return (
            f"epoch {self.epoch}: on masked blocks loss {row['masked_loss']:.3f} and accuracy "
            f"{row['masked_accuracy']:.1%}; of {row['built']} built {row['whole']:.0%} are whole, connectivity "
            f"{row['connectivity']:.3f}"
        )


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
        loss = _mean([bucket["masked_loss"] for bucket in buckets])
        table = {
            "epoch": epoch,
            **row,
            "masked_loss": loss,
            "masked_accuracy": _mean([bucket["masked_accuracy"] for bucket in buckets]),
            "legacy_loss": _mean([bucket["legacy_loss"] for bucket in buckets]),
            "legacy_accuracy": _mean([bucket["legacy_accuracy"] for bucket in buckets]),
            "built": len(built),
            "connectivity": connectivity,
            "whole": _mean([anatomy.whole for anatomy in found]),
            "one_trunk": _mean([anatomy.one_trunk for anatomy in found]),
            "leaf_survival": _mean([anatomy.leaf_survival for anatomy in found]),
            "cast_success": _mean([anatomy.cast_success for anatomy in found]),
            "voxels": _mean([anatomy.voxels for anatomy in found]),
        }
        objective = (connectivity if built else 0.0) - _LOSS_COUNTS * loss
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
    """Measure loss and accuracy on masked voxels, for every bucket of mask ratios.

    Args:
        sculptor: The model.
        examples: Held-out structures.
        rows: Which of them.
        seed: Of the masks.

    Returns:
        A row per bucket: ``mask_ratio`` (its ends, as text), ``masked_loss`` in nats and ``masked_accuracy`` on masked
        voxels that hold a block; ``legacy_loss`` and ``legacy_accuracy`` on all voxels, masked or not, air or not,
        which an empty grid nearly passes.
    """
    found = []
    for low, high in pairwise(MASK_BUCKETS):
        sums = np.zeros(4)
        counts = np.zeros(2)
        for row in rows:
            generator = torch_generator(seed, "bucket", str(low), row)
            ratio = low + (high - low) * float(torch.rand(1, generator=generator))
            sums_of, counts_of = _measure_one(sculptor, examples, row, ratio, generator)
            sums, counts = sums + sums_of, counts + counts_of
        blocks, everything = np.maximum(counts, 1)
        found.append(
            {
                "mask_ratio": f"{low:g} to {high:g}",
                "masked_loss": sums[0] / blocks,
                "masked_accuracy": sums[1] / blocks,
                "legacy_loss": sums[2] / everything,
                "legacy_accuracy": sums[3] / everything,
            }
        )
    return found


def _measure_one(
    sculptor: Sculptor, examples: Examples, row: int, ratio: float, generator: torch.Generator
) -> tuple[np.ndarray, np.ndarray]:
    blueprint, device = examples.blueprints[row], sculptor.device
    canvas = blueprint.canvas(sculptor.shape.network.multiple)
    x0 = torch.from_numpy(on_canvas(examples.grids[row], canvas)).long()[None]
    inside = x0 != OUTSIDE
    masked = (torch.rand(x0.shape, generator=generator) < ratio) & inside
    logits = _rated(sculptor, x0.masked_fill(masked, MASK), blueprint, canvas, examples.captions[row], device)
    truth = x0.masked_fill(~inside, 0)
    losses = F.cross_entropy(logits, truth, reduction="none")
    right = (logits.argmax(1) == truth).float()
    blocks = masked & (x0 != Role.AIR)
    sums = [float((values * chosen).sum()) for chosen in (blocks, inside) for values in (losses, right)]
    return np.array(sums), np.array([int(blocks.sum()), int(inside.sum())], np.float64)


def _rated(
    sculptor: Sculptor,
    tokens: Tensor,
    blueprint: Any,
    canvas: tuple[int, int, int],
    captions: tuple[str, ...],
    device: torch.device,
) -> Tensor:
    guides = guides_of([blueprint], canvas, sculptor.first)
    values = None if guides.values is None else guides.values.to(device)
    condition = sculptor.network.condition(sculptor.words([captions[0] if captions else ""]), values)
    logits: Tensor = sculptor.network(tokens.to(device), guides.channels.to(device), condition)
    return logits.float().cpu()


def _mean(values: list[Any]) -> float:
    known = [float(value) for value in values if value is not None and not np.isnan(float(value))]
    return float(np.mean(known)) if known else float("nan")
