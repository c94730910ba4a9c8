"""Every request and every reply as a value, and as the payload of a frame.

All integers are little-endian; a string is a length byte and UTF-8; float32 is IEEE single. ``decode`` accepts exactly
what ``encode`` writes: a payload that is too short, too long or names an unknown code is a
:class:`~quant.errors.ProtocolError` that says which message and where.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np

from quant.errors import ProtocolError
from quant.observation.observations import F32, Mask
from quant.tracks.candidate import Bits, Codes
from quant.wire.protocol import (
    DECIDE_INTERFACES,
    ERROR_WORDS,
    MAX_RESIDUAL_BITS,
    NOT_AVAILABLE,
    ActionCode,
    Capability,
    ErrorCode,
    EvidenceCode,
    FaultKind,
    Message,
    PackStatus,
    PartCode,
    PoolingCode,
    Stage,
)

R_co = TypeVar("R_co", covariant=True)
Code = TypeVar("Code", bound=IntEnum)

STAGES = len(Stage)
HASH_SIZE = 32
_MAX_STRING = 255


class Request(Protocol[R_co]):
    """A request knows its type, its payload, and how to read its reply."""

    @property
    def kind(self) -> Message:
        """Its type."""

    def encode(self) -> bytes:
        """Its payload."""

    def reply(self, payload: bytes) -> R_co:
        """Reads the payload of its reply.

        Raises:
            ProtocolError: it is not one.
        """


class Reader:
    """Takes a payload apart from its front.

    Args:
        payload: the bytes.
        what: the message, for errors.
    """

    def __init__(self, payload: bytes, what: str) -> None:
        self._payload = payload
        self._what = what
        self._at = 0

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        """The next values of a fixed layout."""
        return layout.unpack(self.raw(layout.size))

    def raw(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        part = self._payload[self._at : self._at + size]
        if len(part) != size:
            raise self.error(f"is cut off: {size} bytes should follow byte {self._at} of {len(self._payload)}")
        self._at += size
        return part

    def string(self) -> str:
        """The next string. One that its sender cut in the middle of a character is still read."""
        return self.raw(self.raw(1)[0]).decode(errors="replace")

    def sha256(self) -> str:
        """The next hash, in hexadecimal."""
        return self.raw(HASH_SIZE).hex()

    def floats(self, *shape: int) -> F32:
        """The next float32 values."""
        return np.frombuffer(self.raw(4 * math.prod(shape)), "<f4").astype(np.float32, copy=False).reshape(shape)

    def code(self, kind: type[Code], value: int) -> Code:
        """The member of ``kind`` that ``value`` is."""
        try:
            return kind(value)
        except ValueError:
            raise self.error(f"names {kind.__name__} {value}, which this version does not know") from None

    def rest(self) -> bytes:
        """All that is left."""
        return self.raw(len(self._payload) - self._at)

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._payload):
            raise self.error(f"has {len(self._payload) - self._at} bytes more than it should")

    def error(self, what: str) -> ProtocolError:
        """An error about this message."""
        return ProtocolError(
            f"the {self._what} {what}",
            expected="the layout of docs/protocol.md",
            hint="firmware and host are of different builds: flash the firmware of this version",
        )


def _string(text: str) -> bytes:
    data = text.encode()[:_MAX_STRING]
    return bytes([len(data)]) + data


def _f4(values: F32) -> bytes:
    return np.asarray(values, "<f4").tobytes()


def _figure(value: int | None) -> int:
    return NOT_AVAILABLE if value is None else value


def _known(figure: int) -> int | None:
    return None if figure == NOT_AVAILABLE else figure


def residual_bits(factor: int) -> int:
    """A residual's factor, 0 or a power of two, as packs and messages have it: n of 2^n, 0 where there is none."""
    return max(factor.bit_length() - 1, 0)


def residual_factor(bits: int) -> int:
    """The inverse of :func:`residual_bits`."""
    return 1 << bits if bits else 0


class _WithoutBody:
    """A request that says all by its type."""

    kind: ClassVar[Message]

    def encode(self) -> bytes:
        """Empty."""
        return b""

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """The inverse of :meth:`encode`.

        Raises:
            ProtocolError: it is not empty.
        """
        Reader(payload, f"{cls.kind.name} request").end()
        return cls()


@dataclass(frozen=True)
class HelloRequest(_WithoutBody):
    """Who are you?"""

    kind: ClassVar[Message] = Message.HELLO

    def reply(self, payload: bytes) -> HelloReply:
        """Reads the reply."""
        return HelloReply.decode(payload)


