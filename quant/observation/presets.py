"""What the field's observations are, where a policy has their sizes and nothing contradicts it.

The plan's ego of 4, and the egos of 5, 6, 7 and 18 (three stacked frames of 6) that real checkpoints of
vehicle-to-vehicle collision avoidance have; all with the same six features of a peer. A preset is an assumption:
a checkpoint's bounds and recordings that contradict it win.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from quant.observation.contract import FACTS, Column, Origin
from quant.observation.functions import (
    ACCELERATION,
    AGE,
    BRAKING_RECEIVED,
    HEADING,
    LARGEST_CLOSING,
    LOWEST_ACCELERATION,
    NUMBER,
    REL_HEADING,
    REL_SPEED,
    REL_X,
    REL_Y,
    SPEED,
)


@dataclass(frozen=True)
class Preset:
    """One known observation.

    Attributes:
        name: as ``ego 6``.
        ego: its columns; of a stack those of one frame.
        frames: of the stack.
        view_deg: half the angle in which peers are seen; None: all round.
    """

    name: str
    ego: tuple[Column, ...]
    frames: int = 1
    view_deg: float | None = None

    @property
    def size(self) -> int:
        """E."""
        return len(self.ego) * self.frames


def _preset(column: Column) -> Column:
    known: dict[str, Origin] = {fact: "preset" for fact in FACTS if getattr(column, fact) not in (None, "")}
    return replace(column, known=known)


_SPEED = _preset(Column(SPEED, "m/s", 30.0, 0.0, 1.0))
_ACCELERATION = _preset(Column(ACCELERATION, "m/s2", 10.0, -1.0, 1.0))
_HEADING = _preset(Column(HEADING, "rad", math.pi, -1.0, 1.0))
_NUMBER = _preset(Column(NUMBER, "peers", 8.0, 0.0, 1.0, NUMBER))
_LOWEST = _preset(Column(LOWEST_ACCELERATION, "m/s2", 10.0, -1.0, 0.0, LOWEST_ACCELERATION))
_BRAKING = _preset(Column(BRAKING_RECEIVED, "", 1.0, 0.0, 1.0))
_CLOSING = _preset(Column(LARGEST_CLOSING, "m/s", 30.0, 0.0, 1.0, LARGEST_CLOSING))

PEERS = tuple(
    map(
        _preset,
        (
            Column(REL_X, "m", 100.0, -1.0, 1.0),
            Column(REL_Y, "m", 100.0, -1.0, 1.0),
            Column(REL_SPEED, "m/s", 30.0, -1.0, 1.0),
            Column(REL_HEADING, "rad", math.pi, -1.0, 1.0),
            Column(ACCELERATION, "m/s2", 10.0, -1.0, 1.0),
            Column(AGE, "ms", 500.0, 0.0, 1.0),
        ),
    )
)
"""The field's features of a peer, in the ego's frame: forward, left."""
PERIOD_MS = 100.0
GREATEST_AGE_MS = 500.0
VIEW_DEG = 45.0
"""Peers of the real checkpoints are those ahead, within this angle either side."""

_SIX = (_SPEED, _ACCELERATION, _NUMBER, _LOWEST, _BRAKING, _CLOSING)
PRESETS = (
    Preset("ego 4", (_SPEED, _ACCELERATION, _HEADING, _NUMBER)),
    Preset("ego 5", (_SPEED, _ACCELERATION, _HEADING, _NUMBER, _LOWEST), view_deg=VIEW_DEG),
    Preset("ego 6", _SIX, view_deg=VIEW_DEG),
    Preset("ego 7", (_SPEED, _ACCELERATION, _HEADING, _NUMBER, _LOWEST, _BRAKING, _CLOSING), view_deg=VIEW_DEG),
    Preset("ego 18", _SIX, frames=3, view_deg=VIEW_DEG),
)
