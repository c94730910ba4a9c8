"""What the virtual board does behind its line: the firmware's core, its boots and its ends, without any I/O."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from quant import __version__
from quant.boards.virtual import time_model
from quant.boards.virtual.faults import NO_FAULTS, Faults
from quant.errors import InputError
from quant.runners.engines import micro_interpreter
from quant.runners.flatbuffer import Model, Quantized, read_model
from quant.tracks.candidate import code_type
from quant.wire.codec import Decoder, Frame, encode_frame
from quant.wire.messages import ModelsReply
from quant.wire.protocol import PACK_WORDS, REPLY, Capability, Message, PackStatus, PartCode

RX_BUFFER = 8192
PARTITION_BYTES = 512 * 1024
"""Of the models partition, as in the firmware's partition table."""

_ROM = b"\r\nrst: virtual chip\r\n"
_BACKTRACE = b"Backtrace: 0x40000000:0x3ffb0000\r\n\r\nRebooting...\r\n"
_PANIC = (
    b"\r\nGuru Meditation Error: Core  0 panic'ed (StoreProhibited). Exception was unhandled.\r\n"
    b"a deliberate panic, asked for by FAULT\r\n" + _BACKTRACE
)
_WATCHDOG = (
    b"\r\nE (0) task_wdt: Task watchdog got triggered. "
    b"The following tasks/users did not reset the watchdog in time:\r\n"
    b"E (0) task_wdt:  - main (CPU 0)\r\nE (0) task_wdt: Aborting.\r\n" + _BACKTRACE
)


@dataclass(frozen=True)
class VirtualOptions:
    """How a virtual board behaves.

    Attributes:
        baud: pace of the line in both directions, in bits per second with 10 bits a byte; None: as fast as it goes.
        faults: what it does wrong.
        boot_seconds: how long after a reset it hears nothing.
        watchdog_seconds: how long it hangs before its watchdog restarts it.
        number: tells boards apart: the last two bytes of its MAC.
    """

    baud: int | None = None
    faults: Faults = NO_FAULTS
    boot_seconds: float = 0.05
    watchdog_seconds: float = 5.0
    number: int = 1

    def __post_init__(self) -> None:
        if self.baud is not None and self.baud <= 0:
            raise InputError(f"a baud rate of {self.baud}", expected="a positive number, or none for no pacing")
        if not 0 <= self.number <= 0xFFFF:
            raise InputError(f"a virtual board of number {self.number}", expected="0 to 65535")


@dataclass(frozen=True)
class Identity:
    """What HELLO says of the board; see ``policy_core::Identity``."""

    capabilities: int
    rx_buffer: int
    cpu_mhz: int
    mac: bytes
    elf_sha256: bytes
    firmware_version: str
    chip: str
    target: str
    reset_reason: str


@dataclass(frozen=True)
class LoadedTensor:
    """See ``policy_core::TensorInfo``."""

    size: int
    bits: int
    scale: float
    zero_point: int

    @staticmethod
    def of(tensor: Quantized) -> LoadedTensor:
        """As the file says."""
        return LoadedTensor(tensor.size, tensor.bits, float(tensor.scale), tensor.zero_point)


@dataclass(frozen=True)
class LoadedModel:
    """What the engine tells the core of a sub-model; see ``policy_core::ModelInfo``."""

    operators: str
    input: LoadedTensor
    output: LoadedTensor
    instructions: int


