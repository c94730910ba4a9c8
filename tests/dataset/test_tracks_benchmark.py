"""The benchmark's lines."""

from __future__ import annotations

from benchmarks.tracks import _line
from quant.evaluation.open_loop import Closeness
from quant.evaluation.statistics import proportion


def closeness(mae: float) -> Closeness:
    return Closeness(10, proportion(9, 10), None, mae, 2 * mae)


def test_the_ratio_to_a_plain_converter_without_error_is_left_out() -> None:
    assert "MAE 0.010000 (- of plain)" in _line("ptq", "recorded", closeness(0.01), closeness(0.0), 1.0)
    assert "MAE 0.000000 (- of plain)" in _line("plain", "recorded", closeness(0.0), closeness(0.0), 1.0)
    assert "MAE 0.010000 (0.500 of plain)" in _line("ptq", "recorded", closeness(0.01), closeness(0.02), 1.0)
