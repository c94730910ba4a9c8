"""Why candidates err, as pictures and tables: the figures of their anatomies, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from quant.anatomy import Anatomy, Effect, Source, WorstFrame
from quant.anatomy.anatomy import TensorFacts
from quant.observation.contract import Contract
from quant.report import svg
from quant.report.captions import joined, peers
from quant.report.explanation import saw
from quant.report.figures import FOOT, LEFT, LETTER, RIGHT, TOP, WIDTH
from quant.report.material import Interface
from quant.report.svg import Axis, Frame
from quant.report.tables import NOTHING, Cell, Table, row_of

NAMES = 128.0
"""Where the pictures' names of sources end."""
KINDS: Mapping[str, tuple[str, ...]] = {
    "inputs": ("input",),
    "weights": ("weights",),
    "activations": ("activations", "output"),
}
"""What sources are summed up as, with their kinds."""
MOST_CHANGE = 150.0
"""Percent; what changes by more is drawn at the edge, with its value."""
WORST = 3
"""Worst frames shown of each candidate."""


def unit(anatomies: Mapping[str, Anatomy]) -> str:
    """What costs are counted in."""
    spaces = {one.space for one in anatomies.values()}
    return "squared error of the action" if spaces == {"box"} else "divergence, nats"


def sources_of(anatomies: Mapping[str, Anatomy]) -> tuple[str, ...]:
    """Names of all sources, in the order of computation."""
    longest = sorted(anatomies.values(), key=lambda one: -len(one.sources))
    return tuple(dict.fromkeys(source.name for one in longest for source in one.sources))


def alone(series: Mapping[str, int], anatomies: Mapping[str, Anatomy]) -> str:
    """The cost of each source with everything else exact, one row a source, one mark a candidate.

    Args:
        series: index of each track among all series of the page.
        anatomies: by track.
    """
    costs = {t: {s.name: s.alone.overall.cost for s in one.sources} for t, one in anatomies.items()}
    return _rows("cost alone", unit(anatomies), series, costs, sources_of(anatomies), "{:.3g}")


def exact(series: Mapping[str, int], anatomies: Mapping[str, Anatomy]) -> str:
    """By how much the cost changes, in percent, if a source is made exact and everything else stays rounded."""
    changes = {t: {s.name: 100 * one.change(s.exact) for s in one.sources} for t, one in anatomies.items()}
    return _rows("change if exact", "% of the cost", series, changes, sources_of(anatomies), "{:+.3g} %", MOST_CHANGE)


def _rows(
    title: str,
    label: str,
    series: Mapping[str, int],
    values: Mapping[str, Mapping[str, float]],
    names: Sequence[str],
    form: str,
    most: float = math.inf,
) -> str:
    tall = 6.0 + 8.0 * len(values)
    height = TOP + FOOT + tall * len(names)
    found = [0.0, *(min(v, most) for own in values.values() for v in own.values())]
    x = Axis.around(found, NAMES, WIDTH - RIGHT, room=0.06)
    if min(found) == 0:
        x = Axis(0.0, x.high, x.start, x.end)
    parts = [Frame(WIDTH, height, x, Axis(0, 1, height - FOOT, TOP)).grid(label, title, y_ticks=())]
    zero, bottom = svg.number(x(0.0)), svg.number(height - FOOT)
    parts.append(svg.tag("path", d=f"M{zero} {TOP:g}V{bottom}", class_="rule"))
    for place, name in enumerate(names):
        top = TOP + tall * place
        parts.append(svg.tag("path", d=f"M{NAMES:g} {svg.number(top + tall)}H{WIDTH - RIGHT:g}", class_="grid"))
        parts.append(svg.text(NAMES - 6, top + tall / 2 + 4, name, text_anchor="end"))
        for at, (track, own) in enumerate((track, own) for track, own in values.items() if name in own):
            y, index = top + 7 + 8.0 * at, series[track]
            value = form.format(own[name])
            # What is cut short leaves room for its value.
            end = x(own[name]) - (LETTER * len(value) + 18 if own[name] > most else 0)
            parts.append(svg.line([(x(0.0), y), (end, y)], stroke_width=2, class_=svg.look(index)))
            parts.append(svg.marker(index, x(own[name]), y, 3.2, f"{track}, {name}: {value}"))
            if own[name] > most:
                parts.append(svg.text(x(own[name]) - 6, y + 3.5, f"{value} →", text_anchor="end"))
    return svg.picture(WIDTH, height, f"{title} of every source of error", "".join(parts))


