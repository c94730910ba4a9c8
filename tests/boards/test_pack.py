"""A pack holds what a board needs, and nothing a board would refuse gets into one."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.boards.pack import FIRMWARE_OPERATORS, build_pack, read_pack
from quant.errors import InputError
from quant.files import sha256
from quant.policy.policy import Box, Discrete, Pooling
from quant.runners import Pool, Quantized, read_model
from quant.runners.flatbuffer import FullyConnected, Layer, Unary, UnaryOperator
from quant.tracks.candidate import Affine, Candidate, Part, SubModel
from quant.wire import protocol
from quant.wire.protocol import PACK_WORDS, ActionCode, PackStatus, PoolingCode
from tests.boards.candidates import wide
from tests.runners.build import tflite
from tests.runners.candidates import box_policy, quantize_policy, random_policy

DISCRETE = quantize_policy(random_policy())
CONTINUOUS = replace(quantize_policy(box_policy()), track="box", policy_sha256="ab" * 32)


def plain(features: int = 2, ego: int = 1, embedding: int = 3, outputs: int = 2, **changes: Any) -> Candidate:
    """A candidate of any sizes; its sub-models do next to nothing."""

    def model(inputs: int, outputs: int, scale: float = 0.5) -> bytes:
        source = Quantized((1, inputs), np.float32(0.5), 0)
        target = Quantized((1, outputs), np.float32(scale), 0)
        weight, bias = np.ones((outputs, inputs), np.int8), np.zeros(outputs, np.int32)
        layers: list[Layer] = [FullyConnected(source, target, weight, np.array([0.1], np.float32), bias, "NONE")]
        return tflite(layers)

    whole = Candidate(
        track="plain",
        peer_encoder=SubModel("peer_encoder", model(features, embedding, changes.pop("embedding_scale", 0.5))),
        policy_head=SubModel("policy_head", model(embedding + ego, outputs)),
        peer_input=Affine(np.ones(features, np.float32), np.zeros(features, np.float32)),
        ego_input=Affine(np.ones(ego, np.float32), np.zeros(ego, np.float32)),
        pooling="max",
        action_space=Discrete(outputs),
        max_peers=8,
        policy_sha256="0" * 64,
        dataset_sha256="0" * 64,
    )
    return replace(whole, **changes)


@pytest.mark.parametrize("pooling", ["max", "sum", "mean"])
@pytest.mark.parametrize("share_scale", [True, False])
def test_what_is_packed_is_read(pooling: Pooling, share_scale: bool) -> None:
    third = replace(quantize_policy(random_policy(pooling=pooling), share_scale=share_scale), track="third")
    candidates = (DISCRETE, CONTINUOUS, third)
    data = build_pack(candidates)
    assert build_pack(candidates) == data
    pack = read_pack(data + b"\xff" * 100)
    assert pack.size == len(data) and pack.sha256 == hashlib.sha256(data[64:]).hexdigest()
    for track, candidate in zip(pack.tracks, candidates, strict=True):
        encoder, head = read_model(candidate.peer_encoder.tflite), read_model(candidate.policy_head.tflite)
        assert (track.track, track.max_peers) == (candidate.track, candidate.max_peers)
        assert track.policy_sha256 == candidate.policy_sha256
        assert (track.peer_encoder, track.policy_head) == (candidate.peer_encoder.tflite, candidate.policy_head.tflite)
        assert track.hashes == candidate.hashes
        assert (track.embedding, track.head_input, track.output) == (encoder.output, head.input, head.output)
        for found, expected in ((track.peer_input, candidate.peer_input), (track.ego_input, candidate.ego_input)):
            np.testing.assert_array_equal(found.gain, expected.gain)
            np.testing.assert_array_equal(found.offset, expected.offset)
        pool = Pool.build(candidate.pooling, encoder.output, head.input, candidate.max_peers)
        assert track.multipliers == pool.multipliers
        assert track.pooling.name.lower() == candidate.pooling
    assert [track.action for track in pack.tracks] == [ActionCode.DISCRETE, ActionCode.BOX, ActionCode.DISCRETE]
    assert [*pack.tracks[1].low, *pack.tracks[1].high] == [0.0, 1.0] and not len(pack.tracks[0].low)
    assert len(pack.tracks[2].multipliers) == (8 if pooling == "mean" else 1)


def test_layout_by_hand() -> None:
    candidate = plain(action_space=Box((-1.0, 0.0), (1.0, 2.0)), pooling="mean", max_peers=2, policy_sha256="cd" * 32)
    data = build_pack([candidate])
    assert data[:16] == b"QPAK" + struct.pack("<HHII", 2, 1, len(data), 0)
    assert data[16:48] == hashlib.sha256(data[64:]).digest() and data[48:64] == bytes(16)
    record = data[64:240]
    assert record[:16] == b"plain" + bytes(11)
    encoder_at, encoder_size, head_at, head_size = struct.unpack_from("<4I", record, 16)
    assert data[encoder_at : encoder_at + encoder_size] == candidate.peer_encoder.tflite and encoder_at % 16 == 0
    assert data[head_at : head_at + head_size] == candidate.policy_head.tflite and head_at % 16 == 0
    assert head_at + head_size == len(data)
    assert record[32:96].hex() == candidate.peer_encoder.sha256 + candidate.policy_head.sha256
    assert record[96:100] == bytes([PoolingCode.MEAN, ActionCode.BOX, 2, 8])
    assert struct.unpack_from("<4H", record, 100) == (2, 1, 3, 2)
    assert struct.unpack_from("<fififi", record, 108) == (0.5, 0, 0.5, 0, 0.5, 0)
    affine_at, multipliers_at, count, *residuals = struct.unpack_from("<IIHBB", record, 132)
    assert struct.unpack_from("<10f", data, affine_at) == (1, 1, 0, 0, 1, 0, -1, 0, 1, 2)
    assert (count, residuals) == (2, [0, 0])
    assert struct.unpack_from("<4i", data, multipliers_at) == (1 << 30, 1, 1 << 30, 0)
    assert record[144:176].hex() == "cd" * 32


def infinite(n: int) -> Affine:
    return Affine(np.full(n, np.inf, np.float32), np.zeros(n, np.float32))


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (plain(track="sixteen-letters-"), "1 to 15 characters"),
        (plain(track="two words"), "without spaces"),
        (plain(track=""), "1 to 15 characters"),
        (plain(track="é"), "ASCII"),
        (plain(policy_sha256="abc"), "64 hexadecimal"),
        (plain(features=protocol.MAX_FEATURES + 1), "17 features of a peer; it takes 1 to 16"),
        (plain(ego=protocol.MAX_EGO + 1), "65 features of the ego; it takes 0 to 64"),
        (plain(embedding=protocol.MAX_EMBEDDING + 1), "129 values of an embedding"),
        (plain(outputs=protocol.MAX_OUTPUTS + 1), "33 outputs"),
        (plain(max_peers=protocol.MAX_PEERS + 1), "17 peers"),
        (plain(max_peers=0), "0 peers"),
        (plain(peer_input=infinite(2)), "gain or an offset of the peers"),
        (plain(ego_input=infinite(1)), "gain or an offset of the ego"),
        (plain(action_space=Box((0.0, 2.0), (1.0, 1.0))), "action bounds"),
        (plain(action_space=Box((0.0, np.nan), (1.0, 1.0))), "action bounds"),
        (plain(embedding_scale=2.0**26), "int32"),
        (plain(peer_input=Affine(np.ones(3, np.float32), np.ones(3, np.float32))), "peer_encoder's input has 2"),
        (plain(ego_input=Affine(np.ones(3, np.float32), np.ones(3, np.float32))), "policy_head's input has 4"),
        (plain(action_space=Discrete(3)), "policy_head's output has 2"),
        (plain(policy_head=SubModel("policy_head", b"\x1c\0\0\0TFL3" + bytes(40))), "policy_head"),
    ],
)
def test_what_the_firmware_cannot_hold_is_refused(candidate: Candidate, words: str) -> None:
    with pytest.raises(InputError) as caught:
        build_pack([candidate])
    assert words in str(caught.value)


def padded(candidate: Candidate, part: Part, inputs: int) -> Candidate:
    """The candidate with a sub-model of so many inputs; the rest of it as it was."""
    model = read_model(getattr(candidate, part).tflite)
    layer = model.layers[0]
    assert isinstance(layer, FullyConnected)
    source = replace(layer.input, shape=(1, inputs))
    made = tflite([replace(layer, input=source, weight=np.ones((layer.output.size, inputs), np.int8))])
    if part == "peer_encoder":
        return replace(candidate, peer_encoder=SubModel(part, made))
    return replace(candidate, policy_head=SubModel(part, made))


def with_residuals(candidate: Candidate, peer: int, ego: int) -> Candidate:
    peers, own = replace(candidate.peer_input, residual=peer), replace(candidate.ego_input, residual=ego)
    embedding = read_model(candidate.peer_encoder.tflite).output.size
    grown = padded(padded(candidate, "peer_encoder", peers.size), "policy_head", embedding + own.size)
    return replace(grown, peer_input=peers, ego_input=own)


WIDE = wide(random_policy())


def per_channel(candidate: Candidate) -> Candidate:
    """A scale for each output of the encoder's first layer."""
    first, *rest = read_model(candidate.peer_encoder.tflite).layers
    assert isinstance(first, FullyConnected)
    scales = np.full(len(first.weight), first.weight_scale[0])
    return replace(
        candidate, peer_encoder=SubModel("peer_encoder", tflite([replace(first, weight_scale=scales), *rest]))
    )


