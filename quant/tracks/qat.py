"""Quantization-aware training with distillation from the float policy.

The folded layers of the PTQ plan are rebuilt in tf_keras under tfmot's wrappers, with the plan's ranges fixed, and
trained together through the pooling: the quantized encoder on all peers of a batch, the mask, the pooling, the
quantized head. The teacher is the float policy: its outputs (what decides) and, at a tenth of the weight, its
embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from quant.dataset import Dataset, Split
from quant.dataset.storage import Made as MadeHow
from quant.files import Progress, no_progress
from quant.native import import_tensorflow
from quant.policy.policy import Box, Dense, Policy
from quant.tracks.candidate import Candidate
from quant.tracks.export import export
from quant.tracks.job import Job, Made
from quant.tracks.objective import Frames, Objective
from quant.tracks.plan import FUSED, PEER_RANGE, LayerRanges, Plan, Range, simulate
from quant.tracks.ptq import find_plan, with_range_line
from quant.tracks.registry import QAT


@dataclass(frozen=True)
class QatOptions:
    """How to train.

    Attributes:
        steps: of the optimizer (Adam, cosine decay from the learning rate to zero) on all weights.
        bias_steps: after them, from the best weights so far, on the biases alone: a weight that moves past half a step
            changes by a whole one, which makes the error jump about; a bias has int32 steps and settles.
        batch: frames a step.
        learning_rate, bias_learning_rate: at the start.
        filled_weight: of a filled frame in the loss, where one that was seen has 1.
        embedding_weight: of the embeddings' mean squared error (relative to their range) in the loss.
        seed: of the order of the frames.
        check_every: steps between two measurements of the simulated error, after which the best weights are kept.
    """

    steps: int = 1000
    bias_steps: int = 500
    batch: int = 256
    learning_rate: float = 1e-4
    bias_learning_rate: float = 3e-4
    embedding_weight: float = 0.1
    filled_weight: float = 0.2
    seed: int = 0
    check_every: int = 50


@dataclass(frozen=True)
class QatResult:
    """The candidate, and the loss curve as rows of (step, mean training loss since the last row, simulated error)."""

    candidate: Candidate
    curve: tuple[tuple[int, float, float], ...]


def make(job: Job) -> Made:
    """Track `QAT`: starts from PTQ's plan, which it finds again for itself."""
    options = QatOptions(seed=job.seed)
    if job.qat_steps is not None:
        options = replace(options, steps=job.qat_steps, bias_steps=job.qat_steps // 2)
    plan, log = find_plan(job.policy, job.dataset)
    result = run_qat(job.policy, job.dataset, plan, options, job.progress)
    candidate = replace(result.candidate, log=(*log, *result.candidate.log))
    return Made(with_range_line(candidate, job), result.curve)


def run_qat(
    policy: Policy, dataset: Dataset, start: Plan, options: QatOptions, progress: Progress = no_progress
) -> QatResult:
    """Trains from ``start`` (PTQ's plan) on the training frames and makes the QAT candidate.

    The weights with the least simulated error over calibration and training frames are kept; those PTQ started from are
    among the choices, so that training cannot lose what PTQ had.
    """
    student = _Student(start)
    made_on = Frames.of(dataset)
    judged, objective = made_on.all, Objective.of(policy, made_on)
    batches = _batches(start, dataset, options)
    best_plan, best_error = start, objective(simulate(start, judged))
    curve = [(0, float("nan"), best_error)]
    train_all, train_biases = _train_steps(start, student, options)
    losses: list[float] = []
    for step in range(1, options.steps + options.bias_steps + 1):
        if step == options.steps + 1:
            student.load(best_plan)
        train = train_all if step <= options.steps else train_biases
        losses.append(float(train(*next(batches))))
        if step % options.check_every == 0 or step == options.steps + options.bias_steps:
            plan = student.plan()
            error = objective(simulate(plan, judged))
            curve.append((step, float(np.mean(losses)), error))
            losses.clear()
            if error < best_error:
                best_plan, best_error = plan, error
        progress(step, options.steps + options.bias_steps)
    log = [
        f"started from PTQ's ranges and weights, simulated error {curve[0][2]:.6g}; {options}",
        *(f"step {step}: loss {loss:.6g}, simulated error {error:.6g}" for step, loss, error in curve[1:]),
        f"kept: simulated error {best_error:.6g}" + (", PTQ's own weights" if best_plan is start else ""),
    ]
    return QatResult(export(QAT, best_plan, dataset, log), tuple(curve))


def _batches(plan: Plan, dataset: Dataset, options: QatOptions) -> Any:
    """Endless shuffled batches of what the inputs hold, the teacher's answers and weights, as float32 arrays."""
    rows = dataset.rows(Split.TRAINING)
    frames = dataset.observations(rows)
    forward = plan.policy.forward(frames)
    peers = plan.hold_peers(frames.peers.reshape(-1, plan.policy.peer_size))
    filled = dataset.column("made")[rows] == MadeHow.FILLED
    weights = np.where(filled, options.filled_weight, 1)
    arrays = (
        peers.reshape(*frames.mask.shape, -1),
        plan.hold_ego(frames.ego),
        frames.mask.astype(np.float32),
        forward.embeddings,
        plan.policy.action_space.clip(forward.values),
        (weights / weights.mean()).astype(np.float32),
    )
    generator = np.random.default_rng(options.seed)
    size = min(options.batch, len(frames))
    while True:
        order = generator.permutation(len(frames))
        for at in range(0, len(order) - size + 1, size):
            yield tuple(array[order[at : at + size]] for array in arrays)


class _Student:
    """The quantized encoder and head, and the plan their present weights make."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.encoder = _quantized("encoder", plan.encoder, plan.encoder_ranges, PEER_RANGE)
        self.head = _quantized("head", plan.head, plan.head_ranges, plan.z)

    def load(self, plan: Plan) -> None:
        for layers, model in ((plan.encoder, self.encoder), (plan.head, self.head)):
            for layer, variables in zip(layers, _variables(model, len(layers)), strict=True):
                variables["kernel"].assign(layer.weight.T)
                variables["bias"].assign(layer.bias)

    def plan(self) -> Plan:
        encoder = _trained(self._plan.encoder, self.encoder)
        return replace(self._plan, encoder=encoder, head=_trained(self._plan.head, self.head))


def _quantized(name: str, layers: tuple[Dense, ...], ranges: tuple[LayerRanges, ...], inputs: Range) -> Any:
    """tfmot's fake-quantized model of a chain of layers, every activation range fixed to the plan's."""
    import_tensorflow()
    import tensorflow_model_optimization as tfmot
    import tf_keras

    keras = tfmot.quantization.keras
    config = _fixed_range_config(keras)
    with keras.quantize_scope({config.__name__: config}):
        x = entry = tf_keras.Input((layers[0].inputs,))
        for i, (layer, own) in enumerate(zip(layers, ranges, strict=True)):
            fused = layer.activation in FUSED
            dense = tf_keras.layers.Dense(
                layer.outputs,
                activation=layer.activation if fused else None,
                name=f"{name}_{i}",
                kernel_initializer=tf_keras.initializers.Constant(layer.weight.T),
                bias_initializer=tf_keras.initializers.Constant(layer.bias),
            )
            after = own.after if own.before is None else own.before
            x = keras.quantize_annotate_layer(dense, config(after.low, after.high, weights=True))(x)
            if not fused:
                activation = tf_keras.layers.Activation(layer.activation, name=f"{name}_{i}_activation")
                x = keras.quantize_annotate_layer(activation, config(own.after.low, own.after.high, weights=False))(x)
        model = keras.quantize_apply(tf_keras.Model(entry, x, name=name))
    for variable in model.layers[1].weights:  # the quantizer tfmot puts before the first layer
        if variable.name.split("/")[-1].startswith(model.layers[1].name + "_min"):
            variable.assign(inputs.low)
        elif variable.name.split("/")[-1].startswith(model.layers[1].name + "_max"):
            variable.assign(inputs.high)
    return model


def _fixed_range_config(keras: Any) -> Any:
    """The QuantizeConfig: weights symmetric by output channel as the converter rounds them, output range fixed."""

    class FixedRange(keras.QuantizeConfig):  # type: ignore[misc]
        def __init__(self, low: float, high: float, weights: bool) -> None:
            self.low, self.high, self.weights = low, high, weights

        def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
            if not self.weights:
                return []
            quantizer = keras.quantizers.LastValueQuantizer(
                num_bits=8, per_axis=True, symmetric=True, narrow_range=True
            )
            return [(layer.kernel, quantizer)]

        def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
            return []

        def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
            if self.weights:
                layer.kernel = quantize_weights[0]

        def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
            pass

        def get_output_quantizers(self, layer: Any) -> list[Any]:
            return [keras.quantizers.FixedQuantizer(8, self.low, self.high, narrow_range=False)]

        def get_config(self) -> dict[str, Any]:
            return {"low": self.low, "high": self.high, "weights": self.weights}

    return FixedRange


def _variables(model: Any, layers: int) -> list[dict[str, Any]]:
    """Kernel and bias of each layer under tfmot's wrappers."""
    wrapped = {layer.layer.name: layer for layer in model.layers if hasattr(layer, "layer")}
    return [
        {v.name.split("/")[-1].split(":")[0]: v for v in wrapped[f"{model.name}_{i}"].trainable_weights}
        for i in range(layers)
    ]


def _trained(layers: tuple[Dense, ...], model: Any) -> tuple[Dense, ...]:
    return tuple(
        replace(layer, weight=np.ascontiguousarray(own["kernel"].numpy().T), bias=own["bias"].numpy())
        for layer, own in zip(layers, _variables(model, len(layers)), strict=True)
    )


def _train_steps(plan: Plan, student: _Student, options: QatOptions) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """One optimizer step on a batch, of all weights and of the biases alone; each returns the loss before the step."""
    tf = import_tensorflow()
    everything = student.encoder.trainable_variables + student.head.trainable_variables
    biases = [variable for variable in everything if variable.name.split("/")[-1].startswith("bias")]
    loss = _loss(tf, plan, student, options)
    return (
        _minimize(tf, loss, everything, options.learning_rate, options.steps),
        _minimize(tf, loss, biases, options.bias_learning_rate, options.bias_steps),
    )


def _minimize(tf: Any, loss: Callable[..., Any], variables: list[Any], rate: float, steps: int) -> Callable[..., Any]:
    import tf_keras

    optimizer = tf_keras.optimizers.Adam(tf_keras.optimizers.schedules.CosineDecay(rate, max(steps, 1)))

    @tf.function  # type: ignore[untyped-decorator]
    def step(*batch: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(*batch)
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))
        return value

    return lambda *batch: step(*(tf.constant(array) for array in batch))


