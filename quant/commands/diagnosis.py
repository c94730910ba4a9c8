"""What is here, what is missing, and what to do about it: each finding a line, nothing of it fatal.

Every package is imported inside the check that needs it, and what a check raises is its finding: this is the part that
has to work where the rest does not. Nothing is written, no port is opened, TensorFlow is not imported in this process.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quant.errors import InputError, QuantError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from quant.boards.board_map import BoardMap

DISTRIBUTION = "quant"

EXTRAS = {
    "bench": "boards on a desk: flashing, pytest -m hil",
    "train": "training the reference policy again: quant train",
    "sumo": "SUMO as a second opinion on driving",
    "sweep": "many runs at once, on Dask",
    "docs": "the API reference: make docs",
    "test": "the project's own tests",
    "dev": "linting and type-checking",
}
"""What each extra is for; the project's metadata has room for names alone."""

LEAST_BYTES, ENOUGH_BYTES = 100 << 20, 1 << 30
"""Free disk space: a run is some 15 MB, and its steps write beside what they replace."""
DEEP_SECONDS = 120.0
"""For a self-test, TensorFlow's import on a busy machine included."""
SHOWN = 5
"""Names that a line lists before it counts the others."""


class State(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        topic: what it belongs to.
        name: what was looked at.
        state: ``missing`` is also what is there and cannot be used.
        says: what was found and what that means.
        todo: the exact thing to do; empty where there is nothing.
        needed: ``quant run`` does not work without it.
    """

    topic: str
    name: str
    state: State
    says: str
    todo: str = ""
    needed: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """All findings."""

    checks: tuple[Check, ...]

    @property
    def lacking(self) -> tuple[Check, ...]:
        """What keeps ``quant run`` from working."""
        return tuple(check for check in self.checks if check.needed and check.state is State.MISSING)

    def to_json(self) -> dict[str, Any]:
        """``able``, whether ``quant run`` works here, and ``checks``."""
        return {"able": not self.lacking, "checks": [asdict(check) for check in self.checks]}


def _checkout() -> Path | None:
    root = Path(__file__).resolve().parents[2]
    return root if (root / "esp_idf_app").is_dir() and (root / "pyproject.toml").is_file() else None


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise InputError("is gone", where="the current folder", hint="cd to one that is there") from error


@dataclass(frozen=True)
class Desk:
    """Where is looked.

    Attributes:
        folder: the user's, where limits, baseline, board map and runs are looked for.
        checkout: of this package's source, or None where it is installed without.
        python: runs what is tried in a process of its own.
    """

    folder: Path = field(default_factory=_here)
    checkout: Path | None = field(default_factory=_checkout)
    python: str = sys.executable

    def pip(self, extra: str = "") -> str:
        """The command that installs this package, with an extra."""
        brackets = f"[{extra}]" if extra else ""
        if self.checkout is None:
            return f"{self.python} -m pip install '{DISTRIBUTION}{brackets}'"
        return f"cd {self.checkout} && {self.python} -m pip install -c constraints.txt -e '.{brackets}'"


Finding = Iterator[Check]


def examine(desk: Desk | None = None, *, deep: bool = False) -> Diagnosis:
    """Looks at everything.

    Args:
        desk: where; here, where None.
        deep: imports TensorFlow and runs the self-tests of `quant.runs.selftest`, each in a process of its own.
    """
    desk = desk or Desk()
    checks = [check for examined in EXAMINATIONS for check in _guarded(examined, desk)]
    if deep:
        checks += [_tried(desk, name, code) for name, code in DEEP.items()]
    return Diagnosis(tuple(checks))


@dataclass(frozen=True)
class _Examination:
    topic: str
    name: str
    find: Callable[[Desk], Finding]
    needed: bool = False


def _guarded(examined: _Examination, desk: Desk) -> Iterable[Check]:
    """Its findings; where it fails, that is one."""
    found: list[Check] = []
    state = State.MISSING if examined.needed else State.WARNING
    try:
        found.extend(examined.find(desk))
    except QuantError as error:
        what = error.what if error.where is None else f"{error.where}: {error.what}"
        todo = "; ".join(words for words in (error.expected and f"expected: {error.expected}", error.hint) if words)
        found.append(Check(examined.topic, examined.name, state, what, todo, examined.needed))
    except ImportError as error:
        found.append(Check(examined.topic, examined.name, state, str(error), desk.pip(), examined.needed))
    except Exception as error:
        says = f"could not be looked at: {type(error).__name__}: {error}"
        found.append(Check(examined.topic, examined.name, state, says, needed=examined.needed))
    return found


# -- the main job ------------------------------------------------------------------------------------------------------

MAIN = "quant run"


def _python(desk: Desk) -> Finding:
    from packaging.specifiers import SpecifierSet

    wanted, version = _declared(desk).python, platform.python_version()
    fits = SpecifierSet(wanted).contains(version)
    says = f"{version} in {sys.prefix}" if fits else f"{version}, needed {wanted}"
    todo = "" if fits else "make a virtual environment with such a Python and install there"
    yield Check(MAIN, "Python", State.OK if fits else State.MISSING, says, todo, needed=True)


@dataclass(frozen=True)
class _Declared:
    """What the package asks for: Python's versions, packages, and packages by extra."""

    python: str
    packages: tuple[Requirement, ...]
    extras: Mapping[str, tuple[Requirement, ...]]


def _declared(desk: Desk) -> _Declared:
    """Of the checkout, which an installation may be behind; else of the installation."""
    from packaging.requirements import Requirement

    if desk.checkout is not None:
        project = tomllib.loads((desk.checkout / "pyproject.toml").read_text())["project"]
        extras = project.get("optional-dependencies", {})
        return _Declared(
            project["requires-python"],
            tuple(map(Requirement, project["dependencies"])),
            {name: tuple(map(Requirement, packages)) for name, packages in extras.items()},
        )
    about = metadata.metadata(DISTRIBUTION)
    found = [Requirement(words) for words in metadata.requires(DISTRIBUTION) or ()]
    names = about.get_all("Provides-Extra") or []
    return _Declared(
        about["Requires-Python"],
        tuple(one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})),
        {name: tuple(one for one in found if one.marker and _only_with(one, name)) for name in names},
    )


