"""The convoy world: thousands of convoys at once, in NumPy, at 10 Hz.

The ego follows one to six peers in its lane; sometimes one follows it and one drives in the next lane. Each peer tells
its position, speed and acceleration ten times a second by V2V messages that are noisy, late and lost in bursts, the
more so the farther away it is. One random peer ahead brakes hard, others brake gently. A base driver (the Intelligent
Driver Model with delayed sight, who looks away at times) drives the ego; the policy may only brake harder than the
driver does.

**Observation** (float32): ``ego`` (4,) = speed/30, acceleration/10, heading/pi, peers/8; ``peers`` (8, 6) = rel_x/100,
rel_y/100, rel_speed/30, rel_heading/pi, acceleration/10, age_ms/500, with x forward and y to the left of the ego;
``peer_mask`` (8,) int8. A peer's row is its newest message as it was measured, less the ego's state *now*; a peer whose
newest message is older than 500 ms is absent. Rows of absent peers are zero.

**Actions** (Discrete(4)): Maintain leaves the ego to the base driver. Caution, Brake and Emergency command at most -2,
-4.5 and -8 m/s^2: the command is the lower of that and the driver's. The acceleration follows the command with the
ego's actuator lag.

**Success** is no collision and at most 2 m/s of needless braking. A collision is an overlap with the next vehicle in
the lane, ahead or behind. *Needless braking* of a step is the speed the policy's command takes away beyond what the
base driver commands at the same moment, max(0, a_driver - a_command) times 0.1 s but never more than the speed the ego
has, counted whenever no braking is needed; an episode's is the sum of its steps up to the end or the collision. Braking
*is needed* while the deceleration that would keep the ego 2 m clear of some peer ahead in its lane exceeds 1 m/s^2,
computed from the true state (never from messages): see :func:`quant.worlds.kinematics.required_deceleration`. A peer
that is not the nearest counts too, with the room its followers need taken off the gap, so that braking early for a
chain that is about to brake is not needless.

**Reward**: -10 at a collision, -2 for each m/s of needless braking, and -0.2 for each m/s of lacking braking: what the
command falls short of the required deceleration (at most 8 m/s^2) while braking is needed, times 0.1 s. The best there
is is 0.

**Freezing**: a convoy that collided stays as it is, terminated, with reward 0, until all of them end together after 20
s (truncation). Nothing is reset or removed before that, and autoreset is disabled.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from quant.errors import InputError
from quant.policy.observations import EGO, F32, PEER_MASK, PEERS, Mask
from quant.worlds.convoy_scenarios import AHEAD_SLOTS, BEHIND, BESIDE, EGO_SCALE, PEER_SCALE, SLOTS, STEP_S, STEPS
from quant.worlds.kinematics import IDM_ACCELERATION, LENGTH, STANDSTILL, idm, required_deceleration
from quant.worlds.scenarios import ScenarioSet

ACTIONS = ("Maintain", "Caution", "Brake", "Emergency")
COMMANDS = (np.inf, -2.0, -4.5, -8.0)
"""m/s^2: the most each action lets the ego accelerate."""

NEEDLESS_LIMIT = 2.0
"""m/s of needless braking an episode may have and still succeed."""
NEEDED_DECELERATION = 1.0
"""m/s^2 of required deceleration above which braking is needed."""
CLEARANCE = 2.0
"""m the ego keeps to a peer ahead in :func:`quant.worlds.kinematics.required_deceleration`."""

STALE_MS = 500.0
"""A peer whose newest message is older is not observed."""

COLLISION_REWARD, NEEDLESS_REWARD, LACKING_REWARD = -10.0, -2.0, -0.2

_FREE_SPEED = 1.4
_PEER_HARDEST, _DRIVER_HARDEST = np.float32(-9.0), np.float32(-7.0)
_FREE_ROAD = np.float32(1e5)
_LOSS_DISTANCE = 150.0
_DELAYS = 3
_LUCK = 8
"""16-bit numbers of luck a message: loss, reception, latency, one spare, and noise of x, y, speed and acceleration."""

_DT = np.float32(STEP_S)
_WORD = 65536.0
_ROOM = ((np.arange(AHEAD_SLOTS) + 1) * LENGTH + np.arange(AHEAD_SLOTS) * STANDSTILL + CLEARANCE).astype(np.float32)
"""m between the ego's and a peer's places that the vehicles up to it and the clearance take up."""


def observation_space() -> gymnasium.spaces.Dict:
    """The space of one convoy's observation."""
    box = gymnasium.spaces.Box
    return gymnasium.spaces.Dict(
        {
            EGO: box(-np.inf, np.inf, (len(EGO_SCALE),), np.float32),
            PEERS: box(-np.inf, np.inf, (SLOTS, len(PEER_SCALE)), np.float32),
            PEER_MASK: gymnasium.spaces.MultiBinary(SLOTS),
        }
    )


