"""Pipelines of diffusers as denoisers, against the pipelines' own schedulers, prompts and loops."""

from __future__ import annotations

import json
import logging
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DiffusionPipeline, EulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.sampler.domain.tiny_pipelines import ROOM, SD_BETAS, save_ddpm, save_sdxl, save_stable_diffusion
from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.sampler.domain.denoiser import NULL, ClassLabels, Counted, guided
from vernissage.sampler.domain.pipelines import PipelineDenoiser, load_denoiser
from vernissage.sampler.domain.prompts import TextEmbeddings
from vernissage.sampler.domain.training_schedule import TrainingSchedule

if TYPE_CHECKING:
    from pathlib import Path

PREDICTIONS = ("epsilon", "v_prediction", "sample")
PROMPTS = ["a cat", "two dogs"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("pipelines")
    made = {
        "ddpm": save_ddpm(place / "ddpm"),
        "sd": save_stable_diffusion(place / "sd"),
        "sdxl": save_sdxl(place / "sdxl"),
    }
    made["classes"] = save_ddpm(place / "classes", num_class_embeds=4)
    return made


@pytest.fixture(scope="module")
def denoisers(folders: dict[str, Path]) -> dict[str, PipelineDenoiser]:
    return {name: load_denoiser(folder, device="cpu") for name, folder in folders.items()}


def noisy(denoiser: PipelineDenoiser, count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((count, *denoiser.shape), generator=torch.Generator().manual_seed(seed))


def changed(folder: Path, file: str, into: Path, **values: Any) -> Path:
    """A copy of a pipeline with some values of one JSON file changed."""
    shutil.copytree(folder, into)
    content = json.loads((into / file).read_text()) | values
    (into / file).write_text(json.dumps(content))
    return into


# The schedule


@pytest.mark.parametrize(
    "config",
    [
        SD_BETAS,
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        SD_BETAS | {"rescale_betas_zero_snr": True},
        {"trained_betas": [0.01, 0.02, 0.05, 0.4]},
    ],
)
def test_whole_timesteps_and_their_sigmas_are_inverses(config: dict[str, Any]) -> None:
    schedule = TrainingSchedule.from_config(config)
    steps = torch.arange(len(schedule), dtype=torch.float64)
    sigmas = schedule.sigmas_at(steps)
    torch.testing.assert_close(schedule.timesteps_at(sigmas), steps, rtol=0, atol=1e-9)
    assert torch.equal(schedule.timesteps_at(sigmas).float(), steps.float())
    assert (sigmas.diff() > 0).all()


@settings(max_examples=50)
@given(st.floats(0, 999))
def test_timesteps_in_between_are_inverses_too(step: float) -> None:
    schedule = TrainingSchedule.from_config(SD_BETAS)
    sigma = schedule.sigmas_at(torch.tensor([step], dtype=torch.float64))
    assert schedule.timesteps_at(sigma).item() == pytest.approx(step, abs=1e-8)


def test_sigmas_are_those_that_diffusers_computes() -> None:
    euler = EulerDiscreteScheduler(**SD_BETAS, timestep_spacing="linspace", interpolation_type="linear")
    euler.set_timesteps(1000)
    found = TrainingSchedule.from_config(SD_BETAS).sigmas_at(euler.timesteps)
    torch.testing.assert_close(found.float(), euler.sigmas[:-1], rtol=1e-5, atol=0)


def test_noise_beyond_the_schedule_takes_its_ends() -> None:
    schedule = TrainingSchedule.from_config(SD_BETAS)
    assert schedule.timesteps_at(torch.tensor([1e-6, 1e6])).tolist() == [0, 999]
    assert torch.equal(schedule.sigmas_at(torch.tensor([-5, 2000])), schedule.log_sigmas[[0, -1]].exp())


def test_zero_terminal_snr_has_a_large_sigma_instead_of_none() -> None:
    schedule = TrainingSchedule.from_config(SD_BETAS | {"rescale_betas_zero_snr": True})
    assert schedule.log_sigmas[-1].exp().item() == pytest.approx(4096, rel=1e-3)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
            "FlowMatchEulerDiscreteScheduler has no betas",
        ),
        (SD_BETAS | {"use_flow_sigmas": True}, "use_flow_sigmas"),
        (SD_BETAS | {"timestep_type": "continuous"}, "timestep_type = 'continuous'"),
        ({"beta_schedule": "spiral"}, "spiral"),
        ({"trained_betas": [0.1]}, "does not grow"),
        ({"trained_betas": [0.1, 0.0, 0.1]}, "does not grow"),
        ({"trained_betas": [0.1, float("nan"), 0.1]}, "does not grow"),
    ],
)
def test_schedules_that_cannot_be_are_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        TrainingSchedule.from_config(config)


