"""`vernissage ingest-structures`: what it prints, and what DVC keeps."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.sculptor.prepare.trees import stick, stone, turned, write_all
from vernissage.commands.structures import take_in_structures
from vernissage.core.errors import BadInput, VernissageError
from vernissage.sculptor.prepare.manifest import read_manifest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def test_structures_are_listed_tracked_and_told_of(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], check=True, cwd=project)
    own = {f"s{number}/a.schem": stick(number) for number in range(2, 25)}
    mine = write_all(tmp_path / "mine", own | {"copy.nbt": turned(stick(3), 1), "rock.schem": stone()})
    for number in range(12):
        (mine / f"bad[bold]{number:02d}.schem").touch()
    take_in_structures(project, mine)
    said = capsys.readouterr().out
    assert "24 structures of 24 series are in the dataset now, 24 of them in one piece" in said
    assert "23 have wood or leaves" in said
    assert "rejected bad[bold]00.schem: " in said
    assert "bad[bold]11.schem" not in said
    assert "and 5 more" in said
    assert "1 hold blocks that no rule knows" in said
    assert "git add data/structures" in said
    assert "nfiles: 24" in (project / "data" / "structures" / "files.dvc").read_text()
    assert len(read_manifest(project / "data" / "structures")) == 25
    assert "bad[bold]11.schem" in (project / "reports" / "rejected-structures.csv").read_text()


def test_a_dataset_of_its_own_is_not_tracked(project: Path, tmp_path: Path) -> None:
    mine = write_all(tmp_path / "mine", {"a.schem": stick()})
    take_in_structures(project, mine, tmp_path / "elsewhere")
    assert len(read_manifest(tmp_path / "elsewhere")) == 1
    assert not list(project.iterdir())


def test_nothing_usable_is_an_error(project: Path, tmp_path: Path) -> None:
    mine = write_all(tmp_path / "mine", {"a.schem": stick(70)})
    with pytest.raises(BadInput, match="no structure that can be used"):
        take_in_structures(project, mine)


def test_dvc_says_why_it_refuses(project: Path, tmp_path: Path) -> None:
    mine = write_all(tmp_path / "mine", {"a.schem": stick()})
    with pytest.raises(VernissageError, match="not inside of a DVC repository"):
        take_in_structures(project, mine)
