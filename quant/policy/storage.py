"""Our own saved policy: one ``.npz`` of weights and a JSON description, equal bytes for equal policies."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.files import write_bytes
from quant.observation.resolve import Bounds
from quant.policy.archive import Archive, open_archive
from quant.policy.assembly import POOLINGS, Given, assemble, settle
from quant.policy.policy import Activation, Dense, Fact, Policy
from quant.policy.spaces import action_space_from_json, action_space_to_json

DESCRIPTION = "policy.json"
SCHEMA = "quant-policy"
SCHEMA_VERSION = 1
_MAX_LAYERS = 256
_EPOCH = (1980, 1, 1, 0, 0, 0)


def save_policy(policy: Policy, path: Path) -> None:
    """Writes a policy whole; equal policies give equal bytes. ``numpy.load`` opens it too."""
    write_bytes(path, policy_bytes(policy))


def policy_bytes(policy: Policy) -> bytes:
    """The file that `save_policy` writes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add(archive, DESCRIPTION, json.dumps(describe(policy), indent=2, ensure_ascii=False, allow_nan=False).encode())
        for name, array in _arrays(policy).items():
            member = io.BytesIO()
            np.save(member, array.astype("<f4"), allow_pickle=False)
            _add(archive, f"{name}.npy", member.getvalue())
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3  # the same on every host
    info.external_attr = 0o644 << 16
    archive.writestr(info, content)


def _arrays(policy: Policy) -> dict[str, NDArray[np.float32]]:
    arrays = {}
    for part, layers in (("encoder", policy.encoder), ("head", policy.head)):
        for index, layer in enumerate(layers):
            arrays[f"{part}.{index}.weight"] = np.ascontiguousarray(layer.weight)
            arrays[f"{part}.{index}.bias"] = np.ascontiguousarray(layer.bias)
    return arrays


def describe(policy: Policy) -> dict[str, Any]:
    """Everything of a policy but its weights, as JSON."""
    return {
        "schema": SCHEMA,
        "version": SCHEMA_VERSION,
        **_structure(policy),
        "facts": [{"name": f.name, "value": f.value, "how": f.how, "source": f.source} for f in policy.facts],
        "origin": policy.origin,
        **({} if policy.bounds is None else {"bounds": _bounds_json(policy.bounds)}),
    }


def _bounds_json(bounds: Bounds) -> dict[str, list[float | None]]:
    """Null for what is not bounded: JSON has no infinity."""
    return {name: [end if math.isfinite(end) else None for end in ends] for name, ends in asdict(bounds).items()}


def _structure(policy: Policy) -> dict[str, Any]:
    return {
        "encoder": [layer.activation for layer in policy.encoder],
        "head": [layer.activation for layer in policy.head],
        "pooling": policy.pooling,
        "action_space": action_space_to_json(policy.action_space),
        "max_peers": policy.max_peers,
    }


def policy_digest(policy: Policy) -> str:
    """SHA-256 (hexadecimal) of what a policy computes: weights, activations, pooling, action space and peer slots.

    Where it came from and what is known of it do not enter.
    """
    digest = hashlib.sha256(json.dumps(_structure(policy), sort_keys=True, separators=(",", ":")).encode())
    for name, array in _arrays(policy).items():
        digest.update(f"\n{name} {array.shape}\n".encode())
        digest.update(array.astype("<f4").tobytes())
    return digest.hexdigest()


def is_saved_policy(content: bytes, where: str) -> bool:
    """Whether a zip is a policy saved by us."""
    return DESCRIPTION in open_archive(content, where).members


def load_saved(content: bytes, where: str, given: Given) -> Policy:
    """Reads what `save_policy` wrote.

    Raises:
        InputError: it is damaged, of another schema version, or contradicts what the caller gives.
    """
    archive = open_archive(content, where)
    description = read_description(archive.read(DESCRIPTION), f"{where}!{DESCRIPTION}")
    layers = {part: _layers(archive, part, description) for part in ("encoder", "head")}
    return assemble(described_policy(layers["encoder"], layers["head"], description, given, where), where)


