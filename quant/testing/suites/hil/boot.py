"""What the board prints and how it comes back, read by pytest-embedded's ``dut`` on the same port."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from quant.boards.bench import Bench
from quant.boards.device import Device
from quant.testing.hil_plugin import Record
from quant.wire.link import Link
from quant.wire.messages import FaultRequest, ResetRequest
from quant.wire.protocol import Capability, EvidenceCode, FaultKind, PackStatus
from quant.wire.streams import PytestEmbeddedStream

if TYPE_CHECKING:
    from pytest_embedded.dut import Dut

pytestmark = pytest.mark.hil

BOOT_LINE = re.compile(rb"quant (\S+) elf ([0-9a-f]{16}) target (\S+) slots (\d+)")
PANIC = re.compile(rb"Guru Meditation Error|abort\(\) was called|panic", re.IGNORECASE)
WATCHDOG = re.compile(rb"watchdog got triggered", re.IGNORECASE)
BOOT_SECONDS = 30
WATCHDOG_SECONDS = 10
"""Twice what the firmware's task watchdog waits."""
EMULATED_SLOWER = 6
"""An emulated second of a loop is 250 million instructions: they take the host as long as they take it."""


@contextmanager
def speaking(dut: Dut) -> Iterator[Device]:
    """The board over pytest-embedded's own port; text goes to its log, and to ``expect``, all the same."""
    stream = PytestEmbeddedStream(dut.serial)
    link = Link(stream, log=stream.log)
    try:
        yield Device.open(link)
    finally:
        link.close()


@pytest.fixture
def can_recover(bench: Bench) -> None:
    """Skips where nothing brings the board back from a hang."""
    if Capability.WATCHDOG not in bench.device.identity.capabilities:
        pytest.skip("this board has no watchdog")


def test_the_board_says_at_boot_which_firmware_it_runs(
    board_dut: Dut, device: Device, record: Record, decides_right: Callable[[], None]
) -> None:
    with speaking(board_dut) as opened:
        hello, slots = opened.hello(), opened.models().slots
        opened.link.request(ResetRequest())
    line = board_dut.expect(BOOT_LINE, timeout=BOOT_SECONDS)
    version, elf, target, count = (group.decode() for group in line.groups())
    record("boot line", line.group().decode(), "")
    assert (version, target, int(count)) == (hello.firmware, hello.target, len(slots))
    assert elf == hello.elf_sha256[:16]


def test_a_reset_starts_everything_anew(
    bench: Bench, device: Device, decides_right: Callable[[], None], record: Record
) -> None:
    decides_right()
    began = time.monotonic()
    before = device.stats()
    hello = device.reset()
    seconds = time.monotonic() - began
    record("reset to first answer, host's view", seconds, "s")
    after = device.stats()
    assert hello.reset_reason == "software"
    assert hello.mac == device.hello().mac
    assert before.decisions > 0 == after.decisions == after.invokes
    assert after.frames_good < 100
    if hello.evidence is not EvidenceCode.EMULATED:  # whose time goes as fast as it gets instructions
        assert after.uptime_ms / 1000 <= time.monotonic() - began
    assert device.models().status is PackStatus.OK
    decides_right()


def test_a_hard_reset_starts_everything_anew(bench: Bench, device: Device, decides_right: Callable[[], None]) -> None:
    decides_right()
    with bench.lent():
        bench.board.hard_reset()
    assert device.stats().decisions == 0
    assert device.stats().frames_good < 100
    decides_right()


def test_a_panic_is_told_and_the_board_comes_back(
    bench: Bench, board_dut: Dut, deliberate_faults: None, request: pytest.FixtureRequest
) -> None:
    with speaking(board_dut) as opened:
        mac = opened.hello().mac
        opened.link.request(FaultRequest(FaultKind.PANIC))
    if bench.device.identity.evidence is not EvidenceCode.COMPUTED:  # a process of the host aborts without a word
        board_dut.expect(PANIC, timeout=BOOT_SECONDS)
    board_dut.expect(BOOT_LINE, timeout=BOOT_SECONDS)
    with speaking(board_dut) as opened:
        hello = opened.hello()
        assert (hello.reset_reason, hello.mac) == ("panic", mac)
        assert opened.stats().decisions == 0
        assert opened.models().status is PackStatus.OK


def test_a_hang_is_ended_by_the_watchdog(
    bench: Bench, board_dut: Dut, deliberate_faults: None, can_recover: None, record: Record
) -> None:
    with speaking(board_dut) as opened:
        opened.link.request(FaultRequest(FaultKind.HANG))
    emulated = bench.device.identity.evidence is EvidenceCode.EMULATED
    began = time.monotonic()
    board_dut.expect(WATCHDOG, timeout=WATCHDOG_SECONDS * (EMULATED_SLOWER if emulated else 1))
    record("hang to watchdog, host's view", time.monotonic() - began, "s")
    board_dut.expect(BOOT_LINE, timeout=BOOT_SECONDS)
    with speaking(board_dut) as opened:
        assert "watchdog" in opened.hello().reset_reason
        assert opened.stats().decisions == 0


def test_after_all_that_the_board_decides_right(decides_right: Callable[[], None]) -> None:
    decides_right()
