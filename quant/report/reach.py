"""How far a verdict reaches, as pictures and tables: inputs covered, drives left out, the worst that was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from quant.evaluation.evaluation import FLOAT, Evaluation
from quant.evaluation.open_loop import Closeness
from quant.evaluation.stress.results import Stress
from quant.evaluation.unseen import Unseen
from quant.observation.coverage import Coverage, Ends, physical_ends, physical_values
from quant.policy.policy import Discrete, Policy
from quant.report import svg
from quant.report.captions import joined
from quant.report.figures import FOOT, LEFT, RIGHT, TOP, WIDTH
from quant.report.stress import GROUPS, stress_rows
from quant.report.svg import Axis, Frame
from quant.report.sweeping import Sweep
from quant.report.tables import NOTHING, Cell, Table, row_of

NAMES = 144.0
"""Where the names of columns and of tracks end."""
BEYOND = 0.06
"""Room on either side of what is declared, as a share of its width: what goes further ends there."""
LANE, LABEL = 5.0, 13.0
"""Height of a candidate's line, and of the values at both ends."""
RECORDED = 8.0
"""Height of the bar of what was recorded."""
CROSS = "\u00d7"
MOST = 24
"""Columns drawn: those that are cut off before others."""
PARTS = ((3, "recorded"),)
"""What else stands in the picture, for its legend."""


def columns_shown(columns: Sequence[Coverage]) -> list[Coverage]:
    """The newest frame's, and of older ones those that something is cut off of; the most important where many."""
    shown = [one for one in columns if one.lag == 0 or one.short or any(one.saturated.values())]
    if len(shown) <= MOST:
        return shown
    first = sorted(shown, key=lambda one: not (one.short or any(one.saturated.values())))[:MOST]
    return [one for one in shown if one in first]


def coverage(title: str, columns: Sequence[Coverage], series: Mapping[str, int]) -> str:
    """For each column what is declared as a frame, what was recorded within it, and what each candidate represents.

    Args:
        title: what the columns are of.
        columns: to be drawn, at least one.
        series: index of each track among all series of the page.
    """
    tall = RECORDED + LANE * len(series) + LABEL + 8
    height = TOP + tall * len(columns)
    parts = [svg.text(2, 11, title, class_="label")]
    for place, one in enumerate(columns):
        parts.append(_lanes(one, series, TOP + tall * place))
    words = f"what was recorded, is declared and is represented of the {title}"
    return svg.picture(WIDTH, height, words, "".join(parts))


def _lanes(one: Coverage, series: Mapping[str, int], top: float) -> str:
    low, high = _declared(one)
    room = BEYOND * (high - low)
    x = Axis(low - room, high + room, NAMES, WIDTH - 4)
    inside = RECORDED + LANE * len(series) + 3
    frame = {"x": x(low), "y": top, "width": x(high) - x(low), "height": inside}
    declared = svg.tag("title", f"{one.name}: declared {physical_ends(one.column, (low, high))}")
    parts = [svg.tag("rect", declared, **frame, class_="frame", fill="none")]
    parts.append(svg.text(NAMES - 6, top + inside / 2 + 4, _short_name(one), text_anchor="end"))
    if one.recorded is not None:
        left, right = (x(end) for end in one.recorded)
        words = svg.tag("title", f"{one.name}: recorded {physical_ends(one.column, one.recorded)}")
        box = {"x": left, "y": top + 1.5, "width": max(right - left, 1.0), "height": RECORDED - 2}
        parts.append(svg.tag("rect", words, **box, class_="s3"))
    for lane, (track, index) in enumerate((t, i) for t, i in series.items() if t in one.represented):
        y = top + RECORDED + LANE * (lane + 0.5) + 1
        parts.append(_represented(one, track, index, x, y))
    under = top + inside + 10
    unit = f" {one.column.unit}" if one.column.unit and one.column.scale is not None else ""
    ends = one.column.physical(low).removesuffix(unit), one.column.physical(high)
    parts.append(svg.text(x(low), under, ends[0], class_="label"))
    parts.append(svg.text(x(high), under, ends[1], text_anchor="end", class_="label"))
    return "".join(parts)


def _short_name(one: Coverage) -> str:
    """Whose it is stands above the picture."""
    return one.column.name if one.lag == 0 else f"{one.column.name}, {one.lag} back"


