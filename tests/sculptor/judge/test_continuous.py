"""The Gaussian rival: its process has known answers, and a training that was cut off ends as one that was not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.sculptor.judge.small import SHAPE, dataset, planned
from vernissage.core.errors import BadInput, CorruptArtifact
from vernissage.sculptor.domain.roles import OUTSIDE, ROLES
from vernissage.sculptor.judge.continuous import (
    ContinuousSculptor,
    _Trainer,
    as_vectors,
    continuous_arm,
    cosine,
    draw_continuous,
    train_continuous,
)
from vernissage.sculptor.learn.model import SculptorShape
from vernissage.sculptor.learn.training import SculptorTraining

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

TRAINING = SculptorTraining(shape=SHAPE, epochs=2, updates=2, checkpoint_every=1, voxels=6000, captions=1, ema=0.5)


class Sure(ContinuousSculptor):
    """Knows that everything is of one role."""

    role = 3

    def clean(self, x: Tensor, t: Tensor, inside: Tensor, guide: Tensor, condition: Tensor) -> Tensor:
        return as_vectors(torch.full(inside.shape, self.role))


def test_vectors_say_their_roles() -> None:
    roles = torch.tensor([[[[0, 3, OUTSIDE]]]])
    vectors = as_vectors(roles)
    assert vectors.shape == (1, ROLES, 1, 1, 3)
    assert vectors.argmax(1).flatten().tolist() == [0, 3, 0]
    assert sorted(vectors.unique().tolist()) == [-1, 1]


def test_the_schedule_keeps_the_variance() -> None:
    alpha, sigma = cosine(torch.linspace(0, 1, 9))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(9))
    assert alpha[0] == 1
    assert sigma[-1] == 1


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_sure_network_gets_what_it_says(eta: float) -> None:
    for grid, request in zip(draw_continuous(Sure(SHAPE), planned(), 4, eta), planned(), strict=True):
        assert request.plan is not None
        assert grid.shape == request.plan.shape
        assert (grid == Sure.role).all()


def test_noise_belongs_to_the_request() -> None:
    rival = ContinuousSculptor(SHAPE).eval()
    arm = continuous_arm(rival, steps=2)
    assert arm.name == "gaussian DDPM 2"
    together, alone = arm.build(planned()), arm.build(planned()[1:2])
    assert np.mean(together.grids[1] != alone.grids[0]) < 0.01
    assert together.evaluations == (2, 2, 2)


def test_a_training_that_was_cut_off_ends_the_same(tmp_path: Path) -> None:
    whole = train_continuous(dataset(), TRAINING, tmp_path / "whole").state_dict()
    cut = _Trainer(dataset(), TRAINING, tmp_path / "cut")
    assert cut._step() > 0
    cut._step()
    cut._save()
    resumed = train_continuous(dataset(), TRAINING, tmp_path / "cut").state_dict()
    assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.items())
    fresh = ContinuousSculptor(SHAPE).state_dict()
    assert any(not torch.equal(whole[name], tensor) for name, tensor in fresh.items())


def test_it_learns(tmp_path: Path) -> None:
    trainer = _Trainer(
        dataset(), SculptorTraining(shape=SHAPE, epochs=1, updates=24, voxels=6000, captions=1), tmp_path
    )
    losses = [trainer._step() for _ in range(24)]
    assert np.mean(losses[-6:]) < 0.7 * np.mean(losses[:3])


def test_save_and_load(tmp_path: Path) -> None:
    rival = ContinuousSculptor(SHAPE).eval()
    rival.save(tmp_path)
    loaded = ContinuousSculptor.load(tmp_path)
    assert all(torch.equal(tensor, rival.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    next(tmp_path.glob("*.safetensors")).write_bytes(b"nothing")
    with pytest.raises(CorruptArtifact):
        ContinuousSculptor.load(tmp_path)


def test_it_draws_no_coarse_grids(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="coarse"):
        train_continuous(dataset(), SculptorTraining(shape=SculptorShape(first="coarse")), tmp_path)
