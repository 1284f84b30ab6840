"""PPO: a later reward pays for an earlier step, with answers that are known; masks hold while it tries things out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.retoucher.learn.worlds import (
    ACTIONS,
    TableNet,
    darkened,
    photos,
    policy,
    reinforcement,
    stored_env,
    undecided,
    valley_env,
)
from vernissage.retoucher.learn.planner import PlannerTrainer, PlannerTraining
from vernissage.retoucher.learn.reinforcement import start_learner
from vernissage.retoucher.learn.sb3_policy import PpoLearner
from vernissage.retoucher.learn.scenes import Starts

UP, STOP = 1, ACTIONS.stop  # the strong step of exposure
CPU = torch.device("cpu")


def after_one_rollout(gamma: float, gae_lambda: float, *, value: float, stops: bool = False) -> PpoLearner:
    """Both slots go up until the horizon of two edits, or stop at once."""
    torch.manual_seed(0)
    network = undecided({STOP: 0.0} if stops else {UP: 0.0}, value)
    settings = reinforcement(slots=2, rollout=3, batch=6, lr=1e-9, gamma=gamma, gae_lambda=gae_lambda)
    learner = PpoLearner(network, [], valley_env(slots=2), settings, CPU)
    learner.iterate(0.0)
    return learner


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_with_lambda_one_an_edit_is_credited_with_all_that_follows(value: float) -> None:
    learner = after_one_rollout(1.0, 1.0, value=value)
    buffer = learner.ppo.rollout_buffer
    # The episode pays -0.2 and 1.0; then no edit is left, and the critic is not asked what might follow. The third edit
    # begins the next episode, and there it is asked.
    earned = np.array([-0.2 + 1.0, 1.0, -0.2 + value])
    # After an update the buffer is flat, one slot after the other.
    np.testing.assert_allclose(buffer.returns.reshape(2, 3), [earned] * 2, atol=1e-5)
    np.testing.assert_allclose(buffer.advantages.reshape(2, 3), [earned - value] * 2, atol=1e-5)


def test_generalised_advantages_known_answer() -> None:
    gamma, share, value = 0.9, 0.8, 0.5
    buffer = after_one_rollout(gamma, share, value=value).ppo.rollout_buffer
    # Schulman et al. 2016, equation 16, by hand: what each edit brings beyond what the critic said.
    surprises = [-0.2 + gamma * value - value, 1.0 - value, -0.2 + gamma * value - value]
    expected = [surprises[0] + gamma * share * surprises[1], surprises[1], surprises[2]]
    np.testing.assert_allclose(buffer.advantages.reshape(2, 3), [expected] * 2, atol=1e-5)


def test_what_the_critic_says_of_a_finished_photo_is_never_fed_back() -> None:
    # Without a discount, a critic that learns from its own guess beyond the last edit grows without end.
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    network = undecided({UP: 0.0})
    settings = reinforcement(slots=4, rollout=4, epochs=4, batch=16, lr=0.003, gae_lambda=0.95)
    learner = PpoLearner(network, [], valley_env(slots=4), settings, CPU)
    for _ in range(12):
        learner.iterate(0.0)
    first = {name: torch.from_numpy(value) for name, value in valley_env(slots=1).reset()[0].items()}
    assert network(first)[1].item() == pytest.approx(0.8, abs=0.3)


def test_stopping_ends_an_episode_and_nothing_is_expected_after_it() -> None:
    buffer = after_one_rollout(1.0, 1.0, value=0.5, stops=True).ppo.rollout_buffer
    np.testing.assert_allclose(buffer.returns, 0.0, atol=1e-6)
    np.testing.assert_allclose(buffer.advantages, -0.5, atol=1e-6)


def test_the_reward_that_is_told_is_what_was_paid_without_bootstrapped_values() -> None:
    torch.manual_seed(0)
    settings = reinforcement(slots=2, rollout=2, batch=4, lr=1e-9)
    learner = PpoLearner(undecided({UP: 0.0}, 7.0), [], valley_env(slots=2), settings, CPU)
    assert learner.iterate(0.0) == pytest.approx((-0.2 + 1.0) / 2, abs=1e-5)
    with pytest.raises(RuntimeError, match="no step"):
        learner.adapter.take_mean_reward()


@pytest.mark.parametrize(("gamma", "crosses"), [(1.0, True), (0.05, False)])
def test_the_valley_is_crossed_only_where_later_rewards_count(gamma: float, crosses: bool) -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - stable-baselines3 shuffles with it
    network = TableNet({UP: 0.0, STOP: 0.0})
    settings = reinforcement(slots=16, rollout=4, epochs=4, batch=64, lr=0.1, gamma=gamma, gae_lambda=0.95)
    learner = start_learner(network, [], valley_env(slots=16), settings, CPU)  # type: ignore[arg-type]
    for _ in range(15):
        learner.iterate(0.0)
    first, second = torch.softmax(network.logits[:2], dim=1)
    assert second[UP] > 0.8
    assert (first[UP] > 0.9) == crosses
    assert (first[STOP] > 0.9) == (not crosses)


def test_masked_actions_are_never_tried() -> None:
    torch.manual_seed(0)
    # Every action alike: only the mask keeps the policy from settings that the sliders do not have.
    network = undecided(dict.fromkeys(range(ACTIONS.count), 0.0))
    starts = darkened(photos(4))
    env = stored_env(Starts(starts.faulty, starts.reference), slots=8, horizon=6)
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    step = env.step

    def watched(actions: np.ndarray) -> object:
        seen.append((env.observation()["settings"], np.array(actions)))
        return step(actions)

    env.step = watched  # type: ignore[method-assign]
    learner = PpoLearner(network, [], env, reinforcement(slots=8, rollout=16, batch=128, lr=1e-9), CPU)
    learner.iterate(0.0)
    assert len(seen) == 16
    for settings, actions in seen:
        allowed = ACTIONS.allowed(torch.from_numpy(settings))
        assert allowed[torch.arange(8), torch.from_numpy(actions)].all()
    # The sliders that only go up start at their limit, so there was something to mask.
    assert not ACTIONS.allowed(torch.zeros(1, 9)).all()


def test_the_plan_learns_at_its_own_pace_or_not_at_all() -> None:
    def moved(pace: float) -> dict[str, float]:
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        network = policy({0: 0.4})
        plan = PlannerTrainer(network, None, PlannerTraining(8, 8, 0.01, 0.0)).optimiser.param_groups  # type: ignore[arg-type]
        weights = [parameter for group in plan for parameter in group["params"]]
        before = {name: value.clone() for name, value in network.named_parameters()}
        settings = reinforcement(slots=4, rollout=4, batch=16, lr=1e-3, plan_pace=pace)
        learner = PpoLearner(network, weights, stored_env(darkened(photos(4)), slots=4), settings, CPU)
        learner.iterate(0.0)
        rates = [group["lr"] for group in learner.ppo.policy.optimizer.param_groups]
        assert rates == pytest.approx([1e-3, 1e-3 * pace] if pace else [1e-3])
        after = dict(network.named_parameters())
        return {name: float((after[name] - value).abs().max().detach()) for name, value in before.items()}

    alike, slow, still = moved(1.0), moved(0.1), moved(0.0)
    assert alike["plan_head.2.weight"] > 0
    assert slow["plan_head.2.weight"] == pytest.approx(0.1 * alike["plan_head.2.weight"], rel=0.02)
    assert still["plan_head.2.weight"] == still["trunk.convolutions.0.weight"] == 0
    assert slow["residual.2.weight"] == pytest.approx(alike["residual.2.weight"], rel=0.02)
    assert still["residual.2.weight"] > 0
