"""Distances between sets: answers known by hand, no say for order or rotation, clear words for too few samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vernissage.core.errors import BadInput
from vernissage.sampler.judge import distances
from vernissage.sampler.judge.distances import (
    Moments,
    frechet_at_infinity,
    frechet_distance,
    kernel_distance,
    memorisation,
    moments,
    nearest_distances,
    neighbourhoods,
    paired_error,
    paired_errors,
    saturating,
    sliced_wasserstein,
)

SEEDS = st.integers(0, 10_000)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def gaussian(seed: int, count: int, width: int, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return mean + scale * rng(seed).normal(size=(count, width))


def with_moments(mean: np.ndarray, deviations: np.ndarray, count: int = 200) -> np.ndarray:
    """Rows whose sample mean and (diagonal) sample covariance are exactly these."""
    rows = rng(5).normal(size=(count, len(mean)))
    rows -= rows.mean(axis=0)
    rows = np.linalg.qr(rows)[0] * math.sqrt(count - 1)
    return mean + rows * deviations


def rotation(seed: int, width: int) -> np.ndarray:
    return np.linalg.qr(rng(seed).normal(size=(width, width)))[0]


# --- Frechet distance -------------------------------------------------------------------------------------------------


def test_frechet_of_gaussians_with_known_moments() -> None:
    first = with_moments(np.array([1.0, 0.0, -2.0]), np.array([1.0, 2.0, 3.0]))
    second = with_moments(np.array([0.0, 0.0, 0.0]), np.array([2.0, 2.0, 0.5]))
    # |m|^2 = 5; deviations differ by 1, 0 and 2.5.
    assert frechet_distance(first, second) == pytest.approx(5 + 1 + 6.25, rel=1e-10)


def test_frechet_of_covariances_that_do_not_commute() -> None:
    a, b = torch.tensor([[2.0, 1.0], [1.0, 2.0]]).double(), torch.tensor([[3.0, 0.0], [0.0, 1.0]]).double()
    zero = torch.zeros(2).double()
    # In two dimensions tr((AB)^1/2) = sqrt(tr(AB) + 2 sqrt(det AB)): tr = 8, det = 9.
    expected = 4 + 4 - 2 * math.sqrt(8 + 2 * 3)
    assert frechet_distance(Moments(zero, a), Moments(zero, b)) == pytest.approx(expected, rel=1e-12)


def test_frechet_of_singular_covariances_needs_no_diagonal() -> None:
    # Two dead features and two that are copies of one another.
    rows = gaussian(1, 100, 2)
    flat = np.concatenate((rows, rows[:, :1], np.zeros((100, 2))), axis=1)
    assert frechet_distance(flat, flat) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(flat, flat + np.array([0, 0, 0, 3, 0])) == pytest.approx(9, rel=1e-9)


def test_frechet_takes_moments_and_tensors_of_pictures() -> None:
    pictures = torch.randn(50, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    flat = pictures.flatten(1).numpy()
    assert frechet_distance(pictures, moments(flat + 1.0)) == pytest.approx(6, rel=1e-5)


@settings(max_examples=25)
@given(SEEDS, st.integers(1, 6), st.floats(-3, 3), st.floats(0.1, 5))
def test_frechet_is_symmetric_not_negative_and_blind_to_rotation_and_order(
    seed: int, width: int, mean: float, scale: float
) -> None:
    first, second = gaussian(seed, 40, width), gaussian(seed + 1, 30, width, mean, scale)
    value, turn = frechet_distance(first, second), rotation(seed, width)
    tolerance = {"rel": 1e-8, "abs": 1e-8}
    assert value >= 0
    assert frechet_distance(second, first) == pytest.approx(value, **tolerance)
    assert frechet_distance(first @ turn, second @ turn) == pytest.approx(value, **tolerance)
    assert frechet_distance(first[::-1], rng(seed).permutation(second)) == pytest.approx(value, **tolerance)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-8)


def test_infinity_takes_the_bias_of_few_samples_off() -> None:
    width, truth = 16, 16 * 0.25
    real = Moments(torch.zeros(width).double(), torch.eye(width).double())
    trials = [gaussian(seed, 600, width, mean=0.5) for seed in range(12)]
    plain = np.mean([frechet_distance(rows, real) for rows in trials]) - truth
    found = [frechet_at_infinity(rows, real, seed=0) for rows in trials]
    left = np.mean([one.value for one in found]) - truth
    assert plain > 0.08
    assert abs(left) < plain / 2
    assert all(one.slope > 0 for one in found)
    assert found[0].counts[0] == 60
    assert found[0].counts[-1] == 600
    assert found[0].distances[-1] == pytest.approx(frechet_distance(trials[0], real))


def test_the_line_of_the_extrapolation() -> None:
    x = np.array([0.1, 0.2, 0.4, 0.8])
    assert distances._line(x, 3 + 2 * x) == pytest.approx((3, 2, 0), abs=1e-7)
    # By hand: x = 1, 2, 3 and y = 1, 3, 2 give y = 1 + x/2, residuals -1/2, 1, -1/2.
    value, slope, error = distances._line(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]))
    assert (value, slope) == pytest.approx((1, 0.5))
    assert error == pytest.approx(math.sqrt(1.5 * (1 / 3 + 4 / 2)))


# --- kernel distance --------------------------------------------------------------------------------------------------


def test_kernel_distance_by_hand() -> None:
    # k(x, y) = (xy + 1)^3: within 1 and 343, between 1, 1, 27 and 64.
    found = kernel_distance(np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]]), seed=0, subsets=4)
    assert found.value == pytest.approx(1 + 343 - 2 * 93 / 4)
    assert found.spread == pytest.approx(0, abs=1e-9)
    assert (found.subsets, found.size) == (4, 2)


def test_kernel_distance_is_that_of_the_first_three_moments() -> None:
    # One dimension: 3 (difference of means)^2 + 3 (of second moments)^2 + (of third moments)^2; N(0, 1) and N(1/2, 1).
    first, second = gaussian(0, 20_000, 1), gaussian(1, 20_000, 1, mean=0.5)
    expected = 3 * 0.5**2 + 3 * 0.25**2 + 1.625**2
    found = kernel_distance(first, second, seed=0, subsets=60)
    assert found.value == pytest.approx(expected, rel=0.1)


def test_kernel_distance_of_one_distribution_lies_around_zero() -> None:
    values = [
        kernel_distance(gaussian(s, 200, 8), gaussian(s + 100, 200, 8), seed=0, subsets=2).value for s in range(40)
    ]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(40)
    rows = gaussian(3, 500, 8)
    assert kernel_distance(rows, rows, seed=0, size=100).value == pytest.approx(0, abs=0.05)


def test_seeds_decide_the_subsets_and_order_does_not() -> None:
    first, second = gaussian(0, 300, 4), gaussian(1, 200, 4, mean=0.3)
    options = {"subsets": 10, "size": 50}
    found = kernel_distance(first, second, seed=7, **options)
    assert kernel_distance(first[::-1], rng(1).permutation(second), seed=7, **options) == found
    assert kernel_distance(first, second, seed=8, **options) != found
    at_infinity = frechet_at_infinity(first, second, seed=7)
    assert frechet_at_infinity(rng(2).permutation(first), second, seed=7).value == pytest.approx(at_infinity.value)


# --- neighbourhoods ---------------------------------------------------------------------------------------------------


def test_identical_sets_cover_each_other() -> None:
    found = neighbourhoods(gaussian(0, 300, 4), gaussian(0, 300, 4))
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx(1, abs=0.01)


def test_disjoint_sets_do_not() -> None:
    found = neighbourhoods(gaussian(0, 100, 3), gaussian(1, 120, 3, mean=100))
    assert (found.precision, found.recall, found.density, found.coverage) == (0, 0, 0, 0)


def test_neighbourhoods_by_hand() -> None:
    real, generated = np.array([[0.0], [1.0], [10.0], [12.0]]), np.array([[0.5], [0.6], [11.5], [40.0]])
    # k = 1: balls of radius 1, 1, 2, 2 around the real ones, 0.1, 0.1, 10.9, 28.5 around the generated ones.
    found = neighbourhoods(generated, real, k=1)
    assert found.precision == 3 / 4
    assert found.density == (2 + 2 + 2 + 0) / 4
    assert found.coverage == 1
    # 11.5 reaches beyond 0.6, to 1, 10 and 12 and not to 0; 40 reaches beyond 11.5, to 12.
    assert found.recall == 3 / 4


def test_a_mode_that_is_never_generated_costs_coverage_and_recall() -> None:
    real = np.concatenate((gaussian(0, 200, 2), gaussian(1, 200, 2, mean=50)))
    found = neighbourhoods(gaussian(2, 400, 2), real)
    assert found.precision > 0.9
    assert 0.4 < found.coverage <= 0.5
    assert found.recall <= 0.5


def test_a_generator_that_repeats_one_picture_is_seen() -> None:
    found = neighbourhoods(np.zeros((100, 2)), gaussian(0, 200, 2))
    assert found.precision == 1
    assert found.recall == 0
    assert found.coverage < 0.2


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = gaussian(0, 70, 3), gaussian(1, 90, 3, mean=0.4)

    def all_of_them() -> dict[str, float]:
        learned = memorisation(first, gaussian(2, 150, 3), gaussian(3, 100, 3))
        sliced = sliced_wasserstein(first, second, seed=0)
        return {**vars(neighbourhoods(first, second)), **vars(learned), "sliced": sliced}

    whole = all_of_them()
    monkeypatch.setattr(distances, "_BLOCK", 1000)
    assert all_of_them() == pytest.approx(whole, rel=1e-9)


# --- sliced Wasserstein -----------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(SEEDS, st.integers(1, 8), st.floats(-5, 5))
def test_a_shifted_cloud_is_as_far_as_it_was_shifted(seed: int, width: int, shift: float) -> None:
    cloud, move = gaussian(seed, 30, width), shift * rng(seed + 1).normal(size=width)
    found = sliced_wasserstein(cloud + move, cloud, seed=seed, directions=4 * width)
    assert found == pytest.approx(np.linalg.norm(move) / math.sqrt(width), rel=1e-9, abs=1e-7)


def test_sets_of_different_sizes_are_compared_by_quantiles() -> None:
    # One dimension: 0 moves by 0 and 1, thirds of 0, 1, 2 against halves of 0, 1 by hand.
    first, second = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [1.0]])
    # Up to 1/3: 0-0; to 1/2: 1-0; to 2/3: 1-1; to 1: 2-1.
    assert sliced_wasserstein(first, second, seed=0, directions=1) == pytest.approx(math.sqrt(1 / 6 + 1 / 3))
    assert sliced_wasserstein(np.repeat(second, 3, axis=0), second, seed=0, directions=3) == pytest.approx(0, abs=1e-12)


def test_pictures_are_compared_by_pixels() -> None:
    pictures = torch.rand(20, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    assert sliced_wasserstein(pictures + 0.25, pictures, seed=0, directions=32) == pytest.approx(0.25, rel=1e-6)


# --- order ------------------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(SEEDS)
def test_order_has_no_say(seed: int) -> None:
    first, second, third = gaussian(seed, 25, 3), gaussian(seed + 1, 120, 3, 0.5), gaussian(seed + 2, 110, 3)
    mixed, other, another = (rng(seed + 5).permutation(rows) for rows in (first, second, third))
    assert neighbourhoods(mixed, other) == neighbourhoods(first, second)
    plain = sliced_wasserstein(first, second, seed=0, directions=12)
    assert sliced_wasserstein(mixed, other, seed=0, directions=12) == pytest.approx(plain, rel=1e-12)
    left, right = memorisation(mixed, other, another), memorisation(first, second, third)
    assert vars(left) == pytest.approx(vars(right), rel=1e-9)


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_paired_errors_by_hand() -> None:
    reference = torch.zeros(2, 1, 2, 2)
    samples = reference.clone()
    samples[0, 0, 0, 0], samples[1] = 2.0, -3.0
    errors = paired_errors(samples, reference)
    assert errors.tolist() == [1.0, 3.0]
    found = paired_error(errors, tau=1.0)
    assert (found.median, found.mean, found.p95) == pytest.approx((2.0, 2.0, 2.9))
    assert found.saturated == pytest.approx((2 - math.exp(-0.5) - math.exp(-4.5)) / 2)


def test_saturation_keeps_small_errors_and_bounds_large_ones() -> None:
    assert saturating(np.array([1e-9]), 1.0)[0] == pytest.approx(5e-19)
    assert saturating(np.array([0.0, 1e6]), 0.5).tolist() == [0.0, 1.0]


# --- memorisation -----------------------------------------------------------------------------------------------------


def test_nearest_distances_by_hand() -> None:
    assert nearest_distances(np.array([[0.0, 0.0], [3.0, 3.0]]), np.array([[1.0, 1.0], [9.0, 9.0]])).tolist() == [1, 2]


@pytest.mark.parametrize(("train", "test"), [(800, 200), (300, 300), (200, 800)])
def test_fresh_samples_are_as_near_to_either(train: int, test: int) -> None:
    found = [memorisation(gaussian(s, 300, 5), gaussian(s + 50, train, 5), gaussian(s + 99, test, 5)) for s in range(6)]
    assert np.mean([one.nearer_to_train for one in found]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([one.copied for one in found]) < 0.04
    assert found[0].to_train == pytest.approx(found[0].test_to_train, rel=0.15)


def test_copies_are_found() -> None:
    train, test = gaussian(0, 400, 5), gaussian(1, 400, 5)
    found = memorisation(np.concatenate((train[:100] + 1e-6, gaussian(2, 100, 5))), train, test)
    assert 0.45 < found.copied < 0.6
    assert found.nearer_to_train > 0.65
    assert memorisation(train, train, test).to_train < 1e-7


def test_the_chance_to_draw_none_of_the_marked() -> None:
    # 2 out of 4: none of one marked in half of the draws, none of two in one of six, of three never.
    chances = distances._chance_of_none(4, torch.tensor([0, 1, 2, 3, 4]), 2)
    assert chances.tolist() == pytest.approx([1, 1 / 2, 1 / 6, 0, 0])


# --- what is refused --------------------------------------------------------------------------------------------------

TEN, HUNDRED = gaussian(0, 10, 4), gaussian(1, 100, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet_distance(TEN[:4], HUNDRED), "generated features: found 4, .* needs at least 5"),
        (lambda: frechet_distance(HUNDRED, TEN[:1]), "real features: found 1, .* needs at least 2"),
        (lambda: frechet_at_infinity(TEN[:9], HUNDRED, seed=0), "found 9, .* needs at least 10"),
        (lambda: frechet_at_infinity(TEN, HUNDRED, seed=0, points=2), "points: found 2, .* at least 3"),
        (lambda: kernel_distance(TEN, HUNDRED, seed=0, size=20), "generated features: found 10, .* at least 20"),
        (lambda: kernel_distance(TEN, HUNDRED, seed=0, size=1), "size: found 1, .* at least 2"),
        (lambda: kernel_distance(TEN, HUNDRED, seed=0, subsets=1), "subsets: found 1, .* at least 2"),
        (lambda: neighbourhoods(HUNDRED, TEN[:5]), "real features: found 5, .* k = 5 needs at least 6"),
        (lambda: neighbourhoods(HUNDRED, TEN, k=0), "k: found 0, .* at least 1"),
        (lambda: sliced_wasserstein(TEN[:0], TEN, seed=0), "generated pictures: found 0, .* at least 1"),
        (lambda: sliced_wasserstein(TEN, TEN, seed=0, directions=0), "directions: found 0"),
        (lambda: memorisation(TEN, HUNDRED, HUNDRED[:99]), "test pictures: found 99, .* at least 100"),
        (lambda: memorisation(TEN, HUNDRED[:0], HUNDRED), "training pictures: found 0"),
        (lambda: nearest_distances(TEN, HUNDRED[:, :3]), "rows of 4 and of 3"),
        (lambda: frechet_distance(HUNDRED, HUNDRED[:, :3]), "rows of 4 and of 3"),
        (lambda: paired_errors(TEN, TEN[:9]), r"shape \(10, 4\), expected .* \(9, 4\)"),
        (lambda: paired_error(np.zeros(0), 1.0), "errors: found 0"),
        (lambda: saturating(np.ones(3), 0.0), "tau = 0.0"),
        (lambda: saturating(np.ones(3), math.nan), "tau = nan"),
        (lambda: neighbourhoods(np.zeros(8), TEN), r"shape \(8,\), expected \(N, F\)"),
        (lambda: moments(np.where(np.arange(100)[:, None] == 7, np.nan, HUNDRED)), "features: row 7 is not finite"),
    ],
)
def test_what_cannot_be_measured_is_refused(call: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        call()  # type: ignore[operator]
