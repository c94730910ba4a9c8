"""Opens Keras models (``.keras``, ``.h5``; Keras 3 and tf_keras) without running code that is in the file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quant.errors import InputError
from quant.native import import_tensorflow
from quant.policy.archive import open_archive
from quant.policy.frozen import Frozen, first_line, freeze

_LIBRARIES = ("keras", "tf_keras", "builtins", "tensorflow.keras", "tensorflow.python.keras")


def load_keras(path: Path, content: bytes) -> Frozen:
    """Loads a Keras model and freezes it.

    Args:
        path: the file.
        content: its bytes.

    Raises:
        InputError: it is damaged, or holds a Lambda or a custom layer, whose code would have to run.
    """
    where = str(path)
    config, version = _config_of_zip(content, where) if content.startswith(b"PK") else _config_of_hdf5(content, where)
    _check_config(config, where)
    tf = import_tensorflow()
    if version.startswith(("1.", "2.")):
        import tf_keras as keras
    else:
        import keras
    try:
        options = {} if version.startswith(("1.", "2.")) and not content.startswith(b"PK") else {"safe_mode": True}
        model = keras.models.load_model(path, compile=False, **options)
        function = _trace(model, tf)
    except Exception as error:  # Keras raises whatever its layers raise
        raise InputError(
            f"cannot be loaded by Keras: {first_line(error)}",
            where=path,
            expected="a complete Keras model of built-in layers",
            hint="save it again as .keras, or export a SavedModel (Keras 3 cannot read back keras.ops from .h5)",
        ) from error
    return freeze(function, where)


def _trace(model: Any, tf: Any) -> Any:
    names = [tensor.name.split(":")[0] for tensor in model.inputs]
    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=name) for tensor, name in zip(model.inputs, names, strict=True)
    ]
    structure = getattr(model, "input", None)  # a Sequential of Keras 3 has none
    given = structure if isinstance(structure, dict) else None

    def call(*tensors: Any) -> Any:
        if given is not None:
            return model(dict(zip(given, tensors, strict=True)), training=False)
        return model(list(tensors) if len(tensors) > 1 else tensors[0], training=False)

    if given is not None:
        specs = [tf.TensorSpec(tensor.shape, tensor.dtype, name=key) for key, tensor in given.items()]
    return tf.function(call, autograph=False).get_concrete_function(*specs)


def _config_of_zip(content: bytes, where: str) -> tuple[Any, str]:
    archive = open_archive(content, where)
    metadata = _json(archive.read("metadata.json"), f"{where}!metadata.json")
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    return _json(archive.read("config.json"), f"{where}!config.json"), str(version)


def _config_of_hdf5(content: bytes, where: str) -> tuple[Any, str]:
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            config, version = file.attrs.get("model_config"), file.attrs.get("keras_version", "2.")
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"is not a readable HDF5 file: {error}", where=where, expected="a complete file") from error
    if config is None:
        raise InputError(
            "holds weights without a model", where=where, expected="a whole model", hint="save with model.save()"
        )
    return _json(config, f"{where}!model_config"), version.decode() if isinstance(version, bytes) else str(version)


def _json(text: Any, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError("is not valid JSON", where=where, expected="a Keras configuration") from error


def _check_config(config: Any, where: str) -> None:
    """Refuses what Keras would have to run or import from outside itself."""
    for node in _objects(config):
        name, module = node["class_name"], node.get("module")
        if name in ("Lambda", "__lambda__", "function", "TFOpLambda", "TFSMLayer"):
            raise InputError(
                f"unsupported layer {_name(node)}: {name}, whose code would have to be executed",
                where=where,
                expected="built-in layers",
                hint="express it with built-in layers or keras.ops, or export a SavedModel",
            )
        foreign = isinstance(module, str) and module.split(".")[0] not in {entry.split(".")[0] for entry in _LIBRARIES}
        if foreign or (module is None and node.get("registered_name")):
            raise InputError(
                f"unsupported layer {_name(node)}: the custom class {node.get('registered_name') or name}",
                where=where,
                expected="built-in layers",
                hint="export a SavedModel: it carries the graph of custom layers",
            )


def _name(node: dict[str, Any]) -> str:
    config = node.get("config")
    return str(config.get("name", node["class_name"]) if isinstance(config, dict) else node["class_name"])[:80]


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every serialized object of a configuration, at any depth."""
    open_ = [value]
    while open_:
        current = open_.pop()
        if isinstance(current, dict):
            if isinstance(current.get("class_name"), str):
                yield current
            open_ += current.values()
        elif isinstance(current, list):
            open_ += current
