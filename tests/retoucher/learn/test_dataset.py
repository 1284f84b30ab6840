"""Reading what the stages before wrote, and tables that plots can read."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.retoucher.learn.worlds import darkened, photos
from vernissage.core.errors import BadInput, MissingArtifact
from vernissage.core.files import atomic_write_json
from vernissage.core.images import save_png, to_uint8
from vernissage.core.tables import write_csv
from vernissage.retoucher.learn.dataset import (
    cropped_originals,
    load_photo,
    load_starts,
    load_thumbnails,
    photos_of_split,
    read_pairs,
    unique_originals,
)
from vernissage.retoucher.learn.suggestions import classic_suggestions

if TYPE_CHECKING:
    from pathlib import Path

ORIGINALS = photos(3, side=40)
FAULTY = darkened(ORIGINALS).faulty


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """Two pairs of the first photo, one of the second for training, and a clean one to validate with."""
    rows = [(0, "train", 1), (0, "train", 1), (1, "train", 2), (2, "val", 0)]
    for index, photo in enumerate(ORIGINALS):
        save_png(tmp_path / f"original{index}.png", to_uint8(photo.permute(1, 2, 0).numpy()))
        save_png(tmp_path / f"faulty{index}.png", to_uint8(FAULTY[index].permute(1, 2, 0).numpy()))
    with (tmp_path / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["pair_id", "split", "group", "category", "original", "faulty", "n_faults", "faults"])
        for number, (photo, split, faults) in enumerate(rows, start=1):
            writer.writerow(
                [number, split, f"g{photo}", "hills, rooms", f"original{photo}.png", f"faulty{photo}.png", faults, "[]"]
            )
    return tmp_path


def test_pairs_of_one_split_come_in_the_order_of_the_table(ready: Path) -> None:
    train = read_pairs(ready, "train")
    assert [pair.pair_id for pair in train] == [1, 2, 3]
    assert [pair.n_faults for pair in train] == [1, 1, 2]
    assert {pair.group for pair in train}.isdisjoint(pair.group for pair in read_pairs(ready, "val"))
    assert train[0].category == "hills, rooms"
    assert train[0].original == ready / "original0.png"


def test_what_is_missing_is_named_with_what_to_do(ready: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="'test' is empty"):
        read_pairs(ready, "test")
    with pytest.raises(MissingArtifact, match="dvc repro degrade-split"):
        read_pairs(tmp_path / "nowhere", "train")


def test_photos_come_back_as_they_were_stored(ready: Path) -> None:
    torch.testing.assert_close(load_photo(ready / "original1.png"), ORIGINALS[1:2], atol=1e-6, rtol=0)
    same = load_thumbnails([ready / "original0.png", ready / "original2.png"], 40)
    torch.testing.assert_close(same, ORIGINALS[[0, 2]], atol=1e-6, rtol=0)
    small = load_thumbnails([ready / "original0.png"], 16)
    assert small.shape == (1, 3, 16, 16)
    torch.testing.assert_close(small * 255, (small * 255).round())


def test_pairs_are_loaded_with_suggestions_of_the_stored_photos(ready: Path) -> None:
    starts = load_starts(read_pairs(ready, "train"), 16)
    assert starts.faulty.shape == starts.reference.shape == (3, 3, 16, 16)
    assert torch.equal(starts.faulty[0], starts.faulty[1])
    assert (starts.faulty.mean(dim=(1, 2, 3)) < starts.reference.mean(dim=(1, 2, 3))).all()
    torch.testing.assert_close(starts.suggestions, classic_suggestions(FAULTY[[0, 0, 1]]), atol=1e-4, rtol=0)
    alone = load_starts(read_pairs(ready, "val"), 16)
    assert alone.suggestions.shape == (1, starts.suggestions.shape[1])


def test_an_original_with_several_pairs_counts_once(ready: Path) -> None:
    pictures = unique_originals(read_pairs(ready, "train"), 16)
    assert len(pictures.thumbnails) == len(pictures.samples) == 2
    torch.testing.assert_close(pictures.samples.amin(dim=(2, 3)), ORIGINALS[:2].amin(dim=(2, 3)), atol=1e-6, rtol=0)


def test_crops_show_parts_of_the_originals(ready: Path) -> None:
    pairs = read_pairs(ready, "train")
    crops = cropped_originals(pairs, 16, 3, np.random.default_rng(0))
    assert crops.thumbnails.shape == crops.samples.shape == (6, 3, 16, 16)
    known = [{tuple(pixel) for pixel in photo.flatten(1).T.tolist()} for photo in load_thumbnails(
        [ready / "original0.png", ready / "original1.png"], 40)]  # fmt: skip
    for number, sample in enumerate(crops.samples):
        assert {tuple(pixel) for pixel in sample.flatten(1).T.tolist()} <= known[number // 3]
    again = cropped_originals(pairs, 16, 3, np.random.default_rng(0))
    assert torch.equal(again.thumbnails, crops.thumbnails)
    assert len(cropped_originals(pairs, 16, 0, np.random.default_rng(0)).thumbnails) == 0


def test_photos_of_a_split_of_the_coco_file(ready: Path) -> None:
    images = [{"file_name": f"original{i}.png", "split": split} for i, split in enumerate(("train", "val", "train"))]
    atomic_write_json(ready / "annotations.json", {"images": images})
    found = photos_of_split(ready / "annotations.json", ready, "train", 40)
    torch.testing.assert_close(found, ORIGINALS[[0, 2]], atol=1e-6, rtol=0)
    with pytest.raises(BadInput, match="'test' is empty"):
        photos_of_split(ready / "annotations.json", ready, "test", 40)


def test_tables_are_rounded_and_can_be_empty(tmp_path: Path) -> None:
    write_csv(tmp_path / "curves.csv", [{"phase": "plan", "loss": 1 / 3}, {"phase": "a, b", "loss": 2.0}])
    assert (tmp_path / "curves.csv").read_text() == 'phase,loss\nplan,0.333333\n"a, b",2.0\n'
    write_csv(tmp_path / "empty.csv", [])
    assert (tmp_path / "empty.csv").read_text().strip() == ""
