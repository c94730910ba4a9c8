"""Driving in the convoy world: the same whatever the parallelism, and gate actors that are what they are said to be."""

from __future__ import annotations

import numpy as np
import pytest

from quant.evaluation import closed_loop
from quant.evaluation.actors import Actor, Neutral, gate_actors, three_bit
from quant.evaluation.closed_loop import drive
from quant.observation.observations import Observations
from quant.policy.policy import Box, Discrete
from quant.worlds.world import load_world
from tests.evaluation.synthetic import policy


def test_two_workers_see_what_one_sees_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_loop, "CHUNK", 20)
    world = load_world("convoy")
    scenarios = world.draw("test", 5, {"nominal": 30, "lossy": 10})
    actors = [Actor("float", policy()), *gate_actors(policy())]
    progress: list[tuple[int, int]] = []
    one = drive(actors, world, scenarios, workers=1, progress=lambda done, total: progress.append((done, total)))
    two = drive(actors, world, scenarios, workers=2)
    assert [(s.name, s.n) for s in one["float"]] == [("nominal", 30), ("lossy", 10)]
    for name, slices in one.items():
        for a, b in zip(slices, two[name], strict=True):
            assert np.array_equal(a.success, b.success)
            assert (a.needless, a.reward) == (b.needless, b.reward)
    assert progress[-1] == (120, 120)
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)


def test_a_neutral_driver_collides_where_a_braking_one_does_not() -> None:
    """So the outcomes belong to the actors they are filed under, and episodes to their slices."""
    world = load_world("convoy")
    scenarios = world.draw("test", 6, {"nominal": 60})
    never = Actor("never", Neutral(Discrete(4)))
    always = Actor("always", Neutral(_Emergency(4)))
    result = drive([never, always], world, scenarios, workers=1)
    never_braking, always_braking = result["never"][0], result["always"][0]
    assert never_braking.collision is not None and always_braking.collision is not None
    assert never_braking.collision.sum() > 10
    assert always_braking.collision.sum() < never_braking.collision.sum() / 2
    assert never_braking.needless is not None and always_braking.needless is not None
    assert never_braking.needless.value == 0
    assert always_braking.needless.value > 2


class _Emergency(Discrete):
    @property
    def neutral(self) -> int:
        return 3


def test_neutral_is_action_zero_or_the_lower_bound() -> None:
    observations = Observations(np.zeros((2, 4), np.float32), np.zeros((2, 8, 6), np.float32), np.zeros((2, 8), bool))
    assert Neutral(Discrete(4))(observations).tolist() == [0, 0]
    box = Neutral(Box((-1.0, 0.5), (1.0, 2.0)))(observations)
    assert box.tolist() == [[-1.0, 0.5], [-1.0, 0.5]]


def test_three_bits_leave_seven_levels_a_matrix_and_the_biases_alone() -> None:
    original, damaged = policy(), three_bit(policy())
    for before, after in zip(original.encoder + original.head, damaged.encoder + damaged.head, strict=True):
        levels = after.weight / (np.abs(before.weight).max() / 3)
        assert np.abs(levels - np.rint(levels)).max() < 1e-5
        assert np.abs(levels).max() < 3.001
        assert np.abs(after.weight).max() == pytest.approx(np.abs(before.weight).max())
        assert np.abs(after.weight - before.weight).max() <= np.abs(before.weight).max() / 6 + 1e-6
        assert np.array_equal(before.bias, after.bias)
        assert not np.array_equal(before.weight, after.weight)
