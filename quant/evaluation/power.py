"""What a paired test could have seen, and how several tests are held to one error rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quant.evaluation.statistics import LEVEL, Paired

POWER = 0.80
"""A drop counts as visible where the test would have found it this often."""
HALVINGS = 30


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
    from scipy.stats import binom

    discordant = min(churn + drop, 1.0)
    fewest, most = binom.ppf(1e-9, n, discordant), binom.isf(1e-9, n, discordant)
    d = np.arange(max(fewest, 1), most + 1)
    if not len(d):
        return 0.0
    insignificant = binom.isf(alpha / 2, d, 0.5)
    found = binom.sf(insignificant, d, (discordant + drop) / (2 * discordant))
    return float(binom.pmf(d, n, discordant) @ found)
