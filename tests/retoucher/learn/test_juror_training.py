"""The juror's training: learned in seconds, anchored at eight, hardened against whoever pushes its score up."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from tests.retoucher.learn.worlds import photos, untrained_juror
from vernissage.core.files import atomic_write_json
from vernissage.core.images import save_png, to_uint8
from vernissage.core.params import load_params
from vernissage.core.progress import Progress
from vernissage.core.seeds import numpy_generator
from vernissage.retoucher.domain.colour import luma
from vernissage.retoucher.learn.juror import RankJuror, RankNet
from vernissage.retoucher.learn.juror_fitting import Lessons, Pace, fit_members
from vernissage.retoucher.learn.juror_training import (
    JurorTraining,
    attack,
    calibrate,
    draw_ladders,
    draw_lessons,
    evaluate_juror,
    harden,
    judge_hacks,
    make_juror,
    train_juror,
)
from vernissage.retoucher.learn.ladders import AXES, CONTESTANTS, Contests

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 32
TRAINING = JurorTraining(
    members=2,
    ladders=152,
    epochs=5,
    batch=8,
    lr=2e-3,
    scene_variation=0.3,
    taken_at=64,
    seed=0,
    adversarial_rounds=2,
    spread_penalty=1.0,
)
SHORT = replace(TRAINING, ladders=19, epochs=1)
Trained = tuple[RankJuror, list[dict[str, float]]]


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    return draw_lessons(photos(30, side=SIDE), TRAINING)


@pytest.fixture(scope="module")
def trained(lessons: Lessons) -> Trained:
    return train_juror(lessons, TRAINING)


# Drawing


def test_drawn_ladders_go_round_all_axes_and_repeat() -> None:
    pictures = photos(5, side=16)
    ladders = draw_ladders(pictures, 20, TRAINING, "evaluate")
    assert len(ladders.pictures) == 2 * len(AXES)
    assert ladders.axis.bincount().tolist() == [2] * len(AXES)
    assert torch.equal(ladders.pictures, draw_ladders(pictures, 20, TRAINING, "evaluate").pictures)
    assert not torch.equal(ladders.pictures, draw_ladders(pictures, 20, TRAINING, "calibrate").pictures)
    # Judged are photos as they are, not scenes imagined a little different.
    stored = (pictures * 255).round().to(torch.uint8)
    assert all(any(torch.equal(photo, known) for known in stored) for photo in ladders.pictures[:, 0])


def test_lessons_are_as_many_as_asked_for_of_varied_scenes_and_repeat() -> None:
    pictures = photos(3, side=16)
    settings = replace(TRAINING, ladders=300)
    drawn = draw_lessons(pictures, settings)
    assert drawn.contests.pictures.shape[:2] == (300, CONTESTANTS)
    assert torch.equal(drawn.contests.pictures, draw_lessons(pictures, settings).contests.pictures)
    # Three photos, but far more scenes.
    assert len({photo.numpy().tobytes() for photo in drawn.contests.pictures[:, 0]}) > 250


# Learning


def test_a_juror_learns_to_rank_photos_that_it_has_never_seen(trained: Trained) -> None:
    juror, curves = trained
    held_out = photos(12, side=SIDE, first=100)
    chance = evaluate_juror(untrained_juror(2, SIDE), held_out, TRAINING, 76)
    learned = evaluate_juror(juror, held_out, TRAINING, 76)
    assert learned["pairs_right"] > 0.7 > chance["pairs_right"]
    assert learned["rank_correlation"] > 0.5 > chance["rank_correlation"]
    assert [(row["member"], row["epoch"]) for row in curves] == [(m, e) for m in range(2) for e in range(5)]
    for member in range(2):
        losses = [row["ranking_loss"] for row in curves if row["member"] == member]
        assert losses[-1] < 0.8 * losses[0]


def test_the_evaluation_tells_each_fault_apart(trained: Trained) -> None:
    evaluation = evaluate_juror(trained[0], photos(4, side=SIDE, first=200), TRAINING, 38)
    assert evaluation["photos"] == 4
    assert evaluation["ladders"] == 38
    assert evaluation["per_fault"].keys() == {axis.name for axis in AXES}
    for row in (evaluation, *evaluation["per_fault"].values()):
        assert 0 <= row["pairs_right"] <= 1
        assert -1 <= row["rank_correlation"] <= 1
    assert evaluation["per_fault"]["haloed"]["over_edit"] is True
    assert evaluation["per_fault"]["noise"]["over_edit"] is False
    assert 0 <= evaluation["original_score"] <= 10
    assert evaluation["spread"] > 0
    json.dumps(evaluation, allow_nan=False)


def test_a_training_repeats_and_members_differ(trained: Trained) -> None:
    one, two = (train_juror(draw_lessons(photos(4, side=SIDE), SHORT), SHORT)[0] for _ in range(2))
    pictures = photos(3, side=SIDE)
    assert torch.equal(one.member_scores(pictures), two.member_scores(pictures))
    assert (trained[0].spread(pictures) > 0).all()


def test_calibration_puts_originals_at_eight_and_keeps_the_ranking(trained: Trained) -> None:
    held_out = photos(12, side=SIDE, first=300)
    juror = calibrate(trained[0], held_out, TRAINING, 76)
    originals = draw_ladders(held_out, 76, TRAINING, "calibrate").pictures[:, 0].float() / 255
    means = juror.member_scores(originals).mean(dim=1)
    assert means.tolist() == pytest.approx([8, 8], abs=0.01)
    assert all(0.1 <= slope <= 10 for slope, _ in juror.calibration)
    before = evaluate_juror(RankJuror(trained[0].members[:1], SIDE), held_out, TRAINING, 38)
    after = evaluate_juror(RankJuror(juror.members[:1], SIDE, juror.calibration[:1]), held_out, TRAINING, 38)
    assert after["pairs_right"] == pytest.approx(before["pairs_right"], abs=0.01)


def test_the_stage_leaves_a_juror_that_can_be_loaded(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    images = []
    for row, photo in enumerate(photos(9, side=24)):
        name = f"{row}.png"
        save_png(tmp_path / name, to_uint8(photo.permute(1, 2, 0).numpy()))
        images.append({"file_name": name, "split": ("train", "val", "test")[row % 3]})
    atomic_write_json(tmp_path / "annotations.json", {"images": images})
    small = ["juror.size=24", "juror.members=2", "juror.ladders=19", "juror.epochs=1", "juror.batch=10"]
    small += ["juror.imagined_scenes=4", "juror.adversarial_rounds=2", "juror.spread_penalty=1.5"]
    params = load_params(pytestconfig.rootpath / "params.yaml", overrides=small)
    evaluation = make_juror(tmp_path / "annotations.json", tmp_path, tmp_path / "juror", params)
    juror = RankJuror.load(tmp_path / "juror")
    assert len(juror.members) == 2
    assert (juror.size, juror.spread_penalty) == (24, 1.5)
    assert 0 <= juror.score(photos(2)).min() <= juror.score(photos(2)).max() <= 10
    assert json.loads((tmp_path / "juror" / "evaluation.json").read_text()) == evaluation
    curves = (tmp_path / "juror" / "curves.csv").read_text().splitlines()
    assert curves[0] == "member,epoch,round,ranking_loss,scale_loss,hack_gap"
    assert [row.split(",")[:3] for row in curves[1:]] == [
        ["0", "0", "0"], ["1", "0", "0"], ["0", "1", "1"], ["1", "1", "1"], ["0", "2", "2"], ["1", "2", "2"],
    ]  # fmt: skip
    for key in ("hacks_before", "hacks"):
        assert evaluation[key].keys() == {"climb", "greedy"}


# Hardening


@pytest.fixture(scope="module")
def bedazzled() -> RankJuror:
    """A juror that was taught one wrong thing: the brighter the better."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        members = [RankNet(), RankNet()]
    shown = torch.stack([photos(40, side=SIDE, first=400) * level for level in (0.4, 0.7, 1.0)], dim=1)
    bright = luma(shown.flatten(0, 1)).mean(dim=(1, 2, 3)).view(40, 3)
    wrong = Lessons.of(Contests((shown * 255).round().to(torch.uint8), (14 * bright).clamp(0.2, 9.5)))
    fit_members(members, wrong, Pace(8, 8, 2e-3, 0.3), [1, 2], Progress("test"))
    return RankJuror(members, SIDE, spread_penalty=TRAINING.spread_penalty)


