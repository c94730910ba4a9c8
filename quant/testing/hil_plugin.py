"""The hardware-in-the-loop half of pytest: a board, a connection to it, and what it showed.

    pytest -m hil --board virtual --run runs/x        rehearsal, without hardware
    pytest -m hil --board esp32 --port /dev/ttyUSB0   a bench
    pytest -m hil                                     the bench's board map, or the board that is plugged in

A board is opened once a session. Data goes over its port directly (``device``); boot, reset and panic are read through
pytest-embedded's ``dut``, which gets the port lent (``board_dut``). Figures are recorded before they are asserted, and
the run gets them, with the verdict that follows, even where a test failed.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from quant.boards.kinds import KINDS, NAMED
from quant.errors import InputError, QuantError
from quant.report.board_tests import SUITE
from quant.testing.closing import Line, closing, is_worker, workers
from quant.testing.plugin import SUITES, RecordSuite, asks_for, given_path, suites

if TYPE_CHECKING:
    from pytest_embedded.dut import Dut

    from quant.acceptance.decision import Verdict
    from quant.acceptance.limits import Limits
    from quant.boards.bench import Bench
    from quant.boards.board import Board
    from quant.boards.device import Device
    from quant.boards.report import DeviceReport
    from quant.policy import Observations
    from quant.runs.run import Run

Record = Callable[[str, float | str, str], None]

LOCK_SECONDS = 600.0
"""How long to wait for a board that another session has."""


@dataclass(frozen=True)
class Figure:
    """A figure of a test, as it goes into ``hil_NAME.json``."""

    test: str
    name: str
    value: float | str
    unit: str


_figures_key: pytest.StashKey[list[Figure]] = pytest.StashKey()
_outcomes_key: pytest.StashKey[dict[str, bool]] = pytest.StashKey()
_board_key: pytest.StashKey[Board] = pytest.StashKey()

HIL = "hil"
"""The marker of tests that need a board."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--board``, ``--board-map`` and ``--link-log``; ``--port``, ``--baud``, ... are pytest-embedded's."""
    group = parser.getgroup("quant")
    group.addoption("--board", metavar="NAME", help=NAMED)
    group.addoption("--board-map", metavar="FILE", help="YAML file of the bench's boards")
    group.addoption("--link-log", metavar="FILE", help="record every exchange with the board, JSON lines")


def pytest_configure(config: pytest.Config) -> None:
    """Makes room for the figures and the outcomes, and finds the board that was asked for, before anything else."""
    config.stash[_figures_key] = []
    config.stash[_outcomes_key] = {}
    if is_worker(config) or config.option.collectonly or config.option.help:
        return
    # Without pytest-embedded's options nobody could say which board; its tests then say what to install.
    asked = asks_for(HIL, config.option.markexpr) and "port" in config.option
    apart = workers(config) > 1 and not (config.option.dist == "loadfile" and HIL in suites(config))
    if apart and (asked or config.getoption("--board")):
        raise pytest.UsageError(
            f"a board has one owner, and there are {workers(config)} workers\n"
            f"  hint: leave out -n; or add --dist loadfile, and the line hil = PATH to {SUITES} in pytest.ini"
        )
    if asked:
        _board(config)


def _board(config: pytest.Config) -> Board:
    """The board, found once."""
    if _board_key not in config.stash:
        try:
            config.stash[_board_key] = _find(config)
        except QuantError as error:
            raise pytest.UsageError(str(error)) from error
    return config.stash[_board_key]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Finds the board the selected tests need; without one they are skipped, or refused where they were asked for."""
    hil = [item for item in items if item.get_closest_marker(HIL)]
    if not hil or config.option.collectonly:
        return
    if config.getoption("--board") is None and HIL not in (config.getoption("-m") or ""):
        for item in hil:
            item.add_marker(pytest.mark.skip(reason="no board: --board virtual rehearses, --board esp32 tests one"))
        return
    board = _board(config)
    if board.name in KINDS:
        for item in hil:
            if item.get_closest_marker("board_only"):
                item.add_marker(pytest.mark.skip(reason=f"only a chip can show this, not the {board.name} board"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Notes which of the board's tests failed: a verdict does not rest on a board that failed one."""
    made = yield
    if item.get_closest_marker(HIL) and (made.failed or (made.when == "call" and made.passed)):
        outcomes = item.config.stash[_outcomes_key]
        name = _name(item)
        outcomes[name] = made.passed and outcomes.get(name, True)
    return made


