"""`vernissage params` and `vernissage profile`: what every value is and means, and how to change several at once."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.padding import Padding

from vernissage.commands.screen import screen
from vernissage.core.errors import BadParams
from vernissage.core.params import ParamRow, describe, load_params, profile_overrides

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

_FILE = "params.yaml"


def show_params(project: Path, *, overrides: Sequence[str], profile: str | None, as_json: bool) -> None:
    """Print every effective value with its type, unit, range, stages and meaning.

    Raises:
        BadParams: The file, the profile or an override is not valid.
    """
    rows = describe(load_params(project / _FILE, overrides=overrides, profile=profile))
    console = screen()
    if as_json:
        text = json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False)
        console.print(text, markup=False, soft_wrap=True)
        return
    for row in rows:
        _print_row(console, row)


def show_profiles(project: Path) -> None:
    """Print the names of all profiles with what each changes.

    Raises:
        BadParams: params.yaml is not valid.
    """
    profiles = load_params(project / _FILE).profiles
    console = screen()
    for name, changes in profiles.items():
        listed = ", ".join(f"{key} = {_shown(value)}" for key, value in changes.items())
        console.print(f"[bold]{escape(name)}[/bold]: {escape(listed or 'changes nothing')}", soft_wrap=True)
    if not profiles:
        console.print(f"{_FILE} has no profiles")
    else:
        console.print("\nuse one: dvc exp run $(vernissage profile NAME)", markup=False)


def profile_words(project: Path, name: str) -> str:
    """Return a profile as the words that `dvc exp run` takes: `-S key=value -S key=value`.

    Raises:
        BadParams: There is no such profile, or a value holds a space, at which the shell would cut it in two.
    """
    overrides = profile_overrides(project / _FILE, name)
    for override in overrides:
        if any(character.isspace() for character in override):
            raise BadParams(f"{_FILE}: profiles.{name}: {override!r} holds a space, at which a shell cuts it in two")
    return " ".join(f"-S {override}" for override in overrides)


def _print_row(console: Console, row: ParamRow) -> None:
    # Two lines per value fit a narrow terminal, and in a file the first one can be searched as a whole.
    value = f"{_shown(row.value)} {row.unit}".rstrip()
    kind = " · ".join(part for part in (f"{row.type} {row.default_range}".rstrip(), ", ".join(row.stages)) if part)
    console.print(f"[bold]{escape(row.key)}[/bold] = {escape(value)}  [dim]({escape(kind)})[/dim]", soft_wrap=True)
    if console.is_terminal:
        console.print(Padding(escape(row.meaning), (0, 0, 0, 4)))
    else:
        console.print(f"    {escape(row.meaning)}", soft_wrap=True)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        value = list(value)
    return json.dumps(value, ensure_ascii=False, default=str)
