"""The folder of a run: the names in it, and the right to change what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from quant.errors import InputError
from quant.locking import FileLock

POLICY = "policy.npz"
SAVED_MODEL = "policy_saved_model"
SETTINGS = "settings.json"
OBSERVATION = "observation.toml"
SCENARIOS = "quant_eval_scenarios.json"
UNSEEN = "unseen.json"
PARITY = "parity.json"
STRESS, STRESS_FRAMES = "stress.json", "stress_frames.npz"
SECOND_OPINION = "sumo.json"
WINNER = "winner.json"
REPORT = "report.txt"
PAGE, SUMMARY = "report.html", "report.md"
MANIFEST = "manifest.json"
LOCK = ".lock"
"""Held by the process that changes the run, and gone afterwards; no artifact."""
ARTIFACTS = (
    "quant_dataset*",
    OBSERVATION,
    SCENARIOS,
    "*_int8.tflite",
    "candidate_*.json",
    "conversion_*.log",
    "loss_curve_*.csv",
    UNSEEN,
    "eval_*.json",
    PARITY,
    STRESS,
    STRESS_FRAMES,
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


def evaluation_name(track: str) -> str:
    """File name of an evaluation; ``float`` is one of the tracks."""
    return f"eval_{track}.json"


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
