"""The comparison as rich renderables, legible at 80 columns and without colour. Nothing here prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from quant.acceptance.assessment import Assessment
from quant.acceptance.contest import Contest, Standing
from quant.acceptance.criterion import Criterion, Outcome, quantity
from quant.acceptance.decision import Verdict
from quant.acceptance.device import DEVICE_CRITERIA
from quant.boards.report import DeviceReport, TrackReport
from quant.evaluation.evaluation import FLOAT, Evaluation
from quant.evaluation.open_loop import Closeness
from quant.evaluation.outcomes import SliceOutcome
from quant.evaluation.statistics import Estimate, Paired
from quant.policy.policy import Fact
from quant.report.layout import add_row, empty_table, line
from quant.runners import ParityReport

NOTHING = "-"
STYLES = {Outcome.PASS: "green", Outcome.FAIL: "bold red", Outcome.UNPROVEN: "yellow"}


def report(
    evaluations: Mapping[str, Evaluation],
    verdict: Verdict,
    facts: Sequence[Fact] = (),
    parity: Mapping[str, ParityReport] = MappingProxyType({}),
    devices: Mapping[str, DeviceReport] = MappingProxyType({}),
    more: Sequence[RenderableType] = (),
) -> Group:
    """Everything a person needs to judge a run: facts, driving, frames, criteria, the gate and the winner.

    Args:
        evaluations: by track, and ``float``.
        verdict: of these evaluations.
        facts: what is known of the policy.
        parity: of the other engines with the arithmetic of the verdict, by track.
        devices: what boards showed, by board.
        more: what else the run holds, to stand before the verdict in words.
    """
    parts: list[RenderableType] = [known(facts)] if facts else []
    parts.append(head_to_head(evaluations, verdict))
    parts += [against_float(verdict)] if verdict.standings else []
    parts += [pairs(verdict)] if verdict.pairs else []
    parts += [by_peers(evaluations), criteria(verdict)]
    if verdict.gate:
        parts.append(gate(verdict))
    if parity:
        parts.append(engines(parity))
    parts += [on_board(device) for device in devices.values()]
    parts += more
    return Group(*(Group(part, "") for part in parts), winner(verdict))


def known(facts: Sequence[Fact]) -> Table:
    """What is known of the policy and how."""
    table = _table("Policy", ("fact", "value", "how it is known"))
    for fact in facts:
        add_row(table, fact.name, fact.value, f"{fact.how}: {fact.source}" if fact.source else fact.how)
    return table


def head_to_head(evaluations: Mapping[str, Evaluation], verdict: Verdict) -> Table:
    """Float and every candidate in columns: driving slice by slice, held-out frames, bytes."""
    tracks = _tracks(evaluations)
    table = _table("Head to head", ("", *(track.upper() for track in tracks)), right=True)
    reference = evaluations[FLOAT]
    if reference.closed_loop is None:
        add_row(table, "driving", *("not tested" for _ in tracks))
    else:
        for index, outcome in enumerate(reference.closed_loop.slices):
            _add_slice(table, [evaluations[track] for track in tracks], index, outcome)
    table.add_section()
    for name, figure in FRAMES.items():
        figures = [_frame_figure(evaluations[track], figure) for track in tracks]
        if set(figures) != {NOTHING}:
            add_row(table, name, *figures)
    table.add_section()
    sizes = {assessment.track: assessment for assessment in verdict.assessments}
    add_row(table, "bytes, encoder + head", *(_bytes(sizes.get(track)) for track in tracks))
    return table


def against_float(verdict: Verdict) -> Table:
    """Every candidate against the float policy on the same episodes: what was lost, what is shown, what could be."""
    tracks = [assessment.track for assessment in verdict.assessments]
    table = _table("Against float, episode by episode", ("", *(track.upper() for track in tracks)), right=True)
    for name in dict.fromkeys(one.slice for one in verdict.standings):
        own = {one.track: one for one in verdict.standings if one.slice == name}
        first = next(iter(own.values()))
        table.add_section()
        add_row(table, Text(f"{name}, n = {first.contest.success.n}{', blind' if first.blind else ''}", style="bold"))
        for label, figure in STANDING.items():
            add_row(table, f"  {label}", *(figure(own[track]) for track in tracks))
    return table


def pairs(verdict: Verdict) -> Table:
    """The candidates that could win, every two: who alone succeeds and collides, and what the test could have seen."""
    columns = ("one alone", "succeeds", "p", "Holm", "collides", "p", "could see")
    table = _table("Against each other, episode by episode", columns, right=True)
    for pair in verdict.pairs:
        add_row(table, f"{pair.first} : {pair.second}", *(figure(pair) for figure in PAIRS))
    return table


def by_peers(evaluations: Mapping[str, Evaluation]) -> Table:
    """Agreement and mean error of every candidate by number of peers present and by origin of the frames."""
    tracks = [track for track in _tracks(evaluations) if track != FLOAT]
    table = _table(
        "Held-out frames: agreement / mean error",
        ("frames with", "n", *(track.upper() for track in tracks)),
        right=True,
    )
    rows: dict[str, list[Closeness | None]] = {}
    exact = evaluations[FLOAT].exact
    for track in tracks:
        opened = evaluations[track].open_loop
        if opened is None:
            continue
        for count, closeness in enumerate(opened.by_peers):
            rows.setdefault(f"{count} peer{'' if count == 1 else 's'}", []).append(closeness)
        for origin, origin_closeness in opened.by_origin:
            rows.setdefault(origin, []).append(origin_closeness)
    for name, closenesses in rows.items():
        n = next((str(one.n) for one in closenesses if one is not None), "0")
        add_row(table, name, n, *(_agreement_and_error(one) for one in closenesses))
        if name in exact:
            add_row(table, "  no error at all, in any", str(exact[name]), *(NOTHING for _ in tracks))
    return table


def criteria(verdict: Verdict) -> Table:
    """Every criterion of every candidate with its outcome, value and limit."""
    names = dict.fromkeys(one.name for assessment in verdict.assessments for one in assessment.criteria)
    table = _table(
        "Acceptance", ("criterion", "limit", *(assessment.track.upper() for assessment in verdict.assessments))
    )
    for name in names:
        row = [next((one for one in a.criteria if one.name == name), None) for a in verdict.assessments]
        limit = next(_limit(one) for one in row if one is not None)
        add_row(table, name, limit, *(NOTHING if one is None else _outcome(one) for one in row))
    return table


def gate(verdict: Verdict) -> Group:
    """How the gate's own actors fared, a line each."""
    return Group(Text("Gate self-test", style="bold"), *map(line, verdict.gate))


