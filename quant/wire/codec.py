"""Frames and text, out of bytes and into bytes. Nothing here reads or writes a port.

A frame is ``00 COBS(header, payload, CRC) 00`` (see :mod:`quant.wire.protocol`); COBS is Cheshire and Baker,
"Consistent Overhead Byte Stuffing", 1999. What stands between frames is text: the board's log.

Neither end can tell an opening 0x00 from a closing one, and bytes get lost. So between two zeros there may be a frame,
a damaged frame, or text between a closing and an opening one; the contents decide, and only what is damaged is lost.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from cobs import cobs

from quant.wire.protocol import CRC_SIZE, DELIMITER, ERROR_WORDS, HEADER_SIZE, MAX_PAYLOAD, VERSION, ErrorCode

_HEADER = struct.Struct("<BBHH")
_CRC = struct.Struct("<I")
_ZERO = bytes([DELIMITER])
_MAX_CONTENT = HEADER_SIZE + MAX_PAYLOAD + CRC_SIZE
MAX_SEGMENT: int = cobs.max_encoded_length(_MAX_CONTENT)
"""Bytes between the zeros of the longest frame."""

PRINTABLE = bytes([*b"\t\n\r\x1b", *range(0x20, 0x100)])
"""What text is made of. A frame is not: the version, its first byte, is a control character, and COBS keeps it."""


@dataclass(frozen=True)
class Frame:
    """A whole frame: its CRC and its length are right. The version may be another one than ours."""

    type: int
    sequence: int
    payload: bytes
    version: int = VERSION


@dataclass(frozen=True)
class Text:
    """Bytes that belong to no frame: log."""

    data: bytes


@dataclass(frozen=True)
class Damage:
    """Something that is no frame and no text.

    Attributes:
        code: what is wrong with it.
        data: the bytes between the zeros, or the first ``MAX_SEGMENT`` + 1 of them.
    """

    code: ErrorCode
    data: bytes

    @property
    def words(self) -> str:
        """What the code means."""
        return ERROR_WORDS[self.code]

    @property
    def text(self) -> bytes:
        """The printable lines: log that a lost 0x00 glued to a frame."""
        return b"\n".join(line for line in self.data.split(b"\n") if _is_text(line))


Event = Frame | Text | Damage


def encode_frame(kind: int, sequence: int, payload: bytes = b"", version: int = VERSION) -> bytes:
    """A frame with both its zeros.

    Args:
        kind: the message's type, u8.
        sequence: u16.
        payload: up to ``MAX_PAYLOAD`` bytes.
        version: of the protocol; only tests give another.

    Raises:
        ValueError: the payload is too long.
    """
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a payload of {len(payload)} bytes; a frame holds {MAX_PAYLOAD}")
    content = _HEADER.pack(version, kind, sequence, len(payload)) + payload
    stuffed: bytes = cobs.encode(content + _CRC.pack(zlib.crc32(content)))
    return _ZERO + stuffed + _ZERO


class Decoder:
    """Takes bytes as they come, in any portions, and gives what they hold in its order.

    How the bytes are portioned makes no difference but to where text is cut.
    """

    def __init__(self) -> None:
        self._segment = bytearray()
        self._in_frame = False

    def feed(self, data: bytes) -> list[Event]:
        """Takes the next bytes; gives what is complete with them."""
        events: list[Event] = []
        start = 0
        while (end := data.find(_ZERO, start)) >= 0:
            self._take(data[start:end], events)
            self._close(events)
            start = end + 1
        self._take(data[start:], events)
        return events

    def finish(self) -> list[Event]:
        """Nothing more comes: gives the text that waits for its line's end. Damage that waits is forgotten."""
        segment = bytes(self._segment)
        self._segment.clear()
        return [Text(segment)] if segment and _is_text(segment) else []

    def _take(self, data: bytes, events: list[Event]) -> None:
        """Bytes without a zero."""
        if not data:
            return
        if not self._in_frame:
            events.append(Text(data))
            return
        self._segment += data
        self._release_lines(events)
        if len(self._segment) > MAX_SEGMENT:
            # Whatever it was, it is no frame: what follows passes as text until a zero, which may be an opening.
            kept, rest = bytes(self._segment[: MAX_SEGMENT + 1]), bytes(self._segment[MAX_SEGMENT + 1 :])
            events.append(Text(kept) if _is_text(kept) else Damage(ErrorCode.TOO_LONG, kept))
            self._segment.clear()
            self._in_frame = False
            self._take(rest, events)

    def _close(self, events: list[Event]) -> None:
        """A zero."""
        if not self._in_frame:
            self._in_frame = True
            return
        segment = bytes(self._segment)
        self._segment.clear()
        if not segment:
            return
        if _is_text(segment):
            events.append(Text(segment))
            return
        event, self._in_frame = _decode(segment)
        events.append(event)

    def _release_lines(self, events: list[Event]) -> None:
        """Hands out text that waits for a zero, line by line.

        Else the last words of a board that hangs would wait forever. A line has two characters or more: a frame can
        begin with what looks like a newline, but its second byte is never printable.
        """
        segment = self._segment
        while (end := segment.find(b"\n", 1, MAX_SEGMENT) + 1) and _is_text(segment[:end]):
            events.append(Text(bytes(segment[:end])))
            del segment[:end]


def _decode(segment: bytes) -> tuple[Event, bool]:
    """The frame between two zeros, or what is wrong with it; and whether the second zero may be an opening one."""
    try:
        content: bytes = cobs.decode(segment)
    except cobs.DecodeError:
        return Damage(ErrorCode.BAD_FRAME, segment), True
    if len(content) < HEADER_SIZE + CRC_SIZE:
        return Damage(ErrorCode.BAD_FRAME, segment), True
    if len(content) > _MAX_CONTENT:
        return Damage(ErrorCode.TOO_LONG, segment), True
    body = content[:-CRC_SIZE]
    if zlib.crc32(body) != _CRC.unpack_from(content, len(body))[0]:
        return Damage(ErrorCode.BAD_CRC, segment), True
    version, kind, sequence, length = _HEADER.unpack_from(body)
    if length != len(body) - HEADER_SIZE:
        return Damage(ErrorCode.BAD_LENGTH, segment), False
    return Frame(kind, sequence, body[HEADER_SIZE:], version), False


def _is_text(data: bytes | bytearray) -> bool:
    return not data.translate(None, PRINTABLE)
