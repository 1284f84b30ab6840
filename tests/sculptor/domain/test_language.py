"""Prompts: what a caption says is read back, what a player writes is understood or named in a warning; no error."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.attributes import ATTRIBUTES, Attributes
from vernissage.sculptor.domain.language import LONGEST, VOCABULARY, Prompt, caption, read_prompt, swap_word
from vernissage.sculptor.domain.lexicon import ALIASES, KINDS
from vernissage.sculptor.domain.words import tokens

ANY_ATTRIBUTES = st.builds(
    Attributes, **{name: st.sampled_from([None, *values]) for name, values in ATTRIBUTES.items()}
)
SEEDS = st.integers(0, 2**32)
SOUP = st.lists(st.sampled_from([*KINDS, *ALIASES, ",", ".", ":", "dark", "zebrawood", "7"]), max_size=14).map(" ".join)


def said(prompt: Prompt) -> dict[str, str]:
    return {name: value for name, value in asdict(prompt.attributes).items() if value is not None}


@settings(max_examples=1000, deadline=None)
@given(ANY_ATTRIBUTES, SEEDS)
def test_every_caption_is_read_back(attributes: Attributes, seed: int) -> None:
    text = caption(attributes, np.random.default_rng(seed))
    prompt = read_prompt(text)
    assert said(prompt).items() <= asdict(attributes).items(), text
    assert prompt.warnings == (), text
    assert tokens(prompt.text) == tokens(text)[-len(tokens(prompt.text)) :]
    assert set(tokens(text)) <= set(VOCABULARY)


@settings(max_examples=600, deadline=None)
@given(st.one_of(st.text(max_size=200), SOUP))
@example("\ud800 oak \udfff")
@example("\x00\x1b[2J" * 50)
@example("ﷺ" * 3000)
@example("9" * 5000 + " blocks tall")
def test_any_text_is_read_and_what_is_left_of_it_reads_the_same(text: str) -> None:
    prompt = read_prompt(text)
    assert set(tokens(prompt.text)) <= set(VOCABULARY)
    again = read_prompt(prompt.text)
    assert (again.attributes, again.text, again.warnings) == (prompt.attributes, prompt.text, ())
    for name, value in said(prompt).items():
        assert value in ATTRIBUTES[name]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tall oak tree with thick trunk", {"species": "oak", "height": "tall", "trunk": "thick"}),
        ("TALL OAK!!! with a THICK trunk...", {"species": "oak", "height": "tall", "trunk": "thick"}),
        (
            "tall oak with a thick trunk and a wide, dense crown",
            {"species": "oak", "height": "tall", "trunk": "thick", "width": "wide", "density": "dense"},
        ),
        (
            "the trunk is thick and leaning and the crown is wide, dense and round",
            {"trunk": "thick", "lean": "leaning", "width": "wide", "density": "dense", "crown": "round"},
        ),
        ("oak, trunk thick, wide crown", {"species": "oak", "trunk": "thick", "width": "wide"}),
        ("birch that is tall and has a thin trunk", {"species": "birch", "height": "tall", "trunk": "thin"}),
        ("height: tall, trunk: massive", {"height": "tall", "trunk": "massive"}),
        ("wide trunk", {"trunk": "thick"}),
        ("wide crown", {"width": "wide"}),
        ("thick foliage", {"density": "dense"}),
        ("thick tree", {"trunk": "thick"}),
        ("huge tree", {"height": "tall"}),
        ("huge trunk", {"trunk": "massive"}),
        ("huge crown", {"width": "wide"}),
        ("tiny shrub", {"species": "bush", "height": "short"}),
        ("dark oak", {"species": "dark oak"}),
        ("dark-oak and darkoaks", {"species": "dark oak"}),
        ("weeping willow", {"species": "willow", "crown": "weeping"}),
        ("umbrella-shaped acacia", {"species": "acacia", "crown": "flat"}),
        ("spruce with a pointed top", {"species": "spruce", "crown": "conical"}),
        ("a tree of medium height and great width", {"height": "medium", "width": "wide"}),
        ("bare tree", {"crown": "leafless"}),
        ("oak with few leaves", {"species": "oak", "density": "sparse"}),
        ("oak with lots of leaves", {"species": "oak", "density": "dense"}),
        ("oak with roots and branches", {"species": "oak", "roots": "roots", "branches": "branches"}),
        ("oak with no leaves", {"species": "oak", "crown": "leafless"}),
        ("without roots", {"roots": "no roots"}),
        ("palms without roots or branches", {"species": "palm", "roots": "no roots", "branches": "no branches"}),
        ("no roots, branches or leaves", {"roots": "no roots", "branches": "no branches", "crown": "leafless"}),
        ("no roots, thick trunk, branches", {"roots": "no roots", "trunk": "thick", "branches": "branches"}),
        ("no roots and a thick trunk", {"roots": "no roots", "trunk": "thick"}),
        ("it has no branches. Its crown is dense", {"branches": "no branches", "density": "dense"}),
        ("not straight birch", {"species": "birch", "lean": "leaning"}),
        ("the crown isn't dense", {"density": "sparse"}),
        ("Große Eiche mit dickem Stamm", {"species": "oak", "height": "tall", "trunk": "thick"}),
        ("un grand chêne sans feuilles", {"species": "oak", "height": "tall", "crown": "leafless"}),
        ("roble, Birke", {"species": "birch"}),
        ("", {}),
        ("tree", {}),
        ("and and with", {}),
    ],
)
def test_prompts_of_players(text: str, expected: dict[str, str]) -> None:
    assert said(read_prompt(text)) == expected


@pytest.mark.parametrize(
    ("text", "warning", "cleaned"),
    [
        ("tal oak", "reading 'tal' as 'tall'", "tall oak"),
        ("gnarled zebrawood oak", "not understood and left out: 'gnarled', 'zebrawood'", "oak"),
        ("not tall oak", "cannot say the opposite of 'tall'", "oak"),
        ("oak without a thick trunk", "cannot say the opposite of 'thick'", "oak"),
        ("not an oak", "cannot leave out 'oak'", ""),
        ("tiny huge tree", "'tiny' and 'huge' contradict each other: reading 'huge'", "huge tree"),
        ("leafless dense crown", "'leafless' and 'dense' contradict each other: reading 'dense'", "dense crown"),
        ("dense leafless oak", "'dense' and 'leafless' contradict each other: reading 'leafless'", "leafless oak"),
        ("birch oak", "'birch' and 'oak' contradict each other: reading 'oak'", "oak"),
        ("roots, no roots", "'roots' and 'no roots' contradict each other: reading 'no roots'", "no roots"),
        ("dead oak", "reading 'dead' beside 'oak' as 'leafless'", "leafless oak"),
        ("round trunk", "'round' says nothing about the trunk", "trunk"),
        ("5000 blocks tall oak", "cannot build 5000 blocks high: expected 1 to 128", "oak"),
        ("oak 0 blocks tall", "cannot build 0 blocks high: expected 1 to 128", "oak"),
        ("3 oaks", "not understood and left out: '3'", "oak"),
    ],
)
def test_what_is_read_otherwise_is_said(text: str, warning: str, cleaned: str) -> None:
    prompt = read_prompt(text)
    assert len(prompt.warnings) == 1
    assert prompt.warnings[0].startswith(warning)
    assert prompt.text == cleaned


def test_unknown_words_are_one_warning_that_lists_twenty() -> None:
    text = " ".join(f"zq{letter}zq" for letter in "abcdefghijklmnopqrstuvwxyz")
    (warning,) = read_prompt(text).warnings
    assert "'zqazq'" in warning
    assert warning.endswith("'zqtzq' and 6 more")


def test_the_first_words_of_a_long_prompt_are_read() -> None:
    read = read_prompt("tall " + "very " * (LONGEST - 2) + "oak birch " + "very " * 2000)
    assert said(read) == {"species": "oak", "height": "tall"}
    assert read.warnings == (f"only the first {LONGEST} words are read",)
    assert read_prompt("tall " + "very " * (LONGEST - 2) + "oak").warnings == ()


def test_warnings_are_limited() -> None:
    assert (
        len(read_prompt("tall short " * 10 + "tal shrt oka bich spruse pin wilow plam bsh hihg bg larg hge").warnings)
        < 22
    )


@pytest.mark.parametrize(
    ("text", "blocks_high"),
    [("20 blocks tall oak", 20), ("birch, 12 high", 12), ("128 high", 128), ("129 high", None), ("tall oak", None)],
)
def test_height_in_blocks(text: str, blocks_high: int | None) -> None:
    assert read_prompt(text).blocks_high == blocks_high


def test_the_last_height_in_blocks_holds() -> None:
    prompt = read_prompt("oak 20 high, 30 high")
    assert prompt.blocks_high == 30
    assert prompt.warnings == ("20 and 30 blocks high contradict each other: reading 30",)


def test_captions_vary_and_say_what_is_unusual_more_often() -> None:
    unusual = Attributes("oak", "tall", "thick", "leaning", "round", "wide", "dense", "roots", "branches")
    usual = replace(unusual, height="medium", lean="straight", width="medium", roots="no roots", branches="no branches")
    rng = np.random.default_rng(0)
    counts = {}
    for key, attributes in (("unusual", unusual), ("usual", usual)):
        read = [said(read_prompt(caption(attributes, rng))) for _ in range(1500)]
        counts[key] = {name: sum(name in prompt for prompt in read) / len(read) for name in ATTRIBUTES}
    for name in ATTRIBUTES:
        assert counts["unusual"][name] == pytest.approx(0.82 if name == "species" else 0.45, abs=0.05)
    for name in ("height", "lean", "width", "roots", "branches"):
        assert counts["usual"][name] == pytest.approx(0.29, abs=0.05)


def test_captions_of_one_tree_are_many_and_repeat_with_the_seed() -> None:
    tree = Attributes("oak", "tall", "thick", "leaning", "round", "wide", "dense", "roots", "branches")
    texts = [caption(tree, np.random.default_rng(seed)) for seed in range(500)]
    assert texts == [caption(tree, np.random.default_rng(seed)) for seed in range(500)]
    assert len(set(texts)) > 400
    assert any(not said(read_prompt(text)) for text in texts)


def test_the_caption_of_an_unknown_tree_is_a_tree() -> None:
    for seed in range(50):
        text = caption(Attributes(species="other"), np.random.default_rng(seed))
        assert "tree" in text.split()
        assert said(read_prompt(text)) == {}


@settings(max_examples=400, deadline=None)
@given(ANY_ATTRIBUTES, SEEDS, st.sampled_from([(name, value) for name in ATTRIBUTES for value in ATTRIBUTES[name]]))
def test_a_swap_changes_one_attribute_and_keeps_the_others(
    attributes: Attributes, seed: int, swap: tuple[str, str]
) -> None:
    text = caption(attributes, np.random.default_rng(seed))
    expected = said(read_prompt(text)) | {swap[0]: swap[1]}
    if swap == ("crown", "leafless"):
        expected.pop("density", None)
    if swap[0] == "density" and expected.get("crown") == "leafless":
        del expected["crown"]
    swapped = swap_word(text, *swap)
    assert said(read_prompt(swapped)) == expected, swapped
    assert read_prompt(swapped).warnings == ()


@settings(max_examples=200, deadline=None)
@given(SOUP, st.sampled_from([(name, value) for name in ATTRIBUTES for value in ATTRIBUTES[name]]))
def test_a_swap_works_on_any_prompt(text: str, swap: tuple[str, str]) -> None:
    assert said(read_prompt(swap_word(text, *swap)))[swap[0]] == swap[1]


@pytest.mark.parametrize(
    ("text", "attribute", "value", "expected"),
    [
        ("small oak", "height", "tall", "tall oak"),
        ("a tall oak tree", "species", "birch", "a tall birch tree"),
        ("a birch", "species", "oak", "an oak"),
        ("tree with a thin trunk", "trunk", "thick", "tree with a thick trunk"),
        ("oak", "trunk", "massive", "oak with a massive trunk"),
        ("oak", "height", "short", "short oak"),
        ("oak with roots", "roots", "no roots", "oak without roots"),
        ("oak without leaves", "density", "dense", "leafy oak"),
        ("cone-shaped spruce", "crown", "round", "round spruce"),
        ("tall oak", "height", "tall", "tall oak"),
        ("", "height", "tall", "tall tree"),
    ],
)
def test_swaps_leave_the_other_words_alone(text: str, attribute: str, value: str, expected: str) -> None:
    assert swap_word(text, attribute, value) == expected


@pytest.mark.parametrize(("attribute", "value"), [("height", "wide"), ("colour", "red"), ("species", "other")])
def test_a_swap_to_no_value_is_refused(attribute: str, value: str) -> None:
    with pytest.raises(BadInput, match=attribute):
        swap_word("oak", attribute, value)
