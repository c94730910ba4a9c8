"""Writing to a chip: pytest-embedded's own ``IdfSerial`` and, under it, esptool.

The chip is looked at before anything is written, and what was looked at is the chip that is then written: one
connection does both.
"""

from __future__ import annotations

import copy
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quant.boards.board import Work
from quant.boards.build import Build
from quant.errors import InputError

if TYPE_CHECKING:
    from serial import SerialBase

_SAID = 1500
"""Characters of esptool's words that an error carries."""


@dataclass(frozen=True)
class Silicon:
    """What a chip's ROM and fuses say it is.

    Attributes:
        chip: ``esp32``, ``esp32s3``, ...
        mac: base MAC in lower case with colons.
        revision: ``100 * major + minor``.
    """

    chip: str
    mac: str
    revision: int


class _Transcript(io.StringIO):
    """What esptool and the chip say while they are at it, where pytest-embedded expects its message queue."""

    def put(self, said: str | bytes) -> None:
        self.write(said.decode(errors="replace") if isinstance(said, bytes) else said)


def write(build: Build, pack: bytes, work: Work, *, port: str, baud: int, check: Callable[[Silicon], None]) -> None:
    """Writes an image with its models, or the models alone, and starts the chip.

    Args:
        build: what is flashed.
        pack: goes to the models partition instead of the build's own file.
        work: ``Work.IMAGE`` or ``Work.MODELS``.
        port: of the chip; nobody else has it open.
        baud: the app's line runs at.
        check: raises an `InputError` where the chip is not the one that may be written; nothing was written then, and
            the chip was started again.

    Raises:
        InputError: ``check``'s, or the chip cannot be reached, is of another kind, or was not written.
    """
    _require_tools()
    transcript = _Transcript()
    with tempfile.TemporaryDirectory(prefix="quant-") as folder:
        file = Path(folder) / "models.bin"
        file.write_bytes(pack)
        try:
            serial = _connect(build, port, baud, transcript)
        except (Exception, SystemExit) as error:
            raise _failure("the chip cannot be reached", port, error, transcript) from error
        try:
            silicon = _look(serial, port, transcript)
            try:
                check(silicon)
            except BaseException:
                serial.hard_reset()
                raise
            _write(serial, _files(serial.app, build, file, work), port, transcript)
        finally:
            serial.close()


def hard_reset(line: SerialBase, *, native_usb: bool = False) -> None:
    """Resets a chip by the control lines of its open port, as esptool does.

    Args:
        line: the open port.
        native_usb: the port is the chip's own USB, which goes away meanwhile.
    """
    from esptool.reset import HardReset  # type: ignore[import-untyped, unused-ignore]

    # On development boards RTS resets only while DTR is not asserted, and esptool's pulse is one of RTS alone.
    line.dtr = False
    HardReset(line, uses_usb=native_usb)()


def _require_tools() -> None:
    try:
        import esptool  # type: ignore[import-untyped, unused-ignore]  # noqa: F401
        import pytest_embedded_idf  # type: ignore[import-untyped, unused-ignore]  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"what flashes chips is not installed: {error.name}",
            expected="esptool, pytest-embedded-idf and pytest-embedded-serial-esp",
            hint="pip install 'quant[bench]'",
        ) from error


def _connect(build: Build, port: str, baud: int, transcript: _Transcript) -> Any:
    from pytest_embedded_idf import IdfApp, IdfSerial  # type: ignore[import-untyped, unused-ignore]

    app = IdfApp(app_path=str(build.folder), build_dir=str(build.folder))
    return IdfSerial(
        app=app,
        target=build.chip,
        port=port,
        baud=baud,
        skip_autoflash=True,
        pexpect_proc=None,
        msg_queue=transcript,
        ports_to_occupy=[],
    )


def _look(serial: Any, port: str, transcript: _Transcript) -> Silicon:
    from pytest_embedded_serial_esp import EspSerial  # type: ignore[import-untyped, unused-ignore]

    @EspSerial.use_esptool()  # type: ignore[untyped-decorator, unused-ignore]
    def look(serial: Any) -> Silicon:
        esp = serial.esp
        chip = esp.CHIP_NAME.lower().replace("-", "")
        return Silicon(chip, ":".join(f"{byte:02x}" for byte in esp.read_mac("BASE_MAC")), esp.get_chip_revision())

    try:
        found: Silicon = look(serial)
    except (Exception, SystemExit) as error:
        raise _failure("the chip does not say what it is", port, error, transcript) from error
    return found


def _files(app: Any, build: Build, models: Path, work: Work) -> Any:
    """A copy of pytest-embedded's app whose models are ours, and alone where only they are written."""
    made = copy.copy(app)
    made.flash_files = [
        file._replace(file_path=str(models), encrypted=False) if file.offset == build.models.offset else file
        for file in app.flash_files
        if work is Work.IMAGE or file.offset == build.models.offset
    ]
    return made


def _write(serial: Any, app: Any, port: str, transcript: _Transcript) -> None:
    try:
        serial.flash(app)
    except (Exception, SystemExit) as error:
        raise _failure("the chip was not written", port, error, transcript) from error


def _failure(what: str, port: str, error: BaseException, transcript: _Transcript) -> InputError:
    said = f"{transcript.getvalue().strip()}\n{error}".strip()
    return InputError(
        what,
        where=port,
        expected="a chip in reach, in a mode it can be flashed in",
        hint=f"docs/troubles.md; esptool: {said[-_SAID:]}",
    )
