"""The convoy world, its scenarios, rollouts, and users' environments."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quant.errors import InputError
from quant.observation.observations import Observations
from quant.policy.policy import Box, Dense, Discrete, Policy
from quant.worlds import convoy, rules
from quant.worlds.convoy import ConvoyVectorEnv
from quant.worlds.convoy_scenarios import BEHIND, BESIDE, COLUMNS, SLOTS, STEPS
from quant.worlds.kinematics import LENGTH, required_deceleration
from quant.worlds.repeatable import EPISODES, check_repeatable
from quant.worlds.rollout import Episodes, Recorder, rollout
from quant.worlds.scenarios import LOSSY, NOMINAL, PURPOSES, ScenarioSet, episode_seeds
from quant.worlds.world import World, load_world

EXAMPLES = Path(__file__).parents[1] / "examples"
WORLD = load_world("convoy")
MAINTAIN, CAUTION, BRAKE, EMERGENCY = range(4)

Act = Callable[[Observations], NDArray[Any]]


@pytest.fixture(scope="module")
def scenarios() -> ScenarioSet:
    return WORLD.draw("test", 11, {NOMINAL: 300, LOSSY: 150})


@pytest.fixture(scope="module")
def by_rule(scenarios: ScenarioSet) -> Episodes:
    return rollout(WORLD, scenarios, rules.rule)


@pytest.fixture
def examples_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def altered(scenarios: ScenarioSet, **values: Any) -> ScenarioSet:
    """The same scenarios with some parameters replaced for all episodes."""
    parameters = {name: column.copy() for name, column in scenarios.parameters.items()}
    for name, value in values.items():
        parameters[name][:] = value
    return dataclasses.replace(scenarios, parameters=parameters)


def quiet(**values: Any) -> ScenarioSet:
    """Four convoys of one peer on a straight road: nobody brakes or looks away, messages are exact and 5 ms old."""
    nothing = {column.name: 0 for column in COLUMNS if column.name.startswith(("noise", "loss", "bias"))}
    nothing |= dict.fromkeys(("behind", "beside", "heading", "curvature", "inattention_length"), 0)
    nothing |= dict.fromkeys(("event_start", "event_end", "latency", "jitter", "burst_enter"), 0)
    return altered(WORLD.draw("test", 3, {NOMINAL: 4}), **nothing | {"ahead": 1, "speed": 20, "phase": 5} | values)


def drive(env: ConvoyVectorEnv, actions: list[int] | int) -> tuple[list[dict[str, NDArray[Any]]], NDArray[np.float64]]:
    """Every observation and the rewards (T, N) of the same actions for all convoys."""
    seen, _ = env.reset()
    observations, rewards = [seen], []
    for action in [actions] * STEPS if isinstance(actions, int) else actions:
        seen, reward, *_ = env.step(np.full(env.num_envs, action))
        observations.append(seen)
        rewards.append(reward)
    return observations, np.array(rewards)


class TestVectorEnv:
    def test_spaces_hold_what_comes_out(self, scenarios: ScenarioSet) -> None:
        env = ConvoyVectorEnv(scenarios)
        seen, info = env.reset(seed=1)
        assert isinstance(env, gymnasium.vector.VectorEnv)
        assert info == {}
        for _ in range(20):
            assert env.observation_space.contains(seen)
            seen, reward, terminations, truncations, _ = env.step(env.action_space.sample())
            assert reward.shape == terminations.shape == truncations.shape == (len(scenarios),)

    def test_all_end_together_after_20_s_with_an_outcome(self, scenarios: ScenarioSet) -> None:
        env = ConvoyVectorEnv(scenarios)
        env.reset()
        told = np.zeros(len(scenarios), int)
        for step in range(STEPS):
            _, _, terminations, truncations, info = env.step(np.zeros(len(scenarios), np.int64))
            told += info.get("_is_success", 0)
            assert truncations.any() == (step == STEPS - 1)
        assert (terminations ^ truncations).all()
        assert (told == 1).all()
        with pytest.raises(InputError, match="over"):
            env.step(np.zeros(len(scenarios), np.int64))

    @pytest.mark.parametrize("actions", [np.zeros(3, int), np.full(4, 4), np.full(4, -1), np.zeros(4)])
    def test_wrong_actions_are_refused(self, actions: NDArray[Any]) -> None:
        env = ConvoyVectorEnv(quiet())
        env.reset()
        with pytest.raises(InputError, match="actions"):
            env.step(actions)

    def test_collided_convoys_freeze(self, scenarios: ScenarioSet) -> None:
        env = ConvoyVectorEnv(scenarios)
        seen, _ = env.reset()
        frozen: dict[int, tuple[NDArray[Any], ...]] = {}
        for _ in range(STEPS):
            actions = np.full(len(scenarios), EMERGENCY if frozen else MAINTAIN)
            seen, reward, terminations, _, _ = env.step(np.where(env.collision, actions, MAINTAIN))
            for row in np.flatnonzero(terminations):
                state = (env._x[row], env._ego_x[row], env.needless[row], seen["ego"][row], seen["peers"][row])
                if int(row) in frozen:
                    assert reward[row] == 0
                    assert all(np.array_equal(a, b) for a, b in zip(state, frozen[int(row)], strict=True))
                else:
                    assert reward[row] <= convoy.COLLISION_REWARD
                    frozen[int(row)] = tuple(np.copy(part) for part in state)
        assert len(frozen) > 50


class TestDeterminism:
    def test_twice_the_same_bits(self, scenarios: ScenarioSet, by_rule: Episodes) -> None:
        again = rollout(WORLD, scenarios, rules.rule)
        for item in dataclasses.fields(Episodes):
            assert np.array_equal(getattr(again, item.name), getattr(by_rule, item.name))

    @settings(max_examples=8, deadline=None)
    @given(rows=st.sets(st.integers(0, 449), min_size=1, max_size=40))
    def test_an_episode_does_not_depend_on_its_neighbours(
        self, scenarios: ScenarioSet, by_rule: Episodes, rows: set[int]
    ) -> None:
        chosen = np.array(sorted(rows))
        alone, together = rollout(WORLD, scenarios[chosen], rules.rule), by_rule[chosen]
        for item in dataclasses.fields(Episodes):
            assert np.array_equal(getattr(alone, item.name), getattr(together, item.name)), item.name

    def test_batches_do_not_matter(self, scenarios: ScenarioSet, by_rule: Episodes) -> None:
        done: list[tuple[int, int]] = []
        in_parts = rollout(
            dataclasses.replace(WORLD, batch=64), scenarios, rules.rule, progress=lambda *at: done.append(at)
        )
        assert np.array_equal(in_parts.reward, by_rule.reward)
        assert done[0] == (64, 450) and done[-1] == (450, 450)

    def test_another_policy_meets_the_same_luck(self, scenarios: ScenarioSet) -> None:
        """Noise and reception states are equal; and so are the peers ahead, whom the ego does not influence."""
        one, two = ConvoyVectorEnv(scenarios), ConvoyVectorEnv(scenarios)
        drive(one, [MAINTAIN] * 60)
        drive(two, [BRAKE] * 60)
        unhurt = ~(one.collision | two.collision)
        assert np.array_equal(one._luck.burst, two._luck.burst)
        assert not np.array_equal(one._ego_x[unhurt], two._ego_x[unhurt])
        ahead = (np.arange(SLOTS)[:, None] < scenarios.parameters["ahead"]) & unhurt
        assert np.array_equal(one._sent[:, ahead], two._sent[:, ahead])

    def test_worlds_and_scenarios_travel_to_workers(self, scenarios: ScenarioSet, by_rule: Episodes) -> None:
        world, part = pickle.loads(pickle.dumps((WORLD, scenarios[:20])))
        assert np.array_equal(rollout(world, part, rules.rule).reward, by_rule.reward[:20])


class TestObservation:
    def test_units_and_normalization(self) -> None:
        env = ConvoyVectorEnv(quiet(headway=1.0, driver_headway=1.0, heading=0.5))
        (first, *_), _ = drive(env, [MAINTAIN])
        gap = (2 + 20 * 1.0) / np.sqrt(1 - 1.4**-4) + LENGTH
        assert first["ego"][0] == pytest.approx([20 / 30, 0, 0.5 / np.pi, 1 / 8])
        assert first["peers"][0, 0] == pytest.approx([(gap - 20 * 0.005) / 100, 0, 0, 0, 0, 5 / 500], abs=1e-6)
        assert first["peer_mask"][0].tolist() == [1] + [0] * 7
        assert not first["peers"][0, 1:].any()

    def test_a_braking_peer_is_slower_and_decelerates(self) -> None:
        env = ConvoyVectorEnv(quiet(event_start=1, event_end=9, event_deceleration=8, event_speed=0))
        observations, _ = drive(env, [MAINTAIN] * 20)
        peer = observations[15]["peers"][0, 0]
        assert peer[4] == pytest.approx(-0.8)
        assert peer[2] * 30 == pytest.approx(-8 * 0.5, abs=0.1)

    def test_a_bend_to_the_left_shows_in_place_and_heading(self) -> None:
        env = ConvoyVectorEnv(quiet(curvature=0.001))
        (first, *_), _ = drive(env, [MAINTAIN])
        forward, left, _, turn = first["peers"][0, 0, :4]
        assert turn * np.pi == pytest.approx(0.001 * forward * 100, rel=0.01)
        assert left * 100 == pytest.approx((forward * 100) ** 2 * 0.001 / 2, rel=0.01)

    def test_the_peer_beside_and_behind_stand_where_they_are(self) -> None:
        env = ConvoyVectorEnv(quiet(behind=1, beside=1, beside_offset=10, beside_side=3.5))
        (first, *_), _ = drive(env, [MAINTAIN])
        assert first["peers"][0, BEHIND, 0] < 0
        assert first["peers"][0, BESIDE, :2] == pytest.approx([0.10 - 0.001, 0.035])

    def test_latency_and_phase_make_a_message_old(self) -> None:
        """A measurement 40 ms old with 70 ms of latency misses its own decision and is 140 ms old at the next."""
        observations, _ = drive(ConvoyVectorEnv(quiet(phase=40, latency=70)), [MAINTAIN] * 5)
        assert not observations[0]["peer_mask"].any()
        assert observations[3]["peers"][:, 0, 5] * 500 == pytest.approx([140] * 4)

    def test_jitter_makes_messages_one_or_two_decisions_late(self) -> None:
        observations, _ = drive(ConvoyVectorEnv(quiet(phase=0, latency=50, jitter=100)), MAINTAIN)
        ages = np.array([seen["peers"][:, 0, 5] * 500 for seen in observations[2:]])
        assert set(np.rint(ages).ravel().tolist()) == {100, 200}
        # 50 to 150 ms: half of them are late by more than 100 ms.
        assert (ages > 150).mean() == pytest.approx(0.5, abs=0.08)

    def test_a_silent_peer_ages_and_disappears_after_500_ms(self) -> None:
        env = ConvoyVectorEnv(quiet(phase=0, burst_enter=1, burst_leave=0.01, loss_burst=1))
        env.reset()
        env._newest[:] = 1  # the message of the start, as if it had arrived
        ages, present = [], []
        for _ in range(8):
            seen, *_ = env.step(np.zeros(4, np.int64))
            ages.append(seen["peers"][0, 0, 5] * 500)
            present.append(bool(seen["peer_mask"][0, 0]))
        assert present == [True] * 5 + [False] * 3
        assert ages[:5] == pytest.approx([100, 200, 300, 400, 500])

    def test_zero_to_eight_peers_occur_and_padding_is_zero(self, scenarios: ScenarioSet) -> None:
        recorder = Recorder(every=3)
        rollout(WORLD, scenarios, rules.rule, record=recorder)
        seen = recorder.observations
        assert set(seen.counts.tolist()) == set(range(SLOTS + 1))
        assert not seen.peers[~seen.mask].any()
        assert seen.ego[:, 3] * 8 == pytest.approx(seen.counts)
        assert np.abs(seen.ego[:, 2]).max() <= 1
        assert seen.peers[:, :, 5].min() >= 0 and seen.peers[:, :, 5].max() <= 1

    def test_noise_has_the_size_the_scenario_says(self) -> None:
        env = ConvoyVectorEnv(quiet(ahead=6, noise_speed=0.4, bias_x=1.5))
        observations, _ = drive(env, [MAINTAIN] * 60)
        peers = np.array([seen["peers"][:, :6] for seen in observations[1:]])
        slower = peers[..., 2] * 30
        assert slower.std() == pytest.approx(0.4, rel=0.1)
        assert abs(slower.mean()) < 0.05


class TestRadio:
    def test_lossy_convoys_lose_30_to_60_percent(self, scenarios: ScenarioSet) -> None:
        env = ConvoyVectorEnv(scenarios)
        drive(env, MAINTAIN)
        lossy, nominal = env.message_loss[scenarios.slices == LOSSY], env.message_loss[scenarios.slices == NOMINAL]
        assert 0.40 < lossy.mean() < 0.50
        assert (np.percentile(lossy, [5, 95]) > 0.3).all() and (np.percentile(lossy, [5, 95]) < 0.6).all()
        assert nominal.mean() < 0.15

    def test_loss_comes_in_bursts(self) -> None:
        """In a good state nothing is lost here, so a loss is followed by another as often as the bad state stays."""
        env = ConvoyVectorEnv(quiet(ahead=6, burst_enter=0.05, burst_leave=0.25, loss_burst=1))
        states = env._luck.burst[:, :6] > 0
        assert states.mean() == pytest.approx(0.05 / 0.30, abs=0.04)
        assert states[1:][states[:-1]].mean() == pytest.approx(0.75, abs=0.06)

    def test_far_peers_lose_more(self) -> None:
        env = ConvoyVectorEnv(quiet(ahead=6, loss_far=0.3))
        drive(env, MAINTAIN)
        near, far = env._messages_lost[0].sum(), env._messages_lost[5].sum()
        assert far > 3 * near


class TestNeedlessBraking:
    """Hand-made cases of the definition in the module's docstring."""

    def test_braking_for_nothing_counts_what_it_takes_beyond_the_driver(self) -> None:
        env = ConvoyVectorEnv(quiet())
        drive(env, [CAUTION] * 3)
        # At the equilibrium the driver commands 0, so three steps of -2 m/s^2 take 0.6 m/s.
        assert env.needless == pytest.approx([0.6] * 4, abs=0.1)

    def test_maintain_is_never_needless(self, scenarios: ScenarioSet) -> None:
        episodes = rollout(WORLD, scenarios, rules.neutral)
        assert not episodes.needless.any()
        assert np.array_equal(episodes.success, ~episodes.collision)

    def test_five_brakes_fail_and_four_do_not(self) -> None:
        env = ConvoyVectorEnv(quiet())
        env.reset()
        for step in range(STEPS):
            braking = np.array([4, 5, 0, 0]) > step
            *_, info = env.step(np.where(braking, BRAKE, MAINTAIN))
        assert info["is_success"].tolist() == [True, False, True, True]
        # 0.45 m/s a step, and what the driver meanwhile would speed up.
        assert 1.8 < info["needless_braking"][0] <= convoy.NEEDLESS_LIMIT < info["needless_braking"][1] < 2.5

    def test_braking_that_is_needed_is_free(self) -> None:
        env = ConvoyVectorEnv(
            quiet(
                event_start=1, event_end=20, event_deceleration=8, event_speed=0, driver_headway=1.0, actuator_lag=0.2
            )
        )
        _, rewards = drive(env, [MAINTAIN] * 14 + [EMERGENCY] * 10)
        assert not env.needless.any()
        assert not env.collision.any()
        assert (rewards[16:] == 0).all()

    def test_a_chain_ahead_counts_before_the_next_vehicle_brakes(self) -> None:
        """The second peer brakes hard: its demand is there one step later, while the first still drives on."""
        events = np.zeros((4, SLOTS))
        events[:, 1] = 1
        env = ConvoyVectorEnv(
            quiet(ahead=2, event_start=events, event_end=events * 20, event_deceleration=9, event_speed=0, headway=0.5)
        )
        drive(env, [MAINTAIN] * 12)
        assert (env._a[:, 0] > -1.5).all()
        assert (env._required() > convoy.NEEDED_DECELERATION).all()

    def test_a_standing_ego_cannot_brake_needlessly(self) -> None:
        env = ConvoyVectorEnv(quiet(speed=5))
        drive(env, [EMERGENCY] * 40)
        assert not env._ego_v.any()
        before = env.needless.copy()
        for _ in range(50):
            env.step(np.full(4, EMERGENCY))
        assert (before > 5).all()
        assert np.array_equal(env.needless, before)

    def test_the_reward_is_as_documented(self) -> None:
        env = ConvoyVectorEnv(quiet())
        _, rewards = drive(env, [BRAKE])
        assert rewards[0] == pytest.approx(-2 * env.needless)

    def test_missing_braking_is_lacking(self) -> None:
        env = ConvoyVectorEnv(
            quiet(event_start=1, event_end=20, event_deceleration=9, event_speed=0, driver_reaction=2)
        )
        _, rewards = drive(env, [MAINTAIN] * 22)
        assert rewards[20] == pytest.approx(-0.2 * 0.1 * np.minimum(env_required(env, 20), 8), abs=0.02)


