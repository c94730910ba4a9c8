"""Runs a policy or a candidate on observations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from quant.errors import InputError
from quant.observation.observations import F32, Observations
from quant.policy.policy import ACTIVATIONS, ActionSpace, Dense, Policy
from quant.runners.engines import Engine, EngineName, make_engine
from quant.runners.gather import Peers
from quant.runners.pooling import Pool
from quant.tracks.candidate import Candidate, Codes

CHUNK = 1024
"""Observations taken at once: large enough that NumPy's calls cost little, small enough for a core's cache."""


class Runner(Protocol):
    """Anything that decides."""

    @property
    def action_space(self) -> ActionSpace:
        """What the values mean."""

    def values(self, observations: Observations) -> F32:
        """N observations -> (N, A) float32: logits, or actions within the bounds."""


@dataclass(frozen=True)
class FloatRunner:
    """Runs the float policy."""

    policy: Policy

    @property
    def action_space(self) -> ActionSpace:
        """What the values mean."""
        return self.policy.action_space

    def values(self, observations: Observations) -> F32:
        """N observations -> (N, A) float32: logits, or actions within the bounds."""
        out = np.empty((len(observations), self.action_space.width), np.float32)
        for rows in _chunks(len(observations)):
            out[rows] = self.action_space.clip(self._head_outputs(observations[rows]))
        return out

    def _head_outputs(self, observations: Observations) -> F32:
        """As :meth:`quant.policy.policy.Policy.forward`, without what a verdict does not need."""
        peers, pooling = Peers.of(observations), self.policy.pooling
        embeddings = _run(self.policy.encoder, peers.features.T)
        slots = peers.scattered(embeddings, -np.inf if pooling == "max" else 0)
        z: F32 = slots.max(axis=0) if pooling == "max" else slots.sum(axis=0)
        count = peers.mask.sum(axis=0)
        if pooling == "mean":
            z /= np.maximum(count, 1).astype(np.float32)[:, None]
        z[count == 0] = 0
        return _run(self.policy.head, np.concatenate([z, observations.ego], axis=1))


def _run(layers: tuple[Dense, ...], x: F32) -> F32:
    for layer in layers:
        x = x @ layer.weight.T
        x += layer.bias
        x = np.maximum(x, np.float32(0), out=x) if layer.activation == "relu" else ACTIVATIONS[layer.activation](x)
    return x


@dataclass(frozen=True)
class Decision:
    """The codes at every interface in N decisions, int8 or int16, to compare with a device byte by byte.

    Attributes:
        peer_inputs: (N, P, F), what the encoder gets, with residuals (N, P, 2 F); 0 where no peer is present.
        embeddings: (N, P, D), what it gives; the pooling's neutral code where no peer is present.
        pooled: (N, D), z in the head's quantization.
        head_inputs: (N, D + E), [z, ego]; with residuals (N, D + 2 E).
        outputs: (N, A), what the head gives.
    """

    peer_inputs: Codes
    embeddings: Codes
    pooled: Codes
    head_inputs: Codes
    outputs: Codes


class Int8Runner:
    """Runs a candidate the way a device does: quantize, encode each peer present, pool, concatenate, head, dequantize.

    Args:
        candidate: the two sub-models and the quantization around them.
        engine: what computes the sub-models.

    Raises:
        InputError: a sub-model is damaged or unsupported, or the parts of the candidate do not fit together.
    """

    def __init__(self, candidate: Candidate, engine: Engine | EngineName = "numpy") -> None:
        self.candidate = candidate
        self.engine = make_engine(engine, candidate) if isinstance(engine, str) else engine
        encoder, head = self.engine.model("peer_encoder"), self.engine.model("policy_head")
        for what, size, expected in (
            ("peer_encoder's input", encoder.input.size, candidate.peer_input.size),
            ("policy_head's input", head.input.size, encoder.output.size + candidate.ego_input.size),
            ("policy_head's output", head.output.size, candidate.action_space.width),
        ):
            if size != expected:
                raise InputError(f"the {what} has {size} values", where=candidate.track, expected=f"{expected} values")
        widths = {"peer_encoder": encoder.bits, "policy_head": head.bits}
        widths |= {"peer_input": candidate.peer_input.bits, "ego_input": candidate.ego_input.bits}
        for part, bits in widths.items():
            if bits != candidate.bits:
                raise InputError(f"{part} has {bits} bits", where=candidate.track, expected=f"{candidate.bits} bits")
        self.pool = Pool.build(candidate.pooling, encoder.output, head.input, candidate.max_peers)
        self._embedding_size = encoder.output.size
        self._output = head.output

    @property
    def action_space(self) -> ActionSpace:
        """What the values mean."""
        return self.candidate.action_space

    def values(self, observations: Observations) -> F32:
        """N observations -> (N, A) float32: dequantized logits, or actions within the bounds.

        Raises:
            InputError: the observations are not of the candidate's sizes.
        """
        self._check(observations)
        out = np.empty((len(observations), self.action_space.width), np.float32)
        for rows in _chunks(len(observations)):
            part = observations[rows]
            out[rows] = self._output.dequantize(self._decide(part, Peers.of(part))[-1])
        return self.action_space.clip(out)

    def decide(self, observations: Observations) -> Decision:
        """N observations -> the bytes at every interface.

        Raises:
            InputError: the observations are not of the candidate's sizes.
        """
        self._check(observations)
        parts = [self._decision(observations[rows]) for rows in _chunks(len(observations))] or [
            self._decision(observations)
        ]
        return Decision(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Decision)))

    def _check(self, observations: Observations) -> None:
        peers, features = observations.peers.shape[1:]
        ego = observations.ego.shape[1]
        sizes = (len(self.candidate.peer_input.gain), len(self.candidate.ego_input.gain))
        if (features, ego) != sizes or peers > self.candidate.max_peers:
            raise InputError(
                f"observations of {peers} peers with {features} features and an ego of {ego}",
                where=self.candidate.track,
                expected=f"up to {self.candidate.max_peers} peers with {sizes[0]} features and an ego of {sizes[1]}",
            )

    def _decision(self, observations: Observations) -> Decision:
        peers = Peers.of(observations)
        codes, embeddings, *rest = self._decide(observations, peers)
        return Decision(peers.scattered(codes, 0).swapaxes(0, 1), embeddings.swapaxes(0, 1), *rest)

    def _decide(self, observations: Observations, peers: Peers) -> tuple[Codes, Codes, Codes, Codes, Codes]:
        """Codes of the peers present (M, F), embeddings (P, N, D), pooled, the head's inputs and outputs."""
        codes = self.candidate.peer_input.quantize(peers.features.T)
        embeddings = peers.scattered(self.engine.invoke("peer_encoder", codes), self.pool.neutral)
        pooled = self.pool(embeddings, peers.mask)
        head_inputs = np.concatenate([pooled, self.candidate.ego_input.quantize(observations.ego)], axis=1)
        return codes, embeddings, pooled, head_inputs, self.engine.invoke("policy_head", head_inputs)


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, n, CHUNK))
