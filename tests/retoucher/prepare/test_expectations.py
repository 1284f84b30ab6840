from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

import great_expectations as gx
import numpy as np
import pandas as pd
import pytest
from great_expectations.data_context.types.base import ProgressBarsConfig

from tests.retoucher.prepare.pictures import DEGRADE, RESIZE
from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.files import sha256_file
from vernissage.core.images import load_rgb8, save_png
from vernissage.pipeline.gates import run_gate
from vernissage.retoucher.prepare.expectations import (
    GateLimits,
    expectations,
    gate_tables,
    look_at_files,
    read_pairs,
    retoucher_gate,
)
from vernissage.retoucher.prepare.tables import PAIR_COLUMNS

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = GateLimits(RESIZE.long_edge, DEGRADE.faults_max, DEGRADE.clean_share)
Damage = Callable[[pd.DataFrame, pd.DataFrame], None]


@pytest.fixture(scope="module")
def pairs(dataset: Path) -> pd.DataFrame:
    return read_pairs(dataset / "ready")


@pytest.fixture(scope="module")
def files(dataset: Path, pairs: pd.DataFrame) -> pd.DataFrame:
    return look_at_files(dataset / "ready", pairs)


@pytest.fixture(scope="module")
def failed(pairs: pd.DataFrame, files: pd.DataFrame) -> Callable[[dict[str, pd.DataFrame]], list[str]]:
    """The meanings of what fails.

    Expectations about columns that are as in the sound dataset are not asked again: they hold there, which
    `test_a_sound_dataset_passes` sees to.
    """
    sound = gate_tables(pairs, files)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset("table")
    whole = asset.add_batch_definition_whole_dataframe("all rows")

    def check(tables: dict[str, pd.DataFrame]) -> list[str]:
        found = []
        for item in expectations(LIMITS, len(tables["pairs"])):
            table = tables[item.table]
            columns = [getattr(item.expectation, key, None) for key in ("column", "column_A", "column_B")]
            if all(table[column].equals(sound[item.table][column]) for column in columns if column):
                continue
            if not whole.get_batch({"dataframe": table}).validate(item.expectation).success:
                found.append(item.meaning)
        return found

    return check


def test_a_sound_dataset_passes(dataset: Path) -> None:
    gate = retoucher_gate(dataset / "ready", LIMITS)
    result = run_gate(gate)
    assert result.passed, result.failed_findings
    assert len(result.findings) == len(gate.expectations)
    # An expectation about a column of nothing would pass whatever happens.
    for name in ("pairs", "groups", "originals", "splits", "categories", "faults", "kinds", "dataset"):
        assert len(gate.tables[name]) > 0
    full = gate.tables["pairs"]
    for column in ("original_matches", "decodes", "size_matches", "clean_is_equal", "faulty_delta_e", "clean_delta_e"):
        assert full[column].notna().any(), column


def _cell(column: str, value: object, row: int = 0) -> Damage:
    def damage(pairs: pd.DataFrame, files: pd.DataFrame) -> None:
        pairs.loc[row, column] = value

    return damage


def _file(column: str, value: object) -> Damage:
    def damage(pairs: pd.DataFrame, files: pd.DataFrame) -> None:
        files.loc[0, column] = value

    return damage


def _fault(key: str, value: object) -> Damage:
    def damage(pairs: pd.DataFrame, files: pd.DataFrame) -> None:
        faults = json.loads(pairs.loc[0, "faults"])
        faults[0][key] = value
        pairs.loc[0, "faults"] = json.dumps(faults)

    return damage


def _repeat_a_fault(pairs: pd.DataFrame, files: pd.DataFrame) -> None:
    row = int(pairs.index[pairs["n_faults"] == 1][0])
    pairs.loc[row, "faults"] = json.dumps(2 * json.loads(pairs.loc[row, "faults"]))
    pairs.loc[row, "n_faults"] = 2


def _too_many_faults(pairs: pd.DataFrame, files: pd.DataFrame) -> None:
    kinds = {"exposure": 1, "tint": 0.2, "gamma": 0.7, "noise": 0.02, "blur": 0.005, "contrast": 0.6}
    pairs.loc[0, "faults"] = json.dumps([{"name": n, "value": v, "unit": ""} for n, v in kinds.items()])
    pairs.loc[0, "n_faults"] = len(kinds)


def _leak_a_group(pairs: pd.DataFrame, files: pd.DataFrame) -> None:
    pairs.loc[pairs["split"] == "test", "group"] = pairs.loc[pairs["split"] == "train", "group"].iloc[0]


