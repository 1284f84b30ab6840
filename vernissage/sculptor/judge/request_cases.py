"""Robustness against odd requests: few and many steps, strong guidance, odd sizes, very many at once, fixed blocks."""

from __future__ import annotations

import math
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vernissage.sculptor.domain.roles import MASK, Role
from vernissage.sculptor.domain.sizes import LARGEST, SIZES, Size, parse_size
from vernissage.sculptor.judge.trials import (
    PLAIN,
    Bench,
    Case,
    Outcome,
    complaint,
    connectivity,
    invalid,
    refused,
    repeated,
    same,
)
from vernissage.sculptor.learn.building import Building

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from vernissage.sculptor.learn.model import Sculptor
    from vernissage.sculptor.learn.sculpting import Request, Sculpture

#: Steps, and how many structures are built in so many: the long ones are dear.
_STEPS = {1: 6, 2: 6, 4: 6, 8: 4, 12: 4, 32: 2, 128: 2}
_NO_STEPS = (0, -1, 5000)
_GUIDANCE = (0.0, 1.0, 3.0, 20.0)
_NO_GUIDANCE = (-1.0, math.nan, math.inf, 1000.0)
_FEW = 4
_TINY = Size(5, 5, 5)
#: Bytes by which the process may grow while it builds very many.
_MOST_GROWTH = 128 * 2**20
_SIZES = {Size(1, 1, 1): 4, Size(5, 9, 7): 4, Size(17, 31, 16): 3, SIZES["huge"]: 1, LARGEST: 1}
_NO_SIZES = ("65x128x64", "64x129x64", "0x5x5", "-1x5x5", "16x16", "1e3x2x2", "999999x999999x999999", "", "enormous")
_LARGE_PLAN = {"height": 64, "width": 24, "depth": 24}


def steps(bench: Bench) -> Outcome:
    """Build in one step and in very many."""
    problems, curve = [], {}
    everything: list[Sculpture] = []
    for count, structures in _STEPS.items():
        building = replace(bench.building, steps=count)
        asked = [bench.request(PLAIN, number) for number in range(min(bench.settings.structures, structures))]
        built = bench.build(asked, building)
        problems += [f"{count} steps: {problem}" for problem in _invalid(asked, built)]
        looks = {sculpture.evaluations for sculpture in built}
        if building.guidance == 1 and looks != {looks_of(building)}:
            problems.append(f"{count} steps take {sorted(looks)} looks, expected {looks_of(building)}")
        curve[count] = connectivity(built)
        everything += built
    problems += [refused(f"{count} steps", complaint(Building, steps=count), str(count)) for count in _NO_STEPS]
    found = "connectivity " + ", ".join(f"{value:.3f} in {count}" for count, value in curve.items())
    return replace(bench.verdict(problems, found=found), retained=bench.retained(everything))


def guidance(bench: Bench) -> Outcome:
    """Guide not at all, and far too much."""
    problems, curve = [], {}
    everything: list[Sculpture] = []
    asked = [bench.request(PLAIN, number) for number in range(min(bench.settings.structures, _FEW))]
    for scale in _GUIDANCE:
        building = replace(bench.building, guidance=scale)
        built = bench.build(asked, building, plan_guidance=scale)
        problems += [f"guidance {scale:g}: {problem}" for problem in _invalid(asked, built)]
        single = built[0].evaluations == looks_of(building)
        if single != (scale == 1):
            problems.append(f"guidance {scale:g} looks {built[0].evaluations} times in {building.steps} steps")
        curve[scale] = connectivity(built)
        everything += built
    problems += [
        refused(f"guidance {scale}", complaint(Building, guidance=scale), str(scale)) for scale in _NO_GUIDANCE
    ]
    found = "connectivity " + ", ".join(f"{value:.3f} at {scale:g}" for scale, value in curve.items())
    return replace(bench.verdict(problems, found=found), retained=bench.retained(everything))


