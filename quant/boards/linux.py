"""The app built for ESP-IDF's ``linux`` target, as a board: a process behind a pseudo-terminal.

A supervisor does for the process what a chip does for itself: whenever it ends, by a panic, a restart or its watchdog,
it is started again and told why. The line outlives it, as a USB bridge outlives a chip's reset.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from quant.boards.board import Prepared, Work
from quant.boards.build import FLASH_FILES, MODELS, build_folders
from quant.boards.pty_board import PtyBoard
from quant.boards.pty_line import PtyLine
from quant.errors import InputError
from quant.files import sha256, write_bytes

if TYPE_CHECKING:
    from serial import SerialBase

ELF_ENVIRONMENT = "QUANT_LINUX_ELF"
"""Names the app's ELF where no option and no board map does."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_LIVED = 5.0
"""Seconds a process has to live for the next restart to be at once again."""


class Supervisor:
    """Keeps a command running on the far end of a line, restarting it as a chip restarts.

    Restarts are bounded in rate: the pause before each doubles, from 0.05 to 2 s, until a process has lived 5 s.

    Args:
        command: program and arguments.
        line: its standard input, output and error.
        environment: gives the process's environment at each start.
    """

    def __init__(self, command: list[str], line: PtyLine, environment: Callable[[], dict[str, str]]) -> None:
        self._command = command
        self._line = line
        self._environment = environment
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self.restarts = 0

    def start(self) -> None:
        """Starts the process for the first time, and the thread that restarts it.

        Raises:
            InputError: it cannot be started.
        """
        self._process = self._spawn(None)
        self._thread = threading.Thread(target=self._watch, name="board supervisor", daemon=True)
        self._thread.start()

    def reset(self) -> None:
        """Ends the process and starts a new one, which finds no reset reason, as after power-on.

        Raises:
            InputError: it cannot be started.
        """
        with self._lock:
            self._end(self._process)
            self._process = self._spawn(None)

    def stop(self) -> None:
        """Ends the process for good."""
        self._over.set()
        with self._lock:
            self._end(self._process)
            self._process = None
        if self._thread is not None:
            self._thread.join()

    def _spawn(self, reason: str | None) -> subprocess.Popen[bytes]:
        environment = self._environment()
        environment.pop("QUANT_RESET_REASON", None)
        if reason is not None:
            environment["QUANT_RESET_REASON"] = reason
        self._line.drop_input()
        end = self._line.device_end
        try:
            # A session of its own: a Ctrl-C for the tests does not reach it, and its children end with it.
            return subprocess.Popen(
                self._command, stdin=end, stdout=end, stderr=end, env=environment, start_new_session=True
            )
        except OSError as error:
            raise InputError(
                f"cannot be started: {error.strerror}",
                where=self._command[0],
                expected="the app's ELF for ESP-IDF's linux target, executable here",
            ) from error

    def _watch(self) -> None:
        pause, started = _FIRST_PAUSE, time.monotonic()
        while not self._over.wait(0.01):
            with self._lock:
                process = self._process
            if process is None or process.poll() is None:
                continue
            pause = _FIRST_PAUSE if time.monotonic() - started > _LIVED else min(2 * pause, _LONGEST_PAUSE)
            if self._over.wait(pause):
                return
            with self._lock:
                if self._process is process:
                    self._end(process)
                    with contextlib.suppress(InputError):  # the ELF is being built anew: later
                        self._process = self._spawn(reset_reason(process.returncode))
                        self.restarts += 1
            started = time.monotonic()

    @staticmethod
    def _end(process: subprocess.Popen[bytes] | None) -> None:
        """Ends the process and what it started, by their group; a reset button does not ask either."""
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def reset_reason(code: int) -> str:
    """Why a chip would say it was reset, of a process's end.

    Args:
        code: as ``Popen.returncode``: an exit code, or the negative of the signal.
    """
    if code == -signal.SIGALRM:
        return "task watchdog"
    return "software" if code >= 0 else "panic"


