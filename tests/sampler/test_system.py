"""The sampler's row: what the denoiser's and the teacher bank's stages leave, and what they refuse."""

from __future__ import annotations

import csv
import json
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.sampler.domain.tiny_pipelines import save_stable_diffusion
from vernissage.core.errors import BadParams, MissingArtifact
from vernissage.core.folders import SystemFolders
from vernissage.core.params import load_params
from vernissage.sampler.domain.unet import EdmDenoiser
from vernissage.sampler.prepare.pictures import ClassPictures
from vernissage.sampler.prepare.teacher_bank import PARTS, Bank
from vernissage.sampler.system import SamplerSystem, make_denoiser, make_teacher_bank
from vernissage.sampler.use.steered_scheduler import SteeredScheduler

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


PIPELINE = (
    "sampler.batch=32", "teacher_bank.train=16", "teacher_bank.val=24", "teacher_bank.test=32", "teacher_bank.calls=8",
    "teacher_bank.checked=2", "teacher_bank.guidance=[1,3]", "train.sampler.budgets=[2,3]",
    "train.sampler.sigma_steps=2", "train.sampler.coefficient_steps=2", "train.sampler.less_guidance_steps=2",
    "train.sampler.fit_batch=4", "train.sampler.grid_pairs=4", "train.sampler.decisions=32", "train.sampler.slots=8",
    "train.sampler.rollout=4", "train.sampler.ppo_batch=16", "benchmark.sampler.noise_seeds=2",
    "benchmark.sampler.bootstrap=100", "benchmark.sampler.mixture_requests=20", "robustness.sampler.requests=24",
)  # fmt: skip


def test_every_stage_runs_with_a_pipeline_of_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_stable_diffusion(tmp_path / "data" / "pipelines" / "small")
    (tmp_path / "data" / "pictures").mkdir()
    (tmp_path / "data" / "pictures" / "prompts.txt").write_text("a red fox\na blue jay\n")
    more = ("sampler.model=small", "sampler.prompts=prompts.txt")
    params = load_params(PARAMS_FILE, overrides=(*PIPELINE, *more))
    system, folders = SamplerSystem(), SystemFolders("sampler", tmp_path)
    make_denoiser(tmp_path / "data" / "pictures", tmp_path / "models" / "denoiser", tmp_path / "scratch", params)
    system.prepare(params, folders)
    system.train(params, folders)
    system.benchmark(params, folders)
    system.robustness(params, folders)
    system.report(params, folders)
    model = system.load(folders)
    assert model.book.budgets == (2, 3)
    assert model.student is None
    assert model.names == ("a red fox", "a blue jay")
    metrics = json.loads(folders.metrics.read_text(encoding="utf-8"))
    assert metrics["robustness"]["cases"] == 20
    assert (folders.plots / "summary.html").is_file()
    programs = json.loads((folders.model / "programs.json").read_text(encoding="utf-8"))
    scheduler = SteeredScheduler(programs=programs)
    scheduler.set_timesteps(3)
    assert len(scheduler.timesteps) == 3
