"""Small policies with random weights, and candidates made of them by plain min-max quantization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from quant.observation.observations import F32, Observations
from quant.policy.policy import ActionSpace, Activation, Box, Dense, Discrete, Policy, Pooling
from quant.runners.flatbuffer import FullyConnected, FusedActivation, Layer, Quantized, Unary
from quant.tracks.candidate import Affine, Candidate, SubModel
from tests.runners.build import tflite

FUSED: dict[Activation, FusedActivation] = {"linear": "NONE", "relu": "RELU", "relu6": "RELU6", "tanh": "NONE"}


def random_policy(
    seed: int = 0,
    *,
    ego: int = 4,
    hidden: Sequence[int] = (64,),
    head_activation: Activation = "relu",
    pooling: Pooling = "max",
    action_space: ActionSpace | None = None,
) -> Policy:
    """Encoder 6-32-32 ReLU and a head of the given shape, with He-initialized weights."""
    rng = np.random.default_rng(seed)
    space = Discrete(4) if action_space is None else action_space

    def mlp(sizes: Sequence[int], activations: Sequence[Activation]) -> tuple[Dense, ...]:
        return tuple(
            Dense(
                rng.normal(0, np.sqrt(2 / i), (o, i)).astype(np.float32), rng.normal(0, 0.1, o).astype(np.float32), act
            )
            for i, o, act in zip(sizes[:-1], sizes[1:], activations, strict=True)
        )

    encoder = mlp([6, 32, 32], ["relu", "relu"])
    head = mlp([32 + ego, *hidden, space.width], [*[head_activation] * len(hidden), "linear"])
    return Policy(encoder, head, pooling, space)


def random_observations(n: int, seed: int = 0, *, ego: int = 4, present: float = 0.375) -> Observations:
    """N observations of 8 slots, each filled with the given probability: 3 peers on average."""
    rng = np.random.default_rng(seed)
    return Observations(
        rng.normal(0, 0.5, (n, ego)).astype(np.float32),
        rng.normal(0, 0.5, (n, 8, 6)).astype(np.float32),
        rng.random((n, 8)) < present,
    )


def quantize_policy(policy: Policy, *, per_channel: bool = True, share_scale: bool = True) -> Candidate:
    """A candidate calibrated on random observations; with ``share_scale`` the head takes the pooled bytes unchanged."""
    seen = random_observations(2000, seed=1, ego=policy.ego_size)
    peers = seen.peers[seen.mask]
    forward = policy.forward(seen)
    source = _range(peers, (1, policy.peer_size))
    encoder = _quantize(policy.encoder, peers, source, per_channel)
    joined = _range(forward.head_inputs, (1, policy.embedding_size + policy.ego_size))
    if share_scale:
        output = Quantized((1, policy.embedding_size), joined.scale, joined.zero_point)
        encoder[-1] = replace(encoder[-1], output=output)
    head = _quantize(policy.head, forward.head_inputs, joined, per_channel)
    return Candidate(
        "test",
        SubModel("peer_encoder", tflite(encoder)),
        SubModel("policy_head", tflite(head)),
        _affine(source, policy.peer_size),
        _affine(joined, policy.ego_size),
        policy.pooling,
        policy.action_space,
        policy.max_peers,
        "0" * 64,
        "0" * 64,
    )


def box_policy(seed: int = 0) -> Policy:
    """The field's other head: 64-64 tanh and one action in [0, 1]."""
    return random_policy(seed, ego=6, hidden=(64, 64), head_activation="tanh", action_space=Box((0.0,), (1.0,)))


def _affine(quantized: Quantized, size: int) -> Affine:
    gain = np.full(size, 1 / float(quantized.scale), np.float32)
    return Affine(gain, np.full(size, quantized.zero_point, np.float32))


def _range(x: F32, shape: tuple[int, ...]) -> Quantized:
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = np.float32((high - low) / 255)
    return Quantized(shape, scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))


def _quantize(layers: Sequence[Dense], x: F32, source: Quantized, per_channel: bool) -> list[Layer]:
    made: list[Layer] = []
    for layer in layers:
        linear = x @ layer.weight.T + layer.bias
        x = layer(x)
        target = _range(linear if layer.activation == "tanh" else x, (1, layer.outputs))
        peak = np.abs(layer.weight).max(axis=1) if per_channel else np.abs(layer.weight).max(keepdims=True).ravel()
        scale = (peak / 127).astype(np.float32)
        weight = np.rint(layer.weight / scale[:, None]).astype(np.int8)
        bias = np.rint(layer.bias / (scale * source.scale)).astype(np.int32)
        made.append(FullyConnected(source, target, weight, scale, bias, FUSED[layer.activation]))
        if layer.activation == "tanh":
            made.append(Unary("TANH", target, Quantized(target.shape, np.float32(1 / 128), 0)))
        source = made[-1].output
    return made
