"""Reads a Stable-Baselines3 PPO or A2C checkpoint without Stable-Baselines3, without PyTorch, and without running it.

The zip holds ``policy.pth`` (weights and module names) and ``data`` (JSON). Beside every pickled value of ``data``
stands its text; only that text is read, the pickles (``:serialized:``) never. What the extractor's ``forward`` does is
Python code that is not in the file: whatever rests on a convention is a `Fact` that says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quant.errors import InputError
from quant.files import sha256
from quant.policy.archive import Archive, open_archive
from quant.policy.assembly import MAX_PARAMETERS, POOLINGS, Given, assemble, settle
from quant.policy.policy import ActionSpace, Activation, Box, Dense, Fact, Policy, Pooling
from quant.policy.spaces import ObservationSizes, action_space_of, observation_sizes
from quant.policy.torch_state import StateDict, read_state_dict

WEIGHTS, DATA, VERSION = "policy.pth", "data", "_stable_baselines3_version"
MAX_DATA = 16 << 20
EXTRACTORS = ("pi_features_extractor.", "features_extractor.")
"""Where the policy's features come from: the first that exists. They are one where actor and critic share it."""
SHARED, ACTOR, ACTION = "mlp_extractor.shared_net.", "mlp_extractor.policy_net.", "action_net."
_CRITIC = ("value_net.", "mlp_extractor.value_net.", "vf_features_extractor.")
_EXPLORATION = ("log_std",)

ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu",
    "relu6": "relu6",
    "tanh": "tanh",
    "elu": "elu",
    "sigmoid": "sigmoid",
    "identity": "linear",
    "linear": "linear",
}
"""PyTorch's names, lower case."""
_ACTIVATION_KEYS = ("activation", "activation_fn", "act", "act_fn", "nonlinearity")
_POOLING_KEYS = ("pooling", "pool", "aggregation", "aggr", "agg", "reduce", "reduction")
_POOLING_NAMES: dict[str, Pooling] = {
    **{name: name for name in POOLINGS},
    "average": "mean",
    "avg": "mean",
    "add": "sum",
}


@dataclass(frozen=True)
class _Linears:
    """A ``torch.nn.Sequential`` of Linears: their indexes, and how many modules it has (None: not in the file)."""

    prefix: str
    indexes: tuple[int, ...]
    modules: int | None

    def follows(self, position: int) -> bool | None:
        """Whether a module without parameters follows the Linear ``indexes[position]``; None: not in the file."""
        if position + 1 < len(self.indexes):
            return self.indexes[position + 1] > self.indexes[position] + 1
        return None if self.modules is None else self.modules > self.indexes[-1] + 1


def is_sb3(content: bytes, where: str) -> bool:
    """Whether a zip looks like a Stable-Baselines3 checkpoint."""
    members = open_archive(content, where).members
    return WEIGHTS in members or (DATA in members and VERSION in members)


def load_sb3(content: bytes, where: str, given: Given) -> Policy:
    """Imports a PPO or A2C checkpoint.

    Args:
        content: the zip.
        where: what errors call it.
        given: what the caller says.

    Raises:
        InputError: it is damaged, hostile, of another algorithm, or of an architecture that is not a Deep Sets policy.
    """
    archive = open_archive(content, where)
    data = _read_data(archive)
    state = read_state_dict(archive.read(WEIGHTS), f"{where}!{WEIGHTS}")
    _check_algorithm(state, where)
    extractor = next((prefix for prefix in EXTRACTORS if _under(state, prefix)), None)
    if extractor is None:
        raise InputError(
            "has no peer encoder",
            where=f"{where}!{WEIGHTS}",
            expected=f"weights under {EXTRACTORS[0]}peer_encoder or {EXTRACTORS[1]}peer_encoder",
            hint="the features extractor must be a Deep Sets extractor; a flattened observation has no peers",
        )
    _check_other_keys(state, extractor, where)
    kwargs = _policy_kwargs(data)
    sizes = _sizes(data, where)
    sequence = _encoder_sequence(state, extractor, where)
    encoder, encoder_facts = _encoder(state, sequence, kwargs, given, where)
    head, head_facts = _head(state, kwargs, where)
    space, space_fact = _action_space(data, given, where)
    if _squashes(kwargs) and isinstance(space, Box):
        head = _unsquash(head, space)
        head_facts.append(Fact("squash_output", "tanh, scaled to the bounds", "stated", f"{DATA}: policy_kwargs"))
    pooling, pooling_fact = _pooling(kwargs, given, where)
    source = f"{DATA}: observation_space"
    peers_fact = settle("max_peers", given.max_peers, sizes.max_peers, "stated", source, where=where)
    _check_sizes(encoder, head, sizes, where)
    facts = [
        *_origin_facts(archive, data),
        *([] if peers_fact is None else [peers_fact]),
        *encoder_facts,
        pooling_fact,
        Fact("head_input", "[z, ego]", "assumed", "the convention; the extractor's code is not in the file"),
        Fact("empty_set", "z = 0", "assumed", "the convention; the extractor's code is not in the file"),
        *_parameterless(state, extractor, sequence),
        *head_facts,
        space_fact,
        *_normalization(data),
    ]
    policy = Policy(
        encoder=encoder,
        head=head,
        pooling=pooling,
        action_space=space,
        max_peers=sizes.max_peers,
        facts=tuple(facts),
        origin=f"stable-baselines3 sha256:{sha256(content)}",
        bounds=sizes.bounds,
    )
    return assemble(policy, where)


