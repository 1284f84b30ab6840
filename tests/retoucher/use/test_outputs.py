"""What a run reads and where it writes: folders become photos, names never collide, bad folders are named at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vernissage.core.errors import BadInput
from vernissage.core.files import require_writable
from vernissage.retoucher.use.outputs import expand, plan_outputs

if TYPE_CHECKING:
    from pathlib import Path


def test_folders_stand_for_their_photos(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for name in ("b.JPG", "a.png", ".hidden.png", "notes.txt", "a.steps.png", "c.nef", "deeper/c.png"):
        (folder / name).write_bytes(b"-")
    link = tmp_path / "link.png"
    link.symlink_to(folder / "a.png")
    assert expand([folder, folder / "a.png", link]) == [folder / "a.png", folder / "b.JPG"]
    assert expand([folder / "c.nef"]) == [folder / "c.nef"]


def test_no_result_shares_a_name_with_a_photo_or_another_result(tmp_path: Path) -> None:
    names = (
        "one/a.png",
        "two/a.jpg",
        "two/A.tif",
        "out/b.png",
        "one/b.png",
        "out/a.steps.png",
        "out/c.xmp",
        "one/c.jpg",
    )
    photos = [tmp_path / name for name in (*names, "out/c.xmp", "one/c.jpg")]
    plans = plan_outputs(photos, tmp_path / "out")
    planned = [path for plan in plans for path in plan.all_outputs()]
    assert len({str(path).casefold() for path in planned}) == len(planned)
    assert not set(planned) & set(photos)
    # The first to come keeps its name where that is free.
    assert plan_outputs(photos[1:3], tmp_path / "new")[0].stem == "a"


def test_sidecars_lie_where_no_edited_photo_lies(tmp_path: Path) -> None:
    (plan,) = plan_outputs([tmp_path / "a.jpg"], tmp_path / "out")
    assert plan.sidecar.parent != plan.output(".jpg").parent
    assert plan.sidecar.name == "a.xmp"
    assert not plan.is_raw
    assert plan_outputs([tmp_path / "a.CR3"], tmp_path / "out")[0].is_raw


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="cannot write there"):
        require_writable(tmp_path / place)


def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    require_writable(tmp_path / "deep" / "out")
    assert list((tmp_path / "deep" / "out").iterdir()) == []
