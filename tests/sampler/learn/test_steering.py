from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadInput, BadParams
from vernissage.sampler.domain.programs import dpmpp
from vernissage.sampler.domain.schedules import karras
from vernissage.sampler.learn.book import Entry, ProgramBook
from vernissage.sampler.learn.controller import SteeringController
from vernissage.sampler.learn.experts import ACTIONS, EXPERTS, STATIC
from vernissage.sampler.learn.features import FEATURES, SAMPLE_FEATURES
from vernissage.sampler.learn.grid import Course
from vernissage.sampler.learn.policies import EmbeddedError, Fixed, Random, Static, roll
from vernissage.sampler.learn.steering import (
    Choice,
    Steered,
    SteeringTraining,
    _Learner,
    release_gate,
    static_intervals,
    train_controller,
)
from vernissage.sampler.prepare.teacher_bank import Bank, RequestMix, make_bank

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.sampler.domain.denoiser import Condition

TAU = 0.1
QUICK = SteeringTraining(
    decisions=1024,
    slots=32,
    rollout=8,
    epochs=2,
    batch=128,
    hidden=16,
    choosing_prices=1,
    gate_prices=3,
    resamples=200,
    checkpoint_every=1,
)


@pytest.fixture(scope="module")
def banks() -> tuple[Bank, Bank]:
    mix = RequestMix.uneven(4, (1.0, 2.0))
    return make_bank(Mixture(), "train", 96, mix), make_bank(Mixture(), "val", 80, mix)


def a_book(bank: Bank, calls: tuple[int, ...] = (2, 3, 4, 6), low: float = 0.05) -> ProgramBook:
    entries = []
    for scale in (1.0, 2.0):
        pairs = bank.rows(bank.scales == scale)
        for number in calls:
            program = dpmpp(karras(number, low, 10.0))
            score = Course(Mixture(), pairs, TAU).scores([program])[0]
            entries.append(Entry(program, scale, (1.0,) * number, "grid", score))
    return ProgramBook(tuple(entries), TAU, "grid")


@pytest.fixture(scope="module")
def book(banks: tuple[Bank, Bank]) -> ProgramBook:
    return a_book(banks[0])


@pytest.fixture(scope="module")
def steered(banks: tuple[Bank, Bank], book: ProgramBook, tmp_path_factory: pytest.TempPathFactory) -> Steered:
    folder = tmp_path_factory.mktemp("steering")
    made = train_controller(Mixture(), book, *banks, QUICK, folder / "checkpoint")
    assert list(folder.iterdir()) == []
    return made


def weights_of(controller: SteeringController) -> list[torch.Tensor]:
    return list(controller.state_dict().values())


def test_a_training_says_what_it_did(steered: Steered) -> None:
    assert [row["update"] for row in steered.curves] == [1, 2, 3, 4]
    assert steered.curves[-1]["decisions"] == 1024
    for row in steered.curves:
        assert row["episodes"] > 0
        assert row["improvement"] == pytest.approx(row["reward"], abs=0.05)
        assert 0.05 < row["not_static"] < 0.6
        assert 0 < row["entropy"] < np.log(np.prod(ACTIONS))
        assert row["kl"] >= 0
    assert sum(row["chosen"] for row in steered.choices) == 1
    assert len(steered.choices) == len(QUICK.choices)
    assert [row["price"] for row in steered.gate] == pytest.approx(QUICK.spread_prices(3).tolist())
    assert steered.controller.config["price_range"] == list(QUICK.prices)
    static = static_intervals(steered.gate, QUICK.prices)
    assert [list(pair) for pair in steered.controller.config["static_prices"]] == static


def test_where_the_gate_says_static_the_controller_is_the_static_program(
    steered: Steered, banks: tuple[Bank, Bank], book: ProgramBook
) -> None:
    """Never worse than static: a closed price gives its samples."""
    closed = steered.controller.configured(static_prices=[list(QUICK.prices)], soft=True)
    for price in (0.003, 0.09):
        mine, static = (roll(Mixture(), book, banks[1], policy, price) for policy in (closed, Static()))
        assert mine.nfe.tolist() == static.nfe.tolist()
        torch.testing.assert_close(mine.samples, static.samples, atol=1e-5, rtol=0)