def env_required(env: ConvoyVectorEnv, step: int) -> NDArray[np.float32]:
    """What was required before step ``step``, the driver having seen nothing yet."""
    replay = ConvoyVectorEnv(env._scenarios)
    drive(replay, [MAINTAIN] * step)
    return replay._required()


class TestRequiredDeceleration:
    @settings(max_examples=200, deadline=None)
    @given(
        gap=st.floats(1, 150),
        speed=st.floats(1, 40),
        peer_speed=st.floats(0, 40),
        peer_braking=st.floats(0, 9),
    )
    def test_it_just_keeps_clear(self, gap: float, speed: float, peer_speed: float, peer_braking: float) -> None:
        """Braking with it comes near 0 and, but for rounding, not below; with a little less it collides."""
        one = (np.array([x], np.float32) for x in (gap, speed, peer_speed, -peer_braking))
        required = float(required_deceleration(*one)[0])
        assert closest(gap, speed, peer_speed, peer_braking, required) > -0.01 * gap - 0.1
        if required > 0.5:
            assert closest(gap, speed, peer_speed, peer_braking, 0.9 * required) < 0.02 * gap

    def test_nothing_is_required_of_a_peer_that_draws_away(self) -> None:
        args = (np.array([x], np.float32) for x in (20, 20, 25, 1))
        assert required_deceleration(*args)[0] < 0.01


