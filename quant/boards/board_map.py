"""The board map: which boards a bench has, how each is known, reached and switched.

A YAML file (``examples/boards.yaml``), found at ``--board-map``, else ``QUANT_BOARD_MAP``, else ``./boards.yaml``, else
``~/.config/quant/boards.yaml``::

    boards:
      bench1:
        chip: esp32
        mac: 24:6f:28:aa:bb:cc
        port: /dev/serial/by-id/usb-Silicon_Labs_CP2102_0001-if00-port0
        power_cycle: uhubctl -l 1-1 -p 2 -a cycle

Commands are lists of words, or one string that is split as a shell would; no shell runs them.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quant.boards.kinds import KINDS
from quant.errors import InputError
from quant.files import read_bytes

ENVIRONMENT = "QUANT_BOARD_MAP"
"""Names the board map where no option does."""

CHIPS = ("esp32", "esp32s3", "esp32c3")
"""Chips the firmware is built for."""
RESERVED = (*KINDS, *CHIPS)
"""Names ``--board`` takes without a board map; no entry may have one."""

_BAUDS = range(9600, 5_000_001)
_COMMAND_SECONDS = 60.0
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_REVISION = re.compile(r"v?(\d+)\.(\d{1,2})")


@dataclass(frozen=True)
class Revision:
    """A range of chip revisions, each ``100 * major + minor`` as ESP-IDF and esptool count them; both ends count."""

    lowest: int
    highest: int

    def __contains__(self, revision: object) -> bool:
        return isinstance(revision, int) and self.lowest <= revision <= self.highest

    def __str__(self) -> str:
        low, high = revision_words(self.lowest), revision_words(self.highest)
        if self.lowest == self.highest:
            return low
        return f"{low} or later" if self.highest >= _NEWEST else f"{low} to {high}"


_NEWEST = 0xFFFF


@dataclass(frozen=True)
class Command:
    """A program of the bench's own.

    Attributes:
        words: the program and its arguments; no shell is involved.
        seconds: it may take.
        where: the file, line and key it stands at.
    """

    words: tuple[str, ...]
    seconds: float
    where: str

    def run(self, environment: Mapping[str, str]) -> None:
        """Runs it to its end, with ``environment`` added to this process's.

        Raises:
            InputError: it cannot be started, takes too long, or ends with another code than 0.
        """
        try:
            done = subprocess.run(
                self.words,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self.seconds,
                check=False,
            )
        except OSError as error:
            raise InputError(
                f"{self.words[0]} cannot be started: {error.strerror}",
                where=self.where,
                expected="a program on PATH, or its whole path; no shell runs it",
            ) from error
        except subprocess.TimeoutExpired as error:
            raise InputError(
                f"{self.words[0]} has not ended within {self.seconds:g} s",
                where=self.where,
                hint="a longer time: {run: ..., timeout: seconds}",
            ) from error
        if done.returncode != 0:
            said = done.stdout.decode(errors="replace").strip()[-500:]
            raise InputError(f"{self.words[0]} ended with {done.returncode}", where=self.where, hint=said or None)


@dataclass(frozen=True)
class BoardEntry:
    """One board of the map.

    Attributes:
        name: its id.
        where: the file and line it stands at.
        chip: ``esp32``, ``esp32s3``, ... or None where any will do.
        mac: base MAC in lower case with colons, or None.
        revision: of the chip, or None.
        port: what pyserial opens, or None where it is found by what is plugged in.
        baud: of the line, or None for the default.
        build_dir: the ESP-IDF build that belongs on it, absolute, or None.
        fixtures: what is wired to the board, for tests that need it.
        pre: runs after the board is claimed, before anything else.
        post: runs before the board is given back.
        power_cycle: takes its power away and gives it back.
    """

    name: str
    where: str = ""
    chip: str | None = None
    mac: str | None = None
    revision: Revision | None = None
    port: str | None = None
    baud: int | None = None
    build_dir: Path | None = None
    fixtures: tuple[str, ...] = ()
    pre: Command | None = None
    post: Command | None = None
    power_cycle: Command | None = None


@dataclass(frozen=True)
class BoardMap:
    """All boards of a bench, by their ids; empty where there is no board map."""

    path: Path | None = None
    boards: Mapping[str, BoardEntry] = field(default_factory=dict)

    def by_chip(self, chip: str) -> tuple[BoardEntry, ...]:
        """The boards of one chip."""
        return tuple(entry for entry in self.boards.values() if entry.chip == chip)


def revision_number(revision: int) -> str:
    """``1.2`` of 102."""
    return f"{revision // 100}.{revision % 100}"


def revision_words(revision: int) -> str:
    """``v1.2`` of 102."""
    return f"v{revision_number(revision)}"


def find_board_map(given: Path | None = None, folder: Path | None = None) -> BoardMap:
    """The board map in force: the one given, else the environment's, the folder's, the user's, or an empty one.

    Args:
        given: ``--board-map``.
        folder: where ``boards.yaml`` is looked for; the working directory where None.

    Raises:
        InputError: the file that was named does not exist, or a file is wrong.
    """
    named = given or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    if named is not None:
        return load_board_map(named)
    for path in ((folder or Path.cwd()) / "boards.yaml", Path.home() / ".config" / "quant" / "boards.yaml"):
        if path.is_file():
            return load_board_map(path)
    return BoardMap()


def load_board_map(path: Path) -> BoardMap:
    """Reads a board map and checks every word of it.

    Raises:
        InputError: it is missing, not YAML, or a key or value is not what it has to be; says file, line and key.
    """
    root = _Node(_parse(path), path, ())
    root.only("boards")
    boards = root.child("boards")
    if boards is None:
        raise root.error("no boards", "boards: with an entry for each board")
    entries = {}
    for name in boards.mapping():
        entry = _entry(name, boards.require(name), path.resolve().parent)
        entries[name] = entry
    for key in ("mac", "port"):
        _unique(entries, key)
    return BoardMap(path, entries)


def _unique(entries: Mapping[str, BoardEntry], key: str) -> None:
    seen: dict[object, str] = {}
    for entry in entries.values():
        value = getattr(entry, key)
        if value is not None and value in seen:
            raise InputError(
                f"{seen[value]} and {entry.name} have the same {key}, {value}",
                where=entry.where,
                expected=f"a {key} of its own for each board",
            )
        seen[value] = entry.name


def _entry(name: str, node: _Node, base: Path) -> BoardEntry:
    node.only(
        "chip", "mac", "revision", "port", "baud", "build_dir", "fixtures", "pre", "post", "power_cycle"
    )  # fmt: skip
    if name in RESERVED or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise node.error("not a name for a board", f"letters, digits, dot, dash; none of {', '.join(RESERVED)}")
    build_dir = _text(node.child("build_dir"))
    return BoardEntry(
        name=name,
        where=node.where(),
        chip=_chip(node.child("chip")),
        mac=_mac(node.child("mac")),
        revision=_revision(node.child("revision")),
        port=_text(node.child("port")),
        baud=_baud(node.child("baud")),
        build_dir=None if build_dir is None else base / Path(build_dir).expanduser(),
        fixtures=_words(node.child("fixtures")),
        pre=_command(node.child("pre")),
        post=_command(node.child("post")),
        power_cycle=_command(node.child("power_cycle")),
    )


def _chip(node: _Node | None) -> str | None:
    chip = _text(node)
    if node is not None and chip not in CHIPS:
        raise node.error(f"no chip of ours: {chip}", f"one of {', '.join(CHIPS)}")
    return chip


def _mac(node: _Node | None) -> str | None:
    if node is None:
        return None
    # 11:22:33:44:55:66 without quotes is one number to base sixty in YAML 1.1.
    if isinstance(node.value, int):
        raise node.error("YAML read this MAC as a number", 'the MAC in quotes: "24:6f:28:aa:bb:cc"')
    mac = node.text().lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise node.error(f"not a MAC: {mac}", "six bytes in hexadecimal, such as 24:6f:28:aa:bb:cc")
    return mac


def _baud(node: _Node | None) -> int | None:
    if node is None:
        return None
    if isinstance(node.value, bool) or not isinstance(node.value, int) or node.value not in _BAUDS:
        raise node.error(f"not a baud rate: {node.value!r}", "a whole number such as 921600 or 115200")
    return node.value


def _revision(node: _Node | None) -> Revision | None:
    if node is None:
        return None
    if not isinstance(node.value, dict):
        exact = _one_revision(node)
        return Revision(exact, exact)
    node.only("min", "max", "exact")
    low, high, exact_node = node.child("min"), node.child("max"), node.child("exact")
    if exact_node is not None:
        if low is not None or high is not None:
            raise node.error("exact and a range", "either exact, or min and max")
        exact = _one_revision(exact_node)
        return Revision(exact, exact)
    found = Revision(0 if low is None else _one_revision(low), _NEWEST if high is None else _one_revision(high))
    if (low is None and high is None) or found.lowest > found.highest:
        raise node.error("no revision fits", "min, max (not under min), or exact")
    return found


def _one_revision(node: _Node) -> int:
    # 3.10 without quotes is the number 3.1, another revision: only text is unambiguous, and so is a whole number.
    if isinstance(node.value, float):
        raise node.error(f"YAML read this revision as a number: {node.value}", 'the revision in quotes: "v3.1"')
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        return node.value * 100
    match = _REVISION.fullmatch(node.text())
    if match is None:
        raise node.error(f"not a revision: {node.value}", '"v3.1": major and minor, as the boot log prints it')
    return int(match[1]) * 100 + int(match[2])


def _text(node: _Node | None) -> str | None:
    return None if node is None else node.text()


def _words(node: _Node | None) -> tuple[str, ...]:
    return () if node is None else node.words()


def _command(node: _Node | None) -> Command | None:
    if node is None:
        return None
    seconds, run = _COMMAND_SECONDS, node
    if isinstance(node.value, dict):
        node.only("run", "timeout")
        run, timeout = node.require("run"), node.child("timeout")
        if timeout is not None:
            seconds = timeout.number()
    try:
        words = tuple(shlex.split(run.value)) if isinstance(run.value, str) else run.words()
    except ValueError as error:
        raise run.error(f"not a command: {error}", "words a shell would split") from error
    if not words:
        raise run.error("an empty command", "a program and its arguments")
    return Command(words, seconds, node.where())


@dataclass(frozen=True)
class _Node:
    """A value of the document, with the way to it."""

    value: Any
    path: Path
    keys: tuple[str, ...]
    line: int | None = None

    def where(self) -> str:
        line = "" if self.line is None else f":{self.line}"
        keys = f": {'.'.join(self.keys)}" if self.keys else ""
        return f"{self.path}{line}{keys}"

    def error(self, what: str, expected: str) -> InputError:
        return InputError(what, where=self.where(), expected=expected)

    def mapping(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            raise self.error(f"{_kind(self.value)} where keys belong", "keys and values, one a line")
        for key in self.value:
            if not isinstance(key, str):
                raise self.error(f"the key {key!r} is {_kind(key)}", "a key in letters, or in quotes")
        return self.value

    def only(self, *known: str) -> None:
        for key in self.mapping():
            if key not in known:
                raise self.require(key).error("no such key", f"one of {', '.join(known)}")

    def child(self, key: str) -> _Node | None:
        """The value at a key, None where the key is missing; a key without a value is an error, not a default."""
        mapping = self.mapping()
        return self.require(key) if key in mapping else None

    def require(self, key: str) -> _Node:
        mapping = self.mapping()
        line = mapping.lines.get(key, self.line) if isinstance(mapping, _Mapping) else self.line
        node = _Node(mapping.get(key), self.path, (*self.keys, key), line)
        if node.value is None:
            raise node.error("no value", f"a value for {key}, or no such key")
        return node

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value.strip():
            raise self.error(f"{_kind(self.value)} where text belongs: {self.value!r}", "text")
        return self.value.strip()

    def number(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not 0 < self.value < 86400:
            raise self.error(f"not a time: {self.value!r}", "seconds")
        return float(self.value)

    def words(self) -> tuple[str, ...]:
        if not isinstance(self.value, Sequence) or isinstance(self.value, str):
            raise self.error(f"{_kind(self.value)} where a list belongs", "a list of words: [one, two]")
        for word in self.value:
            if not isinstance(word, str):
                raise self.error(f"{_kind(word)} in a list of words: {word!r}", "words; numbers in quotes")
        return tuple(self.value)


def _kind(value: object) -> str:
    names = {dict: "keys", list: "a list", str: "text", bool: "yes or no", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), f"a {type(value).__name__}")


class _Mapping(dict[str, Any]):
    """A YAML mapping that knows the line of each of its keys."""

    lines: dict[str, int]


def _parse(path: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """The safe loader; keys twice are refused, lines remembered."""

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> _Mapping:
        made = _Mapping()
        made.lines = {}
        for key_node, value_node in node.value:
            key, line = loader.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str | int | float | bool | None):
                raise InputError("a key that is no word", where=f"{path}:{line}", expected="a key in letters")
            if key in made:
                raise InputError(f"{key} stands here twice", where=f"{path}:{line}", expected="each key once")
            made[key] = loader.construct_object(value_node, deep=True)  # type: ignore[index]
            made.lines[key] = line  # type: ignore[index]
        return made

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        return yaml.load(read_bytes(path), Loader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f":{mark.line + 1}"
        raise InputError("not valid YAML", where=f"{path}{line}", hint=getattr(error, "problem", None)) from error
