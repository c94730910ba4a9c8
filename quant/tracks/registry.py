"""The ways from a policy to two INT8 models, by name: what a run may make, and how each is made."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

from quant.dataset import Dataset
from quant.errors import InputError, did_you_mean
from quant.files import Progress, no_progress
from quant.policy.policy import Policy
from quant.tracks import gptq, int16, ptq, qat
from quant.tracks.candidate import Candidate
from quant.tracks.gptq import Infer

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
    """

    policy: Policy
    dataset: Dataset
    infer: Infer
    seed: int = 0
    qat_steps: int | None = None
    progress: Progress = no_progress


@dataclass(frozen=True)
class Made:
    """A candidate, and the loss curve where there was training."""

    candidate: Candidate
    curve: Curve | None = None


def _ptq(job: Job) -> Made:
    return Made(ptq.run_ptq(job.policy, job.dataset, job.progress))


def _qat(job: Job) -> Made:
    """Starts from PTQ's plan, which it finds again for itself."""
    options = qat.QatOptions(seed=job.seed)
    if job.qat_steps is not None:
        options = replace(options, steps=job.qat_steps, bias_steps=job.qat_steps // 2)
    plan, log = ptq.find_plan(job.policy, job.dataset)
    result = qat.run_qat(job.policy, job.dataset, plan, options, job.progress)
    return Made(replace(result.candidate, log=(*log, *result.candidate.log)), result.curve)


def _gptq(job: Job) -> Made:
    return Made(gptq.run_gptq(job.policy, job.dataset, job.infer, job.progress))


def _per_tensor(job: Job) -> Made:
    make = partial(gptq.run_gptq, job.policy, job.dataset, job.infer, job.progress)
    return Made(make(track=gptq.PER_TENSOR, per_tensor=True))


def _residual(job: Job) -> Made:
    make = partial(gptq.run_gptq, job.policy, job.dataset, job.infer, job.progress)
    return Made(make(track=gptq.RESIDUAL, residual=gptq.FINER))


def _int16(job: Job) -> Made:
    return Made(int16.run_int16(job.policy, job.dataset, job.infer, job.progress))


TRACKS: dict[str, Callable[[Job], Made]] = {
    ptq.TRACK: _ptq,
    qat.TRACK: _qat,
    gptq.TRACK: _gptq,
    gptq.PER_TENSOR: _per_tensor,
    gptq.RESIDUAL: _residual,
    int16.TRACK: _int16,
}
"""In the order in which runs make and list them."""
DEFAULT_TRACKS = (ptq.TRACK, qat.TRACK)
"""What a run makes where nothing is said."""


def check_tracks(tracks: Collection[str], policy: Policy) -> None:
    """Finds out before the work whether every track can make models of this policy.

    Raises:
        InputError: one cannot.
    """
    if int16.TRACK in tracks:
        int16.refuse(policy)


def parse_tracks(text: str) -> tuple[str, ...]:
    """``ptq,ptq-gptq`` -> the tracks, in the registry's order.

    Raises:
        InputError: none is named, one twice, or one that does not exist.
    """
    asked = [name.strip() for name in text.split(",")]
    if len(set(asked)) < len(asked) or not set(asked) <= set(TRACKS):
        unknown = (did_you_mean(name, TRACKS) for name in asked if name not in TRACKS)
        raise InputError(
            f"not a list of tracks: {text}",
            where="--tracks",
            expected=f"each at most once, of {', '.join(TRACKS)}",
            hint=next(filter(None, unknown), None),
        )
    return tuple(name for name in TRACKS if name in asked)
