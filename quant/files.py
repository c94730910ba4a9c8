"""Files that appear whole or not at all, and the bytes they are known by."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError, nearest

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is in all."""


def no_progress(done: int, total: int) -> None:
    """For callers who do not watch."""


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path`` by way of a temporary file in the same folder, so that no reader sees a part.

    Raises:
        InputError: it cannot be written there.
    """
    try:
        _replace(path, content)
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", where=path, expected=f"a folder that can be written, {path.parent}"
        ) from error


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        open_up(Path(temporary), 0o666)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def open_up(temporary: Path, mode: int) -> None:
    """Makes what :mod:`tempfile` made for its owner alone as readable as any file that its owner makes.

    Args:
        temporary: the file or folder.
        mode: before the umask takes its part: 0o666 of a file, 0o777 of a folder.
    """
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(mode & ~umask)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text whole."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes JSON that is equal for equal values: keys in the order given, two spaces, a final newline, no NaN."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """Writes one array as ``.npy``, without pickling."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise InputError("not valid JSON", where=path, expected="a JSON document", hint=str(error)) from error


def read_bytes(path: Path) -> bytes:
    """Reads a file.

    Raises:
        InputError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError("no such file", where=path, hint=_nearby(path)) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path, expected="a file that can be read") from error


def _nearby(path: Path) -> str:
    """What may have been meant by a path that leads nowhere."""
    try:
        names = [found.name for found in path.parent.iterdir()]
    except OSError:
        return f"there is no folder {path.parent} in {Path.cwd()}"
    close = nearest(path.name, names)
    return f"did you mean {path.with_name(close)}?" if close else f"paths start at {Path.cwd()}"


def nearest_pyproject(folder: Path, table: Sequence[str] = ()) -> Path | None:
    """The ``pyproject.toml`` in ``folder`` or the nearest folder above, if that one has the table; else None."""
    found = next((path for one in (folder, *folder.parents) if (path := one / "pyproject.toml").is_file()), None)
    if found is None:
        return None
    inner: Any = read_toml(found)
    for key in table:
        if not isinstance(inner, dict) or key not in inner:
            return None
        inner = inner[key]
    return found


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML document.

    Raises:
        InputError: the file cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(read_bytes(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError("not valid TOML", where=path, expected="a TOML document", hint=str(error)) from error


def sha256(content: bytes) -> str:
    """The SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
