"""What a drive's archive holds under which keys, and which of them are likely meant where right ones are missing."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.observation.findings import Finding
from quant.observation.observations import EGO, PEER_MASK, PEERS

T_MS = "t_ms"
TIME = re.compile(
    r"(^|_)(t|ts|time|times|timestamps?|stamps?|clock|millis|sec|secs|seconds)(_|$)|timestamp", re.IGNORECASE
)
"""What keys of times are commonly called."""
SUFFIX = ".npy"


@dataclass(frozen=True)
class Held:
    """One array of an archive, by its header: nothing of it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.shape} {self.dtype}"


def held_in(content: bytes) -> dict[str, Held]:
    """The arrays of a ``.npz`` by key; what has no readable header is left out."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            if not name.endswith(SUFFIX):
                continue
            try:
                with archive.open(name) as stream:
                    version = np.lib.format.read_magic(stream)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(stream)
            except (ValueError, zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError):
                continue
            found[name.removesuffix(SUFFIX)] = Held(shape, dtype)
    return found


def guesses(held: Mapping[str, Held]) -> dict[str, str]:
    """For each key that a drive should have the one that is likely meant, by shape and name."""
    shapes = {EGO: 2, PEERS: 3, PEER_MASK: 2}
    found: dict[str, str] = {}
    frames = next((one.shape[0] for one in held.values() if len(one.shape) > 1), None)
    for key in (PEERS, PEER_MASK, EGO):
        fitting = [
            name
            for name, one in held.items()
            if name not in found.values() and len(one.shape) == shapes[key] and one.dtype.kind in "fiub"
        ]
        if key in held or not fitting:
            continue
        named = [name for name in fitting if key.split("_")[-1] in name.lower()]
        if key == PEER_MASK and PEERS in found and not named:
            named = [name for name in fitting if held[name].shape == held[found[PEERS]].shape[:2]]
        if named or len(fitting) == 1:
            found[key] = (named or fitting)[0]
    times = time_keys(held, frames)
    if T_MS not in held and times:
        found[T_MS] = times[0]
    return found


def time_keys(held: Mapping[str, Held], frames: int | None) -> list[str]:
    """Keys that are named like times and hold one number a frame."""
    return [
        name
        for name, one in held.items()
        if name != T_MS and TIME.search(name) and one.shape == (frames,) and one.dtype.kind in "fiuM"
    ]


def in_words(held: Mapping[str, Held], times: Mapping[str, NDArray[Any]]) -> str:
    """What an archive holds and what is likely meant; times that run backwards are told."""
    if not held:
        return "it holds no array"
    meant = {name: key for key, name in guesses(held).items()}
    words = []
    for name, one in held.items():
        likely = f", likely {meant[name]}" if name in meant else ""
        back = ", which runs backwards" if name in times and _backwards(times[name]) else ""
        words.append(f"{name} {one}{likely}{back}")
    return "it holds " + "; ".join(words)


def rename(held: Mapping[str, Held]) -> str | None:
    """How to save the drive under the right keys, where it is known which is which."""
    meant = guesses(held)
    if not {EGO, PEERS, PEER_MASK} <= {*meant, *held}:
        return None
    pairs = ", ".join(f'{key}=d["{meant.get(key, key)}"]' for key in (EGO, PEERS, PEER_MASK))
    time = f', t_ms=d["{meant[T_MS]}"]' if T_MS in meant else ""
    return f"d = numpy.load(FILE); numpy.savez(NEW, {pairs}{time})"


def unknown_times(held: Mapping[str, Held], times: Mapping[str, NDArray[Any]], where: str) -> tuple[Finding, ...]:
    """Times under another key, which are not read."""
    if T_MS in held or not times:
        return ()
    name, values = next(iter(times.items()))
    found = f"{name} {held[name]} is not read, so nothing is known of when frames were made"
    if _backwards(values):
        found += "; it runs backwards"
    return (Finding("unknown-time-key", False, where, name, (), found, "milliseconds under t_ms", f"{name} is t_ms"),)


def _backwards(values: NDArray[Any]) -> bool:
    return len(values) > 1 and bool((values[1:] < values[:-1]).any())
