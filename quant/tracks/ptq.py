"""Post-training quantization: ranges from what is declared and from the frames, chosen by the error they cause."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache, partial

from quant.dataset import Dataset
from quant.files import Progress, no_progress
from quant.observation.observations import F32
from quant.policy.policy import Box, Policy
from quant.policy.storage import policy_digest
from quant.tracks.candidate import Candidate
from quant.tracks.export import export
from quant.tracks.job import Job, Made
from quant.tracks.objective import Frames, Objective
from quant.tracks.plan import (
    Calibration,
    Choice,
    Plan,
    Rewriting,
    Rewritten,
    calibrate,
    correct_biases,
    equalize,
    make_plan,
    simulate,
    simulate_encoder,
    simulate_head,
)
from quant.tracks.registry import PTQ
from quant.tracks.splitting import split

MARGINS = (0.0, 0.01, 0.02, 0.05)
"""Beyond what is declared and what was seen; what differs is where the steps lie."""
EQUALIZED = tuple(map(Rewriting, (0.0, 0.25, 0.5, 0.75, 1.0)))
REWRITINGS = (*EQUALIZED, Rewriting(1.0, 8))
"""Ways to rewrite the policy that are tried."""
FINER_REWRITINGS = (*REWRITINGS, Rewriting(1.0, 16, 16))
"""Where more weights may be had for a smaller error."""
FACTORS = (4, 8, 16, 32)
"""Of residuals (see `quant.tracks.candidate.Affine`)."""
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
PASSES = 2
"""Coordinate descent: each pass tries every value of every choice once."""
RANGE_LINE = "declared ranges: simulated error {} on frames that were seen; {} with ranges as far as was seen"
WORTH = 0.95
"""Residuals, and more units, are taken where the error is below this share of the one without: they cost weights."""


@dataclass(frozen=True)
class Scope:
    """What a search may choose from.

    Attributes:
        factors: of residuals, the first one at the start; 0 stands for none.
        rewritings: of the policy, the first one at the start.
    """

    factors: tuple[int, ...] = (0, *FACTORS)
    rewritings: tuple[Rewriting, ...] = REWRITINGS


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        choice: with the least error.
        error: of its decisions, weights in float (see `quant.tracks.objective.Objective`).
        calibrations: of the policy, by how it is rewritten.
        log: how it went.
    """

    choice: Choice
    error: float
    calibrations: dict[Rewriting, Calibration]
    log: list[str]

    @property
    def calibration(self) -> Calibration:
        """Of the policy rewritten as chosen."""
        return self.calibrations[self.choice.rewriting]


def make(job: Job) -> Made:
    """Track `PTQ`."""
    return Made(with_range_line(run_ptq(job.policy, job.dataset, job.progress), job))


def with_range_line(
    candidate: Candidate, job: Job, scope: Scope | None = None, *, per_tensor: bool = False
) -> Candidate:
    """The candidate with `range_line` in its log, where the job asks for it."""
    if not job.compare_ranges:
        return candidate
    line = range_line(job.policy, job.dataset, scope, per_tensor=per_tensor)
    return replace(candidate, log=(*candidate.log, line))


def run_ptq(policy: Policy, dataset: Dataset, progress: Progress = no_progress) -> Candidate:
    """Makes the PTQ candidate of a policy with the shared dataset."""
    plan, log = find_plan(policy, dataset, progress)
    return export(PTQ, plan, dataset, log)


def find_plan(policy: Policy, dataset: Dataset, progress: Progress = no_progress) -> tuple[Plan, list[str]]:
    """The plan with the least simulated error on the shared dataset, and the log of the search."""
    frames, found = search_dataset(policy, dataset, progress)
    finished = finish(policy, frames, found)
    return finished.plan, [frames.described, *found.log, *finished.log]


@dataclass(frozen=True)
class _Question:
    """A search; equal to another where what is found is."""

    policy: Policy = field(compare=False)
    frames: Frames = field(compare=False)
    progress: Progress = field(compare=False)
    contents: tuple[str, str, str]
    scope: Scope


@lru_cache(maxsize=4)
def _answer(question: _Question) -> Found:
    return search(question.policy, question.frames, question.progress, question.scope)


def search_dataset(
    policy: Policy, dataset: Dataset, progress: Progress = no_progress, scope: Scope | None = None
) -> tuple[Frames, Found]:
    """`search` on the shared dataset's frames; tracks that ask the same after one another wait for it once."""
    frames, contents = Frames.of(dataset), (policy_digest(policy), dataset.digest, dataset.contract.digest)
    known = _answer.cache_info().hits
    found = _answer(_Question(policy, frames, progress, contents, scope or Scope()))
    if _answer.cache_info().hits > known:
        progress(1, 1)
    return frames, found


