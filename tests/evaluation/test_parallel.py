"""The pool: results in order, the caller's errors, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from quant.errors import QuantError
from quant.evaluation.parallel import map_tasks
from tests.patience import PATIENCE, happens

FOR_EVER = 10 * PATIENCE


def scaled(context: int, task: float) -> float:
    time.sleep(task / 100)
    return context * task


def surroundings(context: None, task: int) -> tuple[int, bool, set[int]]:
    np.ones((2, 2)) @ np.ones((2, 2))
    threads = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    return os.getpid(), "tensorflow" in sys.modules, threads


def fails(context: None, task: int) -> int:
    if task:
        time.sleep(FOR_EVER)
    raise KeyError("scenario 7")


def dies(context: None, task: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleeps(context: None, task: int) -> None:
    time.sleep(FOR_EVER)


def says_that_it_runs(context: None, task: int) -> None:
    os.write(1, b"runs\n")
    time.sleep(FOR_EVER)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks_and_progress_as_they_are_done(workers: int) -> None:
    seen: list[int] = []
    assert map_tasks(scaled, 3, [5.0, 1.0, 2.0, 0.0], workers=workers, done=seen.append) == [15.0, 3.0, 6.0, 0.0]
    assert sorted(seen) == [0, 1, 2, 3]


def test_workers_are_other_processes_without_tensorflow_and_with_one_blas_thread() -> None:
    for pid, tensorflow, threads in map_tasks(surroundings, None, range(4), workers=2):
        assert pid != os.getpid()
        assert not tensorflow
        assert threads == {1}


@pytest.fixture
def no_process_is_left() -> Iterator[None]:
    before = set(multiprocessing.active_children())
    yield
    assert happens(lambda: not set(multiprocessing.active_children()) - before), "worker processes were left behind"


def test_an_error_of_a_task_arrives_at_once_and_ends_the_others(no_process_is_left: None) -> None:
    start = time.monotonic()
    with pytest.raises(KeyError, match="scenario 7"):
        map_tasks(fails, None, [1, 0], workers=2)
    assert time.monotonic() - start < PATIENCE


def test_a_killed_worker_is_an_error_and_not_a_hang(no_process_is_left: None) -> None:
    with pytest.raises(QuantError, match="worker process ended"):
        map_tasks(dies, None, [0, 1], workers=2)


def test_an_interrupt_ends_the_workers_at_once(no_process_is_left: None) -> None:
    start = time.monotonic()
    threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        map_tasks(sleeps, None, [0, 1], workers=2)
    assert time.monotonic() - start < PATIENCE


COMMAND = """
import sys
from quant.commands import main
from quant.evaluation.parallel import map_tasks
from tests.evaluation.test_parallel import says_that_it_runs

@main.cli.command("works")
def works():
    map_tasks(says_that_it_runs, None, [0, 1], workers=2)

sys.argv = ["quant", "works"]
main.main()
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_command_that_is_ended_leaves_no_worker(sent: signal.Signals, code: int) -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    try:
        assert command.stdout is not None
        assert [command.stdout.readline() for _ in range(2)] == [b"runs\n"] * 2
        command.send_signal(sent)
        # The workers hold the pipes too: both end only when the last process has.
        _, errors = command.communicate(timeout=PATIENCE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
    assert command.returncode == code
    assert b"Traceback" not in errors
    if sent == signal.SIGTERM:
        assert b"terminated; a run in the making is unfinished" in errors
