"""Cases about files: they pass, the hostile files are hostile, and wrong exports are noticed."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.sculptor.judge.robust import subject
from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.formats import read_structure, write_structure
from vernissage.sculptor.domain.structure import Structure
from vernissage.sculptor.judge.file_cases import _not_closed, _reads_other, _same_colours, _unknown_name
from vernissage.sculptor.judge.odd_files import (
    OF_A_MOD,
    TIGHT,
    pickle_that_touches,
    small_tree,
    write_right,
    write_wrong,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_imports_exports_and_nothing_at_all_pass() -> None:
    results = subject().run(12, 13, 14)
    assert {number: result.found for number, result in results.items() if not result.passed} == {}
    assert all(result.retained is None for result in results.values())


def test_damaged_models_pass() -> None:
    result = subject().run(11)[11]
    assert result.passed, result.found
    assert "16 damaged models" in result.found


def test_a_pickle_that_is_loaded_would_be_noticed(tmp_path: Path) -> None:
    marker = tmp_path / "a marker"
    pickle.loads(pickle_that_touches(marker)).close()  # noqa: S301 - that it acts is what is tested
    assert marker.exists()


def test_right_files_say_what_they_should(tmp_path: Path) -> None:
    right = write_right(tmp_path)
    assert len(right) == 7
    for name, structure in right.items():
        assert read_structure(tmp_path / name, TIGHT).cropped().same_as(structure.cropped()), name
    assert OF_A_MOD in read_structure(tmp_path / "mod.schem").palette


def test_wrong_files_are_wrong_for_the_reason_that_is_named(tmp_path: Path) -> None:
    wrong = write_wrong(tmp_path, tmp_path / "marker")
    assert len(wrong) == 19
    for name in set(wrong) - {"air.schem", "high.schem"}:
        with pytest.raises(BadInput, match=name.replace(".", r"\.")) as caught:
            read_structure(tmp_path / name, TIGHT)
        assert wrong[name] in str(caught.value)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("suffix", [".schem", ".litematic", ".nbt", ".iob", ".vox", ".glb"])
def test_an_export_that_says_something_else_is_noticed(suffix: str, tmp_path: Path) -> None:
    tree, path = small_tree(), tmp_path / f"tree{suffix}"
    write_structure(tree, path)
    assert _reads_other(tree, path) == ""
    blocks = tree.blocks.copy()
    blocks[0, 1, 1] = 0
    assert _reads_other(Structure(blocks, tree.palette), path)


def test_other_colours_and_an_open_mesh_are_noticed(tmp_path: Path) -> None:
    import trimesh

    tree = small_tree()
    write_structure(tree, tmp_path / "tree.vox")
    swapped = Structure(tree.blocks, (tree.palette[0], tree.palette[2], tree.palette[1]))
    assert not _same_colours(swapped, read_structure(tmp_path / "tree.vox"))
    write_structure(tree, tmp_path / "tree.glb")
    mesh = trimesh.load_mesh(tmp_path / "tree.glb", process=False)
    mesh.update_faces(np.arange(len(mesh.faces)) > 1)
    mesh.export(tmp_path / "open.glb")
    assert "open surface" in _not_closed(tree, tmp_path / "open.glb")


@pytest.mark.parametrize(
    "state",
    ["minecraft:oak_lgo[axis=y]", "mod:oak_log[axis=y]", "minecraft:oak_log[facing=up]", "minecraft:vine[down=true]"],
)
def test_names_and_properties_that_the_game_has_not_are_noticed(state: str) -> None:
    assert "no block of the game" in _unknown_name(state)


def test_names_that_the_game_has_pass() -> None:
    assert _unknown_name("minecraft:stripped_dark_oak_log[axis=x]") == ""
    assert _unknown_name("minecraft:azalea_leaves[persistent=true]") == ""
