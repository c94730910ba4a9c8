"""What a run is made from: the policy, the recorded drives and the world, found to fit together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quant.dataset import Recording, read_drive
from quant.dataset.build import check_recordings, held_to_contract
from quant.errors import InputError
from quant.observation.findings import Finding, check_names
from quant.observation.storage import read_given
from quant.policy import Policy, load_policy
from quant.policy.spaces import parse_action_space
from quant.runs.settings import Settings
from quant.worlds.world import World, load_world

DEFAULT_EPISODES = {"nominal": 4000, "lossy": 2000}
"""Scenarios a candidate is judged on: with pairing, enough to see a drop of one point of success."""


@dataclass(frozen=True)
class Sources:
    """What a run is made from, read and found to fit together; it travels to other processes and machines.

    Attributes:
        policy: as imported.
        drives: the settings' drives, read.
        observation: what the user says of the policy's input (`quant.observation.storage.read_given`), if anything.
        findings: what of the drives does not hold to the contract of the policy's input, and may pass.
    """

    policy: Policy
    drives: tuple[Recording, ...] = ()
    observation: Mapping[str, Any] | None = None
    findings: tuple[Finding, ...] = ()


def read_sources(checkpoint: Path, settings: Settings) -> Sources:
    """Imports a checkpoint with what the settings say of it, and reads the settings' drives; writes nothing.

    Raises:
        InputError: one of them cannot be read, or they do not fit each other or the settings' world.
    """
    policy = load_policy(checkpoint, **_given(settings))
    sources = sources_of(policy, settings)
    world = world_of(settings)
    if sources.drives:
        check_recordings(sources.drives, complete=world is None)
    if world is not None:
        world.check_fits(policy)
        episodes_of(settings, world)
    return sources


def _observation(settings: Settings, policy: Policy) -> Mapping[str, Any] | None:
    if settings.observation is None:
        return None
    return read_given(Path(settings.observation), policy.ego_size, policy.peer_size)


def sources_of(policy: Policy, settings: Settings) -> Sources:
    """The settings' drives and the user's word on the observation, for a policy that has been imported already.

    Raises:
        InputError: a drive cannot be read, or does not hold to the contract and is not allowed to.
    """
    allow = check_names(settings.allow)
    drives = tuple(read_drive(Path(path), policy, allow) for path in settings.drives)
    observation = _observation(settings, policy)
    return Sources(policy, drives, observation, held_to_contract(policy, drives, observation, allow))


def _given(settings: Settings) -> dict[str, Any]:
    """The settings' ``given``, as `quant.policy.load_policy` takes it."""
    given = dict(settings.given or {})
    if "head" in given:
        given["head"] = Path(given["head"])
    if "action_space" in given:
        given["action_space"] = parse_action_space(given["action_space"])
    return given


def world_of(settings: Settings) -> World | None:
    """The run's world, if it has one."""
    return None if settings.world is None else load_world(settings.world, settings.world_kwargs)


def episodes_of(settings: Settings, world: World) -> dict[str, int]:
    """Scenarios to judge on, by slice of the world."""
    asked = settings.episodes or DEFAULT_EPISODES
    counts = {name: n for name, n in asked.items() if name in world.slices and n > 0}
    if not counts:
        raise InputError("no episodes to judge on", where=world.spec, expected=f"episodes of {', '.join(world.slices)}")
    return counts
