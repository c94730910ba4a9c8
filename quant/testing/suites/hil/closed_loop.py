"""Episodes with the board deciding are the host's episodes, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quant.boards.device import Device, DeviceRunner
from quant.policy import Observations
from quant.runners import Int8Runner, Runner
from quant.runs.run import Run
from quant.testing.hil_plugin import Record
from quant.worlds.rollout import Episodes, Recorder, rollout
from quant.worlds.scenarios import ScenarioSet
from quant.worlds.world import World

pytestmark = pytest.mark.hil

EPISODES = {"nominal": 32, "lossy": 16}


@pytest.mark.slow
def test_the_board_drives_as_the_host_does(
    device: Device, run: Run, hosts: dict[str, Int8Runner], track: str, record: Record
) -> None:
    if run.world is None or run.scenarios is None:
        pytest.skip("the run has no world to drive in")
    scenarios = some_scenarios(run.scenarios)
    board = DeviceRunner(device, track, run.policy.action_space)
    driven, host = (drive(run.world, scenarios, runner) for runner in (board, hosts[track]))
    record("episodes", len(scenarios), "")
    record("decisions", len(driven.actions), "")
    record("successes", int(driven.episodes.success.sum()), "")
    assert len(driven.actions) > len(scenarios)
    np.testing.assert_array_equal(driven.recorder.episodes, host.recorder.episodes)
    np.testing.assert_array_equal(driven.recorder.steps, host.recorder.steps)
    for name in ("ego", "mask", "peers"):
        seen, expected = (getattr(one.recorder.observations, name) for one in (driven, host))
        np.testing.assert_array_equal(seen, expected, name)
    np.testing.assert_array_equal(driven.actions, host.actions)
    for item in fields(Episodes):
        np.testing.assert_array_equal(getattr(driven.episodes, item.name), getattr(host.episodes, item.name), item.name)


class Drive:
    """Episodes, everything that was seen in them, and every action."""

    def __init__(self, world: World, scenarios: ScenarioSet, decide: Callable[[Observations], NDArray[Any]]) -> None:
        self.recorder = Recorder()
        taken: list[NDArray[Any]] = []

        def act(seen: Observations) -> NDArray[Any]:
            taken.append(decide(seen))
            return taken[-1]

        self.episodes = rollout(world, scenarios, act, record=self.recorder)
        self.actions = np.concatenate(taken)


def drive(world: World, scenarios: ScenarioSet, runner: Runner) -> Drive:
    return Drive(world, scenarios, lambda seen: runner.action_space.decide(runner.values(seen)))


def some_scenarios(scenarios: ScenarioSet) -> ScenarioSet:
    """The first of each slice, as many as ``EPISODES`` says; of a slice it does not know, as of the last."""
    kept = np.zeros(len(scenarios), np.bool_)
    for name in scenarios.slice_names:
        rows = np.flatnonzero(scenarios.slices == name)
        kept[rows[: EPISODES.get(name, min(EPISODES.values()))]] = True
    return scenarios[kept]
