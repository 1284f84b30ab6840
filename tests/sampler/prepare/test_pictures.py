"""Pictures by class: digits, folders and archives; broken and hostile entries stay out; twins stay together."""

from __future__ import annotations

import io
import os
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.core.weights import load_weights, save_weights
from vernissage.sampler.prepare import pictures as pictures_module
from vernissage.sampler.prepare.pictures import SPLITS, ClassPictures, Rejected, Shares, load_pictures

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def encoded(seed: int, side: int = 8, kind: str = "PNG", mode: str = "RGB") -> bytes:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def unpacked(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def two_classes(count: int = 12, prefix: str = "") -> dict[str, bytes]:
    names = ((number, name) for name in ("cat", "dog") for number in range(count))
    return {f"{prefix}{name}/{number:03}.png": encoded(seed) for seed, (number, name) in enumerate(names)}


def hashes(pictures: ClassPictures, split: str) -> set[bytes]:
    return {picture.numpy().tobytes() for picture in pictures.of_split(split)[0]}


def reasons(pictures: ClassPictures) -> dict[str, str]:
    return {one.name: one.reason for one in pictures.rejected}


# --- digits -----------------------------------------------------------------------------------------------------------


def test_the_digits_are_all_there() -> None:
    digits = load_pictures("digits", 8, 1)
    assert digits.pictures.shape == (1797, 1, 8, 8)
    assert digits.class_names == tuple("0123456789")
    assert torch.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # The first digit is a 0; its first row reads 0 0 5 13 9 1 0 0 of 16.
    assert digits.labels[0] == 0
    assert digits.pictures[0, 0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
    shares = torch.bincount(digits.splits, minlength=3) / 1797
    assert torch.allclose(shares, torch.tensor([0.7, 0.1, 0.2]), atol=0.04)
    assert not digits.rejected


def test_the_digits_come_in_colour_and_larger_where_that_is_asked_for() -> None:
    digits = load_pictures("digits", 16, 3)
    assert digits.pictures.shape == (1797, 3, 16, 16)
    assert torch.equal(digits.pictures[:, 0], digits.pictures[:, 2])


# --- folders and archives ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "animals/", "a/b/"], ids=["plain", "in one folder", "in two"])
def test_a_folder_and_an_archive_give_the_same(tmp_path: Path, prefix: str) -> None:
    files = two_classes(prefix=prefix)
    folder = load_pictures(unpacked(tmp_path / "folder", files), 8, 3)
    archive = load_pictures(zipped(tmp_path / "pictures.zip", files), 8, 3)
    assert folder.class_names == archive.class_names == ("cat", "dog")
    assert torch.equal(folder.pictures, archive.pictures)
    assert torch.equal(folder.labels, archive.labels)
    assert torch.equal(folder.splits, archive.splits)
    assert torch.bincount(folder.labels).tolist() == [12, 12]


def test_an_archive_is_never_written_to_disk(tmp_path: Path) -> None:
    path = zipped(tmp_path / "pictures.zip", two_classes())
    load_pictures(path, 8, 3)
    assert list(tmp_path.iterdir()) == [path]


def test_pictures_are_cut_to_their_middle_and_scaled(tmp_path: Path) -> None:
    stripes = np.zeros((8, 16, 3), np.uint8)
    stripes[:, 4:12] = (200, 100, 0)
    file = io.BytesIO()
    Image.fromarray(stripes).save(file, "PNG")
    files = two_classes() | {"cat/000.png": file.getvalue()}
    found = load_pictures(zipped(tmp_path / "a.zip", files), 4, 3)
    assert found.pictures[0].flatten(1).unique(dim=1).tolist() == [[200], [100], [0]]
    grey = load_pictures(zipped(tmp_path / "b.zip", files), 4, 1)
    assert grey.pictures[0].unique().tolist() == [118]  # 0.299 * 200 + 0.587 * 100 = 118.5


@pytest.mark.parametrize(
    ("mode", "expected"), [("I;16", 100), ("P", 100), ("RGBA", 255), ("1", 0)], ids=["16 bits", "palette", "clear", "1"]
)
def test_unusual_kinds_of_pictures_keep_their_tones(tmp_path: Path, mode: str, expected: int) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 100 * 257, np.uint16))
    else:
        image = Image.new("RGBA", (8, 8), (9, 9, 9, 0)) if mode == "RGBA" else Image.new("L", (8, 8), 100).convert(mode)
    if mode == "1":
        image = Image.new("1", (8, 8), 0)
    file = io.BytesIO()
    image.save(file, "PNG")
    found = load_pictures(zipped(tmp_path / "a.zip", two_classes() | {"cat/000.png": file.getvalue()}), 8, 3)
    assert found.pictures[0].unique().tolist() == [expected]


