"""`vernissage bench fullsize`: seconds and memory that a photo of full size takes from file to file."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vernissage.commands.screen import screen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vernissage.retoucher.use.speed import Speed


def bench_fullsize(megapixels: float, repeat: int, *, as_json: bool) -> None:
    """Make a photo, take it through `vernissage retouch` with fixed recipes, and print what that took.

    Args:
        megapixels: Size of the photo.
        repeat: Runs of each recipe; the fastest counts.
        as_json: Print JSON instead of a table.
    """
    # Imported here because they import torch; all of it is start-up, which is not measured.
    from vernissage.core.devices import configure_torch
    from vernissage.retoucher.use import speed

    threads, agent = configure_torch(), speed.untrained_agent()
    rows = []
    with tempfile.TemporaryDirectory(prefix="vernissage-bench-") as name:
        source, results = Path(name) / "photo.jpg", Path(name) / "results"
        results.mkdir()
        speed.make_photo(source, megapixels)
        for recipe, settings in speed.RECIPES.items():
            measured = speed.measure(source, results, settings, agent, repeat=repeat)
            rows.append(_row(recipe, measured, megapixels))
        size = source.stat().st_size / 1e6
    facts = {
        "megapixels": megapixels,
        "jpeg_mb": size,
        "threads": threads,
        "load": os.getloadavg()[0],
        "repeat": repeat,
    }
    if as_json:
        sys.stdout.write(json.dumps({**facts, "rows": rows}, indent=2) + "\n")
    else:
        _show(facts, rows, speed.PHASES)


def _row(recipe: str, measured: Speed, megapixels: float) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "seconds": dict(measured.seconds),
        "total_seconds": measured.total,
        # Of 8-bit RGB pixels, three bytes each.
        "mb_per_second": 3 * megapixels / measured.total,
        "peak_rss_mib": measured.peak_rss_mib,
        "thumbnail_delta_e": measured.delta_e,
    }


def _show(facts: dict[str, Any], rows: Sequence[dict[str, Any]], phases: Sequence[str]) -> None:
    from rich.table import Table

    table = Table("recipe", title=f"{facts['megapixels']:g} megapixels, JPEG of {facts['jpeg_mb']:.1f} MB", box=None)
    for column in (*phases, "total s", "MB/s", "peak RSS MiB", "thumbnail ΔE00"):
        table.add_column(column, justify="right")
    for row in rows:
        seconds = [f"{row['seconds'][phase]:.2f}" for phase in phases]
        rest = (f"{row['mb_per_second']:.0f}", f"{row['peak_rss_mib']:.0f}", f"{row['thumbnail_delta_e']:.2f}")
        table.add_row(row["recipe"], *seconds, f"{row['total_seconds']:.2f}", *rest)
    console = screen()
    console.print(table)
    console.print(
        f"best of {facts['repeat']}, {facts['threads']} threads, load of the machine {facts['load']:.1f}; "
        "peak memory is that of the whole process so far"
    )
