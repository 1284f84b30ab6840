"""A rival of the same size: Gaussian diffusion over roles as numbers, with our network, guides, prompts and plans.

Roles are one-hot vectors in [-1, 1] (Analog Bits, Chen et al. 2022, arXiv 2208.04202), noised by the cosine schedule
alpha = cos(pi t / 2), sigma = sin(pi t / 2). The network sees the noisy vectors and the time as further channels of the
guide and says the clean ones; the loss is their mean squared error. It samples by DDIM (Song et al. 2020, arXiv
2010.02502): without fresh noise, or with as much as DDPM has (eta = 1). It is taught on the same batches for as many
updates at the same learning rate as ours, and builds from the plans that ours draws.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import asdict, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

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
from vernissage.core.errors import BadInput, CorruptArtifact
from vernissage.core.parallel import in_parts, threads_for_parts
from vernissage.core.progress import Progress
from vernissage.core.seeds import derive_seed, numpy_generator, torch_generator
from vernissage.core.tables import fingerprint
from vernissage.core.weights import load_weights, save_weights
from vernissage.sculptor.domain.roles import MASK, OUTSIDE, ROLES
from vernissage.sculptor.judge.arms import Arm, BenchRequest, Built, evenly, species_named
from vernissage.sculptor.judge.canvases import CanvasBatch, on_canvases
from vernissage.sculptor.learn.examples import Batch, Batches, examples_of
from vernissage.sculptor.learn.model import SculptorShape
from vernissage.sculptor.learn.network import VoxelNetwork
from vernissage.sculptor.learn.noise import even_times
from vernissage.sculptor.learn.text_encoder import make_text_encoder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.learn.training import SculptorTraining

_GRADIENT_NORM, _LAST_LR = 1.0, 0.02
_STATE = "continuous"


class ContinuousSculptor(nn.Module):
    """The network of voxels with noisy vectors in place of tokens; it has no planner of its own.

    Args:
        shape: Of the sculptor that it is compared with.
    """

    def __init__(self, shape: SculptorShape) -> None:
        super().__init__()
        self.shape = shape
        network = replace(shape.network, guide=shape.network.guide + ROLES + 1)
        self.network = VoxelNetwork(network)
        self.words = make_text_encoder(shape.text_model, network.text)

    def clean(self, x: Tensor, t: Tensor, inside: Tensor, guide: Tensor, condition: Tensor) -> Tensor:
        """Say the clean vectors.

        Args:
            x: (B, ROLES, Y, Z, X) noisy vectors, 0 beyond the boxes.
            t: (B,) in (0, 1].
            inside: (B, Y, Z, X) bool: the boxes.
            guide: (B, channels, Y, Z, X), what ours is told.
            condition: (B, condition).

        Returns:
            (B, ROLES, Y, Z, X).
        """
        told = t.view(-1, 1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        tokens = torch.where(inside, MASK, OUTSIDE)
        said: Tensor = self.network(tokens, torch.cat([guide, x, told], 1), condition)
        return said

    def save(self, folder: Path) -> None:
        """Write the weights as safetensors and the shape as JSON."""
        save_weights(folder, self.state_dict(), {"shape": asdict(self.shape)}, name=_STATE)

    @staticmethod
    def load(folder: Path) -> ContinuousSculptor:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: There is none.
            CorruptArtifact: It is damaged.
        """
        tensors, spec = load_weights(folder, name=_STATE)
        try:
            rival = ContinuousSculptor(SculptorShape.of(spec["shape"]))
            rival.load_state_dict(tensors)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise CorruptArtifact(f"{folder}: not the weights of this rival ({reason}); train it again") from error
        return rival.eval().requires_grad_(requires_grad=False)


# --- learning ---------------------------------------------------------------------------------------------------------


def train_continuous(dataset: Dataset, settings: SculptorTraining, folder: Path) -> ContinuousSculptor:
    """Train the rival as ours was trained; go on where a training with the same data and settings was cut off.

    Args:
        dataset: Learned from is ``train``.
        settings: Of our training; those about masks have no meaning here, and the mean weights of the end are taken.
        folder: For a checkpoint.

    Raises:
        BadInput: There is nothing to learn from, a coarse grid comes first, or the loss is no longer a number.
    """
    if settings.shape.first == "coarse":
        raise BadInput("continuous: a coarse grid comes first; expected a plan or nothing, the rival draws none")
    torch.set_flush_denormal(True)
    return _Trainer(dataset, settings, folder).train()


