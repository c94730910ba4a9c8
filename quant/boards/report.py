"""What a board showed of a run's candidates: identity, conformance, times by stage and peer count, memory.

A report is a file of the run, ``device_NAME.json``. All of its times are of the board's own clock.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from quant.acceptance.criterion import Evidence
from quant.acceptance.device import EVIDENCE, DeviceEvidence
from quant.boards.board_map import revision_number
from quant.boards.conformance import Conformance
from quant.errors import InputError
from quant.files import read_json, write_json
from quant.tracks.candidate import PARTS
from quant.wire.messages import HelloReply
from quant.wire.protocol import Stage

SCHEMA_VERSION = 1
STAGE_NAMES = tuple(stage.name.lower() for stage in Stage)
TOTAL = Stage.TOTAL.name.lower()
LEAST_REPEATS = 100
"""Of fewer decisions the 99th percentile is the maximum."""


def report_name(board: str) -> str:
    """File name of a board's report."""
    return f"device_{board}.json"


@dataclass(frozen=True)
class Identity:
    """Which board, and what runs on it.

    Attributes:
        name: the board as it was asked for, as ``virtual`` or ``esp32``.
        evidence: where its times come from.
        chip, revision, mac, cpu_mhz, cores: of the chip.
        target, firmware, elf_sha256, idf, engine, kernels: of the image.
        ticks_per_second: of its clock.
    """

    name: str
    evidence: Evidence
    chip: str
    revision: str
    mac: str
    cpu_mhz: int
    cores: int
    target: str
    firmware: str
    elf_sha256: str
    idf: str
    engine: str
    kernels: str
    ticks_per_second: int

    @staticmethod
    def of(name: str, hello: HelloReply) -> Identity:
        """From what the board said of itself."""
        return Identity(
            name,
            cast(Evidence, hello.evidence.name.lower()),
            hello.chip,
            revision_number(hello.chip_revision),
            hello.mac,
            hello.cpu_mhz,
            hello.cores,
            hello.target,
            hello.firmware,
            hello.elf_sha256,
            hello.idf,
            hello.engine,
            hello.kernels,
            hello.ticks_per_second,
        )

    def __str__(self) -> str:
        if self.evidence != "measured":
            return f"{self.name} board" if self.name == self.chip else f"{self.name} board, {self.chip}"
        return f"{self.chip} revision {self.revision} at {self.cpu_mhz} MHz, {self.mac}"


@dataclass(frozen=True)
class Quantiles:
    """Of the times of a stage, in microseconds, by nearest rank."""

    minimum: float
    median: float
    p99: float
    maximum: float


@dataclass(frozen=True)
class PeerTimes:
    """Times of a decision with some number of peers.

    Attributes:
        peers: present.
        stages: by stage; ``total`` is timed by itself, from a complete observation in memory to the action in memory.
    """

    peers: int
    stages: Mapping[str, Quantiles]

    @property
    def total(self) -> Quantiles:
        """Of the whole decision."""
        return self.stages[TOTAL]


@dataclass(frozen=True)
class ModelReport:
    """A sub-model on the board: bytes of file and arena (None where the board has no such figure), hash, operators."""

    bytes: int
    sha256: str
    arena_used: int | None
    arena_size: int | None
    operators: tuple[str, ...]


@dataclass(frozen=True)
class TrackReport:
    """What the board showed of one candidate.

    Attributes:
        models: by part.
        conformance: its decisions on held-out frames against the host's.
        warmup, repeats: decisions before and while each peer count was timed.
        times: by number of peers, from 0.
    """

    models: Mapping[str, ModelReport]
    conformance: Conformance
    warmup: int
    repeats: int
    times: tuple[PeerTimes, ...]

    @property
    def p99_ms(self) -> float:
        """99th percentile of the number of peers where it is largest, in milliseconds."""
        return max(times.total.p99 for times in self.times) / 1000

    @property
    def maximum_ms(self) -> float:
        """Maximum over all numbers of peers, in milliseconds."""
        return max(times.total.maximum for times in self.times) / 1000


@dataclass(frozen=True)
class Memory:
    """Of the board after everything has run, in bytes; None where it has no such figure.

    Attributes:
        heap_free, heap_minimum: heap now, and least since boot.
        stack_left: least since boot, of the task that decides.
        app_bytes, app_partition: the image and its partition.
        models_bytes, models_partition: the pack and its partition.
        temperature: degrees Celsius.
    """

    heap_free: int | None
    heap_minimum: int | None
    stack_left: int | None
    app_bytes: int | None
    app_partition: int | None
    models_bytes: int | None
    models_partition: int | None
    temperature: float | None


