"""Robustness against files: every kind that people have, written, read back and edited."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from vernissage.core.errors import RejectedImage
from vernissage.core.images import read_photo, write_photo
from vernissage.retoucher.domain.full_size import as_batch, render_full_size
from vernissage.retoucher.domain.recipe import Recipe
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import HIGHS
from vernissage.retoucher.judge.trials import (
    Bench,
    Case,
    Outcome,
    as_levels,
    as_pixels,
    edited,
    read_back,
    settings_gap,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_ORIENTATION = 0x0112
#: How a camera stores an upright picture under each EXIF orientation (EXIF 2.32, table 6): the inverse of turning it.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_CLOSE_SETTINGS = 0.03
_MANY_LEVELS = 256


def _through_files(bench: Bench, suffix: str, save: Callable[[Image.Image, Path], None]) -> list[torch.Tensor]:
    """Save the normal case's photos in some form and read them back."""
    read = []
    for index in bench.few():
        path = bench.folder / f"{index}{suffix}"
        save(Image.fromarray(as_levels(bench.faulty[index])), path)
        read.append(read_back(path))
    return read


def _close_to_normal(bench: Bench, read: list[torch.Tensor]) -> Outcome:
    """Compare settings with those of the same photos in RGB."""
    settings, few = bench.decide(read), bench.few()
    gap = settings_gap(settings, bench.settings[: len(few)])
    return Outcome(gap <= _CLOSE_SETTINGS, gap, bench.retained(few, read, settings))


def gray_file(bench: Bench) -> Outcome:
    """Compare one-channel files with the same photos as RGB."""
    gray = _through_files(bench, ".png", lambda image, path: image.convert("L").save(path))
    rgb = _through_files(bench, "-rgb.png", lambda image, path: image.convert("L").convert("RGB").save(path))
    gap = float((bench.decide(gray) - bench.decide(rgb)).abs().max())
    return Outcome(gap == 0, gap)


def partial_alpha(bench: Bench) -> Outcome:
    """Send a ramp of transparency through reading, editing and writing."""
    worst = 0.0
    for index in bench.few():
        pixels = as_pixels(bench.faulty[index])
        height, width = pixels.shape[:2]
        ramp = np.round(np.linspace(0, 255, height * width, dtype=np.float32)).reshape(height, width) / 255
        source, target = bench.folder / f"{index}.png", bench.folder / f"{index}-edited.png"
        write_photo(source, pixels, alpha=ramp)
        photo = read_photo(source)
        settings = bench.decide([as_batch(photo.pixels)])
        if not torch.equal(settings, bench.decide([bench.faulty[index]])):
            return Outcome(passed=False, note=f"photo {index}: transparency changed the settings")
        write_photo(target, render_full_size(photo.pixels, settings), alpha=photo.alpha)
        alpha = read_photo(target).alpha
        if alpha is None:
            return Outcome(passed=False, note=f"photo {index}: transparency was lost")
        worst = max(worst, float(np.abs(alpha * 255 - np.round(ramp * 255)).max()))
    return Outcome(worst < 0.5, worst)


def cmyk_jpeg(bench: Bench) -> Outcome:
    """Edit photos stored as four inks."""
    read = _through_files(bench, ".jpg", lambda image, path: image.convert("CMYK").save(path, quality=95))
    return _close_to_normal(bench, read)


def palette_png(bench: Bench) -> Outcome:
    """Edit photos stored with 256 colours."""
    return _close_to_normal(bench, _through_files(bench, ".png", lambda image, path: image.quantize(256).save(path)))


