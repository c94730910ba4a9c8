"""Thousands of decisions without a pause: nothing is lost, nothing is counted twice, every one is right."""

from __future__ import annotations

import time

import numpy as np
import pytest

from quant.boards.device import Device
from quant.dataset import spread
from quant.policy import Observations
from quant.runners import Int8Runner
from quant.testing.hil_plugin import Record
from quant.wire.protocol import EvidenceCode

pytestmark = pytest.mark.hil

DECISIONS = 5000
"""Of each track: about 15 seconds of a line of 921600 baud."""
PATIENCE = 60.0
"""Seconds without a reply that mean a loss here: a host that is busy with something else has lost nothing."""


@pytest.mark.slow
def test_a_long_stream_of_decisions(
    device: Device,
    hosts: dict[str, Int8Runner],
    frames: Observations,
    track: str,
    record: Record,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device.link, "timeout", PATIENCE)
    device.slot(track)  # asks for the models, if nobody has yet
    some = frames[np.resize(np.random.default_rng(1).permutation(spread(len(frames), DECISIONS)), DECISIONS)]
    counters = device.link.counters
    damaged, lost = counters.damage.total(), (counters.repeats, counters.gaps, counters.silences, counters.strays)
    complaints, sent = counters.line_errors.total(), counters.frames_out
    asked = time.monotonic()
    before = device.stats()
    began = time.monotonic()
    found = device.decide(track, some, interfaces=False)
    seconds = time.monotonic() - began
    after = device.stats()
    longest = time.monotonic() - asked
    # The host's clock, and whatever else the host did meanwhile: never a latency.
    record("streamed, host's view", DECISIONS / seconds, "decisions/s")
    record("repeats", counters.repeats - lost[0], "")
    np.testing.assert_array_equal(found.values.view(np.uint32), hosts[track].values(some).view(np.uint32))
    assert (counters.repeats, counters.gaps, counters.silences, counters.strays) == lost
    assert (counters.damage.total(), counters.line_errors.total()) == (damaged, complaints)
    assert counters.frames_out - sent == DECISIONS + 2
    assert after.decisions - before.decisions == DECISIONS
    assert after.frames_good - before.frames_good == DECISIONS + 1
    assert after.invokes - before.invokes == 0
    unchanged = ("frames_bad", "bad_crc", "noise_bytes")
    assert [getattr(after, name) for name in unchanged] == [getattr(before, name) for name in unchanged]
    assert after.uptime_ms >= before.uptime_ms
    if device.identity.evidence is not EvidenceCode.EMULATED:  # whose time goes as fast as it gets instructions
        # Each STATS was answered at some time while the host waited for it.
        up = (after.uptime_ms - before.uptime_ms) / 1000
        assert 0.95 * seconds - 0.5 < up < 1.05 * longest + 0.5
