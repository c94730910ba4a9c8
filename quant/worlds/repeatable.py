"""Whether an environment's episodes are decided by their seeds: what every paired comparison rests on."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.observation.observations import Observations
from quant.worlds.rollout import Act, Episodes, rollout
from quant.worlds.scenarios import ScenarioSet
from quant.worlds.world import World

EPISODES = 16
"""Scenarios driven twice: enough to see luck of any consequence, few beside the thousands of an evaluation."""


def check_repeatable(world: World, scenarios: ScenarioSet, act: Act) -> None:
    """Drives the first :data:`EPISODES` scenarios twice and sees that they end the same.

    First side by side, then alone and in reverse: so an environment that draws from a generator it shares with others,
    even one it seeds in ``reset``, is found too. Each decision is computed on its own, so that the number of
    episodes that run together does not change its last bit.

    Args:
        world: where.
        scenarios: drawn by the same world.
        act: decides by the observations alone.

    Raises:
        InputError: an episode ended otherwise, or what :func:`quant.worlds.rollout.rollout` raises.
    """
    few = scenarios[:EPISODES]
    together = rollout(world, few, _one_by_one(act))
    alone = rollout(replace(world, batch=1), few[::-1], _one_by_one(act))[::-1]
    for item in fields(Episodes):
        first, second = getattr(together, item.name), getattr(alone, item.name)
        # NaN twice is the same: a world that does not say.
        different = np.flatnonzero((first != second) & ~(np.isnan(first) & np.isnan(second)))
        if len(different):
            row = different[0]
            raise InputError(
                "an episode is not decided by reset(seed=...): driven twice by the same policy, it ended with "
                f"{item.name} {first[row]} and then {second[row]}",
                where=f"{world.spec} seed {few.episode_seeds[row]}",
                expected="the same episode for the same seed, whatever runs before it or beside it",
                hint="draw all that is random from self.np_random, and start from the same state at every reset",
            )


def _one_by_one(act: Act) -> Act:
    def act_alone(seen: Observations) -> NDArray[Any]:
        return np.concatenate([act(seen[row : row + 1]) for row in range(len(seen))])

    return act_alone
