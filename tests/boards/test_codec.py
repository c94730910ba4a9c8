"""Whatever a line does to the bytes, a frame is right or is not there, and text gets through."""

from __future__ import annotations

import random
import time
import zlib

import pytest
from cobs import cobs
from hypothesis import example, given
from hypothesis import strategies as st

from quant.wire.codec import MAX_SEGMENT, Damage, Decoder, Event, Frame, Text, encode_frame
from quant.wire.protocol import CRC_SIZE, HEADER_SIZE, MAX_PAYLOAD, VERSION, ErrorCode
from tests.boards import strategies as some

frames = st.builds(Frame, some.u8, some.u16, some.payloads)


def encode(frame: Frame) -> bytes:
    return encode_frame(frame.type, frame.sequence, frame.payload, frame.version)


def decode(data: bytes) -> list[Event]:
    return some.merged(Decoder().feed(data))


@some.patient
@given(frames)
def test_round_trip(frame: Frame) -> None:
    wire = encode(frame)
    assert wire[0] == wire[-1] == 0 and 0 not in wire[1:-1] and len(wire) - 2 <= MAX_SEGMENT
    assert decode(wire) == [frame]


def test_layout() -> None:
    content = bytes([VERSION, 0x83, 0x34, 0x12, 2, 0, 0xAB, 0x00])
    wire = b"\0" + cobs.encode(content + zlib.crc32(content).to_bytes(4, "little")) + b"\0"
    assert encode_frame(0x83, 0x1234, b"\xab\0") == wire


def test_longest_frame() -> None:
    for payload in (bytes(MAX_PAYLOAD), b"\xff" * MAX_PAYLOAD):
        assert decode(encode_frame(1, 2, payload)) == [Frame(1, 2, payload)]
    with pytest.raises(ValueError, match="3073 bytes"):
        encode_frame(1, 2, bytes(MAX_PAYLOAD + 1))


@some.patient
@given(st.lists(some.text | frames, max_size=8), st.data())
def test_text_between_frames_is_never_lost(parts: list[bytes | Frame], data: st.DataObject) -> None:
    wire = b"".join(part if isinstance(part, bytes) else encode(part) for part in parts)
    decoder = Decoder()
    events = [event for chunk in data.draw(some.chunks(wire)) for event in decoder.feed(chunk)]
    expected: list[Event] = [Text(part) if isinstance(part, bytes) else part for part in parts if part]
    assert some.merged(events) == some.merged(expected)


pieces = st.one_of(
    some.text,
    frames.map(encode),
    st.binary(max_size=30),
    st.just(b"\0"),
    st.sampled_from(
        [b"x" * MAX_SEGMENT, b"\1" * MAX_SEGMENT, b"ab" * 1400 + b"\n", b"\xff" * (MAX_SEGMENT - 1) + b"\n"]
    ),
)


@some.patient
@given(st.lists(pieces, max_size=8), st.data())
@example([b"\0", b"\n", encode_frame(1, 2, b"abc"), b"abc\n\n", b"\x80\x01"], None)
def test_portions_make_no_difference(parts: list[bytes], data: st.DataObject | None) -> None:
    wire = b"".join(parts)
    portions = [bytes([byte]) for byte in wire] if data is None else data.draw(some.chunks(wire))
    decoder = Decoder()
    assert some.merged([event for portion in portions for event in decoder.feed(portion)]) == decode(wire)


@some.patient
@given(st.lists(pieces, max_size=6), frames)
def test_a_frame_gets_through_whatever_came_before(parts: list[bytes], frame: Frame) -> None:
    # Two zeros at most are needed to end what came before.
    assert decode(b"".join(parts) + b"\0" + encode(frame))[-1] == frame


@some.patient
@given(frames, st.lists(frames, max_size=2), st.data())
def test_any_single_corrupted_byte_is_detected(frame: Frame, after: list[Frame], data: st.DataObject) -> None:
    wire = bytearray(encode(frame))
    place = data.draw(st.integers(0, len(wire) - 1))
    wire[place] ^= data.draw(st.integers(1, 255))
    events = decode(bytes(wire) + b"".join(map(encode, after)))
    # The frame is gone, it is known that something was there, and what follows is right.
    assert [event for event in events if isinstance(event, Frame)] == after
    unfinished = place == len(wire) - 1 and not after
    assert unfinished or any(isinstance(event, Damage | Text) for event in events)


@some.patient
@given(frames, st.data())
def test_any_lost_or_repeated_byte_is_detected(frame: Frame, data: st.DataObject) -> None:
    wire = encode(frame)
    place = data.draw(st.integers(1, len(wire) - 2))
    for harmed in (wire[:place] + wire[place + 1 :], wire[: place + 1] + wire[place:]):
        assert not any(isinstance(event, Frame) for event in decode(harmed + b"\0\0"))


