"""The embedded model as a pipeline: it makes what our own loop makes, and makes its round trip bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.sampler.use.small_sampler import closed_form, small_book, small_model
from vernissage.core.errors import BadInput, CorruptArtifact
from vernissage.sampler.domain.denoiser import ClassLabels
from vernissage.sampler.domain.sampling import per_seed_noise, run_program
from vernissage.sampler.use.sample import Request, steered_sample
from vernissage.sampler.use.steered_pipeline import SteeredPipeline, book_of, scheduler_of

LABELS = [0, 1, 2, 2, 1, 0]


@pytest.fixture(scope="module")
def pipeline() -> SteeredPipeline:
    pipeline = SteeredPipeline.from_model(small_model())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generators(count: int = 6) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_it_draws_what_our_own_loop_draws(pipeline: SteeredPipeline) -> None:
    noise = torch.cat([torch.randn(1, 1, 8, 8, generator=one) for one in generators()])
    requests = [Request(label, 0, 2.0, 0.02) for label in LABELS]
    expected = steered_sample(small_model(), requests, noise=noise)
    drawn = pipeline(LABELS, price=0.02, guidance_scale=2.0, generator=generators(), output_type="pt")
    torch.testing.assert_close(drawn.images, expected.sample.clamp(-1, 1) / 2 + 0.5)
    assert drawn.nfe == expected.nfe.tolist()
    assert drawn.failed == [-1] * 6
    assert torch.equal(pipeline(LABELS, 0.02, 2.0, noise=noise, output_type="pt").images, drawn.images)


def test_pictures_come_out_as_is_wanted(pipeline: SteeredPipeline) -> None:
    drawn = {kind: pipeline(LABELS, generator=generators(), output_type=kind).images for kind in ("pil", "np", "pt")}
    assert drawn["pt"].shape == (6, 1, 8, 8)
    assert drawn["np"].shape == (6, 8, 8, 1)
    np.testing.assert_allclose(drawn["np"][..., 0], drawn["pt"][:, 0].numpy())
    assert [picture.size for picture in drawn["pil"]] == [(8, 8)] * 6
    assert drawn["pil"][0].mode == "L"
    assert np.abs(np.asarray(drawn["pil"][2]) / 255 - drawn["np"][2, ..., 0]).max() < 0.51 / 255
    images, nfe, failed = pipeline(LABELS, generator=generators(), output_type="np", return_dict=False)
    np.testing.assert_array_equal(images, drawn["np"])
    assert (len(nfe), len(failed)) == (6, 6)


def test_each_picture_has_its_own_price_budget_and_generator(pipeline: SteeredPipeline) -> None:
    told = {"price": [0.0, 0.02, 0.55] * 2, "budget": [None, 4, 3] * 2, "guidance_scale": [1.0, 2.0, 1.5] * 2}
    drawn = pipeline(LABELS, **told, generator=generators(), output_type="pt")
    assert all(nfe <= most for nfe, most in zip(drawn.nfe, told["budget"], strict=True) if most is not None)
    alone = pipeline(LABELS[4:5], 0.02, 2.0, budget=4, generator=torch.Generator().manual_seed(4), output_type="pt")
    torch.testing.assert_close(alone.images[0], drawn.images[4], atol=1e-4, rtol=1e-4)
    assert alone.nfe == drawn.nfe[4:5]


def test_a_number_of_steps_runs_the_schedulers_program(pipeline: SteeredPipeline) -> None:
    """State of the scheduler or none: as the program does it."""
    model, noise = small_model(), per_seed_noise(range(6), (1, 8, 8))
    for steps, scale in ((6, 1.0), (3, 2.0)):
        program = small_book().entry(steps, 1.0).program
        guidance = torch.full((6,), scale)
        expected = run_program(model.denoiser, noise, ClassLabels(torch.tensor(LABELS)), program, guidance)
        for _ in range(2):
            drawn = pipeline(LABELS, num_inference_steps=steps, guidance_scale=scale, noise=noise, output_type="pt")
            shown = expected.samples.clamp(-1, 1) / 2 + 0.5
            torch.testing.assert_close(drawn.images, shown, atol=1e-4, rtol=1e-4)
        assert drawn.nfe == expected.evaluations.tolist()


def test_a_scheduler_knows_every_level_of_a_book() -> None:
    scheduler: Any = scheduler_of(small_book(), 0.002, 80.0)
    for calls in small_book().budgets:
        scheduler.set_timesteps(calls)
        expected = small_book().entry(calls, 1.0).program.sigmas
        assert scheduler.sigmas.tolist() == pytest.approx(expected)
        assert len(set(scheduler.timesteps.tolist())) == calls


IN_A_FRESH_PROCESS = """
import sys, torch
from vernissage.core.devices import configure_torch
from vernissage.sampler.use.steered_pipeline import SteeredPipeline

