"""The intervals against published values, closed forms and coverage by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from quant.evaluation.statistics import Paired, mean, normal_quantile, proportion

# Cavo et al. (2012) and Bentur et al. (2009), the worked examples of Fagerland, Lydersen & Laake, "Statistical Analysis
# of Contingency Tables" (2017), chapter 8. The book's rows are the candidate here, its columns the reference.
CAVO = Paired(n=161, both=59, losses=16, wins=6)
BENTUR = Paired(n=21, both=1, losses=7, wins=1)


def test_wilson_gives_the_value_newcombe_published() -> None:
    # R. G. Newcombe, Stat. Med. 17 (1998) 857-872, table I: 81 of 263 and 15 of 148, method 3.
    estimate = proportion(81, 263)
    assert (estimate.low, estimate.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    estimate = proportion(15, 148)
    assert (estimate.low, estimate.high) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_wilson_is_not_empty_when_nothing_or_everything_succeeds() -> None:
    assert {proportion(0, n).low for n in range(1, 200)} == {0.0}
    assert {proportion(n, n).high for n in range(1, 200)} == {1.0}
    assert proportion(0, 20).high == pytest.approx(0.1611, abs=5e-5)
    assert proportion(20, 20).low == pytest.approx(1 - 0.1611, abs=5e-5)


def test_mcnemar_exact_gives_the_published_p() -> None:
    assert CAVO.mcnemar() == pytest.approx(0.052479, abs=5e-7)
    assert BENTUR.mcnemar() == pytest.approx(0.0703125)
    assert Paired(10, 10, 0, 0).mcnemar() == 1.0


def test_mcnemar_exact_is_both_tails_of_the_binomial() -> None:
    for losses in range(12):
        for wins in range(12):
            n = losses + wins
            tail = sum(math.comb(n, k) for k in range(min(losses, wins) + 1)) / 2**n
            assert Paired(50, 20, losses, wins).mcnemar() == pytest.approx(min(2 * tail, 1.0), rel=1e-12)


def test_tango_gives_the_intervals_of_his_paper() -> None:
    # T. Tango, Stat. Med. 17 (1998), section 6: soft contact lenses, where one of 44 differs (90 %), and difficulty in
    # sleeping, where 9 and 3 of 32 do (95 %). The third is R's PropCIs::scoreci.mp(25, 28, 618, 0.90).
    assert Paired(44, 43, 1, 0).difference(0.90).low == pytest.approx(-0.096, abs=5e-4)
    sleeping = Paired(32, 10, 3, 9).difference()
    assert (sleeping.low, sleeping.high) == pytest.approx((-0.027, 0.390), abs=5e-4)
    packaged = Paired(618, 400, 25, 28).difference(0.90)
    assert (packaged.low, packaged.high) == pytest.approx((-0.0148, 0.0247), abs=5e-5)


def closed_form(table: Paired, level: float) -> tuple[float, float]:
    """Tango's interval as roots of a quartic (Z. Yang, X. Sun & J. W. Hardin, Stat. Med. 32, 2013)."""
    g, n, d, both = normal_quantile((1 + level) / 2) ** 2, table.n, table.wins - table.losses, table.losses + table.wins
    quartic = [
        n**2 * (n / g + 1) ** 2,
        -n * d * (n / g + 1) * (4 * n / g + 1),
        2 * n * d**2 * (3 * n / g + 2) / g - n**2 * (both / g + 1),
        n * d * (2 * both / g + 1) - d**3 * (4 * n / g + 1) / g,
        d**2 * (d**2 / g - both) / g,
    ]
    roots = [float(root.real) for root in np.roots(quartic) if abs(root.imag) < 1e-6]
    return min(roots), max(roots)


@pytest.mark.parametrize("table", [CAVO, BENTUR, Paired(4000, 3800, 25, 17), Paired(300, 200, 0, 9)])
@pytest.mark.parametrize("level", [0.90, 0.95])
def test_tango_is_the_root_of_its_quartic(table: Paired, level: float) -> None:
    estimate = table.difference(level)
    assert (estimate.low, estimate.high) == pytest.approx(closed_form(table, level), abs=1e-7)


def test_a_loss_is_the_difference_turned_round_with_one_sided_bounds() -> None:
    loss, ninety = CAVO.loss(), CAVO.difference(0.90)
    assert (loss.value, loss.lower, loss.upper) == (-ninety.value, -(ninety.high or 0), -(ninety.low or 0))
    assert loss.lower < loss.value < loss.upper
    # Without a discordant pair the bound is z^2 / (n + z^2), the score bound of an event that never happened.
    assert Paired(1000, 900, 0, 0).loss().upper == pytest.approx(1.6448536**2 / (1000 + 1.6448536**2), rel=1e-6)


