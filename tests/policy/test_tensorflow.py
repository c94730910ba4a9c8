"""SavedModels and Keras files: read off the graph, proven against the original, and exported again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant.errors import InputError
from quant.native import import_tensorflow
from quant.policy import Box, Discrete, Policy, Pooling, export_saved_model, load_policy, policy_digest
from quant.policy.assembly import probe
from quant.policy.graph import Output
from tests.policy.crafted import checkpoint, fields, weights

pytestmark = pytest.mark.slow
LIBRARIES = ["keras", "tf_keras"]
KINDS = ["keras", "h5", "saved_model"]


def library(name: str) -> Any:
    import_tensorflow()
    return pytest.importorskip(name)


def inputs(keras: Any, ego: int = 4, peers: int = 8) -> tuple[Any, Any, Any]:
    return (
        keras.Input((ego,), name="ego"),
        keras.Input((peers, 6), name="peers"),
        keras.Input((peers,), name="peer_mask"),
    )


def dense(keras: Any, width: int, activation: str | None = None) -> Any:
    return keras.layers.Dense(
        width,
        activation=activation,
        kernel_initializer=keras.initializers.GlorotUniform(seed=width),
        bias_initializer=keras.initializers.RandomNormal(stddev=0.3, seed=width),
    )


def masked_max(keras: Any, embeddings: Any, mask: Any) -> Any:
    """Right for embeddings that are not negative."""
    column = keras.layers.Reshape((embeddings.shape[1], 1))(mask)
    return keras.layers.GlobalMaxPooling1D()(keras.layers.Multiply()([embeddings, column]))


def model(
    keras: Any,
    *,
    encode: Callable[[Any], Any] | None = None,
    pool: Callable[[Any, Any, Any], Any] = masked_max,
    ego_first: bool = False,
    last: str | None = None,
    actions: int = 4,
    peers_slots: int = 8,
) -> Any:
    """A Deep Sets policy in one Keras model."""
    ego, peers, mask = inputs(keras, peers=peers_slots)
    embeddings = encode(peers) if encode else dense(keras, 16, "relu")(dense(keras, 32, "relu")(peers))
    z = pool(keras, embeddings, mask)
    joined = keras.layers.Concatenate()([ego, z] if ego_first else [z, ego])
    return keras.Model([ego, peers, mask], dense(keras, actions, last)(dense(keras, 64, "tanh")(joined)))


def save(keras_model: Any, folder: Path, kind: str) -> Path:
    path = folder / "model" if kind == "saved_model" else folder / f"model.{kind}"
    if kind == "saved_model":
        keras_model.export(str(path))
    else:
        keras_model.save(str(path))
    return path


def values(keras_model: Any, policy: Policy) -> tuple[Any, Any]:
    """What the original and the import give on fresh observations."""
    observations = probe(policy.ego_size, policy.max_peers, policy.peer_size, seed=7)
    arrays = [observations.ego, observations.peers, observations.mask.astype(np.float32)]
    return np.asarray(keras_model(arrays, training=False)), policy.forward(observations).values


def activations(policy: Policy) -> tuple[list[str], list[str]]:
    return [layer.activation for layer in policy.encoder], [layer.activation for layer in policy.head]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LIBRARIES)
def test_one_model(tmp_path: Path, name: str, kind: str) -> None:
    original = model(library(name))
    policy = load_policy(save(original, tmp_path, kind))
    theirs, mine = values(original, policy)
    np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert activations(policy) == (["relu", "relu"], ["tanh", "linear"])
    assert (policy.pooling, policy.ego_size, policy.max_peers, policy.action_space) == ("max", 4, 8, Discrete(4))
    assert {fact.name: fact.how for fact in policy.facts}["pooling"] == "read"
    assert {fact.name: fact.how for fact in policy.facts}["action_space"] == "assumed"


def time_distributed(keras: Any) -> Callable[[Any], Any]:
    layers = keras.layers
    inner = keras.Sequential([keras.Input((6,)), dense(keras, 32, "relu"), dense(keras, 16, "relu")])
    wrapped: Callable[[Any], Any] = layers.TimeDistributed(inner)
    return wrapped


def separate_activations(keras: Any) -> Callable[[Any], Any]:
    layers = keras.layers
    steps = [dense(keras, 32), layers.Activation("elu"), layers.Dropout(0.5), dense(keras, 16), layers.ReLU()]

    def encode(peers: Any) -> Any:
        for step in steps:
            peers = step(peers)
        return peers

    return encode


def batch_normalized(keras: Any) -> Callable[[Any], Any]:
    normal = keras.initializers.RandomNormal(mean=1.0, stddev=0.2, seed=3)
    norm = keras.layers.BatchNormalization(
        gamma_initializer=normal, beta_initializer=normal, moving_mean_initializer=normal
    )
    return lambda peers: keras.layers.ReLU()(norm(dense(keras, 16)(peers)))


@pytest.mark.parametrize(
    ("encode", "kinds"),
    [
        (time_distributed, ["relu", "relu"]),
        (separate_activations, ["elu", "relu"]),
        (batch_normalized, ["relu"]),
    ],
)
@pytest.mark.parametrize("name", LIBRARIES)
def test_layers_that_come_to_dense_layers(
    tmp_path: Path, name: str, encode: Callable[[Any], Any], kinds: list[str]
) -> None:
    keras = library(name)
    original = model(keras, encode=encode(keras))
    policy = load_policy(save(original, tmp_path, "keras"))
    theirs, mine = values(original, policy)
    np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert activations(policy)[0] == kinds


def ops_max(keras: Any, h: Any, mask: Any) -> Any:
    ops = keras.ops
    z = ops.max(ops.where(mask[:, :, None] > 0.5, h, -1e9), axis=1)
    return ops.where(ops.any(mask > 0.5, axis=1, keepdims=True), z, 0.0)


def ops_mean(keras: Any, h: Any, mask: Any) -> Any:
    ops = keras.ops
    return ops.sum(h * mask[:, :, None], axis=1) / ops.maximum(ops.sum(mask, axis=1, keepdims=True), 1.0)


def dot_sum(keras: Any, h: Any, mask: Any) -> Any:
    return keras.layers.Dot(axes=(1, 1))([mask, h])


@pytest.mark.parametrize(("pool", "expected"), [(ops_max, "max"), (ops_mean, "mean"), (dot_sum, "sum")])
def test_pooling_is_read_off_the_graph(tmp_path: Path, pool: Any, expected: Pooling) -> None:
    keras = library("keras")
    original = model(keras, pool=pool, encode=dense(keras, 16, "tanh"))
    path = save(original, tmp_path, "keras")
    policy = load_policy(path)
    theirs, mine = values(original, policy)
    np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert policy.pooling == expected
    with pytest.raises(InputError, match="pooling is given as"):
        load_policy(path, pooling="max" if expected != "max" else "mean")


def test_the_other_order_of_concatenation_is_read(tmp_path: Path) -> None:
    original = model(library("keras"), ego_first=True, peers_slots=5)
    policy = load_policy(save(original, tmp_path, "keras"))
    theirs, mine = values(original, policy)
    np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert policy.max_peers == 5
    assert {fact.name: fact.value for fact in policy.facts}["head_input"] == "[ego, z]"


def test_softmax_is_left_out(tmp_path: Path) -> None:
    original = model(library("keras"), last="softmax")
    policy = load_policy(save(original, tmp_path, "keras"))
    theirs, mine = values(original, policy)
    np.testing.assert_allclose(Output(softmax=True)(mine), theirs, atol=1e-5)
    assert policy.head[-1].activation == "linear"


def test_one_value_needs_bounds_unless_its_activation_has_them(tmp_path: Path) -> None:
    keras = library("keras")
    bounded = load_policy(save(model(keras, last="sigmoid", actions=1), tmp_path, "keras"))
    assert bounded.action_space == Box((0.0,), (1.0,))
    assert bounded.head[-1].activation == "linear"
    (tmp_path / "b").mkdir()
    path = save(model(keras, actions=1), tmp_path / "b", "keras")
    with pytest.raises(InputError, match="does not say within which bounds"):
        load_policy(path)
    assert load_policy(path, action_space=Box((-1.0,), (1.0,))).action_space == Box((-1.0,), (1.0,))


def unmasked(keras: Any, h: Any, mask: Any) -> Any:
    return keras.layers.GlobalMaxPooling1D()(h)


def mean_without_empty_set(keras: Any, h: Any, mask: Any) -> Any:
    return keras.layers.GlobalAveragePooling1D()(h, mask=mask)


def doubled(keras: Any, h: Any, mask: Any) -> Any:
    return masked_max(keras, h, mask) * 2.0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"pool": unmasked}, "does not use the peer mask"),
        ({"pool": mean_without_empty_set}, "not faithful.*with 0 peers"),
        ({"pool": doubled}, "not faithful"),
        ({"last": "softplus"}, "Softplus"),
    ],
)
def test_what_is_not_a_supported_policy_is_refused(tmp_path: Path, options: dict[str, Any], match: str) -> None:
    path = save(model(library("keras"), **options), tmp_path, "keras")
    with pytest.raises(InputError, match=match):
        load_policy(path)


def test_layers_that_are_not_dense_are_named(tmp_path: Path) -> None:
    keras = library("keras")
    path = save(model(keras, encode=keras.layers.Conv1D(16, 3, padding="same")), tmp_path, "keras")
    with pytest.raises(InputError, match=r"unsupported layer.*Conv2D"):
        load_policy(path)


@pytest.mark.parametrize("kind", ["keras", "h5"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_the_code_of_a_lambda_is_not_run(tmp_path: Path, name: str, kind: str) -> None:
    keras = library(name)
    flag = tmp_path / "executed"
    target = str(flag)

    def pool(keras: Any, h: Any, mask: Any) -> Any:
        shape = (h.shape[-1],)
        function = lambda x: (__import__("pathlib").Path(target).touch(), x[:, 0])[1]  # noqa: E731
        return keras.layers.Lambda(function, output_shape=shape)(masked_max(keras, h, mask)[:, None])

    original = model(keras, pool=pool)
    original([np.zeros((1, 4)), np.zeros((1, 8, 6)), np.zeros((1, 8))])
    assert flag.exists(), "the code of the model is harmful when it is run"
    path = save(original, tmp_path, kind)
    flag.unlink()
    with pytest.raises(InputError, match="Lambda, whose code would have to be executed"):
        load_policy(path)
    assert not flag.exists()


def test_damaged_keras_files(tmp_path: Path) -> None:
    keras = library("keras")
    for kind in ("keras", "h5"):
        path = save(model(keras), tmp_path, kind)
        path.write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(InputError):
            load_policy(path)


@pytest.mark.parametrize("kind", ["keras", "saved_model"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_two_sub_models(tmp_path: Path, name: str, kind: str) -> None:
    keras = library(name)
    encoder = keras.Sequential([keras.Input((6,)), dense(keras, 32, "relu"), dense(keras, 16, "elu")])
    head = keras.Sequential([keras.Input((21,)), dense(keras, 64, "tanh"), dense(keras, 4)])
    pair = tmp_path / "pair"
    pair.mkdir()
    paths = []
    for part, part_model in (("peer_encoder", encoder), ("policy_head", head)):
        saved = save(part_model, tmp_path, kind)
        paths.append(saved.rename(pair / (part + saved.suffix)))
    by_folder = load_policy(pair, pooling="mean")
    by_paths = load_policy(paths[0], head=paths[1], pooling="mean")
    assert policy_digest(by_folder) == policy_digest(by_paths)
    observations = probe(5, 8, 6, seed=2)
    flat = observations.peers.reshape(-1, 6)
    np.testing.assert_allclose(by_folder.encode(flat), np.asarray(encoder(flat)), atol=1e-5)
    joined = by_folder.forward(observations)
    np.testing.assert_allclose(joined.values, np.asarray(head(joined.head_inputs)), atol=1e-5)
    assert {fact.name: fact.how for fact in by_folder.facts}["pooling"] == "given"
    assert {fact.name: fact.how for fact in load_policy(pair).facts}["pooling"] == "assumed"


def sb3_policy(folder: Path, **kwargs: Any) -> Policy:
    (folder / "sb3.zip").write_bytes(checkpoint(weights(actions=2), fields(box=("[-1. 0.]", "[1. 1.]"), **kwargs)))
    return load_policy(folder / "sb3.zip")


@pytest.mark.parametrize("pooling", ["max", "mean", "sum"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "elu", "sigmoid", "relu6"])
def test_export_and_import_give_the_same_policy(tmp_path: Path, pooling: Pooling, activation: str) -> None:
    policy = sb3_policy(tmp_path, features_extractor_kwargs={"pooling": pooling, "activation": activation})
    export_saved_model(policy, tmp_path / "exported")
    back = load_policy(tmp_path / "exported")
    observations = probe(4, 8, 6)
    np.testing.assert_allclose(back.forward(observations).values, policy.forward(observations).values, atol=1e-6)
    assert policy_digest(back) == policy_digest(policy)
    assert (back.facts, back.origin) == (policy.facts, policy.origin)


def test_the_exported_signatures_compute_what_the_policy_does(tmp_path: Path) -> None:
    policy = sb3_policy(tmp_path)
    export_saved_model(policy, tmp_path / "exported")
    signatures = import_tensorflow().saved_model.load(str(tmp_path / "exported")).signatures
    o = probe(4, 8, 6)
    forward = policy.forward(o)
    served = signatures["serving_default"](ego=o.ego, peers=o.peers, peer_mask=o.mask.astype(np.float32))["values"]
    flat = o.peers.reshape(-1, 6)
    embeddings = signatures["peer_encoder"](peers=flat)["embeddings"]
    head = signatures["policy_head"](head_inputs=forward.head_inputs)["values"]
    np.testing.assert_allclose(served, forward.values, atol=1e-6)
    np.testing.assert_allclose(embeddings, policy.encode(flat), atol=1e-6)
    np.testing.assert_allclose(head, forward.values, atol=1e-6)


def test_equal_policies_export_equal_bytes(tmp_path: Path) -> None:
    policy = sb3_policy(tmp_path)
    for name in ("a", "b"):
        export_saved_model(policy, tmp_path / name)
    export_saved_model(policy, tmp_path / "b")
    files = [
        {p.relative_to(f).as_posix(): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (tmp_path / "a", tmp_path / "b")
    ]
    assert files[0] == files[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "sb3.zip"]


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    policy = sb3_policy(tmp_path)
    broken = dataclasses.replace(policy, encoder=policy.encoder[:1], max_peers=-3)
    with pytest.raises(ValueError, match=r"-3|shape|dimension"):
        export_saved_model(broken, tmp_path / "exported")
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="not a SavedModel"):
        export_saved_model(policy, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "sb3.zip"]


def test_an_export_whose_description_lies_is_refused(tmp_path: Path) -> None:
    export_saved_model(sb3_policy(tmp_path), tmp_path / "exported")
    path = tmp_path / "exported" / "assets.extra" / "policy.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps({**description, "pooling": "mean"}))
    with pytest.raises(InputError, match="not faithful"):
        load_policy(tmp_path / "exported")


def test_a_graph_that_reaches_outside_is_not_run(tmp_path: Path) -> None:
    tf = import_tensorflow()
    flag = tmp_path / "executed"

    def serve(ego: Any, peers: Any, peer_mask: Any) -> Any:
        tf.io.write_file(str(flag), "x")
        return {"values": ego + tf.reduce_max(peers * peer_mask[:, :, None], axis=1)[:, :4]}

    specs = [
        tf.TensorSpec(s, name=n) for s, n in (((None, 4), "ego"), ((None, 8, 6), "peers"), ((None, 8), "peer_mask"))
    ]
    module = tf.Module()
    function = tf.function(serve).get_concrete_function(*specs)
    tf.saved_model.save(module, str(tmp_path / "evil"), signatures={"serving_default": function})
    flag.unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"WriteFile.*reach outside"):
        load_policy(tmp_path / "evil")
    assert not flag.exists()


def test_a_function_that_reaches_outside_is_found_before_loading(tmp_path: Path) -> None:
    tf = import_tensorflow()
    export = tmp_path / "evil"
    module = tf.Module()
    specs = [tf.TensorSpec((None, 4), name="x")]
    module.other = tf.function(lambda x: tf.py_function(lambda y: y, [x], tf.float32))
    module.other.get_concrete_function(*specs)
    harmless = tf.function(lambda x: {"values": x}).get_concrete_function(*specs)
    tf.saved_model.save(module, str(export), signatures={"serving_default": harmless})
    with pytest.raises(InputError, match=r"EagerPyFunc.*reach outside"):
        load_policy(export)


def test_damaged_saved_models(tmp_path: Path) -> None:
    export_saved_model(sb3_policy(tmp_path), tmp_path / "exported")
    graph = tmp_path / "exported" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a SavedModel"):
        load_policy(tmp_path / "exported")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="folder without a model"):
        load_policy(tmp_path / "empty")
