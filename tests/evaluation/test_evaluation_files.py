"""The files: equal bytes for equal figures, read back whole, and refused when they do not add up."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant.errors import InputError, StaleError
from quant.evaluation.evaluation import check_together, evaluation_from_json, load_evaluation
from tests.evaluation.synthetic import bits, candidate, driven, evaluated, reference, undriven_reference


def test_a_file_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    for index, evaluation in enumerate(
        (reference(), evaluated(candidate("ptq"), driven(8, 4, 1)), undriven_reference())
    ):
        path, again = tmp_path / f"{index}.json", tmp_path / f"{index}_again.json"
        evaluation.save(path)
        load_evaluation(path).save(again)
        assert path.read_bytes() == again.read_bytes()


def test_without_a_world_the_file_says_that_driving_was_not_tested() -> None:
    document = undriven_reference().to_json()
    assert document["closed_loop"] is None
    assert document["closed_loop_reason"] == "no world was given: driving was not tested"


def change(document: dict[str, Any], path: list[Any], value: Any) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(document))
    place: Any = copied
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copied


SWAPPED = base64.b64encode(np.packbits(bits(400, 8, 2)).tobytes()).decode()
FIRST: list[Any] = ["closed_loop", "slices", 0]


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        (["schema_version"], 4, "schema version 4"),
        (["track"], ..., "track is missing"),
        (["sha256", "policy"], 7, "sha256.policy is int"),
        (["colour"], "red", "colour is unknown"),
        ([*FIRST, "success", "value"], 0.999, "slices.0..success.value does not follow"),
        ([*FIRST, "versus_float", "losses"], 0, "does not follow"),
        ([*FIRST, "versus_float", "losses"], -1, "not a paired table"),
        ([*FIRST, "episodes", "success", "bits"], "////", "bits were changed"),
        # Two episodes swapped, so that every count stays: only the hash of the bits can tell.
        ([*FIRST, "episodes", "success", "bits"], SWAPPED, "bits were changed"),
        ([*FIRST, "episodes", "success", "bits"], "!", "not base64"),
        ([*FIRST, "n"], 0, "n is 0"),
        ([*FIRST, "reward", "value"], "high", "reward.value is str"),
        (["closed_loop", "slices"], [None], "holds null"),
        (["open_loop", "overall", "mae"], True, "mae is bool"),
    ],
)
def test_a_damaged_file_is_refused_with_the_key(path: list[Any], value: Any, what: str) -> None:
    document = change(evaluated(candidate("ptq"), driven(8, 4, 1)).to_json(), path, value)
    with pytest.raises(InputError, match=what):
        evaluation_from_json(document)


def test_anything_but_a_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match="not a table"):
        load_evaluation(tmp_path / "list.json")


def test_evaluations_that_belong_together_pass() -> None:
    check_together({"float": reference(), "ptq": evaluated(candidate("ptq"), driven(8, 4, 1))})


MIXED: list[tuple[str, Callable[[], Any], str]] = [
    ("ptq", lambda: evaluated(candidate("ptq"), driven(8, 4), scenarios="d" * 64), "another scenarios"),
    ("ptq", lambda: evaluated(candidate("ptq"), driven(8, 4), dataset="d" * 64), "another dataset"),
    ("ptq", lambda: evaluated(candidate("qat"), driven(8, 4)), "of the track 'qat'"),
    ("ptq", lambda: evaluated(candidate("ptq"), None), "was not"),
]


@pytest.mark.parametrize(("name", "make", "what"), MIXED)
def test_evaluations_of_different_inputs_are_stale(name: str, make: Callable[[], Any], what: str) -> None:
    with pytest.raises(StaleError, match=what):
        check_together({"float": reference(), name: make()})


def test_a_paired_table_of_other_episodes_is_stale() -> None:
    honest = evaluated(candidate("ptq"), driven(8, 4, 1))
    assert honest.closed_loop is not None
    swapped = evaluated(candidate("ptq"), driven(9, 4, 1))
    assert swapped.closed_loop is not None
    object.__setattr__(honest.closed_loop, "versus_float", swapped.closed_loop.versus_float)
    with pytest.raises(StaleError, match="paired table"):
        check_together({"float": reference(), "ptq": honest})
