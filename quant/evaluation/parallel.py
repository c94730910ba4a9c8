"""Tasks over a pool of processes that ends at once: on an interrupt, on an error, and when one of them dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from quant.errors import QuantError

Context = TypeVar("Context")
Task = TypeVar("Task")
Result = TypeVar("Result")

_worker_context: Any = None
"""A worker's copy of the context, sent once and not with every task."""


def available_cpus() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_tasks(
    function: Callable[[Context, Task], Result],
    context: Context,
    tasks: Sequence[Task],
    *,
    workers: int | None = None,
    done: Callable[[int], None] = lambda index: None,
) -> list[Result]:
    """``[function(context, task) for task in tasks]``, computed with one BLAS thread a process.

    Processes are spawned, not forked: a fork of a process in which TensorFlow has started threads may hang.

    Args:
        function: a module's function; it, the context, tasks and results are pickled.
        context: what all tasks share.
        tasks: independent of each other.
        workers: processes; 1 computes in this one. None: one for each processor.
        done: called in this process with a task's index when its result is there, in order of completion.

    Raises:
        QuantError: a worker process died.
        Exception: whatever ``function`` raised first. All workers have been ended by then.
    """
    workers = min(available_cpus() if workers is None else workers, len(tasks))
    if workers <= 1:
        return _map_here(function, context, tasks, done)
    results: dict[int, Result] = {}
    with _pool(workers, context) as pool:
        futures = {pool.submit(_call, function, task): index for index, task in enumerate(tasks)}
        for future in as_completed(futures):
            index = futures[future]
            try:
                results[index] = future.result()
            except BrokenProcessPool as error:
                raise QuantError(
                    "a worker process ended before its work was done",
                    hint="was it killed for want of memory? One worker computes in this process and shows the cause",
                ) from error
            done(index)
    return [results[index] for index in range(len(tasks))]


def _map_here(
    function: Callable[[Context, Task], Result], context: Context, tasks: Sequence[Task], done: Callable[[int], None]
) -> list[Result]:
    results = []
    with threadpool_limits(1):
        for index, task in enumerate(tasks):
            results.append(function(context, task))
            done(index)
    return results


@contextmanager
def _pool(workers: int, context: object) -> Iterator[ProcessPoolExecutor]:
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker, initargs=(context,))
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        # shutdown() alone would wait for the tasks under way.
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise


def _start_worker(context: object) -> None:
    global _worker_context  # noqa: PLW0603 - set once, before the first task
    # The terminal sends Ctrl-C to every process of the group: the parent alone answers it, and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker_context = context


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, and they would wait for its tasks for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(function: Callable[[Any, Any], Any], task: object) -> Any:
    # Not in _start_worker: a BLAS that comes with the function's module is loaded only now.
    with threadpool_limits(1):
        return function(_worker_context, task)
