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
from quant.tracks.candidate import PARTS, Affine, Bits, Candidate, Part, SubModel, code_limits

SCHEMA_VERSION = 1
MAX_RESIDUAL = 256
"""A residual lies within half a step, which is the whole of int8 at this factor."""
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
        "bits": candidate.bits,
        "input_quantization": _formula(candidate),
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
        bits = _bits(value.get("bits", 8))
        models = {part: _load_model(folder, part, track, value["models"][part]) for part in PARTS}
        return Candidate(
            track=_one_of((track,), value["track"], "track"),
            peer_encoder=models["peer_encoder"],
            policy_head=models["policy_head"],
            peer_input=_affine(value["peer_input"], bits),
            ego_input=_affine(value["ego_input"], bits),
            pooling=_one_of(POOLINGS, value["pooling"], "pooling"),
            action_space=action_space_from_json(value["action_space"], str(path)),
            max_peers=_positive(value["max_peers"], "max_peers"),
            policy_sha256=str(value["policy_sha256"]),
            dataset_sha256=str(value["dataset_sha256"]),
            log=tuple(read_bytes(folder / log_name(track)).decode(errors="replace").splitlines()),
            bits=bits,
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"the description lacks or garbles {error}", where=path, hint=f"make it again: quant {track}"
        ) from error


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


def _bits(value: Any) -> Bits:
    if value not in (8, 16) or type(value) is not int:
        raise ValueError(f"bits: {value!r} is neither 8 nor 16")
    return 8 if value == 8 else 16


def _formula(candidate: Candidate) -> str:
    low, high = code_limits(candidate.bits)
    formula = f"q = clamp(rint(x * gain + offset), {low}, {high}) in float32, halves to even"
    if candidate.peer_input.residual or candidate.ego_input.residual:
        formula += "; where residual > 0, after all q: r = clamp(rint((x * gain + offset - q) * residual)), the same"
    return formula


def _affine_json(affine: Affine) -> dict[str, list[float] | int]:
    gain, offset = ([float(x) for x in values] for values in (affine.gain, affine.offset))
    return {"gain": gain, "offset": offset, "residual": affine.residual}


def _affine(value: dict[str, Any], bits: Bits) -> Affine:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused as such
        gain, offset = np.array(value["gain"], np.float32), np.array(value["offset"], np.float32)
    if gain.shape != offset.shape or gain.ndim != 1 or not (np.isfinite(gain) & np.isfinite(offset) & (gain > 0)).all():
        raise ValueError("gain and offset")
    residual = value.get("residual", 0)
    if type(residual) is not int or not 0 <= residual <= MAX_RESIDUAL or residual & (residual - 1):
        raise ValueError(f"residual: {residual!r} is neither 0 nor a power of two up to {MAX_RESIDUAL}")
    if residual and bits != 8:
        raise ValueError(f"residual: {residual} with {bits} bits, where only 8 have residuals")
    return Affine(gain, offset, bits, residual)