def described_policy(
    encoder: tuple[Dense, ...], head: tuple[Dense, ...], description: dict[str, Any], given: Given, where: str
) -> Policy:
    """A policy from its layers and the JSON of `describe`, held against what the caller gives."""
    pooling = description.get("pooling")
    if pooling not in POOLINGS:
        raise InputError(f"pooling is {str(pooling)[:80]}", where=where, expected=", ".join(POOLINGS))
    space = action_space_from_json(description.get("action_space"), where)
    max_peers = description.get("max_peers")
    if type(max_peers) is not int:
        raise InputError(f"max_peers is {str(max_peers)[:80]}", where=where, expected="a whole number")
    settle("pooling", given.pooling, pooling, "stated", DESCRIPTION, where=where)
    settle("action_space", given.action_space, space, "stated", DESCRIPTION, where=where)
    settle("max_peers", given.max_peers, max_peers, "stated", DESCRIPTION, where=where)
    settle("encoder_activation", given.encoder_activation, encoder[0].activation, "stated", DESCRIPTION, where=where)
    return Policy(
        encoder,
        head,
        pooling,
        space,
        max_peers,
        _facts(description, where),
        str(description.get("origin", "")),
        _bounds(description, head[0].inputs - encoder[-1].outputs, encoder[0].inputs, where),
    )


def _bounds(description: dict[str, Any], ego: int, peer: int, where: str) -> Bounds | None:
    stated = description.get("bounds")
    if stated is None:
        return None
    widths = {"ego_low": ego, "ego_high": ego, "peers_low": peer, "peers_high": peer}
    ends = {}
    for name, width in widths.items():
        values = stated.get(name) if isinstance(stated, dict) else None
        if not isinstance(values, list) or len(values) != width or not all(_is_end(value) for value in values):
            raise InputError(f"bounds.{name} is damaged", where=where, expected=f"{width} numbers or null")
        endless = -math.inf if name.endswith("low") else math.inf
        ends[name] = tuple(endless if value is None else float(value) for value in values)
    return Bounds(**ends)


def _is_end(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value))


def read_description(content: bytes, where: str) -> dict[str, Any]:
    """Parses the JSON of `describe` and checks its schema version."""
    try:
        description = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(
            "is not valid JSON", where=where, expected="a policy's description", hint=str(error)
        ) from error
    if not isinstance(description, dict) or description.get("schema") != SCHEMA:
        raise InputError("does not describe a policy", where=where, expected=f'"schema": "{SCHEMA}"')
    if description.get("version") != SCHEMA_VERSION:
        raise InputError(
            f"has schema version {str(description.get('version'))[:20]}",
            where=where,
            expected=str(SCHEMA_VERSION),
            hint="import the original checkpoint again with this version",
        )
    return description


def _facts(description: dict[str, Any], where: str) -> tuple[Fact, ...]:
    try:
        facts = [Fact(str(f["name"]), str(f["value"]), f["how"], str(f["source"])) for f in description["facts"]]
    except (KeyError, TypeError) as error:
        raise InputError("its facts are damaged", where=where, expected="name, value, how, source") from error
    if not all(fact.how in ("stated", "read", "given", "assumed") for fact in facts):
        raise InputError("its facts are damaged", where=where, expected="stated, read, given or assumed")
    return tuple(facts)


def _layers(archive: Archive, part: str, description: dict[str, Any]) -> tuple[Dense, ...]:
    activations = description.get(part)
    where = f"{archive.where}!{DESCRIPTION}"
    if not isinstance(activations, list) or len(activations) > _MAX_LAYERS:
        raise InputError(
            f"{part} is not a list of activations", where=where, expected=f"at most {_MAX_LAYERS} names of activations"
        )
    for activation in activations:
        if activation not in get_args(Activation):
            raise InputError(
                f"unsupported layer: activation {str(activation)[:80]}",
                where=where,
                expected=", ".join(get_args(Activation)),
            )
    return tuple(
        Dense(_array(archive, f"{part}.{index}.weight", 2), _array(archive, f"{part}.{index}.bias", 1), activation)
        for index, activation in enumerate(activations)
    )


def _array(archive: Archive, name: str, rank: int) -> NDArray[np.float32]:
    """One ``.npy``; its header is held against its length before anything is allocated."""
    content = archive.read(f"{name}.npy")
    where = f"{archive.where}!{name}.npy"
    stream = io.BytesIO(content)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("not version 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype != np.dtype("<f4") or fortran or len(shape) != rank:
            raise ValueError(f"{dtype} {shape}")
        return np.frombuffer(content[stream.tell() :], "<f4").reshape(shape).astype(np.float32)
    except (ValueError, SyntaxError, TypeError, EOFError, OverflowError, RecursionError) as error:
        raise InputError(
            f"is not the array of a layer: {error}", where=where, expected=f"little-endian float32 of rank {rank}"
        ) from error
