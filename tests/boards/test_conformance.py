"""A difference between a board and the host is counted once, at the first stage where it shows."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from quant.boards.conformance import STAGES, compare
from quant.observation.observations import F32
from quant.runners import Decision, Int8Runner
from tests.runners.candidates import quantize_policy, random_observations, random_policy

N = 20
RUNNER = Int8Runner(quantize_policy(random_policy(1)))
SEEN = random_observations(N, seed=3)
HOST = RUNNER.decide(SEEN)
VALUES = RUNNER.values(SEEN)
INTERFACES = [field.name for field in fields(Decision)]
PLACE = {"head_inputs": -1}
"""Where a byte is changed: a head's input begins with the pooled bytes, so its own are the ego's, behind them."""


def changed(decision: Decision, name: str, row: int) -> Decision:
    array = getattr(decision, name).copy()
    array[row].reshape(-1)[PLACE.get(name, 0)] ^= 1
    return replace(decision, **{name: array})


def test_equal_decisions_conform() -> None:
    found = compare(HOST, VALUES, HOST, VALUES)
    assert (found.compared, found.differing, dict(found.first), found.example) == (N, 0, {}, None)
    assert str(found) == f"{N} decisions, equal in every byte"


@pytest.mark.parametrize(("name", "stage"), list(zip(INTERFACES, STAGES, strict=False)))
def test_one_byte_is_seen_and_its_stage_named(name: str, stage: str) -> None:
    found = compare(changed(HOST, name, 7), VALUES, HOST, VALUES)
    assert (found.differing, dict(found.first), found.example) == (1, {stage: 1}, 7)
    assert f"1 of {N} decisions differ: 1 by {stage}; the first is number 7" in str(found)


def test_a_difference_that_runs_on_is_counted_where_it_began() -> None:
    board = HOST
    for name in INTERFACES[2:]:
        board = changed(board, name, 4)
    board = changed(board, "outputs", 2)
    found = compare(board, VALUES + 1, HOST, VALUES)
    assert found.differing == N
    assert dict(found.first) == {"pool": 1, "head": 1, "output": N - 2}
    assert found.example == 0


@pytest.mark.parametrize("other", [-0.0, np.nan, np.nextafter(np.float32(0), np.float32(1))])
def test_values_are_compared_bit_by_bit(other: float) -> None:
    values: F32 = np.zeros_like(VALUES)
    board = values.copy()
    board[3, 1] = other
    found = compare(HOST, board, HOST, values)
    assert (found.differing, dict(found.first), found.example) == (1, {"output": 1}, 3)
    assert compare(HOST, board, HOST, board).differing == 0


def test_nothing_compared_is_nothing_shown() -> None:
    none = Decision(*(getattr(HOST, name)[:0] for name in INTERFACES))
    found = compare(none, VALUES[:0], none, VALUES[:0])
    assert (found.compared, found.differing, found.example) == (0, 0, None)
