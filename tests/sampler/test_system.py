"""The sampler's row: what the denoiser's and the teacher bank's stages leave, and what they refuse."""

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
from vernissage.sampler.prepare.teacher_bank import PARTS, Bank
from vernissage.sampler.system import make_denoiser, make_teacher_bank

PARAMS_FILE = Path(__file__).parents[2] / "params.yaml"
SMALL = ("denoiser.steps=4", "denoiser.looks=2", "denoiser.width=8", "denoiser.batch=8")


def test_the_stage_leaves_what_the_next_ones_read(tmp_path: Path) -> None:
    make_denoiser(tmp_path / "none", tmp_path / "out", tmp_path / "scratch", load_params(PARAMS_FILE, overrides=SMALL))
    denoiser, pictures = EdmDenoiser.load(tmp_path / "out"), ClassPictures.load(tmp_path / "out")
    assert denoiser.shape == tuple(pictures.pictures.shape[1:]) == (1, 8, 8)
    assert denoiser.spec.classes == len(pictures.class_names) == 10
    with (tmp_path / "out" / "curves.csv").open(newline="", encoding="utf-8") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4"]
    with Image.open(tmp_path / "out" / "samples.png") as sheet:
        assert sheet.size == (12 * 50 + 2, 10 * 50 + 2)


def test_the_bank_is_made_from_the_denoiser_and_no_part_knows_another(tmp_path: Path) -> None:
    overrides = (*SMALL, "teacher_bank.train=6", "teacher_bank.val=5", "teacher_bank.test=4", "teacher_bank.calls=8")
    params = load_params(PARAMS_FILE, overrides=overrides)
    make_denoiser(tmp_path / "none", tmp_path / "model", tmp_path / "scratch", params)
    make_teacher_bank(tmp_path / "model", tmp_path / "bank", params)
    banks = [Bank.load(tmp_path / "bank", part) for part in PARTS]
    assert [len(bank) for bank in banks] == [6, 5, 4]
    assert len({seed for bank in banks for seed in bank.seeds.tolist()}) == 15
    assert {scale for bank in banks for scale in bank.scales.tolist()} <= set(params.teacher_bank.guidance)
    assert all(bank.teacher.evaluations == 8 and bank.endpoints.isfinite().all() for bank in banks)


def test_a_bank_without_a_denoiser_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match="dvc"):
        make_teacher_bank(tmp_path / "model", tmp_path / "bank", load_params(PARAMS_FILE))
    assert not (tmp_path / "bank").exists()


def test_pictures_of_ones_own_come_from_the_folder_for_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for number in range(40):
            file = BytesIO()
            Image.fromarray(rng.integers(0, 256, (20, 16, 3), np.uint8)).save(file, "PNG")
            archive.writestr(f"{'left' if number % 2 else 'right'}/{number}.png", file.getvalue())
    overrides = (*SMALL, "denoiser.source=mine.zip", "denoiser.side=16", "denoiser.channels=3")
    make_denoiser(tmp_path, tmp_path / "out", tmp_path / "scratch", load_params(PARAMS_FILE, overrides=overrides))
    assert EdmDenoiser.load(tmp_path / "out").shape == (3, 16, 16)
    assert ClassPictures.load(tmp_path / "out").class_names == ("left", "right")


@pytest.mark.parametrize(
    ("source", "error"),
    [("../secrets", BadParams), ("/etc", BadParams), (".", BadParams), ("nowhere.zip", MissingArtifact)],
)
def test_strange_sources_are_refused(source: str, error: type[Exception], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    params = load_params(PARAMS_FILE, overrides=(f"denoiser.source={source}",))
    with pytest.raises(error):
        make_denoiser(tmp_path / "pictures", tmp_path / "out", tmp_path / "scratch", params)
    assert not (tmp_path / "out").exists()
