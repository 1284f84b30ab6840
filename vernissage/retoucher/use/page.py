"""The instructor for the eye: one HTML page that needs nothing else, and the contact sheet of the steps."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from vernissage.core.images import save_png
from vernissage.retoucher.domain.amounts import amount_text, lightroom_text
from vernissage.retoucher.domain.filters import resize_area
from vernissage.retoucher.domain.pictures import step_mosaic, tile_pixels
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDERS
from vernissage.retoucher.domain.statistics import histograms

if TYPE_CHECKING:
    import torch

    from vernissage.retoucher.domain.recipe import Recipe
    from vernissage.retoucher.use.instructor import Explanation

TEMPLATE = "instructor.html"
#: Long edges of the large pictures and of those of the steps, in pixels.
LARGE_EDGE, STEP_EDGE = 1200, 400
_LARGE_QUALITY, _STEP_QUALITY = 86, 82
_BINS = 64
_PLOT_WIDTH, _PLOT_HEIGHT = 256, 128
# Single bins of a drawing or a scan may hold most pixels; past this multiple of the even share a curve is cut off.
_TALLEST = 6.0
_CHANNELS = ("red", "green", "blue", "luma")


@dataclass(frozen=True)
class Shown:
    """The pictures of one retouch.

    Attributes:
        large: (2, 3, H, W) float in [0, 1]: before and after.
        steps: (T + 1, 3, h, w): before, then after each step.
    """

    large: torch.Tensor
    steps: torch.Tensor


@dataclass(frozen=True)
class _Bar:
    """One slider of the panel: where it stands as a share of its range, and in words."""

    name: str
    amount: str
    lightroom: str
    start: float
    width: float
    moved: bool


def picture_steps(recipe: Recipe, original: torch.Tensor) -> Shown:
    """Render what page and sheet show.

    Args:
        recipe: Settings and steps.
        original: (1, 3, H, W) float in [0, 1], as large as the page shall show it.
    """
    path = recipe.path()
    ends = render(original.expand(2, -1, -1, -1), path[[0, -1]])
    small = resize_area(original, STEP_EDGE)
    return Shown(ends, render(small.expand(len(path), -1, -1, -1), path))


def save_sheet(path: Path, explanation: Explanation, shown: Shown, name: str) -> None:
    """Write the contact sheet: the original, every step with its amount and scores, the result."""
    captions = [f"original  {explanation.score_before:.1f}"]
    for lesson in explanation.lessons:
        scores = f"{lesson.score_before:.1f} -> {lesson.score_after:.1f}"
        captions.append(f"{lesson.number} {lesson.slider} {lesson.amount}  {scores}")
    save_png(path, step_mosaic(shown.steps, captions, title=name))


def to_html(explanation: Explanation, recipe: Recipe, shown: Shown, *, name: str, files: tuple[str, ...] = ()) -> str:
    """The explanation as one page: no remote file, pictures inside, readable in light and dark, without its script too.

    Args:
        explanation: What was done and why.
        recipe: The settings, for the panel of sliders.
        shown: The pictures.
        name: The photo's file name.
        files: Names of the files that lie beside the page, with what they are good for.
    """
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _SCRIPT.strip()
    return (
        pages.get_template(TEMPLATE).render(
            explanation=explanation,
            name=name,
            files=files,
            before=_data_uri(shown.large[0], _LARGE_QUALITY),
            after=_data_uri(shown.large[1], _LARGE_QUALITY),
            width=shown.large.shape[-1],
            height=shown.large.shape[-2],
            steps=[_data_uri(picture, _STEP_QUALITY) for picture in shown.steps],
            step_width=shown.steps.shape[-1],
            step_height=shown.steps.shape[-2],
            plots=_histogram_paths(shown.large),
            plot_size=(_PLOT_WIDTH, _PLOT_HEIGHT),
            bars=_bars(recipe),
            script=script,
            # The page runs this one script and no other, whatever a photo's name may hold.
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
        + "\n"
    )


# Without it both pictures stand side by side; with it they lie on each other under a divider that follows the slider.
_SCRIPT = """
const compare = document.querySelector(".compare");
const range = compare.querySelector("input");
compare.classList.add("live");
range.hidden = false;
range.addEventListener("input", () => compare.style.setProperty("--at", range.value + "%"));
"""


def _data_uri(picture: torch.Tensor, quality: int) -> str:
    file = io.BytesIO()
    Image.fromarray(tile_pixels(picture)).save(file, format="JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _histogram_paths(pictures: torch.Tensor) -> list[dict[str, str]]:
    """For each picture and channel the outline of its histogram as an SVG path; both pictures on one scale."""
    shares = histograms(pictures, _BINS)
    tallest = min(float(shares[:, :, 1:-1].max()), _TALLEST / _BINS) or 1.0
    heights = (shares / tallest).clamp(max=1.0) * (_PLOT_HEIGHT - 2)
    return [
        {channel: _path(row.tolist()) for channel, row in zip(_CHANNELS, picture, strict=True)} for picture in heights
    ]


def _path(heights: list[float]) -> str:
    step = _PLOT_WIDTH / (len(heights) - 1)
    points = " ".join(f"L{step * index:.1f} {_PLOT_HEIGHT - height:.1f}" for index, height in enumerate(heights))
    return f"M0 {_PLOT_HEIGHT} {points} L{_PLOT_WIDTH} {_PLOT_HEIGHT} Z"


def _bars(recipe: Recipe) -> list[_Bar]:
    bars = []
    for slider, setting in zip(SLIDERS, recipe.settings, strict=True):
        span = slider.high - slider.low
        zero, at = -slider.low / span, (setting - slider.low) / span
        bars.append(
            _Bar(
                slider.name,
                amount_text(slider, setting) if setting else "as it was",
                lightroom_text(slider, setting) if setting else "",
                round(100 * min(zero, at), 2),
                round(100 * abs(at - zero), 2),
                bool(setting),
            )
        )
    return bars
