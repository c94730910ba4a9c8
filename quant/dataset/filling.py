"""Frames that fill the range a policy's input is declared to have, made by its contract and never impossible.

A recording ends where the drive ended; a candidate made of it clips beyond. A filled frame has any number of peers and
features from anywhere between their bounds, their ends included. What depends on something else follows from it: the
ego's functions of the peers are computed, peers lie in the field of view, and the older frames of a stack come from a
moment before in which the ego and the same peers, but for one that has come or gone, moved as they could have.

Where in its range each free value lies is one coordinate of a point in the unit cube: of a generator's, or of a
low-discrepancy sequence, which leaves no part of the range out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.observation.contract import Contract
from quant.observation.functions import (
    ACCELERATION,
    BRAKING_RECEIVED,
    HEADING,
    NUMBER,
    REL_SPEED,
    REL_X,
    REL_Y,
    SPEED,
)
from quant.observation.observations import F32, Mask, Observations
from quant.observation.presets import PERIOD_MS

AT_AN_END = 0.15
"""Share of the values that stand at the end of their range, half of them at each."""
AROUND_RECORDED = 0.5
"""Share of the frames that start from a recorded one and draw some of its features anew."""
DRAWN_ANEW = 0.5
"""Share of a recorded frame's features that are drawn anew."""
COMES_OR_GOES = 0.1
"""Chance that a peer was not there one decision before, and that one was that is not there now."""
BRAKES_ANEW = 0.3
"""Chance that a peer's or the ego's acceleration was another one decision before."""
SMALL_STEP, STAYS = 0.02, 0.3
"""Of a feature nothing is known of, from one decision to the next: a share of its range, and how often it stays."""
DECAY = 0.95
"""Of the signal that braking was received, from one decision to the next (the field's)."""
MOTION = 1e-4
"""What motion from one frame of a stack to the next may be off by, in normalized values."""


@dataclass(frozen=True)
class _Moment:
    """Ego features by column of lag 0 (N, E), of which only those columns count; peers (N, P, F) and who is there."""

    ego: F32
    peers: F32
    mask: Mask


def free_columns(contract: Contract) -> tuple[int, ...]:
    """The ego's columns that nothing else decides: neither functions of the peers nor copies."""
    functions = contract.functions
    return tuple(i for i, one in enumerate(contract.ego) if one.copy_of is None and i not in functions)


def coordinates(contract: Contract) -> int:
    """How many free values the newest moment of a frame has, with every slot taken."""
    return len(free_columns(contract)) + contract.max_peers * len(contract.peers)


def fill(
    contract: Contract,
    frames: int,
    seed: int | Sequence[int],
    recorded: Observations | None = None,
    points: F32 | None = None,
) -> Observations:
    """Makes frames that fill the contract's range.

    Args:
        contract: with a bound everywhere (`Contract.completed`).
        frames: how many; every number of peers has as many.
        seed: of the generator; the same frames for the same seed.
        recorded: to start some of them from.
        points: (frames, `coordinates`) from 0 to 1, where each free value lies; None: the generator's.

    Returns:
        ``frames`` observations; peers stand in the first slots.
    """
    generator = np.random.default_rng(seed)
    if points is None:
        points = generator.random((frames, coordinates(contract)), np.float32)
    now = _anywhere(contract, points, generator)
    if recorded is not None and len(recorded) and frames:
        now = _around(contract, now, recorded, generator)
    return Observations(_ego_of(contract, now, generator), placed(now.peers, now.mask), now.mask)


def _anywhere(contract: Contract, points: F32, generator: np.random.Generator) -> _Moment:
    frames, slots = len(points), contract.max_peers
    counts = generator.permutation(np.arange(frames) % (slots + 1))
    mask = np.arange(slots) < counts[:, None]
    free = list(free_columns(contract))
    share = _with_ends(points)
    low, high = contract.bounds(peers=False)
    ego = np.zeros((frames, len(low)), np.float32)
    ego[:, free] = _between((low[free], high[free]), share[:, : len(free)])
    share = share[:, len(free) :].reshape(frames, slots, -1)
    peers = _between(contract.bounds(peers=True), share)
    y, reach = contract.index_of(REL_Y, peers=True), in_view(contract, peers)
    if y is not None and reach is not None:
        peers[..., y] = _between(reach, share[..., y])
    return _Moment(ego, peers, mask)


