"""A drive a candidate has not seen: made without it, judged on it. Blocks of one drive are no independent test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quant.evaluation.open_loop import Closeness
from quant.evaluation.statistics import proportion


@dataclass(frozen=True)
class Unseen:
    """A candidate on one drive that it was made without.

    Attributes:
        drive: its file's name.
        sha256: of that file.
        closeness: to the float policy, on every frame of the drive.
    """

    drive: str
    sha256: str
    closeness: Closeness


@dataclass(frozen=True)
class OnDrive:
    """One candidate on one drive.

    Attributes:
        closeness: to the float policy, on every frame.
        missed, false: frames in which float acts and the candidate does not, and the reverse.
        saturated: share of the frames with an input beyond what the candidate can represent.
    """

    closeness: Closeness
    missed: int
    false: int
    saturated: float


def pooled(drives: Sequence[Unseen]) -> Closeness | None:
    """All frames of all drives together; None where nothing unseen was looked at."""
    if not drives:
        return None
    each = [one.closeness for one in drives]
    counts = np.array([one.n for one in each], np.int64)
    n = int(counts.sum())

    def agreeing(shares: Sequence[float]) -> int:
        return int(np.rint(np.array(shares) * counts).sum())

    halves = [one.half_agreement for one in each if one.half_agreement is not None]
    return Closeness(
        n,
        proportion(agreeing([one.agreement.value for one in each]), n),
        proportion(agreeing([half.value for half in halves]), n) if len(halves) == len(each) else None,
        float(np.array([one.mae for one in each]) @ counts / n),
        max(one.max_error for one in each),
    )
