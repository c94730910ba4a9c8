"""Drives left out in turn, and a finished run on a later drive."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quant.acceptance.assessment import UNSEEN
from quant.acceptance.limits import Limits
from quant.dataset import build_dataset
from quant.errors import StaleError
from quant.evaluation.unseen import Unseen, pooled
from quant.observation import Observations
from quant.policy import policy_digest, save_policy
from quant.runs.later import judge
from quant.runs.reading import open_run
from quant.runs.unseen import closeness_on, leave_out, left_out_document, read_left_out, recordings_of
from quant.tracks.registry import PTQ
from tests.commandline import quant
from tests.tracks import strategies

POLICY = strategies.policy(2, ego=6)
TRAINING = {"seed": 0, "qat_steps": None}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two drives."""
    folder = tmp_path_factory.mktemp("two drives")
    save_policy(POLICY, folder / "policy.npz")
    for seed, name in ((1, "a.npz"), (2, "b.npz"), (3, "later.npz")):
        strategies.write_drive(folder / name, strategies.frames(700, seed, ego=6, slots=4, most=3))
    drives = [word for name in ("a.npz", "b.npz") for word in ("--drive", folder / name)]
    (folder / "limits.toml").write_text("action_disagreement = 1.0\nmissed_action = 700\nfalse_action = 700")
    limits = ("--limits", folder / "limits.toml", "--stress-frames", "2000")
    done = quant("run", folder / "policy.npz", *drives, "--tracks", PTQ, *limits, "--out", folder / "run")
    assert done.code == 0, done.err
    return folder / "run"


def test_every_drive_is_left_out_once_and_stands_in_the_record(run: Path) -> None:
    opened = open_run(run)
    found = opened.evaluations[PTQ].unseen
    assert [one.drive for one in found] == ["a.npz", "b.npz"] and {one.closeness.n for one in found} == {700}
    verdict = opened.verdict(Limits(action_disagreement=1.0))
    criterion = next(one for one in verdict.assessment(PTQ).criteria if one.name == UNSEEN)
    close = pooled(found)
    assert close is not None and close.n == 1400
    assert criterion.value == pytest.approx(1 - close.agreement.value, abs=1e-6)
    assert "On unseen drives it agrees on" in verdict.headline
    assert not any("nothing unseen" in warning for warning in verdict.warnings)
    written = json.loads((run / "eval_ptq.json").read_text())["unseen"]
    assert [one["drive"] for one in written] == ["a.npz", "b.npz"]


def test_the_record_of_the_verdict_says_how_far_it_reaches(run: Path) -> None:
    winner = json.loads((run / "winner.json").read_text())
    evaluated = json.loads((run / "eval_ptq.json").read_text())
    stress = json.loads((run / "stress.json").read_text())
    assert winner["unseen"] == {PTQ: evaluated["unseen"]} and len(winner["unseen"][PTQ]) == 2
    assert winner["worst_found"] == {PTQ: stress["tracks"][PTQ]["worst"]}
    assert {"deviation", "group", "ego", "of_peers"} <= winner["worst_found"][PTQ].keys()
    assert winner["unsettled_share"] == stress["unsettled"]["share"]
    undeclared = [one["name"] for one in winner["trusted_up_to"]]
    assert undeclared and len(undeclared) == len(open_run(run).dataset.contract.undeclared)
    assert all(one["least"] < one["most"] and one["in_units"] for one in winner["trusted_up_to"])


def test_the_candidate_that_is_judged_was_made_without_the_drive(run: Path) -> None:
    """Held against one that is made here, of the other drive alone."""
    dataset = open_run(run).dataset
    recordings = recordings_of(dataset)
    found = leave_out(POLICY, dataset, [PTQ], training_seed=0, qat_steps=None, tolerance=0.02, workers=1)
    alone = build_dataset(POLICY, policy_digest(POLICY), recordings[1:], dataset.seed)
    candidate = strategies.ptq_of(POLICY, alone)
    expected = closeness_on(POLICY, candidate, recordings[0].observations, 0.02)
    assert found.tracks[PTQ][0].closeness == expected


def test_recordings_are_what_was_given(run: Path) -> None:
    given = strategies.frames(700, 1, ego=6, slots=4, most=3)
    found = recordings_of(open_run(run).dataset)[0]
    np.testing.assert_array_equal(found.observations.ego, given.ego)
    np.testing.assert_array_equal(found.observations.counts, given.counts)


def test_one_drive_alone_is_told_and_so_is_leaving_none_out(run: Path, tmp_path: Path) -> None:
    limits = ("--limits", run.parent / "limits.toml")
    common = ("run", run.parent / "policy.npz", "--drive", run.parent / "a.npz", "--tracks", PTQ, *limits)
    one = quant(*common, "--out", tmp_path / "one")
    assert one.code == 0 and "nothing unseen was looked at" in " ".join(one.out.split())
    none = quant(*common, "--drive", run.parent / "b.npz", "--no-unseen", "--out", tmp_path / "none")
    assert none.code == 0 and "nothing unseen was looked at" in " ".join(none.out.split())
    assert not (tmp_path / "none" / "unseen.json").exists()


def test_what_was_found_of_another_dataset_or_training_is_stale(run: Path, tmp_path: Path) -> None:
    dataset = open_run(run).dataset
    path = tmp_path / "unseen.json"
    found = read_left_out(run / "unseen.json", dataset, TRAINING)
    path.write_text(json.dumps(left_out_document(found, dataset, TRAINING)))
    assert read_left_out(path, dataset, TRAINING) == found
    with pytest.raises(StaleError):
        read_left_out(path, dataset, TRAINING | {"seed": 1})
    with pytest.raises(StaleError):
        read_left_out(path, replace(dataset, policy_outputs=dataset.policy_outputs + 1), TRAINING)


