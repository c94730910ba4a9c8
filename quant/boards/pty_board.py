"""What boards have in common that are a program of this machine: a pseudo-terminal as their port, and a folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

from quant.boards.board import Board, Embedded
from quant.boards.pty_line import PtyLine, open_pty_line
from quant.wire.protocol import DEFAULT_BAUD


class PtyBoard(Board):
    """A board whose line and files are there while it is open; a subclass has the program.

    Args:
        name: it was asked for by.
        chip: its kind.
    """

    def __init__(self, name: str, chip: str) -> None:
        self.name = name
        self.chip: str | None = chip
        self.baud = DEFAULT_BAUD
        self._line: PtyLine | None = None
        self._files: tempfile.TemporaryDirectory[str] | None = None

    @property
    def port(self) -> str:
        """The pseudo-terminal's path."""
        return self._device_line.path

    def embedded(self) -> Embedded:
        """Pytest-embedded's serial service on the pseudo-terminal.

        Its own qemu service would start another QEMU, whose line is QEMU's standard output and takes whole lines only.
        """
        return Embedded("serial", {"port": self.port, "baud": str(self.baud)})

    @property
    def _device_line(self) -> PtyLine:
        if self._line is None:
            raise RuntimeError("the board is not open")
        return self._line

    @property
    def _folder(self) -> Path:
        if self._files is None:
            raise RuntimeError("the board is not open")
        return Path(self._files.name)

    def _open_line(self) -> None:
        self._files = tempfile.TemporaryDirectory(prefix=f"quant-{self.name}-")
        self._line = open_pty_line()

    def _close_line(self) -> None:
        if self._line is not None:
            self._line.close()
        if self._files is not None:
            self._files.cleanup()
        self._line = self._files = None
