"""From requests to structures: the first decisions, a canvas for each, voxels, and the grid that was asked for."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from vernissage.core.errors import BadInput
from vernissage.core.parallel import in_parts
from vernissage.core.seeds import derive_seed, torch_generator
from vernissage.sculptor.domain.plan import MOST, Plan
from vernissage.sculptor.domain.roles import MASK, OUTSIDE, ROLES
from vernissage.sculptor.domain.sizes import SIZES, Size
from vernissage.sculptor.learn.blueprints import Blueprint, guides_of, on_canvas
from vernissage.sculptor.learn.building import Building, build, start_state
from vernissage.sculptor.learn.coarse import draw_coarse
from vernissage.sculptor.learn.planner import DRAWS, draw_plans

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from vernissage.sculptor.learn.model import Sculptor
    from vernissage.sculptor.learn.text_encoder import TextEncoder

# Voxels that go through the network at once, and most structures of them. How many rows a canvas gets depends on
# nothing else: the same rows give the same numbers whatever is built beside them.
_VOXELS_AT_ONCE, _MOST_ROWS, _CUDA_FACTOR = 8192, 8, 16
_PLANS_AT_ONCE = 16


@dataclass(frozen=True)
class Request:
    """One structure that is asked for.

    Attributes:
        prompt: Cleaned words, as `language.read_prompt` gives them.
        size: Of the grid.
        seed: Names all that is drawn for it.
        fixed: Values of the plan that it must have.
        given: (Y, Z, X) uint8 roles that stay as they are, `MASK` where free; None leaves all free.
        plan: A whole plan, in place of one that is drawn.
    """

    prompt: str
    size: Size = SIZES["normal"]
    seed: int = 0
    fixed: Mapping[str, int] = field(default_factory=dict)
    given: np.ndarray | None = None
    plan: Plan | None = None

    def __post_init__(self) -> None:
        if self.given is not None and self.given.shape != self.size.shape:
            raise ValueError(f"given blocks of shape {self.given.shape}, expected that of the grid: {self.size.shape}")
        if self.given is not None and bool(((self.given >= ROLES) & (self.given != MASK)).any()):
            raise ValueError(
                f"given blocks with roles up to {int(self.given.max())}, expected roles or {MASK} where free"
            )
        if self.plan is not None and any(
            mine > whole for mine, whole in zip(self.plan.shape, self.size.shape, strict=True)
        ):
            raise ValueError(f"a plan of shape {self.plan.shape}, expected at most that of the grid: {self.size.shape}")


@dataclass(frozen=True)
class Sculpture:
    """What was built.

    Attributes:
        roles: (Y, Z, X) uint8 role grid of the size that was asked for.
        plan: What was decided first, where that was a plan.
        corner: (y, z, x) of the plan's box in the grid.
        frames: (Y, Z, X) uint8 grids after every step, `MASK` where undecided; empty unless they were asked for.
        evaluations: Times that the network looked at it.
    """

    roles: np.ndarray
    plan: Plan | None
    corner: tuple[int, int, int]
    frames: tuple[np.ndarray, ...] = ()
    evaluations: int = 0


class _Vectors:
    """Vectors of prompts, one prompt at a time, so that a vector does not depend on the prompts beside it."""

    def __init__(self, encoder: TextEncoder | None) -> None:
        self.encoder = encoder
        self.known: dict[str, Tensor] = {}

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Return (B, width)."""
        for prompt in dict.fromkeys(prompts):
            if prompt not in self.known:
                if self.encoder is None:
                    raise ValueError("nothing comes first, so no prompt is read for it")
                self.known[prompt] = self.encoder([prompt])[0]
        return torch.stack([self.known[prompt] for prompt in prompts])


