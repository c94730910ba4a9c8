"""`quant init`: a project of one's own."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("init")
@click.argument("folder", required=False, default=Path(), type=click.Path(path_type=Path), metavar="[DIR]")
@click.option("--keep", is_flag=True, help="Leave files that are there as they are, and write the others.")
def init_command(folder: Path, keep: bool) -> None:
    """Starts a project: limits, a world that runs and what is seen in it, a board map, tests of a run, a CI workflow.

    In DIR, or here. A file that is there is never overwritten: it is named, and nothing is written.
    """
    from quant.commands.project import start_project

    made = start_project(folder, keep=keep)
    for name in made.written:
        click.echo(f"{folder / name}")
    for name in made.kept:
        click.echo(f"{folder / name}: is there, left as it is")
    if folder != Path():
        click.echo(f"\ncd {folder}")
    else:
        click.echo()
    click.echo("quant doctor")
    click.echo(
        "quant run --world world:Follow-v0 --observation observation.toml --out runs/mine"
        "    # the shipped policy; name yours: quant run policy.zip"
    )
    click.echo("pytest --run runs/mine")
