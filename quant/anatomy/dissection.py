"""What each rounding of a candidate contributes to the error of its decisions, measured on held-out frames.

A source is one rounding: of an input, of a layer's weights, of a tensor after a layer. It is switched on alone (all
else exact) and off alone (all else rounded). Errors of sources alone are squared before they are compared: independent
errors add up in their squares. What is squared is the error of a Box's clipped action; for Discrete the divergence of
the softmax from the float policy's (Kullback & Leibler, "On Information and Sufficiency", 1951) takes that place. To
second order it is a square too, and it does not count what no decision depends on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.anatomy.anatomy import (
    DOUBLE_ROUNDING,
    Anatomy,
    Column,
    Effect,
    Effects,
    End,
    Group,
    Source,
    TensorFacts,
    WeightFacts,
    WorstFrame,
)
from quant.anatomy.anatomy import Frames as FramesKind
from quant.anatomy.simulation import (
    CUT_OFF,
    F64,
    OUTPUT,
    PEER_INPUT,
    QUANTIZED,
    Grid,
    How,
    Network,
    Place,
    Setting,
    Simulation,
    Stage,
    build_network,
)
from quant.errors import InputError
from quant.evaluation.open_loop import ACTION_TOLERANCE, MADE, agreements
from quant.observation.contract import NAMELESS, Contract
from quant.observation.contract import Column as Described
from quant.observation.observations import F32, Observations
from quant.policy.policy import ActionSpace, Discrete, Policy
from quant.runners import Int8Runner
from quant.tracks.candidate import Candidate
from quant.tracks.plan import Rewritten

WORST = 10
"""Frames listed, as a rule."""
FOLDING_TOLERANCE = 1e-4
"""By how much, relative to the largest output, the network without rounding may differ from the float32 policy."""
BEYOND = 1.0
"""Steps beyond its last code from which a value counts as cut off; TANH's own 1.0 is one step beyond 127/128."""

ROUNDED = 0.51
"""Steps beyond its last code up to which a bound counts as represented: it is rounded to that code."""


def dissect(
    policy: Policy,
    candidate: Candidate,
    observations: Observations,
    *,
    rewritten: Sequence[Rewritten] = (),
    origins: NDArray[Any] | None = None,
    rows: NDArray[np.int64] | None = None,
    tolerance: float = ACTION_TOLERANCE,
    worst: int = WORST,
    contract: Contract | None = None,
    kind: FramesKind = "held-out",
) -> Anatomy:
    """Takes the error of a candidate apart.

    Args:
        policy: the float policy it was made from.
        candidate: of any track whose layers are the policy's.
        observations: held-out frames, or those that a stress test kept.
        rewritten: see :func:`quant.anatomy.simulation.build_network`.
        origins: (N,) ``recorded``, ``rollout``, ``augmented`` or ``filled`` for each, or the stress test's group.
        rows: (N,) what the dataset, or the stress test's file, numbers them.
        tolerance: of the agreement of a Box, as a share of the range.
        worst: how many of the worst frames to list.
        contract: of the observation: names and bounds of the features.
        kind: which frames these are.

    Raises:
        InputError: there are no frames, the candidate's layers are not the policy's, or it computes another function.
    """
    network = build_network(policy, candidate, rewritten)
    work = _Work(policy, network, observations, origins, tolerance, contract)
    measured = Int8Runner(candidate).values(observations)
    simulated = work.values(network.everything)
    facts = _Facts(work)
    alone = {place.name: work.values({place.name: QUANTIZED}) for place in network.places}
    effects = {name: work.effects(values) for name, values in alone.items()}
    total = sum(one.overall.cost for one in effects.values())
    sources = tuple(
        Source(
            place.name,
            place.part,
            place.kind,
            place.layer,
            effects[place.name].overall.cost / total if total else 0.0,
            effects[place.name],
            work.effects(work.values(_without(network.everything, {place.name}))),
            work.submodel_error(place, alone[place.name]),
            facts.tensor(place),
            facts.weights(place),
        )
        for place in network.places
    )
    codes = np.abs(measured.astype(np.float64) - work.space.clip(simulated)) / network.output_step
    return Anatomy(
        candidate.track,
        "discrete" if isinstance(policy.action_space, Discrete) else "box",
        work.effects(measured),
        work.effects(simulated),
        float((codes > 0.5).any(axis=1).mean()),
        work.folding_error,
        sources,
        tuple(work.group(name, members) for name, members in _groups(network.places)),
        tuple(_worst(work, measured, alone, rows, worst)),
        candidate.bits,
        kind,
    )


