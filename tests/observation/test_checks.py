"""What is done to a drive is found and named; a drive to which nothing was done is left in peace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quant.dataset import Recording, read_drive
from quant.dataset.build import contract_of, held_to_contract
from quant.errors import InputError
from quant.observation.checks import bound_findings, mask_findings, world_findings
from quant.observation.contract import Column
from quant.observation.findings import (
    NAMES,
    Finding,
    check_names,
    findings_from_json,
    findings_to_json,
    refuse,
)
from quant.observation.observations import Observations
from quant.observation.resolve import Bounds, Series
from quant.policy import Policy, load_policy
from tests.observation import drives
from tests.observation.drives import Arrays
from tests.tracks import strategies

MADE = {5: drives.drive(5), 6: drives.drive(6)}


def found_in(path: Path, arrays: Arrays, policy: Policy, *others: Arrays) -> tuple[Finding, ...]:
    """Everything found, refused or not."""
    paths = [drives.write(path / f"{number}.npz", one) for number, one in enumerate((arrays, *others))]
    return held_to_contract(policy, [read_drive(one, policy, NAMES) for one in paths], allow=NAMES)


def changed(arrays: Arrays, change: Callable[[Arrays], None]) -> Arrays:
    """A copy with something done to it."""
    copy = {key: array.copy() for key, array in arrays.items()}
    change(copy)
    return copy


def column(key: str, index: int, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], None]:
    """Does something to one column."""

    def apply(arrays: Arrays) -> None:
        arrays[key][..., index] = change(arrays[key][..., index])

    return apply


def swap(key: str, one: int, other: int) -> Callable[[Arrays], None]:
    """Puts two columns in each other's place."""

    def apply(arrays: Arrays) -> None:
        arrays[key][..., [one, other]] = arrays[key][..., [other, one]]

    return apply


def late(key: str, index: int, frames: int) -> Callable[[Arrays], None]:
    """Delays one column, as a recorder that clears absent peers writes it."""

    def apply(arrays: Arrays) -> None:
        arrays[key][frames:, ..., index] = arrays[key][:-frames, ..., index].copy()
        arrays["peers"][arrays["peer_mask"] == 0] = 0

    return apply


def times(factor: float, *keys: str) -> Callable[[Arrays], None]:
    """Multiplies whole arrays."""

    def apply(arrays: Arrays) -> None:
        for key in keys:
            arrays[key] = arrays[key] * factor

    return apply


