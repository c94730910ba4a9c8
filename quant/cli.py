"""The command line. Heavy packages are imported by the commands that use them, so that ``--help`` answers at once."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from quant import __version__
from quant.board_cli import board_group, board_of, board_options, flash_command, pack_command, run_argument
from quant.console import show, watching
from quant.errors import GateError, InputError, QuantError
from quant.explain_cli import explain_command

if TYPE_CHECKING:
    from quant.acceptance.decision import Verdict
    from quant.acceptance.limits import Limits
    from quant.pipeline import Run
    from quant.policy import ActionSpace
    from quant.runfolder import Settings

Command = TypeVar("Command", bound=Callable[..., Any])

REFERENCE = "reference policy"
"""What settings call the shipped checkpoint."""
DEFAULT_RUN = Path("runs/reference")
POOLINGS = ("max", "mean", "sum")
ACTIVATIONS = ("linear", "relu", "relu6", "tanh", "elu", "sigmoid")


class _Terminated(BaseException):
    """SIGTERM; like KeyboardInterrupt no Exception, so that only cleaning up answers it on the way."""


def main() -> NoReturn:
    """Runs the command; exit code 2 for bad usage or input, 1 for a failed gate, 130 and 143 for SIGINT and SIGTERM."""
    try:
        with _orderly_end():
            sys.exit(cli.main(standalone_mode=False) or 0)
    except QuantError as error:
        click.echo(f"quant: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("quant: interrupted; a run in the making is unfinished and can be started again", err=True)
        sys.exit(130)
    except _Terminated:
        click.echo("quant: terminated; a run in the making is unfinished and can be started again", err=True)
        # The pool has been killed; threads that still look for it would only litter standard error on the way out.
        os._exit(143)


@contextmanager
def _orderly_end() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, workers included, and not at once."""

    def terminate(*_: object) -> NoReturn:
        raise _Terminated

    # Python takes signal handlers in the main thread alone.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="quant")
def cli() -> None:
    """Turns a float Deep Sets policy into the better of two INT8 models, and shows that it still drives.

    \b
    quant run                                    the shipped reference policy in the convoy world
    quant run policy.zip --drive drive.npz       your checkpoint, judged on recorded drives
    quant run policy.zip --world my.envs:Env-v0  your checkpoint, driving in your own environment
    """


def _options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def apply(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


policy_options = _options(
    click.option("--head", type=click.Path(path_type=Path), help="The policy head, where POLICY is only the encoder."),
    click.option("--pooling", type=click.Choice(POOLINGS), help="Pooling, where the file does not say it."),
    click.option(
        "--action-space", metavar="SPACE", help="Where the file does not say: discrete:4, box:0,1 or box:0,1:-1,1."
    ),
    click.option("--max-peers", type=click.IntRange(1), help="Peer slots, where the file does not say."),
    click.option(
        "--encoder-activation", type=click.Choice(ACTIVATIONS), help="Encoder activation, where the file does not say."
    ),
)
source_options = _options(
    click.option("--drive", "drives", multiple=True, type=click.Path(path_type=Path), help="A recorded drive, .npz."),
    click.option("--world", help="'convoy', or module:EnvId of your own Gymnasium environment."),
    click.option("--world-kwargs", metavar="JSON", help="Keyword arguments for your environment."),
    click.option("--episodes", type=click.IntRange(1), help="Nominal scenarios to judge on.  [default: 4000]"),
    click.option("--lossy-episodes", type=click.IntRange(0), help="Lossy scenarios to judge on.  [default: 2000]"),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of data, scenarios, training."),
)
limits_option = click.option(
    "--limits", "limits_file", type=click.Path(path_type=Path), help="Acceptance limits, TOML or JSON."
)
workers_option = click.option("--workers", type=click.IntRange(1), help="Processes.  [default: one for each processor]")
qat_steps_option = click.option("--qat-steps", type=click.IntRange(1), help="Optimizer steps of QAT.  [default: 1000]")
tracks_option = click.option(
    "--tracks", metavar="LIST", help="Ways to INT8 that compete: of ptq, qat, ptq-gptq.  [default: ptq,qat]"
)
baseline_option = click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    default=Path("baseline.json"),
    show_default=True,
    help="The baseline's file.",
)
policy_argument = click.argument("policy", required=False, type=click.Path(path_type=Path))


