from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sampler.domain.closed_form import ANY_SIGMAS
from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact
from vernissage.sampler.domain.denoiser import ClassLabels, Counted
from vernissage.sampler.domain.programs import dpmpp, euler, heun
from vernissage.sampler.domain.sampling import per_seed_noise, run_program
from vernissage.sampler.domain.schedules import karras
from vernissage.sampler.learn.book import FAMILIES, Entry, ProgramBook, evaluations_of
from vernissage.sampler.learn.grid import Score

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = FAMILIES[-1]
GRID = FAMILIES[0]


def an_entry(
    calls: int = 4,
    scale: float = 2.0,
    saturated: float = 0.2,
    *,
    shares: tuple[float, ...] | None = None,
    made_by: str = SHIPPED,
    mean: float = 0.1,
) -> Entry:
    program = dpmpp(karras(calls, 0.05, 10.0))
    return Entry(program, scale, (1.0,) * calls if shares is None else shares, made_by, Score(saturated, 0.1, mean, 8))


@st.composite
def entries(draw: st.DrawFn, made_by: str = SHIPPED) -> Entry:
    program = euler(draw(ANY_SIGMAS))
    shares = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=program.steps, max_size=program.steps))
    values = draw(st.tuples(*[st.floats(0, 1)] * 3))
    score = Score(*values, draw(st.integers(1, 1000)))
    if draw(st.booleans()):
        score = replace(score, mean=math.inf)
    return Entry(program, draw(st.sampled_from([0.0, 1.0, 1.5, 2.5, 7.3])), tuple(shares), made_by, score)


@st.composite
def books(draw: st.DrawFn) -> ProgramBook:
    found = draw(st.lists(entries(), min_size=1, max_size=5, unique_by=lambda entry: (entry.scale, entry.calls)))
    found += draw(st.lists(entries(made_by=GRID), max_size=3, unique_by=lambda entry: (entry.scale, entry.calls)))
    return ProgramBook(tuple(found), draw(st.floats(0.01, 2)))


FOLDERS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
FEW = settings(max_examples=30)
PRICES = st.floats(0, 2)


# --- round trips ------------------------------------------------------------------------------------------------------


@given(books())
@FOLDERS
def test_round_trip(tmp_path: Path, book: ProgramBook) -> None:
    book.save(tmp_path)
    assert ProgramBook.load(tmp_path) == book


def test_a_score_that_is_infinite_comes_back(tmp_path: Path) -> None:
    book = ProgramBook((an_entry(mean=math.inf),), 0.1)
    book.save(tmp_path)
    assert "Infinity" not in (tmp_path / "book.json").read_text()
    assert ProgramBook.load(tmp_path).entries[0].score.mean == math.inf


def test_another_family_can_be_the_shipped_one(tmp_path: Path) -> None:
    book = ProgramBook((an_entry(3, made_by="grid"), an_entry(5)), 0.1, "grid")
    book.save(tmp_path)
    assert ProgramBook.load(tmp_path).budgets == book.budgets == (3,)


# --- what entries cost and ask ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "cost"), [(0.0, 1), (1.0, 1), (1.0001, 2), (2.5, 2), (-1.0, 2)])
def test_evaluations_of_one_call(scale: float, cost: int) -> None:
    assert evaluations_of(scale) == cost


def test_nfe_counts_guided_calls_twice() -> None:
    entry = an_entry(4, 2.0, shares=(0.0, 1.0, 0.5, 0.0))
    assert entry.nfe() == entry.nfe(2.0) == entry.nfe(7.0) == 6
    assert entry.nfe(1.0) == 4
    assert an_entry(4, 1.0).nfe() == 4
    # Half of the guidance of scale -1 is none at all: 1 + (-1 - 1) / 2 = 0.
    assert entry.nfe(-1.0) == 5


