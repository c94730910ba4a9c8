"""A user's own Gymnasium environment as a world.

What an environment has to bring:

- a Dict observation with ``ego`` (E,), ``peers`` (P, F) and ``peer_mask`` (P,), and a Discrete action space that starts
  at 0 or a one-dimensional Box with finite bounds;
- ``reset(seed=...)`` that makes the episode depend on the seed alone;
- ``info["is_success"]``, a bool or 0 or 1, in the step that terminates or truncates, Stable-Baselines3's convention. If
  it also gives ``collision`` (the same) and ``needless_braking`` (m/s), they are reported.

Each environment runs one episode and is then left alone: its autoreset is answered with the last observation.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from quant.errors import InputError, did_you_mean
from quant.observation.observations import EGO, PEER_MASK, PEERS
from quant.observation.resolve import Bounds
from quant.policy.policy import ActionSpace, Box, Discrete
from quant.policy.spaces import UNBOUNDED
from quant.worlds.base import World
from quant.worlds.registry import EXPECTED, WORLDS
from quant.worlds.scenarios import NOMINAL, ScenarioSet, canonical, empty_set

MAX_STEPS = 10_000
"""Decisions after which an episode that has not ended is an error, unless ``max_steps`` is given."""
BATCH = 64
"""Environments that exist at once, unless ``batch`` is given: 1 for a simulator that can run only once."""

Env = gymnasium.Env[Any, Any]
Seen = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class UserWorld(World):
    """An environment of ``module:EnvId``; each scenario is a seed, and its only slice is ``nominal``."""

    def draw(self, purpose: str, seed: int, counts: Mapping[str, int]) -> ScenarioSet:
        """See :meth:`World.draw`. What the slices of other worlds ask for is refused unless it is 0."""
        for name, count in counts.items():
            if name not in self.slices and count != 0:
                raise InputError(f"no slice {name!r} here", where=self.spec, expected=f"only {', '.join(self.slices)}")
        wanted = {name: count for name, count in counts.items() if name in self.slices}
        return empty_set(self.spec, self.kwargs, purpose, seed, wanted)

    def make(self, scenarios: ScenarioSet) -> VectorEnv[Any, Any, Any]:
        """Gymnasium's ``SyncVectorEnv`` over one guarded environment for each scenario."""
        self.check(scenarios)
        build = _builder(self.spec, _environment_kwargs(self.kwargs))
        makers = [lambda: OneEpisode(build(), self.spec)] * len(scenarios)
        try:
            return SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)
        except InputError:
            raise
        except Exception as error:
            raise _broken(self.spec, "could not be made", error) from error


def load_user_world(spec: str, kwargs: Mapping[str, Any]) -> UserWorld:
    """Imports the module, makes one environment, and reads its spaces.

    Args:
        spec: ``module:EnvId`` or ``module:name``.
        kwargs: for the environment, save ``max_steps`` (:data:`MAX_STEPS`) and ``batch`` (:data:`BATCH`), ours.

    Raises:
        InputError: no such module or environment, it cannot be made, or its spaces are not those of a set policy.
    """
    text = _json(kwargs, spec)
    env = _build(spec, _environment_kwargs(text))
    try:
        ego, peers = _observation_shapes(env.observation_space, spec)
        bounds = _observation_bounds(env.observation_space)
        actions = _actions(env.action_space, spec)
    finally:
        env.close()
    return UserWorld(
        spec=spec,
        kwargs=text,
        action_space=actions,
        ego_size=ego,
        peer_size=peers[1],
        max_peers=peers[0],
        slices=(NOMINAL,),
        columns=(),
        max_steps=_positive(kwargs, "max_steps", MAX_STEPS),
        batch=_positive(kwargs, "batch", BATCH),
        bounds=bounds,
    )


