"""The dataset's files: what is written is read back, and each kind of damage is refused with the file named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quant.dataset import Dataset, load_dataset, save_dataset
from quant.dataset.storage import (
    COLUMNS,
    DESCRIPTION,
    FILES,
    INDEX,
    PEER_INPUTS,
    PEER_OUTPUTS,
    POLICY_INPUTS,
    POLICY_OUTPUTS,
    describe,
)
from quant.errors import InputError, QuantError, StaleError
from quant.files import write_npy
from quant.policy import Box, policy_digest
from tests.tracks import strategies

POLICY = strategies.policy()
SHA256 = policy_digest(POLICY)
DATASET = strategies.dataset_of(POLICY)
FLOATS = (PEER_INPUTS, POLICY_INPUTS, PEER_OUTPUTS, POLICY_OUTPUTS)
FIELDS = dict(zip(FILES, ("peer_inputs", "policy_inputs", "peer_outputs", "policy_outputs", "index"), strict=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_dataset(DATASET, tmp_path)
    return tmp_path


def load(folder: Path) -> Dataset:
    return load_dataset(folder, POLICY, SHA256)


def refused(folder: Path, name: str, kind: type[QuantError] = InputError) -> QuantError:
    with pytest.raises(kind) as caught:
        load(folder)
    assert Path(str(caught.value.where)) == folder / name
    return caught.value


def forge(folder: Path, **changes: Any) -> None:
    """A dataset that contradicts itself but whose hashes are right, as a careless tool would write it."""
    save_dataset(replace(DATASET, **changes), folder)


def test_round_trip(folder: Path) -> None:
    loaded = load(folder)
    for name, array in DATASET.arrays().items():
        np.testing.assert_array_equal(loaded.arrays()[name], array)
        assert loaded.arrays()[name].dtype == array.dtype
    assert loaded.origins == DATASET.origins
    assert (loaded.policy_sha256, loaded.max_peers, loaded.seed) == (SHA256, 8, 0)
    assert loaded.digest == DATASET.digest


def test_the_arrays_have_the_plans_names_and_open_with_numpy(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted((*FILES, DESCRIPTION))
    assert set(FLOATS) == {
        f"quant_dataset_{name}.npy" for name in ("peer_inputs", "policy_inputs", "peer_outputs", "policy_outputs")
    }
    np.testing.assert_array_equal(np.load(folder / PEER_INPUTS), DATASET.peer_inputs)


def test_saving_twice_gives_the_same_bytes(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    save_dataset(load(folder), other)
    for path in folder.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_the_description_says_shape_dtype_unit_and_splits(folder: Path) -> None:
    description = json.loads((folder / DESCRIPTION).read_bytes())
    assert description == json.loads(json.dumps(describe(DATASET)))
    for name, array in DATASET.arrays().items():
        entry = description["arrays"][name]
        assert entry["shape"] == list(array.shape) and entry["dtype"] == array.dtype.name and entry["unit"]
    assert description["arrays"][INDEX]["unit"] == list(COLUMNS)
    counted = [split["recorded"] + split["augmented"] + split["filled"] for split in description["splits"].values()]
    assert sum(counted) == len(DATASET)
    assert [sum(split["frames_by_peer_count"]) for split in description["splits"].values()] == counted
    assert description["origins"][0]["frames"] == 600


@pytest.mark.parametrize("name", (*FILES, DESCRIPTION))
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert refused(folder, name).what == "no such file"


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_is_found(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    assert "quant dataset" in str(refused(folder, name).hint)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "change",
    [
        lambda array: array[:-1],
        lambda array: array.astype(np.float64),
        lambda array: array.ravel(),
        lambda array: array[:, :-1],
    ],
    ids=["shorter", "float64", "flat", "narrower"],
)
def test_another_shape_or_dtype_is_refused(
    folder: Path, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    write_npy(folder / name, change(DATASET.arrays()[name]))
    refused(folder, name)


@pytest.mark.parametrize("name", FLOATS)
def test_float64_is_refused_even_where_the_description_says_so(folder: Path, name: str) -> None:
    forge(folder, **{FIELDS[name]: DATASET.arrays()[name].astype(np.float64)})
    assert "float32" in str(refused(folder, name).expected)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01\x00\xff\xff{", b"PK\x05\x06" + bytes(18)])
def test_what_is_not_an_array_is_refused(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    refused(folder, name)


def test_a_truncated_array_is_refused(folder: Path) -> None:
    content = (folder / POLICY_INPUTS).read_bytes()
    (folder / POLICY_INPUTS).write_bytes(content[: len(content) // 2])
    refused(folder, POLICY_INPUTS)


def test_a_pickled_array_is_refused(folder: Path) -> None:
    np.save(folder / PEER_INPUTS, np.array([{}], object), allow_pickle=True)
    refused(folder, PEER_INPUTS)


def test_an_archive_in_place_of_an_array_is_refused(folder: Path) -> None:
    with (folder / PEER_INPUTS).open("wb") as stream:
        np.savez(stream, a=DATASET.peer_inputs)
    refused(folder, PEER_INPUTS)


@pytest.mark.parametrize("name", FLOATS)
def test_a_number_that_is_not_finite_is_refused(folder: Path, name: str) -> None:
    array = DATASET.arrays()[name].copy()
    array[3, 0] = np.nan
    forge(folder, **{FIELDS[name]: array})
    assert "finite" in refused(folder, name).what


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 2}', "\x00", '{"schema_version": 1}'])
def test_a_garbled_description_is_refused(folder: Path, text: str) -> None:
    (folder / DESCRIPTION).write_text(text)
    refused(folder, DESCRIPTION)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("arrays", None),
        ("arrays", {}),
        ("origins", 5),
        ("origins", [{}]),
        ("origins", [{"ego_columns_computed_from_peers": [], "name": "", "kind": "", "sha256": "", "frames": 1}]),
        ("max_peers", "many"),
        ("max_peers", float("inf")),
        ("seed", None),
        ("digest", "0" * 64),
    ],
)
def test_a_garbled_entry_is_refused(folder: Path, key: str, value: Any) -> None:
    description = json.loads((folder / DESCRIPTION).read_bytes()) | {key: value}
    (folder / DESCRIPTION).write_text(json.dumps(description))
    refused(folder, DESCRIPTION)


@pytest.mark.parametrize("key", ["digest", "policy_sha256", "seed", "max_peers", "arrays", "origins"])
def test_a_missing_entry_is_named(folder: Path, key: str) -> None:
    description = json.loads((folder / DESCRIPTION).read_bytes())
    del description[key]
    (folder / DESCRIPTION).write_text(json.dumps(description))
    assert key in refused(folder, DESCRIPTION).what


@pytest.mark.parametrize(
    ("column", "value"),
    [("split", 3), ("split", -1), ("origin", 2), ("origin", -1), ("peers", 9), ("peers", -1), ("made", 3),
     ("frame", 600), ("frame", -1)],
)  # fmt: skip
def test_an_index_that_names_what_is_not_there_is_refused(folder: Path, column: str, value: int) -> None:
    index = DATASET.index.copy()
    index[11, COLUMNS.index(column)] = value
    forge_index(folder, index)
    error = refused(folder, INDEX)
    assert column in error.what and "row 11" in error.what


def forge_index(folder: Path, index: NDArray[np.int32]) -> None:
    """Array, shape and hashes agree; the index lies."""
    forged = replace(DATASET, index=index)
    write_npy(folder / INDEX, index)
    description = json.loads((folder / DESCRIPTION).read_bytes())
    fresh = describe(DATASET) | {"digest": forged.digest}
    fresh["arrays"] = description["arrays"] | {
        INDEX: description["arrays"][INDEX] | {"shape": list(index.shape), "sha256": _sha256(index)}
    }
    (folder / DESCRIPTION).write_text(json.dumps(fresh))


def _sha256(array: NDArray[Any]) -> str:
    from quant.files import sha256

    return sha256(array.tobytes())


def test_an_index_that_counts_other_peers_is_refused(folder: Path) -> None:
    index = DATASET.index.copy()
    row = int(np.argmax(index[:, 4] == 2))
    index[row, 4] = 3
    forge_index(folder, index)
    assert "rows" in refused(folder, PEER_INPUTS).what


def test_an_index_of_other_columns_is_refused(folder: Path) -> None:
    forge_index(folder, DATASET.index[:, :5].copy())
    assert "columns" in refused(folder, INDEX).what


@pytest.mark.parametrize("name", FLOATS)
def test_arrays_of_other_lengths_than_the_index_are_refused(folder: Path, name: str) -> None:
    forge(folder, **{FIELDS[name]: DATASET.arrays()[name][:-1]})
    assert "the index counts" in refused(folder, name).what


def test_the_dataset_of_another_policy_is_stale(folder: Path) -> None:
    with pytest.raises(StaleError, match="another policy") as caught:
        load_dataset(folder, POLICY, "f" * 64)
    assert "quant dataset" in str(caught.value.hint) and Path(str(caught.value.where)) == folder / DESCRIPTION


def test_without_a_policy_the_artifacts_alone_are_checked(folder: Path) -> None:
    assert load_dataset(folder).digest == DATASET.digest


@pytest.mark.parametrize("name", [PEER_OUTPUTS, POLICY_INPUTS, POLICY_OUTPUTS])
def test_outputs_that_the_policy_does_not_give_are_stale(folder: Path, name: str) -> None:
    """Hashes are right, the digest of the policy is right, the numbers are not: a policy edited in place."""
    array = DATASET.arrays()[name].copy()
    array[:, 0] += 0.01
    forge(folder, **{FIELDS[name]: array})
    with pytest.raises(StaleError) as caught:
        load(folder)
    # A wrong z in the head's inputs shows in the outputs as well; whichever is found first is named.
    assert Path(str(caught.value.where)).parent == folder and "quant dataset" in str(caught.value.hint)


@pytest.mark.parametrize(
    "other",
    [
        strategies.policy(ego=6),
        strategies.policy(peer=7),
        strategies.policy(encoder=((16, "relu"), (9, "relu"))),
        strategies.policy(space=Box((0.0, 0.0), (1.0, 1.0))),
        strategies.policy(max_peers=7),
        strategies.policy(encoder=((16, "relu"), (9, "relu")), ego=4),
    ],
    ids=["ego", "peers", "embedding", "actions", "slots", "embedding and ego"],
)
def test_a_policy_of_other_sizes_is_stale(folder: Path, other: Any) -> None:
    with pytest.raises(StaleError):
        load_dataset(folder, other)


@pytest.mark.parametrize("name", FILES)
def test_the_digest_changes_with_any_array(name: str) -> None:
    array = DATASET.arrays()[name].copy()
    array.flat[-1] += 1
    changed: dict[str, Any] = {FIELDS[name]: array}
    assert replace(DATASET, **changed).digest != DATASET.digest
