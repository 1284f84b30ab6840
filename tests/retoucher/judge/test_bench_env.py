"""The environment's benchmark: the usual construction does what it should, so that beating it means something.

How fast each is depends on the machine and is measured by `vernissage bench env`, not here.
"""

from __future__ import annotations

import itertools
import queue
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.retoucher.domain.procedural import scene
from vernissage.core.devices import usable_cores
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, SLIDERS, slider_index
from vernissage.retoucher.domain.statistics import photo_statistics
from vernissage.retoucher.judge.bench_env import (
    OURS,
    USUAL,
    CyclingStarts,
    EnvBench,
    EnvRow,
    bench_env,
    made_up_starts,
    measurements,
    ratios,
    thread_counts,
)
from vernissage.retoucher.judge.bench_pool import fresh_rank_juror
from vernissage.retoucher.judge.usual_env import PillowRetouchEnv, pillow_edit, usual_environment
from vernissage.retoucher.learn.actions import ActionTable

if TYPE_CHECKING:
    from collections.abc import Iterator

VIEW, HORIZON = 16, 3
ACTIONS = ActionTable((0.1, 0.3))
STARTS = made_up_starts(VIEW, seed=0)
BENCH = EnvBench(VIEW, slots=4, horizon=HORIZON, strengths=ACTIONS.strengths, seconds=0.05, seed=0)
#: What each slider moves, and where to see it.
SEEN = {
    "exposure": "luma_mean",
    "contrast": "luma_std",
    "highlights": "luma_p75",
    "shadows": "luma_p25",
    "temperature": "cast_b",
    "tint": "cast_a",
    "saturation": "saturation_mean",
    "denoise": "noise",
    "sharpen": "sharpness",
}


def to_pillow(image: torch.Tensor) -> Image.Image:
    return Image.fromarray((image[0] * 255).round().byte().permute(1, 2, 0).numpy())


def to_tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize(
    ("slider", "setting"), [(one.name, setting) for one in SLIDERS for setting in (0.3, -0.3) if setting >= one.low]
)
def test_pillow_moves_a_photo_as_the_slider_does(slider: str, setting: float) -> None:
    index = slider_index(slider)
    noise = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 0.02
    photo = to_tensor(to_pillow((0.2 + 0.6 * scene(48, 48, 3) + noise).clamp(0, 1)))
    settings = torch.zeros(1, SLIDER_COUNT)
    settings[0, index] = setting
    ours, theirs = (
        render(photo, settings),
        to_tensor(pillow_edit(to_pillow(photo), slider, SLIDERS[index].amount(setting))),
    )
    before, wanted, found = (photo_statistics(image)[0][SEEN[slider]] for image in (photo, ours, theirs))
    assert (found - before) * (wanted - before) > 0, (before, wanted, found)
    if slider not in {"denoise", "sharpen", "contrast"}:  # other filters, another pivot
        assert found - before == pytest.approx(wanted - before, rel=0.5, abs=0.01)


@pytest.fixture
def pillow_env() -> Iterator[PillowRetouchEnv]:
    """The environment of one process, with a juror that answers from a thread."""
    questions: queue.Queue[Any] = queue.Queue()
    answers: queue.Queue[Any] = queue.Queue()
    juror = fresh_rank_juror()

    def judge() -> None:
        while (question := questions.get()) is not None:
            answers.put(float(juror.score(to_tensor(Image.fromarray(question[1])))))

    thread = threading.Thread(target=judge)
    thread.start()
    faulty, originals = (
        (t * 255).round().byte().permute(0, 2, 3, 1).numpy() for t in (STARTS.faulty, STARTS.reference)
    )
    photos = (faulty, originals, STARTS.suggestions.numpy())
    yield PillowRetouchEnv(photos, ACTIONS, HORIZON, (questions, answers, 0))  # type: ignore[arg-type]
    questions.put(None)
    thread.join()


def test_the_usual_environment_begins_with_each_photo_in_turn(pillow_env: PillowRetouchEnv) -> None:
    for row in (0, 1):
        observation, _ = pillow_env.reset()
        assert pillow_env.observation_space.contains(observation)
        assert np.array_equal(observation["view"], observation["original"])
        assert np.array_equal(observation["view"], (STARTS.faulty[row] * 255).round().byte().numpy())
        assert not observation["last_action"].any()


