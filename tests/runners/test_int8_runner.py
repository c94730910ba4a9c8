"""A whole decision: quantize, encode, pool, concatenate, head, dequantize."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from quant.errors import InputError
from quant.observation.observations import Observations
from quant.policy.policy import Box, Policy, Pooling
from quant.runners import ENGINES, FloatRunner, Int8Runner, make_engine, parity, parity_from_json, read_model, tflm
from quant.tracks.candidate import Candidate, SubModel
from tests.runners.candidates import box_policy, quantize_policy, random_observations, random_policy
from tests.runners.oracle import tflite_micro


def one_by_one(candidate: Candidate, observations: Observations) -> NDArray[np.int8]:
    """(N, A) outputs the plain way, by TFLite-Micro, for a maximum whose bytes are shared with the head."""
    zero_point = read_model(candidate.policy_head.tflite).input.zero_point
    outputs = []
    for ego, peers, mask in zip(observations.ego, observations.peers, observations.mask, strict=True):
        size = read_model(candidate.peer_encoder.tflite).output.size
        z = np.full(size, zero_point, np.int8)
        if mask.any():
            inputs = candidate.peer_input.quantize(peers[mask])
            z = tflite_micro(candidate.peer_encoder.tflite, inputs).max(axis=0)
        head = np.concatenate([z, candidate.ego_input.quantize(ego[None])[0]])
        outputs.append(tflite_micro(candidate.policy_head.tflite, head[None])[0])
    return np.array(outputs)


@pytest.mark.parametrize("policy", [random_policy(), box_policy()], ids=["discrete", "box"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_decision_is_what_a_device_does(policy: Policy, per_channel: bool) -> None:
    candidate = quantize_policy(policy, per_channel=per_channel)
    observations = random_observations(60, seed=4, ego=policy.ego_size)
    assert (observations.counts == 0).any()
    expected = one_by_one(candidate, observations)
    for name in ("numpy", "tflite_micro"):
        np.testing.assert_array_equal(Int8Runner(candidate, name).decide(observations).outputs, expected)


@pytest.mark.parametrize("pooling", ["max", "sum", "mean"])
@pytest.mark.parametrize("share_scale", [False, True])
def test_int8_follows_the_float_policy(pooling: Pooling, share_scale: bool) -> None:
    """Twelve output steps at most, three hundredths of the spread on average: nothing is swapped or mis-scaled."""
    policy = random_policy(3, pooling=pooling)
    candidate = quantize_policy(policy, share_scale=share_scale)
    observations = random_observations(3000, seed=5)
    ours, exact = Int8Runner(candidate).values(observations), FloatRunner(policy).values(observations)
    scale = float(read_model(candidate.policy_head.tflite).output.scale)
    inside = np.abs(exact - ours) < 12 * scale
    assert inside.mean() > 0.999
    assert np.abs(exact - ours).mean() < 0.03 * exact.std()
    assert ours.dtype == np.float32


def test_box_values_are_clipped_to_the_bounds() -> None:
    policy = replace(box_policy(), action_space=Box((0.25,), (0.5,)))
    candidate = quantize_policy(policy)
    for runner in (FloatRunner(policy), Int8Runner(candidate)):
        values = runner.values(random_observations(500, ego=6))
        assert (values.min(), values.max()) == (0.25, 0.5)
        assert runner.action_space == policy.action_space


def test_values_are_the_dequantized_outputs() -> None:
    candidate = quantize_policy(random_policy())
    runner, observations = Int8Runner(candidate), random_observations(100)
    output = read_model(candidate.policy_head.tflite).output
    outputs = runner.decide(observations).outputs.astype(np.float64)
    np.testing.assert_allclose(
        runner.values(observations), (outputs - output.zero_point) * float(output.scale), rtol=1e-6, atol=1e-9
    )


def test_interfaces_of_a_decision() -> None:
    policy = random_policy()
    candidate = quantize_policy(policy)
    observations = random_observations(1500, seed=8)
    decision = Int8Runner(candidate).decide(observations)
    assert decision.peer_inputs.shape == (1500, 8, 6)
    assert decision.embeddings.shape == (1500, 8, 32)
    assert (decision.embeddings[~observations.mask] == -128).all()
    np.testing.assert_array_equal(
        decision.peer_inputs[observations.mask], candidate.peer_input.quantize(observations.peers[observations.mask])
    )
    np.testing.assert_array_equal(decision.head_inputs[:, :32], decision.pooled)
    np.testing.assert_array_equal(decision.head_inputs[:, 32:], candidate.ego_input.quantize(observations.ego))
    empty = observations.counts == 0
    assert (decision.pooled[empty] == read_model(candidate.policy_head.tflite).input.zero_point).all()


@pytest.mark.parametrize("name", ENGINES)
def test_padding_is_never_read_and_order_does_not_matter(name: str) -> None:
    candidate = quantize_policy(random_policy())
    runner = Int8Runner(candidate, name)  # type: ignore[arg-type]
    observations = random_observations(64, seed=9)
    expected = runner.values(observations)
    peers = observations.peers.copy()
    peers[~observations.mask] = np.nan
    np.testing.assert_array_equal(expected, runner.values(replace(observations, peers=peers)))
    order = np.random.default_rng(0).permutation(8)
    shuffled = Observations(observations.ego, peers[:, order], observations.mask[:, order])
    np.testing.assert_array_equal(expected, runner.values(shuffled))


@pytest.mark.parametrize("n", [0, 1, 1023, 1024, 1025, 2500])
def test_batches_of_any_size(n: int) -> None:
    policy = random_policy()
    observations = random_observations(n, seed=10)
    for name in ("numpy", "litert"):
        runner = Int8Runner(quantize_policy(policy), name)
        whole = runner.values(observations)
        assert whole.shape == (n, 4)
        for row in range(0, n, 501):
            np.testing.assert_array_equal(whole[row : row + 1], runner.values(observations[row : row + 1]))
    assert FloatRunner(policy).values(observations).shape == (n, 4)
    assert Int8Runner(quantize_policy(policy)).decide(observations).outputs.shape == (n, 4)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_threads_do_not_change_a_byte(threads: str) -> None:
    """Sums of integers are exact in any order."""
    code = (
        "from tests.runners.candidates import *; from quant.runners import *; import hashlib\n"
        "o = random_observations(5000, ego=6); p = box_policy()\n"
        "print(hashlib.sha256(Int8Runner(quantize_policy(p)).decide(o).outputs.tobytes()).hexdigest())\n"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    here = Int8Runner(quantize_policy(box_policy())).decide(random_observations(5000, ego=6)).outputs
    assert done.stdout.strip() == hashlib.sha256(here.tobytes()).hexdigest()


def test_float_runner_is_the_policy() -> None:
    policy = random_policy(1)
    observations = random_observations(3000, seed=3)
    np.testing.assert_allclose(
        FloatRunner(policy).values(observations), policy.forward(observations).values, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("policy", [random_policy(), box_policy()], ids=["discrete", "box"])
def test_parity_is_measured(policy: Policy) -> None:
    observations = random_observations(1500, seed=11, ego=policy.ego_size)
    report = parity(quantize_policy(policy), observations)
    assert report.conforms
    assert report.decisions == 1500
    assert report.tflite_micro.decisions_differing == 0
    assert report.tflite_micro.peer_encoder.outputs == observations.counts.sum() * 32
    # LiteRT rounds once: a difference of zero would mean that it was not run.
    assert 0 < report.litert.peer_encoder.fraction < 0.05
    assert report.litert.peer_encoder.max_lsb <= 2
    assert report.litert.end_to_end.differing > 0
    assert report.litert.decisions_differing > 0
    assert parity_from_json(json.loads(json.dumps(asdict(report)))) == report


def test_parity_notices_another_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding once instead of twice breaks conformance."""

    def once(x: NDArray[np.int64], mantissa: NDArray[np.int64], shift: NDArray[np.int64]) -> NDArray[np.int64]:
        total = 31 - np.asarray(shift)
        rounded: NDArray[np.int64] = (x * mantissa + (np.int64(1) << (total - 1))) >> total
        return rounded

    policy = random_policy()
    candidate, observations = quantize_policy(policy), random_observations(500)
    monkeypatch.setattr(tflm, "EXACT_FLOAT64", 0)
    assert parity(candidate, observations).conforms
    monkeypatch.setattr(tflm, "multiply_by_quantized_multiplier", once)
    assert not parity(candidate, observations).conforms


