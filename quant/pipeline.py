"""The steps of a run, each a function on a run folder, and all of them together.

Every step checks that what it reads belongs together, writes its artifacts whole, and takes the manifest away until
`decide` has written it again: a run without manifest is known to be unfinished. While it works it has the run for
itself. Whatever computes with floats does so on one BLAS thread, so that the bytes do not depend on the number of
processors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from threadpoolctl import threadpool_limits

from quant import runfolder
from quant.acceptance.assessment import assess
from quant.acceptance.comparison import Comparison
from quant.acceptance.decision import Verdict
from quant.acceptance.decision import decide as decide_between
from quant.acceptance.limits import Limits, limits_from
from quant.boards.bench import Bench
from quant.boards.board import Board
from quant.boards.measure import measure
from quant.boards.pack import build_pack
from quant.boards.protocol import MAX_SLOTS
from quant.boards.report import LEAST_REPEATS, DeviceReport, Identity, load_report
from quant.dataset import Dataset, Recording, Split, build_dataset, load_dataset, read_drive, save_dataset
from quant.dataset.build import check_recordings
from quant.dataset.storage import DESCRIPTION
from quant.errors import InputError, QuantError, StaleError
from quant.evaluation.evaluate import Timed
from quant.evaluation.evaluate import evaluate as evaluate_all
from quant.evaluation.evaluation import FLOAT, Evaluation, check_together, load_evaluation
from quant.evaluation.open_loop import AUGMENTED
from quant.evaluation.second_opinion import SecondOpinion, ask, load_second_opinion
from quant.files import Progress, no_progress, read_bytes, read_json, write_json, write_text
from quant.policy import Observations, Policy, export_saved_model, load_policy, policy_digest, save_policy
from quant.policy.spaces import parse_action_space
from quant.report import terminal
from quant.report.board_tests import load_board_tests
from quant.report.material import Material
from quant.report.second_opinion import second_opinion as terminal_opinion
from quant.report.text import as_text
from quant.runfolder import Settings, evaluation_name, read_settings, write_settings
from quant.runners import FloatRunner, Int8Runner, ParityReport, parity, parity_from_json
from quant.tracks.candidate import Candidate
from quant.tracks.qat import QatOptions
from quant.tracks.registry import DEFAULT_TRACKS, TRACKS, Job, check_tracks
from quant.tracks.storage import load_candidate, load_curve, save_candidate, save_curve
from quant.worlds.repeatable import check_repeatable
from quant.worlds.rollout import Recorder, rollout
from quant.worlds.scenarios import ScenarioSet
from quant.worlds.sumo import sumo_version
from quant.worlds.world import CONVOY, World, load_world

Given = ParamSpec("Given")
Result = TypeVar("Result")

DEFAULT_EPISODES = {"nominal": 4000, "lossy": 2000}
"""Scenarios a candidate is judged on: with pairing, enough to see a drop of one point of success."""
DATASET_EPISODES = {"nominal": 300, "lossy": 150}
"""Scenarios the float policy drives to fill the dataset."""
DATASET_FRAMES = 12_000
"""Frames kept of them, about: more do not change the ranges, but the time of everything after."""
DEVICE_FRAMES = 1000
"""Held-out frames on which a board is compared in a run; its own test suite takes all of them."""
PARITY_FRAMES = 200
"""Held-out frames on which the other engines are compared; TFLite-Micro runs them one by one."""


@dataclass
class Watch:
    """Who watches a run: told its steps and usual seconds, their start, progress and end; keeps the wall times."""

    planned: Callable[[Mapping[str, float]], None] = lambda seconds: None
    started: Callable[[str], None] = lambda name: None
    advanced: Callable[[str, int, int], None] = lambda name, done, total: None
    finished: Callable[[str, float], None] = lambda name, seconds: None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[Progress]:
        """Times a step and hands out its progress callback."""
        self.started(name)
        begin = time.perf_counter()
        yield lambda done, total: self.advanced(name, done, total)
        self.seconds[name] = time.perf_counter() - begin
        self.finished(name, self.seconds[name])

    def note(self, stage: str, seconds: float) -> None:
        """Keeps the CPU time of a stage of the evaluation, which its processes share."""
        self.seconds[f"evaluate, CPU: {stage}"] = seconds


@dataclass(frozen=True)
class Run:
    """A finished run, read back and checked.

    Attributes:
        folder: where it is.
        settings: what was asked for.
        policy: the float policy.
        dataset: the shared dataset.
        candidates: by track.
        evaluations: by track, and ``float``.
        parity: of the other engines, by track.
        devices: what boards showed of the candidates, by board.
        world, scenarios: None where driving was not tested.
        second: what SUMO showed of the same drivers; None where it was not asked.
    """

    folder: Path
    settings: Settings
    policy: Policy
    dataset: Dataset
    candidates: dict[str, Candidate]
    evaluations: dict[str, Evaluation]
    parity: dict[str, ParityReport]
    devices: dict[str, DeviceReport]
    world: World | None
    scenarios: ScenarioSet | None
    second: SecondOpinion | None = None

    def verdict(self, limits: Limits) -> Verdict:
        """The decision under these limits, with what the dataset leaves open."""
        verdict = verdict_of(self.candidates, self.evaluations, limits, self.devices.values())
        unvaried = self.dataset.unvaried
        if not unvaried:
            return verdict
        warning = f"never varied in the dataset, so no candidate can take another value: {', '.join(unvaried)}"
        return replace(verdict, warnings=(*verdict.warnings, warning))


@dataclass(frozen=True)
class Sources:
    """What a run is made from, read and found to fit together; it travels to other processes and machines.

    Attributes:
        policy: as imported.
        drives: the settings' drives, read.
    """

    policy: Policy
    drives: tuple[Recording, ...] = ()


def read_sources(checkpoint: Path, settings: Settings) -> Sources:
    """Imports a checkpoint with what the settings say of it, and reads the settings' drives; writes nothing.

    Raises:
        InputError: one of them cannot be read, or they do not fit each other or the settings' world.
    """
    policy = load_policy(checkpoint, **_given(settings))
    drives = tuple(read_drive(Path(path), policy) for path in settings.drives)
    world = world_of(settings)
    if drives:
        check_recordings(drives, complete=world is None)
    if world is not None:
        world.check_fits(policy)
        _episodes(settings, world)
    return Sources(policy, drives)


def _given(settings: Settings) -> dict[str, Any]:
    """The settings' ``given``, as `quant.policy.load_policy` takes it."""
    given = dict(settings.given or {})
    if "head" in given:
        given["head"] = Path(given["head"])
    if "action_space" in given:
        given["action_space"] = parse_action_space(given["action_space"])
    return given


