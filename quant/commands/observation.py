"""`quant observation`: what each column of a policy's input is, how far it may go, and where that is known from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from quant.commands.console import show, show_json
from quant.commands.options import (
    checkpoint_of,
    given_of,
    json_option,
    name_of,
    observation_of,
    observation_option,
    policy_argument,
    policy_options,
)
from quant.errors import InputError

DEFAULT = Path("observation.toml")


@click.command("observation")
@policy_argument
@policy_options
@click.option("--drive", "drives", multiple=True, type=click.Path(path_type=Path), help="A recorded drive, .npz.")
@observation_option
@click.option("-o", "--output", type=click.Path(path_type=Path), default=DEFAULT, show_default=True, help="The file.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@json_option
def observation_command(
    policy: Path | None,
    drives: tuple[Path, ...],
    observation: Path | None,
    output: Path,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """What each column of POLICY's input is: name, unit, scale, least and most value, and where that is known from.

    Writes it to a file to edit and to give back with --observation. Known is what the checkpoint states, what a preset
    of the field says of an input of these sizes, and what drives show; what nobody knows is said to be unknown.
    """
    from quant.dataset.build import contract_of
    from quant.observation.findings import NAMES, findings_to_json
    from quant.observation.storage import write_contract
    from quant.report.observation import contract_table
    from quant.runs.settings import Settings
    from quant.runs.sources import read_sources

    if output.exists() and not force and not (observation is not None and output.resolve() == observation.resolve()):
        raise InputError(
            "is there already, perhaps edited",
            where=output,
            expected="a new file",
            hint=f"give it back with --observation {output}, write elsewhere with -o, or over it with --force",
        )
    settings = Settings(
        name_of(policy),
        tuple(map(str, drives)),
        given=given_of(options),
        observation=observation_of(observation),
        allow=tuple(NAMES),  # to look at a drive, whatever is wrong with it
    )
    sources = read_sources(checkpoint_of(policy), settings)
    contract = contract_of(sources.policy, sources.drives, sources.observation)
    seen = [drive.observations for drive in sources.drives]
    write_contract(contract, output)
    if as_json:
        found = findings_to_json(sources.findings)
        show_json({"file": str(output), "contract": contract.to_json(), "observation_findings": found})
        return
    show(contract_table(contract, seen))
    for finding in sources.findings:
        told = f" (quant run refuses this; --allow {finding.name} lets it through)" if finding.allowed else ""
        click.echo(f"found: {finding.name}: {finding.text}{told}")
    click.echo(f"written to {output}; edit it and give it back: quant run POLICY --observation {output}")
