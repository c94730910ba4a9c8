"""What ``--board`` can name here, and whether it is there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from quant.boards import ports
from quant.boards.board_map import BoardEntry, find_board_map
from quant.boards.discovery import BoardRequest, find_board
from quant.boards.kinds import KINDS, QEMU, Kind
from quant.boards.qemu import MACHINES
from quant.errors import InputError


@dataclass(frozen=True)
class Known:
    """A board, or a port that may lead to one.

    Attributes:
        name: for ``--board``; empty for a port the board map does not know.
        port: of it, or empty.
        state: ``ready``, or what is missing.
    """

    name: str
    port: str
    state: str


def known_boards(board_map: Path | None = None) -> list[Known]:
    """The boards without hardware, the board map's, and what else is plugged in.

    Raises:
        InputError: the board map is missing or wrong.
    """
    mapped = find_board_map(board_map).boards.values()
    return [
        *(Known(kind.name, "", _state(kind)) for kind in KINDS.values()),
        *(Known(entry.name, entry.port or "", _entry_state(entry)) for entry in mapped),
        *(
            Known("", one.port, f"plugged in: {one.bridge}, {one.description}")
            for one in ports.plugged_in()
            if not any(entry.port and Path(entry.port).resolve() == Path(one.port).resolve() for entry in mapped)
        ),
    ]


def _state(kind: Kind) -> str:
    if kind.name == QEMU and not any(shutil.which(machine.program) for machine in MACHINES.values()):
        return "Espressif's QEMU is not installed"
    try:
        find_board(BoardRequest(kind.name))
    except InputError as error:
        return error.what if error.where is None else f"{error.what}: {error.where}"
    return "ready"


def _entry_state(entry: BoardEntry) -> str:
    chip = entry.chip or "any chip"
    if entry.port is None:
        return f"{chip}, found by what is plugged in"
    there = "://" in entry.port or Path(entry.port).exists()
    return f"{chip}, {'ready' if there else 'not plugged in'}"
