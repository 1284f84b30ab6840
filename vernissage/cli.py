"""The command line. Nothing heavy is imported before its verb is used, so that `vernissage --help` is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vernissage.commands.bench_retoucher import BaselineSet, BenchMode
from vernissage.commands.photos import Mode, XmpForm
from vernissage.core.errors import BadParams, VernissageError


class _OneLineErrors(TyperGroup):
    """Ends with the message and the exit code of our own errors; `--debug` lets the traceback through."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except VernissageError as error:
            if ctx.params.get("debug"):
                raise
            typer.secho(f"vernissage: {error}", fg=typer.colors.RED, err=True)
            raise typer.Exit(error.exit_code) from error


class _Systems(TyperGroup):
    """Names the systems that there are when another one is asked for."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            raise BadParams(f"system {args[0]!r} is unknown here, expected one of: {', '.join(self.commands)}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_OneLineErrors,
    help="Trains, judges and ships three agents that make pictures better, in one pipeline that anyone can rebuild.",
    epilog="The pipeline itself is run by DVC: `dvc repro`, `dvc exp run -S lr=5e-5`, `dvc metrics diff`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

JsonSwitch = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Run the command line of this process."""
    # Names of photos may hold anything; a terminal or pipe in another encoding must not end a run.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"vernissage {version('vernissage')}")
        raise typer.Exit


@app.callback()
def _common(
    context: typer.Context,
    project: Annotated[
        Path | None,
        typer.Option(help="The project's folder; otherwise the nearest one upwards from here.", metavar="DIR"),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: ARG001 - read from the context
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    from vernissage.core.logs import telemetry_off

    telemetry_off()
    context.obj = project


def _project(context: typer.Context) -> Path:
    from pathlib import Path

    from vernissage.commands.project import find_project

    return find_project(Path.cwd(), context.obj)


@app.command()
def ingest(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder with photos; its sub-folders become categories.")],
) -> None:
    """Take your own photos into the pipeline, tracked by DVC; nothing in FOLDER changes."""
    from vernissage.commands.ingest import take_in

    take_in(_project(context), folder)


@app.command("ingest-structures")
def ingest_structures(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder with .schem, .schematic, .nbt, .litematic or .iob files.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="A data set of its own, in place of the project's.", metavar="DIR")
    ] = None,
) -> None:
    """Take your own block structures into the pipeline, tracked by DVC; nothing in FOLDER changes."""
    from vernissage.commands.structures import take_in_structures

    take_in_structures(_project(context), folder, out)


@app.command()
def params(
    context: typer.Context,
    profile: Annotated[str | None, typer.Option(help="Apply a profile of params.yaml.", metavar="NAME")] = None,
    override: Annotated[
        list[str] | None, typer.Option("-S", "--set", help="Change a value; may be repeated.", metavar="KEY=VALUE")
    ] = None,
    as_json: JsonSwitch = False,
) -> None:
    """Show every effective value with its type, unit, range, stage and meaning."""
    from vernissage.commands.params import show_params

    show_params(_project(context), overrides=override or [], profile=profile, as_json=as_json)


@app.command()
def profile(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A profile of params.yaml; without it, all are listed.")] = None,
) -> None:
    """Print a profile as words for DVC: `dvc exp run $(vernissage profile gpu)`."""
    from vernissage.commands.params import profile_words, show_profiles

    if name is None:
        show_profiles(_project(context))
    else:
        typer.echo(profile_words(_project(context), name))


@app.command()
def doctor(context: typer.Context, as_json: JsonSwitch = False) -> None:
    """Say what is installed, which device is used, which servers answer, what is wrong and how to mend it."""
    from pathlib import Path

    from vernissage.commands.doctor import examine, show_checks

    if not show_checks(examine(Path.cwd(), context.obj), as_json=as_json):
        raise typer.Exit(1)


