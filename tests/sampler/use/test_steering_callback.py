from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionXLPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback, SDCFGCutoffCallback

from tests.sampler.domain.tiny_pipelines import save_sdxl
from vernissage.sampler.domain.pipelines import load_denoiser
from vernissage.sampler.domain.programs import heun, ipndm
from vernissage.sampler.domain.sampling import per_seed_noise, run_program
from vernissage.sampler.domain.schedules import karras
from vernissage.sampler.use.steered_scheduler import SteeredScheduler
from vernissage.sampler.use.steering_callback import FAINT, SDXL_INPUTS, SteeringCallback

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = ipndm(karras(6, 0.05, 14.0))
PROMPTS = ["a lamp", "a door"]
NOISE = per_seed_noise([1, 2], (4, 8, 8))


def steer(pipeline: Any, program: Any = PROGRAM) -> list[int]:
    """Rows of each network call from now on."""
    rows: list[int] = []
    pipeline.scheduler = SteeredScheduler.from_config(pipeline.scheduler.config, programs=program)
    pipeline.unet.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    return rows


def draw(pipeline: Any, callback: Any, scale: float = 3.0, steps: int = 6) -> torch.Tensor:
    latents: torch.Tensor = pipeline(
        PROMPTS, num_inference_steps=steps, latents=NOISE, output_type="latent", guidance_scale=scale,
        callback_on_step_end=callback,
    ).images  # fmt: skip
    return latents


def test_a_callback_that_only_watches_changes_nothing(sd_pipeline: Any) -> None:
    steer(sd_pipeline)
    callback = SteeringCallback()
    assert isinstance(callback, PipelineCallback)
    assert torch.equal(draw(sd_pipeline, callback), draw(sd_pipeline, None))
    assert not callback.stopped
    assert [row["step"] for row in callback.trace] == list(range(6))
    assert [row["sigma"] for row in callback.trace] == pytest.approx(PROGRAM.levels, rel=1e-5)
    assert [row["guidance"] for row in callback.trace] == [3.0] * 6
    assert callback.trace[0]["milliseconds"] is None
    assert all(row["milliseconds"] > 0 for row in callback.trace[1:])
    assert json.loads(json.dumps(callback.trace)) == callback.trace


def test_the_trace_has_how_far_predictions_move(sd_pipeline: Any) -> None:
    steer(sd_pipeline)
    callback, seen = SteeringCallback(), []

    def both(pipeline: Any, step: int, timestep: Any, shown: dict[str, Any]) -> dict[str, Any]:
        seen.append(pipeline.scheduler.last_prediction.clone())
        return callback(pipeline, step, timestep, shown)  # type: ignore[no-any-return]

    for _ in range(2):
        seen.clear()
        draw(sd_pipeline, both)
        for row, here, before in zip(callback.trace, seen, [torch.zeros_like(seen[0]), *seen], strict=False):
            by_sample = (here - before).square().mean(dim=(1, 2, 3)).sqrt()
            assert row["change"] == pytest.approx(float(by_sample.max()), rel=1e-5)


def test_it_stops_with_the_prediction(sd_pipeline: Any) -> None:
    rows = steer(sd_pipeline)
    callback = SteeringCallback(stop_after=3)
    stopped = draw(sd_pipeline, callback)
    assert rows == [4] * 3
    assert (callback.stopped, len(callback.trace)) == (True, 3)
    assert torch.equal(stopped, sd_pipeline.scheduler.last_prediction)
    # The next run is whole again.
    assert torch.equal(draw(sd_pipeline, SteeringCallback(stop_after=6)), draw(sd_pipeline, None))
    draw(sd_pipeline, callback)
    assert len(callback.trace) == 3


def test_it_stops_where_nothing_moves_any_more(sd_pipeline: Any) -> None:
    steer(sd_pipeline)
    watcher = SteeringCallback()
    draw(sd_pipeline, watcher)
    changes = [row["change"] for row in watcher.trace]
    limit = sorted(changes[1:])[1]
    first = next(step for step, change in enumerate(changes) if step and change <= limit)
    callback = SteeringCallback(stop_below=limit)
    draw(sd_pipeline, callback)
    assert (len(callback.trace), callback.stopped) == (first + 1, first < 5)
    draw(sd_pipeline, never := SteeringCallback(stop_below=1e-9))
    assert (len(never.trace), never.stopped) == (6, False)


def test_a_correction_is_no_reason_to_stop() -> None:
    """Its prediction is of the same noise level as the next one, and so hardly another."""
    scheduler = SteeredScheduler(programs=heun((8.0, 4.0, 2.0, 0.0)))
    scheduler.set_timesteps(5)
    pipeline = SimpleNamespace(scheduler=scheduler, guidance_scale=1.0, do_classifier_free_guidance=False)
    callback, x = SteeringCallback(stop_below=0.01), torch.ones(1, 4, 2, 2)
    pictures = iter([1.0, 2.0, 2.0, 3.0, 3.0])
    for step, moment in enumerate(scheduler.timesteps):
        sigma = float(scheduler.sigmas[step])
        said = (x * (1 + sigma**2) ** 0.5 - next(pictures)) / sigma
        x = scheduler.step(said, moment, x).prev_sample
        callback(pipeline, step, moment, {"latents": x})
    assert callback.trace[2]["change"] < 0.01
    assert not callback.stopped


