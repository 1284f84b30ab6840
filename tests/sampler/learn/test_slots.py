from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadInput
from vernissage.sampler.domain.denoiser import NULL, ClassLabels
from vernissage.sampler.domain.programs import Program, deis, dpmpp, euler, heun, ipndm, unipc
from vernissage.sampler.domain.sampling import per_seed_noise, run_program
from vernissage.sampler.domain.schedules import karras
from vernissage.sampler.learn.book import Entry, ProgramBook
from vernissage.sampler.learn.consistency import two_step
from vernissage.sampler.learn.experts import ACTIONS, BANK, EXPERTS, MOST_RISES, STATIC, STRIDES
from vernissage.sampler.learn.features import FEATURES
from vernissage.sampler.learn.grid import Score
from vernissage.sampler.learn.slots import Outcome, Slots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vernissage.sampler.domain.denoiser import Condition

BALANCED, MASTER, SPEED, STOP, NOISY, ADAPTIVE, FAST, QUALITY = range(8)
LONGEST = 6


@cache
def book() -> ProgramBook:
    """Programs of 1 to 6 calls for two scales, the last call of each without guidance; two have fitted rows."""
    made = []
    for scale in (1.0, 2.0):
        for calls, solver in ((1, euler), (2, ipndm), (3, deis), (4, unipc), (6, dpmpp)):
            program = solver(karras(calls, 0.1, 8.0))
            if calls in {3, 4}:
                rows = tuple(
                    tuple(value * 1.01 + 0.002 * number for value in row)
                    for number, row in enumerate(program.coefficients)
                )
                program = Program("fitted", program.sigmas, rows)
            shares = tuple(1.0 if call + 1 < calls or calls == 1 else 0.0 for call in range(calls))
            made.append(
                Entry(program, scale, shares, "fitted coefficients", Score(0.5 / calls**2, 1 / calls, 1 / calls, 9))
            )
    return ProgramBook(tuple(made), 0.1, "fitted coefficients")


class Teacher:
    """A student for tests: it answers with a number that tells by whom and how it was asked."""

    shape, sigma_max = Mixture.shape, 80.0

    def __init__(self, answer: float = 0.25) -> None:
        self.answer = answer
        self.calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(
        self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None, scales: torch.Tensor
    ) -> torch.Tensor:
        self.calls.append((sigma.clone(), scales.clone()))
        return torch.full_like(x, self.answer)


class Broken(Mixture):
    """Answers nan to samples of class 1 at its `call`-th call."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.left = call

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        answers = super().__call__(x, sigma, condition)
        assert isinstance(condition, ClassLabels)
        if self.left == 0:
            answers[condition.labels == 1] = torch.nan
        self.left -= 1
        return answers


class Counting(Mixture):
    """Counts rows, and remembers levels."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.batches = 0, 0
        self.levels: list[torch.Tensor] = []

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        self.rows, self.batches = self.rows + len(x), self.batches + 1
        self.levels.append(sigma.clone())
        return super().__call__(x, sigma, condition)


@dataclass
class Ran:
    samples: torch.Tensor
    evaluations: np.ndarray
    failed: np.ndarray
    reasons: list[str]
    outcomes: list[Outcome]

    def levels(self, row: int) -> list[float]:
        """Where a request went, up to its end."""
        levels = []
        for outcome in self.outcomes:
            levels.append(float(outcome.sigmas[row]))
            if outcome.done[row]:
                break
        return levels


def always(action: Sequence[int] = STATIC.tolist(), gates: Any = None) -> Any:
    def steer(turn: int, seen: np.ndarray) -> Any:
        mixed = None if gates is None else np.tile(np.asarray(gates, dtype=np.float64), (len(seen), 1))
        return np.tile(np.asarray(action), (len(seen), 1)), mixed

    return steer


def script(*actions: Sequence[int]) -> Any:
    """One action for all slots per turn, then static."""

    def steer(turn: int, seen: np.ndarray) -> Any:
        return np.tile(np.asarray(actions[turn] if turn < len(actions) else STATIC), (len(seen), 1)), None

    return steer


def run(slots: Slots, steer: Any, most: int = 4 * LONGEST + 3) -> Ran:
    size = slots.size
    ran = Ran(
        torch.full((size, *slots.shape), torch.nan, dtype=slots.kind),
        np.zeros(size, int),
        np.full(size, -1),
        [""] * size,
        [],
    )
    for turn in range(most):
        if not slots.open.any():
            return ran
        seen = slots.observe()
        assert seen.shape == (size, len(FEATURES))
        assert seen.dtype == np.float32
        assert np.isfinite(seen).all()
        assert np.abs(seen).max() <= 5
        outcome = slots.act(*steer(turn, seen))
        ran.outcomes.append(outcome)
        for row in np.flatnonzero(outcome.done):
            ran.samples[row] = outcome.samples[int(row)]
            ran.evaluations[row], ran.failed[row] = outcome.evaluations[row], outcome.failed[row]
            ran.reasons[row] = outcome.reasons[row]
            assert outcome.sigmas[row] == 0 or outcome.reasons[row] in {"speed", "failed"}
    pytest.fail(f"after {most} decisions there are still requests under way")


