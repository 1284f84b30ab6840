"""`vernissage sculpt "tall oak tree"`: builds structures from words, as files that other programs read."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vernissage.commands.photos import printable
from vernissage.commands.screen import screen
from vernissage.core.errors import BadInput, BadParams

if TYPE_CHECKING:
    from collections.abc import Callable

    from vernissage.sculptor.use.outputs import Written
    from vernissage.sculptor.use.sculpt import Sculpted, Wishes

DEFAULT_OUTPUT = Path("sculptures")
DEFAULT_FORMATS = "schem,png"


@dataclass(frozen=True)
class SculptRequest:
    """What was asked for, as it was typed.

    Attributes:
        model: Finds the folder of the model; asked only after everything else was found to be right.
        prompt: Any text.
        size: Name of a size, or WIDTHxHEIGHTxDEPTH.
        count: Structures.
        steps: Network calls that decide voxels; as the model's training had it where left out, like the guidance.
        seed: Of the first structure; the others follow.
        output: Folder for the files.
        formats: Names of formats, with commas.
        checkpoint: `best`, or `epoch=50`; None is the best.
        guidance: Scale of classifier-free guidance, on plans and on voxels.
        plan: NAME=VALUE for values that the plan must have.
        keep: Structure file with blocks that stay.
        repair: Whether to remove what hangs in the air.
    """

    model: Callable[[], Path]
    prompt: str
    size: str = "normal"
    count: int = 1
    steps: int | None = None
    seed: int = 0
    output: Path = DEFAULT_OUTPUT
    formats: str = DEFAULT_FORMATS
    checkpoint: str | None = None
    guidance: float | None = None
    plan: tuple[str, ...] = ()
    keep: Path | None = None
    repair: bool = False


@dataclass(frozen=True)
class _Result:
    """What is left to say of a structure once its files are written."""

    name: str
    line: str
    files: tuple[Path, ...]
    warnings: tuple[str, ...]
    failed: tuple[str, ...]
    record: dict[str, Any]


def sculpt_structures(request: SculptRequest, *, as_json: bool) -> bool:
    """Build, write, print a line for each structure, and return whether all files were written that could be.

    That nothing was built is a result like any other: the record says so, and formats of blocks are left out.

    Raises:
        BadParams: An option is not what it must be, the file to keep cannot be used, or the folder cannot be written.
        MissingArtifact: There is no trained model, or no such checkpoint.
        CorruptArtifact: A model file is damaged.
        NotEnoughDisk: The disk is full; what was written before is whole.
    """
    # These import torch.
    from vernissage.core.devices import configure_torch
    from vernissage.core.progress import Progress
    from vernissage.sculptor.use.model import SculptorModel
    from vernissage.sculptor.use.outputs import write_sculptures
    from vernissage.sculptor.use.sculpt import sculpt_each

    wishes, formats = _understood(request)
    configure_torch()
    model = SculptorModel.load(request.model(), request.checkpoint)
    protected = [] if request.keep is None else [request.keep]
    results = []
    # Lines about progress are no JSON.
    with nullcontext() if as_json else Progress("sculpt", total=request.count, unit="structures") as progress:
        done = None if progress is None else progress.advance
        for sculpted in sculpt_each(model, request.prompt, wishes, done=done):
            written = write_sculptures([sculpted], request.output, formats, protected=protected)[0]
            results.append(_result(sculpted, written, keep_record=as_json))
    if as_json:
        print(json.dumps([result.record for result in results], indent=2, ensure_ascii=False))  # noqa: T201 - for programs
    else:
        _print(results)
    return not any(result.failed for result in results)


def _understood(request: SculptRequest) -> tuple[Wishes, tuple[str, ...]]:
    """Read all options before anything is loaded; whatever is wrong with them is a wrong use of the command."""
    from vernissage.core.files import require_writable
    from vernissage.sculptor.domain.formats import read_structure
    from vernissage.sculptor.domain.sizes import parse_size
    from vernissage.sculptor.use.keeping import keep_blocks
    from vernissage.sculptor.use.outputs import PAGE, read_formats
    from vernissage.sculptor.use.plan_words import read_assignments, read_plan_words
    from vernissage.sculptor.use.sculpt import Wishes

    try:
        formats, size = read_formats(request.formats), parse_size(request.size)
        plan = read_assignments(request.plan)
        read_plan_words(plan)
        keep = None if request.keep is None else read_structure(request.keep)
        if keep is not None:
            keep_blocks(keep, size)
        wishes = Wishes(
            size=size,
            count=request.count,
            steps=request.steps,
            seed=request.seed,
            guidance=request.guidance,
            plan_guidance=request.guidance,
            plan=plan,
            keep=keep,
            repair=request.repair,
            frames=PAGE in formats,
        )
        require_writable(request.output)
    except BadInput as error:
        raise BadParams(str(error)) from error
    return wishes, formats


def _result(sculpted: Sculpted, written: Written, *, keep_record: bool) -> _Result:
    """Keep what is said later, and let go of the grids."""
    from vernissage.sculptor.use.outputs import record_of

    record = {"name": written.name, "files": [_encodable(path) for path in written.files]} | record_of(sculpted)
    return _Result(
        written.name,
        _line(sculpted),
        written.files,
        (*sculpted.warnings, *written.warnings),
        written.failed,
        record | {"failed": list(written.failed)} if keep_record else {},
    )


def _line(sculpted: Sculpted) -> str:
    facts = sculpted.facts
    if sculpted.empty:
        return "0 blocks"
    anatomy, said = facts["anatomy"], facts["said"]
    blocks = int(sculpted.structure.solid.sum())
    parts = "whole" if anatomy["whole"] else f"{anatomy['parts']} parts"
    counted = f"{blocks} {'block' if blocks == 1 else 'blocks'}, {parts}"
    if not said:
        return counted
    missed = [f"{name} is {facts['measured'][name] or 'none'}, not {said[name]}" for name in facts["missed"]]
    kept = f"{len(said) - len(missed)} of {len(said)} words kept"
    return f"{counted}, {kept} ({'; '.join(missed)})" if missed else f"{counted}, {kept}"


def _print(results: list[_Result]) -> None:
    console = screen()
    everywhere = [warning for warning in results[0].warnings if all(warning in result.warnings for result in results)]
    for warning in everywhere:
        console.print(f"[yellow]![/yellow] {printable(warning)}", soft_wrap=True)
    for result in results:
        mark = "[red]✗[/red]" if result.failed else "[green]✓[/green]"
        first, *others = result.files
        files = ", ".join([str(first), *(path.suffix for path in others)])
        console.print(f"{mark} {printable(f'{result.name}: {result.line}: {files}')}", soft_wrap=True)
        for warning in result.warnings:
            if warning not in everywhere:
                console.print(f"    [yellow]![/yellow] {printable(warning)}", soft_wrap=True)
        for problem in result.failed:
            console.print(f"    [red]✗[/red] {printable(problem)}", soft_wrap=True)


def _encodable(path: Path) -> str:
    return str(path).encode("utf-8", "replace").decode("utf-8")
