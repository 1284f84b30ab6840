"""Classifiers and the random embedding: they learn digits, see what they should, repeat, and survive the disk."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.core.weights import load_weights, save_weights
from vernissage.sampler.learn.classifiers import (
    ARCHITECTURES,
    Architecture,
    Classifier,
    ClassifierSpec,
    RandomFeatures,
    train_classifier,
)

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (1, 8, 8)


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Train and test pictures and labels, split at random."""
    data = load_digits()
    pictures = torch.from_numpy(data.images).float().unsqueeze(1) / 8 - 1
    labels = torch.from_numpy(data.target).long()
    train, test = torch.randperm(1797, generator=torch.Generator().manual_seed(0)).split((1437, 360))
    return pictures[train], labels[train], pictures[test], labels[test]


@cache
def trained(architecture: Architecture) -> Classifier:
    pictures, labels, *_ = digits()
    return train_classifier(pictures, labels, ClassifierSpec(SHAPE, 10, architecture, epochs=6), seed=0)


def tiny_spec(**changes: Any) -> ClassifierSpec:
    return ClassifierSpec(
        **{"shape": SHAPE, "classes": 10, "architecture": "plain", "width": 8, "epochs": 1, **changes}
    )


def tiny(seed: int = 0, **changes: Any) -> Classifier:
    pictures, labels, *_ = digits()
    return train_classifier(pictures[:100], labels[:100], tiny_spec(**changes), seed)


# --- what they learn --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_digits_are_recognised(architecture: Architecture) -> None:
    *_, pictures, labels = digits()
    found = trained(architecture).recognition(pictures, labels)
    assert found.accuracy >= 0.97
    assert 0.9 <= found.confidence <= found.accuracy + 0.02


def test_wrong_classes_are_not_recognised() -> None:
    *_, pictures, labels = digits()
    found = trained("plain").recognition(pictures, (labels + 1) % 10)
    assert found.accuracy < 0.05
    assert found.confidence < 0.05


def test_the_two_do_not_make_the_same_features() -> None:
    *_, pictures, _ = digits()
    one, other = (trained(architecture).features(pictures) for architecture in ARCHITECTURES)
    assert one.shape == other.shape == (360, 64)
    assert not torch.allclose(one, other, atol=0.1)