def _with_ends(points: F32) -> F32:
    """From 0 to 1, `AT_AN_END` of them at one of the two."""
    spread = (points - np.float32(AT_AN_END / 2)) / np.float32(1 - AT_AN_END)
    return np.asarray(np.clip(spread, np.float32(0), np.float32(1)), np.float32)


def _between(bounds: tuple[F32, F32], share: F32) -> F32:
    low, high = bounds
    return np.clip(low + share * (high - low), low, high).astype(np.float32)


def in_view(contract: Contract, peers: F32) -> tuple[F32, F32] | None:
    """(...) the least and the most value of rel_y that peers (..., F) at their rel_x can have; None: any."""
    x, y = contract.index_of(REL_X, peers=True), contract.index_of(REL_Y, peers=True)
    if contract.view_deg is None or x is None or y is None or contract.view_deg >= 90:
        return None
    scales = contract.peers[x].scale or 1.0, contract.peers[y].scale or 1.0
    reach = np.abs(peers[..., x]) * np.float32(np.tan(np.radians(contract.view_deg)) * scales[0] / scales[1])
    low, high = _ends(contract, y, peers=True)
    return np.maximum(np.float32(low), -reach), np.minimum(np.float32(high), reach)


def _around(contract: Contract, drawn: _Moment, recorded: Observations, generator: np.random.Generator) -> _Moment:
    """Some of the frames keep most of a recorded one; peers it lacks are as drawn."""
    frames, slots = drawn.mask.shape
    base = generator.integers(len(recorded), size=frames)
    chosen = generator.random((frames, 1)) < AROUND_RECORDED
    ego_low, ego_high = contract.bounds(peers=False)
    keeps = chosen & (generator.random(drawn.ego.shape) >= DRAWN_ANEW)
    ego = np.where(keeps, np.clip(recorded.ego[base], ego_low, ego_high), drawn.ego)
    order = np.argsort(~recorded.mask[base], axis=1, kind="stable")
    own, own_mask = (
        np.take_along_axis(recorded.peers[base], order[:, :, None], axis=1),
        np.take_along_axis(recorded.mask[base], order, axis=1),
    )
    # Where and how fast a peer is hangs together: a peer is kept whole or drawn whole, but for one feature or so.
    kept = chosen & own_mask & (generator.random((frames, slots)) >= DRAWN_ANEW)
    peers = np.where(kept[:, :, None], own, drawn.peers)
    return _Moment(ego.astype(np.float32), within(contract, peers), drawn.mask)


def within(contract: Contract, peers: F32) -> F32:
    """Peers (..., F) brought between their bounds and into the field of view."""
    low, high = contract.bounds(peers=True)
    peers = np.clip(peers, low, high).astype(np.float32)
    y, reach = contract.index_of(REL_Y, peers=True), in_view(contract, peers)
    if y is not None and reach is not None:
        peers[..., y] = np.clip(peers[..., y], *reach)
    return peers


def _ego_of(contract: Contract, now: _Moment, generator: np.random.Generator) -> F32:
    """(N, E) with functions computed, and older frames of a stack as they may have been."""
    ego = now.ego.copy()
    functions = contract.functions
    lags, sources = np.array(contract.lags), contract.sources
    moment = now
    for lag in range(contract.depth):
        if lag:
            moment = _before(contract, moment, generator)
        present = placed(moment.peers, moment.mask)
        values = {column: function.of(present, moment.mask) for column, function in functions.items()}
        for column in np.flatnonzero(lags == lag):
            source = sources[column]
            ego[:, column] = values[source] if source in values else moment.ego[:, source]
    low, high = contract.bounds(peers=False)
    return np.clip(ego, low, high).astype(np.float32)


