"""Which candidate to deploy: the rule, applied, with its reasons in words.

1. A candidate that fails a criterion is out. Unproven is not failed: it makes the verdict *provisional*. But where some
   are shown to keep the limits of success and others are not, for want of episodes, the others stand behind them.
2. With driving that can be trusted, the best success rate leads, over all episodes of the slices that are not blind. A
   rival whose paired difference from the leader is not significant ties with it: exact McNemar, corrected by Holm over
   all pairs, since the leader is known only when the episodes have been driven. Among the tied: fewer collisions, then
   higher mean reward, then fewer bytes. These need not differ significantly; something has to decide between equals,
   and the record says that it was a tie, of which tracks, and what decided it.
3. Without such driving, the best action agreement leads: on drives that every track was made without, where there are
   such, else on held-out frames. Rivals less than ``tie_agreement`` behind tie. Among them the lowest mean error leads;
   rivals at most ``tie_relative_mae`` above it tie, since differences of that size come and go with a training seed.
   Among those: fewer bytes, then the lower mean error.
4. What is equal even then is decided by the alphabet, and the record says that too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from quant.acceptance.assessment import DROP, MARGIN, UNSEEN, Assessment
from quant.acceptance.contest import Contest, Standing, collisions, contest, needless, reward, successes
from quant.acceptance.criterion import Outcome, quantity
from quant.acceptance.device import DEVICE_CRITERIA, device_line
from quant.acceptance.limits import Limits
from quant.acceptance.stress import STRESS_CRITERIA, UNDECLARED
from quant.errors import InputError
from quant.evaluation.evaluation import FLOAT, HASHES, Evaluation, check_together, rounded, unseen_json
from quant.evaluation.gate import blindness, gate_results, open_loop_blindness
from quant.evaluation.open_loop import Closeness
from quant.evaluation.power import holm
from quant.evaluation.stress.results import Stress, frame_json
from quant.evaluation.unseen import Unseen, pooled
from quant.files import write_json
from quant.observation.coverage import Coverage, physical_ends

SCHEMA_VERSION = 4

Basis = Literal["closed loop", "open loop"]
Status = Literal["confirmed", "provisional", "none"]


@dataclass(frozen=True)
class Rival:
    """A candidate the winner was held against, and how that went.

    Attributes:
        track: the rival's.
        eligible: it failed no criterion.
        comparison: in words.
        contest: the winner as reference, the rival against it, on the episodes that counted; None in open loop.
    """

    track: str
    eligible: bool
    comparison: str
    contest: Contest | None


@dataclass(frozen=True)
class Verdict:
    """Who wins, why, against whom, on what evidence, and what is still to be shown.

    Attributes:
        winner: a track; None where every candidate fails something.
        status: ``confirmed`` if every criterion of the winner passes, ``provisional`` if some are unproven.
        basis: what decided: driving, or only the held-out frames.
        tied: the winner and every track it ties with, in the order of the tie-breakers; empty where it ties with none.
        decided_on: the figure that decided, as ``success rate`` or ``collisions``; None without a winner or a rival.
        why: sentences.
        against: the rivals.
        standings: every candidate against the float policy, slice by slice; none without a world.
        pairs: of the candidates that could win, every two on the episodes that counted; none in open loop.
        to_confirm: what would make a provisional verdict a confirmed one.
        warnings: what a reader must know before trusting it, as a blind slice.
        gate: how the gate's own actors fared, in words.
        coverage: how far each column of the input was recorded, is declared and can be represented.
        unseen: by track, what it did on each drive it was made without.
        stress: the worst that was found over the declared range of the inputs; None where nobody looked.
        assessments: of all candidates.
        limits: that were in force.
        hashes: policy, dataset and scenarios.
    """

    winner: str | None
    status: Status
    basis: Basis
    tied: tuple[str, ...]
    decided_on: str | None
    why: tuple[str, ...]
    against: tuple[Rival, ...]
    standings: tuple[Standing, ...]
    pairs: tuple[Contest, ...]
    to_confirm: tuple[str, ...]
    warnings: tuple[str, ...]
    gate: tuple[str, ...]
    assessments: tuple[Assessment, ...]
    limits: Limits
    hashes: Mapping[str, str | None]
    coverage: tuple[Coverage, ...] = ()
    unseen: Mapping[str, tuple[Unseen, ...]] = field(default_factory=dict)
    stress: Stress | None = None

    @property
    def tie(self) -> bool:
        """The winner was not clearly better than every rival."""
        return bool(self.tied)

    @property
    def exit_code(self) -> int:
        """0 with a winner, 1 without."""
        return 0 if self.winner else 1

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        if self.winner is None:
            return "No winner: every candidate fails a criterion."
        others = _listed([track.upper() for track in self.tied if track != self.winner])
        tie = f" (a tie with {others}, decided on {self.decided_on})" if self.tie else ""
        # Where even success is open, the line that everybody reads says it.
        unproven = self.assessment(self.winner).with_outcome(Outcome.UNPROVEN)
        doubt = ": success is not proven" if any(_is_success(one.name) for one in unproven) else ""
        return f"Deploy {self.winner.upper()}{tie}. The verdict is {self.status}{doubt}.{self._on_unseen}"

    @property
    def _on_unseen(self) -> str:
        """What the winner's track does on drives it was made without; nothing where none was left out."""
        criteria = () if self.winner is None else self.assessment(self.winner).criteria
        found = next((one for one in criteria if one.name == UNSEEN and one.value is not None), None)
        return "" if found is None or found.value is None else f" On unseen drives it agrees on {1 - found.value:.2%}."

    @property
    def device(self) -> str:
        """Whether latency and memory of the winner are confirmed on the target, in one line."""
        criteria = () if self.winner is None else self.assessment(self.winner).criteria
        return device_line(criteria, self.limits.target) if criteria else "no winner"

    def assessment(self, track: str) -> Assessment:
        """Of one candidate.

        Raises:
            KeyError: there is no such candidate.
        """
        found = {assessment.track: assessment for assessment in self.assessments}
        return found[track]

    def to_json(self) -> dict[str, Any]:
        """The document of ``winner.json``."""
        won = None if self.winner is None else self.assessment(self.winner)
        return {
            "schema_version": SCHEMA_VERSION,
            "winner": self.winner,
            "status": self.status,
            "headline": self.headline,
            "why": list(self.why),
            "basis": self.basis,
            "tie": self.tie,
            "tied": list(self.tied),
            "decided_on": self.decided_on,
            "device": self.device,
            "against": [_rival_json(rival) for rival in self.against],
            "versus_float": {
                assessment.track: [one.to_json() for one in self.standings if one.track == assessment.track]
                for assessment in self.assessments
            },
            "pairs": [pair.to_json() for pair in self.pairs],
            "evidence": None if won is None else {c.name: c.evidence or "none" for c in won.criteria},
            "to_confirm": list(self.to_confirm),
            "warnings": list(self.warnings),
            "gate": list(self.gate),
            "coverage": [column.to_json() for column in self.coverage],
            "trusted_up_to": [_trusted_json(column) for column in self.coverage if _is_trusted_only(column)],
            "unseen": {track: [unseen_json(one) for one in found] for track, found in self.unseen.items()},
            **_stress_json(self.stress),
            "limits": self.limits.to_json(),
            "sha256": dict(self.hashes),
            "candidates": {assessment.track: assessment.to_json() for assessment in self.assessments},
        }

    def save(self, path: Path) -> None:
        """Writes ``winner.json``."""
        write_json(path, self.to_json())


