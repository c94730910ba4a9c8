"""What QEMU is started with, the flash it gets, and a line that carries every byte; against a stand-in for QEMU."""

from __future__ import annotations

import contextlib
import json
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest

from quant.boards.board import Board, Work
from quant.boards.build import Build, load_build
from quant.boards.qemu import ARGUMENTS_ENVIRONMENT, MACHINES, QemuBoard, flash_image, machine_of, qemu_command
from quant.errors import InputError
from tests.boards.fakes.builds import APP, BOOTLOADER, MODELS, MODELS_SIZE, make_build
from tests.boards.test_linux import Host
from tests.patience import PATIENCE, happens

FAKES = Path(__file__).parent / "fakes"
BOOT = re.compile(rb"boot pid (\d+) flash (\d+) models (\w+)\.\n")


def erased(pack: bytes) -> bytes:
    """What the partition of a pack hashes to."""
    return sha256(pack.ljust(MODELS_SIZE, b"\xff")).hexdigest()[:16].encode()


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts the stand-in on PATH; the file it writes its arguments to."""
    monkeypatch.setenv("PATH", str(FAKES), prepend=":")
    monkeypatch.setenv("FAKE_QEMU_RECORD", str(tmp_path / "arguments.json"))
    monkeypatch.setenv("FAKE_MODELS_OFFSET", str(MODELS))
    monkeypatch.setenv("FAKE_MODELS_SIZE", str(MODELS_SIZE))
    monkeypatch.delenv(ARGUMENTS_ENVIRONMENT, raising=False)
    return tmp_path / "arguments.json"


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return load_build(make_build(tmp_path / "build", emulated=True))


@pytest.fixture
def board(build: Build, record: Path) -> Iterator[QemuBoard]:
    with QemuBoard(build) as board:
        yield board


@pytest.fixture
def host(board: QemuBoard) -> Iterator[Host]:
    host = Host(board.port)
    yield host
    host.port.close()


def answers(host: Host, data: bytes) -> None:
    """The machine answers with the complement of each byte."""
    host.port.write(data)
    host.until(re.compile(re.escape(bytes(255 - byte for byte in data)), re.DOTALL))


def booted(host: Host, pack: bytes) -> re.Match[bytes]:
    """The next boot with this pack: one before it, with another, may still be on the line."""
    while (boot := host.until(BOOT))[3] != erased(pack):
        pass
    return boot


def test_it_is_a_board(board: QemuBoard) -> None:
    assert isinstance(board, Board)
    assert board.embedded().options["port"] == board.port


def test_the_line_carries_every_byte_both_ways(host: Host) -> None:
    answers(host, bytes(range(256)) * 40)


def test_a_host_that_reads_slowly_loses_nothing(host: Host) -> None:
    answers(host, b"up")
    data = bytes(range(256)) * 1200
    sender = threading.Thread(target=host.port.write, args=(data,))
    sender.start()
    got = bytearray()
    deadline = time.monotonic() + PATIENCE
    while len(got) < len(data) and time.monotonic() < deadline:
        time.sleep(0.01)
        got += host.port.read(host.port.in_waiting or 1)
    host.port.reset_output_buffer()
    sender.join(PATIENCE)
    assert bytes(got) == bytes(255 - byte for byte in data)


def test_the_flash_holds_the_pack_and_a_machine_that_has_it_is_left_alone(board: QemuBoard, host: Host) -> None:
    first = board.prepare(b"pack one")
    assert first.wrote is Work.MODELS
    boot = booted(host, b"pack one")
    assert int(boot[2]) == 4 << 20
    assert board.prepare(b"pack one").wrote is Work.NOTHING
    answers(host, b"same")
    assert board.prepare(b"2").wrote is Work.MODELS
    assert booted(host, b"2")[1] != boot[1]


def test_a_hard_reset_keeps_the_process_and_a_power_cycle_keeps_the_flash(board: QemuBoard, host: Host) -> None:
    board.prepare(b"kept")
    first = booted(host, b"kept")
    board.hard_reset()
    reset = host.until(BOOT)
    assert (reset[1], reset[3]) == (first[1], first[3])
    board.power_cycle()
    cycled = host.until(BOOT)
    assert (cycled[1] != first[1], cycled[3]) == (True, first[3])
    assert board.prepare(b"kept").wrote is Work.NOTHING


def test_the_arguments_are_those_of_esp_idf(build: Build, record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ARGUMENTS_ENVIRONMENT, "-d 'guest_errors'")
    with QemuBoard(build, more=("-m", "8M")):
        arguments = json.loads(record.read_text())
    assert arguments[:4] == ["-M", "esp32", "-m", "4M"]
    assert arguments[-4:] == ["-m", "8M", "-d", "guest_errors"]
    pairs = list(pairwise(arguments))
    assert ("-icount", "shift=2,align=off,sleep=off") in pairs
    assert ("-global", "driver=nvram.esp32.efuse,property=drive,value=efuse") in pairs
    assert "-nographic" in arguments
    assert not any("wdt_disable" in word for word in arguments)
    [flash] = [value for option, value in pairs if option == "-drive" and value.endswith(",if=mtd,format=raw")]
    [efuse] = [
        value for option, value in pairs if option == "-drive" and value.endswith(",if=none,format=raw,id=efuse")
    ]
    assert flash.startswith("file=") and efuse.startswith("file=")


def test_commas_in_paths_are_doubled(tmp_path: Path) -> None:
    command = qemu_command("esp32", Path("/a,b/f"), Path("/a,b/e"), port=1, qmp=Path("/a,b/q"))
    assert [word for word in command if "/a" in word] == [
        "file=/a,,b/f,if=mtd,format=raw",
        "file=/a,,b/e,if=none,format=raw,id=efuse",
        "unix:/a,,b/q,server=on,wait=off",
    ]


@pytest.mark.parametrize(("chip", "size", "word", "at"), [("esp32", 124, 0x80, 13), ("esp32s3", 1024, 0x0C, 38)])
def test_the_fuses_say_the_revision(chip: str, size: int, word: int, at: int) -> None:
    image = MACHINES[chip].efuse_image()
    assert (len(image), image[at]) == (size, word)


@pytest.mark.parametrize("chip", list(MACHINES))
@pytest.mark.parametrize("flash_size", ["4MB", "detect", "keep"])
def test_the_flash_image_has_every_file_at_its_place(tmp_path: Path, chip: str, flash_size: str) -> None:
    build = load_build(make_build(tmp_path / "build", chip, flash_size=flash_size))
    image = flash_image(build, b"a pack", tmp_path)
    assert len(image) == 4 << 20
    assert image[MODELS : MODELS + MODELS_SIZE] == b"a pack".ljust(MODELS_SIZE, b"\xff")
    app = (build.folder / "quant.bin").read_bytes()
    assert image[APP : APP + len(app)] == app
    assert image[BOOTLOADER[chip]] == 0xE9
    assert image[0x8000:0x8002] == b"\xaa\x50"


def test_a_pack_larger_than_its_partition_is_refused_and_nothing_changes(board: QemuBoard, host: Host) -> None:
    board.prepare(b"before")
    host.until(BOOT)
    with pytest.raises(InputError, match="524,289 bytes, the models partition 524,288"):
        board.prepare(bytes(MODELS_SIZE + 1))
    answers(host, b"lives")
    assert board.prepare(b"before").wrote is Work.NOTHING


def test_a_build_that_does_not_know_it_is_emulated_is_refused(tmp_path: Path, record: Path) -> None:
    build = load_build(make_build(tmp_path / "chip", emulated=False))
    with pytest.raises(InputError, match=r"(?s)call QEMU's times measured.*SDKCONFIG=build/qemu"):
        QemuBoard(build).open()
    assert not record.exists()


def test_without_qemu_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match=r"(?s)qemu-system-xtensa is not installed.*idf_tools.py install qemu-xtensa"):
        machine_of("esp32")
    with pytest.raises(InputError, match=r"(?s)qemu-system-riscv32.*install qemu-riscv32"):
        machine_of("esp32c3")
    with pytest.raises(InputError, match="no machine for esp32c6"):
        machine_of("esp32c6")


def test_a_qemu_that_ends_is_an_error_with_its_words(
    build: Build, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU_REFUSES", "1")
    board = QemuBoard(build)
    with pytest.raises(InputError, match=r"(?s)ended with 1 before.*unsupported machine type"):
        board.open()
    with pytest.raises(RuntimeError):
        _ = board.port


def test_closing_ends_qemu(board: QemuBoard, host: Host) -> None:
    board.hard_reset()
    pid = int(host.until(BOOT)[1])
    board.close()
    board.close()
    assert not Path(f"/proc/{pid}").exists()


OWNER = """
import sys, time
from pathlib import Path
from quant.boards.build import load_build
from quant.boards.qemu import QemuBoard
QemuBoard(load_build(Path(sys.argv[1]))).open()
print("open", flush=True)
time.sleep(60)
"""


def test_qemu_ends_with_its_owner_however_that_ends(build: Build, record: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, str(build.folder)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == b"open\n"
        efuse = next(word for word in json.loads(record.read_text()) if word.endswith("id=efuse"))
        assert efuse in running()
        owner.kill()
    assert happens(lambda: efuse not in running()), "QEMU lives on"


def running() -> str:
    """The command lines of all processes."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(lines)


def test_the_stand_in_can_be_started() -> None:
    assert (FAKES / "qemu-system-xtensa").stat().st_mode & stat.S_IXUSR
