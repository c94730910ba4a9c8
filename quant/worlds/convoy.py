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
from quant.observation.observations import EGO, F32, PEER_MASK, PEERS, Mask
from quant.observation.resolve import Bounds
from quant.worlds.convoy_course import (
    DELAYS,
    FREE_SPEED,
    Course,
    course,
    free_speeds,
    leads,
    luck,
    scripted,
    start,
    values_of,
)
from quant.worlds.convoy_scenarios import AHEAD_SLOTS, BEHIND, BESIDE, EGO_SCALE, PEER_SCALE, SLOTS, STEP_S, STEPS
from quant.worlds.kinematics import LENGTH, STANDSTILL, idm, move, required_deceleration
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

BOUNDS = Bounds(
    ego_low=(0.0, -0.85, -1.0, 0.0),
    ego_high=(1.1, 0.2, 1.0, 1.0),
    peers_low=(-2.2, -1.2, -1.15, -0.17, -1.1, 0.0),
    peers_high=(6.0, 1.2, 1.15, 0.17, 0.45, 1.0),
)
"""How far what is observed goes. Noise has no end; in 12,000 episodes nothing came near an end it does not keep."""

STALE_MS = 500.0
"""A peer whose newest message is older is not observed."""

COLLISION_REWARD, NEEDLESS_REWARD, LACKING_REWARD = -10.0, -2.0, -0.2

_DRIVER_HARDEST = np.float32(-7.0)
_LOSS_DISTANCE = 150.0
_WORD = 65536.0
_KEPT = 8
"""Messages kept of each peer: of the last five decisions one may be observed (:data:`STALE_MS`), and a power of two."""
_DT = np.float32(STEP_S)
_ROOM = ((np.arange(AHEAD_SLOTS) + 1) * LENGTH + np.arange(AHEAD_SLOTS) * STANDSTILL + CLEARANCE).astype(np.float32)
"""m between the ego's and a peer's places that the vehicles up to it and the clearance take up."""


def observation_space() -> gymnasium.spaces.Dict:
    """The space of one convoy's observation."""
    box = gymnasium.spaces.Box
    return gymnasium.spaces.Dict(
        {
            EGO: box(np.array(BOUNDS.ego_low, np.float32), np.array(BOUNDS.ego_high, np.float32)),
            PEERS: box(_of_each_slot(BOUNDS.peers_low), _of_each_slot(BOUNDS.peers_high)),
            PEER_MASK: gymnasium.spaces.MultiBinary(SLOTS),
        }
    )