def closest(gap: float, speed: float, peer_speed: float, peer_braking: float, braking: float) -> float:
    """Smallest gap while both brake to a stop, by the closed form of uniform deceleration on a fine grid."""
    last = max(speed / max(braking, 0.05), peer_speed / max(peer_braking, 0.05))
    t = np.linspace(0, min(last, 120), 20_000)

    def travelled(v: float, b: float) -> NDArray[np.float64]:
        moving = np.minimum(t, v / b) if b > 0 else t
        return v * moving - b * moving**2 / 2

    return float((gap + travelled(peer_speed, peer_braking) - travelled(speed, braking)).min())


class TestTask:
    def test_braking_at_need_wins_and_neither_never_nor_always_does(
        self, scenarios: ScenarioSet, by_rule: Episodes
    ) -> None:
        nominal = scenarios.slices == NOMINAL
        never, always = (rollout(WORLD, scenarios, act) for act in (rules.neutral, rules.always_brake))
        assert 0.40 < never.success[nominal].mean() < 0.60
        assert by_rule.success[nominal].mean() > 0.92
        assert always.success.mean() == 0
        assert always.needless.min() > convoy.NEEDLESS_LIMIT
        assert by_rule.reward.mean() > never.reward.mean() > always.reward.mean()

    def test_peers_do_not_run_into_each_other(self, scenarios: ScenarioSet) -> None:
        env = ConvoyVectorEnv(scenarios)
        env.reset()
        smallest = np.inf
        for _ in range(STEPS):
            env.step(np.zeros(len(scenarios), np.int64))
            gaps = np.diff(env._x[:, :6], axis=1) - LENGTH
            smallest = min(smallest, gaps[env._present[:, 1:6]].min())
        assert smallest > 0

    def test_one_peer_ahead_brakes_hard_and_the_others_gently(self, scenarios: ScenarioSet) -> None:
        ahead = np.arange(6) < scenarios.parameters["ahead"][:, None]
        hard = (scenarios.parameters["event_deceleration"][:, :6] > 5) & ahead
        assert (hard.sum(axis=1) == 1).all()
        assert (scenarios.parameters["event_deceleration"][:, :6][~hard & ahead] < 2).all()

    def test_the_rule_ignores_the_next_lane_and_the_peer_behind(self) -> None:
        """A peer that stands 30 m ahead demands everything; moved to the next lane, or behind, nothing."""
        peers = np.zeros((3, SLOTS, 6), np.float32)
        peers[:, 0] = [0.3, 0, -20 / 30, 0, -0.8, 0.2]
        peers[1, 0, 1], peers[2, 0, 0] = 0.035, -0.3
        mask = np.zeros((3, SLOTS), np.bool_)
        mask[:, 0] = True
        ego = np.tile(np.array([20 / 30, 0, 0, 1 / 8], np.float32), (3, 1))
        assert rules.rule(Observations(ego, peers, mask)).tolist() == [EMERGENCY, MAINTAIN, MAINTAIN]

    def test_the_rule_without_peers_maintains(self) -> None:
        nobody = Observations(np.ones((5, 4), np.float32), np.ones((5, 8, 6), np.float32), np.zeros((5, 8), np.bool_))
        assert rules.rule(nobody).tolist() == [MAINTAIN] * 5


