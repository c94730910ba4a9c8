"""The same board behind a pseudo-terminal, a socket, a terminal server and pytest-embedded."""

from __future__ import annotations

import errno
import os
import select
import socket
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import serial
from pytest_embedded.log import MessageQueue
from pytest_embedded_serial.serial import Serial  # type: ignore[import-untyped, unused-ignore]
from serial.rfc2217 import PortManager

from quant.boards.device import Device
from quant.boards.pty_line import PtyLine, open_pty_line
from quant.errors import LinkError
from quant.runners import Int8Runner
from quant.wire.link import Link
from quant.wire.messages import HelloRequest
from quant.wire.streams import PortStream, PyserialStream, PytestEmbeddedStream
from tests.boards.stub import StubBoard
from tests.patience import PATIENCE
from tests.runners.candidates import quantize_policy, random_observations, random_policy

CANDIDATE = quantize_policy(random_policy())
SEEN = random_observations(300)
VALUES = Int8Runner(CANDIDATE).values(SEEN)

Read = Callable[[], bytes]
Write = Callable[[bytes], object]


class Server:
    """A stub board served in a thread over any pair of functions; it writes before it reads on, as firmware does."""

    def __init__(self, descriptor: int, read: Read, write: Write) -> None:
        self.stub = StubBoard((CANDIDATE,))
        self._ends = os.pipe()
        self._descriptor, self._read, self._write = descriptor, read, write
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._descriptor, self._ends[0]], [], [], 0.02)
            if self._ends[0] in ready:
                return
            if ready:
                data = self._read()
                if not data:
                    return
                self.stub.write(data)
            if self.stub._out:
                with suppress(OSError):
                    self._write(self.stub.read(0))

    def stop(self) -> None:
        os.write(self._ends[1], b"x")
        self._thread.join()
        for end in self._ends:
            os.close(end)


@pytest.fixture
def line() -> Iterator[PtyLine]:
    opened = open_pty_line()
    yield opened
    opened.close()


@pytest.fixture
def served(line: PtyLine) -> Iterator[Server]:
    end = line.device_end

    def write(data: bytes) -> None:
        while data:
            data = data[os.write(end, data) :]

    server = Server(end, lambda: os.read(end, 256), write)
    yield server
    server.stop()


def decides(link: Link) -> None:
    device = Device.open(link)
    np.testing.assert_array_equal(device.decide("test", SEEN).values, VALUES)
    assert link.counters.repeats == link.counters.strays == link.counters.damage.total() == 0


def test_a_pseudo_terminal(line: PtyLine, served: Server) -> None:
    link = Link(PyserialStream(line.path))
    decides(link)
    link.close()
    link.reopen()
    decides(link)
    link.close()
    link.close()


def test_neither_waits_for_the_other_when_everything_is_full(line: PtyLine, served: Server) -> None:
    # More under way than a pseudo-terminal holds in either direction: who only writes would wait for ever.
    served.stub.rx_buffer = 1 << 20
    link = Link(PyserialStream(line.path), window=2000, timeout=PATIENCE)
    start = time.monotonic()
    decides(link)
    assert time.monotonic() - start < PATIENCE and link.counters.silences == 0
    link.close()


def test_a_port_that_takes_nothing_is_given_up(line: PtyLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quant.wire.streams._STUCK", 0.2)
    stream = PyserialStream(line.path)
    with pytest.raises(LinkError, match=r"taken no byte for 0.2 s"):
        stream.write(bytes(100_000))
    stream.close()


def test_reading_waits_no_longer_than_it_should(line: PtyLine) -> None:
    stream = PyserialStream(line.path)
    start = time.monotonic()
    assert stream.read(0.0) == b""
    assert stream.read(0.1) == b"" and 0.09 < time.monotonic() - start < PATIENCE
    os.write(line.device_end, b"late")
    assert stream.read(3 * PATIENCE) == b"late" and time.monotonic() - start < 2 * PATIENCE
    stream.close()


def test_a_real_port_is_ours_alone(line: PtyLine) -> None:
    stream = PyserialStream(line.path)
    with pytest.raises(LinkError, match="in use") as caught:
        PyserialStream(line.path)
    assert "monitor" in str(caught.value)
    stream.close()
    PyserialStream(line.path).close()


def test_the_line_is_raw_and_as_fast_as_asked(line: PtyLine) -> None:
    stream = PyserialStream(line.path, 921_600)
    attributes = termios.tcgetattr(line.host_end)
    assert attributes[4] == attributes[5] == termios.B921600
    assert not attributes[3] & (termios.ICANON | termios.ECHO) and not attributes[0] & (termios.IXON | termios.ICRNL)
    stream.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("/dev/quant-no-such-port", "no such port"),
        ("socket://127.0.0.1:1", "cannot be opened"),
        ("nonsense://x", "cannot be opened"),
        (__file__, "cannot be opened"),
    ],
)
def test_a_port_that_cannot_be_had_is_explained(url: str, words: str) -> None:
    with pytest.raises(LinkError, match=words) as caught:
        PyserialStream(url)
    assert caught.value.hint is not None and caught.value.where == url


def test_a_port_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", path)  # root, as whom tests may run, is never refused

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LinkError, match="no permission") as caught:
        PyserialStream("/dev/ttyUSB0")
    assert "dialout" in str(caught.value)


