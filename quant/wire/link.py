"""Requests and replies over a line that loses bytes.

The board answers requests in their order, each once, with its sequence. So one rule finds a lost frame: when a reply
comes and an earlier request has none, that one is lost. It is repeated at once, with a new sequence. What no later
reply shows, a time-out does. Nothing here times the board: that is its own clock's business.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from quant.errors import DeviceError, LinkError, ProtocolError
from quant.wire.codec import Damage, Decoder, Event, Frame, Text, encode_frame
from quant.wire.exchange_log import ExchangeLog, type_name
from quant.wire.messages import ErrorReply, Request
from quant.wire.protocol import ERROR, REPLY, VERSION, ErrorCode, Message

R = TypeVar("R")

TIMEOUT = 1.0
"""Seconds without a reply after which what is under way counts as lost."""
RETRIES = 5
"""Repetitions of one request."""
WINDOW = 64
"""Requests under way at once."""
NEVER_REPEATED = frozenset({Message.RESET, Message.FAULT})
"""Requests that do something: one that got no answer may have done it."""
_UNKNOWN_RX_BUFFER = 128
_LAST_SEQUENCE = 0xFFFF
_TAIL = 200


class Stream(Protocol):
    """A line: bytes in both directions."""

    @property
    def name(self) -> str:
        """What to call it in an error."""

    def read(self, timeout: float) -> bytes:
        """What has come; waits up to ``timeout`` seconds for the first byte, and gives nothing if none comes.

        Raises:
            LinkError: the port is gone.
        """

    def write(self, data: bytes) -> None:
        """Writes all of it.

        Raises:
            LinkError: the port is gone, or takes nothing.
        """

    def reopen(self) -> None:
        """Closes the port and opens it again: one behind USB goes away while its board restarts.

        Raises:
            LinkError: it is not there (yet).
        """

    def close(self) -> None:
        """Gives the port back; the second time it does nothing."""


@dataclass
class Counters:
    """What a link has seen since it was made.

    Attributes:
        frames_out, frames_in, bytes_out, bytes_in: everything that was sent and received; frames that are whole.
        text_bytes: received outside of frames.
        repeats: requests sent again.
        gaps: losses that a later reply gave away.
        silences: times nothing came until the time-out.
        strays: replies to nothing under way (late ones, repeated ones), dropped.
        refusals: requests that the board answered with an error.
        damage: frames that came damaged, by cause.
        line_errors: what the board says came damaged to it, by cause.
    """

    frames_out: int = 0
    frames_in: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    text_bytes: int = 0
    repeats: int = 0
    gaps: int = 0
    silences: int = 0
    strays: int = 0
    refusals: int = 0
    damage: Counter[str] = field(default_factory=Counter)
    line_errors: Counter[str] = field(default_factory=Counter)


class Link:
    """Asks a board over a stream.

    One thread uses it, and one conversation at a time: a :meth:`stream` is finished or closed before the next request.

    Args:
        stream: the line; closed with the link.
        log: gets the text between frames, in portions as they come.
        exchanges: gets everything.
        timeout: seconds without a reply that mean a loss.
        retries: repetitions of one request before giving up.
        rx_buffer: bytes the board can have waiting; small until its HELLO says more.
        window: requests under way at once.
        first_sequence: by default a random one, so that an answer to somebody who used the line before is no answer.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        log: Callable[[bytes], object] = lambda text: None,
        exchanges: ExchangeLog | None = None,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        rx_buffer: int = _UNKNOWN_RX_BUFFER,
        window: int = WINDOW,
        first_sequence: int | None = None,
    ) -> None:
        self.counters = Counters()
        self.rx_buffer = rx_buffer
        self.timeout = timeout
        self.retries = retries
        self.window = window
        self._stream = stream
        self._log = log
        self._exchanges = exchanges
        self._decoder = Decoder()
        self._sequence = secrets.randbelow(_LAST_SEQUENCE) + 1 if first_sequence is None else first_sequence
        self._busy = False
        self._tail = b""

    @property
    def name(self) -> str:
        """The line's."""
        return self._stream.name

    def request(self, request: Request[R], *, timeout: float | None = None, retries: int | None = None) -> R:
        """Asks and waits for the reply.

        Raises:
            DeviceError: the board refuses.
            LinkError: it does not answer.
            ProtocolError: it answers something else, or speaks another version.
        """
        (reply,) = self.stream([request], timeout=timeout, retries=retries)
        return reply

    def stream(
        self, requests: Iterable[Request[R]], *, timeout: float | None = None, retries: int | None = None
    ) -> Iterator[R]:
        """Asks many times without waiting in between, and gives the replies in the order of the requests.

        Raises:
            DeviceError: the board refuses one, at its turn; those after it are forgotten.
            LinkError: it does not answer.
            ProtocolError: it answers something else, or speaks another version.
        """
        timeout = self.timeout if timeout is None else timeout
        return _Conversation(self, iter(requests), timeout, self.retries if retries is None else retries).replies()

    def listen(self, seconds: float) -> None:
        """Hands the log what comes unasked."""
        self._begin()
        try:
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                for frame in self._receive(left):
                    self._drop(frame)
        finally:
            self._busy = False

    def reopen(self) -> None:
        """Opens the line anew.

        Raises:
            LinkError: the port is not there (yet).
        """
        self._finish_text()
        self._decoder = Decoder()
        self._stream.reopen()

    def close(self) -> None:
        """Gives the line back."""
        self._finish_text()
        self._stream.close()

    def _finish_text(self) -> None:
        for event in self._decoder.finish():
            self._set_aside(event)

    def _seen(self) -> tuple[int, int, int, int, int]:
        """Bytes, text, strays, damage and line errors that came so far."""
        seen = self.counters
        return seen.bytes_in, seen.text_bytes, seen.strays, seen.damage.total(), seen.line_errors.total()

    def _begin(self) -> None:
        if self._busy:
            raise RuntimeError("a stream of requests is still under way on this link: finish or close it first")
        self._busy = True

    def _next_sequence(self) -> int:
        self._sequence = self._sequence % _LAST_SEQUENCE + 1
        return self._sequence

    def _send(self, flights: Sequence[_Flight[R]]) -> None:
        data = b"".join(flight.frame for flight in flights)
        self.counters.frames_out += len(flights)
        self.counters.bytes_out += len(data)
        if self._exchanges is not None:
            for flight in flights:
                outcome = f"repeat {flight.tries - 1}" if flight.tries > 1 else "sent"
                request = flight.request
                self._exchanges.write("out", request.kind, flight.sequence, request.encode(), outcome)
        self._stream.write(data)

    def _receive(self, timeout: float) -> list[Frame]:
        """The frames of what has come; text and damage are dealt with."""
        data = self._stream.read(timeout)
        self.counters.bytes_in += len(data)
        frames = []
        for event in self._decoder.feed(data):
            if isinstance(event, Frame):
                frames.append(event)
            else:
                self._set_aside(event)
        self.counters.frames_in += len(frames)
        return frames

    def _set_aside(self, event: Event) -> None:
        text = event.text if isinstance(event, Damage) else b"" if isinstance(event, Frame) else event.data
        if isinstance(event, Damage):
            self.counters.damage[event.code.name] += 1
            self._note(event.data, event.code.name)
        elif isinstance(event, Text):
            self.counters.text_bytes += len(text)
            self._note(text, "text")
        if text:
            self._tail = (self._tail + text)[-_TAIL:]
            self._log(text)

    def _drop(self, frame: Frame) -> None:
        self.counters.strays += 1
        self._note(frame.payload, "stray", frame)

    def _note(self, payload: bytes, outcome: str, frame: Frame | None = None) -> None:
        if self._exchanges is not None:
            kind, sequence = (None, None) if frame is None else (frame.type, frame.sequence)
            self._exchanges.write("in", kind, sequence, payload, outcome)


