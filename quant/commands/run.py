"""The steps of a run, together and one by one. Heavy packages are imported by the commands that use them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quant.commands.console import show, show_json, watching
from quant.commands.options import (
    DEFAULT_RUN,
    REFERENCE,
    board_of,
    board_options,
    checkpoint_of,
    given_of,
    json_option,
    limits_of,
    limits_option,
    name_of,
    policy_argument,
    policy_options,
    qat_steps_option,
    run_argument,
    settings_of,
    source_options,
    stress_options,
    together,
    tracks_of,
    tracks_option,
    training_seed_option,
    workers_option,
)
from quant.commands.results import conclude
from quant.errors import InputError
from quant.tracks.registry import TRACKS, Track

if TYPE_CHECKING:
    from quant.acceptance.limits import Limits
    from quant.dataset import Dataset
    from quant.tracks.candidate import Candidate


@click.command("run")
@policy_argument
@policy_options
@source_options
@stress_options
@click.option("--out", type=click.Path(path_type=Path), help="The run folder.  [default: runs/NAME of the policy]")
@tracks_option
@qat_steps_option
@training_seed_option
@limits_option
@workers_option
@click.option("--sumo", is_flag=True, help="Ask SUMO for a second opinion as well; see quant sumo.")
@board_options
@json_option
def run_command(
    policy: Path | None,
    out: Path | None,
    tracks: str | None,
    qat_steps: int | None,
    training_seed: int | None,
    limits_file: Path | None,
    workers: int | None,
    sumo: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """The whole job: import, dataset, tracks (PTQ, QAT), evaluation, stress, a board, decision.

    POLICY is a Stable-Baselines3 zip, a TF SavedModel, a Keras file or a policy saved by quant; without it, the
    reference policy drives in the convoy world. The board is the virtual one where none is named: it runs the
    firmware's own code, and its times prove nothing.
    """
    limits, asked = limits_of(limits_file), tracks_of(tracks)
    checkpoint, settings = checkpoint_of(policy), settings_of(policy, options)
    settings = replace(settings, qat_steps=qat_steps, training_seed=training_seed)
    if not settings.drives and settings.world is None:
        raise InputError(
            "nothing to judge the policy on",
            where=checkpoint,
            expected="a recorded drive, a world, or both",
            hint="give --drive FILE.npz or --world module:EnvId (--world convoy, if it was trained in our convoys)",
        )
    board = board_of(options, default="virtual")
    folder = out or (DEFAULT_RUN if policy is None else Path("runs") / policy.resolve().stem)
    from quant.runs.job import run_all

    with watching() as watch:
        made, verdict = run_all(
            checkpoint,
            folder,
            settings,
            limits,
            board=board,
            tracks=asked,
            workers=workers,
            watch=watch,
            sumo=sumo,
        )
    return conclude(made, verdict, as_json)


@click.command("import")
@policy_argument
@policy_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run folder.")
@json_option
def import_command(policy: Path | None, out: Path, as_json: bool, **options: Any) -> None:
    """Imports POLICY into a run folder and says what is known of it and how."""
    from quant.policy import policy_digest
    from quant.report.terminal import known
    from quant.runs.settings import Settings
    from quant.runs.steps import import_policy

    checkpoint = checkpoint_of(policy)
    with watching() as watch, watch.step("import"):
        imported = import_policy(checkpoint, out, Settings(name_of(policy), given=given_of(options)))
    if as_json:
        facts = [asdict(fact) for fact in imported.facts]
        show_json({"run": str(out), "policy_sha256": policy_digest(imported), "facts": facts})
        return
    show(known(imported.facts))


@click.command("dataset")
@run_argument
@source_options
@json_option
def dataset_command(run: Path, as_json: bool, **options: Any) -> None:
    """Makes the quantization dataset and the frozen scenarios of a run."""
    from quant.runs.settings import read_settings
    from quant.runs.steps import make_dataset

    present = read_settings(run)
    asked = settings_of(None if present.checkpoint == REFERENCE else Path(present.checkpoint), options)
    kept = ["checkpoint", "tracks", "qat_steps", "training_seed", "given", "stress_frames"]
    kept += ["observation"] if asked.observation is None else []
    kept += ["allow"] if not asked.allow else []
    settings = replace(asked, **{name: getattr(present, name) for name in kept})
    with watching() as watch, watch.step("dataset") as progress:
        dataset = make_dataset(run, settings, progress)
    if as_json:
        show_json(_counts(run, dataset))
        return
    click.echo(f"{len(dataset)} frames, {len(dataset.peer_inputs)} peers, dataset {dataset.digest[:12]}")


def _counts(run: Path, dataset: Dataset) -> dict[str, Any]:
    from quant.dataset import Split

    return {
        "run": str(run),
        "dataset_sha256": dataset.digest,
        "frames": len(dataset),
        "peers": len(dataset.peer_inputs),
        "splits": {split.name.lower(): len(dataset.rows(split)) for split in Split},
    }


def _track_command(track: Track) -> click.Command:
    """The command that makes one track's candidate."""

    def command(run: Path, as_json: bool, qat_steps: int | None = None) -> None:
        _make_track(run, track.name, as_json, qat_steps)

    named = click.command(track.name, help=f"Makes {track.makes}.")
    options = (run_argument, *((qat_steps_option,) if track.trains else ()), json_option)
    return named(together(*options)(command))


track_commands = tuple(_track_command(track) for track in TRACKS.values())


def _make_track(run: Path, name: str, as_json: bool, qat_steps: int | None) -> None:
    from quant.runs.steps import make_track

    with watching() as watch, watch.step(name) as progress:
        candidate = make_track(run, name, progress, qat_steps=qat_steps)
    if as_json:
        show_json(_candidate(run, candidate))
        return
    click.echo("\n".join(candidate.log))


