"""The example, run as its page says, on a tiny pipeline from a folder."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vernissage.sampler.domain.programs import heun, ipndm
from vernissage.sampler.domain.schedules import karras

EXAMPLE = Path(__file__).parents[3] / "examples/steer_stable_diffusion.py"


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("steer_stable_diffusion", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_grid_comes_out(example: Any, sd_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    programs = {"5": ipndm(karras(5, 0.05, 14)).to_dict(), "7": heun(karras(4, 0.05, 14)).to_dict()}
    (tmp_path / "programs.json").write_text(json.dumps(programs))
    out = tmp_path / "grid.png"
    example.main([
        "--model", str(sd_folder), "--programs", str(tmp_path / "programs.json"), "--steps", "7", "--device", "cpu",
        "--prompt", "a lamp", "a door", "--seeds", "1", "2", "1", "--interval", "0.28", "5.42", "--out", str(out),
    ])  # fmt: skip
    with Image.open(out) as grid:
        assert grid.size == (3 * 16, 2 * 16)
        first, second, again = (grid.crop((16 * k, 0, 16 * k + 16, 16)).tobytes() for k in range(3))
    assert first == again
    assert first != second
    assert caplog.text.count(": 7 steps") == 6


def test_it_needs_no_programs(example: Any, sd_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    example.main([
        "--model", str(sd_folder), "--steps", "3", "--device", "cpu", "--prompt", "a lamp", "--seeds", "4",
        "--out", str(out), "--stop-below", "1000", "--guidance", "1",
    ])  # fmt: skip
    assert out.is_file()
