"""What the host says a board has to answer."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from quant.acceptance.criterion import Criterion
from quant.acceptance.decision import Verdict
from quant.boards.conformance import compare
from quant.boards.device import Device
from quant.errors import DeviceError
from quant.policy import Observations
from quant.policy.policy import Discrete
from quant.runners import Int8Runner
from quant.testing.hil_plugin import Record
from quant.tracks.candidate import Bits, Codes, code_limits, code_type
from quant.wire.protocol import NO_ACTION, ErrorCode, Message


@dataclass(frozen=True)
class Raw:
    """A request with any payload; its reply is the payload of the answer."""

    kind: Message
    payload: bytes

    def encode(self) -> bytes:
        return self.payload

    def reply(self, payload: bytes) -> bytes:
        return payload


def recorded_criteria(verdict: Verdict, track: str, names: Collection[str], record: Record) -> list[Criterion]:
    """A track's criteria of these names, each of which is there, in the test's figures too."""
    criteria = [one for one in verdict.assessment(track).criteria if one.name in names]
    for criterion in criteria:
        record(criterion.name, str(criterion), "")
    assert [one.name for one in criteria] == list(names)
    return criteria


def observation(ego: NDArray[np.float32], peers: NDArray[np.float32], mask: NDArray[np.bool_]) -> Observations:
    """One observation as a batch."""
    return Observations(ego[None], peers[None], mask[None])


def assert_decides_as(host: Int8Runner, device: Device, observations: Observations) -> None:
    """Every byte of every interface, every value and every action; a failure names the stage and the frame."""
    board = device.decide(host.candidate.track, observations)
    with np.errstate(over="ignore"):  # what saturates passes through infinity
        expected, values = host.decide(observations), host.values(observations)
    found = compare(board.decision, board.values, expected, values)
    if found.example is not None:
        row = observations[slice(found.example, found.example + 1)]
        pytest.fail(
            f"{host.candidate.track}: {found}\nego {row.ego}\npeers {row.peers}\nmask {row.mask}", pytrace=False
        )
    discrete = isinstance(host.action_space, Discrete)
    actions = values.argmax(axis=1) if discrete else np.full(len(values), NO_ACTION)
    np.testing.assert_array_equal(board.actions, actions)


def assert_refused(device: Device, request: Raw, code: ErrorCode) -> None:
    """The board says no, and says why."""
    with pytest.raises(DeviceError) as refusal:
        device.link.request(request)
    assert ErrorCode(refusal.value.code) is code


def corner_rows(size: int, zero_point: int, bits: Bits) -> Codes:
    """(N, size) codes at their edges: all low, all high, zero, alternating, and one extreme value at a time."""
    low, high = code_limits(bits)
    alternating = np.where(np.arange(size) % 2, high, low)
    whole = [np.full(size, q) for q in (low, -high, -1, 0, 1, high, zero_point)] + [alternating, -1 - alternating]
    return np.array([*whole, *_one_hot(size, zero_point, (low, high))], code_type(bits))


def _one_hot(size: int, zero_point: int, limits: tuple[int, int]) -> Iterator[NDArray[np.int64]]:
    for background in (zero_point, *limits):
        for place in range(size):
            for extreme in limits:
                row = np.full(size, background)
                row[place] = extreme
                yield row