def _name(item: pytest.Item) -> str:
    """What a run calls a test: one of the package's own has the same name from whichever file it was imported."""
    module = getattr(getattr(item, "function", None), "__module__", "")
    return f"{module}::{item.name}" if module.startswith(f"{SUITE}.") else item.nodeid


def _find(config: pytest.Config) -> Board:
    from quant.boards.discovery import BoardRequest, find_board

    def path(option: str) -> Path | None:
        given = config.getoption(option)
        return None if given is None else given_path(config, given)

    return find_board(
        BoardRequest(
            name=config.getoption("--board"),
            port=config.getoption("--port"),
            baud=_baud(config.getoption("--baud")),
            build_dir=path("--build-dir"),
            board_map=path("--board-map"),
            folder=config.invocation_params.dir,
            wait=LOCK_SECONDS,
        )
    )


def _baud(given: str | None) -> int | None:
    try:
        return None if given is None else int(given)
    except ValueError as error:
        raise InputError(f"not a number: {given}", where="--baud", expected="a baud rate, as 921600") from error


@pytest.fixture(scope="session")
def frames(run: Run) -> Observations:
    """Every held-out frame of the run, recorded, rolled out and augmented."""
    from quant.dataset import Split

    return run.dataset.observations(run.dataset.rows(Split.HELD_OUT))


@pytest.fixture(scope="session")
def bench(run: Run, pytestconfig: pytest.Config) -> Iterator[Bench]:
    """The board, made to run the candidates of the run; pytest-embedded's options are set to match."""
    from quant.boards.bench import Bench
    from quant.boards.pack import build_pack

    board = pytestconfig.stash[_board_key]
    log = pytestconfig.getoption("--link-log")
    exchanges = None if log is None else given_path(pytestconfig, log)
    try:
        pack = build_pack(list(run.candidates.values()))
        with _orderly_end(), Bench(board, pack, exchanges=exchanges) as opened:
            _tell_pytest_embedded(pytestconfig, board)
            yield opened
    except QuantError as error:
        pytest.exit(str(error), returncode=error.exit_code)


@contextmanager
def _orderly_end() -> Iterator[None]:
    """SIGTERM ends the session as Ctrl-C does.

    Else a job that is cancelled would lose its figures, not give the board back, and leave pytest-embedded's processes
    behind, which hold the job's output open.
    """
    session = os.getpid()

    def end(*_: object) -> NoReturn:
        if os.getpid() == session:
            raise KeyboardInterrupt
        os._exit(128 + signal.SIGTERM)  # a process that the session forked

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell_pytest_embedded(config: pytest.Config, board: Board) -> None:
    embedded = board.embedded()
    config.option.embedded_services = embedded.services
    for name, value in embedded.options.items():
        setattr(config.option, name.replace("-", "_"), value)


@pytest.fixture(scope="session")
def device(bench: Bench) -> Device:
    """The board's other end, for data; one for the session, so that hypothesis can use it."""
    return bench.device


@pytest.fixture
def lent(bench: Bench) -> Iterator[str]:
    """The board's port, while the session's own connection is away."""
    with bench.lent() as port:
        yield port


@pytest.fixture
def board_dut(lent: str, dut: Dut) -> Dut:
    """pytest-embedded's ordinary ``dut`` on the board's port, to reset it and to read what it prints."""
    return dut