def test_an_episode_of_the_usual_environment_pays_what_was_gained(pillow_env: PillowRetouchEnv) -> None:
    pillow_env.reset()
    error, score = pillow_env._error, pillow_env._score
    total = 0.0
    for edits, action in enumerate((0, 7, 20), start=1):
        observation, reward, terminated, truncated, _ = pillow_env.step(action)
        total += reward
        assert pillow_env.observation_space.contains(observation)
        assert (terminated, truncated) == (False, edits == HORIZON)
        assert observation["progress"] == pytest.approx(edits / HORIZON)
        assert observation["last_action"].argmax() == action
    assert total == pytest.approx(error - pillow_env._error + (pillow_env._score - score) / 5)
    assert observation["settings"][0] == pytest.approx(0.1)
    pillow_env.reset()
    _, reward, terminated, truncated, _ = pillow_env.step(ACTIONS.stop)
    assert (reward, terminated, truncated) == (0, True, False)


def test_the_usual_construction_runs_with_the_same_juror() -> None:
    with usual_environment(fresh_rank_juror, STARTS, ACTIONS, processes=2, horizon=HORIZON) as environment:
        observation = environment.reset()
        assert isinstance(observation, dict)
        shown = (STARTS.faulty[:2] * 255).round().byte().numpy()
        np.testing.assert_array_equal(observation["view"], shown)  # each process begins with another photo
        observation, rewards, dones, _ = environment.step(np.array([0, ACTIONS.stop]))
        assert dones.tolist() == [False, True]
        assert rewards[1] == 0
        edited = torch.from_numpy(observation["view"][:1]).float() / 255
        juror, rows = fresh_rank_juror(), slice(0, 1)
        rise = juror.score(edited) - juror.score(STARTS.faulty[rows])
        errors = [10 * (view - STARTS.reference[rows]).square().mean().sqrt() for view in (STARTS.faulty[rows], edited)]
        assert rewards[0] == pytest.approx(float(errors[0] - errors[1] + rise / 5), abs=1e-4)


def test_both_are_measured_in_turns() -> None:
    advanced: list[int] = []
    threads = torch.get_num_threads()
    rows = bench_env(BENCH, processes=(2,), advance=lambda: advanced.append(1))
    assert len(advanced) == measurements((2,)) == 3 * (2 * len(thread_counts()) + 1)
    assert [row.construction for row in rows] == [OURS] * 2 * len(thread_counts()) + [USUAL]
    assert [row.photos for row in rows[:2]] == [BENCH.slots, 2 * BENCH.slots]
    assert (rows[0].setting, rows[-1].setting, rows[-1].photos) == ("1 thread", "2 processes", 2)
    assert all(row.rate == sorted(row.turns)[1] > 0 for row in rows)
    assert all(value > 0 for value in ratios(rows).values())
    assert torch.get_num_threads() == threads


def test_ratios_compare_the_best_with_the_best() -> None:
    figures = [(OURS, 100.0, 1.0), (OURS, 150.0, 2.0), (USUAL, 10.0, 4.0), (USUAL, 15.0, 5.0)]
    rows = [EnvRow(name, "", 1, rate, cpu, (rate,)) for name, rate, cpu in figures]
    assert ratios(rows) == {"rate": 10.0, "cpu": 4.0}


def test_threads_are_tried_as_far_as_there_are_cores() -> None:
    counts = thread_counts()
    assert counts[0] == 1
    assert counts[-1] <= usable_cores() < 2 * counts[-1]
    assert all(b == 2 * a for a, b in itertools.pairwise(counts))


def test_starts_come_in_turn() -> None:
    source = CyclingStarts(STARTS)
    first, second = source.draw(40), source.draw(40)
    assert torch.equal(torch.cat((first.faulty, second.faulty))[:64], STARTS.faulty)
    assert torch.equal(second.reference[24:], STARTS.reference[:16])
    assert torch.equal(second.suggestions[24:], STARTS.suggestions[:16])
    assert (STARTS.faulty - STARTS.reference).abs().mean() > 0.02
