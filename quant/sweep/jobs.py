"""What each seed of a sweep is asked for, and the run folders they end up in."""

from __future__ import annotations

import pickle
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from quant.acceptance.limits import Limits
from quant.dataset.storage import DESCRIPTION
from quant.errors import InputError, QuantError
from quant.files import read_json, sha256, write_bytes, write_json
from quant.policy.storage import policy_bytes
from quant.runs.folder import LOCK, MANIFEST, POLICY, WINNER, changing, claim, clear
from quant.runs.manifest import check_manifest, package_sha256, project_commit, versions
from quant.runs.settings import Settings, read_settings
from quant.runs.sources import Sources

Vary = Literal["training", "all"]
SUMMARY = "sweep.json"
MOST_SEEDS = 1000
_FOLDER = re.compile(r"seed-\d+")


@dataclass(frozen=True)
class Job:
    """One run of a sweep; it travels to a worker with the sources.

    Attributes:
        seed: of the sweep.
        settings: of its run.
        tracks: that it makes.
        limits: it is judged by.
    """

    seed: int
    settings: Settings
    tracks: tuple[str, ...]
    limits: Limits


@dataclass(frozen=True)
class Sweep:
    """What is to be done.

    Attributes:
        folder: of the sweep, with a run folder for each seed.
        sources: that all seeds are made from.
        jobs: one for each seed.
        vary: what the seeds vary.
    """

    folder: Path
    sources: Sources
    jobs: tuple[Job, ...]
    vary: Vary

    def run_folder(self, seed: int) -> Path:
        """Of one seed."""
        return self.folder / f"seed-{seed}"

    @property
    def inputs(self) -> bytes:
        """The sources as bytes, for workers without our files; `unpacked` reads them."""
        return zlib.compress(pickle.dumps(self.sources, protocol=5), level=1)


def unpacked(inputs: bytes) -> Sources:
    """What `Sweep.inputs` holds."""
    sources: Sources = pickle.loads(zlib.decompress(inputs))
    return sources


def plan_sweep(
    folder: Path,
    sources: Sources,
    settings: Settings,
    seeds: Sequence[int],
    tracks: Sequence[str],
    limits: Limits,
    vary: Vary = "training",
) -> Sweep:
    """A job for each seed.

    With ``training`` all seeds share dataset and scenarios, which come from the settings' seed, so that their runs are
    paired episode by episode and differ in what training makes of them alone. With ``all`` a seed is that of a run.
    """
    jobs = tuple(Job(seed, _seeded(settings, seed, vary), tuple(tracks), limits) for seed in seeds)
    return Sweep(folder, sources, jobs, vary)


def _seeded(settings: Settings, seed: int, vary: Vary) -> Settings:
    return replace(settings, seed=seed) if vary == "all" else replace(settings, training_seed=seed)


def parse_seeds(text: str) -> tuple[int, ...]:
    """``0:8`` (0 to 7), ``3,5`` or both, ``0:4,9`` -> the seeds in order.

    Raises:
        InputError: it is nothing of the kind, names none, too many, or one twice.
    """
    expected = "as 0:8 for 0 to 7, or 3,5,9"
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,9})(?::(\d{1,9}))?\s*", part)
        if not found:
            raise InputError(f"not seeds: {text}", where="--seeds", expected=expected)
        first, end = int(found[1]), int(found[2] or int(found[1]) + 1)
        if end - first > MOST_SEEDS:
            raise InputError(f"{end - first} seeds", where="--seeds", expected=f"at most {MOST_SEEDS}")
        seeds += range(first, end)
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"{'a seed twice' if seeds else 'no seed'}: {text}", where="--seeds", expected=expected)
    return tuple(sorted(seeds))


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """The exclusive right to a sweep's folder, made if it is not there. An earlier summary is taken away.

    Raises:
        InputError: it holds something else, is a file, cannot be made, or another sweep is at work in it.
    """
    hint = "give another --out"
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file", where=folder, expected="a folder for the sweep", hint=hint)
    known = {SUMMARY, LOCK}
    if folder.exists() and any(one.name not in known and not _FOLDER.fullmatch(one.name) for one in folder.iterdir()):
        expected = "a new, empty or sweep folder"
        raise InputError("holds files that are not a sweep's", where=folder, expected=expected, hint=hint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made: {error.strerror}", where=folder, hint=hint) from error
    with changing(folder):
        (folder / SUMMARY).unlink(missing_ok=True)
        yield


def is_finished(folder: Path, job: Job, sources: Sources) -> bool:
    """Whether a folder is the finished run that the job asks for, made from these sources by this installation."""
    try:
        manifest = check_manifest(folder)
        settings = read_settings(folder)
        description = read_json(folder / DESCRIPTION)
        origins, given = description["origins"], description["given"]
        limits = read_json(folder / WINNER)["limits"]
        policy = manifest["files"][POLICY]["sha256"]
        drives = [one["sha256"] for one in origins if one["kind"] == "drive"]
    except (QuantError, KeyError, TypeError):
        return False
    asked = replace(job.settings, tracks=job.tracks)
    return bool(
        settings == asked
        and limits == job.limits.to_json()
        and policy == sha256(policy_bytes(sources.policy))
        and drives == [drive.sha256 for drive in sources.drives]
        and given == sources.observation
        and manifest.get("versions") == versions()
        and manifest.get("quant_sha256") == package_sha256()
    )


def keep(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes the files of a finished run, the manifest last, in place of whatever run the folder holds.

    The manifest names the commit of the project worked in, which is here and not on the worker.

    Args:
        folder: the run's.
        files: content by path within the run, as :func:`collect` gives it.
    """
    claim(folder)
    with changing(folder):
        clear(folder)
        for name, content in files.items():
            if name != MANIFEST:
                write_bytes(folder / _inside(name), content)
        write_bytes(folder / MANIFEST, files[MANIFEST])
        manifest = read_json(folder / MANIFEST)
        write_json(folder / MANIFEST, manifest | {"git_commit": project_commit()})


def _inside(name: str) -> Path:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise QuantError("a worker sent a file that is not of a run", where=name)
    return path


def collect(folder: Path) -> dict[str, bytes]:
    """Every file of a finished run: content by path within it."""
    manifest: dict[str, Any] = check_manifest(folder)
    return {name: (folder / name).read_bytes() for name in (*manifest["files"], MANIFEST)}
