"""What may have been done to a recording, each with how to undo it: whether one is so, the relations tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import Any

import numpy as np

from quant.observation.contract import Contract
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
from quant.observation.relations import (
    F64,
    HEADINGS,
    MASK,
    TIME,
    Frames,
    Ref,
    columns_of,
    computed,
    function_score,
    jumps,
    turned,
    turning_by,
)

FACTORS = (30.0, 100.0, 1000.0, 10.0, 180 / math.pi, 8.0, 500.0)
"""By which columns are commonly off: what presets divide by, millimetres and milliseconds, degrees."""
OF_ANGLES = (180.0, math.pi)
OF_SPEEDS = (3.6,)
TIMES = (10.0, 1000.0, 100.0, 1e6, 2.0, 5.0)
RATES = (2.0, 5.0, 0.5, 0.2)
"""Those that are another rate as well."""
MOST_LATE = 20
USUAL = {
    SPEED: 0.4,
    ACCELERATION: 0.45,
    HEADING: 1.0,
    NUMBER: 0.25,
    LOWEST_ACCELERATION: 0.4,
    BRAKING_RECEIVED: 1.0,
    LARGEST_CLOSING: 0.2,
    REL_X: 0.5,
    REL_Y: 0.07,
    REL_SPEED: 0.17,
    REL_HEADING: 0.12,
    AGE: 0.8,
}
"""How far columns go in traffic, nine in ten of the extremes: only to choose between causes that explain the same."""
SPREADS = {**USUAL, HEADING: 2.0, ACCELERATION: 0.3, REL_X: 0.35, REL_Y: 0.1, REL_SPEED: 0.25, REL_HEADING: 0.2}
"""And how far they move."""
HELD = 0.9
"""A function of the peers that fits in so many of the frames that tell is in the drive."""
DEEPEST = 4
"""Stacks whose orders are all tried."""


@dataclass(frozen=True)
class Hypothesis:
    """One thing that may have been done.

    Attributes:
        name: of `quant.observation.findings.NAMES`.
        columns: whose values it changed.
        undo: gives the frames as they would be without.
        cause: in words.
        unlikely: how much less common it is than others that explain the same.
        subject: the columns to name, where not all.
        by_columns: whether a relation between columns has to say so, for something that steps alone do not show.
        by_contract: whether undoing it gives what the contract says, which proves nothing where that is assumed.
    """

    name: str
    columns: tuple[Ref, ...]
    undo: Callable[[Frames], Frames]
    cause: str
    unlikely: float
    subject: tuple[Ref, ...] | None = None
    by_columns: bool = False
    by_contract: bool = False


def hypotheses(contract: Contract, frames: Frames, touched: Collection[Ref]) -> Iterator[Hypothesis]:
    """All that may explain why relations of these columns do not hold."""
    if TIME in touched and frames.t is not None:
        yield from _times()
    if MASK in touched:
        yield Hypothesis(
            "mask-inverted", (MASK,), lambda one: replace(one, counts=1.0 - one.counts), "the mask is inverted", 0.0
        )
    yield from _all_scaled(contract, touched)
    yield from _orders(contract, touched)
    columns = [ref for ref in touched if ref[0] in ("ego", "peers")]
    for ref in columns:
        yield from _single(contract, frames, ref)
    yield from _swaps(contract, columns)


def describe(contract: Contract, refs: Sequence[Ref]) -> str:
    """Columns in words, each with its place."""
    words = []
    for kind, index in refs:
        if kind in ("ego", "peers"):
            columns, owner = (contract.ego, "ego") if kind == "ego" else (contract.peers, "peers'")
            lag = contract.lags[index] if kind == "ego" else 0
            back = f", {lag} frame{'s'[: lag > 1]} back" if lag else ""
            name = columns[index].name.removeprefix(f"{kind.removesuffix('s')} ")
            words.append(f"{owner} {name} (column {index}{back})")
    return " and ".join(words)


def unusual(contract: Contract, frames: Frames, refs: Sequence[Ref]) -> float:
    """How far columns are from the field's usual reach and spread, in powers of ten, on the mean."""
    off = []
    for ref in refs:
        if ref[0] not in ("ego", "peers"):
            continue
        name = (contract.ego if ref[0] == "ego" else contract.peers)[ref[1]].name
        values = frames.values(ref)
        if name in USUAL and len(values):
            low, high, reach = (*np.quantile(values, (0.01, 0.99)), np.quantile(np.abs(values), 0.99))
            pairs = ((float(reach), USUAL[name]), (float(high - low), SPREADS[name]))
            off.append(sum(abs(math.log10(max(value, 1e-6) / usual)) for value, usual in pairs) / 2)
    return sum(off) / len(off) if off else 0.0


