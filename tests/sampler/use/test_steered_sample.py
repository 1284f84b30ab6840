"""Our own loop: what static programs make where nothing else is said, per-sample requests, failures kept apart."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from tests.sampler.mixture import Mixture
from tests.sampler.use.small_sampler import CALLS, Told, always, closed_form, small_book, small_model
from vernissage.core.errors import BadInput
from vernissage.sampler.domain.denoiser import ClassLabels
from vernissage.sampler.domain.sampling import per_seed_noise, run_program
from vernissage.sampler.learn.consistency import two_step
from vernissage.sampler.learn.experts import ACTIONS, EXPERTS, STATIC
from vernissage.sampler.use.sample import Request, SteeredResult, steered_sample


def asked(count: int, **same: Any) -> list[Request]:
    return [Request(place % 4, 100 + place, **same) for place in range(count)]


def wild(observations: np.ndarray) -> np.ndarray:
    """Actions that follow from what is seen of each slot, and from nothing else."""
    keys = (np.abs(observations).sum(axis=1) * 1000).round().astype(np.int64)
    return np.stack([keys // 7**place % count for place, count in enumerate(ACTIONS)], axis=1)


@pytest.mark.parametrize("controller", [None, Told(), Told(prices=(0.9,))])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_without_another_word_it_is_the_static_program(controller: Any, scale: float) -> None:
    model, requests = closed_form(controller), asked(9, guidance=scale, price=0.02)
    result = steered_sample(model, requests, slots=4)
    entry = small_book().for_price(0.02, scale)
    noise = per_seed_noise([request.seed for request in requests], model.denoiser.shape)
    labels = ClassLabels(torch.tensor([request.label for request in requests]))
    guidance = entry.guidance(torch.full((9,), scale))
    expected = run_program(model.denoiser, noise, labels, entry.program, guidance)
    torch.testing.assert_close(result.sample, expected.samples, atol=1e-4, rtol=1e-4)
    assert result.nfe.tolist() == expected.evaluations.tolist() == result.static_nfe.tolist()
    assert result.failed.tolist() == [-1] * 9
    assert result.reasons == ("end",) * 9
    assert result.steered.tolist() == [isinstance(controller, Told) and controller.steers_at(0.02)] * 9


def test_a_price_buys_a_program() -> None:
    requests = [Request(1, 5, price=price) for price in (0.0, 0.02, 0.5)]
    result = steered_sample(closed_form(), requests)
    expected = [small_book().for_price(price, 1.0).calls for price in (0.0, 0.02, 0.5)]
    assert result.nfe.tolist() == expected
    assert len(set(expected)) == 3


@pytest.mark.parametrize("budget", range(1, 10))
def test_a_budget_is_never_exceeded(budget: int) -> None:
    for controller in (None, Told(wild)):
        requests = asked(20, budget=budget) + asked(20, budget=budget + 1, guidance=2.0)
        result = steered_sample(closed_form(controller), requests, slots=16)
        assert (result.nfe <= torch.tensor([budget] * 20 + [budget + 1] * 20)).all()
        assert result.sample.isfinite().all()
    static = steered_sample(closed_form(), asked(3, budget=budget))
    assert static.nfe.tolist() == [max((calls for calls in CALLS if calls <= budget), default=budget)] * 3


def test_samples_depend_on_their_own_requests_only() -> None:
    model = closed_form(Told(wild))
    requests = [
        Request(place % 4, 7 * place, (1.0, 2.0)[place % 2], (0.0, 0.01, 0.1)[place % 3], None if place % 5 else 4)
        for place in range(24)
    ]
    together = steered_sample(model, requests)
    in_turns = steered_sample(model, requests, slots=5)
    backwards = steered_sample(model, requests[::-1], slots=7)
    torch.testing.assert_close(in_turns.sample, together.sample, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(backwards.sample.flip(0), together.sample, atol=1e-4, rtol=1e-4)
    assert in_turns.nfe.tolist() == together.nfe.tolist() == backwards.nfe.tolist()[::-1]
    for place in (0, 13, 23):
        alone = steered_sample(model, [requests[place]])
        torch.testing.assert_close(alone.sample[0], together.sample[place], atol=1e-4, rtol=1e-4)
    assert torch.equal(steered_sample(model, requests).sample, together.sample)


def test_a_price_may_keep_the_controller_out() -> None:
    """Neighbours in one batch, steered or not, as the price of each says."""
    controller = Told(always("EarlyStopper"), prices=(0.1,))
    mixed = [Request(0, place, price=(0.1, 0.02)[place % 2]) for place in range(8)]
    result = steered_sample(closed_form(controller), mixed)
    static = steered_sample(closed_form(), mixed)
    assert result.steered.tolist() == [True, False] * 4
    assert result.nfe[::2].tolist() == [1] * 4
    assert result.reasons == ("stop", "end") * 4
    torch.testing.assert_close(result.sample[1::2], static.sample[1::2], atol=1e-5, rtol=1e-5)
    assert max(controller.seen) == 4


def test_gates_reach_the_experts() -> None:
    gates = np.zeros(len(EXPERTS))
    gates[EXPERTS.index("Fast")] = 1
    plain, mixed = (steered_sample(closed_form(Told(gates=own)), asked(4)) for own in (None, gates))
    assert mixed.nfe.tolist() == plain.nfe.tolist()
    assert not torch.allclose(mixed.sample, plain.sample, atol=1e-4)


def test_actions_that_are_none_are_refused_and_counted() -> None:
    model = closed_form(Told(lambda seen: np.full((len(seen), 4), 99)))
    result, static = steered_sample(model, asked(4)), steered_sample(closed_form(), asked(4))
    torch.testing.assert_close(result.sample, static.sample)
    assert result.refused == sum(len(row.samples) for row in result.trace)


def test_the_student_is_asked_for_speed() -> None:
    model = small_model(steered=False)
    requests = [Request(place % 3, place, 2.0) for place in range(5)]
    told = closed_form(Told(always("SpeedDemon")), denoiser=model.denoiser, student=model.student)
    result = steered_sample(told, requests)
    assert result.nfe.tolist() == [2] * 5
    assert result.reasons == ("speed",) * 5
    noise = per_seed_noise(range(5), model.denoiser.shape)
    assert model.student is not None
    labels = ClassLabels(torch.tensor([request.label for request in requests]))
    with torch.no_grad():
        expected = two_step(model.student, noise, labels, torch.full((5,), 2.0))
    # Slots go on along the direction (x - D) / sigma, which at the highest level is the noise but for a hundredth of D.
    torch.testing.assert_close(result.sample, expected, atol=1e-3, rtol=1e-3)


class Breaking(Mixture):
    """Answers with nan for class 3 below a noise level, or at all."""

    def __init__(self, below: float) -> None:
        super().__init__()
        self._below = below

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Any) -> torch.Tensor:
        answer = super().__call__(x, sigma, condition).clone()
        answer[(condition.labels == 3) & (sigma < self._below)] = torch.nan
        return answer


@pytest.mark.parametrize(("below", "call"), [(1.0, 4), (1e9, 0)])
@pytest.mark.parametrize("controller", [None, Told()])
def test_one_that_breaks_is_reported_and_no_other_changes(below: float, call: int, controller: Any) -> None:
    whole = steered_sample(closed_form(controller), asked(12), slots=5)
    broken = steered_sample(closed_form(controller, denoiser=Breaking(below)), asked(12), slots=5)
    of_three = torch.tensor([request.label == 3 for request in asked(12)])
    assert broken.failed.tolist() == [call if bad else -1 for bad in of_three.tolist()]
    torch.testing.assert_close(broken.sample[~of_three], whole.sample[~of_three], atol=1e-5, rtol=1e-5)
    assert bool(broken.sample[of_three].isfinite().all()) == (call > 0)
    assert [reason == "failed" for reason in broken.reasons] == of_three.tolist()


def test_the_trace_tells_every_decision() -> None:
    requests = asked(11, price=0.05, guidance=2.0)
    result = steered_sample(closed_form(Told(wild, prices=(0.05,))), requests, slots=4)
    json.dumps([row.to_dict() for row in result.trace], allow_nan=False)
    assert [row.call for row in result.trace] == list(range(len(result.trace)))
    assert all(row.milliseconds >= 0 and row.steering_milliseconds > 0 for row in result.trace)
    assert all(row.evaluations == sum(step.evaluations for step in row.samples) for row in result.trace)
    assert sum(row.evaluations for row in result.trace) == int(result.nfe.sum())
    for place in range(len(requests)):
        own = [step for row in result.trace for step in row.samples if step.sample == place]
        assert sum(step.evaluations for step in own) == int(result.nfe[place])
        calls = [step.call for step in own if step.call is not None]
        assert calls == list(range(len(calls)))
        assert [step.reason for step in own] == [""] * (len(own) - 1) + [result.reasons[place]]
        assert all(step.expert in EXPERTS and step.confidence == 0.75 for step in own)
        assert (own[-1].call is None) == (own[-1].sigma == 0)
    static = steered_sample(closed_form(), requests[:2])
    assert all(step.confidence is None for row in static.trace for step in row.samples)
    assert [row.sigma for row in static.trace] == pytest.approx(small_book().for_price(0.05, 2.0).program.sigmas)
    assert [row.samples[0].guidance for row in static.trace][-2:] == [1.0, None]
    assert steered_sample(closed_form(), requests, traced=False).trace == ()


def test_tracing_is_small_beside_the_call() -> None:
    """As a share of the network's time, the best of several runs, so that the machine's other work does not count."""
    model = small_model()
    requests = [Request(place % 3, place, price=0.02) for place in range(64)]
    steered_sample(model, requests)

    def shares(result: SteeredResult) -> float:
        return result.tracing_milliseconds / result.network_milliseconds

    runs = [steered_sample(model, requests) for _ in range(3)]
    assert min(map(shares, runs)) < 0.25
    assert all(run.steering_milliseconds > 0 for run in runs)
    # Its own length, so that it cannot grow unseen with the number of decisions.
    assert min(run.tracing_milliseconds / len(run.trace) for run in runs) < 5


def test_noise_may_be_given() -> None:
    model, requests = closed_form(Told(wild)), asked(6)
    noise = per_seed_noise([request.seed for request in requests], model.denoiser.shape)
    drawn = steered_sample(model, requests)
    given = steered_sample(model, [Request(request.label, 0) for request in requests], noise=noise)
    assert torch.equal(given.sample, drawn.sample)
    precise = steered_sample(model, requests, noise=noise.double())
    assert precise.sample.dtype == torch.float64


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"label": 4}, "class 4"),
        ({"label": -2}, "class -2"),
        ({"price": -0.1}, "price = -0.1"),
        ({"price": float("nan")}, "price = nan"),
        ({"price": float("inf")}, "price = inf"),
        ({"guidance": float("nan")}, "guidance scale nan"),
        ({"budget": 0}, "expected at least 1"),
        ({"budget": -3}, "expected at least 1"),
        ({"budget": 1, "guidance": 2.0}, "expected at least 2"),
    ],
)
def test_strange_requests_are_refused_before_any_call(wrong: dict[str, Any], said: str) -> None:
    class Silent(Mixture):
        def __call__(self, *asked: Any) -> torch.Tensor:
            raise AssertionError("asked")

    good = Request(0, 1)
    told = {"label": 0, "seed": 2, **wrong}
    with pytest.raises(BadInput, match=said):
        steered_sample(closed_form(denoiser=Silent()), [good, Request(**told)], slots=1)


def test_what_does_not_fit_is_refused() -> None:
    model = closed_form()
    with pytest.raises(BadInput, match="at least one"):
        steered_sample(model, [])
    with pytest.raises(BadInput, match="at least one"):
        steered_sample(model, asked(2), slots=0)
    for shape in ((2, 3, 4, 4), (2, 1, 8, 8), (3, 1, 4, 4)):
        with pytest.raises(BadInput, match=r"expected floats of \(2, 1, 4, 4\)"):
            steered_sample(model, asked(2), noise=torch.zeros(shape))
    with pytest.raises(BadInput, match="expected floats"):
        steered_sample(model, asked(2), noise=torch.zeros((2, 1, 4, 4), dtype=torch.long))
    unguided = closed_form(guided=False)
    with pytest.raises(BadInput, match="knows no guidance"):
        steered_sample(unguided, asked(2, guidance=2.0))
    assert STATIC.tolist() == [3, 0, 0, 0]
