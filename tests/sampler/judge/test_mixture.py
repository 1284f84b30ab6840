from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadInput, BadParams
from vernissage.core.seeds import numpy_generator
from vernissage.sampler.domain.programs import dpmpp
from vernissage.sampler.domain.schedules import karras
from vernissage.sampler.judge.mixture import (
    ABSENT,
    BEST_SINGLE,
    CONTROLLER,
    EMBEDDED,
    HARMFUL,
    NEEDED,
    NEVER_USED,
    NOT_ASKED,
    ORACLE,
    RANDOM,
    SAMPLE,
    SHUFFLED,
    STATE_FREE_ARM,
    STATIC_ARM,
    USELESS,
    MixtureReport,
    MixtureSettings,
    entropy,
    examine,
    information,
    mutual_information,
    paired_interval,
    router_probabilities,
    sample_states,
    without_expert,
)
from vernissage.sampler.learn.book import Entry, ProgramBook
from vernissage.sampler.learn.controller import SteeringController
from vernissage.sampler.learn.experts import BALANCED, EXPERTS, QUALITY_MASTER, SPEED, STOP
from vernissage.sampler.learn.features import FEATURES
from vernissage.sampler.learn.grid import Course
from vernissage.sampler.learn.policies import Static
from vernissage.sampler.prepare.teacher_bank import RequestMix, make_bank

if TYPE_CHECKING:
    from vernissage.sampler.domain.denoiser import Condition
    from vernissage.sampler.prepare.teacher_bank import Bank

PRICES = (0.002, 0.03)
QUICK = MixtureSettings(requests=40, resamples=200, permutations=19)


@pytest.fixture(scope="module")
def denoiser() -> Mixture:
    return Mixture()


@pytest.fixture(scope="module")
def bank(denoiser: Mixture) -> Bank:
    return make_bank(denoiser, "test", 48, RequestMix.uneven(4, (1.0, 2.0)), check_requests=2)


@pytest.fixture(scope="module")
def book(denoiser: Mixture, bank: Bank) -> ProgramBook:
    """A few stock programs for each of two guidance scales."""
    tau = Course(denoiser, bank).tau
    entries = []
    for scale in (1.0, 2.0):
        course = Course(denoiser, bank.rows(bank.scales == scale), tau)
        for calls in (2, 3, 4, 6, 8):
            program = dpmpp(karras(calls, 0.02, 8.0))
            entries.append(Entry(program, scale, (1.0,) * calls, "grid", course.scores([program])[0]))
    return ProgramBook(tuple(entries), tau, "grid")


def steered(likes: dict[int, float], by: str | None = None, **config: object) -> SteeringController:
    """A controller that likes some experts; where a feature is named, in proportion to that feature."""
    made = SteeringController(**config)
    with torch.no_grad():
        for head in made.heads:
            head.weight.zero_()
        for expert, liking in likes.items():
            if by is None:
                made.router.bias[expert] = liking
                continue
            # The first neuron of each layer hands the feature on.
            for layer in (made.first, made.second):
                layer.weight[0].zero_()
                layer.bias[0] = 0
            made.first.weight[0, FEATURES.index(by)] = 1
            made.second.weight[0, 0] = 1
            made.router.weight[expert, 0] = liking
            made.router.bias[expert] = 0
        if by is not None:
            made.router.bias[BALANCED] = 0
    return made.eval()


@pytest.fixture(scope="module")
def adaptive(denoiser: Mixture, book: ProgramBook, bank: Bank) -> MixtureReport:
    """Where first and second order disagree QualityMaster acts, elsewhere the static program."""
    return examine(denoiser, book, bank, steered({QUALITY_MASTER: 50.0}, by="disagreement"), PRICES, settings=QUICK)


# --- maths ---


