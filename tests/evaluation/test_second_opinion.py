"""What two worlds say of the same drivers, whether they agree, and that nothing but the episodes decides it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quant.errors import InputError, StaleError
from quant.evaluation.evaluation import FLOAT, ClosedLoop, Evaluation
from quant.evaluation.outcomes import SliceOutcome
from quant.evaluation.power import detectable_drop
from quant.evaluation.second_opinion import COLLISIONS, SUCCESS, SecondOpinion, _first, ask, load_second_opinion
from quant.evaluation.statistics import Paired
from quant.policy import load_policy
from quant.worlds.reference import reference_policy_path
from quant.worlds.scenarios import ScenarioSet
from quant.worlds.sumo import SUMO
from quant.worlds.world import CONVOY, load_world
from tests.evaluation.synthetic import candidate, evaluated, outcome, reference, undriven_reference

TRACKS = ("ptq", "qat")
FEW = {"nominal": 200, "lossy": 100}
MANY = {"nominal": 400, "lossy": 200}

Failures = Mapping[str, tuple[int, int]]
"""How many episodes of a slice each driver fails, and from which on."""
USUAL: Failures = {FLOAT: (4, 0), "ptq": (4, 2), "qat": (4, 1), "neutral": (90, 0), "float-3bit": (60, 0)}


def world(counts: Mapping[str, int], failures: Failures) -> dict[str, Evaluation]:
    def slices(driver: str) -> tuple[SliceOutcome, ...]:
        return tuple(outcome(name, n, *failures[driver]) for name, n in counts.items())

    original = slices(FLOAT)
    gate = {name: slices(name) for name in failures if name not in (FLOAT, *TRACKS)}
    found = {FLOAT: replace(reference(), closed_loop=ClosedLoop(original, (), gate))}
    for track in TRACKS:
        own = slices(track)
        tables = tuple(Paired.of(f.success, c.success) for f, c in zip(original, own, strict=True))
        undriven = evaluated(candidate(track), None)
        found[track] = replace(undriven, world={"specification": "synthetic"}, closed_loop=ClosedLoop(own, tables))
    return found


def opinion(convoy: Failures = USUAL, sumo: Failures = USUAL) -> SecondOpinion:
    driven = {name: replace(one, open_loop=None) for name, one in world(FEW, sumo).items()}
    return SecondOpinion("1.28.0", "krauss", 0.1, world(MANY, convoy), driven)


def test_worlds_without_a_difference_agree() -> None:
    found = opinion()
    assert found.agrees and found.sentences[0].startswith("SUMO agrees")
    assert not any("DISAGREEMENT" in sentence for sentence in found.sentences)
    visible = max(detectable_drop(one.tables[SUMO], 0.05 / 6) or 1 for one in found.contrasts)
    assert f"would have shown {100 * visible:.1f} points of success lost" in found.sentences[1]


def test_a_difference_that_only_one_world_shows_is_said() -> None:
    found = opinion(sumo={**USUAL, "ptq": (30, 2)})
    apart = [contrast for contrast in found.contrasts if not contrast.agrees]
    assert {(c.figure, c.reference, c.other) for c in apart} == {
        (figure, *pair) for figure in (SUCCESS, COLLISIONS) for pair in ((FLOAT, "ptq"), ("ptq", "qat"))
    }
    # Whoever fails collides here: ptq more often than float and than qat, so qat is the better one of the last two.
    assert {c.relation(CONVOY) for c in apart} == {0}
    assert {(c.figure, c.other): c.relation(SUMO) for c in apart} == {
        (figure, other): way for figure in (SUCCESS, COLLISIONS) for other, way in (("ptq", -1), ("qat", 1))
    }
    assert not found.agrees and "DISAGREES" in found.sentences[0] and "stays" in found.sentences[0]
    assert str(apart[0]) in found.sentences and str(apart[0]).startswith("DISAGREEMENT: ptq against float, success")


def test_worlds_that_contradict_each_other_say_so() -> None:
    found = opinion({**USUAL, FLOAT: (40, 0)}, {**USUAL, "ptq": (40, 2)})
    assert str(found.contrasts[0]).startswith("CONTRADICTION: ptq against float")
    assert "better in the convoy world" in str(found.contrasts[0]) and "worse in SUMO" in str(found.contrasts[0])


def test_worlds_that_see_the_same_difference_agree() -> None:
    worse = {**USUAL, "ptq": (40, 2)}
    found = opinion(worse, worse)
    assert found.agrees and found.sentences[0].startswith("SUMO agrees with the convoy world on who drives better")
    assert any(sentence.startswith("ptq against float, success") for sentence in found.sentences)


def test_a_world_where_the_gates_actors_pass_gives_no_second_opinion() -> None:
    found = opinion(sumo={**USUAL, "neutral": (4, 0)})
    assert not found.agrees and found.sentences[0].startswith("NO SECOND OPINION: SUMO")
    assert set(found.blind[SUMO]) == {"nominal", "lossy"} and not found.blind[CONVOY]
    assert sum(sentence.startswith("BLIND: SUMO on ") for sentence in found.sentences) == 2


def test_only_the_scenarios_both_have_driven_are_compared() -> None:
    """The convoy world's last episodes, where ptq fails, are not among them."""
    found = opinion({**USUAL, "ptq": (90, 100)})
    own = {(one.driver, one.slice, one.world): one for one in found.figures}
    ptq = own["ptq", "lossy", CONVOY]
    assert ptq.n == 100 and ptq.averaged == 200 and ptq.success.value == 1
    assert ptq.versus_float == Paired(100, 96, 0, 4)
    assert own["ptq", "nominal", CONVOY].success.value == pytest.approx(1 - 90 / 200)
    assert own["ptq", "lossy", SUMO].averaged == 100


