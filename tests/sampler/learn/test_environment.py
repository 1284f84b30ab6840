from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecCheckNan, VecMonitor, VecNormalize

from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadParams
from vernissage.sampler.domain.denoiser import Counted
from vernissage.sampler.domain.programs import dpmpp
from vernissage.sampler.domain.schedules import karras
from vernissage.sampler.learn.book import Entry, ProgramBook
from vernissage.sampler.learn.environment import Episodes, SteeringEnv
from vernissage.sampler.learn.experts import ACTIONS, EXPERTS, STATIC
from vernissage.sampler.learn.features import FEATURES, prices_of
from vernissage.sampler.learn.grid import Course
from vernissage.sampler.learn.rewards import Pooled
from vernissage.sampler.prepare.teacher_bank import Bank, RequestMix, make_bank

if TYPE_CHECKING:
    from collections.abc import Iterator

TAU = 0.1


@pytest.fixture(scope="module")
def bank() -> Bank:
    return make_bank(Mixture(), "train", 60, RequestMix.uneven(4, (1.0, 2.0)))


@pytest.fixture(scope="module")
def book(bank: Bank) -> ProgramBook:
    entries = []
    for scale in (1.0, 2.0):
        pairs = bank.rows(bank.scales == scale)
        for calls in (2, 3, 4, 6):
            program = dpmpp(karras(calls, 0.05, 10.0))
            score = Course(Mixture(), pairs, TAU).scores([program])[0]
            entries.append(Entry(program, scale, (1.0,) * calls, "grid", score))
    return ProgramBook(tuple(entries), TAU, "grid")


def an_env(bank: Bank, book: ProgramBook, network: Any = None, **settings: Any) -> SteeringEnv:
    episodes = Episodes(**{"slots": 12, "likeness_weight": 0.0, "budget_share": 0.3, **settings})
    return SteeringEnv(network or Mixture(), book, bank, episodes, embedding=Pooled(Mixture.shape))


