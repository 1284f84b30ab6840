"""The training as a whole: what comes out, what a second run takes over, and what is left out where it does not pay."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.sampler.mixture import Mixture
from vernissage.sampler.domain.unet import EdmDenoiser, UNetSpec
from vernissage.sampler.learn import consistency
from vernissage.sampler.learn.book_making import BookMaking
from vernissage.sampler.learn.consistency import StudentTraining
from vernissage.sampler.learn.grid import GridSearch
from vernissage.sampler.learn.steering import SteeringTraining
from vernissage.sampler.learn.training import SamplerTraining, train_sampler
from vernissage.sampler.prepare.teacher_bank import Bank, RequestMix, make_bank, usual_teacher

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from vernissage.sampler.domain.denoiser import Denoiser

GRID = GridSearch(first_pairs=2, tuned=2, tuning_pairs=8, tuning_factors=(1.5,), moves=1, finalists=2)
BOOK = BookMaking((2, 3), GRID, grid_pairs=16, sigma_steps=2, coefficient_steps=4, less_guidance_steps=2, batch=8)
STEERING = SteeringTraining(decisions=64, slots=8, rollout=4, batch=16, gate_prices=3, resamples=100, choosing_prices=2)


def parts(network: Denoiser, count: int) -> tuple[Bank, Bank]:
    mix, teacher = RequestMix.uneven(4, (1.0, 2.0)), usual_teacher(network, 12)
    train, val = (make_bank(network, part, count, mix, teacher=teacher, check_requests=1) for part in ("train", "val"))
    return train, val


def test_programs_and_a_controller_for_a_network_that_cannot_be_copied(tmp_path: Path) -> None:
    network = Mixture()
    trained = train_sampler(network, *parts(network, 32), SamplerTraining(BOOK, None, STEERING), tmp_path / "scratch")
    assert trained.book.budgets == (2, 3)
    assert trained.student is None
    assert trained.cascade is None
    assert trained.controller is not None
    assert set(trained.tables) == {"programs", "student", "policy", "gate", "choices"}
    assert len(trained.tables["gate"]) == 3
    assert trained.summary["controller"]["prices"] == 3
    assert set(trained.summary["validation_error"]["grid"]) == {"calls_2", "calls_3"}
    json.dumps(trained.summary, allow_nan=False)


def test_the_student_is_not_taught_twice_and_a_cascade_that_does_not_pay_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = EdmDenoiser(UNetSpec(1, 8, 4, width=8, attention_side=0)).eval()
    taught = StudentTraining(updates=3, batch=4, scales=(1.0, 2.0), lot=8, looks=1, validation_requests=4)
    settings = SamplerTraining(replace(BOOK, budgets=(2,)), taught, None, cascade_prices=(0.01,))
    banks = parts(network, 48)
    first = train_sampler(network, *banks, settings, tmp_path)
    assert first.student is not None
    assert first.controller is None
    assert first.summary["cascade"]["prices"] == 1
    assert (first.cascade is not None) == bool(first.summary["cascade"]["prices_it_pays"])

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("taught again")

    monkeypatch.setattr(consistency, "train_student", never)
    again = train_sampler(network, *banks, settings, tmp_path)
    assert again.book == first.book
    assert again.summary == first.summary
