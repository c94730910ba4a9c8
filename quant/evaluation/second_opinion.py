"""A second opinion on who drives better: the same drivers on the run's own scenarios in SUMO, held against our world.

It decides nothing. The verdict stays the convoy world's; what the two worlds do not agree on is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError, StaleError
from quant.evaluation.actors import Actor, gate_actors
from quant.evaluation.closed_loop import drive
from quant.evaluation.evaluation import FLOAT, ClosedLoop, Evaluation, check_together, evaluation_from_json
from quant.evaluation.gate import blindness
from quant.evaluation.outcomes import SliceOutcome
from quant.evaluation.power import detectable_drop, holm
from quant.evaluation.statistics import LEVEL, Bits, Estimate, Paired, proportion
from quant.files import Progress, no_progress, read_json, write_json
from quant.policy.policy import Policy
from quant.tracks.candidate import Candidate
from quant.worlds.scenarios import ScenarioSet
from quant.worlds.sumo import SUMO, sumo_version, sumo_world
from quant.worlds.world import CONVOY

SCHEMA_VERSION = 1
EPISODES = {"nominal": 1000, "lossy": 500}
"""How many of a run's scenarios are driven, unless other numbers are asked for: the first of each slice."""
KINDS: Mapping[str, type] = {
    "sumo_version": str,
    "following": str,
    "success_drop_limit": float,
    "sentences": list,
    "evaluations": dict,
}
NAMES = {CONVOY: "the convoy world", SUMO: "SUMO"}
SUCCESS, COLLISIONS = "success", "collisions"


@dataclass(frozen=True)
class Figures:
    """One driver on one slice in one world, on the scenarios that both worlds have driven.

    Attributes:
        driver: ``float``, a track, or one of the gate's actors.
        slice: its name.
        world: ``convoy`` or ``sumo``.
        n: scenarios.
        success, collision: rates; collision is None where the world does not say.
        needless, reward: means of an episode, m/s and the world's reward, over ``averaged`` episodes.
        averaged: the convoy world's evaluation keeps these two as means of all its episodes only.
        versus_float: the paired table; None for the float policy.
    """

    driver: str
    slice: str
    world: str
    n: int
    success: Estimate
    collision: Estimate | None
    needless: Estimate | None
    reward: Estimate
    averaged: int
    versus_float: Paired | None

    def to_json(self) -> dict[str, Any]:
        """Every figure by its key."""
        paired = self.versus_float
        return {
            "driver": self.driver,
            "slice": self.slice,
            "world": self.world,
            "n": self.n,
            "success": vars(self.success),
            "collision": None if self.collision is None else vars(self.collision),
            "needless": None if self.needless is None else vars(self.needless),
            "reward": vars(self.reward),
            "averaged": self.averaged,
            "losses": None if paired is None else paired.losses,
            "wins": None if paired is None else paired.wins,
            "mcnemar_p": None if paired is None else paired.mcnemar(),
        }


@dataclass(frozen=True)
class Contrast:
    """Two drivers on one figure in both worlds, over all scenarios that both have driven.

    Attributes:
        figure: `SUCCESS` or `COLLISIONS`.
        reference, other: the drivers.
        tables: by world, counting episodes with success, or without collision.
        p_values: by world, exact McNemar's after Holm's correction over all contrasts of that world.
    """

    figure: str
    reference: str
    other: str
    tables: Mapping[str, Paired]
    p_values: Mapping[str, float]

    def relation(self, world: str) -> int:
        """-1 where the other driver is significantly worse, 1 where it is better, 0 where neither is shown."""
        table = self.tables[world]
        return int(np.sign(table.wins - table.losses)) if self.p_values[world] < 1 - LEVEL else 0

    @property
    def agrees(self) -> bool:
        """Both worlds say the same of the two."""
        return self.relation(CONVOY) == self.relation(SUMO)

    def __str__(self) -> str:
        words = {-1: "worse", 0: "no difference shown", 1: "better"}
        told = []
        for world, table in self.tables.items():
            counts = f"{table.losses} : {table.wins}, p {self.p_values[world]:.2g}"
            told.append(f"{words[self.relation(world)]} in {NAMES[world]} ({counts})")
        contradicts = self.relation(CONVOY) * self.relation(SUMO) < 0
        head = "" if self.agrees else "CONTRADICTION: " if contradicts else "DISAGREEMENT: "
        return f"{head}{self.other} against {self.reference}, {self.figure}, losses : wins: {'; '.join(told)}"


