"""What a track makes: two INT8 models and the scales that go between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quant.files import sha256
from quant.policy.observations import F32
from quant.policy.policy import ActionSpace, Pooling

Part = Literal["peer_encoder", "policy_head"]
PARTS: tuple[Part, Part] = ("peer_encoder", "policy_head")
Int8 = NDArray[np.int8]


@dataclass(frozen=True)
class Affine:
    """Float features to int8: q = clamp(rint(x * gain + offset), -128, 127), one gain and offset a feature, in float32.

    A tensor has one scale; a gain for every feature, folded into the first layer's weights, uses all 256 steps for
    each. Multiplication and addition round separately (no fused multiply-add) and rint rounds half to even, so that
    NumPy and a microcontroller agree to the bit.

    Attributes:
        gain: (K,) float32, steps for one unit of the feature.
        offset: (K,) float32, steps.
    """

    gain: F32
    offset: F32

    def quantize(self, x: F32) -> Int8:
        """(N, K) float32 -> (N, K) int8, saturating."""
        return np.asarray(np.clip(np.rint(x * self.gain + self.offset), -128, 127), np.int8)

    def dequantize(self, q: Int8) -> F32:
        """(N, K) int8 -> (N, K) float32."""
        return np.asarray((q.astype(np.float32) - self.offset) / self.gain, np.float32)


@dataclass(frozen=True)
class SubModel:
    """One INT8 .tflite file with one int8 input (1, K) and one int8 output (1, M)."""

    part: Part
    tflite: bytes

    @property
    def sha256(self) -> str:
        """Hash of the file."""
        return sha256(self.tflite)


@dataclass(frozen=True)
class Candidate:
    """Two INT8 models that make a decision together.

    A decision: ``peer_input`` quantizes each peer, ``peer_encoder`` runs once a peer, the int8 embeddings are pooled
    (requantized where the encoder's output and the head's input do not share scale and zero point), ``ego_input``
    quantizes the ego, ``policy_head`` runs once on [z, ego], and its output is dequantized with the scale in the file.

    Attributes:
        track: the name of the track that made it.
        peer_encoder, policy_head: the models.
        peer_input: (F,) quantization of a peer's features.
        ego_input: (E,) quantization of the ego's features.
        pooling: how the int8 embeddings are pooled.
        action_space: what the head's outputs mean.
        max_peers: peer slots of an observation.
        policy_sha256: hash of the policy it was made from.
        dataset_sha256: hash of the dataset it was made with.
        log: the track's conversion log, line by line.
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

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of both models, by part."""
        return {model.part: model.sha256 for model in (self.peer_encoder, self.policy_head)}