def _represented(one: Coverage, track: str, index: int, x: Axis, y: float) -> str:
    """A line over what the codes stand for; what is declared and beyond it is crossed out."""
    low, high = _declared(one)
    least, most = one.represented[track]
    words = f"{track}, {one.name}: represents {physical_ends(one.column, (least, most))}"
    parts = [svg.line([(x(least), y), (x(most), y)], stroke_width=1.8, class_=svg.look(index))]
    parts.append(svg.marker(index, x(most), y, 2.2, words))
    if track in one.short:
        gaps = [(x(low), x(min(least, high))), (x(max(most, low)), x(high))]
        for left, right in gaps:
            if right - left > 0.5:
                path = f"M{svg.number(left)} {svg.number(y)}H{svg.number(right)}"
                parts.append(svg.tag("path", d=path, class_="crash"))
                parts.append(svg.text((left + right) / 2, y + 4, CROSS, text_anchor="middle", class_="cut"))
    return "".join(parts)


def _declared(one: Coverage) -> Ends:
    low, high = one.column.low, one.column.high
    assert low is not None and high is not None
    return low, high


def coverage_words(columns: Sequence[Coverage]) -> str:
    """What of a group of columns no candidate can represent, and which was recorded least of."""
    cuts = [
        f"{t.upper()} represents {one.name} {physical_ends(one.column, one.represented[t])} only"
        for one in columns
        for t in one.short
    ]
    shares = [(_share(one), one) for one in columns if one.recorded is not None]
    words = f"{'; '.join(cuts)}. " if cuts else "Every candidate represents all that is declared. "
    if shares:
        share, least = min(shares, key=lambda pair: pair[0])
        words += f"Least recorded: {least.name}, over {share:.0%} of its range."
    return words.strip()


def _share(one: Coverage) -> float:
    """Of the declared range that was recorded."""
    low, high = _declared(one)
    if one.recorded is None or high <= low:
        return 0.0
    return max(min(one.recorded[1], high) - max(one.recorded[0], low), 0.0) / (high - low)


def coverage_table(columns: Sequence[Coverage]) -> Table:
    """Every column: recorded, declared and by whom, and what each candidate represents and cuts off."""
    tracks = list(columns[0].represented) if columns else []
    rows = []
    for one in columns:
        low, high = _declared(one)
        origins = ", ".join(dict.fromkeys((one.column.origin("low"), one.column.origin("high"))))
        cells = [_cell(one, track) for track in tracks]
        declared = Cell(physical_ends(one.column, (low, high)), note=f"by: {origins}")
        rows.append(row_of(one.name, physical_ends(one.column, one.recorded), declared, *cells))
    return Table(("column", "recorded", "declared", *(t.upper() for t in tracks)), tuple(rows), 1, True)


def _cell(one: Coverage, track: str) -> Cell:
    cut = one.saturated[track]
    note = f"cuts off {cut:.2%} of what was seen" if cut else ""
    if track in one.short or cut:
        return Cell(physical_ends(one.column, one.represented[track]), "bad" if track in one.short else "", note)
    return Cell("all of it")


def trusted(columns: Sequence[Coverage]) -> Table | None:
    """Up to where each column is trusted whose bounds nobody declared; None where all are declared."""
    found = [one for one in columns if not one.column.declared and one.lag == 0]
    if not found:
        return None
    rows = (
        row_of(one.name, physical_ends(one.column, one.trusted), physical_ends(one.column, one.recorded))
        for one in found
    )
    notes = ("Declare them in observation.toml, or record drives that go further.",)
    return Table(("column", "trusted up to", "recorded"), tuple(rows), 1, True, notes, "Trusted up to")


UNSEEN: Mapping[str, Callable[[Closeness], str]] = {
    "same action": lambda one: f"{one.agreement.value:.2%}",
    "mean error": lambda one: f"{one.mae:.4g}",
    "largest error": lambda one: f"{one.max_error:.3g}",
}


def left_out(evaluations: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """Candidates that were also made without a drive, by track."""
    return {t: one for t, one in evaluations.items() if t != FLOAT and one.unseen and one.open_loop is not None}


def unseen(evaluations: Mapping[str, Evaluation]) -> Table:
    """Each candidate on held-out frames of the drives it was made of, and on each drive it was made without."""
    found = left_out(evaluations)
    opened = [one.open_loop for one in found.values() if one.open_loop is not None]
    rows: list[tuple[Cell, ...]] = []
    blank = [Cell("")] * len(found)
    rows.append((Cell(f"seen drives, held-out frames, n = {opened[0].overall.n:,}", "group"), *blank))
    rows += [row_of(name, *(show(one.overall) for one in opened)) for name, show in UNSEEN.items()]
    for drive in _drives(found):
        own = [_of(one, drive) for one in found.values()]
        n = next(one.closeness.n for one in own if one is not None)
        rows.append((Cell(f"{drive}, made without it, n = {n:,}", "group"), *blank))
        each = [None if one is None else one.closeness for one in own]
        rows += [row_of(n, *(NOTHING if one is None else show(one) for one in each)) for n, show in UNSEEN.items()]
        ratios = [
            NOTHING if one is None or not seen.overall.mae else f"{one.closeness.mae / seen.overall.mae:.2f} times"
            for one, seen in zip(own, opened, strict=True)
        ]
        rows.append(row_of("mean error, to the seen one", *ratios))
    return Table(("", *(t.upper() for t in found)), tuple(rows), title="Seen and unseen drives in figures")


def _drives(found: Mapping[str, Evaluation]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.drive for evaluation in found.values() for one in evaluation.unseen))