def test_folders_decide_the_test_split(tmp_path: Path) -> None:
    files = {f"train/{name}": data for name, data in two_classes(40).items()}
    files |= {f"test/{name}/{seed}.png": encoded(1000 + seed) for name in ("cat", "dog") for seed in range(5)}
    # One test picture lies in the train folder as well, under another class.
    files["test/cat/again.png"] = files["train/dog/003.png"]
    found = load_pictures(zipped(tmp_path / "a.zip", files), 8, 3)
    assert len(found.of_split("test")[0]) == 11
    assert not hashes(found, "test") & (hashes(found, "train") | hashes(found, "val"))
    assert reasons(found) == {"train/dog/003.png": "the same picture is in the folder test"}
    assert 0 < len(found.of_split("val")[0]) < 20


def test_a_folder_for_validation_takes_the_place_of_its_share(tmp_path: Path) -> None:
    files = {f"{split}/{name}": encoded(seed) for split, seed, name in (
        (split, 100 * at + number, f"{kind}/{number}.png")
        for at, (split, kind) in enumerate((s, k) for s in SPLITS for k in ("cat", "dog"))
        for number in range(6)
    )}  # fmt: skip
    found = load_pictures(zipped(tmp_path / "a.zip", files), 8, 3, Shares(0.4, 0.4))
    assert torch.bincount(found.splits).tolist() == [12, 12, 12]


def test_names_that_are_no_utf8_can_be_saved(tmp_path: Path) -> None:
    files = two_classes() | {os.fsdecode(b"d\xf6g/1.png"): encoded(90), os.fsdecode(b"d\xf6g/2.png"): encoded(91)}
    try:
        source = unpacked(tmp_path / "folder", files)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    found = load_pictures(source, 8, 3, Shares(0.1, 0.0))
    found.save(tmp_path / "saved")
    assert ClassPictures.load(tmp_path / "saved").class_names == ("cat", "d?g", "dog")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    files = {name.replace("cat", "train"): data for name, data in two_classes().items()}
    assert load_pictures(zipped(tmp_path / "a.zip", files), 8, 3).class_names == ("dog", "train")


def test_equal_pictures_never_straddle_splits_and_additions_move_nothing(tmp_path: Path) -> None:
    files = {f"{name}/{seed}.png": encoded(seed) for name in ("cat", "dog") for seed in range(60)}
    found = load_pictures(zipped(tmp_path / "a.zip", files), 8, 3, Shares(0.3, 0.3))
    train, val, test = (hashes(found, split) for split in SPLITS)
    assert min(len(train), len(val), len(test)) > 5
    assert len(train) + len(val) + len(test) == 60
    more = files | {f"{name}/{seed}.png": encoded(seed) for name in ("cat", "eel") for seed in range(60, 90)}
    grown = load_pictures(zipped(tmp_path / "b.zip", more), 8, 3, Shares(0.3, 0.3))
    assert train <= hashes(grown, "train")
    assert val <= hashes(grown, "val")
    assert test <= hashes(grown, "test")


# --- what is wrong with them ------------------------------------------------------------------------------------------


def test_broken_files_cost_only_themselves(tmp_path: Path) -> None:
    whole = encoded(7, side=32)
    broken = {
        "cat/empty.png": b"",
        "cat/text.jpg": b"not a picture at all",
        "dog/half.png": whole[: len(whole) // 2],
        "dog/float.tiff": _float_tiff(),
    }
    clutter = {"cat/.DS_Store": b"x", "__MACOSX/cat/000.png": b"x", "readme.txt": b"x", "cat/notes.md": b"x"}
    files = two_classes() | broken | clutter
    for source in (zipped(tmp_path / "a.zip", files), unpacked(tmp_path / "folder", files)):
        found = load_pictures(source, 8, 3)
        assert len(found) == 24
        assert set(reasons(found)) == set(broken)
        assert reasons(found)["cat/empty.png"] == "empty file"
        assert all(reasons(found).values())


def _float_tiff() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ones((4, 4), np.float32)).save(file, "TIFF")
    return file.getvalue()


def test_names_that_lead_out_of_the_archive_are_ignored(tmp_path: Path) -> None:
    hostile = ["../cat/a.png", "/cat/b.png", "cat/../../c.png", "..\\cat\\d.png", "C:/cat/e.png", "cat/..\\..\\f.png"]
    files = two_classes() | {name: encoded(500 + at) for at, name in enumerate(hostile)}
    (tmp_path / "inside").mkdir()
    found = load_pictures(zipped(tmp_path / "inside" / "a.zip", files), 8, 3)
    assert len(found) == 24
    assert found.class_names == ("cat", "dog")
    assert reasons(found) == dict.fromkeys(hostile, "a path that leads out of the archive")
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_files_and_pictures_beyond_the_limits_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures_module, "MAX_FILE_BYTES", 2000)
    monkeypatch.setattr(pictures_module, "MAX_PIXELS", 600)
    wide = io.BytesIO()
    Image.new("RGB", (30, 30)).save(wide, "PNG")
    files = two_classes() | {"cat/heavy.png": encoded(1, side=40), "dog/wide.png": wide.getvalue()}
    found = load_pictures(zipped(tmp_path / "a.zip", files), 8, 3)
    assert "bytes; at most 2,000" in reasons(found)["cat/heavy.png"]
    assert "30 x 30" in reasons(found)["dog/wide.png"]
    assert len(found) == 24


