"""Drives left out in turn: every track made without each of them and judged on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quant.dataset import Dataset, Recording, build_dataset
from quant.dataset.build import check_recordings
from quant.dataset.recording import Kind
from quant.dataset.storage import Made
from quant.errors import InputError, StaleError
from quant.evaluation.evaluation import unseen_from_json, unseen_json
from quant.evaluation.open_loop import Closeness, compare
from quant.evaluation.parallel import map_tasks
from quant.evaluation.unseen import Unseen
from quant.files import Progress, no_progress, read_json
from quant.observation.observations import F32, Observations
from quant.observation.resolve import Bounds
from quant.policy import Policy
from quant.runners import FloatRunner, Int8Runner
from quant.tracks.candidate import Candidate
from quant.tracks.job import Job
from quant.tracks.registry import TRACKS

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class LeftOut:
    """What was found by leaving drives out.

    Attributes:
        tracks: by track, one entry a drive that could be left out.
        reasons: by drive, why it could not: without it there is too little to make candidates of.
    """

    tracks: Mapping[str, tuple[Unseen, ...]]
    reasons: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """The document, but for what it belongs to."""
        return {
            "tracks": {name: [unseen_json(one) for one in found] for name, found in self.tracks.items()},
            "not_left_out": dict(self.reasons),
        }


def recordings_of(dataset: Dataset) -> list[Recording]:
    """What the dataset was made of: every recorded and rolled out frame, in the order it was seen."""
    found = []
    for number, origin in enumerate(dataset.origins):
        rows = np.flatnonzero((dataset.column("origin") == number) & (dataset.column("made") == Made.SEEN))
        if origin.kind not in ("drive", "rollout"):
            continue
        rows = rows[np.argsort(dataset.column("frame")[rows], kind="stable")]
        block = dataset.column("block")[rows].astype(np.int64)
        kind: Kind = "drive" if origin.kind == "drive" else "rollout"
        found.append(Recording(origin.name, kind, dataset.observations(rows), block, origin.sha256))
    return found


@dataclass(frozen=True)
class _Context:
    policy: Policy
    policy_sha256: str
    recordings: tuple[Recording, ...]
    seed: int
    given: Mapping[str, Any] | None
    world: Bounds | None
    training_seed: int
    qat_steps: int | None
    tolerance: float


def leave_out(
    policy: Policy,
    dataset: Dataset,
    tracks: Sequence[str],
    *,
    world: Bounds | None = None,
    training_seed: int,
    qat_steps: int | None,
    tolerance: float,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> LeftOut:
    """Makes every track without each drive in turn, with the run's seeds, and judges it on that drive.

    Args:
        policy: in float.
        dataset: the run's.
        tracks: to make.
        world: what the run's world states of its observation.
        training_seed, qat_steps: as the run's tracks are made with.
        tolerance: of the agreement of continuous actions.
        workers: processes; None: one for each processor.
        progress: told candidates made and in all.
    """
    recordings = tuple(recordings_of(dataset))
    context = _Context(
        policy,
        dataset.policy_sha256,
        recordings,
        dataset.seed,
        dataset.given,
        world,
        training_seed,
        qat_steps,
        tolerance,
    )
    drives = [at for at, one in enumerate(recordings) if one.kind == "drive"]
    reasons = {recordings[at].name: reason for at in drives if (reason := _cannot(recordings, at))}
    tasks = [(track, at) for track in tracks for at in drives if recordings[at].name not in reasons]
    made = 0

    def done(_: int) -> None:
        nonlocal made
        made += 1
        progress(made, len(tasks))

    if not any(TRACKS[track].trains for track in tracks):
        workers = 1  # a process takes longer to start than such a track to be made
    # The longest first, so that no processor waits at the end for a training that began last.
    order = sorted(range(len(tasks)), key=lambda i: (not TRACKS[tasks[i][0]].trains, i))
    found = dict(
        zip(order, map_tasks(_judge, context, [tasks[i] for i in order], workers=workers, done=done), strict=True)
    )
    return LeftOut(
        {track: tuple(found[i] for i, (name, _) in enumerate(tasks) if name == track) for track in tracks}, reasons
    )


def _cannot(recordings: Sequence[Recording], at: int) -> str:
    others = [one for number, one in enumerate(recordings) if number != at]
    if not others:
        return "there is no other recording to make candidates of"
    try:
        check_recordings(others)
    except InputError as error:
        return f"without it, {error.what}"
    return ""


def _judge(context: _Context, task: tuple[str, int]) -> Unseen:
    """One track made without one drive, on that drive."""
    track, at = task
    left_out = context.recordings[at]
    others = [one for number, one in enumerate(context.recordings) if number != at]
    dataset = build_dataset(context.policy, context.policy_sha256, others, context.seed, context.given, context.world)
    job = Job(context.policy, dataset, _values, context.training_seed, context.qat_steps, compare_ranges=False)
    candidate = TRACKS[track].make(job).candidate
    frames = left_out.observations
    return Unseen(left_out.name, left_out.sha256, closeness_on(context.policy, candidate, frames, context.tolerance))


def _values(candidate: Candidate, observations: Observations) -> F32:
    return Int8Runner(candidate).values(observations)


def closeness_on(policy: Policy, candidate: Candidate, frames: Observations, tolerance: float) -> Closeness:
    """How close a candidate is to the float policy on these frames."""
    reference, values = FloatRunner(policy).values(frames), Int8Runner(candidate).values(frames)
    return compare(
        policy.action_space, reference, values, frames.counts, max_peers=policy.max_peers, tolerance=tolerance
    ).overall


def left_out_document(found: LeftOut, dataset: Dataset, training: Mapping[str, Any]) -> dict[str, Any]:
    """What ``unseen.json`` holds: what was found, and what it belongs to."""
    belongs = {"policy": dataset.policy_sha256, "dataset": dataset.digest}
    return {"schema_version": SCHEMA_VERSION, "sha256": belongs, "training": dict(training), **found.to_json()}


def read_left_out(path: Path, dataset: Dataset, training: Mapping[str, Any]) -> LeftOut:
    """Reads ``unseen.json`` and sees that it belongs to the dataset and the settings that tracks are made with.

    Raises:
        InputError: it is malformed.
        StaleError: it is of another dataset, policy or training.
    """
    document = read_json(path)
    hint = "run quant unseen again"
    try:
        belongs, made_with = document["sha256"], document["training"]
        found = LeftOut(
            {
                str(name): tuple(unseen_from_json(one, str(path)) for one in entries)
                for name, entries in document["tracks"].items()
            },
            {str(name): str(words) for name, words in document["not_left_out"].items()},
        )
        version = document["schema_version"]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"lacks or garbles {error}", where=path, hint=hint) from error
    if version != SCHEMA_VERSION:
        raise InputError(f"schema version {version}", where=path, expected=str(SCHEMA_VERSION), hint=hint)
    if belongs != {"policy": dataset.policy_sha256, "dataset": dataset.digest} or made_with != dict(training):
        raise StaleError("is of another policy, dataset or training than the run's", where=path, hint=hint)
    return found
