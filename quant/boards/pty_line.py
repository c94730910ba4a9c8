"""A pseudo-terminal as a device's line: the host opens its path, the device has its other end."""

from __future__ import annotations

import os
import select
import tty
from dataclasses import dataclass


@dataclass(frozen=True)
class PtyLine:
    """Both ends of an open pseudo-terminal, carrying bytes as they are.

    Attributes:
        device_end: descriptor of the device's end.
        host_end: descriptor of the host's, kept open so that the device sees no hang-up when no host has the port.
        path: what a host opens.
    """

    device_end: int
    host_end: int
    path: str

    def drop_input(self) -> None:
        """Throws away what hosts sent and no device read, as a chip in reset does."""
        while select.select([self.device_end], [], [], 0)[0]:
            os.read(self.device_end, 65536)

    def close(self) -> None:
        """Closes both ends: a host that still has the port sees it hang up."""
        os.close(self.device_end)
        os.close(self.host_end)


def open_pty_line() -> PtyLine:
    """A new line; bytes are neither changed nor echoed."""
    device_end, host_end = os.openpty()
    tty.setraw(host_end)
    return PtyLine(device_end, host_end, os.ttyname(host_end))
