"""Teaches the sculptor: first what decides the large things, then the network of voxels, with a look every few epochs.

Every update draws from random numbers of its own, named by the seed and the update. So a checkpoint holds no random
state, and a training that was killed goes on to the weights that it would have had, bit for bit, on the same kind of
machine.
"""

from __future__ import annotations

import copy
import math
import shutil
from dataclasses import asdict, dataclass, field
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
from vernissage.core.devices import choose_device
from vernissage.core.errors import BadInput, BadParams
from vernissage.core.parallel import in_parts, threads_for_parts
from vernissage.core.progress import Progress
from vernissage.core.seeds import derive_seed, numpy_generator, torch_generator
from vernissage.core.tables import fingerprint
from vernissage.sculptor.domain.roles import OUTSIDE
from vernissage.sculptor.learn.building import Building
from vernissage.sculptor.learn.examples import Batch, Batches, Examples, examples_of
from vernissage.sculptor.learn.first import train_first
from vernissage.sculptor.learn.looks import Look, Watcher
from vernissage.sculptor.learn.model import Sculptor, SculptorShape
from vernissage.sculptor.learn.noise import Corruption, draw_again, draw_levels, even_times, noised, weighted_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.learn.text_encoder import Tokens

_GRADIENT_NORM = 1.0
_LAST_LR = 0.02
STATES, CHECKPOINTS = "states", "checkpoints"