def test_information_of_codes_is_what_books_say() -> None:
    bits = np.array([0, 1] * 8)
    other = np.array([0, 0, 1, 1] * 4)
    assert mutual_information(bits, bits) == pytest.approx(1.0)
    assert mutual_information(bits, other) == pytest.approx(0.0)
    assert mutual_information(bits, bits ^ other) == pytest.approx(0.0)
    # Once one of three bits that sum to an even number is known, the others are the same.
    assert mutual_information(bits, bits ^ other, other) == pytest.approx(1.0)
    assert mutual_information(bits[:0], bits[:0]) == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 2), st.integers(0, 1)), min_size=1, max_size=60))
def test_information_is_symmetric_and_no_more_than_the_entropy(rows: list[tuple[int, int, int]]) -> None:
    first, second, third = np.array(rows).T
    for within in (None, third):
        found = mutual_information(first, second, within)
        assert found == pytest.approx(mutual_information(second, first, within), abs=1e-9)
        assert -1e-9 <= found <= float(entropy(np.bincount(first) / len(first))) + 1e-9


def test_entropy_in_bits() -> None:
    np.testing.assert_allclose(entropy(np.stack([np.full(8, 1 / 8), np.eye(8)[2]])), [3.0, 0.0])


def test_chance_alone_gives_no_information_and_a_rule_does() -> None:
    rng = numpy_generator(1, "chance")
    requests = np.repeat(np.arange(60), 5)
    state = rng.integers(6, size=300)
    nothing = information(rng.integers(4, size=300), state, requests, seed=0)
    assert nothing.plain > 0.02  # counts alone claim something
    assert nothing.low < 0 < nothing.high
    assert nothing.chance > 0.05
    rule = information(np.where(rng.random(300) < 0.7, state % 4, 0), state, requests, seed=0)
    assert rule.low > 0.1
    assert rule.chance == 0.01
    assert rule.bits == pytest.approx(rule.plain - rule.baseline)


def test_what_whole_requests_share_is_not_taken_for_many_observations() -> None:
    """Routing differs from request to request and so do classes; ten equal decisions each are no ten observations."""
    requests = np.repeat(np.arange(40), 10)
    found = []
    for turn in range(30):
        rng = numpy_generator(turn, "requests")
        routing, classes = rng.integers(3, size=40)[requests], rng.integers(5, size=40)[requests]
        found.append(information(routing, classes, requests, seed=turn, permutations=19))
    # Chances are spread evenly where there is nothing to find.
    assert 0.35 < np.mean([one.chance for one in found]) < 0.65
    assert abs(np.mean([one.bits for one in found])) < 0.03 < np.mean([one.baseline for one in found])
    # The same for the price of each of several answers to a request.
    parts = np.repeat(np.arange(80), 5)
    prices = (np.arange(80) % 2)[parts]
    by_price = information(prices, prices, requests, parts=parts, seed=0)
    assert by_price.plain == pytest.approx(1.0)
    assert by_price.chance == 0.01
    assert by_price.low > 0.8


def test_the_state_of_the_sample_is_told_from_the_noise_level() -> None:
    rng = numpy_generator(3, "states")
    requests = np.repeat(np.arange(120), 6)
    seen = np.zeros((len(requests), len(FEATURES)), dtype=np.float32)
    level = np.tile(np.linspace(2, -2, 6), 120)
    seen[:, FEATURES.index("log_sigma")] = level
    own = rng.normal(size=len(requests))
    seen[:, FEATURES.index("rate")] = own + level  # falls with the noise level, as many features do
    for routing, follows in ((level > 0, False), (own > 0, True)):
        code = routing.astype(np.int64)
        places, samples = sample_states(seen, code, requests, seed=0)
        found = information(code, samples, requests, seed=0, within=places)
        assert (found.low > 0.3) is follows
        assert (found.chance <= 0.01) is follows
        if not follows:
            assert abs(found.bits) < 0.02


