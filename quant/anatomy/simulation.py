"""A candidate in floating point, with every rounding a switch of its own.

The two files say what is rounded: weights, biases and the grid of every tensor. The float policy says what the exact
weights are, up to the folding that a track may have done: features have a gain and an offset of their own, which stand
in the candidate, and units before a positively homogeneous activation may have been scaled (equalization), which stands
nowhere and is found again by :func:`find_factors`. With every switch off the network is the float policy; with every
switch on it is the candidate, but that a product is rounded once where TFLite-Micro rounds it twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.policy.observations import F32, Mask, Observations
from quant.policy.policy import Dense, Policy, Pooling
from quant.runners import Model, Pool, read_model
from quant.runners.flatbuffer import FullyConnected, Layer, Quantized
from quant.tracks.candidate import Affine, Candidate, Part
from quant.tracks.plan import HOMOGENEOUS

F64 = NDArray[np.float64]
Kind = Literal["input", "weights", "activations", "output"]

LOWEST, HIGHEST = -128, 127
FACTOR_PASSES = 12
"""Gauss-Newton passes over the equalization's factors; four are enough, as a rule."""
ROUNDING_VARIANCE = 1 / 12
"""Of an error that is uniform over one step."""
FUNCTIONS: Mapping[str, Callable[[F64], F64]] = {
    "NONE": lambda x: x,
    "RELU": lambda x: np.maximum(x, 0.0),
    "RELU6": lambda x: np.clip(x, 0.0, 6.0),
    "RELU_N1_TO_1": lambda x: np.clip(x, -1.0, 1.0),
    "TANH": np.tanh,
    "LOGISTIC": lambda x: 0.5 + 0.5 * np.tanh(0.5 * x),
    "ELU": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
    "QUANTIZE": lambda x: x,
}
"""What an operator or a fused activation computes, in exact arithmetic."""


@dataclass(frozen=True)
class How:
    """How much of a tensor's quantization is switched on.

    Attributes:
        rounded: to whole steps; else only what lies beyond the ends is cut off.
        column: of the one feature this is for; None for all.
    """

    rounded: bool = True
    column: int | None = None


QUANTIZED = How()
CUT_OFF = How(rounded=False)

Setting = Mapping[str, How]
"""Sources that are switched on, by name; all others are exact."""
Probe = Callable[[str, F64], None]
"""Told of every tensor, by its source, the codes that its values would have without rounding and saturation."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The codes of a tensor: value * gain + offset, one gain and offset for all or (K,) for each feature."""

    gain: NDArray[Any]
    offset: NDArray[Any]

    @staticmethod
    def of_tensor(tensor: Quantized) -> Grid:
        """Of a tensor in a file."""
        return Grid(np.array(1 / float(tensor.scale)), np.array(float(tensor.zero_point)))

    @staticmethod
    def of_features(affine: Affine) -> Grid:
        """Of float features; float32, as their quantization is defined."""
        return Grid(affine.gain, affine.offset)

    def codes(self, x: NDArray[Any]) -> F64:
        """(N, K) values -> (N, K) codes, neither rounded nor saturated."""
        return np.asarray(x * self.gain + self.offset, np.float64)

    def apply(self, x: NDArray[Any], how: How) -> F64:
        """(N, K) values -> (N, K) values as the tensor holds them."""
        codes = self.codes(x)
        held = np.clip(np.rint(codes) if how.rounded else codes, LOWEST, HIGHEST)
        values: F64 = (held - np.float64(self.offset)) / np.float64(self.gain)
        if how.column is None:
            return values
        out = np.array(x, np.float64)
        out[:, how.column] = values[:, how.column]
        return out


