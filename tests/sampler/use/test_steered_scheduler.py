from __future__ import annotations

import ast
import inspect
import json
import math
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)

from tests.sampler.domain.closed_form import Gaussian, Shades, Signs
from tests.sampler.domain.tiny_pipelines import SD_BETAS
from vernissage.sampler.domain.pipelines import load_denoiser
from vernissage.sampler.domain.programs import SOLVERS, Program, dpmpp, euler, heun, ipndm
from vernissage.sampler.domain.sampling import per_seed_noise, run_program
from vernissage.sampler.domain.schedules import karras, training_sigmas
from vernissage.sampler.use import steered_scheduler
from vernissage.sampler.use.steered_scheduler import SteeredScheduler, SteeredSchedulerOutput

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.sampler.domain.denoiser import Denoiser

# diffusers calls numpy in ways that numpy deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

TRAINED = training_sigmas("scaled_linear", 0.00085, 0.012)
SIGMAS = karras(6, float(TRAINED[0]), float(TRAINED[-1]))


def steered(*programs: Program, **config: Any) -> SteeredScheduler:
    return SteeredScheduler(**(SD_BETAS | config), programs=[program.to_dict() for program in programs])


def answer(prediction_type: str, x: torch.Tensor, sigma: float, denoiser: Denoiser) -> torch.Tensor:
    """What a network of this type says to a state of variance 1."""
    root = math.sqrt(1 + sigma**2)
    state = x * root
    picture = denoiser(state, torch.full((len(x),), sigma, dtype=x.dtype), None)
    noise = (state - picture) / sigma
    return {"sample": picture, "epsilon": noise, "v_prediction": (noise - sigma * picture) / root}[prediction_type]


def loop(scheduler: SteeredScheduler, denoiser: Denoiser, noise: torch.Tensor, start: int = 0) -> torch.Tensor:
    """As pipelines do it; `noise` is the first state but for its scale."""
    assert scheduler._plan is not None
    if start:
        scheduler.set_begin_index(start)
    x = noise * scheduler.init_noise_sigma
    for call, time in enumerate(scheduler.timesteps[start:], start):
        shown = scheduler.scale_model_input(x, time)
        said = answer(scheduler.config["prediction_type"], shown, scheduler._plan.levels[call], denoiser)
        step = scheduler.step(said, time, x)
        assert isinstance(step, SteeredSchedulerOutput)
        x = step.prev_sample
    return x


def run(scheduler: SteeredScheduler, denoiser: Denoiser, noise: torch.Tensor, steps: int) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    return loop(scheduler, denoiser, noise)


# The same as the sampler itself


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_every_solver_gives_what_run_program_gives(name: str, prediction_type: str) -> None:
    program = SOLVERS[name](SIGMAS)
    noise = per_seed_noise(range(3), Signs.shape).double()
    expected = run_program(Signs(), noise, None, program).samples
    found = run(steered(program, prediction_type=prediction_type), Signs(), noise, program.evaluations)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_it_does_so_in_float32() -> None:
    for program in (heun(SIGMAS), ipndm(SIGMAS), dpmpp(SIGMAS, 3)):
        noise = per_seed_noise(range(3), Signs.shape)
        expected = run_program(Signs(), noise, None, program).samples
        found = run(steered(program), Signs(), noise, program.evaluations)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_fitted_numbers_are_taken_as_they_are() -> None:
    program = Program("fitted", (9.0, 3.0, 1.0, 0.0), ((0.6,), (0.7, 0.1), (0.5,), (0.9, 0.3, -0.2)), (2,))
    noise = per_seed_noise(range(2), Gaussian.shape).double()
    expected = run_program(Gaussian(), noise, None, program).samples
    torch.testing.assert_close(run(steered(program), Gaussian(), noise, 4), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 20])
