"""Pretrained networks: found in folders and in the hub's cache, loaded whole or refused with a line that helps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SiglipVisionModel

from tests.retoucher.learn.pretrained_folders import COMMIT, put_into_hub_cache, write_head, write_siglip
from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact
from vernissage.retoucher.learn.pretrained import channel_values, find_pretrained, find_weights_file, load_pretrained

if TYPE_CHECKING:
    from collections.abc import Callable

TYPES = ("siglip", "siglip_vision_model")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_siglip(tmp_path_factory.mktemp("pretrained") / "siglip")


@pytest.fixture
def folder(shipped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped, tmp_path / "siglip"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(name: Path | str, version: str = "") -> Any:
    return load_pretrained(SiglipVisionModel, find_pretrained(str(name), TYPES, version), torch.float32)


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_a_folder_gives_its_own_weights(folder: Path) -> None:
    found = find_pretrained(str(folder), TYPES)
    assert found.local
    assert found.version.startswith("sha256:")
    network = load(folder)
    assert not network.training
    saved = load_file(folder / "model.safetensors")
    assert network.state_dict().keys() == saved.keys()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in network.state_dict().items())


def test_the_vision_half_of_a_whole_network_will_do(tmp_path: Path) -> None:
    whole = write_siglip(tmp_path / "whole", seed=3, with_text=True)
    saved = load_file(whole / "model.safetensors")
    probe = load(whole).state_dict()["head.probe"]
    assert torch.equal(probe, saved["vision_model.head.probe"])


def test_loading_is_silent_and_leaves_the_logs_as_they_were(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load(folder)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert "".join(capfd.readouterr()) == ""


def test_the_version_changes_with_the_weights_and_not_with_the_place(folder: Path, tmp_path: Path) -> None:
    version = find_pretrained(str(folder), TYPES).version
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    (moved / "notes.txt").write_text("not part of it")
    assert find_pretrained(str(moved), TYPES, version).version == version
    tensors = load_file(moved / "model.safetensors")
    tensors["head.probe"] += 1
    save_file(tensors, moved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CorruptArtifact, match=r"its files have changed, their hash is sha256:\w+, expected sha256:"):
        find_pretrained(str(moved), TYPES, version)


def damage_truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def damage_no_safetensors(folder: Path) -> None:
    shutil.copyfile(folder / "model.safetensors", folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def damage_one_tensor_less(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layers.1.mlp.fc1.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "error", "text"),
    [
        (damage_truncated, CorruptArtifact, "SafetensorError"),
        (damage_no_safetensors, MissingArtifact, r"no file named model\.safetensors.*can run code.*weights_only=True"),
        (damage_one_tensor_less, CorruptArtifact, r"no weights for 1 of \d+ tensors .*\(encoder\.layers\.1\.mlp\.fc1"),
        (lambda f: change_config(f, hidden_size=64), CorruptArtifact, "cannot be loaded as SiglipVisionModel"),
        (lambda f: change_config(f, hidden_size="many"), CorruptArtifact, "cannot be loaded as SiglipVisionModel"),
        (lambda f: change_config(f, num_attention_heads=0), CorruptArtifact, "cannot be loaded as SiglipVisionModel"),
        (lambda f: change_config(f, hidden_act="magic"), CorruptArtifact, "cannot be loaded as SiglipVisionModel"),
        (lambda f: change_config(f, model_type="clip"), BadInput, "type 'clip', expected siglip or siglip_vision_mo"),
        (lambda f: (f / "config.json").write_text("{"), CorruptArtifact, "not readable as JSON"),
        (lambda f: (f / "config.json").write_text("[1]"), CorruptArtifact, "holds no JSON object"),
        (lambda f: (f / "config.json").unlink(), MissingArtifact, r"config\.json: no such file"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(
    folder: Path, damage: Callable[[Path], Any], error: type[Exception], text: str
) -> None:
    damage(folder)
    with pytest.raises(error, match=text) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_a_folder_that_is_not_there_is_no_hub_name(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match="no such folder, and no hub name"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["", "siglip", "a/b/c", "../siglip", "no such/name"])
def test_what_is_no_hub_name_is_not_asked_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingArtifact):
        load(name)


@pytest.mark.usefixtures("cache")
def test_without_a_connection_one_line_says_what_to_do() -> None:
    with pytest.raises(MissingArtifact) as caught:
        load("google/siglip-so400m-patch14-384")
    message = str(caught.value)
    assert message.startswith("google/siglip-so400m-patch14-384: no folder here, and not to be had from the Hugging")
    assert "name its folder" in message
    assert "\n" not in message


def test_a_hub_name_is_taken_from_the_cache_and_pinned_to_its_commit(folder: Path, cache: Path, tmp_path: Path) -> None:
    put_into_hub_cache(cache, "some/siglip", folder)
    found = find_pretrained("some/siglip", TYPES)
    assert not found.local
    assert found.version == COMMIT
    assert found.processor["resample"] == 3
    # The hub moves on; the pinned commit stays what it was.
    other = write_siglip(tmp_path / "other", seed=9)
    put_into_hub_cache(cache, "some/siglip", other, commit=COMMIT[::-1])
    assert find_pretrained("some/siglip", TYPES).version == COMMIT[::-1]
    pinned, newest = load("some/siglip", COMMIT), load("some/siglip")
    assert torch.equal(pinned.head.probe, load(folder).head.probe)
    assert torch.equal(newest.head.probe, load(other).head.probe)
    assert not torch.equal(pinned.head.probe, newest.head.probe)


def test_the_preparation_inside_a_joint_processor_is_found(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    assert find_pretrained(str(folder), TYPES).processor == {}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": {"image_mean": [0.1, 0.2, 0.3]}}))
    found = find_pretrained(str(folder), TYPES)
    assert channel_values(found, "image_mean", (0, 0, 0)) == (0.1, 0.2, 0.3)
    assert channel_values(found, "image_std", (1, 2, 3)) == (1, 2, 3)


@pytest.mark.parametrize("values", [[0.5, 0.5], 0.5, [0.5, 0.5, 0], [0.5, 0.5, "x"], [0.5, 0.5, float("nan")], None])
def test_a_preparation_that_makes_no_sense_is_refused(folder: Path, values: Any) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_std": values}))
    with pytest.raises(CorruptArtifact, match=r"image_std = .*expected three finite numbers above 0"):
        channel_values(find_pretrained(str(folder), TYPES), "image_std", (1, 1, 1))


# Single files of weights


def test_a_file_is_found_by_path_by_folder_and_by_hub_name(tmp_path: Path, cache: Path) -> None:
    repository = tmp_path / "repository"
    plain = write_head(repository / "model.safetensors")
    deep = write_head(repository / "heads" / "v2.safetensors", seed=2)
    put_into_hub_cache(cache, "some/head", repository)
    assert find_weights_file(str(plain)) == plain
    assert find_weights_file(str(repository)) == plain
    assert find_weights_file("some/head").read_bytes() == plain.read_bytes()
    assert find_weights_file("some/head/heads/v2.safetensors").read_bytes() == deep.read_bytes()


@pytest.mark.parametrize("name", ["head.pth", "head.bin", "owner/name/head.PT"])
def test_what_could_run_code_is_refused_before_it_is_looked_for(name: str) -> None:
    with pytest.raises(BadInput, match=r"not a safetensors file.*weights_only=True"):
        find_weights_file(name)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["nothing.safetensors", "/nowhere/head.safetensors", "some/absent", ""])
def test_a_missing_file_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingArtifact, match=name or r"model\.safetensors"):
        find_weights_file(name)