def import_policy(checkpoint: Path, folder: Path, settings: Settings) -> Policy:
    """Imports a checkpoint into a run folder, as our own file and as a SavedModel.

    Nothing is written before the import has succeeded and the settings' drives and world have been found to fit the
    policy.
    """
    policy = read_sources(checkpoint, settings).policy
    runfolder.claim(folder)
    _keep_policy(folder, policy, settings)
    return policy


def _changing(step: Callable[Concatenate[Path, Given], Result]) -> Callable[Concatenate[Path, Given], Result]:
    """A step that has its run folder for itself while it works."""

    @wraps(step)
    def alone(folder: Path, /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        with runfolder.changing(folder):
            return step(folder, *args, **kwargs)

    return alone


@_changing
def _keep_policy(folder: Path, policy: Policy, settings: Settings) -> None:
    runfolder.clear(folder)
    write_settings(settings, folder)
    save_policy(policy, folder / runfolder.POLICY)
    export_saved_model(policy, folder / runfolder.SAVED_MODEL)


@_changing
def make_dataset(
    folder: Path, settings: Settings, progress: Progress = no_progress, drives: Sequence[Recording] | None = None
) -> Dataset:
    """Makes the dataset and the evaluation's scenarios from the settings' drives and world.

    ``drives`` are the settings', where they have been read already.
    """
    policy = read_policy(folder)
    recordings = [read_drive(Path(path), policy) for path in settings.drives] if drives is None else [*drives]
    world = world_of(settings)
    with threadpool_limits(1):
        if world is not None:
            _episodes(settings, world)
            recordings.append(_roll_out(policy, world, settings.seed, progress))
        dataset = build_dataset(policy, policy_digest(policy), recordings, settings.seed)
    runfolder.unfinish(folder)
    # New settings never stand beside the old dataset.
    (folder / DESCRIPTION).unlink(missing_ok=True)
    write_settings(settings, folder)
    save_dataset(dataset, folder)
    _write_scenarios(folder, settings, world, dataset)
    return dataset


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
    path = folder / runfolder.SCENARIOS
    if world is None:
        held_out = len(dataset.rows(Split.HELD_OUT))
        write_json(path, {"world": None, "held_out_frames": held_out, "dataset": dataset.digest})
        return
    write_text(path, world.draw("test", settings.seed, _episodes(settings, world)).to_json())


def _episodes(settings: Settings, world: World) -> dict[str, int]:
    """Scenarios to judge on, by slice of the world."""
    asked = settings.episodes or DEFAULT_EPISODES
    counts = {name: n for name, n in asked.items() if name in world.slices and n > 0}
    if not counts:
        raise InputError("no episodes to judge on", where=world.spec, expected=f"episodes of {', '.join(world.slices)}")
    return counts


@_changing
def make_track(folder: Path, name: str, progress: Progress = no_progress, *, qat_steps: int | None = None) -> Candidate:
    """Makes one track's candidate; ``name`` is one of `TRACKS`.

    ``qat_steps``, where given, takes the place of the settings', also for later calls.
    """
    settings = read_settings(folder)
    settings = settings if qat_steps is None else replace(settings, qat_steps=qat_steps)
    policy, dataset = read_inputs(folder)
    with threadpool_limits(1):
        made = TRACKS[name](Job(policy, dataset, _infer, _training_seed(settings), settings.qat_steps, progress))
    _keep_candidate(made.candidate, folder, settings)
    if made.curve is not None:
        save_curve(name, made.curve, folder)
    return made.candidate


def _training_seed(settings: Settings) -> int:
    return settings.seed if settings.training_seed is None else settings.training_seed


def _infer(candidate: Candidate, observations: Observations) -> NDArray[np.float32]:
    return Int8Runner(candidate).values(observations)


def _keep_candidate(candidate: Candidate, folder: Path, settings: Settings) -> None:
    runfolder.unfinish(folder)
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
    runfolder.unfinish(folder)
    for name, evaluation in evaluations.items():
        write_json(folder / evaluation_name(name), evaluation.to_json())
    write_json(folder / runfolder.PARITY, {name: asdict(report) for name, report in engines.items()})
    return evaluations


def origins_of(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.str_]:
    """(N,) ``recorded``, ``rollout`` or ``augmented`` for each frame."""
    kinds = np.array(["recorded" if origin.kind == "drive" else "rollout" for origin in dataset.origins])
    return np.where(dataset.column("augmented")[rows] == 1, AUGMENTED, kinds[dataset.column("origin")[rows]])


def _engines(candidates: Mapping[str, Candidate], dataset: Dataset) -> dict[str, ParityReport]:
    """How far TFLite-Micro (has to be 0) and LiteRT are from the arithmetic of the verdict, before it is relied on."""
    rows = dataset.rows(Split.HELD_OUT)
    rows = rows[np.linspace(0, len(rows) - 1, min(PARITY_FRAMES, len(rows))).astype(np.int64)]
    observations = dataset.observations(rows)
    reports = {name: parity(candidate, observations) for name, candidate in candidates.items()}
    _check_conforms(reports)
    return reports


def _check_conforms(reports: Mapping[str, ParityReport]) -> None:
    for name, report in reports.items():
        if not report.conforms:
            raise QuantError(
                "TFLite-Micro gives other bytes than the arithmetic verdicts are computed in",
                where=name,
                hint="the installed tflite-micro is not the pinned one, or this is a fault; please report it",
            )


def _read_parity(folder: Path, candidates: Mapping[str, Candidate]) -> dict[str, ParityReport]:
    path = folder / runfolder.PARITY
    document = read_json(path)
    missing = [name for name in candidates if not isinstance(document, dict) or name not in document]
    if missing:
        raise InputError(f"lacks {', '.join(missing)}", where=path, hint=f"quant evaluate {folder}")
    reports = {name: parity_from_json(document[name], path) for name in candidates}
    _check_conforms(reports)
    return reports


def decide(folder: Path, limits: Limits, seconds: Mapping[str, float] | None = None) -> Verdict:
    """Applies the decision rule, writes ``winner.json``, the report and, last, the manifest."""
    return finish(folder, limits, seconds)[1]


@_changing
def finish(folder: Path, limits: Limits, seconds: Mapping[str, float] | None = None) -> tuple[Run, Verdict]:
    """`decide`, with the run that was read for it."""
    run = read_run(folder)
    verdict = run.verdict(limits)
    # A manifest that is still there is of the same artifacts: every other step takes it away.
    seconds = runfolder.recorded_seconds(folder) | dict(seconds or {})
    runfolder.unfinish(folder)
    verdict.save(folder / runfolder.WINNER)
    write_text(folder / runfolder.REPORT, as_text(shown(run, verdict)))
    runfolder.write_manifest(folder, seconds)
    return run, verdict


def shown(run: Run, verdict: Verdict) -> Group:
    """Everything a person needs to judge a run, for a terminal."""
    second = () if run.second is None else (terminal_opinion(run.second),)
    return terminal.report(run.evaluations, verdict, run.policy.facts, run.parity, run.devices, second)


Hold = Callable[[Run], Comparison]
"""Holds a run against another, as :mod:`quant.regression` does."""


def report(folder: Path, out: Path | None = None, hold: Hold | None = None) -> tuple[Path, Path]:
    """Writes the report of a finished run as HTML and Markdown: about the verdict that stands in ``winner.json``.

    Args:
        folder: the run.
        out: where the HTML goes, with the Markdown beside it; None: into the run, whose manifest then lists both.
        hold: against a baseline, for a section of its own; None: there is none.

    Returns:
        The paths of HTML and Markdown.

    Raises:
        InputError: it is not a finished run, a file is malformed, or the report cannot be written.
        StaleError: a file has changed since the run was finished, or artifacts do not belong together.
    """
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise InputError("is not a page's name", where=out, expected="a file that ends in .html")
    inside = folder / runfolder.PAGE, folder / runfolder.SUMMARY
    read_settings(folder)
    if out is None or out.resolve() == inside[0].resolve():
        with runfolder.changing(folder):
            manifest, texts = _pages(folder, hold)
            runfolder.add_pages(folder, manifest, texts)
        return inside
    _, texts = _pages(folder, hold)
    paths = out, out.with_suffix(".md")
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text)
    return paths


