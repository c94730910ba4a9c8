"""The regression suite in a session of its own: when the gate fails, when it is skipped, and when that is no answer."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import scipy.stats

import quant.report.comparison
import quant.runs.job
import quant.runs.regression
from quant.acceptance.accepting import accept, consider
from quant.runs.settings import Settings, write_settings
from tests.evaluation import snapshots
from tests.evaluation.snapshots import snapshot

# As in test_pytest_plugin.py: what the session within needs is imported before it forgets what it imported.
IMPORTED = (scipy.stats, snapshots, quant.runs.job, quant.runs.regression, quant.report.comparison)

pytest_plugins = ["pytester"]

HERE = Path(__file__).parent
SUITE = HERE.parent / "acceptance" / "test_regression.py"
INI = "[pytest]\naddopts = --strict-markers\nmarkers =\n    regression: as in the project\n    hil: likewise\n"

CONFTEST = """
import sys
sys.path.insert(0, {root!r})
import pytest
import quant.runs.regression
from dataclasses import replace
from tests.evaluation.snapshots import *

@pytest.fixture(scope="session")
def run():
    return None

quant.runs.regression.snapshot = lambda run: {now}
"""


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session within puts its own in place, in this process."""
    monkeypatch.setattr(quant.runs.regression, "snapshot", quant.runs.regression.snapshot)


def gate(
    pytester: pytest.Pytester, *options: str, now: str = "snapshot()", baseline: bool = True, run: bool = True
) -> pytest.RunResult:
    """The suite on a run that is ``now``, beside an accepted one."""
    pytester.makeini(INI)
    pytester.makeconftest(CONFTEST.format(root=str(HERE.parents[1]), now=now))
    pytester.makepyfile(test_regression=SUITE.read_text(), test_other="def test_other(): pass")
    if baseline:
        accept(consider(snapshot(), pytester.path / "baseline.json"))
    if run:
        (pytester.path / "now").mkdir(exist_ok=True)
        write_settings(Settings("policy.zip", tracks=("ptq",)), pytester.path / "now")
        options = ("--run", "now", *options)
    return pytester.runpytest_inprocess("-p", "quant.testing.plugin", "-p", "no:cacheprovider", "-rs", *options)


def said(result: pytest.RunResult) -> str:
    return result.stdout.str() + result.stderr.str()


def test_a_run_as_good_as_the_baseline_passes(pytester: pytest.Pytester) -> None:
    result = gate(pytester, "-m", "regression")
    result.assert_outcomes(passed=4, deselected=1)
    result.stdout.fnmatch_lines(["No regression: 8 figures hold."])


def test_a_regression_fails_and_its_figures_are_in_the_junit_file(pytester: pytest.Pytester) -> None:
    worse = 'with_figure(snapshot(), sampled("success", outcomes(140)))'
    result = gate(pytester, "-m", "regression", "--junitxml=gate.xml", "-o", "junit_family=xunit1", now=worse)
    # The candidate's own test, and that of what would be deployed.
    result.assert_outcomes(passed=2, failed=2, deselected=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["ptq success?nominal? 98.00 % -> 93.00 % (p < 0.001)", "REGRESSION: ptq success*"])
    tree = ElementTree.parse(pytester.path / "gate.xml")
    suite = {p.get("name"): p.get("value") or "" for p in tree.iterfind(".//testsuite/properties/property")}
    assert suite["baseline"] == "before" and suite["regression.ptq.success[nominal]"].startswith("worse: ")
    assert suite["regression"].startswith("REGRESSION")


def test_a_candidate_that_is_gone_fails(pytester: pytest.Pytester) -> None:
    result = gate(pytester, "-m", "regression", now='replace(snapshot(), winner="qat", subjects={"qat": figures()})')
    assert result.ret == 1
    result.stdout.fnmatch_lines(["ptq candidate missing"])


def test_other_scenarios_fail_and_say_why(pytester: pytest.Pytester) -> None:
    result = gate(pytester, "-m", "regression", now='under(snapshot(), "driving", world="lanes")')
    result.assert_outcomes(passed=3, failed=1, deselected=1)
    result.stdout.fnmatch_lines(["not comparable: other world: convoy, now lanes"])


def test_without_a_baseline_the_plain_suite_skips_with_a_reason(pytester: pytest.Pytester) -> None:
    result = gate(pytester, baseline=False)
    result.assert_outcomes(passed=1, skipped=4)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["SKIPPED*there is no baseline*quant accept RUN*"])


@pytest.mark.parametrize("options", [("-m", "not hil"), ("-m", "not (hil and regression)"), ("-k", "regression")])
def test_it_is_skipped_too_where_it_was_not_asked_for_by_its_marker(
    pytester: pytest.Pytester, options: tuple[str, ...]
) -> None:
    assert gate(pytester, *options, baseline=False).ret == 0


def test_without_a_run_there_is_nothing_to_hold_and_none_is_made(pytester: pytest.Pytester) -> None:
    result = gate(pytester, run=False)
    result.assert_outcomes(passed=1, skipped=5)
    result.stdout.fnmatch_lines(["SKIPPED*there is no run to hold against the baseline*--run DIR*"])


@pytest.mark.parametrize(
    "options", [("-m", "regression"), ("-m", "regression and not hil"), ("--baseline", "elsewhere.json")]
)
def test_asked_for_without_a_baseline_it_is_a_usage_error(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    result = gate(pytester, *options, baseline=False)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said(result).count("there is no baseline") == 1 and "quant accept RUN" in said(result)


def test_asked_for_without_a_run_it_is_a_usage_error(pytester: pytest.Pytester) -> None:
    result = gate(pytester, "-m", "regression", run=False)
    assert result.ret == pytest.ExitCode.USAGE_ERROR and "--run DIR" in said(result)


def test_a_malformed_baseline_ends_the_session_with_2(pytester: pytest.Pytester) -> None:
    (pytester.path / "baseline.json").write_text("{}")
    result = gate(pytester, "-m", "regression", baseline=False)
    assert result.ret == 2 and "not a baseline of this version" in said(result)


def test_another_file_may_be_named(pytester: pytest.Pytester) -> None:
    accept(consider(snapshot(name="other"), pytester.path / "other.json"))
    result = gate(pytester, "-m", "regression", "--baseline", "other.json", baseline=False)
    assert result.ret == 0 and "before against other" in said(result)


def test_a_wrong_marker_expression_is_pytests_to_refuse(pytester: pytest.Pytester) -> None:
    assert "there is no baseline" not in said(gate(pytester, "-m", "regression and", baseline=False))
