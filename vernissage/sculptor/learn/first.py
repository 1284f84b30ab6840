"""Teaches what comes before the voxels: the planner, or the network of coarse grids."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vernissage.core.checkpoints import (
    Checkpoint,
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
    with_prefix,
    without_prefix,
)
from vernissage.core.errors import BadInput
from vernissage.core.parallel import in_parts, threads_for_parts
from vernissage.core.progress import Progress
from vernissage.core.seeds import numpy_generator, torch_generator
from vernissage.sculptor.domain.attributes import ATTRIBUTES
from vernissage.sculptor.domain.plan import (
    ASIDE,
    INDEX,
    MOST,
    OCTANTS,
    OF_OCTANTS,
    SYMMETRIES,
    turned_grid,
    turned_octants,
)
from vernissage.sculptor.learn.coarse import coarse_loss
from vernissage.sculptor.learn.planner import SIZE_NAMES, draw_known, planner_loss

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from vernissage.sculptor.learn.examples import Examples
    from vernissage.sculptor.learn.model import Sculptor
    from vernissage.sculptor.learn.training import SculptorTraining

_LAST_LR = 0.02
_ROWS_OF_CURVE = 40
_SAVES = 4
FIRST_STATE = "first"


def train_first(
    sculptor: Sculptor, examples: Examples, settings: SculptorTraining, folder: Path, identity: str
) -> list[dict[str, Any]]:
    """Teach the sculptor in place; go on where this was cut off.

    Args:
        sculptor: Its planner or its network of coarse grids, and the words that belong to it.
        examples: What to learn from.
        settings: How.
        folder: For a checkpoint.
        identity: Name of all that the training depends on.

    Returns:
        Rows with ``update``, ``loss`` and ``lr``; none where nothing comes first.

    Raises:
        BadInput: The loss is no longer a number.
    """
    if sculptor.first_words is None:
        return []
    learner = _FirstLearner(sculptor, examples, settings)
    rows, losses = list[dict[str, Any]](), list[float]()
    parameters = learner.parameters
    optimiser = torch.optim.AdamW(parameters, lr=settings.first_lr, betas=(0.9, 0.99), weight_decay=0.01)
    total, place = settings.first_updates, folder / FIRST_STATE
    state = load_checkpoint(place, identity)
    start = 0
    if state is not None:
        sculptor.load_state_dict(without_prefix("sculptor", state.tensors))
        restore_optimiser(optimiser, without_prefix("moments", state.tensors))
        start, rows, losses = state.facts["update"], state.facts["rows"], state.facts["losses"]
    with Progress(settings.shape.first, total=total, unit="updates") as progress, threads_for_parts():
        progress.advance(start)
        for update in range(start, total):
            lr = settings.first_lr * _share(update, total)
            for group in optimiser.param_groups:
                group["lr"] = lr
            value, slopes = learner.slopes(update)
            if not math.isfinite(value):
                raise BadInput(f"sculptor: the {settings.shape.first}'s loss is {value} at update {update}; lower lr")
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter.grad = slope
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            losses.append(value)
            if (update + 1) % max(1, total // _ROWS_OF_CURVE) == 0 or update + 1 == total:
                rows.append({"update": update + 1, "loss": float(np.mean(losses)), "lr": lr})
                losses = []
            if (update + 1) % max(1, total // _SAVES) == 0:
                tensors = with_prefix("sculptor", sculptor.state_dict())
                tensors |= with_prefix("moments", optimiser_tensors(optimiser))
                facts = {"identity": identity, "update": update + 1, "rows": rows, "losses": losses}
                save_checkpoint(place, Checkpoint(tensors, facts))
            progress.advance(1, loss=value)
    return rows


def _share(update: int, total: int) -> float:
    """Of the learning rate: a short rise, then half a cosine down."""
    rising = min(1.0, (update + 1) / max(1.0, 0.05 * total))
    return rising * (_LAST_LR + (1 - _LAST_LR) * 0.5 * (1 + math.cos(math.pi * update / total)))


class _FirstLearner:
    """Draws structures, turns them and computes the loss of what comes first."""

    def __init__(self, sculptor: Sculptor, examples: Examples, settings: SculptorTraining) -> None:
        self.sculptor, self.examples, self.settings = sculptor, examples, settings
        learned = sculptor.planner if sculptor.planner is not None else sculptor.coarse
        if sculptor.first_words is None or learned is None:
            raise ValueError("nothing comes first")
        self.words, self.device = sculptor.first_words, sculptor.device
        modules = (learned, self.words)
        self.parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        self.chances = _chances(examples, settings)
        self.plans = [blueprint.plan for blueprint in examples.blueprints if blueprint.plan is not None]
        if self.plans:
            self.values = np.stack([plan.values for plan in self.plans])
            self.paths = np.stack([_full(plan.path) for plan in self.plans])

    def slopes(self, update: int) -> tuple[float, list[Tensor]]:
        """Loss of a fresh batch, and its gradients; halves of the batch are computed side by side."""
        settings = self.settings
        rng = numpy_generator(settings.seed, "first", update)
        generator = torch_generator(settings.seed, "first", update)
        rows = rng.choice(len(self.examples), settings.first_batch, p=self.chances)
        symmetries = rng.integers(SYMMETRIES, size=len(rows))
        prompts, said = [], []
        for row in rows:
            captions = self.examples.captions[row]
            chosen = int(rng.integers(len(captions)))
            dropped = rng.random() < settings.text_dropout
            prompts.append("" if dropped else captions[chosen])
            said.append([0] * len(ATTRIBUTES) if dropped else self.examples.said[row][chosen])
        words = self.words.tokenise(prompts, generator)
        known, said_of = draw_known(len(rows), generator), torch.tensor(said)
        seeds = torch.randint(2**62, (len(rows),), generator=generator)

        def part(place: slice) -> tuple[float, list[Tensor]]:
            torch.set_flush_denormal(True)
            text: Tensor = self.words(words.rows(torch.arange(len(rows))[place]))
            share = len(rows[place]) / len(rows)
            given = (known[place], said_of[place])
            loss = self._loss(text, rows[place], symmetries[place], given, int(seeds[place][0])) * share
            slopes = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            pairs = zip(slopes, self.parameters, strict=True)
            return float(loss.detach()), [torch.zeros_like(p) if slope is None else slope for slope, p in pairs]

        count = len(rows)
        results = in_parts(part, count, count if self.device.type == "cuda" else -(-count // 2))
        slopes = [torch.stack(of).sum(0) for of in zip(*(slopes for _, slopes in results), strict=True)]
        return sum(loss for loss, _ in results), slopes

    def _loss(
        self, text: Tensor, rows: np.ndarray, symmetries: np.ndarray, given: tuple[Tensor, Tensor], seed: int
    ) -> Tensor:
        sculptor, sizes = self.sculptor, [self.examples.sizes[row] for row in rows]
        if sculptor.planner is not None:
            values, paths = turned_plans(self.values[rows], self.paths[rows], symmetries)
            numbers = torch.tensor([SIZE_NAMES.index(size) for size in sizes])
            tensors = (numbers, torch.from_numpy(values), torch.from_numpy(paths), *given)
            return planner_loss(sculptor.planner, text, *(tensor.to(self.device) for tensor in tensors))
        if sculptor.coarse is None:
            raise ValueError("nothing comes first")
        cells = [self.examples.blueprints[row].coarse for row in rows]
        pairs = zip(cells, symmetries, strict=True)
        grids = [turned_grid(grid, int(symmetry)) for grid, symmetry in pairs if grid is not None]
        return coarse_loss(sculptor.coarse, text, sizes, grids, torch.Generator().manual_seed(seed))


def turned_plans(values: np.ndarray, paths: np.ndarray, symmetries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn many plans as `Plan.turned` turns one.

    Args:
        values: (B, fields).
        paths: (B, Y, 2).
        symmetries: (B,) 0 to 7.
    """
    values, paths = values.copy(), paths.copy()
    for bit, axis, base, side in ((1, 1, "base_x", "width"), (2, 0, "base_z", "depth")):
        rows = np.flatnonzero(symmetries & bit)
        last = 2 * (values[rows, INDEX[side]] - 1)
        paths[rows, :, axis] = last[:, None] - paths[rows, :, axis]
        values[rows, INDEX[base]] = last - values[rows, INDEX[base]]
    rows = np.flatnonzero(symmetries & 4)
    paths[rows] = paths[rows][:, :, ::-1]
    for one, other in (("base_x", "base_z"), ("width", "depth")):
        first, second = INDEX[one], INDEX[other]
        values[rows, first], values[rows, second] = values[rows, second], values[rows, first]
    octants = np.stack([turned_octants(symmetry) for symmetry in range(SYMMETRIES)])[symmetries]
    mirrored = np.array([int(symmetry).bit_count() % 2 for symmetry in symmetries])[:, None]
    for name in OF_OCTANTS:
        first = INDEX[f"{name}_0"]
        moved = np.take_along_axis(values[:, first : first + OCTANTS], octants, 1)
        values[:, first : first + OCTANTS] = np.where(mirrored & (name == "limb_side"), 2 * ASIDE - moved, moved)
    return values, paths


def _chances(examples: Examples, settings: SculptorTraining) -> np.ndarray:
    """Every size gets its share of the structures, and within it the user's theirs."""
    sizes, own = np.array(examples.sizes), np.array(examples.own)
    chances = np.zeros(len(examples))
    for size, share in settings.mix.items():
        here = sizes == size
        for mine, part in ((True, settings.own_share), (False, 1 - settings.own_share)):
            rows = here & (own == mine)
            if rows.any():
                chances[rows] = share * (part if (here & (own != mine)).any() else 1.0) / rows.sum()
    if chances.sum() <= 0:
        raise BadInput(f"sculptor: sizes {sorted(set(examples.sizes))} occur, but the mix gives none of them a share")
    return chances / chances.sum()


def _full(path: np.ndarray) -> np.ndarray:
    return np.concatenate([path, np.repeat(path[-1:], MOST.height - len(path), 0)])
