"""Writes vectors.txt, which the C++ and the Python side both run: ``python make_vectors.py [FILE]``.

What is expected is computed here, from the protocol's description and with the library's own arithmetic, never by the
code under test.
"""

from __future__ import annotations

import hashlib
import struct
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from cobs import cobs
from numpy.typing import NDArray

from quant.policy.policy import Pooling
from quant.runners.flatbuffer import Quantized
from quant.runners.pooling import Pool
from quant.tracks.candidate import Affine, Bits, Codes, code_type
from quant.wire import protocol
from quant.wire.protocol import Capability, ErrorCode, FaultKind, Message, PackStatus, Stage

FILE = Path(__file__).with_name("vectors.txt")

HEAD = """\
# Test vectors of the wire protocol, run by C++ (test_vectors.cpp) and by Python. Made by make_vectors.py.
#
# A line is a keyword and its arguments, separated by single spaces; HEX is two lower-case digits a byte, or `-` for no
# bytes. Lines with `#` and empty lines are skipped. Neighbouring `text` events are one: how text is cut is not part of
# the protocol.
#
# decoder NAME                        a fresh decoder:
#   in HEX                              bytes on the line; several lines follow one another
#   text HEX                            it gives these bytes as text,
#   frame VERSION TYPE SEQUENCE HEX     a frame with this payload,
#   damage CODE                         damage, by the name of its error code
#
# pack NAME                           the contents of a models partition:
#   hex HEX                             several lines follow one another
#
# server NAME PACK                    a board that has just booted with this pack (`none`: no partition)
# exchange NAME                       with the board of the `server` line above, in this order:
#   in HEX                              bytes on the line, frames with their delimiters
#   out HEX                             one frame that the board answers; no line: it stays silent
#   call restart                        it then restarts (here: System::restart is called, and the board goes on)
#   call fault KIND                     it then panics or hangs on purpose (System::fault is called)
#
# The board is a core with fake ports:
#   engine    a model is `FAKE`, u16 inputs K, u16 outputs M, f32 scale and i32 zero point of the input and of the
#             output, u8 bits of both: 25 bytes, anything else is refused as "not a fake model".
#             Output j is (7 j + sum over i of (i + j + 1) input[i]) mod 2^bits, as int8 or int16.
#             It fails where input[0] is 99. Arena used: 100 + K, of 8192; operators "FULLY_CONNECTED,TANH".
#   clock     starts at 4294967040; a reading R is followed by 5 + R mod 7 ticks, and a stage told to it by
#             (stage + 1) * elements; modulo 2^32; 1000000 ticks a second.
#   system    what HELLO and STATS answer here; test faults only on the board named `faults`.
"""

CLOCK_START = 0xFFFFFF00
FAILING_INPUT = 99


def hexed(data: bytes) -> str:
    """Bytes as the file has them."""
    return data.hex() or "-"


def frame(kind: int, sequence: int, payload: bytes = b"", version: int = protocol.VERSION, length: int = -1) -> bytes:
    """A frame with its delimiters; a length other than the payload's on purpose."""
    body = struct.pack("<BBHH", version, kind, sequence, len(payload) if length < 0 else length) + payload
    return enclosed(body + struct.pack("<I", zlib.crc32(body)))


def enclosed(raw: bytes) -> bytes:
    """COBS between delimiters."""
    return b"\0" + bytes(cobs.encode(raw)) + b"\0"


def text(words: str) -> bytes:
    """A string of a payload."""
    data = words.encode()[:255]
    return bytes([len(data)]) + data


# --- packs ---------------------------------------------------------------------------------------------------------


def fake_model(source: Quantized, target: Quantized) -> bytes:
    """What the fake engine takes for a model."""
    sizes = struct.pack("<HH", source.size, target.size)
    tensors = b"".join(struct.pack("<fi", t.scale, t.zero_point) for t in (source, target))
    return b"FAKE" + sizes + tensors + bytes([source.bits])


def tensor(size: int, scale: float, zero_point: int, bits: Bits = 8) -> Quantized:
    """A tensor of the fake models."""
    return Quantized((1, size), np.float32(scale), zero_point, bits)


@dataclass(frozen=True)
class Slot:
    """A track of a pack, and what the fake engine makes of it."""

    track: str
    pooling: Pooling
    max_peers: int
    peer: Affine
    ego: Affine
    encoder: tuple[Quantized, Quantized]
    head: tuple[Quantized, Quantized]
    bounds: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @property
    def bits(self) -> int:
        """Of a code."""
        return self.peer.bits

    @property
    def residuals(self) -> bytes:
        """Of the peers and of the ego: n where the factor is 2^n, 0 for none."""
        return bytes(affine.residual.bit_length() - 1 if affine.residual else 0 for affine in (self.peer, self.ego))

    @property
    def models(self) -> tuple[bytes, bytes]:
        """Encoder and head."""
        return fake_model(*self.encoder), fake_model(*self.head)

    @property
    def pool(self) -> Pool:
        """How its embeddings are pooled."""
        return Pool.build(self.pooling, self.encoder[1], self.head[0], self.max_peers)

    @property
    def floats(self) -> bytes:
        """Gains and offsets, and bounds."""
        rows = [self.peer.gain, self.peer.offset, self.ego.gain, self.ego.offset, *(self.bounds or ())]
        return b"".join(np.asarray(row, "<f4").tobytes() for row in rows)

    @property
    def multipliers(self) -> bytes:
        """Of the pooling."""
        return b"".join(struct.pack("<ii", m.mantissa, m.shift) for m in self.pool.multipliers)


def record(slot: Slot, offsets: Sequence[int]) -> bytes:
    """A slot's 176 bytes; offsets of encoder, head, floats and multipliers."""
    encoder, head = slot.models
    tensors = (slot.encoder[1], slot.head[0], slot.head[1])
    kinds = (("max", "sum", "mean").index(slot.pooling), 0 if slot.bounds is None else 1, slot.max_peers, slot.bits)
    sizes = (len(slot.peer.gain), len(slot.ego.gain), slot.encoder[1].size, slot.head[1].size)
    return b"".join(
        (
            slot.track.encode().ljust(16, b"\0"),
            struct.pack("<4I", offsets[0], len(encoder), offsets[1], len(head)),
            hashlib.sha256(encoder).digest(),
            hashlib.sha256(head).digest(),
            struct.pack("<4B4H", *kinds, *sizes),
            *(struct.pack("<fi", t.scale, t.zero_point) for t in tensors),
            struct.pack("<IIH", offsets[2], offsets[3], len(slot.pool.multipliers)),
            slot.residuals,
            hashlib.sha256(slot.track.encode()).digest(),
        )
    )