def test_a_juror_that_can_be_hacked_is_hardened_by_the_rounds(bedazzled: RankJuror, lessons: Lessons) -> None:
    anchors, held_out = photos(8, side=SIDE, first=300), photos(12, side=SIDE, first=100)
    first = [parameter.clone() for parameter in bedazzled.members[0].parameters()]
    hardened, curves = harden(bedazzled, photos(30, side=SIDE), anchors, lessons, TRAINING)
    before, after = (judge_hacks(juror, held_out, TRAINING) for juror in (bedazzled, hardened))
    for adversary in ("climb", "greedy"):
        assert before[adversary]["hack_gap"] > 0.15, adversary
        assert after[adversary]["hack_gap"] < 0.5 * before[adversary]["hack_gap"], adversary
        assert after[adversary]["hacked"] < before[adversary]["hacked"], adversary
    # What was given stays as it was, and the anchor holds.
    assert all(torch.equal(a, b) for a, b in zip(first, bedazzled.members[0].parameters(), strict=True))
    assert hardened.spread_penalty == TRAINING.spread_penalty
    originals = draw_ladders(anchors, 152, TRAINING, "calibrate").pictures[:, 0].float() / 255
    assert hardened.member_scores(originals).mean(dim=1).tolist() == pytest.approx([8, 8], abs=0.02)
    assert [(row["member"], row["epoch"], row["round"]) for row in curves] == [
        (member, TRAINING.epochs + number - 1, number) for number in (1, 2) for member in (0, 1)
    ]
    assert curves[-1]["hack_gap"] < curves[0]["hack_gap"]


