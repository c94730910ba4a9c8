"""The report's tables, as rows of text that HTML and Markdown both write."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np

from quant.acceptance.assessment import CRITERIA, Assessment
from quant.acceptance.criterion import Criterion, Outcome, quantity
from quant.acceptance.decision import Verdict
from quant.boards.report import DeviceReport, TrackReport
from quant.evaluation.evaluation import FLOAT, Evaluation
from quant.evaluation.open_loop import MADE, Closeness, OpenLoop
from quant.evaluation.outcomes import SliceOutcome
from quant.evaluation.statistics import Paired
from quant.policy.policy import Discrete
from quant.report import terminal
from quant.report.board_tests import BoardTests
from quant.report.figures import STAGES
from quant.report.material import Frames, Interface, Material
from quant.report.replay import Parting
from quant.runners.flatbuffer import macs
from quant.tracks.candidate import Candidate
from quant.tracks.registry import DEFAULT_TRACKS

NOTHING = terminal.NOTHING
STANDING = (
    "points of success lost, 95 % bound",
    "kept within the margin, points",
    "smallest drop it could see, points",
    "collides alone : float alone",
    "McNemar p of collisions",
)
"""What :data:`quant.report.terminal.STANDING` shows, where there is room for words."""
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
        title: what it is called, above it.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: int = 1
    sortable: bool = False
    notes: tuple[str, ...] = field(default=())
    title: str = ""


def row_of(*cells: str | Cell) -> tuple[Cell, ...]:
    """Texts as cells."""
    return tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells)


def checkpoint(material: Material) -> str:
    """What the report is called after: the checkpoint's file, without its folders."""
    return PurePath(str(material.settings["checkpoint"])).name


def lead(material: Material) -> str:
    """What was done, for a reader who knows nothing of it."""
    policy, n = material.policy, len(material.candidates)
    space = policy.action_space
    gives = f"one of {space.n} actions" if isinstance(space, Discrete) else _continuous(space.width)
    opened = next((e.open_loop for t, e in material.evaluations.items() if t != FLOAT), None)
    reference = material.evaluations[FLOAT].closed_loop
    judged = [f"on {opened.overall.n:,} frames it was not made from"] if opened is not None else []
    if reference is not None and material.world is not None:
        episodes = sum(one.n for one in reference.slices)
        judged.insert(0, f"on {episodes:,} driven episodes of the world {material.world.spec} (the same for all)")
    ways = f"in {n} ways, as {', '.join(track.upper() for track in material.candidates)}" if n > 1 else "once"
    return (
        f"A Deep Sets policy drives from up to {policy.max_peers} peers with {policy.peer_size} features each and "
        f"{policy.ego_size} of its own, and decides on {gives}. It was turned into two small models of integers for a "
        f"microcontroller {ways}, and each was held against the float policy {' and '.join(judged)}."
    )


def criteria(assessments: Sequence[Assessment]) -> Table:
    """Every criterion with its limit, and for each candidate outcome, value and evidence."""
    rows, reasons = [], dict[str, None]()
    for own in zip(*(assessment.criteria for assessment in assessments), strict=True):
        first = own[0]
        bases = list(dict.fromkeys(one.basis for one in own if one.basis))
        name = Cell(in_words(first.name), note="; ".join([first.name, *bases]))
        rows.append(row_of(name, limit(first), *(_outcome(one) for one in own)))
        reasons |= dict.fromkeys(f"{in_words(one.name)}: {one.unproven}" for one in own if one.unproven)
    notes = _reasons(list(reasons))
    columns = ("criterion", "limit", *(a.track.upper() for a in assessments))
    return Table(columns, tuple(rows), 1, True, notes, "Criteria and their outcomes")


def _continuous(width: int) -> str:
    return "a continuous action" if width == 1 else f"a continuous action of {width} components"


def in_words(name: str) -> str:
    """A criterion in plain words, with the slice it is about."""
    kind, _, about = name.rstrip("]").partition("[")
    words = CRITERIA.get(kind)
    if words is None:
        return name
    return f"{words}, {about}" if about else words


def measure(value: float, unit: str) -> str:
    """A quantity as people read it: grouped digits, no more of them than tell something."""
    if unit == "bytes" or (unit != "share" and value == int(value)):
        return f"{value:,.0f} {unit}"
    return quantity(value, unit).replace(" %", "%") if unit == "share" else f"{value:.3g} {unit}"


