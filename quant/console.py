"""What the commands show on a terminal."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from quant.pipeline import Watch


def show(renderable: Any) -> None:
    """Prints a rich renderable: in colour and to the width of a terminal, or as plain text of a fixed width."""
    from rich.console import Console

    from quant.report.text import as_text

    if sys.stdout.isatty():
        Console().print(renderable, crop=False)
    else:
        click.echo(as_text(renderable), nl=False)


def show_json(value: Any) -> None:
    """Prints one JSON document: what ``--json`` is for, so nothing else may go to standard output beside it."""
    click.echo(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False))


class watching:  # noqa: N801 - used as a context manager function
    """Progress bars on a terminal, one line a step elsewhere."""

    def __enter__(self) -> Watch:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        from quant.pipeline import Watch

        console = Console(stderr=True)
        self._progress = None
        if not console.is_terminal:
            return Watch(finished=lambda name, seconds: click.echo(f"{name:<10} {seconds:7.1f} s", err=True))
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._progress.start()
        self._tasks: dict[str, Any] = {}
        return Watch(started=self._started, advanced=self._advanced, finished=self._finished)

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _started(self, name: str) -> None:
        assert self._progress is not None
        self._tasks[name] = self._progress.add_task(name, total=None)

    def _advanced(self, name: str, done: int, total: int) -> None:
        assert self._progress is not None
        self._progress.update(self._tasks[name], completed=done, total=total)

    def _finished(self, name: str, seconds: float) -> None:
        assert self._progress is not None
        task = self._progress.tasks[self._tasks[name]]
        total = task.total or 1
        self._progress.update(self._tasks[name], completed=total, total=total)
