"""Held against the originals: Stable-Baselines3 itself where it is installed, and real checkpoints where they are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant.policy import Discrete, Observations, load_policy
from quant.policy.archive import open_archive
from quant.policy.assembly import probe

REAL = Path(__file__).parents[2].parent / "shared" / "real"


@pytest.fixture
def one_thread() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def environment(ego: int, action_space: Any) -> Any:
    import gymnasium

    class SetEnv(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Dict(
            {
                "ego": gymnasium.spaces.Box(-np.inf, np.inf, (ego,), np.float32),
                "peers": gymnasium.spaces.Box(-np.inf, np.inf, (8, 6), np.float32),
                "peer_mask": gymnasium.spaces.Box(0, 1, (8,), np.float32),
            }
        )

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return self._observe(), {}

        def step(self, action: Any) -> Any:
            return self._observe(), float(self.np_random.normal()), False, bool(self.np_random.random() < 0.1), {}

        def _observe(self) -> Any:
            row = probe(ego, 8, 6, int(self.np_random.integers(1 << 30)))[:1]
            return {"ego": row.ego[0], "peers": row.peers[0], "peer_mask": row.mask[0].astype(np.float32)}

    made = SetEnv()
    made.action_space = action_space
    return made


def extractor() -> Any:
    torch = pytest.importorskip("torch")
    layers = pytest.importorskip("stable_baselines3.common.torch_layers")
    kinds = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "elu": torch.nn.ELU}

    class DeepSets(layers.BaseFeaturesExtractor):  # type: ignore[misc,name-defined]
        def __init__(self, observation_space: Any, activation: str = "relu", pooling: str = "max") -> None:
            super().__init__(observation_space, 32 + observation_space["ego"].shape[0])
            kind = kinds[activation]
            linear = torch.nn.Linear
            self.peer_encoder = torch.nn.Sequential(linear(6, 32), kind(), linear(32, 32), kind())
            self.pooling = pooling

        def forward(self, observation: Any) -> Any:
            h, mask = self.peer_encoder(observation["peers"]), observation["peer_mask"].bool()[..., None]
            if self.pooling == "max":
                z = h.masked_fill(~mask, -torch.inf).amax(1)
                z = torch.where(mask.any(1), z, torch.zeros_like(z))
            else:
                z = (h * mask).sum(1)
                z = z / mask.sum(1).clamp(min=1) if self.pooling == "mean" else z
            return torch.cat([z, observation["ego"]], dim=1)

    return DeepSets


CASES: list[tuple[int, Any, dict[str, Any]]] = [
    (4, 4, {"net_arch": [64], "activation_fn": "ReLU"}),
    (5, ([0.0], [1.0]), {}),
    (6, ([0.0], [1.0]), {"net_arch": {"pi": [128, 64, 32], "vf": [16]}, "activation_fn": "ELU"}),
    (7, ([-1.0, 0.0], [1.0, 2.5]), {"features_extractor_kwargs": {"activation": "tanh", "pooling": "mean"}}),
    (18, 3, {"net_arch": [], "features_extractor_kwargs": {"activation": "elu", "pooling": "sum"}}),
    (6, ([0.0], [1.0]), {"share_features_extractor": False}),
    (6, ([-1.0], [1.0]), {"squash_output": True}),
]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("ego", "actions", "kwargs"), CASES)
def test_decides_as_stable_baselines3_does(tmp_path: Path, ego: int, actions: Any, kwargs: dict[str, Any]) -> None:
    """Trained for a few steps so that no bias is zero; ``predict`` and the action network's outputs are the truth."""
    torch = pytest.importorskip("torch")
    sb3 = pytest.importorskip("stable_baselines3")
    from gymnasium import spaces

    space = spaces.Discrete(actions) if isinstance(actions, int) else spaces.Box(*np.array(actions, np.float32))
    kwargs = {**kwargs, "features_extractor_class": extractor()}
    if "activation_fn" in kwargs:
        kwargs["activation_fn"] = getattr(torch.nn, kwargs["activation_fn"])
    squash = kwargs.get("squash_output", False)
    model = sb3.PPO(
        "MultiInputPolicy", environment(ego, space), policy_kwargs=kwargs, n_steps=64, batch_size=32, seed=0,
        device="cpu", use_sde=squash, learning_rate=3e-3,
    )  # fmt: skip
    model.learn(256)
    model.save(tmp_path / "model.zip")
    policy = load_policy(tmp_path / "model.zip")
    o = probe(ego, 8, 6, seed=5)
    observation = {"ego": o.ego, "peers": o.peers, "peer_mask": o.mask.astype(np.float32)}
    decided, _ = model.predict(observation, deterministic=True)
    mine = policy.forward(o).values
    if isinstance(policy.action_space, Discrete):
        np.testing.assert_array_equal(policy.action_space.decide(mine), decided)
    else:
        np.testing.assert_allclose(policy.action_space.decide(mine), decided, atol=1e-5)
    if not squash:
        with torch.no_grad():
            features = model.policy.extract_features(
                {key: torch.as_tensor(value) for key, value in observation.items()}
            )
            features = features if torch.is_tensor(features) else features[0]
            values = model.policy.action_net(model.policy.mlp_extractor.forward_actor(features)).numpy()
        np.testing.assert_allclose(mine, values, atol=1e-5)


def real(name: str) -> Path:
    path = REAL / name
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    return path


def drive(name: str) -> Observations:
    with np.load(real(name), allow_pickle=False) as recorded:
        mask = recorded["peer_mask"] > 0.5
        return Observations(recorded["ego"].astype(np.float32), recorded["peers"].astype(np.float32), mask)


@pytest.mark.parametrize(("ego", "size"), [("ego5", 5), ("ego6", 6)])
def test_real_checkpoints_are_read(ego: str, size: int) -> None:
    policy = load_policy(real(f"policy_{ego}.zip"))
    widths = [(layer.inputs, layer.outputs, layer.activation) for layer in (*policy.encoder, *policy.head)]
    assert widths == [
        (6, 32, "relu"),
        (32, 32, "relu"),
        (32 + size, 64, "tanh"),
        (64, 64, "tanh"),
        (64, 1, "linear"),
    ]
    values = policy.forward(drive(f"drive_a_{ego}.npz")).values
    assert np.isfinite(values).all()
    assert np.ptp(values) > 1.0


@pytest.mark.parametrize("ego", ["ego5", "ego6"])
def test_real_checkpoints_compute_what_torch_computes(ego: str) -> None:
    torch = pytest.importorskip("torch")
    path = real(f"policy_{ego}.zip")
    policy = load_policy(path)
    content = open_archive(path.read_bytes(), str(path)).read("policy.pth")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    o = drive(f"drive_a_{ego}.npz")
    linear = torch.nn.functional.linear

    def run(prefix: str, indexes: tuple[int, ...], x: Any, activation: Any) -> Any:
        for index in indexes:
            x = activation(linear(x, state[f"{prefix}.{index}.weight"], state[f"{prefix}.{index}.bias"]))
        return x

    mask = torch.as_tensor(o.mask)[:, :, None]
    h = run("pi_features_extractor.peer_encoder", (0, 2), torch.as_tensor(o.peers), torch.relu)
    z = torch.where(mask.any(1), h.masked_fill(~mask, -torch.inf).amax(1), torch.zeros(1))
    x = run("mlp_extractor.policy_net", (0, 2), torch.cat([z, torch.as_tensor(o.ego)], 1), torch.tanh)
    values = linear(x, state["action_net.weight"], state["action_net.bias"]).numpy()
    np.testing.assert_allclose(policy.forward(o).values, values, atol=1e-5)
