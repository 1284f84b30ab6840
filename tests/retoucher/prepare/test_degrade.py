from __future__ import annotations

import copy
import json
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.retoucher.prepare.pictures import DEGRADE, RESIZE, tree_bytes
from vernissage.core.files import atomic_write_json, sha256_file
from vernissage.core.images import load_rgb8
from vernissage.retoucher.domain.faults import FAULTS
from vernissage.retoucher.domain.quality import delta_e, psnr
from vernissage.retoucher.prepare.degrade import degrade, plan_pairs
from vernissage.retoucher.prepare.expectations import GateLimits, retoucher_gate
from vernissage.retoucher.prepare.flow import load_batch
from vernissage.retoucher.prepare.tables import PAIR_COLUMNS, read_table

if TYPE_CHECKING:
    from pathlib import Path


def pairs_of(folder: Path) -> list[dict[str, str]]:
    return read_table(folder / "pairs.csv", PAIR_COLUMNS)


def document(dataset: Path) -> dict:
    return json.loads((dataset / "scored" / "annotations.json").read_text())


def test_pairs_are_numbered_and_their_files_are_as_written_down(dataset: Path) -> None:
    rows = pairs_of(dataset / "ready")
    assert [int(row["pair_id"]) for row in rows] == list(range(1, 12 * 4 + 1))
    for row in rows:
        assert sha256_file(dataset / "ready" / row["original"]) == row["original_sha256"]
        assert sha256_file(dataset / "ready" / row["faulty"]) == row["faulty_sha256"]
    assert {p.name for p in (dataset / "ready" / "faulty").iterdir()} == {f"{row['pair_id']}.png" for row in rows}


def test_faults_are_recorded_with_value_and_unit(dataset: Path) -> None:
    rows = pairs_of(dataset / "ready")
    for row in rows:
        faults = json.loads(row["faults"])
        assert len(faults) == int(row["n_faults"]) <= 5
        for fault in faults:
            assert FAULTS[fault["name"]].contains(fault["value"])
            assert fault["unit"] == FAULTS[fault["name"]].unit
        if any(fault["name"] == "jpeg" for fault in faults):
            assert faults[-1]["name"] == "jpeg"
    assert len({int(row["n_faults"]) for row in rows}) >= 5


def test_clean_pairs_have_their_share_in_every_split_and_equal_originals(dataset: Path) -> None:
    rows = pairs_of(dataset / "ready")
    for split in ("train", "val", "test"):
        mine = [row for row in rows if row["split"] == split]
        assert sum(row["n_faults"] == "0" for row in mine) == len(mine) / 4
    for row in rows:
        original, faulty = (load_rgb8(dataset / "ready" / row[key]) for key in ("original", "faulty"))
        assert np.array_equal(original, faulty) == (row["n_faults"] == "0")


def test_measures_are_those_of_the_files(dataset: Path) -> None:
    for row in pairs_of(dataset / "ready")[::5]:
        original, faulty = (load_batch([dataset / "ready" / row[key]]) for key in ("original", "faulty"))
        assert float(row["delta_e"]) == pytest.approx(delta_e(faulty, original).item(), abs=1e-3)
        assert float(row["psnr"]) == pytest.approx(psnr(faulty, original).item(), abs=1e-3)


def test_only_the_kinds_that_were_asked_for_happen(dataset: Path, tmp_path: Path) -> None:
    few = DEGRADE.model_copy(update={"kinds": ("exposure", "contrast")})
    degrade(dataset / "resized", dataset / "scored", tmp_path / "ready", few, 0)
    rows = pairs_of(tmp_path / "ready")
    found = {fault["name"] for row in rows for fault in json.loads(row["faults"])}
    assert found == {"exposure", "contrast"}
    limits = GateLimits(RESIZE.long_edge, few.faults_max, few.clean_share, few.kinds)
    kinds = retoucher_gate(tmp_path / "ready", limits).tables["kinds"]
    assert sorted(kinds["kind"]) == ["contrast", "exposure"]
    assert (kinds["deviation"] == 0).all()


