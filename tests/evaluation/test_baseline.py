"""`baseline.json`: it comes back as it was written, keeps its rules, and nothing garbled is taken for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant.acceptance.accepting import Acceptance, accept, consider
from quant.acceptance.baseline import RULES, Rule, Snapshot, check_present, load_baseline
from quant.acceptance.comparison import compare
from quant.errors import InputError
from tests.evaluation.snapshots import figure as figure_of
from tests.evaluation.snapshots import outcomes, sampled, snapshot, with_figure, without

Change = Callable[[dict[str, Any]], Any]


def accepted(run: Snapshot, path: Path) -> Acceptance:
    """With whatever speaks against it."""
    found = consider(run, path)
    accept(found)
    return found


def test_it_comes_back_and_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    accepted(snapshot(), path)
    again = load_baseline(path)
    assert again.to_json() == snapshot().to_json()
    bits = again.subjects["ptq"][0].bits
    assert bits is not None and int(bits.sum()) == 1960 and not np.any(bits[:40])
    assert compare(again, snapshot()).headline == "No regression: 8 figures hold."
    before = path.read_bytes()
    accepted(snapshot(), path)
    assert path.read_bytes() == before


def test_rules_set_by_hand_hold_and_outlive_the_next_acceptance(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    accepted(snapshot(), path)
    document = json.loads(path.read_text())
    document["rules"]["latency_p99"]["missing"] = "ignore"
    document["rules"]["success[nominal]"] = {**document["rules"]["success"], "absolute": 0.002}
    path.write_text(json.dumps(document))
    accepted(snapshot(name="later"), path)
    kept = load_baseline(path)
    assert kept.name == "later"
    assert kept.rules["latency_p99"].missing == "ignore" and kept.rules["collision"] == RULES["collision"]
    assert kept.rule(kept.subjects["ptq"][0]).absolute == 0.002


def test_absolute_limits_are_not_in_it() -> None:
    assert "limits" not in snapshot().to_json()


def test_a_run_without_a_winner_is_not_accepted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a baseline needs a winner"):
        consider(snapshot(winner=None), tmp_path / "baseline.json")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_baseline_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="quant accept RUN"):
        check_present(tmp_path / "baseline.json")


def test_the_larger_tolerance_counts() -> None:
    rule = Rule("lower", "m/s", absolute=0.02, relative=0.1)
    assert (rule.tolerance(0.1), rule.tolerance(-0.5)) == (0.02, 0.05)


DAMAGE: dict[str, Change] = {
    "another version": lambda d: d.update(schema_version=1),
    "no interface": lambda d: d.pop("interface"),
    "a version that is a number": lambda d: d["toolchain"].update(numpy=2),
    "true is no version": lambda d: d.update(schema_version=True),
    "no subjects": lambda d: d.pop("subjects"),
    "a winner that is no candidate": lambda d: d.update(winner="int16x8"),
    "no winner": lambda d: d.update(winner=None),
    "an unknown key": lambda d: d.update(comment="mine"),
    "a figure without a rule": lambda d: d["rules"].pop("mae"),
    "a rule without a direction": lambda d: d["rules"]["mae"].pop("better"),
    "a direction that is none": lambda d: d["rules"]["mae"].update(better="larger"),
    "a missing rule that is none": lambda d: d["rules"]["mae"].update(missing="skip"),
    "a negative tolerance": lambda d: d["rules"]["mae"].update(relative=-0.1),
    "a tolerance in words": lambda d: d["rules"]["mae"].update(relative="10 %"),
    "a figure without conditions": lambda d: d["conditions"].pop("driving"),
    "a nicer figure": lambda d: figure(d)["success[nominal]"].update(value=0.9),
    "nicer episodes": lambda d: figure(d)["success[nominal]"]["episodes"].update(bits="AAAA"),
    "fewer episodes": lambda d: figure(d)["success[nominal]"].update(n=100),
    "no episodes at all": lambda d: figure(d)["success[nominal]"].update(n=0),
    "a figure in words": lambda d: figure(d)["mae[recorded]"].update(value="small"),
    "an interval with one end": lambda d: figure(d)["needless[nominal]"].update(interval=[0.1]),
    "evidence that is none": lambda d: figure(d)["mae[recorded]"].update(evidence="hoped"),
    "a table that is a list": lambda d: d.update(subjects=[1]),
}


def figure(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["subjects"]["ptq"]
    return found


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_an_input_error(damage: Change, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    document = json.loads(json.dumps(snapshot().to_json()))
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"baseline\.json") as caught:
        load_baseline(path)
    assert "quant accept RUN --force" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"schema_version": NaN}'])
def test_what_is_no_baseline_is_an_input_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(text)
    with pytest.raises(InputError):
        load_baseline(path)


def test_a_baseline_that_cannot_be_read_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_text("{}")
    found = consider(replace(snapshot(), name="later"), path)
    assert found.exit_code == 2 and "its rules would be lost" in found.objection and found.comparison is None
    assert path.read_text() == "{}"
    accept(found)
    assert load_baseline(path).name == "later"


def test_the_first_baseline_and_an_equal_one_need_no_force(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    first = accepted(snapshot(), path)
    assert (first.objection, first.exit_code, first.comparison, first.dropped) == ("", 0, None, ())
    again = consider(snapshot(name="later"), path)
    assert (again.objection, again.exit_code) == ("", 0) and again.comparison is not None
    assert again.comparison.before == "before"


def test_a_worse_run_or_one_that_cannot_be_compared_is_accepted_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    accepted(snapshot(), path)
    worse = consider(with_figure(snapshot(), sampled("success", outcomes(140))), path)
    assert (
        worse.exit_code == 1 and worse.objection == "now is worse than the baseline it would take the place of, before"
    )
    other = consider(snapshot(name="now", interface="ego 4, 8 peers of 6, Discrete(4)"), path)
    assert other.exit_code == 2 and "not comparable with the baseline" in other.objection
    assert load_baseline(path).name == "before"


def test_a_run_that_later_ones_could_not_be_held_against_needs_force_from_the_start(tmp_path: Path) -> None:
    found = consider(snapshot(blind={"nominal": "the world is blind"}), tmp_path / "baseline.json")
    assert (found.exit_code, found.objection) == (2, "no later run could be held against it: the world is blind")
    accepted(snapshot(), tmp_path / "baseline.json")
    later = consider(snapshot(blind={"nominal": "the world is blind"}), tmp_path / "baseline.json")
    assert (later.exit_code, later.comparison and later.comparison.exit_code) == (1, 1)


def test_what_a_new_baseline_would_no_longer_hold_is_said_even_where_that_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    rules = {**RULES, "latency_p99": replace(RULES["latency_p99"], missing="ignore")}
    accepted(snapshot(rules=rules), path)
    found = consider(without(snapshot(), "latency_p99[measured esp32]"), path)
    assert (found.objection, found.dropped) == ("", ("ptq latency_p99[measured esp32]",))
    assert found.to_json()["dropped"] == ["ptq latency_p99[measured esp32]"]
    better = consider(
        with_figure(snapshot(rules=rules), figure_of("heap_free", "measured esp32", 2e5, "measured esp32")), path
    )
    assert (better.objection, better.dropped) == ("", ())
