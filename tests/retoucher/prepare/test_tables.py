from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.retoucher.prepare.tables import REJECTED_COLUMNS, read_table, write_table

if TYPE_CHECKING:
    from pathlib import Path

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(REJECTED_COLUMNS, TEXT)), max_size=5))
@settings(max_examples=40, deadline=None)
def test_any_text_makes_the_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> None:
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    write_table(path, REJECTED_COLUMNS, rows)
    assert read_table(path, REJECTED_COLUMNS) == rows


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "found the columns"),
        (b"file,reason\na,b\n", "expected"),
        (b"file,reason,sha256\na,b\n", "line 2: 2 cells"),
        (b"file,reason,sha256\n\xff\xfe,b,c\n", "not UTF-8"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, content: bytes, match: str) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(CorruptArtifact, match=match):
        read_table(tmp_path / "table.csv", REJECTED_COLUMNS)


def test_a_missing_table_and_a_wrong_row(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match=r"none\.csv"):
        read_table(tmp_path / "none.csv", REJECTED_COLUMNS)
    with pytest.raises(ValueError, match="sha256"):
        write_table(tmp_path / "t.csv", REJECTED_COLUMNS, [{"file": "a", "reason": "b"}])
    with pytest.raises(ValueError, match="extra"):
        write_table(tmp_path / "t.csv", REJECTED_COLUMNS, [{"file": "", "reason": "", "sha256": "", "extra": ""}])
