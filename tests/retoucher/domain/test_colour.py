from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from tests.retoucher.domain.procedural import flat, noise
from vernissage.retoucher.domain.colour import linear_to_srgb, luma, rgb_to_lab, srgb_to_linear


def test_transfer_function_and_its_inverse_meet_at_every_8_bit_level() -> None:
    levels = torch.arange(256, dtype=torch.float64) / 255
    assert torch.allclose(linear_to_srgb(srgb_to_linear(levels)), levels, atol=1e-6)


def test_known_values_of_the_transfer_function() -> None:
    # IEC 61966-2-1: the linear segment below 0.04045; encoded 0.5 is 21.4 % of the light.
    values = srgb_to_linear(torch.tensor([0.0, 0.04045, 0.5, 1.0], dtype=torch.float64))
    assert values.tolist() == pytest.approx([0.0, 0.0031308, 0.2140411, 1.0], abs=1e-6)


@pytest.mark.parametrize("function", [srgb_to_linear, linear_to_srgb, rgb_to_lab])
def test_gradient_is_finite_at_both_ends(function) -> None:
    images = torch.cat((flat(0, 0, 0), flat(1, 1, 1), flat(0, 1, 0))).requires_grad_()
    function(images).sum().backward()
    assert torch.isfinite(images.grad).all()
    assert (images.grad[0] != 0).any()


def test_lab_agrees_with_scikit_image() -> None:
    images = noise(2, 24, 20).double()
    expected = np.stack([rgb2lab(image.permute(1, 2, 0).numpy()) for image in images])
    # scikit-image takes its white point from a table of fewer digits.
    assert np.abs(rgb_to_lab(images).permute(0, 2, 3, 1).numpy() - expected).max() < 0.02


def test_greys_have_no_chroma_and_white_is_100() -> None:
    lab = rgb_to_lab(torch.cat([flat(v, v, v) for v in (0.0, 0.2, 0.6, 1.0)]).double())
    assert lab[:, 1:].abs().max() < 1e-5
    assert lab[[0, 3], 0, 0, 0].tolist() == pytest.approx([0.0, 100.0], abs=1e-4)


def test_luma_weights_the_channels_as_bt_709_does() -> None:
    primaries = torch.cat((flat(1, 0, 0), flat(0, 1, 0), flat(0, 0, 1), flat(1, 1, 1)))
    assert luma(primaries)[:, 0, 0, 0].tolist() == pytest.approx([0.2126, 0.7152, 0.0722, 1.0])