class ConvoyVectorEnv(VectorEnv[dict[str, NDArray[Any]], NDArray[Any], NDArray[Any]]):
    """One convoy for each scenario of a set; see the module for the rules.

    ``info`` of the step in which a convoy ends holds ``is_success``, ``collision`` (bool) and ``needless_braking``
    (m/s), each (N,) with the mask ``_is_success`` and so on, as Gymnasium's vector environments do.

    Args:
        scenarios: convoys with the parameters of :data:`quant.worlds.convoy_scenarios.COLUMNS`.
    """

    def __init__(self, scenarios: ScenarioSet) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}
        self.single_observation_space = observation_space()
        self.single_action_space = gymnasium.spaces.Discrete(len(ACTIONS))
        self._load(scenarios)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Starts every convoy again, or those of ``options["scenarios"]``.

        Args:
            seed: not used; an episode's luck is in its scenario.
            options: ``scenarios``, another :class:`ScenarioSet` to run from here on.
        """
        if options and "scenarios" in options:
            self._load(options["scenarios"])
        self._start()
        self._send()
        return self._observe(), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64], Mask, Mask, dict[str, Any]]:
        """Drives 0.1 s.

        Args:
            actions: (N,) whole numbers 0 to 3; those of convoys that ended are ignored.

        Raises:
            InputError: after the end, or an action out of range.
        """
        if self.over:
            raise InputError("the episodes are over", where="convoy", hint="call reset")
        actions = _checked(actions, self.num_envs)
        was_running = self._running > 0
        driver = self._driver_command()
        command = np.minimum(driver, self._commands[actions])
        taken = np.minimum((driver - command) * _DT, self._ego_v) * self._running
        required = self._required()
        needed = required > NEEDED_DECELERATION
        needless = taken * ~needed
        short = np.minimum(required, np.float32(-COMMANDS[-1])) + command
        lacking = np.maximum(short, np.float32(0)) * (_DT * self._running * needed)
        self.needless += needless
        self._drive(command)
        collided = self._collisions() & was_running
        self._running[collided] = 0
        self._t += 1
        self._send()
        reward = np.float64(NEEDLESS_REWARD) * needless + np.float64(LACKING_REWARD) * lacking
        reward += COLLISION_REWARD * collided
        self.collision |= collided
        truncations = ~self.collision & self.over
        ended = collided | truncations
        return self._observe(), reward, self.collision.copy(), truncations, self._outcome(ended)

    def _load(self, scenarios: ScenarioSet) -> None:
        if scenarios.world != "convoy":
            raise InputError(f"scenarios of the world {scenarios.world!r}", where="convoy", expected="convoy's own")
        self.num_envs = n = len(scenarios)
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)
        self._scenarios = scenarios
        values = {name: column.astype(np.float32) for name, column in scenarios.parameters.items()}
        self._values = values
        self._commands = np.array(COMMANDS, np.float32)
        slot = np.arange(SLOTS)
        present = slot < values["ahead"][:, None]
        present[:, BEHIND] = values["behind"] > 0
        present[:, BESIDE] = values["beside"] > 0
        self._present = present
        self._leads = (slot == values["ahead"][:, None] - 1) | (slot == BESIDE)
        self._follows = (~self._leads).astype(np.float32)
        self._free_road = _FREE_ROAD * self._leads
        self._luck = _luck(scenarios)

    def _start(self) -> None:
        """Everybody drives at the same speed with the gap at which IDM neither accelerates nor brakes."""
        p, n = self._values, self.num_envs
        self._t = 0
        self._running = np.ones(n, np.float32)
        self._held: Mask = np.zeros(n, np.bool_)
        self._last: dict[str, NDArray[Any]] = {}
        self.collision: Mask = np.zeros(n, np.bool_)
        self.needless: F32 = np.zeros(n, np.float32)
        speed = p["speed"]
        self._ego_x, self._ego_v, self._ego_a = np.zeros(n, np.float32), speed.copy(), np.zeros(n, np.float32)
        stretch = np.float32((1 - _FREE_SPEED**-4) ** -0.5)
        self._driver_free = speed * np.float32(_FREE_SPEED)
        # A leader has a free road and keeps the convoy's speed; followers would drive faster.
        self._free = np.where(self._leads, speed[:, None], self._driver_free[:, None])
        # The gap to the peer of slot 0 is the driver's, that to slot 1 belongs to the peer of slot 0, and so on.
        headways = np.concatenate([p["driver_headway"][:, None], p["headway"]], axis=1)
        gaps = (STANDSTILL + speed[:, None] * headways) * stretch + LENGTH
        self._x = np.cumsum(gaps[:, :SLOTS], axis=1, dtype=np.float32)
        self._x[:, BEHIND] = -gaps[:, 1 + BEHIND]
        self._x[:, BESIDE] = p["beside_offset"]
        self._v = np.repeat(speed[:, None], SLOTS, axis=1)
        self._a = np.zeros_like(self._v)
        self._lateral = np.zeros_like(self._v)
        self._lateral[:, BESIDE] = p["beside_side"]
        self._braked_speed = p["event_speed"] * speed[:, None]
        self._response = (_DT / (_DT + p["actuator_lag"])).astype(np.float32)
        self._start_driver()
        self._start_radio()

    def _start_driver(self) -> None:
        """Which moment the base driver sees at each step: late, and while looking away the moment of looking away."""
        p = self._values
        begin = np.rint(p["inattention_start"] / _DT)
        end = begin + np.rint(p["inattention_length"] / _DT)
        t = np.arange(STEPS, dtype=np.float32)[:, None]
        seen = np.where((t >= begin) & (t < end), begin, t) - np.rint(p["driver_reaction"] / _DT)
        self._seen = np.maximum(seen, 0).astype(np.int64) * self.num_envs + np.arange(self.num_envs)
        self._gaps = np.empty((STEPS, self.num_envs), np.float32)
        self._leader_speeds = np.empty((STEPS, self.num_envs), np.float32)

    def _start_radio(self) -> None:
        """Constants of the channel, in 1/65536 where they are held against a 16-bit number of luck."""
        p, shape = self._values, (self.num_envs, SLOTS)

        def wide(name: str, factor: float = 1.0) -> F32:
            return np.repeat(np.float32(factor) * p[name][:, None], SLOTS, axis=1)

        self._sent = np.zeros((STEPS + 1, *shape, 4), np.float32)
        self._inbox = np.zeros((_DELAYS, *shape), np.int32)
        self._newest = np.zeros(shape, np.int32)
        self._bad = np.zeros(shape, np.float32)
        self._link = np.arange(shape[0] * SLOTS, dtype=np.int32).reshape(shape)
        self._phase = p["phase"] / np.float32(1000)
        jitter = np.maximum(wide("jitter"), np.float32(1))
        # A message taken `phase` before a decision is there at that decision, at the next or at the one after it.
        self._in_time = (p["phase"] - wide("latency")) * np.float32(_WORD) / jitter
        self._one_late = np.float32(100 * _WORD) / jitter + self._in_time
        self._turn_bad = wide("burst_enter", _WORD)
        self._stay_bad = np.float32(_WORD) * (1 - wide("burst_leave") - wide("burst_enter"))
        self._lost_near = wide("loss_near", _WORD)
        self._lost_far = wide("loss_far", _WORD / _LOSS_DISTANCE**2)
        self._lost_burst = wide("loss_burst", _WORD)
        # Sixteen fair coins have mean 8 and standard deviation 2.
        self._noise_x, self._noise_v, self._noise_a = (
            wide(f"noise_{name}", 0.5) for name in ("position", "speed", "acceleration")
        )
        self._kappa = wide("curvature")
        self._messages_sent = np.zeros(shape, np.int32)
        self._messages_lost = np.zeros(shape, np.int32)

    def _driver_command(self) -> F32:
        """(N,) m/s^2: what the base driver does with what it saw last."""
        t = self._t
        np.subtract(self._x[:, 0], self._ego_x + np.float32(LENGTH), out=self._gaps[t])
        self._leader_speeds[t] = self._v[:, 0]
        seen = self._seen[t]
        gap, leader = self._gaps.reshape(-1)[seen], self._leader_speeds.reshape(-1)[seen]
        command = idm(gap, self._ego_v, self._ego_v - leader, self._values["driver_headway"], self._driver_free)
        return np.maximum(command, _DRIVER_HARDEST)

    def _required(self) -> F32:
        """(N,) m/s^2: what the peer ahead that demands most requires of the ego, from the true state."""
        ahead = slice(0, AHEAD_SLOTS)
        room = self._x[:, ahead] - self._ego_x[:, None] - _ROOM
        required = required_deceleration(room, self._ego_v[:, None], self._v[:, ahead], self._a[:, ahead])
        demands: F32 = np.max(required * self._present[:, ahead], axis=1)
        return demands

    def _drive(self, command: F32) -> None:
        """Moves everybody on by one step; convoys that ended stay where they are."""
        dt = _DT * self._running
        acceleration = self._peers_command()
        self._ego_x, self._ego_v, self._ego_a = _move(
            self._ego_x, self._ego_v, self._ego_a + self._response * (command - self._ego_a), dt
        )
        self._x, self._v, self._a = _move(self._x, self._v, acceleration, np.repeat(dt[:, None], SLOTS, axis=1))

    def _peers_command(self) -> F32:
        """(N, 8) m/s^2: IDM behind the next vehicle, and what the scenario has each peer do."""
        p = self._values
        ahead_x, ahead_v = _next_slot(self._x), _next_slot(self._v)
        ahead_x[:, BEHIND], ahead_v[:, BEHIND] = self._ego_x, self._ego_v
        # Where the road is free nothing of the next slot, which is another convoy's or nobody's, may remain.
        gap = (ahead_x - self._x - np.float32(LENGTH)) * self._follows + self._free_road
        idle = idm(gap, self._v, (self._v - ahead_v) * self._follows, p["headway"], self._free)
        now = np.float32(self._t * STEP_S)
        active = (p["event_start"] <= now) & (now < p["event_end"])
        braking = p["event_deceleration"] * (self._v > self._braked_speed)
        scripted = np.float32(10) - active * (np.float32(10) + braking)
        return np.clip(np.minimum(idle, scripted), _PEER_HARDEST, np.float32(IDM_ACCELERATION))

    def _collisions(self) -> Mask:
        length = np.float32(LENGTH)
        hit = self._x[:, 0] - self._ego_x < length
        behind: Mask = self._present[:, BEHIND] & (self._ego_x - self._x[:, BEHIND] < length)
        return behind | hit

    def _send(self) -> None:
        """Every peer tells its state, and the channel decides which message arrives when.

        A two-state channel with distance-dependent loss in its good state. Luck is compared with thresholds, so that a
        convoy driven otherwise, whose distances differ, still meets the same numbers.
        """
        t, luck = self._t, self._luck[self._t]
        distance = self._x - self._ego_x[:, None]
        self._bad = (luck[1] < self._turn_bad + self._bad * self._stay_bad).astype(np.float32)
        threshold = np.maximum(self._lost_near + self._lost_far * (distance * distance), self._bad * self._lost_burst)
        arrives = luck[0] >= threshold
        # A message is numbered from 1; 0 stands for none.
        number = arrives * np.int32(t + 1)
        late = (luck[2] > self._in_time).astype(np.int32) + (luck[2] > self._one_late)
        for delay in range(_DELAYS):
            slot = self._inbox[(t + delay) % _DELAYS]
            np.maximum(slot, number * (late == delay), out=slot)
        self._messages_sent += self._present
        self._messages_lost += self._present & ~arrives
        self._write_messages(self._sent[t], np.bitwise_count(luck[4:8]).astype(np.float32) - np.float32(8))

    def _write_messages(self, out: F32, coins: F32) -> None:
        p = self._values
        np.add(self._x - self._v * self._phase, p["bias_x"] + coins[0] * self._noise_x, out=out[:, :, 0])
        np.add(self._lateral + p["bias_y"], coins[1] * self._noise_x, out=out[:, :, 1])
        np.add(self._v - self._a * self._phase, coins[2] * self._noise_v, out=out[:, :, 2])
        np.add(self._a, coins[3] * self._noise_a, out=out[:, :, 3])

    def _observe(self) -> dict[str, NDArray[Any]]:
        t, inbox = self._t, self._inbox[self._t % _DELAYS]
        np.maximum(self._newest, inbox, out=self._newest)
        inbox[...] = 0
        row = np.maximum(self._newest - 1, 0)
        # Four floats seen as one 16-byte element: a whole message moves at once.
        sent = self._sent.reshape(-1).view(np.complex128)
        message = sent[row * np.int32(self._link.size) + self._link].view(np.float32).reshape(*row.shape, 4)
        age = (np.float32(t) - row) * np.float32(100) + self._values["phase"]
        mask = self._present & (self._newest > 0) & (age <= STALE_MS)
        observation: dict[str, NDArray[Any]] = {
            EGO: self._observe_ego(mask),
            PEERS: self._observe_peers(message, age, mask.astype(np.float32)),
            PEER_MASK: mask.astype(np.int8),
        }
        return self._hold(observation)

    def _observe_ego(self, mask: Mask) -> F32:
        p = self._values
        heading = p["heading"] + p["curvature"] * self._ego_x
        heading -= np.float32(2 * np.pi) * np.rint(heading / np.float32(2 * np.pi))
        features = np.stack([self._ego_v, self._ego_a, heading, mask.sum(axis=1, dtype=np.float32)], axis=1)
        features /= np.array(EGO_SCALE, np.float32)
        return features

    def _observe_peers(self, message: F32, age: F32, present: F32) -> F32:
        """(N, 8, 6) peers in the ego's frame.

        A road of constant curvature k has, s metres on, turned by k s and come to (s - s (k s)^2 / 6, s k s / 2): the
        series of sine and cosine up to the second order.
        """
        along = message[:, :, 0] - self._ego_x[:, None]
        lateral, turn = message[:, :, 1], self._kappa * along
        forward = along * (1 - turn * turn * np.float32(1 / 6)) - lateral * turn
        left = along * turn * np.float32(0.5) + lateral
        features = (forward, left, message[:, :, 2] - self._ego_v[:, None], turn, message[:, :, 3], age)
        peers = np.empty((*age.shape, len(PEER_SCALE)), np.float32)
        for column, (feature, scale) in enumerate(zip(features, PEER_SCALE, strict=True)):
            np.multiply(feature, present * np.float32(1 / scale), out=peers[:, :, column])
        return peers

    def _hold(self, observation: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Convoys that ended keep the observation they ended with."""
        held = np.flatnonzero(self.collision)
        if len(held):
            newly = held[~self._held[held]]
            self._held[newly] = True
            for key, values in observation.items():
                last = self._last.setdefault(key, values.copy())
                last[newly] = values[newly]
                values[held] = last[held]
        return observation

    def _outcome(self, ended: Mask) -> dict[str, Any]:
        if not ended.any():
            return {}
        values = {
            "is_success": ~self.collision & (self.needless <= np.float32(NEEDLESS_LIMIT)),
            "collision": self.collision.copy(),
            "needless_braking": self.needless.copy(),
        }
        return {key: item for name, value in values.items() for key, item in ((name, value), (f"_{name}", ended))}

    @property
    def over(self) -> bool:
        """Whether the time of the episodes is over."""
        return self._t >= STEPS

    @property
    def message_loss(self) -> NDArray[np.float64]:
        """(N,) share of the messages sent so far that was lost, over all peers of a convoy."""
        lost, sent = self._messages_lost.sum(axis=1), self._messages_sent.sum(axis=1)
        share: NDArray[np.float64] = lost / np.maximum(sent, 1)
        return share


