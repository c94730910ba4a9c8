"""What a retraining did to the float policy itself is told where two runs are compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quant.acceptance.comparison import compare
from quant.acceptance.limits import Limits
from quant.policy import Policy, save_policy
from quant.runs.job import run_all
from quant.runs.reading import open_run
from quant.runs.regression import float_against_float, snapshot
from quant.runs.run import Run
from quant.runs.settings import Settings
from tests.tracks import strategies

LIMITS = Limits(action_disagreement=0.3)


def made(folder: Path, policy: Policy) -> Run:
    save_policy(policy, folder.with_suffix(".npz"))
    drive = strategies.write_drive(folder.with_suffix(".drive.npz"), strategies.frames(700, 1, ego=6, slots=4, most=3))
    settings = Settings("policy", (str(drive),), stress_frames=2000)
    run_all(folder.with_suffix(".npz"), folder, settings, LIMITS, tracks=("ptq",))
    return open_run(folder)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return strategies.policy(2, ego=6)


@pytest.fixture(scope="module")
def before(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made(tmp_path_factory.mktemp("runs") / "before", policy)


def never_acts(policy: Policy) -> Policy:
    last = policy.head[-1]
    return replace(policy, head=(*policy.head[:-1], replace(last, bias=last.bias - np.float32(50))))


def test_a_retrained_policy_that_never_acts_is_told_and_is_no_progress(
    before: Run, policy: Policy, tmp_path: Path
) -> None:
    now = made(tmp_path / "after", never_acts(policy))
    first, second = float_against_float(before, now)
    assert "of before" in first and "of after" in second and "now in 0.0%" in first
    found = compare(snapshot(before), snapshot(now))
    assert found.exit_code == 1 and "blind in the later run" in str([str(one) for one in found.regressions])
    acts = next(one for one in found.findings if one.name == "acts[recorded]")
    assert acts.regression and acts.now == 0 and (acts.before or 0) > 0
    assert "(blind: the later float policy hardly acts" in str(acts)


def test_of_the_same_policy_there_is_nothing_to_tell(before: Run) -> None:
    assert float_against_float(before, before) == ()
    figures = {figure.name for figure in snapshot(before).subjects["ptq"]}
    assert {"missed_action", "false_action", "worst_deviation", "uncovered"} <= figures