@app.command()
def retouch(
    context: typer.Context,
    photos: Annotated[list[Path], typer.Argument(help="Photos or folders; the files themselves stay as they are.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.", metavar="DIR")],
    mode: Annotated[
        Mode, typer.Option(help="fast: the policy decides; quality: a search by the juror may find better edits.")
    ] = Mode.FAST,
    model: Annotated[
        Path | None, typer.Option(help="Folder of a trained retoucher; otherwise the project's own.", metavar="PATH")
    ] = None,
    xmp: Annotated[
        XmpForm,
        typer.Option(help="portable: tone as a curve, for darktable and Lightroom; lightroom: by Lightroom's sliders."),
    ] = XmpForm.PORTABLE,
    editable: Annotated[
        bool,
        typer.Option(
            "--editable",
            help="Leave the pixels alone: copy the photo with the edit as Lightroom and darktable settings.",
        ),
    ] = False,
    extras: Annotated[
        bool, typer.Option("--extras/--no-extras", help="Page, recipe, lookup table and sidecar beside each photo.")
    ] = True,
) -> None:
    """Edit photos at full size and explain every step.

    Beside each: a page, a contact sheet, recipe and explanation (JSON), a colour table (.cube); in sidecars/ its XMP.

    A sidecar belongs beside the untouched photo. The edited one's own XMP says what was done, for nobody to repeat.

    A photo that needs nothing is copied, with nothing beside it.
    """
    from vernissage.commands.photos import choose_models
    from vernissage.commands.retouch import retouch_photos

    models = choose_models(lambda: _project(context), model)
    if not retouch_photos(photos, output, models, mode=mode, form=xmp, editable=editable, extras=extras):
        raise typer.Exit(1)


@app.command()
def judge(
    context: typer.Context,
    photos: Annotated[list[Path], typer.Argument(help="Photos or folders.")],
    juror: Annotated[
        Path | None, typer.Option(help="Folder of a juror; otherwise the project's own.", metavar="PATH")
    ] = None,
    as_json: JsonSwitch = False,
) -> None:
    """Score photos from 0 to 10, where about 8 is a photo as it was delivered."""
    from vernissage.commands.judge import judge_photos
    from vernissage.commands.photos import choose_juror

    if not judge_photos(photos, choose_juror(lambda: _project(context), juror), as_json=as_json):
        raise typer.Exit(1)


@app.command()
def sample(
    context: typer.Context,
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG for the sheet of samples.", metavar="FILE")],
    label: Annotated[
        list[str] | None, typer.Option(help="Name or number of a class, repeatable; otherwise all in turn.")
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=4096, help="Samples.")] = 40,
    price: Annotated[
        float | None,
        typer.Option(help="Ask the trained sampler; what one network evaluation costs, where quality is 0 to 1."),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="Ask the trained sampler; most network evaluations for each sample.")
    ] = None,
    calls: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Network calls for each sample, by a program; 10 without a price."),
    ] = None,
    program: Annotated[
        Path | None, typer.Option(help="JSON of a program; otherwise DPM-Solver++ 2M.", metavar="FILE")
    ] = None,
    guidance: Annotated[float, typer.Option(help="Scale of guidance; 1 is none and costs half.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first sample; the others follow.")] = 0,
    trace: Annotated[
        Path | None, typer.Option(help="JSON for what every network call did and cost.", metavar="FILE")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder of a denoiser; otherwise the project's own.", metavar="PATH")
    ] = None,
    sampler: Annotated[
        Path | None,
        typer.Option(help="Folder of a trained sampler; otherwise `sampler` beside the denoiser.", metavar="PATH"),
    ] = None,
) -> None:
    """Draw pictures from the diffusion model: steered by a price, or by a program.

    With --price or --budget the trained sampler decides for each picture what is worth an evaluation of the network.
    """
    from vernissage.commands.sample import SampleRequest, draw_samples

    denoiser = _project(context) / "models" / "denoiser" if model is None else model
    request = SampleRequest(
        model=denoiser,
        sampler=denoiser.absolute().parent / "sampler" if sampler is None else sampler,
        labels=tuple(label or ()),
        count=count,
        calls=calls,
        program=program,
        price=price,
        budget=budget,
        guidance=guidance,
        seed=seed,
        output=output,
        trace=trace,
    )
    if not draw_samples(request):
        raise typer.Exit(1)


