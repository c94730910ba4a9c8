"""What of a run is held against another run or a baseline, and where a name on the command line leads to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quant.acceptance.baseline import Figure, Snapshot, load_baseline
from quant.acceptance.comparison import FRAMES
from quant.acceptance.criterion import Evidence
from quant.boards.report import DeviceReport
from quant.dataset import Split
from quant.dataset.storage import Made
from quant.errors import InputError
from quant.evaluation.evaluation import FLOAT, Evaluation
from quant.evaluation.gate import blindness, open_loop_blindness
from quant.evaluation.open_loop import MADE, Closeness, compare
from quant.evaluation.unseen import Unseen
from quant.files import read_json, sha256
from quant.policy.policy import Discrete, Policy
from quant.policy.sides import sides_of
from quant.runners import FloatRunner
from quant.runs.folder import MANIFEST
from quant.runs.reading import limits_of, open_run
from quant.runs.run import Run, origins_of
from quant.tracks.candidate import PARTS
from quant.worlds.scenarios import ScenarioSet

DRIVING, MODELS, STRESS = "driving", "models", "stress"
COMPUTED: Evidence = "computed"


def load_snapshot(path: Path) -> Snapshot:
    """Of a finished run, of a baseline file, or of what ``quant evaluate RUN --drive`` wrote.

    Raises:
        InputError: it is neither, or malformed.
        StaleError: artifacts of the run do not belong together.
    """
    if path.is_file():
        return load_baseline(path, read_json(path).get("snapshot")) if _is_later(path) else load_baseline(path)
    return snapshot(open_run(path))


def _is_later(path: Path) -> bool:
    document = read_json(path)
    return isinstance(document, dict) and "snapshot" in document


def snapshot(run: Run) -> Snapshot:
    """What of a finished run can be compared.

    The winner is decided anew under the limits the run was decided under, so that it is the one in ``winner.json``
    whatever the limits of the folder one stands in.

    Raises:
        InputError: ``winner.json`` holds no limits, or the manifest no versions.
    """
    limits = limits_of(run.folder)
    verdict = run.verdict(limits)
    original = run.evaluations[FLOAT]
    blind = dict(blindness(original, limits.success_drop))
    frames_blind = open_loop_blindness(original, limits.action_disagreement)
    frames = _frames(run)
    boards = by_evidence(run.devices.values())
    return Snapshot(
        run.folder.resolve().name,
        verdict.winner,
        verdict.status,
        interface(run.policy),
        {name: original.hashes[name] for name in ("policy", "dataset", "scenarios")},
        toolchain_of(run),
        _conditions(run, frames, boards),
        blind | ({FRAMES: frames_blind} if frames_blind else {}),
        {
            name: (
                *_driving(evaluation),
                *_fidelity(evaluation, frames),
                *_acting(evaluation, run, frames),
                *_unseen(evaluation),
                *_stress(evaluation, run),
                *_sizes(evaluation, run),
                *board_figures(name, boards),
            )
            for name, evaluation in run.evaluations.items()
        },
    )


def interface(policy: Policy) -> str:
    """What a policy sees and answers, in words; a retraining leaves it as it is."""
    space = policy.action_space
    if isinstance(space, Discrete):
        answers = f"Discrete({space.n})"
    else:
        bounds = zip(space.low, space.high, strict=True)
        answers = f"Box({', '.join(f'{low:g}..{high:g}' for low, high in bounds)})"
    return f"ego {policy.ego_size}, {policy.max_peers} peers of {policy.peer_size}, {answers}"


def toolchain_of(run: Run) -> dict[str, str]:
    """Versions of what made the run, as its manifest has them; what was not installed is not there."""
    manifest = read_json(run.folder / MANIFEST)
    versions = manifest.get("versions") if isinstance(manifest, dict) else None
    if not isinstance(versions, dict):
        raise InputError("holds no versions", where=run.folder / MANIFEST, hint=f"quant decide {run.folder}")
    return {str(name): str(version) for name, version in sorted(versions.items()) if version is not None}


def _conditions(
    run: Run, frames: Mapping[str, str], boards: Mapping[str, Sequence[DeviceReport]]
) -> dict[str, dict[str, str]]:
    conditions: dict[str, dict[str, str]] = {MODELS: {}}
    if run.scenarios is not None:
        conditions[DRIVING] = _driving_conditions(run.scenarios)
    opened = next(e.open_loop for name, e in run.evaluations.items() if name != FLOAT)
    tolerance = "none" if opened is None or opened.tolerance is None else f"{opened.tolerance:g}"
    for origin, digest in frames.items():
        same = {"tolerance of the agreement": tolerance, "held-out frames": digest}
        conditions[f"agreement on {origin}"] = same
        conditions[f"error on {origin}"] = same | {"policy": run.dataset.policy_sha256}
    for drive in {one.drive: one for evaluation in run.evaluations.values() for one in evaluation.unseen}.values():
        same = {"tolerance of the agreement": tolerance, "drive": drive.sha256}
        conditions[f"agreement on {_unseen_name(drive)}"] = same
        conditions[f"error on {_unseen_name(drive)}"] = same | {"policy": run.dataset.policy_sha256}
    if run.stress is not None:
        declared = run.dataset.contract.digest
        asked = {"frames": str(run.stress.frames), "seed of the stress": str(run.stress.seed)}
        conditions[STRESS] = {"declared inputs": declared, **asked}
    return conditions | {name: board_conditions(reports) for name, reports in boards.items()}


def _driving_conditions(scenarios: ScenarioSet) -> dict[str, str]:
    """What explains most stands first: a digest alone tells a reader nothing."""
    counts = [f"{name} {len(scenarios.of_slice(name))}" for name in scenarios.slice_names]
    return {
        "world": scenarios.world,
        "arguments of the world": scenarios.world_kwargs,
        "seed of the scenarios": str(scenarios.seed),
        "episodes": ", ".join(counts),
        "scenarios": scenarios.digest,
    }


def board_conditions(reports: Sequence[DeviceReport]) -> dict[str, str]:
    """Board and toolchain; not the firmware's own version nor the very chip: they are what may have got worse."""
    identities = [report.board for report in reports]
    facts = {
        "chip": [one.chip for one in identities],
        "clock": [f"{one.cpu_mhz} MHz, {one.cores} cores" for one in identities],
        "target": [one.target for one in identities],
        "ESP-IDF": [one.idf for one in identities],
        "engine": [one.engine for one in identities],
        "kernels": [one.kernels for one in identities],
        "repeats": [str(track.repeats) for report in reports for track in report.tracks.values()],
    }
    return {name: " and ".join(sorted(set(values))) for name, values in facts.items()}


