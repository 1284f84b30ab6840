"""`vernissage sample`: pictures from the embedded diffusion model, by a program, as one sheet."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from vernissage.commands.screen import screen
from vernissage.core.errors import BadInput, MissingArtifact

if TYPE_CHECKING:
    from pathlib import Path

_COLUMNS = 12


@dataclass(frozen=True)
class SampleRequest:
    """What was asked for.

    Attributes:
        model: Folder of the denoiser.
        labels: Names or numbers of classes, taken in turn; all classes where there are none.
        count: Samples.
        calls: Network calls per sample; without guidance so many evaluations.
        program: JSON of a program, in place of the usual one for that number of calls.
        guidance: Scale of classifier-free guidance.
        seed: Seed of the first sample; the others follow.
        output: PNG for the sheet.
        trace: JSON for what every call did.
    """

    model: Path
    labels: tuple[str, ...]
    count: int
    calls: int
    program: Path | None
    guidance: float
    seed: int
    output: Path
    trace: Path | None


def draw_samples(request: SampleRequest) -> bool:
    """Draw, save the sheet and the trace, say what it cost, and return whether every sample came through.

    Raises:
        MissingArtifact: There is no denoiser, or no such program.
        CorruptArtifact: One of their files is damaged.
        BadInput: The model does not know a class, or a folder cannot be written.
    """
    # These import torch: only after the folder was found.
    from vernissage.core.devices import configure_torch
    from vernissage.core.files import atomic_path, atomic_write_json, require_writable
    from vernissage.core.weights import load_weights
    from vernissage.sampler.domain.programs import Program, dpmpp
    from vernissage.sampler.domain.schedules import karras
    from vernissage.sampler.domain.sheets import sample_sheet
    from vernissage.sampler.domain.unet import EdmDenoiser
    from vernissage.sampler.use.sample import sample

    for path in (request.output, request.trace):
        if path is not None:
            require_writable(path.resolve().parent)
    configure_torch()
    denoiser = EdmDenoiser.load(request.model)
    names = [str(name) for name in load_weights(request.model)[1].get("class_names", [])]
    if request.program is None:
        program = dpmpp(karras(request.calls, denoiser.sigma_min, denoiser.sigma_max))
    else:
        if not request.program.is_file():
            raise MissingArtifact(f"--program {request.program}: no such file; expected what Program.to_json writes")
        program = Program.from_json(request.program.read_text(encoding="utf-8"))
    classes = [_number(label, names, denoiser.spec.classes) for label in request.labels]
    classes = classes or list(range(denoiser.spec.classes))
    labels = [classes[place % len(classes)] for place in range(request.count)]
    seeds = range(request.seed, request.seed + request.count)
    result = sample(denoiser, labels, seeds, program, guidance=request.guidance)

    columns = min(_COLUMNS, request.count) if len(classes) == 1 else len(classes)
    with atomic_path(request.output) as temporary:
        sample_sheet(result.sample.split(columns)).save(temporary, format="PNG")
    if request.trace is not None:
        facts = {
            "program": program.to_dict(),
            "guidance": request.guidance,
            "labels": labels,
            "seeds": list(seeds),
            "nfe": result.nfe.tolist(),
            "failed": result.failed.tolist(),
            "calls": [asdict(row) for row in result.trace],
        }
        atomic_write_json(request.trace, facts)
    failed = int((result.failed >= 0).sum())
    milliseconds = sum(row.milliseconds for row in result.trace)
    console = screen()
    console.print(
        f"{request.count} samples by {program.name}, {float(result.nfe.float().mean()):g} network evaluations each, "
        f"{milliseconds:.0f} ms in the network: {request.output}",
        soft_wrap=True,
        markup=False,
    )
    if failed:
        console.print(f"{failed} of them ended early, at a prediction that was no number", soft_wrap=True)
    return not failed


def _number(label: str, names: list[str], classes: int) -> int:
    """The number of a class that was given by name or number; names come first."""
    if label in names:
        return names.index(label)
    if label.isdecimal() and int(label) < classes:
        return int(label)
    known = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") or f"0 to {classes - 1}"
    raise BadInput(f"--label {label}: this model knows {known}")