@given(st.sampled_from([0.0, 1.0, 2.0, 4.0]), st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=3, max_size=3))
@FEW
def test_nfe_is_what_the_network_is_asked(scale: float, shares: list[float]) -> None:
    entry, counted = an_entry(3, scale, shares=tuple(shares)), Counted(Mixture())
    sampled = run_program(
        counted,
        per_seed_noise(range(5), (1, 4, 4)),
        ClassLabels(torch.tensor([0, 1, 2, 3, 0])),
        entry.program,
        entry.guidance(torch.full((5,), scale)),
    )
    assert sampled.evaluations.tolist() == [entry.nfe(scale)] * 5
    assert counted.evaluations == 5 * entry.nfe(scale)


def test_guidance_of_each_call() -> None:
    entry = an_entry(3, 2.0, shares=(0.0, 0.5, 1.0))
    found = entry.guidance(torch.tensor([1.0, 2.0, 4.0]))
    assert found is not None
    assert found.tolist() == [[1.0, 1.0, 1.0], [1.0, 1.5, 2.0], [1.0, 2.5, 4.0]]
    assert found.dtype == torch.float32
    assert entry.guidance(torch.ones(4)) is None
    assert entry.guidance(torch.tensor([2.0], dtype=torch.float64)).dtype == torch.float64  # type: ignore[union-attr]


@given(entries(), st.lists(st.sampled_from([0.0, 1.0, 1.5, 3.0]), min_size=1, max_size=6))
def test_guidance_has_a_row_for_each_sample_and_leaves_who_asks_for_none(entry: Entry, scales: list[float]) -> None:
    found = entry.guidance(torch.tensor(scales))
    if set(scales) == {1.0}:
        assert found is None
        return
    assert found is not None
    assert found.shape == (len(scales), entry.calls)
    for row, scale in zip(found, scales, strict=True):
        assert entry.nfe(scale) == sum(evaluations_of(value) for value in row.tolist())
        low, high = sorted((1.0, scale))
        assert low <= float(row.min()) <= float(row.max()) <= high


