"""The sculptor's sections: what the shipped file says is taken, what makes no sculptor is refused by its key."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from vernissage.core.errors import BadParams
from vernissage.core.params import Params, load_params
from vernissage.core.sculptor_params import SculptorSection

SHIPPED = Path(__file__).parents[2] / "params.yaml"


def loaded(*overrides: str) -> Params:
    return load_params(SHIPPED, overrides=overrides)


def test_counts_and_shares_are_by_the_name_of_a_size() -> None:
    params = loaded("structures.test={normal: 3, big: 0, huge: 1}", "train.sculptor.mix={normal: 1, big: 0.5, huge: 0}")
    assert params.structures.test.by_name() == {"normal": 3, "big": 0, "huge": 1}
    assert params.train.sculptor.mix.by_name() == {"normal": 1.0, "big": 0.5, "huge": 0.0}


def test_lists_of_the_file_are_tuples() -> None:
    section = loaded("train.sculptor.channels=[16,32]", "train.sculptor.attention_levels=[]").train.sculptor
    assert section.channels == (16, 32)
    assert section.attention_levels == ()


@pytest.mark.parametrize("first", ["plan", "coarse", "none"])
def test_what_comes_first_is_one_of_three(first: str) -> None:
    assert loaded(f"sculptor.first={first}").sculptor.first == first


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("structures.train.normal=-1", "structures.train.normal"),
        ("structures.train.tiny=1", "structures.train.tiny"),
        ("structures.val_share=1", "structures.val_share"),
        ("sculptor.first=voxels", "sculptor.first"),
        ("sculptor.steps=0", "sculptor.steps"),
        ("sculptor.order=alphabetical", "sculptor.order"),
        ("sculptor.doubt=1", "sculptor.doubt"),
        ("sculptor.guidance=.nan", "sculptor.guidance"),
        ("sculptor.plan_guidance=-1", "sculptor.plan_guidance"),
        ("train.sculptor.channels=[]", "train.sculptor.channels"),
        ("train.sculptor.channels=[12]", "train.sculptor.channels"),
        ("train.sculptor.attention_levels=[5]", "train.sculptor.attention_levels"),
        ("train.sculptor.fine=12", "train.sculptor.fine"),
        ("train.sculptor.epochs=1.5", "train.sculptor.epochs"),
        ("train.sculptor.lr_scale=0", "train.sculptor.lr_scale"),
        ("train.sculptor.ema=1", "train.sculptor.ema"),
        ("train.sculptor.precision=float16", "train.sculptor.precision"),
        ("train.sculptor.mix.normal=2", "train.sculptor.mix.normal"),
        ("benchmark.sculptor.rivals=[brick]", "benchmark.sculptor.rivals"),
        ("robustness.sculptor.structures=1", "robustness.sculptor.structures"),
        ("sculptor.stepps=3", "sculptor.stepps"),
    ],
)
def test_what_makes_no_sculptor_is_refused_by_its_key(override: str, key: str) -> None:
    with pytest.raises(BadParams) as caught:
        loaded(override)
    assert key in str(caught.value)


def test_every_order_of_the_file_is_one_that_builds() -> None:
    from vernissage.sculptor.learn.building import Order

    annotation = SculptorSection.model_fields["order"].annotation
    assert set(get_args(annotation)) <= set(get_args(Order))


def test_the_least_and_the_most_of_the_file_can_be_built_with() -> None:
    """Nothing that params.yaml allows is refused later, hours into a pipeline."""
    from vernissage.sculptor.system import building_of, training_settings

    for overrides in (
        ["sculptor.steps=1", "sculptor.edits=0", "sculptor.doubt=0", "sculptor.guidance=0"],
        ["sculptor.steps=4096", "sculptor.edits=64", "sculptor.doubt=0.99", "sculptor.guidance=100"],
    ):
        building = building_of(loaded(*overrides))
        assert building.steps in {1, 4096}
        assert sum(steps for _, steps, _ in building.levels) == building.steps
    for wrong in ("0", "0.99"):
        assert training_settings(loaded(f"train.sculptor.wrong={wrong}")).corruption.wrong == float(wrong)
