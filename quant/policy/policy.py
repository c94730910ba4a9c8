"""The float Deep Sets policy: its layers, its pooling, its action space, and how it computes.

Zaheer et al., "Deep Sets", NeurIPS 2017: every peer goes through the same encoder phi, the embeddings are pooled over
the peers present, and the head sees the concatenation [z, ego]. Without peers z is the zero vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quant.observation.observations import F32, Mask, Observations
from quant.observation.resolve import Bounds

Activation = Literal["linear", "relu", "relu6", "tanh", "elu", "sigmoid"]
Pooling = Literal["max", "mean", "sum"]

ACTIVATIONS: dict[Activation, Callable[[F32], F32]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "relu6": lambda x: np.clip(x, np.float32(0), np.float32(6)),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, np.float32(0)))),
    "sigmoid": lambda x: np.float32(0.5) + np.float32(0.5) * np.tanh(np.float32(0.5) * x),
}
"""Every activation TFLite-Micro has an int8 kernel for and a set policy is likely to use."""


@dataclass(frozen=True)
class Dense:
    """y = activation(x W^T + b).

    Attributes:
        weight: (outputs, inputs) float32.
        bias: (outputs,) float32.
        activation: applied elementwise.
    """

    weight: F32
    bias: F32
    activation: Activation

    @property
    def inputs(self) -> int:
        """Width of the input."""
        return int(self.weight.shape[1])

    @property
    def outputs(self) -> int:
        """Width of the output."""
        return int(self.weight.shape[0])

    def __call__(self, x: F32) -> F32:
        """(N, inputs) float32 -> (N, outputs) float32."""
        return ACTIVATIONS[self.activation](x @ self.weight.T + self.bias)


@dataclass(frozen=True)
class Discrete:
    """``n`` actions; the policy's values are logits and the first largest one is taken."""

    n: int

    @property
    def width(self) -> int:
        """Values the head gives for one decision."""
        return self.n

    def clip(self, values: F32) -> F32:
        """Logits are left as they are."""
        return values

    def decide(self, values: F32) -> NDArray[Any]:
        """(N, n) logits -> (N,) int64 actions."""
        return np.asarray(np.argmax(values, axis=1))

    @property
    def neutral(self) -> int:
        """The action that does nothing: by convention the first."""
        return 0


@dataclass(frozen=True)
class Box:
    """Continuous actions, clipped to ``low`` and ``high`` (one float each for every component)."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def width(self) -> int:
        """Values the head gives for one decision."""
        return len(self.low)

    def clip(self, values: F32) -> F32:
        """(N, width) head outputs -> (N, width) actions within the bounds."""
        return np.clip(values, np.array(self.low, np.float32), np.array(self.high, np.float32))

    def decide(self, values: F32) -> NDArray[Any]:
        """(N, width) head outputs -> (N, width) float32 actions within the bounds."""
        return self.clip(values)

    @property
    def neutral(self) -> tuple[float, ...]:
        """The action that does nothing: by convention the lower bound."""
        return self.low


ActionSpace = Discrete | Box


@dataclass(frozen=True)
class Fact:
    """Something known of a policy and how: ``stated`` by a file, ``read`` off weights, ``given``, or ``assumed``."""

    name: str
    value: str
    how: Literal["stated", "read", "given", "assumed"]
    source: str


@dataclass(frozen=True)
class Forward:
    """A float forward pass over N observations.

    Attributes:
        embeddings: (N, P, D) encoder outputs, zero where no peer is present.
        head_inputs: (N, D + E), [z, ego].
        values: (N, A) logits, or actions before clipping.
    """

    embeddings: F32
    head_inputs: F32
    values: F32


@dataclass(frozen=True)
class Policy:
    """A float Deep Sets policy as imported.

    Attributes:
        encoder: phi, run once for each peer.
        head: run once on [z, ego]; the last layer is linear.
        pooling: over the peers present; z is zero without peers.
        action_space: what the head's outputs mean.
        max_peers: P, the number of peer slots of an observation.
        facts: what the importer knows and how it knows it.
        bounds: of its inputs, where the checkpoint states them.
        origin: format and SHA-256 of the file the policy came from, as ``format sha256:...``.
    """

    encoder: tuple[Dense, ...]
    head: tuple[Dense, ...]
    pooling: Pooling
    action_space: ActionSpace
    max_peers: int = 8
    facts: tuple[Fact, ...] = ()
    origin: str = ""
    bounds: Bounds | None = None

    @property
    def peer_size(self) -> int:
        """F, features of one peer."""
        return self.encoder[0].inputs

    @property
    def embedding_size(self) -> int:
        """D, width of the pooled vector z."""
        return self.encoder[-1].outputs

    @property
    def ego_size(self) -> int:
        """E, features of the ego."""
        return self.head[0].inputs - self.embedding_size

    def encode(self, peers: F32) -> F32:
        """(N, F) peers -> (N, D) embeddings."""
        return _run(self.encoder, peers)

    def run_head(self, head_inputs: F32) -> F32:
        """(N, D + E) -> (N, A) logits, or actions before clipping."""
        return _run(self.head, head_inputs)

    def forward(self, observations: Observations) -> Forward:
        """The whole float pass. Only the peers present are encoded."""
        embeddings = np.zeros((*observations.mask.shape, self.embedding_size), np.float32)
        embeddings[observations.mask] = self.encode(observations.peers[observations.mask])
        head_inputs = np.concatenate([pool(embeddings, observations.mask, self.pooling), observations.ego], axis=1)
        return Forward(embeddings, head_inputs, self.run_head(head_inputs))


def pool(embeddings: F32, mask: Mask, pooling: Pooling) -> F32:
    """(N, P, D) embeddings and (N, P) mask -> (N, D); the zero vector where no peer is present."""
    present = mask[:, :, None]
    if pooling == "max":
        z = np.where(present, embeddings, np.float32(-np.inf)).max(axis=1)
        return np.where(mask.any(axis=1, keepdims=True), z, np.float32(0))
    total: F32 = np.where(present, embeddings, np.float32(0)).sum(axis=1)
    if pooling == "sum":
        return total
    count: F32 = np.maximum(mask.sum(axis=1, keepdims=True), 1).astype(np.float32)
    return total / count


def _run(layers: tuple[Dense, ...], x: F32) -> F32:
    for layer in layers:
        x = layer(x)
    return x