def test_corrections_are_calls_as_well() -> None:
    program = heun(karras(3, 0.05, 10.0))
    assert Entry(program, 2.0, (1.0,) * 5, SHIPPED, Score(0.1, 0.1, 0.1, 1)).nfe() == 10


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"shares": (1.0,)}, "1 shares of guidance for program .* with 4 calls"),
        ({"made_by": "magic"}, "made by 'magic', expected one of grid"),
        ({"scale": math.nan}, "expected finite numbers"),
        ({"shares": (1.0, 1.0, math.inf, 1.0)}, "expected finite numbers"),
    ],
)
def test_entries_that_cannot_be(values: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        replace(an_entry(4), **values)


# --- looking up -------------------------------------------------------------------------------------------------------


def a_book() -> ProgramBook:
    errors = {3: 0.5, 5: 0.2, 8: 0.05}
    own = [an_entry(calls, scale, error * scale) for scale in (1.0, 2.0) for calls, error in errors.items()]
    grid = [an_entry(5, 2.0, 0.6, made_by="grid"), an_entry(12, 4.0, 0.01, made_by="grid")]
    return ProgramBook((*reversed(own), *grid), 0.1)


def test_what_there_is() -> None:
    book = a_book()
    assert book.scales == (1.0, 2.0)
    assert book.budgets == (3, 5, 8)
    assert [entry.calls for entry in book.of_scale(2.0)] == [3, 5, 8]
    assert {entry.scale for entry in book.of_scale(2.0)} == {2.0}
    assert len(book.family("grid")) == 2
    assert book.family("per guidance") == ()


@pytest.mark.parametrize(
    ("scale", "nearest"), [(1.0, 1.0), (1.4, 1.0), (1.5, 1.0), (1.6, 2.0), (2.0, 2.0), (15.0, 2.0), (-3.0, 1.0)]
)
def test_nearest_scale(scale: float, nearest: float) -> None:
    assert a_book().nearest_scale(scale) == nearest
    assert a_book().entry(5, scale).scale == nearest


@given(books(), st.floats(-20, 20))
@FEW
def test_no_scale_is_nearer(book: ProgramBook, scale: float) -> None:
    nearest = book.nearest_scale(scale)
    assert nearest in book.scales
    assert all(abs(nearest - scale) <= abs(other - scale) for other in book.scales)
    assert {entry.scale for entry in book.of_scale(scale)} == {nearest}


def test_the_program_of_a_budget() -> None:
    assert a_book().entry(8, 1.0).calls == 8
    assert a_book().entry(5, 2.0, "grid").made_by == "grid"
    with pytest.raises(BadInput, match="no program with 4 network calls, expected one of: 3, 5, 8"):
        a_book().entry(4, 1.0)
    with pytest.raises(BadInput, match="expected one of: none"):
        a_book().entry(5, 1.0, "per guidance")


@pytest.mark.parametrize(
    ("price", "scale", "calls"),
    # Scale 1: errors .5, .2, .05 at 3, 5, 8 evaluations. Scale 2: 1, .4, .1 at 6, 10, 16.
    [(0.0, 1.0, 8), (0.04, 1.0, 8), (0.06, 1.0, 5), (0.14, 1.0, 5), (0.16, 1.0, 3), (9.0, 1.0, 3),
     (0.04, 2.0, 8), (0.06, 2.0, 5), (0.16, 2.0, 3), (0.16, 3.0, 3)],
)  # fmt: skip
def test_a_price_buys_what_it_is_worth(price: float, scale: float, calls: int) -> None:
    assert a_book().for_price(price, scale).calls == calls


@given(books(), PRICES, st.sampled_from([0.0, 1.0, 2.0, 5.0]))
@FEW
def test_no_other_program_costs_less(book: ProgramBook, price: float, scale: float) -> None:
    best = book.for_price(price, scale)
    assert best in book.of_scale(scale)
    cost = best.score.saturated + price * best.nfe(scale)
    assert all(cost <= other.score.saturated + price * other.nfe(scale) for other in book.of_scale(scale))


@given(books(), PRICES, PRICES, st.sampled_from([0.0, 1.0, 2.0, 5.0]))
@FEW
def test_a_higher_price_never_buys_more_evaluations(
    book: ProgramBook, first: float, second: float, scale: float
) -> None:
    low, high = sorted((first, second))
    cheap, dear = book.for_price(low, scale), book.for_price(high, scale)
    saved = (cheap.nfe(scale) - dear.nfe(scale)) * (high - low)
    assert saved >= -1e-9


@given(books(), st.sampled_from([0.0, 1.0, 2.0, 5.0]))
@FEW
def test_for_nothing_the_best_is_bought(book: ProgramBook, scale: float) -> None:
    assert book.for_price(0, scale).score.saturated == min(entry.score.saturated for entry in book.of_scale(scale))


def test_equal_costs_are_decided_by_the_mean_error() -> None:
    book = ProgramBook((an_entry(3, 1.0, 0.2, mean=0.5), an_entry(4, 1.0, 0.2, mean=0.4)), 0.1)
    assert book.for_price(0, 1.0).calls == 4


@pytest.mark.parametrize("price", [-0.01, math.nan, math.inf])
def test_prices_that_cannot_be(price: float) -> None:
    with pytest.raises(BadInput, match=f"price = {price}: expected 0 or more"):
        a_book().for_price(price, 1.0)


@pytest.mark.parametrize(
    ("found", "tau", "shipped", "words"),
    [
        ((), 0.1, SHIPPED, "no program of the family 'less guidance'"),
        ((an_entry(made_by="grid"),), 0.1, SHIPPED, "no program of the family 'less guidance'"),
        ((an_entry(),), 0.1, "magic", "no program of the family 'magic'"),
        ((an_entry(), an_entry()), 0.1, SHIPPED, "the same guidance scale and number of calls"),
        ((an_entry(),), 0.0, SHIPPED, "tau = 0.0"),
        ((an_entry(),), math.nan, SHIPPED, "tau = nan"),
        ((an_entry(),), math.inf, SHIPPED, "tau = inf"),
    ],
)
def test_books_that_cannot_be(found: tuple[Entry, ...], tau: float, shipped: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        ProgramBook(found, tau, shipped)


def test_a_price_finds_nothing_in_an_empty_family() -> None:
    with pytest.raises(BadInput, match="per guidance"):
        a_book().for_price(0.1, 1.0, "per guidance")


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_book_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match=r"book\.json.*dvc repro train@sampler"):
        ProgramBook.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '"book"', "{}"])