def alone_words(anatomies: Mapping[str, Anatomy]) -> str:
    """The largest source of each candidate."""
    largest = [(t, max(one.sources, key=lambda source: source.share)) for t, one in anatomies.items()]
    words = "; ".join(f"{t.upper()}: {source.name}, {source.share:.0%} of all" for t, source in largest)
    return f"Each rounding switched on alone, all else exact: what it costs by itself. Largest: {words}."


def exact_words(anatomies: Mapping[str, Anatomy]) -> str:
    """Where each candidate would gain most."""
    best = [(t, min(one.sources, key=lambda s: one.change(s.exact)), one) for t, one in anatomies.items()]
    words = "; ".join(f"{t.upper()}: {source.name} ({one.change(source.exact):+.0%})" for t, source, one in best)
    return (
        "Each rounding taken away, all else as it is. To the left: what there is to gain; to the right: this one makes "
        f"up for others. Most to gain: {words}."
    )


def by_peers(anatomy: Anatomy, top: float) -> str:
    """Costs alone by kind of source, stacked, for each number of peers; a diamond is the measured cost.

    Args:
        anatomy: of one candidate.
        top: the largest cost shown, the same for all candidates; from :func:`highest`.
    """
    height = 220.0
    counts = [k for k, effect in enumerate(anatomy.measured.by_peers) if effect is not None]
    x = Axis(-0.6, max(counts) + 0.6, LEFT, WIDTH - RIGHT)
    y = Axis.around([top], height - FOOT, TOP, zero=True, room=0.08)
    frame = Frame(WIDTH, height, x, y)
    parts = [frame.grid("peers present", f"{anatomy.track.upper()}: cost", [(k, str(k)) for k in counts])]
    wide = (x.end - x.start) / (len(counts) + 0.5) * 0.62
    for count in counts:
        below = 0.0
        for index, (kind, cost) in enumerate(_costs(anatomy, count).items()):
            upper, lower = y(below + cost), y(below)
            below += cost
            words = svg.tag("title", f"{peers(count)}, {kind}: {cost:.3g}")
            box = {"x": x(count) - wide / 2, "y": upper, "width": wide, "height": max(lower - upper, 0.2)}
            parts.append(svg.tag("rect", words, **box, class_=f"s{index}"))
        effect = anatomy.measured.by_peers[count]
        if effect is not None:
            words = f"{peers(count)}: measured cost {effect.cost:.3g}, {effect.n} frames"
            parts.append(svg.tag("g", svg.marker(3, x(count), y(effect.cost), 3.4, words), class_="ink"))
    title = f"cost of each kind of rounding by number of peers, {anatomy.track}"
    return svg.picture(WIDTH, height, title, "".join(parts))


def _costs(anatomy: Anatomy, count: int) -> dict[str, float]:
    effects = [(source.kind, source.alone.by_peers[count]) for source in anatomy.sources]
    return {
        name: sum(effect.cost for kind, effect in effects if effect is not None and kind in kinds)
        for name, kinds in KINDS.items()
    }


def highest(anatomies: Mapping[str, Anatomy]) -> float:
    """The largest stack or measured cost of all candidates and numbers of peers."""
    found = [0.0]
    for one in anatomies.values():
        for count, effect in enumerate(one.measured.by_peers):
            if effect is not None:
                found += [effect.cost, sum(_costs(one, count).values())]
    return max(found)


def by_peers_words(anatomy: Anatomy) -> str:
    """With how many peers a candidate costs most, and what that is made of."""
    effects = [(effect.cost, -k) for k, effect in enumerate(anatomy.measured.by_peers) if effect is not None]
    cost, count = max(effects)
    own = _costs(anatomy, -count)
    total = sum(own.values())
    shares = joined([f"{kind} {one / total:.0%}" for kind, one in own.items()]) if total else "nothing"
    return f"{anatomy.track.upper()} costs most with {peers(-count)}: {cost:.2g} measured; alone: {shares}."


