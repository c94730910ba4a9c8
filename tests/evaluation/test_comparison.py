"""What is a regression, what is noise, and what cannot be compared: each rule on figures one can check in the head."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scipy.stats import ttest_ind_from_stats

from quant.acceptance.baseline import RULES, Figure, Snapshot
from quant.acceptance.comparison import DEPLOYED, Change, Comparison, Finding, compare, fisher, welch
from quant.report.comparison import comparison
from quant.report.text import as_text
from tests.evaluation.snapshots import figure, figures, outcomes, sampled, snapshot, under, with_figure, without


def one(found: Comparison, name: str, subject: str = "ptq") -> Finding:
    return next(finding for finding in found.findings if (finding.subject, finding.name) == (subject, name))


def against(new: Figure) -> Finding:
    """The figure after it has become ``new``."""
    before = snapshot()
    return one(compare(before, with_figure(before, new)), new.name)


def test_a_run_is_the_same_as_itself() -> None:
    found = compare(snapshot(), snapshot())
    assert {finding.change for finding in found.findings} == {Change.SAME}
    assert (found.exit_code, found.regressions, found.incomparable) == (0, (), "")
    assert found.headline == "No regression: 8 figures hold."


@pytest.mark.parametrize(
    ("failures", "shift", "change"),
    [
        (40, 0, Change.SAME),
        (55, 0, Change.NOISE),  # significant, p < 0.001, but three quarters of a point
        (60, 0, Change.NOISE),  # a point, as tolerated
        (62, 0, Change.WORSE),  # 1.1 points, and 22 : 0
        (62, 1000, Change.NOISE),  # 1.1 points, but 62 : 40
        (15, 0, Change.BETTER),
    ],
)
def test_success_is_worse_only_if_it_is_by_enough_and_significantly(failures: int, shift: int, change: Change) -> None:
    finding = against(sampled("success", outcomes(failures, shift)))
    assert finding.change is change
    assert finding.regression == (change is Change.WORSE)
    assert finding.test.startswith("exact McNemar")


def test_more_collisions_are_worse_though_success_holds() -> None:
    finding = against(sampled("collision", ~outcomes(60)))
    assert finding.change is Change.WORSE and finding.test == "exact McNemar, 40 : 0"
    assert against(sampled("collision", ~outcomes(5))).change is Change.BETTER


@pytest.mark.parametrize(
    ("value", "half", "change"),
    [(0.16, 0.001, Change.NOISE), (0.18, 0.03, Change.NOISE), (0.18, 0.01, Change.WORSE), (0.11, 0.01, Change.BETTER)],
)
def test_needless_braking(value: float, half: float, change: Change) -> None:
    new = figure("needless", "nominal", value, "driving", n=2000, interval=(value - half, value + half))
    assert against(new).change is change


@pytest.mark.parametrize(
    ("new", "change"),
    [
        (figure("agreement", "recorded", 0.982, "agreement on recorded", n=5000), Change.WORSE),
        (figure("agreement", "recorded", 0.987, "agreement on recorded", n=5000), Change.NOISE),
        (figure("mae", "recorded", 0.00219, "error on recorded", n=5000), Change.NOISE),
        (figure("mae", "recorded", 0.00221, "error on recorded", n=5000), Change.WORSE),
        (figure("peer_encoder_bytes", "", 4800, "models"), Change.NOISE),
        (figure("peer_encoder_bytes", "", 4810, "models"), Change.WORSE),
        (figure("peer_encoder_bytes", "", 2000, "models"), Change.BETTER),
        (figure("latency_p99", "measured esp32", 2.1, "measured esp32"), Change.NOISE),
        (figure("latency_p99", "measured esp32", 2.11, "measured esp32"), Change.WORSE),
        (figure("heap_free", "measured esp32", 148_900, "measured esp32"), Change.WORSE),
        (figure("heap_free", "measured esp32", 160_000, "measured esp32"), Change.BETTER),
    ],
)
def test_each_kind_has_its_direction_and_tolerance(new: Figure, change: Change) -> None:
    assert against(new).change is change


def test_the_number_of_tests_is_corrected_for() -> None:
    """11 : 0 is p = 0.001 alone, four times that among four tests, and eight times among those of two candidates."""
    before = snapshot()
    now = with_figure(before, sampled("collision", ~outcomes(31)))
    raw = one(compare(before, now), "collision[nominal]")
    wide = replace(before, subjects={**before.subjects, "qat": figures()})
    more = one(compare(wide, replace(now, subjects={**now.subjects, "qat": figures()})), "collision[nominal]")
    assert raw.p == pytest.approx(4 * 2 * 0.5**11) and more.p == pytest.approx(8 * 2 * 0.5**11)
    assert (compare(before, now).tests, compare(wide, wide).tests) == (4, 8)
    assert (more.detectable or 0) > (raw.detectable or 1)


def test_what_is_missing_is_a_regression_unless_its_rule_says_otherwise() -> None:
    before, name = snapshot(), "latency_p99[measured esp32]"
    assert one(compare(before, without(before, name)), name).regression
    of_kind = replace(before, rules=dict(RULES) | {"latency_p99": replace(RULES["latency_p99"], missing="ignore")})
    of_one = replace(before, rules=dict(RULES) | {name: replace(RULES["latency_p99"], missing="ignore")})
    for excused in (of_kind, of_one):
        found = compare(excused, without(excused, name))
        assert one(found, name).change is Change.IGNORED and found.exit_code == 0


def test_a_candidate_that_is_gone_is_a_regression() -> None:
    before = snapshot(subjects={"ptq": figures(), "qat": figures()})
    found = compare(before, snapshot())
    assert [str(finding) for finding in found.regressions] == ["qat candidate missing"] and found.exit_code == 1


def test_a_new_candidate_is_named_and_not_judged() -> None:
    found = compare(snapshot(), snapshot(subjects={**snapshot().subjects, "int16x8": figures(400)}))
    assert found.exit_code == 0 and "new, with nothing to compare with: int16x8" in found.changed


def test_without_a_winner_there_is_a_regression() -> None:
    found = compare(snapshot(), snapshot(winner=None))
    assert found.exit_code == 1 and found.regressions[0].name == "winner" and found.deployed == DEPLOYED


def test_another_winner_is_held_against_the_one_before() -> None:
    """Each candidate is as it was, but the worse one would be deployed."""
    before = snapshot(subjects={"ptq": figures(), "qat": figures(140)})
    found = compare(before, replace(before, winner="qat"))
    assert {finding.subject for finding in found.regressions} == {DEPLOYED} == {found.deployed}


def test_the_float_policy_is_shown_and_not_judged() -> None:
    before = snapshot()
    worse = with_figure(before, sampled("success", outcomes(400)), "float")
    found = compare(before, worse)
    assert one(found, "success[nominal]", "float").change is Change.WORSE
    assert found.exit_code == 0 and found.tests == 4


def test_another_policy_and_dataset_are_comparable_and_other_scenarios_are_not() -> None:
    before = snapshot()
    retrained = snapshot(hashes={"policy": "d" * 64, "dataset": "e" * 64, "scenarios": "c" * 64})
    assert compare(before, retrained).exit_code == 0
    assert compare(before, retrained).changed[:2] == ("policy: another", "dataset: another")
    other = under(before, "driving", **{"seed of the scenarios": "1", "scenarios": "d" * 64})
    found = compare(before, other)
    finding = one(found, "success[nominal]")
    assert (finding.change, finding.now) == (Change.INCOMPARABLE, None)
    assert found.headline == "Not comparable: other seed of the scenarios: 0, now 1." and found.exit_code == 2


def test_a_regression_is_one_even_where_driving_is_not_comparable() -> None:
    before = snapshot()
    now = under(with_figure(before, figure("peer_encoder_bytes", "", 9000, "models")), "driving", world="lanes")
    assert compare(before, now).exit_code == 1


def test_a_board_of_another_toolchain_is_not_compared_and_the_rest_is() -> None:
    before = snapshot()
    slow = with_figure(before, figure("latency_p99", "measured esp32", 9.0, "measured esp32"))
    found = compare(before, under(slow, "measured esp32", engine="esp-tflite-micro 1.5.0"))
    finding = one(found, "latency_p99[measured esp32]")
    assert finding.reason == "other engine: esp-tflite-micro 1.4.0, now esp-tflite-micro 1.5.0"
    assert found.exit_code == 0 and found.headline == "No regression: 6 figures hold, 2 not comparable."


def test_a_slice_that_was_blind_proves_nothing() -> None:
    found = compare(snapshot(blind={"nominal": "the world is blind"}), snapshot())
    assert one(found, "success[nominal]").change is Change.INCOMPARABLE and found.exit_code == 2


def test_a_later_run_that_is_blind_where_the_earlier_was_not_is_a_regression() -> None:
    """However good its figures are: a policy that never brakes agrees with its candidates on every frame."""
    found = compare(snapshot(), snapshot(blind={"nominal": "the world is blind"}))
    lost = one(found, "success[nominal]")
    assert lost.change is Change.MISSING and lost.now is None
    assert found.exit_code == 1 and "blind in the later run: the world is blind" in found.headline


@pytest.mark.parametrize(
    ("own", "whose"), [(140, "the policy's"), (60, "the quantization's"), (40, "the quantization's")]
)
def test_a_loss_is_put_down_to_the_policy_or_to_its_quantization(own: int, whose: str) -> None:
    before = snapshot()
    now = with_figure(before, sampled("success", outcomes(150)))
    now = replace(with_figure(now, sampled("success", outcomes(own)), "float"), hashes={"policy": "d" * 64})
    assert any(f"most of it is {whose}" in words for words in compare(before, now).meaning)


def test_the_same_policy_that_drives_otherwise_is_told() -> None:
    before = snapshot()
    now = with_figure(before, sampled("success", outcomes(40, 3)), "float")
    assert any("the world, the evaluation or the machine is another" in words for words in compare(before, now).meaning)
    assert compare(before, replace(now, hashes={"policy": "d" * 64})).meaning == ()


def test_too_few_episodes_are_told() -> None:
    few = sampled("success", outcomes(40)[:300])
    made = with_figure(snapshot(), few)
    found = compare(made, made)
    assert any("judge on more episodes" in words for words in found.meaning)
    assert compare(snapshot(), snapshot()).meaning == ()


def test_welch_is_scipys() -> None:
    expected = ttest_ind_from_stats(1.0, 2.0, 400, 1.3, 1.0, 300, equal_var=False).pvalue
    half = [1.965927 * 2.0 / 400**0.5, 1.967930 * 1.0 / 300**0.5]
    ends = [(1.0 - half[0], 1.0 + half[0]), (1.3 - half[1], 1.3 + half[1])]
    assert welch(1.0, ends[0], 400, 1.3, ends[1], 300) == pytest.approx(float(expected), rel=1e-4)
    assert (welch(1.0, (1.0, 1.0), 5, 1.0, (1.0, 1.0), 5), welch(1.0, (1.0, 1.0), 5, 2.0, (2.0, 2.0), 5)) == (1, 0)


def test_fisher_tastes_tea() -> None:
    assert fisher(0.75, 4, 0.25, 4) == pytest.approx(34 / 70)


def test_the_table_fits_eighty_columns_and_says_all() -> None:
    before = snapshot()
    worse = with_figure(before, sampled("success", outcomes(140)))
    now = under(worse, "agreement on recorded", **{"held-out frames": "9" * 64})
    said = as_text(comparison(compare(before, now)), 80)
    assert max(map(len, said.splitlines())) <= 80
    assert "now against before" in said
    assert next(line.split() for line in said.splitlines() if "success[nominal]" in line) == [
        "success[nominal]", "98.00%", "93.00%", "-5.00", "<0.001", "worse"
    ]  # fmt: skip
    assert next(line.split() for line in said.splitlines() if "agreement[" in line)[1:] == ["99.00%", "(1)"]
    assert "(1) not comparable: other held-out frames: ffffffffffff, now 999999999999" in said
    assert "after Holm (3 tests)" in said
    assert said.rstrip().endswith("REGRESSION: ptq success[nominal] 98.00 % -> 93.00 % (p < 0.001).")


def test_the_json_holds_every_finding() -> None:
    document = compare(snapshot(), without(snapshot(), "mae[recorded]")).to_json()
    assert document["exit_code"] == 1 and document["correction"] == "Holm"
    by_name = {finding["name"]: finding for finding in document["findings"] if finding["subject"] == "ptq"}
    assert by_name["mae[recorded]"]["change"] == "missing" and by_name["mae[recorded]"]["regression"]
    assert by_name["success[nominal]"]["detectable"] is not None


def test_a_policy_that_sees_or_answers_otherwise_is_compared_in_nothing() -> None:
    """However good its figures, and whatever it lacks: it drives another task."""
    other = replace(snapshot(name="now", winner=None), interface="ego 4, 8 peers of 6, Discrete(4)")
    found = compare(snapshot(), replace(other, subjects={"ptq": figures()[3:]}))
    assert {one.change for one in found.findings} == {Change.INCOMPARABLE}
    assert {one.now for one in found.findings} == {None}
    reason = "other policy: ego 6, 8 peers of 6, Box(0..1), now ego 4, 8 peers of 6, Discrete(4)"
    assert (found.exit_code, found.headline) == (2, f"Not comparable: {reason}.")
    assert compare(snapshot(), replace(other, subjects={})).exit_code == 2


def test_another_toolchain_is_said_and_no_obstacle() -> None:
    other = snapshot(name="now", toolchain={"numpy": "2.4.6", "tensorflow": "2.22.0", "scipy": "1.17.1"})
    found = compare(snapshot(), other)
    assert "toolchain: scipy none, now 1.17.1; tensorflow 2.21.0, now 2.22.0" in found.changed
    assert found.exit_code == 0
    assert "toolchain: the same" in compare(snapshot(), snapshot()).changed


def test_a_run_no_board_has_seen_says_how_to_mend_that() -> None:
    bare = without(without(snapshot(), "latency_p99[measured esp32]"), "heap_free[measured esp32]")
    conditions = {name: table for name, table in bare.conditions.items() if name != "measured esp32"}
    found = compare(snapshot(), replace(bare, conditions=conditions))
    assert found.exit_code == 1
    assert any(words.startswith("no figure of measured esp32: run quant device") for words in found.meaning)
    assert not any("quant device" in words for words in compare(snapshot(), snapshot()).meaning)


def test_no_figure_to_judge_by_is_not_comparable() -> None:
    bare = Snapshot("x", "ptq", "provisional", "", {}, {}, {"models": {}}, {}, {"ptq": figures()[5:6]})
    assert compare(bare, bare).exit_code == 2


def test_without_driving_agreement_decides_and_the_comparison_says_so() -> None:
    undriven = snapshot(subjects={"float": (), "ptq": figures()[3:]})
    found = compare(undriven, undriven)
    assert found.exit_code == 0 and found.incomparable == ""
    assert found.meaning[0].startswith("driving was not tested")
    apart = under(undriven, "agreement on recorded", **{"held-out frames": "9" * 64})
    assert compare(undriven, apart).exit_code == 2


def test_one_slice_that_can_be_compared_is_enough() -> None:
    lossy = replace(sampled("success", outcomes(50)), of="lossy")
    before = snapshot(subjects={"ptq": (*figures(), lossy)}, blind={"nominal": "the world is blind"})
    assert compare(before, before).exit_code == 0


def acting(share: float, of: str = "recorded") -> Snapshot:
    """A run whose float policy acts on so many of the held-out frames."""
    made = snapshot()
    own = (*made.subjects["float"], figure("acts", of, share, "agreement on recorded", n=5000))
    return replace(made, subjects={**made.subjects, "float": own})


@pytest.mark.parametrize(
    ("now", "code", "blind"), [(0.2, 0, False), (0.1, 0, False), (0.09, 1, False), (0.01, 1, True)]
)
def test_a_retraining_that_acts_on_less_than_half_is_a_regression(now: float, code: int, blind: bool) -> None:
    found = compare(acting(0.2), acting(now))
    assert found.exit_code == code
    assert ("blind" in found.headline) is blind
    assert compare(acting(0.2), acting(0.9)).exit_code == 0


def test_on_other_frames_how_much_float_acts_is_not_compared() -> None:
    now = under(acting(0.0), "agreement on recorded", **{"held-out frames": "9" * 64})
    one = next(one for one in compare(acting(0.2), now).findings if one.name == "acts[recorded]")
    assert not one.regression


def missing(count: float, **conditions: str) -> Snapshot:
    """A run of which a stress test found so many missed actions."""
    made = snapshot()
    own = (*made.subjects["ptq"], figure("missed_action", "", count, "stress"))
    stress = {"declared inputs": "d" * 64, "frames": "1000000", "seed of the stress": "0", **conditions}
    return replace(made, subjects={**made.subjects, "ptq": own}, conditions={**made.conditions, "stress": stress})


def test_a_first_missed_action_is_a_regression_whatever_the_number_of_frames() -> None:
    found = compare(missing(0), missing(3, frames="2000"))
    assert found.exit_code == 1 and "missed_action 0 frames -> 3 frames" in found.headline
    for before, now in ((missing(0), missing(0, frames="9")), (missing(1), missing(3, frames="9"))):
        assert compare(before, now).exit_code == 0
    assert compare(missing(0), missing(3, **{"declared inputs": "e" * 64})).exit_code == 0
