"""The shipped policy is what its training log says, and driving tells it from a damaged one."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from quant.errors import InputError
from quant.files import read_json, sha256
from quant.policy import Dense, Discrete, Observations, Policy, load_policy
from quant.worlds import training
from quant.worlds.reference import golden_path, reference_policy_path, training_log_path
from quant.worlds.rollout import Act, Episodes, rollout
from quant.worlds.rules import always_brake, neutral, rule
from quant.worlds.scenarios import LOSSY, NOMINAL, ScenarioSet
from quant.worlds.training import by_slice
from quant.worlds.world import load_world

WORLD = load_world("convoy")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(reference_policy_path())


@pytest.fixture(scope="module")
def log() -> dict[str, Any]:
    content: dict[str, Any] = read_json(training_log_path())
    return content


@pytest.fixture(scope="module")
def golden() -> Iterator[dict[str, NDArray[Any]]]:
    with np.load(golden_path(), allow_pickle=False) as archive:
        yield dict(archive)


@pytest.fixture(scope="module")
def scenarios(log: dict[str, Any]) -> ScenarioSet:
    """The test scenarios the log reports on, drawn again."""
    drawn = WORLD.draw("test", log["seed"], training.TEST)
    assert drawn.digest == log["test"]["scenarios_digest"]
    return drawn


@pytest.fixture(scope="module")
def driven(policy: Policy, scenarios: ScenarioSet) -> Episodes:
    return rollout(WORLD, scenarios, act_of(policy))


def act_of(policy: Policy) -> Act:
    return lambda observations: policy.action_space.decide(policy.forward(observations).values)


def in_three_bits(policy: Policy) -> Policy:
    """Every weight matrix rounded to the seven levels -3..3 times max|w| / 3."""

    def rounded(layer: Dense) -> Dense:
        step = np.abs(layer.weight).max() / np.float32(3)
        return dataclasses.replace(layer, weight=np.rint(layer.weight / step) * step)

    encoder, head = (tuple(map(rounded, part)) for part in (policy.encoder, policy.head))
    return dataclasses.replace(policy, encoder=encoder, head=head)


def test_the_architecture_is_the_plans(policy: Policy) -> None:
    assert [(layer.inputs, layer.outputs, layer.activation) for layer in policy.encoder] == [
        (6, 32, "relu"),
        (32, 32, "relu"),
    ]
    assert [(layer.inputs, layer.outputs, layer.activation) for layer in policy.head] == [
        (36, 64, "relu"),
        (64, 4, "linear"),
    ]
    assert policy.pooling == "max" and policy.action_space == Discrete(4)
    WORLD.check_fits(policy)


def test_golden_outputs_of_stable_baselines3_are_reproduced(policy: Policy, golden: dict[str, NDArray[Any]]) -> None:
    seen = Observations(golden["ego"], golden["peers"], golden["peer_mask"])
    assert set(seen.counts.tolist()) == set(range(9))
    assert set(golden["actions"].tolist()) == {0, 1, 2, 3}
    forward = policy.forward(seen)
    for name, values in (
        ("embeddings", forward.embeddings),
        ("head_inputs", forward.head_inputs),
        ("logits", forward.values),
    ):
        np.testing.assert_allclose(values, golden[name], atol=1e-5, rtol=1e-5, err_msg=name)
    assert np.array_equal(policy.action_space.decide(forward.values), golden["actions"])


def test_the_log_is_the_log_of_this_policy(log: dict[str, Any]) -> None:
    assert log["policy_sha256"] == sha256(reference_policy_path().read_bytes())


def test_the_reported_figures_hold(log: dict[str, Any], scenarios: ScenarioSet, driven: Episodes) -> None:
    """Rerun in NumPy. A float product may round otherwise than torch's, so one episode in 500 may end otherwise."""
    for name, figures in by_slice(scenarios, driven).items():
        reported = log["test"]["policy"][name]
        assert figures["n"] == reported["n"] == training.TEST[name]
        for key in ("success", "collision"):
            assert figures[key] == pytest.approx(reported[key], abs=0.002), (name, key)
        assert figures["reward"] == pytest.approx(reported["reward"], abs=0.05)
        assert figures["needless"] == pytest.approx(reported["needless"], abs=0.02)