def _leak_an_original(pairs: pd.DataFrame, files: pd.DataFrame) -> None:
    train = pairs.loc[pairs["split"] == "train", "original_sha256"].iloc[0]
    pairs.loc[pairs.index[pairs["split"] == "test"][0], "original_sha256"] = train


def _lose_a_split(pairs: pd.DataFrame, files: pd.DataFrame) -> None:
    pairs.loc[pairs["split"] == "val", "split"] = "train"


def _clean_row(column: str, value: object) -> Damage:
    def damage(pairs: pd.DataFrame, files: pd.DataFrame) -> None:
        pairs.loc[pairs.index[pairs["n_faults"] == 0][0], column] = value

    return damage


def _one_category(pairs: pd.DataFrame, files: pd.DataFrame) -> None:
    pairs["category"] = "hills"
    pairs.loc[0, "category"] = "rooms"


def _one_kind(pairs: pd.DataFrame, files: pd.DataFrame) -> None:
    for row in pairs.index[pairs["n_faults"] > 0]:
        pairs.loc[row, "faults"] = json.dumps([{"name": "blur", "value": 0.005, "unit": ""}])
        pairs.loc[row, "n_faults"] = 1


def _hardly_any_clean(pairs: pd.DataFrame, files: pd.DataFrame) -> None:
    rows = pairs.index[pairs["n_faults"] == 0][1:]
    kinds = ["exposure", "temperature", "tint", "gamma", "noise"]
    values = {"exposure": 1, "temperature": 0.3, "tint": 0.2, "gamma": 0.7, "noise": 0.02}
    for place, row in enumerate(rows):
        name = kinds[place % len(kinds)]
        pairs.loc[row, "faults"] = json.dumps([{"name": name, "value": values[name], "unit": ""}])
        pairs.loc[row, "n_faults"] = 1
        pairs.loc[row, "delta_e"] = 2.0


BREAKS: dict[str, tuple[str, Damage]] = {
    "empty text": ("every cell is filled with a value of its type", _cell("category", "")),
    "no score": ("every cell is filled with a value of its type", _cell("score", np.nan)),
    "id twice": ("pair numbers are unique", _cell("pair_id", 2)),
    "id 0": ("pair numbers run from 1 to the number of pairs", _cell("pair_id", 0)),
    "id too high": ("pair numbers run from 1 to the number of pairs", _cell("pair_id", 4711)),
    "score 10.5": ("scores lie between 0 and 10", _cell("score", 10.5)),
    "score -1": ("scores lie between 0 and 10", _cell("score", -1.0)),
    "width 0": ("widths are positive", _cell("width", 0)),
    "height -3": ("heights are positive", _cell("height", -3)),
    "too large": ("no photo is larger than resize.long_edge", _cell("width", 4000)),
    "no original": ("the original is on disk", _file("original_exists", False)),
    "no faulty": ("the faulty copy is on disk", _file("faulty_exists", False)),
    "original changed": ("the original has the hash that was written down", _file("original_matches", False)),
    "faulty changed": ("the faulty copy has the hash that was written down", _file("faulty_matches", False)),
    "cannot be decoded": ("both pictures can be decoded", _file("decodes", False)),
    "other size": ("both pictures have the width and height that were written down", _file("size_matches", False)),
    "clean differs": ("a copy without faults equals its original, pixel by pixel", _file("clean_is_equal", False)),
    "faults are no list": ("the list of faults can be read", _cell("faults", "exposure")),
    "fault without unit": ("the list of faults can be read", _cell("faults", '[{"name": "blur", "value": 1}]')),
    "too many faults": ("no more faults than degrade.faults_max", _too_many_faults),
    "wrong count": ("the number of faults is that of the list", _cell("faults", "[]")),
    "fault twice": ("no fault happens twice to one copy", _repeat_a_fault),
    "unknown fault": ("every kind of fault is known", _fault("name", "glare")),
    "amount out of range": ("every fault's amount lies in the range of its kind", _fault("value", 1234.5)),
    "fault without effect": ("a faulty copy differs from its original", _cell("delta_e", 0.0)),
    "clean with an effect": ("a clean copy does not", _clean_row("delta_e", 0.5)),
    "a split is empty": ("every split has pairs", _lose_a_split),
    "group in two splits": ("no group of related photos is in two splits", _leak_a_group),
    "original in two splits": ("no original is in two splits", _leak_an_original),
    "one category": ("no category outweighs the others", _one_category),
    "one kind of fault": ("every kind of fault has its fair share", _one_kind),
    "hardly any clean": ("the share of clean pairs is about degrade.clean_share", _hardly_any_clean),
}