# D itself


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("clip", [False, True])
def test_d_is_what_the_own_scheduler_calls_the_original_sample(prediction: str, clip: bool, tmp_path: Path) -> None:
    folder = save_ddpm(tmp_path / "p", scheduler={"prediction_type": prediction, "clip_sample": clip})
    denoiser = load_denoiser(folder, device="cpu", clip_sample=True)
    pipeline = DDIMPipeline.from_pretrained(folder)
    pipeline.scheduler.set_timesteps(10)
    for step in (0, 1, 37, 500, 999):
        x = noisy(denoiser, 2)
        sigma = denoiser.schedule.sigmas_at(torch.tensor([step, step]))
        kept = x / (1 + sigma**2).sqrt().view(-1, 1, 1, 1).float()
        with torch.no_grad():
            expected = pipeline.scheduler.step(pipeline.unet(kept, step).sample, step, kept).pred_original_sample
        torch.testing.assert_close(denoiser(x, sigma, None), expected, rtol=1e-4, atol=2e-5 * max(1, float(sigma[0])))


def test_d_at_zero_terminal_snr_is_what_the_network_alone_says(tmp_path: Path) -> None:
    scheduler = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    denoiser = load_denoiser(save_ddpm(tmp_path / "p", scheduler=scheduler), device="cpu")
    noise = noisy(denoiser, 2)
    sigma = torch.full((2,), denoiser.sigma_max)
    pipeline = DDIMPipeline.from_pretrained(tmp_path / "p")
    with torch.no_grad():
        expected = -pipeline.unet(noise, 999).sample
    torch.testing.assert_close(denoiser(noise * denoiser.sigma_max, sigma, None), expected, rtol=1e-3, atol=1e-3)


def test_noise_prediction_with_zero_terminal_snr_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    file = "scheduler/scheduler_config.json"
    with pytest.raises(BadInput, match="rescale_betas_zero_snr"):
        load_denoiser(changed(folders["ddpm"], file, tmp_path / "p", rescale_betas_zero_snr=True), device="cpu")


@pytest.mark.parametrize("name", ["ddpm", "classes", "sd", "sdxl"])
def test_one_call_of_the_network_per_call_and_rows_that_keep_to_themselves(
    denoisers: dict[str, PipelineDenoiser], name: str
) -> None:
    denoiser = denoisers[name]
    calls: list[int] = []
    hook = denoiser._network.register_forward_hook(lambda *_: calls.append(1))
    x = 5 * noisy(denoiser, 5)
    sigma = torch.tensor([0.03, 0.5, 2.0, 9.0, 14.0])
    condition: Any = {"ddpm": None, "classes": ClassLabels(torch.tensor([0, 1, 2, 3, 0]))}.get(name, ...)
    if condition is ...:
        condition = denoiser.encode_prompts(["a", "b", "c", "a cat", "!"])
    together = denoiser(x, sigma, condition)
    hook.remove()
    assert len(calls) == 1
    assert together.dtype == torch.float32
    assert together.shape == x.shape
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = denoiser(x[order], sigma[order], None if condition is None else condition.rows(order))
    torch.testing.assert_close(shuffled, together[order], rtol=1e-4, atol=1e-4)
    for row in range(5):
        one = torch.tensor([row])
        alone = denoiser(x[one], sigma[one], None if condition is None else condition.rows(one))
        torch.testing.assert_close(alone, together[one], rtol=1e-4, atol=1e-4)