@dataclass(frozen=True, eq=False)
class SecondOpinion:
    """What SUMO showed, beside what the convoy world showed of the same drivers.

    Attributes:
        version: of SUMO.
        following: SUMO's car-following model, a key of :data:`quant.worlds.sumo.MODELS`.
        limit: of a candidate's relative drop of success, under which a world is blind to the gate's actors.
        convoy: the run's evaluations by track, with ``float``.
        sumo: the same tracks in SUMO, closed loop alone, on the first scenarios of each slice.
    """

    version: str
    following: str
    limit: float
    convoy: Mapping[str, Evaluation]
    sumo: Mapping[str, Evaluation]

    @property
    def episodes(self) -> dict[str, int]:
        """Scenarios driven, by slice."""
        return {outcome.name: outcome.n for outcome in _closed(self.sumo[FLOAT]).slices}

    @cached_property
    def figures(self) -> tuple[Figures, ...]:
        """Every driver slice by slice, the convoy world before SUMO."""
        return tuple(_figures(self))

    @cached_property
    def contrasts(self) -> tuple[Contrast, ...]:
        """Every two of float and the candidates, on success and on collisions."""
        return tuple(_contrasts(self))

    @cached_property
    def blind(self) -> dict[str, dict[str, str]]:
        """For each world the slices on which its figures prove nothing, with the reason."""
        return {
            CONVOY: blindness(self.convoy[FLOAT], self.limit),
            SUMO: blindness(self.sumo[FLOAT], self.limit),
        }

    @property
    def agrees(self) -> bool:
        """SUMO can tell good driving from bad, and says of every two drivers what the convoy world says."""
        return not any(self.blind.values()) and all(contrast.agrees for contrast in self.contrasts)

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """Whether the worlds agree on who is better, in words; the first is the sum of it."""
        return tuple(_sentences(self))

    def to_json(self) -> dict[str, Any]:
        """The document, ready for :func:`quant.files.write_json`; without what is the convoy world's."""
        return {
            "schema_version": SCHEMA_VERSION,
            "world": SUMO,
            "sumo_version": self.version,
            "following": self.following,
            "episodes": self.episodes,
            "success_drop_limit": self.limit,
            "agrees": self.agrees,
            "sentences": list(self.sentences),
            "evaluations": {name: evaluation.to_json() for name, evaluation in self.sumo.items()},
        }

    def summary(self) -> dict[str, Any]:
        """The document with both worlds' figures in place of SUMO's evaluations."""
        document = self.to_json()
        del document["evaluations"]
        return document | {"blind": self.blind, "figures": [one.to_json() for one in self.figures]}

    def save(self, path: Path) -> None:
        """Writes the document to ``path``."""
        write_json(path, self.to_json())


def ask(
    policy: Policy,
    candidates: Mapping[str, Candidate],
    scenarios: ScenarioSet,
    convoy: Mapping[str, Evaluation],
    *,
    limit: float,
    episodes: Mapping[str, int] | None = None,
    following: str = "krauss",
    workers: int | None = None,
    progress: Progress = no_progress,
) -> SecondOpinion:
    """Drives float, every candidate and the gate's actors in SUMO.

    Args:
        policy: the float policy.
        candidates: by track.
        scenarios: the run's own.
        convoy: the run's evaluations by track, on these scenarios.
        limit: see :class:`SecondOpinion`.
        episodes: scenarios of each slice, from the first on; None: `EPISODES`. Where there are fewer, all.
        following: SUMO's car-following model.
        workers: processes; None: one for each processor.
        progress: called with episodes done and in all.

    Raises:
        InputError: libsumo is missing, another world's scenarios, no such model, or no episodes.
    """
    world, version = sumo_world(following), sumo_version()
    world.check(scenarios)
    chosen = _first(scenarios, EPISODES if episodes is None else episodes)
    drivers = [Actor(FLOAT, policy), *(Actor(name, candidate) for name, candidate in candidates.items())]
    outcomes = drive([*drivers, *gate_actors(policy)], world, chosen, workers=workers, progress=progress)
    specification = {
        "specification": SUMO,
        "kwargs": {"following": following},
        "purpose": scenarios.purpose,
        "seed": scenarios.seed,
        "episodes": len(chosen),
    }
    gate = {name: slices for name, slices in outcomes.items() if name not in convoy}
    sumo = {}
    for name in (FLOAT, *candidates):
        tables = tuple(Paired.of(f.success, c.success) for f, c in zip(outcomes[FLOAT], outcomes[name], strict=True))
        loop = ClosedLoop(outcomes[name], () if name == FLOAT else tables, gate if name == FLOAT else {})
        sumo[name] = Evaluation(name, convoy[name].arithmetic, convoy[name].hashes, specification, loop, None)
    return SecondOpinion(version, following, limit, convoy, sumo)


