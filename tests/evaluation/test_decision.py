"""Who wins, by which rule, and whether the record says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quant.acceptance.assessment import Assessment, assess
from quant.acceptance.decision import Verdict, decide
from quant.acceptance.device import DEVICE_CRITERIA
from quant.errors import InputError, StaleError
from quant.evaluation.evaluation import Evaluation
from quant.evaluation.outcomes import SliceOutcome
from quant.evaluation.power import detectable_drop
from quant.evaluation.statistics import Paired
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
    assert rival.contest is not None
    assert (rival.contest.success.losses, rival.contest.success.wins) == (20, 0)


def test_a_difference_that_is_not_significant_is_a_tie_that_collisions_decide() -> None:
    # qat fails one episode more than ptq, but collides less: its failures are needless braking.
    calm = tuple(SliceOutcome(s.name, s.success, s.success & False, s.needless, s.reward) for s in driven(6, 4))
    verdict = judged((candidate("ptq"), driven(5, 4)), (candidate("qat"), calm))
    assert (verdict.winner, verdict.tie, verdict.decided_on) == ("qat", True, "collisions")
    assert "(a tie with PTQ, decided on collisions)" in verdict.headline
    assert "it is a tie with ptq, decided on collisions (qat 0, ptq 9)" in verdict.why
    assert verdict.tied == ("qat", "ptq")


def test_with_three_candidates_the_line_is_that_of_holm_over_their_pairs() -> None:
    """What wins between two (six of six, p = .031) is a tie among three, .031 * 3 = .094; eight of eight still wins."""
    ptq, qat, new = candidate("ptq"), candidate("qat"), candidate("new")
    tie = judged((ptq, driven(10, 4)), (qat, driven(10, 4)), (new, driven(4, 4)))
    assert (tie.winner, tie.tied, tie.decided_on) == ("new", ("new", "ptq", "qat"), "collisions")
    assert "it is a tie with ptq and qat, decided on collisions (new 8, ptq 14, qat 14)" in tie.why
    assert {(pair.tests, pair.adjusted) for pair in tie.pairs if "new" in (pair.first, pair.second)} == {(3, 0.09375)}
    assert "McNemar p = 0.031, 0.094 after Holm" in tie.against[0].comparison
    won = judged((ptq, driven(12, 4)), (qat, driven(12, 4)), (new, driven(4, 4)))
    assert (won.winner, won.tied) == ("new", ())
    assert "success rate decided against ptq and qat" in won.why


def test_what_could_have_been_seen_between_candidates_is_that_of_holms_strictest_step() -> None:
    three = [(candidate("ptq"), driven(10, 4)), (candidate("qat"), driven(10, 4)), (candidate("new"), driven(4, 4))]
    verdict = judged(*three)
    for pair in verdict.pairs:
        assert pair.detectable is not None
        assert pair.detectable == detectable_drop(pair.success, LIMITS.tie_significance / 3)
        assert pair.detectable > (detectable_drop(pair.success) or 1.0)
    found = {(one.first, one.second): one.detectable for one in verdict.pairs}
    for rival in verdict.against:
        assert rival.contest is not None and rival.contest.detectable == found[rival.track, "new"]
    (pair,) = judged(*three[:2]).pairs
    assert pair.detectable == detectable_drop(pair.success, LIMITS.tie_significance)


def test_a_candidate_apart_from_the_tie_is_said_to_be() -> None:
    verdict = judged(
        (candidate("ptq"), driven(4, 4)), (candidate("qat"), driven(5, 4)), (candidate("new"), driven(30, 4))
    )
    assert verdict.tied == ("ptq", "qat")
    assert "new is behind and no part of the tie" in verdict.why


def test_a_candidate_whose_success_is_shown_goes_before_a_better_one_whose_is_not() -> None:
    # qat fails 26 episodes, ptq 28; but 18 of qat's are lost on the 200 lossy ones: its bound is too high.
    ptq, qat = (candidate("ptq"), driven(20, 8)), (candidate("qat"), driven(4, 22))
    verdict = judged(ptq, qat)
    assert (verdict.winner, verdict.tied, verdict.decided_on) == ("ptq", (), "proof of success")
    assert verdict.why[-1] == "qat not shown to keep the limits of success, and so behind ptq"
    assert not any("decided against" in sentence for sentence in verdict.why)
    assert [(rival.track, rival.eligible) for rival in verdict.against] == [("qat", True)]
    assert "success is not proven" not in verdict.headline


@pytest.mark.parametrize(("required", "winner"), [(False, "qat"), (True, "ptq")])
def test_a_margin_that_is_asked_for_is_to_be_shown_as_well(required: bool, winner: str) -> None:
    """Within 3 points six of 400 episodes lost are shown, three of 200 are not, though they are fewer."""
    limits = replace(LIMITS, success_margin_required=required, success_margin_points=3.0)
    made = {"ptq": driven(10, 4), "qat": driven(4, 7)}
    evaluations = {name: evaluated(candidate(name), driving) for name, driving in made.items()}
    assessments = [assess(candidate(name), one, reference(), limits) for name, one in evaluations.items()]
    verdict = decide(assessments, {"float": reference()} | evaluations, limits)
    assert verdict.winner == winner
    assert verdict.decided_on == ("proof of success" if required else "collisions")


def test_a_winner_whose_success_is_not_proven_says_so_in_the_line_everybody_reads() -> None:
    verdict = judged((candidate("qat"), driven(4, 22)))
    assert (verdict.winner, verdict.status, verdict.exit_code) == ("qat", "provisional", 0)
    assert verdict.headline == "Deploy QAT. The verdict is provisional: success is not proven."
    assert verdict.to_confirm[0].startswith("success_drop[lossy]: 9.18 % lost keeps the limit, but 200 ")
    assert verdict.to_confirm[0].endswith("evaluate on more episodes")


def test_success_is_never_said_alone() -> None:
    verdict = judged((candidate("ptq"), driven(8, 6)), (candidate("qat"), driven(4, 4)))
    driving = "; needless braking 0.25 m/s an episode"
    assert (
        f"float succeeds in 592 of 600 episodes (98.67%; slices: nominal, lossy); collisions in 8 (1.33%){driving}"
        in (verdict.why)
    )
    assert (
        f"qat succeeds in 592 of 600 episodes (98.67%; slices: nominal, lossy); collisions in 8 (1.33%){driving}"
        in (verdict.why)
    )
    (rival,) = verdict.against
    assert "ptq alone in 0 (McNemar p = 0.031); qat alone collides in 0, ptq alone in 6 (p = 0.031)" in rival.comparison
    assert "collisions 8 against 14" in rival.comparison and "needless braking 0.25 against 0.25" in rival.comparison


def test_every_candidate_stands_against_float_slice_by_slice_in_the_record() -> None:
    document = judged((candidate("ptq"), driven(8, 4)), (candidate("qat"), driven(4, 4))).to_json()
    assert document["schema_version"] == 4
    nominal, lossy = document["versus_float"]["ptq"]
    assert (nominal["slice"], nominal["only_first_succeeds"], nominal["only_second_succeeds"]) == ("nominal", 4, 0)
    assert (nominal["lost_points"]["value"], nominal["noninferiority"], lossy["episodes"]) == (1.0, "not shown", 200)
    assert (nominal["only_second_collides"], nominal["collision_p"]) == (4, 0.125)
    bounds = Paired(400, 392, 4, 0).loss()
    assert nominal["lost_points"]["upper"] == pytest.approx(100 * bounds.upper, rel=1e-5)
    assert nominal["lost_points"]["lower"] == pytest.approx(100 * bounds.lower, rel=1e-5)
    assert document["pairs"][0]["only_second_succeeds"] == 4 and document["pairs"][0]["tests"] == 1


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
