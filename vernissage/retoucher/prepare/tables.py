"""The CSV files between the stages of this room: one way to write them, one way to read and check them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.files import atomic_write_text

if TYPE_CHECKING:
    from pathlib import Path

INGEST_COLUMNS = ("file", "category", "sha256", "bytes", "source")
INGEST_REPORT_COLUMNS = ("file", "status", "category", "reason")
COLLECTED_COLUMNS = ("file", "category", "group", "source", "licence", "sha256")
PHOTO_COLUMNS = (
    "image_id", "file", "category", "group", "source_file", "sha256",
    "width", "height", "original_width", "original_height", "history",
)  # fmt: skip
REJECTED_COLUMNS = ("file", "reason", "sha256")
PAIR_COLUMNS = (
    "pair_id", "image_id", "split", "group", "category", "original", "faulty", "original_sha256", "faulty_sha256",
    "n_faults", "faults", "seed", "delta_e", "psnr", "width", "height", "score",
)  # fmt: skip

Row = Mapping[str, object]


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write rows as UTF-8 CSV, atomically and with the same bytes on every system.

    Args:
        path: The file.
        columns: Header, in order.
        rows: One mapping per line with exactly these keys.

    Raises:
        ValueError: If a row has other keys.
    """
    lines = [_line(columns)]
    for row in rows:
        if set(row) != set(columns):
            odd = sorted(set(row) ^ set(columns))
            raise ValueError(f"{path}: a row differs in {', '.join(odd)}; expected the columns {', '.join(columns)}")
        lines.append(_line([row[column] for column in columns]))
    atomic_write_text(path, "".join(lines))


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV file that :func:`write_table` wrote.

    Args:
        path: The file.
        columns: The columns it must have, in order.

    Returns:
        One dictionary of texts per line.

    Raises:
        MissingArtifact: If the file does not exist.
        CorruptArtifact: If it is not UTF-8, has another header or a line of another length.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise MissingArtifact(f"{path}: no such file; run the stage that makes it, or `dvc pull`") from None
    except UnicodeDecodeError as error:
        raise CorruptArtifact(f"{path}: not UTF-8 ({error}); run its stage again or `dvc checkout`") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, [])
    if header != list(columns):
        raise CorruptArtifact(f"{path}: found the columns {header}, expected {list(columns)}")
    rows = []
    for line in reader:
        if len(line) != len(columns):
            raise CorruptArtifact(
                f"{path}, line {reader.line_num}: {len(line)} cells, expected {len(columns)}; "
                "run its stage again or `dvc checkout`"
            )
        rows.append(dict(zip(columns, line, strict=True)))
    return rows


def _line(cells: Sequence[object]) -> str:
    buffer = io.StringIO(newline="")
    # The csv module quotes the characters of its own line end: after "\n" alone a "\r" in a name would break the row.
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n") + "\n"
