"""Photo files go in and come out edited, whatever they hold; names, models and folders are checked before the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from tests.retoucher.agents import agent_with_plan, save_models
from tests.retoucher.domain.procedural import scene
from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact
from vernissage.core.images import read_photo, to_uint8, write_photo
from vernissage.retoucher.domain.recipe import Recipe, Step
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, SLIDERS
from vernissage.retoucher.use.retouch import amount_text, expand, explain, plan_outputs, retouch_files

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.retoucher.use.retouch import RetouchResult

PLAN = {"exposure": 0.4, "saturation": 0.3, "denoise": 0.1, "sharpen": 0.1}
_MAKE = 0x010F


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_models(tmp_path_factory.mktemp("editing"), agent_with_plan(PLAN))


@pytest.fixture(scope="module")
def content_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_models(tmp_path_factory.mktemp("content"), agent_with_plan())


def run(models: tuple[Path, Path], output: Path, *photos: Path) -> list[RetouchResult]:
    return retouch_files(photos, output, model_folder=models[0], juror_folder=models[1])


def pixels(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.ascontiguousarray(scene(height, width, seed)[0].permute(1, 2, 0).numpy()) * 0.6


def save_photo(path: Path, seed: int = 0, **options: object) -> Path:
    write_photo(path, pixels(seed=seed), **options)
    return path


def test_an_edited_photo_equals_its_recipe_rendered_at_full_size(models: tuple[Path, Path], tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.png")
    before = photo.read_bytes()
    (result,) = run(models, tmp_path / "out", photo)
    assert (result.status, result.path) == ("edited", photo)
    edited, recipe_file, sheet = result.outputs
    assert [path.name for path in result.outputs] == ["a.png", "a.recipe.json", "a.steps.png"]
    recipe = Recipe.from_json(recipe_file.read_text(encoding="utf-8"))
    expected = render(torch.from_numpy(read_photo(photo).pixels).permute(2, 0, 1)[None], recipe.as_tensor())
    difference = read_photo(edited).pixels - expected[0].permute(1, 2, 0).numpy()
    assert np.abs(difference).max() <= 0.5 / 255 + 1e-4
    assert recipe.settings[0] == 0.4
    assert len(result.explanation) == len(recipe.steps) > 1
    # Steps lead from nothing to the settings, and the last score is the result's.
    for index, slider in enumerate(SLIDERS):
        moved = sum(step.change for step in recipe.steps if step.slider == slider.name)
        assert moved == pytest.approx(recipe.settings[index], abs=1e-5)
    assert recipe.steps[-1].score == recipe.score_after
    assert read_photo(sheet).pixels.shape[1] > 900
    assert photo.read_bytes() == before


def test_two_runs_give_the_same_bytes(models: tuple[Path, Path], tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.jpg")
    first, second = (run(models, tmp_path / name, photo)[0] for name in ("one", "two"))
    assert [path.read_bytes() for path in first.outputs] == [path.read_bytes() for path in second.outputs]


def test_a_photo_with_nothing_to_improve_is_copied_byte_for_byte(
    content_models: tuple[Path, Path], tmp_path: Path
) -> None:
    photo = tmp_path / "two.gif"
    frames = [Image.fromarray(to_uint8(pixels(seed=seed))) for seed in (0, 1)]
    frames[0].save(photo, save_all=True, append_images=frames[1:])
    (result,) = run(content_models, tmp_path / "out", photo)
    assert result.status == "unchanged"
    assert result.outputs[0].name == "two.gif"
    assert result.outputs[0].read_bytes() == photo.read_bytes()
    assert Recipe.from_json(result.outputs[1].read_text()).is_neutral
    assert all(path.is_file() for path in result.outputs)


def test_one_bad_photo_never_stops_the_others(models: tuple[Path, Path], tmp_path: Path) -> None:
    good, last = save_photo(tmp_path / "good.png"), save_photo(tmp_path / "last.jpg")
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:300])
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    empty = tmp_path / "nothing"
    empty.mkdir()
    results = run(models, tmp_path / "out", cut, good, text, tmp_path / "missing.png", empty, last)
    assert [result.status for result in results] == ["failed", "edited", "failed", "failed", "failed", "edited"]
    assert results[3].message == "no such file"
    assert all(not result.outputs and result.message for result in results if result.status == "failed")
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == sorted(
        f"{stem}{suffix}"
        for stem, own in (("good", ".png"), ("last", ".jpg"))
        for suffix in (own, ".recipe.json", ".steps.png")
    )


def test_a_photo_that_cannot_be_written_leaves_nothing_half_done(models: tuple[Path, Path], tmp_path: Path) -> None:
    photos = [save_photo(tmp_path / name) for name in ("a.png", "b.png")]
    (tmp_path / "out" / "a.png").mkdir(parents=True)
    first, second = run(models, tmp_path / "out", *photos)
    assert (first.status, second.status) == ("failed", "edited")
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name.startswith("a")) == ["a.png"]
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".tmp")]


def test_depth_transparency_and_exif_are_kept(models: tuple[Path, Path], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[_MAKE] = "Voigtlander"
    alpha = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (48, 1))
    deep = save_photo(tmp_path / "deep.png", alpha=alpha, bit_depth=16, exif=exif.tobytes())
    tiff = save_photo(tmp_path / "deep.tif", bit_depth=16)
    results = run(models, tmp_path / "out", deep, tiff)
    edited, edited_tiff = (read_photo(result.outputs[0]) for result in results)
    assert (edited.bit_depth, edited_tiff.bit_depth) == (16, 16)
    assert edited.alpha is not None
    np.testing.assert_array_equal(edited.alpha, read_photo(deep).alpha)
    assert len(np.unique(edited.pixels)) > 1000
    found = Image.Exif()
    found.load(edited.exif or b"")
    assert found[_MAKE] == "Voigtlander"


def test_a_turned_photo_comes_out_upright_with_its_tag_reset(models: tuple[Path, Path], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = save_photo(tmp_path / "turned.jpg", exif=exif.tobytes())
    (result,) = run(models, tmp_path / "out", photo)
    with Image.open(result.outputs[0]) as image:
        assert image.size == (48, 64)
        assert image.getexif().get(0x0112, 1) == 1
    assert "exif-rotated 6" in result.message


def test_a_profile_is_not_passed_on_because_the_pixels_are_srgb_now(models: tuple[Path, Path], tmp_path: Path) -> None:
    photo = tmp_path / "profiled.tif"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    write_photo(photo, pixels(), icc=profile)
    (result,) = run(models, tmp_path / "out", photo)
    assert read_photo(photo).icc == profile
    assert read_photo(result.outputs[0]).icc is None


@pytest.mark.parametrize(
    ("name", "mode", "expected"),
    [
        ("gray.png", "L", "gray.png"),
        ("inks.jpg", "CMYK", "inks.jpg"),
        ("palette.gif", "P", "palette.png"),
        ("raster.bmp", "RGB", "raster.png"),
        ("see-through.png", "RGBA", "see-through.png"),
        ("web.webp", "RGB", "web.webp"),
        ("Füße 写真.PNG", "RGB", "Füße 写真.PNG"),
        ("no-suffix", "RGB", "no-suffix.png"),
    ],
)
def test_every_kind_of_file_is_edited(
    models: tuple[Path, Path], tmp_path: Path, name: str, mode: str, expected: str
) -> None:
    image = Image.fromarray(to_uint8(pixels())).convert(mode)
    if mode == "RGBA":
        image.putalpha(100)
    kind = {"jpg": "JPEG", "gif": "GIF", "bmp": "BMP", "webp": "WEBP"}.get(name.rpartition(".")[2], "PNG")
    image.save(tmp_path / name, format=kind)
    (result,) = run(models, tmp_path / "out", tmp_path / name)
    assert result.status == "edited", result.message
    assert result.outputs[0].name == expected
    assert read_photo(result.outputs[0]).pixels.shape == (48, 64, 3)


def test_transparency_in_a_file_that_calls_itself_jpeg_is_kept(models: tuple[Path, Path], tmp_path: Path) -> None:
    image = Image.fromarray(to_uint8(pixels()))
    image.putalpha(100)
    image.save(tmp_path / "liar.jpg", format="PNG")
    (result,) = run(models, tmp_path / "out", tmp_path / "liar.jpg")
    assert result.outputs[0].name == "liar.png"
    assert read_photo(result.outputs[0]).alpha is not None


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (1, 300), (300, 2)])
def test_odd_sizes_come_out_in_their_size(models: tuple[Path, Path], tmp_path: Path, size: tuple[int, int]) -> None:
    photo = tmp_path / "odd.png"
    write_photo(photo, pixels(*size))
    (result,) = run(models, tmp_path / "out", photo)
    assert result.status == "edited", result.message
    assert read_photo(result.outputs[0]).pixels.shape == (*size, 3)


def test_folders_stand_for_their_photos(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for name in ("b.JPG", "a.png", ".hidden.png", "notes.txt", "a.steps.png", "deeper/c.png"):
        (folder / name).write_bytes(b"-")
    link = tmp_path / "link.png"
    link.symlink_to(folder / "a.png")
    assert expand([folder, folder / "a.png", link]) == [folder / "a.png", folder / "b.JPG"]


def test_no_result_replaces_a_photo_or_another_result(models: tuple[Path, Path], tmp_path: Path) -> None:
    names = ("one/a.png", "two/a.jpg", "two/A.tif", "out/b.png", "one/b.png", "out/a.steps.png")
    photos = []
    for seed, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photos.append(save_photo(tmp_path / name, seed=seed))
    plans = plan_outputs(photos, tmp_path / "out")
    planned = [path for plan in plans for path in plan.all_outputs()]
    assert len({str(path).casefold() for path in planned}) == len(planned)
    assert not set(planned) & set(photos)
    before = [photo.read_bytes() for photo in photos]
    results = run(models, tmp_path / "out", *photos)
    assert [photo.read_bytes() for photo in photos] == before
    outputs = [path for result in results for path in result.outputs]
    assert len(set(outputs)) == 3 * len(photos)
    # The first to come keeps its name where that is free.
    assert plan_outputs(photos[1:3], tmp_path / "new")[0].stem == "a"


def test_a_second_run_gives_the_same_names(models: tuple[Path, Path], tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.png")
    assert run(models, tmp_path / "out", photo)[0].outputs == run(models, tmp_path / "out", photo)[0].outputs


def test_models_are_checked_before_anything_is_written(models: tuple[Path, Path], tmp_path: Path) -> None:
    photo, output = save_photo(tmp_path / "a.png"), tmp_path / "out"
    with pytest.raises(MissingArtifact, match="dvc repro train"):
        run((tmp_path / "no-model", models[1]), output, photo)
    with pytest.raises(MissingArtifact, match="dvc repro juror"):
        run((models[0], tmp_path / "no-juror"), output, photo)
    broken = save_models(tmp_path / "broken", agent_with_plan(PLAN))
    (broken[0] / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CorruptArtifact, match="hash"):
        run(broken, output, photo)
    assert not output.exists()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    models: tuple[Path, Path], tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="cannot write there"):
        run(models, tmp_path / place, save_photo(tmp_path / "a.png"))


def test_the_check_of_the_folder_leaves_nothing_behind(models: tuple[Path, Path], tmp_path: Path) -> None:
    assert run(models, tmp_path / "deep" / "out") == []
    assert list((tmp_path / "deep" / "out").iterdir()) == []


def test_explain_says_amount_meaning_and_scores() -> None:
    settings = [0.0] * SLIDER_COUNT
    settings[0] = 0.35
    steps = (Step("exposure", 0.4, 6.9), Step("exposure", -0.05, 7.0))
    lines = explain(Recipe(tuple(settings), steps, 6.1, 7.0)).splitlines()
    assert lines == [
        "exposure +0.80 EV: more light, as with a longer exposure (score 6.1 -> 6.9)",
        "exposure -0.10 EV: less light, as with a shorter exposure (score 6.9 -> 7.0)",
    ]
    assert explain(Recipe((0.0,) * SLIDER_COUNT)) == "nothing to improve"


@pytest.mark.parametrize("slider", SLIDERS, ids=lambda slider: slider.name)
def test_every_slider_can_be_explained_both_ways(slider: object) -> None:
    up, down = (
        explain(Recipe((0.0,) * SLIDER_COUNT, (Step(slider.name, change, 5.0),), 4.0, 5.0)) for change in (0.1, -0.1)
    )
    assert up.partition(": ")[2] != down.partition(": ")[2]
    assert amount_text(slider, 0.1) in up


def test_names_at_the_limit_leave_room_for_the_longer_suffixes(models: tuple[Path, Path], tmp_path: Path) -> None:
    photo = tmp_path / ("n" * 251 + ".png")
    Image.fromarray(to_uint8(pixels())).save(photo)
    (result,) = run(models, tmp_path / "out", photo)
    assert result.status == "edited", result.message
