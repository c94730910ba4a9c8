"""What holds between the columns of an observation over time, each as the share of telling frames in which it does.

A relation scores frames from 0 to 1, or not at all where they do not tell. Recorded drives are noisy: positions jump,
speeds repeat for a second, and a log may interleave what several cars saw. So each relation looks only at the moments
that tell (a value jumps, a peer is seen twice in a row), and counts in how many of them it holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quant.observation.contract import Column, Contract
from quant.observation.functions import (
    ACCELERATION,
    AGE,
    BRAKING_RECEIVED,
    HEADING,
    KNOWN,
    LOWEST_ACCELERATION,
    REL_HEADING,
    REL_SPEED,
    REL_X,
    REL_Y,
    SPEED,
)
from quant.observation.resolve import ALIKE, Series

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
Kind = Literal["ego", "peers", "t_ms", "mask"]
Ref = tuple[Kind, int]
"""A column of the ego or of the peers, the times, or the mask."""
TIME: Ref = ("t_ms", 0)
MASK: Ref = ("mask", 0)

MOST_FRAMES = 20_000
"""Frames that relations are looked for in; bounds are held against all."""
CHUNKS = 4
"""Pieces of a longer drive that these frames are taken from."""
LEAST = 20
"""Telling moments below which a relation says nothing."""
WINDOW_MS = 2000.0
"""Over which distances and speeds are compared: recorded positions jump by metres from one frame to the next."""
STEPS = (0.7, 1.25)
"""What a frame's step may be of the policy's period."""
SHORTEST = 0.25
"""The same where frames come in irregular steps: a log of what several cars saw has several in one period."""
HOLE = 3.0
"""Steps above this many of the longest usual ones are holes."""
HEADINGS = (HEADING, REL_HEADING)
Grade = Literal["stated", "exact", "usual", "soft"]
"""Of a relation: somebody stated it; it holds to the last digit or not at all; the field's usual range; a tendency."""


@dataclass(frozen=True)
class Frames:
    """Frames as relations read them: float64, slots that are ever taken, and what was paired with what.

    Attributes:
        ego, peers, mask: (N, E), (N, S, F), (N, S).
        counts: (N,) peers by the mask, as a share of the policy's slots.
        t: (N,) milliseconds; None where unknown.
        follows: (N,) True where a row was made one step after the row before it.
        pairs: rows and slots of peers that were there in that row and in the one before.
        whole: (N,) False where a peer that was there is left out, so that functions of all are not known.
    """

    ego: F64
    peers: F64
    mask: Bools
    counts: F64
    t: F64 | None
    follows: Bools
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]] = field(repr=False)
    whole: Bools = field(repr=False)

    @staticmethod
    def of(series: Series) -> Frames:
        """Those of a drive, or of pieces of a long one."""
        seen, n = series.observations, len(series.observations)
        rows, follows = np.arange(n), series.follows.copy()
        if n > MOST_FRAMES:
            length = MOST_FRAMES // CHUNKS
            starts = np.linspace(0, n - length, CHUNKS).astype(np.int64)
            rows = (starts[:, None] + np.arange(length)).ravel()
            follows = follows[rows]
            follows[::length] = False
        used = int(np.flatnonzero(seen.mask.any(axis=0)).max(initial=-1)) + 1
        mask = seen.mask[rows, :used]
        times = None if series.t_ms is None else series.t_ms[rows].astype(np.float64)
        return Frames(
            seen.ego[rows].astype(np.float64),
            seen.peers[rows, :used].astype(np.float64),
            mask,
            seen.counts[rows] / max(seen.mask.shape[1], 1),
            times,
            follows,
            _pairs(mask, follows),
            np.ones(len(rows), np.bool_),
        )

    def only(self, known: Bools) -> Frames:
        """The same frames without the peers (N, S) that are not known."""
        mask = self.mask & known
        left_out = np.asarray((self.mask & ~known).any(axis=1))
        return replace(self, mask=mask, pairs=_pairs(mask, self.follows), whole=~left_out)

    def column(self, ref: Ref) -> F64:
        """(N,) of the ego, (N, S) of the peers."""
        return self.ego[:, ref[1]] if ref[0] == "ego" else self.peers[:, :, ref[1]]

    def values(self, ref: Ref) -> F64:
        """Those of the ego, or of the peers present."""
        return self.ego[:, ref[1]] if ref[0] == "ego" else self.peers[:, :, ref[1]][self.mask]

    def with_column(self, ref: Ref, values: F64) -> Frames:
        """The same frames with other values in one column."""
        if ref[0] == "ego":
            ego = self.ego.copy()
            ego[:, ref[1]] = values
            return replace(self, ego=ego)
        peers = self.peers.copy()
        peers[:, :, ref[1]] = values
        return replace(self, peers=peers)

    def change(self, index: int) -> F64:
        """(M,) change of one of the peers' columns over each of `pairs`."""
        rows, slots = self.pairs
        column = self.peers[:, :, index]
        return np.asarray(column[rows, slots] - column[rows - 1, slots])

    def ego_change(self, index: int) -> F64:
        """(M,) change of the ego's column over each of `pairs`."""
        rows, _ = self.pairs
        return np.asarray(self.ego[rows, index] - self.ego[rows - 1, index])