@cli.command("run")
@policy_argument
@policy_options
@source_options
@click.option("--out", type=click.Path(path_type=Path), help="The run folder.  [default: runs/NAME of the policy]")
@tracks_option
@qat_steps_option
@limits_option
@workers_option
@board_options
def run_command(
    policy: Path | None,
    out: Path | None,
    tracks: str | None,
    qat_steps: int | None,
    limits_file: Path | None,
    workers: int | None,
    **options: Any,
) -> int:
    """The whole job: import, dataset, tracks (PTQ, QAT), evaluation, a board, decision.

    POLICY is a Stable-Baselines3 zip, a TF SavedModel, a Keras file or a policy saved by quant; without it, the
    reference policy drives in the convoy world. The board is the virtual one where none is named: it runs the
    firmware's own code, and its times prove nothing.
    """
    limits, asked = _limits(limits_file), _tracks(tracks)
    checkpoint, settings = _checkpoint(policy), _settings(policy, options)
    settings = _replace(settings, qat_steps=qat_steps)
    if not settings.drives and settings.world is None:
        raise InputError(
            "nothing to judge the policy on",
            where=checkpoint,
            expected="a recorded drive, a world, or both",
            hint="give --drive FILE.npz or --world module:EnvId (--world convoy, if it was trained in our convoys)",
        )
    board = board_of(options, default="virtual")
    folder = out or (DEFAULT_RUN if policy is None else Path("runs") / policy.resolve().stem)
    from quant import pipeline

    with watching() as watch:
        verdict = pipeline.run_all(
            checkpoint,
            folder,
            settings,
            limits,
            board=board,
            tracks=asked,
            workers=workers,
            watch=watch,
            **_given(options),
        )
    return _conclude(folder, verdict)


@cli.command("import")
@policy_argument
@policy_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run folder.")
def import_command(policy: Path | None, out: Path, **options: Any) -> None:
    """Imports POLICY into a run folder and says what is known of it and how."""
    from quant import pipeline
    from quant.report.terminal import known
    from quant.runfolder import Settings

    checkpoint = _checkpoint(policy)
    with watching() as watch, watch.step("import"):
        imported = pipeline.import_policy(checkpoint, out, Settings(_named(policy)), **_given(options))
    show(known(imported.facts))


@cli.command("dataset")
@run_argument
@source_options
def dataset_command(run: Path, **options: Any) -> None:
    """Makes the quantization dataset and the frozen scenarios of a run."""
    from quant import pipeline
    from quant.runfolder import read_settings

    present = read_settings(run)
    asked = _settings(None if present.checkpoint == REFERENCE else Path(present.checkpoint), options)
    settings = _replace(asked, checkpoint=present.checkpoint, tracks=present.tracks, qat_steps=present.qat_steps)
    with watching() as watch, watch.step("dataset") as progress:
        dataset = pipeline.make_dataset(run, settings, progress)
    click.echo(f"{len(dataset)} frames, {len(dataset.peer_inputs)} peers, dataset {dataset.digest[:12]}")


@cli.command("ptq")
@run_argument
def ptq_command(run: Path) -> None:
    """Makes the PTQ candidate of a run."""
    _make_track(run, "ptq")


@cli.command("qat")
@run_argument
@qat_steps_option
def qat_command(run: Path, qat_steps: int | None) -> None:
    """Makes the QAT candidate of a run, starting from PTQ's ranges."""
    _make_track(run, "qat", qat_steps=qat_steps)


@cli.command("ptq-gptq")
@run_argument
def gptq_command(run: Path) -> None:
    """Makes the candidate with weights rounded by second order, starting from PTQ's plan."""
    _make_track(run, "ptq-gptq")


