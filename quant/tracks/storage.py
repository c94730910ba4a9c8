"""A candidate's files: the two models, a description that ties them together, and the conversion log."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from quant.errors import InputError, StaleError
from quant.files import read_bytes, read_json, write_bytes, write_json, write_text
from quant.policy.assembly import POOLINGS
from quant.policy.spaces import action_space_from_json, action_space_to_json
from quant.tracks.candidate import PARTS, Affine, Candidate, Part, SubModel

SCHEMA_VERSION = 1
Name = TypeVar("Name", bound=str)


def model_name(part: Part, track: str) -> str:
    """File name of a sub-model."""
    return f"{part}_{track}_int8.tflite"


def description_name(track: str) -> str:
    """File name of the description."""
    return f"candidate_{track}.json"


def log_name(track: str) -> str:
    """File name of the conversion log."""
    return f"conversion_{track}.log"


def curve_name(track: str) -> str:
    """File name of the loss curve."""
    return f"loss_curve_{track}.csv"


def save_candidate(candidate: Candidate, folder: Path) -> None:
    """Writes the models and the log, and their description last."""
    for model in (candidate.peer_encoder, candidate.policy_head):
        write_bytes(folder / model_name(model.part, candidate.track), model.tflite)
    write_text(folder / log_name(candidate.track), "".join(f"{line}\n" for line in candidate.log))
    write_json(folder / description_name(candidate.track), describe(candidate))


def save_curve(track: str, curve: tuple[tuple[int, float, float], ...], folder: Path) -> None:
    """Writes a loss curve as CSV: step, training loss, simulated error."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("step", "training_loss", "simulated_error"))
    writer.writerows((step, "" if np.isnan(loss) else f"{loss:.8g}", f"{error:.8g}") for step, loss, error in curve)
    write_text(folder / curve_name(track), text.getvalue())


def load_curve(track: str, folder: Path) -> tuple[tuple[int, float, float], ...]:
    """Reads a loss curve: (step, training loss or NaN, simulated error) of each point; empty where there is no file.

    Raises:
        InputError: it is malformed.
    """
    path = folder / curve_name(track)
    if not path.is_file():
        return ()
    rows = list(csv.reader(io.StringIO(read_bytes(path).decode(errors="replace"))))[1:]
    try:
        return tuple((int(step), float(loss or "nan"), float(error)) for step, loss, error in rows)
    except ValueError as error:
        again = f"make the candidate again: quant {track}"
        raise InputError(f"not a loss curve: {error}", where=path, hint=again) from error


def describe(candidate: Candidate) -> dict[str, Any]:
    """The description: hashes, sizes, input quantization, pooling, action space, and what it was made from."""
    return {
        "schema_version": SCHEMA_VERSION,
        "track": candidate.track,
        "models": {
            model.part: {
                "file": model_name(model.part, candidate.track),
                "bytes": len(model.tflite),
                "sha256": model.sha256,
            }
            for model in (candidate.peer_encoder, candidate.policy_head)
        },
        "input_quantization": "q = clamp(rint(x * gain + offset), -128, 127) in float32, halves to even",
        "peer_input": _affine_json(candidate.peer_input),
        "ego_input": _affine_json(candidate.ego_input),
        "pooling": candidate.pooling,
        "action_space": action_space_to_json(candidate.action_space),
        "max_peers": candidate.max_peers,
        "policy_sha256": candidate.policy_sha256,
        "dataset_sha256": candidate.dataset_sha256,
    }


def load_candidate(folder: Path, track: str) -> Candidate:
    """Reads a candidate and checks that its models are the ones described.

    Raises:
        InputError: a file is missing or malformed.
        StaleError: a model is not the one the description was written for.
    """
    path = folder / description_name(track)
    value = read_json(path)
    if not isinstance(value, dict) or value.get("schema_version") != SCHEMA_VERSION:
        raise InputError("not a candidate's description of this version", where=path, expected=f"{SCHEMA_VERSION}")
    try:
        models = {part: _load_model(folder, part, track, value["models"][part]) for part in PARTS}
        return Candidate(
            track=_one_of((track,), value["track"], "track"),
            peer_encoder=models["peer_encoder"],
            policy_head=models["policy_head"],
            peer_input=_affine(value["peer_input"]),
            ego_input=_affine(value["ego_input"]),
            pooling=_one_of(POOLINGS, value["pooling"], "pooling"),
            action_space=action_space_from_json(value["action_space"], str(path)),
            max_peers=_positive(value["max_peers"], "max_peers"),
            policy_sha256=str(value["policy_sha256"]),
            dataset_sha256=str(value["dataset_sha256"]),
            log=tuple(read_bytes(folder / log_name(track)).decode(errors="replace").splitlines()),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"the description lacks or garbles {error}", where=path) from error


def _load_model(folder: Path, part: Part, track: str, entry: dict[str, Any]) -> SubModel:
    path = folder / model_name(part, track)
    model = SubModel(part, read_bytes(path))
    if model.sha256 != entry["sha256"]:
        raise StaleError(
            "is not the model the candidate's description was written for",
            where=path,
            expected=f"sha256 {entry['sha256'][:12]}, found {model.sha256[:12]}",
            hint=f"make the candidate again: quant {track}",
        )
    return model


def _one_of(known: tuple[Name, ...], value: Any, key: str) -> Name:
    if value not in known:
        raise ValueError(f"{key}: {value!r} is not one of {', '.join(known)}")
    found: Name = value
    return found


def _positive(value: Any, key: str) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{key}: {value!r}")
    return value


def _affine_json(affine: Affine) -> dict[str, list[float]]:
    return {"gain": [float(x) for x in affine.gain], "offset": [float(x) for x in affine.offset]}


def _affine(value: dict[str, list[float]]) -> Affine:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused as such
        gain, offset = np.array(value["gain"], np.float32), np.array(value["offset"], np.float32)
    if gain.shape != offset.shape or gain.ndim != 1 or not (np.isfinite(gain) & np.isfinite(offset) & (gain > 0)).all():
        raise ValueError("gain and offset")
    return Affine(gain, offset)
