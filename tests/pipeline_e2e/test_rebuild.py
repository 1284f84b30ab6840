"""The whole DAG as a user drives it: ingest, rebuild, experiment, compare, and what a failing gate or a typo stops."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vernissage.core.params import profile_overrides
from vernissage.retoucher.learn.imagined import imagine_scenes
from vernissage.sculptor.domain.blocks import SPECIES_PALETTES, roles_to_structure
from vernissage.sculptor.domain.formats import write_structure
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.prepare.grower import grow

PROJECT = Path(__file__).parents[2]
KINDS = ("coast", "forest", "town")


class Checkout:
    """A copy of the project's tracked files in a git repository of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        tracked = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=PROJECT, check=True, capture_output=True, text=True
        )
        for name in tracked.stdout.splitlines():
            if (
                (PROJECT / name).is_file()
                and not name.startswith(("tests/", "metrics/", "plots/"))
                and name != "dvc.lock"
            ):
                target = root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(PROJECT / name, target)
        self.run("git", "init", "--quiet", "--initial-branch=main")
        self.run("git", "config", "user.email", "tests@example.invalid")
        self.run("git", "config", "user.name", "tests")
        self.commit("start")

    def run(self, *command: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.root),
            "VERNISSAGE_SCRATCH": str(self.root / "scratch"),
        }
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        if ok:
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done

    def dvc(self, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "dvc", *words, ok=ok)

    def vernissage(self, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "vernissage.cli", *words, ok=ok)

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "--quiet", "-m", message)

    def metrics(self) -> dict:
        return json.loads((self.root / "metrics/retoucher.json").read_text())


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def make_photos(folder: Path) -> None:
    """Thirty photos that can be used and a handful that cannot."""
    rng = np.random.default_rng(3)
    scenes = (imagine_scenes(30, 128, rng).permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    for index, pixels in enumerate(scenes):
        place = folder / KINDS[index % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[:96] if index % 2 else pixels).save(
            place / f"Straße {index}.{'jpg' if index % 4 else 'png'}"
        )
    (folder / "coast" / "empty.jpg").write_bytes(b"")
    (folder / "coast" / "text.jpg").write_text("not a picture")
    good = next(iter(sorted((folder / "forest").iterdir())))
    (folder / "forest" / "cut off.jpg").write_bytes(good.read_bytes()[:300])
    shutil.copyfile(good, folder / "town" / f"again{good.suffix}")
    Image.new("RGB", (1, 1)).save(folder / "town" / "dot.png")


def make_structures(folder: Path) -> None:
    """A dozen trees of three series in two formats, and a file that is none."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    for species, suffix in (("oak", "schem"), ("spruce", "nbt"), ("acacia", "schem")):
        for number in range(4):
            roles = grow(species, SIZES["normal"], rng)
            structure = roles_to_structure(roles, SPECIES_PALETTES[species])
            write_structure(structure, folder / f"{species}{number}.{suffix}")
    (folder / "broken.schem").write_bytes(b"no tree")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A project with photos of its own, rebuilt once with the test profile."""
    checkout = Checkout(tmp_path_factory.mktemp("project"))
    photos = tmp_path_factory.mktemp("photos")
    make_photos(photos)
    checkout.vernissage("ingest", str(photos))
    structures = tmp_path_factory.mktemp("own") / "structures"
    make_structures(structures)
    checkout.vernissage("ingest-structures", str(structures))
    checkout.commit("photos and structures")
    words = [word for override in profile_overrides(checkout.root / "params.yaml", "test") for word in ("-S", override)]
    checkout.dvc("exp", "run", "--quiet", *words)
    checkout.commit("first results")
    return checkout


def test_every_file_of_the_user_is_in_the_dataset_or_rejected_with_a_reason(checkout: Checkout) -> None:
    ingested = read_rows(checkout.root / "reports/ingest.csv")
    status = {row["file"].split("/")[-1]: row for row in ingested}
    assert len(ingested) == 35
    for name in ("empty.jpg", "text.jpg", "cut off.jpg"):
        assert status[name]["status"] == "rejected"
        assert status[name]["reason"]
    assert {row["status"] for row in ingested if row["file"].split("/")[-1].startswith("again")} == {"duplicate"}
    resized = read_rows(checkout.root / "data/resized/photos.csv")
    rejected = read_rows(checkout.root / "data/resized/rejected.csv")
    added = sum(row["status"] == "added" for row in ingested)
    assert len(resized) + len(rejected) == added
    assert all(row["reason"] for row in rejected)
    assert {row["category"] for row in resized} == set(KINDS)


def test_the_rebuild_leaves_what_the_design_promises(checkout: Checkout) -> None:
    metrics = checkout.metrics()
    assert {"retoucher", "no edit", "random", "autocontrast", "CLAHE", "gray-world"} <= set(metrics["rows"])
    assert metrics["robustness"]["cases"] >= 12
    for name in ("models/retoucher/model.safetensors", "models/juror/juror.json", "data/retoucher/gate/gate.html"):
        assert (checkout.root / name).is_file(), name
    assert list((checkout.root / "plots/retoucher/images").glob("*.png"))


def test_the_sampler_is_rebuilt_as_well(checkout: Checkout) -> None:
    metrics = json.loads((checkout.root / "metrics/sampler.json").read_text(encoding="utf-8"))
    assert metrics["robustness"]["cases"] == 20
    assert {"grid", "fitted sigmas", "fitted coefficients", "less guidance", "consistency"} <= {
        name.rpartition(",")[0] for name in metrics["rows"]
    }
    for name in ("models/sampler/book.json", "models/sampler/sampler.json", "data/sampler/gate/gate.html"):
        assert (checkout.root / name).is_file(), name
    for name in ("frontier.png", "samples.png"):
        assert (checkout.root / "plots/sampler/images" / name).is_file(), name
    page = (checkout.root / "plots/sampler/summary.html").read_text(encoding="utf-8")
    assert "Frontier" in page or "frontier" in page
    assert "http://" not in page
    assert "https://" not in page


def test_the_sampler_draws_for_a_price(checkout: Checkout, tmp_path: Path) -> None:
    words = ("--label", "3", "-n", "6", "--price", "0.02", "-o", str(tmp_path / "grid.png"))
    said = checkout.vernissage("sample", *words, "--trace", str(tmp_path / "trace.json")).stdout
    assert "network evaluations" in said
    trace = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))
    assert len(trace["nfe"]) == 6
    with Image.open(tmp_path / "grid.png") as sheet:
        assert sheet.width > sheet.height
    refused = checkout.vernissage(
        "sample", "--label", "12", "--price", "0.02", "-o", str(tmp_path / "no.png"), ok=False
    )
    assert refused.returncode != 0
    assert "12" in refused.stdout + refused.stderr
    assert not (tmp_path / "no.png").exists()


