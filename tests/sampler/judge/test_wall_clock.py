"""Times within one run: what sleeps is seen to sleep, and where."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadInput
from vernissage.sampler.domain.programs import euler
from vernissage.sampler.judge.arms import Requests, SamplerArm, program_arm
from vernissage.sampler.judge.wall_clock import wall_clock
from vernissage.sampler.prepare.teacher_bank import RequestMix, make_bank

if TYPE_CHECKING:
    import torch

    from vernissage.sampler.domain.denoiser import Condition
    from vernissage.sampler.domain.sampling import Sampled

PROGRAM = program_arm("three", {3: euler((4.0, 1.0, 0.3, 0.0))})


class Slow(Mixture):
    """Takes four milliseconds a call."""

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        time.sleep(0.004)
        return super().__call__(x, sigma, condition)


def requests() -> Requests:
    return Requests.of(make_bank(Mixture(), "test", 6, RequestMix.uneven(4, (2.0,)), check_requests=1))


def late(denoiser: Any, some: Requests, budget: float) -> Sampled:
    time.sleep(0.012)
    return PROGRAM.run(denoiser, some, budget)


def test_time_inside_and_outside_the_network() -> None:
    arms = [(PROGRAM, 3.0), (SamplerArm("late", (3,), late), 3.0)]
    quick, slow = wall_clock(
        arms, Slow(), requests(), batches=(8,), repeats=3, warm_up=1, controller=lambda batch: time.sleep(0.002)
    )
    assert (quick.calls, quick.rows, quick.batch) == (3, 48, 8)
    assert quick.network_ms >= 4
    assert quick.inside_ms >= 12
    assert quick.arm_ms >= quick.inside_ms
    assert slow.arm_ms - slow.inside_ms >= 12
    assert slow.overhead is not None
    assert quick.overhead is not None
    assert slow.overhead > quick.overhead
    assert slow.controller_ms is not None
    assert slow.controller_ms >= 2
    assert slow.controller_share == pytest.approx(slow.controller_ms / slow.network_ms, rel=0.5)


def test_every_batch_has_its_row_and_no_controller_no_share() -> None:
    rows = [timing.to_dict() for timing in wall_clock([(PROGRAM, 3)], Mixture(), requests(), batches=(1, 4), repeats=1)]
    assert [row["batch"] for row in rows] == [1, 4]
    assert all(row["controller_ms"] is row["controller_share"] is None for row in rows)


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(BadInput, match="0 repeats"):
        wall_clock([(PROGRAM, 3)], Mixture(), requests(), repeats=0)
    with pytest.raises(BadInput, match="0 arms"):
        wall_clock([], Mixture(), requests())
