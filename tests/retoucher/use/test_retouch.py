"""Photo files go in and come out edited, whatever they hold, with all that belongs to them; nothing is ever lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from tests.retoucher.agents import agent_with_plan, save_models
from tests.retoucher.domain.procedural import scene
from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact
from vernissage.core.images import read_photo, to_uint8, write_photo
from vernissage.retoucher.domain.recipe import Recipe
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDERS
from vernissage.retoucher.domain.xmp import read_xmp
from vernissage.retoucher.use.retouch import Wishes, retouch_files

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.retoucher.use.retouch import RetouchResult

PLAN = {"exposure": 0.4, "saturation": 0.3, "denoise": 0.1, "sharpen": 0.1}
_MAKE = 0x010F
#: What lies beside an edited photo, in the output folder.
BESIDE = (".cube", ".explained.json", ".html", ".recipe.json", ".steps.png")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_models(tmp_path_factory.mktemp("editing"), agent_with_plan(PLAN))


@pytest.fixture(scope="module")
def content_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_models(tmp_path_factory.mktemp("content"), agent_with_plan())


def run(models: tuple[Path, Path], output: Path, *photos: Path, **wishes: object) -> list[RetouchResult]:
    return retouch_files(
        photos, output, model_folder=models[0], juror_folder=models[1], wishes=Wishes(**wishes) if wishes else None
    )


def pixels(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.ascontiguousarray(scene(height, width, seed)[0].permute(1, 2, 0).numpy()) * 0.6


def save_photo(path: Path, seed: int = 0, **options: object) -> Path:
    write_photo(path, pixels(seed=seed), **options)
    return path


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def names_of(stem: str, suffix: str) -> list[str]:
    """All that one edited photo yields."""
    return sorted([f"{stem}{end}" for end in (suffix, *BESIDE)] + [f"sidecars/{stem}.xmp"])


def test_an_edited_photo_equals_its_recipe_rendered_at_full_size(models: tuple[Path, Path], tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.png")
    before = photo.read_bytes()
    (result,) = run(models, tmp_path / "out", photo)
    assert (result.status, result.path) == ("edited", photo)
    edited, output = result.outputs[0], tmp_path / "out"
    assert edited == output / "a.png"
    assert names_in(output) == sorted(path.relative_to(output).as_posix() for path in result.outputs)
    assert names_in(output) == names_of("a", ".png")
    recipe = Recipe.from_json((output / "a.recipe.json").read_text(encoding="utf-8"))
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
    assert read_photo(output / "a.steps.png").pixels.shape[1] > 900
    assert json.loads((output / "a.explained.json").read_text())["steps"][0]["slider"] == recipe.steps[0].slider
    assert (output / "a.html").read_text().startswith("<!doctype html>")
    assert "LUT_3D_SIZE 33" in (output / "a.cube").read_text()
    assert photo.read_bytes() == before


def test_two_runs_give_the_same_bytes(models: tuple[Path, Path], tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.jpg")
    first, second = (run(models, tmp_path / name, photo)[0] for name in ("one", "two"))
    assert [path.read_bytes() for path in first.outputs] == [path.read_bytes() for path in second.outputs]


def test_a_photo_with_nothing_to_improve_is_copied_byte_for_byte_with_nothing_beside_it(
    content_models: tuple[Path, Path], tmp_path: Path
) -> None:
    """A sidecar tells every program that the photo was edited, so there is none."""
    photo = tmp_path / "two.gif"
    frames = [Image.fromarray(to_uint8(pixels(seed=seed))) for seed in (0, 1)]
    frames[0].save(photo, save_all=True, append_images=frames[1:])
    for name, editable in (("out", False), ("editable", True)):
        (result,) = run(content_models, tmp_path / name, photo, editable=editable)
        assert (result.status, result.explanation) == ("unchanged", ())
        assert result.outputs == (tmp_path / name / "two.gif",)
        assert result.outputs[0].read_bytes() == photo.read_bytes()
        assert names_in(tmp_path / name) == ["two.gif"]


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
    assert names_in(tmp_path / "out") == sorted([*names_of("good", ".png"), *names_of("last", ".jpg")])


def test_a_photo_that_cannot_be_written_leaves_nothing_half_done(models: tuple[Path, Path], tmp_path: Path) -> None:
    photos = [save_photo(tmp_path / name) for name in ("a.png", "b.png")]
    (tmp_path / "out" / "a.png").mkdir(parents=True)
    first, second = run(models, tmp_path / "out", *photos)
    assert (first.status, second.status) == ("failed", "edited")
    assert names_in(tmp_path / "out") == names_of("b", ".png")


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


def test_a_photo_keeps_its_own_colour_profile(models: tuple[Path, Path], tmp_path: Path) -> None:
    photo = tmp_path / "profiled.tif"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    write_photo(photo, pixels(), icc=profile)
    (result,) = run(models, tmp_path / "out", photo)
    assert read_photo(result.outputs[0]).icc == profile


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
    # One pixel is a picture of one tone, which has nothing to go by.
    assert result.status == ("unchanged" if size == (1, 1) else "edited"), result.message
    assert read_photo(result.outputs[0]).pixels.shape == (*size, 3)


def test_no_result_replaces_a_photo_or_another_result(models: tuple[Path, Path], tmp_path: Path) -> None:
    names = ("one/a.png", "two/a.jpg", "two/A.tif", "out/b.png", "one/b.png", "out/a.steps.png")
    photos = []
    for seed, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photos.append(save_photo(tmp_path / name, seed=seed))
    before = [photo.read_bytes() for photo in photos]
    results = run(models, tmp_path / "out", *photos)
    assert [photo.read_bytes() for photo in photos] == before
    outputs = [path for result in results for path in result.outputs]
    assert len(set(outputs)) == 7 * len(photos)


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


def test_unknown_wishes_are_refused_with_the_valid_ones() -> None:
    with pytest.raises(BadInput, match="fast, quality"):
        Wishes(mode="thorough")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="portable, lightroom"):
        Wishes(form="darktable")  # type: ignore[arg-type]


# --- XMP --------------------------------------------------------------------------------------------------------------


def packet_in(path: Path) -> str:
    """The XMP inside a file as any program would find it: between its marks, in the bytes."""
    data = path.read_bytes()
    start, end = data.index(b"<?xpacket begin"), data.index(b"<?xpacket end")
    return data[start:end].decode() + '<?xpacket end="w"?>'


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_the_edited_photo_tells_its_recipe_without_asking_to_apply_it(
    models: tuple[Path, Path], tmp_path: Path, suffix: str
) -> None:
    (result,) = run(models, tmp_path / "out", save_photo(tmp_path / f"a{suffix}"))
    packet = packet_in(result.outputs[0])
    assert 'crs:AlreadyApplied="True"' in packet
    assert 'crs:Exposure2012="+0.80"' in packet
    assert "Retouched by Vernissage: 1. exposure +0." in packet
    recipe = Recipe.from_json((tmp_path / "out" / "a.recipe.json").read_text())
    assert read_xmp(packet.encode()) == recipe
    sidecar = (tmp_path / "out" / "sidecars" / "a.xmp").read_bytes()
    assert b'crs:AlreadyApplied="False"' in sidecar
    assert read_xmp(sidecar) == recipe


def test_no_sidecar_lies_beside_an_edited_photo(models: tuple[Path, Path], tmp_path: Path) -> None:
    """darktable would read `a.xmp` beside `a.jpg` and edit what is edited already."""
    (result,) = run(models, tmp_path / "out", save_photo(tmp_path / "a.jpg"))
    assert not [path for path in result.outputs if path.suffix == ".xmp" and path.parent == result.outputs[0].parent]


CAPTION = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmp:Rating="4"><dc:description><rdf:Alt><rdf:li xml:lang="x-default">Harbour at noon</rdf:li></rdf:Alt>
</dc:description></rdf:Description></rdf:RDF></x:xmpmeta>"""