def _of(evaluation: Evaluation, drive: str) -> Unseen | None:
    return next((one for one in evaluation.unseen if one.drive == drive), None)


def unseen_picture(
    label: str,
    evaluations: Mapping[str, Evaluation],
    series: Mapping[str, int],
    figure: Callable[[Closeness], float] = lambda one: one.mae,
) -> str:
    """A figure of each candidate: an upright stroke on seen drives, its shape on each drive it was made without.

    Args:
        label: what the figure is.
        evaluations: by track.
        series: index of each track among all series of the page.
        figure: less is better; by default the mean error.
    """
    found = left_out(evaluations)
    drives = _drives(found)
    lane = 14.0
    tall = 10 + lane * len(drives)
    height = TOP + FOOT + tall * len(found)
    values = {t: [figure(one.closeness) for one in e.unseen] for t, e in found.items()}
    seen = {t: figure(e.open_loop.overall) for t, e in found.items() if e.open_loop is not None}
    x = Axis.around([0.0, *seen.values(), *(v for own in values.values() for v in own)], NAMES, WIDTH - 30, room=0.06)
    x = Axis(0.0, x.high, x.start, x.end)
    frame = Frame(WIDTH, height, x, Axis(0, 1, height - FOOT, TOP))
    parts = [frame.grid(label, "drives a candidate was made without", y_ticks=())]
    for place, (track, evaluation) in enumerate(found.items()):
        top, index = TOP + tall * place, series[track]
        parts.append(svg.text(NAMES - 6, top + tall / 2 + 4, track.upper(), text_anchor="end"))
        parts.append(svg.tag("path", d=f"M{NAMES:g} {svg.number(top + tall)}H{svg.number(x.end)}", class_="grid"))
        for row, drive in enumerate(drives):
            one = _of(evaluation, drive)
            if one is None:
                continue
            y = top + 5 + lane * (row + 0.5)
            a, b = x(seen[track]), x(figure(one.closeness))
            parts.append(svg.line([(a, y), (b, y)], stroke_width=1.6, class_=svg.look(index)))
            parts.append(svg.line([(a, y - 5), (a, y + 5)], stroke_width=2.2, class_=svg.look(index)))
            words = f"{track}, {drive}: {figure(one.closeness):.4g}, seen {seen[track]:.4g}"
            parts.append(svg.marker(index, b, y, 4, words))
            parts.append(svg.text(max(a, b) + 8, y + 4, _letter(row), class_="label"))
    return svg.picture(WIDTH, height, f"{label} on seen and unseen drives", "".join(parts))


def _letter(place: int) -> str:
    return chr(ord("a") + place % 26)


def unseen_words(evaluations: Mapping[str, Evaluation]) -> str:
    """Which letter is which drive, and how much larger than the seen error the unseen one is at its largest."""
    worst = []
    for track, one in left_out(evaluations).items():
        seen = one.open_loop.overall.mae if one.open_loop is not None else 0.0
        most = max(one.unseen, key=lambda drive: drive.closeness.mae)
        if seen:
            worst.append(f"{track.upper()} {most.closeness.mae / seen:.2f} times on {most.drive}")
    words = f"{_letters(evaluations)} Largest, to the seen error: {joined(worst)}." if worst else _letters(evaluations)
    return words


def disagreement_words(evaluations: Mapping[str, Evaluation]) -> str:
    """On which drive each candidate decides otherwise most often."""
    worst = []
    for track, one in left_out(evaluations).items():
        most = max(one.unseen, key=lambda drive: 1 - drive.closeness.agreement.value)
        worst.append(f"{track.upper()} {1 - most.closeness.agreement.value:.2%} on {most.drive}")
    return f"{_letters(evaluations)} Most: {joined(worst)}."


def _letters(evaluations: Mapping[str, Evaluation]) -> str:
    drives = _drives(left_out(evaluations))
    letters = ", ".join(f"{_letter(place)}: {drive}" for place, drive in enumerate(drives))
    return f"Stroke: held-out frames of seen drives; shape: the drive left out ({letters})."


HEADS = {"  float not settled": "missed : false, where float is not settled"}
"""Rows of the terminal's table that need more words where they do not stand indented."""


