"""How far a verdict reaches: every figure of coverage, unseen drives and stress on the page is the run's own."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from quant.dataset.filling import fill, impossible
from quant.evaluation.evaluation import FLOAT
from quant.evaluation.unseen import Unseen
from quant.observation.contract import Column
from quant.observation.coverage import Coverage, physical_ends
from quant.observation.resolve import Sizes, resolve
from quant.report import reach, tables
from quant.report.html import page
from quant.report.markdown import summary
from quant.report.material import Material
from quant.report.sweeping import FINE, Feature, frames_of, sweep
from quant.runners import FloatRunner, Int8Runner
from tests.report.test_figures import marks, words


@pytest.fixture(scope="module")
def left_out(driven_material: Material) -> Material:
    """Every candidate was also made without each of two drives, on the second of which it errs three times as much."""
    evaluations = dict(driven_material.evaluations)
    for track in driven_material.candidates:
        opened = evaluations[track].open_loop
        assert opened is not None
        worse = replace(opened.overall, n=700, mae=3 * opened.overall.mae, max_error=9.0)
        drives = Unseen("north.npz", "1" * 64, opened.overall), Unseen("south.npz", "2" * 64, worse)
        evaluations[track] = replace(evaluations[track], unseen=drives)
    return replace(driven_material, evaluations=evaluations)


@pytest.fixture(scope="module")
def cut_material(stressed_material: Material) -> Material:
    """The first candidate represents a quarter of the ego's first feature."""
    made = stressed_material.candidates["ptq"]
    gain = made.ego_input.gain.copy()
    gain[0] *= 4
    bad = replace(made, ego_input=replace(made.ego_input, gain=gain))
    return replace(stressed_material, candidates={**stressed_material.candidates, "ptq": bad})


def test_coverage_is_drawn_column_by_column(stressed_material: Material, stressed_page: str) -> None:
    shown = marks(stressed_page, "coverage")
    columns = [one for one in stressed_material.coverage if one.lag == 0]
    assert len(columns) > 8
    for one in columns:
        declared = physical_ends(one.column, (one.column.low, one.column.high))
        assert shown[f"{one.name}: declared {declared}"] == 1
        assert shown[f"{one.name}: recorded {physical_ends(one.column, one.recorded)}"] == 1
        for track, ends in one.represented.items():
            assert shown[f"{track}, {one.name}: represents {physical_ends(one.column, ends)}"] == 1
    assert sum(shown.values()) == len(columns) * (2 + len(stressed_material.candidates))
    told = words(stressed_page, "coverage")
    first = columns[0]
    row = f"{first.name} {physical_ends(first.column, first.recorded)} "
    assert row in told and "Every candidate represents all that is declared." in told and "\u00d7" not in told


def test_what_is_cut_off_is_crossed_out_and_said(cut_material: Material) -> None:
    made = page(cut_material)
    told = words(made, "coverage")
    [one] = [one for one in cut_material.coverage if one.kind == "ego" and one.index == 0]
    assert one.short == ("ptq",)
    ends = physical_ends(one.column, one.represented["ptq"])
    assert f"PTQ represents {one.name} {ends} only" in told and "\u00d7" in told
    assert re.search(rf'class="bad[^"]*">{re.escape(ends)}', made)
    text = summary(cut_material).partition("## Coverage")[2]
    assert f"{ends} (cuts off {one.saturated['ptq']:.2%} of what was seen)" in text


def column(name: str, *, lag: int = 0, high: float = 1.0, declared: bool = True, most: float = 1.0) -> Coverage:
    origin = "file" if declared else "margin"
    what = Column(name, "m/s", 30.0, 0.0, high, known={"low": "file", "high": origin})  # type: ignore[dict-item]
    return Coverage("ego", 0, what, (0.0, 0.4), {"ptq": (-0.01, most)}, {"ptq": 0.0}, lag)