SPEED, ACCELERATION, NUMBER, LOWEST, BRAKING, CLOSING = range(6)
X, Y, REL_SPEED, REL_HEADING, THEIRS, AGE = range(6)
DONE: dict[str, tuple[int, Callable[[Arrays], None], str, tuple[int, ...] | None, str]] = {
    "speed in m/s": (6, column("ego", SPEED, lambda v: v * 30), "column-scaled", (SPEED,), "times 30: in m/s"),
    "a speed in km/h": (6, column("ego", SPEED, lambda v: v * 108), "column-scaled", (SPEED,), "times"),
    "distance in metres": (6, column("peers", X, lambda v: v * 100), "column-scaled", (X,), "times 100: in m"),
    "distance divided twice": (6, column("peers", X, lambda v: v / 100), "column-scaled", (X,), "divided by 100"),
    "age in ms": (6, column("peers", AGE, lambda v: v * 500), "column-scaled", (AGE,), "times 500: in ms"),
    "heading in degrees": (5, column("ego", 2, lambda v: v * 180), "column-scaled", (2,), "180, degrees"),
    "a number of peers": (6, column("ego", NUMBER, lambda v: v * 8), "column-scaled", (NUMBER,), "times 8"),
    "braking received in percent": (6, column("ego", BRAKING, lambda v: v * 100), "column-scaled", (4,), "times 100"),
    "all in other units": (6, times(30, "ego", "peers"), "all-scaled", None, "ego's and peers' columns are times 30"),
    "the ego not normalized": (5, times(10, "ego"), "all-scaled", None, "ego's columns are times 10"),
    "speed backwards": (6, column("ego", SPEED, np.negative), "sign-flipped", (SPEED,), "sign"),
    "acceleration backwards": (6, column("ego", ACCELERATION, np.negative), "sign-flipped", (ACCELERATION,), "sign"),
    "closing for opening": (6, column("peers", REL_SPEED, np.negative), "sign-flipped", (REL_SPEED,), "sign"),
    "heading the other way": (5, column("ego", 2, np.negative), "sign-flipped", (2,), "sign"),
    "right for left": (5, column("peers", Y, np.negative), "sign-flipped", (Y,), "sign"),
    "right for left without a heading": (
        6,
        column("peers", Y, np.negative),
        "sign-flipped",
        (Y, REL_HEADING),
        "or that",
    ),
    "speed and acceleration": (6, swap("ego", 0, 1), "columns-swapped", (0, 1), "each other's place"),
    "two functions": (6, swap("ego", LOWEST, CLOSING), "columns-swapped", (LOWEST, CLOSING), "each other's place"),
    "ahead and aside": (6, swap("peers", X, Y), "columns-swapped", (X, Y), "each other's place"),
    "age and acceleration": (6, swap("peers", THEIRS, AGE), "columns-swapped", (THEIRS, AGE), "each other's place"),
    "speed late": (6, late("ego", SPEED, 4), "column-late", (SPEED,), "4 frames late"),
    "the number of peers late": (6, late("ego", NUMBER, 3), "column-late", (NUMBER,), "3 frames late"),
    "their acceleration late": (6, late("peers", THEIRS, 2), "column-late", (THEIRS,), "2 frames late"),
    "speed with something added": (6, column("ego", SPEED, lambda v: v + 0.2), "column-offset", (SPEED,), "+0.2"),
    "lowest with something added": (6, column("ego", LOWEST, lambda v: v + 0.2), "column-offset", (LOWEST,), "+0.2"),
    "seconds under t_ms": (6, times(1e-3, "t_ms"), "time-unit", (), "it counts seconds"),
    "microseconds under t_ms": (6, times(1e3, "t_ms"), "time-unit", (), "it counts microseconds"),
    "ten milliseconds": (6, times(0.1, "t_ms"), "time-unit", (), "1/10 of the milliseconds"),
    "a second": (6, times(10, "t_ms"), "time-unit", (), "10 times the milliseconds"),
}


@pytest.mark.parametrize("case", DONE)
def test_what_was_done_is_named(case: str, tmp_path: Path) -> None:
    ego, change, name, indices, cause = DONE[case]
    found = found_in(tmp_path, changed(MADE[ego], change), drives.policy(ego))
    named = [one for one in found if one.name == name and (indices is None or set(one.indices) == set(indices))]
    assert len(named) == 1, [one.text for one in found]
    assert cause in named[0].cause, named[0].text


