"""What a board showed of a candidate, and the criteria that follow.

Only a figure that was measured on the target chip proves or disproves latency and memory. A board that gives other
bytes than the host disproves the verdict whatever the board is: success was computed with the host's bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quant.acceptance.criterion import Criterion, Evidence
from quant.acceptance.limits import Limits

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
        contradicted_by: another board whose bytes differ from the host's, though these do not.
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
    contradicted_by: DeviceEvidence | None = None

    def not_of(self, target: str) -> str:
        """Why its figures are not the target's; empty if they are."""
        if self.evidence != "measured":
            return f"what is {self.evidence} is not measured on a board"
        return "" if self.chip == target else f"measured on {self.chip}, the target is {target}"


def device_criteria(shown: DeviceEvidence | None, limits: Limits) -> tuple[Criterion, ...]:
    """The criteria of `DEVICE_CRITERIA`, in that order; all unproven where no board has run the candidate."""
    if shown is None:
        return (
            *(Criterion(name, limits.latency_ms, "ms", unproven=NO_BOARD) for name in TIMES),
            Criterion(BYTES, 0, "decisions", unproven=NO_BOARD),
            Criterion("heap_free", limits.heap_bytes, "bytes", "at least", unproven=NO_BOARD),
            Criterion("stack_left", limits.stack_bytes, "bytes", "at least", unproven=NO_BOARD),
        )
    foreign = shown.not_of(limits.target)

    def time(name: str, value: float, what: str) -> Criterion:
        basis = f"{what} with the worst number of peers, {shown.board}"
        return Criterion(name, limits.latency_ms, "ms", "at most", value, shown.evidence, basis, unproven=foreign)

    return (
        time("latency", shown.latency_p99_ms, "99th percentile"),
        time("latency_max", shown.latency_max_ms, "maximum"),
        _same_bytes(shown.contradicted_by or shown, foreign),
        _memory("heap_free", shown.heap_bytes, limits.heap_bytes, shown, foreign),
        _memory("stack_left", shown.stack_bytes, limits.stack_bytes, shown, foreign),
    )


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

    >>> line = device_line(device_criteria(None, Limits()), "esp32")
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