def ends_in(operator: UnaryOperator) -> Candidate:
    """The candidate with one operator more at the end of its encoder."""
    made = plain()
    layers = read_model(made.peer_encoder.tflite).layers
    last = Unary(operator, layers[-1].output, layers[-1].output)
    return replace(made, peer_encoder=SubModel("peer_encoder", tflite([*layers, last])))


def test_the_operators_are_the_firmwares() -> None:
    source = Path(__file__).parents[2] / "esp_idf_app" / "components" / "tflm_engine" / "src" / "model_check.cpp"
    named = re.findall(r'\{tflite::BuiltinOperator_(\w+), "(\w+)"\}', source.read_text())
    assert named == [(name, name) for name in FIRMWARE_OPERATORS]


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (ends_in("RELU"), "the operator RELU; the firmware has FULLY_CONNECTED"),
        (replace(WIDE, bits=8), "16 bits in the peer_encoder"),
        (replace(WIDE, peer_input=replace(WIDE.peer_input, bits=8)), "8 bits in the peers' features"),
        (replace(WIDE, ego_input=replace(WIDE.ego_input, bits=8)), "8 bits in the ego's features"),
        (per_channel(WIDE), "the chips' kernel takes one"),
        (with_residuals(plain(), 1, 0), "residuals of the peers with a factor of 1"),
        (with_residuals(plain(), 0, 512), "residuals of the ego with a factor of 512"),
        (with_residuals(plain(), 24, 0), "residuals of the peers with a factor of 24"),
        (with_residuals(plain(features=16, ego=64, embedding=128, outputs=32, max_peers=16), 2, 2), "3132 bytes of"),
    ],
)
def test_codes_the_firmware_cannot_hold_are_refused(candidate: Candidate, words: str) -> None:
    with pytest.raises(InputError) as caught:
        build_pack([candidate])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("at", "value"), [(99, 0), (99, 12), (99, 24), (142, 1), (143, 4), (112, 1), (120, 1), (128, 1)]
)
def test_16_bits_out_of_range_are_refused(at: int, value: int) -> None:
    harmed = bytearray(build_pack([WIDE]))
    read_pack(bytes(harmed))
    harmed[64 + at] = value
    with pytest.raises(InputError, match="slot"):
        read_pack(sealed(bytes(harmed)))


