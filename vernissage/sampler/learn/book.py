"""The book of programs: which numbers are run for which guidance scale and which price of a network evaluation.

It is what is shipped where no controller is better, and what a controller is measured against. Beside the programs that
are used it keeps those on the way to them, so that a benchmark can say what each step of the work was worth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact
from vernissage.core.files import atomic_write_json, read_json
from vernissage.sampler.domain.programs import Program
from vernissage.sampler.learn.grid import Score

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BOOK_FILE = "book.json"
BOOK_FORMAT = 1

#: What programs were made by, from the best of the grid to what is shipped.
FAMILIES = ("grid", "fitted sigmas", "fitted coefficients", "per guidance", "less guidance")


@dataclass(frozen=True)
class Entry:
    """A program with its guidance.

    Attributes:
        program: The numbers, E network calls.
        scale: Guidance scale that it was made for.
        shares: (E,) how much of the guidance each call obeys: 1 all of it; 0 only the condition, for one evaluation
            instead of two.
        made_by: One of ``FAMILIES``.
        score: On validation requests with that scale.

    Raises:
        BadInput: If there is not one share for each call, or a number is none.
    """

    program: Program
    scale: float
    shares: tuple[float, ...]
    made_by: str
    score: Score

    def __post_init__(self) -> None:
        if len(self.shares) != self.program.evaluations:
            raise BadInput(
                f"book: {len(self.shares)} shares of guidance for program {self.program.name} with "
                f"{self.program.evaluations} calls, expected one for each"
            )
        if self.made_by not in FAMILIES:
            raise BadInput(f"book: made by {self.made_by!r}, expected one of {', '.join(FAMILIES)}")
        if not all(map(math.isfinite, (self.scale, *self.shares))):
            raise BadInput(f"book: scale {self.scale} and shares {self.shares}, expected finite numbers")

    @property
    def calls(self) -> int:
        """Network calls, E."""
        return self.program.evaluations

    def nfe(self, scale: float | None = None) -> int:
        """Network evaluations of a sample with a guidance scale, the entry's own where left out."""
        return sum(evaluations_of(1 + ((self.scale if scale is None else scale) - 1) * share) for share in self.shares)

    def guidance(self, scales: torch.Tensor) -> torch.Tensor | None:
        """Scale of each call, (N, E), of samples with (N,) scales; none where nobody is guided."""
        if bool((scales == 1).all()):
            return None
        return 1 + (scales[:, None] - 1) * torch.tensor(self.shares).to(scales)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        score = {key: value if math.isfinite(value) else None for key, value in vars(self.score).items()}
        return {
            "program": self.program.to_dict(),
            "scale": self.scale,
            "shares": list(self.shares),
            "made_by": self.made_by,
            "score": score,
        }

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> Entry:
        """Read what :meth:`to_dict` wrote; anything else raises KeyError, TypeError, ValueError or an error of ours."""
        found = {key: math.inf if value is None else float(value) for key, value in document["score"].items()}
        score = Score(found["saturated"], found["median"], found["mean"], int(found["pairs"]))
        return Entry(
            Program.from_dict(document["program"]),
            float(document["scale"]),
            tuple(map(float, document["shares"])),
            str(document["made_by"]),
            score,
        )