def _loss(tf: Any, plan: Plan, student: _Student, options: QatOptions) -> Callable[..., Any]:
    distance = _action_distance(tf, plan)
    pool = _pooling(tf, plan)
    reach = max(plan.encoder_ranges[-1].after.high - plan.encoder_ranges[-1].after.low, 1e-6)
    slots, size, width = plan.policy.max_peers, plan.encoder[0].inputs, plan.policy.embedding_size

    def loss(peers: Any, ego: Any, mask: Any, embeddings: Any, values: Any, weights: Any) -> Any:
        encoded = student.encoder(tf.reshape(peers, (-1, size)), training=True)
        encoded = tf.reshape(encoded, (-1, slots, width)) * mask[:, :, None]
        decided = student.head(tf.concat([pool(encoded, mask), ego], axis=1), training=True)
        peers_present = tf.maximum(tf.reduce_sum(mask), 1.0)
        squares = weights[:, None, None] * ((encoded - embeddings) / reach) ** 2
        of_embeddings = tf.reduce_sum(squares) / (peers_present * width)
        return tf.reduce_mean(weights * distance(values, decided)) + options.embedding_weight * of_embeddings

    return loss


def _action_distance(tf: Any, plan: Plan) -> Callable[[Any, Any], Any]:
    """What `quant.tracks.objective.decision_errors` measures, of the frames of a batch."""
    space = plan.policy.action_space
    if isinstance(space, Box):
        low, high = tf.constant(space.low, tf.float32), tf.constant(space.high, tf.float32)
        return lambda teacher, student: tf.reduce_mean(tf.abs(tf.clip_by_value(student, low, high) - teacher), axis=1)

    def divergence(teacher: Any, student: Any) -> Any:
        log_p, log_q = tf.nn.log_softmax(teacher), tf.nn.log_softmax(student)
        return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=1)

    return divergence


def _pooling(tf: Any, plan: Plan) -> Callable[[Any, Any], Any]:
    def pool(encoded: Any, mask: Any) -> Any:
        if plan.policy.pooling == "max":
            z = tf.reduce_max(tf.where(mask[:, :, None] > 0, encoded, encoded.dtype.min), axis=1)
            return tf.where(tf.reduce_any(mask > 0, axis=1)[:, None], z, 0.0)
        total = tf.reduce_sum(encoded, axis=1)
        if plan.policy.pooling == "sum":
            return total
        return total / tf.maximum(tf.reduce_sum(mask, axis=1), 1.0)[:, None]

    return pool
