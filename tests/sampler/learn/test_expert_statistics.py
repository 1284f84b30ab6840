from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact
from vernissage.core.seeds import numpy_generator
from vernissage.sampler.learn.expert_statistics import STATISTICS_FILE, Decisions, ExpertStatistics, log_distance
from vernissage.sampler.learn.experts import EXPERTS
from vernissage.sampler.learn.policies import Rolled

BALANCED, QUALITY, SPEED, STOPPER = 0, 1, 2, 3


def two_requests(**known: object) -> Decisions:
    """One of four decisions, three by the first expert; one of two decisions, both by others."""
    return Decisions(
        request=np.array([0, 0, 0, 0, 1, 1]),
        expert=np.array([BALANCED, BALANCED, QUALITY, BALANCED, BALANCED, SPEED]),
        nfe=np.array([2, 2, 2, 0, 1, 1]),
        distance=np.array([0.0, 1.0, 0.5, 2.5, 0.0, 4.0]),
        **known,  # type: ignore[arg-type]
    )


def row(statistics: ExpertStatistics, expert: int) -> dict[str, float]:
    return dict(statistics.table().iloc[expert])


def test_counts_and_shares_of_known_requests() -> None:
    statistics = ExpertStatistics()
    statistics.record(two_requests(quality=np.array([0.8, 0.4]), success=np.array([1.0, 0.0])))
    balanced, quality, speed = (row(statistics, expert) for expert in (BALANCED, QUALITY, SPEED))
    assert statistics.requests == 2
    assert (balanced["uses"], balanced["decisions"], balanced["led"]) == (2, 4, 1)
    assert (quality["uses"], quality["decisions"], quality["led"]) == (1, 1, 0)
    assert (speed["uses"], speed["decisions"], speed["led"]) == (1, 1, 1)  # one each: who acted last leads
    # Shares 3/4 of the first request and 1/2 of the second.
    assert balanced["quality"] == pytest.approx((0.75 * 0.8 + 0.5 * 0.4) / 1.25)
    assert balanced["efficiency"] == pytest.approx(balanced["quality"] / ((0.75 * 6 + 0.5 * 2) / 1.25))
    assert balanced["nfe"] == pytest.approx(5 / 4)
    assert balanced["speed"] == pytest.approx(3.5 / 5)
    assert speed["speed"] == pytest.approx(4.0)
    assert (balanced["success"], speed["success"]) == (1.0, 0.0)
    assert math.isnan(quality["success"])
    assert math.isnan(balanced["confidence"])


def test_an_expert_that_takes_no_evaluations_has_no_speed_and_nobody_divides_by_0() -> None:
    statistics = ExpertStatistics()
    assert statistics.table()[["uses", "decisions", "led"]].to_numpy().sum() == 0
    statistics.add([BALANCED, STOPPER], [1, 0], [10.0, 0.0], sigma_min=0.1, quality=0.5)
    stopper = row(statistics, STOPPER)
    assert math.isnan(stopper["speed"])
    assert stopper["nfe"] == 0
    assert stopper["quality"] == 0.5
    assert statistics.facts()[STOPPER]["speed"] is None
    json.dumps(statistics.facts(), allow_nan=False)


def test_what_nobody_measured_counts_towards_neither_quality_nor_success() -> None:
    judged, both = ExpertStatistics(), ExpertStatistics()
    judged.add([BALANCED], [2], [1.0], sigma_min=0.1, quality=0.9, success=True)
    both.add([BALANCED], [2], [1.0], sigma_min=0.1, quality=0.9, success=True)
    both.add([BALANCED, BALANCED], [2, 2], [1.0, 0.0], sigma_min=0.1, confidence=[0.25, 0.75])
    for name in ("quality", "success", "efficiency"):
        assert row(both, BALANCED)[name] == row(judged, BALANCED)[name]
    assert row(both, BALANCED)["decisions"] == 3
    assert row(both, BALANCED)["confidence"] == 0.5


def test_parts_and_the_whole_are_the_same_record_whatever_the_order() -> None:
    rng = numpy_generator(3, "parts")
    request = np.sort(rng.integers(40, size=300))
    whole = Decisions(
        request,
        rng.integers(len(EXPERTS), size=300),
        rng.integers(0, 3, size=300),
        rng.random(300),
        rng.random(40),
        (rng.random(40) > 0.5).astype(float),
        rng.random(300),
    )
    at_once, first, second = ExpertStatistics(), ExpertStatistics(), ExpertStatistics()
    at_once.record(whole)
    assert whole.quality is not None
    assert whole.success is not None
    assert whole.confidence is not None
    for statistics, low, high in ((first, 0, 15), (second, 15, 40)):
        mine = (request >= low) & (request < high)
        part = Decisions(
            request[mine] - low,
            whole.expert[mine],
            whole.nfe[mine],
            whole.distance[mine],
            whole.quality[low:high],
            whole.success[low:high],
            whole.confidence[mine],
        )
        statistics.record(part)
    for merged in (first.merge(second), second.merge(first)):
        assert merged.requests == at_once.requests
        np.testing.assert_allclose(merged.sums, at_once.sums)
    assert first.requests < at_once.requests  # merging changed neither


def test_led_and_decisions_add_up() -> None:
    rng = numpy_generator(4, "sums")
    statistics = ExpertStatistics()
    request = np.sort(rng.integers(30, size=200))
    statistics.record(Decisions(request, rng.integers(8, size=200), np.ones(200), np.ones(200)))
    table = statistics.table()
    assert table["led"].sum() == statistics.requests == len(np.unique(request))
    assert table["decisions"].sum() == 200