@dataclass(frozen=True)
class ProgramBook:
    """Programs by guidance scale and number of calls.

    Attributes:
        entries: All of them; no two of one family have the same scale and number of calls.
        tau: Scale of the saturating error that all scores have, in units of the pixels.
        shipped: Family that is used.

    Raises:
        BadInput: If the family that is used is empty, or two entries have one place.
    """

    entries: tuple[Entry, ...]
    tau: float
    shipped: str = FAMILIES[-1]

    def __post_init__(self) -> None:
        if not 0 < self.tau < math.inf:
            raise BadInput(f"book: tau = {self.tau}, expected a number above 0")
        if not self.family(self.shipped):
            raise BadInput(f"book: no program of the family {self.shipped!r}, which is the one to use")
        places = [(entry.made_by, entry.scale, entry.calls) for entry in self.entries]
        if len(set(places)) != len(places):
            raise BadInput("book: two programs of one family have the same guidance scale and number of calls")

    @property
    def scales(self) -> tuple[float, ...]:
        """Guidance scales that there are programs for, increasing."""
        return tuple(sorted({entry.scale for entry in self.family(self.shipped)}))

    @property
    def budgets(self) -> tuple[int, ...]:
        """Numbers of calls that there are programs for, increasing."""
        return tuple(sorted({entry.calls for entry in self.family(self.shipped)}))

    def family(self, made_by: str) -> tuple[Entry, ...]:
        """Entries made by one method."""
        return tuple(entry for entry in self.entries if entry.made_by == made_by)

    @property
    def fully_guided(self) -> tuple[Entry, ...]:
        """One program for each number of calls that obeys all guidance at each: what a scheduler can run."""
        known = self.family("fitted coefficients") or self.family("grid")
        plain = [entry for entry in known or self.family(self.shipped) if all(share == 1 for share in entry.shares)]
        return tuple({entry.calls: entry for entry in sorted(plain, key=lambda entry: entry.calls)}.values())

    def nearest_scale(self, scale: float) -> float:
        """The guidance scale with programs that is nearest to any other one."""
        return min(self.scales, key=lambda known: (abs(known - scale), known))

    def of_scale(self, scale: float, made_by: str | None = None) -> tuple[Entry, ...]:
        """Programs for the nearest scale, by number of calls.

        Args:
            scale: Any guidance scale.
            made_by: Family; the one that is used where left out.
        """
        nearest = self.nearest_scale(scale)
        own = [entry for entry in self.family(made_by or self.shipped) if entry.scale == nearest]
        return tuple(sorted(own, key=lambda entry: entry.calls))

    def entry(self, calls: int, scale: float, made_by: str | None = None) -> Entry:
        """The program with a number of calls for the nearest scale.

        Raises:
            BadInput: If there is none; the message lists those that there are.
        """
        for entry in self.of_scale(scale, made_by):
            if entry.calls == calls:
                return entry
        there_are = ", ".join(str(entry.calls) for entry in self.of_scale(scale, made_by)) or "none"
        raise BadInput(f"book: no program with {calls} network calls, expected one of: {there_are}")

    def for_price(self, price: float, scale: float, made_by: str | None = None) -> Entry:
        """The program whose saturating error and evaluations together cost least on validation requests.

        Args:
            price: What one network evaluation costs, in units of the saturating error (0 to 1); 0 buys the best.
            scale: Any guidance scale.
            made_by: Family; the one that is used where left out.

        Raises:
            BadInput: If the price is negative or no number.
        """
        if not 0 <= price < math.inf:
            raise BadInput(f"price = {price}: expected 0 or more: what one evaluation costs, where quality is 0 to 1")
        own = self.of_scale(scale, made_by)
        if not own:
            raise BadInput(f"book: no program of the family {made_by!r} for guidance scale {scale}")
        return min(own, key=lambda entry: (entry.score.saturated + price * entry.nfe(scale), entry.score.mean))

    def save(self, folder: Path) -> None:
        """Write ``book.json``."""
        document = {
            "format": BOOK_FORMAT,
            "tau": self.tau,
            "shipped": self.shipped,
            "entries": [entry.to_dict() for entry in self.entries],
        }
        atomic_write_json(folder / BOOK_FILE, document)

    @staticmethod
    def load(folder: Path) -> ProgramBook:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: If there is no book.
            CorruptArtifact: If it is damaged.
        """
        path = folder / BOOK_FILE
        if not path.is_file():
            raise MissingArtifact(f"{path}: no such file; make it with `dvc repro train@sampler`, or `dvc pull`")
        document = read_json(path)
        try:
            known = document["format"] == BOOK_FORMAT
            entries = tuple(Entry.from_dict(entry) for entry in document["entries"])
            book = ProgramBook(entries, float(document["tau"]), str(document["shipped"]))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, BadInput, CorruptArtifact) as error:
            raise CorruptArtifact(
                f"{path}: not a book of programs ({error}); make it again with `dvc repro train@sampler`"
            ) from error
        if not known:
            raise CorruptArtifact(
                f"{path}: format {document['format']}, expected {BOOK_FORMAT}; run `dvc repro train@sampler` again"
            )
        return book


def evaluations_of(scale: float) -> int:
    """Network evaluations of one call with a guidance scale: 1 for 0 and 1, else 2."""
    return 1 if scale in (0.0, 1.0) else 2
