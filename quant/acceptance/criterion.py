"""A criterion: a named limit, the value held against it, where the value comes from, and what follows.

    >>> size = Criterion("policy_head_bytes", 102400, "bytes", value=9216, evidence="computed")
    >>> size.outcome.value
    'pass'
    >>> print(size)
    policy_head_bytes: pass, 9216 bytes <= 102400 bytes (computed)
    >>> print(Criterion("latency", 50, "ms", unproven="no board has run this yet"))
    latency: unproven, limit 50 ms: no board has run this yet

A value that is not there is not a pass, and neither is one from evidence that cannot prove it: both are *unproven*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

Direction = Literal["at most", "at least"]
Evidence = Literal["measured", "emulated", "simulated", "computed"]


class Outcome(StrEnum):
    """What a criterion says."""

    PASS = "pass"
    FAIL = "fail"
    UNPROVEN = "unproven"


@dataclass(frozen=True)
class Criterion:
    """One limit and what became of it.

    Attributes:
        name: with the part or slice it is about, as ``success_drop[lossy]``.
        limit: in ``unit``.
        unit: ``share``, ``points`` of a rate in percent, ``frames``, ``bytes`` or ``ms``.
        direction: on which side of the limit the value has to be; the limit itself passes.
        value: in ``unit``; None where there is none.
        evidence: where the value comes from; None without a value.
        basis: what the value is, in words.
        unproven: why nothing follows from it; empty where something does.

    Raises:
        ValueError: a limit or value is not finite, a value has no evidence, or there is neither value nor reason.
    """

    name: str
    limit: float
    unit: str
    direction: Direction = "at most"
    value: float | None = None
    evidence: Evidence | None = None
    basis: str = ""
    unproven: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.limit) or not math.isfinite(0 if self.value is None else self.value):
            raise ValueError(f"{self.name}: neither limit {self.limit} nor value {self.value} may be other than finite")
        if (self.value is None) != (self.evidence is None):
            raise ValueError(f"{self.name}: a value and its evidence come together")
        if self.value is None and not self.unproven:
            raise ValueError(f"{self.name}: without a value a reason is needed")

    @property
    def outcome(self) -> Outcome:
        """Pass, fail or unproven."""
        if self.value is None or self.unproven:
            return Outcome.UNPROVEN
        kept = self.value <= self.limit if self.direction == "at most" else self.value >= self.limit
        return Outcome.PASS if kept else Outcome.FAIL

    @property
    def sentence(self) -> str:
        """Value, limit and evidence, or the reason why nothing follows."""
        limit = quantity(self.limit, self.unit)
        if self.value is None:
            return f"limit {limit}: {self.unproven}"
        kept = self.value <= self.limit if self.direction == "at most" else self.value >= self.limit
        sign = {("at most", True): "<=", ("at most", False): ">", ("at least", True): ">=", ("at least", False): "<"}
        basis = f"{self.evidence}: {self.basis}" if self.basis else str(self.evidence)
        held = f"{quantity(self.value, self.unit)} {sign[self.direction, kept]} {limit} ({basis})"
        return f"{held}: {self.unproven}" if self.unproven else held

    def __str__(self) -> str:
        return f"{self.name}: {self.outcome.value}, {self.sentence}"

    def to_json(self) -> dict[str, Any]:
        """All of it, with the outcome."""
        return {
            "name": self.name,
            "outcome": self.outcome.value,
            "value": self.value,
            "direction": self.direction,
            "limit": self.limit,
            "unit": self.unit,
            "evidence": self.evidence,
            "basis": self.basis,
            "reason": self.unproven or None,
        }


def quantity(value: float, unit: str) -> str:
    """A number with its unit, as people write it: shares as percentages, bytes and frames whole."""
    if unit == "share":
        return f"{value:.2%}".replace("%", " %")
    return f"{value:.0f} {unit}" if unit in ("bytes", "frames") else f"{value:g} {unit}"