def _before(contract: Contract, now: _Moment, generator: np.random.Generator) -> _Moment:
    """One decision earlier, of each frame."""
    peers_before = _peers_before(contract, now, generator)
    return _Moment(_ego_before(contract, now.ego, generator), *peers_before)


def _ego_before(contract: Contract, ego: F32, generator: np.random.Generator) -> F32:
    before, free = ego.copy(), list(free_columns(contract))
    low, high = contract.bounds(peers=False)
    before[:, free] = _stepped(ego[:, free], (low[free], high[free]), generator)
    names = {one.name: i for i, one in enumerate(contract.ego) if one.copy_of is None}
    speed, acceleration, braking = (names.get(name) for name in (SPEED, ACCELERATION, BRAKING_RECEIVED))
    if acceleration is not None:
        before[:, acceleration] = _other(ego[:, acceleration], _ends(contract, acceleration, peers=False), generator)
    if speed is not None and acceleration is not None:
        step = gain(contract, (acceleration, speed), peers=False) * before[:, acceleration]
        before[:, speed] = ego[:, speed] - step
    if HEADING in names:
        turn = generator.uniform(-1, 1, len(ego)) * decision_s(contract) / (contract.ego[names[HEADING]].scale or 1.0)
        least, most = _ends(contract, names[HEADING], peers=False)
        before[:, names[HEADING]] = least + np.mod(ego[:, names[HEADING]] - turn - least, most - least)
    if braking is not None:
        # It was a little higher; or it is new, and what was before is free.
        was = undecayed(ego[:, braking])
        fresh = generator.random(len(ego), np.float32) * (generator.random(len(ego)) < 0.5)
        before[:, braking] = np.where(ego[:, braking] >= _ends(contract, braking, peers=False)[1], fresh, was)
    return np.clip(before, low, high).astype(np.float32)


def undecayed(braking: F32) -> F32:
    """What the signal that braking was received was one decision before, unless it is new."""
    return np.where(braking > 0, braking / np.float32(DECAY), np.float32(0))


def _peers_before(contract: Contract, now: _Moment, generator: np.random.Generator) -> tuple[F32, Mask]:
    """Only what the ego's functions see of peers: nothing else of an earlier moment is in a frame."""
    peers, before = now.peers, now.peers.copy()
    names = {one.name: i for i, one in enumerate(contract.peers)}
    low, high = contract.bounds(peers=True)
    if ACCELERATION in names:
        column = names[ACCELERATION]
        before[..., column] = _other(peers[..., column], _ends(contract, column, peers=True), generator)
    if ACCELERATION in names and REL_SPEED in names:
        column = names[REL_SPEED]
        step = gain(contract, (names[ACCELERATION], column), peers=True) * before[..., names[ACCELERATION]]
        before[..., column] = np.clip(peers[..., column] - step, low[column], high[column])
    changed = generator.random(now.mask.shape, np.float32) < COMES_OR_GOES
    return before, now.mask ^ changed


def _stepped(x: F32, bounds: tuple[F32, F32], generator: np.random.Generator) -> F32:
    """A little to either side, or as it is."""
    low, high = bounds
    step = generator.standard_normal(x.shape, np.float32) * np.float32(SMALL_STEP) * (high - low)
    return np.where(generator.random(x.shape, np.float32) < STAYS, x, x + step).astype(np.float32)


def _other(x: F32, ends: tuple[float, float], generator: np.random.Generator) -> F32:
    """As it is, or anywhere."""
    low, high = np.float32(ends[0]), np.float32(ends[1])
    anew = np.clip(low + generator.random(x.shape, np.float32) * (high - low), low, high)
    return np.where(generator.random(x.shape, np.float32) < BRAKES_ANEW, anew, x)


def _ends(contract: Contract, column: int, *, peers: bool) -> tuple[float, float]:
    low, high = contract.bounds(peers=peers)
    return float(low[column]), float(high[column])