def test_captions_and_ratings_are_kept(models: tuple[Path, Path], tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.jpg", xmp=CAPTION.encode())
    (result,) = run(models, tmp_path / "out", photo)
    packet = packet_in(result.outputs[0])
    assert 'xmp:Rating="4"' in packet
    assert packet.index("Harbour at noon") < packet.index("Retouched by")
    assert "Harbour at noon" in (tmp_path / "out" / "sidecars" / "a.xmp").read_text(encoding="utf-8")


@pytest.mark.parametrize("broken", [b"<x:xmpmeta", b"x" * 65000, b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"])
def test_unsound_xmp_costs_no_photo(models: tuple[Path, Path], tmp_path: Path, broken: bytes) -> None:
    photo = tmp_path / "a.jpg"
    Image.fromarray(to_uint8(pixels())).save(photo, xmp=broken)
    (result,) = run(models, tmp_path / "out", photo)
    assert result.status == "edited", result.message
    assert read_xmp(packet_in(result.outputs[0]).encode()).settings[0] == 0.4


def test_more_xmp_than_a_jpeg_holds_gives_way(models: tuple[Path, Path], tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    long = CAPTION.replace("Harbour", "H" * (65_000 - len(CAPTION)))
    Image.fromarray(to_uint8(pixels())).save(photo, xmp=long.encode())
    (result,) = run(models, tmp_path / "out", photo)
    assert result.status == "edited", result.message
    assert "HHH" not in packet_in(result.outputs[0])


@pytest.mark.parametrize("form", ["portable", "lightroom"])
def test_the_form_of_the_settings_can_be_chosen(models: tuple[Path, Path], tmp_path: Path, form: str) -> None:
    run(models, tmp_path / "out", save_photo(tmp_path / "a.jpg"), form=form)
    sidecar = (tmp_path / "out" / "sidecars" / "a.xmp").read_text(encoding="utf-8")
    assert ("SaturationAdjustmentRed" in sidecar) == (form == "portable")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_an_editable_photo_keeps_its_pixels_and_asks_to_be_edited(
    models: tuple[Path, Path], tmp_path: Path, suffix: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = save_photo(tmp_path / f"a{suffix}", exif=exif.tobytes())
    (result,) = run(models, tmp_path / "out", photo, editable=True)
    copy = result.outputs[0]
    assert names_in(tmp_path / "out") == sorted([f"a{suffix}", "a.xmp", *(f"a{end}" for end in BESIDE)])
    assert 'crs:AlreadyApplied="False"' in packet_in(copy)
    assert read_xmp(packet_in(copy).encode()) == read_xmp((tmp_path / "out" / "a.xmp").read_bytes())
    with Image.open(photo) as before, Image.open(copy) as after:
        assert after.getexif()[0x0112] == 6
        np.testing.assert_array_equal(np.asarray(before), np.asarray(after))
    assert "pixels as they were" in result.message
    # Edited again, the copy gives what the photo gives: the settings inside do not count twice.
    again = run(models, tmp_path / "again", copy)[0]
    first = run(models, tmp_path / "first", photo)[0]
    np.testing.assert_array_equal(read_photo(again.outputs[0]).pixels, read_photo(first.outputs[0]).pixels)


def test_formats_that_take_no_settings_get_them_beside(models: tuple[Path, Path], tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.webp")
    (result,) = run(models, tmp_path / "out", photo, editable=True, extras=False)
    assert result.outputs[0].read_bytes() == photo.read_bytes()
    assert names_in(tmp_path / "out") == ["a.webp", "a.xmp"]
    assert "sidecar only" in result.message


def test_without_extras_there_is_the_photo_alone(models: tuple[Path, Path], tmp_path: Path) -> None:
    (result,) = run(models, tmp_path / "out", save_photo(tmp_path / "a.jpg"), extras=False)
    assert names_in(tmp_path / "out") == ["a.jpg"]
    assert result.explanation


@pytest.mark.parametrize("editable", [False, True])
def test_of_a_raw_file_there_are_settings_but_no_picture(
    models: tuple[Path, Path], tmp_path: Path, editable: bool
) -> None:
    """What can be read in a RAW file is its preview; a picture of that would pass for the photo."""
    preview = save_photo(tmp_path / "a.tif")
    raw = preview.rename(tmp_path / "a.NEF")
    (result,) = run(models, tmp_path / "out", raw, editable=editable)
    assert result.status == "edited", result.message
    assert result.outputs[0] == tmp_path / "out" / "sidecars" / "a.xmp"
    assert names_in(tmp_path / "out") == sorted([*(f"a{end}" for end in BESIDE), "sidecars/a.xmp"])
    assert "preview" in result.message
    assert "IncrementalTemperature" not in result.outputs[0].read_text(encoding="utf-8")


def test_a_raw_file_with_nothing_to_improve_yields_nothing(content_models: tuple[Path, Path], tmp_path: Path) -> None:
    raw = save_photo(tmp_path / "a.tif").rename(tmp_path / "a.dng")
    (result,) = run(content_models, tmp_path / "out", raw)
    assert (result.status, result.outputs) == ("unchanged", ())
    assert names_in(tmp_path / "out") == []