@app.command()
def sculpt(
    context: typer.Context,
    prompt: Annotated[
        list[str], typer.Argument(help='What to build, in words: "tall oak tree with thick trunk".', metavar="PROMPT")
    ],
    size: Annotated[
        str, typer.Option("-s", "--size", help="Grid: normal, big, huge, or WIDTHxHEIGHTxDEPTH.")
    ] = "normal",
    count: Annotated[int, typer.Option("-n", "--num-samples", min=1, max=10_000, help="Structures.")] = 1,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            "--sampling-steps",
            min=1,
            max=4096,
            help="Network calls; otherwise as the model was trained: 12.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first structure; the others follow.")] = 0,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the files.", metavar="DIR")] = Path(
        "sculptures"
    ),
    formats: Annotated[
        str,
        typer.Option(
            "--format", help="Any of schem,nbt,litematic,iob,vox,glb,png,html,json, with commas.", metavar="FORMATS"
        ),
    ] = "schem,png",
    checkpoint: Annotated[str | None, typer.Option(help="best, or an epoch that was kept, such as epoch=50.")] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="Scale of guidance, higher obeys the prompt more; otherwise as the model was trained."),
    ] = None,
    plan: Annotated[
        list[str] | None,
        typer.Option(
            help="Fix a value: height=12, trunk=4, species=oak, crown=round; may be repeated.", metavar="NAME=VALUE"
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Structure file whose blocks stay; the rest is built around them.", metavar="FILE"),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove afterwards what hangs in the air; the record says what.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(help="Folder of a trained sculptor; otherwise the project's own.", metavar="PATH")
    ] = None,
    as_json: JsonSwitch = False,
) -> None:
    """Build voxel trees from words, as files for Minecraft tools, MagicaVoxel, Blender or the browser.

    Any text is a prompt: what is not understood is named in a warning. The same seed builds the same structure. A
    result without blocks is no error: its record (JSON) says so, and formats of blocks are left out.
    """
    from vernissage.commands.sculpt import SculptRequest, sculpt_structures

    request = SculptRequest(
        model=lambda: _project(context) / "models" / "sculptor" if model is None else model,
        prompt=" ".join(prompt),
        size=size,
        count=count,
        steps=steps,
        seed=seed,
        output=output,
        formats=formats,
        checkpoint=checkpoint,
        guidance=guidance,
        plan=tuple(plan or ()),
        keep=keep,
        repair=repair,
    )
    if not sculpt_structures(request, as_json=as_json):
        raise typer.Exit(1)


tune = typer.Typer(cls=_Systems, help="Search for better parameters.", no_args_is_help=True)
app.add_typer(tune, name="tune")