@dataclass(frozen=True)
class _Ranking:
    """The eligible candidates in order, which of them tie, and what put the first before the second.

    ``figures`` are those of the tied by which it did, in words; ``pairs`` are of the candidates that could win;
    ``unshown`` stand behind them because they are not shown to keep the limits of success.
    """

    order: tuple[str, ...]
    tied: tuple[str, ...]
    decided_on: str
    figures: Mapping[str, str] = field(default_factory=dict)
    pairs: tuple[Contest, ...] = ()
    unshown: tuple[str, ...] = ()


def decide(assessments: Sequence[Assessment], evaluations: Mapping[str, Evaluation], limits: Limits) -> Verdict:
    """Applies the rule of this module's docstring.

    Args:
        assessments: one for each candidate.
        evaluations: by track, and ``float``.
        limits: that the assessments were made with.

    Raises:
        InputError: there is no candidate, or one without evaluation.
        StaleError: the evaluations do not belong together.
    """
    if not assessments:
        raise InputError("there is no candidate to decide between", where="decide", hint="run quant ptq or quant qat")
    for assessment in assessments:
        _check_evaluated(assessment, evaluations)
    check_together(evaluations)
    reference = evaluations[FLOAT]
    blind = blindness(reference, limits.success_drop)
    seeing = _seeing(reference, blind)
    basis: Basis = "closed loop" if seeing else "open loop"
    eligible = {a.track: a for a in assessments if a.eligible}
    ranking = None
    if eligible:
        rank = _rank_driving(eligible, evaluations, seeing, limits) if seeing else None
        ranking = rank or _rank_frames(eligible, evaluations, limits)
    winner = ranking.order[0] if ranking else None
    unproven = eligible[winner].with_outcome(Outcome.UNPROVEN) if winner else ()
    rivals = [_rival(winner, a, evaluations, seeing, ranking) for a in assessments if a.track != winner and ranking]
    standings = tuple(_standings(assessments, evaluations, blind, limits))
    return Verdict(
        winner=winner,
        status="none" if winner is None else "provisional" if unproven else "confirmed",
        basis=basis,
        tied=ranking.tied if ranking and len(ranking.tied) > 1 else (),
        decided_on=ranking.decided_on if ranking and len(eligible) > 1 else None,
        why=_why(winner, ranking, assessments, evaluations, seeing, standings),
        against=tuple(rivals),
        standings=standings,
        pairs=ranking.pairs if ranking else (),
        to_confirm=tuple(_to_confirm(c.name, c.unproven, seeing) for c in unproven),
        warnings=_warnings(reference, blind, limits),
        gate=tuple(map(str, gate_results(reference, limits.success_drop))),
        assessments=tuple(assessments),
        limits=limits,
        hashes={name: reference.hashes[name] for name in HASHES[:3]},
        unseen={a.track: evaluations[a.track].unseen for a in assessments},
    )


