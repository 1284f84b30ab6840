from __future__ import annotations

import pytest
import torch

from tests.retoucher.domain.procedural import flat, noise, scene
from vernissage.retoucher.domain.statistics import STATISTIC_NAMES, histograms, photo_statistics, statistics_table


def test_known_answers_of_a_half_black_half_white_picture() -> None:
    image = torch.zeros(1, 3, 20, 20)
    image[..., 10:] = 1
    found = photo_statistics(image)[0]
    assert found["luma_mean"] == pytest.approx(0.5)
    assert found["luma_std"] == pytest.approx(0.5)
    assert found["clipped_low"] == pytest.approx(0.5)
    assert found["clipped_high"] == pytest.approx(0.5)
    assert (found["luma_p05"], found["luma_p95"]) == pytest.approx((0, 1))
    assert found["saturation_mean"] == pytest.approx(0, abs=1e-5)


def test_known_answers_of_a_ramp() -> None:
    ramp = torch.linspace(0, 1, 101).view(1, 1, 1, -1).expand(1, 3, 10, -1)
    found = photo_statistics(ramp)[0]
    for percentile in (1, 5, 25, 50, 75, 95, 99):
        assert found[f"luma_p{percentile:02d}"] == pytest.approx(percentile / 100, abs=0.011)
    # Immerkaer's mask is blind to ramps; only the replicated border is left.
    assert found["noise"] < 0.001


def test_cast_has_the_sign_of_the_colour() -> None:
    warm, green = photo_statistics(torch.cat((flat(0.6, 0.5, 0.4), flat(0.45, 0.55, 0.45))))
    assert warm["cast_b"] > 5
    assert green["cast_a"] < -5


@pytest.mark.parametrize("sigma", [0.01, 0.03, 0.05])
def test_noise_estimate_finds_the_noise(sigma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    grain = sigma * torch.randn(1, 1, 128, 128, generator=generator)
    found = photo_statistics(0.5 + grain.expand(1, 3, -1, -1))[0]["noise"]
    assert found == pytest.approx(sigma, rel=0.1)


def test_sharper_pictures_have_more_sharpness() -> None:
    crisp = noise(1, 40, 40)
    soft = torch.nn.functional.avg_pool2d(crisp, 3, 1, 1)
    assert photo_statistics(crisp)[0]["sharpness"] > 2 * photo_statistics(soft)[0]["sharpness"]


def test_table_has_every_name_and_rows_do_not_depend_on_the_batch() -> None:
    images = torch.cat((scene(20, 30), noise(2, 20, 30)))
    table = statistics_table(images)
    assert table.shape == (3, len(STATISTIC_NAMES))
    assert torch.isfinite(table).all()
    assert torch.allclose(statistics_table(images[1:2])[0], table[1], atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 3)])
def test_tiny_pictures_have_statistics(size: tuple[int, int]) -> None:
    assert torch.isfinite(statistics_table(noise(1, *size))).all()


def test_histograms_sum_to_one_and_find_a_flat_colour() -> None:
    images = torch.cat((noise(1, 16, 16), flat(0, 0.5, 1), flat(1, 1, 1)))
    shares = histograms(images, bins=5)
    assert shares.shape == (3, 4, 5)
    assert torch.allclose(shares.sum(dim=2), torch.ones(3, 4), atol=1e-5)
    assert shares[1, 0].tolist() == pytest.approx([1, 0, 0, 0, 0])
    assert shares[1, 1].tolist() == pytest.approx([0, 0, 1, 0, 0])
    assert shares[1, 2].tolist() == pytest.approx([0, 0, 0, 0, 1])
    assert shares[2, 3].tolist() == pytest.approx([0, 0, 0, 0, 1], abs=1e-5)