def search(policy: Policy, frames: Frames, progress: Progress = no_progress, scope: Scope | None = None) -> Found:
    """Coordinate descent over margins, rewritings, residuals and clipping, by the error that activations cause alone.

    Weights are in float: what their rounding to the nearest step costs is chance, from choice to choice, and
    `finish` or second-order rounding takes most of it away.

    Args:
        policy: in float.
        frames: what the error is measured on.
        progress: told after each trial.
        scope: what may be chosen.
    """
    scope = scope or Scope()
    objective, every = Objective.of(policy, frames), frames.all
    rewritings = [one for one in scope.rewritings if one.changes(policy)]
    calibrations = {one: calibrate(rewritten(policy, frames, one).policy, every, frames.features) for one in rewritings}
    ones = (1.0,) * len(policy.encoder), (1.0,) * len(policy.head)
    choice = Choice(MARGINS[0], rewritings[0], *ones, scope.factors[0], scope.factors[0])

    @lru_cache(maxsize=1)
    def encoded(tried: Choice) -> F32:
        return simulate_encoder(make_plan(calibrations[tried.rewriting], tried), every, round_weights=False)

    @cache
    def error_of(tried: Choice) -> float:
        # The head's own choices leave the embeddings as they are.
        z = encoded(replace(tried, head=ones[1], ego_residual=scope.factors[0]))
        plan = make_plan(calibrations[tried.rewriting], tried)
        return objective(simulate_head(plan, z, every.ego, round_weights=False))

    best = error_of(choice)
    log = [f"start: {choice} error {best:.6g}"]
    changes = PASSES * list(_changes(policy, scope, rewritings))
    for step, (name, change) in enumerate(changes):
        tried = change(choice)
        error = error_of(tried)
        if error < best * (WORTH if _takes_more(choice, tried) else 1):
            best, choice = error, tried
            log.append(f"{name}: error {error:.6g}")
        progress(step + 1, len(changes))
    return Found(choice, best, calibrations, log)


def _takes_more(present: Choice, tried: Choice) -> bool:
    """More weights."""
    residuals = ((present.peer_residual, tried.peer_residual), (present.ego_residual, tried.ego_residual))
    return tried.rewriting.split > present.rewriting.split or any(not had and has for had, has in residuals)


def _changes(
    policy: Policy, scope: Scope, rewritings: list[Rewriting]
) -> Iterator[tuple[str, Callable[[Choice], Choice]]]:
    """Every single value that can be tried, with its name; coordinate by coordinate."""
    for margin in MARGINS:
        yield f"margin {margin}", partial(replace, margin=margin)
    for rewriting in rewritings:
        yield f"{rewriting}", partial(replace, rewriting=rewriting)
    for factor in scope.factors:
        yield f"residuals of peers, factor {factor}", partial(replace, peer_residual=factor)
        yield f"residuals of the ego, factor {factor}", partial(replace, ego_residual=factor)
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


@dataclass(frozen=True)
class Finished:
    """A plan with weights to the nearest step and biases corrected.

    Attributes:
        choice: it was made by.
        plan: of the rewritten policy.
        error: simulated, as the search measures it.
        on_seen: of it, on the frames that were seen.
    """

    choice: Choice
    plan: Plan
    error: float
    on_seen: float

    @property
    def log(self) -> list[str]:
        """What was chosen."""
        return [f"chosen: {self.choice}", f"simulated error of the choice: {self.error:.6g}"]


def finish(policy: Policy, frames: Frames, found: Found, *, per_tensor: bool = False) -> Finished:
    """What was found with weights to the nearest step and biases corrected; how to rewrite is chosen once more.

    Which of the rewritten policies suffers most when its weights are rounded, a search without that can't know.
    """
    objective, every = Objective.of(policy, frames), frames.all
    tried = []
    for rewriting, calibration in found.calibrations.items():
        choice = replace(found.choice, rewriting=rewriting)
        plan = correct_biases(make_plan(calibration, choice, per_tensor=per_tensor), every, frames.weights)
        values = simulate(plan, every)
        tried.append(Finished(choice, plan, objective(values), objective.on_seen(values)))
    return min(tried, key=lambda one: one.error)


def range_line(policy: Policy, dataset: Dataset, scope: Scope | None = None, *, per_tensor: bool = False) -> str:
    """A line of the log: the error on seen frames, and what a search would have had that need not go beyond them."""
    frames, found = search_dataset(policy, dataset, scope=scope)
    seen = frames.recorded()
    contents = policy_digest(policy), dataset.digest, "as far as was seen"
    narrow = _answer(_Question(policy, seen, no_progress, contents, scope or Scope()))
    errors = (finish(policy, *one, per_tensor=per_tensor).on_seen for one in ((frames, found), (seen, narrow)))
    return RANGE_LINE.format(*(f"{error:.6g}" for error in errors))


def range_cost(log: Sequence[str]) -> tuple[float, float] | None:
    """The two errors of `range_line` in a candidate's log: with declared ranges, and with recorded ones."""
    pattern = re.escape(RANGE_LINE).replace(r"\{\}", r"([\d.e+-]+)")
    found = next((match for line in log if (match := re.fullmatch(pattern, line))), None)
    return None if found is None else (float(found[1]), float(found[2]))


def rewritings(policy: Policy, dataset: Dataset) -> tuple[Rewritten, ...]:
    """The policy as tracks rewrite it, in each way there is: which one a candidate has is not in its files."""
    frames = Frames.of(dataset)
    return tuple(rewritten(policy, frames, one) for one in FINER_REWRITINGS if one.changes(policy))


def rewritten(policy: Policy, frames: Frames, rewriting: Rewriting) -> Rewritten:
    """The same function on these frames, equalized, or with units in two."""
    if rewriting.split:
        return split(policy, frames.seen, frames.all, rewriting.split, rewriting.twins)
    return Rewritten.scaled(equalize(policy, frames.all, rewriting.exponent))