@dataclass(frozen=True)
class _Flight(Generic[R]):
    """A request under way: its place among the requests, its frame, and how often it was sent."""

    turn: int
    request: Request[R]
    sequence: int
    frame: bytes
    tries: int


class _Conversation(Generic[R]):
    """One stream of requests and its replies."""

    def __init__(self, link: Link, requests: Iterator[Request[R]], timeout: float, retries: int) -> None:
        self._link = link
        self._requests = enumerate(requests)
        self._timeout = timeout
        self._retries = retries
        self._queue: deque[_Flight[R]] = deque()
        self._flights: deque[_Flight[R]] = deque()
        self._under_way = 0
        self._answers: dict[int, tuple[Request[R], Frame]] = {}
        self._since = link._seen()

    def replies(self) -> Iterator[R]:
        """Runs it."""
        link = self._link
        link._begin()
        turn = 0
        try:
            while self._fill():
                self._wait()
                self._fill()
                while turn in self._answers:
                    yield self._result(*self._answers.pop(turn))
                    turn += 1
        except (LinkError, ProtocolError):
            self._flights.clear()
            raise
        finally:
            self._drain()
            link._busy = False

    def _fill(self) -> bool:
        """Sends what there is room for. Whether anything is under way."""
        sending = []
        while len(self._flights) < self._link.window and self._load():
            size = len(self._queue[0].frame)
            if self._flights and self._under_way + size > self._link.rx_buffer:
                break
            flight = self._queue.popleft()
            self._flights.append(flight)
            self._under_way += size
            sending.append(flight)
        if sending:
            self._link._send(sending)
        return bool(self._flights)

    def _load(self) -> bool:
        """Whether something is queued: what was lost goes first, then the next request."""
        if not self._queue and (turn_and_request := next(self._requests, None)) is not None:
            self._enqueue(*turn_and_request, tries=1)
        return bool(self._queue)

    def _enqueue(self, turn: int, request: Request[R], tries: int) -> None:
        sequence = self._link._next_sequence()
        frame = encode_frame(request.kind, sequence, request.encode())
        self._queue.append(_Flight(turn, request, sequence, frame, tries))

    def _land(self) -> _Flight[R]:
        flight = self._flights.popleft()
        self._under_way -= len(flight.frame)
        return flight

    def _wait(self) -> None:
        """Until a reply is taken or a request is known to be lost; after the time-out, all that is under way is."""
        until = time.monotonic() + self._timeout
        while True:
            frames = self._link._receive(max(until - time.monotonic(), 0.0))
            changes = [self._take(frame) for frame in frames]
            if any(changes):
                return
            if time.monotonic() >= until:
                break
        self._link.counters.silences += 1
        self._lose(len(self._flights))

    def _take(self, frame: Frame) -> bool:
        """Whether a frame changes what is under way."""
        link = self._link
        if frame.version != VERSION:
            raise ProtocolError(
                f"the board speaks version {frame.version} of the protocol",
                where=link.name,
                expected=f"version {VERSION}",
                hint="flash the firmware of this version: quant flash",
            )
        if frame.type == ERROR and frame.sequence == 0:
            return self._line_error(frame)
        place = self._place(frame)
        if place is None:
            link._drop(frame)
            return False
        link.counters.gaps += place
        self._lose(place)
        flight = self._land()
        link._note(frame.payload, "taken", frame)
        if frame.type == ERROR and frame.payload[:1] == bytes([ErrorCode.DUPLICATE_SEQUENCE]):
            self._repeat(flight)  # the line gave the board the frame twice, and lost the first answer
        else:
            self._answers[flight.turn] = (flight.request, frame)
            self._since = link._seen()
        return True

    def _place(self, frame: Frame) -> int | None:
        """Which of the requests under way a frame answers."""
        for place, flight in enumerate(self._flights):
            if flight.sequence == frame.sequence:
                return place if frame.type in {flight.request.kind | REPLY, ERROR} else None
        return None

    def _line_error(self, frame: Frame) -> bool:
        """The board could not read a frame; if only one is under way, it is that one."""
        self._link.counters.line_errors[ErrorReply.decode(frame.payload).name] += 1
        self._link._note(frame.payload, "line error", frame)
        if len(self._flights) != 1 or self._flights[0].request.kind in NEVER_REPEATED:
            return False
        self._lose(1)
        return True

    def _lose(self, count: int) -> None:
        for _ in range(count):
            self._repeat(self._land())

    def _repeat(self, flight: _Flight[R]) -> None:
        if flight.tries > self._retries or flight.request.kind in NEVER_REPEATED:
            raise self._no_answer(flight)
        self._link.counters.repeats += 1
        self._enqueue(flight.turn, flight.request, flight.tries + 1)

    def _no_answer(self, flight: _Flight[R]) -> LinkError:
        link = self._link
        bytes_in, text, strays, damage, line_errors = (
            now - then for now, then in zip(link._seen(), self._since, strict=True)
        )
        came = [
            f"{count} {what}"
            for count, what in (
                (text, f"bytes of log, at the end {link._tail!r}"),
                (damage, "damaged frames"),
                (line_errors, "complaints of the board about damaged requests"),
                (strays, "replies to nothing that was asked"),
            )
            if count
        ]
        instead = ", ".join(came) or (f"{bytes_in} bytes" if bytes_in else "nothing")
        if not bytes_in:
            hint = "is the board powered, is this its port, and is the baud rate that of its firmware?"
        elif damage or line_errors:
            hint = "the line garbles bytes: check cable, ground and baud rate"
        else:
            hint = "it is alive but does not answer: another firmware, or one that hangs or restarts again and again"
        times = f"asked {flight.tries} times" if flight.tries > 1 else "asked once"
        return LinkError(
            f"no answer to {type_name(flight.request.kind)}; instead came {instead}",
            where=link.name,
            expected=f"an answer within {self._timeout:g} s; {times}",
            hint=hint,
        )

    def _result(self, request: Request[R], frame: Frame) -> R:
        if frame.type != ERROR:
            return request.reply(frame.payload)
        error = ErrorReply.decode(frame.payload)
        self._link.counters.refusals += 1
        raise DeviceError(
            f"the board refuses {type_name(request.kind)}: {error.words} ({error.name})",
            code=error.code,
            where=self._link.name,
        )

    def _drain(self) -> None:
        """Lets what is still under way come in, so that it does not disturb what is asked next."""
        until = time.monotonic() + self._timeout
        try:
            while self._flights and (left := until - time.monotonic()) > 0:
                for frame in self._link._receive(left):
                    place = self._place(frame)
                    for _ in range(0 if place is None else place + 1):
                        self._land()
                    self._link._drop(frame)
        except LinkError:
            pass  # whoever asks next will be told
