"""What is known of a policy's input, put together: the user's word, the checkpoint's, a preset's, the recordings'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.observation.contract import FACTS, NAMELESS, Column, Contract, Origin
from quant.observation.functions import KNOWN, NUMBER, PeerFunction, functions_of
from quant.observation.observations import Observations
from quant.observation.presets import GREATEST_AGE_MS, PEERS, PERIOD_MS, PRESETS, Preset
from quant.observation.statements import check_merged

ALIKE = 1e-5
"""Two values are the same within this, absolute: float32 that went through a file."""
STACKED = 0.95
"""Share of the moving values of a stack's older frames that have to be copies, to recognize it."""


@dataclass(frozen=True)
class Bounds:
    """What a checkpoint or a world states of its ego (E,) and peers (F,): least and most values, infinite for none."""

    ego_low: tuple[float, ...]
    ego_high: tuple[float, ...]
    peers_low: tuple[float, ...]
    peers_high: tuple[float, ...]


@dataclass(frozen=True)
class Series:
    """Observations in the order they were made.

    Attributes:
        observations: N of them.
        follows: (N,) True where a row was made one decision after the row before it.
        t_ms: (N,) milliseconds; None where nobody wrote them down.
    """

    observations: Observations
    follows: NDArray[np.bool_]
    t_ms: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Sizes:
    """E features of the ego, F of a peer, P slots."""

    ego: int
    peer: int
    slots: int


@dataclass(frozen=True)
class Stack:
    """How an ego of several frames is laid out: ``frames`` of ``size`` columns, the newest first or last."""

    frames: int
    size: int
    newest_first: bool
    origin: Origin

    def copies(self) -> dict[int, int]:
        """For each column of an older frame the column it is a copy of."""
        step = -self.size if self.newest_first else self.size
        newest = (
            range(self.size) if self.newest_first else range((self.frames - 1) * self.size, self.frames * self.size)
        )
        return {j: j + step for j in range(self.frames * self.size) if j not in newest}


def resolve(
    sizes: Sizes,
    stated: Bounds | None,
    seen: Sequence[Series],
    given: Mapping[str, Any] | None = None,
    *,
    world: Bounds | None = None,
    assume: bool = False,
) -> Contract:
    """The contract of a policy's input, every fact from the first source that has it.

    Args:
        sizes: of the policy.
        stated: what its checkpoint states.
        seen: recordings and rollouts; may be none.
        given: the user's file, as `quant.observation.storage.read_given` returns it.
        world: what the world's own observation space states.
        assume: take the preset of these sizes even where the recordings contradict it: to see what would mend them.

    Raises:
        InputError: what the user's file says does not go together with the policy or the rest.
    """
    stack = find_stack(sizes.ego, seen)
    preset = find_preset(sizes, stack, stated, () if assume else seen)
    if stack is None and preset is not None and preset.frames > 1:
        first = _newest_first(preset, seen)
        stack = Stack(preset.frames, len(preset.ego), bool(first), "preset" if first is None else "data")
    ego = _ego(sizes, preset, stack)
    peers = PEERS if sizes.peer == len(PEERS) else tuple(Column(f"{NAMELESS[1]}{i}") for i in range(sizes.peer))
    if preset is None:
        ego, peers = _recognized(ego, peers, seen)
    elif preset.view_deg is not None:
        peers = (replace(peers[0], low=0.0), *peers[1:])
    ego = tuple(_counted(one, sizes.slots) for one in ego)
    sources: tuple[tuple[Origin, Bounds | None], ...] = (("world", world), ("checkpoint", stated))
    for origin, bounds in sources:
        if bounds is not None:
            of_ego = zip(ego, bounds.ego_low, bounds.ego_high, strict=True)
            of_peers = zip(peers, bounds.peers_low, bounds.peers_high, strict=True)
            ego = tuple(_stated(one, low, high, origin) for one, low, high in of_ego)
            peers = tuple(_stated(one, low, high, origin) for one, low, high in of_peers)
    period, known = _period(seen, preset)
    contract = Contract(
        ego,
        peers,
        sizes.slots,
        period_ms=period,
        greatest_age_ms=None if preset is None else GREATEST_AGE_MS,
        view_deg=None if preset is None else preset.view_deg,
        known=known | ({} if preset is None else {"greatest_age_ms": "preset", "view_deg": "preset"}),
        preset="" if preset is None else preset.name,
    )
    if given is None:
        return contract
    contract = _given(contract, given)
    check_merged(contract)
    return contract