def engines(parity: Mapping[str, ParityReport]) -> Group:
    """How far TFLite-Micro itself and LiteRT are from the arithmetic of the verdict, a line a track."""
    title = Text("Engines, against the arithmetic of the verdict", style="bold")
    return Group(title, *map(line, engine_lines(parity)))


def engine_lines(parity: Mapping[str, ParityReport]) -> tuple[str, ...]:
    """The same as sentences."""
    lines = []
    for track, one in parity.items():
        exact, litert = "equal in every byte" if one.conforms else "DIFFERS", one.litert
        lines.append(
            f"{track} on {one.decisions} frames: TFLite-Micro {exact}; LiteRT differs in "
            f"{litert.peer_encoder.fraction:.1%} of the encoder's outputs, {litert.policy_head.fraction:.1%} of the "
            f"head's, {litert.decisions_differing} of {one.decisions} decisions"
        )
    return tuple(lines)


def on_board(device: DeviceReport) -> Group:
    """What one board showed: times by number of peers, conformance, arenas."""
    evidence = device.board.evidence
    title = f"On the {device.board}: a decision in microseconds, {evidence}, median / 99th percentile / maximum"
    times = _table("", ("peers", *(track.upper() for track in device.tracks)), right=True)
    tracks = list(device.tracks.values())
    for row in zip(*(own.times for own in tracks), strict=False):
        cells = [f"{t.total.median:.1f} / {t.total.p99:.1f} / {t.total.maximum:.1f}" for t in row]
        add_row(times, str(row[0].peers), *cells)
    lines = [f"{track}: {own.conformance}; {_arena(own)}" for track, own in device.tracks.items()]
    return Group(Text(title, style="bold"), times, *map(line, lines))


