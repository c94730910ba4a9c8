"""The model pack: what a board's models partition holds, and the reader of the host's side.

A header, one record for each track, then each track's gains and offsets, pooling multipliers and two models. Everything
is little-endian; offsets count from the pack's start. The layout is described in ``docs/protocol.md``; the firmware's
reader is ``policy_core/pack.cpp``.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quant.errors import InputError
from quant.files import sha256
from quant.observation.observations import F32
from quant.policy.policy import Box
from quant.runners import Model, Pool, Quantized, read_model
from quant.runners.fixed_point import INT32_MAX, Multiplier
from quant.runners.flatbuffer import FullyConnected
from quant.tracks.candidate import Affine, Bits, Candidate, code_limits
from quant.wire.messages import DecideReply, residual_bits, residual_factor
from quant.wire.protocol import (
    MAX_EGO,
    MAX_EMBEDDING,
    MAX_FEATURES,
    MAX_OUTPUTS,
    MAX_PAYLOAD,
    MAX_PEERS,
    MAX_RESIDUAL_BITS,
    MAX_SLOTS,
    PACK_ALIGNMENT,
    PACK_HEADER_SIZE,
    PACK_MAGIC,
    PACK_SLOT_SIZE,
    PACK_VERSION,
    PACK_WORDS,
    TRACK_SIZE,
    ActionCode,
    PackStatus,
    PoolingCode,
)

_HEADER = struct.Struct("<4sHHII32s16s")
_SLOT = struct.Struct("<16s4I32s32s4B4HfififiIIHBB32s")
_OFFSETS = (1, 3, 21, 22)
"""Which of a record's fields are offsets: of the models, the gains and the multipliers."""
_MULTIPLIER = struct.Struct("<ii")
_FLOAT = 4
_POOLING = {"max": PoolingCode.MAX, "sum": PoolingCode.SUM, "mean": PoolingCode.MEAN}
_HASH = re.compile("[0-9a-f]{64}")
_TRACK = re.compile(f"[!-~]{{1,{TRACK_SIZE - 1}}}")
_SHIFTS = range(-31, 31)
_RESIDUALS = {residual_factor(bits) for bits in range(MAX_RESIDUAL_BITS + 1)}
_SMALLEST_MANTISSA = 1 << 30
FIRMWARE_OPERATORS = ("FULLY_CONNECTED", "TANH", "LOGISTIC", "ELU")
"""Those of ``tflm_engine/model_check.cpp``."""


@dataclass(frozen=True, eq=False)
class PackedTrack:
    """One track of a pack.

    Attributes:
        track: its name.
        pooling, action, max_peers: as in :class:`~quant.tracks.candidate.Candidate`.
        embedding, head_input, output: the encoder's output, the head's input and the head's output.
        peer_input, ego_input: quantization of the features, with its width and its residuals.
        low, high: (A,) float32, the actions' bounds; empty where actions are discrete.
        multipliers: of the pooling.
        peer_encoder, policy_head: the .tflite files.
        policy_sha256: hash of the float policy both were made from.
    """

    track: str
    pooling: PoolingCode
    action: ActionCode
    max_peers: int
    embedding: Quantized
    head_input: Quantized
    output: Quantized
    peer_input: Affine
    ego_input: Affine
    low: F32
    high: F32
    multipliers: tuple[Multiplier, ...]
    peer_encoder: bytes
    policy_head: bytes
    policy_sha256: str

    @property
    def bits(self) -> Bits:
        """Width of the codes at every interface."""
        return self.peer_input.bits

    @property
    def longest_reply(self) -> int:
        """Bytes of the longest reply to DECIDE: the codes at every interface, with all peer slots."""
        codes = self.max_peers * (self.peer_input.size + self.embedding.size)
        codes += self.embedding.size + self.head_input.size + self.output.size
        return DecideReply.size(self.output.size) + codes * self.bits // 8

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of both models, by part."""
        return {"peer_encoder": sha256(self.peer_encoder), "policy_head": sha256(self.policy_head)}

    @property
    def _floats(self) -> bytes:
        rows = (self.peer_input.gain, self.peer_input.offset, self.ego_input.gain, self.ego_input.offset)
        return b"".join(np.asarray(row, "<f4").tobytes() for row in (*rows, self.low, self.high))

    @property
    def _multipliers(self) -> bytes:
        return b"".join(_MULTIPLIER.pack(item.mantissa, item.shift) for item in self.multipliers)


@dataclass(frozen=True, eq=False)
class Pack:
    """A pack that was read.

    Attributes:
        sha256: of what follows the header, as the board reports it.
        size: bytes, header included.
        tracks: by slot.
    """

    sha256: str
    size: int
    tracks: tuple[PackedTrack, ...]


def build_pack(candidates: Sequence[Candidate]) -> bytes:
    """Packs candidates, one a slot, in their order. Equal candidates give equal bytes.

    Raises:
        InputError: there are none, or too many, or two of one name; one is larger than the firmware holds, or its parts
            do not fit together.
    """
    names = [candidate.track for candidate in candidates]
    if not 0 < len(names) <= MAX_SLOTS or len(set(names)) != len(names):
        raise InputError(
            f"a pack of the tracks {', '.join(names) or '(none)'}",
            expected=f"1 to {MAX_SLOTS} tracks of different names",
        )
    tracks = [_packed(candidate) for candidate in candidates]
    body = bytearray(PACK_SLOT_SIZE * len(tracks))
    for slot, track in enumerate(tracks):
        affine, multipliers = _append(body, track._floats, _FLOAT), _append(body, track._multipliers, _FLOAT)
        models = [
            (_append(body, model, PACK_ALIGNMENT), len(model)) for model in (track.peer_encoder, track.policy_head)
        ]
        _SLOT.pack_into(
            body,
            slot * PACK_SLOT_SIZE,
            track.track.encode(),
            *(number for model in models for number in model),
            *(bytes.fromhex(digest) for digest in track.hashes.values()),
            *(track.pooling, track.action, track.max_peers, track.bits),
            *(len(track.peer_input.gain), len(track.ego_input.gain), track.embedding.size, track.output.size),
            *_quantization(track.embedding, track.head_input, track.output),
            *(affine, multipliers, len(track.multipliers)),
            *(residual_bits(affine.residual) for affine in (track.peer_input, track.ego_input)),
            bytes.fromhex(track.policy_sha256),
        )
    total = PACK_HEADER_SIZE + len(body)
    digest = hashlib.sha256(body).digest()
    return _HEADER.pack(PACK_MAGIC, PACK_VERSION, len(tracks), total, 0, digest, bytes(16)) + bytes(body)


def _append(body: bytearray, data: bytes, alignment: int) -> int:
    """Puts data behind the rest; its offset from the pack's start."""
    body += bytes(-len(body) % alignment)
    body += data
    return PACK_HEADER_SIZE + len(body) - len(data)