def requests(
    count: int, scales: Sequence[float] = (1.0, 2.0, 0.0, 3.5), calls: Sequence[int] | None = (4,), **more: Any
) -> dict[str, Any]:
    labels = torch.arange(count) % 4
    told = [scales[place % len(scales)] for place in range(count)]
    asked = {
        "noise": per_seed_noise(range(count), Mixture.shape),
        "condition": ClassLabels(labels),
        "labels": labels,
        "scales": torch.tensor(told),
        "prices": torch.full((count,), 0.01),
    }
    if calls is not None:
        asked["entries"] = [book().entry(calls[place % len(calls)], told[place]) for place in range(count)]
    return asked | more


def filled(
    count: int,
    denoiser: Any = None,
    rows: Any = None,
    student: Any = None,
    size: int | None = None,
    kind: torch.dtype = torch.float32,
    **more: Any,
) -> Slots:
    slots = Slots(denoiser or Mixture(), book(), size or count, student=student, kind=kind)
    slots.fill(torch.arange(count) if rows is None else rows, **requests(count, **more))
    return slots


def program_result(asked: dict[str, Any], row: int, kind: torch.dtype = torch.float32) -> Any:
    entry, one = asked["entries"][row], slice(row, row + 1)
    condition, scale = asked["condition"].rows(torch.tensor([row])), asked["scales"][one]
    return run_program(Mixture(), asked["noise"][one].to(kind), condition, entry.program, entry.guidance(scale))


@pytest.mark.parametrize("gates", [None, [1.0, 0, 0, 0, 0, 0, 0, 0], [0.3, 0, 2.0, 1.0, 0, 0, 0, 0]])
def test_static_everywhere_is_the_program(gates: Any) -> None:
    asked = requests(20, calls=(1, 2, 3, 4, 6))
    denoiser = Counting()
    slots = Slots(denoiser, book(), 20)
    slots.fill(torch.arange(20), **asked)
    ran = run(slots, always(gates=gates))
    assert len(ran.outcomes) == LONGEST + 1
    for row in range(20):
        expected = program_result(asked, row)
        torch.testing.assert_close(ran.samples[row], expected.samples[0], rtol=1e-5, atol=2e-6)
        assert ran.evaluations[row] == expected.evaluations[0]
        assert ran.reasons[row] == "end"
        assert ran.outcomes[-1].calls[row] == asked["entries"][row].calls
        assert ran.levels(row) == pytest.approx(asked["entries"][row].program.sigmas, rel=1e-9)
    assert denoiser.rows == ran.evaluations.sum() == slots.evaluations
    assert denoiser.batches == LONGEST
    assert slots.refused == 0


def test_static_is_the_program_in_double_precision() -> None:
    asked = requests(4, calls=(6,))
    slots = Slots(Mixture(), book(), 4, kind=torch.float64)
    slots.fill(range(4), **(asked | {"noise": asked["noise"].double()}))
    ran = run(slots, always())
    for row in range(4):
        torch.testing.assert_close(ran.samples[row], program_result(asked, row, torch.float64).samples[0])


@pytest.mark.parametrize("row", range(40))
def test_static_programs_are_those_of_the_book(row: int) -> None:
    generator = np.random.default_rng(row)
    price, scale = float(10 ** generator.uniform(-5, 0)), float(generator.choice([0.0, 1.0, 1.4, 1.5, 2.0, 7.0]))
    slots = Slots(Mixture(), book(), 1)
    asked = requests(1, scales=(scale,), calls=None) | {"prices": [price]}
    slots.fill([0], **asked)
    assert slots.entry(0) is book().for_price(price, scale)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.booleans(), st.booleans())
