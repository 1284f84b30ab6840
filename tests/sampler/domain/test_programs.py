from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from tests.sampler.domain.closed_form import ANY_SIGMAS, Gaussian
from vernissage.core.errors import BadInput, CorruptArtifact
from vernissage.sampler.domain.programs import SOLVERS, Program, deis, dpmpp, euler, heun, ipndm, unipc
from vernissage.sampler.domain.sampling import run_program
from vernissage.sampler.domain.schedules import VP_BETA_GROWTH, VP_BETA_MIN, karras

SIGMAS = (10.0, 4.0, 1.5, 0.6, 0.2, 0.05, 0.0)
ANY_SOLVER = st.sampled_from(sorted(SOLVERS))

#: Order with which each solver converges. UniPC's corrector adds one. Two are formally only of order 2 here: DPM++ 3M,
#: whose last term has half its Taylor weight in everyone's code, and iPNDM of any order on levels that are not evenly
#: spaced, because its weights are those of equal steps.
CONVERGENCE = {
    "euler": 1, "heun": 2, "dpmpp-2m": 2, "dpmpp-3m": 2, "unipc-2": 3, "unipc-3": 4, "deis-2": 2, "deis-3": 3,
    "ipndm-1": 1, "ipndm-2": 2, "ipndm-3": 2, "ipndm-4": 2,
}  # fmt: skip


def error_at(name: str, n: int) -> float:
    """Distance to the exact flow after n steps and the plain last one, which is no part of the flow."""
    low, high = 0.01, 20.0
    options = {} if name in {"euler", "heun"} else {"ending": "plain"}
    denoiser, noise = Gaussian(), torch.ones(1, *Gaussian.shape, dtype=torch.float64)
    program = SOLVERS[name](karras(n, low, high), **options)
    there = denoiser.flow(high * noise, high, low)
    exact = denoiser(there, torch.tensor([low]).double(), None)
    return float((run_program(denoiser, noise, None, program).samples - exact).abs().max())


@pytest.mark.parametrize(("name", "order"), CONVERGENCE.items())
def test_solvers_converge_with_their_orders(name: str, order: int) -> None:
    measured = math.log2(error_at(name, 80) / error_at(name, 160))
    assert measured == pytest.approx(order, abs=0.15)


def test_every_solver_of_the_grid_is_measured() -> None:
    assert CONVERGENCE.keys() == SOLVERS.keys()


def test_the_corrector_pays() -> None:
    def slope(*, corrector: bool) -> float:
        errors = []
        for n in (80, 160):
            program = unipc(karras(n, 0.01, 20.0), 2, ending="plain", corrector=corrector)
            noise = torch.ones(1, *Gaussian.shape, dtype=torch.float64)
            there = Gaussian().flow(20 * noise, 20.0, 0.01)
            exact = Gaussian()(there, torch.tensor([0.01]).double(), None)
            errors.append(float((run_program(Gaussian(), noise, None, program).samples - exact).abs().max()))
        return math.log2(errors[0] / errors[1])

    assert slope(corrector=False) == pytest.approx(2, abs=0.15)
    assert slope(corrector=True) == pytest.approx(3, abs=0.15)


@given(ANY_SOLVER, ANY_SIGMAS)
@settings(max_examples=60)
def test_what_the_network_is_sure_of_is_kept(name: str, sigmas: tuple[float, ...]) -> None:
    program = SOLVERS[name](sigmas)
    scale = np.abs(program.table()).sum(axis=1) + 1
    assert (np.abs(program.inconsistency()) <= 1e-11 * scale).all()
    assert sum(program.coefficients[-1]) == pytest.approx(1, abs=1e-9)


@given(ANY_SOLVER, ANY_SIGMAS)
@settings(max_examples=60)
def test_json_brings_back_every_bit(name: str, sigmas: tuple[float, ...]) -> None:
    program = SOLVERS[name](sigmas)
    assert Program.from_json(program.to_json()) == program
    assert program.sigmas == sigmas


def test_rows_written_by_hand() -> None:
    half = (4.0, 2.0, 1.0, 0.0)
    assert euler(half).coefficients == ((0.5,), (0.5,), (1.0,))
    # Heun: half the difference of the directions at both ends of the step, times the step.
    assert heun(half).coefficients == ((0.5,), (0.5, -0.5), (0.5,), (0.5, -0.5), (1.0,))
    assert heun(half).corrections == (1, 3)
    # 2M with equal steps in log-SNR: gain (3/2 D - 1/2 D before).
    np.testing.assert_allclose(dpmpp(half, 2).table(), [[0.5, 0], [0.75, -0.25], [1, 0]], atol=1e-12)
    # iPNDM-2 by hand: x2 = x1 - (3/2 d1 - 1/2 d0) with d1 = (x1 - D1) / 2 and d0 = (x0 - D0) / 4, where
    # x1 = x0 / 2 + D0 / 2, so that d0 = (x1 - D0) / 2.
    np.testing.assert_allclose(ipndm(half, 2).coefficients[1], [0.75, -0.25], atol=1e-12)