@dataclass(frozen=True, eq=False)
class Linear:
    """A layer's weights, in the units of the float policy's features and of this file's hidden tensors.

    Attributes:
        weight: (M, K) float64.
        bias: (M,) float64.
    """

    weight: F64
    bias: F64

    def __call__(self, x: F64) -> F64:
        """(N, K) -> (N, M)."""
        return np.asarray(x @ self.weight.T + self.bias)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor after an operator: what the operator computes, the source its rounding is, its grid."""

    function: str
    source: str
    grid: Grid


@dataclass(frozen=True, eq=False)
class Stage:
    """One layer of the policy and the operators it became.

    Attributes:
        source: of the weights' rounding.
        exact, quantized: the weights as the policy has them, folded alike, and as the file has them.
        codes: (M, K) int8, the weights in the file.
        step: (M, K) float64, what one step of a code is worth.
        origin: (K,) float64, the inputs that the file's integers take for zero: there a layer is its bias.
        per_channel: whether every output has a scale of its own.
        tensors: in order; more than one where the activation is an operator of its own.
    """

    source: str
    exact: Linear
    quantized: Linear
    codes: NDArray[np.int8]
    step: F64
    origin: F64
    per_channel: bool
    tensors: tuple[Tensor, ...]

    def __call__(self, x: F64, setting: Setting, probe: Probe | None) -> F64:
        """(N, K) -> (N, M)."""
        x = (self.quantized if self.source in setting else self.exact)(x)
        for tensor in self.tensors:
            x = FUNCTIONS[tensor.function](x)
            x = _held(x, tensor.source, tensor.grid, setting, probe)
        return x


@dataclass(frozen=True)
class Place:
    """Where a source is: its name, sub-model, kind, and layer (None for inputs)."""

    name: str
    part: Part
    kind: Kind
    layer: int | None


@dataclass(frozen=True, eq=False)
class Network:
    """A candidate with a switch for every rounding.

    Attributes:
        places: the sources, in the order of computation.
        peer_grid, ego_grid: of the inputs.
        encoder, head: the layers.
        z_grid: of the head's input where the pooled embedding is rounded again; None where its bytes are copied.
        integers: pools codes as a device does.
        embedding_step, output_step: width of a step of the encoder's and the head's output.
        pooling: over the peers present.
    """

    places: tuple[Place, ...]
    peer_grid: Grid
    ego_grid: Grid
    encoder: tuple[Stage, ...]
    head: tuple[Stage, ...]
    z_grid: Grid | None
    integers: Pool
    embedding_step: float
    output_step: float
    pooling: Pooling

    @property
    def everything(self) -> dict[str, How]:
        """The setting with every rounding on."""
        return {place.name: QUANTIZED for place in self.places}

    def encode(self, peers: F32, setting: Setting, probe: Probe | None = None) -> F64:
        """(N, F) peers -> (N, D) embeddings."""
        x = _held(peers, PEER_INPUT, self.peer_grid, setting, probe)
        for stage in self.encoder:
            x = stage(x, setting, probe)
        return x

    def decide(self, z: F64, ego: F32, setting: Setting, probe: Probe | None = None) -> F64:
        """(N, D) pooled embeddings and (N, E) ego features -> (N, A) head outputs."""
        if self.z_grid is not None:
            z = _held(z, Z, self.z_grid, setting, probe)
        x = np.concatenate([z, _held(ego, EGO_INPUT, self.ego_grid, setting, probe)], axis=1)
        for stage in self.head:
            x = stage(x, setting, probe)
        return x


PEER_INPUT, EGO_INPUT, EMBEDDING, Z, OUTPUT = "peer input", "ego input", "embedding", "z", "head output"
"""Names of the interfaces."""


def _held(x: NDArray[Any], source: str, grid: Grid, setting: Setting, probe: Probe | None) -> F64:
    if probe is not None:
        probe(source, grid.codes(x))
    how = setting.get(source)
    return np.asarray(x, np.float64) if how is None else grid.apply(x, how)


class Simulation:
    """A network on frames; what does not depend on a switch is computed once.

    Args:
        network: with its switches.
        observations: N frames.
    """

    def __init__(self, network: Network, observations: Observations) -> None:
        self.network = network
        self.observations = observations
        self._peers = observations.peers[observations.mask]
        encoder = [place.name for place in network.places if place.part == "peer_encoder"]
        self._encoder = frozenset(encoder)
        # Most settings change the head alone: these two encoders are asked for again and again.
        self._known = {frozenset[tuple[str, How]](), frozenset((name, QUANTIZED) for name in encoder)}
        self._embeddings: dict[frozenset[tuple[str, How]], F64] = {}

    def values(self, setting: Setting, probe: Probe | None = None) -> F64:
        """(N, A) float64 head outputs: logits, or actions before clipping."""
        embeddings = self.embeddings(setting, probe)
        z = pool(embeddings, self.observations.mask, self.network.pooling)
        if setting.get(EMBEDDING) == setting.get(Z) == QUANTIZED:
            z = self._pooled_codes(embeddings)
        return self.network.decide(z, self.observations.ego, setting, probe)

    def _pooled_codes(self, embeddings: F64) -> F64:
        """The same where codes are pooled into codes, with the roundings of the integers that do it."""
        mask, integers = self.observations.mask, self.network.integers
        codes = np.full((*mask.shape, embeddings.shape[1]), integers.neutral, np.int8)
        codes[mask] = integers.source.quantize(embeddings.astype(np.float32))
        pooled = integers(np.ascontiguousarray(codes.swapaxes(0, 1)), np.ascontiguousarray(mask.T))
        return integers.target.dequantize(pooled).astype(np.float64)

    def embeddings(self, setting: Setting, probe: Probe | None = None) -> F64:
        """(M, D) float64 embeddings of all peers present, a frame's peers one after another."""
        key = frozenset((name, how) for name, how in setting.items() if name in self._encoder)
        if probe is not None or key not in self._known:
            return self.network.encode(self._peers, setting, probe)
        if key not in self._embeddings:
            self._embeddings[key] = self.network.encode(self._peers, setting)
        return self._embeddings[key]


