"""`vernissage results`: the numbers of the last run as tables."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from vernissage.commands.screen import screen
from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.files import read_json
from vernissage.pipeline.results import results_table, results_text

if TYPE_CHECKING:
    from pathlib import Path


def show_results(project: Path, *, as_json: bool) -> None:
    """Print `metrics/<system>.json` of every system.

    Raises:
        MissingArtifact: Nothing has been built yet.
        CorruptArtifact: A metrics file is not what the report stage writes.
    """
    files = sorted((project / "metrics").glob("*.json"))
    if not files:
        raise MissingArtifact(f"{project / 'metrics'}: no results yet; run `make rebuild` or `dvc repro`")
    metrics = {}
    for file in files:
        content = read_json(file)
        if not isinstance(content, dict) or not isinstance(content.get("rows"), dict):
            raise CorruptArtifact(f"{file}: expected a mapping with `rows`; run `dvc repro report@{file.stem}` again")
        metrics[file.stem] = content
    if as_json:
        sys.stdout.write(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
        return
    console = screen()
    for content in metrics.values():
        if console.is_terminal:
            console.print(results_table(content))
        else:
            sys.stdout.write(results_text(content) + "\n\n")
