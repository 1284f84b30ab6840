"""The lexicon: every value can be said, every word has one use, unknown words are returned and not guessed at."""

from __future__ import annotations

import pytest

from vernissage.sculptor.domain.attributes import ATTRIBUTES
from vernissage.sculptor.domain.lexicon import (
    ABSENT,
    ALIASES,
    KINDS,
    MEANINGS,
    NOT_SLIPS,
    PART_OF,
    PRESENT,
    SAYINGS,
    SPECIES_OF,
    VOCABULARY,
    Kind,
    Word,
    recognise,
)


def test_every_value_of_every_attribute_can_be_said() -> None:
    sayable = set(SAYINGS) | set(PRESENT.values()) | set(ABSENT.values())
    for attribute, values in ATTRIBUTES.items():
        for value in values:
            assert value in SPECIES_OF if attribute == "species" else (attribute, value) in sayable


def test_every_meaning_is_a_value_of_its_attribute() -> None:
    for meanings in MEANINGS.values():
        for attribute, value in meanings.values():
            assert value in ATTRIBUTES[attribute]
    assert set(SPECIES_OF.values()) == set(ATTRIBUTES["species"])


def test_a_word_has_one_use() -> None:
    assert not set(MEANINGS) & (set(PART_OF) | set(SPECIES_OF))
    assert not set(ALIASES) & set(KINDS)
    assert not NOT_SLIPS & (set(KINDS) | set(ALIASES))
    assert set(ALIASES.values()) <= set(KINDS)


def test_what_is_said_is_understood_as_it_was_meant() -> None:
    for meaning, sayings in SAYINGS.items():
        for part, word in sayings:
            assert MEANINGS[word.partition("-")[0]][part] == meaning
            assert all(token in KINDS for token in word.split("-"))


def test_the_vocabulary_is_sorted_and_known() -> None:
    assert list(VOCABULARY) == sorted(set(VOCABULARY))
    assert set(VOCABULARY) <= set(KINDS) | {"dark"}


def test_words_are_looked_up() -> None:
    known, spelling, unknown = recognise(["tal", "eiche", ",", "dark", "oaks", "zebrawood", "dark", "zebrawood"])
    assert known == [
        Word("tall", Kind.ADJECTIVE), Word("oak", Kind.SPECIES), Word(",", None), Word("dark oak", Kind.SPECIES)
    ]  # fmt: skip
    assert spelling == {"tal": "tall"}
    assert unknown == ["zebrawood", "dark"]


@pytest.mark.parametrize("word", ["brown", "fir", "free", "pile", "dark"])
def test_ordinary_words_are_not_taken_for_slips(word: str) -> None:
    assert recognise([word]) == ([], {}, [word])
