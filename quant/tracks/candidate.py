"""What a track makes: two INT8 models and the scales that go between them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quant.files import sha256
from quant.observation.observations import F32
from quant.policy.policy import ActionSpace, Pooling
from quant.policy.spaces import action_space_to_json

Part = Literal["peer_encoder", "policy_head"]
PARTS: tuple[Part, Part] = ("peer_encoder", "policy_head")
DESCRIBED = "description"
"""Key, beside `PARTS`, of the digest of what goes between a candidate's models."""
Int8 = NDArray[np.int8]
Bits = Literal[8, 16]
"""Width of activations."""
Codes = NDArray[np.int8 | np.int16]
"""What a tensor of activations holds: int8 or int16, by its width."""


def code_type(bits: Bits) -> type[np.int8 | np.int16]:
    """The type of codes of this width."""
    return np.int8 if bits == 8 else np.int16


def code_limits(bits: Bits) -> tuple[int, int]:
    """The lowest and the highest code of this width."""
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


@dataclass(frozen=True)
class Affine:
    """Float features to codes: q = clamp(rint(x * gain + offset)), one gain and offset a feature, in float32.

    A tensor has one scale; a gain for every feature, folded into the first layer's weights, uses all steps for each.
    Multiplication and addition round separately (no fused multiply-add) and rint rounds half to even, so that NumPy and
    a microcontroller agree to the bit.

    A residual is what rounding left over, as a second code: v = x * gain + offset, q = clamp(rint(v)) and
    r = clamp(rint((v - q) * residual)), so that q + r / residual has steps that much finer.

    Attributes:
        gain: (K,) float32, steps for one unit of the feature.
        offset: (K,) float32, steps.
        bits: 8, from -128 to 127, or 16, from -32768 to 32767.
        residual: 0, or the power of two by which a residual's steps are finer (with 8 bits only).
    """

    gain: F32
    offset: F32
    bits: Bits = 8
    residual: int = 0

    @property
    def size(self) -> int:
        """The number of codes: K, or 2 K with residuals."""
        return len(self.gain) * (2 if self.residual else 1)

    @property
    def ends(self) -> tuple[F32, F32]:
        """(K,) the least and the most value that is rounded to a code and not cut off: half a step beyond the last."""
        lowest, highest = code_limits(self.bits)
        return self._value(lowest - 0.5), self._value(highest + 0.5)

    def _value(self, steps: float) -> F32:
        return np.asarray((np.float32(steps) - self.offset) / self.gain, np.float32)

    def quantize(self, x: F32) -> Codes:
        """(N, K) float32 -> (N, K) codes, or (N, 2 K) [codes, residuals]; saturating."""
        steps = x * self.gain + self.offset
        codes = self._clamp(steps)
        if not self.residual:
            return codes
        return np.concatenate([codes, self._clamp((steps - codes.astype(np.float32)) * self.residual)], axis=1)

    def dequantize(self, q: Codes) -> F32:
        """(N, K) codes, or (N, 2 K) with residuals -> (N, K) float32."""
        steps, features = q.astype(np.float32), len(self.gain)
        if self.residual:
            steps = steps[:, :features] + steps[:, features:] / np.float32(self.residual)
        return np.asarray((steps - self.offset) / self.gain, np.float32)

    def _clamp(self, steps: F32) -> Codes:
        return np.asarray(np.clip(np.rint(steps), *code_limits(self.bits)), code_type(self.bits))


@dataclass(frozen=True)
class SubModel:
    """One .tflite file with int8 weights, one input (1, K) and one output (1, M), both int8 or both int16."""

    part: Part
    tflite: bytes

    @property
    def sha256(self) -> str:
        """Hash of the file."""
        return sha256(self.tflite)


@dataclass(frozen=True)
class Candidate:
    """Two models of int8 weights that make a decision together.

    A decision: ``peer_input`` quantizes each peer, ``peer_encoder`` runs once a peer, the embeddings' codes are pooled
    (requantized where the encoder's output and the head's input do not share scale and zero point), ``ego_input``
    quantizes the ego, ``policy_head`` runs once on [z, ego], and its output is dequantized with the scale in the file.
    Where an input has residuals they follow its codes.

    Attributes:
        track: the name of the track that made it.
        peer_encoder, policy_head: the models.
        peer_input: (F,) quantization of a peer's features.
        ego_input: (E,) quantization of the ego's features.
        pooling: how the embeddings' codes are pooled.
        action_space: what the head's outputs mean.
        max_peers: peer slots of an observation.
        policy_sha256: hash of the policy it was made from.
        dataset_sha256: hash of the dataset it was made with.
        log: the track's conversion log, line by line.
        bits: width of the activations of both models and of everything between them; weights are int8.
    """

    track: str
    peer_encoder: SubModel
    policy_head: SubModel
    peer_input: Affine
    ego_input: Affine
    pooling: Pooling
    action_space: ActionSpace
    max_peers: int
    policy_sha256: str
    dataset_sha256: str
    log: tuple[str, ...] = ()
    bits: Bits = 8

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of both models, by part."""
        return {model.part: model.sha256 for model in (self.peer_encoder, self.policy_head)}

    @property
    def identity(self) -> dict[str, str]:
        """SHA-256 of all that a decision depends on: of both models, and of what goes between them.

        The same two models decide otherwise with another gain or pooling, so what was judged is held against this.
        """
        between = {
            "inputs": [
                {"gain": affine.gain.tolist(), "offset": affine.offset.tolist(), "residual": affine.residual}
                for affine in (self.peer_input, self.ego_input)
            ],
            "bits": self.bits,
            "pooling": self.pooling,
            "action_space": action_space_to_json(self.action_space),
            "max_peers": self.max_peers,
        }
        return self.hashes | {DESCRIBED: sha256(json.dumps(between, sort_keys=True).encode())}
