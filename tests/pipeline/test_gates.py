"""Gates: what holds passes, what does not is shown with its rows, and the same tables give the same bytes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import great_expectations.expectations as gxe
import pandas as pd
import pytest

from vernissage.core.errors import GateFailed
from vernissage.core.gate_spec import Gate, TableExpectation
from vernissage.pipeline.gates import GateResult, require_passed, run_gate, write_gate

if TYPE_CHECKING:
    from pathlib import Path


def good_pairs() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "pair_id": [1, 2, 3, 4],
            "file": ["a.png", "b.png", "c.png", "d.png"],
            "score": [0.0, 5.0, 7.5, 10.0],
            "split": ["train", "train", "val", "test"],
        }
    )


def bad_pairs() -> pd.DataFrame:
    pairs = good_pairs()
    pairs["pair_id"] = [1, 2, 2, 4]
    pairs["score"] = [0.0, 11.0, float("nan"), -3.5]
    # Filtered tables keep odd row labels; findings count from 0 all the same.
    pairs.index = pd.Index([40, 30, 20, 10])
    return pairs


def pairs_gate(pairs: pd.DataFrame) -> Gate:
    expected = [
        (gxe.ExpectTableRowCountToBeBetween(min_value=3), "There is something to learn from."),
        (gxe.ExpectColumnValuesToBeUnique(column="pair_id"), "Every pair has its own number."),
        (gxe.ExpectColumnValuesToBeBetween(column="score", min_value=0, max_value=10), "Scores lie in [0, 10]."),
        (gxe.ExpectColumnDistinctValuesToContainSet(column="split", value_set=["train", "test"]), "Splits are filled."),
        (gxe.ExpectColumnValuesToNotBeNull(column="score"), "Every pair is scored."),
    ]
    return Gate("retoucher", {"pairs": pairs}, [TableExpectation("pairs", one, meaning) for one, meaning in expected])


@pytest.fixture(scope="module")
def passed() -> GateResult:
    return run_gate(pairs_gate(good_pairs()))


@pytest.fixture(scope="module")
def failed() -> GateResult:
    return run_gate(pairs_gate(bad_pairs()))


def test_good_tables_pass(passed: GateResult) -> None:
    assert passed.passed
    assert len(passed.findings) == 5
    assert passed.table_rows == {"pairs": 4}
    assert all(not finding.rows and finding.problem is None for finding in passed.findings)
    require_passed(passed)


def test_findings_keep_the_order_of_the_gate(failed: GateResult) -> None:
    assert [finding.meaning for finding in failed.findings] == [
        item.meaning for item in pairs_gate(bad_pairs()).expectations
    ]
    assert [finding.passed for finding in failed.findings] == [True, False, False, True, False]


def test_unexpected_rows_come_with_their_ids(failed: GateResult) -> None:
    unique, between, filled = failed.failed_findings
    assert unique.rows == ({"row": 1, "pair_id": 2, "file": "b.png"}, {"row": 2, "pair_id": 2, "file": "c.png"})
    assert between.rows == (
        {"row": 1, "pair_id": 2, "file": "b.png", "score": 11.0},
        {"row": 3, "pair_id": 4, "file": "d.png", "score": -3.5},
    )
    assert between.unexpected_count == 2
    assert between.unexpected_percent == pytest.approx(66.6667)  # of the three that have a score
    assert filled.rows == ({"row": 2, "pair_id": 2, "file": "c.png", "score": None},)


def test_the_message_prints_what_failed_and_where(failed: GateResult) -> None:
    with pytest.raises(GateFailed) as caught:
        require_passed(failed, "data/retoucher/gate/gate.html")
    message = str(caught.value)
    assert "gate retoucher: 3 of 5 expectations failed" in message
    assert "pairs.pair_id: Every pair has its own number." in message
    assert "row 3, pair_id 4, file d.png, score -3.5" in message
    assert "Splits are filled" not in message
    assert "data/retoucher/gate/gate.html" in message


def test_only_the_first_of_many_rows_are_kept() -> None:
    table = pd.DataFrame({"image_id": range(5000), "luma": [2.0] * 5000})
    expectation = gxe.ExpectColumnValuesToBeBetween(column="luma", max_value=1)
    result = run_gate(Gate("photos", {"photos": table}, [TableExpectation("photos", expectation, "Luma is a share.")]))
    (finding,) = result.findings
    assert finding.unexpected_count == 5000
    assert [row["row"] for row in finding.rows] == list(range(10))
    assert len(result.to_json()) < 5000
    with pytest.raises(GateFailed, match="and 4997 more"):
        require_passed(result)


def test_a_narrow_table_without_ids_shows_its_rows_whole() -> None:
    table = pd.DataFrame({"split": ["train", "val", "test"], "pairs": [12, 0, 4]})
    expectation = gxe.ExpectColumnValuesToBeBetween(column="pairs", min_value=1)
    result = run_gate(Gate("g", {"splits": table}, [TableExpectation("splits", expectation, "Every split is filled.")]))
    assert result.findings[0].rows == ({"row": 1, "split": "val", "pairs": 0},)


def test_a_missing_column_fails_instead_of_passing_unseen() -> None:
    expectation = gxe.ExpectColumnValuesToNotBeNull(column="scroe")
    result = run_gate(Gate("g", {"pairs": good_pairs()}, [TableExpectation("pairs", expectation, "Scored.")]))
    (finding,) = result.findings
    assert not finding.passed
    assert finding.problem is not None
    assert "scroe" in finding.problem
    with pytest.raises(GateFailed, match="could not be checked"):
        require_passed(result)


def test_several_tables_and_equal_expectations_are_told_apart() -> None:
    expectation = gxe.ExpectTableRowCountToEqual(value=4)
    gate = Gate(
        "g",
        {"small": good_pairs().head(2), "whole": good_pairs()},
        [TableExpectation(name, expectation, f"{name} has four rows.") for name in ("whole", "small", "whole")],
    )
    result = run_gate(gate)
    assert [(finding.table, finding.passed, finding.observed) for finding in result.findings] == [
        ("whole", True, 4),
        ("small", False, 2),
        ("whole", True, 4),
    ]


@pytest.mark.parametrize(
    ("expectations", "words"),
    [([], "no expectations"), ([TableExpectation("piars", gxe.ExpectTableRowCountToEqual(value=4), "")], "'piars'")],
)
def test_a_gate_that_checks_nothing_is_a_mistake(expectations: list[TableExpectation], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        run_gate(Gate("g", {"pairs": good_pairs()}, expectations))


def test_same_tables_same_bytes(failed: GateResult, tmp_path: Path) -> None:
    again = run_gate(pairs_gate(bad_pairs()))
    write_gate(failed, tmp_path / "one")
    write_gate(again, tmp_path / "two")
    for name in ("gate.json", "gate.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_json_says_it_all_and_is_strict(failed: GateResult) -> None:
    content = json.loads(failed.to_json(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert content["passed"] is False
    assert content["tables"] == {"pairs": 4}
    assert len(content["findings"]) == 5
    assert content["findings"][4]["rows"] == [{"row": 2, "pair_id": 2, "file": "c.png", "score": None}]


def test_the_page_stands_alone_with_failures_first(failed: GateResult) -> None:
    page = failed.to_html()
    assert "http://" not in page
    assert "https://" not in page
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\(", page)
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    titles = re.findall(r'<article class="(passed|failed)">', page)
    assert titles == ["failed"] * 3 + ["passed"] * 2
    assert "d.png" in page


def test_the_page_escapes_what_comes_from_file_names() -> None:
    table = pd.DataFrame({"file": ["<script>alert(1)</script>.png"], "bytes": [0]})
    expectation = gxe.ExpectColumnValuesToBeBetween(column="bytes", min_value=1)
    page = run_gate(Gate("g<i>", {"photos": table}, [TableExpectation("photos", expectation, "a < b")])).to_html()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "g&lt;i&gt;" in page


def test_checking_is_silent(capfd: pytest.CaptureFixture[Any]) -> None:
    run_gate(pairs_gate(bad_pairs()))
    assert capfd.readouterr() == ("", "")
