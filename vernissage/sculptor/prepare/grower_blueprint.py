"""Blueprints of the grower: every number of a tree, drawn from its species' habit before anything is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vernissage.sculptor.prepare.grower_shapes import face_path, footprint
from vernissage.sculptor.prepare.grower_species import FORMS, WIDTH_SHARES, Habit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vernissage.sculptor.domain.sizes import Size

_STRAY_FORMS = ("ball", "egg", "puffs", "cone", "tiers", "column", "umbrella", "pads", "curtain", "none")


@dataclass(frozen=True)
class Blueprint:
    """The numbers that one tree is built from.

    Attributes:
        form: Of the crown.
        shape: (Y, Z, X) of the grid that the tree is built in.
        trunk: (n, 3) int cells of the trunk's axis, from the ground up, face to face.
        axis: (Y, 2) float z, x of the crown's axis.
        base: Lowest layer of the crown.
        radius: Of the crown, in blocks.
        section: (k, 2) offsets of the trunk's cross-section at the ground.
        taper: Share of the cross-section that is lost at the top of the trunk.
        sparse: Share of the leaves that go to gaps.
        limbs: Number of branches to be seen.
        roots: Number of roots.
        vines: Whether vines hang from the leaves.
        hollow: Whether a large crown is a shell.
    """

    form: str
    shape: tuple[int, int, int]
    trunk: np.ndarray
    axis: np.ndarray
    base: int
    radius: float
    section: np.ndarray
    taper: float
    sparse: float
    limbs: int
    roots: int
    vines: bool
    hollow: bool

    @property
    def fork(self) -> int:
        """Lowest layer that a branch may start from; the trunk itself reaches it."""
        low = 0.4 * self.shape[0] if self.form == "none" else self.base - 0.12 * self.shape[0]
        return int(np.clip(low, 0, self.trunk[-1, 0]))


def _pick(weights: Sequence[float], rng: np.random.Generator) -> int:
    """Draw an index by weight."""
    total = np.cumsum(weights)
    return int(np.searchsorted(total, rng.random() * total[-1], side="right"))


def draw_blueprint(habit: Habit, size: Size, rng: np.random.Generator) -> Blueprint:
    """Draw every number of a tree, from the whole to the parts."""
    height = _draw_height(habit, size, rng)
    width = _draw_width(habit, height, size, rng)
    form = _draw_form(habit, height, width, rng)
    lowest = FORMS[form][0]
    if lowest > 0:
        width = int(np.clip(round((height - 1) / lowest), min(3, width), width))
    base = _crown_base(habit, form, height, width, rng)
    cap = _cap(form, height, base, rng)
    top = max(0, height - 1 - cap)
    shift, bow = _draw_lean(habit, top, width, size, rng)
    room = (min(size.depth, width + abs(round(shift[0] * 0.6))), min(size.width, width + abs(round(shift[1] * 0.6))))
    middle = (np.array(room) - 1) / 2
    section = _draw_section(habit, width, height, rng)
    trunk, axis = _trunk_and_axis(height, top, middle, shift, bow, room)
    radius = max(0.5, (width - 0.7 * float(np.hypot(*shift))) / 2 - 0.1)
    return Blueprint(
        form=form,
        shape=(height, *room),
        trunk=trunk,
        axis=axis,
        base=base,
        radius=max(radius, 0.3 * width),
        section=section,
        taper=float(rng.uniform(0.75 if form == "none" else 0.4, 1.0)),
        sparse=float(rng.uniform(0.45, 0.65)) if rng.random() < habit.sparse else float(rng.uniform(0.0, 0.06)),
        limbs=_draw_limbs(habit, form, height, rng),
        roots=int(rng.integers(3, 6)) if rng.random() < habit.roots and width >= 4 and height >= 5 else 0,
        vines=rng.random() < habit.vines,
        hollow=radius > 5 and rng.random() < (0.85 if radius > 8 else 0.5),
    )


def _draw_form(habit: Habit, height: int, width: int, rng: np.random.Generator) -> str:
    """Draw the form of the crown; one that could not fill this height with leaves is less likely."""
    if rng.random() < habit.stray:
        return _STRAY_FORMS[int(rng.integers(len(_STRAY_FORMS)))]
    leafy = (1 - habit.bare[1]) * height
    weights = [weight * min(1.0, FORMS[form][1] * width / leafy) for form, weight in habit.forms]
    return habit.forms[_pick(weights, rng)][0]


def _draw_height(habit: Habit, size: Size, rng: np.random.Generator) -> int:
    """Draw a height of a class; grids of more than 16 layers start higher, because a smaller grid holds the rest."""
    low, high = habit.heights_at[_pick(habit.heights, rng)]
    if size.height > 16:
        low = max(low, min(high, 1.3 * habit.heights_at[0][0]))
    height = round(rng.uniform(low, high) * size.height)
    return int(np.clip(height, min(habit.least, size.height), size.height))


def _draw_width(habit: Habit, height: int, size: Size, rng: np.random.Generator) -> int:
    """Draw the diameter of the crown: a class of the grid's width, within what the species allows at this height."""
    widest = max(size.width, size.depth)
    low, high = WIDTH_SHARES[_pick(habit.widths, rng)]
    width = rng.uniform(low, high) * widest
    width = float(np.clip(width, habit.spread[0] * height, max(3.0, habit.spread[1] * height)))
    return int(np.clip(round(width), min(3, widest), widest))


