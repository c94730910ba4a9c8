"""`quant accept` and `quant compare` as a user meets them, on a real run of few episodes and on what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant.acceptance.baseline import Figure, Snapshot
from quant.acceptance.limits import Limits
from quant.files import write_json
from quant.policy import Policy, load_policy, save_policy
from quant.runs.folder import MANIFEST, POLICY
from quant.runs.reading import open_run
from quant.runs.regression import load_snapshot
from quant.runs.settings import Settings, write_settings
from quant.runs.steps import decide, evaluate, make_dataset, make_track
from quant.worlds.reference import reference_policy_path
from tests.commandline import quant

EPISODES = {"nominal": 150, "lossy": 50}


def make_run(folder: Path, policy: Policy, seed: int = 0) -> Path:
    """A finished run with the PTQ candidate; without TensorFlow, which would take longer than all the rest."""
    folder.mkdir()
    settings = Settings("policy.npz", world="convoy", seed=seed, episodes=EPISODES)
    write_settings(settings, folder)
    save_policy(policy, folder / POLICY)
    make_dataset(folder, settings)
    make_track(folder, "ptq")
    evaluate(folder, Limits(), workers=1)
    decide(folder, Limits())
    return folder


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(reference_policy_path())


@pytest.fixture(scope="module")
def run(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "good", policy)


@pytest.fixture(scope="module")
def damaged(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a policy whose weights were rounded to seven levels, on the same scenarios."""

    def rounded(layer: Any) -> Any:
        step = np.abs(layer.weight).max() / 3
        return replace(layer, weight=(np.rint(layer.weight / step) * step).astype(np.float32))

    worse = replace(policy, encoder=tuple(map(rounded, policy.encoder)), head=tuple(map(rounded, policy.head)))
    return make_run(tmp_path_factory.mktemp("runs") / "damaged", worse)


