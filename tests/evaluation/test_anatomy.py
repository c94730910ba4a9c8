"""What `quant explain` says: true to the candidate's own files, and naming the culprit of every candidate made bad."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from quant.anatomy import Advice, Anatomy, Effect, Effects, Source, advice, advise, contrast, dissect
from quant.anatomy.anatomy import Column, TensorFacts, WeightFacts, WorstFrame
from quant.anatomy.simulation import QUANTIZED, Simulation, build_network
from quant.commands.explain import explain
from quant.dataset import Split, build_dataset, save_dataset
from quant.errors import InputError, StaleError
from quant.evaluation.open_loop import compare
from quant.evaluation.stress.found import GROUPS, WORST, load_found
from quant.evaluation.stress.stress import stress
from quant.files import write_json
from quant.observation import Observations
from quant.observation.contract import Column as Described
from quant.observation.contract import Contract, Origin
from quant.policy import Policy, policy_digest, save_policy
from quant.report.explanation import contrasts, explanation
from quant.report.text import as_text
from quant.runners import Int8Runner, read_model
from quant.runners.flatbuffer import FullyConnected, Layer, Quantized
from quant.runs.folder import POLICY, STRESS, STRESS_FRAMES
from quant.runs.reading import read_candidates, read_inputs
from quant.runs.settings import Settings, read_settings, write_settings
from quant.tracks.candidate import Affine, Candidate, Part, SubModel
from quant.tracks.storage import save_candidate
from tests.commandline import quant
from tests.runners.build import tflite
from tests.runners.candidates import box_policy, quantize_policy, random_observations, random_policy
from tests.tracks import strategies
from tests.tracks.conftest import Exported, each, exported  # noqa: F401 - fixtures

FRAMES = random_observations(600, seed=5)
BOX_FRAMES = random_observations(600, seed=5, ego=6)
RENDERED_WIDTH = 80


# Candidates made bad in one place, and only there.


def layers_of(candidate: Candidate, part: Part) -> list[Layer]:
    return list(read_model(getattr(candidate, part).tflite).layers)


def with_layers(candidate: Candidate, part: Part, layers: Sequence[Layer]) -> Candidate:
    made = SubModel(part, tflite(layers))
    return replace(candidate, peer_encoder=made) if part == "peer_encoder" else replace(candidate, policy_head=made)


def dense(layer: Layer) -> FullyConnected:
    assert isinstance(layer, FullyConnected)
    return layer


def with_few_bits(candidate: Candidate, part: Part, index: int, *, same_scale: bool) -> Candidate:
    """One layer's weights on 7 levels: with a scale as coarse, or with codes that are multiples of 42."""
    layers = layers_of(candidate, part)
    layer = dense(layers[index])
    coarse = np.rint(layer.weight / 42).astype(np.int8)
    if same_scale:
        layers[index] = replace(layer, weight=(coarse * 42).astype(np.int8))
    else:
        bias = np.rint(layer.bias / 42).astype(np.int32)
        layers[index] = replace(layer, weight=coarse, weight_scale=layer.weight_scale * np.float32(42), bias=bias)
    return with_layers(candidate, part, layers)


def with_narrow_tensor(candidate: Candidate, part: Part, index: int, factor: int) -> Candidate:
    """A hidden tensor after a ReLU that reaches only to a part of its range."""
    layers = layers_of(candidate, part)
    narrow = Quantized(layers[index].output.shape, layers[index].output.scale / np.float32(factor), -128)
    layers[index] = replace(layers[index], output=narrow)
    after = dense(layers[index + 1])
    layers[index + 1] = replace(after, input=narrow, bias=(after.bias * factor).astype(np.int32))
    return with_layers(candidate, part, layers)


def with_peer_input(candidate: Candidate, factor: float) -> Candidate:
    """The range of the peers' features: narrower with a factor above 1, wider below; the function stays."""
    layers = layers_of(candidate, "peer_encoder")
    first = dense(layers[0])
    source = Quantized(first.input.shape, first.input.scale / np.float32(factor), first.input.zero_point)
    layers[0] = replace(first, input=source, bias=np.rint(first.bias * factor).astype(np.int32))
    old = candidate.peer_input
    affine = Affine((old.gain * np.float32(factor)).astype(np.float32), old.offset)
    return replace(with_layers(candidate, "peer_encoder", layers), peer_input=affine)


def with_narrow_ego(candidate: Candidate, column: int, factor: float, contract: Contract) -> Candidate:
    """One feature's range reaches from its least value to only a part of what it covered; the function stays."""
    old, layers = candidate.ego_input, layers_of(candidate, "policy_head")
    first = dense(layers[0])
    gain, offset = old.gain.copy(), old.offset.copy()
    gain[column] *= np.float32(factor)
    low = contract.ego[column].low
    assert low is not None
    offset[column] = -128 - np.float32(low) * gain[column]
    weight, zero = first.weight.copy(), first.input.zero_point
    codes, shift = first.weight.shape[1] - old.size + column, np.zeros(len(weight))
    places = [(codes, float(old.offset[column]), float(offset[column]))]
    places += [(codes + len(gain), 0.0, 0.0)] if old.residual else []
    for place, was, now in places:
        before = first.weight[:, place].astype(np.float64)
        weight[:, place] = np.rint(before / factor)
        shift += before * (was - zero) - weight[:, place] * (now - zero)
    layers[0] = replace(first, weight=weight, bias=first.bias + np.rint(shift).astype(np.int32))
    made = with_layers(candidate, "policy_head", layers)
    return replace(made, ego_input=replace(old, gain=gain, offset=offset))


