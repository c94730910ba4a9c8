"""The runs of a sweep as tasks of a Dask cluster: one of this machine's own, or one that is there already.

The client imports no TensorFlow and the workers need no folder in common with it: a task gets its sources as bytes and
gives back the files of its run. A task whose worker dies is given to another (Dask's ``allowed-failures``, 3).
"""

from __future__ import annotations

import logging
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

from quant.errors import InputError, QuantError
from quant.evaluation.parallel import available_cpus
from quant.runs.manifest import package_sha256, versions
from quant.sweep.jobs import Job
from quant.sweep.process import Failure, Files, Step, run_job

ANSWER_SECONDS = 10
"""How long a scheduler may take to answer."""
RETRIES = 2
"""Of a run whose process died, for want of memory perhaps."""
SOURCES = "quant sources"
INSTALL = "pip install -c constraints.txt -e '.[sweep]'"

Told = Callable[[int, Step], None]
"""Called with a seed and how far its run is."""


def check_installed() -> None:
    """Sees that Dask is there.

    Raises:
        InputError: it is not; says what to install.
    """
    from importlib.util import find_spec

    if find_spec("distributed") is None:
        raise InputError("a sweep needs Dask, which is not installed", where="quant sweep", hint=INSTALL)


def run_jobs(
    jobs: Sequence[Job],
    inputs: bytes,
    *,
    address: str | None = None,
    workers: int | None = None,
    told: Told = lambda seed, step: None,
) -> Iterator[tuple[Job, Files | Failure]]:
    """Makes the runs and yields each with its result, in the order in which they end.

    Whatever ends the iteration early cancels what is not done.

    Args:
        jobs: with different seeds.
        inputs: `Sweep.inputs`.
        address: of an existing cluster's scheduler, as ``tcp://host:8786``; None: processes of this machine.
        workers: processes of this machine; None: one for each processor.
        told: called from another thread.

    Raises:
        InputError: no scheduler answers there, it has no worker, or a worker's packages are not ours.
        QuantError: the cluster was lost.
    """
    if not jobs:
        return
    check_installed()
    from distributed import as_completed

    with _connected(address, min(workers or available_cpus(), len(jobs))) as client:
        if address is not None:
            check_workers(client, address)
        # Our own workers are of this installation; that somebody edits its sources meanwhile is no concern of theirs.
        wanted = {} if address is None else environment()
        topic = f"quant-sweep-{uuid.uuid4().hex}"
        client.subscribe_topic(topic, lambda event: _forward(event, told))
        # The inputs go with every task and are not shared: any worker may take any task, also after others have died.
        with warnings.catch_warnings():
            # For long drives Dask would have them sent once, which is what is not wanted.
            warnings.filterwarnings("ignore", "Sending large graph")
            futures = {
                client.submit(_task, job, inputs, topic, wanted, key=f"{topic}-{job.seed}", retries=RETRIES): job
                for job in jobs
            }
        try:
            for future in as_completed(futures, loop=client.loop, raise_errors=False):
                job = futures.pop(future)
                yield job, _result(future, address)
                future.release()
        except BaseException:
            client.cancel(list(futures), force=True)
            raise


def _result(future: Any, address: str | None) -> Files | Failure:
    if future.status == "finished":
        made: Files | Failure = future.result()
        return made
    if future.status == "error":
        error = future.exception()
        return Failure(f"{type(error).__name__}: {error}")
    raise QuantError(
        "the Dask cluster was lost",
        where=address or "the local cluster",
        hint="start the sweep again: seeds that are finished stay",
    )


@contextmanager
def _connected(address: str | None, workers: int) -> Iterator[Any]:
    """A client of the cluster, which ends with it where it is our own."""
    from dask import config
    from distributed import Client, LocalCluster

    # Its warnings are about connections that end when we end them; what matters reaches us as errors.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        where: Any = address
        if address is None:
            # No dashboard, but the scheduler opens a port for it all the same: a free one of this machine alone. And no
            # limit of memory: the runs have processes of their own, whose share Dask would not see.
            options = {
                "threads_per_worker": 1,
                "processes": True,
                "dashboard_address": "127.0.0.1:0",
                "memory_limit": 0,
            }
            # A profile of a thread that waits for a process costs two percent of a processor and says nothing.
            stack.enter_context(config.set({"distributed.worker.profile.enabled": False}))
            where = stack.enter_context(LocalCluster(n_workers=workers, silence_logs=logging.CRITICAL, **options))
        try:
            client = stack.enter_context(Client(where, timeout=ANSWER_SECONDS, set_as_default=False))
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(
                f"no Dask scheduler answers: {error}",
                where=address,
                expected="the address of a running one, as tcp://host:8786",
                hint="start one with dask scheduler, and workers with dask worker tcp://host:8786; or leave out --dask",
            ) from error
        yield client


def environment() -> dict[str, str]:
    """What has to be the same wherever a run of the sweep is made."""
    from importlib.metadata import version

    return versions() | {"distributed": version("distributed"), SOURCES: package_sha256()}


def check_workers(client: Any, address: str) -> None:
    """Sees that a cluster has workers, and that each has our packages.

    Raises:
        InputError: it has none, or one differs; names the worker and what differs.
    """
    try:
        found: Mapping[str, Any] = client.run(environment, on_error="return")
    except Exception as error:  # whatever unpickling on a worker without quant raises
        raise _unfit(address, f"its workers cannot run quant: {error}") from error
    if not found:
        hint = f"start some: dask worker {address} --nthreads 1"
        raise InputError("the cluster has no worker", where=address, expected="one or more", hint=hint)
    for worker, theirs in found.items():
        if isinstance(theirs, BaseException):
            raise _unfit(worker, f"the worker cannot run quant: {theirs}")
        difference = differing(environment(), theirs)
        if difference:
            raise _unfit(worker, f"the worker has other packages: {difference}")


def _unfit(where: str, what: str) -> InputError:
    return InputError(
        what,
        where=where,
        expected="the same quant, Python and packages on every worker: the bytes of a run depend on them",
        hint="install on it what is installed here, from the same checkout and constraints.txt",
    )


def differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """In which packages two environments differ, in words; empty if in none."""
    pairs = [(name, ours[name], theirs.get(name, "missing")) for name in ours if ours[name] != theirs.get(name)]
    return ", ".join(
        "the sources of quant" if name == SOURCES else f"{name} {other} for {own}" for name, own, other in pairs
    )


def _task(job: Job, inputs: bytes, topic: str, wanted: Mapping[str, str]) -> Files | Failure:
    """What a worker does: supervises the process of one run, and says how far it is."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()
    difference = differing(wanted, environment()) if wanted else ""
    if difference:  # a worker that came after the others had been looked at
        return Failure(f"the worker {worker.address} has other packages: {difference}")

    def still_wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state == "executing"

    return run_job(
        job,
        inputs,
        told=lambda step: worker.log_event(topic, {"seed": job.seed, **asdict(step)}),
        wanted=still_wanted,
    )


def _forward(event: tuple[float, Any], told: Told) -> None:
    message = dict(event[1])
    told(message.pop("seed"), Step(**{name: message[name] for name in ("name", "done", "total")}))