def test_a_port_that_goes_away() -> None:
    line = open_pty_line()
    stream = PyserialStream(line.path)
    line.close()
    with pytest.raises(LinkError, match="gone"):
        stream.read(0.1)
    with pytest.raises(LinkError, match="gone"):
        stream.write(b"x")
    stream.close()
    with pytest.raises(LinkError):
        stream.reopen()
    with pytest.raises(LinkError, match="gone"):
        stream.read(0.0)


def test_opening_neither_resets_nor_holds_the_board(monkeypatch: pytest.MonkeyPatch) -> None:
    # RTS without DTR is reset, on development boards and on the USB of the chips themselves.
    seen: list[tuple[bool, bool]] = []

    class Lines(serial.Serial):
        def _update_dtr_state(self) -> None:
            state[0] = self.dtr
            seen.append((state[0], state[1]))

        def _update_rts_state(self) -> None:
            state[1] = self.rts
            seen.append((state[0], state[1]))

    state = [True, True]  # Linux raises both on opening
    line = open_pty_line()
    monkeypatch.setattr(serial, "serial_for_url", lambda url, **options: _unopened(Lines, url, options))
    PyserialStream(line.path).close()
    assert (False, True) not in seen and seen[-1] == (False, False)
    line.close()


def _unopened(kind: type[serial.Serial], url: str, options: dict[str, object]) -> serial.Serial:
    assert options.pop("do_not_open")
    port = kind(None, **options)  # type: ignore[arg-type]
    port.port = url
    return port


@contextmanager
def listening(serve: Callable[[socket.socket], Server]) -> Iterator[str]:
    """One connection to a board behind TCP."""
    servers: list[Server] = []
    with socket.create_server(("127.0.0.1", 0)) as door:

        def answer() -> None:
            connection, _ = door.accept()
            servers.append(serve(connection))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"127.0.0.1:{door.getsockname()[1]}"
        thread.join()
        for server in servers:
            server.stop()


def test_a_socket() -> None:
    def serve(connection: socket.socket) -> Server:
        return Server(connection.fileno(), lambda: connection.recv(4096), connection.sendall)

    with listening(serve) as address:
        link = Link(PyserialStream(f"socket://{address}"))
        decides(link)
        link.close()


@pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")  # pyserial's
def test_a_terminal_server() -> None:
    def serve(connection: socket.socket) -> Server:
        port: Any = SimpleNamespace(cts=True, dsr=True, ri=False, cd=True, dtr=True, rts=True, break_condition=False)
        port.__dict__.update(baudrate=9600, bytesize=8, parity="N", stopbits=1, xonxoff=False, rtscts=False)
        port.__dict__.update(reset_input_buffer=lambda: None, reset_output_buffer=lambda: None)
        client: Any = SimpleNamespace(write=connection.sendall)
        manager = PortManager(port, client)

        def read() -> bytes:
            while data := connection.recv(4096):
                if found := b"".join(manager.filter(data)):
                    return found
            return b""

        return Server(connection.fileno(), read, lambda data: connection.sendall(b"".join(manager.escape(data))))

    with listening(serve) as address:
        link = Link(PyserialStream(f"rfc2217://{address}"))
        decides(link)
        link.close()


@pytest.fixture
def embedded(line: PtyLine, served: Server) -> Iterator[tuple[Serial, MessageQueue]]:
    queue = MessageQueue()
    opened = Serial(queue, port=line.path, baud=921_600)
    yield opened, queue
    opened.close()
    queue.close()


def said(queue: MessageQueue, text: bytes) -> bytes:
    """What pytest-embedded's log gets, until it has ``text``."""
    found, until = b"", time.monotonic() + PATIENCE
    while text not in found and time.monotonic() < until:
        with suppress(Exception):
            found += queue.get(timeout=0.1)
    return found


def test_pytest_embedded_lends_its_port(embedded: tuple[Serial, MessageQueue], served: Server) -> None:
    owner, queue = embedded
    served.stub.say(b"before\n")
    assert said(queue, b"before\n") == b"before\n"
    stream = PytestEmbeddedStream(owner)
    link = Link(stream, log=stream.log)
    decides(link)
    served.stub.say(b"between\n")
    link.request(HelloRequest())
    link.listen(0.1)
    assert said(queue, b"between\n") == b"between\n"
    link.close()
    served.stub.say(b"after\n")
    assert said(queue, b"after\n") == b"after\n"
    link.close()
    assert owner._redirect_thread.is_alive()


def test_a_port_that_pytest_embedded_did_not_read_is_left_so(embedded: tuple[Serial, MessageQueue]) -> None:
    owner, _ = embedded
    owner.stop_redirect_thread()
    PytestEmbeddedStream(owner).close()
    assert not owner._redirect_thread.is_alive()


def test_pytest_embeddeds_port_is_opened_again(embedded: tuple[Serial, MessageQueue]) -> None:
    stream = PytestEmbeddedStream(embedded[0])
    stream.reopen()
    decides(Link(stream))
    stream.close()


def test_a_port_without_a_descriptor_is_polled() -> None:
    port = serial.serial_for_url("loop://", timeout=0.02)
    stream = PortStream(port, "loop")
    start = time.monotonic()
    assert stream.read(0.1) == b"" and time.monotonic() - start >= 0.1
    stream.write(b"abc")
    assert stream.read(1.0) == b"abc"