def test_without_a_program_it_is_dpm_solver_on_karras_levels(steps: int) -> None:
    scheduler = steered(euler(SIGMAS))
    scheduler.set_timesteps(steps)
    levels = karras(steps, float(TRAINED[0]), float(TRAINED[-1]))
    assert scheduler.sigmas.tolist() == pytest.approx(levels, rel=1e-4)
    noise = per_seed_noise(range(3), Signs.shape).double()
    expected = run_program(Signs(), noise, None, dpmpp(levels, 2)).samples
    torch.testing.assert_close(loop(scheduler, Signs(), noise), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("steps", [6, 20])
def test_the_built_in_program_is_that_of_diffusers(steps: int) -> None:
    """Whose timesteps are rounded. It computes in float32."""
    theirs: Any = DPMSolverMultistepScheduler(**SD_BETAS, use_karras_sigmas=True, prediction_type="sample")
    theirs.set_timesteps(steps)
    mine = SteeredScheduler.from_config(theirs.config, round_timesteps=True)
    mine.set_timesteps(steps)
    torch.testing.assert_close(mine.sigmas, theirs.sigmas, rtol=1e-4, atol=0)
    assert mine.timesteps.tolist() == theirs.timesteps.tolist()
    x = y = per_seed_noise(range(3), Signs.shape)
    for call, time in enumerate(mine.timesteps):
        sigma = float(mine.sigmas[call])
        x = mine.step(answer("sample", x, sigma, Signs()), time, x).prev_sample
        y = theirs.step(answer("sample", y, sigma, Signs()), time, y).prev_sample
        torch.testing.assert_close(x, y, rtol=2e-3, atol=2e-3)


# Steps


def test_a_tuple_is_the_object() -> None:
    first, second = steered(), steered()
    x = per_seed_noise([1], Signs.shape)
    for scheduler in (first, second):
        scheduler.set_timesteps(5)
    for time in first.timesteps:
        named = first.step(x / 2, time, x)
        plain = second.step(x / 2, time, x, return_dict=False)
        assert isinstance(named, SteeredSchedulerOutput)
        assert isinstance(plain, tuple)
        assert torch.equal(named.prev_sample, plain[0])
        assert named.pred_original_sample is not None
        assert torch.equal(named.pred_original_sample, plain[1])
        assert len(named.to_tuple()) == len(plain) == 2
        x = plain[0]


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 4, 2, 3, 3), (3, 6)])
def test_states_keep_their_shape(shape: tuple[int, ...]) -> None:
    scheduler = steered(heun(SIGMAS))
    for steps in (11, 4):
        scheduler.set_timesteps(steps)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        for time in scheduler.timesteps:
            x = scheduler.step(x, time, x).prev_sample
            assert x.shape == shape


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_left_only_for_the_step(kind: torch.dtype) -> None:
    program = ipndm(SIGMAS)
    half, single = steered(program), steered(program)
    half.set_timesteps(6)
    single.set_timesteps(6)
    x = per_seed_noise([1, 2], Signs.shape).to(kind)
    for time in half.timesteps:
        said = (x.float() / 3).to(kind)
        low, full = half.step(said, time, x), single.step(said.float(), time, x.float())
        assert low.prev_sample.dtype == low.pred_original_sample.dtype == kind
        assert torch.equal(low.prev_sample, full.prev_sample.to(kind))
        assert half.last_prediction is not None
        assert half.last_prediction.dtype == torch.float32
        x = low.prev_sample


def test_the_last_state_is_the_last_prediction() -> None:
    scheduler = steered(dpmpp(SIGMAS))
    noise = per_seed_noise([1, 2], Signs.shape)
    assert scheduler.last_prediction is None
    sample = run(scheduler, Signs(), noise, 6)
    assert scheduler.last_prediction is not None
    torch.testing.assert_close(sample, scheduler.last_prediction, rtol=1e-6, atol=1e-6)


def test_a_learned_variance_is_left_out() -> None:
    with_it, without = steered(), steered()
    x = per_seed_noise([1], (3, 2, 2))
    for scheduler in (with_it, without):
        scheduler.set_timesteps(3)
    wide = with_it.step(torch.cat((x / 2, x * 9), dim=1), with_it.timesteps[0], x)
    assert torch.equal(wide.prev_sample, without.step(x / 2, without.timesteps[0], x).prev_sample)