def load_second_opinion(path: Path, convoy: Mapping[str, Evaluation]) -> SecondOpinion:
    """Reads what :meth:`SecondOpinion.save` wrote, and holds it against the run's evaluations.

    Args:
        path: the file.
        convoy: the run's evaluations by track.

    Raises:
        InputError: not such a file, another schema version, a missing or wrong key, or figures that do not follow from
            the episodes.
        StaleError: it is of another policy, candidate or scenario file than the run's.
    """
    document = read_json(path)
    found = document.get("schema_version") if isinstance(document, dict) else None
    if found != SCHEMA_VERSION:
        raise InputError(f"schema version {found}", where=path, expected=f"version {SCHEMA_VERSION}")
    for key, kind in KINDS.items():
        if type(document.get(key)) is not kind:
            raise InputError(f"{key} is missing or of another type", where=path, expected=f"{key}: {kind.__name__}")
    sumo = {
        name: evaluation_from_json(one, f"{path}: evaluations.{name}") for name, one in document["evaluations"].items()
    }
    _check_fits(sumo, convoy, path)
    opinion = SecondOpinion(
        document["sumo_version"], document["following"], document["success_drop_limit"], convoy, sumo
    )
    # Sentences are for who reads the file; they are made again, and another version may word them otherwise.
    if opinion.to_json() | {"sentences": document.get("sentences")} != document:
        raise InputError(
            "agreement or other figures do not follow from the rest of the file and the run's evaluations",
            where=path,
            hint="ask again (quant sumo RUN) instead of editing the file",
        )
    return opinion


def _check_fits(sumo: Mapping[str, Evaluation], convoy: Mapping[str, Evaluation], path: Path) -> None:
    again = "ask again (quant sumo RUN), or remove the file"
    if list(sumo) != list(convoy):
        raise StaleError(f"is of {', '.join(sumo)}", where=path, expected=", ".join(convoy), hint=again)
    check_together(sumo)
    for name, evaluation in sumo.items():
        if evaluation.hashes != dict(convoy[name].hashes):
            raise StaleError(f"SUMO drove another {name}, or other scenarios", where=path, hint=again)
        ours, theirs = _closed(convoy[name]).slices, _closed(evaluation, path).slices
        known = {outcome.name: outcome.n for outcome in ours}
        if any(outcome.n > known.get(outcome.name, 0) for outcome in theirs):
            raise StaleError("has more episodes than the run's evaluation", where=path, hint=again)


def _closed(evaluation: Evaluation, where: object = "the run") -> ClosedLoop:
    if evaluation.closed_loop is None:
        raise InputError(
            "driving was not tested",
            where=where,
            expected="a run with the convoy world",
            hint="quant run POLICY --world convoy, if it was trained in our convoys",
        )
    return evaluation.closed_loop


def _first(scenarios: ScenarioSet, episodes: Mapping[str, int]) -> ScenarioSet:
    """The first scenarios of each slice, in their order."""
    rows = [np.flatnonzero(scenarios.slices == name)[: episodes.get(name, 0)] for name in scenarios.slice_names]
    chosen: NDArray[np.int64] = np.concatenate(rows)
    if not len(chosen):
        raise InputError("no episodes to drive", where=SUMO, expected=f"some of {', '.join(scenarios.slice_names)}")
    return scenarios[chosen]


def _drivers(evaluations: Mapping[str, Evaluation]) -> dict[str, dict[str, SliceOutcome]]:
    """Outcomes by driver, the gate's actors last, and slice."""
    loops = {name: _closed(evaluation).slices for name, evaluation in evaluations.items()}
    every = {**loops, **_closed(evaluations[FLOAT]).gate}
    return {name: {outcome.name: outcome for outcome in slices} for name, slices in every.items()}


def _figures(opinion: SecondOpinion) -> Iterator[Figures]:
    worlds = {CONVOY: _drivers(opinion.convoy), SUMO: _drivers(opinion.sumo)}
    for name, n in opinion.episodes.items():
        for driver in worlds[SUMO]:
            for world, drivers in worlds.items():
                if driver in drivers:
                    own, original = drivers[driver][name], drivers[FLOAT][name]
                    yield Figures(
                        driver,
                        name,
                        world,
                        n,
                        _rate(own.success[:n]),
                        None if own.collision is None else _rate(own.collision[:n]),
                        own.needless,
                        own.reward,
                        own.n,
                        None if driver == FLOAT else Paired.of(original.success[:n], own.success[:n]),
                    )


