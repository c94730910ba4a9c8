"""Where episodes run: our convoys or a user's Gymnasium environment, by the name of either."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, cast

from quant.errors import InputError
from quant.policy.policy import Discrete
from quant.worlds.base import World
from quant.worlds.registry import CONVOY, WORLDS
from quant.worlds.scenarios import ScenarioSet

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

__all__ = ["CONVOY", "ConvoyWorld", "World", "load_world"]


@dataclass(frozen=True)
class ConvoyWorld(World):
    """Our convoys (:mod:`quant.worlds.convoy`)."""

    def draw(self, purpose: str, seed: int, counts: Mapping[str, int]) -> ScenarioSet:
        """See :meth:`World.draw` and :mod:`quant.worlds.convoy_scenarios`."""
        from quant.worlds import convoy_scenarios

        return convoy_scenarios.draw(purpose, seed, counts)

    def make(self, scenarios: ScenarioSet) -> VectorEnv[Any, Any, Any]:
        """A :class:`quant.worlds.convoy.ConvoyVectorEnv`."""
        from quant.worlds.convoy import ConvoyVectorEnv

        self.check(scenarios)
        return ConvoyVectorEnv(scenarios)


def load_world(spec: str, kwargs: Mapping[str, Any] | None = None) -> World:
    """The world of a specification.

    Args:
        spec: a name of `WORLDS`, or ``module:EnvId`` for an environment registered with Gymnasium by ``module``, or
            ``module:name`` for a class or function of that module that makes one.
        kwargs: passed to the environment; ``max_steps`` and ``batch`` are taken out (see
            :class:`quant.worlds.user.UserWorld`). The convoy takes none.

    Raises:
        InputError: the world cannot be loaded or breaks its contract.
    """
    given = dict(kwargs or {})
    if spec in WORLDS:
        return cast("World", resolve_name(WORLDS[spec])(given))
    from quant.worlds.user import load_user_world

    return load_user_world(spec, given)


def convoy_world(kwargs: Mapping[str, Any]) -> ConvoyWorld:
    """Our convoys.

    Raises:
        InputError: there are keyword arguments; it takes none.
    """
    from quant.worlds.convoy import ACTIONS, BOUNDS
    from quant.worlds.convoy_scenarios import COLUMNS, SLOTS, STEPS
    from quant.worlds.scenarios import SLICES

    if kwargs:
        raise InputError(
            f"the convoy world takes no {', '.join(kwargs)}", where="world keyword arguments", expected="none"
        )
    return ConvoyWorld(
        spec=CONVOY,
        kwargs="{}",
        action_space=Discrete(4),
        ego_size=4,
        peer_size=6,
        max_peers=SLOTS,
        slices=SLICES,
        columns=COLUMNS,
        max_steps=STEPS,
        batch=1024,
        action_names=ACTIONS,
        bounds=BOUNDS,
    )
