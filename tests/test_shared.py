"""The run that is made where none is given: once a session, however many workers there are, and nobody's but theirs."""

from __future__ import annotations

import pytest

from tests.commandline import LEAN

pytest_plugins = ["pytester"]

CONFTEST = """
import os, time
from pathlib import Path

import quant.runs.job
import quant.runs.reading

MADE = Path(__file__).with_name("made")

def made(folder):
    with MADE.open("a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(0.5)
    if Path("fail").exists() and len(MADE.read_text().split()) == 1:
        raise RuntimeError("not this time")
    folder.mkdir()
    (folder / "artifact").write_text("made")
    return folder

quant.runs.job.reference_run = made
quant.runs.reading.open_run = lambda folder: folder
pytest_plugins = ["quant.testing.plugin"]
"""
TESTS = """
import pytest

@pytest.mark.parametrize("k", range(4))
def test_it_is_there(run, k):
    assert (run / "artifact").read_text() in {"made", "mine"}
    (run / "artifact").write_text("mine")
"""


@pytest.fixture
def session(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini(f"[pytest]\naddopts = {LEAN}\n")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_one=TESTS, test_two=TESTS, test_three=TESTS)
    return pytester


@pytest.mark.parametrize("dist", ["load", "loadfile", "worksteal"])
def test_workers_make_it_once_and_each_has_its_own(session: pytest.Pytester, dist: str) -> None:
    base = session.path / "base"
    result = session.runpytest_subprocess("-n", "2", "--dist", dist, f"--basetemp={base}")
    result.assert_outcomes(passed=12)
    assert len((session.path / "made").read_text().split()) == 1
    # What the workers did to theirs, the one that was made has not seen.
    assert (base / "reference" / "reference" / "artifact").read_text() == "made"


def test_one_process_makes_it_once(session: pytest.Pytester) -> None:
    session.runpytest_subprocess("-p", "no:xdist").assert_outcomes(passed=12)
    assert len((session.path / "made").read_text().split()) == 1


def test_what_could_not_be_made_is_tried_by_the_next_worker(session: pytest.Pytester) -> None:
    (session.path / "fail").touch()
    result = session.runpytest_subprocess("-n", "2", "--dist", "load")
    assert "not this time" in result.stdout.str()
    assert result.parseoutcomes().get("passed", 0) >= 1
    assert len((session.path / "made").read_text().split()) == 2
