"""Pipelines of diffusers in miniature, randomly initialised and saved: all parts of the real ones, a second to load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

if TYPE_CHECKING:
    from pathlib import Path

#: Tokens that a tiny text encoder reads, marks of start and end included.
ROOM = 16
SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def save_ddpm(folder: Path, *, scheduler: dict[str, Any] | None = None, **network: Any) -> Path:
    """Save an unconditional pipeline in pixel space: 3 x 8 x 8."""
    torch.manual_seed(1)
    size = {
        "sample_size": 8, "in_channels": 3, "out_channels": 3, "layers_per_block": 1, "block_out_channels": (8, 16),
        "norm_num_groups": 4, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "attention_head_dim": 8,
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    pipeline = DDPMPipeline(UNet2DModel(**(size | network)), DDIMScheduler(**(scheduler or {})))
    pipeline.save_pretrained(folder)
    return folder


def save_stable_diffusion(folder: Path, *, scheduler: dict[str, Any] | None = None, **network: Any) -> Path:
    """Save a pipeline of the v1.5 kind: latents 4 x 8 x 8, pictures 3 x 16 x 16."""
    torch.manual_seed(2)
    pipeline = StableDiffusionPipeline(
        vae=_vae(scaling_factor=0.18215),
        text_encoder=CLIPTextModel(_text_config(12)),
        tokenizer=_tokenizer(),
        unet=UNet2DConditionModel(**(_unet_size(12) | network)),
        scheduler=PNDMScheduler(**(SD_BETAS | {"steps_offset": 1, "skip_prk_steps": True} | (scheduler or {}))),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def save_sdxl(folder: Path) -> Path:
    """Save a pipeline with two text encoders: latents 4 x 8 x 8, pictures 3 x 16 x 16."""
    torch.manual_seed(3)
    extra = {
        "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 6 * 4 + 6,
        "use_linear_projection": True,
    }  # fmt: skip
    pipeline = StableDiffusionXLPipeline(
        vae=_vae(scaling_factor=0.13025),
        text_encoder=CLIPTextModel(_text_config(8)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(12, projection_dim=6)),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        unet=UNet2DConditionModel(**(_unet_size(20) | extra)),
        scheduler=DDIMScheduler(**SD_BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    )
    pipeline.save_pretrained(folder)
    return folder


def _unet_size(width: int) -> dict[str, Any]:
    return {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "block_out_channels": (8, 16),
        "norm_num_groups": 4, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "attention_head_dim": 2,
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": width,
    }  # fmt: skip


def _vae(*, scaling_factor: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, sample_size=16, scaling_factor=scaling_factor,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


def _text_config(width: int, **more: Any) -> CLIPTextConfig:
    tokens = len(_vocabulary())
    return CLIPTextConfig(
        vocab_size=tokens, hidden_size=width, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=ROOM, bos_token_id=tokens - 2, eos_token_id=tokens - 1, pad_token_id=tokens - 1, **more,
    )  # fmt: skip


def _vocabulary() -> dict[str, int]:
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}


def _tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer(vocab=_vocabulary(), merges=[], model_max_length=ROOM)
