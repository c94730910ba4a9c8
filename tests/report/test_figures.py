"""Every number that a picture or table of the page shows is the one in the run's own files."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant.acceptance.comparison import Change, compare
from quant.anatomy import advise
from quant.dataset import Split
from quant.dataset.storage import Made
from quant.evaluation.evaluation import FLOAT, ClosedLoop, Evaluation
from quant.evaluation.outcomes import SliceOutcome
from quant.evaluation.second_opinion import SecondOpinion
from quant.evaluation.statistics import Estimate, Paired
from quant.report import against, captions, causes, figures, tables, worlds
from quant.report.html import page
from quant.report.markdown import summary
from quant.report.material import Interface, Material
from quant.runners import Int8Runner
from quant.runs.reading import open_run
from quant.runs.regression import snapshot
from tests.commandline import quant
from tests.report.conftest import TICKS

TRACKS = ("ptq", "qat")


def section(text: str, name: str) -> str:
    """The markup of one section."""
    found = re.search(rf'<section id="{name}">.*?</section>', text, re.DOTALL)
    assert found is not None, name
    return found[0]


def marks(text: str, name: str) -> Counter[str]:
    """What the marks of a section's pictures say when they are pointed at, and how often."""
    found = re.findall(r"<(?:circle|path|rect)[^>]*><title>(.*?)</title>", section(text, name), re.DOTALL)
    return Counter(map(unescape, found))


NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")


def numbers(words: str) -> list[float]:
    """All numbers of a text."""
    return [float(one) for one in NUMBER.findall(words)]