def _crown_base(habit: Habit, form: str, height: int, width: int, rng: np.random.Generator) -> int:
    """Draw the lowest layer of the crown, so that the crown keeps the proportions of its form."""
    base = round(rng.uniform(*habit.bare) * height)
    lowest, tallest = FORMS[form]
    low = round(lowest * width * rng.uniform(1.0, 1.1))
    high = max(2, round(tallest * width * rng.uniform(0.85, 1.0)))
    if form in {"umbrella", "pads"}:
        high = min(high, max(2, round(0.45 * height)))
    base = int(np.clip(base, height - max(low, high), height - low))
    return int(np.clip(base, 0 if form == "mound" else 1, max(0, height - 2)))


def _cap(form: str, height: int, base: int, rng: np.random.Generator) -> int:
    """Draw how many layers of leaves are above the trunk."""
    if form == "none" or height < 3:
        return 0 if form == "none" else height - 1
    if form == "fronds":
        return 1
    most = max(1, min(3, (height - base) // 4))
    least = 2 if form in {"cone", "tiers"} and height - base > 5 else 1
    return int(rng.integers(least, max(least, most) + 1))


def _draw_lean(
    habit: Habit, top: int, width: int, size: Size, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[float, float]]:
    """Draw how far the trunk's top moves sideways (z, x), and its bend: exponent of the path, size of its bow."""
    kind = _pick(habit.leans, rng)
    angle = rng.uniform(0, 2 * np.pi)
    away = np.array([np.sin(angle), np.cos(angle)])
    if kind == 0 or top < 3:
        wobble = float(rng.random() < 0.25 and width > 4)
        return away * wobble, (1.0, 0.0)
    if kind == 1:
        # More than a few blocks would be a lean.
        most = min(1.0, 18 / top)
        return away * rng.uniform(0.05, 0.18) * top * most, (
            float(rng.uniform(0.7, 2.0)),
            float(rng.uniform(0.03, 0.1) * top * most),
        )
    far = max(2.6, rng.uniform(0.32, 0.6) * top)
    far = min(far, 0.75 * min(size.width, size.depth) - 1)
    return away * max(0.0, far), (float(rng.uniform(0.75, 1.5)), 0.0)


def _trunk_and_axis(
    height: int,
    top: int,
    middle: np.ndarray,
    shift: np.ndarray,
    bow: tuple[float, float],
    room: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Lay the trunk's path, and the axis that crown layers are centred on."""
    share = np.linspace(0, 1, top + 1) if top else np.zeros(1)
    exponent, arch = bow
    side = np.array([-shift[1], shift[0]]) / max(1e-6, float(np.hypot(*shift)))
    path = middle - 0.5 * shift + share[:, None] ** exponent * shift + np.sin(np.pi * share)[:, None] * arch * side
    path = np.clip(path, 0, np.array(room) - 1)
    cells = np.floor(path + 0.5)
    trunk = face_path(np.column_stack([np.arange(top + 1), cells]))
    axis = np.concatenate([cells, np.repeat(cells[-1:], height - len(cells), axis=0)])
    return trunk, axis


def _draw_limbs(habit: Habit, form: str, height: int, rng: np.random.Generator) -> int:
    """Draw how many branches are to be seen; a tree without leaves usually has some."""
    usual = habit.limbs if form != "none" or habit.limbs == 0 else max(habit.limbs, 0.9)
    few = int(rng.integers(2, 5)) + height // 12
    return few if rng.random() < usual else 0


def _draw_section(habit: Habit, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the trunk's cross-section; a massive one needs a tree that can carry it."""
    # Very tall trees on one column of blocks are rare.
    slim, thick, massive = habit.trunks
    kind = _pick((slim * min(1.0, 14 / height), thick, massive * max(1.0, height / 24)), rng)
    if kind == 2 and (width < 7 or height < 5):
        kind = 1
    if kind == 1 and (width < 5 or height < 4):
        kind = 0
    if kind == 0:
        return footprint(1)
    if kind == 1:
        return footprint(int(rng.choice([2, 3, 4, 4, 4])))
    largest = max(5, min(21, round(0.11 * width * width), height))
    choices = [cells for cells in (5, 6, 7, 8, 9, 12, 16, 21) if cells <= largest]
    section = footprint(int(rng.choice(choices)))
    turn = int(rng.integers(4))
    return np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])[turn] * section
