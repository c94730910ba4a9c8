"""A board's report is read back as it was written; a damaged one is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from quant.boards.conformance import Conformance
from quant.boards.report import (
    STAGE_NAMES,
    DeviceReport,
    Identity,
    Memory,
    ModelReport,
    PeerTimes,
    Quantiles,
    TrackReport,
    load_report,
    report_name,
)
from quant.errors import InputError
from quant.wire.messages import HelloReply
from quant.wire.protocol import EvidenceCode
from tests.boards.strategies import hellos


def quantiles(base: float) -> Quantiles:
    return Quantiles(base, base + 1, base + 2, base + 3)


def times(peers: int, base: float) -> PeerTimes:
    return PeerTimes(peers, {stage: quantiles(base + turn) for turn, stage in enumerate(STAGE_NAMES)})


def report(**board: Any) -> DeviceReport:
    identity = Identity(
        *("bench-1", "measured", "esp32", "3.1", "24:0a:c4:00:00:01", 240, 2, "esp32", "0.1.0", "e" * 64),
        *("v5.5.5", "1.4.0", "1.2.3", 240_000_000),
    )
    model = ModelReport(4576, "a" * 64, 620, 8192, ("FULLY_CONNECTED",))
    track = TrackReport(
        {"peer_encoder": model, "policy_head": replace(model, arena_used=None, arena_size=None)},
        Conformance(1000, 2, {"head": 2}, 17),
        20,
        200,
        (times(0, 100.0), times(8, 5000.0), times(1, 300.0)),
    )
    memory = Memory(200_000, 180_000, 2048, 300_000, 1_500_000, 21_000, 524_288, None)
    return DeviceReport(replace(identity, **board), "f" * 64, {"ptq": track}, memory)


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    report().save(tmp_path)
    assert load_report(tmp_path / report_name("bench-1")) == report()


def test_its_evidence_is_the_worst_number_of_peers() -> None:
    shown = report().evidence("ptq")
    total = 5000.0 + len(STAGE_NAMES) - 1
    assert (shown.latency_p99_ms, shown.latency_max_ms) == ((total + 2) / 1000, (total + 3) / 1000)
    assert (shown.compared, shown.differing) == (1000, 2)
    assert (shown.heap_bytes, shown.stack_bytes) == (180_000, 2048)
    assert shown.board == "esp32 revision 3.1 at 240 MHz, 24:0a:c4:00:00:01"


def test_only_a_measured_board_is_called_by_its_chip() -> None:
    assert str(report(evidence="simulated", name="virtual", chip="virtual").board) == "virtual board"
    assert str(report(evidence="emulated", name="qemu").board) == "qemu board, esp32"


@pytest.mark.parametrize(("code", "evidence"), [(code, code.name.lower()) for code in EvidenceCode])
@given(hello=hellos)
def test_evidence_is_what_the_board_says(code: EvidenceCode, evidence: str, hello: HelloReply) -> None:
    hello = replace(hello, evidence=code, chip_revision=301)
    found = Identity.of("x", hello)
    assert (found.evidence, found.revision, found.mac) == (evidence, "3.1", hello.mac)


DAMAGE: dict[str, Any] = {
    "no version": lambda it: it.pop("schema_version"),
    "another version": lambda it: it.update(schema_version=99),
    "no board": lambda it: it.pop("board"),
    "an unknown kind of evidence": lambda it: it["board"].update(evidence="believed"),
    "a board with more": lambda it: it["board"].update(colour="green"),
    "no tracks": lambda it: it.pop("tracks"),
    "a NaN that others hide": lambda it: it["tracks"]["ptq"]["times"][2]["stages"]["total"].update(p99=float("nan")),
    "a 99th percentile above the maximum": lambda it: it["tracks"]["ptq"]["times"][0]["stages"]["total"].update(
        p99=1e9
    ),
    "repeats as words": lambda it: it["tracks"]["ptq"].update(repeats="many"),
    "another board's name": lambda it: it["board"].update(name="bench-2"),
    "no times": lambda it: it["tracks"]["ptq"].update(times=[]),
    "a time that is no number": lambda it: it["tracks"]["ptq"]["times"][0]["stages"]["total"].update(p99="fast"),
    "a time that is not finite": lambda it: it["tracks"]["ptq"]["times"][0]["stages"]["total"].update(maximum=1e999),
    "a negative time": lambda it: [t["stages"]["total"].update(p99=-1.0) for t in it["tracks"]["ptq"]["times"]],
    "a missing stage": lambda it: it["tracks"]["ptq"]["times"][1]["stages"].pop("pool"),
    "negative differences": lambda it: it["tracks"]["ptq"]["conformance"].update(differing=-1),
    "more differences than decisions": lambda it: it["tracks"]["ptq"]["conformance"].update(differing=1001),
    "half a decision": lambda it: it["tracks"]["ptq"]["conformance"].update(compared=2.5),
    "differences as words": lambda it: it["tracks"]["ptq"]["conformance"].update(differing="none"),
    "differences as a truth": lambda it: it["tracks"]["ptq"]["conformance"].update(differing=False),
    "a missing model": lambda it: it["tracks"]["ptq"]["models"].pop("policy_head"),
    "heap as words": lambda it: it["memory"].update(heap_minimum="enough"),
    "negative stack": lambda it: it["memory"].update(stack_left=-5),
    "a list": None,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_report_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / report_name("bench-1")
    report().save(tmp_path)
    document = json.loads(path.read_text())
    if DAMAGE[damage] is None:
        document = [document]
    else:
        DAMAGE[damage](document)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError) as refusal:
        load_report(path)
    assert str(path) in str(refusal.value)


def test_a_missing_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        load_report(tmp_path / "device_none.json")