def test_a_batch_is_its_samples_one_by_one() -> None:
    scheduler, noise = steered(ipndm(SIGMAS)), per_seed_noise(range(4), Signs.shape)
    together = run(scheduler, Signs(), noise, 6)
    for row in range(4):
        assert torch.equal(run(scheduler, Signs(), noise[row : row + 1], 6)[0], together[row])


def test_a_second_run_knows_nothing_of_the_first() -> None:
    """Even one that was broken off, with another shape, or another program."""
    scheduler, noise = steered(ipndm(SIGMAS), heun(SIGMAS)), per_seed_noise(range(2), Signs.shape)
    first = run(scheduler, Signs(), noise, 6)
    assert torch.equal(run(scheduler, Signs(), noise, 6), first)
    run(scheduler, Signs(), noise, 11)
    scheduler.set_timesteps(6)
    scheduler.set_begin_index(2)
    for time in scheduler.timesteps[2:4]:
        scheduler.step(torch.ones(5, 1, 2, 2), time, torch.ones(5, 1, 2, 2))
    assert torch.equal(run(scheduler, Signs(), noise, 6), first)
    # A run from the middle is where an earlier prediction would be missed.
    fresh = steered(ipndm(SIGMAS))
    fresh.set_timesteps(6)
    scheduler.set_timesteps(6)
    assert scheduler.last_prediction is None
    assert torch.equal(loop(scheduler, Signs(), noise, 3), loop(fresh, Signs(), noise, 3))


def test_a_step_needs_timesteps_and_ends_with_them() -> None:
    scheduler, x = steered(), torch.ones(1, 1, 2, 2)
    assert torch.equal(scheduler.scale_model_input(x, 3), x)
    assert 0.99 < scheduler.init_noise_sigma < 1
    with pytest.raises(ValueError, match="set_timesteps first"):
        scheduler.step(x, 999, x)
    scheduler.set_timesteps(2)
    for time in scheduler.timesteps:
        scheduler.step(x, time, x)
    with pytest.raises(ValueError, match="all 2 steps are done"):
        scheduler.step(x, scheduler.timesteps[-1], x)
    scheduler.set_timesteps(2)
    with pytest.raises(ValueError, match=r"is not in the schedule"):
        scheduler.step(x, 17, x)
    with pytest.raises(ValueError, match=r"\(1, 1, 2, 3\), expected \(1, 1, 2, 2\)"):
        scheduler.step(torch.ones(1, 1, 2, 3), scheduler.timesteps[0], x)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_a_start_in_the_middle_does_without_a_past(name: str) -> None:
    """A picture that the network is sure of comes out, wherever a run begins."""
    program = SOLVERS[name](SIGMAS)
    scheduler, noise = steered(program), per_seed_noise([0], Shades.shape).double()
    for start in range(program.evaluations):
        scheduler.set_timesteps(program.evaluations)
        sample = loop(scheduler, Shades(), noise, start)
        torch.testing.assert_close(sample, -torch.ones_like(sample), rtol=1e-9, atol=1e-9)


def test_step_and_begin_index_are_those_of_diffusers() -> None:
    scheduler, x = steered(heun(SIGMAS)), torch.ones(1, 1, 2, 2)
    scheduler.set_timesteps(11)
    assert (scheduler.step_index, scheduler.begin_index, scheduler.order) == (None, None, 1)
    # By its timestep a run begins with the call that steps onwards, not with the one that corrects.
    scheduler.step(x, scheduler.timesteps[3], x)
    assert scheduler.step_index == 5
    scheduler.set_timesteps(11)
    scheduler.set_begin_index(3)
    scheduler.step(x, scheduler.timesteps[3], x)
    assert (scheduler.step_index, scheduler.begin_index) == (4, 3)
    scheduler.set_timesteps(11)
    assert (scheduler.step_index, scheduler.begin_index) == (None, None)


# Timesteps and noise levels