def test_widths_and_residuals_are_packed_and_read() -> None:
    residuals = replace(with_residuals(plain(), 2, 256), track="residuals")
    pack = read_pack(build_pack([replace(WIDE, track="wide"), residuals, plain()]))
    assert [track.bits for track in pack.tracks] == [16, 8, 8]
    assert [(track.peer_input.residual, track.ego_input.residual) for track in pack.tracks] == [
        (0, 0),
        (2, 256),
        (0, 0),
    ]
    assert [track.peer_input.bits for track in pack.tracks] == [track.ego_input.bits for track in pack.tracks]
    assert (pack.tracks[0].embedding, pack.tracks[0].head_input) == (
        read_model(WIDE.peer_encoder.tflite).output,
        read_model(WIDE.policy_head.tflite).input,
    )


def test_the_largest_of_everything_is_packed() -> None:
    largest = plain(
        features=protocol.MAX_FEATURES,
        ego=protocol.MAX_EGO,
        embedding=protocol.MAX_EMBEDDING,
        outputs=protocol.MAX_OUTPUTS,
        max_peers=protocol.MAX_PEERS,
        pooling="mean",
    )
    data = build_pack([replace(largest, track=f"fifteen-letter{i}") for i in range(protocol.MAX_SLOTS)])
    assert len(read_pack(data).tracks) == protocol.MAX_SLOTS
    assert read_pack(build_pack([plain(ego=0)])).tracks[0].ego_input.gain.shape == (0,)