def test_probabilities_sum_to_one_and_pictures_are_clipped() -> None:
    *_, pictures, _ = digits()
    found = trained("residual").probabilities(pictures[:7])
    torch.testing.assert_close(found.sum(dim=1), torch.ones(7))
    loud = pictures[:7] * 1.5
    torch.testing.assert_close(
        trained("residual").probabilities(loud), trained("residual").probabilities(loud.clamp(-1, 1))
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_of_one_equals_its_row(architecture: Architecture) -> None:
    *_, pictures, _ = digits()
    classifier = trained(architecture)
    many = classifier.features(pictures.repeat(2, 1, 1, 1))
    for row in (0, 511, 719):
        alone = classifier.features(pictures[row % 360 : row % 360 + 1])
        torch.testing.assert_close(alone[0], many[row], atol=1e-4, rtol=1e-4)


# --- how they are trained ---------------------------------------------------------------------------------------------


def test_the_seed_decides_and_the_world_outside_does_not() -> None:
    *_, pictures, _ = digits()
    first = tiny(seed=3).features(pictures)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert torch.equal(tiny(seed=3).features(pictures), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.allclose(tiny(seed=4).features(pictures), first)


def test_losses_are_told_after_each_epoch() -> None:
    pictures, labels, *_ = digits()
    told: list[float] = []
    train_classifier(pictures[:300], labels[:300], tiny_spec(epochs=4), 0, after_epoch=told.append)
    assert len(told) == 4
    assert told[-1] < told[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("shape", "classes", "features"), [((3, 64, 64), 1000, 128), ((3, 32, 32), 10, 96), ((1, 9, 20), 12, 64)]
)
def test_other_sizes_and_many_classes(
    architecture: Architecture, shape: tuple[int, int, int], classes: int, features: int
) -> None:
    labels = torch.arange(classes)
    # As few pixels as will do: one tone each.
    pictures = torch.linspace(-1, 1, classes).view(-1, 1, 1, 1).expand(-1, *shape)
    if classes > 100:
        with pytest.raises(BadInput, match="class 4 has no picture, nor have 995 others"):
            train_classifier(pictures[:4], labels[:4], tiny_spec(shape=shape, classes=classes), 0)
        pictures, labels, classes = pictures[::100], torch.arange(10), 10
    spec = tiny_spec(shape=shape, classes=classes, architecture=architecture, features=features, flip=True, batch=5)
    classifier = train_classifier(pictures, labels, spec, 0)
    assert classifier.features(pictures).shape == (len(pictures), features)
    assert classifier.probabilities(pictures).shape == (len(pictures), classes)
    assert classifier.features(pictures).isfinite().all()


def test_moved_pictures_stay_themselves() -> None:
    from vernissage.sampler.learn.classifiers import _moved

    pictures = torch.rand(40, 2, 9, 12, generator=torch.Generator().manual_seed(0))
    spec = tiny_spec(shape=(2, 9, 12), shift=2, flip=True)
    moved = _moved(pictures, spec, torch.Generator().manual_seed(1))
    assert moved.shape == pictures.shape
    seen = set()
    for one, other in zip(pictures, moved, strict=True):
        padded = F.pad(one.unsqueeze(0), (2, 2, 2, 2), mode="replicate")[0]
        options = {
            (y, x, turned): window.flip(2) if turned else window
            for y in range(5)
            for x in range(5)
            for turned in (False, True)
            for window in [padded[:, y : y + 9, x : x + 12]]
        }
        matches = [key for key, option in options.items() if torch.equal(option, other)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert {key[2] for key in seen} == {False, True}
    assert len(seen) > 15


# --- the random embedding ---------------------------------------------------------------------------------------------


def test_random_features_are_fixed_by_their_seed() -> None:
    *_, pictures, _ = digits()
    one = RandomFeatures(SHAPE, 5).features(pictures)
    assert one.shape == (360, 128)
    assert torch.equal(RandomFeatures(SHAPE, 5).features(pictures), one)
    assert not torch.allclose(RandomFeatures(SHAPE, 6).features(pictures), one)


@pytest.mark.parametrize("seed", range(3))
def test_random_features_see_blur_and_noise_and_shifts(seed: int) -> None:
    first, _, second, _ = digits()
    embedding = RandomFeatures(SHAPE, seed, 64)

    def distance(pictures: torch.Tensor) -> float:
        """Of the mean feature from that of the digits, in units of the spread of one digit."""
        own, other = embedding.features(first), embedding.features(pictures)
        return float((own.mean(dim=0) - other.mean(dim=0)).norm() / own.std(dim=0).norm())

    fresh = distance(second)
    blurred = F.avg_pool2d(second, 3, stride=1, padding=1)
    noised = second + 0.5 * torch.randn(second.shape, generator=torch.Generator().manual_seed(0))
    assert fresh < 0.4
    for damaged in (blurred, noised, second.roll(2, dims=3)):
        assert distance(damaged) > 1.25 * fresh


# --- disk -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_classifier_survives_the_disk(architecture: Architecture, tmp_path: Path) -> None:
    *_, pictures, _ = digits()
    classifier = tiny(architecture=architecture)
    classifier.save(tmp_path, "judge")
    back = Classifier.load(tmp_path, "judge")
    assert back.spec == classifier.spec
    assert torch.equal(back.features(pictures), classifier.features(pictures))
    assert torch.equal(back.probabilities(pictures), classifier.probabilities(pictures))


def test_random_features_survive_the_disk(tmp_path: Path) -> None:
    *_, pictures, _ = digits()
    embedding = RandomFeatures(SHAPE, 5, 64)
    embedding.save(tmp_path)
    assert torch.equal(RandomFeatures.load(tmp_path).features(pictures), embedding.features(pictures))


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match=r"classifier\.json"):
        Classifier.load(tmp_path)
    with pytest.raises(MissingArtifact, match=r"random-features\.json"):
        RandomFeatures.load(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 16},
        {"features": 65},
        {"architecture": "residual"},
        {"architecture": "transformer"},
        {"shape": [1, 8]},
        {"shape": 8},
        {"classes": "ten"},
        {"unheard_of": 1},
    ],
)
def test_a_specification_that_does_not_fit_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    tiny().save(tmp_path)
    tensors, record = load_weights(tmp_path, name="classifier")
    save_weights(tmp_path, tensors, {"classifier": {**record["classifier"], **changes}}, name="classifier")
    with pytest.raises(CorruptArtifact, match="not a classifier of this version"):
        Classifier.load(tmp_path)