def test_whatever_is_decided_every_request_ends_well(
    seed: int, with_student: bool, with_gates: bool, limited: bool
) -> None:
    generator = np.random.default_rng(seed)
    count = 6
    budgets = generator.integers(2, 9, count) if limited else None
    asked = requests(count, calls=tuple(generator.choice([1, 2, 3, 4, 6], count)), budgets=budgets)
    student = Teacher() if with_student else None
    likely = generator.dirichlet(np.full(8, 0.7))

    turns = [
        (
            np.stack([generator.choice(most, count, p=likely if most == 8 else None) for most in ACTIONS], axis=1),
            generator.random((count, 8)) if with_gates else None,
        )
        for _ in range(4 * LONGEST + MOST_RISES + 1)
    ]
    denoiser = Counting()
    slots = Slots(denoiser, book(), count, student=student)
    slots.fill(np.arange(count), **asked)
    ran = run(slots, lambda turn, seen: turns[turn], len(turns) + 1)
    assert torch.isfinite(ran.samples).all()
    assert (ran.failed == -1).all()
    of_student = 0 if student is None else sum(len(sigma) for sigma, _ in student.calls)
    assert slots.evaluations == ran.evaluations.sum() == denoiser.rows + of_student
    assert slots.refused == 0
    if budgets is not None:
        assert (ran.evaluations <= budgets).all()
    for row in range(count):
        levels = np.array(ran.levels(row))
        acted = [int(outcome.used[row]) for outcome in ran.outcomes[: len(levels)]]
        rises = [place for place in range(1, len(levels)) if levels[place] >= levels[place - 1]]
        assert len(rises) <= MOST_RISES
        for place in rises:
            assert acted[place] == NOISY
            assert turns[place][0][row, 3] > 0
            assert 1 < levels[place] / levels[place - 1] <= 1.25 + 1e-9
        # Alone it becomes the same.
        if row == seed % count:
            alone = Slots(Mixture(), book(), 3, student=student)
            own = {
                key: value if value is None else value[row : row + 1]
                for key, value in asked.items()
                if key != "condition"
            }
            alone.fill([1], condition=asked["condition"].rows(torch.tensor([row])), **own)
            own_turns = [[None if part is None else np.tile(part[row], (3, 1)) for part in turn] for turn in turns]
            result = run(alone, lambda turn, seen, turns=own_turns: turns[turn], len(turns) + 1)
            torch.testing.assert_close(result.samples[1], ran.samples[row], rtol=1e-3, atol=2e-4)
            assert result.evaluations[1] == ran.evaluations[row]
            assert result.reasons[1] == ran.reasons[row]


def test_slots_can_be_filled_again_while_others_are_under_way() -> None:
    asked = requests(9, calls=(6, 2, 3))
    slots = Slots(Mixture(), book(), 3)
    waiting, owner, found = list(range(9)), [-1] * 3, {}

    def fill(rows: list[int]) -> None:
        new = [waiting.pop(0) for _ in rows[: len(waiting)]]
        rows = rows[: len(new)]
        if new:
            picked = {
                key: [value[place] for place in new]
                for key, value in asked.items()
                if key in {"scales", "prices", "labels", "entries"}
            }
            picked = {
                key: value if key == "entries" else [float(v) if key != "labels" else int(v) for v in value]
                for key, value in picked.items()
            }
            slots.fill(rows, noise=asked["noise"][new], condition=asked["condition"].rows(torch.tensor(new)), **picked)
            for row, place in zip(rows, new, strict=True):
                owner[row] = place

    fill([0, 1, 2])
    kept = []
    while slots.open.any():
        outcome = slots.act(np.tile(STATIC, (3, 1)))
        kept.append((outcome.samples, outcome.samples.clone()))
        free = np.flatnonzero(outcome.done).tolist()
        found.update({owner[row]: (outcome.samples[row], int(outcome.evaluations[row])) for row in free})
        fill(free)
    assert sorted(found) == list(range(9))
    for place, (sample, evaluations) in found.items():
        expected = program_result(asked, place)
        torch.testing.assert_close(sample, expected.samples[0], rtol=1e-5, atol=2e-6)
        assert evaluations == expected.evaluations[0]
    # What was handed out does not change later.
    for handed, copied in kept:
        torch.testing.assert_close(handed, copied, rtol=0, atol=0, equal_nan=True)


def test_the_first_decision_chooses_the_program() -> None:
    def opened(stride: int, expert: int) -> int:
        slots = filled(1, scales=(1.0,), calls=(3,))
        slots.act(np.array([[stride, expert, 0, 0]]))
        return slots.entry(0).calls

    static = STRIDES.index(1.0)
    assert [opened(stride, BALANCED) for stride in range(7)] == [6, 6, 4, 3, 2, 1, 1]
    assert [opened(static, expert) for expert in range(8)] == [3, 4, 3, 3, 3, 3, 2, 4]
    assert opened(static - 1, QUALITY) == 6
    assert opened(static + 1, QUALITY) == 3


def test_the_student_answers_at_once_or_after_a_step() -> None:
    student = Teacher()
    slots = filled(4, student=student)
    ran = run(slots, always((3, SPEED, 0, 0)))
    assert ran.reasons == ["speed"] * 4
    assert ran.evaluations.tolist() == [1] * 4
    assert (ran.samples == 0.25).all()
    assert student.calls[0][0].tolist() == pytest.approx([80.0] * 4)
    assert student.calls[0][1].tolist() == [1.0, 2.0, 0.0, 3.5]

    student = Teacher()
    ran = run(filled(2, student=student), script(STATIC, STATIC, (3, SPEED, 0, 0)))
    assert ran.evaluations.tolist() == [3, 5]
    assert student.calls[0][0].tolist() == pytest.approx([book().entry(4, 1.0).program.sigmas[2]] * 2)
    assert [ran.outcomes[-1].used[0], ran.outcomes[-1].sigmas[0] > 0] == [SPEED, True]


