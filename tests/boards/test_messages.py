"""Every message says exactly what it was made of, and nothing else is taken for a message."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.errors import ProtocolError
from quant.observation.observations import F32
from quant.wire import messages as m
from quant.wire.protocol import (
    DECIDE_INTERFACES,
    MAX_PAYLOAD,
    MAX_SLOTS,
    ActionCode,
    Capability,
    ErrorCode,
    EvidenceCode,
    FaultKind,
    Message,
    PackStatus,
    PartCode,
    PoolingCode,
)
from tests.boards import strategies as some


def f4(values: Any) -> F32:
    return np.array(values, np.float32)


class Coded(Protocol):
    def encode(self) -> bytes: ...


REPLIES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (m.HelloReply.decode, some.hellos),
    (m.ModelsReply.decode, some.models),
    (m.DecideReply.decode, some.decisions),
    (m.InvokeReply.decode, some.invocations),
    (m.BenchReply.decode, some.benches),
    (m.StatsReply.decode, some.stats),
    (m.ErrorReply.decode, some.errors),
]


@pytest.mark.parametrize(("decode", "values"), REPLIES)
def test_replies_round_trip(decode: Any, values: st.SearchStrategy[Any]) -> None:
    @some.patient
    @given(values)
    def check(value: Coded) -> None:
        decoded = decode(value.encode())
        assert decoded.encode() == value.encode()
        if not isinstance(value, m.DecideReply):
            assert decoded == value

    check()


@pytest.mark.parametrize(("decode", "values"), REPLIES)
def test_a_cut_or_lengthened_reply_is_refused(decode: Any, values: st.SearchStrategy[Any]) -> None:
    @some.patient
    @given(values, st.data())
    def check(value: Coded, data: st.DataObject) -> None:
        payload = value.encode()
        # What ends a DECIDE or an INVOKE reply is as long as the models make it.
        open_end = len(value.interfaces) if isinstance(value, m.DecideReply) else 0
        open_end = len(value.output) if isinstance(value, m.InvokeReply) else open_end
        cut = data.draw(st.integers(0, len(payload) - open_end - 1))
        with pytest.raises(ProtocolError):
            decode(payload[:cut])
        if not isinstance(value, m.DecideReply | m.InvokeReply):
            with pytest.raises(ProtocolError, match="more than it should"):
                decode(payload + b"\0")

    check()


@some.patient
@given(st.binary(max_size=400))
def test_noise_is_refused_and_nothing_else_happens(payload: bytes) -> None:
    for decode, _ in REPLIES:
        try:
            value = decode(payload)
        except ProtocolError:
            continue
        assert decode(value.encode()).encode() == value.encode()


@some.patient
@given(some.decides())
def test_decide_requests_round_trip(request: m.DecideRequest) -> None:
    ego, features = len(request.ego), request.peers.shape[1]
    decoded = m.DecideRequest.decode(request.encode(), ego, features)
    np.testing.assert_array_equal(decoded.peers, request.peers)
    np.testing.assert_array_equal(decoded.ego, request.ego)
    np.testing.assert_array_equal(decoded.mask, request.mask)
    assert (decoded.slot, decoded.interfaces) == (request.slot, request.interfaces)
    assert len(request.encode()) <= MAX_PAYLOAD
    with pytest.raises(ProtocolError):
        m.DecideRequest.decode(request.encode()[:-1], ego + (not ego and not len(request.mask)), features)


@some.patient
@given(some.bench_requests())
def test_bench_requests_round_trip(request: m.BenchRequest) -> None:
    decoded = m.BenchRequest.decode(request.encode(), len(request.ego), request.peers.shape[1])
    assert decoded.encode() == request.encode()
    np.testing.assert_array_equal(decoded.peers, request.peers)
    assert (decoded.slot, decoded.warmup, decoded.repeats) == (request.slot, request.warmup, request.repeats)


@some.patient
@given(some.invokes, some.faults)
def test_other_requests_round_trip(invoke: m.InvokeRequest, fault: m.FaultRequest) -> None:
    assert m.InvokeRequest.decode(invoke.encode()) == invoke
    assert m.FaultRequest.decode(fault.encode()) == fault
    for empty in (m.HelloRequest, m.ModelsRequest, m.StatsRequest, m.ResetRequest):
        assert empty.decode(b"") == empty() and empty().encode() == b""
        with pytest.raises(ProtocolError):
            empty.decode(b"\0")


def test_layouts_by_hand() -> None:
    mask = np.array([True, False])
    decide = m.DecideRequest(3, f4([1.5]), f4([[1, 2], [3, np.nan]]), mask, interfaces=True)
    assert decide.encode() == bytes([3, DECIDE_INTERFACES, 2, 1, 0]) + f4([1.5, 1, 2, 3, np.nan]).tobytes()
    bench = m.BenchRequest(1, 10, 500, f4([1.5]), f4([[1, 2]]), np.array([True]))
    assert bench.encode() == bytes([1, 10, 0, 0xF4, 1, 1, 1]) + f4([1.5, 1, 2]).tobytes()
    assert m.InvokeRequest(2, PartCode.POLICY_HEAD, b"\x80\x7f").encode() == b"\2\1\x80\x7f"
    assert m.FaultRequest(FaultKind.HANG).encode() == b"\2"
    assert m.ErrorReply(ErrorCode.BAD_INPUT, Message.DECIDE, "NaN").encode() == b"\x09\x03\x03NaN"
    decision = m.DecideReply(1, 2, 0xFF, f4([0.5]), (1, 2, 3, 4, 5, 6), b"\x01")
    assert decision.encode() == bytes([1, 2, 255, 1]) + f4([0.5]).tobytes() + struct.pack("<6I", *range(1, 7)) + b"\1"
    assert m.InvokeReply(1, PartCode.PEER_ENCODER, 258, b"\x80").encode() == bytes([1, 0, 2, 1, 0, 0, 0x80])


def hello(**changes: Any) -> m.HelloReply:
    whole = m.HelloReply(
        1, EvidenceCode.SIMULATED, 3072, 8192, 1000, 4, Capability.TEST_FAULTS, 240_000_000, 240, 2,
        "24:0a:c4:00:01:10", 301, "ab" * 32, "0.1.0", "esp32", "esp32", "v5.5", "tflm", "", "power-on",
    )  # fmt: skip
    return replace(whole, **changes)


def test_hello_layout_by_hand() -> None:
    fixed = struct.pack("<BBHIHBIIHB", 1, 3, 3072, 8192, 1000, 4, 1, 240_000_000, 240, 2)
    expected = fixed + bytes.fromhex("240ac4000110") + struct.pack("<H", 301) + b"\xab" * 32
    words = ("0.1.0", "esp32", "esp32", "v5.5", "tflm", "", "power-on")
    assert hello().encode() == expected + b"".join(bytes([len(word)]) + word.encode() for word in words)


def models_of(*kinds: int) -> bytes:
    """A MODELS reply that breaks off after a slot's bits and residuals."""
    return bytes(34) + struct.pack("<IB", 9, 1) + b"\3ptq" + bytes([0, 0, 8, *kinds]) + bytes(8)


