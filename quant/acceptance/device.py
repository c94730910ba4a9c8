"""What a board showed of a candidate, and the criteria that follow.

Only a figure that was measured on the target chip proves or disproves latency and memory. A board that gives other
bytes than the host disproves the verdict whatever the board is: success was computed with the host's bytes. Of several
boards each criterion takes its own, the worst: what one of them disproves, no other proves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from quant.acceptance.criterion import Criterion, Evidence, Outcome
from quant.acceptance.limits import Limits

EVIDENCE: tuple[Evidence, ...] = ("measured", "emulated", "simulated", "computed")
"""From the strongest to the weakest."""
NO_BOARD = "no board has run this yet"
TIMES = ("latency", "latency_max")
MEMORY = ("heap_free", "stack_left")
BYTES = "device_mismatches"
DEVICE_CRITERIA = (*TIMES, BYTES, *MEMORY)
"""Names of the criteria only a board can prove."""


@dataclass(frozen=True)
class DeviceEvidence:
    """What a board showed of one candidate.

    Attributes:
        board: which one, in words.
        chip: as esptool calls it, in lower case: ``esp32``.
        evidence: where its times come from; only ``measured`` is a time of a chip.
        latency_p99_ms, latency_max_ms: of a decision with the worst number of peers, observation to action in memory.
        compared: decisions compared with the host's, byte by byte at every interface.
        differing: how many of them differ.
        heap_bytes: least free heap since boot, bytes; None where the board has no such figure.
        stack_bytes: least free stack of the task that decides, bytes; None likewise.
        failed_tests: tests of the board that failed, with these models; what it showed then proves nothing good.
    """

    board: str
    chip: str
    evidence: Evidence
    latency_p99_ms: float
    latency_max_ms: float
    compared: int
    differing: int
    heap_bytes: int | None
    stack_bytes: int | None
    failed_tests: int = 0

    def not_of(self, target: str) -> str:
        """Why its figures are not the target's; empty if they are."""
        if self.evidence != "measured":
            return f"what is {self.evidence} is not measured on a board"
        return "" if self.chip == target else f"measured on {self.chip}, the target is {target}"


def device_criteria(shown: Sequence[DeviceEvidence], limits: Limits) -> tuple[Criterion, ...]:
    """The criteria of `DEVICE_CRITERIA`, in that order; all unproven where no board has run the candidate.

    Args:
        shown: what boards showed of the candidate, in any order.
        limits: the limits.
    """
    if not shown:
        return (
            *(Criterion(name, limits.latency_ms, "ms", unproven=NO_BOARD) for name in TIMES),
            Criterion(BYTES, 0, "decisions", unproven=NO_BOARD),
            Criterion("heap_free", limits.heap_bytes, "bytes", "at least", unproven=NO_BOARD),
            Criterion("stack_left", limits.stack_bytes, "bytes", "at least", unproven=NO_BOARD),
        )
    each = [
        [(one, criterion) for criterion in _criteria(one, limits)] for one in sorted(shown, key=lambda one: one.board)
    ]
    return tuple(min(alike, key=lambda pair: _rank(pair[0], pair[1], limits))[1] for alike in zip(*each, strict=True))


def _rank(shown: DeviceEvidence, criterion: Criterion, limits: Limits) -> tuple[bool, int, bool, bool, float]:
    """Lowest for the board a criterion rests on: one that fails it, then the strongest evidence, of it the worst."""
    value = math.inf if criterion.value is None else criterion.value
    return (
        criterion.outcome is not Outcome.FAIL,
        EVIDENCE.index(shown.evidence),
        shown.chip != limits.target,
        criterion.outcome is not Outcome.UNPROVEN,
        -value if criterion.direction == "at most" else value,
    )


def _criteria(shown: DeviceEvidence, limits: Limits) -> tuple[Criterion, ...]:
    foreign = shown.not_of(limits.target)

    def time(name: str, value: float, what: str) -> Criterion:
        basis = f"{what} with the worst number of peers, {shown.board}"
        return Criterion(name, limits.latency_ms, "ms", "at most", value, shown.evidence, basis, unproven=foreign)

    criteria = (
        time("latency", shown.latency_p99_ms, "99th percentile"),
        time("latency_max", shown.latency_max_ms, "maximum"),
        _same_bytes(shown, foreign),
        _memory("heap_free", shown.heap_bytes, limits.heap_bytes, shown, foreign),
        _memory("stack_left", shown.stack_bytes, limits.stack_bytes, shown, foreign),
    )
    return tuple(_doubted(criterion, shown) for criterion in criteria)


def _doubted(criterion: Criterion, shown: DeviceEvidence) -> Criterion:
    if not shown.failed_tests or criterion.outcome is not Outcome.PASS:
        return criterion
    tests = "a test" if shown.failed_tests == 1 else f"{shown.failed_tests} tests"
    return replace(criterion, unproven=f"{tests} of this board failed")


def _same_bytes(shown: DeviceEvidence, foreign: str) -> Criterion:
    if shown.compared == 0:
        return Criterion(BYTES, 0, "decisions", unproven="no decision was compared with the host's")
    basis = f"of {shown.compared} compared with the host's at every interface, {shown.board}"
    unproven = foreign if shown.differing == 0 else ""
    return Criterion(BYTES, 0, "decisions", "at most", shown.differing, shown.evidence, basis, unproven=unproven)


def _memory(name: str, value: int | None, limit: int, shown: DeviceEvidence, foreign: str) -> Criterion:
    if value is None:
        return Criterion(name, limit, "bytes", "at least", unproven=foreign or f"{shown.board} gives no figure")
    basis = f"least since boot, {shown.board}"
    return Criterion(name, limit, "bytes", "at least", value, shown.evidence, basis, unproven=foreign)


def device_line(criteria: Iterable[Criterion], target: str) -> str:
    """Whether latency and memory are confirmed on the target, in one line.

    >>> line = device_line(device_criteria((), Limits()), "esp32")
    >>> line
    'ESP32 latency + memory: unproven - no board has run this yet'
    """
    own = [criterion for criterion in criteria if criterion.name in DEVICE_CRITERIA]
    what = f"{target.upper()} latency + memory"
    failed = [criterion for criterion in own if criterion.outcome == "fail"]
    if failed:
        return f"{what}: failed - {'; '.join(f'{one.name} {one.sentence}' for one in failed)}"
    unproven = list(dict.fromkeys(criterion.unproven for criterion in own if criterion.outcome == "unproven"))
    if unproven:
        return f"{what}: unproven - {'; '.join(unproven)}"
    return f"{what}: confirmed - {'; '.join(f'{one.name} {one.sentence}' for one in own)}"
