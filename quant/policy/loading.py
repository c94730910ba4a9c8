"""Tells what kind of checkpoint a path is, by its content, and imports it."""

from __future__ import annotations

from pathlib import Path

from quant.errors import InputError
from quant.policy.archive import open_archive, read_checkpoint
from quant.policy.assembly import Given
from quant.policy.policy import ActionSpace, Activation, Policy, Pooling
from quant.policy.sb3 import is_sb3, load_sb3
from quant.policy.storage import is_saved_policy, load_saved

_ZIP, _HDF5 = b"PK", b"\x89HDF\r\n\x1a\n"
_EXPECTED = "a Stable-Baselines3 zip, a TF SavedModel folder, a Keras file (.keras, .h5), or a policy saved by quant"
_KERAS_MEMBERS = ("config.json", "model.weights.h5")
PARTS = ("peer_encoder", "policy_head")
"""Names of the two sub-models inside a folder."""


def load_policy(
    path: Path,
    *,
    head: Path | None = None,
    pooling: Pooling | None = None,
    encoder_activation: Activation | None = None,
    action_space: ActionSpace | None = None,
    max_peers: int | None = None,
) -> Policy:
    """Imports a float Deep Sets policy from whatever file it is in; the content decides, not the name.

    Args:
        path: a Stable-Baselines3 zip, a SavedModel folder, a Keras file, a policy saved by `save_policy`, or a folder
            with the two sub-models ``peer_encoder`` and ``policy_head``.
        head: the policy head, where a SavedModel or Keras file comes as two sub-models and ``path`` is the encoder.
        pooling, encoder_activation, action_space, max_peers: for what the file does not say. What it does say cannot be
            overruled.

    Returns:
        The policy; its ``facts`` say what is known and how.

    Raises:
        InputError: the file is missing, damaged, hostile, of an unsupported kind, or contradicts what is given.
    """
    given = Given(pooling, encoder_activation, action_space, max_peers)
    if head is None and path.is_dir():
        pair = _pair(path)
        if pair is not None:
            path, head = pair
    if path.is_dir() or head is not None:
        return _load_with_tensorflow(path, head, given)
    content = read_checkpoint(path)
    if content.startswith(_HDF5):
        return _load_with_tensorflow(path, None, given)
    if not content.startswith(_ZIP):
        raise InputError(
            "is not a checkpoint: its content is of an unknown kind",
            where=path,
            expected=_EXPECTED,
            hint="the content decides, not the name: was it copied whole?",
        )
    where = str(path)
    if is_sb3(content, where):
        return load_sb3(content, where, given)
    if is_saved_policy(content, where):
        return load_saved(content, where, given)
    members = open_archive(content, where).members
    if all(name in members for name in _KERAS_MEMBERS):
        return _load_with_tensorflow(path, None, given)
    raise InputError(
        f"is a zip, but not a checkpoint; it holds {', '.join(sorted(members)[:5])[:200] or 'nothing'}",
        where=path,
        expected=_EXPECTED,
        hint="it looks like a recorded drive: quant run POLICY --drive FILE" if "ego.npy" in members else None,
    )


def _load_with_tensorflow(path: Path, head: Path | None, given: Given) -> Policy:
    from quant.policy.tensorflow_import import load_tensorflow  # TensorFlow takes seconds to import

    return load_tensorflow(path, head, given)


def _pair(folder: Path) -> tuple[Path, Path] | None:
    """The two sub-models in a folder that is not itself a SavedModel."""
    if (folder / "saved_model.pb").exists():
        return None
    found = []
    for part in PARTS:
        candidates = sorted(p for p in folder.glob(f"{part}*") if p.name in {part, f"{part}.keras", f"{part}.h5"})
        if len(candidates) > 1:
            names = ", ".join(p.name for p in candidates)
            raise InputError(f"holds several models of one part: {names}", where=folder, expected=f"one {part}")
        found += candidates
    if len(found) == len(PARTS):
        return found[0], found[1]
    if found:
        raise InputError(
            f"holds only {found[0].name}", where=folder, expected=f"two sub-models, {PARTS[0]} and {PARTS[1]}"
        )
    raise InputError("is a folder without a model", where=folder, expected=_EXPECTED)
