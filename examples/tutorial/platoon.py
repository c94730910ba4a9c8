"""The world of the tutorial: a car at the end of a platoon, whose driver keeps the pedal where it is.

The policy decides five times a second how hard to brake. Somebody ahead brakes hard at some time, and what is between
follows late; some platoons never brake at all.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

STEP_S, SECONDS, LENGTH = 0.2, 8.0, 4.5
PEERS = 8
BRAKING = (0.0, 3.0, 8.0)
"""m/s^2 of the actions Hold, Brake and Emergency."""
NEEDED = 0.5
"""m/s^2 below which braking is needless."""

Seen = dict[str, NDArray[Any]]


class Platoon(gymnasium.Env[Seen, np.int64]):
    """One to six cars ahead; an episode lasts 8 s, or until the ego runs into the last of them.

    Observation: ego (4,) = speed/30, acceleration/10, heading/pi, peers/8; peers (8, 6) = rel_x/100, rel_y/100,
    rel_speed/30, rel_heading/pi, acceleration/10, age_ms/500; peer_mask (8,). Success: no collision, and at most 2 m/s
    braked off while nobody ahead required it.
    """

    observation_space = spaces.Dict(
        {
            "ego": spaces.Box(-np.inf, np.inf, (4,), np.float32),
            "peers": spaces.Box(-np.inf, np.inf, (PEERS, 6), np.float32),
            "peer_mask": spaces.MultiBinary(PEERS),
        }
    )
    action_space = spaces.Discrete(len(BRAKING))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Seen, dict[str, Any]]:
        """Draws a platoon. The ego is the last entry of every array, the car that leads the first."""
        super().reset(seed=seed)
        rng = self.np_random
        n = int(rng.integers(1, 7))
        gaps = rng.uniform(20, 45, n)
        self._x = -np.append(0.0, np.cumsum(gaps + LENGTH))
        self._v = np.full(n + 1, rng.uniform(12, 25))
        self._a = np.zeros(n + 1)
        self._wanted = np.zeros(n + 1)
        self._brakes = int(rng.integers(n))
        self._begins = rng.uniform(1, 4) if rng.random() < 0.7 else np.inf
        self._hardest = rng.uniform(4, 7)
        self._step, self._needless = 0, 0.0
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        """Drives for 0.2 s."""
        pedal, needed = BRAKING[int(action)], self.required()
        self._wanted[self._brakes] = -self._hardest if self._step * STEP_S >= self._begins else 0.0
        # Each car behind the one that brakes does what the car before it did one step ago.
        follow = np.arange(self._brakes + 1, len(self._x) - 1)
        self._wanted[follow] = self._a[follow - 1]
        self._wanted[-1] = -pedal
        self._a = np.where(self._v > 0, self._wanted, 0.0)
        slower = np.maximum(self._v + self._a * STEP_S, 0.0)
        self._x, self._v = self._x + (self._v + slower) / 2 * STEP_S, slower
        if needed < NEEDED:
            self._needless += pedal * STEP_S
        self._step += 1
        collision = bool(self._x[-2] - self._x[-1] < LENGTH)
        over = self._step * STEP_S >= SECONDS
        # Braking too little or too much by one m/s^2 for a second costs a tenth.
        reward = -0.1 * STEP_S * abs(pedal - best(needed)) - 5.0 * collision
        info: dict[str, Any] = {}
        if collision or over:
            info = {
                "is_success": not collision and self._needless <= 2,
                "collision": collision,
                "needless_braking": self._needless,
            }
        return self._observe(), reward, collision, over and not collision, info

    def required(self) -> float:
        """m/s^2 that the ego needs not to run into where any car ahead comes to stand, at its braking now."""
        ahead = self._x[:-1] - self._x[-1] - LENGTH * np.arange(len(self._x) - 1, 0, -1)
        stops = ahead + self._v[:-1] ** 2 / (2 * np.maximum(-self._a[:-1], 0.5))
        braking = self._a[:-1] < -1.0
        needs = np.where(braking, self._v[-1] ** 2 / (2 * np.maximum(stops - 2.0, 0.5)), 0.0)
        return float(needs.max())

    def _observe(self) -> Seen:
        n = len(self._x) - 1
        peers = np.zeros((PEERS, 6), np.float32)
        peers[:n, 0] = (self._x[:-1] - self._x[-1]) / 100
        peers[:n, 2] = (self._v[:-1] - self._v[-1]) / 30
        peers[:n, 4] = self._a[:-1] / 10
        ego = np.array([self._v[-1] / 30, self._a[-1] / 10, 0, n / 8], np.float32)
        return {"ego": ego, "peers": peers, "peer_mask": (np.arange(PEERS) < n).astype(np.int8)}


def best(needed: float) -> float:
    """The gentlest action that is enough, m/s^2."""
    return 0.0 if needed < NEEDED else next((pedal for pedal in BRAKING[1:] if pedal >= needed), BRAKING[-1])


gymnasium.register("Platoon-v0", entry_point="platoon:Platoon")