def test_training_starts_at_the_static_program(banks: tuple[Bank, Bank], book: ProgramBook, tmp_path: Path) -> None:
    fresh = _Learner(Mixture(), book, banks[0], QUICK, tmp_path / "none", None, _pixels())
    controller = SteeringController.from_policy(fresh.ppo.policy)
    seen = roll(Mixture(), book, banks[1], controller, 0.01)
    assert seen.not_static == 0
    observations = torch.from_numpy(fresh.env.reset())
    log_probability = fresh.ppo.policy.get_distribution(observations).log_prob(
        torch.from_numpy(np.tile(STATIC, (len(observations), 1)))
    )
    assert log_probability.exp().detach().numpy() == pytest.approx(np.full(32, 0.85**4), abs=0.03)


def _pixels() -> Any:
    from vernissage.sampler.learn.rewards import usual_embedding

    return usual_embedding(Mixture.shape)


class Killed(Exception):  # noqa: N818
    """Stands for a process that is gone."""


class Fragile(Mixture):
    """Works for so many calls."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise Killed
        return super().__call__(x, sigma, condition)


@pytest.mark.parametrize("calls", [65, 100])
def test_a_killed_training_ends_with_the_same_weights(
    steered: Steered, banks: tuple[Bank, Bank], book: ProgramBook, tmp_path: Path, calls: int
) -> None:
    folder = tmp_path / "checkpoint"
    with pytest.raises(Killed):
        train_controller(Fragile(calls), book, *banks, QUICK, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
    resumed = train_controller(Mixture(), book, *banks, QUICK, folder)
    for mine, theirs in zip(weights_of(resumed.controller), weights_of(steered.controller), strict=True):
        assert torch.equal(mine, theirs)
    assert resumed.curves == steered.curves
    assert resumed.gate == steered.gate
    assert not folder.exists()


def test_a_checkpoint_of_another_training_counts_as_none(
    banks: tuple[Bank, Bank], book: ProgramBook, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    one = _Learner(Mixture(), book, banks[0], QUICK, folder, None, _pixels())
    one._iterate()
    one._save()
    same = _Learner(Mixture(), book, banks[0], QUICK, folder, None, _pixels())
    assert same.update == 1
    for settings, other in ((replace(QUICK, lr=2e-3), book), (QUICK, a_book(banks[0], low=0.06))):
        assert _Learner(Mixture(), other, banks[0], settings, folder, None, _pixels()).update == 0


def test_everybody_elses_random_numbers_stay_as_they_were(
    banks: tuple[Bank, Bank], book: ProgramBook, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = torch.rand(3), np.random.random(3)  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    train_controller(Mixture(), book, *banks, replace(QUICK, decisions=256), tmp_path / "checkpoint")
    assert torch.equal(torch.rand(3), expected[0])
    assert (np.random.random(3) == expected[1]).all()  # noqa: NPY002


def test_the_gate_lets_better_policies_through_and_no_others(banks: tuple[Bank, Bank], book: ProgramBook) -> None:
    prices = (0.003, 0.03)
    for policy in (Static(), Random(1), Fixed.expert("EarlyStopper")):
        rows = release_gate(Mixture(), book, banks[1], policy, prices, resamples=300)
        assert [row["ships"] for row in rows] == ["static", "static"]
    # A book whose only programs are far too long: whoever takes long strides is better as soon as calls cost much.
    wasteful = a_book(banks[0], calls=(24, 25))
    strides = Fixed((6, *STATIC[1:].tolist()))
    cheap, dear = release_gate(Mixture(), wasteful, banks[1], strides, (1e-5, 0.02), resamples=300)
    assert dear["ships"] == "controller"
    assert dear["low"] > 0.1
    assert dear["low"] < dear["improvement"] < dear["high"]
    assert dear["nfe"] < 0.7 * dear["static_nfe"]
    assert cheap["ships"] == "static"
    assert dear["improvement"] == pytest.approx(
        dear["static_error"] - dear["error"] + 0.02 * (dear["static_nfe"] - dear["nfe"])
    )


def test_a_training_finds_what_is_there_to_find(banks: tuple[Bank, Bank], tmp_path: Path) -> None:
    """Static programs that are far too long for the price: the policy learns to go faster, and is released."""
    wasteful = a_book(banks[0], calls=(16, 17))
    settings = replace(
        QUICK, decisions=10_240, slots=64, rollout=16, epochs=6, batch=256, prices=(0.03, 0.04),
        budget_share=0.0, choices=(Choice(),), static_share=0.8, hidden=64, checkpoint_every=5,
        steering_cost=0.0,
    )  # fmt: skip
    made = train_controller(Mixture(), wasteful, *banks, settings, tmp_path / "checkpoint")
    first, last = made.curves[0]["improvement"], made.curves[-1]["improvement"]
    assert last > first + 0.05
    assert [row["ships"] for row in made.gate] == ["controller"] * 3
    assert made.controller.config["static_prices"] in ((), [])
    assert all(made.controller.steers_at(price) for price in (0.03, 0.035, 0.04))
    assert not made.controller.steers_at(0.05)


def test_a_state_free_training_does_not_see_the_sample(
    banks: tuple[Bank, Bank], book: ProgramBook, tmp_path: Path
) -> None:
    settings = replace(QUICK, decisions=256, state_free=True)
    controller = train_controller(Mixture(), book, *banks, settings, tmp_path / "checkpoint").controller
    assert (controller.scale[list(SAMPLE_FEATURES)] == 0).all()
    rows = np.random.default_rng(0).normal(size=(20, len(FEATURES))).astype(np.float32)
    changed = rows.copy()
    changed[:, SAMPLE_FEATURES] += 1
    with torch.no_grad():
        mine, theirs = controller(torch.from_numpy(rows)), controller(torch.from_numpy(changed))
    for left, right in zip(mine, theirs, strict=True):
        assert torch.equal(left, right)


def test_static_intervals_join_neighbours() -> None:
    prices = (0.01, 1.0)
    tested = np.geomspace(*prices, 5).tolist()
    edges = [0.01, *(float(np.sqrt(a * b)) for a, b in pairwise(tested)), 1.0]

    def intervals(ships: str) -> list[list[float]]:
        names = {"c": "controller", "s": "static"}
        rows = [{"price": price, "ships": names[letter]} for price, letter in zip(tested, ships, strict=True)]
        return static_intervals(rows, prices)

    assert intervals("ccccc") == []
    assert intervals("sssss") == [[0.01, 1.0]]
    assert intervals("sccsc") == [[edges[0], edges[1]], [edges[3], edges[4]]]
    assert intervals("cssss") == [[edges[1], 1.0]]


def test_the_traditional_adaptive_sampler_meets_the_gate(banks: tuple[Bank, Bank], book: ProgramBook) -> None:
    row = release_gate(Mixture(), book, banks[1], EmbeddedError(), (0.01,), resamples=100)[0]
    assert row["not_static"] == 1.0
    assert row["requests"] == 80
    assert EXPERTS[5] == "DefaultAdaptive"


def test_bad_settings_are_refused(banks: tuple[Bank, Bank], book: ProgramBook, tmp_path: Path) -> None:
    for change in ({"lr": 0.0}, {"slots": 0}, {"choices": ()}, {"static_share": 1.0}, {"prices": (0.1, 0.01)}):
        with pytest.raises(BadParams):
            replace(QUICK, **change)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="at least 2"):
        train_controller(Mixture(), book, banks[0], banks[1].rows(torch.arange(1)), QUICK, tmp_path / "none")
