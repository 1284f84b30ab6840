"""The sampler's training: the book of programs and the student side by side, then the cascade, then the controller.

Everything that is done is kept in the scratch folder, so that a training that was killed goes on from there.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vernissage.core.errors import VernissageError
from vernissage.core.files import atomic_write_json, read_json
from vernissage.sampler.learn.book_making import BookMaking, make_book

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.sampler.domain.denoiser import Denoiser
    from vernissage.sampler.learn.book import ProgramBook
    from vernissage.sampler.learn.cascade import Cascade
    from vernissage.sampler.learn.consistency import Student, StudentTraining
    from vernissage.sampler.learn.controller import SteeringController
    from vernissage.sampler.learn.denoiser_training import LabelledPictures
    from vernissage.sampler.learn.rewards import Requests
    from vernissage.sampler.learn.steering import SteeringTraining

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamplerTraining:
    """What is trained and how.

    Attributes:
        book: The programs.
        student: The network of one and two evaluations; none for pipelines.
        steering: The controller; none leaves it out.
        cascade_prices: Prices that the cascade gets thresholds for.
        seed: Root of all randomness.
    """

    book: BookMaking
    student: StudentTraining | None
    steering: SteeringTraining | None
    cascade_prices: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    seed: int = 0


@dataclass(frozen=True)
class TrainedSampler:
    """What came out.

    Attributes:
        book: The programs.
        student: Answers in one evaluation, where there is one.
        cascade: One evaluation, two, or a program; none where it pays at no price.
        controller: Who steers; none where none was asked for.
        tables: Name to rows: ``programs``, ``student``, ``verifier``, ``cascade``, ``policy``, ``gate``, ``choices``.
        summary: The numbers that one training is compared with another by.
    """

    book: ProgramBook
    student: Student | None
    cascade: Cascade | None
    controller: SteeringController | None
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)


def train_sampler(
    denoiser: Denoiser,
    train: Requests,
    val: Requests,
    settings: SamplerTraining,
    scratch: Path,
    pictures: LabelledPictures | None = None,
) -> TrainedSampler:
    """Train everything.

    Args:
        denoiser: The network.
        train: Requests to learn on.
        val: Requests to choose by.
        settings: What is trained and how.
        scratch: Folder of this training.
        pictures: What the denoiser was taught, for a student that learns from them as well.

    Raises:
        BadInput: If there are too few requests.
        BadParams: If a training diverged.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    taught: list[tuple[Student, list[dict[str, Any]]]] = []

    def teach() -> None:
        taught.append(_student(denoiser, train, settings, scratch, pictures))

    beside = [teach] if settings.student is not None else []
    book, programs = make_book(denoiser, train, val, settings.book, scratch, beside)
    tables = {"programs": programs}
    student, tables["student"] = taught[0] if taught else (None, [])
    cascade = None
    if student is not None:
        cascade, tables["verifier"], tables["cascade"] = _cascade(denoiser, book, student, train, val, settings)
    controller = None
    if settings.steering is not None:
        from vernissage.sampler.learn.steering import train_controller

        steered = train_controller(denoiser, book, train, val, settings.steering, scratch / "controller", student)
        controller = steered.controller
        tables |= {"policy": steered.curves, "gate": steered.gate, "choices": steered.choices}
    return TrainedSampler(book, student, cascade, controller, tables, _summary(book, tables))


def _student(
    denoiser: Any, train: Requests, settings: SamplerTraining, scratch: Path, pictures: LabelledPictures | None
) -> tuple[Student, list[dict[str, Any]]]:
    """The student, from the scratch folder where it is done."""
    from vernissage.sampler.learn.consistency import Student, train_student

    done, curves = scratch / "student-done", scratch / "student-done" / "curves.json"
    device = train.endpoints.device
    if curves.is_file():
        try:
            return Student.load(done).to(device), list(read_json(curves))
        except VernissageError as error:
            log.warning("%s is not usable (%s); the student is taught again", done, error)
    assert settings.student is not None  # noqa: S101 - the only caller has looked
    student, rows = train_student(denoiser, settings.student, scratch / "student", pictures=pictures, pairs=train)
    student.save(done)
    atomic_write_json(curves, rows)
    return student.to(device), rows


def _cascade(
    denoiser: Denoiser,
    book: ProgramBook,
    student: Student,
    train: Requests,
    val: Requests,
    settings: SamplerTraining,
) -> tuple[Cascade | None, list[dict[str, Any]], list[dict[str, Any]]]:
    """The cascade where it pays at any price, what its verifier can tell, and what it is worth at each price."""
    from vernissage.sampler.learn.cascade import make_cascade, train_verifier

    verifier = train_verifier(denoiser, student, train, seed=settings.seed)
    cascade = make_cascade(denoiser, student, verifier, book, val, settings.cascade_prices, seed=settings.seed)
    pays = any(row["pays"] for row in cascade.facts)
    if not pays:
        log.info("the cascade pays at no price on validation requests; it is left out")
    facts = {key: value for key, value in verifier.facts.items() if isinstance(value, int | float | str)}
    return cascade if pays else None, [facts], cascade.facts


def _summary(book: ProgramBook, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Mean validation error of each family and number of calls, and what student, cascade and controller are worth."""
    errors: dict[str, dict[str, float]] = {}
    for made_by in dict.fromkeys(entry.made_by for entry in book.entries):
        family = book.family(made_by)
        for calls in sorted({entry.calls for entry in family}):
            own = [entry for entry in family if entry.calls == calls]
            mean = sum(entry.score.mean for entry in own) / len(own)
            errors.setdefault(made_by.replace(" ", "_"), {})[f"calls_{calls}"] = round(mean, 6)
    summary: dict[str, Any] = {"tau": book.tau, "validation_error": errors}
    kept = [row for row in tables.get("student", []) if row.get("kept")]
    if kept:
        summary["student"] = {key: kept[-1][key] for key in ("error_1", "error_2")}
    if tables.get("gate"):
        gate = tables["gate"]
        summary["controller"] = {
            "prices": len(gate),
            "prices_steered": sum(row["ships"] == "controller" for row in gate),
            "improvement": sum(row["improvement"] for row in gate) / len(gate),
        }
    if tables.get("cascade"):
        summary["cascade"] = {
            "prices": len(tables["cascade"]),
            "prices_it_pays": sum(bool(row["pays"]) for row in tables["cascade"]),
        }
    return summary