def test_without_rounds_a_juror_is_only_anchored() -> None:
    given, anchors = untrained_juror(2, SIDE), photos(4, side=SIDE)
    settings = replace(SHORT, adversarial_rounds=0)
    same, curves = harden(given, photos(4, side=SIDE), anchors, draw_lessons(photos(4, side=SIDE), SHORT), settings)
    assert curves == []
    assert same.calibration == calibrate(given, anchors, settings, 19).calibration
    assert torch.equal(same.member_logits(anchors), given.member_logits(anchors))


def test_rounds_repeat() -> None:
    pictures, settings = photos(6, side=SIDE), replace(SHORT, ladders=38, adversarial_rounds=1)
    drawn = draw_lessons(pictures, settings)
    one, two = (harden(untrained_juror(2, SIDE), pictures, pictures, drawn, settings)[0] for _ in range(2))
    assert one.calibration == two.calibration
    assert torch.equal(one.member_scores(pictures), two.member_scores(pictures))


def test_an_attack_brings_back_what_scores_higher_rated_by_what_it_is() -> None:
    juror = RankJuror(untrained_juror(2, SIDE).members, SIDE, spread_penalty=1.0)
    settings = replace(TRAINING, ladders=100)
    found, gap = attack(juror, photos(6, side=SIDE), settings, numpy_generator(0, "test"))
    assert found.pictures.shape == (12, 5, 3, SIDE, SIDE)
    assert (found.targets[:, 0] == 8).all()
    assert ((found.targets > 0) & (found.targets <= 8)).all()
    scores = juror.cautious_score(found.pictures.flatten(0, 1).float() / 255).view(12, 5)
    # Rounding to 8 bits may take back a hair.
    assert (scores[:, 4] >= scores[:, 1] - 0.02).all()
    assert (scores[:, 2] > scores[:, 1]).float().mean() > 0.8
    undeserved = (scores[:, 2] - scores[:, 1]).clamp_min(0) * (found.targets[:, 2] <= found.targets[:, 1])
    assert gap == pytest.approx(float(undeserved.mean()), abs=1e-4)
    # Some starts are photos as they are: nothing can be won there but by hacking.
    clean = (found.pictures[:, 1] == found.pictures[:, 0]).flatten(1).all(dim=1)
    assert 0 < clean.sum() < 12


def test_a_judge_of_hacks_counts_what_both_adversaries_found(bedazzled: RankJuror) -> None:
    rows = judge_hacks(bedazzled, photos(4, side=SIDE), TRAINING)
    for row in rows.values():
        assert 0 < row["hack_gap"] <= row["gain"] + 1e-3
        assert 0 < row["hacked"] <= 1
        # It loves light: what it is shown ends brighter than it was meant.
        assert row["delta_e_after"] > row["delta_e_before"] > 0
    json.dumps(rows, allow_nan=False)