torch.set_num_threads(1)
pipeline = SteeredPipeline.from_pretrained(sys.argv[1])
pipeline.set_progress_bar_config(disable=True)
generators = [torch.Generator().manual_seed(seed) for seed in range(6)]
drawn = pipeline([0, 1, 2, 2, 1, 0], 0.02, 2.0, generator=generators, output_type="pt")
by_steps = pipeline([0, 1], num_inference_steps=4, generator=generators[:2], output_type="pt")
assert "pickle" not in str(pipeline.config)
torch.save({"images": drawn.images, "nfe": torch.tensor(drawn.nfe), "steps": by_steps.images}, sys.argv[2])
"""


def test_the_round_trip_is_equal_bit_for_bit_in_a_fresh_process(pipeline: SteeredPipeline, tmp_path: Path) -> None:
    folder, out = tmp_path / "saved", tmp_path / "drawn.pt"
    pipeline.save_pretrained(folder)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {Path(name).suffix for name in files} == {".json", ".safetensors"}
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    assert index["unet"] == ["vernissage.sampler.use.steered_pipeline", "EdmNetwork"]
    assert index["controller"] == ["vernissage.sampler.learn.controller", "SteeringController"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        told = generators()
        drawn = pipeline(LABELS, 0.02, 2.0, generator=told, output_type="pt")
        by_steps = pipeline([0, 1], num_inference_steps=4, generator=told[:2], output_type="pt")
    finally:
        torch.set_num_threads(threads)
    words = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(folder), str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    again = torch.load(out, weights_only=True)
    assert torch.equal(again["images"], drawn.images)
    assert again["nfe"].tolist() == drawn.nfe
    assert torch.equal(again["steps"], by_steps.images)


@pytest.mark.parametrize("parts", [{"steered": False}, {"student": False}, {"steered": False, "student": False}])
def test_parts_may_be_left_out(parts: dict[str, bool], tmp_path: Path) -> None:
    pipeline = SteeredPipeline.from_model(small_model(**parts))
    pipeline.save_pretrained(tmp_path)
    again = SteeredPipeline.from_pretrained(tmp_path)
    assert (again.controller is None) == (not parts.get("steered", True))
    assert (again.student is None) == (not parts.get("student", True))
    drawn, same = (one(LABELS, 0.02, generator=generators(), output_type="pt").images for one in (pipeline, again))
    assert torch.equal(drawn, same)
    assert again.model.names == ("cat", "dog", "2")


def test_pickled_weights_are_not_read(pipeline: SteeredPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(pipeline.unet.state_dict(), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(OSError, match="safetensors"):
        SteeredPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"labels": [0, 3]}, "class 3"),
        ({"price": -1.0}, "price = -1.0"),
        ({"price": [0.1]}, "1 values for 2 labels"),
        ({"budget": 0}, "at least 1"),
        ({"generator": [torch.Generator()]}, "1 generators for 2 labels"),
        ({"noise": torch.zeros(2, 3, 8, 8)}, "channels"),
        ({"output_type": "gif"}, "pil, np, pt"),
        ({"num_inference_steps": 4, "price": 0.1}, "either"),
        ({"num_inference_steps": 0}, "num_inference_steps = 0"),
        ({"num_inference_steps": 4, "noise": torch.zeros(2, 1, 4, 4)}, "shape"),
        ({"num_inference_steps": 4, "labels": [0, 7]}, "class 7"),
        ({"labels": []}, "at least one"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: dict[str, Any], said: str, pipeline: SteeredPipeline) -> None:
    with pytest.raises(BadInput, match=said):
        pipeline(**{"labels": [0, 1], **wrong})


def test_other_models_are_refused() -> None:
    with pytest.raises(BadInput, match="SteeredScheduler"):
        SteeredPipeline.from_model(closed_form())
    with pytest.raises(CorruptArtifact, match="book of programs"):
        book_of({"entries": [{}]})


def test_a_broken_network_leaves_neighbours_alone() -> None:
    pipeline = SteeredPipeline.from_model(small_model(steered=False))
    pipeline.set_progress_bar_config(disable=True)
    whole = [
        pipeline(LABELS, generator=generators(), output_type="pt", **way) for way in ({}, {"num_inference_steps": 4})
    ]
    ask = pipeline.unet.denoiser._call

    def broken(x: torch.Tensor, sigma: torch.Tensor, condition: Any) -> tuple[torch.Tensor, torch.Tensor]:
        answer, features = ask(x, sigma, condition)
        return answer.masked_fill(
            (condition.labels == 1).view(-1, 1, 1, 1) & (sigma < 1).view(-1, 1, 1, 1), torch.nan
        ), features

    pipeline.unet.denoiser._call = broken
    for before, way in zip(whole, ({}, {"num_inference_steps": 4}), strict=True):
        drawn = pipeline(LABELS, generator=generators(), output_type="pt", **way)
        assert [call > 0 for call in drawn.failed] == [label == 1 for label in LABELS]
        for place, label in enumerate(LABELS):
            if label != 1:
                torch.testing.assert_close(drawn.images[place], before.images[place], atol=1e-5, rtol=1e-5)
        assert len(pipeline(LABELS, generator=generators(), **way).images) == 6