def _frames(run: Run) -> dict[str, str]:
    """SHA-256 of what is seen in the held-out frames, by origin: what the policy answers is not part of it."""
    rows = run.dataset.rows(Split.HELD_OUT)
    origins = origins_of(run.dataset, rows)
    names = [str(name) for name in np.unique(origins)]
    seen = [name for name in names if name not in MADE] or names
    return {name: _digest(run, rows[origins == name]) for name in seen}


def _digest(run: Run, rows: NDArray[np.int64]) -> str:
    seen = run.dataset.observations(rows)
    present = np.where(seen.mask[..., None], seen.peers, np.float32(0))
    return sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in (seen.ego, present, seen.mask)))


def _driving(evaluation: Evaluation) -> Iterator[Figure]:
    for outcome in () if evaluation.closed_loop is None else evaluation.closed_loop.slices:
        name, n = outcome.name, outcome.n
        yield Figure("success", name, outcome.success_rate.value, COMPUTED, DRIVING, n, outcome.success)
        if outcome.collision is not None:
            rate = float(outcome.collision.mean())
            yield Figure("collision", name, rate, COMPUTED, DRIVING, n, outcome.collision)
        needless = outcome.needless
        if needless is not None and needless.low is not None and needless.high is not None:
            ends = (needless.low, needless.high)
            yield Figure("needless", name, needless.value, COMPUTED, DRIVING, n, interval=ends)


def _fidelity(evaluation: Evaluation, frames: Mapping[str, str]) -> Iterator[Figure]:
    opened = evaluation.open_loop
    by_origin: dict[str, Closeness] = {} if opened is None else dict(opened.by_origin)
    for origin in frames:
        if origin in by_origin:
            one = by_origin[origin]
            yield Figure("agreement", origin, one.agreement.value, COMPUTED, f"agreement on {origin}", one.n)
            yield Figure("mae", origin, one.mae, COMPUTED, f"error on {origin}", one.n)


def _acting(evaluation: Evaluation, run: Run, frames: Mapping[str, str]) -> Iterator[Figure]:
    """How often the float policy acts: one that never does agrees with every candidate."""
    if evaluation.track != FLOAT:
        return
    rows = run.dataset.rows(Split.HELD_OUT)
    origins = origins_of(run.dataset, rows)
    acts = np.asarray(sides_of(run.policy.action_space, run.dataset.policy_outputs[rows]).acts.any(axis=1))
    for origin in frames:
        own = acts[origins == origin]
        yield Figure("acts", origin, float(own.mean()), COMPUTED, f"agreement on {origin}", len(own))


def _unseen_name(drive: Unseen) -> str:
    return f"unseen {drive.drive}"