def _read_data(archive: Archive) -> Mapping[str, Any]:
    where = f"{archive.where}!{DATA}"
    if WEIGHTS not in archive.members or DATA not in archive.members:
        missing = WEIGHTS if WEIGHTS not in archive.members else DATA
        raise InputError(
            f"has no member {missing}",
            where=archive.where,
            expected=f"a Stable-Baselines3 checkpoint with {DATA} and {WEIGHTS}",
            hint="give the zip that model.save() wrote, whole",
        )
    if archive.members[DATA].file_size > MAX_DATA:
        raise InputError(f"is {archive.members[DATA].file_size} bytes", where=where, expected=f"at most {MAX_DATA}")
    try:
        data = json.loads(archive.read(DATA))
    except (ValueError, RecursionError) as error:
        raise InputError("is not valid JSON", where=where, expected="a JSON object", hint=str(error)[:200]) from error
    if not isinstance(data, dict):
        raise InputError("is not a JSON object", where=where, expected="the fields of a model")
    return data


def _check_algorithm(state: StateDict, where: str) -> None:
    if f"{ACTION}weight" in state.specs:
        return
    first = ", ".join(list(state.specs)[:3])
    raise InputError(
        f"has no {ACTION}weight; its keys begin with {first[:200]}",
        where=f"{where}!{WEIGHTS}",
        expected="the checkpoint of an actor-critic policy (PPO or A2C)",
        hint="DQN, SAC, TD3 and others name and build their networks differently and are not supported",
    )


def _under(state: StateDict, prefix: str) -> list[str]:
    return [name for name in state.specs if name.startswith(prefix)]


def _check_other_keys(state: StateDict, extractor: str, where: str) -> None:
    known = (*EXTRACTORS, SHARED, ACTOR, ACTION, *_CRITIC, *_EXPLORATION)
    for name in state.specs:
        if not name.startswith(known):
            raise _unsupported(state, name, where)


def _unsupported(state: StateDict, name: str, where: str) -> InputError:
    module, _, leaf = name.rpartition(".")
    rank = len(state.specs[name].shape)
    if leaf in ("running_mean", "running_var", "num_batches_tracked") or f"{module}.running_mean" in state.specs:
        kind = "a BatchNorm layer"
    elif "in_proj" in leaf or "attn" in name or "attention" in name:
        kind = "an attention layer"
    elif "lstm" in name or re.search(r"_[ih]h_l\d", leaf):
        kind = "a recurrent layer"
    elif rank > 2:
        kind = "a convolution"
    elif rank == 1 and f"{module}.weight" in state.specs and len(state.specs[f"{module}.weight"].shape) == 1:
        kind = "a normalization layer"
    else:
        kind = "a layer outside the peer encoder and the head"
    return InputError(
        f"unsupported layer {module or name}: {kind}",
        where=f"{where}!{WEIGHTS}!{name}",
        expected="one Sequential of Linear layers as peer encoder, and Stable-Baselines3's own head",
        hint="train with a Deep Sets extractor of Linear layers and activations without parameters",
    )


