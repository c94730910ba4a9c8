"""How closely a candidate follows the float policy on held-out frames, without driving.

Frames of one drive or episode are strongly correlated, so n frames carry less than n independent observations. The
interval of the agreement is Wilson's on n all the same: read it as a description of the sample, not as a promise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.evaluation.statistics import Bits, Estimate, proportion
from quant.observation.observations import F32
from quant.policy.policy import ActionSpace, Box, Discrete

ACTION_TOLERANCE = 0.02
"""Two continuous actions agree within this share of the action's range."""

RECORDED, ROLLOUT, AUGMENTED, FILLED = "recorded", "rollout", "augmented", "filled"
"""Where a frame comes from."""
MADE = (AUGMENTED, FILLED)
"""Origins of frames that were made and not seen; they are shown, and do not count among all frames."""


@dataclass(frozen=True)
class Closeness:
    """A candidate against the float policy on n frames.

    Attributes:
        n: frames.
        agreement: share of frames with the same action. Discrete: the same argmax. Box: every component within the
            tolerance.
        half_agreement: Box: share of frames whose every component lies on the same side of the middle of its range (on
            the middle counts as above), which for a braking command of 0..1 is "brakes at .5"; Discrete: None.
        mae: mean absolute error. Discrete: of the logits. Box: of the clipped action, in action units.
        max_error: the largest absolute error, in the same unit.
    """

    n: int
    agreement: Estimate
    half_agreement: Estimate | None
    mae: float
    max_error: float


@dataclass(frozen=True)
class OpenLoop:
    """Closeness overall, by number of peers present and by where the frames come from.

    Attributes:
        tolerance: of the agreement of a Box, as a share of the range; None for Discrete.
        overall: all frames but those that were made, where there are others.
        by_peers: one entry for each count 0..P; None where no frame has that many.
        by_origin: in alphabetical order of the origins; empty where origins are not known.
    """

    tolerance: float | None
    overall: Closeness
    by_peers: tuple[Closeness | None, ...]
    by_origin: tuple[tuple[str, Closeness], ...] = ()


def compare(
    space: ActionSpace,
    reference: F32,
    candidate: F32,
    counts: NDArray[np.int64],
    *,
    max_peers: int,
    origins: NDArray[Any] | None = None,
    tolerance: float = ACTION_TOLERANCE,
) -> OpenLoop:
    """Compares head outputs on the same frames.

    Args:
        space: what the outputs mean.
        reference, candidate: (N, A) float32 head outputs, logits or actions before clipping.
        counts: (N,) peers present.
        max_peers: P.
        origins: (N,) where each frame comes from.
        tolerance: of a Box, as a share of the range.

    Raises:
        InputError: there are no frames, the arrays do not fit together, or a Box has no finite range.
    """
    if len(reference) == 0:
        raise InputError("no held-out frames", expected="at least one frame to compare the candidates on")
    if not reference.shape == candidate.shape == (len(counts), space.width):
        raise InputError(
            f"outputs do not fit together: {reference.shape} and {candidate.shape} for {len(counts)} frames",
            expected=f"({len(counts)}, {space.width})",
        )
    error = np.abs(space.clip(candidate).astype(np.float64) - space.clip(reference).astype(np.float64))
    same, half = agreements(space, reference, candidate, error, tolerance)

    def on(rows: Bits) -> Closeness:
        n = int(rows.sum())
        return Closeness(
            n,
            proportion(int(same[rows].sum()), n),
            None if half is None else proportion(int(half[rows].sum()), n),
            float(error[rows].mean()),
            float(error[rows].max()),
        )

    seen = np.ones(len(counts), np.bool_) if origins is None else ~np.isin(origins, MADE)
    return OpenLoop(
        tolerance if isinstance(space, Box) else None,
        on(seen if seen.any() else ~seen),
        tuple(on(counts == k) if np.any(counts == k) else None for k in range(max_peers + 1)),
        () if origins is None else tuple((str(name), on(origins == name)) for name in np.unique(origins)),
    )


def agreements(
    space: ActionSpace, reference: F32, candidate: F32, error: NDArray[np.float64], tolerance: float
) -> tuple[Bits, Bits | None]:
    """(N,) frames with the same action and, for a Box, (N,) those on the same side of the middle; see `Closeness`.

    Args:
        space: what the outputs mean.
        reference, candidate: (N, A) float32 head outputs, logits or actions before clipping.
        error: (N, A) float64 absolute error of the clipped outputs.
        tolerance: of a Box, as a share of the range.

    Raises:
        InputError: a Box has no finite range.
    """
    if isinstance(space, Discrete):
        return np.equal(space.decide(reference), space.decide(candidate)), None
    low, high = np.array(space.low, np.float64), np.array(space.high, np.float64)
    if not np.isfinite(high - low).all():
        raise InputError(
            f"the action space has no finite range: {space.low}..{space.high}",
            expected="finite bounds, so that an agreement can be a share of the range",
        )
    middle = (low + high) / 2
    same: Bits = np.all(error <= tolerance * (high - low), axis=1)
    half: Bits = np.all((space.clip(reference) >= middle) == (space.clip(candidate) >= middle), axis=1)
    return same, half