def deep_png(bench: Bench) -> Outcome:
    """Count levels after a smooth photo of 16 bits was edited and written."""
    source, target = bench.folder / "deep.png", bench.folder / "deep-edited.png"
    # Four times the size, interpolated: neighbouring pixels differ by fractions of an 8-bit level.
    smooth = F.interpolate(bench.faulty[0], scale_factor=4, mode="bilinear", align_corners=False)
    write_photo(source, as_pixels(smooth), bit_depth=16)
    photo = read_photo(source)
    before = np.unique(photo.pixels[..., 1]).size
    settings = bench.decide([as_batch(photo.pixels)])
    write_photo(target, render_full_size(photo.pixels, settings), bit_depth=photo.bit_depth)
    levels = np.unique(read_photo(target).pixels[..., 1]).size
    note = f"{before} levels of green before"
    return Outcome(levels > min(_MANY_LEVELS, before // 2), float(levels), note=note)


def exif_orientations(bench: Bench) -> Outcome:
    """Store one photo in all eight orientations."""
    upright = Image.fromarray(as_levels(bench.faulty[0]))
    expected, worst = bench.settings[:1], 0.0
    for orientation in range(1, 9):
        path = bench.folder / f"{orientation}.png"
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        stored = upright.transpose(_STORED[orientation]) if orientation in _STORED else upright
        stored.save(path, exif=exif)
        photo = read_photo(path)
        tag = Image.Exif()
        tag.load(photo.exif or b"")
        if tag.get(_ORIENTATION, 1) != 1:
            return Outcome(passed=False, note=f"orientation {orientation}: the tag still says {tag.get(_ORIENTATION)}")
        worst = max(worst, float((bench.decide([as_batch(photo.pixels)]) - expected).abs().max()))
    return Outcome(worst == 0, worst)


def tiny_pictures(bench: Bench) -> Outcome:
    """Edit pictures of 1 x 1 and 8 x 8 pixels."""
    for side in (1, 8):
        path = bench.folder / f"{side}.png"
        write_photo(path, as_pixels(F.adaptive_avg_pool2d(bench.faulty[0], side)))
        photo = read_back(path)
        (result,) = edited([photo], bench.decide([photo]))
        if result.shape != (1, 3, side, side) or not bool(torch.isfinite(result).all()):
            return Outcome(passed=False, note=f"{side} x {side}: result {tuple(result.shape)}")
    return Outcome(passed=True)


def panorama(bench: Bench) -> Outcome:
    """Render a very wide photo in strips and whole, with the agent's settings and with every slider at its end."""
    wide = F.interpolate(bench.faulty[0], size=(200, 4000), mode="bilinear", align_corners=False)
    settings = bench.decide([wide])
    worst = 0.0
    for row in (settings, torch.tensor([HIGHS]) / 2):
        whole = as_pixels(render(wide, row))
        worst = max(worst, float(np.abs(render_full_size(as_pixels(wide), row) - whole).max()) * 255)
    return Outcome(worst <= 1, worst)


def truncated_file(bench: Bench) -> Outcome:
    """Put a file that ends in the middle between two good ones."""
    paths = [bench.folder / f"{number}.jpg" for number in range(3)]
    for path in paths:
        Image.fromarray(as_levels(bench.faulty[0])).save(path)
    paths[1].write_bytes(paths[1].read_bytes()[: paths[1].stat().st_size // 2])
    done, reasons = 0, []
    for path in paths:
        try:
            photo = read_back(path)
        except RejectedImage as error:
            reasons.append(error.reason)
            continue
        bench.decide([photo])
        done += 1
    return Outcome(done == 2 and len(reasons) == 1 and bool(reasons[0]), float(done), note="; ".join(reasons))


def animated_gif(bench: Bench) -> Outcome:
    """Compare an animation with its first frame alone."""
    frames = [Image.fromarray(as_levels(photo)) for photo in (bench.faulty[0], 1 - bench.faulty[0])]
    alone, moving = bench.folder / "alone.gif", bench.folder / "moving.gif"
    frames[0].save(alone)
    frames[0].save(moving, save_all=True, append_images=frames[1:], duration=100)
    photo = read_photo(moving)
    gap = float((bench.decide([as_batch(photo.pixels)]) - bench.decide([read_back(alone)])).abs().max())
    return Outcome(gap == 0 and "animated: first frame" in photo.history, gap, note=", ".join(photo.history))


def foreign_names(bench: Bench) -> Outcome:
    """Read and write under names of other alphabets, with spaces and brackets."""
    worst = 0.0
    for name in ("Füße im Sand.png", "写真 [1].png", "фото & звук.png"):
        path = bench.folder / name
        write_photo(path, as_pixels(bench.faulty[0]))
        worst = max(worst, float((bench.decide([read_back(path)]) - bench.settings[:1]).abs().max()))
    return Outcome(worst == 0, worst)


def recipe_round_trip(bench: Bench) -> Outcome:
    """Render from a recipe and from its JSON."""
    recipes = [Recipe(tuple(round(setting, 6) for setting in row)) for row in bench.settings.tolist()]
    again = [Recipe.from_json(recipe.to_json()) for recipe in recipes]
    direct = edited(bench.faulty, torch.cat([recipe.as_tensor() for recipe in recipes]))
    read = edited(bench.faulty, torch.cat([recipe.as_tensor() for recipe in again]))
    worst = max(float((one - other).abs().max()) for one, other in zip(direct, read, strict=True))
    return Outcome(worst == 0, worst)


FILE_CASES: tuple[Case, ...] = (
    Case("gray file", "A file of one gray channel gets exactly the settings of the same photo as RGB.", gray_file),
    Case("transparency", "Alpha comes out as it went in, and does not change the settings.", partial_alpha),
    Case("CMYK JPEG", "Settings differ by at most 0.03 on average from those of the same photo in RGB.", cmyk_jpeg),
    Case("palette PNG", "Settings differ by at most 0.03 on average from those of the same photo in RGB.", palette_png),
    Case("16-bit PNG", "More than 256 levels (or half of what there was) are left after editing.", deep_png),
    Case(
        "EXIF orientation", "All eight orientations get exactly the settings of the upright photo.", exif_orientations
    ),
    Case("1 x 1 and 8 x 8 pixels", "The result has the same size and finite values.", tiny_pictures),
    Case("panorama", "4000 x 200 pixels in strips equal the whole within one 8-bit level.", panorama),
    Case("truncated file", "It is rejected with a reason, the two others are edited.", truncated_file),
    Case("animated GIF", "The first frame counts and gets exactly the settings it gets alone.", animated_gif),
    Case("foreign file names", "A photo gets exactly the same settings under any name.", foreign_names),
    Case("recipe as JSON", "A recipe read back renders the same photo, bit for bit.", recipe_round_trip),
)
