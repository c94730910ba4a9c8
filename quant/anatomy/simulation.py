"""A candidate in floating point, with every rounding a switch of its own.

The two files say what is rounded: weights, biases and the grid of every tensor. The float policy says what the exact
weights are, up to the folding that a track may have done: features have a gain and an offset of their own, which stand
in the candidate, and units before a positively homogeneous activation may have been scaled (equalization), which stands
nowhere and is found again by :func:`find_factors`. With every switch off the network is the float policy; with every
switch on it is the candidate, but that a product is rounded once where TFLite-Micro rounds it twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.observation.observations import F32, Mask, Observations
from quant.policy.policy import Dense, Policy, Pooling
from quant.runners import Model, Pool, read_model
from quant.runners.flatbuffer import FullyConnected, Layer, Quantized
from quant.tracks.candidate import Affine, Candidate, Part, code_limits, code_type
from quant.tracks.plan import HOMOGENEOUS, Rewritten
from quant.tracks.splitting import END

F64 = NDArray[np.float64]
Kind = Literal["input", "weights", "activations", "output"]

FACTOR_PASSES = 12
"""Gauss-Newton passes over the equalization's factors; four are enough, as a rule."""
TIE = 1e-6
"""Of a step."""
SNAP = 0.1
"""Typical relative distance of factors that were found from those of an equalization, up to which they are its own."""
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
    """The codes of a tensor: value * gain + offset, one gain and offset for all or (K,) for each feature.

    Attributes:
        gain, offset: in codes.
        lowest, highest: code.
        residual: of features with residuals, how many codes one before them is.
    """

    gain: NDArray[Any]
    offset: NDArray[Any]
    lowest: int = -128
    highest: int = 127
    residual: int = 0

    @staticmethod
    def of_tensor(tensor: Quantized) -> Grid:
        """Of a tensor in a file."""
        ends = code_limits(tensor.bits)
        return Grid(np.array(1 / float(tensor.scale)), np.array(float(tensor.zero_point)), *ends)

    @staticmethod
    def of_features(affine: Affine) -> Grid:
        """Of float features; float32, as their quantization is defined. A residual makes steps that much finer."""
        low, high = code_limits(affine.bits)
        if affine.residual:
            finer = np.float32(affine.residual)
            low, high = low * affine.residual + low, high * affine.residual + high
            return Grid(affine.gain * finer, affine.offset * finer, low, high, affine.residual)
        return Grid(affine.gain, affine.offset, low, high)

    @property
    def steps(self) -> int:
        """From the lowest code to the highest."""
        return self.highest - self.lowest

    def beyond(self, codes: F64) -> F64:
        """How many steps codes lie beyond the ends; negative within them."""
        return np.maximum(self.lowest - codes, codes - self.highest)

    def held(self, codes: F64) -> F64:
        """Codes rounded and saturated."""
        return np.clip(np.rint(codes), self.lowest, self.highest)

    def codes(self, x: NDArray[Any]) -> F64:
        """(N, K) values -> (N, K) codes, neither rounded nor saturated."""
        return np.asarray(x * self.gain + self.offset, np.float64)

    def apply(self, x: NDArray[Any], how: How) -> F64:
        """(N, K) values -> (N, K) values as the tensor holds them."""
        codes = self.codes(x)
        held = self.held(codes) if how.rounded else np.clip(codes, self.lowest, self.highest)
        if how.rounded and self.residual:
            # Half a code before residuals is a residual of either neighbour: it stays nearer to the one that it is of.
            own = np.rint(codes / self.residual) * self.residual
            held = np.where(np.abs(held - own) * 2 == self.residual, held + (own - held) * TIE, held)
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
        rest: of a layer with residuals, what their weights add to that.
    """

    weight: F64
    bias: F64
    rest: Rest | None = None

    def __call__(self, x: F64) -> F64:
        """(N, K) -> (N, M)."""
        out = x @ self.weight.T + self.bias
        return np.asarray(out if self.rest is None else out + self.rest(x))


@dataclass(frozen=True, eq=False)
class Rest:
    """What is left of features by their first rounding, times how much its weights differ from the features' own.

    Attributes:
        affine: quantization of the features, which are the last columns.
        weight: (M, E), for a step of the codes.
    """

    affine: Affine
    weight: F64

    def __call__(self, x: F64) -> F64:
        """(N, K) -> (N, M)."""
        steps = x[..., -len(self.affine.gain) :] * np.float64(self.affine.gain) + np.float64(self.affine.offset)
        return np.asarray((steps - np.clip(np.rint(steps), *code_limits(self.affine.bits))) @ self.weight.T)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor after an operator.

    Attributes:
        function: what the operator computes.
        source: its rounding is.
        grid: its codes.
        most: (M,) where each unit ends in place of the function's own end, where units are in two: only of a first half
            the end belongs to the policy, of all others it is a range that is too narrow.
    """

    function: str
    source: str
    grid: Grid
    most: F64 | None = None

    def __call__(self, x: F64) -> F64:
        """(N, M) -> (N, M), exactly."""
        return FUNCTIONS[self.function](x) if self.most is None else np.clip(x, 0.0, self.most)


