"""Figures show what tables say, at 1200 pixels; sheets show the same requests every time."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadInput
from vernissage.sampler.domain.programs import euler
from vernissage.sampler.judge.arms import Requests, program_arm
from vernissage.sampler.judge.plots import (
    SampleRow,
    attribution_figure,
    curves_figure,
    dial_figure,
    frontier_figure,
    png,
    request_heads,
    sample_rows,
    samples_figure,
    save_sheets,
    spread_requests,
    usage_figure,
)
from vernissage.sampler.prepare.teacher_bank import RequestMix, make_bank

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure


def size(figure: Figure) -> tuple[int, int]:
    return Image.open(io.BytesIO(png(figure))).size


def row(arm: str, role: str, nfe: float, error: float | None = 0.1, fd: float | None = 2.0) -> dict[str, Any]:
    return {
        "arm": arm,
        "role": role,
        "nfe": nfe,
        "error_mean": error,
        "error_mean_low": None if error is None else 0.9 * error,
        "error_mean_high": None if error is None else 1.1 * error,
        "fd": fd,
        "fd_seed_sd": 0.2,
        "fd_seeds": [1.0, 2.0, 3.0],
    }


ROWS = [
    row("stock a", "stock", 4, 0.3),
    row("stock a", "stock", 8, 0.1),
    row("grid", "grid", 4),
    row("grid", "grid", 6, fd=None),
    row("two", "consistency", 2, None),
    row("ancestral", "context", 1000),
]


def test_the_frontier_has_a_line_for_each_arm_and_the_teacher() -> None:
    figure = frontier_figure(ROWS, 1.0)
    error, distance = figure.axes
    assert sorted(line.get_label() for line in error.lines) == ["grid", "stock a"]
    assert len(distance.lines) == 5
    assert len({line.get_color() for line in error.lines}) == 2
    grid = next(line for line in error.lines if line.get_label() == "grid")
    assert grid.get_xdata().tolist() == [4, 6]
    assert size(figure)[0] == 1200
    assert png(frontier_figure(ROWS, 1.0)) == png(figure)


def step(role: str, nfe: float | None, change: float | None = None) -> dict[str, Any]:
    facts = {"role": role, "arm": role, "nfe": nfe, "ratio": nfe, "step": change}
    return facts | {"step_low": change, "step_high": None}


def test_attribution_shows_steps_that_got_there() -> None:
    rows = [step("stock", 9.0), step("grid", 6.0, 0.66), step("consistency", None)]
    figure = attribution_figure({"rows": rows, "reference": {"budget": 6.0}})
    assert figure is not None
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [9.0, 6.0]
    assert axes.texts[1].get_text() == "6.00   -34.0 %"
    assert size(figure)[0] == 1200
    assert attribution_figure({"rows": [], "reference": None}) is None


def test_prices_are_drawn_for_both() -> None:
    rows: list[dict[str, Any]] = []
    for price in (0.01, 0.1):
        none = {"difference": None, "difference_low": None, "difference_high": None}
        rows.append({"arm": "book", "role": "static", "price": price, "nfe": 5.0, **none})
        ends = {"difference": 0.1, "difference_low": 0.0, "difference_high": 0.2}
        rows.append({"arm": "router", "role": "router", "price": price, "nfe": 4.0, **ends})
    figure = dial_figure(rows)
    assert figure is not None
    spent, gained = figure.axes
    assert len(spent.lines) == 2
    assert gained.lines[0].get_label() == "router"
    assert dial_figure([]) is None


def test_the_heat_map_has_a_row_for_each_expert() -> None:
    usage = {
        "sigma": [{"low": 0.01, "high": 1.0, "A": 0.25, "B": 0.75}, {"low": 1.0, "high": 100.0, "A": 1.0}],
        "class": [{"class": 3, "A": 0.5, "B": 0.5}],
        "price": [],
    }
    figure = usage_figure(usage, ("A", "B"))
    assert figure is not None
    shares = figure.axes[0].images[0].get_array()
    assert np.asarray(shares).tolist() == [[0.25, 1.0], [0.75, 0.0]]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0.1", "10"]
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["3"]
    assert usage_figure({}, ("A",)) is None


def test_curves_need_steps() -> None:
    table = pd.DataFrame({"update": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "constant": 1.0, "phase": ["a", "b", "c"]})
    figure = curves_figure("steering", table)
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss"]
    assert curves_figure("x", table.drop(columns="update")) is None
    assert curves_figure("x", table[["update", "phase"]]) is None


# --- samples ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def requests() -> Requests:
    return Requests.of(make_bank(Mixture(), "test", 40, RequestMix.uneven(4, (1.0, 2.0)), check_requests=1))


def test_requests_of_a_sheet_go_through_the_classes(requests: Requests) -> None:
    chosen = spread_requests(requests, 8)
    assert chosen.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert torch.equal(chosen.seeds, spread_requests(requests, 8).seeds)
    assert len(spread_requests(requests, 100)) == 40
    with pytest.raises(BadInput, match="0 of 40"):
        spread_requests(requests, 0)


def test_heads_say_what_was_asked_for(requests: Requests) -> None:
    heads = request_heads(requests, ("nil", "one"))
    for head, label, scale in zip(heads, requests.labels.tolist(), requests.scales.tolist(), strict=True):
        assert head == {0: "nil", 1: "one", 2: "2", 3: "3"}[label] + ("" if scale == 1 else " ×2")


def test_rows_of_a_sheet_say_what_they_took(requests: Requests) -> None:
    arm = program_arm("two steps", {2: euler((3.0, 0.6, 0.0))})
    rows = sample_rows([(arm, 2)], Mixture(), requests, 64)
    assert [(one.caption, one.note) for one in rows] == [
        ("teacher", "64 NFE"),
        ("two steps", f"2 calls, {2 * (requests.scales != 1).double().mean() + 2:.3g} NFE"),
    ]
    assert torch.equal(rows[0].samples, requests.endpoints)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_of_samples_with_gaps(channels: int) -> None:
    samples = torch.zeros(5, channels, 8, 8)
    samples[2] = torch.nan
    figure = samples_figure([SampleRow("a", "", samples), SampleRow("b", "2 NFE", samples)], "Title", list("abcde"))
    assert size(figure)[0] == 1200
    strip = figure.axes[0].images[0].get_array()
    assert strip.shape == (10, 50, 3)
    assert set(np.unique(strip[1:9, 21:29])) == {235}
    with pytest.raises(BadInput, match="no samples"):
        samples_figure([])
    with pytest.raises(BadInput, match="samples of 4 channels"):
        samples_figure([SampleRow("latents", "", torch.zeros(2, 4, 8, 8))])


def test_sheets_are_written(requests: Requests, tmp_path: Path) -> None:
    arm = program_arm("two steps", {2: euler((3.0, 0.6, 0.0))})
    for folder in ("a", "b"):
        save_sheets(tmp_path / folder, [(arm, 2)], Mixture(), requests, columns=6, teacher_nfe=64)
    save_sheets(tmp_path / "c", [(arm, 2)], Mixture(), requests, columns=6, teacher_nfe=64, pictures=torch.neg)
    assert (tmp_path / "c" / "samples.png").read_bytes() != (tmp_path / "a" / "samples.png").read_bytes()
    for name in ("samples.png", "worst.png"):
        picture = (tmp_path / "a" / name).read_bytes()
        assert Image.open(io.BytesIO(picture)).size[0] == 1200
        assert (tmp_path / "b" / name).read_bytes() == picture
