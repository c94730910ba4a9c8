"""What was found where a recording, a rollout or a world does not hold to the contract of the policy's input."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from quant.errors import InputError, did_you_mean

NAMES: dict[str, str] = {
    "out-of-bounds": "values beyond the bounds",
    "bound-units": "a bound of the user's file in another unit than the policy's input",
    "column-scaled": "a column in other units, or not normalized",
    "all-scaled": "all columns in other units, or not normalized",
    "sign-flipped": "a column with the other sign",
    "columns-swapped": "two columns in each other's place",
    "column-late": "a column some frames later than the others",
    "column-offset": "a column with something added",
    "column-frozen": "a column that stands while it should move",
    "function-mismatch": "a column that is not the function of the peers it should be",
    "copy-mismatch": "a column of an older frame that is no copy",
    "stack-order": "the frames of a stack in another order",
    "mask-inverted": "a mask that is 0 where a peer is present",
    "mask-misplaced": "a mask that marks other slots or frames than the filled ones",
    "time-step": "frames further apart or closer together than the policy decides",
    "time-unit": "times in another unit than milliseconds",
    "time-order": "times that stand still or run backwards",
    "frame-order": "frames that run backwards",
    "unknown-time-key": "times under another key than t_ms",
    "world-bounds": "a world whose observations go other ways than the policy's",
}
"""Every finding there is, by the name that ``--allow`` takes."""


@dataclass(frozen=True)
class Finding:
    """One thing that does not hold.

    Attributes:
        name: of `NAMES`.
        certain: it is refused unless allowed by name; otherwise it is a warning in the verdict.
        where: the file or world.
        column: the columns in words, as ``ego speed``; empty where it is not about columns.
        indices: places of these columns in ego or peers, in the order of ``column``.
        found: what there is, with the extreme value, the bound and the share of frames.
        expected: what should be.
        cause: the likely one; empty where none explains it.
        allowed: it was certain and let through.
    """

    name: str
    certain: bool
    where: str
    column: str
    indices: tuple[int, ...]
    found: str
    expected: str
    cause: str = ""
    allowed: bool = False

    @property
    def text(self) -> str:
        """One line: what, where, why."""
        place = f"{self.where}: " + (f"{self.column}: " if self.column else "")
        cause = f"; likely: {self.cause}" if self.cause else ""
        return f"{place}{self.found}, expected {self.expected}{cause}"

    @property
    def warning(self) -> str:
        """As a verdict says it."""
        return f"{self.name}{' (allowed)' if self.allowed else ''}: {self.text}"


def check_names(allow: Iterable[str], where: str = "--allow") -> tuple[str, ...]:
    """The names, each once.

    Raises:
        InputError: one is not of `NAMES`.
    """
    names = tuple(dict.fromkeys(allow))
    for name in names:
        if name not in NAMES:
            raise InputError(
                f"{name} is nothing that can be found",
                where=where,
                expected="one of" + "".join(f"\n    {known}: {words}" for known, words in NAMES.items()),
                hint=did_you_mean(name, NAMES),
            )
    return names


def refuse(found: Sequence[Finding], allow: Collection[str] = (), place: object = None) -> tuple[Finding, ...]:
    """The findings that a verdict has to tell: likely ones, and certain ones that are allowed.

    Args:
        found: in the order of weight.
        allow: names that may pass.
        place: where they were found, said in full, as a path.

    Raises:
        InputError: one is certain and not allowed.
    """
    refused = [one for one in found if one.certain and one.name not in allow]
    if refused:
        first, more = refused[0], refused[1:]
        others = "".join(f"\n  also: {one.text}" for one in more)
        names = " ".join(f"--allow {name}" for name in dict.fromkeys(one.name for one in refused))
        raise InputError(
            (f"{first.column}: " if first.column else "")
            + first.found
            + (f"; likely: {first.cause}" if first.cause else ""),
            where=place or first.where,
            expected=first.expected + others,
            hint=f"mend the recording, say what its columns are (quant observation), or let it through: {names}",
        )
    return tuple(replace(one, allowed=one.certain) for one in found)


def findings_to_json(found: Iterable[Finding]) -> list[dict[str, Any]]:
    """As they stand in a file; the inverse is `findings_from_json`."""
    return [asdict(one) for one in found]


def findings_from_json(values: Iterable[Mapping[str, Any]]) -> tuple[Finding, ...]:
    """The inverse of `findings_to_json`.

    Raises:
        TypeError, KeyError, ValueError: it is not that.
    """
    found = []
    for value in values:
        facts: dict[str, Any] = {**value, "indices": tuple(value["indices"])}
        found.append(Finding(**facts))
    return tuple(found)
