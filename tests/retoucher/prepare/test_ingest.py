from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.retoucher.prepare.pictures import tree_bytes, write_picture
from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact, VernissageError
from vernissage.core.files import sha256_file
from vernissage.retoucher.prepare.ingest import IngestReport, Status, ingest, read_manifest, track_with_dvc
from vernissage.retoucher.prepare.tables import INGEST_REPORT_COLUMNS, read_table


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    write_picture(folder / "a.png", 1)
    write_picture(folder / "hills" / "b.jpg", 2)
    write_picture(folder / "hills" / "deep" / "deeper" / "c.tif", 3)
    shutil.copy(folder / "a.png", folder / "hills" / "a again.png")
    (folder / "notes.txt").write_text("not a photo")
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / "hills" / "Thumbs.db").write_bytes(b"\0")
    return folder


def run(mine: Path) -> IngestReport:
    return ingest(mine, mine.parent / "ingest", report=mine.parent / "ingest.csv")


def photos(mine: Path) -> set[str]:
    return set(tree_bytes(mine.parent / "ingest" / "photos"))


def test_every_file_is_accounted_for_and_the_source_is_untouched(mine: Path) -> None:
    before = tree_bytes(mine)
    report = run(mine)
    assert (report.added, report.duplicates, report.rejected, report.ignored) == (3, 1, 1, 2)
    assert {outcome.file for outcome in report.outcomes} == set(before)
    assert tree_bytes(mine) == before
    rows = read_table(mine.parent / "ingest.csv", INGEST_REPORT_COLUMNS)
    assert [row["file"] for row in rows] == sorted(before)
    reasons = {row["file"]: row["reason"] for row in rows if row["status"] in {"duplicate", "rejected"}}
    assert "same bytes as" in reasons["hills/a again.png"]
    assert "not a picture" in reasons["notes.txt"]


def test_first_level_folder_is_the_category_and_bytes_are_kept(mine: Path) -> None:
    run(mine)
    assert photos(mine) == {"photos/a.png", "hills/b.jpg", "hills/c.tif"}
    manifest = {photo.file: photo for photo in read_manifest(mine.parent / "ingest")}
    assert {file: photo.category for file, photo in manifest.items()} == {
        "photos/a.png": "photos", "hills/b.jpg": "hills", "hills/c.tif": "hills",
    }  # fmt: skip
    assert manifest["hills/c.tif"].source == "hills/deep/deeper/c.tif"
    for file, photo in manifest.items():
        copied = mine.parent / "ingest" / "photos" / file
        assert (sha256_file(copied), copied.stat().st_size) == (photo.sha256, photo.size)


def test_second_run_adds_nothing(mine: Path) -> None:
    run(mine)
    before = tree_bytes(mine.parent / "ingest")
    report = run(mine)
    assert (report.added, report.duplicates, report.rejected, report.photos_in_all) == (0, 4, 1, 3)
    assert tree_bytes(mine.parent / "ingest") == before


def test_another_folder_is_added_to_what_is_there(mine: Path, tmp_path: Path) -> None:
    run(mine)
    write_picture(tmp_path / "more" / "a.png", 11)
    shutil.copy(mine / "a.png", tmp_path / "more" / "known.png")
    report = ingest(tmp_path / "more", tmp_path / "ingest", report=tmp_path / "more.csv")
    assert (report.added, report.duplicates, report.photos_in_all) == (1, 1, 4)
    assert len([file for file in photos(mine) if file.startswith("photos/a")]) == 2


