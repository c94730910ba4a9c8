"""What can go wrong, in words for the person who has to mend it."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Of the names that there are the one that was likely meant; None where none is alike."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(known), 1)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint for a name that was mistyped, or None."""
    close = nearest(name, known)
    return None if close is None else f"did you mean {close}?"


class QuantError(Exception):
    """An error a user can act on: what is wrong, where, what was expected, and what to do.

    Args:
        what: one sentence without the final full stop.
        where: the file, key, layer or offset.
        expected: what would have been right.
        hint: what to do about it.
    """

    exit_code = 2

    def __init__(
        self, what: str, *, where: object = None, expected: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.expected = expected
        self.hint = hint

    def __str__(self) -> str:
        parts = [self.what if self.where is None else f"{self.where}: {self.what}"]
        if self.expected is not None:
            parts.append(f"expected: {self.expected}")
        if self.hint is not None:
            parts.append(f"hint: {self.hint}")
        return "\n  ".join(parts)


class InputError(QuantError):
    """A file, option or value from outside is not what it has to be (exit code 2)."""


class StaleError(QuantError):
    """Artifacts in a run folder do not belong together (exit code 2)."""


class GateError(QuantError):
    """A criterion failed (exit code 1)."""

    exit_code = 1


class ProtocolError(QuantError):
    """What a board sent is not what the protocol says it sends (exit code 2)."""


class LinkError(QuantError):
    """A board does not answer, or its port is not to be had (exit code 2)."""


class DeviceError(QuantError):
    """A board refused a request (exit code 2).

    Args:
        what: the request and the board's own words.
        code: one of :class:`quant.wire.protocol.ErrorCode`, or a number this version does not know.
    """

    def __init__(
        self, what: str, *, code: int, where: object = None, expected: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(what, where=where, expected=expected, hint=hint)
        self.code = code
