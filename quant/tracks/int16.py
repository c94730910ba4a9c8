"""int16 activations with int8 weights, as TFLite-Micro and the ESP component both take them.

Rounding of activations is next to nothing with 65536 steps, so no range is searched for: features get what is declared,
every other tensor twice what calibration saw. What is left is the rounding of the weights. They share one scale a
layer, because esp-tflite-micro 1.4.0 ignores a scale for each output where activations are int16
(``kernels/esp_nn/fully_connected.cc``). A feature whose weights are small beside the others' spares steps, of which it
has plenty: a wider range makes its weights larger. They are rounded by second order (:mod:`quant.tracks.gptq`) from
several equalizations, of which the best is kept.

The kernels ask for zero point 0. TANH and LOGISTIC interpolate in a table: their input has a power of two as its step,
which the table takes exactly. There is no int16 kernel for ELU.
"""

from __future__ import annotations

import math

import numpy as np

from quant.dataset import Dataset
from quant.errors import InputError
from quant.files import Progress, no_progress
from quant.observation.observations import F32
from quant.policy.policy import Activation, Box, Dense, Policy
from quant.tracks.candidate import Candidate
from quant.tracks.export import checked
from quant.tracks.gptq import best_of
from quant.tracks.job import Infer, Job, Made
from quant.tracks.objective import Frames
from quant.tracks.plan import (
    FUSED,
    Ends,
    Interval,
    LayerRanges,
    Plan,
    Range,
    calibrate,
    equalize,
    fold_inputs,
)
from quant.tracks.registry import INT16

ACTIVATIONS: frozenset[Activation] = FUSED | {"tanh", "sigmoid"}
"""Those with int16 kernels."""
STARTS = ((0.25, 4.0), (0.25, 8.0), (0.5, 2.0), (0.5, 8.0))
"""Exponents of the equalizations that are tried, and by how much features may be wider: with higher exponents the
weights share a scale badly; 3 of 16 bits are what rounding of features can spare."""
HEADROOM = 2.0
"""Ranges of layers, as a multiple of what calibration saw."""
PEERS = Range.symmetric(1.0)
"""Range of the folded peer features."""
SQUASHED = Range(-1.0, 32767 / 32768, 16)
"""Output range that the kernels of TANH and LOGISTIC demand."""
TABLE_REACH: dict[Activation, float] = {"tanh": 8.0, "sigmoid": 16.0}
"""Beyond this the functions are constant to a step of their output."""
LEAST_REACH = 2.0**-4


def make(job: Job) -> Made:
    """Track `INT16`."""
    return Made(run_int16(job.policy, job.dataset, job.infer, job.progress))


def run_int16(policy: Policy, dataset: Dataset, infer: Infer, progress: Progress = no_progress) -> Candidate:
    """Makes the candidate.

    Args:
        policy: in float.
        dataset: the shared one; held-out frames are never looked at.
        infer: computes a candidate's values (see `quant.tracks.job.Infer`).
        progress: told after each trial of a layer.

    Raises:
        InputError: an activation has no int16 kernel.
    """
    refuse(policy)
    frames = Frames.of(dataset)
    starts = [
        (f"equalized by {exponent}, features up to {wider} times as wide", wide_plan(policy, frames, exponent, wider))
        for exponent, wider in STARTS
    ]
    kept, log = best_of(INT16, starts, policy, dataset, infer, progress)
    return checked(kept.candidate(dataset, INT16), kept.plan, log)


def refuse(policy: Policy) -> None:
    """Raises InputError where a layer has an activation without an int16 kernel."""
    for name, layers in (("encoder", policy.encoder), ("head", policy.head)):
        for index, layer in enumerate(layers):
            if layer.activation not in ACTIVATIONS:
                raise InputError(
                    f"{layer.activation} has no int16 kernel in TFLite-Micro",
                    where=f"{name} layer {index}, track {INT16}",
                    expected=" or ".join(sorted(ACTIVATIONS)),
                    hint=f"leave {INT16} out of --tracks, or train the policy with another activation",
                )


def wide_plan(policy: Policy, frames: Frames, exponent: float, wider: float = 1.0) -> Plan:
    """Ranges of int16 from what the frames show, for the policy equalized by ``exponent``; features up to ``wider``."""
    every = frames.all
    calibration = calibrate(equalize(policy, every, exponent), every, frames.features)
    policy = calibration.policy
    encoder, head = _ranges(policy.encoder, calibration.encoder), _ranges(policy.head, calibration.head)
    if isinstance(policy.action_space, Box):
        reach = max(abs(bound) for bound in (*policy.action_space.low, *policy.action_space.high))
        head = (*head[:-1], LayerRanges(None, Range.symmetric(reach)))
    z = Range.symmetric(HEADROOM * _reach(calibration.z)) if policy.pooling == "sum" else encoder[-1].after
    columns = policy.head[0].weight[:, policy.embedding_size :]
    largest = float(np.abs(policy.head[0].weight[:, : policy.embedding_size]).max(initial=0)) * (z.high - z.low)
    peer = _wider(frames.peer, policy.encoder[0].weight, 0.0, wider)
    ego = _wider(frames.ego, columns, largest, wider)
    first = (fold_inputs(policy.encoder[0], 0, peer, PEERS), *policy.encoder[1:])
    second = (fold_inputs(policy.head[0], policy.embedding_size, ego, z), *policy.head[1:])
    return Plan(policy, peer, ego, z, first, second, encoder, head, PEERS, per_tensor=True)


def _wider(own: Interval, columns: F32, largest: float, most: float) -> Interval:
    """Wider where a feature's weights are small beside the others', up to ``most`` times as wide.

    Args:
        own: what the features' ranges have to hold.
        columns: (M, K) weights of the features.
        largest: of the weights of other inputs, times their width.
        most: times as wide.
    """
    reach = np.abs(columns * own.width).max(axis=0, initial=0)
    factor = np.clip(max(largest, float(reach.max(initial=0))) / np.maximum(reach, np.float32(1e-12)), 1, most)
    extra = ((factor - 1) / 2 * own.width).astype(np.float32)
    return Interval(own.low - extra, own.high + extra)


def _ranges(layers: tuple[Dense, ...], extremes: tuple[tuple[Ends, Ends], ...]) -> tuple[LayerRanges, ...]:
    return tuple(_layer_ranges(layer, *ends) for layer, ends in zip(layers, extremes, strict=True))


def _layer_ranges(layer: Dense, before: Ends, after: Ends) -> LayerRanges:
    if layer.activation in FUSED:
        return LayerRanges(None, Range.symmetric(HEADROOM * _reach(after)))
    reach = min(max(HEADROOM * _reach(before), LEAST_REACH), TABLE_REACH[layer.activation])
    power = 2.0 ** math.ceil(math.log2(reach))
    return LayerRanges(Range(-power, power * 32767 / 32768, 16), SQUASHED)


def _reach(ends: Ends) -> float:
    return max(abs(ends[0]), abs(ends[1]))
