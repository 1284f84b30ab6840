"""Which juror a folder holds, and the stages `juror` and `juror-score` from params to scores for either kind."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch

from stages import juror as juror_stage
from stages import juror_score as juror_score_stage
from tests.retoucher.learn.pretrained_folders import write_head, write_siglip
from tests.retoucher.learn.worlds import photos
from vernissage.core.errors import BadParams, CorruptArtifact, MissingArtifact
from vernissage.core.files import atomic_write_json
from vernissage.core.images import save_png, to_uint8
from vernissage.core.params import load_params
from vernissage.retoucher.learn.juror import RankJuror
from vernissage.retoucher.learn.jurors import load_juror, make_any_juror
from vernissage.retoucher.learn.ladders import AXES
from vernissage.retoucher.learn.siglip import SiglipJuror

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.core.params import Params

SIGLIP = (
    "juror.kind=siglip",
    "juror.siglip_model=pretrained/siglip",
    "juror.siglip_head=pretrained/head.safetensors",
)
SMALL = ("juror.size=24", "juror.members=2", "juror.ladders=19", "juror.epochs=1",
         "juror.batch=10", "juror.imagined_scenes=4")  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, worked in, as it is when the stage `juror` begins."""
    images = []
    for row, photo in enumerate(photos(9, side=32)):
        name = f"{row}.png"
        (tmp_path / "data" / "resized").mkdir(parents=True, exist_ok=True)
        save_png(tmp_path / "data" / "resized" / name, to_uint8(photo.permute(1, 2, 0).numpy()))
        split = ("train", "val", "test")[row % 3]
        images.append({"file_name": name, "split": split, "width": 32, "height": 32})
    atomic_write_json(tmp_path / "data" / "annotated" / "annotations.json", {"images": images})
    write_siglip(tmp_path / "pretrained" / "siglip")
    write_head(tmp_path / "pretrained" / "head.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def params(root: Path, *overrides: str) -> Params:
    return load_params(root / "params.yaml", overrides=[*SMALL, *overrides])


def scored(project: Path) -> list[dict[str, Any]]:
    return json.loads((project / "data" / "scored" / "annotations.json").read_text())["images"]


def test_siglip_from_params_to_scores(
    project: Path, pytestconfig: pytest.Config, caplog: pytest.LogCaptureFixture
) -> None:
    settings = params(pytestconfig.rootpath, *SIGLIP)
    with caplog.at_level("INFO", logger="vernissage"):
        juror_stage.main(settings)
    assert "pretrained/siglip on cpu, judged at 32 px" in caplog.text
    juror_score_stage.main(settings)
    juror = load_juror(project / "models" / "juror")
    assert isinstance(juror, SiglipJuror)
    expected = juror.score(photos(9, side=32))
    rows = scored(project)
    assert [row["score"] for row in rows] == pytest.approx(expected.tolist(), abs=1e-3)
    assert [row["score_spread"] for row in rows] == [0] * 9
    assert len({row["score"] for row in rows}) == 9
    evaluation = json.loads((project / "models" / "juror" / "evaluation.json").read_text())
    assert evaluation["photos"] == 3
    assert evaluation["ladders"] == len(AXES)
    assert evaluation["spread"] == 0
    assert evaluation["per_fault"].keys() == {axis.name for axis in AXES}
    # What the report copies for the plots: there is no training to show.
    curves = (project / "models" / "juror" / "curves.csv").read_text().splitlines()
    assert curves == ["member,epoch,ranking_loss,scale_loss", "0,0,,"]


def test_rank_from_params_to_scores(project: Path, pytestconfig: pytest.Config) -> None:
    settings = params(pytestconfig.rootpath)
    juror_stage.main(settings)
    juror_score_stage.main(settings)
    juror = load_juror(project / "models" / "juror")
    assert isinstance(juror, RankJuror)
    assert [row["score"] for row in scored(project)] == pytest.approx(
        juror.score(photos(9, side=32)).tolist(), abs=1e-3
    )
    assert all(row["score_spread"] > 0 for row in scored(project))


def test_a_stage_that_fails_leaves_the_juror_that_was_there(project: Path, pytestconfig: pytest.Config) -> None:
    juror_stage.main(params(pytestconfig.rootpath, *SIGLIP))
    before = load_juror(project / "models" / "juror").score(photos(2))
    (project / "pretrained" / "head.safetensors").unlink()
    with pytest.raises(MissingArtifact, match=r"pretrained/head\.safetensors"):
        juror_stage.main(params(pytestconfig.rootpath, *SIGLIP))
    assert torch.equal(load_juror(project / "models" / "juror").score(photos(2)), before)


def test_a_juror_without_a_kind_is_the_rank_juror(project: Path, pytestconfig: pytest.Config) -> None:
    juror_stage.main(params(pytestconfig.rootpath))
    path = project / "models" / "juror" / "juror.json"
    spec = json.loads(path.read_text())
    for kind in ({}, {"kind": "rank"}):
        path.write_text(json.dumps({**{key: value for key, value in spec.items() if key != "kind"}, **kind}))
        assert isinstance(load_juror(path.parent), RankJuror)


@pytest.mark.parametrize("text", ['{"kind": "oracle"}', '{"kind": null}', '{"kind": ["rank"]}', "[]", "3"])
def test_an_unknown_kind_lists_the_known_ones(tmp_path: Path, text: str) -> None:
    (tmp_path / "juror.json").write_text(text)
    with pytest.raises(CorruptArtifact, match=r"juror\.json: juror of kind .*expected one of rank, siglip"):
        load_juror(tmp_path)


def test_no_juror_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match=r"juror\.json: no such file; make it with `dvc repro juror`"):
        load_juror(tmp_path / "models" / "juror")


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (("juror.kind=oracle",), "juror.kind = 'oracle'.*expected one of rank, siglip"),
        (SIGLIP[:2], "siglip_head is empty with kind = siglip: expected a hub name or a local path"),
        ((SIGLIP[0], SIGLIP[2]), "siglip_model is empty with kind = siglip"),
    ],
)
def test_params_that_name_no_juror_are_refused_before_anything_runs(
    pytestconfig: pytest.Config, overrides: tuple[str, ...], text: str
) -> None:
    with pytest.raises(BadParams, match=text):
        params(pytestconfig.rootpath, *overrides)


def test_a_kind_that_slipped_through_is_refused(project: Path, pytestconfig: pytest.Config) -> None:
    settings = params(pytestconfig.rootpath)
    unchecked = settings.model_copy(update={"juror": settings.juror.model_copy(update={"kind": "oracle"})})
    shutil.rmtree(project / "pretrained")
    with pytest.raises(BadParams, match="expected one of rank, siglip"):
        make_any_juror(project / "annotations.json", project, project / "out", unchecked)