def test_models_layout_by_hand() -> None:
    part = m.PartInfo(100, "11" * 32, 5, None, m.TensorInfo(0.5, -3, 6), m.TensorInfo(0.25, 4, 32), ("TANH", "TANH"))
    slot = m.SlotInfo("ptq", PoolingCode.MEAN, ActionCode.BOX, 8, 16, 0, 256, 6, 4, 32, 1, part, part)
    packed = (
        struct.pack("<I", 100)
        + b"\x11" * 32
        + struct.pack("<IIfiHfiH", 5, 0xFFFFFFFF, 0.5, -3, 6, 0.25, 4, 32)
        + b"\x09TANH,TANH"
    )
    expected = (
        b"\0\2ok"
        + b"\x22" * 32
        + struct.pack("<IB", 9, 1)
        + b"\3ptq"
        + struct.pack("<6B4H", 2, 1, 8, 16, 0, 8, 6, 4, 32, 1)
    )
    assert m.ModelsReply(PackStatus.OK, "ok", "22" * 32, 9, (slot,)).encode() == expected + packed * 2


def test_stats_layout_by_hand() -> None:
    stats = m.StatsReply(1, 2, None, 4, 5, 6, 7, 8, None, 9, 10, 11, 12, 13, 14)
    expected = struct.pack("<8If6I", 1, 2, 0xFFFFFFFF, 4, 5, 6, 7, 8, float("nan"), *range(9, 15))
    assert stats.encode() == expected