def _times() -> Iterator[Hypothesis]:
    units = {1000.0: "microseconds", 1e-3: "seconds", 1e6: "nanoseconds"}
    for factor in (*TIMES, *(1.0 / one for one in TIMES)):
        unit = next((name for one, name in units.items() if math.isclose(one, factor)), None)
        times = f"{factor:g} times" if factor > 1 else f"1/{1 / factor:g} of"
        cause = f"t_ms is {times} the milliseconds" + (f": it counts {unit}" if unit else "")

        def undo(frames: Frames, factor: float = factor) -> Frames:
            return frames if frames.t is None else replace(frames, t=frames.t / factor)

        rate = factor in RATES
        yield Hypothesis("time-unit", (TIME,), undo, cause, 0.3 if rate else 0.0, by_columns=rate)


def in_words(factor: float) -> str:
    """A factor as a person would say it."""
    whole = factor if factor >= 1 else 1 / factor
    named = {180 / math.pi: "180/pi, degrees for radians", math.pi: "pi, radians", 180.0: "180, degrees"}
    value = next((text for one, text in named.items() if math.isclose(one, whole)), f"{whole:g}")
    return f"times {value}" if factor >= 1 else f"divided by {value}"


def _divided(factor: float) -> Callable[[F64], F64]:
    return lambda values: np.asarray(values / factor)


def _lowered(offset: float) -> Callable[[F64], F64]:
    return lambda values: np.asarray(values - offset)


def _undone(refs: Sequence[Ref], change: Callable[[F64], F64]) -> Callable[[Frames], Frames]:
    def undo(frames: Frames) -> Frames:
        for ref in refs:
            frames = frames.with_column(ref, change(frames.column(ref)))
        return frames

    return undo


def _all_scaled(contract: Contract, touched: Collection[Ref]) -> Iterator[Hypothesis]:
    every = [ref for ref, _ in columns_of(contract)]
    groups = {"ego's": [r for r in every if r[0] == "ego"], "peers'": [r for r in every if r[0] == "peers"]}
    groups["ego's and peers'"] = every
    for owner, refs in groups.items():
        if len(refs) < 2 or not set(refs) & set(touched):
            continue
        for factor in (*FACTORS, *(1.0 / one for one in FACTORS)):
            cause = f"all of the {owner} columns are {in_words(factor)}" + (": not normalized" if factor > 1 else "")
            undo = _undone(refs, _divided(factor))
            rarer = (0.0 if factor >= 1 else 0.3) + (0.1 if refs is every else 0.0)
            yield Hypothesis("all-scaled", tuple(refs), undo, cause, 0.2 + rarer)


def _orders(contract: Contract, touched: Collection[Ref]) -> Iterator[Hypothesis]:
    copies = {i for i, column in enumerate(contract.ego) if column.copy_of is not None}
    if any(("ego", i) in touched for i in copies):
        yield from orders(contract)


