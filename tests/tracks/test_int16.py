"""The int16x8 track: what it is worth, what its files hold, and that what runs is what was planned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.acceptance.limits import Limits
from quant.boards.virtual.board import VirtualBoard
from quant.dataset import Split
from quant.dataset.storage import Made
from quant.errors import InputError
from quant.policy import Activation, Box, Discrete, Policy, Pooling
from quant.runners import Int8Runner, parity, read_model, release_dependent
from quant.runners.flatbuffer import FullyConnected
from quant.runs.job import run_all
from quant.runs.settings import Settings
from quant.runs.sources import Sources
from quant.tracks import gptq, int16, ptq
from quant.tracks.candidate import Candidate
from quant.tracks.job import Job
from quant.tracks.objective import Frames
from quant.tracks.plan import Range, simulate
from quant.tracks.registry import TRACKS, check_tracks
from quant.tracks.storage import load_candidate, save_candidate
from tests.tracks import strategies
from tests.tracks.test_gptq import DATASET, POLICY, error_of, infer
from tests.tracks.test_search import without_held_out

KERNELS: tuple[Activation, ...] = ("relu", "relu6", "linear", "tanh", "sigmoid")
shapes = st.lists(st.tuples(st.integers(1, 12), st.sampled_from(KERNELS)), min_size=1, max_size=2)


@pytest.fixture(scope="module")
def made() -> Candidate:
    return int16.run_int16(POLICY, DATASET, infer)


def test_it_errs_a_third_as_much_as_ptq(made: Candidate) -> None:
    rows = DATASET.rows(Split.HELD_OUT, Made.SEEN, Made.AUGMENTED)
    frames = DATASET.observations(rows)
    reference = POLICY.action_space.clip(DATASET.policy_outputs[rows])
    plain = gptq.Rounded.nearest(ptq.find_plan(POLICY, DATASET)[0]).candidate(DATASET)
    ours, theirs = (np.abs(infer(c, frames) - reference).mean() for c in (made, plain))
    assert ours < theirs / 3


def test_it_repeats_to_the_byte_and_never_looks_at_held_out_frames(made: Candidate) -> None:
    again = int16.run_int16(POLICY, without_held_out(DATASET), infer)
    assert made.hashes == again.hashes and made.log == again.log
    assert (made.track, made.bits) == ("int16x8", 16)


def test_the_log_has_the_error_of_what_is_kept(made: Candidate) -> None:
    assert f"error {error_of(POLICY, DATASET, made):.6g}" in next(line for line in made.log if line.startswith("kept"))
    assert sum("weights rounded to nearest" in line for line in made.log) == len(int16.STARTS)


def test_the_files_are_what_every_kernel_takes(made: Candidate) -> None:
    """One scale of weights a layer, int64 biases, zero points of 0, and scales whose products float32 holds."""
    for sub in (made.peer_encoder, made.policy_head):
        model = read_model(sub.tflite)
        assert not release_dependent(model) and set(model.operators) <= {"FULLY_CONNECTED", "TANH"}
        for layer in model.layers:
            assert layer.input.bits == layer.output.bits == 16 and layer.output.zero_point == 0
            if isinstance(layer, FullyConnected):
                assert len(layer.weight_scale) == 1 and layer.bias.dtype == np.int64
                product = np.float64(layer.input.scale) * np.float64(layer.weight_scale[0])
                assert product == np.float64(np.float32(product))
            else:
                assert np.log2(layer.input.scale) % 1 == 0


@pytest.mark.parametrize("operator", [("FULLY_CONNECTED", 7), ("TANH", 3)])
def test_the_operators_have_the_versions_of_int16(made: Candidate, operator: tuple[str, int]) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(made.policy_head.tflite, 0)
    codes = {code.builtinCode: code.version for code in model.operatorCodes}
    assert codes[getattr(schema.BuiltinOperator, operator[0])] == operator[1]


@given(
    encoder=shapes,
    hidden=shapes,
    pooling=st.sampled_from(("max", "sum", "mean")),
    space=strategies.spaces,
    seed=strategies.seeds,
)
@settings(max_examples=12, deadline=None)
def test_what_runs_is_what_was_planned(
    encoder: list[tuple[int, Activation]],
    hidden: list[tuple[int, Activation]],
    pooling: Pooling,
    space: Box | Discrete,
    seed: int,
) -> None:
    """TFLite-Micro agrees in every byte, and with the plan in float but for the 15 bits of the kernels' mantissas."""
    policy = strategies.policy(seed, encoder=encoder, hidden=hidden, pooling=pooling, space=space)
    dataset = strategies.dataset_of(policy, 120)
    made_on = Frames.of(dataset)
    frames, plan = made_on.all, int16.wide_plan(policy, made_on, 0.25, 4.0)
    candidate = gptq.Rounded.nearest(plan).candidate(dataset, "int16x8")
    assert parity(candidate, frames[:20]).conforms
    exact = policy.forward(frames).values
    # A Box may be a small part of what the head computes.
    width = max(plan.head_ranges[-1].after.high, float(np.abs(exact).max()))
    found, planned = Int8Runner(candidate).values(frames), policy.action_space.clip(simulate(plan, frames))
    assert np.abs(found - planned).max() < 0.004 * width
    unrounded = simulate(plan, frames, round_weights=False)
    assert np.abs(policy.action_space.clip(unrounded) - policy.action_space.clip(exact)).max() < 0.004 * width


