"""From a plan to two INT8 .tflite files, by TensorFlow's own converter.

Every interface of the network carries a fake-quantization node with the plan's range, so that the converter has nothing
to estimate; it quantizes weights symmetrically, one scale an output channel, and biases to int32.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from quant.dataset import Dataset
from quant.errors import QuantError
from quant.native import import_tensorflow, silent_stderr
from quant.observation.observations import F32
from quant.policy.policy import Activation, Dense
from quant.tracks.candidate import Candidate, Part, SubModel, code_type
from quant.tracks.plan import PEER_RANGE, LayerRanges, Plan, Range, needs_short_scale, weight_scale


def export(track: str, plan: Plan, dataset: Dataset, log: list[str]) -> Candidate:
    """Converts both sub-models and checks that they carry the plan's scales.

    Raises:
        QuantError: the converter gave other scales than the plan's at an interface.
    """
    peer_encoder = convert(plan.encoder, plan.encoder_ranges, PEER_RANGE)
    policy_head = convert(plan.head, plan.head_ranges, plan.z)
    return checked(candidate_of(track, plan, dataset, peer_encoder, policy_head), plan, log)


def candidate_of(track: str, plan: Plan, dataset: Dataset, peer_encoder: bytes, policy_head: bytes) -> Candidate:
    """The two models with the plan's quantization around them."""
    policy = plan.policy
    return Candidate(
        track=track,
        peer_encoder=SubModel("peer_encoder", peer_encoder),
        policy_head=SubModel("policy_head", policy_head),
        peer_input=plan.peer_affine(),
        ego_input=plan.ego_affine(),
        pooling=policy.pooling,
        action_space=policy.action_space,
        max_peers=policy.max_peers,
        policy_sha256=dataset.policy_sha256,
        dataset_sha256=dataset.digest,
        bits=plan.bits,
    )


def checked(candidate: Candidate, plan: Plan, log: list[str]) -> Candidate:
    """The candidate with its log, after LiteRT has found the plan's scales at the models' interfaces.

    Raises:
        QuantError: it has found others.
    """
    ends = (
        *_checked("peer_encoder", candidate.peer_encoder.tflite, plan.peers, plan.encoder_ranges[-1].after),
        *_checked("policy_head", candidate.policy_head.tflite, plan.z, plan.head_ranges[-1].after),
    )
    return replace(candidate, log=(*log, *ends, *_describe(plan)))


def convert(layers: tuple[Dense, ...], ranges: tuple[LayerRanges, ...], inputs: Range) -> bytes:
    """A chain of dense layers -> the bytes of a .tflite with int8 input and output of batch 1."""
    tf = import_tensorflow()
    activations: dict[Activation, Callable[[Any], Any]] = {
        "linear": tf.identity,
        "relu": tf.nn.relu,
        "relu6": tf.nn.relu6,
        "tanh": tf.tanh,
        "elu": tf.nn.elu,
        "sigmoid": tf.sigmoid,
    }

    def fake_quantize(x: Any, own: Range) -> Any:
        return tf.quantization.fake_quant_with_min_max_args(x, own.low, own.high, num_bits=8)

    def network(x: Any) -> Any:
        x = fake_quantize(x, inputs)
        before = (inputs, *(own.after for own in ranges))
        for layer, own, its_inputs in zip(layers, ranges, before, strict=False):
            x = tf.matmul(x, tf.constant(_exact(layer, its_inputs)), transpose_b=True) + tf.constant(layer.bias)
            if own.before is not None:
                x = fake_quantize(x, own.before)
            x = fake_quantize(activations[layer.activation](x), own.after)
        return x

    signature = [tf.TensorSpec((1, layers[0].inputs), tf.float32, name="input")]
    function = tf.function(network, input_signature=signature).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with silent_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tflite = bytes(converter.convert())
    if any(layer.activation == "elu" for layer in layers):
        from quant.tracks.elu import quantize_elu

        return quantize_elu(tflite)
    return tflite


def _exact(layer: Dense, inputs: Range) -> F32:
    """The weights; for a short scale the largest is changed by 2^-12 at most, and the converter finds that scale.

    A single output has one scale for all weights. TFLM releases multiply that by the input's scale in float32 or in
    float64, and only a product that is exact in both gives the same bytes on every device
    (:func:`quant.runners.release_dependent`).
    """
    largest = np.unravel_index(np.abs(layer.weight).argmax(), layer.weight.shape)
    if not needs_short_scale(layer, inputs) or layer.weight[largest] == 0:
        return layer.weight
    weight = layer.weight.copy()
    weight[largest] = np.copysign(np.float32(127) * weight_scale(layer, inputs)[0, 0], weight[largest])
    return weight


def _checked(part: Part, tflite: bytes, inputs: Range, outputs: Range) -> Iterator[str]:
    from ai_edge_litert.interpreter import Interpreter

    with silent_stderr():
        interpreter = Interpreter(model_content=tflite, num_threads=1)
    details = (interpreter.get_input_details()[0], interpreter.get_output_details()[0])
    for end, detail, planned in zip(("input", "output"), details, (inputs, outputs), strict=True):
        scale, zero_point = detail["quantization"]
        if detail["dtype"] is not code_type(planned.bits) or not _same(scale, zero_point, planned):
            raise QuantError(
                f"{part}'s {end} came out as {detail['dtype'].__name__} with scale {scale!r}, zero point {zero_point}",
                expected=f"int{planned.bits} with scale {planned.scale!r} from {planned.low!r}",
                hint="this is a fault of the export; please report it with the run's conversion log",
            )
        yield f"{part} {end}: scale {scale:.9g}, zero point {zero_point}"
    yield f"{part}: {len(tflite)} bytes"


def _same(scale: float, zero_point: int, planned: Range) -> bool:
    return bool(np.isclose(scale, planned.scale, rtol=1e-5)) and zero_point == planned.zero_point


def _describe(plan: Plan) -> Iterator[str]:
    for part, ranges in (("peer_encoder", plan.encoder_ranges), ("policy_head", plan.head_ranges)):
        for i, own in enumerate(ranges):
            if own.before is not None:
                yield f"{part} layer {i} before activation: [{own.before.low:.6g}, {own.before.high:.6g}]"
            yield f"{part} layer {i}: [{own.after.low:.6g}, {own.after.high:.6g}]"
    shared = plan.z == plan.encoder_ranges[-1].after
    yield f"encoder output and head input {'share' if shared else 'do not share'} scale and zero point"
