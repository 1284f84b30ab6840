"""stable-baselines3's own contract of a vector environment, and PPO that runs on it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from tests.retoucher.learn.worlds import ACTIONS, darkened, photos, policy, stored_env
from vernissage.retoucher.learn.sb3_adapter import Sb3RetouchEnv
from vernissage.retoucher.learn.sb3_policy import PlanPolicy

STARTS = darkened(photos(4))
STOP = ACTIONS.stop


def test_reset_gives_observations_alone_and_step_gives_four_things() -> None:
    env = Sb3RetouchEnv(stored_env(STARTS, slots=3))
    assert isinstance(env, VecEnv)
    observation = env.reset()
    assert isinstance(observation, dict)
    assert all(env.observation_space[key].contains(row) for key, rows in observation.items() for row in rows)
    result = env.step(np.array([0, 1, STOP]))
    assert len(result) == 4
    observation, rewards, dones, infos = result
    assert (rewards.shape, dones.tolist(), len(infos)) == ((3,), [False, False, True], 3)
    assert infos[:2] == [{}, {}]


def test_the_last_observation_of_an_episode_travels_in_its_info() -> None:
    env = Sb3RetouchEnv(stored_env(STARTS, slots=2, horizon=2))
    env.reset()
    before = env.step(np.array([0, STOP]))[0]
    observation, _, dones, infos = env.step(np.array([1, STOP]))
    assert dones.all()
    terminal = infos[0]["terminal_observation"]
    assert env.observation_space.contains(terminal)
    assert terminal["progress"] == 1
    assert terminal["settings"][0] == pytest.approx(0.4)
    np.testing.assert_array_equal(infos[1]["terminal_observation"]["view"], before["view"][1])
    assert observation["progress"].ravel().tolist() == [0, 0]


def test_only_running_out_of_edits_is_called_a_truncation() -> None:
    env = Sb3RetouchEnv(stored_env(STARTS, slots=3, horizon=2))
    env.reset()
    _, _, dones, infos = env.step(np.array([0, 0, STOP]))
    assert dones.tolist() == [False, False, True]
    assert infos[2]["TimeLimit.truncated"] is False
    _, _, dones, infos = env.step(np.array([0, STOP, 0]))
    assert dones.tolist() == [True, True, False]
    assert infos[0]["TimeLimit.truncated"] is True
    assert infos[1]["TimeLimit.truncated"] is False  # stopped with the last edit but one: a real end
    assert infos[2] == {}
    assert infos[0]["edits"] == 2
    assert infos[1]["edits"] == 1
    assert infos[1]["gain_error"] > 0


def test_misuse_is_refused() -> None:
    env = Sb3RetouchEnv(stored_env(STARTS, slots=2))
    env.reset()
    with pytest.raises(RuntimeError, match="step_async"):
        env.step_wait()
    env.step(np.array([0, 0]))
    with pytest.raises(RuntimeError, match="step_async"):
        env.step_wait()
    with pytest.raises(ValueError, match="set_attr"):
        env.set_attr("horizon", 3)


def test_the_rest_of_the_contract() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = Sb3RetouchEnv(stored_env(STARTS, slots=3, horizon=4))
    assert env.get_attr("horizon") == [4, 4, 4]
    assert env.get_attr("horizon", indices=[0]) == [4]
    assert env.env_is_wrapped(VecEnv) == [False] * 3
    assert env.seed(1) == [None] * 3
    env.reset()
    assert [row.tolist() for row in env.env_method("fresh_slots", indices=0)] == [[True] * 3]
    env.close()


def test_ppo_learns_from_one_rollout() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - stable-baselines3 shuffles with it
    network = policy({0: 0.4})
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    env = Sb3RetouchEnv(stored_env(STARTS, slots=4, horizon=3))
    ppo = PPO(
        PlanPolicy,
        env,
        n_steps=8,
        batch_size=16,
        n_epochs=1,
        gamma=1.0,
        policy_kwargs={"network": network},
        device="cpu",
    )
    ppo.learn(32)
    assert ppo.num_timesteps == 32
    assert ppo.policy.network is network
    after = network.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert {"residual.2.weight", "critic.2.weight", "plan_head.2.bias"} <= changed
    assert not changed & {"sensitivity", "deltas"}
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert np.isfinite(ppo.rollout_buffer.returns).all()


def test_the_policy_samples_allowed_actions_only_and_agrees_with_itself() -> None:
    env = Sb3RetouchEnv(stored_env(STARTS, slots=4, horizon=3))
    network = policy({0: 0.4})
    ppo = PPO(PlanPolicy, env, n_steps=4, batch_size=4, policy_kwargs={"network": network}, device="cpu")
    observation = {key: torch.from_numpy(value) for key, value in env.reset().items()}
    masked = ~ACTIONS.allowed(torch.zeros(1, 9))[0]
    for _ in range(20):
        actions, values, log_probability = ppo.policy(observation)
        assert not masked[actions].any()
        again, log_again, entropy = ppo.policy.evaluate_actions(observation, actions)
        torch.testing.assert_close(values, again)
        torch.testing.assert_close(log_probability, log_again)
        assert (entropy > 0).all()
    torch.testing.assert_close(ppo.policy.predict_values(observation), values)
    greedy, _ = ppo.predict({key: value.numpy() for key, value in observation.items()}, deterministic=True)
    np.testing.assert_array_equal(greedy, network(observation)[0].argmax(dim=1).numpy())