def _check_evaluated(assessment: Assessment, evaluations: Mapping[str, Evaluation]) -> None:
    if assessment.track not in evaluations:
        raise InputError(
            "the candidate has not been evaluated", where=assessment.track, hint="run quant evaluate again"
        )


def _seeing(reference: Evaluation, blind: Mapping[str, str]) -> tuple[str, ...]:
    """The slices whose driving counts."""
    if reference.closed_loop is None:
        return ()
    return tuple(outcome.name for outcome in reference.closed_loop.slices if outcome.name not in blind)


def _is_success(name: str) -> bool:
    return name.startswith((DROP, MARGIN))


def _shown(assessment: Assessment, seeing: tuple[str, ...]) -> bool:
    """Whether it is shown to keep the limits of success on every slice that could show it."""
    names = {f"{kind}[{name}]" for kind in (DROP, MARGIN) for name in seeing}
    return all(one.outcome is Outcome.PASS for one in assessment.criteria if one.name in names)


def _standings(
    assessments: Sequence[Assessment], evaluations: Mapping[str, Evaluation], blind: Mapping[str, str], limits: Limits
) -> Iterator[Standing]:
    reference, margin = evaluations[FLOAT], limits.success_margin_points / 100
    slices = () if reference.closed_loop is None else reference.closed_loop.slices
    for assessment in assessments:
        for outcome in slices:
            one = contest(reference, evaluations[assessment.track], (outcome.name,))
            yield Standing(outcome.name, one, margin, blind.get(outcome.name, ""))


