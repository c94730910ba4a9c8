"""Everything together on a real int8 candidate: what is filed under which name, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quant.errors import InputError, StaleError
from quant.evaluation.actors import NEUTRAL, THREE_BIT
from quant.evaluation.evaluate import evaluate
from quant.evaluation.evaluation import Evaluation, check_together, evaluation_from_json
from quant.observation.observations import Observations
from quant.policy.policy import Policy
from quant.tracks.candidate import Candidate
from quant.worlds.world import load_world
from tests.runners.candidates import quantize_policy, random_observations, random_policy

POLICY_SHA, DATASET_SHA = "1" * 64, "2" * 64


@pytest.fixture(scope="module")
def policy() -> Policy:
    return random_policy(4)


@pytest.fixture(scope="module")
def candidate(policy: Policy) -> Candidate:
    return replace(quantize_policy(policy), track="ptq", policy_sha256=POLICY_SHA, dataset_sha256=DATASET_SHA)


FRAMES = random_observations(300)


def judge(
    policy: Policy, candidate: Candidate, frames: Observations = FRAMES, *, driving: bool = False
) -> dict[str, Evaluation]:
    world = load_world("convoy") if driving else None
    scenarios = None if world is None else world.draw("test", 9, {"nominal": 20, "lossy": 10})
    return evaluate(
        policy,
        {"ptq": candidate},
        frames,
        policy_sha256=POLICY_SHA,
        dataset_sha256=DATASET_SHA,
        origins=np.where(np.arange(len(frames)) < 100, "recorded", "augmented"),
        world=world,
        scenarios=scenarios,
        workers=1,
    )


def test_float_candidate_and_gate_are_evaluated_and_the_files_hold_it_all(policy: Policy, candidate: Candidate) -> None:
    evaluations = judge(policy, candidate, driving=True)
    check_together(evaluations)
    reference, quantized = evaluations["float"], evaluations["ptq"]
    assert reference.closed_loop is not None and quantized.closed_loop is not None
    assert set(reference.closed_loop.gate) == {NEUTRAL, THREE_BIT}
    assert quantized.hashes["policy_head"] == candidate.policy_head.sha256
    assert quantized.open_loop is not None
    assert quantized.open_loop.overall.agreement.value > 0.8
    assert 0 < quantized.open_loop.overall.mae < 0.2
    assert [name for name, _ in quantized.open_loop.by_origin] == ["augmented", "recorded"]
    for original, outcome, paired in zip(
        reference.closed_loop.slices, quantized.closed_loop.slices, quantized.closed_loop.versus_float, strict=True
    ):
        assert paired.both + paired.losses == original.success.sum()
        assert paired.both + paired.wins == outcome.success.sum()
    for evaluation in evaluations.values():
        document = evaluation.to_json()
        assert evaluation_from_json(document).to_json() == document


def always(policy: Policy, action: int) -> Policy:
    """The policy with its last bias so large that it always takes one action."""
    last = policy.head[-1]
    bias = np.where(np.arange(last.outputs) == action, np.float32(100), np.float32(0))
    return replace(policy, head=(*policy.head[:-1], replace(last, bias=bias)))


def test_losses_are_what_the_float_policy_alone_succeeds_in(policy: Policy) -> None:
    """Never braking succeeds now and then, an emergency stop without end never does: all that differs is a loss."""
    stops = quantize_policy(always(policy, 3))
    stranger = replace(stops, track="ptq", policy_sha256=POLICY_SHA, dataset_sha256=DATASET_SHA)
    evaluations = judge(always(policy, 0), stranger, driving=True)
    reference, quantized = evaluations["float"].closed_loop, evaluations["ptq"].closed_loop
    assert reference is not None and quantized is not None
    paired = quantized.versus_float[0]
    assert paired.losses == reference.slices[0].success.sum() > 0
    assert paired.wins == 0


def test_without_a_world_only_the_frames_are_evaluated(policy: Policy, candidate: Candidate) -> None:
    evaluations = judge(policy, candidate)
    assert all(evaluation.closed_loop is None and evaluation.world is None for evaluation in evaluations.values())
    assert evaluations["float"].open_loop is None


@pytest.mark.parametrize("field", ["policy_sha256", "dataset_sha256"])
def test_a_candidate_of_another_policy_or_dataset_is_stale(policy: Policy, candidate: Candidate, field: str) -> None:
    stale = replace(candidate, **{field: "9" * 64})  # type: ignore[arg-type]
    with pytest.raises(StaleError, match="another " + field.removesuffix("_sha256")):
        judge(policy, stale)


def test_a_candidate_under_a_wrong_name_and_an_empty_held_out_set_are_refused(
    policy: Policy, candidate: Candidate
) -> None:
    with pytest.raises(InputError, match="is called 'ptq'"):
        judge(policy, replace(candidate, track="qat"))
    with pytest.raises(InputError, match="no held-out frames"):
        judge(policy, candidate, FRAMES[:0])


def test_a_policy_that_does_not_fit_the_world_is_refused(candidate: Candidate) -> None:
    with pytest.raises(InputError, match="does not fit the world"):
        judge(random_policy(4, ego=5), candidate, driving=True)
