"""Stable-Baselines3 checkpoints: what is read, what is assumed, and what is refused."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant.errors import InputError
from quant.policy import Box, Discrete, Policy, load_policy
from quant.policy.assembly import probe
from tests.policy.crafted import (
    Tensor,
    box_space,
    checkpoint,
    fields,
    name,
    number,
    pickled,
    text,
    torch_file,
    torch_zip,
    weights,
    zipped,
)

MODULES = tuple(f"features_extractor.peer_encoder.{index}" for index in range(4))
NO_STORAGE = b"\x80\x02"


def write(folder: Path, content: bytes) -> Path:
    path = folder / "policy.zip"
    path.write_bytes(content)
    return path


def load(folder: Path, content: bytes, **given: Any) -> Policy:
    return load_policy(write(folder, content), **given)


def refused(folder: Path, content: bytes, match: str, **given: Any) -> InputError:
    with pytest.raises(InputError, match=match) as caught:
        load(folder, content, **given)
    assert caught.value.where is not None
    assert caught.value.expected is not None or caught.value.hint is not None
    return caught.value


def how(policy: Policy, fact: str) -> tuple[str, str]:
    (found,) = [f for f in policy.facts if f.name == fact]
    return found.value, found.how


def by_hand(state: dict[str, Any], ego: Any, peers: Any, mask: Any, hidden: Any = np.tanh) -> Any:
    """One observation, peer by peer, in double precision."""
    state = {key: value.astype(np.float64) for key, value in state.items()}
    z = np.zeros(32)
    embeddings = []
    for peer in peers[mask]:
        h = peer
        for index in (0, 2):
            key = f"features_extractor.peer_encoder.{index}"
            h = np.maximum(state[f"{key}.weight"] @ h + state[f"{key}.bias"], 0)
        embeddings.append(h)
    z = np.max(embeddings, axis=0) if embeddings else z
    x = np.concatenate([z, ego])
    index = 0
    while f"mlp_extractor.policy_net.{index}.weight" in state:
        key = f"mlp_extractor.policy_net.{index}"
        x = hidden(state[f"{key}.weight"] @ x + state[f"{key}.bias"])
        index += 2
    return state["action_net.weight"] @ x + state["action_net.bias"]


@pytest.mark.parametrize("net_arch", [(64,), (), (64, 64), (128, 64, 32)])
@pytest.mark.parametrize("ego", [4, 5, 6, 7, 18])
def test_computes_what_the_weights_say(tmp_path: Path, net_arch: tuple[int, ...], ego: int) -> None:
    state = weights(ego=ego, net_arch=net_arch)
    policy = load(tmp_path, checkpoint(state, fields(ego=ego)))
    observations = probe(ego, 8, 6)
    values = policy.forward(observations).values
    expected = [
        by_hand(state, *row) for row in zip(observations.ego, observations.peers, observations.mask, strict=True)
    ]
    assert policy.ego_size == ego
    np.testing.assert_allclose(values, np.array(expected), atol=1e-5)


def test_says_what_is_known_and_how(tmp_path: Path) -> None:
    policy = load(tmp_path, checkpoint(modules=MODULES))
    assert how(policy, "head_activation") == ("tanh", "assumed")
    assert how(policy, "pooling") == ("max", "assumed")
    assert how(policy, "encoder_activation") == ("relu", "assumed")
    assert how(policy, "encoder_last_activation") == ("relu", "read")
    assert how(policy, "action_space") == ("Discrete(n=4)", "stated")
    assert how(policy, "max_peers") == ("8", "stated")
    assert policy.origin.startswith("stable-baselines3 sha256:")


def test_the_modules_of_the_file_tell_whether_an_activation_follows_the_last_linear(tmp_path: Path) -> None:
    assert load(tmp_path, checkpoint(modules=MODULES[:3])).encoder[-1].activation == "linear"
    assert load(tmp_path, checkpoint(modules=MODULES)).encoder[-1].activation == "relu"
    assert how(load(tmp_path, checkpoint()), "encoder_last_activation") == ("relu", "assumed")


def test_reads_what_policy_kwargs_state(tmp_path: Path) -> None:
    kwargs: dict[str, Any] = {
        "activation_fn": "<class 'torch.nn.modules.activation.ELU'>",
        "net_arch": {"pi": [64], "vf": [8]},
        "features_extractor_kwargs": "{'activation': <class 'torch.nn.modules.activation.Tanh'>, 'pooling': 'mean'}",
    }
    policy = load(tmp_path, checkpoint(data=fields(**kwargs)))
    assert [layer.activation for layer in policy.encoder] == ["tanh", "tanh"]
    assert [layer.activation for layer in policy.head] == ["elu", "linear"]
    assert policy.pooling == "mean"
    assert how(policy, "pooling") == ("mean", "stated")


def test_what_the_caller_gives_fills_gaps_and_contradicts_nothing(tmp_path: Path) -> None:
    policy = load(tmp_path, checkpoint(), pooling="sum", encoder_activation="elu")
    assert (policy.pooling, policy.encoder[0].activation) == ("sum", "elu")
    assert how(policy, "pooling") == ("sum", "given")
    stated = checkpoint(data=fields(features_extractor_kwargs={"pool": "max"}))
    refused(tmp_path, stated, "given as sum, but the file says max", pooling="sum")
    refused(tmp_path, checkpoint(), "max_peers is given as 5", max_peers=5)
    refused(tmp_path, checkpoint(), "action_space is given", action_space=Discrete(3))


def test_prefers_the_actors_own_extractor(tmp_path: Path) -> None:
    own = weights(name="pi_features_extractor.peer_encoder", seed=1)
    critic = {key: value for key, value in weights(name="vf_features_extractor.peer_encoder").items() if "vf_" in key}
    policy = load(tmp_path, checkpoint({**weights(), **own, **critic}))
    np.testing.assert_array_equal(policy.encoder[0].weight, own["pi_features_extractor.peer_encoder.0.weight"])


def test_an_encoder_of_another_name_is_taken_and_said(tmp_path: Path) -> None:
    policy = load(tmp_path, checkpoint(weights(name="features_extractor.phi")))
    assert how(policy, "encoder_name") == ("features_extractor.phi", "assumed")


def test_a_trace_of_observation_normalization_is_said(tmp_path: Path) -> None:
    policy = load(tmp_path, checkpoint(data={**fields(), "_last_original_obs": {"ego": "[[0.]]"}}))
    assert how(policy, "observation_normalization") == ("none", "assumed")


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("f4", 0.0), ("f8", 0.0), ("f2", 1e-3), ("bf16", 1e-2)])
def test_every_float_type_and_byte_order(tmp_path: Path, dtype: str, order: str, tolerance: float) -> None:
    state = weights()
    policy = load(tmp_path, checkpoint(state, pth=torch_file(state, dtype=dtype, order=order)))
    np.testing.assert_allclose(
        policy.encoder[0].weight, state["features_extractor.peer_encoder.0.weight"], rtol=tolerance, atol=tolerance
    )


def test_a_transposed_view_is_read_by_its_strides(tmp_path: Path) -> None:
    state = weights()
    key = "features_extractor.peer_encoder.0.weight"
    tensors = {n: Tensor(str(i), a.shape) for i, (n, a) in enumerate(state.items())}
    storages = {str(i): a.astype("<f4").tobytes() for i, a in enumerate(state.values())}
    index = tensors[key].key
    tensors[key] = Tensor(index, (32, 6), offset=2, strides=(1, 32), numel=194)
    storages[index] = np.concatenate([[7, 7], state[key].T.ravel()]).astype("<f4").tobytes()
    policy = load(tmp_path, checkpoint(pth=torch_zip(pickled(tensors), storages)))
    np.testing.assert_array_equal(policy.encoder[0].weight, state[key])


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (box_space("[0.]", "[1.]"), Box((0.0,), (1.0,))),
        (box_space("[-1.  0.]", "[1. 2.]"), Box((-1.0, 0.0), (1.0, 2.0))),
        (box_space("[[0. 0.]\n [0. 0.]]", "[[1. 1.]\n [1. 1.]]", (2, 2)), Box((0.0,) * 4, (1.0,) * 4)),
        (box_space("[0. ... 0.]", "[2. ... 2.]", (3,), low_repr="0.0", high_repr="2.0"), Box((0.0,) * 3, (2.0,) * 3)),
    ],
)
def test_reads_boxes(tmp_path: Path, space: dict[str, Any], expected: Box) -> None:
    data = {**fields(), "action_space": space}
    policy = load(tmp_path, checkpoint(weights(actions=expected.width), data))
    assert policy.action_space == expected


@pytest.mark.parametrize(
    "space", [box_space("[0. ... 0.]", "[1. ... 1.]", (3,)), box_space("[-inf -inf -inf]", "[inf inf inf]")]
)
def test_bounds_that_are_not_in_the_file_are_asked_for(tmp_path: Path, space: dict[str, Any]) -> None:
    content = checkpoint(weights(actions=3), {**fields(), "action_space": space})
    assert "bounds" in str(refused(tmp_path, content, "infinite, or abbreviated").hint)
    given = Box((0.0,) * 3, (1.0,) * 3)
    assert load(tmp_path, content, action_space=given).action_space == given


def test_a_squashed_action_is_scaled_to_the_bounds(tmp_path: Path) -> None:
    state = weights(actions=2)
    policy = load(tmp_path, checkpoint(state, fields(box=("[-1. 0.]", "[1. 4.]"), squash_output=True)))
    plain = load(tmp_path, checkpoint(state, fields(box=("[-1. 0.]", "[1. 4.]"))))
    observations = probe(4, 8, 6)
    squashed = np.tanh(plain.forward(observations).values)
    expected = np.array([-1, 0]) + (squashed + 1) / 2 * np.array([2, 4])
    np.testing.assert_allclose(policy.forward(observations).values, expected, atol=1e-6)


def extra(**arrays: tuple[int, ...]) -> dict[str, Any]:
    return {**weights(), **{key.replace("__", "."): np.ones(shape, np.float32) for key, shape in arrays.items()}}


@pytest.mark.parametrize(
    ("state", "match"),
    [
        (extra(features_extractor__norm__weight=(32,), features_extractor__norm__bias=(32,)), "normalization layer"),
        (extra(features_extractor__peer_encoder__1__weight=(32,)), "peer_encoder.1: a normalization layer"),
        (extra(features_extractor__bn__weight=(32,), features_extractor__bn__running_mean=(32,)), "BatchNorm"),
        (extra(features_extractor__attn__in_proj_weight=(96, 32)), "attention"),
        (extra(features_extractor__conv__0__weight=(8, 6, 1)), "convolution"),
        (extra(features_extractor__rho__0__weight=(32, 32)), "rho.0: a layer outside"),
        (extra(lstm_actor__weight_ih_l0=(8, 8)), "recurrent"),
    ],
)
def test_other_layers_are_named_and_refused(tmp_path: Path, state: dict[str, Any], match: str) -> None:
    refused(tmp_path, checkpoint(state), f"unsupported layer.*{match}")


def test_unsupported_activation(tmp_path: Path) -> None:
    refused(tmp_path, checkpoint(data=fields(activation_fn="<class 'torch.nn.LeakyReLU'>")), "activation LeakyReLU")


def without(prefix: str) -> dict[str, Any]:
    return {key: value for key, value in weights().items() if not key.startswith(prefix)}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (checkpoint(without("action_net.")), "no action_net.weight"),
        (checkpoint(without("features_extractor.")), "no peer encoder"),
        (checkpoint(without("mlp_extractor.policy_net.0.weight")), "unsupported layer mlp_extractor.policy_net.0"),
        (checkpoint(data=fields(peers=(8, 5))), "a peer has 5 features, the encoder's weights take 6"),
        (checkpoint(data=fields(ego=7)), "the ego has 7 features"),
        (checkpoint(data=fields(n=5)), "gives 4 values, the action space has 5"),
        (checkpoint(data=fields(net_arch=[32])), r"net_arch says hidden layers \[32\]"),
        (checkpoint(data={**fields(), "observation_space": {":type:": "Box"}}), "the observation space is"),
        (checkpoint(data={k: v for k, v in fields().items() if k != "observation_space"}), "no observation_space"),
        (checkpoint(data={**fields(), "action_space": {":type:": "<class 'g.MultiDiscrete'>"}}), "MultiDiscrete"),
        (checkpoint(data={**fields(), "action_space": {":type:": "<class 'g.MultiBinary'>"}}), "MultiBinary"),
        (checkpoint(data=b"{not json"), "not valid JSON"),
        (checkpoint(data=b"[1]"), "not a JSON object"),
        (checkpoint(data=b'{"a":' * 100_000), "not valid JSON"),
        (zipped({"data": b"{}", "_stable_baselines3_version": b"2"}), "no member policy.pth"),
        (zipped({"policy.pth": b""}), "no member data"),
        (checkpoint(pth=b"not a zip"), "not a readable zip"),
        (checkpoint(pth=zipped({"a": b""})), "not a file of torch.save"),
        (zipped({"readme.txt": b""}), "is a zip, but not a checkpoint"),
        (b"#!/bin/sh\n", "content is of an unknown kind"),
        (b"", "content is of an unknown kind"),
        (checkpoint()[:-30], "not a readable zip"),
        (checkpoint()[: len(checkpoint()) // 2], "not a readable zip"),
    ],
)
def test_bad_input_has_its_own_error(tmp_path: Path, content: bytes, match: str) -> None:
    refused(tmp_path, content, match)


def test_dqn_and_sac_are_told_apart(tmp_path: Path) -> None:
    refused(tmp_path, checkpoint({"q_net.q_net.0.weight": np.ones((4, 4), np.float32)}), "PPO or A2C|no action_net")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_policy(tmp_path / "nothing.zip")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    state = weights()
    state["action_net.bias"][1] = value
    error = refused(tmp_path, checkpoint(state), "1 values that are NaN or infinite")
    assert "action_net.bias" in str(error.where)


def test_a_double_too_large_for_float32_is_not_finite(tmp_path: Path) -> None:
    state: dict[str, Any] = {key: value.astype(np.float64) for key, value in weights().items()}
    state["action_net.bias"][0] = 1e300
    refused(tmp_path, checkpoint(state, pth=torch_file(state, dtype="f8")), "NaN or infinite")


class Evil:
    """Leaves a file behind when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_with_a_forbidden_global_is_not_executed(tmp_path: Path, protocol: int) -> None:
    flag = tmp_path / "executed"
    program = pickle.dumps({"action_net.weight": Evil(flag)}, protocol=protocol)
    pickle.loads(program)
    assert flag.exists(), "the pickle is harmful when it is executed"
    flag.unlink()
    refused(tmp_path, checkpoint(pth=torch_zip(program, {})), "which a state dict does not need")
    assert not flag.exists()


