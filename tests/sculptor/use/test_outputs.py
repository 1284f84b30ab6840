"""Files of sculptures: right names, what was meant in them, all of them or none."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.sculptor.use.models import airy, noisy
from vernissage.core.errors import BadInput, BadParams
from vernissage.core.files import safe_file_name
from vernissage.sculptor.domain.formats import read_structure
from vernissage.sculptor.domain.sizes import Size, parse_size
from vernissage.sculptor.domain.structure import AIR_STATE, Structure
from vernissage.sculptor.use.outputs import OUTPUTS, read_formats, sculpture_name, write_sculptures
from vernissage.sculptor.use.sculpt import Sculpted, sculpt_prompt

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = "Tall oak tree with thick trunk"
EVERYTHING = tuple(OUTPUTS)


@cache
def sculpted(seed: int = 7) -> Sculpted:
    return sculpt_prompt(noisy(), PROMPT, size=Size(7, 9, 8), steps=2, seed=seed, frames=True)[0]


@cache
def nothing() -> Sculpted:
    return sculpt_prompt(airy(), PROMPT, size=Size(5, 5, 5), steps=1, frames=True)[0]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_format_is_written_and_holds_the_structure(tmp_path: Path) -> None:
    (written,) = write_sculptures([sculpted()], tmp_path / "deep" / "er", EVERYTHING)
    assert [path.name for path in written.files] == [f"tall-oak-tree-with-thick-trunk_seed7.{f}" for f in OUTPUTS]
    assert names(tmp_path / "deep" / "er") == sorted(path.name for path in written.files)
    assert (written.warnings, written.failed) == ((), ())
    by_format = dict(zip(OUTPUTS, written.files, strict=True))
    for block_format in ("schem", "nbt", "litematic", "iob"):
        assert read_structure(by_format[block_format]).same_as(sculpted().structure)
    found = read_structure(by_format["vox"]).cropped()
    assert np.array_equal(found.solid, sculpted().structure.cropped().solid)
    assert by_format["glb"].read_bytes().startswith(b"glTF")
    with Image.open(by_format["png"]) as picture:
        assert len(picture.getcolors(2**24)) > 10
    page = by_format["html"].read_text(encoding="utf-8")
    assert f"<title>{PROMPT}" in page
    assert '"undecided":-1' not in page


def test_the_record_is_enough_to_build_it_again(tmp_path: Path) -> None:
    (written,) = write_sculptures([sculpted()], tmp_path, ["json"])
    record = json.loads(written.files[0].read_text(encoding="utf-8"))
    asked = record["asked"]
    again = sculpt_prompt(
        noisy(),
        asked["prompt"],
        size=parse_size(asked["size"]),
        steps=asked["steps"],
        seed=asked["seed"],
        guidance=asked["guidance"],
        plan_guidance=asked["plan_guidance"],
        plan=asked["plan"],
        repair=asked["repair"],
    )[0]
    assert again.structure.same_as(sculpted().structure)
    assert record["model"]["sha256"] == "0" * 64
    assert record["plan"] == sculpted().facts["plan"]
    # What was drawn may be fixed as well.
    fixed = sculpt_prompt(noisy(), "", size=parse_size(asked["size"]), steps=1, plan=record["plan"])[0]
    assert fixed.facts["plan"] == record["plan"]


def test_nothing_has_a_record_a_picture_and_a_page_but_no_blocks(tmp_path: Path) -> None:
    (written,) = write_sculptures([nothing()], tmp_path, ["schem", "glb", "png", "html"])
    assert names(tmp_path) == [f"tall-oak-tree-with-thick-trunk_seed0.{kind}" for kind in ("html", "json", "png")]
    assert written.warnings == ("schem: not written, there is no block", "glb: not written, there is no block")
    assert written.failed == ()
    assert json.loads((tmp_path / f"{written.name}.json").read_text())["warnings"] == ["nothing was built"]


def test_files_of_an_earlier_run_are_replaced(tmp_path: Path) -> None:
    (first,) = write_sculptures([sculpted()], tmp_path, ["schem"])
    first.files[0].write_bytes(b"old")
    (second,) = write_sculptures([sculpted()], tmp_path, ["schem"])
    assert second.files == first.files
    assert read_structure(second.files[0]).same_as(sculpted().structure)


def test_what_is_protected_is_not_replaced(tmp_path: Path) -> None:
    kept = tmp_path / f"{sculpture_name(PROMPT, 7)}.schem"
    kept.write_bytes(b"mine")
    (written,) = write_sculptures([sculpted()], tmp_path, ["schem", "png"], protected=[kept])
    assert written.name == "tall-oak-tree-with-thick-trunk_seed7-2"
    assert kept.read_bytes() == b"mine"
    assert names(tmp_path) == sorted([kept.name, f"{written.name}.schem", f"{written.name}.png"])


def test_no_result_replaces_another(tmp_path: Path) -> None:
    results = write_sculptures([sculpted(), sculpted(8), sculpted()], tmp_path, ["vox"])
    assert [written.name[30:] for written in results] == ["_seed7", "_seed8", "_seed7-2"]
    assert len(names(tmp_path)) == 3


def test_all_or_nothing(tmp_path: Path) -> None:
    (first,) = write_sculptures([sculpted()], tmp_path, ["schem", "nbt"])
    before = [path.read_bytes() for path in first.files]
    (tmp_path / f"{first.name}.png").mkdir()
    other = replace(sculpted(8), seed=7)
    with pytest.raises(BadInput, match=r"seed7\.png: there is a folder of this name"):
        write_sculptures([other], tmp_path, ["schem", "nbt", "json", "png"])
    assert [path.read_bytes() for path in first.files] == before
    assert names(tmp_path) == sorted([f"{first.name}.{kind}" for kind in ("schem", "nbt", "png")])


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot write there"):
        write_sculptures([sculpted()], tmp_path / "file", ["schem"])


def test_a_format_that_cannot_hold_a_structure_does_not_stop_the_others(tmp_path: Path) -> None:
    # A model of MagicaVoxel has at most 256 voxels a side.
    wide = Structure(np.ones((1, 1, 300), np.uint16), (AIR_STATE, "minecraft:oak_log[axis=y]"))
    (written,) = write_sculptures([replace(sculpted(), structure=wide)], tmp_path, ["vox", "schem"])
    assert [path.suffix for path in written.files] == [".schem"]
    (problem,) = written.failed
    assert problem.startswith("vox: not written, ")
    assert str(tmp_path) not in problem


@pytest.mark.parametrize(
    ("text", "expected"), [("schem,png", ("schem", "png")), (" .PNG , json,png,", ("png", "json"))]
)
def test_formats_are_read(text: str, expected: tuple[str, ...]) -> None:
    assert read_formats(text) == expected


@pytest.mark.parametrize("text", ["", ",", "doc", "schem;png", "schematic", "../x", "x" * 500])
def test_unknown_formats_are_refused_with_the_list(text: str, tmp_path: Path) -> None:
    with pytest.raises(BadParams, match=r"expected some of schem,nbt,litematic,iob,vox,glb,png,html,json$") as caught:
        write_sculptures([sculpted()], tmp_path, [text])
    assert len(str(caught.value)) < 200
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (PROMPT, "tall-oak-tree-with-thick-trunk_seed7"),
        ("", "structure_seed7"),
        ("🌳 !?", "structure_seed7"),
        ("../../etc/passwd", "etc-passwd_seed7"),
        ("Eiche, größer!", "eiche-größer_seed7"),
        ("\udcff oak\n\0", "oak_seed7"),
        ("дерево 木", "дерево-木_seed7"),
        ("oak " * 2000, "-".join(["oak"] * 20) + "_seed7"),
        ("木" * 300, "木" * 26 + "_seed7"),
    ],
)
def test_names(prompt: str, expected: str) -> None:
    assert sculpture_name(prompt, 7) == expected


@given(st.text(), st.integers(0, 2**63))
def test_a_name_is_safe_and_keeps_its_seed(prompt: str, seed: int) -> None:
    name = sculpture_name(prompt, seed)
    assert safe_file_name(f"{name}.litematic") == f"{name}.litematic"
    assert name.endswith(f"_seed{seed}")
