"""Where each fact of an observation is known from: the user, the checkpoint, a preset, recordings, or nobody."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.errors import InputError
from quant.observation import Contract, Observations
from quant.observation.functions import FUNCTIONS, functions_of
from quant.observation.presets import PEERS
from quant.observation.relations import Frames, computed
from quant.observation.resolve import Bounds, Series, Sizes, find_stack, resolve
from quant.observation.storage import contract_from_json
from tests.tracks import strategies

NAMES = [column.name for column in PEERS]
EGO_6 = ("speed", "acceleration", *FUNCTIONS[:2], "braking received", FUNCTIONS[2])


def series(seen: Observations) -> Series:
    return Series(seen, np.arange(len(seen)) > 0, np.arange(len(seen), dtype=np.float64) * 100)


def drive(ego: int = 6, n: int = 400, seed: int = 0) -> Observations:
    """A drive whose ego carries the functions of its peers where the preset of that size says so."""
    seen = strategies.frames(n, seed, ego=ego, most=3)
    contract = resolve(Sizes(ego, 6, 8), None, [])
    values = seen.ego.copy()
    for column, function in contract.functions.items():
        values[:, column] = function.of(seen.peers, seen.mask)
    return Observations(values, seen.peers, seen.mask)


def stacked(seen: Observations, frames: int = 3, *, newest_first: bool = False) -> Observations:
    older = [np.concatenate([seen.ego[:1].repeat(lag, axis=0), seen.ego[: len(seen) - lag]]) for lag in range(frames)]
    return Observations(np.concatenate(older if newest_first else older[::-1], axis=1), seen.peers, seen.mask)


def unbounded(ego: int, peer: int = 6) -> Bounds:
    return Bounds((-math.inf,) * ego, (math.inf,) * ego, (-math.inf,) * peer, (math.inf,) * peer)


@pytest.mark.parametrize("ego", [4, 5, 6, 7, 18])
def test_an_observation_of_the_fields_sizes_is_a_presets(ego: int) -> None:
    contract = resolve(Sizes(ego, 6, 8), None, [])
    assert contract.preset == f"ego {ego}" and contract.undeclared == ()
    assert [column.name for column in contract.peers] == NAMES
    assert {column.origin("low") for column in (*contract.ego, *contract.peers)} == {"preset"}


def test_other_sizes_are_unknown_and_said_to_be() -> None:
    contract = resolve(Sizes(3, 2, 4), None, [])
    assert (contract.preset, contract.period_ms, contract.functions) == ("", None, {})
    assert len(contract.undeclared) == 5
    assert contract.ego[0].origin("low") == "unknown"


def test_a_function_of_the_peers_is_the_extreme_of_a_feature_and_none_of_nobody() -> None:
    peers = np.zeros((3, 2, len(NAMES)), np.float32)
    peers[:, :, NAMES.index("acceleration")] = [[-0.5, 0.25], [0.5, 0.75], [-0.5, -0.75]]
    peers[:, :, NAMES.index("rel_speed")] = [[-0.25, 0.5], [0.5, 0.75], [-0.5, -0.75]]
    mask = np.array([[True, True], [True, False], [False, False]])
    expected = dict(zip(FUNCTIONS, ([1.0, 0.5, 0.0], [-0.5, 0.0, 0.0], [0.25, 0.0, 0.0]), strict=True))
    for name, function in functions_of(NAMES).items():
        values = function.of(peers, mask)
        assert values.tolist() == expected[name] and not np.signbit(values[values == 0]).any()
        assert ((function.low <= values) & (values <= function.high)).all()
        alone = [function.of(peers, mask & (np.arange(2) == slot)) for slot in (0, 1)]
        assert function.combine(*alone).tolist() == values.tolist()
    assert set(functions_of(["rel_speed"])) == {FUNCTIONS[0], FUNCTIONS[2]}


def test_what_is_no_function_of_the_peers_is_not_taken_for_one() -> None:
    contract = resolve(Sizes(6, 6, 8), None, [])
    with pytest.raises(KeyError, match="mean acceleration"):
        computed(Frames.of(series(drive())), "mean acceleration", contract)


def test_an_undeclared_column_of_a_stack_is_named_once() -> None:
    seen = stacked(drive())
    contract = resolve(Sizes(18, 6, 8), None, [series(seen)])
    frame = tuple(replace(one, known={**one.known, "high": "data"}) for one in contract.ego)
    assert replace(contract, ego=frame).undeclared == tuple(f"ego's {name}" for name in EGO_6)


def test_a_contract_has_one_digest_and_every_fact_is_in_it() -> None:
    contract = resolve(Sizes(6, 6, 8), None, [])
    text = json.dumps(contract.to_json(), sort_keys=True)
    assert contract.digest == hashlib.sha256(text.encode()).hexdigest()
    assert contract_from_json(json.loads(text), "contract").digest == contract.digest
    other = replace(contract, ego=(replace(contract.ego[0], high=0.5), *contract.ego[1:]))
    assert len({contract.digest, other.digest, replace(contract, period_ms=50.0).digest}) == 3


def test_what_the_checkpoint_states_weighs_more_than_the_preset() -> None:
    stated = replace(unbounded(6), ego_low=(0.0, -2.0, 0.0, -1.0, 0.0, 0.0), ego_high=(2.0,) * 6)
    contract = resolve(Sizes(6, 6, 8), stated, [])
    assert (contract.ego[0].high, contract.ego[0].origin("high")) == (2.0, "checkpoint")
    assert contract.ego[1].low == -2.0
    # A share of the slots is never above 1, whatever a box says.
    assert (contract.ego[2].low, contract.ego[2].high) == (0.0, 1.0)
    assert contract.peers[0].origin("low") == "preset"


def test_the_user_weighs_more_than_all_and_only_where_he_says_something() -> None:
    stated = replace(unbounded(6), ego_high=(1.0,) * 6)
    given = {"ego": [{"high": 0.5}, *({} for _ in range(5))], "period_ms": 50.0}
    contract = resolve(Sizes(6, 6, 8), stated, [], given)
    assert (contract.ego[0].high, contract.ego[0].origin("high")) == (0.5, "file")
    assert (contract.ego[0].low, contract.ego[0].origin("low")) == (0.0, "preset")
    assert (contract.period_ms, contract.known["period_ms"]) == (50.0, "file")


def test_a_fact_the_file_has_from_elsewhere_is_the_users_only_where_he_changed_it() -> None:
    given = {"ego": [{"high": 1.0, "low": 0.1, "known": {"high": "preset", "low": "preset"}}, *({} for _ in range(5))]}
    contract = resolve(Sizes(6, 6, 8), None, [], given)
    assert (contract.ego[0].origin("high"), contract.ego[0].origin("low")) == ("preset", "file")


def test_a_file_for_another_number_of_peers_is_refused() -> None:
    assert resolve(Sizes(6, 6, 8), None, [], {"max_peers": 8}) == resolve(Sizes(6, 6, 8), None, [])
    with pytest.raises(InputError, match="max_peers is 4") as caught:
        resolve(Sizes(6, 6, 8), None, [], {"max_peers": 4})
    assert "8, the slots" in str(caught.value.expected) and "leave max_peers out" in str(caught.value.hint)


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("frames", [2, 3, 4])
def test_a_stack_is_recognized_with_its_order(frames: int, newest_first: bool) -> None:
    seen = stacked(drive(), frames, newest_first=newest_first)
    contract = resolve(Sizes(6 * frames, 6, 8), None, [series(seen)])
    assert contract.depth == frames
    lags = [lag for lag in range(frames) for _ in range(6)]
    assert list(contract.lags) == (lags if newest_first else lags[::-1])
    newest = 0 if newest_first else 6 * (frames - 1)
    assert {contract.ego[newest + at].name for at in range(6)} == set(EGO_6)
    assert set(contract.functions) == {newest + 2, newest + 3, newest + 5}
    assert contract.ego[contract.sources[newest]].copy_of is None


def test_what_is_no_stack_is_taken_for_none() -> None:
    assert find_stack(6, [series(drive())]) is None
    assert find_stack(12, [series(strategies.frames(300, 1, ego=12))]) is None


def test_functions_are_recognized_where_there_is_no_preset() -> None:
    seen = strategies.frames(300, 2, ego=9, most=3)
    ego = seen.ego.copy()
    ego[:, 4] = functions_of(NAMES)[FUNCTIONS[0]].of(seen.peers, seen.mask)
    contract = resolve(Sizes(9, 6, 8), None, [series(Observations(ego, seen.peers, seen.mask))])
    assert contract.preset == "" and list(contract.functions) == [4]
    assert (contract.ego[4].name, contract.ego[4].origin("function")) == (FUNCTIONS[0], "data")


def test_a_preset_whose_functions_the_recordings_contradict_is_dropped() -> None:
    """Somebody's own observation that happens to have the same sizes."""
    assert resolve(Sizes(6, 6, 8), None, [series(strategies.frames(300, 3, ego=6))]).preset == ""
    # But not where the checkpoint states its very bounds: then the recording is at fault.
    preset = resolve(Sizes(6, 6, 8), None, [])
    low, high = (tuple(map(float, ends)) for ends in preset.bounds(peers=False))
    stated = replace(unbounded(6), ego_low=low, ego_high=high)
    assert resolve(Sizes(6, 6, 8), stated, [series(strategies.frames(300, 3, ego=6))]).preset == "ego 6"