def sealed(body: bytes, slots: int, version: int = protocol.PACK_VERSION) -> bytes:
    """A pack with its header."""
    head = struct.pack("<4sHHII", protocol.PACK_MAGIC, version, slots, 64 + len(body), 0)
    return head + hashlib.sha256(body).digest() + bytes(16) + body


def pack(slots: Sequence[Slot]) -> bytes:
    """A whole pack."""
    start = protocol.PACK_HEADER_SIZE + protocol.PACK_SLOT_SIZE * len(slots)
    records, rest = b"", b""
    for slot in slots:
        offsets = []
        for part in (*slot.models, slot.floats, slot.multipliers):
            rest += bytes(-(start + len(rest)) % protocol.PACK_ALIGNMENT)
            offsets.append(start + len(rest))
            rest += part
        records += record(slot, offsets)
    return sealed(records + rest, len(slots))


def f32(*values: float) -> NDArray[np.float32]:
    """A float32 array."""
    return np.array(values, np.float32)


SLOTS = (
    Slot(
        "ptq",
        "max",
        3,
        Affine(f32(10, 0.5), f32(0.25, -3)),
        Affine(f32(100, 3e38), f32(-1.5, 0)),
        (tensor(2, 0.1, 0), tensor(3, 0.05, -128)),
        (tensor(5, 0.05, -128), tensor(4, 0.125, 3)),
    ),
    Slot(
        "qat",
        "mean",
        4,
        Affine(f32(10, 20, 30), f32(0, 0.5, -0.5)),
        Affine(f32(7), f32(11)),
        (tensor(3, 0.1, 0), tensor(2, 0.0371, -7)),
        (tensor(3, 0.0113, 20), tensor(2, 0.0625, -4)),
        ((-4.0, -1.0), (2.5, float("inf"))),
    ),
    Slot(
        "sum",
        "sum",
        2,
        Affine(f32(10, 20), f32(0, 0.5), residual=16),
        Affine(f32(7), f32(11), residual=256),
        (tensor(4, 0.1, 0), tensor(2, 0.02, 5)),
        (tensor(4, 0.03, -20), tensor(2, 0.25, 0)),
    ),
    Slot(
        "wide",
        "mean",
        3,
        Affine(f32(1000, 3e4), f32(0.25, -3), bits=16),
        Affine(f32(3e4), f32(-7.5), bits=16),
        (tensor(2, 0.1, 0, 16), tensor(2, 0.0004, 0, 16)),
        (tensor(3, 0.0003, 0, 16), tensor(2, 0.0625, 0, 16)),
        ((-900.0, -4.0), (1000.0, float("inf"))),
    ),
)


@dataclass(frozen=True)
class Seen:
    """An observation: P peer slots, of which those with mask 1 hold a peer."""

    mask: Sequence[int]
    ego: Sequence[float]
    peers: Sequence[Sequence[float]]

    @property
    def payload(self) -> bytes:
        """P, mask, ego and peers as a request has them."""
        flat = [value for row in self.peers for value in row]
        return bytes([len(self.mask), *self.mask]) + np.array([*self.ego, *flat], "<f4").tobytes()


# --- the fake board ------------------------------------------------------------------------------------------------


def largest() -> Slot:
    """A slot that is as large as one may be: the longest DECIDE and its reply."""
    features, ego, embedding, outputs = 16, 64, 128, 32
    target = tensor(outputs, 0.07, -1)
    return Slot(
        "fifteen-letters",
        "mean",
        16,
        Affine(np.linspace(1, 40, features, dtype=np.float32), np.linspace(-9, 9, features, dtype=np.float32)),
        Affine(np.linspace(-50, 50, ego, dtype=np.float32), np.linspace(4, -4, ego, dtype=np.float32)),
        (tensor(features, 0.1, 0), tensor(embedding, 0.05, -3)),
        (tensor(embedding + ego, 0.04, 1), target),
        (tuple(np.linspace(-4, 0, outputs).tolist()), tuple(np.linspace(0.5, 5, outputs).tolist())),
    )


class EngineFailedError(Exception):
    """The fake engine failed, as it was made to."""


def run(model: tuple[Quantized, Quantized], row: Sequence[int]) -> Codes:
    """The fake engine."""
    if row[0] == FAILING_INPUT:
        raise EngineFailedError
    sums = [7 * j + sum((i + j + 1) * value for i, value in enumerate(row)) for j in range(model[1].size)]
    return np.array(sums, np.int64).astype(code_type(model[1].bits))


@dataclass
class Clock:
    """The fake clock."""

    now: int = CLOCK_START

    def read(self) -> int:
        """The counter, which moves on."""
        value = self.now
        self.now = (value + 5 + value % 7) % (1 << 32)
        return value

    def account(self, stage: Stage, elements: int) -> None:
        """Time passes."""
        self.now = (self.now + (stage + 1) * elements) % (1 << 32)


