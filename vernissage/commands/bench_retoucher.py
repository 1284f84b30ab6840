"""`vernissage bench retoucher --photos DIR`: agents and baselines on any folder of photos, by one fixed protocol."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from vernissage.commands.photos import Models, choose_models, printable
from vernissage.core.errors import BadInput, MissingArtifact
from vernissage.core.folders import SystemFolders

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from vernissage.retoucher.judge.baselines import Baseline, TunedClassics
    from vernissage.retoucher.judge.protocol import Contest, Source
    from vernissage.retoucher.learn.juror import Juror
    from vernissage.retoucher.learn.regressor import Regressor

_AGENT = "retoucher"
# Photos on the picture of before and after.
_SHEET_ROWS = 8
_FAULTY_COLUMNS = ("psnr", "gain", "delta_e", "ssim", "improved", "improved_large", "worsened")
_OTHER_COLUMNS = (
    "unchanged", "juror_gain", "hack_gap", "clean_delta_e", "clean_max", "clean_over", "steps", "n",
)  # fmt: skip
_SPREAD_SHOWN = {"psnr": "PSNR", "gain": "gain", "improved": "improved", "worsened": "worse", "clean_delta_e": "clean"}


class BenchMode(StrEnum):
    """Which modes of the agent take part."""

    FAST = "fast"
    QUALITY = "quality"
    ALL = "all"


class BaselineSet(StrEnum):
    """Which baselines take part; "no edit" always does."""

    ALL = "all"
    CLASSICS = "classics"
    NONE = "none"


@dataclass(frozen=True)
class BenchRequest:
    """What was asked for.

    Attributes:
        photos: Folder of photos.
        draws: Faulty copies of each photo.
        seed: Root of the randomness.
        models: Folders of trained retouchers; empty for the project's own.
        mode: Which modes of the agent.
        baselines: Which baselines.
        output: Folder for tables and picture, if wanted.
    """

    photos: Path
    draws: int
    seed: int
    models: tuple[Path, ...]
    mode: BenchMode
    baselines: BaselineSet
    output: Path | None


def bench_retoucher(request: BenchRequest, project: Callable[[], Path], *, as_json: bool) -> bool:
    """Run the protocol, print its tables, and return whether every photo could be read.

    Args:
        request: What was asked for.
        project: Finds the project's folder; without one, named models and usual settings still work.
        as_json: Print one JSON document instead of tables.

    Raises:
        BadInput: There is no such folder, no photo in it, or no writing to the output folder.
        MissingArtifact: A model is not there.
        CorruptArtifact: A model's file is damaged.
    """
    from vernissage.core.devices import configure_torch
    from vernissage.core.files import require_writable
    from vernissage.core.progress import Progress
    from vernissage.retoucher.judge.protocol import count_protocol, protocol_result, read_sources, run_protocol
    from vernissage.retoucher.use.outputs import expand

    if not request.photos.is_dir():
        raise BadInput(f"--photos {request.photos}: no such folder; expected one with photos")
    files = [file for file in expand([request.photos]) if file != request.photos]
    if request.output is not None:
        require_writable(request.output)
    configure_torch()
    # A document on stdout must stay one: what is said on the way goes to stderr.
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        field = _line_up(request, project)
        sources, rejected = read_sources(files)
        total = count_protocol(sources, field.contest.methods, request.draws)
        with Progress("bench retoucher", total=total, unit="results") as progress:
            items = run_protocol(
                sources,
                field.contest.methods,
                draws=request.draws,
                seed=request.seed,
                juror=field.juror,
                advance=progress.advance,
            )
    result = {
        **protocol_result(items, field.contest, seed=request.seed),
        "title": f"retoucher on {len(sources)} photos of {request.photos}",
        "photos": len(sources),
        "rejected": [{"file": str(file), "reason": reason} for file, reason in rejected],
        "draws": request.draws,
        "seed": request.seed,
        "headline": None if _is_preview(request) else request.draws,
        "models": field.models,
        "classics": field.classics,
    }
    result["notes"] = [*_facts(request, result), *field.notes, *_comparisons(result)]
    if request.output is not None:
        _write(request, items, result, field.contest, sources)
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=True) + "\n")
    else:
        _show(result, request.output)
    return not rejected


@dataclass(frozen=True)
class _Field:
    """All who take part, and what a reader must know of them."""

    contest: Contest
    juror: Juror | None
    models: dict[str, str]
    classics: dict[str, Any]
    notes: list[str]


def _line_up(request: BenchRequest, project: Callable[[], Path]) -> _Field:
    """Load models and choose baselines."""
    from vernissage.core.seeds import numpy_generator
    from vernissage.retoucher.judge.baselines import NO_EDIT, Baseline, all_baselines, no_edit
    from vernissage.retoucher.judge.benchmark import agent_method, quality_method
    from vernissage.retoucher.judge.protocol import Contest
    from vernissage.retoucher.learn.network import PolicyNet

    chosen = [_models(project, model) for model in (request.models or (None,))]
    names = [_AGENT] if len(chosen) == 1 else [f"{_AGENT} {place + 1}" for place in range(len(chosen))]
    networks = [PolicyNet.load(models.retoucher) for models in chosen]
    searching = request.mode is not BenchMode.FAST
    jurors, notes = _jurors([models.juror for models in chosen], needed=searching)
    agents: dict[str, tuple[str, ...]] = {}
    methods: list[Baseline] = []
    if request.mode is not BenchMode.QUALITY:
        methods += [agent_method(network, name) for network, name in zip(networks, names, strict=True)]
        agents["fast"] = tuple(names)
    if searching:
        agents["quality"] = tuple(f"{name} (quality)" for name in names)
        pairs = zip(networks, jurors, agents["quality"], strict=True)
        methods += [quality_method(network, juror, name) for network, juror, name in pairs if juror is not None]
    folders = _folders(request, project)
    classics, source = _classics(folders)
    if request.baselines is BaselineSet.ALL:
        regressor, missing = _regressor(folders)
        rng = numpy_generator(request.seed, "bench", "random-edits")
        methods += all_baselines(networks[0].spec, jurors[0], classics, rng, regressor=regressor, slow=True)
        notes += missing
    else:
        methods.append(Baseline(NO_EDIT, classic=False, run=no_edit))
        methods += classics.baselines if request.baselines is BaselineSet.CLASSICS else []
    if request.baselines is not BaselineSet.NONE:
        settings = ", ".join(f"{name} {setting:g}" for name, setting in classics.chosen.items())
        notes.append(f"classic corrections with {source}: {settings}")
    return _Field(
        Contest(tuple(methods), agents),
        jurors[0],
        {name: str(models.retoucher) for name, models in zip(names, chosen, strict=True)},
        {"source": source, "settings": classics.chosen},
        notes,
    )


def _models(project: Callable[[], Path], model: Path | None) -> Models:
    """The folders of one agent; a named one needs neither project nor juror."""
    try:
        return choose_models(project, model)
    except BadInput:
        if model is None or not model.is_dir():
            raise
        return Models(model, model.resolve().parent / "juror")


def _jurors(folders: Sequence[Path], *, needed: bool) -> tuple[list[Juror | None], list[str]]:
    """The juror of each agent, one that several share loaded once."""
    from vernissage.retoucher.learn.jurors import load_juror

    loaded: dict[Path, Juror | None] = {}
    notes = []
    for folder in dict.fromkeys(folders):
        if needed or (folder / "juror.json").is_file():
            loaded[folder] = load_juror(folder)
        else:
            loaded[folder] = None
            notes.append(f"no juror in {folder}: its searches and scores are left out")
    return [loaded[folder] for folder in folders], notes


def _folders(request: BenchRequest, project: Callable[[], Path]) -> SystemFolders | None:
    """The project, which a named model does not need."""
    try:
        return SystemFolders(_AGENT, project())
    except BadInput:
        if not request.models:
            raise
        return None


def _classics(folders: SystemFolders | None) -> tuple[TunedClassics, str]:
    """The classic corrections as the project's validation split has them best, else as programs have them."""
    from vernissage.retoucher.judge.baselines import default_classics, tuned_classics
    from vernissage.retoucher.learn.dataset import read_pairs

    if folders is None:
        return default_classics(), "their usual settings (no project)"
    try:
        pairs = read_pairs(folders.ready, "val")
    except (BadInput, MissingArtifact):
        return default_classics(), f"their usual settings (no validation split in {folders.ready})"
    return tuned_classics(pairs), f"settings that suit the validation split in {folders.ready} best"