def _pairs(
    tracks: Sequence[str], evaluations: Mapping[str, Evaluation], seeing: tuple[str, ...], limits: Limits
) -> tuple[Contest, ...]:
    """Every two of them, with p corrected over all pairs."""
    couples = list(combinations(tracks, 2))
    alpha = limits.tie_significance / max(len(couples), 1)
    pairs = [contest(evaluations[first], evaluations[second], seeing, alpha) for first, second in couples]
    adjusted = holm([pair.success.mcnemar() for pair in pairs])
    return tuple(replace(pair, adjusted=p, tests=len(pairs)) for pair, p in zip(pairs, adjusted, strict=True))


def _rank_driving(
    eligible: Mapping[str, Assessment],
    evaluations: Mapping[str, Evaluation],
    seeing: tuple[str, ...],
    limits: Limits,
) -> _Ranking:
    succeeded = {track: int(successes(evaluations[track], seeing).sum()) for track in eligible}
    shown = {track for track, assessment in eligible.items() if _shown(assessment, seeing)}
    could_win = [track for track in eligible if track in (shown or eligible)]
    pairs = _pairs(could_win, evaluations, seeing, limits)
    leader = min(could_win, key=lambda track: (-succeeded[track], track))
    tied = [leader]
    for pair in pairs:
        if leader in (pair.first, pair.second) and (pair.adjusted or 0.0) >= limits.tie_significance:
            tied.append(pair.second if pair.first == leader else pair.first)
    keys = {
        # All candidates drive in one world: it says so for all of them or for none.
        "collisions": lambda track: _collided(evaluations[track], seeing) or 0,
        "mean reward": lambda track: -reward(evaluations[track], seeing),
        "size": lambda track: eligible[track].total_bytes,
    }
    order, decided_on = _break_tie(tied, keys)
    rest = sorted(eligible.keys() - set(tied), key=lambda track: (track not in could_win, -succeeded[track], track))
    unshown = tuple(track for track in rest if track not in could_win)
    if len(tied) == 1:
        decided_on = "success rate" if len(could_win) > 1 else "proof of success"
    words: dict[str, Callable[[str], str]] = {
        "collisions": lambda track: _number(_collided(evaluations[track], seeing)),
        "mean reward": lambda track: f"{reward(evaluations[track], seeing):.4g}",
        "size": lambda track: quantity(eligible[track].total_bytes, "bytes"),
    }
    figures = {track: words[decided_on](track) for track in order} if decided_on in words else {}
    return _Ranking((*order, *rest), order, decided_on, figures, pairs, unshown)


def _collided(evaluation: Evaluation, seeing: tuple[str, ...]) -> int | None:
    """Episodes with a collision; None where the world does not say."""
    found = collisions(evaluation, seeing)
    return None if found is None else int(found.sum())


def _rank_frames(eligible: Mapping[str, Assessment], evaluations: Mapping[str, Evaluation], limits: Limits) -> _Ranking:
    agreement, mae = {}, {}
    found = _unseen(eligible, evaluations)
    for track in eligible:
        opened = evaluations[track].open_loop
        if opened is None:
            raise InputError(
                "the candidate was compared neither driving nor on frames", where=track, hint="run quant evaluate again"
            )
        close = found[track] if found else opened.overall
        agreement[track], mae[track] = rounded(close.agreement.value), rounded(close.mae)
    best = max(agreement.values())
    agreeing = [
        track for track in eligible if best - agreement[track] < limits.tie_agreement or agreement[track] == best
    ]
    lowest = min(mae[track] for track in agreeing)
    tied = [track for track in agreeing if mae[track] <= lowest * (1 + limits.tie_relative_mae)]
    order, decided_on = _break_tie(tied, {"size": lambda t: eligible[t].total_bytes, "mean error": mae.__getitem__})
    words: dict[str, Callable[[str], str]] = {
        "size": lambda track: quantity(eligible[track].total_bytes, "bytes"),
        "mean error": lambda track: f"{mae[track]:.4g}",
    }
    figures = {track: words[decided_on](track) for track in order} if decided_on in words else {}
    rest = sorted(
        eligible.keys() - set(tied), key=lambda t: (t not in agreeing, mae[t] if t in agreeing else 0, -agreement[t], t)
    )
    if len(tied) == 1:
        decided_on = "action agreement" if len(agreeing) == 1 else "mean error"
    return _Ranking((*order, *rest), order, decided_on, figures)


