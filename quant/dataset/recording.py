"""Frames as they were recorded: a vehicle's drive, or the float policy's own rollouts in a world."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.files import read_bytes, sha256
from quant.observation.observations import EGO, PEER_MASK, PEERS, Observations
from quant.observation.resolve import Series
from quant.policy.policy import Policy

Kind = Literal["drive", "rollout"]

T_MS = "t_ms"

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
    """

    name: str
    kind: Kind
    observations: Observations
    block: NDArray[np.int64]
    sha256: str
    t_ms: NDArray[np.float64] | None = None

    @property
    def series(self) -> Series:
        """Its observations in order: a row follows the one before it where both are of one block, or of one drive."""
        same = self.block[1:] == self.block[:-1] if self.kind == "rollout" else np.ones(len(self.block) - 1, np.bool_)
        return Series(self.observations, np.concatenate([np.zeros(min(len(self.block), 1), np.bool_), same]), self.t_ms)


def read_drive(path: Path, policy: Policy) -> Recording:
    """Reads a drive: an ``.npz`` with ``ego`` (N, E), ``peers`` (N, P, F) and ``peer_mask`` (N, P), normalized.

    ``t_ms`` (N,), where it is there, has to increase; other arrays are ignored. What stands in the slot of an absent
    peer is never read, so it may be anything. For a policy with more peer slots than the drive has, slots are added.

    Raises:
        InputError: the file is not such an archive, or its shapes, values or widths do not fit the policy.
    """
    content = read_bytes(path)
    arrays = _arrays(content, path)
    missing = [key for key in (EGO, PEERS, PEER_MASK) if key not in arrays]
    if missing:
        raise InputError(
            f"the drive lacks {', '.join(missing)}",
            where=path,
            expected="arrays ego, peers, peer_mask",
            hint="it looks like a checkpoint: quant run FILE --drive DRIVE" if _is_policy(content) else None,
        )
    ego, peers, mask = (_numbers(arrays[key], f"{path}:{key}") for key in (EGO, PEERS, PEER_MASK))
    _fit(ego, peers, mask, policy, path)
    if T_MS in arrays:
        _check_times(arrays[T_MS], len(ego), f"{path}:{T_MS}")
    present = mask == 1
    peers = np.where(present[:, :, None], peers, np.float32(0))
    _check_finite(ego, f"{path}:{EGO}")
    _check_finite(peers, f"{path}:{PEERS}")
    slots = policy.max_peers - peers.shape[1]
    observations = Observations(ego, np.pad(peers, ((0, 0), (0, slots), (0, 0))), np.pad(present, ((0, 0), (0, slots))))
    block = np.arange(len(ego), dtype=np.int64) // BLOCK_FRAMES
    times = np.asarray(arrays[T_MS], np.float64) if T_MS in arrays else None
    return Recording(path.name, "drive", observations, block, sha256(content), times)


def _arrays(content: bytes, path: Path) -> dict[str, NDArray[Any]]:
    if not zipfile.is_zipfile(io.BytesIO(content)):  # numpy.load would take a pickle or a single array
        raise InputError("not a readable .npz drive", where=path, expected="the file numpy.savez writes")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_size(archive, path)
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {key: np.asarray(archive[key]) for key in (EGO, PEERS, PEER_MASK, T_MS) if key in archive}
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
    # Not "<=": a time that is not a number increases nowhere.
    standing = ~(times[1:] > times[:-1])
    if standing.any():
        row = int(np.argmax(standing)) + 1
        raise InputError(f"time does not increase at frame {row}", where=where, expected="increasing times")


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
