"""The limits of the acceptance criteria: the one place they stand, and how a user sets others.

Overridden by ``[tool.quant.acceptance]`` of the nearest ``pyproject.toml`` upwards of the current directory, or by a
TOML or JSON file that holds the same keys at its top level (or in that same table):

    [tool.quant.acceptance]
    success_drop = 0.05
    latency_ms = 20.0
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from quant.errors import InputError, did_you_mean
from quant.files import nearest_pyproject, read_bytes, read_toml

TABLE = ("tool", "quant", "acceptance")


@dataclass(frozen=True)
class Limits:
    """What a candidate has to keep, and what counts as a tie.

    Attributes:
        success_drop: highest upper 95 % bound of the relative loss of success against the float policy, a share.
        success_margin_points: success that may be lost against the float policy and still be called non-inferior, in
            percentage points of the success rate.
        success_margin_required: non-inferiority within that margin is a criterion of its own, not only reported.
        success_shown_required: success that keeps its limit in the episodes driven, but is not shown to, fails instead
            of being unproven: for a gate that must not let it through.
        action_disagreement: highest share of held-out frames with another action than the float policy's.
        action_tolerance: two continuous actions agree within this share of the action's range.
        missed_action: most frames within the bounds of the inputs on which float acts, is settled, and the candidate
            does not act.
        false_action: likewise where the candidate acts and float does not.
        worst_deviation: largest difference between float and candidate within the bounds, a share of the action's range
            (of logits, of their range); it is told without a limit, too.
        model_bytes: highest size of each sub-model's file.
        latency_ms: longest time of one decision on the target, with the worst number of peers, at the 99th percentile
            and at the maximum.
        heap_bytes: least free heap on the target.
        stack_bytes: least free stack of the task that decides, on the target.
        target: the chip latency and memory have to be measured on, as esptool calls it: ``esp32``, ``esp32s3``.
        tie_significance: success rates differ where exact McNemar's p, corrected for all pairs, is below this.
        tie_agreement: without a world, agreements differ where they are further apart than this.
        tie_relative_mae: without a world, mean errors differ where they are further apart than this share of the lower.
    """

    success_drop: float = 0.10
    success_margin_points: float = 1.0
    success_margin_required: bool = False
    success_shown_required: bool = False
    action_disagreement: float = 0.10
    action_tolerance: float = 0.02
    missed_action: int = 0
    false_action: int = 0
    worst_deviation: float | None = None
    model_bytes: int = 102_400
    latency_ms: float = 50.0
    heap_bytes: int = 32_768
    stack_bytes: int = 1_024
    target: str = "esp32"
    tie_significance: float = 0.05
    tie_agreement: float = 0.005
    tie_relative_mae: float = 0.10

    def to_json(self) -> dict[str, float | str | bool]:
        """Every limit by its key; without those that are not set."""
        return {key: value for key, value in asdict(self).items() if value is not None}


SHARES = ("success_drop", "action_disagreement", "action_tolerance", "tie_significance", "tie_agreement")
"""Limits that are shares and cannot exceed 1."""
OPTIONAL: Mapping[str, type] = {"worst_deviation": float}
"""Limits that need not be set, with their types."""
HIGHEST_POINTS = 100.0


def load_limits(file: Path | None = None, folder: Path | None = None) -> Limits:
    """The limits in force.

    Args:
        file: TOML or JSON, told by its suffix; None: the nearest ``pyproject.toml``.
        folder: where the search for it starts; None: the current directory.

    Raises:
        InputError: the file is missing or malformed, or a key is unknown, of the wrong type or out of range.
    """
    if file is None:
        file = nearest_pyproject((folder or Path.cwd()).resolve())
        return Limits() if file is None else limits_from(_table(read_toml(file), file) or {}, file)
    document = _read_json(file) if file.suffix.lower() == ".json" else read_toml(file)
    table = _table(document, file)
    if table is None and TABLE[0] in document:
        raise InputError(
            "holds no limits",
            where=file,
            expected=f"a table [{'.'.join(TABLE)}], or the limits at the top level of a file of their own",
            hint=f"add [{'.'.join(TABLE)}] to it, empty for the defaults",
        )
    return limits_from(document if table is None else table, file)


def limits_from(table: Mapping[str, Any], where: object = "limits") -> Limits:
    """Limits with the keys of ``table`` in place of the defaults.

    Raises:
        InputError: a key is unknown, of the wrong type or out of range.
    """
    kinds: dict[str, type] = {field.name: OPTIONAL.get(field.name, type(field.default)) for field in fields(Limits)}
    for key, value in table.items():
        if key not in kinds:
            raise InputError(
                f"unknown limit {key!r}",
                where=where,
                expected=f"one of {', '.join(kinds)}",
                hint=did_you_mean(key, kinds),
            )
        _check(key, value, kinds[key], where)
    values: dict[str, Any] = {key: kinds[key](value) for key, value in table.items()}
    return replace(Limits(), **values)


def _check(key: str, value: Any, kind: type, where: object) -> None:
    if kind is str:
        if not isinstance(value, str) or not re.fullmatch("esp32([a-z][0-9]+)?", value):
            raise InputError(f"limit {key!r} is {value!r}", where=where, expected=f'{key} = a chip, as "esp32s3"')
        return
    if kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"limit {key!r} is {value!r}", where=where, expected=f"{key} = true or false")
        return
    allowed = (int,) if kind is int else (int, float)
    if type(value) not in allowed:
        expected = "a whole number" if kind is int else "a number"
        raise InputError(f"limit {key!r} is {value!r}", where=where, expected=f"{key} = {expected}")
    highest = 1.0 if key in SHARES else HIGHEST_POINTS if key.endswith("_points") else math.inf
    if not (math.isfinite(value) and 0 <= value <= highest):
        kinds = {1.0: "a share from 0 to 1", HIGHEST_POINTS: "percentage points from 0 to 100"}
        expected = kinds.get(highest, "a finite number, 0 or more")
        raise InputError(f"limit {key!r} is {value}", where=where, expected=f"{key} = {expected}")


def _table(document: Mapping[str, Any], where: Path) -> Mapping[str, Any] | None:
    """The table of limits; None where there is none. A value in its place is an error: limits would go unheard."""
    found: Mapping[str, Any] = document
    for depth, key in enumerate(TABLE, 1):
        if key not in found:
            return None
        inner = found[key]
        if not isinstance(inner, dict):
            name = ".".join(TABLE[:depth])
            raise InputError(f"{name} is {inner!r}", where=where, expected=f"a table [{'.'.join(TABLE)}]")
        found = inner
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_bytes(path))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError("not valid JSON", where=path, expected="a JSON document", hint=str(error)) from error
    if not isinstance(document, dict):
        raise InputError("not a table of limits", where=path, expected='{"success_drop": 0.1, ...}')
    return document
