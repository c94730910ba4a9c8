"""All criteria of one candidate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quant.acceptance.criterion import Criterion, Outcome, quantity
from quant.acceptance.device import DeviceEvidence, device_criteria
from quant.acceptance.limits import Limits
from quant.acceptance.stress import FALSE, MISSED, WORST, stress_criteria
from quant.evaluation.evaluation import NO_WORLD, Evaluation, rounded
from quant.evaluation.gate import blindness, open_loop_blindness
from quant.evaluation.statistics import Drop, Paired
from quant.evaluation.stress.results import Stress
from quant.evaluation.unseen import pooled
from quant.tracks.candidate import Candidate

DROP, MARGIN = "success_drop", "success_margin"
"""Criteria of success, one for each slice."""
UNSEEN = "unseen_disagreement"
"""Criterion of the drives that were left out."""
CRITERIA: Mapping[str, str] = {
    DROP: "loss of success against float",
    MARGIN: "points of success lost against float",
    "action_disagreement": "frames with another action than float",
    UNSEEN: "frames of drives it was made without, with another action than float",
    MISSED: "frames of its range on which it does not act and float does",
    FALSE: "frames of its range on which it acts and float does not",
    WORST: "largest difference from float over its range",
    "peer_encoder_bytes": "size of the peer encoder",
    "policy_head_bytes": "size of the policy head",
    "latency": "time of a decision, 99th percentile",
    "latency_max": "time of a decision, longest",
    "device_mismatches": "decisions with other bytes than the host's",
    "heap_free": "free heap",
    "stack_left": "free stack",
}
"""By the name, without its slice, what each criterion is about."""


@dataclass(frozen=True)
class Assessment:
    """A candidate and its criteria.

    Attributes:
        track: the candidate's.
        sizes: bytes of ``peer_encoder`` and ``policy_head``.
        hashes: SHA-256 of both.
        criteria: all of them, always in the same order.
    """

    track: str
    sizes: Mapping[str, int]
    hashes: Mapping[str, str]
    criteria: tuple[Criterion, ...]

    @property
    def total_bytes(self) -> int:
        """Of both sub-models."""
        return sum(self.sizes.values())

    def with_outcome(self, outcome: Outcome) -> tuple[Criterion, ...]:
        """The criteria of that outcome."""
        return tuple(criterion for criterion in self.criteria if criterion.outcome is outcome)

    @property
    def eligible(self) -> bool:
        """No criterion fails. What is unproven does not exclude, it makes the verdict provisional."""
        return not self.with_outcome(Outcome.FAIL)

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "eligible": self.eligible,
            "bytes": dict(self.sizes) | {"total": self.total_bytes},
            "sha256": dict(self.hashes),
            "criteria": [criterion.to_json() for criterion in self.criteria],
        }


def assess(
    candidate: Candidate,
    evaluation: Evaluation,
    reference: Evaluation,
    limits: Limits,
    devices: Sequence[DeviceEvidence] = (),
    stress: Stress | None = None,
) -> Assessment:
    """Holds a candidate against the limits.

    Every slice is a criterion of its own. The candidate has to keep all of them, so the chance of accepting a bad one
    stays at that of a single bound and no correction for their number is due (intersection-union test; R. L. Berger,
    Technometrics 24, 1982).

    Args:
        candidate: its models.
        evaluation: of the candidate.
        reference: of the float policy, on the same scenarios and frames
            (:func:`quant.evaluation.evaluation.check_together`).
        limits: the limits.
        devices: what boards showed of it.
        stress: what was found over the declared range of its inputs; None: it was not looked at.
    """
    models = (candidate.peer_encoder, candidate.policy_head)
    sizes: dict[str, int] = {model.part: len(model.tflite) for model in models}
    return Assessment(
        candidate.track,
        sizes,
        {model.part: model.sha256 for model in models},
        (
            *_success(evaluation, reference, limits),
            _agreement(evaluation, reference, limits),
            *_unseen(evaluation, limits),
            *stress_criteria(stress, candidate.track, limits),
            *(_size(part, size, limits) for part, size in sizes.items()),
            *device_criteria(devices, limits),
        ),
    )


def _success(evaluation: Evaluation, reference: Evaluation, limits: Limits) -> list[Criterion]:
    limit = limits.success_drop
    if evaluation.closed_loop is None or reference.closed_loop is None:
        untested = Criterion(DROP, limit, "share", unproven=NO_WORLD)
        likewise = Criterion(MARGIN, limits.success_margin_points, "points", unproven=NO_WORLD)
        return [untested, likewise] if limits.success_margin_required else [untested]
    blind = blindness(reference, limit)
    slices = zip(reference.closed_loop.slices, evaluation.closed_loop.slices, strict=True)
    tables = {outcome.name: Paired.of(original.success, outcome.success) for original, outcome in slices}
    drops = [_bounded(_drop(name, table, limits), table, blind.get(name, ""), limits) for name, table in tables.items()]
    if not limits.success_margin_required:
        return drops
    margins = (
        _bounded(_margin(name, table, limits), table, blind.get(name, ""), limits) for name, table in tables.items()
    )
    return [*drops, *margins]


@dataclass(frozen=True)
class _Loss:
    """Success lost in a sample; ``drop`` is None where the float policy never succeeds: such a slice is blind."""

    name: str
    drop: Drop | None
    limit: float
    unit: str
    what: str


def _drop(name: str, table: Paired, limits: Limits) -> _Loss:
    return _Loss(f"{DROP}[{name}]", table.drop(), limits.success_drop, "share", "relative drop")


def _margin(name: str, table: Paired, limits: Limits) -> _Loss:
    loss = table.loss()
    lost = Drop(100 * loss.value, 100 * loss.lower, 100 * loss.upper)
    return _Loss(f"{MARGIN}[{name}]", lost, limits.success_margin_points, "points", "success rate lost")


def _bounded(loss: _Loss, table: Paired, blind: str, limits: Limits) -> Criterion:
    """Its bound passes, the loss itself fails, all between is open, unless the limits ask for more.

    Args:
        loss: what was lost.
        table: in which episodes.
        blind: why the slice proves nothing; empty where it does.
        limits: that are in force.
    """
    if loss.drop is None:
        return Criterion(loss.name, loss.limit, loss.unit, unproven=blind)
    value, bound = rounded(loss.drop.value), rounded(loss.drop.upper)
    open_ = value <= loss.limit < bound and not limits.success_shown_required
    basis = f"upper 95 % bound of the {loss.what}, {table.n} paired episodes"
    reason = blind or (_too_few(loss, loss.drop, table.n) if open_ else "")
    return Criterion(loss.name, loss.limit, loss.unit, "at most", bound, "computed", basis, reason)


def _too_few(loss: _Loss, drop: Drop, n: int) -> str:
    lost = quantity(rounded(drop.value), loss.unit)
    more = f"; about {_episodes(n, drop, loss.limit)} would" if rounded(drop.value) < loss.limit else ""
    return f"{lost} lost keeps the limit, but {n} episodes do not show it{more}"


def _episodes(n: int, loss: Drop, limit: float) -> int:
    """How many would bring the bound to the limit if the loss stayed: a bound comes closer as 1 / sqrt(n)."""
    needed = n * ((loss.upper - loss.value) / (limit - loss.value)) ** 2
    unit = 10.0 ** max(math.floor(math.log10(needed)) - 1, 0)
    return round(math.ceil(needed / unit) * unit)


def _agreement(evaluation: Evaluation, reference: Evaluation, limits: Limits) -> Criterion:
    name, limit = "action_disagreement", limits.action_disagreement
    if evaluation.open_loop is None:
        return Criterion(name, limit, "share", unproven="it was not compared on held-out frames")
    overall, tolerance = evaluation.open_loop.overall, evaluation.open_loop.tolerance
    same = "same action" if tolerance is None else f"within {tolerance:.1%} of the range"
    value = rounded(1 - overall.agreement.value)
    reason = open_loop_blindness(reference, limit) if value <= limit else ""
    if tolerance is not None and tolerance != limits.action_tolerance:
        reason = f"evaluated with a tolerance of {tolerance}, the limit is {limits.action_tolerance}: evaluate again"
    return Criterion(
        name, limit, "share", "at most", value, "computed", f"{overall.n} held-out frames, {same}", unproven=reason
    )


def _unseen(evaluation: Evaluation, limits: Limits) -> Iterator[Criterion]:
    """On drives the track was made without, as on held-out frames; where none was left out there is none to hold."""
    close = pooled(evaluation.unseen)
    if close is None:
        return
    drives = ", ".join(one.drive for one in evaluation.unseen)
    basis = f"{close.n} frames of {drives}, each of the track made without that drive"
    value = rounded(1 - close.agreement.value)
    yield Criterion(UNSEEN, limits.action_disagreement, "share", "at most", value, "computed", basis)


def _size(part: str, size: int, limits: Limits) -> Criterion:
    return Criterion(f"{part}_bytes", limits.model_bytes, "bytes", "at most", size, "computed", "the .tflite file")
