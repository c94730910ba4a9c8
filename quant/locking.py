"""One owner at a time, between processes, of whatever a file stands for.

The lock is the kernel's (``flock``, taken by :mod:`filelock`), so it is free the moment its owner dies, however it
dies. The file says who has it; what it says is for people only and never decides anything. A descriptor is not
inherited, so a program that the owner starts does not keep the lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from abc import ABC, abstractmethod
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from quant.errors import InputError

_POLL_SECONDS = 0.1
_LONGEST_OWNER = 65536


class FileLock(ABC):
    """The exclusive right to what a file stands for; a subclass has the words for "somebody else has it".

    Args:
        path: the lock's file.
        wait: seconds to wait for it.
        keep: the file stays after the lock is given back; otherwise its owner removes it.
        mode: of the file.
    """

    def __init__(self, path: Path, *, wait: float = 0.0, keep: bool = True, mode: int = 0o666) -> None:
        import filelock  # here: a word's completion needs no lock

        self.path = path
        self.wait = wait
        self._keep = keep
        self._descriptor = -1
        self._lock = filelock.FileLock(
            path,
            timeout=wait,
            mode=mode,
            thread_local=False,
            poll_interval=_POLL_SECONDS,
            # A file that is there for as long as the lock is held would outlive its owner.
            fallback_to_soft=False,
            on_acquired=self._say_who,
        )

    @abstractmethod
    def busy(self, holder: str) -> InputError:
        """The error that says who has it."""

    def acquire(self) -> None:
        """Takes it, waiting up to ``wait`` seconds.

        Raises:
            InputError: somebody else still has it, or its file cannot be opened or locked.
        """
        import filelock

        if self._lock.is_locked:
            return
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise self.busy(_holder(self.path)) from None
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> InputError:
        if error.filename is not None:  # of open(2); flock(2) knows a descriptor only
            return InputError(
                f"the lock's file cannot be opened: {error.strerror}",
                where=self.path,
                expected="a file that can be written",
            )
        # Some network file systems have no locks.
        return InputError(
            f"cannot be locked: {error.strerror}",
            where=self.path,
            expected="a file system that has locks",
            hint="work in a folder on a disk of this machine",
        )

    def _say_who(self, descriptor: int) -> None:
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # a full disk: nobody will read who it was
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_owner()).encode(), 0)

    def release(self) -> None:
        """Gives it back; the second time it does nothing."""
        if not self._lock.is_locked:
            return
        if self._keep:
            # Not by its path, where another may have put a link to a file of ours.
            os.ftruncate(self._descriptor, 0)
        else:
            # Whoever has opened it already finds that it has no name any more, and makes it anew.
            self.path.unlink(missing_ok=True)
        self._lock.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _owner() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "command": " ".join(sys.argv),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _holder(path: Path) -> str:
    try:
        with path.open("rb") as file:
            owner = json.loads(file.read(_LONGEST_OWNER))
        return f"process {owner['pid']} ({owner['command']}) since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
