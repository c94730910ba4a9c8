"""From the figures to words: why a candidate errs and what to try. Every rule has its threshold here, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from quant.anatomy.anatomy import Anatomy, Column, Effect, Source, WeightFacts
from quant.anatomy.simulation import OUTPUT, PEER_INPUT
from quant.evaluation.open_loop import FILLED
from quant.observation.contract import DECLARED, whose
from quant.observation.coverage import physical_ends

NOTABLE = 0.10
"""Share of the summed costs from which a source is worth a word."""
DOMINANT = 0.25
"""Share of the summed costs from which a source dominates."""
CUT_OFF_DECIDES = 0.5
"""Share of a tensor's cost that values beyond its range must cause for the range, not the step, to be at fault."""
SATURATED = 0.01
"""Share of values beyond a tensor's range from which it is said even where it costs little on these frames."""
FEW_LEVELS = 32
"""Distinct codes of a layer's weights below which its scale is too coarse (5 bits instead of 8)."""
ENOUGH_WEIGHTS = 4 * FEW_LEVELS
"""A layer of fewer weights cannot be expected to use many codes."""
MOVED = 0.5
"""Root mean square distance of weights from the exact ones, in steps, beyond which they are not just rounded (.29)."""
BIAS_MOVED = 1.0
"""Distance of a bias from the exact one, in steps of the layer's output, beyond which it is not just rounded."""
UNEVEN = 4.0
"""Largest weight over the typical output's largest, from which one scale for all outputs wastes two bits."""
COMPENSATES = 0.2
"""Rise of the cost when weights are made exact, from which they make up for other roundings; less may be chance."""
MANIFOLD = 2.0
"""Rise from which it is said as a multiple."""
LEANS = 0.25
"""Share of the squared error that is bias from which the error leans to one side."""
WORSE_FRAMES = 2.0
"""Cost on some frames over the cost overall, from which these frames are named."""
ENOUGH_FRAMES = 50
"""Fewer frames than these are not named."""
UNFAITHFUL = 0.2
"""Difference of the simulated cost from the measured one, as a share, from which the simulation explains too little."""
APART = 0.05
"""Difference of two candidates' costs of a source, as a share of the larger total, from which it is named."""
OFTEN = 0.5
"""Share of the worst frames in which a tensor must cut off a value to be named."""
NAMED = 3
"""Features of an input that are named at once."""
FIRST = ("range too narrow", "range not covered")
"""Rules that come before all others where they are about an input."""
FEATURE = 0.5
"""Share of an input's cost that one feature must cause to be named."""

THAT_ARE = "that are "
DECLARE = "declare its bounds in observation.toml (quant observation POLICY writes it)"
SAID = {"file": "observation.toml", "checkpoint": "the checkpoint", "world": "the world's space"}
"""Who declared a bound."""


@dataclass(frozen=True)
class Advice:
    """One finding.

    Attributes:
        rule: its name, stable for programs.
        source: what it is about; None where about the candidate as a whole.
        weight: share of the cost it is about, 0 to 1; the list is sorted by it, but for what cuts an input off.
        why: what the figures say, a sentence.
        what: what to try, a sentence; empty where there is nothing to do.
    """

    rule: str
    source: str | None
    weight: float
    why: str
    what: str

    def to_json(self) -> dict[str, Any]:
        """By name."""
        return asdict(self)


def advise(anatomy: Anatomy) -> tuple[Advice, ...]:
    """What the figures say and what to try: inputs that are cut off where that is the cause, then the weightiest."""
    if anatomy.simulated.overall.cost == 0 and anatomy.measured.overall.cost == 0:
        return (Advice("no error", None, 0.0, "the candidate decides as the float policy does on every frame", ""),)
    found = [*_unfaithful(anatomy), *_of_sources(anatomy), *_of_the_whole(anatomy)]
    inputs = {source.name for source in anatomy.sources if source.kind == "input"}

    def rank(one: Advice) -> tuple[bool, float]:
        return not (one.source in inputs and one.rule in FIRST), -one.weight

    return tuple(sorted(found, key=rank))