def test_levels_and_targets_follow_the_network_calls() -> None:
    program = heun((4.0, 2.0, 1.0, 0.0))
    assert program.levels == (4.0, 2.0, 2.0, 1.0, 1.0)
    assert program.targets == (2.0, 2.0, 1.0, 1.0, 0.0)
    assert (program.steps, program.evaluations, program.memory) == (3, 5, 1)
    assert program.table(4).shape == (5, 4)


@given(ANY_SIGMAS)
@settings(max_examples=30)
def test_how_many_calls_and_how_much_memory(sigmas: tuple[float, ...]) -> None:
    steps = len(sigmas) - 1
    for name, solver in SOLVERS.items():
        program = solver(sigmas)
        assert program.steps == steps
        assert program.evaluations == (2 * steps - 1 if name == "heun" else steps)
    # Solvers in predictions of the picture look back a fixed number of calls, those in directions to the start.
    assert dpmpp(sigmas, 2).memory <= 1
    assert dpmpp(sigmas, 3).memory <= 2
    assert unipc(sigmas, 2).memory <= 2
    assert unipc(sigmas, 3).memory <= 3


def test_first_orders_are_all_eulers_method() -> None:
    plain = euler(SIGMAS).table()
    for program in (dpmpp(SIGMAS, 1), unipc(SIGMAS, 1, corrector=False), deis(SIGMAS, 1), ipndm(SIGMAS, 1)):
        table = program.table()
        np.testing.assert_allclose(table[:, :1], plain, atol=1e-12)
        np.testing.assert_allclose(table[:, 1:], 0, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ipndm_is_exact_where_steps_are_equal(order: int) -> None:
    """On evenly spaced sigmas its weights are the integrals of the polynomial through the last directions."""
    even = tuple(np.linspace(8, 0, 9).tolist())
    ours, exact = ipndm(even, order, ending="kept"), deis(even, order, variable="sigma", ending="kept")
    np.testing.assert_allclose(ours.table(9), exact.table(9), atol=1e-10)


def test_deis_integrates_its_polynomial_in_time() -> None:
    def time(sigma: float) -> float:
        amount = math.log(1 + sigma**2)
        return (math.sqrt(VP_BETA_MIN**2 + 2 * VP_BETA_GROWTH * amount) - VP_BETA_MIN) / VP_BETA_GROWTH

    here, before, there = 4.0, 10.0, 1.5
    share, _ = quad(lambda s: (time(s) - time(here)) / (time(before) - time(here)), here, there, epsabs=1e-12)
    # x' = x + (there - here - share) d + share d_before, and d_before = (x - 0.6 D_before) / 4 - D_before / 10 after
    # the first step x = 0.4 x_before + 0.6 D_before.
    expected = [-(there - here - share) / here, -share * (0.6 / here + 1 / before)]
    np.testing.assert_allclose(deis((before, here, there, 0.0), 2, ending="plain").coefficients[1], expected, rtol=1e-9)


@pytest.mark.parametrize("variable", ["time", "sigma", "log-sigma"])
def test_deis_may_keep_its_order_to_the_end(variable: Any) -> None:
    program = deis(SIGMAS, 3, variable=variable, ending="kept")
    assert len(program.coefficients[-1]) > 1
    assert np.abs(program.inconsistency()).max() < 1e-9


def test_endings() -> None:
    lowered, plain, kept = (
        [len(row) for row in ipndm(SIGMAS, 3, ending=e).coefficients] for e in ("lowered", "plain", "kept")
    )
    assert lowered[-1] == plain[-1] == 1
    assert kept == [1, 2, 3, 4, 5, 6]
    assert ipndm(SIGMAS, 3, ending="lowered").coefficients[-2] != ipndm(SIGMAS, 3, ending="plain").coefficients[-2]
    for solver in (dpmpp, unipc):
        assert solver(SIGMAS, 3, ending="kept") == solver(SIGMAS, 3, ending="plain")
        assert solver(SIGMAS, 3, ending="plain") != solver(SIGMAS, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sigmas": (0.0,), "coefficients": ()}, "at least one above 0"),
        ({"sigmas": (), "coefficients": ()}, "at least one above 0"),
        ({"sigmas": (2.0, 1.0)}, "0 at the end"),
        ({"sigmas": (1.0, 2.0, 0.0)}, "sigma 1 is 2.0 after 1.0"),
        ({"sigmas": (1.0, 1.0, 0.0)}, "strictly decreasing"),
        ({"sigmas": (2.0, math.nan, 0.0)}, "sigma 1 is nan"),
        ({"sigmas": (math.inf, 1.0, 0.0)}, "first sigma is inf"),
        ({"coefficients": ((0.5,),)}, "1 rows of coefficients, 0 of them corrections, for 2 steps"),
        ({"coefficients": ((0.5,), (1.0, 0.0, 0.0))}, "network call 1 has 3 coefficients, expected 1 to 2"),
        ({"coefficients": ((), (1.0,))}, "network call 0 has 0 coefficients"),
        ({"coefficients": ((math.nan,), (1.0,))}, "network call 0 has coefficients"),
        ({"coefficients": ((0.5,), (0.0,), (1.0,)), "corrections": (0,)}, "first call has nothing to correct"),
        ({"coefficients": ((0.5,), (1.0,), (0.0,)), "corrections": (2,)}, "ends at sigma 0"),
    ],
)
def test_what_is_no_program_is_refused(fields: dict[str, Any], message: str) -> None:
    good = {"name": "mine", "sigmas": (2.0, 1.0, 0.0), "coefficients": ((0.5,), (1.0,))}
    Program(**good)
    with pytest.raises(BadInput, match=message):
        Program(**good | fields)