def test_the_forbidden_global_is_named(tmp_path: Path) -> None:
    flag = tmp_path / "executed"
    program = b"\x80\x02" + name("os system") + text(f"touch {flag}") + b"\x85R."
    error = refused(tmp_path, checkpoint(pth=torch_zip(program, {})), r"os\.system")
    assert "data.pkl@2" in str(error.where)
    assert not flag.exists()


def test_pickles_beside_the_text_are_never_read(tmp_path: Path) -> None:
    flag = tmp_path / "executed"
    blob = pickle.dumps(Evil(flag)).hex()
    data = fields()
    for value in data.values():
        value[":serialized:"] = blob
    assert load(tmp_path, checkpoint(data=data)).max_peers == 8
    assert not flag.exists()


def with_tensor(spec: Tensor, storage: bytes = bytes(4 * 192)) -> bytes:
    return checkpoint(pth=torch_zip(pickled({"action_net.weight": spec}), {"0": storage}))


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        (Tensor("0", (4, 48), offset=1), "past the end of storage"),
        (Tensor("0", (4, 48), strides=(1000, 1), numel=192), "past the end of storage"),
        (Tensor("0", (1 << 20, 1 << 20), strides=(0, 0), numel=192), "past the end of storage"),
        (Tensor("0", (1 << 39, 48), numel=192), "past the end of storage"),
        (Tensor("0", (-4, 48), numel=192), "the size, stride or offset -4"),
        (Tensor("0", (4, 48), offset=-8), "the size, stride or offset -8"),
        (Tensor("0", (4, 48), strides=(-48, 1)), "the size, stride or offset -48"),
        (Tensor("0", (4, 48), strides=(1,)), "2 sizes and 1 strides"),
        (Tensor("0", (4, 48), numel=1 << 70), "the size, stride or offset"),
        (Tensor("0", (4, 48), storage="torch nn.Linear"), r"torch\.nn\.Linear"),
        (Tensor("0", (4, 48), storage="collections OrderedDict"), "names a storage that is none"),
    ],
)
def test_tensors_stay_inside_their_storages(tmp_path: Path, spec: Tensor, match: str) -> None:
    error = refused(tmp_path, with_tensor(spec), match)
    assert "data.pkl@" in str(error.where)


