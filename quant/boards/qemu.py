"""The app in Espressif's QEMU, as a board: the chip's own instructions, counted rather than timed.

QEMU runs with ``-icount``, so that the cycle counter advances with the instructions and not with the host's load. What
comes from here is ``emulated``; a build that does not know that it is emulated is refused, because it would call its
times measured.

QEMU's serial port is a TCP connection, as in ESP-IDF's ``idf.py qemu``. A thread joins it to a pseudo-terminal, and the
board's port is that: pyserial's ``socket://`` tells one waiting byte from none but not two from one, so that a reader
which asks how many there are (pytest-embedded's does, every 50 ms) gets 20 bytes a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from quant.boards.board import Prepared, Work
from quant.boards.build import Build, find_build, load_build
from quant.boards.pty_board import PtyBoard
from quant.boards.pty_line import PtyLine
from quant.errors import InputError

if TYPE_CHECKING:
    from serial import SerialBase

ARGUMENTS_ENVIRONMENT = "QUANT_QEMU_ARGS"
"""More arguments for QEMU, split as a shell would; they come last and so win."""

ERASED = b"\xff"
"""A byte of flash nobody wrote."""

BUILD_COMMAND = (
    "idf.py -B build/qemu -D SDKCONFIG=build/qemu/sdkconfig "
    '-D SDKCONFIG_DEFAULTS="sdkconfig.defaults;sdkconfig.defaults.qemu" set-target esp32 build'
)
"""Builds the app for QEMU, in the app's folder, with a configuration of its own: not that of a chip's build."""

_SAID = 1500
_START_SECONDS = 20.0
_END_SECONDS = 5.0
_UNREAD_SECONDS = 0.5
"""No host takes so long to read what has come: then there is none, and what the chip says is lost, as on a bench."""
_CHUNK = 65536


@dataclass(frozen=True)
class Machine:
    """How ESP-IDF v5.5 starts QEMU for a chip (``tools/idf_py_actions/qemu_ext.py``).

    Attributes:
        program: QEMU's executable.
        package: what ``idf_tools.py install`` calls it.
        arguments: the machine and its memory.
        fuses: size of the eFuse image in bytes, and the bytes in it that are not zero, by offset: the chip's revision.
    """

    program: str
    package: str
    arguments: tuple[str, ...]
    fuses: tuple[int, dict[int, int]]

    def efuse_image(self) -> bytes:
        """The content of the eFuses."""
        size, set_bytes = self.fuses
        image = bytearray(size)
        for offset, value in set_bytes.items():
            image[offset] = value
        return bytes(image)


MACHINES = {
    # Revision 3: CHIP_VER_REV1 is bit 15 of word 3, CHIP_VER_REV2 bit 20 of word 5.
    "esp32": Machine("qemu-system-xtensa", "qemu-xtensa", ("-M", "esp32", "-m", "4M"), (124, {13: 0x80, 22: 0x10})),
    # Revision 0.3: WAFER_VERSION_MINOR.
    "esp32s3": Machine("qemu-system-xtensa", "qemu-xtensa", ("-M", "esp32s3", "-m", "32M"), (1024, {38: 0x0C})),
    "esp32c3": Machine("qemu-system-riscv32", "qemu-riscv32", ("-M", "esp32c3"), (1024, {38: 0x0C})),
}

ICOUNT = ("-icount", "shift=2,align=off,sleep=off")
"""An instruction is 4 ns of the machine's time, whatever the host is busy with; idle time passes at once."""


def machine_of(chip: str) -> Machine:
    """QEMU's machine for a chip.

    Raises:
        InputError: QEMU has none, or QEMU is not installed; says what to install.
    """
    machine = MACHINES.get(chip)
    if machine is None:
        raise InputError(f"QEMU has no machine for {chip}", expected=f"a build for {', '.join(MACHINES)}")
    if shutil.which(machine.program) is None:
        raise InputError(
            f"{machine.program} is not installed",
            where="PATH",
            expected="Espressif's QEMU",
            hint=f"python $IDF_PATH/tools/idf_tools.py install {machine.package}, then . $IDF_PATH/export.sh; "
            "without an emulator: --board virtual",
        )
    return machine


def qemu_command(chip: str, flash: Path, efuse: Path, *, port: int, qmp: Path, more: tuple[str, ...] = ()) -> list[str]:
    """The command line that starts a chip with a flash image.

    The watchdogs stay on (``idf.py qemu`` turns the timer groups' off): recovery by the watchdog is one of the tests.

    Args:
        chip: one of `MACHINES`.
        flash: image of the whole flash.
        efuse: image of the eFuses.
        port: TCP port of the serial line on this host; QEMU waits until somebody connects, so no boot message is lost.
        qmp: path of the control socket.
        more: further arguments.
    """
    machine = MACHINES[chip]
    return [
        machine.program,
        *machine.arguments,
        *("-drive", f"file={_option(flash)},if=mtd,format=raw"),
        *("-drive", f"file={_option(efuse)},if=none,format=raw,id=efuse"),
        *("-global", f"driver=nvram.{chip}.efuse,property=drive,value=efuse"),
        *("-nic", "none"),
        "-nographic",
        *("-monitor", "none"),
        *("-serial", f"tcp:127.0.0.1:{port},server=on,wait=on,nodelay=on"),
        *("-qmp", f"unix:{_option(qmp)},server=on,wait=off"),
        *ICOUNT,
        *more,
    ]