def test_a_size_that_the_archive_lies_about_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "a.zip", two_classes() | {"cat/bomb.png": bytes(5000)})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"cat/bomb.png") - 46
    data[at + 24 : at + 28] = (100).to_bytes(4, "little")  # uncompressed size in the archive's directory
    path.write_bytes(bytes(data))
    monkeypatch.setattr(pictures_module, "MAX_FILE_BYTES", 2000)
    found = load_pictures(path, 8, 3)
    assert list(reasons(found)) == ["cat/bomb.png"]
    assert len(found) == 24


def test_a_damaged_entry_is_left_out(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", two_classes())
    data = bytearray(path.read_bytes())
    data[data.index(b"cat/004.png") + 60] ^= 0xFF
    path.write_bytes(bytes(data))
    found = load_pictures(path, 8, 3)
    assert list(reasons(found)) == ["cat/004.png"]


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures_module, "MAX_PICTURES", 10)
    with pytest.raises(BadInput, match="24 files, at most 10"):
        load_pictures(zipped(tmp_path / "a.zip", two_classes()), 8, 3)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no pictures inside class folders"),
        ({"a.png": encoded(1), "b.png": encoded(2)}, "2 left out; the first: a.png: not inside the folder of a class"),
        (two_classes() | {"eel/1.png": encoded(99)}, "class 'eel': 1, expected at least 2"),
        (two_classes() | {"eel/1.png": b"x", "eel/2.png": b"y"}, "class 'eel': 0, expected at least 2.*2 left out"),
        (two_classes(prefix="train/") | {"test/eel/1.png": encoded(98), "test/eel/2.png": encoded(97)},
         "all 2 pictures of class 'eel' are held out"),
    ],
    ids=["nothing", "no folders", "one picture", "only broken ones", "class only tested"],
)  # fmt: skip
def test_sources_without_enough_are_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_pictures(zipped(tmp_path / "a.zip", files), 8, 3)


def test_missing_and_wrong_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match="nowhere: no such folder or zip"):
        load_pictures(tmp_path / "nowhere", 8, 3)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(BadInput, match=r"text\.zip: neither a folder nor a readable zip"):
        load_pictures(tmp_path / "text.zip", 8, 3)


@pytest.mark.parametrize(("side", "channels"), [(0, 3), (8, 2)])
def test_sizes_out_of_range_are_refused(side: int, channels: int) -> None:
    with pytest.raises(BadParams, match="expected 1 to 4096 pixels, 1 or 3 channels"):
        load_pictures("digits", side, channels)


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.2), (0.5, 0.5), (float("nan"), 0.1)])
def test_shares_that_leave_nothing_are_refused(val: float, test: float) -> None:
    with pytest.raises(BadParams, match="together below 1"):
        Shares(val, test)


# --- on disk ----------------------------------------------------------------------------------------------------------


def small() -> ClassPictures:
    return ClassPictures(
        pictures=torch.arange(2 * 3 * 16, dtype=torch.uint8).reshape(2, 3, 4, 4),
        labels=torch.tensor([0, 1]),
        splits=torch.tensor([0, 2], dtype=torch.uint8),
        class_names=("a", "ß"),
        rejected=(Rejected("a/b.png", "empty file"),),
    )


def test_saved_and_loaded_they_are_the_same(tmp_path: Path) -> None:
    small().save(tmp_path)
    again = ClassPictures.load(tmp_path)
    for name in ("pictures", "labels", "splits"):
        assert torch.equal(getattr(again, name), getattr(small(), name))
    assert again.class_names == ("a", "ß")
    assert again.rejected == small().rejected


def test_pictures_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact):
        ClassPictures.load(tmp_path)
    small().save(tmp_path)
    tensors, facts = load_weights(tmp_path, name="pictures")
    save_weights(tmp_path, tensors, facts | {"class_names": ["a"]}, name="pictures")
    with pytest.raises(CorruptArtifact, match="labels from 0 to 1: expected 0 to 0"):
        ClassPictures.load(tmp_path)
    save_weights(tmp_path, tensors, {}, name="pictures")
    with pytest.raises(CorruptArtifact, match="class_names"):
        ClassPictures.load(tmp_path)


def test_a_split_of_another_name_is_refused() -> None:
    with pytest.raises(BadInput, match="split 'dev': expected one of train, val, test"):
        small().of_split("dev")
