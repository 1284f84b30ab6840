from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.sampler.domain.closed_form import Shades
from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadInput, BadParams
from vernissage.sampler.domain.denoiser import Counted
from vernissage.sampler.domain.programs import SOLVERS, dpmpp, euler, heun, unipc
from vernissage.sampler.domain.sampling import run_program
from vernissage.sampler.domain.schedules import SCHEDULES, karras
from vernissage.sampler.learn.grid import (
    Course,
    GridSearch,
    Score,
    criterion,
    reported,
    saturating,
    solver_of,
    stock_programs,
    tune_grid,
    tune_grids,
    usual_tau,
)
from vernissage.sampler.prepare.teacher_bank import Bank, RequestMix, make_bank

PLAIN = RequestMix.uneven(4, (1.0,))
QUICK = GridSearch(tuned=3, finalists=3, moves=1, ranges=((6.0, 0.3), (14.0, 0.12), (40.0, 0.04)))


@pytest.fixture(scope="module")
def bank() -> Bank:
    return make_bank(Mixture(), "train", 96, PLAIN)


def shades(count: int = 8, *, off: float = 0.0) -> Bank:
    """Every program is exact on these, but for what the endpoints are off."""
    made = make_bank(Shades(), "train", count, RequestMix((1.0, 1.0), (1.0,)), teacher=euler((1.0, 0.0)))
    return replace(made, endpoints=made.endpoints + off)


def test_scores_have_known_answers() -> None:
    score = Course(Shades(), shades(off=0.3), 0.5).scores([euler((2.0, 1.0, 0.0))])[0]
    assert score.median == pytest.approx(0.3, abs=1e-6)
    assert score.mean == pytest.approx(0.3, abs=1e-6)
    assert score.saturated == pytest.approx(1 - math.exp(-0.09 / 0.5), abs=1e-6)
    assert score.pairs == 8


def test_samples_that_are_not_finite_count_one() -> None:
    pairs = shades(20)
    broken = (pairs.labels == 1).double().mean().item()
    score = Course(Shades(broken=1), pairs, 0.5).scores([euler((2.0, 0.5, 0.0))])[0]
    assert score.saturated == pytest.approx(broken, abs=1e-6)
    assert score.mean == math.inf


def test_saturating_has_a_gradient_at_zero() -> None:
    squared = torch.zeros(1, requires_grad=True)
    saturating(squared, 0.5).sum().backward()
    assert squared.grad is not None
    assert squared.grad.item() == pytest.approx(1 / (2 * 0.25))


def test_the_saturating_error_ranks_first_on_few_pairs_and_the_mean_error_at_the_end() -> None:
    flips, blurs = Score(0.1, 0.01, 0.5, 9), Score(0.2, 0.1, 0.1, 9)
    assert criterion(flips) < criterion(blurs)
    assert criterion(replace(flips, mean=0.4)) < criterion(flips)
    assert reported(blurs) < reported(flips)
    assert reported(replace(flips, saturated=0.05)) < reported(flips)


def test_errors_depend_neither_on_order_nor_on_the_batch(bank: Bank) -> None:
    programs = [dpmpp(karras(4, 0.05, high)) for high in (5.0, 10.0, 20.0)]
    errors = Course(Mixture(), bank, 0.1, batch=50).errors(programs)
    order = torch.randperm(len(bank), generator=torch.Generator().manual_seed(1))
    shuffled = Course(Mixture(), bank.rows(order), 0.1).errors(programs[::-1])
    np.testing.assert_allclose(shuffled[::-1], errors[:, order.numpy()], atol=1e-6)
    np.testing.assert_allclose(Course(Mixture(), bank, 0.1).errors(programs[1:2], 7)[0], errors[1, :7], atol=1e-6)


def test_shares_of_guidance() -> None:
    pairs = make_bank(Mixture(), "train", 12, RequestMix((1.0, 1.0), (2.0, 4.0)))
    program = euler(karras(3, 0.1, 10.0))
    counted = Counted(Mixture())
    course = Course(counted, pairs, 0.1, shares=(1.0, 0.5, 0.0))
    course.errors([program])
    assert counted.evaluations == course.evaluations == 12 * 5
    without = Course(Mixture(), replace(pairs, scales=torch.ones(12)), 0.1).errors([program])
    np.testing.assert_array_equal(Course(Mixture(), pairs, 0.1, shares=(0.0,) * 3).errors([program]), without)
    with pytest.raises(BadInput, match="3 shares for a program of 2"):
        course.errors([euler((1.0, 0.5, 0.0))])


def test_tau_is_the_median_error_of_a_usual_sampler(bank: Bank) -> None:
    usual = dpmpp(karras(8, Mixture.sigma_min, Mixture.sigma_max))
    assert usual_tau(Mixture(), bank) == Course(Mixture(), bank, 1.0).scores([usual])[0].median


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan, math.inf])
def test_tau_that_is_none(bank: Bank, tau: float) -> None:
    with pytest.raises(BadInput, match="tau"):
        Course(Mixture(), bank, tau)


def test_no_pairs(bank: Bank) -> None:
    with pytest.raises(BadInput, match="at least one"):
        tune_grid(Mixture(), bank.rows(torch.zeros(96, dtype=torch.bool)), 3)