def _only_with(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _unfit(requirement: Requirement) -> str | None:
    """What is wrong with what is installed; None where nothing is."""
    version = _version(requirement.name)
    if version is None:
        return "not installed"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{version}, not {requirement.specifier}"
    return None


def _packages(desk: Desk) -> Finding:
    declared = _declared(desk).packages
    unfit = {one: words for one in declared if (words := _unfit(one)) is not None}
    for requirement, words in unfit.items():
        absent = _version(requirement.name) is None
        pinned = any(part.operator == "==" for part in requirement.specifier)
        means = "" if absent else ": models and verdicts may come out in other bytes" if pinned else ": too old"
        state = State.MISSING if absent or not pinned else State.WARNING
        todo = f"{desk.python} -m pip install '{requirement.name}{requirement.specifier}'"
        yield Check(MAIN, requirement.name, state, words + means, todo, needed=True)
    if not unfit:
        yield Check(MAIN, "packages", State.OK, f"all {len(declared)}, as pinned", needed=True)


def _native(desk: Desk) -> Finding:
    todo = f"a C++ compiler, then: {desk.pip()}"
    try:
        from quant.boards.virtual import _virtual_board
    except ImportError as error:
        says = f"not built: {error}"
        yield Check(MAIN, "native module", State.MISSING, says, todo, needed=True)
        return
    built = Path(str(_virtual_board.__file__)).stat().st_mtime
    newer = [path.name for path in _sources(desk.checkout) if path.stat().st_mtime > built]
    if newer:
        says = f"older than {_some(newer)}: the virtual board is not this checkout's firmware"
        yield Check(MAIN, "native module", State.WARNING, says, desk.pip(), needed=True)
    else:
        yield Check(MAIN, "native module", State.OK, "built: the virtual board runs the firmware's core", needed=True)


def _sources(checkout: Path | None) -> Iterator[Path]:
    """What the module is made of."""
    if checkout is not None:
        for folder in ("virtual_board", "components/policy_core/src", "components/policy_core/include"):
            yield from (path for path in sorted((checkout / "esp_idf_app" / folder).rglob("*")) if path.is_file())


def _compiler(desk: Desk) -> Finding:
    if desk.checkout is None:
        return
    beside = f"{Path(desk.python).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    compiler = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    says = f"{compiler}" if compiler else "none: only needed to build the native module again"
    todo = "" if compiler else "sudo apt-get install g++"
    yield Check(MAIN, "C++ compiler", State.OK if compiler else State.WARNING, says, todo)
    lacking = [name for name in ("cmake", "ninja") if shutil.which(name, path=beside) is None]
    says = f"no {' and no '.join(lacking)}: the build fetches its own" if lacking else "here"
    yield Check(MAIN, "cmake, ninja", State.OK, says)


def _tensorflow(_: Desk) -> Finding:
    version = _version("tensorflow")
    if version is not None:
        yield Check(MAIN, "TensorFlow", State.OK, f"{version}; not tried: quant doctor --deep imports it")


def _processors(_: Desk) -> Finding:
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Check(MAIN, "processors", State.OK, f"{number}; episodes are driven on all of them, --workers takes fewer")


def _disk(desk: Desk) -> Finding:
    free = shutil.disk_usage(desk.folder).free
    state = State.OK if free >= ENOUGH_BYTES else State.WARNING if free >= LEAST_BYTES else State.MISSING
    says = f"{free / 1e9:.1f} GB free here; a run takes some 15 MB"
    yield Check(MAIN, "disk", state, says, "" if state is State.OK else "make room, or give another --out", needed=True)
    if not os.access(desk.folder, os.W_OK):
        says = f"{desk.folder} cannot be written to"
        yield Check(MAIN, "folder", State.WARNING, says, "work in another folder, or give another --out")


# -- the project -------------------------------------------------------------------------------------------------------

PROJECT = "project"


def _limits(desk: Desk) -> Finding:
    from quant.acceptance.limits import Limits, load_limits

    limits, default = load_limits(folder=desk.folder).to_json(), Limits().to_json()
    own = [f"{key} = {value}" for key, value in limits.items() if value != default[key]]
    yield Check(PROJECT, "limits", State.OK, ", ".join(own) if own else "the defaults", needed=True)


def _baseline(desk: Desk) -> Finding:
    from quant.acceptance.baseline import FILE, load_baseline

    path = desk.folder / FILE
    if not path.exists():
        todo = "after a run you trust: quant accept RUN"
        yield Check(PROJECT, "baseline", State.MISSING, f"no {FILE}: quant compare RUN has nothing to hold", todo)
        return
    held = load_baseline(path)
    says = f"{held.name}: {held.winner or 'no winner'}, {held.status}"
    yield Check(PROJECT, "baseline", State.OK, says)


def _runs(desk: Desk) -> Finding:
    from quant.runs.folder import MANIFEST, SETTINGS

    found = sorted(path.parent for way in ("*", "runs/*") for path in desk.folder.glob(f"{way}/{SETTINGS}"))
    names = {folder: folder.relative_to(desk.folder).as_posix() for folder in found}
    finished = [names[folder] for folder in found if (folder / MANIFEST).is_file()]
    unfinished = [names[folder] for folder in found if not (folder / MANIFEST).is_file()]
    if not found:
        yield Check(PROJECT, "runs", State.MISSING, "none here", "quant run POLICY, or quant run for the shipped one")
    if finished:
        yield Check(PROJECT, "runs", State.OK, f"{len(finished)} finished: {_some(finished)}")
    if unfinished:
        todo = f"quant run again with --out {unfinished[0]}, or remove the folder"
        says = f"{len(unfinished)} unfinished: {_some(unfinished)}"
        yield Check(PROJECT, "runs", State.WARNING, says, todo)


# -- boards ------------------------------------------------------------------------------------------------------------

BOARDS = "boards"


def _board_map(desk: Desk) -> Finding:
    from quant.boards.board_map import find_board_map

    found = find_board_map(folder=desk.folder)
    if found.path is None:
        todo = "only a bench with several boards needs one: quant init writes a boards.yaml to fill in"
        yield Check(BOARDS, "board map", State.MISSING, "none", todo)
    else:
        yield Check(BOARDS, "board map", State.OK, f"{found.path}: {_some(list(found.boards)) or 'no boards'}")


def _ports(desk: Desk) -> Finding:
    from quant.boards.board_map import BoardMap, find_board_map
    from quant.boards.ports import plugged_in

    try:
        board_map = find_board_map(folder=desk.folder)
    except QuantError:
        board_map = BoardMap()
    plugged = {os.path.realpath(one.port): f"{one.bridge}, {one.description}" for one in plugged_in()}
    for entry in board_map.boards.values():
        if entry.port is not None and "://" not in entry.port and not Path(entry.port).exists():
            todo = "plug it in with a cable that carries data; ls /dev/serial/by-id lists what is there"
            yield Check(BOARDS, entry.name, State.MISSING, f"nothing at {entry.port}", todo)
    ports = {**plugged, **{port: "" for port in _mapped(board_map) if port not in plugged}}
    for port, bridge in ports.items():
        yield _port(port, bridge, _mapped(board_map).get(port))
    if not ports:
        todo = "plug one in with a cable that carries data; to rehearse without: --board virtual"
        yield Check(BOARDS, "serial ports", State.MISSING, "no development board is plugged in", todo)


def _mapped(board_map: BoardMap) -> dict[str, str]:
    """The ports of the map's boards that are there, with their names."""
    entries = ((entry.port, entry.name) for entry in board_map.boards.values() if entry.port is not None)
    return {os.path.realpath(port): name for port, name in entries if "://" not in port and Path(port).exists()}


def _port(port: str, bridge: str, name: str | None) -> Check:
    """Whether this user may open a port that is there; it is not opened: that resets many a board."""
    called = f"{name}, {port}" if name else port
    what = bridge or "as the board map says"
    if os.access(port, os.R_OK | os.W_OK):
        todo = "" if name else f"quant board info --port {port}"
        return Check(BOARDS, called, State.OK, what, todo)
    says, todo = _refused(port)
    return Check(BOARDS, called, State.WARNING, f"{what}; {says}", todo)


def _refused(port: str) -> tuple[str, str]:
    """Why a port is not to be opened, and what to do."""
    import grp
    import pwd

    group = grp.getgrgid(Path(port).stat().st_gid)
    user = pwd.getpwuid(os.getuid()).pw_name
    if user in group.gr_mem and group.gr_gid not in os.getgroups():
        return f"you are in the group {group.gr_name} since after you logged in", "log out and in again"
    return f"only the group {group.gr_name} may open it", f"sudo usermod -a -G {group.gr_name} {user}, then log in anew"


def _idf(desk: Desk) -> Finding:
    from quant.boards.discovery import app_folder

    app = app_folder(desk.folder)
    wanted = _idf_wanted(app)
    place = os.environ.get("IDF_PATH")
    install = (
        f"git clone -b release/v{wanted} --recursive https://github.com/espressif/esp-idf, ./install.sh, . ./export.sh"
    )
    if not place:
        says = "not found (IDF_PATH is not set): only needed to build the app of a board"
        yield Check(BOARDS, "ESP-IDF", State.MISSING, says, f". PATH_OF_ESP_IDF/export.sh; or: {install}")
        return
    version = _idf_version(Path(place))
    if version is None:
        says, todo = f"no ESP-IDF in IDF_PATH, {place}", "set IDF_PATH: . PATH_OF_ESP_IDF/export.sh"
        yield Check(BOARDS, "ESP-IDF", State.MISSING, says, todo)
    elif not version.startswith(f"{wanted}."):
        yield Check(BOARDS, "ESP-IDF", State.WARNING, f"v{version}, the app is made for v{wanted}", install)
    elif shutil.which("idf.py") is None:
        says = f"v{version} in {place}, and idf.py is not on PATH"
        yield Check(BOARDS, "ESP-IDF", State.WARNING, says, f". {place}/export.sh")
    else:
        yield Check(BOARDS, "ESP-IDF", State.OK, f"v{version} in {place}")


def _idf_wanted(app: Path) -> str:
    """The release that the app's component manifest names, as ``5.5``."""
    text = (app / "main" / "idf_component.yml").read_text() if app.is_dir() else ""
    match = re.search(r'^\s*idf:\s*"?[~^=>]*([0-9]+\.[0-9]+)', text, re.MULTILINE)
    return match[1] if match else "5.5"


def _idf_version(place: Path) -> str | None:
    """Of ``tools/cmake/version.cmake``."""
    try:
        text = (place / "tools" / "cmake" / "version.cmake").read_text()
    except OSError:
        return None
    parts = dict(re.findall(r"set\(IDF_VERSION_(MAJOR|MINOR|PATCH) (\d+)\)", text))
    return ".".join(parts[name] for name in ("MAJOR", "MINOR", "PATCH")) if len(parts) == 3 else None


def _images(desk: Desk) -> Finding:
    from quant.boards.board_map import CHIPS
    from quant.boards.build import FLASH_FILES, build_folders, load_build
    from quant.boards.discovery import app_folder

    app = app_folder(desk.folder)
    if not app.is_dir():
        todo = "its source is esp_idf_app in the project's repository"
        yield Check(BOARDS, "app", State.MISSING, "no esp_idf_app here: only needed to build the app of a board", todo)
        return
    folders = dict.fromkeys(folder for name in (*CHIPS, "qemu") for folder in build_folders((name,), app))
    for folder in (folder for folder in folders if (folder / FLASH_FILES).is_file()):
        name = f"app, {folder.relative_to(app)}"
        try:
            build = load_build(folder)
        except QuantError as error:
            todo = f"idf.py -C {app} -B {folder} build"
            yield Check(BOARDS, name, State.WARNING, f"not whole: {error.what}", todo)
        else:
            yield Check(BOARDS, name, State.OK, f"built for {'QEMU, ' if build.emulated else ''}{build.chip}")
    if not any((folder / FLASH_FILES).is_file() for folder in folders):
        todo = f"idf.py -C {app} set-target esp32 build"
        yield Check(BOARDS, "app", State.MISSING, "not built: a chip that runs it already does not need that", todo)


def _qemu(_: Desk) -> Finding:
    from quant.boards.qemu import MACHINES

    programs = {machine.program: machine.package for machine in MACHINES.values()}
    found = [program for program in programs if shutil.which(program)]
    if found:
        yield Check(BOARDS, "QEMU", State.OK, ", ".join(found))
    else:
        todo = f"python $IDF_PATH/tools/idf_tools.py install {' '.join(programs.values())}, then . $IDF_PATH/export.sh"
        yield Check(BOARDS, "QEMU", State.MISSING, "not found: only needed for --board qemu", todo)


# -- extras ------------------------------------------------------------------------------------------------------------


def _extras(desk: Desk) -> Finding:
    extras = _declared(desk).extras
    for extra in extras:
        lacking = list(dict.fromkeys(one.name for one in _members(extra, extras) if _unfit(one) is not None))
        purpose = EXTRAS.get(extra, "")
        if lacking:
            says = f"{purpose}; lacks {_some(lacking)}"
            yield Check("extras", extra, State.MISSING, says, desk.pip(extra))
        else:
            yield Check("extras", extra, State.OK, purpose)


def _members(extra: str, extras: Mapping[str, tuple[Requirement, ...]]) -> Iterator[Requirement]:
    """The packages of an extra, those of the extras it takes in among them."""
    for one in extras[extra]:
        if one.name == DISTRIBUTION:
            for other in sorted(one.extras):
                yield from _members(other, extras)
        else:
            yield one


# -- self-tests --------------------------------------------------------------------------------------------------------

DEEP = {
    "TensorFlow": "from quant.native import import_tensorflow; import_tensorflow()",
    "float policy": "from quant.runs import selftest; selftest.float_policy()",
    "TFLite-Micro": "from quant.runs import selftest; selftest.engines()",
    "virtual board": "from quant.runs import selftest; selftest.virtual_board()",
}
"""What is tried, each in a Python of its own: a crash of native code ends that and not the doctor."""


def _tried(desk: Desk, name: str, code: str) -> Check:
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            [desk.python, "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DEEP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Check("self-test", name, State.MISSING, f"no end within {DEEP_SECONDS:g} s", desk.pip(), needed=True)
    except OSError as error:
        return Check("self-test", name, State.MISSING, f"{desk.python}: {error.strerror}", desk.pip(), needed=True)
    if done.returncode == 0:
        return Check("self-test", name, State.OK, f"works, {time.perf_counter() - begin:.1f} s", needed=True)
    said = done.stderr.strip().splitlines()
    words = said[-1] if said and done.returncode > 0 else f"ended by signal {-done.returncode}"
    return Check("self-test", name, State.MISSING, words, desk.pip(), needed=True)


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


EXAMINATIONS = (
    _Examination(MAIN, "Python", _python, needed=True),
    _Examination(MAIN, "packages", _packages, needed=True),
    _Examination(MAIN, "TensorFlow", _tensorflow),
    _Examination(MAIN, "native module", _native, needed=True),
    _Examination(MAIN, "C++ compiler", _compiler),
    _Examination(MAIN, "processors", _processors),
    _Examination(MAIN, "disk", _disk, needed=True),
    _Examination(PROJECT, "limits", _limits, needed=True),
    _Examination(PROJECT, "runs", _runs),
    _Examination(PROJECT, "baseline", _baseline),
    _Examination(BOARDS, "board map", _board_map),
    _Examination(BOARDS, "serial ports", _ports),
    _Examination(BOARDS, "app", _images),
    _Examination(BOARDS, "ESP-IDF", _idf),
    _Examination(BOARDS, "QEMU", _qemu),
    _Examination("extras", "extras", _extras),
)
"""In the order in which they are told."""