def with_wrong_bias(candidate: Candidate, part: Part, index: int) -> Candidate:
    """One unit's bias is off by a tenth of the layer's output range."""
    layers = layers_of(candidate, part)
    layer = dense(layers[index])
    bias = layer.bias.copy()
    bias[0] += round(25 * float(layer.output.scale) / float(layer.input.scale * layer.weight_scale[0]))
    layers[index] = replace(layer, bias=bias)
    return with_layers(candidate, part, layers)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As the command computes; for small matrices it is faster, too."""
    with threadpool_limits(1):
        yield


def top(anatomy: Anatomy) -> Advice:
    return advise(anatomy)[0]


@pytest.fixture(scope="module")
def good() -> Anatomy:
    policy = random_policy()
    return dissect(policy, quantize_policy(policy), FRAMES)


@pytest.mark.parametrize("same_scale", [True, False])
@pytest.mark.parametrize(("part", "index", "source"), [
    ("peer_encoder", 1, "encoder 1 weights"),
    ("policy_head", 0, "head 0 weights"),
])  # fmt: skip
@pytest.mark.parametrize("made", [random_policy, box_policy])
def test_a_layer_at_three_bits_is_named(
    made: Callable[[], Policy], part: Part, index: int, source: str, same_scale: bool
) -> None:
    policy = made()
    bad = with_few_bits(quantize_policy(policy), part, index, same_scale=same_scale)
    anatomy = dissect(policy, bad, FRAMES if made is random_policy else BOX_FRAMES)
    assert (top(anatomy).rule, top(anatomy).source) == ("few weight levels", source)
    assert top(anatomy).weight > 0.8
    assert anatomy.change(anatomy.source(source).exact) < -0.8
    # The damage stays where it is: the neighbours' weights are no worse than rounded.
    others = [one.weights for one in anatomy.sources if one.weights is not None and one.name != source]
    assert max(one.moved_rms for one in others) < 0.35


def test_clipped_peers_are_named_with_the_features() -> None:
    policy = random_policy()
    anatomy = dissect(policy, with_peer_input(quantize_policy(policy), 4), FRAMES)
    assert (top(anatomy).rule, top(anatomy).source) == ("range too narrow", "peer input")
    assert "record more frames" in top(anatomy).what
    tensor = anatomy.source("peer input").tensor
    assert tensor is not None and tensor.cut_off > 0.1
    assert top(anatomy).why.startswith(max(tensor.columns, key=lambda column: column.cut_cost).name)
    assert "; 3 more are cut off too; that is 100% of what the peer input costs" in top(anatomy).why
    assert all("peer input" in frame.cut_off for frame in anatomy.worst)


SPEED = Described(
    "speed", "m/s", 30.0, -2.0, 2.0, known={"name": "file", "low": "checkpoint", "high": "checkpoint"}
)  # fmt: skip


def described(*, origin: Origin = "checkpoint", high: float = 2.0) -> Contract:
    """Of `BOX_FRAMES`: the first feature of the ego is a speed, of all others only their bounds are known."""
    speed = replace(SPEED, high=high, known={**SPEED.known, "high": origin})
    others = tuple(Described(f"ego feature {i}", low=-1.0, high=1.0) for i in range(1, 6))
    return Contract((speed, *others), tuple(Described(f"peer feature {i}", low=-1.0, high=1.0) for i in range(6)), 8)


def narrowed(factor: float, frames: Observations, contract: Contract) -> Anatomy:
    policy = box_policy()
    bad = with_narrow_ego(quantize_policy(policy), 0, factor, contract)
    return dissect(policy, bad, frames, contract=contract)


@pytest.mark.parametrize(("origin", "high", "what"), [
    ("checkpoint", 2.0, "make the candidate again: it has to represent all that is declared (quant test RUN)"),
    ("file", 2.0, "make the candidate again"),
    ("margin", 2.0, f"{advice.DECLARE}, or record drives that go further"),
    ("checkpoint", -1.0, "the checkpoint says -30 m/s at the most: correct it in observation.toml, or the unit and"),
    ("file", -1.0, "observation.toml says -30 m/s at the most"),
    ("preset", -1.0, "the preset of the field says -30 m/s at the most"),
])  # fmt: skip
def test_a_clipped_input_comes_first_with_what_to_declare_or_record(origin: Origin, high: float, what: str) -> None:
    anatomy = narrowed(4, BOX_FRAMES, described(origin=origin, high=high))
    first = top(anatomy)
    assert (first.rule, first.source) == ("range too narrow", "ego input")
    [speed] = [one for one in anatomy.source("ego input").tensor.columns if one.above]  # type: ignore[union-attr]
    beyond = float((BOX_FRAMES.ego[:, 0] > speed.high).mean())
    assert speed.name == "speed" and speed.above == pytest.approx(beyond, abs=0.02) and speed.below == 0
    assert f"ego's speed is cut off at {30 * speed.high:.3g} m/s in {speed.above:.1%} of the frames" in first.why
    assert first.what.startswith(what)
    # It comes first though the weights are said to be worse.
    heavier = replace(anatomy.source("head 0 weights"), share=2.0)
    others = tuple(heavier if one.name == heavier.name else one for one in anatomy.sources)
    assert top(replace(anatomy, sources=others)) == first


def test_a_clipped_input_is_named_however_few_frames_show_it() -> None:
    contract, slow = described(), np.flatnonzero(BOX_FRAMES.ego[:, 0] < -0.5)
    fast = np.flatnonzero(BOX_FRAMES.ego[:, 0] > 0.5)[:1]
    few = narrowed(4, BOX_FRAMES[np.tile(np.concatenate([np.tile(slow, 40), fast]), 1)], contract)
    said = [one for one in advise(few) if one.source == "ego input" and "cut off" in one.why]
    assert len(said) == 1 and re.search(r"ego's speed is cut off at \S+ m/s in 0\.0\d+% of the frames", said[0].why)
    # However little it costs, too; then it is no cause, and a candidate that keeps to its contract is not at fault.
    [speed] = [one for one in few.source("ego input").tensor.columns if one.above]  # type: ignore[union-attr]
    tensor = replace(few.source("ego input").tensor, columns=(replace(speed, short=()),))  # type: ignore[type-var]
    light = replace(few.source("ego input"), share=SOUND / 10, tensor=tensor)
    others = tuple(light if one.name == light.name else one for one in few.sources)
    found = [one.rule for one in advise(replace(few, sources=others)) if one.source == light.name]
    assert found == ["saturated"]


def test_a_range_that_is_too_narrow_is_named_though_no_frame_goes_there() -> None:
    slow = BOX_FRAMES[BOX_FRAMES.ego[:, 0] < -1.0]
    assert 0 < len(slow) < 60
    first = top(narrowed(4, slow, described()))
    assert (first.rule, first.source) == ("range not covered", "ego input")
    assert re.match(r"ego's speed is represented from -60 to -?[\d.]+ m/s only, of -60 to 60 m/s: beyond", first.why)
    assert "make the candidate again" in first.what
    contract = described(high=1.0)
    contract = replace(contract, ego=(replace(contract.ego[0], low=-1.0), *contract.ego[1:]))
    whole = dissect(box_policy(), quantize_policy(box_policy()), slow, contract=contract)
    assert "range not covered" not in rules(whole)


def test_a_copy_of_what_is_cut_off_is_not_named_besides() -> None:
    contract = described()
    columns = (contract.ego[0], replace(SPEED, copy_of=0), *contract.ego[2:])
    contract = replace(contract, ego=columns)
    bad = with_narrow_ego(quantize_policy(box_policy()), 0, 4, contract)
    both = with_narrow_ego(bad, 1, 4, contract)
    for candidate, named in ((both, "back"), (with_narrow_ego(quantize_policy(box_policy()), 1, 4, contract), "")):
        why = top(dissect(box_policy(), candidate, BOX_FRAMES, contract=contract)).why
        assert ("speed, 1 back" in why) == (not named) and ("ego's speed is" in why) == bool(named)


def test_a_coarse_peer_input_is_not_taken_for_a_clipped_one() -> None:
    policy = random_policy()
    anatomy = dissect(policy, with_peer_input(quantize_policy(policy), 1 / 8), FRAMES)
    assert (top(anatomy).rule, top(anatomy).source) == ("input rounding", "peer input")
    assert anatomy.source("peer input").tensor.cut_off_cost == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(("part", "source"), [
    ("peer_encoder", "encoder 0 activations"), ("policy_head", "head 0 activations"),
])  # fmt: skip
def test_a_clipped_hidden_tensor_is_named(part: Part, source: str) -> None:
    policy = random_policy()
    anatomy = dissect(policy, with_narrow_tensor(quantize_policy(policy), part, 0, 6), FRAMES)
    assert (top(anatomy).rule, top(anatomy).source) == ("range too narrow", source)
    assert "keep more of this tensor's range" in top(anatomy).what


def test_a_wrong_bias_is_named() -> None:
    policy = random_policy()
    anatomy = dissect(policy, with_wrong_bias(quantize_policy(policy), "policy_head", 0), FRAMES)
    assert (top(anatomy).rule, top(anatomy).source) == ("biases moved", "head 0 weights")
    weights = anatomy.source("head 0 weights").weights
    assert weights is not None and weights.bias_moved == pytest.approx(25, abs=0.5)


def test_one_scale_for_uneven_outputs_is_named() -> None:
    policy = random_policy()
    last = policy.head[0]
    weight = last.weight.copy()
    weight[0] *= 40
    uneven = replace(policy, head=(replace(last, weight=weight), *policy.head[1:]))
    one_scale = dissect(uneven, quantize_policy(uneven, per_channel=False), FRAMES)
    rules = {one.rule: one.source for one in advise(one_scale)}
    assert rules["one scale for uneven outputs"] == "head 0 weights"
    own_scales = dissect(uneven, quantize_policy(uneven), FRAMES)
    assert "one scale for uneven outputs" not in {one.rule for one in advise(own_scales)}


# True to the files.


def test_without_rounding_every_candidate_is_its_float_policy(each: Exported) -> None:  # noqa: F811
    network = build_network(each.policy, each.candidate)
    values = Simulation(network, each.frames).values({})
    assert np.allclose(values, each.policy.forward(each.frames).values, rtol=1e-5, atol=1e-5)


def test_with_every_rounding_it_decides_as_litert_which_rounds_once(each: Exported) -> None:  # noqa: F811
    network = build_network(each.policy, each.candidate)
    space = each.policy.action_space
    simulated = space.clip(Simulation(network, each.frames).values(network.everything).astype(np.float32))
    exact = Int8Runner(each.candidate, "litert").values(each.frames)
    assert (np.abs(simulated - exact) < network.output_step / 2).all()


def test_the_factors_of_equalization_are_found_again(each: Exported) -> None:  # noqa: F811
    network = build_network(each.policy, each.candidate)
    for stage in (*network.encoder, *network.head):
        known = stage.known
        moved = np.abs(known.linear.weight - stage.exact.weight) / known.step
        # Rounding to the nearest alone gives .29 and .5.
        assert float(np.sqrt((moved**2).mean())) < 0.33
        assert moved.max() < 0.75
        # A bias has a step so small that it is as good as exact.
        bias_moved = known.linear(known.origin) - stage.exact(known.origin)
        assert np.abs(bias_moved * stage.tensors[0].grid.gain).max() < 0.05


def test_what_the_bounds_of_an_action_clip_is_not_cut_off(exported: Callable[[str], Exported]) -> None:  # noqa: F811
    made = exported("stable-baselines3")
    output = dissect(made.policy, made.candidate, made.frames).source("head output").tensor
    assert output is not None
    assert output.at_low + output.at_high > 0.1
    assert (output.cut_off, output.cut_off_cost) == (0, 0)


@pytest.mark.parametrize("reach", [1e-2, 1e-3])
def test_strong_factors_of_every_layer_are_found(reach: float) -> None:
    policy = random_policy()
    rng = np.random.default_rng(4)
    layers = [*policy.encoder, *policy.head]
    for i in range(3):
        scale = np.exp(rng.uniform(np.log(reach), 0, layers[i].outputs)).astype(np.float32)
        layers[i] = replace(layers[i], weight=layers[i].weight * scale[:, None], bias=layers[i].bias * scale)
        columns = np.concatenate([scale, np.ones(layers[i + 1].inputs - len(scale), np.float32)])
        layers[i + 1] = replace(layers[i + 1], weight=layers[i + 1].weight / columns)
    scaled = replace(policy, encoder=tuple(layers[:2]), head=tuple(layers[2:]))
    network = build_network(policy, quantize_policy(scaled))
    for stage in (*network.encoder, *network.head):
        moved = (stage.known.linear.weight - stage.exact.weight) / stage.known.step
        assert float(np.sqrt((moved**2).mean())) < 0.35


def test_features_that_never_varied_do_not_mislead_the_factors() -> None:
    # Calibrated on a feature that is always zero, a file has no weight for it and a range next to nothing.
    policy = random_policy()
    first, second = policy.encoder
    first = replace(first, weight=first.weight * np.array([1, 9, 1, 9, 1, 9], np.float32))
    blind = np.array([1, 0, 1, 0, 1, 0], np.float32)
    divisors = np.geomspace(0.03, 3, first.outputs).astype(np.float32)
    scaled = (
        replace(first, weight=first.weight * blind / divisors[:, None], bias=first.bias / divisors),
        replace(second, weight=second.weight * divisors),
    )
    candidate = quantize_policy(replace(policy, encoder=scaled))
    narrow = replace(candidate.peer_input, gain=np.where(blind > 0, candidate.peer_input.gain, np.float32(245_192)))
    network = build_network(replace(policy, encoder=(first, second)), replace(candidate, peer_input=narrow))
    for stage in network.encoder:
        moved = (stage.known.linear.weight - stage.exact.weight) / stage.known.step
        assert float(np.sqrt((moved**2).mean())) < 0.4


def test_a_source_alone_leaves_all_others_exact() -> None:
    policy = random_policy()
    network = build_network(policy, quantize_policy(policy))
    simulation = Simulation(network, FRAMES)
    exact = simulation.values({})
    assert all((simulation.values({place.name: QUANTIZED}) != exact).any() for place in network.places)
    seen: dict[str, np.ndarray] = {}
    simulation.values({"ego input": QUANTIZED}, seen.__setitem__)
    assert seen.keys() == {place.name for place in network.places if place.kind != "weights"}
    untouched = seen["peer input"]
    assert (untouched != np.rint(untouched)).any()


@pytest.mark.parametrize("made", [random_policy, box_policy])
def test_measured_figures_are_those_of_the_evaluation(made: Callable[[], Policy]) -> None:
    policy, frames = made(), FRAMES if made is random_policy else BOX_FRAMES
    candidate = quantize_policy(policy)
    origins = np.where(np.arange(len(frames)) % 3 == 0, "augmented", "recorded")
    anatomy = dissect(policy, candidate, frames, origins=origins)
    reference, values = policy.forward(frames).values, Int8Runner(candidate).values(frames)
    opened = compare(policy.action_space, reference, values, frames.counts, max_peers=policy.max_peers, origins=origins)
    for effect, close in [
        (anatomy.measured.overall, opened.overall),
        *zip(anatomy.measured.by_peers, opened.by_peers, strict=True),
        *((anatomy.measured.by_origin[name], close) for name, close in opened.by_origin),
    ]:
        if close is None:
            assert effect is None
            continue
        assert effect is not None
        assert (effect.n, effect.max_error) == (close.n, close.max_error)
        assert effect.mae == pytest.approx(close.mae)
        assert 1 - effect.disagreement == pytest.approx(close.agreement.value)


def test_bias_and_spread_are_the_squared_error() -> None:
    policy = box_policy()
    overall = dissect(policy, quantize_policy(policy), BOX_FRAMES).measured.overall
    assert np.mean(np.square(overall.bias)) + overall.spread**2 == pytest.approx(overall.cost)


def test_shares_are_of_the_costs_alone(good: Anatomy) -> None:
    assert sum(source.share for source in good.sources) == pytest.approx(1)
    total = sum(source.alone.overall.cost for source in good.sources)
    assert all(source.share == pytest.approx(source.alone.overall.cost / total) for source in good.sources)


def test_groups_are_the_sources_together(good: Anatomy) -> None:
    # All of a sub-model exact leaves the other one alone.
    assert good.group("peer encoder").exact == good.group("policy head").alone
    assert good.group("policy head").exact == good.group("peer encoder").alone


def test_histograms_count_every_code(good: Anatomy) -> None:
    tensor = good.source("ego input").tensor
    assert tensor is not None
    codes = quantize_policy(random_policy()).ego_input.quantize(FRAMES.ego)
    assert tensor.codes == tuple(np.bincount(codes.astype(np.int64).ravel() + 128, minlength=256).tolist())
    assert tensor.at_low == np.mean(codes == -128) and tensor.at_high == np.mean(codes == 127)


def test_the_worst_frames_come_worst_first(good: Anatomy) -> None:
    policy = random_policy()
    rows = np.arange(len(FRAMES)) + 7000
    worst = dissect(policy, quantize_policy(policy), FRAMES, rows=rows, worst=5).worst
    reference = policy.forward(FRAMES).values
    values = Int8Runner(quantize_policy(policy)).values(FRAMES)
    other = reference.argmax(axis=1) != values.argmax(axis=1)
    error = np.abs(values - reference).max(axis=1)
    ordered = sorted(range(len(rows)), key=lambda i: (not other[i], -error[i]))
    assert [frame.row for frame in worst] == [7000 + i for i in ordered[:5]]
    first = worst[0]
    frame = FRAMES[np.array([first.row - 7000])]
    assert first.ego == tuple(map(float, frame.ego[0]))
    assert first.peer_features == tuple(tuple(map(float, peer)) for peer in frame.peers[0][frame.mask[0]])
    assert first.reference == pytest.approx(tuple(reference[first.row - 7000]))
    assert first.candidate == pytest.approx(tuple(values[first.row - 7000]))


@pytest.mark.parametrize(("part", "index", "source"), [
    ("peer_encoder", 0, "encoder 0 weights"), ("policy_head", 1, "head 1 weights"),
])  # fmt: skip
def test_worst_frames_part_where_the_damage_is(part: Part, index: int, source: str) -> None:
    policy = box_policy() if part == "peer_encoder" else random_policy()
    frames = BOX_FRAMES if part == "peer_encoder" else FRAMES
    bad = with_few_bits(quantize_policy(policy), part, index, same_scale=True)
    worst = dissect(policy, bad, frames).worst
    assert sum(frame.parts_at == source for frame in worst) >= 8
    assert sum(frame.largest == source for frame in worst) >= 8


def test_equal_inputs_give_equal_figures(good: Anatomy) -> None:
    policy = random_policy()
    assert dissect(policy, quantize_policy(policy), FRAMES) == good


def test_an_exact_candidate_has_nothing_to_explain() -> None:
    policy = random_policy()
    nobody = replace(FRAMES[:20], mask=np.zeros((20, 8), np.bool_))
    still = dissect(policy, quantize_policy(policy), nobody)
    assert still.source("peer input").alone.overall.cost < 1e-12
    assert still.source("peer input").tensor.codes == (0,) * 256  # type: ignore[union-attr]
    effects = Effects(_effect(cost=0.0), (), {})
    assert [one.rule for one in advise(replace(still, measured=effects, simulated=effects))] == ["no error"]


# What cannot be explained is refused.


def test_another_policys_candidate_is_refused() -> None:
    candidate, box_ego = quantize_policy(random_policy()), quantize_policy(box_policy()).ego_input
    with pytest.raises(InputError, match="takes"):
        dissect(random_policy(), replace(candidate, ego_input=box_ego), FRAMES)
    with pytest.raises(InputError, match="its layers have weights"):
        dissect(random_policy(hidden=(32,)), candidate, FRAMES)
    with pytest.raises(InputError, match="without any rounding"):
        dissect(random_policy(head_activation="tanh"), candidate, FRAMES)
    with pytest.raises(InputError, match="no held-out frames"):
        dissect(random_policy(), candidate, FRAMES[:0])


# Every rule by its threshold.


def _effect(cost: float = 1e-4, n: int = 1000, bias: float = 0.0, spread: float = 0.01) -> Effect:
    return Effect(n, cost, 0.01, 0.1, 0.0, (bias,), spread)


def _effects(cost: float = 1e-4) -> Effects:
    return Effects(_effect(cost), (), {})


def _tensor(cut_off: float = 0.0, cut_off_cost: float = 0.0, columns: tuple[Column, ...] = ()) -> TensorFacts:
    return TensorFacts(0.0, 1.0, 0.0, 0.0, cut_off, 0.5, cut_off_cost, (0,) * 256, columns)


WEIGHTS = WeightFacts(2048, 200, True, 1.0, 0.29, 0.5, 0.01)
SOUND = 0.01
"""A share that no rule speaks of."""


def _source(share: float, exact: float = 1e-4, **changes: object) -> Source:
    facts: dict[str, object] = {"tensor": _tensor(), "kind": "activations"} | changes
    return Source("it", "policy_head", layer=0, share=share, alone=_effects(1e-4), exact=_effects(exact),
                  submodel_error=0.1, **facts)  # type: ignore[arg-type] # fmt: skip


def _weights(share: float, exact: float = 1e-4, **changes: object) -> Source:
    facts = replace(WEIGHTS, **changes)  # type: ignore[arg-type]
    return _source(share, exact, kind="weights", tensor=None, weights=facts)


def _anatomy(*sources: Source, measured: Effects | None = None, worst: tuple[WorstFrame, ...] = ()) -> Anatomy:
    return Anatomy("ptq", "box", measured or _effects(), _effects(), 0.0, 0.0, sources, (), worst)


def rules(anatomy: Anatomy) -> set[str]:
    return {one.rule for one in advise(anatomy)}


def _leaning(part: float) -> Anatomy:
    bias = float(np.sqrt(part))
    overall = _effect(bias=bias, spread=float(np.sqrt(1 - part)))
    return _anatomy(_source(SOUND), measured=Effects(overall, (), {}))


def _with_slice(factor: float, n: int = 1000) -> Anatomy:
    return _anatomy(_source(SOUND), measured=Effects(_effect(1e-4), (None, _effect(factor * 1e-4, n)), {}))


def _with_worst(hits: int) -> Anatomy:
    frame = WorstFrame(0, "recorded", 1, (0.0,), ((0.0,),), (0.0,), (0.1,), 0.1, "it", "it", ())
    frames = tuple(replace(frame, cut_off=("it",) if i < hits else ()) for i in range(10))
    return _anatomy(_source(SOUND), worst=frames)


HAIR = 1e-6
THRESHOLDS: dict[str, tuple[Callable[[float], Anatomy], float]] = {
    # rule: (an anatomy with the figure, the threshold); at or above it the rule speaks.
    "range too narrow": (lambda x: _anatomy(_source(x, tensor=_tensor(0.001, 0.9e-4))), advice.NOTABLE),
    "saturated": (lambda x: _anatomy(_source(SOUND, tensor=_tensor(x))), advice.SATURATED),
    "input rounding": (lambda x: _anatomy(_source(x, kind="input")), advice.DOMINANT),
    "interface rounding": (lambda x: _anatomy(_source(x, kind="output")), advice.DOMINANT),
    "activation rounding": (lambda x: _anatomy(_source(x)), advice.DOMINANT),
    "few weight levels": (lambda x: _anatomy(_weights(x, levels=31)), advice.NOTABLE),
    "one scale for uneven outputs": (lambda x: _anatomy(_weights(0.3, unevenness=x)), advice.UNEVEN),
    "weights compensate": (lambda x: _anatomy(_weights(0.3, exact=(1 + x) * 1e-4)), advice.COMPENSATES),
    "weights moved": (lambda x: _anatomy(_weights(0.3, moved_rms=x)), advice.MOVED),
    "biases moved": (lambda x: _anatomy(_weights(0.3, bias_moved=x)), advice.BIAS_MOVED),
    "weight rounding": (lambda x: _anatomy(_weights(x)), advice.DOMINANT),
    "error leans": (_leaning, advice.LEANS),
    "some frames are worse": (_with_slice, advice.WORSE_FRAMES),
    "worst frames cut off": (lambda x: _with_worst(round(10 * x)), advice.OFTEN),
    "simulation differs": (
        lambda x: _anatomy(_source(SOUND), measured=_effects((1 - x) * 1e-4)),
        advice.UNFAITHFUL,
    ),
}


@pytest.mark.parametrize("rule", THRESHOLDS)
def test_a_rule_speaks_from_its_threshold_on(rule: str) -> None:
    made, threshold = THRESHOLDS[rule]
    step = 0.1 if rule == "worst frames cut off" else HAIR
    assert rule in rules(made(threshold + step))
    assert rule not in rules(made(threshold - step))


def test_rules_with_a_second_condition() -> None:
    few = advice.FEW_LEVELS
    assert "few weight levels" not in rules(_anatomy(_weights(0.3, levels=few)))
    assert "few weight levels" not in rules(_anatomy(_weights(0.3, levels=few - 1, size=advice.ENOUGH_WEIGHTS - 1)))
    half = advice.CUT_OFF_DECIDES * 1e-4
    assert "range too narrow" not in rules(_anatomy(_source(0.3, tensor=_tensor(0.001, half * (1 - HAIR)))))
    assert "range too narrow" in rules(_anatomy(_source(0.3, tensor=_tensor(0.001, half * (1 + HAIR)))))
    assert "some frames are worse" not in rules(_with_slice(9.0, advice.ENOUGH_FRAMES - 1))
    assert "some frames are worse" in rules(_with_slice(9.0, advice.ENOUGH_FRAMES))
    assert "no source dominates" in rules(_anatomy(_source(advice.DOMINANT - HAIR)))
    assert "no source dominates" not in rules(_anatomy(_source(advice.DOMINANT)))


def test_a_feature_is_named_if_most_of_the_input_is_its() -> None:
    def of(share: float) -> str:
        costs = {"rel_x": share, "rel_y": (1 - share) / 2, "rel_speed": (1 - share) / 2}
        columns = tuple(Column(name, cost, 0.0, 0.0, 1.0) for name, cost in costs.items())
        return top(_anatomy(_source(0.5, kind="input", tensor=_tensor(columns=columns)))).why

    assert "rel_x" in of(advice.FEATURE + HAIR)
    assert "rel_" not in of(advice.FEATURE - HAIR)


def test_every_rule_has_a_test() -> None:
    source = Path(advice.__file__).read_text("utf-8")
    spoken = set(re.findall(r'(?:Advice|_about)\(\s*"([^"]+)"', source)) | set(
        re.findall(r'^            "(\w+ rounding)"', source, re.M)
    )
    assert spoken - set(THRESHOLDS) == {"no error", "no source dominates", "range not covered"}
    assert set(THRESHOLDS) <= spoken


def test_the_weightiest_comes_first() -> None:
    found = advise(_anatomy(_weights(0.3), _source(0.6, kind="input")))
    assert [one.rule for one in found] == ["input rounding", "weight rounding"]


def test_contrast_names_what_sets_two_candidates_apart() -> None:
    policy = random_policy()
    candidate = quantize_policy(policy)
    bad = replace(with_few_bits(candidate, "policy_head", 0, same_scale=True), track="bad")
    one, other = dissect(policy, bad, FRAMES), dissect(policy, candidate, FRAMES)
    sentences = contrast(one, other)
    assert sentences == contrast(other, one)
    assert sentences[0].startswith("test costs ") and "less than bad" in sentences[0]
    assert sentences[1].startswith("alone, test's head 0 weights cost") and "bad's" in sentences[1]
    assert "test's weights lose less" in sentences[-1]
    assert contrast(other, other) == ("test and test cost the same on these frames",)


# The command.


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two candidates, of which one has a layer at three bits; there is no evaluation and no manifest."""
    folder = tmp_path_factory.mktemp("run")
    policy = box_policy()
    dataset = strategies.dataset_of(policy, 600)
    made = replace(
        quantize_policy(policy), track="ptq", policy_sha256=policy_digest(policy), dataset_sha256=dataset.digest
    )
    write_settings(Settings("policy.zip", tracks=("ptq", "qat")), folder)
    save_policy(policy, folder / POLICY)
    save_dataset(dataset, folder)
    save_candidate(made, folder)
    save_candidate(replace(with_few_bits(made, "peer_encoder", 1, same_scale=True), track="qat"), folder)
    return folder