def test_monochrome_photos_never_get_a_saturation_fault(dataset: Path) -> None:
    grey = {i["id"] for i in document(dataset)["images"] if i["statistics"]["saturation_mean"] < 0.01}
    assert len(grey) == 3
    for row in pairs_of(dataset / "ready"):
        if int(row["image_id"]) in grey:
            assert '"saturation"' not in row["faults"]


@pytest.mark.parametrize("writers", [1, 7])
def test_two_runs_are_equal_whatever_the_number_of_writers(dataset: Path, tmp_path: Path, writers: int) -> None:
    params = DEGRADE.model_copy(update={"writers": writers})
    degrade(dataset / "resized", dataset / "scored", tmp_path / "ready", params, seed=0)
    assert tree_bytes(tmp_path / "ready") == tree_bytes(dataset / "ready")


def test_another_seed_draws_other_faults(dataset: Path, tmp_path: Path) -> None:
    degrade(dataset / "resized", dataset / "scored", tmp_path / "ready", DEGRADE, seed=1)
    ours, theirs = pairs_of(tmp_path / "ready"), pairs_of(dataset / "ready")
    assert all(a["faults"] != b["faults"] for a, b in zip(ours, theirs, strict=True) if a["n_faults"] != "0")


def test_faults_of_a_photo_do_not_depend_on_the_others(dataset: Path, tmp_path: Path) -> None:
    few = document(dataset)
    few["images"] = few["images"][4:7]
    kept = {image["id"] for image in few["images"]}
    few["annotations"] = [row for row in few["annotations"] if row["image_id"] in kept]
    atomic_write_json(tmp_path / "scored" / "annotations.json", few)
    degrade(dataset / "resized", tmp_path / "scored", tmp_path / "ready", DEGRADE, seed=0)

    def by_seed(folder: Path) -> dict[str, tuple[str, str]]:
        return {row["seed"]: (row["faults"], row["n_faults"]) for row in pairs_of(folder)}

    everyone = by_seed(dataset / "ready")
    found = {seed: faults for seed, faults in by_seed(tmp_path / "ready").items() if faults[1] != "0"}
    assert len(found) == 9
    assert all(everyone[seed] == faults for seed, faults in found.items())


def test_black_photos_get_faults_that_show(dataset: Path, tmp_path: Path) -> None:
    from PIL import Image

    black = copy.deepcopy(document(dataset))
    (tmp_path / "resized" / "photos").mkdir(parents=True)
    for image in black["images"]:
        file = tmp_path / "resized" / image["file_name"]
        Image.new("RGB", (image["width"], image["height"])).save(file)
        # Each with a hash of its own: it is the key of the photo's randomness.
        image["statistics"]["saturation_mean"] = 0.0
    atomic_write_json(tmp_path / "scored" / "annotations.json", black)
    degrade(tmp_path / "resized", tmp_path / "scored", tmp_path / "ready", DEGRADE, seed=0)
    assert all(float(row["delta_e"]) > 0 for row in pairs_of(tmp_path / "ready") if row["n_faults"] != "0")


@given(
    st.integers(1, 40),
    st.integers(1, 8),
    st.floats(0, 0.9),
    st.lists(st.sampled_from(["train", "val", "test"]), min_size=40, max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_plan_keeps_the_share_of_clean_pairs(photos: int, draws: int, clean_share: float, splits: list[str]) -> None:
    images = [{"id": i + 1, "split": splits[i]} for i in range(photos)]
    plan = plan_pairs(
        {
            "images": images,
            "annotations": [{"image_id": i + 1, "category_id": 1} for i in range(photos)],
            "categories": [{"id": 1, "name": "any"}],
        },
        draws,
        clean_share,
    )
    assert [pair.pair_id for pair in plan] == list(range(1, len(plan) + 1))
    assert len({(pair.image["id"], pair.draw) for pair in plan}) == len(plan)
    assert Counter(pair.image["id"] for pair in plan if pair.faulty) == dict.fromkeys(range(1, photos + 1), draws)
    for split in set(splits[:photos]):
        mine = [pair for pair in plan if pair.image["split"] == split]
        faulty = sum(pair.faulty for pair in mine)
        assert abs(len(mine) - faulty - faulty * clean_share / (1 - clean_share)) <= 0.5 + 1e-6
