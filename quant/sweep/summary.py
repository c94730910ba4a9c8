"""What the runs of a sweep say together: their spread, whether it is more than noise, and which candidate to deploy.

The best of k candidates on some scenarios owes part of its lead to these scenarios (the winner's curse). So the one to
deploy is chosen on every other episode of each slice, and what it is worth is read off the episodes in between, which
nobody chose by. Without driving, blocks of held-out frames take the place of episodes. Limits are held against all of
them, as in every verdict: that a candidate is out by one is a choice that the other half had part in, and is said.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.acceptance.decision import Verdict
from quant.acceptance.limits import Limits
from quant.dataset import Split
from quant.evaluation.evaluation import FLOAT, Evaluation, rounded
from quant.evaluation.gate import blindness
from quant.evaluation.open_loop import MADE, agreements
from quant.evaluation.outcomes import SliceOutcome
from quant.evaluation.power import holm
from quant.evaluation.statistics import LEVEL, Bits, Drop, Estimate, Paired, proportion
from quant.files import sha256
from quant.runners import FloatRunner, Int8Runner
from quant.runs.run import Run, origins_of
from quant.sweep.jobs import Vary
from quant.tracks.storage import describe

SCHEMA_VERSION = 1
SIGNIFICANCE = 1 - LEVEL
EPISODES, FRAMES = "episodes", "held-out frames"


@dataclass(frozen=True, eq=False)
class Trial:
    """What a candidate did, item by item: in episodes of the slices that are not blind, or on held-out frames.

    Attributes:
        good: (n,) it succeeded; on a frame: the same action as float.
        bad: (n,) it collided, all False where the world does not say; on a frame: all False.
        error: (n,) mean absolute error on a frame; None of episodes.
        chosen: (n,) items to choose by; the others are to confirm.
    """

    good: Bits
    bad: Bits
    error: NDArray[np.float64] | None
    chosen: Bits

    def part(self, chosen: bool) -> Trial:
        """The half to choose by, or the one to confirm."""
        rows = self.chosen == chosen
        error = None if self.error is None else self.error[rows]
        return Trial(self.good[rows], self.bad[rows], error, self.chosen[rows])

    @property
    def mean_error(self) -> float | None:
        """Over all frames; None of episodes."""
        return None if self.error is None else float(self.error.mean())


@dataclass(frozen=True, eq=False)
class Entry:
    """One candidate of one seed.

    Attributes:
        seed, track: which.
        eligible: it failed no criterion.
        hashes: SHA-256 of its models, by part.
        identity: SHA-256 of its whole description, input quantization and all: equal for the same candidates.
        bytes: of both models.
        evaluation: its own.
        trial: its items.
        reference: the float policy's items of the same run; on frames it is right by definition.
    """

    seed: int
    track: str
    eligible: bool
    hashes: Mapping[str, str]
    identity: str
    bytes: int
    evaluation: Evaluation
    trial: Trial
    reference: Trial

    @property
    def name(self) -> str:
        """As ``qat of seed 3``."""
        return f"{self.track} of seed {self.seed}"

    @property
    def slices(self) -> tuple[SliceOutcome, ...]:
        """How it drove; none without a world."""
        return () if self.evaluation.closed_loop is None else self.evaluation.closed_loop.slices

    @property
    def drops(self) -> tuple[Drop | None, ...]:
        """Its loss of success against float, slice by slice."""
        closed = self.evaluation.closed_loop
        return () if closed is None else tuple(paired.drop() for paired in closed.versus_float)

    @cached_property
    def figures(self) -> dict[str, float]:
        """What is told of it, by name; shares and, for the error, the action's unit."""
        found = {}
        for outcome, drop in zip(self.slices, self.drops, strict=True):
            found[f"success[{outcome.name}]"] = outcome.success_rate.value
            if outcome.collision_rate is not None:
                found[f"collision[{outcome.name}]"] = outcome.collision_rate.value
            if outcome.needless is not None:
                found[f"needless[{outcome.name}]"] = outcome.needless.value
            if drop is not None:
                found[f"drop[{outcome.name}]"] = drop.upper
        opened = self.evaluation.open_loop
        if opened is not None:
            found |= {"agreement": opened.overall.agreement.value, "mae": opened.overall.mae}
        return found


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds.

    Attributes:
        mean: of the seeds.
        deviation: their standard deviation (n - 1); None for one seed.
        low, high: the least and the most.
    """

    mean: float
    deviation: float | None
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Of one value or more."""
        mean = math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        deviation = math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else None
        return Spread(mean, deviation, min(values), max(values))


