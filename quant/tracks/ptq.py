"""Post-training quantization: ranges from the calibration frames, chosen by the error they cause."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from quant.dataset import Dataset, Split, spread
from quant.files import Progress, no_progress
from quant.observation.observations import F32, Observations
from quant.policy.policy import ActionSpace, Box, Discrete, Policy
from quant.tracks.candidate import Candidate
from quant.tracks.export import export
from quant.tracks.job import Job, Made
from quant.tracks.plan import Choice, Plan, calibrate, equalize, make_plan, simulate
from quant.tracks.registry import PTQ

MARGINS = (0.02, 0.05, 0.1, 0.2)
"""Never none: what comes after the recording lies beyond it sooner or later."""
EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 1.1)
PASSES = 2
"""Coordinate descent: each pass tries every value of every choice once."""

MAX_SEARCH_FRAMES = 6000
"""Frames the search measures its error on, spread evenly over calibration and training frames."""


def find_plan(policy: Policy, dataset: Dataset, progress: Progress = no_progress) -> tuple[Plan, list[str]]:
    """The plan with the least simulated error on the shared dataset, and the log of the search."""
    frames = search_frames(dataset)
    choice, error, log = search(policy, frames, progress)
    plan = make_plan(calibrate(equalize(policy, frames, choice.equalize), frames), choice)
    return plan, [
        f"calibration and training frames searched: {len(frames)}",
        *log,
        f"chosen: {choice}",
        f"simulated error of the choice: {error:.6g}",
    ]


def make(job: Job) -> Made:
    """Track `PTQ`."""
    return Made(run_ptq(job.policy, job.dataset, job.progress))


def run_ptq(policy: Policy, dataset: Dataset, progress: Progress = no_progress) -> Candidate:
    """Makes the PTQ candidate of a policy with the shared dataset."""
    plan, log = find_plan(policy, dataset, progress)
    return export(PTQ, plan, dataset, log)


def equalizations(policy: Policy, dataset: Dataset) -> tuple[Policy, ...]:
    """The policy as tracks equalize it, by each of `EXPONENTS`: which one a candidate has is not in its files."""
    frames = search_frames(dataset)
    return tuple(equalize(policy, frames, exponent) for exponent in EXPONENTS)


def search_frames(dataset: Dataset) -> Observations:
    """Calibration and training frames, evenly thinned; held-out frames are never looked at."""
    rows = np.sort(np.concatenate([dataset.rows(Split.CALIBRATION), dataset.rows(Split.TRAINING)]))
    return dataset.observations(rows[spread(len(rows), MAX_SEARCH_FRAMES)])


def search(policy: Policy, frames: Observations, progress: Progress = no_progress) -> tuple[Choice, float, list[str]]:
    """Coordinate descent over margins, equalization and clipping, by the error of the simulated decision.

    Returns:
        the choice, its error (see `decision_error`), and a line for each improvement.
    """
    reference = policy.forward(frames).values
    choice = Choice(0.1, 0.0, (1.0,) * len(policy.encoder), (1.0,) * len(policy.head))
    calibrations = {exponent: calibrate(equalize(policy, frames, exponent), frames) for exponent in EXPONENTS}

    def error_of(tried: Choice) -> float:
        values = simulate(make_plan(calibrations[tried.equalize], tried), frames)
        return decision_error(policy.action_space, reference, values)

    best = error_of(choice)
    log = [f"start: {choice} error {best:.6g}"]
    changes = PASSES * list(_changes(policy))
    for step, (name, change) in enumerate(changes):
        tried = change(choice)
        error = error_of(tried)
        if error < best:
            best, choice = error, tried
            log.append(f"{name}: error {error:.6g}")
        progress(step + 1, len(changes))
    return choice, best, log


def _changes(policy: Policy) -> Iterator[tuple[str, Callable[[Choice], Choice]]]:
    """Every single value that can be tried, with its name; coordinate by coordinate."""
    for margin in MARGINS:
        yield f"margin {margin}", partial(replace, margin=margin)
    for exponent in EXPONENTS:
        yield f"equalize {exponent}", partial(replace, equalize=exponent)
    # The output range of a Box policy is its bounds: nothing to choose.
    layers = [("encoder", i) for i in range(len(policy.encoder))]
    layers += [("head", i) for i in range(len(policy.head) - isinstance(policy.action_space, Box))]
    for part, i in layers:
        for share in SHARES:
            yield f"{part} {i} keeps {share}", partial(_keep, part=part, layer=i, share=share)


def _keep(choice: Choice, *, part: str, layer: int, share: float) -> Choice:
    values = choice.encoder if part == "encoder" else choice.head
    kept = (*values[:layer], share, *values[layer + 1 :])
    return replace(choice, encoder=kept) if part == "encoder" else replace(choice, head=kept)


def decision_error(space: ActionSpace, reference: F32, values: F32) -> float:
    """How far decisions are from the float policy's.

    Box: mean absolute error of the clipped action. Discrete: Kullback-Leibler divergence of the softmax of the logits
    from the float one, so that the argmax is kept first where the policy itself is sure, and ties are kept ties.
    """
    if isinstance(space, Discrete):
        log_p, log_q = _log_softmax(reference), _log_softmax(values)
        return float(np.mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=1)))
    return float(np.mean(np.abs(space.clip(values) - space.clip(reference))))


def _log_softmax(logits: F32) -> F32:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float32)
