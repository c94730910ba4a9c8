"""What the run may claim after this board: only the target chip confirms a winner."""

from __future__ import annotations

import pytest

from quant.acceptance.decision import Verdict
from quant.acceptance.limits import Limits
from quant.boards.device import Device
from quant.boards.report import DeviceReport, load_report
from quant.testing.hil_plugin import Record
from quant.wire.protocol import EvidenceCode

pytestmark = pytest.mark.hil


def test_the_verdict_claims_what_the_board_proved(
    confirmed: Verdict, report: DeviceReport, limits: Limits, record: Record
) -> None:
    record("status", confirmed.status, "")
    record("winner", confirmed.winner or "none", "")
    record("device", confirmed.device, "")
    if confirmed.winner is None:
        pytest.skip("there is no winner to confirm: " + "; ".join(confirmed.why))
    what = f"{limits.target.upper()} latency + memory"
    if report.board.evidence == "measured" and report.board.chip == limits.target:
        assert confirmed.device.startswith(f"{what}: confirmed - ")
    elif report.board.evidence == "measured":
        assert confirmed.status == "provisional"
        assert confirmed.device == f"{what}: unproven - measured on {report.board.chip}, the target is {limits.target}"
    else:
        assert confirmed.status == "provisional"
        because = f"what is {report.board.evidence} is not measured on a board"
        assert confirmed.device == f"{what}: unproven - {because}"


def test_the_report_is_of_this_board(report: DeviceReport, device: Device) -> None:
    hello = device.hello()
    assert (report.board.mac, report.board.elf_sha256, report.board.chip) == (hello.mac, hello.elf_sha256, hello.chip)
    assert report.board.evidence == EvidenceCode(hello.evidence).name.lower()
    assert report.pack_sha256 == device.models().sha256


def test_the_report_can_be_read_back(report: DeviceReport, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("report")
    report.save(folder)
    assert load_report(folder / f"device_{report.board.name}.json") == report
