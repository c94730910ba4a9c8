"""Run folders: claimed only where nothing of anybody else's lies, finished only with a manifest that holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import quant.runs.manifest
from quant import files
from quant.acceptance.limits import Limits
from quant.errors import InputError, QuantError, StaleError
from quant.runs.folder import LOCK, MANIFEST, SETTINGS, changing, claim, unfinish
from quant.runs.manifest import (
    PACKAGES,
    _package_commit,
    check_manifest,
    project_commit,
    recorded_seconds,
    write_manifest,
)
from quant.runs.pages import report
from quant.runs.settings import Settings, read_settings
from quant.runs.settings import write_settings as write
from quant.runs.steps import decide, make_track

SETTINGS_OF_A_RUN = Settings(
    "policy.zip", ("a.npz", "b.npz"), "mine:Env-v0", {"n": 3}, 7, {"nominal": 10, "lossy": 0}, 50, ("ptq", "qat")
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run."""
    run = tmp_path / "run"
    claim(run)
    write(SETTINGS_OF_A_RUN, run)
    files.write_text(run / "deep" / "er" / "artifact.txt", "content")
    write_manifest(run, {"import": 1.23456})
    return run


def refused(kind: type[QuantError], action: Any, *arguments: Any) -> QuantError:
    with pytest.raises(kind) as caught:
        action(*arguments)
    assert caught.value.exit_code == 2
    return caught.value


def test_settings_round_trip(folder: Path) -> None:
    assert read_settings(folder) == SETTINGS_OF_A_RUN
    write(Settings("p.zip"), folder)
    assert read_settings(folder) == Settings("p.zip")


def test_a_folder_without_settings_is_no_run(tmp_path: Path) -> None:
    error = refused(InputError, read_settings, tmp_path)
    assert "quant import" in str(error.hint)
    refused(InputError, read_settings, tmp_path / "missing")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 2}', '{"schema_version": 1}'])
def test_garbled_settings_are_refused(folder: Path, text: str) -> None:
    (folder / SETTINGS).write_text(text)
    assert str(refused(InputError, read_settings, folder).where) == str(folder / SETTINGS)


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("checkpoint", 3),
        ("drives", "a.npz"),
        ("drives", [1]),
        ("drives", None),
        ("world", 1),
        ("world_kwargs", [1]),
        ("seed", "0"),
        ("seed", -1),
        ("seed", True),
        ("seed", 0.5),
        ("episodes", [1]),
        ("episodes", {"nominal": "many"}),
        ("qat_steps", "100"),
        ("qat_steps", 0),
        ("tracks", "ptq"),
        ("tracks", [["ptq"]]),
        ("training_seed", -1),
        ("training_seed", "1"),
        ("given", []),
        ("given", {"max_peers": "3"}),
        ("given", {"bias": 1}),
        ("unknown", 1),
    ],
)
def test_a_setting_of_the_wrong_type_is_named(folder: Path, key: str, bad: Any) -> None:
    value = json.loads((folder / SETTINGS).read_bytes()) | {key: bad}
    (folder / SETTINGS).write_text(json.dumps(value))
    error = refused(InputError, read_settings, folder)
    assert str(error.where) == str(folder / SETTINGS)
    if bad is not None:
        assert key in error.what