def _unseen(tracks: Collection[str], evaluations: Mapping[str, Evaluation]) -> dict[str, Closeness]:
    """What unseen drives say of the tracks; nothing unless they say it of all of them."""
    found = {track: pooled(evaluations[track].unseen) for track in tracks}
    return {track: one for track, one in found.items() if one is not None} if all(found.values()) else {}


def _break_tie(tied: Sequence[str], keys: Mapping[str, Callable[[str], float]]) -> tuple[tuple[str, ...], str]:
    """The tied in order, and the first key that tells the first from the second."""
    order = sorted(tied, key=lambda track: (*(key(track) for key in keys.values()), track))
    if len(order) == 1:
        return tuple(order), ""
    told = (name for name, key in keys.items() if key(order[0]) != key(order[1]))
    return tuple(order), next(told, "their names, all else being equal")


def _rival(
    winner: str | None,
    rival: Assessment,
    evaluations: Mapping[str, Evaluation],
    seeing: tuple[str, ...],
    ranking: _Ranking,
) -> Rival:
    won = winner or ""
    ours, theirs = evaluations[won], evaluations[rival.track]
    if not seeing:
        return Rival(rival.track, rival.eligible, f"{_frames(won, ours)}; {_frames(rival.track, theirs)}", None)
    pair = next((one for one in ranking.pairs if {one.first, one.second} == {won, rival.track}), None)
    held = contest(ours, theirs, seeing)
    if pair is not None:
        held = replace(held, detectable=pair.detectable, adjusted=pair.adjusted, tests=pair.tests)
    collided = f"{_number(_collided(ours, seeing))} against {_number(_collided(theirs, seeing))}"
    rewards = f"{reward(ours, seeing):.4g} against {reward(theirs, seeing):.4g}"
    words = f"{held.sentence}; collisions {collided}, mean reward {rewards}"
    return Rival(rival.track, rival.eligible, words, held)


def _number(count: int | None) -> str:
    return "unknown" if count is None else str(count)


def _frames(track: str, evaluation: Evaluation) -> str:
    if evaluation.open_loop is None:
        return f"{track} was not compared on frames"
    overall, unseen = evaluation.open_loop.overall, pooled(evaluation.unseen)
    words = f"{track} agrees on {_agrees(overall)}"
    return words if unseen is None else f"{words}; on drives it was made without, on {_agrees(unseen)}"


def _agrees(close: Closeness) -> str:
    return f"{close.agreement.value:.2%} of {close.n} frames with mean error {close.mae:.4g}"


def _why(
    winner: str | None,
    ranking: _Ranking | None,
    assessments: Sequence[Assessment],
    evaluations: Mapping[str, Evaluation],
    seeing: tuple[str, ...],
    standings: Sequence[Standing],
) -> tuple[str, ...]:
    failures = tuple(
        f"{assessment.track} is out: {criterion}"
        for assessment in assessments
        for criterion in assessment.with_outcome(Outcome.FAIL)
    )
    if winner is None or ranking is None:
        return failures
    sentences = [*failures]
    if seeing:
        sentences += [_driving(evaluations[track], seeing) for track in (winner, FLOAT)]
        sentences += [one.sentence for one in standings if one.track == winner]
    else:
        sentences.append(_frames(winner, evaluations[winner]))
    return (*sentences, *_order(winner, ranking, assessments))


def _driving(evaluation: Evaluation, seeing: tuple[str, ...]) -> str:
    """How one drove: success, and beside it what success may have been bought with."""
    success = successes(evaluation, seeing)
    collided, braking = _collided(evaluation, seeing), needless(evaluation, seeing)
    crashes = "" if collided is None else f"; collisions in {collided} ({collided / len(success):.2%})"
    brakes = "" if braking is None else f"; needless braking {braking:.3g} m/s an episode"
    return (
        f"{evaluation.track} succeeds in {int(success.sum())} of {len(success)} episodes ({success.mean():.2%}; "
        f"slices: {', '.join(seeing)}){crashes}{brakes}"
    )


