"""The report as one HTML page: nothing from outside, no text of a run taken for markup, equal bytes for equal runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quant.evaluation.actors import Actor
from quant.evaluation.evaluation import FLOAT
from quant.policy.policy import Box
from quant.report import figures, svg, tables
from quant.report.markdown import MARKS
from quant.report.material import Material
from quant.report.replay import Parting, Replay, partings, replay, telling
from quant.report.tables import Table
from quant.report.terminal import engine_lines

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATE = "page.html.j2"
COMPONENTS = 4
"""Components of a continuous action that get a picture."""


@dataclass(frozen=True)
class Picture:
    """A picture with its caption, both markup or plain text."""

    image: Markup
    caption: str = ""


@dataclass(frozen=True)
class Block:
    """A part of a section: a title, sentences, a table, pictures, any of which may be missing.

    Attributes:
        title: of the block.
        words: sentences, each a paragraph.
        table: shown below them.
        pictures: side by side.
        legend: (series index, name) shown above the pictures.
        folded: shown only when it is asked for (and in print).
        large: the pictures are, where there is room.
    """

    title: str = ""
    words: tuple[str, ...] = ()
    table: Table | None = None
    pictures: tuple[Picture, ...] = ()
    legend: tuple[tuple[int, str], ...] = ()
    folded: bool = False
    large: bool = False


@dataclass(frozen=True)
class Section:
    """A titled section, with the name links know it by."""

    name: str
    title: str
    blocks: tuple[Block, ...]


def page(material: Material) -> str:
    """The whole page.

    Args:
        material: a finished run.

    Returns:
        HTML, UTF-8 when written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("quant.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.globals |= {"marks": MARKS, "shape": _shape}
    sections = [section for section in _sections(material) if section.blocks]
    return environment.get_template(TEMPLATE).render(
        name=tables.checkpoint(material),
        verdict=material.verdict,
        figures=tables.key_figures(material),
        sections=sections,
    )


def _shape(index: int) -> Markup:
    """The shape of a series, as large as a letter."""
    return _image(svg.tag("svg", svg.marker(index, 7, 7, 4.5), viewBox="0 0 14 14", class_="key", aria_hidden="true"))


def _image(markup: str) -> Markup:
    """Markup of ours, in which whatever came from outside has been escaped."""
    from markupsafe import Markup

    return Markup(markup)


def _pictures(*images: str, captions: tuple[str, ...] = ()) -> tuple[Picture, ...]:
    words = [*captions, *[""] * (len(images) - len(captions))]
    return tuple(Picture(_image(image), caption) for image, caption in zip(images, words, strict=True))


def _sections(material: Material) -> Iterator[Section]:
    yield Section("criteria", "Acceptance criteria", (Block(table=tables.criteria(material.verdict.assessments)),))
    yield Section("comparison", "Head to head", tuple(_comparison(material)))
    yield Section("cost", "Error against cost", tuple(_cost(material)))
    yield Section("actions", "Action over float action", tuple(_actions(material)))
    yield Section("peers", "By number of peers", tuple(_peers(material)))
    yield Section("training", "Training", tuple(_training(material)))
    yield Section("codes", "Ranges and codes of the interfaces", tuple(_codes(material)))
    yield Section("boards", "Times and memory on boards", tuple(_boards(material)))
    yield Section("partings", "Where the tracks part", tuple(_partings(material)))
    yield Section("provenance", "How it was made", tuple(_provenance(material)))


def _legend(material: Material, *, with_float: bool = False) -> tuple[tuple[int, str], ...]:
    series = tuple(enumerate(material.tracks))
    return series if with_float else series[1:]


def _comparison(material: Material) -> Iterator[Block]:
    table, reference = tables.driving(material.evaluations), material.evaluations[FLOAT].closed_loop
    if table is None or reference is None:
        yield Block(words=("Driving was not tested: no world was given. The held-out frames decide.",))
    else:
        yield Block("Driving, the same frozen scenarios for all", table=table)
        for place, outcome in enumerate(reference.slices):
            images = figures.driving(material.evaluations, place)
            yield Block(
                f"{outcome.name}: {outcome.n:,} episodes, 95 % intervals",
                pictures=_pictures(*images),
                legend=_legend(material, with_float=True),
            )
    yield Block("Held-out frames, no driving", table=tables.frames(material.evaluations))
    if material.verdict.gate:
        words = ("A world that cannot tell bad driving from good proves nothing: these two have to lose.",)
        yield Block("Gate self-test", (*words, *material.verdict.gate), folded=True)
    if material.parity:
        yield Block("Other engines", engine_lines(material.parity), folded=True)


def _error(material: Material) -> str:
    """What a mean error is of."""
    return "mean error of the action" if isinstance(material.policy.action_space, Box) else "mean error of the logits"


def _cost(material: Material) -> Iterator[Block]:
    error = _error(material)
    sizes = {a.track: a.total_bytes for a in material.verdict.assessments}
    images = []
    errors = {t: e.open_loop.overall.mae for t, e in material.evaluations.items() if e.open_loop is not None}
    points = [(t, float(sizes[t]), mae) for t, mae in errors.items()]
    if points:
        images.append(figures.pareto("mean error against bytes", "bytes of both models", error, points))
    losses = {t: 100 * (1 - _succeeded(material, t)) for t in material.tracks if material.evaluations[t].closed_loop}
    if losses:
        points = [(t, float(sizes[t]), losses[t]) for t in material.candidates]
        level = ("float", losses[FLOAT])
        labels = "failures against bytes", "bytes of both models", "failures, %"
        images.append(figures.pareto(*labels, points, level=level))
    for name, device in material.devices.items():
        points = [(t, 1000 * device.tracks[t].p99_ms, errors[t]) for t in errors if t in device.tracks]
        label = f"µs a decision, p99, worst peers ({name}: {device.board.evidence})"
        if points:
            images.append(figures.pareto(f"mean error against time on {name}", label, error, points))
    words = "Down and to the left is better. A dashed line joins the candidates that no other beats in both figures."
    yield Block(words=(words,), pictures=_pictures(*images), legend=_legend(material))


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
        for track in material.candidates:
            table = tables.confusion(track, found, names)
            yield Block(f"{track.upper()} in columns, float in rows", (seen,), table=table)
        return
    space = material.policy.action_space
    assert isinstance(space, Box)
    for component in range(min(space.width, COMPONENTS)):
        low, high = space.low[component], space.high[component]
        images = []
        for track in material.candidates:
            own = found.actions[FLOAT][:, component], found.actions[track][:, component], low, high
            images += [figures.density(track, *own), figures.residual(track, *own)]
        title = "" if space.width == 1 else f"component {component}"
        words = (f"{seen} The darker a cell, the more frames, on a logarithmic scale.",)
        yield Block(title, words, pictures=_pictures(*images), large=True)


def _peers(material: Material) -> Iterator[Block]:
    opened = {t: e.open_loop for t, e in material.evaluations.items() if e.open_loop is not None}
    if opened:
        images = figures.error_by_peers(_error(material), opened), figures.disagreement_by_peers(opened)
        words = ("All held-out frames, with those made to reach every number of peers.",)
        yield Block("", words, pictures=_pictures(*images), legend=_legend(material))
        yield Block(table=tables.by_peers(material.evaluations), folded=True, title="As a table")


def _training(material: Material) -> Iterator[Block]:
    indices = {track: index for index, track in enumerate(material.tracks)}
    images = [figures.training(indices[t], t, curve) for t, curve in material.curves.items() if len(curve) > 1]
    if images:
        words = (
            "Dashed: training loss. Solid: error of the simulated INT8 model on frames it was not trained on; the step "
            "with the lowest is kept.",
        )
        yield Block("", words, pictures=_pictures(*images))


def _codes(material: Material) -> Iterator[Block]:
    words = (
        "How often each code occurs on held-out frames, on a square-root axis; the dark outer bars are the first and "
        "the last code alone. Values beyond an interface's range pile up there, and so do zeros where the first code "
        "stands for 0 (after a ReLU), which lose nothing.",
        "The output's range ends at the action's bounds: there saturation is the clip that the action has anyway."
        if isinstance(material.policy.action_space, Box)
        else "Of logits only the order decides; beyond the range it is lost, and the first of equal codes is taken.",
    )
    for index, track in list(enumerate(material.tracks))[1:]:
        found = material.frames.interfaces[track]
        images = _pictures(
            *(figures.histogram(index, one) for one in found),
            captions=tuple(f"{one.name}: {tables.interface_words(one)}" for one in found),
        )
        yield Block(track.upper(), words if index == 1 else (), pictures=images)
    yield Block("Ranges of the input features", table=tables.features(material.frames), folded=True)


def _boards(material: Material) -> Iterator[Block]:
    for name, device in material.devices.items():
        words = _evidence_words(device.board.evidence)
        yield Block(f"{name}: {device.board.evidence}", (words,), table=tables.board_facts(device))
        images = [figures.board_times(device, list(material.candidates))]
        images += [figures.board_stages(track, own) for track, own in device.tracks.items()]
        captions = ("99th percentile; a stroke up to the maximum", *("median of each stage" for _ in device.tracks))
        yield Block("", (), None, _pictures(*images, captions=captions), _legend(material))
        for track, own in device.tracks.items():
            yield Block(f"{track.upper()}, microseconds", table=tables.board(own), folded=True)


def _evidence_words(evidence: str) -> str:
    return {
        "measured": "By the chip's own clock.",
        "emulated": "Counted in emulation: instructions, not the time a chip takes.",
        "simulated": "By a model of the chip's clock: good for comparing models, no proof of a latency.",
    }.get(evidence, "")


def _partings(material: Material) -> Iterator[Block]:
    found = partings(material.evaluations)
    if not found:
        if material.evaluations[FLOAT].closed_loop is not None:
            yield Block(words=("Every episode ended alike for the float policy and all candidates.",))
        return
    for shown in _replays(material, found):
        yield _replay_block(material, shown)
    words = f"{len(found)} episodes that float and the candidates do not all end alike."
    yield Block("Episodes", (words,), table=tables.parting(found), folded=True)


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
    ends = []
    for track, drive in shown.drives.items():
        words = "success" if drive.success else "no success"
        if drive.collision:
            words = f"collision after {drive.time[-1]:.1f} s"
        least = float(drive.gap.min())
        ends.append(f"{track} {words}" if drive.collision else f"{track} {words}, least gap {least:.2f} m")
    return Block(
        f"{one.slice} episode {one.index}",
        (f"{'; '.join(ends)}. A crossed-out shape is a collision; thin lines are the other vehicles.",),
        pictures=_pictures(*figures.replay_pictures(shown)),
        legend=_legend(material, with_float=True),
        large=True,
    )


def _provenance(material: Material) -> Iterator[Block]:
    yield Block("The settings as a command", (tables.command(material),))
    yield Block("", table=tables.settings(material))
    yield Block("Hashes", table=tables.hashes(material))
    yield Block("Versions, host and time", table=tables.versions(material))
    yield Block("Limits in force", table=tables.limits(material), folded=True)
    if material.policy.facts:
        yield Block("What is known of the policy", table=tables.facts(material), folded=True)
    yield Block("Files", table=tables.files(material), folded=True)