def _encoder_sequence(state: StateDict, extractor: str, where: str) -> _Linears:
    """The one Sequential of Linears inside the extractor."""
    prefixes: dict[str, None] = {}
    for name in _under(state, extractor):
        found = re.fullmatch(r"(.+\.)(\d{1,4})\.(weight|bias)", name)
        if found is None or (found[3] == "weight" and len(state.specs[name].shape) != 2):
            raise _unsupported(state, name, where)
        prefixes[found[1]] = None
    if len(prefixes) > 1:
        named = [prefix for prefix in prefixes if prefix != f"{extractor}peer_encoder."]
        raise _unsupported(state, next(name for name in state.specs if name.startswith(named[0])), where)
    return _linears(state, next(iter(prefixes)), where)


def _linears(state: StateDict, prefix: str, where: str) -> _Linears:
    """The Linear layers of a Sequential, which has nothing else with parameters."""
    indexes = set()
    for name in _under(state, prefix):
        found = re.fullmatch(r"(\d{1,4})\.(weight|bias)", name.removeprefix(prefix))
        if found is None or len(state.specs[name].shape) != (2 if found[2] == "weight" else 1):
            raise _unsupported(state, name, where)
        if f"{prefix}{found[1]}.weight" not in state.specs or len(state.specs[f"{prefix}{found[1]}.weight"].shape) != 2:
            raise _unsupported(state, name, where)
        indexes.add(int(found[1]))
    modules = [
        int(name)
        for name in (module.removeprefix(prefix) for module in state.modules if module.startswith(prefix))
        if re.fullmatch(r"\d{1,4}", name)
    ]
    return _Linears(prefix, tuple(sorted(indexes)), max(modules) + 1 if modules else None)


def _dense(state: StateDict, prefix: str, activation: Activation) -> Dense:
    spec = state.specs[f"{prefix}weight"]
    if len(spec.shape) != 2 or min(spec.shape) < 1 or spec.shape[0] * spec.shape[1] > MAX_PARAMETERS:
        raise InputError(
            f"a weight of shape {spec.shape}", where=f"{WEIGHTS}!{prefix}weight", expected="(outputs, inputs)"
        )
    weight = state.array(f"{prefix}weight")
    bias = state.array(f"{prefix}bias") if f"{prefix}bias" in state.specs else np.zeros(len(weight), np.float32)
    return Dense(weight, bias, activation)


def _encoder(
    state: StateDict, sequence: _Linears, kwargs: Mapping[str, Any], given: Given, where: str
) -> tuple[tuple[Dense, ...], list[Fact]]:
    stated = _kwarg(kwargs.get("features_extractor_kwargs"), _ACTIVATION_KEYS)
    known = None if stated is None else _activation(stated[1], where)
    name, source = "encoder_activation", f"{DATA}: features_extractor_kwargs.{stated and stated[0]}"
    fact = settle(name, given.encoder_activation, known, "stated", source, where=where)
    kind: Activation = known or given.encoder_activation or "relu"
    if fact is None:
        fact = Fact(name, kind, "assumed", "the file names the modules between the Linears, not their kind")
    layers = []
    for position, index in enumerate(sequence.indexes):
        follows = sequence.follows(position) is not False
        layers.append(_dense(state, f"{sequence.prefix}{index}.", kind if follows else "linear"))
    last = sequence.follows(len(sequence.indexes) - 1)
    label = sequence.prefix.rstrip(".")
    widths = " - ".join(str(width) for width in (layers[0].inputs, *(layer.outputs for layer in layers)))
    facts = [
        Fact("encoder", widths, "read", f"{WEIGHTS}: {label}"),
        fact,
        Fact(
            "encoder_last_activation",
            "linear" if last is False else kind,
            "assumed" if last is None else "read",
            f"{WEIGHTS}: " + ("the file lists no modules" if last is None else f"the modules of {label}"),
        ),
    ]
    if not label.endswith(".peer_encoder"):
        facts.append(Fact("encoder_name", label, "assumed", "the only Sequential of Linears in the features extractor"))
    return tuple(layers), facts


