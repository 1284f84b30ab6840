"""The embedded denoiser: EDM's factors, neutral before it learned, deaf to neighbours, exact on disk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.core.files import read_json
from vernissage.core.weights import load_weights, save_weights
from vernissage.sampler.domain.denoiser import NULL, ClassLabels, Counted, Denoiser, guided
from vernissage.sampler.domain.unet import (
    EdmDenoiser,
    UNetSpec,
    levels_to_samples,
    preconditioning,
    samples_to_levels,
)

if TYPE_CHECKING:
    from pathlib import Path

SMALL = UNetSpec(channels=1, side=8, classes=3, sigma_data=0.5, width=8, attention_side=4)


def disturbed(spec: UNetSpec = SMALL, seed: int = 1) -> EdmDenoiser:
    """Every weight moved a little, as by a training."""
    generator = torch.Generator().manual_seed(seed)
    denoiser = EdmDenoiser(spec).eval()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return denoiser


def noisy(spec: UNetSpec = SMALL, count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    sigma = torch.logspace(-2, 1, count)
    return torch.randn((count, *spec.shape), generator=generator) * (1 + sigma.view(-1, 1, 1, 1)), sigma


LABELS = ClassLabels(torch.tensor([0, 1, 2, NULL]))


def test_factors_at_a_noise_as_large_as_the_pictures() -> None:
    factors = preconditioning(torch.tensor([0.5]), 0.5)
    found = [float(factor) for factor in factors]
    assert found == pytest.approx([0.5, 0.25 / 0.5**0.5, 2**0.5, -0.1732868], abs=1e-6)


def test_what_goes_in_and_what_is_asked_for_have_variance_one() -> None:
    sigma = torch.logspace(-3, 2, 20, dtype=torch.float64)
    skip, out, inward, _ = preconditioning(sigma, 0.7)
    assert torch.allclose(inward**2 * (0.49 + sigma**2), torch.ones_like(sigma))
    # The network's target is (picture - skip * x) / out.
    assert torch.allclose(((1 - skip) ** 2 * 0.49 + (skip * sigma) ** 2) / out**2, torch.ones_like(sigma))


@pytest.mark.parametrize(
    "spec",
    [
        SMALL,
        replace(SMALL, blocks=2, attention_side=0),
        replace(SMALL, channels=3, side=28, multipliers=(1, 2, 3)),
        replace(SMALL, channels=3, side=64, width=16, multipliers=(1, 1, 2, 4), attention_side=16),
        replace(SMALL, multipliers=(2,)),
    ],
    ids=["8", "8 with two blocks", "28", "64", "one level"],
)
def test_answers_and_features_have_their_shapes(spec: UNetSpec) -> None:
    denoiser = disturbed(spec)
    x, sigma = noisy(spec)
    with torch.no_grad():
        estimate, features = denoiser.call_with_features(x, sigma, LABELS)
        assert torch.equal(denoiser(x, sigma, LABELS), estimate)
    assert estimate.shape == x.shape
    assert estimate.dtype == torch.float32
    assert bool(estimate.isfinite().all())
    assert features.shape == (4, denoiser.feature_width)
    assert denoiser.shape == spec.shape
    assert float(features.std(dim=0).min()) > 0


def test_before_any_training_it_answers_the_best_guess_for_white_noise() -> None:
    x, sigma = noisy()
    expected = preconditioning(sigma, 0.5).skip.view(-1, 1, 1, 1) * x
    assert torch.equal(EdmDenoiser(SMALL).eval()(x, sigma, LABELS), expected)


def test_without_noise_it_answers_the_picture_itself() -> None:
    x, _ = noisy()
    with torch.no_grad():
        assert torch.allclose(disturbed()(x, torch.full((4,), 1e-6), LABELS), x, atol=1e-4)


def test_gradients_reach_every_weight() -> None:
    denoiser = disturbed(replace(SMALL, blocks=2))
    x, sigma = noisy()
    denoiser(x, sigma, LABELS).square().sum().backward()
    still = [name for name, weights in denoiser.named_parameters() if weights.grad is None or not weights.grad.any()]
    assert not still


def test_no_condition_is_the_null_class_and_classes_differ() -> None:
    denoiser = disturbed()
    x, sigma = noisy()
    with torch.no_grad():
        nothing = denoiser(x, sigma)
        assert torch.equal(nothing, denoiser(x, sigma, LABELS.null()))
        answers = denoiser(x, sigma, LABELS)
    assert torch.equal(answers[3], nothing[3])
    assert not any(torch.allclose(answers[row], nothing[row]) for row in range(3))


def test_a_row_knows_nothing_of_its_neighbours() -> None:
    denoiser = disturbed()
    x, sigma = noisy()
    with torch.no_grad():
        together = denoiser(x, sigma, LABELS)
        alone = torch.cat([denoiser(x[[i]], sigma[[i]], LABELS.rows(torch.tensor([i]))) for i in range(4)])
        x[1] = torch.nan
        beside = denoiser(x, sigma, LABELS)
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.equal(beside[[0, 2, 3]], together[[0, 2, 3]])
    assert bool(beside[1].isnan().all())


def test_a_state_in_float64_is_answered_in_float64() -> None:
    denoiser = disturbed()
    x, sigma = noisy()
    with torch.no_grad():
        answer = denoiser(x.double(), sigma.double(), LABELS)
        assert answer.dtype == torch.float64
        assert torch.allclose(answer.float(), denoiser(x, sigma, LABELS), atol=1e-5)


def test_it_is_a_denoiser_for_guidance_and_counting() -> None:
    denoiser: Denoiser = disturbed()
    counted = Counted(denoiser)
    x, sigma = noisy()
    with torch.no_grad():
        answer = guided(counted, x, sigma, ClassLabels(torch.tensor([0, 1, 2, 0])), torch.tensor([0.0, 1.0, 2.0, 1.0]))
    assert counted.evaluations == 5
    assert answer.shape == x.shape


def test_an_empty_batch_is_answered() -> None:
    x, sigma = noisy()
    assert disturbed()(x[:0], sigma[:0], ClassLabels(torch.zeros(0, dtype=torch.long))).shape == (0, 1, 8, 8)


X, SIGMA = noisy()


@pytest.mark.parametrize(
    ("x", "sigma", "condition", "words"),
    [
        (X.repeat(1, 3, 1, 1), SIGMA, None, ("(4, 3, 8, 8)", "('N', 1, 8, 8)")),
        (X.repeat(1, 1, 2, 2), SIGMA, None, ("(4, 1, 16, 16)", "('N', 1, 8, 8)")),
        (X[0], SIGMA, None, ("(1, 8, 8)", "('N', 1, 8, 8)")),
        (X.to(torch.uint8), SIGMA, None, ("torch.uint8", "floats")),
        (X, SIGMA[:2], None, ("(2,)", "(4,)")),
        (X, SIGMA[0], None, ("()", "(4,)")),
        (X, SIGMA * 0, None, ("sigma 0.0", "above 0")),
        (X, -SIGMA, None, ("sigma -0.0", "above 0")),
        (X, SIGMA * torch.nan, None, ("sigma nan", "finite")),
        (X, SIGMA, ClassLabels(torch.tensor([0, 1, 2, 3])), ("class 3", "0 to 2")),
        (X, SIGMA, ClassLabels(torch.tensor([0, -2, 2, 1])), ("class -2", "0 to 2")),
        (X, SIGMA, ClassLabels(torch.tensor([0, 1])), ("2 conditions", "4 samples")),
        (X, SIGMA, [0, 1, 2, 0], ("list", "ClassLabels")),
    ],
    ids=[
        "channels", "side", "no batch", "bytes", "too few sigmas", "one sigma", "no noise", "negative", "nan",
        "class too high", "class too low", "too few classes", "no classes",
    ],
)  # fmt: skip
def test_what_it_does_not_know_is_refused_by_name(
    x: torch.Tensor, sigma: torch.Tensor, condition: ClassLabels | None, words: tuple[str, ...]
) -> None:
    with pytest.raises(BadInput) as caught:
        EdmDenoiser(SMALL)(x, sigma, condition)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channels", 2), ("side", 4), ("side", 128), ("side", 9), ("classes", 0), ("sigma_data", 0.0), ("width", 12),
        ("multipliers", ()), ("multipliers", (1, 0)), ("blocks", 0), ("attention_side", -1), ("dropout", 1.0),
        ("sigma_min", 0.0), ("sigma_min", 100.0), ("sigma_max", float("inf")),
    ],
)  # fmt: skip
def test_sizes_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(BadParams, match="denoiser: "):
        replace(SMALL, **{field: value})


def test_saved_and_loaded_it_is_the_same_to_the_bit(tmp_path: Path) -> None:
    denoiser = disturbed(replace(SMALL, multipliers=(1, 2), sigma_data=0.731))
    denoiser.save(tmp_path, {"class_names": ["a", "b", "c"]})
    again = EdmDenoiser.load(tmp_path)
    assert again.spec == denoiser.spec
    assert not again.training
    x, sigma = noisy()
    with torch.no_grad():
        assert torch.equal(again(x, sigma, LABELS), denoiser(x, sigma, LABELS))
    assert read_json(tmp_path / "model.json")["spec"]["class_names"] == ["a", "b", "c"]


@pytest.mark.parametrize("change", [{"width": 16}, {"width": 9}, {"colour": "red"}, {"multipliers": None}])
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    disturbed().save(tmp_path)
    tensors, facts = load_weights(tmp_path)
    save_weights(tmp_path, tensors, {"denoiser": facts["denoiser"] | change})
    with pytest.raises(CorruptArtifact, match="not a denoiser of this version"):
        EdmDenoiser.load(tmp_path)


def test_no_model_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact):
        EdmDenoiser.load(tmp_path)


def test_levels_come_back_from_samples() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    samples = levels_to_samples(levels)
    assert samples[[0, 255]].tolist() == [-1.0, 1.0]
    assert torch.equal(samples_to_levels(samples), levels)
    assert samples_to_levels(torch.tensor([-3.0, 1.01])).tolist() == [0, 255]