def sameness(bench: Bench) -> Outcome:
    """Build the same requests again, in batches of 1, 7 and as many as settings say."""
    sizes = (SIZES["normal"], Size(9, 12, 7), Size(5, 9, 7), SIZES["normal"], Size(16, 20, 16))
    prompts = (PLAIN, "", "short birch", "wide acacia with a flat crown")
    quick = replace(bench.building, steps=2, edits=1, wood_edits=0)
    asked = [
        bench.request(prompts[number % len(prompts)], number, sizes[number % len(sizes)])
        for number in range(bench.settings.together)
    ]
    together = bench.build(asked, quick)
    problems = _invalid(asked, together)
    seven = bench.build(asked[:7], quick)
    alone = [bench.build([asked[number]], quick)[0] for number in range(0, 7, 2)]
    some = len(asked) // 4
    again = bench.build(asked[some - 1 :: -1], quick)[::-1]
    for name, other, mine in (
        ("7", seven, together[:7]),
        ("1", alone, together[:7:2]),
        (f"{some} in another order", again, together[:some]),
    ):
        differing = sum(not same(*pair) for pair in zip(mine, other, strict=True))
        if differing:
            problems.append(f"in a batch of {name}, {differing} of {len(other)} structures differ")
    seeds = [bench.request(PLAIN, number, Size(12, 12, 12)) for number in range(8)]
    if copies := repeated(bench.build(seeds, quick)):
        problems.append(f"of {len(seeds)} seeds {copies} make what another one makes")
    return bench.verdict(problems, found=f"{len(asked)} structures of {len(sizes)} sizes compared")


