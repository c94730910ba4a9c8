"""One owner at a time for each port, between processes.

The lock is the kernel's (``flock`` on a file of the port's own), so it is free the moment its owner dies, however it
dies. The file says who has it; what it says is for people only and never decides anything. A descriptor is not
inherited, so a program that the owner starts does not keep the port.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from quant.errors import InputError

_POLL_SECONDS = 0.1


class PortLock:
    """The exclusive right to a port.

    Args:
        port: a device's path or any pyserial URL. Paths that lead to the same device are one port.
        wait: seconds to wait for it.
        folder: where the locks' files are; one for all users of the machine.
    """

    def __init__(self, port: str, *, wait: float = 0.0, folder: Path | None = None) -> None:
        self.port = port
        self.wait = wait
        self.path = (folder or Path(tempfile.gettempdir())) / f"quant-{key(port)}.lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the port, waiting up to ``wait`` seconds.

        Raises:
            InputError: somebody else still has it; says who.
        """
        descriptor = _open(self.path)
        try:
            self._take(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_owner()).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _take(self, descriptor: int) -> None:
        deadline = time.monotonic() + self.wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(_POLL_SECONDS)
                    continue
                raise InputError(
                    f"the port is in use by {_holder(descriptor)}",
                    where=self.port,
                    expected="a port nobody else uses" + (f" within {self.wait:g} s" if self.wait else ""),
                    hint="wait for it to end, or name another board",
                ) from None
            return

    def release(self) -> None:
        """Gives the port back; the second time it does nothing. The file stays: removing it would race."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            # Closing alone would leave it to a child that has not come to closing its copy yet.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def key(port: str) -> str:
    """A file name's part that is equal for names of one port: links to a device are followed, URLs taken as written."""
    same = port if "://" in port else os.path.realpath(port)
    readable = "".join(letter if letter.isalnum() else "-" for letter in same)[-40:].strip("-")
    return f"{readable}-{hashlib.sha256(same.encode()).hexdigest()[:12]}"


def _open(path: Path) -> int:
    try:
        # Not created by O_CREAT on a file that exists: a sticky folder refuses that for another user's file.
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"the lock's file cannot be opened: {error.strerror}", where=path) from error
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    with contextlib.suppress(PermissionError):  # another user was faster: it is theirs to open up
        os.fchmod(descriptor, 0o666)
    return descriptor


def _owner() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "command": " ".join(sys.argv),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _holder(descriptor: int) -> str:
    try:
        owner = json.loads(os.pread(descriptor, 65536, 0))
        return f"process {owner['pid']} ({owner['command']}) since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
