"""The virtual board: the firmware's own core behind a pseudo-terminal, with Google's TFLite-Micro as its engine.

What a chip runs between its serial line and its models is compiled for the host (``esp_idf_app/virtual_board``), so
parser, dispatcher, pooling and quantization are the firmware's; the ports around them are simulated here. Its times
come from :mod:`~quant.boards.virtual.time_model` and its evidence is ``simulated``.

It runs in a process of its own unless asked not to: then a hang or a crash of the board stops nobody else, a busy host
does not slow the board, and the two ends of one line share no interpreter lock.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from multiprocessing import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quant.boards.board import Board, Embedded, Prepared, Work
from quant.boards.virtual.firmware import VirtualOptions
from quant.boards.virtual.service import CountFaults, FaultCounts, Flash, PowerCycle, Request, Start, serve
from quant.files import sha256
from quant.wire.protocol import DEFAULT_BAUD

if TYPE_CHECKING:
    from serial import SerialBase

__all__ = ["FaultCounts", "VirtualBoard", "VirtualOptions"]

_START_SECONDS = 60.0
"""A loaded machine takes long to import NumPy and TFLite-Micro."""
_MAIN = "from quant.boards.virtual.service import main; main()"
"""Not ``-m``: the module would be there twice, and with it the classes that go over the channel."""


class VirtualBoard(Board):
    """A board that is always there.

    Args:
        pack: what its models partition holds; empty: nothing was flashed yet.
        options: how it behaves.
        process: whether it gets a process of its own, or a thread of this one.
    """

    def __init__(self, pack: bytes = b"", options: VirtualOptions | None = None, *, process: bool = True) -> None:
        self.name = "virtual"
        self.chip: str | None = "virtual"
        self.options = options or VirtualOptions()
        self.baud = self.options.baud or DEFAULT_BAUD
        self._pack = pack
        self._process = process
        self._host: _Host | None = None
        self._port = ""

    @property
    def port(self) -> str:
        """What pyserial opens; a RuntimeError while the board is not open."""
        self._opened()
        return self._port

    def open(self) -> None:
        """Starts the board.

        Raises:
            InputError: the pack does not fit, or a fault cannot be had with it.
        """
        if self._host is not None:
            return
        self._host = _ProcessHost() if self._process else _ThreadHost()
        try:
            self._port = self._ask(Start(self._pack, self.options))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends it; the second time it does nothing."""
        host, self._host = self._host, None
        if host is not None:
            host.end()

    def prepare(self, pack: bytes) -> Prepared:
        """Makes sure that the open board has exactly this pack; its image is always that of this version.

        Raises:
            InputError: the pack does not fit.
        """
        start = time.monotonic()
        if pack == self._pack:
            return Prepared(Work.NOTHING, "it has these models", time.monotonic() - start)
        why = "it had other models" if self._pack else "it had no models"
        self._ask(Flash(pack))
        self._pack = pack
        return Prepared(Work.MODELS, why, time.monotonic() - start)

    def hard_reset(self, line: SerialBase | None = None) -> None:
        """Restarts it, as a reset button does; the port stays."""
        self._ask(PowerCycle())

    def power_cycle(self) -> None:
        """Takes its power away and gives it back; the port stays, as a USB bridge with its own supply does."""
        self._ask(PowerCycle())

    def embedded(self) -> Embedded:
        """How pytest-embedded reaches it: as any serial port."""
        return Embedded("serial", {"port": self.port, "baud": str(self.baud)})

    def image_sha256(self) -> str:
        """Hash of the firmware's core, as it is compiled for this machine."""
        from quant.boards.virtual import _virtual_board

        return sha256(Path(_virtual_board.__file__).read_bytes())

    def fault_counts(self) -> FaultCounts:
        """Faults injected into the line so far."""
        counts: FaultCounts = self._ask(CountFaults())
        return counts

    def _opened(self) -> _Host:
        if self._host is None:
            raise RuntimeError("the virtual board is not open")
        return self._host

    def _ask(self, request: Request) -> Any:
        channel = self._opened().channel
        try:
            channel.send(request)
            if not channel.poll(_START_SECONDS):
                raise RuntimeError("the virtual board does not answer")
            answer = channel.recv()
        except (EOFError, ConnectionError) as error:
            raise RuntimeError("the virtual board has ended by itself") from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def make(build_dir: Path | None, app: Path) -> VirtualBoard:
    """The board that ``--board virtual`` means; it needs no build."""
    return VirtualBoard()


class _ThreadHost:
    """Runs the board in a thread."""

    def __init__(self) -> None:
        self.channel, far = Pipe()
        self._thread = threading.Thread(target=serve, args=(far,), name="virtual board", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.channel.close()
        self._thread.join()


class _ProcessHost:
    """Runs the board in a process, which ends when this one does: the channel between them closes."""

    def __init__(self) -> None:
        self.channel, far = Pipe()
        with far:
            command = [sys.executable, "-c", _MAIN, str(far.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[far.fileno()], stdin=subprocess.DEVNULL)

    def end(self) -> None:
        self.channel.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_Host = _ThreadHost | _ProcessHost
