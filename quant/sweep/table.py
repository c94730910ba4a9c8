"""A sweep as a rich table. Nothing here prints."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quant.report.layout import empty_table, line
from quant.sweep.summary import Entry, Spread, Summary

COLUMNS = {
    "success": "success, %",
    "collision": "collisions, %",
    "needless": "needless, m/s",
    "drop": "drop <=, %",
    "agreement": "agree, %",
    "mae": "mean error",
}
"""Heading of each kind of figure; a kind has a figure for each slice, or one."""
SHARES = ("success", "collision", "drop", "agreement")


def table(found: Summary) -> Group:
    """Every candidate by seed, the spread of each track, and what it means."""
    return Group(_candidates(found), *_spreads(found), *_means(found))


def _kinds(found: Summary) -> list[str]:
    names = {name.partition("[")[0] for one in found.entries for name in one.figures}
    return [kind for kind in COLUMNS if kind in names]


def _slices(found: Summary) -> tuple[str, ...]:
    return tuple(outcome.name for outcome in found.entries[0].slices)


def _empty(title: str, first: tuple[str, ...], kinds: list[str]) -> Table:
    made = empty_table(title)
    for name in first:
        made.add_column(name, justify="right" if name == "seed" else "left", no_wrap=True)
    for kind in kinds:
        made.add_column(COLUMNS[kind], justify="right")
    return made


def _candidates(found: Summary) -> Table:
    kinds = _kinds(found)
    slices = _slices(found)
    driven = f"; driving on {' / '.join(slices)}" if slices else ""
    fixed = "training alone" if found.vary == "training" else "data, scenarios and training"
    made = _empty(f"Seeds of {fixed}{driven}", ("seed", "track"), kinds)
    made.add_column("", no_wrap=True)
    for one in found.entries:
        made.add_row(str(one.seed), one.track, *_cells(one.figures, kinds), _mark(one, found))
    return made


def _mark(one: Entry, found: Summary) -> Text:
    """What became of the candidate, in a word or two."""
    if not one.eligible:
        return Text("FAILS", style="bold red")
    if found.choice is not None and (found.choice.seed, found.choice.track) == (one.seed, one.track):
        return Text("deploy", style="bold green")
    return Text("wins" if found.winners[one.seed] == one.track else "")


def _cells(figures: dict[str, float], kinds: list[str]) -> list[str]:
    """One cell a kind, the slices' figures with a stroke between them."""
    return [
        " / ".join(_value(kind, value) for name, value in figures.items() if name.partition("[")[0] == kind)
        for kind in kinds
    ]


def _value(kind: str, value: float) -> str:
    return f"{100 * value:.2f}" if kind in SHARES else f"{value:.3f}" if kind == "needless" else f"{value:.4g}"


def _spreads(found: Summary) -> list[RenderableType]:
    if len(found.winners) < 2:
        return []
    kinds = _kinds(found)
    made = _empty(f"Over {len(found.winners)} seeds", ("track", ""), kinds)
    for track, spreads in found.spreads.items():
        for place, (name, value) in enumerate(_statistics(spreads).items()):
            made.add_row("" if place else track, name, *_cells(value, kinds))
    return [made]


def _statistics(spreads: Mapping[str, Spread]) -> dict[str, dict[str, float]]:
    return {
        "mean": {name: spread.mean for name, spread in spreads.items()},
        "deviation": {name: spread.deviation or 0.0 for name, spread in spreads.items()},
        "lowest": {name: spread.low for name, spread in spreads.items()},
        "highest": {name: spread.high for name, spread in spreads.items()},
    }


def _means(found: Summary) -> list[RenderableType]:
    lines = [Text(words) for words in (*found.warnings, *found.sentences())]
    for words in lines:
        if words.plain.startswith("deploy"):
            words.stylize("bold")
    return [line(words, indent=1) for words in lines]
