"""Small tables on disk, and short names for what a training depends on."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from typing import TYPE_CHECKING, Any

from vernissage.core.files import atomic_write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV for DVC's plots; the first row names the columns that all have, NaN is left empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    atomic_write_text(path, buffer.getvalue())


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else round(value, 6)
    return value


def fingerprint(*parts: object) -> str:
    """Short hash that names a checkpoint folder after everything that the training depends on."""
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()[:16]