def test_the_program_says_what_the_network_is_told() -> None:
    program = heun(SIGMAS)
    scheduler = steered(program)
    scheduler.set_timesteps(11, device="cpu")
    assert scheduler.num_inference_steps == len(scheduler.timesteps) == 11
    assert scheduler.sigmas.tolist() == pytest.approx([*program.levels, 0.0], rel=1e-6)
    expected = np.interp(np.log(program.levels), np.log(TRAINED), np.arange(1000))
    assert scheduler.timesteps.dtype == torch.float32
    assert scheduler.timesteps.tolist() == pytest.approx(expected.tolist(), abs=0.02)
    assert len(scheduler) == 1000
    whole = steered(program, round_timesteps=True)
    whole.set_timesteps(11)
    assert whole.timesteps.dtype == torch.int64
    assert whole.timesteps.tolist() == scheduler.timesteps.round().tolist()
    assert torch.equal(whole.sigmas, scheduler.sigmas)


def test_custom_timesteps() -> None:
    scheduler = steered(euler(SIGMAS))
    scheduler.set_timesteps(timesteps=[999, 600, 250, 20])
    assert scheduler.timesteps.dtype == torch.int64
    assert scheduler.timesteps.tolist() == [999, 600, 250, 20]
    assert scheduler.sigmas.tolist() == pytest.approx([*TRAINED[[999, 600, 250, 20]], 0], rel=1e-4)
    assert torch.isfinite(loop(scheduler, Signs(), per_seed_noise([0], Signs.shape))).all()
    scheduler.set_timesteps(timesteps=[999, 600.5])
    assert scheduler.timesteps.tolist() == pytest.approx([999, 600.5], abs=1e-3)
    for wrong in ([20, 250], [999, 999], [1000, 3], [5, -1], [], [999, math.nan], ["noon"]):
        with pytest.raises(ValueError, match="expected"):
            scheduler.set_timesteps(timesteps=wrong)


def test_custom_sigmas() -> None:
    scheduler, noise = steered(euler(SIGMAS)), per_seed_noise(range(2), Signs.shape)
    expected = run_program(Signs(), noise, None, dpmpp(SIGMAS, 2)).samples
    for given in (list(SIGMAS), list(SIGMAS[:-1]), np.array(SIGMAS)):
        scheduler.set_timesteps(sigmas=given)
        assert scheduler.num_inference_steps == 6
        torch.testing.assert_close(loop(scheduler, Signs(), noise), expected, rtol=1e-5, atol=1e-5)
    for wrong in ([1.0, 2.0], [2.0, 0.0, 0.0], [], [0.0], [math.inf, 1.0], [-1.0]):
        with pytest.raises(ValueError, match="expected"):
            scheduler.set_timesteps(sigmas=wrong)


def test_exactly_one_schedule_is_asked_for() -> None:
    scheduler = steered()
    for asked in ({}, {"num_inference_steps": 2, "sigmas": [1.0]}, {"timesteps": [3], "sigmas": [1.0]}):
        with pytest.raises(ValueError, match="exactly one"):
            scheduler.set_timesteps(**asked)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        scheduler.set_timesteps(0)


def test_a_program_for_another_network_is_named(caplog: pytest.LogCaptureFixture) -> None:
    scheduler = steered(euler((80.0, 1.0, 0.0)), euler(SIGMAS))
    scheduler.set_timesteps(6)
    assert not caplog.records
    scheduler.set_timesteps(2)
    assert "from sigma 80 to 1" in caplog.text


def test_noise_is_added_as_in_training() -> None:
    scheduler, trained = steered(euler(SIGMAS)), DDPMScheduler(**SD_BETAS)
    pictures, noise = per_seed_noise(range(4), (1, 3, 3)), per_seed_noise(range(4, 8), (1, 3, 3))
    times = torch.tensor([0, 10, 500, 999])
    expected = trained.add_noise(pictures, noise, times)  # type: ignore[attr-defined]
    torch.testing.assert_close(scheduler.add_noise(pictures, noise, times), expected, rtol=1e-4, atol=1e-5)
    scheduler.set_timesteps(6)
    torch.testing.assert_close(scheduler.add_noise(pictures, noise, times), expected, rtol=1e-4, atol=1e-5)
    # In between, a state has the level at which it will be stepped from, whatever the network is told.
    scheduler, sigma = steered(euler(SIGMAS), round_timesteps=True), SIGMAS[4]
    scheduler.set_timesteps(6)
    state = scheduler.add_noise(pictures, noise, scheduler.timesteps[4:5])
    torch.testing.assert_close(state, (pictures + sigma * noise) / math.sqrt(1 + sigma**2), rtol=1e-6, atol=1e-6)
    sigma = SIGMAS[2]
    state = scheduler.add_noise(pictures.half(), noise.half(), scheduler.timesteps[2:3])
    assert state.dtype == torch.float16
    torch.testing.assert_close(state.float(), (pictures + sigma * noise) / math.sqrt(1 + sigma**2), rtol=0, atol=3e-3)


