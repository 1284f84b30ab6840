"""Draws plans from prompts, one value after another, and the trunk's path layer by layer.

Drawn one after another, values agree with each other: there is no factorisation error. The network learns to predict
every value from any others that are known, so that a user may fix some of them and the rest follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.attributes import ATTRIBUTES
from vernissage.sculptor.domain.plan import (
    FIELDS,
    INDEX,
    LEAFLESS,
    MOST,
    MOVES,
    NAMES,
    OCTANTS,
    STEPS_PER_AXIS,
    Plan,
    path_of,
)
from vernissage.sculptor.domain.sizes import SIZES, Size, size_class

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from vernissage.sculptor.domain.attributes import Attributes

SIZE_NAMES = tuple(SIZES)
# Before the first move of a path there is none.
_NO_MOVE = MOVES
_PATHS = 4
# What prompts speak of counts more than what follows from it.
_SPOKEN, _SPOKEN_COUNTS = (
    ("species", "height", "trunk", "shape", "width", "depth", "drift", "density", "roots", "branches"),
    3.0,
)
_WEIGHTS = [_SPOKEN_COUNTS if name in _SPOKEN else 1.0 for name in NAMES]
# One uniform number for every value and for every move.
DRAWS = len(NAMES) + MOST.height


@dataclass(frozen=True)
class PlannerShape:
    """What the planner is made of.

    Attributes:
        text: Width of the prompt's vector.
        width: Hidden values of the network that predicts values.
        blocks: Its residual blocks.
        path: Hidden values of the recurrent network that predicts moves.
    """

    text: int = 96
    width: int = 256
    blocks: int = 2
    path: int = 64


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide, self.back = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.back(F.silu(self.wide(self.norm(x))))
        return x + changed


class Planner(nn.Module):
    """Predicts any value of a plan from the prompt's vector, the size and the values that are known."""

    def __init__(self, shape: PlannerShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.text = nn.Linear(shape.text, width)
        self.size = nn.Embedding(len(SIZE_NAMES), width)
        self.known = nn.ModuleList(nn.Embedding(count, width) for count in FIELDS.values())
        self.body = nn.Sequential(*(_Residual(width) for _ in range(shape.blocks)), nn.LayerNorm(width))
        self.heads = nn.ModuleList(nn.Linear(width, count) for count in FIELDS.values())
        self.said = nn.ModuleList(nn.Linear(shape.text, len(values) + 1) for values in ATTRIBUTES.values())
        self.start = nn.Linear(width, shape.path)
        self.moves = nn.Embedding(MOVES + 1, shape.path)
        self.place = nn.Linear(7, shape.path)
        self.cell = nn.GRU(shape.path, shape.path, batch_first=True)
        self.move_head = nn.Linear(shape.path, MOVES)
        for table in self.known:
            nn.init.normal_(table.weight, std=0.3)  # type: ignore[arg-type]

    def hidden(self, text: Tensor, size: Tensor, values: Tensor, known: Tensor) -> Tensor:
        """Return (B, width).

        Args:
            text: (B, text).
            size: (B,) numbers of size classes.
            values: (B, fields); what stands where nothing is known does not matter.
            known: (B, fields) bool.
        """
        vector = self.text(text) + self.size(size)
        for column, table in enumerate(self.known):
            vector = vector + table(values[:, column]) * known[:, column, None]
        hidden: Tensor = self.body(vector)
        return hidden

    def value_logits(self, hidden: Tensor, column: int) -> Tensor:
        """(B, classes) of one value."""
        logits: Tensor = self.heads[column](hidden)
        return logits

    def move_inputs(self, values: Tensor, path: Tensor, moves: Tensor, first: int) -> Tensor:
        """Return (B, L, path): what the recurrent network sees before each of L moves.

        Args:
            values: (B, fields).
            path: (B, L, 2) centres before the moves, in half-blocks.
            moves: (B, L) the moves before; `MOVES` before the first.
            first: Layer of the first of them.
        """
        width, depth, run, height = (
            values[:, INDEX[name], None].float() for name in ("width", "depth", "run", "height")
        )
        layer = torch.arange(first, first + path.shape[1], device=values.device).float()[None]
        z, x = path[..., 0].float(), path[..., 1].float()
        features = [x / 16, z / 16, (2 * width - 2 - x) / 16, (2 * depth - 2 - z) / 16, (run - layer) / 16, layer / 16]
        told = torch.stack([feature.expand_as(x) for feature in (*features, (layer + 1) / height)], -1)
        inputs: Tensor = self.moves(moves) + self.place(told)
        return inputs

    def move_logits(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, path), (1, B, path) -> (B, L, MOVES) and the next state."""
        outputs, state = self.cell(inputs, state)
        return self.move_head(outputs), state

    def path_state(self, hidden: Tensor) -> Tensor:
        """(1, B, path): where the recurrent network begins."""
        return torch.tanh(self.start(hidden))[None]


def draw_known(batch: int, generator: torch.Generator) -> Tensor:
    """Draw (B, fields) bool: which values of a plan are shown.

    Half of the plans show the values up to a random one, as in drawing; the other half any subset, as where a user
    fixed some.
    """
    fields = len(NAMES)
    upto = torch.randint(fields, (batch, 1), generator=generator)
    subset = torch.rand(batch, fields, generator=generator) < torch.rand(batch, 1, generator=generator)
    ordered = torch.rand(batch, 1, generator=generator) < 0.5
    return torch.where(ordered, torch.arange(fields) < upto, subset)


def planner_loss(
    planner: Planner, text: Tensor, size: Tensor, values: Tensor, paths: Tensor, known: Tensor, said: Tensor
) -> Tensor:
    """Mean negative log-likelihood of a value, plus that of a move, in nats.

    Args:
        planner: The network.
        text: (B, text).
        size: (B,).
        values: (B, fields).
        paths: (B, Y, 2).
        known: (B, fields) bool, which values are shown.
        said: (B, attributes) int64, what the prompts say, see :func:`said_values`.
    """
    batch, fields = values.shape
    hidden = planner.hidden(text, size, values, known)
    losses = torch.stack(
        [
            F.cross_entropy(planner.value_logits(hidden, column), values[:, column], reduction="none")
            for column in range(fields)
        ],
        1,
    )
    unknown = (~known).float() * torch.tensor(_WEIGHTS, device=known.device)
    # Paths are mostly straight and cost most of the time: a part of the batch is enough for them.
    some = slice(0, max(1, batch // _PATHS))
    moves = _path_loss(planner, text[some], size[some], values[some], paths[some])
    return (losses * unknown).sum() / unknown.sum().clamp(min=1) + moves + _words_loss(planner, text, said)


def said_values(attributes: Attributes) -> list[int]:
    """Return the number of each attribute's value, counted from 1; 0 where nothing is said of it."""
    return [
        values.index(value) + 1 if (value := getattr(attributes, name)) in values else 0
        for name, values in ATTRIBUTES.items()
    ]


def _words_loss(planner: Planner, text: Tensor, said: Tensor) -> Tensor:
    """Cross-entropy of what the words say, read off the prompt's vector: words are learned by their meaning first."""
    losses = [F.cross_entropy(head(text), said[:, column]) for column, head in enumerate(planner.said)]
    return torch.stack(losses).mean()


def _path_loss(planner: Planner, text: Tensor, size: Tensor, values: Tensor, paths: Tensor) -> Tensor:
    run = values[:, INDEX["run"]]
    longest = int(run.max())
    if longest < 2:
        return torch.zeros((), device=values.device)
    steps = paths[:, 1:longest] - paths[:, : longest - 1] + STEPS_PER_AXIS // 2
    moves = steps[..., 0] * STEPS_PER_AXIS + steps[..., 1]
    before = torch.cat([torch.full_like(moves[:, :1], _NO_MOVE), moves[:, :-1]], 1)
    everything = torch.ones_like(values, dtype=torch.bool)
    state = planner.path_state(planner.hidden(text, size, values, everything))
    logits, _ = planner.move_logits(planner.move_inputs(values, paths[:, : longest - 1], before, 0), state)
    made = torch.arange(longest - 1, device=values.device)[None] < (run - 1)[:, None]
    losses = F.cross_entropy(logits.flatten(0, 1), moves.flatten(), reduction="none").view_as(moves)
    return (losses * made).sum() / made.sum().clamp(min=1)


@torch.no_grad()
def draw_plans(
    planner: Planner,
    text: Tensor,
    no_text: Tensor,
    sizes: Sequence[Size],
    uniform: Tensor,
    *,
    fixed: Sequence[Mapping[str, int]] = (),
    guidance: float = 1.0,
    temperature: float = 1.0,
) -> list[Plan]:
    """Draw plans.

    Args:
        planner: The network.
        text: (B, text) vectors of the prompts.
        no_text: (1, text) vector of the empty prompt; used where `guidance` is not 1.
        sizes: B sizes; every box fits into its size.
        uniform: (B, DRAWS) float64 numbers from [0, 1): one row alone decides about one plan.
        fixed: B values by name that the plan must have; those that do not fit into the size are made to.
        guidance: Scale of classifier-free guidance on the logits of what prompts speak of (Ho and Salimans 2022); what
            follows from these values needs none, and would lose its variety.
        temperature: Of the draws.

    Raises:
        BadInput: There is no such field.
    """
    device = text.device
    batch, limits = len(sizes), [Size(*map(min, size, MOST)) for size in sizes]
    classes = torch.tensor([SIZE_NAMES.index(size_class(size)) for size in limits], device=device)
    values = torch.zeros(batch, len(NAMES), dtype=torch.long, device=device)
    known = torch.zeros(batch, len(NAMES), dtype=torch.bool, device=device)
    for row, wanted in enumerate(fixed):
        for name, value in wanted.items():
            if name not in INDEX:
                raise BadInput(f"plan value {name!r}: expected one of {', '.join(NAMES)}")
            allowed = np.flatnonzero(allowed_values(name, {}, limits[row]))
            values[row, INDEX[name]] = int(allowed[np.abs(allowed - value).argmin()])
            known[row, INDEX[name]] = True

    texts = (text,) if guidance == 1 else (text, no_text.expand_as(text))
    for column, name in enumerate(NAMES):
        logits = _guided(
            [
                planner.value_logits(planner.hidden(of, classes, values, known), column)
                for of in (texts if name in _SPOKEN else texts[:1])
            ],
            guidance,
        )
        rows = [dict(zip(NAMES, row, strict=True)) for row in values.tolist()]
        allowed_rows = np.stack([allowed_values(name, row, limit) for row, limit in zip(rows, limits, strict=True)])
        drawn = _draw(logits, torch.from_numpy(allowed_rows).to(device), uniform[:, column].to(device), temperature)
        held = torch.tensor([_nearest(mask, row[name]) for mask, row in zip(allowed_rows, rows, strict=True)])
        values[:, column] = torch.where(known[:, column], held.to(device), drawn)
        known[:, column] = True
    paths = _draw_paths(planner, text, classes, values, uniform[:, len(NAMES) :].to(device), temperature)
    return [Plan(row, path) for row, path in zip(values.cpu().numpy(), paths, strict=True)]


def allowed_values(name: str, values: Mapping[str, int], size: Size) -> np.ndarray:
    """Return (classes,) bool: which values a field can have, given the size and the values drawn before."""
    allowed = np.zeros(FIELDS[name], bool)
    ranges = {
        "height": (1, size.height),
        "width": (1, size.width),
        "depth": (1, size.depth),
        "base_x": (0, 2 * values.get("width", size.width) - 2),
        "base_z": (0, 2 * values.get("depth", size.depth) - 2),
        "run": (0, values.get("height", size.height)),
        "crown_base": (0, values.get("height", size.height) - 1),
        **{
            f"{name}_{octant}": (0, values.get("height", size.height) - 1)
            for name in ("limb_height", "limb_start")
            for octant in range(OCTANTS)
        },
    }
    first, last = ranges.get(name, (0, FIELDS[name] - 1))
    allowed[first : last + 1] = True
    if name == "crown_base":
        allowed[LEAFLESS] = True
    return allowed


def _nearest(allowed: np.ndarray, value: int) -> int:
    places = np.flatnonzero(allowed)
    return int(places[np.abs(places - value).argmin()])


def _draw(logits: Tensor, allowed: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """(B, K) float64 logits, (B, K) bool, (B,) -> (B,) draws by the inverse of the distribution function."""
    share = torch.softmax((logits / max(temperature, 1e-6)).masked_fill(~allowed, -torch.inf), 1)
    rising = share.cumsum(1)
    drawn = torch.searchsorted(rising, (uniform * rising[:, -1])[:, None], right=True)[:, 0]
    # Rounding may lead one place beyond the last allowed one.
    last = allowed.shape[1] - 1 - allowed.flip(1).long().argmax(1)
    return torch.minimum(drawn, last)


def _guided(logits: Sequence[Tensor], guidance: float) -> Tensor:
    """Combine the logits with the prompt and, where there are any, those without."""
    told = logits[0].double()
    guided = told if len(logits) == 1 else logits[1].double() + guidance * (told - logits[1].double())
    if not bool(torch.isfinite(guided).all()):
        raise BadInput(
            "the sculptor's planner gave values that are no numbers; its weights are damaged: train it again"
        )
    return guided


def _draw_paths(
    planner: Planner,
    text: Tensor,
    classes: Tensor,
    values: Tensor,
    uniform: Tensor,
    temperature: float,
) -> list[np.ndarray]:
    everything = torch.ones_like(values, dtype=torch.bool)
    state = planner.path_state(planner.hidden(text, classes, values, everything))
    run = values[:, INDEX["run"]]
    here = values[:, [INDEX["base_z"], INDEX["base_x"]]]
    most = 2 * values[:, [INDEX["depth"], INDEX["width"]]] - 2
    before = torch.full((len(values),), _NO_MOVE, device=values.device)
    numbers = torch.arange(MOVES, device=values.device)
    steps = torch.stack([numbers // STEPS_PER_AXIS, numbers % STEPS_PER_AXIS], 1) - STEPS_PER_AXIS // 2
    moves: list[Tensor] = []
    for layer in range(max(0, int(run.max()) - 1)):
        inputs = planner.move_inputs(values, here[:, None], before[:, None], layer)
        logits, state = planner.move_logits(inputs, state)
        after = here[:, None] + steps
        allowed = ((after >= 0) & (after <= most[:, None])).all(2)
        drawn = _draw(_guided([logits[:, 0]], 1.0), allowed, uniform[:, layer], temperature)
        drawn = torch.where(layer < run - 1, drawn, MOVES // 2)
        here, before = here + steps[drawn], drawn
        moves.append(drawn)
    made = torch.stack(moves, 1).cpu().numpy() if moves else np.zeros((len(values), 0), np.int64)
    return [
        path_of(
            (int(row[INDEX["base_z"]]), int(row[INDEX["base_x"]])),
            made[number, : max(0, int(row[INDEX["run"]]) - 1)],
            int(row[INDEX["height"]]),
        )
        for number, row in enumerate(values.cpu().numpy())
    ]
