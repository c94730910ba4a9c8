"""The command line. Heavy packages are imported by the commands that use them, so that ``--help`` answers at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

from quant import __version__
from quant.commands import board, completion, doctor, explain, init, observation, results, run, stress, sumo, sweep
from quant.errors import QuantError


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


for command in (
    run.run_command,
    run.import_command,
    observation.observation_command,
    run.dataset_command,
    *run.track_commands,
    run.unseen_command,
    run.evaluate_command,
    run.device_command,
    run.decide_command,
    run.train_command,
    results.show_command,
    results.report_command,
    results.compare_command,
    results.accept_command,
    explain.explain_command,
    stress.stress_command,
    sumo.sumo_command,
    sweep.sweep_command,
    board.pack_command,
    board.flash_command,
    board.board_group,
    doctor.doctor_command,
    init.init_command,
    completion.completion_command,
):
    cli.add_command(command)
