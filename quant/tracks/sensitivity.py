"""How much a decision depends on every unit, frame by frame: squared gradients of the float policy's decision.

The importance of a unit's error is the diagonal of the Fisher information of the decision (Gauss-Newton for the clipped
action of a Box): with J the gradient of the values with respect to the unit, sum_a J_a^2 over the components that are
not clipped, or the variance of J under the softmax of the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from quant.observation.observations import F32, Observations
from quant.policy.policy import ACTIVATIONS, ActionSpace, Activation, Box, Dense, Policy, pool

BEYOND = 5 / 255
"""Share of the bounds' distance by which a value may lie beyond them and still count: rounding may bring it back."""
FLOOR = 1e-2
"""Share of the mean importance that every row has: a unit that decides nothing here may do so elsewhere."""

SLOPES: dict[Activation, Callable[[F32], F32]] = {
    "linear": np.ones_like,
    "relu": lambda x: np.asarray(x > 0, np.float32),
    "relu6": lambda x: np.asarray((x > 0) & (x < 6), np.float32),
    "tanh": lambda x: 1 - np.tanh(x) ** 2,
    "elu": lambda x: np.exp(np.minimum(x, np.float32(0))),
    "sigmoid": lambda x: ACTIVATIONS["sigmoid"](x) * (1 - ACTIVATIONS["sigmoid"](x)),
}
"""Derivatives of the activations."""


@dataclass(frozen=True)
class Sensitivity:
    """What the float policy computes before each activation, and how much the decision depends on it.

    Attributes:
        encoder, head: (rows, M) float32 of each layer, before the activation; rows are the peers present, or frames.
        encoder_importance, head_importance: of the same shapes, positive.
        peer_weights, frame_weights: (rows, 1) of the rows themselves.
    """

    encoder: tuple[F32, ...]
    head: tuple[F32, ...]
    encoder_importance: tuple[F32, ...]
    head_importance: tuple[F32, ...]
    peer_weights: F32
    frame_weights: F32


def sensitivity(policy: Policy, observations: Observations, weights: F32 | None = None) -> Sensitivity:
    """Runs the policy forward, and back once for every direction its decision can move in.

    Args:
        policy: in float.
        observations: N frames.
        weights: (N,) of them; all alike where there are none.
    """
    mask = observations.mask
    frames = np.ones((len(mask), 1), np.float32) if weights is None else weights[:, None]
    peers = np.broadcast_to(frames[:, :, None], (*mask.shape, 1))[mask]
    before, squares = squared_gradients(policy, observations)
    count = len(policy.encoder)
    return Sensitivity(
        tuple(before[:count]),
        tuple(before[count:]),
        _floored(squares[:count], peers),
        _floored(squares[count:], frames),
        peers,
        frames,
    )


def squared_gradients(policy: Policy, observations: Observations) -> tuple[list[F32], list[F32]]:
    """(rows, M) of each layer, the encoder's first: what is before its activation, and squared gradients there."""
    encoder, head, embeddings, z, values = _run(policy, observations)
    of_encoder, of_head = [np.zeros_like(x) for x in encoder], [np.zeros_like(x) for x in head]
    for direction in _directions(policy.action_space, values):
        back = _backward(policy.head, head, direction, of_head)[:, : policy.embedding_size]
        _backward(policy.encoder, encoder, _unpool(policy, embeddings, z, back, observations), of_encoder)
    return [*encoder, *head], [*of_encoder, *of_head]


def before_activations(policy: Policy, observations: Observations) -> list[F32]:
    """(rows, M) of each layer, the encoder's first, before its activation; rows are the peers present, or frames."""
    encoder, head, *_ = _run(policy, observations)
    return [*encoder, *head]


def _run(policy: Policy, observations: Observations) -> tuple[list[F32], list[F32], F32, F32, F32]:
    """Before the activations of encoder and head; embeddings, z, and values."""
    mask = observations.mask
    encoder, embedded = _forward(policy.encoder, observations.peers[mask])
    embeddings = np.zeros((*mask.shape, policy.embedding_size), np.float32)
    embeddings[mask] = embedded
    z = pool(embeddings, mask, policy.pooling)
    head, values = _forward(policy.head, np.concatenate([z, observations.ego], axis=1))
    return encoder, head, embeddings, z, values


def _forward(layers: tuple[Dense, ...], x: F32) -> tuple[list[F32], F32]:
    before = []
    for layer in layers:
        before.append(x @ layer.weight.T + layer.bias)
        x = ACTIVATIONS[layer.activation](before[-1])
    return before, x


def _backward(layers: tuple[Dense, ...], before: list[F32], gradient: F32, squares: list[F32]) -> F32:
    """Adds the squared gradients before each activation to ``squares``; gives the gradient of the input."""
    for i in reversed(range(len(layers))):
        gradient = gradient * SLOPES[layers[i].activation](before[i])
        squares[i] += gradient**2
        gradient = gradient @ layers[i].weight
    return gradient


def _directions(space: ActionSpace, values: F32) -> F32:
    """(S, N, A) gradients of the values; the sum over S of their outer products is the Fisher information."""
    ones = np.eye(space.width, dtype=np.float32)[:, None, :]
    if isinstance(space, Box):
        low, high = np.array(space.low, np.float32), np.array(space.high, np.float32)
        beyond = np.float32(BEYOND) * (high - low)
        inside = (values > low - beyond) & (values < high + beyond)
        return np.asarray(ones * inside, np.float32)
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    p = shifted / shifted.sum(axis=1, keepdims=True)
    return np.asarray(np.sqrt(p.T)[:, :, None] * (ones - p), np.float32)


def _unpool(policy: Policy, embeddings: F32, z: F32, gradient: F32, observations: Observations) -> F32:
    """(N, D) gradient of z -> that of the embeddings of the peers present."""
    mask = observations.mask
    if policy.pooling == "max":
        return np.asarray(((embeddings == z[:, None, :]) * gradient[:, None, :])[mask])
    if policy.pooling == "mean":
        gradient = gradient / np.maximum(mask.sum(axis=1, keepdims=True), 1).astype(np.float32)
    return np.broadcast_to(gradient[:, None, :], embeddings.shape)[mask]


def _floored(squares: list[F32], weights: F32) -> tuple[F32, ...]:
    """Units on which nothing depends get the same everywhere."""
    floored = []
    for own in squares:
        mean = np.average(own, axis=0, weights=weights[:, 0]) if len(own) else np.ones(own.shape[1], np.float32)
        relative = own / np.where(mean > np.finfo(np.float32).tiny, mean, 1) + np.float32(FLOOR)
        floored.append(np.asarray(relative, np.float32))
    return tuple(floored)