@tune.command("retoucher")
def tune_retoucher(
    context: typer.Context,
    trials: Annotated[
        int, typer.Option(min=0, help="Finished trials that the study is to have; 0 only draws an existing one again.")
    ],
    algorithm: Annotated[
        str | None, typer.Option(help="What is searched: ppo, dqn or planner; else the algorithm of params.yaml.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Name of the study; the same name goes on with it.")] = None,
    objective: Annotated[
        str, typer.Option(help="What validation must find more of (objective, gain) or less of (worse).")
    ] = "objective",
    seconds_per_trial: Annotated[
        float | None, typer.Option(min=0, help="Give up on a trial that takes longer, at its next look.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trials side by side, each in a process of its own.")] = 1,
    storage: Annotated[
        Path | None, typer.Option(help="Folder of the studies; otherwise tuning/ in the project.", metavar="DIR")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Tune under a profile of params.yaml.", metavar="NAME")] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("-S", "--set", help="Tune under another value; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
) -> None:
    """Search for better parameters of the retoucher with many trainings; Ctrl-C at any time, the same words go on.

    Needs the data of the stage train@retoucher and never touches its results. Figures, a page and the best values lie
    in tuning/STUDY; the last line is what to type to train with them.
    """
    from vernissage.commands.tune import INTERRUPTED_EXIT_CODE, TuneRequest
    from vernissage.commands.tune import tune_retoucher as run

    request = TuneRequest(
        project=_project(context),
        trials=trials,
        algorithm=algorithm,
        study=study,
        objective=objective,
        storage=storage,
        seconds_per_trial=seconds_per_trial,
        jobs=jobs,
        profile=profile,
        overrides=tuple(override or ()),
    )
    if not run(request):
        raise typer.Exit(INTERRUPTED_EXIT_CODE)


bench = typer.Typer(cls=_Systems, help="Measure agents against what else there is.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command("retoucher")
def bench_retoucher(
    context: typer.Context,
    photos: Annotated[Path, typer.Option(help="Folder with photos that nothing learned from.", metavar="DIR")],
    draws: Annotated[int, typer.Option(min=1, help="Faulty copies of each photo; a headline takes 32 or more.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Draws other faults.")] = 0,
    model: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a trained retoucher, repeatable; otherwise the project's own.", metavar="PATH"),
    ] = None,
    mode: Annotated[BenchMode, typer.Option(help="Modes of the agent that take part.")] = BenchMode.FAST,
    baselines: Annotated[BaselineSet, typer.Option(help="What it is compared with.")] = BaselineSet.ALL,
    as_json: JsonSwitch = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for items, tables and picture.", metavar="DIR")
    ] = None,
) -> None:
    """Measure retouchers on any photos: random faults are put in, and what comes out is compared with the photo.

    One to five faults of exposure, temperature, tint, contrast and saturation at 160 pixels, and the photos themselves,
    which should be left alone. Several --model, such as trainings with other seeds, are shown with their spread.
    """
    from vernissage.commands.bench_retoucher import BenchRequest
    from vernissage.commands.bench_retoucher import bench_retoucher as run

    request = BenchRequest(
        photos=photos,
        draws=draws,
        seed=seed,
        models=tuple(model or ()),
        mode=mode,
        baselines=baselines,
        output=output,
    )
    if not run(request, lambda: _project(context), as_json=as_json):
        raise typer.Exit(1)


@bench.command("fullsize")
def bench_fullsize(
    megapixels: Annotated[float, typer.Option(min=0.01, max=200, help="Size of the photo that is made.")] = 24,
    repeat: Annotated[int, typer.Option(min=1, help="Runs of each recipe; the fastest counts.")] = 3,
    as_json: JsonSwitch = False,
) -> None:
    """Measure how long a photo of full size takes from file to file, phase by phase, and its memory.

    Two fixed recipes on a JPEG that is made for it; the agent that decides has random weights, which take as long.
    """
    from vernissage.commands.bench_fullsize import bench_fullsize as run

    run(megapixels, repeat, as_json=as_json)


@bench.command("pool")
def bench_pool(
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes of the pool, and of each queue.")] = 2,
    side: Annotated[
        list[int] | None, typer.Option(min=1, help="Side of the pictures, repeatable; otherwise 64, 224, 384.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Length of one turn of one measurement.")] = 1.0,
    as_json: JsonSwitch = False,
) -> None:
    """Pictures per second by a JurorPool, by queues that pickle, and without other processes."""
    from vernissage.commands.bench_speed import show_pool_bench

    show_pool_bench(workers=workers, sides=side, seconds=seconds, as_json=as_json)


@bench.command("env")
def bench_env(
    context: typer.Context,
    processes: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Processes of the usual construction, repeatable; otherwise the best of 2, 4 and 8."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Length of one turn of one measurement.")] = 3.0,
    as_json: JsonSwitch = False,
) -> None:
    """Edits per second by our environment, and by one photo per process with Pillow and a juror behind a queue."""
    from vernissage.commands.bench_speed import show_env_bench

    show_env_bench(_project(context), processes=processes, seconds=seconds, as_json=as_json)


@app.command()
def results(context: typer.Context, as_json: JsonSwitch = False) -> None:
    """Show the numbers of the last run: ours beside every baseline."""
    from vernissage.commands.results import show_results

    show_results(_project(context), as_json=as_json)


if __name__ == "__main__":
    main()
