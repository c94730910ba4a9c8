"""What only a real line shows: it is full, and nothing overruns."""

from __future__ import annotations

import time

import numpy as np
import pytest

from quant.boards.bench import Bench
from quant.dataset import spread
from quant.policy import Observations
from quant.testing.hil_plugin import Record

pytestmark = pytest.mark.hil

DECISIONS = 1000
"""With every interface, and requests of many peers: both directions are busy."""
SHARE = 0.7
"""Least share of the baud rate that one direction carries. USB bridges and the host's scheduling take some of it."""


@pytest.mark.board_only
def test_a_full_line_loses_nothing(bench: Bench, frames: Observations, track: str, record: Record) -> None:
    link = bench.device.link
    crowded = frames[np.argsort(-frames.mask.sum(axis=1), kind="stable")[: DECISIONS * 4]]
    some = crowded[spread(len(crowded), min(DECISIONS, len(crowded)))]
    counters = link.counters
    before = (counters.bytes_in, counters.bytes_out)
    lost = (counters.repeats, counters.gaps, counters.silences, counters.damage.total(), counters.line_errors.total())
    noise = bench.device.stats()
    began = time.monotonic()
    bench.device.decide(track, some)
    seconds = time.monotonic() - began
    rates = [(now - then) / seconds for now, then in zip((counters.bytes_in, counters.bytes_out), before, strict=True)]
    for name, rate in zip(("to the host", "to the board"), rates, strict=True):
        record(f"bytes {name}, host's view", rate, "bytes/s")
        record(f"share of the line {name}, host's view", rate / (bench.board.baud / 10), "")
    quiet = bench.device.stats()
    assert lost == (
        counters.repeats,
        counters.gaps,
        counters.silences,
        counters.damage.total(),
        counters.line_errors.total(),
    )
    assert (quiet.frames_bad, quiet.bad_crc) == (noise.frames_bad, noise.bad_crc)
    assert max(rates) >= SHARE * bench.board.baud / 10 or _is_busy(bench, track, some)


def _is_busy(bench: Bench, track: str, some: Observations) -> bool:
    """Whether the chip, not the line, is the limit: its own time for these decisions is most of the time they took."""
    began = time.monotonic()
    found = bench.device.decide(track, some)
    seconds = time.monotonic() - began
    return float(found.microseconds[:, -1].sum()) / 1e6 > 0.5 * seconds