def _of_sources(anatomy: Anatomy) -> Iterator[Advice]:
    for source in anatomy.sources:
        if source.weights is not None:
            yield from _of_weights(anatomy, source)
        elif source.kind == "input":
            yield from _of_input(anatomy, source)
        else:
            yield from _of_tensor(source)


def _about(rule: str, source: Source, why: str, what: str) -> Advice:
    """Advice on one source, as weighty as its share of the cost."""
    return Advice(rule, source.name, source.share, why, what)


def _of_input(anatomy: Anatomy, source: Source) -> Iterator[Advice]:
    """What is cut off is named whatever it costs on these frames; a bound that is not reached, on whatever frames."""
    tensor = source.tensor
    assert tensor is not None
    share, cost = source.share, source.alone.overall.cost
    clipping = tensor.cut_off_cost / cost if cost else 0.0
    cut = sorted(_first_of(tensor.columns, lambda one: bool(one.below or one.above)), key=lambda one: -one.cut_cost)
    short = [one for one in _first_of(tensor.columns, lambda one: bool(one.short)) if one not in cut]
    if cut:
        named, more = cut[:NAMED], len(cut) - NAMED
        words = [*(_cut_words(source, one) for one in named), *([f"{more} more are cut off too"] if more > 0 else [])]
        where = "; ".join(words)
        what = "; ".join(dict.fromkeys(_remedy(anatomy, one) for one in named))
        if share >= NOTABLE and clipping >= CUT_OFF_DECIDES:
            why = f"{where}; that is {clipping:.0%} of what the {source.name} costs ({share:.0%} of all)"
            yield _about("range too narrow", source, why, what)
        else:
            why = f"{where}; that is {clipping * share:.0%} of all costs{_elsewhere(anatomy, source)}"
            # A candidate that falls short of its contract is at fault however rarely these frames show it.
            rule = "range too narrow" if any(one.short for one in cut) else "saturated"
            yield Advice(rule, source.name, clipping * share, why, what)
    if short:
        where = "; ".join(_short_words(source, one) for one in short)
        yield Advice(
            "range not covered",
            source.name,
            share,
            f"{where}: beyond, it decides as there, and none of these frames shows it",
            "; ".join(dict.fromkeys(_remedy(anatomy, one) for one in short)),
        )
    if share >= DOMINANT and clipping < CUT_OFF_DECIDES:
        yield _too_coarse(source)


def _elsewhere(anatomy: Anatomy, source: Source) -> str:
    """Where a source costs most of all: the costs of frames that were made do not count among all."""
    shares = {}
    for origin, effect in source.alone.by_origin.items():
        total = sum(one.alone.by_origin[origin].cost for one in anatomy.sources)
        shares[origin] = effect.cost / total if total else 0.0
    origin = max(shares, key=lambda one: shares[one], default="")
    if not origin or shares[origin] < NOTABLE or shares[origin] <= source.share:
        return ", but beyond these frames it may be more"
    return f", but on {origin} frames the {source.name} costs {shares[origin]:.0%} of all"


def _first_of(columns: Sequence[Column], chosen: Callable[[Column], bool]) -> list[Column]:
    """Those chosen, without copies of what is chosen itself: they have its cause."""
    found = [chosen(one) for one in columns]
    copies = [None if one.what is None else one.what.copy_of for one in columns]
    return [one for one, yes, of in zip(columns, found, copies, strict=True) if yes and (of is None or not found[of])]


def _cut_words(source: Source, column: Column) -> str:
    ends = ((column.below, column.low), (column.above, column.high))
    words = [f"at {_physical(column, end)} in {_share(beyond)} of the frames" for beyond, end in ends if beyond]
    return f"{whose(_kind(source), column.name)} is cut off {' and '.join(words)}"


def _short_words(source: Source, column: Column) -> str:
    what = column.what
    assert what is not None
    ends, bounds = physical_ends(what, (column.low, column.high)), physical_ends(what, (what.low, what.high))
    return f"{whose(_kind(source), column.name)} is represented from {ends} only, of {bounds}"


