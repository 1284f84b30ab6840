"""Robustness of what is measured: a leak would show, copies show, chance shows, and so does rubbish."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from vernissage.core.seeds import numpy_generator, torch_generator
from vernissage.sculptor.domain.anatomy import judge_anatomy
from vernissage.sculptor.domain.language import caption, read_prompt
from vernissage.sculptor.domain.roles import MASK, OUTSIDE, Role
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.judge.adherence import (
    chance_adherence,
    macro_adherence,
    matches,
    measured,
    shuffled_macros,
)
from vernissage.sculptor.judge.novelty import COPY, NearestIndex, copied_share
from vernissage.sculptor.judge.trials import Bench, Case, Outcome, finite, small_shape, smallest
from vernissage.sculptor.learn.blueprints import Blueprint, guides_of, on_canvas
from vernissage.sculptor.learn.building import Building
from vernissage.sculptor.learn.examples import Examples, examples_of
from vernissage.sculptor.learn.model import Sculptor
from vernissage.sculptor.learn.noise import (
    NOT_WOOD,
    Corruption,
    Level,
    even_times,
    is_wood,
    noised,
    weighted_loss,
)
from vernissage.sculptor.learn.sculpting import Request, Sculpture, sculpt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vernissage.sculptor.domain.attributes import Attributes
    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.domain.sizes import Size

_LEARNED, _LEARNED_FROM = 8, 300
_UPDATES, _LR, _WARM_UP = 150, 1e-2, 0.1
_COPIED_IOU = 0.9
_HELD_OUT, _SHUFFLES = 96, 400
# How many standard deviations of shuffled prompts are chance, and what rounding in a small sample adds.
_DEVIATIONS, _SLACK = 4.0, 0.02
_REAL, _RUBBISH = 0.99, 0.05
#: Blocks are strewn over this many times their number of voxels: far below where they would percolate by chance.
_ROOM = 50


def leaks(bench: Bench) -> Outcome:
    """Look whether all masked means all hidden, and whether learning by heart is noticed."""
    problems = [_leak(bench)]
    learned, examples = by_heart(bench)
    index = NearestIndex(examples.grids)
    requests = [
        Request(captions[0], SIZES["huge"], seed, plan=blueprint.plan)
        for seed, (blueprint, captions) in enumerate(zip(examples.blueprints, examples.captions, strict=True))
    ]
    built = sculpt(learned, requests, Building(wood_share=0))
    copied = [index.nearest(sculpture.roles).iou for sculpture in built]
    others = [index.nearest(grid).iou for grid in _held_out(bench.dataset).grids[:_HELD_OUT]]
    if np.mean(copied) <= _COPIED_IOU:
        problems.append(
            f"a sculptor that learned {len(copied)} trees by heart has a nearest IoU of {np.mean(copied):.3f}"
        )
    if np.mean(copied) <= np.mean(others) or copied_share(copied) <= copied_share(others):
        problems.append(f"held-out trees are as near ({np.mean(others):.3f}) as copies ({np.mean(copied):.3f})")
    found = (
        f"learned by heart: nearest IoU {np.mean(copied):.3f}, {copied_share(copied):.0%} above {COPY}; held-out trees "
        f"{np.mean(others):.3f}, {copied_share(others):.0%}; connectivity {_connectivity(built):.3f}"
    )
    return bench.verdict(problems, found=found)


def shuffled(bench: Bench) -> Outcome:
    """Deal the captions out anew: what was said must then hold as often as chance has it."""
    held = _held_out(bench.dataset)
    rng = numpy_generator(bench.seed, "captions")
    rows = rng.permutation(len(held))[:_HELD_OUT]
    attributes = held.attributes()
    prompts = [caption(attributes[row], rng) for row in rows]
    said = [read_prompt(text).attributes for text in prompts]
    sizes = [SIZES[held.table["size"].iloc[row]] for row in rows]
    true = [measured(held.grids[row], attributes[row].species, size) for row, size in zip(rows, sizes, strict=True)]
    real = _Rated.of(said, true, rng)
    problems = [real.problem("held-out structures")]
    if not real.own >= _REAL:
        problems.append(f"captions hold of their own structures in {finite(real.own)}, expected all")
    if not real.own - real.chance > _DEVIATIONS * real.deviation:
        problems.append(f"chance alone reaches {finite(real.chance)}")
    count = min(len(rows), bench.settings.structures)
    built = bench.build([bench.request(prompts[place], place, sizes[place]) for place in range(count)])
    seen = [_measured(sculpture, size) for sculpture, size in zip(built, sizes, strict=False)]
    made = _Rated.of(said[:count], seen, rng)
    problems.append(made.problem("built structures"))
    return bench.verdict(problems, found=f"held-out {real.said()}; built {made.said()}")


def scrambled(bench: Bench) -> Outcome:
    """Judge real structures, and the same blocks strewn about."""
    rng = np.random.default_rng(bench.seed)
    grids = _held_out(bench.dataset).grids[:_HELD_OUT]
    real = [judge_anatomy(grid) for grid in grids]
    rubbish = [judge_anatomy(strewn(grid, rng)) for grid in grids]
    whole, broken = (float(np.mean([anatomy.connectivity for anatomy in some])) for some in (real, rubbish))
    standing, fallen = (float(np.mean([anatomy.cast_success for anatomy in some])) for some in (real, rubbish))
    problems = [] if whole >= _REAL else [f"real structures have a connectivity of {whole:.3f}"]
    problems += (
        [] if broken <= _RUBBISH and fallen <= _RUBBISH else [f"strewn blocks have {broken:.3f} and {fallen:.3f}"]
    )
    if [anatomy.voxels for anatomy in real] != [anatomy.voxels for anatomy in rubbish]:
        problems.append("strewing changes the number of blocks")
    found = f"connectivity {whole:.3f} and {broken:.3f}, wood in one piece {standing:.0%} and {fallen:.0%}"
    return bench.verdict(problems, found=found)


def strewn(grid: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same blocks at random places of a room in which they hardly touch; one lies on the ground."""
    blocks = grid[grid > 0]
    side = int(np.ceil((_ROOM * len(blocks)) ** (1 / 3)))
    room = np.zeros(side**3, np.uint8)
    room[rng.choice(side**3, len(blocks), replace=False)] = rng.permutation(blocks)
    return room.reshape(side, side, side)


