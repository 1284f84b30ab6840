"""The command line. Nothing heavy is imported before its verb is used, so that `vernissage --help` is instant."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vernissage.core.errors import VernissageError


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
    photos: Annotated[list[Path], typer.Argument(help="Photos to edit; the files themselves stay as they are.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.", metavar="DIR")],
    model: Annotated[
        Path | None, typer.Option(help="Folder of a trained retoucher; otherwise the project's own.", metavar="PATH")
    ] = None,
) -> None:
    """Edit photos at full size; beside each lie its recipe (JSON) and a contact sheet of the steps."""
    from vernissage.commands.retouch import choose_models, retouch_photos

    models = choose_models(lambda: _project(context), model)
    if not retouch_photos(photos, output, models):
        raise typer.Exit(1)


@app.command()
def results(context: typer.Context, as_json: JsonSwitch = False) -> None:
    """Show the numbers of the last run: ours beside every baseline."""
    from vernissage.commands.results import show_results

    show_results(_project(context), as_json=as_json)


if __name__ == "__main__":
    main()