def _pairs(mask: Bools, follows: Bools) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows, slots = np.nonzero(mask[1:] & mask[:-1] & follows[1:, None])
    return rows + 1, slots


@dataclass(frozen=True)
class Relation:
    """One thing that holds between columns.

    Attributes:
        name: in words.
        columns: that it is of; the first is the one it says most of.
        score: the share of telling moments in which it holds; None where too few tell.
        fails: scores below this are as if it did not hold.
        fits: scores from this on are as if it did.
        grade: how much it weighs.
        dates: whether it tells when a column was measured: positions of a satellite come a second late by themselves.
        scales: whether it holds only if its columns are in the right units.
    """

    name: str
    columns: tuple[Ref, ...]
    score: Callable[[Frames], float | None]
    fails: float
    fits: float
    grade: Grade
    dates: bool = True
    scales: bool = False


def relations_of(contract: Contract, frames: Frames) -> list[Relation]:
    """All that can be said of columns with these names and facts."""
    found = [*_bounds(contract), *_functions(contract), *_copies(contract), *_kinematics(contract, frames)]
    return [*found, *_time(contract), *_habits(contract)]


def _share(holds: Bools, least: int = LEAST) -> float | None:
    return float(holds.mean()) if len(holds) >= least else None


def alike(one: F64, other: F64) -> Bools:
    """Equal to what a half float or three digits would keep."""
    return np.asarray(np.abs(one - other) <= 2e-6 + 1e-3 * np.maximum(np.abs(one), np.abs(other)))


# Bounds


def stated(column: Column) -> bool:
    """Whether the user or the checkpoint said how far it goes, not only what is usual in the field."""
    return {column.origin("low"), column.origin("high")} <= {"file", "checkpoint"}


def _bounds(contract: Contract) -> Iterator[Relation]:
    for ref, column in columns_of(contract):
        if column.low is None and column.high is None:
            continue
        grade: Grade = "stated" if stated(column) else "usual"
        if grade == "usual" and not contract.preset:
            continue  # a guess by the number of columns alone
        yield Relation("its bounds", (ref,), _within(ref, column, grade == "stated"), 1.0, 1.0, grade, dates=False)


def columns_of(contract: Contract) -> Iterator[tuple[Ref, Column]]:
    """Every column with its place."""
    yield from ((("ego", index), column) for index, column in enumerate(contract.ego))
    yield from ((("peers", index), column) for index, column in enumerate(contract.peers))


def excess(values: F64, column: Column) -> F64:
    """How far each value is beyond the bounds, as a share of what lies between them."""
    low = -math.inf if column.low is None else column.low
    high = math.inf if column.high is None else column.high
    width = high - low if math.isfinite(high - low) else max(abs(low), 1.0) if math.isfinite(low) else max(high, 1.0)
    return np.asarray(np.maximum(np.maximum(low - values, values - high), 0.0) / width)


def _within(ref: Ref, column: Column, is_stated: bool) -> Callable[[Frames], float | None]:
    def score(frames: Frames) -> float | None:
        values = frames.values(ref)
        return None if len(values) == 0 else bounds_kept(values, column, is_stated)

    return score


