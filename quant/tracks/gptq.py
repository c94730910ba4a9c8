"""Second-order rounding from PTQ's plan: the same operators and ranges, other integers.

1. PTQ's plan; and a second one in which every feature's margins are chosen singly, by the error that activations cause
   alone (weights in float). Nothing that was seen is ever clipped.
2. Both start with weights rounded to the nearest step.
3. Layer by layer, from the first of the encoder to the last of the head: the bias is corrected, or the weights are
   rounded by second order (:mod:`quant.tracks.rounding`) in one of several ways, on the inputs that the quantized
   layers before give on calibration and training frames. The way with the least error of the decision is kept, if it
   is less than before.
4. The better of the two is kept.

The error is always that of the models as written, in the arithmetic of verdicts, which the caller hands in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from quant.dataset import Dataset
from quant.files import Progress, no_progress
from quant.observation.observations import F32, Observations
from quant.policy.policy import Policy, pool
from quant.tracks.candidate import Candidate
from quant.tracks.export import candidate_of, checked
from quant.tracks.flatbuffer_writer import write_model
from quant.tracks.integers import IntegerLayer, nearest_layers
from quant.tracks.job import Infer, Job, Made
from quant.tracks.objective import Frames, Objective
from quant.tracks.plan import Interval, Plan, make_plan, simulate
from quant.tracks.ptq import FACTORS, FINER_REWRITINGS, Found, Scope, finish, search_dataset, with_range_line
from quant.tracks.registry import GPTQ, PER_TENSOR, RESIDUAL
from quant.tracks.rounding import correct_bias, round_layer
from quant.tracks.sensitivity import Sensitivity, sensitivity

FEATURE_MARGINS = (0.03, 0.01)
"""Shares of a feature's width tried as margin at each of its ends; PTQ has one for all."""
FEATURE_PASSES = 1


@dataclass(frozen=True)
class Way:
    """One way to round a layer.

    Attributes:
        name: for the log.
        damping: share of the Hessian's mean diagonal added to it; None corrects the bias alone.
        matched: the target is the float layer on float inputs.
        important: rows count by what the decision depends on.
    """

    name: str
    damping: float | None = None
    matched: bool = False
    important: bool = False


WAYS = (
    Way("bias corrected"),
    Way("GPTQ", 0.01),
    Way("GPTQ to the float outputs", 0.01, matched=True),
    Way("GPTQ to the float outputs by importance", 0.01, matched=True, important=True),
    Way("GPTQ to the float outputs by importance, little damping", 0.001, matched=True, important=True),
)


@dataclass(frozen=True)
class Rounded:
    """A plan and the integers chosen for it so far."""

    plan: Plan
    encoder: tuple[IntegerLayer, ...]
    head: tuple[IntegerLayer, ...]

    @staticmethod
    def nearest(plan: Plan) -> Rounded:
        """Every weight rounded to the nearest step."""
        encoder = nearest_layers(plan.encoder, plan.encoder_ranges, plan.peers, plan.per_tensor)
        head = nearest_layers(plan.head, plan.head_ranges, plan.z, plan.per_tensor)
        return Rounded(plan, tuple(encoder), tuple(head))

    def candidate(self, dataset: Dataset, track: str = GPTQ) -> Candidate:
        """As models."""
        return candidate_of(track, self.plan, dataset, write_model(self.encoder), write_model(self.head))

    def inputs(self, part: str, index: int, observations: Observations) -> F32:
        """(rows, K) what a layer gets from the quantized layers before it; rows are the peers present, or frames."""
        peers = observations.peers[observations.mask]
        x = _through(self.encoder[: index if part == "encoder" else None], self.plan.hold_peers(peers))
        if part == "encoder":
            return x
        embeddings = np.zeros((*observations.mask.shape, self.plan.policy.embedding_size), np.float32)
        embeddings[observations.mask] = x
        z = pool(embeddings, observations.mask, self.plan.policy.pooling)
        return _through(self.head[:index], self.plan.hold_head_inputs(z, observations.ego))

    def with_layer(self, part: str, index: int, layer: IntegerLayer) -> Rounded:
        """The same with one layer exchanged."""
        present = self.encoder if part == "encoder" else self.head
        layers = (*present[:index], layer, *present[index + 1 :])
        return replace(self, encoder=layers) if part == "encoder" else replace(self, head=layers)


