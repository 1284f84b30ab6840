"""Amounts read like a photographer's; equivalents in other programs agree with what our renderer really does."""

from __future__ import annotations

import re

import pytest
import torch

from vernissage.retoucher.domain.amounts import (
    amount_text,
    darktable_text,
    lightroom_amount,
    lightroom_text,
    meaning_of,
)
from vernissage.retoucher.domain.colour import srgb_to_linear
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, SLIDERS, Slider, slider_index


def slider(name: str) -> Slider:
    return SLIDERS[slider_index(name)]


def rendered(name: str, setting: float, *rgb: float) -> torch.Tensor:
    """What one slider makes of one colour, (3,) encoded."""
    settings = torch.zeros(1, SLIDER_COUNT)
    settings[0, slider_index(name)] = setting
    return render(torch.tensor(rgb).view(1, 3, 1, 1), settings).flatten()


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("exposure", 0.35, "+0.70 EV"),
        ("exposure", -1e-9, "0.00 EV"),
        ("temperature", -0.1, "-0.08 EV"),
        ("tint", 0.1, "+0.05 EV"),
        ("contrast", 0.5, "x1.52"),
        ("contrast", -0.5, "x0.66"),
        ("shadows", 0.3, "+0.30"),
        ("denoise", 0.3, "+0.03"),
        ("sharpen", -0.1, "-0.20"),
    ],
)
def test_amounts_are_short_and_in_the_right_unit(name: str, change: float, expected: str) -> None:
    assert amount_text(slider(name), change) == expected


def test_up_and_down_mean_different_things() -> None:
    for one in SLIDERS:
        assert meaning_of(one, 0.1) == one.meaning
        assert meaning_of(one, -0.1) not in ("", one.meaning)


def test_every_slider_has_its_place_in_both_programs() -> None:
    for one in SLIDERS:
        for setting in {one.low, -0.3 if one.low < 0 else 0.1, 0.3, one.high}:
            assert lightroom_text(one, setting).startswith(f"{one.lightroom} ")
            assert darktable_text(one, setting, long_edge=6000).startswith(f"{one.darktable}: ")
            limit = 2 if one.name == "exposure" else 100
            assert abs(lightroom_amount(one, setting)) <= limit


def test_lightroom_takes_exposure_in_ev_and_saturation_as_a_gain() -> None:
    assert lightroom_text(slider("exposure"), 0.35) == "Exposure +0.70"
    # A gain of 2 is +100, of one half -50; past twice there is nothing.
    twice = 1 / slider("saturation").full_scale
    assert lightroom_amount(slider("saturation"), twice) == pytest.approx(100)
    assert lightroom_amount(slider("saturation"), -twice) == pytest.approx(-50)
    assert lightroom_amount(slider("saturation"), 1.0) == 100
    assert lightroom_text(slider("contrast"), -0.12) == "Contrast -12"


@pytest.mark.parametrize("setting", [-1.0, -0.4, 0.2, 0.5, 1.0])
def test_the_contrast_curve_for_darktable_is_the_one_we_render(setting: float) -> None:
    found = [
        float(number) for number in re.findall(r"\d\.\d\d", darktable_text(slider("contrast"), setting, long_edge=1))
    ]
    for entry, out in (found[:2], found[2:]):
        assert float(rendered("contrast", setting, entry, entry, entry)[0]) == pytest.approx(out, abs=0.015)


@pytest.mark.parametrize(("name", "setting"), [("temperature", 0.5), ("temperature", -0.3), ("tint", 0.4)])
def test_the_white_balance_for_darktable_is_the_one_we_render(name: str, setting: float) -> None:
    gains = [float(n) for n in re.findall(r"x(\d+\.\d+)", darktable_text(slider(name), setting, long_edge=1))]
    grey = torch.full((3,), 0.4)
    found = srgb_to_linear(rendered(name, setting, 0.4, 0.4, 0.4)) / srgb_to_linear(grey)
    assert found.tolist() == pytest.approx(gains, abs=0.006)


@pytest.mark.parametrize(("name", "node"), [("highlights", -1), ("shadows", -3)])
def test_the_tone_equalizer_lifts_as_we_do_at_its_node(name: str, node: int) -> None:
    text = darktable_text(slider(name), 0.5, long_edge=1)
    lift = float(re.findall(r"[+-]\d\.\d\d", text)[0])
    assert text.endswith(f"at {node} EV")
    encoded = 1.055 * (2.0**node) ** (1 / 2.4) - 0.055
    light = srgb_to_linear(rendered(name, 0.5, encoded, encoded, encoded))
    assert float(torch.log2(light[0])) - node == pytest.approx(lift, abs=0.006)


def test_the_radius_of_sharpening_grows_with_the_photo_to_darktables_limit() -> None:
    texts = [darktable_text(slider("sharpen"), 0.1, long_edge=edge) for edge in (1000, 4000, 20_000)]
    assert [text.rpartition(" ")[2] for text in texts] == ["15", "60", "99"]
