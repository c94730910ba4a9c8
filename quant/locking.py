"""One owner at a time, between processes, of whatever a file stands for.

The lock is the kernel's (``flock``), so it is free the moment its owner dies, however it dies. The file says who has
it; what it says is for people only and never decides anything. A descriptor is not inherited, so a program that the
owner starts does not keep the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from quant.errors import InputError

_POLL_SECONDS = 0.1


class FileLock(ABC):
    """The exclusive right to what a file stands for; a subclass has the words for "somebody else has it".

    Args:
        path: the lock's file.
        wait: seconds to wait for it.
        keep: the file stays after the lock is given back; otherwise its owner removes it.
        mode: of the file.
    """

    def __init__(self, path: Path, *, wait: float = 0.0, keep: bool = True, mode: int = 0o666) -> None:
        self.path = path
        self.wait = wait
        self._keep = keep
        self._mode = mode
        self._descriptor: int | None = None

    @abstractmethod
    def busy(self, holder: str) -> InputError:
        """The error that says who has it."""

    def acquire(self) -> None:
        """Takes it, waiting up to ``wait`` seconds.

        Raises:
            InputError: somebody else still has it, or its file cannot be opened or locked.
        """
        deadline = time.monotonic() + self.wait
        while self._descriptor is None:
            descriptor = _open(self.path, self._mode)
            try:
                self._take(descriptor, deadline)
                if not self._is_current(descriptor):
                    # Its last owner has removed the file since it was opened: the lock of a file that is gone is none.
                    os.close(descriptor)
                    continue
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(_owner()).encode(), 0)
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor

    def _take(self, descriptor: int, deadline: float) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise self.busy(_holder(descriptor)) from None
            except OSError as error:
                # Some network file systems have no locks.
                raise InputError(
                    f"cannot be locked: {error.strerror}",
                    where=self.path,
                    expected="a file system that has locks",
                    hint="work in a folder on a disk of this machine",
                ) from error
            time.sleep(_POLL_SECONDS)

    def _is_current(self, descriptor: int) -> bool:
        if self._keep:
            return True
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        return False

    def release(self) -> None:
        """Gives it back; the second time it does nothing."""
        if self._descriptor is None:
            return
        if self._keep:
            os.ftruncate(self._descriptor, 0)
        else:
            self.path.unlink(missing_ok=True)
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


def _open(path: Path, mode: int) -> int:
    try:
        # Not created by O_CREAT on a file that exists: a sticky folder refuses that for another user's file.
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except OSError as error:
        raise _unusable(path, error) from error
    with contextlib.suppress(PermissionError):  # another user was faster: it is theirs to open up
        os.fchmod(descriptor, mode)
    return descriptor


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"the lock's file cannot be opened: {error.strerror}", where=path, expected="a file that can be written"
    )


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