def _through(layers: tuple[IntegerLayer, ...], x: F32) -> F32:
    for layer in layers:
        x = layer(x)
    return x


def make(job: Job) -> Made:
    """Track `GPTQ`."""
    return Made(with_range_line(run_gptq(job.policy, job.dataset, job.infer, job.progress), job))


def make_per_tensor(job: Job) -> Made:
    """Track `PER_TENSOR`."""
    made = run_gptq(job.policy, job.dataset, job.infer, job.progress, track=PER_TENSOR, per_tensor=True)
    return Made(with_range_line(made, job, per_tensor=True))


def make_residual(job: Job) -> Made:
    """Track `RESIDUAL`."""
    scope = Scope(FACTORS, FINER_REWRITINGS)
    made = run_gptq(job.policy, job.dataset, job.infer, job.progress, track=RESIDUAL, scope=scope)
    return Made(with_range_line(made, job, scope))


def run_gptq(
    policy: Policy,
    dataset: Dataset,
    infer: Infer,
    progress: Progress = no_progress,
    *,
    track: str = GPTQ,
    per_tensor: bool = False,
    scope: Scope | None = None,
) -> Candidate:
    """Makes the candidate; never worse than its start, PTQ's weights, on the frames it is chosen on.

    Args:
        policy: in float.
        dataset: the shared one; held-out frames are never looked at.
        infer: computes a candidate's values (see `quant.tracks.job.Infer`).
        progress: told after each trial of a layer.
        track: the candidate's name.
        per_tensor: whether the weights of a layer share one scale, for kernels that know no other.
        scope: what the search may choose from.
    """
    frames, found = search_dataset(policy, dataset, scope=scope)
    finished = finish(policy, frames, found, per_tensor=per_tensor)
    make = partial(make_plan, found.calibration, found.choice, per_tensor=per_tensor)
    fitted, lines = fit_features(found, Objective.of(policy, frames), frames, make)
    log = [*finished.log, *lines]
    starts = [("PTQ's plan", finished.plan), ("features' own margins", fitted)]
    kept, lines = best_of(track, starts, policy, dataset, infer, progress)
    return checked(kept.candidate(dataset, track), kept.plan, [*log, *lines])


def best_of(
    track: str,
    starts: Sequence[tuple[str, Plan]],
    policy: Policy,
    dataset: Dataset,
    infer: Infer,
    progress: Progress,
) -> tuple[Rounded, list[str]]:
    """Rounds the weights of every plan, and keeps the one that came out best.

    Args:
        track: the candidate's name.
        starts: plans with their names.
        policy, dataset, infer, progress: see `run_gptq`.

    Returns:
        the integers, and the log.
    """
    made_on = Frames.of(dataset)
    frames, objective = made_on.all, Objective.of(policy, made_on)

    def error_of(rounded: Rounded) -> float:
        return objective(infer(rounded.candidate(dataset, track), frames))

    log = [made_on.described]
    kept, which, least = Rounded.nearest(starts[0][1]), "", float("inf")
    for done, (name, plan) in enumerate(starts):
        start = Rounded.nearest(plan)
        error = error_of(start)
        log.append(f"{name}, weights rounded to nearest: error {error:.6g}")
        known = sensitivity(plan.policy, frames, made_on.weights)
        share = partial(_share, progress, done, len(starts))
        rounded, error, lines = round_all(start, error, error_of, known, frames, share)
        log += lines
        if error < least:
            kept, which, least = rounded, name, error
    log.append(f"kept: {which}, error {least:.6g}")
    return kept, log