def _candidate(run: Path, candidate: Candidate) -> dict[str, Any]:
    models = (candidate.peer_encoder, candidate.policy_head)
    return {
        "run": str(run),
        "track": candidate.track,
        "bytes": {model.part: len(model.tflite) for model in models},
        "sha256": candidate.hashes,
        "log": list(candidate.log),
    }


@click.command("unseen")
@run_argument
@limits_option
@workers_option
@json_option
def unseen_command(run: Path, limits_file: Path | None, workers: int | None, as_json: bool) -> None:
    """Makes every track without each drive in turn, and judges it on the drive it was made without.

    Blocks of the drives a candidate was made of are no independent test of it. Evaluate again afterwards.
    """
    from quant.runs.steps import leave_drives_out

    with watching() as watch, watch.step("unseen") as progress:
        found = leave_drives_out(run, limits_of(limits_file), workers, progress)
    if as_json:
        show_json({"run": str(run), **found.to_json()})
        return
    for track, drives in found.tracks.items():
        for one in drives:
            close = one.closeness
            words = f"agrees on {close.agreement.value:.2%} of {close.n} frames, mean error {close.mae:.4g}"
            click.echo(f"{track} made without {one.drive}: {words}, largest {close.max_error:.3g}")
    for drive, reason in found.reasons.items():
        click.echo(f"{drive} was not left out: {reason}")
    click.echo(f"next: quant evaluate {run}")


@click.command("evaluate")
@run_argument
@click.option(
    "--drive",
    "drives",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Judge the finished run on this later drive, one at a time, and leave it as it is.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="With --drive: the file.  [default: RUN-on-DRIVE.json]"
)
@limits_option
@workers_option
@json_option
def evaluate_command(
    run: Path,
    drives: tuple[Path, ...],
    output: Path | None,
    limits_file: Path | None,
    workers: int | None,
    as_json: bool,
) -> int:
    """Evaluates float and every candidate on the same scenarios and held-out frames.

    With --drive, a finished run is judged on a drive it has not seen: what is found goes to a file beside the run,
    which quant compare takes. Exit code 1 if the winner disagrees with float in more frames, or misses or makes up more
    actions, than the limits allow; the last line says so.
    """
    if len(drives) > 1:
        raise InputError(
            f"given {len(drives)} times: {', '.join(map(str, drives))}",
            where="--drive",
            expected="one drive at a time, each with a document of its own",
            hint=f"quant evaluate {run} --drive {drives[0]}, and again with the next",
        )
    if drives:
        return _evaluate_on(run, drives[0], output, limits_of(limits_file), as_json)
    if output is not None:
        raise InputError("--output without --drive", where="--output", expected="--drive FILE.npz with it")
    from quant.runs.steps import evaluate

    with watching() as watch, watch.step("evaluate") as progress:
        evaluations = evaluate(run, limits_of(limits_file), workers, progress)
    if as_json:
        shown = {name: evaluation.to_json() for name, evaluation in evaluations.items()}
        show_json({"run": str(run), "evaluations": shown})
        return 0
    click.echo(f"evaluated {', '.join(evaluations)}; next: quant decide {run}")
    return 0


def _evaluate_on(run: Path, drive: Path, output: Path | None, limits: Limits, as_json: bool) -> int:
    from quant.files import write_json
    from quant.report.observation import later_table
    from quant.runs.later import beside, check_outside, judge
    from quant.runs.reading import open_run

    path = output or beside(run, drive)
    check_outside(path, run)
    found = judge(open_run(run), drive, limits)
    write_json(path, found.to_json())
    if as_json:
        show_json(found.to_json())
        return found.exit_code
    show(later_table(found.drive, found.tracks, found.columns, found.warnings, found.recorded, found.winner))
    click.echo(f"written to {path}; another run on the same drive: quant compare {path} OTHER.json")
    click.echo(found.outcome)
    return found.exit_code


@click.command("device")
@run_argument
@limits_option
@board_options
@json_option
def device_command(run: Path, limits_file: Path | None, as_json: bool, **options: Any) -> int:
    """Lets a board run the candidates of an evaluated run, and decides with what it showed."""
    from quant.boards.bench import Bench
    from quant.runs.reading import pack_of, read_run
    from quant.runs.steps import finish, run_device

    board, limits = board_of(options), limits_of(limits_file)
    read_run(run, devices=False)
    with watching() as watch, watch.step("device") as progress, Bench(board, pack_of(run)) as bench:
        run_device(run, bench, progress)
    return conclude(*finish(run, limits), as_json)


@click.command("decide")
@run_argument
@limits_option
@json_option
def decide_command(run: Path, limits_file: Path | None, as_json: bool) -> int:
    """Applies the limits and the decision rule; exit code 1 if every candidate fails."""
    from quant.runs.steps import finish

    return conclude(*finish(run, limits_of(limits_file)), as_json)


@click.command("train")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where the checkpoint and its log go.")
@click.option("--seed", type=click.IntRange(0), help="Of network and scenarios.  [default: the shipped policy's]")
@click.option("--steps", type=click.IntRange(1), help="Environment steps.  [default: the shipped policy's]")
def train_command(out: Path, seed: int | None, steps: int | None) -> None:
    """Trains the reference policy in the convoy world (needs the extra ``train``)."""
    from quant.worlds.training import train

    given = {name: value for name, value in (("seed", seed), ("steps", steps)) if value is not None}
    with watching() as watch, watch.step("train") as progress:
        log = train(out, progress=lambda done, total, _: progress(done, total), **given)
    show_json(log["test"])