@pytest.mark.parametrize("ego", [5, 6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_drive_to_which_nothing_was_done_is_left_in_peace(tmp_path: Path, ego: int, seed: int) -> None:
    assert found_in(tmp_path, drives.drive(ego, seed), drives.policy(ego)) == ()


@pytest.mark.parametrize("newest_first", [False, True])
def test_stacks_of_both_orders_are_left_in_peace(tmp_path: Path, newest_first: bool) -> None:
    arrays = drives.stacked(MADE[6], newest_first=newest_first)
    assert found_in(tmp_path, arrays, drives.policy(6, 3)) == ()


def test_random_frames_are_left_in_peace(tmp_path: Path) -> None:
    """Nothing holds between their columns, and nothing done would explain it."""
    policy = strategies.policy()
    seen = strategies.frames(1000, 4)
    path = strategies.write_drive(tmp_path / "a.npz", seen)
    assert held_to_contract(policy, [read_drive(path, policy)]) == ()


def test_an_extreme_is_told_with_bound_unit_and_share(tmp_path: Path) -> None:
    arrays = changed(MADE[6], column("ego", SPEED, lambda v: v * 30))
    with pytest.raises(InputError) as caught:
        drive = read_drive(drives.write(tmp_path / "a.npz", arrays), drives.policy())
        held_to_contract(drives.policy(), [drive])
    text = str(caught.value)
    assert "a.npz: ego speed (column 0)" in text and "542 m/s" in text and "0 to 1 (0 m/s to 30 m/s)" in text
    assert "% of its values" in text and "--allow column-scaled" in text


def test_bounds_that_a_checkpoint_states_are_held_without_names(tmp_path: Path) -> None:
    """A policy whose columns nobody knows; the checkpoint says -1 to 1 of the ego."""
    free = (math.inf,) * 3
    bounds = Bounds((-1.0,) * 3, (1.0,) * 3, tuple(-one for one in free), free)
    policy = replace(strategies.policy(ego=3, peer=3, max_peers=4), bounds=bounds)
    seen = strategies.frames(600, 1, ego=3, peer=3, slots=4, most=4)
    whole = replace(seen, ego=np.clip(seen.ego, -1, 1))
    path = strategies.write_drive(tmp_path / "a.npz", whole)
    assert held_to_contract(policy, [read_drive(path, policy)]) == ()
    path = strategies.write_drive(tmp_path / "b.npz", replace(whole, ego=whole.ego * 30))
    with pytest.raises(InputError, match=r"b\.npz.*beyond its bounds.*ego's columns are times 30") as caught:
        held_to_contract(policy, [read_drive(path, policy)])
    assert "--allow all-scaled" in str(caught.value.hint)


def test_a_value_beyond_usual_bounds_alone_is_told_and_no_certain_fault(tmp_path: Path) -> None:
    """A preset's bounds give way to recordings."""
    arrays = changed(MADE[6], column("peers", X, lambda v: v * 1.9))
    found = found_in(tmp_path, arrays, drives.policy(stated=False))
    assert [(one.name, one.certain) for one in found] == [("out-of-bounds", False)]


@pytest.mark.parametrize("times", [True, False])
def test_frames_that_run_backwards_are_told_by_the_ages_of_peers(tmp_path: Path, times: bool) -> None:
    """With the times turned round as well, from the last on, or not."""
    arrays = {name: values if name == "t_ms" else values[::-1] for name, values in MADE[6].items()}
    if times:
        arrays["t_ms"] = MADE[6]["t_ms"][-1] - MADE[6]["t_ms"][::-1]
    found = found_in(tmp_path, arrays, drives.policy(6))
    assert [(one.name, one.certain) for one in found] == [("frame-order", True)]


# Stacks


def order(*frames: int) -> Callable[[Arrays], None]:
    """Puts a stack's frames in another order."""

    def apply(arrays: Arrays) -> None:
        ego = arrays["ego"]
        arrays["ego"] = ego.reshape(len(ego), 3, 6)[:, list(frames)].reshape(ego.shape)

    return apply


@pytest.mark.parametrize("frames", [(1, 0, 2), (0, 2, 1), (2, 0, 1), (1, 2, 0)])
def test_a_stack_in_another_order_is_named(tmp_path: Path, frames: tuple[int, ...]) -> None:
    found = found_in(tmp_path, changed(drives.stacked(MADE[6]), order(*frames)), drives.policy(6, 3))
    assert [one.name for one in found] == ["stack-order"] and found[0].certain


def test_drives_whose_stacks_are_in_opposite_orders_do_not_go_together(tmp_path: Path) -> None:
    one, other = drives.stacked(MADE[6]), drives.stacked(drives.drive(6, 1), newest_first=True)
    found = found_in(tmp_path, one, drives.policy(6, 3), other)
    assert [one.name for one in found] == ["stack-order"] and "reverse" in found[0].cause


def test_a_frozen_copy_is_named(tmp_path: Path) -> None:
    arrays = changed(drives.stacked(MADE[6]), column("ego", 6 + SPEED, lambda v: np.full_like(v, v[0])))
    found = found_in(tmp_path, arrays, drives.policy(6, 3))
    assert [(one.name, one.indices) for one in found] == [("column-frozen", (6 + SPEED,))]


@pytest.mark.parametrize("index", [NUMBER, LOWEST, CLOSING])
@pytest.mark.parametrize("value", [0.0, 0.125])
def test_a_frozen_function_of_the_peers_is_refused_by_name(tmp_path: Path, index: int, value: float) -> None:
    held = -value if index == LOWEST else value
    found = found_in(tmp_path, changed(MADE[6], column("ego", index, lambda v: np.full_like(v, held))), drives.policy())
    assert [(one.name, one.indices, one.certain) for one in found] == [("column-frozen", (index,), True)]
    assert "the peers" in found[0].cause


def test_a_frozen_function_of_a_stack_is_named_in_each_of_its_frames(tmp_path: Path) -> None:
    frozen = changed(MADE[6], column("ego", NUMBER, np.zeros_like))
    found = found_in(tmp_path, drives.stacked(frozen), drives.policy(6, 3))
    assert {(one.name, one.indices) for one in found} == {("column-frozen", (at + NUMBER,)) for at in (0, 6, 12)}


def test_a_constant_column_of_somebodys_own_is_no_frozen_function(tmp_path: Path) -> None:
    """Sizes and bounds of a preset by chance, and zeros where that has functions of the peers."""

    def apply(arrays: Arrays) -> None:
        arrays["ego"][:, [NUMBER, LOWEST, CLOSING]] = 0

    found = found_in(tmp_path, changed(MADE[6], apply), drives.policy(stated=False))
    assert [one for one in found if one.certain] == []


def test_a_copy_that_is_late_is_named(tmp_path: Path) -> None:
    found = found_in(tmp_path, changed(drives.stacked(MADE[6]), late("ego", 6 + LOWEST, 4)), drives.policy(6, 3))
    assert [(one.name, one.indices) for one in found] == [("column-late", (6 + LOWEST,))]
    assert "4 frames late" in found[0].cause


def test_a_copy_that_is_something_else_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, drives.FRAMES).astype(np.float32)
    arrays = changed(drives.stacked(MADE[6]), column("ego", ACCELERATION, lambda v: noise))
    found = found_in(tmp_path, arrays, drives.policy(6, 3))
    assert [(one.name, one.indices) for one in found] == [("copy-mismatch", (ACCELERATION,))]


@pytest.mark.parametrize("every", [2, 3])
def test_frames_that_are_missing_between_those_of_a_stack_are_named(tmp_path: Path, every: int) -> None:
    arrays = {key: array[::every] for key, array in drives.stacked(MADE[6]).items()}
    found = found_in(tmp_path, arrays, drives.policy(6, 3))
    assert any(one.name == "copy-mismatch" and "frames are missing" in one.cause for one in found)


def test_a_column_that_is_another_function_says_which(tmp_path: Path) -> None:
    def apply(arrays: Arrays) -> None:
        arrays["ego"][:, CLOSING] = arrays["ego"][:, LOWEST] * -0.37

    found = found_in(tmp_path, changed(MADE[6], apply), drives.policy())
    named = [one for one in found if one.name == "function-mismatch"]
    assert len(named) == 1 and "-0.37 times the lowest peer acceleration" in named[0].cause


# Times


def test_missing_frames_are_told_from_wrong_units_by_the_ages(tmp_path: Path) -> None:
    found = found_in(tmp_path, {key: array[::2] for key, array in MADE[6].items()}, drives.policy())
    assert [one.name for one in found] == ["time-step"] and not found[0].certain
    assert "one in 2 was kept" in found[0].cause


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda t: t[::-1], "reverse order"),
        (lambda t: np.concatenate([t[:700], t[:-700]]), "joined"),
        (lambda t: t // 1000, "rounded"),
    ],
)
def test_times_that_do_not_increase_say_why(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], cause: str
) -> None:
    path = drives.write(tmp_path / "a.npz", {**MADE[6], "t_ms": change(MADE[6]["t_ms"])})
    with pytest.raises(InputError, match=cause) as caught:
        read_drive(path, drives.policy())
    assert str(caught.value.where) == str(path) and "--allow time-order" in str(caught.value.hint)
    drive = read_drive(path, drives.policy(), ["time-order"])
    assert drive.t_ms is None and [(one.name, one.allowed) for one in drive.findings] == [("time-order", True)]


