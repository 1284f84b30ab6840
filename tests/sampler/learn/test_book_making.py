"""Making the book: what each family starts from, what it may not be worse than, and what a second run takes over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadInput, BadParams
from vernissage.sampler.learn.book_making import BookMaking, make_book
from vernissage.sampler.learn.grid import GridSearch
from vernissage.sampler.prepare.teacher_bank import Bank, RequestMix, make_bank, usual_teacher

if TYPE_CHECKING:
    from pathlib import Path

QUICK = GridSearch(first_pairs=2, tuned=2, tuning_pairs=8, tuning_factors=(1.5,), moves=1, finalists=3)


def settings(**changes: object) -> BookMaking:
    usual = {"budgets": (4, 3), "grid": QUICK, "grid_pairs": 16, "sigma_steps": 4, "coefficient_steps": 12}
    return BookMaking(**{**usual, "less_guidance_steps": 8, "batch": 8, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def parts() -> tuple[Bank, Bank]:
    network = Mixture()
    mix, teacher = RequestMix.uneven(4, (1.0, 2.0)), usual_teacher(network, 40)
    train, val = (make_bank(network, part, 48, mix, teacher=teacher, check_requests=2) for part in ("train", "val"))
    return train, val


def test_every_family_has_every_scale_and_number_of_calls(parts: tuple[Bank, Bank], tmp_path: Path) -> None:
    book, rows = make_book(Mixture(), *parts, settings(), tmp_path)
    assert book.budgets == (3, 4)
    assert book.scales == (1.0, 2.0)
    for family in ("grid", "fitted sigmas", "fitted coefficients", "less guidance"):
        assert {(entry.calls, entry.scale) for entry in book.family(family)} == {
            (calls, scale) for calls in (3, 4) for scale in (1.0, 2.0)
        }
    assert not book.family("per guidance")
    assert {row["made_by"] for row in rows} >= {"grid", "less guidance"}
    assert all(json.dumps(row, allow_nan=False) for row in rows)


def test_fitting_is_never_worse_on_validation_and_less_guidance_pays_for_what_it_costs(
    parts: tuple[Bank, Bank], tmp_path: Path
) -> None:
    book, _ = make_book(Mixture(), *parts, settings(guidance_steps=4), tmp_path)
    assert len(book.family("per guidance")) == 4
    for calls in (3, 4):
        means = {
            family: sum(book.entry(calls, scale, family).score.saturated for scale in (1.0, 2.0))
            for family in ("fitted sigmas", "fitted coefficients", "per guidance")
        }
        assert means["fitted coefficients"] <= means["fitted sigmas"] + 1e-6
        for scale in (1.0, 2.0):
            before, after = (book.entry(calls, scale, family) for family in ("per guidance", "less guidance"))
            assert after.score.mean * after.nfe() ** 2 <= before.score.mean * before.nfe() ** 2 * (1 + 1e-6)
        assert book.entry(calls, 1.0).nfe() == calls


def test_a_book_for_plain_requests_has_no_guidance_to_save(parts: tuple[Bank, Bank], tmp_path: Path) -> None:
    plain = [part.rows(part.scales == 1) for part in parts]
    book, _ = make_book(Mixture(), *plain, settings(budgets=(3,)), tmp_path)
    assert book.shipped == "fitted coefficients"
    assert book.scales == (1.0,)


def test_what_is_done_is_taken_over_and_what_is_damaged_is_made_again(
    parts: tuple[Bank, Bank], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = make_book(Mixture(), *parts, settings(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["programs-3.json", "programs-4.json"]
    # Steps that would take for ever, if they were taken.
    again, _ = make_book(Mixture(), *parts, settings(coefficient_steps=10**9), tmp_path)
    assert again == first
    (tmp_path / "programs-3.json").write_text("{}")
    once_more, _ = make_book(Mixture(), *parts, settings(), tmp_path)
    assert once_more == first
    assert "made again" in caplog.text


def test_other_work_is_done_meanwhile(parts: tuple[Bank, Bank], tmp_path: Path) -> None:
    done: list[str] = []
    alone, _ = make_book(Mixture(), *parts, settings(budgets=(3,)), tmp_path / "alone")
    beside, _ = make_book(Mixture(), *parts, settings(budgets=(3,)), tmp_path / "beside", [lambda: done.append("x")])
    assert done == ["x"]
    assert beside == alone


def test_parts_with_other_scales_are_refused(parts: tuple[Bank, Bank], tmp_path: Path) -> None:
    train, val = parts
    with pytest.raises(BadInput, match=r"guidance scales \[1.0, 2.0\] to fit on and \[1.0\] to choose by"):
        make_book(Mixture(), train, val.rows(val.scales == 1), settings(), tmp_path)


@pytest.mark.parametrize("budgets", [(), (1, 2), (3, 3)])
def test_budgets_are_different_numbers_from_2(budgets: tuple[int, ...]) -> None:
    with pytest.raises(BadParams, match="expected different numbers"):
        settings(budgets=budgets)
