"""Jurors: scores that mean something, the same alone and in a batch, kept on disk exactly."""

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
from vernissage.core.weights import save_weights
from vernissage.retoucher.domain.colour import srgb_to_linear
from vernissage.retoucher.domain.quality import delta_e
from vernissage.retoucher.learn.juror import (
    PICTURE_STATISTICS,
    RANK_FEATURES,
    TONE_EVIDENCE,
    RankJuror,
    RankNet,
    ReferenceJuror,
    anchored_score,
    cautious,
    picture_statistics,
    rank_features,
    tone_evidence,
)

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 32


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


def test_a_cautious_score_loses_what_the_members_disagree_by() -> None:
    pictures = photos(4)
    plain = untrained_juror(3)
    wary = RankJuror(plain.members, plain.size, spread_penalty=2.0)
    torch.testing.assert_close(wary.score(pictures), plain.score(pictures))
    torch.testing.assert_close(wary.cautious_score(pictures), plain.score(pictures) - 2 * plain.spread(pictures))
    torch.testing.assert_close(cautious(wary).score(pictures), wary.cautious_score(pictures))
    torch.testing.assert_close(cautious(plain).score(pictures), plain.score(pictures))
    # A point of disagreement can cost more than there is to lose.
    assert (RankJuror(plain.members, plain.size, spread_penalty=1e6).cautious_score(pictures) == 0).all()
    with pytest.raises(ValueError, match=r"spread penalty of -1"):
        RankJuror(plain.members, plain.size, spread_penalty=-1)


def test_only_ensembles_have_a_cautious_score() -> None:
    originals = photos(2)
    juror = ReferenceJuror(originals)
    assert cautious(juror) is juror


@pytest.mark.parametrize("penalty", [0.0, 2.0])
def test_the_cautious_logit_has_the_gradient_of_what_it_says(penalty: float) -> None:
    plain = untrained_juror(2, SIDE)
    juror = RankJuror(plain.members, SIDE, [(2.0, 0.5), (1.0, 0.0)], spread_penalty=penalty)
    picture = photos(1, side=SIDE).clamp(0.01, 0.98)
    logits = torch.tensor([[2.0], [1.0]]) * juror.member_logits(picture) + torch.tensor([[0.5], [0.0]])
    expected = logits.mean(dim=0) - penalty * logits.std(dim=0, correction=0)
    torch.testing.assert_close(juror.cautious_logit(picture), expected, atol=1e-3, rtol=0)
    gain = torch.ones(1, 3, 1, 1, requires_grad=True)
    (slope,) = torch.autograd.grad(juror.cautious_logit(picture * gain).sum(), gain)
    step = 2e-3 * slope / slope.norm()
    rise = juror.cautious_logit(picture * (1 + step)) - juror.cautious_logit(picture * (1 - step))
    # Ends, statistics and pixels all have their share in it; quantiles and maxima make it rough.
    assert float(rise.detach()) == pytest.approx(float(2 * 2e-3 * slope.norm()), rel=0.25)


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


def test_a_picture_with_its_ends_in_place_asks_for_nothing() -> None:
    ramp = torch.linspace(0, 1, 16).view(1, 1, 1, 16).expand(1, 3, 16, 16)
    asked = tone_evidence(ramp)[0, :10]
    assert asked.abs().max() < 1e-4
    assert tone_evidence(ramp)[0, 26:36].min() > 0.99
    assert tone_evidence(ramp).shape == (1, TONE_EVIDENCE)


def test_tone_evidence_tells_a_fault_that_the_ends_show_exactly() -> None:
    ramp = torch.linspace(0, 1, 16).view(1, 1, 1, 16).expand(1, 3, 16, 16)
    # Contrast halved about mid-grey: a doubling, 1 / 1.2 of the slider, and no exposure, puts it right.
    flattened = tone_evidence(0.5 + 0.5 * (ramp - 0.5))[0]
    assert flattened[:4].abs().max() < 1e-4
    assert flattened[4:8].tolist() == pytest.approx([1 / 1.2] * 4, abs=1e-4)
    # Red and blue apart by equal factors: only the temperature is asked for, and by the means in light as well.
    cast = tone_evidence(ramp * torch.tensor([0.8, 0.9, 0.8 * 0.81 / 0.64]).view(1, 3, 1, 1).clamp(max=1))[0]
    assert cast[8] > 0.2
    # Too dark: all channels ask for the same exposure.
    dark = tone_evidence(0.5 * ramp)[0]
    assert dark[:4].tolist() == pytest.approx([1.2] * 4, abs=1e-4)
    assert dark[8:10].abs().max() < 1e-4


def test_what_a_member_knows_is_statistics_and_evidence() -> None:
    pictures = photos(3, side=SIDE)
    features = rank_features(pictures)
    assert features.shape == (3, RANK_FEATURES)
    torch.testing.assert_close(features[:, :PICTURE_STATISTICS], picture_statistics(pictures))
    light = srgb_to_linear(pictures[..., ::2, ::2])
    torch.testing.assert_close(features[:, PICTURE_STATISTICS:], tone_evidence(pictures, light))
    network = RankNet().eval()
    torch.testing.assert_close(network(pictures), network(pictures, features))
    assert not picture_statistics(pictures.requires_grad_()).requires_grad
    assert rank_features(pictures).requires_grad


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
    juror = RankJuror(original.members, original.size, [(1.5, 0.25), (0.5, -1.0)], spread_penalty=1.25)
    juror.save(tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle was read")

    for name in ("Unpickler", "load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    loaded = RankJuror.load(tmp_path)
    assert loaded.size == juror.size
    assert loaded.calibration == juror.calibration
    assert loaded.spread_penalty == 1.25
    assert torch.equal(loaded.member_scores(photos(3)), juror.member_scores(photos(3)))


def test_a_juror_that_is_missing_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact):
        RankJuror.load(tmp_path)
    untrained_juror(2).save(tmp_path)
    tensors = tmp_path / "member-1.safetensors"
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorruptArtifact, match="member-1"):
        RankJuror.load(tmp_path)
    tensors.unlink()
    with pytest.raises(MissingArtifact, match="member-1"):
        RankJuror.load(tmp_path)


def test_a_juror_that_says_nothing_of_caution_has_none(tmp_path: Path) -> None:
    untrained_juror(1).save(tmp_path)
    file = tmp_path / "juror.json"
    spec = json.loads(file.read_text())
    del spec["spread_penalty"]
    file.write_text(json.dumps(spec))
    assert RankJuror.load(tmp_path).spread_penalty == 0


@pytest.mark.parametrize(
    "change",
    [
        {"size": "large"},
        {"size": None},
        {"members": None},
        {"calibration": [["a", 1]]},
        {"spread_penalty": "much"},
    ],
)
def test_a_juror_whose_description_is_wrong_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    untrained_juror(1).save(tmp_path)
    file = tmp_path / "juror.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CorruptArtifact, match=r"juror\.json"):
        RankJuror.load(tmp_path)
    file.write_text("{")
    with pytest.raises(CorruptArtifact, match=r"juror\.json"):
        RankJuror.load(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    untrained_juror(1).save(tmp_path)
    save_weights(tmp_path, {"head.0.weight": torch.zeros(2)}, {}, name="member-0")
    with pytest.raises(CorruptArtifact, match="do not fit"):
        RankJuror.load(tmp_path)
