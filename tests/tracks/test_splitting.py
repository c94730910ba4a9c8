"""Hidden units in two: the same function, finer where frames lie, and candidates of it can be taken apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.anatomy import dissect
from quant.anatomy.simulation import Simulation, build_network
from quant.errors import InputError
from quant.observation.observations import Observations
from quant.policy import Policy
from quant.runners import Int8Runner
from quant.tracks.candidate import Candidate
from quant.tracks.export import export
from quant.tracks.objective import Frames
from quant.tracks.plan import Choice, Rewriting, calibrate, make_plan, simulate
from quant.tracks.ptq import rewritten, search
from quant.tracks.splitting import split
from tests.tracks import strategies

POLICY = strategies.policy(2, ego=6, hidden=((16, "relu"), (16, "relu")))
DATASET = strategies.dataset_of(POLICY, 300)
SEEN = strategies.frames_for(POLICY, 400, seed=1)
IN_TWO = Rewriting(1.0, 8)


def wide(policy: Policy) -> Observations:
    """Frames that go four times as far as those that were seen."""
    frames = strategies.frames_for(policy, 400, seed=2)
    return replace(frames, ego=frames.ego * 4, peers=frames.peers * 4)


def frames_of(policy: Policy) -> Frames:
    alone = Frames.only(Observations.concatenate([SEEN, wide(policy)]))
    return replace(alone, seen=SEEN, filled=wide(policy))


def candidate_of(rewriting: Rewriting) -> Candidate:
    frames = frames_of(POLICY)
    ones = (1.0,) * len(POLICY.encoder), (1.0,) * len(POLICY.head)
    calibration = calibrate(rewritten(POLICY, frames, rewriting).policy, frames.all, frames.features)
    return export("made", make_plan(calibration, Choice(0.0, rewriting, *ones)), DATASET, [])


@given(policy=strategies.policies(), units=st.integers(0, 20), twins=st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_it_is_the_same_function_on_every_frame(policy: Policy, units: int, twins: int) -> None:
    seen = strategies.frames_for(policy, 100, seed=1)
    every = Observations.concatenate([seen, wide(policy)])
    made = split(policy, seen, every, units, twins).policy
    exact = policy.forward(every).values
    near = (2e-3 if twins else 1e-4) * max(float(np.abs(exact).max()), 1.0)
    np.testing.assert_allclose(made.forward(every).values, exact, atol=near)
    for own, other in zip((*policy.encoder, *policy.head), (*made.encoder, *made.head), strict=True):
        most = {"relu": units, "tanh": twins}.get(own.activation, 0)
        assert own.outputs <= other.outputs <= own.outputs + most
        assert other.activation in {own.activation, "relu6"}


def test_frames_that_were_seen_keep_more_of_their_steps() -> None:
    """Inputs have the range of what was seen; hidden units that of every frame."""
    frames = frames_of(POLICY)
    features = Frames.only(SEEN).features
    ones = (1.0,) * len(POLICY.encoder), (1.0,) * len(POLICY.head)
    exact, error = POLICY.action_space.clip(POLICY.forward(SEEN).values), {}
    for one in (Rewriting(0.0), Rewriting(1.0), IN_TWO):
        plan = make_plan(
            calibrate(rewritten(POLICY, frames, one).policy, frames.all, frames.features),
            Choice(0.0, one, *ones),
            features,
        )
        error[one] = float(np.abs(simulate(plan, SEEN, round_weights=False) - exact).mean())
    assert error[IN_TWO] < 0.5 * min(error[Rewriting(0.0)], error[Rewriting(1.0)])


def test_where_nothing_is_rectified_nothing_is_split() -> None:
    smooth = strategies.policy(3, encoder=((8, "tanh"),), hidden=((8, "tanh"),))
    assert not IN_TWO.changes(smooth) and Rewriting(0.5).changes(smooth) and Rewriting(1.0, 16, 16).changes(smooth)
    assert IN_TWO not in search(smooth, Frames.only(strategies.frames_for(smooth, 60))).calibrations


@pytest.mark.parametrize("rewriting", [IN_TWO, Rewriting(1.0, 16, 16)])
def test_a_candidate_with_units_in_two_is_taken_apart(rewriting: Rewriting) -> None:
    frames, candidate = frames_of(POLICY), candidate_of(rewriting)
    known = [rewritten(POLICY, frames, one) for one in (Rewriting(0.0), Rewriting(1.0), rewriting)]
    network = build_network(POLICY, candidate, known)
    np.testing.assert_allclose(Simulation(network, SEEN).values({}), POLICY.forward(SEEN).values, atol=2e-3)
    simulated = Simulation(network, SEEN).values(network.everything)
    measured = Int8Runner(candidate, "litert").values(SEEN)
    assert np.abs(POLICY.action_space.clip(simulated.astype(np.float32)) - measured).max() < network.output_step
    anatomy = dissect(POLICY, candidate, SEEN, rewritten=known)
    assert anatomy.simulated.overall.cost == pytest.approx(anatomy.measured.overall.cost, rel=0.2)


def test_without_the_policy_that_was_split_its_layers_are_not_known() -> None:
    with pytest.raises(InputError, match="its layers have weights"):
        build_network(POLICY, candidate_of(IN_TWO), [rewritten(POLICY, frames_of(POLICY), Rewriting(1.0))])
