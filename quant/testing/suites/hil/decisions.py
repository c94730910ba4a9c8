"""Whole decisions: the board's are the host's, and they have the properties a set policy has."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quant.boards.device import Device
from quant.boards.measure import conform
from quant.boards.report import DeviceReport
from quant.errors import DeviceError
from quant.observation.observations import F32
from quant.policy import Observations
from quant.runners import Int8Runner
from quant.runs.run import Run
from quant.testing.hil_plugin import Record
from quant.testing.suites.hil.expectations import Raw, assert_decides_as, assert_refused
from quant.testing.suites.hil.strategies import not_finite, observations
from quant.wire.messages import DecideRequest
from quant.wire.protocol import DECIDE_INTERFACES, ErrorCode, FaultKind, Message, PartCode

pytestmark = pytest.mark.hil

NAME = attrgetter("name")

Hosts = dict[str, Int8Runner]

on_the_board = settings(
    derandomize=True,
    deadline=None,
    max_examples=40,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""A board answers in its own time, and the same examples each time."""


def test_every_held_out_frame_is_decided_as_on_the_host(
    report: DeviceReport, frames: Observations, track: str, record: Record
) -> None:
    conformance = report.tracks[track].conformance
    record("decisions compared", conformance.compared, "")
    record("decisions differing", conformance.differing, "")
    assert conformance.compared == len(frames) > 0
    assert conformance.differing == 0, str(conformance)


def test_one_wrong_bit_is_seen_and_its_stage_named(
    device: Device, run: Run, track: str, some_frames: Observations, deliberate_faults: None
) -> None:
    device.fault(FaultKind.CORRUPT_OUTPUT)
    found = conform(device, run.candidates[track], some_frames)
    assert (found.differing, dict(found.first), found.example) == (1, {"head": 1}, 0)
    assert conform(device, run.candidates[track], some_frames).differing == 0


def test_one_wrong_bit_of_a_sub_model_is_seen(device: Device, track: str, deliberate_faults: None) -> None:
    slot = device.slot(track)[1]
    rows = np.zeros((3, slot.policy_head.input.size), slot.dtype)
    device.fault(FaultKind.CORRUPT_OUTPUT)
    out = device.invoke(track, "policy_head", rows)
    assert (out[0] != out[1]).any() and (out[1] == out[2]).all()


@on_the_board
@given(data=st.data())
def test_any_finite_observation_is_decided_as_on_the_host(
    device: Device, hosts: Hosts, track: str, data: st.DataObject
) -> None:
    _, slot = device.slot(track)
    seen = data.draw(observations(slot))
    assert_decides_as(hosts[track], device, seen)


@on_the_board
@given(data=st.data())
def test_the_order_of_peers_does_not_matter(device: Device, track: str, data: st.DataObject) -> None:
    _, slot = device.slot(track)
    seen = data.draw(observations(slot, least=2))
    order = np.array(data.draw(st.permutations(range(slot.max_peers))))
    found = device.decide(track, seen)
    other = device.decide(track, Observations(seen.ego, seen.peers[:, order], seen.mask[:, order]))
    np.testing.assert_array_equal(other.values, found.values)
    np.testing.assert_array_equal(other.decision.head_inputs, found.decision.head_inputs)
    np.testing.assert_array_equal(other.decision.embeddings, found.decision.embeddings[:, order])


@on_the_board
@given(data=st.data())
def test_what_is_masked_out_does_not_matter(device: Device, track: str, data: st.DataObject) -> None:
    _, slot = device.slot(track)
    seen = data.draw(observations(slot))
    peers = seen.peers.copy()
    peers[~seen.mask] = data.draw(not_finite | st.floats(width=32))
    found, other = (device.decide(track, Observations(seen.ego, p, seen.mask)) for p in (seen.peers, peers))
    assert_same(other.values, found.values)
    for name in ("peer_inputs", "embeddings", "head_inputs", "outputs"):
        np.testing.assert_array_equal(getattr(other.decision, name), getattr(found.decision, name))


@on_the_board
@given(data=st.data())
def test_padding_does_not_matter(device: Device, hosts: Hosts, track: str, data: st.DataObject) -> None:
    """Peers alone, in as many slots as there are peers; among empty slots; in any slots: one decision."""
    _, slot = device.slot(track)
    seen = data.draw(observations(slot))
    peers = seen.peers[seen.mask][None]
    bare = Observations(seen.ego, peers, np.ones(peers.shape[:2], np.bool_))
    assert_decides_as(hosts[track], device, bare)
    assert_same(device.decide(track, bare).values, device.decide(track, seen).values)


@pytest.mark.parametrize("slots", ["none", "empty"])
def test_nobody_around_is_a_decision_too(
    device: Device, hosts: Hosts, track: str, frames: Observations, slots: str
) -> None:
    _, slot = device.slot(track)
    kept = 0 if slots == "none" else slot.max_peers
    alone = Observations(frames.ego[:50], frames.peers[:50, :kept], np.zeros((50, kept), np.bool_))
    assert_decides_as(hosts[track], device, alone)


def test_a_full_house_is_a_decision_too(device: Device, hosts: Hosts, track: str) -> None:
    _, slot = device.slot(track)
    rng = np.random.default_rng(8)
    ego, peers = rng.normal(size=(50, slot.ego)), rng.normal(size=(50, slot.max_peers, slot.features))
    mask = np.ones((50, slot.max_peers), np.bool_)
    assert_decides_as(hosts[track], device, Observations(ego.astype(np.float32), peers.astype(np.float32), mask))


