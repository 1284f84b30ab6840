"""Structures from a prompt: what is asked for, what came out, and all that there is to say about it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vernissage.core.errors import BadInput, BadParams
from vernissage.sculptor.domain.anatomy import judge_anatomy
from vernissage.sculptor.domain.attributes import ATTRIBUTES, measure_attributes
from vernissage.sculptor.domain.blocks import SPECIES_PALETTES, roles_to_structure, structure_to_roles
from vernissage.sculptor.domain.language import Prompt, read_prompt
from vernissage.sculptor.domain.plan import MOST
from vernissage.sculptor.domain.sizes import LARGEST, SIZES, Size, size_class
from vernissage.sculptor.learn.building import Building
from vernissage.sculptor.learn.sculpting import Request, Sculpture, sculpt
from vernissage.sculptor.use.keeping import Kept, keep_blocks
from vernissage.sculptor.use.plan_words import clamped, plan_in_words, read_plan_words, within
from vernissage.sculptor.use.repair import Repair, repair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np

    from vernissage.sculptor.domain.roles import Role
    from vernissage.sculptor.domain.structure import Structure
    from vernissage.sculptor.use.model import SculptorModel

#: Structures of one call; they are built in chunks, so that memory depends on the chunk.
MOST_STRUCTURES = 10_000
#: Steps that a page can show.
MOST_FRAMES = 256

_LAST_SEED = 2**63 - 1
_CHUNK = 64
# Bytes that the grids of a chunk may take, all frames included.
_CHUNK_BYTES = 64 * 2**20
_FALLBACK_SPECIES = "oak"


@dataclass(frozen=True)
class Wishes:
    """What is asked for besides the prompt.

    Attributes:
        size: Of the grid.
        count: Structures; the first has `seed`, the next `seed` + 1 and so on, each as if it were alone.
        steps: Network calls that decide voxels; as the model's training had it where left out, like both scales.
        seed: Of the first structure.
        guidance: Scale of classifier-free guidance on voxels; 1 is none and costs half.
        plan_guidance: The same on the plan that comes first.
        plan: Values that the plan must have, by the names of `plan_words.PLAN_NAMES`.
        keep: Blocks that stay as they are, see `keeping.keep_blocks`.
        repair: Whether to remove what hangs in the air afterwards.
        frames: Whether to keep what every step looked like.

    Raises:
        BadParams: Size, count, steps, seed or a scale is out of its range.
    """

    size: Size = SIZES["normal"]
    count: int = 1
    steps: int | None = None
    seed: int = 0
    guidance: float | None = None
    plan_guidance: float | None = None
    plan: Mapping[str, str | int] = field(default_factory=dict)
    keep: Structure | None = None
    repair: bool = False
    frames: bool = False

    def __post_init__(self) -> None:
        if min(self.size) < 1 or not LARGEST.holds(self.size):
            raise BadParams(f"size {self.size}: expected 1x1x1 to {LARGEST}")
        if not 1 <= self.count <= MOST_STRUCTURES:
            raise BadParams(f"{self.count} structures: expected 1 to {MOST_STRUCTURES:,}")
        if not 0 <= self.seed <= _LAST_SEED - self.count:
            raise BadParams(f"seed {self.seed}: expected 0 to {_LAST_SEED - self.count}")
        for name, scale in (("guidance", self.guidance), ("plan guidance", self.plan_guidance)):
            if scale is not None and not (math.isfinite(scale) and 0 <= scale <= 100):
                raise BadParams(f"{name} = {scale}, expected 0 to 100")
        _ = self.changed(Building())  # refuses other numbers of steps

    def changed(self, building: Building) -> Building:
        """Return a way to build with what is asked for about it."""
        steps = building.steps if self.steps is None else self.steps
        return replace(building, steps=steps, guidance=building.guidance if self.guidance is None else self.guidance)


@dataclass(frozen=True)
class Sculpted:
    """One structure.

    Attributes:
        structure: The whole grid as blocks.
        roles: (Y, Z, X) uint8, the same as roles.
        seed: Builds it again.
        prompt: As it was given.
        facts: All that is known about it, as JSON values: what was `asked`, `plan`, `anatomy`, `said` and `measured`
            attributes, `missed` of the former, `blocks`, `building`, `evaluations`, `repair`, `model`.
        warnings: What was not read or built as it was asked for, a sentence each.
        frames: (Y, Z, X) uint8 roles after every step, `MASK` where undecided; empty unless they were asked for.
        palette: Block of each role where nothing was kept.
    """

    structure: Structure
    roles: np.ndarray
    seed: int
    prompt: str
    facts: dict[str, Any]
    warnings: tuple[str, ...] = ()
    frames: tuple[np.ndarray, ...] = ()
    palette: Mapping[Role, str] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether nothing was built."""
        return not self.structure.solid.any()