def _reasons(found: Sequence[str]) -> tuple[str, ...]:
    """Why criteria are unproven; criteria with the same reason in one sentence."""
    together: dict[str, list[str]] = {}
    for one in found:
        name, _, reason = one.partition(": ")
        together.setdefault(reason, []).append(name)
    return tuple(f"Unproven, as {reason}: {'; '.join(names)}." for reason, names in together.items())


def limit(criterion: Criterion) -> str:
    """At most or at least what."""
    return f"{'≤' if criterion.direction == 'at most' else '≥'} {measure(criterion.limit, criterion.unit)}"


def _outcome(criterion: Criterion) -> Cell:
    value = "no value" if criterion.value is None else measure(criterion.value, criterion.unit)
    if criterion.value is not None and criterion.value != criterion.limit:
        # Rounded to the limit it would seem to contradict its outcome.
        same = value == measure(criterion.limit, criterion.unit)
        value = quantity(criterion.value, criterion.unit) if same else value
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
        rows += [row_of(name, *_each(outcomes, show)) for name, show in terminal.DRIVING.items()]
        paired = [
            None if outcome is None or track == FLOAT else Paired.of(original.success, outcome.success)
            for track, outcome in zip(evaluations, outcomes, strict=True)
        ]
        rows += [row_of(name, *_each(paired, show)) for name, show in terminal.PAIRED.items()]
    columns = ("", *(track.upper() for track in evaluations))
    return Table(columns, tuple(rows), title="Driving in figures, with 95 % intervals")


def _each(values: Sequence[Any], show: Callable[[Any], str]) -> list[str]:
    return [NOTHING if value is None else show(value) for value in values]


def standings(verdict: Verdict) -> Table:
    """Every candidate against the float policy, slice by slice: what was lost, what is shown, what could be seen."""
    tracks = [assessment.track for assessment in verdict.assessments]
    rows: list[tuple[Cell, ...]] = []
    for name in dict.fromkeys(one.slice for one in verdict.standings):
        own = {one.track: one for one in verdict.standings if one.slice == name}
        first = own[tracks[0]]
        blind = f", blind: {first.blind}" if first.blind else ""
        rows.append((Cell(f"{name}, n = {first.contest.success.n:,}{blind}", "group"), *(Cell("") for _ in tracks)))
        shown = zip(STANDING, terminal.STANDING.values(), strict=True)
        rows += [row_of(label, *(show(own[track]) for track in tracks)) for label, show in shown]
    return Table(("", *map(str.upper, tracks)), tuple(rows), title="Against float, episode by episode")


def pairs(verdict: Verdict) -> Table:
    """Every two candidates that could win, on the episodes that counted."""
    rows = tuple(
        row_of(f"{one.first.upper()} : {one.second.upper()}", *(show(one) for show in terminal.PAIRS))
        for one in verdict.pairs
    )
    columns = ("", "alone succeed", "p", "p after Holm", "alone collide", "p of it", "could see, points")
    return Table(columns, rows, title="Against each other")


def in_short(verdict: Verdict) -> str:
    """Whether the winner is shown to drive no worse than float by more than the margin; nothing without driving."""
    own = [one for one in verdict.standings if one.track == verdict.winner]
    if not own:
        return ""
    each = "; ".join(
        f"{one.slice}: {one.noninferiority.value} (lost {100 * one.loss.value:.2f}, at most "
        f"{100 * one.loss.upper:.2f} points with 95 % confidence)"
        for one in own
    )
    return f"Against float, with a margin of {points_of(own[0].margin)} of success: {each}."


def points_of(share: float) -> str:
    """A share as percentage points."""
    return f"{100 * share:g} {'point' if share == 0.01 else 'points'}"


def against(verdict: Verdict) -> tuple[str, ...]:
    """What the verdict says against each rival, and of the winner's standing, in full."""
    standing = [one.sentence for one in verdict.standings if one.track == verdict.winner]
    return (*standing, *(f"against {rival.track}: {rival.comparison}" for rival in verdict.against))