class TestScenarios:
    def test_round_trip(self, scenarios: ScenarioSet) -> None:
        again = WORLD.read(scenarios.to_json())
        assert again == scenarios
        assert again.to_json() == scenarios.to_json()

    @settings(max_examples=10, deadline=None)
    @given(
        purpose=st.sampled_from(PURPOSES),
        seed=st.integers(0, 2**64),
        nominal=st.integers(0, 5),
        lossy=st.integers(1, 5),
    )
    def test_any_draw_survives_its_file(self, purpose: str, seed: int, nominal: int, lossy: int) -> None:
        drawn = WORLD.draw(purpose, seed, {NOMINAL: nominal, LOSSY: lossy})
        assert WORLD.read(drawn.to_json()).digest == drawn.digest

    def test_a_scenario_does_not_depend_on_how_many_are_drawn(self, scenarios: ScenarioSet) -> None:
        fewer = WORLD.draw("test", 11, {NOMINAL: 7, LOSSY: 3})
        assert fewer.of_slice(LOSSY) == scenarios.of_slice(LOSSY)[:3]
        assert next(iter(fewer)) == next(iter(scenarios))

    def test_digest_tells_sets_apart(self, scenarios: ScenarioSet) -> None:
        others = [
            scenarios[:-1],
            scenarios[::-1],
            altered(scenarios, speed=20),
            WORLD.draw("test", 12, {NOMINAL: 300, LOSSY: 150}),
            WORLD.draw("dataset", 11, {NOMINAL: 300, LOSSY: 150}),
        ]
        assert len({scenarios.digest, *(other.digest for other in others)}) == 6

    @given(seed=st.integers(0, 2**64), other=st.integers(0, 2**64))
    def test_purposes_and_slices_never_share_an_episode(self, seed: int, other: int) -> None:
        slices, index = np.repeat([NOMINAL, LOSSY], 50), np.tile(np.arange(50), 2)
        seeds = [
            set(episode_seeds(p, s, slices, index).tolist()) for p, s in zip(PURPOSES, [seed, other] * 2, strict=True)
        ]
        assert len(set.union(*seeds)) == 100 * len(PURPOSES)
        assert max(max(part) for part in seeds) < 2**31

    def test_6000_are_compact(self) -> None:
        text = WORLD.draw("test", 1, {NOMINAL: 4000, LOSSY: 2000}).to_json()
        assert len(WORLD.read(text)) == 6000
        assert len(text) < 5_000_000

    def test_columns_are_read_only(self, scenarios: ScenarioSet) -> None:
        with pytest.raises(ValueError, match="read-only"):
            scenarios.parameters["speed"][0] = 1

    def test_every_drawn_value_is_in_its_declared_range(self, scenarios: ScenarioSet) -> None:
        for column in COLUMNS:
            values = scenarios.parameters[column.name]
            assert column.low <= values.min() and values.max() <= column.high, column.name

    @pytest.mark.parametrize(
        ("purpose", "seed", "counts", "message"),
        [
            ("exam", 1, {NOMINAL: 1}, "purpose"),
            ("test", -1, {NOMINAL: 1}, "seed"),
            ("test", 1, {"foggy": 1}, "slice"),
            ("test", 1, {NOMINAL: -1}, "episodes"),
            ("test", 1, {NOMINAL: 0}, "no episode"),
            ("test", 1, {}, "no episode"),
        ],
    )
    def test_senseless_draws_are_refused(self, purpose: str, seed: int, counts: dict[str, int], message: str) -> None:
        with pytest.raises(InputError, match=message):
            WORLD.draw(purpose, seed, counts)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda d: d.update(schema="quant-scenarios/99"), "version"),
            (lambda d: d.pop("seed"), "seed is missing"),
            (lambda d: d.update(seed="7"), "seed is missing or of another type"),
            (lambda d: d.update(seed=8), "digest"),
            (lambda d: d.update(purpose="exam"), "purpose"),
            (lambda d: d.update(episodes=4), "values for 4 episodes"),
            (lambda d: d.update(slices=[[NOMINAL, 2]]), "slices hold 2"),
            (lambda d: d.update(slices=[[NOMINAL, 10**13]]), "slices hold 10000000000000"),
            (lambda d: d.update(slices=[[NOMINAL, 10**30]]), "slices hold 1000000"),
            (lambda d: d.update(slices=[[NOMINAL, -3], [NOMINAL, 8]]), "a slice of -3"),
            (lambda d: d.update(slices=[[NOMINAL, 3], ["foggy", 2]]), "unknown slice"),
            (lambda d: d.update(slices=7), "slices is missing or of another type"),
            (lambda d: d.update(slices=[7]), "pairs"),
            (lambda d: d["columns"].pop("speed"), "missing: speed"),
            (lambda d: d["columns"].update(fog=[1] * 5), "unknown columns: fog"),
            (lambda d: d["columns"].update(speed=[20.0] * 4), "4 values"),
            (lambda d: d["columns"]["speed"].__setitem__(2, 400.0), "scenario 2 has 400.0"),
            (lambda d: d["columns"]["speed"].__setitem__(2, float("nan")), "scenario 2 has nan"),
            (lambda d: d["columns"]["speed"].__setitem__(2, "fast"), "not numbers"),
            (lambda d: d["columns"]["ahead"].__setitem__(1, 1.5), "scenario 1 has 1.5"),
            (lambda d: d["columns"]["headway"].__setitem__(1, [1.0] * 7), "different lengths"),
            (lambda d: d["columns"].update(headway=[1.0] * 5), "shape"),
            (lambda d: d["columns"]["index"].__setitem__(1, 0), "twice"),
            (lambda d: d["columns"]["speed"].__setitem__(2, 20.01), "digest"),
        ],
    )
    def test_damage_is_found(self, damage: Callable[[Any], Any], message: str) -> None:
        document = json.loads(WORLD.draw("test", 1, {NOMINAL: 3, LOSSY: 2}).to_json())
        damage(document)
        with pytest.raises(InputError, match=re.escape(message)) as caught:
            WORLD.read(json.dumps(document), "scenarios.json")
        assert str(caught.value).startswith("scenarios")

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
    def test_what_is_no_scenario_file_is_refused(self, text: str) -> None:
        with pytest.raises(InputError, match=r"not a scenario file|not valid JSON"):
            WORLD.read(text)


