"""A sampler makes its round trip through a folder; what is missing or damaged is said with what to run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from tests.sampler.use.small_sampler import closed_form, random_network, small_book, small_model
from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact
from vernissage.sampler.domain.unet import EdmDenoiser, UNetSpec
from vernissage.sampler.learn.cascade import EVIDENCE, Cascade, Thresholds, Verifier
from vernissage.sampler.learn.consistency import Student
from vernissage.sampler.use.model import SamplerModel
from vernissage.sampler.use.sample import Request, steered_sample

if TYPE_CHECKING:
    from pathlib import Path

REQUESTS = [Request(place % 3, place, (1.0, 2.0)[place % 2], (0.0, 0.03)[place // 3]) for place in range(6)]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    model = small_model()
    assert isinstance(model.denoiser, EdmDenoiser)
    model.denoiser.save(tmp_path / "denoiser", {"class_names": list(model.names)})
    model.save(tmp_path / "sampler")
    return tmp_path / "denoiser", tmp_path / "sampler"


def test_what_was_saved_draws_the_same(folders: tuple[Path, Path]) -> None:
    before, after = small_model(), SamplerModel.load(*folders, device="cpu")
    drawn, again = steered_sample(before, REQUESTS), steered_sample(after, REQUESTS)
    assert torch.equal(again.sample, drawn.sample)
    assert again.nfe.tolist() == drawn.nfe.tolist()
    assert (after.names, after.classes, after.facts) == (("cat", "dog", "2"), 3, {"note": "small"})
    assert after.book == before.book
    assert not after.steers_at(0.55)
    assert after.steers_at(0.02)
    assert not list(folders[1].rglob("*.bin")) + list(folders[1].rglob("*.p*t*"))


def test_parts_may_be_left_out(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    # What was in the folder before is gone, so that no old controller steers.
    small_model(steered=False, student=False).save(folders[1])
    model = SamplerModel.load(*folders, device="cpu")
    assert (model.controller, model.student, model.cascade) == (None, None, None)
    assert not model.steers_at(0.02)
    result = steered_sample(model, REQUESTS)
    assert result.nfe.tolist() == result.static_nfe.tolist()


def test_a_cascade_comes_with_its_student(folders: tuple[Path, Path]) -> None:
    denoiser = random_network()
    width = len(EVIDENCE) + denoiser.feature_width
    tables = (torch.ones(2, width + 1), torch.zeros(2, width), torch.ones(2, width))
    verifier = Verifier(*(table.double() for table in tables), (0.1, 0.1))  # type: ignore[arg-type, misc]
    cascade = Cascade(Student.of(denoiser), verifier, small_book(), {0.05: Thresholds(0.4, 0.5)})
    model = replace(small_model(student=False), cascade=cascade)
    assert model.student is cascade.student
    model.save(folders[1])
    loaded = SamplerModel.load(*folders, device="cpu")
    assert loaded.cascade is not None
    assert loaded.student is loaded.cascade.student
    assert loaded.cascade.for_price(0.1) == Thresholds(0.4, 0.5)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("denoiser", "dvc repro denoiser"),
        ("sampler", "dvc repro train@sampler"),
        ("sampler/sampler.json", "dvc repro train@sampler"),
        ("sampler/book.json", "train@sampler"),
        ("sampler/controller/config.json", "train@sampler"),
        ("sampler/student/model.safetensors", "train@sampler"),
    ],
)
def test_what_is_missing_is_said(gone: str, said: str, folders: tuple[Path, Path]) -> None:
    path = folders[0].parent / gone
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(MissingArtifact, match=said) as caught:
        SamplerModel.load(*folders)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "damaged",
    [
        "sampler.json", "book.json", "student/model.json", "student/model.safetensors", "controller/config.json",
        "controller/diffusion_pytorch_model.safetensors",
    ],
)  # fmt: skip
@pytest.mark.parametrize("by", [b"", b"{", None])
def test_what_is_damaged_is_said(damaged: str, by: bytes | None, folders: tuple[Path, Path]) -> None:
    path = folders[1] / damaged
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data) if by is None else by)
    if by is None and damaged == "sampler.json":
        path.write_text(json.dumps({"format": 99}), encoding="utf-8")
    with pytest.raises(CorruptArtifact, match=damaged.rsplit("/", 1)[-1]):
        SamplerModel.load(*folders)


def test_parts_of_different_models_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    other = EdmDenoiser(UNetSpec(channels=3, side=8, classes=3, width=8, attention_side=0))
    other.save(tmp_path / "other")
    with pytest.raises(CorruptArtifact, match="made for samples of"):
        SamplerModel.load(tmp_path / "other", folders[1])
    with pytest.raises(BadInput, match="belong to different models"):
        closed_form(student=Student.of(random_network()))


def test_facts_that_json_cannot_say_leave_the_old_sampler(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="nan"):
        replace(small_model(), facts={"loss": float("nan")}).save(folders[1])
    assert SamplerModel.load(*folders).facts == {"note": "small"}