def orders(contract: Contract) -> Iterator[Hypothesis]:
    """Every other order of a stack's frames."""
    copies = {i for i, column in enumerate(contract.ego) if column.copy_of is not None}
    if not 2 <= contract.depth <= DEEPEST:
        return
    place = contract.places
    stacked = sorted({contract.sources[i] for i in copies})
    refs: tuple[Ref, ...] = tuple(("ego", place[source, lag]) for source in stacked for lag in range(contract.depth))
    for order in permutations(range(contract.depth)):
        if order == tuple(range(contract.depth)):
            continue

        def undo(frames: Frames, order: tuple[int, ...] = order) -> Frames:
            ego = frames.ego.copy()
            for source in stacked:
                for lag, other in enumerate(order):
                    ego[:, place[source, lag]] = frames.ego[:, place[source, other]]
            return replace(frames, ego=ego)

        cause = f"the stack's frames stand in another order: the newest is its frame {order[0]} steps back"
        if order == tuple(reversed(range(contract.depth))):
            cause = "the stack's frames stand in the reverse order"
        yield Hypothesis("stack-order", refs, undo, cause, 0.0)


def _single(contract: Contract, frames: Frames, ref: Ref) -> Iterator[Hypothesis]:
    column = (contract.ego if ref[0] == "ego" else contract.peers)[ref[1]]
    factors: tuple[float, ...] = FACTORS
    if column.name in HEADINGS:
        factors = (*factors, *OF_ANGLES)
    if column.name in (SPEED, REL_SPEED, LARGEST_CLOSING):
        factors = (*factors, *OF_SPEEDS)
    for factor in (*factors, *(1.0 / one for one in factors)):
        undo = _undone([ref], _divided(factor))
        if factor > 1:
            own = column.scale is not None and math.isclose(factor, column.scale)
            cause = f"it is {in_words(factor)}" + (f": in {column.unit or 'its unit'}, not normalized" if own else "")
        else:
            cause = f"it is {in_words(factor)}"
        yield Hypothesis("column-scaled", (ref,), undo, cause, 0.2 if factor > 1 else 0.4)
    yield Hypothesis("sign-flipped", (ref,), _undone([ref], np.negative), "its sign is the other way round", 0.1)
    for late in (*range(1, MOST_LATE + 1), *range(-1, -MOST_LATE - 1, -1)):
        undo = _in_time(ref, late)
        when = f"{abs(late)} frame{'s'[: abs(late) > 1]} {'late' if late > 0 else 'early'}"
        yield Hypothesis("column-late", (ref,), undo, f"it is {when}", 0.5 + 0.01 * abs(late) + 0.4 * (late < 0))
    for offset in _offsets(contract, frames, ref):
        undo = _undone([ref], _lowered(offset))
        yield Hypothesis(
            "column-offset", (ref,), undo, f"{offset:+.4g} is added to it ({column.physical(offset)})", 0.5
        )
    copy_of = column.copy_of if ref[0] == "ego" else None
    if copy_of is not None and np.ptp(frames.ego[:, ref[1]]) == 0:

        def moving(frames: Frames, source: int = copy_of) -> Frames:
            return frames.with_column(ref, _earlier(frames.ego[:, source], -1))

        yield Hypothesis("column-frozen", (ref,), moving, "it never changes while what it is a copy of does", 0.0)
    if ref[0] == "ego" and _stands(contract, frames, ref[1]):
        name = contract.functions[ref[1]].name

        def followed(frames: Frames) -> Frames:
            return frames.with_column(ref, computed(frames, name, contract))

        cause = "it never changes while the peers that it is a function of do"
        yield Hypothesis("column-frozen", (ref,), followed, cause, 1.0, by_contract=True)


def _stands(contract: Contract, frames: Frames, index: int) -> bool:
    """Whether a function of the peers stands though they move, in a drive that has it at all.

    A constant column may be somebody's own, where the sizes are a preset's by chance. That it is the function is known
    where the user says so, or where another column is the function it should be.
    """
    functions = contract.functions
    if index not in functions or np.ptp(frames.ego[:, index]) > 0:
        return False
    if np.ptp(computed(frames, functions[index].name, contract)) == 0:
        return False
    others = (function_score(i, one.name, contract)(frames) for i, one in functions.items() if i != index)
    known = contract.ego[index].origin("function") == "file"
    return known or any(score is not None and score >= HELD for score in others)


def _in_time(ref: Ref, late: int) -> Callable[[Frames], Frames]:
    """Undoes a delay; of peers it is not known where there was none when the value came."""

    def undo(frames: Frames) -> Frames:
        moved = frames.with_column(ref, _earlier(frames.column(ref), late))
        return moved if ref[0] == "ego" else moved.only(_earlier(frames.mask, late))

    return undo


