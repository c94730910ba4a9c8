"""Injected faults: what they do to bytes, and that the codec notices every one."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.boards.virtual.faults import ByteRates, Faults, FaultyLine, LineFault
from quant.errors import InputError
from quant.wire.codec import Damage, Decoder, Frame, encode_frame

MIXED = ByteRates(drop=0.05, flip=0.05, duplicate=0.05, delay=0.05)


def carried(line: FaultyLine, data: bytes) -> bytes:
    return b"".join(stretch.data for stretch in line.carry(data))


def test_without_rates_bytes_pass() -> None:
    line = FaultyLine(ByteRates(), (0, 0))
    assert carried(line, bytes(range(256))) == bytes(range(256))
    assert not line.counts


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6), st.integers(0, 5), st.integers(0, 100))
def test_the_same_seed_does_the_same_however_bytes_are_cut(data: bytes, cuts: list[int], seed: int, first: int) -> None:
    whole, pieces = (FaultyLine(MIXED, (seed, 0), first) for _ in range(2))
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    cut = b"".join(carried(pieces, data[start:end]) for start, end in pairwise(edges))
    assert cut == carried(whole, data)
    assert pieces.counts == whole.counts
    assert cut[:first] == data[:first]


def test_seeds_and_directions_differ() -> None:
    data = bytes(1000)
    seen = {carried(FaultyLine(MIXED, seed), data) for seed in ((0, 0), (0, 1), (1, 0))}
    assert len(seen) == 3


def test_every_byte_is_lost_twice_there_or_one_bit_off() -> None:
    data = bytes(range(256)) * 4
    assert carried(FaultyLine(ByteRates(drop=1), (0, 0)), data) == b""
    assert carried(FaultyLine(ByteRates(duplicate=1), (0, 0)), data) == bytes(np.repeat(list(data), 2).tolist())
    flipped = carried(FaultyLine(ByteRates(flip=1), (0, 0)), data)
    bits = Counter(before ^ after for before, after in zip(data, flipped, strict=True))
    assert set(bits) == {1 << bit for bit in range(8)}


def test_faults_come_at_their_rates_and_are_counted() -> None:
    line = FaultyLine(MIXED, (0, 0))
    out = carried(line, bytes(200_000))
    for fault in LineFault:
        assert line.counts[fault] == pytest.approx(10_000, rel=0.05)
    assert len(out) == 200_000 - line.counts[LineFault.DROP] + line.counts[LineFault.DUPLICATE]
    assert sum(byte != 0 for byte in out) == line.counts[LineFault.FLIP]


def test_a_delayed_byte_holds_up_what_follows() -> None:
    line = FaultyLine(ByteRates(delay=0.01, delay_seconds=0.25), (3, 0))
    stretches = line.carry(bytes(range(200)))
    assert b"".join(stretch.data for stretch in stretches) == bytes(range(200))
    assert sum(stretch.wait == 0.25 for stretch in stretches) == line.counts[LineFault.DELAY] > 0


@pytest.mark.parametrize("rates", [{"drop": -0.1}, {"flip": 1.1}, {"drop": 0.6, "flip": 0.6}, {"delay_seconds": -1.0}])
def test_chances_are_chances(rates: dict[str, float]) -> None:
    with pytest.raises(InputError):
        ByteRates(**rates)


@pytest.mark.parametrize("fault", [LineFault.DROP, LineFault.FLIP, LineFault.DUPLICATE])
def test_no_harmed_frame_passes_for_another(fault: LineFault) -> None:
    """20,000 frames, one byte in 50 harmed: whatever comes out as a frame is one that was sent."""
    rng = np.random.default_rng(7)
    sent = {n: rng.bytes(int(rng.integers(0, 40))) for n in range(20_000)}
    line = FaultyLine(ByteRates(**{fault.value: 0.02}), (11, 0))
    decoder = Decoder()
    events = [
        event for n, payload in sent.items() for event in decoder.feed(carried(line, encode_frame(1, n, payload)))
    ]
    whole = [event for event in events if isinstance(event, Frame)]
    assert all(sent[frame.sequence] == frame.payload for frame in whole)
    assert line.counts[fault] > 8_000
    assert len(sent) / 3 < len(whole) < len(sent)
    assert any(isinstance(event, Damage) for event in events)


def test_defaults_are_harmless() -> None:
    faults = Faults()
    assert faults.to_board.none and faults.to_host.none
    assert faults.reboot_after is faults.hang_after is None
    assert not (faults.another_model or faults.false_elf_hash or faults.false_model_hash)
