"""Agreement and errors on frames small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from quant.errors import InputError
from quant.evaluation.open_loop import compare
from quant.policy.policy import Box, Discrete

COUNTS = np.array([0, 1, 1, 3])


def floats(*rows: list[float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array(rows, np.float32)


def test_discrete_actions_agree_where_the_argmax_does_and_errors_are_of_the_logits() -> None:
    reference = floats([0, 1, 0], [2, 1, 0], [0, 0, 5], [1, 1, 0])
    candidate = floats([0, 3, 0], [1, 2, 0], [0, 0, 5], [1, 0, 0])
    opened = compare(Discrete(3), reference, candidate, COUNTS, max_peers=4)
    assert opened.overall.agreement.value == 0.75
    assert opened.overall.half_agreement is None
    assert opened.overall.mae == pytest.approx(5 / 12)
    assert opened.overall.max_error == 2
    assert opened.tolerance is None


def test_continuous_actions_agree_within_the_tolerance_of_the_clipped_range() -> None:
    # Range 2..6: the tolerance of .02 is .08, the middle 4. Both 7 and 9 are clipped to 6.
    space = Box((2.0,), (6.0,))
    opened = compare(space, floats([7], [3], [3.96], [4.0]), floats([9], [3.07], [4.03], [3.9]), COUNTS, max_peers=4)
    assert opened.overall.agreement.value == 0.75
    assert opened.overall.half_agreement is not None
    assert opened.overall.half_agreement.value == 0.5
    assert opened.overall.max_error == pytest.approx(0.1, abs=1e-6)
    assert opened.overall.mae == pytest.approx(0.06, abs=1e-6)


def test_a_frame_agrees_only_if_every_component_does() -> None:
    opened = compare(Box((0.0, 0.0), (1.0, 10.0)), floats([0.5, 5.0]), floats([0.5, 5.3]), np.array([1]), max_peers=1)
    assert opened.overall.agreement.value == 0


def test_every_peer_count_and_origin_has_its_own_figures() -> None:
    reference, candidate = floats([1, 0], [1, 0], [1, 0], [1, 0]), floats([1, 0], [0, 1], [1, 0], [0, 1])
    origins = np.array(["recorded", "recorded", "augmented", "augmented"])
    opened = compare(Discrete(2), reference, candidate, COUNTS, max_peers=4, origins=origins)
    values = [None if one is None else (one.n, one.agreement.value) for one in opened.by_peers]
    assert values == [(1, 1.0), (2, 0.5), None, (1, 0.0), None]
    assert [(name, one.n, one.agreement.value) for name, one in opened.by_origin] == [
        ("augmented", 2, 0.5),
        ("recorded", 2, 0.5),
    ]


def test_augmented_frames_do_not_count_among_all() -> None:
    reference, candidate = floats([1, 0], [1, 0], [1, 0], [1, 0]), floats([1, 0], [0, 1], [1, 0], [1, 0])
    origins = np.array(["recorded", "recorded", "augmented", "augmented"])
    overall = compare(Discrete(2), reference, candidate, COUNTS, max_peers=4, origins=origins).overall
    assert (overall.n, overall.agreement.value) == (2, 0.5)
    made = compare(Discrete(2), reference, candidate, COUNTS, max_peers=4, origins=np.full(4, "augmented")).overall
    assert (made.n, made.agreement.value) == (4, 0.75)


@pytest.mark.parametrize(
    ("space", "rows", "what"),
    [
        (Discrete(2), 0, "no held-out frames"),
        (Discrete(3), 4, "do not fit together"),
        (Box((0.0, 0.0), (1.0, np.inf)), 4, "no finite range"),
    ],
)
def test_what_cannot_be_compared_is_an_error(space: Box | Discrete, rows: int, what: str) -> None:
    values = np.zeros((rows, 2), np.float32)
    with pytest.raises(InputError, match=what):
        compare(space, values, values, COUNTS[:rows], max_peers=4)