def _earlier(values: Any, rows: int) -> Any:
    """Values of ``rows`` rows later; the last ones stay."""
    n = len(values)
    return values[np.clip(np.arange(n) + rows, 0, n - 1)]


def _offsets(contract: Contract, frames: Frames, ref: Ref) -> list[float]:
    """What may have been added: what would bring it to 0 where it stands, to its bounds, or to its function."""
    values = frames.values(ref)
    if len(values) == 0:
        return []
    found = [_commonest(values), float(values.min()), float(np.median(values))]
    column = (contract.ego if ref[0] == "ego" else contract.peers)[ref[1]]
    found += [float(values.max()) - column.high] if column.high is not None else []
    found += [float(values.min()) - column.low] if column.low is not None else []
    if ref[0] == "ego":
        if column.function is not None and column.copy_of is None and ref[1] in contract.functions:
            found.append(float(np.median(values - computed(frames, column.function, contract))))
        if column.copy_of is not None:
            found.append(float(np.median(values[1:] - frames.ego[:-1, column.copy_of])))
        if column.name == ACCELERATION and (peer := contract.index_of(ACCELERATION, peers=True)) is not None:
            apart = (frames.ego[:, None, ref[1]] - frames.peers[:, :, peer])[frames.mask]
            found.append(_commonest(apart))
        found += [
            float(np.median(frames.ego[:-1, ref[1]] - frames.ego[1:, i]))
            for i, other in enumerate(contract.ego)
            if other.copy_of == ref[1]
        ]
    else:
        found += _offsets_by_function(contract, frames, ref[1])
        found += _offsets_by_turning(contract, frames, ref[1])
    return [one for one in dict.fromkeys(round(one, 6) for one in found) if abs(one) > 2e-3]


def _commonest(values: F64) -> float:
    if len(values) == 0:
        return 0.0
    unique, counts = np.unique(np.round(values, 5), return_counts=True)
    return float(unique[np.argmax(counts)])


def _offsets_by_turning(contract: Contract, frames: Frames, peer: int) -> list[float]:
    """Of a place: peers go aside by how far ahead they are, times the angle by which the ego turns, and the reverse."""
    turning, names = turning_by(contract), (REL_X, REL_Y)
    x, y = (contract.index_of(name, peers=True) for name in names)
    if turning is None or x is None or y is None or peer not in (x, y):
        return []
    angle = turned(frames, turning)
    jumped = jumps(angle, frames.values(turning))
    if not jumped.any():
        return []
    other, sign = (y, 1.0) if peer == x else (x, -1.0)
    rows, slots = frames.pairs
    own = frames.peers[rows - 1, slots, peer][jumped]
    right = sign * frames.change(other)[jumped] / (math.pi * angle[jumped])
    return [float(np.median(own - right))]


def _offsets_by_function(contract: Contract, frames: Frames, peer: int) -> list[float]:
    """Of the peers' column that a function of the ego is of, where one peer alone is there."""
    alone = frames.mask.sum(axis=1) == 1
    found = []
    for index, function in contract.functions.items():
        if function.column == peer:
            rows = np.flatnonzero(alone & (np.abs(frames.ego[:, index]) > 1e-4))
            if len(rows):
                own = frames.peers[rows, frames.mask[rows].argmax(axis=1), peer]
                found.append(float(np.median(own - function.sign * frames.ego[rows, index])))
    return found


def _swaps(contract: Contract, columns: Sequence[Ref]) -> Iterator[Hypothesis]:
    every = [ref for ref, _ in columns_of(contract)]
    for one, other in combinations(every, 2):
        if one[0] != other[0] or not (one in columns or other in columns):
            continue

        def undo(frames: Frames, one: Ref = one, other: Ref = other) -> Frames:
            values = frames.column(one).copy()
            return frames.with_column(one, frames.column(other)).with_column(other, values)

        yield Hypothesis("columns-swapped", (one, other), undo, "the two are in each other's place", 0.3)