def _make_track(run: Path, name: str, **options: Any) -> None:
    from quant import pipeline

    with watching() as watch, watch.step(name) as progress:
        candidate = pipeline.make_track(run, name, progress, **options)
    click.echo("\n".join(candidate.log))


@cli.command("evaluate")
@run_argument
@limits_option
@workers_option
def evaluate_command(run: Path, limits_file: Path | None, workers: int | None) -> None:
    """Evaluates float and every candidate on the same scenarios and held-out frames."""
    from quant import pipeline

    with watching() as watch, watch.step("evaluate") as progress:
        evaluations = pipeline.evaluate(run, _limits(limits_file), workers, progress)
    click.echo(f"evaluated {', '.join(evaluations)}; next: quant decide {run}")


@cli.command("device")
@run_argument
@limits_option
@board_options
def device_command(run: Path, limits_file: Path | None, **options: Any) -> int:
    """Lets a board run the candidates of an evaluated run, and decides with what it showed."""
    from quant import pipeline
    from quant.boards.bench import Bench

    board, limits = board_of(options), _limits(limits_file)
    pipeline.read_run(run, devices=False)
    with watching() as watch, watch.step("device") as progress, Bench(board, pipeline.pack_of(run)) as bench:
        pipeline.run_device(run, bench, progress)
    return _conclude(run, pipeline.decide(run, limits))


@cli.command("decide")
@run_argument
@limits_option
def decide_command(run: Path, limits_file: Path | None) -> int:
    """Applies the limits and the decision rule; exit code 1 if every candidate fails."""
    from quant import pipeline

    return _conclude(run, pipeline.decide(run, _limits(limits_file)))


@cli.command("show")
@run_argument
@limits_option
@click.option("--json", "as_json", is_flag=True, help="The verdict as JSON.")
def show_command(run: Path, limits_file: Path | None, as_json: bool) -> int:
    """The comparison of a finished run, again."""
    from quant import pipeline

    opened = pipeline.open_run(run)
    verdict = opened.verdict(_limits(limits_file))
    if as_json:
        click.echo(json.dumps(verdict.to_json(), indent=2))
        return verdict.exit_code
    return _show(verdict, opened)


@cli.command("report")
@run_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where the page goes, with the Markdown beside it.  [default: report.html in RUN]",
)
@click.option("--open", "open_page", is_flag=True, help="Show the page in the browser.")
def report_command(run: Path, output: Path | None, open_page: bool) -> None:
    """Writes the report of a finished run: one HTML page to send, and a summary in Markdown.

    The page needs no other file and no network. It says what winner.json says; decide again to use other limits.
    """
    from quant import pipeline

    paths = pipeline.report(run, output)
    for path in paths:
        click.echo(str(path))
    if open_page:
        click.launch(str(paths[0]))


@cli.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="[BEFORE] NOW", type=click.Path(path_type=Path))
@baseline_option
@click.option("--json", "as_json", is_flag=True, help="The comparison as JSON.")
def compare_command(runs: tuple[Path, ...], baseline: Path, as_json: bool) -> int:
    """Holds a run against an earlier one, or against the baseline; exit code 1 on a regression.

    Each is a run folder or a baseline file. Exit code 2 says that the two cannot be compared.
    """
    if len(runs) > 2:
        raise click.UsageError(f"{len(runs)} runs; give one, to hold against the baseline, or two")
    from quant.acceptance.baseline import check_present
    from quant.acceptance.comparison import compare
    from quant.regression import load_snapshot
    from quant.report.comparison import comparison

    if len(runs) == 1:
        check_present(baseline)
    before, now = runs if len(runs) == 2 else (baseline, runs[0])
    found = compare(load_snapshot(before), load_snapshot(now))
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        show(comparison(found))
    return found.exit_code


@cli.command("accept")
@run_argument
@baseline_option
def accept_command(run: Path, baseline: Path) -> None:
    """Makes a finished run the baseline that later runs are held against; the rules of the old one stay."""
    from quant import pipeline
    from quant.acceptance.baseline import accept
    from quant.regression import snapshot

    accepted = accept(snapshot(pipeline.open_run(run)), baseline)
    click.echo(f"{baseline}: {accepted.name} is the baseline; {accepted.winner} wins, {accepted.status}")
    click.echo("hold a later run against it: quant compare RUN, or pytest -m regression --run RUN")


