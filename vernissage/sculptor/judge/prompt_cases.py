"""Robustness against what people type: nothing, unknown words, contradictions, errors, other alphabets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vernissage.sculptor.domain.attributes import Attributes
from vernissage.sculptor.domain.language import LONGEST, VOCABULARY, read_prompt
from vernissage.sculptor.domain.words import tokens
from vernissage.sculptor.judge.trials import PLAIN, Bench, Case, Outcome, repeated

if TYPE_CHECKING:
    from collections.abc import Sequence

_EMPTY = ("", " \t\r\n ", "...", "\u200b")
#: What is typed, what is left of it, and the words that are left out.
_UNSEEN = (
    ("gnarled zebrawood oak tree", "oak tree", ("gnarled", "zebrawood")),
    ("flobnar tall glimmering birch", "tall birch", ("flobnar", "glimmering")),
    ("xyzzy", "", ("xyzzy",)),
)
#: What is typed, and of which attribute its last word must hold.
_CONTRADICTIONS = (
    ("tiny huge tree", "height", "tall"),
    ("huge tiny tree", "height", "short"),
    ("leafless dense crown", "density", "dense"),
    ("dense leafless crown", "crown", "leafless"),
    ("oak birch tree", "species", "birch"),
    ("thick thin trunk", "trunk", "thin"),
)
_MISTYPED = "tal oka tree wiht thik trunk"
_SILENT = ("高い木", "\u0434\u0440\u0435\u0432\u043e", "{}; DROP TABLE trees --")
_HOSTILE = (
    "\x00tall\x07 oak\x1b[31m tree\x1b]0;owned\x07",
    "oak\u202etree\u2066 tall\ufeff",
    "tall \ud800 oak",
    "🌳🌲",
    "a" * 100_000,
    "\N{COMBINING ACUTE ACCENT}" * 5_000 + "oak",
)
_WORDS = 2_000
_KNOWN = frozenset(VOCABULARY)
_REPEATED = 0.1


def empty_prompt(bench: Bench) -> Outcome:
    """Ask for nothing in particular."""
    problems = []
    for text in _EMPTY:
        read = read_prompt(text)
        if read.text or read.attributes != Attributes():
            problems.append(f"{text!r} is read as {read.text!r}")
    requests, built = bench.build_all(_EMPTY)
    if repeated(built) > _REPEATED * len(built):
        problems.append(f"of {len(built)} seeds {repeated(built)} make what another one makes")
    return bench.verdict(problems, requests, built)


def unseen_words(bench: Bench) -> Outcome:
    """Use words that no caption has."""
    problems = []
    for text, left, unknown in _UNSEEN:
        read = read_prompt(text)
        said = " ".join(read.warnings)
        if read.text != left or not all(word in said for word in unknown):
            problems.append(f"{text!r} is read as {read.text!r} with the warnings {read.warnings}")
    requests, built = bench.build_all([text for text, _, _ in _UNSEEN])
    return bench.verdict(problems, requests, built)


def contradictions(bench: Bench) -> Outcome:
    """Say two things that cannot both be."""
    problems = []
    for text, attribute, value in _CONTRADICTIONS:
        read = read_prompt(text)
        if getattr(read.attributes, attribute) != value or not any("contradict" in line for line in read.warnings):
            problems.append(f"{text!r} is read as {read.text!r} with the warnings {read.warnings}")
    requests, built = bench.build_all([text for text, _, _ in _CONTRADICTIONS])
    return bench.verdict(problems, requests, built)


def odd_text(bench: Bench) -> Outcome:
    """Mistype, shout, write in other alphabets, at any length, with control characters."""
    endless = " ".join(["tall oak"] * (_WORDS // 2))
    plain = read_prompt(PLAIN)
    problems = [_unlike(PLAIN.upper(), plain.attributes, warned=False), _unlike(_MISTYPED, plain.attributes)]
    problems += [_unlike(text, Attributes()) for text in _SILENT]
    if not any(str(LONGEST) in line for line in read_prompt(endless).warnings):
        problems.append(f"{_WORDS:,} words: no warning that only {LONGEST} are read")
    texts = [PLAIN.upper(), _MISTYPED, *_SILENT, endless, *_HOSTILE]
    problems += [_unclean(text) for text in texts]
    requests, built = bench.build_all(texts)
    return bench.verdict(problems, requests, built)


def _unlike(text: str, expected: Attributes, *, warned: bool = True) -> str:
    read = read_prompt(text)
    if read.attributes != expected or bool(read.warnings) != warned:
        return f"{text[:40]!r} is read as {read.text[:40]!r} with {len(read.warnings)} warnings"
    return ""


def _unclean(text: str) -> str:
    """What is wrong with the words that are left: not those of captions, or what may harm a terminal."""
    read = read_prompt(text)
    strange = [word for word in tokens(read.text) if word not in _KNOWN]
    if strange:
        return f"{text[:20]!r}: {strange[:3]} are no words of captions"
    unprintable: Sequence[str] = [line for line in (read.text, *read.warnings) if not line.isprintable()]
    return f"{text[:20]!r}: control characters are passed on: {unprintable[0][:40]!r}" if unprintable else ""


EMPTY = Case(
    1,
    "empty prompt",
    "What says nothing is read as nothing; all structures are valid, and at most one of ten seeds makes "
    "what another one makes.",
    empty_prompt,
)
UNSEEN = Case(
    2,
    "unseen words",
    "Words that no caption has are left out and named in a warning; what is left is read as without them, and all "
    "structures are valid.",
    unseen_words,
)
CONTRADICTIONS = Case(
    3,
    "contradictions",
    "Of two words that contradict each other the last one holds, with a warning; all structures are valid.",
    contradictions,
)
ODD_TEXT = Case(
    4,
    "odd text",
    "Capitals change nothing, typing errors are mended with a warning, other alphabets say nothing with a warning, "
    "2,000 words are cut with a warning, control characters reach neither network nor terminal; all structures are "
    "valid.",
    odd_text,
)
