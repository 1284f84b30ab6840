"""Trains and judges the ``rank`` juror: ordered pairs first, an anchored scale second (RankIQA, Liu et al. 2017)."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import nn

from vernissage.core.devices import thread_count
from vernissage.core.files import atomic_write_json, fresh_folder
from vernissage.core.progress import Progress
from vernissage.core.seeds import derive_seed, numpy_generator
from vernissage.core.weights import save_weights
from vernissage.retoucher.learn.dataset import photos_of_split, write_csv
from vernissage.retoucher.learn.imagined import imagine_scenes
from vernissage.retoucher.learn.juror import ORIGINAL_SCORE, RankJuror, RankNet, picture_statistics
from vernissage.retoucher.learn.ladders import AXES, RUNGS, Ladders, make_ladders
from vernissage.retoucher.learn.scenes import vary_scenes

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.core.params import Params

log = logging.getLogger(__name__)

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
    statistics = ladder_statistics(ladders)
    batches = -(-len(ladders.pictures) // settings.batch)
    networks = []
    for member in range(settings.members):
        torch.manual_seed(derive_seed(settings.seed, "juror", member) % 2**63)
        networks.append(RankNet())
    threads = torch.get_num_threads()
    with Progress("juror", total=settings.members * settings.epochs * batches, unit="batches") as progress:

        def train(member: int) -> list[dict[str, float]]:
            torch.set_num_threads(1)
            return _train_member(networks[member], ladders, statistics, settings, member, progress)

        # The networks are too small to keep two cores busy, so members train side by side on one thread each.
        with ThreadPoolExecutor(max_workers=min(settings.members, thread_count())) as pool:
            curves = [row for rows in pool.map(train, range(settings.members)) for row in rows]
    torch.set_num_threads(threads)
    return RankJuror(networks, photos.shape[-1]), curves


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
        parts = [vary_scenes(part, settings.scene_variation, rng, full_range_share=0.25) for part in chosen.split(256)]
        chosen = torch.cat([images for images, _ in parts])
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
    network: nn.Module,
    ladders: Ladders,
    statistics: torch.Tensor,
    settings: JurorTraining,
    member: int,
    progress: Progress,
) -> list[dict[str, float]]:
    rng = numpy_generator(settings.seed, "juror-order", member)
    curves: list[dict[str, float]] = []
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
    return curves


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
    # Among equal numbers there is no order to agree on; their standard deviation may still be float dust.
    if len(difference.unique()) < 2 or len(scores.unique()) < 2:
        return None
    return round(float(spearmanr(scores.flatten().numpy(), -difference.flatten().numpy()).statistic), 4)


def calibrate(juror: RankJuror, photos: torch.Tensor, settings: JurorTraining, count: int) -> RankJuror:
    """Anchor the scale on photos that no member has learned from: their untouched originals score 8 on average.

    Each member's logits get a slope (least squares against the targets, never below a tenth) and an offset. Order is
    kept, so ranking does not change; only the meaning of the numbers does.

    Args:
        juror: The trained ensemble.
        photos: (M, 3, V, V) float in [0, 1], the validation split.
        settings: Seed and size for drawing ladders.
        count: Number of ladders.

    Returns:
        The same members with their calibration.
    """
    ladders = draw_ladders(photos, count, settings, "calibrate")
    targets = torch.logit(ladders.targets / 10).flatten().double()
    views = ladders.pictures.flatten(0, 1).float() / 255
    calibration = []
    for member in range(len(juror.members)):
        logits = torch.cat([juror.member_logits(part)[member] for part in views.split(256)]).double()
        centred = logits - logits.mean()
        slope = float((centred * targets).sum() / (centred**2).sum().clamp_min(1e-9))
        slope = min(max(slope, 0.1), 10.0)
        calibration.append((slope, _offset_of_originals(slope * logits.view(-1, RUNGS)[:, 0])))
    return RankJuror(juror.members, juror.size, calibration)


def _offset_of_originals(logits: torch.Tensor) -> float:
    """Offset at which the mean score of these logits is that of an original; the mean grows with it, so bisect."""
    low, high = -20.0, 20.0
    for _step in range(60):
        middle = (low + high) / 2
        if float((10 * torch.sigmoid(logits + middle)).mean()) < ORIGINAL_SCORE:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def make_juror(annotations: Path, resized: Path, out: Path, params: Params) -> dict[str, Any]:
    """Train, anchor, judge and save the juror.

    Args:
        annotations: COCO file with the splits.
        resized: Folder that its file names are relative to.
        out: Folder for the members, ``juror.json``, ``evaluation.json`` and ``curves.csv``.
        params: All parameters.

    Returns:
        The evaluation on the test split.
    """
    section = params.juror
    settings = JurorTraining(
        members=section.members,
        ladders=section.ladders,
        epochs=section.epochs,
        batch=section.batch,
        lr=params.lr * section.lr_scale,
        scene_variation=section.scene_variation,
        taken_at=params.resize.long_edge,
        seed=params.seed,
    )
    train, val, test = (
        photos_of_split(annotations, resized, split, section.size) for split in ("train", "val", "test")
    )
    judged = max(len(AXES), min(20 * len(AXES), settings.ladders))
    imagined = imagine_scenes(section.imagined_scenes, section.size, numpy_generator(params.seed, "imagined"))
    juror, curves = train_juror(torch.cat((train, imagined)), settings)
    juror = calibrate(juror, val, settings, judged)
    evaluation = evaluate_juror(juror, test, settings, judged)
    with fresh_folder(out) as folder:
        names = [f"member-{index}" for index in range(len(juror.members))]
        for name, member in zip(names, juror.members, strict=True):
            tensors = {key: tensor.contiguous() for key, tensor in member.state_dict().items()}
            save_weights(folder, tensors, {"network": "RankNet"}, name=name)
        spec = {"members": names, "size": juror.size, "calibration": [list(row) for row in juror.calibration]}
        atomic_write_json(folder / "juror.json", spec)
        atomic_write_json(folder / "evaluation.json", evaluation)
        write_csv(folder / "curves.csv", curves)
    log.info(
        "held out: %.0f %% of ordered pairs ranked right, rank correlation with colour difference %.2f, spread %.2f",
        100 * (evaluation["pairs_right"] or 0),
        evaluation["rank_correlation"] or 0,
        evaluation["spread"],
    )
    return evaluation
