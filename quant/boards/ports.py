"""The serial ports of this machine that a development board may be behind."""

from __future__ import annotations

import os
from dataclasses import dataclass

BRIDGES = {
    0x303A: "Espressif USB",
    0x10C4: "Silicon Labs CP210x",
    0x1A86: "WCH CH34x or CH910x",
    0x0403: "FTDI",
}
"""USB vendors of development boards: the chips' own USB and the usual bridges."""


@dataclass(frozen=True)
class Plugged:
    """A serial port a development board may be behind.

    Attributes:
        port: its device.
        bridge: who made its USB side.
        description: the operating system's words.
        serial_number: of the USB device, or "".
    """

    port: str
    bridge: str
    description: str
    serial_number: str

    def __str__(self) -> str:
        number = f", serial {self.serial_number}" if self.serial_number else ""
        return f"{self.port} ({self.bridge}: {self.description}{number})"


def plugged_in() -> tuple[Plugged, ...]:
    """The serial ports of USB devices that development boards use, by name."""
    from serial.tools import list_ports

    return tuple(
        sorted(
            (
                Plugged(found.device, BRIDGES[found.vid], found.description or "?", found.serial_number or "")
                for found in list_ports.comports()
                if found.vid in BRIDGES
            ),
            key=lambda plugged: plugged.port,
        )
    )


def usb_vendor(port: str) -> int | None:
    """The USB vendor behind a port, or None where it is no USB device of this machine."""
    from serial.tools import list_ports

    real = os.path.realpath(port)
    return next((found.vid for found in list_ports.comports() if os.path.realpath(found.device) == real), None)
