"""The anatomy of a candidate's error as rich renderables, legible at 80 columns and without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quant.anatomy import Advice, Anatomy, Effect, Source, WorstFrame
from quant.observation.contract import Contract
from quant.observation.coverage import physical_values
from quant.policy.policy import ActionSpace, Discrete
from quant.report.layout import add_row, empty_table, line

LARGEST = 2
"""Sources named for each number of peers."""
LEGEND = (
    "error: mean, of the action; flips: frames with another action; share: of the costs of all, each alone; exact: "
    "change of the cost when all but this one are rounded; cut: values beyond the range",
)
"""What the columns are."""


FRAMES: Mapping[str, str] = {"held-out": "held-out frames", "stress": "frames that the stress test kept"}
"""What a candidate is explained on."""


def explanation(
    anatomy: Anatomy, advice: Sequence[Advice], space: ActionSpace, contract: Contract | None = None
) -> Group:
    """Everything about one candidate: what each rounding costs, where, the worst frames, why and what to try.

    With a contract, what the policy saw stands in physical values.
    """
    worst = _worst(anatomy, space, contract)
    parts = (_summary(anatomy), _sources(anatomy), _together(anatomy), _slices(anatomy), worst)
    return Group(*(Group(part, "") for part in parts if part is not None), _advice(anatomy, advice))


def contrasts(sentences: Sequence[str]) -> Group:
    """What sets candidates apart, a line a sentence."""
    return Group(Text("Between the candidates", style="bold"), *map(line, sentences))


def _summary(anatomy: Anatomy) -> Group:
    measured = anatomy.measured.overall
    return Group(
        Text(f"{anatomy.track.upper()}: why it errs", style="bold"),
        line(
            f"{measured.n} {FRAMES[anatomy.frames]}: mean error {measured.mae:.4g}, largest {measured.max_error:.3g}, "
            f"another action in {measured.disagreement:.2%}"
        ),
        line(
            f"the simulation rounds a product once, TFLite-Micro {_otherwise(anatomy)}: {anatomy.unlike:.1%} of frames "
            f"end on another code, cost {anatomy.simulated.overall.cost:.3g} against {measured.cost:.3g}"
        ),
        line(f"without any rounding it is the float policy, within {anatomy.folding_error:.1g}"),
    )


def _otherwise(anatomy: Anatomy) -> str:
    return "twice" if anatomy.bits == 8 else "too, but by 15 bits of it"


def _sources(anatomy: Anatomy) -> Group:
    table = _table("What each rounding costs", ("alone", _head(anatomy), "share", "exact", "bias", "spread", "cut"))
    for source in anatomy.sources:
        overall = source.alone.overall
        add_row(
            table,
            source.name,
            _error(anatomy, overall),
            f"{source.share:.0%}",
            f"{anatomy.change(source.exact):+.0%}",
            f"{_bias(overall):+.1e}",
            f"{overall.spread:.1e}",
            "-" if source.tensor is None else f"{source.tensor.cut_off:.1%}",
        )
    return Group(table, *map(line, LEGEND))


def _together(anatomy: Anatomy) -> Table:
    table = _table("Together", ("only these", _head(anatomy), "cost", "exact"))
    for group in anatomy.groups:
        overall = group.alone.overall
        change = f"{anatomy.change(group.exact):+.0%}"
        add_row(table, group.name, _error(anatomy, overall), f"{overall.cost:.2e}", change)
    whole = anatomy.simulated.overall
    add_row(table, "all of them", _error(anatomy, whole), f"{whole.cost:.2e}", "")
    return table


def _slices(anatomy: Anatomy) -> Table:
    table = _table("Where", ("frames", "n", "mean error", "largest alone, with its share"), left=(0, 3))
    for count, effect in enumerate(anatomy.measured.by_peers):
        if effect is not None:
            alone = [source.alone.by_peers[count] for source in anatomy.sources]
            _slice(table, anatomy, f"{count} peer{'' if count == 1 else 's'}", effect, alone)
    for origin, effect in anatomy.measured.by_origin.items():
        _slice(table, anatomy, origin, effect, [source.alone.by_origin[origin] for source in anatomy.sources])
    return table


def _slice(table: Table, anatomy: Anatomy, name: str, effect: Effect, alone: Sequence[Effect | None]) -> None:
    costs = [(one.cost, source) for one, source in zip(alone, anatomy.sources, strict=True) if one is not None]
    total = sum(cost for cost, _ in costs)
    largest: list[tuple[float, Source]] = sorted(costs, key=lambda one: -one[0])[:LARGEST] if total else []
    words = ", ".join(f"{source.name} {cost / total:.0%}" for cost, source in largest)
    add_row(table, name, str(effect.n), f"{effect.mae:.4g}", words or "-")


def _worst(anatomy: Anatomy, space: ActionSpace, contract: Contract | None) -> Group | None:
    if not anatomy.worst:
        return None
    table = _table("The worst frames", ("row", "origin", "peers", "float", "int8", "parts at"), left=(1, 5))
    for frame in anatomy.worst:
        add_row(
            table,
            str(frame.row),
            frame.origin or "-",
            str(frame.peers),
            _action(frame.reference, space),
            _action(frame.candidate, space),
            frame.parts_at,
        )
    return Group(table, *map(line, _inputs(anatomy.worst[0], contract)))


def _inputs(frame: WorstFrame, contract: Contract | None) -> list[str]:
    ego, *peers = saw(frame, contract)
    lines = [f"row {frame.row}: ego: {ego}", *(f"  peer: {peer}" for peer in peers)]
    lines.append(f"  largest alone: {frame.largest}")
    return lines + ([f"  cut off at: {', '.join(frame.cut_off)}"] if frame.cut_off else [])


def saw(frame: WorstFrame, contract: Contract | None) -> list[str]:
    """What the policy saw: the ego, then each peer; physical values by name where the contract knows them."""
    if contract is None:
        return [_numbers(frame.ego), *map(_numbers, frame.peer_features)]
    names = contract.names(peers=False), contract.names(peers=True)
    return [
        physical_values(contract.ego, names[0], frame.ego),
        *(physical_values(contract.peers, names[1], peer) for peer in frame.peer_features),
    ]


def _advice(anatomy: Anatomy, advice: Sequence[Advice]) -> Group:
    lines: list[RenderableType] = []
    for one in advice:
        lines.append(line(f"- {one.why}", "bold"))
        if one.what:
            lines.append(line(f"  try: {one.what}"))
    return Group(Text(f"{anatomy.track.upper()}: why, and what to try", style="bold"), *lines)


def _head(anatomy: Anatomy) -> str:
    return "flips" if anatomy.space == "discrete" else "error"


def _error(anatomy: Anatomy, effect: Effect) -> str:
    return f"{effect.disagreement:.2%}" if anatomy.space == "discrete" else f"{effect.mae:.2e}"


def _bias(effect: Effect) -> float:
    return max(effect.bias, key=abs)


def _action(values: Sequence[float], space: ActionSpace) -> str:
    if isinstance(space, Discrete):
        return str(max(range(len(values)), key=lambda i: values[i]))
    return _numbers(values)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _table(title: str, columns: Sequence[str], left: Sequence[int] = (0,)) -> Table:
    table = empty_table(title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index in left else "right", overflow="fold")
    return table