class TestRollout:
    def test_the_recorder_keeps_every_nth_step_of_running_episodes(self, scenarios: ScenarioSet) -> None:
        part = scenarios[:40]
        every, third = Recorder(), Recorder(every=3)
        episodes = rollout(WORLD, part, rules.neutral, record=every)
        rollout(dataclasses.replace(WORLD, batch=7), part, rules.neutral, record=third)
        assert np.array_equal(np.bincount(every.episodes), episodes.steps)
        chosen = (every.steps + every.episodes) % 3 == 0
        assert np.array_equal(third.observations.peers, every.observations[chosen].peers)
        assert np.array_equal(third.episodes, every.episodes[chosen])

    def test_rewards_are_summed_up_to_the_end(self, scenarios: ScenarioSet, by_rule: Episodes) -> None:
        assert by_rule.collision_known.all()
        assert (by_rule.reward <= 0).all()
        assert (by_rule.reward[by_rule.collision] <= convoy.COLLISION_REWARD).all()
        assert (by_rule.steps[~by_rule.collision] == STEPS).all()

    @pytest.mark.parametrize("width", [None, 3])
    def test_actions_of_the_wrong_shape_are_refused(self, scenarios: ScenarioSet, width: int | None) -> None:
        shape = (1,) if width is None else (4, width)
        with pytest.raises(InputError, match="actions of shape"):
            rollout(WORLD, scenarios[:4], lambda o: np.zeros(shape, np.int64))

    def test_a_policy_that_does_not_fit_is_refused(self) -> None:
        def policy(ego: int, out: int, space: Discrete | Box, peers: int = 6) -> Policy:
            encoder = Dense(np.ones((8, peers), np.float32), np.zeros(8, np.float32), "relu")
            head = Dense(np.ones((out, 8 + ego), np.float32), np.zeros(out, np.float32), "linear")
            return Policy((encoder,), (head,), "max", space)

        WORLD.check_fits(policy(4, 4, Discrete(4)))
        for wrong, message in [
            (policy(6, 4, Discrete(4)), "ego features 6"),
            (policy(4, 4, Discrete(4), 5), "features of a peer 5"),
            (policy(4, 1, Box((0.0,), (1.0,))), r"action space Box"),
            (dataclasses.replace(policy(4, 4, Discrete(4)), max_peers=4), "peer slots 4"),
        ]:
            with pytest.raises(InputError, match=message):
                WORLD.check_fits(wrong)

    def test_scenarios_of_another_world_are_refused(self, examples_on_path: None, scenarios: ScenarioSet) -> None:
        with pytest.raises(InputError, match="scenarios of convoy"):
            rollout(load_world("single_lane:SingleLane-v0"), scenarios, rules.neutral)

    def test_the_convoy_takes_no_keyword_arguments(self) -> None:
        with pytest.raises(InputError, match="takes no speed"):
            load_world("convoy", {"speed": 3})