def test_where_nobody_declared_it_says_up_to_where_a_feature_is_trusted() -> None:
    known, unknown = column("speed"), column("gap", declared=False, high=0.5)
    assert reach.trusted([known]) is None
    found = reach.trusted([known, unknown, column("gap", lag=1, declared=False)])
    assert found is not None and [[cell.text for cell in row] for row in found.rows] == [
        ["ego gap", "0 to 15 m/s", "0 to 12 m/s"]
    ]
    # No further than what every candidate represents.
    short = reach.trusted([column("gap", declared=False, high=0.5, most=0.45)])
    assert short is not None and short.rows[0][1].text == "0 to 13.5 m/s"


def test_older_frames_are_drawn_only_where_something_is_cut_off() -> None:
    columns = [column("speed"), column("speed", lag=1), column("speed", lag=2, most=0.4)]
    assert reach.columns_shown(columns) == [columns[0], columns[2]]
    many = [column(f"x{k}", most=0.4 if k == 50 else 1.0) for k in range(60)]
    shown = reach.columns_shown(many)
    assert len(shown) == reach.MOST and many[50] in shown and shown == sorted(shown, key=many.index)


def test_unseen_drives_stand_beside_the_seen_ones(left_out: Material) -> None:
    made = page(left_out)
    told, shown = words(made, "unseen"), marks(made, "unseen")
    for track in left_out.candidates:
        opened = left_out.evaluations[track].open_loop
        assert opened is not None
        seen = opened.overall.mae
        assert shown[f"{track}, north.npz: {seen:.4g}, seen {seen:.4g}"] == 1
        assert shown[f"{track}, south.npz: {3 * seen:.4g}, seen {seen:.4g}"] == 1
        assert f"{track.upper()} 3.00 times on south.npz" in told
    for title in (
        "seen drives, held-out frames, n = ",
        "north.npz, made without it, n = ",
        "south.npz, made without it, n = 700",
    ):
        assert title in told
    assert "mean error, to the seen one 3.00 times 3.00 times" in told
    assert "## Unseen drives" in summary(left_out)
    cards = {label: value for label, value, _ in tables.key_figures(left_out)}
    assert cards["missed : false actions"] == "not looked at"
    assert cards["same action, unseen drive"].endswith("%")


def test_without_an_unseen_drive_the_page_says_so(recorded_page: str, driven_page: str) -> None:
    assert "Nothing unseen was looked at" in words(recorded_page, "unseen")
    assert '<section id="unseen">' not in driven_page  # there was no drive to leave out


def test_the_stress_test_is_the_runs(stressed_material: Material, stressed_page: str) -> None:
    stress, told = stressed_material.stress, words(stressed_page, "stress")
    assert stress is not None
    tracks = list(stress.tracks.values())
    assert " ".join(["frames", *(f"{one.within.frames:,}" for one in tracks)]) in told
    assert " ".join(["missed : false", *(f"{one.within.missed} : {one.within.false}" for one in tracks)]) in told
    for group, name in (("corners", "at the ends of the range"), ("beyond", "just beyond the bounds")):
        each = [one.groups[group] for one in tracks]
        assert " ".join([name, *(f"{one.missed} : {one.false}, {one.worst:.3f}" for one in each)]) in told
    assert f"Float is not settled on {stress.unsettled.share:.1%} of" in told
    for track, kept in stress.worst.items():
        reference = ", ".join(f"{value:.3g}" for value in kept.reference[0])
        assert f"{track.upper()} " in told and reference in told
    text = summary(stressed_material)
    assert "## Stress" in text and all(reach.worst_table(stress).rows)


def test_nobody_stressed_it_is_said(driven_page: str) -> None:
    assert "Not stressed: nobody looked" in words(driven_page, "stress")