@some.patient
@given(frames, st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=2, max_size=20))
def test_no_wrong_frame_is_ever_accepted(frame: Frame, flips: list[tuple[int, int]]) -> None:
    wire = bytearray(encode(frame))
    for place, bits in flips:
        wire[place % len(wire)] ^= bits
    assert all(event == frame for event in decode(bytes(wire)) if isinstance(event, Frame))


def damaged(content: bytes, *, crc: int | None = None) -> bytes:
    value = zlib.crc32(content) if crc is None else crc
    stuffed: bytes = cobs.encode(content + value.to_bytes(CRC_SIZE, "little"))
    return b"\0" + stuffed + b"\0"


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\0\xff\x01\x02\x03\0", ErrorCode.BAD_FRAME),
        (damaged(b"\1\1\1\1\0"), ErrorCode.BAD_FRAME),
        (damaged(b"\1\1\1\0\0\0", crc=5), ErrorCode.BAD_CRC),
        (damaged(b"\1\1\1\0\1\0"), ErrorCode.BAD_LENGTH),
        (damaged(b"\1\1\1\0\1\0ab"), ErrorCode.BAD_LENGTH),
        (damaged(bytes(HEADER_SIZE + MAX_PAYLOAD + 1)), ErrorCode.TOO_LONG),
        (b"\0" + b"\1" * MAX_SEGMENT + b"\5\0", ErrorCode.TOO_LONG),
        (b"\0" + b"\1" * 100_000 + b"\0", ErrorCode.TOO_LONG),
    ],
)
def test_damage_is_named_once_and_leaves_the_decoder_right(wire: bytes, code: ErrorCode) -> None:
    good = Frame(0x81, 7, b"payload")
    events = decode(wire + encode(good) + b"log\n" + encode(good))
    causes = [event.code for event in events if isinstance(event, Damage)]
    assert causes == [code]
    assert events[-3:] == [good, Text(b"log\n"), good]


@pytest.mark.parametrize("wire", [damaged(b"\1\1\1\0\0\0", crc=5), b"\0\xff\x01\x02\0"])
def test_the_zero_behind_damage_may_open_the_next_frame(wire: bytes) -> None:
    good = Frame(0x81, 7, b"payload")
    assert decode(wire[:-1] + encode(good))[1:] == [good]


def test_the_longest_damage_is_no_longer_than_a_frame() -> None:
    (event,) = (event for event in decode(b"\0" + b"\1" * 100_000) if isinstance(event, Damage))
    assert len(event.data) == MAX_SEGMENT + 1


def test_another_version_is_a_frame_that_says_so() -> None:
    assert decode(encode_frame(1, 2, b"x", version=2)) == [Frame(1, 2, b"x", 2)]


def test_text_after_a_stray_zero_comes_out_with_its_line_end() -> None:
    decoder = Decoder()
    assert decoder.feed(b"\0Backtrace: 0x400") == []
    assert some.merged(decoder.feed(b"d1\nRebooting...\n")) == [Text(b"Backtrace: 0x400d1\nRebooting...\n")]
    assert decoder.feed(b"boot") == []
    assert decoder.feed(encode_frame(1, 2)) == [Text(b"boot"), Frame(1, 2, b"")]


def test_text_that_a_lost_zero_glued_to_a_frame_is_in_the_damage() -> None:
    wire = encode_frame(1, 2, b"abc")[:-1] + b"\nI (5) main: ready\nI (6) main: go" + b"\0"
    (damage,) = decode(wire)
    assert isinstance(damage, Damage)
    assert damage.text == b"I (5) main: ready\nI (6) main: go"


def test_a_frame_that_begins_like_a_newline_is_not_text() -> None:
    frame = Frame(0x83, 0x0101, b"\1\1\1" + bytes(254))  # the first zero of the content is its tenth byte
    wire = encode(frame)
    assert wire[1:2] == b"\n"
    decoder = Decoder()
    assert [event for byte in wire for event in decoder.feed(bytes([byte]))] == [frame]


def test_speed() -> None:
    noise = random.Random(0).randbytes(400)
    wire = b"".join(encode_frame(0x83, i, noise) + b"I (1) log\n" for i in range(3000))
    decoder, start = Decoder(), time.thread_time()
    found = sum(len(decoder.feed(wire[at : at + 256])) for at in range(0, len(wire), 256))
    seconds = time.thread_time() - start
    assert found >= 6000 and len(wire) / seconds > 1e6
