"""The oracle: prices with known answers, and a policy that moves to what is worth it and stops where nothing is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.retoucher.domain.procedural import flat
from tests.retoucher.learn.worlds import ACTIONS, REWARD, VIEW, StoredStarts, darkened, mixture, photos, policy
from vernissage.retoucher.domain.colour import srgb_to_linear
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, slider_index
from vernissage.retoucher.learn.oracle import OracleTrainer, OracleTraining, Unasked, action_gains, gain_loss
from vernissage.retoucher.learn.rewards import came_closer, reference_error

UP, DOWN, STOP = 1, 3, ACTIONS.stop  # strong steps of exposure
LESSONS = OracleTraining(images=32, batch=8, lr=0.01, plan_pace=0.0)


def gains_of(
    faulty: torch.Tensor, reference: torch.Tensor, settings: torch.Tensor | None = None, seed: int = 0
) -> torch.Tensor:
    chosen = torch.zeros(len(faulty), SLIDER_COUNT) if settings is None else settings
    rng = np.random.default_rng(seed)
    return action_gains(srgb_to_linear(faulty), reference, chosen, ACTIONS, rng, harm_aversion=0.5, price=0.02)


def test_on_a_plain_picture_some_pixels_tell_all() -> None:
    faulty, reference = flat(0.25, 0.25, 0.25, size=VIEW), flat(0.4, 0.4, 0.4, size=VIEW)
    gains = gains_of(faulty, reference)[0]
    first = reference_error(faulty, reference)
    for action in (0, UP, 2, DOWN, 5, 17):
        settings = ACTIONS.apply(torch.zeros(1, SLIDER_COUNT), torch.tensor([action]))
        now = reference_error(render(faulty, settings), reference)
        assert gains[action].item() == pytest.approx(float(came_closer(now, first, 0.5)) - 0.02, abs=2e-4)
    assert gains[STOP] == 0
    assert gains[UP] > gains[0] > 0 > gains[2] > gains[DOWN]
    # Without detail there is nothing to smooth or to sharpen: what is left is the price.
    for name in ("denoise", "sharpen"):
        torch.testing.assert_close(gains[4 * slider_index(name)], torch.tensor(-0.02), atol=1e-4, rtol=0)


def test_on_photographs_they_agree_with_the_whole_picture() -> None:
    starts = darkened(photos(6))
    exact = torch.zeros(6, ACTIONS.count)
    first = reference_error(starts.faulty, starts.reference)
    for action in range(STOP):
        settings = ACTIONS.apply(torch.zeros(6, SLIDER_COUNT), torch.full((6,), action))
        now = reference_error(render(starts.faulty, settings), starts.reference)
        exact[:, action] = came_closer(now, first, 0.5) - 0.02
    found = torch.stack([gains_of(starts.faulty, starts.reference, seed=seed) for seed in range(8)]).mean(dim=0)
    light = list(range(4 * slider_index("denoise")))
    assert (found - exact)[:, light].abs().max() < 0.25
    assert torch.equal(found[:, light].argmax(dim=1), exact[:, light].argmax(dim=1))
    assert (found[:, UP] > 0).all()


def test_sharpening_is_priced_among_neighbours() -> None:
    reference = photos(3, side=128)
    settings = torch.zeros(3, SLIDER_COUNT)
    settings[:, slider_index("sharpen")] = 0.6
    sharp = render(reference, settings)
    sharpen = 4 * slider_index("sharpen") + 1
    wanted = torch.stack([gains_of(reference, sharp, seed=seed)[:, sharpen] for seed in range(8)]).mean(dim=0)
    spoilt = torch.stack([gains_of(reference, reference, seed=seed)[:, sharpen] for seed in range(8)]).mean(dim=0)
    assert (wanted > 0).all()
    assert (spoilt < -0.02).all()


def test_gains_depend_on_where_the_sliders_are() -> None:
    faulty, reference = darkened(photos(3)).faulty, photos(3)
    settings = torch.zeros(3, SLIDER_COUNT)
    settings[:, 0] = 1.0
    there = gains_of(faulty, reference, settings)
    assert (there[:, DOWN] > 0).all()
    # At the limit nothing moves, and trying costs.
    torch.testing.assert_close(there[:, UP], torch.full((3,), -0.02))


def test_the_loss_is_minus_the_expected_gain() -> None:
    logits = torch.tensor([[0.0, 0.0, -1e8], [0.0, -1e8, 0.0]])
    gains = torch.tensor([[0.3, 0.1, 9.0], [0.5, 9.0, -0.1]])
    assert gain_loss(logits, gains).item() == pytest.approx(-(0.2 + 0.2) / 2)


def trainer_on(faulty: torch.Tensor, reference: torch.Tensor, settings: OracleTraining = LESSONS) -> OracleTrainer:
    torch.manual_seed(0)
    network = policy()
    # Every action as likely as any other: nothing is known yet.
    network.sensitivity.zero_()
    source = StoredStarts(faulty, reference)
    return OracleTrainer(network, [], source, REWARD, settings, np.random.default_rng(0))


def chances(trainer: OracleTrainer) -> torch.Tensor:
    shown = {name: torch.from_numpy(value) for name, value in trainer.env.reset()[0].items()}
    return torch.softmax(trainer.network(shown)[0], dim=1).detach()


def test_dark_photos_are_learned_to_be_brightened() -> None:
    starts = darkened(photos(8))
    trainer = trainer_on(starts.faulty, starts.reference)
    brighter, darker = [0, UP], [2, DOWN]
    assert chances(trainer)[:, brighter].sum(dim=1).max() < 0.2
    for _ in range(50):
        trainer.step()
    assert trainer.update == 50
    learned = chances(trainer)
    assert learned[:, brighter].sum(dim=1).min() > 0.5
    assert learned[:, darker].max() < 0.01


def test_good_photos_are_learned_to_be_left_alone() -> None:
    trainer = trainer_on(photos(8), photos(8))
    for _ in range(25):
        trainer.step()
    assert (chances(trainer)[:, STOP] > 0.9).all()


def test_the_price_is_that_of_the_mixture() -> None:
    assert mixture(step_penalty=0.5, step_cost=0.02).price() == pytest.approx(0.01)
    assert mixture(reference_distance=1.0).price() == 0


def test_lessons_go_on_where_they_were() -> None:
    starts = darkened(photos(5))
    trainer = trainer_on(starts.faulty, starts.reference)
    assert not trainer.env.begun
    trainer.step()
    state = trainer.env.state()
    trainer.env.restore(state)
    assert trainer.env.begun
    for name, value in trainer.env.state().items():
        assert torch.equal(value, state[name])


def test_updates_cover_all_images() -> None:
    assert LESSONS.updates == 4
    assert replace(LESSONS, images=33).updates == 5
    assert replace(LESSONS, images=0).updates == 0


def test_nobody_is_asked() -> None:
    assert Unasked().score(photos(3)).tolist() == [5, 5, 5]
