"""Arms of the benchmark: everything that can answer the same requests, from an empty grid to the grower itself."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vernissage.core.errors import BadInput
from vernissage.core.seeds import numpy_generator
from vernissage.sculptor.domain.attributes import ATTRIBUTES, Attributes
from vernissage.sculptor.domain.plan import SPECIES
from vernissage.sculptor.domain.sizes import SIZES, Size, size_class
from vernissage.sculptor.judge.soft_mixture import soft_mixture
from vernissage.sculptor.learn.sculpting import Request, sculpt, with_steps
from vernissage.sculptor.prepare.grower import grow_like

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.domain.plan import Plan
    from vernissage.sculptor.learn.building import Building, Order
    from vernissage.sculptor.learn.model import Sculptor

OURS, HELD_OUT, REAL = "ours", "held-out", "real trees"
ALL_AIR, GROWER, RETRIEVAL = "all air", "grower (ceiling)", "retrieval"
SOFT_MIXTURE, ANCESTRAL = "soft mixture", "ancestral"
_OTHER = SPECIES[-1]
#: Steps of the plain samplers: few, many, and the updates that the published one made.
FEW_STEPS, MANY_STEPS, MANY_UPDATES = 12, 128, 100


@dataclass(frozen=True)
class BenchRequest:
    """One structure that is asked for.

    Attributes:
        prompt: Cleaned words, as `language.read_prompt` gives them.
        said: What they say.
        size: Of the grid.
        seed: Names all that is drawn for it.
        species: Of the held-out structure that the prompt describes; no arm sees it.
        plan: A whole plan, so that arms differ in nothing but what comes after it.
    """

    prompt: str
    said: Attributes
    size: Size = SIZES["normal"]
    seed: int = 0
    species: str | None = None
    plan: Plan | None = None


@dataclass(frozen=True)
class Built:
    """What an arm made of some requests.

    Attributes:
        grids: (Y, Z, X) uint8 role grid each; of the whole grid or of a box in it.
        species: What each is called; None where nothing says so.
        seconds: Wall clock of each: that of a call, shared evenly.
        evaluations: Times that the network looked at each.
        plans: What was decided first, where that was a plan.
    """

    grids: tuple[np.ndarray, ...]
    species: tuple[str | None, ...]
    seconds: tuple[float, ...]
    evaluations: tuple[int, ...]
    plans: tuple[Plan | None, ...] = ()

    def __len__(self) -> int:
        return len(self.grids)


@dataclass(frozen=True)
class Arm:
    """Something that answers requests.

    Attributes:
        name: Unique in a benchmark.
        build: Answers them; what it makes of one depends on no other.
        evaluations: Looks of a network per structure, about: what takes many is shown fewer requests.
        learned: Whether it is one of the networks that were trained, so that there is one for each training seed.
    """

    name: str
    build: Callable[[Sequence[BenchRequest]], Built]
    evaluations: int = 0
    learned: bool = False


# --- with a trained network -------------------------------------------------------------------------------------------


def sculptor_arm(name: str, sculptor: Sculptor, building: Building, *, plan_guidance: float = 1.0) -> Arm:
    """A sculptor that builds in some way; a request's plan takes the place of one of its own."""

    def build(requests: Sequence[BenchRequest]) -> Built:
        began = time.perf_counter()
        asked = [
            Request(request.prompt, request.size, request.seed, plan=request.plan if sculptor.first == "plan" else None)
            for request in requests
        ]
        made = sculpt(sculptor, asked, building, plan_guidance=plan_guidance)
        seconds = time.perf_counter() - began
        plans = tuple(sculpture.plan for sculpture in made)
        return Built(
            tuple(sculpture.roles for sculpture in made),
            tuple(species_named(plan, request) for plan, request in zip(plans, requests, strict=True)),
            evenly(seconds, len(made)),
            tuple(sculpture.evaluations for sculpture in made),
            plans,
        )

    looks = (building.steps + building.edits + building.wood_edits) * (2 if building.guidance != 1 else 1)
    return Arm(name, build, looks, learned=True)