def test_guidance_has_an_interval(sd_pipeline: Any, sd_folder: Path) -> None:
    """The samples are those of a scale per call; a step without guidance asks about half as many rows."""
    rows = steer(sd_pipeline)
    interval = (PROGRAM.levels[4], PROGRAM.levels[1])
    callback = SteeringCallback(scales=3.0, interval=interval)
    scale = callback.first_scale(PROGRAM.levels[0])
    assert scale == FAINT
    found = draw(sd_pipeline, callback, scale)
    assert rows == [4, 4, 4, 4, 2, 2]
    guidance = [1.0, 3.0, 3.0, 3.0, 1.0, 1.0]
    assert [row["guidance"] for row in callback.trace] == pytest.approx(guidance, abs=1e-5)
    denoiser = load_denoiser(sd_folder, device="cpu", attention_slicing=False)
    expected = run_program(denoiser, NOISE, denoiser.encode_prompts(PROMPTS), PROGRAM, torch.tensor([guidance] * 2))
    torch.testing.assert_close(found, expected.samples, rtol=1e-3, atol=1e-3)
    assert torch.equal(draw(sd_pipeline, callback, scale), found)


def test_each_step_has_its_own_scale(sd_pipeline: Any, sd_folder: Path) -> None:
    """Guidance that was off comes back, with what it guides away from."""
    rows = steer(sd_pipeline)
    scales = [2.0, 1.0, 3.0, 1.0, 1.0, 1.5]
    callback = SteeringCallback(scales=scales)
    found = draw(sd_pipeline, callback, callback.first_scale(14.0))
    assert rows == [4, 2, 4, 2, 2, 4]
    denoiser = load_denoiser(sd_folder, device="cpu", attention_slicing=False)
    expected = run_program(denoiser, NOISE, denoiser.encode_prompts(PROMPTS), PROGRAM, torch.tensor([scales] * 2))
    torch.testing.assert_close(found, expected.samples, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="6 scales for 5 steps"):
        draw(sd_pipeline, callback, 2.0, steps=5)


def test_no_guidance_at_all_costs_nothing(sd_pipeline: Any) -> None:
    rows = steer(sd_pipeline)
    callback = SteeringCallback(scales=1.0, interval=(0.3, 5.0))
    assert callback.first_scale(14.0) == 1
    draw(sd_pipeline, callback, callback.first_scale(14.0))
    assert rows == [2] * 6
    # Called with guidance that nobody wants, the pipeline has it for its first step only.
    draw(sd_pipeline, callback, 7.5)
    assert rows[6:] == [4] + [2] * 5


def test_the_xl_kind_has_more_rows(tmp_path: Path) -> None:
    load: Any = StableDiffusionXLPipeline.from_pretrained
    pipeline = load(save_sdxl(tmp_path))
    pipeline.set_progress_bar_config(disable=True)
    rows = steer(pipeline)
    callback = SteeringCallback(scales=[3.0, 1.0, 1.0, 3.0, 3.0, 1.0], inputs=SDXL_INPUTS)
    found = draw(pipeline, callback, 3.0)
    assert rows == [4, 2, 2, 4, 4, 2]
    assert torch.isfinite(found).all()


def test_it_works_beside_callbacks_of_diffusers(sd_pipeline: Any) -> None:
    steer(sd_pipeline)
    callback = SteeringCallback()
    other = SDCFGCutoffCallback(cutoff_step_ratio=1.0)  # type: ignore[no-untyped-call]
    draw(sd_pipeline, MultiPipelineCallbacks([callback, other]))
    assert len(callback.trace) == 6


def test_what_does_not_fit_is_refused(sd_pipeline: Any) -> None:
    for wrong in (
        {"scales": 0.5}, {"scales": []}, {"scales": [2.0, float("nan")]}, {"interval": (2.0, 1.0)},
        {"interval": (-1.0, 1.0)}, {"stop_after": 0}, {"stop_below": 0.0}, {"interval": (0.3, 5.0)},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="expected"):
            SteeringCallback(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no scales were given"):
        SteeringCallback().first_scale(14.0)
    own = sd_pipeline.scheduler
    steer(sd_pipeline)
    with pytest.raises(ValueError, match="begins without guidance"):
        draw(sd_pipeline, SteeringCallback(scales=2.0), 1.0)
    sd_pipeline.scheduler = DPMSolverMultistepScheduler.from_config(own.config)
    with pytest.raises(ValueError, match="expected a SteeredScheduler"):
        draw(sd_pipeline, SteeringCallback())


def test_a_step_costs_less_than_a_millisecond() -> None:
    """The best of several runs by this thread's own time, so that the machine's other work does not count."""
    scheduler = SteeredScheduler(programs=ipndm(karras(40, 0.05, 14.0)))
    pipeline = SimpleNamespace(
        scheduler=scheduler, guidance_scale=3.0, do_classifier_free_guidance=True, num_timesteps=40
    )
    callback = SteeringCallback(scales=3.0, interval=(0.3, 5.0), stop_below=1e-9)
    embeddings, best = torch.zeros(4, 77, 768), []
    x = per_seed_noise([1, 2], (4, 64, 64))
    for _ in range(3):
        scheduler.set_timesteps(40)
        spent = 0.0
        for step, moment in enumerate(scheduler.timesteps):
            latents = scheduler.step(x, moment, x).prev_sample
            begun = time.thread_time()
            callback(pipeline, step, moment, {"latents": latents, "prompt_embeds": embeddings})
            spent += time.thread_time() - begun
        best.append(spent / 40)
    assert min(best) < 0.001