def test_a_slot_that_is_not_a_number_leaves_its_neighbours_alone(denoisers: dict[str, PipelineDenoiser]) -> None:
    x = noisy(denoisers["sd"], 3)
    sigma = torch.tensor([1.0, 2.0, 3.0])
    clean = denoisers["sd"](x, sigma, None)
    x[1] = torch.nan
    broken = denoisers["sd"](x, sigma, None)
    assert broken[1].isnan().all()
    torch.testing.assert_close(broken[[0, 2]], clean[[0, 2]])


def test_gradients_reach_x_and_sigma_but_no_weight(denoisers: dict[str, PipelineDenoiser]) -> None:
    denoiser = denoisers["ddpm"]
    x = noisy(denoiser, 2).requires_grad_()
    sigma = torch.tensor([0.7, 3.3], dtype=torch.float64, requires_grad=True)
    denoiser(x, sigma, None).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert not any(weight.requires_grad for weight in denoiser._network.parameters())
    step = 1e-3
    ups, downs = (
        denoiser(x.detach(), (sigma + sign * step).detach(), None).double().square().sum((1, 2, 3)) for sign in (1, -1)
    )
    torch.testing.assert_close(sigma.grad, (ups - downs) / (2 * step), rtol=0.02, atol=0.05)


def test_an_empty_batch_is_answered_without_the_network(denoisers: dict[str, PipelineDenoiser]) -> None:
    for denoiser in denoisers.values():
        empty = torch.empty((0, *denoiser.shape))
        condition = ClassLabels(torch.empty(0, dtype=torch.long)) if denoiser.classes else None
        assert denoiser(empty, torch.empty(0), condition).shape == empty.shape
        assert denoiser.decode(empty).shape == (0, *denoiser.image_shape)
        assert denoiser.encode(torch.empty((0, *denoiser.image_shape))).shape == empty.shape


@pytest.mark.parametrize("name", ["ddpm", "sdxl"])
def test_half_precision_stays_inside(
    folders: dict[str, Path], denoisers: dict[str, PipelineDenoiser], name: str
) -> None:
    half = load_denoiser(folders[name], device="cpu", dtype=torch.bfloat16)
    x, sigma = noisy(half, 2), torch.tensor([0.2, 1.0])
    rounded, exact = half(x, sigma, None), denoisers[name](x, sigma, None)
    assert (half.dtype, rounded.dtype, half.decode(x).dtype) == (torch.bfloat16, torch.float32, torch.float32)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.1)
    assert not torch.equal(rounded, exact)
    assert half(x.double(), sigma, None).dtype == torch.float64
    assert half(x.bfloat16(), sigma, None).dtype == torch.bfloat16


def test_timesteps_are_rounded_only_for_a_network_that_counts_them(tmp_path: Path) -> None:
    network = {"time_embedding_type": "learned", "num_train_timesteps": 1000}
    counting = load_denoiser(save_ddpm(tmp_path / "learned", **network), device="cpu")
    asked: list[torch.Tensor] = []
    counting._network.register_forward_pre_hook(lambda _, given: asked.append(given[1]))
    sigma = counting.schedule.sigmas_at(torch.tensor([10.4, 10.6]))
    counting(noisy(counting, 2), sigma, None)
    assert asked[0].tolist() == [10, 11]
    smooth = load_denoiser(save_ddpm(tmp_path / "smooth"), device="cpu")
    smooth._network.register_forward_pre_hook(lambda _, given: asked.append(given[1]))
    smooth(noisy(smooth, 2), sigma, None)
    assert asked[1].tolist() == pytest.approx([10.4, 10.6], abs=1e-5)


def test_learned_variance_is_left_aside(tmp_path: Path) -> None:
    denoiser = load_denoiser(save_ddpm(tmp_path / "p", out_channels=6), device="cpu")
    x, sigma = noisy(denoiser, 1), torch.tensor([0.5])
    step = denoiser.schedule.timesteps_at(sigma).float()
    noise = denoiser._network(x / 1.25**0.5, step).sample[:, :3]
    torch.testing.assert_close(denoiser(x, sigma, None), x - 0.5 * noise)


