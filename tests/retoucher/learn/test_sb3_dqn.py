"""DQN: values with known answers, exploration that respects masks, a memory that is small and comes back whole."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.retoucher.learn.worlds import (
    ACTIONS,
    VIEW,
    TableNet,
    darkened,
    photos,
    policy,
    reinforcement,
    stored_env,
    undecided,
    valley_env,
)
from vernissage.core.errors import BadParams
from vernissage.retoucher.learn.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from vernissage.retoucher.learn.reinforcement import Reinforcement, start_learner
from vernissage.retoucher.learn.sb3_dqn import DqnLearner, EpisodeReplay, PlanQNet

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.retoucher.learn.environment import Observation, RetouchEnv
    from vernissage.retoucher.learn.network import PolicyNet

UP, STOP = 1, ACTIONS.stop
CPU = torch.device("cpu")
STARTS = darkened(photos(4))


def tensors(observation: Observation) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in observation.items()}


def learner_on(network: PolicyNet, env: RetouchEnv, settings: Reinforcement) -> DqnLearner:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - stable-baselines3 draws from it
    return DqnLearner(network, [], env, settings, CPU)


def test_before_learning_values_are_the_plans_prices_and_stopping_is_worth_nothing() -> None:
    network = policy({0: 0.4, 4: -0.3})
    observation = tensors(stored_env(STARTS, slots=4).reset()[0])
    values = PlanQNet(network, STOP)(observation)
    logits, _ = network(observation)
    allowed = ACTIONS.allowed(torch.zeros(4, 9))
    prices = logits / torch.exp(network.log_sharpness)
    torch.testing.assert_close(values[allowed], prices[allowed])
    assert (values[:, STOP] == 0).all()
    assert (values[~allowed] < -1e5).all()
    # The greedy policy of values and of logits is one.
    torch.testing.assert_close(values.argmax(dim=1), logits.argmax(dim=1))
    # The first edit towards the plan is worth its price: the fall of the expected error less the cost of an edit.
    assert float(values[0, 1].detach()) == pytest.approx(10 * (0.5 - (0.1**2 + 0.3**2) ** 0.5) - 0.02, abs=1e-3)


def test_values_keep_their_unit_while_the_sharpness_learns() -> None:
    network = policy({0: 0.4})
    values = PlanQNet(network, STOP)
    observation = tensors(stored_env(STARTS, slots=1).reset()[0])
    before = values(observation)
    network.log_sharpness.data.add_(1.0)
    torch.testing.assert_close(values(observation)[0, :4], torch.e * before[0, :4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("gamma", "crosses"), [(1.0, True), (0.05, False)])
def test_values_of_the_valley_are_what_it_pays(gamma: float, crosses: bool) -> None:
    network = TableNet({UP: 0.5, STOP: 0.0})
    settings = reinforcement(
        algorithm="dqn", slots=8, rollout=2, epochs=12, batch=16, lr=0.03, gamma=gamma, dqn_exploration=(0.05, 0.05),
        dqn_buffer=512, dqn_target_every=16,
    )  # fmt: skip
    learner = learner_on(network, valley_env(slots=8), settings)  # type: ignore[arg-type]
    for _ in range(40):
        learner.iterate(0.0)
    first, second = (network.logits - network.logits[:, STOP:])[:2].detach()
    if crosses:  # where it stops at once, the second view is seldom come by
        assert float(second[UP]) == pytest.approx(1.0, abs=0.15)
    assert float(first[UP]) == pytest.approx(-0.2 + gamma * 1.0, abs=0.15)
    assert (first.argmax() == UP) == crosses


def test_a_photo_without_edits_left_is_worth_what_stopping_is() -> None:
    network = undecided({UP: 0.0, STOP: 0.0})
    settings = reinforcement(algorithm="dqn", slots=2, rollout=1, batch=2, lr=1e-9)
    learner = learner_on(network, valley_env(slots=2, horizon=1), settings)
    learner.iterate(0.0)
    memory = learner.dqn.replay_buffer
    assert isinstance(memory, EpisodeReplay)
    np.testing.assert_allclose(memory.rewards[0], -0.2, atol=1e-5)
    # Out of edits after one: a time-out, which is looked up; what is found there is that only stop is left.
    assert memory.dones[0].tolist() == memory.timeouts[0].tolist() == [1, 1]
    sample = memory.sample(4)
    assert (sample.dones == 0).all()
    assert (sample.next_observations["progress"] == 1).all()
    assert (learner.dqn.q_net_target(sample.next_observations).max(dim=1).values == 0).all()


def test_random_edits_are_drawn_slot_by_slot_and_only_among_allowed_ones() -> None:
    env = stored_env(STARTS, slots=64)
    learner = learner_on(policy({0: 0.4}), env, reinforcement(algorithm="dqn", slots=64, rollout=1))
    observation = env.reset()[0]
    allowed = ACTIONS.allowed(torch.zeros(64, 9)).numpy()
    greedy, _ = learner.dqn.predict(observation, deterministic=True)
    learner.dqn.exploration_rate = 0.5
    tried = np.stack([learner.dqn.predict(observation)[0] for _ in range(40)])
    assert allowed[np.arange(64), tried].all()
    # Within one step some slots explore and some do not.
    explored = (tried != greedy).mean(axis=1)
    assert ((explored > 0.2) & (explored < 0.8)).all()
    # Uniform over what is allowed: every action comes up, none far more often.
    counts = np.bincount(tried[tried != greedy], minlength=ACTIONS.count)
    open_to = allowed[0].copy()
    open_to[greedy[0]] = False
    assert (counts[open_to] > 0).all()
    assert counts[open_to].max() < 3 * counts[open_to].mean()
    learner.dqn.exploration_rate = 0.0
    np.testing.assert_array_equal(learner.dqn.predict(observation)[0], greedy)


def test_exploration_falls_from_the_first_share_to_the_last() -> None:
    settings = reinforcement(algorithm="dqn", slots=2, rollout=1, batch=2, lr=1e-9, dqn_exploration=(0.4, 0.1))
    learner = learner_on(policy(), stored_env(STARTS, slots=2), settings)
    for done, expected in ((0.0, 0.4), (0.5, 0.25), (1.0, 0.1)):
        learner.iterate(done)
        assert learner.dqn.exploration_rate == pytest.approx(expected)
        assert learner.env.training_done == done


def test_the_target_is_copied_as_often_as_asked() -> None:
    settings = reinforcement(algorithm="dqn", slots=2, rollout=2, batch=4, epochs=1, lr=1e-2, dqn_target_every=8)
    learner = learner_on(policy({0: 0.4}), stored_env(STARTS, slots=2), settings)
    versions = []
    for _ in range(6):
        learner.iterate(0.0)
        versions.append(learner.dqn.q_net_target.network.residual[-1].bias.clone())
    same = [torch.equal(a, b) for a, b in pairwise(versions)]
    # Four edits between two updates, a copy every eight, before the update that follows.
    assert same == [False, True, False, True, False]


def test_what_an_episode_never_changes_is_held_once_and_thumbnails_stay_bytes() -> None:
    env = stored_env(STARTS, slots=4)
    learner = learner_on(policy(), env, reinforcement(algorithm="dqn", slots=4, rollout=4, dqn_buffer=64))
    memory = learner.dqn.replay_buffer
    assert isinstance(memory, EpisodeReplay)
    assert memory.observations["view"].dtype == memory.next_observations["view"].dtype == np.uint8
    thumbnail = 3 * VIEW * VIEW
    numbers = memory.nbytes() / 64 - 3 * thumbnail
    assert 0 < numbers < 2600
    learner.iterate(0.0)
    sample = memory.sample(32)
    for name in ("original", "original_statistics", "suggestions"):
        assert torch.equal(sample.observations[name], sample.next_observations[name])
    edited = sample.actions.flatten() != STOP
    changed = (sample.observations["settings"] != sample.next_observations["settings"]).any(dim=1)
    assert torch.equal(changed, edited)


def test_a_memory_put_back_gives_the_same_edits(tmp_path: Path) -> None:
    env = stored_env(STARTS, slots=4)
    settings = reinforcement(algorithm="dqn", slots=4, rollout=4, dqn_buffer=24, dqn_exploration=(0.5, 0.5))
    learner = learner_on(policy({0: 0.4}), env, settings)
    other = learner_on(policy({0: 0.4}), stored_env(STARTS, slots=4), settings)
    for rollouts, full in ((1, False), (1, True)):  # six edits per slot fit
        for _ in range(rollouts):
            learner.iterate(0.0)
        first, second = learner.dqn.replay_buffer, other.dqn.replay_buffer
        assert isinstance(first, EpisodeReplay)
        assert isinstance(second, EpisodeReplay)
        save_checkpoint(tmp_path / "memory", Checkpoint(first.state(), {}))
        saved = load_checkpoint(tmp_path / "memory")
        assert saved is not None
        second.restore(saved.tensors)
        assert (second.pos, second.full) == (first.pos, full)
        np.random.seed(3)  # noqa: NPY002
        expected = first.sample(16)
        np.random.seed(3)  # noqa: NPY002
        found = second.sample(16)
        for name, rows in expected.observations.items():
            assert torch.equal(rows, found.observations[name])
            assert torch.equal(expected.next_observations[name], found.next_observations[name])
        for name in ("actions", "rewards", "dones"):
            assert torch.equal(getattr(expected, name), getattr(found, name))


def test_the_algorithm_is_chosen_by_its_name() -> None:
    settings = reinforcement(algorithm="dqn")
    assert isinstance(start_learner(policy(), [], stored_env(STARTS, slots=4), settings, CPU), DqnLearner)
    with pytest.raises(BadParams, match="'sac', expected one of ppo, dqn"):
        start_learner(policy(), [], stored_env(STARTS, slots=4), reinforcement(algorithm="sac"), CPU)
