from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.retoucher.prepare.pictures import PHOTOS, RESIZE, picture, tree_bytes, write_picture
from vernissage.core.errors import BadInput, GateFailed
from vernissage.core.files import sha256_file
from vernissage.core.images import load_rgb8
from vernissage.retoucher.prepare.collect import collect
from vernissage.retoucher.prepare.ingest import ingest
from vernissage.retoucher.prepare.resize import ResizeReport, resize_photos
from vernissage.retoucher.prepare.tables import (
    COLLECTED_COLUMNS,
    INGEST_REPORT_COLUMNS,
    PHOTO_COLUMNS,
    REJECTED_COLUMNS,
    read_table,
    write_table,
)

if TYPE_CHECKING:
    from pathlib import Path


def raw_folder(root: Path, files: list[Path]) -> Path:
    """A folder of raw photos as `collect` writes it, from files that may be anything."""
    rows = [
        {
            "file": file.relative_to(root).as_posix(),
            "category": "odd",
            "group": file.name,
            "source": file.name,
            "licence": "",
            "sha256": sha256_file(file),
        }
        for file in files
    ]
    write_table(root / "collected.csv", COLLECTED_COLUMNS, rows)
    return root


def run(root: Path, **changes: object) -> ResizeReport:
    photos = PHOTOS.model_copy(update=changes)
    return resize_photos(root / "raw", root / "resized", RESIZE, photos, reports=root / "reports")