def test_a_new_an_empty_and_a_runs_own_folder_can_be_claimed(tmp_path: Path, folder: Path) -> None:
    claim(tmp_path / "new" / "deeper")
    assert (tmp_path / "new" / "deeper").is_dir()
    claim(tmp_path / "new" / "deeper")
    assert (folder / MANIFEST).is_file()
    claim(folder)
    assert not (folder / MANIFEST).exists() and (folder / SETTINGS).is_file()


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    refused(InputError, claim, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_and_a_path_below_a_file_cannot_be_claimed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        assert "--out" in str(refused(InputError, claim, path).hint)
    assert (tmp_path / "file").read_text() == "precious"


def test_the_manifest_lists_every_file_with_size_and_hash(folder: Path) -> None:
    (folder / ".hidden").write_text("editor's swap file")
    write_manifest(folder, {"import": 1.23456})
    manifest = check_manifest(folder)
    assert set(manifest["files"]) == {SETTINGS, "deep/er/artifact.txt"}
    entry = manifest["files"]["deep/er/artifact.txt"]
    assert entry == {"bytes": 7, "sha256": files.sha256(b"content")}
    assert manifest["seconds"] == {"import": 1.23}
    assert {"quant", "python", *PACKAGES} <= set(manifest["versions"])
    assert manifest["versions"]["numpy"] == np.__version__
    assert set(manifest["host"]) == {"system", "machine", "node"}
    assert "git_commit" in manifest


def test_without_a_manifest_a_run_is_not_finished(folder: Path) -> None:
    unfinish(folder)
    assert "not finished" in refused(InputError, check_manifest, folder).what
    unfinish(folder)


@pytest.mark.parametrize("damage", ["change", "remove", "folder"])
def test_a_file_that_changed_since_is_stale_and_named(folder: Path, damage: str) -> None:
    path = folder / "deep" / "er" / "artifact.txt"
    if damage == "change":
        path.write_text("Content")
    else:
        path.unlink()
    if damage == "folder":
        path.mkdir()
    assert str(refused(StaleError, check_manifest, folder).where) == str(path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"files": []}', '{"files": {"a": {}}}', '{"files": {"a": 1}}'])
def test_a_garbled_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    assert str(refused(InputError, check_manifest, folder).where) == str(folder / MANIFEST)


def test_a_manifest_is_equal_for_equal_runs(folder: Path) -> None:
    first = (folder / MANIFEST).read_bytes()
    write_manifest(folder, {"import": 1.23456})
    assert (folder / MANIFEST).read_bytes() == first


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"seconds": 3}', '{"seconds": {"ptq": "long"}}'])
def test_the_wall_times_of_a_manifest_are_read_back_and_of_a_damaged_one_none(folder: Path, text: str) -> None:
    assert recorded_seconds(folder) == {"import": 1.23}
    (folder / MANIFEST).write_text(text)
    assert recorded_seconds(folder) == {}
    unfinish(folder)
    assert recorded_seconds(folder) == {}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "artifact"
    files.write_bytes(path, b"old")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_no_reader_sees_a_part_of_a_file(tmp_path: Path) -> None:
    path, seen = tmp_path / "artifact", set()
    contents = [bytes([value]) * 200_000 for value in (1, 2)]
    files.write_bytes(path, contents[0])
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(200):
        files.write_bytes(path, contents[turn % 2])
    stop.set()
    reader.join()
    assert seen <= set(contents)


def test_an_artifact_is_as_readable_as_the_umask_says(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys; os.umask(0o027)\n"
        "from quant.files import write_bytes; write_bytes(pathlib.Path(sys.argv[1]), b'')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "artifact")], check=True)
    assert (tmp_path / "artifact").stat().st_mode & 0o777 == 0o640


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=json_values)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_json_round_trip(tmp_path: Path, value: Any) -> None:
    try:
        files.write_json(tmp_path / "a.json", value)
    except UnicodeEncodeError:  # a lone surrogate is no text
        return
    assert files.read_json(tmp_path / "a.json") == value
    assert (tmp_path / "a.json").read_bytes().endswith(b"\n")


def test_json_has_no_numbers_that_json_has_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"mae": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "a").chmod(0)
    assert "cannot be read" in refused(InputError, files.read_bytes, tmp_path / "a").what


def test_missing_files_and_folders_are_input_errors(tmp_path: Path) -> None:
    assert refused(InputError, files.read_bytes, tmp_path / "a").what == "no such file"
    assert "cannot be read" in refused(InputError, files.read_bytes, tmp_path).what
    for content in (b"\xff{", b"[" * 100_000, b"1" * 10_000):
        (tmp_path / "b").write_bytes(content)
        assert "JSON" in refused(InputError, files.read_json, tmp_path / "b").what


def test_settings_are_plain_json(folder: Path) -> None:
    assert json.loads((folder / SETTINGS).read_bytes()) == {
        "schema_version": 1,
        **json.loads(json.dumps(asdict(SETTINGS_OF_A_RUN))),
    }


