"""The virtual board at work: one line, one firmware, and a channel to whoever opened it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

from quant.boards.pty_line import PtyLine, open_pty_line
from quant.boards.virtual.faults import FaultyLine, LineFault
from quant.boards.virtual.firmware import Firmware, VirtualOptions
from quant.boards.virtual.line import LineServer, Wire
from quant.errors import QuantError


@dataclass(frozen=True)
class FaultCounts:
    """Faults injected into the line since the board was opened, by direction."""

    to_board: Mapping[LineFault, int]
    to_host: Mapping[LineFault, int]

    @property
    def total(self) -> int:
        """Of all kinds, both ways."""
        return sum(self.to_board.values()) + sum(self.to_host.values())


@dataclass(frozen=True)
class Start:
    """Brings the board up; answered with the path of its port. Comes once, first."""

    pack: bytes
    options: VirtualOptions


@dataclass(frozen=True)
class Flash:
    """Writes the models partition and restarts."""

    pack: bytes


@dataclass(frozen=True)
class PowerCycle:
    """Takes the power away and gives it back."""


@dataclass(frozen=True)
class CountFaults:
    """Answered with :class:`FaultCounts`."""


Request = Start | Flash | PowerCycle | CountFaults


class _Service:
    """The board's side of the channel."""

    def __init__(self, channel: Connection, start: Start, line: PtyLine) -> None:
        faults, baud = start.options.faults, start.options.baud
        self._channel = channel
        self._lines = [
            FaultyLine(rates, (faults.seed, direction), faults.first_byte)
            for direction, rates in enumerate((faults.to_board, faults.to_host))
        ]
        self._firmware = Firmware(start.pack, start.options)
        to_board, to_host = (Wire(line, baud) for line in self._lines)
        self._server = LineServer(line, self._firmware, to_board, to_host)

    def run(self) -> None:
        self._server.run(self._channel.fileno(), self._command)

    def _command(self) -> bool:
        try:
            request: Request = self._channel.recv()
        except (EOFError, ConnectionError):
            return False
        try:
            answer = self._obey(request)
        except QuantError as error:
            answer = error
        self._channel.send(answer)
        return True

    def _obey(self, request: Request) -> object:
        if isinstance(request, CountFaults):
            return FaultCounts(*(dict(line.counts) for line in self._lines))
        if isinstance(request, Flash):
            self._firmware.flash(request.pack)
        self._server.power_cycle()
        return None


def serve(channel: Connection) -> None:
    """Runs one board until the other end of the channel closes."""
    with channel:
        try:
            start: Start = channel.recv()
        except (EOFError, ConnectionError):
            return
        line = open_pty_line()
        try:
            service = _Service(channel, start, line)
        except QuantError as error:
            channel.send(error)
            return
        else:
            channel.send(line.path)
            service.run()
        finally:
            line.close()


def main() -> None:
    """A process of its own: the descriptor of the channel is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole terminal; who opened the board closes it
    serve(Connection(int(sys.argv[1])))
