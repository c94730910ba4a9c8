"""The dataset's artifacts: four arrays, an index of their rows, and a description that loading checks."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.dataset.augmentation import PEER_FEATURES
from quant.errors import InputError, StaleError
from quant.files import read_bytes, read_json, sha256, write_json, write_npy
from quant.observation.contract import Contract, whose
from quant.observation.findings import Finding, findings_from_json, findings_to_json
from quant.observation.observations import F32, Observations
from quant.observation.storage import contract_from_json
from quant.policy.policy import Policy

PEER_INPUTS = "quant_dataset_peer_inputs.npy"
POLICY_INPUTS = "quant_dataset_policy_inputs.npy"
PEER_OUTPUTS = "quant_dataset_peer_outputs.npy"
POLICY_OUTPUTS = "quant_dataset_policy_outputs.npy"
INDEX = "quant_dataset_index.npy"
DESCRIPTION = "quant_dataset.json"
FILES = (PEER_INPUTS, POLICY_INPUTS, PEER_OUTPUTS, POLICY_OUTPUTS, INDEX)

SCHEMA_VERSION = 2
COLUMNS = ("split", "origin", "block", "frame", "peers", "made")


class Split(IntEnum):
    """What a row may be used for."""

    CALIBRATION = 0
    TRAINING = 1
    HELD_OUT = 2


class Made(IntEnum):
    """How a row came about."""

    SEEN = 0
    AUGMENTED = 1
    FILLED = 2


@dataclass(frozen=True)
class Origin:
    """One recording the rows came from: its name, kind, hash, frames, and the ego columns derived from the peers."""

    name: str
    kind: str
    sha256: str
    frames: int
    derived: dict[int, str]


@dataclass(frozen=True)
class Dataset:
    """N frames with what the float policy makes of them; M peers in all, a frame's peers one after another.

    Attributes:
        peer_inputs: (M, F) float32, one row a peer present.
        peer_outputs: (M, D) float32, their embeddings.
        policy_inputs: (N, D + E) float32, [z, ego].
        policy_outputs: (N, A) float32, logits, or actions before clipping.
        index: (N, 6) int32, the columns `COLUMNS`: split; origin, its place in ``origins``; block of that recording;
            frame of that recording; peers, the number present; made, a code of `Made`: an augmented frame was made from
            that frame.
        origins: the recordings.
        policy_sha256: digest of the policy that computed the outputs.
        max_peers: P.
        seed: of splitting, augmentation and filling.
        contract: of the observation, with a bound everywhere.
        given: what the user said of the observation; None where that was nothing.
        findings: what of the recordings does not hold to the contract and was let through.
    """

    peer_inputs: F32
    peer_outputs: F32
    policy_inputs: F32
    policy_outputs: F32
    index: NDArray[np.int32]
    origins: tuple[Origin, ...]
    policy_sha256: str
    max_peers: int
    seed: int
    contract: Contract
    given: Mapping[str, Any] | None = None
    findings: tuple[Finding, ...] = ()

    def __len__(self) -> int:
        return len(self.index)

    def column(self, name: str) -> NDArray[np.int32]:
        """(N,) one column of the index by name."""
        return self.index[:, COLUMNS.index(name)]

    @property
    def digest(self) -> str:
        """SHA-256 over the arrays' bytes."""
        return sha256(b"".join(sha256(array.tobytes()).encode() for array in self.arrays().values()))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by file name."""
        return dict(
            zip(
                FILES,
                (self.peer_inputs, self.policy_inputs, self.peer_outputs, self.policy_outputs, self.index),
                strict=True,
            )
        )

    def rows(self, split: Split, *made: Made) -> NDArray[np.int64]:
        """Frames of a split; only those that came about so, where it is said."""
        chosen = self.column("split") == split
        if made:
            chosen &= np.isin(self.column("made"), made)
        return np.flatnonzero(chosen)

    @property
    def unvaried(self) -> tuple[str, ...]:
        """Features with one value in all frames that tracks learn from, but the filled ones, by name."""
        rows = np.concatenate(
            [self.rows(split, Made.SEEN, Made.AUGMENTED) for split in Split if split < Split.HELD_OUT]
        )
        peers, ego = self.peer_inputs[self.peer_rows(rows)], self.policy_inputs[rows, self.peer_outputs.shape[1] :]
        of_peers, of_ego = _constant(peers), _constant(ego)
        # An older frame's column that never varied is worth a word where what it is a copy of did.
        alone = [i for i in of_ego if self.contract.ego[i].copy_of not in of_ego]
        names = self.contract.names(peers=True), self.contract.names(peers=False)
        return (*(whose("peers", names[0][i]) for i in of_peers), *(whose("ego", names[1][i]) for i in alone))

    def peer_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of ``peer_inputs`` that belong to these frames."""
        owner = np.repeat(np.arange(len(self)), self.column("peers"))
        return np.flatnonzero(np.isin(owner, rows))

    def observations(self, rows: NDArray[np.int64]) -> Observations:
        """The frames as the policy saw them, peers in the first slots."""
        counts = self.column("peers").astype(np.int64)
        starts = np.cumsum(counts) - counts
        mask = np.arange(self.max_peers) < counts[rows, None]
        peers = np.zeros((*mask.shape, self.peer_inputs.shape[1]), np.float32)
        peers[mask] = self.peer_inputs[(starts[rows, None] + np.arange(self.max_peers))[mask]]
        return Observations(self.policy_inputs[rows, self.peer_outputs.shape[1] :], peers, mask)


