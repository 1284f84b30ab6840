"""Series of structures: variants of one build differ little, so a split takes all of a series or none of it."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SPLITS = ("train", "val", "test")
#: What tells variants apart at the end of a name: `11`, `_3b`, `-2`, ` (4)`, ` copy`, `_a`.
_VARIANT = re.compile(r"[-_. ]*(?:\d+[a-z]?|\(\d+\)|[-_. (]copy\)?|[-_. ][a-z])$")


def series_of(file: str, root: str = "") -> str:
    """Name the series of a file: its folder and its stem without what tells variants apart.

    Args:
        file: Path relative to the ingested folder, with slashes.
        root: Name of the ingested folder, which stands in for the folder of files that lie in it directly.

    Returns:
        `jungle/palm` for `iris/jungle/palm11.iob`; the folder alone where a name is nothing but a number.
    """
    path = PurePosixPath(unicodedata.normalize("NFC", file))
    stem = path.stem.casefold()
    while (shorter := _VARIANT.sub("", stem)) != stem:
        stem = shorter
    folder = (path.parent.name or root).casefold()
    return f"{folder}/{stem}" if folder else stem or path.stem.casefold()


def split_series(
    members: Iterable[tuple[str, str]], *, seed: int, val_share: float, test_share: float
) -> dict[str, str]:
    """Give every series a split, in an order that depends on nothing but their names.

    Series that share a structure (a birch that is an oak in other colours) go together. The splits get their shares of
    the structures as nearly as whole groups allow.

    Args:
        members: Series and shape of every structure, see
            :func:`vernissage.sculptor.prepare.symmetry.symmetry_key`; their order does not matter.
        seed: Another one deals the series out anew.
        val_share: Share of the structures that go to `val`.
        test_share: Share of the structures that go to `test`.

    Returns:
        Series to split. Where so few leave `train` empty, all of them go there.
    """
    pairs = sorted(members)
    group_of = _linked(pairs)
    counts = Counter(group_of[series] for series, _ in pairs)
    splits: dict[str, str] = {}
    before = 0
    for group in sorted(counts, key=lambda name: _place(name, seed)):
        middle = (before + counts[group] / 2) / len(pairs)
        splits[group] = "test" if middle < test_share else "val" if middle < test_share + val_share else "train"
        before += counts[group]
    if "train" not in splits.values():
        splits = dict.fromkeys(splits, "train")
    return {series: splits[group] for series, group in group_of.items()}


def _linked(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Series to the name of its group: the first, by name, of all that shared shapes lead to."""
    parent: dict[str, str] = {}
    first_with: dict[str, str] = {}

    def root(series: str) -> str:
        while parent[series] != series:
            series = parent[series]
        return series

    for series, shape in pairs:
        parent.setdefault(series, series)
        ends = sorted({root(series), root(first_with.setdefault(shape, series))})
        parent[ends[-1]] = ends[0]
    return {series: root(series) for series in parent}


def _place(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogatepass")).digest()
