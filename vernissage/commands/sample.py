"""`vernissage sample`: pictures from the diffusion model, steered by a price or by a program, as one sheet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vernissage.commands.screen import screen
from vernissage.core.errors import BadInput, MissingArtifact

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from vernissage.sampler.use.sample import SampleResult

_COLUMNS = 12
_USUAL_CALLS = 10
# As in `vernissage.sampler.domain.denoiser`, which imports torch.
_NO_CLASS = -1


@dataclass(frozen=True)
class SampleRequest:
    """What was asked for.

    Attributes:
        model: Folder of the denoiser.
        sampler: Folder of the trained sampler; read only where there is a price or a budget.
        labels: Names or numbers of classes, taken in turn; all classes where there are none.
        count: Samples.
        calls: Network calls per sample by a program; without guidance so many evaluations.
        program: JSON of a program, in place of the usual one for that number of calls.
        price: What one network evaluation costs, for the trained sampler.
        budget: Most network evaluations per sample, for the trained sampler.
        guidance: Scale of classifier-free guidance.
        seed: Seed of the first sample; the others follow.
        output: PNG for the sheet.
        trace: JSON for what every call did.

    Raises:
        BadInput: If both ways to sample are asked for.
    """

    model: Path
    sampler: Path
    labels: tuple[str, ...]
    count: int
    calls: int | None
    program: Path | None
    price: float | None
    budget: int | None
    guidance: float
    seed: int
    output: Path
    trace: Path | None

    def __post_init__(self) -> None:
        ours = [name for name, value in (("--price", self.price), ("--budget", self.budget)) if value is not None]
        static = [name for name, value in (("--calls", self.calls), ("--program", self.program)) if value is not None]
        if ours and static:
            raise BadInput(
                f"{' and '.join(ours)} beside {' and '.join(static)}: a price or budget leaves it to the trained "
                "sampler what to run, calls or a program say it; leave one of the two out"
            )

    @property
    def steered(self) -> bool:
        """Whether the trained sampler is asked."""
        return self.price is not None or self.budget is not None

    @property
    def seeds(self) -> range:
        """One for each sample."""
        return range(self.seed, self.seed + self.count)


@dataclass(frozen=True)
class _Drawn:
    """What came out: samples to be shown, what there is to say, and what the trace holds."""

    samples: torch.Tensor
    failed: torch.Tensor
    said: str
    facts: dict[str, Any]
    columns: int


def draw_samples(request: SampleRequest) -> bool:
    """Draw, save the sheet and the trace, say what it cost, and return whether every sample came through.

    Raises:
        MissingArtifact: There is no denoiser, no trained sampler where one is needed, or no such program.
        CorruptArtifact: One of their files is damaged.
        BadInput: The model does not know a class, a price or budget is none, or a folder cannot be written.
    """
    # These import torch: only after the folder was found.
    from vernissage.core.devices import configure_torch
    from vernissage.core.files import atomic_path, atomic_write_json, require_writable
    from vernissage.sampler.domain.sheets import sample_sheet

    for path in (request.output, request.trace):
        if path is not None:
            require_writable(path.resolve().parent)
    configure_torch()
    drawn = _draw_steered(request) if request.steered else _draw_static(request)
    with atomic_path(request.output) as temporary:
        sample_sheet(drawn.samples.split(drawn.columns)).save(temporary, format="PNG")
    if request.trace is not None:
        atomic_write_json(request.trace, drawn.facts)
    failed = int((drawn.failed >= 0).sum())
    console = screen()
    console.print(f"{drawn.said}: {request.output}", soft_wrap=True, markup=False)
    if failed:
        console.print(f"{failed} of them ended early, at a prediction that was no number", soft_wrap=True)
    return not failed


def _draw_static(request: SampleRequest) -> _Drawn:
    """By a program."""
    from vernissage.core.weights import load_weights
    from vernissage.sampler.domain.programs import Program, dpmpp
    from vernissage.sampler.domain.schedules import karras
    from vernissage.sampler.domain.unet import EdmDenoiser
    from vernissage.sampler.use.sample import sample

    denoiser = EdmDenoiser.load(request.model)
    names = [str(name) for name in load_weights(request.model)[1].get("class_names", [])]
    if request.program is None:
        calls = _USUAL_CALLS if request.calls is None else request.calls
        program = dpmpp(karras(calls, denoiser.sigma_min, denoiser.sigma_max))
    else:
        if not request.program.is_file():
            raise MissingArtifact(f"--program {request.program}: no such file; expected what Program.to_json writes")
        program = Program.from_json(request.program.read_text(encoding="utf-8"))
    labels, columns = _labels(request, names, denoiser.spec.classes)
    result = sample(denoiser, labels, request.seeds, program, guidance=request.guidance)
    milliseconds = sum(row.milliseconds for row in result.trace)
    said = (
        f"{request.count} samples by {program.name}, {float(result.nfe.float().mean()):g} network evaluations each, "
        f"{milliseconds:.0f} ms in the network"
    )
    facts = {"program": program.to_dict(), **_facts(request, labels, result)}
    return _Drawn(result.sample, result.failed, said, facts, columns)


def _draw_steered(request: SampleRequest) -> _Drawn:
    """As the trained sampler decides."""
    from vernissage.sampler.use.model import SamplerModel
    from vernissage.sampler.use.sample import Request, steered_sample

    # A folder `models/denoiser` may refer to a pipeline in the data of its project.
    project = request.model.absolute().parents[1]
    model = SamplerModel.load(request.model, request.sampler, project=project)
    price = 0.0 if request.price is None else request.price
    labels, columns = _labels(request, list(model.names), model.classes)
    result = steered_sample(
        model,
        [
            Request(label, seed, request.guidance, price, request.budget)
            for label, seed in zip(labels, request.seeds, strict=True)
        ],
        traced=request.trace is not None,
    )
    nfe, static = float(result.nfe.float().mean()), float(result.static_nfe.float().mean())
    bought = "for the best quality" if price == 0 else f"at a price of {price:g}"
    within = "" if request.budget is None else f" within {request.budget} evaluations"
    means = "steered" if bool(result.steered.any()) else "by the static program, as nothing was found better there"
    share = result.steering_milliseconds / max(result.network_milliseconds, 1e-9)
    said = (
        f"{request.count} samples {bought}{within}, {means}: {nfe:.3g} network evaluations each, {static:.3g} by the "
        f"static program, {result.network_milliseconds:.0f} ms in the network and "
        f"{result.steering_milliseconds:.1f} ms ({share:.1%}) in steering"
    )
    facts = {
        "price": price,
        "budget": request.budget,
        "static_nfe": result.static_nfe.tolist(),
        "steered": result.steered.tolist(),
        "reasons": list(result.reasons),
        "refused": result.refused,
        "milliseconds": {
            "network": round(result.network_milliseconds, 3),
            "steering": round(result.steering_milliseconds, 3),
            "tracing": round(result.tracing_milliseconds, 3),
        },
        **_facts(request, labels, result),
    }
    return _Drawn(model.pictures(result.sample), result.failed, said, facts, columns)


def _facts(request: SampleRequest, labels: list[int], result: SampleResult) -> dict[str, Any]:
    """What the traces of both ways have in common."""
    return {
        "guidance": request.guidance,
        "labels": labels,
        "seeds": list(request.seeds),
        "nfe": result.nfe.tolist(),
        "failed": result.failed.tolist(),
        "calls": [row.to_dict() for row in result.trace],
    }


def _labels(request: SampleRequest, names: list[str], classes: int) -> tuple[list[int], int]:
    """Class of each sample, and columns of the sheet."""
    told = [_number(label, names, classes) for label in request.labels] or list(range(classes)) or [_NO_CLASS]
    columns = min(_COLUMNS, request.count) if len(told) == 1 else len(told)
    return [told[place % len(told)] for place in range(request.count)], columns


def _number(label: str, names: list[str], classes: int) -> int:
    """The number of a class that was given by name or number; names come first."""
    if label in names:
        return names.index(label)
    if label.isdecimal() and int(label) < classes:
        return int(label)
    known = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") or f"0 to {classes - 1}"
    raise BadInput(f"--label {label}: this model knows {known}")