def spread(n: int, most: int) -> NDArray[np.int64]:
    """Up to ``most`` of n indices, in order and evenly from the first to the last."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)


def _constant(x: F32) -> list[int]:
    return np.flatnonzero((x == x[:1]).all(axis=0)).tolist() if len(x) else []


def save_dataset(dataset: Dataset, folder: Path) -> None:
    """Writes the arrays and, last, their description."""
    for name, array in dataset.arrays().items():
        write_npy(folder / name, array)
    write_json(folder / DESCRIPTION, describe(dataset))


def describe(dataset: Dataset) -> dict[str, Any]:
    """The description: shape, dtype, unit and hash of each array, columns and codes of the index, origins, digest."""
    peer_units = PEER_FEATURES if dataset.peer_inputs.shape[1] == len(PEER_FEATURES) else "normalized as trained"
    units = {
        PEER_INPUTS: peer_units,
        POLICY_INPUTS: "pooled embedding z, then the ego's features normalized as trained",
        PEER_OUTPUTS: "embedding",
        POLICY_OUTPUTS: "logits, or actions before clipping",
        INDEX: list(COLUMNS),
    }
    rows = {split.name.lower(): split for split in Split}
    return {
        "schema_version": SCHEMA_VERSION,
        "digest": dataset.digest,
        "policy_sha256": dataset.policy_sha256,
        "seed": dataset.seed,
        "max_peers": dataset.max_peers,
        "contract": dataset.contract.to_json(),
        "given": None if dataset.given is None else dict(dataset.given),
        "observation_findings": findings_to_json(dataset.findings),
        "arrays": {
            name: {
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "unit": units[name],
                "sha256": sha256(array.tobytes()),
            }
            for name, array in dataset.arrays().items()
        },
        "splits": {
            name: {
                "code": int(split),
                "recorded": len(dataset.rows(split, Made.SEEN)),
                "augmented": len(dataset.rows(split, Made.AUGMENTED)),
                "filled": len(dataset.rows(split, Made.FILLED)),
                "frames_by_peer_count": np.bincount(
                    dataset.column("peers")[dataset.rows(split)], minlength=dataset.max_peers + 1
                ).tolist(),
            }
            for name, split in rows.items()
        },
        "origins": [
            {
                "name": origin.name,
                "kind": origin.kind,
                "sha256": origin.sha256,
                "frames": origin.frames,
                "ego_columns_computed_from_peers": {str(column): name for column, name in origin.derived.items()},
            }
            for origin in dataset.origins
        ],
    }


def load_dataset(folder: Path, policy: Policy | None = None, policy_sha256: str | None = None) -> Dataset:
    """Reads the artifacts and checks them: presence, shapes, dtypes, hashes, and that the policy is the one they show.

    Args:
        folder: of the run.
        policy: if given, the outputs of a sample of rows are computed again.
        policy_sha256: if given, the digest the dataset has to carry.

    Raises:
        InputError: a file is missing or is not what the description says, or the description contradicts itself.
        StaleError: the dataset was made from another policy.
    """
    path = folder / DESCRIPTION
    description = read_json(path)
    if not isinstance(description, dict) or description.get("schema_version") != SCHEMA_VERSION:
        raise InputError("not a dataset description of this version", where=path, expected=f"version {SCHEMA_VERSION}")
    try:
        arrays = {name: _load(folder / name, description["arrays"][name]) for name in FILES}
        dataset = Dataset(
            peer_inputs=arrays[PEER_INPUTS],
            peer_outputs=arrays[PEER_OUTPUTS],
            policy_inputs=arrays[POLICY_INPUTS],
            policy_outputs=arrays[POLICY_OUTPUTS],
            index=arrays[INDEX],
            origins=tuple(_origin(origin) for origin in description["origins"]),
            policy_sha256=str(description["policy_sha256"]),
            max_peers=int(description["max_peers"]),
            seed=int(description["seed"]),
            contract=contract_from_json(description["contract"], path),
            given=description["given"],
            findings=findings_from_json(description.get("observation_findings", ())),
        )
        digest = str(description["digest"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"the description lacks or garbles {error}", where=path, hint="make it again: quant dataset"
        ) from error
    _check(dataset, folder)
    if digest != dataset.digest:
        raise InputError("its digest is not that of the arrays", where=path, hint="make it again: quant dataset")
    if policy_sha256 is not None and dataset.policy_sha256 != policy_sha256:
        raise StaleError(
            "the dataset was made from another policy",
            where=path,
            expected=f"policy {policy_sha256[:12]}, found {dataset.policy_sha256[:12]}",
            hint="make it again: quant dataset",
        )
    if policy is not None:
        _check_outputs(dataset, policy, folder)
    return dataset


def _origin(value: dict[str, Any]) -> Origin:
    derived = {int(column): str(name) for column, name in value["ego_columns_computed_from_peers"].items()}
    return Origin(value["name"], value["kind"], value["sha256"], int(value["frames"]), derived)


def _load(path: Path, entry: dict[str, Any]) -> NDArray[Any]:
    content = read_bytes(path)
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, MemoryError, OverflowError, zipfile.BadZipFile) as error:
        raise InputError("not a readable .npy array", where=path, hint=str(error)) from error
    if not isinstance(array, np.ndarray):
        raise InputError("not a .npy array", where=path, hint="make it again: quant dataset")
    rank, dtype = (2, "int32" if path.name == INDEX else "float32")
    if (array.ndim, str(array.dtype)) != (rank, dtype):
        raise InputError(f"is {array.shape} {array.dtype}", where=path, expected=f"a {dtype} array of rank {rank}")
    if list(array.shape) != entry["shape"] or str(array.dtype) != entry["dtype"]:
        raise InputError(
            f"is {array.shape} {array.dtype}", where=path, expected=f"{tuple(entry['shape'])} {entry['dtype']}"
        )
    if sha256(array.tobytes()) != entry["sha256"]:
        raise InputError(
            "its content is not what the description was written for",
            where=path,
            expected=f"sha256 {entry['sha256'][:12]}",
            hint="make the dataset again: quant dataset",
        )
    return array


def _check(dataset: Dataset, folder: Path) -> None:
    _check_index(dataset, folder / INDEX)
    peers = int(dataset.column("peers").sum())
    frames = len(dataset)
    lengths = {
        PEER_INPUTS: (len(dataset.peer_inputs), peers),
        PEER_OUTPUTS: (len(dataset.peer_outputs), peers),
        POLICY_INPUTS: (len(dataset.policy_inputs), frames),
        POLICY_OUTPUTS: (len(dataset.policy_outputs), frames),
    }
    for name, (length, expected) in lengths.items():
        if length != expected:
            raise InputError(
                f"has {length} rows, the index counts {expected}",
                where=folder / name,
                hint="make it again: quant dataset",
            )
        if not np.isfinite(dataset.arrays()[name]).all():
            raise InputError(
                "holds a number that is not finite", where=folder / name, hint="make it again: quant dataset"
            )


def _check_index(dataset: Dataset, path: Path) -> None:
    if dataset.index.shape[1] != len(COLUMNS):
        raise InputError(f"has {dataset.index.shape[1]} columns", where=path, expected=", ".join(COLUMNS))
    highest: dict[str, int | NDArray[np.int64]] = {
        "split": max(Split),
        "origin": len(dataset.origins) - 1,
        "peers": dataset.max_peers,
        "made": max(Made),
    }
    for name, most in highest.items():
        _check_column(dataset, name, most, path)
    frames = np.array([origin.frames for origin in dataset.origins], np.int64)
    _check_column(dataset, "frame", frames[dataset.column("origin")] - 1, path)


def _check_column(dataset: Dataset, name: str, most: int | NDArray[np.int64], path: Path) -> None:
    values = dataset.column(name)
    wrong = (values < 0) | (values > most)
    if wrong.any():
        row = int(np.argmax(wrong))
        limit = int(np.broadcast_to(most, values.shape)[row])
        raise InputError(f"{name} is {values[row]} in row {row}", where=path, expected=f"0 to {limit}")


def _check_outputs(dataset: Dataset, policy: Policy, folder: Path) -> None:
    rows = spread(len(dataset), 256)
    hint = "make the dataset again: quant dataset"
    sizes = (
        dataset.peer_inputs.shape[1],
        dataset.peer_outputs.shape[1],
        dataset.policy_inputs.shape[1],
        dataset.policy_outputs.shape[1],
        dataset.max_peers,
    )
    expected = (
        policy.peer_size,
        policy.embedding_size,
        policy.head[0].inputs,
        policy.action_space.width,
        policy.max_peers,
    )
    if sizes != expected:
        raise StaleError("the dataset has other sizes than the policy", where=folder / DESCRIPTION, hint=hint)
    frames = dataset.observations(rows)
    forward = policy.forward(frames)
    for name, computed, stored in (
        (PEER_OUTPUTS, forward.embeddings[frames.mask], dataset.peer_outputs[dataset.peer_rows(rows)]),
        (POLICY_INPUTS, forward.head_inputs, dataset.policy_inputs[rows]),
        (POLICY_OUTPUTS, forward.values, dataset.policy_outputs[rows]),
    ):
        if not np.allclose(computed, stored, rtol=1e-4, atol=1e-4):
            raise StaleError("is not what the policy computes", where=folder / name, hint=hint)
