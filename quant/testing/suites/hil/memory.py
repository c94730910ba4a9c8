"""The models fit the board, and deciding uses nothing up."""

from __future__ import annotations

import numpy as np
import pytest

from quant.acceptance.decision import Verdict
from quant.acceptance.device import MEMORY
from quant.boards.device import Device
from quant.boards.report import DeviceReport
from quant.policy import Observations
from quant.testing.hil_plugin import Record
from quant.testing.plugin import Hold
from quant.testing.suites.hil.expectations import recorded_criteria
from quant.tracks.candidate import PARTS

pytestmark = pytest.mark.hil

DECISIONS = 1000
INTERRUPT_BYTES = 512
"""What an interrupt lays onto the stack it finds: it may come at a deeper moment than every one before."""


def test_heap_and_stack_are_left(confirmed: Verdict, track: str, record: Record, hold: Hold) -> None:
    hold(*recorded_criteria(confirmed, track, MEMORY, record))


def test_the_models_fit_their_arenas(report: DeviceReport, track: str, record: Record) -> None:
    models = report.tracks[track].models
    for part in PARTS:
        for name, size in (("used", models[part].arena_used), ("size", models[part].arena_size)):
            record(f"{part} arena {name}", "unknown" if size is None else size, "bytes")
    arenas = [(models[part].arena_used, models[part].arena_size) for part in PARTS]
    known = [(used, size) for used, size in arenas if used is not None and size is not None]
    if not known:
        pytest.skip(f"the {report.board.name} board gives no figure for its arenas")
    assert len(known) == len(arenas)
    assert all(0 < used <= size for used, size in known)


@pytest.mark.parametrize("what", ["app", "models"])
def test_what_is_flashed_fits_its_partition(report: DeviceReport, what: str, record: Record) -> None:
    used, size = getattr(report.memory, f"{what}_bytes"), getattr(report.memory, f"{what}_partition")
    record(f"{what} bytes", "unknown" if used is None else used, "bytes")
    record(f"{what} partition", "unknown" if size is None else size, "bytes")
    if used is None or size is None:
        pytest.skip(f"the {report.board.name} board gives no figure for its {what} partition")
    assert 0 < used <= size


def test_the_pack_takes_what_the_host_made(device: Device, report: DeviceReport) -> None:
    assert report.memory.models_bytes == device.models().size


def test_deciding_uses_no_memory_up(device: Device, frames: Observations, track: str, record: Record) -> None:
    some = frames[np.arange(DECISIONS) % len(frames)]
    device.decide(track, some[:50])  # whatever is made once is made
    before = device.stats()
    device.decide(track, some)
    after = device.stats()
    for name in ("heap_free", "heap_minimum", "stack_left"):
        figure = getattr(after, name)
        record(name, "unknown" if figure is None else figure, "bytes")
    assert after.decisions - before.decisions >= DECISIONS
    if before.heap_minimum is None:
        pytest.skip("this board gives no figure for its heap")
    assert after.heap_minimum == before.heap_minimum
    assert before.stack_left is not None and after.stack_left is not None
    assert 0 <= before.stack_left - after.stack_left <= INTERRUPT_BYTES