@torch.no_grad()
def sculpt(
    sculptor: Sculptor,
    requests: Sequence[Request],
    building: Building,
    *,
    plan_guidance: float = 1.0,
    plan_temperature: float = 1.0,
    frames: bool = False,
    done: Callable[[int], None] | None = None,
) -> list[Sculpture]:
    """Build structures. The same request gives the same structure, whatever is built beside it.

    Args:
        sculptor: The model.
        requests: What is asked for.
        building: How voxels are decided.
        plan_guidance: Scale of classifier-free guidance on what comes first.
        plan_temperature: Of the draws of plans.
        frames: Whether to keep what every step looked like.
        done: Is told how many more are ready.

    Raises:
        BadInput: A value of a plan has no such name, the order needs a plan and there is none, or the network's answers
            are no numbers.
    """
    blueprints = _decide_first(sculptor, requests, plan_guidance, plan_temperature)
    groups: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for number, blueprint in enumerate(blueprints):
        groups[blueprint.canvas(sculptor.shape.network.multiple)].append(number)
    chunks: list[tuple[tuple[int, int, int], list[int], int]] = []
    for canvas, numbers in sorted(groups.items()):
        rows = _rows_at_once(canvas, sculptor.device)
        chunks += [(canvas, numbers[first : first + rows], rows) for first in range(0, len(numbers), rows)]
    # The largest first, so that no thread waits for one that began late.
    chunks.sort(key=lambda chunk: -int(np.prod(chunk[0])))
    out: list[Sculpture | None] = [None] * len(requests)
    words = _Vectors(sculptor.words)
    # Read here, as the chunks are built side by side.
    words(["", *(request.prompt for request in requests)])

    def work(part: slice) -> None:
        torch.set_flush_denormal(True)
        for canvas, numbers, rows in chunks[part]:
            built = _build_chunk(
                sculptor,
                [requests[n] for n in numbers],
                [blueprints[n] for n in numbers],
                building,
                canvas,
                rows,
                words,
                frames,
            )
            for number, sculpture in zip(numbers, built, strict=True):
                out[number] = sculpture
            if done is not None:
                done(len(numbers))

    if sculptor.device.type == "cpu":
        in_parts(work, len(chunks), 1)
    else:
        work(slice(0, len(chunks)))
    return [sculpture for sculpture in out if sculpture is not None]


