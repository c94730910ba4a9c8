"""Both sub-models of every track give the bytes that TFLite-Micro gives on the host, whatever goes in."""

from __future__ import annotations

import numpy as np
import pytest

from quant.boards.device import PART_CODES, Device
from quant.runners import make_engine
from quant.runners.engines import EngineName
from quant.runs.run import Run
from quant.testing.hil_plugin import Record
from quant.testing.suites.hil.expectations import corner_rows
from quant.tracks.candidate import Codes, Part, code_limits, code_type

pytestmark = pytest.mark.hil

RANDOM_ROWS = 2000
"""Of each sub-model: with the corners about three seconds of a line of 921600 baud."""


@pytest.mark.parametrize("part", list(PART_CODES))
def test_a_sub_model_gives_the_hosts_bytes(device: Device, run: Run, track: str, part: Part, record: Record) -> None:
    slot = device.slot(track)[1]
    info, (low, high) = slot.part(PART_CODES[part]), code_limits(slot.bits)
    rng = np.random.default_rng(20_000 + PART_CODES[part])
    anything = rng.integers(low, high + 1, (RANDOM_ROWS // 2, info.input.size)).astype(code_type(slot.bits))
    extremes = rng.choice(np.array([low, high, info.input.zero_point], anything.dtype), anything.shape)
    rows = np.concatenate([corner_rows(info.input.size, info.input.zero_point, slot.bits), anything, extremes])
    found = device.invoke(track, part, rows)
    oracles: tuple[EngineName, ...] = ("tflite_micro", "numpy")
    expected = {name: make_engine(name, run.candidates[track]).invoke(part, rows) for name in oracles}
    record("inputs", len(rows), "")
    for name, output in expected.items():
        record(f"differing from {name}", int((found != output).any(axis=1).sum()), "outputs")
    assert len(rows) >= RANDOM_ROWS
    assert len(np.unique(found, axis=0)) > 100, "the outputs hardly differ: the inputs show nothing"
    for name, output in expected.items():
        assert not difference(rows, found, output), f"against {name}: {difference(rows, found, output)}"


def difference(rows: Codes, found: Codes, expected: Codes) -> str:
    """How many outputs differ, and the first input that shows it; empty where none does."""
    wrong = np.flatnonzero((found != expected).any(axis=1))
    if not len(wrong):
        return ""
    first = wrong[0]
    what = f"{len(wrong)} of {len(rows)} outputs differ, first on input {first}: {rows[first].tolist()}"
    return f"{what}\n  the board gives {found[first].tolist()}\n  the host        {expected[first].tolist()}"
