"""SUMO moves the convoys as the convoy world does where the law is the same, and brakes for nobody."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import libsumo
import numpy as np
import pytest
from numpy.typing import NDArray

from quant.errors import InputError, QuantError
from quant.observation.observations import EGO, Observations
from quant.worlds import sumo
from quant.worlds.convoy import ConvoyVectorEnv
from quant.worlds.convoy_scenarios import BEHIND, BESIDE, COLUMNS
from quant.worlds.kinematics import LENGTH
from quant.worlds.rollout import Episodes, rollout
from quant.worlds.rules import EMERGENCY, MAINTAIN, always_brake, neutral, rule
from quant.worlds.scenarios import ScenarioSet
from quant.worlds.sumo import SumoVectorEnv, sumo_world
from quant.worlds.world import load_world

CONVOY = load_world("convoy")
SCENARIOS = CONVOY.draw("test", 5, {"nominal": 48, "lossy": 16})

Driver = Callable[[Observations], NDArray[Any]]


@pytest.fixture(scope="module")
def unbraked() -> Episodes:
    return rollout(sumo_world(), SCENARIOS, neutral)


@pytest.fixture(scope="module")
def by_rule() -> Episodes:
    return rollout(sumo_world(), SCENARIOS, rule)


def equal(one: Episodes, other: Episodes) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Episodes))


def after(env: ConvoyVectorEnv, action: int, steps: int) -> dict[str, NDArray[Any]]:
    """What is seen after so many steps of the same action."""
    seen, _ = env.reset()
    for _ in range(steps):
        seen, *_ = env.step(np.full(env.num_envs, action))
    return seen


def changed(scenarios: ScenarioSet, **values: float) -> ScenarioSet:
    parameters = {name: column.copy() for name, column in scenarios.parameters.items()}
    for name, value in values.items():
        parameters[name][...] = value
    return replace(scenarios, parameters=parameters)


@pytest.mark.parametrize("driver", [neutral, rule, always_brake])
def test_with_the_same_law_every_episode_ends_as_in_the_convoy_world(driver: Driver) -> None:
    ours, theirs = rollout(CONVOY, SCENARIOS, driver), rollout(sumo_world("idm"), SCENARIOS, driver)
    for name in ("success", "collision", "steps"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    np.testing.assert_allclose(theirs.needless, ours.needless, atol=1e-3)
    np.testing.assert_allclose(theirs.reward, ours.reward, atol=1e-2)


def test_a_policy_that_never_brakes_collides_about_as_often(unbraked: Episodes) -> None:
    ours = rollout(CONVOY, SCENARIOS, neutral).collision.mean()
    assert ours > 0.4
    assert abs(unbraked.collision.mean() - ours) < 0.1


def test_another_law_is_another_world(by_rule: Episodes) -> None:
    assert by_rule.success.mean() > 0.9
    assert not np.allclose(rollout(CONVOY, SCENARIOS, rule).reward, by_rule.reward, atol=1e-2)


def test_sumos_safe_speed_would_make_it_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sumo, "OBEY", sumo.KEEP_SAFE)
    assert not rollout(sumo_world(), SCENARIOS, neutral).collision.any()


def test_an_emergency_is_8_metres_per_second_squared(monkeypatch: pytest.MonkeyPatch) -> None:
    few = changed(SCENARIOS[:4], speed=30, actuator_lag=0.1)
    assert after(SumoVectorEnv(few), EMERGENCY, 15)[EGO][:, 1] * 10 == pytest.approx(-8, abs=0.05)
    monkeypatch.setattr(sumo, "OBEY", 31)
    assert after(SumoVectorEnv(few), EMERGENCY, 15)[EGO][:, 1].min() * 10 > -4


def gaps(env: SumoVectorEnv) -> NDArray[np.float32]:
    """(N,) m: from the ego to the nearer of the vehicles ahead and behind."""
    behind = np.where(env._present[:, BEHIND], env._ego_x - env._x[:, BEHIND], np.inf)
    nearest: NDArray[np.float32] = np.minimum(env._x[:, 0] - env._ego_x, behind) - LENGTH
    return nearest


def test_a_collision_is_seen_in_the_step_in_which_vehicles_overlap() -> None:
    env = SumoVectorEnv(SCENARIOS)
    env.reset()
    for _ in range(200):
        _, _, terminations, _, _ = env.step(np.full(env.num_envs, MAINTAIN))
        assert np.array_equal(terminations, gaps(env) < 0)
    assert env.collision.sum() > 20


@pytest.mark.parametrize(("gap", "collides"), [(0.05, False), (-0.05, True)])
def test_vehicles_collide_when_they_touch_and_not_before(gap: float, collides: bool) -> None:
    """SUMO by itself counts whoever is nearer than a tenth of the gap that standing vehicles keep."""
    env = SumoVectorEnv(changed(SCENARIOS[:2], behind=1, speed=15))
    after(env, EMERGENCY, 60)
    libsumo.vehicle.moveTo(f"0.{BEHIND}", "0a_0", libsumo.vehicle.getLanePosition("0.8") - LENGTH - gap)
    _, _, terminations, _, _ = env.step(np.full(2, EMERGENCY))
    assert terminations.tolist() == [collides, False]


def test_only_the_egos_collisions_count() -> None:
    env = SumoVectorEnv(SCENARIOS[:2])
    env.reset()
    env._note("0.1", "0.2")
    assert not env._collisions().any()
    env._note("1.0", "1.8")
    assert env._collisions().tolist() == [False, True]


def test_nobody_vanishes_and_who_collided_stands() -> None:
    env = SumoVectorEnv(SCENARIOS)
    env.reset()
    everybody = libsumo.vehicle.getIDList()
    standing: dict[str, float] = {}
    for step in range(200):
        env.step(np.zeros(env.num_envs, np.int64))
        # One step to come to a stop.
        if step == 150:
            rows = np.flatnonzero(env.collision).tolist()
        if step == 151:
            standing = {name: libsumo.vehicle.getLanePosition(name) for name in (f"{row}.8" for row in rows)}
    assert libsumo.vehicle.getIDList() == everybody
    assert len(standing) > 10
    assert {name: libsumo.vehicle.getLanePosition(name) for name in standing} == standing


def test_a_vehicle_that_is_gone_is_an_error() -> None:
    env = SumoVectorEnv(SCENARIOS[:2])
    env.reset()
    libsumo.vehicle.remove("1.0")
    with pytest.raises(QuantError, match="vehicles of"):
        env.step(np.zeros(2, np.int64))


def test_convoys_do_not_depend_on_each_other_nor_on_their_order(unbraked: Episodes) -> None:
    rows = np.concatenate([np.flatnonzero(unbraked.collision)[:2], np.flatnonzero(~unbraked.collision)[-2:]])[::-1]
    alone = rollout(replace(sumo_world(), batch=1), SCENARIOS[rows], neutral)
    assert equal(alone, unbraked[rows])


def test_the_same_again_in_another_company(by_rule: Episodes) -> None:
    again = rollout(replace(sumo_world(), batch=24), SCENARIOS[::-1], rule)
    assert equal(again, by_rule[::-1])


@pytest.mark.parametrize("following", ["krauss", "idm"])
def test_the_convoy_starts_in_equilibrium(following: str) -> None:
    quiet = changed(SCENARIOS, event_start=20, event_end=20)
    env = SumoVectorEnv(quiet, following)
    env.reset()
    for _ in range(50):
        env.step(np.full(env.num_envs, MAINTAIN))
        assert np.abs(env._a[env._present]).max() < 0.01


def test_the_longest_convoy_has_room_on_its_road() -> None:
    high = {column.name: column.high for column in COLUMNS}
    longest = changed(SCENARIOS[:1], **{name: high[name] for name in ("ahead", "behind", "beside", "speed", "headway")})
    longest = changed(longest, beside_offset=-60, driver_headway=3, event_deceleration=0)
    env = SumoVectorEnv(longest)
    after(env, MAINTAIN, 200)
    assert env._x[0, 5] > 1600 and env._x[0, BESIDE] > 700


def test_one_simulation_at_a_time() -> None:
    first = SumoVectorEnv(SCENARIOS[:2])
    first.reset()
    SumoVectorEnv(SCENARIOS[2:4]).reset()
    with pytest.raises(InputError, match="another simulation"):
        first.step(np.zeros(2, np.int64))


def test_without_libsumo_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libsumo", None)
    with pytest.raises(InputError, match=r"quant\[sumo\]"):
        rollout(sumo_world(), SCENARIOS[:1], neutral)


def test_without_the_libraries_of_the_system_it_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the loader says on a server without graphics."""
    (tmp_path / "libsumo.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "libsumo")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=r"libGL\.so\.1(.|\n)*apt-get install libgl1"):
        sumo.sumo_version()


def test_only_the_convoys_scenarios_and_known_models() -> None:
    with pytest.raises(InputError, match="scenarios of other"):
        sumo_world().make(replace(SCENARIOS[:1], world="other"))
    with pytest.raises(InputError, match="car-following"):
        sumo_world("wiedemann")