def _move(x: F32, v: F32, acceleration: F32, dt: F32) -> tuple[F32, F32, F32]:
    """Place, speed and acceleration after ``dt``; nobody drives backwards, and who stands does not decelerate."""
    faster = np.maximum(v + acceleration * dt, np.float32(0))
    moved = x + (v + faster) * (np.float32(0.5) * dt)
    return moved, faster, np.maximum(acceleration, -v * np.float32(1 / STEP_S))


def _next_slot(values: F32) -> F32:
    """(N, 8): the value of the vehicle in the next slot; that of the last slot means nothing."""
    ahead = np.empty_like(values)
    ahead.reshape(-1)[:-1] = values.reshape(-1)[1:]
    ahead[-1, -1] = 0
    return ahead


def _luck(scenarios: ScenarioSet) -> NDArray[np.uint16]:
    """(STEPS + 1, 8, N, 8 slots) uint16, each episode's from its own generator, before anything has moved."""
    words = (STEPS + 1) * _LUCK * SLOTS // 4
    raw = np.empty((len(scenarios), words), np.uint64)
    for row, generator in zip(raw, scenarios.generators(), strict=True):
        row[:] = generator.bit_generator.random_raw(words)
    # Eight slots of 16 bits are one element here, so that transposing moves 16 bytes at once.
    packed = raw.astype("<u8", copy=False).view("V16").reshape(len(scenarios), STEPS + 1, _LUCK)
    return np.ascontiguousarray(packed.transpose(1, 2, 0)).view("<u2").reshape(STEPS + 1, _LUCK, -1, SLOTS)


def _checked(actions: NDArray[Any], n: int) -> NDArray[np.int64]:
    actions = np.asarray(actions)
    if actions.shape != (n,) or actions.dtype.kind not in "iu" or ((actions < 0) | (actions >= len(ACTIONS))).any():
        raise InputError(
            f"actions of shape {actions.shape} and type {actions.dtype}",
            where="convoy",
            expected=f"({n},) whole numbers from 0 to {len(ACTIONS) - 1}",
        )
    return actions.astype(np.int64, copy=False)
