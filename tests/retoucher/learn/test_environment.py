"""The world of the agent: Gymnasium's contract, honest endings, and edits that always start from the original."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import given
from hypothesis import strategies as st

from tests.retoucher.learn.worlds import (
    ACTIONS,
    PROPERTY,
    REWARD,
    VIEW,
    darkened,
    mixture,
    photos,
    scene_source,
    stored_env,
)
from tests.retoucher.learn.worlds import untrained_juror as juror
from vernissage.core.errors import CorruptArtifact
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.learn.environment import VIEW_STATISTICS, Observation, RetouchEnv, to_bytes, view_statistics
from vernissage.retoucher.learn.juror import picture_statistics
from vernissage.retoucher.learn.rewards import STRATEGIES, Reward, Standing, Terms, reference_error
from vernissage.retoucher.learn.scenes import Starts

STARTS = darkened(photos(5))
BRIGHTER, STRONGER, DARKER, STOP = 0, 1, 2, ACTIONS.stop


def assert_same(a: Observation, b: Observation) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        np.testing.assert_array_equal(value, b[key], err_msg=key)


def test_reset_and_step_follow_the_declared_spaces() -> None:
    env = stored_env(STARTS, slots=3, horizon=3)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    observation, infos = env.reset()
    assert infos == {}
    rng = np.random.default_rng(0)
    for _ in range(12):
        assert env.observation_space.contains(observation)
        for key, space in env.single_observation_space.items():
            assert observation[key].dtype == space.dtype
            assert observation[key].shape == (3, *space.shape)
            assert all(space.contains(row) for row in observation[key])
        actions = rng.integers(ACTIONS.count, size=3)
        assert env.action_space.contains(actions)
        observation, rewards, terminated, truncated, infos = env.step(actions)
        assert (rewards.shape, rewards.dtype) == ((3,), np.float32)
        assert (terminated.shape, terminated.dtype) == ((3,), np.bool_)
        assert (truncated.shape, truncated.dtype) == ((3,), np.bool_)
        assert np.isfinite(rewards).all()
        assert not (terminated & truncated).any()
        assert ("final_obs" in infos) == bool((terminated | truncated).any())


def test_a_beginning_shows_the_faulty_photo_untouched() -> None:
    observation, _ = stored_env(STARTS, slots=3).reset()
    np.testing.assert_array_equal(observation["original"], to_bytes(STARTS.faulty[:3]).numpy())
    np.testing.assert_array_equal(observation["view"], observation["original"])
    for key in ("settings", "progress", "last_action"):
        assert not observation[key].any()


def test_an_edit_shows_in_every_part_of_the_observation() -> None:
    env = stored_env(STARTS, slots=2, horizon=4)
    env.reset()
    observation, *_ = env.step(np.array([STRONGER, BRIGHTER]))
    settings = torch.zeros(2, 9)
    settings[:, 0] = torch.tensor([0.3, 0.1])
    np.testing.assert_allclose(observation["settings"], settings)
    expected = to_bytes(render(STARTS.faulty[:2], settings)).numpy()
    np.testing.assert_array_equal(observation["view"], expected)
    np.testing.assert_array_equal(observation["original"], to_bytes(STARTS.faulty[:2]).numpy())
    np.testing.assert_allclose(observation["progress"], 0.25)
    np.testing.assert_array_equal(observation["last_action"].argmax(axis=1), [STRONGER, BRIGHTER])
    np.testing.assert_array_equal(observation["last_action"].sum(axis=1), 1)


def test_stopping_on_the_first_step_earns_nothing_and_begins_the_next_photo() -> None:
    env = stored_env(STARTS, slots=2)
    first, _ = env.reset()
    observation, rewards, terminated, truncated, infos = env.step(np.array([STOP, STOP]))
    assert rewards.tolist() == [0.0, 0.0]
    assert terminated.all()
    assert not truncated.any()
    np.testing.assert_array_equal(infos["final_obs"]["view"], first["view"])
    np.testing.assert_array_equal(infos["final_obs"]["last_action"][:, STOP], 1)
    np.testing.assert_array_equal(infos["_final_obs"], [True, True])
    assert infos["edits"].tolist() == [0, 0]
    assert not infos["gain_error"].any()
    assert not infos["gain_score"].any()
    np.testing.assert_array_equal(observation["original"], to_bytes(STARTS.faulty[2:4]).numpy())
    assert not observation["last_action"].any()


def test_running_out_of_edits_is_a_truncation_and_stop_is_a_termination() -> None:
    env = stored_env(STARTS, slots=3, horizon=2)
    env.reset()
    _, _, terminated, truncated, infos = env.step(np.array([BRIGHTER, BRIGHTER, STOP]))
    assert terminated.tolist() == [False, False, True]
    assert not truncated.any()
    np.testing.assert_array_equal(infos["_final_obs"], [False, False, True])
    observation, _, terminated, truncated, infos = env.step(np.array([DARKER, STOP, BRIGHTER]))
    assert terminated.tolist() == [False, True, False]
    assert truncated.tolist() == [True, False, False]
    assert infos["edits"].tolist() == [2, 1, 1]
    np.testing.assert_allclose(infos["final_obs"]["progress"].ravel(), [1.0, 0.5, 0.5])
    np.testing.assert_allclose(observation["progress"].ravel(), [0.0, 0.0, 0.5])


def test_final_observation_is_the_end_of_the_old_photo_not_the_new_one() -> None:
    env = stored_env(STARTS, slots=1, horizon=1)
    env.reset()
    observation, *_, infos = env.step(np.array([STRONGER]))
    settings = torch.zeros(1, 9)
    settings[0, 0] = 0.3
    expected = to_bytes(render(STARTS.faulty[:1], settings)).numpy()
    np.testing.assert_array_equal(infos["final_obs"]["view"], expected)
    np.testing.assert_array_equal(observation["view"], to_bytes(STARTS.faulty[1:2]).numpy())


def test_brightening_a_dark_photo_pays_and_darkening_it_costs() -> None:
    env = stored_env(STARTS, slots=2, reward=mixture(reference_distance=1.0, step_penalty=1.0))
    env.reset()
    _, rewards, *_ = env.step(np.array([STRONGER, STRONGER + 2]))
    assert rewards[0] > 0 > rewards[1]


@PROPERTY
@given(st.lists(st.integers(0, STOP - 1), min_size=1, max_size=5))
def test_an_episode_earns_the_gain_in_potential_minus_the_price_of_its_edits(walk: list[int]) -> None:
    env = stored_env(STARTS, slots=1, horizon=9)
    env.reset()
    earned = sum(float(env.step(np.array([action]))[1][0]) for action in walk)
    _, last, *_, infos = env.step(np.array([STOP]))
    assert last[0] == 0
    view = torch.from_numpy(infos["final_obs"]["settings"])
    result, start = render(STARTS.faulty[:1], view), STARTS.faulty[:1]
    before, after = (reference_error(image, STARTS.reference[:1]) for image in (start, result))
    scores = [juror().score(image) for image in (start, result)]
    end = Standing(after, before, scores[1], scores[0], torch.tensor([len(walk)]))
    assert earned == pytest.approx(float(REWARD.earned(end, REWARD.weights(0))), abs=2e-4)
    assert infos["gain_error"][0] == pytest.approx(float(before - after), abs=1e-4)
    assert infos["gain_score"][0] == pytest.approx(float(scores[1] - scores[0]), abs=1e-3)


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 1)), min_size=1, max_size=3))
def test_sliders_back_at_zero_show_the_original_again(moves: list[tuple[int, bool, int]]) -> None:
    env = stored_env(STARTS, slots=1, horizon=20, reward=mixture(reference_distance=0.7, score_difference=0.3))
    first, _ = env.reset()
    walk = [4 * slider + 2 * down + strength for slider, down, strength in moves]
    back = [4 * slider + 2 * (not down) + strength for slider, down, strength in reversed(moves)]
    if any(abs(sum(ACTIONS.deltas[walk[: i + 1]])[s]) > 1 for i in range(len(walk)) for s in range(7)):
        return
    earned = 0.0
    for action in walk + back:
        observation, rewards, *_ = env.step(np.array([action]))
        earned += float(rewards[0])
    np.testing.assert_allclose(observation["settings"], 0, atol=1e-6)
    # Edits are never stacked on 8-bit results, so nothing is lost on the way.
    np.testing.assert_array_equal(observation["view"], first["view"])
    assert earned == pytest.approx(0, abs=1e-3)


def test_slots_do_not_know_of_each_other() -> None:
    together = stored_env(STARTS, slots=3, horizon=4)
    alone = [
        stored_env(Starts(STARTS.faulty[i : i + 1], STARTS.reference[i : i + 1]), slots=1, horizon=4) for i in range(3)
    ]
    together.reset()
    for env in alone:
        env.reset()
    rng = np.random.default_rng(3)
    for _ in range(3):  # within the first episode
        actions = rng.integers(STOP, size=3)
        observation, rewards, *_ = together.step(actions)
        for row, env in enumerate(alone):
            own, own_rewards, *_ = env.step(actions[row : row + 1])
            assert rewards[row] == pytest.approx(own_rewards[0], abs=1e-4)
            for key, value in own.items():
                np.testing.assert_allclose(observation[key][row].astype(float), value[0].astype(float), atol=1e-6)


def test_what_was_handed_out_never_changes() -> None:
    env = stored_env(STARTS, slots=3, horizon=2)
    handed: list[tuple[Observation, Observation]] = []
    observation, _ = env.reset()
    rng = np.random.default_rng(1)
    for _ in range(8):
        handed.append((observation, deepcopy(observation)))
        observation, rewards, *_, infos = env.step(rng.integers(ACTIONS.count, size=3))
        handed.append(({"rewards": rewards}, {"rewards": rewards.copy()}))
        if infos:
            handed.append((infos["final_obs"], deepcopy(infos["final_obs"])))
    for given_out, copy in handed:
        assert_same(given_out, copy)


def test_the_owner_may_write_into_what_it_was_given() -> None:
    env, twin = stored_env(STARTS, slots=2), stored_env(STARTS, slots=2)
    observation, _ = env.reset()
    twin.reset()
    for value in observation.values():
        value[:] = 0
    for actions in ([BRIGHTER, STOP], [STRONGER, BRIGHTER]):
        after, rewards, *_ = env.step(np.array(actions))
        expected, twin_rewards, *_ = twin.step(np.array(actions))
        assert_same(after, expected)
        np.testing.assert_array_equal(rewards, twin_rewards)
        rewards[:] = 9
        for value in after.values():
            value[:] = 0


def test_misuse_is_refused_with_what_was_expected() -> None:
    env = stored_env(STARTS, slots=2)
    with pytest.raises(RuntimeError, match="before reset"):
        env.step(np.array([STOP, STOP]))
    with pytest.raises(RuntimeError, match="before reset"):
        env.observation()
    with pytest.raises(ValueError, match="randomness"):
        env.reset(seed=1)
    env.reset()
    for actions in ([STOP], [STOP, STOP, STOP], [0, ACTIONS.count], [-1, 0], [[0, 1]]):
        with pytest.raises(ValueError, match=rf"expected \(2,\) from 0 to {STOP}"):
            env.step(np.array(actions))
    env.step(np.array([STOP, STOP]))


class LateJuror:
    """Answers a few times, then its time is up."""

    def __init__(self, answers: int) -> None:
        self.answers = answers

    def score(self, images: torch.Tensor) -> torch.Tensor:
        self.answers -= 1
        if self.answers < 0:
            raise TimeoutError("the juror did not answer in time")
        return torch.full((len(images),), 5.0)


@pytest.mark.parametrize(("answers", "action"), [(1, BRIGHTER), (1, STOP)])
def test_a_juror_that_fails_is_never_a_score(answers: int, action: int) -> None:
    env = stored_env(STARTS, slots=2)
    env.juror = LateJuror(answers)
    env.reset()
    with pytest.raises(TimeoutError, match="in time"):
        env.step(np.array([action, action]))
    with pytest.raises(TimeoutError):
        env.reset()


class BrokenJuror:
    """Scores every picture with the same value, of whatever kind."""

    def __init__(self, value: float, rows: int | None = None) -> None:
        self.value, self.rows = value, rows

    def score(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images) if self.rows is None else self.rows,), self.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_never_paid(value: float) -> None:
    env = stored_env(STARTS, slots=2)
    env.reset()
    env.juror = BrokenJuror(value)
    with pytest.raises(CorruptArtifact, match=r"2 of 2 scores are not numbers.*dvc repro juror"):
        env.step(np.array([BRIGHTER, BRIGHTER]))


def test_a_juror_that_scores_too_few_is_refused() -> None:
    env = stored_env(STARTS, slots=2)
    env.juror = BrokenJuror(5.0, rows=1)
    with pytest.raises(ValueError, match=r"got scores of shape \(1,\), expected \(2,\)"):
        env.reset()


def test_nothing_goes_on_from_half_a_step() -> None:
    env = stored_env(STARTS, slots=2)
    env.reset()
    asked, env.juror = env.juror, LateJuror(0)
    with pytest.raises(TimeoutError):
        env.step(np.array([BRIGHTER, BRIGHTER]))
    assert not env.begun
    with pytest.raises(RuntimeError, match="after a step that failed"):
        env.step(np.array([BRIGHTER, BRIGHTER]))
    env.juror = asked
    observation, _ = env.reset()
    assert not observation["settings"].any()
    env.step(np.array([BRIGHTER, STOP]))


def test_a_step_asks_the_juror_once_for_edits_and_beginnings() -> None:
    asked: list[int] = []

    class Counting:
        def score(self, images: torch.Tensor) -> torch.Tensor:
            asked.append(len(images))
            return torch.full((len(images),), 5.0)

    env = stored_env(STARTS, slots=3, horizon=2)
    env.juror = Counting()
    env.reset()
    env.step(np.array([BRIGHTER, BRIGHTER, STOP]))
    env.step(np.array([BRIGHTER, STOP, BRIGHTER]))
    env.step(np.array([STOP, STOP, STOP]))
    assert asked == [3, 3, 4, 3]


def test_an_episode_keeps_the_weights_with_which_it_began() -> None:
    terms = Terms(harm_aversion=0.0, step_cost=0.1, success_margin=1.0)
    rule = Reward({"step_penalty": (1.0, 0.0)}, terms)
    env = stored_env(STARTS, slots=2, horizon=9, reward=rule)
    env.reset()
    env.training_done = 0.75
    assert env.step(np.array([BRIGHTER, STOP]))[1].tolist() == pytest.approx([-0.1, 0.0])
    assert env.step(np.array([BRIGHTER, BRIGHTER]))[1].tolist() == pytest.approx([-0.1, -0.025])
    env.training_done = 1.0
    assert env.step(np.array([STOP, BRIGHTER]))[1].tolist() == pytest.approx([0.0, -0.025])
    assert env.step(np.array([BRIGHTER, BRIGHTER]))[1].tolist() == pytest.approx([0.0, -0.025])


ANY_REWARD = st.builds(
    Reward,
    st.dictionaries(st.sampled_from(tuple(STRATEGIES)), st.tuples(st.floats(0, 2), st.floats(0, 2))),
    st.builds(Terms, st.floats(0, 2), st.floats(0, 0.2), st.floats(0.01, 2)),
)


@PROPERTY
@given(ANY_REWARD, st.floats(0, 1))
def test_stopping_at_once_earns_exactly_nothing_whatever_is_paid(rule: Reward, done: float) -> None:
    env = stored_env(STARTS, slots=3, reward=rule)
    env.training_done = done
    env.reset()
    for _ in range(2):
        assert env.step(np.array([STOP, STOP, STOP]))[1].tolist() == [0.0, 0.0, 0.0]


def test_stopping_after_an_edit_earns_nothing_more_however_well_it_went() -> None:
    # The defect of an earlier project: the bonus was paid for the act of stopping.
    class Delighted:
        def score(self, images: torch.Tensor) -> torch.Tensor:
            return 10 * images.flatten(1).mean(dim=1)

    env = stored_env(STARTS, slots=1, reward=mixture(success_bonus=1.0, sigmoid_bonus=1.0, success_margin=0.1))
    env.juror = Delighted()
    env.reset()
    assert env.step(np.array([STRONGER]))[1][0] > 1.5
    assert env.step(np.array([STOP]))[1][0] == 0.0


def test_statistics_belong_to_the_pictures_that_are_shown() -> None:
    env = stored_env(STARTS, slots=2, horizon=4)
    first, _ = env.reset()
    observation, *_ = env.step(np.array([STRONGER, STOP]))
    for shown in (first, observation):
        images = {name: torch.from_numpy(shown[name]) for name in ("original", "view")}
        expected = picture_statistics(images["original"].float() / 255)
        torch.testing.assert_close(torch.from_numpy(shown["original_statistics"]), expected)
        torch.testing.assert_close(torch.from_numpy(shown["view_statistics"]), view_statistics(images["view"]))
    assert (observation["view_statistics"][0] != first["view_statistics"][0]).any()
    np.testing.assert_array_equal(observation["original_statistics"][0], first["original_statistics"][0])


def test_view_statistics_known_answers() -> None:
    half = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    half[:, :, :4] = 255
    half[:, 0, :4] = 51
    found = view_statistics(half)[0]
    bins, rest = found[:96].view(4, 24), found[96:]
    assert found.shape == (VIEW_STATISTICS,)
    torch.testing.assert_close(bins.sum(dim=1), torch.full((4,), 4.0))
    assert bins[1, 0] == bins[1, 23] == 2
    assert rest[0] == 0.5  # clipped to black; what is missing from white is the red
    assert rest[1] == 0
    torch.testing.assert_close(rest[2:5], torch.tensor([0.1, 0.5, 0.5]))
    torch.testing.assert_close(rest[5:8], torch.tensor([0.1, 0.5, 0.5]))
    assert rest[8:11].tolist() == [0, 0, 0]
    torch.testing.assert_close(rest[11:14], torch.tensor([0.2, 1.0, 1.0]))
    torch.testing.assert_close(rest[14], torch.tensor(0.4))


def test_a_state_put_back_goes_on_as_if_nothing_had_happened() -> None:
    env, actions = stored_env(STARTS, slots=3, horizon=3), np.random.default_rng(2).integers(ACTIONS.count, size=(8, 3))
    assert env.state() == {}
    assert env.fresh_slots().all()
    env.reset()
    for row in actions[:3]:
        env.step(row)
    env.step(np.array([BRIGHTER, STOP, BRIGHTER]))
    state, place = env.state(), env.source._next
    kept = {name: value.clone() for name, value in state.items()}
    expected = [env.step(row) for row in actions[3:]]

    other = stored_env(STARTS, slots=3, horizon=3)
    other.restore(state)
    other.source._next = place
    assert other.fresh_slots()[1]
    assert other.fresh_slots().sum() == (kept["edits"] == 0).sum()
    for row, (observation, rewards, terminated, truncated, _) in zip(actions[3:], expected, strict=True):
        again = other.step(row)
        assert_same(again[0], observation)
        for a, b in zip(again[1:4], (rewards, terminated, truncated), strict=True):
            np.testing.assert_array_equal(a, b)
    for name, value in kept.items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0)


def test_beginnings_come_from_fresh_faults_and_stored_pairs_however_few_are_drawn() -> None:
    env = RetouchEnv(scene_source(stored_share=0.5), juror(), REWARD, ACTIONS, slots=1, horizon=1, view=VIEW)
    env.reset()
    for _ in range(12):
        observation, rewards, *_ = env.step(np.array([BRIGHTER]))
        assert env.observation_space.contains(observation)
        assert np.isfinite(rewards).all()