def test_the_sculptor_is_rebuilt_as_well(checkout: Checkout) -> None:
    metrics = json.loads((checkout.root / "metrics/sculptor.json").read_text(encoding="utf-8"))
    assert metrics["robustness"]["cases"] == 20
    assert 0 <= metrics["headline"]["connectivity"] <= 1
    structures = read_rows(checkout.root / "data/sculptor/ready/structures.csv")
    assert {row["source"] for row in structures} == {"own", "grown"}
    assert [row["file"] for row in read_rows(checkout.root / "reports/rejected-structures.csv")] == ["broken.schem"]
    for name in (
        "models/sculptor/model.safetensors",
        "models/sculptor/checkpoints/epoch-0001/model.safetensors",
        "runs/sculptor/train/generations/epoch-0002.png",
        "data/sculptor/gate/gate.html",
    ):
        assert (checkout.root / name).is_file(), name
    assert list((checkout.root / "plots/sculptor/images").glob("*.png"))
    page = (checkout.root / "plots/sculptor/summary.html").read_text(encoding="utf-8")
    assert "http://" not in page
    assert "https://" not in page


def test_the_sculptor_builds_from_words(checkout: Checkout, tmp_path: Path) -> None:
    words = ("tall oak tree with thick trunk", "-n", "2", "--steps", "4", "--seed", "7", "-o", str(tmp_path))
    formats = "schem,litematic,nbt,vox,glb,png,html,json"
    said = checkout.vernissage("sculpt", *words, "--format", formats, "--checkpoint", "epoch=2").stdout
    assert "tall" in said
    records = sorted(tmp_path.glob("*.json"))
    assert len(records) == 2
    assert len(list(tmp_path.glob("*.html"))) == 2
    refused = checkout.vernissage("sculpt", "oak", "--size", "0x4x4", "-o", str(tmp_path / "no"), ok=False)
    assert refused.returncode == 2
    assert "0x4x4" in refused.stderr
    assert not (tmp_path / "no").exists()


