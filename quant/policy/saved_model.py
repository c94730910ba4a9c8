"""Opens SavedModels: the folder that TensorFlow writes, whose default signature is frozen."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from quant.errors import InputError
from quant.files import sha256
from quant.native import import_tensorflow
from quant.policy.archive import MAX_FILE, read_checkpoint
from quant.policy.frozen import Frozen, check_operations, first_line, freeze

GRAPH, SIGNATURE = "saved_model.pb", "serving_default"
DESCRIPTION = Path("assets.extra") / "policy.json"
"""``assets.extra`` is the folder the SavedModel format keeps for its users."""


def load_saved_model(folder: Path) -> Frozen:
    """Loads a SavedModel and freezes its default signature, or the only one.

    Raises:
        InputError: it is damaged, too large, or holds an operation that reaches outside the graph.
    """
    where = str(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MAX_FILE:
        raise InputError(f"is {size} bytes", where=where, expected=f"at most {MAX_FILE} bytes")
    content = read_checkpoint(folder / GRAPH)
    import_tensorflow()
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        model = saved_model_pb2.SavedModel.FromString(content)
    except DecodeError as error:
        raise InputError(
            "is not a SavedModel", where=folder / GRAPH, expected="a complete file", hint=str(error)
        ) from None
    for meta_graph in model.meta_graphs:
        check_operations(meta_graph.graph_def, where)
    return freeze(_signature(folder), where)


def _signature(folder: Path) -> Any:
    tf = import_tensorflow()
    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:  # TensorFlow raises whatever its parts raise on a damaged folder
        raise InputError(
            f"cannot be loaded as a SavedModel: {first_line(error)}",
            where=folder,
            expected="a complete SavedModel",
            hint="export it again",
        ) from error
    signatures = dict(loaded.signatures)
    if SIGNATURE not in signatures and len(signatures) != 1:
        raise InputError(
            f"has the signatures {', '.join(sorted(signatures)) or 'none'}",
            where=folder,
            expected=f"{SIGNATURE}, or only one",
            hint="save it with signatures={'serving_default': ...}",
        )
    signature = signatures.get(SIGNATURE, next(iter(signatures.values())))
    # A signature's graph holds weak references to what it captures.
    signature._keep = loaded
    return signature


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of the folder's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {sha256(path.read_bytes())}\n".encode())
    return digest.hexdigest()