def test_a_difference_has_to_stand_among_all_that_are_tested() -> None:
    """Three losses without a win a slice have p = 0.03 alone, and six times that among the six contrasts."""
    found = opinion(sumo={**USUAL, "ptq": (7, 0)})
    first = found.contrasts[0]
    assert first.tables[SUMO].mcnemar() < 0.05 < first.p_values[SUMO]
    assert first.relation(SUMO) == 0


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    found = opinion(sumo={**USUAL, "ptq": (30, 2)})
    found.save(tmp_path / "sumo.json")
    again = load_second_opinion(tmp_path / "sumo.json", found.convoy)
    assert again.to_json() == found.to_json() and again.summary() == found.summary()


def test_sentences_are_made_again(tmp_path: Path) -> None:
    found, path = opinion(), tmp_path / "sumo.json"
    found.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "sentences": ["in the words of another version"]}))
    assert load_second_opinion(path, found.convoy).sentences == found.sentences


def _set(*path: Any) -> Callable[[Any], None]:
    *way, key, value = path

    def change(document: Any) -> None:
        for step in way:
            document = document[step]
        document[key] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("schema_version", 2),
        _set("sumo_version", 1),
        _set("success_drop_limit", None),
        _set("agrees", False),
        _set("sentences", None),
        _set("episodes", "nominal", 100),
        _set("evaluations", {}),
        _set("evaluations", "ptq", "closed_loop", "slices", 0, "versus_float", "losses", 0),
        _set("more", 1),
    ],
)
def test_a_file_that_does_not_hold_together_is_refused(tmp_path: Path, change: Callable[[Any], None]) -> None:
    found, path = opinion(), tmp_path / "sumo.json"
    found.save(path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises((InputError, StaleError)):
        load_second_opinion(path, found.convoy)


def test_what_is_of_another_run_is_stale(tmp_path: Path) -> None:
    found, path = opinion(), tmp_path / "sumo.json"
    found.save(path)
    other = {name: replace(one, hashes={**one.hashes, "scenarios": "d" * 64}) for name, one in found.convoy.items()}
    with pytest.raises(StaleError, match="other scenarios"):
        load_second_opinion(path, other)
    with pytest.raises(StaleError, match="is of float, ptq, qat"):
        load_second_opinion(path, {name: found.convoy[name] for name in (FLOAT, "ptq")})
    with pytest.raises(StaleError, match="more episodes"):
        load_second_opinion(path, world({"nominal": 200, "lossy": 99}, USUAL))
    with pytest.raises(InputError, match="driving was not tested"):
        load_second_opinion(path, {**found.convoy, FLOAT: undriven_reference()})


@pytest.fixture(scope="module")
def scenarios() -> ScenarioSet:
    return load_world("convoy").draw("test", 2, {"nominal": 48, "lossy": 16})


def asked(scenarios: ScenarioSet, episodes: Mapping[str, int], workers: int) -> SecondOpinion:
    policy = load_policy(reference_policy_path())
    return ask(policy, {}, scenarios, {FLOAT: reference()}, limit=0.1, episodes=episodes, workers=workers)


def test_workers_change_nothing_and_the_gates_actors_lose(scenarios: ScenarioSet) -> None:
    one, two = (asked(scenarios, {"nominal": 24, "lossy": 8}, workers) for workers in (1, 2))
    assert one.sumo[FLOAT].to_json() == two.sumo[FLOAT].to_json()
    assert one.episodes == {"nominal": 24, "lossy": 8}
    drivers = {(figures.driver, figures.world): figures for figures in one.figures if figures.slice == "nominal"}
    assert drivers[FLOAT, SUMO].success.value > 0.8
    assert max(drivers["neutral", SUMO].success.value, drivers["float-3bit", SUMO].success.value) < 0.65


def test_the_scenarios_driven_are_the_first_of_each_slice(scenarios: ScenarioSet) -> None:
    chosen = _first(scenarios, {"nominal": 5, "lossy": 2})
    for name, n in (("nominal", 5), ("lossy", 2)):
        assert chosen.of_slice(name).digest == scenarios.of_slice(name)[:n].digest
    assert chosen.slice_names == scenarios.slice_names


def test_the_first_scenarios_are_driven_and_at_least_one(scenarios: ScenarioSet) -> None:
    found = asked(scenarios, {"nominal": 0, "lossy": 999}, 1)
    assert found.episodes == {"lossy": 16}
    with pytest.raises(InputError, match="no episodes"):
        asked(scenarios, {"nominal": 0}, 1)
    with pytest.raises(InputError, match="scenarios of other"):
        asked(replace(scenarios, world="other"), {"nominal": 1}, 1)
