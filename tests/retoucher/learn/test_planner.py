"""Teaching the plan: what sliders do to pictures, the loss, and learning something easy in seconds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.retoucher.domain.procedural import flat
from tests.retoucher.learn.worlds import StoredStarts, darkened, photos, plan, policy
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, slider_index
from vernissage.retoucher.learn.planner import (
    PlannerTrainer,
    PlannerTraining,
    planner_loss,
    slider_sensitivity,
)
from vernissage.retoucher.learn.rewards import reference_error


def test_every_slider_changes_photographs_and_light_changes_them_most() -> None:
    sensitivity = slider_sensitivity(photos(6, side=48))
    assert sensitivity.shape == (SLIDER_COUNT,)
    assert (sensitivity > 0).all()
    assert sensitivity[slider_index("exposure")] > 2 * sensitivity[slider_index("saturation")]


def test_sliders_of_colour_and_detail_do_nothing_to_a_plain_grey() -> None:
    sensitivity = slider_sensitivity(flat(0.5, 0.5, 0.5, size=32))
    assert sensitivity[slider_index("exposure")] > 1e-2
    for name in ("saturation", "denoise", "sharpen", "contrast"):
        assert sensitivity[slider_index(name)] < 1e-6


def test_loss_known_answers() -> None:
    reference = flat(0.5, 0.5, 0.5)
    off = flat(0.6, 0.6, 0.6)
    first = torch.tensor([1.0])
    near = {"rel": 1e-3}
    assert float(planner_loss(off, reference, first, 0.5, 0.0)) == pytest.approx(1.0, **near)
    assert float(planner_loss(off, reference, torch.tensor([0.6]), 0.5, 0.0)) == pytest.approx(1.2, **near)
    assert float(planner_loss(off, reference, first, 0.5, 0.4)) == pytest.approx(
        1.0 + 0.4 * np.log10(0.01 + 5e-5), **near
    )
    assert float(planner_loss(reference, reference, first, 0.5, 0.0)) == pytest.approx(0.01, **near)


def test_a_perfect_result_has_a_finite_gradient() -> None:
    result = flat(0.5, 0.5, 0.5).requires_grad_()
    planner_loss(result, flat(0.5, 0.5, 0.5), torch.tensor([0.0]), 1.0, 0.4).backward()
    assert torch.isfinite(result.grad).all()


def test_learning_rate_warms_up_and_falls_to_two_percent() -> None:
    trainer = PlannerTrainer(policy(), StoredStarts(photos(1), photos(1)), PlannerTraining(2000, 10, 0.01, 0.0))
    assert trainer.settings.updates == 200
    rates = []
    for trainer.update in range(201):
        rates.append(trainer.learning_rate())
    assert rates[0] == pytest.approx(0.01 / 30, rel=0.01)
    assert max(rates) == pytest.approx(0.01, rel=0.06)
    assert np.argmax(rates) in range(28, 31)
    assert rates[200] == pytest.approx(0.0002, rel=0.01)
    assert PlannerTraining(11, 10, 0.01, 0.0).updates == 2


def test_a_fault_that_is_always_the_same_is_soon_put_right() -> None:
    starts = darkened(photos(12, side=16), stops=-1.0)
    network = policy(view=16)
    trainer = PlannerTrainer(
        network, StoredStarts(starts.faulty, starts.reference), PlannerTraining(480, 12, 0.01, 0.5)
    )
    before = reference_error(starts.faulty, starts.reference).mean()
    losses: list[float] = []
    untouched = {name: p.clone() for name, p in network.named_parameters() if name.startswith(("residual", "critic"))}
    trainer.run(losses.append)
    assert len(losses) == trainer.update == 40
    assert losses[0] == pytest.approx(float(before), rel=0.01)
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    # One stop is half of the exposure slider.
    assert plan(network, starts.faulty)[:, slider_index("exposure")].mean() > 0.2
    held_out = darkened(photos(3, side=16, first=50), stops=-1.0)
    assert plan(network, held_out.faulty)[:, slider_index("exposure")].min() > 0.1
    for name, parameter in network.named_parameters():
        if name in untouched:
            assert torch.equal(parameter, untouched[name]), name
    assert len(network.plan_parameters()) < len(list(network.parameters()))
