"""Episodes that part, driven once more: what is drawn is what was evaluated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quant.evaluation.actors import Actor
from quant.evaluation.evaluation import FLOAT
from quant.report.replay import Parting, partings, replay, telling
from quant.runs.reading import open_run
from quant.runs.run import Run
from quant.worlds.world import World


@pytest.fixture(scope="module")
def run(driven: Path) -> Run:
    return open_run(driven)


def actors(run: Run) -> list[Actor]:
    return [Actor(FLOAT, run.policy), *(Actor(track, one) for track, one in run.candidates.items())]


def world_of(run: Run) -> World:
    assert run.world is not None
    return run.world


def test_partings_are_the_episodes_on_which_success_differs(run: Run) -> None:
    found = partings(run.evaluations)
    loops = [evaluation.closed_loop for evaluation in run.evaluations.values() if evaluation.closed_loop]
    total = 0
    for place, name in enumerate(outcome.name for outcome in loops[0].slices):
        ended = np.stack([loop.slices[place].success for loop in loops])
        total += int((ended != ended[0]).any(axis=0).sum())
        for one in found:
            if one.slice == name:
                assert [one.success[t] for t in run.evaluations] == ended[:, one.index].tolist()
    assert len(found) == total > 0


def test_a_replay_ends_as_the_evaluation_says(run: Run) -> None:
    assert run.scenarios is not None
    one = partings(run.evaluations)[0]
    shown = replay(one, actors(run), world_of(run), run.scenarios)
    assert shown is not None and list(shown.drives) == ["float", "ptq", "qat"]
    own = run.scenarios.of_slice(one.slice)
    for track, drive in shown.drives.items():
        assert drive.speed[0] == np.float32(own.parameters["speed"][one.index])
        assert (drive.success, drive.collision) == (one.success[track], one.collision[track])
        assert len(drive.time) == len(drive.gap) == len(drive.action) == len(drive.others)
        assert len(drive.time) == 201 or drive.collision
        assert (drive.action[:-1] >= 0).all() and drive.action[-1] == -1
        assert drive.gap[0] > 0 and (drive.speed >= 0).all()
        # Places and speeds belong together: the trapezoidal rule is how the world moves.
        moved = np.diff(drive.ego)
        assert moved == pytest.approx(0.05 * (drive.speed[1:] + drive.speed[:-1]), abs=1e-3)


def test_a_drawing_that_would_show_something_else_is_not_made(run: Run) -> None:
    assert run.scenarios is not None
    one = partings(run.evaluations)[0]
    other = replace(one, success={track: not ended for track, ended in one.success.items()})
    assert replay(other, actors(run), world_of(run), run.scenarios) is None
    foreign = replace(world_of(run), spec="mine:Env-v0")
    assert replay(one, actors(run), foreign, run.scenarios) is None


def test_one_lost_and_one_won_are_told_collisions_first() -> None:
    def parting(index: int, float_succeeds: bool, collision: bool) -> Parting:
        success = {"float": float_succeeds, "ptq": not float_succeeds}
        return Parting("nominal", index, success, {track: collision and not ended for track, ended in success.items()})

    found = [parting(1, True, False), parting(2, True, True), parting(3, False, False), parting(4, True, True)]
    assert [one.index for one in telling(found, "ptq")] == [2, 3]
    assert telling([], "ptq") == ()