@dataclass(frozen=True, eq=False)
class Stage:
    """One layer of the policy and the operators it became.

    Attributes:
        source: of the weights' rounding.
        exact: the weights as the policy has them, folded as the file's.
        known: what the file says.
        tensors: in order; more than one where the activation is an operator of its own.
    """

    source: str
    exact: Linear
    known: Known
    tensors: tuple[Tensor, ...]

    def __call__(self, x: F64, setting: Setting, probe: Probe | None) -> F64:
        """(N, K) -> (N, M)."""
        x = (self.known.linear if self.source in setting else self.exact)(x)
        for tensor in self.tensors:
            x = _held(tensor(x), tensor.source, tensor.grid, setting, probe)
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

    @property
    def grids(self) -> dict[str, Grid]:
        """Of every tensor, by its source."""
        hidden = {tensor.source: tensor.grid for stage in (*self.encoder, *self.head) for tensor in stage.tensors}
        z = {} if self.z_grid is None else {Z: self.z_grid}
        return {PEER_INPUT: self.peer_grid, EGO_INPUT: self.ego_grid, **z, **hidden}

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
        codes = np.full((*mask.shape, embeddings.shape[1]), integers.neutral, code_type(integers.source.bits))
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


def build_network(policy: Policy, candidate: Candidate, rewritten: Sequence[Rewritten] = ()) -> Network:
    """The network of a candidate of this policy.

    Args:
        policy: in float.
        candidate: made from it.
        rewritten: the policy as tracks may have rewritten it (:func:`quant.tracks.ptq.rewritings`). Weights
            far from the policy's, as of second-order rounding, tell their factors only roughly; these are exact. Where
            units are in two, the layers are those of the one among them that has as many.

    Raises:
        InputError: a file is damaged, or its layers are not the policy's one for one.
    """
    encoder = read_model(candidate.peer_encoder.tflite, "peer_encoder")
    head = read_model(candidate.policy_head.tflite, "policy_head")
    inputs = candidate.peer_input, candidate.ego_input
    form = _as_wide(policy, rewritten, (*_sizes(encoder), *_sizes(head)))
    policy, equalized = form.policy, [one.policy for one in rewritten if _outputs(one) == _outputs(form)]
    chain = [
        *_layers(encoder, policy.encoder, inputs[0], f"{candidate.track}: peer_encoder"),
        *_layers(head, policy.head, inputs[1], f"{candidate.track}: policy_head"),
    ]
    _check_sizes(policy, candidate)
    folds = _folds(policy, candidate, encoder.input, head.input)
    features = {0: inputs[0], len(policy.encoder): inputs[1]}
    known = [_known(fc(ops), *fold, features.get(i)) for i, (ops, fold) in enumerate(zip(chain, folds, strict=True))]
    factors = _snapped(policy, find_factors(policy, known), equalized)
    made = [_stage(form, index, ops, factors, known[index]) for index, ops in enumerate(chain)]
    # A maximum of codes is a code; a sum or a mean has to be rounded to one.
    shared = candidate.pooling == "max" and encoder.output.same_quantization(head.input)
    before = [Place(PEER_INPUT, "peer_encoder", "input", None)]
    between = [] if shared else [Place(Z, "policy_head", "activations", None)]
    between.append(Place(EGO_INPUT, "policy_head", "input", None))
    split = len(policy.encoder)
    groups = (before, *(places for _, places in made[:split]), between, *(places for _, places in made[split:]))
    return Network(
        tuple(place for places in groups for place in places),
        Grid.of_features(candidate.peer_input),
        Grid.of_features(candidate.ego_input),
        tuple(stage for stage, _ in made[:split]),
        tuple(stage for stage, _ in made[split:]),
        None if shared else Grid.of_tensor(head.input),
        Pool.build(candidate.pooling, encoder.output, head.input, candidate.max_peers),
        float(encoder.output.scale),
        float(head.output.scale),
        candidate.pooling,
    )


def _sizes(model: Model) -> list[int]:
    """How many outputs each dense operator has."""
    return [len(operator.weight) for operator in model.layers if isinstance(operator, FullyConnected)]