def _unseen(evaluation: Evaluation) -> Iterator[Figure]:
    for one in evaluation.unseen:
        name, close = _unseen_name(one), one.closeness
        yield Figure("agreement", name, close.agreement.value, COMPUTED, f"agreement on {name}", close.n)
        yield Figure("mae", name, close.mae, COMPUTED, f"error on {name}", close.n)


def _stress(evaluation: Evaluation, run: Run) -> Iterator[Figure]:
    if run.stress is None or evaluation.track not in run.stress.tracks:
        return
    within = run.stress.tracks[evaluation.track].within
    yield Figure("missed_action", "", within.missed, COMPUTED, STRESS)
    yield Figure("false_action", "", within.false, COMPUTED, STRESS)
    yield Figure("worst_deviation", "", within.worst, COMPUTED, STRESS)


def _sizes(evaluation: Evaluation, run: Run) -> Iterator[Figure]:
    if evaluation.track != FLOAT:
        candidate = run.candidates[evaluation.track]
        uncovered = sum(evaluation.track in column.short for column in run.coverage)
        yield Figure("uncovered", "", uncovered, COMPUTED, MODELS)
        for model in (candidate.peer_encoder, candidate.policy_head):
            yield Figure(f"{model.part}_bytes", "", len(model.tflite), COMPUTED, MODELS)


def by_evidence(reports: Iterable[DeviceReport]) -> dict[str, list[DeviceReport]]:
    """Boards' reports by evidence and chip, as ``measured esp32``."""
    found: defaultdict[str, list[DeviceReport]] = defaultdict(list)
    for report in reports:
        found[f"{report.board.evidence} {report.board.chip}"].append(report)
    return dict(found)


def board_figures(track: str, boards: Mapping[str, Sequence[DeviceReport]]) -> Iterator[Figure]:
    """Of several boards of the same evidence and chip the worst, as the criteria take it."""
    for name, reports in boards.items():
        ran = [report for report in reports if track in report.tracks]
        if ran:
            for kind, value in _worst(track, ran).items():
                yield Figure(kind, name, value, ran[0].board.evidence, name)


def _worst(track: str, reports: Sequence[DeviceReport]) -> dict[str, float]:
    shown = [report.evidence(track) for report in reports]
    figures: dict[str, float] = {}
    # The clock of a host says more of the host and its load than of the models.
    if shown[0].evidence != "computed":
        figures["latency_p99"] = max(one.latency_p99_ms for one in shown)
        figures["latency_max"] = max(one.latency_max_ms for one in shown)
    if all(one.compared for one in shown):
        figures["mismatches"] = max(one.differing for one in shown)
    arenas = [[report.tracks[track].models[part].arena_used for part in PARTS] for report in reports]
    known = [used for arena in arenas for used in arena if used is not None]
    if len(known) == len(arenas) * len(PARTS):
        figures["arena"] = max(sum(used or 0 for used in arena) for arena in arenas)
    heaps = [one.heap_bytes for one in shown if one.heap_bytes is not None]
    stacks = [one.stack_bytes for one in shown if one.stack_bytes is not None]
    if heaps:
        figures["heap_free"] = min(heaps)
    if stacks:
        figures["stack_left"] = min(stacks)
    return figures


def float_against_float(before: Run, now: Run) -> tuple[str, ...]:
    """What a retraining did to the policy itself, in sentences: both on the held-out frames of both runs.

    How often each acts, how often they decide alike, and where they differ most; nothing where they are the same.
    """
    digests = {run.dataset.policy_sha256 for run in (before, now)}
    if interface(before.policy) != interface(now.policy) or len(digests) == 1:
        return ()
    return tuple(_on_frames_of(run, before, now) for run in (before, now))


def _on_frames_of(run: Run, before: Run, now: Run) -> str:
    rows = run.dataset.rows(Split.HELD_OUT, Made.SEEN)
    frames = run.dataset.observations(rows)
    space = run.policy.action_space
    values = [FloatRunner(one.policy).values(frames) for one in (before, now)]
    acting = [float(sides_of(space, own).acts.any(axis=1).mean()) for own in values]
    found = compare(space, values[0], values[1], frames.counts, max_peers=run.policy.max_peers).overall
    apart = np.abs(space.clip(values[0]) - space.clip(values[1])).max(axis=1)
    at = int(apart.argmax())
    row = rows[at]
    origin = run.dataset.origins[run.dataset.column("origin")[row]].name
    one, other = (np.round(space.clip(own)[at].astype(float), 3).tolist() for own in values)
    return (
        f"float on the {found.n} held-out frames of {run.folder.resolve().name}: it acted in {acting[0]:.1%}, now in "
        f"{acting[1]:.1%}; the two decide alike in {found.agreement.value:.1%}; furthest apart in frame "
        f"{run.dataset.column('frame')[row]} of {origin}, with {frames.counts[at]} peers: {one}, now {other}"
    )
