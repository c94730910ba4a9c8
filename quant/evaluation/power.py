"""What a paired test could have seen, and how several tests are held to one error rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.statistics import LEVEL, Paired

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
POWER = 0.80
"""A drop counts as visible where the test would have found it this often."""
HALVINGS = 20
"""Of the range of a share: a detectable drop is right to a ten thousandth of a point."""


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
    churn = 2 * min(paired.losses, paired.wins) / paired.n
    low, high = 0.0, 1.0 - churn
    if _power(paired.n, churn, high, alpha) < power:
        return None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if _power(paired.n, churn, middle, alpha) >= power else (middle, high)
    return high


def _power(n: int, churn: float, drop: float, alpha: float) -> float:
    from scipy.special import bdtr, bdtrc

    discordant = min(churn + drop, 1.0)
    fewest, most = (_binomial_quantile(q, np.array([n]), discordant)[0] for q in (1e-9, 1 - 1e-9))
    d = np.arange(max(int(fewest), 1), int(most) + 1)
    if not len(d):
        return 0.0
    insignificant = _binomial_quantile(1 - alpha / 2, d, 0.5)
    found = bdtrc(insignificant, d, (discordant + drop) / (2 * discordant))
    likely = bdtr(d, n, discordant) - bdtr(d - 1, n, discordant)
    return float(likely @ found)


def _binomial_quantile(q: float, n: I64, p: float) -> F64:
    """The least k of each n with P(Bin(n, p) <= k) >= q; ``bdtrik`` gives it up to the rounding of its last digit."""
    from scipy.special import bdtr, bdtrik

    k = np.ceil(bdtrik(q, n, p))
    k = np.where((k > 0) & (bdtr(np.maximum(k - 1, 0), n, p) >= q), k - 1, k)
    return np.asarray(np.where(bdtr(k, n, p) < q, k + 1, k), np.float64)
