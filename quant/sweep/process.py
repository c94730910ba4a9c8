"""One seed's run, in a process of its own that a Dask worker supervises.

A worker of an existing cluster may have several threads, other tasks and a TensorFlow that was started otherwise. A
fresh process gives every run the same start, and so the same bytes as `quant run`; it can be ended when its task is
cancelled, and it ends by itself when its worker dies. Supervisor and process talk in pickles over pipes:

    to the process      Job, inputs; the pipe stays open for as long as the result is wanted
    from the process    Step..., then Files or Failure
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from quant.errors import QuantError
from quant.sweep.jobs import Job, collect, unpacked

POLL_SECONDS = 0.5
"""Between two looks whether the result is still wanted, and between two reports of the same step."""
TIDY_SECONDS = 5
"""For a process that is not wanted any more."""
LAST_WORDS = 2000
"""Characters kept of what a process that died wrote to standard error."""
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Step:
    """How far a run is: ``done`` of ``total`` of a step; both 0 when it starts, equal when it ends."""

    name: str
    done: int
    total: int


@dataclass(frozen=True)
class Files:
    """A finished run: content by path within it."""

    content: dict[str, bytes]


@dataclass(frozen=True)
class Failure:
    """Why a run could not be made, in words; for a fault of the program its traceback."""

    words: str


class ProcessDiedError(RuntimeError):
    """The process of a run ended without a word: killed, or out of memory. Another try may succeed."""


def run_job(
    job: Job, inputs: bytes, *, told: Callable[[Step], None], wanted: Callable[[], bool] = lambda: True
) -> Files | Failure:
    """Makes a run in a process of its own.

    Args:
        job: what is asked for.
        inputs: `Sweep.inputs`.
        told: called with every step.
        wanted: asked now and then; when it says no, the process is ended.

    Raises:
        ProcessDiedError: it ended without a result.
    """
    # Not with -m: the classes of the messages would be those of __main__.
    command = [sys.executable, "-c", "from quant.sweep.process import main; main()"]
    with (
        tempfile.TemporaryFile() as errors,
        # A session of its own: Ctrl-C at the terminal is for the command, which then ends its workers.
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                _send(process.stdin, (job, inputs))
            for message in _messages(process.stdout, wanted):
                if not isinstance(message, Step):
                    assert isinstance(message, (Files, Failure))
                    return message
                told(message)
        finally:
            _end(process)
        errors.seek(0)
        words = errors.read().decode(errors="replace").strip()[-LAST_WORDS:]
        raise ProcessDiedError(f"the process of seed {job.seed} ended with code {process.returncode}. {words}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Lets the process tidy up, which the end of its input asks for, or kills it."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(TIDY_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _messages(stream: IO[bytes], wanted: Callable[[], bool]) -> Iterator[Any]:
    """What the process says, until it ends or is wanted no longer."""
    while True:
        while not _readable(stream):
            if not wanted():
                return
        message = _receive(stream)
        if message is None:
            return
        yield message


def _readable(stream: IO[bytes]) -> bool:
    return bool(select.select([stream], [], [], POLL_SECONDS)[0])


def _send(stream: IO[bytes], message: object) -> None:
    content = pickle.dumps(message, protocol=5)
    stream.write(_LENGTH.pack(len(content)) + content)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    """The next message; None where the other end has closed."""
    head = _read(stream, _LENGTH.size)
    content = head and _read(stream, _LENGTH.unpack(head)[0])
    return pickle.loads(content) if content else None


def _read(stream: IO[bytes], size: int) -> bytes:
    """Exactly so many bytes by the descriptor itself, past any buffer; none where the other end has closed."""
    parts, missing = [], size
    while missing:
        part = os.read(stream.fileno(), min(missing, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def main() -> None:
    """The process: reads a job, makes its run in a temporary folder, and sends its files."""
    # What native code prints must not come between the messages.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    job, inputs = _receive(sys.stdin.buffer)
    folder = Path(tempfile.mkdtemp(prefix="quant-sweep-"))
    threading.Thread(target=_end_with_supervisor, args=(folder,), daemon=True).start()
    try:
        _send(out, _make(job, inputs, folder / "run", lambda step: _send(out, step)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    # Taking TensorFlow down in order would take seconds, for nothing.
    os._exit(0)


def _end_with_supervisor(folder: Path) -> None:
    """Nobody waits for the result of a worker that is gone."""
    while os.read(0, 1 << 16):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _make(job: Job, inputs: bytes, folder: Path, told: Callable[[Step], None]) -> Files | Failure:
    from quant.boards.virtual.board import VirtualBoard
    from quant.runs.job import run_all

    try:
        run_all(
            lambda: unpacked(inputs),
            folder,
            job.settings,
            job.limits,
            board=VirtualBoard(),
            tracks=job.tracks,
            workers=1,
            watch=_watch(told),
        )
        return Files(collect(folder))
    except QuantError as error:
        return Failure(str(error))
    except Exception:
        return Failure(traceback.format_exc())


def _watch(told: Callable[[Step], None]) -> Any:
    """Tells of each step's begin and end, and in between not more often than anybody looks."""
    from quant.runs.job import Watch

    last = [0.0]

    def advanced(name: str, done: int, total: int) -> None:
        if time.monotonic() - last[0] > POLL_SECONDS:
            last[0] = time.monotonic()
            told(Step(name, done, total))

    return Watch(
        started=lambda name: told(Step(name, 0, 0)),
        advanced=advanced,
        finished=lambda name, seconds: told(Step(name, 1, 1)),
    )
