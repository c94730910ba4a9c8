"""Exported candidates: a conversion takes a third of a second, so each is made once a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest

from quant.dataset import Dataset
from quant.policy import Box, Discrete, Observations, Policy
from quant.tracks.candidate import Candidate
from quant.tracks.export import export
from quant.tracks.plan import Choice, Plan, Rewriting, calibrate, equalize, make_plan
from tests.tracks import strategies

POLICIES: dict[str, Policy] = {
    "plan's own": strategies.policy(1, ego=4, hidden=((16, "relu"),), space=Discrete(4)),
    "stable-baselines3": strategies.policy(2, ego=6, hidden=((16, "tanh"), (16, "tanh"))),
    "ego 18, two actions": strategies.policy(3, ego=18, space=Box((-1.0, -0.25), (2.0, 0.5))),
    "negative box": strategies.policy(4, space=Box((-1.0,), (0.0,))),
    "mean": strategies.policy(5, encoder=((8, "tanh"),), hidden=((8, "sigmoid"),), pooling="mean"),
    "sum": strategies.policy(
        6, encoder=((8, "relu6"),), hidden=((8, "relu6"),), pooling="sum", peer=4, space=Discrete(3), max_peers=5
    ),
    "signed embeddings": strategies.policy(7, encoder=((12, "relu"), (8, "linear")), pooling="max"),
    "sigmoid embeddings": strategies.policy(8, encoder=((8, "sigmoid"),), hidden=(), pooling="sum"),
    "elu": strategies.policy(9, encoder=((12, "elu"), (8, "elu")), hidden=((12, "elu"),)),
    "elu, mean, logits": strategies.policy(
        10, encoder=((8, "elu"),), hidden=((8, "elu"), (8, "tanh")), pooling="mean", space=Discrete(4)
    ),
}


@dataclass(frozen=True)
class Exported:
    """A candidate with all it was made of, and frames it was not calibrated on."""

    policy: Policy
    dataset: Dataset
    plan: Plan
    candidate: Candidate
    frames: Observations


def plan_for(policy: Policy, seen: Observations) -> Plan:
    choice = Choice(0.1, Rewriting(0.5), (1.0,) * len(policy.encoder), (1.0,) * len(policy.head))
    return make_plan(calibrate(equalize(policy, seen, choice.rewriting.exponent), seen), choice)


@cache
def _exported(name: str) -> Exported:
    policy = POLICIES[name]
    dataset = strategies.dataset_of(policy, 300)
    plan = plan_for(policy, strategies.frames_for(policy, 1000, seed=1))
    candidate = export("ptq", plan, dataset, ["a line"])
    return Exported(policy, dataset, plan, candidate, strategies.frames_for(policy, 400, seed=2))


@pytest.fixture(scope="session")
def exported() -> Callable[[str], Exported]:
    return _exported


@pytest.fixture(scope="session", params=POLICIES)
def each(request: pytest.FixtureRequest) -> Exported:
    """Every policy of `POLICIES`, exported."""
    return _exported(request.param)
