"""A chip as esptool sees it: it can be connected to, says what it is, and has a flash.

pytest-embedded's ``IdfSerial`` and esptool's command line are the real ones; only what talks to silicon is replaced.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import pytest
import serial

from quant.boards.chip import NO_PACK, Reported
from quant.boards.flashing import Silicon
from quant.boards.pty_line import PtyLine, open_pty_line
from quant.wire.protocol import PACK_HEADER_SIZE
from tests.boards.fakes.builds import APP, MODELS, MODELS_SIZE


@dataclass
class FakeChip:
    """What is behind the port.

    Attributes:
        name: as esptool writes it.
        line: its port.
        events: connect, look, write OFFSET, reset: in their order.
        flash: its content.
        runs: whether the app runs, or the chip waits in its bootloader.
        broken: writes do not reach the flash.
        refusal: what its app says of every whole pack.
    """

    name: str = "ESP32"
    mac: bytes = bytes.fromhex("246f28aabbcc")
    revision: int = 301
    line: PtyLine = field(default_factory=open_pty_line)
    events: list[str] = field(default_factory=list)
    flash: bytearray = field(default_factory=lambda: bytearray(b"\xff" * (4 << 20)))
    runs: bool = True
    broken: bool = False
    refusal: str = ""

    @property
    def CHIP_NAME(self) -> str:  # noqa: N802
        return self.name

    @property
    def silicon(self) -> Silicon:
        return Silicon(self.name.lower().replace("-", ""), self.mac.hex(":"), self.revision)

    def load(self, build: Any, pack: bytes | None = None) -> None:
        """Puts a build into the flash, as if it had been flashed before."""
        for file in build.files:
            content = file.path.read_bytes()
            self.flash[file.offset : file.offset + len(content)] = content
        if pack is not None:
            self.flash[MODELS : MODELS + len(pack)] = pack

    def ask(self, port: str, baud: int) -> Reported | str:
        """What the app in the flash reports of itself."""
        self.events.append("ask")
        elf = bytes(self.flash[APP + 0xB0 : APP + 0xD0])
        if not self.runs or elf == b"\xff" * 32:
            return "no firmware of ours answered"
        size = int.from_bytes(self.flash[MODELS + 8 : MODELS + 12], "little")
        whole = self.flash[MODELS : MODELS + 4] == b"QPAK" and PACK_HEADER_SIZE <= size <= MODELS_SIZE
        pack = sha256(self.flash[MODELS + PACK_HEADER_SIZE : MODELS + size]).hexdigest() if whole else NO_PACK
        return Reported(elf.hex(), pack, self.silicon, self.refusal)

    # What pytest-embedded and esptool call.

    serial_port = "the fake"
    _port: Any = None

    def connect(self, *_: object, **__: object) -> None:
        self.events.append("connect")
        self.runs = False

    def read_mac(self, kind: str = "BASE_MAC") -> tuple[int, ...] | None:
        assert not self.runs, "fuses are read in the bootloader"
        self.events.append("look")
        return tuple(self.mac) if kind == "BASE_MAC" else None

    def get_chip_revision(self) -> int:
        assert not self.runs, "fuses are read in the bootloader"
        return self.revision

    def hard_reset(self, *_: object, **__: object) -> None:
        self.events.append("reset")
        self.runs = True


def plug_in(chip: FakeChip, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes this the chip esptool finds; the port's path."""
    import esptool  # type: ignore[import-untyped, unused-ignore]

    def connected(ports: list[str], *, port: str, chip: str, **_: object) -> FakeChip | None:
        assert ports == [port] == [found.line.path]
        if chip != found.name.lower().replace("-", ""):
            print(f"This chip is {found.name}, not {chip}. Wrong chip argument?")
            return None
        found._port = serial.serial_for_url(port)
        found.connect()
        return found

    def prepare(context: Any) -> None:
        context.obj["esp"] = found
        assert context.obj["chip"] == found.silicon.chip
        if context.obj["after"] == "hard-reset":
            context.call_on_close(found.hard_reset)

    def write(esp: FakeChip, files: list[tuple[int, Any]], **_: object) -> None:
        assert esp is found and not esp.runs
        for offset, file in files:
            content = file.read()
            found.events.append(f"write {offset:#x}")
            if not found.broken:
                sectors = -(-len(content) // 4096) * 4096
                found.flash[offset : offset + sectors] = content.ljust(sectors, b"\xff")

    found = chip
    monkeypatch.setattr(esptool, "get_default_connected_device", connected)
    monkeypatch.setattr(esptool, "prepare_esp_object", prepare)
    monkeypatch.setattr(esptool, "attach_flash", lambda *_, **__: None)
    monkeypatch.setattr(esptool, "write_flash", write)
    assert os.path.exists(chip.line.path)  # noqa: PTH110
    return chip.line.path