def test_pooled_frames_count_each_once() -> None:
    close = closeness_on(
        POLICY, strategies.ptq_of(POLICY, strategies.dataset_of(POLICY)), strategies.frames(90, 5, ego=6), 0.02
    )
    twice = pooled([Unseen("a", "0", close), Unseen("b", "1", replace(close, n=3 * close.n, mae=0.0))])
    assert twice is not None and twice.n == 4 * close.n and twice.mae == pytest.approx(close.mae / 4)
    assert pooled([]) is None


def test_a_finished_run_is_judged_on_a_later_drive_and_left_as_it_is(run: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    done = quant("evaluate", run, "--drive", run.parent / "later.npz", "--limits", run.parent / "limits.toml")
    assert done.code == 0 and "missed actions" in done.out, done.err
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    written = run.parent / "run-on-later.json"
    document = json.loads(written.read_text())
    assert document["tracks"][PTQ]["n"] == 700 and document["winner"] == PTQ
    same = quant("compare", written, written)
    assert same.code == 0 and "agreement[the drive]" in same.out
    for figure in ("missed_action", "false_action", "saturated", "acts"):
        assert f"{figure}[the drive]" in same.out
    assert "PTQ (winner)" in done.out and f"{PTQ}, the winner, holds on later.npz" in done.out
    assert "in this drive" in done.out and "recorded for the run" in done.out


def test_one_drive_at_a_time(run: Path) -> None:
    drives = [word for name in ("a.npz", "later.npz") for word in ("--drive", run.parent / name)]
    done = quant("evaluate", run, *drives)
    assert done.code == 2 and "given 2 times" in done.err and "one drive at a time" in done.err


def test_why_it_fails_stands_in_one_line(run: Path, tmp_path: Path) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text("action_disagreement = 0.0\naction_tolerance = 0.0\nmissed_action = 700\nfalse_action = 700")
    common = ("evaluate", run, "--drive", run.parent / "later.npz", "-o", tmp_path / "found.json")
    done = quant(*common, "--limits", limits)
    assert done.code == 1
    last = done.out.strip().splitlines()[-1]
    assert last.startswith(f"{PTQ}, the winner, fails on later.npz: {PTQ}: another action than float in ")
    assert "of the frames, limit 0.00 %" in last
    assert json.loads((tmp_path / "found.json").read_text())["outcome"] == last


def test_missed_and_false_actions_beyond_their_limit_fail(run: Path) -> None:
    limits = Limits(action_disagreement=1.0, missed_action=700, false_action=700)
    found = judge(open_run(run), run.parent / "later.npz", limits)
    assert found.exit_code == 0
    one = replace(found.tracks[PTQ], missed=3, false=0)
    worse = replace(found, tracks={PTQ: one}, limits=Limits(action_disagreement=1.0))
    assert worse.exit_code == 1 and worse.outcome.endswith(f"{PTQ}: 3 missed actions, limit 0")


def test_two_drives_are_told_apart_by_what_they_hold(run: Path, tmp_path: Path) -> None:
    limits = ("--limits", run.parent / "limits.toml")
    copy = tmp_path / "copy.npz"
    copy.write_bytes((run.parent / "later.npz").read_bytes())
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "copy.npz"
    strategies.write_drive(other, strategies.frames(700, 9, ego=6, slots=4, most=3))
    written = []
    for number, drive in enumerate((run.parent / "later.npz", copy, other)):
        written.append(tmp_path / f"{number}.json")
        assert quant("evaluate", run, "--drive", drive, "-o", written[-1], *limits).code == 0
    assert quant("compare", written[0], written[1]).code == 0
    done = quant("compare", written[1], written[2])
    assert done.code == 2 and "judged on different drives" in " ".join(done.out.split())


def test_a_cut_of_a_drive_of_the_run_is_known(run: Path, tmp_path: Path) -> None:
    strategies.write_drive(tmp_path / "cut.npz", strategies.frames(700, 1, ego=6, slots=4, most=3)[slice(0, 350)])
    done = quant("evaluate", run, "--drive", tmp_path / "cut.npz", "-o", tmp_path / "cut.json", "--json")
    document = json.loads(done.out)
    assert "frames with peers in" in document["known"]
    assert any("known to the run" in warning and "no test" in warning for warning in document["warnings"])


def test_a_drive_of_the_run_itself_is_said_to_be_no_test(run: Path, tmp_path: Path) -> None:
    done = quant("evaluate", run, "--drive", run.parent / "a.npz", "-o", tmp_path / "a.json")
    assert "no test of the unseen" in " ".join(done.out.split())
    inside = quant("evaluate", run, "--drive", run.parent / "a.npz", "-o", run / "a.json")
    assert inside.code == 2 and "lies in the run" in inside.err


def test_a_drive_beyond_what_is_declared_is_named_with_its_extreme(run: Path, tmp_path: Path) -> None:
    seen = strategies.frames(700, 4, ego=6, slots=4, most=3)
    far = Observations(np.where(np.arange(6) == 0, np.float32(90), seen.ego).astype(np.float32), seen.peers, seen.mask)
    strategies.write_drive(tmp_path / "far.npz", far)
    done = quant("evaluate", run, "--drive", tmp_path / "far.npz", "-o", tmp_path / "far.json", "--json")
    document = json.loads(done.out)
    assert document["tracks"][PTQ]["saturated"] == 1
    assert any("90" in warning and "trusted" in warning for warning in document["warnings"])
    assert any("90" in warning and "what the run was made of" in warning for warning in document["warnings"])
    first = document["coverage"][0]
    assert first["in_drive"] == [90, 90] and first["recorded"][1] < 90