@dataclass(frozen=True)
class Difference:
    """Two seeds of one track on the same items.

    Attributes:
        track, first, second: which.
        paired: ``first`` as reference.
        p: exact McNemar, adjusted by Holm for all pairs of the sweep.
    """

    track: str
    first: int
    second: int
    paired: Paired
    p: float

    @property
    def significant(self) -> bool:
        """The two differ by more than noise."""
        return self.p < SIGNIFICANCE


@dataclass(frozen=True)
class Half:
    """A candidate on one half of the items.

    Attributes:
        n: items.
        good: share that succeeded, or of frames with the same action.
        bad: collisions.
        error: mean absolute error; None where episodes count.
        drop: loss against float; None on frames, or where float never succeeded.
        typical: ``good`` of the average eligible candidate on the same half.
    """

    n: int
    good: Estimate
    bad: int
    error: float | None
    drop: Drop | None
    typical: float


@dataclass(frozen=True)
class Choice:
    """Which candidate to deploy.

    Attributes:
        seed, track: of the choice.
        among: how many different candidates it was chosen from.
        chosen: the half it was chosen on, where its figure is too good.
        confirmed: the other half; None where there is none, as of a single block of frames.
    """

    seed: int
    track: str
    among: int
    chosen: Half
    confirmed: Half | None


