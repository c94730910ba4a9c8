"""A comparison as a rich table, legible at 80 columns and without colour. Nothing here prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quant.acceptance.comparison import SIGNIFICANCE, Change, Comparison, Finding
from quant.acceptance.contest import points
from quant.acceptance.criterion import quantity
from quant.evaluation.evaluation import FLOAT
from quant.report.layout import empty_table, line

STYLES = {Change.BETTER: "green", Change.WORSE: "bold red", Change.MISSING: "bold red", Change.INCOMPARABLE: "yellow"}
COLUMNS = ("", "before", "now", "change", "p", "")
WIDTH = 79
"""So that a terminal of 80 columns shows a row in one line."""


def comparison(found: Comparison, policies: Sequence[str] = ()) -> Group:
    """The table by candidate, what changed, what the tests could have seen, and the outcome in one line.

    ``policies`` are sentences on what became of the float policy itself.
    """
    reasons = list(dict.fromkeys(one.reason for one in found.findings if one.change is Change.INCOMPARABLE))
    parts: list[RenderableType] = [_table(found, reasons)]
    parts += [_line(f"({number}) not comparable: {reason}") for number, reason in enumerate(reasons, 1)]
    parts += [_line(words) for words in (*found.changed, *policies)]
    parts += [_line(words) for words in (*_seen(found), *found.meaning)]
    if found.tests:
        parts.append(
            _line(
                f"worse: beyond its tolerance and, for a sample, p < {SIGNIFICANCE:g} after Holm ({found.tests} tests)"
            )
        )
    style = "bold red" if found.regressions else "yellow" if found.incomparable else "bold green"
    return Group(*parts, "", Text(found.headline, style=style))


def _table(found: Comparison, reasons: Sequence[str]) -> Table:
    table = empty_table(f"{found.now} against {found.before}", WIDTH)
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if 0 < index < len(COLUMNS) - 1 else "left", overflow="fold")
    for subject in dict.fromkeys(one.subject for one in found.findings):
        table.add_section()
        aside = " (shown; judged only by how much it acts)" if subject == FLOAT else ""
        table.add_row(Text(f"{subject.upper()}{aside}", style="bold"))
        for one in found.findings:
            if one.subject == subject:
                table.add_row(*_cells(one, reasons))
    return table


def _cells(one: Finding, reasons: Sequence[str]) -> tuple[Text, ...]:
    apart = one.change is Change.INCOMPARABLE
    words = f"({reasons.index(one.reason) + 1})" if apart else one.change.value
    values = ["" if value is None else _value(value, one.unit) for value in (one.before, one.now)]
    p = "" if one.p is None else "<0.001" if one.p < 0.001 else f"{one.p:.2g}"
    texts = [Text(words) for words in (f" {one.name}", *values, _difference(one), p)]
    return (*texts, Text(words, style=STYLES.get(one.change, "")))


def _value(value: float, unit: str) -> str:
    """A short figure: the name of the row says the unit, or the figure does."""
    if unit == "bytes":
        return f"{value:,.0f}"
    return quantity(value, unit).replace(" %", "%") if unit == "share" else f"{value:.4g}"


def _difference(one: Finding) -> str:
    change = one.difference
    if change is None or one.change is Change.SAME:
        return ""
    if one.unit == "share":
        return f"{100 * change:+.2f}"
    return f"{change:+,.0f}" if one.unit == "bytes" else f"{change:+.2g}"


def _seen(found: Comparison) -> list[str]:
    """The power of the tests of success, for all candidates in one line."""
    seen = [
        f"{one.subject} {points(one.detectable)} ({one.name.partition('[')[2].removesuffix(']')})"
        for one in found.findings
        if one.judged and one.name.startswith("success[") and one.detectable is not None
    ]
    return [f"drops of success that could have been seen (80 % power): {', '.join(seen)}"] if seen else []


def _line(words: str) -> RenderableType:
    return line(words, indent=1)
