"""A candidate's files: round trip, and every damage found before a byte of it runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant.errors import InputError, QuantError, StaleError
from quant.tracks.candidate import Candidate
from quant.tracks.storage import load_candidate, save_candidate, save_curve
from tests.tracks.conftest import Exported

ENCODER, HEAD = "peer_encoder_ptq_int8.tflite", "policy_head_ptq_int8.tflite"
DESCRIPTION, LOG = "candidate_ptq.json", "conversion_ptq.log"


@pytest.fixture
def candidate(exported: Callable[[str], Exported]) -> Candidate:
    return exported("stable-baselines3").candidate


@pytest.fixture
def folder(tmp_path: Path, candidate: Candidate) -> Path:
    save_candidate(candidate, tmp_path)
    return tmp_path


def edit(folder: Path, *path: str, value: Any) -> None:
    """Sets one entry of the description."""
    document = json.loads((folder / DESCRIPTION).read_bytes())
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (folder / DESCRIPTION).write_text(json.dumps(document))


def refused(folder: Path, name: str, kind: type[QuantError] = InputError) -> QuantError:
    with pytest.raises(kind) as caught:
        load_candidate(folder, "ptq")
    assert Path(str(caught.value.where)) == folder / name
    return caught.value


def test_round_trip(each: Exported, tmp_path: Path) -> None:
    save_candidate(each.candidate, tmp_path)
    loaded = load_candidate(tmp_path, "ptq")
    for name in ("peer_input", "ego_input"):
        one, other = getattr(loaded, name), getattr(each.candidate, name)
        for key in ("gain", "offset"):
            np.testing.assert_array_equal(getattr(one, key), getattr(other, key))
            assert getattr(one, key).dtype == np.float32
    same: dict[str, Any] = {"peer_input": each.candidate.peer_input, "ego_input": each.candidate.ego_input}
    assert replace(loaded, **same) == each.candidate


def test_the_files_have_the_plans_names(folder: Path, candidate: Candidate) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted((ENCODER, HEAD, DESCRIPTION, LOG))
    assert (folder / ENCODER).read_bytes() == candidate.peer_encoder.tflite
    assert (folder / HEAD).read_bytes() == candidate.policy_head.tflite
    assert (folder / LOG).read_text().splitlines() == list(candidate.log)
    description = json.loads((folder / DESCRIPTION).read_bytes())
    assert description["models"]["policy_head"] == {
        "file": HEAD,
        "bytes": len(candidate.policy_head.tflite),
        "sha256": candidate.policy_head.sha256,
    }


@pytest.mark.parametrize("name", [ENCODER, HEAD, DESCRIPTION, LOG])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert refused(folder, name).what == "no such file"


@pytest.mark.parametrize("name", [ENCODER, HEAD])
def test_a_changed_model_is_stale(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert "quant ptq" in str(refused(folder, name, StaleError).hint)


def test_swapped_models_are_stale(folder: Path) -> None:
    encoder = (folder / ENCODER).read_bytes()
    (folder / ENCODER).write_bytes((folder / HEAD).read_bytes())
    (folder / HEAD).write_bytes(encoder)
    refused(folder, ENCODER, StaleError)


def test_another_policys_head_is_stale(folder: Path, exported: Callable[[str], Exported]) -> None:
    (folder / HEAD).write_bytes(exported("plan's own").candidate.policy_head.tflite)
    refused(folder, HEAD, StaleError)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"schema_version": 99}', '{"schema_version": 1}', "\xff"])
def test_a_garbled_description_is_refused(folder: Path, text: str) -> None:
    (folder / DESCRIPTION).write_bytes(text.encode("latin-1"))
    refused(folder, DESCRIPTION)


@pytest.mark.parametrize("which", ["peer_input", "ego_input"])
@pytest.mark.parametrize(
    ("key", "bad"),
    [("gain", np.nan), ("gain", -1.0), ("gain", 0.0), ("gain", np.inf), ("gain", 1e39), ("gain", "x"), ("gain", None),
     ("offset", np.nan), ("offset", np.inf), ("offset", [1.0])],
)  # fmt: skip
def test_a_gain_or_offset_that_cannot_be_is_refused(folder: Path, which: str, key: str, bad: Any) -> None:
    values = json.loads((folder / DESCRIPTION).read_bytes())[which][key]
    edit(folder, which, key, value=[bad, *values[1:]])
    refused(folder, DESCRIPTION)


@pytest.mark.parametrize("which", ["peer_input", "ego_input"])
@pytest.mark.parametrize("bad", [-1, 3, 512, 2.0, "16", None, True])
def test_a_residual_that_cannot_be_is_refused(folder: Path, which: str, bad: Any) -> None:
    edit(folder, which, "residual", value=bad)
    assert "residual" in refused(folder, DESCRIPTION).what


def test_int16_has_no_residuals(folder: Path) -> None:
    edit(folder, "bits", value=16)
    assert load_candidate(folder, "ptq").bits == load_candidate(folder, "ptq").ego_input.bits == 16
    edit(folder, "ego_input", "residual", value=16)
    assert "residual" in refused(folder, DESCRIPTION).what


def test_width_and_residuals_come_back(folder: Path, candidate: Candidate) -> None:
    before = json.loads((folder / DESCRIPTION).read_bytes())
    assert (before["bits"], before["ego_input"]["residual"]) == (8, 0)
    save_candidate(replace(candidate, ego_input=replace(candidate.ego_input, residual=16)), folder)
    loaded = load_candidate(folder, "ptq")
    assert (loaded.ego_input.residual, loaded.peer_input.residual, loaded.bits) == (16, 0, 8)
    assert "residual" in json.loads((folder / DESCRIPTION).read_bytes())["input_quantization"]


def test_a_description_from_before_widths_were_written_is_int8(folder: Path) -> None:
    document = json.loads((folder / DESCRIPTION).read_bytes())
    del document["bits"], document["peer_input"]["residual"], document["ego_input"]["residual"]
    (folder / DESCRIPTION).write_text(json.dumps(document))
    loaded = load_candidate(folder, "ptq")
    assert (loaded.bits, loaded.peer_input.bits, loaded.peer_input.residual) == (8, 8, 0)


def test_gain_and_offset_are_as_many(folder: Path) -> None:
    edit(folder, "ego_input", "gain", value=[1.0])
    assert "gain and offset" in refused(folder, DESCRIPTION).what


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("pooling", "median"),
        ("pooling", None),
        ("track", "qat"),
        ("max_peers", 0),
        ("max_peers", -8),
        ("max_peers", 8.5),
        ("max_peers", True),
        ("max_peers", float("inf")),
        ("max_peers", "8"),
        ("models", []),
        ("models", {}),
        ("peer_input", None),
        ("ego_input", [1.0]),
        ("action_space", {"kind": "box", "low": [1.0], "high": [0.0]}),
        ("action_space", {"kind": "box", "low": [0.0], "high": [float("nan")]}),
        ("action_space", {"kind": "discrete", "n": 0}),
        ("action_space", "box"),
        ("bits", 4),
        ("bits", 16.0),
        ("bits", True),
        ("bits", None),
    ],
)
def test_an_entry_that_cannot_be_is_refused(folder: Path, key: str, bad: Any) -> None:
    edit(folder, key, value=bad)
    refused(folder, DESCRIPTION)


ENTRIES = ("track", "models", "peer_input", "ego_input", "pooling", "action_space", "max_peers")


@pytest.mark.parametrize("key", [*ENTRIES, "policy_sha256", "dataset_sha256"])
def test_a_missing_entry_is_named(folder: Path, key: str) -> None:
    document = json.loads((folder / DESCRIPTION).read_bytes())
    del document[key]
    (folder / DESCRIPTION).write_text(json.dumps(document))
    assert key in refused(folder, DESCRIPTION).what


def test_the_loss_curve_is_a_table(tmp_path: Path) -> None:
    save_curve("qat", ((0, float("nan"), 0.5), (50, 0.25, 0.125)), tmp_path)
    with (tmp_path / "loss_curve_qat.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [["step", "training_loss", "simulated_error"], ["0", "", "0.5"], ["50", "0.25", "0.125"]]
