"""The acceptance suite's half of pytest: the run under test, its verdict, and the summary at the end.

    pytest tests/acceptance --run runs/ego6 --limits limits.toml --junitxml=acceptance.xml
    pytest -m regression --run runs/ego6 --baseline baseline.json

Without ``--run`` the reference policy is quantized and judged once a session, in a temporary folder. A test that holds
a criterion records it first and asserts after, so that the figures of a failed criterion are in the JUnit file too. An
unproven criterion is skipped with its reason; it never counts as passed.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from quant.errors import QuantError

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

_tracks_key: pytest.StashKey[tuple[str, ...]] = pytest.StashKey()
_verdict_key: pytest.StashKey[Verdict] = pytest.StashKey()
_comparison_key: pytest.StashKey[Comparison] = pytest.StashKey()

REGRESSION = "regression"
"""The marker of tests that hold a run against the baseline."""
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


def pytest_configure(config: pytest.Config) -> None:
    """Reads the run's tracks: a folder that is none is told once here, and later once for each file of tests."""
    for name, words in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {words}")
    folder = config.getoption("--run")
    if folder is not None:
        config.stash[_tracks_key] = _tracks(given_path(config, folder))
    # What was asked for by name is never skipped: a gate that held nothing must not be green.
    asked = config.getoption("--baseline") is not None or _asks_for_regression(config.option.markexpr)
    reason = _without_baseline(config)
    if asked and reason:
        raise pytest.UsageError(reason)


def _asks_for_regression(expression: str) -> bool:
    """Whether ``-m`` selects a test for this marker, and not for the lack of another, as ``not hil`` would."""

    def selects(node: ast.expr, marks: frozenset[str]) -> bool:
        if isinstance(node, ast.BoolOp):
            each = [selects(value, marks) for value in node.values]
            return all(each) if isinstance(node.op, ast.And) else any(each)
        if isinstance(node, ast.UnaryOp):
            return not selects(node.operand, marks)
        return isinstance(node, ast.Name) and node.id in marks

    try:
        parsed = ast.parse(expression.strip(), mode="eval").body
    except SyntaxError:
        # pytest itself says what is wrong with it.
        return False
    return selects(parsed, frozenset({REGRESSION})) and not selects(parsed, frozenset())


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
    from quant.runs.job import reference_run
    from quant.runs.reading import open_run

    folder = pytestconfig.getoption("--run")
    try:
        if folder is None:
            return reference_run(tmp_path_factory.mktemp("quant") / "reference")
        return open_run(given_path(pytestconfig, folder))
    except QuantError as error:
        pytest.exit(str(error), returncode=error.exit_code)


@pytest.fixture(scope="session")
def comparison(
    run: Run, pytestconfig: pytest.Config, record_testsuite_property: Callable[[str, object], None]
) -> Comparison:
    """The run held against the baseline; every figure of it is in the JUnit file, whatever came of it."""
    from quant.acceptance.baseline import load_baseline
    from quant.acceptance.comparison import compare
    from quant.runs.regression import snapshot

    try:
        found = compare(load_baseline(_baseline_path(pytestconfig)), snapshot(run))
    except QuantError as error:
        pytest.exit(str(error), returncode=error.exit_code)
    pytestconfig.stash[_comparison_key] = found
    record_testsuite_property("baseline", found.before)
    record_testsuite_property("regression", found.headline)
    for finding in found.findings:
        record_testsuite_property(f"regression.{finding.subject}.{finding.name}", f"{finding.change.value}: {finding}")
    return found


@pytest.fixture(scope="session")
def publish(
    run: Run, pytestconfig: pytest.Config, record_testsuite_property: Callable[[str, object], None]
) -> Callable[[Verdict], None]:
    """Puts a verdict into the JUnit file and into the summary at the end of the session; the last one counts."""

    def put(found: Verdict) -> None:
        pytestconfig.stash[_verdict_key] = found
        record_testsuite_property("run", str(run.folder))
        record_testsuite_property("winner", found.winner or "none")
        record_testsuite_property("status", found.status)
        record_testsuite_property("basis", found.basis)
        record_testsuite_property("device", found.device)
        for name, digest in found.hashes.items():
            record_testsuite_property(f"sha256.{name}", digest or "none")
        for assessment in found.assessments:
            for criterion in assessment.criteria:
                record_testsuite_property(f"{assessment.track}.{criterion.name}", str(criterion))

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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the winner and every criterion, if a verdict was reached, and what became of the baseline's figures."""
    held = config.stash.get(_comparison_key, None)
    if held is not None:
        from quant.report.comparison import comparison
        from quant.report.text import as_text

        terminalreporter.section(REGRESSION)
        terminalreporter.write(as_text(comparison(held), 80))
    found = config.stash.get(_verdict_key, None)
    if found is None:
        return
    from quant.report.terminal import status_line

    terminalreporter.section("acceptance")
    for assessment in found.assessments:
        for criterion in assessment.criteria:
            terminalreporter.line(f"{assessment.track}  {criterion}", **_markup(criterion))
    for line in (*found.gate, *(f"Warning: {warning}" for warning in found.warnings)):
        terminalreporter.line(line)
    terminalreporter.line(found.headline, bold=True)
    for line in (*found.why, *(f"against {rival.track}: {rival.comparison}" for rival in found.against)):
        terminalreporter.line(f"  {line}")
    terminalreporter.line(status_line(found))


def _markup(criterion: Criterion) -> dict[str, bool]:
    return {{"pass": "green", "fail": "red", "unproven": "yellow"}[criterion.outcome.value]: True}
