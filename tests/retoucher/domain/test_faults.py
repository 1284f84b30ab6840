from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.retoucher.domain.procedural import noise, scene
from vernissage.retoucher.domain.faults import FAULTS, AppliedFault, apply_faults, draw_faults
from vernissage.retoucher.domain.quality import delta_e
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, SLIDERS, slider_index


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(0, 4))
@settings(max_examples=100, deadline=None)
def test_drawn_faults_are_different_in_range_and_compressed_last(seed: int, fewest: int, more: int) -> None:
    faults = draw_faults(rng(seed), fewest, fewest + more)
    names = [fault.name for fault in faults]
    assert fewest <= len(names) <= fewest + more
    assert len(set(names)) == len(names)
    assert all(FAULTS[fault.name].contains(fault.value) for fault in faults)
    assert "jpeg" not in names[:-1]


def test_every_kind_and_every_count_is_drawn() -> None:
    drawn = [draw_faults(rng(seed), 1, 5) for seed in range(300)]
    assert {fault.name for faults in drawn for fault in faults} == set(FAULTS)
    assert {len(faults) for faults in drawn} == {1, 2, 3, 4, 5}


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="glare"):
        draw_faults(rng(), 1, 2, ["exposure", "glare"])


@pytest.mark.parametrize("name", FAULTS)
def test_each_kind_changes_a_photo_and_stays_on_the_8_bit_grid(name: str) -> None:
    image = scene(107, 160)
    for low, high in FAULTS[name].ranges:
        mildest = low if name == "jpeg" or abs(low) < abs(high) else high
        damaged = apply_faults(image, [[AppliedFault(name, mildest)]], [rng()])
        assert damaged.min() >= 0
        assert damaged.max() <= 1
        assert torch.allclose(damaged * 255, (damaged * 255).round(), atol=1e-3)
        assert delta_e(damaged, image).item() > 0.3


def test_row_equals_the_photo_alone() -> None:
    images = (noise(6, 24, 32) * 255).round() / 255
    faults = [draw_faults(rng(seed), 1, 5) for seed in range(5)] + [()]
    together = apply_faults(images, faults, [rng(seed) for seed in range(6)])
    for row in range(6):
        alone = apply_faults(images[row : row + 1], faults[row : row + 1], [rng(row)])[0]
        assert torch.allclose(together[row], alone, atol=1.5 / 255)
        assert (together[row] != alone).float().mean() < 0.001
    assert torch.equal(together[5], images[5])


def test_photo_without_faults_keeps_its_bits() -> None:
    image = noise(1, 9, 9)
    assert torch.equal(apply_faults(image, [()], [rng()]), image)


def test_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="expected equal"):
        apply_faults(noise(2, 8, 8), [()], [rng()])


def _settings(name: str, amount: float) -> torch.Tensor:
    values = torch.zeros(1, SLIDER_COUNT)
    index = slider_index(name)
    values[0, index] = amount / SLIDERS[index].full_scale
    return values


@pytest.mark.parametrize("value", [-1.5, -0.5, 0.5])
def test_the_opposite_setting_undoes_an_exposure_fault(value: float) -> None:
    image = 0.2 + 0.5 * scene(40, 60)
    damaged = apply_faults(image, [[AppliedFault("exposure", value)]], [rng()])
    mended = render(damaged, _settings("exposure", -value))
    assert delta_e(mended, image).item() < 0.6
    assert delta_e(damaged, image).item() > 5


def test_stronger_compression_loses_more() -> None:
    image = scene(64, 64) * 0.8 + noise(1, 64, 64) * 0.2
    loss = [delta_e(apply_faults(image, [[AppliedFault("jpeg", q)]], [rng()]), image).item() for q in (8.0, 20.0, 40.0)]
    assert loss == sorted(loss, reverse=True)


def test_noise_has_the_standard_deviation_that_it_says() -> None:
    image = torch.full((1, 3, 64, 64), 0.5)
    damaged = apply_faults(image, [[AppliedFault("noise", 0.05)]], [rng()])
    assert (damaged - image).std().item() == pytest.approx(0.05, rel=0.05)
