"""What a finished run says: shown again, as a report, against a baseline. Heavy packages are imported where used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quant.commands.completion import complete_runs
from quant.commands.console import show, show_json
from quant.commands.options import (
    baseline_option,
    json_option,
    limits_of,
    limits_option,
    run_argument,
)
from quant.errors import GateError, InputError

if TYPE_CHECKING:
    from quant.acceptance.accepting import Acceptance
    from quant.acceptance.decision import Verdict
    from quant.runs.pages import Hold
    from quant.runs.run import Run


@click.command("show")
@run_argument
@limits_option
@json_option
def show_command(run: Path, limits_file: Path | None, as_json: bool) -> int:
    """The comparison of a finished run, again."""
    from quant.runs.reading import open_run

    opened = open_run(run)
    verdict = opened.verdict(limits_of(limits_file))
    if as_json:
        second = {} if opened.second is None else {"second_opinion": opened.second.summary()}
        show_json(verdict.to_json() | second)
        return verdict.exit_code
    return show_verdict(verdict, opened)


@click.command("report")
@run_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where the page goes, with the Markdown beside it.  [default: report.html in RUN]",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="A baseline or another run, to hold this one against.  [default: baseline.json, where there is one]",
)
@click.option("--open", "open_page", is_flag=True, help="Show the page in the browser.")
@json_option
def report_command(run: Path, output: Path | None, baseline: Path | None, open_page: bool, as_json: bool) -> None:
    """Writes the report of a finished run: one HTML page to send, and a summary in Markdown.

    The page needs no other file and no network. It says what winner.json says; decide again to use other limits.
    """
    from quant.runs.pages import report

    paths = report(run, output, _holding(baseline))
    if as_json:
        show_json({"run": str(run), "page": str(paths[0]), "summary": str(paths[1])})
    else:
        for path in paths:
            click.echo(str(path))
    if open_page:
        click.launch(str(paths[0]))


def _holding(baseline: Path | None) -> Hold | None:
    """Holds a run against what is given, or against the project's baseline where there is one."""
    from quant.acceptance.baseline import FILE
    from quant.acceptance.comparison import compare
    from quant.runs.regression import load_snapshot, snapshot

    if baseline is None and not Path(FILE).is_file():
        return None
    before = load_snapshot(baseline or Path(FILE))
    return lambda run: compare(before, snapshot(run))


@click.command("compare")
@click.argument(
    "runs",
    nargs=-1,
    required=True,
    metavar="[BEFORE] NOW",
    type=click.Path(path_type=Path),
    shell_complete=complete_runs,
)
@baseline_option
@json_option
def compare_command(runs: tuple[Path, ...], baseline: Path, as_json: bool) -> int:
    """Holds a run against an earlier one, or against the baseline; exit code 1 on a regression.

    Each is a run folder or a baseline file. Exit code 2 says that the two cannot be compared.
    """
    if len(runs) > 2:
        raise click.UsageError(f"{len(runs)} runs; give one, to hold against the baseline, or two")
    from quant.acceptance.baseline import check_present
    from quant.acceptance.comparison import compare
    from quant.report.comparison import comparison
    from quant.runs.reading import open_run
    from quant.runs.regression import float_against_float, load_snapshot

    if len(runs) == 1:
        check_present(baseline)
    before, now = runs if len(runs) == 2 else (baseline, runs[0])
    found = compare(load_snapshot(before), load_snapshot(now))
    policies: tuple[str, ...] = ()
    if before.is_dir() and now.is_dir():
        policies = float_against_float(open_run(before), open_run(now))
    if as_json:
        show_json(found.to_json() | {"float_policies": list(policies)})
    else:
        show(comparison(found, policies))
    return found.exit_code


@click.command("accept")
@run_argument
@baseline_option
@click.option(
    "--force", is_flag=True, help="Even a run that is worse, or cannot be compared with the present baseline."
)
@json_option
def accept_command(run: Path, baseline: Path, force: bool, as_json: bool) -> None:
    """Makes a finished run the baseline that later runs are held against; the rules of the old one stay.

    Shows the run against the baseline it takes the place of first. A regression is refused (exit code 1), and so is
    what cannot be compared (exit code 2), unless --force says that it is meant.
    """
    from quant.acceptance.accepting import accept, consider
    from quant.report.comparison import comparison
    from quant.runs.reading import open_run
    from quant.runs.regression import snapshot

    found = consider(snapshot(open_run(run)), baseline)
    written = force or not found.objection
    if as_json:
        show_json({**found.to_json(), "accepted": written, "forced": written and bool(found.objection)})
    elif found.comparison is not None:
        show(comparison(found.comparison))
        click.echo()
    if not written:
        refusal = GateError if found.exit_code == 1 else InputError
        raise refusal(
            f"is left as it is: {found.objection}", where=baseline, hint="accept it all the same with --force"
        )
    accept(found)
    if not as_json:
        click.echo("\n".join(_accepted(found)))


def _accepted(found: Acceptance) -> Iterator[str]:
    """What has become of the baseline, in sentences."""
    new, old = found.baseline, found.comparison
    instead = "" if old is None else f" in place of {old.before}"
    yield f"{found.path}: {new.name} is the baseline{instead}; {new.winner} wins, {new.status}"
    if found.objection:
        yield f"forced: {found.objection}"
    if found.dropped:
        yield f"no longer held against: {', '.join(found.dropped)}"
    yield "hold a later run against it: quant compare RUN, or pytest -m regression --run RUN"


def conclude(run: Run, verdict: Verdict, as_json: bool) -> int:
    """Shows the verdict that a run was just given; its exit code."""
    if as_json:
        show_json(verdict.to_json())
        return verdict.exit_code
    code = show_verdict(verdict, run)
    click.echo(f"run: {run.folder}")
    return code


def show_verdict(verdict: Verdict, run: Run) -> int:
    """Shows a verdict with what it stands on; its exit code.

    Raises:
        GateError: every candidate fails.
    """
    from quant.runs.pages import shown

    show(shown(run, verdict))
    if verdict.winner is None:
        raise GateError("every candidate fails a criterion; see the table above")
    return verdict.exit_code