def bounds_kept(values: F64, column: Column, is_stated: bool) -> float:
    """The share of values within the bounds; 1 also where they are beyond usual ones by no more than drives may be."""
    beyond = excess(values, column)
    outside = beyond > 1e-3
    inside = 1.0 - float(outside.mean())
    # Angles come round at their bounds, and a message older than the greatest age is not used.
    if is_stated or column.name in (*HEADINGS, AGE):
        return inside
    if column.low == 0.0 and float((values < -5e-3).mean()) > 0.01:
        return inside
    return inside if beyond.max(initial=0.0) > 1.0 else 1.0


# Functions of the peers


def computed(frames: Frames, name: str, contract: Contract) -> F64:
    """(N,) a function of the peers present, by its name."""
    function = KNOWN[name]
    if function.feature is None:
        return frames.counts
    column = contract.index_of(function.feature, peers=True)
    assert column is not None
    return function.extreme(frames.peers[:, :, column], frames.mask)


def _functions(contract: Contract) -> Iterator[Relation]:
    for index, function in contract.functions.items():
        refs: tuple[Ref, ...] = (("ego", index), MASK if function.column is None else ("peers", function.column))
        score = function_score(index, function.name, contract)
        yield Relation(f"being the {function.name}", refs, score, 0.998, 0.998, "exact")


def function_score(index: int, name: str, contract: Contract) -> Callable[[Frames], float | None]:
    """Of a column being what a function makes of the peers present."""

    def score(frames: Frames) -> float | None:
        own, right = frames.ego[:, index], computed(frames, name, contract)
        telling = ((np.abs(own) > 1e-4) | (np.abs(right) > 1e-4)) & frames.whole
        return _share(alike(own, right)[telling])

    return score


# Copies of a stack


def _copies(contract: Contract) -> Iterator[Relation]:
    for index, column in enumerate(contract.ego):
        if column.copy_of is not None:
            refs: tuple[Ref, ...] = (("ego", index), ("ego", column.copy_of))
            yield Relation(
                "being a copy of one step before", refs, copy_score(index, column.copy_of), 0.995, 0.995, "exact"
            )


def copy_score(index: int, source: int) -> Callable[[Frames], float | None]:
    """Of a column being what another one was one row before."""

    def score(frames: Frames) -> float | None:
        follows = frames.follows[2:] & frames.follows[1:-1]
        copy, origin = frames.ego[:, index], frames.ego[:, source]
        now, own, before = copy[2:], origin[2:], origin[1:-1]
        # A value that stays as it is says nothing of when it was.
        moves = [np.abs(a - b) > ALIKE for a, b in ((own, before), (before, origin[:-2]), (now, copy[1:-1]))]
        telling = follows & (moves[0] | moves[1] | moves[2])
        return _share(np.abs(now - before)[telling] <= 2 * ALIKE)

    return score


# Motion


def _kinematics(contract: Contract, frames: Frames) -> Iterator[Relation]:
    for own, relative in ((SPEED, REL_SPEED), (HEADING, REL_HEADING)):
        at, peer = contract.index_of(own, peers=False), contract.index_of(relative, peers=True)
        if at is not None and peer is not None:
            yield Relation(
                f"{relative} falling by what {own} rises",
                (("ego", at), ("peers", peer)),
                _steady(at, peer, own == HEADING),
                0.45,
                0.35,
                "soft",
            )
    places = {name: contract.index_of(name, peers=True) for name in (REL_X, REL_Y, REL_SPEED, REL_HEADING)}
    x, y, speed, heading = (places[name] for name in (REL_X, REL_Y, REL_SPEED, REL_HEADING))
    if x is not None and y is not None and contract.view_deg is not None:
        turning = turning_by(contract)
        if turning is not None:
            refs: tuple[Ref, ...] = (("peers", y), ("peers", x), turning)
            yield Relation("peers turning with the heading", refs, _turning(x, y, turning), 0.15, 0.3, "soft")
            yield Relation("two peers turning with the heading", refs, _turning_two(x, y, turning), 0.2, 0.5, "soft")
        yield Relation(
            "lying within the view",
            (("peers", y), ("peers", x)),
            _in_view(x, y, contract.view_deg),
            0.98,
            0.995,
            "soft",
        )
        yield Relation("moving when rel_x does", (("peers", x), ("peers", y)), _together(x, y), 0.5, 0.75, "soft")
        yield Relation("being 0 when rel_y is", (("peers", x), ("peers", y)), _zero_together(x, y), 0.5, 0.9, "soft")
        if heading is not None:
            yield Relation(
                "moving when rel_y does", (("peers", heading), ("peers", y)), _together(heading, y), 0.3, 0.7, "soft"
            )
    if x is not None and speed is not None and frames.t is not None:
        yield from _closing(contract, frames, x, speed)
    own_speed, acceleration = (contract.index_of(name, peers=False) for name in (SPEED, ACCELERATION))
    if own_speed is not None and acceleration is not None and frames.t is not None:
        yield from _accelerating(contract, frames, own_speed, acceleration)