def _outputs(form: Rewritten) -> list[int]:
    return [layer.outputs for layer in (*form.policy.encoder, *form.policy.head)]


def _as_wide(policy: Policy, rewritten: Sequence[Rewritten], outputs: Sequence[int]) -> Rewritten:
    """The policy, or the way to write it that has layers of these sizes, where there is one."""
    plain = Rewritten.scaled(policy)
    return next((one for one in (plain, *rewritten) if _outputs(one) == list(outputs)), plain)


def fc(operators: tuple[Layer, ...]) -> FullyConnected:
    """The dense operator a layer begins with."""
    first = operators[0]
    assert isinstance(first, FullyConnected)
    return first


def _layers(model: Model, layers: tuple[Dense, ...], features: Affine, where: str) -> list[tuple[Layer, ...]]:
    """The operators each layer of the policy became: a FULLY_CONNECTED and what follows it."""
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
    expected[0] = (layers[0].outputs, layers[0].inputs + features.size - len(features.gain))
    if sizes != expected:
        raise InputError(
            f"its layers have weights {sizes}",
            where=where,
            expected=f"the policy's, {expected}",
            hint="a candidate can be explained where its layers are the policy's, or those of a way to rewrite it",
        )
    return [tuple(group) for group in groups]


def _check_sizes(policy: Policy, candidate: Candidate) -> None:
    sizes = (len(candidate.peer_input.gain), len(candidate.ego_input.gain))
    if sizes != (policy.peer_size, policy.ego_size):
        expected = f"{policy.peer_size} of a peer and {policy.ego_size} of the ego"
        raise InputError(f"takes {sizes} features", where=candidate.track, expected=expected)


def _folds(policy: Policy, candidate: Candidate, peers: Quantized, head: Quantized) -> list[tuple[F64, F64]]:
    """Stretch and shift of each layer's inputs: what its input tensor holds is value * stretch + shift."""
    folds = [(np.ones(layer.inputs), np.zeros(layer.inputs)) for layer in (*policy.encoder, *policy.head)]
    folds[0] = _unfolded(candidate.peer_input, peers)
    for whole, ego in zip(folds[len(policy.encoder)], _unfolded(candidate.ego_input, head), strict=True):
        whole[policy.embedding_size :] = ego
    return folds


def _unfolded(affine: Affine, tensor: Quantized) -> tuple[F64, F64]:
    """Stretch and shift of each feature."""
    scale = float(tensor.scale)
    return affine.gain * np.float64(scale), (affine.offset - np.float64(tensor.zero_point)) * scale


@dataclass(frozen=True, eq=False)
class Known:
    """What a file says of a layer, for unfolded features.

    Attributes:
        layer: the operator.
        linear: its weights and biases.
        step: (M, K) what a step of each weight is worth.
        bias_step: (M,) or (1,) what a step of each bias is worth.
        origin: (K,) the inputs that the file's integers take for zero: there a layer is its bias.
    """

    layer: FullyConnected
    linear: Linear
    step: F64
    bias_step: F64
    origin: F64


def _known(layer: FullyConnected, stretch: F64, shift: F64, features: Affine | None) -> Known:
    """The file's layer for features as the policy takes them."""
    scale = layer.weight_scale.astype(np.float64)
    bias_step = scale * float(layer.input.scale)
    whole = layer.weight * scale[:, None]
    weight, fine = whole[:, : len(stretch)], whole[:, len(stretch) :]
    linear = Linear(weight * stretch, layer.bias * bias_step + weight @ shift)
    if features is not None and features.residual:
        step = float(layer.input.scale)
        rest = Rest(features, (fine * features.residual - weight[:, -fine.shape[1] :]) * step)
        linear = Linear(linear.weight, linear.bias - fine.sum(axis=1) * layer.input.zero_point * step, rest)
    return Known(layer, linear, np.broadcast_to(scale[:, None] * stretch, weight.shape), bias_step, -shift / stretch)


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

    # From the rows alone to begin with: from ones the passes can end where two layers share a wrong factor.
    for i in free:
        guess, weigh = predicted(i), known[i].step ** -2
        share = _ratio((weigh * known[i].linear.weight * guess).sum(axis=1), (weigh * guess**2).sum(axis=1))
        factors[i] = 1 / np.where(share > 0, share, 1.0)
    for i in free * FACTOR_PASSES:
        one, after, units = known[i], known[i + 1], len(factors[i])
        own, bias = predicted(i), starts[i] / factors[i]
        slope, curve = _normal(own, one.linear.weight - own, one.step, axis=1)
        more = _normal(bias[:, None], (one.linear(one.origin) - bias)[:, None], one.bias_step[:, None], axis=1)
        slope, curve = -(slope + more[0]), curve + more[1]
        columns = predicted(i + 1)[:, :units]
        more = _normal(columns, after.linear.weight[:, :units] - columns, after.step[:, :units], axis=0)
        change = _ratio(slope + more[0], curve + more[1])
        factors[i] = factors[i] * np.clip(1 + change, 0.5, 2.0)
    return factors


