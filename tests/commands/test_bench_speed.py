"""`vernissage bench pool` and `bench env` on tiny pictures: everything is measured, and the figures agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from typer.testing import CliRunner

from vernissage.cli import app
from vernissage.retoucher.judge.bench_pool import HERE, JURORS, POOL, POOL_SINGLE, QUEUE, QUEUE_SINGLE

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose pictures are tiny."""
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    yaml = YAML()
    tree = yaml.load(PROJECT / "params.yaml")
    tree["train"]["retoucher"].update(view=16, slots=4, rollout=128, horizon=3)
    with (tmp_path / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(tree, file)
    return tmp_path


def test_the_pools_bench_measures_every_construction_in_turns() -> None:
    threads = torch.get_num_threads()
    done = CliRunner().invoke(app, ["bench", "pool", "--workers", "1", "--side", "8", "--seconds", "0.01", "--json"])
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert content["workers"] == 1
    rows = content["rows"]
    assert [(row["juror"], row["side"], row["construction"]) for row in rows] == [
        (juror, 8, construction) for juror in JURORS for construction in (HERE, POOL, POOL_SINGLE, QUEUE, QUEUE_SINGLE)
    ]
    assert [row["per_message"] for row in rows] == [8, 8, 1, 8, 1] * 2
    for row in rows:
        assert len(row["turns"]) == 3
        assert row["rate"] == sorted(row["turns"])[1] > 0
        assert row["cpu_ms"] > 0
    rates = {(row["juror"], row["construction"]): row["rate"] for row in rows}
    assert [(one["juror"], one["side"]) for one in content["ratios"]] == [("light", 8), ("rank", 8)]
    for one in content["ratios"]:
        assert one["usual"] == pytest.approx(rates[one["juror"], POOL] / rates[one["juror"], QUEUE_SINGLE])
    assert torch.get_num_threads() == threads


def test_the_environments_bench_prints_both_with_their_settings(project: Path) -> None:
    words = ["--project", str(project), "bench", "env", "--processes", "1", "--seconds", "0.05"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "edits per second, 16 px, the rank juror, horizon 3" in done.stdout
    for text in ("RetouchEnv", "1 thread", "SubprocVecEnv, Pillow, juror behind a queue", "1 process", "CPU ms each"):
        assert text in done.stdout
    assert "as many edits a second as the usual construction" in done.stdout


def test_the_environments_bench_needs_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["bench", "env"])
    assert done.exit_code == 1
    assert "--project" in done.stderr


@pytest.mark.parametrize("words", [("pool", "--workers", "0"), ("pool", "--side", "0"), ("env", "--processes", "0")])
def test_nonsense_is_refused_before_anything_starts(words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, ["bench", *words]).exit_code == 2
