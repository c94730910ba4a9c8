"""A run held against its baseline, for the page and the Markdown."""

from __future__ import annotations

from quant.acceptance.comparison import SIGNIFICANCE, Change, Comparison, Finding
from quant.report.tables import NOTHING, Cell, Table, measure, row_of

SHOWN = {
    Change.BETTER: ("✔ better", "good"),
    Change.WORSE: ("✖ worse", "bad"),
    Change.MISSING: ("✖ missing", "bad"),
    Change.INCOMPARABLE: ("◌ not comparable", "open"),
}
"""How an outcome is told, by sign, word and look; noise and equality are words alone."""


def words(found: Comparison) -> tuple[str, ...]:
    """What worse means here."""
    if not found.tests:
        return ()
    return (
        f"Worse is what is beyond its tolerance and, where it is a sample, has p < {SIGNIFICANCE:g} after Holm's "
        f"correction for {found.tests} tests; either alone is noise. Of float only how much it acts is judged.",
    )


def table(found: Comparison) -> Table:
    """Every figure before and now, with what became of it."""
    rows: list[tuple[Cell, ...]] = []
    for subject in dict.fromkeys(one.subject for one in found.findings):
        rows.append((Cell(subject.upper(), "group"), *(Cell("") for _ in range(5))))
        rows += [_row(one) for one in found.findings if one.subject == subject]
    columns = ("figure", "before", "now", "change", "p", "outcome")
    return Table(columns, tuple(rows), title=f"{found.now} against {found.before}")


def _row(one: Finding) -> tuple[Cell, ...]:
    values = [NOTHING if value is None else measure(value, one.unit) for value in (one.before, one.now)]
    p = NOTHING if one.p is None else "< 0.001" if one.p < 0.001 else f"{one.p:.2g}"
    outcome, look = SHOWN.get(one.change, (one.change.value, "")) if one.judged else (one.change.value, "")
    note = one.reason if one.now is None else ""
    return row_of(one.name, *values, _difference(one), p, Cell(outcome, look, note))


def _difference(one: Finding) -> str:
    change = one.difference
    if change is None or one.change is Change.SAME:
        return NOTHING
    if one.unit == "share":
        return f"{100 * change:+.2f} points"
    return f"{change:+,.0f}" if one.unit == "bytes" else f"{change:+.2g}"
