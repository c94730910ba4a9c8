"""Sub-models as TensorFlow's converter writes them, per tensor and per channel, equal TFLite-Micro bit for bit."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from quant.runners.flatbuffer import FullyConnected
from quant.runners.tflm import TflmModel
from tests.runners.oracle import tflite_micro
from tests.runners.strategies import inputs

NETWORKS: dict[str, tuple[int, tuple[tuple[int, str | None], ...]]] = {
    "peer_encoder": (6, ((32, "relu"), (32, "relu"))),
    "policy_head": (36, ((64, "relu"), (4, None))),
    "tanh_head": (38, ((64, "tanh"), (64, "tanh"), (1, None))),
    "sigmoid_head": (38, ((33, "sigmoid"), (20, "relu6"), (3, None))),
}


@cache
def converted(name: str, per_channel: bool) -> bytes:
    """A dense Keras network through full int8 post-training quantization."""
    import tensorflow as tf
    import tf_keras

    width, layers = NETWORKS[name]
    tf_keras.utils.set_random_seed(len(name))
    source = x = tf_keras.Input((width,))
    for units, activation in layers:
        x = tf_keras.layers.Dense(units, activation=activation, bias_initializer="random_normal")(x)
    converter = tf.lite.TFLiteConverter.from_keras_model(tf_keras.Model(source, x))
    samples = np.random.default_rng(0).normal(size=(100, 1, width)).astype(np.float32)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    converter._experimental_disable_per_channel_quantization_for_dense_layers = not per_channel
    content: bytes = converter.convert()
    return content


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_converted_models(name: str, per_channel: bool) -> None:
    content = converted(name, per_channel)
    model = TflmModel.from_bytes(content)
    dense = [layer for layer in model.model.layers if isinstance(layer, FullyConnected)]
    assert len(dense) == len(NETWORKS[name][1])
    assert any(layer.per_channel for layer in dense) == per_channel
    q = inputs(model.model.input.size, seed=1, rows=3000)
    ours, theirs = model.invoke(q), tflite_micro(content, q)
    np.testing.assert_array_equal(ours, theirs)
    assert len(np.unique(ours)) > 100
