"""Lines to a board: any port pyserial opens, and the port that pytest-embedded holds."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from typing import Any, Protocol

import serial

from quant.errors import LinkError
from quant.wire.protocol import DEFAULT_BAUD

_CHUNK = 65_536
_POLL = 0.02
"""Seconds of one read where the port cannot be waited for."""
_STUCK = 5.0
"""Seconds a port may take nothing before a write gives up."""


class PortStream:
    """Reads and writes an open pyserial port.

    Where the port is a file descriptor it is used directly: it is waited for without polling, and while a write waits
    for room, what arrives is read. A board that cannot write its replies stops reading, so the one waits for the other
    else.

    Args:
        port: open; its settings are left alone.
        name: for errors.
    """

    def __init__(self, port: serial.Serial, name: str) -> None:
        self._port = port
        self._name = name
        self._arrived = bytearray()
        self._descriptor = _descriptor(port)

    @property
    def name(self) -> str:
        """What to call it in an error."""
        return self._name

    def read(self, timeout: float) -> bytes:
        """What has come; see :class:`quant.wire.link.Stream`."""
        if self._arrived:
            data = bytes(self._arrived)
            self._arrived.clear()
            return data
        try:
            if self._descriptor is None:
                return self._poll(timeout)
            ready, _, _ = select.select([self._descriptor], [], [], timeout)
            return self._read_now() if ready else b""
        except (OSError, ValueError, TypeError) as error:  # pyserial's for a port that went away or was closed
            raise self._gone(error) from error

    def write(self, data: bytes) -> None:
        """Writes all of it; see :class:`quant.wire.link.Stream`."""
        try:
            if self._descriptor is None:
                self._port.write(data)
                return
            left, until = memoryview(data), time.monotonic() + _STUCK
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                    until = time.monotonic() + _STUCK
                except BlockingIOError:
                    self._make_room(self._descriptor, until)
        except (OSError, ValueError, TypeError) as error:
            raise self._gone(error) from error

    def _make_room(self, descriptor: int, until: float) -> None:
        readable, _, _ = select.select([descriptor], [descriptor], [], max(until - time.monotonic(), 0.0))
        if readable:
            self._arrived += self._read_now()
        if time.monotonic() > until:
            raise LinkError(
                f"the port has taken no byte for {_STUCK:g} s",
                where=self._name,
                hint="is something at its other end, and is hardware flow control off?",
            )

    def _read_now(self) -> bytes:
        assert self._descriptor is not None
        data = os.read(self._descriptor, _CHUNK)
        if not data:
            raise OSError(errno.EIO, "the port was closed at its other end")
        return data

    def _poll(self, timeout: float) -> bytes:
        until = time.monotonic() + timeout
        while not (data := self._port.read(self._port.in_waiting or 1)) and time.monotonic() < until:
            pass
        found: bytes = data
        return found

    def _gone(self, error: Exception) -> LinkError:
        return LinkError(
            f"the port is gone: {error}", where=self._name, hint="was the cable pulled, or did the board's USB restart?"
        )


class PyserialStream(PortStream):
    """Opens a port by pyserial's name: ``/dev/...``, ``COM3``, ``socket://host:port``, ``rfc2217://host:port``.

    A port of this machine is opened for this process alone. Opening and closing it does not reset the board.

    Args:
        url: the port.
        baud: of the line; pseudo-terminals and sockets do not care.

    Raises:
        LinkError: it is missing, in use, or not ours to open.
    """

    def __init__(self, url: str, baud: int = DEFAULT_BAUD) -> None:
        self._url = url
        self._baud = baud
        super().__init__(_open(url, baud), url)

    def reopen(self) -> None:
        """Closes the port and opens it again; see :class:`quant.wire.link.Stream`."""
        self.close()
        self._arrived.clear()
        self._port = _open(self._url, self._baud)
        self._descriptor = _descriptor(self._port)

    def close(self) -> None:
        """Gives the port back."""
        self._port.close()


class EmbeddedSerial(Protocol):
    """What is used of ``pytest_embedded_serial.Serial``."""

    proc: Any
    port: Any
    _q: Any

    def start_redirect_thread(self) -> None:
        """Starts the thread that copies the port into the test's log."""

    def stop_redirect_thread(self) -> bool:
        """Stops it; whether it ran."""


class PytestEmbeddedStream(PortStream):
    """Borrows the port that pytest-embedded has open, until it is closed.

    The thread that copies the port into the log, where ``dut.expect`` looks, is stopped meanwhile: it reads every 50 ms
    and takes every byte. Give the link :meth:`log`, and the text between frames gets there all the same.

    Args:
        embedded: ``dut.serial``.
    """

    def __init__(self, embedded: EmbeddedSerial) -> None:
        self._embedded = embedded
        self._restart = embedded.stop_redirect_thread()
        super().__init__(embedded.proc, str(embedded.port))

    def log(self, text: bytes) -> None:
        """Hands bytes to pytest-embedded's log."""
        self._embedded._q.put(text)

    def reopen(self) -> None:
        """Closes the port and opens it again; see :class:`quant.wire.link.Stream`."""
        self._arrived.clear()
        self._port.close()
        try:
            self._port.open()
        except (OSError, ValueError) as error:
            raise _refused(self.name, error) from error
        self._descriptor = _descriptor(self._port)

    def close(self) -> None:
        """Lets pytest-embedded read the port again, if it did before."""
        if self._restart:
            self._restart = False
            self._embedded.start_redirect_thread()


def _descriptor(port: serial.Serial) -> int | None:
    """The file descriptor of a port that select can wait for."""
    if os.name != "posix":
        return None
    try:
        return int(port.fileno())
    except (OSError, AttributeError):  # io.UnsupportedOperation: rfc2217:// and the like
        return None


def _open(url: str, baud: int) -> serial.Serial:
    try:
        port = serial.serial_for_url(url, do_not_open=True, baudrate=baud, timeout=_POLL, exclusive=True)
        # Development boards wire DTR and RTS to reset: RTS without DTR holds the chip in reset, DTR without RTS selects
        # the bootloader for the next one. Linux raises both on opening, so RTS is let go of first, then DTR.
        port.dtr, port.rts = True, False
        port.open()
    except (OSError, ValueError) as error:
        raise _refused(url, error) from error
    with contextlib.suppress(OSError, ValueError):  # a pseudo-terminal has neither
        port.dtr = False
    with contextlib.suppress(OSError, ValueError, AttributeError, NotImplementedError):
        port.set_low_latency_mode(True)  # USB bridges collect bytes for up to 16 ms else
    return port


def _refused(url: str, error: Exception) -> LinkError:
    code = getattr(error, "errno", None)
    if code in {errno.ENOENT, errno.ENXIO, errno.ENODEV}:
        what, hint = (
            "there is no such port",
            "is the board plugged in? `python -m serial.tools.list_ports -v` lists ports",
        )
    elif code in {errno.EACCES, errno.EPERM}:
        what = "no permission to open the port"
        hint = "be a member of the group that owns it (dialout or uucp), and log in anew"
    elif code in {errno.EBUSY, errno.EAGAIN}:
        what, hint = "the port is in use", "close the monitor, or whatever else has it open (`fuser -v` tells)"
    else:
        what, hint = f"the port cannot be opened: {error}", "a path, or socket://host:port, or rfc2217://host:port"
    return LinkError(what, where=url, hint=hint)
