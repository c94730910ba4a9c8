"""What the commands show on a terminal."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from quant.runs.job import Watch
    from quant.sweep.process import Step


def show(renderable: Any) -> None:
    """Prints a rich renderable: in colour and to the width of a terminal, or as plain text of a fixed width."""
    from rich.console import Console

    from quant.report.text import as_text

    if sys.stdout.isatty():
        Console().print(renderable, crop=False)
    else:
        click.echo(as_text(renderable), nl=False)


_aside: ContextVar[ExitStack | None] = ContextVar("_aside", default=None)
"""What gives standard output back."""


@contextmanager
def document_alone() -> Iterator[None]:
    """Keeps standard output for :func:`show_json`.

    Whatever else prints, as a user's world does, in this process or in one that it starts, prints to standard error.
    """
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(sys.stderr))
        stack.enter_context(_descriptor_aside())
        token = _aside.set(stack)
        try:
            yield
        finally:
            _aside.reset(token)


@contextmanager
def _descriptor_aside() -> Iterator[None]:
    """Of processes that are started, and of compiled code."""
    try:
        kept = os.dup(1)
    except OSError:  # closed: nothing gets there
        yield
        return
    try:
        with suppress(OSError):
            os.dup2(2, 1)
        yield
    finally:
        import ctypes

        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


def show_json(value: Any) -> None:
    """Prints one JSON document: what ``--json`` is for, so nothing else may go to standard output beside it."""
    aside = _aside.get()
    if aside is not None:
        aside.close()
    click.echo(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False))


LEAST_SHARE = 0.02
"""Of a whole that has to be done before a remaining time is told."""


class Pace:
    """How far a whole of several steps is, and how long the rest may take, from what each step usually takes.

    A guess, and said to be one: that what comes goes as fast, against what is usual, as what went before.

    Args:
        usual: seconds of each step, in order.
        now: the clock, in seconds.
    """

    def __init__(self, usual: Mapping[str, float], now: Callable[[], float] = time.monotonic) -> None:
        self._usual = dict(usual)
        self._whole = sum(self._usual.values()) or 1.0
        self._now = now
        self._begin = self._last = now()
        self._later = self._whole
        self.share = 0.0
        """Of the whole that is done, 0 to 1."""

    def reached(self, name: str, part: float) -> None:
        """``part`` (0 to 1) of a step is done, and all steps before it; an unknown step is ignored."""
        if name not in self._usual:
            return
        names = list(self._usual)
        at = names.index(name)
        before = sum(self._usual[step] for step in names[:at])
        self._later = sum(self._usual[step] for step in names[at + 1 :])
        self._last = self._now()
        self.share = (before + self._usual[name] * min(max(part, 0.0), 1.0)) / self._whole

    @property
    def remaining(self) -> float | None:
        """Seconds that are left; None before enough is done to tell.

        While a step says nothing, its own rest runs down, and what comes after it stays.
        """
        if self.share < LEAST_SHARE:
            return None
        rate = (self._last - self._begin) / (self.share * self._whole)
        own = (1 - self.share) * self._whole - self._later
        return max(rate * own - (self._now() - self._last), 0.0) + rate * self._later


def about(seconds: float | None) -> str:
    """``about 1:05``; nothing where nothing is known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"about {hours}:{minutes:02}:{rest:02}" if hours else f"about {minutes}:{rest:02}"


def _bars(console: Console) -> Progress:
    """Bars whose tasks say in ``done`` how far they are, and in ``left``, where it is a guess, what is left."""
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    class Left(ProgressColumn):
        """The remaining time: a guess that somebody gives, or of a step by its own pace."""

        def render(self, task: Any) -> Text:
            left = task.fields.get("left")
            if left is None:
                return TimeRemainingColumn().render(task)
            return Text(about(left()), style="progress.remaining")

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.fields[done]}", style="progress.download"),
        TimeElapsedColumn(),
        Left(),
    )
    return Progress(*columns, console=console)


