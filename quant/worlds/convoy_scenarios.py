"""What is drawn for a convoy: every parameter with its range and unit, and how the two slices are drawn.

Slots are the eight peers a convoy can have. Slots 0 to 5 drive ahead of the ego in its lane, nearest first; slot 6
drives behind it and slot 7 in the next lane.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from quant.worlds.scenarios import LOSSY, Column, ScenarioSet, empty_set, uniforms

SLOTS = 8
AHEAD_SLOTS = 6
BEHIND, BESIDE = 6, 7

STEP_S = 0.1
"""Seconds between two decisions (10 Hz)."""

STEPS = 200
"""Decisions of an episode: 20 s."""

EGO_SCALE = (30.0, 10.0, np.pi, 8.0)
"""The ego's features are m/s, m/s^2, rad and peers divided by these."""
PEER_SCALE = (100.0, 100.0, 30.0, np.pi, 10.0, 500.0)
"""A peer's features are m, m, m/s, rad, m/s^2 and ms divided by these."""

COLUMNS = (
    Column("ahead", 1, AHEAD_SLOTS, "", "peers ahead of the ego in its lane"),
    Column("behind", 0, 1, "", "1 where a peer drives behind the ego"),
    Column("beside", 0, 1, "", "1 where a peer drives in the next lane"),
    Column("speed", 5, 40, "m/s", "speed of the convoy at the start", 0, 2),
    Column("heading", -3.2, 3.2, "rad", "heading of the ego at the start", 0, 3),
    Column("curvature", -0.002, 0.002, "1/m", "of the road, positive to the left", 0, 6),
    Column("beside_offset", -60, 60, "m", "place of the peer in the next lane at the start, forward of the ego", 0, 1),
    Column("beside_side", -4, 4, "m", "lateral place of the peer in the next lane, positive to the left", 0, 1),
    Column("driver_headway", 0.3, 3, "s", "time gap the base driver keeps", 0, 2),
    Column("driver_reaction", 0, 2, "s", "delay of what the base driver sees", 0, 1),
    Column("inattention_start", 0, 20, "s", "when the base driver looks away", 0, 1),
    Column("inattention_length", 0, 10, "s", "for how long; 0 for an attentive driver", 0, 1),
    Column("actuator_lag", 0.05, 1, "s", "time constant of the ego's acceleration", 0, 2),
    Column("headway", 0.3, 3, "s", "time gap each peer keeps", SLOTS, 2),
    Column("event_start", 0, 20, "s", "when each peer brakes", SLOTS, 1),
    Column("event_end", 0, 40, "s", "when each peer ends braking or waiting", SLOTS, 1),
    Column("event_deceleration", 0, 9, "m/s^2", "how hard each peer brakes", SLOTS, 2),
    Column("event_speed", 0, 1, "", "share of the convoy's speed each peer brakes down to", SLOTS, 2),
    Column("phase", 0, 99, "ms", "age of each peer's newest measurement at a decision", SLOTS),
    Column("bias_x", -10, 10, "m", "constant forward error of each peer's position", SLOTS, 2),
    Column("bias_y", -10, 10, "m", "constant lateral error of each peer's position", SLOTS, 2),
    Column("noise_position", 0, 10, "m", "standard deviation of a position in a message", 0, 2),
    Column("noise_speed", 0, 5, "m/s", "standard deviation of a speed in a message", 0, 2),
    Column("noise_acceleration", 0, 5, "m/s^2", "standard deviation of an acceleration in a message", 0, 2),
    Column("latency", 0, 100, "ms", "shortest time a message takes"),
    Column("jitter", 0, 100, "ms", "largest time added to it"),
    Column("loss_near", 0, 1, "", "share lost at distance 0 while reception is good", 0, 3),
    Column("loss_far", 0, 1, "", "share lost in addition at 150 m; grows with the square of the distance", 0, 3),
    Column("loss_burst", 0, 1, "", "share lost while reception is bad", 0, 3),
    Column("burst_enter", 0, 1, "", "chance for each message that reception turns bad", 0, 4),
    Column("burst_leave", 0.01, 1, "", "chance for each message that reception turns good again", 0, 4),
)
"""Every drawn parameter of a convoy."""

Draws = dict[str, NDArray[np.float64]]


