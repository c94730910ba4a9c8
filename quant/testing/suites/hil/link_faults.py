"""A line that loses, flips, repeats and delays bytes: every decision that comes through is right all the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from quant.boards.bench import Bench
from quant.boards.device import Device
from quant.boards.virtual.board import VirtualBoard, VirtualOptions
from quant.boards.virtual.faults import ByteRates, Faults
from quant.dataset import spread
from quant.policy import Observations
from quant.runners import Int8Runner
from quant.testing.hil_plugin import Record
from quant.testing.suites.hil.expectations import assert_decides_as

pytestmark = pytest.mark.hil

DECISIONS = 400
RETRIES = 20
"""Of one request: the frames of 16-bit codes are long, and several tries of one are hit."""
SAFE_BYTES = 2000
"""Of each direction, for saying hello and asking for the models."""

RATES = {
    "drop": ByteRates(drop=2e-4),
    "flip": ByteRates(flip=2e-4),
    "duplicate": ByteRates(duplicate=2e-4),
    "delay": ByteRates(delay=2e-4, delay_seconds=0.01),
    "everything": ByteRates(1e-4, 1e-4, 1e-4, 1e-4, delay_seconds=0.01),
}


@contextmanager
def faulty(bench: Bench, faults: Faults) -> Iterator[tuple[Device, VirtualBoard]]:
    """A second board with the same models, on a line that does all this."""
    if bench.board.name != "virtual":
        pytest.skip("only the virtual board's line can be told to do wrong")
    assert bench.pack is not None
    board = VirtualBoard(bench.pack, VirtualOptions(faults=faults, watchdog_seconds=0.5))
    with Bench(board, bench.pack) as opened:
        opened.device.link.timeout = 0.3
        opened.device.link.retries = RETRIES
        opened.device.models()
        yield opened.device, board


@pytest.mark.parametrize("kind", RATES)
def test_no_injected_fault_makes_a_wrong_decision(
    bench: Bench, hosts: dict[str, Int8Runner], frames: Observations, kind: str, record: Record
) -> None:
    """Each frame has a CRC, each answer its request: what is damaged is noticed and asked for again."""
    some = frames[spread(len(frames), DECISIONS)]
    faults = Faults(RATES[kind], RATES[kind], seed=5, first_byte=SAFE_BYTES)
    with faulty(bench, faults) as (device, board):
        wrong = compared = 0
        for track, host in hosts.items():
            found = device.decide(track, some)
            differs = (found.values.view(np.uint32) != host.values(some).view(np.uint32)).any(axis=1)
            differs |= (found.decision.outputs != host.decide(some).outputs).any(axis=1)
            wrong, compared = wrong + int(differs.sum()), compared + len(some)
        counts, counters = board.fault_counts(), device.link.counters
    injected = sum(sum(direction.values()) for direction in (counts.to_board, counts.to_host))
    noticed = {
        "damaged frames": counters.damage.total(),
        "complaints of the board": counters.line_errors.total(),
        "gaps": counters.gaps,
        "silences": counters.silences,
        "stray replies": counters.strays,
        "bytes of text": counters.text_bytes,
    }
    record("faults injected", injected, "")
    record("decisions", compared, "")
    record("wrong decisions", wrong, "")
    record("requests repeated", counters.repeats, "")
    record("of the faults detected or harmless", 100.0 * (injected - wrong) / injected if injected else "none", "%")
    for name, count in noticed.items():
        record(name, count, "")
    assert injected >= 20, "too few faults to show anything"
    assert wrong == 0
    assert compared == DECISIONS * len(hosts)
    if kind == "delay":
        assert counters.damage.total() == counters.line_errors.total() == 0
    else:
        assert sum(noticed.values()) > 0
    if kind in {"drop", "flip"}:
        assert counters.repeats > 0


@pytest.mark.parametrize(
    ("faults", "reason"),
    [(Faults(reboot_after=20_000), "brownout"), (Faults(hang_after=20_000), "task watchdog")],
    ids=["reboot", "hang"],
)
def test_a_board_that_goes_away_in_mid_stream_comes_back(
    bench: Bench, hosts: dict[str, Int8Runner], frames: Observations, faults: Faults, reason: str
) -> None:
    some = frames[:400]
    with faulty(bench, faults) as (device, _):
        for host in hosts.values():
            assert_decides_as(host, device, some)
        found = device.hello().reset_reason
        assert device.link.counters.repeats > 0
    assert found == reason
