"""A process behind a pseudo-terminal comes back from whatever ends it, as a chip does."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import serial

from quant.boards.board import Board, Work
from quant.boards.linux import ELF_ENVIRONMENT, LinuxBoard, find_elf, reset_reason
from quant.boards.pty_line import open_pty_line
from quant.errors import InputError
from tests.boards.fakes.builds import make_build
from tests.patience import PATIENCE, happens

APP = Path(__file__).parent / "fakes" / "app_on_linux.py"
BOOT = re.compile(rb"boot pid (\d+) reason ([a-z ]+) models (\w+) mac ([\w:]+)\.\n")


class Host:
    """What a serial tool sees."""

    def __init__(self, port: str) -> None:
        self.port = serial.serial_for_url(port, 921600, timeout=0.05)
        self.seen = b""
        self.everything = b""

    def until(self, pattern: re.Pattern[bytes], seconds: float = PATIENCE) -> re.Match[bytes]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            data = self.port.read(self.port.in_waiting or 1)
            self.seen += data
            self.everything += data
            if match := pattern.search(self.seen):
                self.seen = self.seen[match.end() :]
                return match
        raise AssertionError(f"{pattern.pattern!r} not in {self.seen!r}")

    def echo(self, data: bytes) -> None:
        """The process answers: it is up. What a host sends while it starts is lost, so it is sent again."""
        for _ in range(100):
            self.port.write(data + b"\n")
            try:
                self.until(re.compile(b"echo " + data.hex().encode()), 0.2)
            except AssertionError:
                continue
            return
        raise AssertionError(f"no echo of {data!r} in {self.seen!r}")


@pytest.fixture
def board() -> Iterator[LinuxBoard]:
    board = LinuxBoard(APP, mac="02:00:00:00:00:07")
    with board:
        yield board


@pytest.fixture
def host(board: LinuxBoard) -> Iterator[Host]:
    host = Host(board.port)
    host.echo(b"up")
    yield host
    host.port.close()


def test_it_is_a_board(board: LinuxBoard) -> None:
    assert isinstance(board, Board)
    assert board.embedded().services == "serial"
    assert board.embedded().options == {"port": board.port, "baud": "921600"}


def test_what_a_device_says_to_nobody_does_not_come_back_to_it() -> None:
    line = open_pty_line()
    os.write(line.device_end, b"boot\r\n\x03")
    assert not select.select([line.device_end], [], [], 0.1)[0]
    assert os.read(line.host_end, 100) == b"boot\r\n\x03"
    line.close()


def test_bytes_pass_unchanged_both_ways(host: Host) -> None:
    host.echo(bytes([0, 1, 3, 4, 17, 19, 26, 28, 127, 128, 255]))


@pytest.mark.parametrize(
    ("order", "reason"), [(b"panic", b"panic"), (b"restart", b"software"), (b"hang", b"task watchdog")]
)
def test_it_starts_again_and_says_why(board: LinuxBoard, host: Host, order: bytes, reason: bytes) -> None:
    host.port.write(order + b"\n")
    assert host.until(BOOT)[2] == reason
    host.echo(b"again")
    assert board.restarts == 1


def test_a_hard_reset_is_a_new_process_on_the_same_line(board: LinuxBoard, host: Host) -> None:
    pids = []
    for reset in (board.hard_reset, board.power_cycle):
        reset()
        boot = host.until(BOOT)
        assert boot[2] == b"none"
        pids.append(boot[1])
    assert len(set(pids)) == 2
    assert board.restarts == 0


def test_the_line_outlives_hosts(board: LinuxBoard, host: Host) -> None:
    host.port.close()
    second = Host(board.port)
    second.echo(b"second")
    second.port.close()
    assert board.restarts == 0


def test_it_gets_exactly_the_pack_and_is_left_alone_once_it_has_it(board: LinuxBoard, host: Host) -> None:
    first = board.prepare(b"one pack")
    assert (first.wrote, first.why) == (Work.MODELS, "the process had no models")
    boot = host.until(BOOT)
    assert boot[3].decode() == sha256(b"one pack").hexdigest()[:16]
    assert boot[4] == b"02:00:00:00:00:07"
    assert board.prepare(b"one pack").wrote is Work.NOTHING
    host.echo(b"same-process")
    assert host.everything.count(b"boot pid") == host.everything.count(b" models none ") + 1
    assert board.prepare(b"another").wrote is Work.MODELS
    assert host.until(BOOT)[3].decode() == sha256(b"another").hexdigest()[:16]


def test_restarts_are_bounded_in_rate() -> None:
    began = time.monotonic()
    with LinuxBoard(Path("/bin/false")) as board:
        for restarts, seconds in ((3, 0.7), (4, 1.5)):  # after 0.1, 0.3, 0.7 and 1.5 s, or later on a loaded machine
            assert happens(lambda: board.restarts >= restarts)  # noqa: B023
            assert board.restarts == restarts and time.monotonic() - began >= seconds


def test_closing_ends_the_process_and_its_children(board: LinuxBoard, host: Host) -> None:
    host.port.write(b"child\n")
    child = int(host.until(re.compile(rb"child (\d+)\n"))[1])
    path = board.port
    board.close()
    board.close()

    def ended() -> bool:
        return not Path(f"/proc/{child}").exists() or "\nState:\tZ" in Path(f"/proc/{child}/status").read_text()

    assert happens(ended), "the child lives on"
    assert not Path(path).exists()
    with pytest.raises(RuntimeError):
        _ = board.port


OWNER = """
import sys, time
from pathlib import Path
from quant.boards.linux import LinuxBoard
board = LinuxBoard(Path(sys.argv[1]))
board.open()
print(board._supervisor._process.pid, flush=True)
time.sleep(60)
"""


def test_the_process_ends_with_its_owner_however_that_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, str(APP)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        time.sleep(1)
        owner.kill()
    assert happens(lambda: not Path(f"/proc/{pid}").exists()), "the process lives on"


def test_what_was_sent_to_a_process_that_is_gone_is_gone(board: LinuxBoard, host: Host) -> None:
    assert board._supervisor is not None and board._supervisor._process is not None
    os.kill(board._supervisor._process.pid, signal.SIGSTOP)
    host.port.write(b"lost\n")
    board.hard_reset()
    host.until(BOOT)
    host.echo(b"new")
    assert b"lost".hex().encode() not in host.everything


def test_an_elf_that_is_built_anew_meanwhile_is_started_once_it_is_there(tmp_path: Path) -> None:
    elf = tmp_path / "app.elf"
    shutil.copy(APP, elf)
    with LinuxBoard(elf) as board:
        host = Host(board.port)
        host.echo(b"up")
        elf.unlink()
        host.port.write(b"panic\n")
        time.sleep(0.5)
        assert board.restarts == 0
        with pytest.raises(InputError, match="cannot be started"):
            board.hard_reset()
        shutil.copy(APP, elf)
        assert host.until(BOOT)[2] == b"panic"
        host.port.close()


@pytest.mark.parametrize(
    ("code", "reason"),
    [(-signal.SIGALRM, "task watchdog"), (-signal.SIGABRT, "panic"), (-11, "panic"), (0, "software"), (1, "software")],
)
def test_reset_reasons(code: int, reason: str) -> None:
    assert reset_reason(code) == reason


def test_an_elf_that_is_not_there_or_cannot_run_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        LinuxBoard(tmp_path / "app.elf").open()
    (tmp_path / "app.elf").write_bytes(b"\x7fELF")
    with pytest.raises(InputError, match="cannot be started"):
        LinuxBoard(tmp_path / "app.elf").open()


def test_the_elf_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ELF_ENVIRONMENT, raising=False)
    with pytest.raises(InputError, match=r"(?s)build_linux: no ELF file.*set-target linux"):
        find_elf(None, tmp_path)
    chips, folder, best = tmp_path / "build", tmp_path / "build" / "linux", tmp_path / "build_linux"
    make_build(chips)
    folder.mkdir()
    (folder / "app.elf").touch()
    assert find_elf(None, tmp_path) == folder / "app.elf"
    assert find_elf(folder, Path("/nowhere")) == folder / "app.elf"
    with pytest.raises(InputError, match="a build for a chip"):
        find_elf(chips, tmp_path)
    best.mkdir()
    (best / "app.elf").touch()
    assert find_elf(None, tmp_path) == best / "app.elf"
    (folder / "other.elf").touch()
    with pytest.raises(InputError, match="2 ELF files"):
        find_elf(folder, tmp_path)
    monkeypatch.setenv(ELF_ENVIRONMENT, str(folder / "other.elf"))
    assert find_elf(None, Path("/nowhere")) == folder / "other.elf"
    assert find_elf(folder / "app.elf", tmp_path) == folder / "app.elf"