class _Trainer:
    """One training of the rival."""

    def __init__(self, dataset: Dataset, settings: SculptorTraining, folder: Path) -> None:
        self.settings, self.device, self.place = settings, choose_device(), folder / _STATE
        shape, training = settings.shape, dataset.part("train")
        examples = examples_of(training, shape.first, captions=settings.captions, seed=settings.seed)
        self.batches = Batches(
            examples,
            multiple=shape.network.multiple,
            voxels=settings.voxels,
            mix=settings.mix,
            own_share=settings.own_share,
            text_dropout=settings.text_dropout,
        )
        self.memory = self.batches.empty_memory()
        bytes_of = (grid.tobytes() for grid in training.grids)
        self.identity = fingerprint(_STATE, sorted(asdict(settings).items()), fingerprint(*bytes_of))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(settings.seed, _STATE))
            self.rival = ContinuousSculptor(shape).to(self.device)
        self.mean = copy.deepcopy(self.rival)
        self.learned = [p for p in self.rival.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.learned, lr=settings.lr, betas=(0.9, 0.99), weight_decay=settings.weight_decay
        )
        self.update = 0

    def train(self) -> ContinuousSculptor:
        """Train to the end."""
        settings = self.settings
        self._restore()
        every = settings.checkpoint_every * settings.updates
        with Progress("continuous", total=settings.total, unit="updates") as progress, threads_for_parts():
            progress.advance(self.update)
            while self.update < settings.total:
                loss = self._step()
                if self.update % every == 0:
                    self._save()
                progress.advance(1, loss=loss)
        return self.mean.to("cpu").eval().requires_grad_(requires_grad=False)

    def _step(self) -> float:
        settings = self.settings
        generator = torch_generator(settings.seed, "gaussian", self.update)
        batch = self.batches.draw(numpy_generator(settings.seed, "batch", self.update), self.memory)
        t = even_times(len(batch.rows), generator)
        noise = torch.randn((len(batch.rows), ROLES, *batch.x0.shape[1:]), generator=generator)
        voxels = int((batch.x0 != OUTSIDE).sum())

        def part(rows: slice) -> tuple[float, list[Tensor]]:
            # Every thread has its own register for this.
            torch.set_flush_denormal(True)
            loss = self._loss(batch, t, noise, rows, voxels)
            slopes = torch.autograd.grad(loss, self.learned, allow_unused=True)
            pairs = zip(slopes, self.learned, strict=True)
            return float(loss.detach()), [torch.zeros_like(p) if slope is None else slope for slope, p in pairs]

        rows = len(batch.rows)
        results = in_parts(part, rows, rows if self.device.type == "cuda" else -(-rows // 2))
        loss = sum(result[0] for result in results)
        if not math.isfinite(loss):
            raise BadInput(f"continuous: the loss is {loss} at update {self.update}; lower lr (now {settings.lr:g})")
        for parameter, *slopes in zip(self.learned, *(result[1] for result in results), strict=True):
            parameter.grad = torch.stack(slopes).sum(0)
        torch.nn.utils.clip_grad_norm_(self.learned, _GRADIENT_NORM)
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        self.optimiser.step()
        self.update += 1
        keep = min(settings.ema, self.update / (9 + self.update))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.parameters()), list(self.rival.parameters()), 1 - keep)
        return loss

    def _loss(self, batch: Batch, t: Tensor, noise: Tensor, rows: slice, voxels: int) -> Tensor:
        rival, guides = self.rival, batch.guides
        x0, at = batch.x0[rows].to(self.device), t[rows].to(self.device)
        inside = x0 != OUTSIDE
        clean = as_vectors(x0) * inside[:, None]
        alpha, sigma = (of.view(-1, 1, 1, 1, 1) for of in cosine(at))
        x = (alpha * clean + sigma * noise[rows].to(self.device)) * inside[:, None]
        values = None if guides.values is None else guides.values[rows].to(self.device)
        condition = rival.network.condition(rival.words(batch.prompts[rows]), values)
        said = rival.clean(x, at, inside, guides.channels[rows].to(self.device), condition)
        return ((said - clean).square() * inside[:, None]).sum() / (voxels * ROLES)

    def _rate(self) -> float:
        settings = self.settings
        warm_up = settings.warm_up_epochs * settings.updates
        rising = min(1.0, (self.update + 1) / (warm_up + 1))
        done = max(0.0, self.update - warm_up) / max(1.0, settings.total - warm_up)
        return settings.lr * rising * (_LAST_LR + (1 - _LAST_LR) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    def _save(self) -> None:
        tensors = with_prefix("rival", self.rival.state_dict()) | with_prefix("mean", self.mean.state_dict())
        tensors |= with_prefix("moments", optimiser_tensors(self.optimiser))
        facts: dict[str, Any] = {"identity": self.identity, "update": self.update}
        save_checkpoint(self.place, Checkpoint(tensors, facts))

    def _restore(self) -> None:
        state = load_checkpoint(self.place, self.identity)
        if state is None:
            return
        self.rival.load_state_dict(without_prefix("rival", state.tensors))
        self.mean.load_state_dict(without_prefix("mean", state.tensors))
        restore_optimiser(self.optimiser, without_prefix("moments", state.tensors))
        self.update = state.facts["update"]


def as_vectors(roles: Tensor) -> Tensor:
    """(B, Y, Z, X) int64 roles -> (B, ROLES, Y, Z, X) float in {-1, 1}; what is no role counts as air."""
    known = torch.where(roles < ROLES, roles, 0)
    return 2 * F.one_hot(known, ROLES).permute(0, 4, 1, 2, 3).float() - 1


def cosine(t: Tensor) -> tuple[Tensor, Tensor]:
    """Return alpha and sigma of a time in [0, 1]; their squares add to 1 (Nichol & Dhariwal 2021, arXiv 2102.09672)."""
    return torch.cos(math.pi / 2 * t), torch.sin(math.pi / 2 * t)


# --- building ---------------------------------------------------------------------------------------------------------


def continuous_arm(rival: ContinuousSculptor, *, steps: int = 50, eta: float = 1.0) -> Arm:
    """The rival as an arm.

    Args:
        rival: Trained.
        steps: Looks of the network.
        eta: Share of DDPM's fresh noise in every step; 0 is DDIM.
    """

    def build(requests: Sequence[BenchRequest]) -> Built:
        began = time.perf_counter()
        grids = draw_continuous(rival, requests, steps, eta)
        seconds = time.perf_counter() - began
        plans = tuple(request.plan for request in requests)
        species = tuple(species_named(plan, request) for plan, request in zip(plans, requests, strict=True))
        return Built(tuple(grids), species, evenly(seconds, len(grids)), (steps,) * len(grids), plans)

    return Arm(f"gaussian {'DDPM' if eta else 'DDIM'} {steps}", build, steps, learned=True)


def draw_continuous(
    rival: ContinuousSculptor, requests: Sequence[BenchRequest], steps: int, eta: float
) -> list[np.ndarray]:
    """Sample structures; every request has its own noise.

    Returns:
        A (Y, Z, X) uint8 role grid of each request's box.

    Raises:
        BadInput: A request has no plan though plans come first.
    """
    times = torch.from_numpy(np.linspace(1, 0, steps + 1)).float()

    def fill(batch: CanvasBatch) -> Tensor:
        inside = batch.guides.inside
        device, shape = inside.device, (ROLES, *inside.shape[1:])
        generators = [torch_generator(request.seed, "gaussian") for request in batch.requests]

        def noise() -> Tensor:
            drawn = [torch.randn(shape, generator=generator) for generator in generators]
            return torch.stack(drawn).to(device) * inside[:, None]

        x, clean = noise(), torch.zeros(len(inside), *shape, device=device)
        for now, then in pairwise(times):
            said = rival.clean(x, now.to(device).expand(len(x)), inside, batch.guides.channels, batch.condition)
            clean = said.clamp(-1, 1) * inside[:, None]
            (alpha, sigma), (alpha_then, sigma_then) = (
                (float(part) for part in cosine(moment)) for moment in (now, then)
            )
            fresh = eta * sigma_then / sigma * math.sqrt(max(0.0, 1 - (alpha / alpha_then) ** 2))
            kept = math.sqrt(max(0.0, sigma_then**2 - fresh**2))
            x = alpha_then * clean + kept * (x - alpha * clean) / sigma
            if fresh > 0:
                x = x + fresh * noise()
        return clean.argmax(1)

    return on_canvases(rival.network, rival.words, rival.shape.first, requests, fill)
