"""What a paired test could have seen, and how several tests are held to one error rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.statistics import LEVEL, Paired

F64 = NDArray[np.float64]
POWER = 0.80
"""A drop counts as visible where the test would have found it this often."""
HALVINGS = 12
"""Of the last doubling: a detectable drop is right to a four thousandth of itself."""


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """p adjusted by Holm's step-down method (S. Holm, Scandinavian Journal of Statistics 6, 1979), in the same order.

    Rejecting what stays below alpha keeps the chance of any false rejection among all of them at alpha, whatever their
    dependence.
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for step, place in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min((len(p_values) - step) * p_values[place], 1.0))
        adjusted[place] = highest
    return tuple(adjusted)


def detectable_drop(paired: Paired, alpha: float = 1 - LEVEL, power: float = POWER) -> float | None:
    """The smallest drop of the success rate that exact McNemar would have found with that power on these n episodes.

    Episodes that part at random, as many lost as won, are taken from the table: twice the rarer of losses and wins. A
    drop of delta adds n * delta losses to them. The unconditional power of the exact test is then (S. W. Duffy,
    Biometrics 40, 1984)

        sum over d of  Bin(d; n, psi) * P(Bin(d, (psi + delta) / (2 psi)) > k_d),    psi = churn + delta

    where d counts discordant pairs and k_d is the most losses of d that are not yet significant.

    Args:
        paired: the table that was seen; only its size and its churn are used, never the drop that was seen.
        alpha: of the two-sided test.
        power: wanted.

    Returns:
        A share of the episodes; None where no drop could have been found.
    """
    n, churn = paired.n, 2 * min(paired.losses, paired.wins) / paired.n
    low, high, highest = 0.0, min(1 / n, 1.0 - churn), 1.0 - churn
    while _power(n, churn, high, alpha) < power:
        if high >= highest:
            return None
        low, high = high, min(2 * high, highest)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if _power(n, churn, middle, alpha) >= power else (middle, high)
    return high


def _power(n: int, churn: float, drop: float, alpha: float) -> float:
    from scipy.special import bdtr, bdtrc

    discordant = min(churn + drop, 1.0)
    mean, deviation = n * discordant, math.sqrt(n * discordant * (1 - discordant))
    # Beyond eight deviations and twenty pairs lies less than 1e-9, also where the binomial is as skewed as Poisson's.
    reach = 8 * deviation + 20
    d = np.arange(max(math.floor(mean - reach), 1), min(math.ceil(mean + reach), n) + 1)
    insignificant = _insignificant(alpha, 1 << int(d[-1]).bit_length())[d]
    found = bdtrc(insignificant, d, (discordant + drop) / (2 * discordant))
    likely = bdtr(d, n, discordant) - bdtr(d - 1, n, discordant)
    return float(likely @ found)


@cache
def _insignificant(alpha: float, size: int) -> F64:
    """(size,) for each number of discordant pairs the most losses that are not yet significant."""
    from scipy.special import bdtrik

    # The quantile of Bin(n, 1/2); there is none of no pairs at all.
    return np.asarray(np.ceil(bdtrik(1 - alpha / 2, np.arange(size), 0.5)), np.float64)
