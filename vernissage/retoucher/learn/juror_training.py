"""Trains and judges the ``rank`` juror: ordered pairs first, an anchored scale second (after RankIQA, Liu et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import nn

from vernissage.core.progress import Progress
from vernissage.core.seeds import derive_seed, numpy_generator
from vernissage.retoucher.learn.juror import RankJuror, RankNet, picture_statistics
from vernissage.retoucher.learn.ladders import AXES, RUNGS, Ladders, make_ladders
from vernissage.retoucher.learn.scenes import vary_scenes

#: Rungs whose targets differ by less are not called ordered.
_TIE = 0.15


@dataclass(frozen=True)
class JurorTraining:
    """Settings of one juror training; the meanings stand in the typed parameters."""

    members: int
    ladders: int
    epochs: int
    batch: int
    lr: float
    scene_variation: float
    taken_at: int
    seed: int


def train_juror(photos: torch.Tensor, settings: JurorTraining) -> tuple[RankJuror, list[dict[str, float]]]:
    """Train the ensemble on ladders made from train photos.

    Args:
        photos: (M, 3, V, V) float in [0, 1], thumbnails of the train split.
        settings: How to train.

    Returns:
        The juror and one row of losses per member and epoch.
    """
    ladders = draw_ladders(photos, settings.ladders, settings, "train")
    curves: list[dict[str, float]] = []
    members = []
    statistics = ladder_statistics(ladders)
    steps = settings.members * settings.epochs * -(-len(ladders.pictures) // settings.batch)
    with Progress("juror", total=steps, unit="batches") as progress:
        for member in range(settings.members):
            members.append(_train_member(ladders, statistics, settings, member, curves, progress))
    return RankJuror(members, photos.shape[-1]), curves


def draw_ladders(photos: torch.Tensor, count: int, settings: JurorTraining, purpose: str) -> Ladders:
    """Draw ladders over all axes from photos, scenes varied for training only.

    Args:
        photos: (M, 3, V, V) float in [0, 1].
        count: Number of ladders; rounded up to a full round of the axes.
        settings: Seed, scene variation and size.
        purpose: Key of the randomness.

    Returns:
        The ladders.
    """
    rng = numpy_generator(settings.seed, "ladders", purpose)
    count = -(-count // len(AXES)) * len(AXES)
    chosen = photos[torch.from_numpy(rng.integers(len(photos), size=count))]
    if purpose == "train":
        chosen = torch.cat([vary_scenes(part, settings.scene_variation, rng) for part in chosen.split(256)])
    return make_ladders(chosen, np.arange(count) % len(AXES), rng, taken_at=settings.taken_at)


def ladder_loss(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logistic loss over all ordered pairs of a ladder, and the squared error to the anchored scale.

    Args:
        logits: (L, RUNGS) raw outputs.
        targets: (L, RUNGS) scores in [0, 10].

    Returns:
        Both losses as scalars.
    """
    gap = targets.unsqueeze(2) - targets.unsqueeze(1)
    ordered = (gap > _TIE).to(logits.dtype)
    margin = logits.unsqueeze(2) - logits.unsqueeze(1)
    ranking = (F.softplus(-4 * margin) * ordered).sum() / ordered.sum().clamp_min(1)
    scale = F.mse_loss(10 * torch.sigmoid(logits), targets)
    return ranking, scale


def ladder_statistics(ladders: Ladders) -> torch.Tensor:
    """Picture statistics of every rung, computed once: mirroring a picture does not change them.

    Args:
        ladders: L ladders.

    Returns:
        (L, RUNGS, PICTURE_STATISTICS).
    """
    rows = [picture_statistics(part.float() / 255) for part in ladders.pictures.flatten(0, 1).split(256)]
    return torch.cat(rows).view(len(ladders.pictures), RUNGS, -1)