def _rate(bits: Bits) -> Estimate:
    return proportion(int(bits.sum()), len(bits))


def _contrasts(opinion: SecondOpinion) -> Iterator[Contrast]:
    bits = {world: _bits(evaluations, opinion.episodes) for world, evaluations in _worlds(opinion).items()}
    pairs = [(figure, *pair) for figure in (SUCCESS, COLLISIONS) for pair in combinations(opinion.sumo, 2)]
    tables = {
        world: [Paired.of(own[figure, one], own[figure, other]) for figure, one, other in pairs]
        for world, own in bits.items()
    }
    p_values = {world: holm([table.mcnemar() for table in own]) for world, own in tables.items()}
    for index, (figure, one, other) in enumerate(pairs):
        yield Contrast(
            figure,
            one,
            other,
            {world: own[index] for world, own in tables.items()},
            {world: own[index] for world, own in p_values.items()},
        )


def _worlds(opinion: SecondOpinion) -> dict[str, Mapping[str, Evaluation]]:
    return {CONVOY: opinion.convoy, SUMO: opinion.sumo}


def _bits(evaluations: Mapping[str, Evaluation], episodes: Mapping[str, int]) -> dict[tuple[str, str], Bits]:
    """By figure and driver, over all slices: success, and no collision."""
    found: dict[tuple[str, str], Bits] = {}
    for name, slices in _drivers(evaluations).items():
        own = [(slices[which], n) for which, n in episodes.items()]
        found[SUCCESS, name] = np.concatenate([outcome.success[:n] for outcome, n in own])
        found[COLLISIONS, name] = np.concatenate([~_collision(outcome)[:n] for outcome, n in own])
    return found


def _collision(outcome: SliceOutcome) -> Bits:
    assert outcome.collision is not None  # both worlds tell
    return outcome.collision


def _sentences(opinion: SecondOpinion) -> Iterator[str]:
    yield _headline(opinion)
    for world, reasons in opinion.blind.items():
        for name, reason in reasons.items():
            yield f"BLIND: {NAMES[world]} on {name}: {reason}"
    told = [contrast for contrast in opinion.contrasts if contrast.relation(CONVOY) or contrast.relation(SUMO)]
    yield from map(str, told)
    if len(told) < len(opinion.contrasts):
        yield _ties(opinion, told)
    yield _alike(opinion)


def _headline(opinion: SecondOpinion) -> str:
    apart = [contrast for contrast in opinion.contrasts if not contrast.agrees]
    if any(opinion.blind.values()):
        blind = [NAMES[world] for world, reasons in opinion.blind.items() if reasons]
        return f"NO SECOND OPINION: {' and '.join(blind)} cannot tell good driving from bad on every slice"
    if apart:
        return (
            f"SUMO DISAGREES with the convoy world on {len(apart)} of {len(opinion.contrasts)} comparisons; "
            "the verdict stays the convoy world's"
        )
    if any(contrast.relation(SUMO) for contrast in opinion.contrasts):
        return "SUMO agrees with the convoy world on who drives better, and neither is blind"
    return "SUMO agrees with the convoy world: nobody is shown to drive better than another, and neither is blind"


def _ties(opinion: SecondOpinion, told: Sequence[Contrast]) -> str:
    """What no difference means: how large a loss would have been seen, also if Holm's correction asks most of it."""
    alpha = (1 - LEVEL) / len(opinion.contrasts)
    quiet = [contrast for contrast in opinion.contrasts if contrast not in told]
    drops = [detectable_drop(contrast.tables[SUMO], alpha) for contrast in quiet if contrast.figure == SUCCESS]
    seen = [drop for drop in drops if drop is not None]
    others = "otherwise, " if told else ""
    words = f"{others}no difference between two drivers in either world, in success or collisions"
    if not seen:
        return words
    return f"{words}; SUMO would have shown {100 * max(seen):.1f} points of success lost in 4 of 5 cases"


def _alike(opinion: SecondOpinion) -> str:
    ours, theirs = (_bits(evaluations, opinion.episodes) for evaluations in _worlds(opinion).values())
    one, other = ours[SUCCESS, FLOAT], theirs[SUCCESS, FLOAT]
    return (
        f"float succeeds in {one.mean():.1%} of {len(one):,} in the convoy world and in {other.mean():.1%} in "
        f"SUMO: {(one & other).sum():,} in both, {(one & ~other).sum()} and {(~one & other).sum()} in one of them alone"
    )
