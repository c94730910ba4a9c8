"""The report's pictures: small inline SVGs about as wide as a phone, so that several stand side by side on a desk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.boards.report import STAGE_NAMES, TOTAL, DeviceReport, TrackReport
from quant.evaluation.open_loop import OpenLoop
from quant.evaluation.statistics import Estimate
from quant.report import svg
from quant.report.material import Curve, Interface
from quant.report.replay import Drive, Replay
from quant.report.svg import Axis, Frame
from quant.worlds.convoy import COMMANDS

WIDTH = 340.0
LEFT, RIGHT, TOP, FOOT = 50.0, 12.0, 22.0, 34.0
NAMES = 72.0
"""Where a column of tracks' names ends."""
LETTER = 7.2
"""Width of a capital letter, about."""
BESIDE = (
    *((9.0, 4.0, "start"), (-9.0, 4.0, "end"), (0.0, 18.0, "middle"), (0.0, -9.0, "middle")),
    *((9.0, 16.0, "start"), (-9.0, 16.0, "end"), (9.0, -8.0, "start"), (-9.0, -8.0, "end")),
    *((9.0, 28.0, "start"), (-9.0, 28.0, "end"), (9.0, 40.0, "start"), (-9.0, 40.0, "end")),
)
"""Where the name of a point may stand, from the best place on."""
CELLS = 48
"""Cells a side of the picture of action over action."""
BARS = 64
"""Bars of a histogram of codes."""
STAGES = tuple(stage for stage in STAGE_NAMES if stage != TOTAL)


def _frame(height: float, x: Axis, y: Axis) -> Frame:
    return Frame(WIDTH, height, x, y)


def _across(values: Sequence[float], **how: Any) -> Axis:
    return Axis.around(values, LEFT, WIDTH - RIGHT, **how)


def _up(height: float, values: Sequence[float], **how: Any) -> Axis:
    return Axis.around(values, height - FOOT, TOP, **how)


def forest(
    title: str,
    unit: str,
    rows: Sequence[tuple[str, Estimate]],
    *,
    reference: float | None = None,
    also: Sequence[float] = (),
) -> str:
    """Estimates with their intervals under one another.

    Args:
        title: what is estimated.
        unit: of the axis.
        rows: name and estimate; the first is the float policy's, or, where ``reference`` is given, a candidate's.
        reference: where a dashed line stands, as 0 for a difference.
        also: values the axis has to show besides, as another picture's, to be compared by eye.
    """
    first = 0 if reference is None else 1
    ends = [*also, *(end for _, one in rows for end in (one.low, one.value, one.high) if end is not None)]
    x = Axis.around([*ends, *([] if reference is None else [reference])], NAMES, WIDTH - RIGHT, room=0.08)
    height = TOP + FOOT + 24.0 * len(rows)
    frame = _frame(height, x, Axis(0, len(rows), height - FOOT, TOP))
    parts = [frame.grid(unit, title, y_ticks=())]
    at = x(rows[0][1].value if reference is None else reference)
    parts.append(svg.tag("path", d=f"M{svg.number(at)} {TOP}V{svg.number(height - FOOT)}", class_="rule"))
    for index, (name, one) in enumerate(rows):
        y = TOP + 24.0 * index + 12
        low, high = (one.value if end is None else end for end in (one.low, one.high))
        words = f"{name}: {one.value:.4g} ({low:.4g} to {high:.4g}) {unit}"
        bar = svg.line([(x(low), y), (x(high), y)], stroke_width=2, class_=svg.look(index + first))
        parts += [svg.text(NAMES - 6, y + 4, name.upper(), text_anchor="end"), bar]
        parts.append(svg.marker(index + first, x(one.value), y, 4.5, words))
    return svg.picture(WIDTH, height, f"{title}, {unit}", "".join(parts))


