"""A board in a few lines of Python, for tests of the host's side alone: the line is a pair of buffers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from quant.files import sha256
from quant.observation.observations import Observations
from quant.policy.policy import Discrete
from quant.runners import Int8Runner, Model, Quantized
from quant.tracks.candidate import Candidate, Part
from quant.wire import messages as m
from quant.wire.codec import Damage, Decoder, Event, Frame, encode_frame
from quant.wire.protocol import (
    ERROR,
    MAX_PAYLOAD,
    MAX_REPEATS,
    NO_ACTION,
    REPLY,
    VERSION,
    ActionCode,
    Capability,
    ErrorCode,
    EvidenceCode,
    Message,
    PackStatus,
    PartCode,
    PoolingCode,
)

Mangle = Callable[[bytes], bytes]
TICKS_PER_SECOND = 2_000_000
PART_NAMES: tuple[Part, Part] = ("peer_encoder", "policy_head")
POOLINGS = {"max": PoolingCode.MAX, "sum": PoolingCode.SUM, "mean": PoolingCode.MEAN}


def unchanged(data: bytes) -> bytes:
    return data


@dataclass
class StubBoard:
    """A :class:`quant.wire.link.Stream` with a board at its other end, which answers what it is asked at once.

    ``to_board`` and ``to_host`` see every write and may damage it; ``silent`` swallows so many requests; ``refuse``
    answers a request with an error; ``version`` is what its frames claim.
    """

    candidates: tuple[Candidate, ...] = ()
    to_board: Mangle = unchanged
    to_host: Mangle = unchanged
    silent: int = 0
    refuse: Callable[[Frame], ErrorCode | None] = lambda frame: None
    version: int = VERSION
    rx_buffer: int = 8192
    name: str = "stub"
    requests: list[Frame] = field(default_factory=list)
    most_waiting: int = 0
    writes: int = 0
    closed: bool = False
    reopened: int = 0

    def __post_init__(self) -> None:
        self._decoder = Decoder()
        self._out = bytearray()
        self._last: int | None = None
        self._booted = time.monotonic()
        self._runners = [Int8Runner(candidate) for candidate in self.candidates]

    def read(self, timeout: float) -> bytes:
        if not self._out:
            time.sleep(max(min(timeout, 0.05), 0))
        data = bytes(self._out)
        self._out.clear()
        return data

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.most_waiting = max(self.most_waiting, len(data))
        for event in self._decoder.feed(self.to_board(data)):
            self._out += self.to_host(b"".join(self._answer(event)))

    def reopen(self) -> None:
        self.reopened += 1

    def close(self) -> None:
        self.closed = True

    def say(self, text: bytes) -> None:
        """Puts bytes on the line to the host."""
        self._out += text

    def run_for(self, seconds: float) -> None:
        """It has been up for so much longer."""
        self._booted -= seconds

    def restart(self) -> None:
        self._booted = time.monotonic()
        self._last = None

    def _answer(self, event: Event) -> list[bytes]:
        if isinstance(event, Damage):
            return [self._error(event.code, 0, 0)]
        if isinstance(event, Frame) and not self.silent:
            return self._answer_frame(event)
        self.silent -= isinstance(event, Frame)
        return []

    def _answer_frame(self, frame: Frame) -> list[bytes]:
        if frame.type != Message.HELLO and frame.sequence == self._last:
            return [self._error(ErrorCode.DUPLICATE_SEQUENCE, frame.type, frame.sequence)]
        self._last = frame.sequence
        self.requests.append(frame)
        if (code := self.refuse(frame)) is not None:
            return [self._error(code, frame.type, frame.sequence)]
        answer = encode_frame(frame.type | REPLY, frame.sequence, self._reply(frame), self.version)
        if frame.type == Message.RESET:
            self.restart()
            return [answer, b"I (5) boot: restarted\n"]
        return [answer]

    def _error(self, code: ErrorCode, kind: int, sequence: int) -> bytes:
        return encode_frame(ERROR, sequence, m.ErrorReply(code, kind, f"stub: {code.name}").encode(), self.version)

    def _reply(self, frame: Frame) -> bytes:
        replies: dict[int, Callable[[bytes], bytes]] = {
            Message.HELLO: lambda payload: hello(self.rx_buffer).encode(),
            Message.MODELS: self._models,
            Message.STATS: self._stats,
            Message.DECIDE: self._decide,
            Message.INVOKE: self._invoke,
            Message.BENCH: self._bench,
        }
        answer = replies.get(frame.type)
        return b"" if answer is None else answer(frame.payload)

    def _models(self, payload: bytes) -> bytes:
        slots = tuple(slot_info(runner) for runner in self._runners)
        status = PackStatus.OK if slots else PackStatus.EMPTY
        return m.ModelsReply(status, "stub", "5a" * 32, 1, slots).encode()

    def _stats(self, payload: bytes) -> bytes:
        uptime = int((time.monotonic() - self._booted) * 1000)
        return m.StatsReply(uptime, *(None,) * 7, None, 0, 0, 0, 0, 0, 0).encode()

    def _invoke(self, payload: bytes) -> bytes:
        request = m.InvokeRequest.decode(payload)
        runner = self._runners[request.slot]
        row = np.frombuffer(request.input, f"i{runner.candidate.bits // 8}")[None]
        output = runner.engine.invoke(PART_NAMES[request.part], row)
        return m.InvokeReply(request.slot, request.part, 7, output.tobytes()).encode()

    def _bench(self, payload: bytes) -> bytes:
        bench = m.BenchRequest.decode(payload, *self._sizes(payload[0]))
        stages = tuple(m.TickQuantiles(10 * s, 20 * s, 30 * s, 40 * s) for s in range(1, 7))
        return m.BenchReply(bench.slot, bench.repeats, stages).encode()

    def _sizes(self, slot: int) -> tuple[int, int]:
        candidate = self.candidates[slot]
        return len(candidate.ego_input.gain), len(candidate.peer_input.gain)

    def _decide(self, payload: bytes) -> bytes:
        request = m.DecideRequest.decode(payload, *self._sizes(payload[0]))
        runner = self._runners[request.slot]
        observation = Observations(request.ego[None], request.peers[None], request.mask[None])
        values, decision = runner.values(observation)[0], runner.decide(observation)
        parts = (
            decision.peer_inputs,
            decision.embeddings,
            decision.pooled,
            decision.head_inputs,
            decision.outputs,
        )
        interfaces = b"".join(part.tobytes() for part in parts) if request.interfaces else b""
        discrete = isinstance(runner.action_space, Discrete)
        action = int(np.argmax(values)) if discrete else NO_ACTION
        return m.DecideReply(
            request.slot, int(request.mask.sum()), action, values, (1, 2, 3, 4, 5, 15), interfaces
        ).encode()


def hello(rx_buffer: int = 8192, protocol: int = VERSION) -> m.HelloReply:
    return m.HelloReply(
        protocol=protocol,
        evidence=EvidenceCode.COMPUTED,
        max_payload=MAX_PAYLOAD,
        rx_buffer=rx_buffer,
        max_repeats=MAX_REPEATS,
        max_slots=4,
        capabilities=Capability(0),
        ticks_per_second=TICKS_PER_SECOND,
        cpu_mhz=240,
        cores=2,
        mac="02:00:00:00:00:01",
        chip_revision=0,
        elf_sha256="ab" * 32,
        firmware="0",
        chip="stub",
        target="stub",
        idf="",
        engine="stub",
        kernels="",
        reset_reason="power-on",
    )


def slot_info(runner: Int8Runner) -> m.SlotInfo:
    candidate = runner.candidate
    encoder, head = runner.engine.model("peer_encoder"), runner.engine.model("policy_head")
    return m.SlotInfo(
        candidate.track,
        POOLINGS[candidate.pooling],
        ActionCode.DISCRETE if isinstance(candidate.action_space, Discrete) else ActionCode.BOX,
        candidate.max_peers,
        candidate.bits,
        candidate.peer_input.residual,
        candidate.ego_input.residual,
        len(candidate.peer_input.gain),
        len(candidate.ego_input.gain),
        encoder.output.size,
        head.output.size,
        _part(encoder, candidate.peer_encoder.tflite),
        _part(head, candidate.policy_head.tflite),
    )


def _part(model: Model, tflite: bytes) -> m.PartInfo:
    def tensor(quantized: Quantized) -> m.TensorInfo:
        return m.TensorInfo(float(quantized.scale), quantized.zero_point, quantized.size)

    return m.PartInfo(
        len(tflite), sha256(tflite), 500, 8192, tensor(model.input), tensor(model.output), model.operators
    )


def invoke_request(number: int = 0) -> m.InvokeRequest:
    """A request that is told from others by its input."""
    return m.InvokeRequest(0, PartCode.PEER_ENCODER, np.array([number, 1, 2, 3, 4, 5], np.int8).tobytes())