def test_saving_memory_changes_nothing(folders: dict[str, Path], denoisers: dict[str, PipelineDenoiser]) -> None:
    plain = load_denoiser(folders["sd"], device="cpu", attention_slicing=False, vae_slicing=False)
    sliced = denoisers["sd"]
    processors = {type(p).__name__ for p in sliced._network.attn_processors.values()}
    assert processors == {"SlicedAttnProcessor"}
    assert processors.isdisjoint(type(p).__name__ for p in plain._network.attn_processors.values())
    assert (sliced._vae.use_slicing, plain._vae.use_slicing) == (True, False)
    assert load_denoiser(folders["sd"], device="cpu", vae_tiling=True)._vae.use_tiling
    x, sigma = noisy(plain, 3), torch.tensor([0.1, 1.0, 10.0])
    torch.testing.assert_close(plain(x, sigma, None), sliced(x, sigma, None), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(plain.decode(x), sliced.decode(x), rtol=1e-4, atol=1e-4)


# Whole loops


@torch.no_grad()
def ddim(denoiser: PipelineDenoiser, x: torch.Tensor, scheduler: Any, condition: Any, scale: float) -> torch.Tensor:
    """DDIM without noise through D, from and to samples that keep the variance."""
    steps = scheduler.timesteps
    before = steps - scheduler.config.num_train_timesteps // len(steps)
    levels = denoiser.schedule.sigmas_at(steps)
    end = ((1 - scheduler.final_alpha_cumprod.double()) / scheduler.final_alpha_cumprod).sqrt()
    following = torch.where(before >= 0, denoiser.schedule.sigmas_at(before), end)
    x = x * (1 + levels[0] ** 2).sqrt().float()
    for sigma, sigma_next in zip(levels, following, strict=True):
        vector = sigma.expand(len(x))
        if condition is None:
            d = denoiser(x, vector, None)
        else:
            d = guided(denoiser, x, vector, condition, torch.full((len(x),), scale))
        x = d + (sigma_next / sigma).float() * (x - d)
    return x / (1 + following[-1] ** 2).sqrt().float()


@pytest.mark.parametrize("scale", [1.0, 7.5])
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_ddim_loop_gives_the_latents_and_pictures_of_the_pipeline(
    folders: dict[str, Path], tmp_path: Path, kind: str, scale: float, prediction: str
) -> None:
    folder = changed(folders[kind], "scheduler/scheduler_config.json", tmp_path / "p", prediction_type=prediction)
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    denoiser = load_denoiser(folder, device="cpu")
    start = noisy(denoiser, 2, seed=4)
    wanted = pipeline(
        PROMPTS,
        latents=start.clone(),
        num_inference_steps=7,
        guidance_scale=scale,
        height=16,
        width=16,
        output_type="latent",
    ).images
    counted = Counted(denoiser)
    found = ddim(denoiser, start, pipeline.scheduler, denoiser.encode_prompts(PROMPTS), scale)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=2e-4)
    guided(counted, start, torch.ones(2), denoiser.encode_prompts(PROMPTS), torch.full((2,), scale))
    assert (counted.calls, counted.evaluations) == (1, 2 if scale == 1 else 4)
    with torch.no_grad():
        raw = pipeline.vae.decode(wanted / pipeline.vae.config.scaling_factor).sample
    torch.testing.assert_close(denoiser.decode(wanted), (raw / 2 + 0.5).clamp(0, 1))


