"""The report's tables, as rows of text that HTML and Markdown both write."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np

from quant.acceptance.assessment import Assessment
from quant.acceptance.criterion import Criterion, quantity
from quant.boards.report import DeviceReport, TrackReport
from quant.dataset.augmentation import PEER_FEATURES
from quant.evaluation.evaluation import FLOAT, Evaluation
from quant.evaluation.open_loop import Closeness
from quant.evaluation.outcomes import SliceOutcome
from quant.evaluation.statistics import Paired
from quant.policy.policy import Discrete
from quant.report import terminal
from quant.report.figures import STAGES
from quant.report.material import Frames, Interface, Material
from quant.report.replay import Parting
from quant.worlds.convoy import ACTIONS
from quant.worlds.world import CONVOY

NOTHING = terminal.NOTHING
PAGES = ("report.html", "report.md")
"""The report's own files, which it does not list."""


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what it says; may have line breaks.
        mark: ``pass``, ``fail`` or ``unproven`` where it is an outcome, ``group`` where it heads a group of rows.
        note: said smaller below it.
    """

    text: str
    mark: str = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: their names.
        rows: as long as the columns.
        numbers: columns from this one on hold figures.
        sortable: its rows are alike, so that sorting them makes sense.
        notes: sentences below it.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: int = 1
    sortable: bool = False
    notes: tuple[str, ...] = field(default=())


def _row(*cells: str | Cell) -> tuple[Cell, ...]:
    return tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells)


def checkpoint(material: Material) -> str:
    """What the report is called after: the checkpoint's file, without its folders."""
    return PurePath(str(material.settings["checkpoint"])).name


def criteria(assessments: Sequence[Assessment]) -> Table:
    """Every criterion with its limit, and for each candidate outcome, value and evidence."""
    rows, reasons = [], dict[str, None]()
    for own in zip(*(assessment.criteria for assessment in assessments), strict=True):
        bases = list(dict.fromkeys(one.basis for one in own if one.basis))
        name = Cell(own[0].name, note="; ".join(bases))
        rows.append(_row(name, limit(own[0]), *(_outcome(one) for one in own)))
        reasons |= dict.fromkeys(f"{one.name}: {one.unproven}" for one in own if one.unproven)
    notes = _reasons(list(reasons))
    return Table(("criterion", "limit", *(a.track.upper() for a in assessments)), tuple(rows), 1, True, notes)


def _reasons(found: Sequence[str]) -> tuple[str, ...]:
    """Why criteria are unproven; criteria with the same reason in one sentence."""
    together: dict[str, list[str]] = {}
    for one in found:
        name, _, reason = one.partition(": ")
        together.setdefault(reason, []).append(name)
    return tuple(f"Unproven: {', '.join(names)}: {reason}." for reason, names in together.items())


def limit(criterion: Criterion) -> str:
    """At most or at least what."""
    return f"{'≤' if criterion.direction == 'at most' else '≥'} {quantity(criterion.limit, criterion.unit)}"


def _outcome(criterion: Criterion) -> Cell:
    value = "no value" if criterion.value is None else quantity(criterion.value, criterion.unit)
    return Cell(value, criterion.outcome.value, criterion.evidence or "no evidence")


def driving(evaluations: Mapping[str, Evaluation]) -> Table | None:
    """Float and every candidate slice by slice; None where driving was not tested."""
    reference = evaluations[FLOAT].closed_loop
    if reference is None:
        return None
    rows: list[tuple[Cell, ...]] = []
    for place, original in enumerate(reference.slices):
        outcomes = [e.closed_loop.slices[place] if e.closed_loop else None for e in evaluations.values()]
        rows.append((Cell(f"{original.name}, n = {original.n:,}", "group"), *(Cell("") for _ in outcomes)))
        rows += [_row(name, *_each(outcomes, show)) for name, show in terminal.DRIVING.items()]
        paired = [
            None if outcome is None or track == FLOAT else Paired.of(original.success, outcome.success)
            for track, outcome in zip(evaluations, outcomes, strict=True)
        ]
        rows += [_row(name, *_each(paired, show)) for name, show in terminal.PAIRED.items()]
    return Table(("", *(track.upper() for track in evaluations)), tuple(rows))


def _each(values: Sequence[Any], show: Callable[[Any], str]) -> list[str]:
    return [NOTHING if value is None else show(value) for value in values]


def frames(evaluations: Mapping[str, Evaluation]) -> Table:
    """How closely every candidate follows the float policy on held-out frames."""
    opened = {t: e.open_loop for t, e in evaluations.items() if e.open_loop is not None}
    rows = []
    for name, show in terminal.FRAMES.items():
        figures = [show(one.overall) for one in opened.values()]
        if set(figures) != {NOTHING}:
            rows.append(_row(name.strip(), *figures))
    return Table(("", *(track.upper() for track in opened)), tuple(rows))


