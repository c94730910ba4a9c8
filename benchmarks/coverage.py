"""How often the bounds and tests of the verdict are wrong where they may be: ``python -m benchmarks.coverage``.

Every line is a simulation at the very edge of the null hypothesis, where the error is largest: a candidate that loses
exactly the limit, candidates that succeed exactly alike. The nominal error is 5 %. Equal seeds give equal figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import combinations

import click
import numpy as np

from quant.evaluation.power import detectable_drop, holm
from quant.evaluation.statistics import Paired

SEED = 1
LIMIT, MARGIN = 0.10, 0.01
DESIGNS = ((400, 0.0), (2000, 0.0), (2000, 0.004), (4000, 0.004), (1000, 0.03))
"""Episodes, and the share of them that only the candidate succeeds in."""
RATES = (0.95, 0.75)
"""Of success of the float policy."""


def tables(n: int, cells: Sequence[float], draws: int) -> list[list[int]]:
    """(draws, 4) both, losses, wins, neither."""
    found: list[list[int]] = np.random.default_rng(SEED).multinomial(n, cells, size=draws).tolist()
    return found


def passing(n: int, rate: float, lost: float, wins: float, draws: int, keeps: Callable[[Paired], bool]) -> float:
    """Share of comparisons that pass although the candidate loses ``lost`` of the success rate."""
    wins = min(wins, 1 - rate)
    losses = lost + wins
    cells = [rate - losses, losses, wins, 1 - rate - wins]
    kept = cache(keeps)
    return float(np.mean([kept(Paired(n, both, lose, win)) for both, lose, win, _ in tables(n, cells, draws)]))


def keeps_drop(table: Paired) -> bool:
    """The criterion ``success_drop``."""
    drop = table.drop()
    return drop is not None and drop.upper <= LIMIT


def keeps_margin(table: Paired) -> bool:
    """Non-inferiority."""
    return table.loss().upper <= MARGIN


def families(tracks: int, n: int, rate: float, sets: int) -> tuple[float, float, float]:
    """Share of sets of equal candidates with a winner: corrected over all pairs, the leader's own, none."""
    random = np.random.default_rng(SEED)
    found = np.zeros(3)
    for _ in range(sets):
        drove = random.random((tracks, n)) < rate
        leader = int(drove.sum(1).argmax())
        pairs = {pair: Paired.of(drove[pair[0]], drove[pair[1]]).mcnemar() for pair in combinations(range(tracks), 2)}
        own = [p for pair, p in pairs.items() if leader in pair]
        found += [min(p) < 0.05 for p in (holm(list(pairs.values())), holm(own), own)]
    all_pairs, leaders, none = (found / sets).tolist()
    return all_pairs, leaders, none


def power(n: int, churn: float, draws: int) -> tuple[float, float]:
    """The detectable drop of a table, and how often exact McNemar finds a drop of that size."""
    each = round(n * churn / 2)
    drop = detectable_drop(Paired(n, n - 2 * each, each, each)) or 1.0
    found = cache(lambda losses, wins: losses > wins and Paired(n, 0, losses, wins).mcnemar() < 0.05)
    cells = [1 - churn - drop, churn / 2 + drop, churn / 2, 0.0]
    return drop, float(np.mean([found(losses, wins) for _, losses, wins, _ in tables(n, cells, draws)]))


@click.command(help=__doc__)
@click.option("--draws", type=click.IntRange(100), default=100_000, show_default=True, help="Comparisons a line.")
@click.option("--sets", type=click.IntRange(100), default=20_000, show_default=True, help="Sets of candidates a line.")
def main(draws: int, sets: int) -> None:
    """Prints the error rates."""
    click.echo("passes although it loses exactly what is too much        success_drop 10 %   margin of a point")
    for rate in RATES:
        for n, wins in DESIGNS:
            drop = passing(n, rate, LIMIT * rate, wins, draws, keeps_drop)
            margin = passing(n, rate, MARGIN, wins, draws, keeps_margin)
            click.echo(f"  float {rate:.0%}, n = {n:4}, wins {wins:.1%}{'':24}{drop:14.2%}{margin:20.2%}")
    click.echo("a winner among candidates that succeed alike   Holm, all pairs   Holm, the leader's   uncorrected")
    for tracks in (2, 3, 4):
        every, leaders, none = families(tracks, 500, 0.9, sets)
        click.echo(f"  {tracks} candidates, n = 500{'':25}{every:10.2%}{leaders:20.2%}{none:15.2%}")
    click.echo("a detectable drop is found (nominal 80 %)")
    for n, churn in ((4000, 0.01), (2000, 0.02), (300, 0.04)):
        drop, found = power(n, churn, draws)
        click.echo(f"  n = {n:4}, {churn:.0%} part at random: {100 * drop:.2f} points{found:10.1%}")


if __name__ == "__main__":
    main()