def test_a_hole_is_no_fault_and_nothing_reaches_across_it(tmp_path: Path) -> None:
    t = MADE[6]["t_ms"].copy()
    t[250:] += 60_000
    t[777:] += 5_000
    drive = read_drive(drives.write(tmp_path / "a.npz", {**MADE[6], "t_ms": t}), drives.policy())
    assert drive.findings == () and held_to_contract(drives.policy(), [drive]) == ()
    follows = drive.series.follows
    assert list(np.flatnonzero(~follows)) == [0, 250, 777]
    for hole in (250, 777):
        assert drive.block[hole - 1] != drive.block[hole]
    assert np.bincount(drive.block).max() <= 100 and (np.diff(drive.block) >= 0).all()
    assert np.array_equal(np.unique(drive.block), np.arange(drive.block[-1] + 1))


def test_irregular_steps_are_no_holes(tmp_path: Path) -> None:
    """A log of what several cars saw: two frames within some milliseconds, then none for the rest of the period."""
    t = np.arange(drives.FRAMES) // 2 * 100 + np.arange(drives.FRAMES) % 2 * 6
    drive = read_drive(drives.write(tmp_path / "a.npz", {**MADE[6], "t_ms": t}), drives.policy())
    assert drive.series.follows[1:].all()
    assert np.array_equal(drive.block, np.arange(drives.FRAMES) // 100)


# Masks


def mask(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], None]:
    """Does something to the mask."""

    def apply(arrays: Arrays) -> None:
        arrays["peer_mask"] = change(arrays["peer_mask"])

    return apply


