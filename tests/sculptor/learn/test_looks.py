"""Looks at a training: every epoch the same questions, and known answers to them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.sculptor.learn.small import FIRSTS, small_sculptor, small_training
from vernissage.sculptor.domain.anatomy import judge_anatomy
from vernissage.sculptor.domain.roles import ROLES, Role
from vernissage.sculptor.learn.examples import Examples, examples_of
from vernissage.sculptor.learn.looks import GENERATIONS, Watcher, measure_buckets
from vernissage.sculptor.learn.noise import MASK_BUCKETS
from vernissage.sculptor.learn.sculpting import sculpt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.learn.blueprints import First
    from vernissage.sculptor.learn.model import Sculptor

COLUMNS = {"masked_loss", "masked_accuracy", "wood_loss", "rest_loss", "legacy_loss", "legacy_accuracy"}


@pytest.fixture(scope="module")
def held_out(trees: Dataset) -> Dataset:
    return trees.part("val", "normal")


def examples(held_out: Dataset, first: First = "plan") -> Examples:
    return examples_of(held_out, first, captions=1, seed=0)


def that_says(shares: Mapping[Any, float]) -> Sculptor:
    """A sculptor that gives every voxel these shares, whatever it sees."""
    sculptor = small_sculptor("none")
    head = sculptor.network.head
    head.weight.zero_()
    assert head.bias is not None
    head.bias.copy_(torch.tensor([math.log(shares.get(role, 1e-12)) for role in range(ROLES)]))
    return sculptor


@pytest.mark.parametrize("first", FIRSTS)
def test_there_is_a_row_for_every_bucket(first: First, held_out: Dataset) -> None:
    found = measure_buckets(small_sculptor(first), examples(held_out, first), [0, 2], seed=1)
    assert [row["mask_ratio"] for row in found] == [f"{low:g} to {high:g}" for low, high in pairwise(MASK_BUCKETS)]
    for row in found:
        assert row.keys() >= COLUMNS
        assert all(math.isfinite(row[name]) for name in COLUMNS)
        assert all(0 <= row[name] <= 1 for name in COLUMNS if name.endswith("accuracy"))
        assert all(row[name] >= 0 for name in COLUMNS)


def test_the_same_seed_asks_the_same(held_out: Dataset) -> None:
    sculptor, asked = small_sculptor(), examples(held_out)
    one, again, other = (measure_buckets(sculptor, asked, [0, 1, 2], seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_a_network_that_knows_nothing_loses_what_guessing_costs(held_out: Dataset) -> None:
    """Wood is guessed among nine roles, and so is every other block."""
    for row in measure_buckets(
        that_says(dict.fromkeys(range(ROLES), 1 / ROLES)), examples(held_out, "none"), [0, 1], 0
    ):
        assert row["masked_loss"] == pytest.approx(math.log(ROLES), rel=1e-4)
        assert row["wood_loss"] == pytest.approx(math.log(ROLES), rel=1e-4)
        assert row["rest_loss"] == pytest.approx(math.log(ROLES), rel=1e-4)


def test_who_says_air_everywhere_is_right_only_by_the_legacy_measure(held_out: Dataset) -> None:
    for row in measure_buckets(that_says({Role.AIR: 1.0}), examples(held_out, "none"), [0, 1, 2], 0):
        assert row["masked_accuracy"] == 0
        assert row["legacy_accuracy"] > 0.7
        assert row["masked_loss"] > 20
        assert row["legacy_loss"] < row["masked_loss"] / 4


def test_who_knows_leaves_from_wood_is_right_on_either(held_out: Dataset) -> None:
    """Wood counts where wood is decided, leaves where the rest is: two constants are each right on one of them."""
    asked = examples(held_out, "none")
    wood, leaves = (
        [row["masked_accuracy"] for row in measure_buckets(that_says({role: 1.0}), asked, [0, 1, 2], 0)]
        for role in (Role.WOOD, Role.LEAF)
    )
    hanging = 1 - (np.array(wood) + leaves)
    assert min(wood) > 0
    assert min(leaves) > 0
    assert (hanging >= -1e-9).all()
    assert hanging.max() < 0.3


def test_a_look_has_the_columns_of_a_table_over_epochs(held_out: Dataset, tmp_path: Path) -> None:
    settings = small_training(generations=3, validation=2)
    watcher = Watcher(examples(held_out), held_out, settings, tmp_path)
    look = watcher.look(small_sculptor(), 4, {"lr": 0.5, "loss": 2.0})
    assert look.row["epoch"] == look.epoch == 4
    assert look.row["built"] == 3
    assert (look.row["lr"], look.row["loss"]) == (0.5, 2.0)
    assert look.row["objective"] == look.objective
    anatomy = {"connectivity", "whole", "one_trunk", "leaf_survival", "cast_success", "voxels"}
    assert look.row.keys() >= {"masked_loss", "masked_accuracy", "legacy_loss", "legacy_accuracy", *anatomy}
    assert len(look.buckets) == len(MASK_BUCKETS) - 1
    assert all(bucket["epoch"] == 4 for bucket in look.buckets)
    assert look.row["masked_loss"] == pytest.approx(np.mean([bucket["masked_loss"] for bucket in look.buckets]))
    assert "epoch 4" in look.said()
    assert "of 3 built" in look.said()


def test_every_look_asks_for_the_same_structures(held_out: Dataset, tmp_path: Path) -> None:
    """The same prompts, sizes and seeds: what changes from epoch to epoch is the network alone."""
    settings, sculptor = small_training(generations=3), small_sculptor()
    watchers = [Watcher(examples(held_out), held_out, settings, tmp_path) for _ in range(2)]
    assert watchers[0].requests == watchers[1].requests
    one, again = (watcher.look(sculptor, 1, {}) for watcher in watchers)
    assert one.row == again.row
    assert one.buckets == again.buckets
    assert len({request.seed for request in watchers[0].requests}) == 3
    assert all(request.prompt for request in watchers[0].requests)


def test_what_is_told_of_the_structures_is_measured_on_them(held_out: Dataset, tmp_path: Path) -> None:
    settings, sculptor = small_training(generations=4), small_sculptor()
    watcher = Watcher(examples(held_out), held_out, settings, tmp_path)
    look = watcher.look(sculptor, 1, {})
    built = sculpt(sculptor, watcher.requests, settings.building, plan_guidance=settings.plan_guidance)
    found = [judge_anatomy(sculpture.roles) for sculpture in built]
    assert look.row["connectivity"] == pytest.approx(np.mean([one.connectivity for one in found]))
    assert look.row["voxels"] == pytest.approx(np.mean([one.voxels for one in found]))
    assert look.row["whole"] == pytest.approx(np.mean([one.whole for one in found]))


def test_of_two_that_build_nothing_sound_the_one_that_guesses_better_is_better(
    held_out: Dataset, tmp_path: Path
) -> None:
    settings = small_training("none", generations=2)
    watcher = Watcher(examples(held_out, "none"), held_out, settings, tmp_path)
    looks = [watcher.look(that_says(shares), 1, {}) for shares in ({Role.AIR: 1.0}, {Role.AIR: 0.9, Role.LEAF: 0.1})]
    assert looks[0].objective < looks[1].objective


def test_there_is_a_sheet_of_pictures(held_out: Dataset, tmp_path: Path) -> None:
    Watcher(examples(held_out), held_out, small_training(generations=3), tmp_path).look(small_sculptor(), 12, {})
    (sheet,) = (tmp_path / GENERATIONS).iterdir()
    assert sheet.name == "epoch-0012.png"
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 60
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10


def test_more_is_not_asked_for_than_there_is(held_out: Dataset, tmp_path: Path) -> None:
    watcher = Watcher(examples(held_out), held_out, small_training(validation=99, generations=20), tmp_path)
    assert watcher.rows == list(range(len(held_out)))
    assert len(watcher.requests) == 20


def test_a_tree_without_captions_is_built_without_a_prompt(held_out: Dataset, tmp_path: Path) -> None:
    silent = examples_of(held_out, "plan", captions=0, seed=0)
    watcher = Watcher(silent, held_out, small_training(generations=2), tmp_path)
    assert [request.prompt for request in watcher.requests] == ["", ""]
    assert watcher.look(small_sculptor(), 1, {}).row["built"] == 2