def _quantization(*tensors: Quantized) -> tuple[float, ...]:
    return tuple(number for tensor in tensors for number in (float(tensor.scale), tensor.zero_point))


def _packed(candidate: Candidate) -> PackedTrack:
    where = f"track {candidate.track}"
    encoder = read_model(candidate.peer_encoder.tflite, f"peer_encoder of {candidate.track}")
    head = read_model(candidate.policy_head.tflite, f"policy_head of {candidate.track}")
    _check_parts(candidate, encoder, head, where)
    space = candidate.action_space
    low, high = (space.low, space.high) if isinstance(space, Box) else ((), ())
    track = PackedTrack(
        track=candidate.track,
        pooling=_POOLING[candidate.pooling],
        action=ActionCode.BOX if isinstance(space, Box) else ActionCode.DISCRETE,
        max_peers=candidate.max_peers,
        embedding=encoder.output,
        head_input=head.input,
        output=head.output,
        peer_input=candidate.peer_input,
        ego_input=candidate.ego_input,
        low=np.array(low, np.float32),
        high=np.array(high, np.float32),
        multipliers=Pool.build(candidate.pooling, encoder.output, head.input, candidate.max_peers).multipliers,
        peer_encoder=candidate.peer_encoder.tflite,
        policy_head=candidate.policy_head.tflite,
        policy_sha256=candidate.policy_sha256,
    )
    if (reason := _unfit(track)) is not None:
        raise InputError(f"the firmware cannot hold it: {reason}", where=where, hint="leave this track out: --tracks")
    return track


def _check_parts(candidate: Candidate, encoder: Model, head: Model, where: str) -> None:
    """Refuses sub-models of other sizes or another width than what is between them."""
    for what, size, expected in (
        ("peer_encoder's input", encoder.input.size, candidate.peer_input.size),
        ("policy_head's input", head.input.size, encoder.output.size + candidate.ego_input.size),
        ("policy_head's output", head.output.size, candidate.action_space.width),
    ):
        if size != expected:
            raise InputError(f"the {what} has {size} values", where=where, expected=f"{expected} values")
    widths = {
        "peer_encoder": encoder.input.bits,
        "policy_head": head.input.bits,
        "peers' features": candidate.peer_input.bits,
        "ego's features": candidate.ego_input.bits,
    }
    for what, bits in widths.items():
        if bits != candidate.bits:
            raise InputError(f"{bits} bits in the {what}", where=where, expected=f"{candidate.bits} bits everywhere")
    for part, model in (("peer_encoder", encoder), ("policy_head", head)):
        if (reason := _unfit_layers(model)) is not None:
            raise InputError(
                f"the firmware cannot run the {part}: {reason}", where=where, hint="leave this track out: --tracks"
            )


