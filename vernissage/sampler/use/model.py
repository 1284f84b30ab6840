"""A sampler as it is shipped: the network, its book of programs, and what was taught to steer and to shorten it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.core.files import atomic_write_json, fresh_folder, read_json, sha256_file
from vernissage.sampler.domain.denoiser import ClassLabels
from vernissage.sampler.learn.book import ProgramBook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vernissage.sampler.domain.denoiser import Condition, Denoiser
    from vernissage.sampler.learn.cascade import Cascade
    from vernissage.sampler.learn.consistency import Student
    from vernissage.sampler.learn.controller import SteeringController

SAMPLER_FILE = "sampler.json"
SAMPLER_FORMAT = 1
PROGRAMS_FILE = "programs.json"
CONTROLLER, STUDENT, CASCADE = "controller", "student", "cascade.json"

_TRAIN = "train it with `dvc repro train@sampler`, or fetch it with `dvc pull`"
_AGAIN = "get it back with `dvc checkout`, or train again with `dvc repro train@sampler`"


def _as_they_are(samples: torch.Tensor) -> torch.Tensor:
    return samples.float()


@dataclass(frozen=True, eq=False)
class SamplerModel:
    """Everything that drawing takes.

    Attributes:
        denoiser: The network.
        book: Programs by price and guidance scale.
        controller: Who steers; none where the static programs do.
        student: The network of one evaluation, for `SpeedDemon`; that of the cascade where left out.
        cascade: One evaluation, two, or a program, as a verifier says; none where there is none.
        names: What each label stands for: classes, or prompts.
        classes: Number of labels; as many as names where left out, and any where there are none.
        guided: Whether guidance can be asked for.
        conditions: Makes conditions of (N,) long labels.
        pictures: Makes pictures of (N, C, H, W) samples; as they are, unless samples are latents.
        facts: What the training wrote down about it.

    Raises:
        BadInput: If the student is for samples of another shape.
    """

    denoiser: Denoiser
    book: ProgramBook
    controller: SteeringController | None = None
    student: Student | None = None
    cascade: Cascade | None = None
    names: tuple[str, ...] = ()
    classes: int = 0
    guided: bool = True
    conditions: Callable[[torch.Tensor], Condition | None] = ClassLabels
    pictures: Callable[[torch.Tensor], torch.Tensor] = _as_they_are
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.student is None and self.cascade is not None:
            object.__setattr__(self, "student", self.cascade.student)
        if self.student is not None and tuple(self.student.shape) != tuple(self.denoiser.shape):
            raise BadInput(
                f"sampler: a student for samples of {tuple(self.student.shape)}, expected {tuple(self.denoiser.shape)} "
                f"as the denoiser has; they belong to different models, {_AGAIN}"
            )
        if not self.classes:
            known = getattr(getattr(self.denoiser, "spec", None), "classes", 0)
            object.__setattr__(self, "classes", len(self.names) or known)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        parameters = getattr(self.denoiser, "parameters", None)
        if callable(parameters):
            return next((tensor.device for tensor in parameters()), torch.device("cpu"))
        return torch.device(getattr(self.denoiser, "device", "cpu"))

    def steers_at(self, price: float) -> bool:
        """Whether the controller has a say at a price, or the static program was found as good there."""
        return self.controller is not None and self.controller.steers_at(price)

    def condition(self, labels: torch.Tensor) -> Condition | None:
        """What (N,) long labels ask of the network.

        Raises:
            BadInput: If it does not know one of them.
        """
        condition = self.conditions(labels)
        if isinstance(condition, ClassLabels) and self.classes:
            condition.check(self.classes)
        return condition

    def save(self, folder: Path) -> None:
        """Write everything but the denoiser.

        That is ``book.json``, ``programs.json`` (as `SteeredScheduler` takes them), ``controller/``, ``student/``, the
        cascade's ``verifier/`` and ``cascade.json``, and at last ``sampler.json`` with the facts and the hashes of all
        files.

        Args:
            folder: Taken over as a whole: what was in it before is gone, unless writing fails.

        Raises:
            ValueError: If the facts hold nan or infinity.
            TypeError: If they hold something that JSON has no form for.
        """
        with fresh_folder(folder) as fresh:
            if self.cascade is not None:
                self.cascade.save(fresh)
            if self.student is not None:
                self.student.save(fresh / STUDENT)
            if self.controller is not None:
                self.controller.save_pretrained(fresh / CONTROLLER, safe_serialization=True)
            self.book.save(fresh)
            programs = {entry.calls: entry.program.to_dict() for entry in self.book.fully_guided}
            atomic_write_json(fresh / PROGRAMS_FILE, programs)
            hashes = {
                path.relative_to(fresh).as_posix(): sha256_file(path)
                for path in sorted(fresh.rglob("*"))
                if path.is_file()
            }
            facts = {"shape": list(self.denoiser.shape), "facts": dict(self.facts)}
            atomic_write_json(fresh / SAMPLER_FILE, {"format": SAMPLER_FORMAT, "sha256": hashes, **facts})

    @staticmethod
    def load(
        folder_denoiser: Path | str,
        folder_sampler: Path | str,
        *,
        device: torch.device | str | None = None,
        project: Path | str = ".",
    ) -> SamplerModel:
        """Read a denoiser and what :meth:`save` wrote.

        Args:
            folder_denoiser: What the stage `denoiser` made: the embedded network, or which pipeline of `diffusers`.
            folder_sampler: What the stage `train@sampler` made.
            device: Where to compute; none leaves it to the machine.
            project: Folder of the project, where the denoiser is a pipeline in its data.

        Raises:
            MissingArtifact: If a part is not there; the message says what to run.
            CorruptArtifact: If a part is damaged, or denoiser and sampler are of different models.
            BadParams: If the device is not there.
        """
        from vernissage.sampler.prepare.models import PIPELINES, open_network

        denoiser_folder, folder = Path(folder_denoiser), Path(folder_sampler)
        if not denoiser_folder.is_dir():
            raise MissingArtifact(
                f"{denoiser_folder}: no such folder; make the denoiser with `dvc repro denoiser`, or fetch it with "
                "`dvc pull`"
            )
        record = _record(folder)
        network = open_network(denoiser_folder, device, pipelines=Path(project) / PIPELINES)
        if tuple(record["shape"]) != tuple(network.denoiser.shape):
            raise CorruptArtifact(
                f"{folder}: made for samples of {tuple(record['shape'])}, but {denoiser_folder} makes "
                f"{tuple(network.denoiser.shape)}; train it for this denoiser with `dvc repro train@sampler`"
            )
        model = SamplerModel(
            network.denoiser,
            ProgramBook.load(folder),
            names=network.names,
            classes=network.classes,
            guided=network.facts.guided,
            conditions=network.conditions,
            pictures=network.pictures,
            facts=record["facts"],
        )
        parts: dict[str, Any] = {}
        if CONTROLLER in record["parts"]:
            parts[CONTROLLER] = _controller(folder / CONTROLLER)
        if CASCADE in record["parts"]:
            from vernissage.sampler.learn.cascade import Cascade

            parts["cascade"] = cascade = Cascade.load(folder)
            cascade.student.to(model.device)
        elif STUDENT in record["parts"]:
            from vernissage.sampler.learn.consistency import Student

            parts[STUDENT] = Student.load(folder / STUDENT).to(model.device)
        try:
            return replace(model, **parts)
        except BadInput as error:
            raise CorruptArtifact(f"{folder}: {error}") from error


def _record(folder: Path) -> dict[str, Any]:
    """What ``sampler.json`` says, after a look at every file that it names."""
    path = folder / SAMPLER_FILE
    if not path.is_file():
        raise MissingArtifact(f"{path}: no such file; there is no trained sampler yet: {_TRAIN}")
    record = read_json(path)
    try:
        if record["format"] != SAMPLER_FORMAT:
            raise CorruptArtifact(f"{path}: format {record['format']!r}, expected {SAMPLER_FORMAT}; {_AGAIN}")
        hashes, shape, facts = dict(record["sha256"]), [int(side) for side in record["shape"]], dict(record["facts"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptArtifact(f"{path}: expected format, sha256, shape and facts ({error!r}); {_AGAIN}") from error
    for name, expected in sorted(hashes.items()):
        if not (folder / name).is_file():
            raise MissingArtifact(f"{folder / name}: no such file, but {path} names it; {_AGAIN}")
        found = sha256_file(folder / name)
        if found != expected:
            raise CorruptArtifact(f"{folder / name}: its hash is {found}, expected {expected}; {_AGAIN}")
    parts = {name.split("/")[0] for name in hashes}
    return {"shape": shape, "facts": facts, "parts": parts}


def _controller(folder: Path) -> SteeringController:
    from safetensors import SafetensorError

    from vernissage.sampler.learn.controller import SteeringController

    try:
        controller = SteeringController.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError, BadParams) as error:
        raise CorruptArtifact(f"{folder}: not a controller of this version ({error}); {_AGAIN}") from error
    controller.eval()
    return controller
