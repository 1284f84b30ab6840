"""Teaching the denoiser: it learns, resumes to the bit, keeps the best, leaves test pictures alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from vernissage.core.errors import BadInput, BadParams
from vernissage.core.progress import Progress
from vernissage.core.seeds import torch_generator
from vernissage.sampler.domain.denoiser import ClassLabels
from vernissage.sampler.domain.unet import EdmDenoiser, UNetSpec
from vernissage.sampler.learn import denoiser_training
from vernissage.sampler.learn.denoiser_training import (
    DenoiserTraining,
    draw_sigmas,
    edm_loss,
    power_of_width,
    train_denoiser,
)
from vernissage.sampler.prepare.pictures import ClassPictures

if TYPE_CHECKING:
    from pathlib import Path

QUICK = DenoiserTraining(
    steps=12, batch=8, lr=3e-3, warm_up=2, looks=3, checkpoint_every=5, width=8, dropout=0.1, mirrored=True, seed=3
)


def bars(count: int = 60, *, held_out: int = 12, side: int = 8) -> ClassPictures:
    """Bright bars on dark ground, lying in class 0 and standing in class 1; as many as asked for are held out."""
    generator = torch.Generator().manual_seed(4)
    pictures = torch.full((count, 1, side, side), 30, dtype=torch.uint8)
    labels = torch.arange(count) % 2
    places = torch.randint(side, (count,), generator=generator).tolist()
    for picture, label, place in zip(pictures[:, 0], labels.tolist(), places, strict=True):
        (picture.T if label else picture)[place] = 220
    splits = torch.zeros(count, dtype=torch.uint8)
    splits[:held_out] = 1
    splits[held_out : held_out + 4] = 2
    return ClassPictures(pictures, labels, splits, ("lying", "standing"))


def same_weights(one: EdmDenoiser, other: EdmDenoiser) -> bool:
    mine, its = one.state_dict(), other.state_dict()
    return mine.keys() == its.keys() and all(torch.equal(mine[name], its[name]) for name in mine)


class Killed(BaseException):
    """What ends a process in the tests."""


def killed_after(steps: int) -> type[Progress]:
    class Mortal(Progress):
        def advance(self, n: int = 1, **fields: float | str) -> None:
            super().advance(n, **fields)
            if self.done >= steps:
                raise Killed

    return Mortal


def train_until_killed(
    monkeypatch: pytest.MonkeyPatch, steps: int, pictures: ClassPictures, settings: DenoiserTraining, folder: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(denoiser_training, "Progress", killed_after(steps))
        with pytest.raises(Killed):
            train_denoiser(pictures, settings, folder)


def test_it_learns_what_bars_look_like(tmp_path: Path) -> None:
    settings = replace(QUICK, steps=120, batch=24, lr=5e-3, warm_up=10, looks=4, dropout=0.0, mirrored=False, width=16)
    denoiser, curves = train_denoiser(bars(), settings, tmp_path / "checkpoint")
    assert [row["step"] for row in curves] == [30, 60, 90, 120]
    assert curves[-1]["validation_loss"] < 0.6 * curves[0]["validation_loss"]
    assert curves[-1]["loss"] < 0.6 * curves[0]["loss"]
    assert not denoiser.training
    # From pure noise, lying bars are expected to be alike along rows, standing ones along columns.
    noise = 3 * torch.randn((8, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        along = []
        for label in (0, 1):
            seen = denoiser(noise, torch.full((8,), 3.0), ClassLabels(torch.full((8,), label)))
            along.append((seen.std(dim=3).mean() / seen.std(dim=2).mean()).item())
    assert along[0] < along[1]


@pytest.mark.parametrize("steps", [3, 5, 9, 12], ids=["before any checkpoint", "at one", "after one", "at the end"])
def test_a_training_that_was_killed_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    whole, curves = train_denoiser(bars(), QUICK, tmp_path / "whole")
    train_until_killed(monkeypatch, steps, bars(), QUICK, tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint").exists() == (steps > 3)
    torch.rand(5)  # somebody else's draws in between
    resumed, resumed_curves = train_denoiser(bars(), QUICK, tmp_path / "checkpoint")
    assert same_weights(whole, resumed)
    assert resumed_curves == curves
    assert not (tmp_path / "checkpoint").exists()


def test_a_checkpoint_saves_the_steps_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_until_killed(monkeypatch, 9, bars(), QUICK, tmp_path / "checkpoint")
    train_denoiser(bars(), QUICK, tmp_path / "checkpoint")
    assert "goes on after step 8" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["settings", "pictures", "damage"])
def test_a_checkpoint_of_something_else_is_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    settings, pictures = QUICK, bars()
    train_until_killed(monkeypatch, 9, pictures, settings, tmp_path / "checkpoint")
    if change == "settings":
        settings = replace(QUICK, lr=1e-3)
    elif change == "pictures":
        pictures = bars(61)
    else:
        (tmp_path / "checkpoint" / "model.safetensors").write_bytes(b"damaged")
    fresh, _ = train_denoiser(pictures, settings, tmp_path / "fresh")
    found, _ = train_denoiser(pictures, settings, tmp_path / "checkpoint")
    assert same_weights(fresh, found)


def test_the_weights_that_validate_best_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([0.5, 0.2, 0.4])
    monkeypatch.setattr(denoiser_training._HeldOut, "loss", lambda *_: next(losses))
    best, curves = train_denoiser(bars(), QUICK, tmp_path / "a")
    assert [row["kept"] for row in curves] == [True, True, False]
    monkeypatch.setattr(denoiser_training._HeldOut, "loss", lambda *_: 1.0)
    first, _ = train_denoiser(bars(), QUICK, tmp_path / "b")
    losses = iter([0.5, 0.4, 0.2])
    monkeypatch.setattr(denoiser_training._HeldOut, "loss", lambda *_: next(losses))
    last, _ = train_denoiser(bars(), QUICK, tmp_path / "c")
    assert not same_weights(best, first)
    assert not same_weights(best, last)


def test_test_pictures_change_nothing(tmp_path: Path) -> None:
    pictures = bars()
    changed = pictures.pictures.clone()
    changed[pictures.splits == 2] = 77
    one, _ = train_denoiser(pictures, QUICK, tmp_path / "a")
    other, _ = train_denoiser(replace(pictures, pictures=changed), QUICK, tmp_path / "a")
    assert same_weights(one, other)


def test_nobody_elses_draws_are_disturbed(tmp_path: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    train_denoiser(bars(), replace(QUICK, steps=2, looks=1), tmp_path / "a")
    assert torch.equal(torch.rand(3), expected)


def test_the_loss_of_a_model_that_knows_nothing_is_one() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = 0.7 * torch.randn((4000, 1, 8, 8), generator=generator)
    noise = torch.randn(samples.shape, generator=generator)
    sigma = torch.logspace(-2, 1.5, 4000)
    denoiser = EdmDenoiser(UNetSpec(1, 8, 1, sigma_data=0.7, width=8))
    with torch.no_grad():
        losses = edm_loss(denoiser, samples, sigma, noise, ClassLabels(torch.zeros(4000, dtype=torch.long)))
    assert losses.mean().item() == pytest.approx(1, abs=0.02)
    assert losses[sigma < 0.1].mean().item() == pytest.approx(1, abs=0.03)
    assert losses[sigma > 10].mean().item() == pytest.approx(1, abs=0.03)


def test_sigmas_are_normal_in_their_logarithm_and_cover_the_ends() -> None:
    settings = replace(QUICK, wide_share=0.0)
    logs = draw_sigmas(settings, 4096, torch_generator(0)).log()
    assert logs.mean().item() == pytest.approx(-1.2, abs=0.01)
    assert logs.std().item() == pytest.approx(1.2, abs=0.01)
    # Evenly spread: even a small batch has the mean of the distribution.
    means = [draw_sigmas(settings, 32, torch_generator(seed)).log().mean().item() for seed in range(50)]
    assert max(abs(mean + 1.2) for mean in means) < 0.15
    wide = draw_sigmas(replace(settings, wide_share=1.0), 4096, torch_generator(1))
    assert 0.002 <= wide.min().item() < 0.0022
    assert 75 < wide.max().item() <= 80


def test_the_running_mean_is_as_wide_as_asked() -> None:
    power = power_of_width(0.1)
    times = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    weights = times**power / (times**power).sum()
    mean = (weights * times).sum()
    assert math.sqrt(float((weights * (times - mean) ** 2).sum())) == pytest.approx(0.1, abs=1e-4)
    assert power == pytest.approx(6.94, abs=0.01)  # the value in the paper


def test_splits_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no pictures in the split val"):
        train_denoiser(bars(held_out=0), QUICK, tmp_path / "a")
    nothing = bars()
    with pytest.raises(BadInput, match="no pictures in the split train"):
        train_denoiser(replace(nothing, splits=torch.ones_like(nothing.splits)), QUICK, tmp_path / "a")


def test_pictures_of_one_tone_are_refused(tmp_path: Path) -> None:
    flat = bars()
    with pytest.raises(BadInput, match="one tone"):
        train_denoiser(replace(flat, pictures=torch.full_like(flat.pictures, 9)), QUICK, tmp_path / "a")


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"the loss is .* lower lr"):
        train_denoiser(bars(), replace(QUICK, lr=1e30), tmp_path / "a")


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"looks": 0}, {"class_dropout": 1.1},
        {"ema_width": 0.5}, {"wide_share": -0.1}, {"warm_up": -1}, {"log_sigma_std": 0.0},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(BadParams, match=f"denoiser: {next(iter(change))} = "):
        replace(QUICK, **change)


def test_sizes_that_do_not_fit_the_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadParams, match="side = 8, expected a multiple of 16"):
        train_denoiser(bars(), replace(QUICK, multipliers=(1, 1, 1, 1, 1)), tmp_path / "a")