def reasons(verdict: Verdict) -> tuple[str, ...]:
    """Why, without what :func:`against` says in full."""
    full = {one.sentence for one in verdict.standings}
    short = in_short(verdict)
    return (*(sentence for sentence in verdict.why if sentence not in full), *([short] if short else []))


def frames(evaluations: Mapping[str, Evaluation]) -> Table:
    """How closely every candidate follows the float policy on held-out frames, kind by kind: seen ones count alone."""
    opened = {t: e.open_loop for t, e in evaluations.items() if e.open_loop is not None}
    if not opened:
        return Table(("",), ())
    rows: list[tuple[Cell, ...]] = []
    for name, each in _kinds(list(opened.values())).items():
        n = next(one.n for one in each if one is not None)
        rows.append((Cell(f"{name}, n = {n:,}", "group"), *(Cell("") for _ in opened)))
        for label, show in list(terminal.FRAMES.items())[1:]:
            figures = [NOTHING if one is None else show(one) for one in each]
            if set(figures) != {NOTHING}:
                rows.append(row_of(label.strip(), *figures))
    return Table(("", *(track.upper() for track in opened)), tuple(rows), notes=exact(evaluations))


def _kinds(opened: Sequence[OpenLoop]) -> dict[str, list[Closeness | None]]:
    """What counts, and, apart from it, frames of each kind."""
    origins = list(dict.fromkeys(origin for one in opened for origin, _ in one.by_origin))
    seen = [origin for origin in origins if origin not in MADE]
    apart = [origin for origin in origins if origin in MADE or len(seen) > 1]
    counted = f"{' and '.join(seen) or 'held out'}: what counts"
    each = [dict(one.by_origin) for one in opened]
    return {counted: [one.overall for one in opened], **{name: [own.get(name) for own in each] for name in apart}}


def exact(evaluations: Mapping[str, Evaluation]) -> tuple[str, ...]:
    """How many frames of each kind have no error at all in any candidate."""
    found = evaluations[FLOAT].exact
    counts = {origin: own.n for e in evaluations.values() if e.open_loop for origin, own in e.open_loop.by_origin}
    each = [f"{found[origin]:,} of {n:,} {origin}" for origin, n in counts.items() if found.get(origin)]
    return (f"Without any error in every candidate: {'; '.join(each)} frames. They dilute a mean.",) if each else ()


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
        row_of(name, next((f"{one.n:,}" for one in own if one is not None), "0"), *map(words, own))
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
        rows.append(row_of(f"float: {name}", *cells))
    return Table((track.upper(), *actions), tuple(rows), title=f"{track.upper()} in columns, float in rows")


def actions_of(material: Material) -> tuple[str, ...]:
    """Names of a Discrete's actions; empty for a Box."""
    space = material.policy.action_space
    if not isinstance(space, Discrete):
        return ()
    if material.world is not None and material.world.action_names:
        return material.world.action_names
    return tuple(f"action {k}" for k in range(space.n))


def interface_words(found: Interface) -> str:
    """Ends, saturation and range of an interface, in a line."""
    last = found.first + len(found.codes) - 1
    real = "" if found.real is None else f"; {found.real[0]:.4g} to {found.real[1]:.4g}"
    real += "" if found.zero is None else f", 0 is {found.zero}"
    return (
        f"at {found.first}: {found.at_lowest:.2%}, at {last}: {found.at_highest:.2%}; "
        f"{found.used:,} of {len(found.codes):,} codes occur{real}"
    )


def cost(material: Material) -> Table:
    """Bytes and multiply-accumulates of every candidate."""
    rows = []
    for track, candidate in material.candidates.items():
        sizes = [len(model.tflite) for model in (candidate.peer_encoder, candidate.policy_head)]
        encoder, head = (macs(model.tflite) for model in (candidate.peer_encoder, candidate.policy_head))
        rows.append(
            row_of(
                track.upper(),
                *(f"{size:,}" for size in (*sizes, sum(sizes))),
                f"{encoder:,}",
                f"{head:,}",
                f"{decision_macs(candidate):,}",
                f"int{candidate.bits}",
            )
        )
    most = material.policy.max_peers
    columns = (
        *("candidate", "encoder, bytes", "head, bytes", "together"),
        *("encoder, MACs a peer", "head, MACs", f"MACs with {most} peers", "activations"),
    )
    return Table(columns, tuple(rows), 1, True, title="Size and work")


