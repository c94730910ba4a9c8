"""The sections of the page, in the order a reader needs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from quant.anatomy import Anatomy, advise, contrast
from quant.evaluation.actors import Actor
from quant.evaluation.evaluation import FLOAT
from quant.evaluation.statistics import Estimate
from quant.evaluation.stress.results import Stress
from quant.policy.policy import Box
from quant.report import against, captions, causes, figures, reach, tables, worlds
from quant.report.blocks import Block, Finding, Picture, Section, image, pictures
from quant.report.material import Interface, Material
from quant.report.replay import Drive, Parting, Replay, partings, replay, telling
from quant.report.stress import stress_sentences
from quant.report.sweeping import sweep
from quant.report.terminal import engine_lines

COMPONENTS = 4
"""Components of a continuous action that get a picture."""
FOLDED_FROM = 8
"""More sentences about what sets candidates apart are shown when they are asked for."""
EVIDENCE: Mapping[str, str] = {
    "measured": "Measured by the chip's own clock.",
    "emulated": "Counted in emulation: instructions, not the time a chip takes.",
    "simulated": "By a model of the chip's clock, which counts instructions: good for comparing models, no proof of a "
    "latency.",
    "computed": "By the clock of the computer that did it: says that it works, nothing of a chip.",
}
"""What the times of a board are worth."""


def sections(material: Material) -> tuple[Section, ...]:
    """All that have something to say."""
    made = (
        Section("criteria", "Acceptance criteria", tuple(_criteria(material))),
        Section("comparison", "Head to head", tuple(_comparison(material))),
        Section("unseen", "Unseen drives", tuple(_unseen(material))),
        Section("coverage", "Coverage of the inputs", tuple(_coverage(material))),
        Section("stress", "Stress: the worst over the declared range", tuple(_stress(material))),
        Section("worlds", "A second opinion: SUMO", tuple(_worlds(material))),
        Section("baseline", "Against the baseline", tuple(_baseline(material))),
        Section("partings", "Where the tracks part", tuple(_partings(material))),
        Section("cost", "Error against cost", tuple(_cost(material))),
        Section("boards", "Times and memory on boards", tuple(_boards(material))),
        Section("actions", "Action over float action", tuple(_actions(material))),
        Section("peers", "By number of peers", tuple(_peers(material))),
        Section("causes", "Why each candidate errs", tuple(_causes(material))),
        Section("codes", "Ranges and codes", tuple(_codes(material))),
        Section("training", "Training", tuple(_training(material))),
        Section("provenance", "How it was made", tuple(_provenance(material))),
    )
    return tuple(section for section in made if section.blocks)


def _legend(material: Material, *, with_float: bool = False) -> tuple[tuple[int, str], ...]:
    series = tuple(enumerate(material.tracks))
    return series if with_float else series[1:]


def _series(material: Material) -> dict[str, int]:
    return {track: index for index, track in enumerate(material.tracks)}


def _criteria(material: Material) -> Iterator[Block]:
    words = (
        "A candidate that fails one is out. Unproven is neither: what is known does not suffice, and the verdict stays "
        "provisional. Below each value stands how it is known: measured on the chip, emulated, simulated, or computed "
        "on the host.",
    )
    yield Block(words=words, tables=(tables.criteria(material.verdict.assessments),))


def _comparison(material: Material) -> Iterator[Block]:
    table, reference = tables.driving(material.evaluations), material.evaluations[FLOAT].closed_loop
    if table is None or reference is None:
        yield Block(words=("Driving was not tested: no world was given. The held-out frames decide.",))
    else:
        words = (
            "Every policy drives the same frozen episodes, with the same luck. Success is no collision and no more "
            "needless braking than the world allows; so it never stands alone. Lines are 95 % intervals.",
        )
        yield Block(words=words)
        for place, outcome in enumerate(reference.slices):
            shown = pictures(_driving(material, place))
            title = f"{outcome.name}: {outcome.n:,} episodes"
            yield Block(title, pictures=shown, legend=_legend(material, with_float=True))
        yield Block(tables=(table,))
        yield from _statistics(material)
    title = "Held-out frames, no driving"
    yield Block(title, ("How closely the decisions follow float.",), tables=(tables.frames(material.evaluations),))
    if material.verdict.gate:
        words = ("A world that cannot tell bad driving from good proves nothing: these two have to lose.",)
        yield Block("Gate self-test", (*words, *material.verdict.gate), folded=True)
    if material.parity:
        yield Block("Other engines", engine_lines(material.parity), folded=True)


def _statistics(material: Material) -> Iterator[Block]:
    verdict = material.verdict
    if verdict.standings:
        margin = tables.points_of(verdict.standings[0].margin)
        words = (
            f"Non-inferior is who loses less than the stated margin of {margin} of success with 95 % confidence "
            "(Tango's bound); not shown is not refuted. What the test could have seen is the smallest drop it finds "
            "four times in five.",
        )
        yield Block(words=words, tables=(tables.standings(verdict),))
    if verdict.pairs:
        words = (
            "Who alone succeeds, and who alone collides, in the very same episodes; exact McNemar, corrected by Holm "
            "over all pairs. Pairs not told apart are ties, and are said so.",
        )
        yield Block(words=words, tables=(tables.pairs(verdict),))


def _driving(material: Material, place: int) -> Iterator[tuple[str, str]]:
    """The paired difference first: it is what decides."""
    closed = {t: e.closed_loop for t, e in material.evaluations.items() if e.closed_loop is not None}
    outcomes = {track: one.slices[place] for track, one in closed.items()}
    differences = [(t, _percent(c.versus_float[place].difference())) for t, c in closed.items() if t != FLOAT]
    if differences:
        title = "Success less float's, paired"
        image = figures.forest(title, "percentage points", differences, reference=0.0)
        yield image, captions.differences(differences)
    success = [(t, _percent(o.success_rate)) for t, o in outcomes.items()]
    collision = [(t, _percent(o.collision_rate)) for t, o in outcomes.items() if o.collision_rate is not None]
    needless = [(t, o.needless) for t, o in outcomes.items() if o.needless is not None]
    reward = [(t, o.reward) for t, o in outcomes.items()]
    for title, unit, rows, form, better in (
        ("Success", "% of episodes", success, ".2f", "more"),
        ("Collision", "% of episodes", collision, ".2f", "less"),
        ("Needless braking", "m/s an episode", needless, ".3f", "less"),
        ("Reward", "an episode", reward, ".3f", "more"),
    ):
        if rows:
            yield figures.forest(title, unit, rows), captions.estimates(f"{title}, {unit}", rows, form, better)


def _percent(one: Estimate) -> Estimate:
    low, high = (None if end is None else 100 * end for end in (one.low, one.high))
    return Estimate(100 * one.value, low, high)


def _unseen(material: Material) -> Iterator[Block]:
    later = "A finished run is judged on a later drive, beside the run, by quant evaluate RUN --drive FILE."
    made = reach.left_out(material.evaluations)
    if not made:
        if any(origin.kind == "drive" for origin in material.dataset.origins):
            seen = "Nothing unseen was looked at: held-out frames are other moments of the drives it was made of."
            yield Block(words=(seen, later))
        return
    words = (
        "Every candidate was made once more without each drive in turn, with the same seeds, and judged on all frames "
        "of the drive it had not seen. Held-out frames of seen drives are no such test: they are other moments of it.",
        later,
    )
    series = _series(material)
    found = material.evaluations
    others = reach.unseen_picture("other action, %", found, series, lambda one: 100 * (1 - one.agreement.value))
    shown = (
        (reach.unseen_picture(_error(material), found, series), reach.unseen_words(found)),
        (others, reach.disagreement_words(found)),
    )
    yield Block(
        words=words, pictures=pictures(shown), legend=tuple((series[track], track) for track in made), large=True
    )
    yield Block(tables=(reach.unseen(material.evaluations),))


def _coverage(material: Material) -> Iterator[Block]:
    columns = material.coverage
    words = (
        "How far each input was recorded or driven, how far it may go and who says so, and how far each candidate's "
        "codes reach. Beyond them a value is cut off: the candidate decides as at the edge, whatever float does.",
        "A frame is what is declared, the bar in it what was recorded, each line what a candidate represents; a "
        "crossed-out red line is declared, but cut off.",
    )
    shown, series = reach.columns_shown(columns), dict(list(_series(material).items())[1:])
    groups = {kind: [one for one in shown if one.kind == kind] for kind in ("ego", "peers")}
    names = {"ego": "the ego's inputs", "peers": "a peer's inputs"}
    drawn = [
        (reach.coverage(names[kind], own, series), reach.coverage_words(own)) for kind, own in groups.items() if own
    ]
    yield Block(words=words, pictures=pictures(drawn), legend=_legend(material), parts=reach.PARTS, large=True)
    trusted = reach.trusted(columns)
    if trusted is not None:
        margin = "Nobody declared how far these go: they end with what was recorded and a margin."
        yield Block("Trusted up to", (margin,), tables=(trusted,))
    yield Block("In figures", tables=(reach.coverage_table(columns),), folded=True)


def _stress(material: Material) -> Iterator[Block]:
    stress = material.stress
    if stress is None:
        yield Block(words=("Not stressed: nobody looked for the worst where the inputs may lie (quant stress RUN).",))
        return
    notes = stress_sentences(stress, worst=False)
    words = (
        f"Float and every candidate on {stress.frames:,} frames over the declared range of the inputs, each of which "
        "can occur, and a search that goes on from the worst of them. What was found stands in stress_frames.npz; "
        "quant explain RUN --stress takes it apart.",
        *(f"{one}." if one.startswith(tuple(stress.tracks)) else _sentence(one) for one in notes),
    )
    yield Block(words=words, tables=(reach.stress_table(stress),))
    drawn = pictures(_sweeps(material, stress))
    title, legend = "The worst found, with one feature swept through it", _legend(material, with_float=True)
    yield Block(title if drawn else "", pictures=drawn, legend=legend, large=True)
    yield Block("What the policy saw in the worst frames", tables=(reach.worst_table(stress),), folded=True)


def _sweeps(material: Material, stress: Stress) -> Iterator[tuple[str, str]]:
    actions, series = tables.actions_of(material), _series(material)
    recorded = {(one.kind, one.index): one.recorded for one in material.coverage}
    for track in material.candidates:
        found = sweep(stress, material.policy, material.candidates, track)
        if found is not None:
            seen = recorded["ego" if found.feature.slot is None else "peers", found.feature.index]
            drawn = reach.sweep_picture(
                found, series, seen, reach.output_name(material.policy, found.component, actions)
            )
            yield drawn, reach.sweep_words(found, seen)


def _worlds(material: Material) -> Iterator[Block]:
    opinion = material.second
    if opinion is None:
        return
    first, *others = opinion.sentences
    words = (
        f"The same drivers on the run's own scenarios in SUMO {opinion.version} (car-following: {opinion.following}), "
        "a simulator with rules of its own. It decides nothing; where the two do not agree, trust neither blindly.",
        *map(_sentence, others),
    )
    yield Block(_sentence(first), words)
    for name in opinion.episodes:
        shown = pictures(worlds.pictures(opinion, name))
        yield Block(name, pictures=shown, legend=_legend(material, with_float=True), large=True)
        yield Block(tables=(worlds.table(opinion, name),))


def _baseline(material: Material) -> Iterator[Block]:
    if material.baseline is None:
        return
    found = material.baseline
    yield Block(found.headline, (*found.changed, *found.meaning, *against.words(found)), tables=(against.table(found),))


def _error(material: Material) -> str:
    """What a mean error is of."""
    return "mean error of the action" if isinstance(material.policy.action_space, Box) else "mean error of the logits"


def _cost(material: Material) -> Iterator[Block]:
    words = "Down and to the left is better. A dashed line joins the candidates that no other beats in both figures."
    yield Block(words=(words,), pictures=pictures(_trades(material)), legend=_legend(material))
    counted = (
        "A multiply-accumulate (MAC) is one use of a weight: the encoder's once for every peer, the head's once. "
        "Biases, activation functions, quantization and pooling are not among them; instructions and times count all."
    )
    yield Block(words=(counted, *_alike(material)), tables=(tables.cost(material),))


def _alike(material: Material) -> Iterator[str]:
    """What all candidates take alike, so that no picture shows it."""
    macs = {tables.decision_macs(candidate) for candidate in material.candidates.values()}
    if len(macs) == 1 and len(material.candidates) > 1:
        yield f"All candidates take the same {macs.pop():,} of them with {material.policy.max_peers} peers."
    wide = [track.upper() for track, candidate in material.candidates.items() if candidate.bits == 16]
    if wide:
        yield f"They are not alike: those of {captions.joined(wide)} multiply int16 by int8 and sum up in 64 bits."
    for name, device in material.devices.items():
        times = {own.p99_ms for own in device.tracks.values()}
        if len(times) == 1 and len(device.tracks) > 1:
            ran, evidence = captions.joined([track.upper() for track in device.tracks]), device.board.evidence
            yield f"On {name} {ran} take the same {1000 * times.pop():,.4g} µs a decision, p99 ({evidence})."


def _trades(material: Material) -> Iterator[tuple[str, str]]:
    error, sizes = _error(material), {a.track: float(a.total_bytes) for a in material.verdict.assessments}
    errors = {t: e.open_loop.overall.mae for t, e in material.evaluations.items() if e.open_loop is not None}
    if errors:
        yield _trade("bytes of both models", error, [(t, sizes[t], mae) for t, mae in errors.items()])
    losses = {t: 100 * (1 - _succeeded(material, t)) for t in material.tracks if material.evaluations[t].closed_loop}
    if losses:
        points = [(t, sizes[t], losses[t]) for t in material.candidates]
        level = ("float", losses[FLOAT])
        labels = "bytes of both models", "failures, %"
        drawn = figures.pareto(f"{labels[1]} against {labels[0]}", *labels, points, level=level)
        yield drawn, f"{captions.pareto(points, *labels)} Float fails in {losses[FLOAT]:.2f} %."
    macs = {t: float(tables.decision_macs(material.candidates[t])) for t in errors}
    if len(set(macs.values())) > 1:
        label = f"MACs with {material.policy.max_peers} peers"
        yield _trade(label, error, [(t, macs[t], errors[t]) for t in errors])
    for name, device in material.devices.items():
        counts = device.board.evidence in ("emulated", "simulated")
        # A tick of these clocks is an instruction; the time of a chip is neither.
        scale = device.board.ticks_per_second / 1e6 if counts else 1.0
        points = [(t, 1000 * device.tracks[t].p99_ms * scale, errors[t]) for t in errors if t in device.tracks]
        label = f"{'instructions' if counts else 'µs'} a decision, p99 ({name}: {device.board.evidence})"
        # Where all take the same, the picture would say nothing that its caption does not.
        if len({across for _, across, _ in points}) > 1:
            yield _trade(label, error, points)


def _trade(across: str, up: str, points: list[tuple[str, float, float]]) -> tuple[str, str]:
    return figures.pareto(f"{up} against {across}", across, up, points), captions.pareto(points, across, up)


def _succeeded(material: Material, track: str) -> float:
    """Share of all episodes of all slices."""
    closed = material.evaluations[track].closed_loop
    assert closed is not None
    return float(np.concatenate([outcome.success for outcome in closed.slices]).mean())


def _actions(material: Material) -> Iterator[Block]:
    found = material.frames
    names = tables.actions_of(material)
    seen = f"{found.n:,} held-out frames that were seen, none that was made."
    if names:
        words = f"{seen} On the diagonal both act alike; a share is of the frames with that action of float."
        confusions = tuple(tables.confusion(track, found, names) for track in material.candidates)
        yield Block(words=(words,), tables=confusions)
        return
    space = material.policy.action_space
    assert isinstance(space, Box)
    for component in range(min(space.width, COMPONENTS)):
        low, high = space.low[component], space.high[component]
        reference = found.actions[FLOAT][:, component]
        each = {track: found.actions[track][:, component] for track in material.candidates}
        most = max(float(np.abs(one.astype(np.float64) - reference).max(initial=0.0)) for one in each.values())
        shown: list[tuple[str, str]] = []
        for track, own in each.items():
            both = f"{track.upper()} over float; on the dashed line both act alike."
            shown.append((figures.density(track, reference, own, low, high), both))
            drawn = figures.residual(track, reference, own, low, high, most)
            shown.append((drawn, captions.residual(track, reference, own)))
        title = "" if space.width == 1 else f"component {component}"
        words = f"{seen} The darker a cell, the more frames, on a logarithmic scale."
        yield Block(title, (words,), pictures=pictures(shown), large=True)


def _peers(material: Material) -> Iterator[Block]:
    opened = {t: e.open_loop for t, e in material.evaluations.items() if e.open_loop is not None}
    if not opened:
        return
    errors = {t: [np.nan if one is None else one.mae for one in o.by_peers] for t, o in opened.items()}
    others = {
        t: [np.nan if one is None else 100 * (1 - one.agreement.value) for one in o.by_peers] for t, o in opened.items()
    }
    shown = (
        (figures.error_by_peers(_error(material), opened), captions.by_peers(errors, ".3g")),
        (figures.disagreement_by_peers(opened), captions.by_peers(others, ".3g", " %")),
    )
    words = ("All held-out frames, with those made to reach every number of peers.",)
    yield Block("", words, pictures=pictures(shown), legend=_legend(material))
    yield Block("As a table", tables=(tables.by_peers(material.evaluations),), folded=True)


def _causes(material: Material) -> Iterator[Block]:
    found = material.anatomies
    for track, why in material.unexplained.items():
        yield Block(words=(f"The error of {track.upper()} cannot be taken apart: {why}.",))
    if not found:
        return
    yield Block(words=_how(found))
    for track, one in found.items():
        findings = tuple(Finding(_sentence(a.why), f"Try: {_sentence(a.what)}" if a.what else "") for a in advise(one))
        yield Block(f"{track.upper()}: why, and what to try", findings=findings)
    first, *others = found.values()
    # As they stand: they begin with the name of a track.
    sentences = [f"{line}." for other in others for line in contrast(first, other)]
    if sentences:
        yield Block(
            "Between the candidates", findings=tuple(map(Finding, sentences)), folded=len(sentences) > FOLDED_FROM
        )
    series = _series(material)
    legend = tuple((series[track], track) for track in found)
    rows = (
        (causes.alone(series, found), causes.alone_words(found)),
        (causes.exact(series, found), causes.exact_words(found)),
    )
    yield Block("Error by source", pictures=pictures(rows), legend=legend, large=True)
    top = causes.highest(found)
    stacks = [(causes.by_peers(one, top), causes.by_peers_words(one)) for one in found.values()]
    words = ("Bars: costs of the roundings alone, stacked. Diamond: the cost that was measured, all of them together.",)
    yield Block("By number of peers", words, pictures=pictures(stacks), parts=tuple(enumerate(causes.KINDS)))
    yield Block(tables=(causes.worst(found, tables.actions_of(material)),))
    saw = causes.worst_inputs(found, material.dataset.contract)
    yield Block("What the policy saw in the worst frame", tables=(saw,), folded=True)
    for track, one in found.items():
        yield Block(f"{track.upper()}: every rounding in figures", tables=(causes.table(one),), folded=True)


def _how(found: Mapping[str, Anatomy]) -> tuple[str, ...]:
    first = next(iter(found.values()))
    cost = (
        "the mean squared error of the clipped action"
        if first.space == "box"
        else "the mean divergence of the probabilities of the actions (Kullback-Leibler, in nats)"
    )
    apart = ", ".join(
        f"{t.upper()} {one.simulated.overall.cost:.3g} for {one.measured.overall.cost:.3g}" for t, one in found.items()
    )
    return (
        f"Every rounding of the candidate is a switch, in a model of it with exact arithmetic, computed on "
        f"{first.measured.overall.n:,} held-out frames. What one does is its cost: {cost}.",
        f"The model rounds each product once, the device's arithmetic twice. Cost in the model for cost measured: "
        f"{apart}.",
    )


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}{'' if words.endswith('.') else '.'}"


def _codes(material: Material) -> Iterator[Block]:
    words = (
        "How often each code occurs on held-out frames, on a square-root axis; the dark outer bars are the first and "
        "the last code alone. Values beyond an interface's range pile up there, and so do zeros where the first code "
        "stands for 0 (after a ReLU), which lose nothing.",
        "The output's range ends at the action's bounds: there saturation is the clip that the action has anyway."
        if isinstance(material.policy.action_space, Box)
        else "Of logits only the order decides; beyond the range it is lost, and the first of equal codes is taken.",
    )
    yield Block(words=words)
    for index, track in list(enumerate(material.tracks))[1:]:
        shown = ((figures.histogram(index, one), _interface(one)) for one in material.frames.interfaces[track])
        yield Block(f"{track.upper()}: between the parts", pictures=pictures(shown))
        if track in material.anatomies:
            yield _layers(index, material.anatomies[track])


def _interface(one: Interface) -> str:
    return f"{one.name}: {tables.interface_words(one)}"


def _layers(index: int, anatomy: Anatomy) -> Block:
    shown = [
        (figures.histogram(index, one), f"{_interface(one)}; beyond the range: {source.tensor.cut_off:.2%}")
        for one, source in causes.hidden(anatomy)
        if source.tensor is not None
    ]
    words = (
        "Within the two models, by the same switches as above, frames that were made included. Cut off: more than a "
        "step beyond the range, not counting what the action's bounds clip anyway.",
    )
    title = f"{anatomy.track.upper()}: layer by layer"
    return Block(title, words, tables=(causes.tensors(anatomy),), pictures=pictures(shown), folded=True)


def _training(material: Material) -> Iterator[Block]:
    series = _series(material)
    shown = [
        (figures.training(series[track], track, curve), captions.training(curve))
        for track, curve in material.curves.items()
        if len(curve) > 1
    ]
    if shown:
        words = "The error is of the simulated INT8 model on frames it was not trained on; its lowest step is kept."
        yield Block("", (words,), pictures=pictures(shown))


def _boards(material: Material) -> Iterator[Block]:
    series = _series(material)
    for name, device in material.devices.items():
        evidence = device.board.evidence
        shown = [(figures.board_times(device, list(material.candidates)), captions.board_times(device))]
        top = figures.longest_stages(device)
        shown += [
            (figures.board_stages(track, own, top), captions.board_stages(own, evidence))
            for track, own in device.tracks.items()
        ]
        held = "; ".join(f"{t.upper()}: {own.conformance}" for t, own in device.tracks.items())
        words = (EVIDENCE[evidence], f"Decisions held against the host's. {held}.")
        legend = tuple((series[track], track) for track in device.tracks)
        parts = tuple(enumerate(figures.STAGES))
        yield Block(f"{name}: {evidence}", words, pictures=pictures(shown), legend=legend, parts=parts)
        times = tuple(tables.board(track, own) for track, own in device.tracks.items())
        yield Block("Times in microseconds", tables=times, folded=True)
        yield Block("The board and what ran on it", tables=(tables.board_facts(device),), folded=True)
        if name in material.tests:
            yield _tests(material, name)


def _tests(material: Material, name: str) -> Block:
    own, device = material.tests[name], material.devices[name]
    failed = ", ".join(device.failed_tests) or "none that ran"
    words = (
        f"{own.tests} tests of this board left {len(own.figures):,} figures. Failed with these models: {failed}.",
        *(() if own.pack_sha256 in ("", device.pack_sha256) else ("They are of other models than the times above.",)),
    )
    return Block("What the board's tests recorded", words, tables=(tables.tests(own),), folded=True)


def _partings(material: Material) -> Iterator[Block]:
    found = partings(material.evaluations)
    if not found:
        if material.evaluations[FLOAT].closed_loop is not None:
            yield Block(words=("Every episode ended alike for the float policy and all candidates.",))
        return
    yield Block(words=(f"{len(found):,} episodes end differently for float and some candidate.",))
    for shown in _replays(material, found):
        yield _replay_block(material, shown)
    yield Block("Episodes", tables=(tables.parting(found),), folded=True)


def _replays(material: Material, found: tuple[Parting, ...]) -> Iterator[Replay]:
    world, scenarios = material.world, material.scenarios
    track = material.verdict.winner or next(iter(material.candidates))
    if world is None or scenarios is None:
        return
    actors = [Actor(FLOAT, material.policy), *(Actor(t, candidate) for t, candidate in material.candidates.items())]
    for one in telling(found, track):
        shown = replay(one, actors, world, scenarios)
        if shown is not None:
            yield shown


def _replay_block(material: Material, shown: Replay) -> Block:
    one = shown.parting
    ends = [f"{track} {_ended(drive)}" for track, drive in shown.drives.items()]
    began = [
        f"{track} decides otherwise than float from {shown.drives[FLOAT].time[step]:.1f} s on"
        for track, step in shown.first_other.items()
    ]
    words = ("; ".join(ends) + ".", "; ".join(began) + ".", "A crossed-out shape is a collision.")
    return Block(
        f"{one.slice} episode {one.index}",
        tuple(sentence for sentence in words if sentence != "."),
        pictures=tuple(
            Picture(image(markup), caption)
            for markup, caption in zip(figures.replay_pictures(shown), figures.REPLAY_CAPTIONS, strict=True)
        ),
        legend=_legend(material, with_float=True),
        large=True,
    )


def _ended(drive: Drive) -> str:
    if drive.collision:
        return f"collision after {drive.time[-1]:.1f} s"
    return f"{'success' if drive.success else 'no success'}, least gap {float(drive.gap.min()):.2f} m"


def _provenance(material: Material) -> Iterator[Block]:
    yield Block("The settings as a command", code=tables.command(material))
    yield Block(tables=(tables.settings(material),))
    yield Block("Hashes", tables=(tables.hashes(material),))
    yield Block("Versions, host and time", tables=(tables.versions(material),))
    yield Block("Limits in force", tables=(tables.limits(material),), folded=True)
    if material.policy.facts:
        yield Block("What is known of the policy", tables=(tables.facts(material),), folded=True)
    yield Block("Files", tables=(tables.files(material),), folded=True)