def test_a_student_with_a_middle_level_answers_twice_at_the_opening_whatever_comes_next() -> None:
    class Twice(Teacher):
        middle = 1.5

    student = Twice()
    noise = per_seed_noise(range(4), Mixture.shape)
    scales = torch.tensor([1.0, 2.0, 0.0, 3.5])
    labels = torch.arange(4)
    expected = two_step(student, noise, ClassLabels(labels), scales)  # type: ignore[arg-type]
    student.calls.clear()
    slots = Slots(Mixture(), book(), 4, student=student)
    slots.fill(torch.arange(4), noise, ClassLabels(labels), labels, scales, torch.full((4,), 0.01))
    opening = np.tile((3, SPEED, 0, 0), (4, 1))
    first = slots.act(opening)
    assert not first.done.any()
    assert first.reasons == ("",) * 4
    assert first.evaluations.tolist() == [1] * 4
    ended = slots.act(np.tile((6, STOP, 2, 1), (4, 1)))
    assert ended.done.all()
    assert ended.reasons == ("speed",) * 4
    assert ended.used.tolist() == [SPEED] * 4
    assert ended.evaluations.tolist() == [2] * 4
    torch.testing.assert_close(ended.samples, expected, rtol=1e-4, atol=1e-5)
    assert [level for sigma, _ in student.calls for level in sigma.tolist()] == pytest.approx([80.0] * 4 + [1.5] * 4)
    # A budget of one evaluation is spent by the first; what it said is the answer.
    slots.fill(torch.arange(1), noise[:1], ClassLabels(labels[:1]), labels[:1], scales[:1], [0.01], [1])
    slots.act(opening)
    short = slots.act(np.tile(STATIC, (4, 1)))
    assert short.done[0]
    assert short.reasons[0] == "budget"
    assert short.evaluations[0] == 1


def test_without_a_student_balanced_acts_in_its_place() -> None:
    ran, static = run(filled(2), always((3, SPEED, 0, 0))), run(filled(2), always())
    assert torch.equal(ran.samples, static.samples)
    assert (ran.outcomes[0].used == BALANCED).all()


def test_stopping_returns_the_prediction() -> None:
    asked = requests(1, scales=(1.0,))
    ran = run(filled(1, scales=(1.0,)), script(STATIC, (3, STOP, 0, 0)))
    first = asked["entries"][0].program.sigmas[0]
    expected = Mixture()(asked["noise"] * first, torch.tensor([first]), asked["condition"])
    torch.testing.assert_close(ran.samples, expected)
    assert (ran.reasons, ran.evaluations.tolist(), len(ran.outcomes)) == (["stop"], [1], 2)


