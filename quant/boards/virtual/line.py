"""The line of the virtual board: its pace, what goes wrong on it, and the loop between terminal and firmware."""

from __future__ import annotations

import math
import os
import select
import time
from collections import deque
from collections.abc import Callable

from quant.boards.pty_line import PtyLine
from quant.boards.virtual.faults import FaultyLine
from quant.boards.virtual.firmware import Firmware

BITS_A_BYTE = 10
"""On a serial line with 8N1: start, eight, stop."""
_BACKLOG = 65536
"""Bytes under way before the loop stops to read; then whoever writes has to wait."""
_CHUNK = 65536
_TICK = 0.001
"""Seconds between looks at a paced line: 92 bytes at 921600 baud."""


class Wire:
    """One direction: bytes come out at the line's pace, after whatever the faults make of them.

    A byte that is sent at ``now`` is through one byte's time after the byte before it and after ``now``, so a line
    that is never left empty carries exactly its rate, however seldom anybody looks.

    Args:
        faults: what goes wrong.
        baud: bits per second; None: bytes come out at once.
    """

    def __init__(self, faults: FaultyLine, baud: int | None) -> None:
        self.faults = faults
        self._byte_seconds = BITS_A_BYTE / baud if baud else 0.0
        self._free = -math.inf
        self._under_way: deque[tuple[float, bytes]] = deque()
        self.waiting = 0
        """Bytes under way."""

    @property
    def due(self) -> float:
        """When the next byte is through; infinite if none is under way."""
        return self._under_way[0][0] + self._byte_seconds if self._under_way else math.inf

    def send(self, data: bytes, now: float) -> None:
        """Puts bytes on the line."""
        for stretch in self.faults.carry(data):
            start = max(now, self._free) + stretch.wait
            self._under_way.append((start, stretch.data))
            self._free = start + len(stretch.data) * self._byte_seconds
            self.waiting += len(stretch.data)

    def arrived(self, now: float) -> bytes:
        """Takes the bytes that are through."""
        out = bytearray()
        while self._under_way and self._under_way[0][0] <= now:
            start, data = self._under_way.popleft()
            through = int((now - start) / self._byte_seconds) if self._byte_seconds else len(data)
            out += data[:through]
            if through < len(data):
                self._under_way.appendleft((start + through * self._byte_seconds, data[through:]))
                break
        self.waiting -= len(out)
        return bytes(out)

    def clear(self) -> None:
        """Loses what is under way."""
        self._under_way.clear()
        self.waiting = 0


class LineServer:
    """Carries bytes between a pseudo-terminal and a firmware.

    Args:
        line: its device end is this server's, and made non-blocking.
        firmware: what answers.
        to_board, to_host: the two directions.
    """

    def __init__(self, line: PtyLine, firmware: Firmware, to_board: Wire, to_host: Wire) -> None:
        os.set_blocking(line.device_end, False)
        self._terminal = line.device_end
        self._firmware = firmware
        self._to_board = to_board
        self._to_host = to_host
        # Before anybody is told of the port: whoever opens it later finds it done, not half done.
        self._out = bytearray(firmware.greeting())
        self._flush()

    def run(self, control: int, command: Callable[[], bool]) -> None:
        """Serves until ``command``, called whenever the descriptor ``control`` is readable, gives False."""
        while True:
            readable = [control]
            # A host that does not read is not listened to either; else replies would pile up here.
            if self._to_board.waiting + self._to_host.waiting + len(self._out) < _BACKLOG:
                readable.append(self._terminal)
            writable = [self._terminal] if self._out else []
            ready, _, _ = select.select(readable, writable, [], self._patience())
            if control in ready and not command():
                return
            self._step(self._terminal in ready)

    def _patience(self) -> float | None:
        due = min(self._firmware.due, self._to_board.due, self._to_host.due)
        return None if due == math.inf else max(due - time.monotonic(), _TICK)

    def _step(self, readable: bool) -> None:
        now = time.monotonic()
        self._to_host.send(self._firmware.wake(now), now)
        if readable:
            self._to_board.send(_read(self._terminal), now)
        self._to_host.send(self._firmware.receive(self._to_board.arrived(now), now), now)
        self._out += self._to_host.arrived(now)
        self._flush()

    def _flush(self) -> None:
        if self._out:
            del self._out[: _write(self._terminal, self._out)]

    def power_cycle(self) -> None:
        """The board starts anew, and what was on the line is lost."""
        self._to_board.clear()
        now = time.monotonic()
        self._to_host.send(self._firmware.power_cycle(now), now)


def _read(descriptor: int) -> bytes:
    """What has come, if anything has."""
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return b""


def _write(descriptor: int, data: bytearray) -> int:
    """How many of these bytes the line took; 0 where the host does not read."""
    try:
        return os.write(descriptor, data)
    except BlockingIOError:
        return 0
