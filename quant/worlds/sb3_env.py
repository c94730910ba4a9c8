"""The convoy world as a Stable-Baselines3 ``VecEnv``, for training alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from quant.worlds.convoy import ConvoyVectorEnv
from quant.worlds.scenarios import LOSSY, NOMINAL
from quant.worlds.world import World


class ConvoySB3Env(VecEnv):  # type: ignore[misc]
    """Convoys in lockstep; when their time is over all start again with scenarios never used before.

    A convoy that collided is done at every further step, with reward 0: to PPO those are episodes of one step that
    nothing follows, which teach it nothing.

    Args:
        world: the convoy world.
        seed: of the training scenarios.
        n: convoys; a third of them lossy.
    """

    def __init__(self, world: World, seed: int, n: int) -> None:
        self._world, self._seed, self._n = world, seed, n
        self._drawn = 0
        self._env: ConvoyVectorEnv = world.make(self._draw())  # type: ignore[assignment]
        self._actions: NDArray[np.int64] = np.zeros(n, np.int64)
        super().__init__(n, self._env.single_observation_space, self._env.single_action_space)

    def reset(self) -> dict[str, NDArray[Any]]:
        """Starts fresh convoys."""
        observations, _ = self._env.reset(options={"scenarios": self._draw()})
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Takes the actions."""
        self._actions = actions.astype(np.int64)

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Drives one step; the end of time is an end, as an episode has nothing after it."""
        observations, rewards, terminations, truncations, _ = self._env.step(self._actions)
        done = terminations | truncations
        if self._env.over:
            observations = self.reset()
        return observations, rewards.astype(np.float32), done, [{} for _ in range(self._n)]

    def close(self) -> None:
        """Nothing is held open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Only what Stable-Baselines3 asks for: ``render_mode``, which is none."""
        return [getattr(self._env, attr_name, None)] * self._n

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Convoys have nothing to set."""
        raise NotImplementedError(attr_name)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Convoys have no methods of their own."""
        raise NotImplementedError(method_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No convoy is wrapped."""
        return [False] * self._n

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """The seed of the scenarios was given at the start; Stable-Baselines3's is the same one."""
        return [None] * self._n

    def _draw(self) -> Any:
        """The next scenarios of an endless draw."""
        lossy = self._n // 3
        counts = {NOMINAL: self._n - lossy, LOSSY: lossy}
        whole = self._world.draw("train", self._seed + 1_000_003 * self._drawn, counts)
        self._drawn += 1
        return whole
