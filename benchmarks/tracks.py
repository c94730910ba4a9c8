"""Error on held-out frames of the plain converter and of every track, and what their models take.

``python -m benchmarks.tracks POLICY --drive DRIVE.npz [--drive ...]``, or ``--run RUN``, prints mean and largest action
error, agreement, the processor's time to make it, bytes, and multiply-accumulates of encoder and head.
The plain converter is TensorFlow's own post-training quantization of both sub-models as they are: one scale for each
input tensor, ranges from the same calibration frames, int8 in and out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from quant.dataset import Dataset, Split, build_dataset, read_drive
from quant.evaluation.open_loop import Closeness, compare
from quant.native import import_tensorflow
from quant.policy import Dense, Policy, load_policy, policy_digest
from quant.runners import Int8Runner, interface, macs
from quant.runs.reading import read_inputs
from quant.runs.run import origins_of
from quant.tracks.candidate import Affine, Candidate, SubModel
from quant.tracks.job import Job
from quant.tracks.registry import TRACKS, Track, parse_tracks


def plain_candidate(policy: Policy, dataset: Dataset) -> Candidate:
    """Both sub-models by TFLiteConverter with a representative dataset, and nothing else."""
    rows = dataset.rows(Split.CALIBRATION)
    encoder = convert_plainly(policy.encoder, dataset.peer_inputs[dataset.peer_rows(rows)])
    head = convert_plainly(policy.head, dataset.policy_inputs[rows])
    return Candidate(
        track="plain",
        peer_encoder=SubModel("peer_encoder", encoder),
        policy_head=SubModel("policy_head", head),
        peer_input=_one_scale(encoder, policy.peer_size),
        ego_input=_one_scale(head, policy.ego_size),
        pooling=policy.pooling,
        action_space=policy.action_space,
        max_peers=policy.max_peers,
        policy_sha256=dataset.policy_sha256,
        dataset_sha256=dataset.digest,
    )


def convert_plainly(layers: tuple[Dense, ...], representative: NDArray[np.float32]) -> bytes:
    """The converter's default full-integer quantization of a chain of layers."""
    tf = import_tensorflow()
    import tf_keras

    model = tf_keras.Sequential([tf_keras.Input((layers[0].inputs,))])
    for layer in layers:
        dense = tf_keras.layers.Dense(layer.outputs, activation=layer.activation)
        model.add(dense)
        dense.set_weights([layer.weight.T, layer.bias])

    def samples() -> Iterator[list[Any]]:
        yield from ([row[None]] for row in representative)

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def _one_scale(tflite: bytes, features: int) -> Affine:
    entry = interface(tflite)[0]
    gain = np.full(features, 1 / entry.scale, np.float32)
    return Affine(gain, np.full(features, entry.zero_point, np.float32))


def _line(name: str, where: str, closeness: Closeness, plain: Closeness, seconds: float) -> str:
    half = closeness.half_agreement
    agreement = f"{closeness.agreement.value:.4f}" + (f" / {half.value:.4f}" if half else "")
    # Frames on which the policy saturates may cost the plain converter nothing at all.
    ratio = f"{closeness.mae / plain.mae:.3f}" if plain.mae > 0 else "-"
    return (
        f"{name:13}{where:10}{closeness.n:6}  MAE {closeness.mae:.6f} ({ratio} of plain)  "
        f"max {closeness.max_error:.4f}  agreement {agreement}  {seconds:.1f} CPU s"
    )


def _inputs(arguments: argparse.Namespace) -> tuple[Policy, Dataset]:
    """Policy and dataset of a run, or those made from a policy and drives."""
    if arguments.run is not None:
        return read_inputs(arguments.run)
    policy = load_policy(arguments.policy)
    recordings = [read_drive(path, policy) for path in arguments.drive]
    return policy, build_dataset(policy, policy_digest(policy), recordings, arguments.seed)


def _makers(policy: Policy, dataset: Dataset, seed: int) -> dict[str, Callable[[], Candidate]]:
    job = Job(policy, dataset, lambda made, seen: Int8Runner(made).values(seen), seed)
    tracks = {name: partial(_made, track, job) for name, track in TRACKS.items()}
    return {"plain": lambda: plain_candidate(policy, dataset), **tracks}


def _made(track: Track, job: Job) -> Candidate:
    return track.make(job).candidate


def main() -> None:
    """Prints one line for each candidate and kind of frame."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path, nargs="?")
    parser.add_argument("--drive", type=Path, action="append", default=[])
    parser.add_argument("--run", type=Path, help="take policy and dataset from this run instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tracks", help="only these, and the plain converter")
    arguments = parser.parse_args()
    if arguments.run is None and (arguments.policy is None or not arguments.drive):
        parser.error("a policy with --drive, or --run")
    policy, dataset = _inputs(arguments)
    import_tensorflow()
    chosen = ("plain", *(parse_tracks(arguments.tracks) if arguments.tracks else TRACKS))
    makers = _makers(policy, dataset, arguments.seed)
    rows = dataset.rows(Split.HELD_OUT)
    frames, origins = dataset.observations(rows), origins_of(dataset, rows)
    plain: dict[str, Closeness] = {}
    for name in chosen:
        begin = time.process_time()
        with threadpool_limits(1):
            candidate = makers[name]()
        took = time.process_time() - begin
        result = compare(
            policy.action_space,
            dataset.policy_outputs[rows],
            Int8Runner(candidate).values(frames),
            frames.counts,
            max_peers=policy.max_peers,
            origins=origins,
        )
        plain = plain or dict(result.by_origin)
        models = (candidate.peer_encoder.tflite, candidate.policy_head.tflite)
        size = f"{len(models[0])} + {len(models[1])} bytes, {macs(models[0])} + {macs(models[1])} MACs"
        for where, closeness in result.by_origin:
            print(_line(candidate.track, where, closeness, plain[where], took) + f"  {size}", flush=True)


if __name__ == "__main__":
    main()
