"""The wire protocol's constants, declared here and nowhere else.

The firmware's ``policy_core/protocol.hpp`` is generated from this module (``python -m quant.wire.protocol_header``),
and a test holds the committed header to it. What the messages carry is described in ``docs/protocol.md``; one file of
test vectors, ``esp_idf_app/components/policy_core/test/vectors.txt``, is run by both sides.

A frame on the line is ``00 COBS(header, payload, CRC) 00``. The header is little-endian: version u8, type u8, sequence
u16, payload length u16. The CRC is zlib's CRC-32 of header and payload, u32. What stands between frames is text: log.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

VERSION = 2
"""Of the protocol: the first byte of every frame."""

DELIMITER = 0x00
HEADER_SIZE = 6
CRC_SIZE = 4
DEFAULT_BAUD = 921600
"""Of the line, where nobody says otherwise: the firmware's ``CONFIG_QUANT_UART_BAUD``."""
MAX_PAYLOAD = 3072
"""Bytes of payload either side accepts."""

REPLY = 0x80
"""A reply's type is its request's with this bit."""
ERROR = 0xFF
"""Type of an error reply; it has the request's sequence, or 0 where that could not be read."""

MAX_SLOTS = 4
"""Tracks resident at once."""
MAX_PEERS = 16
MAX_FEATURES = 16
"""Of one peer."""
MAX_EGO = 64
MAX_EMBEDDING = 128
MAX_OUTPUTS = 32
MAX_RESIDUAL_BITS = 8
"""Of a residual's factor 2^n: it then uses all of int8, for it lies within half a step."""
MAX_REPEATS = 1000
"""Of one BENCH."""
TRACK_SIZE = 16
"""Bytes of a track's name in a pack, NUL-padded."""
NOT_AVAILABLE = 0xFFFFFFFF
"""A u32 figure the board cannot give."""

PACK_MAGIC = b"QPAK"
PACK_VERSION = 2
PACK_HEADER_SIZE = 64
PACK_SLOT_SIZE = 176
PACK_ALIGNMENT = 16
"""Of every model in a pack: TFLite-Micro runs it where it lies."""


class Message(IntEnum):
    """Types of requests."""

    HELLO = 0x01
    MODELS = 0x02
    DECIDE = 0x03
    INVOKE = 0x04
    BENCH = 0x05
    STATS = 0x06
    RESET = 0x07
    FAULT = 0x08


MESSAGES = len(Message)
"""Their types are 1 to this, without a gap."""


class ErrorCode(IntEnum):
    """Why a request was refused."""

    BAD_CRC = 1
    BAD_FRAME = 2
    TOO_LONG = 3
    BAD_VERSION = 4
    UNKNOWN_TYPE = 5
    BAD_LENGTH = 6
    DUPLICATE_SEQUENCE = 7
    UNKNOWN_SLOT = 8
    BAD_INPUT = 9
    TOO_MANY_PEERS = 10
    NO_MODELS = 11
    ENGINE_FAILED = 12
    NOT_AVAILABLE = 13
    BAD_ARGUMENT = 14


ERROR_WORDS = {
    ErrorCode.BAD_CRC: "the CRC is not that of the frame",
    ErrorCode.BAD_FRAME: "not a frame: damaged COBS, or shorter than header and CRC",
    ErrorCode.TOO_LONG: "the frame is longer than the largest payload allows",
    ErrorCode.BAD_VERSION: "another version of the protocol",
    ErrorCode.UNKNOWN_TYPE: "no such message",
    ErrorCode.BAD_LENGTH: "the payload is not as long as the message demands",
    ErrorCode.DUPLICATE_SEQUENCE: "the sequence is that of the request before",
    ErrorCode.UNKNOWN_SLOT: "no such track or part",
    ErrorCode.BAD_INPUT: "a feature is NaN or infinite, or a mask is neither 0 nor 1",
    ErrorCode.TOO_MANY_PEERS: "more peer slots than the models take",
    ErrorCode.NO_MODELS: "no models: the pack is missing or damaged",
    ErrorCode.ENGINE_FAILED: "the engine could not run the model",
    ErrorCode.NOT_AVAILABLE: "not in this build",
    ErrorCode.BAD_ARGUMENT: "an argument is out of range",
}


class PackStatus(IntEnum):
    """What the device found in its models partition."""

    OK = 0
    EMPTY = 1
    BAD_MAGIC = 2
    BAD_VERSION = 3
    BAD_LENGTH = 4
    BAD_HASH = 5
    BAD_SLOT = 6
    BAD_MODEL = 7


PACK_WORDS = {
    PackStatus.OK: "the pack is whole",
    PackStatus.EMPTY: "the partition is empty: flash a pack",
    PackStatus.BAD_MAGIC: "not a pack",
    PackStatus.BAD_VERSION: "a pack of another version",
    PackStatus.BAD_LENGTH: "the pack is cut off",
    PackStatus.BAD_HASH: "the contents are not those the pack was made with",
    PackStatus.BAD_SLOT: "a slot's width, sizes, offsets or scales are out of range",
    PackStatus.BAD_MODEL: "the engine refuses a model, or its tensors are not those the slot declares",
}


class EvidenceCode(IntEnum):
    """Where a board's times come from."""

    MEASURED = 1
    EMULATED = 2
    SIMULATED = 3
    COMPUTED = 4


class Capability(IntFlag):
    """What a board can do beyond the protocol's minimum."""

    TEST_FAULTS = 1
    TEMPERATURE = 2
    WATCHDOG = 4
    PACED = 8


class Stage(IntEnum):
    """Stages of a decision, in ticks of the board's clock; TOTAL is timed by itself, not added up."""

    QUANTIZE = 0
    ENCODE = 1
    POOL = 2
    HEAD = 3
    OUTPUT = 4
    TOTAL = 5


class FaultKind(IntEnum):
    """Deliberate faults, in builds that have ``Capability.TEST_FAULTS``."""

    PANIC = 1
    HANG = 2
    CORRUPT_REPLY = 3
    CORRUPT_OUTPUT = 4


class PartCode(IntEnum):
    """The sub-models of a slot."""

    PEER_ENCODER = 0
    POLICY_HEAD = 1


class PoolingCode(IntEnum):
    """How embeddings are pooled."""

    MAX = 0
    SUM = 1
    MEAN = 2


class ActionCode(IntEnum):
    """What a head's outputs mean."""

    DISCRETE = 0
    BOX = 1


DECIDE_INTERFACES = 0x01
"""DECIDE's flag for the codes of every interface in the reply."""
NO_ACTION = 0xFF
"""DECIDE's action index where actions are continuous."""
