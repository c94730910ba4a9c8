"""Damage must show: a good run is broken in every way that matters, and the right criterion or check has to say so.

The run is the session's (the reference policy, unless ``--run`` names another); every test works on its own copy,
judged on fewer scenarios so that the suite stays quick.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant.acceptance.criterion import Outcome
from quant.acceptance.decision import Verdict
from quant.acceptance.limits import Limits
from quant.dataset.storage import PEER_INPUTS, save_dataset
from quant.errors import InputError, QuantError, StaleError
from quant.evaluation.actors import three_bit
from quant.files import read_json, write_json, write_text
from quant.policy import Policy, policy_digest, save_policy
from quant.runs.folder import MANIFEST, POLICY, SCENARIOS, STRESS, STRESS_FRAMES, WINNER, evaluation_name
from quant.runs.reading import open_run
from quant.runs.run import Run
from quant.runs.settings import read_settings
from quant.runs.steps import decide, evaluate, make_dataset, make_track
from quant.tracks.candidate import Affine, Candidate, SubModel
from quant.tracks.export import export
from quant.tracks.ptq import EQUALIZED, Scope, finish, search_dataset
from quant.tracks.storage import model_name, save_candidate

EPISODES = {"nominal": 600, "lossy": 300}
LIMITS = Limits()

Damage = Callable[[Candidate], Candidate]


@pytest.fixture(scope="session")
def small(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run that is judged on few scenarios; a good run, and it says so."""
    folder = tmp_path_factory.mktemp("damage") / "good"
    shutil.copytree(run.folder, folder)
    if run.world is None:
        pytest.skip("the run has no world")
    write_text(folder / SCENARIOS, run.world.draw("test", 1, EPISODES).to_json())
    evaluate(folder, LIMITS)
    verdict = decide(folder, LIMITS)
    assert all(assessment.eligible for assessment in verdict.assessments), str(verdict)
    return folder


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(small, folder)
    return folder


def judge(folder: Path, damage: Damage) -> Verdict:
    """Damages PTQ's candidate on disk, evaluates again, decides again."""
    opened = open_run(folder)
    save_candidate(damage(opened.candidates["ptq"]), folder)
    # Of the undamaged one; without it nobody has stressed the run.
    for name in (STRESS, STRESS_FRAMES):
        (folder / name).unlink(missing_ok=True)
    evaluate(folder, LIMITS)
    return decide(folder, LIMITS)


def failed(verdict: Verdict) -> set[str]:
    """Names of PTQ's failed criteria, without the slice; QAT, untouched, has to win."""
    assert verdict.winner == "qat"
    assert not verdict.assessment("ptq").eligible
    assert verdict.assessment("qat").eligible
    return {c.name.split("[")[0] for c in verdict.assessment("ptq").with_outcome(Outcome.FAIL)}


@pytest.mark.slow
@pytest.mark.parametrize("part", ["peer_encoder", "policy_head"])
def test_a_sub_model_padded_beyond_the_limit_fails_its_size_alone(copy: Path, part: str) -> None:
    def pad(candidate: Candidate) -> Candidate:
        model: SubModel = getattr(candidate, part)
        padded = dataclasses.replace(model, tflite=model.tflite + bytes(LIMITS.model_bytes + 1 - len(model.tflite)))
        changes: dict[str, Any] = {part: padded}
        return dataclasses.replace(candidate, **changes)

    assert failed(judge(copy, pad)) == {f"{part}_bytes"}


@pytest.mark.slow
def test_swapped_scales_fail_success_and_agreement(copy: Path) -> None:
    def swap(candidate: Candidate) -> Candidate:
        gain, offset = candidate.peer_input.gain, candidate.peer_input.offset
        return dataclasses.replace(candidate, peer_input=Affine(gain[::-1].copy(), offset[::-1].copy()))

    assert failed(judge(copy, swap)) == {"success_drop", "action_disagreement"}


@pytest.mark.slow
def test_weights_of_three_bits_fail_success_and_agreement(copy: Path, run: Run) -> None:
    damaged = quantize(three_bit(run.policy), run)
    assert failed(judge(copy, lambda candidate: damaged)) == {"success_drop", "action_disagreement"}


