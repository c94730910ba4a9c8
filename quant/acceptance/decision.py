"""Which candidate to deploy: the rule, applied, with its reasons in words.

1. A candidate that fails a criterion is out. Unproven is not failed: it makes the verdict *provisional*.
2. With driving that can be trusted, the best success rate leads, over all episodes of the slices that are not blind. A
   rival whose paired difference from the leader is not significant (exact McNemar) ties with it. Among the tied: fewer
   collisions, then higher mean reward, then fewer bytes. These need not differ significantly; something has to decide
   between equals, and the record says that it was a tie and what decided it.
3. Without such driving, the best action agreement leads; rivals less than ``tie_agreement`` behind tie. Among them the
   lowest mean error leads; rivals at most ``tie_relative_mae`` above it tie, since differences of that size come and
   go with a training seed. Among those: fewer bytes, then the lower mean error.
4. What is equal even then is decided by the alphabet, and the record says that too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from quant.acceptance.assessment import Assessment
from quant.acceptance.criterion import Outcome
from quant.acceptance.device import DEVICE_CRITERIA, device_line
from quant.acceptance.limits import Limits
from quant.errors import InputError
from quant.evaluation.evaluation import FLOAT, HASHES, Evaluation, check_together, rounded
from quant.evaluation.gate import blindness, gate_results, open_loop_blindness
from quant.evaluation.outcomes import SliceOutcome
from quant.evaluation.statistics import Bits, Paired
from quant.files import write_json

SCHEMA_VERSION = 1

Basis = Literal["closed loop", "open loop"]
Status = Literal["confirmed", "provisional", "none"]


@dataclass(frozen=True)
class Rival:
    """A candidate the winner was held against, and how that went.

    Attributes:
        track: the rival's.
        eligible: it failed no criterion.
        comparison: in words.
        paired: the winner as reference, the rival as candidate, on the episodes that counted; None in open loop.
    """

    track: str
    eligible: bool
    comparison: str
    paired: Paired | None


@dataclass(frozen=True)
class Verdict:
    """Who wins, why, against whom, on what evidence, and what is still to be shown.

    Attributes:
        winner: a track; None where every candidate fails something.
        status: ``confirmed`` if every criterion of the winner passes, ``provisional`` if some are unproven.
        basis: what decided: driving, or only the held-out frames.
        tie: the winner was not clearly better than every rival.
        decided_on: the figure that decided, as ``success rate`` or ``collisions``; None without a winner or a rival.
        why: sentences.
        against: the rivals.
        to_confirm: what would make a provisional verdict a confirmed one.
        warnings: what a reader must know before trusting it, as a blind slice.
        gate: how the gate's own actors fared, in words.
        assessments: of all candidates.
        limits: that were in force.
        hashes: policy, dataset and scenarios.
    """

    winner: str | None
    status: Status
    basis: Basis
    tie: bool
    decided_on: str | None
    why: tuple[str, ...]
    against: tuple[Rival, ...]
    to_confirm: tuple[str, ...]
    warnings: tuple[str, ...]
    gate: tuple[str, ...]
    assessments: tuple[Assessment, ...]
    limits: Limits
    hashes: Mapping[str, str | None]

    @property
    def exit_code(self) -> int:
        """0 with a winner, 1 without."""
        return 0 if self.winner else 1

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        if self.winner is None:
            return "No winner: every candidate fails a criterion."
        tie = f" (a tie, decided on {self.decided_on})" if self.tie else ""
        return f"Deploy {self.winner.upper()}{tie}. The verdict is {self.status}."

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
            "decided_on": self.decided_on,
            "device": self.device,
            "against": [_rival_json(rival) for rival in self.against],
            "evidence": None if won is None else {c.name: c.evidence or "none" for c in won.criteria},
            "to_confirm": list(self.to_confirm),
            "warnings": list(self.warnings),
            "gate": list(self.gate),
            "limits": self.limits.to_json(),
            "sha256": dict(self.hashes),
            "candidates": {assessment.track: assessment.to_json() for assessment in self.assessments},
        }

    def save(self, path: Path) -> None:
        """Writes ``winner.json``."""
        write_json(path, self.to_json())


@dataclass(frozen=True)
class _Ranking:
    """The eligible candidates in order, and what put the first before the second."""

    order: tuple[str, ...]
    tied: frozenset[str]
    decided_on: str


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
    rivals = [_rival(winner, a, evaluations, seeing) for a in assessments if a.track != winner] if winner else []
    return Verdict(
        winner=winner,
        status="none" if winner is None else "provisional" if unproven else "confirmed",
        basis=basis,
        tie=winner is not None and ranking is not None and len(ranking.tied) > 1,
        decided_on=ranking.decided_on if ranking and len(eligible) > 1 else None,
        why=_why(winner, ranking, assessments, evaluations, seeing),
        against=tuple(rivals),
        to_confirm=tuple(_to_confirm(c.name, c.unproven) for c in unproven),
        warnings=_warnings(reference, blind, limits),
        gate=tuple(map(str, gate_results(reference, limits.success_drop))),
        assessments=tuple(assessments),
        limits=limits,
        hashes={name: reference.hashes[name] for name in HASHES[:3]},
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


def _driven(evaluation: Evaluation, seeing: tuple[str, ...]) -> list[SliceOutcome]:
    slices = () if evaluation.closed_loop is None else evaluation.closed_loop.slices
    return [outcome for outcome in slices if outcome.name in seeing]


def _successes(evaluation: Evaluation, seeing: tuple[str, ...]) -> Bits:
    return np.concatenate([outcome.success for outcome in _driven(evaluation, seeing)])


def _collisions(evaluation: Evaluation, seeing: tuple[str, ...]) -> int | None:
    """Collisions on the slices; None where the world does not say."""
    known = [outcome.collision for outcome in _driven(evaluation, seeing) if outcome.collision is not None]
    return sum(int(collision.sum()) for collision in known) if len(known) == len(seeing) else None


def _number(count: int | None) -> str:
    return "unknown" if count is None else str(count)


def _reward(evaluation: Evaluation, seeing: tuple[str, ...]) -> float:
    outcomes = _driven(evaluation, seeing)
    # Rounded as in the files, so that the verdict is the same whether they have been read back or not.
    return rounded(sum(rounded(o.reward.value) * o.n for o in outcomes) / sum(o.n for o in outcomes))


def _rank_driving(
    eligible: Mapping[str, Assessment],
    evaluations: Mapping[str, Evaluation],
    seeing: tuple[str, ...],
    limits: Limits,
) -> _Ranking:
    success = {track: _successes(evaluations[track], seeing) for track in eligible}
    leader = min(eligible, key=lambda track: (-int(success[track].sum()), track))
    tied = [t for t in eligible if Paired.of(success[leader], success[t]).mcnemar() >= limits.tie_significance]
    keys: dict[str, Callable[[str], float]] = {
        # All candidates drive in one world: it says so for all of them or for none.
        "collisions": lambda track: _collisions(evaluations[track], seeing) or 0,
        "mean reward": lambda track: -_reward(evaluations[track], seeing),
        "size": lambda track: eligible[track].total_bytes,
    }
    order, decided_on = _break_tie(tied, keys)
    rest = sorted(eligible.keys() - set(tied), key=lambda track: (-int(success[track].sum()), track))
    return _Ranking((*order, *rest), frozenset(tied), decided_on if len(tied) > 1 else "success rate")


def _rank_frames(eligible: Mapping[str, Assessment], evaluations: Mapping[str, Evaluation], limits: Limits) -> _Ranking:
    agreement, mae = {}, {}
    for track in eligible:
        opened = evaluations[track].open_loop
        if opened is None:
            raise InputError("the candidate was compared neither driving nor on frames", where=track)
        agreement[track], mae[track] = rounded(opened.overall.agreement.value), rounded(opened.overall.mae)
    best = max(agreement.values())
    agreeing = [
        track for track in eligible if best - agreement[track] < limits.tie_agreement or agreement[track] == best
    ]
    lowest = min(mae[track] for track in agreeing)
    tied = [track for track in agreeing if mae[track] <= lowest * (1 + limits.tie_relative_mae)]
    order, decided_on = _break_tie(tied, {"size": lambda t: eligible[t].total_bytes, "mean error": mae.__getitem__})
    rest = sorted(
        eligible.keys() - set(tied), key=lambda t: (t not in agreeing, mae[t] if t in agreeing else 0, -agreement[t], t)
    )
    if len(tied) == 1:
        decided_on = "action agreement" if len(agreeing) == 1 else "mean error"
    return _Ranking((*order, *rest), frozenset(tied), decided_on)


def _break_tie(tied: Sequence[str], keys: Mapping[str, Callable[[str], float]]) -> tuple[tuple[str, ...], str]:
    """The tied in order, and the first key that tells the first from the second."""
    order = sorted(tied, key=lambda track: (*(key(track) for key in keys.values()), track))
    if len(order) == 1:
        return tuple(order), ""
    told = (name for name, key in keys.items() if key(order[0]) != key(order[1]))
    return tuple(order), next(told, "their names, all else being equal")


def _rival(winner: str, rival: Assessment, evaluations: Mapping[str, Evaluation], seeing: tuple[str, ...]) -> Rival:
    ours, theirs = evaluations[winner], evaluations[rival.track]
    if not seeing:
        return Rival(rival.track, rival.eligible, f"{_frames(winner, ours)}; {_frames(rival.track, theirs)}", None)
    paired = Paired.of(_successes(ours, seeing), _successes(theirs, seeing))
    words = (
        f"of {paired.n} episodes {winner} alone succeeds in {paired.losses}, {rival.track} alone in {paired.wins} "
        f"(McNemar p = {paired.mcnemar():.2g}); collisions {_number(_collisions(ours, seeing))} against "
        f"{_number(_collisions(theirs, seeing))}, mean reward {_reward(ours, seeing):.4g} against "
        f"{_reward(theirs, seeing):.4g}"
    )
    return Rival(rival.track, rival.eligible, words, paired)


def _frames(track: str, evaluation: Evaluation) -> str:
    if evaluation.open_loop is None:
        return f"{track} was not compared on frames"
    overall = evaluation.open_loop.overall
    return f"{track} agrees on {overall.agreement.value:.2%} of {overall.n} frames with mean error {overall.mae:.4g}"


def _why(
    winner: str | None,
    ranking: _Ranking | None,
    assessments: Sequence[Assessment],
    evaluations: Mapping[str, Evaluation],
    seeing: tuple[str, ...],
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
        success = _successes(evaluations[winner], seeing)
        sentences.append(
            f"{winner} succeeds in {int(success.sum())} of {len(success)} episodes ({success.mean():.2%}; "
            f"slices: {', '.join(seeing)})"
        )
    else:
        sentences.append(_frames(winner, evaluations[winner]))
    others = sorted(ranking.tied - {winner})
    models = {assessment.track: assessment.hashes for assessment in assessments}
    twins = [track for track in others if models[track] == models[winner]]
    if twins:
        sentences.append(f"{' and '.join(twins)} made the very same models as {winner}, byte for byte")
    if others:
        sentences.append(f"it is a tie with {' and '.join(others)}, decided on {ranking.decided_on}")
    elif len(ranking.order) > 1:
        sentences.append(f"{ranking.decided_on} decided against {' and '.join(ranking.order[1:])}")
    else:
        sentences.append("no other candidate is eligible" if len(assessments) > 1 else "there was no other candidate")
    return tuple(sentences)


def _to_confirm(name: str, reason: str) -> str:
    if name in DEVICE_CRITERIA:
        return f"{name}: {reason}; run pytest -m hil with the target board"
    if name.startswith("success_drop"):
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


def _rival_json(rival: Rival) -> dict[str, Any]:
    paired = rival.paired
    return {
        "track": rival.track,
        "eligible": rival.eligible,
        "comparison": rival.comparison,
        "winner_alone_succeeds": None if paired is None else paired.losses,
        "rival_alone_succeeds": None if paired is None else paired.wins,
        "mcnemar_p": None if paired is None else rounded(paired.mcnemar()),
    }
