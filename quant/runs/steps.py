"""The steps of a run, each a function on a run folder.

Every step checks that what it reads belongs together, writes its artifacts whole, and takes the manifest away until
`decide` has written it again: a run without manifest is known to be unfinished. While it works it has the run for
itself. Whatever computes with floats does so on one BLAS thread, so that the bytes do not depend on the number of
processors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from quant.acceptance.decision import Verdict
from quant.acceptance.limits import Limits
from quant.boards.bench import Bench
from quant.boards.measure import measure
from quant.boards.report import DeviceReport, Identity
from quant.dataset import Dataset, Recording, Split, build_dataset, save_dataset, spread
from quant.dataset.build import contract_of, held_to_contract
from quant.dataset.storage import DESCRIPTION, Made
from quant.errors import InputError
from quant.evaluation.evaluate import Timed
from quant.evaluation.evaluate import evaluate as evaluate_all
from quant.evaluation.evaluation import Evaluation
from quant.evaluation.second_opinion import ask
from quant.evaluation.stress.stress import FRAMES
from quant.evaluation.stress.stress import stress as look_for_the_worst
from quant.files import Progress, no_progress, read_json, write_json, write_text
from quant.observation.checks import world_findings
from quant.observation.findings import Finding
from quant.observation.storage import write_contract
from quant.policy import Observations, Policy, export_saved_model, policy_digest, save_policy
from quant.report.text import as_text
from quant.runners import FloatRunner, Int8Runner, ParityReport, parity
from quant.runs.folder import (
    MANIFEST,
    OBSERVATION,
    PARITY,
    POLICY,
    REPORT,
    SAVED_MODEL,
    SCENARIOS,
    SCHEMA_VERSION,
    SECOND_OPINION,
    STRESS,
    STRESS_FRAMES,
    UNSEEN,
    WINNER,
    changing,
    claim,
    clear,
    evaluation_name,
    unfinish,
)
from quant.runs.manifest import recorded_seconds, write_manifest
from quant.runs.pages import shown
from quant.runs.reading import (
    check_conforms,
    limits_of,
    no_candidate,
    read_candidates,
    read_inputs,
    read_policy,
    read_run,
    read_scenarios,
    read_unseen,
    training_of,
    training_seed_of,
)
from quant.runs.run import Run, origins_of
from quant.runs.settings import Settings, read_settings, write_settings
from quant.runs.sources import Sources, episodes_of, read_sources, sources_of, world_of
from quant.runs.unseen import LeftOut, leave_out, left_out_document
from quant.tracks.candidate import Candidate
from quant.tracks.job import Job
from quant.tracks.registry import TRACKS
from quant.tracks.storage import save_candidate, save_curve
from quant.worlds.repeatable import check_repeatable
from quant.worlds.rollout import Recorder, rollout
from quant.worlds.sumo import sumo_version
from quant.worlds.world import CONVOY, World

Given = ParamSpec("Given")
Result = TypeVar("Result")
DATASET_EPISODES = {"nominal": 300, "lossy": 150}
"""Scenarios the float policy drives to fill the dataset."""
DATASET_FRAMES = 12_000
"""Frames kept of them, about: more do not change the ranges, but the time of everything after."""
DEVICE_FRAMES = 1000
"""Held-out frames on which a board is compared in a run; its own test suite takes all of them."""
PARITY_FRAMES = 200
"""Held-out frames on which the other engines are compared; TFLite-Micro runs them one by one."""


def _changing(step: Callable[Concatenate[Path, Given], Result]) -> Callable[Concatenate[Path, Given], Result]:
    """A step that has its run folder for itself while it works."""

    @wraps(step)
    def alone(folder: Path, /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        with changing(folder):
            return step(folder, *args, **kwargs)

    return alone


def import_policy(checkpoint: Path, folder: Path, settings: Settings) -> Policy:
    """Imports a checkpoint into a run folder, as our own file and as a SavedModel.

    Nothing is written before the import has succeeded and the settings' drives and world have been found to fit the
    policy.
    """
    policy = read_sources(checkpoint, settings).policy
    claim(folder)
    keep_policy(folder, policy, settings)
    return policy


@_changing
def keep_policy(folder: Path, policy: Policy, settings: Settings) -> None:
    """Begins a run anew with this policy: what an earlier one made of another goes away."""
    clear(folder)
    write_settings(settings, folder)
    save_policy(policy, folder / POLICY)
    export_saved_model(policy, folder / SAVED_MODEL)


@_changing
def make_dataset(
    folder: Path, settings: Settings, progress: Progress = no_progress, sources: Sources | None = None
) -> Dataset:
    """Makes the dataset and the evaluation's scenarios from the settings' drives and world.

    ``sources`` are the settings', where they have been read already.
    """
    policy = read_policy(folder)
    sources = sources_of(policy, settings) if sources is None else sources
    recordings = [*sources.drives]
    world = world_of(settings)
    with threadpool_limits(1):
        if world is not None:
            episodes_of(settings, world)
            recordings.append(_roll_out(policy, world, settings.seed, progress))
        bounds = None if world is None else world.bounds
        dataset = build_dataset(policy, policy_digest(policy), recordings, settings.seed, sources.observation, bounds)
        dataset = replace(dataset, findings=(*sources.findings, *_driven(sources, recordings, world, settings)))
    unfinish(folder)
    (folder / UNSEEN).unlink(missing_ok=True)
    # New settings never stand beside the old dataset.
    (folder / DESCRIPTION).unlink(missing_ok=True)
    write_settings(settings, folder)
    save_dataset(dataset, folder)
    write_contract(dataset.contract, folder / OBSERVATION)
    _write_scenarios(folder, settings, world, dataset)
    return dataset


def _driven(
    sources: Sources, recordings: Sequence[Recording], world: World | None, settings: Settings
) -> tuple[Finding, ...]:
    """What of a world and its rollouts does not hold to the contract."""
    if world is None:
        return ()
    rollouts = [one for one in recordings if one.kind == "rollout"]
    contract = contract_of(sources.policy, recordings, sources.observation)
    found = world_findings(contract, world.bounds, world.spec)
    driven = held_to_contract(sources.policy, rollouts, sources.observation, settings.allow, world.bounds)
    return (*found, *driven)


def _roll_out(policy: Policy, world: World, seed: int, progress: Progress) -> Recording:
    """What the float policy sees on scenarios of the dataset's own."""
    world.check_fits(policy)
    counts = {name: n for name, n in DATASET_EPISODES.items() if name in world.slices}
    scenarios = world.draw("dataset", seed, counts or {world.slices[0]: sum(DATASET_EPISODES.values())})
    runner = FloatRunner(policy)

    def act(seen: Observations) -> NDArray[Any]:
        return policy.action_space.decide(runner.values(seen))

    if world.spec != CONVOY:
        check_repeatable(world, scenarios, act)
    recorder = Recorder()
    rollout(world, scenarios, act, record=recorder, progress=progress)
    every = max(len(recorder.observations) // DATASET_FRAMES, 1)
    kept = slice(None, None, every)
    return Recording(world.spec, "rollout", recorder.observations[kept], recorder.episodes[kept], scenarios.digest)


def _write_scenarios(folder: Path, settings: Settings, world: World | None, dataset: Dataset) -> None:
    path = folder / SCENARIOS
    if world is None:
        held_out = len(dataset.rows(Split.HELD_OUT))
        write_json(path, {"world": None, "held_out_frames": held_out, "dataset": dataset.digest})
        return
    write_text(path, world.draw("test", settings.seed, episodes_of(settings, world)).to_json())


@_changing
def make_track(folder: Path, name: str, progress: Progress = no_progress, *, qat_steps: int | None = None) -> Candidate:
    """Makes one track's candidate; ``name`` is one of `TRACKS`.

    ``qat_steps``, where given, takes the place of the settings', also for later calls.
    """
    settings = read_settings(folder)
    settings = settings if qat_steps is None else replace(settings, qat_steps=qat_steps)
    policy, dataset = read_inputs(folder)
    with threadpool_limits(1):
        made = TRACKS[name].make(Job(policy, dataset, _infer, training_seed_of(settings), settings.qat_steps, progress))
    _keep_candidate(made.candidate, folder, settings)
    if made.curve is not None:
        save_curve(name, made.curve, folder)
    return made.candidate


@_changing
def leave_drives_out(
    folder: Path, limits: Limits, workers: int | None = None, progress: Progress = no_progress
) -> LeftOut:
    """Makes the run's tracks without each drive in turn and judges each on the drive it was made without."""
    settings = read_settings(folder)
    policy, dataset = read_inputs(folder)
    if not settings.tracks:
        raise no_candidate(folder)
    world = world_of(settings)
    found = leave_out(
        policy,
        dataset,
        settings.tracks,
        world=None if world is None else world.bounds,
        training_seed=training_seed_of(settings),
        qat_steps=settings.qat_steps,
        tolerance=limits.action_tolerance,
        workers=workers,
        progress=progress,
    )
    unfinish(folder)
    write_json(folder / UNSEEN, left_out_document(found, dataset, training_of(settings)))
    return found


def _infer(candidate: Candidate, observations: Observations) -> NDArray[np.float32]:
    return Int8Runner(candidate).values(observations)


def _keep_candidate(candidate: Candidate, folder: Path, settings: Settings) -> None:
    unfinish(folder)
    save_candidate(candidate, folder)
    tracks = tuple(track for track in TRACKS if track == candidate.track or track in settings.tracks)
    write_settings(replace(settings, tracks=tracks), folder)


@_changing
def evaluate(
    folder: Path,
    limits: Limits,
    workers: int | None = None,
    progress: Progress = no_progress,
    timed: Timed = lambda stage, seconds: None,
) -> dict[str, Evaluation]:
    """Float and every candidate, open loop on held-out frames and closed loop where there is a world."""
    settings = read_settings(folder)
    policy, dataset = read_inputs(folder)
    candidates = read_candidates(folder, settings)
    world = world_of(settings)
    rows = dataset.rows(Split.HELD_OUT)
    engines = _engines(candidates, dataset)
    evaluations = evaluate_all(
        policy,
        candidates,
        dataset.observations(rows),
        policy_sha256=policy_digest(policy),
        dataset_sha256=dataset.digest,
        origins=origins_of(dataset, rows),
        tolerance=limits.action_tolerance,
        world=world,
        scenarios=read_scenarios(folder, world),
        workers=workers,
        progress=progress,
        timed=timed,
    )
    left_out = read_unseen(folder, dataset, settings)
    if left_out is not None:
        found = left_out.tracks
        evaluations = {name: replace(one, unseen=found.get(name, ())) for name, one in evaluations.items()}
    unfinish(folder)
    for name, evaluation in evaluations.items():
        write_json(folder / evaluation_name(name), evaluation.to_json())
    write_json(folder / PARITY, {name: asdict(report) for name, report in engines.items()})
    return evaluations


def _engines(candidates: Mapping[str, Candidate], dataset: Dataset) -> dict[str, ParityReport]:
    """How far TFLite-Micro (has to be 0) and LiteRT are from the arithmetic of the verdict, before it is relied on."""
    rows = dataset.rows(Split.HELD_OUT)
    observations = dataset.observations(rows[spread(len(rows), PARITY_FRAMES)])
    reports = {name: parity(candidate, observations) for name, candidate in candidates.items()}
    check_conforms(reports)
    return reports


@_changing
def run_device(folder: Path, bench: Bench, progress: Progress = no_progress) -> DeviceReport:
    """Lets a board that holds the run's candidates decide and time itself; the run gets its report."""
    _, dataset = read_inputs(folder)
    candidates = read_candidates(folder, read_settings(folder))
    rows = dataset.rows(Split.HELD_OUT)
    observations = dataset.observations(rows[spread(len(rows), DEVICE_FRAMES)])
    report = measure(bench.device, bench.board.name, candidates, observations, progress=progress)
    unfinish(folder)
    report.save(folder)
    return report


@_changing
def keep_device(folder: Path, report: DeviceReport, limits: Limits) -> Verdict:
    """Puts a board's report into a run and decides again."""
    unfinish(folder)
    report.save(folder)
    return decide(folder, limits)


@_changing
def keep_figures(folder: Path, board: Identity, pack_sha256: str, figures: list[dict[str, Any]]) -> None:
    """Puts the figures of a board's tests into a run, which is unfinished until it is decided again.

    Figures of other tests stay, as long as they are of the same board, firmware and models: a part of the suite that
    is run again does not undo the whole.
    """
    path = folder / f"hil_{board.name}.json"
    head = {"schema_version": SCHEMA_VERSION, "board": asdict(board), "pack_sha256": pack_sha256}
    present = read_json(path) if path.is_file() else {}
    alike = isinstance(present, dict) and all(present.get(key) == value for key, value in head.items())
    run = {figure["test"] for figure in figures}
    others = [figure for figure in present["figures"] if figure["test"] not in run] if alike else []
    unfinish(folder)
    write_json(path, {**head, "figures": [*others, *figures]})


@_changing
def stress(
    folder: Path,
    limits: Limits | None = None,
    *,
    frames: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Run:
    """Stresses an evaluated run's candidates over the declared range of their inputs.

    A run that is finished is finished again under the limits it had, now with what the stress test shows.

    Args:
        folder: of the run.
        limits: where the run has no verdict yet; None: the defaults.
        frames: within the bounds, from now on also by the settings; None: as they say, or
            `quant.evaluation.stress.stress.FRAMES`.
        seed: of the frames; None: the run's.
        workers: processes; None: one for each processor.
        progress: called with frames done and in all.
    """
    # What boards and SUMO showed may be of earlier candidates still; it is of no use here.
    run = read_run(folder, devices=False, second=False, stress=False)
    seconds, finished = recorded_seconds(folder), (folder / MANIFEST).is_file()
    limits = limits_of(folder) if finished else limits or Limits()
    settings = replace(run.settings, stress_frames=frames or run.settings.stress_frames or None)
    found = look_for_the_worst(
        run.policy,
        run.candidates,
        run.dataset.contract,
        run.dataset.observations(np.flatnonzero(run.dataset.column("made") == Made.SEEN)),
        policy_sha256=run.dataset.policy_sha256,
        dataset_sha256=run.dataset.digest,
        frames=settings.stress_frames or FRAMES,
        seed=run.settings.seed if seed is None else seed,
        workers=workers,
        progress=progress,
    )
    unfinish(folder)
    write_settings(settings, folder)
    found.save(folder / STRESS, folder / STRESS_FRAMES)
    return finish(folder, limits, seconds)[0] if finished else replace(run, settings=settings, stress=found)


@_changing
def second_opinion(
    folder: Path,
    limits: Limits | None = None,
    *,
    episodes: Mapping[str, int] | None = None,
    following: str = "krauss",
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Run:
    """Drives an evaluated run's policies in SUMO as well, and puts what they did into the run.

    It decides nothing: a run that is finished is finished again with the verdict it had.

    Args:
        folder: of a run in the convoy world.
        limits: for the gate's actors, where the run has no verdict yet; None: the defaults.
        episodes, following, workers, progress: see `quant.evaluation.second_opinion.ask`.
    """
    check_sumo(read_settings(folder))
    run = read_run(folder, second=False)
    assert run.scenarios is not None  # the convoy world's
    seconds, finished = recorded_seconds(folder), (folder / MANIFEST).is_file()
    limits = limits_of(folder) if finished else limits or Limits()
    opinion = ask(
        run.policy,
        run.candidates,
        run.scenarios,
        run.evaluations,
        limit=limits.success_drop,
        episodes=episodes,
        following=following,
        workers=workers,
        progress=progress,
    )
    unfinish(folder)
    opinion.save(folder / SECOND_OPINION)
    return finish(folder, limits, seconds)[0] if finished else replace(run, second=opinion)


def check_sumo(settings: Settings) -> None:
    """Sees that SUMO is there and that it knows the scenarios of the settings' world."""
    if settings.world != CONVOY:
        raise InputError(
            f"the run's world is {settings.world or 'none'}",
            where="second opinion",
            expected="the convoy world, whose scenarios SUMO can play",
            hint="quant run POLICY --world convoy, if it was trained in our convoys",
        )
    sumo_version()


def decide(folder: Path, limits: Limits, seconds: Mapping[str, float] | None = None) -> Verdict:
    """Applies the decision rule, writes ``winner.json``, the report and, last, the manifest."""
    return finish(folder, limits, seconds)[1]


@_changing
def finish(folder: Path, limits: Limits, seconds: Mapping[str, float] | None = None) -> tuple[Run, Verdict]:
    """`decide`, with the run that was read for it."""
    run = read_run(folder)
    verdict = run.verdict(limits)
    # A manifest that is still there is of the same artifacts: every other step takes it away.
    seconds = recorded_seconds(folder) | dict(seconds or {})
    unfinish(folder)
    verdict.save(folder / WINNER)
    write_text(folder / REPORT, as_text(shown(run, verdict)))
    write_manifest(folder, seconds)
    return run, verdict