@given(seed=strategies.seeds, ego=st.sampled_from([3, 4, 5, 6, 18]))
@settings(max_examples=25, deadline=None)
def test_a_completed_contract_has_room_for_all_that_was_recorded(seed: int, ego: int) -> None:
    seen = strategies.frames(60, seed, ego=ego)
    contract = resolve(Sizes(ego, 6, 8), None, [series(seen)]).completed([seen])
    for values, peers in ((seen.ego, False), (seen.peers[seen.mask], True)):
        low, high = contract.bounds(peers=peers)
        assert np.isfinite([low, high]).all() and (low < high).all()
        assert ((values >= low - 1e-5) & (values <= high + 1e-5)).all()


def test_a_declared_bound_stays_though_recordings_go_beyond_and_a_presets_gives_way() -> None:
    seen = drive()
    beyond = Observations(
        np.where(np.arange(6) == 0, np.float32(3), seen.ego).astype(np.float32), seen.peers, seen.mask
    )
    stated = replace(unbounded(6), ego_high=(1.0,) * 6)
    assert resolve(Sizes(6, 6, 8), stated, []).completed([beyond]).ego[0].high == 1.0
    given_way = resolve(Sizes(6, 6, 8), None, []).completed([beyond])
    assert (given_way.ego[0].high or 0) > 3 and given_way.ego[0].origin("high") == "margin"
    assert "ego's speed" in given_way.undeclared


def test_a_copy_goes_as_far_as_what_it_is_a_copy_of() -> None:
    seen = drive()
    seen.ego[-1, 0] = 5  # only in the newest frame of the last moment
    contract = resolve(Sizes(18, 6, 8), None, [series(stacked(seen))]).completed([stacked(seen)])
    assert len({contract.ego[at].high for at in (0, 6, 12)}) == 1


def test_bounds_say_what_they_are_in_units() -> None:
    contract: Contract = resolve(Sizes(6, 6, 8), None, [])
    assert contract.ego[0].physical(0.4) == "12 m/s"
    assert contract.peers[0].physical(-1.0) == "-100 m"
