"""What a user's file says of a policy's input, held against the rest of the contract and against what others say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from quant.errors import InputError
from quant.observation.contract import Column, Contract
from quant.observation.coverage import physical_ends
from quant.observation.findings import Finding

SOURCE = "observation file"
WIDER = 4.0
"""Times as wide as a checkpoint, a world or a preset has it: further than a unit that is the same is ever corrected."""
SAME = 0.02
"""Relative difference of a factor from one that a unit explains."""


def check_merged(contract: Contract) -> None:
    """Raises InputError where the user's facts do not go together with the others."""
    try:
        _ = contract.lags
    except ValueError as error:
        raise InputError(
            f"copy_of: {error}",
            where=SOURCE,
            expected="each column of an older frame a copy of one a step newer, the newest of none",
        ) from error
    for place, column in _columns(contract):
        low, high = column.low, column.high
        if low is not None and high is not None and not low < high:
            raise InputError(
                f"{place}: low {low:g} ({column.origin('low')}) is not below high {high:g} ({column.origin('high')})",
                where=SOURCE,
                expected="low < high",
                hint="give both",
            )
    newest = [one.name for one in contract.ego if one.copy_of is None]
    for kind, names in (("ego", newest), ("peers", [one.name for one in contract.peers])):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"two columns of {kind} are called {twice}", where=SOURCE, expected="a name for each")


def file_findings(without: Contract, contract: Contract, given: Mapping[str, Any] | None) -> tuple[Finding, ...]:
    """Bounds of a file that go so far beyond what everybody else says that they are in another unit.

    Args:
        without: the contract without the file.
        contract: with it.
        given: what the file says.
    """
    if given is None:
        return ()
    found = []
    for (place, before), (_, after) in zip(_columns(without), _columns(contract), strict=True):
        factor = _wider(before, after)
        if factor is None:
            continue
        kind, index = place.removesuffix("]").split("[")
        likely = before.scale is not None and any(
            abs(factor / unit - 1) < SAME for unit in (before.scale, before.scale * 3.6, 180 / math.pi * before.scale)
        )
        cause = "the bound is in physical units; it is what the policy sees, of which 1 is " if likely else ""
        found.append(
            Finding(
                "bound-units",
                True,
                SOURCE,
                f"{kind} {after.name}",
                (int(index),),
                f"goes from {after.low:g} to {after.high:g}, {factor:.3g} times as wide as the "
                f"{before.origin('high')} has it",
                f"about {before.low:g} to {before.high:g} ({physical_ends(before, (before.low, before.high))})",
                f"{cause}{before.physical(1.0)}" if cause else "",
            )
        )
    return tuple(found)


def _wider(before: Column, after: Column) -> float | None:
    """How many times as wide the file has a column that others bound, where that is too much to be meant."""
    if "file" not in (after.origin("low"), after.origin("high")) or None in (before.low, before.high):
        return None
    assert before.low is not None and before.high is not None and after.low is not None and after.high is not None
    factor = (after.high - after.low) / (before.high - before.low)
    return factor if factor > WIDER else None


def _columns(contract: Contract) -> Iterator[tuple[str, Column]]:
    for kind, columns in (("ego", contract.ego), ("peers", contract.peers)):
        yield from ((f"{kind}[{index}]", column) for index, column in enumerate(columns))