def _head(state: StateDict, kwargs: Mapping[str, Any], where: str) -> tuple[tuple[Dense, ...], list[Fact]]:
    stated = kwargs.get("activation_fn")
    kind: Activation = "tanh" if stated is None else _activation(str(stated), where)
    layers, widths = [], []
    for prefix in (SHARED, ACTOR):
        sequence = _linears(state, prefix, where)
        for position, index in enumerate(sequence.indexes):
            activation: Activation = "linear" if sequence.follows(position) is False else kind
            layers.append(_dense(state, f"{prefix}{index}.", activation))
            widths.append(layers[-1].outputs)
    layers.append(_dense(state, ACTION, "linear"))
    _check_net_arch(kwargs.get("net_arch"), widths, where)
    known = isinstance(kwargs.get("net_arch"), list | dict)
    facts = [
        Fact("net_arch", str(widths), "read", f"{WEIGHTS}: {ACTOR}*" + (f", as {DATA} states" if known else "")),
        Fact("head_activation", kind, "assumed", "Stable-Baselines3's default, as policy_kwargs names none")
        if stated is None
        else Fact("head_activation", kind, "stated", f"{DATA}: policy_kwargs.activation_fn"),
    ]  # fmt: skip
    return tuple(layers), facts


def _check_net_arch(net_arch: Any, widths: list[int], where: str) -> None:
    stated = _actor_widths(net_arch)
    if stated is not None and stated != widths:
        raise InputError(
            f"net_arch says hidden layers {stated}, the weights have {widths}",
            where=f"{where}!{DATA}",
            expected="weights that belong to the description",
        )


def _actor_widths(net_arch: Any) -> list[int] | None:
    """[64, 64], {"pi": [...], "vf": [...]}, or, before release 1.8, [64, {"pi": [...]}]."""
    if isinstance(net_arch, dict):
        return _actor_widths(net_arch.get("pi", []))
    if not isinstance(net_arch, list):
        return None
    widths: list[int] = []
    for entry in net_arch:
        part = [entry] if isinstance(entry, int) else _actor_widths(entry) if isinstance(entry, dict) else None
        if part is None:
            return None
        widths += part
    return widths


def _policy_kwargs(data: Mapping[str, Any]) -> Mapping[str, Any]:
    kwargs = data.get("policy_kwargs")
    return kwargs if isinstance(kwargs, dict) else {}


def _kwarg(kwargs: Any, names: Iterable[str]) -> tuple[str, str] | None:
    """The first of ``names`` that keyword arguments (JSON, or a printed dict) give, with its value as text."""
    for name in names:
        if isinstance(kwargs, Mapping) and kwargs.get(name) is not None:
            return name, str(kwargs[name])
        found = re.search(rf"'{name}': (<class '[\w.]+'>|'[\w.]+')", kwargs) if isinstance(kwargs, str) else None
        if found is not None:
            return name, found[1]
    return None


def _activation(text: str, where: str) -> Activation:
    """``<class 'torch.nn.modules.activation.ReLU'>``, ``ReLU()`` or ``relu``."""
    found = re.search(r"(\w+)\W*$", re.sub(r"\(.*", "", text))
    name = found[1] if found else text
    if name.lower() not in ACTIVATIONS:
        raise InputError(
            f"unsupported layer: activation {name[:80]}",
            where=f"{where}!{DATA}",
            expected=f"one of {', '.join(ACTIVATIONS)}",
            hint="train with an activation TFLite-Micro has an int8 kernel for",
        )
    return ACTIVATIONS[name.lower()]


def _pooling(kwargs: Mapping[str, Any], given: Given, where: str) -> tuple[Pooling, Fact]:
    stated = _kwarg(kwargs.get("features_extractor_kwargs"), _POOLING_KEYS)
    known = None
    if stated is not None:
        known = _POOLING_NAMES.get(stated[1].strip("'").lower())
        if known is None:
            raise InputError(
                f"the extractor's {stated[0]} is {stated[1][:80]}",
                where=f"{where}!{DATA}",
                expected=", ".join(POOLINGS),
            )
    source = f"{DATA}: features_extractor_kwargs.{stated and stated[0]}"
    fact = settle("pooling", given.pooling, known, "stated", source, where=where)
    pooling = known or given.pooling
    if pooling is None or fact is None:
        return "max", Fact(
            "pooling", "max", "assumed", "the extractor's code is not in the file; give it if it is another"
        )
    return pooling, fact