def test_what_was_said_of_the_policy_and_the_training_seed_are_kept(folder: Path) -> None:
    given = {"head": "head.keras", "pooling": "sum", "action_space": "box:0,1", "max_peers": 3}
    settings = replace(SETTINGS_OF_A_RUN, training_seed=4, given=given)
    write(settings, folder)
    assert read_settings(folder) == settings


def test_settings_of_before_there_were_these_keys_are_read(folder: Path) -> None:
    value = json.loads((folder / SETTINGS).read_bytes())
    del value["training_seed"], value["given"]
    (folder / SETTINGS).write_text(json.dumps(value))
    assert read_settings(folder) == SETTINGS_OF_A_RUN


CHANGER = """
import sys, time
from pathlib import Path
from quant.runs.folder import changing
with changing(Path(sys.argv[1])):
    print("changing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def changer(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that changes the run."""
    process = subprocess.Popen([sys.executable, "-c", CHANGER, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"changing\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_run_is_changed_by_one_process_at_a_time(folder: Path, changer: subprocess.Popen[bytes]) -> None:
    manifest = (folder / MANIFEST).read_bytes()
    changes = (
        lambda run: make_track(run, "ptq"),
        claim,
        lambda run: decide(run, Limits()),
        report,
    )
    for step in changes:
        error = refused(InputError, step, folder)
        assert f"process {changer.pid} (" in error.what and str(error.where) == str(folder)
    assert (folder / MANIFEST).read_bytes() == manifest
    assert check_manifest(folder)["files"].keys() == {SETTINGS, "deep/er/artifact.txt"}


def test_a_process_that_is_killed_leaves_no_lock(folder: Path, changer: subprocess.Popen[bytes]) -> None:
    changer.kill()
    changer.wait()
    assert (folder / LOCK).is_file()
    with changing(folder):
        write_manifest(folder, {})
    assert check_manifest(folder)["files"].keys() == {SETTINGS, "deep/er/artifact.txt"}
    assert not (folder / LOCK).exists()


def test_a_lock_left_behind_does_not_make_a_folder_foreign(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("{")
    claim(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_who_changes_a_run_may_go_on_and_another_thread_may_not(folder: Path) -> None:
    errors = []

    def other() -> None:
        try:
            with changing(folder):
                errors.append("took it as well")
        except InputError as error:
            errors.append(error.what)

    with changing(folder), changing(folder / "deep" / ".."):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(errors) == 1 and f"process {os.getpid()} (" in errors[0]
    with changing(folder):
        pass


def test_a_lock_that_is_removed_and_taken_all_the_time_has_one_owner(folder: Path) -> None:
    """Removing the file on release must not let in one who opened it before, beside one who makes it anew."""
    inside, most = [0], [0]

    def work() -> None:
        taken = 0
        while taken < 200:
            try:
                with changing(folder):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    time.sleep(0)
                    inside[0] -= 1
                    taken += 1
            except InputError:
                time.sleep(0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1 and not (folder / LOCK).exists()


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.c")
    return subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_the_commit_is_that_of_the_project_worked_in(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    git(project, "init", "-q")
    (project / "train.py").write_text("x = 1\n")
    git(project, "add", "train.py")
    git(project, "commit", "-q", "-m", "x")
    head = git(project, "rev-parse", "HEAD").strip()
    monkeypatch.chdir(project)
    write_manifest(folder, {})
    manifest = check_manifest(folder)
    assert manifest["git_commit"] == head and manifest["quant_commit"] != head
    (project / "train.py").write_text("x = 2\n")
    assert project_commit() == f"{head}+changes"
    monkeypatch.chdir("/")
    assert project_commit() is None


def test_a_copy_of_the_package_in_somebodys_checkout_has_no_commit_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a project's own .venv: the package lies in a checkout that does not hold it."""
    copy = tmp_path / ".venv" / "quant" / "runs" / "manifest.py"
    copy.parent.mkdir(parents=True)
    copy.write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "x")
    monkeypatch.setattr(quant.runs.manifest, "__file__", str(copy))
    assert _package_commit() is None
    git(tmp_path, "add", "--force", str(copy))
    git(tmp_path, "commit", "-q", "-m", "the package's own checkout")
    assert _package_commit() == git(tmp_path, "rev-parse", "HEAD").strip()
