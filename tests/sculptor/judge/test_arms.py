"""Every arm answers the same requests, and what it makes of one does not depend on the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.sculptor.judge.small import dataset, planned, sculptor
from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.attributes import ATTRIBUTES, Attributes
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.judge.adherence import adherence
from vernissage.sculptor.judge.arms import (
    BenchRequest,
    Built,
    agreements,
    all_air,
    attribute_codes,
    evenly,
    grower_arm,
    joined,
    ladder,
    retrieval_arm,
    sculptor_arm,
    steps_arms,
)
from vernissage.sculptor.learn.building import Building

TALL_OAK = BenchRequest("tall oak tree", Attributes(species="oak", height="tall"), SIZES["normal"], 1)


def test_all_air_is_empty() -> None:
    built = all_air().build([TALL_OAK])
    assert built.grids[0].shape == TALL_OAK.size.shape
    assert not built.grids[0].any()


def test_the_grower_makes_what_was_said() -> None:
    built = grower_arm(64).build([TALL_OAK])
    assert adherence(TALL_OAK.said, built.grids[0], built.species[0], TALL_OAK.size) == {
        "species": True,
        "height": True,
    }


def test_agreements_count_what_was_said() -> None:
    codes = attribute_codes([Attributes("oak", "tall"), Attributes("birch", "tall"), Attributes(), Attributes("oak")])
    assert codes.shape == (4, len(ATTRIBUTES))
    assert agreements(codes, Attributes(species="oak", height="tall")).tolist() == [2, 1, 0, 1]
    assert agreements(codes, Attributes()).tolist() == [0, 0, 0, 0]


def test_retrieval_takes_a_training_structure_that_agrees_most() -> None:
    training = dataset().part("train")
    arm = retrieval_arm(training)
    codes = attribute_codes(training.part("train", "normal").attributes())
    for request in planned():
        grid = arm.build([request]).grids[0]
        places = [place for place, each in enumerate(training.grids) if each is grid]
        found = agreements(attribute_codes(training.attributes())[places], request.said)
        assert found.max() == agreements(codes, request.said).max()


def test_retrieval_chooses_by_the_seed_among_equals() -> None:
    arm = retrieval_arm(dataset().part("train"))
    anything = [BenchRequest("tree", Attributes(), SIZES["normal"], seed) for seed in range(8)]
    again = arm.build(anything)
    assert all(one is other for one, other in zip(arm.build(anything).grids, again.grids, strict=True))
    assert len({id(grid) for grid in again.grids}) > 1


def test_retrieval_says_which_size_is_not_there() -> None:
    with pytest.raises(BadInput, match="huge"):
        retrieval_arm(dataset().part("train")).build([replace(TALL_OAK, size=SIZES["huge"])])


def test_the_ladder_builds_in_the_plans_that_it_is_given() -> None:
    arms = ladder(sculptor(), Building(steps=2))
    names = [arm.name for arm in arms]
    assert names[:5] == ["soft mixture 2", "soft mixture 100", "ancestral 2", "ancestral 128", "confidence 2"]
    assert names[5:] == [
        "+ wood first",
        "+ even schedule",
        "+ confidence order",
        "+ doubt",
        "ours, random order",
        "ours, outward order",
    ]
    for arm in arms:
        if arm.evaluations > 10:
            continue
        built = arm.build(planned()[:1])
        assert built.plans == (planned()[0].plan,)
        assert built.evaluations[0] <= arm.evaluations


def test_what_is_built_does_not_depend_on_the_others() -> None:
    arms = [*ladder(sculptor(), Building(steps=2)), sculptor_arm("ours", sculptor(), Building(steps=2))]
    for arm in arms:
        if arm.evaluations > 10:
            continue
        together = arm.build(planned())
        alone = arm.build(planned()[1:2])
        assert np.mean(together.grids[1] != alone.grids[0]) < 0.01, arm.name


def test_steps_arms_look_as_often_as_they_say() -> None:
    arms = steps_arms(sculptor(), Building(), (1, 4))
    assert {count: arm.build(planned()[:1]).evaluations[0] for count, arm in arms.items()} == {1: 3, 4: 7}


def test_joined_keeps_the_order() -> None:
    grid = np.zeros((1, 1, 1), np.uint8)
    one, two = (Built((grid,), (name,), evenly(2.0, 1), (1,)) for name in ("oak", "birch"))
    assert joined([one, two]).species == ("oak", "birch")
    assert joined([one, two]).seconds == (2.0, 2.0)
    assert evenly(3.0, 0) == ()
