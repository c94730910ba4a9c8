"""The bounds that Gymnasium's printed ``Dict`` states of each feature."""

from __future__ import annotations

import math

import pytest

from quant.errors import InputError
from quant.policy.spaces import observation_sizes

REST = "'peer_mask': Box(0.0, 1.0, (2,), float32), 'peers': Box(-inf, inf, (2, 3), float32))"


def stated(ego: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of an ego of two features."""
    bounds = observation_sizes({"spaces": f"Dict('ego': {ego}, {REST}"}, "policy.zip").bounds
    assert bounds.peers_low == (-math.inf,) * 3
    return bounds.ego_low, bounds.ego_high


@pytest.mark.parametrize(
    ("ego", "low", "high"),
    [
        ("Box(0.0, 1.0, (2,), float32)", (0.0, 0.0), (1.0, 1.0)),
        ("Box([ 0. -1.], [1. 2.], (2,), float32)", (0.0, -1.0), (1.0, 2.0)),
        ("Box([-inf 0.], [1. inf], (2,), float32)", (-math.inf, 0.0), (1.0, math.inf)),
        ("Box([nan 0.], [1. 1.], (2,), float32)", (-math.inf, 0.0), (1.0, 1.0)),
        ("Box(2,)", (-math.inf,) * 2, (math.inf,) * 2),
    ],
)
def test_bounds_are_those_that_are_printed(ego: str, low: tuple[float, ...], high: tuple[float, ...]) -> None:
    assert stated(ego) == (low, high)


def test_bounds_upside_down_are_refused() -> None:
    with pytest.raises(InputError, match=r"ego\[1\] from 1 to 0"):
        stated("Box([0. 1.], [1. 0.], (2,), float32)")