def _unfit_layers(model: Model) -> str | None:
    """Why the chips would refuse a sub-model, or run it wrong, that the ``tflite_micro`` wheel runs right.

    The firmware has the kernels of `FIRMWARE_OPERATORS` alone. The int16 FULLY_CONNECTED of esp-tflite-micro 1.4.0
    (``kernels/esp_nn/fully_connected.cc``) has no code for weight scales by output: it would compute with a multiplier
    that was never set.
    """
    unknown = [name for name in model.operators if name not in FIRMWARE_OPERATORS]
    if unknown:
        return f"the operator {unknown[0]}; the firmware has {', '.join(FIRMWARE_OPERATORS)}"
    for layer in model.layers:
        if isinstance(layer, FullyConnected) and layer.input.bits == 16 and layer.per_channel:
            return "an int16 FULLY_CONNECTED with a weight scale for each output; the chips' kernel takes one"
    return None


def _unfit(track: PackedTrack) -> str | None:
    """Why the firmware's reader would refuse a track (``kBadSlot``); None: it takes it."""
    return _unfit_names(track) or _unfit_sizes(track) or _unfit_numbers(track) or _unfit_multipliers(track)


def _unfit_names(track: PackedTrack) -> str | None:
    if _TRACK.fullmatch(track.track) is None:
        return f"the name {track.track!r}; it takes 1 to {TRACK_SIZE - 1} characters of ASCII without spaces"
    if _HASH.fullmatch(track.policy_sha256) is None:
        return f"the policy's hash {track.policy_sha256!r}; it takes 64 hexadecimal digits"
    return None


def _unfit_sizes(track: PackedTrack) -> str | None:
    for what, size, least, most in (
        ("peers", track.max_peers, 1, MAX_PEERS),
        ("features of a peer", len(track.peer_input.gain), 1, MAX_FEATURES),
        ("features of the ego", len(track.ego_input.gain), 0, MAX_EGO),
        ("values of an embedding", track.embedding.size, 1, MAX_EMBEDDING),
        ("outputs", track.output.size, 1, MAX_OUTPUTS),
    ):
        if not least <= size <= most:
            return f"{size} {what}; it takes {least} to {most}"
    if track.longest_reply > MAX_PAYLOAD:
        return f"the codes of its interfaces: a reply with them has {track.longest_reply} bytes of {MAX_PAYLOAD}"
    return None


def _unfit_numbers(track: PackedTrack) -> str | None:
    for what, tensor in (("embedding", track.embedding), ("head input", track.head_input), ("output", track.output)):
        zero_points = range(-128, 128) if track.bits == 8 else range(1)
        if not (0 < tensor.scale < math.inf and tensor.zero_point in zero_points):
            return f"the {what}'s scale {tensor.scale} and zero point {tensor.zero_point}"
    for what, affine in (("peers", track.peer_input), ("ego", track.ego_input)):
        if not (np.isfinite(affine.gain) & np.isfinite(affine.offset)).all():
            return f"a gain or an offset of the {what} that is not finite"
        if affine.residual not in _RESIDUALS or (affine.residual and track.bits != 8):
            return f"residuals of the {what} with a factor of {affine.residual} and codes of {track.bits} bits"
    if not (track.low <= track.high).all():
        return f"action bounds {track.low} to {track.high}"
    return None


def _unfit_multipliers(track: PackedTrack) -> str | None:
    zero_point = track.embedding.zero_point
    low, high = code_limits(track.bits)
    largest = (high - low) * track.max_peers
    if track.pooling is PoolingCode.MAX:
        largest = max(high - zero_point, zero_point - low)
    for item in track.multipliers:
        in_range = item.shift in _SHIFTS and (item.mantissa == 0 or _SMALLEST_MANTISSA <= item.mantissa <= INT32_MAX)
        if not in_range or largest << max(item.shift, 0) > INT32_MAX:
            return f"a pooling multiplier {item.mantissa} * 2^({item.shift} - 31), which is out of int32's range"
    return None


