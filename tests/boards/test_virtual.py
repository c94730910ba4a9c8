"""The virtual board as a host sees it: a serial port with the firmware's core behind it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import serial

from quant import __version__
from quant.boards.board import Board, Work
from quant.boards.pack import build_pack
from quant.boards.virtual import _virtual_board, time_model
from quant.boards.virtual.board import VirtualBoard, VirtualOptions
from quant.boards.virtual.faults import ByteRates, Faults, FaultyLine, LineFault
from quant.boards.virtual.firmware import PARTITION_BYTES, RX_BUFFER, Firmware
from quant.boards.virtual.line import Wire
from quant.errors import InputError, LinkError
from quant.runners import Int8Runner
from quant.runners.flatbuffer import read_model
from quant.tracks.candidate import Candidate
from quant.wire.codec import Decoder, Frame, encode_frame
from quant.wire.link import Link
from quant.wire.messages import (
    DecideReply,
    DecideRequest,
    FaultRequest,
    HelloReply,
    HelloRequest,
    ModelsRequest,
    ResetRequest,
    StatsRequest,
)
from quant.wire.protocol import (
    REPLY,
    Capability,
    EvidenceCode,
    FaultKind,
    Message,
    PackStatus,
    Stage,
)
from quant.wire.streams import PyserialStream
from tests.boards.candidates import wide
from tests.patience import PATIENCE, happens
from tests.runners.candidates import box_policy, quantize_policy, random_observations, random_policy

BOOT_LINE = rb"quant (\S+) elf ([0-9a-f]{16}) target virtual slots (\d)"
QUICK = VirtualOptions(boot_seconds=0.02, watchdog_seconds=0.1)
HELLOS = 600
"""To a board that restarts; one or two are enough where nothing else uses the machine."""


@pytest.fixture(scope="module")
def candidates() -> tuple[Candidate, Candidate]:
    """Two tracks of one policy, of the same sizes and with other weights."""
    return (
        replace(quantize_policy(box_policy()), track="ptq"),
        replace(quantize_policy(box_policy(), per_channel=False), track="qat"),
    )


@pytest.fixture(scope="module")
def pack(candidates: tuple[Candidate, Candidate]) -> bytes:
    return build_pack(candidates)


@pytest.fixture(scope="module")
def board(pack: bytes) -> Iterator[VirtualBoard]:
    with VirtualBoard(pack, QUICK) as opened:
        yield opened


@contextmanager
def linked(board: VirtualBoard, log: Callable[[bytes], object] = len, timeout: float = 0.5) -> Iterator[Link]:
    link = Link(PyserialStream(board.port), log=log, timeout=timeout, rx_buffer=RX_BUFFER)
    try:
        yield link
    finally:
        link.close()


def restarted(link: Link) -> HelloReply:
    """The first HELLO after a restart; while the board boots it hears nothing."""
    return link.request(HelloRequest(), timeout=0.2, retries=HELLOS)


def requests(candidate: Candidate, slot: int, n: int, seed: int = 0) -> list[DecideRequest]:
    seen = random_observations(n, seed, ego=len(candidate.ego_input.gain))
    return [
        DecideRequest(slot, ego, peers, mask, interfaces=True)
        for ego, peers, mask in zip(seen.ego, seen.peers, seen.mask, strict=True)
    ]


def same(replies: list[DecideReply], candidate: Candidate, seed: int = 0) -> bool:
    """Whether these are the host's decisions, to the bit at every interface."""
    seen = random_observations(len(replies), seed, ego=len(candidate.ego_input.gain))
    runner = Int8Runner(candidate)
    expected, values = runner.decide(seen), runner.values(seen)
    parts = (expected.peer_inputs, expected.embeddings, expected.pooled, expected.head_inputs, expected.outputs)
    return all(
        reply.interfaces == b"".join(part[i].tobytes() for part in parts) and np.array_equal(reply.values, values[i])
        for i, reply in enumerate(replies)
    )


def test_it_is_a_board(board: VirtualBoard) -> None:
    assert isinstance(board, Board)
    assert board.embedded().options["port"] == board.port