def _snapped(policy: Policy, found: list[F64], equalized: Sequence[Policy]) -> list[F64]:
    """The factors of the equalization nearest to those found; these, where none is near."""
    free = [i for i, layer in enumerate((*policy.encoder, *policy.head)[:-1]) if layer.activation in HOMOGENEOUS]
    if not free or not equalized:
        return found

    def distance(those: list[F64]) -> float:
        return float(np.median(np.abs(np.log(np.concatenate([found[i] / those[i] for i in free])))))

    nearest = min((_factors_of(policy, one) for one in equalized), key=distance)
    return nearest if distance(nearest) <= SNAP else found


def _factors_of(policy: Policy, equalized: Policy) -> list[F64]:
    """By what the units of each layer were divided; ones where they were not."""
    factors: list[F64] = []
    into = np.ones(policy.peer_size)
    for own, other in zip((*policy.encoder, *policy.head), (*equalized.encoder, *equalized.head), strict=True):
        into = np.concatenate([into, np.ones(own.inputs - len(into))])
        whole, divided = (np.abs(weight).sum(axis=1) for weight in (own.weight * into, other.weight.astype(np.float64)))
        into = np.where(_ratio(whole, divided) > 0, _ratio(whole, divided), 1.0)
        into = into if own.activation in HOMOGENEOUS and own is not policy.head[-1] else np.ones(own.outputs)
        factors.append(into)
    return factors


def _normal(predicted: F64, miss: F64, step: F64, axis: int) -> tuple[F64, F64]:
    """Right and left side of the normal equations of a relative change of the predicted numbers."""
    weigh = 1 / (_variance(miss, step) * step**2)
    return (weigh * predicted * miss).sum(axis=axis), (weigh * predicted**2).sum(axis=axis)


def _ratio(over: F64, under: F64) -> F64:
    return np.divide(over, under, out=np.zeros_like(over), where=under > 0)


def _variance(miss: F64, step: F64) -> float:
    return max(float(np.mean((miss / step) ** 2)), ROUNDING_VARIANCE)


def _exact(policy: Policy, index: int, factors: list[F64]) -> Linear:
    """A layer of the policy with its units divided, and its columns multiplied, by the factors."""
    dense = [*policy.encoder, *policy.head][index]
    into = factors[index - 1] if index else np.ones(policy.peer_size)
    into = np.concatenate([into, np.ones(dense.inputs - len(into))])
    own = factors[index]
    return Linear(dense.weight * into / own[:, None], dense.bias / own)


def _stage(
    form: Rewritten, index: int, operators: tuple[Layer, ...], factors: list[F64], known: Known
) -> tuple[Stage, list[Place]]:
    """A layer with the names of its sources; the last tensor of a sub-model is an interface and is named so."""
    policy, halves = form.policy, form.halves[index]
    most = None if halves is None else _ends([*policy.encoder, *policy.head][index].outputs, halves)
    encoder = index < len(policy.encoder)
    part: Part = "peer_encoder" if encoder else "policy_head"
    own = index if encoder else index - len(policy.encoder)
    last = own == len(policy.encoder if encoder else policy.head) - 1
    layer = f"{'encoder' if encoder else 'head'} {own}"
    places = [Place(f"{layer} weights", part, "weights", own)]
    chain: list[tuple[str, Quantized]] = [(known.layer.activation, known.layer.output)]
    chain += [(op.operator, op.output) for op in operators[1:] if op.operator != "RESHAPE"]
    tensors = []
    for at, (function, tensor) in enumerate(chain):
        final = at == len(chain) - 1
        if not final:
            name = f"{layer} before {chain[at + 1][0].lower()}"
        elif last:
            name = EMBEDDING if encoder else OUTPUT
        else:
            name = f"{layer} activations"
        places.append(Place(name, part, "output" if final and last else "activations", own))
        tensors.append(Tensor(function, name, Grid.of_tensor(tensor), most))
    return Stage(places[0].name, _exact(policy, index, factors), known, tuple(tensors)), places


def _ends(units: int, halves: NDArray[np.int64]) -> F64:
    """(M,) where the units of a layer in two end."""
    most = np.full(units, np.inf)
    most[halves] = END
    return most