@pytest.mark.parametrize(
    ("solver", "ending", "schedule", "place"),
    [("deis-3", "kept", "karras-5", 1), ("unipc-3", "plain", "log-snr", 0), ("heun", "", "cosine", 2)],
)
def test_a_planted_best_is_found(bank: Bank, solver: str, ending: str, schedule: str, place: int) -> None:
    """The endpoints are what one candidate makes, so that nothing else can be as good."""
    high, low = (level * Mixture().sigma_data for level in QUICK.ranges[place])
    levels = 3 if solver == "heun" else 5
    planted = solver_of(solver, ending)(SCHEDULES[schedule](levels, low, high))
    made = run_program(Mixture(), bank.noise(), bank.condition(), planted).samples
    rows = tune_grid(Mixture(), replace(bank, endpoints=made), 5, QUICK, tau=0.1)
    assert (rows[0].solver, rows[0].ending, rows[0].schedule) == (solver, ending, schedule)
    assert rows[0].program == planted
    assert rows[0].score.mean < 1e-6 < rows[1].score.mean


def test_noise_levels_are_tuned(bank: Bank) -> None:
    """A best that lies between the ranges is approached."""
    high, low = 9.0 * Mixture().sigma_data, 0.2 * Mixture().sigma_data
    planted = SOLVERS["ipndm-3"](SCHEDULES["karras-7"](6, low, high))
    pairs = replace(bank, endpoints=run_program(Mixture(), bank.noise(), bank.condition(), planted).samples)
    search = GridSearch(ranges=((6.0, 0.3), (14.0, 0.12), (40.0, 0.04)))
    still, tuned = (tune_grid(Mixture(), pairs, 6, replace(search, moves=moves), tau=0.1)[0] for moves in (0, 2))
    assert tuned.score.saturated < 0.5 * still.score.saturated
    assert abs(math.log(tuned.sigma_max / high)) < 0.5
    assert abs(math.log(tuned.sigma_min / low)) < 0.5


@pytest.mark.parametrize("evaluations", [1, 2, 5])
def test_the_table(bank: Bank, evaluations: int) -> None:
    rows = tune_grid(Mixture(), bank, evaluations, QUICK, tau=0.1)
    assert {row.program.evaluations for row in rows} == {evaluations}
    keys = [(-row.score.pairs, *reported(row.score)) for row in rows]
    assert keys == sorted(keys)
    assert rows[0].score.pairs == len(bank)
    stock = [row for row in rows if row.solver == "stock"]
    assert len(stock) == 4
    assert all(reported(rows[0].score) <= reported(row.score) for row in stock)
    assert all(row.program.sigmas[0] == row.sigma_max for row in rows)
    tried = [(row.program.sigmas, row.program.coefficients) for row in rows if row.solver != "stock"]
    assert len({*tried}) == len(tried)
    if evaluations == 5:
        # ipndm-1 is euler, and is tried once.
        assert {row.solver for row in rows} == {*SOLVERS, "stock"} - {"ipndm-1"}
        assert {row.schedule for row in rows if row.solver != "stock"} == {*SCHEDULES}
        assert {row.ending for row in rows if row.solver == "ipndm-3"} == {"kept", "plain", "lowered"}


def test_tuning_pays_on_other_noises_and_is_repeatable(bank: Bank) -> None:
    rows = tune_grid(Mixture(), bank, 6, QUICK, tau=0.1)
    assert tune_grid(Mixture(), bank, 6, QUICK, tau=0.1) == rows
    course = Course(Mixture(), make_bank(Mixture(), "test", 200, PLAIN), 0.1)
    best = course.scores([rows[0].program])[0]
    usual = course.scores(list(stock_programs(6, 0.002, 80.0).values()))
    assert all(best.saturated < 0.3 * score.saturated for score in usual)


def test_several_budgets(bank: Bank, capsys: pytest.CaptureFixture[str]) -> None:
    tables = tune_grids(Mixture(), bank, (1, 2), QUICK)
    assert {calls: rows[0].program.evaluations for calls, rows in tables.items()} == {1: 1, 2: 2}
    assert tables[2] == tune_grid(Mixture(), bank, 2, QUICK, tau=usual_tau(Mixture(), bank))
    assert "grid: 3/3" in capsys.readouterr().out
    assert tables[1][0].to_dict()["evaluations"] == 1


def test_stock_programs_are_what_diffusers_does_without_tuning() -> None:
    programs = stock_programs(7, 0.03, 14.6)
    assert {*programs} == {"dpmpp-2m karras-7", "unipc-2 karras-7", "dpmpp-2m linspace", "unipc-2 linspace"}
    assert programs["dpmpp-2m karras-7"] == dpmpp(karras(7, 0.03, 14.6))
    assert programs["unipc-2 karras-7"] == unipc(karras(7, 0.03, 14.6))
    levels = programs["dpmpp-2m linspace"].sigmas
    assert levels[0] <= 14.6
    assert levels[-2] >= 0.03
    own = stock_programs(2, 0.01, 5.0, np.array([0.1, 0.5, 1.0, 2.0, 4.0]))["unipc-2 linspace"]
    assert own.sigmas == (4.0, 1.0, 0.0)


def test_solvers_by_name() -> None:
    assert solver_of("heun")((3.0, 1.0, 0.0)) == heun((3.0, 1.0, 0.0))
    assert solver_of("ipndm-2", "plain")((3.0, 2.0, 1.0, 0.0)).coefficients[-1] == (1.0,)
    with pytest.raises(BadInput, match="'rk45'"):
        solver_of("rk45")


@pytest.mark.parametrize("wrong", [{"keep": 1.0}, {"growth": 0.5}, {"first_pairs": 0}, {"ranges": ((1.0, 2.0),)}])
def test_searches_that_cannot_be(wrong: dict) -> None:
    with pytest.raises(BadParams, match="grid"):
        GridSearch(**wrong)