def _action_space(data: Mapping[str, Any], given: Given, where: str) -> tuple[ActionSpace, Fact]:
    at = f"{where}!{DATA}"
    known = action_space_of(data.get("action_space"), at)
    fact = settle("action_space", given.action_space, known, "stated", f"{DATA}: action_space", where=at)
    space = known or given.action_space
    if space is None or fact is None:
        raise InputError(
            "the bounds of the action space are infinite, or abbreviated in the file's text",
            where=at,
            expected="a finite low and high for every component",
            hint="give the action space with its bounds",
        )
    return space, fact


def _squashes(kwargs: Mapping[str, Any]) -> bool:
    return kwargs.get("squash_output") is True


def _unsquash(head: tuple[Dense, ...], space: Box) -> tuple[Dense, ...]:
    """A squashed action is low + (tanh(y) + 1) / 2 * (high - low); Stable-Baselines3's ``unscale_action``."""
    low, high = np.array(space.low, np.float32), np.array(space.high, np.float32)
    half = (high - low) / np.float32(2)
    last = head[-1]
    return (*head[:-1], Dense(last.weight, last.bias, "tanh"), Dense(np.diag(half), low + half, "linear"))


def _sizes(data: Mapping[str, Any], where: str) -> ObservationSizes:
    if "observation_space" not in data:
        raise InputError("has no observation_space", where=f"{where}!{DATA}", expected="the fields of a model")
    return observation_sizes(data["observation_space"], f"{where}!{DATA}")


def _check_sizes(encoder: tuple[Dense, ...], head: tuple[Dense, ...], sizes: ObservationSizes, where: str) -> None:
    if encoder[0].inputs != sizes.peer:
        raise InputError(
            f"a peer has {sizes.peer} features, the encoder's weights take {encoder[0].inputs}",
            where=f"{where}!{WEIGHTS}",
            expected="weights that belong to the observation space",
        )
    ego = head[0].inputs - encoder[-1].outputs
    if ego != sizes.ego:
        raise InputError(
            f"the head takes {head[0].inputs} inputs: {encoder[-1].outputs} of the encoder and {ego} more, "
            f"but the ego has {sizes.ego} features",
            where=f"{where}!{WEIGHTS}",
            expected="the head's input is [z, ego]",
            hint="an extractor that adds other features to [z, ego] is not supported",
        )


def _origin_facts(archive: Archive, data: Mapping[str, Any]) -> Iterable[Fact]:
    if VERSION in archive.members and archive.members[VERSION].file_size < 64:
        version = archive.read(VERSION).decode(errors="replace").strip()
        yield Fact("stable_baselines3", version, "stated", VERSION)
    policy_class = data.get("policy_class")
    module = policy_class.get("__module__") if isinstance(policy_class, dict) else None
    if isinstance(module, str) and not module.startswith(("stable_baselines3.", "sb3_contrib.")):
        yield Fact(
            "policy_class", module, "assumed", "a class of the user's own; taken to compute as ActorCriticPolicy does"
        )


def _parameterless(state: StateDict, extractor: str, sequence: _Linears) -> Iterable[Fact]:
    """Modules of the extractor that are neither the encoder nor around it, and have no weights to show what they do."""
    for module in state.modules:
        inside = module.startswith(sequence.prefix) or f"{module}.".startswith(sequence.prefix)
        if module.startswith(extractor) and not inside and not sequence.prefix.startswith(f"{module}."):
            yield Fact("module", module, "assumed", "has no parameters; taken to be part of the pooling")


def _normalization(data: Mapping[str, Any]) -> Iterable[Fact]:
    """Stable-Baselines3 keeps ``_last_original_obs`` only where the environment is wrapped in VecNormalize."""
    if data.get("_last_original_obs") is not None:
        yield Fact(
            "observation_normalization",
            "none",
            "assumed",
            f"{DATA}: trained under VecNormalize, whose statistics are not in the file; "
            "if it normalized observations, give observations normalized alike",
        )
