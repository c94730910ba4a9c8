"""The acceptance suite's half of pytest: the run under test, its verdict, and the summary at the end.

    pytest tests/acceptance --run runs/ego6 --limits limits.toml --junitxml=acceptance.xml
    pytest -m regression --run runs/ego6 --baseline baseline.json

Without ``--run`` the reference policy is quantized and judged once a session, in a temporary folder. A test that holds
a criterion records it first and asserts after, so that the figures of a failed criterion are in the JUnit file too. An
unproven criterion is skipped with its reason; it never counts as passed.

Where all tests of a marker are, a project may say in its ``pytest.ini``; ``-m MARKER`` then collects nothing else:

    suites =
        hil = tests/hil

Where workers of pytest-xdist share the tests (``--dist loadfile``), those of all suites go to the same one.
"""

from __future__ import annotations

import ast
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from quant.errors import QuantError
from quant.testing.closing import Line, closing, is_worker, plain, receive, send, write
from quant.testing.once import made_once

# Before anybody imports them: these modules are tests, and a failed assertion shows its values.
pytest.register_assert_rewrite("quant.testing.suites")

if TYPE_CHECKING:
    from quant.acceptance.assessment import Assessment
    from quant.acceptance.comparison import Comparison
    from quant.acceptance.criterion import Criterion
    from quant.acceptance.decision import Verdict
    from quant.acceptance.limits import Limits
    from quant.runs.run import Run

Hold = Callable[..., None]
RecordSuite = Callable[[str, object], None]

_tracks_key: pytest.StashKey[tuple[str, ...]] = pytest.StashKey()
_suites_key: pytest.StashKey[dict[str, tuple[Path, ...]]] = pytest.StashKey()
_narrowed_key: pytest.StashKey[str] = pytest.StashKey()

REGRESSION = "regression"
"""The marker of tests that hold a run against the baseline."""
SUITES = "suites"
"""The key of ``pytest.ini`` that says where the tests of a marker are."""
MARKERS = {
    "slow": "takes more than a few seconds",
    "hil": "needs a board (--board)",
    REGRESSION: "holds a run (--run) against the baseline (--baseline)",
    "board_only": "needs a chip; the virtual board, linux and QEMU cannot show it",
}
"""Of the suites, for any project that imports them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--run``, ``--limits`` and ``--baseline``."""
    group = parser.getgroup("quant", "acceptance of quantized policies")
    group.addoption("--run", metavar="DIR", help="judge this run folder (default: a run of the reference policy)")
    group.addoption("--limits", metavar="FILE", help="limits, TOML or JSON (default: the nearest pyproject.toml)")
    group.addoption("--baseline", metavar="FILE", help="hold --run against this baseline (default: baseline.json)")
    parser.addini(SUITES, "where all tests of a marker are, a line each: MARKER = PATH ...", type="linelist")


def pytest_configure(config: pytest.Config) -> None:
    """Reads the run's tracks: a folder that is none is told once here, and later once for each file of tests."""
    for name, words in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {words}")
    folder = config.getoption("--run")
    if folder is not None:
        config.stash[_tracks_key] = _tracks(given_path(config, folder))
    # What was asked for by name is never skipped: a gate that held nothing must not be green.
    asked = config.getoption("--baseline") is not None or asks_for(REGRESSION, config.option.markexpr)
    reason = _without_baseline(config)
    if asked and reason:
        raise pytest.UsageError(reason)
    _narrow(config)


def asks_for(marker: str, expression: str) -> bool:
    """Whether ``-m`` selects a test for this marker, and not for the lack of another, as ``not slow`` would."""

    def selects(node: ast.expr, marks: frozenset[str]) -> bool:
        if isinstance(node, ast.BoolOp):
            each = [selects(value, marks) for value in node.values]
            return all(each) if isinstance(node.op, ast.And) else any(each)
        if isinstance(node, ast.UnaryOp):
            return not selects(node.operand, marks)
        return isinstance(node, ast.Name) and node.id in marks

    parsed = _parsed(expression)
    return parsed is not None and selects(parsed, frozenset({marker})) and not selects(parsed, frozenset())


def needs(marker: str, expression: str) -> bool:
    """Whether ``-m`` selects no test without this marker, whatever others it has."""

    def implies(node: ast.expr) -> bool:
        if isinstance(node, ast.BoolOp):
            return (any if isinstance(node.op, ast.And) else all)(map(implies, node.values))
        return isinstance(node, ast.Name) and node.id == marker

    parsed = _parsed(expression)
    return parsed is not None and implies(parsed)


def _parsed(expression: str) -> ast.expr | None:
    try:
        return ast.parse(expression.strip(), mode="eval").body
    except SyntaxError:
        # pytest itself says what is wrong with it.
        return None


