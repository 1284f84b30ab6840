"""Jurors: scores that mean something, the same alone and in a batch, kept on disk exactly, learned in seconds."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.retoucher.domain.procedural import flat, noise
from tests.retoucher.learn.worlds import PROPERTY, photos, untrained_juror
from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.files import atomic_write_json
from vernissage.core.images import save_png, to_uint8
from vernissage.core.params import load_params
from vernissage.core.weights import save_weights
from vernissage.retoucher.domain.quality import delta_e
from vernissage.retoucher.learn.juror import (
    ORIGINAL_SCORE,
    PICTURE_STATISTICS,
    RankJuror,
    RankNet,
    ReferenceJuror,
    anchored_score,
    picture_statistics,
)
from vernissage.retoucher.learn.juror_training import (
    JurorTraining,
    calibrate,
    draw_ladders,
    evaluate_juror,
    ladder_loss,
    ladder_statistics,
    make_juror,
    train_juror,
)
from vernissage.retoucher.learn.ladders import AXES, RUNGS, make_ladders

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 32
TRAINING = JurorTraining(members=2, ladders=190, epochs=8, batch=19, lr=2e-3, scene_variation=0.3, taken_at=64, seed=0)


@pytest.fixture(scope="module")
def trained() -> tuple[RankJuror, list[dict[str, float]]]:
    return train_juror(photos(30, side=SIDE), TRAINING)


def store(folder: Path, juror: RankJuror) -> None:
    names = [f"member-{index}" for index in range(len(juror.members))]
    for name, member in zip(names, juror.members, strict=True):
        save_weights(folder, member.state_dict(), {"network": "RankNet"}, name=name)
    spec = {"members": names, "size": juror.size, "calibration": [list(row) for row in juror.calibration]}
    atomic_write_json(folder / "juror.json", spec)


# Scores


@PROPERTY
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_scores_lie_between_nought_and_ten_whatever_the_size(height: int, width: int, seed: int) -> None:
    pictures = noise(2, height, width, seed)
    juror = untrained_juror(3)
    scores, spread = juror.score(pictures), juror.spread(pictures)
    assert scores.shape == spread.shape == (2,)
    assert ((scores >= 0) & (scores <= 10)).all()
    assert ((spread >= 0) & (spread <= 5)).all()
    assert not scores.requires_grad


@pytest.mark.parametrize("rgb", [(0, 0, 0), (1, 1, 1), (1, 0, 0), (0.5, 0.5, 0.5)])
def test_plain_pictures_get_a_score_too(rgb: tuple[float, float, float]) -> None:
    assert torch.isfinite(untrained_juror().score(flat(*rgb))).all()
    assert torch.isfinite(picture_statistics(flat(*rgb))).all()


@pytest.mark.parametrize("shape", [(24, 24), (17, 40)])
def test_a_picture_alone_scores_as_in_its_batch(shape: tuple[int, int]) -> None:
    juror = untrained_juror(2)
    pictures = noise(5, *shape)
    together, spread = juror.score(pictures), juror.spread(pictures)
    for row in range(5):
        torch.testing.assert_close(juror.score(pictures[row : row + 1])[0], together[row], atol=1e-4, rtol=0)
        torch.testing.assert_close(juror.spread(pictures[row : row + 1])[0], spread[row], atol=1e-4, rtol=0)


def test_the_score_is_the_mean_of_the_members_and_the_spread_their_deviation() -> None:
    pictures = photos(4)
    ensemble = untrained_juror(3)
    alone = torch.stack([RankJuror([member], ensemble.size).score(pictures) for member in ensemble.members])
    torch.testing.assert_close(ensemble.member_scores(pictures), alone)
    torch.testing.assert_close(ensemble.score(pictures), alone.mean(dim=0))
    torch.testing.assert_close(ensemble.spread(pictures), alone.std(dim=0, correction=0))
    assert (ensemble.spread(pictures) > 0).all()
    assert not RankJuror([ensemble.members[0]] * 2, ensemble.size).spread(pictures).any()


def test_an_ensemble_needs_members_that_fit_their_calibration() -> None:
    with pytest.raises(ValueError, match="no members"):
        RankJuror([], 24)
    with pytest.raises(ValueError, match="2 calibrations for 1 members"):
        RankJuror([RankNet()], 24, [(1.0, 0.0), (1.0, 0.0)])


def test_calibration_moves_the_scale_and_keeps_the_order() -> None:
    pictures, plain = photos(6), untrained_juror(1)
    moved = RankJuror(plain.members, plain.size, [(3.0, 1.0)])
    logits = plain.member_logits(pictures)
    torch.testing.assert_close(moved.score(pictures), 10 * torch.sigmoid(3 * logits[0] + 1))
    assert torch.equal(moved.score(pictures).argsort(), plain.score(pictures).argsort())


def test_picture_statistics_are_of_the_order_of_one_and_blind_to_mirrors() -> None:
    pictures = torch.cat((photos(4, side=SIDE), noise(2, SIDE, SIDE)))
    statistics = picture_statistics(pictures)
    assert statistics.shape == (6, PICTURE_STATISTICS)
    assert statistics.abs().max() < 12
    grey = flat(0.5, 0.5, 0.5)
    torch.testing.assert_close(picture_statistics(grey.flip(-1)), picture_statistics(grey))


def test_known_answers_of_the_anchored_scale() -> None:
    scores = anchored_score(torch.tensor([0.0, 15.0, 7.0, 1000.0]))
    assert scores.tolist() == pytest.approx([8.0, 8 / np.e, 8 * np.exp(-7 / 15), 0.0], abs=1e-5)


def test_the_reference_juror_gives_eight_to_a_perfect_copy() -> None:
    originals = photos(3)
    juror = ReferenceJuror(originals)
    assert juror.score(originals).tolist() == pytest.approx([8, 8, 8], abs=1e-4)
    worse = juror.score((originals * 0.7).clamp(0, 1))
    assert (worse < 7).all()
    torch.testing.assert_close(worse, anchored_score(delta_e(originals * 0.7, originals)), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="pictures to compare"):
        juror.score(originals[:2])


# On disk


def test_what_is_stored_is_loaded_exactly_and_without_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = untrained_juror(2)
    juror = RankJuror(original.members, original.size, [(1.5, 0.25), (0.5, -1.0)])
    store(tmp_path, juror)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle was read")

    for name in ("Unpickler", "load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    loaded = RankJuror.load(tmp_path)
    assert loaded.size == juror.size
    assert loaded.calibration == juror.calibration
    assert torch.equal(loaded.member_scores(photos(3)), juror.member_scores(photos(3)))


def test_a_juror_that_is_missing_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact):
        RankJuror.load(tmp_path)
    store(tmp_path, untrained_juror(2))
    tensors = tmp_path / "member-1.safetensors"
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorruptArtifact, match="member-1"):
        RankJuror.load(tmp_path)
    tensors.unlink()
    with pytest.raises(MissingArtifact, match="member-1"):
        RankJuror.load(tmp_path)


@pytest.mark.parametrize("change", [{"size": "large"}, {"size": None}, {"members": None}, {"calibration": [["a", 1]]}])
def test_a_juror_whose_description_is_wrong_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    store(tmp_path, untrained_juror(1))
    file = tmp_path / "juror.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CorruptArtifact, match=r"juror\.json"):
        RankJuror.load(tmp_path)
    file.write_text("{")
    with pytest.raises(CorruptArtifact, match=r"juror\.json"):
        RankJuror.load(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    store(tmp_path, untrained_juror(1))
    save_weights(tmp_path, {"head.0.weight": torch.zeros(2)}, {}, name="member-0")
    with pytest.raises(CorruptArtifact, match="do not fit"):
        RankJuror.load(tmp_path)


# Ladders


def test_ladders_begin_with_the_photo_and_get_worse_rung_by_rung() -> None:
    pictures = photos(len(AXES), side=SIDE)
    ladders = make_ladders(pictures, np.arange(len(AXES)), np.random.default_rng(0), taken_at=64)
    assert ladders.pictures.shape == (len(AXES), RUNGS, 3, SIDE, SIDE)
    torch.testing.assert_close(ladders.pictures[:, 0].float() / 255, pictures, atol=1e-5, rtol=0)
    assert (ladders.targets[:, 0] == ORIGINAL_SCORE).all()
    assert not ladders.difference[:, 0].any()
    assert ladders.axis.tolist() == list(range(len(AXES)))
    for index, axis in enumerate(AXES):
        assert (ladders.targets[index].diff() <= 0).all(), axis.name
        assert (ladders.difference[index].diff() > 0).all(), axis.name
        assert ladders.targets[index, -1] < 6.5, axis.name
    assert (ladders.targets >= 0.2).all()


def test_over_editing_is_among_the_ways_of_getting_worse() -> None:
    names = {axis.name for axis in AXES if axis.over_edit}
    assert {"over-saturated", "crushed", "haloed", "plastic", "posterised"} <= names
    assert len({axis.name for axis in AXES}) == len(AXES)


def test_a_grey_photo_loses_nothing_by_becoming_pale() -> None:
    pale = next(index for index, axis in enumerate(AXES) if axis.name == "pale")
    grey = photos(1, side=SIDE).mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    ladders = make_ladders(grey, np.array([pale]), np.random.default_rng(0), taken_at=64)
    assert (ladders.targets == ORIGINAL_SCORE).all()


def test_drawn_ladders_go_round_all_axes_and_repeat() -> None:
    pictures = photos(5, side=16)
    ladders = draw_ladders(pictures, 20, TRAINING, "train")
    assert len(ladders.pictures) == 2 * len(AXES)
    assert ladders.axis.bincount().tolist() == [2] * len(AXES)
    assert torch.equal(ladders.pictures, draw_ladders(pictures, 20, TRAINING, "train").pictures)
    judged = draw_ladders(pictures, 20, TRAINING, "evaluate")
    assert not torch.equal(ladders.pictures, judged.pictures)
    # Judged are photos as they are, not scenes imagined a little different.
    stored = (pictures * 255).round().to(torch.uint8)
    assert all(any(torch.equal(photo, known) for known in stored) for photo in judged.pictures[:, 0])


def test_ladder_statistics_are_those_of_each_picture() -> None:
    ladders = draw_ladders(photos(3, side=16), 19, TRAINING, "evaluate")
    statistics = ladder_statistics(ladders)
    assert statistics.shape == (19, RUNGS, PICTURE_STATISTICS)
    torch.testing.assert_close(statistics[4, 2], picture_statistics(ladders.pictures[4, 2][None].float() / 255)[0])


# Learning


def test_ladder_loss_known_answers() -> None:
    targets = torch.tensor([[8.0, 6.0, 4.0, 2.0]])
    ranking, scale = ladder_loss(torch.zeros(1, 4), targets)
    assert float(ranking) == pytest.approx(np.log(2))
    assert float(scale) == pytest.approx((9 + 1 + 1 + 9) / 4)
    right, exact = ladder_loss(torch.logit(targets / 10), targets)
    assert float(exact) == pytest.approx(0, abs=1e-8)
    wrong, _ = ladder_loss(torch.logit(targets.flip(1) / 10), targets)
    assert float(right) < 0.05 < np.log(2) < 2 < float(wrong)
    tied, _ = ladder_loss(torch.randn(2, 4), torch.tensor([[8.0, 8.0, 7.9, 8.0], [5.0, 5.0, 5.1, 5.0]]))
    assert float(tied) == 0


def test_a_ladder_in_another_order_costs_the_same() -> None:
    logits, targets = torch.randn(3, 4), torch.rand(3, 4) * 10
    order = torch.tensor([2, 0, 3, 1])
    for a, b in zip(ladder_loss(logits, targets), ladder_loss(logits[:, order], targets[:, order]), strict=True):
        torch.testing.assert_close(a, b)


def test_a_juror_learns_to_rank_photos_that_it_has_never_seen(
    trained: tuple[RankJuror, list[dict[str, float]]],
) -> None:
    juror, curves = trained
    held_out = photos(12, side=SIDE, first=100)
    chance = evaluate_juror(untrained_juror(2, SIDE), held_out, TRAINING, 76)
    learned = evaluate_juror(juror, held_out, TRAINING, 76)
    assert learned["pairs_right"] > 0.7 > chance["pairs_right"]
    assert learned["rank_correlation"] > 0.5 > chance["rank_correlation"]
    assert [(row["member"], row["epoch"]) for row in curves] == [(m, e) for m in range(2) for e in range(8)]
    for member in range(2):
        losses = [row["ranking_loss"] for row in curves if row["member"] == member]
        assert losses[-1] < 0.8 * losses[0]


def test_the_evaluation_tells_each_fault_apart(trained: tuple[RankJuror, list[dict[str, float]]]) -> None:
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


def test_a_training_repeats_and_members_differ(trained: tuple[RankJuror, list[dict[str, float]]]) -> None:
    short = JurorTraining(**{**vars(TRAINING), "ladders": 19, "epochs": 1})
    one, two = (train_juror(photos(4, side=SIDE), short)[0] for _ in range(2))
    pictures = photos(3, side=SIDE)
    assert torch.equal(one.member_scores(pictures), two.member_scores(pictures))
    assert (trained[0].spread(pictures) > 0).all()


def test_calibration_puts_originals_at_eight_and_keeps_the_ranking(
    trained: tuple[RankJuror, list[dict[str, float]]],
) -> None:
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
    params = load_params(pytestconfig.rootpath / "params.yaml", overrides=small)
    evaluation = make_juror(tmp_path / "annotations.json", tmp_path, tmp_path / "juror", params)
    juror = RankJuror.load(tmp_path / "juror")
    assert len(juror.members) == 2
    assert juror.size == 24
    assert 0 <= juror.score(photos(2)).min() <= juror.score(photos(2)).max() <= 10
    assert json.loads((tmp_path / "juror" / "evaluation.json").read_text()) == evaluation
    curves = (tmp_path / "juror" / "curves.csv").read_text().splitlines()
    assert curves[0] == "member,epoch,ranking_loss,scale_loss"
    assert len(curves) == 3