def _order(winner: str, ranking: _Ranking, assessments: Sequence[Assessment]) -> Iterator[str]:
    """Which candidates made the same models, tie with the winner, are behind, or were none."""
    others = [track for track in ranking.tied if track != winner]
    models = {assessment.track: assessment.hashes for assessment in assessments}
    twins = [track for track in others if models[track] == models[winner]]
    if twins:
        yield f"{_listed(twins)} made the very same models as {winner}, byte for byte"
    if others:
        figures = ", ".join(f"{track} {figure}" for track, figure in ranking.figures.items())
        words = f"{ranking.decided_on} ({figures})" if figures else ranking.decided_on
        yield f"it is a tie with {_listed(others)}, decided on {words}"
    beaten = [track for track in ranking.order[1:] if track not in (*ranking.tied, *ranking.unshown)]
    if beaten and others:
        yield f"{_listed(beaten)} {'is' if len(beaten) == 1 else 'are'} behind and no part of the tie"
    elif beaten:
        yield f"{ranking.decided_on} decided against {_listed(beaten)}"
    if ranking.unshown:
        yield f"{_listed(ranking.unshown)} not shown to keep the limits of success, and so behind {winner}"
    if len(ranking.order) == 1:
        yield "no other candidate is eligible" if len(assessments) > 1 else "there was no other candidate"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _to_confirm(name: str, reason: str, seeing: tuple[str, ...]) -> str:
    if name in STRESS_CRITERIA and UNDECLARED in reason:
        return f"{name}: {reason}; declare bounds in observation.toml"
    if name in DEVICE_CRITERIA:
        return f"{name}: {reason}; run pytest -m hil with the target board"
    if _is_success(name) and any(name.endswith(f"[{one}]") for one in seeing):
        return f"{name}: {reason}; evaluate on more episodes"
    if _is_success(name):
        return f"{name}: {reason}; evaluate in a world that tells good driving from bad"
    return f"{name}: {reason}"


def _warnings(reference: Evaluation, blind: Mapping[str, str], limits: Limits) -> tuple[str, ...]:
    frames = open_loop_blindness(reference, limits.action_disagreement)
    of_frames = [f"agreement proves nothing: {frames}"] if frames else []
    if reference.closed_loop is None:
        return ("driving was not tested: no world was given, and the open-loop figures decide", *of_frames)
    warnings = [*of_frames, *(f"success on {name} proves nothing: {reason}" for name, reason in blind.items())]
    if len(blind) == len(reference.closed_loop.slices):
        warnings.append("no slice tells good driving from bad: the open-loop figures decide")
    return tuple(warnings)


def _is_trusted_only(column: Coverage) -> bool:
    """Nobody declared how far it goes, and it is no copy of a column that says so itself."""
    return not column.column.declared and column.column.copy_of is None


def _trusted_json(column: Coverage) -> dict[str, Any]:
    least, most = column.trusted
    return {
        "kind": column.kind,
        "name": column.column.name,
        "unit": column.column.unit,
        "least": rounded(least),
        "most": rounded(most),
        "in_units": physical_ends(column.column, column.trusted),
    }


def _stress_json(stress: Stress | None) -> dict[str, Any]:
    """The worst frame of each track, and how much of the range float is too steep in; null where nobody looked."""
    if stress is None:
        return {"worst_found": None, "unsettled_share": None}
    return {
        "worst_found": {track: frame_json(stress.contract, found) for track, found in stress.worst.items()},
        "unsettled_share": rounded(stress.unsettled.share),
    }


def _rival_json(rival: Rival) -> dict[str, Any]:
    held = rival.contest
    return {
        "track": rival.track,
        "eligible": rival.eligible,
        "comparison": rival.comparison,
        "winner_alone_succeeds": None if held is None else held.success.losses,
        "rival_alone_succeeds": None if held is None else held.success.wins,
        "mcnemar_p": None if held is None else rounded(held.success.mcnemar()),
        "contest": None if held is None else held.to_json(),
    }