def _remedy(anatomy: Anatomy, column: Column) -> str:
    """What to declare, to record or to make again, by who set the range that is too narrow."""
    what = column.what
    if what is None:
        return f"{DECLARE}, or record more frames like the worst ones, so that calibration sees these values"
    beyond = {"low": column.below, "high": column.above}
    missing = [end for end in column.short if beyond[end] or not any(beyond.values())]
    cut = [end for end, share in beyond.items() if share]
    if any(what.origin(end) in DECLARED for end in missing):
        return f"make the candidate again: it has to represent all that is declared (quant {anatomy.track} RUN)"
    for end in cut:
        if what.origin(end) in DECLARED:
            said = SAID.get(what.origin(end), "the preset of the field")
            bound = _physical(column, (what.low if end == "low" else what.high) or 0.0)
            return (
                f"{said} says {bound} at the {'least' if end == 'low' else 'most'}: correct it in observation.toml, or "
                "the unit and scale of what was recorded"
            )
    return f"{DECLARE}, or record drives that go further"


def _physical(column: Column, value: float) -> str:
    return f"{value:.4g}" if column.what is None else column.what.physical(value)


def _step(column: Column, step: float) -> str:
    return f"{step:.2g}" if column.what is None else column.what.physical(step)


def _share(value: float) -> str:
    """Never 0 % of what there is."""
    return f"{value:.1%}" if value >= 0.001 else f"{100 * value:.1g}%"


def _kind(source: Source) -> str:
    return "peers" if source.name == PEER_INPUT else "ego"


def _of_tensor(source: Source) -> Iterator[Advice]:
    tensor = source.tensor
    assert tensor is not None
    share, cost = source.share, source.alone.overall.cost
    clipping = tensor.cut_off_cost / cost if cost else 0.0
    if share >= NOTABLE and clipping >= CUT_OFF_DECIDES:
        yield _about(
            "range too narrow",
            source,
            f"the range of the {source.name} is too narrow: {tensor.cut_off:.1%} of the values lie beyond it, "
            f"by up to {tensor.beyond:.0%} of it; that is {clipping:.0%} of what it costs ({share:.0%} of all)",
            "calibrate on more frames like the worst ones, or keep more of this tensor's range",
        )
    elif tensor.cut_off >= SATURATED:
        yield _about(
            "saturated",
            source,
            f"{tensor.cut_off:.1%} of the values of the {source.name} lie beyond its range, by "
            f"up to {tensor.beyond:.0%} of it; on these frames this tensor costs {share:.0%} of all",
            "nothing here; but two logits cut off alike are a tie, and the first action wins"
            if source.name == OUTPUT
            else "see that calibration covers what the vehicle will meet: beyond these frames it may cost more",
        )
    if share >= DOMINANT and clipping < CUT_OFF_DECIDES:
        yield _too_coarse(source)


def _too_coarse(source: Source) -> Advice:
    words = {
        "input": (
            "input rounding",
            f"the rounding of the {source.name} dominates{_coarsest_feature(source)}: {source.share:.0%} of all, "
            "with almost nothing beyond its range",
            "better weights will not help; narrow what the feature has to span (clip it in the observation), or give "
            "the rounding's rest in a further input or 16 bits to the activations",
        ),
        "output": (
            "interface rounding",
            f"the step of the {source.name} dominates: {source.share:.0%} of all",
            "equalize the units that share its scale, keep less of its range, or give activations 16 bits",
        ),
        "activations": (
            "activation rounding",
            f"the rounding of {source.name} dominates: {source.share:.0%} of all",
            "keep less of its range, equalize the layer's units, or give activations 16 bits",
        ),
    }
    rule, why, what = words[source.kind]
    return _about(rule, source, why, what)


def _of_weights(anatomy: Anatomy, source: Source) -> Iterator[Advice]:
    weights = source.weights
    assert weights is not None
    share, change = source.share, anatomy.change(source.exact)
    if share >= NOTABLE and weights.size >= ENOUGH_WEIGHTS and weights.levels < FEW_LEVELS:
        yield _about(
            "few weight levels",
            source,
            f"the {source.name} use {weights.levels} of 255 codes and cost {share:.0%} of all",
            "their scale is far too coarse or they were rounded to fewer bits: quantize this layer again",
        )
    elif share >= NOTABLE and weights.unevenness >= UNEVEN:
        yield _about(
            "one scale for uneven outputs",
            source,
            f"the {source.name} share one scale, though the largest is {weights.unevenness:.1f} times a typical "
            f"output's largest; they cost {share:.0%} of all",
            "give every output its own scale (per-channel), or equalize the layer",
        )
    elif change >= COMPENSATES:
        yield Advice(
            "weights compensate",
            source.name,
            min(change, 1.0),
            f"the {source.name} make up for other roundings: with them exact the error would {_grown(change)}",
            "",
        )
    elif share >= DOMINANT:
        yield _dominant(source, weights)


