"""One owner at a time for each port, between processes (:mod:`quant.locking`)."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from quant.errors import InputError
from quant.locking import FileLock


class PortLock(FileLock):
    """The exclusive right to a port.

    Args:
        port: a device's path or any pyserial URL. Paths that lead to the same device are one port.
        wait: seconds to wait for it.
        folder: where the locks' files are; one for all users of the machine. They stay.
    """

    def __init__(self, port: str, *, wait: float = 0.0, folder: Path | None = None) -> None:
        super().__init__((folder or Path(tempfile.gettempdir())) / f"quant-{key(port)}.lock", wait=wait)
        self.port = port

    def busy(self, holder: str) -> InputError:
        """Says who has the port."""
        return InputError(
            f"the port is in use by {holder}",
            where=self.port,
            expected="a port nobody else uses" + (f" within {self.wait:g} s" if self.wait else ""),
            hint="wait for it to end, or name another board",
        )


def key(port: str) -> str:
    """A file name's part that is equal for names of one port: links to a device are followed, URLs taken as written."""
    same = port if "://" in port else os.path.realpath(port)
    readable = "".join(letter if letter.isalnum() else "-" for letter in same)[-40:].strip("-")
    return f"{readable}-{hashlib.sha256(same.encode()).hexdigest()[:12]}"