def test_paired_interval_of_a_known_spread() -> None:
    differences = numpy_generator(4, "differences").normal(0.5, 1.0, size=400)
    interval = paired_interval(differences, seed=1)
    assert interval.mean == pytest.approx(differences.mean())
    half = 1.96 * differences.std() / 20
    assert (interval.low, interval.high) == pytest.approx((interval.mean - half, interval.mean + half), abs=0.02)
    assert interval.sign == 1
    assert paired_interval(-differences, seed=1).sign == -1
    assert paired_interval(differences - interval.mean, seed=1).sign == 0
    assert paired_interval(differences, seed=1) == interval
    for wrong in (np.zeros(0), np.array([1.0, np.nan])):
        with pytest.raises(BadInput, match="interval"):
            paired_interval(wrong, seed=1)


# --- knocking out ---


def test_a_knocked_out_expert_has_no_probability_and_the_others_share_it() -> None:
    whole = steered({STOP: 3.0, QUALITY_MASTER: 2.0})
    less = without_expert(whole, "EarlyStopper")
    seen = numpy_generator(5, "seen").normal(size=(7, len(FEATURES))).astype(np.float32)
    before, after = router_probabilities(whole, seen), router_probabilities(less, seen)
    assert (after[:, STOP] == 0).all()
    kept = np.arange(len(EXPERTS)) != STOP
    np.testing.assert_allclose(after[:, kept], before[:, kept] / before[:, kept].sum(axis=1, keepdims=True), rtol=1e-6)
    assert (before[:, STOP] > 0).all()  # the first one is as it was
    assert (less.decide(seen).actions[:, 1] != STOP).all()
    with pytest.raises(BadInput, match="Nobody"):
        without_expert(whole, "Nobody")


def test_the_only_good_expert_is_needed_and_a_bad_one_harmful(denoiser: Mixture, book: ProgramBook, bank: Bank) -> None:
    balanced = examine(denoiser, book, bank, steered({BALANCED: 9.0, STOP: 8.0}), PRICES[:1], settings=QUICK)
    verdicts = dict(zip(balanced.knock_outs["expert"], balanced.knock_outs["verdict"], strict=True))
    assert verdicts.pop("BalancedMaster") == NEEDED
    assert verdicts.pop("SpeedDemon") == ABSENT
    assert set(verdicts.values()) == {NEVER_USED}
    assert set(balanced.useless) == set(EXPERTS) - {"BalancedMaster", "SpeedDemon"}
    assert "SpeedDemon was not examined" in balanced.verdicts["experts"]
    assert "BalancedMaster is needed" in balanced.verdicts["experts"]

    stopping = examine(denoiser, book, bank, steered({STOP: 9.0}), PRICES[:1], settings=QUICK)
    row = stopping.knock_outs.set_index("expert").loc["EarlyStopper"]
    assert row["verdict"] == HARMFUL
    assert row["cost"] < 0
    assert row["share"] > 0.4
    assert row["nfe"] > 0
    assert "EarlyStopper is worse than useless" in stopping.verdicts["experts"]
    assert stopping.verdicts["static"].startswith("No: the mixture is worse")


# --- the whole ---


def test_a_fresh_controller_is_the_static_program_and_the_report_says_so(
    denoiser: Mixture, book: ProgramBook, bank: Bank
) -> None:
    report = examine(denoiser, book, bank, SteeringController(), PRICES[:1], settings=QUICK)
    arms = report.arms.set_index("arm")
    assert arms.loc[CONTROLLER, ["difference", "low", "high"]].tolist() == [0, 0, 0]
    assert arms.loc[SHUFFLED, "difference"] == 0
    assert report.verdicts["adaptive"].startswith("Nothing adapts to the sample")
    assert report.verdicts["static"] == "No: the mixture and the static program are worth the same."
    assert report.facts["routing"]["entropy"] == 0
    assert report.facts["routing"]["changed_by_sample"] == 0
    assert (report.information["bits"] == 0).all()
    assert (report.information["chance"] == 1).all()


