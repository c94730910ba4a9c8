"""A chip is asked, looked at, and only then written, and only where something is missing."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import cast

import pytest
import serial

from quant.boards.bench import Bench
from quant.boards.board import Board, Work
from quant.boards.board_map import BoardEntry, Command, Revision
from quant.boards.build import Build, load_build
from quant.boards.chip import NO_PACK, ChipBoard, Expected, Reported, ask_board, pack_sha256, what_to_write
from quant.boards.flashing import Silicon
from quant.boards.pack import build_pack
from quant.boards.virtual.board import VirtualBoard
from quant.errors import InputError, LinkError
from quant.wire.protocol import PACK_HEADER_SIZE
from tests.boards.fakes.builds import MODELS, MODELS_SIZE, elf_sha, make_build
from tests.boards.fakes.chips import FakeChip, plug_in
from tests.runners.candidates import box_policy, quantize_policy

ALL_FILES = ["write 0x1000", "write 0x8000", "write 0x10000", "write 0x190000"]


def pack_of(content: bytes) -> bytes:
    """As far as identity goes, a pack: magic, size, hash of the content, content."""
    head = b"QPAK" + (1).to_bytes(2, "little") + bytes(2) + (64 + len(content)).to_bytes(4, "little") + bytes(4)
    return (head + sha256(content).digest()).ljust(64, b"\0") + content


PACK = pack_of(b"two tracks" * 100)


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return load_build(make_build(tmp_path / "app" / "build" / "esp32"))


@pytest.fixture
def chip() -> Iterator[FakeChip]:
    chip = FakeChip()
    yield chip
    chip.line.close()


def board_of(chip: FakeChip, build: Build, monkeypatch: pytest.MonkeyPatch, **entry: object) -> ChipBoard:
    known = BoardEntry("esp32", chip="esp32", **entry)  # type: ignore[arg-type]
    return ChipBoard(known, plug_in(chip, monkeypatch), build.folder.parents[1], ask=chip.ask)


def test_a_board_that_has_everything_is_not_touched(
    chip: FakeChip, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip.load(build, PACK)
    before = bytes(chip.flash)
    with board_of(chip, build, monkeypatch) as board:
        assert isinstance(board, Board)
        done = board.prepare(PACK)
    assert (done.wrote, chip.events) == (Work.NOTHING, ["ask"])
    assert bytes(chip.flash) == before


@pytest.mark.parametrize("had", [pack_of(b"another"), None])
def test_only_the_models_are_written_where_only_they_differ(
    chip: FakeChip, build: Build, monkeypatch: pytest.MonkeyPatch, had: bytes | None
) -> None:
    chip.load(build, had)
    before = bytes(chip.flash)
    with board_of(chip, build, monkeypatch) as board:
        done = board.prepare(PACK)
        assert board.prepare(PACK).wrote is Work.NOTHING
    assert done.wrote is Work.MODELS
    assert [event for event in chip.events if event.startswith("write")] == [f"write {MODELS:#x}"]
    assert bytes(chip.flash[MODELS : MODELS + len(PACK)]) == PACK
    assert bytes(chip.flash[:MODELS]) == before[:MODELS]
    assert chip.runs


@pytest.mark.parametrize("state", ["another image", "empty", "in its bootloader"])
def test_all_is_written_where_the_image_differs(
    chip: FakeChip, build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str
) -> None:
    if state != "empty":
        chip.load(load_build(make_build(tmp_path / state)), PACK)
    chip.runs = state != "in its bootloader"
    with board_of(chip, build, monkeypatch) as board:
        done = board.prepare(PACK)
    assert done.wrote is Work.IMAGE
    assert [event for event in chip.events if event.startswith("write")] == ALL_FILES
    assert chip.events.index("look") < chip.events.index("write 0x1000")
    reported = chip.ask("", 0)
    assert isinstance(reported, Reported)
    assert (reported.elf_sha256, reported.pack_sha256) == (elf_sha(build.folder).hex(), pack_sha256(PACK))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"mac": "24:6f:28:aa:bb:cd"}, "MAC 24:6f:28:aa:bb:cc"),
        ({"revision": Revision(0, 300)}, "revision v3.1"),
    ],
)
@pytest.mark.parametrize("chip", [FakeChip(), FakeChip(runs=False)], ids=["runs", "in its bootloader"])
def test_another_board_is_refused_before_anything_is_written(
    chip: FakeChip, build: Build, monkeypatch: pytest.MonkeyPatch, entry: dict[str, object], words: str
) -> None:
    chip.load(build)
    before = bytes(chip.flash)
    with board_of(chip, build, monkeypatch, where="boards.yaml:3", **entry) as board, pytest.raises(InputError) as info:
        board.prepare(PACK)
    assert words in str(info.value) and "boards.yaml:3" in str(info.value)
    assert bytes(chip.flash) == before
    assert not [event for event in chip.events if event.startswith("write")]
    assert chip.runs, "the chip was started again"


def test_another_board_is_refused_even_if_it_has_everything(
    chip: FakeChip, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip.load(build, PACK)
    with board_of(chip, build, monkeypatch, mac="24:6f:28:aa:bb:cd") as board, pytest.raises(InputError, match="MAC"):
        board.prepare(PACK)
    assert chip.events == ["ask"]


@pytest.mark.parametrize("runs", [True, False])
def test_another_kind_of_chip_is_refused(build: Build, monkeypatch: pytest.MonkeyPatch, runs: bool) -> None:
    chip = FakeChip(name="ESP32-S3", runs=runs)
    chip.load(build)
    with board_of(chip, build, monkeypatch) as board, pytest.raises(InputError) as info:
        board.prepare(PACK)
    assert "esp32s3" in str(info.value) or "ESP32-S3" in str(info.value)
    assert not [event for event in chip.events if event.startswith("write")]


@pytest.mark.parametrize("has_it", [True, False])
def test_a_pack_the_board_refuses_is_an_error_with_its_words(
    chip: FakeChip, build: Build, monkeypatch: pytest.MonkeyPatch, has_it: bool
) -> None:
    chip.load(build, PACK if has_it else None)
    chip.refusal = "the engine has no TANH"
    with board_of(chip, build, monkeypatch) as board, pytest.raises(InputError, match="refuses it: the engine has no"):
        board.prepare(PACK)
    assert [event for event in chip.events if event.startswith("write")] == ([] if has_it else [f"write {MODELS:#x}"])


def test_what_did_not_arrive_is_noticed(chip: FakeChip, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    chip.load(build)
    chip.broken = True
    with board_of(chip, build, monkeypatch) as board, pytest.raises(InputError, match="was written, but"):
        board.prepare(PACK)


@pytest.mark.parametrize("missing", ["esptool", "pytest_embedded_idf"])
def test_without_the_tools_the_error_says_what_to_install(
    chip: FakeChip, build: Build, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    with board_of(chip, build, monkeypatch) as board:
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(InputError, match=f"(?s)not installed: {missing}.*pip install"):
            board.prepare(PACK)


def test_a_pack_that_does_not_fit_is_refused(chip: FakeChip, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    with board_of(chip, build, monkeypatch) as board, pytest.raises(InputError, match="models partition"):
        board.prepare(bytes(MODELS_SIZE + 1))
    assert chip.events == ["ask"]


def test_builds_for_something_else_are_refused(
    chip: FakeChip, build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = make_build(tmp_path / "s3", "esp32s3")
    with board_of(chip, build, monkeypatch, build_dir=other) as board, pytest.raises(InputError, match="for esp32s3"):
        board.prepare(PACK)
    qemu = make_build(tmp_path / "qemu", emulated=True)
    with board_of(chip, build, monkeypatch, build_dir=qemu) as board, pytest.raises(InputError, match="for QEMU"):
        board.prepare(PACK)
    missing = board_of(chip, replace(build, folder=tmp_path / "no" / "such" / "app"), monkeypatch)
    with missing, pytest.raises(InputError, match="has not been built"):
        missing.prepare(PACK)


def test_pytest_embedded_gets_a_board_it_must_not_flash(
    chip: FakeChip, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    with board_of(chip, build, monkeypatch) as board:
        embedded = board.embedded()
    assert embedded.services == "esp,idf"
    assert embedded.options["skip_autoflash"] == "y"
    assert embedded.options["build_dir"] == str(build.folder)
    assert embedded.options["target"] == "esp32"


def test_a_port_has_one_owner(chip: FakeChip, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    with board_of(chip, build, monkeypatch) as board:
        with pytest.raises(InputError, match="in use by process"):
            board_of(chip, build, monkeypatch).open()
        board.close()
        with board_of(chip, build, monkeypatch):
            pass


def test_the_commands_of_the_bench_run(
    chip: FakeChip, build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    code = f"import os; open({str(log)!r}, 'a').write('{{}} ' + os.environ['QUANT_BOARD'] + '\\n')"
    commands = {
        key: Command((sys.executable, "-c", code.format(key)), 30, "boards.yaml")
        for key in ("pre", "post", "power_cycle")
    }
    with board_of(chip, build, monkeypatch, **commands) as board:
        board.power_cycle()
    assert log.read_text().split() == ["pre", "esp32", "power_cycle", "esp32", "post", "esp32"]
    with board_of(chip, build, monkeypatch) as bare, pytest.raises(InputError, match="switch this board's power"):
        bare.power_cycle()


def test_a_port_that_is_not_there_is_an_error_and_frees_the_lock(tmp_path: Path, build: Build) -> None:
    board = ChipBoard(BoardEntry("esp32", chip="esp32"), str(tmp_path / "ttyUSB0"), tmp_path)
    for _ in range(2):
        with pytest.raises(InputError, match="no such port"):
            board.open()


@pytest.fixture(scope="module")
def real_pack() -> bytes:
    return build_pack((replace(quantize_policy(box_policy()), track="ptq"),))


def test_the_firmware_itself_reports_what_is_compared(real_pack: bytes, build: Build) -> None:
    with VirtualBoard() as board:
        empty = ask_board(board.port, board.baud)
        board.prepare(real_pack)
        full = ask_board(board.port, board.baud)
    assert isinstance(empty, Reported) and isinstance(full, Reported)
    assert (empty.pack_sha256, full.pack_sha256) == (NO_PACK, pack_sha256(real_pack))
    assert (full.elf_sha256, full.silicon.chip) == (empty.elf_sha256, "virtual")
    assert full.silicon.mac.startswith("02:")
    ours = replace(build, elf_sha=bytes.fromhex(full.elf_sha256))
    assert what_to_write(empty, ours, real_pack)[0] is Work.MODELS
    assert what_to_write(full, ours, real_pack)[0] is Work.NOTHING
    assert what_to_write(full, ours, PACK)[0] is Work.MODELS
    assert what_to_write(full, build, real_pack)[0] is Work.IMAGE


def test_a_damaged_pack_is_no_pack(real_pack: bytes) -> None:
    with VirtualBoard(real_pack[:-1] + bytes([real_pack[-1] ^ 1])) as board:
        reported = ask_board(board.port, board.baud)
    assert isinstance(reported, Reported) and reported.pack_sha256 == NO_PACK


def test_a_whole_pack_the_engine_refuses_is_told_apart(real_pack: bytes) -> None:
    slot = PACK_HEADER_SIZE + 108  # the embedding's scale: not that of the models' tensors
    content = real_pack[PACK_HEADER_SIZE:slot] + struct.pack("<f", 0.123) + real_pack[slot + 4 :]
    lying = real_pack[:16] + sha256(content).digest() + real_pack[48:PACK_HEADER_SIZE] + content
    with VirtualBoard(lying) as board:
        reported = ask_board(board.port, board.baud)
    assert isinstance(reported, Reported)
    assert reported.pack_sha256 == pack_sha256(lying) and reported.refusal


def test_silence_is_no_error_but_a_reason_to_flash(chip: FakeChip, build: Build) -> None:
    reported = ask_board(chip.line.path, 921600)
    assert isinstance(reported, str)
    assert what_to_write(reported, build, PACK)[0] is Work.IMAGE


def test_a_port_that_cannot_be_asked_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="no such port"):
        ask_board(str(tmp_path / "ttyUSB0"), 921600)


class AutoReset:
    """The two transistors of a development board: what DTR and RTS do to a chip's EN and IO0.

    Both asserted or neither: both pins high. DTR alone pulls IO0, RTS alone EN. IO0 is read when EN rises.
    """

    name = port = "the fake"

    def __init__(self, dtr: bool, rts: bool) -> None:
        self._lines = (dtr, rts)
        self.boots: list[str] = []

    @property
    def dtr(self) -> bool:
        return self._lines[0]

    @dtr.setter
    def dtr(self, asserted: bool) -> None:
        self._drive(asserted, self._lines[1])

    def setDTR(self, asserted: bool) -> None:  # noqa: N802
        self._drive(asserted, self._lines[1])

    def setRTS(self, asserted: bool) -> None:  # noqa: N802
        self._drive(self._lines[0], asserted)

    def _drive(self, dtr: bool, rts: bool) -> None:
        was_reset, is_reset = self._lines == (False, True), (dtr, rts) == (False, True)
        if was_reset and not is_reset:
            self.boots.append("bootloader" if (dtr, rts) == (True, False) else "app")
        self._lines = (dtr, rts)

    def isOpen(self) -> bool:  # noqa: N802
        return True

    def __enter__(self) -> AutoReset:
        return self

    def __exit__(self, *_: object) -> None:
        self._drive(False, False)


@pytest.mark.parametrize("dtr", [False, True])
@pytest.mark.parametrize("rts", [False, True])
def test_a_hard_reset_starts_the_app_whatever_the_lines_were(
    chip: FakeChip, build: Build, monkeypatch: pytest.MonkeyPatch, dtr: bool, rts: bool
) -> None:
    line = AutoReset(dtr, rts)
    with board_of(chip, build, monkeypatch) as board:
        board.hard_reset(cast(serial.SerialBase, line))
        opened = AutoReset(True, True)  # as Linux leaves them on opening
        monkeypatch.setattr(serial, "serial_for_url", lambda *_, **__: opened)
        board.hard_reset()
    assert set(line.boots) == set(opened.boots) == {"app"}


REPORTED = Reported("11" * 32, "22" * 32, Silicon("esp32", "24:6f:28:aa:bb:cc", 301))


def test_expectations() -> None:
    found = REPORTED.silicon
    Expected().check(found)
    Expected("esp32", found.mac, Revision(301, 301)).check(found)
    for wrong in (Expected("esp32s3"), Expected(mac="24:6f:28:aa:bb:cd"), Expected(revision=Revision(302, 999))):
        with pytest.raises(InputError, match="nothing was written"):
            wrong.check(found)


def test_why_says_what_the_board_had(build: Build) -> None:
    assert what_to_write("silence", build, PACK) == (Work.IMAGE, "silence")
    work, why = what_to_write(REPORTED, build, PACK)
    assert work is Work.IMAGE and "1111111111111111" in why and build.elf_sha.hex()[:16] in why
    same = replace(REPORTED, elf_sha256=build.elf_sha.hex())
    work, why = what_to_write(same, build, PACK)
    assert work is Work.MODELS and "2222222222222222" in why


def test_what_answers_is_held_to_what_is_known_of_the_board() -> None:
    """Also where nothing is written: a virtual board at the port of a bench's ESP32 is not timed as one."""
    with VirtualBoard(build_pack([quantize_policy(box_policy(1))])) as other:
        known = BoardEntry("truck1", chip="esp32", mac="24:6f:28:aa:bb:cc")
        with pytest.raises(InputError, match="another board: virtual"), Bench(ChipBoard(known, other.port, Path())):
            pass
        with Bench(ChipBoard(BoardEntry("board"), other.port, Path())) as bench:
            assert bench.device.identity.chip == "virtual"