@pytest.mark.parametrize(
    "candidates", [[], [DISCRETE, DISCRETE], [replace(DISCRETE, track=str(i)) for i in range(protocol.MAX_SLOTS + 1)]]
)
def test_how_many_tracks_fit(candidates: Sequence[Candidate]) -> None:
    with pytest.raises(InputError, match="1 to 4 tracks of different names"):
        build_pack(candidates)


GOOD = build_pack([DISCRETE, CONTINUOUS])


def sealed(data: bytes) -> bytes:
    """The pack with a hash that fits whatever was changed."""
    return data[:16] + hashlib.sha256(data[64:]).digest() + data[48:]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(place: int, bits: int) -> None:
    harmed = bytearray(GOOD)
    harmed[place] ^= bits
    with pytest.raises(InputError):
        read_pack(bytes(harmed))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2 * 176 - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_hostile_records_are_read_or_refused(changes: list[tuple[int, int]]) -> None:
    harmed = bytearray(GOOD)
    for place, value in changes:
        harmed[64 + place] = value
    try:
        pack = read_pack(sealed(bytes(harmed)))
    except InputError:
        return
    for track in pack.tracks:
        assert sha256(track.peer_encoder) == track.hashes["peer_encoder"]


@pytest.mark.parametrize(
    ("at", "layout", "value"),
    [
        (16, "I", len(GOOD)),
        (16, "I", 64 + 16),  # inside the records
        (16, "I", struct.unpack_from("<I", GOOD, 64 + 16)[0] + 4),  # not aligned
        (20, "I", 0),
        (20, "I", 0xFFFFFFFF),
        (96, "B", 3),
        (97, "B", 2),
        (98, "B", 0),
        (100, "H", 0),
        (108, "f", 0.0),
        (108, "f", float("nan")),
        (116, "f", float("inf")),
        (112, "i", 128),
        (132, "I", len(GOOD) - 4),
        (136, "I", 2),
        (140, "H", 2),
        (99, "B", 0),
        (99, "B", 12),
        (99, "B", 16),  # with zero points
        (142, "B", 9),
        (143, "B", 9),
    ],
)
def test_a_record_out_of_range_is_refused(at: int, layout: str, value: float) -> None:
    harmed = bytearray(GOOD)
    struct.pack_into(f"<{layout}", harmed, 64 + at, value)
    with pytest.raises(InputError, match="slot"):
        read_pack(sealed(bytes(harmed)))


@pytest.mark.parametrize(("mantissa", "shift"), [(1, 0), (-(1 << 30), 0), (1 << 30, 31), (1 << 30, -32), (1 << 30, 24)])
def test_a_multiplier_out_of_range_is_refused(mantissa: int, shift: int) -> None:
    harmed = bytearray(GOOD)
    struct.pack_into("<ii", harmed, struct.unpack_from("<I", GOOD, 64 + 136)[0], mantissa, shift)
    with pytest.raises(InputError, match="slot"):
        read_pack(sealed(bytes(harmed)))


def test_a_track_missing_from_the_header_is_noticed() -> None:
    data = bytearray(GOOD)
    struct.pack_into("<H", data, 6, 1)
    with pytest.raises(InputError, match=PACK_WORDS[PackStatus.BAD_SLOT]):
        read_pack(bytes(data))
