"""The report as Markdown: what a pull request or a mail needs of it, without pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import indent

from quant.anatomy import advise, contrast
from quant.report import against, causes, reach, tables, worlds
from quant.report.material import Material
from quant.report.replay import partings
from quant.report.stress import stress_sentences
from quant.report.tables import Cell, Table
from quant.report.terminal import engine_lines, status_line

MARKS = {"pass": "✔ pass", "fail": "✖ fail", "unproven": "◌ unproven"}
"""An outcome is told by a sign and a word."""


def summary(material: Material) -> str:
    """The whole text; the same run gives the same bytes."""
    verdict = material.verdict
    parts = [
        f"# Quantization report: {escaped(tables.checkpoint(material))}",
        escaped(tables.lead(material)),
        f"**{escaped(verdict.headline)}**",
        escaped(status_line(verdict)) if verdict.winner else "",
        listed([*tables.reasons(verdict), *tables.against(verdict)]),
        listed([f"**Warning:** {escaped(one)}" for one in verdict.warnings], escape=False),
        "## Acceptance",
        table(tables.criteria(verdict.assessments)),
        "## Head to head",
    ]
    driving = tables.driving(material.evaluations)
    parts.append("Driving was not tested: no world was given." if driving is None else table(driving))
    parts += ["### Held-out frames", table(tables.frames(material.evaluations))]
    parts.append(table(tables.by_peers(material.evaluations)))
    if verdict.standings:
        parts += ["### Against float, episode by episode", table(tables.standings(verdict))]
    if verdict.pairs:
        parts += ["### Against each other", table(tables.pairs(verdict))]
    if verdict.gate:
        parts += ["### Gate self-test", listed(verdict.gate)]
    if material.parity:
        parts += ["### Engines, against the arithmetic of the verdict", listed(engine_lines(material.parity))]
    parts += _reach(material)
    if material.second is not None:
        opinion = material.second
        parts += ["## A second opinion: SUMO", listed(opinion.sentences)]
        parts += [table(worlds.table(opinion, name)) for name in opinion.episodes]
    if material.baseline is not None:
        held = material.baseline
        parts += ["## Against the baseline", f"**{escaped(held.headline)}**", listed([*held.changed, *held.meaning])]
        parts += [table(against.table(held)), listed(against.words(held))]
    parts += ["## Size and work", table(tables.cost(material))]
    for name, device in material.devices.items():
        parts += [f"## Board: {escaped(name)}", table(tables.board_facts(device))]
        for track, own in device.tracks.items():
            parts += [f"{track.upper()}, microseconds, {device.board.evidence}:", table(tables.board(track, own))]
    found = partings(material.evaluations)
    if found:
        parts += ["## Where the tracks part", table(tables.parting(found))]
    parts += _causes(material)
    parts += [
        "## How it was made",
        indent(tables.command(material), "    ", lambda line: True),
        table(tables.hashes(material)),
        table(tables.versions(material)),
        table(tables.limits(material)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _reach(material: Material) -> list[str]:
    """Unseen drives, coverage and stress."""
    parts = []
    if reach.left_out(material.evaluations):
        parts += ["## Unseen drives", table(reach.unseen(material.evaluations))]
    trusted = reach.trusted(material.coverage)
    parts += ["## Coverage", table(reach.coverage_table(material.coverage))]
    parts += [] if trusted is None else ["### Trusted up to", table(trusted)]
    if material.stress is not None:
        stress = material.stress
        parts += ["## Stress", table(reach.stress_table(stress)), listed(stress_sentences(stress))]
    return parts


def _causes(material: Material) -> list[str]:
    found = material.anatomies
    if not found:
        return []
    parts = ["## Why each candidate errs"]
    for track, one in found.items():
        sentences = [f"{advice.why}{f'; try: {advice.what}' if advice.what else ''}" for advice in advise(one)]
        parts += [f"### {escaped(track.upper())}", listed(sentences), table(causes.table(one))]
    first, *others = found.values()
    sentences = [line for other in others for line in contrast(first, other)]
    parts += ["### Between the candidates", listed(sentences)] if sentences else []
    return [*parts, "### The worst frames", table(causes.worst(found, tables.actions_of(material)))]


def table(source: Table) -> str:
    """A table with a header row; cells with line breaks become one line."""
    rule = ["---" if index < source.numbers else "---:" for index in range(len(source.columns))]
    rows = [[escaped(name) for name in source.columns], rule, *([_cell(cell) for cell in row] for row in source.rows)]
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return "\n\n".join([body, *map(escaped, source.notes)])


def _cell(cell: Cell) -> str:
    first, *rest = cell.text.splitlines() or [""]
    notes = [*rest, *([cell.note] if cell.note else [])]
    words = escaped(f"{first} ({'; '.join(notes)})" if notes else first)
    if cell.mark == "group":
        return f"**{words}**"
    return f"{MARKS[cell.mark]}: {words}" if cell.mark in MARKS else words


def listed(sentences: Sequence[str], *, escape: bool = True) -> str:
    """A list; nothing for none."""
    return "\n".join(f"- {escaped(one) if escape else one}" for one in sentences)


def escaped(words: str) -> str:
    """Text that Markdown takes as it stands, in one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(words.split()))
