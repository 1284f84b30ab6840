"""Where commands print: a terminal gets colours and its own width, a file or pipe gets plain wide lines."""

from __future__ import annotations

from rich.console import Console

_WIDTH_OF_FILES = 160


def screen() -> Console:
    """Return the console for results (stdout)."""
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        # Without a terminal rich assumes 80 columns and folds every cell; a reader of files can scroll.
        console = Console(highlight=False, width=_WIDTH_OF_FILES)
    return console
