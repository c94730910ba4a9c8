"""A user's own world: a single lane, no noise, and a brake pedal from 0 to 1.

Run a policy of this shape (ego 5, peers 8 x 6, Box(0, 1, (1,))) through it from this folder:

    quant run my_policy.zip --world single_lane:SingleLane-v0 --world-kwargs '{"cars": 3}'

What `quant` needs of an environment is here: the three keys of the observation, ``reset(seed=...)`` that decides the
whole episode, and ``info["is_success"]`` at the end. ``collision`` and ``needless_braking`` are optional and reported
if given.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

STEP_S, LENGTH, HARDEST = 0.1, 4.5, 8.0
PEERS = 8


class SingleLane(gymnasium.Env[dict[str, np.ndarray[Any, Any]], np.ndarray[Any, Any]]):
    """The ego rolls at constant speed behind ``cars`` cars, the first of which brakes to a stop at a random time.

    Observation: ego (5,) = speed/30, acceleration/10, heading/pi, peers/8, lowest peer acceleration/10; peers (8, 6) =
    rel_x/100, rel_y/100, rel_speed/30, rel_heading/pi, acceleration/10, age_ms/500; peer_mask (8,).
    Action: (1,), the share of 8 m/s^2 to brake with. Success: no collision, and less than 2 m/s braked off before the
    first car brakes.

    Args:
        cars: 1 to 8.
        seconds: length of an episode.
    """

    def __init__(self, cars: int = 2, seconds: float = 12.0) -> None:
        self.observation_space = spaces.Dict(
            {
                "ego": spaces.Box(-np.inf, np.inf, (5,), np.float32),
                "peers": spaces.Box(-np.inf, np.inf, (PEERS, 6), np.float32),
                "peer_mask": spaces.MultiBinary(PEERS),
            }
        )
        self.action_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self._cars, self._steps = cars, round(seconds / STEP_S)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
        """Places the cars 25 to 40 m apart; the last one is the ego."""
        super().reset(seed=seed)
        gaps = self.np_random.uniform(25, 40, self._cars)
        self._x = np.append(0.0, -np.cumsum(gaps)) - LENGTH * np.arange(self._cars + 1)
        self._v = np.full(self._cars + 1, self.np_random.uniform(12, 25))
        self._a = np.zeros(self._cars + 1)
        self._brake_at = self.np_random.uniform(2, 6)
        self._t, self._needless = 0, 0.0
        return self._observe(), {}

    def step(
        self, action: np.ndarray[Any, Any]
    ) -> tuple[dict[str, np.ndarray[Any, Any]], float, bool, bool, dict[str, Any]]:
        """Brakes for 0.1 s. Each other car copies the one before it with a delay."""
        braking = self._t * STEP_S >= self._brake_at
        pedal = float(np.clip(action[0], 0, 1)) * HARDEST
        wanted = np.append(-6.0 if braking else 0.0, self._a[:-1])
        wanted[-1] = -pedal
        self._a = np.where(self._v > 0, wanted, 0.0)
        faster = np.maximum(self._v + self._a * STEP_S, 0)
        self._x, self._v = self._x + (self._v + faster) / 2 * STEP_S, faster
        if not braking:
            self._needless += pedal * STEP_S
        self._t += 1
        collision = bool(self._x[-2] - self._x[-1] < LENGTH)
        over = self._t >= self._steps
        info: dict[str, Any] = {}
        if collision or over:
            info = {
                "is_success": not collision and self._needless < 2,
                "collision": collision,
                "needless_braking": self._needless,
            }
        return self._observe(), -10.0 * collision - 0.01 * pedal, collision, over and not collision, info

    def _observe(self) -> dict[str, np.ndarray[Any, Any]]:
        ego_v, n = self._v[-1], self._cars
        peers = np.zeros((PEERS, 6), np.float32)
        peers[:n, 0] = (self._x[:-1] - self._x[-1]) / 100
        peers[:n, 2] = (self._v[:-1] - ego_v) / 30
        peers[:n, 4] = self._a[:-1] / 10
        ego = np.array([ego_v / 30, self._a[-1] / 10, 0, n / 8, self._a[:-1].min() / 10], np.float32)
        return {"ego": ego, "peers": peers, "peer_mask": (np.arange(PEERS) < n).astype(np.int8)}


gymnasium.register("SingleLane-v0", entry_point="single_lane:SingleLane")
