"""`quant sumo`: a second opinion on who drives better."""

from __future__ import annotations

from pathlib import Path

import click

from quant.commands.console import show, show_json, watching
from quant.commands.options import json_option, limits_of, limits_option, run_argument, workers_option

FOLLOWING = ("krauss", "idm")
"""Keys of :data:`quant.worlds.sumo.MODELS`, which would be slow to import for a help text."""


@click.command("sumo")
@run_argument
@click.option("--episodes", type=click.IntRange(0), default=1000, show_default=True, help="Nominal scenarios.")
@click.option("--lossy-episodes", type=click.IntRange(0), default=500, show_default=True, help="Lossy scenarios.")
@click.option(
    "--following",
    type=click.Choice(FOLLOWING),
    default="krauss",
    show_default=True,
    help="How peers follow: SUMO's own way, or the convoy world's, which checks the two worlds against each other.",
)
@limits_option
@workers_option
@json_option
def sumo_command(
    run: Path,
    episodes: int,
    lossy_episodes: int,
    following: str,
    limits_file: Path | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Asks SUMO for a second opinion on an evaluated run of the convoy world.

    Float, every candidate and the gate's two actors drive the first of the run's own scenarios in Eclipse SUMO (extra
    sumo). The verdict stays the convoy world's: what SUMO sees otherwise is said, and kept in sumo.json. The limits
    count only where the run has no verdict yet.
    """
    from quant.runs import steps

    with watching() as watch, watch.step("sumo") as progress:
        asked = steps.second_opinion(
            run,
            limits_of(limits_file),
            episodes={"nominal": episodes, "lossy": lossy_episodes},
            following=following,
            workers=workers,
            progress=progress,
        )
    assert asked.second is not None
    if as_json:
        show_json(asked.second.summary())
        return
    from quant.report.second_opinion import second_opinion

    show(second_opinion(asked.second))
