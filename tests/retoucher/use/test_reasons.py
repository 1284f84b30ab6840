"""Reasons are what was measured, and claim nothing that the numbers do not say."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.retoucher.domain.procedural import noise, scene
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, SLIDER_NAMES, slider_index
from vernissage.retoucher.domain.statistics import STATISTIC_NAMES, photo_statistics
from vernissage.retoucher.use.reasons import GAUGES, MEASURED_EDGE, reason_for

TYPICAL = dict.fromkeys(STATISTIC_NAMES, 0.0) | {
    "luma_p05": 0.15, "luma_p50": 0.41, "luma_p95": 0.76, "cast_a": -3.0, "cast_b": 10.0, "saturation_mean": 0.18,
    "sharpness": 0.18, "noise": 0.02,
}  # fmt: skip


def test_there_is_a_gauge_for_every_slider() -> None:
    assert set(GAUGES) == set(SLIDER_NAMES)
    for gauge in GAUGES.values():
        low, high = gauge.typical
        assert low < gauge.measure(TYPICAL) < high


def test_a_dark_picture_is_a_reason_for_light_with_its_numbers() -> None:
    dark = TYPICAL | {"luma_p50": 0.184}
    reason = reason_for("exposure", 0.3, dark, TYPICAL | {"clipped_high": 0.0123})
    assert reason.supports
    assert reason.text == "The picture was dark: median luma 0.18, typical 0.33 to 0.50."
    assert reason.effect == "Median luma 0.18 -> 0.41; pixels blown out 0.0 % -> 1.2 %."
    assert (reason.before, reason.after, reason.typical) == (0.184, 0.41, (0.33, 0.50))
    without_loss = reason_for("exposure", 0.3, dark, TYPICAL)
    assert without_loss.effect == "Median luma 0.18 -> 0.41; 0 % of the pixels blown out, as before."


def test_the_same_picture_is_no_reason_for_less_light() -> None:
    reason = reason_for("exposure", -0.3, TYPICAL | {"luma_p50": 0.18}, TYPICAL)
    assert not reason.supports
    assert "below the typical 0.33 to 0.50 and did not ask for it" in reason.text
    assert reason.text.endswith("the agent judged by the whole picture.")


def test_a_typical_picture_is_a_reason_for_neither() -> None:
    for change in (0.1, -0.1):
        reason = reason_for("contrast", change, TYPICAL, TYPICAL)
        assert not reason.supports
        assert reason.text == "Tonal range 0.61 was typical (0.47 to 0.72); the agent judged by the whole picture."


def test_noise_asks_for_smoothing_and_not_for_less_of_it() -> None:
    noisy, clean = TYPICAL | {"noise": 0.05}, TYPICAL | {"noise": 0.002}
    assert reason_for("denoise", 0.1, noisy, TYPICAL).supports
    assert not reason_for("denoise", -0.1, noisy, TYPICAL).supports
    assert reason_for("denoise", -0.1, clean, TYPICAL).supports


@given(
    st.sampled_from(SLIDER_NAMES),
    st.sampled_from([0.1, -0.3]),
    st.fixed_dictionaries({name: st.floats(-0.5, 40) for name in STATISTIC_NAMES}),
)
def test_a_claim_never_contradicts_its_numbers(slider: str, change: float, before: dict[str, float]) -> None:
    gauge, reason = GAUGES[slider], reason_for(slider, change, before, before)
    value, low, high = (float(number) for number in re.findall(r"-?\d+\.\d+", reason.text))
    assert (low, high) == gauge.typical
    wanted_more = (change > 0) == gauge.raises
    if reason.supports:
        assert value < low if wanted_more else value > high
        assert (gauge.below if wanted_more else gauge.above) in reason.text
    elif "did not ask" in reason.text:
        assert value > high if wanted_more else value < low
        assert (" above " if wanted_more else " below ") in reason.text
    else:
        assert low <= value <= high
        assert "was typical" in reason.text


def test_shown_and_compared_numbers_are_the_same() -> None:
    """0.3299 is shown as 0.33, which is not below 0.33."""
    assert not reason_for("exposure", 0.1, TYPICAL | {"luma_p50": 0.3299}, TYPICAL).supports


@pytest.mark.parametrize("slider", SLIDER_NAMES)
def test_every_gauge_follows_its_slider(slider: str) -> None:
    """Turning a slider up moves its statistic the way that the gauge says, on a picture that leaves room for it."""
    picture = 0.2 + 0.5 * scene(96, MEASURED_EDGE, 3) + 0.06 * (noise(1, 96, MEASURED_EDGE) - 0.5)
    settings = torch.zeros(2, SLIDER_COUNT)
    settings[1, slider_index(slider)] = 0.3
    before, after = photo_statistics(render(picture.clamp(0, 1).expand(2, -1, -1, -1), settings))
    gauge = GAUGES[slider]
    assert (gauge.measure(after) > gauge.measure(before)) == gauge.raises