def soft_mixture_arm(sculptor: Sculptor, updates: int, *, wood_share: float = 0.0) -> Arm:
    """The published sampler on our network, see :mod:`vernissage.sculptor.judge.soft_mixture`."""

    def build(requests: Sequence[BenchRequest]) -> Built:
        began = time.perf_counter()
        grids = soft_mixture(sculptor, requests, updates, wood_share=wood_share)
        seconds = time.perf_counter() - began
        plans = tuple(request.plan for request in requests)
        species = tuple(species_named(plan, request) for plan, request in zip(plans, requests, strict=True))
        return Built(tuple(grids), species, evenly(seconds, len(grids)), (updates,) * len(grids), plans)

    return Arm(f"{SOFT_MIXTURE} {updates}", build, updates, learned=True)


def ladder(sculptor: Sculptor, building: Building, *, plan_guidance: float = 1.0) -> list[Arm]:
    """What each part of the way to build is worth, with the same weights and plans.

    `ancestral` is MDLM's sampler (Sahoo et al. 2024, arXiv 2406.07524): all roles at once, in random order, as many
    voxels in every step, what is decided stays; it decides exactly as many as its schedule says, where the original
    draws that number. Each arm with a + adds one part of ours to the arm before, the last one lacks the final looks.
    `confidence` is MaskGIT's sampler (Chang et al. 2022, arXiv 2202.04200). `ours, ...` exchange one part.

    Where ours decides the wood first, its network saw all roles at once on few structures only: what a network that
    learned nothing else makes of the plain samplers has to be a rival.

    Args:
        sculptor: The model.
        building: Ours, which is not in the list.
        plan_guidance: As ours.
    """
    few = min(FEW_STEPS, building.steps)
    unrevised = replace(building, doubt_share=0.0, edits=0, wood_edits=0)
    plain = replace(unrevised, steps=few, order="random", schedule="linear", wood_share=0.0)
    ways = {
        f"{ANCESTRAL} {few}": plain,
        f"{ANCESTRAL} {MANY_STEPS}": replace(plain, steps=MANY_STEPS),
        f"confidence {few}": replace(plain, order="confidence", schedule="cosine"),
    } | _rungs(plain, unrevised, building)
    others: tuple[Order, ...] = (
        ("random", "confidence", "outward") if sculptor.first == "plan" else ("random", "confidence")
    )
    ways |= {f"ours, {order} order": replace(building, order=order) for order in others if order != building.order}
    arms = [sculptor_arm(name, sculptor, way, plan_guidance=plan_guidance) for name, way in ways.items()]
    if sculptor.first == "coarse":
        return arms
    soft = (soft_mixture_arm(sculptor, count, wood_share=building.wood_share) for count in (few, MANY_UPDATES))
    return [*soft, *arms]


def _rungs(plain: Building, unrevised: Building, building: Building) -> dict[str, Building]:
    """Name to a way: from the plain one to ours without the final looks, one part after another."""
    parts: dict[str, dict[str, Any]] = {
        "+ steps of ours": {"steps": building.steps},
        "+ wood first": {"wood_share": building.wood_share},
        f"+ {building.schedule} schedule": {"schedule": building.schedule},
        f"+ {building.order} order": {"order": building.order, "order_noise": building.order_noise},
        "+ doubt": {"doubt_share": building.doubt_share},
    }
    ways, way = {}, replace(plain, temperature=unrevised.temperature)
    for name, part in parts.items():
        changed = replace(way, **part)
        if changed != way:
            ways[name], way = changed, changed
    return ways


def steps_arms(
    sculptor: Sculptor, building: Building, steps: Sequence[int], *, plan_guidance: float = 1.0
) -> dict[int, Arm]:
    """Ours in other numbers of steps."""
    return {
        count: sculptor_arm(f"ours in {count}", sculptor, with_steps(building, count), plan_guidance=plan_guidance)
        for count in steps
    }


