"""Whatever comes over the line, the board answers with its error, counts it, and decides right the next time."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
from cobs import cobs

from quant.boards.bench import Bench
from quant.boards.device import Device
from quant.policy import Observations
from quant.runners import Int8Runner
from quant.testing.suites.hil.expectations import Raw
from quant.testing.suites.hil.wire import Heard, Wire
from quant.wire.codec import MAX_SEGMENT, encode_frame
from quant.wire.messages import HelloRequest, ModelsRequest, ResetRequest, StatsRequest
from quant.wire.protocol import ERROR, MAX_PAYLOAD, REPLY, VERSION, Capability, ErrorCode, FaultKind, Message
from quant.wire.streams import PyserialStream

pytestmark = pytest.mark.hil

NAME = attrgetter("name")

STATS = encode_frame(Message.STATS, 700)
LINE_ERROR = (0, 0)
"""Type and sequence an error names where the frame could not be read."""


class Line(Wire):
    """The bench's line, and what the board has to answer on it after whatever was done to it."""

    def __init__(self, stream: PyserialStream, hosts: dict[str, Int8Runner], tracks: list[str], seen: Observations):
        super().__init__(stream)
        self.port: Any = stream._port
        self._hosts, self._tracks, self._seen = hosts, tracks, seen

    def is_right(self) -> None:
        for slot, track in enumerate(self._tracks):
            self.decides_right(self._hosts[track], slot, self._seen)


@pytest.fixture
def line(bench: Bench, device: Device, hosts: dict[str, Int8Runner], some_frames: Observations) -> Iterator[Line]:
    tracks = [slot.track for slot in device.models().slots]
    assert set(tracks) == set(hosts)
    with bench.lent() as port, closing(PyserialStream(port, bench.board.baud)) as stream:
        yield Line(stream, hosts, tracks, some_frames[-1:])


def damaged(frame: bytes, place: int, mask: int = 1) -> bytes:
    return frame[:place] + bytes([frame[place] ^ mask]) + frame[place + 1 :]


def raw_frame(content: bytes) -> bytes:
    """Any content in a frame's COBS."""
    stuffed: bytes = cobs.encode(content)
    return b"\0" + stuffed + b"\0"


LINE_ERRORS = {
    "a damaged byte": (damaged(STATS, len(STATS) - 3), ErrorCode.BAD_CRC),
    "a lost byte": (STATS[:4] + STATS[5:], None),
    "a frame without its end": (STATS[:-4] + b"\0", None),
    "an empty COBS block": (b"\0\x01\x01\x01\0", ErrorCode.BAD_FRAME),
    "a COBS code past the end": (b"\0\x7f\x01\x02\x03\0", ErrorCode.BAD_FRAME),
    "less than a header": (raw_frame(bytes([VERSION, Message.STATS, 1])), ErrorCode.BAD_FRAME),
    "one control byte": (b"\0\x01\0", ErrorCode.BAD_FRAME),
    "control bytes": (b"\0" + bytes(range(1, 32)) * 4 + b"\0", None),
    "as long as a frame can be": (b"\0" + b"\x01" * MAX_SEGMENT + b"\0", None),
    "longer than a frame can be": (b"\0" + b"\x01" * (MAX_SEGMENT + 1) + b"\0", ErrorCode.TOO_LONG),
    "much longer": (b"\0" + b"\x01\x02" * MAX_SEGMENT + b"\0", ErrorCode.TOO_LONG),
}


@pytest.mark.parametrize(("data", "code"), LINE_ERRORS.values(), ids=LINE_ERRORS.keys())
def test_what_is_no_frame_is_refused_once(line: Line, data: bytes, code: ErrorCode | None) -> None:
    heard = Heard.of(data)
    assert heard.bad == 1 and code in {None, heard.complaints[0][0]}
    before = line.stats()
    line.send(data)
    assert line.answer().error == (heard.complaints[0][0], *LINE_ERROR)
    line.is_right()
    after = line.stats()
    assert after.frames_bad - before.frames_bad == 1
    assert after.bad_crc - before.bad_crc == heard.bad_crc
    assert after.noise_bytes - before.noise_bytes == heard.noise
    assert line.all() == []


def test_every_cut_of_a_frame_is_survived(line: Line) -> None:
    """A frame that ends anywhere, and the next one right behind it."""
    before, cut = line.stats(), range(1, len(STATS) - 1)
    bad = 0
    for length in cut:
        data = STATS[:length] + line.frame(StatsRequest())
        bad += Heard.of(data).bad
        line.send(data)
        *complaints, stats = line.until(line.sequence)
        assert [one.error[0] for one in complaints] == [code for code, _ in Heard.of(data).complaints]
        assert stats.type == Message.STATS | REPLY
    assert bad >= len(STATS) - 4
    assert line.stats().frames_bad - before.frames_bad == bad
    line.is_right()


