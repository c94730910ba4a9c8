"""A world to start from: one lane, some cars ahead, one of them brakes. Change it until it is the road you mean.

    quant run policy.zip --world world:Follow-v0
    quant run policy.zip --world world:Follow-v0 --world-kwargs '{"most": 5}'

What `quant` asks of an environment is all here: an observation of ``ego``, ``peers`` and ``peer_mask``, normalized as
the policy was trained; ``reset(seed=...)`` that decides everything about the episode; and ``info["is_success"]`` in its
last step. ``collision`` and ``needless_braking`` (m/s) are shown where they are given.

`quant` drives a policy that never brakes through it too: where that succeeds as well, the world proves nothing.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

SLOTS, STEP_S, LENGTH = 8, 0.1, 4.5
COMMANDS = (np.inf, -2.0, -4.5, -8.0)
"""m/s^2 an action lets the ego accelerate at most: Maintain, Caution, Brake, Emergency."""
RANGE = 150.0
"""m up to which the ego hears of the cars ahead; observation.toml says the same."""
REACTION_S = 0.4
"""After which a car does what the one ahead of it does."""
NEEDLESS = 2.0
"""m/s of braking for nothing that an episode may have and still succeed."""

Observation = dict[str, NDArray[Any]]


class Follow(gymnasium.Env[Observation, int]):
    """The ego follows cars, the first of which brakes: hard, and the ego's driver looks up too late; or gently.

    Where it brakes gently the driver copes, so that whatever the policy adds is needless; else what it does before.

    Observation: ``ego`` (4,) = speed/30, acceleration/10, heading/pi, peers/8; ``peers`` (8, 6) = rel_x/100, rel_y/100,
    rel_speed/30, rel_heading/pi, acceleration/10, age_ms/500; ``peer_mask`` (8,).

    Args:
        most: cars ahead; an episode has from one to as many.
        seconds: of an episode.
        late: seconds after which the driver sees that the car ahead brakes.
    """

    def __init__(self, most: int = 3, seconds: float = 12.0, late: float = 3.0) -> None:
        self.observation_space = spaces.Dict(
            {
                "ego": spaces.Box(-np.inf, np.inf, (4,), np.float32),
                "peers": spaces.Box(-np.inf, np.inf, (SLOTS, 6), np.float32),
                "peer_mask": spaces.MultiBinary(SLOTS),
            }
        )
        self.action_space = spaces.Discrete(len(COMMANDS))
        self._most, self._steps, self._late = most, round(seconds / STEP_S), late

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draws the cars and what the first of them will do; nothing is drawn later."""
        super().reset(seed=seed)
        cars = int(self.np_random.integers(1, self._most + 1))
        speed = self.np_random.uniform(14, 28)
        gaps = LENGTH + speed * self.np_random.uniform(0.6, 1.2, cars)
        # The ego is the first of the row, the car that brakes the last.
        self._x = np.append(0.0, np.cumsum(gaps))
        self._v = np.full(cars + 1, speed)
        self._a = np.zeros(cars + 1)
        self._gently = bool(self.np_random.random() < 0.5)
        self._brakes, self._lasts = self.np_random.uniform(*((0.5, 1.5) if self._gently else (5.5, 8.0))), np.inf
        if self._gently:
            self._lasts = self.np_random.uniform(1, 2)
        self._when = self.np_random.uniform(2, 4) + REACTION_S * np.arange(cars, -1, -1)
        self._free, self._needless, self._step = speed, 0.0, 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """A tenth of a second."""
        now = self._step * STEP_S
        driver = self._driver(now)
        braking = (now >= self._when) & (now < self._when + self._lasts)
        self._a = np.where(braking, -self._brakes, 0.0)
        self._a[0] = min(driver, COMMANDS[int(action)])
        if self._gently or now < self._when[-1]:
            self._needless += (driver - self._a[0]) * STEP_S
        faster = np.maximum(self._v + self._a * STEP_S, 0)
        self._x, self._v = self._x + (self._v + faster) / 2 * STEP_S, faster
        self._a[faster == 0] = 0
        self._step += 1
        collision = bool(self._x[1] - self._x[0] < LENGTH)
        over = self._step >= self._steps
        info: dict[str, Any] = {}
        if collision or over:
            success = not collision and self._needless <= NEEDLESS
            info = {"is_success": success, "collision": collision, "needless_braking": float(self._needless)}
        return self._observe(), -10.0 * collision, collision, over and not collision, info

    def _driver(self, now: float) -> float:
        """The Intelligent Driver Model (Treiber, Hennecke, Helbing 2000), from when the driver looks up."""
        if now < self._when[1] + (0 if self._gently else self._late):
            return 0.0
        speed, gap = float(self._v[0]), max(float(self._x[1] - self._x[0]) - LENGTH, 0.5)
        wanted = 2 + max(speed * (1.2 + (speed - self._v[1]) / (2 * np.sqrt(1.5 * 2.0))), 0)
        return float(max(1.5 * (1 - (speed / self._free) ** 4 - (wanted / gap) ** 2), -7))

    def _observe(self) -> Observation:
        away = self._x[1:] - self._x[0]
        count = int((away <= RANGE).sum())  # in a row: the nearest
        peers = np.zeros((SLOTS, 6), np.float32)
        peers[:count, 0] = away[:count] / 100
        peers[:count, 2] = (self._v[1:] - self._v[0])[:count] / 30
        peers[:count, 4] = self._a[1:][:count] / 10
        ego = np.array([self._v[0] / 30, self._a[0] / 10, 0, count / 8], np.float32)
        return {"ego": ego, "peers": peers, "peer_mask": (np.arange(SLOTS) < count).astype(np.int8)}


gymnasium.register("Follow-v0", entry_point="world:Follow")