_HELLO = struct.Struct("<BBHIHBIIHB6sH")


@dataclass(frozen=True)
class HelloReply:
    """Who the board is.

    Attributes:
        protocol: version of the protocol.
        evidence: where its times come from.
        max_payload: bytes of payload it accepts.
        rx_buffer: bytes it can have waiting.
        max_repeats: of one BENCH.
        max_slots: tracks it can hold.
        capabilities: what else it can do.
        ticks_per_second: rate of the clock that times the stages.
        cpu_mhz, cores: of the chip.
        mac: six bytes in hexadecimal with colons; the board's identity.
        chip_revision: major * 100 + minor.
        elf_sha256: hash of the firmware's ELF file, in hexadecimal.
        firmware: version of the app.
        chip: as esptool calls it, in lower case.
        target: what the firmware was built for.
        idf, engine, kernels: versions of ESP-IDF, of the inference library and of the kernels beneath it.
        reset_reason: why it started last.
    """

    protocol: int
    evidence: EvidenceCode
    max_payload: int
    rx_buffer: int
    max_repeats: int
    max_slots: int
    capabilities: Capability
    ticks_per_second: int
    cpu_mhz: int
    cores: int
    mac: str
    chip_revision: int
    elf_sha256: str
    firmware: str
    chip: str
    target: str
    idf: str
    engine: str
    kernels: str
    reset_reason: str

    def encode(self) -> bytes:
        """The payload."""
        fixed = _HELLO.pack(
            self.protocol,
            self.evidence,
            self.max_payload,
            self.rx_buffer,
            self.max_repeats,
            self.max_slots,
            self.capabilities,
            self.ticks_per_second,
            self.cpu_mhz,
            self.cores,
            bytes.fromhex(self.mac.replace(":", "")),
            self.chip_revision,
        )
        words = (self.firmware, self.chip, self.target, self.idf, self.engine, self.kernels, self.reset_reason)
        return fixed + bytes.fromhex(self.elf_sha256) + b"".join(map(_string, words))

    @staticmethod
    def decode(payload: bytes) -> HelloReply:
        """The inverse of :meth:`encode`.

        Raises:
            ProtocolError: it is not a HELLO reply.
        """
        reader = Reader(payload, "HELLO reply")
        protocol, evidence, payload_size, rx, repeats, slots, capabilities, *chip = reader.take(_HELLO)
        ticks, mhz, cores, mac, revision = chip
        if not ticks:
            raise reader.error("gives a clock of 0 ticks a second")
        reply = HelloReply(
            protocol=protocol,
            evidence=reader.code(EvidenceCode, evidence),
            max_payload=payload_size,
            rx_buffer=rx,
            max_repeats=repeats,
            max_slots=slots,
            capabilities=Capability(capabilities),
            ticks_per_second=ticks,
            cpu_mhz=mhz,
            cores=cores,
            mac=mac.hex(":"),
            chip_revision=revision,
            elf_sha256=reader.sha256(),
            firmware=reader.string(),
            chip=reader.string(),
            target=reader.string(),
            idf=reader.string(),
            engine=reader.string(),
            kernels=reader.string(),
            reset_reason=reader.string(),
        )
        reader.end()
        return reply


@dataclass(frozen=True)
class ModelsRequest(_WithoutBody):
    """Which models do you hold?"""

    kind: ClassVar[Message] = Message.MODELS

    def reply(self, payload: bytes) -> ModelsReply:
        """Reads the reply."""
        return ModelsReply.decode(payload)


