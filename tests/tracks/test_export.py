"""What the converter makes of a plan: int8 throughout, the plan's scales, and nothing a device cannot run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from quant.errors import QuantError
from quant.observation.observations import F32
from quant.policy import Box
from quant.runners import Int8Runner, interface, read_model, release_dependent
from quant.runners.flatbuffer import FullyConnected
from quant.tracks.candidate import PARTS
from quant.tracks.export import export
from quant.tracks.plan import PEER_RANGE, LayerRanges, Range, fake_quantize_weight, simulate
from tests.tracks.conftest import POLICIES, Exported

OF_ACTIVATION = {"tanh": "TANH", "sigmoid": "LOGISTIC", "elu": "ELU"}


def codes(values: F32, own: Range) -> F32:
    return np.asarray(np.rint((values - own.low) / own.scale) - 128, np.float32)


def test_operators_are_one_dense_a_layer_and_separate_activations_only(each: Exported) -> None:
    for model, layers in (
        (each.candidate.peer_encoder, each.policy.encoder),
        (each.candidate.policy_head, each.policy.head),
    ):
        expected: list[str] = []
        for layer in layers:
            expected += [
                "FULLY_CONNECTED",
                *([OF_ACTIVATION[layer.activation]] if layer.activation in OF_ACTIVATION else []),
            ]
        assert list(read_model(model.tflite).operators) == expected


def test_interfaces_are_int8_of_the_plans_scales(each: Exported) -> None:
    encoder_in, encoder_out = interface(each.candidate.peer_encoder.tflite)
    head_in, head_out = interface(each.candidate.policy_head.tflite)
    for found, planned, size in (
        (encoder_in, PEER_RANGE, each.policy.peer_size),
        (encoder_out, each.plan.encoder_ranges[-1].after, each.policy.embedding_size),
        (head_in, each.plan.z, each.policy.embedding_size + each.policy.ego_size),
        (head_out, each.plan.head_ranges[-1].after, each.policy.action_space.width),
    ):
        assert found.shape == (1, size)
        assert float(found.scale) == pytest.approx(planned.scale, rel=1e-5)
        assert float(found.scale) * (-128 - found.zero_point) == pytest.approx(planned.low, abs=planned.scale * 1e-3)


def test_pooled_embeddings_are_copied_where_the_pooling_keeps_their_range(each: Exported) -> None:
    encoder_out = interface(each.candidate.peer_encoder.tflite)[1]
    head_in = interface(each.candidate.policy_head.tflite)[0]
    assert encoder_out.same_quantization(head_in) == (each.policy.pooling != "sum")


def test_the_output_range_of_a_box_is_its_bounds(each: Exported) -> None:
    if not isinstance(each.policy.action_space, Box):
        return
    space, out = each.policy.action_space, interface(each.candidate.policy_head.tflite)[1]
    ends = out.dequantize(np.array([-128, 127], np.int8))
    assert ends[0] <= min(*space.low, 0) + 1e-5 and ends[1] >= max(*space.high, 0) - 1e-5
    assert ends[1] - ends[0] <= (max(*space.high, 0) - min(*space.low, 0)) * (1 + 2 / 255)


def test_weights_are_the_folded_ones_rounded_by_channel(each: Exported) -> None:
    plan = each.plan
    for model, layers, inputs in (
        (each.candidate.peer_encoder, plan.encoder, [PEER_RANGE, *(own.after for own in plan.encoder_ranges)]),
        (each.candidate.policy_head, plan.head, [plan.z, *(own.after for own in plan.head_ranges)]),
    ):
        dense = [found for found in read_model(model.tflite).layers if isinstance(found, FullyConnected)]
        for found, layer, before in zip(dense, layers, inputs[:-1], strict=True):
            stored = found.weight.astype(np.float32) * found.weight_scale[:, None]
            np.testing.assert_allclose(stored, fake_quantize_weight(layer, before), rtol=1e-4, atol=1e-6)
            assert found.weight.min() >= -127


def test_tflite_micro_gives_the_same_bytes_as_the_arithmetic_of_verdicts(each: Exported) -> None:
    some = each.frames[:60]
    ours = Int8Runner(each.candidate).decide(some)
    theirs = Int8Runner(each.candidate, "tflite_micro").decide(some)
    np.testing.assert_array_equal(ours.embeddings, theirs.embeddings)
    np.testing.assert_array_equal(ours.outputs, theirs.outputs)


def test_no_layer_depends_on_the_release_of_tflite_micro(each: Exported) -> None:
    for model in (each.candidate.peer_encoder, each.candidate.policy_head):
        assert release_dependent(read_model(model.tflite)) == ()


def test_search_simulates_what_the_device_computes(each: Exported) -> None:
    """Rounded halves and int32 biases differ, and a step in the middle is a few at the end; the error is the same."""
    own = each.plan.head_ranges[-1].after
    simulated, device = simulate(each.plan, each.frames), Int8Runner(each.candidate)
    steps = np.abs(codes(simulated, own) - device.decide(each.frames).outputs)
    assert steps.max() <= 12
    assert np.mean(steps <= 1) > 0.85
    assert np.mean(steps) < 0.6
    space = each.policy.action_space
    wanted = space.clip(each.policy.forward(each.frames).values)
    expected = np.abs(space.clip(simulated) - wanted).mean()
    assert np.abs(device.values(each.frames) - wanted).mean() == pytest.approx(expected, rel=0.2)


def test_decisions_are_close_to_the_float_policys(each: Exported) -> None:
    space = each.policy.action_space
    wanted = space.clip(each.policy.forward(each.frames).values)
    given = Int8Runner(each.candidate).values(each.frames)
    span = float(np.ptp(wanted))
    assert span > 0
    assert np.abs(given - wanted).mean() < 0.015 * span
    assert np.abs(given - wanted).max() < 0.12 * span


def test_actions_stay_within_the_bounds_of_each_component(each: Exported) -> None:
    if isinstance(each.policy.action_space, Box):
        values = Int8Runner(each.candidate).values(each.frames)
        assert (values >= np.array(each.policy.action_space.low, np.float32)).all()
        assert (values <= np.array(each.policy.action_space.high, np.float32)).all()


def test_decisions_depend_on_the_set_of_peers_only(each: Exported) -> None:
    """Order of the slots, and what stands in absent ones, do not matter: in no pooling."""
    seen = each.frames
    rng = np.random.default_rng(0)
    order = rng.permuted(np.tile(np.arange(each.policy.max_peers), (len(seen), 1)), axis=1)
    peers = np.take_along_axis(seen.peers, order[:, :, None], axis=1)
    mask = np.take_along_axis(seen.mask, order, axis=1)
    shuffled = replace(seen, peers=np.where(mask[:, :, None], peers, np.float32(-7)), mask=mask)
    runner = Int8Runner(each.candidate)
    np.testing.assert_array_equal(runner.values(seen), runner.values(shuffled))


def test_the_candidate_says_what_it_was_made_of(each: Exported) -> None:
    made = each.candidate
    assert (made.track, made.pooling, made.action_space) == ("ptq", each.policy.pooling, each.policy.action_space)
    assert (made.policy_sha256, made.dataset_sha256) == (each.dataset.policy_sha256, each.dataset.digest)
    assert made.max_peers == each.policy.max_peers
    assert [model.part for model in (made.peer_encoder, made.policy_head)] == list(PARTS)
    assert made.log[0] == "a line"
    text = "\n".join(made.log)
    assert f"{len(made.peer_encoder.tflite)} bytes" in text and f"{len(made.policy_head.tflite)} bytes" in text
    assert ("do not share" in text) == (each.policy.pooling == "sum")


@pytest.mark.parametrize("name", ["stable-baselines3", "elu"])
def test_the_same_plan_gives_the_same_bytes(exported: Callable[[str], Exported], name: str) -> None:
    first = exported(name)
    again = export("ptq", first.plan, first.dataset, [])
    assert again.peer_encoder.tflite == first.candidate.peer_encoder.tflite
    assert again.policy_head.tflite == first.candidate.policy_head.tflite


def test_elu_is_an_int8_operator_with_the_plans_ranges(exported: Callable[[str], Exported]) -> None:
    made = exported("elu")
    for part, ranges in (("peer_encoder", made.plan.encoder_ranges), ("policy_head", made.plan.head_ranges)):
        layers = read_model(getattr(made.candidate, part).tflite).layers
        elus = [layer for layer in layers if layer.operator == "ELU"]
        planned = [own for own in ranges if own.before is not None]
        assert len(elus) == len(planned) > 0
        for layer, own in zip(elus, planned, strict=True):
            assert own.before is not None
            assert float(layer.input.scale) == pytest.approx(own.before.scale, rel=1e-4)
            assert float(layer.output.scale) == pytest.approx(own.after.scale, rel=1e-4)


@pytest.mark.parametrize("end", ["peer_encoder's output", "policy_head's input"])
def test_scales_other_than_the_plans_are_an_error(
    exported: Callable[[str], Exported], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """As after an update of the converter that no longer takes the ranges it is told."""
    made = exported("mean")
    models = iter((made.candidate.peer_encoder.tflite, made.candidate.policy_head.tflite))
    monkeypatch.setattr("quant.tracks.export.convert", lambda *_: next(models))
    other = Range.around(made.plan.z.low, made.plan.z.high * 1.01)
    plan = (
        replace(made.plan, encoder_ranges=(LayerRanges(made.plan.encoder_ranges[0].before, other),))
        if end.startswith("peer_encoder")
        else replace(made.plan, z=other)
    )
    with pytest.raises(QuantError, match=end):
        export("ptq", plan, made.dataset, [])


def test_every_activation_and_pooling_is_among_the_policies() -> None:
    used = {layer.activation for policy in POLICIES.values() for layer in (*policy.encoder, *policy.head)}
    assert used == {"linear", "relu", "relu6", "tanh", "elu", "sigmoid"}
    assert {policy.pooling for policy in POLICIES.values()} == {"max", "mean", "sum"}
