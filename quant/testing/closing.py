"""What a session says when it ends, wherever its tests ran: sections for the terminal, properties for the JUnit file.

Under pytest-xdist the tests run in workers, which have neither a terminal nor a JUnit file. What they have to say goes
to the session that started them. Without pytest-xdist none of that happens, and it need not be installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

Line = tuple[str, dict[str, bool]]
"""A line of the terminal and its markup."""

_SENT = "quant"
"""The name under which a worker sends it."""


@dataclass
class Closing:
    """Sections by their title, and the properties of the suite that a worker noted."""

    sections: dict[str, list[Line]] = field(default_factory=dict)
    properties: list[tuple[str, str]] = field(default_factory=list)

    def say(self, title: str, lines: Sequence[Line]) -> None:
        """A section of the summary; one that is said again comes last, as it is then."""
        self.sections.pop(title, None)
        self.sections[title] = list(lines)


_key: pytest.StashKey[Closing] = pytest.StashKey()


def closing(config: pytest.Config) -> Closing:
    """That of the session."""
    return config.stash.setdefault(_key, Closing())


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs tests for a session of pytest-xdist."""
    return hasattr(config, "workerinput")


def workers(config: pytest.Config) -> int:
    """How many processes of pytest-xdist run the tests of this session; 0 where it runs them itself."""
    if getattr(config.option, "dist", "no") == "no":
        return 0
    return len(getattr(config.option, "tx", None) or ())


def send(config: pytest.Config) -> None:
    """Gives it to the session that started this worker."""
    said = closing(config)
    output: dict[str, Any] = config.workeroutput  # type: ignore[attr-defined]  # pytest-xdist's
    sections = [[title, [[text, markup] for text, markup in lines]] for title, lines in said.sections.items()]
    output[_SENT] = {"sections": sections, "properties": [list(one) for one in said.properties]}


def receive(config: pytest.Config, output: dict[str, Any]) -> None:
    """Takes what a worker had to say."""
    from _pytest.junitxml import xml_key

    sent = output.get(_SENT, {"sections": (), "properties": ()})
    for title, lines in sent["sections"]:
        closing(config).say(title, [(text, markup) for text, markup in lines])
    xml = config.stash.get(xml_key, None)
    if xml is not None:
        for name, value in sent["properties"]:
            xml.add_global_property(name, value)


def write(reporter: pytest.TerminalReporter, said: Closing) -> None:
    """Writes the sections at the end of a session."""
    for title, lines in said.sections.items():
        reporter.section(title)
        for text, markup in lines:
            reporter.line(text, **markup)


def plain(text: str) -> Iterator[Line]:
    """The lines of a text, without markup."""
    return ((line, dict[str, bool]()) for line in text.splitlines())
