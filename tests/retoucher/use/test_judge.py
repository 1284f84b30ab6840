"""Photos are judged as `retouch` judges them; what cannot be read is listed and stops nothing."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import torch

from tests.retoucher.agents import agent_with_plan, save_models, tiny_juror
from tests.retoucher.use.test_retouch import save_photo
from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.images import read_photo
from vernissage.retoucher.domain.recipe import Recipe
from vernissage.retoucher.domain.statistics import STATISTIC_NAMES
from vernissage.retoucher.learn.juror import RankJuror
from vernissage.retoucher.use.agent import seen_by
from vernissage.retoucher.use.judge import judge_files
from vernissage.retoucher.use.reasons import MEASURED_EDGE
from vernissage.retoucher.use.retouch import retouch_files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_models(tmp_path_factory.mktemp("judging"), agent_with_plan({"exposure": 0.3}))


def test_scores_are_those_of_the_juror_with_its_spread(models: tuple[Path, Path], tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.png")
    (verdict,) = judge_files([photo], juror_folder=models[1])
    juror = RankJuror.load(models[1])
    seen = seen_by(juror, read_photo(photo))
    assert verdict.score == pytest.approx(float(juror.score(seen)[0]), abs=1e-4)
    assert verdict.spread == pytest.approx(float(juror.spread(seen)[0]), abs=1e-4)
    assert (verdict.path, verdict.size, verdict.problem) == (photo, (64, 48), "")
    assert set(verdict.statistics) == set(STATISTIC_NAMES)
    assert 0 < verdict.statistics["luma_p50"] < 0.6


def test_both_commands_give_a_photo_the_same_score(models: tuple[Path, Path], tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.jpg")
    (verdict,) = judge_files([photo], juror_folder=models[1])
    retouch_files([photo], tmp_path / "out", model_folder=models[0], juror_folder=models[1])
    recipe = Recipe.from_json((tmp_path / "out" / "a.recipe.json").read_text())
    assert verdict.score == pytest.approx(recipe.score_before, abs=1e-3)


def test_one_bad_photo_never_stops_the_others(models: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    save_photo(folder / "b.png")
    (folder / "a.jpg").write_text("no picture")
    verdicts = judge_files([folder, tmp_path / "missing.png"], juror_folder=models[1])
    assert [verdict.path.name for verdict in verdicts] == ["a.jpg", "b.png", "missing.png"]
    assert [verdict.score is None for verdict in verdicts] == [True, False, True]
    assert verdicts[2].problem == "no such file"
    assert verdicts[0].problem


def test_a_missing_or_damaged_juror_is_named(models: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match="dvc repro juror"):
        judge_files([save_photo(tmp_path / "a.png")], juror_folder=tmp_path)
    broken = shutil.copytree(models[1], tmp_path / "broken")
    (broken / "member-0.safetensors").write_bytes(b"damaged")
    with pytest.raises(CorruptArtifact):
        judge_files([tmp_path / "a.png"], juror_folder=broken)


def test_jurors_see_as_many_pixels_as_they_can_use(tmp_path: Path) -> None:
    from vernissage.core.images import write_photo

    write_photo(tmp_path / "wide.png", torch.rand(300, 900, 3).numpy())
    photo = read_photo(tmp_path / "wide.png")
    juror = tiny_juror()
    assert tuple(seen_by(juror, photo).shape[2:]) == (round(MEASURED_EDGE / 3), MEASURED_EDGE)
    # A juror with better eyes gets its side on the shorter edge.
    sharp = RankJuror(juror.members, 200)
    assert tuple(seen_by(sharp, photo).shape[2:]) == (200, 600)