def table(anatomy: Anatomy) -> Table:
    """Every source and group of a candidate with what it does."""
    flips = anatomy.space == "discrete"
    rows = [
        row_of(
            source.name,
            _error(source.alone.overall, flips),
            f"{source.alone.overall.cost:.2e}",
            f"{source.share:.1%}",
            f"{anatomy.change(source.exact):+.1%}",
            f"{max(source.alone.overall.bias, key=abs):+.1e}",
            f"{source.alone.overall.spread:.1e}",
            NOTHING if source.tensor is None else f"{source.tensor.cut_off:.2%}",
        )
        for source in anatomy.sources
    ]
    for group in anatomy.groups:
        overall = group.alone.overall
        figures = _error(overall, flips), f"{overall.cost:.2e}", NOTHING, f"{anatomy.change(group.exact):+.1%}"
        rows.append(row_of(f"together: {group.name}", *figures, NOTHING, NOTHING, NOTHING))
    head = "other action, alone" if flips else "mean error, alone"
    columns = ("source", head, "cost, alone", "share", "cost if exact", "bias", "spread", "cut off")
    return Table(columns, tuple(rows), 1, True, title=f"{anatomy.track.upper()}: every rounding")


def _error(effect: Effect, flips: bool) -> str:
    return f"{effect.disagreement:.2%}" if flips else f"{effect.mae:.2e}"


def worst(anatomies: Mapping[str, Anatomy], names: Sequence[str]) -> Table:
    """The frames on which each candidate is farthest from the float policy.

    Args:
        anatomies: by track.
        names: of a Discrete's actions; empty for a Box.
    """
    rows = [
        row_of(
            track.upper(),
            Cell(frame.parts_at, note=f"largest alone: {frame.largest}"),
            ", ".join(frame.cut_off) or "nothing",
            frame.origin or NOTHING,
            f"{frame.row:,}",
            str(frame.peers),
            _decision(frame.reference, names),
            _decision(frame.candidate, names),
            f"{frame.error:.3g}",
        )
        for track, one in anatomies.items()
        for frame in one.worst[:WORST]
    ]
    error = "error of the logits" if names else "error"
    columns = ("candidate", "parts at", "beyond its range", "origin", "row", "peers", "float", "candidate's", error)
    return Table(columns, tuple(rows), 4, True, title="The worst frames")


def worst_inputs(anatomies: Mapping[str, Anatomy], contract: Contract) -> Table:
    """What the policy sees in the worst frame of each candidate."""
    rows = []
    for track, one in anatomies.items():
        for frame in one.worst[:1]:
            rows += _inputs(track, frame, contract)
    return Table(("frame", "features"), tuple(rows), 2, title="What the policy saw in the worst frame")


def _inputs(track: str, frame: WorstFrame, contract: Contract) -> list[tuple[Cell, ...]]:
    ego, *peers = saw(frame, contract)
    made = [row_of(f"{track.upper()}, row {frame.row:,}: ego", ego)]
    return made + [row_of(f"peer {k}", peer) for k, peer in enumerate(peers, start=1)]


def _decision(values: Sequence[float], names: Sequence[str]) -> str:
    return names[int(np.argmax(values))] if names else _numbers(values)


def _numbers(values: Sequence[float]) -> str:
    return "  ".join(f"{value:.3f}" for value in values)


def tensors(anatomy: Anatomy) -> Table:
    """Range and use of every quantized tensor of a candidate."""
    rows = []
    for source in anatomy.sources:
        if source.tensor is not None:
            own = source.tensor
            used = sum(code > 0 for code in own.codes)
            span = "by feature" if own.columns else f"{own.low:.4g} to {own.high:.4g}"
            shares = f"{own.at_low:.2%}", f"{own.at_high:.2%}", f"{own.cut_off:.2%}", f"{own.beyond:.1%}"
            rows.append(row_of(source.name, span, *shares, f"{used:,} of {len(own.codes):,}"))
    columns = ("tensor", "range", "at the first code", "at the last", "cut off", "farthest beyond", "codes used")
    return Table(columns, tuple(rows), 1, True, title=f"{anatomy.track.upper()}: ranges and clipping")


def hidden(anatomy: Anatomy) -> tuple[tuple[Interface, Source], ...]:
    """The codes of the tensors within the sub-models, which no interface shows."""
    return tuple(
        (_interface(source.name, source.tensor), source)
        for source in anatomy.sources
        if source.kind == "activations" and source.tensor is not None
    )


def _interface(name: str, tensor: TensorFacts) -> Interface:
    return Interface(name, np.array(tensor.codes, np.int64), -len(tensor.codes) // 2, (tensor.low, tensor.high), None)
