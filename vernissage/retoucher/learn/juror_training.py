"""Trains, hardens, anchors and judges the ``rank`` juror (RankIQA, Liu et al. 2017; then adversarial rounds)."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import spearmanr

from vernissage.core.files import atomic_write_json, fresh_folder
from vernissage.core.progress import Progress
from vernissage.core.seeds import derive_seed, numpy_generator
from vernissage.core.tables import write_csv
from vernissage.retoucher.domain.faults import apply_faults, draw_faults
from vernissage.retoucher.domain.quality import delta_e
from vernissage.retoucher.learn.actions import ActionTable
from vernissage.retoucher.learn.dataset import photos_of_split
from vernissage.retoucher.learn.hacking import climb, hack_gap, hacked_share, wander
from vernissage.retoucher.learn.imagined import imagine_scenes
from vernissage.retoucher.learn.juror import ORIGINAL_SCORE, RankJuror, RankNet, cautious
from vernissage.retoucher.learn.juror_fitting import TIE, Lessons, Pace, fit_members, updates
from vernissage.retoucher.learn.ladders import (
    AXES,
    RUNGS,
    Contests,
    Ladders,
    make_contests,
    make_ladders,
    random_recipes,
    rated_versions,
    render_in_parts,
)
from vernissage.retoucher.learn.scenes import vary_scenes
from vernissage.retoucher.learn.search import search_edits

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.core.params import Params

log = logging.getLogger(__name__)

#: What the discrete adversary and the search may do; the juror is trained before anyone says how an agent will step.
_EDITS = ActionTable((0.1, 0.35))
#: Photos that are attacked in one round, as a share of the contests.
_ATTACKED_SHARE = 0.12
_CLIMB_STEPS, _WANDER_STEPS, _WANDER_TRIES = 10, 3, 8
#: Peak rate of a round as a share of that of the training.
_ROUND_PACE = 0.3
#: Test photos on which hacks are looked for, climbing steps and edits of the search there.
_JUDGED_PHOTOS, _JUDGED_STEPS, _JUDGED_EDITS = 24, 25, 4
_CLEAN_SHARE = 0.35


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
    adversarial_rounds: int = 0
    spread_penalty: float = 0.0


def draw_lessons(photos: torch.Tensor, settings: JurorTraining) -> Lessons:
    """Draw what the juror is trained on: varied scenes in several versions each.

    Args:
        photos: (M, 3, V, V) float in [0, 1], thumbnails of the train split.
        settings: How many, and how varied.

    Returns:
        The lessons.
    """
    rng = numpy_generator(settings.seed, "ladders", "train")
    left, lessons = settings.ladders, []
    with Progress("juror contests", total=left, unit="contests") as progress:
        while left:
            count = min(256, left)
            scenes = _draw_scenes(photos, count, settings, rng)
            lessons.append(Lessons.of(make_contests(scenes, rng, taken_at=settings.taken_at)))
            left -= count
            progress.advance(count)
    pictures, targets = (
        torch.cat([getattr(part.contests, name) for part in lessons]) for name in ("pictures", "targets")
    )
    return Lessons(Contests(pictures, targets), torch.cat([part.features for part in lessons]))


def _draw_scenes(photos: torch.Tensor, count: int, settings: JurorTraining, rng: np.random.Generator) -> torch.Tensor:
    chosen = photos[torch.from_numpy(rng.integers(len(photos), size=count))]
    parts = [vary_scenes(part, settings.scene_variation, rng, full_range_share=0.25) for part in chosen.split(256)]
    return torch.round(torch.cat([images for images, _ in parts]) * 255) / 255


def train_juror(lessons: Lessons, settings: JurorTraining) -> tuple[RankJuror, list[dict[str, float]]]:
    """Train the ensemble.

    Args:
        lessons: Made from train photos.
        settings: How to train.

    Returns:
        The juror, neither hardened nor anchored, and one row of losses per member and epoch.
    """
    networks = []
    for member in range(settings.members):
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(settings.seed, "juror", member) % 2**63)
            networks.append(RankNet())
    pace = Pace(settings.epochs, settings.batch, settings.lr, warm_up=0.3)
    seeds = [derive_seed(settings.seed, "juror-order", member) for member in range(settings.members)]
    with Progress("juror", total=settings.members * updates(lessons, pace), unit="batches") as progress:
        losses = fit_members(networks, lessons, pace, seeds, progress)
    side = lessons.contests.pictures.shape[-1]
    juror = RankJuror(networks, side, spread_penalty=settings.spread_penalty)
    return juror, _curves(losses, first_epoch=0, adversarial_round=0, gap=float("nan"))


def harden(
    juror: RankJuror, photos: torch.Tensor, anchors: torch.Tensor, lessons: Lessons, settings: JurorTraining
) -> tuple[RankJuror, list[dict[str, float]]]:
    """Let adversaries push the juror's score up, and teach it what their finds are really worth; several rounds.

    Each round attacks fresh scenes, some faulty and some as they are, and goes once more through all lessons with the
    finds of this and the rounds before alongside: what is learned from the finds alone is paid for elsewhere.

    Args:
        juror: A trained juror; stays as it is.
        photos: (M, 3, V, V) float in [0, 1], thumbnails of the train split.
        anchors: (M, 3, V, V) photos of the validation split that the scale is anchored on before each attack.
        lessons: What it was trained on.
        settings: How many rounds, and how to train.

    Returns:
        The hardened juror, anchored, and one row per member and round; ``hack_gap`` there is that of the climbing
        adversary before the round, on the photos that were attacked.
    """
    hardened = calibrate(_copied(juror), anchors, settings, _judged_ladders(settings))
    finds: Lessons | None = None
    curves: list[dict[str, float]] = []
    pace = Pace(1, settings.batch, settings.lr * _ROUND_PACE, warm_up=0.1)
    total = settings.adversarial_rounds * settings.members * updates(lessons, pace)
    with Progress("juror rounds", total=total, unit="batches") as progress:
        for number in range(1, settings.adversarial_rounds + 1):
            rng = numpy_generator(settings.seed, "juror-attack", number)
            found, gap = attack(hardened, photos, settings, rng)
            fresh = Lessons.of(found)
            finds = fresh if finds is None else finds.joined(fresh)
            progress.advance(0, round=number, hack_gap=gap)
            keys = [derive_seed(settings.seed, "juror-round", number, member) for member in range(settings.members)]
            losses = fit_members(hardened.members, lessons, pace, keys, progress, extra=finds)
            hardened = calibrate(hardened, anchors, settings, _judged_ladders(settings))
            curves += _curves(losses, first_epoch=settings.epochs + number - 1, adversarial_round=number, gap=gap)
    return hardened, curves


def attack(
    juror: RankJuror, photos: torch.Tensor, settings: JurorTraining, rng: np.random.Generator
) -> tuple[Contests, float]:
    """Look for pictures that the juror likes too much, and rate them by what they are.

    Args:
        juror: Whom to fool.
        photos: (M, 3, V, V) float in [0, 1], thumbnails of the train split.
        settings: How many scenes, how varied.
        rng: Source of randomness.

    Returns:
        Contests of scene, start, where the climb ended, a point on the way there, and what discrete edits found; and
        the hack gap of the climb. Deserved gains stay in: a juror that saw hacks only would distrust every edit.
    """
    count = max(1, round(_ATTACKED_SHARE * settings.ladders))
    scenes = _draw_scenes(photos, count, settings, rng)
    faults = [() if rng.random() < _CLEAN_SHARE else draw_faults(rng, 1, 5) for _ in range(count)]
    starts = apply_faults(scenes, faults, [rng] * count, taken_at=settings.taken_at)
    # Half of the climbs begin elsewhere: one summit per photo would leave the others standing.
    elsewhere = torch.from_numpy(rng.random((count, 1)) < 0.5)
    climbed = climb(juror, starts, random_recipes(count, rng, 0.3) * elsewhere, steps=_CLIMB_STEPS)
    on_the_way = climbed * torch.from_numpy(rng.uniform(0.3, 0.8, (count, 1)).astype(np.float32))
    wandered = wander(juror, _EDITS, starts, rng, steps=_WANDER_STEPS, tries=_WANDER_TRIES)
    found = [render_in_parts(starts, edits) for edits in (climbed, on_the_way, wandered)]
    contests = rated_versions(scenes, [scenes, starts, *found])
    gain = _cautious_scores(juror, found[0]) - _cautious_scores(juror, starts)
    # The targets fall with the distance, so they order start and find as the distance does.
    return contests, hack_gap(gain, -contests.targets[:, 1], -contests.targets[:, 2])


def _cautious_scores(juror: RankJuror, pictures: torch.Tensor) -> torch.Tensor:
    return torch.cat([juror.cautious_score(part) for part in pictures.split(256)])


def _copied(juror: RankJuror) -> RankJuror:
    members = [copy.deepcopy(member) for member in juror.members]
    return RankJuror(members, juror.size, juror.calibration, juror.spread_penalty)


def _curves(
    losses: list[list[tuple[float, float]]], *, first_epoch: int, adversarial_round: int, gap: float
) -> list[dict[str, float]]:
    return [
        {
            "member": member,
            "epoch": first_epoch + epoch,
            "round": adversarial_round,
            "ranking_loss": ranking,
            "scale_loss": scale,
            "hack_gap": gap,
        }
        for member, rows in enumerate(losses)
        for epoch, (ranking, scale) in enumerate(rows)
    ]


def draw_ladders(photos: torch.Tensor, count: int, settings: JurorTraining, purpose: str) -> Ladders:
    """Draw ladders over all axes from photos as they are, to judge or to anchor a juror by.

    Args:
        photos: (M, 3, V, V) float in [0, 1].
        count: Number of ladders; rounded up to a full round of the axes.
        settings: Seed and size.
        purpose: Key of the randomness.

    Returns:
        The ladders.
    """
    rng = numpy_generator(settings.seed, "ladders", purpose)
    count = -(-count // len(AXES)) * len(AXES)
    chosen = photos[torch.from_numpy(rng.integers(len(photos), size=count))]
    return make_ladders(chosen, np.arange(count) % len(AXES), rng, taken_at=settings.taken_at)


def _judged_ladders(settings: JurorTraining) -> int:
    return max(len(AXES), min(20 * len(AXES), settings.ladders))


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
    ordered = targets.unsqueeze(2) - targets.unsqueeze(1) > TIE
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
    return RankJuror(juror.members, juror.size, calibration, juror.spread_penalty)


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


def judge_hacks(juror: RankJuror, photos: torch.Tensor, settings: JurorTraining) -> dict[str, dict[str, float]]:
    """Let both adversaries loose on photos that the juror has never seen.

    Args:
        juror: The trained juror.
        photos: (M, 3, V, V) float in [0, 1], held out; every second one is damaged, the others are left as they are.
        settings: Seed and size.

    Returns:
        For ``climb`` (gradient through the renderer) and ``greedy`` (search by discrete edits) the ``hack_gap``, the
        share of photos that score higher and look worse (``hacked``), the mean ``gain`` of the cautious score, and the
        mean CIEDE2000 to the original before and after.
    """
    rng = numpy_generator(settings.seed, "judge-hacks")
    originals = photos[torch.from_numpy(rng.permutation(len(photos))[:_JUDGED_PHOTOS])]
    faults = [draw_faults(rng, 1, 5) if row % 2 == 0 else () for row in range(len(originals))]
    starts = apply_faults(originals, faults, [rng] * len(originals), taken_at=settings.taken_at)
    found = {
        "climb": climb(juror, starts, torch.zeros(len(starts), _EDITS.deltas.shape[1]), steps=_JUDGED_STEPS),
        "greedy": search_edits(_EDITS, cautious(juror), starts, horizon=_JUDGED_EDITS).settings,
    }
    before, score = delta_e(starts, originals), _cautious_scores(juror, starts)
    rows = {}
    for name, edits in found.items():
        pictures = render_in_parts(starts, edits)
        after, gain = delta_e(pictures, originals), _cautious_scores(juror, pictures) - score
        rows[name] = {
            "hack_gap": round(hack_gap(gain, before, after), 4),
            "hacked": round(hacked_share(gain, before, after), 4),
            "gain": round(float(gain.mean()), 4),
            "delta_e_before": round(float(before.mean()), 4),
            "delta_e_after": round(float(after.mean()), 4),
        }
    return rows


def make_juror(annotations: Path, resized: Path, out: Path, params: Params) -> dict[str, Any]:
    """Train, harden, anchor, judge and save the juror.

    Args:
        annotations: COCO file with the splits.
        resized: Folder that its file names are relative to.
        out: Folder for the members, ``juror.json``, ``evaluation.json`` and ``curves.csv``.
        params: All parameters.

    Returns:
        The evaluation on the test split; ``hacks`` there holds what adversaries find after the adversarial rounds,
        ``hacks_before`` what they found without them.
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
        adversarial_rounds=section.adversarial_rounds,
        spread_penalty=section.spread_penalty,
    )
    train, val, test = (
        photos_of_split(annotations, resized, split, section.size) for split in ("train", "val", "test")
    )
    imagined = imagine_scenes(section.imagined_scenes, section.size, numpy_generator(params.seed, "imagined"))
    photos = torch.cat((train, imagined))
    lessons = draw_lessons(photos, settings)
    trusting, curves = train_juror(lessons, settings)
    trusting = calibrate(trusting, val, settings, _judged_ladders(settings))
    juror, rounds = harden(trusting, photos, val, lessons, settings)
    evaluation = evaluate_juror(juror, test, settings, _judged_ladders(settings))
    evaluation["hacks_before"] = judge_hacks(trusting, test, settings)
    evaluation["hacks"] = judge_hacks(juror, test, settings)
    with fresh_folder(out) as folder:
        juror.save(folder)
        atomic_write_json(folder / "evaluation.json", evaluation)
        write_csv(folder / "curves.csv", [*curves, *rounds])
    log.info(
        "held out: %.0f %% of ordered pairs ranked right, rank correlation with colour difference %.2f, spread %.2f",
        100 * (evaluation["pairs_right"] or 0),
        evaluation["rank_correlation"] or 0,
        evaluation["spread"],
    )
    log.info(
        "points for nothing: climbing %.2f, before the rounds %.2f; greedy search %.2f, before %.2f",
        *(evaluation[key][name]["hack_gap"] for name in ("climb", "greedy") for key in ("hacks", "hacks_before")),
    )
    return evaluation