def test_a_storage_shorter_than_declared(tmp_path: Path) -> None:
    state = weights()
    tensors = {n: Tensor(str(i), a.shape) for i, (n, a) in enumerate(state.items())}
    storages = {str(i): a.tobytes() for i, a in enumerate(state.values())}
    short = {**storages, "0": storages["0"][:-4]}
    refused(tmp_path, checkpoint(pth=torch_zip(pickled(tensors), short)), "needs a storage of 768 bytes")
    del short["0"]
    refused(tmp_path, checkpoint(pth=torch_zip(pickled(tensors), short)), "no member archive/data/0")


@pytest.mark.parametrize(
    ("program", "match"),
    [
        (b"\x80\x02}.", "holds no tensors"),
        (b"\x80\x02}", "damaged|STOP"),
        (b"\x80\x02K\x01.", "does not hold a state dict"),
        (b"\x80\x02u.", "damaged"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02](K\x01e.", "opcode EMPTY_LIST"),
        (b"\x80\x02}K\x01K\x01s.", "not named by a string"),
        (b"\x80\x02}K\x01R.", "calls something"),
        (b"\x80\x02r\xff\xff\xff\xff.", "damaged"),
        (b"\x80\x02" + name("torch._utils _rebuild_tensor_v2") + b"}b.", "sets attributes"),
        (b"\x80\x02" + name("collections OrderedDict") + number(1) + b"\x85R.", "calls something"),
    ],
)
def test_damaged_pickles(tmp_path: Path, program: bytes, match: str) -> None:
    refused(tmp_path, checkpoint(pth=torch_zip(program, {})), match)


def test_a_zip_bomb_is_not_inflated(tmp_path: Path) -> None:
    bomb = zipped({"data": bytes(100 << 20), "policy.pth": b""}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 20
    refused(tmp_path, bomb, "would unpack to")


def test_a_member_that_declares_less_than_it_holds(tmp_path: Path) -> None:
    bomb = zipped({"data": bytes(50 << 20), "policy.pth": b""}, zipfile.ZIP_DEFLATED)
    lying = bomb.replace(struct.pack("<I", 50 << 20), struct.pack("<I", 100))
    refused(tmp_path, lying, "not a readable zip|holds")


def test_members_twice_or_strangely_compressed(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "double.zip", "w") as archive:
        archive.writestr("data", b"{}")
        archive.writestr("data", json.dumps(fields()))
    refused(tmp_path, (tmp_path / "double.zip").read_bytes(), "two members named 'data'")
    refused(tmp_path, zipped({"data": b"{}"}, zipfile.ZIP_BZIP2), "compressed in an unusual way")


def test_importing_the_package_does_not_import_tensorflow() -> None:
    program = "import sys, quant.policy; print(sorted({'tensorflow', 'keras', 'torch', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
