"""What every world is: a description that travels to workers, draws scenarios and makes environments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quant.errors import InputError
from quant.observation.resolve import Bounds
from quant.policy.policy import ActionSpace, Discrete, Policy
from quant.worlds.scenarios import Column, ScenarioSet

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv


@dataclass(frozen=True)
class World(ABC):
    """A world as data: what it is made from, what a policy sees in it, and what it can do.

    Attributes:
        spec: a name of `quant.worlds.registry.WORLDS`, or ``module:EnvId``.
        kwargs: keyword arguments as canonical JSON.
        action_space: what the world takes.
        ego_size, peer_size, max_peers: E, F and P of its observations.
        slices: the slices it can draw.
        columns: the parameters its scenarios carry.
        max_steps: an episode that has not ended after so many decisions is an error.
        batch: episodes that run at once.
        action_names: what each action of a Discrete is called; empty where nobody says.
        bounds: of its observation space; None where it says nothing.
    """

    spec: str
    kwargs: str
    action_space: ActionSpace
    ego_size: int
    peer_size: int
    max_peers: int
    slices: tuple[str, ...]
    columns: tuple[Column, ...]
    max_steps: int
    batch: int
    action_names: tuple[str, ...] = ()
    bounds: Bounds | None = None

    @abstractmethod
    def draw(self, purpose: str, seed: int, counts: Mapping[str, int]) -> ScenarioSet:
        """Draws scenarios, ``counts`` of each slice.

        Args:
            purpose: one of :data:`quant.worlds.scenarios.PURPOSES`; purposes share no episode.
            seed: of the set.
            counts: as ``{"nominal": 4000, "lossy": 2000}``.

        Raises:
            InputError: an unknown purpose, a slice the world has not, or nothing to draw.
        """

    @abstractmethod
    def make(self, scenarios: ScenarioSet) -> VectorEnv[Any, Any, Any]:
        """One environment for each scenario, in order, to be reset with the list of ``scenarios.episode_seeds``.

        Raises:
            InputError: scenarios of another world, or an environment that cannot be made.
        """

    def read(self, text: str, where: object = "scenarios") -> ScenarioSet:
        """Scenarios from their JSON, checked one by one.

        Raises:
            InputError: a damaged file, or one of another world.
        """
        scenarios = ScenarioSet.from_json(text, self.columns, where)
        self.check(scenarios, where)
        return scenarios

    def check(self, scenarios: ScenarioSet, where: object = "scenarios") -> None:
        """Sees that ``scenarios`` are this world's.

        Raises:
            InputError: they are another world's.
        """
        if (scenarios.world, scenarios.world_kwargs) != (self.spec, self.kwargs):
            raise InputError(
                f"scenarios of {scenarios.world} {scenarios.world_kwargs}",
                where=where,
                expected=f"scenarios of {self.spec} {self.kwargs}",
                hint="draw them again for this world",
            )

    def check_fits(self, policy: Policy) -> None:
        """Sees that ``policy`` can drive here.

        Raises:
            InputError: it has another observation or action space.
        """
        pairs = {
            "ego features": (policy.ego_size, self.ego_size),
            "features of a peer": (policy.peer_size, self.peer_size),
            "peer slots": (policy.max_peers, self.max_peers),
            "action space": (_words(policy.action_space), _words(self.action_space)),
        }
        for name, (has, needs) in pairs.items():
            if has != needs:
                raise InputError(
                    f"the policy does not fit the world: {name} {has}",
                    where=self.spec,
                    expected=f"{name} {needs}",
                    hint="give the world the policy was trained in: --world module:EnvId",
                )


def _words(space: ActionSpace) -> str:
    if isinstance(space, Discrete):
        return f"Discrete({space.n})"
    return f"Box({list(space.low)}, {list(space.high)})"