def test_no_say_at_any_price(denoiser: Mixture, book: ProgramBook, bank: Bank) -> None:
    gated = steered({STOP: 9.0}, static_prices=[(0.0, 1.0)])
    report = examine(denoiser, book, bank, gated, PRICES[:1], settings=QUICK)
    assert set(report.knock_outs["verdict"]) == {NOT_ASKED, ABSENT}
    assert report.useless == ()
    assert report.facts["steered_prices"] == []
    assert report.verdicts["adaptive"].startswith("Nothing adapts: the controller follows the static program")
    assert report.arms.set_index("arm").loc[CONTROLLER, "difference"] == 0
    json.dumps(report.facts, allow_nan=False)


def test_rows_are_there_and_agree(adaptive: MixtureReport, book: ProgramBook) -> None:
    routers = {STATIC_ARM, CONTROLLER, BEST_SINGLE, ORACLE, RANDOM, SHUFFLED, STATE_FREE_ARM, EMBEDDED}
    assert set(adaptive.arms["arm"]) == routers | set(EXPERTS)
    assert len(adaptive.by_price) == len(PRICES) * len(adaptive.arms)
    arms, at = adaptive.arms.set_index("arm"), adaptive.by_price
    for price, rows in at.groupby("price"):
        np.testing.assert_allclose(rows["value"], -rows["saturated"] - price * rows["nfe"], atol=1e-9)
        np.testing.assert_allclose(rows.set_index("arm")["value"], arms.loc[rows["arm"], f"value at {price:g}"])
    means = at.groupby("arm")[["value", "nfe", "difference"]].mean()
    pd.testing.assert_frame_equal(means, arms.loc[means.index, means.columns], check_names=False)
    assert (arms["low"] <= arms["difference"]).all()
    assert (arms["difference"] <= arms["high"]).all()
    static = arms.loc["BalancedMaster", ["nfe", "value"]]
    assert static.tolist() == arms.loc[STATIC_ARM, ["nfe", "value"]].tolist()


def test_hindsight_is_best_and_the_best_single_is_chosen_without_luck(adaptive: MixtureReport) -> None:
    arms = adaptive.arms.set_index("arm")
    singles = arms.loc[list(EXPERTS), "value"]
    assert arms.loc[ORACLE, "value"] >= singles.max()
    assert arms.loc[BEST_SINGLE, "value"] <= arms.loc[ORACLE, "value"]
    assert set(adaptive.facts["best_single"]) == {f"{price:g}" for price in PRICES}
    assert "luck" in adaptive.verdicts["oracle"]


def test_usage_and_records_count_the_same_decisions(adaptive: MixtureReport) -> None:
    for name, table in adaptive.usage.items():
        np.testing.assert_allclose(table[list(EXPERTS)].sum(axis=1), 1, err_msg=name)
    total = adaptive.usage["price"]["decisions"].sum()
    assert adaptive.usage["class"]["decisions"].sum() == adaptive.usage["scale"]["decisions"].sum() == total
    assert adaptive.usage["sigma"]["decisions"].sum() + adaptive.usage["opening"]["decisions"].sum() == total
    assert adaptive.usage["opening"]["decisions"].sum() == adaptive.facts["requests"] * len(PRICES)
    sigma = adaptive.usage["sigma"]
    assert (sigma["low"] < sigma["high"]).all()
    assert sigma["low"].is_monotonic_increasing
    table = adaptive.statistics.table().set_index("expert")
    assert table["decisions"].sum() == total
    assert adaptive.statistics.requests == adaptive.facts["requests"] * len(PRICES)
    shares = adaptive.knock_outs.set_index("expert")["share"]
    np.testing.assert_allclose(table["decisions"] / total, shares)


