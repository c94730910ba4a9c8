"""The convoy world and SUMO side by side, as rich renderables, legible at 80 columns. Nothing here prints."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from quant.evaluation.second_opinion import Figures, SecondOpinion
from quant.evaluation.statistics import Estimate
from quant.report.layout import line
from quant.report.terminal import NOTHING, table
from quant.worlds.sumo import SUMO
from quant.worlds.world import CONVOY

COLUMNS = ("driver", "world", "success", "collision", "needless", "lost:won")
NAMES = {CONVOY: "convoy", SUMO: "SUMO"}


def second_opinion(opinion: SecondOpinion) -> Group:
    """Every driver on the same scenarios in both worlds, and in words whether they agree on who is better."""
    title = f"Second opinion: SUMO {opinion.version}, followers by {opinion.following}; it decides nothing"
    parts: list[RenderableType] = [Text(title, style="bold")]
    for name, n in opinion.episodes.items():
        rows = [one for one in opinion.figures if one.slice == name]
        parts += [Text(f"{name}, the first {n:,} scenarios"), table(COLUMNS, [_row(one) for one in rows])]
    style = "green" if opinion.agrees else "bold yellow"
    head, *others = opinion.sentences
    parts += [line(head, style), *(line(sentence, _style(sentence)) for sentence in others)]
    return Group(*parts, *_notes(opinion))


def _row(one: Figures) -> tuple[str, ...]:
    paired = one.versus_float
    return (
        one.driver if one.world == CONVOY else "",
        NAMES[one.world],
        _share(one.success),
        _share(one.collision),
        NOTHING if one.needless is None else f"{one.needless.value:.3g}" + ("*" if one.averaged != one.n else ""),
        NOTHING if paired is None else f"{paired.losses}:{paired.wins}",
    )


def _share(estimate: Estimate | None) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return "unknown"
    return f"{estimate.value:.1%} {100 * estimate.low:.1f}..{100 * estimate.high:.1f}"


def _notes(opinion: SecondOpinion) -> Iterator[RenderableType]:
    averaged = {one.slice: one.averaged for one in opinion.figures if one.averaged != one.n}
    numbers = " and ".join(f"{n:,} {name}" for name, n in averaged.items())
    star = f"; * over all of the convoy world's episodes: {numbers}" if averaged else ""
    yield line(f"needless braking in m/s an episode{star}")


def _style(sentence: str) -> str:
    return "bold yellow" if sentence.partition(":")[0].isupper() else ""