def test_a_ddim_loop_in_pixel_space_gives_the_pictures_of_the_pipeline(tmp_path: Path) -> None:
    folder = save_ddpm(tmp_path / "p", scheduler={"clip_sample": False})
    pipeline, denoiser = DDIMPipeline.from_pretrained(folder), load_denoiser(folder, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    wanted = pipeline(2, torch.Generator().manual_seed(9), num_inference_steps=8, output_type="np").images
    start = torch.randn((2, *denoiser.shape), generator=torch.Generator().manual_seed(9))
    found = denoiser.decode(ddim(denoiser, start, pipeline.scheduler, None, 1.0))
    torch.testing.assert_close(found.permute(0, 2, 3, 1), torch.from_numpy(wanted), rtol=1e-3, atol=2e-4)


# Pictures


def test_pixel_samples_are_pictures_in_another_range(denoisers: dict[str, PipelineDenoiser]) -> None:
    denoiser = denoisers["ddpm"]
    images = noisy(denoiser, 2).sigmoid()
    torch.testing.assert_close(denoiser.encode(images), images * 2 - 1)
    torch.testing.assert_close(denoiser.decode(denoiser.encode(images)), images)
    assert denoiser.decode(torch.full((1, *denoiser.shape), 9.0)).max() == 1
    assert (denoiser.sigma_data, denoisers["sd"].sigma_data) == (0.5, 1.0)


def test_latents_are_scaled_as_the_autoencoder_says(folders: dict[str, Path], tmp_path: Path) -> None:
    values = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [2.0, 3.0, 4.0, 5.0]}
    denoiser = load_denoiser(changed(folders["sdxl"], "vae/config.json", tmp_path / "p", **values), device="cpu")
    vae = denoiser._vae
    images = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(3))
    mean, std = (torch.tensor(v).view(1, 4, 1, 1) for v in values.values())
    raw = vae.encode(images * 2 - 1).latent_dist.mode()
    latents = denoiser.encode(images)
    torch.testing.assert_close(latents, (raw - mean) * 0.13025 / std)
    torch.testing.assert_close(denoiser.decode(latents), (vae.decode(raw).sample / 2 + 0.5).clamp(0, 1))


# Classes


def test_classes_reach_the_network(denoisers: dict[str, PipelineDenoiser], folders: dict[str, Path]) -> None:
    denoiser = denoisers["classes"]
    x, sigma = noisy(denoiser, 1).expand(4, -1, -1, -1), torch.full((4,), 2.0)
    found = denoiser(x, sigma, ClassLabels(torch.arange(4)))
    assert denoiser.classes == 4
    assert len({round(float(row.sum()), 4) for row in found}) == 4
    with pytest.raises(BadInput, match="null_class"):
        denoiser(x, sigma, None)
    with pytest.raises(BadInput, match="class 4"):
        denoiser(x, sigma, ClassLabels(torch.tensor([0, 1, 2, 4])))
    with_null = load_denoiser(folders["classes"], device="cpu", null_class=3)
    nothing = with_null(x, sigma, ClassLabels(torch.tensor([0, NULL, 2, NULL])))
    torch.testing.assert_close(nothing, found[[0, 3, 2, 3]])
    torch.testing.assert_close(with_null(x, sigma, None), found[[3, 3, 3, 3]])
    for wrong in (4, -1):
        with pytest.raises(BadInput, match=f"null_class = {wrong}"):
            load_denoiser(folders["classes"], device="cpu", null_class=wrong)


# Prompts


@pytest.mark.parametrize("negative", ["", "dogs"])
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_prompts_are_embedded_as_the_pipeline_does(
    folders: dict[str, Path], denoisers: dict[str, PipelineDenoiser], kind: str, negative: str
) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folders[kind])
    prompts = [*PROMPTS, PROMPTS[0], ""]
    found = denoisers[kind].encode_prompts(prompts, negative)
    options = {"negative_prompt": [negative] * 4 if negative else None, "num_images_per_prompt": 1}
    with torch.no_grad():
        wanted = pipeline.encode_prompt(prompts, device="cpu", do_classifier_free_guidance=True, **options)
    expected = dict(zip(("prompts", "nothing", "pooled", "pooled_nothing"), wanted, strict=False))
    for name, value in expected.items():
        torch.testing.assert_close(getattr(found, name), value, msg=lambda text, name=name: f"{name}: {text}")
    if kind == "sdxl":
        assert found.time_ids is not None
        assert found.time_ids.tolist() == [[16, 16, 0, 0, 16, 16]] * 4
    assert len(found) == 4


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_embeddings_are_picked_joined_and_emptied(denoisers: dict[str, PipelineDenoiser], kind: str) -> None:
    one, two = denoisers[kind].encode_prompts(PROMPTS), denoisers[kind].encode_prompts(["a tree"], negative="leaves")
    both = one.joined(two)
    assert len(both) == 3
    assert torch.equal(both.rows(torch.tensor([2, 0])).prompts, torch.cat((two.prompts, one.prompts[:1])))
    assert torch.equal(both.rows(torch.tensor([False, True, False])).prompts, one.prompts[1:])
    null = both.null()
    assert torch.equal(null.prompts, torch.cat((one.nothing, two.nothing)))
    assert torch.equal(null.null().prompts, null.prompts)
    assert len(both.rows(torch.empty(0, dtype=torch.long))) == 0
    if both.pooled is not None:
        assert null.pooled is not None
        assert null.time_ids is both.time_ids
        assert torch.equal(null.pooled, both.pooled_nothing)