@pytest.mark.slow
def test_another_policys_head_fails_success_and_agreement(copy: Path, run: Run) -> None:
    """A head trained with another encoder: here the same head with its units of z in another order."""
    head = run.policy.head[0]
    order = np.random.default_rng(0).permutation(run.policy.embedding_size)
    weight = np.concatenate([head.weight[:, order], head.weight[:, run.policy.embedding_size :]], axis=1)
    other = dataclasses.replace(run.policy, head=(dataclasses.replace(head, weight=weight), *run.policy.head[1:]))
    foreign = quantize(other, run)

    def graft(candidate: Candidate) -> Candidate:
        return dataclasses.replace(candidate, policy_head=foreign.policy_head, ego_input=foreign.ego_input)

    assert failed(judge(copy, graft)) == {"success_drop", "action_disagreement"}


def quantize(policy: Policy, run: Run) -> Candidate:
    """Another policy's PTQ candidate under this run's hashes, as a mix-up of files would give it; no unit is in two."""
    frames, found = search_dataset(policy, run.dataset, scope=Scope(rewritings=EQUALIZED))
    return export("ptq", finish(policy, frames, found).plan, run.dataset, found.log)


@pytest.mark.parametrize(
    "name",
    [
        PEER_INPUTS,
        SCENARIOS,
        model_name("peer_encoder", "qat"),
        "candidate_ptq.json",
        evaluation_name("ptq"),
        WINNER,
        "policy_saved_model/saved_model.pb",
    ],
)
def test_any_file_changed_after_the_run_is_named(copy: Path, name: str) -> None:
    with (copy / name).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(StaleError, match="has changed") as raised:
        open_run(copy)
    assert raised.value.where == str(copy / name)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "conversion_ptq.log").unlink()
    with pytest.raises(QuantError) as raised:
        open_run(copy)
    assert "conversion_ptq.log" in str(raised.value.where)


def test_a_run_without_manifest_is_unfinished(copy: Path) -> None:
    (copy / MANIFEST).unlink()
    with pytest.raises(InputError, match="not finished"):
        open_run(copy)


def test_a_model_swapped_for_another_tracks_is_refused(copy: Path) -> None:
    shutil.copy(copy / model_name("policy_head", "qat"), copy / model_name("policy_head", "ptq"))
    with pytest.raises(StaleError, match="not the model"):
        decide(copy, LIMITS)


def test_another_policy_makes_the_dataset_stale(copy: Path, run: Run) -> None:
    """With the policy's file replaced, nothing that was made from the old one is accepted."""
    layer = run.policy.head[-1]
    other = dataclasses.replace(
        run.policy, head=(*run.policy.head[:-1], dataclasses.replace(layer, bias=layer.bias + np.float32(0.5)))
    )
    save_policy(other, copy / POLICY)
    tracks = (lambda folder: make_track(folder, "ptq"), lambda folder: make_track(folder, "qat"))
    for step in (*tracks, lambda folder: evaluate(folder, LIMITS)):
        with pytest.raises(StaleError, match="another policy"):
            step(copy)


def test_a_dataset_of_another_policy_is_caught_by_its_outputs(copy: Path, run: Run) -> None:
    """Even where every hash was put right, outputs that the policy does not give are refused."""
    outputs = run.dataset.policy_outputs + np.float32(0.5)
    changed = dataclasses.replace(run.dataset, policy_outputs=outputs)
    assert changed.policy_sha256 == policy_digest(run.policy)
    save_dataset(changed, copy)
    with pytest.raises(StaleError, match="not what the policy computes"):
        make_track(copy, "ptq")


def test_another_dataset_makes_candidates_and_evaluations_stale(copy: Path, run: Run) -> None:
    make_dataset(copy, dataclasses.replace(read_settings(copy), seed=run.settings.seed + 1))
    for step in (lambda folder: evaluate(folder, LIMITS), lambda folder: decide(folder, LIMITS)):
        with pytest.raises(StaleError, match="another"):
            step(copy)


def test_evaluations_of_another_scenario_file_are_refused(copy: Path, run: Run) -> None:
    assert run.world is not None
    write_text(copy / SCENARIOS, run.world.draw("test", 2, EPISODES).to_json())
    with pytest.raises(StaleError, match="another scenarios"):
        decide(copy, LIMITS)


def test_one_evaluation_of_another_scenario_file_is_refused(copy: Path, run: Run) -> None:
    """The full run's evaluation of PTQ among the small run's others."""
    shutil.copy(run.folder / evaluation_name("ptq"), copy / evaluation_name("ptq"))
    with pytest.raises(StaleError, match="scenarios"):
        decide(copy, LIMITS)


def test_edited_figures_are_refused(copy: Path) -> None:
    path = copy / evaluation_name("ptq")
    document = read_json(path)
    document["closed_loop"]["slices"][0]["success"]["value"] = 1.0
    write_json(path, document)
    with pytest.raises(QuantError):
        decide(copy, LIMITS)
