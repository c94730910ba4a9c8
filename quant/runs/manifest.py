"""The manifest of a run: every file with its hash, what made it, and how long each step took. Written last."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import quant
from quant import __version__
from quant.errors import InputError, StaleError
from quant.files import read_bytes, read_json, sha256, write_json, write_text
from quant.runs.folder import MANIFEST, SCHEMA_VERSION

PACKAGES = (
    "ai-edge-litert",
    "gymnasium",
    "numpy",
    "scipy",
    "tensorflow",
    "tensorflow-model-optimization",
    "tf_keras",
    "tflite-micro",
)
"""Packages the bytes of the artifacts may depend on."""


def write_manifest(folder: Path, seconds: dict[str, float]) -> None:
    """Writes the manifest: size and SHA-256 of every file, versions, commit, host, wall time of each step."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    write_json(
        folder / MANIFEST,
        {
            "schema_version": SCHEMA_VERSION,
            "files": {
                path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path.read_bytes())}
                for path in files
                if not path.name.startswith(".")
            },
            "versions": versions(),
            "git_commit": project_commit(),
            "quant_commit": _package_commit(),
            "quant_sha256": package_sha256(),
            "host": {"system": platform.system(), "machine": platform.machine(), "node": platform.node()},
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
        },
    )


def recorded_seconds(folder: Path) -> dict[str, float]:
    """The wall time of each step as the manifest has it; nothing where there is none, or one that is damaged."""
    if not (folder / MANIFEST).is_file():
        return {}
    try:
        manifest = read_json(folder / MANIFEST)
    except InputError:
        return {}
    recorded = manifest.get("seconds") if isinstance(manifest, dict) else None
    if not isinstance(recorded, dict):
        return {}
    return {name: float(value) for name, value in recorded.items() if type(value) in (int, float)}


def check_manifest(folder: Path) -> dict[str, Any]:
    """Sees that the run is finished and that every file is the one the manifest lists.

    Raises:
        InputError: there is no manifest (an unfinished run), or it is malformed.
        StaleError: a file is missing or has changed since.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            "the run is not finished: it has no manifest",
            where=folder,
            hint=f"run quant run again, or quant decide {folder}, which says what is missing",
        )
    manifest = read_json(path)
    try:
        listed = {str(name): str(entry["sha256"]) for name, entry in manifest["files"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"the manifest lacks or garbles {error}", where=path, hint=f"quant decide {folder}") from error
    for name, digest in listed.items():
        if not (folder / name).is_file():
            raise StaleError(
                "is missing, though the manifest lists it",
                where=folder / name,
                hint="run the step that makes it again, then quant decide",
            )
        if sha256(read_bytes(folder / name)) != digest:
            raise StaleError(
                "has changed since the run was finished",
                where=folder / name,
                expected=f"sha256 {digest[:12]}",
                hint="run the step that makes it again, then quant decide",
            )
    found: dict[str, Any] = manifest
    return found


def add_pages(folder: Path, manifest: dict[str, Any], pages: Mapping[str, str]) -> None:
    """Writes texts about a finished run into it and lists them in its manifest, which otherwise stays as it is.

    The manifest first forgets pages of an earlier time, so that the run is a valid one at every moment.

    Args:
        folder: the run.
        manifest: what :func:`check_manifest` returned.
        pages: text by file name, of `PAGE` and `SUMMARY`.
    """
    files = {name: entry for name, entry in manifest["files"].items() if name not in pages}
    write_json(folder / MANIFEST, manifest | {"files": files})
    for name, text in pages.items():
        write_text(folder / name, text)
        content = text.encode()
        files[name] = {"bytes": len(content), "sha256": sha256(content)}
    write_json(folder / MANIFEST, manifest | {"files": dict(sorted(files.items()))})


def versions() -> dict[str, str]:
    """Versions of quant, Python and every package of `PACKAGES`."""
    found = {"quant": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def project_commit() -> str | None:
    """The commit of the project that is worked in: of the current folder's checkout. None outside one."""
    return _described(Path.cwd())


def _package_commit() -> str | None:
    """The commit of this package's own checkout; None where it was installed as a copy, be it into a checkout."""
    here = Path(__file__)
    return _described(here.parent) if _git(here.parent, "ls-files", "--error-unmatch", here.name) else None


def _described(folder: Path) -> str | None:
    """The commit of a folder's checkout, ``+changes`` where it has any."""
    return _git(folder, "describe", "--always", "--dirty=+changes", "--abbrev=40")


def _git(folder: Path, *words: str) -> str | None:
    try:
        result = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


@lru_cache(maxsize=1)
def package_sha256() -> str:
    """SHA-256 over the package's Python sources: which quant it was, whatever the version says and git knows."""
    root = Path(quant.__file__).parent
    files = sorted((path.relative_to(root).as_posix(), path) for path in root.rglob("*.py"))
    return sha256("".join(f"{name} {sha256(path.read_bytes())}\n" for name, path in files).encode())
