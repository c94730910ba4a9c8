"""What the stress test of the run found, on the board: its worst frames, missed and false actions."""

from __future__ import annotations

import numpy as np
import pytest

from quant.boards.conformance import compare
from quant.boards.device import Device
from quant.evaluation.stress.found import KINDS
from quant.runners import Int8Runner
from quant.runs.run import Run
from quant.testing.hil_plugin import Record

pytestmark = pytest.mark.hil


def test_what_the_stress_test_found_is_decided_as_on_the_host(
    device: Device, run: Run, hosts: dict[str, Int8Runner], track: str, record: Record
) -> None:
    """The very frames: a board that parts from the host only where inputs are extreme is seen here."""
    if run.stress is None:
        pytest.skip("the run was not stressed: quant stress RUN")
    found = run.stress.found.of(track)
    board, host = device.decide(track, found.observations), hosts[track]
    difference = compare(board.decision, board.values, host.decide(found.observations), host.values(found.observations))
    for kind in KINDS:
        record(f"frames, {kind}", int((found.kind == kind).sum()), "")
    record("decisions differing", difference.differing, "")
    assert len(found) > 0
    assert difference.differing == 0, str(difference)
    # What the file says of the candidate is what the board does.
    np.testing.assert_array_equal(run.policy.action_space.clip(board.values), found.candidate)