# Configuration


def test_it_is_saved_and_read_back(tmp_path: Path) -> None:
    scheduler = steered(heun(SIGMAS), ipndm(SIGMAS), prediction_type="v_prediction", round_timesteps=True)
    scheduler.save_pretrained(tmp_path)
    again = SteeredScheduler.from_pretrained(tmp_path)
    assert isinstance(again, SteeredScheduler)
    assert {k: v for k, v in again.config.items() if k[0] != "_"} == {
        k: v for k, v in scheduler.config.items() if k[0] != "_"
    }
    noise = per_seed_noise([0], Signs.shape)
    for steps in (6, 11, 4):
        assert torch.equal(run(again, Signs(), noise, steps), run(scheduler, Signs(), noise, steps))
    again.save_pretrained(tmp_path / "twice")
    assert (tmp_path / "twice/scheduler_config.json").read_text() == (tmp_path / "scheduler_config.json").read_text()


def test_programs_come_in_several_shapes() -> None:
    program, other = euler(SIGMAS), heun(SIGMAS)
    several = [
        [program.to_dict(), other.to_dict()],
        {6: program.to_dict(), 11: other.to_dict()},
        json.loads(json.dumps({"6": program.to_dict(), "11": other.to_dict()})),
        (program, other),
    ]
    expected = steered(program, other).config["programs"]
    assert [document["name"] for document in expected] == ["euler", "heun"]
    assert [Program.from_dict(document) for document in expected] == [program, other]
    for given in several:
        assert SteeredScheduler(programs=given).config["programs"] == expected  # type: ignore[arg-type]
    for alone in (program, program.to_dict(), {"sigmas": SIGMAS, "coefficients": program.coefficients}):
        assert len(SteeredScheduler(programs=alone).config["programs"]) == 1  # type: ignore[arg-type]
    assert SteeredScheduler().config["programs"] == []


@pytest.mark.parametrize(
    ("programs", "message"),
    [
        ({5: euler(SIGMAS).to_dict()}, "6 network calls, registered for 5"),
        ({"five": euler(SIGMAS).to_dict()}, "expected numbers of network calls"),
        ([euler(SIGMAS).to_dict()] * 2, "two have 6 network calls"),
        ([{"coefficients": [[1.0]]}], "no sigmas"),
        ([euler(SIGMAS).to_dict() | {"format": 2}], "format 2"),
        ([{"sigmas": [1.0, 2.0, 0.0], "coefficients": [[1.0], [1.0]]}], "2.0 comes after 1.0"),
        ([{"sigmas": [2.0, 1.0], "coefficients": [[1.0]]}], "end with 0"),
        ([{"sigmas": [2.0, 1.0, 0.0], "coefficients": [[1.0]]}], "1 rows of coefficients"),
        ([{"sigmas": [2.0, 0.0], "coefficients": [[1.0, 1.0]]}], "row 0"),
        ([{"sigmas": [2.0, 0.0], "coefficients": [[]]}], "row 0"),
        ([{"sigmas": [2.0, 0.0], "coefficients": [[math.nan]]}], "finite numbers"),
        ([{"sigmas": [2.0, 0.0], "coefficients": [["a"]]}], "list of numbers"),
        ([{"sigmas": [2.0, 0.0], "coefficients": [[1.0], [1.0]], "corrections": [1]}], r"corrections \[1\]"),
        ([3], "got int"),
        ("programs.json", "got str"),
    ],
)
def test_what_is_no_program_is_refused(programs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SteeredScheduler(programs=programs)


@pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler])
def test_it_takes_the_training_from_another_scheduler(kind: Any) -> None:
    """What the other one has by default included."""
    for config in ({}, SD_BETAS | {"prediction_type": "v_prediction", "num_train_timesteps": 500}):
        other = kind(**config)
        mine = SteeredScheduler.from_config(other.config, programs=[euler(SIGMAS).to_dict()])
        for key in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type"):
            assert mine.config[key] == other.config[key]
        alphas = other.alphas_cumprod.double()
        assert np.exp(mine._log_sigmas).tolist() == pytest.approx(((1 - alphas) / alphas).sqrt().tolist(), rel=1e-4)
        assert list(mine._plans) == [6]
        # And the other way, to a scheduler of diffusers.
        assert kind.from_config(mine.config).config["beta_end"] == other.config["beta_end"]