def _groups(places: tuple[Place, ...]) -> Iterator[tuple[str, set[str]]]:
    yield "peer encoder", {place.name for place in places if place.part == "peer_encoder"}
    yield "policy head", {place.name for place in places if place.part == "policy_head"}
    yield "inputs", {place.name for place in places if place.kind == "input"}
    yield "weights", {place.name for place in places if place.kind == "weights"}
    yield "activations", {place.name for place in places if place.kind in {"activations", "output"}}


def _without(setting: Setting, names: Collection[str]) -> dict[str, How]:
    return {name: how for name, how in setting.items() if name not in names}


class _Work:
    """The frames, the float policy's decisions on them, and the simulation."""

    def __init__(
        self,
        policy: Policy,
        network: Network,
        frames: Observations,
        origins: NDArray[Any] | None,
        tolerance: float,
        contract: Contract | None,
    ) -> None:
        if len(frames) == 0:
            raise InputError("no held-out frames", expected="at least one frame to explain a candidate on")
        self.contract = contract
        self.space: ActionSpace = policy.action_space
        self.max_peers = policy.max_peers
        self.network, self.frames, self.origins, self.tolerance = network, frames, origins, tolerance
        self.reference: F32 = policy.forward(frames).values
        self.simulation = Simulation(network, frames)
        seen = np.ones(len(frames), np.bool_) if origins is None else ~np.isin(origins, MADE)
        self.seen = seen if seen.any() else ~seen
        exact = self.simulation.values({})
        self.folding_error = float(np.abs(exact - self.reference).max())
        if self.folding_error > FOLDING_TOLERANCE * max(1.0, float(np.abs(self.reference).max())):
            raise InputError(
                f"without any rounding the candidate differs from the float policy by {self.folding_error:.3g}",
                expected="the same function",
                hint="its operators are not the policy's activations; make the candidate again from this policy",
            )

    def values(self, setting: Setting) -> F32:
        """(N, A) head outputs."""
        return self.simulation.values(setting).astype(np.float32)

    def errors(self, values: F32) -> F64:
        """(N, A) by how much the clipped action, or each action's probability, differs."""
        return np.asarray(_decided(self.space, values) - _decided(self.space, self.reference))

    def costs(self, values: F32) -> F64:
        """(N,) of each frame."""
        if isinstance(self.space, Discrete):
            log_p, log_q = _log_softmax(self.reference), _log_softmax(values)
            # Rounding can leave a divergence of nothing a hair below zero.
            return np.asarray(np.maximum((np.exp(log_p) * (log_p - log_q)).sum(axis=1), 0.0))
        return np.asarray(np.mean(self.errors(values) ** 2, axis=1))

    def effects(self, values: F32) -> Effects:
        """Of head outputs (N, A)."""
        clipped, exact = (self.space.clip(one).astype(np.float64) for one in (values, self.reference))
        distance = np.abs(clipped - exact)
        same, _ = agreements(self.space, self.reference, values, distance, self.tolerance)
        errors, costs, counts = self.errors(values), self.costs(values), self.frames.counts

        def on(rows: NDArray[np.bool_]) -> Effect:
            bias = errors[rows].mean(axis=0)
            return Effect(
                int(rows.sum()),
                float(costs[rows].mean()),
                float(distance[rows].mean()),
                float(distance[rows].max()),
                float((~same[rows]).mean()),
                _floats(bias),
                float(np.sqrt(np.mean((errors[rows] - bias) ** 2))),
            )

        origins = () if self.origins is None else np.unique(self.origins)
        return Effects(
            on(self.seen),
            tuple(on(counts == k) if (counts == k).any() else None for k in range(self.max_peers + 1)),
            {str(name): on(np.asarray(self.origins == name)) for name in origins},
        )

    def cost(self, setting: Setting) -> float:
        """Overall."""
        return float(self.costs(self.values(setting))[self.seen].mean())

    def group(self, name: str, members: set[str]) -> Group:
        """Several sources alone, and all but these."""
        everything = self.network.everything
        alone = self.values(dict.fromkeys(members, QUANTIZED))
        return Group(name, self.effects(alone), self.effects(self.values(_without(everything, members))))

    def submodel_error(self, place: Place, values: F32) -> float:
        """Of the source alone, in steps of its sub-model's output."""
        if place.part == "policy_head":
            off = self.space.clip(values).astype(np.float64) - self.space.clip(self.reference)
            return float(np.abs(off).mean()) / self.network.output_step
        exact = self.simulation.embeddings({})
        off = self.simulation.embeddings({place.name: QUANTIZED}) - exact
        return float(np.abs(off).mean()) / self.network.embedding_step if off.size else 0.0