def _around(change: F64) -> F64:
    """A change of an angle in half turns, the short way round; of anything larger as it is."""
    return np.where(np.abs(change) <= 2.0, (change + 1.0) % 2.0 - 1.0, change)


def jumps(change: F64, values: F64) -> Bools:
    """Changes that stand out of the digits a column is written with."""
    spread = float(np.subtract(*np.quantile(values, (0.99, 0.01)))) if len(values) else 0.0
    return np.asarray(np.abs(change) > max(3e-3 * spread, 1e-9))


def _steady(own: int, relative: int, angle: bool) -> Callable[[Frames], float | None]:
    def score(frames: Frames) -> float | None:
        mine, theirs = frames.ego_change(own), frames.change(relative)
        if angle:
            mine, theirs = _around(mine), _around(theirs)
        jumped = jumps(mine, frames.ego[:, own])
        rest = theirs[jumped] + mine[jumped]
        return _share(np.abs(rest) <= 0.03 * np.abs(mine[jumped]))

    return score


def _turning(x: int, y: int, turning: Ref) -> Callable[[Frames], float | None]:
    """Whether a peer goes aside by as much as the ego turns."""

    def score(frames: Frames) -> float | None:
        rows, slots = frames.pairs
        angle = turned(frames, turning)
        jumped = jumps(angle, frames.values(turning))
        rows, slots = rows[jumped], slots[jumped]
        before = np.stack([frames.peers[rows - 1, slots, index] for index in (x, y)])
        now = np.stack([frames.peers[rows, slots, index] for index in (x, y)])
        return _rotated(before, now, angle[jumped])

    return score


def _turning_two(x: int, y: int, turning: Ref) -> Callable[[Frames], float | None]:
    """Whether the way from one peer to another turns with the heading, whoever of several cars sees them."""

    def score(frames: Frames) -> float | None:
        rows, slots = frames.pairs
        angles = np.full((len(frames.ego), max(frames.mask.shape[1], 2)), np.nan)
        angles[rows, slots] = turned(frames, turning)
        # As the headings of both peers show it: that of one may have changed by itself.
        same = np.abs(angles[:, 0] - angles[:, 1]) <= 2e-4
        at = np.flatnonzero(same & jumps(angles[:, 0], frames.values(turning)))
        if len(at) == 0:
            return None
        between = [frames.peers[:, 1, index] - frames.peers[:, 0, index] for index in (x, y)]
        before, now = (np.stack([one[which] for one in between]) for which in (at - 1, at))
        return _rotated(before, now, angles[at, 0])

    return score


def turning_by(contract: Contract) -> Ref | None:
    """The column that shows how the ego turns."""
    own, relative = contract.index_of(HEADING, peers=False), contract.index_of(REL_HEADING, peers=True)
    if own is not None:
        return ("ego", own)
    return None if relative is None else ("peers", relative)


def turned(frames: Frames, turning: Ref) -> F64:
    """(M,) by how much the ego's heading rose, in half turns, over each of the pairs."""
    if turning[0] == "ego":
        return _around(frames.ego_change(turning[1]))
    return -_around(frames.change(turning[1]))  # the heading of a peer falls by what the ego's rises


def _rotated(before: F64, now: F64, angle: F64) -> float | None:
    """The share of places (2, K) that have turned by an angle.

    The field's heading is a compass', clockwise: what lies ahead goes to the left when it rises.
    """
    turn = angle * math.pi
    expected = np.stack(
        [before[0] * np.cos(turn) - before[1] * np.sin(turn), before[1] * np.cos(turn) + before[0] * np.sin(turn)]
    )
    size = np.hypot(*(expected - before))
    return _share((np.hypot(*(now - expected)) <= 0.15 * size)[size > 1e-5])


