"""A board made ready and connected, for a session: what the command line, the device stage and the tests work with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from quant.boards.board import Board, Prepared
from quant.boards.device import Device
from quant.wire.exchange_log import ExchangeLog
from quant.wire.link import Link
from quant.wire.streams import PyserialStream


class Bench:
    """Opens a board, makes sure that it runs a pack, and keeps one connection to it.

    Attributes:
        board: the board.
        pack: the models it was made to run; None: whatever it has.
        prepared: what had to be written for that; None where nothing was asked for.
        device: what answers.

    Args:
        board: not yet open.
        pack: see above.
        log: gets the text the board writes between frames.
        exchanges: file for a record of every exchange, JSON lines; None: none.

    Raises (when it is entered):
        InputError: the board is not there, is another one, or cannot be written.
        LinkError: it does not answer.
    """

    def __init__(
        self,
        board: Board,
        pack: bytes | None = None,
        *,
        log: Callable[[bytes], object] = lambda text: None,
        exchanges: Path | None = None,
    ) -> None:
        self.board = board
        self.pack = pack
        self.prepared: Prepared | None = None
        self.device: Device
        self._log = log
        self._exchanges = None if exchanges is None else ExchangeLog(exchanges)
        self._link: Link | None = None

    def __enter__(self) -> Self:
        self.board.open()
        try:
            if self.pack is not None:
                self.prepared = self.board.prepare(self.pack)
            stream = PyserialStream(self.board.port, self.board.baud)
            self._link = Link(stream, log=self._log, exchanges=self._exchanges)
            self.device = Device.open(self._link)
            self.board.check(self.device.identity)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @contextmanager
    def lent(self) -> Iterator[str]:
        """The port, free for somebody else; afterwards the connection is there again.

        Whoever had it may have restarted the board or changed its models: it gets the time of a boot to answer.

        Yields:
            the port, as pyserial opens it.
        """
        link = self._link
        assert link is not None
        link.close()
        try:
            yield self.board.port
        finally:
            link.reopen()
            Device.open(link)
            self.device.hello()
            self.device.models()

    def _end(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        self.board.close()
        if self._exchanges is not None:
            self._exchanges.close()
