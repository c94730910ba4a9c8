"""A record of everything that went over a link, as JSON lines."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from quant.errors import InputError
from quant.wire.protocol import ERROR, REPLY, Message

Direction = Literal["out", "in"]


def type_name(kind: int) -> str:
    """What a frame's type is called: ``DECIDE``, ``DECIDE reply``, ``ERROR``, or its number."""
    if kind == ERROR:
        return "ERROR"
    try:
        return Message(kind & ~REPLY).name + (" reply" if kind & REPLY else "")
    except ValueError:
        return f"{kind:#04x}"


class ExchangeLog:
    """Writes one object a line.

    Its keys: t (seconds of the monotonic clock), direction, type, sequence, payload (hexadecimal) and outcome
    (``sent``, ``repeat 1``, ``taken``, ``stray``, ``line error``, ``text``, ``BAD_CRC``, ...).

    Text and damage have no type and no sequence; their payload is the bytes as received.

    Args:
        path: appended to, so that one file holds a session.

    Raises:
        InputError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", buffering=1, encoding="ascii")  # a crash loses no line
        except OSError as error:
            raise InputError(
                f"the exchange log cannot be written: {error.strerror}",
                where=path,
                expected="a file that can be written",
            ) from error

    def write(self, direction: Direction, kind: int | None, sequence: int | None, payload: bytes, outcome: str) -> None:
        """Adds a line."""
        line = {
            "t": round(time.monotonic(), 6),
            "direction": direction,
            "type": None if kind is None else type_name(kind),
            "sequence": sequence,
            "payload": payload.hex(),
            "outcome": outcome,
        }
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