def suites(config: pytest.Config) -> dict[str, tuple[Path, ...]]:
    """Where the tests of each marker are, as the project says."""
    if _suites_key in config.stash:
        return config.stash[_suites_key]
    found = config.stash[_suites_key] = {}
    for line in config.getini(SUITES):
        marker, equals, paths = line.partition("=")
        places = tuple(Path(os.path.normpath(config.rootpath / path)) for path in paths.split())
        missing = [str(place) for place in places if not place.exists()]
        if not equals or not places or missing:
            wrong = f"there is no {', '.join(missing)}" if missing else f"not MARKER = PATH ...: {line}"
            raise pytest.UsageError(f"{config.inipath}, {SUITES}: {wrong}")
        found[marker.strip()] = places
    return found


def _narrow(config: pytest.Config) -> None:
    """Collects only where the tests of the marker are, if no other can be meant and no place was named.

    A board's first test then does not wait for thousands of others to be imported.
    """
    if config.args_source is config.ArgsSource.ARGS:
        return
    for marker, places in suites(config).items():
        if needs(marker, config.option.markexpr):
            config.args = [str(place) for place in places]
            shown = " ".join(os.path.relpath(place, config.rootpath) for place in places)
            config.stash[_narrowed_key] = f"-m {marker}: all in {shown} ({SUITES} in {config.inipath})"
            return