@pytest.mark.parametrize(
    ("change", "name", "cause"),
    [
        (lambda m: 1 - m, "mask-inverted", "the mask is inverted"),
        (np.ones_like, "mask-misplaced", "all ones"),
        (lambda m: np.roll(m, 1, axis=1), "mask-misplaced", "shifted by 1 slot up"),
        (lambda m: np.roll(m, 7, axis=0), "mask-misplaced", "7 frames late"),
    ],
)
def test_a_wrong_mask_is_refused_and_named(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], name: str, cause: str
) -> None:
    path = drives.write(tmp_path / "a.npz", changed(MADE[6], mask(change)))
    with pytest.raises(InputError, match=cause) as caught:
        read_drive(path, drives.policy())
    assert f"--allow {name}" in str(caught.value.hint) and "all zeros" in str(caught.value)
    assert [one.name for one in read_drive(path, drives.policy(), [name]).findings] == [name]


def test_an_inverted_mask_over_junk_is_seen_by_the_number_of_peers(tmp_path: Path) -> None:
    """Absent slots are filled, too, so only the ego's own number contradicts."""

    def apply(arrays: Arrays) -> None:
        arrays["peers"] += np.random.default_rng(0).uniform(0.1, 0.2, arrays["peers"].shape).astype(np.float32)
        arrays["peer_mask"] = 1 - arrays["peer_mask"]

    found = found_in(tmp_path, changed(MADE[6], apply), drives.policy())
    assert "mask-inverted" in [one.name for one in found]


@pytest.mark.parametrize("junk", [1.0, np.nan, -7.0])
def test_absent_slots_may_hold_anything(tmp_path: Path, junk: float) -> None:
    def apply(arrays: Arrays) -> None:
        arrays["peers"][arrays["peer_mask"] == 0] = junk

    assert found_in(tmp_path, changed(MADE[6], apply), drives.policy()) == ()


def test_absent_slots_may_hold_the_greatest_age(tmp_path: Path) -> None:
    def apply(arrays: Arrays) -> None:
        arrays["peers"][..., AGE] = np.where(arrays["peer_mask"] == 0, 1.0, arrays["peers"][..., AGE])

    assert found_in(tmp_path, changed(MADE[6], apply), drives.policy()) == ()


def test_a_column_late_against_the_mask_is_told_by_what_absent_slots_hold(tmp_path: Path) -> None:
    def apply(arrays: Arrays) -> None:
        arrays["peers"][6:, :, X] = arrays["peers"][:-6, :, X].copy()

    found = found_in(tmp_path, changed(MADE[6], apply), drives.policy())
    assert ("column-late", (X,)) in [(one.name, one.indices) for one in found]
    assert any("6 frames late" in one.cause for one in found)


def test_absent_slots_alone_tell_a_late_column_whose_name_nobody_knows() -> None:
    there = MADE[6]["peer_mask"] > 0
    peers = np.where(there[:, :, None], np.float32(0.5), np.float32(0)).repeat(3, axis=2)
    assert mask_findings(peers, there, "a.npz") == ()
    peers[6:, :, 1] = peers[:-6, :, 1].copy()
    found = mask_findings(peers, there, "a.npz")
    assert [(one.name, one.indices, one.certain) for one in found] == [("column-late", (1,), True)]
    assert "6 frames late" in found[0].cause


def test_a_later_drive_in_the_other_order_than_the_runs_stack_is_told(tmp_path: Path) -> None:
    """By itself it is a stack in the other order."""
    policy = drives.policy(6, 3)
    paths = [
        drives.write(tmp_path / f"{number}.npz", drives.stacked(drives.drive(6, number), newest_first=bool(number)))
        for number in range(2)
    ]
    known = contract_of(policy, [read_drive(paths[0], policy)])
    later = [read_drive(paths[1], policy)]
    assert held_to_contract(policy, later) == ()
    assert [one.name for one in held_to_contract(policy, later, allow=NAMES, known=known)] == ["stack-order"]