def test_saved_and_read_again(tmp_path) -> None:
    statistics = ExpertStatistics()
    statistics.record(two_requests(quality=np.array([0.8, np.nan]), confidence=np.full(6, 0.3)))
    statistics.save(tmp_path)
    again = ExpertStatistics.load(tmp_path)
    assert again.requests == 2
    assert (again.sums == statistics.sums).all()
    assert again.table().equals(statistics.table())


def test_success_has_the_interval_of_wilson() -> None:
    statistics = ExpertStatistics()
    for number in range(10):
        statistics.add([SPEED], [1], [0.0], sigma_min=0.1, success=number < 8)
    speed = row(statistics, SPEED)
    # Wilson's interval of 8 of 10, as in tables.
    assert speed["success"] == pytest.approx(0.8)
    assert (speed["success_low"], speed["success_high"]) == pytest.approx((0.4902, 0.9433), abs=2e-4)


def rolled() -> Rolled:
    """Two requests: opening, a step and the end; opening and a stop. Price 0.1, tau 1."""
    return Rolled(
        errors=np.array([0.5, np.inf]),
        nfe=np.array([4, 1]),
        samples=torch.zeros(2, 1, 4, 4),
        failed=np.array([-1, -1]),
        prices=np.array([0.1, 0.1]),
        reasons=("end", "stop"),
        experts=np.array([[BALANCED, QUALITY, BALANCED], [BALANCED, STOPPER, -1]], dtype=np.int8),
        sigmas=np.array([[8.0, 2.0, 0.0], [8.0, 0.0, np.nan]]),
        spent=np.array([[2, 2, 0], [1, 0, 0]], dtype=np.int16),
        actions=np.zeros((2, 3, 4), dtype=np.int8),
        confidence=np.array([[np.nan, 0.5, 0.7], [np.nan, 0.9, np.nan]], dtype=np.float32),
        observations=None,
        refused=0,
    )


def test_a_roll_is_taken_as_it_is() -> None:
    statistics = ExpertStatistics()
    values = rolled().values(1.0)
    statistics.update(rolled(), sigma_min=0.5, tau=1.0, static=values + np.array([0.0, 0.1]))
    balanced, quality, stopper = (row(statistics, expert) for expert in (BALANCED, QUALITY, STOPPER))
    assert statistics.requests == 2
    assert (balanced["decisions"], quality["decisions"], stopper["decisions"]) == (3, 1, 1)
    assert (balanced["led"], balanced["success"]) == (1, 1.0)
    assert (stopper["led"], stopper["success"]) == (1, 0.0)
    good = math.exp(-0.125)
    assert quality["quality"] == pytest.approx(good)
    assert stopper["quality"] == 0
    assert balanced["quality"] == pytest.approx(2 / 3 * good / (2 / 3 + 1 / 2))
    assert quality["speed"] == pytest.approx(math.log(4) / 2)
    assert balanced["speed"] == pytest.approx(math.log(4) / 3)
    assert quality["confidence"] == pytest.approx(0.5)
    assert balanced["confidence"] == pytest.approx(0.7)

    unjudged = ExpertStatistics()
    unjudged.update(rolled(), sigma_min=0.5)
    assert row(unjudged, BALANCED)["decisions"] == 3
    assert math.isnan(row(unjudged, BALANCED)["quality"])
    with pytest.raises(BadInput, match="one value for each request"):
        unjudged.update(rolled(), sigma_min=0.5, static=values)


def test_distance_in_e_foldings_stops_at_the_least_level() -> None:
    distances = log_distance([80.0, 1.0, 0.5], [80.0 / math.e, 0.0, 0.6], 0.01)
    assert distances == pytest.approx([1.0, math.log(100), -math.log(1.2)])
    with pytest.raises(BadInput, match="sigma_min = 0"):
        log_distance([1.0], [0.5], 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expert": np.array([0, 8])}, "expert 8"),
        ({"expert": np.array([0])}, "expert of shape"),
        ({"nfe": np.array([1, -1])}, "nfe -1"),
        ({"distance": np.array([0.0, np.nan])}, "distance nan"),
        ({"quality": np.array([1.5])}, "quality 1.5"),
        ({"quality": np.array([0.5]), "request": np.array([0, 1])}, "request 1"),
        ({"quality": np.array([0.5]), "success": np.array([1.0, 1.0])}, "1 qualities and 2 successes"),
    ],
)
def test_bad_numbers_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    good = {
        "request": np.array([0, 0]),
        "expert": np.array([0, 1]),
        "nfe": np.array([1, 1]),
        "distance": np.array([0.0, 1.0]),
    }
    with pytest.raises(BadInput, match=message):
        Decisions(**{**good, **change})


def test_damaged_or_missing_records_are_named(tmp_path) -> None:
    with pytest.raises(MissingArtifact, match=STATISTICS_FILE):
        ExpertStatistics.load(tmp_path)
    ExpertStatistics().save(tmp_path)
    path = tmp_path / STATISTICS_FILE
    document = json.loads(path.read_text())
    for damage in (
        {**document, "format": 99},
        {**document, "experts": {"Somebody": {}}},
        {**document, "requests": -1},
        {key: value for key, value in document.items() if key != "experts"},
        [],
    ):
        path.write_text(json.dumps(damage))
        with pytest.raises(CorruptArtifact, match="not a record of experts"):
            ExpertStatistics.load(tmp_path)