def draw(purpose: str, seed: int, counts: Mapping[str, int]) -> ScenarioSet:
    """Draws the episodes of each slice; each depends on (purpose, seed, slice, index) alone.

    Args:
        purpose: one of :data:`quant.worlds.scenarios.PURPOSES`.
        seed: of the set.
        counts: episodes of each slice, as ``{"nominal": 4000, "lossy": 2000}``.

    Raises:
        InputError: an unknown purpose or slice, a negative seed or count, or nothing to draw.
    """
    frame = empty_set("convoy", "{}", purpose, seed, counts)
    source = _Uniforms(uniforms(frame, 128))
    values = _traffic(source) | _driver(source)
    values |= _events(source, values) | _radio(source, frame.slices == LOSSY)
    _look_away(source, values)
    parameters = {column.name: np.round(values[column.name], column.decimals) for column in COLUMNS}
    return ScenarioSet("convoy", "{}", purpose, seed, frame.slices, frame.index, parameters, COLUMNS)


class _Uniforms:
    """Deals columns of uniform numbers out in the order they are asked for."""

    def __init__(self, table: NDArray[np.float64]) -> None:
        self._table = table
        self._next = 0

    def __call__(self, low: float, high: float, width: int = 0) -> NDArray[np.float64]:
        start, self._next = self._next, self._next + max(width, 1)
        part = self._table[:, start : self._next] if width else self._table[:, start]
        return low + (high - low) * part

    def whole(self, low: int, high: int) -> NDArray[np.float64]:
        """Whole numbers from ``low`` to ``high``, both included."""
        return np.floor(self(low, high + 1))

    def chance(self, share: float, width: int = 0) -> NDArray[np.bool_]:
        """True with probability ``share``."""
        return self(0, 1, width) < share


def _traffic(u: _Uniforms) -> Draws:
    return {
        "ahead": u.whole(1, AHEAD_SLOTS),
        "behind": 1.0 * u.chance(0.35),
        "beside": 1.0 * u.chance(0.35),
        "speed": u(13, 31),
        "heading": u(-3.1, 3.1),
        "curvature": u(-0.001, 0.001),
        "beside_offset": u(-20, 50),
        "beside_side": np.where(u.chance(0.5), 3.5, -3.5),
        "headway": u(0.7, 1.4, SLOTS),
    }


def _driver(u: _Uniforms) -> Draws:
    return {
        "driver_headway": u(0.8, 1.6),
        "driver_reaction": u(0.6, 1.3),
        "actuator_lag": u(0.15, 0.4),
    }


def _events(u: _Uniforms, values: Draws) -> Draws:
    """One random peer ahead brakes hard, the others gently; the one in the next lane hard in half of the convoys."""
    hard = np.arange(SLOTS) == np.floor(u(0, 1) * values["ahead"])[:, None]
    hard[:, BESIDE] = u.chance(0.5)
    start = np.where(hard, u(4, 12)[:, None], u(2, 15, SLOTS))
    deceleration = np.where(hard, u(5.5, 8.5)[:, None], u(0.5, 1.8, SLOTS))
    stops = u.chance(0.4)[:, None]
    speed = np.where(hard, np.where(stops, 0, u(0.1, 0.6)[:, None]), u(0.85, 0.97, SLOTS))
    braking = (1 - speed) * values["speed"][:, None] / deceleration
    return {
        "event_start": start,
        "event_end": start + braking + u(0.5, 4, SLOTS),
        "event_deceleration": deceleration,
        "event_speed": speed,
        "hard": hard,
    }


def _look_away(u: _Uniforms, values: Draws) -> None:
    """The base driver of most convoys looks away shortly before the hard braking."""
    slot = values.pop("hard")[:, :AHEAD_SLOTS].argmax(axis=1)
    braking = values["event_start"][np.arange(len(slot)), slot]
    away = u.chance(0.8)
    values["inattention_start"] = np.clip(np.where(away, braking - u(0.2, 1.5), u(0, 15)), 0, 20)
    values["inattention_length"] = np.where(away, u(2.0, 5.0), u(0, 1.0))


def _radio(u: _Uniforms, lossy: NDArray[np.bool_]) -> Draws:
    """A Gilbert-Elliott channel (Gilbert 1960, Elliott 1963) for each peer, worse the farther the peer is."""
    bad = np.where(lossy, u(0.25, 0.45), u(0.02, 0.10))
    leave = np.where(lossy, u(0.2, 0.5), u(0.3, 0.7))
    return {
        "phase": np.floor(u(0, 100, SLOTS)),
        "bias_x": u(-1.0, 1.0, SLOTS),
        "bias_y": u(-0.4, 0.4, SLOTS),
        "noise_position": u(0.2, 0.7),
        "noise_speed": u(0.1, 0.3),
        "noise_acceleration": u(0.2, 0.5),
        "latency": np.round(u(10, 50)),
        "jitter": np.round(u(10, 90)),
        "loss_near": np.where(lossy, u(0.12, 0.24), u(0.005, 0.05)),
        "loss_far": u(0.05, 0.15),
        "loss_burst": u(0.85, 0.95),
        "burst_enter": leave * bad / (1 - bad),
        "burst_leave": leave,
    }
