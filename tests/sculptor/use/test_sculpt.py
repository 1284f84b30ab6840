"""Structures from prompts: the same for the same seed, with what the user fixed, and with true words about them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sculptor.use.models import airy, noisy
from vernissage.core.errors import BadInput, BadParams, CorruptArtifact
from vernissage.sculptor.domain.anatomy import judge_anatomy
from vernissage.sculptor.domain.blocks import SPECIES_PALETTES, structure_to_roles
from vernissage.sculptor.domain.language import read_prompt
from vernissage.sculptor.domain.plan import SPECIES
from vernissage.sculptor.domain.roles import MASK, Role
from vernissage.sculptor.domain.sizes import Size
from vernissage.sculptor.domain.structure import AIR_STATE, Structure
from vernissage.sculptor.learn.building import Building
from vernissage.sculptor.use.model import SculptorModel
from vernissage.sculptor.use.sculpt import MOST_FRAMES, Sculpted, Wishes, sculpt_each, sculpt_prompt

TINY = Size(8, 10, 8)
WORDS = ["tall", "short", "oak", "no", "thick", "12", "blocks", "high", "дерево", "木", "🌳"]
KEPT = (AIR_STATE, "minecraft:cherry_log[axis=x]", "minecraft:chest[facing=north]")


def one(prompt: str = "tall oak", **wishes: Any) -> Sculpted:
    return sculpt_prompt(noisy(), prompt, **{"size": TINY, "steps": 2, **wishes})[0]


def kept_blocks() -> Structure:
    blocks = np.zeros(TINY.shape, np.uint16)
    blocks[:4, 2, 6], blocks[9, 0, 0] = 1, 2
    return Structure(blocks, KEPT)


def test_a_structure_depends_on_its_seed_alone() -> None:
    many = sculpt_prompt(noisy(), "tall oak", size=TINY, steps=2, seed=5, count=5)
    assert [sculpted.seed for sculpted in many] == [5, 6, 7, 8, 9]
    assert len({sculpted.roles.tobytes() for sculpted in many}) == 5
    alone = one(seed=8)
    assert alone.structure.same_as(many[3].structure)
    assert {**alone.facts, "asked": 0} == {**many[3].facts, "asked": 0}


def test_what_is_asked_differently_is_built_differently() -> None:
    assert not one(seed=1).structure.same_as(one(seed=2).structure)
    assert not one(seed=1).structure.same_as(one(seed=1, steps=3).structure)


def test_roles_and_blocks_are_the_same_structure_in_the_species_palette() -> None:
    for seed, species in enumerate(("birch", "pine", "dark oak")):
        sculpted = one(seed=seed, plan={"species": species})
        assert sculpted.structure.size == TINY
        assert sculpted.facts["species"] == species
        assert np.array_equal(sculpted.roles != 0, sculpted.structure.solid)
        assert structure_to_roles(sculpted.structure).palette[Role.LEAF_2].startswith("minecraft:")
        wood = SPECIES_PALETTES[species][Role.WOOD]
        assert any(state.startswith(wood) for state in sculpted.facts["blocks"])


def test_a_plan_without_a_palette_takes_the_species_of_the_prompt() -> None:
    assert one("birch", plan={"species": "other"}).facts["species"] == "birch"
    assert one("", plan={"species": "other"}).facts["species"] == "oak"
    assert sculpt_prompt(noisy("none"), "a willow", size=TINY, steps=1)[0].facts["species"] == "willow"


def test_facts_are_true_and_can_be_written_as_json() -> None:
    sculpted = one("tall thick oak, not a pine \ud800", seed=3, repair=True)
    facts = json.loads(json.dumps(sculpted.facts, allow_nan=False).encode())
    assert facts == sculpted.facts
    anatomy = judge_anatomy(sculpted.roles)
    assert (facts["anatomy"]["voxels"], facts["anatomy"]["parts"]) == (anatomy.voxels, anatomy.parts)
    assert sum(facts["blocks"].values()) == anatomy.voxels
    missed = [name for name, value in facts["said"].items() if facts["measured"][name] != value]
    assert sorted(missed) == sorted(facts["missed"])
    assert facts["adherence"] == 1 - len(missed) / len(facts["said"])
    assert facts["said"]["height"] == "tall"
    assert facts["evaluations"] == sum(steps + looks for _, steps, looks in Building(steps=2).levels)
    assert facts["model"] == {"sha256": "0" * 64, "checkpoint": "best", "epoch": None}
    assert list(sculpted.warnings) == facts["warnings"]


def test_what_is_left_out_is_as_in_training() -> None:
    taught = {"building": asdict(Building(steps=5, order="random", guidance=2.0)), "plan_guidance": 1.5}
    model = SculptorModel(noisy().sculptor, facts=taught)
    facts = sculpt_prompt(model, "oak", size=TINY)[0].facts
    assert facts["building"] == taught["building"]
    assert (facts["asked"]["steps"], facts["asked"]["guidance"], facts["asked"]["plan_guidance"]) == (5, 2.0, 1.5)
    other = sculpt_prompt(model, "oak", size=TINY, steps=1, guidance=1.0, plan_guidance=3.0)[0].facts
    assert other["building"] == taught["building"] | {"steps": 1, "guidance": 1.0}
    assert other["asked"]["plan_guidance"] == 3.0


@pytest.mark.parametrize("facts", [{"building": {"stairs": 5}}, {"building": {"steps": 0}}, {"plan_guidance": "1"}])
def test_facts_that_cannot_be_used_are_damage(facts: dict[str, Any]) -> None:
    with pytest.raises(CorruptArtifact, match="train again"):
        sculpt_prompt(SculptorModel(noisy().sculptor, facts=facts), "oak", size=TINY)


def test_nothing_said_is_neither_kept_nor_missed() -> None:
    facts = one("").facts
    assert (facts["said"], facts["missed"], facts["adherence"]) == ({}, [], None)


@settings(max_examples=12)
@given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_any_text_is_a_prompt(text: str) -> None:
    sculpted = one(text, steps=1)
    assert sculpted.prompt == text
    assert set(read_prompt(text).warnings) <= set(sculpted.warnings)


def test_a_prompt_of_two_thousand_words_is_read_in_part() -> None:
    assert any("only the first" in warning for warning in one("oak " * 2000, steps=1).warnings)


def test_the_plan_has_the_values_that_were_fixed() -> None:
    words = {"height": "7", "species": "birch", "trunk": 4, "crown": "flat", "roots": "yes", "crown_base": 2}
    sculpted = one(plan=words, seed=4)
    plan = sculpted.facts["plan"]
    assert (plan["height"], plan["species"], plan["trunk"], plan["crown"]) == (7, "birch", 4, "flat")
    assert (plan["roots"], plan["crown_base"]) == ("yes", 2)
    assert not sculpted.roles[7:].any()
    assert sculpted.warnings == ()


def test_a_number_of_blocks_fixes_the_height() -> None:
    assert one("an oak 6 blocks high").facts["plan"]["height"] == 6
    high = one("an oak 60 blocks high")
    assert high.facts["plan"]["height"] == TINY.height
    assert high.warnings == ("the plan was clamped: height 60 became 10, in a grid of 8x10x8",)
    both = one("an oak 6 blocks high", plan={"height": 8})
    assert both.facts["plan"]["height"] == 8
    assert both.warnings == ("the plan says a height of 8, the prompt 6: the plan holds",)


def test_a_model_without_plans_says_so() -> None:
    model = noisy("none")
    sculpted = sculpt_prompt(model, "an oak 6 blocks high", size=TINY, steps=1)[0]
    assert sculpted.facts["plan"] is None
    assert sculpted.warnings == ("this model draws no plans: 6 blocks high cannot be kept",)
    with pytest.raises(BadInput, match="draws no plans"):
        sculpt_prompt(model, "oak", size=TINY, plan={"height": 3})


def test_a_grid_beyond_the_largest_stays_air() -> None:
    sculpted = one("oak", size=Size(40, 70, 30), steps=1)
    assert sculpted.structure.size == Size(40, 70, 30)
    assert not sculpted.roles[64:].any()
    assert "structures are at most 24x64x24; the rest of the grid stays air" in sculpted.warnings


@pytest.mark.parametrize("size", [Size(1, 1, 1), Size(3, 1, 24), Size(5, 33, 2)])
def test_odd_sizes_are_built(size: Size) -> None:
    assert one(size=size, steps=1).roles.shape == size.shape


def test_kept_blocks_are_there_as_they_were() -> None:
    keep = kept_blocks()
    for repair in (False, True):
        sculpted = one("", keep=keep, repair=repair, seed=2, frames=True)
        there = keep.solid
        states = np.array(sculpted.structure.palette)[sculpted.structure.blocks]
        assert (states[there] == np.array(KEPT)[keep.blocks][there]).all()
        assert (states[~there] != KEPT[2]).all()
        for frame in sculpted.frames:
            assert frame[9, 0, 0] == Role.OTHER
        assert len(sculpted.facts["asked"]["keep"]) == 64
    plan = sculpted.facts["plan"]
    assert (plan["height"], plan["width"], plan["base_z"], plan["base_x"]) == (10, 8, 4, 12)


def test_kept_blocks_beyond_the_plan_are_told_of() -> None:
    sculpted = one(keep=kept_blocks(), plan={"height": 3, "width": 8, "depth": 8})
    assert "2 kept blocks lie outside of the box that was built in" in sculpted.warnings


def test_the_species_of_kept_blocks_holds_where_none_is_said() -> None:
    blocks = np.ones((2, 1, 1), np.uint16)
    keep = Structure(blocks, (AIR_STATE, "minecraft:jungle_log[axis=y]"))
    assert one("a tree", keep=keep).facts["plan"]["species"] == "jungle"
    assert one("a tree", keep=keep, plan={"species": "palm"}).facts["plan"]["species"] == "palm"
    assert one("a tree", keep=keep).warnings == ()


def test_kept_blocks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadInput, match="choose a larger --size"):
        one(keep=Structure(np.ones((11, 1, 1), np.uint16), KEPT))


def test_repair_leaves_one_part_and_says_so() -> None:
    wishes = {"size": TINY, "steps": 2, "plan": {"height": 10, "width": 8, "depth": 8}}
    # The more it leans towards air, the fewer blocks there are; somewhere on the way they fall apart.
    models = [airy(bias) for bias in np.linspace(0.5, 5, 7).tolist()]
    parts = [sculpt_prompt(model, "a tree", **wishes)[0].facts["anatomy"]["parts"] for model in models]
    model = models[int(np.argmax(parts))]
    before = sculpt_prompt(model, "a tree", **wishes)[0]
    after = sculpt_prompt(model, "a tree", repair=True, **wishes)[0]
    assert before.facts["anatomy"]["parts"] == max(parts) > 1
    assert before.facts["repair"] is None
    assert after.facts["anatomy"]["whole"]
    removed = after.facts["repair"]["removed"]
    assert removed == before.facts["anatomy"]["voxels"] - after.facts["anatomy"]["voxels"] > 0
    assert after.warnings[0].startswith(f"repaired: removed {removed} block")


def test_nothing_at_all_is_a_result() -> None:
    sculpted = sculpt_prompt(airy(), "a tall oak", size=TINY, steps=2, repair=True)[0]
    assert sculpted.empty
    assert sculpted.warnings == ("nothing was built",)
    assert sculpted.facts["anatomy"]["voxels"] == 0
    assert sculpted.facts["missed"] == ["species", "height"]
    json.dumps(sculpted.facts, allow_nan=False)


def test_frames_end_in_the_structure() -> None:
    sculpted = one(frames=True, steps=3)
    assert len(sculpted.frames) == sum(steps + looks for _, steps, looks in Building(steps=3).levels)
    assert (sculpted.frames[0] == MASK).any()
    assert np.array_equal(sculpted.frames[-1], sculpted.roles)
    assert one().frames == ()


def test_too_many_steps_are_not_shown() -> None:
    sculpted = one(size=Size(2, 2, 2), steps=MOST_FRAMES + 1, frames=True)
    assert sculpted.frames == ()
    assert sculpted.warnings[-1] == "257 steps are not shown: at most 256 are"


def test_many_are_built_in_chunks() -> None:
    told: list[int] = []
    stream = sculpt_each(noisy(), "oak", Wishes(size=Size(4, 4, 4), count=150, steps=1), done=told.append)
    first = next(stream)
    assert first.seed == 0
    assert sum(told) == 64
    assert [sculpted.seed for sculpted in stream] == list(range(1, 150))
    assert sum(told) == 150


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0},
        {"count": 10_001},
        {"steps": 0},
        {"steps": 5000},
        {"seed": -1},
        {"seed": 2**63},
        {"guidance": float("nan")},
        {"plan_guidance": float("inf")},
        {"size": Size(0, 4, 4)},
        {"size": Size(4, 129, 4)},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadParams, match="expected"):
        one(**wrong)


def test_all_species_but_one_have_a_palette() -> None:
    assert set(SPECIES) - set(SPECIES_PALETTES) == {"other"}
