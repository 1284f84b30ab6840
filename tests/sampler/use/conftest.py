from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.sampler.domain.tiny_pipelines import save_ddpm, save_stable_diffusion

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stable_diffusion(tmp_path_factory.mktemp("steered") / "sd")


@pytest.fixture(scope="session")
def ddpm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_ddpm(tmp_path_factory.mktemp("steered") / "ddpm")


@pytest.fixture
def sd_pipeline(sd_folder: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    load: Any = StableDiffusionPipeline.from_pretrained
    pipeline = load(sd_folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
