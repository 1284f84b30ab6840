from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sampler.domain.closed_form import ANY_SIGMAS, Gaussian, Recorder, Shades, Signs
from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadInput
from vernissage.sampler.domain.denoiser import ClassLabels, Condition, Counted
from vernissage.sampler.domain.programs import SOLVERS, Program, dpmpp, euler, heun, ipndm
from vernissage.sampler.domain.sampling import linear_step, per_seed_noise, run_program, sample_ancestral
from vernissage.sampler.domain.schedules import karras, training_sigmas

ANY_SOLVER = st.sampled_from(sorted(SOLVERS))
SIGMAS = karras(6, 0.05, 20.0)


def labels(*values: int) -> ClassLabels:
    return ClassLabels(torch.tensor(values))


class Scripted(Gaussian):
    """Predictions that have nothing to do with the state."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(3)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        return torch.randn(x.shape, generator=self._generator).to(x)


class Faltering(Signs):
    """Not finite in some pixel of some samples at some network call."""

    def __init__(self, faults: dict[tuple[int, int], float]) -> None:
        self._faults, self._call = faults, 0

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        assert isinstance(condition, ClassLabels)
        answer = super().__call__(x, sigma, condition)
        for row, name in enumerate(condition.labels.tolist()):
            if (name, self._call) in self._faults:
                answer[row, 0, 1, 1] = self._faults[name, self._call]
        self._call += 1
        return answer


@given(ANY_SOLVER, ANY_SIGMAS)
@settings(max_examples=40)
def test_a_sure_prediction_is_the_sample(name: str, sigmas: tuple[float, ...]) -> None:
    noise = per_seed_noise([1, 2], Shades.shape).double()
    sampled = run_program(Shades(), noise, labels(3, 7), SOLVERS[name](sigmas))
    expected = torch.tensor([3.0, 7.0], dtype=torch.float64).view(-1, 1, 1, 1).expand_as(noise)
    torch.testing.assert_close(sampled.samples, expected, rtol=1e-9, atol=1e-9)


@given(ANY_SOLVER, ANY_SIGMAS)
@settings(max_examples=40)
def test_sigma_zero_leaves_predictions_only(name: str, sigmas: tuple[float, ...]) -> None:
    program = SOLVERS[name](sigmas)
    first, second = (
        run_program(Scripted(), per_seed_noise([seed], Scripted.shape), None, program).samples for seed in (1, 2)
    )
    if program.coefficients[-1] == (1.0,):
        assert torch.equal(first, second)
    # The state itself counts nothing in the last step, whatever the row.
    state, past = torch.full((1, 1, 1, 1), 1e6), [torch.ones(1, 1, 1, 1)] * program.evaluations
    row = torch.from_numpy(program.table(program.evaluations)[-1:])
    assert linear_step(state, past, torch.zeros(1), row).item() == pytest.approx(1, abs=1e-4)


@given(ANY_SOLVER, ANY_SIGMAS, st.integers(0, 4))
@settings(max_examples=40)
def test_the_program_says_how_often_the_network_is_asked(name: str, sigmas: tuple[float, ...], count: int) -> None:
    counted, program = Counted(Signs()), SOLVERS[name](sigmas)
    sampled = run_program(counted, per_seed_noise(range(count), Signs.shape), None, program)
    assert counted.evaluations == count * program.evaluations
    assert counted.calls == (program.evaluations if count else 0)
    assert sampled.evaluations.tolist() == [program.evaluations] * count
    assert sampled.samples.shape == (count, *Signs.shape)


@given(st.lists(st.tuples(ANY_SOLVER, ANY_SIGMAS), min_size=1, max_size=5), st.data())
@settings(max_examples=40)
def test_a_batch_is_its_samples_one_by_one(plans: list[tuple[str, tuple[float, ...]]], data: st.DataObject) -> None:
    """Whatever programs the neighbours have, and in whatever order they stand."""
    programs = [SOLVERS[name](sigmas) for name, sigmas in plans]
    seeds = list(range(len(programs)))
    together = run_program(Signs(), per_seed_noise(seeds, Signs.shape), None, programs)
    order = data.draw(st.permutations(seeds))
    shuffled = run_program(Signs(), per_seed_noise(order, Signs.shape), None, [programs[i] for i in order])
    assert torch.equal(shuffled.samples, together.samples[order])
    assert together.evaluations.tolist() == [program.evaluations for program in programs]
    for seed, program in zip(seeds, programs, strict=True):
        alone = run_program(Signs(), per_seed_noise([seed], Signs.shape), None, program)
        assert torch.equal(alone.samples[0], together.samples[seed])


def test_two_runs_are_equal_and_leave_nothing_behind() -> None:
    noise, program = per_seed_noise(range(4), Signs.shape), ipndm(SIGMAS)
    kept = noise.clone()
    first = run_program(Signs(), noise, None, program)
    run_program(Signs(), noise, None, heun(SIGMAS))
    assert torch.equal(run_program(Signs(), noise, None, program).samples, first.samples)
    assert torch.equal(noise, kept)
    assert not first.samples.requires_grad


def test_each_sample_has_its_own_noise_level() -> None:
    recorder = Recorder(Signs())
    programs = [euler((8.0, 2.0, 0.0)), euler((20.0, 5.0, 1.0, 0.0))]
    run_program(recorder, per_seed_noise([0, 1], Signs.shape), None, programs)
    assert [level.tolist() for level in recorder.levels] == [[8.0, 20.0], [2.0, 5.0], [1.0]]


def test_a_fitted_program_is_just_other_numbers() -> None:
    program = Program("fitted", (4.0, 1.0, 0.0), ((0.5,), (0.75, 0.5)))
    noise = per_seed_noise([0], Gaussian.shape).double()
    x = 4 * noise
    first, second_sigma = Gaussian()(x, torch.tensor([4.0]).double(), None), torch.tensor([1.0]).double()
    second = Gaussian()(0.25 * x + 0.5 * first, second_sigma, None)
    sampled = run_program(Gaussian(), noise, None, program)
    torch.testing.assert_close(sampled.samples, 0.75 * second + 0.5 * first, rtol=1e-12, atol=0)


def test_the_state_has_at_least_float32() -> None:
    program = dpmpp(karras(40, 0.002, 80.0), 3)
    noise = per_seed_noise(range(4), Signs.shape)
    exact = run_program(Signs(), noise.double(), None, program).samples
    single = run_program(Signs(), noise, None, program).samples
    double = run_program(Signs(), noise, None, program, double=True).samples
    assert (exact.dtype, single.dtype, double.dtype) == (torch.float64, torch.float32, torch.float32)
    torch.testing.assert_close(double.double(), exact, rtol=1e-4, atol=1e-4)
    half = run_program(Signs(), noise.half(), None, program).samples
    assert half.dtype == torch.float32
    assert torch.equal(half, run_program(Signs(), noise.half().float(), None, program).samples)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_prediction_that_is_not_finite_stays_alone(value: float) -> None:
    program, names = heun(SIGMAS), labels(0, 1, 2, 3)
    noise = per_seed_noise(range(4), Signs.shape)
    faults = {(1, 0): value, (2, 4): value}
    counted = Counted(Faltering(faults))
    sampled = run_program(counted, noise, names, program)
    well = run_program(Signs(), noise, names, program).samples
    assert sampled.failed.tolist() == [-1, 0, 4, -1]
    assert torch.equal(sampled.samples[[0, 3]], well[[0, 3]])
    # The one that failed at once has nothing to show, the other one its prediction before.
    assert sampled.samples[1].isnan().all()
    recorder = Recorder(Signs())
    run_program(recorder, noise, names, program)
    before = Signs()(recorder.states[3], recorder.levels[3], None)
    assert torch.equal(sampled.samples[2], before[2])
    # Nobody asks again for those.
    assert sampled.evaluations.tolist() == [11, 1, 5, 11]
    assert counted.evaluations == 28


def test_huge_predictions_are_no_failure() -> None:
    class Huge(Gaussian):
        def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
            return torch.full_like(x, 3e38)

    sampled = run_program(Huge(), per_seed_noise([0], Gaussian.shape), None, euler(SIGMAS))
    assert sampled.failed.tolist() == [-1]
    assert sampled.samples.flatten().tolist() == pytest.approx([3e38] * 4)


def test_all_may_fail() -> None:
    sampled = run_program(Faltering({(0, 0): math.nan}), per_seed_noise([0], Signs.shape), labels(0), euler(SIGMAS))
    assert sampled.failed.tolist() == [0]
    assert sampled.evaluations.tolist() == [1]


def test_failing_among_conditions_leaves_each_its_own() -> None:
    names = labels(5, 9, 7)
    sampled = run_program(Shades(broken=9), per_seed_noise(range(3), Shades.shape), names, dpmpp(SIGMAS))
    assert sampled.samples[:, 0, 0, 0].tolist() == pytest.approx([5, 9, 7], abs=1e-4)
    assert (sampled.failed >= 0).tolist() == [False, True, False]


def test_guidance_counts_and_pushes() -> None:
    """Shades are the class with the condition and -1 without it."""
    counted, program = Counted(Shades()), dpmpp(SIGMAS)
    scales = torch.tensor([0.0, 1.0, 3.0])
    sampled = run_program(counted, per_seed_noise(range(3), Shades.shape), labels(4, 4, 4), program, scales)
    assert sampled.samples[:, 0, 0, 0].tolist() == pytest.approx([-1, 4, 14], abs=1e-4)
    assert sampled.evaluations.tolist() == [6, 6, 12]
    assert counted.evaluations == 24


def test_guidance_may_end_before_the_program() -> None:
    program = dpmpp(SIGMAS)
    scales = torch.tensor([[3.0, 3.0, 3.0, 1.0, 1.0, 1.0], [2.0] * 6])
    sampled = run_program(Shades(), per_seed_noise(range(2), Shades.shape), labels(4, 4), program, scales)
    assert sampled.evaluations.tolist() == [9, 12]


def test_what_does_not_fit_is_refused() -> None:
    noise, program = per_seed_noise(range(2), Signs.shape), euler(SIGMAS)
    for mistake, message in (
        (lambda: run_program(Signs(), noise[:, 0], None, program), r"noise of shape \(2, 2, 2\)"),
        (lambda: run_program(Signs(), noise.repeat(1, 3, 1, 1), None, program), r"expected \(N, 1, 2, 2\)"),
        (lambda: run_program(Signs(), noise, labels(1), program), "1 conditions for 2 samples"),
        (lambda: run_program(Signs(), noise, None, [program]), "1 programs for 2 samples"),
        (lambda: run_program(Signs(), noise, None, program, torch.ones(2)), "guidance without conditions"),
        (lambda: run_program(Signs(), noise, labels(1, 2), program, torch.ones(3)), r"guidance of shape \(3,\)"),
        (lambda: run_program(Signs(), noise, labels(1, 2), program, torch.ones(2, 2)), r"expected \(2,\)"),
        (lambda: run_program(Signs(), noise, labels(1, 2), program, torch.tensor([1, math.nan])), "finite"),
        (lambda: sample_ancestral(Signs(), [1], None, (1.0, 2.0, 0.0)), "strictly decreasing"),
        (lambda: sample_ancestral(Signs(), [1], labels(1, 2), (1.0, 0.0)), "2 conditions for 1 samples"),
        (lambda: linear_step(noise, [noise, noise], torch.ones(2), torch.ones(2, 1)), "1 coefficients for 2"),
    ):
        with pytest.raises(BadInput, match=message):
            mistake()


def test_an_empty_batch_comes_back_empty() -> None:
    noise = torch.empty(0, *Signs.shape)
    for program in (euler(SIGMAS), []):
        counted = Counted(Signs())
        assert run_program(counted, noise, None, program).samples.shape == (0, *Signs.shape)
        assert counted.calls == 0
    assert sample_ancestral(Signs(), [], None, SIGMAS).samples.shape == (0, *Signs.shape)


def test_steps_have_gradients() -> None:
    shape = (2, 1, 2, 2)
    x, first, second = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3))
    ratio = torch.rand(2, dtype=torch.float64, requires_grad=True)
    coefficients = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, a, b, r, c: linear_step(x, [a, b], r, c), (x, first, second, ratio, coefficients)
    )


def test_noise_depends_on_the_seed_alone() -> None:
    noise = per_seed_noise([3, 8, 3], (2, 3, 4))
    assert noise.dtype == torch.float32
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(per_seed_noise([8], (2, 3, 4))[0], noise[1])
    many = per_seed_noise(range(400), (1, 8, 8))
    assert many.mean().item() == pytest.approx(0, abs=0.02)
    assert many.std().item() == pytest.approx(1, abs=0.02)


def test_ancestral_samples_are_independent_of_the_batch_and_of_failures() -> None:
    levels = karras(30, 0.02, 20.0)
    together = sample_ancestral(Signs(), [1, 2, 3], labels(0, 1, 2), levels)
    alone = sample_ancestral(Signs(), [2], labels(1), levels)
    assert torch.equal(alone.samples[0], together.samples[1])
    assert torch.equal(sample_ancestral(Signs(), [1, 2, 3], labels(0, 1, 2), levels).samples, together.samples)
    broken = sample_ancestral(Faltering({(0, 7): math.nan}), [1, 2, 3], labels(0, 1, 2), levels)
    assert broken.failed.tolist() == [7, -1, -1]
    assert broken.evaluations.tolist() == [8, 30, 30]
    assert torch.equal(broken.samples[1:], together.samples[1:])
    assert broken.samples.isfinite().all()


def test_a_thousand_ancestral_steps_end_in_the_data() -> None:
    levels = (*training_sigmas()[::-1].tolist(), 0.0)
    counted = Counted(Gaussian())
    sampled = sample_ancestral(counted, range(300), None, levels)
    assert counted.evaluations == 300_000
    assert sampled.samples.mean().item() == pytest.approx(0, abs=0.06)
    assert sampled.samples.std().item() == pytest.approx(Gaussian.sigma_data, rel=0.06)


def test_the_network_is_told_what_the_program_says() -> None:
    class Listening(Mixture):
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[float] = []

        def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
            self.heard.append(float(sigma[0]))
            return super().__call__(x, sigma, condition)

    plain = euler((4.0, 2.0, 1.0, 0.0))
    network, noise = Listening(), per_seed_noise(range(2), Mixture.shape)
    same = run_program(network, noise, None, replace(plain, told=(4.0, 2.0, 1.0))).samples
    torch.testing.assert_close(same, run_program(network, noise, None, plain).samples)
    run_program(network, noise, None, replace(plain, told=(3.5, 1.5, 0.5)))
    assert network.heard[-3:] == [3.5, 1.5, 0.5]