def test_embeddings_of_different_pipelines_do_not_mix(denoisers: dict[str, PipelineDenoiser]) -> None:
    small, large = (denoisers[kind].encode_prompts(PROMPTS) for kind in ("sd", "sdxl"))
    with pytest.raises(BadInput, match="same pipeline"):
        small.joined(large)
    with pytest.raises(BadInput, match="encode_prompts"):
        denoisers["sdxl"](noisy(denoisers["sdxl"], 2), torch.ones(2), small)
    with pytest.raises(BadInput, match="encode_prompts"):
        denoisers["sdxl"](noisy(denoisers["sdxl"], 2), torch.ones(2), TextEmbeddings(large.prompts, large.nothing))


def test_no_condition_asks_for_nothing(denoisers: dict[str, PipelineDenoiser]) -> None:
    for kind in ("sd", "sdxl"):
        x, sigma = noisy(denoisers[kind], 2), torch.tensor([0.5, 5.0])
        nothing = denoisers[kind].encode_prompts(PROMPTS).null()
        torch.testing.assert_close(denoisers[kind](x, sigma, None), denoisers[kind](x, sigma, nothing))


def test_a_prompt_that_is_too_long_is_named(
    denoisers: dict[str, PipelineDenoiser], caplog: pytest.LogCaptureFixture
) -> None:
    long = "a cat on a very long sofa"
    with caplog.at_level(logging.WARNING):
        found = denoisers["sdxl"].encode_prompts(["short", long, long], negative="x" * 30)
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("vernissage")]
    assert len(messages) == 2
    assert messages[0].startswith(f"prompt 1 ({long}): ")
    assert f"reads {ROOM}" in messages[0]
    assert messages[1].startswith("negative prompt (xxx")
    assert found.prompts.shape[1] == ROOM


@pytest.mark.parametrize(
    ("prompts", "negative", "words"),
    [
        ([], "", "the list is empty"),
        ("a cat", "", "got str, expected a list"),
        (None, "", "got NoneType"),
        (["a", 3], "", r"prompt 1: got int \(3\)"),
        (["a", None], "", "prompt 1: got NoneType"),
        (["a"], None, "negative prompt: got NoneType"),
        (["a\ud800"], "", "prompt 0: character 1"),
    ],
)
def test_prompts_that_are_none(denoisers: dict[str, PipelineDenoiser], prompts: Any, negative: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        denoisers["sd"].encode_prompts(prompts, negative)


def test_a_network_without_text_takes_no_prompts(denoisers: dict[str, PipelineDenoiser]) -> None:
    with pytest.raises(BadInput, match="no text encoder"):
        denoisers["ddpm"].encode_prompts(["a cat"])
    x, sigma = noisy(denoisers["ddpm"], 1), torch.ones(1)
    for condition in (denoisers["sd"].encode_prompts(["a"]), ClassLabels(torch.tensor([2]))):
        with pytest.raises(BadInput, match="neither classes nor prompts"):
            denoisers["ddpm"](x, sigma, condition)
    nothing = ClassLabels(torch.tensor([NULL]))
    assert torch.equal(denoisers["ddpm"](x, sigma, nothing), denoisers["ddpm"](x, sigma, None))
    with pytest.raises(BadInput, match="takes classes"):
        denoisers["classes"](x, sigma, denoisers["sd"].encode_prompts(["a"]))
    with pytest.raises(BadInput, match="got ClassLabels"):
        denoisers["sd"](noisy(denoisers["sd"], 1), sigma, ClassLabels(torch.tensor([2])))


# Bad samples


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 4, 8, 16), (4, 8, 8), (2, 4, 8, 8, 1)])
def test_samples_of_another_shape_are_refused(denoisers: dict[str, PipelineDenoiser], shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match=r"expected \(N, 4, 8, 8\)"):
        denoisers["sd"](torch.zeros(shape), torch.ones(2), None)
    with pytest.raises(BadInput, match=r"latents: .* expected \(N, 4, 8, 8\)"):
        denoisers["sd"].decode(torch.zeros(shape))