def _in_view(x: int, y: int, view_deg: float) -> Callable[[Frames], float | None]:
    slope = math.tan(math.radians(view_deg))

    def score(frames: Frames) -> float | None:
        ahead, aside = frames.values(("peers", x)), frames.values(("peers", y))
        return _share(np.abs(aside) <= slope * ahead + 5e-3)

    return score


def _together(one: int, other: int) -> Callable[[Frames], float | None]:
    """Whether two columns of a peer that come of the same measurement change in the same frames."""

    def score(frames: Frames) -> float | None:
        changed = [np.abs(frames.change(index)) > 1e-7 for index in (one, other)]
        either = changed[0] | changed[1]
        if either.sum() > 0.8 * len(either):  # they always change
            return None
        return _share((changed[0] & changed[1])[either])

    return score


def _zero_together(one: int, other: int) -> Callable[[Frames], float | None]:
    """Whether a peer is nowhere aside where it is nowhere ahead: the ego itself, among what several cars saw."""

    def score(frames: Frames) -> float | None:
        zero = [frames.values(("peers", index)) == 0 for index in (one, other)]
        return _share((zero[0] & zero[1])[zero[0] | zero[1]])

    return score


def _windows(t: F64, follows: Bools, there: Bools) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last rows of stretches of `WINDOW_MS` in which rows follow on each other and a peer is there."""
    ends = np.searchsorted(t, t + WINDOW_MS)
    starts = np.flatnonzero(ends < len(t))
    ends = ends[starts]
    broken = np.concatenate([[0], np.cumsum(~(there & follows))])
    whole = (broken[ends + 1] == broken[starts + 1]) & there[starts]
    return starts[whole], ends[whole]


def _integral(values: F64, t: F64) -> F64:
    """(N,) over time in seconds, each value held until the next."""
    return np.concatenate([[0.0], np.cumsum(values[:-1] * np.diff(t) / 1000.0)])


def _closing(contract: Contract, frames: Frames, x: int, speed: int) -> Iterator[Relation]:
    metres, a_second = contract.peers[x].scale, contract.peers[speed].scale
    assert frames.t is not None
    if metres is None or a_second is None or not (np.diff(frames.t) > 0).all():
        return
    slots = range(frames.mask.shape[1])
    windows = {slot: _windows(frames.t, frames.follows, frames.mask[:, slot]) for slot in slots}

    def paths(frames: Frames) -> tuple[list[F64], list[F64]]:
        moved, expected = [], []
        assert frames.t is not None
        for slot, (starts, ends) in windows.items():
            if len(starts):
                distance = frames.peers[:, slot, x] * metres
                path = _integral(frames.peers[:, slot, speed] * a_second, frames.t)
                moved.append(distance[ends] - distance[starts])
                expected.append(path[ends] - path[starts])
        return moved, expected

    refs: tuple[Ref, ...] = (("peers", x), ("peers", speed), TIME)
    yield from _following("rel_x changing by rel_speed", refs, paths, 2.0)


def _accelerating(contract: Contract, frames: Frames, speed: int, acceleration: int) -> Iterator[Relation]:
    scales = contract.ego[speed].scale, contract.ego[acceleration].scale
    assert frames.t is not None
    if scales[0] is None or scales[1] is None or not (np.diff(frames.t) > 0).all():
        return
    a_second, of_that = scales[0], scales[1]
    starts, ends = _windows(frames.t, frames.follows, np.ones(len(frames.t), np.bool_))

    def paths(frames: Frames) -> tuple[list[F64], list[F64]]:
        assert frames.t is not None
        path = _integral(frames.ego[:, acceleration] * of_that, frames.t)
        own = frames.ego[:, speed] * a_second
        return [own[ends] - own[starts]], [path[ends] - path[starts]]

    refs: tuple[Ref, ...] = (("ego", speed), ("ego", acceleration), TIME)
    yield from _following("speed changing by acceleration", refs, paths, 1.0)


Paths = Callable[[Frames], tuple[list[F64], list[F64]]]
"""By how much a column changed over each window, and by how much another one says."""


def _following(name: str, refs: tuple[Ref, ...], paths: Paths, least: float) -> Iterator[Relation]:
    """As much, where drives are good enough for that, and at least the same way."""
    as_much = Relation(name, refs, lambda frames: _followed(*paths(frames), least), 0.2, 0.6, "soft", False, True)
    yield as_much
    yield Relation(f"{name}, the same way", refs, lambda frames: _agreed(*paths(frames)), 0.2, 0.6, "soft", dates=False)


def _agreed(moved: list[F64], expected: list[F64]) -> float | None:
    """The correlation where it is positive."""
    if not moved:
        return None
    change, path = np.concatenate(moved), np.concatenate(expected)
    if len(change) < 10 * LEAST or min(change.std(), path.std()) < 1e-9:
        return None
    return max(float(np.corrcoef(change, path)[0, 1]), 0.0)


def _followed(moved: list[F64], expected: list[F64], least: float) -> float | None:
    if not moved:
        return None
    change, path = np.concatenate(moved), np.concatenate(expected)
    telling = np.maximum(np.abs(change), np.abs(path)) > least
    off = np.abs(change - path)[telling]
    return _share(off <= 0.25 * np.maximum(np.abs(change), np.abs(path))[telling])


# Time


def usual_step(t: F64) -> float | None:
    """Mean milliseconds of a frame, holes left out; None where times do not increase."""
    steps = np.diff(t)
    if len(steps) < LEAST or not (steps > 0).all():
        return None
    return float(steps[~holes(t)].mean())


def regular(t: F64) -> bool:
    """Whether nine in ten steps are alike."""
    shortest, longest = np.quantile(np.diff(t), (0.05, 0.95))
    return bool(longest < 2.0 * shortest)


def holes(t: F64) -> Bools:
    """(N - 1,) steps that are far beyond the longest usual ones."""
    steps = np.diff(t)
    if len(steps) == 0:
        return np.zeros(0, np.bool_)
    return np.asarray(steps > HOLE * max(float(np.quantile(steps, 0.95)), 0.0))


def _time(contract: Contract) -> Iterator[Relation]:
    period = contract.period_ms
    if period is not None and contract.known.get("period_ms") != "data":

        def step(frames: Frames) -> float | None:
            mean = None if frames.t is None else usual_step(frames.t)
            if mean is None or frames.t is None:
                return None
            return float((STEPS[0] if regular(frames.t) else SHORTEST) <= mean / period <= STEPS[1])

        yield Relation("the policy's period", (TIME,), step, 1.0, 1.0, "exact")
    age, acceleration = (contract.index_of(name, peers=True) for name in (AGE, ACCELERATION))
    scale = None if age is None else contract.peers[age].scale
    if age is None or acceleration is None or scale is None:
        return
    refs: tuple[Ref, ...] = (("peers", age), TIME, ("peers", acceleration))
    yield Relation("age rising with time", refs, _ageing(age, acceleration, scale), 0.3, 0.7, "soft")


def _ageing(age: int, acceleration: int, scale: float) -> Callable[[Frames], float | None]:
    def score(frames: Frames) -> float | None:
        if frames.t is None:
            return None
        rows, _ = frames.pairs
        older = frames.change(age) * scale
        passed = frames.t[rows] - frames.t[rows - 1]
        # A new message brings a new acceleration and an age of its own.
        same = (np.abs(frames.change(acceleration)) < 1e-7) & (older > 0)
        off = np.abs(older - passed)[same]
        return _share(off <= np.maximum(0.05 * np.abs(passed[same]), np.minimum(2.0, 0.5 * np.abs(passed[same]))))

    return score


# Habits of the field's drives


def _habits(contract: Contract) -> Iterator[Relation]:
    if not contract.preset:
        return
    speed, acceleration, braking = (
        contract.index_of(name, peers=False) for name in (SPEED, ACCELERATION, BRAKING_RECEIVED)
    )
    theirs, heading, y = (contract.index_of(name, peers=True) for name in (ACCELERATION, REL_HEADING, REL_Y))
    if braking is not None and theirs is not None:
        refs: tuple[Ref, ...] = (("ego", braking), ("peers", theirs), MASK)
        yield Relation("being 1 while a peer brakes", refs, _braking(braking, contract), 0.99, 0.99, "soft")
    if acceleration is not None and theirs is not None:
        refs = (("ego", acceleration), ("peers", theirs))
        yield Relation("being one of the accelerations", refs, _own_echo(acceleration, theirs), 0.4, 0.4, "soft")
    if speed is not None:
        yield Relation("being 0 while it stands", (("ego", speed),), _standing(speed), 0.3, 0.8, "soft")
    relative = contract.index_of(REL_SPEED, peers=True)
    if speed is not None and relative is not None:
        refs = (("peers", relative), ("ego", speed))
        yield Relation("being 0 while it stands among others", refs, _still(speed, relative), 0.1, 0.4, "soft")
    if heading is not None:
        refs = (("peers", heading),)
        yield Relation("peers driving along", refs, _near(heading, 0.06, around=True), 0.25, 0.6, "soft")
    if y is not None:
        yield Relation("peers lying ahead", (("peers", y),), _near(y, 0.05, around=False), 0.15, 0.6, "soft")


def _braking(braking: int, contract: Contract) -> Callable[[Frames], float | None]:
    """Whether the column is 1 exactly where the lowest acceleration is below some threshold, near where that turns."""

    def score(frames: Frames) -> float | None:
        full = np.asarray(np.abs(frames.ego[:, braking] - 1.0) < 1e-3)
        lowest = computed(frames, LOWEST_ACCELERATION, contract)
        full, lowest = np.asarray(full[frames.whole]), lowest[frames.whole]
        if full.all() or not full.any():
            return None
        turns = np.flatnonzero(full[1:] != full[:-1])
        near = np.zeros(len(full), np.bool_)
        for start in turns:
            near[max(start - 15, 0) : start + 17] = True
        full, lowest = full[near], lowest[near]
        if not full.any() or full.all() or len(full) < LEAST:
            return None
        # The best threshold: after sorting, full below it and not full above.
        order = np.argsort(lowest, kind="stable")
        ones = np.cumsum(full[order]) / full.sum()
        others = np.cumsum(~full[order]) / (~full).sum()
        ends = np.concatenate([np.diff(lowest[order]) > 0, [True]])
        return float((1.0 + (ones - others)[ends].max()) / 2.0)

    return score


def _own_echo(acceleration: int, theirs: int) -> Callable[[Frames], float | None]:
    """Whether the ego's own message is among the peers': a log of several cars has that, and then to the last digit."""

    def score(frames: Frames) -> float | None:
        own = frames.ego[:, acceleration]
        same = frames.mask & (np.abs(frames.peers[:, :, theirs] - own[:, None]) <= 2e-6)
        telling = np.asarray((np.abs(own) > 1e-3) & frames.mask.any(axis=1))
        return _share(np.asarray(same.any(axis=1))[telling], 100)

    return score


def _standing(speed: int) -> Callable[[Frames], float | None]:
    """Share of the long stretches of one and the same speed, three seconds of the field's ten frames, that are at 0."""

    def score(frames: Frames) -> float | None:
        values = frames.ego[:, speed]
        changes = np.flatnonzero(np.concatenate([[True], np.abs(np.diff(values)) > 1e-7, [True]]))
        long = [(start, stop) for start, stop in pairwise(changes.tolist()) if stop - start >= 30]
        if len(long) < 2 or len(changes) < LEAST:
            return None
        frames_standing = sum(stop - start for start, stop in long)
        at_zero = sum(stop - start for start, stop in long if abs(values[start]) < 1e-4)
        return at_zero / frames_standing

    return score


def _still(speed: int, relative: int) -> Callable[[Frames], float | None]:
    """Share of the peers that stand where the ego does."""

    def score(frames: Frames) -> float | None:
        standing = frames.mask & (np.abs(frames.ego[:, speed, None]) < 1e-4)
        return _share(np.abs(frames.peers[:, :, relative][standing]) < 0.01, 100)

    return score


def _near(index: int, within: float, *, around: bool) -> Callable[[Frames], float | None]:
    def score(frames: Frames) -> float | None:
        values = np.abs(frames.values(("peers", index)))
        away = np.minimum(values, np.abs(values - 1.0)) if around else values
        return _share(np.asarray(away < within), 200)

    return score
