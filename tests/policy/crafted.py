"""Stable-Baselines3-like checkpoints made without PyTorch: the pickle is written opcode by opcode."""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

STORAGES = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "bf16": "BFloat16Storage"}
Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Tensor:
    """A tensor as the pickle declares it; whatever is None follows from ``shape``."""

    key: str
    shape: tuple[int, ...]
    offset: int = 0
    strides: tuple[int, ...] | None = None
    numel: int | None = None
    storage: str = "torch FloatStorage"


def weights(
    *,
    encoder: tuple[int, ...] = (6, 32, 32),
    ego: int = 4,
    net_arch: tuple[int, ...] = (64,),
    actions: int = 4,
    name: str = "features_extractor.peer_encoder",
    seed: int = 0,
) -> dict[str, NDArray[np.float32]]:
    """Random weights under Stable-Baselines3's names, activations between the Linears."""
    generator = np.random.default_rng(seed)
    state = {}
    networks = ((name, encoder), ("mlp_extractor.policy_net", (encoder[-1] + ego, *net_arch)))
    for prefix, widths in networks:
        for index, (inputs, outputs) in enumerate(pairwise(widths)):
            state[f"{prefix}.{2 * index}.weight"] = generator.normal(size=(outputs, inputs)) / math.sqrt(inputs)
            state[f"{prefix}.{2 * index}.bias"] = generator.normal(size=outputs)
    last = networks[1][1][-1]
    state["action_net.weight"] = generator.normal(size=(actions, last)) / math.sqrt(last)
    state["action_net.bias"] = generator.normal(size=actions)
    return {key: value.astype(np.float32) for key, value in state.items()}


def fields(
    ego: int = 4, peers: tuple[int, int] = (8, 6), n: int = 4, box: tuple[str, str] | None = None, **policy_kwargs: Any
) -> dict[str, Any]:
    """The JSON of ``data``; ``box`` is the printed low and high, without it the actions are Discrete(n)."""
    spaces = (
        f"{{'ego': Box(-inf, inf, ({ego},), float32), 'peer_mask': Box(0.0, 1.0, ({peers[0]},), float32), "
        f"'peers': Box(-inf, inf, {peers}, float32)}}"
    )
    discrete = {":type:": "<class 'gymnasium.spaces.discrete.Discrete'>", "n": str(n), "start": "0", "_shape": "[]"}
    kwargs = {":type:": "<class 'dict'>", ":serialized:": "never read", **policy_kwargs}
    return {
        "policy_class": {":type:": "<class 'abc.ABCMeta'>", "__module__": "stable_baselines3.common.policies"},
        "policy_kwargs": kwargs,
        "observation_space": {":type:": "<class 'gymnasium.spaces.dict.Dict'>", "spaces": spaces},
        "action_space": discrete if box is None else box_space(*box),
    }


def box_space(low: str, high: str, shape: tuple[int, ...] | None = None, **more: str) -> dict[str, Any]:
    """The JSON of a Box."""
    shape = (len(low.split()),) if shape is None else shape
    kind = "<class 'gymnasium.spaces.box.Box'>"
    return {":type:": kind, "dtype": "float32", "_shape": list(shape), "low": low, "high": high, **more}


def checkpoint(
    state: Arrays | None = None,
    data: Any = None,
    modules: tuple[str, ...] = (),
    pth: bytes | None = None,
    **more: bytes,
) -> bytes:
    """A whole zip. ``data`` is JSON or, as bytes, anything; ``more`` are further members."""
    state = weights() if state is None else state
    data = fields() if data is None else data
    members = {
        "data": data if isinstance(data, bytes) else json.dumps(data).encode(),
        "policy.pth": torch_file(state, modules) if pth is None else pth,
        "_stable_baselines3_version": b"2.7.1",
        **more,
    }
    return zipped(members)


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with fixed timestamps."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def torch_file(state: Arrays, modules: tuple[str, ...] = (), dtype: str = "f4", order: str = "little") -> bytes:
    """What ``torch.save`` writes for a ``state_dict``: one storage a tensor."""
    tensors, storages = {}, {}
    for index, (name, array) in enumerate(state.items()):
        tensors[name] = Tensor(str(index), array.shape, storage=f"torch {STORAGES[dtype]}")
        storages[str(index)] = _raw(array, dtype, "<" if order == "little" else ">")
    return torch_zip(pickled(tensors, modules), storages, order)


def torch_zip(pickle: bytes, storages: Mapping[str, bytes], order: str = "little") -> bytes:
    """The zip around a pickle."""
    data = {f"archive/data/{key}": content for key, content in storages.items()}
    return zipped({"archive/data.pkl": pickle, "archive/byteorder": order.encode(), **data, "archive/version": b"3\n"})


def _raw(array: NDArray[np.float32], dtype: str, order: str) -> bytes:
    if dtype == "bf16":
        return (array.view(np.uint32) >> 16).astype(f"{order}u2").tobytes()
    return array.astype(order + dtype).tobytes()


def pickled(tensors: Mapping[str, Tensor], modules: tuple[str, ...] = ()) -> bytes:
    """A protocol-2 pickle of an OrderedDict of tensors, with ``_metadata`` where modules are named."""
    items = b"".join(text(name) + tensor(spec) for name, spec in tensors.items())
    state = _dict() + b"(" + items + b"u"
    if modules:
        entries = b"".join(text(module) + b"}" for module in modules)
        state += b"}" + text("_metadata") + _dict() + b"(" + entries + b"us" + b"b"
    return b"\x80\x02" + state + b"."


def tensor(spec: Tensor) -> bytes:
    """_rebuild_tensor_v2(persistent storage, offset, shape, strides, False, OrderedDict())."""
    strides = contiguous(spec.shape) if spec.strides is None else spec.strides
    numel = math.prod(spec.shape) if spec.numel is None else spec.numel
    storage = b"(" + text("storage") + name(spec.storage) + text(spec.key) + text("cpu") + number(numel) + b"tQ"
    sizes = b"(" + b"".join(map(number, spec.shape)) + b"t"
    steps = b"(" + b"".join(map(number, strides)) + b"t"
    arguments = b"(" + storage + number(spec.offset) + sizes + steps + b"\x89" + _dict() + b"t"
    return name("torch._utils _rebuild_tensor_v2") + arguments + b"R"


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a C-contiguous array, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def name(qualified: str) -> bytes:
    """GLOBAL 'module name'."""
    return b"c" + qualified.replace(" ", "\n").encode() + b"\n"


def text(value: str) -> bytes:
    """BINUNICODE."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    """BININT, or LONG1 where it does not fit."""
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def _dict() -> bytes:
    return name("collections OrderedDict") + b")R"