@pytest.mark.parametrize(("meaning", "damage"), BREAKS.values(), ids=BREAKS)
def test_one_damage_fails_exactly_one_expectation(pairs, files, failed, meaning: str, damage: Damage) -> None:
    pairs, files = pairs.copy(deep=True), files.copy(deep=True)
    damage(pairs, files)
    assert failed(gate_tables(pairs, files)) == [meaning]


def test_an_unknown_split_is_found(pairs, files, failed) -> None:
    pairs = pairs.copy(deep=True)
    group = pairs.loc[0, "group"]
    pairs.loc[pairs["group"] == group, "split"] = "holdout"
    assert failed(gate_tables(pairs, files)) == ["splits are train, val and test"]


def test_every_expectation_has_a_damage_that_it_finds() -> None:
    tested = {meaning for meaning, _ in BREAKS.values()} | {"splits are train, val and test"}
    assert tested == {item.meaning for item in expectations(LIMITS, 10)}


def test_one_category_alone_is_no_imbalance(pairs, files, failed) -> None:
    assert failed(gate_tables(pairs.assign(category="photos"), files)) == []


def _run_on_disk(dataset: Path, tmp_path: Path, change: Callable[[Path], None]) -> list[str]:
    ready = tmp_path / "ready"
    shutil.copytree(dataset / "ready", ready)
    change(ready)
    return [finding.meaning for finding in run_gate(retoucher_gate(ready, LIMITS)).failed_findings]


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def _rewrite(ready: Path, old: str, new: str) -> None:
    text = (ready / "pairs.csv").read_text()
    assert old in text
    (ready / "pairs.csv").write_text(text.replace(old, new))


def _garble(ready: Path) -> None:
    before = sha256_file(ready / "faulty" / "1.png")
    (ready / "faulty" / "1.png").write_bytes(b"no picture")
    _rewrite(ready, before, sha256_file(ready / "faulty" / "1.png"))


def _crop(ready: Path) -> None:
    path = ready / "faulty" / "1.png"
    before = sha256_file(path)
    save_png(path, np.ascontiguousarray(load_rgb8(path)[:-1]))
    _rewrite(ready, before, sha256_file(path))


def _touch_a_clean_copy(ready: Path) -> None:
    path = ready / "faulty" / "4.png"
    before, pixels = sha256_file(path), load_rgb8(path).copy()
    pixels[0, 0, 0] ^= 1
    save_png(path, pixels)
    lines = (ready / "pairs.csv").read_text().splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if line.startswith("4,"))
    assert lines[place].count(before) == 2
    head, _, tail = lines[place].rpartition(before)
    lines[place] = head + sha256_file(path) + tail
    (ready / "pairs.csv").write_text("".join(lines))


@pytest.mark.parametrize(
    ("change", "meaning"),
    [
        (lambda ready: (ready / "faulty" / "2.png").unlink(), "the faulty copy is on disk"),
        (lambda ready: (ready / "original" / "2.png").unlink(), "the original is on disk"),
        (lambda ready: _append(ready / "faulty" / "2.png"), "the faulty copy has the hash that was written down"),
        (lambda ready: _append(ready / "original" / "2.png"), "the original has the hash that was written down"),
        (_garble, "both pictures can be decoded"),
        (_crop, "both pictures have the width and height that were written down"),
        (_touch_a_clean_copy, "a copy without faults equals its original, pixel by pixel"),
    ],
    ids=["faulty gone", "original gone", "faulty changed", "original changed", "garbled", "cropped", "clean touched"],
)
def test_damage_on_disk_is_found(dataset: Path, tmp_path: Path, change, meaning: str) -> None:
    assert _run_on_disk(dataset, tmp_path, change) == [meaning]


def test_a_text_among_the_numbers_is_found(dataset: Path, tmp_path: Path) -> None:
    def change(ready: Path) -> None:
        lines = (ready / "pairs.csv").read_text().splitlines()
        lines[1] = lines[1].rpartition(",")[0] + ",good"
        (ready / "pairs.csv").write_text("\n".join(lines) + "\n")

    assert _run_on_disk(dataset, tmp_path, change) == ["every cell is filled with a value of its type"]


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact):
        retoucher_gate(tmp_path, LIMITS)
    (tmp_path / "pairs.csv").write_text(",".join(PAIR_COLUMNS) + "\n")
    with pytest.raises(CorruptArtifact, match="lists no pairs"):
        retoucher_gate(tmp_path, LIMITS)
