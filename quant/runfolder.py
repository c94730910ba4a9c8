"""A run: one folder with every artifact of one comparison, what it was made from, and a manifest written last."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from quant import __version__
from quant.errors import InputError, StaleError, nearest
from quant.files import read_bytes, read_json, sha256, write_json, write_text
from quant.locking import FileLock

POLICY = "policy.npz"
SAVED_MODEL = "policy_saved_model"
SETTINGS = "settings.json"
SCENARIOS = "quant_eval_scenarios.json"
PARITY = "parity.json"
SECOND_OPINION = "sumo.json"
WINNER = "winner.json"
REPORT = "report.txt"
PAGE, SUMMARY = "report.html", "report.md"
MANIFEST = "manifest.json"
LOCK = ".lock"
"""Held by the process that changes the run, and gone afterwards; no artifact."""

ARTIFACTS = (
    "quant_dataset*",
    SCENARIOS,
    "*_int8.tflite",
    "candidate_*.json",
    "conversion_*.log",
    "loss_curve_*.csv",
    "eval_*.json",
    PARITY,
    SECOND_OPINION,
    "device_*.json",
    "hil_*.json",
    WINNER,
    REPORT,
    PAGE,
    SUMMARY,
)
"""What the steps after the import write, as patterns."""

SCHEMA_VERSION = 1
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


def evaluation_name(track: str) -> str:
    """File name of an evaluation; ``float`` is one of the tracks."""
    return f"eval_{track}.json"


GIVEN = {"head": str, "pooling": str, "action_space": str, "max_peers": int, "encoder_activation": str}
"""What a user may say of a policy that its file does not, with the type of each."""


@dataclass(frozen=True)
class Settings:
    """What a run was asked for, step by step; enough to repeat it.

    Attributes:
        checkpoint: the path the policy was imported from, as given.
        drives: paths of recorded drives, as given.
        world: specification, or None.
        world_kwargs: for a user's environment.
        seed: of dataset, scenarios and training.
        episodes: scenarios of each slice that candidates are judged on.
        qat_steps: optimizer steps on all weights.
        tracks: names of the candidates.
        training_seed: of training alone, where it is not to be ``seed``.
        given: what was said of the policy, by `GIVEN`; only what was. Action spaces as `parse_action_space` reads them.
    """

    checkpoint: str
    drives: tuple[str, ...] = ()
    world: str | None = None
    world_kwargs: dict[str, Any] | None = None
    seed: int = 0
    episodes: dict[str, int] | None = None
    qat_steps: int | None = None
    tracks: tuple[str, ...] = ()
    training_seed: int | None = None
    given: dict[str, Any] | None = None


def write_settings(settings: Settings, folder: Path) -> None:
    """Writes ``settings.json``."""
    write_json(folder / SETTINGS, {"schema_version": SCHEMA_VERSION, **asdict(settings)})


def read_settings(folder: Path) -> Settings:
    """Reads ``settings.json``.

    Raises:
        InputError: the folder is not a run, or the file is malformed.
    """
    if not (folder / SETTINGS).is_file():
        raise _no_run(folder)
    value = read_json(folder / SETTINGS)
    if not isinstance(value, dict) or value.pop("schema_version", None) != SCHEMA_VERSION:
        raise InputError(
            "not the settings of this version",
            where=folder / SETTINGS,
            expected=f"schema_version {SCHEMA_VERSION}",
            hint="the run was made by another version of quant: make it again with this one, quant run",
        )
    try:
        settings = Settings(**value | {key: tuple(value[key]) for key in ("drives", "tracks")})
    except (TypeError, KeyError) as error:
        raise InputError(
            f"the settings lack or garble {error}", where=folder / SETTINGS, hint="import the policy again"
        ) from error
    _check_settings(settings, value, folder / SETTINGS)
    return settings


def _no_run(folder: Path) -> InputError:
    """There is no run at ``folder``: says which runs there are that may have been meant."""
    if folder.is_file():
        return InputError("is a file", where=folder, expected="a run folder")
    found = _runs_around(folder)
    inside = [run.as_posix() for run in found if run.parent == folder]
    if inside:
        hint = f"it holds runs: {', '.join(inside[:5])}"
    else:
        named = [run.as_posix() for run in found if run.name == folder.name]
        close = next(iter(named), None) or nearest(folder.as_posix(), map(Path.as_posix, found))
        meant = f"did you mean {close}? or " if close else ""
        hint = f"{meant}start one: quant run, or quant import POLICY --out FOLDER"
    what = "not a run folder" if folder.is_dir() else "no such run folder"
    return InputError(what, where=folder, expected=f"a folder with {SETTINGS}", hint=hint)


def _runs_around(folder: Path) -> list[Path]:
    """The runs in the folder, beside it, and where runs usually are."""
    places = (folder, folder.parent, Path(), Path("runs"))
    return sorted({found.parent for place in places for found in place.glob(f"*/{SETTINGS}")})


def _check_settings(settings: Settings, value: dict[str, Any], path: Path) -> None:
    """Types only: what the values mean is checked by the step that uses them."""
    lists = [isinstance(value[key], list) and _all_are(str, value[key]) for key in ("drives", "tracks")]
    episodes, kwargs, steps = settings.episodes, settings.world_kwargs, settings.qat_steps
    right = {
        "checkpoint": isinstance(settings.checkpoint, str),
        "drives": lists[0],
        "world": settings.world is None or isinstance(settings.world, str),
        "world_kwargs": kwargs is None or isinstance(kwargs, dict),
        "seed": type(settings.seed) is int and settings.seed >= 0,
        "episodes": episodes is None or (isinstance(episodes, dict) and _all_are(int, episodes.values())),
        "qat_steps": steps is None or (type(steps) is int and steps > 0),
        "tracks": lists[1],
        "training_seed": settings.training_seed is None
        or (type(settings.training_seed) is int and settings.training_seed >= 0),
        "given": settings.given is None or _is_given(settings.given),
    }
    for key, is_right in right.items():
        if not is_right:
            raise InputError(f"{key} is {str(value.get(key))[:80]}", where=path, hint="import the policy again")


def _is_given(value: Any) -> bool:
    return isinstance(value, dict) and all(type(one) is GIVEN.get(name) for name, one in value.items())


def _all_are(kind: type, values: Iterable[Any]) -> bool:
    return all(type(value) is kind for value in values)


def claim(folder: Path) -> None:
    """Makes ``folder`` ready for a run: new, empty, or a run already, whose manifest is taken away.

    Raises:
        InputError: it holds something else, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file", where=folder, expected="a folder for the run", hint="give another --out")
    if folder.exists() and not (folder / SETTINGS).is_file() and any(one.name != LOCK for one in folder.iterdir()):
        raise InputError(
            "holds files that are not a run's",
            where=folder,
            expected="a new, empty or run folder",
            hint=f"give it one of its own: --out {folder / 'NAME'}",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with changing(folder):
            unfinish(folder)
    except OSError as error:
        raise InputError(
            f"cannot be made: {error.strerror}",
            where=folder,
            expected="a folder for the run",
            hint="give another --out",
        ) from error


class _RunLock(FileLock):
    """The exclusive right to change a run."""

    def busy(self, holder: str) -> InputError:
        return InputError(
            f"the run is being changed by {holder}",
            where=self.path.parent,
            expected="a run nobody else is changing",
            hint="wait for it to end, or give another folder",
        )


_held: ContextVar[frozenset[Path]] = ContextVar("_held", default=frozenset())
"""The runs that this thread is changing already."""


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """The exclusive right to change what is in ``folder``; whoever has it may ask for it again.

    Readers need none: they see whole files, and a run without manifest as an unfinished one.

    Raises:
        InputError: another process, or another thread of this one, is changing it.
    """
    path = folder.resolve()
    held = _held.get()
    if path in held or not path.is_dir():
        # What is no folder holds nothing to protect; whoever reads it next says so.
        yield
        return
    with _RunLock(folder / LOCK, keep=False, mode=0o644):
        token = _held.set(held | {path})
        try:
            yield
        finally:
            _held.reset(token)


def clear(folder: Path) -> None:
    """Takes away what an earlier run made of another policy: all artifacts of the steps after the import."""
    for pattern in ARTIFACTS:
        for path in folder.glob(pattern):
            path.unlink()


def unfinish(folder: Path) -> None:
    """Takes the manifest away, and the pages about it: whatever is in the folder now is not a finished run.

    Raises:
        InputError: the folder cannot be written to.
    """
    try:
        for name in (MANIFEST, PAGE, SUMMARY):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"the run cannot be changed: {error.strerror}",
            where=folder / MANIFEST,
            expected="a folder that can be written",
        ) from error


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
    root = Path(__file__).parent
    files = sorted((path.relative_to(root).as_posix(), path) for path in root.rglob("*.py"))
    return sha256("".join(f"{name} {sha256(path.read_bytes())}\n" for name, path in files).encode())