@pytest.fixture
def baseline(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run accepted, in the current directory."""
    monkeypatch.chdir(tmp_path)
    done = quant("accept", run)
    assert done.code == 0, done.err
    return tmp_path / "baseline.json"


def changed(baseline: Path, change: Callable[[Snapshot], Snapshot]) -> Path:
    """The baseline with other figures, as a later run might have them."""
    path = baseline.with_name("changed.json")
    write_json(path, change(load_snapshot(baseline)).to_json())
    return path


def with_group(of: str, **conditions: str) -> Callable[[Snapshot], Snapshot]:
    return lambda made: replace(made, conditions={**made.conditions, of: {**made.conditions[of], **conditions}})


def test_a_run_is_accepted_and_holds_against_itself(run: Path, baseline: Path) -> None:
    done = quant("compare", run)
    assert (done.code, done.err) == (0, "")
    assert done.out.rstrip().endswith("figures hold.") and "good against good" in done.out
    # At so few episodes nobody may take that for more than it is.
    assert "judge on more episodes" in " ".join(done.out.split())
    assert baseline.is_file() and quant("compare", run, run).out == done.out


def test_what_is_accepted_says_what_it_replaces(run: Path, baseline: Path, tmp_path: Path) -> None:
    again = quant("accept", run)
    assert (again.code, again.err) == (0, "")
    words = again.out
    assert words.index("good against good") < words.index("figures hold.") < words.index("in place of good; ptq wins")


def test_a_regression_is_accepted_only_by_force(damaged: Path, baseline: Path) -> None:
    before = baseline.read_bytes()
    refused = quant("accept", damaged)
    assert refused.code == 1 and "REGRESSION" in refused.out
    assert "is left as it is: damaged is worse than the baseline" in refused.err and "--force" in refused.err
    document = json.loads(quant("accept", damaged, "--json").out)
    assert (document["accepted"], document["exit_code"], document["forced"]) == (False, 1, False)
    assert baseline.read_bytes() == before
    forced = quant("accept", damaged, "--force")
    assert forced.code == 0 and "forced: damaged is worse" in forced.out
    # A policy that bad is no better than the gate's own actors: its slices are blind.
    assert "no later run could be held against it" in forced.out
    assert load_snapshot(baseline).name == "damaged" and quant("compare", damaged).code == 2


def test_what_is_no_baseline_is_replaced_only_by_force(run: Path, baseline: Path) -> None:
    baseline.write_text("{}")
    refused = quant("accept", run)
    assert refused.code == 2 and "its rules would be lost" in refused.err and baseline.read_text() == "{}"
    assert quant("compare", run).code == 2
    forced = quant("accept", run, "--force", "--json")
    document = json.loads(forced.out)
    assert (forced.code, document["accepted"], document["forced"], document["run"]) == (0, True, True, "good")
    assert quant("compare", run).code == 0


def test_the_accepted_run_says_what_the_policy_is_and_what_made_it(run: Path, baseline: Path) -> None:
    accepted = load_snapshot(baseline)
    assert accepted.interface == "ego 4, 8 peers of 6, Discrete(4)"
    assert accepted.toolchain == json.loads((run / MANIFEST).read_bytes())["versions"]


def test_what_is_accepted_is_what_the_run_holds(run: Path, baseline: Path) -> None:
    opened, accepted = open_run(run), load_snapshot(baseline)
    closed = opened.evaluations["ptq"].closed_loop
    assert closed is not None and accepted.winner == "ptq"
    for outcome in closed.slices:
        success, collision = (accepted.figure("ptq", f"{kind}[{outcome.name}]") for kind in ("success", "collision"))
        assert success is not None and success.bits is not None and outcome.collision is not None
        assert collision is not None and collision.bits is not None
        assert np.array_equal(success.bits, outcome.success) and np.array_equal(collision.bits, outcome.collision)
    size = accepted.figure("ptq", "policy_head_bytes")
    assert size is not None and size.value == len(opened.candidates["ptq"].policy_head.tflite)
    assert accepted.conditions["driving"]["scenarios"] == opened.evaluations["ptq"].hashes["scenarios"]
    assert accepted.conditions["error on rollout"]["policy"] == accepted.hashes["policy"]
    assert "policy" not in accepted.conditions["agreement on rollout"]


def test_a_damaged_policy_on_the_same_scenarios_is_a_regression(damaged: Path, baseline: Path) -> None:
    done = quant("compare", damaged)
    assert done.code == 1 and baseline.is_file()
    words = " ".join(done.out.split())
    assert "REGRESSION: ptq success[nominal]" in words or "winner missing" in words
    assert "most of it is the policy's" in words
    assert "policy: another" in words and "not comparable: other held-out frames" in words


def test_json_says_the_same(damaged: Path, baseline: Path) -> None:
    done = quant("compare", baseline, damaged, "--json")
    document = json.loads(done.out)
    assert done.code == document["exit_code"] == 1
    assert document["before"] == "good" and document["now"] == "damaged"


def test_other_scenarios_cannot_be_compared(baseline: Path) -> None:
    seed = with_group("driving", **{"seed of the scenarios": "7", "scenarios": "e" * 64})
    done = quant("compare", baseline, changed(baseline, seed))
    assert done.code == 2
    assert "Not comparable: other seed of the scenarios: 0, now 7." in done.out


def test_frames_that_are_the_same_are_compared_whatever_the_policy(baseline: Path) -> None:
    def fewer_agree(made: Snapshot) -> Snapshot:
        def worse(figure: Figure) -> Figure:
            return replace(figure, value=figure.value - 0.05) if figure.kind == "agreement" else figure

        own = {track: tuple(map(worse, figures)) for track, figures in made.subjects.items()}
        return with_group("error on rollout", policy="e" * 64)(replace(made, subjects=own))

    done = quant("compare", baseline, changed(baseline, fewer_agree))
    assert done.code == 1 and "REGRESSION: ptq agreement[rollout]" in done.out
    assert "not comparable: other policy" in done.out


def test_without_a_baseline_compare_says_how_to_make_one(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = quant("compare", run)
    assert done.code == 2 and "quant accept RUN" in done.err and list(tmp_path.iterdir()) == []


def test_bad_input_is_code_2(run: Path, baseline: Path) -> None:
    for arguments, words in (
        (("compare",), "Missing argument"),
        (("compare", run, run, run), "3 runs"),
        (("compare", "nowhere"), "no such run folder"),
        (("accept", "nowhere"), "no such run folder"),
        (("accept", baseline.parent), "not a run folder"),
    ):
        done = quant(*arguments)
        assert done.code == 2 and words in done.out + done.err, arguments


def test_a_run_that_was_changed_is_not_accepted(run: Path, baseline: Path) -> None:
    evaluation = run / "eval_ptq.json"
    before = evaluation.read_text()
    try:
        evaluation.write_text(before.replace('"track": "ptq"', '"track":  "ptq"'))
        accepted = baseline.read_bytes()
        assert "has changed since" in quant("accept", run).err and baseline.read_bytes() == accepted
    finally:
        evaluation.write_text(before)