def _pages(folder: Path, hold: Hold | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The manifest of a finished run, and the pages about it by name."""
    from quant.report.html import page
    from quant.report.markdown import summary

    manifest = runfolder.check_manifest(folder)
    with threadpool_limits(1):
        run = read_run(folder)
        material = _material(run, manifest, None if hold is None else hold(run))
        return manifest, {runfolder.PAGE: page(material), runfolder.SUMMARY: summary(material)}


def _limits_of(folder: Path) -> Limits:
    """The limits that a run was decided under."""
    path = folder / runfolder.WINNER
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("limits"), dict):
        raise InputError("holds no limits", where=path, hint=f"quant decide {folder}")
    return limits_from(document["limits"], path)


def _material(run: Run, manifest: Mapping[str, Any], baseline: Comparison | None = None) -> Material:
    tests = {name: run.folder / f"hil_{name}.json" for name in run.devices}
    return Material(
        settings=read_json(run.folder / runfolder.SETTINGS),
        manifest=manifest,
        policy=run.policy,
        dataset=run.dataset,
        candidates=run.candidates,
        evaluations=run.evaluations,
        parity=run.parity,
        devices=run.devices,
        world=run.world,
        scenarios=run.scenarios,
        verdict=run.verdict(_limits_of(run.folder)),
        curves={track: load_curve(track, run.folder) for track in run.candidates},
        origins=origins_of(run.dataset, run.dataset.rows(Split.HELD_OUT)),
        tests={name: load_board_tests(path) for name, path in tests.items() if path.is_file()},
        baseline=baseline,
        second=run.second,
    )


@_changing
def run_device(folder: Path, bench: Bench, progress: Progress = no_progress) -> DeviceReport:
    """Lets a board that holds the run's candidates decide and time itself; the run gets its report."""
    _, dataset = read_inputs(folder)
    candidates = read_candidates(folder, read_settings(folder))
    rows = dataset.rows(Split.HELD_OUT)
    rows = rows[np.linspace(0, len(rows) - 1, min(DEVICE_FRAMES, len(rows))).astype(np.int64)]
    report = measure(bench.device, bench.board.name, candidates, dataset.observations(rows), progress=progress)
    runfolder.unfinish(folder)
    report.save(folder)
    return report


@_changing
def keep_device(folder: Path, report: DeviceReport, limits: Limits) -> Verdict:
    """Puts a board's report into a run and decides again."""
    runfolder.unfinish(folder)
    report.save(folder)
    return decide(folder, limits)


@_changing
def keep_figures(folder: Path, board: Identity, pack_sha256: str, figures: list[dict[str, Any]]) -> None:
    """Puts the figures of a board's tests into a run, which is unfinished until it is decided again.

    Figures of other tests stay, as long as they are of the same board, firmware and models: a part of the suite that
    is run again does not undo the whole.
    """
    path = folder / f"hil_{board.name}.json"
    head = {"schema_version": runfolder.SCHEMA_VERSION, "board": asdict(board), "pack_sha256": pack_sha256}
    present = read_json(path) if path.is_file() else {}
    alike = isinstance(present, dict) and all(present.get(key) == value for key, value in head.items())
    run = {figure["test"] for figure in figures}
    others = [figure for figure in present["figures"] if figure["test"] not in run] if alike else []
    runfolder.unfinish(folder)
    write_json(path, {**head, "figures": [*others, *figures]})


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
    _check_sumo(read_settings(folder))
    run = read_run(folder, second=False)
    assert run.scenarios is not None  # the convoy world's
    seconds, finished = runfolder.recorded_seconds(folder), (folder / runfolder.MANIFEST).is_file()
    limits = _limits_of(folder) if finished else limits or Limits()
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
    runfolder.unfinish(folder)
    opinion.save(folder / runfolder.SECOND_OPINION)
    return finish(folder, limits, seconds)[0] if finished else replace(run, second=opinion)


def _check_sumo(settings: Settings) -> None:
    """Sees that SUMO is there and that it knows the scenarios of the settings' world."""
    if settings.world != CONVOY:
        raise InputError(
            f"the run's world is {settings.world or 'none'}",
            where="second opinion",
            expected="the convoy world, whose scenarios SUMO can play",
            hint="quant run POLICY --world convoy, if it was trained in our convoys",
        )
    sumo_version()


def pack_of(folder: Path) -> bytes:
    """The pack of a run's candidates."""
    return build_pack(list(read_candidates(folder, read_settings(folder)).values()))


def verdict_of(
    candidates: Mapping[str, Candidate],
    evaluations: Mapping[str, Evaluation],
    limits: Limits,
    devices: Collection[DeviceReport] = (),
) -> Verdict:
    """Assesses every candidate and decides between them."""
    reference = evaluations[FLOAT]
    assessments = [
        assess(candidate, evaluations[name], reference, limits, [d.evidence(name) for d in devices if name in d.tracks])
        for name, candidate in candidates.items()
    ]
    return decide_between(assessments, evaluations, limits)


def run_all(
    checkpoint: Path | Callable[[], Sources],
    folder: Path,
    settings: Settings,
    limits: Limits,
    *,
    board: Board | None = None,
    tracks: Sequence[str] = DEFAULT_TRACKS,
    workers: int | None = None,
    watch: Watch | None = None,
    sumo: bool = False,
) -> tuple[Run, Verdict]:
    """The whole job: import, dataset, tracks, evaluation, SUMO where asked, a board where one is given, decision.

    ``checkpoint`` is a file, read as the settings say, or gives the sources, wherever they were read.
    """
    watch = watch or Watch()
    watch.planned(usual_seconds(settings, steps_of(tracks, board is not None, sumo)))
    if sumo:
        _check_sumo(settings)
    if board is not None:
        _check_slots(tracks)
        with board:
            pass  # whoever named one that is not to be had learns it before the work, not after
    with ExitStack() as stack:
        with watch.step("import"):
            sources = read_sources(checkpoint, settings) if isinstance(checkpoint, Path) else checkpoint()
            check_tracks(tracks, sources.policy)
            runfolder.claim(folder)
            stack.enter_context(runfolder.changing(folder))
            _keep_policy(folder, sources.policy, settings)
        with watch.step("dataset") as progress:
            make_dataset(folder, settings, progress, sources.drives)
        for track in tracks:
            with watch.step(track) as progress:
                make_track(folder, track, progress)
        with watch.step("evaluate") as progress:
            evaluate(folder, limits, workers, progress, watch.note)
        if sumo:
            with watch.step("sumo") as progress:
                second_opinion(folder, limits, workers=workers, progress=progress)
        if board is not None:
            with watch.step("device") as progress, Bench(board, pack_of(folder)) as bench:
                run_device(folder, bench, progress)
        with watch.step("decide"):
            return finish(folder, limits, watch.seconds)


def _check_slots(tracks: Sequence[str]) -> None:
    """Sees before the work that a board holds so many candidates."""
    if len(tracks) > MAX_SLOTS:
        raise InputError(
            f"{len(tracks)} tracks: {', '.join(tracks)}",
            where="--tracks",
            expected=f"at most {MAX_SLOTS}, which a board holds at once",
            hint="make two runs of the same --seed: they share dataset and scenarios",
        )


def steps_of(tracks: Sequence[str], with_board: bool, with_sumo: bool = False) -> tuple[str, ...]:
    """The steps of a whole run, in order."""
    others = [name for name, asked in (("sumo", with_sumo), ("device", with_board)) if asked]
    return ("import", "dataset", *tracks, "evaluate", *others, "decide")


def usual_seconds(settings: Settings, steps: Sequence[str]) -> dict[str, float]:
    """What the steps of a run take, about: as the reference policy's did on two processors.

    Only their proportions are worth anything: they tell how much of a run is done before its last step has begun.
    """
    driven = settings.world is not None
    episodes = sum((settings.episodes or DEFAULT_EPISODES).values()) if driven else 0
    training = 1.0 if settings.qat_steps is None else settings.qat_steps / QatOptions.steps
    usual = {
        "import": 4.0,
        "dataset": 1.5 if driven else 0.3,
        "qat": 4.0 + 5.5 * training,
        "evaluate": 1.0 + 15.0 * episodes / sum(DEFAULT_EPISODES.values()),
        "sumo": 1.0 + 60.0 * episodes / sum(DEFAULT_EPISODES.values()),
        "device": 1.5,
        "decide": 0.3,
    }
    return {step: usual.get(step, 2.0) for step in steps}


def reference_run(folder: Path, *, workers: int | None = None, **changes: Any) -> Run:
    """A run of the reference policy in our convoy world; ``changes`` to the settings, as ``episodes``."""
    from quant.worlds.reference import reference_policy_path

    checkpoint = reference_policy_path()
    settings = Settings(checkpoint.name, world="convoy", **changes)
    run_all(checkpoint, folder, settings, Limits(), workers=workers)
    return open_run(folder)


def open_run(folder: Path) -> Run:
    """Reads a finished run and checks it: manifest, hashes, and that its artifacts belong together.

    Raises:
        InputError: it is not a finished run, or a file is malformed.
        StaleError: a file has changed, or artifacts do not belong together.
    """
    read_settings(folder)
    runfolder.check_manifest(folder)
    return read_run(folder)


def read_run(folder: Path, *, devices: bool = True, second: bool = True) -> Run:
    """Reads a run's artifacts, whether or not it is finished, and checks that they fit.

    Args:
        folder: the run.
        devices: False leaves the boards' reports alone, for a step that makes one anew.
        second: False leaves the second opinion alone, likewise.
    """
    settings = read_settings(folder)
    policy, dataset = read_inputs(folder)
    candidates = read_candidates(folder, settings)
    evaluations = {name: _read_evaluation(folder, name) for name in (FLOAT, *candidates)}
    check_together(evaluations)
    world = world_of(settings)
    scenarios = read_scenarios(folder, world)
    _check_fits(policy, dataset, candidates, evaluations, scenarios)
    return Run(
        folder,
        settings,
        policy,
        dataset,
        candidates,
        evaluations,
        _read_parity(folder, candidates),
        _read_devices(folder, candidates) if devices else {},
        world,
        scenarios,
        _read_second_opinion(folder, evaluations) if second else None,
    )


def _read_second_opinion(folder: Path, evaluations: Mapping[str, Evaluation]) -> SecondOpinion | None:
    path = folder / runfolder.SECOND_OPINION
    return load_second_opinion(path, evaluations) if path.is_file() else None


def _read_devices(folder: Path, candidates: Mapping[str, Candidate]) -> dict[str, DeviceReport]:
    reports = {}
    for path in sorted(folder.glob("device_*.json")):
        report = load_report(path)
        reports[report.board.name] = report
        again = f"run the board again (quant device {folder} --board {report.board.name}), or remove the file"
        for track, hashes in report.hashes().items():
            if track not in candidates or hashes != candidates[track].hashes:
                raise StaleError(
                    f"the board ran another {track} than the run holds",
                    where=path,
                    hint=again,
                )
            if not report.covers(track, candidates[track].max_peers):
                raise StaleError(
                    f"{track} was not timed as a verdict needs it",
                    where=path,
                    expected=f"0 to {candidates[track].max_peers} peers, each {LEAST_REPEATS} times or more",
                    hint=again,
                )
    return reports


def _read_evaluation(folder: Path, name: str) -> Evaluation:
    path = folder / evaluation_name(name)
    if not path.is_file():
        raise InputError(f"{name} has not been evaluated yet", where=path, hint=f"quant evaluate {folder}")
    return load_evaluation(path)


def _check_fits(
    policy: Policy,
    dataset: Dataset,
    candidates: Mapping[str, Candidate],
    evaluations: Mapping[str, Evaluation],
    scenarios: ScenarioSet | None,
) -> None:
    """Every candidate and evaluation was made of what is in the folder now; what comes first is named first."""
    common = {
        "policy": policy_digest(policy),
        "dataset": dataset.digest,
        "scenarios": None if scenarios is None else scenarios.digest,
    }
    for name, candidate in candidates.items():
        if (candidate.policy_sha256, candidate.dataset_sha256) != (common["policy"], common["dataset"]):
            raise StaleError(
                "the candidate was made from another policy or dataset", where=name, hint=f"run quant {name} again"
            )
    for name, evaluation in evaluations.items():
        expected = dict(common)
        if name in candidates:
            candidate = candidates[name]
            expected["peer_encoder"] = candidate.peer_encoder.sha256
            expected["policy_head"] = candidate.policy_head.sha256
        for what, digest in expected.items():
            if evaluation.hashes.get(what) != digest:
                raise StaleError(
                    f"evaluated with another {what} than the run holds",
                    where=evaluation_name(name),
                    expected=f"sha256 {digest}, found {evaluation.hashes.get(what)}",
                    hint="run quant evaluate again",
                )


def read_policy(folder: Path) -> Policy:
    """The run's policy."""
    read_settings(folder)
    return load_policy(folder / runfolder.POLICY)


def read_inputs(folder: Path) -> tuple[Policy, Dataset]:
    """The run's policy and the dataset that was made from it."""
    policy = read_policy(folder)
    if not (folder / DESCRIPTION).is_file():
        raise InputError("the run has no dataset yet", where=folder, hint=f"quant dataset {folder}")
    return policy, load_dataset(folder, policy, policy_digest(policy))


def read_candidates(folder: Path, settings: Settings) -> dict[str, Candidate]:
    """The run's candidates by track.

    Raises:
        InputError: there is none.
    """
    if not settings.tracks:
        raise InputError("the run has no candidate yet", where=folder, hint=f"quant ptq {folder}; quant qat {folder}")
    return {track: load_candidate(folder, track) for track in settings.tracks}


def world_of(settings: Settings) -> World | None:
    """The run's world, if it has one."""
    return None if settings.world is None else load_world(settings.world, settings.world_kwargs)


def read_scenarios(folder: Path, world: World | None) -> ScenarioSet | None:
    """The run's frozen scenarios, if it has a world."""
    if world is None:
        return None
    path = folder / runfolder.SCENARIOS
    return world.read(read_bytes(path).decode(errors="replace"), path)
