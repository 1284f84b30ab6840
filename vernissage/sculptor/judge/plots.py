"""Figures of the sculptor's benchmark, PNG of 1200 pixels, and sheets of what was built.

They draw what tables say. Without metadata the same table gives the same bytes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from PIL import Image

from vernissage.core.files import atomic_path, atomic_write_bytes
from vernissage.sculptor.domain.anatomy import bounding_box
from vernissage.sculptor.domain.blocks import SPECIES_PALETTES, roles_to_structure
from vernissage.sculptor.domain.pictures import PAPER, picture, picture_sheet, role_picture
from vernissage.sculptor.domain.trunk import solid_mask
from vernissage.sculptor.judge.arms import HELD_OUT, OURS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

    from vernissage.sculptor.judge.results import Shown

_DOTS_PER_INCH, _WIDTH = 120, 10.0
_INK, _SOFT = "#1d1d1b", "#5f5d58"
_COLOURS = ("#1f6b3a", "#c0601a", "#46627f", "#8a4a9e", "#d9a441", "#a3231f")
_OURS, _THEIRS, _DATA = "#1f6b3a", "#b9b4a9", "#7a5a3a"
_EDGE = 192
#: What is drawn along epochs and steps.
ANATOMY = {
    "connectivity": "connectivity",
    "whole": "whole",
    "sound": "sound",
    "one_trunk": "one trunk",
    "leaf_survival": "leaves that survive",
    "cast_success": "all wood one standing part",
}
_LOSSES = {"masked_accuracy": "accuracy, masked blocks", "legacy_accuracy": "legacy accuracy, all voxels"}


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, wholly or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    atomic_write_bytes(path, buffer.getvalue())


# --- tables -----------------------------------------------------------------------------------------------------------


def epochs_figure(epochs: pd.DataFrame) -> Figure | None:
    """Anatomy of what was built at each look of the training, beside the accuracies of the network.

    Returns:
        The figure; none where there are fewer than two looks.
    """
    if "epoch" not in epochs or len(epochs) < 2:
        return None
    figure = Figure(figsize=(_WIDTH, 4.6), layout="constrained")
    built, seen = figure.subplots(1, 2)
    _lines(built, epochs, "epoch", ANATOMY, "What it builds")
    _lines(seen, epochs, "epoch", _LOSSES, "What the network gets right")
    if "kept" in epochs:
        for epoch in epochs.loc[epochs["kept"].astype(str) == "True", "epoch"]:
            built.axvline(epoch, color=_SOFT, linestyle=":", linewidth=1)
            built.annotate("kept", (epoch, 0.01), xytext=(3, 0), textcoords="offset points", fontsize=8, color=_SOFT)
    return figure


def steps_figure(steps: pd.DataFrame, reference: dict[str, float]) -> Figure | None:
    """Quality over the number of steps, with intervals, and the time that they take.

    Args:
        steps: As of `steps_table`.
        reference: Means of the held-out structures, as lines.

    Returns:
        The figure; none where there are fewer than two numbers of steps.
    """
    if len(steps) < 2:
        return None
    figure = Figure(figsize=(_WIDTH, 4.6), layout="constrained")
    quality, spent = figure.subplots(1, 2)
    shown = {"connectivity": "connectivity", "whole": "whole", "sound": "sound", "leaf_survival": "leaves that survive"}
    shown |= {"macro_adherence": "adherence to the prompt"}
    _lines(quality, steps, "steps", shown, "Quality; dashed: held-out structures", banded=True)
    for (name, _), colour in zip(shown.items(), _COLOURS, strict=False):
        if name in reference:
            quality.axhline(reference[name], color=colour, linestyle="--", linewidth=0.8, alpha=0.6)
    _lines(spent, steps, "steps", {"ms": "milliseconds per structure"}, "Time, milliseconds per structure", share=False)
    spent.set_ylim(bottom=0)
    for axes in (quality, spent):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(steps["steps"].tolist()))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("steps")
    return figure


def arms_figure(rows: pd.DataFrame, measures: dict[str, str]) -> Figure | None:
    """Every arm's means with 95 % intervals, a panel for each measure.

    Args:
        rows: Of a summary, one size; the first row is on top.
        measures: Column to title.
    """
    if rows.empty:
        return None
    figure = Figure(figsize=(_WIDTH, 1.2 + 0.26 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(measures), squeeze=False)[0]
    places = np.arange(len(rows))[::-1]
    colours = [_OURS if arm == OURS else _DATA if arm == HELD_OUT else _SOFT for arm in rows["arm"]]
    for number, (axes, (column, title)) in enumerate(zip(panels, measures.items(), strict=True)):
        _bare(axes, title)
        means = rows[column].to_numpy(np.float64)
        low, high = (rows.get(f"{column}_{end}", rows[column]).to_numpy(np.float64) for end in ("low", "high"))
        for place, mean, left, right, colour in zip(places, means, low, high, colours, strict=True):
            axes.plot([left, right], [place, place], color=colour, linewidth=1.6, alpha=0.55)
            axes.plot([mean], [place], "o", color=colour, markersize=4.5)
        axes.set_yticks(places, rows["arm"] if not number else [""] * len(rows), fontsize=8)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=_THEIRS, alpha=0.35, linewidth=0.6)
    return figure


def species_figure(species: pd.DataFrame) -> Figure | None:
    """Share of whole structures and adherence of each species, beside the held-out structures' own."""
    ours = species[species["arm"] == OURS] if len(species) else species
    if not len(ours):
        return None
    figure = Figure(figsize=(_WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    names = ours["species"].tolist()
    for axes, (column, title) in zip(
        panels,
        {"whole": "Whole", "sound": "Sound", "adherence": "Adherence to the prompt"}.items(),
        strict=True,
    ):
        _bare(axes, title)
        for arm, shift, colour in ((OURS, 0.2, _OURS), (HELD_OUT, -0.2, _THEIRS)):
            own = species[species["arm"] == arm].set_index("species")[column].reindex(names)
            axes.barh(np.arange(len(names))[::-1] + shift, own, 0.38, color=colour, label=arm)
        axes.set_yticks(np.arange(len(names))[::-1], names if axes is panels[0] else [""] * len(names), fontsize=8)
        axes.set_xlim(0, 1)
    _legend_below(panels[0], 2)
    return figure


def buckets_figure(buckets: pd.DataFrame) -> Figure | None:
    """Accuracy on masked blocks for each bucket of mask ratios, beside the legacy one, which an empty grid has too."""
    if buckets.empty:
        return None
    figure = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    _bare(axes, "Accuracy on test structures, by share of masked voxels")
    places = np.arange(len(buckets))
    axes.bar(places - 0.2, buckets["masked_accuracy"], 0.38, color=_OURS, label="masked blocks")
    axes.bar(places + 0.2, buckets["legacy_accuracy"], 0.38, color=_THEIRS, label="all voxels (legacy)")
    if "air_accuracy" in buckets:
        axes.axhline(buckets["air_accuracy"].iloc[0], color=_INK, linestyle="--", linewidth=1, label="all air (legacy)")
    axes.set_xticks(places, buckets["mask_ratio"], fontsize=8.5)
    axes.set_ylim(0, 1)
    _legend_below(axes, 3)
    return figure


def first_figure(first: pd.DataFrame) -> Figure | None:
    """Loss of what comes first, over its updates; none where nothing came first."""
    if len(first) < 2:
        return None
    figure = Figure(figsize=(_WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    _lines(axes, first, "update", {"loss": "loss"}, "Loss of what is decided first, nats", share=False)
    return figure


def _lines(
    axes: Axes,
    rows: pd.DataFrame,
    along: str,
    columns: dict[str, str],
    title: str,
    *,
    share: bool = True,
    banded: bool = False,
) -> None:
    _bare(axes, title)
    axes.set_xlabel(along)
    for (column, label), colour in zip(columns.items(), _COLOURS, strict=False):
        if column not in rows:
            continue
        axes.plot(rows[along], rows[column], color=colour, marker="o", markersize=3.5, linewidth=1.5, label=label)
        if banded and f"{column}_low" in rows:
            ends = (rows[f"{column}_{end}"].to_numpy(np.float64) for end in ("low", "high"))
            axes.fill_between(rows[along], *ends, color=colour, alpha=0.1, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if share:
        axes.set_ylim(0, 1.02)
        _legend_below(axes, 3)


def _legend_below(axes: Axes, columns: int) -> None:
    axes.legend(fontsize=8.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=columns)


def _bare(axes: Axes, title: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=8.5)


# --- structures -------------------------------------------------------------------------------------------------------


def save_sheet(shown: Sequence[Shown], path: Path, columns: int, *, named: bool = False) -> None:
    """Write a sheet of structures in their blocks' colours.

    Args:
        shown: At least one, row by row.
        path: PNG.
        columns: Structures a row.
        named: Whether captions begin with what a structure belongs to.
    """
    captions = [f"{each.row}: {each.caption}" if named else each.caption for each in shown]
    sheet = picture_sheet([_picture(each) for each in shown], captions, columns, edge=_EDGE)
    with atomic_path(path) as place:
        sheet.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(place, format="PNG")


def _picture(shown: Shown) -> Image.Image:
    grid = shown.grid[bounding_box(solid_mask(shown.grid))]
    if not grid.size:
        return Image.new("RGB", (_EDGE, _EDGE), PAPER)
    palette: Any = SPECIES_PALETTES.get(shown.species or "")
    if palette is None:
        return role_picture(grid, edge=_EDGE, background=None)
    return picture(roles_to_structure(grid, palette), edge=_EDGE, background=None)
