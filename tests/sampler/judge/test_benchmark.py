"""Measuring and comparing: known answers, the same crossing as `equal_quality`, and finite numbers only."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.sampler.domain.programs import dpmpp, euler, ipndm
from vernissage.sampler.domain.sampling import Sampled
from vernissage.sampler.domain.schedules import karras, log_snr
from vernissage.sampler.judge.arms import Requests, SamplerArm, heun_arm, program_arm, stock_arms
from vernissage.sampler.judge.benchmark import (
    COLUMNS,
    FIGURES,
    BenchmarkSettings,
    Curves,
    Measured,
    RealPictures,
    attribution,
    benchmark_table,
    compare_fd,
    count_results,
    crossings,
    measure,
    price_dial,
    saving,
)
from vernissage.sampler.judge.equal_quality import Arm, equal_quality
from vernissage.sampler.prepare.teacher_bank import Bank, RequestMix, make_bank

if TYPE_CHECKING:
    from pathlib import Path

CALLS = (2, 3, 4, 6, 8, 12)
SETTINGS = BenchmarkSettings(
    0.1, resamples=200, bar_budgets=(4, 6), kernel_size=40, kernel_subsets=3, directions=16, infinity_points=4
)


class Six:
    """An embedding that keeps six pixels."""

    shape = (1, 4, 4)

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.flatten(1)[:, :6].float()


class Knows:
    """A classifier that takes every picture for class 1."""

    def probabilities(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.eye(4)[torch.ones(len(pictures), dtype=torch.long)]


def real(count: int = 240) -> RealPictures:
    bank = make_bank(Mixture(), "val", count, RequestMix.uneven(4, (1.0,)), check_requests=1)
    return RealPictures(bank.endpoints[: count // 2], bank.endpoints[count // 2 :])


def broken(arm: SamplerArm, row: int) -> SamplerArm:
    """The same, but one of its samples is not finite."""

    def run(denoiser: Any, requests: Requests, budget: float) -> Sampled:
        found = arm.run(denoiser, requests, budget)
        samples, failed = found.samples.clone(), found.failed.clone()
        samples[row], failed[row] = math.nan, 0
        return Sampled(samples, found.evaluations, failed)

    return replace(arm, name="broken", run=run, role="other")


@pytest.fixture(scope="module")
def banks() -> dict[int, Bank]:
    mix = RequestMix.uneven(4, (1.0, 2.0))
    return {seed: make_bank(Mixture(), "test", 60, mix, seed=seed, check_requests=1) for seed in range(3)}


@pytest.fixture(scope="module")
def measured(banks: dict[int, Bank]) -> Measured:
    few = program_arm("few", {2: euler((3.0, 0.6, 0.0))}, "context")
    arms = [
        *stock_arms(Mixture(), CALLS),
        program_arm("grid", {n: dpmpp(log_snr(n, 0.05, 6.0)) for n in CALLS}, "grid"),
        program_arm("fitted", {n: ipndm(log_snr(n, 0.05, 6.0), 3) for n in CALLS}, "fitted coefficients"),
        heun_arm(Mixture(), (7, 35)),
        broken(program_arm("x", {2: euler((3.0, 0.6, 0.0))}), 5),
        replace(few, limit=70),
    ]
    assert count_results(arms, banks) == 180 * (4 * 6 + 6 + 6 + 2 + 1) + 70
    return measure(
        arms,
        Mixture(),
        banks,
        classifier=Six(),
        second=Knows(),  # type: ignore[arg-type]
        random_features=Six(),
        real=real(),
        settings=SETTINGS,
    )


# --- measuring --------------------------------------------------------------------------------------------------------


def test_items_say_what_each_sample_took(measured: Measured, banks: dict[int, Bank]) -> None:
    items = measured.items
    assert tuple(items.columns) == COLUMNS
    own = items[(items["arm"] == "grid") & (items["budget"] == 6)]
    assert len(own) == 180
    assert (own["nfe"] == np.where(own["scale"] == 1, 6, 12)).all()
    assert (own["class_right"] == (own["label"] == 1)).all()
    bank = banks[1]
    part = own[own["noise_seed"] == 1]
    assert part["seed"].tolist() == bank.seeds.tolist()
    arm = program_arm("grid", {6: dpmpp(log_snr(6, 0.05, 6.0))})
    samples = arm.sample(Mixture(), Requests.of(bank), 6).samples
    errors = (samples - bank.endpoints).square().flatten(1).mean(dim=1).sqrt()
    assert part["error"].to_numpy() == pytest.approx(errors.numpy(), rel=1e-5)


def test_rows_sum_up_the_items(measured: Measured) -> None:
    row = measured.row("grid", 6)
    own = measured.items[(measured.items["arm"] == "grid") & (measured.items["budget"] == 6)]
    assert row["error_mean"] == pytest.approx(own["error"].mean())
    assert row["error_median"] == pytest.approx(own["error"].median())
    assert row["saturated"] == pytest.approx((1 - np.exp(-(own["error"] ** 2) / 0.02)).mean())
    assert row["nfe"] == pytest.approx(own["nfe"].mean())
    assert (row["nfe_p50"], row["nfe_max"]) == (own["nfe"].median(), 12)
    assert row["class_accuracy"] == pytest.approx((own["label"] == 1).mean())
    for name in ("error_mean", "error_median", "error_p95", "saturated"):
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert len(row["fd_seeds"]) == 3
    assert row["fd_seed_sd"] == pytest.approx(np.std(row["fd_seeds"], ddof=1))
    assert all(row[name] is not None for name in FIGURES)


def test_the_teacher_is_a_floor(measured: Measured) -> None:
    teacher = measured.floors["teacher"]
    assert teacher["fd"] < measured.row("grid", 2)["fd"]
    assert measured.row("grid", 12)["fd"] == pytest.approx(teacher["fd"], abs=0.05)
    assert measured.floors["real"]["pictures"] == measured.floors["teacher_halved"]["pictures"] == 120


def test_a_sample_that_is_not_finite_is_counted_and_left_out(measured: Measured) -> None:
    row = measured.row("broken", 2)
    assert row["failed"] == 3
    own = measured.items[measured.items["arm"] == "broken"]
    assert own["error"].isna().sum() == 3
    assert math.isfinite(row["error_mean"])
    # It counts as wrong as a picture can be.
    known = own["error"].dropna()
    assert row["saturated"] == pytest.approx((3 + (1 - np.exp(-(known**2) / 0.02)).sum()) / 180)
    curves = Curves(measured)
    assert (curves.noises, curves.left_out) == (177, 3)


def test_a_limited_arm_is_context(measured: Measured) -> None:
    assert measured.row("few", 2)["requests"] == 70
    assert ("few", 2.0) not in Curves(measured).places
    with pytest.raises(BadInput, match="cannot be compared"):
        Curves(measured).columns("few")


def test_a_bad_benchmark_is_refused(banks: dict[int, Bank]) -> None:
    arm = program_arm("one", {1: euler((1.0, 0.0))})

    def run(arms: list[SamplerArm], some: dict[int, Any]) -> None:
        measure(
            arms,
            Mixture(),
            some,
            classifier=Six(),
            second=None,
            random_features=None,
            real=real(30),
            settings=SETTINGS,
        )

    with pytest.raises(BadInput, match="each name once"):
        run([arm, arm], banks)
    with pytest.raises(BadInput, match="one size"):
        run([arm], {0: banks[0], 1: banks[1].rows(torch.arange(5))})
    with pytest.raises(BadParams, match="tau"):
        BenchmarkSettings(0.0)


def test_few_pictures_leave_gaps_and_not_errors(banks: dict[int, Bank]) -> None:
    found = measure(
        [program_arm("one", {1: euler((1.0, 0.0))}, "grid")],
        Mixture(),
        {0: banks[0].rows(torch.arange(4))},
        classifier=Six(),
        second=None,
        random_features=None,
        real=real(30),
        settings=replace(SETTINGS, neighbour_rows=0, directions=0, kernel_subsets=0),
    )
    assert all(found.rows[0][name] is None for name in (*FIGURES, "class_accuracy"))
    table = benchmark_table(found)
    json.dumps(table, allow_nan=False)
    assert table["savings"] == []


# --- equal quality ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_crossings_are_those_of_equal_quality(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spent = np.array([3.0, 4.0, 5.0, 7.0])
    errors = np.exp(rng.normal(0, 1, 50) + rng.normal(0, 0.3, (4, 50))) * spent[:, None] ** -1.0
    arm = Arm("ours", spent, errors)
    for goal in (0.1, 0.2, 0.35, 0.6, 2.0):
        reference = Arm("bar", np.array([5.0]), np.full((1, 50), goal))
        found = equal_quality(arm, reference, seed=0, statistic="mean", resamples=100)
        nfe, at_most = crossings(spent[None], errors.mean(axis=1)[None], np.array([goal]))
        assert nfe[0] == (math.inf if found.nfe is None else pytest.approx(found.nfe))
        assert at_most[0] == found.at_most


def table_of(factors: dict[tuple[str, str], float], budgets: tuple[int, ...] = (3, 4, 5, 6, 8, 10, 14, 20)) -> Measured:
    """Arms (name, role) whose errors are ``(factor nfe)^-2`` times how hard a noise is."""
    rng, count, frames, rows = np.random.default_rng(0), 90, [], []
    hard = np.exp(rng.normal(0, 1, count))
    for (name, role), factor in factors.items():
        for budget in budgets:
            noise = np.exp(rng.normal(0, 0.1, count))
            frame = pd.DataFrame({"error": hard * noise * (factor * budget) ** -2.0, "nfe": budget})
            frame["arm"], frame["budget"], frame["noise_seed"] = name, float(budget), np.arange(count) % 3
            frame["seed"], frame["label"], frame["scale"] = np.arange(count), 0, 1.0
            frame["failed"], frame["class_right"] = -1, 1.0
            frames.append(frame)
            fds = [10 / (factor * budget) + seed for seed in range(3)]
            rows.append(
                {"arm": name, "role": role, "dial": "calls", "budget": float(budget), "requests": count}
                | {"nfe": float(budget), "fd": float(np.mean(fds)), "fd_seeds": fds, "fd_seed_sd": 1.0}
            )
    return Measured(pd.concat(frames)[list(COLUMNS)], rows, {}, BenchmarkSettings(0.1, resamples=300))


LADDER_OF_FACTORS = {
    ("stock a", "stock"): 0.5,
    ("stock b", "stock"): 0.4,
    ("grid", "grid"): 1.0,
    ("sigmas", "fitted sigmas"): 1.1,
    ("fit", "fitted coefficients"): 1.25,
}


def test_a_saving_is_what_the_factors_say() -> None:
    curves = Curves(table_of(LADDER_OF_FACTORS))
    against_grid, against_stock = saving(curves, "fit", "grid"), saving(curves, "fit", "stock")
    assert against_grid is not None
    assert against_stock is not None
    assert against_grid["saving"] == pytest.approx(1 - 1 / 1.25, abs=0.02)
    assert against_grid["saving_low"] < against_grid["saving"] < against_grid["saving_high"]
    # At 5 calls of stock, ours needs 2: less than its least budget of 3.
    assert against_stock["at_most"]
    assert {row["bar"] for row in against_stock["budgets"]} == {"stock a"}
    alone = saving(curves, "fit", "stock", [8])
    assert alone is not None
    assert alone["ratio"] == pytest.approx(0.5 / 1.25, abs=0.02)
    assert saving(curves, "fit", "heun") is None


def test_what_is_not_reached_has_no_saving() -> None:
    found = saving(Curves(table_of({("fit", "fitted sigmas"): 0.1, ("grid", "grid"): 1.0})), "fit", "grid")
    assert found is not None
    assert found["saving"] is found["ratio"] is found["low"] is None
    assert found["budgets"][0]["swap"] is None
    assert found["fd"] is None


def test_frechet_distances_are_compared_at_a_budget_that_exists() -> None:
    found = saving(Curves(table_of(LADDER_OF_FACTORS)), "fit", "grid", [5])
    assert found is not None
    swap = found["budgets"][0]["swap"]
    # 5 of the grid are 4 of ours, at 10/(1.25 4) = 10/5: no difference, whatever the seed.
    assert (swap["budget"], swap["verdict"]) in {(4, "not worse"), (5, "not worse")}
    assert swap["ratio"] == swap["budget"] / 5


def test_verdicts_on_frechet_distances() -> None:
    def row(values: list[float], spread: float = 0.5) -> dict[str, Any]:
        return {"fd_seeds": values, "fd_seed_sd": spread}

    bar = row([1.0, 2.0, 3.0])
    assert compare_fd(row([1.1, 2.1, 3.1]), bar, SETTINGS)["verdict"] == "not worse"
    assert compare_fd(row([3.0, 4.0, 5.0]), bar, SETTINGS)["verdict"] == "worse"
    assert compare_fd(row([1.0, 2.9, 3.0]), bar, SETTINGS)["verdict"] == "undecided"
    assert compare_fd(row([3.0, 4.0, 5.0]), bar, replace(SETTINGS, fd_margin=3.0))["verdict"] == "not worse"
    assert compare_fd(row([3.0]), bar, SETTINGS)["verdict"] == "too few noise seeds"


def test_shares_of_the_attribution_add_up() -> None:
    found = attribution(Curves(table_of(LADDER_OF_FACTORS)))
    rows = {row["role"]: row for row in found["rows"]}
    assert list(rows) == ["stock", "grid", "fitted sigmas", "fitted coefficients"]
    assert found["missing"] == ["per guidance", "less guidance", "router, state shuffled", "router", "consistency"]
    assert sum(row["share"] for row in found["rows"] if row["share"] is not None) == pytest.approx(1)
    assert rows["stock"]["ratio"] == pytest.approx(2, rel=0.05)
    assert rows["grid"]["ratio"] == pytest.approx(1)
    assert rows["grid"]["nfe"] == pytest.approx(6)
    assert rows["fitted sigmas"]["step"] == pytest.approx(1 / 1.1, rel=0.03)
    assert rows["fitted coefficients"]["step"] == pytest.approx(1.1 / 1.25, rel=0.03)
    logs = math.log(2) + math.log(1.25)
    assert rows["fitted coefficients"]["share"] == pytest.approx(math.log(1.25 / 1.1) / logs, abs=0.03)


def test_a_step_that_does_not_get_there_adds_nothing() -> None:
    factors = {**LADDER_OF_FACTORS, ("two", "consistency"): 0.05}
    rows = attribution(Curves(table_of(factors)))["rows"]
    assert (rows[-1]["role"], rows[-1]["ratio"], rows[-1]["share"]) == ("consistency", None, None)


# --- prices -----------------------------------------------------------------------------------------------------------


def test_the_dial_says_which_program_should_ship() -> None:
    found = table_of({("book", "static"): 1.0, ("router", "router"): 1.3, ("bad", "router"): 0.5}, (2, 4))
    # Budgets stand for prices here: what counts is how they are paired.
    rows = [row | {"dial": "price", "error_mean": 0.1, "saturated": 0.1} for row in found.rows]
    dial = price_dial(Measured(found.items, rows, {}, found.settings))
    assert [row["price"] for row in dial] == [2, 2, 2, 4, 4, 4]
    assert dial[0]["arm"] == "book"
    assert dial[0]["better"] is None
    by_arm = {row["arm"]: row for row in dial if row["price"] == 2}
    assert by_arm["router"]["better"]
    assert by_arm["bad"]["better"] is False
    own = found.items[(found.items["arm"] == "book") & (found.items["budget"] == 2)]
    assert by_arm["book"]["value"] == pytest.approx((-(1 - np.exp(-(own["error"] ** 2) / 0.02)) - 2 * 2).mean())


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_table_is_saved_and_read_back(measured: Measured, tmp_path: Path) -> None:
    table = measured.save(tmp_path)
    assert table["ours"] == "fitted"
    assert {(row["arm"], row["bar"]) for row in table["savings"]} == {
        ("grid", "stock"),
        ("fitted", "stock"),
        ("fitted", "grid"),
    }
    assert {row["scale"] for row in table["by_scale"]} == {1.0, 2.0}
    assert table["heun"]["factor"] is None or table["heun"]["factor"] > 1
    assert table["two_evaluations"] is None
    assert json.loads((tmp_path / "table.json").read_text()) == json.loads(json.dumps(table, allow_nan=False))
    again = Measured.load(tmp_path)
    pd.testing.assert_frame_equal(again.items, measured.items)
    assert benchmark_table(again) == table


def test_the_same_seed_gives_the_same_table(measured: Measured) -> None:
    assert benchmark_table(measured) == benchmark_table(measured)


def test_an_arm_of_ours_that_was_not_measured_is_refused(measured: Measured) -> None:
    with pytest.raises(BadInput, match="'nobody' was not measured"):
        benchmark_table(measured, "nobody")


def test_a_benchmark_that_is_not_there_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact):
        Measured.load(tmp_path)
    (tmp_path / "table.json").write_text("{}")
    with pytest.raises(CorruptArtifact, match="dvc repro benchmark@sampler"):
        Measured.load(tmp_path)


def test_real_pictures_are_both_halves() -> None:
    assert len(real(20).all) == 20


def test_heun_is_the_reference_of_the_factor(measured: Measured) -> None:
    table = benchmark_table(measured)
    assert measured.row("heun karras-7", 35)["nfe"] > 35
    assert table["heun"]["fd_nfe"] is None or table["heun"]["fd"]["verdict"] == "not worse"


def test_karras_levels_are_what_stock_uses(measured: Measured, banks: dict[int, Bank]) -> None:
    program = dpmpp(karras(6, Mixture.sigma_min, Mixture.sigma_max))
    samples = program_arm("k", {6: program}).sample(Mixture(), Requests.of(banks[0]), 6).samples
    error = (samples - banks[0].endpoints).square().flatten(1).mean(dim=1).sqrt().mean()
    own = measured.items.query("arm == 'stock dpmpp-2m karras-7' and budget == 6 and noise_seed == 0")
    assert own["error"].mean() == pytest.approx(float(error), rel=1e-4)
