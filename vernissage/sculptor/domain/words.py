"""Words of a prompt: how text is cut into them, which numbers stand for their pieces, what a misspelt one meant."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

COMMA, COLON, STOP = ",", ":", "."
MARKS = frozenset({COMMA, COLON, STOP})

#: Rows of an embedding table for n-grams, where nothing else is asked for.
BUCKETS = 2048
#: Things that one message lists.
MOST_LISTED = 20

_SHOWN_LETTERS = 24

_PIECE = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[,.:]")
_UNIT = r"(?: (?:blocks?|voxels?|m|met(?:er|re)s?))*"
_UP, _ACROSS = "(?P<up> tall| high|(?: in| of)? height)?", "(?: wide| broad| thick| deep| long| across)?"
_NUMBER = re.compile(
    rf" height(?: (?:of|is|about|around|[,:]))* (?P<named>\d\S*){_UNIT}(?= )"
    rf"| (?P<number>\d\S*){_UNIT}{_UP}{_ACROSS}(?= )"
)
# Letters after which a word's n-grams are no longer taken; no word of a prompt needs as many.
_LONGEST = 32
# What one slip costs. A letter left out or two swapped are what fingers do, so they are the likelier reading.
_SWAPPED, _LEFT_OUT, _TOO_MANY, _WRONG = 0.9, 0.9, 0.95, 1.0
# Readings whose costs differ by less are equally likely.
_CLEARLY = 0.04
_DROPPED = dict.fromkeys(map(ord, "'’‘`´ʼ"))
_MARKS_OF = {
    ord(sign): f" {mark} " for mark, signs in {COMMA: "/，、", STOP: ";!?()[]{}\n…。"}.items() for sign in signs
}
_SIGNS = {**_DROPPED, **_MARKS_OF, ord("&"): " and ", ord("+"): " and "}


def pieces(text: str) -> list[str]:
    """Cut text into words without accents or capitals, numbers, and the marks `,` `:` and `.`.

    Apostrophes are left out, hyphens part words, every mark that ends a clause becomes a full stop.

    Args:
        text: Anything; compatibility forms are made one (NFKC), control characters part words.

    Returns:
        Words, numbers and marks in their order.
    """
    # Line ends are marks, so they are replaced before anything counts them as white space.
    plain = unicodedata.normalize("NFKC", text.translate(_SIGNS)).translate(_SIGNS).casefold()
    folded = "".join(sign for sign in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(sign))
    return _PIECE.findall(folded)


def tokens(text: str) -> list[str]:
    """Return the words and numbers of a text, as an encoder sees them.

    >>> tokens("A flat-topped Acacia, 12 high!")
    ['a', 'flat', 'topped', 'acacia', '12', 'high']
    """
    return [piece for piece in pieces(text) if piece not in MARKS]


def heights(found: list[str]) -> tuple[list[str], list[int], list[str]]:
    """Take heights in blocks out of a prompt: "20 blocks tall", "12 high", "height of 30".

    Args:
        found: Pieces of the prompt.

    Returns:
        The pieces without numbers, the heights in blocks, and the numbers that are no height, with their unit.
    """
    blocks: list[int] = []
    unread: list[str] = []

    def take(match: re.Match[str]) -> str:
        number = match["named"] or match["number"]
        if number.isdecimal() and (match["named"] or match["up"]):
            # Python refuses to convert very long numbers; any that is too high for a grid will do in their place.
            blocks.append(int(number) if len(number) < 9 else 10**9)
        else:
            unread.append(match[0].strip())
        return " "

    rest = _NUMBER.sub(take, f" {' '.join(found)} ").split()
    return rest, blocks, unread


@lru_cache(maxsize=10_000)
def ngrams(word: str, buckets: int = BUCKETS) -> tuple[int, ...]:
    """Return numbers of a word's pieces of 3 to 5 letters, with marks where it begins and ends.

    The numbers are CRC-32 modulo the buckets, the same in every process, so that weights can be trained for them
    (subword embeddings as in Bojanowski et al. 2017, arXiv:1607.04606, section 3.2).

    Args:
        word: One word; its first 32 letters count.
        buckets: How many different numbers there are.

    Returns:
        At least one number in [0, buckets), in the order of the pieces; numbers may repeat.
    """
    marked = f"<{word[:_LONGEST]}>"
    found = [marked[at : at + n] for n in (3, 4, 5) for at in range(len(marked) - n + 1)] or [marked]
    return tuple(zlib.crc32(piece.encode("utf-8", "surrogatepass")) % buckets for piece in found)


def slips(typed: str, meant: str) -> float:
    """Return what it costs to have typed one word for another: about 1 for each slip of the fingers.

    Letters left out, added, wrong, or swapped with their neighbour (Damerau–Levenshtein, optimal string alignment).
    """
    rows = [[column * _LEFT_OUT for column in range(len(meant) + 1)]]
    for i, letter in enumerate(typed, 1):
        row = [i * _TOO_MANY]
        for j, other in enumerate(meant, 1):
            best = rows[i - 1][j - 1] + (0.0 if letter == other else _WRONG)
            best = min(best, row[j - 1] + _LEFT_OUT, rows[i - 1][j] + _TOO_MANY)
            if i > 1 and j > 1 and (letter, typed[i - 2]) == (meant[j - 2], other) and letter != other:
                best = min(best, rows[i - 2][j - 2] + _SWAPPED)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]


@dataclass(frozen=True)
class Speller:
    """Reads misspelt words as known ones.

    Attributes:
        means: What each known word stands for: a doubt between two that stand for the same is none.
        shortened: Known words by every form of them that lacks up to two letters; two words that are few slips apart
            share such a form.
    """

    means: Mapping[str, object]
    shortened: Mapping[str, frozenset[str]]

    @staticmethod
    def of(means: Mapping[str, object]) -> Speller:
        """Make one that knows these words."""
        found: dict[str, set[str]] = defaultdict(set)
        for word in means:
            for form in _shortened(word):
                found[form].add(word)
        return Speller(means, {form: frozenset(words) for form, words in found.items()})

    def read(self, word: str) -> str | None:
        """Return the known word that was meant, or None where there is none, or no single likely one.

        One slip is forgiven, two where both have seven letters or more; in a word of three letters, no wrong letter.
        The first letter must be among the first two of the other: it is seldom the one that slipped, and else `free`
        would be a `tree` and `line` a `pine`.
        """
        allowed = {0: 0.0, 1: 0.0, 2: 0.0, 3: _LEFT_OUT}.get(len(word), 1.0 if len(word) < 7 else 2.0)
        if not allowed or len(word) > _LONGEST:
            return None
        near = {known for form in _shortened(word) for known in self.shortened.get(form, ()) if known[0] in word[:2]}
        costs = sorted((slips(word, known), known) for known in near if word[0] in known[:2])
        likely = [
            known
            for cost, known in costs
            if cost <= (allowed if len(known) >= 7 else min(allowed, 1.0)) and cost < costs[0][0] + _CLEARLY
        ]
        return likely[0] if likely and all(self.means[known] == self.means[likely[0]] for known in likely) else None


def with_articles(text: str) -> str:
    """Make every indefinite article "a" or "an", as the word behind it begins."""
    return re.sub(r"\ban? (?=(\w))", lambda found: "an " if found[1] in "aeiou" else "a ", text)


def listed(items: Sequence[str]) -> str:
    """Return "a, b and c"; at least one item."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def quoted(words: Sequence[str]) -> str:
    """List words of a user in quotes, as many and as much of each as a message can bear."""
    cut = [f"{word[:_SHOWN_LETTERS]}…" if len(word) > _SHOWN_LETTERS else word for word in words[:MOST_LISTED]]
    more = len(words) - len(cut)
    return ", ".join(f"'{word}'" for word in cut) + (f" and {more} more" if more else "")


def _shortened(word: str) -> Iterable[str]:
    once = {word[:at] + word[at + 1 :] for at in range(len(word))}
    return {word, *once, *(form[:at] + form[at + 1 :] for form in once for at in range(len(form)))}