@pytest.mark.parametrize("name", sorted(SOLVERS))
@pytest.mark.parametrize("sigmas", [(), (1.0,), (0.0,), (1.0, 2.0, 0.0), (2.0, -1.0, 0.0), (math.nan, 0.0)])
def test_solvers_refuse_bad_levels(name: str, sigmas: tuple[float, ...]) -> None:
    with pytest.raises(BadInput, match=f"program {name[:4]}"):
        SOLVERS[name](sigmas)


def test_solvers_refuse_orders_endings_and_variables_they_do_not_have() -> None:
    for mistake, message in (
        (lambda: dpmpp(SIGMAS, 4), "order 4, expected 1 to 3"),
        (lambda: unipc(SIGMAS, 0), "order 0"),
        (lambda: ipndm(SIGMAS, 5), "order 5"),
        (lambda: deis(SIGMAS, 2, ending="soft"), "ending 'soft'"),
        (lambda: deis(SIGMAS, 2, variable="x"), "variable 'x'"),
        (lambda: dpmpp(SIGMAS, 3).table(2), "rows of 3 coefficients do not fit into 2 columns"),
    ):
        with pytest.raises(BadInput, match=message):
            mistake()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("sigmas"), "sigmas"),
        (lambda d: d.update(format=7), "format with 7, expected 1"),
        (lambda d: d.update(name=3), "name = 3"),
        (lambda d: d.update(sigmas=["2", 0]), "sigmas with '2'"),
        (lambda d: d.update(sigmas=[True, 0]), "sigmas with True"),
        (lambda d: d.update(sigmas=3), "sigmas = 3"),
        (lambda d: d.update(coefficients=7), "iterable"),
        (lambda d: d.update(coefficients=[1.0]), "coefficients = 1.0"),
        (lambda d: d.update(corrections=[0.5]), "corrections with 0.5"),
        (lambda d: d.update(sigmas=[1, 2, 0]), "strictly decreasing"),
        (lambda d: d.update(sigmas=[10**400, 0]), "too large"),
    ],
)
def test_damaged_programs_are_named(change: Any, message: str) -> None:
    document = euler(SIGMAS).to_dict()
    change(document)
    with pytest.raises(CorruptArtifact, match=message):
        Program.from_dict(json.loads(json.dumps(document)))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"format": 1}', "[" * 100_000])
def test_text_that_is_no_program_is_refused(text: str) -> None:
    with pytest.raises(CorruptArtifact, match="program"):
        Program.from_json(text)


@pytest.mark.parametrize("told", [(1.0,), (1.0, 0.0), (1.0, math.inf), (1.0, 2.0, 3.0)])
def test_what_the_network_is_told_is_a_level_for_each_call(told: tuple[float, ...]) -> None:
    with pytest.raises(BadInput, match="is told"):
        replace(euler((2.0, 1.0, 0.0)), told=told)


def test_what_the_network_is_told_is_saved_and_may_be_missing() -> None:
    plain = euler((2.0, 1.0, 0.0))
    assert plain.asked == plain.levels
    told = replace(plain, told=(1.9, 1.1))
    assert told.asked == (1.9, 1.1)
    assert Program.from_json(told.to_json()) == told
    document = plain.to_dict()
    del document["told"]
    assert Program.from_dict(document) == plain
