"""Every word of a board map is checked, and a wrong one is named with its line; the board that is meant is found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from quant.boards.board_map import ENVIRONMENT, BoardMap, Command, Revision, find_board_map, load_board_map
from quant.boards.chip import ChipBoard
from quant.boards.discovery import BoardRequest, find_board
from quant.boards.kinds import KINDS
from quant.boards.linux import LinuxBoard
from quant.boards.ports import plugged_in, usb_vendor
from quant.boards.qemu import QemuBoard
from quant.errors import InputError
from tests.boards.fakes.builds import make_build

EXAMPLE = Path(__file__).parents[2] / "examples" / "boards.yaml"


def written(folder: Path, text: str) -> Path:
    path = folder / "boards.yaml"
    path.write_text(text)
    return path


def test_the_example_is_right() -> None:
    boards = load_board_map(EXAMPLE).boards
    assert list(boards) == ["car-esp32", "desk-s3", "rack-c3"]
    car, desk, rack = boards.values()
    assert (car.chip, car.mac, car.baud, car.fixtures) == ("esp32", "24:6f:28:aa:bb:cc", 921600, ("can-bus",))
    assert car.revision is not None and 301 in car.revision and 299 not in car.revision
    assert car.power_cycle is not None
    assert " ".join(car.power_cycle.words) == "uhubctl --location 1-1 --ports 2 --action cycle --delay 2"
    assert len(car.power_cycle.words) == 9
    assert desk.build_dir is not None and desk.build_dir.resolve() == EXAMPLE.parents[1] / "esp_idf_app/build/esp32s3"
    assert desk.pre is not None and (desk.pre.words, desk.pre.seconds) == (("relay", "on", "3"), 20)
    assert rack.port == "rfc2217://rack.example:4000"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("boards:\n  a:\n    chp: esp32\n", 3, r"boards\.a\.chp: no such key.*chip, mac"),
        ("boards:\n  a:\n    chip: esp33\n", 3, r"boards\.a\.chip: no chip of ours: esp33.*esp32s3"),
        ("boards:\n  a:\n    chip: [esp32]\n", 3, r"a list where text belongs"),
        ("boards:\n  a:\n    mac: 24:6f:28:aa:bb\n", 3, r"not a MAC: 24:6f:28:aa:bb.*six bytes"),
        ("boards:\n  a:\n    mac: 11:22:33:44:55:56\n", 3, r"read this MAC as a number.*quotes"),
        ("boards:\n  a:\n    revision: 3.10\n", 3, r"read this revision as a number.*quotes"),
        ("boards:\n  a:\n    revision: {min: 'v3.0', max: 'v1.0'}\n", 3, r"no revision fits"),
        ("boards:\n  a:\n    revision: {exact: 'v3.0', max: 'v1.0'}\n", 3, r"exact and a range"),
        ("boards:\n  a:\n    revision: {}\n", 3, r"no revision fits"),
        ("boards:\n  a:\n    revision: three\n", 3, r"not a revision: three"),
        ("boards:\n  a:\n    baud: fast\n", 3, r"not a baud rate: 'fast'"),
        ("boards:\n  a:\n    baud: true\n", 3, r"not a baud rate: True"),
        ("boards:\n  a:\n    baud: 1\n", 3, r"not a baud rate: 1"),
        ("boards:\n  a:\n    port: 3\n", 3, r"a number where text belongs"),
        ("boards:\n  a:\n    port:\n", 3, r"boards\.a\.port: no value"),
        ("boards:\n  a:\n    fixtures: can\n", 3, r"text where a list belongs"),
        ("boards:\n  a:\n    fixtures: [1]\n", 3, r"a number in a list of words"),
        ("boards:\n  a:\n    pre: [relay, on]\n", 3, r"yes or no in a list of words: True"),
        ("boards:\n  a:\n    pre: 'echo \"'\n", 3, r"not a command: No closing quotation"),
        ("boards:\n  a:\n    pre: []\n", 3, r"an empty command"),
        ("boards:\n  a:\n    pre: {timeout: 3}\n", 3, r"boards\.a\.pre\.run: no value"),
        ("boards:\n  a:\n    pre: {run: x, timeout: -1}\n", 3, r"not a time: -1"),
        ("boards:\n  a:\n    pre: {run: x, shell: yes}\n", 3, r"boards\.a\.pre\.shell: no such key"),
        ("boards:\n  virtual:\n    chip: esp32\n", 2, r"boards\.virtual: not a name for a board.*none of virtual"),
        ("boards:\n  a b:\n    chip: esp32\n", 2, r"not a name for a board"),
        ("boards:\n  1:\n    chip: esp32\n", 1, r"the key 1 is a number"),
        ("boards:\n  a: esp32\n", 2, r"text where keys belong"),
        ("boards:\n  a:\n", 2, r"boards\.a: no value"),
        ("boards:\n  a: {chip: esp32}\n  a: {chip: esp32}\n", 3, r"a stands here twice"),
        ("bords:\n  a: {chip: esp32}\n", 1, r"bords: no such key.*one of boards"),
        (
            "boards:\n  a: {mac: '24:6f:28:aa:bb:cc'}\n  b: {mac: '24-6F-28-AA-BB-CC'}\n",
            3,
            r"a and b have the same mac",
        ),
        ("boards:\n  a: {port: /dev/x}\n  b: {port: /dev/x}\n", 3, r"a and b have the same port"),
        ("boards:\n  a: [\n", 3, r"not valid YAML"),
        ("boards:\n  a: !!python/object/apply:os.system [true]\n", 2, r"not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=f"(?s){words}") as info:
        load_board_map(path)
    assert str(info.value.where).startswith(f"{path}:{line}"), info.value.where


@pytest.mark.parametrize(
    "text", ["", "[]", "boards", "boards: {}\nother: 1", "? [a]\n: 1\n", "boards:\n  ? {a: 1}\n  : 1\n"]
)
def test_documents_that_are_no_board_map_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError):
        load_board_map(written(tmp_path, text))


def test_the_map_is_looked_for_where_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, here, named = tmp_path / "home", tmp_path / "here", tmp_path / "named"
    (home / ".config" / "quant").mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    here.mkdir()
    named.mkdir()
    assert find_board_map(folder=here) == BoardMap()
    for folder, name in ((home / ".config" / "quant", "users"), (here, "folders"), (named, "environments")):
        written(folder, f"boards:\n  {name}: {{chip: esp32}}\n")
    given = tmp_path / "given.yaml"
    given.write_text("boards:\n  given: {chip: esp32}\n")
    assert list(find_board_map(folder=tmp_path).boards) == ["users"]
    assert list(find_board_map(folder=here).boards) == ["folders"]
    monkeypatch.setenv(ENVIRONMENT, str(named / "boards.yaml"))
    assert list(find_board_map(folder=here).boards) == ["environments"]
    assert list(find_board_map(given, here).boards) == ["given"]
    with pytest.raises(InputError, match="no such file"):
        find_board_map(tmp_path / "missing.yaml", here)


def test_both_ends_of_a_range_of_revisions_count() -> None:
    revision = Revision(300, 399)
    assert [number in revision for number in (299, 300, 399, 400)] == [False, True, True, False]


def test_revisions_in_words() -> None:
    assert [str(Revision(301, 301)), str(Revision(300, 0xFFFF)), str(Revision(0, 399))] == [
        "v3.1",
        "v3.0 or later",
        "v0.0 to v3.99",
    ]


def test_commands_run_without_a_shell_and_end_in_time(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    Command(
        (sys.executable, "-c", f"import sys; open({str(marker)!r}, 'w').write(sys.argv[1])", "$HOME; ls"), 20, "x"
    ).run({})
    assert marker.read_text() == "$HOME; ls"
    with pytest.raises(InputError, match=r"(?s)boards.yaml:4.*ended with 3.*the words"):
        Command((sys.executable, "-c", "print('the words'); raise SystemExit(3)"), 20, "boards.yaml:4").run({})
    with pytest.raises(InputError, match=r"within 0\.2 s"):
        Command((sys.executable, "-c", "import time; time.sleep(60)"), 0.2, "x").run({})
    with pytest.raises(InputError, match="cannot be started"):
        Command((str(tmp_path / "missing"),), 1, "x").run({})


def usb(device: str, vid: int | None, serial_number: str | None = None) -> ListPortInfo:
    port = ListPortInfo(device)
    port.vid, port.pid, port.description, port.serial_number = vid, 1, "a bridge", serial_number
    return port


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ListPortInfo]:
    """What is plugged in; nothing at first. No map is found, and the app has builds for every board."""
    plugged: list[ListPortInfo] = []
    monkeypatch.setattr(list_ports, "comports", lambda: plugged)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    return plugged


def meant(folder: Path, name: str | None = None, **more: object) -> ChipBoard:
    board = find_board(BoardRequest(name, folder=folder, **more))  # type: ignore[arg-type]
    assert isinstance(board, ChipBoard)
    return board


def port_of(board: ChipBoard) -> str:
    return board._lock.port


def test_the_one_that_is_plugged_in(tmp_path: Path, bench: list[ListPortInfo]) -> None:
    bench += [usb("/dev/ttyS0", None), usb("/dev/ttyUSB0", 0x10C4, "0001"), usb("/dev/ttyACM9", 0x1234)]
    assert [str(found) for found in plugged_in()] == ["/dev/ttyUSB0 (Silicon Labs CP210x: a bridge, serial 0001)"]
    board = meant(tmp_path)
    assert (port_of(board), board.chip) == ("/dev/ttyUSB0", None)
    board = meant(tmp_path, "esp32s3", baud=115200)
    assert (port_of(board), board.chip, board.baud) == ("/dev/ttyUSB0", "esp32s3", 115200)
    assert (usb_vendor("/dev/ttyUSB0"), usb_vendor("/dev/ttyUSB1")) == (0x10C4, None)


@pytest.mark.parametrize("name", [None, "esp32"])
def test_none_or_several_is_an_error_that_says_how_to_rehearse(
    tmp_path: Path, bench: list[ListPortInfo], name: str | None
) -> None:
    with pytest.raises(InputError, match=r"(?s)no board is plugged in.*--board virtual"):
        meant(tmp_path, name)
    bench += [usb("/dev/ttyUSB0", 0x1A86), usb("/dev/ttyACM0", 0x303A), usb("/dev/ttyUSB1", 0x0403)]
    with pytest.raises(
        InputError, match=r"(?s)3 boards are.*/dev/ttyACM0.*/dev/ttyUSB0.*/dev/ttyUSB1.*--board virtual"
    ):
        meant(tmp_path, name)
    assert port_of(meant(tmp_path, name, port="/dev/ttyUSB1")) == "/dev/ttyUSB1"


def test_the_board_map_knows_which(tmp_path: Path, bench: list[ListPortInfo]) -> None:
    bench += [usb("/dev/ttyUSB0", 0x1A86), usb("/dev/ttyACM0", 0x303A)]
    here, there = tmp_path / "here", tmp_path / "there"
    here.touch()
    written(
        tmp_path,
        f"boards:\n  a: {{chip: esp32, mac: '24:6f:28:aa:bb:cc', port: {there}}}\n"
        f"  b: {{chip: esp32, port: {here}, baud: 115200}}\n  c: {{chip: esp32c3, port: {tmp_path / 'c'}}}\n",
    )
    assert meant(tmp_path).name == "b", "the only one whose port is there"
    assert meant(tmp_path, "a").entry.mac == "24:6f:28:aa:bb:cc"
    assert (meant(tmp_path, "esp32").name, meant(tmp_path, "esp32").baud) == ("b", 115200)
    assert meant(tmp_path, "esp32c3").name == "c"
    moved = meant(tmp_path, "a", port="/dev/ttyUSB0", baud=230400)
    assert (port_of(moved), moved.baud, moved.entry.mac) == ("/dev/ttyUSB0", 230400, "24:6f:28:aa:bb:cc")
    assert meant(tmp_path, port=str(there)).entry.mac == "24:6f:28:aa:bb:cc", "a known port is checked as that board"
    with pytest.raises(InputError, match=r"a at .* is an esp32"):
        meant(tmp_path, "esp32c3", port=str(there))
    there.touch()
    with pytest.raises(InputError, match=r"(?s)several boards fit.*a, b"):
        meant(tmp_path)
    with pytest.raises(InputError, match=rf"(?s)no board d\n.*{', '.join(KINDS)}, esp32.*a, b, c"):
        meant(tmp_path, "d")


def test_boards_without_hardware_are_found_only_by_name(
    tmp_path: Path, bench: list[ListPortInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = tmp_path / "esp_idf_app"
    app.mkdir()
    with pytest.raises(InputError, match=r"(?s)has not been built.*SDKCONFIG=build/qemu.*sdkconfig\.defaults\.qemu"):
        find_board(BoardRequest("qemu", folder=tmp_path))
    make_build(app / "build" / "qemu", emulated=True)
    (app / "build" / "linux").mkdir()
    (app / "build" / "linux" / "quant.elf").touch()
    monkeypatch.delenv("QUANT_LINUX_ELF", raising=False)
    assert isinstance(find_board(BoardRequest("linux", folder=tmp_path)), LinuxBoard)
    qemu = find_board(BoardRequest("qemu", folder=tmp_path))
    assert isinstance(qemu, QemuBoard) and qemu.build.folder == app / "build" / "qemu"
    assert find_board(BoardRequest("virtual", folder=tmp_path)).name == "virtual"
    for name in KINDS:
        with pytest.raises(InputError, match="makes its own"):
            find_board(BoardRequest(name, port="/dev/ttyUSB0", folder=tmp_path))
    with pytest.raises(InputError, match="plugged in"):
        find_board(BoardRequest(folder=tmp_path))