class EnginePort:
    """Runs the sub-models in the ``tflite_micro`` wheel, one interpreter each.

    Args:
        another_model: the slots answer for one another, where one takes and gives what another does.
    """

    def __init__(self, *, another_model: bool = False) -> None:
        import tflite_micro

        self.version = f"tflite_micro {tflite_micro.__version__}"
        self._another_model = another_model
        self._made: dict[bytes, tuple[Model, Any]] = {}
        self._slots: dict[tuple[int, int], tuple[Model, Any]] = {}

    def unload(self) -> None:
        """Empties all slots, as a restart does."""
        self._slots.clear()

    def load(self, slot: int, part: int, tflite: bytes) -> LoadedModel | str:
        """Makes a sub-model ready, or says why it can't."""
        where = f"slot {slot} {PartCode(part).name.lower()}"
        try:
            made = self._made.get(tflite) or (read_model(tflite, where), micro_interpreter(tflite, where))
        except InputError as error:
            return error.what
        self._made[tflite] = self._slots[slot, part] = made
        model = made[0]
        return LoadedModel(
            ",".join(model.operators),
            LoadedTensor.of(model.input),
            LoadedTensor.of(model.output),
            time_model.invoke_instructions(model),
        )

    def invoke(self, slot: int, part: int, data: bytes) -> bytes:
        """Codes in, codes out, as bytes."""
        if self._another_model:
            slot = self._stand_in(slot, part)
        model, interpreter = self._slots[slot, part]
        interpreter.set_input(np.frombuffer(data, code_type(model.input.bits)).reshape(model.input.shape), 0)
        interpreter.invoke()
        out: bytes = interpreter.get_output(0).tobytes()
        return out

    def _stand_in(self, slot: int, part: int) -> int:
        """The next slot with a sub-model of the same sizes and width; the slot itself where there is none."""
        count, own = 1 + max(loaded for loaded, _ in self._slots), self._slots[slot, part][0]
        others = ((slot + step) % count for step in range(1, count))
        return next((other for other in others if _alike(self._slots[other, part][0], own)), slot)


class Firmware:
    """The board without its line: bytes in, bytes out, and what time brings.

    Args:
        pack: content of the models partition; empty for a board nothing was flashed to.
        options: how it behaves.

    Raises:
        InputError: the pack does not fit the partition, or the models that are to answer for one another do not exist.
    """

    def __init__(self, pack: bytes, options: VirtualOptions) -> None:
        from quant.boards.virtual import _virtual_board  # compiled; whoever never starts a virtual board does without

        self._pack = _fitting(pack)
        self._options = options
        self._make = _virtual_board.Core
        self._engine = EnginePort(another_model=options.faults.another_model)
        self._identity = _identity(Path(_virtual_board.__file__), options)
        faults = options.faults
        accidents = ((faults.reboot_after, self._brown_out), (faults.hang_after, self._hang))
        self._accidents = sorted(((at, happen) for at, happen in accidents if at is not None), key=itemgetter(0))
        self._heard = 0
        self._core: _virtual_board.Core | None = None
        self._next: tuple[float, Callable[[float], bytes]] | None = None
        self._boot("power on")
        if options.faults.another_model and self._slots < 2:
            raise InputError("no other model to answer from", expected="a pack with two slots")

    @property
    def due(self) -> float:
        """When :meth:`wake` has something to do; infinite if never."""
        return math.inf if self._next is None else self._next[0]

    @property
    def _slots(self) -> int:
        return 0 if self._core is None else self._core.slots

    def greeting(self) -> bytes:
        """What it prints when it has started; nothing while it is down."""
        if self._core is None:
            return b""
        status = PackStatus(self._core.pack_status)
        elf = self._identity.elf_sha256.hex()[:16]
        lines = [f"quant {__version__} elf {elf} target {self._identity.target} slots {self._core.slots}"]
        if status is not PackStatus.OK:
            lines.append(f"models: {PACK_WORDS[status]}")
        return _log(*lines)

    def receive(self, data: bytes, now: float) -> bytes:
        """Bytes from the host -> bytes to the host. A board that boots or hangs hears nothing."""
        out = b""
        while self._accidents and self._heard + len(data) >= self._accidents[0][0]:
            at, happen = self._accidents.pop(0)
            head, data = data[: at - self._heard], data[at - self._heard :]
            out += self._hear(head, now) + happen(now)
        return out + self._hear(data, now)

    def wake(self, now: float) -> bytes:
        """What it does by itself when :attr:`due` has come; gives what it prints."""
        if self._next is None or now < self._next[0]:
            return b""
        _, step = self._next
        self._next = None
        return step(now)

    def flash(self, pack: bytes) -> None:
        """Writes the models partition, which is read at the next start.

        Raises:
            InputError: the pack does not fit.
        """
        self._pack = _fitting(pack)

    def power_cycle(self, now: float) -> bytes:
        """Starts anew; gives what it prints."""
        return self._restart("power on", now)

    def _hear(self, data: bytes, now: float) -> bytes:
        self._heard += len(data)
        if self._core is None or not data:
            return b""
        out = self._core.feed(data)
        if self._options.faults.false_model_hash:
            out = _with_false_hash(out)
        return out + self._ends(self._core.event, now)

    def _ends(self, event: str, now: float) -> bytes:
        if event == "restart":
            return self._restart("software", now)
        if event == "panic":
            return _PANIC + self._restart("panic", now)
        if event == "hang":
            return self._hang(now)
        return b""

    def _hang(self, now: float) -> bytes:
        self._core = None
        self._next = (now + self._options.watchdog_seconds, self._bite)
        return b""

    def _bite(self, now: float) -> bytes:
        return _WATCHDOG + self._restart("task watchdog", now)

    def _brown_out(self, now: float) -> bytes:
        return self._restart("brownout", now)

    def _restart(self, reason: str, now: float) -> bytes:
        self._core = None
        self._next = (now + self._options.boot_seconds, lambda _: self._boot(reason))
        return _ROM

    def _boot(self, reason: str) -> bytes:
        self._engine.unload()
        self._core = self._make(
            self._pack,
            PARTITION_BYTES,
            self._engine,
            replace(self._identity, reset_reason=reason),
            time_model.TICKS_PER_SECOND,
            time_model.stage_costs(),
        )
        return self.greeting()