def test_one_kind_is_not_taken_for_the_other(tmp_path: Path) -> None:
    tiny().save(tmp_path, "mixed")
    with pytest.raises(CorruptArtifact, match="not a random embedding"):
        RandomFeatures.load(tmp_path, "mixed")
    RandomFeatures(SHAPE, 0).save(tmp_path, "mixed")
    with pytest.raises(CorruptArtifact, match="not a classifier"):
        Classifier.load(tmp_path, "mixed")


def test_random_features_with_other_tensors_are_refused(tmp_path: Path) -> None:
    RandomFeatures(SHAPE, 0).save(tmp_path)
    tensors, record = load_weights(tmp_path, name="random-features")
    del tensors["bias1"]
    save_weights(tmp_path, tensors, record, name="random-features")
    with pytest.raises(CorruptArtifact, match="bias1"):
        RandomFeatures.load(tmp_path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    tiny().save(tmp_path)
    path = tmp_path / "classifier.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptArtifact, match="hash"):
        Classifier.load(tmp_path)
    (tmp_path / "classifier.json").write_text(json.dumps({"format": 1}), encoding="utf-8")
    with pytest.raises(CorruptArtifact, match="expected format, sha256 and spec"):
        Classifier.load(tmp_path)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "vgg"}, "architecture = 'vgg': expected one of plain, residual"),
        ({"shape": (1, 7, 8)}, r"shape = \(1, 7, 8\): .* sides from 8 to 64"),
        ({"shape": (1, 8, 65)}, "sides from 8 to 64"),
        ({"shape": (5, 8, 8)}, "1 to 4 channels"),
        ({"classes": 1}, "classes = 1: expected 2 to 1000"),
        ({"classes": 1001}, "classes = 1001"),
        ({"features": 32}, "features = 32: expected 64 to 128"),
        ({"features": 129}, "features = 129"),
        ({"width": 12}, "width = 12: expected a multiple of 8"),
        ({"width": 0}, "width = 0"),
        ({"epochs": 0}, "epochs = 0"),
        ({"batch": 1}, "batch = 1"),
        ({"shift": 5}, "shift = 5: expected 0 to 4"),
        ({"lr": 0.0}, "lr = 0: expected more than 0"),
        ({"lr": float("nan")}, "lr = nan"),
    ],
)
def test_settings_out_of_bounds_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadParams, match=message):
        tiny_spec(**changes)


def test_a_random_embedding_has_the_same_bounds() -> None:
    with pytest.raises(BadParams, match="features = 32"):
        RandomFeatures(SHAPE, 0, 32)
    with pytest.raises(BadParams, match="sides from 8 to 64"):
        RandomFeatures((1, 4, 4), 0)


PICTURES, LABELS = torch.zeros(10, 1, 8, 8), torch.arange(10)


@pytest.mark.parametrize(
    ("pictures", "labels", "message"),
    [
        (PICTURES[:, :, :7], LABELS, r"shape \(10, 1, 7, 8\), expected \(N, 1, 8, 8\)"),
        (PICTURES[:0], LABELS[:0], r"shape \(0, 1, 8, 8\)"),
        (PICTURES.byte(), LABELS, "torch.uint8, expected float"),
        (PICTURES + 1.5, LABELS, "values from 1.5 to 1.5, expected -1 to 1"),
        (torch.where(LABELS.view(-1, 1, 1, 1) == 3, torch.nan, PICTURES), LABELS, "picture 3 is not finite"),
        (PICTURES, LABELS[:9], r"shape \(9,\), expected torch.int64 of \(10,\)"),
        (PICTURES, LABELS.float(), "labels: torch.float32"),
        (PICTURES, LABELS - 1, "label -1: this classifier knows classes 0 to 9"),
        (PICTURES, LABELS.clamp(max=8), "class 9 has no picture, nor have 0 others"),
    ],
)
def test_pictures_that_nothing_can_be_learned_from_are_refused(
    pictures: torch.Tensor, labels: torch.Tensor, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        train_classifier(pictures, labels, tiny_spec(), 0)


def test_pictures_that_cannot_be_looked_at_are_refused() -> None:
    classifier, embedding = tiny(), RandomFeatures(SHAPE, 0)
    for look in (classifier.features, classifier.probabilities, embedding.features):
        with pytest.raises(BadInput, match=r"expected \(N, 1, 8, 8\)"):
            look(torch.zeros(2, 3, 8, 8))
        with pytest.raises(BadInput, match="picture 1 is not finite"):
            look(torch.tensor([0.0, torch.inf]).view(2, 1, 1, 1).expand(2, 1, 8, 8))
    with pytest.raises(BadInput, match="label 10"):
        classifier.recognition(PICTURES, LABELS + 1)