def test_it_says_who_it_is_and_that_it_is_simulated(board: VirtualBoard) -> None:
    with linked(board) as link:
        hello = link.request(HelloRequest())
    assert (hello.evidence, hello.chip, hello.target) == (EvidenceCode.SIMULATED, "virtual", "virtual")
    assert hello.capabilities == Capability.TEST_FAULTS | Capability.WATCHDOG
    assert hello.elf_sha256 == sha256(Path(_virtual_board.__file__).read_bytes()).hexdigest()
    assert (hello.firmware, hello.mac) == (__version__, "02:00:00:00:00:01")
    assert hello.engine.startswith("tflite_micro ")
    assert hello.ticks_per_second == 240_000_000


def test_it_names_the_models_of_its_pack(board: VirtualBoard, candidates: tuple[Candidate, ...]) -> None:
    with linked(board) as link:
        models = link.request(ModelsRequest())
    assert models.status is PackStatus.OK
    assert [slot.track for slot in models.slots] == ["ptq", "qat"]
    for slot, candidate in zip(models.slots, candidates, strict=True):
        assert slot.peer_encoder.sha256 == candidate.peer_encoder.sha256
        assert slot.policy_head.sha256 == candidate.policy_head.sha256


@pytest.mark.parametrize("process", [True, False])
def test_decisions_are_the_hosts_to_the_bit(pack: bytes, candidates: tuple[Candidate, ...], process: bool) -> None:
    with VirtualBoard(pack, process=process) as board, linked(board) as link:
        for slot, candidate in enumerate(candidates):
            assert same(list(link.stream(requests(candidate, slot, 300))), candidate)


@pytest.mark.parametrize("pooling", ["max", "sum", "mean"])
def test_every_pooling_and_discrete_actions(pooling: str) -> None:
    candidate = quantize_policy(random_policy(3, pooling=pooling), share_scale=False)  # type: ignore[arg-type]
    with VirtualBoard(build_pack((candidate,)), process=False) as board, linked(board) as link:
        replies = list(link.stream(requests(candidate, 0, 200)))
    assert same(replies, candidate)
    assert [reply.action for reply in replies] == [int(np.argmax(reply.values)) for reply in replies]


def test_its_clock_is_the_model(board: VirtualBoard, candidates: tuple[Candidate, ...]) -> None:
    candidate = candidates[0]
    encoder, head = (read_model(part.tflite) for part in (candidate.peer_encoder, candidate.policy_head))
    with linked(board) as link:
        for reply in link.stream(requests(candidate, 0, 20)):
            expected = time_model.decision_instructions(encoder, head, reply.present)
            assert reply.ticks[Stage.TOTAL] == expected == sum(reply.ticks[: Stage.TOTAL])
            assert reply.ticks[Stage.ENCODE] == reply.present * time_model.invoke_instructions(encoder)


def test_the_same_requests_give_the_same_bytes(pack: bytes, candidates: tuple[Candidate, ...]) -> None:
    def run() -> bytes:
        with VirtualBoard(pack, QUICK) as board, serial.Serial(board.port, timeout=5) as port:
            for sequence, request in enumerate(requests(candidates[0], 0, 20), 1):
                port.write(encode_frame(Message.DECIDE, sequence, request.encode()))
            out = b""
            while out.count(b"\0") < 2 * 20:
                out += port.read(port.in_waiting or 1)
            return out

    assert run() == run()


def test_the_port_may_be_closed_and_opened_again(board: VirtualBoard) -> None:
    for _ in range(5):
        with linked(board) as link:
            link.request(HelloRequest())


def test_replies_nobody_read_do_not_stop_it(board: VirtualBoard) -> None:
    """A host writes more than all buffers hold and goes away; the next one finds the board well."""
    with serial.Serial(board.port, write_timeout=0.5) as port, pytest.raises(serial.SerialTimeoutException):
        for sequence in range(1, 200_000):
            port.write(encode_frame(Message.MODELS, sequence % 65535 + 1))
    with linked(board, timeout=2) as link:
        assert link.request(HelloRequest()).chip == "virtual"