def _decided(space: ActionSpace, values: F32) -> F64:
    if isinstance(space, Discrete):
        return np.asarray(np.exp(_log_softmax(values)))
    return space.clip(values).astype(np.float64)


def _log_softmax(logits: F32) -> F64:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


class _Facts:
    """What one pass with every rounding on shows of tensors and weights."""

    def __init__(self, work: _Work) -> None:
        self.work = work
        self.codes: dict[str, F64] = {}
        work.simulation.values(work.network.everything, self.codes.__setitem__)
        network = work.network
        self.stages: dict[str, Stage] = {stage.source: stage for stage in (*network.encoder, *network.head)}
        self.grids = network.grids

    def weights(self, place: Place) -> WeightFacts | None:
        """Of a source that is weights."""
        if place.kind != "weights":
            return None
        stage = self.stages[place.name]
        known = stage.known
        moved = np.abs(known.linear.weight - stage.exact.weight) / known.step
        largest = np.abs(stage.exact.weight / known.step).max(axis=1)
        middle = float(np.median(largest))
        bias_moved = known.linear(known.origin) - stage.exact(known.origin)
        return WeightFacts(
            known.layer.weight.size,
            len(np.unique(known.layer.weight)),
            known.layer.per_channel,
            float(largest.max()) / middle if middle and not known.layer.per_channel else 1.0,
            float(np.sqrt(np.mean(moved**2))),
            float(moved.max()),
            float(np.abs(bias_moved * stage.tensors[0].grid.gain).max()),
        )

    def tensor(self, place: Place) -> TensorFacts | None:
        """Of a source that is a tensor."""
        if place.kind == "weights":
            return None
        grid, codes = self.grids[place.name], self.codes[place.name]
        held = grid.held(codes)
        beyond = grid.beyond(codes)
        if place.name == OUTPUT:
            beyond = self._beyond_output(grid, codes)
        beyond = np.maximum(beyond, 0.0)
        ends = (np.array([[grid.lowest], [grid.highest]]) - np.float64(grid.offset)) / np.float64(grid.gain)
        return TensorFacts(
            float(ends[0].min()),
            float(ends[1].max()),
            _share(held == grid.lowest),
            _share(held == grid.highest),
            _share(beyond > BEYOND),
            float(beyond.max(initial=0.0)) / grid.steps,
            self.work.cost({place.name: CUT_OFF}) if (beyond > 0).any() else 0.0,
            tuple(np.bincount(held.astype(np.int64).ravel() - grid.lowest, minlength=grid.steps + 1).tolist()),
            tuple(self._columns(place, codes, ends)) if place.kind == "input" else (),
        )

    def _beyond_output(self, grid: Grid, codes: F64) -> F64:
        """The clip to an action's bounds is wanted: only what the bounds would keep is cut off."""
        values = (codes - np.float64(grid.offset)) / np.float64(grid.gain)
        kept = grid.codes(self.work.space.clip(values.astype(np.float32)).astype(np.float64))
        return grid.beyond(kept)

    def _columns(self, place: Place, codes: F64, ends: F64) -> Iterator[Column]:
        contract, peers, grid = self.work.contract, place.name == PEER_INPUT, self.grids[place.name]
        frames = self.work.frames
        owner = np.repeat(np.arange(len(frames)), frames.counts) if peers else np.arange(len(frames))
        names = feature_names(codes.shape[1], peers) if contract is None else contract.names(peers=peers)
        described: Sequence[Described | None] = [None] * len(names)
        if contract is not None:
            described = contract.peers if peers else contract.ego
        for column, (name, what) in enumerate(zip(names, described, strict=True)):
            below, above = grid.lowest - codes[:, column] > BEYOND, codes[:, column] - grid.highest > BEYOND
            cut = bool((below | above).any())
            low, high = (float(end) for end in ends[:, column])
            yield Column(
                name,
                self.work.cost({place.name: How(column=column)}),
                _share(below | above),
                low,
                high,
                below=len(np.unique(owner[below])) / len(frames),
                above=len(np.unique(owner[above])) / len(frames),
                cut_cost=self.work.cost({place.name: How(rounded=False, column=column)}) if cut else 0.0,
                what=what,
                short=() if what is None else tuple(_short(grid, what, column)),
            )