def test_files_that_are_no_books(tmp_path: Path, text: str) -> None:
    (tmp_path / "book.json").write_text(text)
    with pytest.raises(CorruptArtifact, match=r"book\.json"):
        ProgramBook.load(tmp_path)


def _inside(*path: str | int) -> Any:
    def change(document: Any, value: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


DAMAGES: dict[str, tuple[Any, Any]] = {
    "another format": (_inside("format"), 2),
    "entries of text": (_inside("entries"), "many"),
    "no entries": (_inside("entries"), []),
    "entry of numbers": (_inside("entries", 0), [1, 2]),
    "tau of text": (_inside("tau"), "small"),
    "tau below 0": (_inside("tau"), -1),
    "no tau": (_inside("tau"), None),
    "unknown family": (_inside("shipped"), "magic"),
    "made by magic": (_inside("entries", 0, "made_by"), "magic"),
    "too few shares": (_inside("entries", 0, "shares"), [1]),
    "shares of text": (_inside("entries", 0, "shares"), ["all", "all", "all"]),
    "scale of a list": (_inside("entries", 0, "scale"), [2]),
    "rising sigmas": (_inside("entries", 0, "program", "sigmas"), [1, 2, 3, 0]),
    "no coefficients": (_inside("entries", 0, "program", "coefficients"), []),
    "no program": (_inside("entries", 0, "program"), None),
    "no score": (_inside("entries", 0, "score"), None),
    "score of text": (_inside("entries", 0, "score", "saturated"), "good"),
}


@pytest.mark.parametrize(("change", "value"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_books_are_refused(tmp_path: Path, change: Any, value: Any) -> None:
    ProgramBook((an_entry(3), an_entry(5)), 0.1).save(tmp_path)
    document = json.loads((tmp_path / "book.json").read_text())
    change(document, value)
    (tmp_path / "book.json").write_text(json.dumps(document))
    with pytest.raises(CorruptArtifact, match=r"book\.json"):
        ProgramBook.load(tmp_path)


def test_a_score_without_pairs_is_refused(tmp_path: Path) -> None:
    ProgramBook((an_entry(3),), 0.1).save(tmp_path)
    document = json.loads((tmp_path / "book.json").read_text())
    document["entries"][0]["score"]["pairs"] = None
    (tmp_path / "book.json").write_text(json.dumps(document))
    with pytest.raises(CorruptArtifact, match=r"book\.json"):
        ProgramBook.load(tmp_path)


@pytest.mark.parametrize("key", ["format", "tau", "shipped", "entries"])
def test_books_that_lack_something_are_refused(tmp_path: Path, key: str) -> None:
    ProgramBook((an_entry(3),), 0.1).save(tmp_path)
    document = json.loads((tmp_path / "book.json").read_text())
    del document[key]
    (tmp_path / "book.json").write_text(json.dumps(document))
    with pytest.raises(CorruptArtifact, match=f"not a book of programs.*{key}"):
        ProgramBook.load(tmp_path)


def test_what_a_scheduler_can_run_obeys_all_guidance() -> None:
    known = (an_entry(3), an_entry(4, shares=(1.0, 1.0, 1.0, 0.0)), an_entry(5, made_by="fitted coefficients"))
    assert [entry.calls for entry in ProgramBook(known, 0.1).fully_guided] == [5]
    assert [entry.calls for entry in ProgramBook(known[:2], 0.1).fully_guided] == [3]