def _of_each_slot(ends: tuple[float, ...]) -> F32:
    return np.tile(np.array(ends, np.float32), (SLOTS, 1))


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
        self._values = values = values_of(scenarios)
        self._commands = np.array(COMMANDS, np.float32)
        self._leads = leads(values["ahead"]).T
        present = np.arange(SLOTS)[:, None] < values["ahead"]
        present[BEHIND], present[BESIDE] = values["behind"] > 0, values["beside"] > 0
        self._present: Mask = present.T
        self._luck = luck(scenarios)
        self._course: Course | None = None

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
        self._driver_free = speed * np.float32(FREE_SPEED)
        self._free = free_speeds(p).T
        # (N, 8), and in memory slot by slot: a value for each convoy then meets long rows.
        self._x, self._v = (one.T for one in start(p))
        self._a = np.zeros_like(self._v)
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
        """What messages need; slots come before convoys here."""
        p, shape = self._values, (SLOTS, self.num_envs)
        self._lateral = np.zeros(shape, np.float32)
        self._lateral[BESIDE] = p["beside_side"]
        self._lateral += p["bias_y"].T
        self._sent = np.zeros((_KEPT, *shape, 4), np.float32)
        self._inbox = np.zeros((DELAYS, *shape), np.uint8)
        self._newest = np.zeros(shape, np.uint8)
        self._link = np.arange(shape[0] * shape[1]).reshape(shape)
        self._phase = p["phase"].T / np.float32(1000)
        self._lost_near = np.float32(_WORD) * p["loss_near"]
        self._lost_far = np.float32(_WORD / _LOSS_DISTANCE**2) * p["loss_far"]
        self._messages_lost = np.zeros(shape, np.uint8)

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
        behind = move(self._x[:, BEHIND], self._v[:, BEHIND], self._behind_command(), dt)
        self._ego_x, self._ego_v, self._ego_a = move(
            self._ego_x, self._ego_v, self._ego_a + self._response * (command - self._ego_a), dt
        )
        others = course(self._scenarios) if self._course is None else self._course
        self._course = others
        places = (others.x, others.v, others.a)
        self._x, self._v, self._a = (
            self._joined(moved[self._t + 1], last, before)
            for moved, last, before in zip(places, behind, (self._x, self._v, self._a), strict=True)
        )

    def _joined(self, others: F32, behind: F32, before: F32) -> F32:
        """(N, 8) what the others of the course and the peer behind have come to; before, where a convoy has ended."""
        joined = others.copy()
        joined[BEHIND] = behind
        np.copyto(joined, before.T, where=self.collision)
        return joined.T

    def _behind_command(self) -> F32:
        """(N,) m/s^2: IDM behind the ego, and what the scenario has the peer behind do."""
        p, x, v = self._values, self._x[:, BEHIND], self._v[:, BEHIND]
        gap = self._ego_x - x - np.float32(LENGTH)
        idle = idm(gap, v, v - self._ego_v, p["headway"][:, BEHIND], self._free[:, BEHIND])
        return scripted(p, BEHIND, self._t, idle, v, self._braked_speed[:, BEHIND])

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
        t, luck = self._t, self._luck
        distance = self._x.T - self._ego_x
        threshold = np.maximum(self._lost_near + self._lost_far * (distance * distance), luck.burst[t])
        arrives = luck.loss[t] >= threshold
        for delay in range(DELAYS):
            slot = self._inbox[(t + delay) % DELAYS]
            # A message is numbered from 1; 0 stands for none.
            np.maximum(slot, (arrives & (luck.late[t] == delay)).view(np.uint8) * np.uint8(t + 1), out=slot)
        self._messages_lost += (~arrives).view(np.uint8)
        self._write_messages(self._sent[t % _KEPT], luck.noise[t])

    def _write_messages(self, out: F32, noise: F32) -> None:
        x, v, a = self._x.T, self._v.T, self._a.T
        np.add(x - v * self._phase, noise[0], out=out[:, :, 0])
        np.add(self._lateral, noise[1], out=out[:, :, 1])
        np.add(v - a * self._phase, noise[2], out=out[:, :, 2])
        np.add(a, noise[3], out=out[:, :, 3])

    def _observe(self) -> dict[str, NDArray[Any]]:
        t, inbox = self._t, self._inbox[self._t % DELAYS]
        np.maximum(self._newest, inbox, out=self._newest)
        inbox[...] = 0
        row = np.maximum(self._newest, np.uint8(1)) - np.uint8(1)
        # Four floats seen as one 16-byte element: a whole message moves at once.
        sent = self._sent.reshape(-1).view(np.complex128)
        place = (row % np.uint8(_KEPT)).astype(np.intp) * self._link.size + self._link
        message = sent.take(place).view(np.float32).reshape(*row.shape, 4)
        age = (np.uint8(t) - row) * np.float32(100) + self._values["phase"].T
        mask = self._present.T & (self._newest > 0) & (age <= np.float32(STALE_MS))
        observation: dict[str, NDArray[Any]] = {
            EGO: self._observe_ego(mask),
            PEERS: self._observe_peers(message, age, mask.astype(np.float32)),
            PEER_MASK: mask.T.astype(np.int8),
        }
        return self._hold(observation)

    def _observe_ego(self, mask: Mask) -> F32:
        p = self._values
        heading = p["heading"] + p["curvature"] * self._ego_x
        heading -= np.float32(2 * np.pi) * np.rint(heading / np.float32(2 * np.pi))
        features = np.stack([self._ego_v, self._ego_a, heading, mask.sum(axis=0, dtype=np.float32)])
        features /= np.array(EGO_SCALE, np.float32)[:, None]
        return features.T

    def _observe_peers(self, message: F32, age: F32, present: F32) -> F32:
        """(N, 8, 6) peers in the ego's frame, in memory feature by feature.

        A road of constant curvature k has, s metres on, turned by k s and come to (s - s (k s)^2 / 6, s k s / 2): the
        series of sine and cosine up to the second order.
        """
        along = message[:, :, 0] - self._ego_x
        lateral, turn = message[:, :, 1], self._values["curvature"] * along
        forward = along * (1 - turn * turn * np.float32(1 / 6)) - lateral * turn
        left = along * turn * np.float32(0.5) + lateral
        features = (forward, left, message[:, :, 2] - self._ego_v, turn, message[:, :, 3], age)
        peers = np.empty((len(PEER_SCALE), *age.shape), np.float32)
        for out, feature, scale in zip(peers, features, PEER_SCALE, strict=True):
            np.multiply(feature, present * np.float32(1 / scale), out=out)
        return peers.T

    def _hold(self, observation: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Convoys that ended keep the observation they ended with."""
        newly = self.collision & ~self._held
        for key, values in observation.items():
            if key in self._last:
                np.copyto(values.T, self._last[key].T, where=self._held)
            if newly.any():
                last = self._last.setdefault(key, values.copy(order="K"))
                np.copyto(last.T, values.T, where=newly)
        self._held |= newly
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
        lost = (self._messages_lost.T * self._present).sum(axis=1)
        share: NDArray[np.float64] = lost / ((self._t + 1) * self._present.sum(axis=1))
        return share


def _checked(actions: NDArray[Any], n: int) -> NDArray[np.int64]:
    actions = np.asarray(actions)
    if actions.shape != (n,) or actions.dtype.kind not in "iu" or ((actions < 0) | (actions >= len(ACTIONS))).any():
        raise InputError(
            f"actions of shape {actions.shape} and type {actions.dtype}",
            where="convoy",
            expected=f"({n},) whole numbers from 0 to {len(ACTIONS) - 1}",
        )
    return actions.astype(np.int64, copy=False)