def pareto(
    title: str,
    x_label: str,
    y_label: str,
    points: Sequence[tuple[str, float, float]],
    *,
    level: tuple[str, float] | None = None,
) -> str:
    """Candidates by two figures of which less is better; a line joins those that no other beats in both.

    Args:
        title: for a screen reader.
        x_label, y_label: of the axes.
        points: name, x and y of each candidate, in the order of the tracks.
        level: a name and a y to compare with, as the float policy's.
    """
    height = 220.0
    x = _across([p[1] for p in points], room=0.25)
    y = _up(height, [*(p[2] for p in points), *([level[1]] if level else [])], zero=True, room=0.12)
    parts = [_frame(height, x, y).grid(x_label, y_label)]
    if level is not None:
        at = y(level[1])
        parts.append(svg.tag("path", d=f"M{LEFT} {svg.number(at)}H{svg.number(WIDTH - RIGHT)}", class_="rule"))
        parts.append(svg.text(WIDTH - RIGHT, at - 4, level[0], text_anchor="end"))
    front = [(x(a), y(b)) for a, b in front_of([p[1:] for p in points])]
    parts.append(svg.line(front, stroke_width=1.2, stroke_dasharray="4 3", class_="muted"))
    for index, (name, a, b) in enumerate(points, start=1):
        parts.append(svg.marker(index, x(a), y(b), 5, f"{name}: {a:.6g}, {b:.4g}"))
    return svg.picture(WIDTH, height, title, "".join(parts) + _names(points, x, y))


def _names(points: Sequence[tuple[str, float, float]], x: Axis, y: Axis) -> str:
    """Names beside the points, each where it lies neither on another name nor on a point, if there is such a place."""
    places = [(x(a), y(b)) for _, a, b in points]
    taken = [(left - 6, top - 6, left + 6, top + 6) for left, top in places]
    parts = []
    for (name, *_), (left, top) in zip(points, places, strict=True):
        wide = LETTER * len(name)
        spots = [(left + dx, top + dy, anchor) for dx, dy, anchor in BESIDE]
        boxes = [_box(at, up, anchor, wide) for at, up, anchor in spots]
        free = [k for k, box in enumerate(boxes) if _is_free(box, taken)]
        chosen = free[0] if free else 0
        at, up, anchor = spots[chosen]
        taken.append(boxes[chosen])
        parts.append(svg.text(at, up, name.upper(), text_anchor=anchor))
    return "".join(parts)


def _box(at: float, up: float, anchor: str, wide: float) -> tuple[float, float, float, float]:
    left = at - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
    return left, up - 9, left + wide, up + 2


def _is_free(box: tuple[float, float, float, float], taken: Sequence[tuple[float, float, float, float]]) -> bool:
    left, top, right, bottom = box
    apart = all(right <= a or c <= left or bottom <= b or d <= top for a, b, c, d in taken)
    return apart and left >= LEFT and right <= WIDTH