def pool(embeddings: F64, mask: Mask, pooling: Pooling) -> F64:
    """(M, D) embeddings of the peers present and (N, P) mask -> (N, D); zero where no peer is present."""
    counts = mask.sum(axis=1)
    z = np.zeros((len(mask), embeddings.shape[1]))
    some = counts > 0
    if not some.any():
        return z
    starts = (np.cumsum(counts) - counts)[some]
    z[some] = (np.maximum if pooling == "max" else np.add).reduceat(embeddings, starts, axis=0)
    return z / np.maximum(counts, 1)[:, None] if pooling == "mean" else z


def build_network(policy: Policy, candidate: Candidate) -> Network:
    """The network of a candidate of this policy.

    Raises:
        InputError: a file is damaged, or its layers are not the policy's one for one.
    """
    encoder_model = read_model(candidate.peer_encoder.tflite, "peer_encoder")
    head_model = read_model(candidate.policy_head.tflite, "policy_head")
    where = candidate.track
    encoder_layers = _layers(encoder_model, policy.encoder, f"{where}: peer_encoder")
    head_layers = _layers(head_model, policy.head, f"{where}: policy_head")
    _check_sizes(policy, candidate, where)
    width = policy.embedding_size
    stretches = [np.ones(dense.inputs) for dense, _ in (*encoder_layers, *head_layers)]
    shifts = [np.zeros(dense.inputs) for dense, _ in (*encoder_layers, *head_layers)]
    stretches[0], shifts[0] = _unfolded(candidate.peer_input, encoder_model.input)
    ego_stretch, ego_shift = _unfolded(candidate.ego_input, head_model.input)
    stretches[len(encoder_layers)][width:] = ego_stretch
    shifts[len(encoder_layers)][width:] = ego_shift
    chain = [*encoder_layers, *head_layers]
    raws = [_raw(fc(ops), *fold) for (_, ops), *fold in zip(chain, stretches, shifts, strict=True)]
    origins = [-shift / stretch for shift, stretch in zip(shifts, stretches, strict=True)]
    known = [
        Known(quantized.weight, step, quantized(origin), fc(ops).weight_scale * np.float64(fc(ops).input.scale), origin)
        for (_, ops), (quantized, step), origin in zip(chain, raws, origins, strict=True)
    ]
    factors = find_factors(policy, known)
    stages: list[Stage] = []
    places: list[Place] = [Place(PEER_INPUT, "peer_encoder", "input", None)]
    # A maximum of codes is a code; a sum or a mean has to be rounded to one.
    shared = candidate.pooling == "max" and encoder_model.output.same_quantization(head_model.input)
    for index, ((dense, ops), (quantized, step)) in enumerate(zip(chain, raws, strict=True)):
        if index == len(encoder_layers):
            # The place of a requantization is the head's input, whatever sub-model one counts it to.
            places += [] if shared else [Place(Z, "policy_head", "activations", None)]
            places.append(Place(EGO_INPUT, "policy_head", "input", None))
        part: Part = "peer_encoder" if index < len(encoder_layers) else "policy_head"
        own = index if part == "peer_encoder" else index - len(encoder_layers)
        last = own == len(encoder_layers if part == "peer_encoder" else head_layers) - 1
        origin = origins[index]
        stage, named = _stage(part, own, last, ops, _exact(dense, index, factors, policy), quantized, step, origin)
        stages.append(stage)
        places += named
    return Network(
        tuple(places),
        Grid.of_features(candidate.peer_input),
        Grid.of_features(candidate.ego_input),
        tuple(stages[: len(encoder_layers)]),
        tuple(stages[len(encoder_layers) :]),
        None if shared else Grid.of_tensor(head_model.input),
        Pool.build(candidate.pooling, encoder_model.output, head_model.input, candidate.max_peers),
        float(encoder_model.output.scale),
        float(head_model.output.scale),
        candidate.pooling,
    )


