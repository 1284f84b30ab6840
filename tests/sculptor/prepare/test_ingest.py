"""Structures come in once, whatever lies in the folder; nothing is lost, and every file is accounted for."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.sculptor.prepare.trees import stick, stone, turned, write_all
from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact
from vernissage.core.files import sha256_file
from vernissage.sculptor.domain.formats.limits import Limits
from vernissage.sculptor.domain.structure import Structure
from vernissage.sculptor.prepare.ingest import IngestReport, Status, ingest_structures
from vernissage.sculptor.prepare.manifest import MANIFEST_COLUMNS, SUFFIXES, read_manifest

TREES = Path(__file__).parents[4] / "shared" / "data" / "trees"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = write_all(
        tmp_path / "mine",
        {
            "palm1.schem": stick(4),
            "palm2.litematic": stick(5),
            "oaks/old oak.nbt": stick(6),
            "oaks/deep/deeper/young.iob": stick(3),
            "rock.schem": stone(),
        },
    )
    (folder / "notes.txt").write_text("not a structure")
    (folder / ".hidden.schem").write_bytes(b"\0")
    return folder


def run(mine: Path, **more: object) -> IngestReport:
    return ingest_structures(mine, mine.parent / "structures", workers=1, **more)  # type: ignore[arg-type]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_file_is_accounted_for_and_the_source_is_untouched(mine: Path) -> None:
    before = {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()}
    report = run(mine)
    assert {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()} == before
    assert [outcome.file for outcome in report.outcomes] == [
        "oaks/deep/deeper/young.iob", "oaks/old oak.nbt", "palm1.schem", "palm2.litematic", "rock.schem",
    ]  # fmt: skip
    assert report.count(Status.ADDED) == report.kept == 5
    assert report.others == 1
    target = mine.parent / "structures"
    assert {path.suffix for path in (target / "files").iterdir()} == {".schem", ".litematic", ".nbt", ".iob"}
    for one in read_manifest(target):
        assert sha256_file(target / one.stored) == one.sha256 == sha256_file(mine / one.file)
    assert rows(target / "rejected.csv") == []
    assert str(mine) not in (target / "manifest.csv").read_text()


def test_the_manifest_says_what_things_are(mine: Path) -> None:
    run(mine)
    by_file = {row["file"]: row for row in rows(mine.parent / "structures" / "manifest.csv")}
    palm, rock = by_file["palm1.schem"], by_file["rock.schem"]
    assert palm["series"] == by_file["palm2.litematic"]["series"] == "mine/palm"
    assert by_file["oaks/old oak.nbt"]["series"] == "oaks/old oak"
    assert (palm["size"], palm["size_class"], palm["species"]) == ("3x5x2", "normal", "oak")
    assert [palm[name] for name in ("voxels", "wood", "leaves", "unknown")] == ["8", "4", "4", "0"]
    assert [palm[name] for name in ("connectivity", "whole", "one_trunk")] == ["1", "True", "True"]
    assert (rock["wood"], rock["leaves"], rock["species"], rock["leaf_survival"]) == ("0", "0", "", "")
    assert (rock["unknown"], rock["unknown_blocks"]) == ("8", "minecraft:diamond_block")
    speakable = {one.file: one.speakable for one in read_manifest(mine.parent / "structures")}
    assert speakable["palm1.schem"]
    assert not speakable["rock.schem"]


def test_what_does_not_hang_together_is_taken_all_the_same(tmp_path: Path) -> None:
    blocks = stick(4).blocks.copy()
    blocks[1:3] = 0
    write_all(tmp_path / "mine", {"a.schem": Structure(blocks, stick().palette)})
    run(tmp_path / "mine")
    (row,) = rows(tmp_path / "structures" / "manifest.csv")
    assert row["status"] == "added"
    assert (row["whole"], row["connectivity"]) == ("False", "0.166667")


def test_a_second_run_adds_and_loses_nothing(mine: Path) -> None:
    run(mine)
    target = mine.parent / "structures"
    first = (target / "manifest.csv").read_text()
    report = run(mine)
    assert report.count(Status.KNOWN) == 5
    assert (target / "manifest.csv").read_text() == first
    (mine / "palm1.schem").unlink()
    write_all(mine, {"palm3.schem": stick(7)})
    report = run(mine)
    assert (report.count(Status.ADDED), report.count(Status.KNOWN), report.kept) == (1, 4, 6)
    assert (target / "manifest.csv").read_text().startswith(first)


def test_processes_change_nothing(mine: Path) -> None:
    run(mine)
    ingest_structures(mine, mine.parent / "again", workers=2)
    assert (mine.parent / "structures" / "manifest.csv").read_text() == (
        mine.parent / "again" / "manifest.csv"
    ).read_text()


def test_turned_and_mirrored_ones_are_duplicates(tmp_path: Path) -> None:
    images = {
        f"a{turns}{side}.schem": turned(stick(), turns, mirrored=side == "m") for turns in range(4) for side in "pm"
    }
    birch = stick(log="minecraft:birch_log[axis=y]", leaves="minecraft:birch_leaves")
    write_all(tmp_path / "mine", images | {"b.schem": birch, "z.nbt": stick()})
    report = run(tmp_path / "mine")
    assert report.count(Status.DUPLICATE) == 8
    manifest = read_manifest(tmp_path / "structures")
    assert [one.file for one in manifest if one.accepted] == ["a0m.schem", "b.schem"], "a birch is no oak"
    assert {one.duplicate_of for one in manifest if not one.accepted} == {"a0m.schem"}
    assert len({one.shape for one in manifest}) == 1
    assert len(list((tmp_path / "structures" / "files").iterdir())) == 2
    assert run(tmp_path / "mine").count(Status.KNOWN) == 10
    write_all(tmp_path / "more", {"c.schem": turned(stick(), 3, mirrored=True), "d.litematic": stick()})
    report = ingest_structures(tmp_path / "more", tmp_path / "structures", workers=1)
    assert report.count(Status.DUPLICATE) + report.count(Status.KNOWN) == 2, "those of earlier runs count, too"


def test_same_bytes_under_two_names(tmp_path: Path) -> None:
    folder = write_all(tmp_path / "mine", {"a.schem": stick()})
    shutil.copy(folder / "a.schem", folder / "b.schem")
    report = run(folder)
    assert [(one.file, one.status) for one in report.outcomes] == [("a.schem", "added"), ("b.schem", "known")]
    assert report.outcomes[1].reason == "same bytes as a.schem"


def test_air_around_does_not_count(tmp_path: Path) -> None:
    blocks = stick(60).blocks
    roomy = Structure(np.pad(blocks, ((9, 9), (20, 20), (20, 20))), stick().palette)
    too_high = stick(64)
    write_all(tmp_path / "mine", {"roomy.schem": roomy, "high.schem": too_high, "wide.schem": stick(4, tip=24)})
    report = run(tmp_path / "mine")
    assert {one.file: one.status for one in report.outcomes} == {
        "high.schem": "rejected",
        "roomy.schem": "added",
        "wide.schem": "rejected",
    }
    reasons = {row["file"]: row["reason"] for row in rows(tmp_path / "structures" / "rejected.csv")}
    assert reasons["high.schem"] == "3x65x2 blocks without the air around: at most 24x64x24 fit"


def test_bad_files_are_rejected_with_a_reason_and_the_others_go_on(mine: Path) -> None:
    whole = (mine / "palm1.schem").read_bytes()
    (mine / "cut.schem").write_bytes(whole[: len(whole) // 2])
    (mine / "empty.nbt").touch()
    (mine / "text.schematic").write_text("oak")
    (mine / "text.litematic").write_text("oak")
    (mine / "text.iob").write_text("oak")
    write_all(mine, {"air.schem": Structure(stone().blocks * 0, stone().palette)})
    (mine / "gone.schem").symlink_to(mine / "nowhere.schem")
    os.mkfifo(mine / "pipe.schem")
    (mine / "folder.schem").mkdir()
    report = run(mine)
    assert report.count(Status.ADDED) == 5
    reasons = {row["file"]: row["reason"] for row in rows(mine.parent / "structures" / "rejected.csv")}
    assert set(reasons) == {
        "air.schem", "cut.schem", "empty.nbt", "gone.schem", "pipe.schem",
        "text.iob", "text.litematic", "text.schematic",
    }  # fmt: skip
    assert reasons["gone.schem"] == "broken link"
    assert reasons["pipe.schem"] == "not a regular file"
    assert reasons["air.schem"] == "holds no block, only air"
    for reason in reasons.values():
        assert reason
        assert str(mine) not in reason
        assert "\n" not in reason
    assert len(list((mine.parent / "structures" / "files").iterdir())) == 5


def test_large_files_are_not_opened(mine: Path) -> None:
    report = run(mine, limits=Limits(max_bytes=10))
    assert report.count(Status.REJECTED) == 5
    assert "at most 10 pass" in report.outcomes[0].reason
    assert read_manifest(mine.parent / "structures") == []


def test_links_in_a_circle_and_odd_names(mine: Path) -> None:
    (mine / "loop").symlink_to(mine, target_is_directory=True)
    (mine / "oaks" / "up").symlink_to(mine / "oaks", target_is_directory=True)
    write_all(mine, {'two\nlines\r,"quoted".schem': stick(8), "Ümläute 3.schem": stick(9)})
    (mine / "rock.schem").rename(os.fsdecode(os.fsencode(mine) + b"/\xff.schem"))
    report = run(mine)
    assert report.count(Status.ADDED) == 7
    files = {one.file for one in read_manifest(mine.parent / "structures")}
    assert {"Ümläute 3.schem", "\N{REPLACEMENT CHARACTER}.schem"} <= files
    assert 'two\N{REPLACEMENT CHARACTER}lines\N{REPLACEMENT CHARACTER},"quoted".schem' in files


def test_structures_that_are_listed_but_not_here_stop_the_run(mine: Path) -> None:
    run(mine)
    shutil.rmtree(mine.parent / "structures" / "files")
    with pytest.raises(MissingArtifact, match="dvc pull"):
        run(mine)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda root: root / "nowhere", "no such folder"),
        (lambda root: write_all(root, {"a.schem": stick()}) / "a.schem", "is a file"),
        (lambda root: write_all(root / "png", {"a.vox": stick()}), "none of 1 files"),
        (lambda root: (root / "structures" / "files").mkdir(parents=True) or root / "structures", "inside the dataset"),
        (lambda root: root, "contains the dataset"),
        (lambda root: (root / "empty" / "deeper").mkdir(parents=True) or root / "empty", "none of 0 files"),
    ],
)
def test_a_folder_that_cannot_be_ingested_is_refused(tmp_path: Path, make, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        ingest_structures(make(tmp_path), tmp_path / "structures", workers=1)


def a_line(**values: str) -> str:
    usual = {"file": "a.schem", "sha256": "0" * 64, "status": "added"}
    return ",".join((usual | values).get(name, "") for name in MANIFEST_COLUMNS)


@pytest.mark.parametrize(
    "line",
    [
        a_line(sha256="../../etc/passwd"),
        a_line(sha256="0" * 63 + "/"),
        a_line(file="a.sh"),
        a_line(file="a./../../b"),
        a_line(status="known"),
        a_line()[:-1],
        a_line() + ",",
    ],
)
def test_a_manifest_that_points_elsewhere_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "manifest.csv").write_text(f"{','.join(MANIFEST_COLUMNS)}\n{a_line()}\n")
    assert read_manifest(tmp_path)[0].stored == f"files/{'0' * 64}.schem"
    (tmp_path / "manifest.csv").write_text(f"{','.join(MANIFEST_COLUMNS)}\n{line}\n")
    with pytest.raises(CorruptArtifact, match="not one that"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"file,sha256\n", b"\xff\xfe", b"file\0,x\n"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(CorruptArtifact, match=r"manifest\.csv"):
        read_manifest(tmp_path)


def test_no_manifest_lists_nothing(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) == []


@pytest.mark.skipif(not TREES.is_dir(), reason="shared/data/trees is not here")
def test_real_trees(tmp_path: Path) -> None:
    folder = TREES / "terraforged"
    report = ingest_structures(folder, tmp_path / "structures", workers=1)
    with (TREES / "manifest.csv").open(encoding="utf-8", newline="") as file:
        facts = {row["file"].removeprefix("terraforged/"): row for row in csv.DictReader(file)}
    assert report.kept == len(list(folder.rglob("*.nbt"))) == 84
    for one in report.listed:
        row = facts[one.file]
        assert one.facts["size"] == f"{row['dx']}x{row['dy']}x{row['dz']}"
        assert one.facts["voxels"] == row["blocks"]
        assert one.facts["whole"] == "True"
    assert {one.facts["species"] for one in report.listed} >= {"oak", "birch", "spruce", "acacia", "dark oak"}
    assert {Path(one.file).suffix for one in report.listed} <= set(SUFFIXES)