def test_what_is_added_to_all_slots_is_told_by_the_absent_ones(tmp_path: Path) -> None:
    found = found_in(tmp_path, changed(MADE[6], column("peers", Y, lambda v: v + 0.02)), drives.policy())
    assert [(one.name, one.indices) for one in found] == [("column-offset", (Y,))]


# Worlds


def test_rollouts_are_held_to_stated_bounds_and_to_no_others() -> None:
    policy = drives.policy(6)
    seen = Observations(MADE[6]["ego"], MADE[6]["peers"] * np.float32(5), MADE[6]["peer_mask"] > 0)
    rollout = Recording("world", "rollout", seen, np.arange(len(seen.ego)) // 100, "0")
    assert held_to_contract(policy, [rollout]) == ()
    wide = replace(rollout, observations=replace(seen, ego=seen.ego * np.float32(10)))
    with pytest.raises(InputError, match="beyond its bounds"):
        held_to_contract(policy, [wide])


def test_a_world_whose_space_is_wider_than_stated_is_told() -> None:
    policy = drives.policy(6)
    contract = contract_of(policy, ())
    assert world_findings(contract, None, "world") == ()
    assert world_findings(contract, policy.bounds, "world") == ()
    wide = Bounds((0.0,) + (-1.0,) * 5, (30.0,) + (1.0,) * 5, (-math.inf,) * 6, (math.inf,) * 6)
    found = world_findings(contract, wide, "world")
    assert (found[0].name, found[0].indices, found[0].certain) == ("world-bounds", (0,), False)
    assert "30" in found[0].found


def test_a_little_beyond_is_a_warning_and_much_is_refused() -> None:
    contract = contract_of(drives.policy(6), ())
    seen = Observations(MADE[6]["ego"].copy(), MADE[6]["peers"], MADE[6]["peer_mask"] > 0)
    seen.ego[7, 0] = 1.2
    series = Series(seen, np.ones(len(seen.ego), np.bool_))
    assert [one.certain for one in bound_findings(series, contract, "world")] == [False]
    seen.ego[7, 0] = 30
    assert [one.certain for one in bound_findings(series, contract, "world")] == [True]


# Findings


def test_findings_come_back_from_their_file() -> None:
    found = (
        Finding("time-step", False, "a.npz", "t_ms", (), "x", "y", "z"),
        Finding("all-scaled", True, "b", "", (0, 1), "", ""),
    )
    assert findings_from_json(findings_to_json(found)) == found
    with pytest.raises((TypeError, KeyError)):
        findings_from_json([{"name": "time-step"}])


def test_what_is_certain_is_refused_unless_allowed_by_its_name() -> None:
    sure = Finding("mask-inverted", True, "a.npz", "peer_mask", (), "x", "y", "z")
    likely = Finding("time-step", False, "a.npz", "t_ms", (), "x", "y", "z")
    assert refuse([likely]) == (likely,)
    with pytest.raises(InputError, match="--allow mask-inverted"):
        refuse([likely, sure], ["time-step"])
    passed = refuse([sure, likely], ["mask-inverted"])
    assert [one.allowed for one in passed] == [True, False] and "(allowed)" in passed[0].warning


def test_a_name_that_is_none_is_told_the_nearest() -> None:
    assert check_names(["time-step", "time-step"]) == ("time-step",)
    with pytest.raises(InputError, match="did you mean mask-inverted") as caught:
        check_names(["mask-inverte"])
    assert all(f"{name}: {words}" in str(caught.value) for name, words in NAMES.items())


def test_values_are_told_in_physical_units_where_they_are_known() -> None:
    assert Column("speed", "m/s", 30.0).physical(2.0) == "60 m/s"


@pytest.mark.skipif(not strategies.REAL.exists(), reason="recorded drives are not at hand")
@pytest.mark.parametrize("ego", [5, 6])
def test_recorded_drives_are_left_in_peace(ego: int) -> None:
    policy = load_policy(strategies.REAL / f"policy_ego{ego}.zip")
    seen = [read_drive(strategies.REAL / f"drive_{name}_ego{ego}.npz", policy) for name in "ab"]
    assert held_to_contract(policy, seen) == ()
    assert [held_to_contract(policy, [one]) for one in seen] == [(), ()]
