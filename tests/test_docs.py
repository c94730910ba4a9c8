"""The documents say what the code says, wherever that can be checked."""

from __future__ import annotations

import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from quant.acceptance.assessment import CRITERIA
from quant.acceptance.limits import Limits
from quant.boards.board_map import CHIPS, load_board_map
from quant.boards.kinds import KINDS
from quant.evaluation.stress.found import GROUPS
from quant.observation.findings import NAMES as FINDINGS
from quant.tracks.registry import TRACKS
from quant.wire.codec import MAX_SEGMENT, encode_frame
from quant.wire.messages import DecideReply, DecideRequest, ErrorReply, HelloRequest, InvokeRequest
from quant.wire.protocol import (
    ERROR,
    ERROR_WORDS,
    MAX_EGO,
    MAX_EMBEDDING,
    MAX_FEATURES,
    MAX_OUTPUTS,
    MAX_PAYLOAD,
    MAX_PEERS,
    MAX_REPEATS,
    MAX_SLOTS,
    NO_ACTION,
    PACK_SLOT_SIZE,
    PACK_WORDS,
    REPLY,
    ActionCode,
    Capability,
    ErrorCode,
    EvidenceCode,
    FaultKind,
    Message,
    PackStatus,
    PartCode,
    PoolingCode,
    Stage,
)
from quant.worlds.registry import WORLDS