class watching:  # noqa: N801 - used as a context manager function
    """Progress bars on a terminal, of every step and, where they were announced, of all together; lines elsewhere."""

    def __enter__(self) -> Watch:
        from rich.console import Console

        from quant.runs.job import Watch

        console = Console(stderr=True)
        self._bars: Progress | None = None
        if not console.is_terminal:
            return Watch(finished=lambda name, seconds: click.echo(f"{name:<10} {seconds:7.1f} s", err=True))
        self._bars = _bars(console)
        self._bars.start()
        self._tasks: dict[str, TaskID] = {}
        self._whole: TaskID | None = None
        return Watch(self._planned, self._started, self._advanced, self._finished)

    def __exit__(self, *exception: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def _planned(self, usual: Mapping[str, float]) -> None:
        assert self._bars is not None
        self._pace, self._steps = Pace(usual), tuple(usual)
        self._whole = self._bars.add_task("all", total=1.0, done="", left=lambda: self._pace.remaining)

    def _started(self, name: str) -> None:
        assert self._bars is not None
        self._tasks[name] = self._bars.add_task(name, total=None, done="")
        self._reached(name, 0.0)

    def _advanced(self, name: str, done: int, total: int) -> None:
        assert self._bars is not None
        self._bars.update(self._tasks[name], completed=done, total=total, done=f"{done}/{total}")
        self._reached(name, done / total if total else 0.0)

    def _finished(self, name: str, seconds: float) -> None:
        assert self._bars is not None
        total = self._bars.tasks[self._tasks[name]].total or 1
        self._bars.update(self._tasks[name], completed=total, total=total)
        self._reached(name, 1.0)

    def _reached(self, name: str, part: float) -> None:
        if self._bars is None or self._whole is None or name not in self._steps:
            return
        self._pace.reached(name, part)
        done = f"{self._steps.index(name) + (part >= 1)} of {len(self._steps)} steps"
        self._bars.update(self._whole, completed=self._pace.share, done=done)


class sweeping:  # noqa: N801 - used as a context manager function
    """How far a sweep is: a bar of all seeds and one of each at work on a terminal, a line a seed elsewhere.

    Args:
        seeds: how many are to be made.
        usual: seconds of each step of a run, in order.
    """

    def __init__(self, seeds: int, usual: Mapping[str, float]) -> None:
        self._seeds, self._usual = seeds, dict(usual)
        self._bars: Progress | None = None
        self._paces: dict[int, Pace] = {}
        self._tasks: dict[int, TaskID] = {}
        self._since: dict[int, float] = {}
        self._begin = time.monotonic()
        self._done = 0

    def __enter__(self) -> sweeping:
        from rich.console import Console

        console = Console(stderr=True)
        if console.is_terminal and self._seeds:
            self._bars = _bars(console)
            self._bars.start()
            self._whole = self._bars.add_task("sweep", total=1.0, done="", left=self._left)
            self._show()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def told(self, seed: int, step: Step) -> None:
        """A run is at a step; may come from another thread, and again from the first step."""
        self._since.setdefault(seed, time.monotonic())
        pace = self._paces.setdefault(seed, Pace(self._usual))
        pace.reached(step.name, step.done / step.total if step.total else 0.0)
        if self._bars is not None:
            if seed not in self._tasks:
                self._tasks[seed] = self._bars.add_task(f"seed {seed}", total=1.0, done="", left=lambda: pace.remaining)
            self._bars.update(self._tasks[seed], completed=pace.share, done=step.name)
        self._show()

    def ended(self, seed: int, outcome: str = "") -> None:
        """A run is done, or it failed with this outcome."""
        self._done += 1
        seconds = time.monotonic() - self._since.get(seed, time.monotonic())
        self._paces.pop(seed, None)
        if self._bars is None:
            name = f"seed {seed}"
            click.echo(f"{name:<10} {outcome or f'{seconds:7.1f} s'}", err=True)
        elif seed in self._tasks:
            self._bars.remove_task(self._tasks.pop(seed))
        self._show()

    @property
    def share(self) -> float:
        """Of the sweep that is done, 0 to 1."""
        return (self._done + sum(pace.share for pace in list(self._paces.values()))) / max(self._seeds, 1)

    def _left(self) -> float | None:
        """If the seeds to come go as those did that went."""
        share = self.share
        return None if share < LEAST_SHARE else (time.monotonic() - self._begin) * (1 - share) / share

    def _show(self) -> None:
        if self._bars is not None:
            self._bars.update(self._whole, completed=self.share, done=f"{self._done} of {self._seeds} seeds")
