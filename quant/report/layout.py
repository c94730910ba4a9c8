"""How tables and lines look on a terminal, whatever they are about."""

from __future__ import annotations

from rich import box
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

Cell = str | Text


def empty_table(title: str = "", width: int | None = None) -> Table:
    """A table without columns and rows."""
    return Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        width=width,
    )


def add_row(table: Table, *cells: Cell) -> None:
    """Adds a row of cells as text: rich would take the brackets of "success_drop[lossy]" for its markup."""
    table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))


def line(words: Cell, style: str = "", indent: int = 2) -> Padding:
    """Words below a table or a heading; where they wrap, they stay indented."""
    return Padding(words if isinstance(words, Text) else Text(words, style=style), (0, 0, 0, indent), expand=False)