@dataclass(frozen=True)
class Summary:
    """All of it.

    Attributes:
        vary: what the seeds varied.
        items: `EPISODES` or `FRAMES`: what the seeds are compared and chosen by.
        unpaired: why the seeds did not meet the same items; empty where they did.
        entries: every candidate, by seed and track.
        winners: by seed: the track its own verdict deploys, or None.
        failures: by seed, why it could not be made.
        same: tracks whose candidates are the same whatever the seed.
        spreads: by track and figure.
        differences: between the seeds of a track.
        choice: None where no candidate is eligible.
        warnings: of the verdicts, each once.
    """

    vary: Vary
    items: str
    unpaired: str
    entries: tuple[Entry, ...]
    winners: Mapping[int, str | None]
    failures: Mapping[int, str]
    same: tuple[str, ...]
    spreads: Mapping[str, Mapping[str, Spread]]
    differences: tuple[Difference, ...]
    choice: Choice | None
    warnings: tuple[str, ...]

    @property
    def paired(self) -> bool:
        """All seeds met the same items."""
        return not self.unpaired

    @property
    def exit_code(self) -> int:
        """2 where a seed could not be made, 1 where no candidate passes, otherwise 0."""
        return 2 if self.failures else 0 if self.choice else 1

    @property
    def best(self) -> Entry | None:
        """The eligible candidate with the best figure over all items, which is too good to be true."""
        return max((one for one in self.entries if one.eligible), key=_lead, default=None)

    def sentences(self) -> tuple[str, ...]:
        """What it means, in words."""
        return tuple(_sentences(self))

    def to_json(self) -> dict[str, Any]:
        """The document of ``sweep.json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "vary": self.vary,
            "compared_on": self.items,
            "unpaired": self.unpaired or None,
            "sentences": list(self.sentences()),
            "deploy": None if self.choice is None else _choice_json(self.choice),
            "winners": {str(seed): track for seed, track in self.winners.items()},
            "failures": {str(seed): words for seed, words in self.failures.items()},
            "same_whatever_the_seed": list(self.same),
            "spread": {
                track: {name: _rounded(asdict(spread)) for name, spread in spreads.items()}
                for track, spreads in self.spreads.items()
            },
            "differences": {
                "test": "exact McNemar, adjusted by Holm",
                "significance": rounded(SIGNIFICANCE),
                "pairs": [_difference_json(one) for one in self.differences],
            },
            "candidates": [_entry_json(one) for one in self.entries],
            "warnings": list(self.warnings),
        }


def summarize(
    runs: Mapping[int, tuple[Run, Verdict]], failures: Mapping[int, str], limits: Limits, vary: Vary
) -> Summary:
    """Puts the finished runs of a sweep together.

    Args:
        runs: by seed, each with its verdict under ``limits``; one or more.
        failures: by seed, why there is no run.
        limits: that are in force.
        vary: what the seeds vary.
    """
    driving = all(_seeing(run, limits) for run, _ in runs.values())
    trials = {seed: (_driven(run, limits) if driving else _compared(run, limits)) for seed, (run, _) in runs.items()}
    entries = tuple(
        _entry(seed, track, run, verdict, trials[seed])
        for seed, (run, verdict) in runs.items()
        for track in run.candidates
    )
    tracks = list(dict.fromkeys(one.track for one in entries))
    unpaired = _unpaired([run for run, _ in runs.values()], vary)
    by_track = {track: [one for one in entries if one.track == track] for track in tracks}
    return Summary(
        vary=vary,
        items=EPISODES if driving else FRAMES,
        unpaired=unpaired,
        entries=entries,
        winners={seed: verdict.winner for seed, (_, verdict) in runs.items()},
        failures=failures,
        same=tuple(track for track, ones in by_track.items() if len(ones) > 1 and len(_distinct(ones)) == 1),
        spreads={track: _spreads(ones) for track, ones in by_track.items()},
        differences=() if unpaired else _differences(by_track),
        choice=_choose([one for one in entries if one.eligible], limits, paired=not unpaired, driving=driving),
        warnings=tuple(dict.fromkeys(words for _, verdict in runs.values() for words in verdict.warnings)),
    )


def _seeing(run: Run, limits: Limits) -> list[str]:
    """The slices that tell good driving from bad."""
    reference = run.evaluations[FLOAT]
    blind = blindness(reference, limits.success_drop)
    closed = reference.closed_loop
    return [] if closed is None else [outcome.name for outcome in closed.slices if outcome.name not in blind]


def _driven(run: Run, limits: Limits) -> dict[str, Trial]:
    """The episodes of float and every candidate. Within a slice every other one is to choose by."""
    seeing = _seeing(run, limits)
    return {name: _episodes(one, seeing) for name, one in run.evaluations.items()}


def _episodes(evaluation: Evaluation, seeing: Sequence[str]) -> Trial:
    assert evaluation.closed_loop is not None
    slices = [outcome for outcome in evaluation.closed_loop.slices if outcome.name in seeing]
    nothing = [np.zeros(outcome.n, np.bool_) for outcome in slices]
    collisions = [none if one.collision is None else one.collision for one, none in zip(slices, nothing, strict=True)]
    return Trial(
        np.concatenate([outcome.success for outcome in slices]),
        np.concatenate(collisions),
        None,
        np.concatenate([np.arange(outcome.n) % 2 == 0 for outcome in slices]),
    )


def _compared(run: Run, limits: Limits) -> dict[str, Trial]:
    """Recorded or rolled-out held-out frames of every candidate. Every other block is to choose by."""
    dataset, space = run.dataset, run.policy.action_space
    rows = dataset.rows(Split.HELD_OUT)
    seen = ~np.isin(origins_of(dataset, rows), MADE)
    rows = rows[seen] if seen.any() else rows
    frames = dataset.observations(rows)
    blocks = np.stack([dataset.column("origin")[rows], dataset.column("block")[rows]], axis=1)
    chosen = np.unique(blocks, axis=0, return_inverse=True)[1].reshape(-1) % 2 == 0
    values = FloatRunner(run.policy).values(frames)

    def trial(theirs: NDArray[np.float32]) -> Trial:
        error = np.abs(space.clip(theirs).astype(np.float64) - space.clip(values).astype(np.float64))
        same, _ = agreements(space, values, theirs, error, limits.action_tolerance)
        return Trial(same, np.zeros(len(rows), np.bool_), error.mean(axis=1), chosen)

    return {
        FLOAT: trial(values),
        **{track: trial(Int8Runner(candidate).values(frames)) for track, candidate in run.candidates.items()},
    }


def _entry(seed: int, track: str, run: Run, verdict: Verdict, trials: Mapping[str, Trial]) -> Entry:
    candidate = run.candidates[track]
    return Entry(
        seed,
        track,
        verdict.assessment(track).eligible,
        candidate.hashes,
        sha256(json.dumps(describe(candidate)).encode()),
        len(candidate.peer_encoder.tflite) + len(candidate.policy_head.tflite),
        run.evaluations[track],
        trials[track],
        trials[FLOAT],
    )


def _unpaired(runs: Sequence[Run], vary: Vary) -> str:
    """Why the runs cannot be paired; empty where they can."""
    if vary == "all":
        return "every seed has scenarios and frames of its own"
    for what in ("policy", "dataset", "scenarios"):
        if len({run.evaluations[FLOAT].hashes[what] for run in runs}) > 1:
            return f"the workers' processors made different {what}s of the same seed"
    return ""


def _distinct(entries: Iterable[Entry]) -> list[Entry]:
    """The first of each set of the very same candidates."""
    return list({(one.track, one.identity): one for one in reversed(list(entries))}.values())[::-1]


def _spreads(entries: Sequence[Entry]) -> dict[str, Spread]:
    names = [name for name in entries[0].figures if all(name in one.figures for one in entries)]
    return {name: Spread.of([one.figures[name] for one in entries]) for name in names}


def _differences(by_track: Mapping[str, Sequence[Entry]]) -> tuple[Difference, ...]:
    """Every pair of different models of a track, all corrected together."""
    pairs = [pair for entries in by_track.values() for pair in combinations(_distinct(entries), 2)]
    tables = [Paired.of(first.trial.good, second.trial.good) for first, second in pairs]
    adjusted = holm([table.mcnemar() for table in tables])
    return tuple(
        Difference(first.track, first.seed, second.seed, table, p)
        for (first, second), table, p in zip(pairs, tables, adjusted, strict=True)
    )


def _lead(entry: Entry, chosen: bool | None = None) -> float:
    """How far an entry is ahead of float, in items; on frames, how small its mean error is."""
    trial, reference = entry.trial, entry.reference
    if chosen is not None:
        trial, reference = trial.part(chosen), reference.part(chosen)
    if trial.mean_error is not None:
        return -trial.mean_error
    return (int(trial.good.sum()) - int(reference.good.sum())) / max(len(trial.good), 1)


def _choose(entries: Sequence[Entry], limits: Limits, *, paired: bool, driving: bool) -> Choice | None:
    """The rule of verdicts on the half to choose by: those who tie with the leader are told apart by collisions."""
    rivals = _distinct(entries) if paired else list(entries)
    if not rivals:
        return None
    leader = max(rivals, key=lambda one: (_lead(one, True), -one.seed))
    tied = [one for one in rivals if _ties(leader, one, limits, paired=paired and driving)]
    order: Callable[[Entry], tuple[float, ...]] = lambda one: (  # noqa: E731
        int(one.trial.part(True).bad.sum()) - int(one.reference.part(True).bad.sum()),
        one.figures.get("mae", 0.0) if driving else -_lead(one, True),
        one.bytes,
        one.seed,
    )
    best = min(tied, key=order)
    alone = any(one.trial.chosen.all() for one in rivals)
    confirmed = None if alone else _half(best, rivals, False)
    return Choice(best.seed, best.track, len(rivals), _half(best, rivals, True), confirmed)


def _ties(leader: Entry, other: Entry, limits: Limits, *, paired: bool) -> bool:
    if not paired:
        return _lead(other, True) == _lead(leader, True)
    table = Paired.of(leader.trial.part(True).good, other.trial.part(True).good)
    return table.mcnemar() >= limits.tie_significance


def _half(entry: Entry, rivals: Sequence[Entry], chosen: bool) -> Half:
    trial, reference = entry.trial.part(chosen), entry.reference.part(chosen)
    n = len(trial.good)
    return Half(
        n,
        proportion(int(trial.good.sum()), n),
        int(trial.bad.sum()),
        trial.mean_error,
        None if trial.error is not None else Paired.of(reference.good, trial.good).drop(),
        math.fsum(float(one.trial.part(chosen).good.mean()) for one in rivals) / len(rivals),
    )


def _sentences(found: Summary) -> Iterable[str]:
    for seed, words in found.failures.items():
        yield f"seed {seed} failed: {words.strip().splitlines()[-1]}"
    for track in found.same:
        yield f"{track} makes the same models whatever the seed"
    yield _wins(found)
    yield from _between_tracks(found)
    yield _noise(found)
    if found.choice is None:
        yield "deploy none: every candidate of every seed fails a criterion"
        return
    yield _deploy(found, found.choice)
    out = sum(not one.eligible for one in found.entries)
    if out:
        yield (
            f"{out} of {len(found.entries)} candidates are out by a limit; limits are held against all {found.items}, "
            "also those that confirm"
        )
    best = found.best
    if best is not None and found.choice.among > 1:
        yield (
            f"the best figure over all {found.items}, {_figure(best)} of {best.name}, is the best of "
            f"{found.choice.among} on the same {found.items} and too good to quote; to be sure of any, judge its run "
            "on fresh ones, with another --seed"
        )


def _wins(found: Summary) -> str:
    counts = {track: list(found.winners.values()).count(track) for track in found.spreads}
    none = list(found.winners.values()).count(None)
    words = ", ".join(f"{track} {count}" for track, count in counts.items())
    return f"wins in {len(found.winners)} seeds: {words}{f', none {none}' if none else ''}"


def _between_tracks(found: Summary) -> Iterable[str]:
    """Every later track against the first, seed by seed: whether its lead is luck."""
    first, *others = found.spreads
    leads = {(one.seed, one.track): _lead(one) for one in found.entries}
    better = "smaller mean error" if found.items == FRAMES else "more successes"
    for track in others:
        pairs = [(leads[seed, track], leads[seed, first]) for seed in found.winners if (seed, track) in leads]
        ahead, behind = sum(own > its for own, its in pairs), sum(own < its for own, its in pairs)
        yield f"{track} against {first}: {better} in {ahead} of {len(pairs)} seeds, {_less(better)} in {behind}"


def _less(better: str) -> str:
    return better.replace("smaller", "larger").replace("more", "fewer")


def _noise(found: Summary) -> str:
    if found.unpaired:
        return f"differences between seeds were not tested: {found.unpaired}"
    tests = len(found.differences)
    if not tests:
        return "there are no two different candidates of a track to compare"
    seen = [one for one in found.differences if one.significant]
    kind = "" if found.items == EPISODES else " (frames of a drive resemble each other: p promises too much)"
    if not seen:
        least = min(one.p for one in found.differences)
        return (
            f"no two seeds of a track differ by more than noise on these {found.items}: {tests} pairs, least p after "
            f"Holm {least:.2g}{kind}"
        )
    first = min(seen, key=lambda one: one.p)
    return (
        f"{len(seen)} of {tests} pairs of seeds differ by more than noise, most clearly {first.track} of seeds "
        f"{first.first} and {first.second} ({first.paired.losses} : {first.paired.wins}, p after Holm "
        f"{first.p:.2g}){kind}"
    )


def _deploy(found: Summary, choice: Choice) -> str:
    there, here = choice.chosen, choice.confirmed
    head = f"deploy {choice.track} of seed {choice.seed}, chosen from {choice.among} on {there.n} {found.items}"
    if here is None:
        return f"{head}; nothing is left to confirm it on: what it is worth is not known"
    interval = f"{here.good.low:.2%} to {here.good.high:.2%}"
    if here.error is not None and there.error is not None:
        return (
            f"{head} with mean error {there.error:.4g}; on {here.n} others, that nobody chose by, its mean error is "
            f"{here.error:.4g} and it agrees with float on {here.good.value:.2%} ({interval}), the average candidate "
            f"on {here.typical:.2%}"
        )
    drop = ""
    if here.drop is not None:
        most = here.drop.upper
        words = f"loses at most {most:.2%}" if most > 0 else f"gains at least {-most:.2%}"
        drop = f", {words} of float's success (95 % bound)"
    return (
        f"{head} ({there.good.value:.2%}); on {here.n} others, that nobody chose by, it succeeds in "
        f"{here.good.value:.2%} ({interval}){drop} and collides in {here.bad}; the average candidate succeeds in "
        f"{here.typical:.2%}"
    )


def _figure(entry: Entry) -> str:
    if entry.trial.mean_error is not None:
        return f"a mean error of {entry.trial.mean_error:.4g}"
    return f"{entry.trial.good.mean():.2%}"


def _rounded(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: rounded(one) if isinstance(one, float) else one for key, one in value.items()}


def _half_json(half: Half) -> dict[str, Any]:
    plain = asdict(half)
    nested = {key: _rounded(value) if isinstance(value, dict) else value for key, value in plain.items()}
    return _rounded(nested)


def _choice_json(choice: Choice) -> dict[str, Any]:
    return {
        "seed": choice.seed,
        "track": choice.track,
        "among": choice.among,
        "chosen_on": _half_json(choice.chosen),
        "confirmed_on": None if choice.confirmed is None else _half_json(choice.confirmed),
    }


def _difference_json(one: Difference) -> dict[str, Any]:
    return {
        "track": one.track,
        "seeds": [one.first, one.second],
        "first_alone": one.paired.losses,
        "second_alone": one.paired.wins,
        "p": rounded(one.p),
        "significant": one.significant,
    }


def _entry_json(one: Entry) -> dict[str, Any]:
    return {
        "seed": one.seed,
        "track": one.track,
        "eligible": one.eligible,
        "bytes": one.bytes,
        "sha256": dict(one.hashes),
        "figures": {name: rounded(value) for name, value in one.figures.items()},
    }