_PACK = struct.Struct("<IB")
_SLOT = struct.Struct("<6B4H")
_ARENA = struct.Struct("<II")
_TENSOR = struct.Struct("<fiH")
_SIZE = struct.Struct("<I")


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of codes: real = scale * (q - zero_point)."""

    scale: float
    zero_point: int
    size: int

    def encode(self) -> bytes:
        """Ten bytes."""
        return _TENSOR.pack(self.scale, self.zero_point, self.size)


@dataclass(frozen=True)
class PartInfo:
    """A sub-model as the board's engine sees it.

    Attributes:
        size: bytes of the .tflite file.
        sha256: of that file.
        arena_used, arena_size: bytes; None where the engine does not tell.
        input, output: its tensors.
        operators: in their order.
    """

    size: int
    sha256: str
    arena_used: int | None
    arena_size: int | None
    input: TensorInfo
    output: TensorInfo
    operators: tuple[str, ...]

    def encode(self) -> bytes:
        """One part of a MODELS reply."""
        arena = _ARENA.pack(_figure(self.arena_used), _figure(self.arena_size))
        head = _SIZE.pack(self.size) + bytes.fromhex(self.sha256) + arena
        return head + self.input.encode() + self.output.encode() + _string(",".join(self.operators))

    @staticmethod
    def take(reader: Reader) -> PartInfo:
        """The next part of a MODELS reply."""
        (size,) = reader.take(_SIZE)
        sha256 = reader.sha256()
        used, available = map(_known, reader.take(_ARENA))
        source, target = (TensorInfo(*reader.take(_TENSOR)) for _ in range(2))
        return PartInfo(size, sha256, used, available, source, target, tuple(filter(None, reader.string().split(","))))


@dataclass(frozen=True)
class SlotInfo:
    """A track on the board.

    Attributes:
        track: its name.
        pooling: how embeddings are pooled.
        action: what the outputs mean.
        max_peers: peer slots of an observation.
        bits: width of the codes at every interface, 8 or 16.
        peer_residual, ego_residual: as :class:`quant.tracks.candidate.Affine` has it; 0: no residuals.
        features, ego, embedding, outputs: F, E, D and A.
        peer_encoder, policy_head: its sub-models.
    """

    track: str
    pooling: PoolingCode
    action: ActionCode
    max_peers: int
    bits: Bits
    peer_residual: int
    ego_residual: int
    features: int
    ego: int
    embedding: int
    outputs: int
    peer_encoder: PartInfo
    policy_head: PartInfo

    def part(self, part: PartCode) -> PartInfo:
        """One of its sub-models."""
        return self.peer_encoder if part == PartCode.PEER_ENCODER else self.policy_head

    @property
    def dtype(self) -> np.dtype[np.int8] | np.dtype[np.int16]:
        """Of the codes on the line."""
        return np.dtype("<i1") if self.bits == 8 else np.dtype("<i2")

    def codes(self, data: bytes, *shape: int) -> Codes:
        """Codes that came over the line, in this shape."""
        return np.frombuffer(data, str(self.dtype)).reshape(shape)

    def encode(self) -> bytes:
        """One slot of a MODELS reply."""
        residuals = (residual_bits(self.peer_residual), residual_bits(self.ego_residual))
        sizes = (self.features, self.ego, self.embedding, self.outputs)
        kinds = (self.pooling, self.action, self.max_peers, self.bits, *residuals)
        fixed = _string(self.track) + _SLOT.pack(*kinds, *sizes)
        return fixed + self.peer_encoder.encode() + self.policy_head.encode()

    @staticmethod
    def take(reader: Reader) -> SlotInfo:
        """The next slot of a MODELS reply."""
        track = reader.string()
        pooling, action, max_peers, bits, peer_bits, ego_bits, features, ego, embedding, outputs = reader.take(_SLOT)
        if bits not in {8, 16} or max(peer_bits, ego_bits) > MAX_RESIDUAL_BITS:
            raise reader.error(f"has codes of {bits} bits and residuals of {peer_bits} and {ego_bits}")
        return SlotInfo(
            track=track,
            pooling=reader.code(PoolingCode, pooling),
            action=reader.code(ActionCode, action),
            max_peers=max_peers,
            bits=bits,
            peer_residual=residual_factor(peer_bits),
            ego_residual=residual_factor(ego_bits),
            features=features,
            ego=ego,
            embedding=embedding,
            outputs=outputs,
            peer_encoder=PartInfo.take(reader),
            policy_head=PartInfo.take(reader),
        )


@dataclass(frozen=True)
class ModelsReply:
    """What the board found where its models lie.

    Attributes:
        status: whether the pack is good.
        words: what is wrong with it, or that nothing is.
        sha256: of the pack, in hexadecimal; zeros where there is none.
        size: bytes of the pack.
        slots: the tracks, by slot.
    """

    status: PackStatus
    words: str
    sha256: str
    size: int
    slots: tuple[SlotInfo, ...]

    def encode(self) -> bytes:
        """The payload."""
        head = bytes([self.status]) + _string(self.words) + bytes.fromhex(self.sha256)
        return head + _PACK.pack(self.size, len(self.slots)) + b"".join(slot.encode() for slot in self.slots)

    @staticmethod
    def decode(payload: bytes) -> ModelsReply:
        """The inverse of :meth:`encode`.

        Raises:
            ProtocolError: it is not a MODELS reply.
        """
        reader = Reader(payload, "MODELS reply")
        status = reader.code(PackStatus, reader.raw(1)[0])
        words, sha256 = reader.string(), reader.sha256()
        size, slots = reader.take(_PACK)
        reply = ModelsReply(status, words, sha256, size, tuple(SlotInfo.take(reader) for _ in range(slots)))
        reader.end()
        return reply


def _encode_observation(ego: F32, peers: F32, mask: Mask) -> bytes:
    return bytes([len(mask)]) + np.asarray(mask, np.uint8).tobytes() + _f4(ego) + _f4(peers)


def _decode_observation(reader: Reader, ego: int, features: int) -> tuple[F32, F32, Mask]:
    count = reader.raw(1)[0]
    present = reader.raw(count)
    if set(present) - {0, 1}:
        raise reader.error("has a mask that is neither 0 nor 1")
    mask = np.frombuffer(present, np.uint8).astype(np.bool_)
    observation = (reader.floats(ego), reader.floats(count, features), mask)
    reader.end()
    return observation


@dataclass(frozen=True, eq=False)
class DecideRequest:
    """Decide on one observation.

    Attributes:
        slot: the track.
        ego: (E,) float32.
        peers: (P, F) float32.
        mask: (P,) bool.
        interfaces: whether the reply shall have the codes of every interface.
    """

    kind: ClassVar[Message] = Message.DECIDE

    slot: int
    ego: F32
    peers: F32
    mask: Mask
    interfaces: bool = False

    def encode(self) -> bytes:
        """The payload."""
        flags = DECIDE_INTERFACES if self.interfaces else 0
        return bytes([self.slot, flags]) + _encode_observation(self.ego, self.peers, self.mask)

    @staticmethod
    def decode(payload: bytes, ego: int, features: int) -> DecideRequest:
        """The inverse of :meth:`encode`, for a track with E = ``ego`` and F = ``features``."""
        reader = Reader(payload, "DECIDE request")
        slot, flags = reader.raw(2)
        if flags & ~DECIDE_INTERFACES:
            raise reader.error(f"has unknown flags: {flags:#x}")
        return DecideRequest(slot, *_decode_observation(reader, ego, features), bool(flags & DECIDE_INTERFACES))

    def reply(self, payload: bytes) -> DecideReply:
        """Reads the reply."""
        reply = DecideReply.decode(payload)
        if (
            reply.slot != self.slot
            or reply.present != int(self.mask.sum())
            or bool(reply.interfaces) != self.interfaces
        ):
            raise ProtocolError(
                "the DECIDE reply is not to this request",
                expected=f"slot {self.slot}, {int(self.mask.sum())} peers, interfaces: {self.interfaces}",
                hint=f"it has slot {reply.slot}, {reply.present} peers, {len(reply.interfaces)} bytes of interfaces",
            )
        return reply


_FLOAT = 4
_DECIDED = struct.Struct("<4B")
_TICKS = struct.Struct(f"<{STAGES}I")


@dataclass(frozen=True, eq=False)
class DecideReply:
    """A decision.

    Attributes:
        slot: the track.
        present: peers present.
        action: the first largest of ``values``; ``NO_ACTION`` where actions are continuous.
        values: (A,) float32, logits or actions within the bounds.
        ticks: of each stage.
        interfaces: the codes of every interface, one after the other as :class:`quant.runners.Decision` has them, each
            1 or 2 bytes; empty where they were not asked for.
    """

    slot: int
    present: int
    action: int
    values: F32
    ticks: tuple[int, ...]
    interfaces: bytes = b""

    def encode(self) -> bytes:
        """The payload."""
        head = _DECIDED.pack(self.slot, self.present, self.action, len(self.values))
        return head + _f4(self.values) + _TICKS.pack(*self.ticks) + self.interfaces

    @staticmethod
    def size(outputs: int) -> int:
        """Bytes without the interfaces."""
        return _DECIDED.size + _FLOAT * outputs + _TICKS.size

    @staticmethod
    def decode(payload: bytes) -> DecideReply:
        """The inverse of :meth:`encode`.

        Raises:
            ProtocolError: it is not a DECIDE reply.
        """
        reader = Reader(payload, "DECIDE reply")
        slot, present, action, outputs = reader.take(_DECIDED)
        return DecideReply(slot, present, action, reader.floats(outputs), reader.take(_TICKS), reader.rest())


@dataclass(frozen=True)
class InvokeRequest:
    """Run one sub-model.

    Attributes:
        slot: the track.
        part: which of its two.
        input: (K,) codes, as bytes.
    """

    kind: ClassVar[Message] = Message.INVOKE

    slot: int
    part: PartCode
    input: bytes

    def encode(self) -> bytes:
        """The payload."""
        return bytes([self.slot, self.part]) + self.input

    @staticmethod
    def decode(payload: bytes) -> InvokeRequest:
        """The inverse of :meth:`encode`."""
        reader = Reader(payload, "INVOKE request")
        slot, part = reader.raw(2)
        return InvokeRequest(slot, reader.code(PartCode, part), reader.rest())

    def reply(self, payload: bytes) -> InvokeReply:
        """Reads the reply."""
        reply = InvokeReply.decode(payload)
        if (reply.slot, reply.part) != (self.slot, self.part):
            raise ProtocolError(
                f"the INVOKE reply is for slot {reply.slot}, part {reply.part.name}",
                expected=f"slot {self.slot}, part {self.part.name}",
            )
        return reply


_INVOKED = struct.Struct("<BBI")


@dataclass(frozen=True)
class InvokeReply:
    """What a sub-model gives: (M,) codes, as bytes; ``ticks`` is the time it took."""

    slot: int
    part: PartCode
    ticks: int
    output: bytes

    def encode(self) -> bytes:
        """The payload."""
        return _INVOKED.pack(self.slot, self.part, self.ticks) + self.output

    @staticmethod
    def decode(payload: bytes) -> InvokeReply:
        """The inverse of :meth:`encode`.

        Raises:
            ProtocolError: it is not an INVOKE reply.
        """
        reader = Reader(payload, "INVOKE reply")
        slot, part, ticks = reader.take(_INVOKED)
        return InvokeReply(slot, reader.code(PartCode, part), ticks, reader.rest())


_BENCH = struct.Struct("<BHH")


@dataclass(frozen=True, eq=False)
class BenchRequest:
    """Decide on one observation again and again, and time it.

    Attributes:
        slot: the track.
        warmup: decisions before the timed ones.
        repeats: timed decisions.
        ego: (E,) float32.
        peers: (P, F) float32.
        mask: (P,) bool.
    """

    kind: ClassVar[Message] = Message.BENCH

    slot: int
    warmup: int
    repeats: int
    ego: F32
    peers: F32
    mask: Mask

    def encode(self) -> bytes:
        """The payload."""
        head = _BENCH.pack(self.slot, self.warmup, self.repeats)
        return head + _encode_observation(self.ego, self.peers, self.mask)

    @staticmethod
    def decode(payload: bytes, ego: int, features: int) -> BenchRequest:
        """The inverse of :meth:`encode`, for a track with E = ``ego`` and F = ``features``."""
        reader = Reader(payload, "BENCH request")
        slot, warmup, repeats = reader.take(_BENCH)
        return BenchRequest(slot, warmup, repeats, *_decode_observation(reader, ego, features))

    def reply(self, payload: bytes) -> BenchReply:
        """Reads the reply."""
        reply = BenchReply.decode(payload)
        if (reply.slot, reply.repeats) != (self.slot, self.repeats):
            raise ProtocolError(
                f"the BENCH reply is for slot {reply.slot} and {reply.repeats} repeats",
                expected=f"slot {self.slot} and {self.repeats} repeats",
            )
        return reply


_BENCHED = struct.Struct("<BH")
_QUANTILES = struct.Struct("<4I")


@dataclass(frozen=True)
class TickQuantiles:
    """Of many times, in ticks, by nearest rank."""

    minimum: int
    median: int
    p99: int
    maximum: int


@dataclass(frozen=True)
class BenchReply:
    """Times of each stage, by :class:`~quant.wire.protocol.Stage`."""

    slot: int
    repeats: int
    stages: tuple[TickQuantiles, ...]

    def encode(self) -> bytes:
        """The payload."""
        rows = (_QUANTILES.pack(row.minimum, row.median, row.p99, row.maximum) for row in self.stages)
        return _BENCHED.pack(self.slot, self.repeats) + b"".join(rows)

    @staticmethod
    def decode(payload: bytes) -> BenchReply:
        """The inverse of :meth:`encode`.

        Raises:
            ProtocolError: it is not a BENCH reply.
        """
        reader = Reader(payload, "BENCH reply")
        slot, repeats = reader.take(_BENCHED)
        reply = BenchReply(slot, repeats, tuple(TickQuantiles(*reader.take(_QUANTILES)) for _ in range(STAGES)))
        reader.end()
        return reply


@dataclass(frozen=True)
class StatsRequest(_WithoutBody):
    """How are you?"""

    kind: ClassVar[Message] = Message.STATS

    def reply(self, payload: bytes) -> StatsReply:
        """Reads the reply."""
        return StatsReply.decode(payload)


_STATS = struct.Struct("<8If6I")


@dataclass(frozen=True)
class StatsReply:
    """Figures that change. None: this board cannot tell.

    Attributes:
        uptime_ms: since it started.
        heap_free, heap_minimum: bytes, now and least ever.
        stack_left: bytes, least ever, of the task that serves.
        app_bytes, app_partition: the firmware's image and its partition.
        models_partition, models_bytes: the models' partition and the pack in it.
        temperature: degrees Celsius.
        decisions, invokes: done since it started.
        frames_good, frames_bad: received.
        bad_crc: of the bad ones, those whose CRC was wrong.
        noise_bytes: received outside of frames.
    """

    uptime_ms: int
    heap_free: int | None
    heap_minimum: int | None
    stack_left: int | None
    app_bytes: int | None
    app_partition: int | None
    models_partition: int | None
    models_bytes: int | None
    temperature: float | None
    decisions: int
    invokes: int
    frames_good: int
    frames_bad: int
    bad_crc: int
    noise_bytes: int

    def encode(self) -> bytes:
        """The payload."""
        sizes = (
            self.heap_free,
            self.heap_minimum,
            self.stack_left,
            self.app_bytes,
            self.app_partition,
            self.models_partition,
            self.models_bytes,
        )
        return _STATS.pack(
            self.uptime_ms,
            *map(_figure, sizes),
            math.nan if self.temperature is None else self.temperature,
            self.decisions,
            self.invokes,
            self.frames_good,
            self.frames_bad,
            self.bad_crc,
            self.noise_bytes,
        )

    @staticmethod
    def decode(payload: bytes) -> StatsReply:
        """The inverse of :meth:`encode`.

        Raises:
            ProtocolError: it is not a STATS reply.
        """
        reader = Reader(payload, "STATS reply")
        values = reader.take(_STATS)
        reader.end()
        known = tuple(map(_known, values[1:8]))
        temperature = None if math.isnan(values[8]) else values[8]
        return StatsReply(*(values[0], *known, temperature, *values[9:]))


@dataclass(frozen=True)
class ResetRequest(_WithoutBody):
    """Restart."""

    kind: ClassVar[Message] = Message.RESET

    def reply(self, payload: bytes) -> None:
        """The reply is empty."""
        Reader(payload, "RESET reply").end()


@dataclass(frozen=True)
class FaultRequest:
    """Do something wrong, on purpose."""

    kind: ClassVar[Message] = Message.FAULT

    fault: FaultKind

    def encode(self) -> bytes:
        """One byte."""
        return bytes([self.fault])

    @staticmethod
    def decode(payload: bytes) -> FaultRequest:
        """The inverse of :meth:`encode`."""
        reader = Reader(payload, "FAULT request")
        request = FaultRequest(reader.code(FaultKind, reader.raw(1)[0]))
        reader.end()
        return request

    def reply(self, payload: bytes) -> None:
        """The reply is empty."""
        Reader(payload, "FAULT reply").end()


@dataclass(frozen=True)
class ErrorReply:
    """A request was refused.

    Attributes:
        code: one of :class:`~quant.wire.protocol.ErrorCode`, or a number this version does not know.
        request: type of the request, 0 where it could not be read.
        words: the board's.
    """

    code: int
    request: int
    words: str

    @property
    def name(self) -> str:
        """The code's name, or its number."""
        return ErrorCode(self.code).name if self.code in ERROR_WORDS else f"error {self.code}"

    def encode(self) -> bytes:
        """The payload."""
        return bytes([self.code, self.request]) + _string(self.words)

    @staticmethod
    def decode(payload: bytes) -> ErrorReply:
        """The inverse of :meth:`encode`.

        Raises:
            ProtocolError: it is not an error reply.
        """
        reader = Reader(payload, "ERROR reply")
        code, request = reader.raw(2)
        reply = ErrorReply(code, request, reader.string())
        reader.end()
        return reply