def test_guidance_can_be_skipped_or_held() -> None:
    skipped = run(filled(4), always((3, BALANCED, 2, 0)))
    assert skipped.evaluations.tolist() == [4, 4, 4, 4]
    alone = run(filled(4, scales=(1.0,)), always())
    entry, one = book().entry(4, 2.0), requests(4)
    plain = run_program(Mixture(), one["noise"][1:2], one["condition"].rows(torch.tensor([1])), entry.program)
    torch.testing.assert_close(skipped.samples[1], plain.samples[0], rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(skipped.samples[0], alone.samples[0])
    # Held corrections cost one evaluation; the first call has none to hold. Scale 0 asks for nothing to begin with.
    held = run(filled(4), always((3, BALANCED, 1, 0)))
    assert held.evaluations.tolist() == [4, 5, 4, 5]
    assert not torch.allclose(held.samples[1], skipped.samples[1], atol=1e-3)
    torch.testing.assert_close(held.samples[0], alone.samples[0])


def test_a_held_correction_is_the_last_one() -> None:
    denoiser, asked = Mixture(), requests(1, scales=(2.0,), calls=(3,))
    program = asked["entries"][0].program
    row, x = asked["condition"], asked["noise"] * program.sigmas[0]
    sigma = torch.tensor([program.sigmas[0]])
    obeyed, free = denoiser(x, sigma, row), denoiser(x, sigma, row.null())
    first = free + 2 * (obeyed - free)
    ratio, weight = program.sigmas[1] / program.sigmas[0], program.coefficients[0][0]
    second_state = ratio * x + weight * first
    second = denoiser(second_state, torch.tensor([program.sigmas[1]]), row) + first - obeyed
    ran = run(filled(1, scales=(2.0,), calls=(3,)), script(STATIC, (3, BALANCED, 1, 0), (3, STOP, 0, 0)))
    torch.testing.assert_close(ran.samples, second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("expert", "order", "stride"), [(FAST, 1, 1.5), (QUALITY, 3, 0.7), (MASTER, 3, 0.5)])
def test_multistep_experts_follow_their_rules(expert: int, order: int, stride: float) -> None:
    asked = requests(1, scales=(1.0,), calls=(6,))
    entry = asked["entries"][0]
    ran = run(filled(1, scales=(1.0,), calls=(6,)), script(STATIC, *[(3, expert, 0, 0)] * 20))
    levels = ran.levels(0)
    logs = np.log(entry.program.levels)
    places = stride * np.arange(len(levels) - 1)
    inside = places <= len(logs) - 1
    assert np.log(levels[:-1])[inside] == pytest.approx(np.interp(places[inside], np.arange(len(logs)), logs), abs=1e-9)
    expected = run_program(Mixture(), asked["noise"], asked["condition"], dpmpp(levels, order, ending="plain"))
    torch.testing.assert_close(ran.samples, expected.samples, rtol=1e-4, atol=1e-5)
    assert ran.evaluations[0] == len(levels) - 1


def test_balanced_steps_elsewhere_are_of_second_order() -> None:
    asked = requests(1, scales=(1.0,), calls=(4,))
    ran = run(filled(1, scales=(1.0,), calls=(4,)), script(STATIC, *[(1, BALANCED, 0, 0)] * 20))
    levels = ran.levels(0)
    expected = run_program(Mixture(), asked["noise"], asked["condition"], dpmpp(levels, 2, ending="plain"))
    torch.testing.assert_close(ran.samples, expected.samples, rtol=1e-4, atol=1e-5)


def test_gates_mix_coefficients_without_further_evaluations() -> None:
    third, second = np.eye(8)[QUALITY], np.eye(8)[ADAPTIVE]
    turns = [STATIC, STATIC, STATIC]
    results = []
    for gates in (third, second, 0.5 * third + 0.5 * second, 3 * third + 3 * second):
        slots = filled(1, scales=(1.0,), calls=(6,))
        for turn in turns:
            slots.act(turn[None], None)
        outcome = slots.act(STATIC[None], gates[None])
        results.append(outcome.samples.clone())
        assert outcome.evaluations.tolist() == [4]
    torch.testing.assert_close(results[2], (results[0] + results[1]) / 2, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(results[3], results[2])
    assert not torch.allclose(results[0], results[1], atol=1e-5)


def test_adaptive_steps_are_longer_where_first_and_second_order_agree() -> None:
    def positions(denoiser: Any) -> list[float]:
        return run(
            filled(1, denoiser=denoiser, scales=(1.0,), calls=(6,)), script(STATIC, STATIC, *[(3, ADAPTIVE, 0, 0)] * 20)
        ).levels(0)

    class Sure(Mixture):
        def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
            return torch.full_like(x, 0.3)

    assert len(positions(Sure())) < len(positions(Mixture()))
    assert positions(Sure())[2] == pytest.approx(book().entry(6, 1.0).program.sigmas[3])


def test_noise_adaptive_tells_the_level_that_it_measured() -> None:
    def told(size: float, expert: int) -> float:
        denoiser, noise = Counting(), per_seed_noise([3], Mixture.shape)
        noise /= noise.square().mean().sqrt()
        slots = filled(1, denoiser=denoiser, scales=(1.0,), calls=(6,), noise=noise * size)
        slots.act(STATIC[None])
        slots.act(np.array([[3, expert, 0, 0]]))
        return float(denoiser.levels[1][0]) / book().entry(6, 1.0).program.sigmas[1]

    assert told(1.6, BALANCED) == pytest.approx(1)
    assert told(1.6, NOISY) > 1.1
    assert told(0.5, NOISY) < 0.9


def test_churn_raises_the_level_by_fresh_noise_of_that_size() -> None:
    slots = filled(64, scales=(1.0,), calls=(6,))
    for _ in range(3):
        before = slots.act(np.tile(STATIC, (64, 1)))
    churn = np.tile((3, NOISY, 0, 2), (64, 1))
    first, second = slots.act(churn), slots.act(churn)
    assert first.sigmas / before.sigmas == pytest.approx(1.25)
    added = first.samples - before.samples
    assert float(added.std()) / np.sqrt(first.sigmas[0] ** 2 - before.sigmas[0] ** 2) == pytest.approx(1, abs=0.05)
    again = second.samples - first.samples
    noise = per_seed_noise(range(64), Mixture.shape)
    for one, other in ((added, noise), (again, noise), (added, again)):
        cosine = torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)
        assert abs(float(cosine)) < 0.12
    third = slots.act(churn)
    assert (third.sigmas < second.sigmas).all()


def test_budgets_end_a_request_before_the_call_that_is_too_much() -> None:
    asked = requests(3, scales=(2.0,), calls=(6,), budgets=[5, 4, 100])
    denoiser = Counting()
    slots = Slots(denoiser, book(), 3)
    slots.fill([0, 1, 2], **asked)
    ran = run(slots, always())
    assert ran.evaluations.tolist() == [4, 4, 11]
    assert ran.reasons == ["budget", "budget", "end"]
    assert denoiser.rows == 19
    # What is returned is the step to sigma 0, the last prediction.
    stopped = run(filled(3, scales=(2.0,), calls=(6,)), script(STATIC, STATIC, (3, STOP, 0, 0)))
    torch.testing.assert_close(ran.samples[:2], stopped.samples[:2], rtol=1e-5, atol=1e-6)


def test_a_longer_program_is_not_begun_without_the_budget_for_its_first_call() -> None:
    slots = filled(1, scales=(2.0,), calls=(1,), budgets=[2])
    slots.act(np.array([[0, BALANCED, 0, 0]]))
    assert slots.entry(0).calls == 4


@pytest.mark.parametrize("call", [0, 2])
def test_an_answer_that_is_no_number_ends_that_request_only(call: int) -> None:
    whole = run(filled(6, scales=(1.0,)), always())
    ran = run(filled(6, denoiser=Broken(call), scales=(1.0,)), always())
    broken = np.array([1, 5])
    others = np.array([0, 2, 3, 4])
    assert ran.failed[broken].tolist() == [call, call]
    assert ran.failed[others].tolist() == [-1] * 4
    assert [ran.reasons[row] for row in broken] == ["failed"] * 2
    torch.testing.assert_close(ran.samples[others], whole.samples[others], rtol=1e-5, atol=1e-6)
    if call == 0:
        assert ran.samples[broken].isnan().all()
    else:
        stopped = run(filled(6, scales=(1.0,)), script(STATIC, STATIC, (3, STOP, 0, 0)))
        torch.testing.assert_close(ran.samples[broken], stopped.samples[broken], rtol=1e-5, atol=1e-6)


def test_a_slot_that_failed_can_be_filled_again() -> None:
    slots = filled(2, denoiser=Broken(1), scales=(1.0,))
    slots.act(np.tile(STATIC, (2, 1)))
    outcome = slots.act(np.tile(STATIC, (2, 1)))
    assert outcome.done.tolist() == [False, True]
    assert slots.observe()[1].tolist() == np.eye(len(FEATURES))[FEATURES.index("broken")].tolist()
    asked = requests(1, scales=(1.0,))
    slots.fill([1], **asked)
    ran = run(slots, always())
    expected = program_result(asked, 0)
    torch.testing.assert_close(ran.samples[1], expected.samples[0], rtol=1e-5, atol=2e-6)


def test_noise_that_is_no_number_ends_that_request_only() -> None:
    noise = per_seed_noise(range(3), Mixture.shape)
    noise[1, 0, 2, 2] = torch.inf
    ran, whole = run(filled(3, noise=noise), always()), run(filled(3), always())
    assert ran.failed.tolist() == [-1, 0, -1]
    torch.testing.assert_close(ran.samples[[0, 2]], whole.samples[[0, 2]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("action", "gate"),
    [
        ([np.nan, 0, 0, 0], 1.0),
        ([3, 8, 0, 0], 1.0),
        ([-1, 0, 0, 0], 1.0),
        ([3.5, 0, 0, 0], 1.0),
        ([1e30, 0, 0, 0], 1.0),
        ([0, 1, 2, 2], np.nan),
        ([0, 1, 2, 2], -1.0),
        ([0, 1, 2, 2], np.inf),
    ],
)
def test_decisions_that_are_none_become_static_for_that_slot(action: list[float], gate: float) -> None:
    def steer(turn: int, seen: np.ndarray) -> Any:
        actions, gates = np.tile(STATIC.astype(float), (3, 1)), np.tile(np.eye(8)[BALANCED], (3, 1))
        actions[1], gates[1, 4] = action, gate
        return actions, gates

    slots = filled(3)
    ran, whole = run(slots, steer), run(filled(3), always())
    assert torch.equal(ran.samples, whole.samples)
    assert slots.refused == len(ran.outcomes)


def test_free_slots_are_left_alone() -> None:
    denoiser = Counting()
    slots = filled(2, denoiser=denoiser, rows=torch.tensor([3, 1]), size=5, scales=(1.0,))
    assert slots.open.tolist() == [False, True, False, True, False]
    outcome = slots.act(np.full((5, 4), 2))
    assert outcome.used.tolist() == [-1, BALANCED, -1, BALANCED, -1]  # there is no student to act
    assert denoiser.rows == 2
    assert not outcome.done.any()
    assert not slots.observe()[[0, 2, 4]].any()
    slots.fill([], **requests(0))
    assert slots.open.sum() == 2


def test_requests_without_conditions() -> None:
    slots = Slots(Mixture(), book(), 2)
    asked = requests(2, scales=(1.0,)) | {"condition": None, "labels": None}
    slots.fill([0, 1], **asked)
    ran = run(slots, always())
    expected = run_program(Mixture(), asked["noise"], None, asked["entries"][0].program)
    torch.testing.assert_close(ran.samples, expected.samples, rtol=1e-5, atol=2e-6)
    with pytest.raises(BadInput, match="guidance without conditions"):
        slots.fill([0, 1], **(asked | {"scales": [1.0, 2.0]}))


@dataclass(frozen=True)
class Prompts:
    """Conditions that are no class labels."""

    numbers: torch.Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self, index: torch.Tensor) -> Prompts:
        return Prompts(self.numbers[index])

    def null(self) -> Prompts:
        return Prompts(torch.full_like(self.numbers, NULL))

    def joined(self, other: Prompts) -> Prompts:
        return Prompts(torch.cat((self.numbers, other.numbers)))


def test_other_conditions_than_classes() -> None:
    class Prompted(Mixture):
        def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
            assert isinstance(condition, Prompts)
            return super().__call__(x, sigma, ClassLabels(condition.numbers))

    asked = requests(6, calls=(2, 3, 4))
    slots = Slots(Prompted(), book(), 6)
    first, second = np.array([4, 0, 2]), np.array([1, 5, 3])
    for turn, rows in enumerate((first, second)):
        picked = {key: value[rows] for key, value in asked.items() if key in {"noise", "labels", "scales", "prices"}}
        entries = [asked["entries"][row] for row in rows]
        slots.fill(rows, condition=Prompts(asked["labels"][rows]), entries=entries, **picked)
        if turn == 0:
            slots.act(np.tile(STATIC, (6, 1)))
    ran = run(slots, always())
    for row in range(6):
        torch.testing.assert_close(ran.samples[row], program_result(asked, row).samples[0], rtol=1e-5, atol=2e-6)
    slots.fill([0], **requests(1))
    with pytest.raises(BadInput, match="beside"):
        slots.fill([1], **(requests(1) | {"condition": Prompts(torch.tensor([1]))}))


def test_entries_from_elsewhere_with_longer_rows() -> None:
    program = ipndm(karras(12, 0.05, 9.0), 4)
    assert program.memory > 6
    entry = Entry(program, 1.0, (1.0,) * 12, "grid", Score(0.1, 0.1, 0.1, 1))
    slots = filled(2, scales=(1.0,), calls=(6,), size=4)
    for _ in range(3):
        slots.act(np.tile(STATIC, (4, 1)))
    asked = requests(2, scales=(1.0,)) | {"entries": [entry, entry]}
    slots.fill([2, 3], **asked)
    ran = run(slots, always())
    for row in range(2):
        torch.testing.assert_close(ran.samples[2 + row], program_result(asked, row).samples[0], rtol=1e-5, atol=3e-6)
        first = program_result(requests(2, scales=(1.0,), calls=(6,)), row)
        torch.testing.assert_close(ran.samples[row], first.samples[0], rtol=1e-5, atol=3e-6)


def test_a_refused_request_with_a_longer_program_harms_nobody() -> None:
    long = Entry(ipndm(karras(12, 0.05, 9.0), 4), 1.0, (1.0,) * 12, "grid", Score(0.1, 0.1, 0.1, 1))
    slots = filled(2, scales=(1.0,), calls=(6,), size=3)
    slots.act(np.tile(STATIC, (3, 1)))
    with pytest.raises(BadInput, match="budget"):
        slots.fill([2], **(requests(1, scales=(1.0,)) | {"entries": [long], "budgets": [0]}))
    ran = run(slots, always())
    for row in range(2):
        expected = program_result(requests(2, scales=(1.0,), calls=(6,)), row)
        torch.testing.assert_close(ran.samples[row], expected.samples[0], rtol=1e-5, atol=2e-6)


def test_a_network_that_raises_can_be_asked_again() -> None:
    class Moody(Mixture):
        cross = True

        def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
            if self.cross:
                raise BadInput("not now")
            return super().__call__(x, sigma, condition)

    denoiser = Moody()
    slots = filled(2, denoiser=denoiser)
    with pytest.raises(BadInput, match="not now"):
        slots.act(np.tile((0, BALANCED, 0, 0), (2, 1)))
    denoiser.cross = False
    assert torch.equal(run(slots, always()).samples, run(filled(2), always()).samples)


def test_a_trace_tells_what_was_decided() -> None:
    slots = Slots(Mixture(), book(), 2, trace=True)
    slots.fill([0, 1], **requests(2, scales=(1.0, 2.0), calls=(3,)))
    run(slots, script(STATIC, (4, FAST, 2, 0), (3, STOP, 0, 0)))
    steps = slots.trace(1)
    assert [step.expert for step in steps] == ["BalancedMaster", "Fast", "EarlyStopper"]
    assert [step.evaluations for step in steps] == [2, 1, 0]
    assert [step.reason for step in steps] == ["", "", "stop"]
    assert steps[1].stride == pytest.approx(1.8)
    assert [step.guidance for step in steps[:2]] == [2.0, 1.0]
    assert np.isnan(steps[2].guidance)
    slots.fill([1], **requests(1, calls=(1,)))
    run(slots, always())
    assert [step.reason for step in slots.trace(1)] == ["", "end"]
    with pytest.raises(BadInput, match="trace=True"):
        Slots(Mixture(), book(), 1).trace(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [0, 2]}, "expected 0 to 1"),
        ({"rows": [1, 1]}, "named twice"),
        ({"noise": torch.zeros(2, 3, 4, 4)}, "expected floats of"),
        ({"noise": torch.zeros(2, 1, 4, 4, dtype=torch.long)}, "expected floats of"),
        ({"scales": [1.0]}, "guidance scales"),
        ({"scales": [1.0, np.nan]}, "not a finite number"),
        ({"prices": [0.1, -1.0]}, "price = -1"),
        ({"prices": [0.1, np.inf]}, "price = inf"),
        ({"labels": [0.5, 1.0]}, "whole numbers"),
        ({"condition": ClassLabels(torch.zeros(3, dtype=torch.long))}, "3 conditions"),
        ({"budgets": [1, 0]}, "at least 1"),
        ({"budgets": [4, 1], "scales": [1.0, 2.0]}, "at least 2"),
        ({"budgets": [np.nan, 4.0]}, "budget of nan"),
        ({"entries": []}, "0 entries"),
    ],
)
def test_requests_that_are_none_are_refused_and_nothing_is_started(change: dict[str, Any], message: str) -> None:
    slots = Slots(Mixture(), book(), 2)
    asked = requests(2, scales=(1.0,)) | {"rows": [0, 1]} | change
    with pytest.raises(BadInput, match=message):
        slots.fill(**asked)
    assert not slots.open.any()


