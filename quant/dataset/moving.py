"""Frames moved to another place in the range, with all that depends on it moved along.

A frame that differs from a possible one in a single column mostly cannot occur: the older frames of a stack hold the
same value a moment before, and the ego's functions follow from the peers. Here the free values of the newest moment are
set; functions are computed anew, older frames move by as much as the newest does, speeds by what accelerations then
make of them, a fading signal by as much as it fades, and all stays between its bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from quant.dataset.filling import free_columns, gain, placed, undecayed, within
from quant.observation.contract import Contract
from quant.observation.functions import ACCELERATION, BRAKING_RECEIVED, HEADING, NUMBER, SPEED
from quant.observation.observations import F32, Mask, Observations


def moved(contract: Contract, base: Observations, ego: F32, peers: F32, mask: Mask) -> Observations:
    """The frames ``base``, with these values at their newest moment.

    Args:
        contract: with a bound everywhere.
        base: N possible frames; what older frames have in them beside the newest is kept.
        ego: (N, E), of which only the free columns (`quant.dataset.filling.free_columns`) are read.
        peers: (N, P, F), of which only those present are read.
        mask: (N, P), who is present now.
    """
    peers = placed(within(contract, peers), mask)
    low, high = contract.bounds(peers=False)
    now = base.ego.copy()
    free = list(free_columns(contract))
    now[:, free] = np.clip(ego[:, free], low[free], high[free])
    for column, function in contract.functions.items():
        now[:, column] = np.clip(function.of(peers, mask), low[column], high[column])
    return Observations(_with_older(contract, base.ego, now), peers, mask)


def _with_older(contract: Contract, base: F32, now: F32) -> F32:
    """Older frames, moved by as much as the newest, and motion by as much as what it follows from; in place."""
    stack = _Stack(contract, contract.places, contract.bounds(peers=False))
    low, high = stack.bounds
    for source, lag, column in stack.older:
        name = contract.ego[source].name
        led = stack.led_to(base, source, lag), stack.led_to(now, source, lag)
        value = base[:, column] + (led[1] - led[0])
        if name == HEADING:
            value = low[column] + np.mod(value - low[column], high[column] - low[column])
        if name == BRAKING_RECEIVED:
            newer, end = stack.places[source, lag - 1], high[column]
            # What was before a new signal is free, and of one that fades it is not.
            value = np.where((base[:, newer] >= end) & (now[:, newer] < end), led[1], value)
        if contract.ego[source].function == NUMBER:
            value = np.rint(value * contract.max_peers) / contract.max_peers
        now[:, column] = np.clip(value, low[column], high[column])
    numbers = {lag: column for source, lag, column in stack.older if contract.ego[source].function == NUMBER}
    for source, lag, column in stack.older:
        number = numbers.get(lag, column)
        if contract.ego[source].function is not None and number != column:
            now[now[:, number] == 0, column] = 0  # a function of nobody
    return now


@dataclass(frozen=True)
class _Stack:
    """Where the columns of a contract's older frames are, and how far they go."""

    contract: Contract
    places: Mapping[tuple[int, int], int]
    bounds: tuple[F32, F32]

    @property
    def older(self) -> list[tuple[int, int, int]]:
        """Newest column, decisions back and column of every copy, in the order in which one follows from another."""
        found = [(source, lag, column) for (source, lag), column in self.places.items() if lag]
        # The speed of a frame follows from its acceleration.
        return sorted(found, key=lambda one: (one[1], self.contract.ego[one[0]].name == SPEED))

    def led_to(self, ego: F32, source: int, lag: int) -> F32:
        """(N,) what a column was so many decisions back, as far as newer frames and that one's acceleration tell.

        What neither moves nor fades was what it is in the newest frame.
        """
        name = self.contract.ego[source].name
        if name not in (SPEED, BRAKING_RECEIVED):
            return ego[:, source]
        newer, (low, high) = ego[:, self.places[source, lag - 1]], self.bounds
        if name == BRAKING_RECEIVED:
            return np.asarray(np.clip(undecayed(newer), low[source], high[source]), np.float32)
        column = self.contract.index_of(ACCELERATION, peers=False)
        if column is None:
            return ego[:, source]
        gained = gain(self.contract, (column, source), peers=False) * ego[:, self.places.get((column, lag), column)]
        return np.asarray(np.clip(newer - gained, low[source], high[source]), np.float32)
