"""How long a photo of full size takes from file to file, phase by phase, and how much memory that needs."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from vernissage.core.images import read_photo, write_photo
from vernissage.core.levels import strips
from vernissage.retoucher.domain.full_size import render_full_size, thumbnail
from vernissage.retoucher.domain.quality import delta_e
from vernissage.retoucher.domain.recipe import Recipe, Step
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, slider_index
from vernissage.retoucher.learn.juror import RankJuror, RankNet
from vernissage.retoucher.learn.network import PolicyNet, PolicySpec
from vernissage.retoucher.use.agent import Agent, decide
from vernissage.retoucher.use.deliveries import JPEG_QUALITY, Delivery
from vernissage.retoucher.use.instructor import explain
from vernissage.retoucher.use.outputs import plan_outputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: What a photo goes through, in this order.
PHASES = ("decode", "decide", "explain", "render", "encode")
#: One recipe that looks at single pixels only, and one that also looks around.
RECIPES: Mapping[str, Mapping[str, float]] = {
    "tone and colour": {"exposure": 0.3, "contrast": -0.2, "temperature": 0.2, "saturation": 0.2},
    "with denoise and sharpen": {
        "exposure": 0.3, "contrast": -0.2, "temperature": 0.2, "saturation": 0.2, "denoise": 0.2, "sharpen": 0.2,
    },
}  # fmt: skip
_COMPARED_EDGE = 320
_STRIP_PIXELS = 1 << 20
_MAKER_TAG = 0x010F


@dataclass(frozen=True)
class Speed:
    """The fastest of several runs of one recipe on one photo.

    Attributes:
        seconds: For each phase.
        peak_rss_mib: The most memory that this process has held so far, libraries included.
        delta_e: Mean CIEDE2000 between the written photo shrunk and the recipe rendered on the thumbnail.
    """

    seconds: Mapping[str, float]
    peak_rss_mib: float
    delta_e: float

    @property
    def total(self) -> float:
        """Seconds from file to files."""
        return sum(self.seconds.values())


def untrained_agent() -> Agent:
    """An agent of the usual size whose weights are random: as slow as a trained one, and here nothing else counts."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        spec = PolicySpec(view=64, standard=160, horizon=8, strengths=(0.1, 0.3), widths=(32, 64, 96), step_cost=0.02)
        return Agent(PolicyNet(spec).eval(), RankJuror([RankNet() for _ in range(4)], 64))


def make_photo(path: Path, megapixels: float, *, seed: int = 0) -> None:
    """Write a JPEG (3:2) with what costs codecs and filters time: gradients, clouds, fine texture, edges and grain.

    Args:
        path: Where to, ending in .jpg.
        megapixels: Size.
        seed: Of clouds and grain.
    """
    rng = np.random.default_rng(seed)
    height = max(2, round((megapixels * 1e6 / 1.5) ** 0.5))
    width = round(1.5 * height)
    clouds = [Image.fromarray(rng.random((12, 18), dtype=np.float32)) for _ in range(3)]
    across = np.linspace(0, 1, width, dtype=np.float32)
    levels = np.empty((height, width, 3), np.uint8)
    grain: np.ndarray | None = None
    # In strips, so that the memory measured afterwards is not what making the photo took.
    for rows in strips(height, width, _STRIP_PIXELS):
        count = rows.stop - rows.start
        if grain is None:
            grain = rng.normal(0, 4, (count, width)).astype(np.float32)
        down = (np.arange(rows.start, rows.stop, dtype=np.float32) / height)[:, np.newaxis]
        texture = 12 * np.sin(400 * across) * np.sin(270 * down) + 40 * (np.sin(9 * across + 5 * down) > 0.6)
        box = (0, 12 * rows.start / height, 18, 12 * rows.stop / height)
        for channel, cloud in enumerate(clouds):
            soft = np.asarray(cloud.resize((width, count), Image.Resampling.BICUBIC, box))
            slope = (across, down, 1 - (across + down) / 2)[channel]
            noise = np.roll(grain, int(rng.integers(width)), axis=1)[:count]
            levels[rows, :, channel] = np.clip(60 + 70 * slope + 60 * soft + texture + noise, 0, 255)
    exif = Image.Exif()
    exif[_MAKER_TAG] = "Vernissage"
    write_photo(path, levels, exif=exif.tobytes(), quality=92)


def measure(source: Path, folder: Path, settings: Mapping[str, float], agent: Agent, *, repeat: int) -> Speed:
    """Take a photo through all phases several times.

    The agent decides, because that takes its time, but what is done is always the given settings.

    Args:
        source: The photo.
        folder: Where the results go.
        settings: Slider name -> normalised setting.
        agent: Who decides and explains.
        repeat: Runs; the fastest counts, because what else the machine does only ever adds time.

    Returns:
        The fastest run.
    """
    recipe = _recipe(settings)
    runs = [_run(source, folder, recipe, agent) for _ in range(repeat)]
    peak = _peak_rss_mib()
    written = plan_outputs([source], folder)[0].output(source.suffix)
    shown = render(thumbnail(read_photo(source).samples, long_edge=_COMPARED_EDGE), recipe.as_tensor())
    small = thumbnail(read_photo(written).samples, long_edge=_COMPARED_EDGE)
    return Speed(min(runs, key=lambda run: sum(run.values())), peak, float(delta_e(shown, small)))


def _recipe(settings: Mapping[str, float]) -> Recipe:
    values = [0.0] * SLIDER_COUNT
    for name, setting in settings.items():
        values[slider_index(name)] = setting
    steps = tuple(Step(name, setting, 5.0) for name, setting in settings.items())
    return Recipe(tuple(values), steps, 5.0, 5.0)


def _run(source: Path, folder: Path, recipe: Recipe, agent: Agent) -> dict[str, float]:
    seconds: dict[str, float] = {}

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - start

    plan = plan_outputs([source], folder)[0]
    with phase("decode"):
        photo = read_photo(source)
    with phase("decide"):
        decision = decide(photo, agent)
    with phase("explain"):
        explanation = explain(recipe, decision.judged, agent.juror, long_edge=max(photo.samples.shape[:2]))
        delivery = Delivery(plan, photo, recipe, explanation, "portable")
        delivery.extras()
        delivery.sidecar(plan.sidecar)
    # As `Delivery.rendered` does, in two phases.
    with phase("render"):
        samples = render_full_size(photo.samples, recipe.as_tensor(), out=photo.samples)
    with phase("encode"):
        write_photo(
            plan.output(source.suffix), samples, profile=photo.icc, exif=photo.exif, xmp=photo.xmp, quality=JPEG_QUALITY
        )
    return seconds


def _peak_rss_mib() -> float:
    # Kilobytes on Linux, bytes on macOS: getrusage(2) of each.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