def _arena(own: TrackReport) -> str:
    used = [f"{part} {m.arena_used:,} of {m.arena_size:,} bytes" for part, m in own.models.items() if m.arena_used]
    return f"arena: {', '.join(used)}" if used else "arena: the board gives no figure"


def winner(verdict: Verdict) -> Group:
    """The verdict in words: headline, reasons, rivals, warnings, and what is unproven."""
    lines: list[RenderableType] = [Text(verdict.headline, style="bold green" if verdict.winner else "bold red")]
    lines += [line(sentence) for sentence in verdict.why]
    lines += [line(f"against {rival.track}: {rival.comparison}") for rival in verdict.against]
    lines += [line(f"Warning: {warning}", "yellow") for warning in verdict.warnings]
    if verdict.winner is not None:
        lines += [line(str(criterion), _style(criterion)) for criterion in _of_winner(verdict)]
        # In one line whatever the width: people and scripts look for it.
        lines.append(Text(status_line(verdict), style="bold", no_wrap=True, overflow="ignore"))
    return Group(*lines)


def status_line(verdict: Verdict) -> str:
    """What is unproven of the winner, whether the board has confirmed it, and what it is therefore, in one line."""
    if verdict.winner is None:
        return "no winner"
    unproven = verdict.assessment(verdict.winner).with_outcome(Outcome.UNPROVEN)
    names: dict[str, list[str]] = {}
    for one in unproven:
        if one.name not in DEVICE_CRITERIA:
            names.setdefault(one.unproven, []).append(one.name)
    reasons = [f"{', '.join(alike)}: unproven - {reason}" for reason, alike in names.items()]
    return "; ".join([*reasons, verdict.device, f"winner {verdict.status}"])


def _of_winner(verdict: Verdict) -> tuple[Criterion, ...]:
    return () if verdict.winner is None else verdict.assessment(verdict.winner).criteria


def _tracks(evaluations: Mapping[str, Evaluation]) -> list[str]:
    return [FLOAT, *(track for track in evaluations if track != FLOAT)]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A plain table; cells are text, not markup."""
    made = _table("", columns)
    for row in rows:
        add_row(made, *row)
    return made


def _table(title: str, columns: Sequence[str], right: bool = False) -> Table:
    table = empty_table(title)
    for index, column in enumerate(columns):
        justify: JustifyMethod = "right" if right and index else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=index == 0)
    return table


def _add_slice(table: Table, evaluations: Sequence[Evaluation], index: int, reference: SliceOutcome) -> None:
    outcomes = [e.closed_loop.slices[index] if e.closed_loop else None for e in evaluations]
    paired = [
        None if outcome is None or evaluation.track == FLOAT else Paired.of(reference.success, outcome.success)
        for evaluation, outcome in zip(evaluations, outcomes, strict=True)
    ]
    table.add_section()
    add_row(table, Text(f"{reference.name}, n = {reference.n}", style="bold"))
    for name, figure in DRIVING.items():
        add_row(table, f"  {name}", *(NOTHING if outcome is None else figure(outcome) for outcome in outcomes))
    for name, comparison in PAIRED.items():
        add_row(table, f"  {name}", *(NOTHING if one is None else comparison(one) for one in paired))


def share(estimate: Estimate | None) -> str:
    """In percent, its interval below it."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return "unknown" if estimate is None else f"{estimate.value:.2%}"
    return f"{estimate.value:.2%}\n{estimate.low:.1%}..{estimate.high:.1%}"


def number(estimate: Estimate | None) -> str:
    """With half of its interval."""
    if estimate is None:
        return "unknown"
    half = "" if estimate.high is None else f" ±{estimate.high - estimate.value:.2g}"
    return f"{estimate.value:.3g}{half}"