@pytest.fixture(scope="session")
def keep(
    run: Run,
    limits: Limits,
    bench: Bench,
    publish: Callable[[Verdict], None],
    record_suite: RecordSuite,
    pytestconfig: pytest.Config,
) -> Iterator[Callable[[DeviceReport], None]]:
    """Takes the board's report. When the session ends the run gets it, every recorded figure, and what follows.

    That happens whatever failed, and the report says which tests did. A session that measured nothing and recorded
    nothing leaves the run as it was.
    """
    from quant.boards.pack import build_pack, read_pack
    from quant.boards.report import Identity
    from quant.runs.steps import decide, keep_device, keep_figures

    pack = read_pack(build_pack(list(run.candidates.values()))).sha256
    board = Identity.of(bench.board.name, bench.device.identity)
    for name in ("name", "evidence", "chip", "mac", "elf_sha256"):
        record_suite(f"board.{name}", getattr(board, name))
    shown: list[DeviceReport] = []
    yield shown.append
    figures = pytestconfig.stash[_figures_key]
    if figures:
        keep_figures(run.folder, board, pack, [asdict(figure) for figure in figures])
    outcomes = pytestconfig.stash[_outcomes_key]
    failed = [test for test, passed in outcomes.items() if not passed]
    before = run.devices.get(board.name)
    if shown:
        known = before if before is not None and before.alike(shown[-1]) else shown[-1]
        whole = replace(shown[-1], failed_tests=known.failed_tests)
        publish(keep_device(run.folder, whole.tested(outcomes, failed), limits))
    elif before is not None and (before.board, before.pack_sha256) == (board, pack):
        publish(keep_device(run.folder, before.tested(outcomes, failed), limits))
    elif figures:
        publish(decide(run.folder, limits))


@pytest.fixture(scope="session")
def report(
    bench: Bench,
    run: Run,
    frames: Observations,
    keep: Callable[[DeviceReport], None],
    pytestconfig: pytest.Config,
) -> DeviceReport:
    """What the board showed of every candidate: conformance on all held-out frames, times, memory."""
    from quant.boards.measure import measure

    shown = measure(bench.device, bench.board.name, run.candidates, frames)
    keep(shown)
    title = f"{shown.board}: ms a decision by number of peers, {shown.board.evidence}"
    closing(pytestconfig).say(title, list(_times(shown)))
    return shown


@pytest.fixture(scope="session")
def confirmed(run: Run, report: DeviceReport, limits: Limits) -> Verdict:
    """The verdict on what this board showed, whatever the run knows of others.

    A run is decided on the strongest evidence it has; a session judges its own board.
    """
    return replace(run, devices={report.board.name: report}).verdict(limits)


@pytest.fixture
def record(
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
    pytestconfig: pytest.Config,
    keep: Callable[[DeviceReport], None],
) -> Record:
    """``record(name, value, unit)``: puts a figure into the JUnit file and the run, before anything is asserted."""
    figures, test = pytestconfig.stash[_figures_key], _name(request.node)

    def one(name: str, value: float | str, unit: str) -> None:
        json.dumps(value, allow_nan=False)  # what cannot be written fails here, not all figures when the session ends
        record_property(name, f"{value:g} {unit}".strip() if isinstance(value, float) else f"{value} {unit}".strip())
        figures.append(Figure(test, name, value, unit))

    return one


def _times(shown: DeviceReport) -> Iterator[Line]:
    """What a decision took, by number of peers."""
    for track, own in shown.tracks.items():
        rows: dict[str, list[float]] = {"peers": [times.peers for times in own.times]}
        for name in ("median", "p99", "maximum"):
            rows[name] = [getattr(times.total, name) / 1000 for times in own.times]
        for name, values in rows.items():
            cells = "".join(f"{value:8}" if name == "peers" else f"{value:8.3f}" for value in values)
            yield f"{track:6} {name:8}{cells}", {}
