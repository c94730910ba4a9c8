"""Imports TensorFlow's models: what `quant.policy.saved_model` and `quant.policy.keras_import` open.

A model is frozen to a graph of constants, the policy is read off that graph (`quant.policy.graph`), and then proven:
the original is run on random observations with 0 to P peers and has to give what the imported policy gives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from quant.errors import InputError
from quant.files import sha256
from quant.observation.observations import EGO, F32, PEER_MASK, PEERS, Observations
from quant.policy.archive import read_checkpoint
from quant.policy.assembly import DEFAULT_MAX_PEERS, Given, assemble, probe, settle
from quant.policy.frozen import Frozen
from quant.policy.graph import Output
from quant.policy.keras_import import load_keras
from quant.policy.policy import ActionSpace, Activation, Box, Dense, Discrete, Fact, Policy, Pooling
from quant.policy.saved_model import DESCRIPTION, folder_digest, load_saved_model
from quant.policy.storage import described_policy, read_description

FAITHFUL = 1e-5
"""Largest difference between original and import, for values up to 1; relative to the largest value above."""


@dataclass(frozen=True)
class _Source:
    model: Frozen
    kind: str
    digest: str


def load_tensorflow(path: Path, head: Path | None, given: Given) -> Policy:
    """Imports a SavedModel folder or a Keras file: one model, or the encoder and the head.

    Raises:
        InputError: it is damaged, not a Deep Sets policy, or the import does not compute what the original does.
    """
    source = _open(path)
    if head is not None:
        return _two_models(source, _open(head), given)
    description = path / DESCRIPTION if path.is_dir() else None
    if description is not None and description.is_file():
        stated = read_description(read_checkpoint(description), str(description))
        return _exported(source, stated, given, str(description))
    return _one_model(source, given)


def _open(path: Path) -> _Source:
    if path.is_dir():
        return _Source(load_saved_model(path), "saved-model", folder_digest(path))
    content = read_checkpoint(path)
    return _Source(load_keras(path, content), "keras", sha256(content))


def _one_model(source: _Source, given: Given) -> Policy:
    model = source.model
    where = model.where
    model = replace(model, inputs=_named_inputs(model))
    found = model.reader.read_policy(model.output)
    slots = model.inputs[PEERS].shape[1]
    peers_fact = settle("max_peers", given.max_peers, slots, "read", "shape of the input peers", where=where)
    max_peers = slots or given.max_peers or DEFAULT_MAX_PEERS
    space, space_fact = _action_space(found.head, found.output, given, where)
    candidates = [Policy(found.encoder, found.head, pooling, space, max_peers) for pooling in found.poolings]
    policy = _prove(candidates, model, found.output, where)
    settle("pooling", given.pooling, policy.pooling, "read", "the graph", where=where)
    facts = (
        *_layer_facts(policy, given, where),
        Fact("pooling", policy.pooling, "read", f"the graph's {found.reduction}; confirmed by running the original"),
        Fact("head_input", found.order, "read", "the graph"),
        peers_fact or Fact("max_peers", str(max_peers), "assumed", "the input peers has no fixed number of slots"),
        space_fact,
        _proven(source),
    )
    return _finish(policy, source.kind, source.digest, facts, where)


def _two_models(encoder: _Source, head: _Source, given: Given) -> Policy:
    where = f"{encoder.model.where} and {head.model.where}"
    phi, phi_output = encoder.model.reader.read_chain(encoder.model.output)
    layers, output = head.model.reader.read_chain(head.model.output)
    if phi_output != Output():
        raise InputError(
            "the encoder's output is clipped or a softmax", where=encoder.model.where, expected="embeddings"
        )
    layers, order = _head_of_inputs(head.model, layers, phi[-1].outputs)
    space, space_fact = _action_space(layers, output, given, where)
    shape = next(iter(encoder.model.inputs.values())).shape
    slots = shape[1] if len(shape) == 3 else None
    source = f"shape of the input of {encoder.model.where}"
    peers_fact = settle("max_peers", given.max_peers, slots, "read", source, where=where)
    max_peers = slots or given.max_peers or DEFAULT_MAX_PEERS
    pooling: Pooling = given.pooling or "max"
    policy = Policy(phi, layers, pooling, space, max_peers)
    policy = assemble(policy, where)
    _prove_parts(policy, encoder.model, head.model, output, order)
    facts = (
        *_layer_facts(policy, given, where),
        Fact("pooling", pooling, "given", "the caller")
        if given.pooling
        else Fact("pooling", pooling, "assumed", "two sub-models do not say how they are joined"),
        Fact("head_input", "[z, ego]", *(("read", "the graph") if len(order) == 2 else ("assumed", "the convention"))),
        peers_fact or Fact("max_peers", str(DEFAULT_MAX_PEERS), "assumed", "two sub-models do not say"),
        space_fact,
        _proven(encoder),
    )
    return _finish(policy, encoder.kind, sha256(f"{encoder.digest} {head.digest}".encode()), facts, where)


def _exported(source: _Source, description: dict[str, Any], given: Given, where: str) -> Policy:
    """A SavedModel that `export_saved_model` wrote: what the original file left open stays open."""
    model = replace(source.model, inputs=_named_inputs(source.model))
    found = model.reader.read_policy(model.output)
    policy = assemble(described_policy(found.encoder, found.head, description, given, where), where)
    return _prove([policy], model, found.output, model.where)


def _finish(policy: Policy, kind: str, digest: str, facts: tuple[Fact, ...], where: str) -> Policy:
    return assemble(replace(policy, facts=facts, origin=f"{kind} sha256:{digest}"), where)


def _proven(source: _Source) -> Fact:
    return Fact("faithful", f"within {FAITHFUL:g}", "read", f"{source.kind}: original and import run on random input")


def _layer_facts(policy: Policy, given: Given, where: str) -> list[Fact]:
    facts = []
    for part, layers in (("encoder", policy.encoder), ("head", policy.head)):
        widths = " - ".join(str(width) for width in (layers[0].inputs, *(layer.outputs for layer in layers)))
        kinds = ", ".join(layer.activation for layer in layers)
        facts += [Fact(part, widths, "read", "the graph"), Fact(f"{part}_activation", kinds, "read", "the graph")]
    first: Activation = policy.encoder[0].activation
    settle("encoder_activation", given.encoder_activation, first, "read", "the graph", where=where)
    return facts


def _action_space(head: tuple[Dense, ...], output: Output, given: Given, where: str) -> tuple[ActionSpace, Fact]:
    """What the file says of the actions (bounds it clips to, the range of a last activation), or the caller."""
    width = head[-1].outputs
    known, source = _bounds(head, output, width)
    fact = settle("action_space", given.action_space, known, "read", source, where=where)
    space = known or given.action_space
    if space is not None and fact is not None:
        return space, fact
    if width == 1:
        raise InputError(
            "the head gives one value, and the file does not say within which bounds",
            where=where,
            expected="an action space",
            hint="give the action space with its bounds, a Box",
        )
    return Discrete(width), Fact("action_space", str(Discrete(width)), "assumed", f"the head gives {width} values")


def _bounds(head: tuple[Dense, ...], output: Output, width: int) -> tuple[ActionSpace | None, str]:
    if output.softmax:
        return Discrete(width), "the graph ends in a softmax (left out: it keeps the order)"
    if output.low is not None and output.high is not None:
        low, high = (np.broadcast_to(np.array(bound), (width,)).tolist() for bound in (output.low, output.high))
        return Box(tuple(low), tuple(high)), "the graph clips its output"
    ranges: dict[str, tuple[float, float]] = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}
    if head[-1].activation in ranges:
        lower, upper = ranges[head[-1].activation]
        return Box((lower,) * width, (upper,) * width), f"the graph ends in {head[-1].activation}"
    return None, ""


def _named_inputs(model: Frozen) -> dict[str, Any]:
    """Tells ego, peers and peer_mask apart, by name or, for the peers, by rank."""
    named: dict[str, Any] = {}
    for name, tensor in model.inputs.items():
        lower = name.lower()
        if "mask" in lower:
            key = PEER_MASK
        elif EGO in lower:
            key = EGO
        elif len(tensor.shape) == 3:
            key = PEERS
        else:
            key = name
        named[key] = tensor
    shapes = {key: tuple(tensor.shape) for key, tensor in named.items()}
    ranks = {key: len(shape) for key, shape in shapes.items()}
    if ranks != {EGO: 2, PEERS: 3, PEER_MASK: 2}:
        listed = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in model.inputs.items())
        raise InputError(
            f"has the inputs {listed or 'none'}",
            where=model.where,
            expected="ego (N, E), peers (N, P, F) and peer_mask (N, P), or two sub-models",
            hint="give the encoder as the path and the policy head as head where they are two models",
        )
    if shapes[PEERS][2] is None or shapes[EGO][1] is None:
        raise InputError(f"its inputs have no fixed sizes: {shapes}", where=model.where, expected="fixed E and F")
    return named


def _head_of_inputs(
    model: Frozen, layers: tuple[Dense, ...], embedding: int
) -> tuple[tuple[Dense, ...], tuple[str, ...]]:
    """The head's layers for [z, ego], and the names of the model's inputs in that order."""
    order = model.reader.joined(model.output)
    if len(order) == 1:
        return layers, order
    widths = {name: model.inputs[name].shape[1] for name in order}
    if len(order) != 2 or sum(EGO in name.lower() for name in order) != 1:
        raise InputError(f"has the inputs {widths}", where=model.where, expected="[z, ego], or z and ego")
    if EGO in order[1].lower():
        return layers, order
    ego = widths[order[0]]
    weight = np.concatenate([layers[0].weight[:, ego:], layers[0].weight[:, :ego]], axis=1)
    first = Dense(np.ascontiguousarray(weight), layers[0].bias, layers[0].activation)
    return (first, *layers[1:]), (order[1], order[0])


def _prove(candidates: list[Policy], model: Frozen, output: Output, where: str) -> Policy:
    """The candidate that computes what the original does."""
    candidates = [assemble(policy, where) for policy in candidates]
    shapes = candidates[0]
    observations = probe(shapes.ego_size, shapes.max_peers, shapes.peer_size)
    original = model.run({EGO: observations.ego, PEERS: observations.peers, PEER_MASK: observations.mask})
    worst = []
    for policy in candidates:
        error = _difference(output(policy.forward(observations).values), original, where)
        if error.max() <= FAITHFUL:
            return policy
        worst.append((policy.pooling, error))
    pooling, error = min(worst, key=lambda item: float(item[1].max()))
    raise _unfaithful(where, float(error.max()), f"read as {pooling} pooling; {_at(error, observations)}")


def _prove_parts(policy: Policy, encoder: Frozen, head: Frozen, output: Output, order: tuple[str, ...]) -> None:
    generator = np.random.default_rng(0)
    peers = probe(1, policy.max_peers, policy.peer_size).peers
    (name,) = encoder.inputs
    flat = peers.reshape(-1, policy.peer_size)
    embeddings = encoder.run({name: peers if len(encoder.inputs[name].shape) == 3 else flat})
    mine = policy.encode(flat)
    error = _difference(mine, embeddings.reshape(mine.shape), encoder.where)
    if error.max() > FAITHFUL:
        raise _unfaithful(encoder.where, float(error.max()), "the peer encoder")
    joined = (generator.normal(size=(256, policy.head[0].inputs)) * 2).astype(np.float32)
    parts = [joined] if len(order) == 1 else np.split(joined, [policy.embedding_size], axis=1)
    values = head.run(dict(zip(order, parts, strict=True)))
    error = _difference(output(policy.run_head(joined)), values, head.where)
    if error.max() > FAITHFUL:
        raise _unfaithful(head.where, float(error.max()), "the policy head")


def _difference(mine: F32, original: F32, where: str) -> F32:
    """(N,) largest difference in each row, relative to the largest value if above 1; NaN counts as infinite."""
    if mine.shape != original.shape:
        raise InputError(f"gives {original.shape}, the import {mine.shape}", where=where, expected="the same shape")
    with np.errstate(invalid="ignore"):
        finite = original[np.isfinite(original)]
        scale = max(1.0, float(np.abs(finite).max(initial=0.0)))
        return np.asarray(np.nan_to_num(np.abs(mine - original), nan=np.inf).max(axis=1) / scale, np.float32)


def _at(error: F32, observations: Observations) -> str:
    counts = sorted(set(observations.counts[error > FAITHFUL].tolist()))
    return f"it differs with {', '.join(map(str, counts))} peers"


def _unfaithful(where: str, error: float, detail: str) -> InputError:
    return InputError(
        f"the import is not faithful: it differs from the original by {error:.3g} ({detail})",
        where=where,
        expected=f"at most {FAITHFUL:g} on random observations",
        hint="the model does something the importer does not know: check masking, pooling, the empty set and slicing",
    )
