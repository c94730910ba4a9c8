"""The hardware half of the plugin, in sessions of its own: which board, what is skipped, what is written down."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from quant.acceptance.limits import Limits
from quant.boards.bench import Bench
from quant.boards.pack import read_pack
from quant.boards.virtual.board import VirtualBoard
from quant.files import read_json, write_json
from quant.runs.job import run_all
from quant.runs.reading import open_run, pack_of
from quant.runs.settings import Settings
from quant.runs.steps import decide, keep_device, run_device
from quant.testing.suites.hil.identity import with_a_twin
from quant.tracks.candidate import Candidate
from tests.commandline import LEAN
from tests.patience import PATIENCE, happens
from tests.tracks import strategies

pytest_plugins = ["pytester"]

CONFTEST = """
import quant.boards.ports

quant.boards.ports.plugged_in = lambda: ()  # whatever is plugged into this machine

pytest_plugins = ["quant.testing.plugin", "quant.testing.hil_plugin"]
"""
INI = f"""
[pytest]
addopts = --strict-markers -p no:cacheprovider -ra {LEAN}
junit_family = xunit1
markers =
    slow: slow
    hil: needs a board
    board_only: needs a chip
filterwarnings = ignore:record_xml_attribute:pytest.PytestExperimentalApiWarning
"""
SUITE = """
import pytest

pytestmark = pytest.mark.hil

def test_it_answers(device, record):
    record("chip", device.hello().chip, "")
    record("uptime", device.stats().uptime_ms / 1000, "s")

def test_it_is_too_slow(record):
    record("frames a second", 12.5, "1/s")
    assert False, "recorded before"

@pytest.mark.board_only
def test_brown_out():
    raise AssertionError("not on this board")

def test_it_is_lent(bench, device):
    with bench.lent() as port:
        assert port == bench.board.port
        bench.board.hard_reset()
    assert device.stats().decisions == 0

def test_the_dut_reads_its_boot(board_dut, bench):
    bench.board.hard_reset()
    board_dut.expect(r"quant \\S+ elf ([0-9a-f]{16})", timeout=10)

def test_the_verdict(confirmed, report, track, hold):
    assert confirmed.device.startswith("ESP32 latency + memory: unproven - what is simulated is not measured")
    hold(*(one for one in confirmed.assessment(track).criteria if one.name == "latency"))
"""
ELSEWHERE = "def test_anything():\n    pass\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run of a policy with continuous actions."""
    folder = tmp_path_factory.mktemp("finished")
    strategies.write_inputs(folder)
    settings = Settings("policy.npz", drives=(str(folder / "drive.npz"),), qat_steps=20, stress_frames=2000)
    run_all(folder / "policy.npz", folder / "run", settings, Limits())
    return folder / "run"