@dataclass
class Board:
    """What a board must answer, by the protocol's description."""

    slots: Sequence[Slot]
    clock: Clock = field(default_factory=Clock)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("decisions", "invokes", "good", "bad", "crc", "noise"), 0)
    )

    def decision(self, slot: Slot, seen: Seen) -> tuple[dict[str, bytes], NDArray[np.float32], list[int]]:
        """The bytes at every interface, the values, and the ticks of each stage."""
        mask = seen.mask
        marks = [self.clock.read()]
        with np.errstate(over="ignore"):
            ego_q = slot.ego.quantize(f32(*seen.ego)[None])[0]
            rows = [
                slot.peer.quantize(f32(*row)[None])[0] for row, there in zip(seen.peers, mask, strict=True) if there
            ]
        self.clock.account(Stage.QUANTIZE, len(rows) * slot.peer.size + slot.ego.size)
        marks.append(self.clock.read())
        inputs = np.zeros((len(mask), slot.peer.size), code_type(slot.peer.bits))
        embeddings = np.full((len(mask), slot.encoder[1].size), slot.pool.neutral, inputs.dtype)
        for at, row in zip(np.flatnonzero(mask), rows, strict=True):
            inputs[at], embeddings[at] = row, run(slot.encoder, row.tolist())
            self.clock.account(Stage.ENCODE, 1)
        marks.append(self.clock.read())
        pooled = slot.pool(embeddings[:, None], np.array(mask, bool).reshape(-1, 1))[0]
        self.clock.account(Stage.POOL, len(rows) * len(pooled))
        marks.append(self.clock.read())
        head_inputs = np.concatenate([pooled, ego_q])
        outputs = run(slot.head, head_inputs.tolist())
        self.clock.account(Stage.HEAD, 1)
        marks.append(self.clock.read())
        self.clock.account(Stage.OUTPUT, len(outputs))
        marks.append(self.clock.read())
        marks.append(self.clock.read())
        ticks = [(b - a) % (1 << 32) for a, b in pairwise(marks[:-1])]
        ticks.append((marks[-1] - marks[0]) % (1 << 32))
        self.counts["decisions"] += 1
        arrays = (inputs, embeddings, pooled, head_inputs, outputs)
        names = ("peer_inputs", "embeddings", "pooled", "head_inputs", "outputs")
        return dict(zip(names, (a.tobytes() for a in arrays), strict=True)), self.values(slot, outputs), ticks

    @staticmethod
    def values(slot: Slot, outputs: Codes) -> NDArray[np.float32]:
        """Logits, or actions within their bounds."""
        values = slot.head[1].dequantize(outputs)
        return values if slot.bounds is None else np.clip(values, f32(*slot.bounds[0]), f32(*slot.bounds[1]))

    def decide_reply(self, index: int, seen: Seen, flags: int, flip: int = 0) -> bytes:
        """DECIDE's payload; `flip` is XORed to the first output."""
        slot = self.slots[index]
        interfaces, values, ticks = self.decision(slot, seen)
        if flip:
            outputs = np.frombuffer(interfaces["outputs"], code_type(slot.peer.bits)).copy()
            outputs[0] ^= flip
            interfaces["outputs"], values = outputs.tobytes(), self.values(slot, outputs)
        action = int(np.argmax(values)) if slot.bounds is None else protocol.NO_ACTION
        reply = struct.pack("<4B", index, sum(seen.mask), action, len(values)) + values.astype("<f4").tobytes()
        reply += struct.pack("<6I", *ticks)
        return reply + (b"".join(interfaces.values()) if flags & protocol.DECIDE_INTERFACES else b"")

    def bench_reply(self, index: int, warmup: int, repeats: int, seen: Seen) -> bytes:
        """BENCH's payload."""
        runs = [self.decision(self.slots[index], seen)[2] for _ in range(warmup + repeats)][warmup:]
        reply = struct.pack("<BH", index, repeats)
        for stage in zip(*runs, strict=True):
            n, samples = len(stage), sorted(stage)
            ranks = (1, -(-n // 2), -(-99 * n // 100), n)
            reply += struct.pack("<4I", *(samples[rank - 1] for rank in ranks))
        return reply

    def invoke_reply(self, index: int, part: int, row: Sequence[int], flip: int = 0) -> bytes:
        """INVOKE's payload."""
        slot = self.slots[index]
        began = self.clock.read()
        outputs = run((slot.encoder, slot.head)[part], row)
        self.clock.account((Stage.ENCODE, Stage.HEAD)[part], 1)
        ticks = (self.clock.read() - began) % (1 << 32)
        outputs[0] ^= flip
        self.counts["invokes"] += 1
        return struct.pack("<BBI", index, part, ticks) + outputs.tobytes()

    def stats_reply(self, pack_bytes: int) -> bytes:
        """STATS's payload: 123 s up, then sizes, counters last."""
        sizes = (123000, 200000, 150000, 3000, 400000, protocol.NOT_AVAILABLE, 524288, pack_bytes)
        return struct.pack("<8If6I", *sizes, 41.5, *self.counts.values())


def hello_reply(capabilities: int) -> bytes:
    """HELLO's payload."""
    fixed = struct.pack("<BBHIHBIIHB", protocol.VERSION, 4, 3072, 8192, 1000, 4, capabilities, 1000000, 240, 2)
    identity = bytes(range(0x02, 0x08)) + struct.pack("<H", 301) + bytes(range(32))
    words = ("1.2.3", "esp32", "linux", "v5.5", "fake engine 1", "", "x" * 300)
    return fixed + identity + b"".join(text(word) for word in words)


def models_reply(status: PackStatus, partition: bytes = b"", slots: Sequence[Slot] = (), note: str = "") -> bytes:
    """MODELS's payload: hash and length of the pack only as far as they were found to be right."""
    late = (PackStatus.OK, PackStatus.BAD_HASH, PackStatus.BAD_SLOT, PackStatus.BAD_MODEL)
    size = len(partition) if status in late else 0
    known = size > 0 and hashlib.sha256(partition[64:]).digest() == partition[16:48]
    reply = bytes([status]) + text(protocol.PACK_WORDS[status] + note)
    reply += (partition[16:48] if known else bytes(32)) + struct.pack("<IB", size, len(slots))
    for slot in slots:
        reply += text(slot.track) + record(slot, (0, 0, 0, 0))[96:100] + slot.residuals
        reply += struct.pack("<4H", len(slot.peer.gain), len(slot.ego.gain), slot.encoder[1].size, slot.head[1].size)
        for model, tensors in zip(slot.models, (slot.encoder, slot.head), strict=True):
            reply += struct.pack("<I", len(model)) + hashlib.sha256(model).digest()
            reply += struct.pack("<II", 100 + tensors[0].size, 8192)
            reply += b"".join(struct.pack("<fiH", t.scale, t.zero_point, t.size) for t in tensors)
            reply += text("FULLY_CONNECTED,TANH")
    return reply


# --- the file ------------------------------------------------------------------------------------------------------


class Lines:
    """The file as it grows, and a sequence number for each request."""

    def __init__(self) -> None:
        self.lines = [HEAD]
        self.sequence = 0

    def put(self, keyword: str, *arguments: object) -> None:
        """One line."""
        self.lines.append(" ".join((keyword, *map(str, arguments))))

    def start(self, keyword: str, *arguments: object) -> None:
        """The first line of a block."""
        self.lines.append("")
        self.put(keyword, *arguments)

    def hexes(self, keyword: str, data: bytes) -> None:
        """Long bytes over several lines."""
        for at in range(0, len(data), 48):
            self.put(keyword, data[at : at + 48].hex())

    def exchange(self, name: str, request: bytes, *replies: bytes, call: str = "") -> None:
        """Bytes on the line and the frames that answer."""
        self.start("exchange", name)
        self.put("in", hexed(request))
        for reply in replies:
            self.put("out", hexed(reply))
        if call:
            self.put("call", call)

    def ask(self, name: str, kind: int, payload: bytes, reply: bytes, call: str = "") -> None:
        """A request with the next sequence, and its reply."""
        self.sequence += 1
        request = frame(kind, self.sequence, payload)
        self.exchange(name, request, frame(kind | protocol.REPLY, self.sequence, reply), call=call)

    def fail(self, name: str, kind: int, payload: bytes, code: ErrorCode) -> None:
        """A request with the next sequence, and its error."""
        self.sequence += 1
        self.exchange(name, frame(kind, self.sequence, payload), self.error(code, kind, self.sequence))

    @staticmethod
    def error(code: ErrorCode, kind: int = 0, sequence: int = 0) -> bytes:
        """An error reply."""
        return frame(protocol.ERROR, sequence, bytes([code, kind]) + text(protocol.ERROR_WORDS[code]))


Case = tuple[object, ...]
"""A decoder's case: name, bytes on the line, and its events."""

GOOD = frame(Message.DECIDE, 513, b"\x00\x01\x02\xff")
GOOD_FRAME = ("frame", protocol.VERSION, 3, 513, b"\x00\x01\x02\xff")


def decoders(out: Lines) -> None:
    """What is on the line, and what it is."""
    for name, data, *events in (*frame_cases(), *text_cases(), *damage_cases()):
        assert isinstance(data, bytes)
        out.start("decoder", name)
        out.hexes("in", data)
        for event in events:
            assert isinstance(event, tuple)
            out.put(*(hexed(e) if isinstance(e, bytes) else str(e) for e in event))


def frame_cases() -> tuple[Case, ...]:
    """Frames as they should be, and delimiters lost and added."""
    big = frame(Message.INVOKE, 7, bytes(i * 7 % 256 for i in range(protocol.MAX_PAYLOAD)))
    full = frame(Message.INVOKE, 0x0A0A, b"\x01" * protocol.MAX_PAYLOAD)
    begins = frame(Message.INVOKE, 0x0101, b"\1\1\1\0".ljust(0x101, b"\1"))
    assert begins[1] == 0x0A
    return (
        ("a-frame", GOOD, GOOD_FRAME),
        ("empty-payload", frame(Message.HELLO, 0), ("frame", protocol.VERSION, 1, 0, b"")),
        ("two-frames", GOOD + GOOD, GOOD_FRAME, GOOD_FRAME),
        ("many-delimiters", b"\0\0\0" + GOOD + b"\0\0", GOOD_FRAME),
        ("shared-delimiter-is-lost", GOOD + GOOD[1:], GOOD_FRAME, ("text", GOOD[1:-1])),
        ("lost-opening-delimiter", GOOD[1:] + GOOD, ("text", GOOD[1:-1]), GOOD_FRAME),
        ("lost-closing-delimiter", GOOD[:-1] + GOOD, GOOD_FRAME, ("text", GOOD[1:-1])),
        ("largest-payload", big, _frame_event(big)),
        ("longest-frame", full, _frame_event(full)),
        ("first-byte-is-a-line-feed", begins, _frame_event(begins)),
        ("another-version", frame(1, 5, b"ab", version=1) + GOOD, ("frame", 1, 1, 5, b"ab"), GOOD_FRAME),
    )


def text_cases() -> tuple[Case, ...]:
    """Log before, between and inside of delimiters."""
    colours = b"\x1b[1m\tok\x1b[0m\r"
    return (
        ("text-before", b"boot: \x1b[32mok\r\n" + GOOD, ("text", b"boot: \x1b[32mok\r\n"), GOOD_FRAME),
        ("text-between", GOOD + b"log\n" + GOOD, GOOD_FRAME, ("text", b"log\n"), GOOD_FRAME),
        ("text-without-line-end-between", GOOD + b"log" + GOOD, GOOD_FRAME, ("text", b"log"), GOOD_FRAME),
        ("text-in-utf-8", "Grad: 20 °C".encode() + GOOD, ("text", "Grad: 20 °C".encode()), GOOD_FRAME),
        ("text-inside", b"\0log\n" + GOOD, ("text", b"log\n"), GOOD_FRAME),
        ("text-inside-without-line-end", b"\0log" + GOOD, ("text", b"log"), GOOD_FRAME),
        ("two-lines-inside", b"\0one\ntwo\n" + GOOD, ("text", b"one\ntwo\n"), GOOD_FRAME),
        ("colours-inside", b"\0" + colours + GOOD, ("text", colours), GOOD_FRAME),
        ("line-inside-then-frame", b"\0log\n" + GOOD[1:] + GOOD, ("text", b"log\n"), GOOD_FRAME, GOOD_FRAME),
        ("much-text", b"\0" + b"x" * 4000 + GOOD, ("text", b"x" * 4000), GOOD_FRAME),
        ("longest-text", b"\0" + b"x" * LONGEST + GOOD, ("text", b"x" * LONGEST), GOOD_FRAME),
    )


def damage_cases() -> tuple[Case, ...]:
    """What is neither frame nor text; a good frame after it is found."""
    crc = bytearray(GOOD)
    crc[6] ^= 0x40
    longer = frame(Message.INVOKE, 7, bytes(protocol.MAX_PAYLOAD + 1))
    flood = bytes([1 + i % 7 for i in range(4000)])
    kept = LONGEST + 1
    return (
        ("lost-closing-delimiter-and-text", GOOD[:-1] + b"panic\n" + GOOD, ("damage", "BAD_FRAME"), GOOD_FRAME),
        ("control-characters-inside", b"\0ok\x08\x07" + GOOD, ("damage", "BAD_FRAME"), GOOD_FRAME),
        ("line-inside-then-damage", b"\0log\n\x01\x02" + GOOD, ("text", b"log\n"), ("damage", "BAD_FRAME"), GOOD_FRAME),
        ("damage-then-line", b"\0\x01\x02log\n" + GOOD, ("damage", "BAD_FRAME"), GOOD_FRAME),
        ("bad-crc", bytes(crc) + GOOD, ("damage", "BAD_CRC"), GOOD_FRAME),
        ("too-short", enclosed(b"\x01" * 9) + GOOD, ("damage", "BAD_FRAME"), GOOD_FRAME),
        ("one-byte", b"\0\x01" + GOOD, ("damage", "BAD_FRAME"), GOOD_FRAME),
        ("block-cut-off", b"\0\x09\x01\x02" + GOOD, ("damage", "BAD_FRAME"), GOOD_FRAME),
        ("cut-off", GOOD[:9] + b"\0" + GOOD, ("damage", "BAD_FRAME"), GOOD_FRAME),
        ("one-byte-too-long", longer + GOOD, ("damage", "TOO_LONG"), GOOD_FRAME),
        ("much-too-long", b"\0" + flood + GOOD, ("damage", "TOO_LONG"), ("text", flood[kept:]), GOOD_FRAME),
        ("wrong-length", frame(1, 5, b"ab", length=3) + GOOD, ("damage", "BAD_LENGTH"), GOOD_FRAME),
        ("wrong-length-then-text", frame(1, 5, b"a", length=0) + b"log", ("damage", "BAD_LENGTH"), ("text", b"log")),
    )


LONGEST = len(frame(Message.INVOKE, 0x0A0A, b"\x01" * protocol.MAX_PAYLOAD)) - 2
"""Bytes between the delimiters of the longest frame."""


def _frame_event(whole: bytes) -> Case:
    raw = cobs.decode(whole[1:-1])
    version, kind, sequence, _ = struct.unpack_from("<BBHH", raw)
    return ("frame", version, kind, sequence, raw[6:-4])


EGO = (0.5, 1e38)
PEERS = ((1.0, 2.0), (-3.0, 40.0), (0.25, -7.0))
SEEN = Seen((1, 0, 1), EGO, PEERS)
START = bytes([0, 0])
"""DECIDE's slot and flags."""


def bench_head(warmup: int, repeats: int, index: int = 0) -> bytes:
    """BENCH's slot, warm-up and repeats."""
    return struct.pack("<BHH", index, warmup, repeats)


def whole_board(out: Lines, partition: bytes) -> None:
    """A good pack: every message, and every error that needs one."""
    board = Board(SLOTS)
    out.start("server", "whole", "good")
    out.ask("hello", Message.HELLO, b"", hello_reply(int(Capability.TEMPERATURE)))
    out.ask("models", Message.MODELS, b"", models_reply(PackStatus.OK, partition, SLOTS))
    decisions(out, board)
    for name, index, part, row in (
        ("encoder", 0, 0, (-128, 127)),
        ("head", 0, 1, (1, -2, 3, -4, 5)),
        ("another-track", 1, 1, (127, 127, -128)),
        ("residuals", 2, 0, (1, -2, 127, -128)),
        ("int16-encoder", 3, 0, (-32768, 32767)),
        ("int16-head", 3, 1, (256, -257, 32767)),
    ):
        body = bytes([index, part]) + np.array(row, code_type(SLOTS[index].peer.bits)).tobytes()
        out.ask(f"invoke-{name}", Message.INVOKE, body, board.invoke_reply(index, part, row))
    for warmup, repeats in ((0, 1), (2, 2), (1, 101), (1000, 1000)):
        reply = board.bench_reply(0, warmup, repeats, SEEN)
        out.ask(f"bench-{warmup}-{repeats}", Message.BENCH, bench_head(warmup, repeats) + SEEN.payload, reply)
    out.ask("reset", Message.RESET, b"", b"", call="restart")
    refused_by_size(out)
    refused_by_content(out)
    refused_while_deciding(out, board)
    board.counts["good"] = out.sequence  # Every request so far.
    damaged(out, board)
    sequences(out, board, len(partition))


def decisions(out: Lines, board: Board) -> None:
    """DECIDE in all its variety."""
    nan, inf = float("nan"), float("inf")
    three = ((0.1, 0.2, 0.3), (-0.4, 0.5, -0.6), (1.0, -1.0, 0.0), (0.7, 0.7, 0.7))
    cases = [
        ("plain", 0, Seen((1, 1, 1), EGO, PEERS), 0),
        ("interfaces", 0, Seen((1, 1, 1), EGO, PEERS), 1),
        ("permuted", 0, Seen((1, 1, 1), EGO, PEERS[::-1]), 1),
        ("masked", 0, SEEN, 1),
        ("absent-nan", 0, Seen((0, 1, 0), (0.5, -1e38), ((nan, inf), (1.0, 2.0), (-inf, nan))), 1),
        ("no-slots", 0, Seen((), EGO, ()), 1),
        ("nobody", 0, Seen((0, 0), EGO, PEERS[:2]), 1),
        ("halves", 0, Seen((1,), (0.02, 0.0), ((0.225, 7.0),)), 1),
        ("huge", 0, Seen((1, 1), (3e38, 1e38), ((3e38, -3e38), (-3e38, 3e38))), 1),
        *((f"mean-of-{n}", 1, Seen([1] * n + [0] * (4 - n), (0.3,), three), 1) for n in range(5)),
        *((f"box-at-a-bound-{n}", 1, Seen([1] * n + [0] * (4 - n), (9.0 - 5 * n,), three), 1) for n in range(5)),
        *((f"sum-of-{n}", 2, Seen([1] * n, (-0.3,), [row[:2] for row in three[:n]]), 1) for n in range(3)),
        ("residuals", 2, Seen((0, 1), (0.3,), ((9.0, 9.0), (0.123, -0.456))), 1),
        ("residuals-saturated", 2, Seen((1, 1), (3e38,), ((50.0, -50.0), (-3e38, 3e38))), 1),
        ("residuals-halves", 2, Seen((1,), (-0.5,), ((0.15, 0.0),)), 1),
        ("int16-plain", 3, Seen((1, 0, 1), (0.5,), [row[:2] for row in three[:3]]), 0),
        *((f"int16-mean-of-{n}", 3, Seen([1] * n, (-0.3,), [row[:2] for row in three[:n]]), 1) for n in range(4)),
        ("int16-halves", 3, Seen((1,), (0.0,), ((0.00025, 7.0),)), 1),
        ("int16-huge", 3, Seen((1, 1), (3e38,), ((3e38, -3e38), (-3e38, 3e38))), 1),
    ]
    for name, index, seen, flags in cases:
        reply = board.decide_reply(index, seen, flags)
        out.ask(f"decide-{name}", Message.DECIDE, bytes([index, flags]) + seen.payload, reply)


def refused_by_size(out: Lines) -> None:
    """Bodies of a wrong size."""
    body = SEEN.payload
    for kind in (Message.HELLO, Message.MODELS, Message.STATS, Message.RESET):
        out.fail(f"bad-length-{kind.name.lower()}", kind, b"\0", ErrorCode.BAD_LENGTH)
    for name, kind, payload in (
        ("decide-head", Message.DECIDE, bytes(2)),
        ("invoke-head", Message.INVOKE, bytes(1)),
        ("bench-head", Message.BENCH, bytes(5)),
        ("fault", Message.FAULT, b""),
        ("fault-long", Message.FAULT, b"\3\0"),
        ("decide-short", Message.DECIDE, START + body[:-1]),
        ("decide-long", Message.DECIDE, START + body + b"\0"),
        ("bench", Message.BENCH, bench_head(1, 1) + body[:-4]),
        ("invoke-short", Message.INVOKE, bytes([0, 0, 1])),
        ("invoke-long", Message.INVOKE, bytes([0, 0, 1, 2, 3])),
        ("invoke-without-residuals", Message.INVOKE, bytes([2, 0, 1, 2])),
        ("invoke-int8-of-int16", Message.INVOKE, bytes([3, 0, 1, 2])),
    ):
        out.fail(f"bad-length-{name}", kind, payload, ErrorCode.BAD_LENGTH)


def refused_by_content(out: Lines) -> None:
    """What is refused before anything is computed."""
    body, many = SEEN.payload, Seen((0,) * 4, EGO, ((0.0, 0.0),) * 4).payload
    for name, kind, payload, code in (
        ("unknown-type", protocol.MESSAGES + 1, b"", ErrorCode.UNKNOWN_TYPE),
        ("unknown-type-of-a-reply", 0x81, b"abc", ErrorCode.UNKNOWN_TYPE),
        ("unknown-type-0", 0x00, b"", ErrorCode.UNKNOWN_TYPE),
        ("unknown-slot-decide", Message.DECIDE, bytes([4, 0]) + body, ErrorCode.UNKNOWN_SLOT),
        ("unknown-slot-invoke", Message.INVOKE, bytes([255, 0, 1, 2]), ErrorCode.UNKNOWN_SLOT),
        ("unknown-slot-bench", Message.BENCH, bench_head(0, 1, index=4) + body, ErrorCode.UNKNOWN_SLOT),
        ("unknown-part", Message.INVOKE, bytes([0, 2, 1, 2]), ErrorCode.UNKNOWN_SLOT),
        ("bad-argument-flags", Message.DECIDE, bytes([0, 2]) + body, ErrorCode.BAD_ARGUMENT),
        ("bad-argument-no-repeats", Message.BENCH, bench_head(0, 0) + body, ErrorCode.BAD_ARGUMENT),
        ("bad-argument-repeats", Message.BENCH, bench_head(0, 1001) + body, ErrorCode.BAD_ARGUMENT),
        ("bad-argument-warmup", Message.BENCH, bench_head(1001, 1) + body, ErrorCode.BAD_ARGUMENT),
        ("too-many-peers", Message.DECIDE, START + many, ErrorCode.TOO_MANY_PEERS),
        ("too-many-peers-bench", Message.BENCH, bench_head(0, 1) + many, ErrorCode.TOO_MANY_PEERS),
        ("too-many-peers-and-short", Message.DECIDE, START + b"\xff", ErrorCode.TOO_MANY_PEERS),
        ("bad-input-mask", Message.DECIDE, START + Seen((2,), EGO, PEERS[:1]).payload, ErrorCode.BAD_INPUT),
        ("not-available", Message.FAULT, bytes([FaultKind.CORRUPT_REPLY]), ErrorCode.NOT_AVAILABLE),
    ):
        out.fail(name, kind, payload, code)


def refused_while_deciding(out: Lines, board: Board) -> None:
    """What is found out while the clock runs."""
    nan, inf = float("nan"), float("inf")
    for name, seen in (
        ("ego-nan", Seen((1,), (nan, 0.0), PEERS[:1])),
        ("ego-infinite", Seen((0,), (0.0, -inf), PEERS[:1])),
        ("peer-nan", Seen((1,), EGO, ((1.0, nan),))),
        ("peer-infinite", Seen((1,), EGO, ((inf, 1.0),))),
    ):
        for kind, head in ((Message.DECIDE, START), (Message.BENCH, bench_head(0, 9))):
            out.fail(f"bad-input-{name}-{kind.name.lower()}", kind, head + seen.payload, ErrorCode.BAD_INPUT)
            board.clock.read()
    failing = Seen((1,), EGO, ((9.875, 0.0),))
    for kind, head in ((Message.DECIDE, START), (Message.BENCH, bench_head(3, 9))):
        out.fail(f"engine-failed-{kind.name.lower()}", kind, head + failing.payload, ErrorCode.ENGINE_FAILED)
        board.clock.read()
        board.clock.account(Stage.QUANTIZE, 4)
        board.clock.read()
    out.fail("engine-failed-invoke", Message.INVOKE, bytes([0, 0, FAILING_INPUT, 0]), ErrorCode.ENGINE_FAILED)
    board.clock.read()
    board.clock.account(Stage.ENCODE, 1)
    board.clock.read()
    out.ask("invoke-after-failures", Message.INVOKE, bytes([0, 0, 1, 2]), board.invoke_reply(0, 0, (1, 2)))


def damaged(out: Lines, board: Board) -> None:
    """What is no frame is answered once, and the next request is right."""
    whole = frame(Message.STATS, 9)
    crc = bytearray(whole)
    crc[3] ^= 0x10
    flood = bytes([1 + i % 7 for i in range(5000)])
    for case, data, code in (
        ("bad-crc", bytes(crc), ErrorCode.BAD_CRC),
        ("bad-frame", b"\0\x01\x02\0", ErrorCode.BAD_FRAME),
        ("too-long", frame(Message.INVOKE, 9, bytes(3073)), ErrorCode.TOO_LONG),
        ("much-too-long", b"\0" + flood + b"\0", ErrorCode.TOO_LONG),
    ):
        out.exchange(case, data, out.error(code))
        board.counts["bad"] += 1
        board.counts["crc"] += code is ErrorCode.BAD_CRC
    board.counts["noise"] += len(flood) - 3096
    out.exchange("bad-version", frame(3, 77, b"abc", version=1), out.error(ErrorCode.BAD_VERSION, 3, 77))
    out.exchange("bad-length-header", frame(6, 78, b"abc", length=2), out.error(ErrorCode.BAD_LENGTH, 6, 78))
    out.exchange("text", b"AT\r\nroot\n")
    out.exchange("an-error-is-not-answered", frame(protocol.ERROR, 79, b"\1\0\0"))
    board.counts["bad"] += 2
    board.counts["noise"] += 9
    board.counts["good"] += 1


def sequences(out: Lines, board: Board, pack_bytes: int) -> None:
    """One request is answered once."""
    board.counts["good"] += 1
    request = frame(Message.STATS, 1000)
    out.exchange("fresh", request, frame(0x86, 1000, board.stats_reply(pack_bytes)))
    board.counts["good"] += 1
    out.exchange("duplicate", request, out.error(ErrorCode.DUPLICATE_SEQUENCE, Message.STATS, 1000))
    board.counts["good"] += 1
    out.exchange("duplicate-again", request, out.error(ErrorCode.DUPLICATE_SEQUENCE, Message.STATS, 1000))
    hello = frame(Message.HELLO, 1000)
    said = frame(0x81, 1000, hello_reply(int(Capability.TEMPERATURE)))
    board.counts["good"] += 2
    out.exchange("hello-starts-anew", hello + hello, said, said)
    board.counts["good"] += 1
    first = board.stats_reply(pack_bytes)
    out.exchange("any-sequence-after-hello", request, frame(0x86, 1000, first))
    requests, replies = b"", []
    for sequence in (0, 65535, 0):
        board.counts["good"] += 1
        requests += frame(Message.STATS, sequence)
        replies.append(frame(0x86, sequence, board.stats_reply(pack_bytes)))
    out.exchange("three-in-flight", requests, *replies)


def fault_board(out: Lines) -> None:
    """Deliberate faults."""
    board = Board(SLOTS)
    flags = int(Capability.TEST_FAULTS | Capability.TEMPERATURE)
    out.start("server", "faults", "good")
    out.ask("hello", Message.HELLO, b"", hello_reply(flags))
    for kind in (FaultKind.PANIC, FaultKind.HANG):
        out.ask(f"fault-{kind.name.lower()}", Message.FAULT, bytes([kind]), b"", call=f"fault {int(kind)}")
    out.fail("bad-argument-fault-0", Message.FAULT, b"\0", ErrorCode.BAD_ARGUMENT)
    out.fail("bad-argument-fault-5", Message.FAULT, b"\5", ErrorCode.BAD_ARGUMENT)
    out.ask("fault-corrupt-reply", Message.FAULT, bytes([FaultKind.CORRUPT_REPLY]), b"")
    out.sequence += 1
    raw = bytearray(cobs.decode(frame(0x81, out.sequence, hello_reply(flags))[1:-1]))
    raw[-4] ^= 1
    out.exchange("corrupted-reply", frame(Message.HELLO, out.sequence), enclosed(bytes(raw)))
    out.ask("right-again", Message.HELLO, b"", hello_reply(flags))
    corrupt = bytes([FaultKind.CORRUPT_OUTPUT])
    row = (3, 4)
    invoke = bytes([0, 0, *row])
    out.ask("fault-corrupt-output", Message.FAULT, corrupt, b"")
    out.ask("corrupted-invoke", Message.INVOKE, invoke, board.invoke_reply(0, 0, row, flip=1))
    out.ask("right-invoke", Message.INVOKE, invoke, board.invoke_reply(0, 0, row))
    decide = bytes([0, 1]) + SEEN.payload
    out.ask("fault-corrupt-output-again", Message.FAULT, corrupt, b"")
    out.ask("corrupted-decide", Message.DECIDE, decide, board.decide_reply(0, SEEN, 1, flip=1))
    out.ask("right-decide", Message.DECIDE, decide, board.decide_reply(0, SEEN, 1))


def largest_board(out: Lines, partition: bytes) -> None:
    """Everything at its largest."""
    slot = largest()
    board = Board((slot,))
    ego = np.linspace(-3, 3, 64, dtype=np.float32).tolist()
    peers = np.linspace(-4, 4, 256, dtype=np.float32).reshape(16, 16).tolist()
    out.start("server", "largest", "largest")
    out.ask("models-largest", Message.MODELS, b"", models_reply(PackStatus.OK, partition, (slot,)))
    for present in (16, 7, 0):
        seen = Seen([1] * present + [0] * (16 - present), ego, peers)
        reply = board.decide_reply(0, seen, 1)
        out.ask(f"decide-largest-{present}", Message.DECIDE, bytes([0, 1]) + seen.payload, reply)
    row = [(7 * i) % 95 for i in range(192)]
    body = bytes([0, 1, *row])
    out.ask("invoke-largest", Message.INVOKE, body, board.invoke_reply(0, 1, row))
    many = Seen([0] * 17, ego, [[0.0] * 16] * 17).payload
    out.fail("too-many-peers-for-any-pack", Message.DECIDE, START + many, ErrorCode.TOO_MANY_PEERS)


def patched(good: bytes, at: int, data: bytes) -> bytes:
    """A pack with other bytes at an offset, and a hash that says they belong there."""
    return sealed((good[:at] + data + good[at + len(data) :])[64:], struct.unpack_from("<H", good, 6)[0])


def with_model(good: bytes, part: int, at: int, data: bytes) -> bytes:
    """A pack whose first slot has other bytes in a model, and hashes that say they belong there."""
    start, size = struct.unpack_from("<II", good, 64 + 16 + 8 * part)
    changed = patched(good, start + at, data)
    return patched(changed, 64 + 32 + 32 * part, hashlib.sha256(changed[start : start + size]).digest())


def bad_packs(good: bytes) -> dict[str, tuple[bytes, PackStatus, str]]:
    """Packs that are refused, why, and what is said besides."""
    flipped = good[:200] + bytes([good[200] ^ 1]) + good[201:]
    encoder_sizes, head_sizes = (f": the {part}'s tensors have other sizes" for part in ("encoder", "head"))
    encoder_output, head_input, head_output = (
        f": the {tensor} has another scale or zero point"
        for tensor in ("encoder's output", "head's input", "head's output")
    )
    model = PackStatus.BAD_MODEL
    return {
        "erased": (b"\xff" * 256, PackStatus.EMPTY, ""),
        "zeros": (bytes(256), PackStatus.EMPTY, ""),
        "other": (b"\x1c\0\0\0TFL3" + bytes(100), PackStatus.BAD_MAGIC, ""),
        "older": (sealed(good[64:], len(SLOTS), version=1), PackStatus.BAD_VERSION, ""),
        "reserved": (good[:48] + b"\1" + good[49:], PackStatus.BAD_VERSION, ""),
        "cut-off": (good[:-1], PackStatus.BAD_LENGTH, ""),
        "header-only": (good[:40], PackStatus.BAD_LENGTH, ""),
        "damaged": (flipped, PackStatus.BAD_HASH, ""),
        "other-model": (patched(good, 64 + 32, bytes(32)), PackStatus.BAD_HASH, ""),
        "no-slots": (sealed(good[64:], 0), PackStatus.BAD_SLOT, ""),
        "no-peers": (patched(good, 64 + 98, b"\0"), PackStatus.BAD_SLOT, ""),
        "width": (patched(good, 64 + 99, b"\x0c"), PackStatus.BAD_SLOT, ""),
        "int16-zero-point": (patched(good, 64 + 3 * 176 + 112, b"\1"), PackStatus.BAD_SLOT, ""),
        "int16-residual": (patched(good, 64 + 3 * 176 + 142, b"\4"), PackStatus.BAD_SLOT, ""),
        "too-fine": (patched(good, 64 + 143, b"\x09"), PackStatus.BAD_SLOT, ""),
        "encoder-width": (with_model(good, 0, 24, b"\x10"), model, ": the encoder's tensors are of another width"),
        "head-width": (with_model(good, 1, 24, b"\x10"), model, ": the head's tensors are of another width"),
        "refused-model": (with_model(good, 0, 0, b"NONE"), model, ": not a fake model"),
        "encoder-input-size": (with_model(good, 0, 4, b"\3\0"), model, encoder_sizes),
        "encoder-output-size": (with_model(good, 0, 6, b"\2\0"), model, encoder_sizes),
        "encoder-output-scale": (with_model(good, 0, 16, struct.pack("<f", 0.0625)), model, encoder_output),
        "encoder-output-zero-point": (with_model(good, 0, 20, struct.pack("<i", -127)), model, encoder_output),
        "head-input-size": (with_model(good, 1, 4, b"\6\0"), model, head_sizes),
        "head-output-size": (with_model(good, 1, 6, b"\5\0"), model, head_sizes),
        "head-input-scale": (with_model(good, 1, 8, struct.pack("<f", 0.0625)), model, head_input),
        "head-input-zero-point": (with_model(good, 1, 12, struct.pack("<i", -127)), model, head_input),
        "head-output-scale": (with_model(good, 1, 16, struct.pack("<f", 0.0625)), model, head_output),
        "head-output-zero-point": (with_model(good, 1, 20, struct.pack("<i", 4)), model, head_output),
    }


def vectors() -> str:
    """The text of vectors.txt."""
    out = Lines()
    decoders(out)
    good = pack(SLOTS)
    refused = bad_packs(good)
    large = pack([largest()])
    for name, data in {
        "good": good,
        "largest": large,
        **{name: data for name, (data, _, _) in refused.items()},
    }.items():
        out.start("pack", name)
        out.hexes("hex", data)
    whole_board(out, good)
    largest_board(out, large)
    fault_board(out)
    statuses = {"none": (b"", PackStatus.EMPTY, ""), **refused}
    for name, (data, status, note) in statuses.items():
        out.start("server", f"pack-{name}", name)
        out.ask(f"models-{name}", Message.MODELS, b"", models_reply(status, data, note=note))
        for kind, payload in (
            (Message.DECIDE, bytes([0, 0, 0])),
            (Message.INVOKE, bytes([0, 0])),
            (Message.BENCH, struct.pack("<BHHB", 0, 0, 1, 0)),
        ):
            out.fail(f"no-models-{kind.name.lower()}", kind, payload, ErrorCode.NO_MODELS)
    return "\n".join([*out.lines, ""])


def main() -> None:
    """Writes the file named on the command line, or the one beside this script."""
    Path(sys.argv[1] if len(sys.argv) > 1 else FILE).write_text(vectors(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
