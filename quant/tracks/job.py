"""What every track is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quant.dataset import Dataset
from quant.files import Progress, no_progress
from quant.observation.observations import F32, Observations
from quant.policy.policy import Policy
from quant.tracks.candidate import Candidate

Infer = Callable[[Candidate, Observations], F32]
"""(N, A) float32 values of a candidate, in the arithmetic of verdicts."""
Curve = tuple[tuple[int, float, float], ...]
"""Rows of (step, training loss, simulated error)."""


@dataclass(frozen=True)
class Job:
    """What every track is given.

    Attributes:
        policy: in float.
        dataset: the shared one.
        infer: computes a candidate's values in the arithmetic of verdicts.
        seed: of training.
        qat_steps: optimizer steps on all weights; None for the default.
        progress: told how far the track is.
        compare_ranges: whether the log says what declared ranges cost, for which another search is made.
    """

    policy: Policy
    dataset: Dataset
    infer: Infer
    seed: int = 0
    qat_steps: int | None = None
    progress: Progress = no_progress
    compare_ranges: bool = True


@dataclass(frozen=True)
class Made:
    """A candidate, and the loss curve where there was training."""

    candidate: Candidate
    curve: Curve | None = None
