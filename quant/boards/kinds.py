"""The boards that need no hardware, by the names that ``--board`` takes: what each is, and where it is made.

Importing this costs nothing: whoever only names boards, as a help text does, loads none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, cast

from quant.wire.protocol import EvidenceCode

if TYPE_CHECKING:
    from quant.boards.board import Board

VIRTUAL, LINUX, QEMU = "virtual", "linux", "qemu"


@dataclass(frozen=True)
class Kind:
    """A board that needs no hardware.

    Attributes:
        name: as users write it; what the board itself has as its name, too.
        evidence: what its times are.
        maker: ``module:function`` from ``--build-dir``, a path or None, and the folder of the app to the board, not yet
            open. The function raises InputError where something the board needs is missing.
    """

    name: str
    evidence: EvidenceCode
    maker: str

    def make(self, build_dir: Path | None, app: Path) -> Board:
        """The board, not yet open.

        Raises:
            InputError: something it needs is missing.
        """
        return cast("Board", resolve_name(self.maker)(build_dir, app))


KINDS = {
    kind.name: kind
    for kind in (
        Kind(VIRTUAL, EvidenceCode.SIMULATED, "quant.boards.virtual.board:make"),
        Kind(LINUX, EvidenceCode.COMPUTED, "quant.boards.linux:make"),
        Kind(QEMU, EvidenceCode.EMULATED, "quant.boards.qemu:make"),
    )
}
"""By name, in the order in which they are listed."""
NAMED = f"{', '.join(KINDS)}, a chip as esp32, or an id of the board map"
"""What ``--board`` takes, for help texts."""