def _dominant(source: Source, weights: WeightFacts) -> Advice:
    """On weights that cost the most, for the likeliest cause."""
    if weights.bias_moved >= BIAS_MOVED:
        return _about(
            "biases moved",
            source,
            f"a bias among the {source.name} is {weights.bias_moved:.1f} steps of the layer's output from the float "
            f"policy's; they cost {source.share:.0%} of all without making up for anything",
            "undo the correction or training of these biases; where there was none, the conversion is at fault",
        )
    if weights.moved_rms >= MOVED:
        return _about(
            "weights moved",
            source,
            f"the {source.name} are {weights.moved_rms:.2f} steps from the float policy's (rounding alone is .29) and "
            f"cost {source.share:.0%} of all without making up for anything",
            "train longer or with a smaller learning rate, or start from the float weights again",
        )
    return _about(
        "weight rounding",
        source,
        f"the rounding of the {source.name} dominates: {source.share:.0%} of all",
        "train through the rounding (QAT), round to second order instead of to the nearest, or correct the bias",
    )


def _grown(change: float) -> str:
    """A rise as people say it."""
    return f"grow by {change:.0%}" if change < MANIFOLD else f"be {1 + change:,.0f} times as large"


def _of_the_whole(anatomy: Anatomy) -> Iterator[Advice]:
    overall = anatomy.measured.overall
    if overall.leaning >= LEANS:
        component = max(range(len(overall.bias)), key=lambda i: abs(overall.bias[i]))
        value = overall.bias[component]
        what = "the action" if anatomy.space == "box" else f"the probability of action {component}"
        if anatomy.space == "box" and len(overall.bias) > 1:
            what = f"component {component} of the action"
        yield Advice(
            "error leans",
            None,
            overall.leaning,
            f"the error leans one way: {what} is {value:+.2g} on average, {overall.leaning:.0%} of the squared error",
            "a correction of the last layers' biases takes that away",
        )
    largest = max(anatomy.sources, key=lambda source: source.share)
    if largest.share < DOMINANT:
        yield Advice(
            "no source dominates",
            None,
            largest.share,
            f"no rounding dominates: the largest, {largest.name}, is {largest.share:.0%} of all",
            "no single repair will do; train through all of them (QAT)"
            + (", or give activations 16 bits: --tracks int16x8" if anatomy.bits == 8 else ""),
        )
    yield from _frames(anatomy)
    yield from _worst_cut_off(anatomy)


def _frames(anatomy: Anatomy) -> Iterator[Advice]:
    if anatomy.frames == "stress":
        return  # they were chosen for being the worst: no recording is weighed like them
    slices: list[tuple[str, Effect]] = [
        (f"with {count} peer{'' if count == 1 else 's'}", effect)
        for count, effect in enumerate(anatomy.measured.by_peers)
        if effect is not None
    ]
    slices += [(f"{THAT_ARE}{origin}", effect) for origin, effect in anatomy.measured.by_origin.items()]
    whole = anatomy.measured.overall.cost
    worse = [(name, effect) for name, effect in slices if effect.n >= ENOUGH_FRAMES and whole]
    worse = [(name, effect) for name, effect in worse if effect.cost >= WORSE_FRAMES * whole]
    if worse:
        name, effect = max(worse, key=lambda one: one[1].cost)
        yield Advice(
            "some frames are worse",
            None,
            NOTABLE,
            f"frames {name} cost {effect.cost / whole:.1f} times the average (n = {effect.n}, mean error "
            f"{effect.mae:.2g})",
            "they lie where nobody drove: record drives that go there, or declare narrower bounds if they cannot occur"
            if name == f"{THAT_ARE}{FILLED}"
            else "record more of them: calibration and training weigh what they see",
        )


