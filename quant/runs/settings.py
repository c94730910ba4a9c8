"""What a run was asked for, as it stands in its folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quant.errors import InputError, nearest
from quant.files import read_json, write_json
from quant.runs.folder import SCHEMA_VERSION, SETTINGS

GIVEN = {"head": str, "pooling": str, "action_space": str, "max_peers": int, "encoder_activation": str}
"""What a user may say of a policy that its file does not, with the type of each."""


@dataclass(frozen=True)
class Settings:
    """What a run was asked for, step by step; enough to repeat it.

    Attributes:
        checkpoint: the path the policy was imported from, as given.
        drives: paths of recorded drives, as given.
        world: specification, or None.
        world_kwargs: for a user's environment.
        seed: of dataset, scenarios and training.
        episodes: scenarios of each slice that candidates are judged on.
        qat_steps: optimizer steps on all weights.
        tracks: names of the candidates.
        training_seed: of training alone, where it is not to be ``seed``.
        observation: path of what was said of the policy's input, as given; None: nothing was.
        stress_frames: over the declared range of the inputs, on which candidates are stressed; None: the usual number;
            0: they are not.
        unseen: whether every track is also made without each drive in turn, and judged on it.
        allow: names of findings that are let through although they are certain (`quant.observation.findings.NAMES`).
        given: what was said of the policy, by `GIVEN`; only what was. Action spaces as `parse_action_space` reads them.
    """

    checkpoint: str
    drives: tuple[str, ...] = ()
    world: str | None = None
    world_kwargs: dict[str, Any] | None = None
    seed: int = 0
    episodes: dict[str, int] | None = None
    qat_steps: int | None = None
    tracks: tuple[str, ...] = ()
    training_seed: int | None = None
    given: dict[str, Any] | None = None
    observation: str | None = None
    unseen: bool = True
    stress_frames: int | None = None
    allow: tuple[str, ...] = ()


def write_settings(settings: Settings, folder: Path) -> None:
    """Writes ``settings.json``."""
    write_json(folder / SETTINGS, {"schema_version": SCHEMA_VERSION, **asdict(settings)})


def read_settings(folder: Path) -> Settings:
    """Reads ``settings.json``.

    Raises:
        InputError: the folder is not a run, or the file is malformed.
    """
    if not (folder / SETTINGS).is_file():
        raise _no_run(folder)
    value = read_json(folder / SETTINGS)
    if not isinstance(value, dict) or value.pop("schema_version", None) != SCHEMA_VERSION:
        raise InputError(
            "not the settings of this version",
            where=folder / SETTINGS,
            expected=f"schema_version {SCHEMA_VERSION}",
            hint="the run was made by another version of quant: make it again with this one, quant run",
        )
    try:
        lists = {key: tuple(value[key]) for key in ("drives", "tracks")}
        settings = Settings(**value | lists | {"allow": tuple(value.get("allow", ()))})
    except (TypeError, KeyError) as error:
        raise InputError(
            f"the settings lack or garble {error}", where=folder / SETTINGS, hint="import the policy again"
        ) from error
    _check_settings(settings, value, folder / SETTINGS)
    return settings


def _no_run(folder: Path) -> InputError:
    """There is no run at ``folder``: says which runs there are that may have been meant."""
    if folder.is_file():
        return InputError("is a file", where=folder, expected="a run folder")
    found = _runs_around(folder)
    inside = [run.as_posix() for run in found if run.parent == folder]
    if inside:
        hint = f"it holds runs: {', '.join(inside[:5])}"
    else:
        named = [run.as_posix() for run in found if run.name == folder.name]
        close = next(iter(named), None) or nearest(folder.as_posix(), map(Path.as_posix, found))
        meant = f"did you mean {close}? or " if close else ""
        hint = f"{meant}start one: quant run, or quant import POLICY --out FOLDER"
    what = "not a run folder" if folder.is_dir() else "no such run folder"
    return InputError(what, where=folder, expected=f"a folder with {SETTINGS}", hint=hint)


def _runs_around(folder: Path) -> list[Path]:
    """The runs in the folder, beside it, and where runs usually are."""
    places = (folder, folder.parent, Path(), Path("runs"))
    return sorted({found.parent for place in places for found in place.glob(f"*/{SETTINGS}")})


def _check_settings(settings: Settings, value: dict[str, Any], path: Path) -> None:
    """Types only: what the values mean is checked by the step that uses them."""
    lists = [isinstance(value[key], list) and _all_are(str, value[key]) for key in ("drives", "tracks")]
    episodes, kwargs, steps = settings.episodes, settings.world_kwargs, settings.qat_steps
    right = {
        "checkpoint": isinstance(settings.checkpoint, str),
        "drives": lists[0],
        "world": settings.world is None or isinstance(settings.world, str),
        "world_kwargs": kwargs is None or isinstance(kwargs, dict),
        "seed": type(settings.seed) is int and settings.seed >= 0,
        "episodes": episodes is None or (isinstance(episodes, dict) and _all_are(int, episodes.values())),
        "qat_steps": steps is None or (type(steps) is int and steps > 0),
        "tracks": lists[1],
        "training_seed": settings.training_seed is None
        or (type(settings.training_seed) is int and settings.training_seed >= 0),
        "observation": settings.observation is None or isinstance(settings.observation, str),
        "unseen": isinstance(settings.unseen, bool),
        "stress_frames": settings.stress_frames is None
        or (type(settings.stress_frames) is int and settings.stress_frames >= 0),
        "allow": isinstance(value.get("allow", []), list) and _all_are(str, settings.allow),
        "given": settings.given is None or _is_given(settings.given),
    }
    for key, is_right in right.items():
        if not is_right:
            raise InputError(f"{key} is {str(value.get(key))[:80]}", where=path, hint="import the policy again")


def _is_given(value: Any) -> bool:
    return isinstance(value, dict) and all(type(one) is GIVEN.get(name) for name, one in value.items())


def _all_are(kind: type, values: Iterable[Any]) -> bool:
    return all(type(value) is kind for value in values)
