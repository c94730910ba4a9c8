"""Hypothesis strategies for frames, messages and what happens to them on a line."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quant.observation.observations import F32, Mask
from quant.wire.codec import Event, Text
from quant.wire.messages import (
    STAGES,
    BenchReply,
    BenchRequest,
    DecideReply,
    DecideRequest,
    ErrorReply,
    FaultRequest,
    HelloReply,
    InvokeReply,
    InvokeRequest,
    ModelsReply,
    PartInfo,
    SlotInfo,
    StatsReply,
    TensorInfo,
    TickQuantiles,
)
from quant.wire.protocol import (
    MAX_EGO,
    MAX_FEATURES,
    MAX_PAYLOAD,
    MAX_PEERS,
    NOT_AVAILABLE,
    ActionCode,
    Capability,
    EvidenceCode,
    FaultKind,
    PackStatus,
    PartCode,
    PoolingCode,
)

patient = settings(deadline=None)
"""A busy machine takes its time."""

u8, u16, u32 = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
i32 = st.integers(-(1 << 31), (1 << 31) - 1)
f32 = st.floats(width=32, allow_nan=False)
known = st.none() | st.integers(0, NOT_AVAILABLE - 1)
sha = st.binary(min_size=32, max_size=32).map(bytes.hex)
words = st.text(max_size=60)
payloads = st.binary(max_size=40) | st.integers(0, MAX_PAYLOAD).map(bytes) | st.binary(min_size=240, max_size=520)
text = st.lists(st.sampled_from([*b"\t\n\r\x1b aZ~\x7f\x80\xff"]) | st.integers(0x20, 0xFF), max_size=50).map(
    bytes
) | st.sampled_from([b"\n", b"I (312) main_task: Calling app_main()\n", b"Guru Meditation Error: \xe2\x80\xa6\r\n"])


def _tuple(items: list[Any]) -> tuple[Any, ...]:
    return tuple(items)


def merged(events: Iterable[Event]) -> list[Event]:
    """Neighbouring pieces of text joined: where text is cut means nothing."""
    out: list[Event] = []
    for event in events:
        if isinstance(event, Text) and out and isinstance(out[-1], Text):
            out[-1] = Text(out[-1].data + event.data)
        else:
            out.append(event)
    return out


def floats(*shape: int) -> st.SearchStrategy[F32]:
    """float32 arrays, infinities among them."""
    size = int(np.prod(shape))
    return st.lists(f32, min_size=size, max_size=size).map(lambda x: np.array(x, np.float32).reshape(shape))


def chunks(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """``data`` cut anywhere."""

    def cut(places: list[int]) -> list[bytes]:
        edges = [0, *sorted(places), len(data)]
        return [data[a:b] for a, b in pairwise(edges)]

    every_byte = st.just([bytes([byte]) for byte in data])
    return st.lists(st.integers(0, len(data)), max_size=12).map(cut) | every_byte


hellos = st.builds(
    HelloReply,
    protocol=u8,
    evidence=st.sampled_from(EvidenceCode),
    max_payload=u16,
    rx_buffer=u32,
    max_repeats=u16,
    max_slots=u8,
    capabilities=u32.map(Capability),
    ticks_per_second=st.integers(1, 0xFFFFFFFF),
    cpu_mhz=u16,
    cores=u8,
    mac=st.binary(min_size=6, max_size=6).map(lambda mac: mac.hex(":")),
    chip_revision=u16,
    elf_sha256=sha,
    firmware=words,
    chip=words,
    target=words,
    idf=words,
    engine=words,
    kernels=words,
    reset_reason=words,
)
tensors = st.builds(TensorInfo, f32, i32, u16)
residuals = st.sampled_from([0, 2, 16, 256])
operators = st.lists(st.sampled_from(["FULLY_CONNECTED", "TANH"]), max_size=6).map(tuple)
parts = st.builds(PartInfo, u32, sha, known, known, tensors, tensors, operators)
slots = st.builds(
    SlotInfo,
    st.text(max_size=15),
    st.sampled_from(PoolingCode),
    st.sampled_from(ActionCode),
    u8,
    st.sampled_from([8, 16]),
    residuals,
    residuals,
    u16,
    u16,
    u16,
    u16,
    parts,
    parts,
)
models = st.builds(ModelsReply, st.sampled_from(PackStatus), words, sha, u32, st.lists(slots, max_size=4).map(_tuple))
stats = st.builds(StatsReply, u32, *[known] * 7, st.none() | f32, *[u32] * 6)
ticks = st.lists(u32, min_size=STAGES, max_size=STAGES).map(_tuple)
decisions = st.builds(DecideReply, u8, u8, u8, st.integers(0, 8).flatmap(floats), ticks, st.binary(max_size=300))
invocations = st.builds(InvokeReply, u8, st.sampled_from(PartCode), u32, st.binary(max_size=128))
benches = st.builds(
    BenchReply,
    u8,
    u16,
    st.lists(st.builds(TickQuantiles, u32, u32, u32, u32), min_size=STAGES, max_size=STAGES).map(_tuple),
)
errors = st.builds(ErrorReply, u8, u8, words)
invokes = st.builds(InvokeRequest, u8, st.sampled_from(PartCode), st.binary(max_size=192))
faults = st.builds(FaultRequest, st.sampled_from(FaultKind))


@st.composite
def observations(draw: st.DrawFn) -> tuple[F32, F32, Mask]:
    """The ego, peers and mask of one observation of any sizes."""
    peers, features = draw(st.integers(0, MAX_PEERS)), draw(st.integers(1, MAX_FEATURES))
    rng = np.random.default_rng(draw(u32))
    mask: NDArray[np.bool_] = rng.random(peers) < 0.5
    everything = rng.normal(size=(peers, features)).astype(np.float32)
    everything[~mask] = np.nan  # what is absent is never read
    return draw(st.integers(0, MAX_EGO).flatmap(floats)), everything, mask


@st.composite
def decides(draw: st.DrawFn) -> DecideRequest:
    """DECIDE requests."""
    return DecideRequest(draw(u8), *draw(observations()), draw(st.booleans()))


@st.composite
def bench_requests(draw: st.DrawFn) -> BenchRequest:
    """BENCH requests."""
    return BenchRequest(draw(u8), draw(u16), draw(u16), *draw(observations()))