def test_a_last_timestep_without_a_picture() -> None:
    other = DDIMScheduler(**SD_BETAS, rescale_betas_zero_snr=True)
    scheduler = SteeredScheduler.from_config(other.config)
    scheduler.set_timesteps(4)
    assert scheduler.sigmas[0] == pytest.approx(4096, rel=1e-3)
    sample = loop(scheduler, Shades(), per_seed_noise([0], Shades.shape))
    torch.testing.assert_close(sample, -torch.ones_like(sample), rtol=1e-2, atol=1e-2)


def test_given_betas_are_taken_as_they_are() -> None:
    betas = np.linspace(0.001, 0.1, 50)
    scheduler = SteeredScheduler(trained_betas=betas)  # type: ignore[arg-type]
    assert len(scheduler) == scheduler.config["num_train_timesteps"] == 50
    again = SteeredScheduler.from_config(json.loads(scheduler.to_json_string()))
    assert np.array_equal(again._log_sigmas, scheduler._log_sigmas)


def test_a_network_of_another_training_is_refused() -> None:
    with pytest.raises(ValueError, match="has no beta_schedule"):
        SteeredScheduler.from_config(FlowMatchEulerDiscreteScheduler().config)
    flow = DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    with pytest.raises(ValueError, match="use_flow_sigmas"):
        SteeredScheduler.from_config(flow.config)
    continuous = EulerDiscreteScheduler(timestep_type="continuous", sigma_min=0.1, sigma_max=9.0)
    with pytest.raises(ValueError, match="timestep_type"):
        SteeredScheduler.from_config(continuous.config)
    with pytest.raises(ValueError, match="prediction_type = 'flow'"):
        SteeredScheduler(prediction_type="flow")
    for wrong in ({"beta_schedule": "none"}, {"beta_end": 2.0}, {"num_train_timesteps": 1}):
        with pytest.raises(ValueError, match="training schedule"):
            SteeredScheduler(**wrong)  # type: ignore[arg-type]


def test_the_file_stands_alone(tmp_path: Path) -> None:
    """It imports nothing of this project, so that a copy works."""
    source = inspect.getsource(steered_scheduler)
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        + ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
    }
    assert imported - set(sys.stdlib_module_names) == {"torch", "numpy", "diffusers"}
    (tmp_path / "copied.py").write_text(source)
    code = "import copied, sys; copied.SteeredScheduler().set_timesteps(4); assert 'vernissage' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


# Inside pipelines