def _short(grid: Grid, what: Described, column: int) -> Iterator[End]:
    """Ends at which the range does not reach the contract's bound, by more than is rounded to the last code."""
    gain, offset = float(grid.gain[column]), float(grid.offset[column])
    if what.low is not None and what.low * gain + offset < grid.lowest - ROUNDED:
        yield "low"
    if what.high is not None and what.high * gain + offset > grid.highest + ROUNDED:
        yield "high"


def feature_names(width: int, peers: bool) -> tuple[str, ...]:
    """What features are called that no contract names: their numbers."""
    return tuple(f"{NAMELESS[peers]}{i}" for i in range(width))


def _share(hits: NDArray[np.bool_]) -> float:
    return float(hits.mean()) if hits.size else 0.0


def _worst(
    work: _Work, measured: F32, alone: Mapping[str, F32], rows: NDArray[np.int64] | None, most: int
) -> Iterator[WorstFrame]:
    space, frames = work.space, work.frames
    clipped, reference = space.clip(measured).astype(np.float64), space.clip(work.reference).astype(np.float64)
    error = np.abs(clipped - reference).max(axis=1)
    first = np.zeros(len(error), np.int64)
    if isinstance(space, Discrete):
        # Another action is worse than any distance of logits.
        first += space.decide(measured) != space.decide(work.reference)
    chosen = np.lexsort((np.arange(len(error)), -error, -first))[:most]
    costs = {name: work.costs(values)[chosen] for name, values in alone.items()}
    simulation = Simulation(work.network, frames[chosen])
    cut_off = _cut_off(work.network, simulation)
    parts_at = list(_parts_at(work, simulation, work.reference[chosen]))
    for at, frame in enumerate(chosen):
        present = frames.mask[frame]
        yield WorstFrame(
            int(frame if rows is None else rows[frame]),
            "" if work.origins is None else str(work.origins[frame]),
            int(present.sum()),
            _floats(frames.ego[frame]),
            tuple(_floats(peer) for peer in frames.peers[frame][present]),
            _floats(reference[frame]),
            _floats(clipped[frame]),
            float(error[frame]),
            parts_at[at],
            max(costs, key=lambda name: costs[name][at]),
            tuple(name for name, hit in cut_off.items() if hit[at]),
        )


def _floats(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(map(float, values))


def _parts_at(work: _Work, simulation: Simulation, reference: F32) -> Iterator[str]:
    """For each frame the source from which on the decision stays apart, sources added in the order of computation."""
    names = [place.name for place in work.network.places]
    steps: list[F32] = []
    setting: dict[str, How] = {}
    for name in names:
        setting[name] = QUANTIZED
        steps.append(simulation.values(setting).astype(np.float32))
    apart = np.array([_apart(work.space, reference, values, steps[-1]) for values in steps])
    for own in apart.T:
        together = np.flatnonzero(~own)
        first = int(together[-1]) + 1 if len(together) else 0
        yield names[first] if first < len(names) else DOUBLE_ROUNDING


def _apart(space: ActionSpace, reference: F32, values: F32, final: F32) -> NDArray[np.bool_]:
    if isinstance(space, Discrete):
        return np.asarray(space.decide(values) != space.decide(reference))
    exact = space.clip(reference)
    error, whole = (np.abs(space.clip(one) - exact).max(axis=1) for one in (values, final))
    return np.asarray((error >= whole / 2) & (whole > 0))


def _cut_off(network: Network, simulation: Simulation) -> dict[str, NDArray[np.bool_]]:
    """For each frame whether a tensor holds a value beyond its range; the output apart, whose clip may be wanted."""
    frames = simulation.observations
    owner = np.repeat(np.arange(len(frames)), frames.counts)
    hits: dict[str, NDArray[np.bool_]] = {}
    parts, grids = {place.name: place.part for place in network.places}, network.grids

    def probe(name: str, codes: F64) -> None:
        beyond = (grids[name].beyond(codes) > BEYOND).any(axis=1)
        per_peer = parts[name] == "peer_encoder"
        hits[name] = np.bincount(owner, weights=beyond, minlength=len(frames)) > 0 if per_peer else np.asarray(beyond)

    simulation.values(network.everything, probe)
    return {name: hit for name, hit in hits.items() if name != OUTPUT}
