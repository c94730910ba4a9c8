"""The figures that a board's own tests recorded, ``hil_NAME.json`` of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quant.errors import InputError
from quant.files import read_json

SUITE = "quant.testing.suites.hil"
"""Where the package's own tests of a board are."""


@dataclass(frozen=True)
class Recorded:
    """One figure: of which test, its name, its value (a number or words) and unit."""

    test: str
    name: str
    value: float | str
    unit: str

    @property
    def short(self) -> str:
        """The test without its folders."""
        return self.test.removeprefix(f"{SUITE}.").rpartition("/")[2]


@dataclass(frozen=True)
class BoardTests:
    """All figures of a board's tests, and the hash of the pack that was on it (empty where that is not known)."""

    pack_sha256: str
    figures: tuple[Recorded, ...]

    @property
    def tests(self) -> int:
        """How many tests left a figure."""
        return len({figure.test for figure in self.figures})


def load_board_tests(path: Path) -> BoardTests:
    """Reads the figures.

    Raises:
        InputError: the file is malformed.
    """
    document = read_json(path)
    try:
        figures = tuple(_figure(one) for one in document["figures"])
        return BoardTests(str(document.get("pack_sha256", "")), figures)
    except (KeyError, TypeError, AttributeError) as error:
        hint = "run the board's tests again: pytest -m hil"
        raise InputError(f"the figures of a board's tests lack or garble {error}", where=path, hint=hint) from error


def _figure(value: Any) -> Recorded:
    figure = value["value"]
    kept = figure if type(figure) in (int, float) else str(figure)
    return Recorded(str(value["test"]), str(value["name"]), kept, str(value["unit"]))
