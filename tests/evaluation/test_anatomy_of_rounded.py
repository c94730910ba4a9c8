"""`quant explain` on candidates rounded by second order, int8 and int16: true to the files, and naming the culprit."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from quant.anatomy import advise, dissect
from quant.anatomy.simulation import Grid, Network, Simulation, Stage, build_network
from quant.runners import Int8Runner
from quant.runners.flatbuffer import Quantized
from quant.tracks import gptq, int16
from quant.tracks.candidate import Affine, Candidate
from quant.tracks.objective import Frames
from quant.tracks.plan import Rewritten, equalize
from quant.tracks.ptq import EQUALIZED
from quant.tracks.sensitivity import sensitivity
from tests.evaluation.test_anatomy import dense, layers_of, with_few_bits, with_layers
from tests.tracks import strategies
from tests.tracks.conftest import plan_for
from tests.tracks.test_gptq import DATASET, POLICY

EXPONENTS = [one.exponent for one in EQUALIZED]
FRAMES = strategies.frames_for(POLICY, 500, seed=3)


@cache
def rounded(bits: int) -> Candidate:
    """By GPTQ towards the float outputs, layer by layer."""
    seen = strategies.frames_for(POLICY, 800, seed=1)
    plan = plan_for(POLICY, seen) if bits == 8 else int16.wide_plan(POLICY, Frames.only(seen), 0.5)
    reference = POLICY.forward(seen).values

    def error_of(tried: gptq.Rounded) -> float:
        return float(np.abs(Int8Runner(tried.candidate(DATASET)).values(seen) - reference).mean())

    start = gptq.Rounded.nearest(plan)
    made, _, _ = gptq.round_all(start, error_of(start), error_of, sensitivity(plan.policy, seen), seen)
    return made.candidate(DATASET, "made")


@pytest.mark.parametrize("bits", [8, 16])
def test_it_is_true_to_the_files(bits: int) -> None:
    network = build_network(POLICY, rounded(bits))
    exact = POLICY.forward(FRAMES).values
    np.testing.assert_allclose(Simulation(network, FRAMES).values({}), exact, atol=2e-5)
    simulated = Simulation(network, FRAMES).values(network.everything)
    measured = Int8Runner(rounded(bits), "litert").values(FRAMES)
    # LiteRT rounds once; its multipliers of int16 have 15 bits, and a step is as wide as what is declared.
    near = network.output_step / 2 if bits == 8 else 7e-4
    assert np.abs(POLICY.action_space.clip(simulated.astype(np.float32)) - measured).max() < near


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_a_known_equalization_is_told_from_the_others_and_taken_exactly(exponent: float) -> None:
    """Second-order rounding moves weights so far that the files tell its factors only roughly."""
    seen = strategies.frames_for(POLICY, 800, seed=1)
    known = [Rewritten.scaled(equalize(POLICY, seen, one)) for one in EXPONENTS]
    candidate = one_scale(exponent)
    exact = np.concatenate([stage.exact.weight.ravel() for stage in stages(build_network(POLICY, candidate, known))])
    rough = np.concatenate([stage.exact.weight.ravel() for stage in stages(build_network(POLICY, candidate))])
    made = known[EXPONENTS.index(exponent)].policy
    wanted = np.concatenate([layer.weight.ravel() for layer in (*made.encoder, *made.head)])
    np.testing.assert_allclose(exact, wanted, rtol=1e-5)
    assert np.abs(rough / wanted - 1).max() > 1e-3


def test_an_equalization_that_is_not_the_candidates_is_not_taken() -> None:
    seen = strategies.frames_for(POLICY, 800, seed=1)
    other = equalize(POLICY, seen, 0.5)
    first, *rest = other.encoder
    other = replace(other, encoder=(replace(first, weight=first.weight * 3, bias=first.bias * 3), *rest))
    candidate = one_scale(1.0)
    found, alone = (build_network(POLICY, candidate, known) for known in ([Rewritten.scaled(other)], []))
    for one, two in zip(stages(found), stages(alone), strict=True):
        np.testing.assert_array_equal(one.exact.weight, two.exact.weight)


@cache
def one_scale(exponent: float) -> Candidate:
    """Activations of 16 bits and one scale of weights a layer, rounded by second order."""
    seen = strategies.frames_for(POLICY, 800, seed=1)
    plan = int16.wide_plan(POLICY, Frames.only(seen), exponent)
    known, made = sensitivity(plan.policy, seen), gptq.Rounded.nearest(plan)
    for part, layers in (("encoder", made.encoder), ("head", made.head)):
        for index in range(len(layers)):
            inputs = made.inputs(part, index, seen)
            made = made.with_layer(part, index, gptq._round(made, part, index, inputs, known, gptq.WAYS[2]))
    return made.candidate(DATASET, "made")


def stages(network: Network) -> tuple[Stage, ...]:
    return (*network.encoder, *network.head)


@pytest.mark.parametrize("bits", [8, 16])
def test_the_parts_are_those_of_the_whole(bits: int) -> None:
    anatomy = dissect(POLICY, rounded(bits), FRAMES)
    measured, simulated = anatomy.measured.overall.cost, anatomy.simulated.overall.cost
    assert anatomy.bits == bits and simulated == pytest.approx(measured, rel=0.2)
    weights, activations = (anatomy.group(name).alone.overall.cost for name in ("weights", "activations"))
    if bits == 16:
        assert activations < 0.2 * weights < 0.25 * simulated
    tensors = {source.name: source.tensor for source in anatomy.sources if source.tensor is not None}
    for name, own in tensors.items():
        rows = len(FRAMES) if "head" in name or name == "ego input" else int(FRAMES.mask.sum())
        assert len(own.codes) == 2**bits and sum(own.codes) % rows == 0
        assert own.cut_off < 0.02
    document = anatomy.to_json()
    shown = [source["tensor"]["codes"] for source in document["sources"] if source["tensor"] is not None]
    assert [len(codes) for codes in shown] == [256] * len(tensors)
    assert [sum(codes) for codes in shown] == [sum(own.codes) for own in tensors.values()]
    assert not any("16 bits" in one.what for one in advise(anatomy)) or bits == 8


@pytest.mark.parametrize("bits", [8, 16])
def test_a_layer_at_three_bits_is_named(bits: int) -> None:
    bad = with_few_bits(rounded(bits), "policy_head", 0, same_scale=True)
    first = advise(dissect(POLICY, bad, FRAMES))[0]
    assert (first.rule, first.source) == ("few weight levels", "head 0 weights")


def test_clipped_peers_of_int16_are_named() -> None:
    layers = layers_of(rounded(16), "peer_encoder")
    first, old = dense(layers[0]), rounded(16).peer_input
    narrow = replace(first.input, scale=first.input.scale / np.float32(16))
    layers[0] = replace(first, input=narrow, bias=first.bias * 16)
    affine = replace(old, gain=old.gain * np.float32(16), offset=old.offset * np.float32(16))
    bad = replace(with_layers(rounded(16), "peer_encoder", layers), peer_input=affine)
    found = advise(dissect(POLICY, bad, FRAMES))[0]
    assert (found.rule, found.source) == ("range too narrow", "peer input")


def test_a_grid_has_the_codes_of_its_width() -> None:
    wide = Grid.of_tensor(Quantized((1, 3), np.float32(0.5), 0, 16))
    held = wide.held(np.array([[-4e4, -3.4, 4e4]]))
    assert held.tolist() == [[-32768, -3, 32767]] and wide.steps == 65535
    assert wide.beyond(np.array([[-32769.0, 0.0, 32770.0]])).tolist() == [[1, -32767, 3]]
    narrow = Grid.of_features(Affine(np.ones(1, np.float32), np.zeros(1, np.float32)))
    assert (narrow.lowest, narrow.highest, narrow.steps) == (-128, 127, 255)
