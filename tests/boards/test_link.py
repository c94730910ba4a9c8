"""Every request is answered rightly or not at all, whatever the line does; and what it does is counted."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.errors import DeviceError, InputError, LinkError, ProtocolError
from quant.runners import Int8Runner
from quant.wire import messages as m
from quant.wire.codec import encode_frame
from quant.wire.exchange_log import ExchangeLog
from quant.wire.link import Link
from quant.wire.protocol import REPLY, VERSION, ErrorCode, FaultKind, Message
from tests.boards.stub import StubBoard, invoke_request
from tests.runners.candidates import quantize_policy, random_policy

CANDIDATE = quantize_policy(random_policy())
RUNNER = Int8Runner(CANDIDATE)
SHORT = 0.02


def board(**options: object) -> StubBoard:
    return StubBoard((CANDIDATE,), **options)  # type: ignore[arg-type]


def link(stub: StubBoard, **options: object) -> Link:
    return Link(stub, **{"timeout": SHORT, "rx_buffer": 8192, **options})  # type: ignore[arg-type]


def expected(number: int) -> bytes:
    row = np.frombuffer(invoke_request(number).input, np.int8)[None]
    return RUNNER.engine.invoke("peer_encoder", row).tobytes()


EXPECTED = [expected(number) for number in range(100)]


def outputs(asked: Link, count: int) -> list[bytes]:
    return [reply.output for reply in asked.stream(invoke_request(i) for i in range(count))]


def test_requests_are_answered() -> None:
    stub = board()
    asked = link(stub)
    assert asked.request(m.HelloRequest()).chip == "stub"
    assert asked.request(invoke_request(3)).output == EXPECTED[3]
    seen = asked.counters
    assert (seen.frames_out, seen.frames_in, seen.repeats, seen.strays, seen.silences) == (2, 2, 0, 0, 0)
    asked.close()
    assert stub.closed


def test_a_stream_keeps_many_under_way_and_the_order() -> None:
    stub = board()
    asked = link(stub)
    assert outputs(asked, 100) == EXPECTED
    size = len(encode_frame(Message.INVOKE, 1, invoke_request().encode()))
    assert stub.most_waiting == 64 * size


def test_the_board_works_on_while_replies_are_looked_at() -> None:
    stub = board()
    replies = link(stub).stream(invoke_request(i % 100) for i in range(300))
    next(replies)
    assert len(stub.requests) == 2 * 64


def test_silence_means_that_all_under_way_is_lost() -> None:
    asked = link(board(silent=10))
    assert outputs(asked, 10) == EXPECTED[:10]
    assert (asked.counters.silences, asked.counters.repeats, asked.counters.gaps) == (1, 10, 0)


@pytest.mark.parametrize("room", [100, 200, 1000])
def test_what_is_under_way_fits_the_boards_buffer(room: int) -> None:
    stub = board()
    asked = link(stub, rx_buffer=room)
    assert outputs(asked, 50) == EXPECTED[:50]
    size = len(encode_frame(Message.INVOKE, 1, invoke_request().encode()))
    assert room - size < stub.most_waiting <= room
    assert stub.writes == -(-50 // (room // size))


def test_one_frame_is_sent_even_if_it_is_larger_than_the_buffer() -> None:
    assert outputs(link(board(), rx_buffer=5), 3) == EXPECTED[:3]


class Every:
    """Damages every so-many-th piece of what passes."""

    def __init__(self, period: int, damage: str, first: int = 1) -> None:
        self.period, self.damage, self.count = period, damage, -first

    def __call__(self, data: bytes) -> bytes:
        out = bytearray()
        for frame in data.split(b"\0"):
            if frame:
                self.count += 1
                out += self.harmed(frame) if self.count % self.period == 0 else b"\0" + frame + b"\0"
        return bytes(out)

    def harmed(self, frame: bytes) -> bytes:
        whole = bytearray(b"\0" + frame + b"\0")
        if self.damage == "drop":
            return b""
        if self.damage == "flip":
            whole[len(whole) // 2] ^= 0x40
        if self.damage == "lose":
            del whole[len(whole) // 2]
        if self.damage == "closing":
            del whole[-1]
        if self.damage == "opening":
            del whole[0]
        if self.damage == "twice":
            whole = whole * 2
        if self.damage == "text":
            whole[:0] = b"W (12) noise\n"
        return bytes(whole)


@pytest.mark.parametrize("damage", ["drop", "flip", "lose", "closing", "opening", "twice", "text"])
@pytest.mark.parametrize("direction", ["to_board", "to_host"])
def test_a_stream_survives_what_a_line_does(direction: str, damage: str) -> None:
    stub = board(**{direction: Every(7, damage)})
    asked = link(stub)
    assert outputs(asked, 100) == EXPECTED
    seen = asked.counters
    if damage in {"drop", "flip", "lose"}:
        assert seen.repeats >= 14
    if damage == "flip":
        assert (seen.damage if direction == "to_host" else seen.line_errors).total() >= 14
    if damage == "twice":
        # The copy is refused as a duplicate by the board, or it is a stray here.
        assert seen.strays >= 14 and seen.repeats == 0
    if damage == "text" and direction == "to_host":
        assert seen.text_bytes >= 14 * len(b"W (12) noise\n") and seen.repeats == 0


def test_a_loss_is_repeated_when_the_next_reply_shows_it_and_not_by_waiting() -> None:
    asked = link(board(to_host=Every(10, "drop")), timeout=30.0, window=8)
    # The last reply is not one of those lost: nothing has to wait.
    assert outputs(asked, 48) == EXPECTED[:48]
    assert asked.counters.gaps == asked.counters.repeats >= 4 and asked.counters.silences == 0


def test_a_repeat_has_a_new_sequence() -> None:
    stub = board(to_host=Every(1000, "drop"))
    asked = link(stub)
    asked.request(m.StatsRequest())
    sequences = [frame.sequence for frame in stub.requests]
    assert len(sequences) == len(set(sequences)) == 2 and asked.counters.silences == 1


def test_a_lone_request_that_the_board_could_not_read_is_repeated_at_once() -> None:
    asked = link(board(to_board=Every(1000, "flip")), timeout=30.0)
    asked.request(m.StatsRequest())
    assert asked.counters.line_errors.total() == asked.counters.repeats == 1 and asked.counters.silences == 0


def test_the_line_doubled_a_request_and_lost_its_answer() -> None:
    stub = board(to_board=Every(1000, "twice"), to_host=Every(1000, "drop"))
    asked = link(stub, timeout=30.0)
    assert asked.request(invoke_request(4)).output == EXPECTED[4]
    # The copy was refused as a duplicate, which says that there was an answer.
    assert len(stub.requests) == 2 and asked.counters.silences == asked.counters.refusals == 0


def test_the_line_error_of_old_noise_disturbs_nobody() -> None:
    stub = board()
    stub.write(b"\0\x05\x06")  # somebody's frame, cut off
    asked = link(stub)
    assert outputs(asked, 20) == EXPECTED[:20]
    assert asked.counters.line_errors.total() == 1


def test_the_line_error_of_old_noise_is_not_the_end_of_a_reset() -> None:
    stub = board()
    stub.write(b"\0\x05\x06")
    asked = link(stub)
    asked.request(m.ResetRequest())
    assert asked.counters.line_errors.total() == 1 and len(stub.requests) == 1


def test_late_and_strange_replies_are_dropped() -> None:
    stub = board()
    asked = link(stub, first_sequence=500)
    stub.say(encode_frame(Message.INVOKE | REPLY, 501, b"\0\0" + bytes(4) + b"wrong"))  # right type, but asked next is
    stub.say(encode_frame(Message.STATS | REPLY, 77, b""))
    assert asked.request(m.HelloRequest()).chip == "stub"
    assert asked.counters.strays == 2


def test_sequences_start_anywhere_and_go_round_without_zero() -> None:
    assert len({Link(board())._sequence for _ in range(8)}) > 1
    stub = board()
    asked = link(stub, first_sequence=0xFFFE)
    outputs(asked, 3)
    assert [frame.sequence for frame in stub.requests] == [0xFFFF, 1, 2]


@pytest.mark.parametrize("request_", [m.ResetRequest(), m.FaultRequest(FaultKind.PANIC)])
def test_what_does_something_is_never_repeated(request_: m.ResetRequest | m.FaultRequest) -> None:
    for mangle in (Every(1, "drop"), Every(1, "flip")):
        stub = board(to_host=mangle)
        with pytest.raises(LinkError, match="asked once"):
            link(stub).request(request_)
        assert len(stub.requests) == 1


def test_giving_up_says_what_was_asked_and_what_came_instead() -> None:
    stub = board(silent=100)
    with pytest.raises(LinkError) as caught:
        link(stub, retries=2).request(m.HelloRequest())
    assert str(caught.value) == (
        "stub: no answer to HELLO; instead came nothing\n"
        "  expected: an answer within 0.02 s; asked 3 times\n"
        "  hint: is the board powered, is this its port, and is the baud rate that of its firmware?"
    )
    assert stub.silent == 97
    stub.say(b"Guru Meditation\n")
    with pytest.raises(LinkError, match=r"16 bytes of log, at the end b'Guru Meditation\\n'") as caught:
        link(stub, retries=0).request(m.HelloRequest())
    assert "restarts again" in str(caught.value)
    with pytest.raises(LinkError, match=r"2 complaints .*about damaged requests") as caught:
        link(board(to_board=Every(1, "flip")), retries=1).request(m.HelloRequest())
    assert "cable" in str(caught.value)
    with pytest.raises(LinkError, match="2 damaged frames"):
        link(board(to_host=Every(1, "flip")), retries=1).request(m.HelloRequest())


def test_a_stream_gives_up_too_and_the_link_lives_on() -> None:
    stub = board()
    asked = link(stub, retries=1)
    replies = asked.stream(invoke_request(i % 100) for i in range(300))
    assert next(replies).output == EXPECTED[0]
    stub.silent = 1000
    with pytest.raises(LinkError, match="INVOKE"):
        list(replies)
    stub.silent = 0
    assert outputs(asked, 5) == EXPECTED[:5]


def test_a_refusal_is_raised_at_its_turn_with_code_and_words() -> None:
    refused = invoke_request(9).encode()
    stub = board(refuse=lambda frame: ErrorCode.BAD_INPUT if frame.payload == refused else None)
    asked = link(stub)
    replies = asked.stream(invoke_request(i) for i in range(100))
    assert [next(replies).output for _ in range(9)] == EXPECTED[:9]
    with pytest.raises(DeviceError, match=r"refuses INVOKE: stub: BAD_INPUT \(BAD_INPUT\)") as caught:
        next(replies)
    assert caught.value.code == ErrorCode.BAD_INPUT and asked.counters.refusals == 1
    # What was under way behind it does not disturb what is asked next.
    assert outputs(asked, 5) == EXPECTED[:5]


def test_a_stream_can_be_left() -> None:
    asked = link(board())
    replies = asked.stream(invoke_request(i) for i in range(100))
    next(replies)
    with pytest.raises(RuntimeError, match="under way"):
        asked.request(m.HelloRequest())
    replies.close()  # type: ignore[attr-defined]
    before = asked.counters.strays
    assert outputs(asked, 5) == EXPECTED[:5] and asked.counters.strays == before


def test_another_version_is_named_at_once() -> None:
    with pytest.raises(ProtocolError, match=f"version {VERSION + 1}"):
        link(board(version=VERSION + 1), timeout=30.0).request(m.HelloRequest())


def test_text_goes_to_the_log() -> None:
    text: list[bytes] = []
    stub = board()
    asked = Link(stub, log=text.append, timeout=SHORT)
    stub.say(b"I (1) boot\n")
    asked.request(m.HelloRequest())
    stub.say(b"I (2) run\n\0I (3) no line end")
    asked.listen(0.01)
    assert b"".join(text) == b"I (1) boot\nI (2) run\n"
    asked.close()
    assert b"".join(text) == b"I (1) boot\nI (2) run\nI (3) no line end"


def test_everything_is_in_the_exchange_log(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "exchanges.jsonl"
    with ExchangeLog(path) as exchanges:
        stub = board(to_host=Every(1000, "flip"))
        asked = link(stub, exchanges=exchanges, first_sequence=41)
        stub.say(b"hi\n")
        asked.request(invoke_request(1))
        stub.say(encode_frame(Message.HELLO | REPLY, 9, b"x"))
        asked.request(invoke_request(2))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["direction"], line["type"], line["sequence"], line["outcome"]) for line in lines] == [
        ("out", "INVOKE", 42, "sent"),
        ("in", None, None, "text"),
        ("in", None, None, "BAD_CRC"),
        ("out", "INVOKE", 43, "repeat 1"),
        ("in", "INVOKE reply", 43, "taken"),
        ("out", "INVOKE", 44, "sent"),
        ("in", "HELLO reply", 9, "stray"),
        ("in", "INVOKE reply", 44, "taken"),
    ]
    assert lines[0]["payload"] == invoke_request(1).encode().hex()
    assert lines[4]["payload"].endswith(EXPECTED[1].hex())
    assert abs(lines[-1]["t"] - time.monotonic()) < 60
    assert all(before["t"] <= after["t"] for before, after in pairwise(lines))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="exchange log"):
        ExchangeLog(tmp_path / "file" / "x")


class Noisy:
    """Drops, flips, repeats and inserts bytes at random."""

    def __init__(self, seed: int, rate: float) -> None:
        self.random, self.rate, self.faults = random.Random(seed), rate, 0

    def __call__(self, data: bytes) -> bytes:
        return b"".join(self.bytes(data))

    def bytes(self, data: bytes) -> Iterator[bytes]:
        for byte in data:
            if self.random.random() >= self.rate:
                yield bytes([byte])
                continue
            self.faults += 1
            bad = bytes([byte ^ 1 << self.random.randrange(8)])
            yield self.random.choice([b"", bad, bytes([byte, byte]), bytes([byte]) + self.random.randbytes(3), b"\0"])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32))
def test_no_noise_makes_a_wrong_answer(seed: int) -> None:
    noise = Noisy(seed, 0.003)
    asked = link(board(to_board=noise, to_host=noise), retries=50, timeout=0.005)
    assert outputs(asked, 60) == EXPECTED[:60]
    if noise.faults == 0:
        assert asked.counters.repeats == 0
