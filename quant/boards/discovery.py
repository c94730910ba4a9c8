"""Which board is meant: by name, by the board map, or because it is the only one plugged in. Never by guessing.

A board without hardware is used where it was asked for by name, and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quant.boards import ports
from quant.boards.board import Board
from quant.boards.board_map import CHIPS, RESERVED, BoardEntry, BoardMap, find_board_map
from quant.boards.kinds import KINDS
from quant.errors import InputError, did_you_mean

REHEARSE = "to rehearse without hardware: --board virtual"


@dataclass(frozen=True)
class BoardRequest:
    """What a user said of the board.

    Attributes:
        name: ``--board``: one of `KINDS`, a chip, an id of the board map, or None.
        port: ``--port``.
        baud: ``--baud``.
        build_dir: ``--build-dir``; for ``linux`` an ELF too.
        board_map: ``--board-map``.
        folder: where relative names start; the working directory where None.
        wait: seconds to wait for a port somebody else uses.
    """

    name: str | None = None
    port: str | None = None
    baud: int | None = None
    build_dir: Path | None = None
    board_map: Path | None = None
    folder: Path | None = None
    wait: float = 0.0


def app_folder(folder: Path | None = None) -> Path:
    """The ESP-IDF project: ``esp_idf_app`` where the user is, else the one beside this package."""
    here = (folder or Path.cwd()) / "esp_idf_app"
    return here if here.is_dir() else Path(__file__).resolve().parents[2] / "esp_idf_app"


def find_board(request: BoardRequest) -> Board:
    """The board that is meant, not yet opened.

    Raises:
        InputError: none or several fit, or what it needs is missing; lists what was seen and says how to rehearse.
    """
    app = app_folder(request.folder)
    if request.name in KINDS:
        if request.port is not None:
            raise InputError(f"--port with --board {request.name}", expected="no port: this board makes its own")
        return KINDS[request.name].make(request.build_dir, app)
    entry = _entry(request, find_board_map(request.board_map, request.folder))
    entry = replace(
        entry,
        port=request.port or entry.port,
        baud=request.baud or entry.baud,
        build_dir=request.build_dir or entry.build_dir,
    )
    from quant.boards.chip import ChipBoard

    return ChipBoard(entry, entry.port or _only_one(entry.name), app, wait=request.wait)


def _entry(request: BoardRequest, board_map: BoardMap) -> BoardEntry:
    name = request.name
    if name is not None and name in board_map.boards:
        return board_map.boards[name]
    if name is not None and name not in CHIPS:
        raise InputError(
            f"no board {name}",
            where="--board" if board_map.path is None else f"--board, {board_map.path}",
            expected=f"one of {', '.join((*RESERVED, *board_map.boards))}",
            hint=did_you_mean(name, (*RESERVED, *board_map.boards)),
        )
    if request.port is not None:
        return _at_port(request.port, name, board_map)
    fitting = tuple(board_map.boards.values()) if name is None else board_map.by_chip(name)
    if len(fitting) > 1:
        fitting = tuple(entry for entry in fitting if _is_there(entry)) or fitting
    if len(fitting) > 1:
        raise InputError(
            "several boards fit",
            where=board_map.path,
            expected=f"--board with one of {', '.join(entry.name for entry in fitting)}",
        )
    return fitting[0] if fitting else BoardEntry(name or "board", chip=name)


def _at_port(port: str, chip: str | None, board_map: BoardMap) -> BoardEntry:
    """The map's entry for a port, whose MAC is then checked, or one for a port the map does not know."""
    real = os.path.realpath(port)
    for entry in board_map.boards.values():
        if entry.port is not None and os.path.realpath(entry.port) == real:
            if chip is not None and entry.chip not in (None, chip):
                raise InputError(f"{entry.name} at {port} is an {entry.chip}", where=entry.where, expected=chip)
            return entry
    return BoardEntry(chip or "board", chip=chip)


def _is_there(entry: BoardEntry) -> bool:
    return entry.port is not None and ("://" in entry.port or Path(entry.port).exists())


def _only_one(name: str, found: Sequence[ports.Plugged] | None = None) -> str:
    found = ports.plugged_in() if found is None else found
    if len(found) == 1:
        return found[0].port
    if not found:
        raise InputError(
            "no board is plugged in",
            expected=f"one USB serial port of {', '.join(ports.BRIDGES.values())}",
            hint=f"{REHEARSE}; or --port for a port of another kind",
        )
    raise InputError(
        f"{len(found)} boards are plugged in: {'; '.join(map(str, found))}",
        expected=f"--port with one of them, or a board map that says which is {name}",
        hint=REHEARSE,
    )
