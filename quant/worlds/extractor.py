"""The Deep Sets features extractor of the reference policy, for Stable-Baselines3.

Imported by training alone: it needs torch. It stands at module level because a checkpoint refers to it by name.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from quant.observation.observations import EGO, PEER_MASK, PEERS

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU}


class DeepSetsExtractor(BaseFeaturesExtractor):  # type: ignore[misc]
    """Features [z, ego]: every present peer through ``peer_encoder``, then the maximum over the peers; z = 0 without.

    Args:
        observation_space: Dict of ego (E,), peers (P, F) and peer_mask (P,).
        hidden_sizes: widths of the encoder's layers; the activation follows each of them.
        activation: relu, tanh or elu.
        pooling: max; stated so that the checkpoint says it.
    """

    def __init__(
        self,
        observation_space: gymnasium.spaces.Dict,
        hidden_sizes: tuple[int, ...] | list[int] = (32, 32),
        activation: str = "relu",
        pooling: str = "max",
    ) -> None:
        ego, peers = observation_space[EGO].shape, observation_space[PEERS].shape
        assert ego is not None and peers is not None
        super().__init__(observation_space, hidden_sizes[-1] + ego[0])
        if pooling != "max":
            raise ValueError(f"pooling {pooling!r}: only max is trained here")
        layers: list[Any] = []
        for inputs, outputs in zip((peers[1], *hidden_sizes[:-1]), hidden_sizes, strict=True):
            layers += [nn.Linear(inputs, outputs), _ACTIVATIONS[activation]()]
        self.peer_encoder = nn.Sequential(*layers)

    def embed(self, observations: dict[str, Any]) -> Any:
        """(N, P, D) embeddings, zero where no peer is present."""
        return self.peer_encoder(observations[PEERS]) * (observations[PEER_MASK] > 0)[:, :, None]

    def forward(self, observations: dict[str, Any]) -> Any:
        """(N, D + E)."""
        present = (observations[PEER_MASK] > 0)[:, :, None]
        embeddings = self.peer_encoder(observations[PEERS]).masked_fill(~present, -torch.inf)
        z = embeddings.amax(dim=1).masked_fill(~present.any(dim=1), 0.0)
        return torch.cat([z, observations[EGO]], dim=1)
