"""The vectors that the firmware's core is tested with, run by the host's side.

What a vector says a board answers is taken apart and put together again here: the bytes are the same only if both sides
mean the same by them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from quant.boards.pack import read_pack
from quant.errors import InputError, ProtocolError
from quant.wire import messages as m
from quant.wire.codec import Damage, Decoder, Event, Frame, Text, encode_frame
from quant.wire.protocol import (
    ERROR,
    ERROR_WORDS,
    MESSAGES,
    PACK_WORDS,
    REPLY,
    VERSION,
    ErrorCode,
    Message,
    PackStatus,
    Stage,
)
from tests.boards.strategies import merged

FILE = Path(__file__).parents[2] / "esp_idf_app" / "components" / "policy_core" / "test" / "vectors.txt"


@dataclass
class Block:
    """A heading of the file, and the lines below it."""

    kind: str
    name: str
    arguments: list[str]
    lines: list[tuple[str, list[str]]] = field(default_factory=list)

    def bytes(self, keyword: str) -> list[bytes]:
        return [unhex(arguments[0]) for word, arguments in self.lines if word == keyword]


def unhex(word: str) -> bytes:
    return b"" if word == "-" else bytes.fromhex(word)


def blocks() -> Iterator[Block]:
    block: Block | None = None
    for line in FILE.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        keyword, *arguments = line.split(" ")
        if keyword in {"decoder", "pack", "server", "exchange"}:
            if block is not None:
                yield block
            block = Block(keyword, arguments[0], arguments[1:])
        else:
            assert block is not None
            block.lines.append((keyword, arguments))
    assert block is not None
    yield block


BLOCKS = list(blocks())
DECODERS = [block for block in BLOCKS if block.kind == "decoder"]
PACKS = {block.name: b"".join(block.bytes("hex")) for block in BLOCKS if block.kind == "pack"}


def event_of(keyword: str, arguments: list[str]) -> Event:
    if keyword == "frame":
        version, kind, sequence = map(int, arguments[:3])
        return Frame(kind, sequence, unhex(arguments[3]), version)
    return Text(unhex(arguments[0])) if keyword == "text" else Damage(ErrorCode[arguments[0]], b"")


def without_what_came(events: list[Event]) -> list[Event]:
    """The vectors say why a frame is damaged, not its bytes."""
    return merged(Damage(event.code, b"") if isinstance(event, Damage) else event for event in events)


@pytest.mark.parametrize("portion", [1, 7, 1 << 20])
@pytest.mark.parametrize("block", DECODERS, ids=lambda block: block.name)
def test_decoder(block: Block, portion: int) -> None:
    wire = b"".join(block.bytes("in"))
    expected = [event_of(keyword, arguments) for keyword, arguments in block.lines if keyword != "in"]
    decoder = Decoder()
    events = [event for at in range(0, len(wire), portion) for event in decoder.feed(wire[at : at + portion])]
    assert without_what_came(events) == without_what_came(expected)


@dataclass(frozen=True)
class Exchange:
    """Bytes to a board and from it, and the pack it has."""

    server: str
    pack: str
    name: str
    wire: bytes
    answers: list[bytes]

    @property
    def asked(self) -> list[Frame]:
        return [event for event in Decoder().feed(self.wire) if isinstance(event, Frame)]

    @property
    def answered(self) -> list[Frame]:
        events = [event for answer in self.answers for event in Decoder().feed(answer)]
        return [event for event in events if isinstance(event, Frame)]


def exchanges() -> list[Exchange]:
    found = []
    server = Block("server", "", ["none"])
    for block in BLOCKS:
        if block.kind == "server":
            server = block
        if block.kind == "exchange":
            wire, answers = b"".join(block.bytes("in")), block.bytes("out")
            found.append(Exchange(server.name, server.arguments[0], block.name, wire, answers))
    return found


EXCHANGES = exchanges()
MODELS = {
    exchange.pack: m.ModelsReply.decode(frame.payload)
    for exchange in EXCHANGES
    for frame in exchange.answered
    if frame.type == Message.MODELS | REPLY
}
"""What boards say of each pack."""


REQUESTS: dict[Message, Any] = {
    kind: one
    for one in vars(m).values()
    if isinstance(one, type) and isinstance(kind := vars(one).get("kind"), Message)
}


def read_request(frame: Frame, pack: str) -> Any:
    """The request of a frame that a board answers."""
    slots = MODELS[pack].slots
    slot = slots[frame.payload[0]] if frame.payload and frame.payload[0] < len(slots) else None
    sizes = (0, 0) if slot is None else (slot.ego, slot.features)
    kind = Message(frame.type)
    return REQUESTS[kind].decode(frame.payload, *(sizes if kind in {Message.DECIDE, Message.BENCH} else ()))


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: f"{exchange.server}-{exchange.name}")
def test_exchange(exchange: Exchange) -> None:
    requests = {(frame.type, frame.sequence): frame for frame in exchange.asked}
    for answer in exchange.answers:
        (event,) = Decoder().feed(answer)
        if isinstance(event, Damage):
            assert (event.code, exchange.name) == (ErrorCode.BAD_CRC, "corrupted-reply")
            continue
        assert isinstance(event, Frame) and event.version == VERSION
        assert encode_frame(event.type, event.sequence, event.payload) == answer
        if event.type == ERROR:
            error = m.ErrorReply.decode(event.payload)
            assert error.encode() == event.payload and error.words.startswith(ERROR_WORDS[ErrorCode(error.code)])
            continue
        frame = requests[event.type & ~REPLY, event.sequence]
        request = read_request(frame, exchange.pack)
        assert request.encode() == frame.payload
        assert encode_frame(frame.type, frame.sequence, request.encode()) in exchange.wire
        reply = request.reply(event.payload)
        assert (b"" if reply is None else reply.encode()) == event.payload


def test_every_message_has_its_request_and_the_next_type() -> None:
    assert set(REQUESTS) == set(Message)
    assert list(Message) == list(range(1, MESSAGES + 1))


def test_every_message_and_every_error_is_among_the_vectors() -> None:
    asked = {frame.type for exchange in EXCHANGES for frame in exchange.asked}
    frames = [frame for exchange in EXCHANGES for frame in exchange.answered]
    assert asked >= set(Message) and {frame.type for frame in frames} >= {kind | REPLY for kind in Message} | {ERROR}
    assert {m.ErrorReply.decode(frame.payload).code for frame in frames if frame.type == ERROR} == set(ErrorCode)


def test_malformed_requests_are_malformed_here_too() -> None:
    # How long an INVOKE has to be is for the model to say.
    names = {exchange.name for exchange in EXCHANGES if exchange.name.startswith("bad-length-")}
    refused = [exchange for exchange in EXCHANGES if exchange.name in names and "invoke-" not in exchange.name]
    asked = [(frame, exchange.pack) for exchange in refused for frame in exchange.asked]
    assert len(asked) >= 8
    for frame, pack in asked:
        with pytest.raises(ProtocolError):
            read_request(frame, pack)


@pytest.mark.parametrize("name", PACKS)
def test_pack(name: str) -> None:
    status = MODELS[name].status
    # Whether the engine takes the models is for the engine to say.
    if status in {PackStatus.OK, PackStatus.BAD_MODEL}:
        read_pack(PACKS[name])
        return
    with pytest.raises(InputError) as caught:
        read_pack(PACKS[name])
    assert caught.value.what == PACK_WORDS[status]


def test_the_good_pack_says_what_its_board_says() -> None:
    pack = read_pack(PACKS["good"])
    models = MODELS["good"]
    assert (pack.sha256, pack.size) == (models.sha256, models.size)
    for track, slot in zip(pack.tracks, models.slots, strict=True):
        assert (track.track, track.pooling, track.action, track.max_peers) == (
            slot.track,
            slot.pooling,
            slot.action,
            slot.max_peers,
        )
        assert list(track.hashes.values()) == [slot.peer_encoder.sha256, slot.policy_head.sha256]
        assert (float(track.embedding.scale), track.embedding.zero_point, track.embedding.size) == (
            slot.peer_encoder.output.scale,
            slot.peer_encoder.output.zero_point,
            slot.embedding,
        )
        assert (track.head_input.size, track.output.size) == (slot.policy_head.input.size, slot.outputs)
    assert len(Stage) == m.STAGES
