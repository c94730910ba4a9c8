"""Second-order rounding: int8 weights that make a layer's error small on its inputs, not the weights' own.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023: columns
are rounded one after the other, the rounding error of each is made up for by those to come through the inverse of the
damped Hessian of the inputs (Cholesky form), in descending order of its diagonal (their ``act_order``). Three
additions:

- The bias is free, so the Hessian is the inputs' covariance, and the best bias takes the mean error away (the bias
  correction of Nagel et al., ICCV 2019).
- The target may be the float layer on *float* inputs, so that the layer makes up for what was rounded before it (Li et
  al., "GPTAQ: Efficient Finetuning-Free Quantization for Asymmetric Calibration", ICML 2025).
- Rows may be weighted by the squared gradient of the decision (the diagonal Fisher of Li et al., "BRECQ: Pushing the
  Limit of Post-Training Quantization by Block Reconstruction", ICLR 2021); then every output has a Hessian of its own.

Afterwards single steps are taken as long as they make the same error smaller (Nair and Suggala, "CDQuant: Greedy
Coordinate Descent for Accurate LLM Quantization", 2024), and each output takes the scale that leaves the least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.observation.observations import F32
from quant.policy.policy import Dense
from quant.tracks.integers import IntegerLayer, layer_scale
from quant.tracks.plan import LayerRanges, Range, needs_short_scale, short

F64 = NDArray[np.float64]

LIMIT = 127
TARGET_DAMPING = 1e-3
"""Of the least-squares weights that make up for the rounding before, as a share of the Hessian's mean diagonal."""
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6)
"""Of a scale that covers the largest weight; a narrower one clips it and has finer steps."""
LEAST_DIAGONAL = 1e-9
"""Added to the Hessian: of inputs that never move nothing else is there."""
MAX_ENTRIES = 1 << 23
"""Numbers in the Hessians held at once (64 MiB)."""
MAX_WORK = 2e11
"""Multiplications for the Hessians of a layer; beyond that rows are thinned evenly."""


@dataclass(frozen=True)
class Errors:
    """The error of M outputs as a function of their K weights w: (w - best)^T hessian (w - best), and the best bias.

    Attributes:
        hessian: (M, K, K), damped.
        best: (M, K).
        mean_inputs: (M, K), of the weighted rows.
        mean_target: (M,).
    """

    hessian: F64
    best: F64
    mean_inputs: F64
    mean_target: F64

    def of(self, weight: F64) -> F64:
        """(M, K) -> (M,) the errors."""
        off = weight - self.best
        return np.asarray(np.einsum("mk,mkj,mj->m", off, self.hessian, off, optimize=True))

    def bias(self, weight: F64) -> F64:
        """(M, K) -> (M,) the biases with which the mean error is zero."""
        return np.asarray(self.mean_target - (self.mean_inputs * weight).sum(axis=1))


def measure(x: F64, target: F64, importance: F64, weight: F64, damping: float, *, matched: bool) -> Errors:
    """The errors of M outputs over N rows.

    Args:
        x: (N, K) inputs, as the quantized layers before give them.
        target: (N, M) what the outputs should be, before the activation.
        importance: (N, M) of a row for an output, or (N, 1).
        weight: (M, K) the float weights.
        damping: share of the Hessian's mean diagonal added to it.
        matched: whether the best weights are those that come closest to the target; else the float ones.
    """
    share = importance / importance.sum(axis=0)
    center = x.mean(axis=0)
    x = x - center
    mean = share.T @ x
    residual = target - x @ weight.T
    mean_residual = (share * residual).sum(axis=0)
    hessian = np.stack([(x * own[:, None]).T @ x for own in share.T]) - mean[:, :, None] * mean[:, None, :]
    ridge = (np.diagonal(hessian, axis1=1, axis2=2).mean(axis=1) + LEAST_DIAGONAL)[:, None, None] * np.eye(x.shape[1])
    best = weight
    if matched:
        slope = (share * residual).T @ x - mean_residual[:, None] * mean
        best = weight + np.linalg.solve(hessian + TARGET_DAMPING * ridge, slope[:, :, None])[:, :, 0]
    ones = np.ones((len(weight), 1))
    return Errors(
        (hessian + damping * ridge) * ones[:, :, None], best, (mean + center) * ones, (share * target).sum(axis=0)
    )


def round_columns(errors: Errors, scale: F64) -> F64:
    """GPTQ: (M, K) weights in steps of ``scale`` (M,), each column making up for those rounded before it."""
    order = np.argsort(-np.diagonal(errors.hessian, axis1=1, axis2=2).mean(axis=0), kind="stable")
    inverse = np.linalg.inv(errors.hessian[:, order][:, :, order])
    upper = np.linalg.cholesky((inverse + inverse.swapaxes(1, 2)) / 2).swapaxes(1, 2)
    left = errors.best[:, order]
    steps = np.empty_like(left)
    for k, column in enumerate(order):
        steps[:, column] = np.clip(np.rint(left[:, k] / scale), -LIMIT, LIMIT)
        error = (left[:, k] - steps[:, column] * scale) / upper[:, k, k]
        left[:, k:] -= error[:, None] * upper[:, k, k:]
    return steps


