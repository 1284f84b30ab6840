"""`vernissage bench fullsize` measures real work: every phase, a photo that is one, and results that agree."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from vernissage.cli import app
from vernissage.core.images import read_photo
from vernissage.retoucher.use import speed

if TYPE_CHECKING:
    from pathlib import Path


def test_every_phase_of_both_recipes_is_measured() -> None:
    done = CliRunner().invoke(app, ["bench", "fullsize", "--megapixels", "0.6", "--repeat", "1", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [row["recipe"] for row in found["rows"]] == list(speed.RECIPES)
    for row in found["rows"]:
        assert list(row["seconds"]) == list(speed.PHASES)
        assert all(seconds > 0 for seconds in row["seconds"].values())
        assert row["total_seconds"] == pytest.approx(sum(row["seconds"].values()))
        assert row["mb_per_second"] == pytest.approx(1.8 / row["total_seconds"])
        assert row["peak_rss_mib"] > 100
        assert row["thumbnail_delta_e"] < 1


def test_the_table_names_phases_and_load() -> None:
    done = CliRunner().invoke(app, ["bench", "fullsize", "--megapixels", "0.1", "--repeat", "1"])
    assert done.exit_code == 0, done.output
    for word in (*speed.PHASES, "peak RSS", "ΔE00", "load", "with denoise and sharpen"):
        assert word in done.stdout


def test_the_photo_has_the_size_and_the_detail_of_one(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        speed.make_photo(tmp_path / name, 0.54)
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.samples.shape == (600, 900, 3)
    assert photo.exif is not None
    # Grain between neighbours, and most of the range of levels.
    assert 2 < np.diff(photo.samples[..., 1].astype(int), axis=1).std() < 20
    assert np.ptp(np.percentile(photo.samples, (1, 99))) > 120


def test_a_disagreement_of_thumbnail_and_full_size_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speed.make_photo(tmp_path / "a.jpg", 0.1)
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(speed, "render_full_size", lambda pixels, settings, out: pixels)
    measured = speed.measure(tmp_path / "a.jpg", tmp_path / "out", {"exposure": 0.4}, speed.untrained_agent(), repeat=1)
    assert measured.delta_e > 5