def by_heart(bench: Bench) -> tuple[Sculptor, Examples]:
    """Teach a small sculptor a few trees, always the same way round, until it knows nothing else.

    Returns:
        The sculptor, and what it learned.
    """
    everything = examples_of(
        smallest(bench.dataset, train=_LEARNED_FROM, val=1).part("train"), "plan", captions=1, seed=bench.settings.seed
    )
    shape = small_shape("plan")
    canvas, rows = _alike(everything.blueprints, shape.network.multiple)
    examples = replace(
        everything,
        blueprints=tuple(everything.blueprints[row] for row in rows),
        grids=tuple(everything.grids[row] for row in rows),
        captions=tuple(everything.captions[row] for row in rows),
        sizes=tuple(everything.sizes[row] for row in rows),
        own=tuple(everything.own[row] for row in rows),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.seed)
        sculptor = Sculptor(shape)
    guides = guides_of(examples.blueprints, canvas, "plan")
    x0 = torch.from_numpy(np.stack([on_canvas(grid, canvas) for grid in examples.grids])).long()
    roles, drawn = torch.tensor(examples.roles), torch.full_like(x0, OUTSIDE)
    levels = torch.full((len(x0),), int(Level.ALL))
    weights = [*sculptor.network.parameters(), *sculptor.words.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=_LR, betas=(0.9, 0.99), weight_decay=0.0)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LR, total_steps=_UPDATES, pct_start=_WARM_UP)
    generator = torch_generator(bench.seed, "by heart")
    for _ in range(_UPDATES):
        times = even_times(len(x0), generator)
        seen = noised(x0, times, levels, Corruption(), generator, drawn=drawn, roles=roles)
        condition = sculptor.network.condition(sculptor.words([told[0] for told in examples.captions]), guides.values)
        loss = weighted_loss(sculptor.network(seen.tokens, guides.channels, condition), x0, seen)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        rate.step()
    return sculptor.eval().requires_grad_(requires_grad=False), examples


class _Rated:
    """How often prompts hold of structures, of their own and of others'.

    Attributes:
        own: Macro adherence, species apart.
        dealt: The same after every prompt went to the next structure.
        chance: What to expect of that.
        deviation: How far chance strays.
    """

    def __init__(self, own: float, dealt: float, chance: float, deviation: float) -> None:
        self.own, self.dealt, self.chance, self.deviation = own, dealt, chance, deviation

    @staticmethod
    def of(said: Sequence[Attributes], found: Sequence[Attributes], rng: np.random.Generator) -> _Rated:
        """Rate prompts and what was measured, in the same order."""
        rolled = [*found[1:], found[0]]
        own, dealt = (
            macro_adherence([matches(*pair) for pair in zip(said, some, strict=True)]).macro for some in (found, rolled)
        )
        spread = float(shuffled_macros(said, found, rng, _SHUFFLES).std())
        return _Rated(own, dealt, chance_adherence(said, found).macro, spread)

    def problem(self, name: str) -> str:
        """What is wrong with prompts that were dealt out anew."""
        if abs(self.dealt - self.chance) <= _DEVIATIONS * self.deviation + _SLACK:
            return ""
        return f"{name}: {finite(self.dealt)} with others' captions, expected chance ({finite(self.chance)})"

    def said(self) -> str:
        """In a few words."""
        return f"{finite(self.own)}, with others' captions {finite(self.dealt)}, chance {finite(self.chance)}"