def front_of(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The points that no other beats in one figure without losing in the other, by the first figure; less is better."""
    kept: list[tuple[float, float]] = []
    for a, b in sorted(set(points)):
        if not kept or b < kept[-1][1]:
            kept.append((a, b))
    return tuple(kept)


def density(track: str, reference: NDArray[Any], actions: NDArray[Any], low: float, high: float) -> str:
    """A candidate's continuous action over the float policy's: the darker a cell, the more frames it holds."""
    name = f"{track.upper()} action"
    return _density(name, reference, actions, Axis(low, high, *_SIDE), Axis(low, high, *_UPRIGHT), diagonal=True)


def residual(
    track: str, reference: NDArray[Any], actions: NDArray[Any], low: float, high: float, most: float | None = None
) -> str:
    """How far a candidate's continuous action is from the float policy's, over the float policy's.

    ``most`` is the largest distance shown, the same for all candidates that are to be compared by eye.
    """
    apart = actions.astype(np.float64) - reference
    most = (float(np.abs(apart).max(initial=0.0)) if most is None else most) * 1.05 or high - low
    name = f"{track.upper()} action less float's"
    return _density(name, reference, apart, Axis(low, high, *_SIDE), Axis(-most, most, *_UPRIGHT), diagonal=False)


_TALL = 280.0
_SIDE, _UPRIGHT = (LEFT, WIDTH - RIGHT), (_TALL - FOOT, TOP)


def _density(name: str, across: NDArray[Any], up: NDArray[Any], x: Axis, y: Axis, *, diagonal: bool) -> str:
    counts, _, _ = np.histogram2d(across, up, bins=CELLS, range=((x.low, x.high), (y.low, y.high)))
    wide, tall = (x.end - x.start) / CELLS, (y.start - y.end) / CELLS
    most = math.log1p(counts.max())
    parts = [_frame(_TALL, x, y).grid("float action", name)]
    cells = []
    for column, row in np.argwhere(counts > 0).tolist():
        shade = 0.2 + 0.8 * math.log1p(counts[column, row]) / most
        box = {"x": x.start + column * wide, "y": y.start - (row + 1) * tall, "width": wide, "height": tall}
        words = svg.tag("title", f"{int(counts[column, row])} frames")
        cells.append(svg.tag("rect", words, **box, fill_opacity=f"{shade:.2f}"))
    parts.append(svg.tag("g", "".join(cells), class_="cell"))
    ends = [(x.start, y.start), (x.end, y.end)] if diagonal else [(x.start, y(0)), (x.end, y(0))]
    parts.append(svg.line(ends, stroke_width=0.8, class_="rule"))
    return svg.picture(WIDTH, _TALL, f"{name} over float action", "".join(parts))


def by_peers(title: str, figures: Mapping[str, Sequence[float]]) -> str:
    """A figure of each candidate over the number of peers present; a NaN is a count without frames."""
    height = 220.0
    counts = range(max(len(values) for values in figures.values()))
    x = Axis(-0.3, len(counts) - 0.7, LEFT, WIDTH - RIGHT)
    y = _up(height, [v for values in figures.values() for v in values], zero=True, room=0.08)
    parts = [_frame(height, x, y).grid("peers present", title, x_ticks=[(k, str(k)) for k in counts])]
    for index, (track, values) in enumerate(figures.items(), start=1):
        places = [(x(k), y(v)) for k, v in enumerate(values)]
        parts.append(svg.line(places, stroke_width=1.6, stroke_dasharray=svg.dash(index), class_=svg.look(index)))
        parts += [
            svg.marker(index, *place, 3.5, f"{track}, {k} peers: {value:.4g}")
            for k, (place, value) in enumerate(zip(places, values, strict=True))
            if math.isfinite(value)
        ]
    return svg.picture(WIDTH, height, f"{title} by number of peers", "".join(parts))


def error_by_peers(error: str, opened: Mapping[str, OpenLoop]) -> str:
    """Mean error of each candidate by number of peers present; ``error`` says of what."""
    figures = {t: [math.nan if one is None else one.mae for one in o.by_peers] for t, o in opened.items()}
    return by_peers(error, figures)


def disagreement_by_peers(opened: Mapping[str, OpenLoop]) -> str:
    """Share of frames with another action, in percent, by number of peers present."""
    figures = {
        t: [math.nan if one is None else 100 * (1 - one.agreement.value) for one in o.by_peers]
        for t, o in opened.items()
    }
    return by_peers("other action, %", figures)


def training(index: int, track: str, curve: Curve) -> str:
    """Training loss (dashed) and the simulated INT8 error (solid) over the steps, on a logarithmic axis."""
    height = 220.0
    x = _across([float(step) for step, _, _ in curve], zero=True, room=0.02)
    y = _up(height, [value for _, *values in curve for value in values], log=True)
    parts = [_frame(height, x, y).grid("optimizer step", f"{track.upper()}: loss and error")]
    loss = [(x(step), y(value)) for step, value, _ in curve]
    error = [(x(step), y(value)) for step, _, value in curve]
    parts.append(svg.line(loss, stroke_width=1.4, stroke_dasharray="5 3", class_="muted"))
    parts.append(svg.line(error, stroke_width=1.8, class_=svg.look(index)))
    parts += [
        svg.marker(index, px, py, 2.6, f"step {step}: simulated error {value:.4g}")
        for (px, py), (step, _, value) in zip(error, curve, strict=True)
    ]
    return svg.picture(WIDTH, height, f"training curve of {track}", "".join(parts))


def histogram(index: int, interface: Interface) -> str:
    """How often the codes of an interface occur, as shares on a square-root axis; the two ends stand out."""
    height = 120.0
    codes = interface.codes
    size = len(codes) // BARS
    # The ends have bars of their own: they are the codes that saturate.
    shares = codes / max(codes.sum(), 1)
    inner = shares.copy()
    inner[[0, -1]] = 0
    bars = inner.reshape(BARS, size).sum(axis=1)
    last = interface.first + len(codes) - 1
    x = Axis(interface.first, last, 40.0, WIDTH - 24)
    most = max(float(bars.max()), interface.at_lowest, interface.at_highest, 1e-9)
    y = Axis(0, math.sqrt(most) * 1.05, height - 20, 8.0)
    wide = (x.end - x.start) / BARS
    inside = [_bar(x.start + k * wide, wide - 0.6, y, share) for k, share in enumerate(bars.tolist()) if share > 0]
    parts = [svg.tag("g", "".join(inside), fill="currentColor", class_=svg.look(index))] if inside else []
    ends = []
    for share, left in ((interface.at_lowest, x.start - 10), (interface.at_highest, x.end + 3)):
        if share > 0:
            ends.append(_bar(left, 7.0, y, share))
    parts += [svg.tag("g", "".join(ends), fill="currentColor", class_="end")] if ends else []
    middle = svg.text((x.start + x.end) / 2, height - 6, "code", text_anchor="middle", class_="label")
    ticks = [svg.text(at, height - 6, str(v), text_anchor=a) for at, v, a in _ends(x, interface.first, last)]
    floor = svg.tag("path", d=f"M{x.start - 12} {y.start}H{x.end + 12}", class_="axis", fill="none")
    return svg.picture(
        WIDTH, height, f"histogram of the codes of {interface.name}", "".join([*parts, floor, *ticks, middle])
    )


def _ends(x: Axis, first: int, last: int) -> tuple[tuple[float, int, str], ...]:
    return (x.start - 12, first, "start"), (x.end + 12, last, "end")


def _bar(left: float, wide: float, y: Axis, share: float) -> str:
    top = min(y(math.sqrt(share)), y.start - 1)
    words = svg.tag("title", f"{share:.3%}")
    return svg.tag("rect", words, x=left, y=top, width=wide, height=y.start - top)


def board_times(device: DeviceReport, tracks: Sequence[str]) -> str:
    """A decision's time on a board over the number of peers: 99th percentile, and the maximum where it is apart.

    ``tracks`` are all of the run, in order; a board may have run only some of them.
    """
    height = 220.0
    own = {track: device.tracks[track].times for track in tracks if track in device.tracks}
    most = max(row.peers for rows in own.values() for row in rows)
    x = Axis(-0.3, most + 0.3, LEFT, WIDTH - RIGHT)
    y = _up(height, [row.total.maximum for rows in own.values() for row in rows], zero=True, room=0.08)
    ticks = [(k, str(k)) for k in range(most + 1)]
    parts = [_frame(height, x, y).grid("peers present", f"µs, {device.board.evidence}", ticks)]
    for track, rows in own.items():
        index = list(tracks).index(track) + 1
        places = [(x(row.peers), y(row.total.p99)) for row in rows]
        parts.append(svg.line(places, stroke_width=1.6, stroke_dasharray=svg.dash(index), class_=svg.look(index)))
        for row, place in zip(rows, places, strict=True):
            words = f"{track}, {row.peers} peers: p99 {row.total.p99:.1f}, maximum {row.total.maximum:.1f} µs"
            parts.append(svg.marker(index, *place, 3.5, words))
            spread = [place, (place[0], y(row.total.maximum))]
            parts.append(svg.line(spread, stroke_width=1, class_=svg.look(index)))
    return svg.picture(WIDTH, height, f"time of a decision on {device.board.name}", "".join(parts))


def longest_stages(device: DeviceReport) -> float:
    """The longest decision of all tracks and numbers of peers, as the sum of its stages' medians."""
    rows = [row for own in device.tracks.values() for row in own.times]
    return max(sum(row.stages[stage].median for stage in STAGES) for row in rows)


def board_stages(track: str, own: TrackReport, top: float) -> str:
    """Median time of each stage, stacked, by number of peers; what is tall enough carries its name.

    ``top`` is the longest time shown, the same for all tracks; from :func:`longest_stages`.
    """
    height = 220.0
    x = Axis(-0.6, len(own.times) - 0.4, LEFT, WIDTH - 56)
    y = _up(height, [top], zero=True, room=0.08)
    ticks = [(row.peers, str(row.peers)) for row in own.times]
    parts = [_frame(height, x, y).grid("peers present", f"{track.upper()}: µs by stage", ticks)]
    wide = (x.end - x.start) / len(own.times) * 0.66
    for row in own.times:
        below = 0.0
        for index, stage in enumerate(STAGES):
            time = row.stages[stage].median
            top, bottom = y(below + time), y(below)
            below += time
            words = svg.tag("title", f"{row.peers} peers, {stage}: {time:.1f} µs")
            box = {"x": x(row.peers) - wide / 2, "y": top, "width": wide, "height": max(bottom - top, 0.2)}
            parts.append(svg.tag("rect", words, **box, class_=f"s{index}"))
            if row is own.times[-1] and bottom - top > 11:
                parts.append(svg.text(x.end + 3, (top + bottom) / 2 + 4, stage))
    return svg.picture(WIDTH, height, f"time of the stages of a decision, {track}", "".join(parts))


REPLAY_CAPTIONS = (
    "Where each drives, seen from a point that moves on at the speed of the start. Thin: the other vehicles.",
    "Room to the vehicle ahead; at zero they touch.",
    "Speed of each, and thin that of the vehicle ahead.",
    "What each commands: the height of a band is how hard it brakes at least.",
)
"""What :func:`replay_pictures` shows."""


def replay_pictures(shown: Replay) -> tuple[str, ...]:
    """Four pictures of an episode over time: places, gap, speed and command of every track."""
    drives = list(shown.drives.items())
    speed = float(drives[0][1].speed[0])

    def moving(values: NDArray[np.float64], drive: Drive) -> NDArray[np.float64]:
        return values - speed * drive.time

    places = [(t, d, moving(d.ego, d)) for t, d in drives]
    longest = max((d for _, d in drives), key=lambda d: len(d.time))
    others = [moving(longest.others[:, k], longest) for k in range(longest.others.shape[1])]
    level = [0.0, *(-c for c in COMMANDS[1:])]
    commands = [(t, d, np.array([level[a] for a in d.action[:-1]] or [0.0])) for t, d in drives]
    return (
        _over_time(f"place, m (moving at {speed:.1f} m/s)", places, background=[(longest.time, o) for o in others]),
        _over_time("gap to the vehicle ahead, m", [(t, d, d.gap) for t, d in drives], least=0.0),
        _over_time(
            "speed, m/s (thin: vehicle ahead)",
            [(t, d, d.speed) for t, d in drives],
            background=[(longest.time, longest.leader)],
            least=0.0,
        ),
        _lanes("braking commanded", commands),
    )


def _over_time(
    title: str,
    series: Sequence[tuple[str, Drive, NDArray[np.float64]]],
    *,
    background: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]] = (),
    least: float | None = None,
) -> str:
    height = 200.0
    everything = np.concatenate([*(v for _, _, v in series), *(v for _, v in background)])
    shown = [float(v) for v in (np.nanmin(everything), np.nanmax(everything))]
    x = Axis(0, max(float(d.time[-1]) for _, d, _ in series), LEFT, WIDTH - RIGHT)
    y = _up(height, [*shown, *([] if least is None else [least])])
    parts = [_frame(height, x, y).grid("s", title)]
    for time, values in background:
        parts.append(svg.line(_thinned(x, y, time, values), stroke_width=0.9, class_="muted"))
    for index, (track, drive, values) in enumerate(series):
        places = _thinned(x, y, drive.time, values)
        parts.append(svg.line(places, stroke_width=1.8, stroke_dasharray=svg.dash(index), class_=svg.look(index)))
        parts.append(_ending(index, track, drive, *places[-1]))
    return svg.picture(WIDTH, height, title, "".join(parts))


