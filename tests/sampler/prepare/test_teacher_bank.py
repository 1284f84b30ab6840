from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sampler.domain.closed_form import Gaussian, Shades
from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.sampler.domain.denoiser import NULL, ClassLabels
from vernissage.sampler.domain.programs import dpmpp
from vernissage.sampler.domain.sampling import run_program
from vernissage.sampler.domain.schedules import karras
from vernissage.sampler.prepare.teacher_bank import PARTS, Bank, RequestMix, make_bank, part_seeds

if TYPE_CHECKING:
    from pathlib import Path

MIX = RequestMix.uneven(4)


@pytest.fixture(scope="module")
def bank() -> Bank:
    return make_bank(Mixture(), "val", 40, MIX, seed=5)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(1, 1000))
def test_seeds_of_parts_never_meet(first: int, second: int, count: int) -> None:
    ranges = [{*part_seeds(part, count, seed)} for part, seed in zip(PARTS, (first, second, first), strict=True)]
    assert len(set().union(*ranges)) == 3 * count
    assert all(0 <= seed < 2**63 for some in ranges for seed in some)


def test_another_seed_gives_other_requests() -> None:
    assert not {*part_seeds("train", 100, 0)} & {*part_seeds("train", 100, 1)}


def test_unknown_part() -> None:
    with pytest.raises(BadInput, match="train, val, test"):
        part_seeds("training", 3)


def test_two_banks_are_equal_and_a_small_one_begins_a_large_one(bank: Bank) -> None:
    again = make_bank(Mixture(), "val", 40, MIX, seed=5)
    few = make_bank(Mixture(), "val", 10, MIX, seed=5, batch=3)
    for name in ("seeds", "labels", "scales", "endpoints"):
        assert torch.equal(getattr(again, name), getattr(bank, name))
    for name in ("seeds", "labels", "scales"):
        assert torch.equal(getattr(few, name), getattr(bank, name)[:10])
    torch.testing.assert_close(few.endpoints, bank.endpoints[:10], rtol=0, atol=1e-5)


def test_requests_follow_the_mix() -> None:
    mix = RequestMix((1.0, 3.0), (1.0, 2.0, 4.0), (2.0, 1.0, 1.0))
    labels, scales = mix.draw(range(4000))
    assert labels.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert [(scales == s).float().mean().item() for s in (1.0, 2.0, 4.0)] == pytest.approx([0.5, 0.25, 0.25], abs=0.03)
    # Class and scale have nothing to do with each other.
    assert scales[labels == 0].mean().item() == pytest.approx(scales[labels == 1].mean().item(), abs=0.1)


def test_each_request_depends_on_its_seed_only() -> None:
    labels, scales = MIX.draw([4, 9, 2])
    swapped = MIX.draw([2, 4, 9])
    assert torch.equal(swapped[0], labels[[2, 0, 1]])
    assert torch.equal(swapped[1], scales[[2, 0, 1]])


def test_uneven_classes() -> None:
    weights = RequestMix.uneven(5, ratio=4).class_weights
    assert weights[0] / weights[-1] == pytest.approx(4)
    assert list(weights) == sorted(weights, reverse=True)
    assert RequestMix.uneven(1).class_weights == (1.0,)


@pytest.mark.parametrize(
    ("weights", "scales", "scale_weights"),
    [((1.0, 0.0), (1.0,), None), ((1.0,), (), None), ((1.0,), (1.0, 2.0), (1.0,)), ((1.0,), (float("nan"),), None)],
)
def test_mixes_that_cannot_be(
    weights: tuple[float, ...], scales: tuple[float, ...], scale_weights: tuple[float, ...] | None
) -> None:
    with pytest.raises(BadParams, match="request mix"):
        RequestMix(weights, scales, scale_weights)


def test_the_teacher_reaches_the_known_endpoint() -> None:
    made = make_bank(Gaussian(), "test", 16, RequestMix((), (1.0,)))
    assert made.labels.tolist() == [NULL] * 16
    exact = Gaussian().flow(made.noise() * 80.0, 80.0, 0.0)
    assert (made.endpoints - exact).abs().max() < 1e-4
    assert made.check.passed
    assert made.check.requests == 16
    assert made.check.calls == 255


def test_each_request_has_its_class_and_its_guidance(bank: Bank) -> None:
    assert {*bank.scales.tolist()} == {1.0, 2.0, 4.0}
    row = bank.scales.argmax()
    alone = run_program(
        Mixture(),
        bank.noise()[row : row + 1],
        ClassLabels(bank.labels[row : row + 1]),
        bank.teacher,
        torch.tensor([4.0]),
    )
    torch.testing.assert_close(alone.samples[0], bank.endpoints[row], rtol=0, atol=1e-4)
    assert bank.check.passed


def test_requests_without_an_endpoint_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    made = make_bank(Shades(broken=1), "train", 50, RequestMix((1.0, 1.0, 1.0), (1.0,)))
    assert 0 < len(made.left_out) < 50
    assert len(made) + len(made.left_out) == 50
    assert 1 not in made.labels.tolist()
    assert not {seed for seed, _ in made.left_out} & {*made.seeds.tolist()}
    assert made.endpoints.isfinite().all()
    assert "left out" in caplog.text


def test_a_broken_network_makes_no_bank() -> None:
    with pytest.raises(BadInput, match="none of 3 requests"):
        make_bank(Shades(broken=0), "train", 3, RequestMix((1.0,), (1.0,)))


def test_a_weak_teacher_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    weak = dpmpp(karras(5, 0.002, 80.0))
    with caplog.at_level(logging.WARNING):
        made = make_bank(Mixture(), "train", 8, MIX, teacher=weak)
    assert not made.check.passed
    assert made.check.median > made.check.bound
    assert "5 network calls" in caplog.text


def test_round_trip(bank: Bank, tmp_path: Path) -> None:
    bank.save(tmp_path)
    loaded = Bank.load(tmp_path, "val")
    for name in ("seeds", "labels", "scales", "endpoints"):
        assert torch.equal(getattr(loaded, name), getattr(bank, name))
    assert (loaded.teacher, loaded.check, loaded.left_out) == (bank.teacher, bank.check, bank.left_out)
    assert torch.equal(loaded.noise(), bank.noise())


def test_damaged_and_missing_banks(bank: Bank, tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact):
        Bank.load(tmp_path, "val")
    bank.save(tmp_path)
    text = (tmp_path / "val.json").read_text()
    (tmp_path / "val.json").write_text(text.replace('"teacher"', '"pupil"'))
    with pytest.raises(CorruptArtifact, match="not a part of a bank"):
        Bank.load(tmp_path, "val")


@given(st.lists(st.integers(0, 39), min_size=1, max_size=8))
@settings(max_examples=20)
def test_some_rows(index: list[int]) -> None:
    whole = Bank(
        "test",
        torch.arange(40),
        torch.zeros(40, dtype=torch.long),
        torch.ones(40),
        torch.arange(40.0).view(40, 1, 1, 1).expand(40, 1, 4, 4),
        *_facts(),
    )
    some = whole.rows(torch.tensor(index))
    assert some.seeds.tolist() == index
    assert torch.equal(some.noise(), whole.noise()[index])
    assert some.endpoints[:, 0, 0, 0].tolist() == index


def _facts() -> tuple:
    made = make_bank(Gaussian(), "test", 1, RequestMix((), (1.0,)), teacher=dpmpp((1.0, 0.0)), check_bound=10.0)
    return made.teacher, made.check