def test_names_that_clash_or_are_not_ascii_are_kept_apart_and_readable(mine: Path) -> None:
    for seed, file in enumerate(["hills/x/b.jpg", "hills/y/B.JPG", "Sommer/Größe 木漏れ日.png", "Sommer/what?.png"]):
        write_picture(mine / file, 20 + seed)
    assert run(mine).added == 7
    found = photos(mine)
    assert "Sommer/Größe 木漏れ日.png" in found
    assert "Sommer/what_.png" in found
    clashing = [file for file in found if file.lower().startswith("hills/b")]
    assert len({file.casefold() for file in clashing}) == 3
    assert {Path(file).suffix for file in clashing} == {".jpg", ".JPG"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_text_survive(mine: Path) -> None:
    shutil.copy(write_picture(mine / "z.png", 30), os.fsencode(mine) + b"/bad\xff\nname.png")
    (mine / "z.png").unlink()
    report = run(mine)
    assert report.added == 4
    assert any("bad\ufffd" in outcome.file for outcome in report.outcomes)


def test_links_in_a_circle_and_links_to_nothing(mine: Path) -> None:
    (mine / "hills" / "up").symlink_to(mine)
    (mine / "a link to hills").symlink_to(mine / "hills")
    (mine / "gone.png").symlink_to(mine / "nothing.png")
    report = run(mine)
    assert (report.added, report.duplicates, report.rejected) == (3, 1, 2)
    assert {o.reason for o in report.outcomes if o.file == "gone.png"} == {"broken link"}
    assert not any(photo.category.startswith("a link") for photo in read_manifest(mine.parent / "ingest"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_rejected_and_not_waited_for(mine: Path) -> None:
    os.mkfifo(mine / "pipe.jpg")
    assert {o.status for o in run(mine).outcomes if o.file == "pipe.jpg"} == {Status.REJECTED}


def test_what_a_killed_run_left_is_adopted(mine: Path) -> None:
    run(mine)
    target = mine.parent / "ingest"
    everything = tree_bytes(target)
    # Killed after two copies and in the middle of the third, before the manifest was written.
    (target / "manifest.csv").unlink()
    (target / "photos" / "photos" / "a.png").unlink()
    (target / "photos" / "hills" / ".tmp-0123456789abcdef.tif").write_bytes(b"half")
    report = run(mine)
    assert (report.added, report.duplicates, report.photos_in_all) == (3, 1, 3)
    assert tree_bytes(target) == everything


def test_an_error_in_the_middle_leaves_a_manifest_of_what_was_copied(mine: Path, monkeypatch) -> None:
    from vernissage.retoucher.prepare import ingest as module

    copied: list[Path] = []
    real = module._copy

    def failing(source: Path, target: Path, expected: str) -> None:
        if copied:
            raise KeyboardInterrupt
        real(source, target, expected)
        copied.append(target)

    monkeypatch.setattr(module, "_copy", failing)
    with pytest.raises(KeyboardInterrupt):
        run(mine)
    assert len(read_manifest(mine.parent / "ingest")) == 1
    monkeypatch.setattr(module, "_copy", real)
    assert (run(mine).added, run(mine).photos_in_all) == (2, 3)


def test_a_stranger_in_the_photo_folder_is_reported_and_left(mine: Path) -> None:
    run(mine)
    stranger = mine.parent / "ingest" / "photos" / "hills" / "readme.txt"
    stranger.write_text("hello")
    report = run(mine)
    assert stranger.exists()
    (reason,) = (o.reason for o in report.outcomes if o.file.endswith("readme.txt"))
    assert reason.startswith("lies in the dataset")


def test_photos_that_are_listed_but_not_here_stop_the_run(mine: Path) -> None:
    run(mine)
    shutil.rmtree(mine.parent / "ingest" / "photos")
    with pytest.raises(MissingArtifact, match="dvc pull"):
        run(mine)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda root: root / "nowhere", "no such folder"),
        (lambda root: write_picture(root / "file.png", 1), "is a file"),
        (lambda root: (root / "ingest").mkdir() or root / "ingest", "inside the dataset"),
        (
            lambda root: (root / "ingest" / "photos").mkdir(parents=True) or root / "ingest" / "photos",
            "inside the dataset",
        ),
        (lambda root: root, "contains the dataset"),
        (lambda root: (root / "empty" / "deeper").mkdir(parents=True) or root / "empty", "no files"),
    ],
)
def test_a_folder_that_cannot_be_ingested_is_refused(tmp_path: Path, make, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        ingest(make(tmp_path), tmp_path / "ingest", report=tmp_path / "ingest.csv")


@pytest.mark.parametrize("line", ["../../etc/passwd,x,00,1,x", "/etc/passwd,x,00,1,x", "a.png,x,00,many,x", "a.png,x"])
def test_a_manifest_that_points_elsewhere_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "manifest.csv").write_text(f"file,category,sha256,bytes,source\n{line}\n")
    with pytest.raises(CorruptArtifact, match="manifest"):
        read_manifest(tmp_path)


def test_dvc_tracks_the_photos(mine: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], check=True, cwd=repository)
    ingest(mine, repository / "data" / "ingest", report=repository / "ingest.csv")
    track_with_dvc(repository)
    tracked = (repository / "data" / "ingest" / "photos.dvc").read_text()
    assert "nfiles: 3" in tracked


def test_dvc_says_why_it_refuses(tmp_path: Path) -> None:
    with pytest.raises(VernissageError, match="not inside of a DVC repository"):
        track_with_dvc(tmp_path)
