"""Who drives: the float policy, candidates, and the two actors by which a world is tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.observation.observations import F32, Observations
from quant.policy.policy import ActionSpace, Dense, Discrete, Policy
from quant.runners.runner import FloatRunner, Int8Runner, Runner
from quant.tracks.candidate import Candidate

NEUTRAL, THREE_BIT = "neutral", "float-3bit"
"""The gate's own actors: one that does nothing, and the float policy with its weights all but destroyed."""

Act = Callable[[Observations], NDArray[Any]]


@dataclass(frozen=True)
class Neutral:
    """Does nothing, whatever it sees: action 0, or the lower bound of a Box."""

    space: ActionSpace

    def __call__(self, observations: Observations) -> NDArray[Any]:
        """(N,) int64 for Discrete, (N, A) float32 for Box."""
        if isinstance(self.space, Discrete):
            return np.full(len(observations), self.space.neutral, np.int64)
        return np.tile(np.array(self.space.neutral, np.float32), (len(observations), 1))


Brain = Policy | Candidate | Neutral


@dataclass(frozen=True)
class Actor:
    """A named driver. It travels to a worker as data; what computes is built there."""

    name: str
    brain: Brain

    def build(self) -> Act:
        """The function from N observations to N actions."""
        if isinstance(self.brain, Neutral):
            return self.brain
        runner: Runner = FloatRunner(self.brain) if isinstance(self.brain, Policy) else Int8Runner(self.brain)
        space = self.brain.action_space
        return lambda observations: space.decide(runner.values(observations))


def three_bit(policy: Policy) -> Policy:
    """The policy with every weight matrix rounded to 3 bits: seven levels, -3..3 times max|w| / 3. Biases stay."""

    def rounded(layer: Dense) -> Dense:
        step = np.float32(np.abs(layer.weight).max() / 3) or np.float32(1)
        return Dense((np.rint(layer.weight / step) * step).astype(np.float32), layer.bias, layer.activation)

    return replace(
        policy,
        encoder=tuple(rounded(layer) for layer in policy.encoder),
        head=tuple(rounded(layer) for layer in policy.head),
        origin=f"{policy.origin} (weights rounded to 3 bits)",
    )


def gate_values(policy: Policy, observations: Observations) -> dict[str, F32]:
    """(N, A) head outputs of the gate's actors by name: logits that prefer action 0 or the lower bound, and 3 bits'."""
    neutral = np.zeros((len(observations), policy.action_space.width), np.float32)
    if isinstance(policy.action_space, Discrete):
        neutral[:, policy.action_space.neutral] = 1
    else:
        neutral[:] = policy.action_space.neutral
    return {NEUTRAL: neutral, THREE_BIT: FloatRunner(three_bit(policy)).values(observations)}


def gate_actors(policy: Policy) -> tuple[Actor, Actor]:
    """The two actors that must lose if a world can tell good driving from bad."""
    return Actor(NEUTRAL, Neutral(policy.action_space)), Actor(THREE_BIT, three_bit(policy))