def by_peers(evaluations: Mapping[str, Evaluation]) -> Table:
    """Agreement and mean error by number of peers and by origin of the frames."""
    opened = [e.open_loop for e in evaluations.values() if e.open_loop is not None]
    tracks = [t for t, e in evaluations.items() if e.open_loop is not None]
    rows: dict[str, list[Closeness | None]] = {}
    for one in opened:
        for count, closeness in enumerate(one.by_peers):
            rows.setdefault(f"{count} peer{'' if count == 1 else 's'}", []).append(closeness)
        for origin, own in one.by_origin:
            rows.setdefault(origin, []).append(own)

    def words(one: Closeness | None) -> str:
        return NOTHING if one is None else f"{one.agreement.value:.2%} / {one.mae:.4g}"

    made = tuple(
        _row(name, next((f"{one.n:,}" for one in own if one is not None), "0"), *map(words, own))
        for name, own in rows.items()
    )
    return Table(("frames with", "n", *(f"{t.upper()}: agreement / error" for t in tracks)), made, 1, True)


def confusion(track: str, found: Frames, actions: Sequence[str]) -> Table:
    """How often a candidate takes which action where the float policy takes which."""
    counts = np.zeros((len(actions), len(actions)), np.int64)
    np.add.at(counts, (found.actions[FLOAT], found.actions[track]), 1)
    rows = []
    for one, (name, row) in enumerate(zip(actions, counts.tolist(), strict=True)):
        total = max(sum(row), 1)
        cells = [
            Cell(f"{n:,}", "same" if other == one else "other" if n else "none", f"{n / total:.2%}")
            for other, n in enumerate(row)
        ]
        rows.append(_row(f"float: {name}", *cells))
    return Table((track.upper(), *actions), tuple(rows))


def actions_of(material: Material) -> tuple[str, ...]:
    """Names of a Discrete's actions; empty for a Box."""
    space = material.policy.action_space
    if not isinstance(space, Discrete):
        return ()
    if material.world is not None and material.world.spec == CONVOY:
        return ACTIONS
    return tuple(f"action {k}" for k in range(space.n))


def interface_words(found: Interface) -> str:
    """Ends, saturation and range of an interface, in a line."""
    last = found.first + len(found.codes) - 1
    real = "" if found.real is None else f"; {found.real[0]:.4g} to {found.real[1]:.4g}, 0 is {found.zero}"
    return (
        f"at {found.first}: {found.at_lowest:.2%}, at {last}: {found.at_highest:.2%}; "
        f"{found.used:,} of {len(found.codes):,} codes occur{real}"
    )


def features(found: Frames) -> Table:
    """The range of each input's feature on the held-out frames, and what each candidate's codes cover of it."""
    tracks = list(found.features)
    rows = []
    for own in zip(*found.features.values(), strict=True):
        cells = [Cell(_range(one.covered), note=f"{one.clipped:.2%} beyond") for one in own]
        rows.append(_row(_feature(own[0].name), NOTHING if own[0].seen is None else _range(own[0].seen), *cells))
    return Table(("feature", "seen", *(f"{t.upper()} covers" for t in tracks)), tuple(rows))


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3g} to {ends[1]:.3g}"


def _feature(name: str) -> str:
    kind, _, place = name.partition(" ")
    known = kind == "peer" and int(place) < len(PEER_FEATURES)
    return f"{name} ({PEER_FEATURES[int(place)]})" if known else name


def board(own: TrackReport) -> Table:
    """Times of a decision on a board by number of peers: median of each stage, and the whole."""
    rows = []
    for row in own.times:
        stages = [f"{row.stages[stage].median:.1f}" for stage in STAGES]
        total = row.total
        rows.append(_row(str(row.peers), *stages, f"{total.median:.1f}", f"{total.p99:.1f}", f"{total.maximum:.1f}"))
    names = (*(f"{stage}, median" for stage in STAGES), "total, median", "total, p99", "total, maximum")
    return Table(("peers", *names), tuple(rows), 0, True)


def board_facts(device: DeviceReport) -> Table:
    """Which board, what ran on it, and how it compared."""
    one, memory = device.board, device.memory
    sizes = {
        "heap free, least since boot": memory.heap_minimum,
        "stack left, least since boot": memory.stack_left,
        "image": memory.app_bytes,
        "model pack": memory.models_bytes,
    }
    rows = [
        ("board", f"{one}"),
        ("evidence", one.evidence),
        ("firmware", f"{one.firmware}, ELF sha256 {one.elf_sha256[:12]}, {one.target}"),
        ("engine", " ".join(word for word in (one.engine, one.kernels, one.idf) if word)),
        *((f"{track}: against the host", str(own.conformance)) for track, own in device.tracks.items()),
        *((name, f"{value:,} bytes") for name, value in sizes.items() if value is not None),
    ]
    return Table(("", ""), tuple(_row(*row) for row in rows), 2)


def parting(found: Sequence[Parting], most: int = 40) -> Table:
    """The episodes that are not ended alike, the first ``most``."""
    tracks = list(found[0].success) if found else []
    rows = tuple(_row(one.slice, str(one.index), *(_ended(one, track) for track in tracks)) for one in found[:most])
    notes = (f"The first {most} of {len(found)}.",) if len(found) > most else ()
    return Table(("slice", "episode", *(track.upper() for track in tracks)), rows, 1, True, notes)