def _train_member(
    ladders: Ladders,
    statistics: torch.Tensor,
    settings: JurorTraining,
    member: int,
    curves: list[dict[str, float]],
    progress: Progress,
) -> nn.Module:
    torch.manual_seed(derive_seed(settings.seed, "juror", member) % 2**63)
    rng = numpy_generator(settings.seed, "juror-order", member)
    network = RankNet().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=1e-3)
    batches = -(-len(ladders.pictures) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.lr, total_steps=settings.epochs * batches)
    for epoch in range(settings.epochs):
        sums = np.zeros(2)
        for rows in np.array_split(rng.permutation(len(ladders.pictures)), batches):
            pictures = ladders.pictures[rows].flatten(0, 1)
            if rng.random() < 0.5:
                pictures = pictures.flip(-1)
            views = (pictures.float() / 255).contiguous(memory_format=torch.channels_last)
            logits = network(views, statistics[rows].flatten(0, 1)).view(-1, RUNGS)
            ranking, scale = ladder_loss(logits, ladders.targets[rows])
            optimiser.zero_grad()
            (ranking + 0.3 * scale).backward()
            optimiser.step()
            schedule.step()
            losses = (ranking.item(), scale.item())
            sums += losses
            progress.advance(1, member=member, epoch=epoch, ranking=losses[0], scale=losses[1])
        curves.append(
            {
                "member": member,
                "epoch": epoch,
                "ranking_loss": float(sums[0] / batches),
                "scale_loss": float(sums[1] / batches),
            }
        )
    return network


def evaluate_juror(juror: RankJuror, photos: torch.Tensor, settings: JurorTraining, count: int) -> dict[str, Any]:
    """Judge the juror on photos that it has never seen.

    Args:
        juror: The trained juror.
        photos: (M, 3, V, V) float in [0, 1], held out.
        settings: Seed and size for drawing ladders.
        count: Number of ladders.

    Returns:
        ``pairs_right`` (share of ordered pairs ranked right), ``rank_correlation`` (Spearman, score against minus
        CIEDE2000), ``original_score``, ``spread``, and the same two numbers ``per_fault``.
    """
    ladders = draw_ladders(photos, count, settings, "evaluate")
    flat = ladders.pictures.flatten(0, 1).float() / 255
    members = torch.cat([juror.member_scores(part) for part in flat.split(256)], dim=1)
    scores = members.mean(dim=0).view(-1, RUNGS)
    per_fault: dict[str, Any] = {}
    for index, axis in enumerate(AXES):
        rows = ladders.axis == index
        per_fault[axis.name] = {
            "pairs_right": _pairs_right(scores[rows], ladders.targets[rows]),
            "rank_correlation": _rank_correlation(scores[rows], ladders.difference[rows]),
            "over_edit": axis.over_edit,
        }
    return {
        "photos": len(photos),
        "ladders": len(ladders.pictures),
        "pairs_right": _pairs_right(scores, ladders.targets),
        "rank_correlation": _rank_correlation(scores, ladders.difference),
        "original_score": round(float(scores[:, 0].mean()), 4),
        "spread": round(float(members.std(dim=0, correction=0).mean()), 4),
        "per_fault": per_fault,
    }


def _pairs_right(scores: torch.Tensor, targets: torch.Tensor) -> float | None:
    ordered = targets.unsqueeze(2) - targets.unsqueeze(1) > _TIE
    if not bool(ordered.any()):
        return None
    right = scores.unsqueeze(2) > scores.unsqueeze(1)
    return round(float(right[ordered].float().mean()), 4)


def _rank_correlation(scores: torch.Tensor, difference: torch.Tensor) -> float | None:
    if difference.numel() < 3 or float(difference.std()) == 0 or float(scores.std()) == 0:
        return None
    return round(float(spearmanr(scores.flatten().numpy(), -difference.flatten().numpy()).statistic), 4)


def member_names(members: Sequence[nn.Module]) -> list[str]:
    """File names of the members, without suffix."""
    return [f"member-{index}" for index in range(len(members))]
