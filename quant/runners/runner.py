"""Runs a policy or a candidate on observations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from quant.errors import InputError
from quant.policy.observations import F32, Observations
from quant.policy.policy import ActionSpace, Policy
from quant.runners.engines import Engine, EngineName, make_engine
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
            out[rows] = self.action_space.clip(self.policy.forward(observations[rows]).values)
        return out


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
            out[rows] = self._output.dequantize(self._decide(observations[rows]).outputs)
        return self.action_space.clip(out)

    def decide(self, observations: Observations) -> Decision:
        """N observations -> the bytes at every interface.

        Raises:
            InputError: the observations are not of the candidate's sizes.
        """
        self._check(observations)
        parts = [self._decide(observations[rows]) for rows in _chunks(len(observations))] or [
            self._decide(observations)
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

    def _decide(self, observations: Observations) -> Decision:
        candidate, n = self.candidate, len(observations)
        p, features = observations.peers.shape[1:]
        # Peers first, (P, N, ...): pooling then works on whole arrays.
        mask = np.ascontiguousarray(observations.mask.T)
        present = np.flatnonzero(mask)
        slot, row = np.divmod(present, max(n, 1))
        peers = candidate.peer_input.quantize(observations.peers.reshape(n * p, features).take(row * p + slot, axis=0))
        peer_inputs = np.zeros((p, n, peers.shape[1]), peers.dtype)
        peer_inputs.reshape(-1, peers.shape[1])[present] = peers
        embeddings = np.full((p, n, self._embedding_size), self.pool.neutral, peers.dtype)
        embeddings.reshape(-1, self._embedding_size)[present] = self.engine.invoke("peer_encoder", peers)
        pooled = self.pool(embeddings, mask)
        head_inputs = np.concatenate([pooled, candidate.ego_input.quantize(observations.ego)], axis=1)
        outputs = self.engine.invoke("policy_head", head_inputs)
        return Decision(peer_inputs.swapaxes(0, 1), embeddings.swapaxes(0, 1), pooled, head_inputs, outputs)


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, n, CHUNK))
