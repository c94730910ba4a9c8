"""``observation.toml``: the contract as a file to read and edit, and reading back what a user says in one.

A file may say as little as one fact of one column: what it leaves out keeps its own source. Of what `write_contract`
wrote, only what was changed counts as the user's; a fact whose origin stands in ``known`` is from there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from quant.errors import InputError, did_you_mean
from quant.files import read_toml, write_text
from quant.observation.contract import FACTS, ORIGINS, Column, Contract
from quant.observation.functions import FUNCTIONS

SCHEMA_VERSION = 1
TABLE = ("tool", "quant", "observation")
WHOLE = ("max_peers", "period_ms", "greatest_age_ms", "view_deg")
HEAD = """\
# What every column of the policy's input is. Edit it and give it back: quant run POLICY --observation FILE
# low and high: the least and the most value, as the policy sees it; scale: what a value of 1 stands for, in unit.
# copy_of: the ego's column (from 0) whose value of one decision earlier this is; function: of the peers present.
# known: where each fact is from; delete the entry of a fact that you know better, or just change the fact.
"""


def contract_text(contract: Contract) -> str:
    """The contract as TOML, with a comment on each bound in physical units."""
    lines = [HEAD, f"schema_version = {SCHEMA_VERSION}"]
    if contract.preset:
        lines.append(f"preset = {json.dumps(contract.preset)}")
    lines += [f"{name} = {_value(getattr(contract, name))}" for name in WHOLE if getattr(contract, name) is not None]
    lines.append(f"known = {_table(contract.known)}")
    for kind, columns in (("ego", contract.ego), ("peers", contract.peers)):
        for index, column in enumerate(columns):
            lines += ["", f"[[{kind}]]  # {index}", *_column_lines(column)]
    return "\n".join(lines) + "\n"


def write_contract(contract: Contract, path: Path) -> None:
    """Writes ``observation.toml``."""
    write_text(path, contract_text(contract))


def _column_lines(column: Column) -> list[str]:
    lines = []
    for name in FACTS:
        value = getattr(column, name)
        if value is None or value == "":
            continue
        comment = f"  # {column.physical(value)}" if name in ("low", "high") and column.scale is not None else ""
        lines.append(f"{name} = {_value(value)}{comment}")
    return [*lines, f"known = {_table(column.known)}"]


def _value(value: Any) -> str:
    # A TOML basic string is written like JSON's; numbers keep every digit that float32 and float64 need.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _table(known: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name} = {json.dumps(origin)}" for name, origin in known.items()) + "}"


def read_contract(path: Path) -> Contract:
    """Reads back what `write_contract` wrote, whole.

    Raises:
        InputError: it is not such a file.
    """
    table = read_toml(path)
    return contract_from_json(table, path)


def contract_from_json(table: Mapping[str, Any], where: Path | str) -> Contract:
    """The inverse of `Contract.to_json`.

    Raises:
        InputError: a key is missing, unknown, or of the wrong kind.
    """
    _check(table, where)
    for key in ("ego", "peers", "max_peers"):
        if key not in table:
            raise InputError(f"lacks {key}", where=where, expected="a whole contract, as quant observation writes it")
    try:
        contract = Contract(
            tuple(Column(**one) for one in table["ego"]),
            tuple(Column(**one) for one in table["peers"]),
            max_peers=int(table["max_peers"]),
            period_ms=table.get("period_ms"),
            greatest_age_ms=table.get("greatest_age_ms"),
            view_deg=table.get("view_deg"),
            known=table.get("known", {}),
            preset=table.get("preset", ""),
        )
        _ = contract.lags
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(f"is no contract: {error}", where=where, expected="what quant observation writes") from error
    return contract


def read_given(path: Path, ego: int, peers: int) -> dict[str, Any]:
    """The facts a file states of a policy's input, with what it says of where they are from.

    Which of them are the user's own is told by `quant.observation.resolve.resolve`, which knows the others' word.

    Args:
        path: a TOML file, the table at the top level or as ``[tool.quant.observation]``.
        ego: columns the policy's ego has.
        peers: columns its peers have.

    Raises:
        InputError: a key is unknown or of the wrong kind, a bound is upside down, or there are too many columns.
    """
    document = read_toml(path)
    table: Any = document
    for key in TABLE:
        table = table.get(key) if isinstance(table, Mapping) else None
    table = document if table is None else table
    _check(table, path)
    given = {name: table[name] for name in (*WHOLE, "known") if name in table}
    for kind, width in (("ego", ego), ("peers", peers)):
        columns = table.get(kind)
        if columns is None:
            continue
        if len(columns) != width:
            raise InputError(
                f"describes {len(columns)} columns of {kind}",
                where=path,
                expected=f"{width}, which the policy has, in their order",
                hint="quant observation POLICY writes the file to edit",
            )
        given[kind] = columns
    return given


def _check(table: Any, where: Path | str) -> None:
    if not isinstance(table, Mapping):
        raise InputError("is no table", where=where, expected=f"[{'.'.join(TABLE)}]")
    if table.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise InputError(
            f"schema_version is {table['schema_version']!r}",
            where=where,
            expected=str(SCHEMA_VERSION),
            hint="make it anew: quant observation POLICY",
        )
    _check_keys(table, ("schema_version", "preset", "known", "ego", "peers", *WHOLE), where)
    for name in WHOLE:
        if table.get(name) is not None:
            _check_number(table[name], name, where, positive=True)
    if "max_peers" in table and type(table["max_peers"]) is not int:
        raise InputError(f"max_peers is {table['max_peers']!r}", where=where, expected="a whole number")
    _check_known(table.get("known", {}), "known", where)
    for kind in ("ego", "peers"):
        columns = table.get(kind, [])
        if not isinstance(columns, list) or not all(isinstance(column, Mapping) for column in columns):
            raise InputError(f"{kind} is no list of columns", where=where, expected=f"a table [[{kind}]] a column")
        for index, column in enumerate(columns):
            _check_column(column, f"{kind}[{index}]", len(columns), where)


def _check_column(column: Mapping[str, Any], place: str, width: int, where: Path | str) -> None:
    _check_keys(column, tuple(one.name for one in fields(Column)), where, place)
    for name in ("name", "unit", "function"):
        if name in column and not (isinstance(column[name], str) and (column[name] or name == "unit")):
            raise InputError(f"{place}.{name} is {column[name]!r}", where=where, expected="text in quotes")
    for name in ("scale", "low", "high"):
        if name in column:
            _check_number(column[name], f"{place}.{name}", where, positive=name == "scale")
    if "low" in column and "high" in column and not column["low"] < column["high"]:
        raise InputError(
            f"{place}: low {column['low']} is not below high {column['high']}", where=where, expected="low < high"
        )
    if "function" in column and column["function"] not in FUNCTIONS:
        raise InputError(
            f"{place}.function is {column['function']!r}",
            where=where,
            expected=" or ".join(FUNCTIONS),
            hint=did_you_mean(str(column["function"]), FUNCTIONS),
        )
    if "copy_of" in column:
        source = column["copy_of"]
        if type(source) is not int or not 0 <= source < width or place == f"ego[{source}]" or place.startswith("peers"):
            raise InputError(
                f"{place}.copy_of is {source!r}", where=where, expected=f"another column of the ego, 0 to {width - 1}"
            )
    _check_known(column.get("known", {}), f"{place}.known", where)


def _check_keys(table: Mapping[str, Any], known: tuple[str, ...], where: Path | str, place: str = "") -> None:
    for key in table:
        if key not in known:
            raise InputError(
                f"unknown key {f'{place}.' if place else ''}{key}",
                where=where,
                expected=", ".join(known),
                hint=did_you_mean(key, known),
            )


def _check_number(value: Any, name: str, where: Path | str, *, positive: bool) -> None:
    if type(value) not in (int, float) or not math.isfinite(value) or (positive and value <= 0):
        raise InputError(
            f"{name} is {value!r}", where=where, expected="a number above 0" if positive else "a finite number"
        )


def _check_known(known: Any, place: str, where: Path | str) -> None:
    if not isinstance(known, Mapping) or not all(origin in ORIGINS for origin in known.values()):
        raise InputError(f"{place} is {known!r}", where=where, expected=f"a table of facts to {', '.join(ORIGINS)}")
