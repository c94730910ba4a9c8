"""Frozen episodes: every drawn parameter and the seed of each, drawn, checked, saved and read back.

An episode is known by (seed, episode): the seed of the set and the episode seed, which is unique for purpose, slice and
index. What cannot be a parameter, the luck of each message, is drawn from :meth:`ScenarioSet.generators`, which is
keyed by both; so a policy that drives differently meets the same luck.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError

SCHEMA = "quant-scenarios/1"
"""Name and version of the file format."""

PURPOSES = ("train", "validation", "test", "dataset")
"""What scenarios are drawn for. Sets of different purposes never share an episode seed, whatever their own seeds."""

NOMINAL, LOSSY = "nominal", "lossy"
SLICES = (NOMINAL, LOSSY)
"""Named parts of a set: ordinary reception, and 30-60 % of the messages lost."""

_INDEX_BITS, _SLICE_BITS = 26, 3
MAX_EPISODES = 1 << _INDEX_BITS
"""Episodes one slice can hold before its seeds would repeat."""


@dataclass(frozen=True)
class Column:
    """One drawn parameter.

    Attributes:
        name: key in :attr:`ScenarioSet.parameters` and in the file.
        low, high: the closed range a value may have; it is checked when a file is read.
        unit: of the value.
        meaning: what it is.
        width: values a scenario; 0 for one plain number, 8 for one a peer slot.
        decimals: digits kept after the point, so that a file holds exactly what was drawn; 0 for whole numbers.
    """

    name: str
    low: float
    high: float
    unit: str
    meaning: str
    width: int = 0
    decimals: int = 0


@dataclass(frozen=True)
class Scenario:
    """One episode, for people to look at; worlds take the columns of a :class:`ScenarioSet`."""

    slice: str
    index: int
    episode_seed: int
    parameters: Mapping[str, float | tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class ScenarioSet:
    """N frozen episodes of one world, in columns.

    Attributes:
        world: the world's specification, as ``convoy`` or ``module:EnvId``.
        world_kwargs: the keyword arguments of the world, as canonical JSON.
        purpose: one of :data:`PURPOSES`.
        seed: the seed of the draw.
        slices: (N,) str, the slice of each episode.
        index: (N,) int64, the number of each within its slice.
        parameters: float64 columns, (N,) or (N, width); empty for a world that draws everything from its seed.
        columns: the parameters' declaration, in the order of the file.
    """

    world: str
    world_kwargs: str
    purpose: str
    seed: int
    slices: NDArray[np.str_]
    index: NDArray[np.int64]
    parameters: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()

    def __post_init__(self) -> None:
        _check(self)
        for array in (self.slices, self.index, *self.parameters.values()):
            array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.index)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScenarioSet) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __getitem__(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> ScenarioSet:
        return ScenarioSet(
            self.world,
            self.world_kwargs,
            self.purpose,
            self.seed,
            self.slices[rows],
            self.index[rows],
            {name: column[rows] for name, column in self.parameters.items()},
            self.columns,
        )

    def __iter__(self) -> Iterator[Scenario]:
        seeds = self.episode_seeds
        for row in range(len(self)):
            yield Scenario(
                str(self.slices[row]),
                int(self.index[row]),
                int(seeds[row]),
                {name: _plain(column[row].tolist()) for name, column in self.parameters.items()},
            )

    @property
    def slice_names(self) -> tuple[str, ...]:
        """The slices that occur, in the order they first occur."""
        return tuple(dict.fromkeys(self.slices.tolist()))

    def of_slice(self, name: str) -> ScenarioSet:
        """The episodes of one slice, in order."""
        return self[self.slices == name]

    @property
    def episode_seeds(self) -> NDArray[np.int64]:
        """(N,) int64 below 2**31: what a Gymnasium environment is reset with, unique for purpose, slice and index."""
        return episode_seeds(self.purpose, self.seed, self.slices, self.index)

    def generators(self) -> Iterator[np.random.Generator]:
        """A generator for each episode, keyed by (seed, episode seed), for all that is drawn while it runs."""
        for episode in self.episode_seeds.tolist():
            yield np.random.Generator(np.random.SFC64((self.seed, episode)))

    @property
    def digest(self) -> str:
        """SHA-256 over everything the set says, in hexadecimal."""
        state = sha256(json.dumps([*self._head().values(), [column.name for column in self.columns]]).encode())
        state.update("\n".join(self.slices.tolist()).encode())
        for array in (self.index.astype("<i8"), *(self.parameters[c.name].astype("<f8") for c in self.columns)):
            state.update(np.ascontiguousarray(array).tobytes())
        return state.hexdigest()

    def _head(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "world": self.world,
            "world_kwargs": json.loads(self.world_kwargs),
            "purpose": self.purpose,
            "seed": self.seed,
        }

    def to_json(self) -> str:
        """One JSON document: head, digest, and one line for each column.

        ``slices`` holds ``[name, count]`` runs in order; ``units`` and ``meanings`` are for readers.
        """
        head = self._head() | {
            "digest": self.digest,
            "episodes": len(self),
            "slices": _runs(self.slices),
            "units": {c.name: c.unit for c in self.columns},
            "meanings": {c.name: c.meaning for c in self.columns},
        }
        lines = [f"  {json.dumps(name)}: {json.dumps(value)}," for name, value in head.items()]
        columns = {"index": self.index.tolist()} | {c.name: _numbers(self.parameters[c.name], c) for c in self.columns}
        rows = [f"    {json.dumps(name)}: {json.dumps(v, separators=(',', ':'))}" for name, v in columns.items()]
        return "\n".join(["{", *lines, '  "columns": {', ",\n".join(rows), "  }", "}", ""])

    @staticmethod
    def from_json(text: str, columns: tuple[Column, ...], where: object = "scenarios") -> ScenarioSet:
        """Reads :meth:`to_json` and checks every scenario.

        Args:
            text: the document.
            columns: what the world declares (:attr:`quant.worlds.world.World.columns`).
            where: named in errors, usually the path.

        Raises:
            InputError: not JSON, another schema, a missing or superfluous column, a length or a value out of range, or
                content that is not what the digest says.
        """
        document = _parse(text, where)
        table = document["columns"]
        _check_names(table, columns, where)
        episodes = document["episodes"]
        arrays = {name: _array(values, name, episodes, where) for name, values in table.items()}
        index = arrays.pop("index")
        _check_range(index, Column("index", 0, MAX_EPISODES - 1, "", ""), where)
        for column in columns:
            _check_shape(arrays[column.name], column, episodes, where)
            _check_range(arrays[column.name], column, where)
        scenarios = ScenarioSet(
            document["world"],
            canonical(document["world_kwargs"]),
            document["purpose"],
            document["seed"],
            _expand(document["slices"], episodes, where),
            index.astype(np.int64),
            {column.name: arrays[column.name] for column in columns},
            columns,
        )
        if scenarios.digest != document["digest"]:
            raise InputError(
                "the scenarios are not the ones that were frozen: their digest differs",
                where=where,
                expected=f"digest {document['digest']}, got {scenarios.digest}",
                hint="draw the scenarios again instead of editing the file",
            )
        return scenarios


def canonical(value: Mapping[str, Any]) -> str:
    """JSON that is equal for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def episode_seeds(purpose: str, seed: int, slices: NDArray[np.str_], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) int64: two bits of purpose, three of slice, and 26 of index counted from a place the set's seed decides.

    Disjoint by construction, not by luck: no two purposes, slices or indices of one set give the same number. Below
    2**31 because simulators keep seeds in a signed 32-bit integer.

    Raises:
        InputError: more slices than the bits hold.
    """
    offset = int(np.random.SeedSequence(seed).generate_state(1)[0])
    code = np.array([_slice_code(name) for name in slices.tolist()], np.int64)
    prefix = (PURPOSES.index(purpose) << _SLICE_BITS) + code
    return (prefix << _INDEX_BITS) + (index + offset) % MAX_EPISODES


def uniforms(scenarios: ScenarioSet, count: int) -> NDArray[np.float64]:
    """(N, count) float64 in [0, 1), each row from its own generator: what parameters are made of.

    The rows' generators are keyed apart from :meth:`ScenarioSet.generators`.
    """
    rows = np.empty((len(scenarios), count))
    for row, episode in enumerate(scenarios.episode_seeds.tolist()):
        rows[row] = np.random.Generator(np.random.SFC64((scenarios.seed, episode, 1))).random(count)
    return rows


def empty_set(world: str, world_kwargs: str, purpose: str, seed: int, counts: Mapping[str, int]) -> ScenarioSet:
    """Episodes without parameters, slice after slice: all a world needs that draws everything from its seed.

    Raises:
        InputError: an unknown purpose, a negative seed or count, or no episode at all.
    """
    for name, count in counts.items():
        if not 0 <= count <= MAX_EPISODES:
            raise InputError(f"{count} episodes", where=f"slice {name}", expected=f"0 to {MAX_EPISODES}")
    if sum(counts.values()) == 0:
        raise InputError("no episode to draw", where="scenarios", expected="at least one")
    return ScenarioSet(
        world,
        world_kwargs,
        purpose,
        seed,
        np.repeat(np.array(list(counts), np.str_), list(counts.values())),
        np.concatenate([np.arange(count, dtype=np.int64) for count in counts.values()]),
    )


def _slice_code(name: str) -> int:
    if name not in SLICES:
        raise InputError(f"unknown slice {name!r}", where="scenarios", expected=" or ".join(SLICES))
    return SLICES.index(name)


def _check(scenarios: ScenarioSet) -> None:
    if scenarios.purpose not in PURPOSES:
        raise InputError(
            f"unknown purpose {scenarios.purpose!r}", where="scenarios", expected=f"one of {', '.join(PURPOSES)}"
        )
    if type(scenarios.seed) is not int or scenarios.seed < 0:
        raise InputError(f"seed {scenarios.seed!r}", where="scenarios", expected="a whole number, 0 or more")
    for name in scenarios.slice_names:
        _slice_code(name)
    if len(scenarios.slices) != len(scenarios.index):
        raise InputError(
            f"{len(scenarios.slices)} slices for {len(scenarios.index)} episodes",
            where="scenarios",
            expected="one for each episode",
        )
    if len(np.unique(scenarios.index * len(SLICES) + (scenarios.slices == LOSSY))) != len(scenarios):
        raise InputError("an episode occurs twice", where="scenarios", expected="each index once in its slice")


def _parse(text: str, where: object) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError("not valid JSON", where=where, expected="a scenario file", hint=str(error)) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise InputError(f"not a scenario file of this version: {found!r}", where=where, expected=f"schema {SCHEMA}")
    kinds: dict[str, type] = {
        "world": str,
        "world_kwargs": dict,
        "purpose": str,
        "seed": int,
        "digest": str,
        "episodes": int,
        "slices": list,
        "columns": dict,
    }
    for name, kind in kinds.items():
        if not isinstance(document.get(name), kind):
            raise InputError(f"{name} is missing or of another type", where=where, expected=f"{name}: {kind.__name__}")
    return document


def _check_names(table: Mapping[str, Any], columns: tuple[Column, ...], where: object) -> None:
    declared = ["index", *(column.name for column in columns)]
    missing = [name for name in declared if name not in table]
    if missing:
        raise InputError(f"columns are missing: {', '.join(missing)}", where=where, expected=", ".join(declared))
    extra = [name for name in table if name not in declared]
    if extra:
        raise InputError(f"unknown columns: {', '.join(extra)}", where=where, expected=", ".join(declared))


def _array(values: Any, name: str, episodes: int, where: object) -> NDArray[np.float64]:
    place = f"{where}: {name}"
    if not isinstance(values, list) or len(values) != episodes:
        found = len(values) if isinstance(values, list) else type(values).__name__
        raise InputError(f"{found} values for {episodes} episodes", where=place, expected="one for each episode")
    try:
        array = np.array(values)
    except ValueError as error:
        raise InputError("rows of different lengths", where=place, expected="rows of one length") from error
    if array.dtype.kind not in "if":
        raise InputError("not numbers", where=place, expected="numbers")
    return array.astype(np.float64)


def _check_shape(array: NDArray[np.float64], column: Column, episodes: int, where: object) -> None:
    shape = (episodes, column.width) if column.width else (episodes,)
    if array.shape != shape:
        raise InputError(f"shape {array.shape}", where=f"{where}: {column.name}", expected=f"shape {shape}")


def _check_range(array: NDArray[np.float64], column: Column, where: object) -> None:
    wrong = ~((array >= column.low) & (array <= column.high))
    if column.decimals == 0:
        wrong |= array != np.floor(array)
    if wrong.any():
        place = np.argwhere(wrong)[0]
        kind = "a whole number" if column.decimals == 0 else "a number"
        raise InputError(
            f"scenario {place[0]} has {array[tuple(place)]}",
            where=f"{where}: {column.name}",
            expected=f"{kind} from {column.low} to {column.high} {column.unit}".rstrip(),
        )


def _runs(slices: NDArray[np.str_]) -> list[list[Any]]:
    runs: list[list[Any]] = []
    for name in slices.tolist():
        if runs and runs[-1][0] == name:
            runs[-1][1] += 1
        else:
            runs.append([name, 1])
    return runs


def _expand(runs: list[Any], episodes: int, where: object) -> NDArray[np.str_]:
    try:
        names, counts = [str(name) for name, _ in runs], [int(count) for _, count in runs]
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            "slices are not [name, count] pairs", where=where, hint="make the scenarios again: quant dataset"
        ) from error
    # Before anything is made of them: a count may ask for more memory than there is.
    if min(counts, default=0) < 0:
        raise InputError(f"a slice of {min(counts)} episodes", where=where, expected="0 or more")
    if sum(counts) != episodes:
        raise InputError(
            f"slices hold {sum(counts)} episodes, the file {episodes}",
            where=where,
            hint="make the scenarios again: quant dataset",
        )
    return np.repeat(np.array(names, np.str_), counts)


def _numbers(array: NDArray[np.float64], column: Column) -> list[Any]:
    values: list[Any] = (array.astype(np.int64) if column.decimals == 0 else array).tolist()
    return values


def _plain(value: Any) -> float | tuple[float, ...]:
    return tuple(value) if isinstance(value, list) else float(value)