class OneEpisode(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Runs one episode, checks what comes out, and then holds still.

    Of ``info`` it hands on the outcome alone, checked: Gymnasium's vector environments cast what one environment says
    to the type of what another has said, and whatever is no number then counts as true.

    Gymnasium's vector environments reset what ended; the reset after an end is answered with the last observation, and
    so is every step after it, so that no second episode is run for nothing.
    """

    def __init__(self, env: Env, where: str) -> None:
        super().__init__(env)
        self._where = where
        self._ended = False
        self._seed: int | None = None
        self._step = 0
        self._last: Seen = {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts the episode of ``seed``; without one, after the end, changes nothing."""
        if self._ended and seed is None:
            return self._last, {}
        self._ended, self._seed, self._step = False, seed, 0
        try:
            observation, _ = self.env.reset(seed=seed, options=options)
        except Exception as error:
            raise _broken(self._place(), "reset failed", error) from error
        return self._checked(observation), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step, or nothing after the end."""
        if self._ended:
            return self._last, 0.0, False, False, {}
        self._step += 1
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            raise _broken(self._place(), "step failed", error) from error
        if not np.isfinite(float(reward)):
            raise InputError(f"the reward is {reward}", where=self._place(), expected="a finite number")
        self._ended = bool(terminated or truncated)
        outcome = self._outcome(info) if self._ended else {}
        return self._checked(observation), float(reward), bool(terminated), bool(truncated), outcome

    def _place(self) -> str:
        return f"{self._where} seed {self._seed} step {self._step}"

    def _outcome(self, info: Mapping[str, Any]) -> dict[str, bool | float]:
        told: dict[str, bool | float] = {}
        for name in ("is_success", "collision"):
            if name in info:
                told[name] = self._number(info, name, "True or False, or 1 or 0", lambda value: value in (0, 1)) == 1
        if "needless_braking" in info:
            told["needless_braking"] = self._number(info, "needless_braking", "a finite number of m/s", np.isfinite)
        return told

    def _number(self, info: Mapping[str, Any], name: str, expected: str, is_right: Callable[[Any], Any]) -> float:
        value = np.asarray(info[name])
        if value.shape or value.dtype.kind not in "biuf" or not is_right(value.item()):
            raise InputError(
                f"info[{name!r}] is {str(info[name])[:80]!r}",
                where=self._place(),
                expected=expected,
                hint=None if name == "is_success" else "leave it out if the environment does not know it",
            )
        return float(value)

    def _checked(self, observation: Any) -> Seen:
        spaces = self.observation_space
        assert isinstance(spaces, gymnasium.spaces.Dict)
        if not isinstance(observation, Mapping):
            raise InputError(
                f"the observation is a {type(observation).__name__}", where=self._place(), expected="a dict"
            )
        self._last = {}
        for key, space in spaces.spaces.items():
            if key not in observation:
                raise InputError(
                    f"the observation has no {key!r}", where=self._place(), expected=f"{', '.join(spaces.spaces)}"
                )
            value = np.asarray(observation[key])
            if value.shape != space.shape:
                raise InputError(
                    f"{key} has shape {value.shape}",
                    where=self._place(),
                    expected=f"shape {space.shape}, as its space says",
                )
            if space.dtype is not None and not np.can_cast(value.dtype, space.dtype, "same_kind"):
                raise InputError(
                    f"{key} is of {value.dtype}", where=self._place(), expected=f"{space.dtype}, as its space says"
                )
            self._last[key] = value
        self._check_finite()
        return self._last

    def _check_finite(self) -> None:
        present = self._last[PEER_MASK].astype(np.bool_)
        for key, values in ((EGO, self._last[EGO]), (PEERS, self._last[PEERS][present])):
            if not np.isfinite(values).all():
                raise InputError(f"{key} holds NaN or infinity", where=self._place(), expected="finite numbers")


def _json(kwargs: Mapping[str, Any], where: str) -> str:
    try:
        return canonical(kwargs)
    except TypeError as error:
        raise InputError("keyword arguments that are not JSON", where=where, hint=str(error)) from error


def _environment_kwargs(text: str) -> dict[str, Any]:
    import json

    kwargs: dict[str, Any] = json.loads(text)
    return {name: value for name, value in kwargs.items() if name not in ("max_steps", "batch")}


def _positive(kwargs: Mapping[str, Any], name: str, default: int) -> int:
    value = kwargs.get(name, default)
    if type(value) is not int or value < 1:
        raise InputError(f"{name} is {value!r}", where="world keyword arguments", expected="a whole number, 1 or more")
    return value


def _build(spec: str, kwargs: Mapping[str, Any]) -> Env:
    build = _builder(spec, kwargs)
    try:
        env = build()
    except Exception as error:
        raise _broken(spec, "could not be made", error) from error
    if not isinstance(env, gymnasium.Env):
        raise InputError(f"{spec} makes a {type(env).__name__}", where=spec, expected="a gymnasium.Env")
    return env


def _builder(spec: str, kwargs: Mapping[str, Any]) -> Callable[[], Env]:
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        near = did_you_mean(spec, WORLDS)
        raise InputError(f"{spec!r} is not a world", where="--world", expected=EXPECTED, hint=near)
    module = _import(module_name)
    if name in gymnasium.registry:
        # Gymnasium's own checker complains about NaN by a warning; ours is an error.
        return lambda: gymnasium.make(name, disable_env_checker=True, **kwargs)
    made = getattr(module, name, None)
    if not callable(made):
        known = sorted(key for key, one in gymnasium.registry.items() if module_name in str(one.entry_point))
        raise InputError(
            f"{module_name} has no environment {name!r}",
            where=spec,
            expected="an id it registers with Gymnasium, or a class or function of it",
            hint=did_you_mean(name, known) or (f"it registers {', '.join(known)}" if known else "it registers none"),
        )
    return lambda: made(**kwargs)


def _import(name: str) -> Any:
    # A user's module usually lies in the folder the command is called in, which a console script does not search.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"no module {error.name!r}",
            where=f"--world {name}",
            hint=did_you_mean(name, (path.stem for path in Path().glob("*.py")))
            or "install it, or run from the folder it lies in",
        ) from error
    except Exception as error:
        raise _broken(f"--world {name}", "importing it failed", error) from error


def _broken(where: str, what: str, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    return InputError(
        f"{what}: {type(error).__name__}: {error}",
        where=where,
        hint="the fault is in the environment's own code: make it in Python to see where",
    )


def _observation_shapes(space: Any, where: str) -> tuple[int, tuple[int, int]]:
    keys = (EGO, PEERS, PEER_MASK)
    if not isinstance(space, gymnasium.spaces.Dict) or any(key not in space.spaces for key in keys):
        found = sorted(space.spaces) if isinstance(space, gymnasium.spaces.Dict) else type(space).__name__
        raise InputError(
            f"its observation is {found}", where=where, expected="a Dict with ego (E,), peers (P, F), peer_mask (P,)"
        )
    ego, peers, mask = (space.spaces[key].shape or () for key in keys)
    if len(ego) != 1 or len(peers) != 2 or mask != peers[:1] or 0 in (*ego, *peers):
        raise InputError(
            f"ego {ego}, peers {peers}, peer_mask {mask}",
            where=where,
            expected="ego (E,), peers (P, F), peer_mask (P,)",
        )
    return ego[0], (peers[0], peers[1])


def _observation_bounds(space: Any) -> Bounds | None:
    """Of ego and of any peer, where both are Boxes."""
    ego, peers = (space.spaces[key] for key in (EGO, PEERS))
    if not all(isinstance(one, gymnasium.spaces.Box) for one in (ego, peers)):
        return None
    ends = (ego.low, ego.high, peers.low.min(axis=0), peers.high.max(axis=0))
    # A type's own ends are how a Box without bounds is often written.
    each = (np.where(np.abs(values) < UNBOUNDED, values, np.copysign(np.inf, values)) for values in ends)
    return Bounds(*(tuple(map(float, values)) for values in each))


def _actions(space: Any, where: str) -> ActionSpace:
    if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
        return Discrete(int(space.n))
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1 and space.is_bounded("both"):
        return Box(tuple(map(float, space.low)), tuple(map(float, space.high)))
    raise InputError(
        f"its action space is {space}", where=where, expected="Discrete from 0, or a Box (A,) with finite bounds"
    )
