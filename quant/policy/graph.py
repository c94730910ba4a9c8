"""Reads a Deep Sets policy off a TensorFlow graph whose variables are constants.

The graph is walked backwards from its output. What cannot be told from the graph's shape alone (how a mask is applied,
what a reshape means) is not guessed at: the walk passes it by, and the importer then proves the result by running the
original.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.observation.observations import EGO, F32, PEER_MASK, PEERS
from quant.policy.policy import Activation, Dense, Pooling

ACTIVATIONS: dict[str, Activation] = {
    "Relu": "relu",
    "Relu6": "relu6",
    "Tanh": "tanh",
    "Elu": "elu",
    "Sigmoid": "sigmoid",
}
_PASSED = {
    *("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "EnsureShape", "Snapshot", "Cast"),
    *("Reshape", "Squeeze", "ExpandDims", "Transpose", "StridedSlice", "Pack", "Unpack"),
}
_CONCATS = ("ConcatV2", "Concat")
_SHAPES = {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike", "BroadcastArgs"}
"""They take the size of a tensor, not its content."""
_MAXIMA = {"Max", "SegmentMax", "UnsortedSegmentMax"}

# TensorFlow has no types: an operation or a tensor of its graph.
Op = Any
Tensor = Any


@dataclass(frozen=True)
class Output:
    """What a graph does to the head's values before it gives them out.

    Attributes:
        softmax: the values are turned into probabilities.
        low, high: the values are clipped to these; None where they are not.
    """

    softmax: bool = False
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    def __call__(self, values: F32) -> F32:
        """(N, A) values of the head -> (N, A) outputs of the graph."""
        if self.softmax:
            exponentials = np.exp(values - values.max(axis=1, keepdims=True))
            return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), np.float32)
        low = -np.inf if self.low is None else np.array(self.low, np.float32)
        high = np.inf if self.high is None else np.array(self.high, np.float32)
        return np.asarray(np.clip(values, low, high), np.float32)


@dataclass(frozen=True)
class Found:
    """A policy read off one graph.

    Attributes:
        encoder, head: the layers; the head takes [z, ego].
        poolings: those the graph may mean; running it tells which.
        output: what happens after the head.
        order: how the graph concatenates.
        reduction: the operations between encoder and head.
    """

    encoder: tuple[Dense, ...]
    head: tuple[Dense, ...]
    poolings: tuple[Pooling, ...]
    output: Output
    order: str
    reduction: str


@dataclass
class _Segment:
    """The affine operations behind the next activation, met from the output backwards: y = x A + b.

    Before a matrix is met, A is a diagonal.
    """

    activation: Activation = "linear"
    gain: Any = None
    bias: Any = None
    matrix: NDArray[np.float64] | F32 | None = None
    name: str = ""

    @property
    def empty(self) -> bool:
        return self.matrix is None and self.gain is None and self.bias is None

    def multiply(self, weight: F32, name: str) -> None:
        self.matrix = weight if self.gain is None else weight.astype(np.float64) * self.gain
        self.name = name

    def scale(self, factor: Any) -> None:
        factor = np.asarray(factor, np.float64)
        if self.matrix is None:
            self.gain = factor if self.gain is None else self.gain * factor
        else:
            self.matrix = np.broadcast_to(factor, self.matrix.shape[:1])[:, None] * self.matrix.astype(np.float64)

    def add(self, offset: Any) -> None:
        if self.matrix is not None:
            offset = np.broadcast_to(offset, self.matrix.shape[:1]).astype(np.float64) @ self.matrix
        elif self.gain is not None:
            offset = np.asarray(offset, np.float64) * self.gain
        self.bias = offset if self.bias is None else self.bias + offset

    def dense(self) -> Dense:
        assert self.matrix is not None
        outputs = self.matrix.shape[1]
        bias = np.zeros(outputs) if self.bias is None else np.broadcast_to(self.bias, (outputs,))
        weight = np.ascontiguousarray(self.matrix.T, np.float32)
        return Dense(weight, np.ascontiguousarray(bias, np.float32), self.activation)


@dataclass
class GraphReader:
    """Walks one graph.

    Attributes:
        inputs: the placeholders by what they are (ego, peers, peer_mask, or another name).
        constant: the value of a tensor that no placeholder reaches.
        where: what errors call the graph.
    """

    inputs: dict[str, Tensor]
    constant: Callable[[Tensor], NDArray[Any]]
    where: str
    _reached: dict[str, frozenset[str]] = field(default_factory=dict)

    def read_policy(self, output: Tensor) -> Found:
        """The whole policy, from a graph with inputs ego, peers and peer_mask.

        Raises:
            InputError: the graph is not a Deep Sets policy of supported layers.
        """
        tensor, transform = self._output(output)
        head, concat = self._chain(tensor, self._is_junction)
        parts = self._data(concat.op)
        if not self._is_junction(concat.op) or len(parts) != 2:
            raise self._error(concat.op, f"the head starts from {len(parts)} parts", "the head's input is [z, ego]")
        ego = next((part for part in parts if self._sources(part) == {EGO}), None)
        pooled = next((part for part in parts if PEERS in self._sources(part)), None)
        if ego is None or pooled is None or self._chain(ego, _is_placeholder)[0]:
            raise self._error(
                concat.op, "the ego goes through layers before it is joined", "the head's input is [z, ego]"
            )
        encoder, operations = self._encoder(pooled)
        order = "[z, ego]" if parts[0] is pooled else "[ego, z]"
        if parts[0] is ego and head:
            head = (_pooled_first(head[0], encoder[-1].outputs), *head[1:])
        poolings: tuple[Pooling, ...] = ("max",) if operations & _MAXIMA else ("mean", "sum")
        return Found(encoder, head, poolings, transform, order, ", ".join(sorted(operations)))

    def read_chain(self, output: Tensor) -> tuple[tuple[Dense, ...], Output]:
        """The layers of a graph that is one chain of them: a peer encoder or a policy head.

        Where the graph joins two inputs first, the layers take them in the order in which it joins them.
        """
        tensor, transform = self._output(output)
        layers, end = self._chain(tensor, lambda op: _is_placeholder(op) or self._joins_inputs(op))
        if not layers:
            raise self._error(end.op, "holds no dense layer", "a multi-layer perceptron")
        return layers, transform

    def joined(self, output: Tensor) -> tuple[str, ...]:
        """The names of the inputs of a chain in the order in which it joins them."""
        _, end = self._chain(self._output(output)[0], lambda op: _is_placeholder(op) or self._joins_inputs(op))
        parts = [end] if _is_placeholder(end.op) else self._data(end.op)
        return tuple(name for part in parts for name in self._sources(part))

    def _encoder(self, pooled: Tensor) -> tuple[tuple[Dense, ...], set[str]]:
        """The layers on the peers alone, and the operations that pool them."""
        if PEER_MASK not in self._sources(pooled):
            raise self._error(
                pooled.op, "the pooling does not use the peer mask", "embeddings of absent peers masked before pooling"
            )
        ends, operations = self._frontier(pooled)
        if len({end.op.name for end in ends}) != 1:
            raise self._error(pooled.op, f"pools {len(ends)} different tensors", "one embedding for each peer")
        encoder, _ = self._chain(ends[0], _is_placeholder)
        if not encoder:
            raise self._error(
                ends[0].op,
                "no dense layer works on the peers alone",
                "the mask is applied after the peer encoder, not before",
            )
        return encoder, operations

    def _frontier(self, pooled: Tensor) -> tuple[list[Tensor], set[str]]:
        """The last tensors that depend on the peers and not on the mask, and the operations after them."""
        ends, operations, seen, open_ = [], set(), set(), [pooled]
        while open_:
            tensor = open_.pop()
            if tensor.name in seen or PEERS not in self._sources(tensor):
                continue
            seen.add(tensor.name)
            if self._sources(tensor) == {PEERS}:
                ends.append(self._skip(tensor))
                continue
            operations.add(tensor.op.type)
            open_ += self._data(tensor.op)
        return ends, operations

    def _output(self, tensor: Tensor) -> tuple[Tensor, Output]:
        """Takes off what a model may do after its head: softmax, or clipping to the bounds."""
        low = high = None
        while True:
            tensor = self._skip(tensor)
            op = tensor.op
            if op.type == "Softmax":
                return op.inputs[0], Output(softmax=True)
            if op.type in ("Maximum", "Minimum") and len(self._data(op)) == 1:
                bound = self._other(op)
                low, high = (bound, high) if op.type == "Maximum" else (low, bound)
            elif op.type == "ClipByValue":
                low, high = (self.constant(op.inputs[1]), self.constant(op.inputs[2]))
            else:
                return tensor, Output(low=_numbers(low), high=_numbers(high))
            tensor = self._data(op)[0]

    def _chain(self, tensor: Tensor, is_end: Callable[[Op], bool]) -> tuple[tuple[Dense, ...], Tensor]:
        """The dense layers from ``tensor`` back to the first operation that is an end, first layer first."""
        layers: list[Dense] = []
        segment = _Segment()
        while not is_end(tensor.op):
            op = tensor.op
            if op.type in _PASSED:
                pass
            elif op.type in ACTIVATIONS:
                if segment.matrix is not None:
                    layers.append(segment.dense())
                elif not segment.empty or segment.activation != "linear":
                    raise self._error(
                        op, "an activation that no dense layer goes before or after", "Dense + activation"
                    )
                segment = _Segment(ACTIVATIONS[op.type])
            elif op.type in ("MatMul", "BatchMatMulV2", "BatchMatMul", "Einsum"):
                if segment.matrix is not None:
                    layers.append(segment.dense())
                    segment = _Segment()
                segment.multiply(self._weight(op), op.name)
            elif not self._affine(op, segment):
                raise self._error(
                    op, f"unsupported layer {op.name}: operation {op.type}", "dense layers and activations"
                )
            tensor = self._only(op)
        if segment.matrix is not None:
            layers.append(segment.dense())
        elif not segment.empty or segment.activation != "linear":
            raise self._error(tensor.op, "works on an input before the first dense layer", "Dense + activation")
        return tuple(reversed(layers)), tensor

    def _affine(self, op: Op, segment: _Segment) -> bool:
        """Takes an operation with a constant (a bias, a folded batch normalization) into the segment."""
        if op.type == "Neg":
            segment.scale(-1.0)
            return True
        if op.type not in ("BiasAdd", "Add", "AddV2", "Sub", "Mul", "RealDiv") or len(self._data(op)) != 1:
            return False
        value = self._other(op)
        data_first = bool(self._sources(op.inputs[0]))
        if op.type in ("BiasAdd", "Add", "AddV2"):
            segment.add(value)
        elif op.type == "Mul":
            segment.scale(value)
        elif op.type == "Sub":
            segment.add(-value if data_first else value)
            if not data_first:
                segment.scale(-1.0)
        elif data_first:
            segment.scale(1.0 / value.astype(np.float64))
        return op.type != "RealDiv" or data_first

    def _other(self, op: Op) -> NDArray[Any]:
        """The constant operand, as a vector over the last axis or a scalar."""
        constants = [tensor for tensor in op.inputs if not self._sources(tensor)]
        value = self.constant(constants[0])
        if value.ndim and value.size != value.shape[-1]:
            raise self._error(
                op, f"a constant of shape {value.shape} that differs between peers", "one value a feature"
            )
        return value.reshape(-1) if value.ndim else value

    def _weight(self, op: Op) -> F32:
        """The (inputs, outputs) weight of a matrix product with a constant."""
        constants = [tensor for tensor in op.inputs if not self._sources(tensor)]
        weight = self.constant(constants[0]) if len(constants) == 1 else np.zeros(0)
        if op.type == "Einsum" and weight.ndim == 2:
            left, right = op.get_attr("equation").decode().split("->")[0].split(",")
            letters = right if op.inputs[1] is constants[0] else left
            transposed = letters[1] in (left if letters is right else right)
        else:
            transposed = op.type != "Einsum" and op.get_attr("transpose_b" if op.type == "MatMul" else "adj_y")
        if weight.ndim != 2 or (op.type != "Einsum" and op.inputs[1] is not constants[0]):
            raise self._error(op, f"unsupported layer {op.name}: {op.type} without a weight matrix", "dense layers")
        return np.ascontiguousarray(weight.T if transposed else weight, np.float32)

    def _only(self, op: Op) -> Tensor:
        parts = self._data(op)
        if not parts or (len(parts) != 1 and op.type != "Pack"):
            raise self._error(op, f"unsupported layer {op.name}: operation {op.type}", "one chain of dense layers")
        return parts[0]  # a Pack gathers the same layers run on each peer

    def _skip(self, tensor: Tensor) -> Tensor:
        while tensor.op.type in _PASSED and len(self._data(tensor.op)) == 1:
            tensor = self._data(tensor.op)[0]
        return tensor

    def _is_junction(self, op: Op) -> bool:
        return op.type in _CONCATS and {EGO, PEERS} <= self._reaching(op)

    def _joins_inputs(self, op: Op) -> bool:
        return op.type in _CONCATS and all(_is_placeholder(self._skip(part).op) for part in self._data(op))

    def _data(self, op: Op) -> list[Tensor]:
        """The inputs of an operation that some placeholder reaches."""
        return [tensor for tensor in op.inputs if self._sources(tensor)]

    def _sources(self, tensor: Tensor) -> frozenset[str]:
        return self._reaching(tensor.op)

    def _reaching(self, op: Op) -> frozenset[str]:
        """The inputs whose content reaches an operation."""
        if not self._reached:
            self._reached.update({tensor.op.name: frozenset({name}) for name, tensor in self.inputs.items()})
        stack = [op]
        while stack:
            current = stack[-1]
            if current.name in self._reached:
                stack.pop()
                continue
            before = [] if current.type in _SHAPES else [tensor.op for tensor in current.inputs]
            missing = [earlier for earlier in before if earlier.name not in self._reached]
            if missing:
                stack += missing
                continue
            self._reached[current.name] = frozenset().union(*(self._reached[earlier.name] for earlier in before))
            stack.pop()
        return self._reached[op.name]

    def _error(self, op: Op, what: str, expected: str) -> InputError:
        return InputError(
            what,
            where=f"{self.where}: {op.name} ({op.type})",
            expected=expected,
            hint="supported: a peer encoder of dense layers, masked max, mean or sum, [z, ego], dense head",
        )


def operations(graph_def: Any) -> Iterator[str]:
    """The types of all operations of a GraphDef, those in its function library included."""
    for node in graph_def.node:
        yield node.op
    for function in graph_def.library.function:
        for node in function.node_def:
            yield node.op


def _is_placeholder(op: Op) -> bool:
    return bool(op.type == "Placeholder")


def _pooled_first(layer: Dense, pooled: int) -> Dense:
    """The first layer of a head on [ego, z], for [z, ego]."""
    ego = layer.inputs - pooled
    weight = np.concatenate([layer.weight[:, ego:], layer.weight[:, :ego]], axis=1)
    return Dense(np.ascontiguousarray(weight), layer.bias, layer.activation)


def _numbers(bound: NDArray[Any] | None) -> tuple[float, ...] | None:
    return None if bound is None else tuple(float(value) for value in np.atleast_1d(bound))
