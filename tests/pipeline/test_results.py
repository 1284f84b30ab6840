"""Results: baselines stand from the strongest down, what is missing is a dash, and no name is taken for markup."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from vernissage.pipeline.results import results_table, results_text, strongest_baseline


def interval(mean: float, spread: float = 0.5) -> dict[str, float]:
    return {"mean": mean, "low": mean - spread, "high": mean + spread}


@pytest.fixture
def metrics() -> dict[str, Any]:
    return {
        "system": "retoucher",
        "rows": {
            "no edit": {"psnr": interval(20.0), "delta_e": interval(9.0), "improved": 0.0},
            "greedy [one step]": {"psnr": interval(22.25), "delta_e": interval(8.0), "improved": 0.625},
            "gray-world": {"psnr": {"mean": float("nan")}, "delta_e": interval(7.0)},
            "retoucher": {"psnr": interval(24.0), "delta_e": interval(6.0), "improved": 0.875, "wall_time": 3.25},
            "clahe": {"psnr": 17.5, "steps": 1},
        },
        "headline": {"psnr_gain": interval(4.0), "verdict": "wins"},
        "robustness": {"passed": 11, "cases": 12},
        "juror": {"pairs_right": 0.953, "per_fault": {"blur": 0.9}},
    }


def shown(metrics: dict[str, Any], width: int = 120) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(results_table(metrics))
    return capture.get()


def test_ours_then_the_baselines_from_the_strongest_down(metrics: dict[str, Any]) -> None:
    lines = results_text(metrics).splitlines()
    assert lines[0] == "retoucher on the test split"
    names = ["retoucher", "greedy [one step]", "no edit", "clahe", "gray-world"]
    assert [next(name for name in names if line.startswith(name)) for line in lines[2:7]] == names
    assert "strongest baseline: greedy [one step]" in lines


def test_the_leading_metric_can_be_named_and_may_be_better_when_less(metrics: dict[str, Any]) -> None:
    assert strongest_baseline(metrics) == "greedy [one step]"
    assert strongest_baseline(metrics | {"primary": "delta_e"}) == "gray-world"


def test_one_line_per_method_in_a_log(metrics: dict[str, Any]) -> None:
    text = results_text(metrics)
    greedy = next(line for line in text.splitlines() if line.startswith("greedy"))
    assert "22.25 [21.75, 22.75]" in greedy
    assert "62 %" in greedy
    clahe = next(line for line in text.splitlines() if line.startswith("clahe"))
    assert clahe.split() == ["clahe", "17.50", "–", "–", "1.0", "–"]
    assert "PSNR [dB] ↑" in text
    assert "wall time" in text


def test_sections_beside_the_rows_are_summed_up(metrics: dict[str, Any]) -> None:
    text = results_text(metrics)
    assert "robustness: 11 of 12 cases passed" in text
    assert "headline: psnr gain 4, verdict wins" in text
    assert "juror: pairs right 0.953, per fault (blur 0.9)" in text


def test_the_table_says_the_same_and_fits_a_terminal(metrics: dict[str, Any]) -> None:
    table = shown(metrics, width=100)
    for words in ("greedy [one step]", "[dB] ↑", "22.25", "21.75…22.75", "11 of 12 cases"):
        assert words in table
    assert max(map(len, table.splitlines())) <= 100


@pytest.mark.parametrize("metrics", [{}, {"rows": {}}, {"system": "x", "rows": {"x": {}}}, {"rows": {"a": None}}])
def test_unfinished_metrics_do_not_crash(metrics: dict[str, Any]) -> None:
    assert results_text(metrics)
    assert shown(metrics)
    assert strongest_baseline(metrics) is None
