from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tests.retoucher.domain.procedural import flat, noise, scene
from vernissage.retoucher.domain.colour import luma
from vernissage.retoucher.domain.quality import PSNR_CEILING, delta_e, delta_e_lab, psnr, ssim

if TYPE_CHECKING:
    import numpy as np

# Sharma, Wu and Dalal 2005, "The CIEDE2000 color-difference formula", table 1: two colours and their difference.
SHARMA = [
    ((50.0000, 2.6772, -79.7751), (50.0000, 0.0000, -82.7485), 2.0425),
    ((50.0000, 3.1571, -77.2803), (50.0000, 0.0000, -82.7485), 2.8615),
    ((50.0000, 2.8361, -74.0200), (50.0000, 0.0000, -82.7485), 3.4412),
    ((50.0000, -1.3802, -84.2814), (50.0000, 0.0000, -82.7485), 1.0000),
    ((50.0000, -1.1848, -84.8006), (50.0000, 0.0000, -82.7485), 1.0000),
    ((50.0000, -0.9009, -85.5211), (50.0000, 0.0000, -82.7485), 1.0000),
    ((50.0000, 0.0000, 0.0000), (50.0000, -1.0000, 2.0000), 2.3669),
    ((50.0000, -1.0000, 2.0000), (50.0000, 0.0000, 0.0000), 2.3669),
    ((50.0000, 2.4900, -0.0010), (50.0000, -2.4900, 0.0009), 7.1792),
    ((50.0000, 2.4900, -0.0010), (50.0000, -2.4900, 0.0010), 7.1792),
    ((50.0000, 2.4900, -0.0010), (50.0000, -2.4900, 0.0011), 7.2195),
    ((50.0000, 2.4900, -0.0010), (50.0000, -2.4900, 0.0012), 7.2195),
    ((50.0000, -0.0010, 2.4900), (50.0000, 0.0009, -2.4900), 4.8045),
    ((50.0000, -0.0010, 2.4900), (50.0000, 0.0010, -2.4900), 4.8045),
    ((50.0000, -0.0010, 2.4900), (50.0000, 0.0011, -2.4900), 4.7461),
    ((50.0000, 2.5000, 0.0000), (50.0000, 0.0000, -2.5000), 4.3065),
    ((50.0000, 2.5000, 0.0000), (73.0000, 25.0000, -18.0000), 27.1492),
    ((50.0000, 2.5000, 0.0000), (61.0000, -5.0000, 29.0000), 22.8977),
    ((50.0000, 2.5000, 0.0000), (56.0000, -27.0000, -3.0000), 31.9030),
    ((50.0000, 2.5000, 0.0000), (58.0000, 24.0000, 15.0000), 19.4535),
    ((50.0000, 2.5000, 0.0000), (50.0000, 3.1736, 0.5854), 1.0000),
    ((50.0000, 2.5000, 0.0000), (50.0000, 3.2972, 0.0000), 1.0000),
    ((50.0000, 2.5000, 0.0000), (50.0000, 1.8634, 0.5757), 1.0000),
    ((50.0000, 2.5000, 0.0000), (50.0000, 3.2592, 0.3350), 1.0000),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((63.0109, -31.0961, -5.8663), (62.8187, -29.7946, -4.0864), 1.2630),
    ((61.2901, 3.7196, -5.3901), (61.4292, 2.2480, -4.9620), 1.8731),
    ((35.0831, -44.1164, 3.7933), (35.0232, -40.0716, 1.5901), 1.8645),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((36.4612, 47.8580, 18.3852), (36.2715, 50.5065, 21.2231), 1.4146),
    ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
    ((90.9257, -0.5406, -0.9208), (88.6381, -0.8985, -0.7239), 1.5381),
    ((6.7747, -0.2908, -2.4247), (5.8714, -0.0985, -2.2286), 0.6377),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


def _colour(lab: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(lab, dtype=torch.float64).view(1, 3, 1, 1)


@pytest.mark.parametrize(("first", "second", "expected"), SHARMA)
def test_published_colour_differences(first, second, expected) -> None:
    assert delta_e_lab(_colour(first), _colour(second)).item() == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("first", "second", "expected"), SHARMA)
def test_colour_difference_is_symmetric(first, second, expected) -> None:
    assert delta_e_lab(_colour(second), _colour(first)).item() == pytest.approx(expected, abs=5e-5)


def _as_rows(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()


def test_colour_difference_agrees_with_scikit_image() -> None:
    a, b = noise(3, 20, 30, seed=1), noise(3, 20, 30, seed=2)
    expected = [deltaE_ciede2000(rgb2lab(x), rgb2lab(y)).mean() for x, y in zip(_as_rows(a), _as_rows(b), strict=True)]
    assert delta_e(a, b).tolist() == pytest.approx(expected, abs=0.01)


def test_psnr_agrees_with_scikit_image() -> None:
    a, b = noise(2, 20, 30, seed=1), noise(2, 20, 30, seed=2)
    expected = [peak_signal_noise_ratio(x, y, data_range=1) for x, y in zip(_as_rows(a), _as_rows(b), strict=True)]
    assert psnr(a, b).tolist() == pytest.approx(expected, abs=1e-3)


def test_psnr_of_one_tenth_off_is_20_db() -> None:
    assert psnr(flat(0.5, 0.5, 0.5), flat(0.6, 0.6, 0.6)).item() == pytest.approx(20.0, abs=1e-4)


def test_ssim_agrees_with_scikit_image() -> None:
    a = scene(48, 64)
    b = (a + 0.1 * (noise(1, 48, 64) - 0.5)).clamp(0, 1)
    x, y = luma(a)[0, 0].double().numpy(), luma(b)[0, 0].double().numpy()
    _, full = structural_similarity(
        x, y, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    # Ours takes the mean over windows that lie wholly inside, as the paper does.
    assert ssim(a, b).item() == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-4)


@pytest.mark.parametrize(("measure", "best"), [(psnr, PSNR_CEILING), (ssim, 1.0), (delta_e, 0.0)])
def test_equal_pictures_get_the_best_value_and_a_row_equals_its_batch(measure, best) -> None:
    a, b = noise(3, 16, 16, seed=1), noise(3, 16, 16, seed=2)
    assert measure(a, a).tolist() == pytest.approx([best] * 3, abs=1e-4)
    together = measure(a, b)
    assert [measure(a[i : i + 1], b[i : i + 1]).item() for i in range(3)] == pytest.approx(together.tolist(), rel=1e-5)


@pytest.mark.parametrize("measure", [psnr, ssim, delta_e])
@pytest.mark.parametrize("size", [(1, 1), (2, 40), (7, 7)])
def test_tiny_pictures_are_measured(measure, size) -> None:
    assert torch.isfinite(measure(noise(1, *size, seed=1), noise(1, *size, seed=2))).all()


@pytest.mark.parametrize("measure", [psnr, ssim, delta_e])
def test_different_shapes_are_refused(measure) -> None:
    with pytest.raises(ValueError, match="expected two equal"):
        measure(noise(1, 8, 8), noise(1, 8, 9))
