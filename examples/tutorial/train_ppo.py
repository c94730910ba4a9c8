"""Trains the policy of the tutorial: an ordinary Stable-Baselines3 script with a Deep Sets features extractor."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from platoon import Platoon
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn


class PeerSet(BaseFeaturesExtractor):
    """[z, ego]: every peer through ``peer_encoder``, then the maximum over those present; z = 0 without."""

    def __init__(
        self, observation_space: Any, hidden: int = 32, activation: str = "relu", pooling: str = "max"
    ) -> None:
        super().__init__(observation_space, hidden + observation_space["ego"].shape[0])
        features = observation_space["peers"].shape[1]
        self.peer_encoder = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        """(N, D + E)."""
        present = (observations["peer_mask"] > 0)[:, :, None]
        embeddings = self.peer_encoder(observations["peers"]).masked_fill(~present, -torch.inf)
        z = embeddings.amax(dim=1).masked_fill(~present.any(dim=1), 0.0)
        return torch.cat([z, observations["ego"]], dim=1)


def main() -> None:
    """Trains and saves one policy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--out", default="policy.zip")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = PPO(
        "MultiInputPolicy",
        make_vec_env(Platoon, n_envs=16, seed=asked.seed),
        n_steps=128,
        batch_size=256,
        n_epochs=10,
        learning_rate=2e-3,
        gamma=0.5,
        gae_lambda=0.9,
        seed=asked.seed,
        device="cpu",
        policy_kwargs={
            "features_extractor_class": PeerSet,
            "features_extractor_kwargs": {"hidden": 32, "activation": "relu", "pooling": "max"},
            "net_arch": {"pi": [64], "vf": [64]},
        },
    )
    # Features are of the order of a tenth; and braking at random two times in three is all that it would see at first.
    with torch.no_grad():
        model.policy.features_extractor.peer_encoder[0].weight *= 6
        model.policy.action_net.bias[0] = 3
    model.learn(asked.steps)
    model.save(asked.out)
    print(f"{asked.out}: trained for {model.num_timesteps} steps")


if __name__ == "__main__":
    main()
