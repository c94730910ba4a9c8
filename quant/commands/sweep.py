"""`quant sweep`: the same run under several seeds, and what their spread says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import click

from quant.commands.console import show, show_json, sweeping
from quant.commands.options import (
    checkpoint_of,
    json_option,
    limits_of,
    limits_option,
    policy_argument,
    policy_options,
    qat_steps_option,
    settings_of,
    source_options,
    stress_options,
    tracks_of,
    tracks_option,
)
from quant.errors import InputError

if TYPE_CHECKING:
    from quant.sweep.jobs import Sweep
    from quant.sweep.summary import Summary

VARIES = ("training", "all")


@click.command("sweep")
@policy_argument
@policy_options
@source_options
@stress_options
@click.option("--seeds", default="0:8", show_default=True, help="0:8 is 0 to 7; or 3,5,9.")
@click.option(
    "--vary",
    type=click.Choice(VARIES),
    default="training",
    show_default=True,
    help="What a seed is of: training alone, on the dataset and scenarios of --seed, or all of a run.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The sweep's folder.  [default: runs/sweep-NAME]")
@tracks_option
@qat_steps_option
@limits_option
@click.option("--dask", "address", metavar="ADDRESS", help="An existing cluster's scheduler, as tcp://host:8786.")
@click.option("--workers", type=click.IntRange(1), help="Processes, without --dask.  [default: one for each processor]")
@json_option
def sweep_command(
    policy: Path | None,
    seeds: str,
    vary: str,
    out: Path | None,
    tracks: str | None,
    qat_steps: int | None,
    limits_file: Path | None,
    address: str | None,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> int:
    """The same run under several seeds: is a result luck, and which candidate to deploy.

    Each seed's run is a folder of its own, SWEEP/seed-K, with the bytes that quant run would give it. Seeds that are
    finished are not made again. Runs are Dask tasks, on this machine or on a cluster (needs the extra ``sweep``). Exit
    code 2 if a seed failed, 1 if no candidate of any seed keeps the limits.
    """
    from quant.sweep.cluster import check_installed
    from quant.sweep.jobs import parse_seeds

    asked, limits, names = parse_seeds(seeds), limits_of(limits_file), tracks_of(tracks)
    if address is not None and workers is not None:
        raise InputError(
            "--workers with --dask", where="--workers", expected="one of them: the cluster has its workers"
        )
    check_installed()
    settings = replace(settings_of(policy, options), qat_steps=qat_steps)
    checkpoint = checkpoint_of(policy)
    if not settings.drives and settings.world is None:
        hint = "give --drive FILE.npz or --world module:EnvId (--world convoy, if it was trained in our convoys)"
        raise InputError("nothing to judge the policy on", where=checkpoint, expected="a drive or a world", hint=hint)
    from quant.runs.sources import read_sources
    from quant.sweep.jobs import SUMMARY, Vary, claimed, plan_sweep

    assert get_args(Vary) == VARIES
    folder = out or Path("runs") / f"sweep-{'reference' if policy is None else policy.resolve().stem}"
    sources = read_sources(checkpoint, settings)
    sweep = plan_sweep(folder, sources, settings, asked, names, limits, cast(Vary, vary))
    with claimed(folder):
        failures = _make(sweep, address, workers)
        found = _summarize(sweep, failures)
        from quant.files import write_json

        write_json(folder / SUMMARY, found.to_json())
    _tell(found, folder, as_json)
    return found.exit_code


def _make(sweep: Sweep, address: str | None, workers: int | None) -> dict[int, str]:
    """Makes the runs that are not there yet; the failures, by seed."""
    from quant.runs.job import leaves_out, steps_of, stresses, usual_seconds
    from quant.sweep.cluster import run_jobs
    from quant.sweep.jobs import is_finished, keep
    from quant.sweep.process import Files

    missing = [job for job in sweep.jobs if not is_finished(sweep.run_folder(job.seed), job, sweep.sources)]
    there = [str(job.seed) for job in sweep.jobs if job not in missing]
    if there:
        click.echo(f"finished already, with the same inputs: seed {', '.join(there)}", err=True)
    failures = {}
    first = sweep.jobs[0]
    others = {"with_unseen": leaves_out(first.settings), "with_stress": stresses(first.settings)}
    usual = usual_seconds(first.settings, steps_of(first.tracks, with_board=True, **others), first.tracks)
    with sweeping(len(missing), usual) as progress:
        for job, result in run_jobs(missing, sweep.inputs, address=address, workers=workers, told=progress.told):
            if isinstance(result, Files):
                keep(sweep.run_folder(job.seed), result.content)
                progress.ended(job.seed)
            else:
                failures[job.seed] = result.words
                progress.ended(job.seed, f"failed: {result.words.strip().splitlines()[-1]}")
    return failures


def _summarize(sweep: Sweep, failures: dict[int, str]) -> Summary:
    from quant.errors import QuantError
    from quant.runs.reading import open_run
    from quant.sweep.summary import summarize

    runs = {job.seed: open_run(sweep.run_folder(job.seed)) for job in sweep.jobs if job.seed not in failures}
    if not runs:
        words = next(iter(failures.values()))
        raise QuantError(f"every seed failed, the first with: {words}", where=sweep.folder)
    limits = sweep.jobs[0].limits
    return summarize({seed: (run, run.verdict(limits)) for seed, run in runs.items()}, failures, limits, sweep.vary)


def _tell(found: Summary, folder: Path, as_json: bool) -> None:
    from quant.sweep.table import table

    if as_json:
        show_json(found.to_json())
        return
    show(table(found))
    if found.choice is not None:
        click.echo(f"run: {folder / f'seed-{found.choice.seed}'}")
