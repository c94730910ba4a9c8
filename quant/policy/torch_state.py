"""Reads a PyTorch ``state_dict`` file without PyTorch and without executing what is pickled in it.

A file of ``torch.save`` is a zip of ``<root>/data.pkl`` and the raw storages ``<root>/data/<key>``. A pickle is a
program; instead of running it in Python's unpickler, a machine that knows only the opcodes and the handful of names
that ``torch.save`` writes for a dictionary of tensors interprets it (the idea of PyTorch's own
``torch/_weights_only_unpickler.py``). Nothing is imported, no object of the file's choosing is called, keys of
dictionaries are strings (a nested tuple as key takes exponential time to hash), and a memo index is a key, not an
allocation.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.policy.archive import Archive, open_archive

DTYPES: dict[str, str] = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_ORDERED_DICT = ("collections", "OrderedDict")
_REBUILD_TENSOR = ("torch._utils", "_rebuild_tensor_v2")
_REBUILD_PARAMETER = ("torch._utils", "_rebuild_parameter")
_ALLOWED = {_ORDERED_DICT, _REBUILD_TENSOR, _REBUILD_PARAMETER, *(("torch", name) for name in DTYPES)}
_MAX_NUMBER = 1 << 40


@dataclass(frozen=True)
class TensorSpec:
    """Where a tensor lies: nothing is read before it is asked for.

    Attributes:
        storage: key of the raw storage.
        dtype: NumPy's code for the storage's elements, or ``bf16``.
        numel: elements of the storage.
        offset: of the first element, in elements.
        shape: of the tensor.
        strides: in elements.
    """

    storage: str
    dtype: str
    numel: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class StateDict:
    """A ``state_dict``: its tensors by name, and the names of its modules where the file lists them.

    Attributes:
        specs: by parameter name, in the file's order.
        modules: names of all modules, those without parameters included; empty when the file does not say.
    """

    specs: Mapping[str, TensorSpec]
    modules: tuple[str, ...]
    _archive: Archive
    _root: str
    _order: str

    def array(self, name: str) -> NDArray[np.float32]:
        """One tensor as contiguous float32.

        Raises:
            InputError: it is missing, not floating point, not finite, or lies outside its storage.
        """
        where = f"{self._archive.where}!{name}"
        if name not in self.specs:
            raise InputError(
                "is missing from the state dict", where=where, expected=f"of {len(self.specs)} tensors this one"
            )
        spec = self.specs[name]
        if spec.dtype not in ("f4", "f8", "f2", "bf16"):
            raise InputError(f"has elements of type {spec.dtype}", where=where, expected="floating point")
        flat = self._storage(spec, where)
        # The bounds hold: checked when the tensor was declared.
        view = np.lib.stride_tricks.as_strided(
            flat[spec.offset :], spec.shape, [stride * flat.itemsize for stride in spec.strides], writeable=False
        )
        with np.errstate(over="ignore"):
            array = np.array(view, np.float32, order="C")
        if not np.isfinite(array).all():
            raise InputError(
                f"holds {int((~np.isfinite(array)).sum())} values that are NaN or infinite",
                where=where,
                expected="finite weights",
                hint="the training diverged or the file is damaged; take an earlier checkpoint",
            )
        return array

    def _storage(self, spec: TensorSpec, where: str) -> NDArray[Any]:
        raw = self._archive.read(f"{self._root}/data/{spec.storage}")
        itemsize = 2 if spec.dtype == "bf16" else np.dtype(spec.dtype).itemsize
        if len(raw) < spec.numel * itemsize:
            raise InputError(
                f"needs a storage of {spec.numel * itemsize} bytes, but storage {spec.storage} has {len(raw)}",
                where=where,
                hint="the file is damaged; save or copy it again",
            )
        if spec.dtype == "bf16":  # the upper half of a float32
            halves = np.frombuffer(raw, self._order + "u2", spec.numel).astype(np.uint32)
            return (halves << np.uint32(16)).view(np.float32)
        return np.frombuffer(raw, self._order + spec.dtype, spec.numel)


def read_state_dict(content: bytes, where: str) -> StateDict:
    """Reads the file ``torch.save(module.state_dict())`` wrote.

    Args:
        content: the file.
        where: what errors call it.

    Raises:
        InputError: it is not such a file, is damaged, or its pickle wants anything but tensors.
    """
    archive = open_archive(content, where)
    pickles = [name for name in archive.members if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise InputError(
            "is not a file of torch.save",
            where=where,
            expected="a zip with one data.pkl (PyTorch 1.6 and later)",
            hint="a checkpoint of an older PyTorch can be loaded and saved again with a newer one",
        )
    root = pickles[0].removesuffix("/data.pkl")
    order = archive.read(f"{root}/byteorder").strip() if f"{root}/byteorder" in archive.members else b"little"
    if order not in (b"little", b"big"):
        raise InputError(f"byte order {order[:16]!r} is unknown", where=where, expected="little or big")
    value = _Machine(f"{where}!{pickles[0]}").run(archive.read(pickles[0]))
    if not isinstance(value, _Dict):
        raise InputError("does not hold a state dict", where=where, expected="a dictionary of tensors")
    specs = {name: spec for name, spec in value.items.items() if isinstance(spec, TensorSpec)}
    if not specs:
        raise InputError("holds no tensors", where=where, expected="a policy's weights")
    return StateDict(specs, _module_names(value), archive, root, "<" if order == b"little" else ">")


def _module_names(state: _Dict) -> tuple[str, ...]:
    """``state_dict`` carries ``_metadata``: one entry for each module, whether it has parameters or not."""
    metadata = state.attributes.get("_metadata")
    return tuple(metadata.items) if isinstance(metadata, _Dict) else ()


@dataclass
class _Dict:
    """A dictionary of the file; ``attributes`` is what the pickle sets on an OrderedDict."""

    items: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Global:
    module: str
    name: str


@dataclass(frozen=True)
class _Storage:
    dtype: str
    key: str
    numel: int


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
_IGNORED = {"PROTO", "FRAME"}
_PUTS = {"BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"}
_GETS = {"BINGET", "LONG_BINGET", "GET"}
_TUPLES = {"TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """A pickle machine for dictionaries of tensors; see the module's docstring."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        """Interprets the pickle and returns what it leaves on the stack."""
        position = 0
        try:
            for opcode, argument, offset in pickletools.genops(program):
                position = offset or 0
                if opcode.name == "STOP":
                    return self.stack.pop()
                self._step(opcode.name, argument, position)
        except InputError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise self._error(f"the pickle is damaged: {error}", position) from error
        raise self._error("the pickle ends without STOP", position)

    def _step(self, name: str, argument: Any, position: int) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _PUTS:
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif name in _TUPLES:
            self._push_tuple(self.marks.pop() if name == "TUPLE" else len(self.stack) - _TUPLES[name])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "EMPTY_DICT":
            self.stack.append(_Dict())
        elif name not in _IGNORED:
            self._step_of_objects(name, argument, position)

    def _step_of_objects(self, name: str, argument: Any, position: int) -> None:
        if name in ("GLOBAL", "STACK_GLOBAL"):
            self._push_global(argument, position)
        elif name in ("SETITEM", "SETITEMS"):
            self._set_items(len(self.stack) - 2 if name == "SETITEM" else self.marks.pop(), position)
        elif name == "BINPERSID":
            self.stack.append(self._storage(self.stack.pop(), position))
        elif name == "REDUCE":
            arguments, function = self.stack.pop(), self.stack.pop()
            self.stack.append(self._call(function, arguments, position))
        elif name == "BUILD":
            self._set_attributes(self.stack.pop(), self.stack[-1], position)
        else:
            raise self._error(f"uses the opcode {name}, which a state dict does not need", position)

    def _set_attributes(self, attributes: Any, target: Any, position: int) -> None:
        if not isinstance(attributes, _Dict) or not isinstance(target, _Dict):
            raise self._error("sets attributes of something that is not a dictionary", position)
        target.attributes.update(attributes.items)

    def _push_tuple(self, start: int) -> None:
        if start < 0 or start > len(self.stack):
            raise IndexError("stack underflow")
        self.stack[start:] = [tuple(self.stack[start:])]

    def _push_global(self, argument: str | None, position: int) -> None:
        if argument is None:
            name, module = self.stack.pop(), self.stack.pop()
        else:
            module, _, name = argument.partition(" ")
        if (module, name) not in _ALLOWED:
            raise self._error(
                f"wants to use {str(module)[:80]}.{str(name)[:80]}, which a state dict does not need", position
            )
        self.stack.append(_Global(module, name))

    def _set_items(self, start: int, position: int) -> None:
        if start < 1:
            raise IndexError("stack underflow")
        items, target = self.stack[start:], self.stack[start - 1]
        del self.stack[start:]
        keys = items[::2]
        if not isinstance(target, _Dict) or len(items) % 2 or not all(isinstance(key, str) for key in keys):
            raise self._error("sets an item that is not named by a string", position)
        target.items.update(zip(keys, items[1::2], strict=True))

    def _storage(self, identity: Any, position: int) -> _Storage:
        kind, storage, key, _location, numel = identity
        if (
            kind != "storage"
            or not isinstance(storage, _Global)
            or storage.name not in DTYPES
            or not isinstance(key, str)
        ):
            raise self._error("names a storage that is none", position)
        return _Storage(DTYPES[storage.name], key, self._count(numel, position))

    def _call(self, function: Any, arguments: Any, position: int) -> Any:
        called = (function.module, function.name) if isinstance(function, _Global) else None
        if called == _ORDERED_DICT and arguments == ():
            return _Dict()
        if called == _REBUILD_TENSOR:
            return self._tensor(*arguments[:4], position=position)
        if called == _REBUILD_PARAMETER and isinstance(arguments[0], TensorSpec):
            return arguments[0]
        raise self._error("calls something that is not allowed", position)

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *, position: int) -> TensorSpec:
        if not isinstance(storage, _Storage):
            raise self._error("builds a tensor from something that is not a storage", position)
        offset = self._count(offset, position)
        shape = tuple(self._count(size, position) for size in shape)
        strides = tuple(self._count(stride, position) for stride in strides)
        if len(shape) != len(strides) or len(shape) > 8:
            raise self._error(f"builds a tensor of {len(shape)} sizes and {len(strides)} strides", position)
        elements = math.prod(shape)
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if elements and (last >= storage.numel or elements > storage.numel):
            raise self._error(
                f"a tensor of shape {shape}, strides {strides}, offset {offset} reaches element {last}, "
                f"past the end of storage {storage.key} ({storage.numel} elements)",
                position,
            )
        return TensorSpec(storage.key, storage.dtype, storage.numel, offset, shape, strides)

    def _count(self, value: Any, position: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_NUMBER:
            raise self._error(f"has the size, stride or offset {str(value)[:40]}", position, "a number from 0 up")
        return value

    def _error(
        self, what: str, position: int, expected: str = "the weights of a policy and nothing else"
    ) -> InputError:
        return InputError(
            what,
            where=f"{self.where}@{position}",
            expected=expected,
            hint="nothing of it was executed; take the checkpoint from where it was trained",
        )
