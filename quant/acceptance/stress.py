"""What a stress test shows of a candidate, held against the limits."""

from __future__ import annotations

from collections.abc import Iterator

from quant.acceptance.criterion import Criterion
from quant.acceptance.limits import Limits
from quant.evaluation.stress.results import Stress, Tally

MISSED, FALSE, WORST = "missed_action", "false_action", "worst_deviation"
STRESS_CRITERIA = (MISSED, FALSE, WORST)
NOT_RUN = "not stressed; quant stress RUN does it"
UNDECLARED = "nobody declared the bounds of"
NEVER = {
    MISSED: "float never acts within the declared range: nothing could be missed",
    FALSE: "float never rests within the declared range: nothing could be made up",
}
"""Why nothing follows from a count of 0, where nothing else was possible."""
MOST_UNSETTLED = 0.01
"""Share of the frames on which float acts (rests) up to which a candidate may do the opposite where it is not settled.

No int8 can be held to a single such frame. But where they are many, what was left to look at is what the candidate gets
right anyway, and a count of 0 there proves nothing.
"""
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
    of = f"of {within.frames:,} frames within the bounds"
    basis = {
        MISSED: f"{of}, float acts on {within.acts:,}; counted where it is settled and the candidate does not act",
        FALSE: f"{of}, float rests on {within.rests:,}; counted where it is settled and the candidate acts",
        WORST: f"{of} the largest difference, as a share of the range",
    }
    for name, limit, unit in held:
        # What is beyond its limit fails, however little else was looked at.
        seen = "" if values[name] > limit else _looked_at(name, within)
        reason = "; ".join(filter(None, (undeclared_words(stress), seen)))
        yield Criterion(name, limit, unit, "at most", values[name], "computed", basis[name], reason)


def _looked_at(name: str, within: Tally) -> str:
    """Why too little was looked at for a count of 0 to mean anything; empty where it was enough."""
    if name not in NEVER:
        return ""
    on, opposite, does = (
        (within.acts, within.missed_unsettled, "acts")
        if name == MISSED
        else (within.rests, within.false_unsettled, "rests")
    )
    if not on:
        return NEVER[name]
    if opposite <= MOST_UNSETTLED * on:
        return ""
    return (
        f"on {opposite:,} of the {on:,} frames on which float {does} the candidate does the opposite and float is not "
        f"settled, more than {MOST_UNSETTLED:.0%}: the policy is too steep to tell"
    )


def undeclared_words(stress: Stress) -> str:
    """Why a stress test proves nothing, where bounds are not declared; empty where they are."""
    if not stress.undeclared:
        return ""
    named, others = stress.undeclared[:NAMED], len(stress.undeclared) - NAMED
    names = ", ".join(named) + (f" and {others} more" if others > 0 else "")
    return f"{UNDECLARED} {names}"
