"""What the network learns from: structures in their boxes, sorted by canvas, and the batches that are drawn of them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vernissage.core.errors import BadInput
from vernissage.core.progress import track
from vernissage.core.seeds import numpy_generator
from vernissage.sculptor.domain.language import caption, read_prompt
from vernissage.sculptor.domain.plan import SYMMETRIES, turned_grid
from vernissage.sculptor.domain.roles import OUTSIDE, Role
from vernissage.sculptor.learn.blueprints import Blueprint, Guides, blueprint_of, guides_of, on_canvas, turned
from vernissage.sculptor.learn.planner import said_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.learn.blueprints import First


@dataclass(frozen=True)
class Examples:
    """Structures ready to learn from.

    Attributes:
        first: What comes before the voxels.
        blueprints: Of each structure.
        grids: (Y, Z, X) uint8 role grids of their boxes.
        sizes: Name of the size of each.
        own: Which are the user's.
        captions: Some sentences on each.
        said: What each of these says, see `planner.said_values`.
    """

    first: First
    blueprints: tuple[Blueprint, ...]
    grids: tuple[np.ndarray, ...]
    sizes: tuple[str, ...]
    own: tuple[bool, ...]
    captions: tuple[tuple[str, ...], ...]
    said: tuple[tuple[tuple[int, ...], ...], ...]

    def __len__(self) -> int:
        return len(self.grids)

    @property
    def roles(self) -> list[int]:
        """Roles that occur, in order; air always does."""
        found = np.zeros(len(Role), bool)
        found[Role.AIR] = True
        for grid in self.grids:
            found |= np.bincount(grid.ravel(), minlength=len(Role))[: len(Role)] > 0
        return [int(role) for role in np.flatnonzero(found)]


def examples_of(dataset: Dataset, first: First, *, captions: int, seed: int, progress: str = "") -> Examples:
    """Measure what would have been decided about each structure, and write captions on it.

    Args:
        dataset: Structures with attributes.
        first: What comes before the voxels.
        captions: Sentences on each structure.
        seed: Of the captions.
        progress: What to say while at it; empty says nothing.

    Raises:
        BadInput: There is no structure.
    """
    if not len(dataset):
        raise BadInput("sculptor: no structures to learn from; add some to data/structures or raise structures.train")
    rows = list(zip(dataset.grids, dataset.attributes(), dataset.table["structure_id"], strict=True))
    measured: list[tuple[Blueprint, np.ndarray]] = []
    told: list[tuple[str, ...]] = []
    said: list[tuple[tuple[int, ...], ...]] = []
    for grid, attributes, name in track(rows, description=progress, unit="structures") if progress else rows:
        measured.append(blueprint_of(grid, first, species=attributes.species, attributes=attributes))
        rng = numpy_generator(seed, "captions", str(name))
        told.append(tuple(caption(attributes, rng) for _ in range(captions)))
        said.append(tuple(tuple(said_values(read_prompt(sentence).attributes)) for sentence in told[-1]))
    return Examples(
        first,
        tuple(blueprint for blueprint, _ in measured),
        tuple(grid for _, grid in measured),
        tuple(dataset.table["size"]),
        tuple(source == "own" for source in dataset.table["source"]),
        tuple(told),
        tuple(said),
    )


@dataclass(frozen=True)
class Batch:
    """Structures on one canvas, turned and mirrored at random.

    Attributes:
        rows: (B,) numbers of the examples.
        symmetries: (B,) how each is turned.
        x0: (B, Y, Z, X) int64 roles, `OUTSIDE` beyond the boxes.
        drawn: (B, Y, Z, X) int64, what the network drew there earlier; `OUTSIDE` where it did not yet.
        guides: What the network is told.
        prompts: One caption each; empty where the network is to learn without.
    """

    rows: np.ndarray
    symmetries: np.ndarray
    x0: Tensor
    drawn: Tensor
    guides: Guides
    prompts: list[str]


class Batches:
    """Draws batches: every step has one canvas, sizes take their share of the voxels.

    Args:
        examples: What to draw from.
        multiple: What the sides of a canvas are a multiple of.
        voxels: Voxels of a batch, about.
        mix: Share of the voxels that each size gets; shares of sizes that do not occur go to the others.
        own_share: Share of the voxels of a size that the user's structures get, where it has both kinds.
        text_dropout: Share of structures that are taught without a caption, for guidance.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        multiple: int,
        voxels: int,
        mix: Mapping[str, float],
        own_share: float,
        text_dropout: float,
    ) -> None:
        self.examples, self.voxels, self.text_dropout = examples, voxels, text_dropout
        groups: dict[tuple[str, bool, tuple[int, int, int]], list[int]] = defaultdict(list)
        for number, blueprint in enumerate(examples.blueprints):
            groups[examples.sizes[number], examples.own[number], blueprint.canvas(multiple)].append(number)
        keys = sorted(groups)
        self.members = [np.array(groups[key]) for key in keys]
        self.canvases = [canvas for _, _, canvas in keys]
        self.rows = [int(np.clip(voxels // np.prod(canvas), 2, 64)) for canvas in self.canvases]
        volume = np.array([np.prod(canvas) for canvas in self.canvases], np.float64)
        held = volume * [len(members) for members in self.members]
        both = {size: {own for name, own, _ in keys if name == size} == {True, False} for size, _, _ in keys}
        wanted = np.zeros(len(keys))
        for place, (size, own, _) in enumerate(keys):
            kin = [index for index, key in enumerate(keys) if key[:2] == (size, own)]
            source = (own_share if own else 1 - own_share) if both[size] else 1.0
            wanted[place] = mix.get(size, 0.0) * source * held[place] / held[kin].sum()
        if wanted.sum() <= 0:
            raise BadInput(f"sculptor: sizes {sorted(both)} occur, but the mix {dict(mix)} gives none of them a share")
        chances = wanted / (volume * self.rows)
        self.chances = chances / chances.sum()
        self.starts = np.concatenate([[0], np.cumsum([grid.size for grid in examples.grids])])

    def empty_memory(self) -> np.ndarray:
        """Return a place for what the network draws of every structure: uint8, flat, `OUTSIDE` where it did not yet."""
        return np.full(int(self.starts[-1]), OUTSIDE, np.uint8)

    def draw(self, rng: np.random.Generator, memory: np.ndarray) -> Batch:
        """Draw the next batch."""
        examples = self.examples
        place = int(rng.choice(len(self.canvases), p=self.chances))
        canvas, rows = self.canvases[place], rng.choice(self.members[place], self.rows[place])
        symmetries = rng.integers(SYMMETRIES, size=len(rows))
        blueprints, grids, drawn, prompts = [], [], [], []
        for row, symmetry in zip(rows, symmetries, strict=True):
            blueprint, grid = turned(examples.blueprints[row], examples.grids[row], int(symmetry))
            blueprints.append(blueprint)
            grids.append(on_canvas(grid, canvas))
            drawn.append(on_canvas(turned_grid(self._remembered(memory, int(row)), int(symmetry)), canvas))
            captions = examples.captions[row]
            dropped = rng.random() < self.text_dropout
            prompts.append("" if dropped or not captions else captions[int(rng.integers(len(captions)))])
        return Batch(
            rows,
            symmetries,
            torch.from_numpy(np.stack(grids)).long(),
            torch.from_numpy(np.stack(drawn)).long(),
            guides_of(blueprints, canvas, examples.first),
            prompts,
        )

    def remember(self, memory: np.ndarray, batch: Batch, drawn: np.ndarray) -> None:
        """Keep what the network drew of each structure, turned back.

        Args:
            memory: From :meth:`empty_memory`.
            batch: What it drew it for.
            drawn: (B, Y, Z, X) uint8.
        """
        for row, symmetry, grid in zip(batch.rows, batch.symmetries, drawn, strict=True):
            shape = turned_grid(self.examples.grids[row], int(symmetry)).shape
            mine = grid[: shape[0], : shape[1], : shape[2]]
            remembered = self._remembered(memory, int(row))
            # A view of the memory, turned: what is written there is turned back.
            turned_grid(remembered, int(symmetry))[...] = mine

    def _remembered(self, memory: np.ndarray, row: int) -> np.ndarray:
        return memory[self.starts[row] : self.starts[row + 1]].reshape(self.examples.grids[row].shape)