def _ended(one: Parting, track: str) -> Cell:
    if one.success[track]:
        return Cell("✔ success", "none")
    return Cell({True: "✖ collision", False: "✖ no success, no collision", None: "✖ no success"}[one.collision[track]])


def facts(material: Material) -> Table:
    """What is known of the policy and how."""
    rows = (
        _row(fact.name, fact.value, f"{fact.how}: {fact.source}" if fact.source else fact.how)
        for fact in material.policy.facts
    )
    return Table(("of the policy", "value", "how it is known"), tuple(rows), 3)


def hashes(material: Material) -> Table:
    """SHA-256 of what the run was made of and of what it made."""
    rows = [_row(name, value or "none") for name, value in material.verdict.hashes.items()]
    for track, candidate in material.candidates.items():
        rows += [_row(f"{track}: {part}", value) for part, value in candidate.hashes.items()]
    return Table(("sha256 of", ""), tuple(rows), 2)


def settings(material: Material) -> Table:
    """What the run was asked for."""
    shown = {key: value for key, value in material.settings.items() if key != "schema_version"}
    return Table(("setting", ""), tuple(_row(key, _plain(value)) for key, value in shown.items()), 2)


def limits(material: Material) -> Table:
    """The limits in force."""
    found = material.verdict.limits.to_json()
    return Table(("limit", ""), tuple(_row(key, _plain(value)) for key, value in found.items()), 1)


def versions(material: Material) -> Table:
    """Versions, commit, host and the time each step took."""
    manifest = material.manifest
    host = manifest.get("host", {})
    rows = [_row(name, str(value)) for name, value in manifest.get("versions", {}).items()]
    rows.append(_row("commit of quant", str(manifest.get("git_commit") or "none")))
    rows.append(_row("host", " ".join(str(host.get(key, "")) for key in ("system", "machine", "node")).strip()))
    rows += [_row(f"step {name}", f"{value:.1f} s") for name, value in manifest.get("seconds", {}).items()]
    return Table(("", "version"), tuple(rows), 2)


def files(material: Material) -> Table:
    """Every artifact with its size and hash, but for the report itself."""
    found = {name: entry for name, entry in material.manifest.get("files", {}).items() if name not in PAGES}
    rows = (_row(name, f"{entry['bytes']:,}", entry["sha256"]) for name, entry in found.items())
    return Table(("file", "bytes", "sha256"), tuple(rows), 1, True)


def command(material: Material) -> str:
    """The settings as a command."""
    asked = material.settings
    words = ["quant", "run"]
    if asked["checkpoint"] != "reference policy":
        words.append(str(asked["checkpoint"]))
    for drive in asked.get("drives") or ():
        words += ["--drive", str(drive)]
    if asked.get("world") is not None:
        words += ["--world", str(asked["world"])]
        episodes = asked.get("episodes") or {}
        for name, option in (("nominal", "--episodes"), ("lossy", "--lossy-episodes")):
            words += [option, str(episodes[name])] if name in episodes else []
    words += ["--seed", str(asked.get("seed", 0))]
    if asked.get("qat_steps") is not None:
        words += ["--qat-steps", str(asked["qat_steps"])]
    return shlex.join(words)


def _plain(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


Figure = tuple[str, str, str]
"""Label, value and a note."""


def key_figures(material: Material) -> tuple[Figure, ...]:
    """The winner's figures in short: driving, agreement, bytes, time."""
    track = material.verdict.winner
    if track is None:
        return ()
    own, evaluation = material.verdict.assessment(track), material.evaluations[track]
    found: list[Figure] = []
    reference = material.evaluations[FLOAT].closed_loop
    if evaluation.closed_loop is not None and reference is not None:
        for outcome, original in zip(evaluation.closed_loop.slices, reference.slices, strict=True):
            found.append(_success(outcome, original))
    if evaluation.open_loop is not None:
        overall = evaluation.open_loop.overall
        found.append(("same action as float", f"{overall.agreement.value:.2%}", f"{overall.n:,} held-out frames"))
    parts = " + ".join(f"{size:,}" for size in own.sizes.values())
    found.append(("bytes", f"{own.total_bytes:,}", f"{parts}, encoder + head"))
    for one in own.criteria:
        if one.name == "latency" and one.value is not None:
            found.append(
                ("time of a decision, p99", f"{one.value:.3g} {one.unit}", f"{one.evidence}, worst peer count")
            )
    return tuple(found)


def _success(outcome: SliceOutcome, original: SliceOutcome) -> Figure:
    rate = outcome.collision_rate
    collisions = "" if rate is None else f"; collisions {rate.value:.2%}"
    needless = "" if outcome.needless is None else f"; needless braking {outcome.needless.value:.3f} m/s"
    note = f"float {original.success_rate.value:.2%}{collisions}{needless}"
    return f"success, {outcome.name}", f"{outcome.success_rate.value:.2%}", note
