from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch

from tests.retoucher.prepare.pictures import MeanJuror
from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.images import load_rgb8
from vernissage.retoucher.prepare.score import score_photos

if TYPE_CHECKING:
    from pathlib import Path


def test_each_photo_gets_its_own_score(dataset: Path) -> None:
    images = json.loads((dataset / "scored" / "annotations.json").read_text())["images"]
    assert len({(image["width"], image["height"]) for image in images}) == 2  # so more than one batch
    for image in images:
        brightness = load_rgb8(dataset / "resized" / image["file_name"]).mean() / 255
        assert image["score"] == pytest.approx(10 * brightness, abs=1e-3)
        assert image["score_spread"] == pytest.approx(0.1)


class Alone:
    """A juror that is no ensemble."""

    def score(self, images: torch.Tensor) -> torch.Tensor:
        return MeanJuror().score(images)


def test_a_juror_without_a_spread_has_none(dataset: Path, tmp_path: Path) -> None:
    report = score_photos(dataset / "annotated", dataset / "resized", tmp_path, Alone())
    images = json.loads((tmp_path / "annotations.json").read_text())["images"]
    assert {image["score_spread"] for image in images} == {0}
    assert report.mean_spread == 0
    assert len({image["score"] for image in images}) > 1


def test_everything_else_stays(dataset: Path) -> None:
    before = json.loads((dataset / "annotated" / "annotations.json").read_text())
    after = json.loads((dataset / "scored" / "annotations.json").read_text())
    for image in after["images"]:
        del image["score"], image["score_spread"]
    assert after == before


class Wrong(MeanJuror):
    def __init__(self, scores: torch.Tensor | None = None, factor: float = 1.0) -> None:
        self.scores, self.factor = scores, factor

    def score(self, images: torch.Tensor) -> torch.Tensor:
        return self.factor * super().score(images) if self.scores is None else self.scores


@pytest.mark.parametrize(
    "juror",
    [Wrong(factor=float("nan")), Wrong(factor=9), Wrong(factor=-1), Wrong(torch.zeros(1)), Wrong(torch.zeros(2, 1))],
)
def test_a_juror_that_does_not_score_is_refused(dataset: Path, tmp_path: Path, juror: Wrong) -> None:
    with pytest.raises(CorruptArtifact, match="dvc repro juror"):
        score_photos(dataset / "annotated", dataset / "resized", tmp_path, juror)
    assert not (tmp_path / "annotations.json").exists()


def test_a_missing_file_is_named(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match=r"annotations\.json"):
        score_photos(tmp_path, dataset / "resized", tmp_path, MeanJuror())
