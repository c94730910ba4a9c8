"""Candidates with int16 codes and with residual inputs, made of small policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from quant.observation.observations import F32
from quant.policy.policy import Dense, Policy
from quant.runners import Quantized, read_model
from quant.runners.flatbuffer import FullyConnected, Layer, Unary
from quant.tracks.candidate import Affine, Candidate, SubModel
from tests.runners.build import tflite
from tests.runners.candidates import FUSED, quantize_policy, random_observations


def wide(policy: Policy, *, share_scale: bool = True) -> Candidate:
    """int16 codes and int8 weights with one scale a layer, calibrated on random observations."""
    seen = random_observations(2000, seed=1, ego=policy.ego_size)
    forward, peers = policy.forward(seen), seen.peers[seen.mask]
    source = _symmetric(peers, policy.peer_size)
    joined = _symmetric(forward.head_inputs, policy.embedding_size + policy.ego_size)
    encoder = _layers(policy.encoder, peers, source)
    if share_scale:
        encoder[-1] = replace(encoder[-1], output=replace(encoder[-1].output, scale=joined.scale))
    return replace(
        quantize_policy(policy),
        peer_encoder=SubModel("peer_encoder", tflite(encoder)),
        policy_head=SubModel("policy_head", tflite(_layers(policy.head, forward.head_inputs, joined))),
        peer_input=_affine(source, policy.peer_size),
        ego_input=_affine(joined, policy.ego_size),
        bits=16,
    )


def fine(policy: Policy, *, peer: int = 16, ego: int = 16) -> Candidate:
    """int8 codes, and residuals with these factors: the first layers weigh them by so much less."""
    whole = quantize_policy(policy)
    encoder, head = read_model(whole.peer_encoder.tflite), read_model(whole.policy_head.tflite)
    return replace(
        whole,
        peer_encoder=SubModel("peer_encoder", tflite(_widened(encoder.layers, policy.peer_size, peer))),
        policy_head=SubModel("policy_head", tflite(_widened(head.layers, policy.ego_size, ego))),
        peer_input=replace(whole.peer_input, residual=peer),
        ego_input=replace(whole.ego_input, residual=ego),
    )


def _widened(layers: Sequence[Layer], features: int, factor: int) -> list[Layer]:
    """Layers whose first takes a residual for each of its last inputs, too."""
    first = layers[0]
    if not factor or not isinstance(first, FullyConnected):
        return list(layers)
    finer = np.rint(first.weight[:, -features:] / factor).astype(np.int8)
    weight = np.concatenate([first.weight, finer], axis=1)
    # A residual's zero is code 0, the input's is its zero point: the bias takes the difference.
    bias = first.bias + finer.sum(axis=1, dtype=np.int32) * first.input.zero_point
    source = replace(first.input, shape=(1, weight.shape[1]))
    return [replace(first, input=source, weight=weight, bias=bias.astype(np.int32)), *layers[1:]]


def _affine(quantized: Quantized, size: int) -> Affine:
    return Affine(np.full(size, 1 / float(quantized.scale), np.float32), np.zeros(size, np.float32), bits=16)


def _symmetric(x: F32, size: int) -> Quantized:
    return Quantized((1, size), np.float32(np.abs(x).max() / 32767), 0, 16)


def _layers(layers: Sequence[Dense], x: F32, source: Quantized) -> list[Layer]:
    made: list[Layer] = []
    for layer in layers:
        linear = x @ layer.weight.T + layer.bias
        x = layer(x)
        target = _symmetric(linear if layer.activation == "tanh" else x, layer.outputs)
        scale = np.array([np.abs(layer.weight).max() / 127], np.float32)
        bias = np.rint(layer.bias / (scale * source.scale)).astype(np.int64)
        weight = np.rint(layer.weight / scale).astype(np.int8)
        made.append(FullyConnected(source, target, weight, scale, bias, FUSED[layer.activation]))
        if layer.activation == "tanh":
            made.append(Unary("TANH", target, replace(target, scale=np.float32(2**-15))))
        source = made[-1].output
    return made
