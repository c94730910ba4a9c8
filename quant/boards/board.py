"""What every device under test can do, whether it is a chip on a bench or a process on this machine.

A board is opened, which claims it and gives it a port that pyserial opens; then `Board.prepare` makes sure that it
runs this project's image with exactly one pack of models. What it does not have to touch it leaves alone. Nobody else
may hold the port open while a board is prepared or loses its power: a chip's port is needed for flashing, and an
emulator's goes away with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from serial import SerialBase

    from quant.wire.messages import HelloReply


class Work(StrEnum):
    """What `Board.prepare` had to write."""

    NOTHING = "nothing"
    MODELS = "models"
    IMAGE = "image and models"


@dataclass(frozen=True)
class Prepared:
    """What was done to a board before its tests, and why.

    Attributes:
        wrote: what was written.
        why: one sentence: what the board had, against what it has to have.
        seconds: it took, of the host's clock.
    """

    wrote: Work
    why: str
    seconds: float

    def __str__(self) -> str:
        return f"wrote {self.wrote.value} in {self.seconds:.1f} s: {self.why}"


@dataclass(frozen=True)
class Embedded:
    """How pytest-embedded reaches an open board.

    Attributes:
        services: the value of ``--embedded-services``.
        options: values of pytest-embedded's other options, by their names without the dashes
            (``port``, ``app_path``, ...); what is not here keeps pytest-embedded's default.
    """

    services: str
    options: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Board(Protocol):
    """A device under test.

    Attributes:
        name: what it was asked for by: one of `quant.boards.kinds.KINDS`, a chip, or an id of the board map.
        chip: its kind, as the build and HELLO name it (``esp32``, ..., ``linux``), or None where HELLO has to tell.
        baud: of its line.
    """

    name: str
    chip: str | None
    baud: int

    @property
    def port(self) -> str:
        """What pyserial opens; a `RuntimeError` while the board is not open."""
        ...

    def open(self) -> None:
        """Claims the board and brings it up.

        Raises:
            InputError: it is not there, something it needs is not installed, or somebody else has it.
        """
        ...

    def close(self) -> None:
        """Gives everything back; the second time it does nothing."""
        ...

    def prepare(self, pack: bytes) -> Prepared:
        """Makes sure that the open board runs the image of its build and exactly this pack.

        Raises:
            InputError: it is another board than expected, the pack does not fit, there is no build, or writing failed.
        """
        ...

    def hard_reset(self, line: SerialBase | None = None) -> None:
        """Restarts the device from outside, as a reset button does; the port stays.

        Args:
            line: the port, where the caller has it open (a chip is reset by its control lines).
        """
        ...

    def power_cycle(self) -> None:
        """Takes the device's power away and gives it back; the port has to be opened again.

        Raises:
            InputError: nothing here can switch this board's power.
        """
        ...

    def embedded(self) -> Embedded:
        """How pytest-embedded reaches it."""
        ...

    def image_sha256(self) -> str | None:
        """Hash of the program it has to run, in hexadecimal, from the host's files; None where they do not have it.

        Raises:
            InputError: there is no build for it.
        """
        return None

    def check(self, hello: HelloReply) -> None:
        """Whether what answers is the board that is meant; where nothing says which it has to be, any is.

        Raises:
            InputError: it is another one.
        """
        return

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