@dataclass(frozen=True)
class SculptorTraining:
    """Settings of one training.

    Attributes:
        shape: What the sculptor is made of.
        building: How a look builds; also kept with the weights, as the usual way to build with them.
        plan_guidance: Guidance scale of what comes first, likewise.
        epochs: How often a number of `updates` is made.
        updates: Updates of the network's weights in an epoch.
        warm_up_epochs: Epochs over which the learning rate rises from 0; it falls over the others.
        patience: Epochs without a better look after which training ends; 0 never ends it.
        checkpoint_every: Epochs between checkpoints, each with a look.
        lr: Learning rate of the network after the warm-up.
        weight_decay: Of AdamW.
        ema: Share of the running mean of the weights that an update keeps.
        voxels: Voxels of a batch, about.
        mix: Share of the voxels that each size gets.
        own_share: Share of the user's structures, where there are any beside grown ones.
        captions: Sentences on each structure.
        text_dropout: Share of structures that are taught without a caption, for guidance.
        corruption: How the forward process treats tokens.
        first_updates: Updates of what comes first.
        first_batch: Structures of such an update.
        first_lr: Learning rate of what comes first.
        precision: `bfloat16` computes in it where that is safe, `auto` only where the machine is quick at it.
        validation: Structures to validate on.
        generations: Structures to build at a look.
        seed: Root of all randomness.

    Raises:
        BadParams: A value is out of its range.
    """

    shape: SculptorShape = field(default_factory=SculptorShape)
    building: Building = field(default_factory=Building)
    plan_guidance: float = 1.5
    epochs: int = 10
    updates: int = 100
    warm_up_epochs: float = 0.5
    patience: int = 0
    checkpoint_every: int = 2
    lr: float = 2e-3
    weight_decay: float = 0.01
    ema: float = 0.998
    voxels: int = 40_000
    mix: Mapping[str, float] = field(default_factory=lambda: {"normal": 0.6, "big": 0.2, "huge": 0.2})
    own_share: float = 0.3
    captions: int = 2
    text_dropout: float = 0.1
    corruption: Corruption = field(default_factory=Corruption)
    first_updates: int = 800
    first_batch: int = 256
    first_lr: float = 2e-3
    precision: str = "auto"
    validation: int = 64
    generations: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "updates", "checkpoint_every", "voxels", "captions", "first_batch", "validation"):
            if getattr(self, name) < 1:
                raise BadParams(f"train.sculptor: {name} = {getattr(self, name)}, expected at least 1")
        for name in ("lr", "first_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadParams(f"train.sculptor: {name} = {getattr(self, name)}, expected a number above 0")

    @property
    def total(self) -> int:
        """Updates in all."""
        return self.epochs * self.updates


@dataclass(frozen=True)
class Trained:
    """What a training left.

    Attributes:
        sculptor: With the running mean of the weights that was best.
        epochs: A row per look, for a plot over epochs.
        buckets: A row per look and bucket of mask ratios.
        first: A row now and then of the training of what comes first.
        best_epoch: Which epoch the weights are from.
    """

    sculptor: Sculptor
    epochs: list[dict[str, Any]]
    buckets: list[dict[str, Any]]
    first: list[dict[str, Any]]
    best_epoch: int

    def summary(self) -> dict[str, Any]:
        """What a training alone can be compared by."""
        best = next(row for row in self.epochs if row["epoch"] == self.best_epoch)
        return {key: round(value, 6) if isinstance(value, float) else value for key, value in best.items()}


def train_sculptor(dataset: Dataset, settings: SculptorTraining, folder: Path) -> Trained:
    """Train a sculptor; go on where a training on the same data with the same settings was cut off.

    Args:
        dataset: Learned from is ``train``; ``val`` chooses the weights; ``test`` is not touched.
        settings: How to train.
        folder: Outside DVC. `states` holds what a training goes on from, `checkpoints/epoch-0004` the weights of the
            epochs with a look, `generations/epoch-0004.png` what they built. The caller takes from it what is to stay
            and removes it.

    Raises:
        BadInput: There is nothing to learn from or to validate on, or the loss is no longer a number.
    """
    torch.set_flush_denormal(True)
    return _Trainer(dataset, settings, folder).train()


class _Trainer:
    """One training; the state that a checkpoint holds is in its attributes."""

    def __init__(self, dataset: Dataset, settings: SculptorTraining, folder: Path) -> None:
        self.settings, self.folder, self.device = settings, folder, choose_device()
        shape = settings.shape
        train, held_out = dataset.part("train"), dataset.part("val")
        if not len(held_out):
            raise BadInput("sculptor: no structures to validate on; raise structures.val, or add series of your own")
        make: Callable[..., Examples] = lambda part, said: examples_of(  # noqa: E731
            part, shape.first, captions=settings.captions, seed=settings.seed, progress=said
        )
        self.examples = make(train, "measuring")
        self.watcher = Watcher(make(held_out, ""), held_out, settings, folder)
        self.identity = fingerprint(sorted(asdict(settings).items()), *_digests(dataset))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(settings.seed, "sculptor"))
            self.sculptor = Sculptor(
                shape,
                {
                    "seed": settings.seed,
                    "roles": self.examples.roles,
                    "building": asdict(settings.building),
                    "plan_guidance": settings.plan_guidance,
                },
            )
        self.sculptor.to(self.device)
        self.first_rows: list[dict[str, Any]] = []
        self.batches = Batches(
            self.examples,
            multiple=shape.network.multiple,
            voxels=settings.voxels,
            mix=settings.mix,
            own_share=settings.own_share,
            text_dropout=settings.text_dropout,
        )
        self.memory = self.batches.empty_memory()
        self.learned = [*self.sculptor.network.parameters(), *_trainable(self.sculptor.words)]
        self.optimiser = torch.optim.AdamW(
            self.learned, lr=settings.lr, betas=(0.9, 0.99), weight_decay=settings.weight_decay
        )
        self.mean = copy.deepcopy(self.sculptor)
        self.update, self.losses = 0, list[float]()
        self.looks: list[Look] = []
        self.best: dict[str, torch.Tensor] = {}
        self.bfloat = _computes_in_bfloat16(settings.precision, self.device)

    def train(self) -> Trained:
        """Train to the end and return the weights that were best."""
        settings = self.settings
        if not self._restore():
            self.first_rows = train_first(self.sculptor, self.examples, settings, self.folder, self.identity)
            self.mean.load_state_dict(self.sculptor.state_dict())
            # So that a training that is killed early need not learn again what comes first.
            self._save()
        with Progress("sculptor", total=settings.total, unit="updates") as progress, threads_for_parts():
            if self.update:
                progress.message(f"goes on after epoch {self.update // settings.updates}")
                progress.advance(self.update)
            while self.update < settings.total and not self._out_of_patience():
                loss = self._step()
                if self.update % (settings.checkpoint_every * settings.updates) == 0 or self.update == settings.total:
                    self._look(progress)
                    self._save()
                progress.advance(1, loss=loss)
        self.mean.load_state_dict(self.best)
        self.mean.facts["epoch"] = self._best_look().epoch
        return Trained(
            self.mean.to("cpu").eval().requires_grad_(requires_grad=False),
            [look.row | {"kept": look is self._best_look()} for look in self.looks],
            [row for look in self.looks for row in look.buckets],
            self.first_rows,
            self._best_look().epoch,
        )

    def _step(self) -> float:
        settings = self.settings
        generator = torch_generator(settings.seed, "noise", self.update)
        batch = self.batches.draw(numpy_generator(settings.seed, "batch", self.update), self.memory)
        roles = torch.tensor(self.examples.roles)
        t = even_times(len(batch.rows), generator)
        levels = draw_levels(len(batch.rows), settings.corruption, generator)
        seen = noised(batch.x0, t, levels, settings.corruption, generator, drawn=batch.drawn, roles=roles)
        voxels = int((batch.x0 != OUTSIDE).sum())
        uniform = torch.rand(batch.x0.shape, generator=generator)
        words = self.sculptor.words.tokenise(batch.prompts, generator)

        def part(rows: slice) -> tuple[float, list[torch.Tensor], torch.Tensor]:
            # Every thread has its own register for this.
            torch.set_flush_denormal(True)
            x0 = batch.x0[rows].to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat):
                logits = self._logits(batch, words, seen.tokens, rows)
            loss = weighted_loss(logits, x0, seen, rows) * ((x0 != OUTSIDE).sum() / voxels)
            slopes = torch.autograd.grad(loss, self.learned, allow_unused=True)
            drawn = draw_again(logits.detach(), x0, levels[rows].to(self.device), uniform[rows].to(self.device))
            return float(loss.detach()), [_or_zero(*pair) for pair in zip(slopes, self.learned, strict=True)], drawn

        rows = len(batch.rows)
        results = in_parts(part, rows, rows if self.device.type == "cuda" else -(-rows // 2))
        loss = sum(result[0] for result in results)
        if not math.isfinite(loss):
            raise BadInput(
                f"sculptor: the loss is {loss} at update {self.update}; the checkpoint before it is kept in "
                f"{self.folder}: lower lr (now {settings.lr:g})"
            )
        for parameter, *slopes in zip(self.learned, *(result[1] for result in results), strict=True):
            parameter.grad = torch.stack(slopes).sum(0) if len(slopes) > 1 else slopes[0]
        torch.nn.utils.clip_grad_norm_(self.learned, _GRADIENT_NORM)
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        self.optimiser.step()
        self.batches.remember(self.memory, batch, torch.cat([result[2] for result in results]).byte().cpu().numpy())
        self.update += 1
        self._average()
        self.losses.append(loss)
        return loss

    def _logits(self, batch: Batch, words: Tokens, tokens: torch.Tensor, rows: slice) -> torch.Tensor:
        sculptor, guides = self.sculptor, batch.guides
        text = sculptor.words(words.rows(torch.arange(len(batch.rows))[rows]))
        values = None if guides.values is None else guides.values[rows].to(self.device)
        condition = sculptor.network.condition(text, values)
        logits: torch.Tensor = sculptor.network(
            tokens[rows].to(self.device), guides.channels[rows].to(self.device), condition
        )
        return logits

    def _rate(self) -> float:
        settings = self.settings
        warm_up = settings.warm_up_epochs * settings.updates
        rising = min(1.0, (self.update + 1) / (warm_up + 1))
        done = max(0.0, self.update - warm_up) / max(1.0, settings.total - warm_up)
        return settings.lr * rising * (_LAST_LR + (1 - _LAST_LR) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    @torch.no_grad()
    def _average(self) -> None:
        # The first weights are no good: the mean forgets them quickly.
        keep = min(self.settings.ema, (1 + self.update) / (10 + self.update))
        pairs = ((self.mean.network, self.sculptor.network), (self.mean.words, self.sculptor.words))
        for mean, now in pairs:
            torch._foreach_lerp_(list(mean.parameters()), list(now.parameters()), 1 - keep)

    def _look(self, progress: Progress) -> None:
        epoch = self.update // self.settings.updates
        loss = float(np.mean(self.losses))
        look = self.watcher.look(self.mean, epoch, {"lr": self._rate(), "loss": loss})
        self.losses = []
        self.looks.append(look)
        if look is self._best_look():
            self.best = {name: tensor.detach().clone() for name, tensor in self.mean.state_dict().items()}
        self.mean.facts["epoch"] = epoch
        self.mean.save(self.folder / CHECKPOINTS / f"epoch-{epoch:04d}")
        progress.message(look.said())

    def _best_look(self) -> Look:
        return max(self.looks, key=lambda look: look.objective)

    def _out_of_patience(self) -> bool:
        if not self.settings.patience or not self.looks:
            return False
        return self.looks[-1].epoch - self._best_look().epoch >= self.settings.patience

    def _save(self) -> None:
        tensors = {
            **with_prefix("sculptor", self.sculptor.state_dict()),
            **with_prefix("mean", self.mean.state_dict()),
            **with_prefix("best", self.best),
            **with_prefix("moments", optimiser_tensors(self.optimiser)),
            "memory": torch.from_numpy(self.memory),
        }
        facts = {
            "identity": self.identity,
            "update": self.update,
            "losses": self.losses,
            "looks": [asdict(look) for look in self.looks],
            "first": self.first_rows,
        }
        epoch = self.update // self.settings.updates
        save_checkpoint(self.folder / STATES / f"epoch-{epoch:04d}", Checkpoint(tensors, facts))

    def _restore(self) -> bool:
        """Take up the last state that is whole and belongs to this training."""
        for place in sorted((self.folder / STATES).glob("epoch-*"), reverse=True):
            state = load_checkpoint(place, self.identity)
            if state is None:
                continue
            self.sculptor.load_state_dict(without_prefix("sculptor", state.tensors))
            self.mean.load_state_dict(without_prefix("mean", state.tensors))
            self.best = {name: tensor.to(self.device) for name, tensor in without_prefix("best", state.tensors).items()}
            restore_optimiser(self.optimiser, without_prefix("moments", state.tensors))
            self.memory = state.tensors["memory"].numpy().copy()
            self.update, self.losses = state.facts["update"], list(state.facts["losses"])
            self.looks = [Look(**row) for row in state.facts["looks"]]
            self.first_rows = state.facts["first"]
            return True
        shutil.rmtree(self.folder / STATES, ignore_errors=True)
        return False


def _trainable(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _or_zero(slope: torch.Tensor | None, parameter: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(parameter) if slope is None else slope


def _digests(dataset: Dataset) -> list[str]:
    return [
        fingerprint(dataset.table.to_csv(index=False)),
        fingerprint(*((grid.shape, grid.tobytes()) for grid in dataset.grids)),
    ]


def _computes_in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether convolutions are computed in bfloat16; only some processors are quick at it."""
    if precision == "auto":
        if device.type == "cpu":
            quick = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
            return bool(quick())
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bfloat16"
