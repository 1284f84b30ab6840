"""A model is loaded whole, by the name of its checkpoint, or the message lists what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tests.sculptor.use.models import new_sculptor
from vernissage.core.errors import BadParams, CorruptArtifact, MissingArtifact
from vernissage.core.files import sha256_file
from vernissage.sculptor.use.model import SculptorModel, checkpoints_in

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "sculptor"
    new_sculptor(seed=9).save(place)
    for epoch in (50, 100):
        new_sculptor(seed=epoch).save(place / "checkpoints" / f"epoch-{epoch:04d}")
    return place


@pytest.mark.parametrize(
    ("asked", "name", "epoch"),
    [(None, "best", 9), ("best", "best", 9), ("epoch=50", "epoch=50", 50), ("Epoch-0100", "epoch=100", 100)],
)
def test_the_weights_that_were_asked_for_are_loaded(folder: Path, asked: str | None, name: str, epoch: int) -> None:
    model = SculptorModel.load(folder, asked)
    place = folder if name == "best" else folder / "checkpoints" / f"epoch-{epoch:04d}"
    assert model.identity == {
        "sha256": sha256_file(place / "model.safetensors"),
        "checkpoint": name,
        "epoch": epoch,
    }
    expected = new_sculptor(seed=epoch).state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in model.sculptor.state_dict().items())
    assert not model.sculptor.training


def test_what_is_missing_is_answered_by_what_there_is(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match=r"no checkpoint epoch=7; there is best, epoch=50, epoch=100$"):
        SculptorModel.load(folder, "epoch=7")
    with pytest.raises(MissingArtifact, match="there is no model at all"):
        SculptorModel.load(tmp_path / "nowhere", "epoch=7")
    with pytest.raises(MissingArtifact, match="no such file"):
        SculptorModel.load(tmp_path / "nowhere")


def test_a_long_list_is_cut_in_the_middle(tmp_path: Path) -> None:
    for epoch in range(60):
        place = tmp_path / "checkpoints" / f"epoch-{epoch:04d}"
        place.mkdir(parents=True)
        (place / "model.safetensors").touch()
    with pytest.raises(MissingArtifact, match=r"there is epoch=0, epoch=1, \.\.\., epoch=42, .*epoch=59$"):
        SculptorModel.load(tmp_path, "epoch=99")


@pytest.mark.parametrize("asked", ["50", "epoch", "epoch=", "epoch=-1", "epoch=../50", "last", "epoch=٥"])
def test_other_names_are_refused(folder: Path, asked: str) -> None:
    with pytest.raises(BadParams, match="expected best, or the number of an epoch"):
        SculptorModel.load(folder, asked)


def test_half_a_checkpoint_is_none(folder: Path) -> None:
    (folder / "checkpoints" / "epoch-0050" / "model.safetensors").unlink()
    (folder / "checkpoints" / "epoch-later").mkdir()
    assert list(checkpoints_in(folder)) == [100]


def test_damaged_weights_are_refused(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(CorruptArtifact, match="its hash is"):
        SculptorModel.load(folder)