@pytest.fixture
def run_folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A bench without any board or board map."""
    monkeypatch.delenv("QUANT_BOARD_MAP", raising=False)
    monkeypatch.setenv("HOME", str(pytester.path))
    pytester.makeconftest(CONFTEST)
    pytester.makeini(INI)
    pytester.makepyfile(test_board=SUITE, test_elsewhere=ELSEWHERE)
    return pytester


def case(junit: Path, name: str) -> ElementTree.Element:
    (found,) = ElementTree.parse(junit).getroot().iterfind(f".//testcase[@name='{name}']")
    return found


def properties(element: ElementTree.Element) -> dict[str | None, str | None]:
    return {one.get("name"): one.get("value") for one in element.iterfind("./properties/property")}


def test_asked_for_a_board_without_one_is_a_usage_error(session: pytest.Pytester) -> None:
    result = session.runpytest_subprocess("-m", "hil")
    assert result.ret == 4
    said = result.stderr.str() + result.stdout.str()
    assert "no board is plugged in" in said and "--board virtual" in said
    assert "Traceback" not in said and "passed" not in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--board-map", "missing.yaml"), "missing.yaml"),
        (("--board", "virtual", "--port", "/dev/ttyUSB9"), "makes its own"),
        (("--board", "esp32", "--port", "/dev/no-such-port"), "there is no such port"),
        (("--board", "virtual", "--baud", "fast"), "--baud: not a number: fast"),
    ],
)
def test_a_board_that_is_not_to_be_had_ends_the_session(
    session: pytest.Pytester, run_folder: Path, options: tuple[str, ...], words: str
) -> None:
    result = session.runpytest_subprocess("-m", "hil", f"--run={run_folder}", *options)
    said = result.stderr.str() + result.stdout.str()
    assert result.ret in {2, 4}
    assert words in said and "Traceback" not in said and "INTERNALERROR" not in said and " passed" not in said


def test_without_a_board_its_tests_are_skipped_with_a_reason(session: pytest.Pytester) -> None:
    result = session.runpytest_subprocess()
    result.assert_outcomes(passed=1, skipped=len(SUITE.split("def test_")))
    assert "--board virtual rehearses" in result.stdout.str()


def test_tests_can_be_listed_without_a_board(session: pytest.Pytester, run_folder: Path) -> None:
    result = session.runpytest_subprocess("-m", "hil", "--collect-only", "-q", f"--run={run_folder}")
    assert result.ret == 0
    assert "test_it_answers" in result.stdout.str() and "test_anything" not in result.stdout.str()


def test_a_session_leaves_figures_report_verdict_and_a_valid_manifest(
    session: pytest.Pytester, run_folder: Path
) -> None:
    log, junit = session.path / "link.jsonl", session.path / "junit.xml"
    options = ("-m", "hil", "--board", "virtual", f"--run={run_folder}")
    result = session.runpytest_subprocess(*options, "--junitxml", str(junit), "--link-log", str(log))
    result.assert_outcomes(passed=3, failed=1, skipped=3)
    said = result.stdout.str()
    assert "only a chip can show this, not the virtual board" in said
    assert "unproven: latency: what is simulated is not measured on a board" in said
    assert "virtual board: ms a decision by number of peers, simulated" in said
    assert "ESP32 latency + memory: unproven - what is simulated is not measured on a board" in said

    figures = {one["name"]: one for one in read_json(run_folder / "hil_virtual.json")["figures"]}
    assert figures["chip"]["value"] == "virtual"
    assert (figures["frames a second"]["value"], figures["frames a second"]["unit"]) == (12.5, "1/s")
    assert figures["frames a second"]["test"].endswith("test_it_is_too_slow")
    failed = case(junit, "test_it_is_too_slow")
    assert failed.find("failure") is not None
    assert properties(failed)["frames a second"] == "12.5 1/s"

    run = open_run(run_folder)  # whose manifest has every file, and every hash is right
    files = read_json(run_folder / "manifest.json")["files"]
    assert {"device_virtual.json", "hil_virtual.json", "winner.json"} <= set(files)
    assert run.devices["virtual"].board.evidence == "simulated"
    winner = read_json(run_folder / "winner.json")
    assert winner["status"] == "provisional"
    assert winner["device"] == "ESP32 latency + memory: unproven - what is simulated is not measured on a board"
    suite = ElementTree.parse(junit).getroot().find("testsuite")
    assert suite is not None and properties(suite)["device"] == winner["device"]
    assert properties(suite)["board.evidence"] == "simulated"
    words = " ".join((run_folder / "report.txt").read_text().split())  # which are wrapped
    assert words.count(winner["device"]) == 1

    exchanges = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(exchanges) > 100


def test_a_session_judges_its_own_board_and_no_other(session: pytest.Pytester, run_folder: Path) -> None:
    """What an ESP32 proved before neither passes for this board nor is lost by it."""
    with Bench(VirtualBoard(), pack_of(run_folder)) as bench:
        shown = run_device(run_folder, bench)
    identity = replace(shown.board, name="bench-1", evidence="measured", chip="esp32")
    memory = replace(shown.memory, heap_minimum=180_000, stack_left=2_048)
    (run_folder / "device_virtual.json").unlink()
    keep_device(run_folder, replace(shown, board=identity, memory=memory), Limits())
    assert "confirmed - " in read_json(run_folder / "winner.json")["device"]
    options = ("-m", "hil", "--board", "virtual", f"--run={run_folder}", "-k", "verdict")
    result = session.runpytest_subprocess(*options)
    result.assert_outcomes(skipped=2, deselected=6)
    assert "unproven: latency: what is simulated is not measured on a board" in result.stdout.str()
    assert "confirmed - " in read_json(run_folder / "winner.json")["device"]
    assert set(open_run(run_folder).devices) == {"bench-1", "virtual"}


def test_figures_are_kept_without_a_report_too(session: pytest.Pytester, run_folder: Path) -> None:
    options = ("-m", "hil", "--board", "virtual", f"--run={run_folder}", "-k", "too_slow")
    result = session.runpytest_subprocess(*options)
    result.assert_outcomes(failed=1, deselected=7)
    assert [one["value"] for one in read_json(run_folder / "hil_virtual.json")["figures"]] == [12.5]
    assert open_run(run_folder).devices == {}


def test_a_part_of_the_suite_does_not_undo_the_figures_of_the_whole(session: pytest.Pytester, run_folder: Path) -> None:
    options = ("-m", "hil", "--board", "virtual", f"--run={run_folder}", "-k")
    file = run_folder / "hil_virtual.json"
    session.runpytest_subprocess(*options, "too_slow or answers")
    whole = read_json(file)
    assert whole["board"]["evidence"] == "simulated"
    assert whole["pack_sha256"] == read_pack(pack_of(run_folder)).sha256
    session.runpytest_subprocess(*options, "too_slow")
    names = ["chip", "uptime", "frames a second"]
    assert [one["name"] for one in read_json(file)["figures"]] == names
    # Those of other models, or of another board, say nothing of these.
    write_json(file, whole | {"pack_sha256": "0" * 64})
    decide(run_folder, Limits())
    session.runpytest_subprocess(*options, "too_slow")
    assert [one["name"] for one in read_json(file)["figures"]] == names[2:]


def test_the_report_says_which_tests_failed_until_they_pass(session: pytest.Pytester, run_folder: Path) -> None:
    options = ("-m", "hil", "--board", "virtual", f"--run={run_folder}", "-k")

    def failed() -> tuple[str, ...]:
        return open_run(run_folder).devices["virtual"].failed_tests

    session.runpytest_subprocess(*options, "too_slow or verdict")
    assert failed() == ("test_board.py::test_it_is_too_slow",)
    session.runpytest_subprocess(*options, "answers")
    assert failed() == ("test_board.py::test_it_is_too_slow",)
    session.makepyfile(test_board=SUITE.replace("assert False", "assert True"))
    session.runpytest_subprocess(*options, "too_slow")
    assert failed() == ()


def test_only_models_that_differ_can_be_told_apart(run_folder: Path) -> None:
    made = open_run(run_folder)
    first, *_ = made.candidates.values()
    other = replace(first, peer_encoder=replace(first.peer_encoder, tflite=first.peer_encoder.tflite + b"0"))
    wide = replace(other, bits=16)

    def twins(*candidates: Candidate) -> list[str]:
        return with_a_twin(replace(made, candidates={str(place): one for place, one in enumerate(candidates)}))

    assert twins(first, other) == ["0", "1"]
    assert twins(first, first, wide) == []  # the third differs, and cannot answer for them
    assert twins(first, first, other) == ["1", "2"]  # the second answers for the first, and the first for the third
    assert twins(first) == []


def test_the_packages_tests_have_one_name_wherever_they_are_imported(
    session: pytest.Pytester, run_folder: Path
) -> None:
    options = (
        "-m",
        "hil",
        "--board",
        "virtual",
        f"--run={run_folder}",
        "-k",
        "never_goes_down or gives_the_hosts_bytes",
    )
    for name in ("test_here", "test_there"):
        file = session.makepyfile(**{name: "from quant.testing.suites.hil import *"})
        session.runpytest_subprocess(*options, file)
    figures = read_json(run_folder / "hil_virtual.json")["figures"]
    names = [(one["test"], one["name"]) for one in figures]
    assert names and len(names) == len(set(names))
    assert all(test.startswith("quant.testing.suites.hil.") for test, _ in names)


def test_a_session_that_is_terminated_keeps_its_figures_and_leaves_nobody_behind(
    session: pytest.Pytester, run_folder: Path
) -> None:
    session.makepyfile(
        test_board="""
        import time
        from pathlib import Path

        import pytest

        @pytest.mark.hil
        def test_it_takes_long(board_dut, record):
            record("before", 1.0, "s")
            Path("begun").touch()
            time.sleep(600)
        """
    )
    command = (sys.executable, "-m", "pytest", "-m", "hil", "--board", "virtual", f"--run={run_folder}")
    process = session.popen(command, stdin=subprocess.DEVNULL)
    assert happens((session.path / "begun").exists)
    process.terminate()
    said, _ = process.communicate(timeout=PATIENCE)  # its output is closed: no process of it is left
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    assert [one["name"] for one in read_json(run_folder / "hil_virtual.json")["figures"]] == ["before"]
    open_run(run_folder)


def test_a_figure_that_cannot_be_written_takes_no_other_along(session: pytest.Pytester, run_folder: Path) -> None:
    session.makepyfile(
        test_board="""
        import numpy as np
        import pytest

        @pytest.mark.hil
        @pytest.mark.parametrize("value", [1.0, float("nan"), np.int64(3)])
        def test_it_records(record, value):
            record("value", value, "s")
        """
    )
    result = session.runpytest_subprocess("-m", "hil", "--board", "virtual", f"--run={run_folder}")
    result.assert_outcomes(passed=1, failed=2)
    assert [one["value"] for one in read_json(run_folder / "hil_virtual.json")["figures"]] == [1.0]
    open_run(run_folder)


def test_a_session_without_figures_leaves_the_run_as_it_was(session: pytest.Pytester, run_folder: Path) -> None:
    before = (run_folder / "manifest.json").read_bytes()
    options = ("-m", "hil", "--board", "virtual", f"--run={run_folder}", "-k", "lent")
    session.runpytest_subprocess(*options).assert_outcomes(passed=1, deselected=7)
    assert (run_folder / "manifest.json").read_bytes() == before
    assert not (run_folder / "hil_virtual.json").exists()


def suites(session: pytest.Pytester, *lines: str) -> None:
    """Says where the tests of a marker are."""
    session.makeini(INI + "suites =\n" + "".join(f"    {line}\n" for line in lines))


def said(result: pytest.RunResult) -> str:
    return result.stderr.str() + result.stdout.str()


def test_no_board_is_told_before_anything_is_collected(session: pytest.Pytester) -> None:
    session.makepyfile(test_slow_to_import="raise AssertionError('imported')")
    result = session.runpytest_subprocess("-m", "hil")
    assert result.ret == 4 and "no board is plugged in" in said(result) and "imported" not in said(result)


def test_help_needs_no_board(session: pytest.Pytester) -> None:
    result = session.runpytest_subprocess("-m", "hil", "--help")
    assert result.ret == 0 and "--board-map=FILE" in said(result)


def test_without_pytest_embedded_its_tests_say_what_is_missing(session: pytest.Pytester) -> None:
    session.makepyfile(test_board='import pytest\n\npytest.importorskip("not_there", reason="the extra bench")\n')
    plugins = ("pytest_embedded", "pytest_embedded_serial", "pytest_embedded_serial_esp", "pytest_embedded_idf")
    off = [word for name in plugins for word in ("-p", f"no:{name}")]
    result = session.runpytest_subprocess("-m", "hil", *off)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED and "the extra bench" in said(result)


@pytest.mark.parametrize("expression", ["hil", "hil and not slow", "(hil and slow) or (hil and not slow)"])
def test_a_marker_alone_collects_only_where_its_tests_are(session: pytest.Pytester, expression: str) -> None:
    suites(session, "hil = test_board.py")
    session.makepyfile(test_slow_to_import="raise AssertionError('imported')")
    result = session.runpytest_subprocess("-m", expression, "--collect-only")
    assert result.ret == 0 and "imported" not in said(result) and "test_it_answers" in said(result)
    assert f"-m hil: all in test_board.py (suites in {session.path / 'tox.ini'})" in said(result)


@pytest.mark.parametrize(
    "options", [("-m", "not hil"), ("-m", "hil or slow"), (), ("-m", "slow"), ("-m", "hil", "test_elsewhere.py")]
)
def test_where_another_test_may_be_meant_all_are_collected(session: pytest.Pytester, options: tuple[str, ...]) -> None:
    suites(session, "hil = test_board.py")
    session.makepyfile(test_elsewhere="raise AssertionError('imported')")
    assert "imported" in said(session.runpytest_subprocess(*options, "--collect-only"))


@pytest.mark.parametrize("options", [(), ("test_lost.py",), ("-n", "2", "--dist", "loadfile")])
def test_a_test_that_its_marker_would_not_find_fails(session: pytest.Pytester, options: tuple[str, ...]) -> None:
    suites(session, "hil = test_board.py")
    session.makepyfile(test_lost="import pytest\n\n@pytest.mark.hil\ndef test_lost():\n    pass\n")
    result = session.runpytest_subprocess(*options)
    assert result.ret == 1 and result.parseoutcomes()["errors"] == 1
    assert "it has the marker hil, and -m hil would not find it" in said(result) and "tox.ini, suites" in said(result)


@pytest.mark.parametrize(
    ("line", "words"), [("hil", "not MARKER = PATH ...: hil"), ("hil = nowhere test_board.py", "there is no ")]
)
def test_a_wrong_line_of_suites_is_a_usage_error(session: pytest.Pytester, line: str, words: str) -> None:
    suites(session, line)
    result = session.runpytest_subprocess()
    assert result.ret == 4 and words in said(result) and "Traceback" not in said(result)


@pytest.mark.parametrize(
    "options",
    [
        ("--board", "virtual"),
        ("-m", "hil", "--board", "virtual", "--dist", "loadfile"),
        ("-m", "hil", "--dist", "worksteal"),
    ],
)
def test_a_board_has_one_owner(session: pytest.Pytester, run_folder: Path, options: tuple[str, ...]) -> None:
    """Nothing says where its tests are: workers might share them, whichever way."""
    result = session.runpytest_subprocess("-n", "2", *options, f"--run={run_folder}")
    assert result.ret == 4 and "a board has one owner" in said(result) and "leave out -n" in said(result)
    assert "Traceback" not in said(result)


def test_workers_share_the_tests_where_those_of_a_board_are_skipped(session: pytest.Pytester) -> None:
    session.runpytest_subprocess("-n", "2").assert_outcomes(passed=1, skipped=len(SUITE.split("def test_")))


def test_workers_leave_the_board_to_one_of_them_and_its_verdict_gets_out(
    session: pytest.Pytester, run_folder: Path
) -> None:
    suites(session, "hil = test_board.py test_board_too.py")
    session.makepyfile(
        test_board_too="""
        import os

        import pytest

        pytestmark = pytest.mark.hil

        @pytest.mark.parametrize("time", range(20))
        def test_it_is_the_same_board(device, record, worker_id, time):
            record("answered in", worker_id, "")
            assert device.stats().frames_good > 0
        """
    )
    junit = session.path / "junit.xml"
    options = ("-n", "2", "--dist", "loadfile", "--board", "virtual", f"--run={run_folder}", "--junitxml", str(junit))
    result = session.runpytest_subprocess(*options)
    result.assert_outcomes(passed=24, failed=1, skipped=3)
    unproven = "ESP32 latency + memory: unproven - what is simulated is not measured on a board"
    assert "virtual board: ms a decision by number of peers, simulated" in said(result)
    assert result.stdout.str().count(unproven) == 1
    figures = read_json(run_folder / "hil_virtual.json")["figures"]
    assert len({one["value"] for one in figures if one["name"] == "answered in"}) == 1
    assert {"chip", "uptime", "frames a second"} <= {one["name"] for one in figures}
    # A test has the name that the command line has for it.
    assert {one["test"].partition("[")[0] for one in figures} >= {"test_board.py::test_it_answers"}
    assert open_run(run_folder).devices["virtual"].failed_tests == ("test_board.py::test_it_is_too_slow",)
    suite = ElementTree.parse(junit).getroot().find("testsuite")
    assert suite is not None and properties(suite)["device"] == read_json(run_folder / "winner.json")["device"]
    assert properties(suite)["board.evidence"] == "simulated"
