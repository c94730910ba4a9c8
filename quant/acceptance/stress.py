"""What a stress test shows of a candidate, held against the limits."""

from __future__ import annotations

from collections.abc import Iterator

from quant.acceptance.criterion import Criterion
from quant.acceptance.limits import Limits
from quant.evaluation.stress.results import Stress

MISSED, FALSE, WORST = "missed_action", "false_action", "worst_deviation"
STRESS_CRITERIA = (MISSED, FALSE, WORST)
NOT_RUN = "not stressed; quant stress RUN does it"
NAMED = 3
"""Columns that a reason names, before it counts the others."""


def stress_criteria(stress: Stress | None, track: str, limits: Limits) -> Iterator[Criterion]:
    """Missed and false actions, and the largest deviation where the limits hold one.

    Frames within the bounds count, on which float itself is settled. What nobody declared the bounds of is unproven
    whatever was found: there the candidate was looked at only as far as was recorded and a margin.
    """
    held: list[tuple[str, float, str]] = [
        (MISSED, limits.missed_action, "frames"),
        (FALSE, limits.false_action, "frames"),
    ]
    if limits.worst_deviation is not None:
        held.append((WORST, limits.worst_deviation, "share"))
    if stress is None or track not in stress.tracks:
        yield from (Criterion(name, limit, unit, unproven=NOT_RUN) for name, limit, unit in held)
        return
    within = stress.tracks[track].within
    values = {MISSED: float(within.missed), FALSE: float(within.false), WORST: within.worst}
    basis = {
        MISSED: f"of {within.frames:,} within the bounds: float acts and is settled, the candidate does not act",
        FALSE: f"of {within.frames:,} within the bounds: float does not act and is settled, the candidate acts",
        WORST: f"of {within.frames:,} frames within the bounds the largest difference, as a share of the range",
    }
    for name, limit, unit in held:
        yield Criterion(name, limit, unit, "at most", values[name], "computed", basis[name], undeclared_words(stress))


def undeclared_words(stress: Stress) -> str:
    """Why a stress test proves nothing, where bounds are not declared; empty where they are."""
    if not stress.undeclared:
        return ""
    named, others = stress.undeclared[:NAMED], len(stress.undeclared) - NAMED
    names = ", ".join(named) + (f" and {others} more" if others > 0 else "")
    return f"nobody declared the bounds of {names}"
