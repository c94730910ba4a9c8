"""Frames as they were recorded: a vehicle's drive, or the float policy's own rollouts in a world."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quant.dataset.keys import T_MS, Held, held_in, in_words, rename, time_keys, unknown_times
from quant.errors import InputError
from quant.files import read_bytes, sha256
from quant.observation.checks import mask_findings, time_findings
from quant.observation.findings import Finding, refuse
from quant.observation.observations import EGO, PEER_MASK, PEERS, Observations
from quant.observation.relations import holes
from quant.observation.resolve import Series
from quant.policy.policy import Policy

Kind = Literal["drive", "rollout"]

KEYS = (EGO, PEERS, PEER_MASK, T_MS)

MAX_BYTES = 1 << 30
"""Bytes a drive may unpack to: a day at 10 Hz is a fifth of it."""

UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    SyntaxError,
    MemoryError,
    OverflowError,
)
"""What ``zipfile`` and NumPy raise on damaged archives."""

BLOCK_FRAMES = 100
"""Frames of a drive that go to the same split: 10 s at 10 Hz, longer than any manoeuvre's memory in an observation."""


@dataclass(frozen=True)
class Recording:
    """Frames in the order they were seen.

    Attributes:
        name: file name of a drive, or the world's name.
        kind: where the frames come from.
        observations: N frames.
        block: (N,) int64; frames of one block (a time block of a drive, an episode of a world) are never split.
        sha256: of the drive's file; of the scenarios for rollouts.
        t_ms: (N,) milliseconds of each frame; None where nobody wrote them down.
        findings: what was found in the drive's file and may pass.
    """

    name: str
    kind: Kind
    observations: Observations
    block: NDArray[np.int64]
    sha256: str
    t_ms: NDArray[np.float64] | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def series(self) -> Series:
        """Its observations in order: a row follows the one before it where both are of one episode, or no hole lies
        between them."""
        if self.kind == "rollout":
            same = self.block[1:] == self.block[:-1]
        else:
            same = np.ones(len(self.block) - 1, np.bool_) if self.t_ms is None else ~holes(self.t_ms)
        return Series(self.observations, np.concatenate([np.zeros(min(len(self.block), 1), np.bool_), same]), self.t_ms)


def read_drive(path: Path, policy: Policy, allow: Collection[str] = ()) -> Recording:
    """Reads a drive: an ``.npz`` with ``ego`` (N, E), ``peers`` (N, P, F) and ``peer_mask`` (N, P), normalized.

    ``t_ms`` (N,), where it is there, has to increase; other arrays are not read. What stands in the slot of an absent
    peer is never used, so it may be anything. For a policy with more peer slots than the drive has, slots are added.

    Args:
        path: of the drive.
        policy: it is for.
        allow: names of findings (`quant.observation.findings.NAMES`) that are let through although they are certain.

    Raises:
        InputError: the file is not such an archive, its shapes, values or widths do not fit the policy, its mask marks
            other slots than the filled ones, or its times do not increase.
    """
    content = read_bytes(path)
    held, arrays = _arrays(content, path)
    missing = [key for key in (EGO, PEERS, PEER_MASK) if key not in arrays]
    times = {key: array for key, array in arrays.items() if key not in KEYS}
    if missing:
        raise InputError(
            f"the drive lacks {', '.join(missing)}",
            where=path,
            expected=f"arrays ego, peers, peer_mask; {in_words(held, times)}",
            hint="it looks like a checkpoint: quant run FILE --drive DRIVE" if _is_policy(content) else rename(held),
        )
    ego, peers, mask = (_numbers(arrays[key], f"{path}:{key}") for key in (EGO, PEERS, PEER_MASK))
    _fit(ego, peers, mask, policy, path)
    present = mask == 1
    found = [*unknown_times(held, times, path.name), *mask_findings(peers, present, path.name)]
    t_ms = None
    if T_MS in arrays:
        _check_times(arrays[T_MS], len(ego), f"{path}:{T_MS}")
        t_ms = np.asarray(arrays[T_MS], np.float64)
        disordered = time_findings(t_ms, path.name)
        found += disordered
        t_ms = None if disordered else t_ms
    passed = refuse(found, allow, path)
    peers = np.where(present[:, :, None], peers, np.float32(0))
    _check_finite(ego, f"{path}:{EGO}")
    _check_finite(peers, f"{path}:{PEERS}")
    slots = policy.max_peers - peers.shape[1]
    observations = Observations(ego, np.pad(peers, ((0, 0), (0, slots), (0, 0))), np.pad(present, ((0, 0), (0, slots))))
    return Recording(path.name, "drive", observations, blocks_of(len(ego), t_ms), sha256(content), t_ms, passed)


