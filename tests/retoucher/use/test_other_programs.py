"""What other programs really do with our files, where these are installed: darktable 4.2 and exiftool 12 were tried."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.retoucher.agents import agent_with_plan, save_models
from vernissage.core.images import read_photo, write_photo
from vernissage.retoucher.domain.full_size import render_full_size
from vernissage.retoucher.domain.recipe import Recipe
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, slider_index
from vernissage.retoucher.domain.xmp import sidecar
from vernissage.retoucher.use.retouch import Wishes, retouch_files

if TYPE_CHECKING:
    from pathlib import Path

needs_darktable = pytest.mark.skipif(shutil.which("darktable-cli") is None, reason="darktable is not installed")
needs_exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")

#: Grey steps, wide enough that no filter mixes them.
RAMP = np.repeat(np.repeat(np.linspace(0, 1, 18, dtype=np.float32)[None, :, None], 48, 0), 3, 2).repeat(16, 1)


def developed(photo: Path, folder: Path) -> np.ndarray:
    """A photo as darktable shows it with the sidecar that it finds beside it, (H, W, 3) in [0, 1]."""
    target = folder / f"{photo.stem}-darktable.png"
    words = [
        "darktable-cli",
        str(photo),
        str(target),
        "--core",
        "--library",
        ":memory:",
        "--configdir",
        str(folder / "cfg"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert target.is_file(), done.stdout + done.stderr
    return read_photo(target).pixels


@needs_darktable
@pytest.mark.parametrize("tone", [{"contrast": 0.3}, {"shadows": 0.5}, {"highlights": -0.5}])
def test_darktable_renders_our_tone_curve(tmp_path: Path, tone: dict[str, float]) -> None:
    settings = [0.0] * SLIDER_COUNT
    for name, setting in tone.items():
        settings[slider_index(name)] = setting
    recipe = Recipe(tuple(settings))
    write_photo(tmp_path / "ramp.png", RAMP)
    (tmp_path / "ramp.xmp").write_bytes(sidecar(recipe, "Retouched by Vernissage: tone."))
    found, ours = developed(tmp_path / "ramp.png", tmp_path), render_full_size(RAMP, recipe.as_tensor())
    assert np.abs(ours - RAMP).max() > 0.05
    middles = (24, slice(8, None, 16))
    assert np.abs(found[middles] - ours[middles]).max() < 6 / 255


@needs_darktable
def test_darktable_edits_the_editable_photo_and_leaves_the_edited_one(tmp_path: Path) -> None:
    models = save_models(tmp_path / "models", agent_with_plan({"contrast": 0.4, "saturation": 0.2}))
    write_photo(tmp_path / "a.jpg", np.random.default_rng(1).random((48, 64, 3)).astype(np.float32) * 0.5 + 0.2)
    changes = {}
    for name, editable in (("editable", True), ("edited", False)):
        retouch_files(
            [tmp_path / "a.jpg"],
            tmp_path / name,
            model_folder=models[0],
            juror_folder=models[1],
            wishes=Wishes(editable=editable),
        )
        photo = tmp_path / name / "a.jpg"
        changes[name] = float(np.abs(developed(photo, tmp_path / name) - read_photo(photo).pixels).mean())
    assert changes["edited"] < 1e-3
    assert changes["editable"] > 0.02


@needs_exiftool
def test_exiftool_finds_nothing_wrong(tmp_path: Path) -> None:
    models = save_models(tmp_path / "models", agent_with_plan({"exposure": 0.4}))
    write_photo(tmp_path / "a.jpg", RAMP)
    for name, editable in (("editable", True), ("edited", False)):
        results = retouch_files(
            [tmp_path / "a.jpg"],
            tmp_path / name,
            model_folder=models[0],
            juror_folder=models[1],
            wishes=Wishes(editable=editable),
        )
        files = [path for path in results[0].outputs if path.suffix in (".jpg", ".xmp")]
        assert len(files) == 2
        for path in files:
            words = ["exiftool", "-validate", "-warning", "-a", "-s3", "-XMP-crs:Exposure2012", "-XMP-dc:Description"]
            done = subprocess.run([*words, str(path)], capture_output=True, text=True, check=True)
            verdict, exposure, description = done.stdout.splitlines()
            assert (verdict, exposure) == ("OK", "+0.80")
            assert description.startswith("Retouched by Vernissage: 1. exposure +0.")