def decision_macs(candidate: Candidate) -> int:
    """Multiply-accumulates of a decision with the most peers: each weight once, the encoder's once for each peer."""
    return candidate.max_peers * macs(candidate.peer_encoder.tflite) + macs(candidate.policy_head.tflite)


def tests(own: BoardTests) -> Table:
    """What a board's tests recorded, but for the times of every number of peers, which stand by themselves."""
    left = [one for one in own.figures if "test_times_of_every_number_of_peers" not in one.test]
    rows = (row_of(one.short, one.name, _recorded(one.value, one.unit)) for one in left)
    return Table(("test", "figure", "value"), tuple(rows), 3, True)


def _recorded(value: float | str, unit: str) -> str:
    number = f"{value:,.10g}" if isinstance(value, (int, float)) else value
    return f"{number} {unit}".strip()


def board(track: str, own: TrackReport) -> Table:
    """Times of a decision on a board by number of peers: median of each stage, and the whole."""
    rows = []
    for row in own.times:
        stages = [f"{row.stages[stage].median:.1f}" for stage in STAGES]
        total = row.total
        rows.append(row_of(str(row.peers), *stages, f"{total.median:.1f}", f"{total.p99:.1f}", f"{total.maximum:.1f}"))
    names = (*(f"{stage}, median" for stage in STAGES), "total, median", "total, p99", "total, maximum")
    return Table(("peers", *names), tuple(rows), 0, True, title=track.upper())


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
        ("tests that failed with these models", ", ".join(device.failed_tests) or "none that ran"),
        *((f"{track}: against the host", str(own.conformance)) for track, own in device.tracks.items()),
        *((name, f"{value:,} bytes") for name, value in sizes.items() if value is not None),
    ]
    return Table(("", ""), tuple(row_of(*row) for row in rows), 2)


def parting(found: Sequence[Parting], most: int = 40) -> Table:
    """The episodes that are not ended alike, the first ``most``."""
    tracks = list(found[0].success) if found else []
    rows = tuple(row_of(one.slice, str(one.index), *(_ended(one, track) for track in tracks)) for one in found[:most])
    notes = (f"The first {most} of {len(found)}.",) if len(found) > most else ()
    return Table(("slice", "episode", *(track.upper() for track in tracks)), rows, 1, True, notes)


def _ended(one: Parting, track: str) -> Cell:
    if one.success[track]:
        return Cell("✔ success", "none")
    return Cell({True: "✖ collision", False: "✖ no success, no collision", None: "✖ no success"}[one.collision[track]])


def facts(material: Material) -> Table:
    """What is known of the policy and how."""
    rows = (
        row_of(fact.name, fact.value, f"{fact.how}: {fact.source}" if fact.source else fact.how)
        for fact in material.policy.facts
    )
    return Table(("of the policy", "value", "how it is known"), tuple(rows), 3)


def hashes(material: Material) -> Table:
    """SHA-256 of what the run was made of and of what it made."""
    rows = [row_of(name, value or "none") for name, value in material.verdict.hashes.items()]
    for track, candidate in material.candidates.items():
        rows += [row_of(f"{track}: {part}", value) for part, value in candidate.hashes.items()]
    return Table(("sha256 of", ""), tuple(rows), 2)


def settings(material: Material) -> Table:
    """What the run was asked for."""
    shown = {key: value for key, value in material.settings.items() if key != "schema_version"}
    return Table(("setting", ""), tuple(row_of(key, _plain(value)) for key, value in shown.items()), 2)


def limits(material: Material) -> Table:
    """The limits in force."""
    found = material.verdict.limits.to_json()
    return Table(("limit", ""), tuple(row_of(key, _plain(value)) for key, value in found.items()), 1)


def versions(material: Material) -> Table:
    """Versions, commit, host and the time each step took."""
    manifest = material.manifest
    host = manifest.get("host", {})
    rows = [row_of(name, str(value)) for name, value in manifest.get("versions", {}).items()]
    rows.append(row_of("commit of quant", str(manifest.get("quant_commit") or "none")))
    rows.append(row_of("commit of the project", str(manifest.get("git_commit") or "none")))
    rows.append(row_of("host", " ".join(str(host.get(key, "")) for key in ("system", "machine", "node")).strip()))
    rows += [row_of(f"step {name}", f"{value:.1f} s") for name, value in manifest.get("seconds", {}).items()]
    return Table(("", "version"), tuple(rows), 2)


