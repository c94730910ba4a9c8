"""The instruction-count model against what was counted on an emulated ESP32."""

from __future__ import annotations

import pytest

from quant.boards.virtual import time_model
from quant.policy import Box
from quant.runners.flatbuffer import OPERATORS, OPERATORS_16, Model, read_model
from tests.boards.candidates import wide
from tests.runners.candidates import quantize_policy, random_policy


@pytest.fixture(scope="module")
def models() -> tuple[Model, Model]:
    """Encoder 6-32-32 and head 40-64-64-1 with two TANH: what the counted totals are of."""
    space = Box((0.0,), (1.0,))
    policy = random_policy(ego=8, hidden=(64, 64), head_activation="tanh", action_space=space)
    candidate = quantize_policy(policy)
    return read_model(candidate.peer_encoder.tflite), read_model(candidate.policy_head.tflite)


def test_an_invoke_of_the_encoder(models: tuple[Model, Model]) -> None:
    assert time_model.invoke_instructions(models[0]) == pytest.approx(17_700, rel=0.01)


def test_an_invoke_of_the_head(models: tuple[Model, Model]) -> None:
    assert time_model.invoke_instructions(models[1]) == pytest.approx(143_700, rel=0.01)


def test_a_decision_with_eight_peers(models: tuple[Model, Model]) -> None:
    assert time_model.decision_instructions(*models, peers=8) == pytest.approx(285_000, rel=0.01)


def test_a_peer_costs_its_encoding_and_little_more(models: tuple[Model, Model]) -> None:
    seven, eight = (time_model.decision_instructions(*models, peers=n) for n in (7, 8))
    encoder = time_model.invoke_instructions(models[0])
    assert encoder < eight - seven < 1.03 * encoder


def test_every_operator_has_a_cost() -> None:
    assert set(time_model.ELEMENT) | {"FULLY_CONNECTED"} == set(OPERATORS)
    assert set(time_model.ELEMENT_16) | {"FULLY_CONNECTED"} == set(OPERATORS_16)


def test_int16_costs_what_its_loops_have_more_or_less_of() -> None:
    """Multiply-accumulates as 14 to 9; a TANH is a table's, and no longer half of the head."""
    policy = random_policy(ego=8, hidden=(64, 64), head_activation="tanh", action_space=Box((0.0,), (1.0,)))
    narrow, broad = (read_model(made(policy).policy_head.tflite) for made in (quantize_policy, wide))
    products, elements = narrow.macs, 128
    less_tanh = time_model.invoke_instructions(narrow) - 516 * elements
    wider = time_model.invoke_instructions(broad) - 33 * elements
    assert wider - less_tanh == 6 * products
    assert (10 * products + wider - less_tanh) / (10 * products) == pytest.approx(14 / 9, rel=0.03)