def test_reset_starts_anew(board: VirtualBoard) -> None:
    log: list[bytes] = []
    with linked(board, log.append) as link:
        for _ in range(30):
            link.request(StatsRequest())
        link.request(ResetRequest())
        before = link.counters.frames_out
        hello = restarted(link)
        after = link.request(StatsRequest())
    assert hello.reset_reason == "software"
    assert after.frames_good <= link.counters.frames_out - before  # the HELLOs until it listened, and these STATS
    text = re.search(BOOT_LINE, b"".join(log))
    assert text is not None
    assert text[2].decode() == hello.elf_sha256[:16]
    assert text[3] == b"2"


def test_a_panic_is_printed_and_ends_in_a_restart(board: VirtualBoard) -> None:
    log: list[bytes] = []
    with linked(board, log.append) as link:
        link.request(FaultRequest(FaultKind.PANIC))
        assert restarted(link).reset_reason == "panic"
    assert re.search(rb"Guru Meditation Error: Core  0 panic'ed.*Rebooting.*" + BOOT_LINE, b"".join(log), re.DOTALL)


def test_a_hang_is_silent_until_the_watchdog_bites(pack: bytes) -> None:
    log: list[bytes] = []
    with VirtualBoard(pack, replace(QUICK, watchdog_seconds=0.6)) as board, linked(board, log.append) as link:
        link.request(FaultRequest(FaultKind.HANG))
        with pytest.raises(LinkError):
            link.request(HelloRequest(), timeout=0.3, retries=0)
        assert restarted(link).reset_reason == "task watchdog"
    assert b"Task watchdog got triggered" in b"".join(log)


def test_what_follows_a_reset_in_the_same_write_is_lost(board: VirtualBoard) -> None:
    with serial.Serial(board.port, timeout=0.3) as port:
        panic = encode_frame(Message.FAULT, 3, bytes([FaultKind.PANIC]))
        port.write(encode_frame(Message.HELLO, 1) + encode_frame(Message.RESET, 2) + panic)
        heard = bytearray()
        assert happens(lambda: heard.extend(port.read(4000)) or heard.count(b"\0") >= 4)  # type: ignore[func-returns-value]
        heard += port.read(4000)
    assert heard.count(b"\0") == 4
    assert b"Guru" not in heard


def test_an_empty_board_says_so_and_is_flashed(pack: bytes) -> None:
    with VirtualBoard(options=QUICK) as board, linked(board) as link:
        assert link.request(ModelsRequest()).status is PackStatus.EMPTY
        assert board.prepare(pack).wrote is Work.MODELS
        restarted(link)
        assert link.request(ModelsRequest()).status is PackStatus.OK
        assert board.prepare(pack).wrote is Work.NOTHING
        board.hard_reset()
        assert restarted(link).reset_reason == "power on"


@pytest.mark.parametrize("process", [True, False])
def test_a_pack_that_does_not_fit_is_refused(process: bool) -> None:
    with pytest.raises(InputError, match="at most 524288"), VirtualBoard(bytes(PARTITION_BYTES + 1), process=process):
        pass


def test_a_damaged_pack_is_told(pack: bytes) -> None:
    with VirtualBoard(pack[:-1] + bytes([pack[-1] ^ 1]), process=False) as board, linked(board) as link:
        assert link.request(ModelsRequest()).status is PackStatus.BAD_HASH


@pytest.mark.parametrize(
    ("rates", "seed"),
    [
        (ByteRates(flip=2e-4), 1),
        (ByteRates(drop=2e-4), 2),
        (ByteRates(duplicate=2e-4), 3),
        (ByteRates(drop=5e-5, flip=5e-5, duplicate=5e-5), 4),
    ],
)
def test_no_fault_of_the_line_gets_into_a_decision(
    pack: bytes, candidates: tuple[Candidate, ...], rates: ByteRates, seed: int
) -> None:
    """Every injected fault is noticed: all decisions are right, and the link had to repeat some."""
    faults = Faults(to_board=rates, to_host=rates, seed=seed)
    with VirtualBoard(pack, replace(QUICK, faults=faults)) as board, linked(board, timeout=0.1) as link:
        link.retries = 50
        replies = list(link.stream(requests(candidates[0], 0, 400)))
        counts = board.fault_counts()
    assert same(replies, candidates[0])
    assert counts.total > 20
    assert link.counters.repeats > 0