def test_a_second_repro_runs_nothing(checkout: Checkout) -> None:
    again = checkout.dvc("repro")
    assert "up to date" in again.stdout
    assert "Running stage" not in again.stdout


def test_tools_of_dvc_read_the_results(checkout: Checkout) -> None:
    assert "psnr" in checkout.dvc("metrics", "show").stdout
    assert "train@retoucher" in checkout.dvc("dag").stdout
    page = checkout.dvc("plots", "show", "--out", "dvc_plots")
    assert (checkout.root / "dvc_plots/index.html").is_file(), page.stdout
    text = (checkout.root / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert "before-after.png" in text
    assert all(f'"title": "{axis}"' in text for axis in ("update", "reward", "epoch", "psnr"))
    said = checkout.vernissage("results").stdout
    assert "retoucher" in said
    assert "less guidance, 3 calls" in said


def test_an_experiment_with_another_learning_rate_changes_the_training_only(checkout: Checkout) -> None:
    run = checkout.dvc("exp", "run", "-S", "lr=5e-5", "train@retoucher")
    assert "Running stage 'train@retoucher'" in run.stdout
    assert "Running stage 'resize'" not in run.stdout
    assert "lr" in checkout.dvc("params", "diff").stdout
    assert "settings.reinforcement.lr" in checkout.dvc("metrics", "diff").stdout
    checkout.dvc("repro", "--quiet", "report@retoucher")
    difference = checkout.dvc("metrics", "diff").stdout
    assert "rows.retoucher" in difference
    assert "rows.no edit" not in difference
    checkout.run("git", "checkout", "--quiet", ".")
    checkout.dvc("checkout", "--quiet", "--force")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("lr: 0.0003", "lr: fast"), "lr"),
        (("  long_edge:", "  lonk_edge:"), "long_edge"),
        (("    horizon: 8", "    horizon: 0"), "horizon"),
    ],
)
def test_a_typo_is_refused_before_any_stage_runs(checkout: Checkout, change: tuple[str, str], said: str) -> None:
    params = checkout.root / "params.yaml"
    before = params.read_text()
    assert change[0] in before
    try:
        params.write_text(before.replace(change[0], change[1], 1))
        assert checkout.vernissage("params", ok=False).returncode == 2
        failed = checkout.dvc("repro", "--force", "collect", ok=False)
        assert failed.returncode != 0
        assert said in failed.stdout + failed.stderr
        assert "done in" not in failed.stdout
        # DVC clears a stage's outs before it starts the stage; they are in its cache.
        checkout.dvc("checkout", "--quiet", "--force")
        assert (checkout.root / "data/raw/photos/collected.csv").is_file()
    finally:
        params.write_text(before)
        checkout.dvc("checkout", "--quiet", "--force")


def test_a_failing_gate_stops_what_is_behind_it_and_names_the_rows(checkout: Checkout) -> None:
    failed = checkout.dvc("exp", "run", "-S", "validate.retoucher.max_category_share=0.2", "report", ok=False)
    said = failed.stdout + failed.stderr
    assert failed.returncode != 0
    assert "Running stage 'validate@retoucher'" in said
    assert "Running stage 'train@retoucher'" not in said
    assert any(kind in said for kind in KINDS)
    assert (checkout.root / "data/retoucher/gate/gate.html").is_file()
    checkout.run("git", "checkout", "--quiet", ".")
    checkout.dvc("checkout", "--quiet", "--force")


def test_the_model_retouches_a_photo(checkout: Checkout, tmp_path: Path) -> None:
    photo = tmp_path / "dark photo.jpg"
    scene = (imagine_scenes(1, 300, np.random.default_rng(9))[0].permute(1, 2, 0).numpy() * 90).astype(np.uint8)
    Image.fromarray(scene).save(photo)
    checkout.vernissage("retouch", str(photo), "-o", str(tmp_path / "out"))
    recipe = json.loads((tmp_path / "out" / "dark photo.recipe.json").read_text(encoding="utf-8"))
    assert set(recipe["settings"]) >= {"exposure", "contrast"}
    with Image.open(tmp_path / "out" / "dark photo.jpg") as result:
        assert result.size == (300, 300)
