"""A small policy, candidates of it with and without damage, and what a stress test of them takes; made in a moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from quant.dataset import Dataset
from quant.dataset.filling import fill
from quant.evaluation.stress.results import Stress
from quant.observation.contract import Contract
from quant.observation.observations import F32, Observations
from quant.observation.resolve import Sizes, resolve
from quant.policy.policy import ActionSpace, Box, Policy
from quant.tracks.candidate import Candidate
from quant.tracks.gptq import Rounded
from quant.tracks.plan import Choice, Interval, LayerRanges, Plan, Range, Rewriting, calibrate, make_plan
from tests.runners.candidates import random_policy

CONTRACT = resolve(Sizes(6, 6, 8), None, [])
FRAMES = fill(CONTRACT, 3000, 17)
CUT = 0.4
"""Share of a range that a damaged candidate represents."""


def declared(ego: int = 6) -> Contract:
    return CONTRACT if ego == 6 else resolve(Sizes(ego, 6, 8), None, [])


def policy_of(space: ActionSpace | None = None, ego: int = 6, gain: float = 1.5) -> Policy:
    """A random policy that acts on half of its range; ``gain`` is of its last layer."""
    made = random_policy(5, ego=ego, hidden=(24,), action_space=Box((0.0,), (1.0,)) if space is None else space)
    last = made.head[-1]
    scaled = replace(last, weight=last.weight * np.float32(gain))
    made = replace(made, head=(*made.head[:-1], scaled))
    if not isinstance(made.action_space, Box):
        return made
    middle = np.median(made.forward(frames_of(ego)).values, axis=0)
    half = (np.array(made.action_space.low) + np.array(made.action_space.high)) / 2
    return replace(made, head=(*made.head[:-1], replace(scaled, bias=(scaled.bias + half - middle).astype(np.float32))))


def frames_of(ego: int) -> Observations:
    """What candidates are calibrated on."""
    return FRAMES if ego == 6 else fill(declared(ego), 3000, 17)


def candidate_of(
    policy: Policy, track: str = "ptq", *, cut: float = 1.0, hidden: float = 1.0, ego: int = 6
) -> Candidate:
    """PTQ's plan over the declared range, without a search.

    Args:
        policy: in float.
        track: the name it gets.
        cut: share of every input's range that it represents.
        hidden: share of the head's hidden range that it represents.
        ego: size of the ego.
    """
    contract = declared(ego)
    choice = Choice(0.0, Rewriting(), (1.0,) * len(policy.encoder), (1.0,) * len(policy.head))
    features = tuple(_share(*contract.bounds(peers=peers), cut) for peers in (True, False))
    plan = make_plan(calibrate(policy, frames_of(ego)), choice, (features[0], features[1]))
    if hidden != 1.0:
        first, *others = plan.head_ranges
        after = Range.covering(first.after.low * hidden, first.after.high * hidden)
        plan = replace(plan, head_ranges=(LayerRanges(first.before, after), *others))
    return _named(plan, track)


def _share(low: F32, high: F32, cut: float) -> Interval:
    """The middle of a range."""
    middle, half = ((low + high) / 2).astype(np.float32), ((high - low) / 2 * np.float32(cut)).astype(np.float32)
    return Interval(middle - half, middle + half)


def _named(plan: Plan, track: str) -> Candidate:
    dataset = cast("Dataset", SimpleNamespace(policy_sha256="a" * 64, digest="b" * 64))
    return replace(Rounded.nearest(plan).candidate(dataset), track=track)


@dataclass(frozen=True)
class Given:
    """What `quant.evaluation.stress.stress.stress` takes."""

    policy: Policy
    candidates: dict[str, Candidate]
    contract: Contract
    seen: Observations

    def run(self, stress: Callable[..., Stress], **options: Any) -> Stress:
        options = {"frames": 20_000, "workers": 1, "policy_sha256": "a" * 64, "dataset_sha256": "b" * 64} | options
        return stress(self.policy, self.candidates, self.contract, self.seen, **options)
