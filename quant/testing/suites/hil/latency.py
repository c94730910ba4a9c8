"""What a decision takes by the board's own clock: each stage, each number of peers; held against the limit."""

from __future__ import annotations

import numpy as np
import pytest

from quant.acceptance.decision import Verdict
from quant.acceptance.device import TIMES
from quant.boards.device import Device
from quant.boards.report import STAGE_NAMES, TOTAL, DeviceReport
from quant.errors import InputError
from quant.policy import Observations
from quant.runs.run import Run
from quant.testing.hil_plugin import Record
from quant.testing.plugin import Hold
from quant.testing.suites.hil.expectations import recorded_criteria
from quant.wire.protocol import EvidenceCode, Stage

pytestmark = pytest.mark.hil

SLACK_MICROSECONDS = 25.0
"""What may pass between the stages of a decision: calls, and a reading of the clock each."""


def test_times_of_every_number_of_peers(report: DeviceReport, run: Run, track: str, record: Record) -> None:
    own = report.tracks[track]
    for times in own.times:
        for name, stage in times.stages.items():
            for quantile in ("minimum", "median", "p99", "maximum"):
                record(f"{times.peers} peers, {name}, {quantile}", getattr(stage, quantile), "us")
    assert [times.peers for times in own.times] == list(range(run.candidates[track].max_peers + 1))
    assert own.repeats >= 100 and own.warmup > 0
    for times in own.times:
        assert tuple(times.stages) == STAGE_NAMES
        for stage in times.stages.values():
            assert 0 <= stage.minimum <= stage.median <= stage.p99 <= stage.maximum
        assert times.total.minimum > 0


def test_a_decision_is_in_time(confirmed: Verdict, track: str, record: Record, hold: Hold) -> None:
    hold(*recorded_criteria(confirmed, track, TIMES, record))


def test_the_stages_of_a_decision_add_up(device: Device, frames: Observations, track: str, record: Record) -> None:
    """Stages lie within the total, which is timed by itself, and hardly anything lies between them."""
    found = device.decide(track, frames[:200], interfaces=False)
    ticks = found.ticks.astype(np.int64)  # microseconds of stages add up to more, by what their floats round
    total, stages = ticks[:, Stage.TOTAL], ticks[:, : Stage.TOTAL].sum(axis=1)
    microsecond = found.ticks_per_second / 1e6
    between = float(np.median(total - stages)) / microsecond
    record("between the stages, median", between, "us")
    assert (stages <= total).all()
    assert between <= SLACK_MICROSECONDS + 0.1 * float(np.median(total)) / microsecond


def test_the_worst_number_of_peers_is_what_counts(report: DeviceReport, track: str) -> None:
    own = report.tracks[track]
    shown = report.evidence(track)
    assert shown.latency_p99_ms == max(times.stages[TOTAL].p99 for times in own.times) / 1000
    assert shown.latency_max_ms == max(times.stages[TOTAL].maximum for times in own.times) / 1000
    assert shown.latency_p99_ms <= shown.latency_max_ms


def test_more_peers_take_no_less(device: Device, report: DeviceReport, track: str) -> None:
    if device.identity.evidence not in {EvidenceCode.SIMULATED, EvidenceCode.EMULATED}:
        pytest.skip("a real clock measures more than the work: only counted instructions must grow with the peers")
    least = [times.total.minimum for times in report.tracks[track].times]
    assert least == sorted(least) and least[0] < least[-1]


def test_the_encoder_runs_once_a_peer(report: DeviceReport, track: str) -> None:
    own = report.tracks[track]
    alone, full = own.times[0].stages["encode"].median, own.times[-1].stages["encode"].median
    assert alone < own.times[1].stages["encode"].median < full


def test_as_many_decisions_are_timed_as_were_asked_for(device: Device, some_frames: Observations, track: str) -> None:
    before = device.stats().decisions
    device.bench(track, some_frames[:1], 7, 101)
    assert device.stats().decisions - before == 108
    with pytest.raises(InputError, match="to time"):
        device.bench(track, some_frames[:2], 0, 1)
