"""Two that drove the same episodes, held against each other: success, and never without collisions and braking.

A `Contest` is of any two, a `Standing` of a candidate and the float policy on one slice, with what follows for a stated
margin. Neither decides anything: :mod:`quant.acceptance.decision` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from quant.evaluation.evaluation import Evaluation, rounded
from quant.evaluation.outcomes import SliceOutcome
from quant.evaluation.power import detectable_drop
from quant.evaluation.statistics import LEVEL, Bits, Drop, Paired

ALPHA = 1 - LEVEL


class NonInferiority(StrEnum):
    """Whether a candidate loses less success than a margin, with 95 % confidence."""

    SHOWN = "non-inferior"
    OPEN = "not shown"
    INFERIOR = "inferior"


@dataclass(frozen=True)
class Contest:
    """Two on the same episodes.

    Attributes:
        first, second: their tracks; ``first`` is the reference of the paired tables.
        success: losses are episodes only ``first`` succeeds in, wins those only ``second`` does.
        safety: likewise of episodes without a collision; None where the world does not say.
        needless: mean speed lost to needless braking of both, m/s an episode; None where the world does not say.
        detectable: the smallest drop of ``second``'s success the test could have seen, a share
            (:func:`quant.evaluation.power.detectable_drop`); None for none at all.
        adjusted: p of the success after Holm's correction over ``tests`` tests; None where it was no part of them.
        tests: how many decided together.
    """

    first: str
    second: str
    success: Paired
    safety: Paired | None
    needless: tuple[float, float] | None
    detectable: float | None
    adjusted: float | None = None
    tests: int = 1

    @property
    def sentence(self) -> str:
        """All of it in words, success first."""
        return "; ".join((self._successes, *self._safety, *self._braking, self._power))

    @property
    def _successes(self) -> str:
        holm = "" if self.adjusted is None or self.tests < 2 else f", {self.adjusted:.2g} after Holm"
        return (
            f"of {self.success.n} episodes {self.first} alone succeeds in {self.success.losses}, {self.second} alone "
            f"in {self.success.wins} (McNemar p = {self.success.mcnemar():.2g}{holm})"
        )

    @property
    def _safety(self) -> list[str]:
        if self.safety is None:
            return []
        return [
            f"{self.first} alone collides in {self.safety.wins}, {self.second} alone in {self.safety.losses} "
            f"(p = {self.safety.mcnemar():.2g})"
        ]

    @property
    def _braking(self) -> list[str]:
        if self.needless is None:
            return []
        return [f"needless braking {self.needless[0]:.3g} against {self.needless[1]:.3g} m/s"]

    @property
    def _power(self) -> str:
        if self.detectable is None:
            return "so few episodes could have shown no drop of success at all"
        return f"a drop of {points(self.detectable)} could have been seen (80 %)"

    def to_json(self) -> dict[str, Any]:
        """All of it; differences in percentage points."""
        safety = self.safety
        return {
            "first": self.first,
            "second": self.second,
            "episodes": self.success.n,
            "only_first_succeeds": self.success.losses,
            "only_second_succeeds": self.success.wins,
            "mcnemar_p": rounded(self.success.mcnemar()),
            "holm_p": None if self.adjusted is None else rounded(self.adjusted),
            "tests": self.tests,
            "detectable_drop_points": None if self.detectable is None else rounded(100 * self.detectable),
            "only_first_collides": None if safety is None else safety.wins,
            "only_second_collides": None if safety is None else safety.losses,
            "collision_p": None if safety is None else rounded(safety.mcnemar()),
            "needless": None if self.needless is None else [rounded(value) for value in self.needless],
        }


@dataclass(frozen=True)
class Standing:
    """A candidate against the float policy on one slice.

    Attributes:
        slice: its name.
        contest: with the float policy as reference.
        margin: of non-inferiority, a share: how much success may be lost.
        blind: why success on this slice proves nothing; empty where it does.
    """

    slice: str
    contest: Contest
    margin: float
    blind: str

    @property
    def track(self) -> str:
        """The candidate's."""
        return self.contest.second

    @property
    def loss(self) -> Drop:
        """Success rate lost against the float policy, a share, with its one-sided bounds."""
        return self.contest.success.loss()

    @property
    def noninferiority(self) -> NonInferiority:
        """Whether the margin is kept: shown only if the whole loss up to its 95 % bound is within it.

        Inferior is likewise what is shown to lose more than the margin; a blind slice shows nothing.
        """
        if self.blind:
            return NonInferiority.OPEN
        if rounded(self.loss.upper) <= self.margin:
            return NonInferiority.SHOWN
        return NonInferiority.INFERIOR if rounded(self.loss.lower) > self.margin else NonInferiority.OPEN

    @property
    def sentence(self) -> str:
        """All of it in words."""
        margin = f"{100 * self.margin:g} {'point' if self.margin == 0.01 else 'points'}"
        words = {
            NonInferiority.SHOWN: f"non-inferior within {margin}",
            NonInferiority.OPEN: f"not shown to be non-inferior within {margin}",
            NonInferiority.INFERIOR: f"inferior by more than {margin}",
        }
        loss = self.loss
        end = loss.lower if self.noninferiority is NonInferiority.INFERIOR else loss.upper
        blind = f"; the slice is blind: {self.blind}" if self.blind else ""
        return (
            f"{self.track} on {self.slice} is {words[self.noninferiority]} (success lost: {points(loss.value)}, 95 % "
            f"bound {points(end)}){blind}; {self.contest.sentence}"
        )

    def to_json(self) -> dict[str, Any]:
        """All of it; differences in percentage points."""
        loss = self.loss
        return {
            "slice": self.slice,
            "noninferiority": self.noninferiority.value,
            "margin_points": rounded(100 * self.margin),
            "lost_points": {
                "value": rounded(100 * loss.value),
                "lower": rounded(100 * loss.lower),
                "upper": rounded(100 * loss.upper),
            },
            "blind": self.blind or None,
            **self.contest.to_json(),
        }