def test_a_controller_that_follows_the_sample_is_found_out(adaptive: MixtureReport) -> None:
    assert adaptive.facts["routing"]["changed_by_sample"] > 0.02
    assert adaptive.facts["routing"]["entropy"] > 0.3
    found = adaptive.information.set_index(["routing", "of"]).loc[("expert", SAMPLE)]
    assert found["bits"] > 0
    assert found["chance"] <= 0.05
    assert "of the decisions hang on the sample's state" in adaptive.verdicts["adaptive"]
    used = adaptive.knock_outs.set_index("expert").loc["QualityMaster"]
    assert used["share"] > 0.05
    assert used["verdict"] in {NEEDED, HARMFUL, USELESS}


def test_a_controller_that_follows_the_noise_level_does_not_follow_the_sample(
    denoiser: Mixture, book: ProgramBook, bank: Bank
) -> None:
    report = examine(denoiser, book, bank, steered({QUALITY_MASTER: 50.0}, by="log_sigma"), PRICES[:1], settings=QUICK)
    assert report.facts["routing"]["changed_by_sample"] == 0
    assert report.verdicts["adaptive"].startswith("Nothing adapts to the sample")
    found = report.information.set_index(["routing", "of"])
    assert found.loc[("expert", "noise level"), "low"] > 0.2
    assert found.loc[("expert", SAMPLE), "chance"] > 0.05
    arms = report.arms.set_index("arm")
    assert arms.loc[CONTROLLER, "value"] == pytest.approx(arms.loc[SHUFFLED, "value"], abs=1e-6)


def test_facts_are_plain_and_the_same_again(
    adaptive: MixtureReport, denoiser: Mixture, book: ProgramBook, bank: Bank
) -> None:
    text = json.dumps(adaptive.facts, allow_nan=False, sort_keys=True)
    again = examine(denoiser, book, bank, steered({QUALITY_MASTER: 50.0}, by="disagreement"), PRICES, settings=QUICK)
    assert json.dumps(again.facts, allow_nan=False, sort_keys=True) == text


class Student:
    """Knows the pictures of the mixture from far away: its answer to the highest noise."""

    shape, sigma_max = Mixture.shape, 8.0

    def __init__(self) -> None:
        self.network = Mixture()

    def __call__(
        self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None, scales: torch.Tensor
    ) -> torch.Tensor:
        return self.network(x, sigma, condition)


def test_a_student_and_a_state_free_policy_of_its_own(denoiser: Mixture, book: ProgramBook, bank: Bank) -> None:
    report = examine(
        denoiser,
        book,
        bank,
        steered({SPEED: 9.0}),
        PRICES[:1],
        student=Student(),
        state_free=Static(),
        settings=QUICK,
    )
    arms = report.arms.set_index("arm")
    assert arms.loc[STATE_FREE_ARM, "difference"] == 0
    assert arms.loc[CONTROLLER, "difference"] < 0
    assert arms.loc["SpeedDemon", "nfe"] == arms.loc[CONTROLLER, "nfe"] == 1
    speed = report.knock_outs.set_index("expert").loc["SpeedDemon"]
    assert (speed["verdict"], speed["share"]) == (HARMFUL, 1)
    assert "trained without the sample's state" in report.verdicts["state"]
    assert report.facts["student"] is True


@pytest.mark.parametrize("prices", [(), (0.01, 0.01), (-0.1,), (math.nan,)])
def test_prices_that_are_none(denoiser: Mixture, book: ProgramBook, bank: Bank, prices: tuple[float, ...]) -> None:
    with pytest.raises(BadInput, match="mixture: prices"):
        examine(denoiser, book, bank, SteeringController(), prices)


def test_too_few_requests_and_bad_settings(denoiser: Mixture, book: ProgramBook, bank: Bank) -> None:
    with pytest.raises(BadInput, match="needs at least 20"):
        examine(denoiser, book, bank.rows(torch.arange(5)), SteeringController(), PRICES)
    for name in ("requests", "slots", "sigma_bins", "resamples", "permutations"):
        with pytest.raises(BadParams, match=name):
            MixtureSettings(**{name: 0})