def _regressor(folders: SystemFolders | None) -> tuple[Regressor | None, list[str]]:
    """The regressor that the benchmark stage trained; a protocol trains nothing."""
    from vernissage.retoucher.learn.regressor import Regressor

    place = None if folders is None else folders.benchmark / "regressor"
    if place is None or not (place / "model.json").is_file():
        return None, [f"no one-shot regressor{f' in {place}' if place else ''}; `dvc repro benchmark` trains one"]
    return Regressor.load(place), []


def _is_preview(request: BenchRequest) -> bool:
    from vernissage.retoucher.judge.protocol import HEADLINE_DRAWS

    return request.draws < HEADLINE_DRAWS


def _facts(request: BenchRequest, result: Mapping[str, Any]) -> list[str]:
    """What was measured, on what."""
    from vernissage.retoucher.judge.protocol import HEADLINE_DRAWS

    drawn = f"{result['photos']} photos, {request.draws} draws each, seed {request.seed}"
    notes = [f"{drawn}; means are of faulty photos, clean columns of the {result['photos']} photos themselves"]
    if _is_preview(request):
        notes.append(f"a preview, no headline: that takes {HEADLINE_DRAWS} draws per photo or more (--draws)")
    if len(result["models"]) > 1:
        notes += [f"{name}: {folder}" for name, folder in result["models"].items()]
    return notes