def evenly(seconds: float, count: int) -> tuple[float, ...]:
    """Return the time of a call as that of each of the structures that it built."""
    return (seconds / count,) * count if count else ()


def joined(parts: Sequence[Built]) -> Built:
    """Return what several calls built as one."""

    def every(name: str) -> tuple[Any, ...]:
        return tuple(item for part in parts for item in getattr(part, name))

    return Built(*(every(name) for name in ("grids", "species", "seconds", "evaluations", "plans")))


def species_named(plan: Plan | None, request: BenchRequest) -> str | None:
    """The species whose palette a structure gets: its plan's, else the prompt's, else none."""
    if plan is not None and plan.species != _OTHER:
        return plan.species
    return request.said.species


# --- without one ------------------------------------------------------------------------------------------------------


def all_air() -> Arm:
    """The empty grid, which is right on nearly all voxels."""

    def build(requests: Sequence[BenchRequest]) -> Built:
        grids = tuple(np.zeros(request.size.shape, np.uint8) for request in requests)
        nothing = (0,) * len(grids)
        return Built(grids, tuple(request.said.species for request in requests), evenly(0.0, len(grids)), nothing)

    return Arm(ALL_AIR, build)


def grower_arm(tries: int = 24) -> Arm:
    """The grower that made the data, steered by what the prompt says: what a perfect student could reach.

    Args:
        tries: How many trees it may grow for one that measures as asked.
    """

    def build(requests: Sequence[BenchRequest]) -> Built:
        began = time.perf_counter()
        grown = [
            grow_like(request.said, request.size, numpy_generator(request.seed, "grower"), tries)
            for request in requests
        ]
        seconds = time.perf_counter() - began
        grids, species = tuple(grid for _, grid in grown), tuple(name for name, _ in grown)
        return Built(grids, species, evenly(seconds, len(grown)), (0,) * len(grown))

    return Arm(GROWER, build)


def retrieval_arm(training: Dataset) -> Arm:
    """The training structure that agrees most with what the prompt says; the seed chooses among equals.

    Args:
        training: Structures to choose from.

    Raises:
        BadInput: A request has a size that no training structure has.
    """
    codes = attribute_codes(training.attributes())
    sizes = training.table["size"].to_numpy()
    species = training.table["species"].tolist()

    def build(requests: Sequence[BenchRequest]) -> Built:
        began = time.perf_counter()
        chosen = []
        for request in requests:
            places = np.flatnonzero(sizes == size_class(request.size))
            if not len(places):
                raise BadInput(f"retrieval: no training structure of the size {size_class(request.size)}")
            agreed = agreements(codes[places], request.said)
            best = places[agreed == agreed.max()]
            chosen.append(int(numpy_generator(request.seed, "retrieval").choice(best)))
        seconds = time.perf_counter() - began
        grids = tuple(training.grids[place] for place in chosen)
        names = tuple(species[place] for place in chosen)
        return Built(grids, names, evenly(seconds, len(grids)), (0,) * len(grids))

    return Arm(RETRIEVAL, build)


def attribute_codes(attributes: Sequence[Attributes]) -> np.ndarray:
    """Return (N, attributes) int8: the number of each word, -1 where nothing can be said."""
    numbers: Mapping[str, Mapping[str, int]] = {
        name: {word: number for number, word in enumerate(words)} for name, words in ATTRIBUTES.items()
    }
    rows = [[numbers[name].get(getattr(of, name), -1) for name in ATTRIBUTES] for of in attributes]
    return np.array(rows, np.int8).reshape(-1, len(ATTRIBUTES))


def agreements(codes: np.ndarray, said: Attributes) -> np.ndarray:
    """Return (N,) how many of the attributes that were said each structure has; `codes` as of `attribute_codes`."""
    wanted = attribute_codes([said])[0]
    found: np.ndarray = ((codes == wanted) & (wanted >= 0)).sum(1)
    return found
