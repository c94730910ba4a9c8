"""The instructions of a decision, counted in emulation, repeat and do not grow unnoticed. They are never a latency."""

from __future__ import annotations

from pathlib import Path

import pytest

from quant.boards.device import Device
from quant.boards.measure import frames_with
from quant.boards.report import TOTAL, DeviceReport
from quant.policy import Observations
from quant.runs.run import Run
from quant.testing.hil_plugin import Record
from quant.testing.suites.hil.instruction_baseline import NAME, REPEATABILITY, Baseline, propose, read_baselines
from quant.wire.protocol import EvidenceCode

pytestmark = pytest.mark.hil

REPEATS = 20
ACCEPTED = Path("tests", "hil", NAME)
"""Baselines that are kept with the project, from its root; a run may have its own, which comes first."""


@pytest.fixture
def counting(device: Device) -> None:
    """Skips where ticks are not counted instructions."""
    evidence = device.identity.evidence
    if evidence is not EvidenceCode.EMULATED:
        pytest.skip(f"instructions are counted in QEMU (--board qemu); this board's ticks are {evidence.name.lower()}")


def ticks(device: Device, track: str, frames: Observations, peers: int) -> int:
    """The least of a few decisions, by the board's counter."""
    least = device.bench(track, frames_with(frames, peers), 5, REPEATS)[TOTAL].minimum
    return round(least * device.identity.ticks_per_second / 1e6)


def test_the_count_of_a_decision_repeats(
    device: Device, frames: Observations, run: Run, track: str, record: Record, counting: None
) -> None:
    for peers in (0, run.candidates[track].max_peers):
        first, second = (ticks(device, track, frames, peers) for _ in range(2))
        record(f"{track}, {peers} peers, emulated", first, "ticks")
        record(f"{track}, {peers} peers, again, emulated", second, "ticks")
        assert abs(first - second) <= REPEATABILITY


def test_a_decision_takes_no_more_instructions_than_accepted(
    device: Device,
    frames: Observations,
    run: Run,
    record: Record,
    counting: None,
    report: DeviceReport,
    pytestconfig: pytest.Config,
) -> None:
    counted = {
        f"{track}, {peers} peers": ticks(device, track, frames, peers)
        for track, candidate in run.candidates.items()
        for peers in (0, candidate.max_peers)
    }
    for name, count in counted.items():
        record(f"{name}, emulated", count, "ticks")
    found = Baseline(report.board.target, report.pack_sha256, report.board.elf_sha256, counted)
    kept = read_baselines([run.folder / NAME, pytestconfig.rootpath / ACCEPTED])
    accepted = [one for one in kept if one.compares_with(found)]
    if not accepted:
        propose(run.folder / NAME, found)
        pytest.skip(f"nothing to hold them against: {run.folder / NAME} now has these counts; the next session is held")
    complaints = accepted[0].complaints(found)
    assert not complaints, "; ".join(complaints)
