"""A chip on a serial port, as a board: asked what it runs before anything is written to it.

The port is opened without resetting the chip. Where HELLO reports the build's own ELF and MODELS the pack that is
wanted, nothing is touched; where only the pack differs, only the models partition is written. Chip, MAC and revision
are checked on HELLO's word, and once more on the silicon's before the first byte is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from quant.boards import flashing, ports
from quant.boards.board import Board, Embedded, Prepared, Work
from quant.boards.board_map import BoardEntry, Command, Revision, revision_words
from quant.boards.build import Build, find_build, load_build
from quant.boards.flashing import Silicon
from quant.boards.lock import PortLock
from quant.errors import InputError, LinkError, QuantError
from quant.wire.protocol import DEFAULT_BAUD, PACK_HEADER_SIZE

if TYPE_CHECKING:
    from serial import SerialBase

    from quant.wire.messages import HelloReply

_ASK_SECONDS = 0.5
_ASK_RETRIES = 2
_BOOT_SECONDS = 15.0
_BOOT_PAUSE = 0.2
_PORT_SECONDS = 15.0
_ESPRESSIF_USB = 0x303A
PROCESSES = ("virtual", "linux")
"""What boards that are processes call their chips; whoever started one gave it its models."""
NO_PACK = "0" * 64
"""The hash of a pack that is not there."""


@dataclass(frozen=True)
class Reported:
    """What a board's firmware says of itself.

    Attributes:
        elf_sha256: of the image, in hexadecimal.
        pack_sha256: of the pack, in hexadecimal; `NO_PACK` where it has none that is whole.
        silicon: the chip it runs on.
        refusal: why it does not run the models of a whole pack, in its words; empty where it runs them or has none.
    """

    elf_sha256: str
    pack_sha256: str
    silicon: Silicon
    refusal: str = ""


Ask = Callable[[str, int], Reported | str]
"""Port and baud to what the board reports, or why nothing of ours answers."""


@dataclass(frozen=True)
class Expected:
    """Which chip a board has to be; None where any will do.

    Attributes:
        chip: its kind.
        mac: base MAC in lower case with colons.
        revision: of the chip.
        where: the board map's line, or the option, that says so.
    """

    chip: str | None = None
    mac: str | None = None
    revision: Revision | None = None
    where: str = "--board"

    def check(self, found: Silicon) -> None:
        """Compares.

        Raises:
            InputError: it is another one.
        """
        if self.chip is not None and found.chip != self.chip:
            raise self._other(f"{found.chip} with MAC {found.mac}", self.chip)
        if self.mac is not None and found.mac != self.mac:
            raise self._other(f"{found.chip} with MAC {found.mac}", f"MAC {self.mac}")
        if self.revision is not None and found.revision not in self.revision:
            raise self._other(f"revision {revision_words(found.revision)}", f"revision {self.revision}")

    def _other(self, found: str, expected: str) -> InputError:
        return InputError(
            f"the port leads to another board: {found}; nothing was written",
            where=self.where,
            expected=expected,
            hint="check the cable and the port, or mend the board map",
        )


def what_to_write(reported: Reported | str, build: Build, pack: bytes) -> tuple[Work, str]:
    """What a board still needs, and why.

    Args:
        reported: by the board, or why it does not.
        build: it has to run.
        pack: it has to have.
    """
    if isinstance(reported, str):
        return Work.IMAGE, reported
    if reported.elf_sha256 != build.elf_sha.hex():
        return Work.IMAGE, f"it ran the image {reported.elf_sha256[:16]}, the build is {build.elf_sha.hex()[:16]}"
    if reported.pack_sha256 == pack_sha256(pack):
        return Work.NOTHING, "it runs this image and has this pack"
    had = "no whole pack" if reported.pack_sha256 == NO_PACK else f"the pack {reported.pack_sha256[:16]}"
    return Work.MODELS, f"it ran this image with {had}"


def pack_sha256(pack: bytes) -> str:
    """What MODELS reports of this pack: the hash of all that follows its header."""
    return sha256(pack[PACK_HEADER_SIZE:]).hexdigest()


def ask_board(port: str, baud: int) -> Reported | str:
    """HELLO and MODELS over a port of one's own, which resets no chip.

    Raises:
        LinkError: the port is missing, in use, or not ours to open.
    """
    from quant.wire.link import Link
    from quant.wire.messages import HelloRequest, ModelsRequest
    from quant.wire.protocol import PackStatus
    from quant.wire.streams import PyserialStream

    link = Link(PyserialStream(port, baud), timeout=_ASK_SECONDS, retries=_ASK_RETRIES)
    try:
        hello, models = link.request(HelloRequest()), link.request(ModelsRequest())
    except QuantError as error:
        return f"no firmware of ours answered: {error.what}"
    finally:
        link.close()
    # A pack that is not whole has no hash there; a whole one can still be of no use to this image.
    refused = models.status is not PackStatus.OK and models.sha256 != NO_PACK
    return Reported(hello.elf_sha256, models.sha256, _silicon(hello), models.words if refused else "")


def _silicon(hello: HelloReply) -> Silicon:
    return Silicon(hello.chip.replace("-", "").lower(), hello.mac.lower(), hello.chip_revision)


class ChipBoard(Board):
    """A chip.

    Args:
        entry: what is known of it: the board map's entry, or one made of the options.
        port: what pyserial opens.
        app: the ESP-IDF project, whose build is flashed where the entry names none.
        wait: seconds to wait for the port's lock.
        ask: how the board is asked what it runs.
    """

    def __init__(self, entry: BoardEntry, port: str, app: Path, *, wait: float = 0.0, ask: Ask = ask_board) -> None:
        self.name = entry.name
        self.chip: str | None = entry.chip
        self.baud = entry.baud or DEFAULT_BAUD
        self.entry = entry
        self._app = app
        self._ask = ask
        self._lock = PortLock(port, wait=wait)
        self._open = False

    @property
    def port(self) -> str:
        """The serial port."""
        if not self._open:
            raise RuntimeError("the board is not open")
        return self._lock.port

    def open(self) -> None:
        """Takes the port's lock and runs the ``pre`` command; the chip is not touched."""
        if self._open:
            return
        self._lock.acquire()
        try:
            self._command(self.entry.pre)
            self._await_port()
        except BaseException:
            self._lock.release()
            raise
        self._open = True

    def close(self) -> None:
        """Runs the ``post`` command and gives the port back."""
        if not self._open:
            return
        self._open = False
        try:
            self._command(self.entry.post)
        finally:
            self._lock.release()

    def prepare(self, pack: bytes) -> Prepared:
        """Writes what is missing, then asks the board whether it has it."""
        started = time.monotonic()
        reported = self._ask(self.port, self.baud)
        expected = self._expected()
        if isinstance(reported, Reported):
            expected.check(reported.silicon)
            if reported.silicon.chip in PROCESSES:
                raise InputError(
                    f"a {reported.silicon.chip} board is behind this port, which cannot be written",
                    where=self.port,
                    hint="--board virtual, or quant board serve RUN and no RUN here",
                )
        build = self.build(reported.silicon.chip if isinstance(reported, Reported) else None)
        self.chip = build.chip
        build.fits(pack)
        work, why = what_to_write(reported, build, pack)
        if work is not Work.NOTHING:
            flashing.write(build, pack, work, port=self.port, baud=self.baud, check=expected.check)
            reported = self._confirm(build, pack)
        if isinstance(reported, Reported) and reported.refusal:
            raise InputError(
                f"the board has the pack and refuses it: {reported.refusal}",
                where=self.port,
                hint="a pack of this version of quant, and an image that has the operators of its models",
            )
        return Prepared(work, why, time.monotonic() - started)

    def build(self, chip: str | None = None) -> Build:
        """The build that belongs on it.

        Args:
            chip: the chip found, where the board was asked for without naming one.

        Raises:
            InputError: there is none, or it is for another chip, or for QEMU.
        """
        chip = self.chip or chip
        if chip is None and self.entry.build_dir is None:
            raise InputError(
                "nothing says which chip this is", where=self._lock.port, hint="name it: --board esp32, or --build-dir"
            )
        build = load_build(find_build((chip,) if chip else (), self.entry.build_dir, self._app))
        if chip is not None and build.chip != chip:
            raise InputError(f"a build for {build.chip}", where=build.folder, expected=f"one for {chip}")
        if build.emulated:
            raise InputError(
                "a build for QEMU: the chip would call its times emulated",
                where=build.folder,
                expected="CONFIG_QUANT_EMULATED not set",
            )
        return build

    def hard_reset(self, line: SerialBase | None = None) -> None:
        """Pulls the chip's reset line by its port's control lines."""
        if line is not None:
            flashing.hard_reset(line, native_usb=self._native_usb())
            return
        import serial

        with serial.serial_for_url(self.port, self.baud) as opened:
            flashing.hard_reset(opened, native_usb=self._native_usb())

    def power_cycle(self) -> None:
        """Runs the board map's ``power_cycle`` command and waits for the port to come back."""
        if self.entry.power_cycle is None:
            raise InputError(
                "nothing here can switch this board's power",
                where=self.entry.where or self.name,
                expected="power_cycle: a command, in the board map",
            )
        self._command(self.entry.power_cycle)
        self._await_port()

    def embedded(self) -> Embedded:
        """Pytest-embedded's esp and idf services; flashing was `prepare`'s."""
        options = {"port": self.port, "baud": str(self.baud), "skip_autoflash": "y"}
        build = self.build()
        options |= {"app_path": str(self._app), "build_dir": str(build.folder), "target": build.chip}
        return Embedded("esp,idf", options)

    def image_sha256(self) -> str:
        """Hash of the build's ELF.

        Raises:
            InputError: see `build`.
        """
        return self.build().elf_sha.hex()

    def check(self, hello: HelloReply) -> None:
        """Compares chip, MAC and revision with what is known of the board."""
        self._expected().check(_silicon(hello))

    def _expected(self) -> Expected:
        return Expected(self.chip, self.entry.mac, self.entry.revision, self.entry.where or f"--board {self.name}")

    def _confirm(self, build: Build, pack: bytes) -> Reported | str:
        """Asks until the chip has started; what was written has to be what it reports."""
        deadline = time.monotonic() + _BOOT_SECONDS
        while True:
            time.sleep(_BOOT_PAUSE)
            try:
                reported = self._ask(self.port, self.baud)
            except LinkError as error:  # a chip's own USB goes away while it starts
                reported = str(error.what)
            work, why = what_to_write(reported, build, pack)
            if work is Work.NOTHING:
                return reported
            # A chip that has started says at once what it has: no answer is worth waiting for, a wrong one is not.
            if isinstance(reported, Reported) or time.monotonic() > deadline:
                raise InputError(f"the board was written, but {why}", where=self.port, hint="docs/troubles.md")

    def _command(self, command: Command | None) -> None:
        if command is not None:
            command.run({"QUANT_BOARD": self.name, "QUANT_PORT": self._lock.port})

    def _await_port(self) -> None:
        port = self._lock.port
        if "://" in port:
            return
        deadline = time.monotonic() + (_PORT_SECONDS if self._switched() else 0)
        while not Path(port).exists():
            if time.monotonic() > deadline:
                raise InputError(
                    "there is no such port",
                    where=port,
                    expected="the port of a board that is plugged in",
                    hint="quant board list shows the ports",
                )
            time.sleep(0.1)

    def _switched(self) -> bool:
        """A board whose power is switched takes its time to appear."""
        return self.entry.pre is not None or self._open

    def _native_usb(self) -> bool:
        return ports.usb_vendor(self._lock.port) == _ESPRESSIF_USB