def _rows_at_once(canvas: tuple[int, int, int], device: torch.device) -> int:
    factor = _CUDA_FACTOR if device.type == "cuda" else 1
    return int(np.clip(factor * _VOXELS_AT_ONCE // int(np.prod(canvas)), 1, factor * _MOST_ROWS))


def _decide_first(
    sculptor: Sculptor, requests: Sequence[Request], guidance: float, temperature: float
) -> list[Blueprint]:
    if sculptor.planner is None and any(request.fixed or request.plan for request in requests):
        raise BadInput("this model draws no plans: expected requests without plan values")
    blueprints: list[Blueprint] = []
    words = _Vectors(sculptor.first_words)
    for start in range(0, len(requests), _PLANS_AT_ONCE):
        some = requests[start : start + _PLANS_AT_ONCE]
        # Always as many rows, for the reason that is given above.
        filled = [*some, *[some[-1]] * (_PLANS_AT_ONCE - len(some))]
        blueprints += _decide_some(sculptor, filled, words, guidance, temperature)[: len(some)]
    return blueprints


def _decide_some(
    sculptor: Sculptor, requests: Sequence[Request], words: _Vectors, guidance: float, temperature: float
) -> list[Blueprint]:
    sizes = [_within(request.size) for request in requests]
    if sculptor.first_words is None:
        return [Blueprint(size.shape) for size in sizes]
    text, bare = words([request.prompt for request in requests]), words([""])
    if sculptor.coarse is not None:
        seeds = [derive_seed(request.seed, "coarse") for request in requests]
        grids = draw_coarse(sculptor.coarse, text, bare, sizes, seeds, guidance)
        return [Blueprint(size.shape, coarse=grid) for size, grid in zip(sizes, grids, strict=True)]
    if sculptor.planner is None:
        raise ValueError("a sculptor without a planner")
    uniform = torch.stack(
        [
            torch.rand(DRAWS, generator=torch_generator(request.seed, "plan"), dtype=torch.float64)
            for request in requests
        ]
    )
    plans = draw_plans(
        sculptor.planner,
        text,
        bare,
        sizes,
        uniform,
        fixed=[request.fixed for request in requests],
        guidance=guidance,
        temperature=temperature,
    )
    chosen = [request.plan or plan for request, plan in zip(requests, plans, strict=True)]
    return [Blueprint(plan.shape, plan) for plan in chosen]


def _within(size: Size) -> Size:
    """The part of a grid that structures are built in: none is larger than those that were learned from."""
    return Size(*map(min, size, MOST))


def _build_chunk(
    sculptor: Sculptor,
    requests: Sequence[Request],
    blueprints: Sequence[Blueprint],
    building: Building,
    canvas: tuple[int, int, int],
    rows: int,
    words: _Vectors,
    frames: bool,
) -> list[Sculpture]:
    # Filled up to the fixed number of rows with copies of the last one, which nobody sees.
    padded = [*blueprints, *[blueprints[-1]] * (rows - len(blueprints))]
    asked = [*requests, *[requests[-1]] * (rows - len(requests))]
    first, device = sculptor.first, sculptor.device
    guides = guides_of(padded, canvas, first)
    distance = guides.axis_distance
    channels = guides.channels.to(device)
    values = None if guides.values is None else guides.values.to(device)
    condition = sculptor.network.condition(words([request.prompt for request in asked]), values)
    bare = sculptor.network.condition(words([""] * rows), values) if building.guidance != 1 else condition
    corners = [_corner(request, blueprint) for request, blueprint in zip(asked, padded, strict=True)]
    given = np.stack([_given(*of, canvas) for of in zip(asked, padded, corners, strict=True)])
    evaluations = 0

    def rate(tokens: Tensor, scale: float) -> Tensor:
        nonlocal evaluations
        evaluations += 1 if scale == 1 else 2
        grid = tokens.view(rows, *canvas).to(device)
        logits: Tensor = sculptor.network(grid, channels, condition)
        if scale != 1:
            free: Tensor = sculptor.network(grid, channels, bare)
            logits = free + scale * (logits - free)
        return logits.flatten(2).transpose(1, 2).cpu()

    seen: list[Tensor] = []
    tokens = build(
        rate,
        start_state(guides.inside.flatten(1), torch.from_numpy(given).flatten(1).long()),
        building,
        [torch_generator(request.seed, "voxels") for request in asked],
        distance=None if distance is None else distance.flatten(1),
        watch=(lambda state: seen.append(state.clone())) if frames else None,
    )
    grids = tokens.view(rows, *canvas).numpy().astype(np.uint8)
    shown = [state.view(rows, *canvas).numpy().astype(np.uint8) for state in seen]
    return [
        Sculpture(
            _in_grid(grids[row], request, blueprints[row], corners[row]),
            blueprints[row].plan,
            corners[row],
            tuple(_in_grid(frame[row], request, blueprints[row], corners[row]) for frame in shown),
            evaluations,
        )
        for row, request in enumerate(requests)
    ]


def _corner(request: Request, blueprint: Blueprint) -> tuple[int, int, int]:
    """Where the box lies in the grid: on the ground, the base in the middle as far as its sides allow."""
    _, depth, width = blueprint.box
    _, whole_depth, whole_width = request.size.shape
    if blueprint.plan is None:
        return 0, (whole_depth - depth) // 2, (whole_width - width) // 2
    plan = blueprint.plan
    z = (whole_depth - 1 - plan["base_z"] + 1) // 2
    x = (whole_width - 1 - plan["base_x"] + 1) // 2
    return 0, int(np.clip(z, 0, whole_depth - depth)), int(np.clip(x, 0, whole_width - width))


def _given(
    request: Request, blueprint: Blueprint, corner: tuple[int, int, int], canvas: tuple[int, int, int]
) -> np.ndarray:
    """(Y, Z, X) of the canvas: what the user fixed inside the box, `MASK` where free."""
    free = np.full(blueprint.box, MASK, np.uint8)
    if request.given is not None:
        y, z, x = corner
        height, depth, width = blueprint.box
        free = request.given[y : y + height, z : z + depth, x : x + width]
    held = on_canvas(free, canvas)
    return np.where(held == OUTSIDE, MASK, held)


def _in_grid(canvas: np.ndarray, request: Request, blueprint: Blueprint, corner: tuple[int, int, int]) -> np.ndarray:
    """The grid that was asked for: the box in its place, what the user fixed everywhere."""
    grid = np.zeros(request.size.shape, np.uint8)
    height, depth, width = blueprint.box
    y, z, x = corner
    grid[y : y + height, z : z + depth, x : x + width] = canvas[:height, :depth, :width]
    return grid if request.given is None else np.where(request.given == MASK, grid, request.given)


def with_steps(building: Building, steps: int) -> Building:
    """Return the same way to build in another number of steps; a single one cannot revise what it did before."""
    return replace(building, steps=steps)