def stress_table(stress: Stress) -> Table:
    """What was counted within the bounds, and missed and false actions with the largest difference, by group."""
    head, *rows = stress_rows(stress)
    by_group = len(rows) - len(GROUPS)
    made = [row_of(HEADS.get(row[0], row[0]).strip(), *row[1:]) for row in rows]
    made.insert(
        by_group, row_of(Cell("by group: missed : false, largest difference", "group"), *[""] * len(stress.tracks))
    )
    return Table(head, tuple(made), title="Over the declared range")


def worst_table(stress: Stress) -> Table:
    """The worst frame of each candidate, and what the policy saw in it."""
    rows = []
    for track, kept in stress.worst.items():
        if not len(kept):
            continue
        frame, contract = kept.observations, stress.contract
        rows.append(
            row_of(
                track.upper(),
                GROUPS[str(kept.group[0])],
                _listed(kept.reference[0]),
                _listed(kept.candidate[0]),
                f"{float(kept.deviation[0]):.3f}",
                str(int(frame.counts[0])),
                Cell(
                    physical_values(contract.ego, contract.names(peers=False), frame.ego[0].tolist()),
                    note="\n".join(
                        f"peer {k}: {physical_values(contract.peers, contract.names(peers=True), peer.tolist())}"
                        for k, peer in enumerate(frame.peers[0][frame.mask[0]], start=1)
                    ),
                ),
            )
        )
    columns = ("candidate", "found", "float", "candidate's", "difference", "peers", "ego, and each peer")
    return Table(columns, tuple(rows), 7, title="The worst frame of each candidate")


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def sweep_picture(found: Sweep, series: Mapping[str, int], recorded: Ends | None, output: str) -> str:
    """Float and every candidate over the range of one feature of the worst frame; the shaded part was recorded.

    Args:
        found: what was swept.
        series: index of each track among all series of the page.
        recorded: least and most value of the feature that was seen.
        output: name of what is drawn, from :func:`output_name`.
    """
    height = 230.0
    scale = 1.0 if found.column.scale is None else found.column.scale
    low, high = float(found.values[0]) * scale, float(found.values[-1]) * scale
    x = Axis(low, high, LEFT, WIDTH - RIGHT)
    y = Axis.around([float(v) for own in found.outputs.values() for v in own], height - FOOT, TOP, room=0.06)
    unit = f", {found.column.unit}" if found.column.unit and found.column.scale is not None else ""
    parts = []
    if recorded is not None:
        left, right = (x(min(max(end * scale, low), high)) for end in recorded)
        words = svg.tag("title", f"recorded: {physical_ends(found.column, recorded)}")
        box = {"x": left, "y": y.end, "width": max(right - left, 1.0), "height": y.start - y.end}
        parts.append(svg.tag("rect", words, **box, class_="band"))
    parts.append(Frame(WIDTH, height, x, y).grid(f"{found.name}{unit}", output))
    at = svg.number(x(found.at * scale))
    parts.append(svg.tag("path", d=f"M{at} {svg.number(y.end)}V{svg.number(y.start)}", class_="rule"))
    place = int(np.argmin(np.abs(found.values - found.at)))
    for track, values in found.outputs.items():
        index = series[track]
        points = [(x(float(v) * scale), y(float(one))) for v, one in zip(found.values, values, strict=True)]
        wide = 2.4 if track in (FLOAT, found.track) else 1.3
        parts.append(svg.line(points, stroke_width=wide, stroke_dasharray=svg.dash(index), class_=svg.look(index)))
        words = f"{track}, {found.name} {found.column.physical(found.at)}: {values[place]:.4g}"
        parts.append(svg.marker(index, *points[place], 3.5, words))
    title = f"{found.name} swept through the worst frame of {found.track}"
    return svg.picture(WIDTH, height, title, "".join(parts))


def output_name(policy: Policy, component: int, actions: Sequence[str]) -> str:
    """What is drawn of a decision."""
    space = policy.action_space
    if isinstance(space, Discrete):
        return f"logit of {actions[component] if actions else f'action {component}'}"
    return "action" if space.width == 1 else f"action, component {component}"


def sweep_words(found: Sweep, recorded: Ends | None) -> str:
    """Where the candidate is farthest from float, along the sweep and in the frame itself."""
    own, exact = found.outputs[found.track], found.outputs[FLOAT]
    place = int(np.argmin(np.abs(found.values - found.at)))
    apart = np.abs(own - exact)
    most = int(apart.argmax())
    within = "nothing like it was recorded"
    if recorded is not None:
        within = f"shaded: recorded, {physical_ends(found.column, recorded)}"
    return (
        f"{found.track.upper()}'s worst frame, {found.name} moved over its range, with what depends on it; {within}. "
        f"In the frame ({found.column.physical(found.at)}, dashed): float {exact[place]:.3g}, {found.track.upper()} "
        f"{own[place]:.3g}; farthest apart at {found.column.physical(float(found.values[most]))}, by {apart[most]:.3g}."
    )