def test_the_longest_models_reply_fits_a_frame() -> None:
    words = ("FULLY_CONNECTED",) * 15
    part = m.PartInfo(2**32 - 1, "11" * 32, 5, 6, m.TensorInfo(0.5, -3, 6), m.TensorInfo(0.25, 4, 32), words)
    slot = m.SlotInfo("x" * 15, PoolingCode.MEAN, ActionCode.BOX, 8, 8, 2, 2, 6, 4, 32, 1, part, part)
    reply = m.ModelsReply(PackStatus.OK, "w" * 255, "22" * 32, 9, (slot,) * MAX_SLOTS)
    assert len(reply.encode()) <= MAX_PAYLOAD


@pytest.mark.parametrize(
    ("decode", "payload", "words"),
    [
        (m.HelloReply.decode, b"\1\x09" + hello().encode()[2:], "EvidenceCode 9"),
        (m.HelloReply.decode, hello(ticks_per_second=0).encode(), "0 ticks"),
        (m.ModelsReply.decode, b"\x63\0" + bytes(37), "PackStatus 99"),
        (m.ModelsReply.decode, models_of(12, 0, 0), "codes of 12 bits"),
        (m.ModelsReply.decode, models_of(8, 9, 0), "residuals of 9 and 0"),
        (m.ModelsReply.decode, models_of(8, 0, 9), "residuals of 0 and 9"),
        (m.InvokeReply.decode, b"\0\2" + bytes(4), "PartCode 2"),
        (m.FaultRequest.decode, b"\x09", "FaultKind 9"),
        (lambda p: m.DecideRequest.decode(p, 0, 1), b"\0\2\0", "flags"),
        (lambda p: m.DecideRequest.decode(p, 0, 1), b"\0\0\1\2" + bytes(4), "mask"),
    ],
)
def test_unknown_codes_are_named(decode: Any, payload: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        decode(payload)


def test_long_words_are_cut_and_still_read() -> None:
    reply = m.ErrorReply(1, 2, "é" * 200)
    assert m.ErrorReply.decode(reply.encode()).words == "é" * 127 + "\N{REPLACEMENT CHARACTER}"


def test_a_reply_to_another_request_is_refused() -> None:
    mask = np.array([True, False])
    request = m.DecideRequest(1, f4([0]), np.zeros((2, 1), np.float32), mask)
    good = m.DecideReply(1, 1, 0, f4([0]), (0,) * 6)
    assert request.reply(good.encode()).slot == 1
    for wrong in (replace(good, slot=0), replace(good, present=2), replace(good, interfaces=b"x")):
        with pytest.raises(ProtocolError):
            request.reply(wrong.encode())
    invoke = m.InvokeRequest(1, PartCode.POLICY_HEAD, b"")
    for slot, part in ((0, PartCode.POLICY_HEAD), (1, PartCode.PEER_ENCODER)):
        with pytest.raises(ProtocolError):
            invoke.reply(m.InvokeReply(slot, part, 0, b"").encode())
    bench = m.BenchRequest(1, 0, 7, f4([0]), np.zeros((2, 1), np.float32), mask)
    stages = (m.TickQuantiles(1, 2, 3, 4),) * 6
    assert bench.reply(m.BenchReply(1, 7, stages).encode()).stages == stages
    for slot, repeats in ((0, 7), (1, 8)):
        with pytest.raises(ProtocolError):
            bench.reply(m.BenchReply(slot, repeats, stages).encode())
