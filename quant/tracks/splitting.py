"""Hidden units in two: a fine one for what is seen, a coarse one for the rest of what may be.

Over a whole declared range a ReLU unit goes several times as far as on any recorded frame, and with one range for both
its steps are that much coarser where the vehicle drives. relu(u) = min(relu(u), c) + relu(u - c): two units, of which
the first saturates at a cut c and the second is zero below it, have all steps of a tensor each, and the next layer's
columns add them up. Exact in float as far as the frames go: both are RELU6, scaled so that 6 is where they end.
Maximum, sum and mean of both are those of the unit: each rises with it. (An input of a coarse and a fine column is the
same thought: `quant.tracks.candidate.Affine.residual`.)

A tanh unit can't be cut. Of two that stand half a step of their input apart, the mean has steps half as wide; it is the
unit's own value but for the curvature within that half step.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from quant.observation.observations import F32, Observations
from quant.policy.policy import Dense, Policy
from quant.tracks.plan import Rewritten
from quant.tracks.sensitivity import before_activations, squared_gradients

END = np.float32(6.0)
"""Where RELU6 saturates."""
CUTS = tuple(float(share) for share in np.linspace(0.05, 0.95, 19))
"""Shares of a unit's range at which it may be cut."""
KEPT = 0.5
"""Share of the range before a tanh that tracks keep, roughly."""
APART = 0.02
"""Most that twins of tanh are apart in two: its curvature costs less than 1e-5 there."""
LEAST_RANGE = 1e-2
"""Of a unit, as a share of the layer's widest: one that is nearly always zero must not blow up the next layer."""


def split(policy: Policy, seen: Observations, every: Observations, units: int, twins: int = 0) -> Rewritten:
    """The same function on ``every`` frame, with up to so many units of each hidden ReLU layer in two.

    Those are split whose rounding costs decisions on ``seen`` frames most; the other ReLU units are equalized.

    Args:
        policy: in float.
        seen: frames that count.
        every: frames that the units' ranges have to hold.
        units: of each hidden ReLU layer.
        twins: units of each tanh layer of the head that are in two.
    """
    before, squares = squared_gradients(policy, seen)
    widest = before_activations(policy, every)
    count = len(policy.encoder)
    layers = [*policy.encoder, *policy.head]
    halves: list[NDArray[np.int64] | None] = [None] * len(layers)
    for index, layer in enumerate(layers[:-1]):
        if layer.activation == "tanh" and twins and index >= count:
            layers[index : index + 2] = _twins(layers[index], layers[index + 1], widest[index], squares[index], twins)
        if layer.activation != "relu":
            continue
        reach = widest[index].max(axis=0, initial=0)
        reach = np.maximum(reach, max(float(reach.max()) * LEAST_RANGE, LEAST_RANGE))
        cut, chosen = _cuts(np.maximum(before[index], 0), squares[index], reach, units)
        low, high = cut / END, (reach - cut)[chosen] / END
        halves[index], layers[index] = chosen, _two(layers[index], chosen, low, high, cut)
        columns = layers[index + 1].weight[:, : layer.outputs]
        rest = layers[index + 1].weight[:, layer.outputs :]
        weight = np.concatenate([columns * low, columns[:, chosen] * high, rest], axis=1)
        layers[index + 1] = replace(layers[index + 1], weight=weight.astype(np.float32))
    made = replace(policy, encoder=tuple(layers[:count]), head=tuple(layers[count:]))
    return Rewritten(made, tuple(halves))


def _twins(layer: Dense, following: Dense, before: F32, squares: F32, units: int) -> tuple[Dense, Dense]:
    """Those units of tanh twice that count most, half a step of what is before them apart."""
    step = np.float32(KEPT / 255) * (before.max(initial=0) - before.min(initial=0))
    step = min(step, np.float32(2 * APART))
    chosen = np.sort(np.argsort(-squares.sum(axis=0), kind="stable")[:units])
    weight, bias = np.concatenate([layer.weight, layer.weight[chosen]]), layer.bias.copy()
    bias[chosen] -= step / 4
    bias = np.concatenate([bias, layer.bias[chosen] + step / 4])
    columns = following.weight.copy()
    columns[:, chosen] /= 2
    columns = np.concatenate([columns, columns[:, chosen]], axis=1)
    return replace(layer, weight=weight, bias=bias.astype(np.float32)), replace(following, weight=columns)


def _two(layer: Dense, chosen: NDArray[np.int64], low: F32, high: F32, cut: F32) -> Dense:
    weight = np.concatenate([layer.weight / low[:, None], layer.weight[chosen] / high[:, None]])
    bias = np.concatenate([layer.bias / low, (layer.bias - cut)[chosen] / high])
    return Dense(weight.astype(np.float32), bias.astype(np.float32), "relu6")


def _cuts(values: F32, squares: F32, reach: F32, units: int) -> tuple[F32, NDArray[np.int64]]:
    """(M,) where each unit's first part ends, and which units get a second: rounding errs by a share of a part's range.

    Args:
        values: (rows, M) of the units.
        squares: (rows, M) squared gradients of decisions.
        reach: (M,) how far they go.
        units: that may be split.
    """
    weight = squares.sum(axis=0)
    whole = weight * reach**2
    least, cut = whole.copy(), reach.astype(np.float32)
    for share in CUTS:
        at = np.float32(share) * reach
        error = weight * at**2 + np.where(values > at, squares, 0).sum(axis=0) * (reach - at) ** 2
        better = error < least
        least[better], cut[better] = error[better], at[better]
    order = np.argsort(least - whole, kind="stable")[:units]
    chosen = np.sort(order[whole[order] > least[order]])
    alone = np.setdiff1d(np.arange(len(reach)), chosen)
    cut[alone] = reach[alone]
    return cut, chosen.astype(np.int64)