def steps(env: SteeringEnv, count: int, seed: int | None = None) -> Iterator[tuple[np.ndarray, ...]]:
    """Act, by chance or as the static program does."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        actions = np.tile(STATIC, (env.num_envs, 1))
        if seed is not None:
            actions = rng.integers(ACTIONS, size=actions.shape)
        yield env.step(actions)


def test_spaces_are_as_promised(bank: Bank, book: ProgramBook) -> None:
    env = an_env(bank, book)
    assert env.observation_space.shape == (64,)
    assert env.observation_space.dtype == np.float32
    assert tuple(env.action_space.nvec) == ACTIONS
    check_for_correct_spaces(env, env.observation_space, env.action_space)
    seen = env.reset()
    assert seen.shape == (12, 64)
    assert seen.dtype == np.float32
    for observations, rewards, dones, infos in steps(env, 10, seed=0):
        assert observations.shape == (12, 64)
        assert observations.dtype == np.float32
        assert all(env.observation_space.contains(row) for row in observations)
        assert rewards.shape == dones.shape == (12,)
        assert rewards.dtype == np.float32
        assert dones.dtype == bool
        assert isinstance(infos, list)
        assert len(infos) == 12


def test_stable_baselines_works_with_it(bank: Bank, book: ProgramBook) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        env = an_env(bank, book)
        wrapped = VecNormalize(VecCheckNan(VecMonitor(env), raise_exception=True), norm_obs=False, gamma=1.0)
        before = torch.random.get_rng_state()
        ppo = PPO("MlpPolicy", wrapped, n_steps=4, batch_size=24, n_epochs=1, device="cpu")
        ppo.learn(96)
        torch.random.set_rng_state(before)
    assert ppo.num_timesteps == 96
    assert env.env_is_wrapped(VecMonitor) == [False] * 12
    assert env.get_attr("num_envs", [0, 3]) == [12, 12]
    with pytest.raises(ValueError, match="share one environment"):
        env.set_attr("book", None)


def test_following_the_static_program_is_worth_nothing(bank: Bank, book: ProgramBook) -> None:
    env = an_env(bank, book)
    env.reset()
    ended = 0
    for _, rewards, dones, infos in steps(env, 20):
        assert rewards == pytest.approx(np.zeros(12), abs=1e-5)
        for info in (infos[slot] for slot in np.flatnonzero(dones)):
            assert info["error"] == pytest.approx(info["static_error"], abs=1e-5)
            assert info["nfe"] == info["static_nfe"]
            assert info["reason"] == "end"
            assert sum(info["experts"]) == info["experts"][EXPERTS.index("BalancedMaster")]
            ended += 1
    found = env.take()
    assert found.episodes == ended > 12
    assert found.not_static == 0
    assert found.improvement == pytest.approx(0, abs=1e-6)
    assert np.isnan(env.take().reward)


def test_rewards_are_what_infos_say(bank: Bank, book: ProgramBook) -> None:
    env = an_env(bank, book, prices=(0.01, 0.2))
    seen = env.reset()
    ended = []
    for observations, rewards, dones, infos in steps(env, 25, seed=1):
        assert (rewards[~dones] == 0).all()
        assert all(not infos[slot] for slot in np.flatnonzero(~dones))
        for slot in np.flatnonzero(dones):
            info = infos[slot]
            ended.append(info)
            assert (info["terminal_observation"] == seen[slot]).all()
            assert info["price"] == pytest.approx(prices_of(seen[slot : slot + 1])[0], rel=1e-4)
            gain = np.exp(-(info["error"] ** 2) / (2 * TAU**2)) - np.exp(-(info["static_error"] ** 2) / (2 * TAU**2))
            expected = gain - info["price"] * (info["nfe"] - info["static_nfe"])
            assert rewards[slot] == pytest.approx(expected, abs=1e-6)
            assert info["reward"] == pytest.approx(expected, abs=1e-6)
            assert 0 <= info["request"] < len(bank)
            # The slot goes on with another request at once.
            assert observations[slot, FEATURES.index("evaluations")] == 0
        seen = observations
    assert {info["reason"] for info in ended} >= {"end", "stop"}
    assert all(0.01 <= info["price"] <= 0.2 for info in ended)
    assert np.std(np.log([info["price"] for info in ended])) > 0.5


def test_a_used_up_budget_is_an_end_and_not_a_cut(bank: Bank, book: ProgramBook) -> None:
    env = an_env(bank, book, budget_share=1.0)
    env.reset()
    longest = np.tile((0, EXPERTS.index("QualityMaster"), 0, 0), (12, 1))
    infos = [info for _ in range(30) for info in env.step(longest)[3] if info]
    assert {info["reason"] for info in infos} >= {"budget"}
    assert not any("TimeLimit.truncated" in info for info in infos)


def test_a_step_is_one_call_of_the_network(bank: Bank, book: ProgramBook) -> None:
    network = Counted(Mixture())
    env = an_env(bank, book, network)
    env.reset()
    # Static programs have answered by now; nothing but slots calls any more.
    every = np.arange(len(bank))
    for place in range(len(env.static.entries)):
        env.static.errors(every, np.full(len(bank), place))
    before = network.calls
    assert len(list(steps(env, 15, seed=2))) == 15
    assert network.calls == before + 15


def test_a_restored_environment_goes_on_to_the_bit(bank: Bank, book: ProgramBook) -> None:
    env = an_env(bank, book, likeness_weight=0.05)
    env.reset()
    list(steps(env, 9, seed=3))
    env.discriminator.refresh()
    state = env.state()
    first = env.reset()
    played = list(steps(env, 30, seed=4))
    other = an_env(bank, book, likeness_weight=0.05, seed=99)
    other.restore(state)
    assert (other.reset() == first).all()
    for mine, theirs in zip(played, steps(other, 30, seed=4), strict=True):
        for left, right in zip(mine[:3], theirs[:3], strict=True):
            assert (left == right).all()
        assert [info.get("reward") for info in mine[3]] == [info.get("reward") for info in theirs[3]]


def test_seeds_decide_what_is_drawn(bank: Bank, book: ProgramBook) -> None:
    first, same, other = (an_env(bank, book, seed=seed).reset() for seed in (1, 1, 2))
    assert (first == same).all()
    assert (first != other).any()
    env = an_env(bank, book, seed=2)
    env.seed(1)
    assert (env.reset() == first).all()


def test_the_discriminator_has_a_small_say(bank: Bank, book: ProgramBook) -> None:
    env = an_env(bank, book, likeness_weight=0.05)
    env.reset()
    list(steps(env, 20, seed=5))
    env.discriminator.refresh()
    assert env.discriminator.fitted
    terms = [
        info["reward"] - info["improvement"] for _, _, _, infos in steps(env, 20, seed=6) for info in infos if info
    ]
    assert 0 < np.abs(terms).max() <= 0.05


def test_misuse_is_told(bank: Bank, book: ProgramBook) -> None:
    env = an_env(bank, book)
    env.step_async(np.tile(STATIC, (12, 1)))
    with pytest.raises(RuntimeError, match="reset"):
        env.step_wait()
    with pytest.raises(BadParams, match="embedding"):
        SteeringEnv(Mixture(), book, bank, Episodes())
    for settings in ({"slots": 0}, {"prices": (0.0, 0.1)}, {"prices": (0.2, 0.1)}, {"budget_share": 2.0}):
        with pytest.raises(BadParams, match="episodes"):
            Episodes(**settings)  # type: ignore[arg-type]
