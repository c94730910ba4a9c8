"""The plugin, run in a session of its own on a hand-made run: what fails, what is skipped, what is written down."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import scipy.stats

import quant.report.terminal
import quant.runs.job
from quant.runs.settings import Settings, write_settings
from tests.evaluation import synthetic

# A session within this one forgets what it has imported when it ends, and NumPy cannot be imported twice: so everything
# it needs is imported here, before.
IMPORTED = (scipy.stats, synthetic, quant.runs.job, quant.report.terminal)

pytest_plugins = ["pytester"]

HERE = Path(__file__).parent
ACCEPTANCE = HERE.parent / "acceptance" / "test_acceptance.py"

CONFTEST = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from types import SimpleNamespace
import pytest
from tests.evaluation.synthetic import assessed, candidate, driven, evaluated, reference, stressed, undriven_reference
from quant.acceptance.assessment import assess
from quant.acceptance.decision import decide

@pytest.fixture(scope="session")
def run():
    original = {original}
    found = stressed("ptq", "qat")
    made = {{"ptq": candidate("ptq"), "qat": candidate("qat", {qat_bytes})}}
    evaluations = {{name: evaluated(one, {driving}) for name, one in made.items()}}
    def verdict(limits):
        assessments = [assess(one, evaluations[name], original, limits, (), found) for name, one in made.items()]
        return decide(assessments, {{"float": original}} | evaluations, limits)
    return SimpleNamespace(folder=Path("made"), evaluations={{"float": original}} | evaluations, verdict=verdict)
"""


def judge(
    pytester: pytest.Pytester,
    *options: str,
    original: str = "reference()",
    driving: str = "driven(4, 4)",
    qat_bytes: int = 3000,
) -> pytest.RunResult:
    pytester.makeconftest(
        CONFTEST.format(root=str(HERE.parents[1]), original=original, driving=driving, qat_bytes=qat_bytes)
    )
    pytester.makepyfile(test_acceptance=ACCEPTANCE.read_text())
    options = ("-p", "quant.testing.plugin", "-p", "no:cacheprovider", "-ra", *options)
    return pytester.runpytest_inprocess(*options)


def judge_folder(pytester: pytest.Pytester, folder: Path) -> pytest.RunResult:
    """The suite on a folder that is really read."""
    pytester.makepyfile(test_acceptance=ACCEPTANCE.read_text())
    return pytester.runpytest_inprocess("-p", "quant.testing.plugin", "-p", "no:cacheprovider", "--run", str(folder))


def test_an_unfinished_run_ends_the_session_with_one_message(pytester: pytest.Pytester, tmp_path: Path) -> None:
    write_settings(Settings("policy.zip", tracks=("ptq", "qat")), tmp_path)
    result = judge_folder(pytester, tmp_path)
    said = result.stdout.str() + result.stderr.str()
    assert result.ret == 2
    assert said.count("the run is not finished") == 1 and "Error" not in said


def test_a_run_without_candidates_is_a_usage_error(pytester: pytest.Pytester, tmp_path: Path) -> None:
    write_settings(Settings("policy.zip"), tmp_path)
    result = judge_folder(pytester, tmp_path)
    said = result.stdout.str() + result.stderr.str()
    assert said.count("no candidate yet") == 1 and f"quant ptq {tmp_path}" in said
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "Traceback" not in said and "passed" not in said


def test_without_a_winner_the_reasons_are_all_that_is_printed(pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", strict="model_bytes = 4")
    said = judge(pytester, "--limits", "strict.toml", "-k", "winner").stdout.str()
    assert "is out" in said
    assert "Verdict(" not in said


def test_a_good_run_passes_all_but_what_only_a_board_shows(
    pytester: pytest.Pytester,
) -> None:
    result = judge(pytester)
    result.assert_outcomes(passed=14, skipped=10)
    result.stdout.fnmatch_lines(
        [
            "Deploy PTQ (a tie with QAT, decided on*",
            "*winner provisional",
            "SKIPPED*unproven: latency: no board has run this yet; latency_max: no board has run this yet",
        ]
    )


def test_a_sub_model_too_large_fails_its_own_test_and_no_other(pytester: pytest.Pytester) -> None:
    result = judge(pytester, qat_bytes=102_401)
    result.assert_outcomes(passed=13, skipped=10, failed=1)
    result.stdout.fnmatch_lines(["peer_encoder_bytes: fail, 102401 bytes > 102400 bytes*", "*qat is out*"])


def test_a_limit_of_the_users_own_is_held(pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", strict="model_bytes = 4000")
    result = judge(pytester, "--limits", "strict.toml")
    result.assert_outcomes(passed=11, skipped=10, failed=3)


def test_a_wrong_limits_file_ends_the_session_with_2(pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", wrong="model_kilobytes = 4")
    result = judge(pytester, "--limits", "wrong.toml")
    assert result.ret == 2
    assert "unknown limit 'model_kilobytes'" in result.stdout.str() + result.stderr.str()


def test_a_blind_world_is_a_failure_and_success_is_skipped(pytester: pytest.Pytester) -> None:
    result = judge(pytester, original="reference(neutral=8)")
    result.assert_outcomes(passed=11, skipped=12, failed=1)
    result.stdout.fnmatch_lines(["SKIPPED*unproven: success_drop*the world is blind*"])


def test_without_a_world_driving_is_skipped(pytester: pytest.Pytester) -> None:
    result = judge(pytester, original="undriven_reference()", driving="None")
    result.assert_outcomes(passed=11, skipped=13)
    result.stdout.fnmatch_lines(["SKIPPED*driving was not tested"])


def test_the_figures_are_in_the_junit_file_even_of_what_fails(pytester: pytest.Pytester) -> None:
    judge(pytester, "--junitxml=acceptance.xml", qat_bytes=102_401)
    tree = ElementTree.parse(pytester.path / "acceptance.xml")
    properties = {p.get("name"): p.get("value") for p in tree.iterfind(".//testsuite/properties/property")}
    assert properties["winner"] == "ptq"
    assert properties["status"] == "provisional"
    assert (properties["qat.peer_encoder_bytes"] or "").startswith("peer_encoder_bytes: fail")
    failed = [case for case in tree.iterfind(".//testcase") if case.find("failure") is not None]
    values = {p.get("name"): p.get("value") for p in failed[0].iterfind("properties/property")}
    assert values["peer_encoder_bytes.value"] == "102401"


def test_a_folder_that_is_no_run_is_a_usage_error(pytester: pytest.Pytester) -> None:
    result = judge(pytester, "--run", "nowhere")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert (result.stdout.str() + result.stderr.str()).count("no such run folder") == 1
