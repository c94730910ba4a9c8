"""Our own format: the same policy back, the same bytes for the same policy."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from quant.errors import InputError
from quant.policy import Box, Dense, Policy, load_policy, policy_digest, save_policy
from tests.policy.crafted import checkpoint, fields, weights, zipped


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    path = tmp_path / "original.zip"
    path.write_bytes(checkpoint(weights(actions=2), fields(box=("[-1. 0.]", "[1. 0.1]"))))
    return load_policy(path)


def test_the_same_policy_comes_back(tmp_path: Path, policy: Policy) -> None:
    save_policy(policy, tmp_path / "saved.npz")
    back = load_policy(tmp_path / "saved.npz")
    for mine, its in zip((*policy.encoder, *policy.head), (*back.encoder, *back.head), strict=True):
        np.testing.assert_array_equal(mine.weight, its.weight)
        np.testing.assert_array_equal(mine.bias, its.bias)
        assert mine.activation == its.activation
    assert dataclasses.replace(back, encoder=(), head=()) == dataclasses.replace(policy, encoder=(), head=())
    assert policy_digest(back) == policy_digest(policy)


def test_equal_policies_give_equal_bytes(tmp_path: Path, policy: Policy) -> None:
    save_policy(policy, tmp_path / "a.npz")
    save_policy(load_policy(tmp_path / "a.npz"), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_numpy_opens_it(tmp_path: Path, policy: Policy) -> None:
    save_policy(policy, tmp_path / "saved.npz")
    with np.load(tmp_path / "saved.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["encoder.0.weight"], policy.encoder[0].weight)


def test_the_digest_is_of_what_is_computed(policy: Policy) -> None:
    digest = policy_digest(policy)
    first = policy.encoder[0]
    nudged = first.weight.copy()
    nudged[0, 0] = np.nextafter(nudged[0, 0], np.float32(9))
    changed = [
        dataclasses.replace(policy, pooling="sum"),
        dataclasses.replace(policy, max_peers=7),
        dataclasses.replace(policy, action_space=Box((-1.0, 0.0), (1.0, 0.2))),
        dataclasses.replace(policy, encoder=(Dense(nudged, first.bias, "relu"), *policy.encoder[1:])),
        dataclasses.replace(policy, encoder=(Dense(first.weight, first.bias, "elu"), *policy.encoder[1:])),
    ]
    assert len({digest, *map(policy_digest, changed)}) == 6
    assert policy_digest(dataclasses.replace(policy, facts=(), origin="elsewhere")) == digest


def damaged(content: bytes, member: str, change: bytes | dict[str, object]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if isinstance(change, dict):
        change = json.dumps({**json.loads(members[member]), **change}).encode()
    return zipped({**members, member: change})


def huge(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("member", "change", "match"),
    [
        ("policy.json", b"{", "not valid JSON"),
        ("policy.json", {"schema": "other"}, "does not describe a policy"),
        ("policy.json", {"version": 2}, "schema version 2"),
        ("policy.json", {"pooling": "median"}, "pooling is median"),
        ("policy.json", {"action_space": {"kind": "box", "low": [1, 1], "high": [0, 0]}}, "action bounds"),
        ("policy.json", {"action_space": {"kind": "discrete", "n": 3}}, "gives 2 values, the action space has 3"),
        ("policy.json", {"max_peers": 0}, "max_peers is 0"),
        ("policy.json", {"encoder": ["gelu", "relu"]}, "activation gelu"),
        ("policy.json", {"encoder": ["relu"] * 3}, "has no member encoder.2.weight.npy"),
        ("policy.json", {"facts": [{}]}, "facts are damaged"),
        ("encoder.0.weight.npy", b"", "not the array of a layer"),
        ("encoder.0.weight.npy", huge((1 << 20, 1 << 20)), "not the array of a layer"),
    ],
)
def test_damage_has_its_own_error(
    tmp_path: Path, policy: Policy, member: str, change: bytes | dict[str, object], match: str
) -> None:
    save_policy(policy, tmp_path / "saved.npz")
    (tmp_path / "bad.npz").write_bytes(damaged((tmp_path / "saved.npz").read_bytes(), member, change))
    with pytest.raises(InputError, match=match):
        load_policy(tmp_path / "bad.npz")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, policy: Policy) -> None:
    bias = policy.head[0].bias.copy()
    bias[3] = np.nan
    broken = dataclasses.replace(policy, head=(Dense(policy.head[0].weight, bias, "tanh"), *policy.head[1:]))
    save_policy(broken, tmp_path / "nan.npz")
    with pytest.raises(InputError, match="NaN or infinite"):
        load_policy(tmp_path / "nan.npz")