@pytest.mark.parametrize(("wins", "n"), [(0.0, 400), (0.004, 4000), (0.03, 1000)])
def test_the_bound_of_a_loss_covers_the_truth_in_95_of_100(wins: float, n: int) -> None:
    """At a true loss of exactly the margin, non-inferiority may be shown in 5 % of the tables, but for noise.

    Over 100,000 tables each (``python -m benchmarks.coverage``): 1.8 % at 400 episodes of which none is won, where
    there are few tables; 4.8 % at 4,000 with 0.4 % won; 4.9 % at 1,000 with 3 %.
    """
    draws = np.random.default_rng(9).multinomial(n, [0.9, 0.01 + wins, wins, 0.09 - 2 * wins], size=1500)
    shown = [Paired(n, both, lost, won).loss().upper <= 0.01 for both, lost, won, _ in draws.tolist()]
    assert np.mean(shown) <= 0.065
    assert np.mean(shown) > 0.005


def test_tango_gives_the_published_interval() -> None:
    estimate = CAVO.difference()
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((-0.0621, -0.1240, -0.0054), abs=5e-5)
    estimate = BENTUR.difference()
    assert (estimate.low, estimate.high) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_tang_gives_the_published_interval() -> None:
    # The lower end of the two-sided 95 % interval of the ratio is a one-sided bound at 97.5 %.
    drop = CAVO.drop(0.975)
    assert drop is not None
    assert (1 - drop.value, 1 - drop.upper) == pytest.approx((0.8667, 0.7476), abs=5e-5)
    drop = BENTUR.drop(0.975)
    assert drop is not None
    assert 1 - drop.upper == pytest.approx(0.065, abs=5e-4)


@pytest.mark.parametrize("table", [CAVO, BENTUR, Paired(400, 300, 40, 2), Paired(20, 20, 0, 0), Paired(50, 0, 30, 5)])
def test_the_lower_bound_of_a_drop_is_the_upper_one_with_the_policies_changed_over(table: Paired) -> None:
    """The score interval of a ratio does not care which of the two is the numerator."""
    drop = table.drop()
    swapped = Paired(table.n, table.both, table.wins, table.losses).drop()
    assert drop is not None and swapped is not None
    assert drop.lower <= drop.value <= drop.upper
    assert 1 / (1 - drop.lower) == pytest.approx(1 - swapped.upper, rel=1e-6)


def test_a_drop_without_discordant_pairs_has_the_closed_form_bound() -> None:
    drop = Paired(1000, 900, 0, 0).drop()
    assert drop is not None
    assert drop.value == 0
    assert drop.upper == pytest.approx(1.6448536**2 / (900 + 1.6448536**2), rel=1e-6)


def test_a_drop_is_total_when_the_candidate_never_succeeds_and_undefined_when_the_reference_never_does() -> None:
    drop = Paired(100, 0, 90, 0).drop()
    assert drop is not None
    assert (drop.value, drop.upper) == (1.0, 1.0)
    assert Paired(100, 0, 0, 40).drop() is None


def test_the_table_is_counted_from_outcomes() -> None:
    reference = np.array([True, True, False, False, True])
    candidate = np.array([True, False, True, False, True])
    assert Paired.of(reference, candidate) == Paired(5, 2, 1, 1)
    with pytest.raises(ValueError, match="same scenarios"):
        Paired.of(reference, candidate[:4])


@pytest.mark.parametrize(("p_reference", "discordance"), [(0.97, 0.0), (0.9, 0.03), (0.6, 0.2)])
@pytest.mark.parametrize("n", [200, 2000])
def test_the_upper_bound_of_a_drop_covers_the_truth_in_95_of_100(
    p_reference: float, discordance: float, n: int
) -> None:
    """Tables drawn at a true drop of exactly 10 %: the bound may lie below it in 5 % of them, but for noise."""
    p_candidate = 0.9 * p_reference
    wins = min(discordance, 1 - p_reference)
    losses = p_reference - p_candidate + wins
    cells = [p_candidate - wins, losses, wins, 1 - p_candidate - losses]
    draws = np.random.default_rng(7).multinomial(n, cells, size=1500)
    uppers = [drop.upper for both, lost, won, _ in draws.tolist() if (drop := Paired(n, both, lost, won).drop())]
    assert np.mean(np.array(uppers) < 0.1) == pytest.approx(0.05, abs=0.02)


def test_tango_covers_the_true_difference() -> None:
    draws = np.random.default_rng(8).multinomial(500, [0.8, 0.08, 0.05, 0.07], size=1000)
    intervals = [Paired(500, both, lost, won).difference() for both, lost, won, _ in draws.tolist()]
    covered = [e.low <= -0.03 <= e.high for e in intervals if e.low is not None and e.high is not None]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.025)


def test_a_mean_has_students_interval_whatever_the_order() -> None:
    values = np.array([4.0, 1.0, 3.0, 2.0, 5.0])
    estimate = mean(values)
    # t(4, .975) = 2.776445, s = sqrt(2.5)
    assert (estimate.low, estimate.high) == pytest.approx((3 - 1.963243, 3 + 1.963243), abs=1e-5)
    noisy = np.random.default_rng(0).normal(size=999) * 1e6
    assert mean(noisy) == mean(noisy[::-1])
    assert mean(np.array([2.0])).low is None
    with pytest.raises(ValueError, match="at least one"):
        mean(np.array([]))
