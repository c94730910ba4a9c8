"""The convoy world and SUMO side by side, for the page and the Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from quant.evaluation.second_opinion import Figures, SecondOpinion
from quant.evaluation.statistics import Estimate
from quant.report import captions, figures
from quant.report.tables import NOTHING, Cell, Table, row_of
from quant.report.terminal import number, share
from quant.worlds.sumo import SUMO
from quant.worlds.world import CONVOY

NAMES: Mapping[str, str] = {CONVOY: "convoy world", SUMO: "SUMO"}


def pictures(opinion: SecondOpinion, name: str) -> Iterator[tuple[str, str]]:
    """Success and collisions of float and the candidates on one slice, each world on the same scale, with captions."""
    for title, better in (("success", "more"), ("collision", "less")):
        rows = {world: _rows(opinion, name, world, title) for world in NAMES}
        ends = [end for own in rows.values() for _, one in own for end in (one.low, one.high) if end is not None]
        for world, own in rows.items():
            if own:
                head = f"{NAMES[world]}: {title}"
                words = captions.estimates(f"{head}, % of episodes", own, ".2f", better)
                yield figures.forest(head, "% of episodes", own, also=ends), words


def _rows(opinion: SecondOpinion, name: str, world: str, what: str) -> list[tuple[str, Estimate]]:
    found = []
    for one in opinion.figures:
        rate = one.success if what == "success" else one.collision
        if (one.slice, one.world) == (name, world) and one.driver in opinion.sumo and rate is not None:
            found.append((one.driver, _percent(rate)))
    return found


def _percent(one: Estimate) -> Estimate:
    low, high = (None if end is None else 100 * end for end in (one.low, one.high))
    return Estimate(100 * one.value, low, high)


def table(opinion: SecondOpinion, name: str) -> Table:
    """Every driver on one slice, a row for each world, the gate's own actors last."""
    own = [one for one in opinion.figures if one.slice == name]
    rows = [
        row_of(
            Cell(one.driver.upper() if one.driver in opinion.sumo else one.driver),
            NAMES[one.world],
            share(one.success),
            share(one.collision),
            number(one.needless),
            number(one.reward),
            *_paired(one),
        )
        for one in own
    ]
    columns = ("driver", "world", "success", "collision", "needless, m/s", "reward", "losses : wins", "McNemar p")
    n = next((one.n for one in own), 0)
    averaged = next((one.averaged for one in own if one.world == CONVOY), n)
    note = f"Needless braking and reward of the convoy world are means of all its {averaged:,} episodes."
    gate = (
        "The last two must lose, one that never brakes and one rounded to 3 bits: a world where they do not is blind."
    )
    notes = (gate, note) if averaged != n else (gate,)
    return Table(columns, tuple(rows), 2, True, notes, f"{name}: the same {n:,} scenarios in both worlds")


def _paired(one: Figures) -> tuple[str, str]:
    paired = one.versus_float
    return (NOTHING, NOTHING) if paired is None else (f"{paired.losses} : {paired.wins}", f"{paired.mcnemar():.2g}")
