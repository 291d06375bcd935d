"""Tables of commands: whole in a pipe, as wide as they are; folded on a terminal, but never in what is to be copied.

Owns widths. Refuses to know what stands in the cells; what could steer a terminal is taken out of plain text.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sipserver.calls.timeline import clean

PIPED_WIDTH = 1_000_000
"""No line is so long."""


def show(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    whole: Collection[str] = (),
    right: Collection[str] = (),
) -> None:
    """Print. whole: columns of ids, numbers and moments, which are neither cut nor folded. right: those with numbers at
    the right.
    """
    cells = [[Text(clean(cell)) if isinstance(cell, str) else cell for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False)
    for at, column in enumerate(columns):
        width = max((row[at].cell_len for row in cells), default=0) if column in whole else 0
        table.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column in whole,
            overflow="fold",
            min_width=max(width, len(column)),
        )
    for row in cells:
        table.add_row(*row)
    if sys.stdout.isatty():
        Console().print(table, crop=False)
        return
    console = Console(width=PIPED_WIDTH)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())