def pedal(share: float) -> Act:
    return lambda observations: np.full((len(observations), 1), share, np.float32)


def follow(observations: Observations) -> NDArray[np.float32]:
    """Brakes as the hardest braking peer does, and a little more."""
    pedal: NDArray[np.float32] = np.clip(-1.5 * observations.ego[:, 4:], 0, 1).astype(np.float32)
    return pedal


class TestUserWorld:
    @pytest.fixture
    def world(self, examples_on_path: None) -> World:
        return load_world("single_lane:SingleLane-v0", {"cars": 3, "batch": 7})

    def test_the_example_is_read_off_its_spaces(self, world: World) -> None:
        assert world.action_space == Box((0.0,), (1.0,))
        assert (world.ego_size, world.peer_size, world.max_peers, world.batch) == (5, 6, 8, 7)
        assert world.slices == (NOMINAL,)

    def test_the_example_tells_good_driving_from_bad(self, world: World) -> None:
        drawn = world.draw("test", 1, {NOMINAL: 30})
        assert world.read(drawn.to_json()) == drawn
        never, always, good = (rollout(world, drawn, act) for act in (pedal(0), pedal(1), follow))
        assert never.success.mean() == 0 and never.collision.all() and never.collision_known.all()
        assert always.success.mean() == 0 and (always.needless > 2).all()
        assert good.success.mean() == 1 and (good.steps == 120).all()

    def test_outcomes_depend_on_the_seed_alone(self, world: World) -> None:
        drawn = world.draw("test", 1, {NOMINAL: 12})
        whole = rollout(dataclasses.replace(world, batch=12), drawn, pedal(0))
        parts = [rollout(world, drawn[k : k + 1], pedal(0)) for k in range(12)]
        assert np.array_equal(Episodes.concatenate(parts).reward, whole.reward)
        assert len(set(whole.steps.tolist())) > 6
        assert np.array_equal(whole.steps[::-1], rollout(world, drawn[::-1], pedal(0)).steps)

    def test_a_class_that_is_not_registered_runs_too(self, examples_on_path: None, world: World) -> None:
        other = load_world("single_lane:SingleLane", {"cars": 3})
        counts = {NOMINAL: 5}
        assert np.array_equal(
            rollout(other, other.draw("test", 1, counts), follow).reward,
            rollout(world, world.draw("test", 1, counts), follow).reward,
        )

    def test_it_has_no_lossy_slice(self, world: World) -> None:
        with pytest.raises(InputError, match="no slice 'lossy'"):
            world.draw("test", 1, {NOMINAL: 4, LOSSY: 2})

    def test_an_env_that_ends_early_is_not_run_again(self, fake: Fake) -> None:
        world = fake(length="seeded")
        episodes = rollout(world, world.draw("test", 1, {NOMINAL: 9}), lambda o: np.zeros(len(o), np.int64))
        assert len(set(episodes.steps.tolist())) > 1
        assert np.array_equal(episodes.reward, episodes.steps)
        module = sys.modules["quant_test_envs"]
        assert module.RESETS == 9 and episodes.steps.sum() == module.STEPS

    def test_collision_and_needless_braking_are_optional(self, fake: Fake) -> None:
        world = fake()
        episodes = rollout(world, world.draw("test", 1, {NOMINAL: 2}), lambda o: np.zeros(len(o), np.int64))
        assert episodes.success.all()
        assert not episodes.collision_known.any() and not episodes.collision.any()
        assert np.isnan(episodes.needless).all()

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"drop": "ego"}, "observation is"),
            ({"ego": 0}, "ego"),
            ({"mask": 5}, "peer_mask"),
            ({"actions": "multi"}, "action space"),
            ({"actions": "unbounded"}, "action space"),
            ({"fail": "init"}, "could not be made: RuntimeError"),
            ({"nonsense": 1}, "could not be made: TypeError"),
            ({"max_steps": 0}, "max_steps is 0"),
            ({"batch": "many"}, "batch is 'many'"),
        ],
    )
    def test_an_environment_that_does_not_fit_is_refused(
        self, fake: Fake, kwargs: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            fake(**kwargs)

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"fail": "reset"}, "reset failed: RuntimeError"),
            ({"fail": "step"}, "step failed: RuntimeError"),
            ({"break_": "nan ego"}, "ego holds NaN"),
            ({"break_": "nan peer"}, "peers holds NaN"),
            ({"break_": "shape"}, r"ego has shape \(3,\)"),
            ({"break_": "type"}, "peer_mask is of float32"),
            ({"break_": "key"}, "has no 'peers'"),
            ({"break_": "array"}, "observation is a ndarray"),
            ({"break_": "reward"}, "reward is nan"),
            ({"success": False}, "did not say whether it succeeded"),
            ({"length": "endless", "max_steps": 15}, "2 of 2 episodes did not end"),
        ],
    )
    def test_an_environment_that_breaks_its_contract_is_told(
        self, fake: Fake, kwargs: dict[str, Any], message: str
    ) -> None:
        world = fake(**kwargs)
        with pytest.raises(InputError, match=message):
            rollout(world, world.draw("test", 1, {NOMINAL: 2}), lambda o: np.zeros(len(o), np.int64))

    @pytest.mark.parametrize("name", ["is_success", "collision"])
    @pytest.mark.parametrize("value", ["no", float("nan"), 0.5, 2, None, [True], {"is": True}])
    def test_an_outcome_that_is_neither_true_nor_false_is_refused(self, fake: Fake, name: str, value: Any) -> None:
        world = fake(info={name: value})
        with pytest.raises(InputError, match=re.escape(f"info['{name}'] is {str(value)!r}")) as caught:
            rollout(world, world.draw("test", 1, {NOMINAL: 2}), rules.neutral)
        assert str(caught.value.where).startswith("quant_test_envs:Env seed")

    def test_an_outcome_is_checked_before_it_is_cast_to_what_another_environment_said(self, fake: Fake) -> None:
        """Beside an environment that says True, "no" would be taken for True by Gymnasium."""
        world = fake(length="seeded", info={"is_success": "no"}, first={"is_success": True})
        with pytest.raises(InputError, match="is 'no'"):
            rollout(world, world.draw("test", 1, {NOMINAL: 9}), rules.neutral)

    @pytest.mark.parametrize("value", ["True", "np.True_", "1", "1.0", "np.float32(1)", "np.array(1)"])
    def test_true_has_many_spellings(self, fake: Fake, value: str) -> None:
        world = fake(info=f"dict(is_success={value}, collision={value})")
        episodes = rollout(world, world.draw("test", 1, {NOMINAL: 2}), rules.neutral)
        assert episodes.success.all() and episodes.collision.all() and episodes.collision_known.all()

    @pytest.mark.parametrize("value", ["False", "np.False_", "0", "0.0"])
    def test_so_has_false(self, fake: Fake, value: str) -> None:
        world = fake(info=f"dict(is_success={value}, collision={value})")
        episodes = rollout(world, world.draw("test", 1, {NOMINAL: 2}), rules.neutral)
        assert not episodes.success.any() and not episodes.collision.any() and episodes.collision_known.all()

    @pytest.mark.parametrize("value", ["much", None, float("nan")])
    def test_needless_braking_that_is_no_number_is_refused(self, fake: Fake, value: Any) -> None:
        world = fake(info={"needless_braking": value})
        with pytest.raises(InputError, match="needless_braking"):
            rollout(world, world.draw("test", 1, {NOMINAL: 2}), rules.neutral)

    def test_nan_in_an_absent_peer_is_no_fault(self, fake: Fake) -> None:
        world = fake(break_="nan absent peer")
        assert rollout(world, world.draw("test", 1, {NOMINAL: 2}), lambda o: np.zeros(len(o), np.int64)).success.all()

    def test_seeded_environments_are_repeatable(self, fake: Fake, world: World) -> None:
        for seeded, act in ((world, follow), (world, pedal(0)), (fake(length="seeded"), rules.neutral)):
            check_repeatable(seeded, seeded.draw("dataset", 1, {NOMINAL: 3 * EPISODES}), act)
        assert sys.modules["quant_test_envs"].RESETS == 2 * EPISODES

    @pytest.mark.parametrize("length", ["unseeded", "counted", "shared"])
    def test_an_environment_that_its_seed_does_not_decide_is_refused(self, fake: Fake, length: str) -> None:
        """Luck of its own, a count of what ran before, and a generator shared with the environments beside it."""
        world = fake(length=length)
        with pytest.raises(InputError, match=re.escape("not decided by reset(seed=...)")) as caught:
            check_repeatable(world, world.draw("dataset", 1, {NOMINAL: 40}), rules.neutral)
        assert "np_random" in str(caught.value.hint)
        assert str(caught.value.where).startswith("quant_test_envs:Env seed")

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("no_such_module_anywhere:Env-v0", "no module 'no_such_module_anywhere'"),
            ("single_lane:Nothing-v0", "no environment 'Nothing-v0'"),
            ("single_lane:STEP_S", "no environment 'STEP_S'"),
            ("single_lane", "is not a world"),
            (":Env-v0", "is not a world"),
            ("json:loads", "could not be made"),
        ],
    )
    def test_what_is_not_there_is_named(self, examples_on_path: None, spec: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            load_world(spec)

    def test_the_known_environments_are_suggested(self, examples_on_path: None) -> None:
        with pytest.raises(InputError, match="SingleLane-v0"):
            load_world("single_lane:SingelLane-v0")

    def test_a_module_that_breaks_on_import_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "quant_test_broken.py").write_text("1 / 0\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        with pytest.raises(InputError, match="ZeroDivisionError"):
            load_world("quant_test_broken:Env-v0")


FAKE_ENVS = """
import gymnasium as gym
import numpy as np

RESETS = STEPS = 0

class Env(gym.Env):
    def __init__(self, ego=4, mask=8, actions="discrete", drop=None, length=5, fail=None, break_=None, success=True,
                 info=None, first=None):
        if fail == "init":
            raise RuntimeError("no simulator")
        spaces = {
            "ego": gym.spaces.Box(-9, 9, (ego,), np.float32),
            "peers": gym.spaces.Box(-9, 9, (8, 6), np.float32),
            "peer_mask": gym.spaces.MultiBinary(mask),
        }
        spaces.pop(drop, None)
        self.observation_space = gym.spaces.Dict(spaces)
        self.action_space = {
            "discrete": gym.spaces.Discrete(4),
            "multi": gym.spaces.MultiDiscrete([2, 2]),
            "unbounded": gym.spaces.Box(-np.inf, np.inf, (1,), np.float32),
        }[actions]
        self._length, self._fail, self._break, self._success = length, fail, break_, success
        self._info, self._first = eval(info) if isinstance(info, str) else info or {}, first or {}

    def reset(self, *, seed=None, options=None):
        global RESETS
        super().reset(seed=seed)
        RESETS += 1
        if self._fail == "reset":
            raise RuntimeError("no road")
        np.random.seed(seed)
        self._t, self._end = 0, {
            "seeded": self.np_random.integers(2, 12),
            "endless": 10**9,
            "unseeded": np.random.default_rng().integers(2, 1000),
            "counted": 2 + RESETS,
        }.get(self._length, 5)
        self._said = self._info if RESETS > 1 or not self._first else self._first
        return self._see(), {}

    def step(self, action):
        global STEPS
        STEPS += 1
        self._t += 1
        if self._fail == "step":
            raise RuntimeError("no road")
        over = self._t >= self._end if self._length != "shared" else np.random.random() < 0.1
        info = {"is_success": True, **self._said} if over and self._success else {}
        return self._see(), np.nan if self._break == "reward" else 1.0, over, False, info

    def _see(self):
        peers, mask = np.zeros((8, 6), np.float32), np.zeros(8, np.int8)
        mask[0] = 1
        ego = np.zeros(4, np.float32)
        if getattr(self, "_t", 0) == 1:
            if self._break == "nan ego":
                ego[1] = np.nan
            if self._break == "nan peer":
                peers[0, 2] = np.nan
            if self._break == "nan absent peer":
                peers[3, 2] = np.nan
            if self._break == "shape":
                ego = ego[:3]
            if self._break == "type":
                mask = mask.astype(np.float32)
            if self._break == "array":
                return ego
            if self._break == "key":
                return {"ego": ego, "peer_mask": mask}
        return {"ego": ego, "peers": peers, "peer_mask": mask}
"""

Fake = Callable[..., World]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Makes worlds out of a small environment that can be told to go wrong in many ways."""
    (tmp_path / "quant_test_envs.py").write_text(FAKE_ENVS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "quant_test_envs", raising=False)
    return lambda **kwargs: load_world("quant_test_envs:Env", kwargs)