ROOT = Path(__file__).parents[1]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = sorted([ROOT / "README.md", CONTRIBUTING, *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.y*ml"))
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
ENUMS: tuple[type[Enum], ...] = (
    Message,
    ErrorCode,
    PackStatus,
    EvidenceCode,
    Capability,
    Stage,
    FaultKind,
    PartCode,
    PoolingCode,
    ActionCode,
)


@pytest.fixture(scope="module")
def reference() -> str:
    return (ROOT / "docs" / "protocol.md").read_text("utf-8")


@pytest.mark.parametrize("member", [member for enum in ENUMS for member in enum], ids=str)
def test_the_protocol_reference_names_every_code_with_its_number(reference: str, member: Any) -> None:
    number = member.value
    given = rf"`{member.name}`(?: \||:)?\s\(?(?:{number}\b|{number:#04x}\b)"
    assert re.search(given, reference), f"docs/protocol.md does not give {member!r} as {number}"


def test_the_protocol_reference_has_a_chapter_on_every_message(reference: str) -> None:
    chapters = "".join(re.findall(r"^### .+$", reference, re.MULTILINE))
    assert [message.name for message in Message if f"`{message.name}`" not in chapters] == []


@pytest.mark.parametrize(("code", "words"), [*ERROR_WORDS.items(), *PACK_WORDS.items()], ids=str)
def test_the_protocol_reference_has_the_words_of_every_refusal(reference: str, code: Enum, words: str) -> None:
    assert re.search(rf"^\| `{code.name}` \| {code.value} \| {re.escape(words)} \|", reference, re.MULTILINE)


@pytest.mark.parametrize(
    "sentence",
    [
        f"bytes of payload, 0 to {MAX_PAYLOAD}",
        f"has {MAX_SEGMENT + 2}\nbytes with its two zeros",
        f"than the {MAX_SEGMENT} of the longest frame",
        f"slots, 1 to {MAX_SLOTS} |",
        f"a record of {PACK_SLOT_SIZE} bytes",
        f"max_peers (1 to {MAX_PEERS})",
        f"F (1 to {MAX_FEATURES}), E (0 to {MAX_EGO}), D (1 to {MAX_EMBEDDING}), A (1 to {MAX_OUTPUTS})",
        f"repeats u16 (1 to {MAX_REPEATS})",
        f"{NO_ACTION} where actions are continuous",
    ],
)
def test_the_protocol_reference_gives_the_limits(reference: str, sentence: str) -> None:
    assert re.sub(r"\s+", " ", sentence) in re.sub(r"\s+", " ", reference)


def test_the_example_of_the_protocol_reference_is_what_the_code_sends(reference: str) -> None:
    ask = DecideRequest(
        0, np.array([0.5], np.float32), np.array([[1, -2], [0, 0]], np.float32), np.array([True, False])
    )
    answer = DecideReply(0, 1, NO_ACTION, np.array([0.25], np.float32), (300, 1800, 12, 14000, 60, 16172))
    invoke = InvokeRequest(7, PartCode.PEER_ENCODER, bytes([128, 127]))
    refusal = ErrorReply(ErrorCode.UNKNOWN_SLOT, Message.INVOKE, ERROR_WORDS[ErrorCode.UNKNOWN_SLOT])
    sent = [
        encode_frame(Message.HELLO, 1, HelloRequest().encode()),
        encode_frame(Message.DECIDE, 2, ask.encode()),
        encode_frame(Message.DECIDE | REPLY, 2, answer.encode()),
        encode_frame(Message.INVOKE, 3, invoke.encode()),
        encode_frame(ERROR, 3, refusal.encode()),
    ]
    frames, request, reply = (list(_hex(block)) for block in _blocks(reference.split("## An example")[1]))
    assert b"".join(frames) == b"".join(sent)
    assert b"".join(request) == ask.encode()
    assert b"".join(reply) == answer.encode()


def _blocks(text: str) -> list[str]:
    """The indented blocks of a page."""
    return re.findall(r"(?:^ {4}.*\n?)+", text, re.MULTILINE)


def _hex(block: str) -> Iterator[bytes]:
    """The bytes of each line: two-digit words, with one space or two between them."""
    for line in block.splitlines():
        digits = re.search(r"(?:(?<= )[0-9a-f]{2}(?: {1,2}|$))+", line)
        if digits:
            yield bytes.fromhex(digits[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in _anchors(target), f"{page.name}: {link}"


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_every_decision_record_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text("utf-8"))
    assert listed == sorted(path.name for path in folder.glob("0*.md"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_example_board_maps_are_board_maps(path: Path) -> None:
    boards = load_board_map(path).boards
    assert boards
    documented = {key for entry in boards.values() for key, value in vars(entry).items() if value}
    assert documented >= {"chip", "mac", "port", "power_cycle"}


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text("utf-8"))
    return loaded


def _commands(job: dict[str, Any]) -> list[list[str]]:
    """The commands of a job, as words."""
    scripts = [step["run"] for step in job["steps"] if "run" in step]
    lines = "\n".join(scripts).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def test_the_workflow_calls_what_the_makefile_has(workflow: dict[str, Any]) -> None:
    called = {
        word
        for job in workflow["jobs"].values()
        for command in _commands(job)
        if command[0] == "make"
        for word in command[1:]
        if "=" not in word
    }
    assert {"setup", "lint", "test"} <= called <= _targets()


def _targets() -> set[str]:
    """What the Makefile makes."""
    return set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def test_the_workflow_gives_pytest_options_it_has(workflow: dict[str, Any], pytestconfig: pytest.Config) -> None:
    given = {
        word.partition("=")[0]
        for job in workflow["jobs"].values()
        for command in _commands(job)
        if Path(command[0]).name == "pytest"
        for word in command[1:]
        if word.startswith("--")
    }
    assert {"--run", "--board"} <= given
    assert given <= _options(pytestconfig)


def _options(config: pytest.Config) -> set[str]:
    """The options pytest has here."""
    return {option for group in _groups(config) for one in group.options for option in one.names()}


def _groups(config: pytest.Config) -> list[Any]:
    parser = config._parser  # pytest tells its options nowhere else
    return [parser._anonymous, *parser._groups]


def test_the_bench_of_the_workflow_waits_to_be_asked(workflow: dict[str, Any]) -> None:
    # YAML 1.1 reads the key `on` as true.
    assert {"push", "pull_request", "workflow_dispatch", "schedule"} == set(workflow[True])  # type: ignore[index]
    bench = workflow["jobs"]["bench"]
    assert "self-hosted" in bench["runs-on"]
    assert "workflow_dispatch" in bench["if"] and "schedule" in bench["if"]
    assert "push" not in bench["if"]


def _sources() -> str:
    files = [*(ROOT / "quant").rglob("*.py"), *(ROOT / "esp_idf_app").rglob("*.[ch]pp")]
    return "\n".join(file.read_text("utf-8") for file in files)


def test_the_trouble_list_quotes_what_is_said() -> None:
    headings = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "troubles.md").read_text("utf-8"), re.MULTILINE)
    sources = _sources()
    assert len(headings) > 15
    assert [heading for heading in headings if heading not in sources] == []


def test_the_bench_page_says_what_every_file_of_device_tests_shows() -> None:
    page = (ROOT / "docs" / "bench.md").read_text("utf-8")
    told = re.findall(r"^\| `(test_\w+\.py)` \| \w", page, re.MULTILINE)
    assert sorted(told) == sorted(path.name for path in (ROOT / "tests" / "hil").glob("test_*.py"))


def _first_cells(page: str, header: str) -> list[str]:
    """What the first column of a page's table names, where the table's first heading is ``header``."""
    _, _, table = (ROOT / page).read_text("utf-8").partition(f"| {header} |")
    rows = itertools.takewhile(lambda line: line.startswith("|"), table.splitlines()[1:])
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_the_page_of_tracks_has_a_row_for_each_in_their_order() -> None:
    assert _first_cells("docs/tracks.md", "track") == list(TRACKS)


def test_the_page_of_boards_has_a_row_for_each_with_its_evidence() -> None:
    page = (ROOT / "docs" / "boards.md").read_text("utf-8")
    assert _first_cells("docs/boards.md", "`--board`") == [*KINDS, *CHIPS]
    for kind in KINDS.values():
        assert re.search(rf"^\| `{kind.name}` \| [^|]+ \| `{kind.evidence.name.lower()}` \|", page, re.MULTILINE)


def test_the_page_of_acceptance_has_every_criterion_and_every_limit_with_its_default() -> None:
    assert CRITERIA.keys() <= {name.partition("[")[0] for name in _first_cells("docs/acceptance.md", "criterion")}
    page = (ROOT / "docs" / "acceptance.md").read_text("utf-8")
    for name, default in Limits().to_json().items():
        if isinstance(default, bool):
            assert f"`{name}`" in page or f"`{name} = true`" in page, name
        elif isinstance(default, str):
            assert f'`{name}` ("{default}"' in page
        else:
            assert default in map(float, re.findall(rf"`{name}` \(?([\d.]*\d)", page)), name


def test_the_page_of_observations_has_a_row_for_each_finding() -> None:
    assert sorted(_first_cells("docs/observation.md", "`--allow`")) == sorted(FINDINGS)


def test_the_page_of_stress_has_a_row_for_each_group_of_frames() -> None:
    assert sorted(_first_cells("docs/stress.md", "group")) == sorted(GROUPS)


def test_the_page_of_worlds_names_each_of_our_own() -> None:
    page = (ROOT / "docs" / "world.md").read_text("utf-8")
    assert [name for name in WORLDS if not re.search(rf"^# .*\b{name}\b|^## `{name}`", page, re.MULTILINE)] == []


def test_pages_the_code_names_exist() -> None:
    named = set(re.findall(r"\bdocs/[\w/-]+\.md\b", _sources()))
    assert "docs/protocol.md" in named
    assert {page for page in named if not (ROOT / page).is_file()} == set()


def test_settings_the_pages_name_exist() -> None:
    pages = "\n".join(page.read_text("utf-8") for page in PAGES)
    kconfig = (ROOT / "esp_idf_app" / "main" / "Kconfig.projbuild").read_text("utf-8")
    settings = set(re.findall(r"CONFIG_(QUANT_\w+)", pages))
    assert settings
    assert settings <= set(re.findall(r"^\s*config (\w+)", kconfig, re.MULTILINE))


def test_variables_the_pages_name_are_read() -> None:
    pages = "\n".join(page.read_text("utf-8") for page in PAGES)
    variables = set(re.findall(r"(?<![\w.])QUANT_[A-Z_]+", pages))
    cmake = "\n".join(file.read_text("utf-8") for file in (ROOT / "esp_idf_app").rglob("*.cmake"))
    assert "QUANT_BOARD_MAP" in variables
    assert {name for name in variables if f'"{name}"' not in _sources() and f"set({name} " not in cmake} == set()


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_the_readme_lists_the_rooms_in_the_order_of_the_contract(project: dict[str, Any]) -> None:
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    assert _first_cells("README.md", "`quant/`") == layers[::-1]


COMMANDS = re.findall(
    r"(?:(?<=^ {4})|(?<=`))(?:make |\.venv/bin/|\.ci/)[^`#\n]*", CONTRIBUTING.read_text("utf-8"), re.MULTILINE
)


@pytest.mark.parametrize("command", sorted({command.strip() for command in COMMANDS}))
def test_commands_of_contributing_are_there(command: str, project: dict[str, Any], pytestconfig: pytest.Config) -> None:
    program, *words = shlex.split(command)
    if program == "make":
        assert set(words) <= _targets()
        return
    if not program.startswith(".venv/bin/"):
        assert (ROOT / program).is_file()
        return
    tools = {re.split(r"\W", one.replace("-", "_"))[0] for one in project["project"]["optional-dependencies"]["dev"]}
    name = program.removeprefix(".venv/bin/")
    assert name in {"python", "pytest"} or name.replace("-", "_") in tools
    if words[:1] == ["-m"] and name == "python":
        assert find_spec(words[1])
    elif name == "python":
        assert (ROOT / words[0]).is_file()
    elif name == "pytest":
        assert {word for word in words if word.startswith("--")} <= _options(pytestconfig)
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))


def test_files_of_contributing_are_there_and_new_ones_have_their_folder() -> None:
    named = re.findall(r"`([\w./-]+(?:/[\w.-]+|\.\w+))`", CONTRIBUTING.read_text("utf-8"))
    paths = {name for name in named if not name.startswith((".venv/", ".ci/"))}
    assert len(paths) > 25
    missing = {
        name
        for name in paths
        if not ((ROOT / name).parent.is_dir() if "NAME" in name else (ROOT / name).exists() or _of_the_device(name))
    }
    assert missing == set()


def _of_the_device(name: str) -> bool:
    """Whether a file of the app is called so, wherever it lies."""
    return "/" not in name and any((ROOT / "esp_idf_app").rglob(name))


def test_names_of_contributing_are_those_of_the_code() -> None:
    text = "\n".join([_sources(), *(file.read_text("utf-8") for file in (ROOT / "tests").rglob("*.py"))])
    named = set(re.findall(r"`([A-Za-z_]\w*)(?:\([^`]*\))?(?:\[[^`]*)?`", CONTRIBUTING.read_text("utf-8"))) - {"NAME"}
    assert {"TRACKS", "Bench", "check_repeatable"} <= named
    assert {name for name in named if not re.search(rf"\b{name}\b", text)} == set()