def _comparisons(result: Mapping[str, Any]) -> list[str]:
    """Each agent against the strongest other method on the same photos, and the spread over several trainings."""
    notes = []
    for name, ahead_of in result["ahead_of"].items():
        rival = result["strongest"]
        if rival in ahead_of:
            lead = ahead_of[rival]
            notes.append(
                f"{name} minus {rival}: PSNR {_difference(lead['psnr'])} dB, ΔE00 {_difference(lead['delta_e'])}, "
                f"on the same {lead['n']} photos"
            )
    for mode, spread in result["spread"].items():
        shown = ", ".join(
            f"{title} {spread[key]['mean']:.3g} ± {spread[key]['sd']:.2g}"
            for key, title in _SPREAD_SHOWN.items()
            if key in spread
        )
        notes.append(f"{len(result['models'])} trainings, {mode}, mean ± standard deviation: {shown}")
    return notes


def _difference(value: Mapping[str, float]) -> str:
    return f"{value['mean']:+.2f} [{value['low']:+.2f}, {value['high']:+.2f}]"


def _show(result: dict[str, Any], output: Path | None) -> None:
    """Print the tables: what became of faulty photos, of clean ones, and where the first agent gains and loses."""
    from vernissage.commands.screen import screen
    from vernissage.pipeline.results import results_table, results_text

    console = screen()
    for rejected in result["rejected"]:
        console.print(f"[red]✗[/red] {printable(rejected['file'])}: {printable(rejected['reason'])}", soft_wrap=True)
    parts = [_part(result, _FAULTY_COLUMNS), _part(result, _OTHER_COLUMNS), _groups(result)]
    parts[1]["title"], parts[2]["notes"] = "the same: do no harm, and at what price", result["notes"]
    parts[0] |= {key: result[key] for key in ("upper_bounds", "search_beats_policy")}
    for part in parts:
        if console.is_terminal:
            console.print(results_table(part))
        else:
            sys.stdout.write(results_text(part) + "\n\n")
    if output is not None:
        console.print(f"items, tables and picture: {printable(output)}", soft_wrap=True)


def _part(result: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Some columns of the table, for a terminal's width."""
    rows = {name: {key: row[key] for key in columns if key in row} for name, row in result["rows"].items()}
    return {"title": result["title"], "order": result["order"], "strongest": result["strongest"], "rows": rows}


def _groups(result: Mapping[str, Any]) -> dict[str, Any]:
    """Where the first agent gains and loses, beside the strongest other method."""
    agent, rival = result["agents"][0], result["strongest"]
    rows: dict[str, dict[str, Any]] = {}
    for row in result["groups"]:
        cells = rows.setdefault(row["group"], {})
        if row["method"] == agent:
            cells |= {key: row[key] for key in ("psnr_before", "psnr", "improved", "worsened")} | {"photos": row["n"]}
        if row["method"] == rival:
            cells[f"{rival} [dB]"] = row["psnr"]
    return {"title": f"{agent} by fault, number of faults and difficulty", "order": list(rows), "rows": rows}


def _write(
    request: BenchRequest, items: pd.DataFrame, result: dict[str, Any], contest: Contest, sources: Sequence[Source]
) -> None:
    """Write `items.parquet`, `items.csv`, `groups.csv`, `protocol.json` and `before-after.png`."""
    from vernissage.core.files import atomic_path, atomic_write_json
    from vernissage.core.images import save_png
    from vernissage.core.tables import write_csv
    from vernissage.retoucher.judge.protocol import before_after

    output = request.output
    if output is None:
        return
    with atomic_path(output / "items.parquet") as temporary:
        items.to_parquet(temporary, index=False)
    with atomic_path(output / "items.csv") as temporary:
        items.to_csv(temporary, index=False, float_format="%.6g")
    write_csv(output / "groups.csv", result["groups"])
    atomic_write_json(output / "protocol.json", result)
    methods = {method.name: method for method in contest.methods}
    agent, rival = methods[contest.own[0]], methods[result["strongest"]]
    picture = before_after(sources, items, agent, rival, seed=request.seed, rows=_SHEET_ROWS)
    save_png(output / "before-after.png", picture)