def _worst_cut_off(anatomy: Anatomy) -> Iterator[Advice]:
    inputs = {source.name for source in anatomy.sources if source.kind == "input"}  # of these more is said above
    hits = Counter(name for frame in anatomy.worst for name in frame.cut_off if name not in inputs)
    for name, count in hits.most_common(1):
        if count >= OFTEN * len(anatomy.worst):
            yield Advice(
                "worst frames cut off",
                name,
                NOTABLE,
                f"in {count} of the {len(anatomy.worst)} worst frames a value lies beyond the range of the {name}",
                "widen the range, or declare bounds that leave these frames out if they cannot occur"
                if anatomy.frames == "stress"
                else "record more frames like these, so that calibration sees such values, or widen the range",
            )


def _unfaithful(anatomy: Anatomy) -> Iterator[Advice]:
    measured, simulated = anatomy.measured.overall.cost, anatomy.simulated.overall.cost
    differs, matters = ("rounds twice", "the second rounding matters here")
    if anatomy.bits == 16:
        differs, matters = "has multipliers of 15 bits and a table for tanh", "so little is left that these matter"
    if abs(simulated - measured) > UNFAITHFUL * max(measured, simulated):
        yield Advice(
            "simulation differs",
            None,
            1.0,
            f"the simulation, which rounds each product once, costs {simulated:.3g}; the device's arithmetic, which "
            f"{differs}, {measured:.3g}",
            f"read what follows with care: {matters}",
        )


def _coarsest_feature(source: Source) -> str:
    columns = source.tensor.columns if source.tensor else ()
    total = sum(column.cost for column in columns)
    worst = max(columns, key=lambda column: column.cost, default=None)
    if worst is None or not total or worst.cost < FEATURE * total:
        return ""
    assert source.tensor is not None
    step = (worst.high - worst.low) / (len(source.tensor.codes) - 1)
    return f" ({worst.name} above all, {worst.cost / total:.0%} of it; one step is {_step(worst, step)})"


def contrast(one: Anatomy, other: Anatomy) -> tuple[str, ...]:
    """Why one candidate's error is smaller than another's, in sentences; the order of the two does not matter."""
    better, worse = sorted((one, other), key=lambda anatomy: anatomy.measured.overall.cost)
    low, high = better.measured.overall.cost, worse.measured.overall.cost
    if high == low:
        return (f"{better.track} and {worse.track} cost the same on these frames",)
    sentences = [
        f"{better.track} costs {1 - low / high:.0%} less than {worse.track} ({low:.3g} against {high:.3g})",
        *_differing(better, worse),
    ]
    changes = {anatomy.track: anatomy.change(anatomy.group("weights").exact) for anatomy in (better, worse)}
    if changes[better.track] - changes[worse.track] >= COMPENSATES:
        effect = {track: f"{change:+.0%}" for track, change in changes.items()}
        sentences.append(
            f"with all weights exact {better.track}'s cost would change by {effect[better.track]}, {worse.track}'s by "
            f"{effect[worse.track]}: {better.track}'s weights "
            + ("make up for other roundings" if changes[better.track] > 0 else "lose less")
        )
    return tuple(sentences)


def _differing(better: Anatomy, worse: Anatomy) -> Iterator[str]:
    total = max(sum(source.alone.overall.cost for source in one.sources) for one in (better, worse))
    others = {source.name: source.alone.overall.cost for source in worse.sources}
    # Tracks may differ in what they round: only what both round can be compared.
    shared = [source for source in better.sources if source.name in others]
    gaps = {source.name: others[source.name] - source.alone.overall.cost for source in shared}
    for name in sorted(gaps, key=lambda name: -abs(gaps[name])):
        if total and abs(gaps[name]) >= APART * total:
            first, second = (better, worse) if gaps[name] > 0 else (worse, better)
            costs = [anatomy.source(name).alone.overall.cost for anatomy in (first, second)]
            yield f"alone, {first.track}'s {name} cost {costs[0]:.3g}, {second.track}'s {costs[1]:.3g}"
