"""Where the float policy itself is settled: no rounding of its inputs to int8 can bring it to the other side.

A frame counts against a candidate only where float stays on its side when every feature, of the ego and of each peer
present, moves by up to one step of an int8 over its declared range, all at once and in the worst direction. That
direction is searched for by sign-gradient steps inside the box (projected gradient descent; A. Madry et al., "Towards
deep learning models resistant to adversarial attacks", ICLR 2018), from the frame itself and from two fixed corners of
the box. A policy of ReLUs is linear in most such boxes, where the first step finds the worst corner exactly. Elsewhere
the search may miss a way out, and then calls a frame settled that is not: it errs against the candidate, never for it.

Of a Discrete the logits, too, are an int8's: those that are compared may each be off by one step of their own range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.statistics import Bits
from quant.evaluation.stress.frames import steps_of
from quant.evaluation.stress.margins import margins
from quant.observation.contract import Contract
from quant.observation.observations import F32, Observations
from quant.policy.policy import Activation, Dense, Policy

STRIDES = (2.0, 2.0, 1.0, 0.5, 0.25)
"""Of the successive moves, in steps: the first two reach any corner of the box."""
STARTS = 3
"""The frame itself, and corners of the box."""
ROWS = 2048
"""Frames searched at once."""


def settled(
    policy: Policy,
    contract: Contract,
    frames: Observations,
    component: NDArray[np.int64],
    acts: Bits,
    slack: float = 0.0,
) -> Bits:
    """(N,) whether float stays on its side; see the module.

    Args:
        policy: in float.
        contract: with a bound everywhere.
        frames: N, on each of which float is on a side.
        component: (N,) of which component of its action.
        acts: (N,) True where it acts, False where it rests.
        slack: how far inside its side it has to stay: see `quant.evaluation.stress.margins.slack_of`.
    """
    stays = np.ones(len(frames), np.bool_)
    for start in range(0, len(frames), ROWS):
        rows = slice(start, start + ROWS)
        stays[rows] = _stays(policy, contract, frames[rows], component[rows], acts[rows], slack)
    return stays


def _stays(
    policy: Policy, contract: Contract, frames: Observations, component: NDArray[np.int64], acts: Bits, slack: float
) -> Bits:
    stays = np.ones(len(frames), np.bool_)
    box = steps_of(contract.ego), steps_of(contract.peers)
    corners = np.random.default_rng(0)
    for attempt in range(STARTS):
        moves = [np.zeros(part.shape[1:], np.float32) for part in (frames.ego, frames.peers)]
        if attempt:
            moves = [corners.choice(np.array([-1, 1], np.float32), move.shape) for move in moves]
        left = np.flatnonzero(stays)
        ego, peers = (np.broadcast_to(move, (len(left), *move.shape)).copy() for move in moves)
        for stride in (*STRIDES, 0.0):
            at = Observations(frames.ego[left] + ego * box[0], frames.peers[left] + peers * box[1], frames.mask[left])
            found = slopes(policy, at, component[left], acts[left])
            kept: Bits = np.asarray(found.margin > slack)
            stays[left] = kept
            left, ego, peers = left[kept], ego[kept], peers[kept]
            if stride == 0 or not len(left):
                break
            ego = np.clip(ego - np.float32(stride) * np.sign(found.ego[kept]), -1, 1)
            peers = np.clip(peers - np.float32(stride) * np.sign(found.peers[kept]), -1, 1)
    return stays


@dataclass(frozen=True)
class Margin:
    """(N,) how far float is from leaving its side, with its slopes by (N, E) ego and (N, P, F) peers."""

    margin: F32
    ego: F32
    peers: F32


def slopes(policy: Policy, frames: Observations, component: NDArray[np.int64], acts: Bits) -> Margin:
    """The margin of each frame and its gradient, by one pass forward and one back."""
    mask = frames.mask
    encoded = _forward(policy.encoder, frames.peers[mask])
    embeddings = np.full((*mask.shape, policy.embedding_size), -np.inf if policy.pooling == "max" else 0, np.float32)
    embeddings[mask] = encoded[-1]
    count = np.maximum(mask.sum(axis=1), 1).astype(np.float32)[:, None]
    someone = frames.counts[:, None] > 0
    z: NDArray[np.floating] = embeddings.max(axis=1) if policy.pooling == "max" else embeddings.sum(axis=1)
    pooled = np.where(someone, z / count if policy.pooling == "mean" else z, 0).astype(np.float32)
    decided = _forward(policy.head, np.concatenate([pooled, frames.ego], axis=1))
    margin, slope = margins(policy.action_space, decided[-1], component, acts)
    down = _backward(policy.head, decided, slope)
    to_z, to_ego = down[:, : policy.embedding_size], down[:, policy.embedding_size :]
    to_embeddings = np.zeros(embeddings.shape, np.float32)
    if policy.pooling == "max":
        np.put_along_axis(to_embeddings, embeddings.argmax(axis=1)[:, None], to_z[:, None], axis=1)
    else:
        to_embeddings[:] = (to_z / count if policy.pooling == "mean" else to_z)[:, None]
    to_peers = np.zeros(frames.peers.shape, np.float32)
    to_peers[mask] = _backward(policy.encoder, encoded, to_embeddings[mask])
    return Margin(margin, to_ego, to_peers)


def _forward(layers: Sequence[Dense], x: F32) -> list[F32]:
    """What goes into the first layer, and what comes out of each."""
    found = [x]
    for layer in layers:
        found.append(layer(found[-1]))
    return found


def _backward(layers: Sequence[Dense], found: Sequence[F32], slope: F32) -> F32:
    for layer, y in zip(reversed(layers), reversed(found), strict=False):
        slope = np.asarray((slope * _derivative(layer.activation, y)) @ layer.weight, np.float32)
    return slope


def _derivative(activation: Activation, y: F32) -> F32:
    """Of an activation, by what it gave."""
    match activation:
        case "relu":
            return (y > 0).astype(np.float32)
        case "relu6":
            return ((y > 0) & (y < 6)).astype(np.float32)
        case "tanh":
            return 1 - y * y
        case "elu":
            return np.where(y > 0, np.float32(1), y + 1)
        case "sigmoid":
            return y * (1 - y)
        case "linear":
            return np.ones_like(y)