def files(material: Material) -> Table:
    """Every artifact with its size and hash, but for the report itself."""
    found = {name: entry for name, entry in material.manifest.get("files", {}).items() if name not in PAGES}
    rows = (row_of(name, f"{entry['bytes']:,}", entry["sha256"]) for name, entry in found.items())
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
    if asked.get("world_kwargs"):
        words += ["--world-kwargs", json.dumps(asked["world_kwargs"])]
    if asked.get("observation") is not None:
        words += ["--observation", str(asked["observation"])]
    words += [] if asked.get("unseen", True) else ["--no-unseen"]
    for name in ("qat_steps", "training_seed"):
        words += [_option(name), str(asked[name])] if asked.get(name) is not None else []
    if asked.get("stress_frames") is not None:
        words += [_option("stress_frames"), str(asked["stress_frames"])] if asked["stress_frames"] else ["--no-stress"]
    if asked.get("tracks") and tuple(asked["tracks"]) != DEFAULT_TRACKS:
        words += ["--tracks", ",".join(asked["tracks"])]
    for name, value in (asked.get("given") or {}).items():
        words += [_option(name), str(value)]
    return shlex.join(words)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


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
    """The winner's figures in short: criteria, driving, agreement, bytes, time."""
    track = material.verdict.winner
    if track is None:
        return ()
    own, evaluation = material.verdict.assessment(track), material.evaluations[track]
    found = [_criteria_in_short(own)]
    reference = material.evaluations[FLOAT].closed_loop
    if evaluation.closed_loop is not None and reference is not None:
        for outcome, original in zip(evaluation.closed_loop.slices, reference.slices, strict=True):
            found.append(_success(outcome, original))
    if evaluation.open_loop is not None:
        overall = evaluation.open_loop.overall
        found.append(("same action as float", f"{overall.agreement.value:.2%}", f"{overall.n:,} held-out frames"))
    found += _reach(material, track)
    parts = " + ".join(f"{size:,}" for size in own.sizes.values())
    found.append(("bytes", f"{own.total_bytes:,}", f"{parts}, encoder + head"))
    for one in own.criteria:
        if one.name == "latency" and one.value is not None:
            found.append(
                ("time of a decision, p99", f"{one.value:.3g} {one.unit}", f"{one.evidence}, worst peer count")
            )
    return tuple(found)


def _reach(material: Material, track: str) -> list[Figure]:
    """How it does on drives it was made without, and over the declared range."""
    found: list[Figure] = []
    drives = material.evaluations[track].unseen
    if drives:
        worst = min(drives, key=lambda one: one.closeness.agreement.value)
        value = f"{worst.closeness.agreement.value:.2%}"
        found.append(("same action, unseen drive", value, f"{worst.drive}, made without it"))
    elif any(origin.kind == "drive" for origin in material.dataset.origins):
        found.append(("same action, unseen drive", "not looked at", "held-out frames are of drives it was made of"))
    if material.stress is None:
        return [*found, ("missed : false actions", "not looked at", "nobody stressed it")]
    within = material.stress.tracks[track].within
    words = f"{within.frames:,} frames over the declared range; largest difference {within.worst:.3f} of the action's"
    return [*found, ("missed : false actions", f"{within.missed} : {within.false}", words)]


def _criteria_in_short(own: Assessment) -> Figure:
    counts = {outcome: len(own.with_outcome(outcome)) for outcome in Outcome}
    note = ", ".join(f"{n} {outcome.value}" for outcome, n in counts.items() if n and outcome is not Outcome.PASS)
    return "criteria passed", f"{counts[Outcome.PASS]} of {len(own.criteria)}", note or "all of them"


def _success(outcome: SliceOutcome, original: SliceOutcome) -> Figure:
    rate = outcome.collision_rate
    collisions = "" if rate is None else f"; collisions {rate.value:.2%}"
    needless = "" if outcome.needless is None else f"; needless braking {outcome.needless.value:.3f} m/s"
    note = f"float {original.success_rate.value:.2%}{collisions}{needless}"
    return f"success, {outcome.name}", f"{outcome.success_rate.value:.2%}", note