def decision_s(contract: Contract) -> float:
    """Seconds from one decision to the next; the field's where nobody knows."""
    return (contract.period_ms or PERIOD_MS) / 1000


def gain(contract: Contract, columns: tuple[int, int], *, peers: bool) -> np.float32:
    """What a value of the first column makes of the second in one decision, its integral, in normalized values."""
    own = contract.peers if peers else contract.ego
    scales = (own[column].scale or 1.0 for column in columns)
    return np.float32(decision_s(contract) * next(scales) / next(scales))


def placed(peers: F32, mask: Mask) -> F32:
    """Absent slots are zero, as in recordings."""
    return np.where(mask[:, :, None], peers, np.float32(0)).astype(np.float32)


def impossible(contract: Contract, observations: Observations) -> Mapping[str, NDArray[np.bool_]]:
    """(N,) for each rule of the contract, True where a frame breaks it: none may, of those that `fill` makes."""
    found: dict[str, NDArray[np.bool_]] = {}
    ego, peers, mask = observations.ego, observations.peers, observations.mask
    low, high = contract.bounds(peers=False)
    found["ego beyond its bounds"] = np.asarray(((ego < low) | (ego > high)).any(axis=1))
    low, high = contract.bounds(peers=True)
    beyond = ((peers < low) | (peers > high)).any(axis=2)
    found["peers beyond their bounds"] = np.asarray((beyond & mask).any(axis=1))
    reach, y = in_view(contract, peers), contract.index_of(REL_Y, peers=True)
    if reach is not None and y is not None:
        outside = (peers[..., y] < reach[0] - 1e-5) | (peers[..., y] > reach[1] + 1e-5)
        found["peers out of view"] = np.asarray((outside & mask).any(axis=1))
    for column, function in contract.functions.items():
        found[f"{function.name} is another"] = np.abs(ego[:, column] - function.of(peers, mask)) > 1e-5
    return found | _impossible_before(contract, ego) | _impossible_motion(contract, ego)


def _impossible_before(contract: Contract, ego: F32) -> dict[str, NDArray[np.bool_]]:
    """Functions of the peers in older frames that no peers have."""
    found: dict[str, NDArray[np.bool_]] = {}
    for lag in range(1, contract.depth):
        columns = {source: column for (source, back), column in contract.places.items() if back == lag}
        older = {contract.ego[source].function: ego[:, column] for source, column in columns.items()}
        number = older.get(NUMBER)
        if number is not None:
            slots = np.float32(contract.max_peers)
            found[f"no {NUMBER}, {lag} back"] = np.abs(number * slots - np.rint(number * slots)) > 1e-3
            for name, values in older.items():
                if name is not None and name != NUMBER:
                    found[f"{name} of nobody, {lag} back"] = (number < 1e-6) & (values != 0)
    return found


def _impossible_motion(contract: Contract, ego: F32) -> dict[str, NDArray[np.bool_]]:
    """Older frames that do not lead to the newer ones; what lies at a bound may have been cut there."""
    found: dict[str, NDArray[np.bool_]] = {}
    low, high = contract.bounds(peers=False)
    acceleration = contract.index_of(ACCELERATION, peers=False)
    for (source, lag), column in contract.places.items():
        newer, name = contract.ego[column].copy_of, contract.ego[source].name
        if newer is None:
            continue
        if name == SPEED and acceleration is not None and (acceleration, lag) in contract.places:
            gained = gain(contract, (acceleration, source), peers=False) * ego[:, contract.places[acceleration, lag]]
            was = np.clip(ego[:, newer] - gained, low[column], high[column])
            found[f"{name} that no acceleration made, {lag} back"] = np.abs(ego[:, column] - was) > MOTION
        if name == BRAKING_RECEIVED:
            was = np.clip(ego[:, newer] / np.float32(DECAY), np.maximum(low[column], 0), high[column])
            fades = ego[:, newer] < high[newer]
            found[f"{name} that did not fade, {lag} back"] = fades & (np.abs(ego[:, column] - was) > MOTION)
    return found