def test_parts_that_do_not_fit_are_refused() -> None:
    candidate = quantize_policy(random_policy())
    other = quantize_policy(box_policy())
    with pytest.raises(InputError, match="policy_head's input"):
        Int8Runner(replace(candidate, policy_head=other.policy_head))
    with pytest.raises(InputError, match="policy_head's output"):
        Int8Runner(replace(candidate, action_space=Box((0.0,), (1.0,))))
    with pytest.raises(InputError, match="peer_encoder's input"):
        Int8Runner(replace(candidate, peer_input=candidate.ego_input))


@pytest.mark.parametrize("name", ENGINES)
def test_a_damaged_model_is_named(name: str) -> None:
    candidate = quantize_policy(random_policy())
    broken = SubModel("policy_head", candidate.policy_head.tflite[:900])
    with pytest.raises(InputError) as raised:
        Int8Runner(replace(candidate, policy_head=broken), name)  # type: ignore[arg-type]
    assert raised.value.where == "policy_head"


def test_wrong_observations_and_engines_are_refused() -> None:
    candidate = quantize_policy(random_policy())
    with pytest.raises(InputError, match="ego of 6"):
        Int8Runner(candidate).values(random_observations(5, ego=6))
    wide = random_observations(5)
    more = Observations(wide.ego, np.tile(wide.peers, (1, 2, 1)), np.tile(wide.mask, (1, 2)))
    with pytest.raises(InputError, match="16 peers"):
        Int8Runner(candidate).decide(more)
    with pytest.raises(InputError, match="no engine 'tpu'"):
        make_engine("tpu", candidate)  # type: ignore[arg-type]


def test_importing_the_runners_loads_no_runtime() -> None:
    code = "import sys, quant.runners; print([m for m in sys.modules if m.split('.')[0] in {'ai_edge_litert', 'tflite_micro', 'tensorflow', 'torch'}])"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
