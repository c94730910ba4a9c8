"""A pseudo-terminal as a device's line: the host opens its path, the device has its other end."""

from __future__ import annotations

import os
import tty
from types import TracebackType
from typing import Self

_CHUNK = 65536


class PseudoTerminal:
    """The device's end of a serial line: what a program writes to :attr:`port` is read here, and the other way round.

    The host's end stays open here too, so that the device sees no hang-up when no program has the port. Raw from the
    start: no echo, no line ends changed.

    Attributes:
        port: path that a host opens.
        device_end, host_end: descriptors. A process that is to be the device inherits the first; it blocks, unless
            somebody sets it not to.
    """

    def __init__(self) -> None:
        self.device_end, self.host_end = os.openpty()
        tty.setraw(self.host_end)
        self.port = os.ttyname(self.host_end)
        self._open = True

    def fileno(self) -> int:
        """The device's end, for ``select``."""
        return self.device_end

    def read(self) -> bytes:
        """What has come. If nothing has: waits, or gives nothing where the device's end does not block."""
        try:
            return os.read(self.device_end, _CHUNK)
        except BlockingIOError:
            return b""

    def write(self, data: bytes | bytearray) -> int:
        """How many of these bytes the line took; 0 where the host does not read and the device's end does not block."""
        try:
            return os.write(self.device_end, data)
        except BlockingIOError:
            return 0

    def drop_input(self) -> None:
        """Throws away what hosts sent and no device has read, as a chip in reset does."""
        blocking = os.get_blocking(self.device_end)
        os.set_blocking(self.device_end, False)
        try:
            while self.read():
                pass
        finally:
            os.set_blocking(self.device_end, blocking)

    def close(self) -> None:
        """Closes both ends: a host that still has the port sees it hang up. The second time it does nothing."""
        if self._open:
            self._open = False
            os.close(self.device_end)
            os.close(self.host_end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