def _alike(one: Model, other: Model) -> bool:
    tensors = zip((one.input, one.output), (other.input, other.output), strict=True)
    return all((a.size, a.bits) == (b.size, b.bits) for a, b in tensors)


def _fitting(pack: bytes) -> bytes:
    if len(pack) > PARTITION_BYTES:
        raise InputError(f"a pack of {len(pack)} bytes", expected=f"at most {PARTITION_BYTES}, the models partition")
    return pack


def _log(*lines: str) -> bytes:
    return "".join(f"I (0) quant: {line}\r\n" for line in lines).encode()


def _identity(program: Path, options: VirtualOptions) -> Identity:
    elf = sha256(program.read_bytes()).digest()
    capabilities = Capability.TEST_FAULTS | Capability.WATCHDOG
    return Identity(
        capabilities=capabilities | Capability.PACED if options.baud else capabilities,
        rx_buffer=RX_BUFFER,
        cpu_mhz=time_model.CPU_MHZ,
        mac=b"\x02\x00\x00\x00" + options.number.to_bytes(2, "big"),
        elf_sha256=_false(elf) if options.faults.false_elf_hash else elf,
        firmware_version=__version__,
        chip="virtual",
        target="virtual",
        reset_reason="",
    )


def _false(digest: bytes) -> bytes:
    return bytes((digest[0] ^ 1,)) + digest[1:]


def _with_false_hash(out: bytes) -> bytes:
    """The same bytes, but a MODELS reply lies about its first model. The core writes whole frames and no text."""
    for event in Decoder().feed(out):
        if isinstance(event, Frame) and event.type == Message.MODELS | REPLY:
            told = encode_frame(event.type, event.sequence, _lie(event.payload))
            out = out.replace(encode_frame(event.type, event.sequence, event.payload), told)
    return out


def _lie(payload: bytes) -> bytes:
    reply = ModelsReply.decode(payload)
    if not reply.slots:
        return payload
    slot = reply.slots[0]
    digest = _false(bytes.fromhex(slot.peer_encoder.sha256)).hex()
    told = replace(slot, peer_encoder=replace(slot.peer_encoder, sha256=digest))
    return replace(reply, slots=(told, *reply.slots[1:])).encode()
