"""Frames moved to another place in the range, with all that depends on it moved along.

A frame that differs from a possible one in a single column mostly cannot occur: the older frames of a stack hold the
same value a moment before, and the ego's functions follow from the peers. Here the free values of the newest moment are
set; functions are computed anew, older frames move by as much as the newest does, and all stays between its bounds.
"""

from __future__ import annotations

import numpy as np

from quant.dataset.filling import free_columns, placed, within
from quant.observation.contract import Contract
from quant.observation.functions import ACCELERATION, HEADING, NUMBER, SPEED
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
    """Older frames, moved by as much as the newest; in place."""
    lags, sources = contract.lags, contract.sources
    low, high = contract.bounds(peers=False)
    for column, lag in enumerate(lags):
        if lag:
            source = sources[column]
            value = base[:, column] + (now[:, source] - base[:, source]) - lag * _gained(contract, base, now, source)
            if contract.ego[source].name == HEADING:
                value = low[column] + np.mod(value - low[column], high[column] - low[column])
            if contract.ego[source].function == NUMBER:
                value = np.rint(value * contract.max_peers) / contract.max_peers
            now[:, column] = np.clip(value, low[column], high[column])
    for column, lag in enumerate(lags):
        number = _number(contract, lag)
        if lag and number is not None and contract.ego[sources[column]].function is not None and number != column:
            now[now[:, number] == 0, column] = 0  # a function of nobody
    return now


def _gained(contract: Contract, base: F32, now: F32, source: int) -> F32 | float:
    """What the speed gains in one decision by the acceleration's change; 0 of any other column."""
    acceleration = contract.index_of(ACCELERATION, peers=False)
    if contract.ego[source].name != SPEED or acceleration is None:
        return 0.0
    seconds = (contract.period_ms or 100.0) / 1000
    ratio = seconds * (contract.ego[acceleration].scale or 1.0) / (contract.ego[source].scale or 1.0)
    return np.asarray(ratio * (now[:, acceleration] - base[:, acceleration]), np.float32)


def _number(contract: Contract, lag: int) -> int | None:
    """The column with the number of peers, that many decisions back."""
    lags, sources = contract.lags, contract.sources
    found = (i for i, one in enumerate(lags) if one == lag and contract.ego[sources[i]].function == NUMBER)
    return next(found, None)