def test_programs_with_corrections_are_refused() -> None:
    program = heun(karras(3, 0.1, 8.0))
    entry = Entry(program, 1.0, (1.0,) * 5, "grid", Score(0.1, 0.1, 0.1, 1))
    with pytest.raises(BadInput, match="corrections"):
        filled(1, scales=(1.0,), calls=None, entries=[entry])


def test_classes_that_the_network_does_not_know_are_refused_before_they_do_harm() -> None:
    from vernissage.sampler.domain.unet import EdmDenoiser, UNetSpec

    denoiser = EdmDenoiser(UNetSpec(1, 8, 4, width=8, multipliers=(1,), attention_side=0)).eval()
    slots = Slots(denoiser, book(), 1)
    with pytest.raises(BadInput, match="class 9"):
        slots.fill([0], torch.zeros(1, 1, 8, 8), ClassLabels(torch.tensor([9])), [9], [1.0], [0.1])


@pytest.mark.parametrize(
    ("actions", "gates"),
    [(np.zeros((2, 4), int), None), (np.zeros((3, 5), int), None), (np.zeros((3, 4), int), np.ones((3, 7)))],
)
def test_decisions_of_other_shapes_are_refused(actions: np.ndarray, gates: np.ndarray | None) -> None:
    with pytest.raises(BadInput, match="of shape"):
        filled(3).act(actions, gates)


def test_slots_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadInput, match="at least 1"):
        Slots(Mixture(), book(), 0)
    with pytest.raises(BadInput, match="float32 or float64"):
        Slots(Mixture(), book(), 1, kind=torch.float16)
    other = Teacher()
    other.shape = (3, 4, 4)
    with pytest.raises(BadInput, match="student"):
        Slots(Mixture(), book(), 1, student=other)


def test_tensors_are_taken_for_actions_and_gates() -> None:
    slots, other = filled(2), filled(2)
    one = slots.act(torch.from_numpy(np.tile(STATIC, (2, 1))), torch.ones(2, 8))
    two = other.act(np.tile(STATIC, (2, 1)), np.ones((2, 8)))
    assert torch.equal(one.samples, two.samples)


def test_the_bank_is_complete() -> None:
    assert tuple(type(expert).__name__ for expert in BANK) == EXPERTS
    assert len(EXPERTS) == ACTIONS[1] == 8
    assert all(expert.__doc__ and len(expert.__doc__) > 60 for expert in BANK)