def descend(errors: Errors, scale: F64, steps: F64) -> F64:
    """Takes, output by output, the single step that lowers the error most, as long as there is one."""
    steps, rows = steps.copy(), np.arange(len(steps))
    diagonal = np.diagonal(errors.hessian, axis1=1, axis2=2) * scale[:, None] ** 2
    slope = 2 * scale[:, None] * (errors.hessian @ (steps * scale[:, None] - errors.best)[:, :, None])[:, :, 0]
    for _ in range(4 * steps.shape[1]):
        up = np.where(steps < LIMIT, diagonal + slope, np.inf)
        down = np.where(steps > -LIMIT, diagonal - slope, np.inf)
        change = np.minimum(up, down)
        column = change.argmin(axis=1)
        step = np.where(up[rows, column] <= down[rows, column], 1.0, -1.0)
        step[change[rows, column] >= -1e-9 * diagonal[rows, column]] = 0
        if not step.any():
            break
        steps[rows, column] += step
        slope += 2 * (step * scale**2)[:, None] * errors.hessian[rows, :, column]
    return steps


def round_layer(
    layer: Dense,
    source: Range,
    own: LayerRanges,
    x: F32,
    target: F32,
    importance: F32,
    damping: float,
    *,
    matched: bool,
    per_tensor: bool = False,
) -> IntegerLayer:
    """The layer with weights rounded by second order and the bias that takes the mean error away.

    Args:
        layer: in float, folded.
        source, own: ranges of its input and output.
        x: (N, K) its inputs, as the quantized layers before give them.
        target: (N, M) what it should give before its activation.
        importance: (N, M) or (N, 1), not negative.
        damping: see `measure`.
        matched: see `measure`.
        per_tensor: whether all outputs share one scale.
    """
    every = max(int(np.ceil(len(x) * layer.inputs**2 * importance.shape[1] / MAX_WORK)), 1)
    rows_x, rows_target, rows_importance = (a[::every].astype(np.float64) for a in (x, target, importance))
    widest = layer_scale(layer, source, per_tensor)
    shares = (1.0,) if needs_short_scale(layer, source) else SHARES

    def errors_of(rows: slice) -> Errors:
        return measure(
            rows_x,
            rows_target[:, rows],
            rows_importance[:, rows] if importance.shape[1] > 1 else rows_importance,
            layer.weight[rows].astype(np.float64),
            damping,
            matched=matched,
        )

    if per_tensor:
        return IntegerLayer.of(*_best_common_scale(layer, errors_of, float(widest[0])), layer, source, own)
    steps, scale, bias = np.empty(layer.weight.shape), widest.copy(), np.empty(layer.outputs)
    for rows in _blocks(layer):
        errors = errors_of(rows)
        steps[rows], scale[rows] = _best_scale(errors, widest[rows], shares)
        bias[rows] = errors.bias(steps[rows] * scale[rows, None].astype(np.float64))
    return IntegerLayer.of(steps, scale, bias, layer, source, own)


def _best_common_scale(layer: Dense, errors_of: Callable[[slice], Errors], widest: float) -> tuple[F64, F32, F64]:
    """Steps, scale and biases: the one scale with which all outputs together have the least error."""
    blocks = list(_blocks(layer))
    once = errors_of(blocks[0]) if len(blocks) == 1 else None
    best, least = (np.zeros(layer.weight.shape), np.ones(1, np.float32), np.zeros(layer.outputs)), np.inf
    for share in SHARES:
        scale = short(widest * share)
        steps, bias, left = np.empty(layer.weight.shape), np.empty(layer.outputs), 0.0
        for rows in blocks:
            errors = once or errors_of(rows)
            wide = np.full(len(errors.best), scale)
            steps[rows] = descend(errors, wide, round_columns(errors, wide))
            bias[rows] = errors.bias(steps[rows] * scale)
            left += float(errors.of(steps[rows] * scale).sum())
        if left < least:
            best, least = (steps, np.array([scale], np.float32), bias), left
    return best


def correct_bias(present: IntegerLayer, layer: Dense, x: F32, target: F32, importance: F32) -> IntegerLayer:
    """The same integers with the bias that takes the mean error away (Nagel et al., ICCV 2019, section 4.2).

    Args:
        present: the layer's integers.
        layer: in float, folded.
        x: (N, K) its inputs, as the quantized layers before give them.
        target: (N, M) what it should give before its activation.
        importance: (N, 1), not negative.
    """
    steps = present.weight.astype(np.float64)
    weight = steps * present.scale[:, None].astype(np.float64)
    share = (importance / importance.sum(dtype=np.float64))[:, 0]
    bias = share @ target - weight @ (share @ x)
    return IntegerLayer.of(steps, present.scale, bias, layer, present.source, present.ranges)


def _blocks(layer: Dense) -> Iterator[slice]:
    size = max(MAX_ENTRIES // layer.inputs**2, 1)
    return (slice(start, start + size) for start in range(0, layer.outputs, size))


def _best_scale(errors: Errors, widest: F32, shares: tuple[float, ...]) -> tuple[F64, F32]:
    """The steps and the scale of each output that leave the least error."""
    best_steps, best_scale, least = np.empty_like(errors.best), widest.copy(), np.full(len(widest), np.inf)
    for share in shares:
        scale = (widest * np.float32(share)).astype(np.float32)
        wide = scale.astype(np.float64)
        steps = descend(errors, wide, round_columns(errors, wide))
        left = errors.of(steps * wide[:, None])
        better = left < least
        best_steps[better], best_scale[better], least[better] = steps[better], scale[better], left[better]
    return best_steps, best_scale