def test_other_bad_calls_are_refused(denoisers: dict[str, PipelineDenoiser]) -> None:
    denoiser = denoisers["sd"]
    x = noisy(denoiser, 2)
    with pytest.raises(BadInput, match="float"):
        denoiser(x.long(), torch.ones(2), None)
    for sigma in (
        torch.ones(3),
        torch.tensor(1.0),
        *(torch.tensor([1.0, bad]) for bad in (0.0, -1.0, torch.nan, torch.inf)),
    ):
        with pytest.raises(BadInput, match="expected 2 finite noise levels above 0"):
            denoiser(x, sigma, None)
    with pytest.raises(BadInput, match="for 1 samples, expected one for each of 2"):
        denoiser(x, torch.ones(2), denoiser.encode_prompts(["a"]))
    with pytest.raises(BadInput, match="in \\[0, 1\\]"):
        denoiser.encode(torch.full((1, 3, 16, 16), 2.0))
    with pytest.raises(BadInput, match="images"):
        denoiser.encode(torch.zeros((1, 3, 8, 8)))


def test_another_size_by_wish(folders: dict[str, Path]) -> None:
    wide = load_denoiser(folders["sdxl"], device="cpu", size=(4, 8))
    assert (wide.shape, wide.image_shape) == ((4, 4, 8), (3, 8, 16))
    time_ids = wide.encode_prompts(["a"]).time_ids
    assert time_ids is not None
    assert time_ids.tolist() == [[8, 16, 0, 0, 8, 16]]
    assert wide.decode(wide(noisy(wide, 1), torch.ones(1), None)).shape == (1, 3, 8, 16)
    for size in ((5, 8), (0, 8)):
        with pytest.raises(BadInput, match="multiples of 2"):
            load_denoiser(folders["sdxl"], device="cpu", size=size)


# Loading


def test_a_name_that_leads_nowhere_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        MissingArtifact, match=r"neither in a local folder .* nor in the Hugging Face cache .*hf download"
    ):
        load_denoiser("nobody/no-such-pipeline", device="cpu")
    with pytest.raises(MissingArtifact, match="no such folder, and no hub name"):
        load_denoiser(tmp_path / "nowhere", device="cpu")
    with pytest.raises(MissingArtifact, match=r"model_index\.json: no such file"):
        load_denoiser(tmp_path, device="cpu")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(BadInput, match="from_single_file"):
        load_denoiser(tmp_path / "model.safetensors", device="cpu")


