"""The sampler's row: the denoiser stage leaves weights, pictures, curves and a sheet, and refuses strange sources."""

from __future__ import annotations

import csv
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vernissage.core.errors import BadParams, MissingArtifact
from vernissage.core.params import load_params
from vernissage.sampler.domain.unet import EdmDenoiser
from vernissage.sampler.prepare.pictures import ClassPictures
from vernissage.sampler.system import make_denoiser

PARAMS = Path(__file__).parents[2] / "params.yaml"
SMALL = ("denoiser.steps=4", "denoiser.looks=2", "denoiser.width=8", "denoiser.batch=8")


def test_the_stage_leaves_what_the_next_ones_read(tmp_path: Path) -> None:
    make_denoiser(tmp_path / "none", tmp_path / "out", tmp_path / "scratch", load_params(PARAMS, overrides=SMALL))
    denoiser, pictures = EdmDenoiser.load(tmp_path / "out"), ClassPictures.load(tmp_path / "out")
    assert denoiser.shape == tuple(pictures.pictures.shape[1:]) == (1, 8, 8)
    assert denoiser.spec.classes == len(pictures.class_names) == 10
    with (tmp_path / "out" / "curves.csv").open(newline="", encoding="utf-8") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4"]
    with Image.open(tmp_path / "out" / "samples.png") as sheet:
        assert sheet.size == (12 * 50 + 2, 10 * 50 + 2)


def test_pictures_of_ones_own_come_from_the_folder_for_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for number in range(40):
            file = BytesIO()
            Image.fromarray(rng.integers(0, 256, (20, 16, 3), np.uint8)).save(file, "PNG")
            archive.writestr(f"{'left' if number % 2 else 'right'}/{number}.png", file.getvalue())
    overrides = (*SMALL, "denoiser.source=mine.zip", "denoiser.side=16", "denoiser.channels=3")
    make_denoiser(tmp_path, tmp_path / "out", tmp_path / "scratch", load_params(PARAMS, overrides=overrides))
    assert EdmDenoiser.load(tmp_path / "out").shape == (3, 16, 16)
    assert ClassPictures.load(tmp_path / "out").class_names == ("left", "right")


@pytest.mark.parametrize(
    ("source", "error"),
    [("../secrets", BadParams), ("/etc", BadParams), (".", BadParams), ("nowhere.zip", MissingArtifact)],
)
def test_strange_sources_are_refused(source: str, error: type[Exception], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    params = load_params(PARAMS, overrides=(f"denoiser.source={source}",))
    with pytest.raises(error):
        make_denoiser(tmp_path / "pictures", tmp_path / "out", tmp_path / "scratch", params)
    assert not (tmp_path / "out").exists()
