"""`quant stress`: the worst that can be found between float and the candidates of a run."""

from __future__ import annotations

from pathlib import Path

import click

from quant.commands.console import show, show_json, watching
from quant.commands.options import (
    json_option,
    limits_of,
    limits_option,
    run_argument,
    workers_option,
)


@click.command("stress")
@run_argument
@click.option(
    "--frames",
    type=click.IntRange(1),
    help="Over the declared range.  [default: as the run was asked for last, 1000000 at first]",
)
@click.option("--seed", type=click.IntRange(0), help="Of the frames.  [default: that of the run]")
@limits_option
@workers_option
@json_option
def stress_command(
    run: Path,
    frames: int | None,
    seed: int | None,
    limits_file: Path | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Looks for the worst between float and the candidates of an evaluated run, wherever their inputs may lie.

    Frames over the whole declared range, recorded ones swept through it, and a search that goes on from the worst of
    them. What is found is kept in stress.json and stress_frames.npz; a finished run is finished again, with the
    criteria missed_action and false_action. The limits count only where the run has no verdict yet.
    """
    from quant.runs import steps

    with watching() as watch, watch.step("stress") as progress:
        found = steps.stress(
            run, limits_of(limits_file), frames=frames, seed=seed, workers=workers, progress=progress
        ).stress
    assert found is not None
    if as_json:
        show_json({"run": str(run), **found.to_json()})
        return
    from quant.report.stress import stress_table

    show(stress_table(found))
