"""The language of prompts: what captions say of a tree, and what a prompt asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeVar

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.attributes import ATTRIBUTES, Attributes
from vernissage.sculptor.domain.lexicon import (
    ABSENT,
    MEANINGS,
    NOUNS_SAID,
    ORDERS,
    PART_OF,
    PRESENT,
    SAID,
    SAYINGS,
    SEEN,
    SPECIES_OF,
    SPECIES_SAID,
    VOCABULARY,
    Kind,
    Meaning,
    Part,
    Word,
    recognise,
)
from vernissage.sculptor.domain.sizes import LARGEST
from vernissage.sculptor.domain.words import (
    COLON,
    COMMA,
    MARKS,
    MOST_LISTED,
    STOP,
    heights,
    listed,
    pieces,
    quoted,
    with_articles,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np

__all__ = ["LONGEST", "VOCABULARY", "Prompt", "caption", "read_prompt", "swap_word"]

#: Words of a prompt that are read.
LONGEST = 256

_MOST_LETTERS = 40 * LONGEST
_T = TypeVar("_T")

# How often a caption says the species and any other attribute, and one that has a value that goes without saying.
_SPECIES_SHARE, _SHARE, _QUIET_SHARE, _NOTHING_SHARE = 0.85, 0.46, 0.3, 0.03
_QUIET = frozenset({"medium", "straight", "no roots", "no branches"})

_TREE = "tree"
_MEASURES = frozenset({Part.HEIGHT, Part.WIDTH, Part.DENSITY})
_FEATURES = (Part.TRUNK, Part.CROWN, Part.ROOTS, Part.BRANCHES)
_LEAVES = ("leaves", "foliage")
_SINGULAR = {
    Part.TRUNK: NOUNS_SAID[Part.TRUNK],
    Part.CROWN: tuple(noun for noun in NOUNS_SAID[Part.CROWN] if noun not in _LEAVES),
}
_LEAF_WORDS = frozenset(
    word for value in ATTRIBUTES["density"] for part, word in SAYINGS["density", value] if part is Part.CROWN
)
# Words that hold others together, and say nothing at the end of a text.
_JOINTS = frozenset({Kind.NOT, Kind.IS, Kind.LINK, Kind.ARTICLE, Kind.BREAK, None})
_NO_START = frozenset({COMMA, "and", "or", "is", "that", "of", "with"})
# Of the words without a meaning, those that belong to another one.
_SUFFIXES = frozenset({"sized", "shaped", "topped"})
_KEPT = _SUFFIXES.union(SEEN)


@dataclass(frozen=True)
class Prompt:
    """A prompt as it was understood.

    Attributes:
        text: The words that the encoder sees, all of `VOCABULARY`: typing errors mended, and without what was not
            understood, denied or contradicted. It reads as the same attributes, without a warning.
        attributes: What was said; None for what was not.
        warnings: What was not read as it was written, a sentence each.
        blocks_high: Height in blocks, if a number was given.
    """

    text: str
    attributes: Attributes
    warnings: tuple[str, ...] = ()
    blocks_high: int | None = None


def read_prompt(text: str) -> Prompt:
    """Read what a prompt asks for; any text is a prompt, and what is not understood is named in a warning.

    An adjective describes the part that it stands before ("a wide, dense crown") or that it is said of ("the trunk is
    thick"), otherwise the tree. Of two that contradict each other the last one holds.
    """
    found = pieces(text[:_MOST_LETTERS])
    places = [place for place, piece in enumerate(found) if piece not in MARKS]
    cut = len(text) > _MOST_LETTERS or len(places) > LONGEST
    if len(places) > LONGEST:
        found = found[: places[LONGEST]]
    found, blocks, numbers = heights(found)
    words, spelling, unknown = recognise(found)
    reading = _Reading(words)
    blocks_high, about_height = _height(blocks)
    warnings = [f"only the first {LONGEST} words are read"] if cut else []
    warnings += [f"reading {quoted([word])} as '{meant}'" for word, meant in spelling.items()]
    warnings += [*about_height, *reading.warnings]
    if numbers or unknown:
        warnings.append(f"not understood and left out: {quoted([*numbers, *unknown])}")
    return Prompt(_settled_text(reading), reading.attributes, _first_of(warnings), blocks_high)


def caption(attributes: Attributes, rng: np.random.Generator) -> str:
    """Describe a tree as a player would: some of its attributes, in any order, in one of many wordings.

    :func:`read_prompt` reads every caption back without a warning. What is usual (a straight trunk, a medium height, no
    roots) is said less often than what is not; now and then nothing is said but "a tree".

    Args:
        attributes: What can be said; None and the species "other" are not.
        rng: Draws what is said, and how.
    """
    return _Speaker(_chosen(attributes, rng), rng).sentence()


def swap_word(prompt: str, attribute: str, to_value: str) -> str:
    """Return a prompt with the word for one attribute exchanged, or added where nothing was said of it.

    Args:
        prompt: Any prompt; only what is understood of it is kept.
        attribute: One of `ATTRIBUTES`.
        to_value: The value that the new prompt asks for.

    Returns:
        A prompt that reads as `to_value`, and otherwise as before; only a crown without leaves and a density exclude
        each other.

    Raises:
        BadInput: There is no such attribute or value.
    """
    if to_value not in ATTRIBUTES.get(attribute, ()):
        expected = ", ".join(ATTRIBUTES.get(attribute, ATTRIBUTES))
        raise BadInput(f"{attribute} = {to_value!r}: no attribute with such a value; expected one of {expected}")
    before = read_prompt(prompt)
    wanted = replace(before.attributes, **{attribute: to_value})
    if attribute == "crown" and to_value == "leafless":
        wanted = replace(wanted, density=None)
    if attribute == "density" and wanted.crown == "leafless":
        wanted = replace(wanted, crown=None)
    if wanted == before.attributes:
        return before.text
    for text in _exchanged(before.text, (attribute, to_value), wanted):
        after = read_prompt(text)
        if after.attributes == wanted and not after.warnings:
            return after.text
    return _plain(wanted)


class _Denial(Enum):
    """How far a "no" reaches: it has begun, has met an adjective, or has met the noun that it denies."""

    BEGUN = auto()
    DESCRIBED = auto()
    SPENT = auto()


@dataclass(frozen=True)
class _Adjective:
    place: int
    clause: int
    denied_at: int | None


@dataclass(frozen=True)
class _Noun:
    part: Part
    clause: int
    bare: bool


@dataclass(frozen=True)
class _Claim:
    """Something that a prompt says, and the places of the words that say it."""

    meaning: Meaning
    part: Part
    places: tuple[int, ...]


class _Reading:
    """Walks through a prompt once and binds each adjective to what it describes.

    Attributes:
        words: The known words.
        texts: What is kept of each for the encoder; None for what is left out.
        claims: What holds, by attribute; several claims of one attribute agree.
        warnings: What was left out, and why.
    """

    def __init__(self, words: Sequence[Word]) -> None:
        self.words = words
        self.texts: list[str | None] = [word.text for word in words]
        self.claims: dict[str, list[_Claim]] = {}
        self.warnings: list[str] = []
        self._said: list[_Claim] = []
        self._pending: list[_Adjective] = []
        self._clause = 0
        self._noun: _Noun | None = None
        self._subject: Part | None = None
        self._denied_at: int | None = None
        self._denial = _Denial.BEGUN
        for place, word in enumerate(words):
            self._read(place, word)
        self._settle()
        self._resolve()

    @property
    def attributes(self) -> Attributes:
        """What the prompt says."""
        return Attributes(**{attribute: claims[-1].meaning[1] for attribute, claims in self.claims.items()})

    def _read(self, place: int, word: Word) -> None:
        match word.kind:
            case Kind.ADJECTIVE:
                self._start_word()
                self._pending.append(_Adjective(place, self._clause, self._denied_at))
                self._denial = _Denial.DESCRIBED
            case Kind.NOUN:
                self._read_noun(place, PART_OF[word.text], PRESENT.get(PART_OF[word.text]))
            case Kind.SPECIES:
                self._read_noun(place, Part.TREE, ("species", SPECIES_OF[word.text]))
            case Kind.NOT:
                self._settle()
                self._denied_at, self._denial = place, _Denial.BEGUN
            case Kind.ARTICLE | Kind.BREAK:
                self._end_phrase()
            case Kind.IT:
                self._end_phrase()
                self._noun = _Noun(Part.TREE, self._clause, bare=True)
            case Kind.LINK:
                self._clause += 1
                self._reach_on(goes_on=word.text in {"or", "nor"} or (word.text == "and" and self._is_noun(place + 1)))
            case None:
                self._read_mark(place, word.text)
        if word.kind is Kind.IS or word.text in {COLON, "isnt", "arent"}:
            self._settle()
            self._subject = self._noun.part if self._noun else Part.TREE
            self._clause += 1

    def _read_mark(self, place: int, mark: str) -> None:
        if mark == STOP:
            self._denied_at = None
            self._end_phrase()
            self._noun = None
        elif mark == COMMA:
            # "Oak tall, wide crown": what stands right behind a noun describes it; "wide, dense crown" waits.
            if self._subject is None and self._pending and self._behind_noun(self._pending[0]):
                self._settle()
            self._reach_on(goes_on=self._lists_on(place + 1))
        self._clause += 1

    def _start_word(self) -> None:
        if self._denial is _Denial.SPENT:
            self._denied_at = None

    def _reach_on(self, *, goes_on: bool) -> None:
        """Let a "no" hold for the next word of its list as well, or end it."""
        if goes_on and self._denied_at is not None:
            self._denial = _Denial.BEGUN
        else:
            self._denied_at = None

    def _is_noun(self, place: int) -> bool:
        return place < len(self.words) and self.words[place].kind is Kind.NOUN and self._denial is _Denial.SPENT

    def _lists_on(self, place: int) -> bool:
        """Whether a list of mere nouns goes on here and ends in "or c" or "and c"."""
        while self._is_noun(place):
            place += 1
            if place < len(self.words) and self.words[place].kind is Kind.LINK:
                return self.words[place].text in {"and", "or", "nor"} and self._is_noun(place + 1)
            if place >= len(self.words) or self.words[place].text != COMMA:
                return False
            place += 1
        return False

    def _end_phrase(self) -> None:
        self._settle()
        self._subject = None
        if self._noun is not None:
            self._noun = replace(self._noun, bare=False)
        if self._denial is not _Denial.BEGUN:
            self._denied_at = None

    def _behind_noun(self, adjective: _Adjective) -> bool:
        return self._noun is not None and self._noun.bare and self._noun.clause == adjective.clause

    def _settle(self) -> None:
        """Bind the adjectives that no noun follows."""
        for adjective in self._pending:
            behind = self._noun.part if self._noun and self._behind_noun(adjective) else Part.TREE
            self._bind(adjective, self._subject or behind, Part.TREE)
        self._pending = []

    def _read_noun(self, place: int, part: Part, present: Meaning | None) -> None:
        self._start_word()
        if self._subject is not None:
            mine = [adjective for adjective in self._pending if adjective.clause == self._clause]
            self._pending = self._pending[: len(self._pending) - len(mine)]
            self._settle()
            self._subject = None
        else:
            mine = self._pending
        self._pending = []
        for adjective in mine:
            self._bind(adjective, part, part if adjective.clause == self._clause else Part.TREE)
        if part is not Part.TREE and any(adjective.denied_at is not None for adjective in mine):
            # "Without thick branches" says nothing about branches.
            self._leave_out((place,))
        elif self._denied_at is not None and self._denial is _Denial.BEGUN:
            self._deny_noun(place, part, present)
        elif present is not None:
            self._said.append(_Claim(present, part, (place,)))
        # In "of medium height that is ..." the tree is what is described.
        if part not in _MEASURES or not mine:
            self._noun = _Noun(part, self._clause, bare=not mine)
        self._denial = _Denial.SPENT

    def _deny_noun(self, place: int, part: Part, present: Meaning | None) -> None:
        denied_at = self._denied_at or 0
        if part in ABSENT and present in {None, PRESENT.get(part)}:
            self._said.append(_Claim(ABSENT[part], part, (denied_at, place)))
        else:
            self._leave_out((denied_at, place), f"cannot leave out '{self.words[place].text}': say what it should be")

    def _bind(self, adjective: _Adjective, part: Part, otherwise: Part) -> None:
        word = self.words[adjective.place].text
        meanings = MEANINGS[word]
        bound = part if part in meanings else otherwise
        meaning = meanings.get(bound)
        if meaning is None:
            self._leave_out((adjective.place,), f"'{word}' says nothing about the {part}")
        elif adjective.denied_at is None:
            self._said.append(_Claim(meaning, bound, (adjective.place,)))
        else:
            self._deny_adjective(adjective, meaning, bound)

    def _deny_adjective(self, adjective: _Adjective, meaning: Meaning, part: Part) -> None:
        attribute, value = meaning
        others = [other for other in ATTRIBUTES[attribute] if other != value]
        self._leave_out((adjective.place, adjective.denied_at or 0))
        if len(others) == 1:
            opposite = (attribute, others[0])
            self.texts[adjective.place] = _word_for(opposite, part)
            self._said.append(_Claim(opposite, part, (adjective.place,)))
        else:
            word = self.words[adjective.place].text
            self.warnings.append(f"cannot say the opposite of '{word}': say what it should be")

    def _leave_out(self, places: Iterable[int], warning: str = "") -> None:
        for place in places:
            self.texts[place] = None
        if warning:
            self.warnings.append(warning)

    def _resolve(self) -> None:
        """Settle contradictions: the last one holds."""
        self._said = [self._dead_is_leafless(claim) for claim in self._said]
        for claim in sorted(self._said, key=lambda claim: claim.places[-1]):
            attribute, value = claim.meaning
            self._give_way(attribute, claim, [value])
            if attribute == "density":
                self._give_way("crown", claim, [shape for shape in ATTRIBUTES["crown"] if shape != "leafless"])
            if claim.meaning == ("crown", "leafless"):
                self._give_way("density", claim, [])
            self.claims.setdefault(attribute, []).append(claim)

    def _give_way(self, attribute: str, claim: _Claim, allowed: Iterable[str]) -> None:
        """Drop what was said of an attribute if it is none of the values that go with a later claim."""
        earlier = self.claims.get(attribute, [])
        if not earlier or earlier[-1].meaning[1] in allowed:
            return
        first, last = self._phrase(earlier[-1]), self._phrase(claim)
        self.warnings.append(f"'{first}' and '{last}' contradict each other: reading '{last}'")
        for dropped in self.claims.pop(attribute):
            self._leave_out(dropped.places)

    def _dead_is_leafless(self, claim: _Claim) -> _Claim:
        """Read "dead oak" as an oak without leaves."""
        named = [other.meaning[1] for other in self._said if other.meaning[0] == "species"]
        if claim.meaning != ("species", "dead") or set(named) == {"dead"}:
            return claim
        self.warnings.append(f"reading 'dead' beside '{named[-1] if named[-1] != 'dead' else named[0]}' as 'leafless'")
        self.texts[claim.places[0]] = "leafless"
        return _Claim(("crown", "leafless"), Part.TREE, claim.places)

    def _phrase(self, claim: _Claim) -> str:
        return " ".join(self.texts[place] or self.words[place].text for place in claim.places)


class _Speaker:
    """Puts what is to be said of a tree into words.

    Args:
        said: A value for each attribute that is mentioned.
        rng: Draws the wording; None takes the plain one.
    """

    def __init__(self, said: dict[str, str], rng: np.random.Generator | None) -> None:
        self._rng = rng
        self._adjectives: dict[Part, list[str]] = {part: [] for part in Part}
        self._present: list[Part] = []
        self._absent: list[Part] = []
        for attribute in self._shuffled([attribute for attribute in said if attribute != "species"]):
            self._say((attribute, said[attribute]), leafless=said.get("crown") == "leafless")
        if Part.ROOTS in self._present and self._chance(0.3):
            self._adjectives[Part.ROOTS].append(self._pick(SEEN))
        self._features = self._shuffled([part for part in _FEATURES if self._adjectives[part] or part in self._present])
        self._name = self._named(said.get("species"))

    def sentence(self) -> str:
        """Return the caption."""
        styles = (self._in_one_phrase, self._in_one_phrase, self._in_clauses, self._in_fragments, self._in_a_row)
        return with_articles(self._pick(styles)())

    def _named(self, species: str | None) -> str:
        if species is None:
            return _TREE
        name = self._pick(SPECIES_SAID[species])
        return f"{name} {_TREE}" if species == "dead" or (species != "bush" and self._chance(0.5)) else name

    def _say(self, meaning: Meaning, *, leafless: bool) -> None:
        """Choose the part that shows it, and the word."""
        present = next((part for part, said in PRESENT.items() if said == meaning), None)
        absent = next((part for part, said in ABSENT.items() if said == meaning), None)
        if present and not (meaning in SAYINGS and self._chance(0.15)):
            self._present.append(present)
        elif absent and not self._chance(0.7 if absent is Part.CROWN else 0.2):
            self._absent.append(absent)
        else:
            options = [(part, word) for part, word in SAYINGS[meaning] if not (leafless and part is Part.CROWN)]
            part, word = self._pick(options)
            self._adjectives[part].append(word)

    def _in_one_phrase(self) -> str:
        """Say it as in: a tall oak of medium width with a thick trunk and a dense crown, without roots."""
        return self._opening(self._head(self._adjectives[Part.TREE])) + self._with(self._features)

    def _in_clauses(self) -> str:
        """Say it as in: an oak that is tall and whose trunk is thick, with roots."""
        adjectives = self._adjectives[Part.TREE]
        clauses = []
        if adjectives and self._chance(0.5):
            clauses, adjectives = [f"that is {listed(adjectives)}"], []
        described = [part for part in self._features if part in _SINGULAR]
        clauses += [f"whose {self._pick(_SINGULAR[part])} is {listed(self._adjectives[part])}" for part in described]
        rest = self._with([part for part in self._features if part not in described])
        head = self._opening(self._head(adjectives))
        return f"{head} {' and '.join(clauses)}{',' if rest else ''}{rest}" if clauses else head + rest

    def _in_fragments(self) -> str:
        """Say it as in: tall oak, thick trunk, dense crown, no roots."""
        return ", ".join([self._head(self._adjectives[Part.TREE]), *self._short_features()])

    def _in_a_row(self) -> str:
        """Say it as in: tall oak thick trunk dense crown no roots."""
        # A comma would part what stands before it from the noun behind it: "roots broad, straight trunk".
        return " ".join([self._head(self._adjectives[Part.TREE]), *self._short_features()]).replace(",", "")

    def _opening(self, head: str) -> str:
        if self._chance(0.15):
            return f"{self._pick(ORDERS)} a {head}"
        return f"a {head}" if self._chance(0.6) else head

    def _head(self, adjectives: list[str]) -> str:
        named = f"{self._joined(adjectives)} {self._name}".strip()
        measures = [f"{word} {part}" for part in (Part.HEIGHT, Part.WIDTH) for word in self._adjectives[part]]
        return f"{named} of {' and '.join(measures)}" if measures else named

    def _short_features(self) -> list[str]:
        present = [f"{self._joined(self._adjectives[part])} {self._noun(part)}".strip() for part in self._features]
        return self._shuffled([*present, *(f"no {self._lack(part)}" for part in self._absent)])

    def _with(self, features: list[Part]) -> str:
        phrases = []
        for part in features:
            noun = self._noun(part)
            article = "a " if noun in _SINGULAR.get(part, ()) else ""
            phrases.append(article + f"{self._joined(self._adjectives[part])} {noun}".strip())
        absent = [self._lack(part) for part in self._absent]
        if absent and self._chance(0.5):
            phrases += [f"no {noun}" for noun in absent]
            absent = []
        present = f" with {listed(phrases)}" if phrases else ""
        return present + (f"{',' if present else ''} without {' or '.join(absent)}" if absent else "")

    def _noun(self, part: Part) -> str:
        if part is not Part.CROWN:
            return self._pick(NOUNS_SAID[part])
        # Leaves are dense or sparse; a shape and a width has only the crown as a whole.
        of_leaves = all(word in _LEAF_WORDS for word in self._adjectives[part])
        return self._pick(NOUNS_SAID[part] if of_leaves else _SINGULAR[part])

    def _lack(self, part: Part) -> str:
        return self._pick(_LEAVES if part is Part.CROWN else NOUNS_SAID[part])

    def _joined(self, adjectives: list[str]) -> str:
        return (", " if self._chance(0.3) else " ").join(adjectives)

    def _chance(self, share: float) -> bool:
        return self._rng is not None and bool(self._rng.random() < share)

    def _pick(self, options: Sequence[_T]) -> _T:
        return options[0 if self._rng is None else int(self._rng.integers(len(options)))]

    def _shuffled(self, items: list[_T]) -> list[_T]:
        order = range(len(items)) if self._rng is None else self._rng.permutation(len(items))
        return [items[int(place)] for place in order]


def _chosen(attributes: Attributes, rng: np.random.Generator) -> dict[str, str]:
    """Choose what a caption says."""
    if rng.random() < _NOTHING_SHARE:
        return {}
    said = {}
    for attribute, values in ATTRIBUTES.items():
        value = getattr(attributes, attribute)
        usual = _QUIET_SHARE if value in _QUIET else _SHARE
        share = _SPECIES_SHARE if attribute == "species" else usual
        if rng.random() < share and value in values:
            said[attribute] = value
    if said.get("crown") == "leafless":
        said.pop("density", None)
    return said


def _plain(attributes: Attributes) -> str:
    """Say all attributes in plain words; nothing of a tree of which nothing is known."""
    said = {attribute: value for attribute in ATTRIBUTES if (value := getattr(attributes, attribute)) is not None}
    return _Speaker(said, None).sentence() if said else ""


def _settled_text(reading: _Reading) -> str:
    """Return what is left of a prompt if it reads the same without what was left out, else its attributes."""
    text = _text(reading.words, reading.texts)
    again = _Reading(recognise(pieces(text))[0])
    same = again.attributes == reading.attributes and not again.warnings
    return text if same else _plain(reading.attributes)


def _text(words: Sequence[Word], texts: Sequence[str | None]) -> str:
    """Join what is kept of the words, without those that nothing is left to hold together."""
    kept: list[str] = []
    behind: Kind | None = None
    for word, text in zip(reversed(words), reversed(texts), strict=True):
        plain = {COLON: "is", STOP: COMMA}.get(text or "", text)
        if plain is None or not (plain == COMMA or set(plain.split()) <= SAID):
            continue
        if word.kind in _JOINTS and (not kept or behind is Kind.LINK or kept[-1] == COMMA):
            continue
        if word.kind is behind is Kind.BREAK or (word.kind is Kind.FILLER and plain not in _KEPT):
            continue
        kept.append(plain)
        behind = word.kind
    first = next((len(kept) - at for at, text in enumerate(reversed(kept)) if text not in _NO_START), 0)
    return with_articles(" ".join(reversed(kept[:first])).replace(f" {COMMA}", COMMA))


def _exchanged(text: str, meaning: Meaning, wanted: Attributes) -> Iterator[str]:
    """Try ways to say it in a text: in the place of what is said now, at the end, before the tree."""
    reading = _Reading(recognise(pieces(text))[0])
    now = reading.claims.get(meaning[0], [])
    texts = list(reading.texts)
    for attribute, claims in reading.claims.items():
        if attribute == meaning[0] or getattr(wanted, attribute) is None:
            for place in (place for claim in claims for place in claim.places):
                texts[place] = None
                if place + 1 < len(texts) and texts[place + 1] in _SUFFIXES:
                    texts[place + 1] = None
    if now and len(now[-1].places) == 1 and (word := _word_for(meaning, now[-1].part)):
        yield _text(reading.words, [word if at == now[-1].places[0] else text for at, text in enumerate(texts)])
    rest = _text(reading.words, texts)
    word = _word_for(meaning, Part.TREE)
    if word is None or meaning in {*PRESENT.values(), *ABSENT.values()}:
        said = _Speaker({meaning[0]: meaning[1]}, None).sentence().removeprefix(_TREE)
        yield f"{rest}{COMMA if ' with' in rest and said.startswith(' with') else ''}{said}"
    before = (_TREE,) if meaning[0] == "species" else (*sorted(SPECIES_OF, key=len, reverse=True), _TREE)
    yield re.sub(rf"\b({'|'.join(before)})\b", rf"{word} \1", rest, count=1)


def _word_for(meaning: Meaning, part: Part) -> str | None:
    """Return the plain word that gives a part this meaning."""
    if meaning[0] == "species":
        return meaning[1]
    return next((word for described, word in SAYINGS.get(meaning, ()) if described is part), None)


def _height(blocks: Sequence[int]) -> tuple[int | None, list[str]]:
    """Return the last height that can be built, and what is to be said of the others."""
    possible = [height for height in blocks if 1 <= height <= LARGEST.height]
    warnings = [
        f"cannot build {height} blocks high: expected 1 to {LARGEST.height}"
        for height in blocks
        if height not in possible
    ]
    if len(set(possible)) > 1:
        warnings.append(f"{possible[-2]} and {possible[-1]} blocks high contradict each other: reading {possible[-1]}")
    return possible[-1] if possible else None, warnings


def _first_of(warnings: Sequence[str]) -> tuple[str, ...]:
    unique = tuple(dict.fromkeys(warnings))
    more = len(unique) - MOST_LISTED
    return unique if more <= 0 else (*unique[:MOST_LISTED], f"{more} more remarks on this prompt are left out")
