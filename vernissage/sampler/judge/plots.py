"""Figures of the benchmark, PNG of 1200 pixels: frontier, attribution, prices, experts, training, sheets of samples.

They draw what tables say, in the house's colours. Without metadata the same table gives the same bytes.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from vernissage.core.errors import BadInput
from vernissage.core.files import atomic_write_bytes
from vernissage.sampler.domain.unet import samples_to_levels
from vernissage.sampler.judge.arms import LADDER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from vernissage.sampler.domain.denoiser import Denoiser
    from vernissage.sampler.judge.arms import Requests, SamplerArm

_DOTS_PER_INCH = 120
_WIDTH = 10.0
_INK, _SOFT, _FAINT, _PAPER = "#1d1d1b", "#5f5d58", "#b9b4a9", 235
_ACCENT, _GOOD, _BAD = "#c0601a", "#1f6b3a", "#a3231f"
#: One hue for each role; several arms of a role go from dark to light.
_COLOURS: Mapping[str, tuple[str, ...]] = {
    "stock": ("#46627f", "#7fa0bf", "#5b8f95", "#a5c6c9"),
    "grid": (_INK,),
    "fitted sigmas": ("#d9a441",),
    "fitted coefficients": ("#c0601a",),
    "per guidance": ("#d9846b",),
    "less guidance": ("#a3231f",),
    "router, state shuffled": ("#9ac07f",),
    "router": (_GOOD,),
    "consistency": ("#8a4a9e",),
    "heun": ("#8c7a5b",),
    "static": ("#6b6bb3",),
    "context": ("#8f8f8f",),
    "other": ("#b36b94", "#4f9fb3", "#7d7d3c"),
}
_MARKERS = ("o", "s", "^", "D", "v", "P")
_STEP_COLUMNS = ("update", "step", "epoch", "number", "decisions")
_CURVES_PER_ROW = 4


def png(figure: Figure) -> bytes:
    """A figure as a picture of 1200 pixels across."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, wholly or not at all."""
    atomic_write_bytes(path, png(figure))


# --- tables -----------------------------------------------------------------------------------------------------------


def frontier_figure(rows: Sequence[Mapping[str, Any]], teacher_fd: float | None = None) -> Figure:
    """Error and Frechet distance against evaluations, a colour for each arm, with 95 % bands.

    Args:
        rows: The benchmark's rows.
        teacher_fd: Frechet distance of the teacher's own endpoints, a line.
    """
    figure = Figure(figsize=(_WIDTH, 5.6), layout="constrained")
    error, distance = figure.subplots(1, 2)
    for axes, title in ((error, "Paired error to the teacher, mean"), (distance, "Fréchet distance to real pictures")):
        _bare(axes, title)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("network evaluations per sample, mean")
    styles = _styles(rows)
    for (arm, role), (colour, marker) in styles.items():
        own = sorted((row for row in rows if row["arm"] == arm), key=lambda row: float(row["nfe"]))
        thick = 2.0 if role in LADDER[1:] else 1.2
        line = {"color": colour, "marker": marker, "markersize": 4.5, "linewidth": thick, "label": arm}
        # Fresh noise has no endpoint of its own to be near to.
        if role != "context":
            _band(error, own, "error_mean", "error_mean_low", "error_mean_high", line)
        _band(distance, [{**row, **_fd_ends(row)} for row in own], "fd", "fd_low", "fd_high", line)
    if teacher_fd is not None and teacher_fd > 0:
        distance.axhline(teacher_fd, color=_SOFT, linestyle="--", linewidth=1)
        distance.annotate(
            "the teacher itself", (0.01, teacher_fd), xycoords=("axes fraction", "data"), xytext=(0, 2),
            textcoords="offset points", ha="left", va="bottom", fontsize=8, color=_SOFT,
        )  # fmt: skip
    for axes in (error, distance):
        _plain_log(axes)
    handles = {
        label: handle
        for axes in (error, distance)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if handles:
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=4, fontsize=8.5, frameon=False
        )
    return figure


