"""The contract of a policy's input: what every column is, in which unit, how far it goes, how it moves with others.

Values are as the policy sees them; ``scale`` says what a value of 1 stands for, in the column's unit. Every fact has
its origin, for a fact that a checkpoint states weighs more than one that only a recording suggests.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from quant.files import sha256
from quant.observation.functions import PeerFunction, functions_of
from quant.observation.observations import F32, Observations

Origin = Literal["file", "checkpoint", "world", "preset", "data", "margin", "unknown"]
"""Where a fact is known from: the user's file, what the checkpoint or the world's own space states, a preset of the
field, what recordings show; ``margin`` is what recordings show and some room beyond, which nobody declared."""
ORIGINS: tuple[Origin, ...] = get_args(Origin)
DECLARED: frozenset[str] = frozenset({"file", "checkpoint", "world", "preset"})
"""Origins of bounds that somebody declared."""
FACTS = ("name", "unit", "scale", "low", "high", "function", "copy_of")
NAMELESS = ("ego feature ", "peer feature ")
"""How the names begin of columns that nobody knows the names of; their numbers follow."""
MARGIN = 0.25
"""Room beyond what was recorded where nobody declared a bound, as a share of the recorded width."""
LEAST_ROOM = 0.01
"""Of a column that never moved."""


@dataclass(frozen=True)
class Column:
    """One column of the ego or of a peer.

    Attributes:
        name: what it is; those of `quant.observation.functions` are understood: what moves with what follows from them.
        unit: of a physical value; empty where it has none or it is unknown.
        scale: the physical value that 1 stands for; None where unknown.
        low, high: the least and the most value, as the policy sees it; None where unknown.
        function: of the peers, by its name in `quant.observation.functions.FUNCTIONS`.
        copy_of: the ego's column whose value of one decision earlier this is.
        known: where each of these is known from.
    """

    name: str
    unit: str = ""
    scale: float | None = None
    low: float | None = None
    high: float | None = None
    function: str | None = None
    copy_of: int | None = None
    known: Mapping[str, Origin] = field(default_factory=dict)

    def origin(self, fact: str) -> Origin:
        """Where a fact is known from."""
        return self.known.get(fact, "unknown")

    @property
    def declared(self) -> bool:
        """Somebody declared both bounds."""
        return self.origin("low") in DECLARED and self.origin("high") in DECLARED

    def physical(self, value: float) -> str:
        """A value with its unit, as ``12.2 m/s``; as it is where scale and unit are not known."""
        if self.scale is None:
            return f"{value:.4g}"
        return f"{value * self.scale:.3g} {self.unit}".strip()


@dataclass(frozen=True)
class Contract:
    """What a policy's input is.

    Attributes:
        ego: (E) columns of the ego, stacked frames and all.
        peers: (F) columns of one peer.
        max_peers: P, slots.
        period_ms: between two decisions; None where unknown.
        greatest_age_ms: beyond which a peer's message is not used; None where unknown.
        view_deg: peers lie within this angle either side of straight ahead; None where they may be anywhere.
        known: where the last three are known from.
        preset: the name of the preset that was recognized, or empty.
    """

    ego: tuple[Column, ...]
    peers: tuple[Column, ...]
    max_peers: int
    period_ms: float | None = None
    greatest_age_ms: float | None = None
    view_deg: float | None = None
    known: Mapping[str, Origin] = field(default_factory=dict)
    preset: str = ""

    @property
    def lags(self) -> tuple[int, ...]:
        """(E) how many decisions old each column of the ego is: 0, or 1 more than what it is a copy of."""
        found: list[int] = []
        for column in range(len(self.ego)):
            lag, at = 0, column
            while (source := self.ego[at].copy_of) is not None:
                lag, at = lag + 1, source
                if lag > len(self.ego):
                    raise ValueError("copies go round in a circle")
            found.append(lag)
        return tuple(found)

    @property
    def sources(self) -> tuple[int, ...]:
        """(E) the newest column each column of the ego is a copy of, at last; itself where it is none."""
        found = []
        for column in range(len(self.ego)):
            at = column
            while (source := self.ego[at].copy_of) is not None:
                at = source
            found.append(at)
        return tuple(found)

    @property
    def places(self) -> dict[tuple[int, int], int]:
        """Where the ego holds a newest column and what it was: (newest column, decisions back) -> column."""
        return {key: column for column, key in enumerate(zip(self.sources, self.lags, strict=True))}

    @property
    def depth(self) -> int:
        """How many frames the ego's stack has; 1 where it has none."""
        return 1 + max(self.lags, default=0)

    @property
    def functions(self) -> dict[int, PeerFunction]:
        """Columns of the ego that are functions of the peers of the same moment (lag 0), by column."""
        known = functions_of([column.name for column in self.peers])
        return {
            index: known[column.function]
            for index, column in enumerate(self.ego)
            if column.function is not None and column.copy_of is None and column.function in known
        }

    def index_of(self, name: str, *, peers: bool) -> int | None:
        """The column (of lag 0) with this name; None where there is none."""
        columns = self.peers if peers else self.ego
        return next((i for i, one in enumerate(columns) if one.name == name and one.copy_of is None), None)

    def names(self, *, peers: bool) -> tuple[str, ...]:
        """(K,) the columns by name, those of the ego's older frames with how far back they are: ``speed, 1 back``."""
        if peers:
            return tuple(one.name for one in self.peers)
        return tuple(
            one.name if lag == 0 else f"{one.name}, {lag} back" for one, lag in zip(self.ego, self.lags, strict=True)
        )

    def bounds(self, *, peers: bool) -> tuple[F32, F32]:
        """(K,) float32 least and most values, infinite where unknown."""
        columns = self.peers if peers else self.ego
        low = [-math.inf if one.low is None else one.low for one in columns]
        high = [math.inf if one.high is None else one.high for one in columns]
        return np.array(low, np.float32), np.array(high, np.float32)

    @property
    def undeclared(self) -> tuple[str, ...]:
        """Names of the columns with a bound that nobody declared; a copy goes as far as what it is a copy of."""
        return tuple(
            whose(kind, one.name)
            for kind, columns in (("ego", self.ego), ("peers", self.peers))
            for one in columns
            if not one.declared and one.copy_of is None
        )

    def completed(self, observations: Sequence[Observations]) -> Contract:
        """The contract with a bound everywhere: what recordings show and a margin, where nobody declared one.

        A preset's bound gives way to recordings that go beyond it; what a checkpoint or a user declared does not.
        """
        if not observations:
            return self
        seen = Observations.concatenate(list(observations))
        ego = tuple(_completed(one, seen.ego[:, i]) for i, one in enumerate(self.ego))
        present = seen.peers[seen.mask]
        peers = tuple(_completed(one, present[:, i]) for i, one in enumerate(self.peers))
        newest = {i: ego[source] for i, source in enumerate(self.sources)}
        # A copy goes as far as what it is a copy of, and the reverse.
        ego = tuple(
            _widest(one, [ego[i] for i in newest if self.sources[i] == self.sources[at]]) for at, one in enumerate(ego)
        )
        return replace(self, ego=ego, peers=peers)

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, in hex: of the JSON with keys in their order."""
        return sha256(json.dumps(self.to_json(), sort_keys=True).encode())

    def to_json(self) -> dict[str, Any]:
        """All of it; the inverse is `quant.observation.storage.contract_from_json`."""
        return {
            "preset": self.preset,
            "max_peers": self.max_peers,
            "period_ms": self.period_ms,
            "greatest_age_ms": self.greatest_age_ms,
            "view_deg": self.view_deg,
            "known": dict(self.known),
            "ego": [_column_json(one) for one in self.ego],
            "peers": [_column_json(one) for one in self.peers],
        }


def whose(kind: str, name: str) -> str:
    """A column of the ego or of the peers in a sentence: ``ego's speed``, ``peers' rel_x``; ``ego feature 3`` says it
    itself."""
    if name.startswith(NAMELESS):
        return name
    return f"{kind}' {name}" if kind.endswith("s") else f"{kind}'s {name}"


def _column_json(column: Column) -> dict[str, Any]:
    facts = {name: getattr(column, name) for name in FACTS}
    return {name: value for name, value in facts.items() if value not in (None, "")} | {"known": dict(column.known)}


def _completed(column: Column, values: F32) -> Column:
    """Bounds that nobody declared, or a preset's that recordings go beyond, become what was recorded and a margin."""
    if len(values) == 0:
        low, high = (0.0, 1.0) if column.low is None and column.high is None else (column.low, column.high)
        known = {
            name: column.origin(name) if getattr(column, name) is not None else "margin" for name in ("low", "high")
        }
        return replace(
            column,
            low=low if low is not None else high,
            high=high if high is not None else low,
            known={**column.known, **known},
        )
    least, most = float(values.min()), float(values.max())
    room = max(MARGIN * (most - least), LEAST_ROOM)
    low, high, known = column.low, column.high, dict(column.known)
    if low is None or (column.origin("low") == "preset" and least < low):
        low, known["low"] = round(least - room, 6), "margin"
    if high is None or (column.origin("high") == "preset" and most > high):
        high, known["high"] = round(most + room, 6), "margin"
    return replace(column, low=low, high=max(high, low + LEAST_ROOM), known=known)


def _widest(column: Column, alike: Sequence[Column]) -> Column:
    """The column with bounds as wide as the widest of those that hold the same value at other times."""
    low = min(alike, key=lambda one: (one.low is None, one.low))
    high = max(alike, key=lambda one: (one.high is not None, one.high))
    known = {**column.known, "low": low.origin("low"), "high": high.origin("high")}
    return replace(column, low=low.low, high=high.high, known=known)
