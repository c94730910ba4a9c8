"""What a stress test found, as rich renderables and as rows for the page. Nothing here prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Group, RenderableType

from quant.evaluation.stress.found import BEYOND, CORNERS, SEARCHED, SPREAD, SWEPT
from quant.evaluation.stress.results import Stress, Tally, TrackStress, frame_json
from quant.observation.contract import Column
from quant.report.layout import add_row, empty_table, line

FIGURES: Mapping[str, Callable[[Tally], str]] = {
    "frames": lambda tally: f"{tally.frames:,}",
    "missed : false": lambda tally: f"{tally.missed} : {tally.false}",
    "  float not settled": lambda tally: f"{tally.missed_unsettled} : {tally.false_unsettled}",
    "saturated inputs": lambda tally: f"{tally.saturated / max(tally.frames, 1):.2%}",
    "largest difference": lambda tally: f"{tally.worst:.3f}",
}
"""Of all frames within the bounds."""
GROUPS: Mapping[str, str] = {
    SPREAD: "spread over the range",
    CORNERS: "at the ends of the range",
    SWEPT: "recorded, one feature swept",
    SEARCHED: "the search's last generation",
    BEYOND: "just beyond the bounds",
}


def stress_table(stress: Stress) -> Group:
    """Every candidate over the declared range, and the worst that was found of it."""
    rows = stress_rows(stress)
    table = empty_table(f"Stress on {stress.frames:,} frames over the range")
    for place, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if place else "left", no_wrap=place == 0)
    for row in rows[1:]:
        add_row(table, *row)
    parts: list[RenderableType] = [table]
    parts += [line(sentence) for sentence in stress_sentences(stress)]
    return Group(*parts)


def stress_rows(stress: Stress) -> list[tuple[str, ...]]:
    """The table's head and its rows: what was counted within the bounds, and missed and false actions by group."""
    tracks = list(stress.tracks.values())
    rows = [("", *(one.track.upper() for one in tracks))]
    rows += [(name, *(show(one.within) for one in tracks)) for name, show in FIGURES.items()]
    for group, words in GROUPS.items():
        rows += [(f"  {words}", *(_in_group(one, group) for one in tracks))]
    return rows


def _in_group(one: TrackStress, group: str) -> str:
    tally = one.groups.get(group, Tally())
    return f"{tally.missed} : {tally.false}, {tally.worst:.3f}" if tally.frames else "none"


def stress_sentences(stress: Stress, *, worst: bool = True) -> list[str]:
    """What the figures are, how much of the range is out of any int8's reach, and the worst frame of each candidate."""
    unsettled = stress.unsettled
    sentences = [
        "missed : false actions, where float stays on its side when every feature moves by a step of an int8; the "
        "difference as a share of the range",
        f"float is not settled on {unsettled.share:.1%} of {unsettled.on_a_side:,} frames over the range",
    ]
    for track, one in stress.tracks.items():
        if one.cut:
            sentences.append(f"{track} does not represent the whole declared range of {', '.join(one.cut)}")
        words = worst_words(stress, track)
        if words and worst:
            sentences.append(words)
    if stress.undeclared:
        names = ", ".join(stress.undeclared)
        sentences.append(f"bounds that nobody declared, and that end with what was recorded and a margin: {names}")
    return sentences


def worst_words(stress: Stress, track: str) -> str:
    """The worst frame of a candidate in physical values; empty where none was kept."""
    frame = frame_json(stress.contract, stress.worst[track])
    if frame is None:
        return ""
    ego = _values(stress.contract.ego, list(frame["ego"].values()))
    of_peers = [_values(stress.contract.peers, list(peer.values())) for peer in frame["of_peers"][:1]]
    first = f"; the first of {frame['peers']} peers: {of_peers[0]}" if of_peers else "; no peers"
    return (
        f"{track} at its worst ({frame['group']}): float {_listed(frame['float'])}, {track} "
        f"{_listed(frame['candidate'])}; ego: {ego}{first}"
    )


def _values(columns: Sequence[Column], values: Sequence[float]) -> str:
    named = (
        f"{one.name} {one.physical(value)}" for one, value in zip(columns, values, strict=True) if one.copy_of is None
    )
    return ", ".join(named)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