def _measured(sculpture: Sculpture, size: Size) -> Attributes:
    species = sculpture.plan.species if sculpture.plan is not None else None
    return measured(sculpture.roles, species, size)


def _held_out(dataset: Dataset) -> Dataset:
    """Structures that nothing was learned from."""
    return next(part for split in ("test", "val", "train") if len(part := dataset.part(split)))


def _connectivity(built: Sequence[Sculpture]) -> float:
    return float(np.mean([judge_anatomy(sculpture.roles).connectivity for sculpture in built]))


def _alike(blueprints: Sequence[Blueprint], multiple: int) -> tuple[tuple[int, int, int], list[int]]:
    """The smallest canvas that enough structures share, or the one that most do, and these structures."""
    groups: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for row, blueprint in enumerate(blueprints):
        groups[blueprint.canvas(multiple)].append(row)
    enough = min(_LEARNED, max(map(len, groups.values())))
    canvas = min((one for one, rows in groups.items() if len(rows) >= enough), key=lambda one: (np.prod(one), one))
    return canvas, groups[canvas][:_LEARNED]


@torch.no_grad()
def _leak(bench: Bench) -> str:
    """What is wrong at a mask ratio of 1: something can be seen, or the answer depends on what is hidden."""
    sculptor, seed = bench.sculptor, bench.seed
    examples = examples_of(smallest(bench.dataset, train=4, val=1).part("train"), sculptor.first, captions=1, seed=seed)
    blueprint, grid = examples.blueprints[-1], examples.grids[-1]
    canvas = blueprint.canvas(sculptor.shape.network.multiple)
    guides = guides_of([blueprint], canvas, sculptor.first)
    values = None if guides.values is None else guides.values.to(sculptor.device)
    condition = sculptor.network.condition(sculptor.words(list(examples.captions[-1])), values)
    hidden = torch.from_numpy(on_canvas(grid, canvas)).long()[None]
    roles = torch.tensor(examples.roles)
    drawn = roles[torch.randint(len(roles), hidden.shape, generator=torch_generator(seed, "other"))]
    other = drawn.masked_fill(hidden == OUTSIDE, OUTSIDE)

    def answer(x0: torch.Tensor, ratio: float, level: Level) -> tuple[torch.Tensor, torch.Tensor]:
        at, generator = (torch.tensor([ratio]), torch.tensor([int(level)])), torch_generator(seed, "mask")
        # What was drawn earlier is made of what was hidden then: it must not be seen either.
        tokens = noised(x0, *at, bench.training.corruption, generator, drawn=x0, roles=roles).tokens
        logits = sculptor.network(tokens.to(sculptor.device), guides.channels.to(sculptor.device), condition)
        return tokens, logits

    wood = is_wood(hidden)
    # The last level is shown the wood: there the rest must be hidden.
    soft = torch.where(wood, hidden, other.masked_fill(is_wood(other), Role.AIR))
    for level, theirs, secret in (
        (Level.ALL, other, hidden != OUTSIDE),
        (Level.WOOD, other, hidden != OUTSIDE),
        (Level.REST, soft, (hidden != OUTSIDE) & ~wood),
    ):
        tokens, logits = answer(hidden, 1.0, level)
        if not bool((tokens[secret] == (NOT_WOOD if level is Level.REST else MASK)).all()):
            return f"at a mask ratio of 1 something can be seen (level {level.name})"
        if not torch.equal(logits, answer(theirs, 1.0, level)[1]):
            return f"at a mask ratio of 1 the answer depends on what is hidden (level {level.name})"
    # Without this the test could not fail.
    if torch.equal(answer(hidden, 0.5, Level.ALL)[1], answer(other, 0.5, Level.ALL)[1]):
        return "at a mask ratio of .5 the answer does not depend on what can be seen"
    return ""


LEAKS = Case(
    18,
    "leaks and copies",
    "At a mask ratio of 1 all that a level hides is masked and the answer is the same, bit by bit, for any two "
    "structures, at .5 it is not; a sculptor that learned 8 trees by heart is told by its nearest IoU: above .9, and "
    "above that of held-out trees.",
    leaks,
)
SHUFFLED = Case(
    19,
    "shuffled captions",
    "Captions hold of their own held-out structures; dealt out anew they hold as often as chance says (4 standard "
    "deviations and .02), of held-out structures and of those that were built for them.",
    shuffled,
)
SCRAMBLED = Case(
    20,
    "scrambled structures",
    "Held-out structures have a connectivity of at least .99; the same blocks strewn over fifty times their room have "
    "at most .05, and their wood is not in one piece.",
    scrambled,
)
