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


def test_what_knows_the_original_is_no_baseline(metrics: dict[str, Any]) -> None:
    metrics["rows"]["oracle"] = {"psnr": interval(40.0), "n": 48}
    assert strongest_baseline(metrics) == "oracle"
    metrics["upper_bounds"] = ["oracle"]
    assert strongest_baseline(metrics) == "greedy [one step]"
    text = results_text(metrics)
    assert "so an upper bound and no rival: oracle" in text
    assert "strongest baseline: greedy [one step]" in text
    # What was found pair by pair counts more than means over different pairs.
    metrics["strongest"] = "clahe"
    assert strongest_baseline(metrics) == "clahe"
    metrics["strongest"] = "unheard of"
    assert strongest_baseline(metrics) == "greedy [one step]"


@pytest.mark.parametrize(
    ("low", "high", "beats", "verdict"),
    [
        (0.1, 0.5, True, "search beats the policy: "),
        (-0.1, 0.5, False, "search does not beat the policy: "),
        (-0.5, -0.1, False, "the policy beats search: "),
    ],
)
def test_the_table_says_whether_search_beats_the_policy(
    metrics: dict[str, Any], low: float, high: float, beats: bool, verdict: str
) -> None:
    lead = {"mean": (low + high) / 2, "low": low, "high": high}
    colour = {"mean": -0.25, "low": -0.5, "high": 0.0}
    found = {"search": "beam", "n": 48, "psnr": lead, "delta_e": colour, "beats": beats}
    line = next(line for line in results_text(metrics | {"search_beats_policy": found}).splitlines() if "beam" in line)
    assert line == (
        f"{verdict}beam minus policy {(low + high) / 2:+.2f} [{low:+.2f}, {high:+.2f}] dB, "
        "ΔE00 -0.25 [-0.50, +0.00], on the same 48 pairs"
    )
    assert "beam" not in results_text(metrics | {"search_beats_policy": None})


def test_rows_on_a_part_of_the_pairs_are_pointed_out(metrics: dict[str, Any]) -> None:
    for row in metrics["rows"].values():
        row["n"] = 336
    assert "fewer pairs" not in results_text(metrics)
    metrics["rows"]["clahe"]["n"] = 48
    text = results_text(metrics)
    assert "fewer pairs" in text
    assert next(line for line in text.splitlines() if line.startswith("clahe")).split()[-2] == "48"


def test_many_columns_and_long_names_fit_a_terminal(metrics: dict[str, Any]) -> None:
    names = ("unchanged", "worsened", "juror_gain", "clean_delta_e", "steps", "ssim")
    for row in metrics["rows"].values():
        row.update({name: interval(0.61) for name in names} | {"hack_gap": 0.12, "n": 336})
    metrics["rows"]["an upper bound with a long name"] = metrics["rows"]["clahe"]
    lines = shown(metrics, width=100).splitlines()
    assert max(map(len, lines)) <= 100
    # Nothing is cut short: the only dots stand between the ends of an interval.
    assert not [line for line in lines if "… " in line or line.rstrip().endswith("…")]
    assert sum(line.split()[:1] == ["clahe"] for line in lines) == 2
    text = "\n".join(lines)
    assert text.count("retoucher on the test split") == text.count("strongest baseline") == 1
    for title in ("hack", "pairs", "clean", "juror", "SSIM", "wall"):
        assert title in text


def test_order_title_and_notes_can_be_given(metrics: dict[str, Any]) -> None:
    order = ["clahe", "retoucher", "gray-world"]
    lines = results_text(
        metrics | {"order": [*order, "gone"], "title": "by fault", "notes": ["a preview"]}
    ).splitlines()
    assert lines[0] == "by fault"
    assert [next(name for name in order if line.startswith(name)) for line in lines[2:5]] == order
    assert lines[5] == "strongest baseline: greedy [one step]"
    assert lines[-1] == "a preview"