class LinuxBoard(PtyBoard):
    """The app as a process of this machine.

    Args:
        elf: the app, built for the linux target.
        mac: what it says its MAC is (``QUANT_MAC``), or its own default.
        name: it was asked for by.
    """

    def __init__(self, elf: Path, *, mac: str | None = None, name: str = "linux") -> None:
        super().__init__(name, "linux")
        self.elf = elf
        self._mac = mac
        self._supervisor: Supervisor | None = None
        self._pack: str | None = None

    @property
    def restarts(self) -> int:
        """How often the process ended by itself and was started again."""
        return 0 if self._supervisor is None else self._supervisor.restarts

    def open(self) -> None:
        """Starts the process, without models until `prepare`."""
        if self._line is not None:
            return
        if not self.elf.is_file():
            raise InputError("no such file", where=self.elf, expected="the app's ELF for ESP-IDF's linux target")
        self._open_line()
        self._pack = None
        self._supervisor = Supervisor([str(self.elf.resolve())], self._device_line, self._environment)
        try:
            self._supervisor.start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the process."""
        if self._supervisor is not None:
            self._supervisor.stop()
        self._supervisor = None
        self._close_line()

    def prepare(self, pack: bytes) -> Prepared:
        """Gives the process its pack; a process that has it goes on running."""
        started = time.monotonic()
        supervisor, digest = self._running(), sha256(pack)
        if digest == self._pack:
            return Prepared(Work.NOTHING, "the process has this pack already", time.monotonic() - started)
        why = "the process had no models" if self._pack is None else "the process had another pack"
        # A new file in place of the old one, which the process has mapped.
        write_bytes(self._models(), pack)
        self._pack = digest
        supervisor.reset()
        return Prepared(Work.MODELS, why, time.monotonic() - started)

    def hard_reset(self, line: SerialBase | None = None) -> None:
        """Starts a new process on the same line."""
        self._running().reset()

    def power_cycle(self) -> None:
        """The same as a hard reset: a process has no power of its own."""
        self._running().reset()

    def image_sha256(self) -> str:
        """Hash of the ELF."""
        return sha256(self.elf.read_bytes())

    def _models(self) -> Path:
        return self._folder / f"{MODELS}.bin"

    def _running(self) -> Supervisor:
        if self._supervisor is None:
            raise RuntimeError("the board is not open")
        return self._supervisor

    def _environment(self) -> dict[str, str]:
        environment = {key: value for key, value in os.environ.items() if key != "QUANT_MODELS"}
        if self._pack is not None:
            environment["QUANT_MODELS"] = str(self._models())
        if self._mac is not None:
            environment["QUANT_MAC"] = self._mac
        return environment


def make(build_dir: Path | None, app: Path) -> LinuxBoard:
    """The board that ``--board linux`` means.

    Raises:
        InputError: there is no ELF for it, see `find_elf`.
    """
    return LinuxBoard(find_elf(build_dir, app))


def find_elf(given: Path | None, app: Path) -> Path:
    """The app's ELF: the one given (or the only one of the build folder given), the environment's, or the app's build.

    Args:
        given: an ELF or a build folder, or None.
        app: the ESP-IDF project, whose ``build_linux``, ``build/linux`` and ``build`` are looked at last.

    Raises:
        InputError: there is none, or several, or the build is for a chip.
    """
    named = os.environ.get(ELF_ENVIRONMENT)
    place = given or (Path(named) if named else _built(app))
    if place.is_file():
        return place
    elves = sorted(place.glob("*.elf"))
    if len(elves) == 1 and not (place / FLASH_FILES).exists():
        return elves[0]
    if (place / FLASH_FILES).exists():
        what = "a build for a chip"
    else:
        what = f"{len(elves)} ELF files" if elves else "no ELF file"
    raise InputError(
        what,
        where=place,
        expected="the app built for ESP-IDF's linux target",
        hint=f"idf.py --preview -B build_linux set-target linux build, then --build-dir or {ELF_ENVIRONMENT}",
    )


def _built(app: Path) -> Path:
    folders = build_folders(("linux",), app)
    fitting = (folder for folder in folders if folder.is_dir() and not (folder / FLASH_FILES).exists())
    return next((folder for folder in fitting if any(folder.glob("*.elf"))), folders[0])
