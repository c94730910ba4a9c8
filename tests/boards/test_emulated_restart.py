"""A board whose clock runs at a rate of its own, as an emulator's does, is still seen to restart, or not to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from quant.boards.bench import Bench
from quant.boards.device import Device
from quant.boards.virtual import firmware
from quant.boards.virtual.board import VirtualBoard
from quant.errors import LinkError
from quant.wire.codec import Decoder, Frame, encode_frame
from quant.wire.messages import HelloReply, StatsReply
from quant.wire.protocol import REPLY, EvidenceCode, Message


def emulated(frame: Frame) -> bytes:
    """Its payload, as of a board whose hour is a second of ours."""
    if frame.type == Message.HELLO | REPLY:
        return replace(HelloReply.decode(frame.payload), evidence=EvidenceCode.EMULATED).encode()
    if frame.type == Message.STATS | REPLY:
        stats = StatsReply.decode(frame.payload)
        return replace(stats, uptime_ms=3_600_000 + 3600 * stats.uptime_ms).encode()
    return frame.payload


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    hear = firmware.Firmware._hear

    def heard(self: firmware.Firmware, data: bytes, now: float) -> bytes:
        out = hear(self, data, now)
        events = Decoder().feed(out)
        if not all(isinstance(event, Frame) for event in events):
            return out
        frames = [event for event in events if isinstance(event, Frame)]
        return b"".join(encode_frame(frame.type, frame.sequence, emulated(frame)) for frame in frames)

    monkeypatch.setattr(firmware.Firmware, "_hear", heard)
    with Bench(VirtualBoard(process=False)) as bench:
        yield bench.device


def test_a_restart_is_seen(device: Device) -> None:
    assert device.stats().uptime_ms > 3_600_000
    assert device.reset().reset_reason == "software"
    assert device.stats().frames_good < 20


def test_no_restart_is_not_taken_for_one(device: Device) -> None:
    with pytest.raises(LinkError, match="has not restarted"):
        device.await_restart(time.monotonic(), timeout=0.5)
