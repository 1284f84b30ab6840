"""The one-shot regressor: learns something easy in seconds, keeps what validated best, comes back from disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.retoucher.learn.worlds import StoredStarts, darkened, photos
from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.params import load_params
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import HIGHS, LOWS, SLIDER_COUNT, SLIDER_NAMES, slider_index
from vernissage.retoucher.learn.regressor import (
    Regressor,
    RegressorSpec,
    RegressorTraining,
    TrainedRegressor,
    _with_fewer_samples,
    teach_regressor,
    train_regressor,
)
from vernissage.retoucher.learn.rewards import reference_error
from vernissage.retoucher.learn.scenes import Pictures, Starts
from vernissage.retoucher.learn.suggestions import classic_suggestions, pixel_sample
from vernissage.retoucher.learn.training import Thumbnails
from vernissage.retoucher.system import training_settings

SIDE = 16
SPEC = RegressorSpec(view=SIDE, standard=SIDE, widths=(4, 8))
PARAMS = Path(__file__).parents[3] / "params.yaml"


def dark_starts(count: int, first: int = 0) -> Starts:
    return darkened(photos(count, side=SIDE, first=first), stops=-1.0)


def trained(images: int = 480, seed: int = 0, held_out: Starts | None = None) -> TrainedRegressor:
    starts = dark_starts(12)
    source = StoredStarts(starts.faulty, starts.reference)
    return train_regressor(
        source, held_out or dark_starts(4, first=50), SPEC, RegressorTraining(images, batch=12, lr=0.01, seed=seed)
    )


def test_untaught_it_proposes_nothing() -> None:
    network = Regressor(SPEC)
    assert torch.equal(network.decide(photos(2, side=40)), torch.zeros(2, SLIDER_COUNT))


def test_a_fault_that_is_always_the_same_is_soon_put_right() -> None:
    result = trained()
    fresh = dark_starts(3, first=80)
    settings = result.network.decide(fresh.faulty)
    assert settings[:, slider_index("exposure")].min() > 0.1
    before = reference_error(fresh.faulty, fresh.reference)
    assert (reference_error(render(fresh.faulty, settings), fresh.reference) < 0.6 * before).all()
    losses = [row["loss"] for row in result.curve]
    assert losses[-1] < losses[0]


def test_settings_stay_within_the_sliders_ranges_and_light_and_colour_are_all_that_moves() -> None:
    network = Regressor(SPEC)
    torch.nn.init.normal_(network.head[-1].weight, std=5.0)
    settings = network.decide(photos(8, side=20))
    assert (settings >= torch.tensor(LOWS)).all()
    assert (settings <= torch.tensor(HIGHS)).all()
    moved = {name for place, name in enumerate(SLIDER_NAMES) if settings[:, place].abs().max() > 0.1}
    assert moved == set(SLIDER_NAMES) - {"denoise", "sharpen"}


def test_fewer_samples_keep_the_ends_and_the_middle_of_the_histogram() -> None:
    photo = photos(1, side=100)
    whole = Pictures(photos(1, side=64), pixel_sample(photo, 64), torch.tensor([3.0]))
    small = _with_fewer_samples(whole)
    assert small.samples.shape == (1, 3, 32, 32)
    assert torch.equal(small.weights, whole.weights)
    assert torch.equal(small.thumbnails, whole.thumbnails)
    for pick in (torch.amin, torch.amax):
        assert torch.equal(pick(small.samples, dim=(2, 3)), pick(photo, dim=(2, 3)))
    torch.testing.assert_close(small.samples.mean(dim=(2, 3)), photo.mean(dim=(2, 3)), atol=0.02, rtol=0)
    assert torch.equal(_with_fewer_samples(small).samples, small.samples)


def test_two_trainings_of_one_seed_are_equal_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, again, other = trained(96), trained(96), trained(96, seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert one.curve == again.curve
    for mine, theirs in zip(one.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert one.curve != other.curve


def test_the_look_that_validated_best_is_kept() -> None:
    # Photos that need nothing: the more it learns to brighten, the worse it validates.
    clean = Starts(photos(4, side=SIDE, first=50), photos(4, side=SIDE, first=50))
    result = trained(held_out=clean)
    objectives = {row["update"]: row["objective"] for row in result.curve}
    assert result.kept_from == max(objectives, key=objectives.__getitem__)
    assert result.kept_from == result.curve[0]["update"] < result.curve[-1]["update"] == 40
    kept = result.network(clean.faulty, clean.suggestions).abs().max()
    assert kept < trained().network(clean.faulty, clean.suggestions).abs().max()


def test_the_curve_says_what_validation_saw() -> None:
    dark, clean = dark_starts(4, first=50), photos(2, side=SIDE, first=60)
    held_out = Starts(torch.cat((dark.faulty, clean)), torch.cat((dark.reference, clean)))
    result = trained(held_out=held_out)
    row = next(row for row in result.curve if row["update"] == result.kept_from)
    with torch.no_grad():
        shown = render(held_out.faulty, result.network(held_out.faulty, classic_suggestions(held_out.faulty)))
    mse = ((shown - held_out.reference) ** 2).flatten(1).mean(dim=1)
    assert row["psnr"] == pytest.approx(float(-10 * torch.log10(mse[:4]).mean()), abs=1e-3)
    assert row["clean_error"] == pytest.approx(float(10 * mse[4:].sqrt().mean()), rel=1e-3)
    assert row["images"] == 12 * row["update"]


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        trained(0)


def test_it_is_taught_on_what_the_agent_is_taught_on() -> None:
    like = training_settings(load_params(PARAMS, profile="test"))
    view = like.spec.view
    originals = photos(3, side=view)
    data = Thumbnails(Pictures.of_thumbnails(originals), darkened(originals), darkened(originals[:2]))
    told: list[int] = []
    result = teach_regressor(data, like, 100, told.append)
    assert sum(told) == like.planner.batch * len(told) >= 100
    assert result.network.spec.view == view
    assert result.network.spec.standard == like.spec.standard
    again = teach_regressor(data, like, 100)
    assert again.curve == result.curve


def test_it_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    network = trained(48).network
    network.save(tmp_path)
    loaded = Regressor.load(tmp_path)
    assert loaded.spec == network.spec
    assert torch.equal(loaded.decide(photos(3)), network.decide(photos(3)))


def test_what_is_missing_or_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact):
        Regressor.load(tmp_path)
    from vernissage.core.weights import save_weights

    save_weights(tmp_path, {"x": torch.zeros(1)}, {"policy": {}})
    with pytest.raises(CorruptArtifact, match="not a regressor"):
        Regressor.load(tmp_path)