def test_the_command_names_the_culprit_and_writes_nothing(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    done = quant("explain", run)
    assert done.code == 0
    ptq, qat = done.out.split("QAT: why it errs")
    assert "encoder 1 weights use" in qat and "try: their scale is far too coarse" in qat
    assert "encoder 1 weights use" not in ptq
    assert "ptq costs " in qat and "less than qat" in qat
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_one_track_and_json(run: Path) -> None:
    done = quant("explain", run, "--track", "qat", "--json", "--worst", "2")
    document = json.loads(done.out)
    assert list(document["tracks"]) == ["qat"] and document["contrast"] == []
    qat = document["tracks"]["qat"]
    assert qat["schema_version"] == 1 and len(qat["worst"]) == 2
    others = [one for one in qat["advice"] if one["rule"] not in advice.FIRST]
    assert others[0]["source"] == "encoder 1 weights"
    assert document == json.loads(json.dumps(document, allow_nan=False))


@pytest.fixture(scope="module")
def stressed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with what a stress test of its candidates found."""
    folder = tmp_path_factory.mktemp("stressed") / "run"
    shutil.copytree(run, folder)
    policy, dataset = read_inputs(folder)
    candidates = read_candidates(folder, read_settings(folder))
    seen = dataset.observations(dataset.rows(Split.HELD_OUT))
    found = stress(
        policy,
        candidates,
        dataset.contract,
        seen,
        policy_sha256=dataset.policy_sha256,
        dataset_sha256=dataset.digest,
        frames=2000,
        workers=1,
    )
    found.save(folder / STRESS, folder / STRESS_FRAMES)
    return folder


def test_the_frames_of_the_stress_test_are_explained(stressed: Path) -> None:
    found = load_found(stressed / STRESS_FRAMES)
    done = quant("explain", stressed, "--stress", "--json")
    document = json.loads(done.out)
    kept = {found.observations[row : row + 1].ego.tobytes() for row in range(len(found))}
    for track, own in document["tracks"].items():
        assert own["frames"] == "stress" and len(kept) <= own["measured"]["overall"]["n"] <= len(found)
        assert set(own["measured"]["by_origin"]) <= set(GROUPS)
        # Its own worst frame is the worst of all that were kept, and is numbered as in the file.
        worst = found.of(track, WORST).highest(1)
        first = own["worst"][0]
        span = max(json.loads((stressed / STRESS).read_text())["span"])
        assert first["error"] == pytest.approx(float(worst.deviation[0]) * span, rel=1e-3)
        assert first["ego"] == pytest.approx(found.observations.ego[first["row"]].tolist(), abs=1e-4)
    told = quant("explain", stressed, "--stress", "--track", "ptq").out
    assert f"{document['tracks']['ptq']['measured']['overall']['n']} frames that the stress test kept" in told
    assert "held-out" not in told


def test_nobody_stressed_it_yet(run: Path) -> None:
    done = quant("explain", run, "--stress")
    assert done.code == 2 and "the run was not stressed" in done.err and f"quant stress {run}" in done.err


def test_a_candidate_of_a_narrowed_range_is_told_of_by_the_command(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    policy, drive = box_policy(), strategies.recording(600, 0, ego=6, most=8)
    speed = {"name": "speed", "unit": "m/s", "scale": 30.0, "low": -3.0, "high": 3.0}
    others = [{"name": name} for name in ("gap", "bend", "grip", "load", "slope")]
    dataset = build_dataset(policy, policy_digest(policy), [drive], 0, {"ego": [speed, *others]})
    save_dataset(dataset, folder)
    made = strategies.ptq_of(policy, dataset)
    sound = explained(folder, made)
    assert "is cut off" not in sound and "only, of" not in sound
    told = explained(folder, with_narrow_ego(made, 0, 2.5, dataset.contract))
    advice = " ".join(told.partition("PTQ: why, and what to try")[2].split())
    assert re.match(r"- ego's speed is (cut off at|represented from) ", advice), advice
    assert "try: make the candidate again: it has to represent all that is declared (quant ptq RUN)" in advice
    # What the policy saw has names and units.
    assert re.search(r"row \d+: ego: speed \S+ m/s, gap ", told)


def explained(folder: Path, candidate: Candidate) -> str:
    save_candidate(candidate, folder)
    done = quant("explain", folder, "--track", "ptq")
    assert done.code == 0, done.err
    return done.out


def test_bad_usage(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no candidate 'int4'"):
        explain(run, "int4")
    with pytest.raises(InputError, match="not a run folder"):
        explain(tmp_path)
    other = json.loads((run / "candidate_ptq.json").read_text())
    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    write_json(changed / "candidate_ptq.json", other | {"dataset_sha256": "0" * 64})
    with pytest.raises(StaleError, match="another policy or dataset"):
        explain(changed)


def test_tables_fit_into_80_columns(run: Path) -> None:
    policy = box_policy()
    anatomies = explain(run)
    for anatomy in anatomies:
        shown = explanation(anatomy, advise(anatomy), policy.action_space)
        assert as_text(shown, RENDERED_WIDTH) == as_text(shown, RENDERED_WIDTH)
        tables = [line for line in as_text(shown, 200).splitlines() if "──" in line]
        assert len(tables) == 4 and max(map(len, tables)) <= RENDERED_WIDTH
    assert "Between the candidates" in as_text(contrasts(contrast(*anatomies)))
