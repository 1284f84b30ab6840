"""Words: cut the same however they are written, numbered the same in every process, read through slips of a finger."""

from __future__ import annotations

import subprocess
import sys
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vernissage.sculptor.domain.lexicon import NOT_SLIPS, SPELT
from vernissage.sculptor.domain.words import (
    MARKS,
    Speller,
    heights,
    listed,
    ngrams,
    pieces,
    quoted,
    slips,
    tokens,
    with_articles,
)

LETTERS = st.text("abcdefghij", min_size=1, max_size=10)
SPELLER = Speller.of(SPELT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A TALL Oak", ["a", "tall", "oak"]),
        ("flat-topped, cone_shaped", ["flat", "topped", "cone", "shaped"]),
        ("chêne GROSSE große", ["chene", "grosse", "grosse"]),
        ("ｔａｌｌ ﬁr", ["tall", "fir"]),
        ("isn't isn’t", ["isnt", "isnt"]),
        ("oak & 20m+leaves", ["oak", "and", "20", "m", "and", "leaves"]),
        ("a\x00tall\x1b[31m\toak", ["a", "tall", "31", "m", "oak"]),
        ("дерево 木", ["дерево", "木"]),
        ("", []),
        ("?! -- \n", []),
    ],
)
def test_words_are_cut_out_of_any_writing(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_marks_that_end_a_clause_are_kept_by_pieces() -> None:
    assert pieces("trunk: thick; wide, high!\nLow") == [
        "trunk",
        ":",
        "thick",
        ".",
        "wide",
        ",",
        "high",
        ".",
        ".",
        "low",
    ]


@given(st.text(max_size=80))
def test_pieces_are_marks_or_clean_words_and_stay_as_they_are(text: str) -> None:
    found = pieces(text)
    for piece in found:
        assert piece in MARKS or piece[0].isalnum()
        assert not any(unicodedata.combining(sign) or sign.isspace() for sign in piece)
    assert pieces(" ".join(found)) == found


@given(st.text(max_size=60), st.integers(1, 5000))
def test_ngrams_are_rows_of_the_table(word: str, buckets: int) -> None:
    numbers = ngrams(word, buckets)
    assert numbers
    assert all(0 <= number < buckets for number in numbers)


def test_ngrams_are_those_of_the_marked_word() -> None:
    # <oak> has three pieces of 3, two of 4 and one of 5 letters.
    assert len(ngrams("oak")) == 6
    assert set(ngrams("oaken")) & set(ngrams("oak")) == set(ngrams("oaken")[:2]) | {ngrams("oaken")[5]}


def test_ngrams_are_the_same_in_another_process() -> None:
    code = "from vernissage.sculptor.domain.words import ngrams; print(ngrams('zebrawood'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(ngrams("zebrawood"))


@pytest.mark.parametrize(
    ("typed", "meant", "least", "most"),
    [("oak", "oak", 0, 0), ("tal", "tall", 0.5, 1), ("oka", "oak", 0.5, 1), ("oat", "oak", 0.5, 1), ("", "ab", 1.5, 2)],
)
def test_slips_of_known_pairs(typed: str, meant: str, least: float, most: float) -> None:
    assert least <= slips(typed, meant) <= most


@given(LETTERS, LETTERS)
def test_only_equal_words_are_without_a_slip(one: str, other: str) -> None:
    assert (slips(one, other) == 0) == (one == other)
    assert slips(one, other) <= max(len(one), len(other))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("tal", "tall"), ("oka", "oak"), ("trunck", "trunk"), ("thik", "thick"), ("crwon", "crown"), ("hgih", "high"),
        ("brnaches", "branches"), ("leafles", "leafless"), ("jungel", "jungle"), ("enormus", "enormous"),
        ("willlow", "willow"), ("cylndrical", "cylindrical"), ("folaige", "foliage"), ("wihtout", "without"),
    ],
)  # fmt: skip
def test_slips_are_read_as_what_was_meant(typed: str, meant: str) -> None:
    assert SPELLER.read(typed) == meant


@pytest.mark.parametrize("word", ["fir", "elm", "free", "line", "gnarled", "zebrawood", "xy", "q", "", "a" * 5000])
def test_other_words_are_not_slips(word: str) -> None:
    assert word in NOT_SLIPS or SPELLER.read(word) is None


def test_a_word_between_two_is_not_read_as_either() -> None:
    assert Speller.of({"bant": 1, "bunt": 2}).read("bint") is None
    assert Speller.of({"bant": 1, "bunt": 1}).read("bint") == "bant"


@given(st.sampled_from(sorted(word for word in SPELT if len(word) >= 7)), st.integers(1, 6))
def test_a_letter_left_out_of_a_long_word_never_makes_another_meaning_of_it(word: str, at: int) -> None:
    short = word[:at] + word[at + 1 :]
    # "Branchy" without its last letter is a word of its own.
    assume(short not in SPELT)
    read = SPELLER.read(short)
    assert read is None or SPELT[read] == SPELT[word]


@pytest.mark.parametrize(
    ("text", "rest", "blocks", "unread"),
    [
        ("20 blocks tall oak", "oak", [20], []),
        ("oak 12 high", "oak", [12], []),
        ("20-block-tall oak", "oak", [20], []),
        ("oak with a height of 30 blocks", "oak with a", [30], []),
        ("height: 30, oak", ", oak", [30], []),
        ("oak 25 m in height, thick", "oak , thick", [25], []),
        ("oak 3 blocks wide", "oak", [], ["3 blocks wide"]),
        ("5 oaks", "oaks", [], ["5"]),
        ("3.5 blocks tall", "", [], ["3.5 blocks tall"]),
        ("9 high 10 high", "", [9, 10], []),
        ("height tall", "height tall", [], []),
    ],
)
def test_heights_in_blocks(text: str, rest: str, blocks: list[int], unread: list[str]) -> None:
    assert heights(pieces(text)) == (rest.split(), blocks, unread)


def test_a_number_of_any_length_is_a_height_that_is_too_great() -> None:
    _, blocks, _ = heights(pieces("9" * 10_000 + " blocks tall"))
    assert len(blocks) == 1
    assert blocks[0] > 10**8


def test_lists_and_articles() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert with_articles("a oak, an birch with a umbrella and a") == "an oak, a birch with an umbrella and a"
    assert quoted(["x" * 99]) == f"'{'x' * 24}…'"
    assert quoted([str(number) for number in range(25)]).endswith("'19' and 5 more")