def _drop(paired: Paired) -> str:
    drop = paired.drop()
    return "undefined" if drop is None else f"{drop.value:.2%}"


def _bound(paired: Paired) -> str:
    drop = paired.drop()
    return "undefined" if drop is None else f"<= {drop.upper:.2%}"


DRIVING: Mapping[str, Callable[[SliceOutcome], str]] = {
    "success": lambda outcome: share(outcome.success_rate),
    "collision": lambda outcome: share(outcome.collision_rate),
    "needless, m/s": lambda outcome: number(outcome.needless),
    "reward": lambda outcome: number(outcome.reward),
}
PAIRED: Mapping[str, Callable[[Paired], str]] = {
    "drop": _drop,
    "  95 % bound": _bound,
    "losses : wins": lambda paired: f"{paired.losses} : {paired.wins}",
    "McNemar p": lambda paired: f"{paired.mcnemar():.2g}",
}
STANDING: Mapping[str, Callable[[Standing], str]] = {
    "points lost": lambda one: f"{100 * one.loss.value:.2f} (<= {100 * one.loss.upper:.2f})",
    "margin": lambda one: f"{one.noninferiority.value} ({100 * one.margin:g})",
    "could see (80 %)": lambda one: _points(one.contest.detectable),
    "collides : float": lambda one: _collisions(one.contest.safety),
    "p of collisions": lambda one: _p(one.contest.safety),
}
"""A candidate against the float policy; bounds are one-sided at 95 %."""
PAIRS: Sequence[Callable[[Contest], str]] = (
    lambda pair: f"{pair.success.losses} : {pair.success.wins}",
    lambda pair: _p(pair.success),
    lambda pair: NOTHING if pair.adjusted is None else f"{pair.adjusted:.2g}",
    lambda pair: NOTHING if pair.safety is None else f"{pair.safety.wins} : {pair.safety.losses}",
    lambda pair: _p(pair.safety),
    lambda pair: _points(pair.detectable),
)


def _points(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.2f}"


def _collisions(safety: Paired | None) -> str:
    return "unknown" if safety is None else f"{safety.losses} : {safety.wins}"


def _p(paired: Paired | None) -> str:
    return "unknown" if paired is None else f"{paired.mcnemar():.2g}"


FRAMES: Mapping[str, Callable[[Closeness], str]] = {
    "held-out frames": lambda closeness: str(closeness.n),
    "  action agreement": lambda closeness: share(closeness.agreement),
    "  same half of range": lambda closeness: (
        NOTHING if closeness.half_agreement is None else f"{closeness.half_agreement.value:.2%}"
    ),
    "  mean error": lambda closeness: f"{closeness.mae:.4g}",
    "  largest error": lambda closeness: f"{closeness.max_error:.3g}",
}


def _frame_figure(evaluation: Evaluation, figure: Callable[[Closeness], str]) -> str:
    return NOTHING if evaluation.open_loop is None else figure(evaluation.open_loop.overall)


def _agreement_and_error(closeness: Closeness | None) -> str:
    return NOTHING if closeness is None else f"{closeness.agreement.value:.2%} / {closeness.mae:.4f}"


def _bytes(assessment: Assessment | None) -> str:
    return NOTHING if assessment is None else " + ".join(f"{size:,}" for size in assessment.sizes.values())


def _limit(criterion: Criterion) -> str:
    sign = "<=" if criterion.direction == "at most" else ">="
    return f"{sign} {quantity(criterion.limit, criterion.unit)}"


def _style(criterion: Criterion) -> str:
    return STYLES[criterion.outcome]


def _outcome(criterion: Criterion) -> Text:
    return Text(f"{criterion.outcome.value.upper()}{_value(criterion)}", style=_style(criterion))


def _value(criterion: Criterion) -> str:
    """Without its unit, which stands beside the limit."""
    if criterion.value is None:
        return ""
    if criterion.unit in ("share", "bytes"):
        return f" {quantity(criterion.value, criterion.unit).split()[0]}"
    return f" {criterion.value:.4g}"
