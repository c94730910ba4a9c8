"""A board's line without a link: any bytes in, and every frame that comes back."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from quant.policy import Observations
from quant.runners import Int8Runner
from quant.wire.codec import Damage, Decoder, Event, Frame, Text, encode_frame
from quant.wire.link import Stream
from quant.wire.messages import DecideRequest, ErrorReply, HelloRequest, Request, StatsReply, StatsRequest
from quant.wire.protocol import ERROR, REPLY, ErrorCode, Message

SECONDS = 3.0
"""Longest time to an answer."""
BOOT_SECONDS = 30.0
SILENCE = 0.15
"""Time in which an answer to something wrong would have come."""


@dataclass(frozen=True)
class Answer:
    """What a board said: its type, its sequence, and for an error its code and the type it was about."""

    type: int
    sequence: int
    payload: bytes = b""

    @property
    def error(self) -> tuple[ErrorCode, int, int]:
        """Code, type of the request, sequence; an AssertionError if it is no error."""
        assert self.type == ERROR, f"not an error: {self}"
        reply = ErrorReply.decode(self.payload)
        assert reply.words
        return ErrorCode(reply.code), reply.request, self.sequence


class Wire:
    """Bytes to a board and frames from it.

    Args:
        stream: the line; whoever opened it closes it.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._decoder = Decoder()
        self._sequence = 0
        self._waiting: list[Answer] = []
        self.hello()

    def hello(self, seconds: float = BOOT_SECONDS) -> None:
        """Asks until the board answers; after that any sequence is accepted."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.send(self.frame(HelloRequest()))
            if self._said_hello(time.monotonic() + 0.3):
                return
        raise AssertionError("the board does not answer HELLO")

    def _said_hello(self, until: float) -> bool:
        while (left := until - time.monotonic()) > 0:
            self._receive(left, booting=True)
            found, self._waiting = self._waiting, []
            if (Message.HELLO | REPLY, self._sequence) in {(one.type, one.sequence) for one in found}:
                return True
        return False

    def frame(self, request: Request[object], *, sequence: int | None = None) -> bytes:
        """A frame with the next sequence, or the one given."""
        self._sequence = self._sequence % 0xFFFF + 1 if sequence is None else sequence
        return encode_frame(request.kind, self._sequence, request.encode())

    @property
    def sequence(self) -> int:
        """Of the frame made last."""
        return self._sequence

    def send(self, data: bytes) -> None:
        """As it is."""
        self._stream.write(data)

    def answer(self, seconds: float = SECONDS) -> Answer:
        """The next one."""
        until = time.monotonic() + seconds
        while not self._waiting:
            left = until - time.monotonic()
            assert left > 0, "the board does not answer"
            self._receive(left)
        return self._waiting.pop(0)

    def all(self, seconds: float = SILENCE) -> list[Answer]:
        """Everything that comes until nothing has come for so long."""
        while self._receive(seconds):
            pass
        found, self._waiting = self._waiting, []
        return found

    def until(self, sequence: int) -> list[Answer]:
        """Everything up to the answer with this sequence, that one included."""
        found = [self.answer()]
        while found[-1].sequence != sequence:
            found.append(self.answer())
        return found

    def stats(self) -> StatsReply:
        """STATS."""
        self.send(self.frame(StatsRequest()))
        return StatsReply.decode(self._reply(Message.STATS))

    def decides_right(self, host: Int8Runner, slot: int, frames: Observations) -> None:
        """The next decision is the host's; nothing but the request goes over the line."""
        self.send(self.frame(DecideRequest(slot, frames.ego[0], frames.peers[0], frames.mask[0])))
        values = np.frombuffer(self._reply(Message.DECIDE)[4:], "<u4", host.action_space.width)
        np.testing.assert_array_equal(values, host.values(frames[:1])[0].view(np.uint32))

    def _reply(self, kind: Message) -> bytes:
        answer = self.answer()
        assert (answer.type, answer.sequence) == (kind | REPLY, self._sequence), answer
        return answer.payload

    def _receive(self, seconds: float, *, booting: bool = False) -> bool:
        """Whether anything came. A chip's ROM speaks at a rate of its own: while it boots, damage means nothing."""
        data = self._stream.read(seconds)
        for event in self._decoder.feed(data):
            assert booting or not isinstance(event, Damage), f"the board's own frame is damaged: {event}"
            if isinstance(event, Frame):
                self._waiting.append(Answer(event.type, event.sequence, event.payload))
        return bool(data)


@dataclass(frozen=True)
class Heard:
    """What a board has to make of bytes.

    Attributes:
        frames, bad, bad_crc: frames it has to take, and not to take, and of those the ones with a wrong CRC.
        noise: bytes of text.
        complaints: the errors it has to answer with, as code and sequence.
    """

    frames: int
    bad: int
    bad_crc: int
    noise: int
    complaints: tuple[tuple[ErrorCode, int], ...]

    @staticmethod
    def of(data: bytes) -> Heard:
        """By the decoder of the host's side, which keeps the same rules."""
        events: list[Event] = Decoder().feed(data)
        damage = [event for event in events if isinstance(event, Damage)]
        return Heard(
            sum(isinstance(event, Frame) for event in events),
            len(damage),
            sum(event.code is ErrorCode.BAD_CRC for event in damage),
            sum(len(event.data) for event in events if isinstance(event, Text)),
            tuple((event.code, 0) for event in damage),
        )
