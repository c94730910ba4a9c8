"""How far each column was recorded, is declared, and can be represented by a candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quant.observation.contract import NAMELESS, Column, Contract
from quant.observation.observations import F32, Observations

Ends = tuple[float, float]


@dataclass(frozen=True)
class Coverage:
    """One column.

    Attributes:
        kind: ``ego`` or ``peers``.
        index: of the column.
        column: what it is.
        recorded: least and most value seen in recordings and rollouts; None where there were none.
        represented: by track, the least and the most value that its input codes stand for.
        saturated: by track, the share of the seen values beyond that.
        lag: how many decisions old it is.
    """

    kind: str
    index: int
    column: Column
    recorded: Ends | None
    represented: Mapping[str, Ends]
    saturated: Mapping[str, float]
    lag: int = 0

    @property
    def name(self) -> str:
        """As ``ego speed`` or ``peers rel_x``; an older frame's with how old it is."""
        name = named(self.kind, self.column.name)
        return name if self.lag == 0 else f"{name}, {self.lag} back"

    @property
    def trusted(self) -> Ends:
        """Up to where every candidate can represent a value that somebody declared, or that was recorded."""
        low, high = self.column.low, self.column.high
        assert low is not None and high is not None
        ends = [(low, high), *self.represented.values()]
        return max(low for low, _ in ends), min(high for _, high in ends)

    @property
    def short(self) -> tuple[str, ...]:
        """Tracks that cannot represent all that is declared; a millionth of the bounds is let pass as rounding."""
        low, high = self.column.low, self.column.high
        assert low is not None and high is not None
        room = 1e-6 * max(abs(low), abs(high), 1.0)
        return tuple(t for t, (least, most) in self.represented.items() if least > low + room or most < high - room)

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        low, high = self.column.low, self.column.high
        return {
            "kind": self.kind,
            "index": self.index,
            "name": self.column.name,
            "unit": self.column.unit,
            "scale": self.column.scale,
            "recorded": None if self.recorded is None else [round(end, 6) for end in self.recorded],
            "declared": [low, high],
            "declared_by": [self.column.origin("low"), self.column.origin("high")],
            "represented": {track: [round(end, 6) for end in ends] for track, ends in self.represented.items()},
            "saturated": {track: round(share, 6) for track, share in self.saturated.items()},
        }


def coverage(
    contract: Contract, seen: Observations, represented: Mapping[str, tuple[tuple[F32, F32], tuple[F32, F32]]]
) -> tuple[Coverage, ...]:
    """The coverage of every column, the ego's first.

    Args:
        contract: with a bound everywhere.
        seen: recorded and rolled out frames.
        represented: by track, for ego and peers, (K,) least and most value that the input codes stand for.
    """
    found = []
    groups: Sequence[tuple[str, Sequence[Column], Sequence[int], F32]] = (
        ("ego", contract.ego, contract.lags, seen.ego),
        ("peers", contract.peers, [0] * len(contract.peers), seen.peers[seen.mask]),
    )
    for at, (kind, columns, lags, values) in enumerate(groups):
        for index, (column, lag) in enumerate(zip(columns, lags, strict=True)):
            own = values[:, index]
            ends = {t: (float(both[at][0][index]), float(both[at][1][index])) for t, both in represented.items()}
            beyond = {t: _beyond(own, low, high) for t, (low, high) in ends.items()}
            recorded = (float(own.min()), float(own.max())) if len(own) else None
            found.append(Coverage(kind, index, column, recorded, ends, beyond, lag))
    return tuple(found)


def named(kind: str, name: str) -> str:
    """A column's name with whose it is; one that nobody knows the name of says it itself."""
    return name if name.startswith(NAMELESS) else f"{kind} {name}"


def _beyond(values: F32, low: float, high: float) -> float:
    room = 1e-6 * max(abs(low), abs(high), 1.0)
    return float(((values < low - room) | (values > high + room)).mean()) if len(values) else 0.0


def undeclared_words(contract: Contract) -> str:
    """The columns whose bounds nobody declared, and up to where each is trusted: recorded and a margin."""
    words = []
    for kind, columns in (("ego", contract.ego), ("peers", contract.peers)):
        for column in columns:
            if not column.declared and column.copy_of is None and column.low is not None and column.high is not None:
                words.append(f"{named(kind, column.name)} {physical_ends(column, (column.low, column.high))}")
    return ", ".join(words)


def assumed_words(contract: Contract) -> str:
    """The columns whose bounds are a preset's alone: what is usual of such a column, and nobody's word."""
    words = []
    for kind, columns in (("ego", contract.ego), ("peers", contract.peers)):
        for column in columns:
            if column.copy_of is None and column.function is None and "preset" in map(column.origin, ("low", "high")):
                words.append(f"{named(kind, column.name)} {physical_ends(column, (column.low, column.high))}")
    return ", ".join(words)


def physical_values(columns: Sequence[Column], names: Sequence[str], values: Sequence[float]) -> str:
    """``speed 12 m/s, acceleration -3.1 m/s2``."""
    return ", ".join(
        f"{name} {column.physical(value)}" for column, name, value in zip(columns, names, values, strict=True)
    )


def physical_ends(column: Column, ends: tuple[float | None, float | None] | None) -> str:
    """``0 to 30 m/s``; ``-`` where there are none."""
    if ends is None or all(end is None for end in ends):
        return "-"
    low, high = ("?" if end is None else column.physical(end) for end in ends)
    unit = f" {column.unit}" if column.unit else ""
    low = low.removesuffix(unit) if high != "?" else low
    return f"{low} to {high}"
