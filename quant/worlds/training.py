"""Trains the reference policy: PPO (Schulman et al. 2017) of Stable-Baselines3 in the convoy world.

Checkpoints are compared on validation scenarios and the chosen one is reported on test scenarios, which nothing before
has seen. Needs the extra ``train`` (torch, stable-baselines3); nothing else in the library does.
"""

from __future__ import annotations

import io
import platform
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.files import sha256, write_bytes, write_json
from quant.observation.observations import EGO, F32, PEER_MASK, PEERS, Observations
from quant.worlds.rollout import Act, Episodes, Recorder, rollout
from quant.worlds.rules import always_brake, neutral, rule
from quant.worlds.scenarios import LOSSY, NOMINAL, ScenarioSet
from quant.worlds.world import CONVOY, World, load_world

if TYPE_CHECKING:
    from stable_baselines3 import PPO

POLICY_FILE, GOLDEN_FILE, TRAINING_FILE = "policy.zip", "golden.npz", "training.json"
"""What :func:`train` writes."""

CONVOYS = 128
"""Convoys trained on at once; each rollout of PPO holds one whole episode of each."""

VALIDATION = {NOMINAL: 1500, LOSSY: 500}
"""Scenarios each checkpoint is compared on."""
TEST = {NOMINAL: 4000, LOSSY: 2000}
"""Scenarios the chosen checkpoint is reported on."""
CHECKPOINTS = 12
"""How often in a training the policy is compared on the validation scenarios, in the second half of it."""

HYPERPARAMETERS: dict[str, Any] = {
    "batch_size": 1600,
    "n_epochs": 5,
    "gamma": 0.95,
    "gae_lambda": 0.9,
    "clip_range": 0.2,
    "ent_coef": 0.002,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
}
LEARNING_RATE = (2e-3, 5e-5)
"""At the start and at the end, linear in between."""

MAINTAIN_BIAS = 3.0
"""Logit of Maintain in the untrained policy: 87 % of its actions."""

INPUT_GAIN = 4.0
"""The encoder's first weights are made so much larger: its features are of the order of a tenth."""

GOLDEN_ROWS = 512
"""Observations of the golden outputs, about evenly spread over 0 to 8 peers."""

Progress = Callable[[int, int, str], None]


