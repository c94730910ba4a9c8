"""Frames that fill the range, or are moved in it, can occur: every rule of the contract is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quant.dataset.filling import coordinates, fill, free_columns, impossible
from quant.dataset.moving import moved
from quant.observation.contract import Contract
from quant.observation.observations import Observations
from quant.observation.presets import PERIOD_MS
from quant.observation.resolve import Sizes, resolve

FRAMES = 10_000


@pytest.fixture(params=[4, 5, 6, 7, 18], ids=lambda ego: f"ego{ego}")
def contract(request: pytest.FixtureRequest) -> Contract:
    return resolve(Sizes(request.param, 6, 8), None, [])


def broken(contract: Contract, frames: Observations) -> dict[str, int]:
    return {rule: int(found.sum()) for rule, found in impossible(contract, frames).items() if found.any()}


def test_a_filled_frame_can_occur(contract: Contract) -> None:
    assert broken(contract, fill(contract, FRAMES, 3)) == {}


def test_a_frame_filled_from_given_points_can_occur_and_goes_where_they_say(contract: Contract) -> None:
    points = np.zeros((FRAMES, coordinates(contract)), np.float32)
    points[1::2] = 1
    frames = fill(contract, FRAMES, 3, points=points)
    assert broken(contract, frames) == {}
    free = list(free_columns(contract))
    for low, high, values in zip(*contract.bounds(peers=False), frames.ego.T, strict=True):
        assert low <= values.min() and values.max() <= high
    for row, end in ((0, 0), (1, 1)):
        np.testing.assert_array_equal(frames.ego[row, free], contract.bounds(peers=False)[end][free])


def test_a_moved_frame_can_occur(contract: Contract) -> None:
    base, other = fill(contract, FRAMES, 3), fill(contract, FRAMES, 4)
    frames = moved(contract, base, other.ego, other.peers * 3, other.mask)
    assert broken(contract, frames) == {}
    free = list(free_columns(contract))
    np.testing.assert_array_equal(frames.ego[:, free], other.ego[:, free])


def test_a_frame_that_is_not_moved_stays_as_it_is(contract: Contract) -> None:
    base = fill(contract, FRAMES, 3)
    again = moved(contract, base, base.ego, base.peers, base.mask)
    np.testing.assert_allclose(again.ego, base.ego, atol=1e-6)
    np.testing.assert_array_equal(again.peers, base.peers)


def test_older_frames_of_a_stack_move_along() -> None:
    contract = resolve(Sizes(18, 6, 8), None, [])
    base = fill(contract, FRAMES, 3)
    speed = contract.index_of("speed", peers=False)
    assert speed is not None
    copies = [i for i, source in enumerate(contract.sources) if source == speed and i != speed]
    middle = (np.abs(base.ego[:, [speed, *copies]] - 0.5) < 0.2).all(axis=1)
    faster = base.ego.copy()
    faster[:, speed] += np.float32(0.25)
    frames = moved(contract, base, faster, base.peers, base.mask)
    assert len(copies) == 2
    np.testing.assert_allclose(frames.ego[middle][:, copies] - base.ego[middle][:, copies], 0.25, atol=1e-6)


def test_points_of_a_generator_and_given_ones_take_one_path(contract: Contract) -> None:
    """What the generator draws for a seed is what it draws where the points are its own."""
    points = np.random.default_rng(5).random((100, coordinates(contract)), np.float32)
    frames, drawn = fill(contract, 100, 5, points=points), fill(contract, 100, 5)
    free = list(free_columns(contract))
    np.testing.assert_array_equal(frames.ego[:, free], drawn.ego[:, free])


def stack() -> Contract:
    """Three frames of an ego of 6, with a bound everywhere."""
    return resolve(Sizes(18, 6, 8), None, [])


@pytest.mark.parametrize("name", ["speed", "braking received"])
@pytest.mark.parametrize("lag", [1, 2])
def test_an_older_frame_of_another_moment_cannot_occur(name: str, lag: int) -> None:
    contract = stack()
    source = contract.index_of(name, peers=False)
    assert source is not None
    frames = fill(contract, FRAMES, 3)
    column = contract.places[source, lag]
    frames.ego[:, column] = np.random.default_rng(0).permutation(frames.ego[:, column])
    rules = broken(contract, frames)
    assert {rule.partition(" that")[0] for rule in rules} == {name}
    assert max(rules.values()) > FRAMES / 2


def test_a_frame_one_decision_before_had_the_speed_that_the_acceleration_took() -> None:
    """From 20.5 m/s to 20 m/s in a decision of 100 ms, at -5 m/s2, and from 19.7 m/s to that, at 8 m/s2."""
    contract = stack()
    frames = fill(contract, 1, 3)
    speed, acceleration = (contract.index_of(name, peers=False) for name in ("speed", "acceleration"))
    assert speed is not None and acceleration is not None
    for lag, (metres, gained) in enumerate(((20.0, 1.0), (20.5, -5.0), (19.7, 8.0))):
        frames.ego[:, contract.places[speed, lag]] = metres / 30
        frames.ego[:, contract.places[acceleration, lag]] = gained / 10
    assert broken(contract, frames) == {}
    frames.ego[:, contract.places[speed, 2]] = 20.6 / 30
    assert broken(contract, frames) == {"speed that no acceleration made, 2 back": 1}


def test_where_nobody_knows_the_period_it_is_the_fields() -> None:
    contract = replace(stack(), period_ms=None)
    frames = fill(contract, FRAMES, 3)
    np.testing.assert_array_equal(frames.ego, fill(replace(contract, period_ms=PERIOD_MS), FRAMES, 3).ego)
    assert broken(replace(contract, period_ms=PERIOD_MS / 2), frames).keys() == {
        f"speed that no acceleration made, {lag} back" for lag in (1, 2)
    }
