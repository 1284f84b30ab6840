"""A trained sculptor as it is used: its weights, those of any epoch that were kept, and how to tell them apart."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vernissage.core.devices import choose_device
from vernissage.core.errors import BadParams, CorruptArtifact, MissingArtifact
from vernissage.core.files import read_json
from vernissage.sculptor.learn.building import Building
from vernissage.sculptor.learn.model import Sculptor

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The weights that training chose; they lie in the model's folder itself.
BEST = "best"
CHECKPOINTS = "checkpoints"

_EPOCH_ASKED = re.compile(r"epoch[=-](\d{1,9})", re.ASCII)
_EPOCH_FOLDER = re.compile(r"epoch-(\d{1,9})", re.ASCII)
_WEIGHTS, _SPEC = "model.safetensors", "model.json"
_SHOWN = 20
_AGAIN = "get it back with `dvc checkout`, or train again with `dvc repro train@sculptor`"


@dataclass(frozen=True, eq=False)
class SculptorModel:
    """A trained sculptor and where it comes from.

    Attributes:
        sculptor: The networks, on the device that this process computes on.
        checkpoint: Which weights these are: `best`, or `epoch=50`.
        digest: SHA-256 of the weights, in hexadecimal digits.
        facts: What training wrote down about them.
    """

    sculptor: Sculptor
    checkpoint: str = BEST
    digest: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def load(folder: Path | str, checkpoint: str | None = None) -> SculptorModel:
        """Load a model.

        Args:
            folder: Such as `models/sculptor`.
            checkpoint: `epoch=50` for the weights of that epoch; `best` or None for those that training chose.

        Raises:
            BadParams: `checkpoint` is written in another way.
            MissingArtifact: There is no model, or no such checkpoint; the message lists those there are.
            CorruptArtifact: A file is damaged, or of another version.
        """
        place, name = _place(Path(folder), checkpoint)
        sculptor = Sculptor.load(place)
        digest = str(read_json(place / _SPEC)["sha256"])
        return SculptorModel(sculptor.to(choose_device()), name, digest, dict(sculptor.facts))

    @property
    def building(self) -> Building:
        """How voxels are decided unless somebody asks for another way: as when the weights were chosen.

        Raises:
            CorruptArtifact: What was written down about it is not that.
        """
        try:
            return Building(**self.facts.get("building", {}))
        except (TypeError, BadParams) as error:
            raise CorruptArtifact(
                f"{self.checkpoint}: facts about building cannot be used ({error}); {_AGAIN}"
            ) from error

    @property
    def plan_guidance(self) -> float:
        """Scale of guidance on what comes first, likewise.

        Raises:
            CorruptArtifact: What was written down about it is no number.
        """
        scale = self.facts.get("plan_guidance", 1.0)
        if isinstance(scale, bool) or not isinstance(scale, int | float):
            raise CorruptArtifact(f"{self.checkpoint}: plan_guidance {scale!r} is no number; {_AGAIN}")
        return float(scale)

    @property
    def identity(self) -> dict[str, Any]:
        """What names these weights, as JSON values."""
        return {"sha256": self.digest, "checkpoint": self.checkpoint, "epoch": self.facts.get("epoch")}


def checkpoints_in(folder: Path | str) -> dict[int, Path]:
    """Return the folders of the checkpoints in a model's folder, by epoch, in the order of the epochs."""
    found = {}
    for place in (Path(folder) / CHECKPOINTS).glob("epoch-*"):
        match = _EPOCH_FOLDER.fullmatch(place.name)
        if match and (place / _WEIGHTS).is_file():
            found[int(match[1])] = place
    return dict(sorted(found.items()))


def _place(folder: Path, checkpoint: str | None) -> tuple[Path, str]:
    """The folder of the weights that are asked for, and their name."""
    asked = (checkpoint or BEST).strip().lower()
    if asked == BEST:
        return folder, BEST
    match = _EPOCH_ASKED.fullmatch(asked)
    if match is None:
        raise BadParams(f"checkpoint {checkpoint!r}: expected {BEST}, or the number of an epoch such as epoch=50")
    there = checkpoints_in(folder)
    epoch = int(match[1])
    if epoch not in there:
        raise MissingArtifact(f"{folder}: no checkpoint epoch={epoch}; {_listed(folder, list(there))}")
    return there[epoch], f"epoch={epoch}"


def _listed(folder: Path, epochs: list[int]) -> str:
    best = [BEST] if (folder / _WEIGHTS).is_file() else []
    names = [*best, *(f"epoch={epoch}" for epoch in epochs)]
    if not names:
        return "there is no model at all; make it with `dvc repro train@sculptor`, or fetch it with `dvc pull`"
    # A long training keeps hundreds; the last ones are those that somebody may mean.
    shown = names if len(names) <= _SHOWN else [*names[:2], "...", *names[2 - _SHOWN :]]
    return f"there is {', '.join(shown)}"
