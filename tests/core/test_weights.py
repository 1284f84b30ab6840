"""Weights survive the way to disk bit by bit, and damaged ones are refused by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.files import sha256_file
from vernissage.core.weights import load_weights, save_weights

if TYPE_CHECKING:
    from pathlib import Path

SPEC = {"width": 32, "names": ["exposure", "ΔE"], "scale": 0.5}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_weights(tmp_path / "m", torch.nn.Linear(3, 2).state_dict(), SPEC)
    return tmp_path / "m"


def test_round_trip(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(4, 6, generator=generator)
    tensors = {
        "plain": base,
        "shared": base,
        "view": base.t()[1:, ::2],
        "half": base.half(),
        "bf16": base.bfloat16(),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "odd": torch.tensor([torch.nan, torch.inf, -0.0]),
        "grad": torch.nn.Parameter(base + 1),
    }
    save_weights(tmp_path / "deep" / "m", tensors, SPEC, name="member-0")
    loaded, spec = load_weights(tmp_path / "deep" / "m", name="member-0")
    assert spec == SPEC
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name].nan_to_num(), tensor.detach().nan_to_num()), name
    assert sorted(path.name for path in (tmp_path / "deep" / "m").iterdir()) == [
        "member-0.json",
        "member-0.safetensors",
    ]


def test_the_json_names_format_and_hash(saved: Path) -> None:
    record = json.loads((saved / "model.json").read_text())
    assert record == {"format": 1, "sha256": sha256_file(saved / "model.safetensors"), "spec": SPEC}


def test_the_same_weights_give_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    tensors, spec = load_weights(saved)
    save_weights(tmp_path / "again", dict(reversed(tensors.items())), spec)
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_missing_files_say_what_to_run(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(MissingArtifact, match=r"dvc repro train.*dvc pull") as caught:
        load_weights(saved)
    assert str(saved / name) in str(caught.value)


@pytest.mark.parametrize("position", [0, 9, 60, -1])
def test_one_changed_byte_is_noticed(saved: Path, position: int) -> None:
    data = bytearray((saved / "model.safetensors").read_bytes())
    data[position] ^= 1
    (saved / "model.safetensors").write_bytes(data)
    with pytest.raises(CorruptArtifact, match="its hash is"):
        load_weights(saved)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"format": 1, "spec": {}}', '{"format": 1, "sha256": "x", "spec": []}']
)
def test_broken_json_is_refused(saved: Path, text: str) -> None:
    (saved / "model.json").write_text(text)
    with pytest.raises(CorruptArtifact, match=r"model\.json"):
        load_weights(saved)


def test_another_format_is_refused(saved: Path) -> None:
    record = json.loads((saved / "model.json").read_text())
    (saved / "model.json").write_text(json.dumps({**record, "format": 2}))
    with pytest.raises(CorruptArtifact, match="format 2, this version reads format 1"):
        load_weights(saved)


def test_a_file_that_is_no_safetensors_is_refused_even_with_its_own_hash(saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"not tensors at all")
    record = json.loads((saved / "model.json").read_text())
    record["sha256"] = sha256_file(saved / "model.safetensors")
    (saved / "model.json").write_text(json.dumps(record))
    with pytest.raises(CorruptArtifact, match="not a safetensors file"):
        load_weights(saved)


def test_a_crash_between_the_two_files_is_noticed(saved: Path) -> None:
    save_file({"weight": torch.ones(2, 3)}, saved / "model.safetensors")
    with pytest.raises(CorruptArtifact, match="its hash is"):
        load_weights(saved)


def test_a_spec_that_json_cannot_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nan"):
        save_weights(tmp_path, {"a": torch.zeros(1)}, {"x": float("nan")})
    with pytest.raises(TypeError):
        save_weights(tmp_path, {"a": torch.zeros(1)}, {"x": object()})