@cli.command("train")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where the checkpoint and its log go.")
@click.option("--seed", type=click.IntRange(0), help="Of network and scenarios.  [default: the shipped policy's]")
@click.option("--steps", type=click.IntRange(1), help="Environment steps.  [default: the shipped policy's]")
def train_command(out: Path, seed: int | None, steps: int | None) -> None:
    """Trains the reference policy in the convoy world (needs the extra ``train``)."""
    from quant.worlds.training import train

    given = {name: value for name, value in (("seed", seed), ("steps", steps)) if value is not None}
    with watching() as watch, watch.step("train") as progress:
        log = train(out, progress=lambda done, total, _: progress(done, total), **given)
    click.echo(json.dumps(log["test"], indent=2))


cli.add_command(explain_command)
cli.add_command(pack_command)
cli.add_command(flash_command)
cli.add_command(board_group)


def _tracks(text: str | None) -> tuple[str, ...]:
    from quant.tracks.registry import DEFAULT_TRACKS, parse_tracks

    return DEFAULT_TRACKS if text is None else parse_tracks(text)


def _checkpoint(policy: Path | None) -> Path:
    if policy is not None:
        return policy
    from quant.worlds.reference import reference_policy_path

    return reference_policy_path()


def _named(policy: Path | None) -> str:
    return REFERENCE if policy is None else str(policy)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    given = {key: options[key] for key in ("head", "pooling", "encoder_activation", "max_peers")}
    return given | {"action_space": _action_space(options["action_space"])}


def _action_space(text: str | None) -> ActionSpace | None:
    if text is None:
        return None
    from quant.policy import Discrete
    from quant.policy.spaces import box

    kind, _, rest = text.partition(":")
    try:
        if kind == "discrete" and int(rest) > 0:
            return Discrete(int(rest))
        if kind == "box":
            bounds = [part.split(",") for part in rest.split(":")]
            low, high = zip(*((float(low), float(high)) for low, high in bounds), strict=True)
            return box(low, high, "--action-space")
    except ValueError:
        pass
    raise InputError(
        f"not an action space: {text}", where="--action-space", expected="discrete:4, box:0,1 or box:0,1:-1,1"
    )


def _settings(policy: Path | None, options: dict[str, Any]) -> Settings:
    from quant.pipeline import DEFAULT_EPISODES
    from quant.runfolder import Settings

    world = options["world"] or (None if policy is not None or options["drives"] else "convoy")
    asked = {"nominal": options["episodes"], "lossy": options["lossy_episodes"]}
    return Settings(
        checkpoint=_named(policy),
        drives=tuple(str(path) for path in options["drives"]),
        world=world,
        world_kwargs=_json_object(options["world_kwargs"]),
        seed=options["seed"],
        episodes={name: default if asked[name] is None else asked[name] for name, default in DEFAULT_EPISODES.items()},
    )


def _json_object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"not JSON: {error}", where="--world-kwargs", expected="an object like '{\"n\": 3}'"
        ) from error
    if not isinstance(value, dict):
        raise InputError("is not a JSON object", where="--world-kwargs", expected="an object like '{\"n\": 3}'")
    return value


def _replace(settings: Settings, **changes: Any) -> Settings:
    from dataclasses import replace

    return replace(settings, **changes)


def _limits(file: Path | None) -> Limits:
    from quant.acceptance.limits import load_limits

    return load_limits(file)


def _conclude(folder: Path, verdict: Verdict) -> int:
    from quant import pipeline

    run = pipeline.read_run(folder)
    code = _show(verdict, run)
    click.echo(f"run: {folder}")
    return code


def _show(verdict: Verdict, run: Run) -> int:
    from quant.report.terminal import report

    show(report(run.evaluations, verdict, run.policy.facts, run.parity, run.devices))
    if verdict.winner is None:
        raise GateError("every candidate fails a criterion; see the table above")
    return verdict.exit_code