def sculpt_prompt(
    model: SculptorModel,
    prompt: str,
    *,
    size: Size = SIZES["normal"],
    count: int = 1,
    steps: int | None = None,
    seed: int = 0,
    guidance: float | None = None,
    plan_guidance: float | None = None,
    plan: Mapping[str, str | int] | None = None,
    keep: Structure | None = None,
    repair: bool = False,
    frames: bool = False,
) -> list[Sculpted]:
    """Build structures from a prompt; any text is one. The arguments are those of `Wishes`.

    For more than a few hundred, :func:`sculpt_each` keeps memory small.

    Raises:
        BadParams: Size, count, steps, seed or a scale is out of its range.
        BadInput: A value of the plan has no such name or cannot be read, the model has no plans, the blocks to keep do
            not fit, or the weights are damaged.
    """
    wishes = Wishes(
        size=size,
        count=count,
        steps=steps,
        seed=seed,
        guidance=guidance,
        plan_guidance=plan_guidance,
        plan=plan or {},
        keep=keep,
        repair=repair,
        frames=frames,
    )
    return list(sculpt_each(model, prompt, wishes))


def sculpt_each(
    model: SculptorModel, prompt: str, wishes: Wishes, *, done: Callable[[int], None] | None = None
) -> Iterator[Sculpted]:
    """Build structures one after another, with the memory of one chunk.

    Args:
        model: The model.
        prompt: Any text.
        wishes: What is asked for besides.
        done: Is told how many more are built.

    Raises:
        BadInput: As `sculpt_prompt`; before anything is built.
    """
    task = _Task.of(model, prompt, wishes)
    seeds = range(wishes.seed, wishes.seed + wishes.count)
    chunk = task.chunk
    for start in range(0, len(seeds), chunk):
        part = seeds[start : start + chunk]
        for seed, sculpture in zip(part, task.built(part, done), strict=True):
            yield task.finished(seed, sculpture)