def find_stack(size: int, seen: Sequence[Series]) -> Stack | None:
    """The stack that recordings show: every value of an older frame is one of the frame before; None where none is."""
    best: tuple[float, Stack] | None = None
    for frames in range(2, size + 1):
        if size % frames:
            continue
        for newest_first in (False, True):
            stack = Stack(frames, size // frames, newest_first, "data")
            share = copied_share(stack.copies(), seen)
            if share is not None and share >= STACKED and (best is None or share > best[0] + 1e-3):
                best = share, stack
    return None if best is None else best[1]


def copied_share(copies: Mapping[int, int], seen: Sequence[Series]) -> float | None:
    """The share of moving values that are copies of another column's value before, in the median of the columns.

    So a few columns that something was done to do not hide a stack. None where nothing moves.
    """
    same = dict.fromkeys(copies, 0)
    moving = dict.fromkeys(copies, 0)
    for series in seen:
        ego, follows = series.observations.ego, series.follows[1:]
        for column, source in copies.items():
            now, before, own = ego[1:, column][follows], ego[:-1, source][follows], ego[1:, source][follows]
            # A value that stays as it is says nothing of when it was.
            moved = np.abs(own - before) > ALIKE
            moving[column] += int(moved.sum())
            same[column] += int((np.abs(now - before) <= ALIKE)[moved].sum())
    shares = [same[column] / moving[column] for column in copies if moving[column]]
    return float(np.median(shares)) if shares else None


def find_preset(sizes: Sizes, stack: Stack | None, stated: Bounds | None, seen: Sequence[Series]) -> Preset | None:
    """The preset of these sizes, unless the checkpoint's bounds or the recordings leave nothing of it."""
    if sizes.peer != len(PEERS):
        return None
    frame = sizes.ego if stack is None else stack.size
    fitting = [one for one in PRESETS if one.size == sizes.ego and one.frames == (1 if stack is None else stack.frames)]
    fitting = fitting or [one for one in PRESETS if one.size == frame and one.frames == 1]
    if not fitting and stack is None:
        fitting = [one for one in PRESETS if one.size == sizes.ego]
    for preset in fitting:
        if not _contradicted(preset, stack, stated, seen):
            return replace(preset, frames=stack.frames) if stack is not None else preset
    return None


def _newest_first(preset: Preset, seen: Sequence[Series]) -> bool | None:
    """Whether the newest frame of a stack whose copies do not fit is the first one: it holds the peers' functions."""
    functions = functions_of([column.name for column in PEERS])
    size, same = len(preset.ego), {True: 0, False: 0}
    for series in seen:
        for index, column in enumerate(preset.ego):
            if column.function is None:
                continue
            value = functions[column.function].of(series.observations.peers, series.observations.mask)
            for first in same:
                own = series.observations.ego[:, index if first else index + (preset.frames - 1) * size]
                same[first] += int((np.abs(own - value) <= ALIKE).sum())
    return None if same[True] == same[False] else same[True] > same[False]


def _contradicted(preset: Preset, stack: Stack | None, stated: Bounds | None, seen: Sequence[Series]) -> bool:
    """Whether bounds do not even meet, or no function of the peers is what the preset says, in most frames."""
    first = 0 if stack is None or stack.newest_first else (stack.frames - 1) * stack.size
    if stated is not None:
        for index, column in enumerate(preset.ego):
            low, high = stated.ego_low[first + index], stated.ego_high[first + index]
            assert column.low is not None and column.high is not None
            if high <= column.low or low >= column.high:
                return True
        if _confirmed(preset, first, stated):
            return False
    functions = functions_of([column.name for column in PEERS])
    shares = []
    for index, column in enumerate(preset.ego):
        if column.function is None:
            continue
        for series in seen:
            value = functions[column.function].of(series.observations.peers, series.observations.mask)
            if np.ptp(value) > 0:
                shares.append(float((np.abs(series.observations.ego[:, first + index] - value) <= ALIKE).mean()))
    return bool(shares) and max(shares) < 0.5


def _confirmed(preset: Preset, first: int, stated: Bounds) -> bool:
    """Whether the checkpoint states the very bounds of the preset."""
    ends = [(stated.ego_low[first + i], stated.ego_high[first + i]) for i in range(len(preset.ego))]
    return ends == [(column.low, column.high) for column in preset.ego] and len(set(ends)) > 1


def _ego(sizes: Sizes, preset: Preset | None, stack: Stack | None) -> tuple[Column, ...]:
    if stack is None:
        return preset.ego if preset is not None else tuple(Column(f"{NAMELESS[0]}{i}") for i in range(sizes.ego))
    frame = preset.ego if preset is not None else tuple(Column(f"{NAMELESS[0]}{i}") for i in range(stack.size))
    copies = stack.copies()
    columns = []
    for index in range(sizes.ego):
        column = frame[index % stack.size]
        if index in copies:
            known: dict[str, Origin] = {**column.known, "copy_of": stack.origin}
            column = replace(column, copy_of=copies[index], known=known)
        columns.append(column)
    return tuple(columns)


def _recognized(
    ego: tuple[Column, ...], peers: tuple[Column, ...], seen: Sequence[Series]
) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    """Functions of the peers that recordings show, where no preset says what the columns are."""
    functions = functions_of([column.name for column in peers])
    found = list(ego)
    for index, column in enumerate(ego):
        fitting = (name for name, function in functions.items() if _is_function(index, function, seen))
        name = next(fitting, None) if column.function is None and column.copy_of is None else None
        if name is not None:
            known: dict[str, Origin] = {**column.known, "function": "data", "name": "data"}
            found[index] = replace(column, name=name, function=name, known=known)
    return tuple(found), peers


def _is_function(index: int, function: PeerFunction, seen: Sequence[Series]) -> bool:
    moved = False
    for series in seen:
        value = function.of(series.observations.peers, series.observations.mask)
        # A constant column fits by chance; then there is nothing to learn from it either.
        moved |= bool(np.ptp(value) > 0)
        if not np.allclose(series.observations.ego[:, index], value, atol=ALIKE):
            return False
    return moved


def _counted(column: Column, slots: int) -> Column:
    return replace(column, scale=float(slots)) if column.function == NUMBER and column.scale is not None else column


def _stated(column: Column, low: float, high: float, origin: Origin) -> Column:
    """The checkpoint's or the world's bounds; of a function of the peers no further than the function can go."""
    function = KNOWN.get(column.function or "")
    least, most = (-np.inf, np.inf) if function is None else (function.low, function.high)
    known = dict(column.known)
    ends: dict[str, float | None] = {"low": column.low, "high": column.high}
    if max(low, least) >= min(high, most):  # it is not what it is called; the checkpoint's word counts
        least, most = -np.inf, np.inf
    if np.isfinite(low):
        ends["low"], known["low"] = max(low, least), origin
    if np.isfinite(high):
        ends["high"], known["high"] = min(high, most), origin
    return replace(column, low=ends["low"], high=ends["high"], known=known)


def _period(seen: Sequence[Series], preset: Preset | None) -> tuple[float | None, dict[str, Origin]]:
    """A preset's, else the commonest step of the recordings."""
    if preset is not None:
        return PERIOD_MS, {"period_ms": "preset"}
    steps = [np.diff(series.t_ms) for series in seen if series.t_ms is not None and len(series.t_ms) > 1]
    if not steps:
        return None, {}
    return float(np.median(np.concatenate(steps))), {"period_ms": "data"}


def _given(contract: Contract, given: Mapping[str, Any]) -> Contract:
    """The user's word over all others; how many peers the policy takes nobody can say but the policy itself."""
    slots = given.get("max_peers", contract.max_peers)
    if slots != contract.max_peers:
        raise InputError(
            f"max_peers is {slots}",
            where="--observation",
            expected=f"{contract.max_peers}, the slots that the policy has",
            hint="leave max_peers out, or give the file of this policy: quant observation POLICY writes it",
        )
    whole = _own(contract, given, ("period_ms", "greatest_age_ms", "view_deg"))
    contract = replace(contract, **whole, known={**contract.known, **dict.fromkeys(whole, "file")})
    for kind in ("ego", "peers"):
        columns = given.get(kind)
        if isinstance(columns, Sequence):
            own = getattr(contract, kind)
            changed: dict[str, Any] = {kind: tuple(map(_given_column, own, columns))}
            contract = replace(contract, **changed)
    return contract


def _given_column(column: Column, given: Mapping[str, Any]) -> Column:
    facts = _own(column, given, FACTS)
    return replace(column, **facts, known={**column.known, **dict.fromkeys(facts, "file")})


def _own(resolved: Contract | Column, given: Mapping[str, Any], facts: Sequence[str]) -> dict[str, Any]:
    """What the user says himself: facts whose origin the file does not name, or that he changed from what they were."""
    known = given.get("known", {})

    def own(name: str) -> bool:
        if given[name] != getattr(resolved, name):
            return True
        return known.get(name, "file") == "file" and resolved.known.get(name, "unknown") != "unknown"

    return {name: given[name] for name in facts if name in given and own(name)}