def blocks_of(frames: int, t_ms: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """(N,) blocks of `BLOCK_FRAMES` frames each, none across a hole in the times."""
    rows = np.arange(frames, dtype=np.int64)
    if t_ms is None or frames == 0:
        return rows // BLOCK_FRAMES
    starts = np.concatenate([[True], holes(t_ms)])
    since = rows - rows[starts][np.cumsum(starts) - 1]
    return np.asarray(np.cumsum(since % BLOCK_FRAMES == 0) - 1, np.int64)


def _arrays(content: bytes, path: Path) -> tuple[dict[str, Held], dict[str, NDArray[Any]]]:
    """What the archive holds, and of it what a drive is made of and what may be its times under another key."""
    if not zipfile.is_zipfile(io.BytesIO(content)):  # numpy.load would take a pickle or a single array
        raise InputError("not a readable .npz drive", where=path, expected="the file numpy.savez writes")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_size(archive, path)
        held = held_in(content)
        frames = next((one.shape[0] for one in held.values() if len(one.shape) > 1), None)
        wanted = (*KEYS, *(() if T_MS in held else time_keys(held, frames)))
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return held, {key: np.asarray(archive[key]) for key in wanted if key in archive}
    except UNREADABLE as error:
        raise InputError(
            "not a readable .npz drive", where=path, expected="the file numpy.savez writes", hint=str(error)
        ) from error


def _is_policy(content: bytes) -> bool:
    """Whether it is Stable-Baselines3's archive or our own: given where the drive belongs."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return any(name in ("policy.pth", "policy.json") for name in archive.namelist())


def _check_size(archive: zipfile.ZipFile, path: Path) -> None:
    size = sum(info.file_size for info in archive.infolist())
    if size > MAX_BYTES:
        raise InputError(f"unpacks to {size} bytes", where=path, expected=f"a drive, at most {MAX_BYTES} bytes")


def _numbers(array: NDArray[Any], where: str) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiub":
        raise InputError(f"holds {array.dtype}, not numbers", where=where, expected="float32")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused as such
        return array.astype(np.float32)


def _check_finite(values: NDArray[np.float32], where: str) -> None:
    if not np.isfinite(values).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise InputError(
            f"not a finite number at {at}", where=where, hint="drop or repair the frame before recording it"
        )


def _check_times(times: NDArray[Any], frames: int, where: str) -> None:
    if times.dtype.kind not in "fiu" or times.shape != (frames,):
        raise InputError(f"is {times.shape} {times.dtype}", where=where, expected=f"({frames},) milliseconds")


def _fit(
    ego: NDArray[np.float32], peers: NDArray[np.float32], mask: NDArray[np.float32], policy: Policy, path: Path
) -> None:
    n = len(ego) if ego.ndim else 0
    if n == 0:
        raise InputError("the drive has no frames", where=path, expected=f"ego (N, {policy.ego_size}), one row a frame")
    if ego.shape != (n, policy.ego_size):
        raise InputError(
            f"the drive's ego is {ego.shape}, the policy's ego has {policy.ego_size} features",
            where=f"{path}:ego",
            expected=f"(N, {policy.ego_size})",
            hint="give a drive recorded with the observation this policy was trained on",
        )
    if peers.ndim != 3 or len(peers) != n or peers.shape[2] != policy.peer_size or peers.shape[1] > policy.max_peers:
        raise InputError(
            f"the drive's peers are {peers.shape}",
            where=f"{path}:peers",
            expected=f"({n}, at most {policy.max_peers}, {policy.peer_size})",
        )
    if mask.shape != peers.shape[:2]:
        raise InputError(f"peer_mask is {mask.shape}", where=f"{path}:peer_mask", expected=str(peers.shape[:2]))
    if not np.isin(mask, (0, 1)).all():
        raise InputError(
            "peer_mask holds values other than 0 and 1", where=f"{path}:peer_mask", expected="1 where a peer is present"
        )