def contest(first: Evaluation, second: Evaluation, slices: Sequence[str], alpha: float = ALPHA) -> Contest:
    """Holds two evaluations of the same scenarios against each other.

    Args:
        first, second: of the same scenarios (:func:`quant.evaluation.evaluation.check_together`).
        slices: names of those that count, at least one.
        alpha: the level of the test whose power is computed: the strictest step where several are corrected for.

    Raises:
        ValueError: there are no such episodes, or they are not the same ones.
    """
    success = Paired.of(successes(first, slices), successes(second, slices))
    crashed = collisions(first, slices), collisions(second, slices)
    braking = needless(first, slices), needless(second, slices)
    return Contest(
        first.track,
        second.track,
        success,
        None if crashed[0] is None or crashed[1] is None else Paired.of(~crashed[0], ~crashed[1]),
        None if braking[0] is None or braking[1] is None else (braking[0], braking[1]),
        detectable_drop(success, alpha),
    )


def driven(evaluation: Evaluation, slices: Sequence[str]) -> list[SliceOutcome]:
    """The outcomes on those slices."""
    own = () if evaluation.closed_loop is None else evaluation.closed_loop.slices
    return [outcome for outcome in own if outcome.name in slices]


def successes(evaluation: Evaluation, slices: Sequence[str]) -> Bits:
    """(n,) success of each episode of those slices."""
    return np.concatenate([outcome.success for outcome in driven(evaluation, slices)])


def collisions(evaluation: Evaluation, slices: Sequence[str]) -> Bits | None:
    """(n,) collision in each episode of those slices; None where the world does not say."""
    known = [outcome.collision for outcome in driven(evaluation, slices) if outcome.collision is not None]
    return np.concatenate(known) if known and len(known) == len(driven(evaluation, slices)) else None


def needless(evaluation: Evaluation, slices: Sequence[str]) -> float | None:
    """Mean speed lost to needless braking in an episode of those slices, m/s; None where the world does not say."""
    outcomes = driven(evaluation, slices)
    known = [(outcome.needless.value, outcome.n) for outcome in outcomes if outcome.needless is not None]
    return _mean(known) if known and len(known) == len(outcomes) else None


def reward(evaluation: Evaluation, slices: Sequence[str]) -> float:
    """Mean reward of an episode of those slices."""
    return _mean([(outcome.reward.value, outcome.n) for outcome in driven(evaluation, slices)])


def _mean(parts: Sequence[tuple[float, int]]) -> float:
    # Rounded as in the files, so that it is the same whether they have been read back or not.
    return rounded(sum(rounded(value) * n for value, n in parts) / sum(n for _, n in parts))


def points(share: float) -> str:
    """A difference of shares, as ``1.25 points``."""
    return f"{100 * share:.2f} points"
