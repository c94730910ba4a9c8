"""The parts of a decision's importance, each by itself: directions, pooling, the floor; and who uses it."""

from __future__ import annotations

import numpy as np
import pytest

from quant.policy import Box, Discrete, Pooling
from quant.tracks import gptq
from quant.tracks.plan import Choice, Rewriting, calibrate, make_plan
from quant.tracks.rounding import round_layer
from quant.tracks.sensitivity import BEYOND, FLOOR, _directions, _unpool, sensitivity
from tests.tracks import strategies


def test_directions_of_logits_make_the_fisher_information_of_the_softmax() -> None:
    values = np.random.default_rng(0).normal(0, 2, (50, 4)).astype(np.float32)
    directions = _directions(Discrete(4), values)
    p = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    fisher = p[:, :, None] * np.eye(4) - p[:, :, None] * p[:, None, :]
    np.testing.assert_allclose(np.einsum("sna,snb->nab", directions, directions), fisher, atol=1e-6)


def test_an_action_counts_a_little_beyond_its_bounds_and_not_further() -> None:
    space = Box((-1.0, 0.0), (1.0, 4.0))
    near, far = 2 * (BEYOND - 0.002), 2 * (BEYOND + 0.002)
    values = np.array([[0, 2], [1 + near, 2], [1 + far, 2], [-1 - near, -0.01], [-1 - far, 5]], np.float32)
    seen = _directions(space, values)
    assert seen[0, :, 0].tolist() == [1, 1, 0, 1, 0] and seen[1, :, 1].tolist() == [1, 1, 1, 1, 0]
    assert not seen[0, :, 1].any() and not seen[1, :, 0].any()


@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_pooling_shares_a_gradient_among_the_peers(pooling: Pooling) -> None:
    policy, frames = strategies.policy(pooling=pooling), strategies.frames(60)
    rng, some = np.random.default_rng(0), frames.counts > 0
    embeddings = rng.normal(size=(*frames.mask.shape, 8)).astype(np.float32)
    gradient = rng.normal(size=(60, 8)).astype(np.float32)
    back = _unpool(policy, embeddings, embeddings.sum(axis=1), gradient, frames)
    owner = np.nonzero(frames.mask)[0]
    total = np.zeros((60, 8))
    np.add.at(total, owner, back)
    whole = gradient * frames.counts[:, None] if pooling == "sum" else gradient
    np.testing.assert_allclose(total[some], whole[some], rtol=1e-4, atol=1e-5)


def test_every_action_counts_and_every_row_has_a_floor() -> None:
    policy = strategies.policy(4, space=Box((-0.3, -0.3), (0.3, 0.3)))
    frames = strategies.frames(400)
    values = policy.forward(frames).values
    importance = sensitivity(policy, frames).head_importance[-1]
    inside = np.abs(values) < 0.3 + BEYOND * 0.6
    assert inside.any(axis=0).all() and not inside.all(axis=0).any()
    np.testing.assert_allclose(importance, inside / inside.mean(axis=0) + FLOOR, rtol=1e-5)


def test_a_way_by_importance_is_given_the_importance() -> None:
    policy, frames = strategies.policy(2), strategies.frames(200)
    plan = make_plan(calibrate(policy, frames), Choice(0.1, Rewriting(), (1.0, 1.0), (1.0, 1.0)))
    rounded, known = gptq.Rounded.nearest(plan), sensitivity(policy, frames)
    inputs = rounded.inputs("head", 0, frames)
    plain, weighted = (
        gptq._round(rounded, "head", 0, inputs, known, gptq.Way("some", 0.01, matched=True, important=important))
        for important in (False, True)
    )
    for made, importance in ((plain, np.ones((200, 1), np.float32)), (weighted, known.head_importance[0])):
        same = round_layer(
            plan.head[0], plan.z, plan.head_ranges[0], inputs, known.head[0], importance, 0.01, matched=True
        )
        np.testing.assert_array_equal(made.weight, same.weight)
    assert (plain.weight != weighted.weight).any()