def read_pack(data: bytes) -> Pack:
    """Reads a pack as the firmware does; what follows it is not looked at. The models themselves are not read.

    Raises:
        InputError: the firmware would refuse it; the words are those of its status.
    """
    if not data or data[:4] in {b"\0" * 4, b"\xff" * 4}:
        raise _refused(PackStatus.EMPTY)
    if len(data) >= len(PACK_MAGIC) and data[:4] != PACK_MAGIC:
        raise _refused(PackStatus.BAD_MAGIC)
    if len(data) < PACK_HEADER_SIZE:
        raise _refused(PackStatus.BAD_LENGTH)
    _, version, slots, total, reserved, digest, padding = _HEADER.unpack_from(data)
    if (version, reserved, padding) != (PACK_VERSION, 0, bytes(16)):
        raise _refused(PackStatus.BAD_VERSION)
    if total > len(data) or total < PACK_HEADER_SIZE + slots * PACK_SLOT_SIZE:
        raise _refused(PackStatus.BAD_LENGTH)
    pack = data[:total]
    if hashlib.sha256(pack[PACK_HEADER_SIZE:]).digest() != digest:
        raise _refused(PackStatus.BAD_HASH)
    if not 1 <= slots <= MAX_SLOTS:
        raise _refused(PackStatus.BAD_SLOT)
    first = PACK_HEADER_SIZE + slots * PACK_SLOT_SIZE
    records = [pack[at : at + PACK_SLOT_SIZE] for at in range(PACK_HEADER_SIZE, first, PACK_SLOT_SIZE)]
    # The hash does not cover the header: what the records point to begins where they end, or a track is missing.
    if min(min(_SLOT.unpack(record)[at] for at in _OFFSETS) for record in records) != first:
        raise _refused(PackStatus.BAD_SLOT)
    tracks = [_read_slot(record, _Body(pack, first)) for record in records]
    for track, record in zip(tracks, records, strict=True):
        if b"".join(bytes.fromhex(found) for found in track.hashes.values()) != record[32:96]:
            raise _refused(PackStatus.BAD_HASH)
    return Pack(digest.hex(), total, tuple(tracks))


def _refused(status: PackStatus) -> InputError:
    return InputError(PACK_WORDS[status], where="model pack", hint="make it again: quant pack RUN -o models.bin")


@dataclass(frozen=True)
class _Body:
    """What a record may point to: what follows the records."""

    pack: bytes
    first: int

    def at(self, offset: int, size: int, alignment: int) -> bytes:
        if offset < self.first or offset + size > len(self.pack) or offset % alignment:
            raise _refused(PackStatus.BAD_SLOT)
        return self.pack[offset : offset + size]


def _read_slot(record: bytes, body: _Body) -> PackedTrack:
    fields = _SLOT.unpack(record)
    name, places, kinds, sizes = fields[0], fields[1:5], fields[7:11], fields[11:15]
    scale_e, zero_e, scale_h, zero_h, scale_o, zero_o = fields[15:21]
    affine_at, multipliers_at, count, peer_bits, ego_bits, policy = fields[21:]
    pooling, action, peers, bits = kinds
    features, ego, embedding, outputs = sizes
    in_range = pooling <= PoolingCode.MEAN and action <= ActionCode.BOX and bits in {8, 16}
    if not in_range or max(peer_bits, ego_bits) > MAX_RESIDUAL_BITS:
        raise _refused(PackStatus.BAD_SLOT)
    bounds = outputs if action == ActionCode.BOX else 0
    widths = (features, features, ego, ego, bounds, bounds)
    encoder, head = (body.at(at, size, PACK_ALIGNMENT) for at, size in (places[:2], places[2:]))
    floats = np.frombuffer(body.at(affine_at, _FLOAT * sum(widths), _FLOAT), "<f4").astype(np.float32, copy=False)
    rows = np.split(floats, np.cumsum(widths)[:-1])
    expected = peers if pooling == PoolingCode.MEAN else 1
    multipliers = body.at(multipliers_at, _MULTIPLIER.size * expected, _FLOAT)
    peer_input = Affine(rows[0], rows[1], bits, residual_factor(peer_bits))
    ego_input = Affine(rows[2], rows[3], bits, residual_factor(ego_bits))
    track = PackedTrack(
        track=name.rstrip(b"\0").decode("latin-1"),
        pooling=PoolingCode(pooling),
        action=ActionCode(action),
        max_peers=peers,
        embedding=Quantized((1, embedding), np.float32(scale_e), zero_e, bits),
        head_input=Quantized((1, embedding + ego_input.size), np.float32(scale_h), zero_h, bits),
        output=Quantized((1, outputs), np.float32(scale_o), zero_o, bits),
        peer_input=peer_input,
        ego_input=ego_input,
        low=rows[4],
        high=rows[5],
        multipliers=tuple(Multiplier(*pair) for pair in _MULTIPLIER.iter_unpack(multipliers)),
        peer_encoder=encoder,
        policy_head=head,
        policy_sha256=policy.hex(),
    )
    if count != expected or not encoder or not head or _unfit(track) is not None:
        raise _refused(PackStatus.BAD_SLOT)
    return track
