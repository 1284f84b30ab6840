"""Sizes of grids: three with a name, any other within the limits."""

from __future__ import annotations

import re
from typing import NamedTuple

from vernissage.core.errors import BadInput


class Size(NamedTuple):
    """Extent of a grid in blocks, Y up; arrays are (Y, Z, X) = (height, depth, width)."""

    width: int
    height: int
    depth: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """As of an array: (Y, Z, X)."""
        return self.height, self.depth, self.width

    def holds(self, other: Size) -> bool:
        """Whether a structure of the other size fits in."""
        return all(mine >= theirs for mine, theirs in zip(self, other, strict=True))

    def __str__(self) -> str:
        return "x".join(map(str, self))


SIZES = {"normal": Size(16, 16, 16), "big": Size(16, 32, 16), "huge": Size(24, 64, 24)}
LARGEST = Size(64, 128, 64)


def parse_size(text: str) -> Size:
    """Read `normal`, `big`, `huge` or WIDTHxHEIGHTxDEPTH such as `16x32x16`.

    Raises:
        BadInput: It is neither, or not within 1x1x1 and 64x128x64.
    """
    name = text.strip().lower()
    if name in SIZES:
        return SIZES[name]
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})x(\d{1,6})", name)
    expected = f"expected {', '.join(SIZES)}, or WIDTHxHEIGHTxDEPTH from 1x1x1 to {LARGEST}, such as 16x32x16"
    if match is None:
        raise BadInput(f"size {text!r}: {expected}")
    size = Size(*map(int, match.groups()))
    if min(size) < 1 or not LARGEST.holds(size):
        raise BadInput(f"size {text!r}: {expected}")
    return size


def size_class(size: Size) -> str:
    """Return the name of the smallest named size that holds this one; `huge` where none does."""
    return next((name for name, named in SIZES.items() if named.holds(size)), "huge")