def broken_files(folder: Path) -> list[Path]:
    """Files that users have: empty, cut off, misnamed, tiny, in odd modes, turned, animated, with odd names."""
    folder.mkdir(parents=True)
    image = Image.fromarray(picture(5))
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG")
    png = io.BytesIO()
    image.save(png, "PNG")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "truncated.jpg").write_bytes(jpeg.getvalue()[: len(jpeg.getvalue()) // 2])
    (folder / "truncated.png").write_bytes(png.getvalue()[: len(png.getvalue()) // 2])
    (folder / "only a header.png").write_bytes(png.getvalue()[:20])
    (folder / "text.jpg").write_text("I am not a photo")
    (folder / "noise.png").write_bytes(np.random.default_rng(0).bytes(5000))
    damaged = bytearray(png.getvalue())
    damaged[len(damaged) // 2] ^= 0xFF
    (folder / "damaged.png").write_bytes(bytes(damaged))
    (folder / "actually.jpeg").write_bytes(png.getvalue())
    Image.new("RGB", (1, 1)).save(folder / "1x1.png")
    Image.new("RGB", (400, 3)).save(folder / "line.png")
    Image.new("RGB", (1200, 1000)).save(folder / "too many pixels.png")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("P").save(folder / "palette.gif")
    image.convert("L").save(folder / "grey.png")
    image.convert("1").save(folder / "bilevel.png")
    image.convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(folder / "16 bit.png")
    image.save(folder / "animated.gif", save_all=True, append_images=[image.rotate(90)])
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", exif=exif)
    image.save(folder / "Füße 猫.webp")
    image.save(folder / "profile.jpg", icc_profile=b"this is no profile")
    return sorted(folder.iterdir())


def test_every_odd_file_is_in_the_dataset_or_rejected_with_a_reason(tmp_path: Path) -> None:
    files = broken_files(tmp_path / "raw" / "odd")
    raw_folder(tmp_path / "raw", files)
    report = run(tmp_path)
    accepted = {row["source_file"]: row for row in read_table(tmp_path / "resized" / "photos.csv", PHOTO_COLUMNS)}
    rejected = {row["file"]: row for row in read_table(tmp_path / "resized" / "rejected.csv", REJECTED_COLUMNS)}
    assert set(accepted) | set(rejected) == {f"odd/{file.name}" for file in files}
    assert not set(accepted) & set(rejected)
    assert (len(accepted), len(rejected)) == (report.accepted, report.rejected)
    assert all(len(row["reason"]) > 5 for row in rejected.values())
    assert {file.removeprefix("odd/") for file in rejected} == {
        "empty.jpg", "truncated.jpg", "truncated.png", "only a header.png", "text.jpg", "noise.png", "damaged.png",
        "1x1.png", "line.png", "too many pixels.png",
    }  # fmt: skip
    assert "1x1" in rejected["odd/1x1.png"]["reason"]
    assert "exif-rotated 6" in accepted["odd/turned.jpg"]["history"]
    assert (accepted["odd/turned.jpg"]["width"], accepted["odd/turned.jpg"]["height"]) == ("36", "48")


def test_the_odd_files_survive_the_whole_way_from_ingest(tmp_path: Path) -> None:
    files = broken_files(tmp_path / "mine" / "odd")
    ingest(tmp_path / "mine", tmp_path / "ingest", report=tmp_path / "ingest.csv", max_pixels=PHOTOS.max_pixels)
    collect(tmp_path / "ingest", tmp_path / "raw", PHOTOS, seed=0)
    run(tmp_path)
    reported = {row["file"]: row for row in read_table(tmp_path / "ingest.csv", INGEST_REPORT_COLUMNS)}
    assert set(reported) == {f"odd/{file.name}" for file in files}
    assert all(row["reason"] for row in reported.values() if row["status"] != "added")
    collected = read_table(tmp_path / "raw" / "collected.csv", COLLECTED_COLUMNS)
    accepted = read_table(tmp_path / "resized" / "photos.csv", PHOTO_COLUMNS)
    rejected = read_table(tmp_path / "resized" / "rejected.csv", REJECTED_COLUMNS)
    assert len(collected) == sum(row["status"] == "added" for row in reported.values())
    assert {r["source_file"] for r in accepted} | {r["file"] for r in rejected} == {r["file"] for r in collected}


def test_size_ids_hashes_and_no_enlargement(tmp_path: Path) -> None:
    files = [
        write_picture(tmp_path / "raw" / f"{i}.png", i, *size)
        for i, size in enumerate([(96, 72), (30, 20), (48, 48), (70, 130)])
    ]
    raw_folder(tmp_path / "raw", files)
    run(tmp_path)
    rows = read_table(tmp_path / "resized" / "photos.csv", PHOTO_COLUMNS)
    assert [row["image_id"] for row in rows] == ["1", "2", "3", "4"]
    assert [(int(r["width"]), int(r["height"])) for r in rows] == [(48, 36), (30, 20), (48, 48), (26, 48)]
    assert [(r["original_width"], r["original_height"]) for r in rows][3] == ("70", "130")
    for row in rows:
        assert sha256_file(tmp_path / "resized" / row["file"]) == row["sha256"]
        assert load_rgb8(tmp_path / "resized" / row["file"]).shape == (int(row["height"]), int(row["width"]), 3)
    assert np.array_equal(load_rgb8(tmp_path / "resized" / "photos" / "000002.png"), picture(1, 30, 20))


def test_two_runs_are_equal(tmp_path: Path) -> None:
    raw_folder(tmp_path / "raw", [write_picture(tmp_path / "raw" / f"{i}.jpg", i) for i in range(6)])
    run(tmp_path)
    first = tree_bytes(tmp_path / "resized")
    run(tmp_path)
    assert tree_bytes(tmp_path / "resized") == first


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    pixels = np.dstack((picture(1, 40, 40), np.zeros((40, 40), np.uint8)))
    pixels[:, 20:, 3] = 255
    (tmp_path / "raw").mkdir()
    Image.fromarray(pixels).save(tmp_path / "raw" / "half.png")
    raw_folder(tmp_path / "raw", [tmp_path / "raw" / "half.png"])
    run(tmp_path)
    found = load_rgb8(tmp_path / "resized" / "photos" / "000001.png")
    assert (found[:, :20] == 255).all()
    assert np.array_equal(found[:, 20:], picture(1, 40, 40)[:, 20:])


def test_too_many_rejections_fail_and_the_list_stays(tmp_path: Path) -> None:
    good = write_picture(tmp_path / "raw" / "good.png", 1)
    bad = [tmp_path / "raw" / f"bad{i}.jpg" for i in range(3)]
    for file in bad:
        file.write_bytes(b"")
    raw_folder(tmp_path / "raw", [good, *bad])
    with pytest.raises(GateFailed, match=r"3 of 4 photos were rejected.*max_reject_fraction"):
        run(tmp_path, max_reject_fraction=0.5)
    assert not (tmp_path / "resized").exists()
    assert len(read_table(tmp_path / "reports" / "rejected.csv", REJECTED_COLUMNS)) == 3


def test_no_photo_left_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "bad.jpg").write_bytes(b"")
    raw_folder(tmp_path / "raw", [tmp_path / "raw" / "bad.jpg"])
    with pytest.raises(BadInput, match="all 1 photos were rejected"):
        run(tmp_path, max_reject_fraction=1.0)
    raw_folder(tmp_path / "raw", [])
    with pytest.raises(BadInput, match="no photos were collected"):
        run(tmp_path, max_reject_fraction=1.0)
