"""Observations that a board can be asked about, drawn for the sizes of one of its tracks."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from quant.policy import Observations
from quant.wire.messages import SlotInfo

F32 = NDArray[np.float32]

EDGES = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    2.0**-149,
    -(2.0**-126),
    1e-30,
    1e30,
    -1e30,
    3.4028234663852886e38,
    -3.4028234663852886e38,
]
finite = (
    st.floats(-3, 3, width=32) | st.sampled_from(EDGES) | st.floats(width=32, allow_nan=False, allow_infinity=False)
)
not_finite = st.sampled_from([np.nan, -np.nan, np.inf, -np.inf])


def floats(*shape: int) -> st.SearchStrategy[F32]:
    """Finite float32, most of them of the size of features."""
    return arrays.arrays(np.float32, shape, elements=finite, fill=st.nothing())


@st.composite
def observations(draw: st.DrawFn, slot: SlotInfo, least: int = 0) -> Observations:
    """One observation with at least ``least`` peers, in any slots; what is absent is filled too."""
    present = draw(st.integers(least, slot.max_peers))
    places = draw(st.permutations(range(slot.max_peers)))[:present]
    mask = np.zeros((1, slot.max_peers), np.bool_)
    mask[0, places] = True
    return Observations(draw(floats(1, slot.ego)), draw(floats(1, slot.max_peers, slot.features)), mask)