def test_every_flipped_bit_is_seen(line: Line) -> None:
    """No single wrong bit of a request passes for another request."""
    frame = encode_frame(Message.INVOKE, 0x0501, bytes([0, 0, 5, 250]))
    for bit in range(8, 8 * (len(frame) - 1)):
        data = damaged(frame, bit // 8, 1 << bit % 8) + line.frame(StatsRequest())
        assert Heard.of(data).frames == 1
        line.send(data)
        *complaints, stats = line.until(line.sequence)
        assert [one.error[0] for one in complaints] == [code for code, _ in Heard.of(data).complaints]
        assert stats.type == Message.STATS | REPLY
    line.is_right()


def test_garbage_is_heard_as_the_hosts_decoder_hears_it(line: Line) -> None:
    """Random bytes, each portion with a frame behind it: the same complaints, the same counts, and an answer."""
    rng = np.random.default_rng(2)
    before = line.stats()
    bad = crc = noise = 0
    portions = 150
    for portion in range(portions):
        size = int(rng.integers(1, 400))
        values = rng.integers(0, 256, size) if portion % 2 else rng.choice([0, 1, 2, 3, 10, 13, 65, 255], size)
        data = bytes(values.astype(np.uint8)) + line.frame(StatsRequest())
        heard = Heard.of(data)
        assert heard.frames == 1
        line.send(data)
        *complaints, stats = line.until(line.sequence)
        assert [one.error[0] for one in complaints] == [code for code, _ in heard.complaints]
        assert stats.type == Message.STATS | REPLY
        bad, crc, noise = bad + heard.bad, crc + heard.bad_crc, noise + heard.noise
    after = line.stats()
    assert after.frames_good - before.frames_good == portions + 1
    assert (after.frames_bad - before.frames_bad, after.bad_crc - before.bad_crc) == (bad, crc)
    assert after.noise_bytes - before.noise_bytes == noise
    line.is_right()


@pytest.mark.parametrize(
    "text",
    [b"hello\r\n", b"reset\n" * 100, b"\0" * 1000, b"\0some words\0", b"\0a line\n\0", bytes(range(0x20, 0x100)) * 20],
    ids=["a line", "many lines", "zeros", "words between zeros", "a line between zeros", "8 bits"],
)
def test_text_and_zeros_are_no_requests(line: Line, text: bytes) -> None:
    before = line.stats()
    line.send(text)
    assert line.all() == []
    line.is_right()
    after = line.stats()
    assert after.frames_bad == before.frames_bad
    assert after.noise_bytes - before.noise_bytes == Heard.of(text + STATS).noise


def test_another_version_is_refused(line: Line) -> None:
    before = line.stats()
    for version in (0, VERSION + 1, 255):
        line.send(encode_frame(Message.STATS, 4242, version=version))
        assert line.answer().error == (ErrorCode.BAD_VERSION, Message.STATS, 4242)
    line.is_right()
    assert line.stats().frames_bad - before.frames_bad == 3


def test_a_message_nobody_knows_is_refused(line: Line) -> None:
    for kind in (0, max(Message) + 1, 0x7F, Message.HELLO | REPLY):
        line.send(encode_frame(kind, 1000 + kind))
        assert line.answer().error == (ErrorCode.UNKNOWN_TYPE, kind, 1000 + kind)
    line.is_right()


def test_an_error_is_never_answered(line: Line) -> None:
    """Else a line that echoes would never be quiet again."""
    line.send(encode_frame(ERROR, 900, b"\x01\x00\x00"))
    assert line.all() == []
    line.is_right()


@pytest.mark.parametrize("excess", [-5, -1, 1, 200])
def test_a_header_that_lies_about_its_length_is_refused(line: Line, excess: int) -> None:
    payload = bytes(8)
    honest: bytes = cobs.decode(encode_frame(Message.INVOKE, 77, payload)[1:-1])
    header = honest[:4] + (len(payload) + excess).to_bytes(2, "little")
    body = header + payload
    line.send(raw_frame(body + zlib.crc32(body).to_bytes(4, "little")))
    assert line.answer().error == (ErrorCode.BAD_LENGTH, Message.INVOKE, 77)
    line.is_right()


@pytest.mark.parametrize("kind", [Message.HELLO, Message.MODELS, Message.STATS, Message.RESET, Message.FAULT], ids=NAME)
def test_a_payload_where_none_belongs_is_refused(line: Line, kind: Message) -> None:
    for payload in (bytes(2), bytes(MAX_PAYLOAD)):
        line.send(line.frame(Raw(kind, payload)))
        assert line.answer().error == (ErrorCode.BAD_LENGTH, kind, line.sequence)
    line.is_right()


def test_a_sequence_is_accepted_once(line: Line) -> None:
    """A frame that the line gives twice is done once; a host that starts anew says HELLO and may use any sequence."""
    before = line.stats()
    line.send(line.frame(ModelsRequest()) * 3)
    first, *others = (line.answer() for _ in range(3))
    assert (first.type, first.sequence) == (Message.MODELS | REPLY, line.sequence)
    assert [one.error for one in others] == [(ErrorCode.DUPLICATE_SEQUENCE, Message.MODELS, line.sequence)] * 2
    twice = line.frame(HelloRequest(), sequence=line.sequence)
    line.send(twice * 2 + line.frame(StatsRequest(), sequence=line.sequence))
    assert [line.answer().type for _ in range(3)] == [
        Message.HELLO | REPLY,
        Message.HELLO | REPLY,
        Message.STATS | REPLY,
    ]
    line.is_right()
    assert line.stats().frames_bad == before.frames_bad


def test_a_refused_request_uses_its_sequence_up(line: Line) -> None:
    line.send(line.frame(Raw(Message.MODELS, b"?")) + line.frame(ModelsRequest(), sequence=line.sequence))
    assert line.answer().error[0] is ErrorCode.BAD_LENGTH
    assert line.answer().error[0] is ErrorCode.DUPLICATE_SEQUENCE
    line.is_right()


def test_requests_are_answered_in_their_order(line: Line) -> None:
    frames = [line.frame(ModelsRequest() if turn % 3 else StatsRequest()) for turn in range(12)]
    line.send(b"".join(frames))
    last = line.sequence
    assert [line.answer().sequence for _ in frames] == list(range(last - len(frames) + 1, last + 1))


def test_a_slow_sender_is_waited_for(line: Line) -> None:
    frame = line.frame(StatsRequest())
    for byte in frame:
        line.send(bytes([byte]))
        time.sleep(0.01)
    assert line.answer().type == Message.STATS | REPLY
    line.is_right()


def test_a_deliberately_damaged_reply_is_seen_and_asked_for_again(
    device: Device, decides_right: Callable[[], None], deliberate_faults: None
) -> None:
    counters = device.link.counters
    device.fault(FaultKind.CORRUPT_REPLY)
    damage, repeats = counters.damage["BAD_CRC"], counters.repeats
    decides_right()
    assert counters.damage["BAD_CRC"] - damage == 1
    assert counters.repeats - repeats == 1


def test_a_fault_nobody_knows_is_refused(line: Line, device: Device) -> None:
    known = Capability.TEST_FAULTS in device.identity.capabilities
    for kind in (0, max(FaultKind) + 1, 255):
        line.send(line.frame(Raw(Message.FAULT, bytes([kind]))))
        code = ErrorCode.BAD_ARGUMENT if known else ErrorCode.NOT_AVAILABLE
        assert line.answer().error == (code, Message.FAULT, line.sequence)
    line.is_right()


@pytest.mark.parametrize("length", [1, 5, len(STATS) - 1])
def test_a_reset_in_mid_frame_leaves_nothing_behind(bench: Bench, line: Line, length: int) -> None:
    line.send(STATS[:length])
    time.sleep(0.05)  # it is there before the reset
    bench.board.hard_reset(line.port)
    line.hello()
    line.is_right()
    stats = line.stats()
    assert stats.decisions <= 4, "it has not been reset"


def test_a_reset_that_was_asked_for_in_mid_stream(line: Line) -> None:
    """What stands behind RESET is lost with it; half a frame too."""
    line.send(line.frame(StatsRequest()) + line.frame(ResetRequest()))
    assert [line.answer().type for _ in range(2)] == [Message.STATS | REPLY, Message.RESET | REPLY]
    line.send(STATS[:7])
    line.hello()
    line.is_right()


def test_another_host_can_take_over_in_mid_frame(bench: Bench, line: Line, device: Device) -> None:
    """The host dies in the middle of a frame; the next one opens the port and is understood."""
    line.send(STATS[:9])
    stream = line._stream
    assert isinstance(stream, PyserialStream)
    stream.reopen()
    line.port = stream._port
    line.hello()
    line.is_right()
