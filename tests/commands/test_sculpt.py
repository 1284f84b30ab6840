"""`vernissage sculpt`: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.sculptor.use.models import airy, new_sculptor
from vernissage.commands.sculpt import SculptRequest, sculpt_structures
from vernissage.core.errors import BadParams, MissingArtifact
from vernissage.sculptor.domain.formats import read_structure

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def request_of(tmp_path: Path, torch_as_it_was: None) -> Any:
    new_sculptor().save(tmp_path / "sculptor")
    made = SculptRequest(lambda: tmp_path / "sculptor", "a tall oak", size="8x10x8", steps=2, output=tmp_path / "out")
    return lambda **changes: replace(made, **changes)


@pytest.fixture
def torch_as_it_was() -> Any:
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


def test_a_line_for_each_structure(request_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sculpt_structures(request_of(count=2, seed=3), as_json=False)
    said = capsys.readouterr().out
    assert "sculpt: 2/2 structures" in said
    for seed in (3, 4):
        assert f"✓ a-tall-oak_seed{seed}: " in said
        assert f"{tmp_path / 'out' / f'a-tall-oak_seed{seed}.schem'}, .png" in said
    assert " blocks, " in said
    assert "of 2 words kept" in said
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_json_is_all_that_is_printed(request_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sculpt_structures(request_of(count=2, formats="json", prompt="oak \udcff"), as_json=True)
    records = json.loads(capsys.readouterr().out)
    assert [record["asked"]["seed"] for record in records] == [0, 1]
    for record in records:
        written = json.loads((tmp_path / "out" / f"{record['name']}.json").read_text(encoding="utf-8"))
        assert record == {**written, "name": record["name"], "files": record["files"], "failed": []}


def test_warnings_that_all_share_are_said_once(request_of: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert sculpt_structures(request_of(prompt="a [red]tal[/red] oka 50 blocks high", count=2), as_json=False)
    said = capsys.readouterr().out
    assert said.count("reading 'oka' as 'oak'") == 1
    assert said.count("height 50 became 10") == 1
    assert "'red'" in said


def test_nothing_is_a_result(request_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    airy().sculptor.save(tmp_path / "sculptor")
    assert sculpt_structures(request_of(formats="schem"), as_json=False)
    said = capsys.readouterr().out
    assert "✓ a-tall-oak_seed0: 0 blocks: " in said
    assert "! nothing was built" in said
    assert "! schem: not written, there is no block" in said
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".json"]


def test_kept_blocks_are_read_and_their_file_stays(request_of: Any, tmp_path: Path) -> None:
    assert sculpt_structures(request_of(formats="schem"), as_json=True)
    kept = tmp_path / "out" / "a-tall-oak_seed0.schem"
    before = kept.read_bytes()
    assert sculpt_structures(request_of(formats="schem", keep=kept, prompt="a tall oak"), as_json=True)
    assert kept.read_bytes() == before
    first, second = read_structure(kept), read_structure(tmp_path / "out" / "a-tall-oak_seed0-2.schem")
    assert second.solid[first.solid].all()


@pytest.mark.parametrize("asked", ["epoch=3", "epoch=4"])
def test_a_checkpoint_is_used_or_missed(request_of: Any, tmp_path: Path, asked: str) -> None:
    new_sculptor(seed=3).save(tmp_path / "sculptor" / "checkpoints" / "epoch-0003")
    wanted = request_of(checkpoint=asked, formats="json")
    if asked == "epoch=4":
        with pytest.raises(MissingArtifact, match="there is best, epoch=3"):
            sculpt_structures(wanted, as_json=False)
    else:
        assert sculpt_structures(wanted, as_json=False)
        record = json.loads((tmp_path / "out" / "a-tall-oak_seed0.json").read_text(encoding="utf-8"))
        assert record["model"]["checkpoint"] == "epoch=3"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "99x99"}, "size '99x99': expected normal, big, huge"),
        ({"size": "65x1x1"}, "to 64x128x64"),
        ({"formats": "doc"}, "format 'doc': expected some of schem,"),
        ({"plan": ("hight=3",)}, "'hight': no such name"),
        ({"plan": ("height",)}, "expected NAME=VALUE"),
        ({"plan": ("height=x",)}, "expected blocks from the ground"),
        ({"count": 0}, "0 structures: expected 1 to 10,000"),
        ({"count": 10_001}, "expected 1 to 10,000"),
        ({"steps": 0}, "expected 1 to 4096"),
        ({"seed": -1}, "seed -1: expected 0"),
        ({"guidance": float("nan")}, "guidance = nan, expected 0 to 100"),
        ({"checkpoint": "last"}, "expected best, or the number of an epoch"),
    ],
)
def test_a_wrong_option_ends_with_code_2(request_of: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadParams, match=message) as caught:
        sculpt_structures(request_of(**changes), as_json=False)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_files_and_folders_that_cannot_be_used_end_with_code_2(request_of: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.schem").write_bytes(b"\x1f\x8bnot")
    (tmp_path / "file").touch()
    for changes in (
        {"keep": tmp_path / "none.schem"},
        {"keep": tmp_path / "bad.schem"},
        {"keep": tmp_path / "file"},
        {"output": tmp_path / "file"},
    ):
        with pytest.raises(BadParams):
            sculpt_structures(request_of(**changes), as_json=False)


def test_wrong_options_are_told_of_before_a_model_is_sought(request_of: Any) -> None:
    def nowhere() -> Path:
        raise AssertionError("the model was sought")

    with pytest.raises(BadParams):
        sculpt_structures(request_of(model=nowhere, size="0"), as_json=False)
