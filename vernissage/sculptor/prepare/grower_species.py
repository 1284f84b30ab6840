"""Habits: what each species of the grower may look like, as ranges and weights."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vernissage.sculptor.domain.attributes import Attributes

Range = tuple[float, float]
Weights = tuple[float, float, float]

# Lowest and highest crown that a form allows, in crown diameters: beyond it a ball would read as a disc or a column.
FORMS: dict[str, Range] = {
    "ball": (0.65, 1.15),
    "egg": (0.75, 1.35),
    "dome": (0.5, 0.75),
    "puffs": (0.6, 1.2),
    "cone": (0.7, 3.0),
    "tiers": (0.7, 3.0),
    "column": (1.9, 5.0),
    "umbrella": (0.0, 0.3),
    "pads": (0.0, 0.34),
    "curtain": (0.6, 1.0),
    "fronds": (0.0, 0.8),
    "mound": (0.3, 1.1),
    "none": (0.0, 1.2),
}
_FORMS_OF_CROWN = {
    "round": (("ball", 2.0), ("egg", 1.0), ("puffs", 1.0)),
    "conical": (("cone", 1.0), ("tiers", 1.0)),
    "flat": (("umbrella", 2.0), ("pads", 1.0)),
    "columnar": (("column", 1.0),),
    "weeping": (("curtain", 1.0),),
    "leafless": (("none", 1.0),),
}
HEIGHT_SHARES: tuple[Range, Range, Range] = ((0.31, 0.5), (0.51, 0.75), (0.76, 1.0))
WIDTH_SHARES: tuple[Range, Range, Range] = ((0.22, 0.5), (0.51, 0.8), (0.81, 1.0))


@dataclass(frozen=True)
class Habit:
    """Ranges that a species is drawn from; weights need not add up to one.

    Attributes:
        forms: Forms of the crown (keys of `FORMS`) with their weights.
        heights: Weights of short, medium and tall, relative to the grid.
        widths: Weights of narrow, medium and wide, relative to the grid.
        trunks: Weights of thin, thick and massive trunks.
        leans: Weights of straight, gently curved and leaning trunks.
        spread: Bounds of the diameter of the whole tree, in heights.
        bare: Share of the height below the crown.
        least: Smallest height in blocks, where the grid has room for it.
        heights_at: Height range of each class as a share of the grid.
        sparse: Chance of a crown with gaps.
        limbs: Chance of branches that can be seen.
        roots: Chance of roots at the base.
        vines: Chance of hanging vines.
        stray: Chance of a form that is not usual for the species, so that a prompt may ask for one.
    """

    forms: tuple[tuple[str, float], ...]
    heights: Weights = (1.0, 1.3, 1.2)
    widths: Weights = (0.6, 1.2, 1.5)
    trunks: Weights = (0.8, 0.9, 0.5)
    leans: Weights = (0.72, 0.12, 0.16)
    spread: Range = (0.3, 1.3)
    bare: Range = (0.2, 0.45)
    least: int = 5
    heights_at: tuple[Range, Range, Range] = field(default=HEIGHT_SHARES)
    sparse: float = 0.35
    limbs: float = 0.25
    roots: float = 0.25
    vines: float = 0.0
    stray: float = 0.12

    def steered(self, wanted: Attributes) -> Habit:
        """Return the same habit bent towards the attributes that are said: a draw from it mostly has them.

        What only the finished tree can tell (a crown that overgrows its branches, say) is left to chance.
        """
        bent = replace(
            self,
            heights=_one_of(wanted.height, ("short", "medium", "tall"), self.heights),
            widths=_one_of(wanted.width, ("narrow", "medium", "wide"), self.widths),
            trunks=_one_of(wanted.trunk, ("thin", "thick", "massive"), self.trunks),
            leans={"straight": (0.9, 0.1, 0.0), "leaning": (0.0, 0.0, 1.0)}.get(wanted.lean or "", self.leans),
            sparse=_certain(wanted.density, "sparse", self.sparse),
            limbs=_certain(wanted.branches, "branches", self.limbs),
            roots=_certain(wanted.roots, "roots", self.roots),
        )
        if wanted.crown is None or wanted.crown not in _FORMS_OF_CROWN:
            return bent
        fitting = _FORMS_OF_CROWN[wanted.crown]
        usual = tuple(pair for pair in self.forms if pair[0] in dict(fitting))
        return replace(bent, forms=usual or fitting, stray=0.0)


def _one_of(value: str | None, values: tuple[str, str, str], usual: Weights) -> Weights:
    """Put all weight on the value that is wanted; keep the usual weights where nothing is."""
    if value not in values:
        return usual
    low, middle, high = (float(value == other) for other in values)
    return low, middle, high


def _certain(value: str | None, yes: str, usual: float) -> float:
    return usual if value is None else float(value == yes)


HABITS: dict[str, Habit] = {
    "oak": Habit(
        forms=(("ball", 1.0), ("egg", 0.5), ("puffs", 1.0), ("dome", 0.4), ("column", 0.15)),
        spread=(0.4, 1.5),
        limbs=0.35,
        roots=0.35,
    ),
    "birch": Habit(
        forms=(("egg", 1.0), ("column", 1.1), ("ball", 0.4), ("puffs", 0.4)),
        heights=(0.7, 1.2, 1.5),
        widths=(1.2, 1.1, 0.7),
        trunks=(1.3, 0.7, 0.2),
        spread=(0.25, 0.85),
        bare=(0.25, 0.5),
        roots=0.12,
    ),
    "spruce": Habit(
        forms=(("tiers", 1.4), ("cone", 1.0)),
        heights=(0.8, 1.2, 1.5),
        widths=(0.9, 1.2, 0.9),
        leans=(0.86, 0.06, 0.08),
        spread=(0.25, 0.95),
        bare=(0.06, 0.25),
        limbs=0.12,
        roots=0.2,
    ),
    "pine": Habit(
        forms=(("cone", 1.0), ("tiers", 0.6), ("umbrella", 0.5), ("pads", 0.7)),
        heights=(0.6, 1.1, 1.6),
        widths=(0.9, 1.2, 0.9),
        trunks=(1.1, 0.8, 0.3),
        leans=(0.7, 0.15, 0.15),
        spread=(0.25, 0.85),
        bare=(0.4, 0.62),
        sparse=0.5,
        limbs=0.45,
        roots=0.2,
    ),
    "jungle": Habit(
        forms=(("dome", 1.0), ("puffs", 1.0), ("umbrella", 0.7), ("ball", 0.4)),
        heights=(0.6, 1.1, 1.7),
        trunks=(0.7, 1.0, 0.7),
        spread=(0.3, 1.1),
        bare=(0.4, 0.65),
        limbs=0.4,
        roots=0.55,
        vines=0.12,
    ),
    "acacia": Habit(
        forms=(("pads", 1.4), ("umbrella", 1.0)),
        heights=(1.2, 1.2, 0.6),
        widths=(0.4, 1.1, 1.6),
        trunks=(1.1, 0.8, 0.25),
        leans=(0.35, 0.2, 0.45),
        spread=(0.6, 1.9),
        bare=(0.45, 0.7),
        sparse=0.25,
        limbs=0.4,
        roots=0.15,
    ),
    "dark oak": Habit(
        forms=(("dome", 1.4), ("puffs", 0.8), ("umbrella", 0.3), ("ball", 0.3)),
        heights=(1.2, 1.3, 0.7),
        widths=(0.4, 1.1, 1.7),
        trunks=(0.3, 1.4, 0.8),
        spread=(0.6, 1.8),
        bare=(0.25, 0.5),
        sparse=0.2,
        limbs=0.35,
        roots=0.45,
    ),
    "willow": Habit(
        forms=(("curtain", 1.0),),
        heights=(1.0, 1.3, 0.9),
        widths=(0.5, 1.2, 1.5),
        trunks=(0.8, 1.0, 0.35),
        leans=(0.6, 0.2, 0.2),
        spread=(0.75, 1.7),
        bare=(0.4, 0.55),
        least=6,
        limbs=0.2,
        roots=0.45,
    ),
    "palm": Habit(
        forms=(("fronds", 1.0),),
        heights=(0.8, 1.3, 1.3),
        widths=(0.4, 1.2, 1.4),
        trunks=(1.5, 0.6, 0.12),
        leans=(0.35, 0.3, 0.35),
        spread=(0.45, 1.2),
        bare=(0.6, 0.8),
        sparse=0.15,
        limbs=0.0,
        roots=0.12,
        stray=0.04,
    ),
    "dead": Habit(
        forms=(("none", 1.0),),
        trunks=(1.0, 0.8, 0.4),
        leans=(0.6, 0.2, 0.2),
        spread=(0.3, 1.1),
        bare=(0.35, 0.6),
        limbs=0.9,
        roots=0.4,
        stray=0.0,
    ),
    "bush": Habit(
        forms=(("mound", 1.0),),
        heights=(1.0, 0.12, 0.0),
        trunks=(1.0, 0.15, 0.0),
        leans=(1.0, 0.0, 0.0),
        spread=(0.8, 2.2),
        bare=(0.0, 0.15),
        least=2,
        heights_at=((0.13, 0.4), (0.41, 0.56), (0.57, 0.8)),
        limbs=0.0,
        roots=0.0,
        stray=0.0,
    ),
}
