"""What ``eval_float.json``, ``eval_ptq.json`` and ``eval_qat.json`` hold, and their reading and writing.

docs/evaluation.md describes the format for readers. A file says nothing of when or where it was made, so that equal
inputs give equal bytes. What can be counted from the episodes is counted again when a file is read.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from quant.errors import InputError, StaleError
from quant.evaluation.open_loop import Closeness, OpenLoop
from quant.evaluation.outcomes import SliceOutcome
from quant.evaluation.statistics import Bits, Drop, Estimate, Paired
from quant.evaluation.unseen import Unseen
from quant.files import read_json, sha256, write_json
from quant.tracks.candidate import DESCRIBED, PARTS

SCHEMA_VERSION = 3
FLOAT = "float"
"""The name of the float policy among the tracks."""
EVIDENCE = "computed"
FLOAT_ARITHMETIC = "float32, NumPy"
ARITHMETIC: dict[int, str] = {8: "TFLM int8 arithmetic, NumPy", 16: "TFLM int16x8 arithmetic, NumPy"}
"""By the width of activations."""
NO_WORLD = "no world was given: driving was not tested"
HASHES = ("policy", "dataset", "scenarios", *PARTS, DESCRIBED)
SIGNIFICANT_DIGITS = 6


@dataclass(frozen=True, eq=False)
class ClosedLoop:
    """One actor's driving.

    Attributes:
        slices: the outcome on each slice.
        versus_float: for each slice the paired table against the float policy; empty for the float policy itself.
        gate: of the float policy: what the gate's own actors did on the same scenarios, by name.
    """

    slices: tuple[SliceOutcome, ...]
    versus_float: tuple[Paired, ...] = ()
    gate: Mapping[str, tuple[SliceOutcome, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All that is known of how one policy or candidate decides and drives.

    Attributes:
        track: ``float`` or the name of a track.
        arithmetic: what computed the actions.
        hashes: SHA-256 by `HASHES`; None for what there is not.
        world: specification and keyword arguments of the world; None without one.
        closed_loop: None without a world.
        open_loop: against the float policy on held-out frames; None for the float policy itself.
        open_gate: of the float policy: how close the gate's own actors are to it on the same frames, by name.
        exact: of the float policy: by origin, held-out frames on which no candidate has any error at all (its action
            and theirs are at the same end of the range); they dilute a mean.
        unseen: how close the track, made without a drive, is on that drive; empty where no drive was left out.
    """

    track: str
    arithmetic: str
    hashes: Mapping[str, str | None]
    world: Mapping[str, Any] | None
    closed_loop: ClosedLoop | None
    open_loop: OpenLoop | None
    open_gate: Mapping[str, Closeness] = field(default_factory=dict)
    unseen: tuple[Unseen, ...] = ()
    exact: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The document, ready for :func:`quant.files.write_json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "track": self.track,
            "evidence": {"kind": EVIDENCE, "arithmetic": self.arithmetic},
            "sha256": {name: self.hashes.get(name) for name in HASHES},
            "world": None if self.world is None else dict(self.world),
            "closed_loop": None if self.closed_loop is None else _closed_loop_json(self.closed_loop),
            "closed_loop_reason": NO_WORLD if self.closed_loop is None else None,
            "open_loop": None if self.open_loop is None else _open_loop_json(self.open_loop),
            "open_loop_gate": {name: closeness_json(one) for name, one in self.open_gate.items()},
            "open_loop_exact": dict(self.exact),
            "unseen": [unseen_json(one) for one in self.unseen],
        }

    def save(self, path: Path) -> None:
        """Writes the document to ``path``."""
        write_json(path, self.to_json())


def load_evaluation(path: Path) -> Evaluation:
    """Reads what :meth:`Evaluation.save` wrote and counts again what can be counted.

    Raises:
        InputError: not such a file, another schema version, a missing or wrong key, or figures that do not follow from
            the episodes beside them.
    """
    return evaluation_from_json(read_json(path), path)


def evaluation_from_json(document: Any, where: object = "evaluation") -> Evaluation:
    """As `load_evaluation`, from the document.

    Raises:
        InputError: as there.
    """
    root = _Node(document, str(where), "")
    version = root.get("schema_version", int)
    if version != SCHEMA_VERSION:
        again = "make it anew: quant evaluate RUN"
        raise InputError(f"schema version {version}", where=where, expected=f"version {SCHEMA_VERSION}", hint=again)
    closed, opened = root.optional("closed_loop"), root.optional("open_loop")
    hashes, gate, exact = root.node("sha256"), root.node("open_loop_gate"), root.node("open_loop_exact")
    evaluation = Evaluation(
        root.get("track", str),
        root.node("evidence").get("arithmetic", str),
        {name: hashes.nullable(name, str) for name in HASHES},
        root.nullable("world", dict),
        None if closed is None else _read_closed_loop(closed),
        None if opened is None else _read_open_loop(opened),
        {name: _read_closeness(gate.node(name)) for name in gate.value},
        tuple(_read_unseen(one) for one in root.tables("unseen")),
        {str(name): exact.get(name, int) for name in exact.value},
    )
    _check_same(document, evaluation.to_json(), where)
    return evaluation


def check_together(evaluations: Mapping[str, Evaluation]) -> None:
    """Makes sure that evaluations may be compared: the same policy, dataset and scenarios, and true paired tables.

    Args:
        evaluations: by track, the float policy's among them.

    Raises:
        StaleError: they do not belong together.
    """
    reference = evaluations.get(FLOAT)
    if reference is None:
        raise StaleError("there is no evaluation of the float policy to compare with", hint="evaluate again")
    for name, evaluation in evaluations.items():
        where = f"evaluation of {name}"
        if evaluation.track != name:
            raise StaleError(f"it is of the track {evaluation.track!r}", where=where, hint="run quant evaluate again")
        for key in ("policy", "dataset", "scenarios"):
            if evaluation.hashes[key] != reference.hashes[key]:
                raise StaleError(
                    f"made with another {key} than the float policy's",
                    where=where,
                    expected=f"sha256 {reference.hashes[key]}, got {evaluation.hashes[key]}",
                    hint="evaluate all of them again, on the same inputs",
                )
        if name != FLOAT:
            _check_paired(evaluation, reference, where)


def _check_paired(evaluation: Evaluation, reference: Evaluation, where: str) -> None:
    if (evaluation.closed_loop is None) != (reference.closed_loop is None):
        raise StaleError("one of the two was driven and the other was not", where=where, hint="evaluate again")
    if evaluation.closed_loop is None or reference.closed_loop is None:
        return
    slices, originals = evaluation.closed_loop.slices, reference.closed_loop.slices
    if [(s.name, s.n) for s in slices] != [(s.name, s.n) for s in originals]:
        raise StaleError("not the same slices as the float policy", where=where, hint="evaluate again")
    counted = tuple(Paired.of(f.success, c.success) for f, c in zip(originals, slices, strict=True))
    if counted != evaluation.closed_loop.versus_float:
        raise StaleError(
            "the paired table is not that of these episodes and the float policy's",
            where=where,
            expected=f"{counted}, got {evaluation.closed_loop.versus_float}",
            hint="evaluate all of them again",
        )


def rounded(value: float) -> float:
    """To the digits the files keep; never -0.0."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") + 0.0


def _estimate_json(estimate: Estimate) -> dict[str, float | None]:
    return {
        "value": rounded(estimate.value),
        "low": None if estimate.low is None else rounded(estimate.low),
        "high": None if estimate.high is None else rounded(estimate.high),
    }


def _bits_json(bits: Bits) -> dict[str, str]:
    packed = np.packbits(bits).tobytes()
    return {"bits": base64.b64encode(packed).decode(), "sha256": sha256(packed)}


def _drop_json(drop: Drop | None) -> dict[str, float] | None:
    if drop is None:
        return None
    return {"value": rounded(drop.value), "lower": rounded(drop.lower), "upper": rounded(drop.upper)}


def _slice_json(outcome: SliceOutcome) -> dict[str, Any]:
    return {
        "name": outcome.name,
        "n": outcome.n,
        "success": _estimate_json(outcome.success_rate),
        "collision": None if outcome.collision_rate is None else _estimate_json(outcome.collision_rate),
        "needless": None if outcome.needless is None else _estimate_json(outcome.needless),
        "reward": _estimate_json(outcome.reward),
        "episodes": {
            "success": _bits_json(outcome.success),
            "collision": None if outcome.collision is None else _bits_json(outcome.collision),
        },
    }


def _paired_json(paired: Paired) -> dict[str, Any]:
    return {
        "both": paired.both,
        "losses": paired.losses,
        "wins": paired.wins,
        "mcnemar_p": rounded(paired.mcnemar()),
        "difference": _estimate_json(paired.difference()),
        "drop": _drop_json(paired.drop()),
    }


def _closed_loop_json(closed: ClosedLoop) -> dict[str, Any]:
    versus = closed.versus_float or (None,) * len(closed.slices)
    return {
        "slices": [
            _slice_json(outcome) | {"versus_float": None if paired is None else _paired_json(paired)}
            for outcome, paired in zip(closed.slices, versus, strict=True)
        ],
        "gate": {
            name: [
                _slice_json(outcome) | {"versus_float": _paired_json(Paired.of(original.success, outcome.success))}
                for outcome, original in zip(slices, closed.slices, strict=True)
            ]
            for name, slices in closed.gate.items()
        },
    }


def closeness_json(closeness: Closeness) -> dict[str, Any]:
    """As files hold it."""
    return {
        "n": closeness.n,
        "agreement": _estimate_json(closeness.agreement),
        "half_agreement": None if closeness.half_agreement is None else _estimate_json(closeness.half_agreement),
        "mae": rounded(closeness.mae),
        "max_error": rounded(closeness.max_error),
    }


def _open_loop_json(opened: OpenLoop) -> dict[str, Any]:
    return {
        "tolerance": opened.tolerance,
        "overall": closeness_json(opened.overall),
        "by_peers": [None if one is None else closeness_json(one) for one in opened.by_peers],
        "by_origin": {name: closeness_json(one) for name, one in opened.by_origin},
    }


class _Node:
    """One table of a document that knows where it stands, for errors that say so."""

    def __init__(self, value: Any, where: str, path: str) -> None:
        self.where, self.path = where, path
        if not isinstance(value, dict):
            raise InputError(f"{path or 'the document'} is not a table", where=where, expected="a JSON object")
        self.value: dict[str, Any] = value

    def nullable(self, key: str, kind: type) -> Any:
        path = f"{self.path}{key}"
        if key not in self.value:
            raise InputError(f"{path} is missing", where=self.where, expected=f"{path}: {kind.__name__}")
        value = self.value[key]
        if value is None:
            return None
        if kind is float and type(value) in (int, float):
            if not math.isfinite(value):
                raise InputError(f"{path} is {value}", where=self.where, expected="a finite number")
            return float(value)
        if type(value) is not kind:
            raise InputError(f"{path} is {type(value).__name__}", where=self.where, expected=kind.__name__)
        return value

    def get(self, key: str, kind: type) -> Any:
        value = self.nullable(key, kind)
        if value is None:
            raise InputError(f"{self.path}{key} is null", where=self.where, expected=kind.__name__)
        return value

    def node(self, key: str) -> _Node:
        return _Node(self.get(key, dict), self.where, f"{self.path}{key}.")

    def optional(self, key: str) -> _Node | None:
        value = self.nullable(key, dict)
        return None if value is None else _Node(value, self.where, f"{self.path}{key}.")

    def nodes(self, key: str) -> list[_Node | None]:
        items = enumerate(self.get(key, list))
        return [None if item is None else _Node(item, self.where, f"{self.path}{key}[{i}].") for i, item in items]

    def tables(self, key: str) -> list[_Node]:
        nodes = self.nodes(key)
        if None in nodes:
            raise InputError(f"{self.path}{key} holds null", where=self.where, expected="tables")
        return [node for node in nodes if node is not None]


def _read_estimate(node: _Node) -> Estimate:
    return Estimate(node.get("value", float), node.nullable("low", float), node.nullable("high", float))


def _read_bits(node: _Node, n: int) -> Bits:
    try:
        packed = base64.b64decode(node.get("bits", str), validate=True)
    except binascii.Error as error:
        raise InputError(f"{node.path}bits is not base64", where=node.where, hint=str(error)) from error
    if sha256(packed) != node.get("sha256", str) or len(packed) != (n + 7) // 8:
        raise InputError(f"{node.path}bits were changed", where=node.where, expected=f"{n} bits with that sha256")
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=n).astype(np.bool_)


def _read_slice(node: _Node) -> SliceOutcome:
    n, episodes = node.get("n", int), node.node("episodes")
    collision, needless = episodes.optional("collision"), node.optional("needless")
    if n < 1:
        raise InputError(f"{node.path}n is {n}", where=node.where, expected="at least one episode")
    return SliceOutcome(
        node.get("name", str),
        _read_bits(episodes.node("success"), n),
        None if collision is None else _read_bits(collision, n),
        None if needless is None else _read_estimate(needless),
        _read_estimate(node.node("reward")),
    )


def _read_paired(node: _Node, n: int) -> Paired:
    try:
        return Paired(n, node.get("both", int), node.get("losses", int), node.get("wins", int))
    except ValueError as error:
        raise InputError(f"{node.path[:-1]} is not a paired table", where=node.where, hint=str(error)) from error


def _read_closed_loop(node: _Node) -> ClosedLoop:
    tables = node.tables("slices")
    slices = tuple(_read_slice(table) for table in tables)
    versus = [(table.optional("versus_float"), outcome.n) for table, outcome in zip(tables, slices, strict=True)]
    gate = node.node("gate")
    actors = {name: tuple(_read_slice(table) for table in gate.tables(name)) for name in gate.value}
    for name, outcomes in actors.items():
        if [(s.name, s.n) for s in outcomes] != [(s.name, s.n) for s in slices]:
            raise InputError(
                f"{gate.path}{name} was not driven on the same slices",
                where=node.where,
                hint="run quant evaluate again",
            )
    return ClosedLoop(slices, tuple(_read_paired(table, n) for table, n in versus if table is not None), actors)


def _read_closeness(node: _Node) -> Closeness:
    half = node.optional("half_agreement")
    return Closeness(
        node.get("n", int),
        _read_estimate(node.node("agreement")),
        None if half is None else _read_estimate(half),
        node.get("mae", float),
        node.get("max_error", float),
    )


def unseen_json(one: Unseen) -> dict[str, Any]:
    """As files hold it."""
    return {"drive": one.drive, "sha256": one.sha256, **closeness_json(one.closeness)}


def unseen_from_json(value: Any, where: str) -> Unseen:
    """The inverse of `unseen_json`.

    Raises:
        InputError: a figure is missing or of the wrong kind.
    """
    return _read_unseen(_Node(value, where, ""))


def _read_unseen(node: _Node) -> Unseen:
    return Unseen(node.get("drive", str), node.get("sha256", str), _read_closeness(node))


def _read_open_loop(node: _Node) -> OpenLoop:
    by_origin = node.node("by_origin")
    return OpenLoop(
        node.nullable("tolerance", float),
        _read_closeness(node.node("overall")),
        tuple(None if one is None else _read_closeness(one) for one in node.nodes("by_peers")),
        tuple((name, _read_closeness(by_origin.node(name))) for name in by_origin.value),
    )


def _check_same(stated: Any, counted: Any, where: object, path: str = "") -> None:
    """Holds the document against what was read of it: figures that do not follow, and unknown keys."""
    if isinstance(stated, dict) and isinstance(counted, dict):
        for key in sorted(stated.keys() | counted.keys()):
            if key not in stated or key not in counted:
                raise InputError(
                    f"{path}{key} is {'unknown' if key in stated else 'missing'}",
                    where=where,
                    hint="run quant evaluate again",
                )
            _check_same(stated[key], counted[key], where, f"{path}{key}.")
    elif isinstance(stated, list) and isinstance(counted, list) and len(stated) == len(counted):
        for index, (one, other) in enumerate(zip(stated, counted, strict=True)):
            _check_same(one, other, where, f"{path[:-1]}[{index}].")
    elif stated != counted:
        raise InputError(
            f"{path[:-1]} does not follow from the rest of the file",
            where=where,
            expected=f"{counted!r}, got {stated!r}",
            hint="evaluate again instead of editing the file",
        )