@pytest.mark.parametrize("kind", ["ddpm", "sdxl"])
def test_a_hub_name_is_loaded_from_the_cache(
    folders: dict[str, Path],
    denoisers: dict[str, PipelineDenoiser],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    commit = "0123456789012345678901234567890123456789"
    home = tmp_path / "models--someone--something"
    shutil.copytree(folders[kind], home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = load_denoiser("someone/something", device="cpu")
    x, sigma = noisy(cached, 2), torch.tensor([0.3, 3.0])
    assert torch.equal(cached(x, sigma, None), denoisers[kind](x, sigma, None))
    shutil.rmtree(home / "snapshots" / commit / "unet")
    with pytest.raises(MissingArtifact, match="someone/something: unet is neither"):
        load_denoiser("someone/something", device="cpu")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_pickled_weights_are_never_read(folders: dict[str, Path], tmp_path: Path, part: str) -> None:
    shutil.copytree(folders["sd"], tmp_path / "p")
    (weights,) = (tmp_path / "p" / part).glob("*.safetensors")
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    if part == "text_encoder":
        (tmp_path / "p" / part / "model.bin").rename(tmp_path / "p" / part / "pytorch_model.bin")
    with pytest.raises(MissingArtifact, match=f"{part}.*safetensors only"):
        load_denoiser(tmp_path / "p", device="cpu")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_damaged_weights_are_refused(folders: dict[str, Path], tmp_path: Path, part: str) -> None:
    shutil.copytree(folders["sd"], tmp_path / "p")
    (file,) = (tmp_path / "p" / part).glob("*.safetensors")
    weights = load_file(file)
    first = min(weights)
    save_file({name: tensor for name, tensor in weights.items() if name != first}, file, {"format": "pt"})
    with pytest.raises(CorruptArtifact, match=f"{part} lacks 1 of"):
        load_denoiser(tmp_path / "p", device="cpu")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CorruptArtifact, match=part):
        load_denoiser(tmp_path / "p", device="cpu")


def test_broken_configurations_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for number, (file, text) in enumerate(
        [("model_index.json", "{"), ("scheduler/scheduler_config.json", "[1]"), ("unet/config.json", "nonsense")]
    ):
        folder = tmp_path / str(number)
        shutil.copytree(folders["ddpm"], folder)
        (folder / file).write_text(text)
        with pytest.raises((CorruptArtifact, MissingArtifact), match=file.partition("/")[0]):
            load_denoiser(folder, device="cpu")
    shutil.copytree(folders["ddpm"], tmp_path / "bare")
    (tmp_path / "bare" / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(MissingArtifact, match="scheduler_config"):
        load_denoiser(tmp_path / "bare", device="cpu")


@pytest.mark.parametrize(
    ("kind", "file", "values", "words"),
    [
        ("ddpm", "model_index.json", {"_class_name": "FluxPipeline"}, "a FluxPipeline, expected DDPMPipeline"),
        ("ddpm", "model_index.json", {"_class_name": ["pipeline", "Own"]}, "expected DDPMPipeline"),
        ("sd", "model_index.json", {"vae": ["os", "system"]}, "its vae is a system, expected AutoencoderKL"),
        ("sd", "model_index.json", {"text_encoder": [None, None]}, "its text_encoder is a None"),
        ("ddpm", "scheduler/scheduler_config.json", {"prediction_type": "flow_prediction"}, "flow_prediction"),
        ("ddpm", "unet/config.json", {"sample_size": None}, "pass `size`"),
    ],
)
def test_pipelines_of_other_kinds_are_refused(
    folders: dict[str, Path], tmp_path: Path, kind: str, file: str, values: dict[str, Any], words: str
) -> None:
    folder = changed(folders[kind], file, tmp_path / "p", **values)
    with pytest.raises(BadInput, match=words):
        load_denoiser(folder, device="cpu")


def test_other_networks_and_mismatched_parts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="class_embed_type = 'timestep'"):
        load_denoiser(save_ddpm(tmp_path / "timed", class_embed_type="timestep"), device="cpu")
    with pytest.raises(BadInput, match="time_embedding_type = 'fourier'"):
        load_denoiser(save_ddpm(tmp_path / "fourier", time_embedding_type="fourier"), device="cpu")
    with pytest.raises(BadInput, match="takes 9 channels and answers with 4"):
        load_denoiser(save_stable_diffusion(tmp_path / "inpaint", in_channels=9), device="cpu")
    with pytest.raises(CorruptArtifact, match="works on 3 channels, its autoencoder on 4"):
        load_denoiser(save_stable_diffusion(tmp_path / "rgb", in_channels=3, out_channels=3), device="cpu")
    with pytest.raises(CorruptArtifact, match="12 numbers per token, the network reads 10"):
        load_denoiser(save_stable_diffusion(tmp_path / "text", cross_attention_dim=10), device="cpu")
    with pytest.raises(BadInput, match="time_cond_proj_dim"):
        load_denoiser(save_stable_diffusion(tmp_path / "lcm", time_cond_proj_dim=8), device="cpu")


def test_device_and_type_must_exist(folders: dict[str, Path]) -> None:
    with pytest.raises(BadParams, match="tpu"):
        load_denoiser(folders["ddpm"], device="tpu")
    with pytest.raises(BadInput, match="dtype"):
        load_denoiser(folders["ddpm"], device="cpu", dtype=torch.int8)