def fc(operators: tuple[Layer, ...]) -> FullyConnected:
    """The dense operator a layer begins with."""
    first = operators[0]
    assert isinstance(first, FullyConnected)
    return first


def _layers(model: Model, layers: tuple[Dense, ...], where: str) -> list[tuple[Dense, tuple[Layer, ...]]]:
    """Each layer of the policy with the operators it became: a FULLY_CONNECTED and what follows it."""
    groups: list[list[Layer]] = []
    for operator in model.layers:
        if isinstance(operator, FullyConnected):
            groups.append([operator])
        elif groups:
            groups[-1].append(operator)
        elif operator.operator != "RESHAPE":
            raise InputError(f"begins with {operator.operator}", where=where, expected="FULLY_CONNECTED")
    sizes = [fc(tuple(group)).weight.shape for group in groups]
    expected = [layer.weight.shape for layer in layers]
    if sizes != expected:
        raise InputError(
            f"its layers have weights {sizes}",
            where=where,
            expected=f"the policy's, {expected}",
            hint="a candidate can be explained where its layers are the policy's, one for one",
        )
    return list(zip(layers, map(tuple, groups), strict=True))


def _check_sizes(policy: Policy, candidate: Candidate, where: str) -> None:
    sizes = (len(candidate.peer_input.gain), len(candidate.ego_input.gain))
    if sizes != (policy.peer_size, policy.ego_size):
        raise InputError(f"takes {sizes} features", where=where, expected=f"{(policy.peer_size, policy.ego_size)}")


def _unfolded(affine: Affine, tensor: Quantized) -> tuple[F64, F64]:
    """Stretch and shift of each feature: what the tensor holds is feature * stretch + shift."""
    scale = float(tensor.scale)
    return affine.gain * np.float64(scale), (affine.offset - np.float64(tensor.zero_point)) * scale


def _raw(layer: FullyConnected, stretch: F64, shift: F64) -> tuple[Linear, F64]:
    """The file's layer for features as the policy takes them, and the step of its weights."""
    scale = layer.weight_scale.astype(np.float64)
    weight = layer.weight * scale[:, None]
    bias = layer.bias * (scale * float(layer.input.scale)) + weight @ shift
    step = np.broadcast_to(scale[:, None] * stretch, weight.shape)
    return Linear(weight * stretch, bias), step


@dataclass(frozen=True, eq=False)
class Known:
    """What a file says of a layer, for unfolded features.

    Attributes:
        weight, step: (M, K) and what a step of each is worth.
        bias, bias_step: (M,) the output at the origin, and (M,) or (1,) what a step of it is worth.
        origin: (K,), see `Stage`.
    """

    weight: F64
    step: F64
    bias: F64
    bias_step: F64
    origin: F64