def very_many(bench: Bench) -> Outcome:
    """Ask for very many at once."""
    quick = replace(bench.building, steps=1, edits=0)
    asked = [bench.request(PLAIN, number, _TINY) for number in range(bench.settings.batch)]
    with largest_input(bench.sculptor) as few:
        bench.build(asked[: len(asked) // 10], quick)
    before, peaks = resident_bytes(), [0]
    with largest_input(bench.sculptor) as many:
        built = bench.build(asked, quick, done=lambda _: peaks.append(resident_bytes()))
    growth = max(peaks) - before
    problems = _invalid(asked, built)
    if max(many) > max(few):
        problems.append(f"the network sees {max(many):,} voxels at once, {max(few):,} with a tenth of the requests")
    if growth > _MOST_GROWTH:
        problems.append(f"the process grows by {growth / 2**20:.0f} MiB, expected at most {_MOST_GROWTH / 2**20:.0f}")
    if len(peaks) == 1:
        problems.append("nothing is said of how far it is")
    # What the process grew by is not the same on every machine; that it stayed below the limit is.
    return bench.verdict(problems, found=f"{len(built):,} structures, {max(many):,} voxels at once")


def odd_sizes(bench: Bench) -> Outcome:
    """Build in the smallest grid, in odd ones and in the largest; ask for sizes that there are not."""
    asked = [
        bench.request(PLAIN, number, size)
        for size, count in _SIZES.items()
        for number in range(min(bench.settings.structures, count))
    ]
    built = bench.build(asked)
    problems = _invalid(asked, built)
    for sculpture in built:
        filled = np.argwhere(sculpture.roles > 0)
        extent = np.ptp(filled, axis=0) + 1 if len(filled) else np.zeros(3)
        if (extent > SIZES["huge"].shape).any():
            problems.append(f"a structure of {extent.tolist()}, expected at most {SIZES['huge']}")
    if bench.sculptor.planner is not None:
        small = [bench.request(PLAIN, 0, Size(5, 9, 7), fixed=_LARGE_PLAN)]
        clamped = bench.build(small)
        problems += _invalid(small, clamped)
        plan = clamped[0].plan
        if plan is None or plan.shape != (9, 7, 5):
            problems.append(f"a plan of {None if plan is None else plan.shape} in 5x9x7, expected (9, 7, 5)")
    problems += [refused(f"size {text!r}", complaint(parse_size, text), repr(text), str(LARGEST)) for text in _NO_SIZES]
    return bench.verdict(problems, asked, built)


def fixed_blocks(bench: Bench) -> Outcome:
    """Fix blocks before building: a floating one, a trunk in a corner, a room that must stay empty."""
    size = SIZES["normal"]
    given = np.full(size.shape, MASK, np.uint8)
    given[13, 2, 2] = Role.GROUND
    given[0:3, 8:10, 8:10] = Role.WOOD
    given[15, 15, 0:4] = Role.LEAF_2
    given[4:8, 0:6, 10:16] = Role.AIR
    held = given != MASK
    count = max(2, bench.settings.structures // 2)
    asked = [bench.request(PLAIN, number, size, given=given) for number in range(count)]
    built = bench.build(asked, frames=True)
    problems = _invalid(asked, built)
    shown = [grid for sculpture in built for grid in (sculpture.roles, *sculpture.frames)]
    changed = sum(not np.array_equal(grid[held], given[held]) for grid in shown)
    if changed:
        problems.append(f"fixed blocks are changed in {changed} of {len(shown)} grids")
    free = [replace(sculpture, roles=np.where(held, Role.AIR, sculpture.roles).astype(np.uint8)) for sculpture in built]
    if any(sculpture.roles.any() for sculpture in bench.clean) and not any(part.roles.any() for part in free):
        problems.append("nothing is built beside the fixed blocks")
    everything = [bench.request("", 0, size, given=np.full(size.shape, Role.OTHER, np.uint8))]
    if not (bench.build(everything)[0].roles == Role.OTHER).all():
        problems.append("a grid in which all is fixed is changed")
    # What the user lets float is not what the sculptor failed to join.
    return replace(bench.verdict(problems, found=f"{len(shown)} grids compared"), retained=bench.retained(free))


def _invalid(asked: Sequence[Request], built: Sequence[Sculpture]) -> list[str]:
    return [problem for pair in zip(asked, built, strict=True) if (problem := invalid(*pair))]


def looks_of(building: Building) -> int:
    """How often the network looks at a structure that is not guided."""
    return sum(steps + looks for _, steps, looks in building.levels)


@contextmanager
def largest_input(sculptor: Sculptor) -> Iterator[list[int]]:
    """Yield a list that gets the voxels of every call of the network."""
    seen: list[int] = []

    def note(_: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(int(inputs[0].numel()))

    handle = sculptor.network.register_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def resident_bytes() -> int:
    """Memory that the process has now; where the system does not say, the most that it ever had."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        import os

        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource
    except ImportError:
        return 0
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


STEPS = Case(
    5,
    "1 to 128 steps",
    "In 1, 2, 4, 8, 12, 32 and 128 steps all structures are valid, and the network looks once a step and once an edit; "
    "0, -1 and 5,000 steps are refused by number.",
    steps,
)
GUIDANCE = Case(
    6,
    "guidance 0 to 20",
    "At 0, 1, 3 and 20, on plans and on voxels, all structures are valid; only at 1 the network looks no more than "
    "once a step; -1, nan, infinity and 1,000 are refused by number.",
    guidance,
)
SAMENESS = Case(
    7,
    "same seed, any batch",
    "A request makes the same structure, bit by bit, in batches of 1, 7 and 64, in any order and beside other sizes; "
    "different seeds make different ones.",
    sameness,
)
MANY = Case(
    8,
    "1,000 at once",
    "The network never sees more voxels at once than for a tenth of them, the process grows by at most 128 MiB, and "
    "all structures are valid.",
    very_many,
)
ODD_SIZES = Case(
    9,
    "odd sizes",
    "1x1x1, 5x9x7, 17x31x16, 24x64x24 and 64x128x64 give grids of that size with structures of at most 24x64x24; a "
    "plan that is larger than its grid is made to fit; other sizes are refused with what is expected.",
    odd_sizes,
)
FIXED_BLOCKS = Case(
    15,
    "fixed blocks",
    "Blocks and air that the user fixes, floating ones too, are in every step and in the result what they were; the "
    "rest is built; connectivity is that of the rest.",
    fixed_blocks,
)