def _share(progress: Progress, before: int, parts: int, done: int, total: int) -> None:
    """Of so many parts ``before`` are done, and of the present one ``done`` of ``total``."""
    progress(before * total + done, parts * total)


def round_all(
    rounded: Rounded,
    error: float,
    error_of: Callable[[Rounded], float],
    known: Sensitivity,
    frames: Observations,
    progress: Progress = no_progress,
) -> tuple[Rounded, float, list[str]]:
    """Layer by layer the best of all ways, where it is better than what the layer has.

    Returns:
        the integers, their error, and a line for each layer.
    """
    log: list[str] = []
    layers = [("encoder", i) for i in range(len(rounded.encoder))] + [("head", i) for i in range(len(rounded.head))]
    for number, (part, index) in enumerate(layers):
        before, inputs, found = rounded, rounded.inputs(part, index, frames), "rounded to nearest"
        for tried, way in enumerate(WAYS):
            candidate = before.with_layer(part, index, _round(before, part, index, inputs, known, way))
            its_error = error_of(candidate)
            if its_error < error:
                rounded, error, found = candidate, its_error, way.name
            progress(number * len(WAYS) + tried + 1, len(layers) * len(WAYS))
        log.append(f"{part} {index} {found}: error {error:.6g}")
    return rounded, error, log


def _round(rounded: Rounded, part: str, index: int, inputs: F32, known: Sensitivity, way: Way) -> IntegerLayer:
    plan = rounded.plan
    own, layers, ranges, targets, importances, weights = (
        (
            rounded.encoder[index],
            plan.encoder,
            plan.encoder_ranges,
            known.encoder,
            known.encoder_importance,
            known.peer_weights,
        )
        if part == "encoder"
        else (rounded.head[index], plan.head, plan.head_ranges, known.head, known.head_importance, known.frame_weights)
    )
    if not len(inputs):
        return own
    if way.damping is None:
        return correct_bias(own, layers[index], inputs, targets[index], weights)
    importance = importances[index] * weights if way.important else weights
    return round_layer(
        layers[index],
        own.source,
        ranges[index],
        inputs,
        targets[index],
        importance,
        way.damping,
        matched=way.matched,
        per_tensor=plan.per_tensor,
    )


def fit_features(
    found: Found, objective: Objective, frames: Frames, make: Callable[[tuple[Interval, Interval]], Plan]
) -> tuple[Plan, list[str]]:
    """Margins for every feature's ends, by the error with all activations rounded and all weights in float.

    Where a feature's steps lie matters as much as how wide they are: recorded features are often multiples of
    something.
    """
    every, least_wide = frames.all, {"peer": found.calibration.peer, "ego": found.calibration.ego}
    chosen = {name: own.wider(found.choice.margin) for name, own in least_wide.items()}

    def plan_of(intervals: dict[str, Interval]) -> Plan:
        return make((intervals["peer"], intervals["ego"]))

    def error_of(intervals: dict[str, Interval]) -> float:
        return objective(simulate(plan_of(intervals), every, round_weights=False))

    least = error_of(chosen)
    log = [f"activations alone: error {least:.6g}"]
    for name, end, column, margin in FEATURE_PASSES * list(_ends(least_wide)):
        tried = chosen | {name: _with_margin(chosen[name], least_wide[name], end, column, margin)}
        error = error_of(tried)
        if error < least:
            least, chosen = error, tried
            log.append(f"{name} feature {column} {end} margin {margin}: activations alone {error:.6g}")
    return plan_of(chosen), log


def _ends(least_wide: dict[str, Interval]) -> Iterator[tuple[str, str, int, float]]:
    for name, own in least_wide.items():
        for column in range(len(own.low)):
            yield from ((name, end, column, margin) for end in ("low", "high") for margin in FEATURE_MARGINS)


def _with_margin(present: Interval, least_wide: Interval, end: str, column: int, margin: float) -> Interval:
    values = getattr(present, end).copy()
    values[column] = getattr(least_wide.wider(margin), end)[column]
    return replace(present, **{end: values})