def _thinned(x: Axis, y: Axis, time: NDArray[np.float64], values: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Every second moment, and the last: a fifth of a second is finer than the picture."""
    rows = sorted({*range(0, len(time), 2), len(time) - 1})
    return [(x(float(time[row])), y(float(values[row]))) for row in rows]


def _ending(index: int, track: str, drive: Drive, x: float, y: float) -> str:
    """The track's shape where its line ends; a collision is crossed out besides."""
    ended = "collision" if drive.collision else "no collision"
    words = f"{track}: {ended}, {'success' if drive.success else 'no success'}"
    mark = svg.marker(index, x - 3, y, 4, words)
    if not drive.collision:
        return mark
    r = 7.0
    cross = (f"M{svg.number(x - 3 - r)} {svg.number(y - r)}l{2 * r} {2 * r}", f"m0 {-2 * r}l{-2 * r} {2 * r}")
    return mark + svg.tag("path", d="".join(cross), class_="crash", fill="none")


def _lanes(title: str, series: Sequence[tuple[str, Drive, NDArray[np.float64]]]) -> str:
    """A lane for each track in which the height of the band is how hard it commands to brake at least."""
    lane = 34.0
    height = TOP + FOOT + lane * len(series)
    x = Axis(0, max(float(d.time[-1]) for _, d, _ in series), NAMES, WIDTH - RIGHT)
    frame = _frame(height, x, Axis(0, 1, height - FOOT, TOP))
    parts = [frame.grid("s", f"{title}: up to {-COMMANDS[-1]:g} m/s²", y_ticks=())]
    for index, (track, drive, values) in enumerate(series):
        floor = TOP + lane * (index + 1) - 3
        parts.append(svg.text(NAMES - 6, floor - 8, track.upper(), text_anchor="end"))
        parts.append(svg.tag("path", d=f"M{NAMES:g} {svg.number(floor)}H{svg.number(x.end)}", class_="grid"))
        changes = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
        for begin, end in pairwise(changes):
            tall = float(values[begin]) / -COMMANDS[-1] * (lane - 8)
            if tall > 0:
                left = x(float(drive.time[begin]))
                wide = max(x(float(drive.time[end])) - left, 0.6)
                box = {"x": left, "y": floor - tall, "width": wide, "height": tall}
                words = svg.tag("title", f"{track}, {drive.time[begin]:.1f} s: {values[begin]:g} m/s²")
                parts.append(svg.tag("rect", words, **box, fill="currentColor", class_=svg.look(index)))
        if drive.collision:
            parts.append(_ending(index, track, drive, x(float(drive.time[-1])), floor - 8))
    return svg.picture(WIDTH, height, title, "".join(parts))