def words(text: str, name: str) -> str:
    """All text of a section in one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", section(text, name))).split())


def evaluated(folder: Path, track: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"eval_{track}.json").read_text())
    return found


def interval(name: str, one: dict[str, float], scale: float, unit: str) -> str:
    value, low, high = (scale * one[key] for key in ("value", "low", "high"))
    return f"{name}: {value:.4g} ({low:.4g} to {high:.4g}) {unit}"


def test_intervals_are_those_of_the_evaluations(driven: Path, driven_page: str) -> None:
    shown = marks(driven_page, "comparison")
    wanted = []
    for track in (FLOAT, *TRACKS):
        for own in evaluated(driven, track)["closed_loop"]["slices"]:
            wanted += [interval(track, own[key], 100, "% of episodes") for key in ("success", "collision")]
            wanted.append(interval(track, own["needless"], 1, "m/s an episode"))
            wanted.append(interval(track, own["reward"], 1, "an episode"))
            if track != FLOAT:
                wanted.append(interval(track, own["versus_float"]["difference"], 100, "percentage points"))
    assert len(wanted) == 2 * (4 + 5 + 5) and sum(shown.values()) == len(wanted)
    # The files keep six digits: a fourth may have been rounded from what they lack.
    for one, other in zip(sorted(shown.elements()), sorted(wanted), strict=True):
        assert NUMBER.sub("#", one) == NUMBER.sub("#", other)
        assert numbers(one) == pytest.approx(numbers(other), rel=4e-4)


def test_a_paired_difference_is_told_apart_only_if_its_interval_leaves_zero() -> None:
    def told(low: float, high: float) -> str:
        return captions.differences([("qat", Estimate((low + high) / 2, low, high))])

    assert "QAT: worse than float" in told(-2.0, -0.1) and "QAT: better than float" in told(0.1, 2.0)
    assert "QAT: not told apart" in told(-0.1, 2.0) and "QAT: not told apart" in told(-2.0, 0.0)


def test_the_trades_are_error_size_and_instructions(driven: Path, driven_material: Material, driven_page: str) -> None:
    shown = marks(driven_page, "cost")
    device = json.loads((driven / "device_rig.json").read_text())
    losses = {}
    for track in TRACKS:
        parts = (f"peer_encoder_{track}_int8.tflite", f"policy_head_{track}_int8.tflite")
        size = sum((driven / part).stat().st_size for part in parts)
        document = evaluated(driven, track)
        mae = document["open_loop"]["overall"]["mae"]
        slices = document["closed_loop"]["slices"]
        successes = sum(round(own["success"]["value"] * own["n"]) for own in slices)
        losses[track] = 100 * (1 - successes / sum(own["n"] for own in slices))
        longest = max(row["stages"]["total"]["p99"] for row in device["tracks"][track]["times"])
        assert shown[f"{track}: {size:.6g}, {mae:.4g}"] == 1
        assert shown[f"{track}: {size:.6g}, {losses[track]:.4g}"] == 1
        assert shown[f"{track}: {longest * TICKS / 1e6:.6g}, {mae:.4g}"] == 1
    assert sum(shown.values()) == 6
    policy = driven_material.policy
    encoder, head = (sum(layer.weight.size for layer in part) for part in (policy.encoder, policy.head))
    made = driven_material.candidates["ptq"]
    encoder += policy.encoder[0].outputs * (made.peer_input.size - policy.peer_size)  # residuals
    head += policy.head[0].outputs * (made.ego_input.size - policy.ego_size)
    macs = policy.max_peers * encoder + head
    assert f"All candidates take the same {macs:,} of them with {policy.max_peers} peers" in words(driven_page, "cost")


def test_errors_by_peers_are_those_of_the_evaluations(driven: Path, driven_page: str) -> None:
    wanted = []
    for track in TRACKS:
        for count, own in enumerate(evaluated(driven, track)["open_loop"]["by_peers"]):
            if own is not None:
                wanted.append(f"{track}, {count} peers: {own['mae']:.4g}")
                wanted.append(f"{track}, {count} peers: {100 * (1 - own['agreement']['value']):.4g}")
    assert marks(driven_page, "peers") == Counter(wanted) and len(wanted) > 20


def test_times_and_stages_are_those_of_the_board(driven: Path, driven_page: str) -> None:
    device = json.loads((driven / "device_rig.json").read_text())
    wanted = []
    for track in TRACKS:
        for row in device["tracks"][track]["times"]:
            peers, stages = row["peers"], dict(row["stages"])
            total = stages.pop("total")
            wanted.append(
                f"{track}, {peers} peers: p99 {total['p99']:.1f}, maximum {total['maximum']:.1f} µs",
            )
            wanted += [f"{peers} peers, {stage}: {own['median']:.1f} µs" for stage, own in stages.items()]
    assert marks(driven_page, "boards") == Counter(wanted)
    told = words(driven_page, "boards")
    assert "rig: emulated" in told and "Counted in emulation: instructions, not the time a chip takes." in told
    assert (
        "1 tests of this board left 1 figures" in told and "test_soak.py::test_soak[ptq] decisions 1,234 frames" in told
    )


@pytest.fixture(scope="module")
def explained(driven: Path) -> dict[str, Any]:
    done = quant("explain", driven, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_explain_says_of_a_finished_run_where_its_pictures_are(driven: Path) -> None:
    done = quant("explain", driven, "--track", "ptq")
    assert done.code == 0 and done.out.endswith(f"with pictures: quant report {driven}\n")


def test_costs_are_those_of_explain(explained: dict[str, Any], driven_page: str) -> None:
    shown, wanted = marks(driven_page, "causes"), []
    for track in TRACKS:
        own = explained["tracks"][track]
        whole = own["simulated"]["overall"]["cost"]
        for source in own["sources"]:
            change = 100 * (source["exact"]["overall"]["cost"] / whole - 1)
            cost = source["alone"]["overall"]["cost"]
            assert shown[f"{track}, {source['name']}: {cost:.3g}"] >= 1
            near = [
                float(k.split(": ")[1][:-2]) for k in shown if k.startswith(f"{track}, {source['name']}: ") and "%" in k
            ]
            # Where nothing changes the last digit that the document keeps shows.
            assert near == [pytest.approx(change, abs=2e-3, rel=5e-3)]
        for count, effect in enumerate(own["measured"]["by_peers"]):
            if effect is not None:
                name = "1 peer" if count == 1 else f"{count} peers"
                wanted.append(f"{name}: measured cost {effect['cost']:.3g}, {effect['n']} frames")
                for kind, kinds in (
                    ("inputs", ["input"]),
                    ("weights", ["weights"]),
                    ("activations", ["activations", "output"]),
                ):
                    costs = [s["alone"]["by_peers"][count]["cost"] for s in own["sources"] if s["kind"] in kinds]
                    wanted.append(f"{name}, {kind}: {sum(costs):.3g}")
    assert not Counter(wanted) - shown


def test_the_words_are_those_of_explain(explained: dict[str, Any], driven_page: str) -> None:
    told = words(driven_page, "causes")
    for track in TRACKS:
        advice = explained["tracks"][track]["advice"]
        assert advice
        for one in advice:
            assert one["why"][1:] in told and one["what"][1:] in told
        worst = explained["tracks"][track]["worst"][0]
        row = f"{track.upper()} {worst['parts_at']} largest alone: {worst['largest']} "
        assert row in told and f"{worst['origin']} {worst['row']:,} {worst['peers']} " in told
    assert all(sentence in told for sentence in explained["contrast"])


def test_clipping_and_ranges_are_those_of_explain(explained: dict[str, Any], driven_page: str) -> None:
    told = words(driven_page, "codes")
    for track in TRACKS:
        for source in explained["tracks"][track]["sources"]:
            if source["tensor"] is not None:
                own = source["tensor"]
                shares = " ".join(f"{own[key]:.2%}" for key in ("at_low", "at_high", "cut_off"))
                assert f"{shares} {own['beyond']:.1%} " in told
                used = sum(code > 0 for code in own["codes"])
                # With residuals there are more codes than the document counts one by one.
                assert f"{shares} {own['beyond']:.1%} {used} of 256" in told or source["kind"] == "input"


def test_bars_of_a_histogram_are_the_shares_of_the_codes(driven_material: Material) -> None:
    rows = driven_material.dataset.rows(Split.HELD_OUT, Made.SEEN)
    codes = Int8Runner(driven_material.candidates["qat"]).decide(driven_material.dataset.observations(rows)).outputs
    output = next(one for one in driven_material.frames.interfaces["qat"] if one.name == "output")
    shares = [
        float(share[:-1]) for share in re.findall(r"<rect[^>]*><title>(.*?)</title>", figures.histogram(1, output))
    ]
    inner = codes[(codes > -128) & (codes < 127)].astype(int)
    wanted = [
        np.mean((codes >= low) & (codes < low + 4) & (codes > -128) & (codes < 127)) for low in range(-128, 128, 4)
    ]
    wanted = [one for one in wanted if one > 0] + [
        one for one in (np.mean(codes == -128), np.mean(codes == 127)) if one > 0
    ]
    assert len(inner) and shares == [pytest.approx(100 * one, abs=5.1e-4) for one in wanted]


def test_65_536_codes_are_put_into_as_many_bars() -> None:
    rng = np.random.default_rng(0)
    codes = np.bincount(rng.integers(0, 65_536, 200_000), minlength=65_536).astype(np.int64)
    drawn = figures.histogram(1, Interface("output", codes, -32_768, (-1.0, 1.0), 0))
    bars = re.findall(r"<rect[^>]*><title>([\d.]+)%</title>", drawn)
    assert figures.BARS <= len(bars) <= figures.BARS + 2 and "-32768" in drawn and "32767" in drawn
    assert sum(map(float, bars)) == pytest.approx(100, abs=0.05) and len(drawn) < 15_000
    assert "65,536 codes occur" in tables.interface_words(Interface("output", codes, -32_768, None, None))


def halved(evaluation: Evaluation, episodes: int, wrong: int = 0) -> Evaluation:
    """The first episodes of every slice, the first ``wrong`` of each failed, as if another world had said so."""
    loop = evaluation.closed_loop
    assert loop is not None

    def cut(slices: tuple[SliceOutcome, ...], wrong: int) -> tuple[SliceOutcome, ...]:
        made = []
        for own in slices:
            assert own.collision is not None
            success = np.where(np.arange(episodes) < wrong, False, own.success[:episodes])
            made.append(replace(own, success=success, collision=own.collision[:episodes]))
        return tuple(made)

    gate = {name: cut(tuple(slices), 0) for name, slices in loop.gate.items()}
    return replace(evaluation, closed_loop=ClosedLoop(cut(loop.slices, wrong), (), gate), open_loop=None)


def test_both_worlds_stand_side_by_side_and_what_parts_them_is_said(driven_material: Material) -> None:
    wrong = {FLOAT: 0, "ptq": 0, "qat": 30}
    convoy = driven_material.evaluations
    sumo = {track: halved(one, 40, wrong[track]) for track, one in convoy.items()}
    opinion = SecondOpinion("1.0", "krauss", 0.1, convoy, sumo)
    made = page(replace(driven_material, second=opinion))
    told, shown = words(made, "worlds"), marks(made, "worlds")
    assert "SUMO DISAGREES with the convoy world on" in told and "SUMO 1.0 (car-following: krauss)" in told
    for sentence in opinion.sentences:
        assert sentence[1:] in told
    for one in opinion.figures:
        if one.driver in wrong:
            value, low, high = (100 * end for end in (one.success.value, one.success.low or 0, one.success.high or 0))
            assert shown[f"{one.driver}: {value:.4g} ({low:.4g} to {high:.4g}) % of episodes"] >= 1
    table = worlds.table(opinion, "nominal")
    rows = {(row[0].text, row[1].text): [cell.text for cell in row[2:]] for row in table.rows}
    original = sumo[FLOAT].closed_loop, sumo["qat"].closed_loop
    assert original[0] is not None and original[1] is not None
    paired = Paired.of(original[0].slices[0].success, original[1].slices[0].success)
    assert rows["QAT", "SUMO"][4:] == [f"{paired.losses} : {paired.wins}", f"{paired.mcnemar():.2g}"]
    assert paired.losses > 20 and "all its 120 episodes" in table.notes[-1]
    assert "SUMO DISAGREES" in summary(replace(driven_material, second=opinion))


def test_a_page_without_a_second_opinion_or_a_baseline_has_no_such_section(driven_page: str) -> None:
    assert 'id="worlds"' not in driven_page and 'id="baseline"' not in driven_page


def test_the_baseline_stands_on_the_page_figure_by_figure(
    driven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert quant("accept", driven).code == 0
    baseline = json.loads((tmp_path / "baseline.json").read_text())
    baseline["subjects"]["qat"]["peer_encoder_bytes"]["value"] = 100
    (tmp_path / "other.json").write_text(json.dumps(baseline))
    # The project's own baseline is taken where none is named.
    assert quant("report", driven, "-o", tmp_path / "same.html").code == 0
    assert quant("report", driven, "-o", tmp_path / "worse.html", "--baseline", tmp_path / "other.json").code == 0
    same, worse = (words((tmp_path / name).read_text(), "baseline") for name in ("same.html", "worse.html"))
    assert "No regression" in same and "✖" not in same
    assert "REGRESSION: qat peer_encoder_bytes 100 bytes" in worse and "✖ worse" in worse
    found = compare(snapshot(open_run(driven)), snapshot(open_run(driven)))
    rows = [row for row in against.table(found).rows if not row[0].mark]
    subjects = list(dict.fromkeys(one.subject for one in found.findings))
    by_subject = sorted(found.findings, key=lambda one: subjects.index(one.subject))
    assert [row[0].text for row in rows] == [one.name for one in by_subject]
    assert {row[-1].text for row in rows} == {Change.SAME.value}
    assert quant("report", driven, "-o", tmp_path / "none.html", "--baseline", tmp_path / "no.json").code == 2


def test_a_change_too_large_for_its_picture_stands_at_the_edge_with_its_value(driven_material: Material) -> None:
    series = {"ptq": 1}
    own = driven_material.anatomies["ptq"]
    cost = own.simulated.overall.cost
    first, *rest = own.sources
    for times, label in ((1.4, None), (9.0, "+800 %")):
        overall = replace(first.exact.overall, cost=times * cost)
        made = replace(own, sources=(replace(first, exact=replace(first.exact, overall=overall)), *rest))
        drawn = causes.exact(series, {"ptq": made})
        labels = re.findall(r">([^<]* %) →</text>", drawn)
        assert labels == ([] if label is None else [label])
        # The others stay where they can be told apart: the axis ends near the edge, not at the value.
        assert f"ptq, {first.name}: {100 * (times - 1):+.3g} %" in drawn and "1,000" not in drawn


@pytest.mark.parametrize(("times", "words"), [(1.5, "would grow by 50%"), (9.0, "would be 9 times as large")])
def test_advice_says_a_great_rise_as_a_multiple(driven_material: Material, times: float, words: str) -> None:
    own = driven_material.anatomies["ptq"]
    name = "encoder 1 weights"
    effects = own.source(name).exact
    overall = replace(effects.overall, cost=times * own.simulated.overall.cost)
    changed = replace(own.source(name), share=0.05, exact=replace(effects, overall=overall))
    made = replace(own, sources=tuple(changed if one.name == name else one for one in own.sources))
    assert [words in one.why for one in advise(made) if one.source == name] == [True]
