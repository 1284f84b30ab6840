"""The trained sculptor: the network of voxels, what decides before it, and how the two are kept on disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vernissage.core.errors import CorruptArtifact
from vernissage.core.weights import load_weights, save_weights
from vernissage.sculptor.domain.language import VOCABULARY
from vernissage.sculptor.domain.plan import FIELDS
from vernissage.sculptor.domain.roles import Role
from vernissage.sculptor.learn.blueprints import GUIDE_CHANNELS
from vernissage.sculptor.learn.coarse import CoarseNetwork, CoarseShape
from vernissage.sculptor.learn.network import NetworkShape, VoxelNetwork
from vernissage.sculptor.learn.planner import Planner, PlannerShape
from vernissage.sculptor.learn.text_encoder import WORDS, TextEncoder, make_text_encoder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vernissage.sculptor.learn.blueprints import First

# Written into every model: weights of other tables would be read as something else.
_TABLES = {"roles": [role.name for role in Role], "fields": FIELDS}


@dataclass(frozen=True)
class SculptorShape:
    """What a sculptor is made of.

    Attributes:
        first: What comes before the voxels: a plan, a coarse grid, or nothing.
        network: Of the voxels.
        planner: Of the plans; only where these come first.
        coarse: Of the coarse grids; only where these come first.
        text_model: `words`, or name or path of a sentence encoder for transformers.
        vocabulary: The words that `words` has a vector for; kept with the weights, which belong to these words.
    """

    first: First = "plan"
    network: NetworkShape = field(default_factory=NetworkShape)
    planner: PlannerShape = field(default_factory=PlannerShape)
    coarse: CoarseShape = field(default_factory=CoarseShape)
    text_model: str = WORDS
    vocabulary: tuple[str, ...] = VOCABULARY

    def __post_init__(self) -> None:
        network = replace(self.network, guide=GUIDE_CHANNELS[self.first], plan=self.first == "plan")
        object.__setattr__(self, "network", network)

    @staticmethod
    def of(facts: Mapping[str, Any]) -> SculptorShape:
        """Return the shape whose `asdict` went through JSON."""
        network: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in facts["network"].items()
        }
        return SculptorShape(
            facts["first"],
            NetworkShape(**network),
            PlannerShape(**facts["planner"]),
            CoarseShape(**facts["coarse"]),
            facts["text_model"],
            tuple(facts["vocabulary"]),
        )

    def text_encoder(self, width: int) -> TextEncoder:
        """Return a fresh text encoder."""
        return make_text_encoder(self.text_model, width, self.vocabulary)


class Sculptor(nn.Module):
    """Everything that is learned.

    Attributes:
        shape: What it is made of.
        network: Says what every undecided voxel may be.
        words: Turns prompts into vectors for the network.
        planner: Draws plans; None where no plan comes first.
        coarse: Draws coarse grids; None where none comes first.
        first_words: Turns prompts into vectors for what comes first; None where nothing does.
        facts: What else is kept with the weights: plain JSON values.
    """

    def __init__(self, shape: SculptorShape, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.shape, self.facts = shape, dict(facts or {})
        self.network = VoxelNetwork(shape.network)
        self.words = shape.text_encoder(shape.network.text)
        self.planner = Planner(shape.planner) if shape.first == "plan" else None
        self.coarse = CoarseNetwork(shape.coarse) if shape.first == "coarse" else None
        width = {"plan": shape.planner.text, "coarse": shape.coarse.text}.get(shape.first)
        self.first_words = None if width is None else shape.text_encoder(width)

    @property
    def first(self) -> First:
        """What comes before the voxels."""
        return self.shape.first

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def save(self, folder: Path) -> None:
        """Write the weights as safetensors and everything else as JSON."""
        spec = {"shape": asdict(self.shape), "tables": _TABLES, "facts": self.facts}
        save_weights(folder, self.state_dict(), spec)

    @staticmethod
    def load(folder: Path) -> Sculptor:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: There is none.
            CorruptArtifact: It is damaged, or its tables are not those of this version.
        """
        tensors, spec = load_weights(folder)
        if spec.get("tables") != _TABLES:
            raise CorruptArtifact(
                f"{folder}: its roles or plan values are not those of this version of Vernissage; train again, or use "
                "the version that wrote it"
            )
        try:
            sculptor = Sculptor(SculptorShape.of(spec["shape"]), spec["facts"])
            sculptor.load_state_dict(tensors)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise CorruptArtifact(f"{folder}: not the weights of a sculptor ({reason}); train again") from error
        return sculptor.eval().requires_grad_(requires_grad=False)