def test_the_rules_figures_hold_exactly(log: dict[str, Any]) -> None:
    drawn = WORLD.draw("validation", log["seed"], training.VALIDATION)
    for name, act in {"rule": rule, "never_brake": neutral, "always_brake": always_brake}.items():
        assert by_slice(drawn, rollout(WORLD, drawn, act)) == log["validation"][name]


def test_it_drives_as_well_as_promised(log: dict[str, Any], scenarios: ScenarioSet, driven: Episodes) -> None:
    nominal = driven[scenarios.slices == NOMINAL]
    assert len(nominal) == 4000
    assert nominal.success.mean() >= 0.95
    assert 0.4 < log["test"]["never_brake"][NOMINAL]["success"] < 0.6
    assert log["test"]["rule"][NOMINAL]["success"] == pytest.approx(0.95, abs=0.03)
    assert log["test"]["always_brake"][NOMINAL]["success"] == 0


@pytest.mark.parametrize("name", [NOMINAL, LOSSY])
def test_three_bit_weights_lose(policy: Policy, scenarios: ScenarioSet, driven: Episodes, name: str) -> None:
    """The world is not blind: the same policy with weights of 3 bits succeeds less (exact McNemar, p < 1e-6)."""
    rows = np.flatnonzero(scenarios.slices == name)[:1000]
    damaged = rollout(WORLD, scenarios[rows], act_of(in_three_bits(policy)))
    sound = driven[rows]
    lost, won = (sound.success & ~damaged.success).sum(), (~sound.success & damaged.success).sum()
    assert lost > won
    assert binomtest(int(lost), int(lost + won)).pvalue < 1e-6


def test_the_archive_is_genuine_small_and_tells_nothing_of_its_maker() -> None:
    folder = reference_policy_path().parent
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < 1_500_000
    with zipfile.ZipFile(reference_policy_path()) as archive:
        assert {"data", "policy.pth", "policy.optimizer.pth", "_stable_baselines3_version"} <= set(archive.namelist())
        data = json.loads(archive.read("data"))
        blobs = [base64.b64decode(item[":serialized:"]) for item in data.values() if ":serialized:" in str(item)]
        text = b"".join([archive.read(name) for name in archive.namelist()] + blobs).decode("latin-1")
    stated = data["policy_kwargs"]["features_extractor_kwargs"]
    assert stated == {"hidden_sizes": [32, 32], "activation": "relu", "pooling": "max"}
    assert data["policy_kwargs"]["net_arch"]["pi"] == [64]
    assert data["tensorboard_log"] is None
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)


def test_training_without_the_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=re.escape("pip install -c constraints.txt -e '.[train]'")):
        training.train(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_small_training_gives_a_policy_that_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two rollouts, far too few to learn anything, twice the same; where the extra is installed."""
    pytest.importorskip("torch")
    pytest.importorskip("stable_baselines3")
    monkeypatch.setattr(training, "VALIDATION", {NOMINAL: 20, LOSSY: 10})
    monkeypatch.setattr(training, "TEST", {NOMINAL: 20, LOSSY: 10})
    told: list[int] = []
    logs = [
        training.train(tmp_path / name, seed=5, steps=30_000, progress=lambda done, total, text: told.append(done))
        for name in ("one", "two")
    ]
    assert told == [25_600, 51_200] * 2
    assert logs[0]["test"] == logs[1]["test"]
    assert logs[0]["curve"][-1]["validation"] is not None
    first, second = (load_policy(tmp_path / name / training.POLICY_FILE) for name in ("one", "two"))
    for a, b in zip((*first.encoder, *first.head), (*second.encoder, *second.head), strict=True):
        assert np.array_equal(a.weight, b.weight)
    WORLD.check_fits(first)