@on_the_board
@given(data=st.data())
def test_what_is_not_a_number_is_refused(device: Device, hosts: Hosts, track: str, data: st.DataObject) -> None:
    _, slot = device.slot(track)
    good = data.draw(observations(slot))
    ego, peers = good.ego.copy(), good.peers.copy()
    where = data.draw(st.integers(0, slot.ego + int(good.mask.sum()) * slot.features - 1))
    wrong = data.draw(not_finite)
    if where < slot.ego:
        ego[0, where] = wrong
    else:
        present = np.flatnonzero(good.mask)[(where - slot.ego) // slot.features]
        peers[0, present, (where - slot.ego) % slot.features] = wrong
    with pytest.raises(DeviceError) as refusal:
        device.decide(track, Observations(ego, peers, good.mask))
    assert ErrorCode(refusal.value.code) is ErrorCode.BAD_INPUT
    assert_decides_as(hosts[track], device, good)


def test_more_peers_than_the_models_take_are_refused(
    device: Device, track: str, decides_right: Callable[[], None]
) -> None:
    number, slot = device.slot(track)
    for peers in (slot.max_peers + 1, 255):
        body = np.zeros((peers, slot.features if peers == slot.max_peers + 1 else 1), np.float32)
        request = DecideRequest(number, np.zeros(slot.ego, np.float32), body, np.zeros(peers, np.bool_))
        assert_refused(device, Raw(Message.DECIDE, request.encode()), ErrorCode.TOO_MANY_PEERS)
    decides_right()


@pytest.mark.parametrize("excess", [-4, -1, 1, 4])
@pytest.mark.parametrize("kind", [Message.DECIDE, Message.INVOKE, Message.BENCH], ids=NAME)
def test_a_payload_of_another_size_is_refused(
    device: Device, track: str, kind: Message, excess: int, some_frames: Observations, decides_right: Callable[[], None]
) -> None:
    good = payload(device, track, kind, some_frames)
    wrong = good + bytes(excess) if excess > 0 else good[:excess]
    assert_refused(device, Raw(kind, wrong), ErrorCode.BAD_LENGTH)
    decides_right()


@pytest.mark.parametrize("kind", [Message.DECIDE, Message.INVOKE, Message.BENCH], ids=NAME)
def test_no_payload_at_all_is_refused(device: Device, kind: Message) -> None:
    assert_refused(device, Raw(kind, b""), ErrorCode.BAD_LENGTH)


def test_a_track_or_a_part_that_is_not_there_is_refused(
    device: Device, track: str, some_frames: Observations, decides_right: Callable[[], None]
) -> None:
    slots = len(device.models().slots)
    for kind in (Message.DECIDE, Message.INVOKE, Message.BENCH):
        good = payload(device, track, kind, some_frames)
        for number in (slots, 255):
            assert_refused(device, Raw(kind, bytes([number]) + good[1:]), ErrorCode.UNKNOWN_SLOT)
    good = payload(device, track, Message.INVOKE, some_frames)
    for part in (len(PartCode), 255):
        assert_refused(device, Raw(Message.INVOKE, good[:1] + bytes([part]) + good[2:]), ErrorCode.UNKNOWN_SLOT)
    decides_right()


def test_a_mask_is_0_or_1(device: Device, track: str, some_frames: Observations) -> None:
    good = payload(device, track, Message.DECIDE, some_frames)
    for value in (2, 0x80, 0xFF):
        assert_refused(device, Raw(Message.DECIDE, good[:3] + bytes([value]) + good[4:]), ErrorCode.BAD_INPUT)


def test_flags_nobody_knows_are_refused(device: Device, track: str, some_frames: Observations) -> None:
    good = payload(device, track, Message.DECIDE, some_frames)
    flags = DECIDE_INTERFACES | 0x80
    assert_refused(device, Raw(Message.DECIDE, good[:1] + bytes([flags]) + good[2:]), ErrorCode.BAD_ARGUMENT)


@pytest.mark.parametrize(("warmup", "repeats"), [(0, 0), (1001, 1), (0, 0xFFFF)])
def test_a_benchmark_has_its_limits(
    device: Device, track: str, some_frames: Observations, warmup: int, repeats: int
) -> None:
    good = payload(device, track, Message.BENCH, some_frames)
    counts = warmup.to_bytes(2, "little") + repeats.to_bytes(2, "little")
    assert_refused(device, Raw(Message.BENCH, good[:1] + counts + good[5:]), ErrorCode.BAD_ARGUMENT)


def test_the_interfaces_are_told_only_if_asked_for(device: Device, track: str, some_frames: Observations) -> None:
    bare, whole = (device.decide(track, some_frames, interfaces=asked) for asked in (False, True))
    assert bare.interfaces is None and whole.interfaces is not None
    assert_same(bare.values, whole.values)
    np.testing.assert_array_equal(bare.actions, whole.actions)


def assert_same(found: F32, expected: F32) -> None:
    """Bit by bit."""
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def payload(device: Device, track: str, kind: Message, frames: Observations) -> bytes:
    """A good one."""
    number, slot = device.slot(track)
    if kind is Message.INVOKE:
        return bytes([number, PartCode.PEER_ENCODER]) + bytes(slot.peer_encoder.input.size * slot.dtype.itemsize)
    request = DecideRequest(number, frames.ego[0], frames.peers[0], frames.mask[0]).encode()
    return request if kind is Message.DECIDE else request[:1] + bytes([0, 0, 1, 0]) + request[2:]
