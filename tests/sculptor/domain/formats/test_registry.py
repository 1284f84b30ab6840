"""Structure files by their suffix: what is written is there, whole, and the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.sculptor.domain.formats.made import random_structure
from vernissage.core.errors import BadInput, CorruptArtifact
from vernissage.sculptor.domain.formats import (
    FORMATS,
    READABLE,
    WRITABLE,
    read_structure,
    verify_written,
    write_structure,
)
from vernissage.sculptor.domain.formats.limits import Limits
from vernissage.sculptor.domain.structure import AIR_STATE, Structure


@pytest.mark.parametrize("suffix", WRITABLE)
def test_what_is_written_passes_its_check(suffix: str, tmp_path: Path) -> None:
    made = random_structure((9, 5, 7))
    path = tmp_path / f"tree{suffix.upper()}"
    write_structure(made, path, title="tall oak")
    verify_written(made, path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", sorted(set(WRITABLE) & set(READABLE)))
def test_a_file_that_says_something_else_does_not_pass(suffix: str, tmp_path: Path) -> None:
    made = random_structure((9, 5, 7))
    path = tmp_path / f"tree{suffix}"
    changed = made.blocks.copy()
    changed[4, 2, 3] = 0 if changed[4, 2, 3] else 1
    write_structure(Structure(changed, made.palette), path)
    with pytest.raises(CorruptArtifact, match="write it again"):
        verify_written(made, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptArtifact, match="write it again"):
        verify_written(made, path)


@pytest.mark.parametrize("suffix", WRITABLE)
def test_equal_structures_make_equal_files(suffix: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        write_structure(random_structure(), path, title="one")
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("suffix", WRITABLE)
def test_any_title_is_carried_or_cut(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"tree{suffix}"
    write_structure(random_structure(), path, title="oak \x00\n\ud800 🌳" + "long " * 50_000)
    verify_written(random_structure(), path)


@pytest.mark.parametrize("suffix", READABLE)
@pytest.mark.parametrize("content", [b"", b"no structure at all", bytes(1000), b"\x1f\x8b\x08\x00", b"\xff" * 1000])
def test_a_file_of_nonsense_is_refused_by_name(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"odd{suffix}"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=f"odd{suffix}: "):
        read_structure(path)


def test_a_missing_file_and_an_unknown_suffix_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        read_structure(tmp_path / "tree.schem")
    with pytest.raises(BadInput, match=r"suffix \.png, expected one of \.schem"):
        read_structure(tmp_path / "tree.png")
    with pytest.raises(BadInput, match="suffix missing"):
        write_structure(random_structure(), tmp_path / "tree")
    with pytest.raises(BadInput, match=r"suffix \.schematic"):
        write_structure(random_structure(), tmp_path / "tree.schematic")
    with pytest.raises(BadInput, match=r"suffix \.glb"):
        read_structure(tmp_path / "tree.glb")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.schem").mkdir()
    os.mkfifo(tmp_path / "pipe.schem")
    for name in ("folder", "pipe"):
        with pytest.raises(BadInput, match="no such file"):
            read_structure(tmp_path / f"{name}.schem")


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.schem"
    path.write_bytes(bytes(2001))
    with pytest.raises(BadInput, match="more than 2,000 bytes"):
        read_structure(path, Limits(max_bytes=2000))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "tree.schem"
    path.write_bytes(b"old")
    with pytest.raises(BadInput, match=r"tree\.schem: size"):
        write_structure(Structure(np.zeros((1, 1, 65_536), np.uint16), (AIR_STATE,)), path)
    assert path.read_bytes() == b"old"


def test_the_registry_imports_nothing_heavy() -> None:
    program = (
        "import sys, vernissage.sculptor.domain.formats\n"
        "print([name for name in ('nbtlib', 'trimesh', 'torch', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[4]
    )
    assert done.stdout.strip() == "[]"
    assert all(known.reads or known.writes for known in FORMATS.values())
