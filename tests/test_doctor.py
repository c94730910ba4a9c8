"""`quant doctor` on healthy and on broken desks: it never fails, and says the thing to do."""

from __future__ import annotations

import grp
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quant.boards.ports import Plugged
from quant.commands import diagnosis
from quant.commands.diagnosis import Check, Desk, Diagnosis, State, examine
from quant.policy import Observations
from quant.runners import Int8Runner
from quant.runs import selftest
from quant.runs.selftest import SelfTestError, engines, float_policy, virtual_board
from quant.tracks.candidate import Codes, Part
from quant.worlds.reference import golden_path
from tests.commandline import quant
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[1]
PORT = "boards-port"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, where the user is; nothing plugged in, no ESP-IDF, no board map elsewhere."""
    monkeypatch.chdir(tmp_path)
    for name in ("QUANT_BOARD_MAP", "IDF_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    plug(monkeypatch)
    return tmp_path


def plug(monkeypatch: pytest.MonkeyPatch, *ports: str) -> None:
    found = tuple(Plugged(port, "Silicon Labs CP210x", "a bridge", "") for port in ports)
    monkeypatch.setattr("quant.boards.ports.plugged_in", lambda: found)


def finding(diagnosis: Diagnosis, name: str) -> Check:
    (found,) = (check for check in diagnosis.checks if check.name == name)
    return found


def versions(monkeypatch: pytest.MonkeyPatch, **faked: str | None) -> None:
    """Fakes what is installed; None: not at all."""
    true = metadata.version

    def version(name: str) -> str:
        if name not in faked:
            return true(name)
        if (found := faked[name]) is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)


@pytest.mark.usefixtures("desk")
def test_a_desk_on_which_the_tests_run_can_quantize() -> None:
    done = quant("doctor")
    assert done.code == 0, done.out
    assert "quant run will work here." in done.out
    for topic in ("quant run", "project", "boards", "extras"):
        assert f"\n{topic}\n" in f"\n{done.out}"


def test_every_finding_that_is_not_ok_says_what_to_do(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (desk / "boards.yaml").write_text("boards: {lorry: {port: /dev/not-there}}")
    versions(monkeypatch, numpy="1.0", scipy=None)
    found = [check for check in examine().checks if check.state is not State.OK]
    assert {"lorry", "numpy", "scipy", "runs", "QEMU"} <= {check.name for check in found}
    assert [check.name for check in found if not check.todo] == []


def test_a_missing_package_is_named_and_ends_with_1(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, scipy=None)
    done = quant("doctor")
    assert done.code == 1
    assert "missing   scipy: not installed" in done.out and "pip install 'scipy>=1.15'" in done.out
    assert done.out.endswith("quant run will not work here before this is mended: scipy\n")
    assert json.loads(quant("doctor", "--json").out)["able"] is False


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize(
    ("package", "version", "state", "words"),
    [
        ("numpy", "2.4.5", State.WARNING, "2.4.5, not ==2.4.6: models and verdicts may come out in other bytes"),
        ("rich", "9.0", State.MISSING, "9.0, not >=13: too old"),
    ],
)
def test_another_version_than_the_declared_one(
    monkeypatch: pytest.MonkeyPatch, package: str, version: str, state: State, words: str
) -> None:
    versions(monkeypatch, **{package: version})
    diagnosis = examine()
    found = finding(diagnosis, package)
    assert (found.state, found.says) == (state, words)
    assert bool(diagnosis.lacking) is (state is State.MISSING)


def test_a_project_without_a_checkout_is_known_by_its_metadata(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, scipy=None)
    diagnosis = examine(Desk(desk, checkout=None))
    assert [check.name for check in diagnosis.lacking] == ["scipy"]
    assert "pip install 'quant[train]'" in finding(diagnosis, "train").todo or (
        finding(diagnosis, "train").state is State.OK
    )


def test_every_extra_has_words_for_what_it_is_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert diagnosis.EXTRAS.keys() >= project["optional-dependencies"].keys()


def test_an_extra_is_missing_with_the_packages_it_lacks(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, esptool=None, cmake=None)
    diagnosis = examine()
    assert finding(diagnosis, "bench").says.endswith("lacks esptool")
    # An extra that takes another one in lacks what that lacks.
    for extra in ("test", "dev"):
        assert finding(diagnosis, extra).says.endswith("lacks esptool, cmake")
    assert ".[bench]" in finding(diagnosis, "bench").todo
    assert not diagnosis.lacking


def broken_map(desk: Path) -> None:
    (desk / "boards.yaml").write_text("boards:\n  lorry:\n    chip: toaster\n")


def garbled_map(desk: Path) -> None:
    (desk / "boards.yaml").write_bytes(b"\xff\xfe{")


def garbled_baseline(desk: Path) -> None:
    (desk / "baseline.json").write_text("{")


def no_baseline_but_a_folder(desk: Path) -> None:
    (desk / "baseline.json").mkdir()


def wrong_limits(desk: Path) -> None:
    (desk / "pyproject.toml").write_text("[tool.quant.acceptance]\nlatency = 3\n")


@pytest.mark.parametrize(
    ("breaks", "name", "state", "words"),
    [
        (broken_map, "board map", State.WARNING, ("boards.yaml:3", "toaster", "esp32s3")),
        (garbled_map, "board map", State.WARNING, ("boards.yaml",)),
        (garbled_baseline, "baseline", State.WARNING, ("baseline.json", "not valid JSON")),
        (no_baseline_but_a_folder, "baseline", State.WARNING, ("baseline.json", "Is a directory")),
        (wrong_limits, "limits", State.MISSING, ("pyproject.toml", "'latency'", "latency_ms")),
    ],
)
def test_a_broken_file_is_a_finding_and_the_others_are_still_told(
    desk: Path, breaks: Callable[[Path], None], name: str, state: State, words: tuple[str, ...]
) -> None:
    before = {check.name for check in examine().checks}
    breaks(desk)
    diagnosis = examine()
    found = finding(diagnosis, name)
    assert found.state is state
    for word in words:
        assert word in f"{found.says} {found.todo}"
    assert before <= {check.name for check in diagnosis.checks}
    assert bool(diagnosis.lacking) is (name == "limits")


@pytest.mark.usefixtures("desk")
def test_a_folder_that_is_gone_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    done = quant("doctor")
    assert (done.code, done.out) == (2, "")
    assert "the current folder: is gone" in done.err and "cd to" in done.err


def test_a_check_that_fails_itself_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> Any:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(shutil, "disk_usage", fails)
    found = finding(examine(), "disk")
    assert found.state is State.MISSING and "RuntimeError: the disk is on fire" in found.says


@pytest.mark.usefixtures("desk")
def test_a_full_disk_is_no_place_for_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, diagnosis.LEAST_BYTES - 1))
    assert [check.name for check in examine().lacking] == ["disk"]


def forbid(monkeypatch: pytest.MonkeyPatch, port: Path) -> None:
    """This user may not open the port; who runs the tests may be root, for whom no file mode says so."""
    true = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(port) and true(path, mode))


def test_a_port_without_permission_names_the_group_to_join(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = desk / PORT
    port.touch()
    plug(monkeypatch, str(port))
    assert finding(examine(), str(port)).state is State.OK
    forbid(monkeypatch, port)
    group = grp.struct_group(("dialout", "x", port.stat().st_gid, []))
    monkeypatch.setattr(grp, "getgrgid", lambda _: group)
    found = finding(examine(), str(port))
    assert found.state is State.WARNING and "dialout" in found.says
    assert found.todo.startswith("sudo usermod -a -G dialout ")


def test_who_joined_the_group_after_logging_in_has_to_log_in_again(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    port = desk / PORT
    port.touch()
    plug(monkeypatch, str(port))
    forbid(monkeypatch, port)
    user = pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(grp, "getgrgid", lambda _: grp.struct_group(("dialout", "x", 54321, [user])))
    assert finding(examine(), str(port)).todo == "log out and in again"


def test_a_port_that_the_board_map_knows_has_its_name(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = desk / PORT
    port.touch()
    plug(monkeypatch, str(port))
    (desk / "boards.yaml").write_text(f"boards: {{lorry: {{port: {port}}}, van: {{port: {desk}/gone}}}}")
    diagnosis = examine()
    assert finding(diagnosis, f"lorry, {port}").state is State.OK
    assert finding(diagnosis, "van").state is State.MISSING


def test_runs_are_counted_finished_and_not(desk: Path) -> None:
    for name, finished in (("runs/a", True), ("runs/b", False), ("c", True)):
        (desk / name).mkdir(parents=True)
        (desk / name / "settings.json").write_text("{}")
        if finished:
            (desk / name / "manifest.json").write_text("{}")
    (desk / "runs" / "notes").mkdir()
    told = {check.state: check for check in examine().checks if check.name == "runs"}
    assert told[State.OK].says == "2 finished: c, runs/a"
    assert told[State.WARNING].says == "1 unfinished: runs/b" and "--out runs/b" in told[State.WARNING].todo


@pytest.mark.parametrize(
    ("version", "on_path", "state"),
    [
        ((5, 5, 3), True, State.OK),
        ((5, 5, 3), False, State.WARNING),
        ((5, 1, 2), True, State.WARNING),
        ((5, 50, 0), True, State.WARNING),
        (None, True, State.MISSING),
    ],
)
def test_esp_idf_is_held_against_the_version_the_app_needs(
    desk: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int] | None, on_path: bool, state: State
) -> None:
    place = desk / "esp-idf"
    (place / "tools" / "cmake").mkdir(parents=True)
    if version is not None:
        lines = (f"set(IDF_VERSION_{n} {v})" for n, v in zip(("MAJOR", "MINOR", "PATCH"), version, strict=True))
        (place / "tools" / "cmake" / "version.cmake").write_text("\n".join(lines))
    if on_path:
        (place / "tools" / "idf.py").touch(0o755)
        monkeypatch.setenv("PATH", f"{place / 'tools'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IDF_PATH", str(place))
    found = finding(examine(), "ESP-IDF")
    assert found.state is state
    assert (version == (5, 1, 2)) is ("v5.1.2, the app is made for v5.5" in found.says)


def test_a_damaged_build_of_the_app_is_told(desk: Path) -> None:
    build = desk / "esp_idf_app" / "build" / "esp32"
    build.mkdir(parents=True)
    (build / "flasher_args.json").write_text("{}")
    found = finding(examine(), "app, build/esp32")
    assert found.state is State.WARNING and "idf.py" in found.todo


def test_a_native_module_older_than_its_source_is_told(desk: Path) -> None:
    checkout = desk / "checkout"
    source = checkout / "esp_idf_app" / "virtual_board" / "binding.cpp"
    source.parent.mkdir(parents=True)
    source.touch()
    shutil.copy(ROOT / "pyproject.toml", checkout)
    os.utime(source, (1, 1))
    assert finding(examine(Desk(desk, checkout)), "native module").state is State.OK
    os.utime(source, (2**32, 2**32))
    found = finding(examine(Desk(desk, checkout)), "native module")
    assert found.state is State.WARNING and "binding.cpp" in found.says


def test_a_native_module_that_was_not_built_keeps_runs_from_working(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "quant.boards.virtual._virtual_board", None)
    monkeypatch.delattr("quant.boards.virtual._virtual_board", raising=False)
    assert [check.name for check in examine().lacking] == ["native module"]


def test_a_look_is_quick_and_imports_no_tensorflow(desk: Path) -> None:
    script = (
        "import sys, time; from quant.commands.diagnosis import examine; examine()\n"
        "assert 'tensorflow' not in sys.modules and 'scipy.stats' not in sys.modules\n"
        "assert time.process_time() < 2, time.process_time()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=desk, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("desk")
def test_what_is_tried_deeply_may_crash_or_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = {
        "right": "pass",
        "wrong": "raise ValueError('the arithmetic is off')",
        "crash": "import os; os.abort()",
    }
    monkeypatch.setattr(diagnosis, "DEEP", tried)
    monkeypatch.setattr(diagnosis, "DEEP_SECONDS", PATIENCE)
    found = examine(deep=True)
    assert finding(found, "right").state is State.OK
    assert finding(found, "wrong").says == "ValueError: the arithmetic is off"
    assert finding(found, "crash").says == "ended by signal 6"
    assert [check.name for check in found.lacking] == ["wrong", "crash"]
    # By itself: on a loaded machine the others might not end within 2 s either.
    monkeypatch.setattr(diagnosis, "DEEP", {"hang": f"import time; time.sleep({PATIENCE})"})
    monkeypatch.setattr(diagnosis, "DEEP_SECONDS", 2.0)
    found = examine(deep=True)
    assert finding(found, "hang").says == "no end within 2 s"
    assert [check.name for check in found.lacking] == ["hang"]


def test_what_is_tried_deeply_is_there() -> None:
    tried = {
        code.rpartition("selftest.")[2].removesuffix("()") for code in diagnosis.DEEP.values() if "selftest" in code
    }
    assert tried == {"float_policy", "engines", "virtual_board"}


def test_this_machine_computes_what_was_recorded() -> None:
    float_policy()
    engines()
    virtual_board()


def test_a_float_policy_that_is_off_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load(golden_path(), allow_pickle=False) as recorded:
        changed = dict(recorded)
    changed["logits"] = changed["logits"] + np.float32(1e-3)
    np.savez(tmp_path / "golden.npz", **changed)
    monkeypatch.setattr(selftest, "golden_path", lambda: tmp_path / "golden.npz")
    with pytest.raises(SelfTestError, match="0 actions differ"):
        float_policy()


def test_an_arithmetic_that_rounds_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from quant.runners.engines import NumpyEngine

    true = NumpyEngine.invoke

    def off_by_one(self: NumpyEngine, part: Part, q: Codes) -> Codes:
        return np.asarray(np.minimum(true(self, part, q), 126) + 1, q.dtype)

    monkeypatch.setattr(NumpyEngine, "invoke", off_by_one)
    with pytest.raises(SelfTestError, match="TFLite-Micro differs"):
        engines()


def test_a_board_that_decides_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    true = Int8Runner.values

    def other(self: Int8Runner, observations: Observations) -> NDArray[np.float32]:
        return true(self, observations) + np.float32(1)

    monkeypatch.setattr(Int8Runner, "values", other)
    with pytest.raises(SelfTestError, match="200 of 200"):
        virtual_board()
