"""Who wins, by which rule, and whether the record says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quant.acceptance.assessment import Assessment
from quant.acceptance.decision import Verdict, decide
from quant.acceptance.device import DEVICE_CRITERIA
from quant.errors import InputError, StaleError
from quant.evaluation.evaluation import Evaluation
from quant.evaluation.outcomes import SliceOutcome
from quant.tracks.candidate import Candidate
from tests.evaluation.synthetic import (
    LIMITS,
    assessed,
    candidate,
    driven,
    evaluated,
    frames,
    reference,
    shown,
    undriven_reference,
)

Driving = tuple[SliceOutcome, ...]


def judged(*contestants: tuple[Candidate, Driving], original: Evaluation | None = None) -> Verdict:
    original = original or reference()
    evaluations = {made.track: evaluated(made, driving) for made, driving in contestants}
    assessments = [assessed(made, evaluations[made.track], original) for made, _ in contestants]
    return decide(assessments, {"float": original} | evaluations, LIMITS)


def framed(ptq: tuple[int, float], qat: tuple[int, float], sizes: tuple[int, int] = (5000, 5000)) -> Verdict:
    original = undriven_reference()
    made = {"ptq": candidate("ptq", head_bytes=sizes[0]), "qat": candidate("qat", head_bytes=sizes[1])}
    evaluations = {
        "ptq": evaluated(made["ptq"], None, frames(*ptq)),
        "qat": evaluated(made["qat"], None, frames(*qat)),
    }
    assessments = [assessed(made[name], evaluation, original) for name, evaluation in evaluations.items()]
    return decide(assessments, {"float": original} | evaluations, LIMITS)


def test_the_significantly_better_success_rate_wins() -> None:
    verdict = judged((candidate("ptq"), driven(20, 8)), (candidate("qat"), driven(4, 4)))
    assert (verdict.winner, verdict.tie, verdict.decided_on) == ("qat", False, "success rate")
    rival = verdict.against[0]
    assert rival.paired is not None
    assert (rival.paired.losses, rival.paired.wins) == (20, 0)


def test_a_difference_that_is_not_significant_is_a_tie_that_collisions_decide() -> None:
    # qat fails one episode more than ptq, but collides less: its failures are needless braking.
    calm = tuple(SliceOutcome(s.name, s.success, s.success & False, s.needless, s.reward) for s in driven(6, 4))
    verdict = judged((candidate("ptq"), driven(5, 4)), (candidate("qat"), calm))
    assert (verdict.winner, verdict.tie, verdict.decided_on) == ("qat", True, "collisions")
    assert "a tie" in verdict.headline
    assert any("tie with ptq" in sentence for sentence in verdict.why)


@pytest.mark.parametrize(("lost", "tie"), [(5, True), (6, False)])
def test_the_line_between_a_tie_and_a_win_is_the_exact_test(lost: int, tie: bool) -> None:
    # Five of five discordant pairs: p = 2/32 = .0625; six of six: p = 2/64 = .031.
    verdict = judged((candidate("ptq"), driven(4 + lost, 4)), (candidate("qat"), driven(4, 4)))
    assert (verdict.winner, verdict.tie) == ("qat", tie)


def test_equal_collisions_leave_it_to_the_reward_then_the_size_then_the_name() -> None:
    ptq, qat = candidate("ptq"), candidate("qat")
    by_reward = judged((ptq, driven(5, 4, reward=-1.0)), (qat, driven(5, 4, reward=-0.9)))
    assert (by_reward.winner, by_reward.decided_on) == ("qat", "mean reward")
    by_size = judged((candidate("ptq", 3001), driven(5, 4)), (qat, driven(5, 4)))
    assert (by_size.winner, by_size.decided_on) == ("qat", "size")
    by_name = judged((qat, driven(5, 4)), (ptq, driven(5, 4)))
    assert by_name.winner == "ptq"
    assert by_name.decided_on is not None
    assert "names" in by_name.decided_on


def test_a_candidate_that_fails_anything_is_out_however_well_it_drives() -> None:
    verdict = judged((candidate("ptq"), driven(5, 4)), (candidate("qat", 102_401), driven(4, 4)))
    assert verdict.winner == "ptq"
    assert any("qat is out: peer_encoder_bytes: fail" in sentence for sentence in verdict.why)
    assert not verdict.against[0].eligible


def test_no_eligible_candidate_means_no_winner_and_exit_code_1(tmp_path: Path) -> None:
    verdict = judged((candidate("ptq"), driven(80, 4)), (candidate("qat", 102_401), driven(4, 4)))
    assert (verdict.winner, verdict.status, verdict.exit_code) == (None, "none", 1)
    assert len(verdict.why) == 2
    verdict.save(tmp_path / "winner.json")
    assert json.loads((tmp_path / "winner.json").read_text())["winner"] is None


def test_an_unproven_criterion_makes_the_winner_provisional_and_says_what_would_confirm_it() -> None:
    verdict = judged((candidate("ptq"), driven(4, 4)))
    assert (verdict.winner, verdict.status, verdict.exit_code) == ("ptq", "provisional", 0)
    assert verdict.to_confirm == tuple(
        f"{name}: no board has run this yet; run pytest -m hil with the target board" for name in DEVICE_CRITERIA
    )
    assert verdict.device == "ESP32 latency + memory: unproven - no board has run this yet"


def test_with_everything_measured_on_the_target_the_winner_is_confirmed() -> None:
    made, original = candidate("ptq"), reference()
    evaluation = evaluated(made, driven(4, 4))
    assessment = assessed(made, evaluation, device=shown())
    verdict = decide([assessment], {"float": original, "ptq": evaluation}, LIMITS)
    assert (verdict.status, verdict.to_confirm) == ("confirmed", ())
    document = verdict.to_json()
    assert document["evidence"]["latency"] == "measured"
    assert document["device"].startswith("ESP32 latency + memory: confirmed - latency 2 ms <= 50 ms (measured: ")


@pytest.mark.parametrize("changes", [{"evidence": "emulated"}, {"evidence": "simulated"}, {"chip": "esp32s3"}])
def test_what_is_not_measured_on_the_target_leaves_the_winner_provisional(changes: dict[str, Any]) -> None:
    made, original = candidate("ptq"), reference()
    evaluation = evaluated(made, driven(4, 4))
    assessment = assessed(made, evaluation, device=shown(**changes))
    verdict = decide([assessment], {"float": original, "ptq": evaluation}, LIMITS)
    assert verdict.status == "provisional"
    assert verdict.device.startswith("ESP32 latency + memory: unproven - ")


def test_a_measured_failure_puts_a_candidate_out() -> None:
    slow, original = candidate("ptq"), reference()
    evaluation = evaluated(slow, driven(4, 4))
    assessment = assessed(slow, evaluation, device=shown(latency_max_ms=51.0))
    assert decide([assessment], {"float": original, "ptq": evaluation}, LIMITS).winner is None


def test_in_a_blind_world_the_frames_decide_and_the_record_warns() -> None:
    blind = reference(neutral=8)
    verdict = judged((candidate("ptq"), driven(90, 4)), (candidate("qat"), driven(4, 4)), original=blind)
    assert (verdict.basis, verdict.status) == ("open loop", "provisional")
    assert any("proves nothing" in warning for warning in verdict.warnings)
    assert any("open-loop figures decide" in warning for warning in verdict.warnings)


def test_three_candidates_compete_on_equal_terms() -> None:
    verdict = judged(
        (candidate("ptq"), driven(6, 4)), (candidate("qat"), driven(30, 4)), (candidate("new"), driven(4, 4))
    )
    assert verdict.winner == "new"
    assert {rival.track for rival in verdict.against} == {"ptq", "qat"}


@pytest.mark.parametrize(
    ("ptq", "qat", "winner", "tie", "decided_on"),
    [
        ((980, 0.005), (990, 0.009), "qat", False, "action agreement"),
        ((988, 0.005), (990, 0.009), "ptq", False, "mean error"),
        ((988, 0.0100), (990, 0.0105), "ptq", True, "mean error"),
    ],
)
def test_without_a_world_agreement_decides_then_the_mean_error(
    ptq: tuple[int, float], qat: tuple[int, float], winner: str, tie: bool, decided_on: str
) -> None:
    verdict = framed(ptq, qat)
    assert (verdict.basis, verdict.winner, verdict.tie, verdict.decided_on) == ("open loop", winner, tie, decided_on)
    assert "driving was not tested" in verdict.warnings[0]
    assert verdict.status == "provisional"


def test_without_a_world_the_smaller_of_two_that_tie_wins() -> None:
    verdict = framed((990, 0.0100), (990, 0.0105), sizes=(5001, 5000))
    assert (verdict.winner, verdict.tie, verdict.decided_on) == ("qat", True, "size")


def test_the_record_holds_everything_and_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        judged((candidate("ptq"), driven(20, 8)), (candidate("qat"), driven(4, 4))).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    document = json.loads((tmp_path / "one").read_text())
    assert document["evidence"]["success_drop[lossy]"] == "computed"
    assert document["evidence"]["latency"] == "none"
    assert {c["name"] for c in document["candidates"]["ptq"]["criteria"]} == set(document["evidence"])
    assert document["candidates"]["ptq"]["bytes"] == {"peer_encoder": 3000, "policy_head": 5000, "total": 8000}
    assert document["limits"]["model_bytes"] == 102_400
    assert len(document["gate"]) == 4


def test_what_cannot_be_decided_is_an_error() -> None:
    with pytest.raises(InputError, match="no candidate"):
        decide([], {"float": reference()}, LIMITS)
    made = candidate("ptq")
    assessments: list[Assessment] = [assessed(made, evaluated(made, driven(4, 4)))]
    with pytest.raises(InputError, match="not been evaluated"):
        decide(assessments, {"float": reference()}, LIMITS)
    with pytest.raises(StaleError, match="another scenarios"):
        decide(assessments, {"float": reference(), "ptq": evaluated(made, driven(4, 4), scenarios="d" * 64)}, LIMITS)