def test_stable_diffusion_runs_the_program(sd_pipeline: Any, sd_folder: Path) -> None:
    denoiser = load_denoiser(sd_folder, device="cpu", attention_slicing=False)
    noise, prompts = per_seed_noise([1, 2], (4, 8, 8)), ["a lamp", "a door"]
    for program in (heun(karras(4, 0.05, 14.0)), ipndm(SIGMAS)):
        sd_pipeline.scheduler = SteeredScheduler.from_config(sd_pipeline.scheduler.config, programs=[program.to_dict()])
        found = sd_pipeline(
            prompts, num_inference_steps=program.evaluations, latents=noise, output_type="latent", guidance_scale=3.0
        ).images
        condition = denoiser.encode_prompts(prompts)
        expected = run_program(denoiser, noise, condition, program, torch.full((2,), 3.0)).samples
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_an_unconditional_pipeline_runs_it(ddpm_folder: Path) -> None:
    """It neither scales its noise nor what the network gets."""
    load: Any = DDPMPipeline.from_pretrained
    pipeline = load(ddpm_folder)
    pipeline.set_progress_bar_config(disable=True)
    program = ipndm(karras(5, 0.02, 100.0))
    pipeline.scheduler = SteeredScheduler.from_config(pipeline.scheduler.config, programs=program)
    found = pipeline(2, torch.Generator().manual_seed(3), num_inference_steps=5, output_type="np").images
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    denoiser = load_denoiser(ddpm_folder, device="cpu", attention_slicing=False)
    expected = run_program(denoiser, noise * math.sqrt(1 + 100.0**-2), None, program).samples
    expected = (expected / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_pictures_can_be_begun_from(sd_pipeline: Any) -> None:
    parts = {name: part for name, part in sd_pipeline.components.items() if name != "image_encoder"}
    make: Any = StableDiffusionImg2ImgPipeline
    pipeline = make(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = SteeredScheduler.from_config(sd_pipeline.scheduler.config, programs=heun(karras(4, 0.05, 14)))
    asked = []
    pipeline.unet.register_forward_hook(lambda _, inputs, __: asked.append(float(inputs[1])))
    pictures = per_seed_noise([1], (3, 16, 16)).clamp(0, 1)
    answers = [
        pipeline(
            "a lamp", pictures, strength=strength, num_inference_steps=7, output_type="np",
            generator=torch.Generator().manual_seed(0),
        ).images
        for strength in (0.5, 0.5, 1.0)
    ]  # fmt: skip
    assert len(asked) == 3 + 3 + 7
    assert np.array_equal(answers[0], answers[1])
    assert all(np.isfinite(picture).all() for picture in answers)


def test_a_pipeline_is_saved_with_it(sd_pipeline: Any, tmp_path: Path) -> None:
    sd_pipeline.scheduler = SteeredScheduler.from_config(sd_pipeline.scheduler.config, programs=heun(SIGMAS))
    sd_pipeline.save_pretrained(tmp_path)
    scheduler = SteeredScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    load: Any = StableDiffusionPipeline.from_pretrained
    for again in (load(tmp_path, scheduler=scheduler), load(tmp_path, trust_remote_code=True)):
        assert type(again.scheduler).__name__ == "SteeredScheduler"
        assert again.scheduler.config["programs"] == sd_pipeline.scheduler.config["programs"]


def test_a_folder_may_hold_it_as_custom_code(sd_pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a repository on the hub would."""
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    sd_pipeline.scheduler = SteeredScheduler.from_config(sd_pipeline.scheduler.config, programs=heun(SIGMAS))
    sd_pipeline.save_pretrained(tmp_path / "sd")
    index = json.loads((tmp_path / "sd/model_index.json").read_text())
    index["scheduler"] = ["steered_scheduler", "SteeredScheduler"]
    (tmp_path / "sd/model_index.json").write_text(json.dumps(index))
    (tmp_path / "sd/scheduler/steered_scheduler.py").write_text(inspect.getsource(steered_scheduler))
    load: Any = StableDiffusionPipeline.from_pretrained
    again = load(tmp_path / "sd", trust_remote_code=True).scheduler
    assert type(again) is not SteeredScheduler
    again.set_timesteps(11)
    assert again.sigmas.tolist() == pytest.approx([*heun(SIGMAS).levels, 0.0], rel=1e-6)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_told_levels_give_what_run_program_gives(prediction_type: str, tmp_path: Path) -> None:
    program = SOLVERS["ipndm-3"](SIGMAS)
    program = replace(program, told=tuple(0.9 * level for level in program.levels))
    noise = per_seed_noise(range(3), Signs.shape).double()
    expected = run_program(Signs(), noise, None, program).samples
    scheduler = steered(program, prediction_type=prediction_type)
    scheduler.save_pretrained(tmp_path)
    for one in (scheduler, SteeredScheduler.from_pretrained(tmp_path)):
        one.set_timesteps(program.evaluations)
        x = noise * one.init_noise_sigma
        for call, time in enumerate(one.timesteps):
            said = answer(prediction_type, x, program.told[call], Signs())
            x = one.step(said, time, x, return_dict=False)[0]
        torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-9)
