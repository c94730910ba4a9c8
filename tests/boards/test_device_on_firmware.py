"""The library's view of a board, with the firmware's own core at the other end of a pseudo-terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace

import numpy as np
import pytest

from quant.boards.device import Device
from quant.boards.pack import build_pack, read_pack
from quant.boards.virtual.board import VirtualBoard, VirtualOptions
from quant.errors import DeviceError
from quant.observation.observations import Observations
from quant.policy.policy import Pooling
from quant.runners import Decision, Int8Runner
from quant.tracks.candidate import PARTS, Candidate, code_type
from quant.wire.link import Link
from quant.wire.protocol import ErrorCode, FaultKind, PackStatus
from quant.wire.streams import PyserialStream
from tests.boards.candidates import fine, wide
from tests.runners.candidates import box_policy, quantize_policy, random_observations, random_policy


def candidate(track: str, pooling: Pooling, share_scale: bool) -> Candidate:
    return replace(quantize_policy(random_policy(pooling=pooling), share_scale=share_scale), track=track)


CANDIDATES = (
    replace(quantize_policy(box_policy()), track="box"),
    candidate("max", "max", False),
    candidate("sum", "sum", False),
    candidate("mean", "mean", True),
)
FINER = (
    replace(wide(box_policy()), track="int16-box"),
    replace(wide(random_policy(pooling="max"), share_scale=False), track="int16-max"),
    replace(wide(random_policy(pooling="mean"), share_scale=False), track="int16-mean"),
    replace(fine(random_policy(pooling="sum"), peer=16, ego=256), track="residual-sum"),
)
FINER_TOO = (
    replace(wide(random_policy(pooling="sum"), share_scale=False), track="int16-sum"),
    replace(fine(box_policy(), peer=0, ego=16), track="residual-ego"),
    replace(fine(box_policy(), peer=2, ego=0), track="residual-peers"),
    candidate("plain", "max", True),
)
PACK = build_pack(CANDIDATES)


@contextmanager
def opened(pack: bytes) -> Iterator[Device]:
    with VirtualBoard(pack, VirtualOptions(boot_seconds=0.02, watchdog_seconds=0.1)) as board:
        link = Link(PyserialStream(board.port))
        yield Device.open(link)
        link.close()


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    with opened(PACK) as device:
        yield device


@pytest.fixture(scope="module")
def finer() -> Iterator[Device]:
    with opened(build_pack(FINER)) as device:
        yield device


@pytest.fixture(scope="module")
def finer_too() -> Iterator[Device]:
    with opened(build_pack(FINER_TOO)) as device:
        yield device


def test_the_board_reads_the_pack_as_it_was_written(device: Device) -> None:
    models, pack = device.models(), read_pack(PACK)
    assert (models.status, models.sha256, models.size) == (PackStatus.OK, pack.sha256, len(PACK))
    for slot, track in zip(models.slots, pack.tracks, strict=True):
        assert (slot.track, slot.pooling, slot.action) == (track.track, track.pooling, track.action)
        assert {"peer_encoder": slot.peer_encoder.sha256, "policy_head": slot.policy_head.sha256} == track.hashes
        assert slot.policy_head.input.scale == track.head_input.scale


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda candidate: candidate.track)
def test_decisions_are_the_hosts(device: Device, candidate: Candidate) -> None:
    decides_as_the_host(device, candidate)


@pytest.mark.parametrize("candidate", FINER, ids=lambda candidate: candidate.track)
def test_finer_decisions_are_the_hosts(finer: Device, candidate: Candidate) -> None:
    decides_as_the_host(finer, candidate)


@pytest.mark.parametrize("candidate", FINER_TOO, ids=lambda candidate: candidate.track)
def test_other_finer_decisions_are_the_hosts(finer_too: Device, candidate: Candidate) -> None:
    decides_as_the_host(finer_too, candidate)


def test_the_board_says_how_fine_its_codes_are(finer: Device, finer_too: Device) -> None:
    for device, candidates in ((finer, FINER), (finer_too, FINER_TOO)):
        for slot, candidate in zip(device.models().slots, candidates, strict=True):
            assert slot.bits == candidate.bits
            assert (slot.peer_residual, slot.ego_residual) == (
                candidate.peer_input.residual,
                candidate.ego_input.residual,
            )
            assert slot.peer_encoder.input.size == candidate.peer_input.size


def decides_as_the_host(device: Device, candidate: Candidate) -> None:
    seen = random_observations(300, ego=len(candidate.ego_input.gain), present=0.5)
    seen.peers[~seen.mask] = np.nan
    runner, found = Int8Runner(candidate), device.decide(candidate.track, seen)
    expected = runner.decide(seen)
    for item in fields(Decision):
        ours, theirs = getattr(found.decision, item.name), getattr(expected, item.name)
        assert ours.dtype == theirs.dtype == code_type(candidate.bits)
        np.testing.assert_array_equal(ours, theirs, item.name)
    np.testing.assert_array_equal(found.values, runner.values(seen))
    for part in PARTS:
        peers = expected.peer_inputs.reshape(-1, candidate.peer_input.size)
        rows = expected.head_inputs if part == "policy_head" else peers
        np.testing.assert_array_equal(device.invoke(candidate.track, part, rows), runner.engine.invoke(part, rows))


def test_it_times_itself(device: Device) -> None:
    seen = random_observations(1, ego=6)
    times = device.bench("box", seen, 5, 50)
    assert all(0 < time.minimum <= time.median <= time.p99 <= time.maximum for time in times.values())
    stages = sum(time.median for name, time in times.items() if name != "total")
    assert stages <= times["total"].median < 20_000
    one = device.decide("box", seen).microseconds[0]
    np.testing.assert_allclose(one[-1], times["total"].median, rtol=0.5)


def test_it_refuses_what_is_no_number_and_goes_on(device: Device) -> None:
    seen = random_observations(20, ego=6)
    seen.ego[7, 0] = np.nan
    with pytest.raises(DeviceError, match="NaN") as caught:
        device.decide("box", seen)
    assert caught.value.code == ErrorCode.BAD_INPUT
    good = Observations(seen.ego[:7], seen.peers[:7], seen.mask[:7])
    np.testing.assert_array_equal(device.decide("box", good).values, Int8Runner(CANDIDATES[0]).values(good))


def test_it_comes_back(device: Device) -> None:
    seen = random_observations(5, ego=6)
    before = device.decide("box", seen).values
    assert device.reset().reset_reason == "software"
    for kind, reason in ((FaultKind.PANIC, "panic"), (FaultKind.HANG, "task watchdog")):
        since = time.monotonic()
        device.fault(kind)
        assert device.await_restart(since).reset_reason == reason
        np.testing.assert_array_equal(device.decide("box", seen).values, before)


def test_its_own_faults_do_not_pass_unseen(device: Device) -> None:
    seen = random_observations(5, ego=6)
    before, damaged = device.decide("box", seen), device.link.counters.damage.total()
    device.fault(FaultKind.CORRUPT_REPLY)
    np.testing.assert_array_equal(device.decide("box", seen).values, before.values)
    assert device.link.counters.damage.total() == damaged + 1
    device.fault(FaultKind.CORRUPT_OUTPUT)
    after = device.decide("box", seen).decision
    assert (after.outputs != before.decision.outputs).sum() == 1