@dataclass(frozen=True)
class _Task:
    """A prompt and wishes, as they are understood."""

    model: SculptorModel
    text: str
    wishes: Wishes
    building: Building
    plan_guidance: float
    prompt: Prompt
    fixed: dict[str, int]
    kept: Kept | None
    warnings: tuple[str, ...]

    @staticmethod
    def of(model: SculptorModel, text: str, wishes: Wishes) -> _Task:
        prompt = read_prompt(text)
        warnings = list(prompt.warnings)
        plans = model.sculptor.planner is not None
        fixed = read_plan_words(wishes.plan)
        if fixed and not plans:
            raise BadInput("plan values: this model draws no plans, so none can be fixed; leave them out")
        high = prompt.blocks_high
        if high is not None and not plans:
            warnings.append(f"this model draws no plans: {high} blocks high cannot be kept")
        elif high is not None and fixed.setdefault("height", high) != high:
            warnings.append(f"the plan says a height of {fixed['height']}, the prompt {high}: the plan holds")
        kept = None if wishes.keep is None else keep_blocks(wishes.keep, wishes.size)
        if kept is not None and plans and prompt.attributes.species is None and kept.species is not None:
            fixed.setdefault("species", read_plan_words({"species": kept.species})["species"])
        if not MOST.holds(wishes.size):
            warnings.append(f"structures are at most {MOST}; the rest of the grid stays air")
        building = wishes.changed(model.building)
        if wishes.frames and building.steps > MOST_FRAMES:
            warnings.append(f"{building.steps} steps are not shown: at most {MOST_FRAMES} are")
        scale = model.plan_guidance if wishes.plan_guidance is None else wishes.plan_guidance
        return _Task(model, text, wishes, building, scale, prompt, fixed, kept, tuple(warnings))

    @property
    def frames(self) -> bool:
        """Whether steps are kept."""
        return self.wishes.frames and self.building.steps <= MOST_FRAMES

    @property
    def chunk(self) -> int:
        """How many structures are built at once."""
        width, height, depth = self.wishes.size
        looks = sum(steps + looks for _, steps, looks in self.building.levels)
        # Besides the frames there are what was given, what was built, and the same as blocks, which take twice as much.
        grids = 4 + (looks if self.frames else 0)
        return max(1, min(_CHUNK, _CHUNK_BYTES // (width * height * depth * grids)))

    def built(self, seeds: range, done: Callable[[int], None] | None) -> list[Sculpture]:
        """Build a chunk."""
        wishes, given = self.wishes, None if self.kept is None else self.kept.roles
        fixed = within(self.fixed, wishes.size)
        requests = [Request(self.prompt.text, wishes.size, seed, fixed, given) for seed in seeds]
        sculptor, scale = self.model.sculptor, self.plan_guidance
        if self.kept is not None and sculptor.planner is not None:
            # The plans alone are wanted here, and these come with a single look of the network.
            drafts = sculpt(sculptor, requests, Building(steps=1, edits=0), plan_guidance=scale)
            rooms = [self.kept.room(draft, wishes.size) for draft in drafts]
            requests = [
                replace(request, fixed=within(room | self.fixed, wishes.size))
                for request, room in zip(requests, rooms, strict=True)
            ]
        return sculpt(sculptor, requests, self.building, plan_guidance=scale, frames=self.frames, done=done)

    def finished(self, seed: int, sculpture: Sculpture) -> Sculpted:
        """Turn roles into blocks, and say what there is to say."""
        species = self._species(sculpture)
        palette = SPECIES_PALETTES[species]
        kept, roles, repaired = self.kept, sculpture.roles, None
        if self.wishes.repair:
            repaired = repair(roles, kept=None if kept is None else kept.mask)
            roles = repaired.roles
        structure = roles_to_structure(roles, palette)
        if kept is not None:
            structure = kept.put_into(structure)
        warnings = (*self.warnings, *self._warnings(sculpture, repaired, empty=not roles.any()))
        facts = self._asked(seed) | self._measured(sculpture, structure, roles, species)
        facts |= {
            "species": species,
            "building": asdict(self.building),
            "evaluations": sculpture.evaluations,
            "repair": None if repaired is None else _numbers_of(repaired),
            "model": self.model.identity,
            "warnings": list(warnings),
        }
        return Sculpted(structure, roles, seed, self.text, facts, warnings, sculpture.frames, palette)

    def _species(self, sculpture: Sculpture) -> str:
        planned = None if sculpture.plan is None else sculpture.plan.species
        names = (planned, self.prompt.attributes.species, _FALLBACK_SPECIES)
        return next(name for name in names if name in SPECIES_PALETTES)

    def _warnings(self, sculpture: Sculpture, repaired: Repair | None, *, empty: bool) -> list[str]:
        said = [] if sculpture.plan is None else list(clamped(self.fixed, sculpture.plan, self.wishes.size))
        outside = 0 if self.kept is None else self.kept.outside(sculpture)
        if outside:
            said.append(f"{outside} kept blocks lie outside of the box that was built in")
        if repaired is not None and (repaired.changed or repaired.left):
            said.append(repaired.said())
        if empty:
            said.append("nothing was built")
        return said

    def _asked(self, seed: int) -> dict[str, Any]:
        wishes = self.wishes
        return {
            "asked": {
                "prompt": _encodable(self.text),
                "read_as": self.prompt.text,
                "size": str(wishes.size),
                "seed": seed,
                "steps": self.building.steps,
                "guidance": self.building.guidance,
                "plan_guidance": self.plan_guidance,
                "plan": {name: wishes.plan[name] for name in sorted(wishes.plan)},
                "keep": None if self.kept is None else self.kept.digest,
                "repair": wishes.repair,
            }
        }

    def _measured(self, sculpture: Sculpture, structure: Structure, roles: np.ndarray, species: str) -> dict[str, Any]:
        said = {name: value for name, value in asdict(self.prompt.attributes).items() if value is not None}
        # Heights and widths are words about the grid that was asked for, as in the captions that were learned from.
        grid = SIZES[size_class(Size(*map(min, self.wishes.size, MOST)))]
        measured = asdict(measure_attributes(roles, species=species if roles.any() else None, size=grid))
        missed = [name for name in ATTRIBUTES if name in said and measured[name] != said[name]]
        return {
            "plan": None if sculpture.plan is None else plan_in_words(sculpture.plan),
            "anatomy": _plain_numbers(asdict(judge_anatomy(roles))),
            "said": said,
            "measured": measured,
            "missed": missed,
            "adherence": 1 - len(missed) / len(said) if said else None,
            "blocks": structure_to_roles(structure).counts,
        }


def _numbers_of(repaired: Repair) -> dict[str, int]:
    return {name: getattr(repaired, name) for name in ("removed", "parts", "bridges", "bridged", "left")}


def _plain_numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as JSON has them: no numpy, None where there is no number."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def _encodable(text: str) -> str:
    # Arguments of a command may hold bytes that are no text; JSON files are UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")