def find_factors(policy: Policy, known: list[Known]) -> list[F64]:
    """By what each layer's units were divided before quantization, so that the next layer's columns were multiplied.

    Any positive factors leave the function as it is. These make the file's numbers differ least from the policy's:
    weighted least squares over the rows of a layer, its biases, and the columns of the next layer, each of them
    weighted by how well it can be met at all, so that a layer that is damaged does not make its neighbours look so.

    Args:
        policy: the float policy.
        known: what the files say of each layer, encoder first.

    Returns:
        (M,) for each layer; ones where the activation is not positively homogeneous, and for the last layer.
    """
    layers = [*policy.encoder, *policy.head]
    exact = [layer.weight.astype(np.float64) for layer in layers]
    starts = [layer.bias + layer.weight @ one.origin for layer, one in zip(layers, known, strict=True)]
    factors = [np.ones(layer.outputs) for layer in layers]
    free = [i for i, layer in enumerate(layers[:-1]) if layer.activation in HOMOGENEOUS]

    def predicted(i: int) -> F64:
        into = factors[i - 1] if i else np.ones(exact[0].shape[1])
        into = np.concatenate([into, np.ones(exact[i].shape[1] - len(into))])
        return np.asarray(exact[i] * into / factors[i][:, None])

    for i in free:
        guess = predicted(i)
        share = _ratio((known[i].weight * guess).sum(axis=1), (guess**2).sum(axis=1))
        factors[i] = 1 / np.where(share > 0, share, 1.0)
    for i in free * FACTOR_PASSES:
        one, after, units = known[i], known[i + 1], len(factors[i])
        own, bias = predicted(i), starts[i] / factors[i]
        slope, curve = _normal(own, one.weight - own, one.step, axis=1)
        more = _normal(bias[:, None], (one.bias - bias)[:, None], one.bias_step[:, None], axis=1)
        slope, curve = -(slope + more[0]), curve + more[1]
        columns = predicted(i + 1)[:, :units]
        more = _normal(columns, after.weight[:, :units] - columns, after.step[:, :units], axis=0)
        factors[i] = factors[i] * np.clip(1 + _ratio(slope + more[0], curve + more[1], 0.0), 0.5, 2.0)
    return factors


def _normal(predicted: F64, miss: F64, step: F64, axis: int) -> tuple[F64, F64]:
    """Right and left side of the normal equations of a relative change of the predicted numbers."""
    weigh = 1 / (_variance(miss, step) * step**2)
    return (weigh * predicted * miss).sum(axis=axis), (weigh * predicted**2).sum(axis=axis)


def _ratio(over: F64, under: F64, otherwise: float = 1.0) -> F64:
    return np.divide(over, under, out=np.full_like(over, otherwise), where=under > 0)


def _variance(miss: F64, step: F64) -> float:
    return max(float(np.mean((miss / step) ** 2)), ROUNDING_VARIANCE)


def _exact(dense: Dense, index: int, factors: list[F64], policy: Policy) -> Linear:
    into = factors[index - 1] if index else np.ones(policy.peer_size)
    into = np.concatenate([into, np.ones(dense.inputs - len(into))])
    own = factors[index]
    return Linear(dense.weight * into / own[:, None], dense.bias / own)


def _stage(
    part: Part,
    index: int,
    last: bool,
    operators: tuple[Layer, ...],
    exact: Linear,
    quantized: Linear,
    step: F64,
    origin: F64,
) -> tuple[Stage, list[Place]]:
    """A layer with the names of its sources; the last tensor of a sub-model is an interface and is named so."""
    short = "encoder" if part == "peer_encoder" else "head"
    dense = fc(operators)
    weights = f"{short} {index} weights"
    places = [Place(weights, part, "weights", index)]
    chain: list[tuple[str, Quantized]] = [(dense.activation, dense.output)]
    chain += [(op.operator, op.output) for op in operators[1:] if op.operator != "RESHAPE"]
    tensors = []
    for at, (function, tensor) in enumerate(chain):
        final = at == len(chain) - 1
        if final:
            name = {"peer_encoder": EMBEDDING, "policy_head": OUTPUT}[part] if last else f"{short} {index} activations"
        else:
            name = f"{short} {index} before {chain[at + 1][0].lower()}"
        places.append(Place(name, part, "output" if final and last else "activations", index))
        tensors.append(Tensor(function, name, Grid.of_tensor(tensor)))
    return Stage(weights, exact, quantized, dense.weight, step, origin, dense.per_channel, tuple(tensors)), places
