"""What the tests of a board share: the host's answers, and whether the board still gives them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from quant.boards.device import Device
from quant.dataset import spread
from quant.policy import Observations
from quant.runners import Int8Runner
from quant.runs.run import Run
from quant.testing.suites.hil.expectations import assert_decides_as
from quant.wire.protocol import Capability

KNOWN_FRAMES = 16


@pytest.fixture(scope="session")
def hosts(run: Run) -> dict[str, Int8Runner]:
    """What each track decides by the arithmetic of the verdict."""
    return {track: Int8Runner(candidate) for track, candidate in run.candidates.items()}


@pytest.fixture(scope="session")
def some_frames(frames: Observations) -> Observations:
    """A few held-out frames, with and without peers."""
    by_count = np.argsort(frames.counts, kind="stable")
    return frames[by_count[spread(len(frames), KNOWN_FRAMES)]]


@pytest.fixture(scope="session")
def decides_right(device: Device, hosts: dict[str, Int8Runner], some_frames: Observations) -> Callable[[], None]:
    """Asserts that the board decides some frames as the host does, on every track: whatever was done to it before."""

    def check() -> None:
        for host in hosts.values():
            assert_decides_as(host, device, some_frames)

    return check


@pytest.fixture
def deliberate_faults(device: Device) -> None:
    """Skips where the board's build does nothing wrong on purpose."""
    if Capability.TEST_FAULTS not in device.identity.capabilities:
        pytest.skip("this build has no deliberate faults (CONFIG_QUANT_TEST_FAULTS)")
