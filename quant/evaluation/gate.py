"""Can this world tell good driving from bad? The gate's own actors must lose in it, or its verdict means nothing.

A simulator may brake for the vehicle under test, or scenarios may be so easy that nobody collides. Then every candidate
"keeps" the float policy's success. So a policy that never brakes and one with its weights rounded to 3 bits are driven
through the same scenarios; a slice in which either stays within the limit for candidates is blind.
"""

from __future__ import annotations

from dataclasses import dataclass

from quant.evaluation.actors import NEUTRAL, THREE_BIT
from quant.evaluation.evaluation import Evaluation
from quant.evaluation.statistics import Drop, Estimate, Paired

ACTORS = {NEUTRAL: "a policy that never brakes", THREE_BIT: "the float policy with weights of 3 bits"}


@dataclass(frozen=True)
class GateResult:
    """One of the gate's actors on one slice.

    Attributes:
        actor: `NEUTRAL` or `THREE_BIT`.
        slice: its name.
        success: its success rate.
        drop: against the float policy; None where that never succeeded.
        limit: of a candidate's drop.
    """

    actor: str
    slice: str
    success: Estimate
    drop: Drop | None
    limit: float

    @property
    def lost(self) -> bool:
        """It is shown to lose more than the limit: the lower bound of its drop is above it."""
        return self.drop is not None and self.drop.lower > self.limit

    @property
    def passed(self) -> bool:
        """It keeps the limit like a good candidate, or there is no success that could be lost."""
        return self.drop is None or self.drop.upper <= self.limit

    def __str__(self) -> str:
        drop = "no drop can be computed"
        if self.drop is not None:
            drop = f"drop {self.drop.lower:.1%} to {self.drop.upper:.1%}"
        verdict = "loses, as it must" if self.lost else "TOO FEW EPISODES to tell"
        if self.passed:
            verdict = "PASSES: the slice is blind"
        return f"{self.actor} on {self.slice}: success {self.success.value:.1%}, {drop}: {verdict}"


def gate_results(reference: Evaluation, limit: float) -> tuple[GateResult, ...]:
    """Every gate actor that was driven, on every slice; none without a closed loop.

    Args:
        reference: the float policy's evaluation.
        limit: of the relative success drop's upper bound, as for a candidate.
    """
    if reference.closed_loop is None:
        return ()
    results = []
    for name, slices in reference.closed_loop.gate.items():
        for original, outcome in zip(reference.closed_loop.slices, slices, strict=True):
            drop = Paired.of(original.success, outcome.success).drop()
            results.append(GateResult(name, outcome.name, outcome.success_rate, drop, limit))
    return tuple(results)


def blindness(reference: Evaluation, limit: float) -> dict[str, str]:
    """The slices whose success figures prove nothing, each with the reason; empty where all of them see.

    A slice is also blind where a gate actor was not driven, or where the float policy never succeeds.
    """
    if reference.closed_loop is None:
        return {}
    results = gate_results(reference, limit)
    reasons: dict[str, str] = {}
    for outcome in reference.closed_loop.slices:
        missing = [name for name in ACTORS if name not in reference.closed_loop.gate]
        passed = [r for r in results if r.slice == outcome.name and r.passed]
        unclear = [r for r in results if r.slice == outcome.name and not r.lost and not r.passed]
        if not outcome.success.any():
            reasons[outcome.name] = "the float policy itself never succeeds"
        elif missing:
            reasons[outcome.name] = f"the gate was not tested: {' and '.join(missing)} did not drive"
        elif passed:
            who = " and ".join(f"{ACTORS[r.actor]} ({r.actor}, success {r.success.value:.1%})" for r in passed)
            reasons[outcome.name] = f"the world is blind: {who} passes as well"
        elif unclear:
            who = " and ".join(ACTORS[r.actor] for r in unclear)
            reasons[outcome.name] = f"{outcome.n} episodes are too few to show that {who} loses"
    return reasons


def open_loop_blindness(reference: Evaluation, limit: float) -> str:
    """Why agreement on the held-out frames proves nothing: a gate actor keeps the limit too, or was not compared.

    Empty where both of them were compared and exceed it.

    Args:
        reference: the float policy's evaluation.
        limit: of the share of frames with another action, as for a candidate.
    """
    missing = [name for name in ACTORS if name not in reference.open_gate]
    if missing:
        return f"the gate was not tested on the held-out frames: {' and '.join(missing)} were not compared"
    passed = {name: one for name, one in reference.open_gate.items() if 1 - one.agreement.value <= limit}
    if not passed:
        return ""
    who = " and ".join(f"{ACTORS[name]} ({name}, agrees on {one.agreement.value:.1%})" for name, one in passed.items())
    return f"the held-out frames are blind: {who} keeps the limit as well"