def test_a_delay_is_a_time_out_and_no_wrong_answer(pack: bytes, candidates: tuple[Candidate, ...]) -> None:
    faults = Faults(to_host=ByteRates(delay=1e-4, delay_seconds=0.25), seed=1)
    with VirtualBoard(pack, replace(QUICK, faults=faults)) as board, linked(board, timeout=0.1) as link:
        link.retries = 50
        replies = [link.request(request) for request in requests(candidates[0], 0, 100)]
        assert board.fault_counts().to_host[LineFault.DELAY] > 0
    assert same(replies, candidates[0])
    assert link.counters.silences > 0


@pytest.mark.parametrize(
    ("faults", "reason"), [(Faults(reboot_after=5_000), "brownout"), (Faults(hang_after=5_000), "task watchdog")]
)
def test_it_restarts_in_the_middle_of_a_frame(
    pack: bytes, candidates: tuple[Candidate, ...], faults: Faults, reason: str
) -> None:
    with VirtualBoard(pack, replace(QUICK, faults=faults)) as board, linked(board, timeout=0.2) as link:
        link.retries = HELLOS
        assert same(list(link.stream(requests(candidates[0], 0, 60))), candidates[0])
        assert link.request(HelloRequest()).reset_reason == reason
        assert link.request(StatsRequest()).decisions < 60


@pytest.mark.parametrize("cut", [0, 5, 10_000])
def test_an_accident_happens_at_its_byte(cut: int) -> None:
    """However the bytes come: what is whole by then is answered, and what follows is lost until the board is up."""
    hello = encode_frame(Message.HELLO, 1)
    firmware = Firmware(b"", VirtualOptions(faults=Faults(reboot_after=len(hello) + 4), boot_seconds=2.0))
    data = hello + encode_frame(Message.STATS, 2) + encode_frame(Message.STATS, 3)
    out = firmware.receive(data[:cut], 10.0) + firmware.receive(data[cut:], 11.0)
    assert [event.type for event in Decoder().feed(out) if isinstance(event, Frame)] == [Message.HELLO | REPLY]
    assert firmware.due == pytest.approx(13.0, abs=1.0)
    assert firmware.receive(hello, 12.0) == b""
    assert re.search(BOOT_LINE, firmware.wake(13.0))
    assert firmware.receive(hello, 13.0).count(b"\0") == 2


def test_another_model_answers_in_its_name(pack: bytes, candidates: tuple[Candidate, ...]) -> None:
    with VirtualBoard(pack, VirtualOptions(faults=Faults(another_model=True))) as board, linked(board) as link:
        replies = list(link.stream(requests(candidates[0], 0, 50)))
        hashes = [slot.peer_encoder.sha256 for slot in link.request(ModelsRequest()).slots]
    assert hashes == [candidate.peer_encoder.sha256 for candidate in candidates]
    assert not same(replies, candidates[0])


def test_only_a_model_of_the_same_codes_answers_for_another(candidates: tuple[Candidate, ...]) -> None:
    three = (candidates[0], replace(wide(box_policy()), track="wide"), candidates[1])
    options = VirtualOptions(faults=Faults(another_model=True))
    with VirtualBoard(build_pack(three), options) as board, linked(board) as link:
        right = [same(list(link.stream(requests(one, slot, 30))), one) for slot, one in enumerate(three)]
    assert right == [False, True, False]


def test_one_model_cannot_answer_for_another(candidates: tuple[Candidate, ...]) -> None:
    options = VirtualOptions(faults=Faults(another_model=True))
    with pytest.raises(InputError, match="two slots"), VirtualBoard(build_pack(candidates[:1]), options, process=False):
        pass


def test_it_lies_about_hashes_when_told(pack: bytes, candidates: tuple[Candidate, ...], board: VirtualBoard) -> None:
    options = VirtualOptions(faults=Faults(false_elf_hash=True, false_model_hash=True))
    with VirtualBoard(pack, options) as liar, linked(liar) as told, linked(board) as true:
        assert told.request(HelloRequest()).elf_sha256 != true.request(HelloRequest()).elf_sha256
        lie, truth = (link.request(ModelsRequest()) for link in (told, true))
        assert same(list(told.stream(requests(candidates[0], 0, 10))), candidates[0])
    assert lie.slots[0].peer_encoder.sha256 != truth.slots[0].peer_encoder.sha256
    assert lie.slots[0].policy_head == truth.slots[0].policy_head
    assert lie.slots[1] == truth.slots[1]