def train(out_dir: Path, seed: int = 3, steps: int = 3_500_000, progress: Progress | None = None) -> dict[str, Any]:
    """Trains a policy and writes ``policy.zip``, ``golden.npz`` and ``training.json``.

    Args:
        out_dir: made if it is not there.
        seed: of the network, of PPO and of all scenarios.
        steps: convoy-steps to train for, rounded up to whole rollouts.
        progress: called with steps done, steps in all and a line on how it goes.

    Returns:
        What ``training.json`` holds.

    Raises:
        InputError: the extra ``train`` is not installed, or the seed or the number of steps makes no sense.
    """
    _require_extra()
    if seed < 0 or steps < 1:
        raise InputError(f"seed {seed}, steps {steps}", expected="a seed of 0 or more and at least one step")
    import torch

    torch.set_num_threads(1)
    world, started = load_world(CONVOY), time.perf_counter()
    model = _model(world, seed)
    rollouts = -(-steps // (CONVOYS * world.max_steps))
    chosen, curve = _learn(model, world, seed, rollouts, progress or (lambda done, total, text: None))
    learned = time.perf_counter() - started
    model.policy.load_state_dict(chosen["state"])
    log = {
        "algorithm": "PPO (Stable-Baselines3)",
        "seed": seed,
        "steps": rollouts * CONVOYS * world.max_steps,
        "hyperparameters": HYPERPARAMETERS
        | {
            "learning_rate": list(LEARNING_RATE),
            "convoys": CONVOYS,
            "maintain_bias": MAINTAIN_BIAS,
            "input_gain": INPUT_GAIN,
        },
        "versions": _versions(),
        "chosen": {"steps": chosen["steps"], "by": "success on validation scenarios, both slices alike"},
        "validation": _figures(world, world.draw("validation", seed, VALIDATION), act_of(model)),
        "test": _figures(world, world.draw("test", seed, TEST), act_of(model)),
        "curve": curve,
        "seconds": {"learning": round(learned), "all": round(time.perf_counter() - started)},
    }
    content = _zip(model)
    write_bytes(out_dir / POLICY_FILE, content)
    write_bytes(out_dir / GOLDEN_FILE, _golden(model, world, seed))
    write_json(out_dir / TRAINING_FILE, log | {"policy_sha256": sha256(content)})
    return log


def act_of(model: PPO) -> Act:
    """The deterministic policy of a model, as Stable-Baselines3 itself predicts."""

    def act(observations: Observations) -> NDArray[np.int64]:
        actions, _ = model.predict(_dictionary(observations), deterministic=True)
        return np.asarray(actions, np.int64)

    return act


def _require_extra() -> None:
    missing = [name for name in ("torch", "stable_baselines3") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"training needs {' and '.join(missing)}",
            where="quant train",
            hint=".venv/bin/pip install -c constraints.txt -e '.[train]', in the checkout",
        )


def _model(world: World, seed: int) -> PPO:
    from stable_baselines3 import PPO
    from torch import nn

    from quant.worlds.extractor import DeepSetsExtractor
    from quant.worlds.sb3_env import ConvoySB3Env

    model = PPO(
        "MultiInputPolicy",
        ConvoySB3Env(world, seed, CONVOYS),
        learning_rate=LEARNING_RATE[0],
        n_steps=world.max_steps,
        seed=seed,
        device="cpu",
        policy_kwargs={
            "features_extractor_class": DeepSetsExtractor,
            "features_extractor_kwargs": {"hidden_sizes": [32, 32], "activation": "relu", "pooling": "max"},
            "share_features_extractor": False,
            "net_arch": {"pi": [64], "vf": [64]},
            "activation_fn": nn.ReLU,
        },
        **HYPERPARAMETERS,
    )
    # Braking at random three times in four ends every episode in its first seconds: begin near the base driver.
    model.policy.action_net.bias.data[0] = MAINTAIN_BIAS
    for extractor in (model.policy.pi_features_extractor, model.policy.vf_features_extractor):
        extractor.peer_encoder[0].weight.data *= INPUT_GAIN
    return model


def _learn(
    model: PPO, world: World, seed: int, rollouts: int, progress: Progress
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Rollout after rollout; keeps the checkpoint with the most successes on the validation scenarios."""
    scenarios = world.draw("validation", seed, VALIDATION)
    share = CONVOYS * world.max_steps
    due = {round(x) for x in np.linspace(rollouts / 2, rollouts, CHECKPOINTS)} | {rollouts}
    best: dict[str, Any] = {}
    curve: list[dict[str, Any]] = []
    first, last = LEARNING_RATE
    # SB3 sets its environment up once; each further call goes on with it.
    for done in range(1, rollouts + 1):
        rate = first + (last - first) * (done - 1) / rollouts
        model.lr_schedule = _Constant(rate)
        model.learn(share, reset_num_timesteps=done == 1, log_interval=None)
        point: dict[str, Any] = {"steps": done * share, "reward": _training_reward(model)}
        if done in due:
            episodes = rollout(world, scenarios, act_of(model))
            point["validation"] = by_slice(scenarios, episodes)
            score = float(np.mean([part["success"] for part in point["validation"].values()]))
            if not best or score > best["score"]:
                state = {name: value.clone() for name, value in model.policy.state_dict().items()}
                best = {"score": score, "steps": done * share, "state": state}
        curve.append(point)
        success = f", validation success {100 * best['score']:.1f} %" if best else ""
        progress(done * share, rollouts * share, f"reward {point['reward']:.2f}{success}")
    return best, curve


class _Constant:
    """A learning rate that pickles into a checkpoint by name."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, _: float) -> float:
        return self.value


def _training_reward(model: PPO) -> float:
    """Mean reward of the last rollout's episodes."""
    rewards: F32 = model.rollout_buffer.rewards
    return round(float(rewards.sum(axis=0, dtype=np.float64).mean()), 4)


def _figures(world: World, scenarios: ScenarioSet, act: Act) -> dict[str, Any]:
    """Success and the rest of the policy, the rule, never and always braking on the same scenarios."""
    policies: Mapping[str, Act] = {"policy": act, "rule": rule, "never_brake": neutral, "always_brake": always_brake}
    return {name: by_slice(scenarios, rollout(world, scenarios, one)) for name, one in policies.items()} | {
        "scenarios_digest": scenarios.digest
    }


def by_slice(scenarios: ScenarioSet, episodes: Episodes) -> dict[str, dict[str, float]]:
    """Rates and means of each slice, rounded to a ten-thousandth, with their n."""
    table = {}
    for name in scenarios.slice_names:
        part = episodes[scenarios.slices == name]
        means = {
            "success": part.success.mean(),
            "collision": part.collision.mean(),
            "needless": part.needless.mean(),
            "reward": part.reward.mean(),
        }
        table[name] = {"n": len(part)} | {key: round(float(value), 4) for key, value in means.items()}
    return table


def _versions() -> dict[str, str]:
    import gymnasium
    import stable_baselines3
    import torch

    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
        "stable_baselines3": stable_baselines3.__version__,
        "torch": torch.__version__,
    }


def _zip(model: PPO) -> bytes:
    buffer = io.BytesIO()
    # What belongs to this run and not to the policy stays out.
    model.save(buffer, exclude=["lr_schedule", "start_time", "_last_obs", "_last_episode_starts", "ep_info_buffer"])
    return buffer.getvalue()


def _golden(model: PPO, world: World, seed: int) -> bytes:
    """Observations of 0 to 8 peers and what Stable-Baselines3's own policy makes of them."""
    import torch

    observations = _golden_observations(model, world, seed)
    dictionary = _dictionary(observations)
    tensors, _ = model.policy.obs_to_tensor(dictionary)
    with torch.no_grad():
        embeddings = model.policy.pi_features_extractor.embed(tensors)
        features = model.policy.pi_features_extractor(tensors)
        logits = model.policy.action_net(model.policy.mlp_extractor.forward_actor(features))
    actions, _ = model.predict(dictionary, deterministic=True)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        ego=observations.ego,
        peers=observations.peers,
        peer_mask=observations.mask,
        embeddings=embeddings.numpy(),
        head_inputs=features.numpy(),
        logits=logits.numpy(),
        actions=actions.astype(np.int64),
    )
    return buffer.getvalue()


def _golden_observations(model: PPO, world: World, seed: int) -> Observations:
    """Seen on the way, as many of each peer count and each action as there are."""
    recorder = Recorder(every=5)
    scenarios = world.draw("dataset", seed, {NOMINAL: 600, LOSSY: 300})
    rollout(world, scenarios, act_of(model), record=recorder)
    seen = recorder.observations
    actions = act_of(model)(seen)
    kinds = seen.counts * world.action_space.width + actions
    generator = np.random.default_rng(seed)
    each = -(-GOLDEN_ROWS // len(np.unique(kinds)))
    rows = [generator.permutation(np.flatnonzero(kinds == kind))[:each] for kind in np.unique(kinds)]
    return seen[np.sort(np.concatenate(rows))]


def _dictionary(observations: Observations) -> dict[str, NDArray[Any]]:
    return {
        EGO: observations.ego,
        PEERS: observations.peers,
        PEER_MASK: observations.mask.astype(np.int8),
    }
