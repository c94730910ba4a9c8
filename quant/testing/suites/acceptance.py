"""The acceptance criteria of a run, each track on its own."""

from __future__ import annotations

import pytest

from quant.acceptance.assessment import UNSEEN, Assessment
from quant.acceptance.criterion import Criterion
from quant.acceptance.decision import Verdict
from quant.acceptance.device import BYTES, MEMORY, TIMES
from quant.acceptance.limits import Limits
from quant.acceptance.stress import FALSE, MISSED, WORST
from quant.evaluation.evaluation import FLOAT, NO_WORLD
from quant.evaluation.gate import blindness, gate_results
from quant.runs.run import Run
from quant.testing.plugin import Hold


def named(assessment: Assessment, prefix: str) -> tuple[Criterion, ...]:
    return tuple(criterion for criterion in assessment.criteria if criterion.name.startswith(prefix))


def test_the_candidate_keeps_the_float_policys_success_on_every_slice(assessment: Assessment, hold: Hold) -> None:
    hold(*named(assessment, "success_"))


def test_the_candidate_decides_as_the_float_policy_does(assessment: Assessment, hold: Hold) -> None:
    hold(*named(assessment, "action_disagreement"))


def test_the_track_decides_so_on_drives_it_was_made_without(assessment: Assessment, hold: Hold) -> None:
    found = named(assessment, UNSEEN)
    if not found:
        pytest.skip("unproven: no drive was left out, so nothing unseen was looked at")
    hold(*found)


def test_the_candidate_acts_wherever_the_float_policy_acts(assessment: Assessment, hold: Hold) -> None:
    hold(*named(assessment, MISSED))


def test_the_candidate_rests_wherever_the_float_policy_rests(assessment: Assessment, hold: Hold) -> None:
    hold(*named(assessment, FALSE))


def test_the_worst_that_was_found_keeps_its_limit(assessment: Assessment, hold: Hold) -> None:
    found = named(assessment, WORST)
    if not found:
        pytest.skip(f"no limit: {WORST} is not set")
    hold(*found)


def test_the_peer_encoder_fits(assessment: Assessment, hold: Hold) -> None:
    hold(*named(assessment, "peer_encoder_bytes"))


def test_the_policy_head_fits(assessment: Assessment, hold: Hold) -> None:
    hold(*named(assessment, "policy_head_bytes"))


def test_the_candidate_decides_in_time_on_the_board(assessment: Assessment, hold: Hold) -> None:
    hold(*(criterion for criterion in assessment.criteria if criterion.name in TIMES))


def test_the_board_gives_the_hosts_bytes(assessment: Assessment, hold: Hold) -> None:
    hold(*named(assessment, BYTES))


def test_the_board_has_memory_to_spare(assessment: Assessment, hold: Hold) -> None:
    hold(*(criterion for criterion in assessment.criteria if criterion.name in MEMORY))


def test_the_world_tells_good_driving_from_bad(run: Run, limits: Limits) -> None:
    reference = run.evaluations[FLOAT]
    if reference.closed_loop is None:
        pytest.skip(f"unproven: {NO_WORLD}")
    assert blindness(reference, limits.success_drop) == {}, [
        str(result) for result in gate_results(reference, limits.success_drop)
    ]


def test_there_is_a_winner(verdict: Verdict) -> None:
    if verdict.winner is None:
        pytest.fail("\n".join(verdict.why), pytrace=False)