@dataclass(frozen=True)
class DeviceReport:
    """What a board showed of a run.

    Attributes:
        board: which.
        pack_sha256: of the models that were on it.
        tracks: by track.
        memory: of the board.
        failed_tests: names of its tests that failed with these models and have not passed since.
    """

    board: Identity
    pack_sha256: str
    tracks: Mapping[str, TrackReport]
    memory: Memory
    failed_tests: tuple[str, ...] = ()

    def evidence(self, track: str) -> DeviceEvidence:
        """What it shows of one candidate, for the criteria."""
        own = self.tracks[track]
        return DeviceEvidence(
            board=str(self.board),
            chip=self.board.chip,
            evidence=self.board.evidence,
            latency_p99_ms=own.p99_ms,
            latency_max_ms=own.maximum_ms,
            compared=own.conformance.compared,
            differing=own.conformance.differing,
            heap_bytes=self.memory.heap_minimum,
            stack_bytes=self.memory.stack_left,
            failed_tests=len(self.failed_tests),
        )

    def tested(self, ran: Collection[str], failed: Iterable[str]) -> DeviceReport:
        """The report after more tests: what ran now counts as it went now, what did not as before."""
        before = (name for name in self.failed_tests if name not in ran)
        return replace(self, failed_tests=tuple(sorted({*before, *failed})))

    def alike(self, other: DeviceReport) -> bool:
        """Whether both are of the same board, firmware and models."""
        return (self.board, self.pack_sha256) == (other.board, other.pack_sha256)

    def covers(self, track: str, max_peers: int) -> bool:
        """Whether a candidate was timed with every number of peers it may have, often enough."""
        own = self.tracks[track]
        counts = sorted(times.peers for times in own.times)
        return counts == list(range(max_peers + 1)) and own.repeats >= LEAST_REPEATS

    def hashes(self) -> dict[str, dict[str, str]]:
        """SHA-256 of each track's sub-models, by part."""
        return {track: {part: model.sha256 for part, model in own.models.items()} for track, own in self.tracks.items()}

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    def save(self, folder: Path) -> None:
        """Writes the report into a run folder."""
        write_json(folder / report_name(self.board.name), self.to_json())


def load_report(path: Path) -> DeviceReport:
    """Reads a report.

    Raises:
        InputError: it is missing or malformed.
    """
    value = read_json(path)
    if not isinstance(value, dict) or value.get("schema_version") != SCHEMA_VERSION:
        raise InputError("not a board's report of this version", where=path, expected=f"{SCHEMA_VERSION}")
    try:
        report = DeviceReport(
            Identity(**value["board"]),
            str(value["pack_sha256"]),
            {str(track): _track(own) for track, own in value["tracks"].items()},
            Memory(**value["memory"]),
            _names(value.get("failed_tests", [])),
        )
        _check(report, path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"the board's report lacks or garbles {error}", where=path, hint="run the board again"
        ) from error
    return report


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("failed_tests")
    return tuple(value)


def _track(value: dict[str, Any]) -> TrackReport:
    models: dict[str, ModelReport] = {
        part: ModelReport(**value["models"][part] | {"operators": tuple(value["models"][part]["operators"])})
        for part in PARTS
    }
    times = tuple(
        PeerTimes(row["peers"], {stage: Quantiles(**row["stages"][stage]) for stage in STAGE_NAMES})
        for row in value["times"]
    )
    return TrackReport(models, Conformance(**value["conformance"]), value["warmup"], value["repeats"], times)


def _check(report: DeviceReport, path: Path) -> None:
    """What the criteria rest on is there and is a number."""
    if report_name(report.board.name) != path.name:
        raise ValueError(f"its name: it is of {report.board.name}")
    if report.board.evidence not in EVIDENCE:
        raise ValueError(f"evidence {report.board.evidence!r}")
    for track, own in report.tracks.items():
        # Each by itself: among several numbers a NaN can hide from max().
        figures = [x for times in own.times for stage in times.stages.values() for x in vars(stage).values()]
        if not own.times or not all(type(x) in (int, float) and math.isfinite(x) and x >= 0 for x in figures):
            raise ValueError(f"the times of {track}")
        stages = [vars(stage).values() for times in own.times for stage in times.stages.values()]
        if any(list(quantiles) != sorted(quantiles) for quantiles in stages) or type(own.repeats) is not int:
            raise ValueError(f"the times of {track}")
        compared, differing = own.conformance.compared, own.conformance.differing
        if type(compared) is not int or type(differing) is not int or not 0 <= differing <= compared:
            raise ValueError(f"the comparison of {track}")
    for name in ("heap_minimum", "stack_left"):
        figure = getattr(report.memory, name)
        if figure is not None and (type(figure) is not int or figure < 0):
            raise ValueError(name)
