"""Systems: a stage finds its wing by name, hands it its folders, and lists the names when there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vernissage.core.errors import BadParams
from vernissage.pipeline.systems import SystemFolders, choose_system

PROJECT = Path(__file__).parents[2]

STAGE = """
import sys
from types import SimpleNamespace
from vernissage.pipeline.systems import run_system_stage

def train(params, folders):
    folders.model.mkdir(parents=True)
    (folders.model / "weights.txt").write_text(str(params.seed))

SYSTEMS = {"retoucher": SimpleNamespace(name="retoucher", train=train), "sampler": SimpleNamespace(name="sampler")}
run_system_stage("train", SYSTEMS, lambda system, params, folders: system.train(params, folders))
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "stage.py").write_text(STAGE)
    (folder / "params.yaml").write_bytes((PROJECT / "params.yaml").read_bytes())
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "VERNISSAGE_SCRATCH": "scratch"}
    command = [sys.executable, "stage.py", *words]
    return subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, timeout=60, check=False)


def test_a_stage_works_on_the_system_it_was_given(tmp_path: Path) -> None:
    done = run(tmp_path, "retoucher")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("train@retoucher: done in ")
    assert (tmp_path / "models" / "retoucher" / "weights.txt").read_text() == "0"
    assert (tmp_path / "scratch" / "train@retoucher" / "status.json").exists()


@pytest.mark.parametrize("words", [("retuocher",), (), ("retoucher", "sampler")])
def test_without_one_known_name_the_names_are_listed(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run(tmp_path, *words)
    assert done.returncode == 2
    assert "retoucher, sampler" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "models").exists()


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(BadParams, match=r"did you mean sampler\?"):
        choose_system({"retoucher": None, "sampler": None}, "smapler")  # type: ignore[dict-item]


def test_every_system_has_the_same_places() -> None:
    folders = SystemFolders("sculptor", Path("root"))
    assert folders.ready == Path("root/data/sculptor/ready")
    assert folders.gate == Path("root/data/sculptor/gate")
    assert folders.model == Path("root/models/sculptor")
    assert folders.training == Path("root/runs/sculptor/train")
    assert folders.benchmark == Path("root/runs/sculptor/benchmark")
    assert folders.robustness == Path("root/runs/sculptor/robustness")
    assert folders.metrics == Path("root/metrics/sculptor.json")
    assert folders.plots == Path("root/plots/sculptor")
    assert folders.scratch("train").name == "train@sculptor"