def test_a_paced_line_is_never_overrun(pack: bytes, candidates: tuple[Candidate, ...]) -> None:
    baud = 230_400
    sent = requests(candidates[0], 0, 120)
    with VirtualBoard(pack, VirtualOptions(baud=baud)) as board, linked(board, timeout=PATIENCE) as link:
        assert Capability.PACED in link.request(HelloRequest()).capabilities
        before, start = (link.counters.bytes_out, link.counters.bytes_in), time.monotonic()
        assert sum(1 for _ in link.stream(sent)) == len(sent)
        seconds = time.monotonic() - start
    busiest = max(link.counters.bytes_out - before[0], link.counters.bytes_in - before[1])
    assert busiest / seconds / (baud / 10) <= 1.0


class Paced:
    """A board on a paced line as a stream, whose time goes by only while the host waits: nothing else is waited for."""

    name = "paced"

    def __init__(self, pack: bytes, baud: int) -> None:
        self.now = 0.0
        self._firmware = Firmware(pack, VirtualOptions(baud=baud))
        self._to_board, self._to_host = (Wire(FaultyLine(ByteRates(), (0, way), 0), baud) for way in (0, 1))
        self._to_host.send(self._firmware.wake(self.now), self.now)

    def read(self, timeout: float) -> bytes:
        until = self.now + timeout
        while True:
            answers = self._firmware.receive(self._to_board.arrived(self.now), self.now)
            self._to_host.send(answers, self.now)
            if (data := self._to_host.arrived(self.now)) or self.now >= until:
                return data
            self.now += 0.001  # as often as the board's own process looks

    def write(self, data: bytes) -> None:
        self._to_board.send(data, self.now)

    def reopen(self) -> None: ...

    def close(self) -> None: ...


def test_a_paced_line_is_filled(pack: bytes, candidates: tuple[Candidate, ...]) -> None:
    """A streaming host uses over nine tenths of the line."""
    baud = 230_400
    sent = requests(candidates[0], 0, 120)
    line = Paced(pack, baud)
    link = Link(line, timeout=PATIENCE, rx_buffer=RX_BUFFER)
    link.request(HelloRequest())
    before, start = (link.counters.bytes_out, link.counters.bytes_in), line.now
    assert same(list(link.stream(sent)), candidates[0])
    busiest = max(link.counters.bytes_out - before[0], link.counters.bytes_in - before[1])
    assert 0.9 < busiest / (line.now - start) / (baud / 10) <= 1.0


def test_it_ends_with_the_process_that_opened_it() -> None:
    code = (
        "from quant.boards.virtual.board import VirtualBoard\nimport time\n"
        "board = VirtualBoard()\nboard.open()\nprint(board.port, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        port = Path(owner.stdout.readline().strip())
        assert port.exists()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert happens(lambda: not port.exists())


def test_closing_twice_and_asking_a_closed_board() -> None:
    board = VirtualBoard(process=False)
    board.open()
    board.close()
    board.close()
    with pytest.raises(RuntimeError, match="not open"):
        _ = board.port


def test_pytest_embedded_takes_it_for_a_serial_port(board: VirtualBoard, tmp_path: Path) -> None:
    reset = encode_frame(Message.RESET, 77)
    panic = encode_frame(Message.FAULT, 78, bytes([FaultKind.PANIC]))
    (tmp_path / "test_dut.py").write_text(
        "def test_boot(dut):\n"
        f"    dut.serial.proc.write({reset!r})\n"
        "    line = dut.expect(r'quant (\\S+) elf ([0-9a-f]{16}) target virtual slots 2', timeout=10)\n"
        "    assert len(line[2]) == 16\n"
        f"    dut.serial.proc.write({panic!r})\n"
        "    dut.expect_exact('Guru Meditation Error', timeout=10)\n"
        "    dut.expect_exact('slots 2', timeout=10)\n"
    )
    embedded = board.embedded()
    options = [f"--{name}={value}" for name, value in embedded.options.items()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--embedded-services", embedded.services]
    done = subprocess.run(
        [*command, *options, "test_dut.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
