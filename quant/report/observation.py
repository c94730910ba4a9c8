"""The contract of a policy's input, and how far a run covers it, for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from rich.console import Group
from rich.table import Table

from quant.evaluation.evaluation import Evaluation
from quant.evaluation.unseen import OnDrive
from quant.observation.contract import Contract
from quant.observation.coverage import Coverage, Ends, physical_ends
from quant.observation.observations import Observations
from quant.report.layout import add_row, empty_table, line


def contract_table(contract: Contract, seen: Sequence[Observations] = ()) -> Table:
    """What each column is, how far it may go and was recorded, and where each is known from."""
    table = _table("Observation", "column", "what", "may be", "recorded", "known from")
    groups = (
        ("ego", contract.ego, [one.ego for one in seen]),
        ("peers", contract.peers, [one.peers[one.mask] for one in seen]),
    )
    for kind, columns, values in groups:
        every = np.concatenate(values) if values else None
        for index, column in enumerate(columns):
            what = column.name if column.copy_of is None else f"{column.name}, of {kind} {column.copy_of} before"
            known = column.low is not None or column.high is not None
            may_be = physical_ends(column, (column.low, column.high)) if known else "unknown"
            own = None if every is None or not len(every) else every[:, index]
            recorded = physical_ends(column, None if own is None else (float(own.min()), float(own.max())))
            add_row(
                table, f"{kind} {index}", what, may_be, recorded, _origins(column.origin("name"), column.origin("high"))
            )
    return table


def _table(title: str, *columns: str) -> Table:
    table = empty_table(title)
    for column in columns:
        table.add_column(column)
    return table


def _origins(name: str, bound: str) -> str:
    return name if name == bound else f"name: {name}, bounds: {bound}"


def coverage_table(columns: Sequence[Coverage], before: Mapping[str, Ends | None] | None = None) -> Table:
    """How far each column was recorded, is declared and can be represented, and what was cut off.

    Args:
        columns: each of them.
        before: where ``columns`` are of a later drive, by name how far each went in what the run was made of.
    """
    tracks = list(columns[0].represented) if columns else []
    heads = ("recorded",) if before is None else ("in this drive", "recorded for the run")
    table = _table("Coverage", "column", *heads, "declared", "by", *(track.upper() for track in tracks))
    for one in columns:
        if one.column.copy_of is not None:
            continue
        origins = sorted({one.column.origin("low"), one.column.origin("high")})
        cells = [_represented(one, track) for track in tracks]
        declared = physical_ends(one.column, (one.column.low, one.column.high))
        seen = [one.recorded] if before is None else [one.recorded, before.get(one.name)]
        recorded = (physical_ends(one.column, ends) for ends in seen)
        add_row(table, one.name, *recorded, declared, ", ".join(origins), *cells)
    return table


def unseen_table(evaluations: Mapping[str, Evaluation]) -> Table | None:
    """Each track on each drive it was made without, beside what it has on held-out frames; None without such drives."""
    found = {name: one for name, one in evaluations.items() if one.unseen and one.open_loop is not None}
    if not found:
        return None
    table = _table("Unseen: made without a drive, judged on it", "", *(name.upper() for name in found))
    for column in table.columns[1:]:
        column.justify = "right"
    drives = dict.fromkeys(one.drive for evaluation in found.values() for one in evaluation.unseen)
    for drive in drives:
        own = [next((one for one in e.unseen if one.drive == drive), None) for e in found.values()]
        cells = ["-" if one is None else f"{one.closeness.agreement.value:.2%}" for one in own]
        add_row(table, f"{drive}, n = {next(one.closeness.n for one in own if one)}", *[""] * len(own))
        add_row(table, "  same action", *cells)
        add_row(table, "  mean error", *("-" if one is None else f"{one.closeness.mae:.4g}" for one in own))
        add_row(table, "  largest error", *("-" if one is None else f"{one.closeness.max_error:.3g}" for one in own))
    return table


def later_table(
    drive: str,
    tracks: Mapping[str, OnDrive],
    columns: Sequence[Coverage],
    warnings: Iterable[str],
    recorded: Mapping[str, Ends | None],
    winner: str | None,
) -> Group:
    """A finished run's candidates on a later drive: how close, what was missed, how far it went.

    Args:
        drive: its name.
        tracks: what each candidate showed on it.
        columns: how far each column goes in it.
        warnings: what to know first.
        recorded: by column's name, how far it went in what the run was made of.
        winner: the run's.
    """
    heads = (f"{name.upper()} (winner)" if name == winner else name.upper() for name in tracks)
    table = _table(f"On {drive}", "", *heads)
    for column in table.columns[1:]:
        column.justify = "right"
    figures: dict[str, Callable[[OnDrive], str]] = {
        "frames": lambda one: f"{one.closeness.n}",
        "same action": lambda one: f"{one.closeness.agreement.value:.2%}",
        "mean error": lambda one: f"{one.closeness.mae:.4g}",
        "largest error": lambda one: f"{one.closeness.max_error:.3g}",
        "missed actions": lambda one: str(one.missed),
        "false actions": lambda one: str(one.false),
        "frames with an input cut off": lambda one: f"{one.saturated:.2%}",
    }
    for name, figure in figures.items():
        add_row(table, name, *(figure(one) for one in tracks.values()))
    return Group(
        table, "", coverage_table(columns, recorded), *(line(f"Warning: {words}", "yellow") for words in warnings)
    )


def _represented(one: Coverage, track: str) -> str:
    cut = f", cuts {one.saturated[track]:.1%}" if one.saturated[track] else ""
    if track in one.short or cut:
        return f"{physical_ends(one.column, one.represented[track])}{cut}"
    return "all"