def attribution_figure(attribution: Mapping[str, Any]) -> Figure | None:
    """Evaluations at the tuned grid's quality, step by step; none where nothing was attributed."""
    rows = [row for row in attribution["rows"] if row["nfe"] is not None and row["ratio"] is not None]
    reference = attribution["reference"]
    if not rows or reference is None:
        return None
    figure = Figure(figsize=(_WIDTH, 1.2 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    _bare(axes, f"Evaluations at the quality of the tuned grid with {reference['budget']:g} network calls")
    colours = [_colours_of(row["role"])[0] for row in rows]
    places = np.arange(len(rows))[::-1]
    nfe = np.array([row["nfe"] for row in rows], dtype=np.float64)
    axes.barh(places, nfe, color=colours, height=0.62)
    for place, row, value in zip(places, rows, nfe, strict=True):
        text = f"{value:.2f}"
        if row["step"] is not None:
            text += f"   {100 * (row['step'] - 1):+.1f} %"
            low, high = (row["step_low"], row["step_high"])
            if low is not None and high is not None:
                text += f" [{100 * (low - 1):+.1f}, {100 * (high - 1):+.1f}]"
        axes.annotate(text, (value, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5)
    axes.set_yticks(places, [row["role"] for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1.32 * float(nfe.max()))
    axes.set_xlabel("network evaluations; behind each bar: change from the step before, over all reference budgets")
    return figure


def dial_figure(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """What a price buys: evaluations, and value over the static program; none without prices."""
    if not rows:
        return None
    figure = Figure(figsize=(_WIDTH, 4.0), layout="constrained")
    spent, gained = figure.subplots(1, 2)
    _bare(spent, "Evaluations at each price")
    _bare(gained, "Value over the static program's")
    for (arm, _), (colour, marker) in _styles(rows).items():
        own = sorted((row for row in rows if row["arm"] == arm), key=lambda row: float(row["price"]))
        line = {"color": colour, "marker": marker, "markersize": 4.5, "label": arm}
        spent.plot([row["price"] for row in own], [row["nfe"] for row in own], **line)
        apart = [row for row in own if row["difference"] is not None]
        if apart:
            prices = [row["price"] for row in apart]
            gained.plot(prices, [row["difference"] for row in apart], **line)
            ends = [[row[f"difference_{end}"] for row in apart] for end in ("low", "high")]
            gained.fill_between(prices, *ends, color=colour, alpha=0.15, linewidth=0)
    gained.axhline(0, color=_SOFT, linestyle="--", linewidth=1)
    for axes in (spent, gained):
        if min(row["price"] for row in rows) > 0:
            axes.set_xscale("log")
            _plain_log(axes, y=False)
        axes.set_xlabel("price of one network evaluation")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8.5, frameon=False)
    return figure


def usage_figure(usage: Mapping[str, Sequence[Mapping[str, Any]]], experts: Sequence[str]) -> Figure | None:
    """Which expert acts where: by noise level, class and price.

    Args:
        usage: ``sigma``, ``class``, ``price`` to rows with the shares of the experts; other tables are left out.
        experts: Names of the experts, as rows have them.

    Returns:
        The figure; none where there is no usage.
    """
    tables = [(name, list(usage[name])) for name in ("sigma", "class", "price") if usage.get(name)]
    if not tables or not experts:
        return None
    figure = Figure(figsize=(_WIDTH, 1.7 + 0.34 * len(experts)), layout="constrained")
    panels = figure.subplots(1, len(tables), width_ratios=[max(3, len(rows)) for _, rows in tables], squeeze=False)[0]
    titles = {"sigma": "by noise level", "class": "by class", "price": "by price"}
    shown = None
    for number, (axes, (name, rows)) in enumerate(zip(panels, tables, strict=True)):
        shares = np.array([[float(row.get(expert) or 0.0) for row in rows] for expert in experts])
        shown = axes.imshow(shares, cmap="YlOrBr", vmin=0, vmax=1, aspect="auto")
        axes.set_title(titles[name], fontsize=10, loc="left")
        axes.set_xticks(range(len(rows)), [_bin_name(name, row) for row in rows], fontsize=8)
        axes.set_yticks(range(len(experts)), experts if not number else [""] * len(experts), fontsize=8.5)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for row, column in np.argwhere(shares >= 0.005):
            share = shares[row, column]
            ink = "white" if share > 0.6 else _INK
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=ink)
    if shown is not None:
        figure.colorbar(shown, ax=list(panels), label="share of decisions", fraction=0.03, pad=0.01)
    return figure


def curves_figure(name: str, table: pd.DataFrame) -> Figure | None:
    """Training curves: a small panel for every column of numbers against the first column that counts steps.

    Returns:
        The figure; none where the table has no such column or one row only.
    """
    along = next((column for column in _STEP_COLUMNS if column in table.columns), None)
    if along is None or table[along].nunique() < 2:
        return None
    numbers = table.select_dtypes("number").drop(columns=[along])
    shown = [column for column in numbers if numbers[column].notna().sum() > 1 and numbers[column].nunique() > 1]
    if not shown:
        return None
    columns = min(_CURVES_PER_ROW, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(_WIDTH, 0.5 + 1.9 * rows), layout="constrained")
    figure.suptitle(name, fontsize=11, x=0.01, ha="left")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, column in zip(panels, shown, strict=False):
        known = table[[along, column]].dropna()
        _bare(axes, str(column).replace("_", " "))
        axes.title.set_fontsize(9)
        axes.plot(known[along], known[column], color=_ACCENT, linewidth=1.4)
        axes.tick_params(labelsize=7.5)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_xlabel(along, fontsize=8)
    for axes in panels[len(shown) :]:
        axes.remove()
    return figure


# --- samples ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SampleRow:
    """One row of a sheet.

    Attributes:
        caption: Whose samples these are.
        note: What they took, in a second line.
        samples: (N, C, H, W) in [-1, 1].
    """

    caption: str
    note: str
    samples: torch.Tensor


def sample_rows(
    arms: Sequence[tuple[SamplerArm, float]], denoiser: Denoiser, requests: Requests, teacher_nfe: float | None = None
) -> list[SampleRow]:
    """What the teacher and some arms make of the same requests.

    Args:
        arms: Arms with the budgets to show, in the order of the rows.
        denoiser: The network.
        requests: One for each column.
        teacher_nfe: Evaluations of the teacher, for its caption.
    """
    rows = [SampleRow("teacher", "" if teacher_nfe is None else f"{teacher_nfe:g} NFE", requests.endpoints)]
    for arm, budget in arms:
        sampled = arm.sample(denoiser, requests, budget)
        nfe = float(sampled.evaluations.double().mean())
        calls = f"{budget:g} calls, " if arm.dial == "calls" and not math.isclose(nfe, budget) else ""
        rows.append(SampleRow(arm.name, f"{calls}{nfe:.3g} NFE", sampled.samples))
    return rows


def spread_requests(requests: Requests, count: int) -> Requests:
    """Requests for a sheet, always the same ones: classes in turn, so that it shows all of them.

    Raises:
        BadInput: If there are none.
    """
    if not len(requests) or count < 1:
        raise BadInput(f"sheet: {count} of {len(requests)} requests, expected at least one")
    labels = requests.labels.cpu().numpy()
    # The n-th request of each class stands in the n-th round.
    rounds = pd.Series(labels).groupby(labels).cumcount().to_numpy()
    order = np.lexsort((labels, rounds))[:count]
    return requests.rows(torch.from_numpy(np.ascontiguousarray(order)))


def samples_figure(rows: Sequence[SampleRow], title: str = "", heads: Sequence[str] = ()) -> Figure:
    """A sheet of samples: a row for each arm, a column for each request, enlarged without smoothing.

    Args:
        rows: Batches of one size; what is not a number shows as paper.
        title: Above all.
        heads: Above each column.

    Raises:
        BadInput: If there is nothing to show.
    """
    if not rows or not len(rows[0].samples):
        raise BadInput("sheet: no samples, expected at least one row with one sample")
    _, channels, height, width = rows[0].samples.shape
    if channels not in {1, 3}:
        raise BadInput(f"sheet: samples of {channels} channels, expected pictures with 1 or 3; decode latents first")
    columns, gap = len(rows[0].samples), max(1, width // 12)
    strips = [_strip(row.samples, gap) for row in rows]
    left = 1.9
    cell = (_WIDTH - left - 0.1) / columns
    tall = cell * height / width
    top = 0.15 + 0.3 * bool(title) + 0.25 * bool(heads)
    whole = top + tall * len(rows) + 0.1
    figure = Figure(figsize=(_WIDTH, whole))
    for number, (row, strip) in enumerate(zip(rows, strips, strict=True)):
        bottom = (whole - top - tall * (number + 1)) / whole
        axes = figure.add_axes((left / _WIDTH, bottom, cell * columns / _WIDTH, tall / whole))
        axes.imshow(strip, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        middle = bottom + tall / 2 / whole
        lift = 0.075 / whole if row.note else 0.0
        edge = (left - 0.12) / _WIDTH
        figure.text(edge, middle + lift, row.caption, ha="right", va="center", fontsize=9, color=_INK)
        figure.text(edge, middle - lift, row.note, ha="right", va="center", fontsize=7.5, color=_SOFT)
    for number, head in enumerate(heads[:columns]):
        across, up = (left + cell * (number + 0.5)) / _WIDTH, (whole - top + 0.12) / whole
        figure.text(across, up, head, ha="center", va="center", fontsize=8, color=_SOFT)
    if title:
        figure.text(0.1 / _WIDTH, 1 - 0.2 / whole, title, ha="left", va="center", fontsize=11, color=_INK)
    return figure


def request_heads(requests: Requests, class_names: Sequence[str] = ()) -> list[str]:
    """What each column of a sheet was asked for: class and guidance scale."""
    heads = []
    for label, scale in zip(requests.labels.tolist(), requests.scales.tolist(), strict=True):
        name = class_names[label] if 0 <= label < len(class_names) else str(label)
        heads.append(name if scale == 1 else f"{name} ×{scale:g}")
    return heads


def save_sheets(
    folder: Path,
    arms: Sequence[tuple[SamplerArm, float]],
    denoiser: Denoiser,
    requests: Requests,
    *,
    columns: int = 16,
    teacher_nfe: float | None = None,
    class_names: Sequence[str] = (),
    pictures: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> None:
    """Write ``samples.png``, requests of all classes in turn, and ``worst.png``, those where the last arm errs most.

    Args:
        folder: Is made.
        arms: Arms with the budgets to show, in the order of the rows.
        denoiser: The network.
        requests: Where they are taken from, always the same ones.
        columns: Requests on each sheet.
        teacher_nfe: Evaluations of the teacher.
        class_names: Names of the classes; numbers where left out.
        pictures: Makes pictures of samples, such as the decoder of latents; samples are pictures where left out.

    Raises:
        BadInput: If there are no requests, or samples are not pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = spread_requests(requests, columns)
    sheets = {"samples": (chosen, "The same noise for all: classes in turn, none picked")}
    if arms:
        arm, budget = arms[-1]
        samples = arm.sample(denoiser, requests, budget).samples
        errors = (samples - requests.endpoints).square().flatten(1).mean(dim=1).nan_to_num(nan=math.inf)
        worst = errors.argsort(descending=True, stable=True)[:columns].cpu()
        sheets["worst"] = (requests.rows(worst), f"Where {arm.name} with {budget:g} is furthest from the teacher")
    for name, (some, title) in sheets.items():
        rows = sample_rows(arms, denoiser, some, teacher_nfe)
        if pictures is not None:
            rows = [replace(row, samples=pictures(row.samples)) for row in rows]
        save_figure(samples_figure(rows, title, request_heads(some, class_names)), folder / f"{name}.png")


def _strip(samples: torch.Tensor, gap: int) -> np.ndarray:
    """(H + 2 gap, columns (W + gap), 3) uint8."""
    finite = samples.isfinite()
    levels = torch.where(finite, samples_to_levels(torch.where(finite, samples, 0.0).float()), _PAPER).cpu().numpy()
    count, _, height, width = levels.shape
    strip = np.full((height + 2 * gap, count * (width + 2 * gap), 3), 255, dtype=np.uint8)
    for number, picture in enumerate(levels):
        left = number * (width + 2 * gap) + gap
        strip[gap : gap + height, left : left + width] = picture.transpose(1, 2, 0)
    return strip


# --- drawing ----------------------------------------------------------------------------------------------------------


def _bare(axes: Axes, title: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=8.5)


def _colours_of(role: str) -> tuple[str, ...]:
    return _COLOURS.get(role, _COLOURS["other"])


def _styles(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], tuple[str, str]]:
    """(arm, role) to colour and marker, bars first, ours above them."""
    arms = dict.fromkeys((str(row["arm"]), str(row["role"])) for row in rows)
    order = ["context", "other", "heun", "static", *LADDER]
    ranked = sorted(arms, key=lambda key: order.index(key[1]) if key[1] in order else 0)
    styles: dict[tuple[str, str], tuple[str, str]] = {}
    seen: dict[str, int] = {}
    for arm, role in ranked:
        number = seen[role] = seen.get(role, -1) + 1
        colours = _colours_of(role)
        styles[arm, role] = (colours[number % len(colours)], _MARKERS[number % len(_MARKERS)])
    return styles


def _band(
    axes: Axes, rows: Sequence[Mapping[str, Any]], value: str, low: str, high: str, line: Mapping[str, Any]
) -> None:
    known = [row for row in rows if row.get(value) is not None and row[value] > 0]
    if not known:
        return
    nfe = [row["nfe"] for row in known]
    axes.plot(nfe, [row[value] for row in known], **line)
    banded = [row for row in known if row.get(low) is not None and row.get(high) is not None]
    if len(banded) > 1:
        lows = [max(row[low], row[value] / 10) for row in banded]  # a log axis has no room for 0
        axes.fill_between(
            [row["nfe"] for row in banded], lows, [row[high] for row in banded],
            color=line["color"], alpha=0.1, linewidth=0,
        )  # fmt: skip


def _fd_ends(row: Mapping[str, Any]) -> dict[str, float | None]:
    """95 % band of the pooled distance, from how much it varies between noise seeds."""
    from scipy.stats import t

    spread, seeds, value = row.get("fd_seed_sd"), len(row.get("fd_seeds") or ()), row.get("fd")
    if value is None or spread is None or seeds < 2:
        return {"fd_low": None, "fd_high": None}
    half = float(t.ppf(0.975, seeds - 1)) * spread / math.sqrt(seeds)
    return {"fd_low": value - half, "fd_high": value + half}


def _plain_log(axes: Axes, *, y: bool = True) -> None:
    """Numbers as people write them on logarithmic axes."""
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for axis in (axes.xaxis, axes.yaxis) if y else (axes.xaxis,):
        axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(plain)
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, color=_FAINT, alpha=0.3, linewidth=0.6)


def _bin_name(table: str, row: Mapping[str, Any]) -> str:
    if table == "sigma":
        return f"{math.sqrt(float(row['low']) * float(row['high'])):.2g}"
    value = row[table]
    return f"{value:.2g}" if isinstance(value, float) else str(value)
