"""`quant doctor`: what is here, what is missing, what to do."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING

import click

from quant.commands.console import show_json
from quant.commands.options import json_option

if TYPE_CHECKING:
    from quant.commands.diagnosis import Check, Diagnosis

COLOURS = {"ok": "green", "warning": "yellow", "missing": "cyan"}
_INDENT = " " * 12
_WIDTH = 110


@click.command("doctor")
@click.option("--deep", is_flag=True, help="Also import TensorFlow and run the self-tests, some ten seconds.")
@json_option
def doctor_command(deep: bool, as_json: bool) -> int:
    """Says what is installed and attached, what is missing, and what to do about it.

    Exit code 0 if `quant run` will work here, 1 if not; boards and extras are told and do not count.
    """
    from quant.commands.diagnosis import examine

    diagnosis = examine(deep=deep)
    if as_json:
        show_json(diagnosis.to_json())
    else:
        _show(diagnosis)
    return 1 if diagnosis.lacking else 0


def _show(diagnosis: Diagnosis) -> None:
    """Plain lines: rich may be what is missing."""
    for topic, checks in itertools.groupby(diagnosis.checks, lambda check: check.topic):
        click.secho(topic, bold=True)
        for check in checks:
            _show_check(check)
        click.echo()
    if diagnosis.lacking:
        names = ", ".join(check.name for check in diagnosis.lacking)
        click.secho(f"quant run will not work here before this is mended: {names}", fg="red", bold=True)
    else:
        click.secho("quant run will work here.", bold=True)


def _show_check(check: Check) -> None:
    words = textwrap.fill(
        f"{check.name}: {check.says}" if check.says else check.name,
        _WIDTH,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT,
        break_on_hyphens=False,
        break_long_words=False,
    )
    fatal = check.needed and check.state.value == "missing"
    state = click.style(f"{check.state.value:<8}", fg="red" if fatal else COLOURS[check.state.value])
    click.echo(f"  {state}  {words.lstrip()}")
    if check.todo:
        # One line, however long: it is there to be copied.
        click.echo(f"{_INDENT}-> {check.todo}")
