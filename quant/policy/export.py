"""Exports a policy as a TF SavedModel, with equal bytes for equal policies."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from quant.errors import InputError
from quant.files import open_up, write_bytes
from quant.native import import_tensorflow
from quant.observation.observations import EGO, PEER_MASK, PEERS
from quant.policy.policy import Activation, Dense, Policy, Pooling
from quant.policy.saved_model import DESCRIPTION, GRAPH, SIGNATURE
from quant.policy.storage import describe


def export_saved_model(policy: Policy, folder: Path) -> None:
    """Exports a policy as a TF SavedModel, whole or not at all; equal policies give equal bytes.

    Signatures, all float32: ``serving_default(ego (N, E), peers (N, P, F), peer_mask (N, P)) -> values (N, A)``, before
    clipping; ``peer_encoder(peers (N, F)) -> embeddings (N, D)``; ``policy_head(head_inputs (N, D + E)) -> values
    (N, A)``. ``assets.extra/policy.json`` describes the policy.

    Args:
        policy: to export.
        folder: is replaced if it is a SavedModel.

    Raises:
        InputError: ``folder`` exists and is something else.
    """
    if folder.exists() and not (folder / GRAPH).is_file():
        raise InputError("exists and is not a SavedModel", where=folder, hint="choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        _write_saved_model(policy, temporary)
        open_up(temporary, 0o777)
        if folder.exists():
            old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
            folder.replace(old)
            temporary.replace(folder)
            shutil.rmtree(old)
        else:
            temporary.replace(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_saved_model(policy: Policy, folder: Path) -> None:
    tf = import_tensorflow()
    module = tf.Module()
    signatures = _signatures(policy, tf)
    tf.saved_model.save(module, str(folder), signatures=signatures)
    _make_reproducible(folder)
    content = json.dumps(describe(policy), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(folder / DESCRIPTION, content.encode())


def _signatures(policy: Policy, tf: Any) -> dict[str, Any]:
    def spec(name: str, *shape: int) -> Any:
        return tf.TensorSpec((None, *shape), tf.float32, name=name)

    def serve(ego: Any, peers: Any, peer_mask: Any) -> dict[str, Any]:
        flat = tf.reshape(peers, (-1, policy.peer_size))
        embeddings = tf.reshape(_layers(policy.encoder, flat, tf), (-1, policy.max_peers, policy.embedding_size))
        z = _pool(embeddings, peer_mask > 0.5, policy.pooling, tf)
        return {"values": _layers(policy.head, tf.concat([z, ego], axis=1), tf)}

    ego = spec(EGO, policy.ego_size)
    peers = spec(PEERS, policy.max_peers, policy.peer_size)
    mask = spec(PEER_MASK, policy.max_peers)
    functions = {
        SIGNATURE: (serve, (ego, peers, mask)),
        "peer_encoder": (
            lambda peers: {"embeddings": _layers(policy.encoder, peers, tf)},
            (spec(PEERS, policy.peer_size),),
        ),
        "policy_head": (
            lambda head_inputs: {"values": _layers(policy.head, head_inputs, tf)},
            (spec("head_inputs", policy.head[0].inputs),),
        ),
    }
    return {
        name: tf.function(function, autograph=False).get_concrete_function(*specs)
        for name, (function, specs) in functions.items()
    }


def _layers(layers: tuple[Dense, ...], x: Any, tf: Any) -> Any:
    activations: dict[Activation, Callable[[Any], Any]] = {
        "linear": lambda y: y,
        "relu": tf.nn.relu,
        "relu6": tf.nn.relu6,
        "tanh": tf.tanh,
        "elu": tf.nn.elu,
        "sigmoid": tf.sigmoid,
    }
    for layer in layers:
        y = tf.nn.bias_add(tf.matmul(x, tf.constant(layer.weight.T)), tf.constant(layer.bias))
        x = activations[layer.activation](y)
    return x


def _pool(embeddings: Any, mask: Any, pooling: Pooling, tf: Any) -> Any:
    """`quant.policy.policy.pool` in TensorFlow."""
    present = mask[:, :, None]
    if pooling == "max":
        z = tf.reduce_max(tf.where(present, embeddings, embeddings.dtype.min), axis=1)
        return tf.where(tf.reduce_any(mask, axis=1, keepdims=True), z, 0.0)
    total = tf.reduce_sum(tf.where(present, embeddings, 0.0), axis=1)
    if pooling == "sum":
        return total
    return total / tf.maximum(tf.reduce_sum(tf.cast(mask, tf.float32), axis=1, keepdims=True), 1.0)


def _make_reproducible(folder: Path) -> None:
    """Takes out what differs between two exports.

    TensorFlow numbers functions by a counter of the process, stores them in hash order, and signs a SavedModel with a
    random UUID (``fingerprint.pb``, which a SavedModel may lack).
    """
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel.FromString((folder / GRAPH).read_bytes())
    for meta_graph in model.meta_graphs:
        library = meta_graph.graph_def.library
        numbered = [name.rpartition("_") for name in sorted(function.signature.name for function in library.function)]
        numbered.sort(key=lambda parts: int(parts[2]))
        names = {f"{base}_{number}": f"{base}_{rank}" for rank, (base, _, number) in enumerate(numbered)}
        _rename(meta_graph, names)
        functions = sorted(library.function, key=lambda function: str(function.signature.name))
        del library.function[:]
        library.function.extend(functions)
    write_bytes(folder / GRAPH, model.SerializeToString(deterministic=True))
    (folder / "fingerprint.pb").unlink(missing_ok=True)


def _rename(message: Any, names: Mapping[str, str]) -> None:
    """Replaces every string of a protocol buffer message, keys of maps included, that is one of ``names``."""
    for descriptor, value in message.ListFields():
        entry = descriptor.message_type
        if entry is not None and entry.GetOptions().map_entry:
            _rename_map(value, entry.fields_by_name["value"], names)
        elif entry is not None:
            for part in value if descriptor.is_repeated else [value]:
                _rename(part, names)
        elif descriptor.type == descriptor.TYPE_STRING:
            if descriptor.is_repeated:
                value[:] = [names.get(text, text) for text in value]
            else:
                setattr(message, descriptor.name, names.get(value, value))


def _rename_map(entries: Any, descriptor: Any, names: Mapping[str, str]) -> None:
    for key in list(entries):
        if descriptor.message_type is not None:
            _rename(entries[key], names)
        elif descriptor.type == descriptor.TYPE_STRING:
            entries[key] = names.get(entries[key], entries[key])
        if isinstance(key, str) and key in names:
            if descriptor.message_type is None:
                entries[names[key]] = entries.pop(key)
            else:
                entries[names[key]].CopyFrom(entries[key])
                del entries[key]