def _option(path: Path) -> str:
    """A path inside one of QEMU's options, where a comma ends it and two are one."""
    return str(path).replace(",", ",,")


def flash_image(build: Build, pack: bytes, folder: Path) -> bytes:
    """The whole flash: the build's files merged by esptool, with this pack in the models partition.

    Args:
        build: of the app.
        pack: goes to the start of the models partition; the rest of the partition is erased flash.
        folder: for the tool's output.

    Raises:
        InputError: esptool refuses the files, or the pack does not fit.
    """
    build.fits(pack)
    merged = folder / "merged.bin"
    arguments = [sys.executable, "-m", "esptool", "--chip", build.chip, "merge-bin", "--output", str(merged)]
    # merge-bin cannot detect a flash chip; the bootloader's header then says what it was built with.
    arguments += ["keep" if word == "detect" else word for word in build.settings]
    for file in build.files:
        if file.offset != build.models.offset:
            arguments += [hex(file.offset), str(file.path)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace").strip()[-_SAID:]
        raise InputError("esptool cannot merge the build's files", where=build.folder, hint=said)
    image = bytearray(merged.read_bytes())
    end = build.models.offset + build.models.size
    size = build.flash_size or _flash_size_for(max(len(image), end))
    if max(len(image), end) > size:
        raise InputError(
            f"the files do not fit a flash of {size:,} bytes",
            where=build.folder,
            hint="CONFIG_ESPTOOLPY_FLASHSIZE is too small for partitions.csv: idf.py menuconfig",
        )
    image.extend(ERASED * (size - len(image)))
    image[build.models.offset : end] = pack.ljust(build.models.size, ERASED)
    return bytes(image)


def _flash_size_for(size: int) -> int:
    """The smallest flash QEMU emulates that holds this much."""
    return next(megabytes << 20 for megabytes in (2, 4, 8, 16, 32, 64, 128) if size <= megabytes << 20)


class QemuBoard(PtyBoard):
    """A chip in QEMU.

    Args:
        build: of the app, made for QEMU (``sdkconfig.defaults.qemu``).
        name: it was asked for by.
        more: further arguments for QEMU, before those of ``QUANT_QEMU_ARGS``.
    """

    def __init__(self, build: Build, *, name: str = "qemu", more: tuple[str, ...] = ()) -> None:
        super().__init__(name, build.chip)
        self.build = build
        self._more = (*more, *shlex.split(os.environ.get(ARGUMENTS_ENVIRONMENT, "")))
        self._running: _Running | None = None
        self._pack: bytes | None = None

    def open(self) -> None:
        """Starts QEMU with the build's own models, until `prepare` brings others."""
        if self._line is not None:
            return
        machine_of(self.build.chip)
        if not self.build.emulated:
            raise InputError(
                "this build would call QEMU's times measured",
                where=self.build.folder,
                expected="CONFIG_QUANT_EMULATED=y",
                hint=f"{BUILD_COMMAND}, in esp_idf_app",
            )
        self._open_line()
        os.set_blocking(self._device_line.device_end, False)
        try:
            models = self.build.models_file()
            (self._folder / "flash.bin").write_bytes(flash_image(self.build, models, self._folder))
            (self._folder / "efuse.bin").write_bytes(MACHINES[self.build.chip].efuse_image())
            self._run(models)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends QEMU."""
        self._stop()
        self._close_line()
        self._pack = None

    def prepare(self, pack: bytes) -> Prepared:
        """Gives the machine its pack; one that has it goes on running."""
        started = time.monotonic()
        if self._flashed() == pack:
            return Prepared(Work.NOTHING, "the flash has this pack already", time.monotonic() - started)
        self.build.fits(pack)
        self._stop()
        with (self._folder / "flash.bin").open("r+b") as flash:
            flash.seek(self.build.models.offset)
            flash.write(pack.ljust(self.build.models.size, ERASED))
        self._run(pack)
        return Prepared(Work.MODELS, "the flash had another pack", time.monotonic() - started)

    def hard_reset(self, line: SerialBase | None = None) -> None:
        """Resets the machine by QEMU's control socket."""
        if self._running is None:
            raise RuntimeError("the board is not open")
        self._running.reset()

    def power_cycle(self) -> None:
        """Ends QEMU and starts it again on the flash it left; the pseudo-terminal stays."""
        pack = self._flashed()
        self._stop()
        self._run(pack)

    def image_sha256(self) -> str:
        """Hash of the build's ELF."""
        return self.build.elf_sha.hex()

    def _flashed(self) -> bytes:
        if self._pack is None:
            raise RuntimeError("the board is not open")
        return self._pack

    def _run(self, pack: bytes) -> None:
        self._running = _Running(self.build.chip, self._folder, self._device_line, self._more)
        self._pack = pack

    def _stop(self) -> None:
        if self._running is not None:
            self._running.end()
        self._running = None


def make(build_dir: Path | None, app: Path) -> QemuBoard:
    """The board that ``--board qemu`` means.

    Raises:
        InputError: there is no build for it, or several.
    """
    return QemuBoard(load_build(find_build(("qemu",), build_dir, app, command=BUILD_COMMAND)))


class _Running:
    """A QEMU process, and the thread that joins its line to a pseudo-terminal.

    Raises:
        InputError: QEMU ends or does not open its line.
    """

    def __init__(self, chip: str, folder: Path, line: PtyLine, more: tuple[str, ...]) -> None:
        self._line = line
        self._qmp = folder / "qmp"
        self._qmp.unlink(missing_ok=True)
        self._log: IO[bytes] = (folder / "qemu.log").open("w+b")
        port = _free_port()
        command = qemu_command(chip, folder / "flash.bin", folder / "efuse.bin", port=port, qmp=self._qmp, more=more)
        self._command = command
        self._process = subprocess.Popen(
            [*_tied(), *command], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True
        )
        self._over = threading.Event()
        self._heard = True
        self._thread: threading.Thread | None = None
        try:
            self._socket = self._connect(port)
        except BaseException:
            self.end()
            raise
        self._thread = threading.Thread(target=self._carry, name="QEMU's line", daemon=True)
        self._thread.start()

    def reset(self) -> None:
        """QMP's ``system_reset``.

        Raises:
            InputError: QEMU does not answer.
        """
        try:
            with self._control() as control, control.makefile("rwb") as stream:
                stream.readline()  # QEMU introduces itself
                for command in ("qmp_capabilities", "system_reset"):
                    stream.write(json.dumps({"execute": command}).encode() + b"\n")
                    stream.flush()
                    _answer(stream, command)
        except (OSError, ValueError) as error:
            raise InputError(f"QEMU does not reset: {error}", hint=self._said() or None) from error

    def _control(self) -> socket.socket:
        """QMP's socket; QEMU makes it only after somebody has connected to the line."""
        control = socket.socket(socket.AF_UNIX)
        control.settimeout(_END_SECONDS)
        deadline = time.monotonic() + _END_SECONDS
        while True:
            try:
                control.connect(str(self._qmp))
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() < deadline and self._process.poll() is None:
                    time.sleep(0.02)
                    continue
                control.close()
                raise
            return control

    def end(self) -> None:
        """Ends QEMU and the thread; the second time it does nothing."""
        self._over.set()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._thread is not None:
            self._thread.join()
            self._socket.close()
            self._thread = None
        self._log.close()

    def _connect(self, port: int) -> socket.socket:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise InputError(
                    f"QEMU ended with {self._process.returncode} before it started the chip",
                    where=shlex.join(self._command),
                    hint=self._said() or None,
                )
            with contextlib.suppress(ConnectionRefusedError):
                connected = socket.create_connection(("127.0.0.1", port))
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connected.setblocking(False)
                return connected
            time.sleep(0.02)
        raise InputError(f"QEMU has not opened its line within {_START_SECONDS:g} s", hint=self._said() or None)

    def _carry(self) -> None:
        """Bytes in both directions, until QEMU or the board ends."""
        chip, host = self._socket, self._line.device_end
        to_chip = b""
        while not self._over.is_set():
            try:
                # A chip that hangs takes nothing; the host is then not read either, and nothing piles up here.
                readers: list[socket.socket | int] = [chip] if to_chip else [chip, host]
                readable, writable, _ = select.select(readers, [chip] if to_chip else [], [], 0.1)
                if writable:
                    to_chip = to_chip[chip.send(to_chip) :]
                if host in readable:
                    to_chip = os.read(host, _CHUNK)
                if chip in readable:
                    data = chip.recv(_CHUNK)
                    if not data:
                        return
                    self._to_host(data)
            except BlockingIOError:
                continue
            except OSError:
                return

    def _to_host(self, data: bytes) -> None:
        """Waits for a host that reads slowly; one that does not read at all is given up until it reads again."""
        host = self._line.device_end
        while data and not self._over.is_set():
            try:
                data = data[os.write(host, data) :]
                self._heard = True
            except BlockingIOError:
                if not self._heard:
                    return
                self._heard = bool(select.select([], [host], [], _UNREAD_SECONDS)[1])

    def _said(self) -> str:
        self._log.flush()
        with contextlib.suppress(OSError, ValueError):
            return Path(self._log.name).read_text(errors="replace").strip()[-_SAID:]
        return ""


def _answer(stream: Any, command: str) -> None:
    """Reads up to QMP's answer; events may come before it."""
    while True:
        line = stream.readline()
        if not line:
            raise ValueError("the control socket was closed")
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(f"{command}: {answer['error']}")
        if "return" in answer:
            return


def _tied() -> list[str]:
    """What starts a program that ends with this one, however this one ends: QEMU alone would run on for ever."""
    if sys.platform != "linux":
        return []
    code = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execvp(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-ISc", code]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