def test_a_sweep_goes_through_the_worst_frame(stressed_material: Material, stressed_page: str) -> None:
    stress, policy = stressed_material.stress, stressed_material.policy
    assert stress is not None
    shown = marks(stressed_page, "stress")
    for track in stressed_material.candidates:
        found = sweep(stress, policy, stressed_material.candidates, track)
        assert found is not None and len(found.values) in (FINE, FINE + 1)
        assert (found.values[0], found.values[-1]) == pytest.approx((found.column.low, found.column.high))
        # At its own value it is the frame that was found, decided by each as it is.
        place = int(np.argmin(np.abs(found.values - found.at)))
        kept = stress.worst[track]
        frame = kept.observations[:1]
        assert found.at == pytest.approx(found.feature.value(frame))
        runners = {FLOAT: FloatRunner(policy)} | {t: Int8Runner(c) for t, c in stressed_material.candidates.items()}
        for name, runner in runners.items():
            value = float(runner.values(frame)[0, found.component])
            assert found.outputs[name][place] == pytest.approx(value, abs=1e-5)
            assert (
                shown[f"{name}, {found.name} {found.column.physical(found.at)}: {found.outputs[name][place]:.4g}"] >= 1
            )
        assert found.difference >= float(kept.deviation[0]) - 1e-6
        # It is a feature that the difference hangs on.
        apart = np.abs(found.outputs[track] - found.outputs[FLOAT])
        assert apart.max() - apart.min() > 0.1 * apart.max()


def test_frames_of_a_sweep_can_occur() -> None:
    # Three stacked frames with functions of the peers: whatever is moved, all that hangs on it moves along.
    contract = resolve(Sizes(18, 6, 8), None, [])
    frames = fill(contract, 90, 0)
    base = frames[np.flatnonzero(frames.counts == 3)[:1]]
    for feature in (Feature(12), Feature(0, 1), Feature(2, 0), Feature(4, 2)):
        column = feature.column(contract)
        assert column.copy_of is None and column.low is not None and column.high is not None
        swept = frames_of(contract, base, feature, np.linspace(column.low, column.high, 40))
        assert not any(broken.any() for broken in impossible(contract, swept).values())
        moved = swept.ego[:, feature.index] if feature.slot is None else swept.peers[:, feature.slot, feature.index]
        assert np.ptp(moved) == pytest.approx(column.high - column.low, abs=1e-5)


def test_a_feature_that_is_cut_off_is_swept_before_others(cut_material: Material) -> None:
    stress = cut_material.stress
    assert stress is not None
    found = stress.worst["ptq"]
    ego = found.observations.ego.copy()
    ego[:, 0] = stress.contract.ego[0].high
    frames = replace(found.observations, ego=ego)
    moved = replace(stress, found=replace(found, observations=frames))
    swept = sweep(moved, cut_material.policy, cut_material.candidates, "ptq")
    assert swept is not None and swept.feature == Feature(0)


def test_frames_of_each_kind_stand_apart_and_exact_ones_count(driven_material: Material, driven_page: str) -> None:
    told = words(driven_page, "comparison")
    opened = driven_material.evaluations["ptq"].open_loop
    assert opened is not None
    counts = {name: one.n for name, one in opened.by_origin}
    assert set(counts) == {"rollout", "augmented", "filled"}
    assert f"rollout: what counts, n = {counts['rollout']:,}" in told
    assert f"augmented, n = {counts['augmented']:,}" in told and f"filled, n = {counts['filled']:,}" in told
    exact = {"rollout": 17, "filled": 0}
    reference = replace(driven_material.evaluations[FLOAT], exact=exact)
    table = tables.frames({**driven_material.evaluations, FLOAT: reference})
    assert table.notes == (
        f"Without any error in every candidate: 17 of {counts['rollout']:,} rollout frames. They dilute a mean.",
    )


def test_features_are_called_by_their_names(stressed_material: Material, stressed_page: str) -> None:
    assert stressed_material.dataset.contract.ego[0].name == "speed"
    assert re.search(r"ego speed \S+ m/s, acceleration ", words(stressed_page, "causes"))
    assert "ego feature 0" not in stressed_page and "feature 0" not in stressed_page
