"""Pipelines of `diffusers` as denoisers: a folder or a hub name in, `D(x, sigma, condition)` out.

Networks there keep the variance (VP): they see ``x / sqrt(1 + sigma^2)`` and a timestep, and answer with the noise, the
velocity or the picture. Noise levels between two timesteps of the training are read off by interpolating the logarithm
of sigma.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vernissage.core.devices import choose_device
from vernissage.core.errors import BadInput, CorruptArtifact
from vernissage.sampler.domain.denoiser import NULL, ClassLabels, Condition
from vernissage.sampler.domain.pipeline_files import PipelineFiles
from vernissage.sampler.domain.prompts import TextEmbeddings, TextEncoders
from vernissage.sampler.domain.training_schedule import TrainingSchedule

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: What a network may answer with.
PREDICTIONS = ("epsilon", "v_prediction", "sample")


class PipelineDenoiser:
    """A pipeline's network as a denoiser; made by :func:`load_denoiser`.

    Gradients reach x and sigma, never the weights; whoever needs none calls it under `torch.no_grad`. A noise level
    outside [sigma_min, sigma_max] is taken as it is, only the timestep stays at the end of the schedule.

    Args:
        network: `UNet2DModel` or `UNet2DConditionModel`.
        schedule: Noise levels of its training.
        prediction: One of ``PREDICTIONS``.
        size: Height and width of one sample.
        autoencoder: `AutoencoderKL` between pictures and samples; none where they are the same.
        encoders: Text encoders; none for a network without prompts.
        null_class: Class that asks for nothing in particular, where a network of classes has one.
        bound: Estimates are brought into [-bound, bound].

    Attributes:
        shape: (C, H, W) of one sample.
        image_shape: (C, H, W) of one decoded picture.
        sigma_min: Noise level of the first timestep.
        sigma_max: Noise level of the last one.
        sigma_data: 1 for latents, which are scaled to that; 0.5 for pixels in [-1, 1] (Karras et al. 2022, table 1).
        classes: Number of classes that the network knows, 0 where it takes none.
        schedule: Noise levels of its training.
    """

    def __init__(
        self,
        network: Any,
        schedule: TrainingSchedule,
        prediction: str,
        size: tuple[int, int],
        *,
        autoencoder: Any | None = None,
        encoders: TextEncoders | None = None,
        null_class: int | None = None,
        bound: float | None = None,
    ) -> None:
        self._network, self._vae, self._encoders = network, autoencoder, encoders
        self._prediction, self._null_class, self._bound = prediction, null_class, bound
        parameter = next(network.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        # Apple's GPUs have no float64.
        precise = torch.float32 if self.device.type == "mps" else torch.float64
        self.schedule = TrainingSchedule(schedule.log_sigmas.to(self.device, precise))
        self.shape = (int(network.config.in_channels), *size)
        self.image_shape = _image_shape(self.shape, autoencoder)
        self.sigma_min, self.sigma_max = (float(schedule.log_sigmas[end].exp()) for end in (0, -1))
        self.sigma_data = 0.5 if autoencoder is None else 1.0
        self.classes = 0 if encoders is not None else int(getattr(network.config, "num_class_embeds", None) or 0)
        self._whole_timesteps = getattr(network.config, "time_embedding_type", None) == "learned"
        self._nothing = None if encoders is None else self.encode_prompts([""]).null()
        if self._nothing is not None and self._nothing.prompts.shape[-1] != network.config.cross_attention_dim:
            raise CorruptArtifact(
                f"the text encoders embed in {self._nothing.prompts.shape[-1]} numbers per token, the network reads "
                f"{network.config.cross_attention_dim}; the parts belong to different pipelines, get it again"
            )

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        """Estimate the pictures behind the noise, with one call of the network.

        Args:
            x: (N, C, H, W) float, sample plus sigma times noise.
            sigma: (N,) noise levels above 0.
            condition: :class:`TextEmbeddings` for a network that takes prompts, :class:`ClassLabels` for one that takes
                classes; none asks for nothing in particular.

        Returns:
            (N, C, H, W) in the type and on the device of x.

        Raises:
            BadInput: Shapes, noise levels or condition do not fit this network.
        """
        self._check_samples("x", x, self.shape)
        if sigma.shape != (len(x),) or not bool(((sigma > 0) & sigma.isfinite()).all()):
            raise BadInput(
                f"sigma: got {_few(sigma) or None}, expected {len(x)} finite noise levels above 0, one for each sample"
            )
        asked = self._asked(len(x), condition)
        if not len(x):
            return torch.empty_like(x)
        state = x.to(self.device, torch.promote_types(x.dtype, torch.float32))
        level = sigma.to(self.schedule.log_sigmas)
        times = self.schedule.timesteps_at(level)
        root = (1 + level.square()).sqrt()
        alpha, spread, noise = (c.to(state.dtype).view(-1, 1, 1, 1) for c in (1 / root, level / root, level))
        times = times.round().long() if self._whole_timesteps else times.float()
        answer: torch.Tensor = self._network((alpha * state).to(self.dtype), times, **asked).sample
        # A network that also learned its variance answers with twice as many channels.
        answer = answer[:, : self.shape[0]].to(state.dtype)
        if self._prediction == "epsilon":
            answer = state - noise * answer
        elif self._prediction == "v_prediction":
            answer = alpha * (alpha * state) - spread * answer
        if self._bound is not None:
            answer = answer.clamp(-self._bound, self._bound)
        return answer.to(x)

    def encode_prompts(self, prompts: list[str], negative: str = "") -> TextEmbeddings:
        """Embed prompts for pictures of this denoiser's size; the log names those that are too long.

        Args:
            prompts: N texts.
            negative: What guidance leads away from; empty for nothing in particular.

        Raises:
            BadInput: The network takes no prompts, or these are not a list of at least one text.
        """
        if self._encoders is None:
            raise BadInput(
                "prompts: this pipeline has no text encoder; leave them out or take a text-to-image pipeline"
            )
        found = self._encoders.encode(prompts, negative)
        if found.pooled is None:
            return found
        height, width = self.image_shape[1:]
        ids = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32, device=found.prompts.device)
        return TextEmbeddings(
            found.prompts, found.nothing, found.pooled, found.pooled_nothing, ids.expand(len(found), -1)
        )

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Turn samples without noise into pictures.

        Args:
            latents: (N, C, H, W).

        Returns:
            (N, C, H, W) float32 in [0, 1].

        Raises:
            BadInput: Their shape is not that of this denoiser's samples.
        """
        self._check_samples("latents", latents, self.shape)
        samples = latents.to(self.device, torch.float32)
        if self._vae is not None and len(samples):
            scale, mean = _latent_scale(self._vae, samples)
            samples = self._vae.decode(samples * scale + mean).sample
        elif self._vae is not None:
            samples = samples.new_empty((0, *self.image_shape))
        return (samples / 2 + 0.5).clamp(0, 1)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Turn pictures into samples without noise; an autoencoder answers with its most likely latents.

        Args:
            images: (N, C, H, W) float in [0, 1].

        Returns:
            (N, C, H, W) float32.

        Raises:
            BadInput: Their shape or range is not that of this denoiser's pictures.
        """
        self._check_samples("images", images, self.image_shape)
        if not bool(((images >= 0) & (images <= 1)).all()):
            raise BadInput(f"images: values from and to {_few(torch.stack(images.aminmax()))}, expected all in [0, 1]")
        samples = images.to(self.device, torch.float32) * 2 - 1
        if self._vae is None:
            return samples
        if not len(samples):
            return samples.new_empty((0, *self.shape))
        latents: torch.Tensor = self._vae.encode(samples).latent_dist.mode()
        scale, mean = _latent_scale(self._vae, latents)
        return (latents - mean) / scale

    @staticmethod
    def _check_samples(name: str, samples: torch.Tensor, shape: tuple[int, int, int]) -> None:
        if samples.shape[1:] != shape or samples.ndim != 4 or not samples.is_floating_point():
            raise BadInput(
                f"{name}: got {tuple(samples.shape)} {samples.dtype}, expected (N, {', '.join(map(str, shape))}) "
                "float; resize it, or load the pipeline with `size`"
            )

    def _asked(self, count: int, condition: Condition | None) -> dict[str, Any]:
        """What the network gets besides samples and timesteps."""
        if condition is not None and len(condition) != count:
            raise BadInput(f"condition: for {len(condition)} samples, expected one for each of {count}")
        if self._nothing is not None:
            if condition is None:
                condition = self._nothing.rows(torch.zeros(count, dtype=torch.long))
            return self._asked_by_text(condition, self._nothing)
        if self.classes:
            return {"class_labels": self._known_classes(condition, count)}
        # A network without conditions can only be asked for nothing.
        if condition is None or (isinstance(condition, ClassLabels) and bool((condition.labels == NULL).all())):
            return {}
        raise BadInput(
            f"condition: got {type(condition).__name__}, but this network takes neither classes nor prompts; pass none"
        )

    def _asked_by_text(self, condition: Condition, like: TextEmbeddings) -> dict[str, Any]:
        if not isinstance(condition, TextEmbeddings) or condition.sizes[::2] != like.sizes[::2]:
            found = condition.sizes[::2] if isinstance(condition, TextEmbeddings) else type(condition).__name__
            raise BadInput(
                f"condition: got {found}, expected text embeddings with rows of {like.sizes[::2]} (prompt, pooled, "
                "time ids); make them with this denoiser's encode_prompts"
            )
        asked: dict[str, Any] = {"encoder_hidden_states": condition.prompts.to(self.device, self.dtype)}
        if condition.pooled is not None and condition.time_ids is not None:
            # Sizes above 256 have no exact bfloat16, so they stay float32.
            asked["added_cond_kwargs"] = {
                "text_embeds": condition.pooled.to(self.device, self.dtype),
                "time_ids": condition.time_ids.to(self.device, torch.float32),
            }
        return asked

    def _known_classes(self, condition: Condition | None, count: int) -> torch.Tensor:
        condition = ClassLabels(torch.full((count,), NULL)) if condition is None else condition
        if not isinstance(condition, ClassLabels):
            raise BadInput(
                f"condition: got {type(condition).__name__}, but this network takes classes; pass ClassLabels"
            )
        condition.check(self.classes)
        labels = condition.labels.to(self.device)
        if self._null_class is not None:
            return torch.where(labels == NULL, self._null_class, labels)
        if bool((labels == NULL).any()):
            raise BadInput(
                f"class {NULL}: no class of this network is known to ask for nothing in particular; ask for classes 0 "
                f"to {self.classes - 1} without guidance, or load the pipeline with `null_class`"
            )
        return labels


def load_denoiser(
    model: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    attention_slicing: bool = True,
    vae_slicing: bool = True,
    vae_tiling: bool = False,
    size: tuple[int, int] | None = None,
    null_class: int | None = None,
    clip_sample: bool = False,
    revision: str | None = None,
    variant: str | None = None,
) -> PipelineDenoiser:
    """Load a pipeline of diffusers as a denoiser; its safety checker and its scheduler's sampling stay behind.

    Args:
        model: Folder that `save_pretrained` wrote, or a hub name such as `stable-diffusion-v1-5/stable-diffusion-v1-5`.
        device: Where to compute; none leaves it to the machine.
        dtype: Type that the network and text encoders compute in; none is bfloat16 on CUDA, else float32. Samples stay
            float32, and so does the autoencoder, which overflows in float16.
        attention_slicing: Compute attention in parts: slower, less memory.
        vae_slicing: Decode and encode picture by picture: less memory.
        vae_tiling: Decode and encode large pictures in overlapping tiles: much less memory, slightly different pixels.
        size: Height and width of the samples; none is what the network was trained at.
        null_class: Class that asks for nothing in particular, where a network of classes has one.
        clip_sample: Bound estimates where the pipeline's own scheduler does, as is usual in pixel space.
        revision: Commit, branch or tag on the hub; none is its main branch.
        variant: Such as `fp16`, where a repository holds several kinds of weights.

    Raises:
        BadInput: It is a pipeline of another kind, or an argument does not fit it.
        BadParams: The device is not there.
        MissingArtifact: It is neither in a folder nor in the cache, and the hub cannot be asked; or not as safetensors.
        CorruptArtifact: Weights or configuration cannot be read, or some weights are missing.
    """
    from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel, UNet2DModel

    place = choose_device(None if device is None else str(device))
    kind = dtype or (torch.bfloat16 if place.type == "cuda" else torch.float32)
    if not kind.is_floating_point:
        raise BadInput(f"dtype = {kind}: expected a floating point type such as torch.bfloat16 or torch.float32")
    files = PipelineFiles(str(model), revision, variant)
    index = files.config(DiffusionPipeline)
    names = files.text_encoders(index)
    config = files.config(DDPMScheduler, "scheduler")
    schedule = TrainingSchedule.from_config(config, files.name)
    prediction = _prediction(files.name, config)
    network = files.network(UNet2DConditionModel if names else UNet2DModel, "unet", kind).to(place)
    vae = files.network(AutoencoderKL, "vae", torch.float32).to(place) if names else None
    _check_network(files.name, network, vae, pooled=len(names) == 2)
    if attention_slicing and hasattr(network, "set_attention_slice"):
        network.set_attention_slice("auto")
    if vae is not None:
        vae.use_slicing, vae.use_tiling = vae_slicing, vae_tiling
    parts = [(files.tokenizer(name), files.text_encoder(name, kind).to(place)) for name in names]
    zeros = len(names) == 2 and bool(index.get("force_zeros_for_empty_prompt", True))
    denoiser = PipelineDenoiser(
        network,
        schedule,
        prediction,
        _size(files.name, network, size),
        autoencoder=vae,
        encoders=TextEncoders(parts, pooled=len(names) == 2, zeros=zeros) if parts else None,
        null_class=null_class,
        bound=_bound(config) if clip_sample and vae is None else None,
    )
    if null_class is not None and not 0 <= null_class < denoiser.classes:
        raise BadInput(f"null_class = {null_class}: {files.name} knows {denoiser.classes} classes, counted from 0")
    return denoiser


def _prediction(name: str, config: Mapping[str, Any]) -> str:
    found = config.get("prediction_type") or "epsilon"
    if found not in PREDICTIONS:
        raise BadInput(f"{name}: its network predicts {found!r}, expected {', '.join(PREDICTIONS)}")
    if found == "epsilon" and config.get("rescale_betas_zero_snr"):
        raise BadInput(
            f"{name}: its last timestep is noise and nothing else (rescale_betas_zero_snr), and a network that "
            "predicts noise says nothing about the picture there; expected prediction_type v_prediction or sample"
        )
    return str(found)


def _bound(config: Mapping[str, Any]) -> float | None:
    return float(config.get("clip_sample_range") or 1.0) if config.get("clip_sample") else None


def _check_network(name: str, network: Any, autoencoder: Any | None, *, pooled: bool) -> None:
    """Refuse networks that want to be told more than this module knows."""
    config = network.config
    channels, answers = config.in_channels, config.out_channels
    if answers not in {channels, 2 * channels}:
        raise BadInput(
            f"{name}: its network takes {channels} channels and answers with {answers}, expected as many (pipelines "
            "for inpainting or editing take more); load a text-to-image or unconditional pipeline"
        )
    if autoencoder is not None and autoencoder.config.latent_channels != channels:
        raise CorruptArtifact(
            f"{name}: its network works on {channels} channels, its autoencoder on "
            f"{autoencoder.config.latent_channels}; the parts belong to different pipelines, get it again"
        )
    expected = {
        "class_embed_type": None,
        "time_cond_proj_dim": None,
        "encoder_hid_dim_type": None,
        "addition_embed_type": "text_time" if pooled else None,
    }
    if autoencoder is not None:
        expected["num_class_embeds"] = None
    for key, value in expected.items():
        if getattr(config, key, value) != value:
            raise BadInput(
                f"{name}: its network has {key} = {getattr(config, key)!r}, expected {value!r}; no such inputs here"
            )
    if getattr(config, "time_embedding_type", "positional") not in {"positional", "learned"}:
        raise BadInput(
            f"{name}: its network has time_embedding_type = {config.time_embedding_type!r}, expected one that takes "
            "numbered timesteps (positional or learned)"
        )


def _size(name: str, network: Any, size: tuple[int, int] | None) -> tuple[int, int]:
    found = size if size is not None else network.config.sample_size
    if found is None:
        raise BadInput(f"{name}: its network does not say at which size it was trained; pass `size` (height, width)")
    height, width = (found, found) if isinstance(found, int) else (int(side) for side in found)
    step = 2 ** (len(network.config.down_block_types) - 1)
    if min(height, width) < 1 or height % step or width % step:
        raise BadInput(f"size = {height} x {width}: expected multiples of {step} for the network of {name}")
    return height, width


def _image_shape(shape: tuple[int, int, int], autoencoder: Any | None) -> tuple[int, int, int]:
    if autoencoder is None:
        return shape
    factor = 2 ** (len(autoencoder.config.block_out_channels) - 1)
    return int(autoencoder.config.out_channels), shape[1] * factor, shape[2] * factor


def _latent_scale(autoencoder: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor and offset, by channel, from samples of standard deviation 1 to what the autoencoder reads."""
    config = autoencoder.config
    mean, deviation = (getattr(config, key, None) or 0.0 for key in ("latents_mean", "latents_std"))
    mean = mean or getattr(config, "shift_factor", None) or 0.0
    scale = torch.as_tensor(deviation or 1.0).to(like) / config.scaling_factor
    return scale.view(1, -1, 1, 1), torch.as_tensor(mean).to(like).view(1, -1, 1, 1)


def _few(values: torch.Tensor) -> str:
    return ", ".join(f"{value:g}" for value in values.flatten()[:4].tolist()) + (", ..." if values.numel() > 4 else "")