def pytest_report_header(config: pytest.Config) -> str | None:
    """Says where alone tests are collected, if so."""
    return config.stash.get(_narrowed_key, None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fails a test that its marker would not find, even where it would be skipped."""
    for marker, places in suites(item.config).items():
        if item.get_closest_marker(marker) and not any(item.path.is_relative_to(place) for place in places):
            pytest.fail(
                f"it has the marker {marker}, and -m {marker} would not find it\n"
                f"  hint: name its file in {item.config.inipath}, {SUITES}",
                pytrace=False,
            )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips what holds a run against a baseline where there is no run or no baseline, and says which."""
    reason = _without_baseline(config)
    for item in items:
        if reason and item.get_closest_marker(REGRESSION):
            item.add_marker(pytest.mark.skip(reason=reason.replace("\n  ", "; ")))


def _without_baseline(config: pytest.Config) -> str:
    """Why there is nothing to compare; empty where there is."""
    from quant.acceptance.baseline import check_present

    try:
        check_present(_baseline_path(config))
    except QuantError as error:
        return str(error)
    if config.getoption("--run") is None:
        return "there is no run to hold against the baseline\n  hint: give --run DIR"
    return ""


def _baseline_path(config: pytest.Config) -> Path:
    from quant.acceptance.baseline import FILE

    return given_path(config, config.getoption("--baseline") or FILE)


def _tracks(folder: Path) -> tuple[str, ...]:
    from quant.runs.settings import read_settings

    try:
        tracks = read_settings(folder).tracks
    except QuantError as error:
        raise pytest.UsageError(str(error)) from error
    if not tracks:
        raise pytest.UsageError(f"{folder}: the run has no candidate yet\n  hint: quant ptq {folder}")
    return tracks


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives every test that asks for a ``track`` each track of the run."""
    if "track" in metafunc.fixturenames:
        from quant.tracks.registry import DEFAULT_TRACKS

        tracks = metafunc.config.stash.get(_tracks_key, None) or DEFAULT_TRACKS
        metafunc.parametrize("track", tracks, scope="session")


def given_path(config: pytest.Config, path: str) -> Path:
    """A path of the command line as the user meant it: from where pytest was called."""
    return Path(os.path.normpath(config.invocation_params.dir / path))


@pytest.fixture(scope="session")
def limits(pytestconfig: pytest.Config) -> Limits:
    """The limits in force."""
    from quant.acceptance.limits import load_limits

    file = pytestconfig.getoption("--limits")
    try:
        return load_limits(None if file is None else given_path(pytestconfig, file), pytestconfig.invocation_params.dir)
    except QuantError as error:
        pytest.exit(str(error), returncode=error.exit_code)


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run under test, read back and checked; made of the reference policy where none is given."""
    from quant.runs.reading import open_run

    folder = pytestconfig.getoption("--run")
    try:
        return open_run(
            _reference(pytestconfig, tmp_path_factory) if folder is None else given_path(pytestconfig, folder)
        )
    except QuantError as error:
        pytest.exit(str(error), returncode=error.exit_code)


def _reference(config: pytest.Config, factory: pytest.TempPathFactory) -> Path:
    """A run of the reference policy, this process's own: the tests of a board write into it."""
    from quant.runs.job import reference_run

    made = made_once(config, factory, "reference", reference_run)
    return Path(shutil.copytree(made, factory.mktemp("quant") / "reference")) if is_worker(config) else made


@pytest.fixture(scope="session")
def record_suite(record_testsuite_property: Callable[[str, object], None], pytestconfig: pytest.Config) -> RecordSuite:
    """``record_testsuite_property``, which a worker of pytest-xdist does not have."""
    if not is_worker(pytestconfig):
        return record_testsuite_property
    noted = closing(pytestconfig).properties
    return lambda name, value: noted.append((name, str(value)))


@pytest.fixture(scope="session")
def comparison(run: Run, pytestconfig: pytest.Config, record_suite: RecordSuite) -> Comparison:
    """The run held against the baseline; every figure of it is in the JUnit file, whatever came of it."""
    from quant.acceptance.baseline import load_baseline
    from quant.acceptance.comparison import compare
    from quant.report.comparison import comparison as comparison_table
    from quant.report.text import as_text
    from quant.runs.regression import snapshot

    try:
        found = compare(load_baseline(_baseline_path(pytestconfig)), snapshot(run))
    except QuantError as error:
        pytest.exit(str(error), returncode=error.exit_code)
    closing(pytestconfig).say(REGRESSION, list(plain(as_text(comparison_table(found), 80))))
    record_suite("baseline", found.before)
    record_suite("regression", found.headline)
    for finding in found.findings:
        record_suite(f"regression.{finding.subject}.{finding.name}", f"{finding.change.value}: {finding}")
    return found


@pytest.fixture(scope="session")
def publish(run: Run, pytestconfig: pytest.Config, record_suite: RecordSuite) -> Callable[[Verdict], None]:
    """Puts a verdict into the JUnit file and into the summary at the end of the session; the last one counts."""

    def put(found: Verdict) -> None:
        closing(pytestconfig).say("acceptance", list(_told(found)))
        record_suite("run", str(run.folder))
        record_suite("winner", found.winner or "none")
        record_suite("status", found.status)
        record_suite("basis", found.basis)
        record_suite("device", found.device)
        for name, digest in found.hashes.items():
            record_suite(f"sha256.{name}", digest or "none")
        for assessment in found.assessments:
            for criterion in assessment.criteria:
                record_suite(f"{assessment.track}.{criterion.name}", str(criterion))

    return put


@pytest.fixture(scope="session")
def verdict(run: Run, limits: Limits, publish: Callable[[Verdict], None]) -> Verdict:
    """The verdict on the run as it is."""
    found = run.verdict(limits)
    publish(found)
    return found


@pytest.fixture(scope="session")
def assessment(verdict: Verdict, track: str) -> Assessment:
    """The criteria of one track."""
    return verdict.assessment(track)


@pytest.fixture
def hold(record_property: Callable[[str, object], None]) -> Hold:
    """``hold(*criteria)``: records them, then fails on a failed one, then skips on an unproven one.

    Holding nothing fails: a suite that finds no criterion has shown nothing.
    """

    def hold_all(*criteria: Criterion) -> None:
        from quant.acceptance.criterion import Outcome

        for criterion in criteria:
            record_property(criterion.name, str(criterion))
            if criterion.value is not None:
                record_property(f"{criterion.name}.value", criterion.value)
        if not criteria:
            pytest.fail("there is no such criterion", pytrace=False)
        failed = [str(criterion) for criterion in criteria if criterion.outcome is Outcome.FAIL]
        if failed:
            pytest.fail("\n".join(failed), pytrace=False)
        unproven = [criterion for criterion in criteria if criterion.outcome is Outcome.UNPROVEN]
        if unproven:
            pytest.skip("unproven: " + "; ".join(f"{criterion.name}: {criterion.unproven}" for criterion in unproven))

    return hold_all


def _told(found: Verdict) -> Iterator[Line]:
    """The winner and every criterion."""
    from quant.report.terminal import status_line

    for assessment in found.assessments:
        for criterion in assessment.criteria:
            yield f"{assessment.track}  {criterion}", _markup(criterion)
    for line in (*found.gate, *(f"Warning: {warning}" for warning in found.warnings)):
        yield line, {}
    yield found.headline, {"bold": True}
    for line in (*found.why, *(f"against {rival.track}: {rival.comparison}" for rival in found.against)):
        yield f"  {line}", {}
    yield status_line(found), {}


def _markup(criterion: Criterion) -> dict[str, bool]:
    return {{"pass": "green", "fail": "red", "unproven": "yellow"}[criterion.outcome.value]: True}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints what the session has to say: the verdict, what became of the baseline's figures, what a board took."""
    write(terminalreporter, closing(config))


@pytest.hookimpl(trylast=True)  # the session's fixtures are taken down by then
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker of pytest-xdist: gives it to the session that has a terminal and a JUnit file."""
    if is_worker(session.config):
        send(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Keeps the suites of a run in one worker: its board has one owner, and a session one verdict."""
    if config.option.dist != "loadfile":
        return None
    from quant.testing.schedule import ByFile

    return ByFile(config, log, [place for places in suites(config).values() for place in places])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has ended."""
    receive(node.config, getattr(node, "workeroutput", {}))
