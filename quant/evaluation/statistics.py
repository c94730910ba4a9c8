"""Intervals and tests for episodes: one policy's proportions and means, and two policies on the same scenarios.

Notation of the paired 2x2 table, reference (the float policy) against candidate on the same n scenarios:

    both    both succeed
    losses  only the reference succeeds
    wins    only the candidate succeeds
    n - both - losses - wins    neither
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.bool_]
LEVEL = 0.95
"""Confidence level of every interval, and of every one-sided bound."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its confidence interval.

    Attributes:
        value: the point estimate.
        low, high: the interval's ends; None where the sample is too small to give one (a mean of one value).
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Drop:
    """How much of the reference's success rate is lost, as a share of it or outright.

    Attributes:
        value: the point estimate; negative where the candidate is better.
        lower, upper: the one-sided confidence bounds.
    """

    value: float
    lower: float
    upper: float


def proportion(successes: int, n: int, level: float = LEVEL) -> Estimate:
    """Wilson's score interval for a proportion (E. B. Wilson, JASA 22, 1927).

        (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

    Raises:
        ValueError: n is not positive or ``successes`` is not in 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a proportion of {n} observations cannot have {successes} successes")
    share, z = successes / n, normal_quantile((1 + level) / 2)
    center = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = ((center + side) / (1 + z**2 / n) for side in (-half, half))
    # Exactly 0 and 1 at the ends: what is left of them otherwise is the last digit of a float.
    return Estimate(share, 0.0 if successes == 0 else low, 1.0 if successes == n else high)


def mean(values: NDArray[np.floating], level: float = LEVEL) -> Estimate:
    """Student's interval for a mean, mean -+ t(n-1) s / sqrt(n).

    Per-episode rewards are skewed and bounded; with the hundreds of episodes of an evaluation the central limit theorem
    carries the interval. The sums are exact (``math.fsum``), so the figure does not depend on the order of episodes.

    Args:
        values: (N,) one figure an episode.
        level: confidence level.

    Raises:
        ValueError: there are no values.
    """
    n = len(values)
    if n < 1:
        raise ValueError("a mean needs at least one observation")
    numbers = np.asarray(values, np.float64)
    center = math.fsum(numbers) / n
    if n == 1:
        return Estimate(center, None, None)
    variance = math.fsum((numbers - center) ** 2) / (n - 1)
    half = student_quantile((1 + level) / 2, n - 1) * math.sqrt(variance / n)
    return Estimate(center, center - half, center + half)


@dataclass(frozen=True)
class Paired:
    """Two policies on the same n scenarios; the fields are the cells of the table in this module's docstring.

    Raises:
        ValueError: the cells are negative or sum to more than n, or n is not positive.
    """

    n: int
    both: int
    losses: int
    wins: int

    def __post_init__(self) -> None:
        if self.n < 1 or min(self.both, self.losses, self.wins) < 0 or self.both + self.losses + self.wins > self.n:
            raise ValueError(f"not a paired table: {self}")

    @staticmethod
    def of(reference: Bits, candidate: Bits) -> Paired:
        """The table of two (N,) outcomes of the same scenarios in the same order.

        Raises:
            ValueError: their lengths differ.
        """
        if reference.shape != candidate.shape:
            raise ValueError(f"not the same scenarios: {reference.shape} against {candidate.shape}")
        return Paired(
            len(reference),
            int((reference & candidate).sum()),
            int((reference & ~candidate).sum()),
            int((~reference & candidate).sum()),
        )

    def mcnemar(self) -> float:
        """Two-sided p of McNemar's exact conditional test (Q. McNemar, Psychometrika 12, 1947).

        The binomial of the losses among the discordant pairs with probability 1/2, both tails; 1 without any.
        """
        from scipy.special import bdtr

        return min(2 * float(bdtr(min(self.losses, self.wins), self.losses + self.wins, 0.5)), 1.0)

    def difference(self, level: float = LEVEL) -> Estimate:
        """Candidate's success rate minus the reference's, with Tango's score interval (Stat. Med. 17, 1998)."""
        z = normal_quantile((1 + level) / 2)
        value = (self.wins - self.losses) / self.n
        low = _solve(lambda delta: self._tango(delta) - z, -1.0, value)
        high = _solve(lambda delta: self._tango(delta) + z, value, 1.0)
        return Estimate(value, low, high)

    def loss(self, level: float = LEVEL) -> Drop:
        """The loss p_reference - p_candidate with its one-sided bounds, the ends of Tango's interval at 2 level - 1.

        The upper bound below a margin is Tango's test of non-inferiority (T. Tango, Stat. Med. 17, 1998).
        """
        difference = self.difference(2 * level - 1)
        assert difference.low is not None and difference.high is not None
        return Drop(0.0 - difference.value, 0.0 - difference.high, 0.0 - difference.low)

    def drop(self, level: float = LEVEL) -> Drop | None:
        """The relative drop 1 - p_candidate / p_reference with its one-sided bounds; None if p_reference is 0.

        The upper bound is one minus the lower score bound of the ratio (Nam & Blackwelder, Stat. Med. 21, 2002; Tang,
        Tang & Chan, Stat. Med. 22, 2003), the lower likewise. Unlike intervals on the log scale they are defined where
        nothing was lost (without a discordant pair the upper one is z^2 / (both + z^2)), and the upper one inverts the
        non-inferiority test at the limit.
        """
        reference, candidate = self.both + self.losses, self.both + self.wins
        if reference == 0:
            return None
        ratio = candidate / reference
        z = normal_quantile(level)
        lower = _solve(lambda theta: self._tang(theta) - z, 0.0, ratio) if candidate else 0.0
        highest = max(2 * ratio, 1.0)
        while self._tang(highest) > -z:
            highest *= 2
        return Drop(1 - ratio, 1 - _solve(lambda theta: self._tang(theta) + z, ratio, highest), 1 - lower)

    def _tango(self, delta: float) -> float:
        """Tango's score of the hypothesis p_candidate - p_reference = delta."""
        a = 2 * self.n
        b = -self.wins - self.losses + (2 * self.n - self.wins + self.losses) * delta
        c = -self.losses * delta * (1 - delta)
        losses = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = self.n * (2 * losses + delta * (1 - delta))
        return _ratio(self.wins - self.losses - self.n * delta, variance)

    def _tang(self, theta: float) -> float:
        """Tang's score of the hypothesis p_candidate / p_reference = theta."""
        any_success = self.both + self.losses + self.wins
        a = self.n * (1 + theta)
        b = (self.both + self.losses) * theta**2 - (self.both + self.wins + 2 * self.losses)
        c = self.losses * (1 - theta) * any_success / self.n
        losses = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = self.n * (1 + theta) * losses + any_success * (theta - 1)
        return _ratio(self.both + self.wins - (self.both + self.losses) * theta, variance)


def normal_quantile(level: float) -> float:
    """Quantile of the standard normal distribution.

    From ``scipy.special``, as all distributions here: importing ``scipy.stats`` takes longer than a whole comparison.
    """
    from scipy.special import ndtri

    return float(ndtri(level))


def student_quantile(level: float, freedom: float) -> float:
    """Quantile of Student's t with so many degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, level))


def _ratio(distance: float, variance: float) -> float:
    """distance / sqrt(variance), where a vanishing variance makes any distance infinite."""
    if variance > 0:
        return distance / math.sqrt(variance)
    return math.copysign(math.inf, distance) if distance else 0.0


def _solve(score: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling ``score`` crosses zero between ``low`` and ``high``; the end it does not reach beyond, otherwise.

    Bisection, not a faster method: the score is infinite at an end, and sixty halvings cost microseconds.
    """
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if score(middle) > 0 else (low, middle)
    return (low + high) / 2
