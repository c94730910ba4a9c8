"""A .tflite that is damaged or not ours is an InputError, and nothing that passes the reader crashes a C++ runtime."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.errors import InputError
from quant.runners.engines import micro_interpreter
from quant.runners.flatbuffer import FullyConnected, Layer, Quantized, Unary, interface, macs, operators, read_model
from quant.runners.tflm import TflmModel
from tests.runners.build import model_object, pack, tflite


def layers() -> list[Layer]:
    """A dense layer per channel with ReLU, tanh, and one per tensor without bias."""
    source, middle = Quantized((1, 5), np.float32(0.02), -4), Quantized((1, 7), np.float32(0.05), 3)
    tanh, target = Quantized((1, 7), np.float32(1 / 128), 0), Quantized((1, 2), np.float32(0.01), 9)
    rng = np.random.default_rng(0)
    return [
        FullyConnected(
            source,
            middle,
            rng.integers(-127, 128, (7, 5)).astype(np.int8),
            rng.uniform(0.01, 0.02, 7).astype(np.float32),
            rng.integers(-900, 900, 7).astype(np.int32),
            "RELU",
        ),
        Unary("TANH", middle, tanh),
        FullyConnected(
            tanh,
            target,
            rng.integers(-127, 128, (2, 7)).astype(np.int8),
            np.full(1, 0.01, np.float32),
            np.zeros(2, np.int32),
            "NONE",
        ),
    ]


GOOD = tflite(layers())


def test_what_is_read_is_what_was_written() -> None:
    model = read_model(GOOD)
    for ours, theirs in zip(model.layers, layers(), strict=True):
        assert (ours.operator, ours.input, ours.output) == (theirs.operator, theirs.input, theirs.output)
        if isinstance(ours, FullyConnected) and isinstance(theirs, FullyConnected):
            np.testing.assert_array_equal(ours.weight, theirs.weight)
            np.testing.assert_array_equal(ours.weight_scale, theirs.weight_scale)
            np.testing.assert_array_equal(ours.bias, theirs.bias)
            assert (ours.activation, ours.per_channel) == (theirs.activation, theirs.per_channel)
    assert operators(GOOD) == ("FULLY_CONNECTED", "TANH", "FULLY_CONNECTED")
    assert macs(GOOD) == 5 * 7 + 7 * 2
    assert interface(GOOD) == (layers()[0].input, layers()[-1].output)


def graph(model: Any) -> Any:
    return model.subgraphs[0]


def tensor(model: Any, name: str) -> Any:
    return next(t for t in graph(model).tensors if t.name == name)


def change(name: str, **fields: Any) -> Callable[[Any], None]:
    """Sets fields of the tensor called ``name``, or of its quantization with a leading ``q_``."""

    def apply(model: Any) -> None:
        for field, value in fields.items():
            quantized = field.startswith("q_")
            setattr(
                tensor(model, name).quantization if quantized else tensor(model, name), field.removeprefix("q_"), value
            )

    return apply


def change_operator(index: int, **fields: Any) -> Callable[[Any], None]:
    def apply(model: Any) -> None:
        for field, value in fields.items():
            setattr(graph(model).operators[index], field, value)

    return apply


def second_input(model: Any) -> None:
    graph(model).inputs = [*graph(model).inputs, graph(model).inputs[0]]


def other_operator(model: Any) -> None:
    code = model.operatorCodes[1]
    code.builtinCode = code.deprecatedBuiltinCode = 25  # SOFTMAX


def short_weights(model: Any) -> None:
    buffer = model.buffers[tensor(model, "weight0").buffer]
    buffer.data = buffer.data[:-1]


def two_subgraphs(model: Any) -> None:
    model.subgraphs = [graph(model), graph(model)]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (second_input, "2 inputs"),
        (other_operator, "SOFTMAX.*not supported"),
        (short_weights, "34 bytes of data"),
        (two_subgraphs, "2 subgraphs"),
        (lambda model: setattr(model, "version", 2), "schema version 2"),
        (change("input", type=0), "type FLOAT32"),
        (change("weight0", type=0), "weights of type FLOAT32"),
        (change("weight0", type=17), "weights of type INT4"),
        (change("bias0", type=4), "bias of type INT64"),
        (change("bias0", shape=[3]), r"bias of shape \(3,\)"),
        (change("weight0", shape=[5, 7]), r"weights \(5, 7\)|7 weight scales"),
        (change("weight0", shape=[7, 5, 1]), r"shape \(7, 5, 1\)"),
        (change("weight0", q_quantizedDimension=1), "along dimension 1"),
        (change("weight0", q_scale=np.ones(6, np.float32), q_zeroPoint=np.zeros(6, np.int64)), "6 weight scales"),
        (change("weight2", q_zeroPoint=np.ones(1, np.int64)), "weights with a zero point"),
        (change("weight2", sparsity=None, buffer=999), "names buffer 999"),
        (change("input", shape=[2, 5]), r"shape \(2, 5\)"),
        (change("input", shape=[1, 4]), "between 4 inputs"),
        (change("input", shape=[1, -5]), "positive|shape"),
        (change("input", q_scale=np.zeros(1, np.float32)), "not a positive number"),
        (change("input", q_scale=np.full(1, np.nan, np.float32)), "not a positive number"),
        (change("input", q_scale=np.full(1, np.inf, np.float32)), "not a positive number"),
        (change("input", q_scale=np.full(1, 1e-12, np.float32)), "scale of 1e-12"),
        (change("input", q_zeroPoint=np.full(1, 128, np.int64)), "zero point outside int8"),
        (change("input", q_zeroPoint=np.zeros(0, np.int64)), "0 zero points"),
        (change("input", q_scale=np.ones(2, np.float32), q_zeroPoint=np.zeros(2, np.int64)), "2 scales"),
        (change("input", quantization=None), "without a scale"),
        (change("input", isVariable=True), "variable"),
        (change("input", buffer=1), "constant"),
        (change("activation1", q_scale=np.full(1, 1 / 127, np.float32)), "scale 1/128"),
        (change("activation1", q_zeroPoint=np.ones(1, np.int64)), "scale 1/128"),
        (change_operator(0, builtinOptionsType=0, builtinOptions=None), "no options"),
        (change_operator(1, inputs=[0]), "breaks the chain"),
        (change_operator(1, inputs=[]), "breaks the chain"),
        (change_operator(1, outputs=[]), "0 outputs"),
        (change_operator(1, outputs=[1]), "overwrites its input"),
        (change_operator(2, inputs=[4, 99]), "names tensor 99"),
        (change_operator(2, opcodeIndex=9), "has no code"),
        (lambda model: setattr(graph(model), "outputs", [1]), "does not make the model's output"),
        (lambda model: setattr(graph(model), "operators", []), "0 operators"),
    ],
)
def test_what_is_not_a_sub_model_says_so(damage: Callable[[Any], None], words: str) -> None:
    model = model_object(layers())
    damage(model)
    with pytest.raises(InputError, match=words) as raised:
        TflmModel.from_bytes(pack(model), "some.tflite")
    assert raised.value.where == "some.tflite"
    assert raised.value.expected


@pytest.mark.parametrize("fused", [4, 5])
def test_unsupported_fused_activations(fused: int) -> None:
    model = model_object(layers())
    graph(model).operators[0].builtinOptions.fusedActivationFunction = fused
    with pytest.raises(InputError, match=f"fused activation {fused}"):
        read_model(pack(model))


@pytest.mark.parametrize("content", [b"", b"TFL3", b"PK\x03\x04" * 9, b"\0" * 64])
def test_not_a_tflite_at_all(content: bytes) -> None:
    with pytest.raises(InputError, match="not a TFLite model"):
        read_model(content)


@pytest.mark.parametrize("length", range(8, len(GOOD), 7))
def test_truncated(length: int) -> None:
    """Flatbuffers are written back to front: what is cut off is always needed, or was padding."""
    try:
        TflmModel.from_bytes(GOOD[:length])
    except InputError:
        return
    with pytest.raises(InputError):
        micro_interpreter(GOOD[:length])


flips = st.lists(st.tuples(st.integers(8, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4)


@settings(max_examples=1500, deadline=None)
@given(flips)
def test_flipped_bytes_are_read_or_refused(changes: list[tuple[int, int]]) -> None:
    content = bytearray(GOOD)
    for position, value in changes:
        content[position] = value
    try:
        model = TflmModel.from_bytes(bytes(content))
    except InputError:
        return
    model.invoke(np.zeros((1, model.model.input.size), np.int8))


SURVIVORS = """
import random, sys
import numpy as np
from quant.errors import InputError
from quant.runners.engines import micro_interpreter
from quant.runners.tflm import TflmModel
from tests.runners.test_damaged_models import GOOD

ran = 0
for seed in range(1200):
    draw = random.Random(seed)
    content = bytearray(GOOD)
    for _ in range(draw.choice((1, 1, 2, 3))):
        content[draw.randrange(8, len(content))] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
    try:
        model = TflmModel.from_bytes(bytes(content))
        interpreter = micro_interpreter(bytes(content))
    except InputError:
        continue
    q = np.random.default_rng(seed).integers(-128, 128, model.model.input.shape).astype(np.int8)
    interpreter.set_input(q, 0)
    interpreter.invoke()
    assert np.array_equal(interpreter.get_output(0).ravel(), model.invoke(q.reshape(1, -1)).ravel()), seed
    ran += 1
print(ran)
"""


def test_what_passes_the_guard_runs_the_same_in_tflite_micro() -> None:
    """In a process of its own, since a crash is what it looks for."""
    done = subprocess.run([sys.executable, "-c", SURVIVORS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200