def test_all_that_is_declared_and_twice_what_layers_gave_is_not_clipped() -> None:
    frames = Frames.of(DATASET)
    plan = int16.wide_plan(POLICY, frames, 0.0)
    ends = np.stack(DATASET.contract.bounds(peers=True))
    np.testing.assert_allclose(plan.peer_affine().dequantize(plan.peer_affine().quantize(ends)), ends, atol=1e-3)
    for own, reach in zip(plan.encoder_ranges, _reaches(POLICY), strict=True):
        assert 2 * reach <= own.after.high < 2.01 * reach


def _reaches(policy: Policy) -> list[float]:
    x, reaches = Frames.of(DATASET).all, []
    peers = x.peers[x.mask]
    for layer in policy.encoder:
        peers = layer(peers)
        reaches.append(float(np.abs(peers).max()))
    return reaches


@pytest.mark.parametrize(("reach", "scale"), [(1.0, 1 / 32767), (300.0, 300 / 32767), (0.0, 1e-3 / 32767)])
def test_a_symmetric_range_holds_its_reach(reach: float, scale: float) -> None:
    made = Range.symmetric(reach)
    assert made.zero_point == 0 and scale <= made.scale <= scale * (1 + 2**-10)
    assert np.float64(np.float32(made.scale)) == pytest.approx(made.scale, rel=1e-15)
    x = np.array([-1, -0.3, 0, 0.7, 1], np.float32) * np.float32(reach)
    np.testing.assert_allclose(made.fake_quantize(x), x, atol=0.51 * made.scale)


@pytest.mark.parametrize(("gain", "function"), [(0.2, "tanh"), (0.5, "tanh"), (30.0, "tanh"), (30.0, "sigmoid")])
def test_tables_get_a_power_of_two_that_covers_what_was_seen(gain: float, function: Activation) -> None:
    policy, frames = strategies.policy(3, hidden=((8, function),), gain=gain), strategies.frames(200)
    before = int16.wide_plan(policy, Frames.only(frames), 0.0).head_ranges[0].before
    layer = policy.head[0]
    seen = float(np.abs(policy.forward(frames).head_inputs @ layer.weight.T + layer.bias).max())
    most = {"tanh": 8, "sigmoid": 16}[function]
    assert before is not None
    assert -before.low == (most if gain == 30 else 2.0 ** np.ceil(np.log2(2 * seen))) <= most


def test_an_activation_without_a_kernel_is_refused_before_the_work() -> None:
    policy = strategies.policy(1, encoder=((8, "relu"), (8, "elu")))
    check_tracks(("ptq", "qat", "ptq-gptq"), policy)
    check_tracks(tuple(TRACKS), POLICY)
    for refused in (
        lambda: check_tracks(("ptq", "int16x8"), policy),
        lambda: int16.run_int16(policy, DATASET, infer),
    ):
        with pytest.raises(InputError, match=r"elu has no int16 kernel") as caught:
            refused()
        assert "encoder layer 1" in str(caught.value.where) and "--tracks" in str(caught.value.hint)


def test_widths_that_do_not_fit_together_are_refused(made: Candidate) -> None:
    for bad in (replace(made, bits=8), replace(made, ego_input=replace(made.ego_input, bits=8))):
        with pytest.raises(InputError, match=r"has (16|8) bits"):
            Int8Runner(bad)


def test_a_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    policy = strategies.policy(1, hidden=((8, "elu"),))
    with pytest.raises(InputError, match="elu has no int16 kernel"):
        run_all(lambda: Sources(policy), tmp_path / "run", Settings("x"), Limits(), tracks=("ptq", "int16x8"))
    assert not (tmp_path / "run").exists()


def test_more_tracks_than_a_board_holds_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{len(TRACKS)} tracks") as caught:
        run_all(
            lambda: Sources(POLICY),
            tmp_path / "run",
            Settings("x"),
            Limits(),
            tracks=tuple(TRACKS),
            board=VirtualBoard(),
        )
    assert "at most 4" in str(caught.value.expected) and caught.value.hint
    assert not (tmp_path / "run").exists()


def test_the_registry_makes_it_and_its_files_come_back(tmp_path: Path, made: Candidate) -> None:
    ticks: list[tuple[int, int]] = []
    job = Job(POLICY, DATASET, infer, progress=lambda done, total: ticks.append((done, total)))
    candidate = TRACKS["int16x8"].make(job).candidate
    assert candidate.hashes == made.hashes and ticks[-1][0] == ticks[-1][1]
    save_candidate(candidate, tmp_path)
    loaded = load_candidate(tmp_path, "int16x8")
    frames = Frames.of(DATASET).all
    np.testing.assert_array_equal(infer(loaded, frames), infer(made, frames))
