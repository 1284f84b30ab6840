from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from tests.retoucher.prepare.pictures import ANNOTATE, PHOTOS, RESIZE, write_picture
from vernissage.core.errors import BadInput
from vernissage.core.files import sha256_file
from vernissage.retoucher.domain.statistics import STATISTIC_NAMES
from vernissage.retoucher.prepare.annotate import annotate
from vernissage.retoucher.prepare.collect import collect
from vernissage.retoucher.prepare.ingest import ingest
from vernissage.retoucher.prepare.resize import resize_photos


def load(dataset: Path) -> dict:
    return json.loads((dataset / "annotated" / "annotations.json").read_text())


@pytest.mark.parametrize("folder", ["annotated", "scored"])
def test_file_loads_in_pycocotools(dataset: Path, folder: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(dataset / folder / "annotations.json")
    assert sorted(coco.imgs) == list(range(1, 13))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["hills", "rooms"]
    hills = coco.getImgIds(catIds=coco.getCatIds(catNms=["hills"]))
    assert len(hills) == 6
    (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    image = coco.imgs[1]
    assert annotation["bbox"] == [0, 0, image["width"], image["height"]]
    assert annotation["area"] == image["width"] * image["height"]


def test_images_carry_what_the_contract_promises(dataset: Path) -> None:
    for image in load(dataset)["images"]:
        assert sha256_file(dataset / "resized" / image["file_name"]) == image["sha256"]
        assert set(image["statistics"]) == set(STATISTIC_NAMES)
        assert len(image["phash"]) == 16
        assert image["split"] in {"train", "val", "test"}
        assert image["phash_group"] >= 1
        assert isinstance(image["history"], list)


def test_no_group_is_split_and_every_split_has_colour(dataset: Path) -> None:
    images = load(dataset)["images"]
    for key in ("group", "phash_group", "sha256"):
        splits_of: dict[object, set[str]] = {}
        for image in images:
            splits_of.setdefault(image[key], set()).add(image["split"])
        assert all(len(splits) == 1 for splits in splits_of.values())
    for split in ("train", "val", "test"):
        assert any(i["statistics"]["saturation_mean"] > 0.02 for i in images if i["split"] == split)


def test_two_runs_write_the_same_bytes(dataset: Path, tmp_path: Path) -> None:
    annotate(dataset / "resized", tmp_path, ANNOTATE, seed=0)
    assert (tmp_path / "annotations.json").read_bytes() == (dataset / "annotated" / "annotations.json").read_bytes()
    annotate(dataset / "resized", tmp_path, ANNOTATE, seed=1)
    assert (tmp_path / "annotations.json").read_bytes() != (dataset / "annotated" / "annotations.json").read_bytes()


def test_near_duplicates_among_own_photos_share_a_group(tmp_path: Path) -> None:
    for seed in range(4):
        write_picture(tmp_path / "mine" / f"{seed}.png", seed, 96, 72)
        write_picture(tmp_path / "mine" / f"{seed}.jpg", seed, 96, 72)
    ingest(tmp_path / "mine", tmp_path / "ingest", report=tmp_path / "ingest.csv")
    collect(tmp_path / "ingest", tmp_path / "raw", PHOTOS, seed=0)
    resize_photos(tmp_path / "raw", tmp_path / "resized", RESIZE, PHOTOS, reports=tmp_path)
    report = annotate(tmp_path / "resized", tmp_path / "annotated", ANNOTATE, seed=0)
    assert (report.photos, report.groups) == (8, 4)
    assert sum(report.photos_of_split.values()) == 8
    images = json.loads((tmp_path / "annotated" / "annotations.json").read_text())["images"]
    stems: dict[str, set[str]] = {}
    for image in images:
        stems.setdefault(Path(image["source_file"]).stem, set()).add(image["group"])
    assert all(len(groups) == 1 for groups in stems.values())


def test_too_few_photos_say_how_many_are_needed(tmp_path: Path) -> None:
    for seed in range(2):
        write_picture(tmp_path / "mine" / f"{seed}.png", seed)
    ingest(tmp_path / "mine", tmp_path / "ingest", report=tmp_path / "ingest.csv")
    collect(tmp_path / "ingest", tmp_path / "raw", PHOTOS, seed=0)
    resize_photos(tmp_path / "raw", tmp_path / "resized", RESIZE, PHOTOS, reports=tmp_path)
    with pytest.raises(BadInput, match="at least 3"):
        annotate(tmp_path / "resized", tmp_path / "annotated", ANNOTATE, seed=0)
