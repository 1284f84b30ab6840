from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.retoucher.prepare.pictures import PHOTOS, tree_bytes, write_picture
from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.files import sha256_file
from vernissage.retoucher.prepare.collect import collect
from vernissage.retoucher.prepare.ingest import ingest
from vernissage.retoucher.prepare.tables import COLLECTED_COLUMNS, read_table

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ingested(tmp_path: Path) -> Path:
    for seed in range(3):
        write_picture(tmp_path / "mine" / "hills" / f"{seed}.jpg", seed)
    ingest(tmp_path / "mine", tmp_path / "ingest", report=tmp_path / "ingest.csv")
    return tmp_path / "ingest"


def test_own_photos_come_first(ingested: Path, tmp_path: Path) -> None:
    report = collect(ingested, tmp_path / "raw", PHOTOS, seed=0)
    assert (report.origin, report.photos, report.groups) == ("ingested", 3, 3)
    rows = read_table(tmp_path / "raw" / "collected.csv", COLLECTED_COLUMNS)
    for row in rows:
        assert sha256_file(tmp_path / "raw" / row["file"]) == row["sha256"]
        assert row["sha256"].startswith(row["group"])
        assert row["category"] == "hills"


def test_a_missing_photo_says_how_to_fetch_it(ingested: Path, tmp_path: Path) -> None:
    (ingested / "photos" / "hills" / "1.jpg").unlink()
    with pytest.raises(MissingArtifact, match=r"hills/1\.jpg.*dvc checkout.*dvc pull"):
        collect(ingested, tmp_path / "raw", PHOTOS, seed=0)
    assert not (tmp_path / "raw").exists()


def test_a_changed_photo_is_refused(ingested: Path, tmp_path: Path) -> None:
    with (ingested / "photos" / "hills" / "1.jpg").open("ab") as file:
        file.write(b"more")
    with pytest.raises(CorruptArtifact, match=r"hills/1\.jpg"):
        collect(ingested, tmp_path / "raw", PHOTOS, seed=0)


def test_samples_fill_in_and_two_runs_are_equal(tmp_path: Path) -> None:
    few = PHOTOS.model_copy(update={"sample_crops": 1})
    report = collect(tmp_path / "nothing", tmp_path / "raw", few, seed=0)
    assert (report.origin, report.photos, report.groups) == ("samples", 12, 12)
    first = tree_bytes(tmp_path / "raw")
    shutil.rmtree(tmp_path / "raw")
    collect(tmp_path / "nothing", tmp_path / "raw", few, seed=0)
    assert tree_bytes(tmp_path / "raw") == first
    rows = read_table(tmp_path / "raw" / "collected.csv", COLLECTED_COLUMNS)
    assert {"people", "animals", "objects", "places", "plants", "textures"} == {row["category"] for row in rows}
    assert all(row["licence"] and (tmp_path / "raw" / row["file"]).is_file() for row in rows)


def test_ingested_photos_replace_the_samples_of_an_earlier_run(ingested: Path, tmp_path: Path) -> None:
    (tmp_path / "raw" / "people").mkdir(parents=True)
    (tmp_path / "raw" / "people" / "old.png").write_bytes(b"old")
    collect(ingested, tmp_path / "raw", PHOTOS, seed=0)
    assert not (tmp_path / "raw" / "people").exists()
